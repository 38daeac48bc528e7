#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# bench/train_vs_torch.py with an interpreter that stands in for the one that has torch: a comparison of two steps, which is fewer than the
# warm-up of the learning rate asked for; and what it does when one side fails, or has nothing to measure.
set -eu

shoal=${SHOAL:-./shoal}
compare=$(cd "${SHOAL_SRCDIR:-.}" && pwd)/bench/train_vs_torch.py
if ! command -v python3 >/dev/null; then
    echo "no python3 here"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"
failures=0

fail() {
    echo "$*"
    cat out err
    failures=$((failures + 1))
}

# torch TEXT STATUS: what the other side prints, on both channels, and ends with.
torch() {
    printf '#!/bin/sh\necho "%s"\necho "%s" >&2\nexit %s\n' "$1" "$1" "$2" >python
    chmod +x python
}

# run STATUS ARGUMENT...
run() {
    want=$1
    shift
    got=0
    python3 "$compare" --shoal "$shoal" --python "$work/python" --sizes tiny --ranks 1 --precisions fp32 --no-compile --rounds 1 \
        --warmup 1 --out rounds.jsonl "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "train_vs_torch.py $*: exit $got, expected $want"
}

torch '{\"tokens_per_s\": 5.0}' 0
run 0 --steps 2
grep -q 'ratio shoal / torch [0-9]' out || fail 'no ratio'
grep -q ' torch fp32 eager *5 tokens/s' out || fail 'no figure of the other side'

torch 'the dog ate it' 3
run 1 --steps 2
grep -q 'tiny 1 ranks full: not compared: torch fp32 eager: exit 3: the dog ate it' err || fail 'the failure is not named'
! grep -q 'tokens/s' out || fail 'figures of a row that failed'
torch 'no figures' 0
run 1 --steps 2
grep -q 'ended without figures' err || fail 'no figures pass for some'

torch '{\"tokens_per_s\": 5.0}' 0
run 1 --steps 2 --shoal "$work/none"
grep -q 'not compared: shoal fp32' err || fail 'a missing shoal is not named'
! grep -q 'ratio' out || fail 'a ratio to nothing'
run 2 --steps 0
run 2 --steps 2 --rounds 0
exit $((failures > 0))
