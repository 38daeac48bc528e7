/* SPDX-License-Identifier: BSD-3-Clause */
/* Ops on their kernels: finding the registry's row, asking it for workspace, preparing it, running it. */
#include <cuda_runtime_api.h>

#include "base/log.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/error.h"
#include "kernels/op_table.h"

/* The registry's row for an op; int32 (only FILL) is served as another type of four bytes. */
static shoal_status_t find_kernel(shoal_cuda_t *cuda, const shoal_op_t *op, const shoal_cuda_kernel_t **kernel_p)
{
    if ((unsigned)op->kind >= SHOAL_OP_COMPUTE_COUNT) {
        shoal_error("cuda: op %s is not a device's", shoal_op_kind_name(op->kind));
        return SHOAL_ERR_INVALID;
    }
    *kernel_p = &cuda->kernels[op->kind][op->dtype == SHOAL_BF16 ? SHOAL_BF16 : SHOAL_F32];
    return SHOAL_OK;
}

shoal_status_t shoal_cuda_workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p)
{
    const shoal_cuda_kernel_t *kernel = NULL;
    SHOAL_TRY(find_kernel(shoal_cuda_of(device), op, &kernel));
#ifdef SHOAL_HAVE_CUDNN
    SHOAL_TRY(shoal_cuda_cudnn_check(shoal_cuda_of(device), op));
#endif
    *nbytes_p = kernel->workspace != NULL ? kernel->workspace(shoal_cuda_of(device), op) : 0;
    return SHOAL_OK;
}

shoal_status_t shoal_cuda_run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace)
{
    const shoal_cuda_kernel_t *kernel = NULL;
    SHOAL_TRY(find_kernel(shoal_cuda_of(device), op, &kernel));
    SHOAL_TRY(kernel->run(shoal_cuda_of(device), op, args, workspace));
    return shoal_cuda_check(cudaGetLastError(), shoal_op_kind_name(op->kind));
}

shoal_status_t shoal_cuda_prepare(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace)
{
    const shoal_cuda_kernel_t *kernel = NULL;
    SHOAL_TRY(find_kernel(shoal_cuda_of(device), op, &kernel));
    return kernel->prepare != NULL ? kernel->prepare(shoal_cuda_of(device), op, args, workspace) : SHOAL_OK;
}
