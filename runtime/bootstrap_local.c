/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rank's side of the local bootstrap. The launcher (bootstrap_launch.c) forked this process and left it one socket; there is
 * no environment variable and no rendezvous address, so nothing can be stale or mistaken for another job's.
 */
#include "runtime/bootstrap_local.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "runtime/bootstrap_backend.h"

/* Which rank this process was forked as; size 0 in any other process. */
static struct {
    int fd, rank, size;
} forked = {.fd = -1};

void shoal_local_become_rank(int fd, int rank, int size)
{
    forked.fd   = fd;
    forked.rank = rank;
    forked.size = size;
}

bool shoal_bootstrap_is_local_rank(void)
{
    return forked.size > 0;
}

shoal_status_t shoal_local_send(int fd, const void *data, size_t nbytes)
{
    const char *at = data;
    while (nbytes > 0) {
        ssize_t n = send(fd, at, nbytes, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return SHOAL_ERR_PEER;
        }
        at += n > 0 ? n : 0;
        nbytes -= n > 0 ? (size_t)n : 0;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_local_recv(int fd, void *data_p, size_t nbytes)
{
    char *at = data_p;
    while (nbytes > 0) {
        ssize_t n = recv(fd, at, nbytes, 0);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return SHOAL_ERR_PEER;
        }
        at += n > 0 ? n : 0;
        nbytes -= n > 0 ? (size_t)n : 0;
    }
    return SHOAL_OK;
}

static shoal_status_t local_open(shoal_bootstrap_t **bootstrap_p)
{
    if (forked.size == 0) {
        shoal_error("bootstrap \"local\" is for ranks that shoal forks itself: give -n RANKS");
        return SHOAL_ERR_CONFIG;
    }
    shoal_bootstrap_t *local = calloc(1, sizeof(*local));
    if (local == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    local->method = "local";
    local->rank   = forked.rank;
    local->size   = forked.size;
    *bootstrap_p  = local;
    return SHOAL_OK;
}

/* The socket stays open: it belongs to the process, which may open the bootstrap again, and tells the launcher that we live. */
static void local_close(shoal_bootstrap_t *bootstrap)
{
    free(bootstrap);
}

static shoal_status_t local_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p)
{
    shoal_local_header_t header = {.kind = SHOAL_LOCAL_EXCHANGE, .nbytes = nbytes};
    shoal_local_header_t answer = {0};
    if (shoal_local_send(forked.fd, &header, sizeof(header)) != SHOAL_OK ||
        shoal_local_send(forked.fd, mine, nbytes) != SHOAL_OK ||
        shoal_local_recv(forked.fd, &answer, sizeof(answer)) != SHOAL_OK) {
        shoal_error("the launching process is gone");
        return SHOAL_ERR_PEER;
    }
    if (answer.kind == SHOAL_LOCAL_LOST) {
        shoal_error("rank %d left while this rank waited for it", (int)answer.value);
        return SHOAL_ERR_PEER;
    }
    return shoal_local_recv(forked.fd, all_p, nbytes * (size_t)bootstrap->size);
}

static void local_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_local_header_t header = {.kind = SHOAL_LOCAL_ABORT, .value = exit_code};
    shoal_error("ending the job: %s", message);
    if (shoal_local_send(forked.fd, &header, sizeof(header)) == SHOAL_OK) {
        pause(); /* The launcher kills every rank, this one too. */
    }
}

const shoal_bootstrap_ops_t shoal_bootstrap_local = {
    .name     = "local",
    .open     = local_open,
    .close    = local_close,
    .exchange = local_exchange,
    .abort    = local_abort,
};
