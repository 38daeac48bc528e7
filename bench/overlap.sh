#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Does compute hide communication, and what does that buy? On the scale model: eight nodes train together while a ninth trains alone, at
# the same time, so that whatever else this machine does falls on both; with and without prefetch, in turns. Efficiency is the
# throughput per rank of the eight over that of the ninth; the table has the medians over the rounds. The model is the demo's with
# as many layers as a real one has: only the first gather and the last reduction of a step have nothing to hide behind. Exits
# with 77 where no scale model can be had.
#
# usage: bench/overlap.sh SHOAL [ROUNDS [RATE [CPU]]]

set -eu

shoal=$(realpath -- "$1")
rounds=${2:-5} rate=${3:-90mbit} cpu=${4:-0.18}
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

# One run in the background of others.
train() { # NAME NODES NODELIST PREFETCH
    # shellcheck disable=SC2016 # The nodes' shell expands it: the clock starts when srun does.
    "$model" run --dir "$work/model" -- bash -c \
        'SHOAL_LAUNCH_TIME=$(date +%s.%N) SHOAL_LOG=error exec srun --mpi=pmix --kill-on-bad-exit=1 "$@"' - -N "$2" -n "$2" -w "$3" \
        "$shoal" train "$work/bench.conf" parallel.prefetch="$4" run.dir="$work/$1" run.steps=7 study.warmup=2 model.layers=24 >"$work/$1.log" 2>&1 ||
        { cat "$work/$1.log" >&2; return 1; }
}

# Prints a line "tokens/s step_ms comm_ms exposed_ms start_ms" of the eight, then the tokens/s of the ninth.
measure() { # PREFETCH
    local alone
    rm -rf "$work/alone" "$work/eight"
    train alone 1 n9 1 &
    alone=$!
    train eight 8 'n[1-8]' "$1" || return 1
    wait $alone || return 1
    python3 -c '
import json, sys
s, one = (json.load(open(f"{sys.argv[1]}/{name}/summary.json")) for name in ("eight", "alone"))
print(s["tokens_per_s"]["median"], s["step_ms"]["median"], s["comm_ms"], s["exposed_ms"],
      s["launch_to_first_step_ms"] - s["first_step_ms"], one["tokens_per_s"]["median"])
' "$work"
}

report() { # FILE: lines "NAME tokens/s step comm exposed start one"
    python3 - "$1" <<'PY'
import statistics, sys
rows = {}
for line in open(sys.argv[1]):
    name, *figures = line.split()
    rows.setdefault(name, []).append([float(f) for f in figures])
print(f'{"8 nodes":12s} {"tokens/s":>9s} {"step ms":>9s} {"comm ms":>9s} {"exposed ms":>10s} {"of comm":>8s} {"alone":>9s} {"efficiency":>10s} {"start ms":>9s}')
for name, runs in rows.items():
    m = [statistics.median(column) for column in zip(*runs)]
    ratios = [r[0] / (8 * r[5]) for r in runs]
    share = 100 * statistics.median(r[3] / r[2] for r in runs)
    print(f'{name:12s} {m[0]:9.0f} {m[1]:9.1f} {m[2]:9.1f} {m[3]:10.1f} {share:7.1f}% {m[5]:9.0f} {100 * statistics.median(ratios):9.1f}% {m[4]:9.0f}'
          f'   efficiency by round: {" ".join(f"{100 * r:.1f}%" for r in ratios)}')
PY
}

configure
"$model" up --dir "$work/model" --nodes 9 --cpu "$cpu" --rate "$rate" --share "$work" --share "$(dirname "$shoal")" || { echo "no scale model here"; exit 77; }
for ((round = 1; round <= rounds; round++)); do
    for prefetch in 1 0; do
        figures=$(measure $prefetch) || exit 1
        echo "prefetch=$prefetch $figures" >>"$work/figures"
    done
done
report "$work/figures"
