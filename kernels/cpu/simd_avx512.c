/* SPDX-License-Identifier: BSD-3-Clause */
/* The SIMD kernels for processors with AVX-512 (F, BW, DQ, VL). Compiled with the flags of that instruction set; see simd.h. */
#include "kernels/cpu/simd_fill.h"

void shoal_cpu_fill_avx512(shoal_cpu_registry_t kernels)
{
    simd_fill(kernels, "avx512");
}
