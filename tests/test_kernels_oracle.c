/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernels must compute, in double precision. Only forward passes are written down; the expected gradients are central
 * differences of L = sum(dy * forward(x)), so that no algebra is shared with the kernels. In double the difference is
 * good to about 1e-8, far below any tolerance. Ops that are linear (embedding, column sums) are written directly.
 */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "tests/test_kernels.h"

static const double step = 3e-5;

/* A scalar function of the arguments. */
typedef double (*loss_fn_t)(const shoal_op_t *op, double *const *a);

/* Central differences of loss with respect to x (rows, columns, ld), stored or added at the same places of dx (its ld). */
static void differentiate(loss_fn_t loss, const shoal_op_t *op, double *const *a, double *x, shoal_shape_t shape, double *dx,
                          size_t lddx, bool accumulate)
{
    for (size_t i = 0; i < shape.rows; i++) {
        for (size_t j = 0; j < shape.columns; j++) {
            double *xi = &x[i * shape.ld + j], at = *xi;
            *xi        = at + step;
            double up  = loss(op, a);
            *xi        = at - step;
            double gradient = (up - loss(op, a)) / (2 * step);
            *xi             = at;
            dx[i * lddx + j] = gradient + (accumulate ? dx[i * lddx + j] : 0);
        }
    }
}

static void clip_tokens(double *tokens, size_t count, size_t V)
{
    for (size_t i = 0; i < count; i++) {
        tokens[i] = floor(fmod(fabs(tokens[i]) * 1e6, (double)V));
    }
}

static shoal_shape_t shape_of(const shoal_op_t *op, int arg)
{
    return shoal_op_row(op->kind)->args[arg].shape(op);
}

/* ---- embedding ---- */


static void embed_prepare(const shoal_op_t *op, double *const *a)
{
    clip_tokens(a[0], op->embed.N, op->embed.V);
}

static void embed_oracle(const shoal_op_t *op, double *const *a)
{
    size_t C = op->embed.C;
    for (size_t i = 0; i < op->embed.N * C; i++) {
        a[3][i] = a[1][(size_t)a[0][i / C] * C + i % C] + (a[2] ? a[2][i / C % op->embed.T * C + i % C] : 0);
    }
}

static void embed_bwd_oracle(const shoal_op_t *op, double *const *a)
{
    size_t C = op->embed.C;
    for (size_t i = 0; !op->embed.accumulate && i < op->embed.V * C; i++) {
        a[2][i] = 0;
    }
    for (size_t i = 0; a[3] && !op->embed.accumulate && i < op->embed.T * C; i++) {
        a[3][i] = 0;
    }
    for (size_t i = 0; i < op->embed.N * C; i++) {
        a[2][(size_t)a[0][i / C] * C + i % C] += a[1][i];
        if (a[3]) {
            a[3][i / C % op->embed.T * C + i % C] += a[1][i];
        }
    }
}

/* ---- norm ---- */


static void row_stats(const double *x, size_t n, bool centre, double eps, double *mean_p, double *rstd_p)
{
    double mean = 0, var = 0;
    for (size_t i = 0; centre && i < n; i++) {
        mean += x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        var += (x[i] - mean) * (x[i] - mean) / (double)n;
    }
    *mean_p = mean;
    *rstd_p = 1 / sqrt(var + eps);
}

static void norm_oracle(const shoal_op_t *op, double *const *a)
{
    size_t C = op->norm.C;
    for (size_t n = 0; n < op->norm.N; n++) {
        double sum[C], mean, rstd;
        for (size_t c = 0; c < C; c++) {
            sum[c] = a[0][n * C + c] + (a[1] ? (double)op->norm.residual * a[1][n * C + c] : 0);
        }
        row_stats(sum, C, op->norm.norm == SHOAL_NORM_LAYER, (double)op->norm.eps, &mean, &rstd);
        for (size_t c = 0; c < C; c++) {
            a[5][n * C + c] = (sum[c] - mean) * rstd * a[2][c] + (a[3] ? a[3][c] : 0);
        }
        if (a[4]) {
            memcpy(&a[4][n * C], sum, sizeof(sum));
        }
        a[6][2 * n]     = mean;
        a[6][2 * n + 1] = rstd;
    }
}

