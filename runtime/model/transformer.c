/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model's code. Forward stands above backward. Shapes are in the comments, with the letters of kernels/ops.h; F' is 2F
 * with SwiGLU and F otherwise. A value that is kept for backward is kept by being named there: the memory plan sees to the
 * rest. Recomputation emits the cheap ops (selective) or the whole block (full) once more, in front of their backward.
 */
#include "runtime/model/transformer.h"

#include <math.h>

#include "runtime/program/emit.h"

/* What one block's forward leaves for its backward. */
typedef struct {
    shoal_ref_t sum1, y1, stats1; /* (N,C) (N,C) (N,2): residual stream at the block's start, normalized, mean and rstd */
    shoal_ref_t qkv, qk;          /* (N,(H+2K)D) projections; (N,(H+K)D) queries and keys as attention reads them */
    size_t      ldqk;
    shoal_ref_t o, lse;           /* (N,HD) (B,H,T) */
    shoal_ref_t sum2, y2, stats2; /* as above, before the MLP */
    shoal_ref_t pre, hidden;      /* (N,F') (N,F) */
    shoal_ref_t out;              /* (N,C): what the block adds to sum2 */
} block_t;

/* Shorthand of this file. */
typedef shoal_transformer_t T_t;

static shoal_dtype_t dtype_of(const T_t *t)
{
    return t->spec->precision.compute;
}

static shoal_ref_t activation(T_t *t, const char *name, size_t nelem, shoal_dtype_t dtype)
{
    const char *unit = t->program->unit >= 0 ? t->program->unit_names[t->program->unit] : "step";
    return shoal_whole(shoal_program_buffer(t->program, SHOAL_HOME_ARENA, SHOAL_MEMORY_ACTIVATIONS, dtype, nelem, "%s %s", unit, name));
}

/* A tensor of the unit whose parameters begin at `params`; absent when the model has none. */
static shoal_ref_t tensor(const T_t *t, shoal_ref_t params, shoal_slot_t slot)
{
    const shoal_tensor_t *found = &t->model->units[t->program->unit].tensors[slot];
    return found->present ? shoal_at(params, found->offset) : SHOAL_NO_REF;
}

static bool has(const T_t *t, shoal_slot_t slot)
{
    return t->model->units[t->program->unit].tensors[slot].present;
}

static size_t qkv_width(const shoal_model_spec_t *m)
{
    return (m->heads + 2 * m->kv_heads) * m->head_dim;
}

static size_t pre_width(const shoal_model_spec_t *m)
{
    return m->act == SHOAL_ACT_SWIGLU ? 2 * m->ffn : m->ffn;
}

/* y (rows,out) = x (rows,in) W^T + bias. */
static void emit_linear(T_t *t, size_t rows, size_t in, size_t out, shoal_ref_t x, shoal_ref_t w, shoal_ref_t bias, shoal_ref_t y)
{
    shoal_op_t op = {.kind   = SHOAL_OP_MATMUL,
                     .dtype  = dtype_of(t),
                     .matmul = {.m = rows, .n = out, .k = in, .lda = in, .ldb = in, .ldy = out, .trans_b = true, .alpha = 1.0f,
                                .out_dtype = dtype_of(t)}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(x, w, bias, y));
}

/* dx (rows,in) = alpha dy (rows,out) W. */
static void emit_linear_dgrad(T_t *t, size_t rows, size_t in, size_t out, double alpha, shoal_ref_t dy, shoal_ref_t w, shoal_ref_t dx)
{
    shoal_op_t op = {.kind   = SHOAL_OP_MATMUL,
                     .dtype  = dtype_of(t),
                     .matmul = {.m = rows, .n = in, .k = out, .lda = out, .ldb = in, .ldy = in, .alpha = (float)alpha,
                                .out_dtype = dtype_of(t)}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(dy, w, SHOAL_NO_REF, dx));
}

