/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The matrix product within a block that matmul.cu and attention.cu are made of: 256 threads as 16 x 16, thread (ty, tx) owns rows
 * 4 ty .. 4 ty + 3 and columns 4 tx .. 4 tx + 3 of a tile of 64 x 64. Operands lie in shared memory as fp32 panels, with the summed
 * index outermost, so that a step of the sum is two 16-byte reads and sixteen multiply-adds per thread.
 *
 * A panel row is 68 floats: 64 and a pad that spreads transposed stores over the banks and keeps 16-byte alignment.
 */
#ifndef SHOAL_KERNELS_CUDA_TILE_CUH
#define SHOAL_KERNELS_CUDA_TILE_CUH

#include "kernels/cuda/launch.cuh"

enum {
    SHOAL_TILE         = 64, /* rows and columns of a tile */
    SHOAL_TILE_LD      = 68,
    SHOAL_TILE_DEPTH   = 32, /* of a panel that is summed over piece by piece */
    SHOAL_TILE_THREADS = 256,
    SHOAL_TILE_ITEMS   = SHOAL_TILE * SHOAL_TILE_DEPTH / SHOAL_TILE_THREADS, /* of such a panel per thread */
    SHOAL_TILE_OWN     = 4,  /* rows and columns per thread */
    SHOAL_PANEL        = SHOAL_TILE_DEPTH * SHOAL_TILE_LD,
    SHOAL_SQUARE       = SHOAL_TILE * SHOAL_TILE_LD,
};

/* The first row and the first column that the thread owns. */
static __device__ __forceinline__ int shoal_tile_row()
{
    return (int)threadIdx.x / 16 * SHOAL_TILE_OWN;
}

static __device__ __forceinline__ int shoal_tile_column()
{
    return (int)threadIdx.x % 16 * SHOAL_TILE_OWN;
}

/* y (4,4) += the thread's part of sum over l < depth of a[l][row] * b[l][column]. */
template <int depth>
static __device__ __forceinline__ void shoal_tile_multiply(const float *a, const float *b, float (&y)[SHOAL_TILE_OWN][SHOAL_TILE_OWN])
{
    a += shoal_tile_row();
    b += shoal_tile_column();
#pragma unroll 8
    for (int l = 0; l < depth; l++) {
        float u[SHOAL_TILE_OWN], v[SHOAL_TILE_OWN];
        shoal_load_pack<SHOAL_TILE_OWN>(a, (size_t)(l * SHOAL_TILE_LD), u);
        shoal_load_pack<SHOAL_TILE_OWN>(b, (size_t)(l * SHOAL_TILE_LD), v);
#pragma unroll
        for (int i = 0; i < SHOAL_TILE_OWN; i++) {
#pragma unroll
            for (int j = 0; j < SHOAL_TILE_OWN; j++) {
                y[i][j] += u[i] * v[j];
            }
        }
    }
}

/*
 * Which elements of a 64 x 32 panel a thread moves, number `item` of SHOAL_TILE_ITEMS: along the tile's row or column, and in depth.
 * Where depth is contiguous in memory, a warp covers 8 of it by 4 rows: whole 32-byte sectors of fp32, and all stores go to
 * different banks. Otherwise a warp covers 32 rows.
 */
static __device__ __forceinline__ int shoal_panel_row(bool depth_contiguous, int item)
{
    int t = (int)threadIdx.x;
    return depth_contiguous ? t / 32 * 8 + item % 2 * 4 + t % 32 / 8 : t % 64;
}

static __device__ __forceinline__ int shoal_panel_depth(bool depth_contiguous, int item)
{
    int t = (int)threadIdx.x;
    return depth_contiguous ? item / 2 * 8 + t % 8 : t / 64 + item * 4;
}

/* The thread's element (i, j) of a tile goes to element [j][i] of a square panel: what a product that sums over j reads. */
static __device__ __forceinline__ void shoal_tile_store_transposed(const float (&y)[SHOAL_TILE_OWN][SHOAL_TILE_OWN], float *square)
{
#pragma unroll
    for (int j = 0; j < SHOAL_TILE_OWN; j++) {
        float column[SHOAL_TILE_OWN];
#pragma unroll
        for (int i = 0; i < SHOAL_TILE_OWN; i++) {
            column[i] = y[i][j];
        }
        shoal_store_pack<SHOAL_TILE_OWN>(square, (size_t)((shoal_tile_column() + j) * SHOAL_TILE_LD + shoal_tile_row()), column);
    }
}

/* ... or to [i][j], where the sum is over i. */
static __device__ __forceinline__ void shoal_tile_store(const float (&y)[SHOAL_TILE_OWN][SHOAL_TILE_OWN], float *square)
{
#pragma unroll
    for (int i = 0; i < SHOAL_TILE_OWN; i++) {
        shoal_store_pack<SHOAL_TILE_OWN>(square, (size_t)((shoal_tile_row() + i) * SHOAL_TILE_LD + shoal_tile_column()), y[i]);
    }
}

#endif
