/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vector of floats as wide as the instruction set, and what the kernels need of it. The SIMD kernels are written once,
 * in the headers simd_*.h, and compiled once per instruction set: simd_avx2.c and simd_avx512.c define nothing but
 * the name under which the result enters the registry; the compiler's own macros choose the vector here.
 *
 * Arithmetic uses the operators of GCC's vector extension; the functions below cover what has no operator. Storage is fp32
 * or bf16, named by a shoal_dtype_t that is a constant wherever speed matters, so that the branch on it is gone after
 * inlining. A row whose length is not a multiple of the width ends in a partial vector: `load_n` and `store_n` touch
 * only the elements that exist, and lanes beyond them read as zero.
 *
 * NaN: v_min and v_max return their second operand when either is a NaN, as the instructions do. Clamps put the limit
 * first, so a NaN passes through.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_H
#define SHOAL_KERNELS_CPU_SIMD_H

#include <immintrin.h>

#include "kernels/cpu/cpu.h"

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

/* Visits a row of n elements: i is the first element of the vector, count how many of its lanes exist. */
#define SIMD_FOR(i, count, n) \
    for (size_t i = 0, count; i < (n) && (count = simd_count((n) - i), 1); i += SIMD_WIDTH)

#ifdef __AVX512F__

enum { SIMD_WIDTH = 16 };
typedef __m512  vf_t;
typedef __m512i vi_t;

SIMD_INLINE vf_t v_set(float x) { return _mm512_set1_ps(x); }
SIMD_INLINE vf_t v_fma(vf_t a, vf_t b, vf_t c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_INLINE vf_t v_fnma(vf_t a, vf_t b, vf_t c) { return _mm512_fnmadd_ps(a, b, c); }
SIMD_INLINE vf_t v_min(vf_t a, vf_t b) { return _mm512_min_ps(a, b); }
SIMD_INLINE vf_t v_max(vf_t a, vf_t b) { return _mm512_max_ps(a, b); }
SIMD_INLINE vf_t v_abs(vf_t a) { return _mm512_abs_ps(a); }
SIMD_INLINE vf_t v_sqrt(vf_t a) { return _mm512_sqrt_ps(a); }
SIMD_INLINE vf_t v_round(vf_t a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* a * b - c in even lanes, a * b + c in odd ones; the other way round below. */
SIMD_INLINE vf_t v_fmaddsub(vf_t a, vf_t b, vf_t c) { return _mm512_fmaddsub_ps(a, b, c); }
SIMD_INLINE vf_t v_fmsubadd(vf_t a, vf_t b, vf_t c) { return _mm512_fmsubadd_ps(a, b, c); }
SIMD_INLINE vf_t v_even_twice(vf_t a) { return _mm512_moveldup_ps(a); }
SIMD_INLINE vf_t v_odd_twice(vf_t a) { return _mm512_movehdup_ps(a); }
SIMD_INLINE vf_t v_swap_pairs(vf_t a) { return _mm512_permute_ps(a, 0xb1); }

/* Where x < 0, a; elsewhere b. */
SIMD_INLINE vf_t v_if_negative(vf_t x, vf_t a, vf_t b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), b, a);
}

/* The sign of `of` (-1, 0 or 1) times x. */
SIMD_INLINE vf_t v_times_sign(vf_t x, vf_t of)
{
    const vf_t zero = _mm512_setzero_ps();
    vf_t positive = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(of, zero, _CMP_GT_OQ), x);
    return _mm512_mask_sub_ps(positive, _mm512_cmp_ps_mask(of, zero, _CMP_LT_OQ), zero, x);
}

/* Lanes first and after become -inf: keys that a query may not see. */
SIMD_INLINE vf_t v_mask_from(vf_t x, size_t first)
{
    __mmask16 hidden = first >= 16 ? 0 : (__mmask16)(0xffffu << first);
    return _mm512_mask_blend_ps(hidden, x, _mm512_set1_ps(-__builtin_inff()));
}

/* About one ulp; x positive, finite and normal. */
SIMD_INLINE vf_t v_reciprocal(vf_t x)
{
    vf_t r = _mm512_rcp14_ps(x);
    return r * _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f));
}

