#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# What the command line refuses: each mistake ends with its documented exit code and a message that names the culprit. And
# what it must not leave behind: a token file that is not complete.
set -eu

shoal=${SHOAL:-./shoal}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
failures=0

# expect CODE TEXT ARGUMENT...: runs shoal with the arguments; TEXT, unless empty, must be in what it prints on standard
# error.
expect() {
    code=$1 text=$2
    shift 2
    got=0
    "$shoal" "$@" >out 2>err </dev/null || got=$?
    if [ "$got" != "$code" ]; then
        echo "shoal $*: exit code $got, not $code"
        cat err
        failures=$((failures + 1))
    elif [ -n "$text" ] && ! grep -qF -- "$text" err; then
        echo "shoal $*: the message does not contain: $text"
        cat err
        failures=$((failures + 1))
    fi
}

# True when the last command ended with code 6 and a message that matches.
said() {
    [ "$got" = 6 ] && grep -q "$1" err
}

# True when exactly N files of tokenize are here, under final or temporary names.
left() {
    [ "$(find . -name 'p.*' | wc -l)" -eq "$1" ]
}

size_is() {
    [ "$(wc -c <"$1")" -eq "$2" ]
}

fail() {
    echo "$*"
    failures=$((failures + 1))
}

# Every op of a step is in the table of bench ops, counted once: the counts add up to the last row's, which is the program's.
printf '%s' "$(seq -s ' ' 1 400)" >text
: >bench.conf
"$shoal" data tokenize -o bench text >/dev/null 2>&1
set -- bench.conf data.train=bench.train.bin model.heads=2 model.layers=1 model.seq=16 model.vocab=256 batch.local=2 run.device=cpu
"$shoal" bench ops --steps 1 --warmup 0 "$@" >table 2>err || fail "shoal bench ops fails: $(cat err)"
ops=$("$shoal" plan --json "$@" | sed -n 's/.*"ops": *\([0-9]*\).*/\1/p')
awk -v ops="$ops" '
    $1 == "op" { body = 1; next }
    $1 == "all" { all = $3; body = 0 }
    body { for (i = 2; i <= NF; i++) if ($i ~ /%$/) { sum += $(i - 4); if ($(i - 3) + 0 < 0) bad = 1 } }
    END { exit !(ops > 0 && sum == ops && all == ops && !bad) }' table || fail "bench ops does not list the program's $ops ops: $(cat table)"

# The head's chunk and what its logits take are in the plan: as chosen for the device, at most the micro-batch, or as asked for.
chunk_is() { # TOKENS BYTES ARGUMENT...
    want="$1 $2"
    shift 2
    got=$("$shoal" plan --json bench.conf model.heads=2 model.layers=1 machine.flops=1e9 machine.memory_gbs=1 "$@" |
        sed -n 's/.*"\(head_chunk\|logits_nbytes\)": *\([0-9]*\).*/\2/p' | paste -sd' ')
    [ "$got" = "$want" ] || fail "plan $*: a chunk of $got bytes of logits, expected $want"
}
chunk_is 128 12877824 run.device=cpu model.vocab=50304 model.seq=2048 batch.local=8
chunk_is 16 8192 run.device=cpu model.vocab=256 model.seq=16 batch.local=1
chunk_is 7 704256 run.device=cpu model.vocab=50304 run.head_chunk=7
"$shoal" plan "$@" | grep -q '^  logits  *16384 .*32 tokens' || fail 'plan does not say what the logits take'
if "$shoal" info 2>/dev/null | grep -q '^  cuda '; then
    chunk_is 4096 412090368 run.device=cuda model.vocab=50304 model.seq=2048 batch.local=8
    chunk_is 5120 515112960 run.device=cuda model.vocab=50304 model.seq=2048 batch.local=5
    chunk_is 4095 819000 run.device=cuda model.vocab=100 model.seq=4095 batch.local=1
    chunk_is 300 30182400 run.device=cuda model.vocab=50304 model.seq=2048 batch.local=8 run.head_chunk=300
fi