/* dW (out,in) (+)= alpha dy^T (out,rows) x (rows,in), into the gradient of `slot` (of `unit`), and its bias gradient. */
static void emit_linear_wgrad(T_t *t, int unit, size_t rows, size_t in, size_t out, double alpha, shoal_ref_t dy, shoal_ref_t x,
                              shoal_slot_t slot, shoal_slot_t bias_slot)
{
    bool        accumulate;
    shoal_ref_t dw = shoal_sharding_gradient(t->sharding, unit, slot, &accumulate);
    shoal_op_t  op = {.kind   = SHOAL_OP_MATMUL,
                      .dtype  = dtype_of(t),
                      .matmul = {.m = out, .n = in, .k = rows, .lda = out, .ldb = in, .ldy = in, .trans_a = true,
                                 .accumulate = accumulate, .alpha = (float)alpha, .out_dtype = t->spec->precision.reduce}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(dy, x, SHOAL_NO_REF, dw));
    if (bias_slot != SHOAL_T_COUNT && t->model->units[unit].tensors[bias_slot].present) {
        shoal_ref_t db     = shoal_sharding_gradient(t->sharding, unit, bias_slot, &accumulate);
        shoal_op_t  colsum = {.kind   = SHOAL_OP_COLSUM,
                              .dtype  = dtype_of(t),
                              .gdtype = t->spec->precision.reduce,
                              .colsum = {rows, out, out, (float)alpha, accumulate}};
        shoal_program_emit(t->program, &colsum, SHOAL_ARGS(dy, db));
    }
}

static shoal_op_t norm_op(const T_t *t, shoal_op_kind_t kind)
{
    const shoal_model_spec_t *m = &t->spec->model;
    return (shoal_op_t){.kind   = kind,
                        .dtype  = dtype_of(t),
                        .gdtype = t->spec->precision.reduce,
                        .norm   = {.N = t->N, .C = m->d_model, .norm = m->norm, .eps = (float)m->norm_eps,
                                   .residual = (float)m->residual}};
}

/*
 * sum = x + r branch, y = norm(sum). Without a branch sum is x itself. The sum overwrites the branch, which nothing else
 * needs. Sets *sum_p, *y_p (N,C) and *stats_p (N,2).
 */
static void emit_residual_norm(T_t *t, shoal_ref_t params, shoal_slot_t weight, shoal_slot_t bias, shoal_ref_t x, shoal_ref_t branch,
                               shoal_ref_t *sum_p, shoal_ref_t *y_p, shoal_ref_t *stats_p)
{
    shoal_op_t op = norm_op(t, SHOAL_OP_NORM);
    *sum_p        = branch.id >= 0 ? branch : x;
    *y_p          = activation(t, "norm", t->N * op.norm.C, dtype_of(t));
    *stats_p      = activation(t, "norm stats", t->N * 2, SHOAL_F32);
    shoal_program_emit(t->program, &op, SHOAL_ARGS(x, branch, tensor(t, params, weight), tensor(t, params, bias),
                                                   branch.id >= 0 ? *sum_p : SHOAL_NO_REF, *y_p, *stats_p));
}

/* dstream (N,C), in place: the gradient of sum from the gradients of y and of the stream above. */
static void emit_residual_norm_bwd(T_t *t, shoal_ref_t params, shoal_slot_t weight, shoal_slot_t bias, shoal_ref_t sum,
                                   shoal_ref_t stats, shoal_ref_t dy, shoal_ref_t dres, shoal_ref_t dsum)
{
    int         unit = t->program->unit;
    shoal_op_t  op   = norm_op(t, SHOAL_OP_NORM_BWD);
    shoal_ref_t dw   = shoal_sharding_gradient(t->sharding, unit, weight, &op.norm.accumulate);
    shoal_ref_t db   = has(t, bias) ? shoal_sharding_gradient(t->sharding, unit, bias, &op.norm.accumulate) : SHOAL_NO_REF;
    shoal_program_emit(t->program, &op, SHOAL_ARGS(sum, tensor(t, params, weight), stats, dy, dres, dsum, dw, db));
}

