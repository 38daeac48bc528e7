/* SPDX-License-Identifier: BSD-3-Clause */
/* Activations and their derivatives, element by element. */
#include <math.h>

#include "kernels/cpu/ref.h"

static const float sqrt_half       = 0.70710678118654752f;
static const float sqrt_2_over_pi  = 0.79788456080286536f;
static const float inv_sqrt_2pi    = 0.39894228040143268f;
static const float gelu_tanh_cubic = 0.044715f;

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float gelu(float x, shoal_act_kind_t act)
{
    if (act == SHOAL_ACT_GELU_TANH) {
        return 0.5f * x * (1.0f + tanhf(sqrt_2_over_pi * (x + gelu_tanh_cubic * x * x * x)));
    }
    return 0.5f * x * (1.0f + erff(x * sqrt_half));
}

static float gelu_derivative(float x, shoal_act_kind_t act)
{
    if (act == SHOAL_ACT_GELU_TANH) {
        float th = tanhf(sqrt_2_over_pi * (x + gelu_tanh_cubic * x * x * x));
        return 0.5f * (1.0f + th) + 0.5f * x * (1.0f - th * th) * sqrt_2_over_pi * (1.0f + 3.0f * gelu_tanh_cubic * x * x);
    }
    return 0.5f * (1.0f + erff(x * sqrt_half)) + x * inv_sqrt_2pi * expf(-0.5f * x * x);
}

shoal_status_t shoal_ref_act(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t      N = op->act.N, F = op->act.F;
    bool        swiglu = op->act.act == SHOAL_ACT_SWIGLU;
    size_t      ldx    = swiglu ? 2 * F : F;
    const void *x      = args[0]; /* (N,F), or (N,2F) for SwiGLU */
    void       *y      = args[1]; /* (N,F) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t n = 0; n < N; n++) {
        for (size_t f = 0; f < F; f++) {
            float gate  = ref_load(x, op->dtype, n * ldx + f);
            float value = swiglu ? gate * sigmoid(gate) * ref_load(x, op->dtype, n * ldx + F + f) : gelu(gate, op->act.act);
            ref_store(y, op->dtype, n * F + f, value);
        }
    }
    return SHOAL_OK;
}

/* y = silu(gate) * up, with silu' = sigmoid (1 + gate (1 - sigmoid)). */
static void swiglu_bwd_element(const shoal_op_t *op, const void *x, float dy, size_t gate_at, size_t up_at, void *dx)
{
    float gate = ref_load(x, op->dtype, gate_at), up = ref_load(x, op->dtype, up_at), sig = sigmoid(gate);
    ref_store(dx, op->dtype, gate_at, dy * up * sig * (1.0f + gate * (1.0f - sig)));
    ref_store(dx, op->dtype, up_at, dy * gate * sig);
}

shoal_status_t shoal_ref_act_bwd(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t      N = op->act.N, F = op->act.F;
    const void *x  = args[0]; /* (N,F), or (N,2F) for SwiGLU */
    const void *dy = args[1]; /* (N,F) */
    void       *dx = args[2]; /* like x, may be x; GELU: may be dy */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t n = 0; n < N; n++) {
        for (size_t i = n * F; i < (n + 1) * F; i++) {
            float dyi = ref_load(dy, op->dtype, i);
            if (op->act.act == SHOAL_ACT_SWIGLU) {
                swiglu_bwd_element(op, x, dyi, i + n * F, i + n * F + F, dx);
            } else {
                ref_store(dx, op->dtype, i, dyi * gelu_derivative(ref_load(x, op->dtype, i), op->act.act));
            }
        }
    }
    return SHOAL_OK;
}
