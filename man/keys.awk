# SPDX-License-Identifier: BSD-3-Clause
# Puts the output of `shoal info --keys` (the first file) in the place of @KEYS@ in a manual page (the second), as a list
# with a heading for each group. A key is a line "group.key" and indented lines after it.

function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text ~ /^[.']/ ? "\\&" text : text
}

FNR == NR && /^[a-z_]+\.[a-z0-9_]+$/ {
    split($0, name, ".")
    if (name[1] != group) keys = keys ".SS " name[1] "\n"
    group = name[1]
    keys = keys ".TP\n.B " roff($0) "\n"
    first = 1
    next
}
FNR == NR {
    sub(/^ +/, "")
    if ($0 != "") keys = keys (first ? "" : ".br\n") roff($0) "\n"
    first = 0
    next
}
$0 == "@KEYS@" {
    if (keys == "") { print "keys.awk: no keys were given" >"/dev/stderr"; exit 1 }
    printf "%s", keys
    next
}
{
    gsub(/@VERSION@/, version)
    print
}
