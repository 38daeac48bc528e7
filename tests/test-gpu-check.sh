#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# bench/gpu-check itself, on the program that has stand-ins for CUDA's libraries: every run that it makes on a GPU, with a tiny model.
# What are tests of their own here are left out, and so is what times.
set -eu

if [ ! -x "$SHOAL_BUILDDIR/tests/shoal-standin" ]; then
    echo "this build has no shoal-standin: it wants the CUDA toolkit's headers and a C++ compiler, and no sanitizer"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
mkdir -p "$work/top/tests"
ln -s "$SHOAL_BUILDDIR/tests/shoal-standin" "$work/top/shoal"
for test in test_kernels test_reference; do
    printf '#!/bin/sh\necho "a test of its own"\nexit 77\n' >"$work/top/tests/$test"
    chmod +x "$work/top/tests/$test"
done

# expect STATUS TEXT COMMAND...: the command's exit status, and TEXT in what it prints.
expect() {
    want=$1 text=$2 got=0
    shift 2
    "$@" >"$work/out" 2>&1 || got=$?
    if [ "$got" -ne "$want" ] || ! grep -qF -- "$text" "$work/out"; then
        echo "$*: exit $got, expected $want and: $text"
        cat "$work/out"
        exit 1
    fi
}

# A program that lacks a library, or does not see the GPU that is there, is not a machine without a GPU.
mkdir -p "$work/broken" "$work/bin"
broken() { # WORDS STATUS: what the program says, and ends with
    printf '#!/bin/sh\necho "%s" >&2\nexit %s\n' "$1" "$2" >"$work/broken/shoal"
    chmod +x "$work/broken/shoal"
}
broken 'shoal: error while loading shared libraries: libcudnn.so.9: cannot open shared object file' 127
expect 1 'libcudnn.so.9' env TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check"
expect 1 'cannot start: libraries are missing' env TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check"
broken 'shoal: device cuda: this machine has no driver for NVIDIA GPUs' 0
if [ ! -e /dev/nvidia0 ] && ! nvidia-smi -L >/dev/null 2>&1; then
    expect 77 'no GPU here' env TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check"
fi
printf '#!/bin/sh\necho "GPU 0: one that is there"\n' >"$work/bin/nvidia-smi"
chmod +x "$work/bin/nvidia-smi"
expect 1 'no driver' env PATH="$work/bin:$PATH" TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check"
expect 1 'there is a GPU' env PATH="$work/bin:$PATH" TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check"

# plan STATUS TOTAL BESIDE: a GPU of that many bytes, on which so many are in use beside the plan's.
plan() {
    mkdir -p "$work/plan/cuda-bf16"
    printf '{\n "plan_nbytes": 1000,\n "used_nbytes": 1000,\n "heap_growth_nbytes": 0,\n "device_total_nbytes": %s,\n "device_used_nbytes": %s\n}\n' \
        "$2" $(($3 + 1000)) >"$work/plan/cuda-bf16/summary.json"
    expect "$1" planned env TOP="$work/broken" bash "$SHOAL_SRCDIR/bench/gpu-check" --keep "$work/plan" --step plan_holds
}
plan 0 85000000000 1200000000
plan 1 85000000000 1600000000
plan 0 200000000000 1900000000
plan 1 200000000000 2100000000

status=0
TOP="$work/top" SHOAL_STANDIN=memory=17179869184 bash "$SHOAL_SRCDIR/bench/gpu-check" --tiny --no-bench --keep "$work/runs" >"$work/out" 2>&1 || status=$?
cat "$work/out"
# Everything ran: only the two tests and memcheck, which knows no stand-in, may be skipped.
[ "$status" -eq 0 ] && tail -n 1 "$work/out" | grep -q '^1[0-9] passed, 0 failed, 3 skipped$'
