/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the ucx transport. Two paths carry its collectives, chosen per group when the group is made:
 *
 *   direct  all members on one host: each reads the others' buffers in place (host.h), one copy and no library in between
 *   net     otherwise: rings of tagged UCP messages (net.h), the ring ordered by host so that each link between hosts
 *           carries every byte once
 *
 * A path is a start and a step; the transport drives the steps of all groups from one progress call.
 */
#ifndef SHOAL_COLLECTIVES_UCX_UCX_H
#define SHOAL_COLLECTIVES_UCX_UCX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "collectives/transport.h"
#include "collectives/ucx/host.h"
#include "collectives/ucx/net.h"

/* An all_reduce up to this size is an exchange of everything with everyone and a sum in rank order, on either path. */
enum { SHOAL_UCX_SMALL_NBYTES = SHOAL_HOST_INLINE_NBYTES };

typedef struct shoal_ucx_comm shoal_ucx_comm_t;

typedef struct {
    shoal_status_t (*start)(shoal_ucx_comm_t *comm);
    /* Moves as far as it goes, at most about a megabyte, without waiting. SHOAL_OK: the collective is complete here. */
    shoal_status_t (*step)(shoal_ucx_comm_t *comm, bool *moved_p);
    int (*waits_for)(const shoal_ucx_comm_t *comm); /* place in the group, or -1 */
    size_t (*staging_nbytes)(const shoal_coll_t *coll, int size);
} shoal_ucx_path_t;

extern const shoal_ucx_path_t shoal_ucx_direct;
extern const shoal_ucx_path_t shoal_ucx_net;

/* How many changes of mates' states the comm waits for before it can move, at least 1. */
unsigned shoal_direct_nawaited(const shoal_ucx_comm_t *comm);

/* May the slot of this comm be given up: has every member seen the end of the last collective? */
bool shoal_direct_is_over(const shoal_ucx_comm_t *comm);

/* The members that this one exchanges messages with on the net path, each once; ranks_p (size). Returns how many. */
int shoal_ring_neighbours(const shoal_ucx_comm_t *comm, int *ranks_p);

/* A collective under way on the direct path. */
typedef struct {
    uint64_t        serial; /* of the collective on this comm, from 1 */
    uint64_t        nonce;  /* tells this comm's states from those of an earlier comm with the same tag */
    int             phase;
    shoal_range_t   mine;  /* reducing: my slice, in elements */
    size_t          ndone; /* reducing: elements of it done */
    size_t         *nread; /* (size) gathering: bytes read from each member */
    int             nfull; /* gathering: members read completely */
    int            *mates; /* (size) each member's index on the host */
    shoal_slot_t  **slots; /* (size) each member's slot */
} shoal_direct_t;

enum {
    SHOAL_RING_GROUP = 4, /* chunks that travel together, if there are so many: message m depends on message m - GROUP */
    SHOAL_RING_SLOTS = 8, /* messages in flight in each direction; more than GROUP, or the ring could block itself */
};

/* A collective under way on the net path. */
typedef struct {
    int           place; /* mine, in the ring */
    int          *order; /* (size) the member at each place of the ring */
    int           phase;
    size_t        chunk; /* elements */
    size_t        group; /* chunks */
    size_t        nmessages, nposted, narrived, nsent, ndeparted;
    shoal_net_op_t arrivals[SHOAL_RING_SLOTS], departures[SHOAL_RING_SLOTS];
    int           round; /* of a small all_reduce */
    shoal_net_op_t *small_ops; /* (2 * size) */
} shoal_ring_run_t;

/*
 * The exchange of net_exchange.c: whether it can serve a collective in a group of `size` whose members are spread over hosts, what
 * staging it needs, and its progress. It uses small_ops.
 */
enum { SHOAL_EXCHANGE_SIZE = 8 }; /* members that send to each other in one round; larger groups know only ring neighbours */

bool           shoal_exchange_serves(const shoal_coll_t *coll, int size);
size_t         shoal_exchange_staging_nbytes(const shoal_coll_t *coll, int size);
shoal_status_t shoal_exchange_begin(shoal_ucx_comm_t *comm);
shoal_status_t shoal_exchange_step(shoal_ucx_comm_t *comm, bool *moved_p);
int            shoal_exchange_waits_for(const shoal_ucx_comm_t *comm); /* a member, or -1 */

struct shoal_ucx_comm {
    shoal_comm_t            base;
    shoal_ucx_comm_t       *next;
    const shoal_ucx_path_t *path;
    int                    *ranks; /* (size) ranks of the job */
    int                     size, self, tag;
    bool                    spread; /* all members are on different hosts */
    void                   *staging;
    size_t                  staging_nbytes;
    shoal_status_t          status; /* SHOAL_IN_PROGRESS while a collective is under way */
    shoal_coll_t            coll;
    shoal_host_t           *host;
    shoal_net_t            *net;
    shoal_direct_t          direct;
    shoal_ring_run_t        ring;
};

/*
 * A direct comm made again with the same members and tag goes on counting where the last one stopped, on every member
 * alike: states of the last one, still in the slots, then lie in the past.
 */
typedef struct {
    uint64_t identity, serial;
} shoal_past_comm_t;

/* An instance of the transport. */
typedef struct {
    shoal_transport_t  base;
    shoal_peers_t      peers;
    shoal_host_t      *host;  /* NULL: no direct path on this host */
    shoal_net_t       *net;   /* NULL: nobody needs UCP */
    double             patience_s; /* with a rank that does not connect */
    int               *homes; /* (size) the lowest rank that reaches this one directly: equal numbers are mates */
    int                epoll_fd, event_fd;
    bool               may_spin;
    int64_t            spin_ns;
    bool               moved_in_wait; /* owed to the caller's next progress */
    unsigned           nidle;         /* progress calls in which nothing moved */
    shoal_status_t     status;
    atomic_bool        woken;
    shoal_ucx_comm_t  *comms;
    shoal_past_comm_t *past; /* (npast) */
    size_t             npast;
    shoal_ucx_comm_t  *broken; /* destroyed while messages were under way: UCP may still write to them */
} shoal_ucx_transport_t;

static inline shoal_ucx_transport_t *shoal_ucx_of(shoal_transport_t *base)
{
    return (shoal_ucx_transport_t *)base;
}

/* comm.c: making and unmaking groups, as transport.h says. */
shoal_status_t shoal_ucx_comm_create(shoal_transport_t *transport, const shoal_group_t *group, shoal_comm_t **comm_p);
void           shoal_ucx_comm_destroy(shoal_comm_t *base);
/* Frees the memory of a comm that is in no list any more. */
void shoal_ucx_comm_free(shoal_ucx_comm_t *comm);

/* progress.c: moves everything as far as it goes. An error stays in the transport's status. */
shoal_status_t shoal_ucx_progress_once(shoal_ucx_transport_t *t, bool *moved_p);
/* Has a rank died? */
shoal_status_t shoal_ucx_check_alive(shoal_ucx_transport_t *t);

/* wait.c: sleeping and waking, as transport.h says. */
enum { SHOAL_UCX_SPIN_MAX_NS = 50000 }; /* what spin_ns begins with */
shoal_status_t shoal_ucx_wait(shoal_transport_t *transport, int timeout_ms);
void           shoal_ucx_wake(shoal_transport_t *transport);

#endif
