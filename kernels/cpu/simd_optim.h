/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The optimizer's step: the formulas of kernels/optim.h on vectors, one pass over parameters, moments and gradient, with
 * clipping before and the low-precision copy after. Elements are cut into segments that decay or do not, as the op's
 * ranges (ascending, disjoint) say.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_OPTIM_H
#define SHOAL_KERNELS_CPU_SIMD_OPTIM_H

#include "kernels/cpu/simd_kernel.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/optim.h"

typedef struct {
    vf_t p, m, v, tau;
} optim_state_t;

SIMD_INLINE void optim_adamw(const shoal_optim_consts_t *k, vf_t g, vf_t decay, optim_state_t *s)
{
    s->p *= decay;
    s->m = v_set(k->beta1) * s->m + v_set(1.0f - k->beta1) * g;
    s->v = v_set(k->beta2) * s->v + v_set(1.0f - k->beta2) * g * g;
    vf_t root = v_sqrt(s->v / v_set(k->correction2)) + v_set(k->eps);
    s->p -= v_set(k->lr / k->correction1) * s->m / root;
}

SIMD_INLINE void optim_dana(const shoal_optim_consts_t *k, vf_t g, vf_t decay, optim_state_t *s)
{
    const vf_t a = v_set(k->alpha);
    s->m = v_fma(a, g - s->m, s->m);
    s->v = v_fma(a * g, g, v_set(1.0f - k->alpha) * s->v);
    vf_t n      = v_set(1.0f) / (v_sqrt(s->v) + v_set(k->eps));
    vf_t moment = v_abs(s->m) * n;
    vf_t f      = v_min(v_set(k->snr_clip), v_set(k->growth) * moment);
    s->p -= v_set(k->lr) * v_fma(g, n, v_times_sign(f + moment, s->m));
    s->p *= decay;
}

SIMD_INLINE void optim_dana_star(const shoal_optim_consts_t *k, vf_t g, vf_t decay, optim_state_t *s)
{
    const vf_t a = v_set(k->alpha), one = v_set(1.0f);
    s->m = v_fma(a, g - s->m, s->m);
    s->v = v_fma(a * g, g, v_set(1.0f - k->alpha) * s->v);
    vf_t D = v_sqrt(s->v) + v_set(k->eps);
    s->tau = v_fma(a, v_abs(g) / (v_abs(g) + D) - s->tau, s->tau);
    vf_t half   = v_min(v_set(0.5f), s->tau);
    vf_t R      = v_max(v_set(1.0f / (1.0f + k->t)), half / (one - half));
    vf_t n      = v_sqrt(R) / D;
    vf_t moment = v_abs(s->m) * n;
    vf_t growth = v_pow(v_max(one, s->tau * v_set(k->t)), v_set(1.0f - k->kappa));
    vf_t f      = v_min(v_set(k->snr_clip), growth * moment / R);
    s->p -= v_set(k->lr) * v_fma(g, n, v_times_sign(v_fma(R, f, moment), s->m));
    s->p *= decay;
}

typedef struct {
    shoal_optim_consts_t k;
    float                clip;  /* what gradients are multiplied by */
    float                decay; /* what decaying parameters are multiplied by */
} optim_step_t;

static optim_step_t optim_step(const simd_job_t *job)
{
    const shoal_op_t *op      = job->op;
    const float      *scalars = job->args[7];
    const float       t       = scalars[SHOAL_SCALAR_STEP];
    const float       norm    = sqrtf(*(const float *)job->args[6]);
    optim_step_t      step    = {
        .k = {
            .lr          = scalars[SHOAL_SCALAR_LR],
            .t           = t,
            .alpha       = op->optim.delta / (op->optim.delta + t),
            .kappa       = op->optim.kappa,
            .snr_clip    = op->optim.snr_clip,
            .eps         = op->optim.eps,
            .beta1       = op->optim.beta1,
            .beta2       = op->optim.beta2,
            .correction1 = (float)(1.0 - pow((double)op->optim.beta1, (double)t)),
            .correction2 = (float)(1.0 - pow((double)op->optim.beta2, (double)t)),
            .growth      = powf(1.0f + t, 1.0f - op->optim.kappa),
        },
        .clip  = op->optim.clip > 0.0f ? fminf(1.0f, op->optim.clip / (norm + 1e-6f)) : 1.0f,
        .decay = scalars[SHOAL_SCALAR_DECAY],
    };
    return step;
}

