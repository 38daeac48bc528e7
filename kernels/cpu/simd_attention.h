/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Causal attention, forward, in tiles of ATTN_BLOCK queries by ATTN_BLOCK keys (the flash scheme: a running maximum and sum per
 * query, so that only one tile of scores exists at a time). Letters as in kernels/ops.h; P is D rounded up to whole vectors.
 *
 * A task is one key/value head of one sequence, so that its keys and values are packed to fp32 once (keys transposed, as
 * the score product wants them) for all the query heads and query blocks that read them. Where there are fewer such tasks than
 * threads want, each is split: a part takes every parts-th query block, which shares the causal triangle evenly.
 *
 * The tile on the diagonal is done in strips of ATTN_STRIP queries, each with the keys up to its own end, which saves close
 * to half of that tile. Scores are in units of log 2: q carries scale * log2(e), and exp2 replaces exp.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_ATTENTION_H
#define SHOAL_KERNELS_CPU_SIMD_ATTENTION_H

#include "kernels/cpu/simd_gemm.h"
#include "kernels/cpu/simd_kernel.h"
#include "kernels/cpu/simd_math.h"

enum { ATTN_BLOCK = 64, ATTN_STRIP = 16 };

_Static_assert(ATTN_BLOCK % ATTN_STRIP == 0 && ATTN_STRIP % GEMM_ROWS == 0 && ATTN_STRIP % SIMD_WIDTH == 0,
               "strips are whole register tiles and whole vectors");

SIMD_INLINE size_t attn_blocks(const shoal_op_t *op)
{
    return (op->attention.T + ATTN_BLOCK - 1) / ATTN_BLOCK;
}

/* Tokens of the block that begins at token `first`. */
SIMD_INLINE size_t attn_block_rows(const shoal_op_t *op, size_t first)
{
    return op->attention.T - first < ATTN_BLOCK ? op->attention.T - first : ATTN_BLOCK;
}

/* Rows that the tiles work on: the block's, rounded up to whole strips. */
SIMD_INLINE size_t attn_tile_rows(size_t rows)
{
    return (rows + ATTN_STRIP - 1) / ATTN_STRIP * ATTN_STRIP;
}

/* A head's slice of an activation (N, heads, D): where token `first` of the sequence begins, and the stride between tokens. */
typedef struct {
    const void *base;
    size_t      at, ld;
} attn_head_t;

SIMD_INLINE attn_head_t attn_head(const shoal_op_t *op, const void *base, size_t ld, size_t b, size_t head)
{
    return (attn_head_t){base, b * op->attention.T * ld + head * op->attention.D, ld};
}

/* tile (ATTN_BLOCK, P) = factor * rows first .. first + rows - 1; zero beyond. */
SIMD_INLINE void attn_pack(float *tile, attn_head_t x, size_t first, size_t rows, size_t D, float factor, shoal_dtype_t dtype)
{
    const size_t P = simd_padded(D);
    for (size_t r = 0; r < rows; r++) {
        SIMD_FOR (d, count, D) {
            v_store_f32(tile + r * P + d, load_n(x.base, x.at + (first + r) * x.ld + d, count, dtype) * v_set(factor));
        }
    }
    memset(tile + rows * P, 0, (ATTN_BLOCK - rows) * P * sizeof(*tile));
}

/* Interleaving the two halves of a list of rows, log2(width) times, transposes it. */
SIMD_INLINE void attn_transpose(vf_t *rows)
{
#pragma GCC unroll 4
    for (size_t step = 1; step < SIMD_WIDTH; step *= 2) {
        vf_t mixed[SIMD_WIDTH];
#pragma GCC unroll 8
        for (size_t i = 0; i < SIMD_WIDTH / 2; i++) {
            mixed[2 * i]     = v_interleave_low(rows[i], rows[i + SIMD_WIDTH / 2]);
            mixed[2 * i + 1] = v_interleave_high(rows[i], rows[i + SIMD_WIDTH / 2]);
        }
        memcpy(rows, mixed, sizeof(mixed));
    }
}

/* tile (P, ATTN_BLOCK) = the transpose of the same rows; zero beyond. */
SIMD_INLINE void attn_pack_transposed(float *tile, attn_head_t x, size_t first, size_t rows, size_t D, shoal_dtype_t dtype)
{
    for (size_t r = 0; r < ATTN_BLOCK; r += SIMD_WIDTH) {
        SIMD_FOR (d, count, D) {
            vf_t square[SIMD_WIDTH];
            for (size_t i = 0; i < SIMD_WIDTH; i++) {
                square[i] = r + i < rows ? load_n(x.base, x.at + (first + r + i) * x.ld + d, count, dtype) : v_set(0.0f);
            }
            attn_transpose(square);
            for (size_t i = 0; i < SIMD_WIDTH; i++) {
                v_store_f32(tile + (d + i) * ATTN_BLOCK + r, square[i]);
            }
        }
    }
}

/* Keys that row `r` of a tile is multiplied with. */
SIMD_INLINE size_t attn_row_keys(bool diagonal, size_t r)
{
    return diagonal ? (r / ATTN_STRIP + 1) * ATTN_STRIP : ATTN_BLOCK;
}