static void norm_bwd_prepare(const shoal_op_t *op, double *const *a)
{
    for (size_t n = 0; n < op->norm.N; n++) {
        row_stats(&a[0][n * op->norm.C], op->norm.C, op->norm.norm == SHOAL_NORM_LAYER, (double)op->norm.eps,
                  &a[2][2 * n], &a[2][2 * n + 1]);
    }
}

/* sum(dy * norm(sum) w) of one row; row, and the bias's gradient, need no differences. */
static size_t norm_loss_row;

static double norm_loss(const shoal_op_t *op, double *const *a)
{
    size_t        C    = op->norm.C;
    const double *x    = &a[0][norm_loss_row * C], *dy = &a[3][norm_loss_row * C];
    double        loss = 0, mean, rstd;
    row_stats(x, C, op->norm.norm == SHOAL_NORM_LAYER, (double)op->norm.eps, &mean, &rstd);
    for (size_t c = 0; c < C; c++) {
        loss += dy[c] * (x[c] - mean) * rstd * a[1][c];
    }
    return loss;
}

static void norm_bwd_oracle(const shoal_op_t *op, double *const *a)
{
    size_t C       = op->norm.C;
    bool   started = op->norm.accumulate;
    for (norm_loss_row = 0; norm_loss_row < op->norm.N; norm_loss_row++, started = true) {
        double *x = &a[0][norm_loss_row * C], *dsum = &a[5][norm_loss_row * C];
        differentiate(norm_loss, op, a, x, (shoal_shape_t){1, C, C}, dsum, C, false);
        differentiate(norm_loss, op, a, a[1], (shoal_shape_t){1, C, C}, a[6], C, started);
        for (size_t c = 0; c < C; c++) {
            dsum[c] += a[4] ? a[4][norm_loss_row * C + c] : 0;
            if (a[7]) {
                a[7][c] = a[3][norm_loss_row * C + c] + (started ? a[7][c] : 0);
            }
        }
    }
}

/* ---- matmul and column sums ---- */

static void matmul_oracle(const shoal_op_t *op, double *const *a)
{
    size_t lda = op->matmul.lda, ldb = op->matmul.ldb;
    for (size_t i = 0; i < op->matmul.m; i++) {
        for (size_t j = 0; j < op->matmul.n; j++) {
            double sum = 0, *y = &a[3][i * op->matmul.ldy + j];
            for (size_t l = 0; l < op->matmul.k; l++) {
                sum += a[0][op->matmul.trans_a ? l * lda + i : i * lda + l] *
                       a[1][op->matmul.trans_b ? j * ldb + l : l * ldb + j];
            }
            *y = (double)op->matmul.alpha * sum + (a[2] ? a[2][j] : 0) + (op->matmul.accumulate ? *y : 0);
        }
    }
}


static void colsum_oracle(const shoal_op_t *op, double *const *a)
{
    for (size_t j = 0; j < op->colsum.n; j++) {
        double sum = 0;
        for (size_t i = 0; i < op->colsum.m; i++) {
            sum += a[0][i * op->colsum.ld + j];
        }
        a[1][j] = (double)op->colsum.alpha * sum + (op->colsum.accumulate ? a[1][j] : 0);
    }
}

/* ---- headprep ---- */

static void rope_table(const shoal_op_t *op, double *table)
{
    size_t half = op->headprep.D / 2;
    for (size_t i = 0; table && i < op->headprep.T * half; i++) {
        double angle     = (double)(i / half) * pow(10000.0, -2.0 * (double)(i % half) / (double)op->headprep.D);
        table[2 * i]     = cos(angle);
        table[2 * i + 1] = sin(angle);
    }
}
static void headprep_prepare(const shoal_op_t *op, double *const *a) { rope_table(op, a[2]); }

/* y (D) of one head from x (D). */
static void headprep_head(const shoal_op_t *op, size_t position, const double *x, const double *w, const double *table,
                          double *y)
{
    size_t D = op->headprep.D, half = D / 2;
    double mean = 0, rstd = 1, normed[D];
    if (w) {
        row_stats(x, D, true, (double)op->headprep.eps, &mean, &rstd);
    }
    for (size_t d = 0; d < D; d++) {
        normed[d] = w ? (x[d] - mean) * rstd * w[d] : x[d];
    }
    memcpy(y, normed, sizeof(normed));
    for (size_t i = 0; table && op->headprep.rope != SHOAL_ROPE_NONE && i < half; i++) {
        bool          near = op->headprep.rope == SHOAL_ROPE_INTERLEAVED;
        size_t        p = near ? 2 * i : i, q = near ? 2 * i + 1 : i + half;
        const double *cs = &table[(position * half + i) * 2];
        y[p]             = normed[p] * cs[0] - normed[q] * cs[1];
        y[q]             = normed[q] * cs[0] + normed[p] * cs[1];
    }
}

