/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every .cu file of this folder includes: the launch, dynamic shared memory and access to elements. The files are compiled twice: by
 * nvcc for the GPU, and by a plain C++ compiler against emulate.h for the tests, where no GPU is. For that they keep to a
 * subset: no <<< >>> (SHOAL_LAUNCH), no `extern __shared__` (SHOAL_SHARED), __syncthreads, __syncwarp and full-warp shuffles as the
 * only ways for threads to meet, no atomics (they would cost determinism too), no inline assembly outside of this file.
 */
#ifndef SHOAL_KERNELS_CUDA_LAUNCH_CUH
#define SHOAL_KERNELS_CUDA_LAUNCH_CUH

#include <stdint.h>

#include "kernels/cuda/cuda.h"

#ifdef SHOAL_CUDA_EMULATION

#include "kernels/cuda/emulate.h"
#define SHOAL_LAUNCH(kernel, grid, block, shared_nbytes, stream, ...) \
    shoal_emulated_call(#kernel, kernel, (grid), (block), (shared_nbytes), (stream), __VA_ARGS__)
/* Declares `name` as a pointer to the launch's dynamic shared memory, 16-byte aligned. */
#define SHOAL_SHARED(type, name) type *name = (type *)shoal_emulated_shared()

#else

#define SHOAL_LAUNCH(kernel, grid, block, shared_nbytes, stream, ...) \
    kernel<<<(grid), (block), (shared_nbytes), (stream)>>>(__VA_ARGS__)
#define SHOAL_SHARED(type, name)                                   \
    extern __shared__ __align__(16) unsigned char shoal_shared_[]; \
    type *name = (type *)shoal_shared_

#endif

enum { SHOAL_WARP = 32 };

/*
 * The special functions' units, an instruction each, where what the name of the C function stands
 * for takes ten to eighty. Subnormal arguments and results count as zero. Largest errors, by the
 * PTX manual: exp2 and the reciprocal 2^-22 and 2^-23 of the result, the root 2^-23 of it, log2
 * 2^-22 of it, or 2^-22 where the argument is between 1/2 and 2. emulate.h errs as much.
 */
#ifdef SHOAL_CUDA_EMULATION
#define SHOAL_APPROXIMATION(name, instruction) \
    static inline float shoal_approx_##name(float x) { return shoal_emulated_##name(x); }
#else
#define SHOAL_APPROXIMATION(name, instruction)                           \
    static __device__ __forceinline__ float shoal_approx_##name(float x) \
    {                                                                    \
        float y;                                                         \
        asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));   \
        return y;                                                        \
    }
#endif
SHOAL_APPROXIMATION(exp2, "ex2")
SHOAL_APPROXIMATION(log2, "lg2")
SHOAL_APPROXIMATION(reciprocal, "rcp")
SHOAL_APPROXIMATION(sqrt, "sqrt")
#undef SHOAL_APPROXIMATION

/* Elements are float or shoal_bf16_t; arithmetic is float. */
static __device__ __forceinline__ float shoal_load(const float *x, size_t i)
{
    return x[i];
}

static __device__ __forceinline__ float shoal_load(const shoal_bf16_t *x, size_t i)
{
    return shoal_bf16_to_f32(x[i]);
}

static __device__ __forceinline__ void shoal_store(float *x, size_t i, float value)
{
    x[i] = value;
}

static __device__ __forceinline__ void shoal_store(shoal_bf16_t *x, size_t i, float value)
{
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x[i]) : "f"(value));
#else
    x[i] = shoal_f32_to_bf16(value);
#endif
}

/* Memory of any type in words: of a structure of 16-bit members the compiler makes a register each. */
template <int N>
struct __align__(4 * N) __attribute__((may_alias)) shoal_words_t {
    uint32_t words[N];
};

