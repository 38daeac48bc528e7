/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the CUDA device's host side share; C only. */
#ifndef SHOAL_KERNELS_CUDA_DEVICE_H
#define SHOAL_KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/cuda.h"

shoal_cuda_t *shoal_cuda_of(shoal_device_t *device);

extern const shoal_stream_ops_t shoal_cuda_stream_ops; /* stream.c */

/* device.c: the slot `prepare`. */
shoal_status_t shoal_cuda_prepare(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);

/* stream.c: the queues, and what belongs to them. */
shoal_status_t shoal_cuda_open_queues(shoal_cuda_t *cuda);
void           shoal_cuda_close_queues(shoal_cuda_t *cuda);

#endif
