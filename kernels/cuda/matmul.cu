/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MATMUL of any shape, alignment and type by plain fp32 multiply-adds: the reference for cuBLASLt, and what serves the operands that
 * cuBLASLt refuses. One block per 64 x 64 tile of Y. Panels of op(A) and op(B), 32 deep, pass through registers into shared
 * memory, where transposes and storage types are gone; while one is multiplied, the next is on its way from memory.
 */
#include "kernels/cuda/own.h"
#include "kernels/cuda/tile.cuh"

namespace {

/* op(A) by rows of Y, or op(B) by columns of Y: element (row, l) at row * row_stride + l * depth_stride, one of them 1. */
template <typename T>
struct operand_t {
    const T *x;
    size_t   rows, row_stride, depth_stride;
};

/* A thread's share of a panel on its way to shared memory. */
template <typename T>
struct mover_t {
    operand_t<T> operand;
    size_t       first, k; /* first row of the tile; length of the sum */
    float        items[SHOAL_TILE_ITEMS];

    __device__ __forceinline__ void fetch(size_t k0)
    {
        bool contiguous = operand.depth_stride == 1;
#pragma unroll
        for (int item = 0; item < SHOAL_TILE_ITEMS; item++) {
            size_t row = first + (size_t)shoal_panel_row(contiguous, item), l = k0 + (size_t)shoal_panel_depth(contiguous, item);
            bool   inside = row < operand.rows && l < k;
            items[item]   = inside ? shoal_load(operand.x, row * operand.row_stride + l * operand.depth_stride) : 0.0f;
        }
    }

    __device__ __forceinline__ void put(float *panel)
    {
        bool contiguous = operand.depth_stride == 1;
#pragma unroll
        for (int item = 0; item < SHOAL_TILE_ITEMS; item++) {
            panel[shoal_panel_depth(contiguous, item) * SHOAL_TILE_LD + shoal_panel_row(contiguous, item)] = items[item];
        }
    }
};

template <typename T, typename Y>
struct product_t {
    operand_t<T> a, b;
    const T     *bias;
    Y           *y;
    size_t       k, ldy;
    float        alpha;
    bool         accumulate;
};

template <typename T, typename Y>
__device__ __forceinline__ void write_tile(const product_t<T, Y> &p, size_t row, size_t column,
                                           const float (&sums)[SHOAL_TILE_OWN][SHOAL_TILE_OWN])
{
#pragma unroll
    for (int i = 0; i < SHOAL_TILE_OWN; i++) {
#pragma unroll
        for (int j = 0; j < SHOAL_TILE_OWN; j++) {
            size_t r = row + (size_t)i, c = column + (size_t)j;
            if (r < p.a.rows && c < p.b.rows) {
                float value = p.alpha * sums[i][j] + (p.bias != NULL ? shoal_load(p.bias, c) : 0.0f);
                shoal_store(p.y, r * p.ldy + c, p.accumulate ? shoal_load(p.y, r * p.ldy + c) + value : value);
            }
        }
    }
}

template <typename T, typename Y>
__global__ void __launch_bounds__(SHOAL_TILE_THREADS, 2) multiply(product_t<T, Y> p)
{
    SHOAL_SHARED(float, a_panel); /* (32, 64) */
    float     *b_panel = a_panel + SHOAL_PANEL;
    float      sums[SHOAL_TILE_OWN][SHOAL_TILE_OWN] = {};
    size_t     row = (size_t)blockIdx.x * SHOAL_TILE, column = (size_t)blockIdx.y * SHOAL_TILE;
    mover_t<T> a = {p.a, row, p.k, {}}, b = {p.b, column, p.k, {}};

    a.fetch(0);
    b.fetch(0);
    for (size_t k0 = 0; k0 < p.k; k0 += SHOAL_TILE_DEPTH) {
        a.put(a_panel);
        b.put(b_panel);
        __syncthreads();
        a.fetch(k0 + SHOAL_TILE_DEPTH);
        b.fetch(k0 + SHOAL_TILE_DEPTH);
        shoal_tile_multiply<SHOAL_TILE_DEPTH>(a_panel, b_panel, sums);
        __syncthreads();
    }
    write_tile(p, row + (size_t)shoal_tile_row(), column + (size_t)shoal_tile_column(), sums);
}

template <typename T, typename Y>
void launch(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    product_t<T, Y> p;
    p.a          = {(const T *)args[0], op->matmul.m, op->matmul.trans_a ? 1 : op->matmul.lda, op->matmul.trans_a ? op->matmul.lda : 1};
    p.b          = {(const T *)args[1], op->matmul.n, op->matmul.trans_b ? op->matmul.ldb : 1, op->matmul.trans_b ? 1 : op->matmul.ldb};
    p.bias       = (const T *)args[2];
    p.y          = (Y *)args[3];
    p.k          = op->matmul.k;
    p.ldy        = op->matmul.ldy;
    p.alpha      = op->matmul.alpha;
    p.accumulate = op->matmul.accumulate;
    dim3 grid((unsigned)((op->matmul.m + SHOAL_TILE - 1) / SHOAL_TILE), (unsigned)((op->matmul.n + SHOAL_TILE - 1) / SHOAL_TILE));
    SHOAL_LAUNCH((multiply<T, Y>), grid, SHOAL_TILE_THREADS, 2 * SHOAL_PANEL * sizeof(float), cuda->stream, p);
}

} // namespace

extern "C" shoal_status_t shoal_cuda_matmul(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    bool narrow = op->matmul.out_dtype == SHOAL_BF16;
    if (op->dtype == SHOAL_BF16) {
        narrow ? launch<shoal_bf16_t, shoal_bf16_t>(cuda, op, args) : launch<shoal_bf16_t, float>(cuda, op, args);
    } else {
        narrow ? launch<float, shoal_bf16_t>(cuda, op, args) : launch<float, float>(cuda, op, args);
    }
    return SHOAL_OK;
}
