/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Running a program on a device with a stream. All tokens are fetched into page-locked memory first, which is a copy of what was read
 * ahead while the device worked on the run before, for it is idle meanwhile (fetch_ahead); then everything is enqueued in list order, each
 * op on the queue of its lane, with a signal behind every op that another queue waits for; and the step ends when the queues do.
 * Collectives are enqueued too, by a transport that can, so there is no progress thread. The first run of a program enqueues op by op
 * (libraries choose and load their kernels then), the second is recorded, later ones replay the recording; where the transport's
 * collectives cannot be recorded, every run enqueues op by op.
 *
 * Time stamps on the queues give the record's times: the step, the optimizer, each collective, and each wait of compute for
 * another queue, which is exposed communication. A run that is asked for the time of every op enqueues op by op with a stamp
 * behind each.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"
#include "runtime/execute/executor_private.h"

/*
 * Marks: three of the step, a pair around compute's wait at the end for each communication queue, then per node: before and after a compute
 * op's waits or, of a collective, before it; and behind the op.
 */
enum { MARK_START, MARK_OPTIMIZER, MARK_END, MARK_JOIN, MARK_FIRST_OP = MARK_JOIN + 2 * SHOAL_QUEUE_COUNT, MARKS_PER_OP = 3 };

/* Signals: one per node, then one per queue for the step's beginning and end. */
static int join_signal(const shoal_program_t *program, shoal_queue_t queue)
{
    return program->nnodes + (int)queue;
}

static int before_op(int32_t i)
{
    return MARK_FIRST_OP + MARKS_PER_OP * i;
}

static int after_wait(int32_t i)
{
    return before_op(i) + 1;
}

static int after_op(int32_t i)
{
    return before_op(i) + 2;
}

static_assert((int)SHOAL_QUEUE_GATHER == (int)SHOAL_LANE_GATHER && (int)SHOAL_QUEUE_REDUCE == (int)SHOAL_LANE_REDUCE, "named alike");

static shoal_queue_t queue_of(const shoal_node_t *node)
{
    return node->lane == SHOAL_LANE_GATHER ? SHOAL_QUEUE_GATHER : node->lane == SHOAL_LANE_REDUCE ? SHOAL_QUEUE_REDUCE : SHOAL_QUEUE_COMPUTE;
}

static bool is_collective(const shoal_node_t *node)
{
    return queue_of(node) != SHOAL_QUEUE_COMPUTE;
}

/* Where a FETCH op's tokens and targets wait for their copy. */
static int32_t *staged(const shoal_bound_t *bound, int32_t index)
{
    return bound->staging + bound->staging_first[index];
}

/* The communication lane that a compute op waits for, or 0, which is compute itself. */
static uint8_t awaited_lane(const shoal_program_t *program, const shoal_node_t *node)
{
    uint8_t lane = 0;
    for (int32_t w = 0; w < node->nwaits && !is_collective(node); w++) {
        const shoal_node_t *target = &program->nodes[program->waits[node->first_wait + w]];
        lane                       = is_collective(target) ? (uint8_t)target->lane : lane;
    }
    return lane;
}

