/* SPDX-License-Identifier: BSD-3-Clause */
/* Leaves a number in host memory, so that after an error it is known how far the stream had come. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"

__global__ void note(volatile int *host, int number)
{
    *host = number;
}

extern "C" shoal_status_t shoal_cuda_note(shoal_cuda_t *cuda, shoal_queue_t queue, int number)
{
    SHOAL_LAUNCH(note, 1, 1, 0, cuda->queues[queue], cuda->notes + queue, number);
    return SHOAL_OK;
}
