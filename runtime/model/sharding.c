/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header for the scheme. Each function is one verb of it: acquire, release, gradient, reduce, update. */
#include "runtime/model/sharding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/program/emit.h"

shoal_status_t shoal_sharding_create(const shoal_model_t *model, const shoal_spec_t *spec, int nranks, int rank,
                                     shoal_state_t *state, shoal_sharding_t *sharding_p)
{
    shoal_unit_state_t *units = calloc((size_t)model->nunits, sizeof(*units));
    if (units == NULL) {
        shoal_error("no memory for the sharding table");
        return SHOAL_ERR_NO_MEMORY;
    }
    *sharding_p = (shoal_sharding_t){
        .model = model, .spec = spec, .state = state, .nranks = nranks, .rank = rank, .units = units, .pending = -1};
    return SHOAL_OK;
}

void shoal_sharding_destroy(shoal_sharding_t *sharding)
{
    free(sharding->units);
    free(sharding->uses);
    free(sharding->gathered);
    memset(sharding, 0, sizeof(*sharding));
}

static bool replicated(const shoal_sharding_t *sharding)
{
    return sharding->spec->parallel.shard == SHOAL_SHARD_NONE || sharding->nranks == 1;
}

static void declare_unit(shoal_sharding_t *sharding, int unit)
{
    const shoal_unit_t *layout  = &sharding->model->units[unit];
    shoal_unit_state_t *state   = &sharding->units[unit];
    size_t n     = shoal_unit_shard_nelem(layout, replicated(sharding) ? 1 : sharding->nranks);
    size_t first = replicated(sharding) ? 0 : n * (size_t)sharding->rank;

    *state = (shoal_unit_state_t){.shard_nelem = n, .use = -1, .gradient = -1};
    state->kept = state->shard_gradient = state->reduced = SHOAL_NO_REF;
    for (int kind = 0; kind < SHOAL_STATE_UNIT_KINDS; kind++) {
        bool copy         = kind == SHOAL_STATE_COPY;
        state->held[kind] = -1;
        if (shoal_state_keeps(sharding->spec, (shoal_state_kind_t)kind)) {
            shoal_state_entry_t entry = {.kind  = (shoal_state_kind_t)kind,
                                         .dtype = copy ? sharding->spec->precision.gather : SHOAL_F32,
                                         .unit  = unit,
                                         .first = first,
                                         .nelem = n};
            state->held[kind] =
                shoal_state_declare(sharding->state, sharding->program, layout->name, entry);
        }
    }
}

static shoal_buffer_id_t declare_floats(shoal_sharding_t *sharding, shoal_state_kind_t kind, size_t nelem)
{
    shoal_state_entry_t entry = {.kind = kind, .dtype = SHOAL_F32, .unit = -1, .nelem = nelem};
    return shoal_state_declare(sharding->state, sharding->program, "step", entry);
}

void shoal_sharding_begin(shoal_sharding_t *sharding, shoal_program_t *program, bool recording)
{
    sharding->program   = program;
    sharding->recording = recording;
    sharding->next_use = sharding->next_gather = 0;
    sharding->nuses    = recording ? 0 : sharding->nuses;
    sharding->pending  = -1;
    shoal_state_clear(sharding->state);
    for (int u = 0; u < sharding->model->nunits; u++) {
        declare_unit(sharding, u);
    }
    sharding->scalars = declare_floats(sharding, SHOAL_STATE_SCALARS, SHOAL_SCALAR_COUNT);
    sharding->stats   = declare_floats(sharding, SHOAL_STATE_STATS, SHOAL_STATS_COUNT);
    for (size_t s = 0; s <= sharding->spec->parallel.prefetch; s++) {
        sharding->slots[s] = shoal_program_buffer(program, SHOAL_HOME_STATE, SHOAL_MEMORY_GATHER, SHOAL_F32, 0, "slot %zu", s);
    }
}

