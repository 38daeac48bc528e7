/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fills memory with words that are ordinary numbers, both as fp32 and as pairs of bf16: magnitudes from 1/2 to 1, any sign. Matrix products of
 * zeros draw less power, and the clock then flatters.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

__global__ void noise(uint32_t *words, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t hash = (i + 1) * 0x9e3779b97f4a7c15u; /* multiply, fold, multiply: enough to look like noise */
        hash          = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
        words[i]      = ((uint32_t)(hash >> 32) & 0x807f807fu) | 0x3f003f00u;
    }
}

extern "C" shoal_status_t shoal_cuda_noise(shoal_cuda_t *cuda, void *memory, size_t nbytes)
{
    SHOAL_LAUNCH(noise, 512, 256, 0, cuda->stream, (uint32_t *)memory, nbytes / sizeof(uint32_t));
    return SHOAL_OK;
}
