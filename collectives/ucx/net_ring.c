/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collectives over messages. all_gather and reduce_scatter run around a ring (ring.h), in groups of up to SHOAL_RING_GROUP
 * chunks: a group makes all its steps before the next one starts, without a gap in between. So message m, both in sending and in
 * receiving, is
 *
 *     chunk  m % GROUP of group m / (GROUP * (size - 1)),   in step  m / GROUP % (size - 1)
 *
 * and what arrives as message m leaves as message m + GROUP. The numbering alone decides what may happen when:
 *
 *     receive m   may be posted when its slot is free: message m - SLOTS has arrived and, if it had to, left again
 *     send m      may be posted in step 0 always, later when message m - GROUP has arrived
 *
 * With SLOTS > GROUP every wait is for a message with a smaller number somewhere, so the ring cannot block itself.
 *
 * Numerics: partial sums travel in the type of the elements. With fp32 the sum is fp32 throughout; with bf16 each hop adds
 * in fp32 and rounds the partial sum to bf16, size - 1 roundings in all. (Reduce in fp32 where that matters; it is shoal's
 * default.)
 *
 * A small all_reduce gathers everyone's elements and sums them in the order of the group: in one round of messages to all in a
 * small group, in log2(size) rounds (Bruck) in a large one.
 */
#include <string.h>

#include "collectives/ring.h"
#include "collectives/sum.h"
#include "collectives/ucx/ucx.h"

enum {
    CHUNK_MAX_NBYTES = 256 * 1024,
    CHUNK_MIN_NBYTES = 16 * 1024,
    ALL_TO_ALL_SIZE  = SHOAL_EXCHANGE_SIZE, /* groups up to this size exchange small things in one round */
};

enum { PHASE_REDUCE, PHASE_GATHER, PHASE_SMALL, PHASE_EXCHANGE };

/* ---- Geometry ---- */

/* Elements in the longest block of the collective. */
static size_t block_elements(const shoal_coll_t *coll, int size)
{
    return coll->kind == SHOAL_COLL_ALL_REDUCE ? shoal_ring_slice(coll->n, size, 0).count : coll->n;
}

/* Small blocks are cut as well, or the steps of a ring could not overlap. */
static size_t chunk_elements(const shoal_coll_t *coll, int size)
{
    size_t e     = shoal_dtype_nbytes(coll->dtype);
    size_t chunk = block_elements(coll, size) / SHOAL_RING_GROUP + 1;
    chunk        = chunk < CHUNK_MIN_NBYTES / e ? CHUNK_MIN_NBYTES / e : chunk;
    return chunk > CHUNK_MAX_NBYTES / e ? CHUNK_MAX_NBYTES / e : chunk;
}

static bool is_small(const shoal_coll_t *coll)
{
    return coll->kind == SHOAL_COLL_ALL_REDUCE && coll->n * shoal_dtype_nbytes(coll->dtype) <= SHOAL_UCX_SMALL_NBYTES;
}

static int step_of(const shoal_ucx_comm_t *comm, size_t message)
{
    return (int)(message / comm->ring.group % (size_t)(comm->size - 1));
}

static size_t chunk_of(const shoal_ucx_comm_t *comm, size_t message)
{
    size_t group = message / comm->ring.group / (size_t)(comm->size - 1);
    return group * comm->ring.group + message % comm->ring.group;
}

/* All groups are full: chunks past the end of a block are empty messages, at most group - 1 per step of the last group. */
static size_t count_messages(const shoal_ucx_comm_t *comm, size_t nchunks)
{
    return shoal_ring_nchunks(nchunks, comm->ring.group) * comm->ring.group * (size_t)(comm->size - 1);
}

/* Elements of a chunk of the block that belongs to a place, counted from the start of a buffer that holds all blocks. */
static shoal_range_t chunk_range(const shoal_ucx_comm_t *comm, int place, size_t chunk)
{
    const shoal_coll_t *coll   = &comm->coll;
    int                 member = comm->ring.order[place];
    shoal_range_t       block  = {.first = (size_t)member * coll->n, .count = coll->n};
    if (coll->kind == SHOAL_COLL_ALL_REDUCE) {
        block = shoal_ring_slice(coll->n, comm->size, member);
    }
    shoal_range_t range = shoal_ring_chunk(block.count, comm->ring.chunk, chunk);
    range.first += block.first;
    return range;
}

