/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups of the ucx transport. A group is on the direct path when all its members reach each other's memory, else on the
 * net path, where making it connects it to its neighbours. All that a collective will need is allocated here.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "collectives/ucx/ucx.h"

enum { DESTROY_LIMIT_MS = 10000 }; /* how long a destroy waits for members that are slow to see the end */

void shoal_ucx_comm_free(shoal_ucx_comm_t *comm)
{
    free(comm->ranks);
    free(comm->direct.nread);
    free(comm->direct.mates);
    free(comm->direct.slots);
    free(comm->ring.order);
    free(comm->ring.small_ops);
    free(comm);
}

/* The finalizer of SplitMix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* A number for the group and its tag, the same on all members. */
static uint64_t comm_identity(const shoal_ucx_comm_t *comm)
{
    uint64_t hash = mix((uint64_t)comm->tag + 1);
    for (int m = 0; m < comm->size; m++) {
        hash = mix(hash + (uint64_t)comm->ranks[m] + 1);
    }
    return hash;
}

/* The ring's order: members by home, homes in the order of their first member. */
static void order_ring(const shoal_ucx_transport_t *t, shoal_ucx_comm_t *comm)
{
    int nplaced = 0;
    for (int m = 0; m < comm->size; m++) {
        int first = 0;
        while (t->homes[comm->ranks[first]] != t->homes[comm->ranks[m]]) {
            first++;
        }
        for (int k = m; first == m && k < comm->size; k++) {
            if (t->homes[comm->ranks[k]] == t->homes[comm->ranks[m]]) {
                comm->ring.order[nplaced++] = k;
            }
        }
    }
    for (int place = 0; place < comm->size; place++) {
        comm->ring.place = comm->ring.order[place] == comm->self ? place : comm->ring.place;
    }
}

static bool is_spread(const shoal_ucx_transport_t *t, const shoal_ucx_comm_t *comm)
{
    for (int m = 0; m < comm->size; m++) {
        for (int k = 0; k < m; k++) {
            if (t->homes[comm->ranks[m]] == t->homes[comm->ranks[k]]) {
                return false;
            }
        }
    }
    return true;
}

static bool is_direct(const shoal_ucx_transport_t *t, const shoal_ucx_comm_t *comm)
{
    for (int m = 0; m < comm->size; m++) {
        if (t->homes[comm->ranks[m]] != t->homes[comm->ranks[0]]) {
            return false;
        }
    }
    return true;
}

/* The entry of a comm; made with a serial of 0 if there is none. NULL: out of memory. */
static shoal_past_comm_t *find_past(shoal_ucx_transport_t *t, uint64_t identity)
{
    for (size_t i = 0; i < t->npast; i++) {
        if (t->past[i].identity == identity) {
            return &t->past[i];
        }
    }
    shoal_past_comm_t *past = realloc(t->past, (t->npast + 1) * sizeof(*past));
    if (past == NULL) {
        return NULL;
    }
    t->past           = past;
    t->past[t->npast] = (shoal_past_comm_t){.identity = identity};
    return &t->past[t->npast++];
}

