/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collectives among mates, who read each other's buffers in place. A collective is a few phases, published in the slots:
 *
 *     READY     my contribution may be read: it is in my slot when it is small, else at the address in my slot
 *     REDUCED   all_reduce only: my slice of the sum stands in my buffer
 *     FINISHED  I shall not read from anyone any more
 *
 * and at last, told to nobody, (next serial, 0): I need nobody's state any more. Only then may a member give up its slot.
 *
 * Nobody waits for a turn: a member reads from whoever is READY. It is complete when everybody is FINISHED, as only then its
 * buffers are its own again; small contributions are copies, so there it is complete as soon as it has read.
 *
 * A sum takes its terms in the order in which a ring would add them, so that fp32 results do not depend on the path. It is made
 * in pieces that stay in the cache between the copy and the addition, and in fp32 whatever the type of the elements.
 */
#include <string.h>

#include "base/log.h"
#include "collectives/ring.h"
#include "collectives/sum.h"
#include "collectives/ucx/ucx.h"

enum {
    PIECE_ELEMENTS = 32 * 1024,   /* of a sum: fits the second-level cache together with its term */
    QUANTUM_NBYTES = 1024 * 1024, /* read by one step at most, so that other groups get their turn */
    WAKE_NBYTES    = 64 * 1024,   /* a part to be gathered that is worth waking up for */
};

enum { PHASE_READY = 1, PHASE_REDUCED = 2, PHASE_FINISHED = 3 };

/* ---- States ---- */

/* Nonce above, then the serial, then two bits of phase: states of one comm grow, those of another never match. */
static uint64_t make_state(const shoal_direct_t *d, uint64_t serial, int phase)
{
    return d->nonce << 44 | (serial << 2 & ((1ull << 44) - 1)) | (uint64_t)phase;
}

static void publish(shoal_ucx_comm_t *comm, int phase)
{
    shoal_direct_t *d = &comm->direct;
    atomic_store(&d->slots[comm->self]->state, make_state(d, d->serial, phase));
    for (int m = 0; m < comm->size; m++) {
        shoal_host_notify(comm->host, d->mates[m]);
    }
}

static bool has_reached(const shoal_ucx_comm_t *comm, int member, int phase)
{
    const shoal_direct_t *d     = &comm->direct;
    uint64_t              state = atomic_load_explicit(&d->slots[member]->state, memory_order_acquire);
    return state >> 44 == d->nonce && state >= make_state(d, d->serial, phase);
}

bool shoal_direct_is_over(const shoal_ucx_comm_t *comm)
{
    const shoal_direct_t *d = &comm->direct;
    for (int m = 0; m < comm->size && d->serial > 0; m++) {
        uint64_t state = atomic_load(&d->slots[m]->state);
        bool     here  = shoal_host_fate(comm->host, d->mates[m]) == SHOAL_MATE_HERE;
        /* Every member had this comm's nonce in its slot once, so another one there means that it has moved on. */
        if (here && state >> 44 == d->nonce && state < make_state(d, d->serial + 1, 0)) {
            return false;
        }
    }
    return true;
}

/* The first other member, counted from the right neighbour, that has not reached the phase; -1: all have. */
static int first_behind(const shoal_ucx_comm_t *comm, int phase)
{
    for (int i = 1; i < comm->size; i++) {
        int member = (comm->self + i) % comm->size;
        if (!has_reached(comm, member, phase)) {
            return member;
        }
    }
    return -1;
}

/* ---- Contributions ---- */

static size_t contribution_nbytes(const shoal_coll_t *coll, int size)
{
    size_t nelem = coll->kind == SHOAL_COLL_REDUCE_SCATTER ? coll->n * (size_t)size : coll->n;
    return nelem * shoal_dtype_nbytes(coll->dtype);
}

static bool is_inline(const shoal_ucx_comm_t *comm)
{
    return contribution_nbytes(&comm->coll, comm->size) <= SHOAL_HOST_INLINE_NBYTES;
}

static const void *contribution(const shoal_coll_t *coll)
{
    return coll->kind == SHOAL_COLL_ALL_REDUCE ? coll->recv : coll->send;
}

