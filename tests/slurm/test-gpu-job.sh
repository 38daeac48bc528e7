#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 300
#
# The job scripts on nodes with GPUs, which Slurm hands out as it does real ones (scale-model --gpus): job and steps ask for the right
# things, by Slurm's own records and by what each task is told, whichever way the job asked for its GPUs. No --gpu-bind or
# --gpus-per-task may reach a task: it would see one GPU and could not copy to its neighbours'. Training is stood in for.
# Exit status: 0 passed, 1 failed, 77 not possible here.

set -u

here=$(dirname -- "$(realpath -- "$0")")
slurm=$here/../../slurm
work=$(mktemp -d /tmp/shoal-test.XXXXXX)
failures=0

model() { # COMMAND ARG...
    local command=$1
    shift
    "$slurm/scale-model" "$command" --dir "$work/model" "$@"
}

cleanup() {
    model down 2>/dev/null
    rm -rf "$work"
}

equal() { # WHAT EXPECTED ACTUAL
    if [[ $2 == "$3" ]]; then
        echo "ok: $1"
    else
        printf 'FAILED: %s\nexpected: %s\ngot:      %s\n' "$1" "$2" "$3"
        failures=$((failures + 1))
    fi
}

start() {
    local output status
    output=$(model up --nodes 2 --cpu 0.4 --slots 8 --gpus 4 --share "$work" --share "$slurm/.." --share "${SHOAL%/*}" 2>&1)
    status=$?
    [[ $status != 69 ]] || { echo "SKIP: $output"; exit 77; }
    ((status == 0)) || { echo "$output"; exit 1; }
}

# Every task notes what it was told, as words "run local-rank GPUs CPUs"; the first of a step notes Slurm's record of the step too.
write_stand_in() {
    cat >"$work/train" <<TEXT
#!/bin/sh
for word; do
    case \$word in run.dir=*) run=\${word##*/} ;; esac
done
run=\${run:-train}
echo "\$run \$SLURM_LOCALID gpus=\${CUDA_VISIBLE_DEVICES-unset} cpus=\$SLURM_CPUS_PER_TASK" >>"$work/tasks"
[ "\$SLURM_PROCID" = 0 ] || exit 0
scontrol show step "\$SLURM_JOB_ID.\$SLURM_STEP_ID" | tr -s ' \n' '  ' | sed "s/^/\$run /" >>"$work/steps"
echo >>"$work/steps"
scontrol --details show job "\$SLURM_JOB_ID" >"$work/job"
[ "\$run" = train ] || exec "$here/../fixtures-report/fake-train" "\$@"
TEXT
    chmod +x "$work/train"
    cat >"$work/study.conf" <<TEXT
model = { heads = 2; };
run   = { dir = "$work/out"; };
study = { nodes = [1, 2]; ranks_per_node = [1, 4]; local = 4; warmup = 1; steps = 2; gate_steps = 1; };
TEXT
    : >"$work/fates"
    export SHOAL_TEST_FATES=$work/fates SHOAL_TEST_RAN=$work/ran GNUPLOT=$work/no-gnuplot
}

submit() { # KIND ARGUMENT... -- SBATCH_OPTION...
    local kind=$1 arguments=()
    shift
    while [[ $1 != -- ]]; do arguments+=("$1") && shift; done
    shift
    rm -rf "$work"/{out,tasks,steps,job,job.out}
    touch "$work"/{tasks,steps,job}
    timeout 90 "$slurm/scale-model" run --dir "$work/model" sbatch --wait --time=10 --nodes=2 --cpus-per-task=2 "$@" \
        --output="$work/job.out" "$slurm/$kind.sbatch" "${arguments[@]}" >/dev/null
    equal "$kind.sbatch $* succeeds" 0 $?
    [[ -e $work/out/report.md || $kind == train ]] || cat "$work/job.out"
}

tasks_of() { # RUN: how many tasks of each local rank were told what
    sed -n "s/^$1 //p" "$work/tasks" | sort | uniq -c | xargs
}

record_of() { # RUN KEY...
    local run=$1 key
    shift
    for key; do sed -n "s/^$run .* \($key=[^ ]*\).*/\1/p" "$work/steps"; done | xargs
}

record_of_job() { # KEY...
    local key
    for key; do grep -oE "(^| )$key=[^ ]*" "$work/job"; done | xargs
}

readonly all=gpus=0,1,2,3

check_rows() { # HOW
    equal "$1: one rank, one GPU" "1 0 gpus=0 cpus=2" "$(tasks_of n1r1-full-b4-s1)"
    equal "$1: a rank on each of two nodes" "2 0 gpus=0 cpus=2" "$(tasks_of n2r1-full-b4-s1)"
    equal "$1: four ranks see four GPUs each" "1 0 $all cpus=2 1 1 $all cpus=2 1 2 $all cpus=2 1 3 $all cpus=2" \
        "$(tasks_of n1r4-full-b4-s1)"
    equal "$1: the same on two nodes" "2 0 $all cpus=2 2 1 $all cpus=2 2 2 $all cpus=2 2 3 $all cpus=2" "$(tasks_of n2r4-full-b4-s1)"
    equal "$1: Slurm's record of the smallest step" "Nodes=1 Tasks=1 TresPerNode=gres:gpu:1 TresPerTask=cpu:2" \
        "$(record_of n1r1-full-b4-s1 Nodes Tasks TresPerNode TresPerTask TresBind)"
    equal "$1: Slurm's record of the largest step" "Nodes=2 Tasks=8 TresPerNode=gres:gpu:4 TresPerTask=cpu:2" \
        "$(record_of n2r4-full-b4-s1 Nodes Tasks TresPerNode TresPerTask TresBind)"
}

# The references of three rows run two at a time, one on each node: a step that took all GPUs of the job would make the other wait in vain.
test_study() {
    submit study "--train-command=$work/train" "$work/study.conf" --
    equal "the job asks for whole nodes" "NumNodes=2 NumTasks=8 NumCPUs=16 CPUs/Task=2 GRES=gpu:4(IDX:0-3) TresPerNode=gres:gpu:4" \
        "$(record_of_job NumNodes NumTasks NumCPUs CPUs/Task GRES TresPerNode)"
    check_rows "as the script says"
    for run in g8 g16 g32; do
        equal "reference $run: one rank, one GPU" "1 0 gpus=0 cpus=2" "$(tasks_of $run-s1)"
    done
}

test_other_ways() {
    local how
    for how in --gpus=8 --gpus-per-task=1 --gpu-bind=single:1; do
        submit study "--train-command=$work/train" "$work/study.conf" study.gate_steps=0 -- "$how"
        check_rows "$how"
    done
}

test_train() {
    local how
    for how in --gpus-per-node=4 --gpus-per-task=1; do
        SHOAL=$work/train submit train run.conf -- "$how"
        equal "train.sbatch $how: every task sees all GPUs of its node" \
            "2 0 $all cpus=2 2 1 $all cpus=2 2 2 $all cpus=2 2 3 $all cpus=2" "$(tasks_of train)"
    done
}

trap cleanup EXIT
trap 'exit 1' INT TERM
unset SHOAL_SCALE_MODEL SLURM_CONF
export SHOAL
cd "$work" || exit 1
start
write_stand_in
test_study
test_other_ways
test_train
echo "$failures failures"
((failures == 0))
