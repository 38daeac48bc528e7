/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * all_gather and reduce_scatter in one round: every member sends to every other at once. Each byte still leaves and enters a
 * member once, as around the ring, but nothing is passed on, so a member that is slow to wake up (its CPU is shared, or throttled)
 * delays the others once and not at every step. It takes small groups with moderate blocks, where latency counts, and members that all
 * are on different hosts: the ring crosses from host to host once, this would do so once per pair.
 *
 *     4 members, reduce_scatter      to 0   to 1   to 2   to 3
 *       member 0 sends slice           -      1      2      3     what arrives from member self + i is kept at place i - 1
 *       member 1 sends slice           0      -      2      3     of the staging space until all is there
 *
 * Numerics: terms are added in fp32 in the order of the group and rounded once, whatever the type on the wire.
 */
#include <string.h>

#include "collectives/sum.h"
#include "collectives/ucx/ucx.h"

enum { EXCHANGE_MAX_NBYTES = 1 << 20 }; /* of a block: beyond, bandwidth counts more than latency, and staging would grow */

bool shoal_exchange_serves(const shoal_coll_t *coll, int size)
{
    return coll->kind != SHOAL_COLL_ALL_REDUCE && size <= SHOAL_EXCHANGE_SIZE &&
           coll->n * shoal_dtype_nbytes(coll->dtype) <= EXCHANGE_MAX_NBYTES;
}

size_t shoal_exchange_staging_nbytes(const shoal_coll_t *coll, int size)
{
    bool staged = coll->kind == SHOAL_COLL_REDUCE_SCATTER && shoal_exchange_serves(coll, size);
    return staged ? coll->n * (size_t)(size - 1) * shoal_dtype_nbytes(coll->dtype) : 0;
}

/* The member i places on, or before with a negative i. */
static int member_at(const shoal_ucx_comm_t *comm, int i)
{
    return (comm->self + i + comm->size) % comm->size;
}

static char *block_of(const shoal_ucx_comm_t *comm, const void *buffer, int block)
{
    return (char *)(uintptr_t)buffer + (size_t)block * comm->coll.n * shoal_dtype_nbytes(comm->coll.dtype);
}

shoal_status_t shoal_exchange_begin(shoal_ucx_comm_t *comm)
{
    const shoal_coll_t *coll   = &comm->coll;
    bool                gather = coll->kind == SHOAL_COLL_ALL_GATHER;
    size_t              nbytes = coll->n * shoal_dtype_nbytes(coll->dtype);
    for (int i = 1; i < comm->size; i++) {
        char *to = gather ? block_of(comm, coll->recv, member_at(comm, i)) : block_of(comm, comm->staging, i - 1);
        SHOAL_TRY(shoal_net_recv(comm->net, comm->ranks[member_at(comm, i)], comm->tag, to, nbytes, &comm->ring.small_ops[2 * i]));
    }
    for (int i = 1; i < comm->size; i++) {
        char *from = gather ? block_of(comm, coll->recv, comm->self) : block_of(comm, coll->send, member_at(comm, -i));
        SHOAL_TRY(shoal_net_send(comm->net, comm->ranks[member_at(comm, -i)], comm->tag, from, nbytes, &comm->ring.small_ops[2 * i + 1]));
    }
    return SHOAL_OK;
}

static const char *term_of(const shoal_ucx_comm_t *comm, int member)
{
    int place = (member - comm->self + comm->size) % comm->size;
    return place == 0 ? block_of(comm, comm->coll.send, member) : block_of(comm, comm->staging, place - 1);
}

static void sum(shoal_ucx_comm_t *comm)
{
    enum { BLOCK = 1024 }; /* fits the first-level cache beside its terms */
    const shoal_coll_t *coll = &comm->coll;
    size_t              e    = shoal_dtype_nbytes(coll->dtype);
    float               wide[BLOCK];
    for (size_t i = 0; i < coll->n; i += BLOCK) {
        size_t n = coll->n - i < BLOCK ? coll->n - i : BLOCK;
        shoal_sum_widen(coll->dtype, wide, term_of(comm, 0) + i * e, n);
        for (int m = 1; m < comm->size; m++) {
            shoal_sum_accumulate(coll->dtype, wide, term_of(comm, m) + i * e, n);
        }
        shoal_sum_narrow(coll->dtype, (char *)coll->recv + i * e, wide, n);
    }
}

shoal_status_t shoal_exchange_step(shoal_ucx_comm_t *comm, bool *moved_p)
{
    for (int i = 2; i < 2 * comm->size; i++) {
        if (comm->ring.small_ops[i].pending) {
            return SHOAL_IN_PROGRESS;
        }
    }
    *moved_p = true;
    if (comm->coll.kind == SHOAL_COLL_REDUCE_SCATTER) {
        sum(comm);
    }
    return SHOAL_OK;
}

int shoal_exchange_waits_for(const shoal_ucx_comm_t *comm)
{
    for (int i = 2; i < 2 * comm->size; i++) {
        if (comm->ring.small_ops[i].pending) {
            return member_at(comm, i % 2 == 0 ? i / 2 : -(i / 2));
        }
    }
    return -1;
}