static void headprep_oracle(const shoal_op_t *op, double *const *a)
{
    size_t D = op->headprep.D, heads = op->headprep.heads;
    for (size_t i = 0; i < op->headprep.N * heads; i++) {
        size_t n = i / heads, h = i % heads;
        headprep_head(op, n % op->headprep.T, &a[0][n * op->headprep.ldx + h * D], a[1], a[2],
                      &a[3][n * op->headprep.ldy + h * D]);
    }
}

/* One head: a[0] is x (D), a[1] w, a[2] the table, a[3] dy (D). */
static size_t headprep_position;

static double headprep_loss(const shoal_op_t *op, double *const *a)
{
    double y[op->headprep.D], loss = 0;
    headprep_head(op, headprep_position, a[0], a[1], a[2], y);
    for (size_t d = 0; d < op->headprep.D; d++) {
        loss += y[d] * a[3][d];
    }
    return loss;
}

static void headprep_bwd_oracle(const shoal_op_t *op, double *const *a)
{
    size_t D = op->headprep.D, heads = op->headprep.heads;
    double zeros[D];
    bool   started = op->headprep.accumulate;
    memset(zeros, 0, sizeof(zeros)); /* without norm the op is linear in x, which is then not given */
    for (size_t i = 0; i < op->headprep.N * heads; i++, started = true) {
        size_t  n = i / heads, h = i % heads;
        double *head[4]   = {a[0] ? &a[0][n * op->headprep.ldsrc + h * D] : zeros, a[1], a[2],
                             &a[3][n * op->headprep.ldy + h * D]};
        headprep_position = n % op->headprep.T;
        differentiate(headprep_loss, op, head, head[0], (shoal_shape_t){1, D, D}, &a[4][n * op->headprep.ldx + h * D], D, false);
        if (a[5]) {
            differentiate(headprep_loss, op, head, a[1], (shoal_shape_t){1, D, D}, a[5], D, started);
        }
    }
}

/* ---- attention ---- */

/* o (D) of one query; returns its lse. */
static double attend(const shoal_op_t *op, double *const *a, size_t b, size_t h, size_t t, double *o)
{
    size_t        D = op->attention.D, kv = h / (op->attention.H / op->attention.K), T = op->attention.T;
    const double *q = &a[0][(b * T + t) * op->attention.ldq + h * D];
    double        scores[t + 1], max = -INFINITY, sum = 0;
    for (size_t s = 0; s <= t; s++) {
        const double *k = &a[1][(b * T + s) * op->attention.ldk + kv * D];
        scores[s]       = 0;
        for (size_t d = 0; d < D; d++) {
            scores[s] += (double)op->attention.scale * q[d] * k[d];
        }
        max = fmax(max, scores[s]);
    }
    memset(o, 0, D * sizeof(double));
    for (size_t s = 0; s <= t; s++) {
        const double *v = &a[2][(b * T + s) * op->attention.ldv + kv * D];
        double        p = exp(scores[s] - max);
        sum += p;
        for (size_t d = 0; d < D; d++) {
            o[d] += p * v[d];
        }
    }
    for (size_t d = 0; d < D; d++) {
        o[d] /= sum;
    }
    return max + log(sum);
}

static void attention_oracle(const shoal_op_t *op, double *const *a)
{
    size_t T = op->attention.T, H = op->attention.H;
    for (size_t r = 0; r < op->attention.B * H * T; r++) {
        size_t t = r % T, h = r / T % H, b = r / (T * H);
        a[4][r] = attend(op, a, b, h, t, &a[3][(b * T + t) * op->attention.ldo + h * op->attention.D]);
    }
}

/* sum(do * o) over the queries t >= first of the heads of one group: all that an element of that group's can change. */
static struct {
    size_t b, kv, first, end;
} attention_group;