static shoal_op_t headprep_op(const T_t *t, shoal_op_kind_t kind, size_t heads, size_t ldx, size_t ldy)
{
    const shoal_model_spec_t *m = &t->spec->model;
    return (shoal_op_t){.kind     = kind,
                        .dtype    = dtype_of(t),
                        .gdtype   = t->spec->precision.reduce,
                        .headprep = {.N = t->N, .T = m->seq, .heads = heads, .D = m->head_dim, .ldx = ldx, .ldy = ldy,
                                     .ldsrc = qkv_width(m), .rope = m->rope, .eps = (float)m->norm_eps}};
}

/* Queries and keys: normalized per head, then rotated. Without a norm they are rotated in place. */
static void emit_headprep(T_t *t, shoal_ref_t params, block_t *block)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    size_t                    HD = m->heads * m->head_dim, KD = m->kv_heads * m->head_dim, ld = qkv_width(m);
    block->qk   = m->qk_norm ? activation(t, "qk", t->N * (HD + KD), dtype_of(t)) : block->qkv;
    block->ldqk = m->qk_norm ? HD + KD : ld;
    if (!m->qk_norm && m->rope == SHOAL_ROPE_NONE) {
        return;
    }
    shoal_op_t q = headprep_op(t, SHOAL_OP_HEADPREP, m->heads, ld, block->ldqk);
    shoal_op_t k = headprep_op(t, SHOAL_OP_HEADPREP, m->kv_heads, ld, block->ldqk);
    shoal_ref_t table = shoal_whole(t->rope_table);
    shoal_program_emit(t->program, &q, SHOAL_ARGS(block->qkv, tensor(t, params, SHOAL_T_QNORM), table, block->qk));
    shoal_program_emit(t->program, &k, SHOAL_ARGS(shoal_at(block->qkv, HD), tensor(t, params, SHOAL_T_KNORM), table,
                                                  shoal_at(block->qk, HD)));
}

/* In place on the gradients of q and k, which are the first columns of dqkv. */
static void emit_headprep_bwd(T_t *t, shoal_ref_t params, const block_t *block, shoal_ref_t dqkv)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    size_t                    HD = m->heads * m->head_dim, ld = qkv_width(m);
    if (!m->qk_norm && m->rope == SHOAL_ROPE_NONE) {
        return;
    }
    for (int key = 0; key < 2; key++) {
        shoal_slot_t slot   = key ? SHOAL_T_KNORM : SHOAL_T_QNORM;
        size_t       column = key ? HD : 0;
        shoal_op_t   op     = headprep_op(t, SHOAL_OP_HEADPREP_BWD, key ? m->kv_heads : m->heads, ld, ld);
        shoal_ref_t  dw     = SHOAL_NO_REF;
        if (m->qk_norm) {
            dw = shoal_sharding_gradient(t->sharding, t->program->unit, slot, &op.headprep.accumulate);
        }
        shoal_program_emit(t->program, &op,
                           SHOAL_ARGS(m->qk_norm ? shoal_at(block->qkv, column) : SHOAL_NO_REF, tensor(t, params, slot),
                                      shoal_whole(t->rope_table), shoal_at(dqkv, column), shoal_at(dqkv, column), dw));
    }
}

static shoal_op_t attention_op(const T_t *t, shoal_op_kind_t kind, const block_t *block)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    size_t                    ld = qkv_width(m);
    return (shoal_op_t){.kind      = kind,
                        .dtype     = dtype_of(t),
                        .attention = {.B = t->B, .T = m->seq, .H = m->heads, .K = m->kv_heads, .D = m->head_dim,
                                      .ldq = block->ldqk, .ldk = block->ldqk, .ldv = ld, .ldo = m->heads * m->head_dim,
                                      .lddq = ld, .lddk = ld, .lddv = ld, .scale = (float)(1.0 / sqrt((double)m->head_dim))}};
}

