#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Does compute hide communication, and what does that buy? On the scale model, in turns: one node, eight nodes, one node again, eight
# nodes without prefetch. A round compares both eights with the mean of its ones, so that a drift of this machine's speed falls
# on all of them; the table has the medians over the rounds. Exits with 77 where no scale model can be had.
#
# usage: bench/overlap.sh SHOAL [ROUNDS [RATE [CPU]]]

set -eu

shoal=$(realpath -- "$1")
rounds=${2:-5} rate=${3:-100mbit} cpu=${4:-0.2}
source=$(cd -- "$(dirname -- "$0")/.." && pwd)
work=$(mktemp -d)
model="$source/slurm/scale-model"

finish() {
    "$model" down --dir "$work/model" >/dev/null 2>&1 || true
    rm -rf -- "$work"
}
trap finish EXIT

configure() {
    local pods
    mapfile -t pods < <(find /usr/share/perl /usr/share/common-licenses -type f \( -name '*.pod' -o -path '*/common-licenses/*' \))
    "$shoal" data tokenize --valid 0.05 -o "$work/corpus" "${pods[@]}" >/dev/null
    sed "s|corpus\.|$work/corpus.|g" "$source/examples/demo.conf" >"$work/bench.conf"
}

# One run; prints a line "tokens/s step_ms comm_ms exposed_ms start_ms".
measure() { # NODES PREFETCH
    rm -rf "$work/run"
    # shellcheck disable=SC2016 # The nodes' shell expands it: the clock starts when srun does.
    "$model" run --dir "$work/model" -- bash -c \
        'SHOAL_LAUNCH_TIME=$(date +%s.%N) SHOAL_LOG=error exec srun --mpi=pmix --kill-on-bad-exit=1 "$@"' - -N "$1" -n "$1" \
        "$shoal" train "$work/bench.conf" parallel.prefetch="$2" run.dir="$work/run" run.steps=6 study.warmup=2 >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
    python3 -c '
import json, sys
s = json.load(open(sys.argv[1]))
print(s["tokens_per_s"]["median"], s["step_ms"]["median"], s["comm_ms"], s["exposed_ms"], s["launch_to_first_step_ms"] - s["first_step_ms"])
' "$work/run/summary.json"
}

report() { # FILE: lines "NAME tokens/s step comm exposed start"
    python3 - "$1" <<'PY'
import statistics, sys
rows = {}
for line in open(sys.argv[1]):
    name, *figures = line.split()
    rows.setdefault(name, []).append([float(f) for f in figures])
print(f'{"run":22s} {"tokens/s":>9s} {"step ms":>9s} {"comm ms":>9s} {"exposed ms":>10s} {"of comm":>8s} {"efficiency":>10s} {"start ms":>9s}')
ones = [run[0] for run in rows["1-node"]]
base = [(first + second) / 2 for first, second in zip(ones[::2], ones[1::2])]
for name, runs in rows.items():
    m = [statistics.median(column) for column in zip(*runs)]
    ranks = int(name.split("-")[0])
    ratios = [r[0] / (ranks * one) for r, one in zip(runs, base if ranks > 1 else ones)]
    share = 100 * statistics.median(r[3] / r[2] for r in runs) if m[2] > 0 else 0.0
    print(f'{name:22s} {m[0]:9.0f} {m[1]:9.1f} {m[2]:9.1f} {m[3]:10.1f} {share:7.1f}% {100 * statistics.median(ratios):9.1f}% {m[4]:9.0f}'
          f'   efficiency by round: {" ".join(f"{100 * r:.0f}%" for r in ratios)}')
PY
}

configure
"$model" up --dir "$work/model" --nodes 8 --cpu "$cpu" --rate "$rate" --share "$work" --share "$(dirname "$shoal")" || { echo "no scale model here"; exit 77; }
for ((round = 1; round <= rounds; round++)); do
    for run in "1-node 1 1" "8-nodes 8 1" "1-node 1 1" "8-nodes-prefetch-0 8 0"; do
        read -r name nodes prefetch <<<"$run"
        figures=$(measure "$nodes" "$prefetch") || exit 1
        echo "$name $figures" >>"$work/figures"
    done
done
report "$work/figures"
