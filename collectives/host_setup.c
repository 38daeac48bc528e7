/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting up what mates share. Three exchanges over the bootstrap, which every rank of the job takes part in whatever its
 * luck, so that no failure leaves anyone waiting:
 *
 *   1  cards: who lives where, and the name of each rank's listening socket
 *      -> mates connect (the higher index calls the lower), the segment's memfd is passed on, each writes its line
 *   2  did that work? also the barrier after which the lines may be read
 *      -> each mate tries to read every other's memory
 *   3  did that work everywhere? one refusal and the host goes without
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/host_private.h"

enum { SETUP_TIMEOUT_MS = 30000 };

typedef struct {
    char     boot_id[40];
    uint64_t network_namespace, pid_namespace;
    uint32_t user;
    uint32_t willing;
    uint64_t name; /* of the listening socket, random */
} card_t;

typedef struct {
    int listener, memfd;
} setup_t;

/* ---- Cards ---- */

static uint64_t namespace_id(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

static card_t make_card(void)
{
    const char *asked = getenv("SHOAL_UCX_DIRECT");
    card_t      card  = {
              .network_namespace = namespace_id("/proc/self/ns/net"),
              .pid_namespace     = namespace_id("/proc/self/ns/pid"),
              .user              = (uint32_t)getuid(),
              .willing           = asked == NULL || strcmp(asked, "0") != 0,
    };
    int     fd    = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t nread = fd >= 0 ? read(fd, card.boot_id, sizeof(card.boot_id) - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (nread <= 0 || getrandom(&card.name, sizeof(card.name), 0) != sizeof(card.name)) {
        card.willing = 0;
    }
    return card;
}

static bool are_mates(const card_t *a, const card_t *b)
{
    return a->willing && b->willing && a->user == b->user && a->network_namespace == b->network_namespace &&
           a->pid_namespace == b->pid_namespace && memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) == 0;
}

/* An abstract name: it lives in the network namespace, not in the file system, and dies with the socket. */
static socklen_t socket_address(uint64_t name, struct sockaddr_un *address_p)
{
    *address_p = (struct sockaddr_un){.sun_family = AF_UNIX};
    char *path = address_p->sun_path + 1;
    int   n    = snprintf(path, sizeof(address_p->sun_path) - 1, "shoal-%016llx", (unsigned long long)name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int make_listener(uint64_t name, int nranks)
{
    struct sockaddr_un address;
    socklen_t          length = socket_address(name, &address);
    int                fd     = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, nranks) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* ---- Sockets ---- */

static bool wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, SETUP_TIMEOUT_MS) == 1;
}

/* A greeting is the caller's index, together with the memfd when the first mate answers. */
static bool send_greeting(int sock, int32_t index, int fd)
{
    union {
        char           bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control             = {0};
    struct iovec  data    = {.iov_base = &index, .iov_len = sizeof(index)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control    = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level     = SOL_SOCKET;
        header->cmsg_type      = SCM_RIGHTS;
        header->cmsg_len       = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
    }
    return sendmsg(sock, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(index);
}

static bool recv_greeting(int sock, int32_t *index_p, int *fd_p)
{
    union {
        char           bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control             = {0};
    struct iovec  data    = {.iov_base = index_p, .iov_len = sizeof(*index_p)};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    if (!wait_readable(sock) || recvmsg(sock, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL) != (ssize_t)sizeof(*index_p)) {
        return false;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
        memcpy(fd_p, CMSG_DATA(header), sizeof(int));
    }
    return true;
}

/* The mate's process id comes from the kernel: it is right by construction. */
static bool adopt_socket(shoal_host_t *host, int mate, int sock)
{
    struct ucred credentials;
    socklen_t    length = sizeof(credentials);
    host->socks[mate]   = sock;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 || credentials.pid <= 0) {
        return false;
    }
    host->pids[mate] = credentials.pid;
    return true;
}

static bool call_mate(shoal_host_t *host, setup_t *setup, int mate, uint64_t name)
{
    struct sockaddr_un address;
    socklen_t          length = socket_address(name, &address);
    int                sock   = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int32_t            index  = -1;
    if (sock < 0) {
        return false;
    }
    host->socks[mate] = sock; /* from here on closing the host closes it */
    return connect(sock, (struct sockaddr *)&address, length) == 0 && adopt_socket(host, mate, sock) &&
           send_greeting(sock, host->self, -1) && (mate != 0 || recv_greeting(sock, &index, &setup->memfd));
}

static bool answer_mate(shoal_host_t *host, const setup_t *setup)
{
    int32_t index = -1;
    int     fd    = -1;
    int     sock  = wait_readable(setup->listener) ? accept4(setup->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (sock < 0) {
        return false;
    }
    if (!recv_greeting(sock, &index, &fd) || index <= host->self || index >= host->nmates || host->socks[index] >= 0) {
        close(sock);
        return false;
    }
    return adopt_socket(host, index, sock) && (host->self != 0 || send_greeting(sock, 0, setup->memfd));
}

static bool connect_mates(shoal_host_t *host, setup_t *setup, const card_t *cards)
{
    for (int mate = 0; mate < host->self; mate++) {
        if (!call_mate(host, setup, mate, cards[host->ranks[mate]].name)) {
            return false;
        }
    }
    for (int mate = host->self + 1; mate < host->nmates; mate++) {
        if (!answer_mate(host, setup)) {
            return false;
        }
    }
    return true;
}

/* ---- Segment ---- */

static size_t lines_nbytes(int nmates)
{
    return (size_t)nmates * sizeof(shoal_mate_line_t);
}

static bool make_memfd(shoal_host_t *host, setup_t *setup)
{
    if (host->self != 0) {
        return true;
    }
    setup->memfd = memfd_create("shoal", MFD_CLOEXEC);
    return setup->memfd >= 0 && ftruncate(setup->memfd, (off_t)host->segment_nbytes) == 0;
}

static bool map_segment(shoal_host_t *host, int memfd)
{
    void *at = memfd >= 0 ? mmap(NULL, host->segment_nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0) : MAP_FAILED;
    if (at == MAP_FAILED) {
        return false;
    }
    host->segment = at;
    host->lines   = at;
    host->slots   = (shoal_slot_t *)((char *)at + lines_nbytes(host->nmates));
    /* Under Yama's restricted ptrace scope siblings may read each other only after this. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    host->lines[host->self].probe_address = (uint64_t)(uintptr_t)&host->probe_value;
    host->lines[host->self].probe_value   = host->probe_value;
    return true;
}

static bool probe_mates(const shoal_host_t *host)
{
    for (int mate = 0; mate < host->nmates; mate++) {
        uint64_t value = 0;
        if (mate == host->self) {
            continue;
        }
        if (shoal_host_read(host, mate, &value, host->lines[mate].probe_address, sizeof(value)) != SHOAL_OK ||
            value != host->lines[mate].probe_value) {
            return false;
        }
    }
    return true;
}

/* ---- All together ---- */

static shoal_status_t host_alloc(const shoal_peers_t *peers, const card_t *cards, shoal_host_t **host_p)
{
    size_t        n    = (size_t)peers->size;
    shoal_host_t *host = calloc(1, sizeof(*host));
    if (host == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    host->ranks = calloc(n, sizeof(*host->ranks));
    host->socks = calloc(n, sizeof(*host->socks));
    host->pids  = calloc(n, sizeof(*host->pids));
    host->fates = calloc(n, sizeof(*host->fates));
    if (host->ranks == NULL || host->socks == NULL || host->pids == NULL || host->fates == NULL) {
        shoal_host_close(host, false);
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int r = 0; r < peers->size; r++) {
        if (r == peers->rank) {
            host->self = host->nmates;
        }
        if (r == peers->rank || are_mates(&cards[r], &cards[peers->rank])) {
            host->socks[host->nmates]   = -1;
            host->ranks[host->nmates++] = r;
        }
    }
    host->probe_value    = cards[peers->rank].name;
    host->segment_nbytes = lines_nbytes(host->nmates) + sizeof(shoal_slot_t) * SHOAL_HOST_NTAGS * (size_t)host->nmates;
    *host_p              = host;
    return SHOAL_OK;
}

/* Do all mates say yes? Collective over the job. votes: scratch (size). */
static shoal_status_t all_mates_agree(const shoal_peers_t *peers, const shoal_host_t *host, bool mine, char *votes,
                                      bool *agree_p)
{
    char vote = mine ? 1 : 0;
    bool all  = true;
    SHOAL_TRY(peers->exchange(peers->context, &vote, 1, votes));
    for (int mate = 0; mate < host->nmates; mate++) {
        all = all && votes[host->ranks[mate]];
    }
    *agree_p = all;
    return SHOAL_OK;
}

/* The part between the cards and the verdict. cards (size). */
static shoal_status_t host_build(const shoal_peers_t *peers, shoal_host_t *host, setup_t *setup, const card_t *cards,
                                 bool *works_p)
{
    bool  works = host->nmates > 1 && make_memfd(host, setup) && connect_mates(host, setup, cards) &&
                 map_segment(host, setup->memfd);
    char *votes = malloc((size_t)peers->size);
    if (votes == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = all_mates_agree(peers, host, works, votes, &works);
    if (status == SHOAL_OK) {
        status = all_mates_agree(peers, host, works && probe_mates(host), votes, &works);
    }
    free(votes);
    *works_p = works;
    return status;
}

shoal_status_t shoal_host_open(const shoal_peers_t *peers, shoal_host_t **host_p)
{
    card_t  mine    = make_card();
    setup_t setup   = {.listener = make_listener(mine.name, peers->size), .memfd = -1};
    card_t *cards   = calloc((size_t)peers->size, sizeof(*cards));
    bool    works   = false;
    bool    willing = mine.willing;

    mine.willing             = mine.willing && setup.listener >= 0;
    shoal_host_t  *host      = NULL;
    shoal_status_t status    = SHOAL_ERR_NO_MEMORY;
    if (cards != NULL) {
        status = peers->exchange(peers->context, &mine, sizeof(mine), cards);
    }
    if (status == SHOAL_OK) {
        status = host_alloc(peers, cards, &host);
    }
    if (status == SHOAL_OK) {
        status = host_build(peers, host, &setup, cards, &works);
    }
    if (status == SHOAL_OK && !works && willing && host->nmates > 1) {
        shoal_warn("ranks of this host cannot read each other's memory; their messages go through UCX");
    }
    if (setup.listener >= 0) {
        close(setup.listener);
    }
    if (setup.memfd >= 0) {
        close(setup.memfd);
    }
    free(cards);
    if (status != SHOAL_OK || !works) {
        shoal_host_close(host, false);
        host = NULL;
    }
    if (status == SHOAL_OK) {
        *host_p = host;
    }
    return status;
}

void shoal_host_close(shoal_host_t *host, bool in_order)
{
    if (host == NULL) {
        return;
    }
    if (in_order) {
        atomic_store(&host->lines[host->self].left, 1);
    }
    for (int mate = 0; mate < host->nmates; mate++) {
        if (host->socks[mate] >= 0) {
            close(host->socks[mate]);
        }
    }
    if (host->segment != NULL) {
        munmap(host->segment, host->segment_nbytes);
    }
    free(host->ranks);
    free(host->socks);
    free(host->pids);
    free(host->fates);
    free(host);
}