/* Notes a use in the recording emission. */
static void record_use(shoal_sharding_t *sharding, int unit)
{
    if (sharding->nuses == sharding->use_room) {
        int                room     = sharding->use_room == 0 ? 64 : 2 * sharding->use_room;
        int               *uses     = realloc(sharding->uses, (size_t)room * sizeof(*uses));
        sharding->uses              = uses != NULL ? uses : sharding->uses;
        shoal_buffer_id_t *gathered = realloc(sharding->gathered, (size_t)room * sizeof(*gathered));
        sharding->gathered          = gathered != NULL ? gathered : sharding->gathered;
        if (uses == NULL || gathered == NULL) {
            sharding->program->out_of_memory = true;
            return;
        }
        sharding->use_room = room;
    }
    sharding->uses[sharding->nuses++] = unit;
}

/* The rank's part of the parameters, in the gather type. */
static shoal_ref_t own_params(const shoal_unit_state_t *state)
{
    shoal_buffer_id_t copy = state->held[SHOAL_STATE_COPY];
    return shoal_whole(copy >= 0 ? copy : state->held[SHOAL_STATE_MASTER]);
}

static void emit_gather(shoal_sharding_t *sharding, int use)
{
    shoal_program_t          *program = sharding->program;
    int                       unit    = sharding->uses[use];
    const shoal_unit_state_t *state   = &sharding->units[unit];
    shoal_dtype_t             dtype   = sharding->spec->precision.gather;
    int32_t                   outer   = program->unit;

    sharding->gathered[use] =
        shoal_program_buffer(program, SHOAL_HOME_ARENA, SHOAL_MEMORY_GATHER, dtype, state->shard_nelem * (size_t)sharding->nranks,
                             "%s params", sharding->model->units[unit].name);
    shoal_op_t op = {.kind = SHOAL_OP_ALL_GATHER, .dtype = dtype, .coll = {state->shard_nelem}};
    program->unit = unit;
    int32_t index = shoal_program_emit(
        program, &op, SHOAL_ARGS(own_params(state), shoal_whole(sharding->gathered[use])));
    program->unit = outer;
    if (index >= 0) {
        program->nodes[index].write_token = sharding->slots[(size_t)use % (sharding->spec->parallel.prefetch + 1)];
    }
}

/* The gathered parameters of the present use, or the rank's own when it has all of them. */
static shoal_ref_t gathered_ref(shoal_sharding_t *sharding, int unit)
{
    const shoal_unit_state_t *state = &sharding->units[unit];
    if (replicated(sharding)) {
        return own_params(state);
    }
    int use  = sharding->next_use++;
    int last = use + (int)sharding->spec->parallel.prefetch;
    while (sharding->next_gather < sharding->nuses && sharding->next_gather <= last) {
        emit_gather(sharding, sharding->next_gather++);
    }
    sharding->units[unit].use = use;
    return shoal_whole(sharding->gathered[use]);
}

shoal_ref_t shoal_sharding_acquire(shoal_sharding_t *sharding, int unit)
{
    shoal_unit_state_t             *state     = &sharding->units[unit];
    const shoal_precision_spec_t   *precision = &sharding->spec->precision;
    if (state->kept.id >= 0) {
        return state->kept;
    }
    if (sharding->recording) {
        if (!replicated(sharding)) {
            record_use(sharding, unit);
        }
        /* The recording's program is thrown away: any buffer will do, but `grad` must see that the unit is kept. */
        state->kept = sharding->spec->parallel.shard == SHOAL_SHARD_GRAD ? shoal_whole(state->held[SHOAL_STATE_MASTER]) : SHOAL_NO_REF;
        return shoal_whole(state->held[SHOAL_STATE_MASTER]);
    }
    shoal_ref_t params = gathered_ref(sharding, unit);
    if (precision->gather != precision->compute) {
        size_t            n = state->shard_nelem * (replicated(sharding) ? 1 : (size_t)sharding->nranks);
        shoal_buffer_id_t converted =
            shoal_program_buffer(sharding->program, SHOAL_HOME_ARENA, SHOAL_MEMORY_GATHER, precision->compute, n, "%s converted",
                                 sharding->model->units[unit].name);
        shoal_emit_cast(sharding->program, n, params, precision->gather, shoal_whole(converted), precision->compute, false);
        params = shoal_whole(converted);
    }
    if (sharding->spec->parallel.shard == SHOAL_SHARD_GRAD) {
        state->kept = params;
    }
    return params;
}

