/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Activations and their derivatives: a thread per pack of 16 bytes. GELU sees one flat array;
 * SwiGLU a block per stretch of a row, so that no thread divides. The approximate exponential and
 * reciprocal are good to a few ulp of a sigmoid.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

enum { THREADS = 256, ROW_THREADS = 128 };

static __device__ __forceinline__ float sigmoid(float x)
{
    return shoal_approx_reciprocal(1.0f + shoal_approx_exp2(-1.4426950408889634f * x));
}

/* sqrt(2/pi) (x + 0.044715 x^3); 0.5 (1 + tanh(u)) = sigmoid(2u). */
static __device__ __forceinline__ float gelu_tanh_inner(float x)
{
    return 0.79788456080286536f * (x + 0.044715f * x * x * x);
}

/*
 * For bf16: the normal distribution below -|x|, Phi(-|x|), and *bell_p = exp(-x^2/2), without a
 * branch. The quotient of the two is smooth and falls like 1/|x|: a polynomial of degree five,
 * without a constant term, in t = 1 / (1 + 0.375 |x|). The coefficients make the largest relative
 * error over 0 <= |x| <= 14 least (least squares, weighted again and again by what was left, on
 * 5,500 points; 0.375 the best of the round numbers): it is 2^-14.9. Rounding x^2 adds up to 2^-17
 * where the result is next to underflow. bf16 rounds by up to 2^-9. That both errors are relative
 * keeps the tail of negative x right, where 1 + erf cancels.
 */
static __device__ __forceinline__ float normal_tail(float x, float *bell_p)
{
    float t    = shoal_approx_reciprocal(1.0f + 0.375f * fabsf(x));
    float bell = shoal_approx_exp2(-0.72134752044448170f * x * x);
    *bell_p    = bell;
    float high = 0.0835631266f + t * (0.200282872f + t * -0.0906433538f);
    return bell * (t * (0.149060994f + t * (0.157734275f + t * high)));
}

/*
 * x - |x| Phi(-|x|) or -|x| Phi(-|x|). Phi(-16) is 0 here, so that an infinite x meets no product
 * of infinity and 0. NaN stays NaN by its tail.
 */
static __device__ __forceinline__ float gelu_rough(float x)
{
    float bell, tail = normal_tail(x, &bell);
    return fmaxf(x, 0.0f) - fminf(fabsf(x), 16.0f) * tail;
}

static __device__ __forceinline__ float gelu_rough_derivative(float x)
{
    float bell, tail = normal_tail(x, &bell);
    return (x > 0.0f ? 1.0f - tail : tail) + x * 0.39894228040143268f * bell;
}

template <typename T, bool TANH>
static __device__ __forceinline__ float gelu(float x)
{
    if (TANH) {
        return x * sigmoid(2.0f * gelu_tanh_inner(x));
    }
    if (sizeof(T) == sizeof(shoal_bf16_t)) {
        return gelu_rough(x);
    }
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}

template <typename T, bool TANH>
static __device__ __forceinline__ float gelu_derivative(float x)
{
    if (TANH) {
        float s = sigmoid(2.0f * gelu_tanh_inner(x));
        return s + 2.0f * x * s * (1.0f - s) * 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    if (sizeof(T) == sizeof(shoal_bf16_t)) {
        return gelu_rough_derivative(x);
    }
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * __expf(-0.5f * x * x);
}

/* y = gelu(x), or, with BACKWARD, y = dy * gelu'(x). n elements, the last pack may be partial. y may be x or dy. */
template <typename T, int V, bool TANH, bool BACKWARD>
__global__ void __launch_bounds__(THREADS) gelu_kernel(const T *x, const T *dy, T *y, size_t n)
{
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (i + V <= n) {
        float values[V], gradients[V];
        shoal_load_pack<V>(x, i, values);
        if (BACKWARD) {
            shoal_load_pack<V>(dy, i, gradients);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            values[j] = BACKWARD ? gradients[j] * gelu_derivative<T, TANH>(values[j])
                                 : gelu<T, TANH>(values[j]);
        }
        shoal_store_pack<V>(y, i, values);
        return;
    }
    for (; i < n; i++) {
        float value = shoal_load(x, i);
        shoal_store(y, i, BACKWARD ? shoal_load(dy, i) * gelu_derivative<T, TANH>(value)
                                   : gelu<T, TANH>(value));
    }
}

/* x (N,2F) = gate | up, y (N,F). Block (row, stretch of the row). */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_THREADS) swiglu_kernel(const T *__restrict__ x, T *__restrict__ y, size_t F)
{
    size_t f = ((size_t)blockIdx.y * blockDim.x + threadIdx.x) * V, row = blockIdx.x;
    float  gate[V], up[V];
    if (f >= F) {
        return;
    }
    shoal_load_pack<V>(x, row * 2 * F + f, gate);
    shoal_load_pack<V>(x, row * 2 * F + F + f, up);
#pragma unroll
    for (int j = 0; j < V; j++) {
        up[j] *= gate[j] * sigmoid(gate[j]);
    }
    shoal_store_pack<V>(y, row * F + f, up);
}

