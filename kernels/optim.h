/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The optimizers' formulas, element by element, and as inline functions for the reference kernels.
 * The vector kernels and CUDA's (optim.cu) write them in their own operations. g is the
 * gradient after clipping: gradient * min(1, clip / (sqrt(gnorm_sq) + 1e-6)). t counts steps from 1, lr = gamma s_t.
 *
 * AdamW (Loshchilov and Hutter 2019), decoupled decay before the update:
 *   p *= decay;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)
 *
 * ADana, Dana-MK4, Dana-Star, Dana-Star-MK4 (Ferbach et al., arXiv 2602.05298), a = delta/(delta+t):
 *   m += a (g - m);  v = (1-a) v + a g^2;  D = sqrt(v) + eps
 *   without tau:  n = 1/D;  f = min((1+t)^(1-kappa) |m| n, c);  p -= lr (g n + sign(m) (f + |m| n))
 *   with tau:     tau += a (|g|/(|g|+D) - tau);  s = min(tau, 1/2);  q = s/(1-s);  R = max(q, 1/(1+t));
 *                 T = max(tau t, 1);  n = sqrt(R)/D;  f = min(T^(1-kappa) |m| n / R, c);
 *                 p -= lr (g n + sign(m) (R f + |m| n))
 *   then p *= decay where the parameter decays. c is infinite for ADana and Dana-Star.
 */
#ifndef SHOAL_KERNELS_OPTIM_H
#define SHOAL_KERNELS_OPTIM_H

#include <math.h>

#include "base/dtype.h"

/* What is the same for all elements of a step. */
typedef struct {
    float lr, t, alpha;          /* alpha = delta/(delta+t) */
    float kappa, snr_clip, eps;
    float beta1, beta2, correction1, correction2; /* AdamW; corrections 1-b^t */
    float growth;                /* (1+t)^(1-kappa) */
} shoal_optim_consts_t;

SHOAL_INLINE void shoal_adamw_element(const shoal_optim_consts_t *k, float g, float decay, float *p, float *m, float *v)
{
    *p *= decay;
    *m = k->beta1 * *m + (1.0f - k->beta1) * g;
    *v = k->beta2 * *v + (1.0f - k->beta2) * g * g;
    *p -= k->lr * (*m / k->correction1) / (sqrtf(*v / k->correction2) + k->eps);
}

SHOAL_INLINE float shoal_sign(float x)
{
    return (float)(x > 0.0f) - (float)(x < 0.0f);
}

SHOAL_INLINE void shoal_dana_element(const shoal_optim_consts_t *k, float g, float decay, float *p, float *m, float *v)
{
    *m += k->alpha * (g - *m);
    *v = (1.0f - k->alpha) * *v + k->alpha * g * g;
    float n      = 1.0f / (sqrtf(*v) + k->eps);
    float moment = fabsf(*m) * n;
    float f      = fminf(k->growth * moment, k->snr_clip);
    *p -= k->lr * (g * n + shoal_sign(*m) * (f + moment));
    *p *= decay;
}

SHOAL_INLINE void shoal_dana_star_element(const shoal_optim_consts_t *k, float g, float decay, float *p, float *m, float *v,
                                          float *tau)
{
    *m += k->alpha * (g - *m);
    *v = (1.0f - k->alpha) * *v + k->alpha * g * g;
    float D = sqrtf(*v) + k->eps;
    *tau += k->alpha * (fabsf(g) / (fabsf(g) + D) - *tau);
    float s      = fminf(*tau, 0.5f);
    float R      = fmaxf(s / (1.0f - s), 1.0f / (1.0f + k->t));
    float n      = sqrtf(R) / D;
    float moment = fabsf(*m) * n;
    float f      = fminf(powf(fmaxf(*tau * k->t, 1.0f), 1.0f - k->kappa) * moment / R, k->snr_clip);
    *p -= k->lr * (g * n + shoal_sign(*m) * (R * f + moment));
    *p *= decay;
}

#endif
