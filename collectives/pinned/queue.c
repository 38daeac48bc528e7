/* SPDX-License-Identifier: BSD-3-Clause */
/* The queue's half of pinned.h: what a collective puts on the device's queue. */
#include <stdlib.h>

#include "collectives/pinned/pinned.h"
#include "kernels/cuda/error.h"

/* ---- One slice ---- */

/* Elements first .. first + slot.n - 1 of each member's part of a collective, in a slot. */
typedef struct {
    const shoal_coll_t *whole;
    size_t              first;
    uint32_t            number; /* among all of the group */
    shoal_coll_t        slot;
} slice_t;

static slice_t make_slice(const shoal_pinned_comm_t *comm, const shoal_coll_t *coll, uint32_t first_number, size_t index)
{
    size_t most  = shoal_pinned_slice_nelem(comm, coll->kind, coll->dtype);
    size_t first = index * most;
    size_t n     = coll->n - first < most ? coll->n - first : most;
    return (slice_t){coll, first, first_number + (uint32_t)index, shoal_pinned_slot(comm, index, coll->kind, coll->dtype, n)};
}

/* The driver's results have the numbers of the runtime's errors. */
static shoal_status_t check_driver(CUresult result, const char *call)
{
    return shoal_cuda_check((cudaError_t)result, call);
}

/* Between every member's part in the device's memory, n elements apart, and in the slot, side by side. */
static shoal_status_t copy_all_parts(const shoal_pinned_comm_t *comm, const slice_t *slice, void *to, const void *from, bool down)
{
    size_t e = shoal_dtype_nbytes(slice->whole->dtype), apart = slice->whole->n * e, width = slice->slot.n * e;
    SHOAL_CUDA_TRY(cudaMemcpy2DAsync(to, down ? width : apart, from, down ? apart : width, width, (size_t)comm->size,
                                     down ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, comm->queue));
    return SHOAL_OK;
}

static shoal_status_t copy_down(const shoal_pinned_comm_t *comm, const slice_t *slice)
{
    const shoal_coll_t *whole = slice->whole, *slot = &slice->slot;
    size_t              e = shoal_dtype_nbytes(whole->dtype), offset = slice->first * e;
    if (whole->kind == SHOAL_COLL_REDUCE_SCATTER) {
        return copy_all_parts(comm, slice, (void *)(uintptr_t)slot->send, (const char *)whole->send + offset, true);
    }
    bool        gather = whole->kind == SHOAL_COLL_ALL_GATHER;
    const char *from   = gather ? whole->send : whole->recv;
    void       *to     = gather ? (void *)(uintptr_t)slot->send : slot->recv;
    SHOAL_CUDA_TRY(cudaMemcpyAsync(to, from + offset, slot->n * e, cudaMemcpyDeviceToHost, comm->queue));
    return SHOAL_OK;
}

static shoal_status_t copy_up(const shoal_pinned_comm_t *comm, const slice_t *slice)
{
    const shoal_coll_t *whole = slice->whole, *slot = &slice->slot;
    size_t              e  = shoal_dtype_nbytes(whole->dtype);
    char               *to = (char *)whole->recv + slice->first * e;
    if (whole->kind == SHOAL_COLL_ALL_GATHER) {
        return copy_all_parts(comm, slice, to, slot->recv, false);
    }
    SHOAL_CUDA_TRY(cudaMemcpyAsync(to, slot->recv, slot->n * e, cudaMemcpyHostToDevice, comm->queue));
    return SHOAL_OK;
}

static shoal_status_t begin(const shoal_pinned_t *transport, const shoal_pinned_comm_t *comm, const slice_t *slice)
{
    SHOAL_TRY(copy_down(comm, slice));
    return check_driver(transport->write_value(comm->queue, comm->device_here, slice->number + 1, CU_STREAM_WRITE_VALUE_DEFAULT),
                        "cuStreamWriteValue32");
}

