/* SPDX-License-Identifier: BSD-3-Clause */
/* The SIMD kernels for processors with AVX2 and FMA. Compiled with the flags of that instruction set; see simd.h. */
#include "kernels/cpu/simd_fill.h"

void shoal_cpu_fill_avx2(shoal_cpu_registry_t kernels)
{
    simd_fill(kernels, "avx2");
}