static double attention_loss(const shoal_op_t *op, double *const *a)
{
    size_t D = op->attention.D, T = op->attention.T, heads = op->attention.H / op->attention.K;
    double loss = 0, o[D];
    for (size_t h = attention_group.kv * heads; h < (attention_group.kv + 1) * heads; h++) {
        for (size_t t = attention_group.first; t < attention_group.end; t++) {
            attend(op, a, attention_group.b, h, t, o);
            for (size_t d = 0; d < D; d++) {
                loss += o[d] * a[5][(attention_group.b * T + t) * op->attention.ldo + h * D + d];
            }
        }
    }
    return loss;
}

static void attention_bwd_oracle(const shoal_op_t *op, double *const *a)
{
    size_t T = op->attention.T, D = op->attention.D, K = op->attention.K, q_columns = op->attention.H / K * D;
    for (size_t i = 0; i < op->attention.B * K * T; i++) {
        size_t t = i % T, kv = i / T % K, b = i / (T * K), n = b * T + t;
        attention_group.b = b, attention_group.kv = kv, attention_group.first = t, attention_group.end = t + 1;
        differentiate(attention_loss, op, a, &a[0][n * op->attention.ldq + kv * q_columns], (shoal_shape_t){1, q_columns, 0},
                      &a[6][n * op->attention.lddq + kv * q_columns], 0, false);
        attention_group.end = T;
        differentiate(attention_loss, op, a, &a[1][n * op->attention.ldk + kv * D], (shoal_shape_t){1, D, 0},
                      &a[7][n * op->attention.lddk + kv * D], 0, false);
        differentiate(attention_loss, op, a, &a[2][n * op->attention.ldv + kv * D], (shoal_shape_t){1, D, 0},
                      &a[8][n * op->attention.lddv + kv * D], 0, false);
    }
}

/* ---- activations ---- */

/* The tails matter: some elements become large. */
static void act_prepare(const shoal_op_t *op, double *const *a)
{
    shoal_shape_t shape = shape_of(op, 0);
    for (size_t i = 0; i < shape.rows * shape.columns; i += 3) {
        a[0][i] *= 12;
    }
}

static double activate(shoal_act_kind_t act, double x, double up)
{
    switch (act) {
    case SHOAL_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case SHOAL_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case SHOAL_ACT_SWIGLU:
        return x / (1 + exp(-x)) * up;
    }
    return NAN;
}

static void act_oracle(const shoal_op_t *op, double *const *a)
{
    size_t F = op->act.F, ldx = shape_of(op, 0).ld;
    for (size_t i = 0; i < op->act.N * F; i++) {
        const double *x = &a[0][i / F * ldx + i % F];
        a[1][i]         = activate(op->act.act, *x, ldx > F ? x[F] : 0);
    }
}

/* One element: a[0] is gate or x, a[1] up, a[2] dy. */
static double act_loss(const shoal_op_t *op, double *const *a)
{
    return a[2][0] * activate(op->act.act, a[0][0], a[1][0]);
}

static void act_bwd_oracle(const shoal_op_t *op, double *const *a)
{
    size_t F = op->act.F, ldx = shape_of(op, 0).ld;
    double none = 0;
    for (size_t i = 0; i < op->act.N * F; i++) {
        size_t  at         = i / F * ldx + i % F;
        double *element[3] = {&a[0][at], ldx > F ? &a[0][at + F] : &none, &a[1][i]};
        differentiate(act_loss, op, element, element[0], (shoal_shape_t){1, 1, 1}, &a[2][at], 1, false);
        if (ldx > F) {
            differentiate(act_loss, op, element, element[1], (shoal_shape_t){1, 1, 1}, &a[2][at + F], 1, false);
        }
    }
}

/* ---- loss ---- */


static void xent_prepare(const shoal_op_t *op, double *const *a)
{
    clip_tokens(a[1], op->xent.n, op->xent.V);
    for (size_t i = 0; i < op->xent.n; i++) {
        for (size_t v = 0; v < op->xent.V; v++) {
            a[0][i * op->xent.ld + v] = 4 * a[0][i * op->xent.ld + v] + 30 * ((double)(i % 3) - 1);
        }
    }
}

/* One row: a[0] is its logits, a[1] its target. */
static double xent_loss(const shoal_op_t *op, double *const *a)
{
    double max = -INFINITY, sum = 0;
    for (size_t v = 0; v < op->xent.V; v++) {
        max = fmax(max, a[0][v]);
    }
    for (size_t v = 0; v < op->xent.V; v++) {
        sum += exp(a[0][v] - max);
    }
    double lse = max + log(sum);
    return lse - a[0][(size_t)a[1][0]] + (double)op->xent.z_loss * lse * lse;
}

