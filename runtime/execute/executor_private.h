/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the two threads of an executor share. Ownership: everything is the calling thread's, except `cursor`, `started` and `started_ns`,
 * which are the progress thread's. They meet in the atomics, and sleep on `changed` (the calling thread) or in the transport
 * (the progress thread).
 */
#ifndef SHOAL_RUNTIME_EXECUTE_EXECUTOR_PRIVATE_H
#define SHOAL_RUNTIME_EXECUTE_EXECUTOR_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/execute/executor.h"

/* A program with its addresses worked out. */
typedef struct {
    const shoal_program_t *program;
    void *(*args)[SHOAL_OP_MAX_ARGS];  /* (nnodes) */
    int32_t         *lanes[SHOAL_LANE_COUNT]; /* node indices in lane order */
    shoal_op_times_t times;
    /* Of a device with a stream: page-locked tokens and targets, where each FETCH op's begin, waits, room, the recorded program, runs so far. */
    int32_t           *staging;
    size_t            *staging_first; /* (nnodes) */
    uint8_t           *awaited; /* (nnodes) the communication lane that a compute op waits for, or 0 */
    uint16_t          *room; /* (nnodes) multiprocessors that a compute op leaves to collectives; NULL: none ever */
    shoal_recording_t *recording;
    int                runs;
} shoal_bound_t;

struct shoal_executor {
    const shoal_step_t     *step;
    shoal_executor_config_t config;
    shoal_bound_t           bound[2]; /* training, validation */
    shoal_comm_t           *comms[SHOAL_LANE_COUNT];
    int64_t                 run_start_ns;
    bool                    every_op; /* the next run shall time every op */
    int                     run;      /* devices with a stream: counts runs, for the board */
    bool                    failed;   /* likewise: what a run has enqueued may never end */

    _Atomic(const shoal_bound_t *) current;
    atomic_int                     generation; /* counts runs: the progress thread starts over when it changes */
    atomic_int                     done[SHOAL_LANE_COUNT];
    atomic_int                     status; /* of the progress thread */
    atomic_bool                    quit;
    pthread_mutex_t                lock;
    pthread_cond_t                 changed;
    pthread_t                      thread;
    bool                           has_thread;

    int     cursor[SHOAL_LANE_COUNT];
    bool    started[SHOAL_LANE_COUNT];
    int64_t started_ns[SHOAL_LANE_COUNT];
};

/* executor_stream.c: what is different where the device has a stream. */
shoal_status_t shoal_executor_bind_stream(shoal_executor_t *executor, shoal_bound_t *bound);
shoal_status_t shoal_executor_prepare_stream(shoal_executor_t *executor, const shoal_bound_t *bound);
void           shoal_executor_forget_recordings(shoal_executor_t *executor);
void           shoal_executor_unbind_stream(shoal_executor_t *executor, shoal_bound_t *bound);
shoal_status_t shoal_executor_run_stream(shoal_executor_t *executor, shoal_bound_t *bound, shoal_times_t *times_p);

/* executor_wait.c: says, unless the status is SHOAL_OK, in which op that was; returns the status. */
shoal_status_t shoal_executor_name_failure(const shoal_bound_t *bound, int32_t i,
                                           shoal_status_t status);

/*
 * executor_wait.c: until everything enqueued is done. One rank sleeps until then. Among several,
 * SHOAL_ERR_PEER, with all that is known, when a rank is lost, or when no queue has moved for
 * timeout_s.
 */
shoal_status_t shoal_executor_await_stream(shoal_executor_t *executor, const shoal_bound_t *bound);

/* A collective's arguments as a transport takes them: progress.c. */
shoal_coll_t shoal_executor_coll(const shoal_node_t *node, void *const *args);

/* progress.c: the progress thread's body; the argument is the executor. */
void *shoal_executor_progress(void *executor);

#endif
