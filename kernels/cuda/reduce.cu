/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sums, conversions and clearing. SUM, SUMSQ: up to MOST_PARTS blocks walk the array and leave an fp64 partial sum each; one block adds
 * those. COLSUM: a block sums a stretch of rows of a tile of columns, then the same kernel sums the stretches. How the work is cut
 * depends on the op alone, so the order of the additions does too.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

enum { THREADS = 256, WARPS = THREADS / SHOAL_WARP, UNROLL = 4 };

/* ---- SUM, SUMSQ ---- */

enum { MOST_PARTS = 1056, PART_NELEM = THREADS * 16 }; /* eight blocks for each of an H200's 132 multiprocessors */

static size_t sum_parts(const shoal_op_t *op)
{
    size_t parts = (op->reduce.n + PART_NELEM - 1) / PART_NELEM;
    return parts < 1 ? 1 : parts < MOST_PARTS ? parts : (size_t)MOST_PARTS;
}

/* The block's sum, valid in thread 0. */
static __device__ __forceinline__ double block_sum(double sum)
{
    SHOAL_SHARED(double, warp_sums);
    sum = shoal_warp_sum(sum);
    if (threadIdx.x % SHOAL_WARP == 0) {
        warp_sums[threadIdx.x / SHOAL_WARP] = sum;
    }
    __syncthreads();
    for (int w = 1; threadIdx.x == 0 && w < WARPS; w++) {
        sum += warp_sums[w];
    }
    return sum;
}

template <bool SQUARE>
static __device__ __forceinline__ double term(float x)
{
    return SQUARE ? (double)x * (double)x : (double)x;
}

