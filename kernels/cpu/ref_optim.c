/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One optimizer step over a flat shard. kernels/optim.h has the formulas; here is what is the same for all elements, and
 * the walk over the ranges that decay.
 */
#include <math.h>

#include "kernels/cpu/ref.h"
#include "kernels/optim.h"

/* The step's constants, and the factor that clips the gradient. */
static shoal_optim_consts_t step_consts(const shoal_op_t *op, const float *scalars, const float *gnorm_sq, float *clip_p)
{
    double t = (double)scalars[SHOAL_SCALAR_STEP], delta = (double)op->optim.delta, kappa = (double)op->optim.kappa;

    *clip_p = 1;
    if (op->optim.clip > 0) {
        *clip_p = fminf(1, op->optim.clip / (sqrtf(gnorm_sq[0]) + 1e-6f));
    }
    return (shoal_optim_consts_t){
        .lr          = scalars[SHOAL_SCALAR_LR],
        .t           = scalars[SHOAL_SCALAR_STEP],
        .alpha       = (float)(delta / (delta + t)),
        .kappa       = op->optim.kappa,
        .snr_clip    = op->optim.snr_clip,
        .eps         = op->optim.eps,
        .beta1       = op->optim.beta1,
        .beta2       = op->optim.beta2,
        .correction1 = (float)(1.0 - pow((double)op->optim.beta1, t)),
        .correction2 = (float)(1.0 - pow((double)op->optim.beta2, t)),
        .growth      = (float)pow(1.0 + t, 1.0 - kappa),
    };
}

/* Updates elements first .. end - 1, which all decay by the same factor. */
static void update_span(const shoal_op_t *op, void *const *args, const shoal_optim_consts_t *consts, float clip, float decay,
                        ref_span_t span)
{
    float       *p = args[0], *m = args[1], *v = args[2], *tau = args[3];
    const float *grad = args[4];
    void        *copy = args[5]; /* dtype (n) or NULL */

    for (size_t i = span.first; i < span.end; i++) {
        float g = clip * grad[i];
        switch (op->optim.optim) {
        case SHOAL_OPTIM_ADAMW:
            shoal_adamw_element(consts, g, decay, &p[i], &m[i], &v[i]);
            break;
        case SHOAL_OPTIM_ADANA:
        case SHOAL_OPTIM_DANA_MK4:
            shoal_dana_element(consts, g, decay, &p[i], &m[i], &v[i]);
            break;
        case SHOAL_OPTIM_DANA_STAR:
        case SHOAL_OPTIM_DANA_STAR_MK4:
            shoal_dana_star_element(consts, g, decay, &p[i], &m[i], &v[i], &tau[i]);
            break;
        }
        if (copy != NULL) {
            ref_store(copy, op->dtype, i, p[i]);
        }
    }
}

static size_t clamp(size_t x, ref_span_t span)
{
    return x < span.first ? span.first : x > span.end ? span.end : x;
}

/* Part of the shard: alternates between what lies before a range, undecayed, and the range. Ranges ascend. */
static void update_part(const shoal_op_t *op, void *const *args, const shoal_optim_consts_t *consts, float clip,
                        ref_span_t part)
{
    const float *scalars = args[7];
    size_t       done    = part.first;
    for (size_t r = 0; r < op->optim.count; r++) {
        size_t first = clamp(op->optim.ranges[r].first, part);
        size_t end   = clamp(op->optim.ranges[r].first + op->optim.ranges[r].count, part);
        if (first < end) {
            update_span(op, args, consts, clip, 1, (ref_span_t){done, first});
            update_span(op, args, consts, clip, scalars[SHOAL_SCALAR_DECAY], (ref_span_t){first, end});
            done = end;
        }
    }
    update_span(op, args, consts, clip, 1, (ref_span_t){done, part.end});
}

shoal_status_t shoal_ref_optim(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    float                clip;
    shoal_optim_consts_t consts = step_consts(op, args[7], args[6], &clip);

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static, 1)
    for (int part = 0; part < cpu->nthreads; part++) {
        update_part(op, args, &consts, clip, ref_part(op->optim.n, part, cpu->nthreads));
    }
    return SHOAL_OK;
}
