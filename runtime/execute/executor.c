/* SPDX-License-Identifier: BSD-3-Clause */
/* The calling thread's half: binding programs to addresses, running compute ops, waiting for communication lanes. */
#include "runtime/execute/executor_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"

void *shoal_executor_address(const shoal_executor_t *executor, const shoal_program_t *program, shoal_ref_t ref)
{
    if (ref.id < 0) {
        return NULL;
    }
    const shoal_buffer_t *buffer = &program->buffers[ref.id];
    size_t                home   = buffer->home == SHOAL_HOME_STATE ? 0 : executor->step->arena_offset;
    return executor->config.region + home + buffer->offset + ref.offset * shoal_dtype_nbytes(buffer->dtype);
}

static void unbind(shoal_executor_t *executor, shoal_bound_t *bound)
{
    if (executor->config.device->ops->stream != NULL) {
        shoal_executor_unbind_stream(executor, bound);
    }
    free(bound->args);
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        free(bound->lanes[lane]);
    }
    free(bound->times.start);
    free(bound->times.end);
}

static shoal_status_t bind(shoal_executor_t *executor, const shoal_program_t *program, shoal_bound_t *bound)
{
    size_t n           = (size_t)program->nnodes + 1;
    bound->program     = program;
    bound->args        = calloc(n, sizeof(*bound->args));
    bound->times.start = calloc(n, sizeof(int64_t));
    bound->times.end   = calloc(n, sizeof(int64_t));
    bool ok            = bound->args != NULL && bound->times.start != NULL && bound->times.end != NULL;
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        bound->lanes[lane] = calloc((size_t)program->lane_count[lane] + 1, sizeof(int32_t));
        ok                 = ok && bound->lanes[lane] != NULL;
    }
    if (!ok) {
        shoal_error("no memory for the executor's tables");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node = &program->nodes[i];
        bound->lanes[node->lane][node->sequence] = i;
        bound->times.start[i] = bound->times.end[i] = -1;
        for (int a = 0; a < SHOAL_OP_MAX_ARGS; a++) {
            bound->args[i][a] = shoal_executor_address(executor, program, node->args[a]);
        }
    }
    if (executor->config.device->ops->stream == NULL) {
        return SHOAL_OK;
    }
    SHOAL_TRY(shoal_executor_bind_stream(executor, bound));
    return shoal_executor_prepare_stream(executor, bound);
}