# A run whose loss is no number: it goes on if asked to, else it ends after three such steps, on all ranks, with whole records.
"$shoal" train "$@" optim.lr=1e6 optim.clip=0 run.steps=30 run.nan_steps=0 run.dir=diverged 2>err >/dev/null || fail "a run that diverges ends with $?"
grep -q 'warning: step [0-9]*: the loss is -*\(nan\|inf\); training has diverged' err || fail "no word of a loss that is no number: $(cat err)"
first=$(sed -n 's/.*step \([0-9]*\): the loss is .*/\1/p' err)
for ranks in 1 2; do
    expect 1 "error: training diverged: the loss is no finite number since step $first, at step $((first + 2)) it is" \
        train -n "$ranks" "$@" optim.lr=1e6 optim.clip=0 run.steps=30 batch.local=$((2 / ranks)) run.dir="ended$ranks"
    grep -q '"status": "training diverged"' "ended$ranks"/summary.json ||
        fail "$ranks ranks: the summary does not say that training diverged"
    for rank in $(seq 0 $((ranks - 1))); do
        [ "$(wc -l <"ended$ranks/rank-0000$rank.jsonl")" = $((first + 2)) ] ||
            fail "rank $rank of $ranks has not $((first + 2)) steps"
    done
done

# Whichever standard descriptors are closed, a run of two ranks ends well, and only records are in its records.
for closed in '' '<&-' '>&-' '2>&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-'; do
    rm -rf closed
    got=0
    (eval "exec timeout 60 \"\$shoal\" train -n 2 \"\$@\" run.steps=3 run.dir=closed $closed") >out 2>err || got=$?
    [ "$got" = 0 ] || fail "shoal train -n 2 $closed ends with $got: $(cat err)"
    [ "$(cat closed/rank-*.jsonl | grep -c '^{"step".*}$')" = "$(cat closed/rank-*.jsonl | wc -l)" ] || fail "something is in the records of $closed"
done

# As many ranks as the host can hold: a soft limit of open files is raised, a hard one is named before any rank starts.
got=0
# shellcheck disable=SC3045 # dash and bash know these limits
(ulimit -S -n 40 && exec timeout 100 "$shoal" train -n 8 "$@" run.steps=1 run.dir=many) >out 2>err || got=$?
[ "$got" = 0 ] || fail "a soft limit of 40 open files ends 8 ranks with $got: $(cat err)"
got=0
# shellcheck disable=SC3045
(ulimit -n 200 && exec timeout 100 "$shoal" train -n 100 "$@" run.steps=1 run.dir=refused) >out 2>err || got=$?
if [ "$got" != 2 ] || [ "$(grep -c . err)" != 1 ] || ! grep -q '100 ranks need 364 open files each, and there are 200' err; then
    fail "100 ranks with 200 files each end with $got: $(cat err)"
fi
[ ! -e refused ] || fail 'a refused launch left records'

expect 2 'no configuration file given' bench ops
expect 2 '--steps 0: expects' bench ops --steps 0 bench.conf

# The program itself.
expect 2 'no command given'
expect 2 'unknown command trian; did you mean train?' trian
expect 2 'unknown command --keys; did you mean' --keys
[ "$("$shoal" --version)" = "shoal $("$shoal" --version | sed 's/^shoal //')" ] || fail 'shoal --version is not one line'
"$shoal" --help | grep -q '^Usage: shoal COMMAND' || fail 'shoal --help has no usage line'
for command in $("$shoal" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    "$shoal" "$command" --help >help 2>err || fail "shoal $command --help fails: $(cat err)"
    grep -q "^Usage: shoal $command" help || fail "shoal $command --help has no usage line"
done
if [ -w /dev/full ]; then
    got=0
    "$shoal" info --keys >/dev/full 2>err || got=$?
    said 'standard output' || fail "a full standard output gives $got: $(cat err)"
    # Each command whose output is its result, and the lines of a run, which is whole all the same.
    for words in --version --help 'plan @' 'plan --json @' 'info @' 'data info bench.train.bin' 'data tokenize -o full text' \
        'bench ops --steps 1 --warmup 0 @' 'bench collectives -n 2 --max 64K' 'report full-run'; do
        got=0
        case $words in
            report*) "$shoal" train "$@" run.steps=2 run.dir=full-run >/dev/full 2>err || got=$?
                said 'standard output: No space' || fail "train >/dev/full gives $got: $(cat err)"
                grep -q '"status": "ok"' full-run/summary.json || fail 'a full standard output cost a run its records'
                got=0 ;;
        esac
        # shellcheck disable=SC2086 # Words, and the configuration in place of @.
        case $words in
            *@) "$shoal" ${words%@} "$@" >/dev/full 2>err || got=$? ;;
            *) "$shoal" $words >/dev/full 2>err || got=$? ;;
        esac
        said 'standard output' || fail "shoal $words >/dev/full gives $got: $(cat err)"
    done
