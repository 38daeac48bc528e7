/* SPDX-License-Identifier: BSD-3-Clause */
/* Initial values. */
#include "base/rng.h"
#include "kernels/cpu/ref.h"

shoal_status_t shoal_ref_normal(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    float *dst = args[0]; /* (n) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        ref_span_t span = ref_part(op->normal.n, part, cpu->nthreads);
        if (op->normal.std > 0.0f) {
            shoal_rng_normal(op->normal.stream, op->normal.first + span.first, span.end - span.first, op->normal.std, dst + span.first);
            continue;
        }
        for (size_t i = span.first; i < span.end; i++) {
            dst[i] = op->normal.constant;
        }
    }
    return SHOAL_OK;
}
