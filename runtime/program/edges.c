/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which ops wait for which. A node carries a clock: for every lane, how many of its ops are certain to be done when the node
 * starts. A dependency that the clock covers already needs no edge, so an op waits at most once for each other lane and
 * most ops wait for nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/program/program.h"

/* Per buffer, for every lane: the last op that wrote it and the last that touched it, as sequence + 1 within the lane. */
typedef struct {
    int32_t wrote[SHOAL_LANE_COUNT];
    int32_t touched[SHOAL_LANE_COUNT];
} history_t;

typedef struct {
    int32_t done[SHOAL_LANE_COUNT];
} sync_clock_t;

/* Who had a stretch of the arena last. */
typedef struct {
    size_t            offset, end;
    shoal_buffer_id_t id;
} tenant_t;

typedef struct {
    shoal_program_t *program;
    history_t       *history; /* (nbuffers) */
    sync_clock_t    *clocks;  /* (nnodes): at the start of each node */
    int32_t         *at;      /* per lane: node index by sequence, lanes one after the other */
    tenant_t        *tenants; /* those whose space nobody has taken as a whole; room for nbuffers */
    int32_t          ntenants;
    int32_t          lane_base[SHOAL_LANE_COUNT];
    sync_clock_t     lane_clock[SHOAL_LANE_COUNT]; /* of the last node of each lane */
} linker_t;

/* The compute and the host lane share a thread on every device so far, but only lane order is assumed here. */
static void merge(sync_clock_t *into, const sync_clock_t *from)
{
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        into->done[lane] = from->done[lane] > into->done[lane] ? from->done[lane] : into->done[lane];
    }
}

static shoal_status_t add_wait(linker_t *linker, int32_t index, int lane, int32_t count)
{
    shoal_program_t *program = linker->program;
    if (program->nwaits == program->wait_room) {
        int32_t  room   = program->wait_room == 0 ? 256 : 2 * program->wait_room;
        int32_t *larger = realloc(program->waits, (size_t)room * sizeof(*larger));
        if (larger == NULL) {
            return SHOAL_ERR_NO_MEMORY;
        }
        program->waits     = larger;
        program->wait_room = room;
    }
    int32_t target                    = linker->at[linker->lane_base[lane] + count - 1];
    program->waits[program->nwaits++] = target;
    program->nodes[index].nwaits++;
    program->nodes[target].signals = true;
    merge(&linker->clocks[index], &linker->clocks[target]);
    linker->clocks[index].done[lane] = count;
    return SHOAL_OK;
}

/* Raises `need` to cover what must precede an access to a buffer. */
static void need_for_access(const history_t *history, bool writes, int32_t need[SHOAL_LANE_COUNT])
{
    const int32_t *after = writes ? history->touched : history->wrote;
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        need[lane] = after[lane] > need[lane] ? after[lane] : need[lane];
    }
}

/*
 * The first op on an arena buffer takes over space: it follows everything that touched earlier
 * tenants. A tenant whose space is taken as a whole leaves the table: who waits for the ops on its
 * successor waits for the ops on it, too.
 */
static void need_for_space(linker_t *linker, shoal_buffer_id_t id, int32_t need[SHOAL_LANE_COUNT])
{
    const shoal_buffer_t *buffer = &linker->program->buffers[id];
    tenant_t              mine   = {buffer->offset, buffer->offset + buffer->nbytes, id};
    for (int32_t i = 0; i < linker->ntenants;) {
        const tenant_t *other = &linker->tenants[i];
        if (other->offset >= mine.end || mine.offset >= other->end) {
            i++;
        } else if (other->id == id) {
            return; /* an op with two arguments in this buffer: the first has seen to it */
        } else {
            need_for_access(&linker->history[other->id], true, need);
            if (other->offset >= mine.offset && other->end <= mine.end) {
                linker->tenants[i] = linker->tenants[--linker->ntenants];
            } else {
                i++;
            }
        }
    }
    linker->tenants[linker->ntenants++] = mine;
}

typedef void (*visit_fn_t)(linker_t *linker, shoal_buffer_id_t id, bool writes, int32_t index, int32_t *need);