fi
# A reader that leaves: information ends without a word, a run goes on to its end.
("$shoal" info --keys 2>err || echo $? >code) | head -n 1 >out
[ ! -s err ] || fail "info --keys | head says $(cat err)"
("$shoal" train "$@" run.steps=200 run.dir=left 2>err; echo $? >code) | head -n 1 >out
[ "$(cat code)" = 0 ] || fail "train | head ends with $(cat code): $(cat err)"
grep -q '"steps": 200' left/summary.json || fail 'train | head did not run to its end'
SHOAL_LGO=trace "$shoal" info --keys 2>err >out
grep -q 'SHOAL_LGO' err || fail 'no warning about a variable that nothing reads'
SHOAL_LOG=warn "$shoal" info --keys 2>err >out
if grep -q 'SHOAL_LOG' err; then fail 'a warning about a variable that is read'; fi

expect_log() { SHOAL_LOG=$1 expect "$2" "$3" info --keys; }
expect_log bogus 2 'SHOAL_LOG=bogus: expects one of error, warn, info, trace'
expect_log '' 0 ''

# A path that is no UTF-8 is in the record, byte by byte.
odd=$(printf 'odd\377')
expect 0 '' train "$@" run.steps=1 run.dir="$odd"
grep -qF '"odd\\xff"' "$odd/run.json" || fail "a run.dir that is no UTF-8 is not in run.json: $(grep -A1 run.dir "$odd/run.json")"

# Configuration: through info, which reads it as every command does.
printf 'model = { heads = 4; };\nrun = {\n step = 5; };\n' >key.conf
printf 'model = { heads = "many"; };\n' >type.conf
printf 'model = { heads = 4; }\nrun = { steps = ; };\n' >syntax.conf
printf 'model = { heads = 4; };\nparallel = { tp = 2; };\n' >tp.conf
printf 'model = { heads = 4; };\n' >good.conf
expect 2 'missing.conf: No such file' info missing.conf
expect 2 '.: a directory, not a regular file' info .
expect 2 'key.conf:3: unknown key run.step; did you mean run.steps?' info key.conf
expect 2 'type.conf:1: model.heads = "many": expects a whole number' info type.conf
expect 2 'syntax.conf:2: syntax error' info syntax.conf
expect 2 'tp.conf:2: parallel.tp = 2: tensor-parallel groups are not in this version' info tp.conf
expect 2 "'run.stesp=3': unknown key run.stesp; did you mean run.steps?" info good.conf run.stesp=3
expect 2 "'study.nodes=1,two': study.nodes = \"two\"" info good.conf study.nodes=1,two
expect 2 'batch.global = 30' info -n 4 good.conf batch.global=30
expect 2 '--ranks 0: expects' info -n 0 good.conf
for word in 3x x 0 -1 '' ' 3' 3.5 1e2 99999999999999999999; do
    expect 2 "train: -n $word: expects a whole number from 1 to 4096" train -n "$word" good.conf
    expect 2 "plan: -n $word: expects a whole number from 1 to 1000000" plan -n "$word" good.conf
    expect 2 "info: --ranks $word: expects a whole number" info -n "$word" good.conf
    expect 2 "bench: --ranks $word: expects a whole number" bench -n "$word"
    expect 2 "bench ops: --steps $word: expects a whole number" bench ops --steps "$word" good.conf
    expect 2 "data: --vocab $word: expects a whole number" data info --vocab "$word" good.conf
done
expect 2 'plan: -r junk: expects a whole number from 0 to 1' plan -n 2 -r junk good.conf
expect 2 'plan: -r 2: expects a whole number from 0 to 1' plan -r 2 -n 2 good.conf
expect 2 'bench ops: --warmup 1x: expects a whole number from 0' bench ops --warmup 1x good.conf
expect 3 'the plan does not fit: a rank' plan good.conf model.heads=4000 model.layers=4000
expect 3 'the plan does not fit: a rank' train good.conf model.heads=4000 model.layers=4000
expect 3 'the plan does not fit: a step' plan good.conf batch.accumulate=1000000
expect 3 'GiB) are available' train good.conf run.memory_gib=0.001 model.heads=4
expect 2 'option --kyes: unknown' info --kyes
expect 0 '' info -n 4 good.conf batch.global=64
grep -Eq '^batch.accumulate +2 +# derived$' out || fail 'info does not show a derived value with its source'
grep -Eq '^model.heads +4 +# good.conf:1$' out || fail 'info does not show the line of a value'

