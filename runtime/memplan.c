/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where buffers lie. State buffers lie one after the other in the order of their declaration, so that every program of a run (training,
 * validation) agrees on them. Arena buffers are placed largest first, each at the lowest offset where it overlaps no placed buffer whose
 * span meets its own: the greedy-by-size rule of Pisarchyk and Lee, "Efficient memory management for deep neural net
 * inference" (2020), within a few per cent of the lower bound on step programs.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/program.h"

static bool spans_meet(const shoal_buffer_t *a, const shoal_buffer_t *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int by_size_then_age(const void *left, const void *right)
{
    const shoal_buffer_t *a = *(shoal_buffer_t *const *)left, *b = *(shoal_buffer_t *const *)right;
    if (a->nbytes != b->nbytes) {
        return a->nbytes < b->nbytes ? 1 : -1;
    }
    if (a->first != b->first) {
        return a->first < b->first ? -1 : 1;
    }
    return a < b ? -1 : a > b;
}

static int by_offset(const void *left, const void *right)
{
    const shoal_buffer_t *a = *(shoal_buffer_t *const *)left, *b = *(shoal_buffer_t *const *)right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* The lowest offset for `buffer` among its placed contemporaries, which are given in order of their offsets. */
static size_t lowest_gap(const shoal_buffer_t *buffer, shoal_buffer_t *const *neighbours, int32_t count)
{
    size_t offset = 0;
    for (int32_t i = 0; i < count; i++) {
        if (offset + buffer->nbytes <= neighbours[i]->offset) {
            break;
        }
        size_t end = neighbours[i]->offset + neighbours[i]->nbytes;
        offset     = end > offset ? end : offset;
    }
    return offset;
}

static void place_arena(shoal_program_t *program, shoal_buffer_t **order, int32_t count, shoal_buffer_t **neighbours)
{
    qsort(order, (size_t)count, sizeof(*order), by_size_then_age);
    for (int32_t i = 0; i < count; i++) {
        int32_t nneighbours = 0;
        for (int32_t j = 0; j < i; j++) {
            if (spans_meet(order[i], order[j])) {
                neighbours[nneighbours++] = order[j];
            }
        }
        qsort(neighbours, (size_t)nneighbours, sizeof(*neighbours), by_offset);
        order[i]->offset      = lowest_gap(order[i], neighbours, nneighbours);
        size_t end            = order[i]->offset + order[i]->nbytes;
        program->arena_nbytes = end > program->arena_nbytes ? end : program->arena_nbytes;
    }
}

/* The fullest moment of the arena, and what is live then by category: the figures that `plan` prints. */
static shoal_status_t account(shoal_program_t *program)
{
    size_t *live = calloc((size_t)program->nnodes + 2, sizeof(*live));
    if (live == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int32_t b = 0; b < program->nbuffers; b++) {
        const shoal_buffer_t *buffer = &program->buffers[b];
        if (buffer->home == SHOAL_HOME_ARENA && buffer->first >= 0) {
            live[buffer->first] += buffer->nbytes;
            live[buffer->last + 1] -= buffer->nbytes; /* unsigned wrap-around cancels in the running sum */
        }
    }
    size_t  sum = 0, fullest = 0;
    int32_t moment = 0;
    for (int32_t i = 0; i < program->nnodes; i++) {
        sum += live[i];
        if (sum > fullest) {
            fullest = sum;
            moment  = i;
        }
    }
    free(live);
    for (int32_t b = 0; b < program->nbuffers; b++) {
        const shoal_buffer_t *buffer = &program->buffers[b];
        bool counted = buffer->home == SHOAL_HOME_STATE || (buffer->first >= 0 && buffer->first <= moment && moment <= buffer->last);
        program->memory_nbytes[buffer->memory] += counted ? buffer->nbytes : 0;
    }
    program->arena_slack_nbytes = program->arena_nbytes - fullest;
    return SHOAL_OK;
}

shoal_status_t shoal_program_place(shoal_program_t *program)
{
    shoal_buffer_t **order = malloc(2 * ((size_t)program->nbuffers + 1) * sizeof(shoal_buffer_t *));
    if (order == NULL) {
        shoal_error("no memory for the memory plan");
        return SHOAL_ERR_NO_MEMORY;
    }
    program->state_nbytes = program->arena_nbytes = 0;
    memset(program->memory_nbytes, 0, sizeof(program->memory_nbytes));
    int32_t count = 0;
    for (int32_t b = 0; b < program->nbuffers; b++) {
        shoal_buffer_t *buffer = &program->buffers[b];
        if (buffer->home == SHOAL_HOME_STATE) {
            buffer->offset = program->state_nbytes;
            program->state_nbytes += buffer->nbytes;
        } else if (buffer->first >= 0 && buffer->nbytes > 0) {
            order[count++] = buffer;
        }
    }
    place_arena(program, order, count, order + program->nbuffers);
    free(order);
    return account(program);
}