/* What each op leaves to the collectives beside it. The device is asked now whether it can leave that much. */
static shoal_status_t plan_room(const shoal_executor_t *executor, shoal_bound_t *bound)
{
    const shoal_stream_ops_t *stream = executor->config.device->ops->stream;
    const int                *leave  = executor->config.leave;
    int32_t                   nnodes = bound->program->nnodes;
    if (leave[SHOAL_LANE_GATHER] + leave[SHOAL_LANE_REDUCE] == 0) {
        return SHOAL_OK;
    }
    SHOAL_TRY(stream->leave_room(executor->config.device, leave[SHOAL_LANE_GATHER] + leave[SHOAL_LANE_REDUCE]));
    SHOAL_TRY(stream->leave_room(executor->config.device, 0));
    uint8_t *lanes = calloc((size_t)nnodes + 1, sizeof(*lanes));
    bound->room    = calloc((size_t)nnodes + 1, sizeof(*bound->room));
    if (lanes == NULL || bound->room == NULL) {
        free(lanes);
        shoal_error("no memory for the executor's tables");
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = shoal_program_overlaps(bound->program, lanes);
    for (int32_t i = 0; i < nnodes; i++) {
        for (int lane = SHOAL_LANE_GATHER; lane <= SHOAL_LANE_REDUCE; lane++) {
            bound->room[i] = (uint16_t)(bound->room[i] + ((lanes[i] >> lane) & 1) * leave[lane]);
        }
    }
    free(lanes);
    return status;
}

shoal_status_t shoal_executor_bind_stream(shoal_executor_t *executor, shoal_bound_t *bound)
{
    shoal_device_t           *device  = executor->config.device;
    const shoal_stream_ops_t *stream  = device->ops->stream;
    const shoal_program_t    *program = bound->program;
    size_t                    nelem   = 0;
    void                     *staging;
    bound->staging_first   = calloc((size_t)program->nnodes + 1, sizeof(*bound->staging_first));
    bound->awaited = calloc((size_t)program->nnodes + 1, sizeof(*bound->awaited));
    if (bound->staging_first == NULL || bound->awaited == NULL) {
        shoal_error("no memory for the executor's tables");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        if (program->nodes[i].op.kind == SHOAL_OP_FETCH) {
            bound->staging_first[i] = nelem;
            nelem += 2 * program->nodes[i].op.fetch.N;
        }
        bound->awaited[i] = awaited_lane(program, &program->nodes[i]);
    }
    SHOAL_TRY(plan_room(executor, bound));
    SHOAL_TRY(stream->alloc_host(device, nelem * sizeof(int32_t), &staging));
    bound->staging = staging;
    SHOAL_TRY(stream->reserve_marks(device, before_op(program->nnodes)));
    return stream->reserve_signals(device, program->nnodes + SHOAL_QUEUE_COUNT);
}

/* Every compute op, on an arena of noise: here, where no other rank waits, and not in the first step, where all would. */
shoal_status_t shoal_executor_prepare_stream(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    const shoal_step_t       *step   = executor->step;
    char                     *region = executor->config.region;
    SHOAL_TRY(stream->fill_noise(device, region + step->arena_offset, step->total_nbytes - step->arena_offset));
    for (int32_t i = 0; i < bound->program->nnodes; i++) {
        const shoal_node_t *node = &bound->program->nodes[i];
        if (node->lane != SHOAL_LANE_COMPUTE) {
            continue;
        }
        if (bound->room != NULL) {
            SHOAL_TRY(stream->leave_room(device, bound->room[i]));
        }
        SHOAL_TRY(shoal_executor_name_failure(
            bound, i,
            stream->prepare(device, &node->op, bound->args[i], region + step->workspace_offset)));
    }
    SHOAL_TRY(bound->room != NULL ? stream->leave_room(device, 0) : SHOAL_OK);
    return device->ops->synchronize(device);
}

void shoal_executor_forget_recordings(shoal_executor_t *executor)
{
    for (int b = 0; b < 2; b++) {
        executor->config.device->ops->stream->recording_free(executor->bound[b].recording);
        executor->bound[b].recording = NULL;
    }
}

void shoal_executor_unbind_stream(shoal_executor_t *executor, shoal_bound_t *bound)
{
    const shoal_stream_ops_t *stream = executor->config.device->ops->stream;
    free(bound->staging_first);
    free(bound->awaited);
    free(bound->room);
    if (bound->staging != NULL) {
        stream->free_host(executor->config.device, bound->staging);
    }
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

/* ---- one node ---- */

/* Waits for nodes of other queues; its own queue keeps the list's order anyway. */
static shoal_status_t enqueue_waits(shoal_executor_t *executor, const shoal_program_t *program, const shoal_node_t *node)
{
    shoal_device_t *device = executor->config.device;
    for (int32_t w = 0; w < node->nwaits; w++) {
        int32_t target = program->waits[node->first_wait + w];
        if (queue_of(&program->nodes[target]) != queue_of(node)) {
            SHOAL_TRY(device->ops->stream->await(device, queue_of(node), target));
        }
    }
    return SHOAL_OK;
}

static shoal_status_t enqueue_fetch(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t i)
{
    shoal_device_t   *device = executor->config.device;
    const shoal_op_t *op     = &bound->program->nodes[i].op;
    size_t            nbytes = op->fetch.N * sizeof(int32_t);
    SHOAL_TRY(device->ops->stream->enqueue_upload(device, bound->args[i][0], staged(bound, i), nbytes));
    return device->ops->stream->enqueue_upload(device, bound->args[i][1], staged(bound, i) + op->fetch.N, nbytes);
}

static shoal_status_t enqueue_compute(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t i)
{
    shoal_device_t   *device    = executor->config.device;
    const shoal_op_t *op        = &bound->program->nodes[i].op;
    void             *workspace = executor->config.region + executor->step->workspace_offset;
    if (op->kind == SHOAL_OP_FETCH) {
        return enqueue_fetch(executor, bound, i);
    }
    if (bound->room != NULL) {
        SHOAL_TRY(device->ops->stream->leave_room(device, bound->room[i]));
    }
    return device->ops->run(device, op, bound->args[i], workspace);
}

static shoal_status_t enqueue_collective(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t i)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    const shoal_node_t       *node   = &bound->program->nodes[i];
    shoal_comm_t             *comm   = executor->comms[node->lane];
    shoal_coll_t              coll   = shoal_executor_coll(node, bound->args[i]);
    SHOAL_TRY(stream->note(device, queue_of(node), i));
    SHOAL_TRY(stream->mark(device, queue_of(node), before_op(i)));
    SHOAL_TRY(comm->transport->ops->enqueue(comm, &coll, stream->native(device, queue_of(node))));
    return stream->mark(device, queue_of(node), after_op(i));
}

/* The first op of a unit's forward or backward: how far compute has come is known to this grain. */
static bool begins_layer(const shoal_program_t *program, int32_t i)
{
    return i == 0 || program->nodes[i].unit != program->nodes[i - 1].unit || program->nodes[i].phase != program->nodes[i - 1].phase;
}

static shoal_status_t enqueue_node(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t i)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    const shoal_node_t       *node   = &bound->program->nodes[i];
    bool                      timed   = !is_collective(node) && bound->awaited[i];
    if (timed) {
        SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, before_op(i)));
    }
    SHOAL_TRY(enqueue_waits(executor, bound->program, node));
    if (timed) {
        SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, after_wait(i)));
    }
    if (is_collective(node)) {
        SHOAL_TRY(enqueue_collective(executor, bound, i));
    } else {
        if (begins_layer(bound->program, i)) {
            SHOAL_TRY(stream->note(device, SHOAL_QUEUE_COMPUTE, i));
        }
        SHOAL_TRY(enqueue_compute(executor, bound, i));
    }
    return node->signals ? stream->signal(device, queue_of(node), i) : SHOAL_OK;
}

