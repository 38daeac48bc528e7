#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The scale model and the job scripts: options are checked, a cluster comes up with the limits it was asked for, PMIx
# and requeueing work on it, two clusters do not disturb each other, and nothing is left of them afterwards, not even of
# one that failed to come up. Limits are read back, not timed. Exit status: 0 passed, 1 failed, 77 not possible here.

set -u

here=$(dirname -- "$(realpath -- "$0")")
slurm=$here/../../slurm
work=$(mktemp -d /tmp/shoal-test.XXXXXX)
failures=0

# ------------------------------------------------------------------------------------------------------------- helpers

model() { # COMMAND INSTANCE ARG...
    local command=$1 instance=$2
    shift 2
    "$slurm/scale-model" "$command" --dir "$work/$instance" "$@"
}

cleanup() {
    local instance
    for instance in a b broken; do
        model down $instance 2>/dev/null
    done
    rm -rf "$work"
}

skip() {
    echo "SKIP: $*"
    exit 77
}

check() { # WHAT COMMAND ARG...
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        echo "FAILED: $what"
        failures=$((failures + 1))
    fi
}

equal() { # EXPECTED ACTUAL
    [[ $1 == "$2" ]] || { printf 'expected: %s\ngot:      %s\n' "$1" "$2"; false; }
}

contains() { # TEXT PATTERN
    grep -qE -- "$2" <<<"$1" || { printf 'no "%s" in:\n%s\n' "$2" "$1"; false; }
}

