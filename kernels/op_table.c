/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rows of the op table, family by family: the shapes of the arguments, the costs that do not
 * follow from them, and the text. The table itself stands at the end.
 *
 * The costs feed `shoal plan` and MFU, so matmuls and attention are exact by their usual conventions;
 * row-wise kernels count one operation per arithmetic operator (a transcendental counts as one), which
 * is enough since their time is their traffic.
 */
#include "kernels/op_table.h"

#include <assert.h>
#include <stdio.h>

/* n elements in one row. */
static shoal_shape_t flat(size_t n)
{
    return (shoal_shape_t){1, n, n};
}

static shoal_shape_t dense(size_t rows, size_t columns)
{
    return (shoal_shape_t){rows, columns, columns};
}

static shoal_shape_t one_scalar(const shoal_op_t *op)
{
    (void)op;
    return flat(1);
}

/* ---- embedding ---- */

static shoal_shape_t embed_tokens(const shoal_op_t *op) { return flat(op->embed.N); }
static shoal_shape_t embed_tok(const shoal_op_t *op) { return dense(op->embed.V, op->embed.C); }
static shoal_shape_t embed_pos(const shoal_op_t *op) { return dense(op->embed.T, op->embed.C); }
static shoal_shape_t embed_x(const shoal_op_t *op) { return dense(op->embed.N, op->embed.C); }
static bool          embed_accumulates(const shoal_op_t *op) { return op->embed.accumulate; }

static double embed_flops(const shoal_op_t *op)
{
    double each = op->kind == SHOAL_OP_EMBED ? 1 : 2;
    return each * (double)op->embed.N * (double)op->embed.C;
}

/* Of the table of tokens, the forward pass reads one row per token and not the whole. */
static double embed_nbytes(const shoal_op_t *op)
{
    double N = (double)op->embed.N, T = (double)op->embed.T, C = (double)op->embed.C;
    return 4 * N + (N + T + N) * C * (double)shoal_dtype_nbytes(op->dtype);
}

static void embed_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu tokens x %zu, vocabulary %zu", op->embed.N, op->embed.C,
             op->embed.V);
}

/* ---- normalization ---- */

static shoal_shape_t norm_x(const shoal_op_t *op) { return dense(op->norm.N, op->norm.C); }
static shoal_shape_t norm_w(const shoal_op_t *op) { return flat(op->norm.C); }
static shoal_shape_t norm_stats(const shoal_op_t *op) { return dense(op->norm.N, 2); }
static bool          norm_accumulates(const shoal_op_t *op) { return op->norm.accumulate; }

static double norm_flops(const shoal_op_t *op)
{
    return (op->kind == SHOAL_OP_NORM ? 9.0 : 15.0) * (double)op->norm.N * (double)op->norm.C;
}

static void norm_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu", op->norm.N, op->norm.C);
}

/* ---- matmul and column sums ---- */

static shoal_shape_t matmul_a(const shoal_op_t *op)
{
    size_t m = op->matmul.m, k = op->matmul.k;
    return op->matmul.trans_a ? (shoal_shape_t){k, m, op->matmul.lda}
                              : (shoal_shape_t){m, k, op->matmul.lda};
}

static shoal_shape_t matmul_b(const shoal_op_t *op)
{
    size_t n = op->matmul.n, k = op->matmul.k;
    return op->matmul.trans_b ? (shoal_shape_t){n, k, op->matmul.ldb}
                              : (shoal_shape_t){k, n, op->matmul.ldb};
}

static shoal_shape_t matmul_bias(const shoal_op_t *op) { return flat(op->matmul.n); }

static shoal_shape_t matmul_y(const shoal_op_t *op)
{
    return (shoal_shape_t){op->matmul.m, op->matmul.n, op->matmul.ldy};
}

static bool matmul_accumulates(const shoal_op_t *op) { return op->matmul.accumulate; }

static double matmul_flops(const shoal_op_t *op)
{
    return 2.0 * (double)op->matmul.m * (double)op->matmul.n * (double)op->matmul.k;
}

/* The bias does not count: few matmuls have one, and its n elements are nothing beside the matrices. */
static double matmul_nbytes(const shoal_op_t *op)
{
    double m = (double)op->matmul.m, n = (double)op->matmul.n, k = (double)op->matmul.k;
    double y = m * n * (double)shoal_dtype_nbytes(op->matmul.out_dtype);
    return (m * k + k * n) * (double)shoal_dtype_nbytes(op->dtype) +
           (op->matmul.accumulate ? 2 : 1) * y;
}

