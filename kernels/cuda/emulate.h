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

/*
 * The GPU's approximate functions. Each is off by as much as NVIDIA's manuals say it may be at most
 * (PTX: ex2, lg2, rcp, sqrt; CUDA programming guide: the intrinsics), times a number between -1 and
 * 1 that is a hash of the argument. What a kernel makes of a function that is off so far, in no
 * pattern, the tests see; and the same argument gives the same bits, as on a GPU.
 */
static inline double shoal_emulated_noise(float x)
{
    unsigned bits = __float_as_uint(x);
    bits          = (bits ^ bits >> 16) * 0x7feb352du;
    bits          = (bits ^ bits >> 15) * 0x846ca68bu;
    return (double)(int)(bits ^ bits >> 16) * 0x1p-31;
}

static inline float shoal_emulated_flush(float x)
{
    return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}

static inline float shoal_emulated_off(double exact, float x, double relative)
{
    return (float)(exact * (1 + relative * shoal_emulated_noise(x)));
}

static inline float shoal_emulated_exp2(float x)
{
    float flushed = shoal_emulated_flush(x);
    return shoal_emulated_flush(shoal_emulated_off(std::exp2((double)flushed), flushed, 0x1p-22));
}

static inline float shoal_emulated_log2(float x)
{
    float  flushed = shoal_emulated_flush(x);
    double exact = std::log2((double)flushed);
    double scale = flushed > 0.5f && flushed < 2.0f ? 1 : std::fabs(exact);
    double error = 0x1p-22 * scale * shoal_emulated_noise(flushed);
    return (float)(std::isfinite(exact) ? exact + error : exact);
}

static inline float shoal_emulated_reciprocal(float x)
{
    float flushed = shoal_emulated_flush(x);
    return shoal_emulated_flush(shoal_emulated_off(1.0 / (double)flushed, flushed, 0x1p-23));
}

static inline float shoal_emulated_sqrt(float x)
{
    float flushed = shoal_emulated_flush(x);
    return shoal_emulated_off(std::sqrt((double)flushed), flushed, 0x1p-23);
}

static inline float rsqrtf(float x)
{
    return shoal_emulated_off(1.0 / std::sqrt((double)x), x, 0x1p-22);
}

/* 2 + |1.173 x| units in the last place. */
static inline float shoal_emulated_expf(float x)
{
    double units = 2 + std::floor(std::fabs(1.173 * (double)x));
    return shoal_emulated_off(std::exp((double)x), x, units * 0x1p-23);
}
#define __expf shoal_emulated_expf /* a macro: glibc declares a function of that name */

/* Two units in the last place; 0 where the reciprocal of y would be subnormal. */
static inline float __fdividef(float x, float y)
{
    if (std::isfinite(x) && std::fabs(y) > 0x1p126f) {
        return std::copysign(0.0f, x) * std::copysign(1.0f, y);
    }
    return shoal_emulated_off((double)x / (double)y, y, 0x1p-22);
}

template <typename T>
static inline T __ldg(const T *x)
{
    return *x;
}

#endif
