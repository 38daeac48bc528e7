#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# What `shoal plan` says: whether the plan fits beside what is left to libraries and communicators, a prediction without NaN for any
# number of ranks, collectives that cost more than their latency on GPUs, and of every figure where it is from.
set -eu

shoal=${SHOAL:-./shoal}
examples=${SHOAL_SRCDIR:-.}/examples
unset SLURM_NTASKS_PER_NODE SLURM_GPUS_ON_NODE
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
failures=0

fail() {
    echo "$*"
    cat "$directory/out" "$directory/err"
    failures=$((failures + 1))
}

# plan ARGUMENT...: leaves the JSON in out.
plan() {
    "$shoal" plan --json "$@" >"$directory/out" 2>"$directory/err" </dev/null || fail "shoal plan $*: exit code $?"
    said=$*
}

# value NAME: of the JSON; of a figure and its source of one name, the source.
value() {
    sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$directory/out" | tail -n 1
}

# is NAME VALUE
is() {
    [ "$(value "$1")" = "$2" ] || fail "$said: $1 is $(value "$1"), not $2"
}

# holds NAME CONDITION-ON-X
holds() {
    awk -v x="$(value "$1")" "BEGIN { exit !(x == x + 0 && ($2)) }" || fail "$said: $1 is $(value "$1"), not $2"
}

set -- "$examples/tiny.conf" data.train=x run.device=cpu run.threads=1 machine.flops=1e10 machine.memory_gbs=10
plan "$@" run.memory_gib=1
is fits true
is reserve_nbytes 0
is matmul user
is memory user
is link unknown
plan "$@" run.memory_gib=0.001
is fits false
plan -n 4 "$@" machine.link_gbs=1
is node_link user
holds predicted_comm_ms 'x > 1'
plan -n 4 "$@" machine.link_gbs=1 run.reserve_gib=2 run.memory_gib=2
is fits false
is reserve_nbytes 2147483648
"$shoal" plan "$@" run.memory_gib=0.001 >"$directory/out" 2>"$directory/err"
grep -q 'DOES NOT FIT into 0.00 GiB, run.memory_gib' "$directory/out" || fail 'a plan that does not fit is not called so'

if "$shoal" plan "$@" run.device=cuda >/dev/null 2>&1; then
    set -- "$examples/h100x4.conf"
    plan "$@"
    is reserve_nbytes 536870912
    holds predicted_comm_ms 'x == 0'
    holds predicted_mfu_causal 'x > 0.2 && x < 0.67'
    one=$(value predicted_tokens_per_s)
    for ranks in 2 3 4 8 16 32; do
        plan -n "$ranks" "$@"
        is reserve_nbytes 2684354560
        is matmul table
        is attention table
        is memory table
        is node_link table
        is link assumed
        is latency table
        is ranks_per_node user
        holds predicted_comm_ms 'x > 5 && x < 1000'
        holds predicted_tokens_per_s "x > $one * $ranks * 0.8 && x < $one * $ranks * 1.1"
    done
    plan -n 32 "$@"
    is nodes 8
    plan -n 32 "$@" machine.ranks_per_node=8 machine.link_gbs=20 machine.latency_us=30
    is nodes 4
    is link user
    is latency user
    SLURM_NTASKS_PER_NODE=2 plan -n 8 "$@" machine.ranks_per_node=0
    is nodes 4
    "$shoal" plan -n 32 "$@" >"$directory/out" 2>"$directory/err"
    for line in '^  link *assumed' '^  ranks_per_node *user *4$' '^  matmul *table *H100' '^  MFU *[0-9.]* % causal'; do
        grep -q "$line" "$directory/out" || fail "shoal plan -n 32 does not say $line"
    done
    plan -n 4 "$@" parallel.transport=ucx
    [ "$(value reserve_nbytes)" = 536870912 ] || grep -q 'not in this build' "$directory/err" || fail 'host memory needs no communicators'
fi

[ "$failures" = 0 ]
