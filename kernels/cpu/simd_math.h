/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Elementary functions on vectors. Polynomials are minimax fits; errors are quoted against exact values and hold for
 * every finite argument. NaN gives NaN, and infinities give the limits.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_MATH_H
#define SHOAL_KERNELS_CPU_SIMD_MATH_H

#include "kernels/cpu/simd.h"

#define SIMD_LOG2E 1.44269504088896341f
#define SIMD_LN2   0.693147180559945309f

/*
 * 2^(high + low), |low| tiny: the sum keeps bits that one float could not. Within 1.5 ulp for -250 <= high <= 129, with 0 and
 * infinity where they belong. The polynomial is split in two chains, which shortens the wait for it.
 */
SIMD_INLINE vf_t v_exp2_sum(vf_t high, vf_t low)
{
    vf_t n  = v_round(high);
    vf_t r  = (high - n) + low;
    vf_t r2 = r * r;
    vf_t a  = v_fma(v_set(1.53533605e-4f), r, v_set(1.33988750e-3f));
    vf_t b  = v_fma(v_set(9.61843692e-3f), r, v_set(5.55033237e-2f));
    vf_t c  = v_fma(v_set(2.40226477e-1f), r, v_set(6.93147182e-1f));
    vf_t p  = v_fma(v_fma(a, r2, b), r2, c);
    return v_scale(v_fma(p, r, v_set(1.0f)), n);
}

/* 2^x for x <= 0, down to -inf. */
SIMD_INLINE vf_t v_exp2_below_one(vf_t x)
{
    return v_exp2_sum(v_max(v_set(-151.0f), x), v_set(0.0f));
}

/* e^x within 2 ulp for -170 <= x <= 89. */
SIMD_INLINE vf_t v_exp_bounded(vf_t x)
{
    const vf_t log2e = v_set(SIMD_LOG2E);
    vf_t high = x * log2e;
    vf_t low  = v_fma(x, log2e, -high) + x * v_set(1.92596299e-8f); /* log2(e) minus its float */
    return v_exp2_sum(high, low);
}

/* e^x within 2 ulp. The clamp keeps infinity out of the correction, where it would meet its negative. */
SIMD_INLINE vf_t v_exp(vf_t x)
{
    return v_exp_bounded(v_max(v_set(-105.0f), v_min(v_set(89.0f), x)));
}

/* x^y within 3 ulp for normal x > 0 and |y log2 x| < 126. The exponent's part of the logarithm is kept apart, exact. */
SIMD_INLINE vf_t v_pow(vf_t x, vf_t y)
{
    const vi_t sqrt_half = v_iset(0x3f3504f3);
    vi_t bits     = v_bits(x);
    vi_t exponent = v_iexponent(v_isub(bits, sqrt_half));
    vf_t e        = v_from_int(exponent);
    /* The mantissa in [sqrt(1/2), sqrt(2)): the bits less the exponent, which stands above bit 23. */
    vf_t m = v_from_bits(v_isub(bits, v_iand(v_isub(bits, sqrt_half), v_iset((int)0xff800000u))));
    vf_t s = (m - v_set(1.0f)) / (m + v_set(1.0f));
    vf_t z = s * s;
    vf_t p = v_set(0.320598898f); /* 2 log2(e) (1 + z/3 + z^2/5 + ...), z <= 0.0295 */
    p = v_fma(p, z, v_set(0.412198583f));
    p = v_fma(p, z, v_set(0.577078016f));
    p = v_fma(p, z, v_set(0.961796694f));
    p = v_fma(p, z, v_set(2.88539008f));
    vf_t high = y * e;
    vf_t low  = v_fma(y, e, -high);
    vf_t rest = y * (p * s);
    vf_t n    = v_round(high + rest);
    return v_exp2_sum(n, ((high - n) + rest) + low);
}

/* *s_p = 1 / (1 + e^-x) and *rest_p = 1 - s, each within 3 ulp: the difference would lose the digits of a small rest. */
SIMD_INLINE void v_sigmoid_both(vf_t x, vf_t *s_p, vf_t *rest_p)
{
    vf_t e  = v_exp_bounded(v_max(v_set(-87.0f), v_min(v_set(87.0f), -x)));
    *s_p    = v_reciprocal(v_set(1.0f) + e);
    *rest_p = e * *s_p;
}

SIMD_INLINE vf_t v_sigmoid(vf_t x)
{
    vf_t s, rest;
    v_sigmoid_both(x, &s, &rest);
    return s;
}

/*
 * The normal distribution: *cdf_p = (1 + erf(x / sqrt 2)) / 2 and *density_p = exp(-x^2 / 2) / sqrt(2 pi), which exact GELU
 * and its derivative need together. The upper tail is e^(-x^2/2) t P(t) with t = 1 / (1 + 0.3 |x|); absolute error below
 * 6e-8 (erf: 1.2e-7), and the lower tail keeps its relative accuracy.
 */
SIMD_INLINE void v_normal(vf_t x, vf_t *cdf_p, vf_t *density_p)
{
    vf_t z  = v_min(v_set(13.0f), v_abs(x)); /* from 13 on both are 0 in fp32 */
    vf_t e  = v_exp_bounded(z * z * v_set(-0.5f));
    vf_t t  = v_reciprocal(v_fma(z, v_set(0.3f), v_set(1.0f)));
    vf_t t2 = t * t;
    vf_t a  = v_fma(v_set(3.65639475e-2f), t, v_set(-1.60693874e-1f));
    vf_t b  = v_fma(v_set(2.11957858e-1f), t, v_set(-5.84208455e-2f));
    vf_t c  = v_fma(v_set(1.30820124e-1f), t, v_set(9.93119473e-2f));
    vf_t d  = v_fma(v_set(1.20835909e-1f), t, v_set(1.19624951e-1f));
    vf_t p  = v_fma(v_fma(a, t2, b), t2 * t2, v_fma(c, t2, d));
    vf_t tail  = e * (p * t);
    *cdf_p     = v_if_negative(x, tail, v_set(1.0f) - tail);
    *density_p = e * v_set(0.398942280f);
}

#endif
