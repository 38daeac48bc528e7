/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Causal attention, backward. Tiles as in forward; weights are recomputed from the kept log-sums. Per tile, with
 * delta = rowsum(do * o):
 *
 *   p = exp2(q k^T - lse),  ds = p (do v^T - delta),  dv += p^T do,  dk += ds^T q,  dq += ds k
 *
 * A task is one key/value head of one sequence with all its query heads: dk and dv are summed in fp32 in the thread's
 * workspace, in a fixed order and without races, and each output is written once.
 *
 * Per query head, what belongs to queries (q, do, dq) is packed for the whole sequence, and key blocks are the outer loop:
 * their five tiles stay in the cache while three tiles per query block stream past. The other order would stream five.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_ATTENTION_BWD_H
#define SHOAL_KERNELS_CPU_SIMD_ATTENTION_BWD_H

#include "kernels/cpu/simd_attention.h"

typedef struct {
    float *q, *dout, *dq; /* (blocks, ATTN_BLOCK, P); q times scale * log2(e) */
    float *dk, *dv;       /* (blocks, ATTN_BLOCK, P) */
    float *lse, *delta;   /* (blocks, ATTN_BLOCK); lse in units of log 2 */
    float *kt, *vt;       /* (P, ATTN_BLOCK) */
    float *k;             /* (ATTN_BLOCK, P) */
    float *p, *ds;        /* (ATTN_BLOCK, ATTN_BLOCK) */
} attn_bwd_tiles_t;

SIMD_INLINE size_t attn_bwd_nfloats(const shoal_op_t *op)
{
    const size_t P = simd_padded(op->attention.D), blocks = attn_blocks(op);
    return ATTN_BLOCK * (5 * blocks * P + 2 * blocks + 3 * P + 2 * ATTN_BLOCK);
}

static size_t attn_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, attn_bwd_nfloats(op));
}

SIMD_INLINE attn_bwd_tiles_t attn_bwd_tiles(const simd_job_t *job, size_t thread)
{
    const size_t tile = ATTN_BLOCK * simd_padded(job->op->attention.D), all = attn_blocks(job->op) * tile;
    attn_bwd_tiles_t t;
    t.q     = simd_slice(job, thread, attn_bwd_nfloats(job->op));
    t.dout  = t.q + all;
    t.dq    = t.dout + all;
    t.dk    = t.dq + all;
    t.dv    = t.dk + all;
    t.lse   = t.dv + all;
    t.delta = t.lse + attn_blocks(job->op) * ATTN_BLOCK;
    t.kt    = t.delta + attn_blocks(job->op) * ATTN_BLOCK;
    t.vt    = t.kt + tile;
    t.k     = t.vt + tile;
    t.p     = t.k + tile;
    t.ds    = t.p + ATTN_BLOCK * ATTN_BLOCK;
    return t;
}

/* From scores to p and from do v^T (in ds) to ds; row r of the tile is query `first` + r. */
SIMD_INLINE void attn_bwd_row(attn_bwd_tiles_t *t, size_t first, size_t r, bool diagonal)
{
    float     *p = t->p + r * ATTN_BLOCK, *ds = t->ds + r * ATTN_BLOCK;
    const vf_t lse = v_set(t->lse[first + r]), delta = v_set(t->delta[first + r]);
    if (diagonal) {
        attn_hide_row(p, r);
    }
    for (size_t j = 0; j < attn_row_keys(diagonal, r); j += SIMD_WIDTH) {
        vf_t weight = v_exp2_below_one(v_load_f32(p + j) - lse);
        v_store_f32(p + j, weight);
        v_store_f32(ds + j, weight * (v_load_f32(ds + j) - delta));
    }
}

/* dv += p^T do, for each strip of keys with the queries that see it; also dk += ds^T q. */
SIMD_INLINE void attn_bwd_keys(float *dv, const float *p, const float *dout, size_t rows, size_t P, bool diagonal)
{
    if (!diagonal) {
        gemm_add_transposed(ATTN_BLOCK, P, rows, p, ATTN_BLOCK, dout, P, dv, P);
        return;
    }
    for (size_t r = 0; r < rows; r += ATTN_STRIP) {
        gemm_add_transposed(ATTN_STRIP, P, rows - r, p + r * ATTN_BLOCK + r, ATTN_BLOCK, dout + r * P, P, dv + r * P, P);
    }
}

/* dq (rows, P) += ds (rows, keys) k (keys, P). */
SIMD_INLINE void attn_bwd_queries(float *dq, const float *ds, const float *k, size_t rows, size_t P, bool diagonal)
{
    const size_t step = diagonal ? ATTN_STRIP : rows;
    for (size_t r = 0; r < rows; r += step) {
        gemm_add(step, P, attn_row_keys(diagonal, r), ds + r * ATTN_BLOCK, ATTN_BLOCK, k, P, dq + r * P, P);
    }
}

/* lse, delta, q and do of one block of queries. Rows beyond the sequence are zero and so add nothing to any sum. */
SIMD_INLINE void attn_bwd_load(const simd_job_t *job, attn_bwd_tiles_t *t, size_t b, size_t h, size_t first, shoal_dtype_t dtype)
{
    const shoal_op_t *op = job->op;
    const size_t      D = op->attention.D, P = simd_padded(D), T = op->attention.T, rows = attn_block_rows(op, first);
    const float      *lse    = (const float *)job->args[4] + (b * op->attention.H + h) * T;
    const float       factor = op->attention.scale * SIMD_LOG2E;
    attn_head_t       q      = attn_head(op, job->args[0], op->attention.ldq, b, h);
    attn_head_t       o      = attn_head(op, job->args[3], op->attention.ldo, b, h);
    attn_head_t       dout   = attn_head(op, job->args[5], op->attention.ldo, b, h);
    attn_pack(t->q + first * P, q, first, rows, D, factor, dtype);
    attn_pack(t->dout + first * P, dout, first, rows, D, 1.0f, dtype);
    for (size_t r = first; r < first + ATTN_BLOCK; r++) {
        t->lse[r] = t->delta[r] = 0.0f;
    }
    for (size_t r = first; r < first + rows; r++) {
        vf_t sum = v_set(0.0f);
        SIMD_FOR (d, count, D) {
            sum = v_fma(load_n(o.base, o.at + r * o.ld + d, count, dtype), v_load_f32(t->dout + r * P + d), sum);
        }
        t->delta[r] = v_sum(sum);
        t->lse[r]   = lse[r] * SIMD_LOG2E;
    }
}

