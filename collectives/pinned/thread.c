/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread's half of pinned.h: takes slices that are here, runs the inner collective on them, and says when they are back. It sleeps when
 * nothing is enqueued. While it only waits for queues, which cannot wake it, it naps, ever longer; while slices are with the inner
 * transport it sleeps there.
 */
#include <time.h>

#include "base/log.h"
#include "base/time.h"
#include "collectives/pinned/pinned.h"

enum {
    NAP_MIN_US = 20,
    NAP_MAX_US = 200,
    WAIT_MS    = 1, /* in the inner transport, which does not know when another slice is here */
};

/* ---- One group ---- */

/* The job that is due, if there is one. */
static bool first_job(shoal_pinned_t *transport, const shoal_pinned_comm_t *comm, shoal_pinned_job_t *job_p)
{
    pthread_mutex_lock(&transport->lock);
    bool any = comm->njobs > 0;
    if (any) {
        *job_p = comm->jobs[comm->first_job];
    }
    pthread_mutex_unlock(&transport->lock);
    return any;
}

/* n elements of the first job are done, a slice. After an error `back` stands at the end already, and must not be taken back. */
static void give_back(shoal_pinned_t *transport, shoal_pinned_comm_t *comm, size_t n)
{
    pthread_mutex_lock(&transport->lock);
    comm->ndone += n;
    comm->nback++;
    if (comm->ndone == comm->jobs[comm->first_job].n) {
        comm->first_job = (comm->first_job + 1) % comm->capacity;
        comm->njobs--;
        comm->ndone = 0;
    }
    if (atomic_load(&transport->status) == SHOAL_OK) {
        atomic_store_explicit(&comm->words->back, comm->nback, memory_order_release);
    }
    pthread_mutex_unlock(&transport->lock);
}

static bool is_here(const shoal_pinned_comm_t *comm)
{
    return (int32_t)(atomic_load_explicit(&comm->words->here, memory_order_acquire) - (comm->nback + 1)) >= 0;
}

/* The slice that is due. */
static shoal_coll_t next_slice(const shoal_pinned_comm_t *comm, const shoal_pinned_job_t *job)
{
    size_t most = shoal_pinned_slice_nelem(comm, job->kind, job->dtype), rest = job->n - comm->ndone;
    return shoal_pinned_slot(comm, comm->ndone / most, job->kind, job->dtype, rest < most ? rest : most);
}

/* As far as it goes: SHOAL_OK also when it waits. */
static shoal_status_t advance(shoal_pinned_t *transport, shoal_pinned_comm_t *comm, bool *moved_p)
{
    const shoal_transport_ops_t *ops = transport->inner->ops;
    shoal_pinned_job_t           job;
    while (first_job(transport, comm, &job)) {
        shoal_coll_t slice = next_slice(comm, &job);
        if (!comm->started) {
            if (!is_here(comm)) {
                return SHOAL_OK;
            }
            SHOAL_TRY(ops->start(comm->inner, &slice));
            comm->started    = true;
            comm->started_ns = shoal_time_ns();
            *moved_p         = true;
        }
        shoal_status_t status = ops->test(comm->inner);
        if (status != SHOAL_OK) {
            return status == SHOAL_IN_PROGRESS ? SHOAL_OK : status;
        }
        comm->started = false;
        atomic_store(&comm->waits_for, -1);
        give_back(transport, comm, slice.n);
        *moved_p = true;
    }
    return SHOAL_OK;
}

/* ---- All groups ---- */

static shoal_status_t turn(shoal_pinned_t *transport, bool *moved_p)
{
    int moved = 0;
    for (shoal_pinned_comm_t *comm = transport->comms; comm != NULL; comm = comm->next) {
        SHOAL_TRY(advance(transport, comm, moved_p));
    }
    SHOAL_TRY(transport->inner->ops->progress(transport->inner, &moved));
    *moved_p = *moved_p || moved;
    return SHOAL_OK;
}