static shoal_status_t finish(const shoal_pinned_t *transport, const shoal_pinned_comm_t *comm, const slice_t *slice)
{
    SHOAL_TRY(check_driver(transport->wait_value(comm->queue, comm->device_back, slice->number + 1, CU_STREAM_WAIT_VALUE_GEQ),
                           "cuStreamWaitValue32"));
    return copy_up(comm, slice);
}

/* ---- A collective ---- */

/* As long as a step enqueues: the list grows in the first steps and never after. */
static shoal_status_t make_room(shoal_pinned_comm_t *comm)
{
    enum { FIRST_CAPACITY = 64 };
    if (comm->njobs < comm->capacity) {
        return SHOAL_OK;
    }
    size_t              capacity = comm->capacity > 0 ? 2 * comm->capacity : FIRST_CAPACITY;
    shoal_pinned_job_t *jobs     = malloc(capacity * sizeof(*jobs));
    if (jobs == NULL) {
        shoal_error("no memory for a list of %zu collectives", capacity);
        return SHOAL_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < comm->njobs; i++) {
        jobs[i] = comm->jobs[(comm->first_job + i) % comm->capacity];
    }
    free(comm->jobs);
    comm->jobs      = jobs;
    comm->first_job = 0;
    comm->capacity  = capacity;
    return SHOAL_OK;
}

/* From here on the thread knows of it, and an error lets the queue go that waits for it. */
static shoal_status_t announce(shoal_pinned_t *transport, shoal_pinned_comm_t *comm, const shoal_coll_t *coll, size_t nslices,
                               uint32_t *first_p)
{
    pthread_mutex_lock(&transport->lock);
    shoal_status_t status = (shoal_status_t)atomic_load(&transport->status);
    status                = status == SHOAL_OK ? make_room(comm) : status;
    if (status == SHOAL_OK) {
        *first_p = comm->nenqueued;
        comm->nenqueued += (uint32_t)nslices;
        comm->jobs[(comm->first_job + comm->njobs++) % comm->capacity] = (shoal_pinned_job_t){coll->kind, coll->dtype, coll->n};
        pthread_cond_signal(&transport->changed);
    }
    pthread_mutex_unlock(&transport->lock);
    return status;
}

static shoal_status_t put_on_queue(const shoal_pinned_t *transport, const shoal_pinned_comm_t *comm, const shoal_coll_t *coll,
                                   uint32_t first, size_t nslices)
{
    for (size_t i = 0; i < nslices + SHOAL_PINNED_SLOTS; i++) {
        if (i >= SHOAL_PINNED_SLOTS && i - SHOAL_PINNED_SLOTS < nslices) {
            slice_t slice = make_slice(comm, coll, first, i - SHOAL_PINNED_SLOTS);
            SHOAL_TRY(finish(transport, comm, &slice));
        }
        if (i < nslices) {
            slice_t slice = make_slice(comm, coll, first, i);
            SHOAL_TRY(begin(transport, comm, &slice));
        }
    }
    return SHOAL_OK;
}

shoal_status_t shoal_pinned_enqueue(shoal_comm_t *base, const shoal_coll_t *coll, void *queue)
{
    shoal_pinned_comm_t *comm      = (shoal_pinned_comm_t *)base;
    shoal_pinned_t      *transport = (shoal_pinned_t *)base->transport;
    size_t               most      = shoal_pinned_slice_nelem(comm, coll->kind, coll->dtype);
    size_t               nslices   = coll->n / most + (coll->n % most > 0);
    uint32_t             first;
    if (comm->queue != NULL && comm->queue != queue) {
        shoal_error("comm %d keeps to the queue of its first collective", comm->tag);
        return SHOAL_ERR_INVALID;
    }
    comm->queue = queue;
    if (nslices == 0) {
        return (shoal_status_t)atomic_load(&transport->status);
    }
    SHOAL_TRY(announce(transport, comm, coll, nslices, &first));
    shoal_status_t status = put_on_queue(transport, comm, coll, first, nslices);
    if (status != SHOAL_OK) {
        shoal_pinned_fail(transport, status);
    }
    return status;
}
