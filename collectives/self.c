/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A group of one: every collective is a copy, done when it is started. It needs no library, so that one rank trains on any
 * machine. Waiting is for `wake` alone.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/backends.h"

typedef struct {
    shoal_transport_t base;
    int               event_fd;
} self_transport_t;

static shoal_status_t self_open(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    (void)config;
    if (peers->size != 1) {
        shoal_error("transport \"self\" serves one rank, not %d", peers->size);
        return SHOAL_ERR_CONFIG;
    }
    self_transport_t *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    self->base.ops = &shoal_transport_self;
    self->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->event_fd < 0) {
        shoal_error("eventfd: %s", strerror(errno));
        free(self);
        return SHOAL_ERR_INTERNAL;
    }
    *transport_p = &self->base;
    return SHOAL_OK;
}

static void self_close(shoal_transport_t *transport)
{
    close(((self_transport_t *)transport)->event_fd);
    free(transport);
}

static size_t self_staging_nbytes(const shoal_coll_t *coll, int size)
{
    (void)coll;
    (void)size;
    return 0;
}

static shoal_status_t self_comm_create(shoal_transport_t *transport, const shoal_group_t *group, shoal_comm_t **comm_p)
{
    if (group->size != 1 || group->ranks[0] != 0) {
        return SHOAL_ERR_INVALID;
    }
    shoal_comm_t *comm = calloc(1, sizeof(*comm));
    if (comm == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    comm->transport = transport;
    *comm_p         = comm;
    return SHOAL_OK;
}

static void self_comm_destroy(shoal_comm_t *comm)
{
    free(comm);
}

static shoal_status_t self_start(shoal_comm_t *comm, const shoal_coll_t *coll)
{
    (void)comm;
    if (coll->kind != SHOAL_COLL_ALL_REDUCE && coll->n > 0 && coll->recv != coll->send) {
        memcpy(coll->recv, coll->send, coll->n * shoal_dtype_nbytes(coll->dtype));
    }
    return SHOAL_OK;
}

static shoal_status_t self_test(shoal_comm_t *comm)
{
    (void)comm;
    return SHOAL_OK;
}

static shoal_status_t self_progress(shoal_transport_t *transport, int *moved_p)
{
    (void)transport;
    *moved_p = 0;
    return SHOAL_OK;
}

static shoal_status_t self_wait(shoal_transport_t *transport, int timeout_ms)
{
    int           fd    = ((self_transport_t *)transport)->event_fd;
    struct pollfd event = {.fd = fd, .events = POLLIN};
    uint64_t      count;
    if (poll(&event, 1, timeout_ms) == 1) {
        ssize_t ignored = read(fd, &count, sizeof(count));
        (void)ignored;
    }
    return SHOAL_OK;
}

static void self_wake(shoal_transport_t *transport)
{
    uint64_t one     = 1;
    ssize_t  ignored = write(((self_transport_t *)transport)->event_fd, &one, sizeof(one));
    (void)ignored;
}

static int self_waits_for(shoal_comm_t *comm)
{
    (void)comm;
    return -1;
}

const shoal_transport_ops_t shoal_transport_self = {
    .name           = "self",
    .open           = self_open,
    .close          = self_close,
    .staging_nbytes = self_staging_nbytes,
    .comm_create    = self_comm_create,
    .comm_destroy   = self_comm_destroy,
    .start          = self_start,
    .test           = self_test,
    .progress       = self_progress,
    .wait           = self_wait,
    .wake           = self_wake,
    .waits_for      = self_waits_for,
};
