/* SPDX-License-Identifier: BSD-3-Clause */
/* Moving all groups of the ucx transport as far as they go, and noticing who has died or left. */
#include "base/log.h"
#include "collectives/ucx/ucx.h"

/* Idle progress calls between looks at the pipes of mates, for callers that never wait. */
enum { LISTEN_PERIOD = 512 };

static bool has_left(const shoal_ucx_transport_t *t, const shoal_ucx_comm_t *comm, int member)
{
    if (comm->path == &shoal_ucx_direct) {
        return shoal_host_fate(t->host, comm->direct.mates[member]) != SHOAL_MATE_HERE;
    }
    return shoal_net_has_left(t->net, comm->ranks[member]);
}

/* Somebody died: everything stops. Logged here for mates, in net.c for the others. */
shoal_status_t shoal_ucx_check_alive(shoal_ucx_transport_t *t)
{
    int dead = t->host != NULL ? shoal_host_dead_rank(t->host) : -1;
    if (t->status == SHOAL_OK && dead >= 0) {
        shoal_error("lost rank %d: its process has ended", dead);
        t->status = SHOAL_ERR_PEER;
    }
    if (t->status == SHOAL_OK && t->net != NULL) {
        t->status = shoal_net_status(t->net);
    }
    return t->status;
}

static shoal_status_t step_comm(shoal_ucx_transport_t *t, shoal_ucx_comm_t *comm, bool *moved_p)
{
    bool           moved  = false;
    int            before = comm->path->waits_for(comm);
    bool           gone   = before >= 0 && has_left(t, comm, before);
    shoal_status_t status = comm->path->step(comm, &moved);
    /* Asked in this order, so that what the peer did before it left has been seen. */
    if (status == SHOAL_IN_PROGRESS && !moved && gone) {
        shoal_error("rank %d has left, but this rank waits for it in comm %d", comm->ranks[before], comm->tag);
        status = SHOAL_ERR_PEER;
    } else if (status == SHOAL_ERR_PEER) {
        shoal_error("lost a rank while reading from it in comm %d", comm->tag);
    }
    comm->status = status;
    *moved_p     = *moved_p || moved || status != SHOAL_IN_PROGRESS;
    return status < 0 ? status : SHOAL_OK;
}

shoal_status_t shoal_ucx_progress_once(shoal_ucx_transport_t *t, bool *moved_p)
{
    *moved_p = t->net != NULL && shoal_net_progress(t->net);
    for (shoal_ucx_comm_t *comm = t->comms; comm != NULL && t->status == SHOAL_OK; comm = comm->next) {
        if (comm->status == SHOAL_IN_PROGRESS) {
            t->status = step_comm(t, comm, moved_p);
        }
    }
    if (!*moved_p && t->host != NULL && ++t->nidle % LISTEN_PERIOD == 0) {
        shoal_host_listen(t->host);
    }
    return shoal_ucx_check_alive(t);
}