static int rank_beside(const shoal_ucx_comm_t *comm, int offset)
{
    int place = (comm->ring.place + offset + comm->size) % comm->size;
    return comm->ranks[comm->ring.order[place]];
}

static char *at_element(const shoal_ucx_comm_t *comm, const void *buffer, size_t element)
{
    return (char *)(uintptr_t)buffer + element * shoal_dtype_nbytes(comm->coll.dtype);
}

/* ---- all_gather ---- */

static shoal_status_t gather_post(shoal_ucx_comm_t *comm, size_t m)
{
    shoal_ring_run_t *run   = &comm->ring;
    int               block = shoal_ring_gather_receives(comm->size, run->place, step_of(comm, m));
    shoal_range_t     range = chunk_range(comm, block, chunk_of(comm, m));
    return shoal_net_recv(comm->net, rank_beside(comm, -1), comm->tag, at_element(comm, comm->coll.recv, range.first),
                          range.count * shoal_dtype_nbytes(comm->coll.dtype), &run->arrivals[m % SHOAL_RING_SLOTS]);
}

static shoal_status_t gather_send(shoal_ucx_comm_t *comm, size_t m)
{
    shoal_ring_run_t *run   = &comm->ring;
    int               block = shoal_ring_gather_sends(comm->size, run->place, step_of(comm, m));
    shoal_range_t     range = chunk_range(comm, block, chunk_of(comm, m));
    return shoal_net_send(comm->net, rank_beside(comm, +1), comm->tag, at_element(comm, comm->coll.recv, range.first),
                          range.count * shoal_dtype_nbytes(comm->coll.dtype), &run->departures[m % SHOAL_RING_SLOTS]);
}

/* ---- reduce_scatter ---- */

static char *reduce_slot(const shoal_ucx_comm_t *comm, size_t m)
{
    return at_element(comm, comm->staging, m % SHOAL_RING_SLOTS * comm->ring.chunk);
}

static const void *reduce_terms(const shoal_ucx_comm_t *comm)
{
    return comm->coll.kind == SHOAL_COLL_ALL_REDUCE ? comm->coll.recv : comm->coll.send;
}

static shoal_status_t reduce_post(shoal_ucx_comm_t *comm, size_t m)
{
    shoal_ring_run_t *run   = &comm->ring;
    int               slice = shoal_ring_reduce_receives(comm->size, run->place, step_of(comm, m));
    shoal_range_t     range = chunk_range(comm, slice, chunk_of(comm, m));
    return shoal_net_recv(comm->net, rank_beside(comm, -1), comm->tag, reduce_slot(comm, m),
                          range.count * shoal_dtype_nbytes(comm->coll.dtype), &run->arrivals[m % SHOAL_RING_SLOTS]);
}

/* Adds this member's term to what arrived; the last arrival of a slice is the member's own and goes to its result. */
static void reduce_arrived(shoal_ucx_comm_t *comm, size_t m)
{
    int           step  = step_of(comm, m);
    size_t        chunk = chunk_of(comm, m);
    int           slice = shoal_ring_reduce_receives(comm->size, comm->ring.place, step);
    shoal_range_t range = chunk_range(comm, slice, chunk);
    char         *slot  = reduce_slot(comm, m);
    char         *out   = slot;
    if (step == comm->size - 2) {
        /* reduce_scatter's result holds the own slice alone, all_reduce's holds all. */
        size_t first = comm->coll.kind == SHOAL_COLL_ALL_REDUCE ? range.first : chunk * comm->ring.chunk;
        out          = range.count > 0 ? at_element(comm, comm->coll.recv, first) : out;
    }
    shoal_sum_pair(comm->coll.dtype, out, slot, at_element(comm, reduce_terms(comm), range.first), range.count);
}