/* x * 2^n, n integral and within the range of an int. */
SIMD_INLINE vf_t v_scale(vf_t x, vf_t n) { return _mm512_scalef_ps(x, n); }

SIMD_INLINE vi_t v_bits(vf_t x) { return _mm512_castps_si512(x); }
SIMD_INLINE vf_t v_from_bits(vi_t x) { return _mm512_castsi512_ps(x); }
SIMD_INLINE vi_t v_iset(int x) { return _mm512_set1_epi32(x); }
SIMD_INLINE vi_t v_isub(vi_t a, vi_t b) { return _mm512_sub_epi32(a, b); }
SIMD_INLINE vi_t v_iand(vi_t a, vi_t b) { return _mm512_and_si512(a, b); }
SIMD_INLINE vi_t v_iexponent(vi_t a) { return _mm512_srai_epi32(a, 23); }
SIMD_INLINE vf_t v_from_int(vi_t a) { return _mm512_cvtepi32_ps(a); }

SIMD_INLINE vf_t v_load_f32(const float *p) { return _mm512_loadu_ps(p); }
SIMD_INLINE void v_store_f32(float *p, vf_t x) { _mm512_storeu_ps(p, x); }

SIMD_INLINE vf_t v_widen(__m256i half)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Round to nearest even as shoal_f32_to_bf16 does. */
SIMD_INLINE __m256i v_narrow(vf_t x)
{
    __m512i bits    = _mm512_castps_si512(x);
    __m512i odd     = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    __mmask16 nan   = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded         = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x00400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

SIMD_INLINE vf_t v_load_bf16(const shoal_bf16_t *p) { return v_widen(_mm256_loadu_si256((const __m256i *)p)); }
SIMD_INLINE void v_store_bf16(shoal_bf16_t *p, vf_t x) { _mm256_storeu_si256((__m256i *)p, v_narrow(x)); }

SIMD_INLINE vf_t v_load_part(const void *p, size_t count, shoal_dtype_t dtype)
{
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    return dtype == SHOAL_BF16 ? v_widen(_mm256_maskz_loadu_epi16(mask, p)) : _mm512_maskz_loadu_ps(mask, p);
}

SIMD_INLINE void v_store_part(void *p, size_t count, vf_t x, shoal_dtype_t dtype)
{
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    if (dtype == SHOAL_BF16) {
        _mm256_mask_storeu_epi16(p, mask, v_narrow(x));
    } else {
        _mm512_mask_storeu_ps(p, mask, x);
    }
}

SIMD_INLINE float v_sum(vf_t x) { return _mm512_reduce_add_ps(x); }
SIMD_INLINE float v_largest(vf_t x) { return _mm512_reduce_max_ps(x); }

/* Sums in fp64: what a vector adds to an accumulator of SIMD_WIDTH / 2 doubles. */
typedef __m512d vd_t;
SIMD_INLINE vd_t vd_low(vf_t x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
SIMD_INLINE vd_t vd_high(vf_t x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
SIMD_INLINE double vd_sum(vd_t x) { return _mm512_reduce_add_pd(x); }

#else /* AVX2 with FMA */

enum { SIMD_WIDTH = 8 };
typedef __m256  vf_t;
typedef __m256i vi_t;

SIMD_INLINE vf_t v_set(float x) { return _mm256_set1_ps(x); }
SIMD_INLINE vf_t v_fma(vf_t a, vf_t b, vf_t c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE vf_t v_fnma(vf_t a, vf_t b, vf_t c) { return _mm256_fnmadd_ps(a, b, c); }
SIMD_INLINE vf_t v_min(vf_t a, vf_t b) { return _mm256_min_ps(a, b); }
SIMD_INLINE vf_t v_max(vf_t a, vf_t b) { return _mm256_max_ps(a, b); }
SIMD_INLINE vf_t v_abs(vf_t a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SIMD_INLINE vf_t v_sqrt(vf_t a) { return _mm256_sqrt_ps(a); }
SIMD_INLINE vf_t v_round(vf_t a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

SIMD_INLINE vf_t v_fmaddsub(vf_t a, vf_t b, vf_t c) { return _mm256_fmaddsub_ps(a, b, c); }
SIMD_INLINE vf_t v_fmsubadd(vf_t a, vf_t b, vf_t c) { return _mm256_fmsubadd_ps(a, b, c); }
SIMD_INLINE vf_t v_even_twice(vf_t a) { return _mm256_moveldup_ps(a); }
SIMD_INLINE vf_t v_odd_twice(vf_t a) { return _mm256_movehdup_ps(a); }
SIMD_INLINE vf_t v_swap_pairs(vf_t a) { return _mm256_permute_ps(a, 0xb1); }

SIMD_INLINE vf_t v_if_negative(vf_t x, vf_t a, vf_t b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}

SIMD_INLINE vf_t v_times_sign(vf_t x, vf_t of)
{
    const vf_t zero = _mm256_setzero_ps();
    vf_t positive = _mm256_and_ps(_mm256_cmp_ps(of, zero, _CMP_GT_OQ), x);
    return positive - _mm256_and_ps(_mm256_cmp_ps(of, zero, _CMP_LT_OQ), x);
}

SIMD_INLINE vf_t v_mask_from(vf_t x, size_t first)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i seen = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)first), lane);
    return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), x, _mm256_castsi256_ps(seen));
}

