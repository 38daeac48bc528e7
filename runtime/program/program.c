/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Building and printing programs. Emission appends to growing arrays and remembers a failed append in a flag, so that model
 * code is a plain sequence of calls; shoal_program_plan is where that failure surfaces.
 */
#include "runtime/program/program.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

const char *shoal_lane_name(shoal_lane_t lane)
{
    static const char *const names[SHOAL_LANE_COUNT] = {"compute", "gather", "reduce", "host"};
    return names[lane];
}

const char *shoal_phase_name(shoal_phase_t phase)
{
    static const char *const names[SHOAL_PHASE_COUNT] = {"data", "forward", "backward", "optimizer"};
    return names[phase];
}

const char *shoal_memory_name(shoal_memory_t memory)
{
    static const char *const names[SHOAL_MEMORY_COUNT] = {"shards",       "shard copies", "optimizer",   "constants",
                                                          "gather slots", "gradients",    "activations", "workspace"};
    return names[memory];
}

void shoal_program_init(shoal_program_t *program, const char **unit_names, int32_t nunits)
{
    memset(program, 0, sizeof(*program));
    program->unit_names = unit_names;
    program->nunits     = nunits;
    program->unit       = -1;
}

void shoal_program_free(shoal_program_t *program)
{
    for (int32_t i = 0; i < program->nranges; i++) {
        free(program->ranges[i]);
    }
    free(program->ranges);
    free(program->buffers);
    free(program->nodes);
    free(program->waits);
    memset(program, 0, sizeof(*program));
}

/* Makes room for one more element; false, and the program's flag set, when memory ran out. */
static bool grow(shoal_program_t *program, void **array, int32_t count, int32_t *room, size_t element_nbytes)
{
    if (count < *room) {
        return true;
    }
    int32_t wanted = *room == 0 ? 64 : 2 * *room;
    void   *larger = realloc(*array, (size_t)wanted * element_nbytes);
    if (larger == NULL) {
        program->out_of_memory = true;
        return false;
    }
    *array = larger;
    *room  = wanted;
    return true;
}

shoal_buffer_id_t shoal_program_buffer(shoal_program_t *program, shoal_home_t home, shoal_memory_t memory, shoal_dtype_t dtype,
                                       size_t nelem, const char *format, ...)
{
    if (!grow(program, (void **)&program->buffers, program->nbuffers, &program->buffer_room, sizeof(shoal_buffer_t))) {
        return -1;
    }
    shoal_buffer_t *buffer = &program->buffers[program->nbuffers];
    size_t          nbytes = nelem * shoal_dtype_nbytes(dtype);
    *buffer                = (shoal_buffer_t){
                       .dtype  = dtype,
                       .nelem  = nelem,
                       .nbytes = (nbytes + SHOAL_BUFFER_ALIGN - 1) / SHOAL_BUFFER_ALIGN * SHOAL_BUFFER_ALIGN,
                       .home   = home,
                       .memory = memory,
                       .first  = -1,
                       .last   = -1,
    };
    va_list args;
    va_start(args, format);
    vsnprintf(buffer->name, sizeof(buffer->name), format, args);
    va_end(args);
    return program->nbuffers++;
}

static void touch(shoal_program_t *program, shoal_buffer_id_t id, int32_t index)
{
    if (id < 0) {
        return;
    }
    shoal_buffer_t *buffer = &program->buffers[id];
    buffer->first          = buffer->first < 0 ? index : buffer->first;
    buffer->last           = index > buffer->last ? index : buffer->last;
}

int32_t shoal_program_emit(shoal_program_t *program, const shoal_op_t *op, int nargs, const shoal_ref_t *args)
{
    if (program->out_of_memory ||
        !grow(program, (void **)&program->nodes, program->nnodes, &program->node_room, sizeof(shoal_node_t))) {
        return -1;
    }
    int32_t       index = program->nnodes++;
    shoal_node_t *node  = &program->nodes[index];
    *node               = (shoal_node_t){
                      .op          = *op,
                      .read_tokens = {-1, -1},
                      .write_token = -1,
                      .lane        = shoal_op_row(op->kind)->lane,
                      .phase       = program->phase,
                      .unit        = program->unit,
    };
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        node->args[i] = i < nargs ? args[i] : SHOAL_NO_REF;
        touch(program, node->args[i].id, index);
    }
    return index;
}

