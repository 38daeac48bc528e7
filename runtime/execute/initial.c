/* SPDX-License-Identifier: BSD-3-Clause */
/* One walk over the state table, whose entries stand in an order that makes a copy follow its parameters. */
#include "runtime/execute/initial.h"

#include <stdlib.h>

#include "base/log.h"
#include "runtime/model/transformer.h"

typedef struct {
    const shoal_step_t *step;
    shoal_device_t     *device;
    char               *region;
} filling_t;

static char *at(const filling_t *filling, shoal_buffer_id_t id)
{
    return filling->region + filling->step->train.buffers[id].offset;
}

static shoal_status_t run_op(const filling_t *filling, const shoal_op_t *op, void *first, void *second)
{
    void *args[SHOAL_OP_MAX_ARGS] = {first, second};
    return filling->device->ops->run(filling->device, op, args,
                                     filling->region + filling->step->workspace_offset);
}

static shoal_status_t fill_master(const filling_t *filling, const shoal_state_entry_t *entry)
{
    const shoal_step_t *step = filling->step;
    shoal_op_t          ops[SHOAL_T_COUNT + 1];
    size_t              offsets[SHOAL_T_COUNT + 1];
    size_t count = shoal_unit_initial(&step->model.units[entry->unit], step->spec->run.seed,
                                      entry->first, entry->nelem, ops, offsets);
    for (size_t i = 0; i < count; i++) {
        float *values = (float *)at(filling, entry->buffer) + offsets[i];
        SHOAL_TRY(run_op(filling, &ops[i], values, NULL));
    }
    return SHOAL_OK;
}

static shoal_status_t fill_copy(const filling_t *filling, const shoal_state_entry_t *entry)
{
    const shoal_unit_state_t *unit = &filling->step->sharding.units[entry->unit];
    shoal_op_t cast = {.kind  = SHOAL_OP_CAST,
                       .dtype = SHOAL_F32,
                       .cast  = {entry->nelem, SHOAL_F32, entry->dtype, false}};
    return run_op(filling, &cast, at(filling, unit->held[SHOAL_STATE_MASTER]),
                  at(filling, entry->buffer));
}

static shoal_status_t fill_zero(const filling_t *filling, const shoal_state_entry_t *entry)
{
    shoal_op_t zero = {.kind = SHOAL_OP_NORMAL, .dtype = SHOAL_F32, .normal = {.n = entry->nelem}};
    return run_op(filling, &zero, at(filling, entry->buffer), NULL);
}

static shoal_status_t fill_rotary(const filling_t *filling, const shoal_state_entry_t *entry)
{
    size_t nbytes = entry->nelem * sizeof(float);
    float *table  = malloc(nbytes);
    if (table == NULL) {
        shoal_error("no memory for the rotary table");
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_transformer_rope_table(&filling->step->spec->model, table);
    shoal_status_t status = filling->device->ops->upload(filling->device, at(filling, entry->buffer),
                                                         table, nbytes);
    free(table);
    return status;
}

static shoal_status_t fill_entry(const filling_t *filling, const shoal_state_entry_t *entry)
{
    switch (entry->kind) {
    case SHOAL_STATE_MASTER:
        return fill_master(filling, entry);
    case SHOAL_STATE_COPY:
        return fill_copy(filling, entry);
    case SHOAL_STATE_M:
    case SHOAL_STATE_V:
    case SHOAL_STATE_TAU:
        return fill_zero(filling, entry);
    case SHOAL_STATE_ROTARY:
        return fill_rotary(filling, entry);
    case SHOAL_STATE_SCALARS:
    case SHOAL_STATE_STATS:
    case SHOAL_STATE_KINDS:
        break;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_initial_fill(const shoal_step_t *step, shoal_device_t *device, char *region)
{
    filling_t filling = {step, device, region};
    for (int i = 0; i < step->state.nentries; i++) {
        SHOAL_TRY(fill_entry(&filling, &step->state.entries[i]));
    }
    return SHOAL_OK;
}
