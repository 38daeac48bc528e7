/* SPDX-License-Identifier: BSD-3-Clause */
/* NORMAL: a thread makes the four values of one block of the generator, as the CPU does, and stores those that are asked for. */
#include "base/rng_normal.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS) normal(uint64_t stream, uint64_t first, size_t n, float std, float *dst)
{
    uint64_t block = first / 4 + blockIdx.x * (uint64_t)THREADS + threadIdx.x;
    double   z[4];
    if (4 * block >= first + n) {
        return;
    }
    shoal_rng_normal_block(stream, block, z);
    for (uint64_t lane = 0; lane < 4; lane++) {
        uint64_t index = 4 * block + lane;
        if (index >= first && index < first + n) {
            dst[index - first] = (float)((double)std * z[lane]);
        }
    }
}

__global__ void __launch_bounds__(THREADS) constant(size_t n, float value, float *dst)
{
    size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x;
    if (i < n) {
        dst[i] = value;
    }
}

extern "C" shoal_status_t shoal_cuda_normal(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    float *dst = (float *)args[0];
    size_t n   = op->normal.n;
    if (n == 0) {
        return SHOAL_OK;
    }
    if (op->normal.std > 0.0f) {
        uint64_t blocks = (op->normal.first + n - 1) / 4 - op->normal.first / 4 + 1;
        SHOAL_LAUNCH(normal, (unsigned)((blocks + THREADS - 1) / THREADS), THREADS, 0, cuda->stream, op->normal.stream, op->normal.first, n,
                     op->normal.std, dst);
    } else {
        SHOAL_LAUNCH(constant, (unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, cuda->stream, n, op->normal.constant, dst);
    }
    return SHOAL_OK;
}
