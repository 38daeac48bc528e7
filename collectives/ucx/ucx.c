/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ucx transport: holds the groups, starts their collectives and drives them; ucx_comm.c makes groups, ucx_wait.c sleeps. UCP
 * itself is started only if some host of the job has to be left, or cannot do without it.
 */
#include "collectives/ucx/ucx.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/backends.h"

/* ---- Open and close ---- */

/* What each rank tells the others about itself. A rank without a direct path is at home alone. */
typedef struct {
    int       home;
    cpu_set_t cores;
} residence_t;

/* Is there a core for each rank of this home? Ranks are usually bound, each to its own, so the cores of all count together. */
static bool has_cores_for_all(const shoal_ucx_transport_t *t, const residence_t *all)
{
    const residence_t *mine = &all[t->peers.rank];
    cpu_set_t          cores;
    int                nmates = 0;
    CPU_ZERO(&cores);
    for (int r = 0; r < t->peers.size; r++) {
        if (all[r].home == mine->home) {
            CPU_OR(&cores, &cores, &all[r].cores);
            nmates++;
        }
    }
    return CPU_COUNT(&cores) >= (t->host != NULL ? nmates : t->peers.local_size);
}

static shoal_status_t find_homes(shoal_ucx_transport_t *t)
{
    residence_t  mine = {.home = t->peers.rank};
    residence_t *all  = calloc((size_t)t->peers.size, sizeof(*all));
    if (all == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    if (sched_getaffinity(0, sizeof(mine.cores), &mine.cores) != 0) {
        CPU_ZERO(&mine.cores); /* counts as none: nobody spins */
    }
    for (int r = t->peers.rank - 1; t->host != NULL && r >= 0; r--) {
        mine.home = shoal_host_mate(t->host, r) >= 0 ? r : mine.home;
    }
    shoal_status_t status = t->peers.exchange(t->peers.context, &mine, sizeof(mine), all);
    for (int r = 0; status == SHOAL_OK && r < t->peers.size; r++) {
        t->homes[r] = all[r].home;
    }
    t->may_spin = status == SHOAL_OK && has_cores_for_all(t, all);
    free(all);
    return status;
}

static bool is_one_home(const shoal_ucx_transport_t *t)
{
    for (int r = 1; r < t->peers.size; r++) {
        if (t->homes[r] != t->homes[0]) {
            return false;
        }
    }
    return true;
}

static void watch(shoal_ucx_transport_t *t, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static shoal_status_t open_waiting(shoal_ucx_transport_t *t)
{
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (t->epoll_fd < 0 || t->event_fd < 0) {
        shoal_error("event descriptors: %s", strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    watch(t, t->event_fd);
    if (t->host != NULL) {
        shoal_host_add_to_epoll(t->host, t->epoll_fd);
    }
    if (t->net != NULL) {
        watch(t, shoal_net_fd(t->net));
    }
    return SHOAL_OK;
}

static shoal_status_t open_paths(shoal_ucx_transport_t *t)
{
    bool one_network = false;
    SHOAL_TRY(shoal_host_open(&t->peers, &t->host, &one_network));
    SHOAL_TRY(find_homes(t));
    if (!is_one_home(t)) {
        shoal_net_reach_t reach = one_network                              ? SHOAL_NET_LOOPBACK
                                  : t->peers.local_size < t->peers.size ? SHOAL_NET_HOSTS
                                                                           : SHOAL_NET_ANY;
        SHOAL_TRY(shoal_net_open(&t->peers, reach, t->patience_s, &t->net));
    }
    return open_waiting(t);
}

static void ucx_close(shoal_transport_t *transport);

static shoal_status_t ucx_open(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    shoal_ucx_transport_t *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    t->base.ops = &shoal_transport_ucx;
    t->peers    = *peers;
    t->patience_s = config->patience_s;
    t->epoll_fd = t->event_fd = -1;
    t->spin_ns                = SHOAL_UCX_SPIN_MAX_NS;
    t->homes                  = calloc((size_t)peers->size, sizeof(*t->homes));
    shoal_status_t status     = t->homes != NULL ? open_paths(t) : SHOAL_ERR_NO_MEMORY;
    if (status != SHOAL_OK) {
        t->status = status;
        ucx_close(&t->base);
        return status;
    }
    *transport_p = &t->base;
    return SHOAL_OK;
}

static void ucx_close(shoal_transport_t *transport)
{
    shoal_ucx_transport_t *t = shoal_ucx_of(transport);
    shoal_host_close(t->host, t->status == SHOAL_OK);
    if (t->net != NULL) {
        shoal_net_close(t->net, t->status == SHOAL_OK);
    }
    while (t->broken != NULL) {
        shoal_ucx_comm_t *comm = t->broken;
        t->broken              = comm->next;
        shoal_ucx_comm_free(comm);
    }
    if (t->epoll_fd >= 0) {
        close(t->epoll_fd);
    }
    if (t->event_fd >= 0) {
        close(t->event_fd);
    }
    free(t->homes);
    free(t->past);
    free(t);
}

/* ---- Collectives ---- */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t ucx_staging_nbytes(const shoal_coll_t *coll, int size)
{
    if (size == 1 || coll->n == 0) {
        return 0;
    }
    return max_size(shoal_ucx_direct.staging_nbytes(coll, size), shoal_ucx_net.staging_nbytes(coll, size));
}

/* Alone in the group, or nothing to do: the result is the contribution. */
static void copy_alone(const shoal_coll_t *coll)
{
    if (coll->kind != SHOAL_COLL_ALL_REDUCE && coll->n > 0 && coll->recv != coll->send) {
        memcpy(coll->recv, coll->send, coll->n * shoal_dtype_nbytes(coll->dtype));
    }
}

static shoal_status_t ucx_start(shoal_comm_t *base, const shoal_coll_t *coll)
{
    shoal_ucx_comm_t *comm = (shoal_ucx_comm_t *)base;
    if (comm->status == SHOAL_IN_PROGRESS || (coll->dtype != SHOAL_F32 && coll->dtype != SHOAL_BF16)) {
        shoal_error("comm %d: a collective is under way, or its type is neither fp32 nor bf16", comm->tag);
        return SHOAL_ERR_INVALID;
    }
    if (comm->status != SHOAL_OK) {
        return comm->status;
    }
    if (comm->size == 1 || coll->n == 0) {
        copy_alone(coll);
        return SHOAL_OK;
    }
    if (comm->path->staging_nbytes(coll, comm->size) > comm->staging_nbytes) {
        shoal_error("comm %d has %zu bytes of staging space, its collective needs %zu", comm->tag, comm->staging_nbytes,
                    comm->path->staging_nbytes(coll, comm->size));
        return SHOAL_ERR_INVALID;
    }
    comm->coll            = *coll;
    shoal_status_t status = comm->path->start(comm);
    comm->status          = status == SHOAL_OK ? SHOAL_IN_PROGRESS : status;
    return status;
}

static shoal_status_t ucx_test(shoal_comm_t *comm)
{
    return ((shoal_ucx_comm_t *)comm)->status;
}

static int ucx_waits_for(shoal_comm_t *base)
{
    shoal_ucx_comm_t *comm   = (shoal_ucx_comm_t *)base;
    int               member = comm->status == SHOAL_IN_PROGRESS ? comm->path->waits_for(comm) : -1;
    return member >= 0 ? comm->ranks[member] : -1;
}

/* ---- Progress ---- */

/* A lost peer fails every collective under way: test says so too, whoever asks it. */
static void fail_comms(shoal_ucx_transport_t *t)
{
    for (shoal_ucx_comm_t *comm = t->comms; comm != NULL; comm = comm->next) {
        comm->status = t->status;
    }
}

static shoal_status_t ucx_progress(shoal_transport_t *transport, int *moved_p)
{
    shoal_ucx_transport_t *t     = shoal_ucx_of(transport);
    bool             moved = false;
    if (shoal_ucx_progress_once(t, &moved) != SHOAL_OK) {
        fail_comms(t);
    }
    *moved_p         = moved || t->moved_in_wait;
    t->moved_in_wait = false;
    return t->status;
}

const shoal_transport_ops_t shoal_transport_ucx = {
    .name           = "ucx",
    .open           = ucx_open,
    .close          = ucx_close,
    .staging_nbytes = ucx_staging_nbytes,
    .comm_create    = shoal_ucx_comm_create,
    .comm_destroy   = shoal_ucx_comm_destroy,
    .start          = ucx_start,
    .test           = ucx_test,
    .progress       = ucx_progress,
    .wait           = shoal_ucx_wait,
    .wake           = shoal_ucx_wake,
    .waits_for      = ucx_waits_for,
};
