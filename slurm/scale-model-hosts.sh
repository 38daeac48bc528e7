# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The hosts of a scale model, made of cgroups, namespaces and links; sourced by scale-model.
#
#   Hosts.  Each host (the controller "ctl" and the nodes n1..nN) is a set of namespaces kept alive by one sleeping
#   holder process: network, host name and mounts for all; IPC and PIDs too for the nodes, because UCX and Open MPI take
#   processes that share those for neighbours and would move their data past the network.
#   Network.  The bridge stands inside the controller's network namespace, and each node hangs on it by a veth pair with
#   a token bucket at both ends. Nothing of it is visible from the machine itself, so addresses, ports and names are
#   constants and still cannot collide, neither with the machine nor with another scale model.
#   Life.  Every process starts in the cgroup of its host, and its children stay there. That makes the cgroup tree the
#   complete list of what to kill; with the last process the kernel drops the namespaces and all links and mounts in
#   them.
#
# It reads the caller's variables dir, id, nodes, cpu, rate and shared, and sets cgroup_version, cgroup and
# daemon_pid.
# shellcheck disable=SC2154,SC2034

# --------------------------------------------------------------------------------------------------------- the machine

# Tries everything out in namespaces that end with the attempt, because what a container allows cannot be looked up.
check_machine() {
    local program
    for program in ip tc unshare nsenter setsid munged munge slurmctld slurmd srun sinfo scontrol; do
        command -v $program >/dev/null || unavailable "the program $program is not installed"
    done
    ((UID == 0)) || unavailable "it takes root"
    unshare --net --uts --mount --ipc --pid --fork --mount-proc true || unavailable "namespaces are not allowed"
    unshare --net sh -euc 'ip link add bridge0 type bridge
        ip link add veth0 type veth peer name veth1
        tc qdisc add dev veth0 root tbf rate 1mbit burst 20kb latency 50ms' ||
        unavailable "the kernel lacks veth, bridge or the token bucket (sch_tbf)"
}

# ------------------------------------------------------------------------------------------------------------ cgroups

# Prints version and mount point of each hierarchy that has the cpu controller.
find_cpu_hierarchy() {
    local path
    awk '$3 == "cgroup" && $4 ~ /(^|,)cpu(,|$)/ { print 1, $2 }' /proc/mounts
    awk '$3 == "cgroup2" { print $2 }' /proc/mounts | while read -r path; do
        ! grep -qw cpu "$path/cgroup.controllers" || echo 2 "$path"
    done
}

locate_cgroup() {
    local root
    read -r cgroup_version root < <(find_cpu_hierarchy) || unavailable "no cgroup hierarchy has the cpu controller"
    cgroup=$root/$id
}

make_cgroups() {
    local host
    if ((cgroup_version == 2)); then
        echo +cpu >"${cgroup%/*}/cgroup.subtree_control" || unavailable "the root cgroup keeps the cpu controller"
    fi
    mkdir "$cgroup" || unavailable "$cgroup cannot be created"
    ((cgroup_version == 1)) || echo +cpu >"$cgroup/cgroup.subtree_control"
    for host in ctl $(node_names); do
        mkdir "$cgroup/$host"
    done
}

# A rank that used up its quota sleeps until the period ends, so a short period, 10 ms, keeps that jitter well below a
# step. The kernel takes no quota below 1 ms, so shares below a tenth get a longer period.
limit_cpu() { # NODE
    local milli period_us=10000 quota_us
    milli=$(parse_milli_cpu "$cpu")
    ((milli >= 100)) || period_us=$((1000000 / milli))
    quota_us=$((milli * period_us / 1000))
    if ((cgroup_version == 1)); then
        echo $period_us >"$cgroup/$1/cpu.cfs_period_us"
        echo $quota_us >"$cgroup/$1/cpu.cfs_quota_us"
    else
        echo $quota_us $period_us >"$cgroup/$1/cpu.max"
    fi
}