static shoal_status_t reduce_send(shoal_ucx_comm_t *comm, size_t m)
{
    shoal_ring_run_t *run   = &comm->ring;
    int               step  = step_of(comm, m);
    int               slice = shoal_ring_reduce_sends(comm->size, run->place, step);
    shoal_range_t     range = chunk_range(comm, slice, chunk_of(comm, m));
    const void       *data  = step == 0 ? at_element(comm, reduce_terms(comm), range.first)
                                        : reduce_slot(comm, m - run->group);
    return shoal_net_send(comm->net, rank_beside(comm, +1), comm->tag, data, range.count * shoal_dtype_nbytes(comm->coll.dtype),
                          &run->departures[m % SHOAL_RING_SLOTS]);
}

/* ---- The ring's engine, common to both ---- */

static void ring_begin(shoal_ucx_comm_t *comm, int phase)
{
    shoal_ring_run_t *run = &comm->ring;
    run->phase            = phase;
    run->chunk            = chunk_elements(&comm->coll, comm->size);
    size_t nchunks        = shoal_ring_nchunks(block_elements(&comm->coll, comm->size), run->chunk);
    run->group            = nchunks < SHOAL_RING_GROUP ? nchunks : SHOAL_RING_GROUP;
    run->nmessages        = count_messages(comm, nchunks);
    run->nposted = run->narrived = run->nsent = run->ndeparted = 0;
}

/* Is the slot of message m - SLOTS free? In reduce_scatter an arrival that is passed on stays there until it has left. */
static bool may_post(const shoal_ucx_comm_t *comm)
{
    const shoal_ring_run_t *run = &comm->ring;
    size_t                  m   = run->nposted;
    if (m == run->nmessages || m >= run->narrived + SHOAL_RING_SLOTS) {
        return false;
    }
    if (run->phase == PHASE_GATHER || m < SHOAL_RING_SLOTS) {
        return true;
    }
    size_t before = m - SHOAL_RING_SLOTS;
    return step_of(comm, before) == comm->size - 2 || run->ndeparted > before + run->group;
}

static bool may_send(const shoal_ucx_comm_t *comm)
{
    const shoal_ring_run_t *run = &comm->ring;
    size_t                  m   = run->nsent;
    if (m == run->nmessages || m >= run->ndeparted + SHOAL_RING_SLOTS) {
        return false;
    }
    return step_of(comm, m) == 0 || run->narrived > m - run->group;
}

static shoal_status_t ring_post_all(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_ring_run_t *run = &comm->ring;
    while (may_post(comm)) {
        SHOAL_TRY(run->phase == PHASE_GATHER ? gather_post(comm, run->nposted) : reduce_post(comm, run->nposted));
        run->nposted++;
        *moved_p = true;
    }
    return SHOAL_OK;
}

static shoal_status_t ring_send_all(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_ring_run_t *run = &comm->ring;
    while (may_send(comm)) {
        SHOAL_TRY(run->phase == PHASE_GATHER ? gather_send(comm, run->nsent) : reduce_send(comm, run->nsent));
        run->nsent++;
        *moved_p = true;
    }
    return SHOAL_OK;
}

static shoal_status_t ring_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_ring_run_t *run   = &comm->ring;
    bool              moved = true;
    while (moved) {
        moved = false;
        while (run->ndeparted < run->nsent && !run->departures[run->ndeparted % SHOAL_RING_SLOTS].pending) {
            run->ndeparted++;
            moved = true;
        }
        SHOAL_TRY(ring_post_all(comm, &moved));
        if (run->narrived < run->nposted && !run->arrivals[run->narrived % SHOAL_RING_SLOTS].pending) {
            if (run->phase == PHASE_REDUCE) {
                reduce_arrived(comm, run->narrived);
            }
            run->narrived++;
            moved = true;
        }
        SHOAL_TRY(ring_send_all(comm, &moved));
        *moved_p = *moved_p || moved;
    }
    return run->narrived == run->nmessages && run->ndeparted == run->nmessages ? SHOAL_OK : SHOAL_IN_PROGRESS;
}

