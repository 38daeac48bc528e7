/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting up what mates share. Three exchanges over the bootstrap, which every rank of the job takes part in whatever its
 * luck, so that no failure leaves anyone waiting; nothing here waits for a mate in any other way:
 *
 *   1  cards: who lives where, and which descriptors of its hold the memfd and the pipes
 *      -> each opens those of its mates, and writes its line
 *   2  did that work? also the barrier after which the lines may be read
 *      -> each mate tries to read every other's memory
 *   3  did that work everywhere? one refusal and the host goes without
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "collectives/ucx/host_private.h"

typedef struct {
    char     boot_id[40];
    uint64_t network_namespace, pid_namespace;
    uint32_t user;
    uint32_t willing;
    int32_t  pid, memfd, wake_fd, life_fd; /* the descriptors are those of process pid */
    uint64_t probe_value;                  /* random: whose memory a mate reads is seen by it */
} card_t;

/* ---- Cards ---- */

static uint64_t namespace_id(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

/*
 * What this rank has to offer to mates; the first of them provides the memfd, whoever that will be.
 */
static bool make_own(shoal_host_t *host)
{
    host->memfd = memfd_create("shoal", MFD_CLOEXEC);
    return host->memfd >= 0 && pipe2(host->wake, O_CLOEXEC | O_NONBLOCK) == 0 &&
           pipe2(host->life, O_CLOEXEC | O_NONBLOCK) == 0;
}

static card_t make_card(shoal_host_t *host)
{
    const char *asked = getenv("SHOAL_UCX_DIRECT");
    card_t      card  = {
              .network_namespace = namespace_id("/proc/self/ns/net"),
              .pid_namespace     = namespace_id("/proc/self/ns/pid"),
              .user              = (uint32_t)getuid(),
              .willing           = asked == NULL || strcmp(asked, "0") != 0,
              .pid               = (int32_t)getpid(),
    };
    int     fd    = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t nread = fd >= 0 ? read(fd, card.boot_id, sizeof(card.boot_id) - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (nread <= 0 ||
        getrandom(&card.probe_value, sizeof(card.probe_value), 0) != sizeof(card.probe_value) ||
        (card.willing && !make_own(host))) {
        card.willing = 0;
    }
    card.memfd   = host->memfd;
    card.wake_fd = host->wake[1];
    card.life_fd = host->life[0];
    return card;
}

static bool are_mates(const card_t *a, const card_t *b)
{
    return a->willing && b->willing && a->user == b->user && a->network_namespace == b->network_namespace &&
           a->pid_namespace == b->pid_namespace && memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) == 0;
}

/* Whether all ranks of the job are in one network namespace. cards (n) */
static bool are_one_network(const card_t *cards, int n)
{
    for (int r = 1; r < n; r++) {
        if (cards[r].network_namespace != cards[0].network_namespace ||
            memcmp(cards[r].boot_id, cards[0].boot_id, sizeof(cards[0].boot_id)) != 0) {
            return false;
        }
    }
    return cards[0].network_namespace != 0;
}

/* ---- Pipes ---- */

static int open_of(const card_t *card, int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)card->pid, fd);
    return open(path, flags | O_CLOEXEC | O_NONBLOCK);
}