static uint64_t signature(const shoal_coll_t *coll)
{
    return (uint64_t)coll->kind << 60 | (uint64_t)coll->dtype << 56 | (uint64_t)coll->n;
}

static shoal_offer_t *offer_of(const shoal_ucx_comm_t *comm, int member)
{
    return &comm->direct.slots[member]->offers[comm->direct.serial & 1];
}

static void make_offer(shoal_ucx_comm_t *comm)
{
    shoal_offer_t *offer = offer_of(comm, comm->self);
    offer->signature     = signature(&comm->coll);
    offer->address       = (uint64_t)(uintptr_t)contribution(&comm->coll);
    if (is_inline(comm)) {
        memcpy(offer->data, contribution(&comm->coll), contribution_nbytes(&comm->coll, comm->size));
    }
    publish(comm, PHASE_READY);
}

static shoal_status_t check_offer(const shoal_ucx_comm_t *comm, int member)
{
    if (offer_of(comm, member)->signature == signature(&comm->coll)) {
        return SHOAL_OK;
    }
    shoal_error("rank %d is in another collective than this rank on comm %d", comm->ranks[member], comm->tag);
    return SHOAL_ERR_INVALID;
}

/* Copies bytes of a READY member's contribution. */
static shoal_status_t read_member(const shoal_ucx_comm_t *comm, int member, size_t offset, void *to_p, size_t nbytes)
{
    const shoal_offer_t *offer = offer_of(comm, member);
    if (is_inline(comm)) {
        memcpy(to_p, offer->data + offset, nbytes);
        return SHOAL_OK;
    }
    return shoal_host_read(comm->host, comm->direct.mates[member], to_p, offer->address + offset, nbytes);
}

/* ---- Gathering ---- */

/* Where a member's part of the result goes, and where it lies in its contribution. */
typedef struct {
    char  *to;
    size_t offset, nbytes;
} part_t;

static part_t gathered_part(const shoal_ucx_comm_t *comm, int member)
{
    const shoal_coll_t *coll = &comm->coll;
    size_t              e    = shoal_dtype_nbytes(coll->dtype);
    if (coll->kind == SHOAL_COLL_ALL_GATHER) {
        return (part_t){.to = (char *)coll->recv + (size_t)member * coll->n * e, .offset = 0, .nbytes = coll->n * e};
    }
    shoal_range_t slice = shoal_ring_slice(coll->n, comm->size, member);
    return (part_t){.to = (char *)coll->recv + slice.first * e, .offset = slice.first * e, .nbytes = slice.count * e};
}

/* Reads up to *budget_p bytes of a member's part. */
static shoal_status_t gather_from(shoal_ucx_comm_t *comm, int member, size_t *budget_p)
{
    shoal_direct_t *d    = &comm->direct;
    part_t          part = gathered_part(comm, member);
    size_t          left = part.nbytes - d->nread[member];
    size_t          now  = left < *budget_p ? left : *budget_p;
    SHOAL_TRY(read_member(comm, member, part.offset + d->nread[member], part.to + d->nread[member], now));
    d->nread[member] += now;
    *budget_p -= now;
    if (d->nread[member] == part.nbytes) {
        d->nread[member] = SIZE_MAX; /* full: distinguishes an empty part that was dealt with */
        d->nfull++;
    }
    return SHOAL_OK;
}

/* SHOAL_OK once everyone's part is here. */
static shoal_status_t gather_step(shoal_ucx_comm_t *comm, int phase, bool *moved_p)
{
    shoal_direct_t *d      = &comm->direct;
    size_t          budget = QUANTUM_NBYTES;
    for (int i = 1; i < comm->size && budget > 0; i++) {
        int member = (comm->self + i) % comm->size;
        if (d->nread[member] == SIZE_MAX || !has_reached(comm, member, phase)) {
            continue;
        }
        SHOAL_TRY(check_offer(comm, member));
        SHOAL_TRY(gather_from(comm, member, &budget));
        *moved_p = true;
    }
    return d->nfull == comm->size - 1 ? SHOAL_OK : SHOAL_IN_PROGRESS;
}

