#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# The layer law: a folder includes only itself and what stands below it. From the top: slurm, src, runtime, collectives,
# kernels, base. Then the same check on planted violations, which it must see.
set -eu

layers='base kernels collectives runtime src slurm' # from the bottom up

# Prints "FILE includes HEADER" for every include that points up, or at a folder of this tree that is no layer (tests/).
# An include without a folder means the file's own.
upward_includes() { # ROOT
    # shellcheck disable=SC2016 # The dollars are awk's.
    (
        cd "$1"
        for layer in $layers; do
            if [ -d "$layer" ]; then
                find "$layer" \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -print
            fi
        done | sort | xargs -r awk -v layers="$layers" '
            BEGIN {
                count = split(layers, names, " ")
                for (i = 1; i <= count; i++) height[names[i]] = i
                height["tests"] = height["bench"] = count + 1
            }
            /^[ \t]*#[ \t]*include[ \t]*["<]/ {
                header = $0
                sub(/^[^"<]*["<]/, "", header)
                sub(/[">].*$/, "", header)
                split(FILENAME, from, "/")
                dots = header
                if (sub(/^(\.\.\/)+/, "", dots)) header = dots
                if (split(header, to, "/") > 1 && to[1] in height && height[to[1]] > height[from[1]])
                    print FILENAME " includes " header
            }'
    )
}

fail() {
    echo "test-layers: $*"
    exit 1
}

expect_found() { # FILE TEXT: plants one line and looks for it
    printf '%s\n' "$2" >"$planted/$1"
    case $(upward_includes "$planted") in
        *"$1 includes "*) ;;
        *) fail "did not see this in $1: $2" ;;
    esac
    rm "$planted/$1"
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
mkdir -p "$planted/base" "$planted/kernels/cpu" "$planted/collectives" "$planted/runtime" "$planted/src"
expect_found base/a.c '#include "kernels/ops.h"'
expect_found kernels/cpu/a.h '#include "../../collectives/transport.h"'
expect_found collectives/a.c '  #  include <runtime/spec.h> // why not'
expect_found runtime/a.c '#include "src/config.h"'
expect_found src/a.c '#include "tests/helper.h"'
printf '#include "base/status.h"\n#include "ops.h"\n#include <sys/types.h>\n' >"$planted/kernels/cpu/b.c"
[ -z "$(upward_includes "$planted")" ] || fail "takes a proper include for a violation"

root=${SHOAL_SRCDIR:-$(dirname "$0")/..}
[ -f "$root/base/status.h" ] || fail "there is no source tree in $root"
found=$(upward_includes "$root")
[ -z "$found" ] || fail "these point up:
$found"
echo "no include points up"