SIMD_INLINE vf_t v_reciprocal(vf_t x)
{
    vf_t r = _mm256_rcp_ps(x);
    r *= _mm256_fnmadd_ps(x, r, _mm256_set1_ps(2.0f));
    return r * _mm256_fnmadd_ps(x, r, _mm256_set1_ps(2.0f));
}

/* In two halves, so that results in the subnormal range and beyond the largest float come out right. */
SIMD_INLINE vf_t v_scale(vf_t x, vf_t n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole  = _mm256_cvtps_epi32(n);
    __m256i first  = _mm256_srai_epi32(whole, 1);
    __m256i second = _mm256_sub_epi32(whole, first);
    x *= _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23));
    return x * _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23));
}

SIMD_INLINE vi_t v_bits(vf_t x) { return _mm256_castps_si256(x); }
SIMD_INLINE vf_t v_from_bits(vi_t x) { return _mm256_castsi256_ps(x); }
SIMD_INLINE vi_t v_iset(int x) { return _mm256_set1_epi32(x); }
SIMD_INLINE vi_t v_isub(vi_t a, vi_t b) { return _mm256_sub_epi32(a, b); }
SIMD_INLINE vi_t v_iand(vi_t a, vi_t b) { return _mm256_and_si256(a, b); }
SIMD_INLINE vi_t v_iexponent(vi_t a) { return _mm256_srai_epi32(a, 23); }
SIMD_INLINE vf_t v_from_int(vi_t a) { return _mm256_cvtepi32_ps(a); }

SIMD_INLINE vf_t v_load_f32(const float *p) { return _mm256_loadu_ps(p); }
SIMD_INLINE void v_store_f32(float *p, vf_t x) { _mm256_storeu_ps(p, x); }