static void matmul_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu x %zu %c%c%s %s", op->matmul.m, op->matmul.n, op->matmul.k,
             op->matmul.trans_a ? 'T' : 'N', op->matmul.trans_b ? 'T' : 'N',
             op->matmul.accumulate ? " +=" : "", shoal_dtype_name(op->matmul.out_dtype));
}

static shoal_shape_t colsum_y(const shoal_op_t *op)
{
    return (shoal_shape_t){op->colsum.m, op->colsum.n, op->colsum.ld};
}

static shoal_shape_t colsum_b(const shoal_op_t *op) { return flat(op->colsum.n); }
static bool          colsum_accumulates(const shoal_op_t *op) { return op->colsum.accumulate; }

static double colsum_flops(const shoal_op_t *op)
{
    return (double)op->colsum.m * (double)op->colsum.n;
}

static void colsum_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu", op->colsum.m, op->colsum.n);
}

/* ---- per-head normalization and rotation ---- */

static shoal_shape_t heads_at(const shoal_op_t *op, size_t ld)
{
    return (shoal_shape_t){op->headprep.N, op->headprep.heads * op->headprep.D, ld};
}

static shoal_shape_t headprep_x(const shoal_op_t *op) { return heads_at(op, op->headprep.ldx); }
static shoal_shape_t headprep_y(const shoal_op_t *op) { return heads_at(op, op->headprep.ldy); }
static shoal_shape_t headprep_src(const shoal_op_t *op) { return heads_at(op, op->headprep.ldsrc); }
static shoal_shape_t headprep_w(const shoal_op_t *op) { return flat(op->headprep.D); }

static shoal_shape_t headprep_table(const shoal_op_t *op)
{
    return dense(op->headprep.T, op->headprep.D / 2 * 2);
}

static bool headprep_accumulates(const shoal_op_t *op) { return op->headprep.accumulate; }

static double headprep_flops(const shoal_op_t *op)
{
    double each = op->kind == SHOAL_OP_HEADPREP ? 9 : 18;
    return each * (double)op->headprep.N * (double)op->headprep.heads * (double)op->headprep.D;
}

static void headprep_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu heads x %zu", op->headprep.N, op->headprep.heads,
             op->headprep.D);
}

/* ---- attention ---- */

static shoal_shape_t tokens_at(const shoal_op_t *op, size_t heads, size_t ld)
{
    return (shoal_shape_t){op->attention.B * op->attention.T, heads * op->attention.D, ld};
}

#define ATTENTION_SHAPE(name, heads)                           \
    static shoal_shape_t attention_##name(const shoal_op_t *op) \
    {                                                          \
        return tokens_at(op, op->attention.heads, op->attention.ld##name); \
    }
ATTENTION_SHAPE(q, H)
ATTENTION_SHAPE(k, K)
ATTENTION_SHAPE(v, K)
ATTENTION_SHAPE(o, H)
ATTENTION_SHAPE(dq, H)
ATTENTION_SHAPE(dk, K)
ATTENTION_SHAPE(dv, K)

static shoal_shape_t attention_lse(const shoal_op_t *op)
{
    return dense(op->attention.B * op->attention.H, op->attention.T);
}

/* Two products forward (q k^T, p v), five backward (q k^T again, do v^T, p^T do, ds^T q, ds k), each
 * over the causal half of the scores: B H T^2/2 pairs of D multiply-adds. */
static double attention_flops(const shoal_op_t *op)
{
    double T        = (double)op->attention.T;
    double macs     = 0.5 * (double)op->attention.B * (double)op->attention.H * T * T *
                      (double)op->attention.D;
    double products = op->kind == SHOAL_OP_ATTENTION ? 2 : 5;
    return 2.0 * products * macs;
}

static void attention_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu x %zu/%zu heads x %zu", op->attention.B, op->attention.T,
             op->attention.H, op->attention.K, op->attention.D);
}

/* ---- activations ---- */

static shoal_shape_t act_x(const shoal_op_t *op)
{
    return dense(op->act.N, op->act.act == SHOAL_ACT_SWIGLU ? 2 * op->act.F : op->act.F);
}

static shoal_shape_t act_y(const shoal_op_t *op) { return dense(op->act.N, op->act.F); }

