/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the plain C reference kernels share. They serve both storage types through ref_load and ref_store, which the
 * compiler specializes per call site; arithmetic is fp32, row statistics fp64.
 *
 * Work is cut into cpu->nthreads parts, not into however many threads OpenMP delivers: partial sums are kept per part
 * and added in part order, so the bits depend on the configured number of threads alone.
 */
#ifndef SHOAL_KERNELS_CPU_REF_H
#define SHOAL_KERNELS_CPU_REF_H

#include "kernels/cpu/cpu.h"

static inline float ref_load(const void *x, shoal_dtype_t dtype, size_t i)
{
    return dtype == SHOAL_BF16 ? shoal_bf16_to_f32(((const shoal_bf16_t *)x)[i]) : ((const float *)x)[i];
}

static inline void ref_store(void *x, shoal_dtype_t dtype, size_t i, float value)
{
    if (dtype == SHOAL_BF16) {
        ((shoal_bf16_t *)x)[i] = shoal_f32_to_bf16(value);
    } else {
        ((float *)x)[i] = value;
    }
}

/* Stores a weight gradient: overwrites, or adds in fp32 and rounds once. */
static inline void ref_store_gradient(void *x, shoal_dtype_t dtype, size_t i, float value, bool accumulate)
{
    ref_store(x, dtype, i, accumulate ? ref_load(x, dtype, i) + value : value);
}

/* The address of element i. */
static inline void *ref_at(void *x, shoal_dtype_t dtype, size_t i)
{
    return (char *)x + i * shoal_dtype_nbytes(dtype);
}

static inline void ref_load_row(const void *x, shoal_dtype_t dtype, size_t first, size_t count, float *row_p)
{
    for (size_t i = 0; i < count; i++) {
        row_p[i] = ref_load(x, dtype, first + i);
    }
}

static inline void ref_store_row(void *x, shoal_dtype_t dtype, size_t first, size_t count, const float *row)
{
    for (size_t i = 0; i < count; i++) {
        ref_store(x, dtype, first + i, row[i]);
    }
}

typedef struct {
    size_t first, end;
} ref_span_t;

/* Part `part` of 0 .. n-1 cut into nparts nearly equal spans. */
static inline ref_span_t ref_part(size_t n, int part, int nparts)
{
    size_t each = n / (size_t)nparts, extra = n % (size_t)nparts, p = (size_t)part;
    size_t first = p * each + (p < extra ? p : extra);
    return (ref_span_t){first, first + each + (p < extra ? 1 : 0)};
}

/* Adds the parts' partial rows (nparts, stride) in order and stores elements offset .. offset + count - 1 as a gradient. */
void ref_reduce_parts(shoal_cpu_t *cpu, const float *partials, size_t stride, size_t offset, size_t count, void *gradient,
                      shoal_dtype_t dtype, bool accumulate);

shoal_status_t shoal_ref_embed(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_embed_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_norm(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_norm_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_matmul(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_colsum(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_headprep(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_headprep_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_attention(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_attention_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_act(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_act_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_xent(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_sum(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_cast(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_fill(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_normal(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_ref_optim(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);

size_t shoal_ref_embed_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_norm_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_headprep_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_headprep_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_attention_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_attention_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);
size_t shoal_ref_sum_workspace(shoal_cpu_t *cpu, const shoal_op_t *op);

#endif