void shoal_sharding_release(shoal_sharding_t *sharding, int unit)
{
    /* A kept unit gave its slot back after its first use. */
    shoal_unit_state_t *state = &sharding->units[unit];
    if (state->use >= 0) {
        shoal_program_read_token(sharding->program,
                                 sharding->slots[(size_t)state->use % (sharding->spec->parallel.prefetch + 1)]);
        state->use = -1;
    }
}

/* Adds a finished reduction to the shard's gradient; the first one becomes it when the types agree. */
static void collect(shoal_sharding_t *sharding, int unit)
{
    shoal_unit_state_t *state = &sharding->units[unit];
    shoal_dtype_t       dtype = sharding->spec->precision.reduce;
    if (state->reduced.id < 0) {
        return;
    }
    if (state->shard_gradient.id < 0 && dtype == SHOAL_F32) {
        state->shard_gradient = state->reduced;
    } else {
        bool first = state->shard_gradient.id < 0;
        if (first) {
            state->shard_gradient =
                shoal_whole(shoal_program_buffer(sharding->program, SHOAL_HOME_ARENA, SHOAL_MEMORY_GRADIENTS, SHOAL_F32,
                                                 state->shard_nelem, "%s shard grad", sharding->model->units[unit].name));
        }
        shoal_emit_cast(sharding->program, state->shard_nelem, state->reduced, dtype, state->shard_gradient, SHOAL_F32, !first);
    }
    state->reduced = SHOAL_NO_REF;
}

/* The reduction under way has had its time: the unsharded gradient's space may be reused from here on. */
static void finish_pending(shoal_sharding_t *sharding)
{
    if (sharding->pending >= 0) {
        shoal_unit_state_t *state = &sharding->units[sharding->pending];
        shoal_program_hold(sharding->program, state->gradient);
        state->gradient = -1;
        collect(sharding, sharding->pending);
        sharding->pending = -1;
    }
}

static void begin_gradient(shoal_sharding_t *sharding, int unit)
{
    shoal_unit_state_t *state  = &sharding->units[unit];
    shoal_dtype_t       dtype  = sharding->spec->precision.reduce;
    size_t              padded = state->shard_nelem * (replicated(sharding) ? 1 : (size_t)sharding->nranks);
    shoal_range_t       gaps[SHOAL_T_COUNT + 1];
    size_t              ngaps = shoal_unit_gaps(&sharding->model->units[unit], padded, gaps);

    state->gradient = shoal_program_buffer(sharding->program, SHOAL_HOME_ARENA, SHOAL_MEMORY_GRADIENTS, dtype, padded, "%s grad",
                                           sharding->model->units[unit].name);
    state->written = 0;
    if (ngaps > 0) {
        shoal_op_t op = {.kind = SHOAL_OP_FILL, .dtype = dtype, .fill = {shoal_program_ranges(sharding->program, gaps, ngaps), ngaps}};
        shoal_program_emit(sharding->program, &op, SHOAL_ARGS(shoal_whole(state->gradient)));
    }
}

shoal_ref_t shoal_sharding_gradient(shoal_sharding_t *sharding, int unit, shoal_slot_t slot, bool *accumulate_p)
{
    shoal_unit_state_t *state = &sharding->units[unit];
    if (sharding->pending == unit) {
        finish_pending(sharding); /* the next micro-batch begins a new gradient */
    }
    if (state->gradient < 0) {
        begin_gradient(sharding, unit);
    }
    *accumulate_p = (state->written >> slot) & 1u;
    state->written |= 1u << slot;
    return (shoal_ref_t){state->gradient, sharding->model->units[unit].tensors[slot].offset};
}

