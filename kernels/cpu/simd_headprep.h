/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preparation of query and key heads: normalization over the head, then rotation. A head is 16 to 128 elements, so it goes
 * through a small fp32 buffer that never leaves the first cache level; memory is read once and written once. Backward
 * takes the same two steps in reverse, and recomputes the head's mean and rstd rather than keeping them.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_HEADPREP_H
#define SHOAL_KERNELS_CPU_SIMD_HEADPREP_H

#include "kernels/cpu/simd_kernel.h"
#include "kernels/cpu/simd_norm.h"

typedef struct {
    float mean, rstd;
} head_stats_t;

SIMD_INLINE head_stats_t head_stats(const void *x, size_t at, size_t D, float eps, shoal_dtype_t dtype)
{
    vf_t total = v_set(0.0f);
    SIMD_FOR (d, count, D) {
        total += load_n(x, at + d, count, dtype);
    }
    float mean = v_sum(total) / (float)D;
    float var  = norm_variance_row(x, at, D, mean, dtype) / (float)D;
    return (head_stats_t){mean, 1.0f / sqrtf(var + eps)};
}

/* head (D, padded) = norm(x) * w, or x itself without w. */
SIMD_INLINE void head_load(const simd_job_t *job, const void *x, size_t at, float *head, shoal_dtype_t dtype)
{
    const size_t D = job->op->headprep.D;
    const void  *w = job->args[1];
    head_stats_t s = {0.0f, 1.0f};
    if (w != NULL) {
        s = head_stats(x, at, D, job->op->headprep.eps, dtype);
    }
    SIMD_FOR (d, count, D) {
        vf_t v = load_n(x, at + d, count, dtype);
        if (w != NULL) {
            v = (v - v_set(s.mean)) * v_set(s.rstd) * load_n(w, d, count, dtype);
        }
        v_store_f32(head + d, v);
    }
}

/* Rotates pairs (2i, 2i + 1). The table's row holds (cos, sin) at the very places of the pair. */
SIMD_INLINE void head_rotate_interleaved(float *head, const float *table, size_t D, bool inverse)
{
    SIMD_FOR (d, count, D) {
        vf_t angle = load_n(table, d, count, SHOAL_F32);
        vf_t x     = v_load_f32(head + d);
        vf_t cross = v_swap_pairs(x) * v_odd_twice(angle);
        vf_t y     = inverse ? v_fmsubadd(x, v_even_twice(angle), cross) : v_fmaddsub(x, v_even_twice(angle), cross);
        v_store_f32(head + d, y);
    }
}

/* Rotates pairs (i, i + D/2). */
SIMD_INLINE void head_rotate_half(float *head, const float *table, size_t D, bool inverse)
{
    const float sign = inverse ? -1.0f : 1.0f;
    const size_t half = D / 2;
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float c = table[2 * i], s = sign * table[2 * i + 1];
        float a = head[i], b = head[i + half];
        head[i]        = a * c - b * s;
        head[i + half] = b * c + a * s;
    }
}

SIMD_INLINE void head_rotate(const simd_job_t *job, float *head, size_t n, bool inverse)
{
    const size_t D     = job->op->headprep.D;
    const float *table = job->args[2];
    if (table == NULL || job->op->headprep.rope == SHOAL_ROPE_NONE) {
        return;
    }
    table += n % job->op->headprep.T * D;
    if (job->op->headprep.rope == SHOAL_ROPE_INTERLEAVED) {
        head_rotate_interleaved(head, table, D, inverse);
    } else {
        head_rotate_half(head, table, D, inverse);
    }
}

/* Floats of workspace per thread: the head, and for backward dw (D). */
SIMD_INLINE size_t headprep_nfloats(const shoal_op_t *op)
{
    return 2 * simd_padded(op->headprep.D);
}

static size_t headprep_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, headprep_nfloats(op));
}