/* s (ATTN_BLOCK, ATTN_BLOCK) = q (rows, P) kt (D, ATTN_BLOCK), as far as attn_row_keys goes; also do times vt in backward. */
SIMD_INLINE void attn_scores(float *s, const float *q, const float *kt, size_t rows, size_t D, bool diagonal)
{
    const size_t P    = simd_padded(D);
    const size_t step = diagonal ? ATTN_STRIP : rows;
    for (size_t r = 0; r < rows; r += step) {
        gemm_set(step, attn_row_keys(diagonal, r), D, q + r * P, P, kt, ATTN_BLOCK, s + r * ATTN_BLOCK, ATTN_BLOCK);
    }
}

/* Hides keys 1 + r .. of row r in a tile on the diagonal. */
SIMD_INLINE void attn_hide_row(float *s, size_t r)
{
    for (size_t j = r / SIMD_WIDTH * SIMD_WIDTH; j < attn_row_keys(true, r); j += SIMD_WIDTH) {
        v_store_f32(s + j, v_mask_from(v_load_f32(s + j), r < j ? 0 : r + 1 - j));
    }
}

/* A thread's workspace. */
typedef struct {
    float *kt;     /* (blocks, P, ATTN_BLOCK) */
    float *v;      /* (blocks, ATTN_BLOCK, P) */
    float *q;      /* (ATTN_BLOCK, P) */
    float *o;      /* (ATTN_BLOCK, P) */
    float *s;      /* (ATTN_BLOCK, ATTN_BLOCK) scores, then weights */
    float *max;    /* (ATTN_BLOCK) largest score so far */
    float *sum;    /* (ATTN_BLOCK) of weights, relative to max */
    float *shrink; /* (ATTN_BLOCK) what the last change of max multiplies sum and o by */
} attn_tiles_t;

SIMD_INLINE size_t attn_nfloats(const shoal_op_t *op)
{
    const size_t P = simd_padded(op->attention.D);
    return ATTN_BLOCK * ((2 * attn_blocks(op) + 2) * P + ATTN_BLOCK + 3);
}

static size_t attn_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return simd_slices_nbytes(cpu, attn_nfloats(op));
}

SIMD_INLINE attn_tiles_t attn_tiles(const simd_job_t *job, size_t thread)
{
    const size_t P = simd_padded(job->op->attention.D), blocks = attn_blocks(job->op);
    attn_tiles_t t;
    t.kt     = simd_slice(job, thread, attn_nfloats(job->op));
    t.v      = t.kt + blocks * ATTN_BLOCK * P;
    t.q      = t.v + blocks * ATTN_BLOCK * P;
    t.o      = t.q + ATTN_BLOCK * P;
    t.s      = t.o + ATTN_BLOCK * P;
    t.max    = t.s + ATTN_BLOCK * ATTN_BLOCK;
    t.sum    = t.max + ATTN_BLOCK;
    t.shrink = t.sum + ATTN_BLOCK;
    return t;
}

/* The new maxima of SIMD_WIDTH rows from r on, and what they make of the old ones. */
SIMD_INLINE void attn_softmax_max(attn_tiles_t *t, size_t r, size_t keys)
{
    vf_t top[SIMD_WIDTH];
    for (size_t i = 0; i < SIMD_WIDTH; i++) {
        const float *s = t->s + (r + i) * ATTN_BLOCK;
        top[i] = v_load_f32(s);
        for (size_t j = SIMD_WIDTH; j < keys; j += SIMD_WIDTH) {
            top[i] = v_max(top[i], v_load_f32(s + j));
        }
    }
    vf_t old = v_load_f32(t->max + r);
    vf_t max = v_max(old, v_row_largest(top));
    v_store_f32(t->max + r, max);
    v_store_f32(t->shrink + r, v_exp2_below_one(old - max));
}

/* Scores of these rows become weights relative to their maxima. o is rescaled by the product that follows. */
SIMD_INLINE void attn_softmax_weights(attn_tiles_t *t, size_t r, size_t keys)
{
    vf_t sum[SIMD_WIDTH];
    for (size_t i = 0; i < SIMD_WIDTH; i++) {
        float     *s   = t->s + (r + i) * ATTN_BLOCK;
        const vf_t max = v_set(t->max[r + i]);
        sum[i] = v_set(0.0f);
        for (size_t j = 0; j < keys; j += SIMD_WIDTH) {
            vf_t p = v_exp2_below_one(v_load_f32(s + j) - max);
            v_store_f32(s + j, p);
            sum[i] += p;
        }
    }
    v_store_f32(t->sum + r, v_fma(v_load_f32(t->sum + r), v_load_f32(t->shrink + r), v_row_sums(sum)));
}

SIMD_INLINE void attn_softmax(attn_tiles_t *t, size_t rows, bool diagonal)
{
    for (size_t r = 0; diagonal && r < rows; r++) {
        attn_hide_row(t->s + r * ATTN_BLOCK, r);
    }
    for (size_t r = 0; r < rows; r += SIMD_WIDTH) {
        attn_softmax_max(t, r, attn_row_keys(diagonal, r));
    }
    for (size_t r = 0; r < rows; r += SIMD_WIDTH) {
        attn_softmax_weights(t, r, attn_row_keys(diagonal, r));
    }
}