static double act_flops(const shoal_op_t *op)
{
    bool   tanh_form = op->act.act == SHOAL_ACT_GELU_TANH;
    double each = op->kind == SHOAL_OP_ACT ? (tanh_form ? 8.0 : 5.0) : (tanh_form ? 14.0 : 9.0);
    return each * (double)op->act.N * (double)op->act.F;
}

static void act_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu", op->act.N, op->act.F);
}

/* ---- cross-entropy ---- */

static shoal_shape_t xent_logits(const shoal_op_t *op)
{
    return (shoal_shape_t){op->xent.n, op->xent.V, op->xent.ld};
}

static shoal_shape_t xent_rows(const shoal_op_t *op) { return flat(op->xent.n); }

/* Logits become their own gradient in place, but only where there is a backward pass. */
static double xent_nbytes(const shoal_op_t *op)
{
    double logits = (double)op->xent.n * (double)op->xent.V * (double)shoal_dtype_nbytes(op->dtype);
    return (op->xent.backward ? 2 : 1) * logits + 8.0 * (double)op->xent.n;
}

static double xent_flops(const shoal_op_t *op)
{
    return (op->xent.backward ? 7.0 : 4.0) * (double)op->xent.n * (double)op->xent.V;
}

static void xent_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu x %zu", op->xent.n, op->xent.V);
}

/* ---- flat ops ---- */

static shoal_shape_t reduce_x(const shoal_op_t *op) { return flat(op->reduce.n); }
static bool          reduce_accumulates(const shoal_op_t *op) { return op->reduce.accumulate; }

static double reduce_flops(const shoal_op_t *op)
{
    return (op->kind == SHOAL_OP_SUMSQ ? 2.0 : 1.0) * (double)op->reduce.n;
}

static void reduce_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu", op->reduce.n);
}

static shoal_shape_t cast_x(const shoal_op_t *op) { return flat(op->cast.n); }
static bool          cast_accumulates(const shoal_op_t *op) { return op->cast.accumulate; }

static double cast_flops(const shoal_op_t *op)
{
    return op->cast.accumulate ? (double)op->cast.n : 0;
}

static void cast_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu, %s to %s", op->cast.n, shoal_dtype_name(op->cast.src_dtype),
             shoal_dtype_name(op->cast.dst_dtype));
}

/* Up to the end of the last range: what lies between the ranges is part of the argument, untouched. */
static shoal_shape_t fill_x(const shoal_op_t *op)
{
    size_t count = op->fill.count;
    return flat(count > 0 ? op->fill.ranges[count - 1].first + op->fill.ranges[count - 1].count : 1);
}

static double fill_nbytes(const shoal_op_t *op)
{
    double nelem = 0;
    for (size_t i = 0; i < op->fill.count; i++) {
        nelem += (double)op->fill.ranges[i].count;
    }
    return nelem * (double)shoal_dtype_nbytes(op->dtype);
}

static shoal_shape_t normal_x(const shoal_op_t *op) { return flat(op->normal.n); }

static void normal_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu", op->normal.n);
}

/* ---- optimizer ---- */

static shoal_shape_t optim_x(const shoal_op_t *op) { return flat(op->optim.n); }

static shoal_shape_t optim_scalars(const shoal_op_t *op)
{
    (void)op;
    return flat(SHOAL_SCALAR_COUNT);
}

static bool is_star(const shoal_op_t *op)
{
    return op->optim.optim == SHOAL_OPTIM_DANA_STAR || op->optim.optim == SHOAL_OPTIM_DANA_STAR_MK4;
}

static double optim_flops(const shoal_op_t *op)
{
    double each = op->optim.optim == SHOAL_OPTIM_ADAMW ? 16 : is_star(op) ? 36 : 21;
    return each * (double)op->optim.n;
}

/* param, m and v are read and written, with the Star variants tau too; grad is read, copy written. */
static double optim_nbytes(const shoal_op_t *op)
{
    double states = is_star(op) ? 4 : 3;
    return (double)op->optim.n * (states * 8 + 4 + (double)shoal_dtype_nbytes(op->dtype));
}

static void optim_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu", op->optim.n);
}

/* ---- what the executor serves ---- */

static shoal_shape_t coll_x(const shoal_op_t *op) { return flat(op->coll.n); }

/* The rank's own part; what crosses the wire is the transport's to say. */
static double coll_nbytes(const shoal_op_t *op)
{
    return 2.0 * (double)op->coll.n * (double)shoal_dtype_nbytes(op->dtype);
}