SIMD_INLINE void headprep_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const shoal_op_t *op   = job->op;
    const size_t      D    = op->headprep.D;
    float            *head = simd_slice(job, thread, headprep_nfloats(op));
    for (size_t n = first; n < last; n++) {
        for (size_t h = 0; h < op->headprep.heads; h++) {
            head_load(job, job->args[0], n * op->headprep.ldx + h * D, head, dtype);
            head_rotate(job, head, n, false);
            SIMD_FOR (d, count, D) {
                store_n(job->args[3], n * op->headprep.ldy + h * D + d, count, v_load_f32(head + d), dtype);
            }
        }
    }
}
SIMD_BY_DTYPE(headprep_rows)

static shoal_status_t headprep_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->headprep.N, 1, SIMD_PICK(headprep_rows, op->dtype));
    return SHOAL_OK;
}

/* From dhead, the gradient of norm(x) * w, to dx, in the same buffer; adds the head's part of dw. */
SIMD_INLINE void head_norm_bwd(const simd_job_t *job, size_t at, float *dhead, float *dw, shoal_dtype_t dtype)
{
    const void  *x = job->args[0], *w = job->args[1];
    const size_t D = job->op->headprep.D;
    head_stats_t s = head_stats(x, at, D, job->op->headprep.eps, dtype);
    vf_t         by_one = v_set(0.0f), by_xhat = v_set(0.0f);
    SIMD_FOR (d, count, D) {
        vf_t xhat = (load_n(x, at + d, count, dtype) - v_set(s.mean)) * v_set(s.rstd);
        vf_t g    = v_load_f32(dhead + d); /* 0 beyond the head */
        v_store_f32(dw + d, v_fma(g, xhat, v_load_f32(dw + d)));
        g *= load_n(w, d, count, dtype);
        v_store_f32(dhead + d, g);
        by_one += g;
        by_xhat = v_fma(g, xhat, by_xhat);
    }
    const vf_t mean_one  = v_set(v_sum(by_one) / (float)D);
    const vf_t mean_xhat = v_set(v_sum(by_xhat) / (float)D);
    SIMD_FOR (d, count, D) {
        vf_t xhat = (load_n(x, at + d, count, dtype) - v_set(s.mean)) * v_set(s.rstd);
        v_store_f32(dhead + d, v_set(s.rstd) * (v_fnma(xhat, mean_xhat, v_load_f32(dhead + d)) - mean_one));
    }
}

SIMD_INLINE void headprep_bwd_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const shoal_op_t *op    = job->op;
    const size_t      D     = op->headprep.D;
    float            *dhead = simd_slice(job, thread, headprep_nfloats(op));
    float            *dw    = dhead + simd_padded(D);
    memset(dw, 0, simd_padded(D) * sizeof(*dw));
    for (size_t n = first; n < last; n++) {
        for (size_t h = 0; h < op->headprep.heads; h++) {
            SIMD_FOR (d, count, D) {
                v_store_f32(dhead + d, load_n(job->args[3], n * op->headprep.ldy + h * D + d, count, dtype));
            }
            head_rotate(job, dhead, n, true);
            if (job->args[1] != NULL) {
                head_norm_bwd(job, n * op->headprep.ldsrc + h * D, dhead, dw, dtype);
            }
            SIMD_FOR (d, count, D) {
                store_n(job->args[4], n * op->headprep.ldx + h * D + d, count, v_load_f32(dhead + d), dtype);
            }
        }
    }
}
SIMD_BY_DTYPE(headprep_bwd_rows)

static shoal_status_t headprep_bwd_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    const size_t D   = op->headprep.D;
    simd_job_t   job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->headprep.N, 1, SIMD_PICK(headprep_bwd_rows, op->dtype));
    if (args[1] != NULL) {
        simd_add_slices(&job, headprep_nfloats(op), simd_padded(D), D, 1.0f, args[5], op->gdtype, op->headprep.accumulate);
    }
    return SHOAL_OK;
}

#endif