/* o (rows, P) = shrink * o + p (rows, keys) v (keys, P). */
SIMD_INLINE void attn_weigh(attn_tiles_t *t, const float *v, size_t rows, size_t P, bool diagonal)
{
    const size_t step = diagonal ? ATTN_STRIP : rows;
    for (size_t r = 0; r < rows; r += step) {
        gemm_rescale_add(step, P, attn_row_keys(diagonal, r), t->s + r * ATTN_BLOCK, ATTN_BLOCK, v, P, t->o + r * P, P,
                         t->shrink + r);
    }
}

/* One block of queries of one head against all keys it sees. */
SIMD_INLINE void attn_query_block(const shoal_op_t *op, attn_tiles_t *t, attn_head_t q, size_t block, shoal_dtype_t dtype)
{
    const size_t D = op->attention.D, P = simd_padded(D), first = block * ATTN_BLOCK;
    const size_t rows = attn_block_rows(op, first), tile_rows = attn_tile_rows(rows);
    attn_pack(t->q, q, first, rows, D, op->attention.scale * SIMD_LOG2E, dtype);
    memset(t->o, 0, ATTN_BLOCK * P * sizeof(*t->o));
    memset(t->sum, 0, ATTN_BLOCK * sizeof(*t->sum));
    for (size_t r = 0; r < ATTN_BLOCK; r++) {
        t->max[r] = -INFINITY;
    }
    for (size_t keys = 0; keys <= block; keys++) {
        const bool diagonal = keys == block;
        attn_scores(t->s, t->q, t->kt + keys * ATTN_BLOCK * P, tile_rows, D, diagonal);
        attn_softmax(t, tile_rows, diagonal);
        attn_weigh(t, t->v + keys * ATTN_BLOCK * P, tile_rows, P, diagonal);
    }
}

SIMD_INLINE void attn_write_block(const simd_job_t *job, const attn_tiles_t *t, size_t b, size_t h, size_t block,
                                  shoal_dtype_t dtype)
{
    const shoal_op_t *op = job->op;
    const size_t D = op->attention.D, P = simd_padded(D), T = op->attention.T, first = block * ATTN_BLOCK;
    float       *lse = job->args[4];
    for (size_t r = 0; r < attn_block_rows(op, first); r++) {
        size_t at = (b * T + first + r) * op->attention.ldo + h * D;
        SIMD_FOR (d, count, D) {
            store_n(job->args[3], at + d, count, v_load_f32(t->o + r * P + d) * v_set(1.0f / t->sum[r]), dtype);
        }
        lse[(b * op->attention.H + h) * T + first + r] = t->max[r] * SIMD_LN2 + logf(t->sum[r]);
    }
}

/* Parts that a (sequence, key/value head) is split into: enough for about four tasks per thread. */
SIMD_INLINE size_t attn_parts(const simd_job_t *job)
{
    const size_t heads = job->op->attention.B * job->op->attention.K, blocks = attn_blocks(job->op);
    size_t       parts = job->nthreads == 1 ? 1 : (4 * job->nthreads + heads - 1) / heads;
    return parts < blocks ? parts : blocks;
}

SIMD_INLINE void attn_task(const simd_job_t *job, size_t thread, size_t task, shoal_dtype_t dtype)
{
    const shoal_op_t *op    = job->op;
    const size_t      parts = attn_parts(job), part = task % parts, head = task / parts;
    const size_t      b = head / op->attention.K, k = head % op->attention.K, group = op->attention.H / op->attention.K;
    const size_t      D = op->attention.D, P = simd_padded(D);
    attn_tiles_t      t    = attn_tiles(job, thread);
    attn_head_t       keys = attn_head(op, job->args[1], op->attention.ldk, b, k);
    attn_head_t       values = attn_head(op, job->args[2], op->attention.ldv, b, k);
    for (size_t block = 0; block < attn_blocks(op); block++) {
        const size_t first = block * ATTN_BLOCK, rows = attn_block_rows(op, first);
        attn_pack_transposed(t.kt + first * P, keys, first, rows, D, dtype);
        attn_pack(t.v + first * P, values, first, rows, D, 1.0f, dtype);
    }
    for (size_t h = k * group; h < (k + 1) * group; h++) {
        for (size_t block = part; block < attn_blocks(op); block += parts) {
            attn_query_block(op, &t, attn_head(op, job->args[0], op->attention.ldq, b, h), block, dtype);
            attn_write_block(job, &t, b, h, block, dtype);
        }
    }
}

SIMD_INLINE void attn_tasks(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    for (size_t task = first; task < last; task++) {
        attn_task(job, thread, task, dtype);
    }
}
SIMD_BY_DTYPE(attn_tasks)

static shoal_status_t attn_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_tasks(&job, op->attention.B * op->attention.K * attn_parts(&job), SIMD_PICK(attn_tasks, op->dtype));
    return SHOAL_OK;
}

#endif