/* y1 -> qkv -> attention -> sum2, y2. */
static void attention_forward(T_t *t, shoal_ref_t params, block_t *block)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    size_t                    HD = m->heads * m->head_dim, KD = m->kv_heads * m->head_dim;
    block->qkv = activation(t, "qkv", t->N * qkv_width(m), dtype_of(t));
    emit_linear(t, t->N, m->d_model, qkv_width(m), block->y1, tensor(t, params, SHOAL_T_Q), tensor(t, params, SHOAL_T_Q_BIAS), block->qkv);
    emit_headprep(t, params, block);

    block->o      = activation(t, "o", t->N * HD, dtype_of(t));
    block->lse    = activation(t, "lse", t->N * m->heads, SHOAL_F32);
    shoal_op_t op = attention_op(t, SHOAL_OP_ATTENTION, block);
    shoal_program_emit(t->program, &op, SHOAL_ARGS(block->qk, shoal_at(block->qk, HD), shoal_at(block->qkv, HD + KD), block->o, block->lse));

    shoal_ref_t projected = activation(t, "stream", t->N * m->d_model, dtype_of(t));
    emit_linear(t, t->N, HD, m->d_model, block->o, tensor(t, params, SHOAL_T_O), tensor(t, params, SHOAL_T_O_BIAS), projected);
    emit_residual_norm(t, params, SHOAL_T_NORM2, SHOAL_T_NORM2_BIAS, block->sum1, projected, &block->sum2, &block->y2, &block->stats2);
}

static void emit_act(T_t *t, block_t *block)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    shoal_op_t                op = {.kind = SHOAL_OP_ACT, .dtype = dtype_of(t), .act = {t->N, m->ffn, m->act}};
    block->hidden                = activation(t, "hidden", t->N * m->ffn, dtype_of(t));
    shoal_program_emit(t->program, &op, SHOAL_ARGS(block->pre, block->hidden));
}

/* y2 -> pre -> hidden. */
static void mlp_forward(T_t *t, shoal_ref_t params, block_t *block)
{
    const shoal_model_spec_t *m = &t->spec->model;
    block->pre                  = activation(t, "pre", t->N * pre_width(m), dtype_of(t));
    emit_linear(t, t->N, m->d_model, pre_width(m), block->y2, tensor(t, params, SHOAL_T_FC), tensor(t, params, SHOAL_T_FC_BIAS), block->pre);
    emit_act(t, block);
}

/* The block takes the stream as x + r branch, still to be added, and leaves it as sum2 + r out. */
static void block_forward(T_t *t, int unit, shoal_ref_t x, shoal_ref_t branch, block_t *block)
{
    const shoal_model_spec_t *m = &t->spec->model;
    t->program->unit            = unit;
    shoal_ref_t params          = shoal_sharding_acquire(t->sharding, unit);
    emit_residual_norm(t, params, SHOAL_T_NORM1, SHOAL_T_NORM1_BIAS, x, branch, &block->sum1, &block->y1, &block->stats1);
    attention_forward(t, params, block);
    mlp_forward(t, params, block);
    block->out = activation(t, "stream", t->N * m->d_model, dtype_of(t));
    emit_linear(t, t->N, m->ffn, m->d_model, block->hidden, tensor(t, params, SHOAL_T_DOWN), tensor(t, params, SHOAL_T_DOWN_BIAS), block->out);
    shoal_sharding_release(t->sharding, unit);
}

/* Replaces what backward needs by fresh copies: the block's own memory of it ends where forward last read it. */
static void block_recompute(T_t *t, shoal_ref_t params, block_t *block)
{
    shoal_ref_t sum;
    if (t->spec->parallel.recompute == SHOAL_RECOMPUTE_NONE) {
        return;
    }
    emit_residual_norm(t, params, SHOAL_T_NORM1, SHOAL_T_NORM1_BIAS, block->sum1, SHOAL_NO_REF, &sum, &block->y1, &block->stats1);
    if (t->spec->parallel.recompute == SHOAL_RECOMPUTE_FULL) {
        attention_forward(t, params, block);
        mlp_forward(t, params, block);
        return;
    }
    if (t->spec->model.qk_norm) {
        emit_headprep(t, params, block);
    }
    emit_residual_norm(t, params, SHOAL_T_NORM2, SHOAL_T_NORM2_BIAS, block->sum2, SHOAL_NO_REF, &sum, &block->y2, &block->stats2);
    emit_act(t, block);
}

