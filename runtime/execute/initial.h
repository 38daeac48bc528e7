/* SPDX-License-Identifier: BSD-3-Clause */
/* The initial values of a rank's state, made where the memory is. */
#ifndef SHOAL_RUNTIME_EXECUTE_INITIAL_H
#define SHOAL_RUNTIME_EXECUTE_INITIAL_H

#include "kernels/device.h"
#include "runtime/model/step.h"

/*
 * Fills every entry of the plan's state table in the region at `region`: parameters by seed and logical
 * element, so that every layout starts from the same model; their copies; zeros for the optimizer; the
 * rotary table. Scalars and statistics are set before every step and left alone here. Enqueues on a
 * device with a stream.
 */
shoal_status_t shoal_initial_fill(const shoal_step_t *step, shoal_device_t *device, char *region);

#endif
