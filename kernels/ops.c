/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is known of an op without running it: its name, its arithmetic and the memory traffic it cannot avoid. The costs
 * feed `shoal plan` and MFU, so matmuls and attention are exact by their usual conventions; row-wise kernels count one
 * operation per arithmetic operator (a transcendental counts as one), which is enough since their time is their traffic.
 * Optional arguments are not known here and count as present.
 */
#include "kernels/ops.h"

#include <assert.h>

static const char *const kind_names[] = {
    [SHOAL_OP_EMBED]          = "embed",
    [SHOAL_OP_EMBED_BWD]      = "embed_bwd",
    [SHOAL_OP_NORM]           = "norm",
    [SHOAL_OP_NORM_BWD]       = "norm_bwd",
    [SHOAL_OP_MATMUL]         = "matmul",
    [SHOAL_OP_COLSUM]         = "colsum",
    [SHOAL_OP_HEADPREP]       = "headprep",
    [SHOAL_OP_HEADPREP_BWD]   = "headprep_bwd",
    [SHOAL_OP_ATTENTION]      = "attention",
    [SHOAL_OP_ATTENTION_BWD]  = "attention_bwd",
    [SHOAL_OP_ACT]            = "act",
    [SHOAL_OP_ACT_BWD]        = "act_bwd",
    [SHOAL_OP_XENT]           = "xent",
    [SHOAL_OP_SUM]            = "sum",
    [SHOAL_OP_SUMSQ]          = "sumsq",
    [SHOAL_OP_CAST]           = "cast",
    [SHOAL_OP_FILL]           = "fill",
    [SHOAL_OP_NORMAL]         = "normal",
    [SHOAL_OP_OPTIM]          = "optim",
    [SHOAL_OP_ALL_GATHER]     = "all_gather",
    [SHOAL_OP_REDUCE_SCATTER] = "reduce_scatter",
    [SHOAL_OP_ALL_REDUCE]     = "all_reduce",
    [SHOAL_OP_FETCH]          = "fetch",
};
static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == SHOAL_OP_COUNT, "every op kind has a name");

const char *shoal_op_kind_name(shoal_op_kind_t kind)
{
    return (unsigned)kind < SHOAL_OP_COUNT ? kind_names[kind] : "?";
}

static double fill_nelem(const shoal_op_t *op)
{
    double nelem = 0;
    for (size_t i = 0; i < op->fill.count; i++) {
        nelem += (double)op->fill.ranges[i].count;
    }
    return nelem;
}

/* Multiply-adds of one pass over the causal half of the scores: B H T^2/2 pairs, D products each. */
static double attention_macs(const shoal_op_t *op)
{
    return 0.5 * (double)op->attention.B * (double)op->attention.H * (double)op->attention.T *
           (double)op->attention.T * (double)op->attention.D;
}

static double headprep_nelem(const shoal_op_t *op)
{
    return (double)op->headprep.N * (double)op->headprep.heads * (double)op->headprep.D;
}

static double optim_flops_per_element(shoal_optim_kind_t optim)
{
    switch (optim) {
    case SHOAL_OPTIM_ADAMW:
        return 16;
    case SHOAL_OPTIM_ADANA:
    case SHOAL_OPTIM_DANA_MK4:
        return 21;
    case SHOAL_OPTIM_DANA_STAR:
    case SHOAL_OPTIM_DANA_STAR_MK4:
        return 36;
    }
    return 0;
}