/* Rows of a block, times factor, to an activation. */
SIMD_INLINE void attn_bwd_write(const shoal_op_t *op, const float *tile, void *out, size_t ld, size_t b, size_t head,
                                size_t first, float factor, shoal_dtype_t dtype)
{
    const size_t D = op->attention.D, P = simd_padded(D);
    for (size_t r = 0; r < attn_block_rows(op, first); r++) {
        size_t at = (b * op->attention.T + first + r) * ld + head * D;
        SIMD_FOR (d, count, D) {
            store_n(out, at + d, count, v_load_f32(tile + r * P + d) * v_set(factor), dtype);
        }
    }
}

/* The tile of queries `first`.. and keys `keys`.., whose packed forms are in kt, vt and k. */
SIMD_INLINE void attn_bwd_tile(const shoal_op_t *op, attn_bwd_tiles_t *t, size_t first, size_t keys)
{
    const size_t D = op->attention.D, P = simd_padded(D), rows = attn_tile_rows(attn_block_rows(op, first));
    const bool   diagonal = first == keys;
    attn_scores(t->p, t->q + first * P, t->kt, rows, D, diagonal);
    attn_scores(t->ds, t->dout + first * P, t->vt, rows, D, diagonal);
    for (size_t r = 0; r < rows; r++) {
        attn_bwd_row(t, first, r, diagonal);
    }
    attn_bwd_keys(t->dv + keys * P, t->p, t->dout + first * P, rows, P, diagonal);
    attn_bwd_keys(t->dk + keys * P, t->ds, t->q + first * P, rows, P, diagonal);
    attn_bwd_queries(t->dq + first * P, t->ds, t->k, rows, P, diagonal);
}

/* One query head: writes its dq and adds its part of dk and dv. */
SIMD_INLINE void attn_bwd_head(const simd_job_t *job, attn_bwd_tiles_t *t, size_t b, size_t h, shoal_dtype_t dtype)
{
    const shoal_op_t *op = job->op;
    const size_t      D = op->attention.D, P = simd_padded(D), T = op->attention.T;
    const size_t      kv     = h / (op->attention.H / op->attention.K);
    attn_head_t       k      = attn_head(op, job->args[1], op->attention.ldk, b, kv);
    attn_head_t       v      = attn_head(op, job->args[2], op->attention.ldv, b, kv);
    for (size_t first = 0; first < T; first += ATTN_BLOCK) {
        attn_bwd_load(job, t, b, h, first, dtype);
    }
    memset(t->dq, 0, attn_blocks(op) * ATTN_BLOCK * P * sizeof(*t->dq));
    for (size_t keys = 0; keys < T; keys += ATTN_BLOCK) {
        const size_t rows = attn_block_rows(op, keys);
        attn_pack_transposed(t->kt, k, keys, rows, D, dtype);
        attn_pack_transposed(t->vt, v, keys, rows, D, dtype);
        attn_pack(t->k, k, keys, rows, D, 1.0f, dtype);
        for (size_t first = keys; first < T; first += ATTN_BLOCK) {
            attn_bwd_tile(op, t, first, keys);
        }
    }
    for (size_t first = 0; first < T; first += ATTN_BLOCK) {
        attn_bwd_write(op, t->dq + first * P, job->args[6], op->attention.lddq, b, h, first, op->attention.scale, dtype);
    }
}

SIMD_INLINE void attn_bwd_task(const simd_job_t *job, size_t thread, size_t task, shoal_dtype_t dtype)
{
    const shoal_op_t *op = job->op;
    const size_t      b = task / op->attention.K, k = task % op->attention.K, group = op->attention.H / op->attention.K;
    const size_t      P = simd_padded(op->attention.D);
    attn_bwd_tiles_t  t = attn_bwd_tiles(job, thread);
    memset(t.dk, 0, 2 * attn_blocks(op) * ATTN_BLOCK * P * sizeof(*t.dk)); /* dv follows dk */
    for (size_t h = k * group; h < (k + 1) * group; h++) {
        attn_bwd_head(job, &t, b, h, dtype);
    }
    for (size_t first = 0; first < op->attention.T; first += ATTN_BLOCK) {
        /* q carried scale * log2(e), of which dk wants the scale only. */
        attn_bwd_write(op, t.dk + first * P, job->args[7], op->attention.lddk, b, k, first, SIMD_LN2, dtype);
        attn_bwd_write(op, t.dv + first * P, job->args[8], op->attention.lddv, b, k, first, 1.0f, dtype);
    }
}

SIMD_INLINE void attn_bwd_tasks(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    for (size_t task = first; task < last; task++) {
        attn_bwd_task(job, thread, task, dtype);
    }
}
SIMD_BY_DTYPE(attn_bwd_tasks)

static shoal_status_t attn_bwd_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_tasks(&job, op->attention.B * op->attention.K, SIMD_PICK(attn_bwd_tasks, op->dtype));
    return SHOAL_OK;
}

#endif