static void visit_buffers(linker_t *linker, int32_t index, visit_fn_t visit, int32_t *need)
{
    const shoal_node_t *node   = &linker->program->nodes[index];
    uint32_t            writes = shoal_op_writes(&node->op);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (node->args[i].id >= 0) {
            visit(linker, node->args[i].id, (writes >> i) & 1u, index, need);
        }
    }
    for (int i = 0; i < SHOAL_NODE_MAX_TOKENS; i++) {
        if (node->read_tokens[i] >= 0) {
            visit(linker, node->read_tokens[i], false, index, need);
        }
    }
    if (node->write_token >= 0) {
        visit(linker, node->write_token, true, index, need);
    }
}

static void visit_need(linker_t *linker, shoal_buffer_id_t id, bool writes, int32_t index, int32_t *need)
{
    const shoal_buffer_t *buffer = &linker->program->buffers[id];
    need_for_access(&linker->history[id], writes, need);
    if (buffer->home == SHOAL_HOME_ARENA && buffer->first == index && buffer->nbytes > 0) {
        need_for_space(linker, id, need);
    }
}

static void visit_note(linker_t *linker, shoal_buffer_id_t id, bool writes, int32_t index, int32_t *need)
{
    const shoal_node_t *node            = &linker->program->nodes[index];
    linker->history[id].touched[node->lane] = node->sequence + 1;
    if (writes) {
        linker->history[id].wrote[node->lane] = node->sequence + 1;
    }
    (void)need;
}

static shoal_status_t link_node(linker_t *linker, int32_t index)
{
    shoal_node_t *node                   = &linker->program->nodes[index];
    int32_t       need[SHOAL_LANE_COUNT] = {0};
    linker->clocks[index]                = linker->lane_clock[node->lane];
    linker->clocks[index].done[node->lane] = node->sequence;
    node->first_wait                     = linker->program->nwaits;
    node->nwaits                         = 0;
    visit_buffers(linker, index, visit_need, need);
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        if (need[lane] > linker->clocks[index].done[lane]) {
            SHOAL_TRY(add_wait(linker, index, lane, need[lane]));
        }
    }
    visit_buffers(linker, index, visit_note, need);
    linker->lane_clock[node->lane] = linker->clocks[index];
    return SHOAL_OK;
}

static shoal_status_t link_all(linker_t *linker)
{
    shoal_program_t *program = linker->program;
    int32_t          base    = 0;
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        linker->lane_base[lane] = base;
        base += program->lane_count[lane];
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        shoal_node_t *node = &program->nodes[i];
        node->signals      = false;
        linker->at[linker->lane_base[node->lane] + node->sequence] = i;
    }
    program->nwaits = 0;
    for (int32_t i = 0; i < program->nnodes; i++) {
        SHOAL_TRY(link_node(linker, i));
    }
    return SHOAL_OK;
}

shoal_status_t shoal_program_link(shoal_program_t *program)
{
    linker_t linker = {.program = program};
    linker.history  = calloc((size_t)program->nbuffers + 1, sizeof(*linker.history));
    linker.clocks   = calloc((size_t)program->nnodes + 1, sizeof(*linker.clocks));
    linker.at       = calloc((size_t)program->nnodes + 1, sizeof(*linker.at));
    linker.tenants  = calloc((size_t)program->nbuffers + 1, sizeof(*linker.tenants));
    shoal_status_t status = SHOAL_ERR_NO_MEMORY;
    if (linker.history != NULL && linker.clocks != NULL && linker.at != NULL &&
        linker.tenants != NULL) {
        status = link_all(&linker);
    }
    if (status == SHOAL_ERR_NO_MEMORY) {
        shoal_error("no memory for the program's edges");
    }
    free(linker.history);
    free(linker.clocks);
    free(linker.at);
    free(linker.tenants);
    return status;
}

/* The check derives the same order from scratch: a full reachability test by clocks, without pruning. */
static bool ordered(const shoal_program_t *program, const sync_clock_t *clocks, int32_t before, int32_t after)
{
    const shoal_node_t *node = &program->nodes[before];
    return clocks[after].done[node->lane] > node->sequence;
}

static bool overlap(const shoal_program_t *program, shoal_buffer_id_t a, shoal_buffer_id_t b)
{
    const shoal_buffer_t *x = &program->buffers[a], *y = &program->buffers[b];
    return a == b || (x->home == y->home && x->nbytes > 0 && y->nbytes > 0 && x->offset < y->offset + y->nbytes &&
                      y->offset < x->offset + x->nbytes);
}

