/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Residual addition with layer norm or RMS norm. Statistics are taken of the sum *as stored*: the backward pass reads the
 * stored one, so forward and backward see the same rounded numbers.
 */
#include <math.h>

#include "kernels/cpu/ref.h"

typedef struct {
    float mean, rstd;
} norm_stats_t;

/* The statistics of the row of x (C) that starts at element `first`. */
static norm_stats_t row_stats(const shoal_op_t *op, const void *x, size_t first)
{
    size_t C    = op->norm.C;
    double mean = 0, var = 0;
    if (op->norm.norm == SHOAL_NORM_LAYER) {
        for (size_t c = 0; c < C; c++) {
            mean += (double)ref_load(x, op->dtype, first + c);
        }
        mean /= (double)C;
    }
    for (size_t c = 0; c < C; c++) {
        double centred = (double)ref_load(x, op->dtype, first + c) - mean;
        var += centred * centred;
    }
    var /= (double)C;
    return (norm_stats_t){(float)mean, (float)(1.0 / sqrt(var + (double)op->norm.eps))};
}

shoal_status_t shoal_ref_norm(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t        N = op->norm.N, C = op->norm.C;
    shoal_dtype_t dtype  = op->dtype;
    const void   *x      = args[0]; /* (N,C) */
    const void   *branch = args[1]; /* (N,C) or NULL */
    const void   *w      = args[2]; /* (C) */
    const void   *b      = args[3]; /* (C) or NULL */
    void         *sum    = args[4]; /* (N,C), or NULL when branch is */
    void         *y      = args[5]; /* (N,C) */
    float        *stats  = args[6]; /* (N,2) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t n = 0; n < N; n++) {
        for (size_t i = n * C; sum != NULL && i < (n + 1) * C; i++) {
            float added = branch != NULL ? op->norm.residual * ref_load(branch, dtype, i) : 0;
            ref_store(sum, dtype, i, ref_load(x, dtype, i) + added);
        }
        const void  *s  = sum != NULL ? sum : x;
        norm_stats_t st = row_stats(op, s, n * C);
        for (size_t c = 0; c < C; c++) {
            float xhat = (ref_load(s, dtype, n * C + c) - st.mean) * st.rstd;
            float bias = b != NULL ? ref_load(b, dtype, c) : 0;
            ref_store(y, dtype, n * C + c, xhat * ref_load(w, dtype, c) + bias);
        }
        stats[2 * n]     = st.mean;
        stats[2 * n + 1] = st.rstd;
    }
    return SHOAL_OK;
}

size_t shoal_ref_norm_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return (size_t)cpu->nthreads * 2 * op->norm.C * sizeof(float); /* (nthreads, 2, C): dw, db */
}

/*
 * One row: adds to dw (C), db (C), then writes dsum. With g = dy * w and means over C,
 * d sum = rstd * (g - mean(g) - xhat * mean(g * xhat)); RMS norm has no mean(g), since it does not centre.
 */
static void norm_bwd_row(const shoal_op_t *op, void *const *args, size_t n, float *dw, float *db)
{
    size_t        C     = op->norm.C;
    shoal_dtype_t dtype = op->dtype;
    const void   *sum   = args[0]; /* (N,C) */
    const void   *w     = args[1]; /* (C) */
    const float  *stats = args[2]; /* (N,2) */
    const void   *dy    = args[3]; /* (N,C) */
    const void   *dres  = args[4]; /* (N,C) or NULL */
    void         *dsum  = args[5]; /* (N,C), may be dy or dres */
    float         mean = stats[2 * n], rstd = stats[2 * n + 1];

    double g_mean = 0, gx_mean = 0;
    for (size_t c = 0; c < C; c++) {
        float dyc  = ref_load(dy, dtype, n * C + c);
        float xhat = (ref_load(sum, dtype, n * C + c) - mean) * rstd;
        float g    = dyc * ref_load(w, dtype, c);
        g_mean += (double)g;
        gx_mean += (double)(g * xhat);
        dw[c] += dyc * xhat;
        db[c] += dyc;
    }
    g_mean = op->norm.norm == SHOAL_NORM_LAYER ? g_mean / (double)C : 0;
    gx_mean /= (double)C;

    for (size_t c = 0; c < C; c++) {
        size_t i    = n * C + c;
        float  xhat = (ref_load(sum, dtype, i) - mean) * rstd;
        float  g    = ref_load(dy, dtype, i) * ref_load(w, dtype, c);
        float  res  = dres != NULL ? ref_load(dres, dtype, i) : 0;
        ref_store(dsum, dtype, i, res + rstd * (g - (float)g_mean - xhat * (float)gx_mean));
    }
}

shoal_status_t shoal_ref_norm_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t N = op->norm.N, C = op->norm.C;
    float *partials = workspace; /* (nthreads, 2, C) */
    void  *dw       = args[6];   /* g(C) */
    void  *db       = args[7];   /* g(C) or NULL */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        float     *mine = partials + (size_t)part * 2 * C;
        ref_span_t rows = ref_part(N, part, cpu->nthreads);
        for (size_t c = 0; c < 2 * C; c++) {
            mine[c] = 0;
        }
        for (size_t n = rows.first; n < rows.end; n++) {
            norm_bwd_row(op, args, n, mine, mine + C);
        }
    }
    ref_reduce_parts(cpu, partials, 2 * C, 0, C, dw, op->gdtype, op->norm.accumulate);
    if (db != NULL) {
        ref_reduce_parts(cpu, partials, 2 * C, C, C, db, op->gdtype, op->norm.accumulate);
    }
    return SHOAL_OK;
}
