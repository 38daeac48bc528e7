/* SPDX-License-Identifier: BSD-3-Clause */
/* The sum of what the parts of a kernel have left, in the order of the parts. */
#include "kernels/cpu/ref.h"

void ref_reduce_parts(shoal_cpu_t *cpu, const float *partials, size_t stride, size_t offset, size_t count, void *gradient,
                      shoal_dtype_t dtype, bool accumulate)
{
#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int part = 0; part < cpu->nthreads; part++) {
            sum += partials[(size_t)part * stride + offset + i];
        }
        ref_store_gradient(gradient, dtype, i, sum, accumulate);
    }
}