static void gather_begin(shoal_ucx_comm_t *comm)
{
    memset(comm->direct.nread, 0, (size_t)comm->size * sizeof(size_t));
    comm->direct.nfull = 0;
}

/* ---- Reducing ---- */

/* Room for a piece of the sum and for a piece of a term, in the staging space. */
static float *wide_piece(const shoal_ucx_comm_t *comm)
{
    return comm->staging;
}

static void *term_piece(const shoal_ucx_comm_t *comm)
{
    return (float *)comm->staging + PIECE_ELEMENTS;
}

/* One piece of the sum: elements first .. first + n of every contribution, to out_p. */
static shoal_status_t reduce_piece(shoal_ucx_comm_t *comm, int slice, size_t first, size_t n, void *out_p)
{
    shoal_dtype_t dtype = comm->coll.dtype;
    size_t        e     = shoal_dtype_nbytes(dtype);
    float        *wide  = wide_piece(comm);
    for (int t = 0; t < comm->size; t++) {
        int         member = shoal_ring_reduce_term(comm->size, slice, t);
        const void *term   = (const char *)contribution(&comm->coll) + first * e;
        if (member != comm->self) {
            void *copy = t == 0 && dtype == SHOAL_F32 ? (void *)wide : term_piece(comm);
            SHOAL_TRY(read_member(comm, member, first * e, copy, n * e));
            term = copy;
        }
        bool last = t == comm->size - 1;
        if (t == 0) {
            if (term != wide) {
                shoal_sum_widen(dtype, wide, term, n);
            }
        } else if (last && dtype == SHOAL_F32) {
            shoal_sum_pair(dtype, out_p, wide, term, n);
        } else {
            shoal_sum_accumulate(dtype, wide, term, n);
        }
    }
    if (dtype != SHOAL_F32) {
        shoal_sum_narrow(dtype, out_p, wide, n);
    }
    return SHOAL_OK;
}

/* SHOAL_OK once my slice is summed. It starts when everyone is READY. */
static shoal_status_t reduce_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_direct_t *d = &comm->direct;
    size_t          e = shoal_dtype_nbytes(comm->coll.dtype);
    if (d->ndone == 0) {
        if (first_behind(comm, PHASE_READY) >= 0) {
            return SHOAL_IN_PROGRESS;
        }
        for (int m = 0; m < comm->size; m++) {
            SHOAL_TRY(check_offer(comm, m));
        }
    }
    char *out = comm->coll.recv;
    if (comm->coll.kind == SHOAL_COLL_ALL_REDUCE) {
        out += d->mine.first * e;
    }
    size_t stop = d->ndone + QUANTUM_NBYTES / e / (size_t)comm->size + 1;
    while (d->ndone < d->mine.count && d->ndone < stop) {
        size_t n = d->mine.count - d->ndone < PIECE_ELEMENTS ? d->mine.count - d->ndone : PIECE_ELEMENTS;
        SHOAL_TRY(reduce_piece(comm, comm->self, d->mine.first + d->ndone, n, out + d->ndone * e));
        d->ndone += n;
        *moved_p = true;
    }
    return d->ndone == d->mine.count ? SHOAL_OK : SHOAL_IN_PROGRESS;
}

/* A small all_reduce: everyone sums everything in the order of the group, so all get the same bits. */
static shoal_status_t small_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    const shoal_coll_t *coll = &comm->coll;
    enum { BLOCK = 256 };
    float  wide[BLOCK];
    size_t e = shoal_dtype_nbytes(coll->dtype);
    if (first_behind(comm, PHASE_READY) >= 0) {
        return SHOAL_IN_PROGRESS;
    }
    for (int m = 0; m < comm->size; m++) {
        SHOAL_TRY(check_offer(comm, m));
    }
    for (size_t i = 0; i < coll->n; i += BLOCK) {
        size_t n = coll->n - i < BLOCK ? coll->n - i : BLOCK;
        shoal_sum_widen(coll->dtype, wide, offer_of(comm, 0)->data + i * e, n);
        for (int m = 1; m < comm->size; m++) {
            shoal_sum_accumulate(coll->dtype, wide, offer_of(comm, m)->data + i * e, n);
        }
        shoal_sum_narrow(coll->dtype, (char *)coll->recv + i * e, wide, n);
    }
    *moved_p = true;
    return SHOAL_OK;
}

