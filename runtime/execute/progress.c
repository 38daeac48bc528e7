/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The progress thread. Each turn it moves every communication lane as far as it goes: start the next collective when the
 * ops it waits for are done, and pass to the one after it when it is complete. When nothing moved it sleeps in the transport,
 * which both the network and the calling thread's wake-up end.
 */
#include "base/log.h"
#include "base/time.h"
#include "runtime/execute/executor_private.h"

shoal_coll_t shoal_executor_coll(const shoal_node_t *node, void *const *args)
{
    switch (node->op.kind) {
    case SHOAL_OP_ALL_GATHER: return (shoal_coll_t){SHOAL_COLL_ALL_GATHER, node->op.dtype, node->op.coll.n, args[0], args[1]};
    case SHOAL_OP_REDUCE_SCATTER:
        return (shoal_coll_t){SHOAL_COLL_REDUCE_SCATTER, node->op.dtype, node->op.coll.n, args[0], args[1]};
    default: return (shoal_coll_t){SHOAL_COLL_ALL_REDUCE, node->op.dtype, node->op.coll.n, NULL, args[0]};
    }
}

static bool may_start(shoal_executor_t *executor, const shoal_program_t *program, const shoal_node_t *node)
{
    for (int32_t w = 0; w < node->nwaits; w++) {
        const shoal_node_t *target = &program->nodes[program->waits[node->first_wait + w]];
        if (atomic_load_explicit(&executor->done[target->lane], memory_order_acquire) <= target->sequence) {
            return false;
        }
    }
    return true;
}

/* The count is published under the lock, so that a caller about to sleep cannot miss it. */
static void publish(shoal_executor_t *executor, int lane, int count)
{
    pthread_mutex_lock(&executor->lock);
    atomic_store_explicit(&executor->done[lane], count, memory_order_release);
    pthread_cond_broadcast(&executor->changed);
    pthread_mutex_unlock(&executor->lock);
}

static shoal_status_t advance_lane(shoal_executor_t *executor, const shoal_bound_t *bound, int lane, int *moved_p)
{
    const shoal_program_t       *program = bound->program;
    const shoal_transport_ops_t *ops     = executor->config.transport->ops;
    while (executor->cursor[lane] < program->lane_count[lane]) {
        int32_t             index = bound->lanes[lane][executor->cursor[lane]];
        const shoal_node_t *node  = &program->nodes[index];
        if (!executor->started[lane]) {
            if (!may_start(executor, program, node)) {
                return SHOAL_OK;
            }
            shoal_coll_t coll           = shoal_executor_coll(node, bound->args[index]);
            executor->started_ns[lane]  = shoal_time_ns();
            bound->times.start[index]   = executor->started_ns[lane] - executor->run_start_ns;
            SHOAL_TRY(ops->start(executor->comms[lane], &coll));
            executor->started[lane] = true;
            *moved_p                = 1;
        }
        shoal_status_t status = ops->test(executor->comms[lane]);
        if (status != SHOAL_OK) {
            return status == SHOAL_IN_PROGRESS ? SHOAL_OK : status;
        }
        bound->times.end[index] = shoal_time_ns() - executor->run_start_ns;
        executor->started[lane] = false;
        executor->cursor[lane]++;
        publish(executor, lane, executor->cursor[lane]);
        *moved_p = 1;
    }
    return SHOAL_OK;
}

static void log_wait(shoal_executor_t *executor, const shoal_bound_t *bound, int lane, const char *verb)
{
    char what[128];
    int  peer = executor->config.transport->ops->waits_for(executor->comms[lane]);
    shoal_program_describe(bound->program, bound->lanes[lane][executor->cursor[lane]], what, sizeof(what));
    if (peer >= 0 && executor->config.hosts != NULL) {
        shoal_error("%s in %s for rank %d on %s", verb, what, peer, executor->config.hosts[peer]);
    } else {
        shoal_error("%s in %s", verb, what);
    }
}

/* A lane whose collective has been under way for longer than the limit hangs; the limit is far above any real one. */
static shoal_status_t check_hang(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    for (int lane = SHOAL_LANE_GATHER; lane <= SHOAL_LANE_REDUCE; lane++) {
        double waited_s = executor->started[lane] ? shoal_ms_since(executor->started_ns[lane]) * 1e-3 : 0.0;
        if (waited_s > (double)executor->config.timeout_s) {
            char verb[64];
            snprintf(verb, sizeof(verb), "hangs: has waited %.0f s", waited_s);
            log_wait(executor, bound, lane, verb);
            return SHOAL_ERR_PEER;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t turn(shoal_executor_t *executor, const shoal_bound_t *bound, int *moved_p)
{
    shoal_transport_t *transport = executor->config.transport;
    int                moved     = 0;
    for (int lane = SHOAL_LANE_GATHER; bound != NULL && lane <= SHOAL_LANE_REDUCE; lane++) {
        SHOAL_TRY(advance_lane(executor, bound, lane, moved_p));
    }
    SHOAL_TRY(transport->ops->progress(transport, &moved));
    *moved_p |= moved;
    return SHOAL_OK;
}

static void fail(shoal_executor_t *executor, const shoal_bound_t *bound, shoal_status_t status)
{
    for (int lane = SHOAL_LANE_GATHER; bound != NULL && lane <= SHOAL_LANE_REDUCE; lane++) {
        if (executor->started[lane] && status == SHOAL_ERR_PEER) {
            log_wait(executor, bound, lane, "stopped");
        }
    }
    pthread_mutex_lock(&executor->lock);
    atomic_store(&executor->status, (int)status);
    pthread_cond_broadcast(&executor->changed);
    pthread_mutex_unlock(&executor->lock);
}

void *shoal_executor_progress(void *argument)
{
    shoal_executor_t    *executor   = argument;
    shoal_transport_t   *transport  = executor->config.transport;
    const shoal_bound_t *bound      = NULL;
    int                  generation = 0;
    shoal_status_t       status     = SHOAL_OK;
    while (!atomic_load(&executor->quit) && status == SHOAL_OK) {
        int moved = 0, latest = atomic_load(&executor->generation);
        if (latest != generation) { /* the last run has drained its lanes before a new one can begin */
            generation = latest;
            bound      = atomic_load(&executor->current);
            for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
                executor->cursor[lane]  = 0;
                executor->started[lane] = false;
            }
        }
        status = turn(executor, bound, &moved);
        if (status == SHOAL_OK && !moved && bound != NULL) {
            status = check_hang(executor, bound);
        }
        if (status == SHOAL_OK && !moved) {
            status = transport->ops->wait(transport, 1000);
        }
    }
    if (status != SHOAL_OK) {
        fail(executor, bound, status);
    }
    return NULL;
}
