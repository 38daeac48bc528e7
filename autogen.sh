#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Makes ./configure and the Makefile.in from their sources; wanted after a clone, not after unpacking a release.
set -eu
cd "$(dirname "$0")"
exec autoreconf --force --install --warnings=all,error
