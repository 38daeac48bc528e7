/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Gradients of parameters, which are sums over all tokens, without atomics: each block of a kernel leaves its own sum in the workspace, a
 * row of floats, and a second kernel adds those rows in a fixed order and stores. How many rows there are is a function of the op
 * alone, so the result's bits are too.
 */
#ifndef SHOAL_KERNELS_CUDA_PARTIALS_CUH
#define SHOAL_KERNELS_CUDA_PARTIALS_CUH

#include "kernels/cuda/launch.cuh"

/* A gradient in memory. Its type is looked at when storing: a template parameter would double the kernels and save nothing. */
typedef struct {
    void *memory; /* NULL: not wanted */
    bool  bf16;
    bool  accumulate;
} shoal_gradient_t;

static inline shoal_gradient_t shoal_gradient(void *memory, const shoal_op_t *op, bool accumulate)
{
    shoal_gradient_t gradient = {memory, op->gdtype == SHOAL_BF16, accumulate};
    return gradient;
}

template <int V, typename G>
static __device__ __forceinline__ void shoal_gradient_store_as(G *memory, bool accumulate, size_t i, const float *sums)
{
    float values[V];
    if (accumulate) {
        shoal_load_pack<V>(memory, i, values);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        values[j] = accumulate ? values[j] + sums[j] : sums[j];
    }
    shoal_store_pack<V>(memory, i, values);
}

/* V sums become, or are added to, elements i .. i + V - 1; V is at most 4. */
template <int V>
static __device__ __forceinline__ void shoal_gradient_store(const shoal_gradient_t &gradient, size_t i, const float *sums)
{
    if (gradient.bf16) {
        shoal_gradient_store_as<V>((shoal_bf16_t *)gradient.memory, gradient.accumulate, i, sums);
    } else {
        shoal_gradient_store_as<V>((float *)gradient.memory, gradient.accumulate, i, sums);
    }
}

static inline bool shoal_gradient_vector_fits(const shoal_gradient_t *gradient, size_t row, int V)
{
    return gradient->bf16 ? shoal_vector_fits((const shoal_bf16_t *)gradient->memory, row, row, V)
                          : shoal_vector_fits((const float *)gradient->memory, row, row, V);
}

/*
 * partials (rows, ld): first[c] = sum over rows of column c, and second[c] that of column `columns` + c. A block takes 32 columns; its
 * thread (x, y) adds every 32nd row of one column, then a warp adds what the 32 threads of a column have. The two differ in nothing but
 * their memory. WARPS is 32, and a template parameter so that several files may have this kernel.
 */
template <int WARPS>
__global__ void __launch_bounds__(SHOAL_WARP *WARPS)
    shoal_add_partials_kernel(const float *partials, size_t rows, size_t ld, size_t columns, shoal_gradient_t first, shoal_gradient_t second)
{
    SHOAL_SHARED(float, sums); /* (WARPS, 33) */
    size_t column = (size_t)blockIdx.x * SHOAL_WARP + threadIdx.x;
    float  sum    = 0;
    if (column < columns) {
        const float *at = partials + blockIdx.y * columns + column;
#pragma unroll 4
        for (size_t row = threadIdx.y; row < rows; row += WARPS) {
            sum += at[row * ld];
        }
    }
    sums[threadIdx.y * (SHOAL_WARP + 1) + threadIdx.x] = sum;
    __syncthreads();
    sum    = shoal_warp_sum(sums[threadIdx.x * (SHOAL_WARP + 1) + threadIdx.y]);
    column = (size_t)blockIdx.x * SHOAL_WARP + threadIdx.y;
    first.memory = blockIdx.y == 0 ? first.memory : second.memory;
    if (threadIdx.x == 0 && column < columns) {
        shoal_gradient_store<1>(first, column, &sum);
    }
}

template <int WARPS = SHOAL_WARP>
static inline void shoal_add_partials(shoal_cuda_t *cuda, const float *partials, size_t rows, size_t ld, size_t columns,
                                      shoal_gradient_t first, shoal_gradient_t second)
{
    dim3   grid((unsigned)((columns + SHOAL_WARP - 1) / SHOAL_WARP), second.memory != NULL ? 2 : 1);
    size_t shared = WARPS * (SHOAL_WARP + 1) * sizeof(float);
    SHOAL_LAUNCH(shoal_add_partials_kernel<WARPS>, grid, dim3(SHOAL_WARP, WARPS), shared, cuda->stream, partials, rows, ld,
                 columns, first, second);
}

#endif
