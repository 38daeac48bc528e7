/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transports of host memory (here: the inner transport, ucx or mpi) under the memory of GPUs, through page-locked buffers. Direct
 * transfers from device memory are not here: Debian's UCX has no CUDA support, and our sums are made on the host anyway.
 *
 * A collective is cut into slices. A slice lives in a slot of the group's buffer; two words of page-locked memory say how far it is:
 *
 *     queue                                       thread
 *       copy slice k from the device
 *       here = k + 1                         ->     sees it, runs the inner collective on the slot
 *       wait until back >= k + 1             <-     back = k + 1
 *       copy slice k to the device
 *
 *     slots 3, slices 5     down 0  down 1  down 2 | wait 0  up 0  down 3 | wait 1  up 1  down 4 | wait 2  up 2 | ... | wait 4  up 4
 *
 * So the copies of some slices are hidden behind the network time of others. Nothing can block for ever: a slice is put on the queue
 * before anything that waits for it, its copy waits only for earlier slices, and each collective leaves all slots free. Between queues the
 * order is the program's. The waits on words are invisible to CUDA, which therefore may not put two queues on one channel of the
 * hardware: CUDA_DEVICE_MAX_CONNECTIONS, 8 by default, must be above the number of queues.
 *
 * Words only grow; at 2^32 they start over, and both CUDA and the thread compare them by the sign of the difference.
 *
 * Threads: the caller's makes groups and enqueues. While there are groups a thread of the transport makes all calls into the inner
 * transport, except that it is stopped while a group is made or destroyed. It makes no call into CUDA, so a caller that CUDA lets wait
 * (a queue is full) never holds it up.
 *
 * Errors: the thread logs them with the rank that is waited for, keeps the status for `progress` and `enqueue`, and sets every `back` to
 * the end, so that queues run empty; what they copy then is rubbish. A caller whose queue is done asks `progress` before it believes in
 * the result.
 */
#ifndef SHOAL_COLLECTIVES_PINNED_PINNED_H
#define SHOAL_COLLECTIVES_PINNED_PINNED_H

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cudaTypedefs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "collectives/transport.h"

enum { SHOAL_PINNED_SLOTS = 3 };

/* At the start of a group's buffer; slices done, modulo 2^32. */
typedef struct {
    _Alignas(64) _Atomic uint32_t here; /* written by the queue */
    _Alignas(64) _Atomic uint32_t back; /* written by the thread */
} shoal_pinned_words_t;

/* A collective that was enqueued and is not done. */
typedef struct {
    shoal_coll_kind_t kind;
    shoal_dtype_t     dtype;
    size_t            n;
} shoal_pinned_job_t;

typedef struct shoal_pinned_comm shoal_pinned_comm_t;

struct shoal_pinned_comm {
    shoal_comm_t         base;
    shoal_pinned_comm_t *next;
    shoal_comm_t        *inner;
    void                *staging; /* the inner comm's */
    int                  size, self, tag;
    cudaStream_t         queue; /* the only one it is used with; NULL before its first collective */

    char                 *buffer; /* the words, then the slots */
    size_t                buffer_nbytes;
    shoal_pinned_words_t *words;
    CUdeviceptr           device_here, device_back; /* the words as the GPU knows them */
    size_t                wide_nbytes, narrow_nbytes; /* of a slot's two parts: every member's share, one member's */

    uint32_t            nenqueued; /* slices; these five under the transport's lock */
    shoal_pinned_job_t *jobs;      /* a ring */
    size_t              njobs, first_job, capacity;

    size_t     ndone;      /* the thread's: elements of the first job that are done */
    uint32_t   nback;      /* slices done */
    bool       started;    /* a slice is with the inner transport */
    int64_t    started_ns;
    atomic_int waits_for;
};

typedef struct {
    shoal_transport_t    base;
    shoal_transport_t   *inner;
    const shoal_peers_t *peers;
    double               patience_s; /* a slice that takes longer is lost */
    size_t               slice_nbytes;
    bool                 announced;

    PFN_cuStreamWriteValue32_v11070 write_value; /* NULL before the first group */
    PFN_cuStreamWaitValue32_v11070  wait_value;

    pthread_mutex_t      lock;
    pthread_cond_t       changed; /* jobs or quit */
    pthread_t            thread;
    bool                 running, quit;
    atomic_int           status;
    shoal_pinned_comm_t *comms;
} shoal_pinned_t;

/* slices.c. Elements of each member's n in a slice; the last slice of a collective may have fewer. */
size_t shoal_pinned_slice_nelem(const shoal_pinned_comm_t *comm, shoal_coll_kind_t kind, shoal_dtype_t dtype);

/* Slice `index` of a collective, of m elements, as a collective on its slot. */
shoal_coll_t shoal_pinned_slot(const shoal_pinned_comm_t *comm, size_t index, shoal_coll_kind_t kind, shoal_dtype_t dtype, size_t m);

/* queue.c: the table's `enqueue`. */
shoal_status_t shoal_pinned_enqueue(shoal_comm_t *comm, const shoal_coll_t *coll, void *queue);

/* thread.c. start: where there are groups. stop returns when the thread has ended, with collectives left as they are. */
shoal_status_t shoal_pinned_start(shoal_pinned_t *transport);
void           shoal_pinned_stop(shoal_pinned_t *transport);

/* Keeps the first error, and lets all queues go. From either thread; not under the lock. */
void shoal_pinned_fail(shoal_pinned_t *transport, shoal_status_t status);

#endif