# The limit is only there to end a test that hangs.
eventually() { # COMMAND ARG...
    local try
    for ((try = 0; try < 600; try++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    echo "in vain: $*"
    false
}

words() { sort -V | xargs; }

# --------------------------------------------------------------------------------------------------------------- cases

refuses() { # OPTION VALUE
    local output status
    output=$("$slurm/scale-model" up --dir "$work/a" "$1" "$2" 2>&1)
    status=$?
    equal 2 $status && contains "$output" "$1"
}

test_options() {
    local option
    for option in '--nodes 0' '--nodes 201' '--nodes x' '--cpu 0' '--cpu 0.001' '--cpu 9999' '--cpu -1' '--rate 1' \
        '--rate 1kbit' '--rate 101gbit' '--slots 0' '--gpus 17' '--share /nonexistent' '--latency 1'; do
        # shellcheck disable=SC2086 # Two words.
        check "up $option is refused" refuses $option
    done
    check "a command is needed" equal 2 "$("$slurm/scale-model" 2>/dev/null; echo $?)"
}

build_hello() {
    local flags
    flags=$(pkg-config --cflags --libs pmix 2>/dev/null) || flags=-lpmix
    # shellcheck disable=SC2086 # Flags are words.
    ${CC:-cc} -o "$work/pmix-hello" "$here/pmix-hello.c" $flags 2>"$work/cc.log" ||
        skip "a PMIx program cannot be built: $(tail -n 1 "$work/cc.log")"
}

start_first() {
    local output status
    output=$(model up a --nodes 3 --cpu 0.2 --rate 100mbit 2>&1)
    status=$?
    [[ $status != 69 ]] || skip "$output"
    check "up" equal 0 $status
    ((status == 0)) || { echo "$output"; exit 1; }
}

test_nodes() {
    check "srun reaches all nodes" equal "n1 n2 n3" "$(model run a srun -N 3 hostname | words)"
    check "status shows them" equal "n1 idle n2 idle n3 idle" \
        "$(eventually all_idle && model status a | awk 'NR > 1 { print $1, $2 }' | words)"
    check "run returns the command's status" equal 7 "$(model run a sh -c 'exit 7'; echo $?)"
    # shellcheck disable=SC2016 # Expanded on the node.
    check "/tmp is private" equal "1 1 1" \
        "$(model run a srun -N 3 sh -c 'touch /tmp/$(hostname); ls /tmp/n? | wc -l' | xargs)"
    check "down from inside is refused" equal 1 \
        "$(model run a "$slurm/scale-model" down --dir "$work/a" 2>/dev/null; echo $?)"
    check "a second up is refused" equal 1 "$(model up a 2>/dev/null; echo $?)"
}

all_idle() { ! model status a | grep -qE 'alloc|mix|comp'; }

# What a rank itself sees: the cgroup that it is in, and that cgroup's limits.
# shellcheck disable=SC2016 # Expanded on the node.
readonly print_cpu_limit='
    cgroup=$(sed -nE "s/^[0-9]+:([^:]*,)?cpu(,[^:]*)?:|^0::(.)/\\3/p" /proc/self/cgroup | head -n 1)
    if [ -e /sys/fs/cgroup/cpu$cgroup/cpu.cfs_quota_us ]; then
        cd /sys/fs/cgroup/cpu$cgroup && echo ${PWD##*/} $(cat cpu.cfs_quota_us cpu.cfs_period_us)
    else
        cd /sys/fs/cgroup$cgroup && echo ${PWD##*/} $(cat cpu.max)
    fi'

test_limits() {
    local node
    check "ranks have the CPU share" equal "n1 2000 10000 n2 2000 10000 n3 2000 10000" \
        "$(model run a srun -N 3 sh -c "$print_cpu_limit" | words)"
    for node in n1 n2 n3; do
        check "the link to $node has the rate" contains "$(model run a tc qdisc show dev $node)" 'tbf.* rate 100Mbit '
    done
    check "the links from the nodes have the rate" equal 3 \
        "$(model run a srun -N 3 tc qdisc show dev eth0 | grep -c 'tbf.* rate 100Mbit ')"
}

# About one in a hundred such steps of Slurm 22.05 never starts, with or without its direct connections: it gets a second chance.
hello() {
    timeout -k 5 25 "$slurm/scale-model" run --dir "$work/a" srun --mpi=pmix -N 3 "$work/pmix-hello"
}

test_pmix() {
    check "PMIx joins all ranks" equal "0/3 n1 n2 n3 1/3 n1 n2 n3 2/3 n1 n2 n3" "$({ hello || hello; } | words)"
    check "steps of one job run side by side" equal "n1 n1 n2 n2" \
        "$(model run a salloc --quiet -N 2 sh -c 'srun --overlap hostname & srun --overlap hostname; wait' | words)"
}

# Stands in for shoal: the first run waits until it is asked to stop and wants to run again, the second one is done.
write_fake_shoal() {
    cat >"$work/shoal" <<'TEXT'
#!/bin/sh
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
    trap 'exit 75' USR1
    touch "$2.started"
    sleep 600 & wait
fi
echo "fake shoal $1 $2 is done"
TEXT
    chmod +x "$work/shoal"
}

submit() { # KIND SBATCH_OPTION...; prints the job id
    local kind=$1
    shift
    model run a sbatch --parsable --time=10 --ntasks-per-node=1 --cpus-per-task=1 --gpus-per-node=0 "$@" \
        --output="$work/$kind.out" "$slurm/$kind.sbatch" "$work/$kind"
}

job_is() { # ID STATE
    model run a scontrol show job "$1" | grep -q "JobState=$2"
}

check_requeue() { # KIND ID
    eventually job_is "$2" COMPLETED
    check "$1.sbatch requeues itself" contains "$(cat "$work/$1.out")" 'job [0-9]+: requeued'
    check "$1.sbatch comes to its end" contains "$(cat "$work/$1.out")" "fake shoal $1 .* is done"
    check "$1.sbatch's job is complete" job_is "$2" COMPLETED
}

test_requeue() {
    local study train
    write_fake_shoal
    export SHOAL=$work/shoal
    study=$(submit study --nodes=1)
    train=$(submit train --nodes=2)
    check "study.sbatch starts shoal" eventually test -e "$work/study.started"
    check "train.sbatch starts shoal" eventually test -e "$work/train.started"
    # What Slurm does by itself when the time limit is near.
    model run a scancel --batch --signal=USR1 "$study" "$train"
    check_requeue study "$study"
    check_requeue train "$train"
    SHOAL_MAX_REQUEUES=0 test_requeue_limit
}

test_requeue_limit() {
    local study
    rm "$work/study.started"
    study=$(submit study --nodes=1)
    eventually test -e "$work/study.started"
    model run a scancel --batch --signal=USR1 "$study"
    eventually job_is "$study" FAILED
    check "requeues are limited" contains "$(cat "$work/study.out")" 'not requeued'
}

test_two() {
    check "a second cluster comes up" model up b --nodes 2 --cpu 0.1 --rate 10mbit
    check "the second one works" equal "n1 n2" "$(model run b srun -N 2 hostname | words)"
    check "the first one still works" equal "n1 n2 n3" "$(model run a srun -N 3 hostname | words)"
    remember_namespaces b
    check "the second one goes down" model down b
    check_gone b
    check "the first one works without it" equal "n1 n2 n3" "$(model run a srun -N 3 hostname | words)"
}

remember_namespaces() { # INSTANCE
    local holder
    for holder in "$work/$1"/run/*.holder; do
        readlink "/proc/$(cat "$holder")/ns/net"
    done >"$work/$1.namespaces"
}

cgroup_of() { # INSTANCE
    find /sys/fs/cgroup -type d -name "shoal-$(printf %s "$work/$1" | sha256sum | cut -c1-10)"
}

# Processes that ended but were not yet collected by their parent have no arguments any more. The pattern comes from a
# file so that grep does not find itself.
processes_of() { # INSTANCE
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -Ff <(echo "$work/$1/")
}

namespaces_of() { # INSTANCE
    readlink /proc/[0-9]*/ns/net 2>/dev/null | grep -xFf "$work/$1.namespaces"
}

check_gone() { # INSTANCE
    check "$1 leaves no cgroup" equal "" "$(cgroup_of "$1")"
    check "$1 leaves no process" equal "" "$(processes_of "$1")"
    check "$1 leaves no namespace" equal "" "$([[ ! -s $work/$1.namespaces ]] || namespaces_of "$1")"
    check "$1 leaves no mount" equal "" "$(grep -F "$work/$1" /proc/mounts)"
    check "$1 leaves no file" test ! -e "$work/$1"
}

test_down() {
    remember_namespaces a
    model run a sleep 600 &
    # shellcheck disable=SC2046 # PIDs are words.
    kill -KILL $(head -n 1 "$(cgroup_of a)/ctl/cgroup.procs" "$(cgroup_of a)/n2/cgroup.procs" | grep -x '[0-9]*')
    check "down after a crash" model down a
    wait
    check_gone a
    check "down of nothing is no error" model down a
    check "run of nothing is one" equal 1 "$(model run a true 2>/dev/null; echo $?)"
}

test_failed_up() {
    local output status
    mkdir "$work/bin"
    printf '#!/bin/sh\necho broken on purpose >&2\nexit 1\n' >"$work/bin/slurmctld"
    chmod +x "$work/bin/slurmctld"
    output=$(PATH=$work/bin:$PATH model up broken 2>&1)
    status=$?
    check "a failed up says so" equal 1 $status
    check "a failed up shows the cause" contains "$output" "broken on purpose"
    check "a failed up leaves only logs" equal log "$(ls "$work/broken")"
    check "down removes the logs" model down broken
    check_gone broken
}

trap cleanup EXIT
trap 'exit 1' INT TERM
unset SHOAL_SCALE_MODEL SLURM_CONF
cd "$work" || exit 1
test_options
build_hello
start_first
test_nodes
test_limits
test_pmix
test_requeue
test_two
test_down
test_failed_up
echo "$failures failures"
((failures == 0))