/* Two elements as they lie in memory. */
static __device__ __forceinline__ uint32_t shoal_bf16_pair(float first, float second)
{
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return shoal_f32_to_bf16(first) | (uint32_t)shoal_f32_to_bf16(second) << 16;
#endif
}

/* V consecutive elements from x + i in one access. V * sizeof(T) is at most 16 and x + i is aligned to it: see shoal_vector_fits. */
template <typename T, int V>
struct __align__(sizeof(T) * V) shoal_pack_t {
    T values[V];
};

template <int V, typename T>
static __device__ __forceinline__ void shoal_load_pack(const T *x, size_t i, float *values_p)
{
    shoal_pack_t<T, V> pack = *(const shoal_pack_t<T, V> *)(x + i);
#pragma unroll
    for (int j = 0; j < V; j++) {
        values_p[j] = shoal_load(pack.values, (size_t)j);
    }
}

template <int V, typename T>
static __device__ __forceinline__ void shoal_store_pack(T *x, size_t i, const float *values)
{
    shoal_pack_t<T, V> pack;
#pragma unroll
    for (int j = 0; j < V; j++) {
        shoal_store(pack.values, (size_t)j, values[j]);
    }
    *(shoal_pack_t<T, V> *)(x + i) = pack;
}

/*
 * Asks for the cache line of x + i, to be in the second cache when a load comes: a load ahead that
 * takes no register.
 */
template <typename T>
static __device__ __forceinline__ void shoal_prefetch(const T *x, size_t i)
{
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(x + i));
#else
    (void)(x + i);
#endif
}

/*
 * A pack of 16 bytes as it lies in memory, to be kept for later: in bf16 it takes half the registers
 * of its numbers.
 */
typedef shoal_words_t<4> shoal_raw_t;

template <typename T>
static __device__ __forceinline__ shoal_raw_t shoal_load_raw(const T *x, size_t i)
{
    return *(const shoal_raw_t *)(x + i);
}

/* values: the 16 / sizeof(T) elements of a raw pack. */
template <typename T>
static __device__ __forceinline__ void shoal_unpack_raw(const shoal_raw_t &raw, float *values_p)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if constexpr (sizeof(T) == sizeof(float)) {
            values_p[j] = __uint_as_float(raw.words[j]);
        } else {
            values_p[2 * j]     = __uint_as_float(raw.words[j] << 16);
            values_p[2 * j + 1] = __uint_as_float(raw.words[j] & 0xffff0000u);
        }
    }
}

/* Of bf16, in words: of a pack of 8 bytes the compiler would make four stores. */
template <int V>
static __device__ __forceinline__ void shoal_store_pack(shoal_bf16_t *x, size_t i,
                                                        const float *values)
{
    if constexpr (V % 2 == 0) {
        shoal_words_t<V / 2> pack;
#pragma unroll
        for (int j = 0; j < V / 2; j++) {
            pack.words[j] = shoal_bf16_pair(values[2 * j], values[2 * j + 1]);
        }
        *(shoal_words_t<V / 2> *)(x + i) = pack;
    } else {
        static_assert(V == 1, "an element, or pairs");
        shoal_store(x, i, values[0]);
    }
}

/* On the host: whether rows of `row` elements at x, `ld` apart, can be read `V` elements at a time. */
template <typename T>
static inline bool shoal_vector_fits(const T *x, size_t row, size_t ld, int V)
{
    return (uintptr_t)x % (sizeof(T) * V) == 0 && row % (size_t)V == 0 && ld % (size_t)V == 0;
}

/* Sums and maxima over a warp; every lane gets the result, in the same order of additions whoever asks. */
static __device__ __forceinline__ float shoal_warp_sum(float x)
{
    for (int distance = SHOAL_WARP / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

static __device__ __forceinline__ double shoal_warp_sum(double x)
{
    for (int distance = SHOAL_WARP / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

static __device__ __forceinline__ float shoal_warp_max(float x)
{
    for (int distance = SHOAL_WARP / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    }
    return x;
}

#endif
