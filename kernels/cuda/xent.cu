/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cross-entropy with its gradient in place. A team of threads serves a row: a block, or, for a small vocabulary, a warp. First pass: every
 * thread keeps the maximum and the sum of exponentials of what it has read, and packs of it in shared memory, as many as fit while
 * two blocks share a multiprocessor. Second pass: the gradient, from shared memory, and from global memory for the rest, which the
 * L2 cache should still hold. A thread writes only what it has read itself, but for the target's logit, which is read before.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

#include <float.h>
#include <math.h>

#ifndef SHOAL_CUDA_EMULATION
#include "kernels/cuda/error.h"
#endif

enum { BLOCK_TEAM = 512, WARP_TEAM = SHOAL_WARP, WARP_BLOCK = 256, UNROLL = 4, WARP_MOST_V = 1024 };

/* A pack on its way between memories: four words, which the compiler does not take apart as it does eight short ones, or one element. */
template <typename T, int V>
struct __attribute__((may_alias)) __align__(16) raw_t {
    uint32_t words[4];

    __device__ __forceinline__ float element(int j) const
    {
        if (sizeof(T) == sizeof(float)) {
            return __uint_as_float(words[j % 4]);
        }
        return __uint_as_float(j % 2 == 0 ? words[j / 2] << 16 : words[j / 2] & 0xffff0000u);
    }
};

template <typename T>
struct raw_t<T, 1> {
    T value;

    __device__ __forceinline__ float element(int) const
    {
        return shoal_load(&value, 0);
    }
};

template <typename T, int V>
static __device__ __forceinline__ void unpack(const raw_t<T, V> &raw, float *values_p)
{
#pragma unroll
    for (int j = 0; j < V; j++) {
        values_p[j] = raw.element(j);
    }
}

typedef struct {
    size_t   n, ld;
    unsigned V, cached; /* packs of a row that are kept in shared memory: all, or a multiple of the team */
    float    z_loss, grad_scale;
    bool     backward;
} xent_t;

/* sum of exp(x - max) over some x. Starts with a finite maximum, so that -infinity has exp 0 rather than NaN. */
typedef struct {
    float max, sum;
} softmax_t;

template <int V>
static __device__ __forceinline__ void add_values(softmax_t *softmax, const float *x)
{
    float top = softmax->max, sum = 0;
#pragma unroll
    for (int j = 0; j < V; j++) {
        top = fmaxf(top, x[j]);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        sum += __expf(x[j] - top);
    }
    softmax->sum = softmax->sum * __expf(softmax->max - top) + sum;
    softmax->max = top;
}

static __device__ __forceinline__ softmax_t warp_softmax(softmax_t x)
{
    softmax_t all;
    all.max = shoal_warp_max(x.max);
    all.sum = shoal_warp_sum(x.sum * __expf(x.max - all.max));
    return all;
}

/* Over the team; every thread gets it. `warps` (TEAM / 32) is shared memory. What the team has read before, it may write after. */
template <int TEAM>
static __device__ __forceinline__ softmax_t team_softmax(softmax_t x, softmax_t *warps)
{
    unsigned lane = threadIdx.x % SHOAL_WARP;
    x             = warp_softmax(x);
    if (TEAM == SHOAL_WARP) {
        __syncwarp();
        return x;
    }
    if (lane == 0) {
        warps[threadIdx.x / SHOAL_WARP] = x;
    }
    __syncthreads();
    softmax_t none = {-FLT_MAX, 0};
    return warp_softmax(lane < TEAM / SHOAL_WARP ? warps[lane] : none);
}

