/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program: the list of ops that one training step executes, over named buffers. It is emitted once, then planned (buffers get
 * offsets, ops get edges), then executed step after step, costed, drawn or printed.
 *
 * The order of the list has two meanings. Within a lane it is the order of execution. Across lanes it is the order of
 * *liveness*: a buffer occupies its place from the first op of the list that names it to the last (or to a later `hold`), and two
 * buffers share space only when these spans are disjoint. Lanes otherwise run as far ahead as their edges let them. So a
 * gather emitted earlier may run further ahead of its use, and a gradient held longer has more time to travel.
 *
 * Edges are derived, never written by hand: an op waits for the last writer of what it reads, for the last writer and the
 * readers since of what it writes, and for every op that touched a buffer whose space its own buffer takes over.
 */
#ifndef SHOAL_RUNTIME_PROGRAM_PROGRAM_H
#define SHOAL_RUNTIME_PROGRAM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "kernels/op_table.h"

/* `state` lives for the run, `arena` from first to last use within a step. */
typedef enum { SHOAL_HOME_STATE, SHOAL_HOME_ARENA } shoal_home_t;

/* What a buffer is for, as the memory table prints it. */
typedef enum {
    SHOAL_MEMORY_SHARDS,      /* fp32 master parameters */
    SHOAL_MEMORY_COPIES,      /* the shards again, in the gather type */
    SHOAL_MEMORY_OPTIMIZER,   /* m, v, tau */
    SHOAL_MEMORY_CONSTANTS,   /* rotary table, step scalars */
    SHOAL_MEMORY_GATHER,      /* gathered parameters */
    SHOAL_MEMORY_GRADIENTS,   /* unsharded and sharded */
    SHOAL_MEMORY_ACTIVATIONS, /* tokens, activations and their gradients */
    SHOAL_MEMORY_WORKSPACE,   /* kernel scratch, collective staging */
    SHOAL_MEMORY_COUNT
} shoal_memory_t;

enum { SHOAL_NAME_NBYTES = 40 };

typedef int32_t shoal_buffer_id_t;

typedef struct {
    char           name[SHOAL_NAME_NBYTES];
    shoal_dtype_t  dtype;
    size_t         nelem;
    size_t         nbytes; /* nelem elements, rounded up to SHOAL_BUFFER_ALIGN; 0 for a token that only carries order */
    shoal_home_t   home;
    shoal_memory_t memory;
    int32_t        first, last; /* span in the list; first is -1 until an op names the buffer */
    size_t         offset;      /* from the start of its home, set by the plan */
} shoal_buffer_t;

enum { SHOAL_BUFFER_ALIGN = 64 };

/* A place inside a buffer: what an op's argument is. id -1: no argument. */
typedef struct {
    shoal_buffer_id_t id;
    size_t            offset; /* in elements */
} shoal_ref_t;

#define SHOAL_NO_REF ((shoal_ref_t){.id = -1})

/* Forward, backward, ...: for the drawing, the record and the names in errors. */
typedef enum {
    SHOAL_PHASE_DATA,
    SHOAL_PHASE_FORWARD,
    SHOAL_PHASE_BACKWARD,
    SHOAL_PHASE_OPTIMIZER,
    SHOAL_PHASE_COUNT
} shoal_phase_t;

enum { SHOAL_NODE_MAX_TOKENS = 2 };

/* An op in its place. */
typedef struct {
    shoal_op_t        op;
    shoal_ref_t       args[SHOAL_OP_MAX_ARGS];
    shoal_buffer_id_t read_tokens[SHOAL_NODE_MAX_TOKENS]; /* buffers it also counts as reading; -1: none */
    shoal_buffer_id_t write_token;                        /* likewise as writing */
    shoal_lane_t      lane;
    shoal_phase_t     phase;
    int32_t           unit;        /* index into the model's units, or -1 */
    int32_t           sequence;    /* position within its lane */
    int32_t           first_wait;  /* into program->waits */
    int32_t           nwaits;
    bool              signals;     /* an op of another lane waits for this one */
} shoal_node_t;