void shoal_program_set_lane(shoal_program_t *program, int32_t index, shoal_lane_t lane)
{
    if (index >= 0) {
        program->nodes[index].lane = lane;
    }
}

void shoal_program_hold(shoal_program_t *program, shoal_buffer_id_t id)
{
    if (!program->out_of_memory) {
        touch(program, id, program->nnodes - 1);
    }
}

void shoal_program_read_token(shoal_program_t *program, shoal_buffer_id_t token)
{
    int32_t index = program->nnodes - 1;
    while (index >= 0 && program->nodes[index].lane != SHOAL_LANE_COMPUTE) {
        index--;
    }
    for (int i = 0; index >= 0 && i < SHOAL_NODE_MAX_TOKENS; i++) {
        if (program->nodes[index].read_tokens[i] < 0) {
            program->nodes[index].read_tokens[i] = token;
            return;
        }
    }
    /* More tokens end on one op than it has room for: an emission error that the plan reports. */
    program->out_of_memory = true;
}

const shoal_range_t *shoal_program_ranges(shoal_program_t *program, const shoal_range_t *ranges, size_t count)
{
    shoal_range_t **larger = realloc(program->ranges, ((size_t)program->nranges + 1) * sizeof(*larger));
    shoal_range_t  *copy   = malloc((count > 0 ? count : 1) * sizeof(*copy));
    if (larger != NULL) {
        program->ranges = larger;
    }
    if (larger == NULL || copy == NULL) {
        free(copy);
        program->out_of_memory = true;
        return NULL;
    }
    if (count > 0) {
        memcpy(copy, ranges, count * sizeof(*copy));
    }
    program->ranges[program->nranges++] = copy;
    return copy;
}

shoal_status_t shoal_program_plan(shoal_program_t *program)
{
    if (program->out_of_memory) {
        shoal_error("no memory for the program's list");
        return SHOAL_ERR_NO_MEMORY;
    }
    memset(program->lane_count, 0, sizeof(program->lane_count));
    for (int32_t i = 0; i < program->nnodes; i++) {
        program->nodes[i].sequence = program->lane_count[program->nodes[i].lane]++;
    }
    SHOAL_TRY(shoal_program_place(program));
    SHOAL_TRY(shoal_program_link(program));
    const char *check = getenv("SHOAL_DEBUG_CHECK");
    return check != NULL && strcmp(check, "1") == 0 ? shoal_program_check(program) : SHOAL_OK;
}

void shoal_program_describe(const shoal_program_t *program, int32_t index, char *text_p, size_t nbytes)
{
    const shoal_node_t *node = &program->nodes[index];
    if (node->unit >= 0) {
        snprintf(text_p, nbytes, "%s of %s, %s", shoal_op_kind_name(node->op.kind), program->unit_names[node->unit],
                 shoal_phase_name(node->phase));
    } else {
        snprintf(text_p, nbytes, "%s, %s", shoal_op_kind_name(node->op.kind), shoal_phase_name(node->phase));
    }
}

static void print_args(const shoal_program_t *program, const shoal_node_t *node, FILE *to)
{
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        static const char *const marks[] = {
            [SHOAL_ROLE_NONE]   = "?",
            [SHOAL_ROLE_READ]   = "<",
            [SHOAL_ROLE_WRITE]  = ">",
            [SHOAL_ROLE_UPDATE] = "<>",
        };
        if (node->args[i].id < 0) {
            continue;
        }
        fprintf(to, " %s%s", marks[shoal_op_role(&node->op, i)],
                program->buffers[node->args[i].id].name);
        if (node->args[i].offset > 0) {
            fprintf(to, "+%zu", node->args[i].offset);
        }
    }
}

void shoal_program_print(const shoal_program_t *program, FILE *to)
{
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node = &program->nodes[i];
        fprintf(to, "%5d %-7s %-9s %-12s %-14s", i, shoal_lane_name(node->lane), shoal_phase_name(node->phase),
                node->unit >= 0 ? program->unit_names[node->unit] : "-", shoal_op_kind_name(node->op.kind));
        print_args(program, node, to);
        for (int32_t w = 0; w < node->nwaits; w++) {
            fprintf(to, "%s%d", w == 0 ? "  waits " : ",", program->waits[node->first_wait + w]);
        }
        fputc('\n', to);
    }
}