/* ---- The path ---- */

static shoal_status_t direct_start(shoal_ucx_comm_t *comm)
{
    shoal_direct_t     *d    = &comm->direct;
    const shoal_coll_t *coll = &comm->coll;
    size_t              e    = shoal_dtype_nbytes(coll->dtype);
    d->serial++;
    d->phase = PHASE_READY;
    d->ndone = 0;
    if (coll->kind == SHOAL_COLL_REDUCE_SCATTER) {
        d->mine = (shoal_range_t){.first = (size_t)comm->self * coll->n, .count = coll->n};
    } else if (coll->kind == SHOAL_COLL_ALL_REDUCE) {
        d->mine = shoal_ring_slice(coll->n, comm->size, comm->self);
    }
    gather_begin(comm);
    make_offer(comm);
    char *own = (char *)coll->recv + (size_t)comm->self * coll->n * e;
    if (coll->kind == SHOAL_COLL_ALL_GATHER && own != coll->send) {
        memcpy(own, coll->send, coll->n * e);
    }
    return SHOAL_OK;
}

/* The work of the current phase; SHOAL_OK when it is done. */
static shoal_status_t phase_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    bool is_all_reduce = comm->coll.kind == SHOAL_COLL_ALL_REDUCE;
    switch (comm->direct.phase) {
    case PHASE_READY:
        if (comm->coll.kind == SHOAL_COLL_ALL_GATHER) {
            return gather_step(comm, PHASE_READY, moved_p);
        }
        return is_all_reduce && is_inline(comm) ? small_step(comm, moved_p) : reduce_step(comm, moved_p);
    case PHASE_REDUCED:
        return gather_step(comm, PHASE_REDUCED, moved_p);
    default:
        return is_inline(comm) || first_behind(comm, PHASE_FINISHED) < 0 ? SHOAL_OK : SHOAL_IN_PROGRESS;
    }
}

static shoal_status_t direct_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    shoal_direct_t *d = &comm->direct;
    for (;;) {
        shoal_status_t status = phase_step(comm, moved_p);
        if (status != SHOAL_OK) {
            return status;
        }
        if (d->phase == PHASE_FINISHED) {
            atomic_store(&d->slots[comm->self]->state, make_state(d, d->serial + 1, 0));
            return SHOAL_OK;
        }
        bool gather_next = d->phase == PHASE_READY && comm->coll.kind == SHOAL_COLL_ALL_REDUCE && !is_inline(comm);
        d->phase         = gather_next ? PHASE_REDUCED : PHASE_FINISHED;
        publish(comm, d->phase);
        *moved_p = true;
    }
}

/*
 * Gathering goes on with any one member, unless the parts are so small that being woken for each costs more than reading
 * it. All other work needs everybody.
 */
unsigned shoal_direct_nawaited(const shoal_ucx_comm_t *comm)
{
    const shoal_direct_t *d       = &comm->direct;
    bool                  gathers = d->phase == PHASE_REDUCED ||
                   (d->phase == PHASE_READY && comm->coll.kind == SHOAL_COLL_ALL_GATHER);
    unsigned nbehind = 0;
    for (int m = 0; m < comm->size; m++) {
        nbehind += m != comm->self && !has_reached(comm, m, d->phase);
    }
    return (gathers && gathered_part(comm, comm->self).nbytes > WAKE_NBYTES) || nbehind == 0 ? 1 : nbehind;
}

static int direct_waits_for(const shoal_ucx_comm_t *comm)
{
    return first_behind(comm, comm->direct.phase);
}

static size_t direct_staging_nbytes(const shoal_coll_t *coll, int size)
{
    (void)size;
    return coll->kind == SHOAL_COLL_ALL_GATHER ? 0 : 2 * PIECE_ELEMENTS * sizeof(float);
}

const shoal_ucx_path_t shoal_ucx_direct = {
    .start          = direct_start,
    .step           = direct_step,
    .waits_for      = direct_waits_for,
    .staging_nbytes = direct_staging_nbytes,
};