/* dstream, the gradient of sum2 + r out, becomes the gradient of sum2. */
static void mlp_backward(T_t *t, shoal_ref_t params, const block_t *block, shoal_ref_t dstream)
{
    const shoal_model_spec_t *m    = &t->spec->model;
    int                       unit = t->program->unit;
    shoal_op_t                act  = {.kind = SHOAL_OP_ACT_BWD, .dtype = dtype_of(t), .act = {t->N, m->ffn, m->act}};

    emit_linear_wgrad(t, unit, t->N, m->ffn, m->d_model, m->residual, dstream, block->hidden, SHOAL_T_DOWN, SHOAL_T_DOWN_BIAS);
    shoal_ref_t dhidden = activation(t, "dhidden", t->N * m->ffn, dtype_of(t));
    emit_linear_dgrad(t, t->N, m->ffn, m->d_model, m->residual, dstream, tensor(t, params, SHOAL_T_DOWN), dhidden);
    shoal_ref_t dpre = m->act == SHOAL_ACT_SWIGLU ? block->pre : dhidden;
    shoal_program_emit(t->program, &act, SHOAL_ARGS(block->pre, dhidden, dpre));
    emit_linear_wgrad(t, unit, t->N, m->d_model, pre_width(m), 1.0, dpre, block->y2, SHOAL_T_FC, SHOAL_T_FC_BIAS);
    shoal_ref_t dy2 = activation(t, "dnorm", t->N * m->d_model, dtype_of(t));
    emit_linear_dgrad(t, t->N, m->d_model, pre_width(m), 1.0, dpre, tensor(t, params, SHOAL_T_FC), dy2);
    emit_residual_norm_bwd(t, params, SHOAL_T_NORM2, SHOAL_T_NORM2_BIAS, block->sum2, block->stats2, dy2, dstream, dstream);
}

/* dstream, the gradient of sum2, becomes the gradient of sum1. */
static void attention_backward(T_t *t, shoal_ref_t params, const block_t *block, shoal_ref_t dstream)
{
    const shoal_model_spec_t *m    = &t->spec->model;
    int                       unit = t->program->unit;
    size_t                    HD = m->heads * m->head_dim, KD = m->kv_heads * m->head_dim;
    shoal_op_t                op = attention_op(t, SHOAL_OP_ATTENTION_BWD, block);

    emit_linear_wgrad(t, unit, t->N, HD, m->d_model, m->residual, dstream, block->o, SHOAL_T_O, SHOAL_T_O_BIAS);
    shoal_ref_t dout = activation(t, "do", t->N * HD, dtype_of(t));
    emit_linear_dgrad(t, t->N, HD, m->d_model, m->residual, dstream, tensor(t, params, SHOAL_T_O), dout);
    shoal_ref_t dqkv = activation(t, "dqkv", t->N * qkv_width(m), dtype_of(t));
    shoal_program_emit(t->program, &op, SHOAL_ARGS(block->qk, shoal_at(block->qk, HD), shoal_at(block->qkv, HD + KD), block->o, block->lse,
                                                   dout, dqkv, shoal_at(dqkv, HD), shoal_at(dqkv, HD + KD)));
    emit_headprep_bwd(t, params, block, dqkv);
    emit_linear_wgrad(t, unit, t->N, m->d_model, qkv_width(m), 1.0, dqkv, block->y1, SHOAL_T_Q, SHOAL_T_Q_BIAS);
    shoal_ref_t dy1 = activation(t, "dnorm", t->N * m->d_model, dtype_of(t));
    emit_linear_dgrad(t, t->N, m->d_model, qkv_width(m), 1.0, dqkv, tensor(t, params, SHOAL_T_Q), dy1);
    emit_residual_norm_bwd(t, params, SHOAL_T_NORM1, SHOAL_T_NORM1_BIAS, block->sum1, block->stats1, dy1, dstream, dstream);
}