/* dx may be x: a thread has read both halves before it writes them. silu' = sigmoid (1 + gate (1 - sigmoid)). */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_THREADS) swiglu_bwd_kernel(const T *x, const T *__restrict__ dy, T *dx, size_t F)
{
    size_t f = ((size_t)blockIdx.y * blockDim.x + threadIdx.x) * V, row = blockIdx.x;
    float  gate[V], up[V], gradients[V];
    if (f >= F) {
        return;
    }
    shoal_load_pack<V>(x, row * 2 * F + f, gate);
    shoal_load_pack<V>(x, row * 2 * F + F + f, up);
    shoal_load_pack<V>(dy, row * F + f, gradients);
#pragma unroll
    for (int j = 0; j < V; j++) {
        float s = sigmoid(gate[j]), u = up[j];
        up[j]   = gradients[j] * gate[j] * s;
        gate[j] = gradients[j] * u * s * (1.0f + gate[j] * (1.0f - s));
    }
    shoal_store_pack<V>(dx, row * 2 * F + f, gate);
    shoal_store_pack<V>(dx, row * 2 * F + F + f, up);
}

template <typename T, int V, bool BACKWARD>
static void launch(shoal_cuda_t *cuda, const shoal_op_t *op, const T *x, const T *dy, T *y)
{
    size_t F = op->act.F, n = op->act.N * F, packs = (F + V - 1) / V;
    dim3   flat((unsigned)((n + (size_t)V * THREADS - 1) / ((size_t)V * THREADS)));
    if (n == 0) {
        return;
    }
    if (op->act.act == SHOAL_ACT_SWIGLU) {
        unsigned threads = packs < ROW_THREADS ? (unsigned)(packs + SHOAL_WARP - 1) / SHOAL_WARP * SHOAL_WARP : (unsigned)ROW_THREADS;
        dim3     grid((unsigned)op->act.N, (unsigned)((packs + threads - 1) / threads));
        if (BACKWARD) {
            SHOAL_LAUNCH((swiglu_bwd_kernel<T, V>), grid, threads, 0, cuda->stream, x, dy, y, F);
        } else {
            SHOAL_LAUNCH((swiglu_kernel<T, V>), grid, threads, 0, cuda->stream, x, y, F);
        }
    } else if (op->act.act == SHOAL_ACT_GELU_TANH) {
        SHOAL_LAUNCH((gelu_kernel<T, V, true, BACKWARD>), flat, THREADS, 0, cuda->stream, x, dy, y, n);
    } else {
        SHOAL_LAUNCH((gelu_kernel<T, V, false, BACKWARD>), flat, THREADS, 0, cuda->stream, x, dy, y, n);
    }
}

/* `row` is what packs must divide: SwiGLU's halves of a row; a flat array may end in a partial pack. */
template <typename T, bool BACKWARD>
static void launch_typed(shoal_cuda_t *cuda, const shoal_op_t *op, const T *x, const T *dy, T *y)
{
    constexpr int V   = 16 / sizeof(T);
    size_t        row = op->act.act == SHOAL_ACT_SWIGLU ? op->act.F : 0;
    if (shoal_vector_fits(x, row, row, V) && shoal_vector_fits(dy, row, row, V) && shoal_vector_fits(y, row, row, V)) {
        launch<T, V, BACKWARD>(cuda, op, x, dy, y);
    } else {
        launch<T, 1, BACKWARD>(cuda, op, x, dy, y);
    }
}

extern "C" shoal_status_t shoal_cuda_act(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    if (op->dtype == SHOAL_BF16) {
        launch_typed<shoal_bf16_t, false>(cuda, op, (const shoal_bf16_t *)args[0], NULL, (shoal_bf16_t *)args[1]);
    } else {
        launch_typed<float, false>(cuda, op, (const float *)args[0], NULL, (float *)args[1]);
    }
    return SHOAL_OK;
}

extern "C" shoal_status_t shoal_cuda_act_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    if (op->dtype == SHOAL_BF16) {
        launch_typed<shoal_bf16_t, true>(cuda, op, (const shoal_bf16_t *)args[0], (const shoal_bf16_t *)args[1], (shoal_bf16_t *)args[2]);
    } else {
        launch_typed<float, true>(cuda, op, (const float *)args[0], (const float *)args[1], (float *)args[2]);
    }
    return SHOAL_OK;
}
