/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a rank keeps from step to step, as one table: an entry per buffer says what it holds, of which
 * unit, and which part of that unit's flat layout (runtime/model/model.h). Emission declares the buffers
 * through it, the initial values and the optimizer walk it, and so does whatever saves, loads or
 * exports a model. Entries that are a function of the others (the copy in the gather type, the rotary
 * table) or of the step (scalars, statistics) say so by their kind.
 */
#ifndef SHOAL_RUNTIME_MODEL_STATE_H
#define SHOAL_RUNTIME_MODEL_STATE_H

#include "runtime/program/program.h"
#include "runtime/spec.h"

typedef enum {
    /* Of a unit; each covers the same elements of its flat layout. */
    SHOAL_STATE_MASTER, /* fp32 parameters */
    SHOAL_STATE_M,      /* fp32; what the optimizer keeps, as many as it has */
    SHOAL_STATE_V,
    SHOAL_STATE_TAU,
    SHOAL_STATE_COPY, /* the parameters in the gather type, where that is not fp32 */
    SHOAL_STATE_UNIT_KINDS,

    /* Of the whole step. */
    SHOAL_STATE_ROTARY = SHOAL_STATE_UNIT_KINDS, /* f32 (T, D/2, 2): cosines and sines by position */
    SHOAL_STATE_SCALARS,                         /* f32 (SHOAL_SCALAR_COUNT): set before every step */
    SHOAL_STATE_STATS,                           /* f32 (SHOAL_STATS_COUNT): what a step says of itself */
    SHOAL_STATE_KINDS
} shoal_state_kind_t;

typedef struct {
    shoal_state_kind_t kind;
    shoal_buffer_id_t  buffer; /* the same in every program of a rank */
    shoal_dtype_t      dtype;
    int                unit;         /* -1: of the whole step */
    size_t             first, nelem; /* elements of the unit's flat layout; first is 0 without a unit */
} shoal_state_entry_t;

/* All zero: empty. Entries stand in the order of their declaration. */
typedef struct {
    shoal_state_entry_t *entries;
    int                  nentries, room;
} shoal_state_t;

void shoal_state_free(shoal_state_t *state);

/* Forgets the entries, for the next emission to declare them again. */
void shoal_state_clear(shoal_state_t *state);

/* Whether a run keeps buffers of this kind, which is one of a unit. */
bool shoal_state_keeps(const shoal_spec_t *spec, shoal_state_kind_t kind);

/*
 * Declares a buffer of `program` for an entry, whose `buffer` it fills, and appends the entry. `owner`
 * begins the buffer's name: "block 3", "step". The result is -1 when memory ran out (the program's flag
 * says so too).
 */
shoal_buffer_id_t shoal_state_declare(shoal_state_t *state, shoal_program_t *program,
                                      const char *owner, shoal_state_entry_t entry);

#endif