static void xent_oracle(const shoal_op_t *op, double *const *a)
{
    size_t V = op->xent.V;
    for (size_t i = 0; i < op->xent.n; i++) {
        double  dlogits[V];
        double *row[2] = {&a[0][i * op->xent.ld], &a[1][i]};
        a[2][i]        = xent_loss(op, row);
        if (op->xent.backward) {
            differentiate(xent_loss, op, row, row[0], (shoal_shape_t){1, V, V}, dlogits, V, false);
        }
        for (size_t v = 0; op->xent.backward && v < V; v++) {
            row[0][v] = (double)op->xent.grad_scale * dlogits[v];
        }
    }
}

/* ---- reductions, conversion, clearing ---- */


static void reduce_oracle(const shoal_op_t *op, double *const *a)
{
    double sum = 0;
    for (size_t i = 0; i < op->reduce.n; i++) {
        sum += op->kind == SHOAL_OP_SUMSQ ? a[0][i] * a[0][i] : a[0][i];
    }
    a[1][0] = (double)op->reduce.scale * sum + (op->reduce.accumulate ? a[1][0] : 0);
}


static void cast_oracle(const shoal_op_t *op, double *const *a)
{
    for (size_t i = 0; i < op->cast.n; i++) {
        a[1][i] = a[0][i] + (op->cast.accumulate ? a[1][i] : 0);
    }
}

/* Up to the end of the last range and somewhat beyond. */
static void fill_oracle(const shoal_op_t *op, double *const *a)
{
    for (size_t r = 0; r < op->fill.count; r++) {
        for (size_t i = 0; i < op->fill.ranges[r].count; i++) {
            a[0][op->fill.ranges[r].first + i] = 0;
        }
    }
}


/* As base/rng.h says it, from the words of a block. */
static void normal_oracle(const shoal_op_t *op, double *const *a)
{
    for (size_t i = 0; i < op->normal.n; i++) {
        uint64_t index = op->normal.first + i;
        unsigned pair  = index % 4 / 2 * 2;
        uint32_t words[4];
        shoal_rng_block(op->normal.stream, index / 4, words);
        double radius = sqrt(-2 * log((words[pair] + 0.5) / 0x1p32)), turn = 2 * acos(-1) * ((words[pair + 1] + 0.5) / 0x1p32);
        double value  = radius * (index % 2 == 0 ? cos(turn) : sin(turn));
        a[0][i]       = op->normal.std > 0 ? (double)op->normal.std * value : (double)op->normal.constant;
    }
}

/* ---- optimizers ---- */

static void optim_prepare(const shoal_op_t *op, double *const *a)
{
    double t = 1 + floor(1000 * a[6][0] * a[6][0]);
    a[6][0]  = 0;
    for (size_t i = 0; i < op->optim.n; i++) {
        a[2][i] = a[2][i] * a[2][i];
        a[6][0] += a[4][i] * a[4][i];
        if (a[3]) {
            a[3][i] = fabs(a[3][i]);
        }
    }
    a[7][SHOAL_SCALAR_STEP]     = t;
    a[7][SHOAL_SCALAR_LR]       = 0.1;
    a[7][SHOAL_SCALAR_SCHEDULE] = 0.5;
    a[7][SHOAL_SCALAR_DECAY]    = 0.75;
}

static void adamw_oracle(const shoal_op_t *op, double lr, double t, double g, double decay, optim_element_t *x)
{
    double b1 = (double)op->optim.beta1, b2 = (double)op->optim.beta2;
    x->m         = b1 * x->m + (1 - b1) * g;
    x->v         = b2 * x->v + (1 - b2) * g * g;
    double m_hat = x->m / (1 - pow(b1, t)), v_hat = x->v / (1 - pow(b2, t));
    x->p = x->p * decay - lr * m_hat / (sqrt(v_hat) + (double)op->optim.eps);
}

