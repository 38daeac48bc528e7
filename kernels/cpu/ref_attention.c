/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Causal attention, row by row with an online softmax over blocks of keys: the only scores in memory are one block's.
 * Backward recomputes probabilities from lse. It runs twice over the pairs, once by query rows for dq and once by key
 * rows for dk and dv, so that every output row has one owner and no reduction over threads is needed.
 *
 * Rows are dealt to the parts in turn rather than in spans: causal rows grow with t, so spans would be unequal.
 */
#include <math.h>
#include <string.h>

#include "kernels/cpu/ref.h"

enum { KEY_BLOCK = 64 };

static float dot(const float *a, const void *b, shoal_dtype_t dtype, size_t first, size_t D)
{
    float sum = 0;
    for (size_t d = 0; d < D; d++) {
        sum += a[d] * ref_load(b, dtype, first + d);
    }
    return sum;
}

/* sum (D) += factor * row (D) of x. */
static void add_scaled(float *sum, float factor, const void *x, shoal_dtype_t dtype, size_t first, size_t D)
{
    for (size_t d = 0; d < D; d++) {
        sum[d] += factor * ref_load(x, dtype, first + d);
    }
}

/* Sequence b, query head h and its key/value head, token t: row index r counts (b, h, t). */
typedef struct {
    size_t t, h, kv_head, first_token;
} attention_row_t;

static attention_row_t query_row(const shoal_op_t *op, size_t r)
{
    size_t T = op->attention.T, H = op->attention.H, h = r / T % H;
    return (attention_row_t){r % T, h, h / (H / op->attention.K), r / (T * H) * T};
}

size_t shoal_ref_attention_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return (size_t)cpu->nthreads * 2 * op->attention.D * sizeof(float); /* (nthreads, 2, D): q, o */
}

/* Scores of keys s0 .. s0 + count - 1 against q (D), and their maximum. */
static float score_block(const shoal_op_t *op, const float *q, const void *k, attention_row_t row, size_t s0, size_t count,
                         float *scores_p)
{
    size_t D   = op->attention.D;
    float  max = -INFINITY;
    for (size_t s = 0; s < count; s++) {
        size_t first = (row.first_token + s0 + s) * op->attention.ldk + row.kv_head * D;
        scores_p[s]  = op->attention.scale * dot(q, k, op->dtype, first, D);
        max          = fmaxf(max, scores_p[s]);
    }
    return max;
}

/* o (D) = softmax(q k^T) v for one row; returns its lse. */
static float attend(const shoal_op_t *op, void *const *args, attention_row_t row, const float *q, float *o)
{
    const void *k = args[1], *v = args[2]; /* (N,K,D) ldk, ldv */
    size_t      D   = op->attention.D;
    float       max = -INFINITY, sum = 0, scores[KEY_BLOCK];

    memset(o, 0, D * sizeof(float));
    for (size_t s0 = 0; s0 <= row.t; s0 += KEY_BLOCK) {
        size_t count   = row.t + 1 - s0 < KEY_BLOCK ? row.t + 1 - s0 : KEY_BLOCK;
        float  new_max = fmaxf(max, score_block(op, q, k, row, s0, count, scores));
        float  rescale = expf(max - new_max); /* 0 for the first block */
        sum *= rescale;
        for (size_t d = 0; d < D; d++) {
            o[d] *= rescale;
        }
        for (size_t s = 0; s < count; s++) {
            float p = expf(scores[s] - new_max);
            sum += p;
            add_scaled(o, p, v, op->dtype, (row.first_token + s0 + s) * op->attention.ldv + row.kv_head * D, D);
        }
        max = new_max;
    }
    for (size_t d = 0; d < D; d++) {
        o[d] /= sum;
    }
    return max + logf(sum);
}

shoal_status_t shoal_ref_attention(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    const void *q    = args[0]; /* (N,H,D) ldq */
    void       *out  = args[3]; /* (N,H,D) ldo */
    float      *lse  = args[4]; /* (B,H,T) */
    size_t      D    = op->attention.D;
    size_t      rows = op->attention.B * op->attention.H * op->attention.T, nparts = (size_t)cpu->nthreads;

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (size_t part = 0; part < nparts; part++) {
        float *q_row = (float *)workspace + part * 2 * D, *o_row = q_row + D;
        for (size_t r = part; r < rows; r += nparts) {
            attention_row_t row = query_row(op, r);
            size_t          n   = row.first_token + row.t;
            ref_load_row(q, op->dtype, n * op->attention.ldq + row.h * D, D, q_row);
            lse[r] = attend(op, args, row, q_row, o_row);
            ref_store_row(out, op->dtype, n * op->attention.ldo + row.h * D, D, o_row);
        }
    }
    return SHOAL_OK;
}