static void block_backward(T_t *t, int unit, block_t *block, shoal_ref_t dstream)
{
    t->program->unit   = unit;
    shoal_ref_t params = shoal_sharding_acquire(t->sharding, unit);
    block_recompute(t, params, block);
    mlp_backward(t, params, block, dstream);
    attention_backward(t, params, block, dstream);
    shoal_sharding_release(t->sharding, unit);
    shoal_sharding_reduce(t->sharding, unit);
}

static void emit_loss_sum(T_t *t, shoal_ref_t losses, bool first)
{
    shoal_op_t op = {.kind = SHOAL_OP_SUM, .dtype = SHOAL_F32, .reduce = {t->N, (float)t->loss_scale, !first}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(losses, (shoal_ref_t){t->sharding->stats, SHOAL_STATS_LOSS}));
}

/*
 * Logits, loss and, when training, their gradients for tokens first .. first + n - 1, so that only (n,V) logits exist at a
 * time. `weight` and its gradient belong to `unit`: the head's own, or the embedding's when tied.
 */
static void head_chunk(T_t *t, int unit, shoal_ref_t weight, size_t first, size_t n, shoal_ref_t y, shoal_ref_t targets, shoal_ref_t losses,
                       shoal_ref_t dy)
{
    const shoal_model_spec_t *m      = &t->spec->model;
    size_t                    C      = m->d_model;
    bool                      train  = dy.id >= 0;
    shoal_ref_t               logits = activation(t, "logits", n * m->vocab, dtype_of(t));
    shoal_op_t                xent   = {.kind  = SHOAL_OP_XENT,
                                        .dtype = dtype_of(t),
                                        .xent  = {n, m->vocab, m->vocab, (float)m->z_loss, (float)t->loss_scale, train}};
    emit_linear(t, n, C, m->vocab, shoal_at(y, first * C), weight, SHOAL_NO_REF, logits);
    shoal_program_emit(t->program, &xent, SHOAL_ARGS(logits, shoal_at(targets, first), shoal_at(losses, first)));
    if (train) {
        emit_linear_wgrad(t, unit, n, C, m->vocab, 1.0, logits, shoal_at(y, first * C), unit == 0 ? SHOAL_T_TOK : SHOAL_T_HEAD,
                          SHOAL_T_COUNT);
        emit_linear_dgrad(t, n, C, m->vocab, 1.0, logits, weight, shoal_at(dy, first * C));
    }
}

/* Final norm, head and loss, forward and backward at once; returns the gradient of the stream, (N,C). */
static shoal_ref_t head(T_t *t, const block_t *last, shoal_ref_t targets, bool first_micro, bool train)
{
    const shoal_model_spec_t *m    = &t->spec->model;
    int                       unit = t->model->nunits - 1, owner = m->tied ? 0 : unit;
    shoal_ref_t               sum, y, stats, dy = SHOAL_NO_REF;

    t->program->unit   = unit;
    shoal_ref_t params = shoal_sharding_acquire(t->sharding, unit);
    shoal_ref_t weight = m->tied ? shoal_sharding_acquire(t->sharding, owner) : tensor(t, params, SHOAL_T_HEAD);
    shoal_ref_t losses = activation(t, "losses", t->N, SHOAL_F32);
    emit_residual_norm(t, params, SHOAL_T_FINAL_NORM, SHOAL_T_FINAL_NORM_BIAS, last->sum2, last->out, &sum, &y, &stats);
    if (train) {
        t->program->phase = SHOAL_PHASE_BACKWARD;
        dy                = activation(t, "dnorm", t->N * m->d_model, dtype_of(t));
    }
    for (size_t i = 0; i < t->N; i += t->head_chunk) {
        size_t n = t->N - i < t->head_chunk ? t->N - i : t->head_chunk;
        head_chunk(t, owner, weight, i, n, y, targets, losses, dy);
    }
    emit_loss_sum(t, losses, first_micro);
    if (train) { /* the gradient of y is not needed after this: the stream's gradient takes its place */
        emit_residual_norm_bwd(t, params, SHOAL_T_FINAL_NORM, SHOAL_T_FINAL_NORM_BIAS, sum, stats, dy, SHOAL_NO_REF, dy);
    }
    shoal_sharding_release(t->sharding, unit);
    if (m->tied) {
        shoal_sharding_release(t->sharding, owner);
    }
    if (train) {
        shoal_sharding_reduce(t->sharding, unit);
    }
    return dy;
}

