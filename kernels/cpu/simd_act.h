/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Activations: elementwise, one pass. GELU is exact, by the normal distribution function; the tanh form uses
 * (1 + tanh u) / 2 = sigmoid(2u), which loses nothing where tanh nears -1.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_ACT_H
#define SHOAL_KERNELS_CPU_SIMD_ACT_H

#include "kernels/cpu/simd_kernel.h"
#include "kernels/cpu/simd_math.h"

/* 2u = 2 sqrt(2/pi) (x + 0.044715 x^3), and its derivative. */
#define ACT_TANH_1 1.59576912160573f
#define ACT_TANH_3 0.0713548162726f

SIMD_INLINE vf_t act_gelu(vf_t x)
{
    vf_t cdf, density;
    v_normal(x, &cdf, &density);
    return x * cdf;
}

SIMD_INLINE vf_t act_gelu_bwd(vf_t x)
{
    vf_t cdf, density;
    v_normal(x, &cdf, &density);
    return v_fma(x, density, cdf);
}

SIMD_INLINE vf_t act_gelu_tanh(vf_t x)
{
    vf_t u = x * v_fma(x * x, v_set(ACT_TANH_3), v_set(ACT_TANH_1));
    return x * v_sigmoid(u);
}

SIMD_INLINE vf_t act_gelu_tanh_bwd(vf_t x)
{
    x = v_max(v_set(-1e4f), v_min(v_set(1e4f), x)); /* x^2 stays finite: 0 times infinity below would be NaN */
    vf_t u  = x * v_fma(x * x, v_set(ACT_TANH_3), v_set(ACT_TANH_1));
    vf_t du = v_fma(x * x, v_set(3.0f * ACT_TANH_3), v_set(ACT_TANH_1));
    vf_t s, rest;
    v_sigmoid_both(u, &s, &rest);
    return v_fma(x * du, s * rest, s);
}

/* Elements first .. last-1 of y = f(x). */
#define ACT_ELEMENTS(name, f)                                                                                       \
    SIMD_INLINE void name(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)     \
    {                                                                                                               \
        (void)thread;                                                                                               \
        SIMD_FOR (i, count, last - first) {                                                                         \
            store_n(job->args[1], first + i, count, f(load_n(job->args[0], first + i, count, dtype)), dtype);       \
        }                                                                                                           \
    }                                                                                                               \
    SIMD_BY_DTYPE(name)

/* dx = dy f'(x). */
#define ACT_BWD_ELEMENTS(name, f)                                                                                   \
    SIMD_INLINE void name(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)     \
    {                                                                                                               \
        (void)thread;                                                                                               \
        SIMD_FOR (i, count, last - first) {                                                                         \
            vf_t slope = f(load_n(job->args[0], first + i, count, dtype));                                          \
            store_n(job->args[2], first + i, count, slope * load_n(job->args[1], first + i, count, dtype), dtype);  \
        }                                                                                                           \
    }                                                                                                               \
    SIMD_BY_DTYPE(name)

ACT_ELEMENTS(gelu_elements, act_gelu)
ACT_ELEMENTS(gelu_tanh_elements, act_gelu_tanh)
ACT_BWD_ELEMENTS(gelu_bwd_elements, act_gelu_bwd)
ACT_BWD_ELEMENTS(gelu_tanh_bwd_elements, act_gelu_tanh_bwd)

SIMD_INLINE void swiglu_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    const size_t F = job->op->act.F;
    for (size_t n = first; n < last; n++) {
        SIMD_FOR (f, count, F) {
            vf_t gate = load_n(job->args[0], 2 * n * F + f, count, dtype);
            vf_t up   = load_n(job->args[0], (2 * n + 1) * F + f, count, dtype);
            store_n(job->args[1], n * F + f, count, gate * v_sigmoid(gate) * up, dtype);
        }
    }
}
SIMD_BY_DTYPE(swiglu_rows)

/* y = gate s up with s = sigmoid(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s. */
SIMD_INLINE void swiglu_bwd_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    const size_t F = job->op->act.F;
    for (size_t n = first; n < last; n++) {
        SIMD_FOR (f, count, F) {
            vf_t gate  = load_n(job->args[0], 2 * n * F + f, count, dtype);
            vf_t up    = load_n(job->args[0], (2 * n + 1) * F + f, count, dtype);
            vf_t dy    = load_n(job->args[1], n * F + f, count, dtype);
            vf_t s, rest;
            v_sigmoid_both(gate, &s, &rest);
            store_n(job->args[2], 2 * n * F + f, count, dy * s * up * v_fma(gate, rest, v_set(1.0f)), dtype);
            store_n(job->args[2], (2 * n + 1) * F + f, count, dy * s * gate, dtype);
        }
    }
}
SIMD_BY_DTYPE(swiglu_bwd_rows)

static shoal_status_t act_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job   = simd_job(cpu, op, args, workspace);
    size_t     nelem = op->act.N * op->act.F;
    switch (op->act.act) {
    case SHOAL_ACT_GELU:
        simd_run_rows(&job, nelem, SIMD_WIDTH, SIMD_PICK(gelu_elements, op->dtype));
        return SHOAL_OK;
    case SHOAL_ACT_GELU_TANH:
        simd_run_rows(&job, nelem, SIMD_WIDTH, SIMD_PICK(gelu_tanh_elements, op->dtype));
        return SHOAL_OK;
    case SHOAL_ACT_SWIGLU:
        simd_run_rows(&job, op->act.N, 1, SIMD_PICK(swiglu_rows, op->dtype));
        return SHOAL_OK;
    }
    return SHOAL_ERR_INVALID;
}

static shoal_status_t act_bwd_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job   = simd_job(cpu, op, args, workspace);
    size_t     nelem = op->act.N * op->act.F;
    switch (op->act.act) {
    case SHOAL_ACT_GELU:
        simd_run_rows(&job, nelem, SIMD_WIDTH, SIMD_PICK(gelu_bwd_elements, op->dtype));
        return SHOAL_OK;
    case SHOAL_ACT_GELU_TANH:
        simd_run_rows(&job, nelem, SIMD_WIDTH, SIMD_PICK(gelu_tanh_bwd_elements, op->dtype));
        return SHOAL_OK;
    case SHOAL_ACT_SWIGLU:
        simd_run_rows(&job, op->act.N, 1, SIMD_PICK(swiglu_bwd_rows, op->dtype));
        return SHOAL_OK;
    }
    return SHOAL_ERR_INVALID;
}

#endif
