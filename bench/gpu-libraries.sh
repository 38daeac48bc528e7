# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Sourced by gpu-check and gpu-bench: where a binary made on another machine finds its libraries. Those that the bundle brings stand in
# $top/lib. CUDA's own are too large to carry: they come from the toolkit here, or from the packages that PyTorch installs.

# shellcheck disable=SC2154 # The caller has set top.
cuda_library_dirs() {
    local dir
    for dir in "$top/lib" /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
        [[ ! -d $dir ]] || echo "$dir"
    done
    # cuDNN and NCCL are seldom in the toolkit itself.
    python3 - 2>/dev/null <<'PY' || true
import glob, site, sys
roots = [p for p in sys.path if p.endswith("-packages")] + site.getsitepackages()
for root in dict.fromkeys(roots):
    for path in sorted(glob.glob(root + "/nvidia/*/lib")):
        print(path)
PY
}

if [[ -d ${top:?}/lib ]]; then
    LD_LIBRARY_PATH=$(cuda_library_dirs | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi
