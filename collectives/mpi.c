/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mpi transport: nonblocking MPI collectives, one MPI communicator per group. It is the second opinion beside ucx, and
 * the way onto networks that only the site's MPI drives well.
 *
 * Numerics: fp32 adds with MPI_SUM. bf16 adds with an operation of our own on a two-byte type; MPI hands it pairs of partial
 * results in that type, so that every addition is in fp32 and rounds to bf16. A small all_reduce gathers everyone's elements
 * and sums them in fp32 in the order of the group, like the ucx transport, so that all ranks have the same bits by
 * construction. The order of larger sums is MPI's own: it repeats on the same ranks, as the standard advises.
 *
 * MPI cannot sleep: while a collective is under way wait naps, ever longer; otherwise it sleeps on the wake signal.
 */
#include <errno.h>
#include <limits.h>
#include <mpi.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/watchdog.h"
#include "collectives/backends.h"
#include "collectives/sum.h"

enum {
    SMALL_NBYTES = 4096, /* an all_reduce up to this size is gathered and summed here */
    NAP_MIN_US   = 5,
    NAP_MAX_US   = 500,
};

typedef struct mpi_comm mpi_comm_t;

typedef struct {
    shoal_transport_t base;
    bool              started_here;
    const shoal_peers_t *peers;
    double patience_s; /* with ranks that do not come to a call that waits for all of them */
    MPI_Datatype      bf16;
    MPI_Op            bf16_sum;
    int               event_fd;
    unsigned          nap_us;
    mpi_comm_t       *comms;
} mpi_transport_t;

struct mpi_comm {
    shoal_comm_t   base;
    mpi_comm_t    *next;
    MPI_Comm       mpi;
    int            size, self;
    void          *staging;
    size_t         staging_nbytes;
    MPI_Request    request;
    shoal_status_t status;
    shoal_coll_t   coll;
};

static mpi_transport_t *transport_of(shoal_transport_t *base)
{
    return (mpi_transport_t *)base;
}

static mpi_comm_t *comm_of(shoal_comm_t *base)
{
    return (mpi_comm_t *)base;
}

static shoal_status_t from_mpi(int code, const char *doing)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int  length                     = 0;
    if (code == MPI_SUCCESS) {
        return SHOAL_OK;
    }
    MPI_Error_string(code, text, &length);
    shoal_error("MPI: %s: %s", doing, text);
    return SHOAL_ERR_PEER;
}

static void add_bf16(void *in, void *inout, int *n, MPI_Datatype *type)
{
    (void)type;
    shoal_sum_pair(SHOAL_BF16, inout, in, inout, (size_t)*n);
}

/* ---- Calls that wait for other ranks, and cannot be ended ---- */

typedef struct {
    const shoal_peers_t *peers;
    const char          *doing;
    shoal_watchdog_t    *watchdog;
} guard_t;

static void give_up(void *argument)
{
    const guard_t *guard = argument;
    guard->peers->give_up(guard->peers->context, guard->doing);
}

static void guard_begin(guard_t *guard, const mpi_transport_t *t, const char *doing)
{
    *guard = (guard_t){.peers = t->peers, .doing = doing};
    if (t->peers->size > 1 && t->peers->give_up != NULL) {
        guard->watchdog = shoal_watchdog_start(t->patience_s, give_up, guard);
    }
}

static void guard_end(guard_t *guard)
{
    shoal_watchdog_stop(guard->watchdog);
}

/* ---- Open and close ---- */

/* A process that no launcher started would become a world of its own in MPI_Init. */
static bool has_launcher(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_NAMESPACE") != NULL || getenv("PMI_RANK") != NULL ||
           getenv("PMI_FD") != NULL;
}

static shoal_status_t start_mpi(mpi_transport_t *t, const shoal_peers_t *peers)
{
    int started = 0, provided = 0, size = 0, rank = 0;
    MPI_Initialized(&started);
    if (!started && peers->size > 1 && !has_launcher()) {
        shoal_error("transport \"mpi\" needs ranks that mpirun or `srun --mpi=pmix` started");
        return SHOAL_ERR_CONFIG;
    }
    if (!started) {
        guard_t guard;
        guard_begin(&guard, t, "starting MPI");
        int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
        guard_end(&guard);
        SHOAL_TRY(from_mpi(code, "starting"));
    }
    t->started_here = !started;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (size != peers->size || rank != peers->rank) {
        shoal_error("MPI says rank %d of %d, the bootstrap says %d of %d", rank, size, peers->rank, peers->size);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

static void mpi_close(shoal_transport_t *transport)
{
    mpi_transport_t *t     = transport_of(transport);
    int              ended = 0;
    MPI_Finalized(&ended);
    if (!ended && t->bf16 != MPI_DATATYPE_NULL) {
        MPI_Op_free(&t->bf16_sum);
        MPI_Type_free(&t->bf16);
    }
    if (!ended && t->started_here) {
        MPI_Finalize();
    }
    if (t->event_fd >= 0) {
        close(t->event_fd);
    }
    free(t);
}

static shoal_status_t make_bf16(mpi_transport_t *t)
{
    SHOAL_TRY(from_mpi(MPI_Type_contiguous(2, MPI_BYTE, &t->bf16), "making the bf16 type"));
    SHOAL_TRY(from_mpi(MPI_Type_commit(&t->bf16), "making the bf16 type"));
    return from_mpi(MPI_Op_create(add_bf16, 1, &t->bf16_sum), "making the bf16 sum");
}

static shoal_status_t mpi_open(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    mpi_transport_t *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    t->base.ops           = &shoal_transport_mpi;
    t->bf16               = MPI_DATATYPE_NULL;
    t->peers              = peers;
    t->patience_s         = config->patience_s;
    t->nap_us             = NAP_MIN_US;
    t->event_fd           = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    shoal_status_t status = t->event_fd >= 0 ? start_mpi(t, peers) : SHOAL_ERR_INTERNAL;
    if (status == SHOAL_OK) {
        status = make_bf16(t);
    }
    if (status != SHOAL_OK) {
        if (t->event_fd >= 0) {
            close(t->event_fd);
        }
        free(t);
        return status;
    }
    *transport_p = &t->base;
    return SHOAL_OK;
}

/* ---- Groups ---- */

static bool is_small(const shoal_coll_t *coll)
{
    return coll->kind == SHOAL_COLL_ALL_REDUCE && coll->n * shoal_dtype_nbytes(coll->dtype) <= SMALL_NBYTES;
}

static size_t mpi_staging_nbytes(const shoal_coll_t *coll, int size)
{
    return is_small(coll) && size > 1 ? coll->n * (size_t)size * shoal_dtype_nbytes(coll->dtype) : 0;
}

static shoal_status_t mpi_comm_create(shoal_transport_t *transport, const shoal_group_t *group, shoal_comm_t **comm_p)
{
    mpi_transport_t *t    = transport_of(transport);
    mpi_comm_t      *comm = calloc(1, sizeof(*comm));
    MPI_Group        world, members;
    if (comm == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, group->size, group->ranks, &members);
    guard_t guard;
    guard_begin(&guard, t, "making an MPI communicator");
    int code = MPI_Comm_create_group(MPI_COMM_WORLD, members, group->tag, &comm->mpi);
    guard_end(&guard);
    shoal_status_t status = from_mpi(code, "making a communicator");
    MPI_Group_free(&members);
    MPI_Group_free(&world);
    if (status != SHOAL_OK || comm->mpi == MPI_COMM_NULL) {
        free(comm);
        return status != SHOAL_OK ? status : SHOAL_ERR_INVALID;
    }
    MPI_Comm_set_errhandler(comm->mpi, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm->mpi, &comm->self);
    comm->base.transport = transport;
    comm->size           = group->size;
    comm->staging        = group->staging;
    comm->staging_nbytes = group->staging_nbytes;
    comm->request        = MPI_REQUEST_NULL;
    comm->next           = t->comms;
    t->comms             = comm;
    *comm_p              = &comm->base;
    return SHOAL_OK;
}

static void mpi_comm_destroy(shoal_comm_t *base)
{
    mpi_comm_t  *comm = comm_of(base);
    mpi_comm_t **link = &transport_of(base->transport)->comms;
    while (*link != comm) {
        link = &(*link)->next;
    }
    *link = comm->next;
    if (comm->status == SHOAL_OK) {
        MPI_Comm_free(&comm->mpi);
    }
    free(comm);
}

/* ---- Collectives ---- */

static void sum_gathered(const mpi_comm_t *comm)
{
    const shoal_coll_t *coll = &comm->coll;
    size_t              e    = shoal_dtype_nbytes(coll->dtype);
    enum { BLOCK = 256 };
    float wide[BLOCK];
    for (size_t i = 0; i < coll->n; i += BLOCK) {
        size_t n = coll->n - i < BLOCK ? coll->n - i : BLOCK;
        shoal_sum_widen(coll->dtype, wide, (const char *)comm->staging + i * e, n);
        for (size_t m = 1; m < (size_t)comm->size; m++) {
            shoal_sum_accumulate(coll->dtype, wide, (const char *)comm->staging + (m * coll->n + i) * e, n);
        }
        shoal_sum_narrow(coll->dtype, (char *)coll->recv + i * e, wide, n);
    }
}

static int begin(const mpi_transport_t *t, mpi_comm_t *comm)
{
    const shoal_coll_t *coll = &comm->coll;
    MPI_Datatype        type = coll->dtype == SHOAL_F32 ? MPI_FLOAT : t->bf16;
    MPI_Op              sum  = coll->dtype == SHOAL_F32 ? MPI_SUM : t->bf16_sum;
    int                 n    = (int)coll->n;
    if (is_small(coll)) {
        return MPI_Iallgather(coll->recv, n, type, comm->staging, n, type, comm->mpi, &comm->request);
    }
    if (coll->kind == SHOAL_COLL_ALL_REDUCE) {
        return MPI_Iallreduce(MPI_IN_PLACE, coll->recv, n, type, sum, comm->mpi, &comm->request);
    }
    if (coll->kind == SHOAL_COLL_REDUCE_SCATTER) {
        return MPI_Ireduce_scatter_block(coll->send, coll->recv, n, type, sum, comm->mpi, &comm->request);
    }
    const char *own  = (const char *)coll->recv + (size_t)comm->self * coll->n * shoal_dtype_nbytes(coll->dtype);
    const void *send = own == coll->send ? MPI_IN_PLACE : coll->send;
    return MPI_Iallgather(send, n, type, coll->recv, n, type, comm->mpi, &comm->request);
}

static shoal_status_t mpi_start(shoal_comm_t *base, const shoal_coll_t *coll)
{
    mpi_comm_t *comm = comm_of(base);
    if (comm->status == SHOAL_IN_PROGRESS || coll->n > INT_MAX || (coll->dtype != SHOAL_F32 && coll->dtype != SHOAL_BF16) ||
        mpi_staging_nbytes(coll, comm->size) > comm->staging_nbytes) {
        shoal_error("MPI: a collective is under way, has a wrong type, too many elements or too little staging space");
        return SHOAL_ERR_INVALID;
    }
    if (comm->status != SHOAL_OK || coll->n == 0) {
        return comm->status;
    }
    if (comm->size == 1) {
        if (coll->kind != SHOAL_COLL_ALL_REDUCE && coll->recv != coll->send) {
            memcpy(coll->recv, coll->send, coll->n * shoal_dtype_nbytes(coll->dtype));
        }
        return SHOAL_OK;
    }
    comm->coll            = *coll;
    shoal_status_t status = from_mpi(begin(transport_of(base->transport), comm), "starting a collective");
    comm->status          = status == SHOAL_OK ? SHOAL_IN_PROGRESS : status;
    return status;
}

static shoal_status_t mpi_test(shoal_comm_t *comm)
{
    return comm_of(comm)->status;
}

static shoal_status_t mpi_progress(shoal_transport_t *transport, int *moved_p)
{
    mpi_transport_t *t     = transport_of(transport);
    int              moved = 0;
    for (mpi_comm_t *comm = t->comms; comm != NULL; comm = comm->next) {
        int done = 0;
        if (comm->status != SHOAL_IN_PROGRESS) {
            continue;
        }
        shoal_status_t status = from_mpi(MPI_Test(&comm->request, &done, MPI_STATUS_IGNORE), "collective");
        if (status != SHOAL_OK) {
            comm->status = status;
            return status;
        }
        if (done) {
            if (is_small(&comm->coll)) {
                sum_gathered(comm);
            }
            comm->status = SHOAL_OK;
            moved        = 1;
        }
    }
    t->nap_us = moved ? NAP_MIN_US : t->nap_us;
    *moved_p  = moved;
    return SHOAL_OK;
}

/* ---- Sleep ---- */

static bool any_under_way(const mpi_transport_t *t)
{
    const mpi_comm_t *comm = t->comms;
    while (comm != NULL && comm->status != SHOAL_IN_PROGRESS) {
        comm = comm->next;
    }
    return comm != NULL;
}

static shoal_status_t mpi_wait(shoal_transport_t *transport, int timeout_ms)
{
    mpi_transport_t *t     = transport_of(transport);
    struct pollfd    event = {.fd = t->event_fd, .events = POLLIN};
    struct timespec  nap   = {.tv_nsec = (long)t->nap_us * 1000};
    uint64_t         count;
    int              ready;
    if (any_under_way(t)) {
        ready     = ppoll(&event, 1, &nap, NULL);
        t->nap_us = t->nap_us * 2 < NAP_MAX_US ? t->nap_us * 2 : NAP_MAX_US;
    } else {
        ready = poll(&event, 1, timeout_ms);
    }
    if (ready == 1) {
        ssize_t ignored = read(t->event_fd, &count, sizeof(count));
        (void)ignored;
    }
    return SHOAL_OK;
}

static void mpi_wake(shoal_transport_t *transport)
{
    uint64_t one     = 1;
    ssize_t  ignored = write(transport_of(transport)->event_fd, &one, sizeof(one));
    (void)ignored;
}

/* MPI does not tell. */
static int mpi_waits_for(shoal_comm_t *comm)
{
    (void)comm;
    return -1;
}

const shoal_transport_ops_t shoal_transport_mpi = {
    .name           = "mpi",
    .open           = mpi_open,
    .close          = mpi_close,
    .staging_nbytes = mpi_staging_nbytes,
    .comm_create    = mpi_comm_create,
    .comm_destroy   = mpi_comm_destroy,
    .start          = mpi_start,
    .test           = mpi_test,
    .progress       = mpi_progress,
    .wait           = mpi_wait,
    .wake           = mpi_wake,
    .waits_for      = mpi_waits_for,
};