/* delta f32 (B,H,T): sum over D of do * o, what the softmax's gradient subtracts; then (nthreads, 4, D) rows. */
size_t shoal_ref_attention_bwd_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    size_t rows = op->attention.B * op->attention.H * op->attention.T;
    return (rows + (size_t)cpu->nthreads * 4 * op->attention.D) * sizeof(float);
}

/* dq of row r, and its delta. With p = exp(score - lse): ds = p (do v^T - delta), dq = scale ds k. */
static void query_backward(const shoal_op_t *op, void *const *args, size_t r, float *delta, float *scratch)
{
    const void     *q = args[0], *k = args[1], *v = args[2], *o = args[3], *dout = args[5];
    const float    *lse = args[4];
    size_t          D = op->attention.D, ldk = op->attention.ldk, ldv = op->attention.ldv, ldo = op->attention.ldo;
    float          *q_row = scratch, *do_row = scratch + D, *dq_row = scratch + 2 * D;
    attention_row_t row = query_row(op, r);
    size_t          n   = row.first_token + row.t;

    ref_load_row(q, op->dtype, n * op->attention.ldq + row.h * D, D, q_row);
    ref_load_row(dout, op->dtype, n * ldo + row.h * D, D, do_row);
    memset(dq_row, 0, D * sizeof(float));
    delta[r] = dot(do_row, o, op->dtype, n * ldo + row.h * D, D);
    for (size_t s = 0; s <= row.t; s++) {
        size_t key = row.first_token + s;
        float  p   = expf(op->attention.scale * dot(q_row, k, op->dtype, key * ldk + row.kv_head * D, D) - lse[r]);
        float  dp  = dot(do_row, v, op->dtype, key * ldv + row.kv_head * D, D);
        add_scaled(dq_row, op->attention.scale * p * (dp - delta[r]), k, op->dtype, key * ldk + row.kv_head * D, D);
    }
    ref_store_row(args[6], op->dtype, n * op->attention.lddq + row.h * D, D, dq_row);
}

/* dk and dv of key row r = (b, kv_head, s): sums over the queries t >= s of all heads of its group. */
static void key_backward(const shoal_op_t *op, void *const *args, size_t r, const float *delta, float *scratch)
{
    const void  *q = args[0], *k = args[1], *v = args[2], *dout = args[5];
    const float *lse = args[4];
    size_t       D = op->attention.D, T = op->attention.T, K = op->attention.K, H = op->attention.H;
    size_t       ldq = op->attention.ldq, ldo = op->attention.ldo, group = H / K;
    float       *k_row = scratch, *v_row = scratch + D, *dk_row = scratch + 2 * D, *dv_row = scratch + 3 * D;
    size_t       s = r % T, kv_head = r / T % K, b = r / (T * K), n = b * T + s;

    ref_load_row(k, op->dtype, n * op->attention.ldk + kv_head * D, D, k_row);
    ref_load_row(v, op->dtype, n * op->attention.ldv + kv_head * D, D, v_row);
    memset(dk_row, 0, 2 * D * sizeof(float));
    for (size_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        for (size_t t = s; t < T; t++) {
            size_t query = (b * H + h) * T + t;
            float  p  = expf(op->attention.scale * dot(k_row, q, op->dtype, (b * T + t) * ldq + h * D, D) - lse[query]);
            float  dp = dot(v_row, dout, op->dtype, (b * T + t) * ldo + h * D, D);
            add_scaled(dv_row, p, dout, op->dtype, (b * T + t) * ldo + h * D, D);
            add_scaled(dk_row, op->attention.scale * p * (dp - delta[query]), q, op->dtype, (b * T + t) * ldq + h * D, D);
        }
    }
    ref_store_row(args[7], op->dtype, n * op->attention.lddk + kv_head * D, D, dk_row);
    ref_store_row(args[8], op->dtype, n * op->attention.lddv + kv_head * D, D, dv_row);
}

shoal_status_t shoal_ref_attention_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t BT = op->attention.B * op->attention.T, nparts = (size_t)cpu->nthreads;
    size_t queries = BT * op->attention.H, keys = BT * op->attention.K;
    float *delta = workspace, *scratch = delta + queries;

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (size_t part = 0; part < nparts; part++) {
        for (size_t r = part; r < queries; r += nparts) {
            query_backward(op, args, r, delta, scratch + part * 4 * op->attention.D);
        }
    }
#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (size_t part = 0; part < nparts; part++) {
        for (size_t r = part; r < keys; r += nparts) {
            key_backward(op, args, r, delta, scratch + part * 4 * op->attention.D);
        }
    }
    return SHOAL_OK;
}
