/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token and position embedding. The gradient of a table row is the sum over the tokens that used it, so tokens are first
 * sorted by vocabulary entry (a stable counting sort); then each row has one owner that adds its tokens in order, in
 * fp32, and rounds once. That is deterministic for any number of threads and needs no atomics.
 */
#include "kernels/cpu/ref.h"

shoal_status_t shoal_ref_embed(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t         N = op->embed.N, T = op->embed.T, C = op->embed.C;
    shoal_dtype_t  dtype  = op->dtype;
    const int32_t *tokens = args[0]; /* (N) */
    const void    *tok    = args[1]; /* (V,C) */
    const void    *pos    = args[2]; /* (T,C) or NULL */
    void          *x      = args[3]; /* (N,C) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t n = 0; n < N; n++) {
        size_t row = (size_t)tokens[n] * C;
        for (size_t c = 0; c < C; c++) {
            float position = pos != NULL ? ref_load(pos, dtype, n % T * C + c) : 0;
            ref_store(x, dtype, n * C + c, ref_load(tok, dtype, row + c) + position);
        }
    }
    return SHOAL_OK;
}

/* start: where the tokens of entry v begin in `order` is start[v], and they end at start[v + 1]. */
typedef struct {
    uint32_t *start; /* (V+1) */
    uint32_t *order; /* (N) */
    float    *sums;  /* (nthreads, C) */
} embed_bwd_workspace_t;

size_t shoal_ref_embed_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return (op->embed.V + 1 + op->embed.N) * sizeof(uint32_t) + (size_t)cpu->nthreads * op->embed.C * sizeof(float);
}

static void sort_tokens(const int32_t *tokens, size_t N, size_t V, const embed_bwd_workspace_t *work)
{
    for (size_t v = 0; v <= V; v++) {
        work->start[v] = 0;
    }
    for (size_t n = 0; n < N; n++) {
        work->start[tokens[n]]++;
    }
    uint32_t end = 0;
    for (size_t v = 0; v <= V; v++) {
        end += work->start[v];
        work->start[v] = end; /* the pass below walks it back to the start */
    }
    for (size_t n = N; n-- > 0;) {
        work->order[--work->start[tokens[n]]] = (uint32_t)n;
    }
}

/* sum (C) += row n of dx. */
static void add_row(const shoal_op_t *op, const void *dx, size_t n, float *sum)
{
    size_t C = op->embed.C;
    for (size_t c = 0; c < C; c++) {
        sum[c] += ref_load(dx, op->dtype, n * C + c);
    }
}

/* Stores a row of a table's gradient and clears the sum for the next one. */
static void finish_row(const shoal_op_t *op, void *dtable, size_t row, float *sum)
{
    size_t C = op->embed.C;
    for (size_t c = 0; c < C; c++) {
        ref_store_gradient(dtable, op->gdtype, row * C + c, sum[c], op->embed.accumulate);
        sum[c] = 0;
    }
}

shoal_status_t shoal_ref_embed_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t                N = op->embed.N, T = op->embed.T, C = op->embed.C, V = op->embed.V;
    const int32_t        *tokens = args[0]; /* (N) */
    const void           *dx     = args[1]; /* (N,C) */
    void                 *dtok   = args[2]; /* g(V,C) */
    void                 *dpos   = args[3]; /* g(T,C) or NULL */
    embed_bwd_workspace_t work   = {.start = workspace};
    work.order                   = work.start + V + 1;
    work.sums                    = (float *)(work.order + N);

    sort_tokens(tokens, N, V, &work);

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        float     *sum       = work.sums + (size_t)part * C;
        ref_span_t entries   = ref_part(V, part, cpu->nthreads);
        ref_span_t positions = ref_part(dpos != NULL ? T : 0, part, cpu->nthreads);
        for (size_t c = 0; c < C; c++) {
            sum[c] = 0;
        }
        for (size_t v = entries.first; v < entries.end; v++) {
            if (op->embed.accumulate && work.start[v] == work.start[v + 1]) {
                continue; /* most of a large vocabulary: nothing to add */
            }
            for (size_t i = work.start[v]; i < work.start[v + 1]; i++) {
                add_row(op, dx, work.order[i], sum);
            }
            finish_row(op, dtok, v, sum);
        }
        for (size_t t = positions.first; t < positions.end; t++) {
            for (size_t n = t; n < N; n += T) {
                add_row(op, dx, n, sum);
            }
            finish_row(op, dpos, t, sum);
        }
    }
    return SHOAL_OK;
}
