/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the ucx transport waits. One epoll set holds UCP's event fd, the pipes of the mates and an
 * eventfd for wake. Before that sleep a short spin pays, as long as there is a core for every rank:
 * its length doubles after a wait that was short, and halves after a long one.
 */
#include <limits.h>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/time.h"
#include "collectives/ucx/ucx.h"

enum {
    SPIN_MIN_NS   = 1000,
    SPIN_MAX_NS   = SHOAL_UCX_SPIN_MAX_NS,
    SPIN_ALONE_NS = 4000, /* before it lets others have the core between looks */
};

static bool take_wake(shoal_ucx_transport_t *t)
{
    uint64_t count;
    if (!atomic_load(&t->woken)) {
        return false;
    }
    ssize_t ignored = read(t->event_fd, &count, sizeof(count));
    (void)ignored;
    atomic_store(&t->woken, false);
    return true;
}

/* True when something moved or woke us, so that the caller has work. */
static bool look_once(shoal_ucx_transport_t *t)
{
    bool moved = false;
    (void)shoal_ucx_progress_once(t, &moved); /* An error is kept in t->status. */
    t->moved_in_wait = t->moved_in_wait || moved;
    return moved || t->status != SHOAL_OK || take_wake(t);
}

static bool spin(shoal_ucx_transport_t *t)
{
    int64_t start_ns = shoal_time_ns();
    bool    hit      = false;
    while (!hit && shoal_time_ns() - start_ns < t->spin_ns) {
        hit = look_once(t);
        if (!hit && shoal_time_ns() - start_ns > SPIN_ALONE_NS) {
            sched_yield(); /* the rank that this one waits for may be queued behind it on this core */
        }
    }
    return hit;
}

/* Was it worth while? A sleep that ended soon would have been a spin, had the spin been longer. */
static void adapt_spin(shoal_ucx_transport_t *t, int64_t waited_ns)
{
    int64_t next = waited_ns < 2 * SPIN_MAX_NS ? t->spin_ns * 2 : t->spin_ns / 2;
    t->spin_ns   = next > SPIN_MAX_NS ? SPIN_MAX_NS : next < SPIN_MIN_NS ? SPIN_MIN_NS : next;
}

static bool any_under_way(const shoal_ucx_transport_t *t)
{
    const shoal_ucx_comm_t *comm = t->comms;
    while (comm != NULL && comm->status != SHOAL_IN_PROGRESS) {
        comm = comm->next;
    }
    return comm != NULL;
}

static void sleep_on(shoal_ucx_transport_t *t, int timeout_ms)
{
    struct epoll_event events[4];
    if (t->net != NULL && !shoal_net_arm(t->net)) {
        return; /* events are pending already */
    }
    epoll_wait(t->epoll_fd, events, 4, timeout_ms);
    if (t->host != NULL) {
        shoal_host_listen(t->host);
    }
}

/* After how many changes of mates any collective can move: 0 when none waits for a mate. */
static unsigned count_awaited(const shoal_ucx_transport_t *t)
{
    unsigned least = 0;
    for (const shoal_ucx_comm_t *comm = t->comms; comm != NULL; comm = comm->next) {
        if (comm->status == SHOAL_IN_PROGRESS && comm->path == &shoal_ucx_direct) {
            unsigned n = shoal_direct_nawaited(comm);
            least      = least == 0 || n < least ? n : least;
        }
    }
    return least;
}

/*
 * Announces what it sleeps for, looks once more, sleeps. When there were changes between the count and its announcement,
 * nobody may be left to make the last one: it counts again.
 */
static void sleep_announced(shoal_ucx_transport_t *t, int timeout_ms)
{
    unsigned nawaited, before = UINT_MAX;
    bool     moved = false;
    while (!moved && t->host != NULL && (nawaited = count_awaited(t)) != before) {
        shoal_host_set_patience(t->host, nawaited);
        before = nawaited;
        moved  = look_once(t);
    }
    if (!moved && (t->host != NULL || !look_once(t))) {
        sleep_on(t, timeout_ms);
    }
    if (t->host != NULL) {
        shoal_host_set_patience(t->host, 0);
    }
    (void)take_wake(t);
}

shoal_status_t shoal_ucx_wait(shoal_transport_t *transport, int timeout_ms)
{
    shoal_ucx_transport_t *t        = shoal_ucx_of(transport);
    int64_t          start_ns = shoal_time_ns();
    bool             may_spin = t->may_spin && any_under_way(t);
    if (take_wake(t)) {
        return shoal_ucx_check_alive(t);
    }
    if (!may_spin || !spin(t)) {
        sleep_announced(t, timeout_ms);
    }
    if (may_spin) {
        adapt_spin(t, shoal_time_ns() - start_ns);
    }
    return shoal_ucx_check_alive(t);
}

void shoal_ucx_wake(shoal_transport_t *transport)
{
    shoal_ucx_transport_t *t   = shoal_ucx_of(transport);
    uint64_t         one = 1;
    if (!atomic_exchange(&t->woken, true)) {
        ssize_t ignored = write(t->event_fd, &one, sizeof(one));
        (void)ignored;
    }
}
