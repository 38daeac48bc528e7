/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See board.h. Words are written and read one by one: a reader wants to know where somebody stands who has stopped moving. Each rank
 * holds a lock on its page, which the kernel drops when the process ends, before anybody has waited for it.
 */
#include "runtime/execute/board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

typedef struct {
    atomic_int run;
    atomic_int notes[SHOAL_QUEUE_COUNT];
    atomic_int resigned; /* from then on an end of the process says nothing */
} page_t;

typedef struct {
    int   node, fd; /* fd: -1 if it has no page */
    pid_t pid;
} card_t;

struct shoal_board {
    int      rank, size;
    page_t **pages; /* (size) NULL: unknown */
    int     *fds;   /* (size) of the pages; -1 likewise */
    card_t  *cards; /* (size) */
};

static page_t *map_page(int fd, int protection)
{
    void *memory = mmap(NULL, sizeof(page_t), protection, MAP_SHARED, fd, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

/* This rank's own page. Without one it is unknown to the others, and they to it. */
static void make_page(shoal_board_t *board)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int          fd   = memfd_create("shoal-board", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, sizeof(page_t)) == 0 && fcntl(fd, F_SETLK, &lock) == 0) {
        board->pages[board->rank] = map_page(fd, PROT_READ | PROT_WRITE);
    }
    board->fds[board->rank] = fd;
}

static void map_neighbours(shoal_board_t *board)
{
    const card_t *mine = &board->cards[board->rank];
    for (int r = 0; r < board->size; r++) {
        const card_t *card = &board->cards[r];
        char          path[64];
        if (r == board->rank || card->node != mine->node || card->fd < 0) {
            continue;
        }
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)card->pid, card->fd);
        board->fds[r]   = open(path, O_RDONLY | O_CLOEXEC);
        board->pages[r] = board->fds[r] >= 0 ? map_page(board->fds[r], PROT_READ) : NULL;
        if (board->pages[r] == NULL) {
            shoal_trace("rank %d's progress cannot be seen from here: %s", r, strerror(errno));
        }
    }
}

shoal_status_t shoal_board_open(const shoal_bootstrap_t *bootstrap, const shoal_peers_t *peers, shoal_board_t **board_p)
{
    shoal_board_t *board = calloc(1, sizeof(*board));
    if (board == NULL) {
        shoal_error("no memory for the board");
        return SHOAL_ERR_NO_MEMORY;
    }
    *board       = (shoal_board_t){.rank = peers->rank, .size = peers->size};
    board->pages = calloc((size_t)peers->size, sizeof(*board->pages));
    board->cards = calloc((size_t)peers->size, sizeof(*board->cards));
    board->fds   = malloc((size_t)peers->size * sizeof(*board->fds));
    for (int r = 0; board->fds != NULL && r < peers->size; r++) {
        board->fds[r] = -1;
    }
    if (board->pages == NULL || board->cards == NULL || board->fds == NULL) {
        shoal_board_close(board);
        shoal_error("no memory for the board");
        return SHOAL_ERR_NO_MEMORY;
    }
    make_page(board);
    shoal_board_post(board, &(shoal_place_t){0});
    card_t         mine   = {bootstrap->node, board->pages[peers->rank] != NULL ? board->fds[peers->rank] : -1, getpid()};
    shoal_status_t status = peers->exchange(peers->context, &mine, sizeof(mine), board->cards);
    if (status != SHOAL_OK) {
        shoal_board_close(board);
        return status;
    }
    map_neighbours(board);
    *board_p = board;
    return SHOAL_OK;
}

void shoal_board_resign(shoal_board_t *board)
{
    if (board->pages != NULL && board->pages[board->rank] != NULL) {
        atomic_store(&board->pages[board->rank]->resigned, 1);
    }
}

void shoal_board_close(shoal_board_t *board)
{
    if (board == NULL) {
        return;
    }
    shoal_board_resign(board);
    for (int r = 0; board->pages != NULL && r < board->size; r++) {
        if (board->pages[r] != NULL) {
            munmap(board->pages[r], sizeof(page_t));
        }
    }
    for (int r = 0; board->fds != NULL && r < board->size; r++) {
        if (board->fds[r] >= 0) {
            close(board->fds[r]);
        }
    }
    free(board->fds);
    free(board->pages);
    free(board->cards);
    free(board);
}

void shoal_board_post(shoal_board_t *board, const shoal_place_t *place)
{
    page_t *page = board->pages[board->rank];
    for (int queue = 0; page != NULL && queue < SHOAL_QUEUE_COUNT; queue++) {
        atomic_store_explicit(&page->notes[queue], place->notes[queue], memory_order_relaxed);
    }
    if (page != NULL) {
        atomic_store_explicit(&page->run, place->run, memory_order_relaxed);
    }
}

/* By another process. What cannot be asked is taken for locked. */
static bool is_locked(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool shoal_board_read(const shoal_board_t *board, int rank, shoal_place_t *place_p, bool *alive_p)
{
    const page_t *page = board->pages[rank];
    if (page == NULL) {
        return false;
    }
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        place_p->notes[queue] = atomic_load_explicit(&page->notes[queue], memory_order_relaxed);
    }
    place_p->run = atomic_load_explicit(&page->run, memory_order_relaxed);
    *alive_p     = rank == board->rank || is_locked(board->fds[rank]) ||
               atomic_load(&page->resigned) != 0;
    return true;
}