/* ---- Small all_reduce ---- */

/*
 * Everyone's elements are collected in the staging space, rotated so that those of member (self + i) stand at place i. A round
 * fetches blocks from members on the right and hands the same number to members on the left.
 */
static int small_nrounds(int size)
{
    int nrounds = 0;
    while (size > ALL_TO_ALL_SIZE && 1 << nrounds < size) {
        nrounds++;
    }
    return size <= ALL_TO_ALL_SIZE ? 1 : nrounds;
}

static int small_ntransfers(int size)
{
    return size <= ALL_TO_ALL_SIZE ? size - 1 : 1;
}

/* Transfer i of a round: over what distance, and how many blocks. */
static int small_distance(int size, int round, int transfer)
{
    return size <= ALL_TO_ALL_SIZE ? transfer + 1 : 1 << round;
}

static int small_nblocks(int size, int round)
{
    int reached = 1 << round;
    return size <= ALL_TO_ALL_SIZE ? 1 : size - reached < reached ? size - reached : reached;
}

static int member_beside(const shoal_ucx_comm_t *comm, int offset)
{
    return comm->ranks[(comm->self + offset + comm->size) % comm->size];
}

static shoal_status_t small_round(shoal_ucx_comm_t *comm)
{
    shoal_ring_run_t *run    = &comm->ring;
    size_t            block  = comm->coll.n * shoal_dtype_nbytes(comm->coll.dtype);
    size_t            nbytes = (size_t)small_nblocks(comm->size, run->round) * block;
    char             *all    = comm->staging;
    for (int i = 0; i < small_ntransfers(comm->size); i++) {
        int distance = small_distance(comm->size, run->round, i);
        SHOAL_TRY(shoal_net_recv(comm->net, member_beside(comm, distance), comm->tag, all + (size_t)distance * block, nbytes,
                                 &run->small_ops[2 * i]));
    }
    for (int i = 0; i < small_ntransfers(comm->size); i++) {
        int distance = small_distance(comm->size, run->round, i);
        SHOAL_TRY(shoal_net_send(comm->net, member_beside(comm, -distance), comm->tag, all, nbytes, &run->small_ops[2 * i + 1]));
    }
    return SHOAL_OK;
}

static void small_sum(shoal_ucx_comm_t *comm)
{
    const shoal_coll_t *coll = &comm->coll;
    enum { BLOCK = 256 };
    float wide[BLOCK];
    for (size_t i = 0; i < coll->n; i += BLOCK) {
        size_t n = coll->n - i < BLOCK ? coll->n - i : BLOCK;
        for (int m = 0; m < comm->size; m++) {
            size_t      slot = (size_t)((m - comm->self + comm->size) % comm->size);
            const void *term = at_element(comm, comm->staging, slot * coll->n + i);
            if (m == 0) {
                shoal_sum_widen(coll->dtype, wide, term, n);
            } else {
                shoal_sum_accumulate(coll->dtype, wide, term, n);
            }
        }
        shoal_sum_narrow(coll->dtype, at_element(comm, coll->recv, i), wide, n);
    }
}

static shoal_status_t small_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_ring_run_t *run = &comm->ring;
    for (;;) {
        for (int i = 0; i < 2 * small_ntransfers(comm->size); i++) {
            if (run->small_ops[i].pending) {
                return SHOAL_IN_PROGRESS;
            }
        }
        *moved_p = true;
        if (++run->round == small_nrounds(comm->size)) {
            small_sum(comm);
            return SHOAL_OK;
        }
        SHOAL_TRY(small_round(comm));
    }
}

static shoal_status_t small_begin(shoal_ucx_comm_t *comm)
{
    comm->ring.phase = PHASE_SMALL;
    comm->ring.round = 0;
    memcpy(comm->staging, comm->coll.recv, comm->coll.n * shoal_dtype_nbytes(comm->coll.dtype));
    return small_round(comm);
}

/* ---- The path ---- */