# A quota is handed to CPUs in slices of several milliseconds, and what one CPU holds of it the threads on another cannot
# use: a node with two threads would lose a part of its small share. So each node stays on one CPU, where that fits.
keep_on_cpu() { # HOST: this process and its children
    local cpus
    [[ $1 != ctl ]] || return 0
    mapfile -t cpus < <(taskset -pc $BASHPID | sed 's/.*: //' | tr , '\n' | awk -F- '{ for (i = $1; i <= $NF; i++) print i }')
    (((nodes + ${#cpus[@]} - 1) / ${#cpus[@]} * $(parse_milli_cpu "$cpu") > 1000)) ||
        taskset -pc "${cpus[${1#n} % ${#cpus[@]}]}" $BASHPID >/dev/null
}

cgroup_pids() {
    find "$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# Killing and removing are tried again together: a process may fork between the look and the kill, and a dying process
# stays in its cgroup for a moment.
remove_cgroups() {
    local pids try
    for ((try = 0; try < 200; try++)); do
        mapfile -t pids < <(cgroup_pids)
        ((${#pids[@]} == 0)) || kill -KILL "${pids[@]}" 2>/dev/null || true
        find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [[ -d $cgroup ]] || return 0
        sleep 0.05
    done
    die "$cgroup cannot be removed; still in it: $(cgroup_pids | xargs)"
}

# ----------------------------------------------------------------------------------------------------------- processes

node_names() {
    seq -f 'n%.0f' 1 "$nodes"
}

# Prints the PID of HOST's holder. A PID file alone could name a stranger after a crash, which the cgroup cannot.
holder_pid() { # HOST
    local pid
    pid=$(cat "$dir/run/$1.holder" 2>/dev/null) && grep -qx "$pid" "$cgroup/$1/cgroup.procs" 2>/dev/null && echo "$pid"
}

# Replaces this process by COMMAND in HOST's cgroup and namespaces. Entering a mount namespace moves a process to the
# root directory, hence the way back.
exec_in() { # HOST COMMAND ARG...
    local host=$1 pid spaces=(--net --uts --mount)
    shift
    pid=$(holder_pid "$host") || die "$host does not run (any more); see $dir/log"
    [[ $host == ctl ]] || spaces+=(--ipc --pid)
    echo $BASHPID >"$cgroup/$host/cgroup.procs"
    keep_on_cpu "$host"
    # shellcheck disable=SC2016 # Expanded by the inner shell.
    exec nsenter --target "$pid" "${spaces[@]}" -- /bin/sh -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$PWD" "$@"
}

in_host() ( # HOST COMMAND ARG...
    exec_in "$@"
)

# The daemon just started outlives this script; bash shall neither keep it as a job nor announce its death.
own_daemon() {
    daemon_pid=$!
    disown "$daemon_pid"
}

start_on() { # HOST LOG COMMAND ARG...
    local host=$1 log=$dir/log/$2
    shift 2
    (exec_in "$host" setsid "$@") </dev/null >>"$log" 2>&1 &
    own_daemon
}

# ------------------------------------------------------------------------------------------------------------ the hosts

make_host() { # HOST
    start_holder "$1"
    mount_files "$1"
    if [[ $1 == ctl ]]; then
        make_bridge
    else
        make_link "$1"
    fi
}

# The holder of a node is the first process of its PID namespace. Orphans become its children, so it is a shell that
# waits and thereby reaps them.
start_holder() { # HOST
    local host=$1 spaces=(--net --uts --mount --propagation slave)
    [[ $host == ctl ]] || spaces+=(--ipc --pid --fork --kill-child --mount-proc)
    # shellcheck disable=SC2016 # Expanded by the inner shell.
    (
        echo $BASHPID >"$cgroup/$host/cgroup.procs"
        exec setsid unshare "${spaces[@]}" /bin/sh -c 'hostname "$0"; sleep infinity & wait' "$host"
    ) </dev/null >>"$dir/log/$host.log" 2>&1 &
    own_daemon
    wait_for "$host.log" "the namespaces of $host" find_holder "$host"
}

# The holder is the parent of the sleeper: once that one exists, the namespaces are complete.
find_holder() { # HOST
    local pid
    for pid in $(<"$cgroup/$1/cgroup.procs"); do
        [[ $(<"/proc/$pid/comm") == sleep ]] || continue
        awk '/^PPid:/ { print $2 }' "/proc/$pid/status" >"$dir/run/$1.holder"
        return 0
    done
    return 1
}

# Gives HOST the table of host names and, if it is a node, a /tmp and a /dev/shm of its own. The PMIx plugin of Slurm
# makes its directory in /tmp under a name that depends on the job only, so nodes must not share it.
mount_files() { # HOST
    local host=$1 path below=()
    in_host "$host" mount --bind "$dir/hosts" /etc/hosts
    [[ $host != ctl ]] || return 0
    in_host "$host" mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    for path in "$dir" "${shared[@]}"; do
        [[ $path != /tmp/* ]] || below+=("$path")
    done
    mkdir -m 1777 "$dir/tmp/$host"
    in_host "$host" /bin/bash -euc "$cover_tmp" cover_tmp "$dir/tmp/$host" "${below[@]}"
}

# Arguments: the new /tmp, then the directories below the old one that shall stay in view. They are held open while the
# new /tmp covers them, and mount must not resolve the name of the open directory, which leads to the new one.
# shellcheck disable=SC2016 # Expanded by the inner shell.
readonly cover_tmp='
    new=$1 fds=()
    shift
    for path; do
        exec {fd}<"$path"
        fds+=("$fd")
    done
    mount --bind "$new" /tmp
    for path; do
        mkdir -p "$path"
        mount --no-canonicalize --bind "/proc/self/fd/${fds[0]}" "$path"
        fds=("${fds[@]:1}")
    done'

# ---------------------------------------------------------------------------------------------------------- the network

host_address() { # HOST
    case $1 in
        ctl) echo 10.0.0.254 ;;
        n*) echo "10.0.0.${1#n}" ;;
    esac
}

make_bridge() {
    in_host ctl ip -batch - <<TEXT
link set lo up
link add br0 type bridge
addr add $(host_address ctl)/24 dev br0
link set br0 up
TEXT
}

# A link starts with a burst of one millisecond of its rate for free, but not less than a packet needs. Packets are the
# largest that segmentation offload makes: a network card cuts them for nothing, here the nodes would pay in CPU time.
# The controller's side of the link may queue longer than any sender sends ahead: real fabrics do not drop either.
make_link() { # NODE
    local node=$1 kbit burst packet=65536 bucket
    kbit=$(parse_kbit "$rate")
    burst=$((kbit / 8 > packet * 5 / 4 ? kbit / 8 : packet * 5 / 4))
    bucket="root tbf rate ${kbit}kbit burst $burst latency 100ms"
    in_host ctl ip -batch - <<TEXT
link add $node type veth peer name eth0 netns $(holder_pid "$node")
link set $node master br0 gso_max_size $packet up
TEXT
    in_host ctl tc -batch - <<<"qdisc add dev $node $bucket"
    in_host "$node" ip -batch - <<TEXT
link set lo up
addr add $(host_address "$node")/24 dev eth0
link set eth0 gso_max_size $packet up
TEXT
    in_host "$node" tc -batch - <<<"qdisc add dev eth0 $bucket"
}
