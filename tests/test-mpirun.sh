#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Ranks that mpirun starts: they find each other through PMIx, the collectives of the mpi and the ucx transport are exact, also under
# the memory of GPUs, a rank that stops is named, and ranks that were started without a way to find each other are refused.
set -eu

skip() {
    echo "test-mpirun: skipped: $*"
    exit 77
}

command -v mpirun >/dev/null || skip "no mpirun"
"$SHOAL" info 2>/dev/null | grep -Eq '^ +mpi( |$)' || skip "this build has no MPI"
test -x "$SHOAL_BUILDDIR/tests/test_collectives" || skip "the tests of the collectives are not built"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 SHOAL_TEST_LAUNCHED=1
mpirun -n 2 true || skip "mpirun does not run here"

for transport in mpi ucx; do
    if ! "$SHOAL" info 2>/dev/null | grep -Eq "^ +$transport( |\$)"; then
        continue
    fi
    echo "test-mpirun: $transport"
    SHOAL_TEST_TRANSPORT=$transport mpirun -n 4 "$SHOAL_BUILDDIR/tests/test_collectives"
    if [ -x "$SHOAL_BUILDDIR/tests/test_pinned" ]; then
        echo "test-mpirun: $transport under the memory of GPUs"
        SHOAL_TEST_TRANSPORT=$transport mpirun -n 3 "$SHOAL_BUILDDIR/tests/test_pinned"
        SHOAL_TEST_TRANSPORT=$transport SHOAL_TEST_AHEAD=1 mpirun -n 2 "$SHOAL_BUILDDIR/tests/test_pinned"
    fi
done

# A rank that stops is named, and the job ended, it too. The second line of defence is a limit that only says "hangs".
# mpirun of Open MPI 4.1 at times falls over itself when its ranks end so: a signal in its own PMIx_server_finalize, behind
# our last line, takes the exit code and is no fault of the ranks.
for bootstrap in pmix mpi; do
    echo "test-mpirun: a stopped rank under $bootstrap"
    code=0
    said=$(SHOAL_TEST_LAUNCHED=$bootstrap timeout 90 mpirun -n 4 "$SHOAL_BUILDDIR/tests/test_bootstrap" 2>&1) || code=$?
    case $said in *'mca_pmix_ext3x.so(ext3x_server_finalize'*) [ "$code" != 139 ] || code=5 ;; esac
    case $code.$said in
        5.*"at the stage \"the test's own stage\": waited 3 s in vain for rank 1"*) ;;
        *) echo "exit code $code: $said"; exit 1 ;;
    esac
done

echo "test-mpirun: ranks without PMIx"
if mpirun -n 2 env -u PMIX_NAMESPACE -u OMPI_COMM_WORLD_SIZE PMI_SIZE=2 "$SHOAL" bench --max 8K --no-check 2>/dev/null; then
    echo "two worlds of one were taken for a world of two"
    exit 1
fi