typedef struct {
    shoal_buffer_t *buffers;
    int32_t         nbuffers, buffer_room;
    shoal_node_t   *nodes;
    int32_t         nnodes, node_room;
    int32_t        *waits; /* node indices */
    int32_t         nwaits, wait_room;
    shoal_range_t **ranges; /* owned range tables */
    int32_t         nranges;
    int32_t         lane_count[SHOAL_LANE_COUNT];
    const char    **unit_names; /* (nunits) borrowed from the model */
    int32_t         nunits;
    /* Emission state: what the next op inherits. */
    shoal_phase_t phase;
    int32_t       unit;
    bool          out_of_memory; /* an append failed: shoal_program_plan reports it, so that emission reads like model code */
    /* Results of the plan. */
    size_t state_nbytes, arena_nbytes;
    size_t memory_nbytes[SHOAL_MEMORY_COUNT]; /* state buffers, and arena buffers live at the arena's fullest moment */
    size_t arena_slack_nbytes;                /* arena_nbytes less what is live at that moment */
} shoal_program_t;

void shoal_program_init(shoal_program_t *program, const char **unit_names, int32_t nunits);
void shoal_program_free(shoal_program_t *program);

/* Declares a buffer; the name is printf-formatted and cut to fit. nelem 0 makes a token. */
shoal_buffer_id_t shoal_program_buffer(shoal_program_t *program, shoal_home_t home, shoal_memory_t memory, shoal_dtype_t dtype,
                                       size_t nelem, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Appends an op with `nargs` arguments, the rest absent, and returns its index. The lane follows from the kind. */
int32_t shoal_program_emit(shoal_program_t *program, const shoal_op_t *op, int nargs, const shoal_ref_t *args);

/* Moves node `index` to another lane before the plan (a collective whose lane is not its kind's usual one). */
void shoal_program_set_lane(shoal_program_t *program, int32_t index, shoal_lane_t lane);

/* Keeps an arena buffer alive up to the present end of the list. */
void shoal_program_hold(shoal_program_t *program, shoal_buffer_id_t id);

/* Makes the last compute op of the list count as a reader of a token. */
void shoal_program_read_token(shoal_program_t *program, shoal_buffer_id_t token);

/* Copies a range table into the program; NULL when memory ran out (see out_of_memory). */
const shoal_range_t *shoal_program_ranges(shoal_program_t *program, const shoal_range_t *ranges, size_t count);

/* Computes sequences, offsets and edges. SHOAL_ERR_NO_MEMORY, or SHOAL_ERR_INTERNAL when shoal_program_check fails. */
shoal_status_t shoal_program_plan(shoal_program_t *program);

/*
 * Checks a planned program: arguments inside their buffers, no two live buffers overlap, every op whose buffers another op touched
 * before is ordered after it. Quadratic; run by tests and when SHOAL_DEBUG_CHECK=1. Logs what is wrong.
 */
shoal_status_t shoal_program_check(const shoal_program_t *program);

/*
 * Which communication lanes may be at work while a compute op runs: 1 << lane for every lane with a collective that neither must be
 * done before the op starts nor must wait for its end. lanes_p (nnodes), 0 for ops of other lanes. SHOAL_ERR_NO_MEMORY.
 */
shoal_status_t shoal_program_overlaps(const shoal_program_t *program, uint8_t *lanes_p);

const char *shoal_lane_name(shoal_lane_t lane);
const char *shoal_phase_name(shoal_phase_t phase);
const char *shoal_memory_name(shoal_memory_t memory);

/* Writes "reduce_scatter of block 17, backward" for people. */
void shoal_program_describe(const shoal_program_t *program, int32_t index, char *text_p, size_t nbytes);

/* Prints the list, one op a line: index, lane, kind, unit, phase, buffers with offsets, waits. */
void shoal_program_print(const shoal_program_t *program, FILE *to);

/* memplan.c: offsets of state and arena buffers. edges.c: waits. Called by shoal_program_plan. */
shoal_status_t shoal_program_place(shoal_program_t *program);
shoal_status_t shoal_program_link(shoal_program_t *program);

#endif
