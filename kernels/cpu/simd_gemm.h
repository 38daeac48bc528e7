/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Products of small fp32 tiles that live in the first two cache levels: the arithmetic of attention. B and C are
 * row-major and read by whole vectors; elements of A are broadcast, so A may as well be the transpose of what is stored,
 * which backward needs: it is given by the strides of its rows and columns.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_GEMM_H
#define SHOAL_KERNELS_CPU_SIMD_GEMM_H

#include "kernels/cpu/simd.h"

/*
 * The part of C that stays in registers: enough independent sums to hide the latency of a multiply-add (4 to 5 cycles on two
 * units), few enough to leave registers for B and A. B's panel, GEMM_VECTORS wide, stays in the first cache level.
 */
#ifdef __AVX512F__
enum { GEMM_ROWS = 8, GEMM_VECTORS = 2 };
#else
enum { GEMM_ROWS = 4, GEMM_VECTORS = 3 };
#endif

typedef struct {
    const float *at;
    size_t       row, col; /* strides; one of them is 1 */
} gemm_left_t;

/* GEMM_ROWS rows by `nv` vectors of C. The loops over rows and vectors unroll entirely; `acc` becomes registers. */
SIMD_INLINE void gemm_micro(size_t k, gemm_left_t a, const float *b, size_t ldb, float *c, size_t ldc, bool accumulate,
                            const float *scale, size_t nv)
{
    vf_t acc[GEMM_ROWS][GEMM_VECTORS];
#pragma GCC unroll 8
    for (size_t i = 0; i < GEMM_ROWS; i++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < nv; j++) {
            acc[i][j] = accumulate ? v_load_f32(c + i * ldc + j * SIMD_WIDTH) : v_set(0.0f);
            if (scale != NULL) {
                acc[i][j] *= v_set(scale[i]);
            }
        }
    }
    for (size_t p = 0; p < k; p++) {
        vf_t bv[GEMM_VECTORS];
#pragma GCC unroll 4
        for (size_t j = 0; j < nv; j++) {
            bv[j] = v_load_f32(b + p * ldb + j * SIMD_WIDTH);
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < GEMM_ROWS; i++) {
            vf_t av = v_set(a.at[i * a.row + p * a.col]);
#pragma GCC unroll 4
            for (size_t j = 0; j < nv; j++) {
                acc[i][j] = v_fma(av, bv[j], acc[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < GEMM_ROWS; i++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < nv; j++) {
            v_store_f32(c + i * ldc + j * SIMD_WIDTH, acc[i][j]);
        }
    }
}

SIMD_INLINE void gemm_panel(size_t m, size_t k, gemm_left_t a, const float *b, size_t ldb, float *c, size_t ldc, bool accumulate,
                            const float *scale, size_t nv)
{
    for (size_t i = 0; i < m; i += GEMM_ROWS) {
        gemm_left_t  strip   = {a.at + i * a.row, a.row, a.col};
        const float *factors = scale != NULL ? scale + i : NULL;
        gemm_micro(k, strip, b, ldb, c + i * ldc, ldc, accumulate, factors, nv);
    }
}

/*
 * C (m,n) = A (m,k) B (k,n) [+ C, its rows first multiplied by scale (m)]. m is a multiple of GEMM_ROWS, n of
 * SIMD_WIDTH; k is anything.
 */
SIMD_INLINE void gemm_strided(size_t m, size_t n, size_t k, gemm_left_t a, const float *b, size_t ldb, float *c, size_t ldc,
                              bool accumulate, const float *scale)
{
    size_t j = 0;
    for (; j + GEMM_VECTORS * SIMD_WIDTH <= n; j += GEMM_VECTORS * SIMD_WIDTH) {
        gemm_panel(m, k, a, b + j, ldb, c + j, ldc, accumulate, scale, GEMM_VECTORS);
    }
    for (; j < n; j += SIMD_WIDTH) {
        gemm_panel(m, k, a, b + j, ldb, c + j, ldc, accumulate, scale, 1);
    }
}

/* C = A B, A row-major. */
__attribute__((noinline)) static void gemm_set(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                                               size_t ldb, float *c, size_t ldc)
{
    gemm_strided(m, n, k, (gemm_left_t){a, lda, 1}, b, ldb, c, ldc, false, NULL);
}

/* C += A B, A row-major. */
__attribute__((noinline)) static void gemm_add(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                                               size_t ldb, float *c, size_t ldc)
{
    gemm_strided(m, n, k, (gemm_left_t){a, lda, 1}, b, ldb, c, ldc, true, NULL);
}

/* C = diag(scale) C + A B, A row-major. */
__attribute__((noinline)) static void gemm_rescale_add(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                                                       size_t ldb, float *c, size_t ldc, const float *scale)
{
    gemm_strided(m, n, k, (gemm_left_t){a, lda, 1}, b, ldb, c, ldc, true, scale);
}

/* C += A^T B, with A (k,m) row-major. */
__attribute__((noinline)) static void gemm_add_transposed(size_t m, size_t n, size_t k, const float *a, size_t lda,
                                                          const float *b, size_t ldb, float *c, size_t ldc)
{
    gemm_strided(m, n, k, (gemm_left_t){a, 1, lda}, b, ldb, c, ldc, true, NULL);
}

#endif