# Token files.
printf 'hello, shoal' >text
printf 'odd' >odd.bin
printf 'x' >one
: >empty
expect 2 'action missing: expects tokenize or info' data
expect 2 'action tokenise: expects tokenize or info' data tokenise
expect 2 'no input FILE' data tokenize -o p
expect 2 'no output: -o PREFIX' data tokenize text
expect 2 'option -o: expects a value' data tokenize text -o
expect 2 'option --shuffle: expects one of those' data tokenize --shuffle text
expect 2 '--valid 1.5: expects' data tokenize --valid 1.5 -o p text
expect 2 '--valid x: expects' data tokenize --valid x -o p text
expect 2 '--valid 12: the input has only 12 tokens' data tokenize --valid 12 -o p text
expect 2 '--vocab 0: expects' data info --vocab 0 odd.bin
expect 6 'nowhere: offset 0: No such file' data tokenize -o p text nowhere
expect 6 'the input is empty' data tokenize -o p empty
expect 6 'no/such/p.train.bin: offset 0: No such file' data tokenize -o no/such/p text
expect 6 '.: offset 0: a directory, not a regular file' data tokenize -o p .
left 0 || fail "a failed tokenize left something behind: $(ls)"
expect 0 '' data tokenize --valid 2 -o p text
size_is p.train.bin 20 || fail 'tokenize wrote a training file of a wrong size'
size_is p.valid.bin 4 || fail 'tokenize wrote a validation file of a wrong size'
left 2 || fail "tokenize left something behind: $(ls)"
"$shoal" data info p.train.bin | grep -q 'tokens  10$' || fail 'data info does not count 10 tokens'
printf 'from a pipe' | "$shoal" data tokenize --valid 0.5 -o pipe - >out
grep -q 'pipe.valid.bin: 5 tokens' out || fail 'tokenize does not read standard input'
expect 6 'nosuch.bin: No such file' data info nosuch.bin
expect 6 'odd.bin: offset 2: half a token' data info odd.bin
expect 6 'p.train.bin: offset 0: token id 104 in a vocabulary of 104' data info p.train.bin --vocab 104
expect 2 'expects one FILE' data info

# What cannot be read to its end at once: data must be a file, input may be a pipe, but waiting for its writer ends with a signal.
mkfifo fifo
printf 'model = { heads = 2; };\ndata = { train = "fifo"; };\nrun = { device = "cpu"; dir = "fifo-run"; };\n' >fifo.conf
expect 6 'fifo: a pipe, not a regular file' train fifo.conf
expect 6 'fifo: a pipe, not a regular file' data info fifo
"$shoal" data tokenize -o waits fifo >out 2>err &
waiting=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    ls waits.* >/dev/null 2>&1 && break
    sleep 0.1
done
sleep 0.1
got=0
kill "$waiting"
wait "$waiting" || got=$?
[ "$got" = 75 ] || fail "tokenize waiting for a pipe and told to end gives $got: $(cat err)"
grep -q 'fifo: offset 0: stopped by a signal' err || fail "tokenize does not say that a signal ended it: $(cat err)"
[ -z "$(ls waits.* 2>/dev/null)" ] || fail "tokenize told to end left $(ls waits.*)"
printf 'from a fifo' >fifo &
expect 0 '' data tokenize -o waits fifo
size_is waits.train.bin 22 || fail 'tokenize does not read a pipe to its end'

# A full disk: the limit on file sizes fails in the same call, at the same place.
cp p.train.bin before
head -c 100000 /dev/zero >zeros
got=0
(trap '' XFSZ; ulimit -f 8; exec "$shoal" data tokenize -o p zeros) >out 2>err || got=$?
said 'p.train.bin: offset [1-9]' || fail "a full disk gives $got: $(cat err)"
cmp -s p.train.bin before || fail 'a full disk destroyed the file that was there'
left 2 || fail "a full disk left something behind: $(ls)"

[ "$failures" = 0 ] || exit 1
echo 'every mistake is named'