/* x (N,C), the stream's beginning. */
static shoal_ref_t embed_forward(T_t *t, shoal_ref_t tokens)
{
    const shoal_model_spec_t *m = &t->spec->model;
    t->program->unit            = 0;
    shoal_ref_t params          = shoal_sharding_acquire(t->sharding, 0);
    shoal_ref_t x               = activation(t, "stream", t->N * m->d_model, dtype_of(t));
    shoal_op_t  op = {.kind = SHOAL_OP_EMBED, .dtype = dtype_of(t), .embed = {t->N, m->seq, m->d_model, m->vocab, false}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(tokens, tensor(t, params, SHOAL_T_TOK), tensor(t, params, SHOAL_T_POS), x));
    shoal_sharding_release(t->sharding, 0);
    return x;
}

static void emit_zero(T_t *t, shoal_ref_t gradient, size_t nelem)
{
    const shoal_range_t range = {0, nelem};
    shoal_op_t          op    = {.kind  = SHOAL_OP_FILL,
                                 .dtype = t->spec->precision.reduce,
                                 .fill  = {shoal_program_ranges(t->program, &range, 1), 1}};
    shoal_program_emit(t->program, &op, SHOAL_ARGS(gradient));
}

static void embed_backward(T_t *t, shoal_ref_t tokens, shoal_ref_t dstream)
{
    const shoal_model_spec_t *m  = &t->spec->model;
    shoal_op_t                op = {.kind   = SHOAL_OP_EMBED_BWD,
                                    .dtype  = dtype_of(t),
                                    .gdtype = t->spec->precision.reduce,
                                    .embed  = {t->N, m->seq, m->d_model, m->vocab, false}};
    shoal_ref_t dpos = SHOAL_NO_REF;
    t->program->unit = 0;
    shoal_ref_t dtok = shoal_sharding_gradient(t->sharding, 0, SHOAL_T_TOK, &op.embed.accumulate);
    if (has(t, SHOAL_T_POS)) {
        bool has_value;
        dpos = shoal_sharding_gradient(t->sharding, 0, SHOAL_T_POS, &has_value);
        if (op.embed.accumulate && !has_value) { /* tied: the head has begun dtok, nobody dpos, and the op adds to both */
            emit_zero(t, dpos, m->seq * m->d_model);
        }
    }
    shoal_program_emit(t->program, &op, SHOAL_ARGS(tokens, dstream, dtok, dpos));
    shoal_sharding_reduce(t->sharding, 0);
}

static void fetch(T_t *t, size_t micro, shoal_ref_t *tokens_p, shoal_ref_t *targets_p)
{
    shoal_op_t op     = {.kind = SHOAL_OP_FETCH, .dtype = SHOAL_I32, .fetch = {t->N, micro}};
    t->program->unit  = -1;
    t->program->phase = SHOAL_PHASE_DATA;
    *tokens_p         = activation(t, "tokens", t->N, SHOAL_I32);
    *targets_p        = activation(t, "targets", t->N, SHOAL_I32);
    shoal_program_emit(t->program, &op, SHOAL_ARGS(*tokens_p, *targets_p));
}