template <int V, bool SQUARE>
__global__ void __launch_bounds__(THREADS) sum_kernel(const float *__restrict__ x, size_t n, double *__restrict__ partials)
{
    size_t stride = (size_t)gridDim.x * THREADS * V, tail = n - n % V + threadIdx.x;
    double sum = 0;
#pragma unroll 4
    for (size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * V; i + V <= n; i += stride) {
        float values[V];
        shoal_load_pack<V>(x, i, values);
#pragma unroll
        for (int j = 0; j < V; j++) {
            sum += term<SQUARE>(values[j]);
        }
    }
    if (blockIdx.x == 0 && tail < n) {
        sum += term<SQUARE>(x[tail]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(THREADS) sum_finish_kernel(const double *__restrict__ partials, unsigned parts, float scale,
                                                                    bool accumulate, float *out)
{
    double sum = 0;
    for (unsigned i = threadIdx.x; i < parts; i += THREADS) {
        sum += partials[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        out[0] = (float)((double)scale * sum + (accumulate ? (double)out[0] : 0.0));
    }
}

template <bool SQUARE>
static shoal_status_t run_sum(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    const float *x        = (const float *)args[0]; /* (n) */
    float       *out      = (float *)args[1];       /* (1) */
    double      *partials = (double *)workspace;    /* (parts) */
    unsigned     parts    = (unsigned)sum_parts(op);
    const size_t shared   = WARPS * sizeof(double);

    if (shoal_vector_fits(x, 0, 0, 4)) {
        SHOAL_LAUNCH((sum_kernel<4, SQUARE>), parts, THREADS, shared, cuda->stream, x, op->reduce.n, partials);
    } else {
        SHOAL_LAUNCH((sum_kernel<1, SQUARE>), parts, THREADS, shared, cuda->stream, x, op->reduce.n, partials);
    }
    SHOAL_LAUNCH(sum_finish_kernel, 1, THREADS, shared, cuda->stream, partials, parts, op->reduce.scale, op->reduce.accumulate, out);
    return SHOAL_OK;
}

extern "C" size_t shoal_cuda_sum_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    return sum_parts(op) * sizeof(double);
}

extern "C" size_t shoal_cuda_sumsq_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    return shoal_cuda_sum_workspace(cuda, op);
}

extern "C" shoal_status_t shoal_cuda_sum(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    return run_sum<false>(cuda, op, args, workspace);
}

extern "C" shoal_status_t shoal_cuda_sumsq(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    return run_sum<true>(cuda, op, args, workspace);
}

/* ---- COLSUM ---- */

/* How many stretches the rows are cut into: enough blocks to fill the GPU, with tiles of 256 columns, but rows enough for each. */
static size_t colsum_parts(const shoal_op_t *op)
{
    const size_t tile = 256, least_rows = 32;
    size_t       tiles = (op->colsum.n + tile - 1) / tile, parts = tiles > 0 ? MOST_PARTS / tiles : 0;
    size_t       most = (op->colsum.m + least_rows - 1) / least_rows;
    parts             = parts < most ? parts : most;
    return parts > 0 ? parts : 1;
}

typedef struct {
    size_t m, n, ld, rows; /* of the matrix; rows that a block sums */
    float  alpha;
    bool   accumulate;
} column_sum_t;

/*
 * y[part, j] = alpha * (sum of x[i, j] over the part's rows) [+ y[part, j]]. Block (tile of 32 V columns, part); warp w takes every
 * WARPS-th row, and the warps' sums meet in shared memory (WARPS, 32 V).
 */
template <typename T, int V, typename Y>
__global__ void __launch_bounds__(THREADS) column_sum_kernel(const T *__restrict__ x, Y *y, column_sum_t shape)
{
    constexpr int width = SHOAL_WARP * V;
    SHOAL_SHARED(float, warp_sums);
    size_t first = (size_t)blockIdx.y * shape.rows, last = first + shape.rows < shape.m ? first + shape.rows : shape.m;
    size_t column = (size_t)blockIdx.x * width + threadIdx.x % SHOAL_WARP * V;
    float  sums[V] = {};
    if (column < shape.n) {
#pragma unroll 4
        for (size_t i = first + threadIdx.x / SHOAL_WARP; i < last; i += WARPS) {
            float values[V];
            shoal_load_pack<V>(x, i * shape.ld + column, values);
#pragma unroll
            for (int j = 0; j < V; j++) {
                sums[j] += values[j];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        warp_sums[threadIdx.x / SHOAL_WARP * width + j * SHOAL_WARP + threadIdx.x % SHOAL_WARP] = sums[j];
    }
    __syncthreads();
    for (unsigned c = threadIdx.x; c < width; c += THREADS) {
        size_t at = (size_t)blockIdx.x * width + c;
        float  sum = 0;
        for (int w = 0; w < WARPS; w++) {
            sum += warp_sums[w * width + c % V * SHOAL_WARP + c / V];
        }
        if (at < shape.n) {
            at += (size_t)blockIdx.y * shape.n;
            shoal_store(y, at, shape.alpha * sum + (shape.accumulate ? shoal_load(y, at) : 0.0f));
        }
    }
}

template <typename T, int V, typename Y>
static void launch_column_sum(shoal_cuda_t *cuda, const T *x, Y *y, size_t parts, column_sum_t shape)
{
    dim3 grid((unsigned)((shape.n + SHOAL_WARP * V - 1) / (SHOAL_WARP * V)), (unsigned)parts);
    SHOAL_LAUNCH((column_sum_kernel<T, V, Y>), grid, THREADS, WARPS * SHOAL_WARP * V * sizeof(float), cuda->stream, x, y, shape);
}

template <typename T>
static void launch_first_stage(shoal_cuda_t *cuda, const shoal_op_t *op, const T *x, float *partials, size_t parts)
{
    constexpr int V     = 16 / sizeof(T);
    column_sum_t  shape = {op->colsum.m, op->colsum.n, op->colsum.ld, (op->colsum.m + parts - 1) / parts, 1.0f, false};
    if (shoal_vector_fits(x, op->colsum.n, op->colsum.ld, V)) {
        launch_column_sum<T, V, float>(cuda, x, partials, parts, shape);
    } else {
        launch_column_sum<T, 1, float>(cuda, x, partials, parts, shape);
    }
}

extern "C" size_t shoal_cuda_colsum_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    return colsum_parts(op) * op->colsum.n * sizeof(float);
}

extern "C" shoal_status_t shoal_cuda_colsum(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t       n = op->colsum.n, parts = colsum_parts(op);
    float       *partials = (float *)workspace; /* (parts, n) */
    column_sum_t second   = {parts, n, n, parts, op->colsum.alpha, op->colsum.accumulate};
    if (n == 0) {
        return SHOAL_OK;
    }
    if (op->dtype == SHOAL_BF16) {
        launch_first_stage(cuda, op, (const shoal_bf16_t *)args[0], partials, parts);
    } else {
        launch_first_stage(cuda, op, (const float *)args[0], partials, parts);
    }
    if (op->gdtype == SHOAL_BF16) {
        launch_column_sum<float, 1, shoal_bf16_t>(cuda, partials, (shoal_bf16_t *)args[1], 1, second);
    } else {
        launch_column_sum<float, 1, float>(cuda, partials, (float *)args[1], 1, second);
    }
    return SHOAL_OK;
}

/* ---- CAST ---- */

/* A thread per pack; the last may be partial. dst may be src. */
template <typename S, typename D, int V>
__global__ void __launch_bounds__(THREADS) cast_kernel(const S *src, D *dst, size_t n, bool accumulate)
{
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (i + V <= n) {
        float values[V];
        shoal_load_pack<V>(src, i, values);
        if (accumulate) {
            float before[V];
            shoal_load_pack<V>(dst, i, before);
#pragma unroll
            for (int j = 0; j < V; j++) {
                values[j] += before[j];
            }
        }
        shoal_store_pack<V>(dst, i, values);
        return;
    }
    for (; i < n; i++) {
        float value = shoal_load(src, i);
        shoal_store(dst, i, accumulate ? value + shoal_load(dst, i) : value); /* adding 0 would turn -0 into 0 */
    }
}

template <typename S, typename D>
static void launch_cast(shoal_cuda_t *cuda, const shoal_op_t *op, const void *src, void *dst)
{
    constexpr int V = sizeof(S) == 2 && sizeof(D) == 2 ? 8 : 4; /* 16 bytes of the wider type */
    size_t        n = op->cast.n;
    const S      *s = (const S *)src;
    D            *d = (D *)dst;
    bool          fits  = shoal_vector_fits(s, 0, 0, V) && shoal_vector_fits(d, 0, 0, V);
    size_t        block = (size_t)THREADS * (fits ? V : 1);
    dim3          grid((unsigned)((n + block - 1) / block));
    if (n > 0 && fits) {
        SHOAL_LAUNCH((cast_kernel<S, D, V>), grid, THREADS, 0, cuda->stream, s, d, n, op->cast.accumulate);
    } else if (n > 0) {
        SHOAL_LAUNCH((cast_kernel<S, D, 1>), grid, THREADS, 0, cuda->stream, s, d, n, op->cast.accumulate);
    }
}

extern "C" shoal_status_t shoal_cuda_cast(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    bool narrow = op->cast.dst_dtype == SHOAL_BF16;
    if (op->cast.src_dtype == SHOAL_BF16) {
        (narrow ? launch_cast<shoal_bf16_t, shoal_bf16_t> : launch_cast<shoal_bf16_t, float>)(cuda, op, args[0], args[1]);
    } else {
        (narrow ? launch_cast<float, shoal_bf16_t> : launch_cast<float, float>)(cuda, op, args[0], args[1]);
    }
    return SHOAL_OK;
}

/* ---- FILL ---- */

enum { MOST_RANGES = 32, BLOCK_WINDOWS = THREADS * UNROLL, WINDOW = 16 };

/* Ranges of addresses to clear, and where each one's blocks begin. */
typedef struct {
    unsigned char *first[MOST_RANGES], *end[MOST_RANGES];
    unsigned       first_block[MOST_RANGES], count, blocks;
} fill_batch_t;

/* A thread clears the 16-byte windows of the address space that lie in its range; at the ends, the elements of the window that do. */
__global__ void __launch_bounds__(THREADS) fill_kernel(fill_batch_t batch)
{
    unsigned r = 0;
    while (r + 1 < batch.count && blockIdx.x >= batch.first_block[r + 1]) {
        r++;
    }
    uintptr_t first = (uintptr_t)batch.first[r], end = (uintptr_t)batch.end[r];
    uintptr_t window = first / WINDOW * WINDOW + ((size_t)(blockIdx.x - batch.first_block[r]) * BLOCK_WINDOWS + threadIdx.x) * WINDOW;
#pragma unroll
    for (int u = 0; u < UNROLL; u++, window += THREADS * WINDOW) {
        if (window >= first && window + WINDOW <= end) {
            const float zeros[4] = {};
            shoal_store_pack<4>((float *)window, 0, zeros);
            continue;
        }
        for (uintptr_t at = window > first ? window : first; at < window + WINDOW && at < end; at += sizeof(uint16_t)) {
            *(uint16_t *)at = 0;
        }
    }
}

/* Appends a range that is not empty. */
static void batch_add(fill_batch_t *batch, unsigned char *first, size_t nbytes)
{
    size_t windows = ((uintptr_t)first % WINDOW + nbytes + WINDOW - 1) / WINDOW;
    batch->first[batch->count]       = first;
    batch->end[batch->count]         = first + nbytes;
    batch->first_block[batch->count] = batch->blocks;
    batch->blocks += (unsigned)((windows + BLOCK_WINDOWS - 1) / BLOCK_WINDOWS);
    batch->count++;
}

static void batch_flush(shoal_cuda_t *cuda, fill_batch_t *batch_p)
{
    fill_batch_t batch = *batch_p;
    if (batch.count > 0) {
        SHOAL_LAUNCH(fill_kernel, batch.blocks, THREADS, 0, cuda->stream, batch);
    }
    *batch_p = fill_batch_t();
}

/* The list is the host's: it travels in the kernel's parameters, MOST_RANGES at a time. */
extern "C" shoal_status_t shoal_cuda_fill(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    size_t       nbytes = shoal_dtype_nbytes(op->dtype);
    fill_batch_t batch  = fill_batch_t();
    for (size_t r = 0; r < op->fill.count; r++) {
        if (op->fill.ranges[r].count > 0) {
            batch_add(&batch, (unsigned char *)args[0] + op->fill.ranges[r].first * nbytes, op->fill.ranges[r].count * nbytes);
        }
        if (batch.count == MOST_RANGES) {
            batch_flush(cuda, &batch);
        }
    }
    batch_flush(cuda, &batch);
    return SHOAL_OK;
}