/* ---- a step ---- */

/* Communication queues start with compute and not before: a recording wants it, and the memory is shared with the step before. */
static shoal_status_t fork_queues(shoal_executor_t *executor, const shoal_program_t *program)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    if (executor->step->nranks == 1) {
        return SHOAL_OK;
    }
    SHOAL_TRY(stream->signal(device, SHOAL_QUEUE_COMPUTE, join_signal(program, SHOAL_QUEUE_COMPUTE)));
    SHOAL_TRY(stream->await(device, SHOAL_QUEUE_GATHER, join_signal(program, SHOAL_QUEUE_COMPUTE)));
    return stream->await(device, SHOAL_QUEUE_REDUCE, join_signal(program, SHOAL_QUEUE_COMPUTE));
}

static shoal_status_t join_queues(shoal_executor_t *executor, const shoal_program_t *program)
{
    shoal_device_t           *device = executor->config.device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    for (int queue = SHOAL_QUEUE_GATHER; executor->step->nranks > 1 && queue <= SHOAL_QUEUE_REDUCE; queue++) {
        SHOAL_TRY(stream->signal(device, (shoal_queue_t)queue, join_signal(program, (shoal_queue_t)queue)));
        SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_JOIN + 2 * queue));
        SHOAL_TRY(stream->await(device, SHOAL_QUEUE_COMPUTE, join_signal(program, (shoal_queue_t)queue)));
        SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_JOIN + 2 * queue + 1));
    }
    return SHOAL_OK;
}

static shoal_status_t enqueue(shoal_executor_t *executor, const shoal_bound_t *bound, bool every_op)
{
    shoal_device_t           *device    = executor->config.device;
    const shoal_stream_ops_t *stream    = device->ops->stream;
    const shoal_program_t    *program   = bound->program;
    bool                      optimizer = false;
    SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_START));
    SHOAL_TRY(fork_queues(executor, program));
    for (int32_t i = 0; i < program->nnodes; i++) {
        if (!optimizer && program->nodes[i].phase == SHOAL_PHASE_OPTIMIZER && !is_collective(&program->nodes[i])) {
            SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_OPTIMIZER));
            optimizer = true;
        }
        SHOAL_TRY(shoal_executor_name_failure(bound, i, enqueue_node(executor, bound, i)));
        if (executor->config.check_every_op) {
            SHOAL_TRY(shoal_executor_name_failure(bound, i, device->ops->synchronize(device)));
        }
        if (every_op && !is_collective(&program->nodes[i])) { /* collectives always have theirs */
            SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, after_op(i)));
        }
    }
    if (!optimizer) {
        SHOAL_TRY(stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_OPTIMIZER));
    }
    if (bound->room != NULL) {
        SHOAL_TRY(stream->leave_room(device, 0));
    }
    SHOAL_TRY(join_queues(executor, program));
    return stream->mark(device, SHOAL_QUEUE_COMPUTE, MARK_END);
}

