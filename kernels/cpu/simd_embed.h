/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Embedding. Backward sorts the positions by token (a counting sort, so positions of one token stay in order) and then
 * walks the vocabulary: each row of dtok is the fp32 sum of its tokens' gradients, written once. No two threads write one
 * row, no zeroing pass is needed, and bf16 gradients are rounded once however often a token occurs.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_EMBED_H
#define SHOAL_KERNELS_CPU_SIMD_EMBED_H

#include "kernels/cpu/simd_kernel.h"

SIMD_INLINE void embed_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    const int32_t *tokens = job->args[0];
    const void    *tok = job->args[1], *pos = job->args[2];
    const size_t   C = job->op->embed.C, T = job->op->embed.T;
    for (size_t n = first; n < last; n++) {
        SIMD_FOR (c, count, C) {
            vf_t x = load_n(tok, (size_t)tokens[n] * C + c, count, dtype);
            if (pos != NULL) {
                x += load_n(pos, n % T * C + c, count, dtype);
            }
            store_n(job->args[3], n * C + c, count, x, dtype);
        }
    }
}
SIMD_BY_DTYPE(embed_rows)

static shoal_status_t embed_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->embed.N, 1, SIMD_PICK(embed_rows, op->dtype));
    return SHOAL_OK;
}

enum { EMBED_TASK_ROWS = 64 }; /* vocabulary rows per task: frequent tokens crowd together, so threads take small bites */

/* The workspace: a row (C) of sums per thread, then ends (V) and order (N). */
static size_t embed_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, op->embed.C) + (op->embed.V + op->embed.N) * sizeof(uint32_t);
}

SIMD_INLINE uint32_t *embed_ends(const simd_job_t *job)
{
    return (uint32_t *)simd_slice(job, job->nthreads, job->op->embed.C);
}

/* order lists the positions by token; those of token v end before ends[v] and begin where those of v - 1 end. */
static void embed_sort(const simd_job_t *job)
{
    const int32_t *tokens = job->args[0];
    const size_t   N = job->op->embed.N, V = job->op->embed.V;
    uint32_t      *ends = embed_ends(job), *order = ends + V;
    memset(ends, 0, V * sizeof(*ends));
    for (size_t n = 0; n < N; n++) {
        ends[tokens[n]]++;
    }
    uint32_t begin = 0;
    for (size_t v = 0; v < V; v++) {
        uint32_t count = ends[v];
        ends[v] = begin;
        begin += count;
    }
    for (size_t n = 0; n < N; n++) {
        order[ends[tokens[n]]++] = (uint32_t)n;
    }
}

/* out (C) = sum [+ out]. */
SIMD_INLINE void embed_write(const simd_job_t *job, const float *sum, void *out, size_t at)
{
    const shoal_op_t *op = job->op;
    SIMD_FOR (c, count, op->embed.C) {
        vf_t x = load_n(sum, c, count, SHOAL_F32);
        if (op->embed.accumulate) {
            x += load_n(out, at + c, count, op->gdtype);
        }
        store_n(out, at + c, count, x, op->gdtype);
    }
}

SIMD_INLINE void embed_add_row(float *sum, const void *dx, size_t at, size_t C, shoal_dtype_t dtype)
{
    SIMD_FOR (c, count, C) {
        store_n(sum, c, count, load_n(sum, c, count, SHOAL_F32) + load_n(dx, at + c, count, dtype), SHOAL_F32);
    }
}

SIMD_INLINE void embed_bwd_tasks(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const shoal_op_t *op    = job->op;
    const size_t      C     = op->embed.C;
    const uint32_t   *ends  = embed_ends(job), *order = ends + op->embed.V;
    float            *sum   = simd_slice(job, thread, C);
    const size_t      end_v = last * EMBED_TASK_ROWS < op->embed.V ? last * EMBED_TASK_ROWS : op->embed.V;
    for (size_t v = first * EMBED_TASK_ROWS; v < end_v; v++) {
        size_t begin = v == 0 ? 0 : ends[v - 1];
        if (begin == ends[v]) {
            if (!op->embed.accumulate) {
                memset(simd_at(job->args[2], v * C, op->gdtype), 0, C * shoal_dtype_nbytes(op->gdtype));
            }
            continue;
        }
        memset(sum, 0, C * sizeof(*sum));
        for (size_t i = begin; i < ends[v]; i++) {
            embed_add_row(sum, job->args[1], order[i] * C, C, dtype);
        }
        embed_write(job, sum, job->args[2], v * C);
    }
}
SIMD_BY_DTYPE(embed_bwd_tasks)

/* dpos[t] = sum over sequences of dx[t]. */
SIMD_INLINE void embed_bwd_positions(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    const size_t C   = job->op->embed.C;
    float       *sum = simd_slice(job, thread, C);
    for (size_t t = first; t < last; t++) {
        memset(sum, 0, C * sizeof(*sum));
        for (size_t n = t; n < job->op->embed.N; n += job->op->embed.T) {
            embed_add_row(sum, job->args[1], n * C, C, dtype);
        }
        embed_write(job, sum, job->args[3], t * C);
    }
}
SIMD_BY_DTYPE(embed_bwd_positions)

static shoal_status_t embed_bwd_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    embed_sort(&job);
    simd_run_tasks(&job, (op->embed.V + EMBED_TASK_ROWS - 1) / EMBED_TASK_ROWS, SIMD_PICK(embed_bwd_tasks, op->dtype));
    if (args[3] != NULL) {
        simd_run_rows(&job, op->embed.T, 1, SIMD_PICK(embed_bwd_positions, op->dtype));
    }
    return SHOAL_OK;
}

#endif
