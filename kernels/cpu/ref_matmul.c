/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Matrix product and column sums. The product is tiled: a tile of Y accumulates in fp32 on the stack while panels of
 * op(A) and op(B) are packed beside it as fp32, which hides transposes and storage types from the inner loop. Each tile
 * has one owner, so the bits do not depend on the number of threads.
 */
#include "kernels/cpu/ref.h"

enum { TILE_M = 32, TILE_N = 64, TILE_K = 64 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* panel (k, m) = columns i0 .. of op(A), transposed: the inner loop walks k outermost. */
static void pack_a(const shoal_op_t *op, const void *A, size_t i0, size_t m, size_t k0, size_t k,
                   float panel_p[TILE_K][TILE_M])
{
    size_t row_stride    = op->matmul.trans_a ? 1 : op->matmul.lda;
    size_t column_stride = op->matmul.trans_a ? op->matmul.lda : 1;
    for (size_t l = 0; l < k; l++) {
        for (size_t i = 0; i < m; i++) {
            panel_p[l][i] = ref_load(A, op->dtype, (i0 + i) * row_stride + (k0 + l) * column_stride);
        }
    }
}

/* panel (k, TILE_N) of op(B), padded with zeros beyond n so that the inner loop has a constant length. */
static void pack_b(const shoal_op_t *op, const void *B, size_t j0, size_t n, size_t k0, size_t k,
                   float panel_p[TILE_K][TILE_N])
{
    size_t row_stride    = op->matmul.trans_b ? 1 : op->matmul.ldb;
    size_t column_stride = op->matmul.trans_b ? op->matmul.ldb : 1;
    for (size_t l = 0; l < k; l++) {
        for (size_t j = 0; j < TILE_N; j++) {
            panel_p[l][j] = j < n ? ref_load(B, op->dtype, (k0 + l) * row_stride + (j0 + j) * column_stride) : 0;
        }
    }
}

/* The tile of Y at (i0, j0). */
static void matmul_tile(const shoal_op_t *op, void *const *args, size_t i0, size_t j0)
{
    const void *A = args[0], *B = args[1], *bias = args[2];
    void       *Y = args[3];
    size_t      m = smaller(TILE_M, op->matmul.m - i0), n = smaller(TILE_N, op->matmul.n - j0);
    float       a[TILE_K][TILE_M], b[TILE_K][TILE_N], y[TILE_M][TILE_N] = {{0}};

    for (size_t k0 = 0; k0 < op->matmul.k; k0 += TILE_K) {
        size_t k = smaller(TILE_K, op->matmul.k - k0);
        pack_a(op, A, i0, m, k0, k, a);
        pack_b(op, B, j0, n, k0, k, b);
        for (size_t i = 0; i < m; i++) {
            for (size_t l = 0; l < k; l++) {
                for (size_t j = 0; j < TILE_N; j++) {
                    y[i][j] += a[l][i] * b[l][j];
                }
            }
        }
    }
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            float value = op->matmul.alpha * y[i][j] + (bias != NULL ? ref_load(bias, op->dtype, j0 + j) : 0);
            ref_store_gradient(Y, op->matmul.out_dtype, (i0 + i) * op->matmul.ldy + j0 + j, value, op->matmul.accumulate);
        }
    }
}

shoal_status_t shoal_ref_matmul(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
#pragma omp parallel for num_threads(cpu->nthreads) schedule(static) collapse(2)
    for (size_t i0 = 0; i0 < op->matmul.m; i0 += TILE_M) {
        for (size_t j0 = 0; j0 < op->matmul.n; j0 += TILE_N) {
            matmul_tile(op, args, i0, j0);
        }
    }
    return SHOAL_OK;
}

shoal_status_t shoal_ref_colsum(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    const void *dY = args[0]; /* (m,n) */
    void       *db = args[1]; /* g(n) */

#pragma omp parallel for num_threads(cpu->nthreads) schedule(static)
    for (size_t j0 = 0; j0 < op->colsum.n; j0 += TILE_N) {
        size_t n            = smaller(TILE_N, op->colsum.n - j0);
        float  sums[TILE_N] = {0};
        for (size_t i = 0; i < op->colsum.m; i++) {
            for (size_t j = 0; j < n; j++) {
                sums[j] += ref_load(dY, op->dtype, i * op->colsum.ld + j0 + j);
            }
        }
        for (size_t j = 0; j < n; j++) {
            ref_store_gradient(db, op->gdtype, j0 + j, op->colsum.alpha * sums[j], op->colsum.accumulate);
        }
    }
    return SHOAL_OK;
}
