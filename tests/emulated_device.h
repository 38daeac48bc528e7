/* SPDX-License-Identifier: BSD-3-Clause */
/* A device for tests, "cuda-emulated": the CUDA kernels of this project as kernels/cuda/emulate.h runs them on the CPU. */
#ifndef SHOAL_TESTS_EMULATED_DEVICE_H
#define SHOAL_TESTS_EMULATED_DEVICE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For shoal_device_add. Synchronous; one at a time may run, since the emulated thread indices are global. */
extern const shoal_device_ops_t shoal_emulated_device_ops;

#ifdef __cplusplus
}
#endif

#endif
