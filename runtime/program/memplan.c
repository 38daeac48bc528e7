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
#include "runtime/program/program.h"

/* A placed arena buffer. A scan over a table of these is quick: they are small and lie in a row. */
typedef struct {
    size_t  offset, end;
    int32_t first, last;
} place_t;

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

/* The lowest offset for `buffer` among the placed ones, which are in the order of their offsets. */
static size_t lowest_gap(const shoal_buffer_t *buffer, const place_t *places, int32_t count)
{
    size_t offset = 0;
    for (int32_t i = 0; i < count && places[i].offset < offset + buffer->nbytes; i++) {
        bool meets = places[i].first <= buffer->last && buffer->first <= places[i].last;
        offset     = meets && places[i].end > offset ? places[i].end : offset;
    }
    return offset;
}

/* Adds a buffer to the table behind all of lower or equal offset. */
static void insert_place(const shoal_buffer_t *buffer, place_t *places, int32_t count)
{
    int32_t low = 0, high = count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (places[middle].offset <= buffer->offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(&places[low + 1], &places[low], (size_t)(count - low) * sizeof(*places));
    places[low] = (place_t){buffer->offset, buffer->offset + buffer->nbytes, buffer->first,
                            buffer->last};
}

static void place_arena(shoal_program_t *program, shoal_buffer_t **order, int32_t count,
                        place_t *places)
{
    qsort(order, (size_t)count, sizeof(*order), by_size_then_age);
    for (int32_t i = 0; i < count; i++) {
        order[i]->offset = lowest_gap(order[i], places, i);
        insert_place(order[i], places, i);
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
    shoal_buffer_t **order  = malloc(((size_t)program->nbuffers + 1) * sizeof(*order));
    place_t         *places = malloc(((size_t)program->nbuffers + 1) * sizeof(*places));
    if (order == NULL || places == NULL) {
        free(order);
        free(places);
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
    place_arena(program, order, count, places);
    free(order);
    free(places);
    return account(program);
}