double shoal_op_flops(const shoal_op_t *op)
{
    switch (op->kind) {
    case SHOAL_OP_EMBED:
        return (double)op->embed.N * (double)op->embed.C;
    case SHOAL_OP_EMBED_BWD:
        return 2.0 * (double)op->embed.N * (double)op->embed.C;
    case SHOAL_OP_NORM:
        return 9.0 * (double)op->norm.N * (double)op->norm.C;
    case SHOAL_OP_NORM_BWD:
        return 15.0 * (double)op->norm.N * (double)op->norm.C;
    case SHOAL_OP_MATMUL:
        return 2.0 * (double)op->matmul.m * (double)op->matmul.n * (double)op->matmul.k;
    case SHOAL_OP_COLSUM:
        return (double)op->colsum.m * (double)op->colsum.n;
    case SHOAL_OP_HEADPREP:
        return 9 * headprep_nelem(op);
    case SHOAL_OP_HEADPREP_BWD:
        return 18 * headprep_nelem(op);
    case SHOAL_OP_ATTENTION: /* q k^T and p v */
        return 2.0 * 2 * attention_macs(op);
    case SHOAL_OP_ATTENTION_BWD: /* q k^T again, do v^T, p^T do, ds^T q, ds k */
        return 2.0 * 5 * attention_macs(op);
    case SHOAL_OP_ACT:
        return (op->act.act == SHOAL_ACT_GELU_TANH ? 8.0 : 5.0) * (double)op->act.N * (double)op->act.F;
    case SHOAL_OP_ACT_BWD:
        return (op->act.act == SHOAL_ACT_GELU_TANH ? 14.0 : 9.0) * (double)op->act.N * (double)op->act.F;
    case SHOAL_OP_XENT:
        return (op->xent.backward ? 7.0 : 4.0) * (double)op->xent.n * (double)op->xent.V;
    case SHOAL_OP_SUM:
        return (double)op->reduce.n;
    case SHOAL_OP_SUMSQ:
        return 2.0 * (double)op->reduce.n;
    case SHOAL_OP_CAST:
        return op->cast.accumulate ? (double)op->cast.n : 0;
    case SHOAL_OP_OPTIM:
        return optim_flops_per_element(op->optim.optim) * (double)op->optim.n;
    default: /* fill, and what is not a device's */
        return 0;
    }
}

/* Bytes moved to a destination: written, and read before when it accumulates. */
static double written(double nelem, shoal_dtype_t dtype, bool accumulate)
{
    return nelem * (double)shoal_dtype_nbytes(dtype) * (accumulate ? 2 : 1);
}

static double embed_nbytes(const shoal_op_t *op)
{
    double N = (double)op->embed.N, T = (double)op->embed.T, C = (double)op->embed.C, V = (double)op->embed.V;
    double esize = (double)shoal_dtype_nbytes(op->dtype);
    if (op->kind == SHOAL_OP_EMBED) {
        return 4 * N + (N + T + N) * C * esize;
    }
    return 4 * N + N * C * esize + written((V + T) * C, op->gdtype, op->embed.accumulate);
}

static double norm_nbytes(const shoal_op_t *op)
{
    double N = (double)op->norm.N, C = (double)op->norm.C;
    double esize = (double)shoal_dtype_nbytes(op->dtype);
    double io    = (4 * N + 2) * C * esize + 8 * N; /* x, branch, sum, y; w, b; stats */
    if (op->kind == SHOAL_OP_NORM) {
        return io;
    }
    return (4 * N + 1) * C * esize + 8 * N + written(2 * C, op->gdtype, op->norm.accumulate);
}

static double matmul_nbytes(const shoal_op_t *op)
{
    double m = (double)op->matmul.m, n = (double)op->matmul.n, k = (double)op->matmul.k;
    double esize = (double)shoal_dtype_nbytes(op->dtype);
    return (m * k + k * n) * esize + written(m * n, op->matmul.out_dtype, op->matmul.accumulate);
}

static double headprep_nbytes(const shoal_op_t *op)
{
    double N = (double)op->headprep.N, D = (double)op->headprep.D, heads = (double)op->headprep.heads;
    double esize = (double)shoal_dtype_nbytes(op->dtype);
    double table = 4 * (double)op->headprep.T * D;
    if (op->kind == SHOAL_OP_HEADPREP) {
        return (2 * N * heads + 1) * D * esize + table;
    }
    return (3 * N * heads + 1) * D * esize + table + written(D, op->gdtype, op->headprep.accumulate);
}