static void coll_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    snprintf(text_p, nbytes, "%zu %s", op->coll.n, shoal_dtype_name(op->dtype));
}

static shoal_shape_t fetch_x(const shoal_op_t *op) { return flat(op->fetch.N); }

/* ---- the table ---- */

/* A designator counts the rows as it is compiled, so that the assertion behind the table sees a missing
 * one; the compiler's warning about overridden initializers sees one that stands twice. */
#define ROW(kind)   [SHOAL_OP_##kind + 0 * __COUNTER__]
#define READ(...)   {SHOAL_ROLE_READ, SHOAL_ARG_##__VA_ARGS__}
#define WRITE(...)  {SHOAL_ROLE_WRITE, SHOAL_ARG_##__VA_ARGS__}
#define UPDATE(...) {SHOAL_ROLE_UPDATE, SHOAL_ARG_##__VA_ARGS__}
#define GRAD(...)   {SHOAL_ROLE_GRADIENT, SHOAL_ARG_##__VA_ARGS__}

enum { COUNTED_BEFORE = __COUNTER__ };

static const shoal_op_row_t rows[SHOAL_OP_COUNT] = {
    ROW(EMBED) = {
        .name     = "embed",
        .args     = {READ(I32, embed_tokens), READ(DTYPE, embed_tok), READ(DTYPE, embed_pos),
                     WRITE(DTYPE, embed_x)},
        .flops    = embed_flops,
        .nbytes   = embed_nbytes,
        .describe = embed_describe,
    },
    ROW(EMBED_BWD) = {
        .name        = "embed_bwd",
        .args        = {READ(I32, embed_tokens), READ(DTYPE, embed_x), GRAD(GDTYPE, embed_tok),
                        GRAD(GDTYPE, embed_pos)},
        .accumulates = embed_accumulates,
        .flops       = embed_flops,
        .describe    = embed_describe,
    },
    ROW(NORM) = {
        .name     = "norm",
        .args     = {READ(DTYPE, norm_x), READ(DTYPE, norm_x), READ(DTYPE, norm_w),
                     READ(DTYPE, norm_w), WRITE(DTYPE, norm_x), WRITE(DTYPE, norm_x),
                     WRITE(F32, norm_stats)},
        .flops    = norm_flops,
        .describe = norm_describe,
    },
    ROW(NORM_BWD) = {
        .name        = "norm_bwd",
        .args        = {READ(DTYPE, norm_x), READ(DTYPE, norm_w), READ(F32, norm_stats),
                        READ(DTYPE, norm_x), READ(DTYPE, norm_x), WRITE(DTYPE, norm_x),
                        GRAD(GDTYPE, norm_w), GRAD(GDTYPE, norm_w)},
        .accumulates = norm_accumulates,
        .flops       = norm_flops,
        .describe    = norm_describe,
    },
    ROW(MATMUL) = {
        .name        = "matmul",
        .args        = {READ(DTYPE, matmul_a), READ(DTYPE, matmul_b), READ(DTYPE, matmul_bias),
                        GRAD(MATMUL_OUT, matmul_y)},
        .accumulates = matmul_accumulates,
        .flops       = matmul_flops,
        .nbytes      = matmul_nbytes,
        .describe    = matmul_describe,
    },
    ROW(COLSUM) = {
        .name        = "colsum",
        .args        = {READ(DTYPE, colsum_y), GRAD(GDTYPE, colsum_b)},
        .accumulates = colsum_accumulates,
        .flops       = colsum_flops,
        .describe    = colsum_describe,
    },
    ROW(HEADPREP) = {
        .name     = "headprep",
        .args     = {READ(DTYPE, headprep_x), READ(DTYPE, headprep_w), READ(F32, headprep_table),
                     WRITE(DTYPE, headprep_y)},
        .flops    = headprep_flops,
        .describe = headprep_describe,
    },
    ROW(HEADPREP_BWD) = {
        .name        = "headprep_bwd",
        .args        = {READ(DTYPE, headprep_src), READ(DTYPE, headprep_w),
                        READ(F32, headprep_table), READ(DTYPE, headprep_y),
                        WRITE(DTYPE, headprep_x), GRAD(GDTYPE, headprep_w)},
        .accumulates = headprep_accumulates,
        .flops       = headprep_flops,
        .describe    = headprep_describe,
    },
    ROW(ATTENTION) = {
        .name     = "attention",
        .args     = {READ(DTYPE, attention_q), READ(DTYPE, attention_k), READ(DTYPE, attention_v),
                     WRITE(DTYPE, attention_o), WRITE(F32, attention_lse)},
        .flops    = attention_flops,
        .describe = attention_describe,
    },
    ROW(ATTENTION_BWD) = {
        .name     = "attention_bwd",
        .args     = {READ(DTYPE, attention_q), READ(DTYPE, attention_k), READ(DTYPE, attention_v),
                     READ(DTYPE, attention_o), READ(F32, attention_lse), READ(DTYPE, attention_o),
                     WRITE(DTYPE, attention_dq), WRITE(DTYPE, attention_dk),
                     WRITE(DTYPE, attention_dv)},
        .flops    = attention_flops,
        .describe = attention_describe,
    },
    ROW(ACT) = {
        .name     = "act",
        .args     = {READ(DTYPE, act_x), WRITE(DTYPE, act_y)},
        .flops    = act_flops,
        .describe = act_describe,
    },
    ROW(ACT_BWD) = {
        .name     = "act_bwd",
        .args     = {READ(DTYPE, act_x), READ(DTYPE, act_y), WRITE(DTYPE, act_x)},
        .flops    = act_flops,
        .describe = act_describe,
    },
    ROW(XENT) = {
        .name     = "xent",
        .args     = {UPDATE(DTYPE, xent_logits), READ(I32, xent_rows), WRITE(F32, xent_rows)},
        .flops    = xent_flops,
        .nbytes   = xent_nbytes,
        .describe = xent_describe,
    },
    ROW(SUM) = {
        .name        = "sum",
        .args        = {READ(F32, reduce_x), GRAD(F32, one_scalar)},
        .accumulates = reduce_accumulates,
        .flops       = reduce_flops,
        .describe    = reduce_describe,
    },
    ROW(SUMSQ) = {
        .name        = "sumsq",
        .args        = {READ(F32, reduce_x), GRAD(F32, one_scalar)},
        .accumulates = reduce_accumulates,
        .flops       = reduce_flops,
        .describe    = reduce_describe,
    },
    ROW(CAST) = {
        .name        = "cast",
        .args        = {READ(CAST_SRC, cast_x), GRAD(CAST_DST, cast_x)},
        .accumulates = cast_accumulates,
        .flops       = cast_flops,
        .describe    = cast_describe,
    },
    ROW(FILL) = {
        .name   = "fill",
        .args   = {WRITE(DTYPE, fill_x)},
        .nbytes = fill_nbytes,
    },
    ROW(NORMAL) = {
        .name     = "normal",
        .args     = {WRITE(F32, normal_x)},
        .describe = normal_describe,
    },
    ROW(OPTIM) = {
        .name     = "optim",
        .args     = {UPDATE(F32, optim_x), UPDATE(F32, optim_x), UPDATE(F32, optim_x),
                     UPDATE(F32, optim_x), READ(F32, optim_x), WRITE(DTYPE, optim_x),
                     READ(F32, one_scalar), READ(F32, optim_scalars)},
        .flops    = optim_flops,
        .nbytes   = optim_nbytes,
        .describe = optim_describe,
    },
    ROW(ALL_GATHER) = {
        .name     = "all_gather",
        .lane     = SHOAL_LANE_GATHER,
        .args     = {READ(DTYPE, coll_x), WRITE(DTYPE, NULL)},
        .nbytes   = coll_nbytes,
        .describe = coll_describe,
    },
    ROW(REDUCE_SCATTER) = {
        .name     = "reduce_scatter",
        .lane     = SHOAL_LANE_REDUCE,
        .args     = {READ(DTYPE, NULL), WRITE(DTYPE, coll_x)},
        .nbytes   = coll_nbytes,
        .describe = coll_describe,
    },
    ROW(ALL_REDUCE) = {
        .name     = "all_reduce",
        .lane     = SHOAL_LANE_REDUCE,
        .args     = {UPDATE(DTYPE, coll_x)},
        .nbytes   = coll_nbytes,
        .describe = coll_describe,
    },
    ROW(FETCH) = {
        .name = "fetch",
        .lane = SHOAL_LANE_HOST,
        .args = {WRITE(I32, fetch_x), WRITE(I32, fetch_x)},
    },
};
static_assert(__COUNTER__ - COUNTED_BEFORE - 1 == SHOAL_OP_COUNT, "every op kind has one row");

const shoal_op_row_t *shoal_op_row(shoal_op_kind_t kind)
{
    return &rows[kind];
}
