/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sums and conversions: one pass at the speed of memory. A sum over rows is kept per thread and added in thread order; flat
 * sums are kept in fp64.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_REDUCE_H
#define SHOAL_KERNELS_CPU_SIMD_REDUCE_H

#include "kernels/cpu/simd_kernel.h"

enum { COLSUM_ROWS = 4 }; /* rows added at once, so that the sums are read and written a quarter as often */

SIMD_INLINE void colsum_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const void  *dy  = job->args[0];
    const size_t n   = job->op->colsum.n, ld = job->op->colsum.ld;
    float       *sum = simd_slice(job, thread, n);
    memset(sum, 0, n * sizeof(*sum));
    size_t i = first;
    for (; i + COLSUM_ROWS <= last; i += COLSUM_ROWS) {
        SIMD_FOR (j, count, n) {
            vf_t a = load_n(dy, i * ld + j, count, dtype) + load_n(dy, (i + 1) * ld + j, count, dtype);
            vf_t b = load_n(dy, (i + 2) * ld + j, count, dtype) + load_n(dy, (i + 3) * ld + j, count, dtype);
            store_n(sum, j, count, load_n(sum, j, count, SHOAL_F32) + (a + b), SHOAL_F32);
        }
    }
    for (; i < last; i++) {
        SIMD_FOR (j, count, n) {
            store_n(sum, j, count, load_n(sum, j, count, SHOAL_F32) + load_n(dy, i * ld + j, count, dtype), SHOAL_F32);
        }
    }
}
SIMD_BY_DTYPE(colsum_rows)

static size_t colsum_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, op->colsum.n);
}

static shoal_status_t colsum_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    const size_t n   = op->colsum.n;
    simd_job_t   job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->colsum.m, 1, SIMD_PICK(colsum_rows, op->dtype));
    simd_add_slices(&job, n, 0, n, op->colsum.alpha, args[1], op->gdtype, op->colsum.accumulate);
    return SHOAL_OK;
}

/* Each thread's fp64 sum stands at the head of a cache line of the workspace. */
enum { REDUCE_NFLOATS = 16 };

SIMD_INLINE void reduce_elements(const simd_job_t *job, size_t thread, size_t first, size_t last, bool squares)
{
    const float *x = job->args[0];
    vd_t         low = {0}, high = {0}, low2 = {0}, high2 = {0};
    SIMD_FOR (i, count, last - first) {
        vf_t v = load_n(x, first + i, count, SHOAL_F32);
        vd_t a = vd_low(v), b = vd_high(v);
        if (squares) {
            a *= a;
            b *= b;
        }
        if (i / SIMD_WIDTH % 2 == 0) {
            low += a;
            high += b;
        } else {
            low2 += a;
            high2 += b;
        }
    }
    double total = vd_sum((low + high) + (low2 + high2));
    memcpy(simd_slice(job, thread, REDUCE_NFLOATS), &total, sizeof(total));
}

static void sum_elements(const simd_job_t *job, size_t thread, size_t first, size_t last)
{
    reduce_elements(job, thread, first, last, false);
}

static void sumsq_elements(const simd_job_t *job, size_t thread, size_t first, size_t last)
{
    reduce_elements(job, thread, first, last, true);
}

static size_t reduce_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    (void)op;
    return simd_slices_nbytes(cpu, REDUCE_NFLOATS);
}

static shoal_status_t reduce_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job   = simd_job(cpu, op, args, workspace);
    float     *out   = args[1];
    double     total = 0.0;
    simd_run_rows(&job, op->reduce.n, SIMD_WIDTH, op->kind == SHOAL_OP_SUMSQ ? sumsq_elements : sum_elements);
    for (size_t thread = 0; thread < job.nthreads; thread++) {
        double part;
        memcpy(&part, simd_slice(&job, thread, REDUCE_NFLOATS), sizeof(part));
        total += part;
    }
    out[0] = (float)((double)op->reduce.scale * total + (op->reduce.accumulate ? (double)out[0] : 0.0));
    return SHOAL_OK;
}

SIMD_INLINE void cast_elements(const simd_job_t *job, size_t first, size_t last, shoal_dtype_t src_dtype, shoal_dtype_t dst_dtype)
{
    const void *src        = job->args[0];
    void       *dst        = job->args[1];
    const bool  accumulate = job->op->cast.accumulate;
    SIMD_FOR (i, count, last - first) {
        vf_t x = load_n(src, first + i, count, src_dtype);
        if (accumulate) {
            x += load_n(dst, first + i, count, dst_dtype);
        }
        store_n(dst, first + i, count, x, dst_dtype);
    }
}

SIMD_INLINE void cast_from(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t src_dtype)
{
    (void)thread;
    if (job->op->cast.dst_dtype == SHOAL_BF16) {
        cast_elements(job, first, last, src_dtype, SHOAL_BF16);
    } else {
        cast_elements(job, first, last, src_dtype, SHOAL_F32);
    }
}
SIMD_BY_DTYPE(cast_from)

static shoal_status_t cast_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->cast.n, SIMD_WIDTH, SIMD_PICK(cast_from, op->cast.src_dtype));
    return SHOAL_OK;
}

#endif