/* Devices with a stream want collectives enqueued, the others want them driven; a transport does one or the other. */
static shoal_status_t check_transport(const shoal_executor_t *executor)
{
    const shoal_device_ops_t    *device    = executor->config.device->ops;
    const shoal_transport_ops_t *transport = executor->config.transport->ops;
    if ((device->stream != NULL) != (transport->enqueue != NULL)) {
        shoal_error("transport %s cannot move the memory of device %s", transport->name, device->name);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

static shoal_status_t create_comms(shoal_executor_t *executor)
{
    SHOAL_TRY(check_transport(executor));
    const shoal_step_t *step      = executor->step;
    shoal_transport_t  *transport = executor->config.transport;
    int                 ranks[step->nranks];
    for (int r = 0; r < step->nranks; r++) {
        ranks[r] = r;
    }
    for (int lane = SHOAL_LANE_GATHER; lane <= SHOAL_LANE_REDUCE; lane++) {
        shoal_group_t group = {.ranks          = ranks,
                               .size           = step->nranks,
                               .tag            = lane,
                               .use            = lane == SHOAL_LANE_GATHER ? SHOAL_COMM_GATHER : SHOAL_COMM_REDUCE,
                               .staging        = executor->config.region + step->staging_offset[lane],
                               .staging_nbytes = step->staging_nbytes[lane]};
        SHOAL_TRY(transport->ops->comm_create(transport, &group, &executor->comms[lane]));
        if (transport->ops->attach != NULL) {
            SHOAL_TRY(transport->ops->attach(executor->comms[lane], executor->config.region, step->total_nbytes));
        }
    }
    return SHOAL_OK;
}

static shoal_status_t start_thread(shoal_executor_t *executor)
{
    if (pthread_create(&executor->thread, NULL, shoal_executor_progress, executor) != 0) {
        shoal_error("cannot start the progress thread");
        return SHOAL_ERR_INTERNAL;
    }
    executor->has_thread = true;
    return SHOAL_OK;
}

/* Decided once and said: enqueuing op by op costs the calling thread more. */
static void settle_replay(shoal_executor_t *executor)
{
    const shoal_transport_ops_t *transport = executor->config.transport->ops;
    if (executor->config.device->ops->stream != NULL && executor->config.replay && !transport->recordable) {
        shoal_info("run.graph is off: what transport %s enqueues cannot be recorded", transport->name);
        executor->config.replay = false;
    }
}

shoal_status_t shoal_executor_create(const shoal_step_t *step, const shoal_executor_config_t *config, shoal_executor_t **executor_p)
{
    shoal_executor_t *executor = calloc(1, sizeof(*executor));
    if (executor == NULL) {
        shoal_error("no memory for the executor");
        return SHOAL_ERR_NO_MEMORY;
    }
    executor->step   = step;
    executor->config = *config;
    pthread_mutex_init(&executor->lock, NULL);
    pthread_cond_init(&executor->changed, NULL);
    shoal_status_t status = bind(executor, &step->train, &executor->bound[0]);
    if (status == SHOAL_OK && step->has_eval) {
        status = bind(executor, &step->eval, &executor->bound[1]);
    }
    if (status == SHOAL_OK && step->nranks > 1) {
        settle_replay(executor);
        status = create_comms(executor);
    }
    if (status == SHOAL_OK && step->nranks > 1 && config->device->ops->stream == NULL) {
        status = start_thread(executor);
    }
    if (status != SHOAL_OK) {
        shoal_executor_destroy(executor);
        return status;
    }
    *executor_p = executor;
    return SHOAL_OK;
}

/*
 * Recordings go before the comms whose collectives they hold: NCCL counts those, and its
 * communicators wait for them without limit. A queue that waits for a lost peer never ends, so
 * after an error nothing waits for queues until the comms are aborted.
 */
static void close_comms(shoal_executor_t *executor)
{
    const shoal_device_ops_t    *device    = executor->config.device->ops;
    const shoal_transport_ops_t *transport = executor->step->nranks > 1
                                                 ? executor->config.transport->ops
                                                 : NULL;
    if (device->stream != NULL) {
        executor->failed = executor->failed ||
                           device->synchronize(executor->config.device) != SHOAL_OK;
        shoal_executor_forget_recordings(executor);
    }
    if (transport != NULL && executor->failed && transport->abort != NULL) {
        transport->abort(executor->config.transport);
    }
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        if (executor->comms[lane] != NULL) {
            transport->comm_destroy(executor->comms[lane]);
        }
    }
}

void shoal_executor_destroy(shoal_executor_t *executor)
{
    if (executor == NULL) {
        return;
    }
    if (executor->has_thread) {
        atomic_store(&executor->quit, true);
        executor->config.transport->ops->wake(executor->config.transport);
        pthread_join(executor->thread, NULL);
    }
    close_comms(executor);
    unbind(executor, &executor->bound[0]);
    unbind(executor, &executor->bound[1]);
    pthread_cond_destroy(&executor->changed);
    pthread_mutex_destroy(&executor->lock);
    free(executor);
}

/* Sleeps until `count` ops of a communication lane are done; the time slept is exposed communication. */
static shoal_status_t await(shoal_executor_t *executor, int lane, int count, shoal_times_t *times)
{
    if (atomic_load_explicit(&executor->done[lane], memory_order_acquire) >= count) {
        return SHOAL_OK;
    }
    int64_t start = shoal_time_ns();
    pthread_mutex_lock(&executor->lock);
    while (atomic_load(&executor->done[lane]) < count && atomic_load(&executor->status) == SHOAL_OK) {
        pthread_cond_wait(&executor->changed, &executor->lock);
    }
    pthread_mutex_unlock(&executor->lock);
    times->exposed[lane] += shoal_ms_since(start);
    return (shoal_status_t)atomic_load(&executor->status);
}

static bool is_comm_lane(int lane)
{
    return lane == SHOAL_LANE_GATHER || lane == SHOAL_LANE_REDUCE;
}

/* Ops of the other lanes of this thread are done already: the list is their order. */
static shoal_status_t await_edges(shoal_executor_t *executor, const shoal_program_t *program, const shoal_node_t *node,
                                  shoal_times_t *times)
{
    for (int32_t w = 0; w < node->nwaits; w++) {
        const shoal_node_t *target = &program->nodes[program->waits[node->first_wait + w]];
        if (is_comm_lane(target->lane)) {
            SHOAL_TRY(await(executor, target->lane, target->sequence + 1, times));
        }
    }
    return SHOAL_OK;
}

static shoal_status_t run_node(shoal_executor_t *executor, const shoal_bound_t *bound, int32_t index, shoal_times_t *times)
{
    const shoal_node_t *node   = &bound->program->nodes[index];
    shoal_device_t     *device = executor->config.device;
    shoal_status_t      status;
    SHOAL_TRY(await_edges(executor, bound->program, node, times));
    bound->times.start[index] = shoal_time_ns() - executor->run_start_ns;
    if (node->op.kind == SHOAL_OP_FETCH) {
        status = executor->config.fetch(executor->config.fetch_context, &node->op, bound->args[index][0], bound->args[index][1]);
    } else {
        status = device->ops->run(device, &node->op, bound->args[index], executor->config.region + executor->step->workspace_offset);
    }
    bound->times.end[index] = shoal_time_ns() - executor->run_start_ns;
    double ms               = (double)(bound->times.end[index] - bound->times.start[index]) * 1e-6;
    times->busy[node->lane] += ms;
    times->optimizer += node->phase == SHOAL_PHASE_OPTIMIZER ? ms : 0.0;
    atomic_store_explicit(&executor->done[node->lane], node->sequence + 1, memory_order_release);
    if (node->signals && executor->has_thread) {
        executor->config.transport->ops->wake(executor->config.transport);
    }
    return status;
}

static void begin_run(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    executor->run_start_ns = shoal_time_ns();
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        atomic_store(&executor->done[lane], 0);
    }
    atomic_store(&executor->current, bound);
    atomic_fetch_add(&executor->generation, 1);
    if (executor->has_thread) {
        executor->config.transport->ops->wake(executor->config.transport);
    }
}