/* Recorded once the libraries have seen every op, unless told not to. */
static shoal_status_t record(shoal_executor_t *executor, shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    SHOAL_TRY(device->ops->stream->record_begin(device));
    shoal_status_t enqueued = enqueue(executor, bound, false);
    shoal_status_t ended    = device->ops->stream->record_end(device, &bound->recording);
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

/* ---- its times ---- */

static shoal_status_t add_between(shoal_device_t *device, int from, int to, double *sum_p)
{
    double ms;
    SHOAL_TRY(device->ops->stream->between(device, from, to, &ms));
    *sum_p += ms;
    return SHOAL_OK;
}

static shoal_status_t read_times(shoal_executor_t *executor, const shoal_bound_t *bound, shoal_times_t *times)
{
    shoal_device_t        *device  = executor->config.device;
    const shoal_program_t *program = bound->program;
    SHOAL_TRY(add_between(device, MARK_START, MARK_END, &times->busy[SHOAL_LANE_COMPUTE]));
    SHOAL_TRY(add_between(device, MARK_OPTIMIZER, MARK_END, &times->optimizer));
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node = &program->nodes[i];
        if (is_collective(node)) {
            SHOAL_TRY(add_between(device, before_op(i), after_op(i), &times->busy[node->lane]));
        } else if (bound->awaited[i] != 0) {
            SHOAL_TRY(add_between(device, before_op(i), after_wait(i), &times->exposed[bound->awaited[i]]));
        }
    }
    if (executor->step->nranks > 1) {
        SHOAL_TRY(add_between(device, MARK_JOIN + 2 * SHOAL_QUEUE_GATHER, MARK_JOIN + 2 * SHOAL_QUEUE_GATHER + 1,
                              &times->exposed[SHOAL_LANE_GATHER]));
        SHOAL_TRY(add_between(device, MARK_JOIN + 2 * SHOAL_QUEUE_REDUCE, MARK_JOIN + 2 * SHOAL_QUEUE_REDUCE + 1,
                              &times->exposed[SHOAL_LANE_REDUCE]));
    }
    times->busy[SHOAL_LANE_COMPUTE] -= times->exposed[SHOAL_LANE_GATHER] + times->exposed[SHOAL_LANE_REDUCE];
    return SHOAL_OK;
}

/* An op of compute begins where the one before it in its queue, or its wait, ends. */
static shoal_status_t read_op_times(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    shoal_device_t *device = executor->config.device;
    double          last[SHOAL_QUEUE_COUNT] = {0.0};
    for (int32_t i = 0; i < bound->program->nnodes; i++) {
        const shoal_node_t *node  = &bound->program->nodes[i];
        double             *queue = &last[queue_of(node)], start = 0.0, end = 0.0;
        bool                own_start = is_collective(node) || bound->awaited[i] != 0;
        if (own_start) {
            SHOAL_TRY(add_between(device, MARK_START, is_collective(node) ? before_op(i) : after_wait(i), &start));
        }
        SHOAL_TRY(add_between(device, MARK_START, after_op(i), &end));
        bound->times.start[i] = (int64_t)((own_start ? start : *queue) * 1e6);
        bound->times.end[i]   = (int64_t)(end * 1e6);
        *queue                = end;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_executor_run_stream(shoal_executor_t *executor, shoal_bound_t *bound, shoal_times_t *times_p)
{
    shoal_times_t times    = {0};
    executor->run_start_ns = shoal_time_ns();
    executor->run++;
    executor->config.device->ops->stream->forget_notes(executor->config.device);
    SHOAL_TRY(fetch_all(executor, bound, &times));
    SHOAL_TRY(launch(executor, bound));
    if (executor->config.fetch_ahead != NULL) {
        executor->config.fetch_ahead(executor->config.fetch_context);
    }
    SHOAL_TRY(shoal_executor_await_stream(executor, bound));
    times.total = shoal_ms_since(executor->run_start_ns);
    SHOAL_TRY(read_times(executor, bound, &times));
    if (executor->every_op) {
        SHOAL_TRY(read_op_times(executor, bound));
    }
    *times_p = times;
    return SHOAL_OK;
}
