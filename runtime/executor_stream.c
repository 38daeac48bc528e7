/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Running a program on a device with a stream, one rank: all tokens are fetched into page-locked memory first, then everything is enqueued
 * in list order, which satisfies every edge, and the step ends when the stream does. The first run of a program enqueues op
 * by op (libraries choose and load their kernels then), the second is recorded, later ones replay the recording.
 *
 * Three time stamps on the stream give the record's times. A run that is asked for the time of every op enqueues op by op
 * with a stamp behind each.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/time.h"
#include "runtime/executor_private.h"

enum { MARK_START, MARK_OPTIMIZER, MARK_END, MARK_FIRST_OP };

/* Where a FETCH op's tokens and targets wait for their copy. */
static int32_t *staged(const shoal_bound_t *bound, int32_t index)
{
    return bound->staging + bound->staging_first[index];
}

shoal_status_t shoal_executor_bind_stream(shoal_executor_t *executor, shoal_bound_t *bound)
{
    shoal_device_t           *device  = executor->config.device;
    const shoal_stream_ops_t *stream  = device->ops->stream;
    const shoal_program_t    *program = bound->program;
    size_t                    nelem   = 0;
    void                     *staging;
    if (executor->step->nranks > 1) {
        shoal_error("device %s: %d ranks: this build has no collectives between such devices; run one rank", device->ops->name,
                    executor->step->nranks);
        return SHOAL_ERR_CONFIG;
    }
    bound->staging_first = calloc((size_t)program->nnodes + 1, sizeof(*bound->staging_first));
    if (bound->staging_first == NULL) {
        shoal_error("no memory for the executor's tables");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        if (program->nodes[i].op.kind == SHOAL_OP_FETCH) {
            bound->staging_first[i] = nelem;
            nelem += 2 * program->nodes[i].op.fetch.N;
        }
    }
    SHOAL_TRY(stream->alloc_host(device, nelem * sizeof(int32_t), &staging));
    bound->staging = staging;
    return stream->reserve_marks(device, MARK_FIRST_OP + program->nnodes);
}

void shoal_executor_unbind_stream(shoal_executor_t *executor, shoal_bound_t *bound)
{
    const shoal_stream_ops_t *stream = executor->config.device->ops->stream;
    free(bound->staging_first);
    if (bound->staging != NULL) {
        stream->free_host(executor->config.device, bound->staging);
    }
    stream->recording_free(bound->recording);
}

static shoal_status_t fetch_all(shoal_executor_t *executor, const shoal_bound_t *bound, shoal_times_t *times)
{
    for (int32_t i = 0; i < bound->program->nnodes; i++) {
        const shoal_op_t *op = &bound->program->nodes[i].op;
        if (op->kind == SHOAL_OP_FETCH) {
            int64_t start = shoal_time_ns();
            SHOAL_TRY(executor->config.fetch(executor->config.fetch_context, op, staged(bound, i), staged(bound, i) + op->fetch.N));
            times->busy[SHOAL_LANE_HOST] += shoal_ms_since(start);
        }
    }
    return SHOAL_OK;
}

static shoal_status_t enqueue_node(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t i)
{
    shoal_device_t   *device = executor->config.device;
    const shoal_op_t *op     = &bound->program->nodes[i].op;
    if (op->kind == SHOAL_OP_FETCH) {
        size_t nbytes = op->fetch.N * sizeof(int32_t);
        SHOAL_TRY(device->ops->stream->enqueue_upload(device, bound->args[i][0], staged(bound, i), nbytes));
        return device->ops->stream->enqueue_upload(device, bound->args[i][1], staged(bound, i) + op->fetch.N, nbytes);
    }
    return device->ops->run(device, op, bound->args[i], executor->config.region + executor->step->workspace_offset);
}

static shoal_status_t name_failure(const shoal_bound_t *bound, int32_t i, shoal_status_t status)
{
    char what[128];
    if (status != SHOAL_OK) {
        shoal_program_describe(bound->program, i, what, sizeof(what));
        shoal_error("that was in %s", what);
    }
    return status;
}

/* The first op of a unit's forward or backward: how far the device has come is known to this grain. */
static bool begins_layer(const shoal_program_t *program, int32_t i)
{
    return i == 0 || program->nodes[i].unit != program->nodes[i - 1].unit || program->nodes[i].phase != program->nodes[i - 1].phase;
}

