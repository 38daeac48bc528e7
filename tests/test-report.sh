#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# `shoal report` on the study in fixtures-report/, whose numbers tests/test_report.c explains: the same figures in Markdown, HTML and
# CSV, nothing of the row with a wrong loss in any of them, a page that refers to nothing outside itself, plots with gnuplot and
# a word about it without.
set -eu

fixtures=$(cd "${SHOAL_SRCDIR:-$(dirname "$0")/..}/tests/fixtures-report" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp -r "$fixtures/study" study
chmod -R u+w study

fail() {
    echo "test-report: $*"
    exit 1
}
has() { grep -qF -e "$2" "$1" || fail "$1 does not have: $2"; }
has_not() { ! grep -qF -e "$2" "$1" || fail "$1 has: $2"; }

GNUPLOT="$work/none" "$SHOAL" report study >output 2>&1 || fail "ended with $?: $(cat output)"
has output 'no gnuplot'
has study/report.md 'Plots were left out'
[ ! -e study/plots ] || fail 'there are plots without gnuplot'

has study/report.md '| 1 rank across 1 node, full | 16,384 | 1,000 | 1,000 | 120.50 | 2.0 | 100.0 % | 0.0 % | is the reference | ok |'
has study/report.md '| 4 ranks across 4 nodes, full | 65,536 | 3,800 | 950 | 120.50 | 2.0 | 95.0 % | 6.0 % | 3.0e-07 | ok |'
has study/report.md '| 4 ranks across 4 nodes, none | – | – | – | – | – | – | – | 5.0e-01 | wrong loss |'
has study/report.md '| 4 ranks across 4 nodes, full | 200.00 | 24.00 | 9.00 | 24.00 | 3.00 | 12.00 | 25.0 % | 6.0 % |'
has study/report.md '| rank 2 on n3 | 188.00 | 5.6 % |'
# 20e9 tokens / (3800 tokens/s * 86400 s) = 60.9 days; 6.2e9 * 3800 / (4 * 1e13) = 58.9 %
has study/report.md '| 1,000,000,000 | 20,000,000,000 | 3,800 | 60.9 |'
has study/report.md '| 58.9 % | 60.8 % |'
has study/report.md '| 180.00 | 200.00 | 199.50 – 202.00 | 1.11 | 6.00 | 12.00 |'
has study/report.md 'out of memory. rank 3 on n4: cannot allocate 12.0 GiB'
has study/report.csv '"n4r1-full-b8-s1",4,1,4,full,8,1,32,1,"ok","3.0e-07",3800,950,0.95,200,48,12,60.9161793372'
for file in study/report.md study/report.csv study/report.html; do
    has_not "$file" 9999
    has_not "$file" 9,999
    has_not "$file" nan
done
has study/report.html '<td class=" ">3,800</td>'
has_not study/report.html '<script'
has_not study/report.html 'src='
has_not study/report.html 'href="http'

"$SHOAL" report study/rows/n4r1-full-b8-s1 >output 2>&1 || fail "a single run ended with $?: $(cat output)"
has study/rows/n4r1-full-b8-s1/report.md '# Training run: enoki, 1.00 B parameters'

if command -v gnuplot >/dev/null; then
    "$SHOAL" report study >output 2>&1 || fail "with gnuplot ended with $?: $(cat output)"
    for plot in throughput multiplier per-rank comm step ranks; do
        has "study/plots/$plot.svg" '</svg>'
        has study/report.md "(plots/$plot.svg)"
    done
    [ "$(grep -c '<svg' study/report.html)" = 6 ] || fail 'the page does not have its six plots'
    [ -z "$(grep -o 'id=["'\''][^"'\'']*["'\'']' study/report.html | sort | uniq -d)" ] || fail 'an id stands twice in the page'
    has_not study/report.html 'rgb(1,2,3)'
else
    echo 'there is no gnuplot; plots were not drawn'
fi

status=0
"$SHOAL" report "$work/bin" >output 2>&1 || status=$?
[ "$status" = 6 ] || fail "a directory without records ended with $status"
status=0
"$SHOAL" report >output 2>&1 || status=$?
[ "$status" = 2 ] || fail "no directory ended with $status"
[ -z "$(find study -name '.*')" ] || fail 'temporary files are left'
echo 'the report has the numbers it should have'
