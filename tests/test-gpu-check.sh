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
status=0
TOP="$work/top" SHOAL_STANDIN=memory=17179869184 bash "$SHOAL_SRCDIR/bench/gpu-check" --tiny --no-bench --keep "$work/runs" >"$work/out" 2>&1 || status=$?
cat "$work/out"
# Everything ran: only the two tests and memcheck, which knows no stand-in, may be skipped.
[ "$status" -eq 0 ] && tail -n 1 "$work/out" | grep -q '^1[0-9] passed, 0 failed, 3 skipped$'
