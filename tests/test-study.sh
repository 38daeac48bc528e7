#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# `shoal study` with a stand-in for training (fixtures-report/fake-train): each way a row can end gets its verdict, results stand and
# failures run again, a changed configuration runs everything again, a wrong loss is found, a request to stop ends with 75, and in
# an allocation rows are job steps.
set -eu

fixtures=$(cd "${SHOAL_SRCDIR:-$(dirname "$0")/..}/tests/fixtures-report" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset SLURM_JOB_ID SLURM_JOB_NUM_NODES SLURM_NNODES SLURM_NTASKS
export SHOAL_TEST_FATES="$work/fates" SHOAL_TEST_RAN="$work/ran" SHOAL_TEST_SRUN="$work/srun"
export GNUPLOT="$work/no-gnuplot" # plots are test-report.sh's matter

cat >study.cfg <<'END'
model: { heads = 2; };
batch: { local = 4; };
optim: { lr = 0.001; };
run: { dir = "out"; };
study: { ranks_per_node = [1, 2]; warmup = 1; steps = 4; gate_steps = 3; gate_tolerance = 1e-6; };
END

fail() {
    echo "test-study: $*"
    cat output 2>/dev/null || :
    exit 1
}

study() { # EXPECTED_STATUS [WORD]...
    expected=$1
    shift
    : >ran
    status=0
    "$SHOAL" study --train-command="$fixtures/fake-train" study.cfg "$@" >output 2>&1 || status=$?
    [ "$status" = "$expected" ] || fail "study $* ended with $status instead of $expected"
}

fates() { printf '%s\n' "$@" >fates; }
says() { grep -qF -e "$1" output || fail "the console does not say: $1"; }
ran() { [ "$(sort ran | tr '\n' ' ')" = "$1" ] || fail "ran $(sort ran | tr '\n' ' ') instead of $1"; }
verdict() { # RUN VERDICT
    found=$(awk -v run="\"$1\"," '$1 == "\"name\":" { name = $2 } $1 == "\"verdict\":" && name == run { print }' out/study.json)
    case $found in *"\"$2\""*) ;; *) fail "$1 has $found instead of $2" ;; esac
}
anew() { rm -rf out; }

# A good study: the one-rank row is its own reference, the other gets one of its own.
fates ''
study 0
ran 'g8-s1 n1r1-full-b4-s1 n1r2-full-b4-s1 '
says '[1/2] 1 local rank, full, batch 4: ok  1000 tokens/s (1000 per rank)  is the loss reference'
says '[2/2] 2 local ranks, full, batch 4: ok  1990 tokens/s (995 per rank, 99.5% of linear)  loss gate 1.0e-08'
grep -q 'stood in for' out/report.md || fail 'the report does not say that the trainer was a stand-in'
grep -q 'not nodes' out/report.md || fail 'the report does not say that the ranks were local'

# All results stand; a larger grid adds its rows; another setting runs everything again.
study 0
ran ''
study 0 'study.local=4,8'
ran 'g16-s1 n1r1-full-b8-s1 n1r2-full-b8-s1 '
study 0 optim.lr=0.002
ran 'g8-s1 n1r1-full-b4-s1 n1r2-full-b4-s1 '
says 'optim.lr was 0.001 in this study and is 0.002 now'

# Two rows with one global batch share the reference, which is a one-rank row where there is one.
anew
study 0 'study.local=4,8'
ran 'g16-s1 n1r1-full-b4-s1 n1r1-full-b8-s1 n1r2-full-b4-s1 n1r2-full-b8-s1 '

# Ends that are results: they stand, and the study is complete.
for end in 'oom:out of memory' 'refused:refused by plan'; do
    anew
    fates "n1r2-full-b4-s1 ${end%%:*}"
    study 0
    verdict n1r2-full-b4-s1 "${end#*:}"
    study 0
    ran ''
done
grep -q 'needs 90 GiB, has 80 GiB' out/report.md || fail 'the report does not say why'

# Ends that are none: they run again, and only they.
for end in segv:crash fail:crash mute:crash lost:hang 'config:bad config' diverged:diverged 'wrong:wrong loss' 'nan:wrong loss'; do
    anew
    fates "n1r2-full-b4-s1 ${end%%:*}"
    study 1
    verdict n1r2-full-b4-s1 "${end#*:}"
    verdict n1r1-full-b4-s1 ok
    fates ''
    study 0
    ran 'n1r2-full-b4-s1 '
    verdict n1r2-full-b4-s1 ok
done

# A row that never ends is a hang; a reference that has enough steps is done.
anew
fates 'n1r1-full-b4-s1 sleep'
study 1 study.ranks_per_node=1 study.timeout_s=1
verdict n1r1-full-b4-s1 hang
anew
fates 'g8-s1 endless'
study 0 study.ranks_per_node=2
verdict g8-s1 ok

