/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the CUDA device's host side share; C only. */
#ifndef SHOAL_KERNELS_CUDA_DEVICE_H
#define SHOAL_KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/cuda.h"

static inline shoal_cuda_t *shoal_cuda_of(shoal_device_t *device)
{
    return (shoal_cuda_t *)device; /* base is the first member */
}

extern const shoal_stream_ops_t shoal_cuda_stream_ops; /* stream.c */

/* run.c: the slots of these names of kernels/device.h. */
shoal_status_t shoal_cuda_workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p);
shoal_status_t shoal_cuda_run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);
shoal_status_t shoal_cuda_prepare(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);

/* stream.c: the queues, and what belongs to them. */
shoal_status_t shoal_cuda_open_queues(shoal_cuda_t *cuda);
void           shoal_cuda_close_queues(shoal_cuda_t *cuda);

#endif