/* The mates' pipes. Open for reading too, so that writing to a mate that is gone is no SIGPIPE. */
static bool open_pipes(shoal_host_t *host, const card_t *cards)
{
    for (int mate = 0; mate < host->nmates; mate++) {
        const card_t *card = &cards[host->ranks[mate]];
        host->pids[mate]   = card->pid;
        if (mate == host->self) {
            continue;
        }
        host->lives[mate] = open_of(card, card->life_fd, O_RDONLY);
        host->wakes[mate] = open_of(card, card->wake_fd, O_RDWR);
        if (host->lives[mate] < 0 || host->wakes[mate] < 0) {
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

static void close_fd(int *fd_p)
{
    if (*fd_p >= 0) {
        close(*fd_p);
    }
    *fd_p = -1;
}

/* Whoever comes first gives it its size, the same on all mates. */
static bool map_segment(shoal_host_t *host, const card_t *cards)
{
    const card_t *first = &cards[host->ranks[0]];
    int           memfd = host->self == 0 ? dup(host->memfd) : open_of(first, first->memfd, O_RDWR);
    void         *at    = MAP_FAILED;
    if (memfd >= 0 && ftruncate(memfd, (off_t)host->segment_nbytes) == 0) {
        at = mmap(NULL, host->segment_nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    }
    close_fd(&memfd);
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

static shoal_host_t *host_alloc(const shoal_peers_t *peers)
{
    size_t        n    = (size_t)peers->size;
    shoal_host_t *host = calloc(1, sizeof(*host));
    if (host == NULL) {
        return NULL;
    }
    host->life[0] = host->life[1] = host->wake[0] = host->wake[1] = host->memfd = -1;
    host->ranks = calloc(n, sizeof(*host->ranks));
    host->lives = calloc(n, sizeof(*host->lives));
    host->wakes = calloc(n, sizeof(*host->wakes));
    host->pids  = calloc(n, sizeof(*host->pids));
    host->fates = calloc(n, sizeof(*host->fates));
    if (host->ranks == NULL || host->lives == NULL || host->wakes == NULL || host->pids == NULL ||
        host->fates == NULL) {
        shoal_host_close(host, false);
        return NULL;
    }
    return host;
}

static void find_mates(const shoal_peers_t *peers, const card_t *cards, shoal_host_t *host)
{
    for (int r = 0; r < peers->size; r++) {
        if (r == peers->rank) {
            host->self = host->nmates;
        }
        if (r == peers->rank || are_mates(&cards[r], &cards[peers->rank])) {
            host->lives[host->nmates] = host->wakes[host->nmates] = -1;
            host->ranks[host->nmates++]                           = r;
        }
    }
    host->probe_value    = cards[peers->rank].probe_value;
    host->segment_nbytes = lines_nbytes(host->nmates) + sizeof(shoal_slot_t) * SHOAL_HOST_NTAGS * (size_t)host->nmates;
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
static shoal_status_t host_build(const shoal_peers_t *peers, shoal_host_t *host,
                                 const card_t *cards, bool *works_p)
{
    bool  works = host->nmates > 1 && open_pipes(host, cards) && map_segment(host, cards);
    char *votes = malloc((size_t)peers->size);
    if (votes == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = all_mates_agree(peers, host, works, votes, &works);
    /* Every mate has what it needs of these, or never will. */
    close_fd(&host->memfd);
    close_fd(&host->life[0]);
    if (status == SHOAL_OK) {
        status = all_mates_agree(peers, host, works && probe_mates(host), votes, &works);
    }
    free(votes);
    *works_p = works;
    return status;
}

shoal_status_t shoal_host_open(const shoal_peers_t *peers, shoal_host_t **host_p,
                               bool *one_network_p)
{
    card_t       *cards = calloc((size_t)peers->size, sizeof(*cards));
    shoal_host_t *host  = host_alloc(peers);
    if (cards == NULL || host == NULL) {
        shoal_host_close(host, false);
        free(cards);
        return SHOAL_ERR_NO_MEMORY;
    }
    bool           works  = false;
    card_t         mine   = make_card(host);
    shoal_status_t status = peers->exchange(peers->context, &mine, sizeof(mine), cards);
    if (status == SHOAL_OK) {
        find_mates(peers, cards, host);
        *one_network_p = are_one_network(cards, peers->size);
        status         = host_build(peers, host, cards, &works);
    }
    if (status == SHOAL_OK && !works && mine.willing && host->nmates > 1) {
        shoal_warn("ranks of this host cannot read each other's memory; their messages go through UCX");
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
        close_fd(&host->lives[mate]);
        close_fd(&host->wakes[mate]);
    }
    for (int end = 0; end < 2; end++) {
        close_fd(&host->life[end]);
        close_fd(&host->wake[end]);
    }
    close_fd(&host->memfd);
    if (host->segment != NULL) {
        munmap(host->segment, host->segment_nbytes);
    }
    free(host->ranks);
    free(host->lives);
    free(host->wakes);
    free(host->pids);
    free(host->fates);
    free(host);
}
