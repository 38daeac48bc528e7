/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transports of pinned.h: opening, groups, tables. A table has the name of its inner transport, and is found by it for devices
 * with queues.
 *
 * The buffers are memory of this process that CUDA is told of, and not memory from CUDA: the inner transport's ways to read it (another
 * process does, or a network card) are made for the former.
 */
#include "collectives/pinned/pinned.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/backends.h"
#include "kernels/cuda/error.h"

enum { NAP_US = 100 };

static const size_t DEFAULT_SLICE_NBYTES = (size_t)4 << 20, MIN_SLICE_NBYTES = 64, MAX_SLICE_NBYTES = (size_t)1 << 30;

static shoal_pinned_t *pinned_of(shoal_transport_t *base)
{
    return (shoal_pinned_t *)base;
}

/* ---- Open and close ---- */

static shoal_status_t read_slice_nbytes(size_t *nbytes_p)
{
    const char *text = getenv("SHOAL_PINNED_SLICE");
    char       *end;
    *nbytes_p = DEFAULT_SLICE_NBYTES;
    if (text == NULL) {
        return SHOAL_OK;
    }
    errno                    = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < MIN_SLICE_NBYTES || value > MAX_SLICE_NBYTES) {
        shoal_error("SHOAL_PINNED_SLICE=%s: a number of bytes from %zu to %zu is expected", text, MIN_SLICE_NBYTES, MAX_SLICE_NBYTES);
        return SHOAL_ERR_CONFIG;
    }
    *nbytes_p = (size_t)value;
    return SHOAL_OK;
}

/* Ranks that cut differently would talk past each other. Collective, also where reading failed on this rank. */
static shoal_status_t agree_on_slice(shoal_pinned_t *t)
{
    const shoal_peers_t *peers  = t->peers;
    size_t              *all    = calloc((size_t)peers->size, sizeof(*all));
    shoal_status_t       status = all != NULL ? read_slice_nbytes(&t->slice_nbytes) : SHOAL_ERR_NO_MEMORY;
    if (all == NULL) {
        return status;
    }
    shoal_status_t exchanged = peers->exchange(peers->context, &t->slice_nbytes, sizeof(t->slice_nbytes), all);
    status                   = status == SHOAL_OK ? exchanged : status;
    for (int r = 0; status == SHOAL_OK && r < peers->size; r++) {
        if (all[r] != t->slice_nbytes) {
            shoal_error("SHOAL_PINNED_SLICE differs: %zu here, %zu on rank %d", t->slice_nbytes, all[r], r);
            status = SHOAL_ERR_CONFIG;
        }
    }
    free(all);
    return status;
}

static shoal_status_t open_on(const shoal_transport_ops_t *inner, const shoal_transport_ops_t *ops, const shoal_peers_t *peers,
                              const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    shoal_pinned_t *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        shoal_error("%s: out of memory", ops->name);
        return SHOAL_ERR_NO_MEMORY;
    }
    t->base.ops           = ops;
    t->peers              = peers;
    t->patience_s         = config->patience_s;
    shoal_status_t status = agree_on_slice(t);
    if (status == SHOAL_OK) {
        status = inner->open(peers, config, &t->inner);
    }
    if (status != SHOAL_OK) {
        free(t);
        return status;
    }
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    *transport_p = &t->base;
    return SHOAL_OK;
}