/* First pass over packs t, t + TEAM, ... of the row. */
template <typename T, int V, int TEAM>
static __device__ __forceinline__ softmax_t read_row(const T *row, T *cache, const xent_t &shape, unsigned t)
{
    softmax_t softmax = {-FLT_MAX, 0};
    unsigned  packs   = shape.V / V;
    for (unsigned p = t; p - t < packs; p += UNROLL * TEAM) {
        raw_t<T, V> read[UNROLL];
#pragma unroll
        for (unsigned u = 0; u < UNROLL; u++) {
            if (p + u * TEAM < packs) {
                read[u] = *(const raw_t<T, V> *)(row + (size_t)(p + u * TEAM) * V);
            }
        }
#pragma unroll
        for (unsigned u = 0; u < UNROLL; u++) {
            unsigned at = p + u * TEAM;
            float    values[V];
            if (at < shape.cached) {
                *(raw_t<T, V> *)(cache + at * V) = read[u];
            }
            if (at < packs) {
                unpack(read[u], values);
                add_values<V>(&softmax, values);
            }
        }
    }
    if (packs * V + t < shape.V) { /* the last, partial pack */
        float value = shoal_load(row, packs * V + t);
        add_values<1>(&softmax, &value);
    }
    return softmax;
}

typedef struct {
    float    max, factor, grad_scale; /* dlogit = factor exp(logit - max) - grad_scale onehot(target) */
    unsigned target;
} gradient_t;

/* Elements at .. at + V - 1 of the row. */
template <int V>
static __device__ __forceinline__ void to_gradient(const gradient_t &gradient, unsigned at, float *x)
{
#pragma unroll
    for (int j = 0; j < V; j++) {
        x[j] = gradient.factor * __expf(x[j] - gradient.max);
    }
    if (gradient.target - at < (unsigned)V) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            x[j] -= at + (unsigned)j == gradient.target ? gradient.grad_scale : 0.0f;
        }
    }
}

/* Second pass over packs first + t, first + t + TEAM, ... before `end`, read from `from`: the cache, or the row itself. */
template <typename T, int V, int TEAM>
static __device__ __forceinline__ void write_packs(const T *from, T *row, unsigned t, unsigned first, unsigned end,
                                                   const gradient_t &gradient)
{
    for (unsigned p = first + t; p - t < end; p += UNROLL * TEAM) {
        raw_t<T, V> read[UNROLL];
#pragma unroll
        for (unsigned u = 0; u < UNROLL; u++) {
            if (p + u * TEAM < end) {
                read[u] = *(const raw_t<T, V> *)(from + (size_t)(p + u * TEAM) * V);
            }
        }
#pragma unroll
        for (unsigned u = 0; u < UNROLL; u++) {
            unsigned at = p + u * TEAM;
            float    values[V];
            if (at < end) {
                unpack(read[u], values);
                to_gradient<V>(gradient, at * V, values);
                shoal_store_pack<V>(row, (size_t)at * V, values);
            }
        }
    }
}

/* Shared memory: (32) softmax_t if the team is a block; then a cache of `cached` packs per team. */
template <typename T, int V, int TEAM>
__global__ void __launch_bounds__(TEAM == SHOAL_WARP ? WARP_BLOCK : TEAM, TEAM == SHOAL_WARP ? 4 : 2)
    xent_kernel(T *logits, const int32_t *__restrict__ targets, float *__restrict__ loss, xent_t shape)
{
    SHOAL_SHARED(unsigned char, shared);
    unsigned t = threadIdx.x % TEAM, team = threadIdx.x / TEAM;
    size_t   i = (size_t)blockIdx.x * (blockDim.x / TEAM) + team;
    if (i >= shape.n) {
        return; /* a whole warp: teams of a block have each their row */
    }
    T       *cache  = (T *)(shared + SHOAL_WARP * sizeof(softmax_t)) + (size_t)team * shape.cached * V;
    T       *row    = logits + i * shape.ld;
    unsigned target = (unsigned)targets[i], packs = shape.V / V;
    float    chosen = shoal_load(row, target);

    softmax_t softmax = team_softmax<TEAM>(read_row<T, V, TEAM>(row, cache, shape, t), (softmax_t *)shared);
    float     lse     = softmax.max + logf(softmax.sum);
    if (t == 0) {
        loss[i] = lse - chosen + shape.z_loss * lse * lse;
    }
    if (!shape.backward) {
        return;
    }
    gradient_t gradient = {softmax.max, shape.grad_scale * ((1.0f + 2.0f * shape.z_loss * lse) / softmax.sum), shape.grad_scale, target};
    write_packs<T, V, TEAM>(cache, row, t, 0, shape.cached, gradient);
    if (shape.cached < packs) {
        write_packs<T, V, TEAM>(row, row, t, shape.cached, packs, gradient);
    }
    if (packs * V + t < shape.V) {
        float value = shoal_load(row, packs * V + t);
        to_gradient<1>(gradient, packs * V + t, &value);
        shoal_store(row, packs * V + t, value);
    }
}