SIMD_INLINE vf_t v_load_bf16(const shoal_bf16_t *p)
{
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

SIMD_INLINE void v_store_bf16(shoal_bf16_t *p, vf_t x)
{
    __m256i bits    = _mm256_castps_si256(x);
    __m256i odd     = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
    __m256i quiet   = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    __m256i nan     = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i words   = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    __m256i packed  = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}

SIMD_INLINE vf_t v_load_part(const void *p, size_t count, shoal_dtype_t dtype)
{
    if (dtype == SHOAL_BF16) {
        shoal_bf16_t lanes[SIMD_WIDTH] = {0};
        memcpy(lanes, p, count * sizeof(lanes[0]));
        return v_load_bf16(lanes);
    }
    float lanes[SIMD_WIDTH] = {0};
    memcpy(lanes, p, count * sizeof(lanes[0]));
    return v_load_f32(lanes);
}

SIMD_INLINE void v_store_part(void *p, size_t count, vf_t x, shoal_dtype_t dtype)
{
    if (dtype == SHOAL_BF16) {
        shoal_bf16_t lanes[SIMD_WIDTH];
        v_store_bf16(lanes, x);
        memcpy(p, lanes, count * sizeof(lanes[0]));
    } else {
        float lanes[SIMD_WIDTH];
        v_store_f32(lanes, x);
        memcpy(p, lanes, count * sizeof(lanes[0]));
    }
}

SIMD_INLINE float v_sum(vf_t x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

SIMD_INLINE float v_largest(vf_t x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

typedef __m256d vd_t;
SIMD_INLINE vd_t vd_low(vf_t x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
SIMD_INLINE vd_t vd_high(vf_t x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }

SIMD_INLINE double vd_sum(vd_t x)
{
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

#endif

/* Lanes a0 b0 a1 b1 ... of the lower halves of a and b; of the upper halves below. */
SIMD_INLINE vf_t v_interleave_low(vf_t a, vf_t b)
{
#ifdef __AVX512F__
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
#else
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
#endif
}

SIMD_INLINE vf_t v_interleave_high(vf_t a, vf_t b)
{
#ifdef __AVX512F__
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
#else
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
#endif
}

/*
 * Lane r of the result is the sum (the largest) of the lanes of rows[r]. Two rows are folded into one vector, half their
 * lanes each, until one vector is left: a third of the work of reducing row by row. Overwrites rows.
 */
#define SIMD_FOLD_ROWS(rows, combine)                                                             \
    for (size_t n_ = SIMD_WIDTH / 2; n_ > 0; n_ /= 2) {                                           \
        for (size_t i_ = 0; i_ < n_; i_++) {                                                      \
            vf_t low_ = v_interleave_low((rows)[i_], (rows)[i_ + n_]);                            \
            vf_t high_ = v_interleave_high((rows)[i_], (rows)[i_ + n_]);                          \
            (rows)[i_] = combine(low_, high_);                                                    \
        }                                                                                         \
    }

SIMD_INLINE vf_t v_add(vf_t a, vf_t b)
{
    return a + b;
}

SIMD_INLINE vf_t v_row_sums(vf_t *rows)
{
    SIMD_FOLD_ROWS(rows, v_add)
    return rows[0];
}

SIMD_INLINE vf_t v_row_largest(vf_t *rows)
{
    SIMD_FOLD_ROWS(rows, v_max)
    return rows[0];
}

SIMD_INLINE size_t simd_count(size_t left)
{
    return left < SIMD_WIDTH ? left : SIMD_WIDTH;
}

/* n rounded up to whole vectors. */
SIMD_INLINE size_t simd_padded(size_t n)
{
    return (n + SIMD_WIDTH - 1) / SIMD_WIDTH * SIMD_WIDTH;
}

SIMD_INLINE void *simd_at(const void *base, size_t i, shoal_dtype_t dtype)
{
    return (char *)(uintptr_t)base + i * (dtype == SHOAL_BF16 ? sizeof(shoal_bf16_t) : sizeof(float));
}

/* Elements i .. i + count - 1 of an array of `dtype`, 1 <= count <= SIMD_WIDTH. */
SIMD_INLINE vf_t load_n(const void *base, size_t i, size_t count, shoal_dtype_t dtype)
{
    const void *p = simd_at(base, i, dtype);
    if (count < SIMD_WIDTH) {
        return v_load_part(p, count, dtype);
    }
    return dtype == SHOAL_BF16 ? v_load_bf16(p) : v_load_f32(p);
}

SIMD_INLINE void store_n(void *base, size_t i, size_t count, vf_t x, shoal_dtype_t dtype)
{
    void *p = simd_at(base, i, dtype);
    if (count < SIMD_WIDTH) {
        v_store_part(p, count, x, dtype);
    } else if (dtype == SHOAL_BF16) {
        v_store_bf16(p, x);
    } else {
        v_store_f32(p, x);
    }
}

SIMD_INLINE float load_one(const void *base, size_t i, shoal_dtype_t dtype)
{
    return dtype == SHOAL_BF16 ? shoal_bf16_to_f32(((const shoal_bf16_t *)base)[i]) : ((const float *)base)[i];
}

SIMD_INLINE void store_one(void *base, size_t i, float x, shoal_dtype_t dtype)
{
    if (dtype == SHOAL_BF16) {
        ((shoal_bf16_t *)base)[i] = shoal_f32_to_bf16(x);
    } else {
        ((float *)base)[i] = x;
    }
}

#endif
