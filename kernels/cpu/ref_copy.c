/* SPDX-License-Identifier: BSD-3-Clause */
/* Conversion and clearing. */
#include <string.h>

#include "kernels/cpu/ref.h"

shoal_status_t shoal_ref_cast(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    const void *src = args[0]; /* (n) */
    void       *dst = args[1]; /* (n), may be src if of one dtype */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t i = 0; i < op->cast.n; i++) {
        ref_store_gradient(dst, op->cast.dst_dtype, i, ref_load(src, op->cast.src_dtype, i), op->cast.accumulate);
    }
    return SHOAL_OK;
}

shoal_status_t shoal_ref_fill(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t nbytes = shoal_dtype_nbytes(op->dtype);

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        for (size_t r = 0; r < op->fill.count; r++) {
            ref_span_t span = ref_part(op->fill.ranges[r].count, part, cpu->nthreads);
            memset((char *)args[0] + (op->fill.ranges[r].first + span.first) * nbytes, 0, (span.end - span.first) * nbytes);
        }
    }
    return SHOAL_OK;
}
