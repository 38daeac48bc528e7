#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# What a glance at the tree can tell: every source file is named in a fragment of the Makefile, so that it is built and
# distributed; none is longer than 800 lines; each has its licence line; scripts are clean for shellcheck, if there is one.
set -eu

cd "${SHOAL_SRCDIR:-$(dirname "$0")/..}"
failures=0
complain() {
    echo "test-tree: $*"
    failures=$((failures + 1))
}

sources() { find base kernels collectives runtime src tests bench -name '*.[ch]' -print | sort; }
others() { find slurm examples man tests -type f ! -name '*.[ch]' ! -name '*.am' ! -path '*__pycache__*' | sort; }
scripts() { grep -lE '^#!/bin/(ba)?sh' ./* .ci/* packaging/* slurm/* bench/* tests/* 2>/dev/null | grep -v '^\./configure'; }

check_listed() { # FILE: "tests/NAME.c" is the source of the program "tests/NAME"
    name=$1
    case $1 in tests/*.c | bench/*.c) name=${1%.c} ;; esac
    grep -qF -e "$1" ./*/*.am || grep -qE -e "(^|[[:space:]])$name( |\$)" ./*/*.am || complain "$1 is in no */*.am"
}

for file in $(sources); do
    check_listed "$file"
    [ "$(wc -l <"$file")" -le 800 ] || complain "$file has more than 800 lines"
done
for file in $(sources) $(scripts); do
    head -n 5 "$file" | grep -qF 'SPDX-License-Identifier: BSD-3-Clause' || complain "$file has no SPDX line"
done
for file in $(others); do
    grep -qF -e "$file" ./*/*.am || complain "$file is in no */*.am"
done
if command -v shellcheck >/dev/null; then
    # shellcheck disable=SC2046 # None of these names has a blank.
    shellcheck -x -P SCRIPTDIR $(scripts) || complain "shellcheck is not content"
else
    echo "there is no shellcheck; scripts were not looked at"
fi
[ "$failures" = 0 ] || exit 1
