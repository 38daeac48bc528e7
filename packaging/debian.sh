# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What shoal needs of Debian 12 or a relative, and how to get it; sourced by check and demo, and read by packagers.
#   need_packages PACKAGE...    installs those that are missing, or says how to and returns 1
#   find_sources DIRECTORY      sets `sources` to a tree that can be configured from elsewhere
#   generate_configure          runs autogen.sh in the current directory where that is needed

# shellcheck disable=SC2034 # The lists are for those who source this.
build_packages="gcc libc6-dev make autoconf automake pkgconf libconfig-dev libjansson-dev libxxhash-dev
    librandom123-dev libpmix-dev libopenmpi-dev libucx-dev libdnnl-dev libhwloc-dev"
# Open MPI's and Slurm's launchers and daemons, and what the scale model of a cluster is made of.
cluster_packages="openmpi-bin slurm-wlm munge iproute2 util-linux kmod"
# shellcheck disable=SC2034
check_packages="g++ clang libomp-dev libcmocka-dev gnuplot-nox shellcheck man-db xz-utils $cluster_packages"
# shellcheck disable=SC2034
demo_packages="gnuplot-nox perl-doc $cluster_packages"

missing_packages() { # PACKAGE...
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

as_root() { # COMMAND ARG...
    if ((UID == 0)); then
        "$@"
    else
        sudo -n -- "$@"
    fi
}

apt_install() { # PACKAGE...
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# The lists of packages may be old or empty, so a failure is worth an update and a second try.
install_packages() { # PACKAGE...
    apt_install "$@" || {
        as_root apt-get update -o DPkg::Lock::Timeout=300 && apt_install "$@"
    }
}

need_packages() { # PACKAGE...
    local missing
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not Debian or a relative, so nothing is installed here. These packages are what is needed: $*"
        return 0
    fi
    # shellcheck disable=SC2207 # No package has a blank in its name.
    missing=($(missing_packages "$@"))
    ((${#missing[@]})) || return 0
    if ((UID != 0)) && ! sudo -n true 2>/dev/null; then
        echo "These packages are missing, and installing them takes root, or sudo without a password. Run this and try again:"
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}"
        return 1
    fi
    echo "installing ${missing[*]}"
    install_packages "${missing[@]}" </dev/null
}

# Runs autogen.sh where its results are missing or older than their sources; of two at once, one waits and finds it done.
generate_configure() { # in the current directory
    (
        flock 9
        if [[ ! -e configure || ! -e Makefile.in || -n $(find configure.ac Makefile.am m4 ./*/*.am -newer configure -print -quit) ]]; then
            ./autogen.sh
        fi
    ) 9<.
}

# Copies the present tree without the builds below it, and cleans the copy of the build that is in it.
copy_sources() { # DIRECTORY
    local exclude=(--exclude=./.git --exclude=./runs --exclude=./build-check --exclude=./build-demo) status
    for status in */config.status; do
        [[ ! -e $status ]] || exclude+=("--exclude=./${status%/*}")
    done
    rm -rf -- "$1"
    mkdir -p "$1"
    tar -c "${exclude[@]}" . | tar -x -C "$1"
    if [[ -e Makefile ]]; then
        make -C "$1" distclean >/dev/null 2>&1
    else
        rm -f "$1"/config.{status,log,h} # configure stopped half way
    fi
    [[ ! -e $1/config.status ]] || {
        echo "the copy in $1 cannot be cleaned; run 'make distclean' in this tree and try again" >&2
        return 1
    }
}

# A tree that somebody has configured in place cannot be configured from another directory, whose build would find its
# objects besides. That build is theirs to keep, so a clean copy in DIRECTORY is built from; else the tree itself is.
find_sources() { # DIRECTORY
    sources=$PWD
    [[ -e config.status ]] || return 0
    echo "This tree is configured in place; building from a copy of its sources in $1"
    copy_sources "$1" || return 1
    sources=$(cd -- "$1" && pwd)
}