/* Remembers whom each slice waits for, as after an error the inner transport may not know any more. */
static shoal_status_t check_patience(shoal_pinned_t *transport, bool *any_started_p)
{
    *any_started_p = false;
    for (shoal_pinned_comm_t *comm = transport->comms; comm != NULL; comm = comm->next) {
        if (!comm->started) {
            continue;
        }
        double waited_s = shoal_ms_since(comm->started_ns) * 1e-3;
        atomic_store(&comm->waits_for, transport->inner->ops->waits_for(comm->inner));
        *any_started_p = true;
        if (waited_s > transport->patience_s) {
            shoal_error("%s: hangs: a slice of comm %d has waited %.0f s", transport->base.ops->name, comm->tag, waited_s);
            return SHOAL_ERR_PEER;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t rest(shoal_pinned_t *transport, bool any_started, unsigned *nap_us)
{
    if (any_started) {
        return transport->inner->ops->wait(transport->inner, WAIT_MS);
    }
    struct timespec nap = {.tv_nsec = (long)*nap_us * 1000};
    nanosleep(&nap, NULL);
    *nap_us = *nap_us * 2 < NAP_MAX_US ? *nap_us * 2 : NAP_MAX_US;
    return SHOAL_OK;
}

static void name_peers(const shoal_pinned_t *transport)
{
    for (const shoal_pinned_comm_t *comm = transport->comms; comm != NULL; comm = comm->next) {
        int rank = atomic_load(&comm->waits_for);
        if (comm->started && rank >= 0) {
            shoal_error("%s: comm %d waited for rank %d", transport->base.ops->name, comm->tag, rank);
        }
    }
}

/* False: it is to end. */
static bool await_jobs(shoal_pinned_t *transport)
{
    const shoal_pinned_comm_t *comm;
    pthread_mutex_lock(&transport->lock);
    for (;;) {
        for (comm = transport->comms; comm != NULL && comm->njobs == 0; comm = comm->next) {
        }
        if (comm != NULL || transport->quit) {
            break;
        }
        pthread_cond_wait(&transport->changed, &transport->lock);
    }
    bool go_on = !transport->quit && atomic_load(&transport->status) == SHOAL_OK;
    pthread_mutex_unlock(&transport->lock);
    return go_on;
}

static void *run(void *argument)
{
    shoal_pinned_t *transport = argument;
    shoal_status_t  status    = SHOAL_OK;
    unsigned        nap_us    = NAP_MIN_US;
    while (status == SHOAL_OK && await_jobs(transport)) {
        bool moved = false, any_started = false;
        status = turn(transport, &moved);
        if (status == SHOAL_OK && !moved) {
            status = check_patience(transport, &any_started);
        }
        if (status == SHOAL_OK && !moved) {
            status = rest(transport, any_started, &nap_us);
        }
        nap_us = moved || any_started ? NAP_MIN_US : nap_us;
    }
    if (status != SHOAL_OK) {
        name_peers(transport);
        shoal_pinned_fail(transport, status);
    }
    return NULL;
}

/* ---- For the caller's thread ---- */

void shoal_pinned_fail(shoal_pinned_t *transport, shoal_status_t status)
{
    int none = SHOAL_OK;
    pthread_mutex_lock(&transport->lock);
    atomic_compare_exchange_strong(&transport->status, &none, (int)status); /* before the words: who sees the end sees the error */
    for (shoal_pinned_comm_t *comm = transport->comms; comm != NULL; comm = comm->next) {
        atomic_store(&comm->words->back, comm->nenqueued);
    }
    pthread_mutex_unlock(&transport->lock);
}

shoal_status_t shoal_pinned_start(shoal_pinned_t *transport)
{
    transport->quit = false;
    if (pthread_create(&transport->thread, NULL, run, transport) != 0) {
        shoal_error("%s: cannot start a thread", transport->base.ops->name);
        return SHOAL_ERR_INTERNAL;
    }
    transport->running = true;
    return SHOAL_OK;
}

void shoal_pinned_stop(shoal_pinned_t *transport)
{
    if (!transport->running) {
        return;
    }
    pthread_mutex_lock(&transport->lock);
    transport->quit = true;
    pthread_cond_signal(&transport->changed);
    pthread_mutex_unlock(&transport->lock);
    transport->inner->ops->wake(transport->inner);
    pthread_join(transport->thread, NULL);
    transport->running = false;
}
