#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# The time from launch to the first step: its parts add up to it on every rank, it counts from the start of the process or from a
# launcher's stamp, and a stamp that cannot be true is said so once and not used.
set -eu

shoal=${SHOAL:-./shoal}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
failures=0

fail() {
    echo "$*"
    cat err
    failures=$((failures + 1))
}

printf '%s' "$(seq -s ' ' 1 400)" >text
: >run.conf
"$shoal" data tokenize -o data text >/dev/null 2>&1
arguments='run.conf data.train=data.train.bin model.heads=1 model.layers=1 model.head_dim=16 model.seq=16 model.vocab=256 batch.local=1
    run.device=cpu run.threads=1 run.steps=2 run.dir=run'

# Prints "PART MS" of the start that counts, after a look at all of them: ten parts, none negative, the same sum as the whole.
parts() {
    awk '
        /"start_ms": \{/ { sum = 0; n = 0; inside = 1; text = ""; next }
        inside && /\}/ {
            inside = 0; nstarts++
            if (n != 10) { print "a start has " n " parts"; exit }
            longest = sum > longest ? sum : longest
            last = text; last_sum = sum
            next
        }
        inside {
            gsub(/[",:]/, "")
            if (!($2 >= 0)) { print "part " $1 " is " $2; exit }
            n++; sum += $2; text = text $1 " " $2 "\n"
        }
        /"launch_to_first_step_ms"/ { gsub(/[",:]/, ""); whole = $2 }
        END {
            if (nstarts != ranks + 1) { print nstarts " starts of " ranks " ranks" }
            if (!(longest - whole < 0.01 && whole - longest < 0.01)) { print "the longest start took " longest ", and the whole " whole }
            if (!(last_sum - whole < 0.01 && whole - last_sum < 0.01)) { print "parts add up to " last_sum ", and the whole is " whole }
            printf "%s", last
        }' ranks="$1" run/summary.json
}

# run RANKS COMMAND...: runs the command with shoal's arguments behind; leaves the parts in `found`.
run() {
    ranks=$1
    shift
    # shellcheck disable=SC2086
    "$@" $arguments >out 2>err </dev/null || fail "$*: exit code $?"
    parts "$ranks" >found
    if [ "$(grep -c '^[a-z_]* [0-9.e+-]*$' found)" != 10 ] || [ "$(wc -l <found)" != 10 ]; then fail "$*: $(cat found)"; fi
    grep -q 'launch to first step [0-9]* ms (launch [0-9]*, exec [0-9]*, bootstrap ' err || fail "$*: the terminal does not say it"
}

# between PART LOW HIGH
between() {
    awk -v low="$2" -v high="$3" "\$1 == \"$1\" { ok = \$2 >= low && \$2 <= high } END { exit !ok }" found ||
        fail "$1 is not between $2 and $3 ms: $(cat found)"
}

unset SHOAL_LAUNCH_TIME
run 1 "$shoal" train
between launch 0 0
run 2 "$shoal" train -n 2
between launch 0 0

# The report shows them.
"$shoal" report run >out 2>err || fail "shoal report: exit code $?"
grep -q '^| Configuration | Launcher | Before main | Bootstrap | ' run/report.md || fail "the report does not show the parts"

# A shell that becomes shoal after a second: the process has been there since.
# shellcheck disable=SC2016
run 2 sh -c 'sleep 1; exec "$@"' - "$shoal" train -n 2
between exec 980 600000

# A launcher that began five seconds ago.
run 2 env SHOAL_LAUNCH_TIME="$(($(date +%s) - 5))" "$shoal" train -n 2
between launch 4000 600000
if grep -q 'SHOAL_LAUNCH_TIME' err; then fail "a good stamp is doubted"; fi

for stamp in 1 "$(($(date +%s) + 3600))" 1e300 yesterday '' nan -1; do
    run 2 env SHOAL_LAUNCH_TIME="$stamp" "$shoal" train -n 2
    between launch 0 0
    [ "$(grep -c "SHOAL_LAUNCH_TIME=$stamp is " err)" = 1 ] || fail "SHOAL_LAUNCH_TIME=$stamp: there is not one warning"
done

[ "$failures" = 0 ]
