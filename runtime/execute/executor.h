/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walks programs, step after step. The calling thread is the compute and host lanes: it runs ops in
 * list order. One progress thread serves the communication lanes: each lane's next collective
 * starts when its edges allow, all of them advance together, and the thread sleeps in the transport
 * when nothing moves. Lanes meet in counters of finished ops; a lane wakes another only after an op
 * that the plan says somebody waits for.
 *
 * The executor allocates when created and never after. It times every op and every wait: that is
 * the record and the trace.
 *
 * A device with a stream (kernels/device.h) is run differently: see executor_stream.c. It times
 * single ops only on request.
 *
 * Errors end the run: a collective that fails, whose peer is gone, or that makes no progress for
 * timeout_s (a hang), is SHOAL_ERR_PEER, logged with this rank's op, its unit and the rank that it
 * waits for. After an error the executor is fit only for destruction.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_EXECUTOR_H
#define SHOAL_RUNTIME_EXECUTE_EXECUTOR_H

#include <stdatomic.h>
#include <stdint.h>

#include "collectives/transport.h"
#include "kernels/device.h"
#include "runtime/execute/board.h"
#include "runtime/model/step.h"

/* Fills the tokens and targets of a FETCH op, in host memory. */
typedef shoal_status_t (*shoal_fetch_fn_t)(void *context, const shoal_op_t *op, int32_t *tokens_p, int32_t *targets_p);

typedef struct {
    shoal_device_t    *device;
    shoal_transport_t *transport;
    const char       (*hosts)[64]; /* (nranks): to name peers; may be NULL */
    shoal_board_t *board; /* devices with a stream: likewise, and to see who is gone; may be NULL */
    const atomic_int *lost; /* likewise: 1 + a rank that is gone, else 0 (bootstrap.h); or NULL */
    char              *region;     /* of the device, step->total_nbytes; by the transport's `alloc`, where it has one */
    size_t             timeout_s;
    shoal_fetch_fn_t   fetch;
    /* Called once a run while a device with a stream works on it: the time for what the next run will fetch. NULL: not. */
    void (*fetch_ahead)(void *context);
    void              *fetch_context; /* of both */
    bool               replay;         /* devices with a stream: record a program once and replay it, if the transport can be recorded */
    int                leave[SHOAL_LANE_COUNT]; /* likewise: multiprocessors that matmuls leave free while this lane may be at work */
    bool               check_every_op; /* likewise: wait behind every op, so that an error names the op; slow */
} shoal_executor_config_t;

/* Where the time of one run went; ms. Lanes are indexed by shoal_lane_t. */
typedef struct {
    double total;
    double busy[SHOAL_LANE_COUNT];    /* ops of the lane under way */
    double exposed[SHOAL_LANE_COUNT]; /* compute waited for the lane */
    double optimizer;                 /* compute ops of the optimizer phase */
} shoal_times_t;

/* Start and end of every op of the last run, ns from the run's start; -1 before the first. */
typedef struct {
    int64_t *start, *end;
} shoal_op_times_t;

typedef struct shoal_executor shoal_executor_t;

/* Collective over the ranks: it makes one group per communication lane. `step` outlives the executor. */
shoal_status_t shoal_executor_create(const shoal_step_t *step, const shoal_executor_config_t *config, shoal_executor_t **executor_p);
void           shoal_executor_destroy(shoal_executor_t *executor);

/* Runs one of the step's two programs from end to end; all lanes are empty when it returns. */
shoal_status_t shoal_executor_run(shoal_executor_t *executor, const shoal_program_t *program, shoal_times_t *times_p);

/* Whether the next runs shall time every op; devices without a stream always do. */
void shoal_executor_time_ops(shoal_executor_t *executor, bool every_op);

/* Of `program`'s last run; valid until its next. */
shoal_op_times_t shoal_executor_op_times(const shoal_executor_t *executor, const shoal_program_t *program);

/* The address of a buffer of either program. */
void *shoal_executor_address(const shoal_executor_t *executor, const shoal_program_t *program, shoal_ref_t ref);

#endif