void shoal_transformer_emit(T_t *t, size_t micro, bool train)
{
    const shoal_model_spec_t *m = &t->spec->model;
    block_t                   blocks[m->layers];
    shoal_ref_t               tokens, targets;

    fetch(t, micro, &tokens, &targets);
    t->program->phase = SHOAL_PHASE_FORWARD;
    shoal_ref_t x = embed_forward(t, tokens), branch = SHOAL_NO_REF;
    for (size_t l = 0; l < m->layers; l++) {
        block_forward(t, (int)l + 1, x, branch, &blocks[l]);
        x      = blocks[l].sum2;
        branch = blocks[l].out;
    }
    shoal_ref_t dstream = head(t, &blocks[m->layers - 1], targets, micro == 0, train);
    if (train) {
        for (size_t l = m->layers; l-- > 0;) {
            block_backward(t, (int)l + 1, &blocks[l], dstream);
        }
        embed_backward(t, tokens, dstream);
    }
    t->program->unit = -1;
}

/*
 * On a GPU every chunk but the first reads and writes the whole gradient of the head's weight, (V,C) in fp32: at n tokens that
 * is 8 V C bytes beside products of 6 n V C flop, whose ratio no V or C changes. At 4096 tokens the traffic is about a twentieth
 * of the products' time on a GPU of 650 Tflop/s and 3.7 TB/s; larger chunks gain little and cost logits. Chunks are equal, so
 * that none is a small rest: of 4096 to 8191 tokens, or one of all.
 */
static size_t head_chunk_on_gpu(size_t N)
{
    const size_t least = 4096;
    size_t       count = N < least ? 1 : N / least;
    return (N + count - 1) / count;
}

/* On a CPU, logits of a chunk fill about 8 MiB: large enough for a fast matmul, small beside the activations. */
static size_t head_chunk_on_cpu(const shoal_spec_t *spec)
{
    size_t row   = spec->model.vocab * shoal_dtype_nbytes(spec->precision.compute);
    size_t chunk = ((size_t)8 << 20) / row;
    return chunk < 128 ? 128 : chunk;
}

size_t shoal_transformer_head_chunk(const shoal_spec_t *spec, bool on_gpu)
{
    size_t N     = spec->batch.local * spec->model.seq;
    size_t chunk = spec->run.head_chunk;
    if (chunk == 0) {
        chunk = on_gpu ? head_chunk_on_gpu(N) : head_chunk_on_cpu(spec);
    }
    return chunk < N ? chunk : N;
}

void shoal_transformer_begin(T_t *t, const shoal_model_t *model, const shoal_spec_t *spec, shoal_sharding_t *sharding, size_t samples,
                             size_t head_chunk)
{
    const shoal_model_spec_t *m = &spec->model;
    size_t                    N = spec->batch.local * m->seq;
    *t = (T_t){.model = model, .spec = spec, .sharding = sharding, .program = sharding->program, .B = spec->batch.local, .N = N,
               .head_chunk = head_chunk, .rope_table = -1,
               .loss_scale = 1.0 / ((double)samples * (double)m->seq)};
    if (m->rope != SHOAL_ROPE_NONE) {
        shoal_state_entry_t entry = {
            .kind = SHOAL_STATE_ROTARY, .dtype = SHOAL_F32, .unit = -1, .nelem = m->seq * m->head_dim};
        t->rope_table = shoal_state_declare(sharding->state, t->program, "step", entry);
    }
}

void shoal_transformer_rope_table(const shoal_model_spec_t *spec, float *table_p)
{
    for (size_t t = 0; t < spec->seq; t++) {
        for (size_t i = 0; i < spec->head_dim / 2; i++) {
            double angle = (double)t * pow(spec->rope_theta, -2.0 * (double)i / (double)spec->head_dim);
            *table_p++   = (float)cos(angle);
            *table_p++   = (float)sin(angle);
        }
    }
}
