/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collectives over a group of ranks: all_gather, reduce_scatter, all_reduce. Backends: `self` (a group of one), `mpi` (nonblocking
 * MPI), `ucx` (own ring algorithms over UCP), `nccl`. A backend is one const table; an instance is a shoal_transport_t, a group on it a
 * shoal_comm_t.
 *
 * A collective is started, then driven by `progress` and asked about with `test`; nothing blocks except open, close, comm_create,
 * comm_destroy and wait. A comm runs one collective at a time, and all members start the same ones in the same order;
 * different comms of one transport run concurrently. That is how the executor's lanes map onto it: one comm per lane.
 *
 * A transport with `enqueue` (nccl, and what pinned.h makes of ucx and mpi) works on the memory of devices with a stream instead: it puts a collective on the device's queue and
 * returns; `start` and `test` are not for it, and `progress` only looks for errors of peers. After such an error it may let the queue run
 * to its end with wrong results, so that who waits for the queue asks `progress` once more at the end.
 *
 * Threads: after open, one thread at a time calls into a transport (the executor's progress thread, once it runs).
 * `wake` alone may be called from any thread at any time.
 * Memory: a comm allocates nothing once created (one with `enqueue`, once as much has been enqueued as ever will be). Staging space is the caller's: staging_nbytes says how much a collective
 * needs, a group brings a region that is large enough for the largest, so that the plan counts it.
 * Numerics: reduce_scatter and all_reduce add in fp32 whatever the wire type, in an order that depends only on the group's
 * size, on n and on how its ranks lie on hosts: the same inputs give the same bits, and all_reduce gives the same bits on
 * every rank. bf16 sums round once within a host and in small groups; around a ring of hosts partial sums travel as bf16
 * and round at each hop.
 * Errors: SHOAL_ERR_PEER when a peer is gone (logged once, with its rank); after any error a transport is fit only for closing.
 */
#ifndef SHOAL_COLLECTIVES_TRANSPORT_H
#define SHOAL_COLLECTIVES_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/dtype.h"
#include "base/status.h"

typedef struct shoal_transport shoal_transport_t;
typedef struct shoal_comm      shoal_comm_t;

/* Who is in the job and how to reach them before any transport exists. Lives as long as the transport. */
typedef struct {
    int rank, size;
    int local_rank, local_size; /* among the ranks of this host */
    /*
     * Every rank contributes nbytes at `mine`; all_p receives size * nbytes in rank order. Blocking and collective over all
     * ranks of the job.
     */
    shoal_status_t (*exchange)(void *context, const void *mine, size_t nbytes, void *all_p);
    /*
     * Ends this process, and the job as far as the launcher can: this rank waits for others in a
     * call that cannot be ended. `doing`: what for, for people. From any thread, while no other is
     * in `exchange`. NULL: there is nobody to wait for.
     */
    void (*give_up)(void *context, const char *doing);
    void *context;
} shoal_peers_t;

/* What a group is for: a transport may give the two communication lanes of a step different shares of a GPU. */
typedef enum { SHOAL_COMM_ANY, SHOAL_COMM_GATHER, SHOAL_COMM_REDUCE, SHOAL_COMM_USES } shoal_comm_use_t;

/*
 * NCCL's ways to choose thread blocks (CTAs). AUTO: it chooses. ZERO: gathers go by the copy
 * engines, where windows are registered.
 */
typedef enum { SHOAL_CTA_AUTO, SHOAL_CTA_DEFAULT, SHOAL_CTA_EFFICIENCY, SHOAL_CTA_ZERO } shoal_cta_policy_t;

/*
 * Whether groups register memory with their members (`attach`). AUTO: if all ranks are on one host,
 * a GPU each, and as far as it works.
 */
typedef enum { SHOAL_WINDOWS_AUTO, SHOAL_WINDOWS_OFF, SHOAL_WINDOWS_ON } shoal_windows_t;

/* What the user may say about a transport. All but patience_s is NCCL's: the others use no GPU's multiprocessors, and ignore it. */
typedef struct {
    /* Until all members have come, and until a collective's first use has set up its connections; with pinned.h also for each slice. */
    double             patience_s;
    int                max_ctas[SHOAL_COMM_USES]; /* of a group's collectives; 0: the library chooses */
    shoal_cta_policy_t gather_policy;             /* of groups for SHOAL_COMM_GATHER */
    shoal_windows_t    windows;
    bool deterministic; /* the same bits in every run, where the user's own settings of NCCL do not
                           forbid it */
} shoal_transport_config_t;

/*
 * A group: ranks[0 .. size-1] are ranks of the job, this one among them; position in the list is rank in the group. All members
 * pass the same list, use and tag (0 .. 255, unique per group). The list is copied; the staging region stays the caller's and
 * outlives the comm, and may be NULL when no collective needs any.
 */
typedef struct {
    const int       *ranks;
    int              size;
    int              tag;
    shoal_comm_use_t use;
    void            *staging;
    size_t           staging_nbytes;
} shoal_group_t;

typedef enum { SHOAL_COLL_ALL_GATHER, SHOAL_COLL_REDUCE_SCATTER, SHOAL_COLL_ALL_REDUCE } shoal_coll_kind_t;

/*
 * One collective. n counts elements per rank: all_gather sends n and receives n * size; reduce_scatter sends n * size and
 * receives n, the sum over ranks of slice `rank`; all_reduce works in place on n elements at recv (send is ignored).
 * all_gather's send may be its own place recv + rank * n; reduce_scatter must not alias, and may destroy nothing in send.
 */
typedef struct {
    shoal_coll_kind_t kind;
    shoal_dtype_t     dtype; /* SHOAL_F32 or SHOAL_BF16 */
    size_t            n;
    const void       *send;
    void             *recv;
} shoal_coll_t;

typedef struct {
    const char *name;
    /* The configuration is copied. */
    shoal_status_t (*open)(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p);
    void (*close)(shoal_transport_t *transport);
    /* Staging bytes that this collective needs in a group of `size`. Pure: needs no instance, `plan` calls it. */
    size_t (*staging_nbytes)(const shoal_coll_t *coll, int size);
    /*
     * Collective over the group's members. Recordings of what a comm has enqueued are freed before
     * it is destroyed.
     */
    shoal_status_t (*comm_create)(shoal_transport_t *transport, const shoal_group_t *group, shoal_comm_t **comm_p);
    void (*comm_destroy)(shoal_comm_t *comm);
    /*
     * Ends what all comms have under way, so that queues and recordings come to their end; for a
     * caller that has given up on its peers. Recordings have been freed. From then on comms can
     * only be destroyed. NULL slot: comm_destroy sees to it.
     */
    void (*abort)(shoal_transport_t *transport);
    /*
     * Memory of this rank's device in the form that the transport moves best; free it after the comms that it is attached to, before
     * close. SHOAL_ERR_NO_MEMORY is not logged: the device knows what it has left (kernels/device.h, `say_full`).
     * NULL slots: the device's own memory is as good.
     */
    shoal_status_t (*alloc)(shoal_transport_t *transport, size_t nbytes, void **memory_p);
    void (*free)(shoal_transport_t *transport, void *memory);
    /*
     * Tells a group of the memory from `alloc` that its collectives will work on; once per comm.
     * Collective over the members, who pass the same size and will use the same offsets. What it
     * gains is speed: a group that has no use for it, or of which a member cannot do it, says so in
     * the log, and SHOAL_OK, unless the user insists (SHOAL_WINDOWS_ON: an error). NULL slot:
     * nothing to gain.
     */
    shoal_status_t (*attach)(shoal_comm_t *comm, void *memory, size_t nbytes);
    /* Queue: what the device calls it (kernels/device.h, `native`). NULL slot: the transport works on host memory. */
    shoal_status_t (*enqueue)(shoal_comm_t *comm, const shoal_coll_t *coll, void *queue);
    bool uses_multiprocessors; /* what it enqueues are kernels, of max_ctas thread blocks, that run beside those of compute */
    /*
     * Of the device's memory that a group takes beside the staging, by estimate; no plan counts it.
     */
    size_t comm_nbytes;
    bool recordable; /* what it enqueues may be recorded and replayed (kernels/device.h, `record_begin`) */
    shoal_status_t (*start)(shoal_comm_t *comm, const shoal_coll_t *coll);
    /* SHOAL_OK when the started collective is complete here, SHOAL_IN_PROGRESS, or an error. Does not progress. */
    shoal_status_t (*test)(shoal_comm_t *comm);
    /* Moves all collectives of the transport as far as they go without waiting. *moved_p says whether anything did. */
    shoal_status_t (*progress)(shoal_transport_t *transport, int *moved_p);
    /*
     * Sleeps until the network has something to do, `wake` was called since the last wait, or timeout_ms passed (-1: no limit).
     * Does not burn a core: a backend whose library cannot sleep naps in short, growing steps while a collective is in
     * flight and sleeps on the wake signal otherwise.
     */
    shoal_status_t (*wait)(shoal_transport_t *transport, int timeout_ms);
    void (*wake)(shoal_transport_t *transport);
    /* The rank of the job that the comm's collective waits for, or -1: to name what hangs. */
    int (*waits_for)(shoal_comm_t *comm);
} shoal_transport_ops_t;

struct shoal_transport {
    const shoal_transport_ops_t *ops;
};

struct shoal_comm {
    shoal_transport_t *transport;
};

/*
 * A backend of this build. Those for GPUs need large libraries and are in modules (base/module.h); "ucx" and "mpi" stand in the list
 * twice, for they serve GPUs too (pinned.h).
 */
typedef struct {
    const char                  *name;
    bool                         queued; /* works on the memory of devices with a stream */
    const shoal_transport_ops_t *ops;    /* NULL: in a module */
    const char                  *module, *symbol;
} shoal_transport_backend_t;

/* Ended by a NULL name, in the order of preference. */
extern const shoal_transport_backend_t shoal_transport_backends[];

/* The backend's table; SHOAL_ERR_UNSUPPORTED, with the reason in why_p, when its module cannot be opened. */
shoal_status_t shoal_transport_table(const shoal_transport_backend_t *backend, const shoal_transport_ops_t **ops_p, char *why_p,
                                     size_t why_nbytes);

/* Lets shoal_transport_find find one more backend, before the others: the tests'. At most one. */
void shoal_transport_add(const shoal_transport_ops_t *ops);

/*
 * The table for a name: "self", "mpi", "ucx", "nccl", or "auto": self for one rank, else the first in the build that works on
 * the memory in question: `queued` for devices with a stream, where "ucx" and "mpi" are the tables of pinned.h. A name that is not in the build, or does not, is
 * SHOAL_ERR_CONFIG, and the message lists what there is.
 */
shoal_status_t shoal_transport_find(const char *name, int size, bool queued, const shoal_transport_ops_t **ops_p);

#endif
