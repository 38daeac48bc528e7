/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A rank's plan: the training program, the validation program where there is one, and the one region of memory that serves both.
 * `plan` prints it, `train` executes it; both get it from here, so they cannot disagree.
 *
 *     region   [ state | arena | kernel workspace | gather staging | reduce staging ]
 */
#ifndef SHOAL_RUNTIME_MODEL_STEP_H
#define SHOAL_RUNTIME_MODEL_STEP_H

#include "collectives/transport.h"
#include "kernels/device.h"
#include "runtime/model/sharding.h"

typedef struct {
    const shoal_spec_t *spec;
    int                 nranks, rank;
    shoal_model_t       model;
    shoal_state_t       state; /* what lives from step to step; buffers are the same in both programs */
    shoal_sharding_t    sharding;
    shoal_program_t     train, eval;
    bool                has_eval;
    size_t              head_chunk; /* tokens per chunk of the head: as configured, or as chosen for the device */
    size_t              arena_offset, workspace_offset, staging_offset[SHOAL_LANE_COUNT]; /* in the region */
    size_t              workspace_nbytes, staging_nbytes[SHOAL_LANE_COUNT];
    size_t              total_nbytes;
    size_t              memory_nbytes[SHOAL_MEMORY_COUNT]; /* by category; with the slack they add up to total_nbytes */
    size_t              slack_nbytes;
    /* Of the host, for a device with a stream: tokens on their way there, page-locked, and the training step's that comes next. */
    size_t              staged_nbytes, ahead_nbytes;
} shoal_step_t;

/* The most that any machine addresses: the limit of a plan where no smaller one is known. */
#define SHOAL_STEP_MAX_NBYTES 0x1p47

/* The most ops of a program, about: each takes some 400 bytes of the host, and planning takes
 * longer than they are many. */
enum { SHOAL_STEP_MAX_NOPS = 1 << 18 };

/*
 * Refuses in a moment, from the table of tensors, what emission and planning would take long over:
 * SHOAL_ERR_PLAN when a rank's state and its largest activation alone are more than `available`
 * bytes (INFINITY: not known) or what a machine addresses, or when a step has so many ops that
 * planning it is out of the question. The reason is logged if `say`, which one rank should.
 */
shoal_status_t shoal_step_check(const shoal_spec_t *spec, int nranks, bool on_gpu, double available,
                                bool say);

/*
 * Emits and plans. The device is asked for workspace sizes, the transport for staging sizes; neither is otherwise touched.
 * Destroy with shoal_step_destroy. The step holds pointers into itself: it must not be moved.
 */
shoal_status_t shoal_step_create(const shoal_spec_t *spec, int nranks, int rank, shoal_device_t *device,
                                 const shoal_transport_ops_t *transport, shoal_step_t *step_p);
void           shoal_step_destroy(shoal_step_t *step);

#endif