/* Lets the kernel have more than the 48 KiB of shared memory that every kernel may. */
template <typename F>
static shoal_status_t allow_shared(F *kernel, size_t nbytes)
{
#ifndef SHOAL_CUDA_EMULATION
    SHOAL_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)nbytes));
    SHOAL_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
#else
    (void)kernel;
    (void)nbytes;
#endif
    return SHOAL_OK;
}

template <typename T, int V, int TEAM>
static shoal_status_t launch(shoal_cuda_t *cuda, T *logits, const int32_t *targets, float *loss, const xent_t &op_shape)
{
    const unsigned threads = TEAM == SHOAL_WARP ? WARP_BLOCK : TEAM, teams = threads / TEAM;
    const size_t   budget = (cuda->capability >= 90 ? 110 : 80) * (size_t)1024; /* of 228 KiB and 164 KiB on a multiprocessor */
    const unsigned most = (unsigned)(budget / (V * sizeof(T) * teams)), packs = op_shape.V / V;
    xent_t         shape = op_shape;
    shape.cached         = !shape.backward ? 0 : packs <= most ? packs : most / TEAM * TEAM;
    size_t shared        = SHOAL_WARP * sizeof(softmax_t) + (size_t)teams * shape.cached * V * sizeof(T);
    if (shared > 48 * 1024) {
        SHOAL_TRY(allow_shared(xent_kernel<T, V, TEAM>, shared));
    }
    SHOAL_LAUNCH((xent_kernel<T, V, TEAM>), (unsigned)((shape.n + teams - 1) / teams), threads, shared, cuda->stream, logits, targets,
                 loss, shape);
    return SHOAL_OK;
}

template <typename T>
static shoal_status_t run(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    constexpr int  V       = 16 / sizeof(T);
    T             *logits  = (T *)args[0];             /* (n,V) ld; dlogits when backward */
    const int32_t *targets = (const int32_t *)args[1]; /* (n) */
    float         *loss    = (float *)args[2];         /* (n) */
    bool           fits = shoal_vector_fits(logits, 0, op->xent.ld, V), small = op->xent.V <= WARP_MOST_V;
    xent_t         shape = {op->xent.n, op->xent.ld, (unsigned)op->xent.V, 0, op->xent.z_loss, op->xent.grad_scale, op->xent.backward};
    if (op->xent.n == 0) {
        return SHOAL_OK;
    }
    if (small) {
        return fits ? launch<T, V, WARP_TEAM>(cuda, logits, targets, loss, shape)
                    : launch<T, 1, WARP_TEAM>(cuda, logits, targets, loss, shape);
    }
    return fits ? launch<T, V, BLOCK_TEAM>(cuda, logits, targets, loss, shape)
                : launch<T, 1, BLOCK_TEAM>(cuda, logits, targets, loss, shape);
}

extern "C" shoal_status_t shoal_cuda_xent(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    return op->dtype == SHOAL_BF16 ? run<shoal_bf16_t>(cuda, op, args) : run<float>(cuda, op, args);
}