static bool conflict(const shoal_program_t *program, const shoal_node_t *a, const shoal_node_t *b)
{
    uint32_t writes_a = shoal_op_writes(&a->op), writes_b = shoal_op_writes(&b->op);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        for (int j = 0; a->args[i].id >= 0 && j < SHOAL_OP_MAX_ARGS; j++) {
            bool writes = ((writes_a >> i) | (writes_b >> j)) & 1u;
            if (b->args[j].id >= 0 && writes && overlap(program, a->args[i].id, b->args[j].id)) {
                return true;
            }
        }
    }
    return false;
}

static void rebuild_clocks(const shoal_program_t *program, sync_clock_t *clocks)
{
    sync_clock_t lane_clock[SHOAL_LANE_COUNT];
    memset(lane_clock, 0, sizeof(lane_clock));
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node = &program->nodes[i];
        clocks[i]                = lane_clock[node->lane];
        for (int32_t w = 0; w < node->nwaits; w++) {
            int32_t             target = program->waits[node->first_wait + w];
            const shoal_node_t *before = &program->nodes[target];
            merge(&clocks[i], &clocks[target]);
            if (clocks[i].done[before->lane] < before->sequence + 1) {
                clocks[i].done[before->lane] = before->sequence + 1;
            }
        }
        lane_clock[node->lane]                   = clocks[i];
        lane_clock[node->lane].done[node->lane] = node->sequence + 1;
    }
}

shoal_status_t shoal_program_check(const shoal_program_t *program)
{
    shoal_status_t status = SHOAL_OK;
    sync_clock_t  *clocks = calloc((size_t)program->nnodes + 1, sizeof(*clocks));
    if (clocks == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    rebuild_clocks(program, clocks);
    for (int32_t i = 0; i < program->nnodes && status == SHOAL_OK; i++) {
        for (int a = 0; a < SHOAL_OP_MAX_ARGS; a++) {
            shoal_ref_t ref = program->nodes[i].args[a];
            if (ref.id >= program->nbuffers || (ref.id >= 0 && ref.offset >= program->buffers[ref.id].nelem)) {
                shoal_error("program check: argument %d of op %d lies outside its buffer", a, i);
                status = SHOAL_ERR_INTERNAL;
            }
        }
        for (int32_t j = 0; j < i; j++) {
            if (conflict(program, &program->nodes[j], &program->nodes[i]) && !ordered(program, clocks, j, i)) {
                shoal_error("program check: op %d conflicts with op %d but does not wait for it", i, j);
                status = SHOAL_ERR_INTERNAL;
            }
        }
    }
    free(clocks);
    return status;
}

/* Of a lane's collectives that are not certain to be done, the next one waits for the fewest compute ops: it alone decides. */
static void mark_overlaps(const shoal_program_t *program, const sync_clock_t *clocks, int lane, int32_t *at, uint8_t *lanes_p)
{
    int32_t n = 0;
    for (int32_t i = 0; i < program->nnodes; i++) {
        if ((int)program->nodes[i].lane == lane) {
            at[n++] = i;
        }
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        int32_t next = clocks[i].done[lane];
        if (program->nodes[i].lane == SHOAL_LANE_COMPUTE && next < n && !ordered(program, clocks, i, at[next])) {
            lanes_p[i] |= (uint8_t)(1u << lane);
        }
    }
}

shoal_status_t shoal_program_overlaps(const shoal_program_t *program, uint8_t *lanes_p)
{
    size_t         room   = (size_t)program->nnodes + 1;
    sync_clock_t  *clocks = calloc(room, sizeof(*clocks));
    int32_t       *at     = calloc(room, sizeof(*at));
    shoal_status_t status = clocks != NULL && at != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
    if (status == SHOAL_OK) {
        rebuild_clocks(program, clocks);
        memset(lanes_p, 0, (size_t)program->nnodes);
        mark_overlaps(program, clocks, SHOAL_LANE_GATHER, at, lanes_p);
        mark_overlaps(program, clocks, SHOAL_LANE_REDUCE, at, lanes_p);
    } else {
        shoal_error("no memory to see which ops overlap");
    }
    free(clocks);
    free(at);
    return status;
}
