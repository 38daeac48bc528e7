/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FSDP around the units of a model, as emission: it declares the rank's state, inserts a gather before a unit's first use and a
 * reduction once its gradient is complete, and knows nothing of what the unit computes.
 *
 *   full  (ZeRO-3)  gather for each use, gradients reduce-scattered
 *   grad  (ZeRO-2)  gather once a step, keep; gradients reduce-scattered
 *   none            state replicated, gradients all-reduced
 *
 * Uses are numbered in the order of the step; the gather of use j is emitted when use j - prefetch begins, and takes one of
 * prefetch + 1 slots, so it also waits until use j - prefetch - 1 has finished. That is what `prefetch` means: with 0 a gather
 * starts when the compute before it is done; with as many as the step has uses, or more, all gathers are emitted at its start and
 * none waits for a slot. The order of uses is recorded by a first, discarded emission of the same step.
 *
 * A unit's unsharded gradient is held until the next unit's is complete, so that its reduction has that long to travel
 * without compute waiting for the space.
 */
#ifndef SHOAL_RUNTIME_MODEL_SHARDING_H
#define SHOAL_RUNTIME_MODEL_SHARDING_H

#include <assert.h>

#include "runtime/model/model.h"
#include "runtime/model/state.h"
#include "runtime/program/program.h"

static_assert(SHOAL_T_COUNT <= 32, "shoal_unit_state_t.written has a bit for each tensor slot of a unit");

/* What sharding keeps per unit: the buffers of the rank's state first, then what emission is doing with the unit. */
typedef struct {
    size_t            shard_nelem;        /* of this rank's part; all of the padded unit when replicated */
    shoal_buffer_id_t held[SHOAL_STATE_UNIT_KINDS]; /* by kind; -1: not kept */
    shoal_ref_t       kept;               /* shard = grad: gathered parameters of this step */
    int               use;                /* the use under way that occupies a slot, or -1 */
    shoal_buffer_id_t gradient;           /* unsharded, of the present micro-batches; -1: not begun */
    uint32_t          written;            /* bit per tensor slot whose gradient has a value in it */
    shoal_ref_t       shard_gradient;     /* fp32, complete at the end of the step */
    shoal_ref_t       reduced;            /* a reduction's result that is yet to be added to shard_gradient */
} shoal_unit_state_t;

typedef struct {
    const shoal_model_t *model;
    const shoal_spec_t  *spec;
    shoal_program_t     *program;
    shoal_state_t       *state; /* the step's */
    int                  nranks, rank;
    shoal_unit_state_t  *units;      /* (model->nunits) */
    int                 *uses;       /* units in the order of their gathers */
    shoal_buffer_id_t   *gathered;   /* per use */
    int                  nuses, use_room, next_use, next_gather;
    bool                 recording;  /* first emission: uses are noted, not served */
    int                  pending;    /* unit whose reduction is under way, or -1 */
    shoal_buffer_id_t    slots[SHOAL_PREFETCH_MAX + 1]; /* tokens: prefetch + 1 */
    shoal_buffer_id_t    scalars, stats; /* f32 (SHOAL_SCALAR_COUNT), f32 (SHOAL_STATS_COUNT) */
    bool                 last_micro;
} shoal_sharding_t;

/*
 * What a step says of itself, summed over the ranks before the optimizer runs: the mean loss, how many ranks were asked to stop
 * (set before the step; a sum, so that all ranks stop after the same step), and the squared gradient norm, which stands last
 * because replicated gradients have it complete already.
 */
enum { SHOAL_STATS_LOSS, SHOAL_STATS_STOP, SHOAL_STATS_GNORM_SQ, SHOAL_STATS_COUNT };

/* Ready to record. `state` stays the caller's and must outlive the result. Free with shoal_sharding_destroy. */
shoal_status_t shoal_sharding_create(const shoal_model_t *model, const shoal_spec_t *spec, int nranks, int rank,
                                     shoal_state_t *state, shoal_sharding_t *sharding_p);
void           shoal_sharding_destroy(shoal_sharding_t *sharding);

/* Begins an emission into `program`: clears the state table and declares its buffers, always the same ones in the same order. */
void shoal_sharding_begin(shoal_sharding_t *sharding, shoal_program_t *program, bool recording);

/* Brackets one use of a unit's parameters. The result points at the unit's flat layout in the compute type. */
shoal_ref_t shoal_sharding_acquire(shoal_sharding_t *sharding, int unit);
void        shoal_sharding_release(shoal_sharding_t *sharding, int unit);

/* Where the gradient of a tensor goes, in the reduce type, and whether it must be added to what is there. */
shoal_ref_t shoal_sharding_gradient(shoal_sharding_t *sharding, int unit, shoal_slot_t slot, bool *accumulate_p);

/* The unit's gradient of this micro-batch is complete: reduces it now if the spec says so. */
void shoal_sharding_reduce(shoal_sharding_t *sharding, int unit);

/* Gradient norm and optimizer for every unit, after the last micro-batch. */
void shoal_sharding_update(shoal_sharding_t *sharding);

#endif
