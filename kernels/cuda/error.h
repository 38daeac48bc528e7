/* SPDX-License-Identifier: BSD-3-Clause */
/* The translation of CUDA's errors: logged once, with the call and the cause. */
#ifndef SHOAL_KERNELS_CUDA_ERROR_H
#define SHOAL_KERNELS_CUDA_ERROR_H

#include <cuda_runtime_api.h>

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

#define SHOAL_CUDA_TRY(call) SHOAL_TRY(shoal_cuda_check(call, #call))

#endif
