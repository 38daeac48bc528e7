/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tagged messages between ranks over UCP: worker, addresses, endpoints, and the fate of peers. Only net.c knows UCX; nothing of
 * its types shows here.
 *
 * Messages from one rank to another with one tag arrive in the order of their sending, and are matched to receives in the
 * order of posting; that is all the collectives build on.
 */
#ifndef SHOAL_COLLECTIVES_UCX_NET_H
#define SHOAL_COLLECTIVES_UCX_NET_H

#include <stdbool.h>
#include <stddef.h>

#include "collectives/ring.h"
#include "collectives/transport.h"

typedef struct shoal_net shoal_net_t;

/* One message on its way in or out. Its address must stay while it is pending. */
typedef struct {
    bool pending;
    void *request;
    shoal_net_t *net;
} shoal_net_op_t;

/* Where the ranks are, which says on which interfaces a rank need be reached, and listens. */
typedef enum {
    SHOAL_NET_ANY,      /* one host, but perhaps apart in containers: any interface */
    SHOAL_NET_LOOPBACK, /* one network namespace of one host */
    SHOAL_NET_HOSTS,    /* some are on other hosts, so loopback is no way to reach them */
} shoal_net_reach_t;

/* Collective over the job. patience_s: for shoal_net_connect. */
shoal_status_t shoal_net_open(const shoal_peers_t *peers, shoal_net_reach_t reach,
                              double patience_s, shoal_net_t **net_p);

/* `in_order` tells the connected peers that this end is no accident. */
void shoal_net_close(shoal_net_t *net, bool in_order);

/*
 * Connects to peers, both sides calling it; a message goes each way, so that later failures are
 * noticed. Blocking; SHOAL_ERR_PEER when one has not answered within patience_s, which is logged
 * with its rank.
 */
shoal_status_t shoal_net_connect(shoal_net_t *net, const int *ranks, int nranks, int tag);

shoal_status_t shoal_net_send(shoal_net_t *net, int rank, int tag, const void *data, size_t nbytes, shoal_net_op_t *op_p);
shoal_status_t shoal_net_recv(shoal_net_t *net, int rank, int tag, void *data_p, size_t nbytes, shoal_net_op_t *op_p);

/* Calls the library's progress; true if anything moved. */
bool shoal_net_progress(shoal_net_t *net);

/* An fd that becomes readable on activity, once arm returned true; false: something is pending, progress first. */
int  shoal_net_fd(const shoal_net_t *net);
bool shoal_net_arm(shoal_net_t *net);

/* SHOAL_OK, or SHOAL_ERR_PEER once a peer was lost (logged then) or a message failed. */
shoal_status_t shoal_net_status(const shoal_net_t *net);
/* Has this peer left in order? Nothing more will come from it. */
bool shoal_net_has_left(const shoal_net_t *net, int rank);

#endif
