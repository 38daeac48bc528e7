/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rank's side of the local bootstrap. The launcher (bootstrap_launch.c) forked this process and left it one socket; there is
 * no environment variable and no rendezvous address, so nothing can be stale or mistaken for another job's.
 */
#include "runtime/bootstrap/local.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "runtime/bootstrap/backend.h"

/* Which rank this process was forked as; size 0 in any other process. */
static struct {
    int  fd, rank, size;
    bool told; /* the launcher has said that a rank did not come, and ends the job */
} forked = {.fd = -1};

/* The launcher finds out first that a rank does not come; so much later it is the launcher itself
 * that does not answer. */
enum { LAUNCHER_MARGIN_S = 15 };

void shoal_local_become_rank(int fd, int rank, int size)
{
    forked.fd   = fd;
    forked.rank = rank;
    forked.size = size;
}

int shoal_local_rank(int *fd_p)
{
    if (fd_p != NULL) {
        *fd_p = forked.fd;
    }
    return forked.size > 0 ? forked.rank : -1;
}

bool shoal_bootstrap_is_local_rank(void)
{
    return forked.size > 0;
}

/* Blocking, all or nothing, through signals. SHOAL_ERR_PEER when the other end is gone. */
static shoal_status_t send_all(const void *data, size_t nbytes)
{
    const char *at = data;
    while (nbytes > 0) {
        ssize_t n = send(forked.fd, at, nbytes, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return SHOAL_ERR_PEER;
        }
        at += n > 0 ? n : 0;
        nbytes -= n > 0 ? (size_t)n : 0;
    }
    return SHOAL_OK;
}

/* The same, until a time of shoal_time_ns(); SHOAL_IN_PROGRESS when that has come. */
static shoal_status_t recv_all(void *data_p, size_t nbytes, int64_t deadline_ns)
{
    char *at = data_p;
    while (nbytes > 0) {
        struct pollfd readable = {.fd = forked.fd, .events = POLLIN};
        int64_t       left_ms  = (deadline_ns - shoal_time_ns()) / 1000000;
        if (left_ms <= 0) {
            return SHOAL_IN_PROGRESS;
        }
        if (poll(&readable, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX) <= 0) {
            continue;
        }
        ssize_t n = recv(forked.fd, at, nbytes, 0);
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

static shoal_status_t take_answer(const shoal_local_header_t *answer, size_t nbytes, int size,
                                  void *all_p, int64_t deadline_ns)
{
    if (answer->kind == SHOAL_LOCAL_LOST) {
        shoal_error("rank %d left while this rank waited for it", (int)answer->value);
        return SHOAL_ERR_PEER;
    }
    forked.told = answer->kind == SHOAL_LOCAL_LATE;
    return forked.told ? SHOAL_ERR_PEER : recv_all(all_p, nbytes * (size_t)size, deadline_ns);
}

static shoal_status_t local_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes,
                                     void *all_p)
{
    double               patience_s = bootstrap->patience_s + SHOAL_BOOTSTRAP_MARGIN_S;
    int64_t deadline = shoal_time_ns() + (int64_t)((patience_s + LAUNCHER_MARGIN_S) * 1e9);
    shoal_local_header_t answer     = {0};
    shoal_local_header_t header     = {.magic       = SHOAL_LOCAL_MAGIC,
                                       .kind        = SHOAL_LOCAL_EXCHANGE,
                                       .patience_ms = (uint32_t)(patience_s * 1e3),
                                       .nbytes      = nbytes};
    snprintf(header.stage, sizeof(header.stage), "%s", bootstrap->stage);
    shoal_status_t status = send_all(&header, sizeof(header));
    if (status == SHOAL_OK) {
        status = send_all(mine, nbytes);
    }
    if (status == SHOAL_OK) {
        status = recv_all(&answer, sizeof(answer), deadline);
    }
    if (status == SHOAL_OK) {
        return take_answer(&answer, nbytes, bootstrap->size, all_p, deadline);
    }
    shoal_error("the launching process %s",
                status == SHOAL_ERR_PEER ? "is gone" : "does not answer");
    return SHOAL_ERR_PEER;
}

static void local_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_local_header_t header = {
        .magic = SHOAL_LOCAL_MAGIC, .kind = SHOAL_LOCAL_ABORT, .value = exit_code};
    if (forked.told) {
        _exit(exit_code); /* The launcher ends the job already, and has said why. */
    }
    shoal_error("ending the job: %s", message);
    if (send_all(&header, sizeof(header)) == SHOAL_OK) {
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