static void add_lane_time(const shoal_bound_t *bound, int lane, shoal_times_t *times)
{
    for (int32_t s = 0; s < bound->program->lane_count[lane]; s++) {
        int32_t index = bound->lanes[lane][s];
        times->busy[lane] += (double)(bound->times.end[index] - bound->times.start[index]) * 1e-6;
    }
}

shoal_status_t shoal_executor_run(shoal_executor_t *executor, const shoal_program_t *program, shoal_times_t *times_p)
{
    shoal_bound_t *bound = &executor->bound[program == &executor->step->train ? 0 : 1];
    shoal_times_t  times = {0};
    if (executor->config.device->ops->stream != NULL) {
        shoal_status_t status = shoal_executor_run_stream(executor, bound, times_p);
        executor->failed      = executor->failed || status != SHOAL_OK;
        return status;
    }
    begin_run(executor, bound);
    for (int32_t i = 0; i < program->nnodes; i++) {
        if (!is_comm_lane(program->nodes[i].lane)) {
            SHOAL_TRY(run_node(executor, bound, i, &times));
        }
    }
    SHOAL_TRY(executor->config.device->ops->synchronize(executor->config.device));
    for (int lane = SHOAL_LANE_GATHER; lane <= SHOAL_LANE_REDUCE; lane++) {
        SHOAL_TRY(await(executor, lane, program->lane_count[lane], &times));
        add_lane_time(bound, lane, &times);
    }
    times.total = shoal_ms_since(executor->run_start_ns);
    *times_p    = times;
    return SHOAL_OK;
}

void shoal_executor_time_ops(shoal_executor_t *executor, bool every_op)
{
    executor->every_op = every_op;
}

shoal_op_times_t shoal_executor_op_times(const shoal_executor_t *executor, const shoal_program_t *program)
{
    return executor->bound[program == &executor->step->train ? 0 : 1].times;
}