static shoal_status_t prepare_direct(shoal_ucx_transport_t *t, shoal_ucx_comm_t *comm)
{
    uint64_t           identity = comm_identity(comm);
    const shoal_past_comm_t *past     = find_past(t, identity);
    if (past == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    comm->path          = &shoal_ucx_direct;
    comm->direct.nonce  = (identity >> 44) + (identity >> 44 == 0); /* 20 bits, not 0 */
    comm->direct.serial = past->serial;
    for (int m = 0; m < comm->size && t->host != NULL; m++) {
        comm->direct.mates[m] = shoal_host_mate(t->host, comm->ranks[m]);
        comm->direct.slots[m] = shoal_host_slot(t->host, comm->tag, comm->direct.mates[m]);
    }
    return SHOAL_OK;
}

static shoal_status_t prepare_net(const shoal_ucx_transport_t *t, shoal_ucx_comm_t *comm)
{
    int *neighbours = calloc((size_t)comm->size, sizeof(*neighbours));
    if (neighbours == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    comm->path   = &shoal_ucx_net;
    comm->spread = is_spread(t, comm);
    order_ring(t, comm);
    int            n      = shoal_ring_neighbours(comm, neighbours);
    shoal_status_t status = shoal_net_connect(t->net, neighbours, n, comm->tag);
    free(neighbours);
    return status;
}

static shoal_status_t alloc_comm(const int *ranks, int size, shoal_ucx_comm_t **comm_p)
{
    size_t            n    = (size_t)size;
    shoal_ucx_comm_t *comm = calloc(1, sizeof(*comm));
    if (comm == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    comm->ranks          = calloc(n, sizeof(*comm->ranks));
    comm->direct.nread   = calloc(n, sizeof(*comm->direct.nread));
    comm->direct.mates   = calloc(n, sizeof(*comm->direct.mates));
    comm->direct.slots   = calloc(n, sizeof(*comm->direct.slots));
    comm->ring.order     = calloc(n, sizeof(*comm->ring.order));
    comm->ring.small_ops = calloc(2 * n, sizeof(*comm->ring.small_ops));
    if (comm->ranks == NULL || comm->direct.nread == NULL || comm->direct.mates == NULL || comm->direct.slots == NULL ||
        comm->ring.order == NULL || comm->ring.small_ops == NULL) {
        shoal_ucx_comm_free(comm);
        return SHOAL_ERR_NO_MEMORY;
    }
    memcpy(comm->ranks, ranks, n * sizeof(*ranks));
    *comm_p = comm;
    return SHOAL_OK;
}

shoal_status_t shoal_ucx_comm_create(shoal_transport_t *transport, const shoal_group_t *group, shoal_comm_t **comm_p)
{
    shoal_ucx_transport_t  *t    = shoal_ucx_of(transport);
    shoal_ucx_comm_t *comm = NULL;
    int               self = -1;
    for (int m = 0; m < group->size; m++) {
        self = group->ranks[m] == t->peers.rank ? m : self;
    }
    if (self < 0 || group->tag < 0 || group->tag >= SHOAL_HOST_NTAGS) {
        shoal_error("comm %d of %d ranks: rank %d is no member, or the tag is out of range", group->tag, group->size, t->peers.rank);
        return SHOAL_ERR_INVALID;
    }
    SHOAL_TRY(alloc_comm(group->ranks, group->size, &comm));
    comm->base.transport  = transport;
    comm->size            = group->size;
    comm->self            = self;
    comm->tag             = group->tag;
    comm->staging         = group->staging;
    comm->staging_nbytes  = group->staging_nbytes;
    comm->host            = t->host;
    comm->net             = t->net;
    shoal_status_t status = is_direct(t, comm) ? prepare_direct(t, comm) : prepare_net(t, comm);
    if (status != SHOAL_OK) {
        t->status = status;
        shoal_ucx_comm_free(comm);
        return status;
    }
    comm->next = t->comms;
    t->comms   = comm;
    *comm_p    = &comm->base;
    return SHOAL_OK;
}

/* The slot may be reused by another comm only when no member looks at it any more; that is a matter of moments. */
static void wait_until_over(shoal_ucx_transport_t *t, const shoal_ucx_comm_t *comm)
{
    int64_t start_ns = shoal_time_ns();
    while (!shoal_direct_is_over(comm) && shoal_ms_since(start_ns) < DESTROY_LIMIT_MS) {
        usleep(100);
        shoal_host_listen(t->host);
    }
}

void shoal_ucx_comm_destroy(shoal_comm_t *base)
{
    shoal_ucx_comm_t  *comm = (shoal_ucx_comm_t *)base;
    shoal_ucx_transport_t   *t    = shoal_ucx_of(base->transport);
    shoal_ucx_comm_t **link = &t->comms;
    while (*link != comm) {
        link = &(*link)->next;
    }
    *link = comm->next;
    if (comm->path == &shoal_ucx_direct && comm->size > 1 && comm->status == SHOAL_OK && t->status == SHOAL_OK) {
        wait_until_over(t, comm);
        find_past(t, comm_identity(comm))->serial = comm->direct.serial; /* made with the comm, so it is there */
    }
    if (comm->path == &shoal_ucx_net && comm->status != SHOAL_OK) {
        comm->next = t->broken;
        t->broken  = comm;
        return;
    }
    shoal_ucx_comm_free(comm);
}
