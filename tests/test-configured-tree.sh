#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# ./check and ./demo in a tree that somebody configured in place: automake refuses to configure it from elsewhere, so they
# build from a copy (packaging/debian.sh). The copy has the sources of this moment and nothing of the build; the tree
# keeps its build; and a tree that is not configured is used as it is.
set -eu

packaging=$(cd "${SHOAL_SRCDIR:-$(dirname "$0")/..}/packaging" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=packaging/debian.sh
. "$packaging/debian.sh"

fail() {
    echo "test-configured-tree: $*"
    exit 1
}

# A tree with automake's own test for what it refuses.
make_tree() { # DIRECTORY
    mkdir -p "$1/src" "$1/build/junk"
    cd "$1"
    echo 'int main(void) { return 0; }' >'src/ma in.c'
    echo 'int gone;' >src/gone.c
    touch build/config.status
    cat >configure <<'END'
#!/bin/sh
[ ! -e "$(dirname "$0")/config.status" ] || [ . -ef "$(dirname "$0")" ] || exit 1
END
    printf 'distclean:\n\trm -f config.status src/*.o Makefile\n' >Makefile
    chmod +x configure
}

configure_in_place() {
    touch config.status src/main.o
}

check_copy() { # what the present tree's copy must be
    find_sources "$PWD/build-check/source" >said
    [[ $sources == "$PWD/build-check/source" ]] || fail "builds from $sources"
    grep -q 'configured in place' said || fail "does not say that it copies: $(cat said)"
    cmp -s 'src/ma in.c' "$sources/src/ma in.c" || fail 'the copy lacks a source'
    [[ ! -e $sources/config.status && ! -e $sources/src/main.o ]] || fail 'the copy has parts of the build'
    [[ ! -e $sources/build ]] || fail 'the copy has other builds'
    [[ -e config.status && -e src/main.o ]] || fail 'the build in the tree is lost'
    mkdir -p build-check/plain
    (cd build-check/plain && "$sources/configure") || fail 'the copy cannot be configured from elsewhere'
    if (cd build-check/plain && ../../configure); then fail 'the tree itself can, so this tests nothing'; fi
}

make_tree "$work/tree"
find_sources "$PWD/build-check/source" >said
[[ $sources == "$PWD" && ! -s said && ! -e build-check ]] || fail "a tree that is not configured is not used as it is"
configure_in_place
check_copy

# The copy is of the tree as it is now, and not as it was.
echo 'int changed;' >src/added.c
rm -r src/gone.c build
check_copy
cmp -s src/added.c "$sources/src/added.c" || fail 'a second copy does not follow the tree'
[[ ! -e $sources/src/gone.c ]] || fail 'a second copy has what is gone'

# configure may have stopped half way, or the tree may have been moved so that its Makefile is of no use.
rm Makefile
find_sources "$PWD/build-check/source" >said
[[ ! -e $sources/config.status ]] || fail 'a copy of what configure left half way is not clean'
printf 'distclean:\n\tfalse\n' >Makefile
if find_sources "$PWD/build-check/source" >said 2>&1; then fail 'a copy that cannot be cleaned is used'; fi
grep -q "run 'make distclean'" said || fail "does not say what to do: $(cat said)"
echo 'a tree that is configured in place is built from a copy'
