/* SPDX-License-Identifier: BSD-3-Clause */
/* Cross-entropy over the vocabulary, and the sums that turn per-row losses and gradients into the step's scalars. */
#include <math.h>

#include "kernels/cpu/ref.h"

/* A row's softmax is exp(logit - max) / sum. Through lse it would lose the digits that a large lse has before the point. */
typedef struct {
    float  max;
    double sum;
} softmax_t;

static softmax_t row_softmax(const void *logits, shoal_dtype_t dtype, size_t first, size_t V)
{
    softmax_t softmax = {-INFINITY, 0};
    for (size_t v = 0; v < V; v++) {
        softmax.max = fmaxf(softmax.max, ref_load(logits, dtype, first + v));
    }
    for (size_t v = 0; v < V; v++) {
        softmax.sum += (double)expf(ref_load(logits, dtype, first + v) - softmax.max);
    }
    return softmax;
}

shoal_status_t shoal_ref_xent(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t         V = op->xent.V;
    float          z_loss = op->xent.z_loss, grad_scale = op->xent.grad_scale;
    void          *logits  = args[0]; /* (n,V) ld; dlogits when backward */
    const int32_t *targets = args[1]; /* (n) */
    float         *loss    = args[2]; /* (n) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t i = 0; i < op->xent.n; i++) {
        size_t    first = i * op->xent.ld, target = first + (size_t)targets[i];
        softmax_t softmax = row_softmax(logits, op->dtype, first, V);
        float     lse     = softmax.max + (float)log(softmax.sum);
        float     scale   = (1.0f + 2.0f * z_loss * lse) / (float)softmax.sum;
        loss[i]           = lse - ref_load(logits, op->dtype, target) + z_loss * lse * lse;
        for (size_t j = first; op->xent.backward && j < first + V; j++) {
            float p      = scale * expf(ref_load(logits, op->dtype, j) - softmax.max);
            float onehot = j == target ? 1 : 0;
            ref_store(logits, op->dtype, j, grad_scale * (p - onehot));
        }
    }
    return SHOAL_OK;
}

size_t shoal_ref_sum_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    (void)op;
    return (size_t)cpu->nthreads * sizeof(double);
}

/* SUM and SUMSQ. */
shoal_status_t shoal_ref_sum(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    const float *x        = args[0]; /* (n) */
    float       *out      = args[1]; /* (1) */
    double      *partials = workspace; /* (nthreads) */
    bool         square   = op->kind == SHOAL_OP_SUMSQ;

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        ref_span_t span = ref_part(op->reduce.n, part, cpu->nthreads);
        double     sum  = 0;
        for (size_t i = span.first; i < span.end; i++) {
            sum += square ? (double)x[i] * (double)x[i] : (double)x[i];
        }
        partials[part] = sum;
    }
    double total = 0;
    for (int part = 0; part < cpu->nthreads; part++) {
        total += partials[part];
    }
    out[0] = (float)((double)op->reduce.scale * total + (op->reduce.accumulate ? (double)out[0] : 0));
    return SHOAL_OK;
}
