/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. What each kind is called and counts as is one row of `kinds`. */
#include "runtime/model/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/optim.h"

static const struct {
    const char    *name; /* behind the owner's */
    shoal_memory_t memory;
} kinds[] = {
    [SHOAL_STATE_MASTER]  = {"shard", SHOAL_MEMORY_SHARDS},
    [SHOAL_STATE_M]       = {"m", SHOAL_MEMORY_OPTIMIZER},
    [SHOAL_STATE_V]       = {"v", SHOAL_MEMORY_OPTIMIZER},
    [SHOAL_STATE_TAU]     = {"tau", SHOAL_MEMORY_OPTIMIZER},
    [SHOAL_STATE_COPY]    = {"copy", SHOAL_MEMORY_COPIES},
    [SHOAL_STATE_ROTARY]  = {"rotary table", SHOAL_MEMORY_CONSTANTS},
    [SHOAL_STATE_SCALARS] = {"scalars", SHOAL_MEMORY_CONSTANTS},
    [SHOAL_STATE_STATS]   = {"stats", SHOAL_MEMORY_CONSTANTS},
};
static_assert(sizeof(kinds) / sizeof(kinds[0]) == SHOAL_STATE_KINDS, "every kind has a row");

void shoal_state_free(shoal_state_t *state)
{
    free(state->entries);
    memset(state, 0, sizeof(*state));
}

void shoal_state_clear(shoal_state_t *state)
{
    state->nentries = 0;
}

bool shoal_state_keeps(const shoal_spec_t *spec, shoal_state_kind_t kind)
{
    switch (kind) {
    case SHOAL_STATE_MASTER:
        return true;
    case SHOAL_STATE_COPY:
        return spec->precision.gather != SHOAL_F32;
    default: /* m, v, tau, in the order in which optimizers need them */
        return (size_t)(kind - SHOAL_STATE_M) < shoal_optim_nstates(spec->optim.kind);
    }
}

static bool make_room(shoal_state_t *state)
{
    if (state->nentries < state->room) {
        return true;
    }
    int   room   = state->room == 0 ? 64 : 2 * state->room;
    void *larger = realloc(state->entries, (size_t)room * sizeof(*state->entries));
    if (larger == NULL) {
        return false;
    }
    state->entries = larger;
    state->room    = room;
    return true;
}

shoal_buffer_id_t shoal_state_declare(shoal_state_t *state, shoal_program_t *program,
                                      const char *owner, shoal_state_entry_t entry)
{
    if (!make_room(state)) {
        program->out_of_memory = true;
        return -1;
    }
    entry.buffer = shoal_program_buffer(program, SHOAL_HOME_STATE, kinds[entry.kind].memory,
                                        entry.dtype, entry.nelem, "%s %s", owner,
                                        kinds[entry.kind].name);
    state->entries[state->nentries++] = entry;
    return entry.buffer;
}
