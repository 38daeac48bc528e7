/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a run on a device with a stream ends: the calling thread asks the queues whether they are
 * done, and meanwhile looks for lost peers and for a hang, and names what did not come to its end
 * and who is behind.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "runtime/execute/executor_private.h"

shoal_status_t shoal_executor_name_failure(const shoal_bound_t *bound, int32_t i,
                                           shoal_status_t status)
{
    char what[128];
    if (status != SHOAL_OK) {
        shoal_program_describe(bound->program, i, what, sizeof(what));
        shoal_error("that was in %s", what);
    }
    return status;
}

/* An error of the device shows up here, at the end of everything that was enqueued. */
static shoal_status_t name_device_error(shoal_executor_t *executor, const shoal_bound_t *bound,
                                        shoal_status_t status)
{
    shoal_device_t *device = executor->config.device;
    int             i      = device->ops->stream->last_note(device, SHOAL_QUEUE_COMPUTE);
    if (i >= 0 && i < bound->program->nnodes) {
        shoal_executor_name_failure(bound, i, status);
        shoal_error("or in an op of the same unit behind it; run.check_ops = true names the op");
    }
    return status;
}

static void name_place(const shoal_bound_t *bound, const char *who, shoal_queue_t queue, int i)
{
    char what[128];
    if (i >= 0 && i < bound->program->nnodes) {
        shoal_program_describe(bound->program, i, what, sizeof(what));
        shoal_error("%s began last on the %s lane: %s", who,
                    shoal_lane_name(bound->program->nodes[i].lane), what);
    } else {
        shoal_error("%s has begun nothing on the %s lane", who,
                    shoal_lane_name((shoal_lane_t)queue));
    }
}

static shoal_place_t place_of(const shoal_executor_t *executor)
{
    shoal_place_t place = {.run = executor->run};
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        place.notes[queue] = executor->config.device->ops->stream->last_note(
            executor->config.device, (shoal_queue_t)queue);
    }
    return place;
}

/*
 * What a rank of this host has not done that this one waits for. Whether it is behind on any lane.
 */
static bool name_if_behind(const shoal_executor_t *executor, const shoal_bound_t *bound,
                           const shoal_place_t *mine, int rank)
{
    char          who[96];
    shoal_place_t place;
    bool          alive, behind = false;
    if (!shoal_board_read(executor->config.board, rank, &place, &alive)) {
        return false;
    }
    snprintf(who, sizeof(who), "rank %d", rank);
    if (!alive || place.run < mine->run) {
        shoal_error("%s %s", who,
                    alive ? "has not begun the step that this rank is in" : "is gone");
        return true;
    }
    for (int queue = SHOAL_QUEUE_GATHER; place.run == mine->run && queue <= SHOAL_QUEUE_REDUCE;
         queue++) {
        if (place.notes[queue] < mine->notes[queue]) {
            name_place(bound, who, (shoal_queue_t)queue, place.notes[queue]);
            behind = true;
        }
    }
    return behind;
}

/* Of this host only: what ranks of others have not done, their neighbours say. */
static void name_who_is_behind(const shoal_executor_t *executor, const shoal_bound_t *bound,
                               const shoal_place_t *mine)
{
    enum {
        GRACE_US = 100000
    }; /* a process that was killed loses its connections a moment before it has ended */
    bool any = false;
    usleep(GRACE_US);
    for (int r = 0; executor->config.board != NULL && r < executor->step->nranks; r++) {
        any = (r != executor->step->rank && name_if_behind(executor, bound, mine, r)) || any;
    }
    if (!any) {
        shoal_error("no rank of this host is seen to be behind this one");
    }
}

/* By transports that know. */
static void name_awaited(const shoal_executor_t *executor, shoal_queue_t queue)
{
    int peer = executor->config.transport->ops->waits_for(executor->comms[queue]);
    if (peer >= 0) {
        shoal_error(
            "the %s lane waits for rank %d on %s", shoal_lane_name((shoal_lane_t)queue), peer,
            executor->config.hosts != NULL ? executor->config.hosts[peer] : "an unknown host");
    }
}

