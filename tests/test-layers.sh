#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# The layer law: a room includes only its own headers and those of rooms that stand before it in this list, and some rooms
# that stand before it are none of its business. Beside includes, calls: no two files of the libraries call each other, directly or
# through others. Each check is also run on planted violations, which it must see.
set -eu

# From the bottom up. A room is a folder; what is under no other room's name belongs to its parent's.
rooms='base
    kernels kernels/cpu kernels/cuda
    collectives collectives/ucx collectives/pinned
    runtime runtime/bootstrap runtime/program runtime/model runtime/execute
    src/config src/study src/report src/bench src
    slurm'
# The first of a pair shall not know the second although it stands behind it.
strangers='kernels/cuda:kernels/cpu
    collectives/ucx:kernels/cuda collectives/pinned:collectives/ucx
    runtime/program:runtime/bootstrap runtime/model:runtime/bootstrap
    src/report:src/config src/bench:src/study src/bench:src/report'

# Prints "FILE includes HEADER" for every include that the law forbids, or that names a folder of this tree which is no room (tests/).
# An include without a folder means the file's own.
forbidden_includes() { # ROOT
    # shellcheck disable=SC2016 # The dollars are awk's.
    (
        cd "$1"
        for layer in base kernels collectives runtime src; do
            if [ -d "$layer" ]; then
                find "$layer" \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -print
            fi
        done | sort | xargs -r awk -v rooms="$rooms" -v strangers="$strangers" '
            function room_of(path) {
                while (path != "" && !(path in height)) if (!sub(/\/[^\/]*$/, "", path)) return ""
                return path
            }
            BEGIN {
                count = split(rooms, names)
                for (i = 1; i <= count; i++) height[names[i]] = i
                height["tests"] = height["bench"] = count + 1
                split(strangers, pairs)
                for (i in pairs) stranger[pairs[i]]
            }
            /^[ \t]*#[ \t]*include[ \t]*["<]/ {
                header = $0
                sub(/^[^"<]*["<]/, "", header)
                sub(/[">].*$/, "", header)
                while (sub(/^\.\.\//, "", header));
                from = room_of(FILENAME)
                to = index(header, "/") ? room_of(header) : ""
                if (to != "" && to != from && (height[to] > height[from] || (from ":" to) in stranger))
                    print FILENAME " includes " header
            }'
    )
}

# Prints what calls each other among the object files given.
circles() { # OBJECT...
    nm -A "$@" | awk '
        NF < 2 { next }
        { object = $1; sub(/:.*/, "", object) }
        $(NF - 1) ~ /^[TDBRVW]$/ { home[$NF] = object }
        $(NF - 1) == "U" { users[++n] = object; wanted[n] = $NF }
        END {
            for (i = 1; i <= n; i++)
                if (wanted[i] in home && home[wanted[i]] != users[i]) print users[i], home[wanted[i]]
        }' | sort -u | tsort 2>&1 >/dev/null | sed 's/^tsort: //; s/^-: input contains a loop:/a circle:/'
}

fail() {
    echo "test-layers: $*"
    exit 1
}

expect_found() { # FILE TEXT: plants one line and looks for it
    printf '%s\n' "$2" >"$planted/$1"
    case $(forbidden_includes "$planted") in
        *"$1 includes "*) ;;
        *) fail "did not see this in $1: $2" ;;
    esac
    rm "$planted/$1"
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
for room in $rooms; do
    mkdir -p "$planted/$room"
done
expect_found base/a.c '#include "kernels/ops.h"'
expect_found kernels/cpu/a.h '#include "../../collectives/transport.h"'
expect_found collectives/a.c '  #  include <runtime/spec.h> // why not'
expect_found collectives/pinned/a.c '#include "collectives/ucx/ucx.h"'
expect_found runtime/a.c '#include "src/config/config.h"'
expect_found runtime/model/a.c '#include "runtime/execute/executor.h"'
expect_found runtime/model/a.c '#include "runtime/bootstrap/bootstrap.h"'
expect_found src/study/a.c '#include "src/report/doc.h"'
expect_found src/a.c '#include "tests/helper.h"'
printf '#include "base/status.h"\n#include "ops.h"\n#include <sys/types.h>\n' >"$planted/kernels/cpu/b.c"
printf '#include "runtime/program/program.h"\n#include "runtime/spec.h"\n' >"$planted/runtime/model/b.c"
[ -z "$(forbidden_includes "$planted")" ] || fail "takes a proper include for a violation"

root=${SHOAL_SRCDIR:-$(dirname "$0")/..}
[ -f "$root/base/status.h" ] || fail "there is no source tree in $root"
found=$(forbidden_includes "$root")
[ -z "$found" ] || fail "the law forbids these:
$found"

cd "${SHOAL_BUILDDIR:?}"
cc=${CC:-cc}
for name in 'a b' 'b c' 'c a'; do
    # shellcheck disable=SC2086 # Two words.
    set -- $name
    printf 'void %s(void); void %s(void); void %s(void) { %s(); }\n' "$1" "$2" "$1" "$2" | $cc -c -x c - -o "$planted/$1.o"
done
[ -n "$(circles "$planted/a.o" "$planted/b.o" "$planted/c.o")" ] || fail "did not see a circle of three files"
# Left out is what the tests compile once more of these folders, and what a source that has moved has left behind.
objects=$(find base kernels collectives runtime src -name '*.o' ! -name '*standin*' | while read -r object; do
    name=${object##*/} && name=${name%.o} && name=${name##*-}
    [ ! -e "$root/${object%/*}/$name.c" ] && [ ! -e "$root/${object%/*}/$name.cu" ] || echo "$object"
done)
[ -n "$objects" ] || fail "there are no object files in $PWD"
# shellcheck disable=SC2086 # A list of words.
found=$(circles $objects)
[ -z "$found" ] || fail "files that need each other:
$found"
echo "the rooms keep the law, and no files need each other"