/* Elements first .. last-1, all of which decay by the same factor. `kind` stands for the family: AdamW, Dana, Dana-Star. */
SIMD_INLINE void optim_segment(const simd_job_t *job, const optim_step_t *step, size_t first, size_t last, float decay,
                               shoal_optim_kind_t kind, shoal_dtype_t dtype)
{
    float      *p = job->args[0], *m = job->args[1], *v = job->args[2], *tau = job->args[3];
    const float *grad = job->args[4];
    void       *copy = job->args[5];
    for (size_t i = first, count; i < last; i += count) {
        count = simd_count(last - i);
        vf_t          g = load_n(grad, i, count, SHOAL_F32) * v_set(step->clip);
        optim_state_t s = {
            .p = load_n(p, i, count, SHOAL_F32), .m = load_n(m, i, count, SHOAL_F32), .v = load_n(v, i, count, SHOAL_F32)};
        if (kind == SHOAL_OPTIM_ADAMW) {
            optim_adamw(&step->k, g, v_set(decay), &s);
        } else if (kind == SHOAL_OPTIM_ADANA) {
            optim_dana(&step->k, g, v_set(decay), &s);
        } else {
            s.tau = load_n(tau, i, count, SHOAL_F32);
            optim_dana_star(&step->k, g, v_set(decay), &s);
            store_n(tau, i, count, s.tau, SHOAL_F32);
        }
        store_n(p, i, count, s.p, SHOAL_F32);
        store_n(m, i, count, s.m, SHOAL_F32);
        store_n(v, i, count, s.v, SHOAL_F32);
        if (copy != NULL) {
            store_n(copy, i, count, s.p, dtype);
        }
    }
}

/* Elements first .. last-1, cut where decay begins or ends. */
SIMD_INLINE void optim_elements(const simd_job_t *job, size_t first, size_t last, shoal_optim_kind_t kind, shoal_dtype_t dtype)
{
    const shoal_op_t  *op   = job->op;
    const optim_step_t step = optim_step(job);
    size_t             at   = first;
    for (size_t r = 0; r < op->optim.count; r++) {
        size_t begin = op->optim.ranges[r].first, end = begin + op->optim.ranges[r].count;
        begin = begin < at ? at : begin > last ? last : begin;
        end   = end < begin ? begin : end > last ? last : end;
        optim_segment(job, &step, at, begin, 1.0f, kind, dtype);
        optim_segment(job, &step, begin, end, step.decay, kind, dtype);
        at = end;
    }
    optim_segment(job, &step, at, last, 1.0f, kind, dtype);
}

SIMD_INLINE void optim_family(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    switch (job->op->optim.optim) {
    case SHOAL_OPTIM_ADAMW:
        optim_elements(job, first, last, SHOAL_OPTIM_ADAMW, dtype);
        break;
    case SHOAL_OPTIM_ADANA:
    case SHOAL_OPTIM_DANA_MK4:
        optim_elements(job, first, last, SHOAL_OPTIM_ADANA, dtype);
        break;
    case SHOAL_OPTIM_DANA_STAR:
    case SHOAL_OPTIM_DANA_STAR_MK4:
        optim_elements(job, first, last, SHOAL_OPTIM_DANA_STAR, dtype);
        break;
    }
}
SIMD_BY_DTYPE(optim_family)

static shoal_status_t optim_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->optim.n, 64, SIMD_PICK(optim_family, op->dtype));
    return SHOAL_OK;
}

#endif
