#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Modules: the program starts without the libraries of GPUs; a module that is missing, damaged or of another version says so when its
# device is asked for, and takes nothing else with it.
set -eu

shoal=${SHOAL:?} modules=${SHOAL_BUILDDIR:?}/modules
[ -e "$modules/cuda.so" ] || {
    echo "this build has no modules"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir none damaged other
head -c 10 "$modules/cuda.so" >damaged/cuda.so
version=$("$shoal" --version | awk '{ print $2 }')
sed "s/$(echo "$version" | sed 's/\./\\./g')/$(echo "$version" | sed 's/[0-9]/9/g')/g" "$modules/cuda.so" >other/cuda.so

fail() {
    echo "test-modules: $*"
    exit 1
}

plan() { # DIRECTORY DEVICE
    SHOAL_MODULES=$1 "$shoal" plan /dev/null model.heads=2 model.layers=1 model.seq=16 model.vocab=64 machine.flops=1e9 \
        machine.memory_gbs=1 run.device="$2" >out 2>err
}

refused() { # DIRECTORY TEXT
    status=0
    plan "$1" cuda || status=$?
    [ "$status" = 2 ] || fail "plan with the modules of $1 ends with $status instead of 2: $(cat err)"
    grep -q "error: device cuda: .*$2" err || fail "the modules of $1: no word of \"$2\" in: $(cat err)"
    [ "$(wc -l <err)" = 1 ] || fail "more than one line: $(cat err)"
    plan "$1" auto || fail "device auto does not do without the modules of $1: $(cat err)"
    grep -q "device cuda: .*\($2\|this machine has no driver\)" err || fail "device auto says nothing of the modules of $1: $(cat err)"
    SHOAL_MODULES=$1 "$shoal" info >out 2>err || fail "info ends with an error for the modules of $1"
    grep -q "^  cuda .*cannot be opened: .*$2" out || fail "info has no word of \"$2\": $(cat out)"
}

libraries='lib(cuda|cudart|cublasLt|cudnn|nccl)\.so'
if ldd "$shoal" | grep -E "$libraries"; then
    fail "the program itself needs what belongs to a module"
fi
# On a machine without a GPU nothing else would notice that a program lacks what a module takes from it.
for program in "$shoal" "$SHOAL_BUILDDIR/tests/test_kernels" "$SHOAL_BUILDDIR/tests/test_reference"; do
    [ -x "$program" ] || continue
    nm -D --defined-only "$program" | awk '{ print $3 }' | sort >exported
    nm -D --undefined-only "$modules"/*.so | awk '$1 == "U" && $2 ~ /^shoal/ { print $2 }' | sort -u >wanted
    [ -s wanted ] || fail "no module takes anything from the program"
    [ -z "$(comm -13 exported wanted)" ] || fail "$program lacks what a module wants: $(comm -13 exported wanted)"
done
plan "$modules" cuda || fail "plan for a GPU ends with an error: $(cat err)"
refused none 'there is no cuda.so in none'
refused damaged 'damaged/cuda.so: file too short'
refused other "other/cuda.so is of shoal"
"$shoal" info >out 2>/dev/null || fail 'info ends with an error'
grep -q '^  cuda  *CUDA runtime .*cuBLASLt' out || fail "info does not list the libraries of a module: $(cat out)"