/* Its groups are gone, and with them the thread. */
static void pinned_close(shoal_transport_t *base)
{
    shoal_pinned_t *t = pinned_of(base);
    t->inner->ops->close(t->inner);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* None on the device. */
static size_t pinned_staging_nbytes(const shoal_coll_t *coll, int size)
{
    (void)coll;
    (void)size;
    return 0;
}

/* ---- Groups ---- */

static shoal_status_t find_driver_function(const char *name, void **function_p)
{
    enum { FORM = 12000 }; /* a version of CUDA that has the functions' present form */
    enum cudaDriverEntryPointQueryResult result;
    SHOAL_CUDA_TRY(cudaGetDriverEntryPointByVersion(name, function_p, FORM, cudaEnableDefault, &result));
    if (result != cudaDriverEntryPointSuccess || *function_p == NULL) {
        shoal_error("this CUDA driver has no %s", name);
        return SHOAL_ERR_UNSUPPORTED;
    }
    return SHOAL_OK;
}

static shoal_status_t find_driver_functions(shoal_pinned_t *t)
{
    void *write_value = NULL, *wait_value = NULL;
    SHOAL_TRY(find_driver_function("cuStreamWriteValue32", &write_value));
    SHOAL_TRY(find_driver_function("cuStreamWaitValue32", &wait_value));
    t->write_value = (PFN_cuStreamWriteValue32_v11070)write_value;
    t->wait_value  = (PFN_cuStreamWaitValue32_v11070)wait_value;
    return SHOAL_OK;
}

/* For slices of any length: an algorithm for few elements may need more than one for many. What is in between two lengths needs no more
 * than the longer one, since inner transports change algorithms at powers of two. */
static size_t inner_staging_nbytes(const shoal_pinned_t *t, const shoal_pinned_comm_t *comm)
{
    size_t largest = 0;
    for (int i = 0; i < 2 * (SHOAL_COLL_ALL_REDUCE + 1); i++) {
        shoal_coll_t coll = {.kind = (shoal_coll_kind_t)(i / 2), .dtype = i % 2 == 0 ? SHOAL_F32 : SHOAL_BF16};
        size_t       most = shoal_pinned_slice_nelem(comm, coll.kind, coll.dtype);
        for (coll.n = 1; coll.n <= most; coll.n = coll.n < most && 2 * coll.n > most ? most : 2 * coll.n) {
            size_t nbytes = t->inner->ops->staging_nbytes(&coll, comm->size);
            largest       = nbytes > largest ? nbytes : largest;
        }
    }
    return largest;
}

static shoal_status_t create_inner(shoal_pinned_t *t, shoal_pinned_comm_t *comm, const shoal_group_t *group)
{
    shoal_group_t inner  = *group;
    inner.staging_nbytes = inner_staging_nbytes(t, comm);
    comm->staging        = malloc(inner.staging_nbytes + 1);
    if (comm->staging == NULL) {
        shoal_error("%s: no memory for %zu bytes of staging", t->base.ops->name, inner.staging_nbytes);
        return SHOAL_ERR_NO_MEMORY;
    }
    inner.staging = comm->staging;
    return t->inner->ops->comm_create(t->inner, &inner, &comm->inner);
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* A slot's parts: a slice of everybody, a slice of one. */
static void lay_out(const shoal_pinned_t *t, shoal_pinned_comm_t *comm)
{
    enum { LINE = 64 };
    size_t least        = (size_t)comm->size * sizeof(float);
    comm->wide_nbytes   = round_up(t->slice_nbytes > least ? t->slice_nbytes : least, LINE);
    comm->narrow_nbytes = round_up(comm->wide_nbytes / (size_t)comm->size, LINE);
    comm->buffer_nbytes = sizeof(*comm->words) + SHOAL_PINNED_SLOTS * (comm->wide_nbytes + comm->narrow_nbytes);
    comm->buffer_nbytes = round_up(comm->buffer_nbytes, (size_t)sysconf(_SC_PAGESIZE));
}

static shoal_status_t find_words(shoal_pinned_comm_t *comm)
{
    void *device = NULL;
    comm->words  = (shoal_pinned_words_t *)comm->buffer;
    SHOAL_CUDA_TRY(cudaHostGetDevicePointer(&device, comm->words, 0));
    comm->device_here = (CUdeviceptr)(uintptr_t)device + offsetof(shoal_pinned_words_t, here);
    comm->device_back = (CUdeviceptr)(uintptr_t)device + offsetof(shoal_pinned_words_t, back);
    return SHOAL_OK;
}

static shoal_status_t lock_buffer(shoal_pinned_t *t, shoal_pinned_comm_t *comm)
{
    char *buffer = mmap(NULL, comm->buffer_nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        shoal_error("%s: no memory for a host buffer of %zu bytes", t->base.ops->name, comm->buffer_nbytes);
        return SHOAL_ERR_NO_MEMORY;
    }
    cudaError_t error = cudaHostRegister(buffer, comm->buffer_nbytes, cudaHostRegisterMapped);
    if (error != cudaSuccess) {
        munmap(buffer, comm->buffer_nbytes);
        shoal_error("%s: cannot lock a host buffer of %zu bytes; SHOAL_PINNED_SLICE makes it smaller", t->base.ops->name,
                    comm->buffer_nbytes);
        return shoal_cuda_check(error, "cudaHostRegister");
    }
    comm->buffer = buffer;
    return find_words(comm);
}

static void free_comm(shoal_pinned_t *t, shoal_pinned_comm_t *comm)
{
    if (comm->inner != NULL) {
        t->inner->ops->comm_destroy(comm->inner);
    }
    if (comm->buffer != NULL) {
        cudaHostUnregister(comm->buffer);
        munmap(comm->buffer, comm->buffer_nbytes);
    }
    free(comm->staging);
    free(comm->jobs);
    free(comm);
}

static shoal_status_t fill_comm(shoal_pinned_t *t, shoal_pinned_comm_t *comm, const shoal_group_t *group)
{
    comm->base.transport = &t->base;
    comm->size           = group->size;
    comm->tag            = group->tag;
    atomic_init(&comm->waits_for, -1);
    while (comm->self < group->size - 1 && group->ranks[comm->self] != t->peers->rank) {
        comm->self++;
    }
    lay_out(t, comm);
    SHOAL_TRY(create_inner(t, comm, group)); /* first, since the other members wait in it */
    SHOAL_TRY(find_driver_functions(t));
    return lock_buffer(t, comm);
}

static void announce_once(shoal_pinned_t *t, const shoal_pinned_comm_t *comm)
{
    if (!t->announced) {
        shoal_info("%s through pinned host memory, slices of %.4g MiB; %.4g MiB of it for each group", t->base.ops->name,
                   (double)t->slice_nbytes * 0x1p-20, (double)comm->buffer_nbytes * 0x1p-20);
        t->announced = true;
    }
}

static shoal_status_t pinned_comm_create(shoal_transport_t *base, const shoal_group_t *group, shoal_comm_t **comm_p)
{
    shoal_pinned_t      *t    = pinned_of(base);
    shoal_pinned_comm_t *comm = calloc(1, sizeof(*comm));
    if (comm == NULL) {
        shoal_error("%s: out of memory", t->base.ops->name);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_pinned_stop(t);
    comm->next            = t->comms;
    shoal_status_t status = fill_comm(t, comm, group);
    if (status == SHOAL_OK) {
        t->comms = comm;
        status   = shoal_pinned_start(t);
    }
    if (status != SHOAL_OK) { /* and the others, if there are any, can only be destroyed */
        t->comms = comm->next;
        free_comm(t, comm);
        return status;
    }
    announce_once(t, comm);
    *comm_p = &comm->base;
    return SHOAL_OK;
}

/* Something under way means that the caller gives up: then every queue is let go, as one may wait for another. */
static void pinned_comm_destroy(shoal_comm_t *base)
{
    shoal_pinned_comm_t  *comm = (shoal_pinned_comm_t *)base;
    shoal_pinned_t       *t    = pinned_of(base->transport);
    shoal_pinned_comm_t **link = &t->comms;
    shoal_pinned_stop(t);
    if (comm->njobs > 0) {
        shoal_pinned_fail(t, SHOAL_ERR_INVALID);
    }
    if (comm->queue != NULL) {
        cudaStreamSynchronize(comm->queue); /* the last copy; what a broken device answers was logged by whoever met it first */
    }
    while (*link != comm) {
        link = &(*link)->next;
    }
    *link = comm->next;
    free_comm(t, comm);
    if (t->comms != NULL && atomic_load(&t->status) == SHOAL_OK) {
        (void)shoal_pinned_start(t);
    }
}

/* ---- The tables ---- */

static shoal_status_t pinned_start(shoal_comm_t *comm, const shoal_coll_t *coll)
{
    (void)coll;
    shoal_error("%s: collectives on device memory are enqueued, not started", comm->transport->ops->name);
    return SHOAL_ERR_UNSUPPORTED;
}

static shoal_status_t pinned_test(shoal_comm_t *comm)
{
    (void)comm;
    return SHOAL_ERR_UNSUPPORTED;
}

static shoal_status_t pinned_progress(shoal_transport_t *base, int *moved_p)
{
    *moved_p = 0;
    return (shoal_status_t)atomic_load(&pinned_of(base)->status);
}

static shoal_status_t pinned_wait(shoal_transport_t *base, int timeout_ms)
{
    usleep(timeout_ms == 0 ? 0 : NAP_US);
    return (shoal_status_t)atomic_load(&pinned_of(base)->status);
}

/* Nobody sleeps for long in wait. */
static void pinned_wake(shoal_transport_t *base)
{
    (void)base;
}

static int pinned_waits_for(shoal_comm_t *comm)
{
    return atomic_load(&((shoal_pinned_comm_t *)comm)->waits_for);
}

#define PINNED_TABLE(name_, open_)                 \
    {                                              \
        .name           = name_,                   \
        .open           = open_,                   \
        .close          = pinned_close,            \
        .staging_nbytes = pinned_staging_nbytes,   \
        .comm_create    = pinned_comm_create,      \
        .comm_destroy   = pinned_comm_destroy,     \
        .enqueue        = shoal_pinned_enqueue,    \
        .recordable     = false, /* words grow */  \
        .start          = pinned_start,            \
        .test           = pinned_test,             \
        .progress       = pinned_progress,         \
        .wait           = pinned_wait,             \
        .wake           = pinned_wake,             \
        .waits_for      = pinned_waits_for,        \
    }

#ifdef SHOAL_HAVE_UCX
static shoal_status_t open_ucx(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    return open_on(&shoal_transport_ucx, &shoal_transport_pinned_ucx, peers, config, transport_p);
}

const shoal_transport_ops_t shoal_transport_pinned_ucx = PINNED_TABLE("ucx", open_ucx);
#endif

#ifdef SHOAL_HAVE_MPI
static shoal_status_t open_mpi(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    return open_on(&shoal_transport_mpi, &shoal_transport_pinned_mpi, peers, config, transport_p);
}

const shoal_transport_ops_t shoal_transport_pinned_mpi = PINNED_TABLE("mpi", open_mpi);
#endif
