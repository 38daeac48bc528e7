/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CUDA's threads on one CPU thread, for tests where no GPU is: enough of CUDA C++ that the .cu files of this folder compile with a
 * plain C++ compiler and compute what they would on a GPU, slowly. Each thread of a block is a coroutine that runs until
 * it must meet others; blocks run one after the other.
 *
 * It finds what a GPU would find late or not at all: a block whose threads wait in different places aborts, misaligned packs abort,
 * shared memory starts as NaN in every block, and every second launch runs its threads and blocks in the opposite order, so
 * that a missing barrier changes the result.
 */
#ifndef SHOAL_KERNELS_CUDA_EMULATE_H
#define SHOAL_KERNELS_CUDA_EMULATE_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/* Of the coroutine that runs. */
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef struct CUstream_st *cudaStream_t;

/* Runs body once for every thread of every block. */
void  shoal_emulated_launch(dim3 grid, dim3 block, size_t shared_nbytes, const std::function<void()> &body);
void *shoal_emulated_shared();

/* Puts a launch on a stream: defined by who links these kernels. `arguments` of so many bytes are the kernel's, to look at during the call. */
void shoal_emulated_enqueue(cudaStream_t stream, const char *kernel, const void *const *arguments, const size_t *nbytes, size_t narguments,
                            std::function<void()> launch);

/* The bytes between a structure's members say nothing, and are not to be looked at. */
template <typename T>
static inline void shoal_emulated_clear_padding(T &value)
{
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&value);
#else
    (void)value;
#endif
}

/* Arguments are taken by value now, as CUDA takes them. */
template <typename... parameters_t, typename... arguments_t>
static inline void shoal_emulated_call(const char *name, void (*kernel)(parameters_t...), dim3 grid, dim3 block, size_t shared_nbytes,
                                       cudaStream_t stream, arguments_t... arguments)
{
    std::tuple<std::decay_t<parameters_t>...> values(arguments...);
    std::apply(
        [&](auto &...value) {
            (shoal_emulated_clear_padding(value), ...);
            const void *const places[] = {&value...};
            const size_t      nbytes[] = {sizeof(value)...};
            shoal_emulated_enqueue(stream, name, places, nbytes, sizeof...(value), [=] {
                shoal_emulated_launch(grid, block, shared_nbytes, [&] { kernel(value...); });
            });
        },
        values);
}

void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);

/* Leaves `bits` for the warp and returns what lane `source` left; all lanes of the warp call it together. */
uint64_t shoal_emulated_exchange(uint64_t bits, int source);
int      shoal_emulated_lane();

template <typename T>
static inline T shoal_emulated_shuffle(T value, int source)
{
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(value));
    bits = shoal_emulated_exchange(bits, source);
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int mask)
{
    return shoal_emulated_shuffle(value, shoal_emulated_lane() ^ mask);
}

template <typename T>
static inline T __shfl_sync(unsigned, T value, int source)
{
    return shoal_emulated_shuffle(value, source);
}

template <typename T>
static inline T min(T a, T b)
{
    return b < a ? b : a;
}

template <typename T>
static inline T max(T a, T b)
{
    return a < b ? b : a;
}

static inline float rsqrtf(float x)
{
    return 1.0f / std::sqrt(x);
}

#define __expf expf /* a macro: glibc declares a function of that name */

static inline float __fdividef(float x, float y)
{
    return x / y;
}

template <typename T>
static inline T __ldg(const T *x)
{
    return *x;
}

static inline float __uint_as_float(unsigned bits)
{
    float f;
    std::memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline unsigned __float_as_uint(float f)
{
    unsigned bits;
    std::memcpy(&bits, &f, sizeof(bits));
    return bits;
}

#endif