static shoal_status_t enqueue(shoal_executor_t *executor, const shoal_bound_t *bound, bool every_op)
{
    shoal_device_t           *device    = executor->config.device;
    const shoal_stream_ops_t *stream    = device->ops->stream;
    bool                      optimizer = false;
    SHOAL_TRY(stream->mark(device, MARK_START));
    for (int32_t i = 0; i < bound->program->nnodes; i++) {
        if (begins_layer(bound->program, i)) {
            SHOAL_TRY(stream->note(device, i));
        }
        if (!optimizer && bound->program->nodes[i].phase == SHOAL_PHASE_OPTIMIZER) {
            SHOAL_TRY(stream->mark(device, MARK_OPTIMIZER));
            optimizer = true;
        }
        SHOAL_TRY(name_failure(bound, i, enqueue_node(executor, bound, i)));
        if (executor->config.check_every_op) {
            SHOAL_TRY(name_failure(bound, i, device->ops->synchronize(device)));
        }
        if (every_op) {
            SHOAL_TRY(stream->mark(device, MARK_FIRST_OP + i));
        }
    }
    if (!optimizer) {
        SHOAL_TRY(stream->mark(device, MARK_OPTIMIZER));
    }
    return stream->mark(device, MARK_END);
}

/* Recorded once the libraries have seen every op, unless told not to. */
static shoal_status_t record(shoal_executor_t *executor, shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    SHOAL_TRY(device->ops->stream->record_begin(device));
    shoal_status_t    enqueued = enqueue(executor, bound, false);
    shoal_status_t    ended    = device->ops->stream->record_end(device, &bound->recording);
    if (enqueued != SHOAL_OK || ended != SHOAL_OK) {
        shoal_error("the step cannot be recorded; run.graph = false runs it op by op");
    }
    return enqueued != SHOAL_OK ? enqueued : ended;
}

static shoal_status_t launch(shoal_executor_t *executor, shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    bool            replay = executor->config.replay && bound->runs > 0 && !executor->every_op && !executor->config.check_every_op;
    bound->runs++;
    if (!replay) {
        return enqueue(executor, bound, executor->every_op);
    }
    if (bound->recording == NULL) {
        SHOAL_TRY(record(executor, bound));
    }
    return device->ops->stream->replay(device, bound->recording);
}

/* An error of the device shows up here, at the end of everything that was enqueued. */
static shoal_status_t await_end(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    shoal_status_t  status = device->ops->synchronize(device);
    int             i      = device->ops->stream->last_note(device);
    if (status != SHOAL_OK && i >= 0 && i < bound->program->nnodes) {
        name_failure(bound, i, status);
        shoal_error("or in an op of the same unit behind it; run.check_ops = true names the op");
    }
    return status;
}

static shoal_status_t read_op_times(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    int64_t         last   = 0;
    for (int32_t i = 0; i < bound->program->nnodes; i++) {
        double ms;
        SHOAL_TRY(device->ops->stream->between(device, MARK_START, MARK_FIRST_OP + i, &ms));
        bound->times.start[i] = last;
        bound->times.end[i]   = last = (int64_t)(ms * 1e6);
    }
    return SHOAL_OK;
}

shoal_status_t shoal_executor_run_stream(shoal_executor_t *executor, shoal_bound_t *bound, shoal_times_t *times_p)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    shoal_times_t             times  = {0};
    executor->run_start_ns           = shoal_time_ns();
    SHOAL_TRY(fetch_all(executor, bound, &times));
    SHOAL_TRY(launch(executor, bound));
    SHOAL_TRY(await_end(executor, bound));
    times.total = shoal_ms_since(executor->run_start_ns);
    SHOAL_TRY(stream->between(device, MARK_START, MARK_END, &times.busy[SHOAL_LANE_COMPUTE]));
    SHOAL_TRY(stream->between(device, MARK_OPTIMIZER, MARK_END, &times.optimizer));
    if (executor->every_op) {
        SHOAL_TRY(read_op_times(executor, bound));
    }
    *times_p = times;
    return SHOAL_OK;
}