static shoal_status_t net_start(shoal_ucx_comm_t *comm)
{
    const shoal_coll_t *coll = &comm->coll;
    if (is_small(coll)) {
        return small_begin(comm);
    }
    if (coll->kind == SHOAL_COLL_ALL_GATHER) {
        char *own = at_element(comm, coll->recv, (size_t)comm->self * coll->n);
        if (own != coll->send) {
            memcpy(own, coll->send, coll->n * shoal_dtype_nbytes(coll->dtype));
        }
    }
    if (comm->spread && shoal_exchange_serves(coll, comm->size)) {
        comm->ring.phase = PHASE_EXCHANGE;
        return shoal_exchange_begin(comm);
    }
    ring_begin(comm, coll->kind == SHOAL_COLL_ALL_GATHER ? PHASE_GATHER : PHASE_REDUCE);
    return SHOAL_OK;
}

static shoal_status_t net_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    if (comm->ring.phase == PHASE_SMALL) {
        return small_step(comm, moved_p);
    }
    if (comm->ring.phase == PHASE_EXCHANGE) {
        return shoal_exchange_step(comm, moved_p);
    }
    shoal_status_t status = ring_step(comm, moved_p);
    if (status == SHOAL_OK && comm->coll.kind == SHOAL_COLL_ALL_REDUCE && comm->ring.phase == PHASE_REDUCE) {
        ring_begin(comm, PHASE_GATHER);
        return ring_step(comm, moved_p);
    }
    return status;
}

static int place_in_group(const shoal_ucx_comm_t *comm, int rank)
{
    for (int m = 0; m < comm->size; m++) {
        if (comm->ranks[m] == rank) {
            return m;
        }
    }
    return -1;
}

static int net_waits_for(const shoal_ucx_comm_t *comm)
{
    const shoal_ring_run_t *run = &comm->ring;
    if (run->phase == PHASE_EXCHANGE) {
        return shoal_exchange_waits_for(comm);
    }
    if (run->phase != PHASE_SMALL) {
        return place_in_group(comm, rank_beside(comm, run->narrived < run->nmessages ? -1 : +1));
    }
    for (int i = 0; i < 2 * small_ntransfers(comm->size); i++) {
        int distance = small_distance(comm->size, run->round, i / 2);
        if (run->small_ops[i].pending) {
            return place_in_group(comm, member_beside(comm, i % 2 == 0 ? distance : -distance));
        }
    }
    return -1;
}

static size_t net_staging_nbytes(const shoal_coll_t *coll, int size)
{
    size_t e = shoal_dtype_nbytes(coll->dtype);
    if (is_small(coll)) {
        return coll->n * (size_t)size * e;
    }
    size_t ring     = coll->kind == SHOAL_COLL_ALL_GATHER ? 0 : SHOAL_RING_SLOTS * chunk_elements(coll, size) * e;
    size_t exchange = shoal_exchange_staging_nbytes(coll, size);
    return ring > exchange ? ring : exchange;
}

static int add_neighbour(const shoal_ucx_comm_t *comm, int rank, int *ranks_p, int n)
{
    for (int i = 0; i < n; i++) {
        if (ranks_p[i] == rank) {
            return n;
        }
    }
    if (rank != comm->ranks[comm->self]) {
        ranks_p[n++] = rank;
    }
    return n;
}

int shoal_ring_neighbours(const shoal_ucx_comm_t *comm, int *ranks_p)
{
    int n = add_neighbour(comm, rank_beside(comm, -1), ranks_p, 0);
    n     = add_neighbour(comm, rank_beside(comm, +1), ranks_p, n);
    for (int round = 0; round < small_nrounds(comm->size); round++) {
        for (int i = 0; i < small_ntransfers(comm->size); i++) {
            int distance = small_distance(comm->size, round, i);
            n            = add_neighbour(comm, member_beside(comm, distance), ranks_p, n);
            n            = add_neighbour(comm, member_beside(comm, -distance), ranks_p, n);
        }
    }
    return n;
}

const shoal_ucx_path_t shoal_ucx_net = {
    .start          = net_start,
    .step           = net_step,
    .waits_for      = net_waits_for,
    .staging_nbytes = net_staging_nbytes,
};