static void dana_oracle(const shoal_op_t *op, double lr, double t, double g, double decay, bool star, optim_element_t *x)
{
    double a = (double)op->optim.delta / ((double)op->optim.delta + t), grow = 1 - (double)op->optim.kappa;
    double clip = (double)op->optim.snr_clip, sign;
    x->m += a * (g - x->m);
    x->v     = (1 - a) * x->v + a * g * g;
    double D = sqrt(x->v) + (double)op->optim.eps, R = 1, T = 1 + t;
    sign = x->m > 0 ? 1 : x->m < 0 ? -1 : 0;
    if (star) {
        x->tau += a * (fabs(g) / (fabs(g) + D) - x->tau);
        double s = fmin(x->tau, 0.5);
        R        = fmax(s / (1 - s), 1 / (1 + t));
        T        = fmax(x->tau * t, 1);
    }
    double n = sqrt(R) / D, f = fmin(pow(T, grow) * fabs(x->m) * n / R, clip);
    x->p = (x->p - lr * (g * n + sign * (R * f + fabs(x->m) * n))) * decay;
}

void optim_oracle(const shoal_op_t *op, const double *scalars, double gnorm_sq, double grad, bool decays, optim_element_t *x)
{
    double lr = scalars[SHOAL_SCALAR_LR], t = scalars[SHOAL_SCALAR_STEP];
    double decay = decays ? scalars[SHOAL_SCALAR_DECAY] : 1;
    double g     = op->optim.clip > 0 ? grad * fmin(1, (double)op->optim.clip / (sqrt(gnorm_sq) + 1e-6)) : grad;
    if (op->optim.optim == SHOAL_OPTIM_ADAMW) {
        adamw_oracle(op, lr, t, g, decay, x);
    } else {
        bool star = op->optim.optim == SHOAL_OPTIM_DANA_STAR || op->optim.optim == SHOAL_OPTIM_DANA_STAR_MK4;
        dana_oracle(op, lr, t, g, decay, star, x);
    }
}

static void optim_shard_oracle(const shoal_op_t *op, double *const *a)
{
    for (size_t i = 0; i < op->optim.n; i++) {
        bool decays = false;
        for (size_t r = 0; r < op->optim.count; r++) {
            decays |= i >= op->optim.ranges[r].first && i - op->optim.ranges[r].first < op->optim.ranges[r].count;
        }
        optim_element_t x = {a[0][i], a[1][i], a[2][i], a[3] ? a[3][i] : 0};
        optim_oracle(op, a[7], a[6][0], a[4][i], decays, &x);
        a[0][i] = x.p, a[1][i] = x.m, a[2][i] = x.v;
        if (a[3]) {
            a[3][i] = x.tau;
        }
        if (a[5]) {
            a[5][i] = x.p;
        }
    }
}

/* ---- the kinds ---- */

const kind_spec_t kind_specs[SHOAL_OP_COMPUTE_COUNT] = {
    [SHOAL_OP_EMBED]         = {0, embed_prepare, embed_oracle},
    [SHOAL_OP_EMBED_BWD]     = {0, embed_prepare, embed_bwd_oracle},
    [SHOAL_OP_NORM]          = {BIT(5) | BIT(6), NULL, norm_oracle},
    [SHOAL_OP_NORM_BWD]      = {0, norm_bwd_prepare, norm_bwd_oracle},
    [SHOAL_OP_MATMUL]        = {0, NULL, matmul_oracle},
    [SHOAL_OP_COLSUM]        = {0, NULL, colsum_oracle},
    [SHOAL_OP_HEADPREP]      = {0, headprep_prepare, headprep_oracle},
    [SHOAL_OP_HEADPREP_BWD]  = {0, headprep_prepare, headprep_bwd_oracle},
    [SHOAL_OP_ATTENTION]     = {0, NULL, attention_oracle},
    [SHOAL_OP_ATTENTION_BWD] = {BIT(6) | BIT(7) | BIT(8), attention_oracle, attention_bwd_oracle},
    [SHOAL_OP_ACT]           = {0, act_prepare, act_oracle},
    [SHOAL_OP_ACT_BWD]       = {0, act_prepare, act_bwd_oracle},
    [SHOAL_OP_XENT]          = {0, xent_prepare, xent_oracle},
    [SHOAL_OP_SUM]           = {0, NULL, reduce_oracle},
    [SHOAL_OP_SUMSQ]         = {0, NULL, reduce_oracle},
    [SHOAL_OP_CAST]          = {0, NULL, cast_oracle},
    [SHOAL_OP_FILL]          = {0, NULL, fill_oracle},
    [SHOAL_OP_NORMAL]        = {0, NULL, normal_oracle},
    [SHOAL_OP_OPTIM]         = {0, optim_prepare, optim_shard_oracle},
};
