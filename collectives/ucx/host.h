/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the ranks of one host (here: mates) share below the transport: a memory segment for small
 * states, leave to read each other's memory, and two pipes of each.
 *
 *   segment  a memfd that the first mate makes: it has no name, so nothing can be left behind
 *   reading  process_vm_readv: one copy, straight from the mate's buffer into ours
 *   wake     a pipe that the mates write a byte to when this rank sleeps
 *   life     a pipe that only this rank can write to, and never does: its end of file tells the
 *            mates that it has died
 *
 * Mates open each other's memfd and pipes through /proc/PID/fd, which the kernel allows to those
 * alone who may read the process's memory anyway. There is no name that another user could find,
 * and nothing that listens.
 *
 * Two ranks are mates when they share boot id, user, PID and network namespace. Whether all this
 * works is tried out when it is set up; when a step fails on any mate, the whole host goes without,
 * and says so.
 */
#ifndef SHOAL_COLLECTIVES_UCX_HOST_H
#define SHOAL_COLLECTIVES_UCX_HOST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collectives/transport.h"

enum {
    SHOAL_HOST_INLINE_NBYTES = 4096, /* a contribution up to this size is put into the segment itself */
    SHOAL_HOST_NTAGS         = 256,
};

/* What a member offers to a collective: where its data is. `signature` lets the others see that they mean the same one. */
typedef struct {
    uint64_t signature;
    uint64_t address;
    char     data[SHOAL_HOST_INLINE_NBYTES];
} shoal_offer_t;

/*
 * One per tag and mate, written by that mate alone. `state` grows with every phase of every collective; the offers take turns,
 * because a fast member may start its next collective while a slow one still reads what it offered to the last.
 */
typedef struct {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) shoal_offer_t offers[2];
} shoal_slot_t;

typedef struct shoal_host shoal_host_t;

/*
 * Collective over the job. *host_p is NULL when this rank is alone on its host, or when the host
 * must do without. *one_network_p: all ranks of the job are in one network namespace of one host,
 * so that they reach each other by its loopback interface.
 */
shoal_status_t shoal_host_open(const shoal_peers_t *peers, shoal_host_t **host_p,
                               bool *one_network_p);

/* `in_order` tells the mates that this end is no accident. */
void shoal_host_close(shoal_host_t *host, bool in_order);

int           shoal_host_nmates(const shoal_host_t *host);
int           shoal_host_mate(const shoal_host_t *host, int rank); /* index of a rank of the job, -1: not on this host */
shoal_slot_t *shoal_host_slot(const shoal_host_t *host, int tag, int mate);

/* Copies from a mate's memory. SHOAL_ERR_PEER, unlogged, when the mate is gone. */
shoal_status_t shoal_host_read(const shoal_host_t *host, int mate, void *to_p, uint64_t from, size_t nbytes);

/* After a change of one's own state: wakes the mate if that is what it sleeps for. */
void shoal_host_notify(shoal_host_t *host, int mate);

/*
 * Sleeping: set_patience(n), look once more whether n changes are still wanted, then wait for the
 * pipes, set_patience(0). The n-th notify wakes; it may be an earlier one, never a later. listen
 * takes the pipes' news: bytes and ends.
 */
void shoal_host_set_patience(shoal_host_t *host, unsigned nchanges);
void shoal_host_add_to_epoll(const shoal_host_t *host, int epoll_fd);
void shoal_host_listen(shoal_host_t *host);

typedef enum { SHOAL_MATE_HERE, SHOAL_MATE_LEFT, SHOAL_MATE_DIED } shoal_mate_fate_t;

/* As of the last listen: has it left in order, or died? */
shoal_mate_fate_t shoal_host_fate(const shoal_host_t *host, int mate);
/* The rank of some mate that died, -1: none. */
int shoal_host_dead_rank(const shoal_host_t *host);

#endif