# Where one rank cannot run, the row says that it was not compared; where that is no result, it is tried again.
anew
fates 'g8-s1 oom'
study 0 study.ranks_per_node=2
says 'loss not compared: out of memory on one rank'
anew
fates 'g8-s1 fail'
study 1 study.ranks_per_node=2
fates ''
study 0 study.ranks_per_node=2
ran 'g8-s1 '
says 'loss gate 1.0e-08'

# Stopped in a row: the row is marked, the rest is left, and the next call goes on.
anew
fates 'n1r1-full-b4-s1 stop'
study 75
verdict n1r1-full-b4-s1 stopped
verdict n1r2-full-b4-s1 pending
verdict g8-s1 ok
fates ''
study 0
ran 'n1r1-full-b4-s1 n1r2-full-b4-s1 '

# In an allocation: job steps, and rows that need more nodes than there are wait for a larger one.
anew
mkdir -p bin
ln -sf "$fixtures/fake-srun" bin/srun
PATH=$work/bin:$PATH
export PATH SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=2
: >srun
study 1 'study.nodes=2,4' study.ranks_per_node=3
ran 'g24-s1 n2r3-full-b4-s1 '
says '[1/2] 2 nodes x 3 ranks, full, batch 4: ok'
says 'needs 4 nodes, this allocation has 2'
grep -qF -e '--mpi=pmix --kill-on-bad-exit=1 --nodes=2 --ntasks=6 --ntasks-per-node=3' srun || fail "srun got: $(cat srun)"
SLURM_JOB_NUM_NODES=4 study 0 'study.nodes=2,4' study.ranks_per_node=3
ran 'g48-s1 n4r3-full-b4-s1 '

# Steps that never start: killed and launched again, twice at most; then the row says so, and the study goes on. 0: no such limit.
export SHOAL_TEST_STALLS="$work/stalls"
tries() { # RUN TRIES
    found=$(awk -v run="\"$1\"," '$1 == "\"name\":" { name = $2 } $1 == "\"tries\":" && name == run { print $2 + 0 }' out/study.json)
    [ "$found" = "$2" ] || fail "$1 was tried $found times instead of $2"
}
anew
fates ''
printf '%s\n' n1r1-full-b4-s1 n1r2-full-b4-s1 n1r2-full-b4-s1 n1r2-full-b4-s1 g8-s1 >stalls
study 1 study.launch_timeout_s=2
verdict n1r1-full-b4-s1 ok
verdict n1r2-full-b4-s1 hang
tries n1r1-full-b4-s1 2
tries n1r2-full-b4-s1 3
tries g8-s1 2
ran 'g8-s1 n1r1-full-b4-s1 '
says 'n1r2-full-b4-s1: no sign of life 2 s after its launch (study.launch_timeout_s); try 3 of 3 is killed'
says '1000 tokens/s (1000 per rank)  is the loss reference  (started 2 times)'
says 'hang  (started 3 times)  never started: launched 3 times'
[ "$(grep -c '^\$ srun' out/rows/n1r2-full-b4-s1/log.txt)" = 3 ] || fail 'the log does not have each try'
study 0
verdict n1r2-full-b4-s1 ok
tries n1r2-full-b4-s1 1
anew
echo n1r1-full-b4-s1 >stalls
study 1 study.launch_timeout_s=0 study.timeout_s=4 study.ranks_per_node=1
verdict n1r1-full-b4-s1 hang
tries n1r1-full-b4-s1 1
says 'took longer than study.timeout_s'

# With GPUs, of which `salloc` tells only what was asked for: one for each rank, and what Slurm says of this node comes first.
gpus() { "$SHOAL" study --dry-run study.cfg study.ranks_per_node="$1" >output 2>&1 || fail 'no dry run'; }
SLURM_GPUS_PER_NODE=h100:4 gpus 2
says '--cpu-bind=none --gpus-per-node=2 --job-name='
SLURM_GPUS_PER_NODE=h100:4 SLURM_GPUS_ON_NODE=2 gpus 3
says '--cpu-bind=none --gpus-per-node=2 --job-name='
(unset SLURM_GPUS_PER_NODE SLURM_GPUS_ON_NODE && gpus 2)
says '--cpu-bind=none --job-name='

# Not for use: a second study in the same directory, a damaged state, a directory that cannot be made.
unset SLURM_JOB_ID SLURM_JOB_NUM_NODES
echo '{' >out/study.json
study 6
says 'is damaged'
: >file
study 6 run.dir=file/out
study 2 study.nodes=0
echo 'verdicts, resume, gate, stop and job steps as they should be'
