/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Written as blocks of a constant length with values in local arrays: any compiler turns those into vector code at -O2, for
 * whatever instruction set it was told to use, and aliasing of out with an input stays allowed.
 */
#include "collectives/sum.h"

#include <string.h>

enum { BLOCK = 16 };

static inline void load(shoal_dtype_t dtype, float *wide_p, const void *x, size_t first, size_t n)
{
    if (dtype == SHOAL_F32) {
        memcpy(wide_p, (const float *)x + first, n * sizeof(float));
        return;
    }
    const shoal_bf16_t *narrow = (const shoal_bf16_t *)x + first;
    for (size_t i = 0; i < n; i++) {
        wide_p[i] = shoal_bf16_to_f32(narrow[i]);
    }
}

static inline void store(shoal_dtype_t dtype, void *out_p, const float *wide, size_t first, size_t n)
{
    if (dtype == SHOAL_F32) {
        memcpy((float *)out_p + first, wide, n * sizeof(float));
        return;
    }
    shoal_bf16_t *narrow = (shoal_bf16_t *)out_p + first;
    for (size_t i = 0; i < n; i++) {
        narrow[i] = shoal_f32_to_bf16(wide[i]);
    }
}

static inline void pair_block(shoal_dtype_t out_dtype, void *out_p, shoal_dtype_t a_dtype, const void *a, shoal_dtype_t b_dtype,
                              const void *b, size_t first, size_t n)
{
    float x[BLOCK], y[BLOCK];
    load(a_dtype, x, a, first, n);
    load(b_dtype, y, b, first, n);
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
    store(out_dtype, out_p, x, first, n);
}

/* Inlined with constant types at every call, so that the type tests vanish from the loop. */
__attribute__((always_inline)) static inline void pair(shoal_dtype_t out_dtype, void *out_p, shoal_dtype_t a_dtype,
                                                       const void *a, shoal_dtype_t b_dtype, const void *b, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        pair_block(out_dtype, out_p, a_dtype, a, b_dtype, b, i, BLOCK);
    }
    for (; i < n; i++) {
        pair_block(out_dtype, out_p, a_dtype, a, b_dtype, b, i, 1);
    }
}

void shoal_sum_pair(shoal_dtype_t dtype, void *out_p, const void *a, const void *b, size_t n)
{
    if (dtype == SHOAL_F32) {
        pair(SHOAL_F32, out_p, SHOAL_F32, a, SHOAL_F32, b, n);
    } else {
        pair(SHOAL_BF16, out_p, SHOAL_BF16, a, SHOAL_BF16, b, n);
    }
}

void shoal_sum_widen(shoal_dtype_t dtype, float *wide_p, const void *x, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        load(dtype, wide_p + i, x, i, BLOCK);
    }
    load(dtype, wide_p + i, x, i, n - i);
}

void shoal_sum_accumulate(shoal_dtype_t dtype, float *wide, const void *x, size_t n)
{
    if (dtype == SHOAL_F32) {
        pair(SHOAL_F32, wide, SHOAL_F32, wide, SHOAL_F32, x, n);
    } else {
        pair(SHOAL_F32, wide, SHOAL_F32, wide, SHOAL_BF16, x, n);
    }
}

void shoal_sum_narrow(shoal_dtype_t dtype, void *out_p, const float *wide, size_t n)
{
    if (out_p == wide) {
        return;
    }
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        store(dtype, out_p, wide + i, i, BLOCK);
    }
    store(dtype, out_p, wide + i, i, n - i);
}