void shoal_sharding_reduce(shoal_sharding_t *sharding, int unit)
{
    shoal_unit_state_t *state = &sharding->units[unit];
    shoal_program_t    *program = sharding->program;
    shoal_dtype_t       dtype   = sharding->spec->precision.reduce;
    if (!sharding->last_micro && (sharding->spec->batch.sync == SHOAL_SYNC_LAST || sharding->nranks == 1)) {
        return;
    }
    finish_pending(sharding);
    shoal_ref_t whole = shoal_whole(state->gradient);
    if (sharding->nranks == 1) {
        state->reduced = whole;
    } else if (replicated(sharding)) {
        shoal_op_t op = {.kind = SHOAL_OP_ALL_REDUCE, .dtype = dtype, .coll = {state->shard_nelem}};
        shoal_program_emit(program, &op, SHOAL_ARGS(whole));
        state->reduced = whole;
    } else {
        shoal_op_t op  = {.kind = SHOAL_OP_REDUCE_SCATTER, .dtype = dtype, .coll = {state->shard_nelem}};
        state->reduced = shoal_whole(shoal_program_buffer(program, SHOAL_HOME_ARENA, SHOAL_MEMORY_GRADIENTS, dtype,
                                                          state->shard_nelem, "%s reduced", sharding->model->units[unit].name));
        shoal_program_emit(program, &op, SHOAL_ARGS(whole, state->reduced));
    }
    sharding->pending = unit;
}

static void emit_norm(shoal_sharding_t *sharding)
{
    shoal_program_t *program  = sharding->program;
    shoal_ref_t      gnorm_sq = {sharding->stats, SHOAL_STATS_GNORM_SQ};
    for (int u = 0; u < sharding->model->nunits; u++) {
        program->unit = u;
        shoal_op_t op = {.kind = SHOAL_OP_SUMSQ, .dtype = SHOAL_F32, .reduce = {sharding->units[u].shard_nelem, 1.0f, u > 0}};
        shoal_program_emit(program, &op, SHOAL_ARGS(sharding->units[u].shard_gradient, gnorm_sq));
    }
    program->unit = -1;
    if (sharding->nranks > 1) {
        size_t     n  = replicated(sharding) ? SHOAL_STATS_GNORM_SQ : SHOAL_STATS_COUNT;
        shoal_op_t op = {.kind = SHOAL_OP_ALL_REDUCE, .dtype = SHOAL_F32, .coll = {n}};
        shoal_program_emit(program, &op, SHOAL_ARGS(shoal_whole(sharding->stats)));
    }
}

static void emit_optimizer(shoal_sharding_t *sharding, int unit)
{
    const shoal_optim_spec_t *optim = &sharding->spec->optim;
    const shoal_unit_state_t *state = &sharding->units[unit];
    size_t                    first = replicated(sharding) ? 0 : state->shard_nelem * (size_t)sharding->rank;
    shoal_range_t             ranges[SHOAL_T_COUNT];
    size_t     count = shoal_unit_decay_ranges(&sharding->model->units[unit], first, state->shard_nelem, ranges);
    shoal_op_t op    = {
           .kind  = SHOAL_OP_OPTIM,
           .dtype = sharding->spec->precision.gather,
           .optim = {.n        = state->shard_nelem,
                     .optim    = optim->kind,
                     .ranges   = shoal_program_ranges(sharding->program, ranges, count),
                     .count    = count,
                     .beta1    = (float)optim->beta1,
                     .beta2    = (float)optim->beta2,
                     .eps      = (float)optim->eps,
                     .clip     = (float)optim->clip,
                     .kappa    = (float)optim->kappa,
                     .snr_clip = (float)optim->snr_clip,
                     .delta    = (float)optim->delta},
    };
    shoal_program_emit(sharding->program, &op,
                       SHOAL_ARGS(shoal_whole(state->held[SHOAL_STATE_MASTER]), shoal_whole(state->held[SHOAL_STATE_M]),
                                  shoal_whole(state->held[SHOAL_STATE_V]), shoal_whole(state->held[SHOAL_STATE_TAU]),
                                  state->shard_gradient, shoal_whole(state->held[SHOAL_STATE_COPY]),
                                  (shoal_ref_t){sharding->stats, SHOAL_STATS_GNORM_SQ}, shoal_whole(sharding->scalars)));
}

void shoal_sharding_update(shoal_sharding_t *sharding)
{
    finish_pending(sharding);
    sharding->program->phase = SHOAL_PHASE_OPTIMIZER;
    emit_norm(sharding);
    for (int u = 0; u < sharding->model->nunits; u++) {
        sharding->program->unit = u;
        emit_optimizer(sharding, u);
    }
    sharding->program->unit = -1;
}
