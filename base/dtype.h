/* SPDX-License-Identifier: BSD-3-Clause */
/* Element types of buffers, and the two conversions between fp32 and bf16 that every layer shares. */
#ifndef SHOAL_BASE_DTYPE_H
#define SHOAL_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A function that device code may call too, where there is such a thing. */
#ifdef __CUDACC__
#define SHOAL_INLINE static __host__ __device__ __forceinline__
#else
#define SHOAL_INLINE static inline
#endif

typedef enum { SHOAL_F32, SHOAL_BF16, SHOAL_I32, SHOAL_DTYPE_COUNT } shoal_dtype_t;

typedef uint16_t shoal_bf16_t;

static inline size_t shoal_dtype_nbytes(shoal_dtype_t dtype)
{
    return dtype == SHOAL_BF16 ? 2 : 4;
}

static inline const char *shoal_dtype_name(shoal_dtype_t dtype)
{
    static const char *const names[SHOAL_DTYPE_COUNT] = {"fp32", "bf16", "int32"};
    return dtype < SHOAL_DTYPE_COUNT ? names[dtype] : "?";
}

SHOAL_INLINE float shoal_bf16_to_f32(shoal_bf16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float    f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Round to nearest, ties to even. A NaN stays a NaN: its quiet bit is set, so rounding cannot carry it to infinity. */
SHOAL_INLINE shoal_bf16_t shoal_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet   = (bits >> 16) | 0x0040u;
    return (shoal_bf16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* An element of a buffer of fp32 or bf16, where convenience counts and not speed. */
static inline float shoal_element_get(shoal_dtype_t dtype, const void *buffer, size_t i)
{
    return dtype == SHOAL_F32 ? ((const float *)buffer)[i] : shoal_bf16_to_f32(((const shoal_bf16_t *)buffer)[i]);
}

static inline void shoal_element_put(shoal_dtype_t dtype, void *buffer, size_t i, float value)
{
    if (dtype == SHOAL_F32) {
        ((float *)buffer)[i] = value;
    } else {
        ((shoal_bf16_t *)buffer)[i] = shoal_f32_to_bf16(value);
    }
}

#endif