static shoal_status_t name_peer_error(const shoal_executor_t *executor, const shoal_bound_t *bound,
                                      const char *verb)
{
    shoal_place_t mine = place_of(executor);
    shoal_error("%s", verb);
    name_place(bound, "this rank", SHOAL_QUEUE_GATHER, mine.notes[SHOAL_QUEUE_GATHER]);
    name_place(bound, "this rank", SHOAL_QUEUE_REDUCE, mine.notes[SHOAL_QUEUE_REDUCE]);
    name_awaited(executor, SHOAL_QUEUE_GATHER);
    name_awaited(executor, SHOAL_QUEUE_REDUCE);
    name_who_is_behind(executor, bound, &mine);
    if (executor->config.board != NULL) { /* so that the others name whoever was lost first */
        shoal_board_resign(executor->config.board);
    }
    return SHOAL_ERR_PEER;
}

/*
 * Looks where the queues are and tells the neighbours. Whether any has moved: a step may take as
 * long as it likes, its parts may not.
 */
static bool has_moved(shoal_executor_t *executor, shoal_place_t *place)
{
    shoal_place_t now = place_of(executor);
    bool          moved = memcmp(&now, place, sizeof(now)) != 0;
    if (moved && executor->config.board != NULL) {
        shoal_board_post(executor->config.board, &now);
    }
    *place = now;
    return moved;
}

/*
 * A rank whose process has ended, or -1: kernels that read each other's memory wait for it without
 * a word from their library. Ranks of this host are seen by their locks; of the others the launcher
 * tells, if it does.
 */
static int find_lost_rank(const shoal_executor_t *executor)
{
    shoal_place_t place;
    bool          alive;
    for (int r = 0; executor->config.board != NULL && r < executor->step->nranks; r++) {
        if (r != executor->step->rank &&
            shoal_board_read(executor->config.board, r, &place, &alive) && !alive) {
            return r;
        }
    }
    return executor->config.lost != NULL ? atomic_load(executor->config.lost) - 1 : -1;
}

static shoal_status_t name_lost_rank(const shoal_executor_t *executor, const shoal_bound_t *bound,
                                     int rank)
{
    char verb[128];
    snprintf(verb, sizeof(verb), "stopped: rank %d on %s is gone", rank,
             executor->config.hosts != NULL && rank < executor->step->nranks
                 ? executor->config.hosts[rank]
                 : "an unknown host");
    return name_peer_error(executor, bound, verb);
}

shoal_status_t shoal_executor_await_stream(shoal_executor_t *executor, const shoal_bound_t *bound)
{
    enum { NAP_US = 200, LOOK_MS = 1000 };
    shoal_device_t    *device    = executor->config.device;
    shoal_transport_t *transport = executor->config.transport;
    shoal_status_t     status    = SHOAL_IN_PROGRESS;
    int64_t            moved_ns  = shoal_time_ns(), looked_ns = moved_ns;
    shoal_place_t      place     = {.run = -1};
    int                moved     = 0, lost = -1;
    if (executor->step->nranks == 1) {
        status = device->ops->synchronize(device);
        return status == SHOAL_OK ? SHOAL_OK : name_device_error(executor, bound, status);
    }
    while ((status = device->ops->stream->poll(device)) == SHOAL_IN_PROGRESS) {
        if (transport->ops->progress(transport, &moved) != SHOAL_OK) {
            return name_peer_error(executor, bound, "stopped");
        }
        if (shoal_ms_since(looked_ns) >= LOOK_MS) {
            looked_ns = shoal_time_ns();
            lost      = find_lost_rank(executor);
        }
        if (lost >= 0) {
            return name_lost_rank(executor, bound, lost);
        }
        moved_ns = has_moved(executor, &place) ? shoal_time_ns() : moved_ns;
        if (shoal_ms_since(moved_ns) * 1e-3 > (double)executor->config.timeout_s) {
            char verb[64];
            snprintf(verb, sizeof(verb), "hangs: no layer or collective has begun for %zu s",
                     executor->config.timeout_s);
            return name_peer_error(executor, bound, verb);
        }
        usleep(NAP_US);
    }
    if (status != SHOAL_OK) {
        return name_device_error(executor, bound, status);
    }
    /* Queues may have come to their end because an error let them go. */
    return transport->ops->progress(transport, &moved) == SHOAL_OK
               ? SHOAL_OK
               : name_peer_error(executor, bound, "stopped");
}
