/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Normalization. A row is read from memory once; the later passes over it (variance, scaling) find it in the cache.
 * The statistics are those of the sum as stored, rounded if bf16, because that is what backward reads. The variance is
 * taken around the mean, in a pass of its own: E[x^2] - mean^2 loses all digits when the mean is large.
 *
 * Weight gradients are summed per thread over its rows and then over threads, in order.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_NORM_H
#define SHOAL_KERNELS_CPU_SIMD_NORM_H

#include "kernels/cpu/simd_kernel.h"

/* sum = x + residual * branch, row by row; returns the row's total. Without a branch sum may be NULL: nothing is copied. */
SIMD_INLINE float norm_add_row(const simd_job_t *job, size_t row, shoal_dtype_t dtype)
{
    const void  *x = job->args[0], *branch = job->args[1];
    void        *sum      = job->args[4];
    const size_t C        = job->op->norm.C;
    const vf_t   residual = v_set(job->op->norm.residual);
    vf_t         total    = v_set(0.0f);
    SIMD_FOR (c, count, C) {
        vf_t s = load_n(x, row + c, count, dtype);
        if (branch != NULL) {
            s = v_fma(residual, load_n(branch, row + c, count, dtype), s);
        }
        if (sum != NULL) {
            store_n(sum, row + c, count, s, dtype);
            s = load_n(sum, row + c, count, dtype); /* as rounded */
        }
        total += s;
    }
    return v_sum(total);
}

/* Sum over the row of (x - mean)^2. Lanes beyond the row read as 0 and must not count: they are loaded as the mean. */
SIMD_INLINE float norm_variance_row(const void *x, size_t row, size_t C, float mean, shoal_dtype_t dtype)
{
    const size_t whole = C / SIMD_WIDTH * SIMD_WIDTH;
    vf_t         a = v_set(0.0f), b = v_set(0.0f);
    size_t       c = 0;
    for (; c + SIMD_WIDTH < whole; c += 2 * SIMD_WIDTH) {
        vf_t x0 = load_n(x, row + c, SIMD_WIDTH, dtype) - v_set(mean);
        vf_t x1 = load_n(x, row + c + SIMD_WIDTH, SIMD_WIDTH, dtype) - v_set(mean);
        a = v_fma(x0, x0, a);
        b = v_fma(x1, x1, b);
    }
    float total = 0.0f;
    for (; c < whole; c += SIMD_WIDTH) {
        vf_t x0 = load_n(x, row + c, SIMD_WIDTH, dtype) - v_set(mean);
        a = v_fma(x0, x0, a);
    }
    for (; c < C; c++) {
        float x0 = load_one(x, row + c, dtype) - mean;
        total += x0 * x0;
    }
    return total + v_sum(a + b);
}

SIMD_INLINE void norm_scale_row(const simd_job_t *job, const void *sum, size_t row, float mean, float rstd, shoal_dtype_t dtype)
{
    const void *w = job->args[2], *b = job->args[3];
    void       *y      = job->args[5];
    const vf_t  scale  = v_set(rstd);
    const vf_t  centre = v_set(mean);
    SIMD_FOR (c, count, job->op->norm.C) {
        vf_t xhat = (load_n(sum, row + c, count, dtype) - centre) * scale;
        vf_t out  = xhat * load_n(w, c, count, dtype);
        if (b != NULL) {
            out += load_n(b, c, count, dtype);
        }
        store_n(y, row + c, count, out, dtype);
    }
}

SIMD_INLINE void norm_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    const size_t C     = job->op->norm.C;
    const bool   layer = job->op->norm.norm == SHOAL_NORM_LAYER;
    const void  *sum   = job->args[4] != NULL ? job->args[4] : job->args[0];
    float       *stats = job->args[6];
    for (size_t n = first; n < last; n++) {
        float total = norm_add_row(job, n * C, dtype);
        float mean  = layer ? total / (float)C : 0.0f;
        float var   = norm_variance_row(sum, n * C, C, mean, dtype) / (float)C;
        float rstd  = 1.0f / sqrtf(var + job->op->norm.eps);
        norm_scale_row(job, sum, n * C, mean, rstd, dtype);
        stats[2 * n]     = mean;
        stats[2 * n + 1] = rstd;
    }
}
SIMD_BY_DTYPE(norm_rows)

static shoal_status_t norm_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->norm.N, 1, SIMD_PICK(norm_rows, op->dtype));
    return SHOAL_OK;
}

/* One row: its two inner products and its part of dw and db, then dsum. */
SIMD_INLINE void norm_bwd_row(const simd_job_t *job, size_t n, float *dw, float *db, shoal_dtype_t dtype)
{
    const void  *sum = job->args[0], *w = job->args[1], *dy = job->args[3], *dres = job->args[4];
    const float *stats  = job->args[2];
    void        *dsum   = job->args[5];
    const size_t C      = job->op->norm.C;
    const vf_t   centre = v_set(stats[2 * n]);
    const vf_t   rstd   = v_set(stats[2 * n + 1]);
    vf_t         by_one = v_set(0.0f), by_xhat = v_set(0.0f);
    SIMD_FOR (c, count, C) {
        vf_t g    = load_n(dy, n * C + c, count, dtype);
        vf_t xhat = (load_n(sum, n * C + c, count, dtype) - centre) * rstd;
        vf_t gw   = g * load_n(w, c, count, dtype);
        by_one += gw;
        by_xhat = v_fma(gw, xhat, by_xhat);
        store_n(dw, c, count, v_fma(g, xhat, load_n(dw, c, count, SHOAL_F32)), SHOAL_F32);
        if (db != NULL) {
            store_n(db, c, count, g + load_n(db, c, count, SHOAL_F32), SHOAL_F32);
        }
    }
    const bool layer     = job->op->norm.norm == SHOAL_NORM_LAYER;
    const vf_t mean_one  = v_set(layer ? v_sum(by_one) / (float)C : 0.0f);
    const vf_t mean_xhat = v_set(v_sum(by_xhat) / (float)C);
    SIMD_FOR (c, count, C) {
        vf_t gw   = load_n(dy, n * C + c, count, dtype) * load_n(w, c, count, dtype);
        vf_t xhat = (load_n(sum, n * C + c, count, dtype) - centre) * rstd;
        vf_t d    = rstd * (v_fnma(xhat, mean_xhat, gw) - mean_one);
        if (dres != NULL) {
            d += load_n(dres, n * C + c, count, dtype);
        }
        store_n(dsum, n * C + c, count, d, dtype);
    }
}

/* The workspace holds dw (C) and db (C) per thread. */
SIMD_INLINE void norm_bwd_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const size_t C  = job->op->norm.C;
    float       *dw = simd_slice(job, thread, 2 * C);
    float       *db = job->args[7] != NULL ? dw + C : NULL;
    memset(dw, 0, 2 * C * sizeof(*dw));
    for (size_t n = first; n < last; n++) {
        norm_bwd_row(job, n, dw, db, dtype);
    }
}
SIMD_BY_DTYPE(norm_bwd_rows)

static size_t norm_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, 2 * op->norm.C);
}

static shoal_status_t norm_bwd_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    const size_t C   = op->norm.C;
    simd_job_t   job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->norm.N, 1, SIMD_PICK(norm_bwd_rows, op->dtype));
    simd_add_slices(&job, 2 * C, 0, C, 1.0f, args[6], op->gdtype, op->norm.accumulate);
    if (args[7] != NULL) {
        simd_add_slices(&job, 2 * C, C, C, 1.0f, args[7], op->gdtype, op->norm.accumulate);
    }
    return SHOAL_OK;
}

#endif
