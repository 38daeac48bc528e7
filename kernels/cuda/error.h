/* SPDX-License-Identifier: BSD-3-Clause */
/* The translation of CUDA's errors: logged once, with the call and the cause. */
#ifndef SHOAL_KERNELS_CUDA_ERROR_H
#define SHOAL_KERNELS_CUDA_ERROR_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "base/log.h"
#include "base/status.h"

/* SHOAL_OK, SHOAL_ERR_NO_MEMORY or SHOAL_ERR_INTERNAL. `call` is the name of what returned the error. */
static inline shoal_status_t shoal_cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess) {
        return SHOAL_OK;
    }
    shoal_error("cuda: %s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
    return error == cudaErrorMemoryAllocation ? SHOAL_ERR_NO_MEMORY : SHOAL_ERR_INTERNAL;
}

/*
 * Whether next to nothing of the GPU's memory is left. A library that cannot load a kernel then
 * fails with a status that may say anything.
 */
static inline bool shoal_cuda_is_full(void)
{
    size_t unused = 0, total = 0;
    return cudaMemGetInfo(&unused, &total) == cudaSuccess && unused < (size_t)64 << 20;
}

#define SHOAL_CUDA_TRY(call) SHOAL_TRY(shoal_cuda_check(call, #call))

#endif