static double attention_nbytes(const shoal_op_t *op)
{
    double N = (double)op->attention.B * (double)op->attention.T, D = (double)op->attention.D;
    double query = N * (double)op->attention.H * D, key = N * (double)op->attention.K * D; /* elements of q or o; of k or v */
    double lse   = 4 * N * (double)op->attention.H;
    double esize = (double)shoal_dtype_nbytes(op->dtype);
    if (op->kind == SHOAL_OP_ATTENTION) {
        return (2 * query + 2 * key) * esize + lse;
    }
    return (4 * query + 4 * key) * esize + lse; /* q, o, do, dq; k, v, dk, dv */
}

static double act_nbytes(const shoal_op_t *op)
{
    double nelem = (double)op->act.N * (double)op->act.F; /* of y */
    double x     = op->act.act == SHOAL_ACT_SWIGLU ? 2 * nelem : nelem;
    return (op->kind == SHOAL_OP_ACT ? x + nelem : 2 * x + nelem) * (double)shoal_dtype_nbytes(op->dtype);
}

static double xent_nbytes(const shoal_op_t *op)
{
    double n = (double)op->xent.n;
    return written(n * (double)op->xent.V, op->dtype, op->xent.backward) + 8 * n; /* logits; targets, loss */
}

static double cast_nbytes(const shoal_op_t *op)
{
    double n = (double)op->cast.n;
    return n * (double)shoal_dtype_nbytes(op->cast.src_dtype) + written(n, op->cast.dst_dtype, op->cast.accumulate);
}

static double optim_nbytes(const shoal_op_t *op)
{
    bool   star   = op->optim.optim == SHOAL_OPTIM_DANA_STAR || op->optim.optim == SHOAL_OPTIM_DANA_STAR_MK4;
    double states = star ? 4 : 3; /* param, m, v, tau: read and written */
    return (double)op->optim.n * (states * 8 + 4 + (double)shoal_dtype_nbytes(op->dtype));
}

double shoal_op_nbytes(const shoal_op_t *op)
{
    switch (op->kind) {
    case SHOAL_OP_EMBED:
    case SHOAL_OP_EMBED_BWD:
        return embed_nbytes(op);
    case SHOAL_OP_NORM:
    case SHOAL_OP_NORM_BWD:
        return norm_nbytes(op);
    case SHOAL_OP_MATMUL:
        return matmul_nbytes(op);
    case SHOAL_OP_COLSUM:
        return (double)op->colsum.m * (double)op->colsum.n * (double)shoal_dtype_nbytes(op->dtype) +
               written((double)op->colsum.n, op->gdtype, op->colsum.accumulate);
    case SHOAL_OP_HEADPREP:
    case SHOAL_OP_HEADPREP_BWD:
        return headprep_nbytes(op);
    case SHOAL_OP_ATTENTION:
    case SHOAL_OP_ATTENTION_BWD:
        return attention_nbytes(op);
    case SHOAL_OP_ACT:
    case SHOAL_OP_ACT_BWD:
        return act_nbytes(op);
    case SHOAL_OP_XENT:
        return xent_nbytes(op);
    case SHOAL_OP_SUM:
    case SHOAL_OP_SUMSQ:
        return 4.0 * (double)op->reduce.n;
    case SHOAL_OP_CAST:
        return cast_nbytes(op);
    case SHOAL_OP_FILL:
        return fill_nelem(op) * (double)shoal_dtype_nbytes(op->dtype);
    case SHOAL_OP_NORMAL:
        return 4.0 * (double)op->normal.n;
    case SHOAL_OP_OPTIM:
        return optim_nbytes(op);
    case SHOAL_OP_ALL_GATHER:
    case SHOAL_OP_REDUCE_SCATTER:
    case SHOAL_OP_ALL_REDUCE: /* the rank's own part; what crosses the wire is the transport's to say */
        return 2.0 * (double)op->coll.n * (double)shoal_dtype_nbytes(op->dtype);
    case SHOAL_OP_FETCH:
        return 8.0 * (double)op->fetch.N;
    case SHOAL_OP_COUNT:
        break;
    }
    return 0;
}
