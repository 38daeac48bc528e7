/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Per-head normalization, then rotary embedding, on rows of D elements. The normalization's statistics are not stored:
 * backward takes them again from x, which costs less than a tensor of them. The inverse of a rotation is its transpose,
 * so backward rotates dy back first and then goes through the norm.
 */
#include <math.h>

#include "kernels/cpu/ref.h"

/* Rotates a row (D) by the angles of one position, table row (D/2, 2); direction +1, or -1 for the inverse. */
static void rotate(const shoal_op_t *op, const float *table, size_t position, float direction, float *row)
{
    size_t half = op->headprep.D / 2;
    bool   near = op->headprep.rope == SHOAL_ROPE_INTERLEAVED;
    if (table == NULL || op->headprep.rope == SHOAL_ROPE_NONE) {
        return;
    }
    for (size_t i = 0; i < half; i++) {
        float  cosine = table[(position * half + i) * 2], sine = direction * table[(position * half + i) * 2 + 1];
        size_t first = near ? 2 * i : i, second = near ? 2 * i + 1 : i + half;
        float  a = row[first], b = row[second];
        row[first]  = a * cosine - b * sine;
        row[second] = b * cosine + a * sine;
    }
}

/* row = (row - mean) * rstd; returns rstd. */
static float normalize(float *row, size_t D, float eps)
{
    double mean = 0, var = 0;
    for (size_t d = 0; d < D; d++) {
        mean += (double)row[d] / (double)D;
    }
    for (size_t d = 0; d < D; d++) {
        var += ((double)row[d] - mean) * ((double)row[d] - mean) / (double)D;
    }
    double rstd = 1.0 / sqrt(var + (double)eps);
    for (size_t d = 0; d < D; d++) {
        row[d] = (float)(((double)row[d] - mean) * rstd);
    }
    return (float)rstd;
}

size_t shoal_ref_headprep_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return (size_t)cpu->nthreads * op->headprep.D * sizeof(float); /* (nthreads, D): a row */
}

shoal_status_t shoal_ref_headprep(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t       N = op->headprep.N, T = op->headprep.T, heads = op->headprep.heads, D = op->headprep.D;
    const void  *x     = args[0]; /* (N, heads, D) ldx */
    const void  *w     = args[1]; /* (D) or NULL */
    const float *table = args[2]; /* (T, D/2, 2) or NULL */
    void        *y     = args[3]; /* (N, heads, D) ldy, may be x */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        float     *row    = (float *)workspace + (size_t)part * D;
        ref_span_t tokens = ref_part(N, part, cpu->nthreads);
        for (size_t i = tokens.first * heads; i < tokens.end * heads; i++) {
            size_t n = i / heads, h = i % heads;
            ref_load_row(x, op->dtype, n * op->headprep.ldx + h * D, D, row);
            if (w != NULL) {
                normalize(row, D, op->headprep.eps);
                for (size_t d = 0; d < D; d++) {
                    row[d] *= ref_load(w, op->dtype, d);
                }
            }
            rotate(op, table, n % T, 1, row);
            ref_store_row(y, op->dtype, n * op->headprep.ldy + h * D, D, row);
        }
    }
    return SHOAL_OK;
}

size_t shoal_ref_headprep_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return (size_t)cpu->nthreads * 3 * op->headprep.D * sizeof(float); /* (nthreads, 3, D): dw, g, xhat */
}

/* g (D) holds dy and becomes dx; xhat (D) holds x; adds to dw (D). */
static void norm_bwd_head(const shoal_op_t *op, const void *w, float *g, float *xhat, float *dw)
{
    size_t D    = op->headprep.D;
    float  rstd = normalize(xhat, D, op->headprep.eps);
    double g_mean = 0, gx_mean = 0;
    for (size_t d = 0; d < D; d++) {
        dw[d] += g[d] * xhat[d];
        g[d] *= ref_load(w, op->dtype, d);
        g_mean += (double)g[d] / (double)D;
        gx_mean += (double)(g[d] * xhat[d]) / (double)D;
    }
    for (size_t d = 0; d < D; d++) {
        g[d] = rstd * (g[d] - (float)g_mean - xhat[d] * (float)gx_mean);
    }
}

shoal_status_t shoal_ref_headprep_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t       N = op->headprep.N, T = op->headprep.T, heads = op->headprep.heads, D = op->headprep.D;
    const void  *x     = args[0]; /* (N, heads, D) ldsrc; NULL without w */
    const void  *w     = args[1]; /* (D) or NULL */
    const float *table = args[2]; /* (T, D/2, 2) or NULL */
    const void  *dy    = args[3]; /* (N, heads, D) ldy */
    void        *dx    = args[4]; /* (N, heads, D) ldx, may be dy */
    void        *dw    = args[5]; /* g(D); NULL without w */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        float     *dw_part = (float *)workspace + (size_t)part * 3 * D, *g = dw_part + D, *xhat = g + D;
        ref_span_t tokens  = ref_part(N, part, cpu->nthreads);
        for (size_t d = 0; d < D; d++) {
            dw_part[d] = 0;
        }
        for (size_t i = tokens.first * heads; i < tokens.end * heads; i++) {
            size_t n = i / heads, h = i % heads;
            ref_load_row(dy, op->dtype, n * op->headprep.ldy + h * D, D, g);
            rotate(op, table, n % T, -1, g);
            if (w != NULL) {
                ref_load_row(x, op->dtype, n * op->headprep.ldsrc + h * D, D, xhat);
                norm_bwd_head(op, w, g, xhat, dw_part);
            }
            ref_store_row(dx, op->dtype, n * op->headprep.ldx + h * D, D, g);
        }
    }
    if (w != NULL) {
        ref_reduce_parts(cpu, workspace, 3 * D, 0, D, dw, op->gdtype, op->headprep.accumulate);
    }
    return SHOAL_OK;
}
