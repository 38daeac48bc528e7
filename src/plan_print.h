/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What `shoal plan` says: bytes, whether they fit, the predicted step, and every figure that the
 * prediction stands on.
 */
#ifndef SHOAL_SRC_PLAN_PRINT_H
#define SHOAL_SRC_PLAN_PRINT_H

#include "runtime/execute/cost.h"
#include "runtime/execute/trainer.h"

typedef struct {
    const shoal_step_t *step;
    shoal_device_t     *device;
    shoal_device_info_t info;
    shoal_affinity_t    affinity; /* the threads that the plan is for */
    size_t              reserve_nbytes; /* what the plan must leave of the device's memory */
    shoal_cost_t        cost;
    shoal_times_t       times;
} shoal_plan_view_t;

/* To standard output, for people or as one JSON object. */
shoal_status_t shoal_plan_print(const shoal_plan_view_t *view);
shoal_status_t shoal_plan_print_json(const shoal_plan_view_t *view);

#endif
