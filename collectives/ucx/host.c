/* SPDX-License-Identifier: BSD-3-Clause */
/* Use of what mates share, once host_setup.c has made it. Nothing here blocks or allocates. */
#include "collectives/ucx/host.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/ucx/host_private.h"

int shoal_host_nmates(const shoal_host_t *host)
{
    return host->nmates;
}

int shoal_host_mate(const shoal_host_t *host, int rank)
{
    for (int i = 0; i < host->nmates; i++) {
        if (host->ranks[i] == rank) {
            return i;
        }
    }
    return -1;
}

shoal_slot_t *shoal_host_slot(const shoal_host_t *host, int tag, int mate)
{
    return &host->slots[(size_t)tag * (size_t)host->nmates + (size_t)mate];
}

shoal_status_t shoal_host_read(const shoal_host_t *host, int mate, void *to_p, uint64_t from, size_t nbytes)
{
    char *to = to_p;
    while (nbytes > 0) {
        struct iovec here  = {.iov_base = to, .iov_len = nbytes};
        struct iovec there = {.iov_base = (void *)(uintptr_t)from, .iov_len = nbytes};
        ssize_t      n     = process_vm_readv(host->pids[mate], &here, 1, &there, 1, 0);
        if (n <= 0) {
            if (n < 0 && errno == ESRCH) {
                return SHOAL_ERR_PEER;
            }
            shoal_error("reading %zu bytes from rank %d: %s", nbytes, host->ranks[mate], strerror(errno));
            return SHOAL_ERR_INTERNAL;
        }
        to += n;
        from += (uint64_t)n;
        nbytes -= (size_t)n;
    }
    return SHOAL_OK;
}

/*
 * The sleeper sets its count and then looks at the states; we set our state and then look at its count. Both in sequentially
 * consistent order, so at least one of the two sees the other. Whoever takes the count to nothing sends the byte.
 */
void shoal_host_notify(shoal_host_t *host, int mate)
{
    _Atomic uint32_t *patience = &host->lines[mate].patience;
    uint32_t          left     = atomic_load(patience);
    if (mate == host->self || host->lives[mate] < 0) {
        return;
    }
    while (left > 0 && !atomic_compare_exchange_weak(patience, &left, left - 1)) {
    }
    if (left == 1) {
        /* A full pipe holds bytes enough to wake it; a dead mate is noticed by listen. */
        ssize_t ignored = write(host->wakes[mate], "", 1);
        (void)ignored;
    }
}

void shoal_host_set_patience(shoal_host_t *host, unsigned nchanges)
{
    atomic_store(&host->lines[host->self].patience, nchanges);
}

void shoal_host_add_to_epoll(const shoal_host_t *host, int epoll_fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, host->wake[0], &event);
    for (int i = 0; i < host->nmates; i++) {
        if (host->lives[i] >= 0) {
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, host->lives[i], &event);
        }
    }
}

static void take_end(shoal_host_t *host, int mate)
{
    close(host->lives[mate]);
    host->lives[mate] = -1;
    host->fates[mate] = atomic_load(&host->lines[mate].left) != 0 ? SHOAL_MATE_LEFT : SHOAL_MATE_DIED;
}

void shoal_host_listen(shoal_host_t *host)
{
    char bytes[64];
    while (read(host->wake[0], bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {
    }
    for (int i = 0; i < host->nmates; i++) {
        ssize_t n = host->lives[i] >= 0 ? read(host->lives[i], bytes, sizeof(bytes)) : 1;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            take_end(host, i);
        }
    }
}

shoal_mate_fate_t shoal_host_fate(const shoal_host_t *host, int mate)
{
    return host->fates[mate];
}

int shoal_host_dead_rank(const shoal_host_t *host)
{
    for (int i = 0; i < host->nmates; i++) {
        if (host->fates[i] == SHOAL_MATE_DIED) {
            return host->ranks[i];
        }
    }
    return -1;
}
