/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a program should take: each op is given the time that its flops or its bytes need, whichever is more (the roofline of
 * Williams, Waterman and Patterson, CACM 2009), each collective the time that its wire bytes need at the link's bus bandwidth, and the lanes
 * are then simulated with the plan's edges. Predicted beside measured, the difference is where to look.
 */
#ifndef SHOAL_RUNTIME_COST_H
#define SHOAL_RUNTIME_COST_H

#include "runtime/executor.h"

/*
 * Completes a machine description: flops and memory bandwidth that are 0 are taken from the device's datasheet where it has one
 * (GPU), as large operations reach it, and measured on the device in some tens of milliseconds otherwise; a link of 0 stays
 * unknown, and collectives then cost their latency only.
 */
shoal_status_t shoal_cost_complete(shoal_device_t *device, shoal_dtype_t compute, shoal_machine_spec_t *machine_p);

/* The same, but what is 0 is always measured. Allocates on the device. */
shoal_status_t shoal_cost_measure(shoal_device_t *device, shoal_dtype_t compute, shoal_machine_spec_t *machine_p);

/* Predicted milliseconds of one op. */
double shoal_cost_op(const shoal_machine_spec_t *machine, const shoal_op_t *op, int nranks);

/*
 * Simulates one run of a planned program. op_times_p (arrays of nnodes, the caller's) receives predicted starts and ends; it may
 * be NULL.
 */
shoal_status_t shoal_cost_predict(const shoal_program_t *program, const shoal_machine_spec_t *machine, int nranks,
                                  shoal_times_t *times_p, const shoal_op_times_t *op_times_p);

#endif
