/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How far each rank of this host has come, in memory that they share: so that the ranks that wait at a collective of GPUs, whose
 * library does not tell whom it waits for, can name those that have not got there. Ranks of other hosts are unknown to it; their
 * own neighbours name them.
 *
 * Each rank owns a page and maps those of its host (through /proc, so that nothing is left behind whoever dies). A rank whose
 * page cannot be mapped, in another container say, is unknown as well.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_BOARD_H
#define SHOAL_RUNTIME_EXECUTE_BOARD_H

#include <stdbool.h>

#include "kernels/device.h"
#include "runtime/bootstrap/bootstrap.h"

typedef struct shoal_board shoal_board_t;

/* A run is one walk through a program, counted alike by all ranks; notes are as shoal_stream_ops_t has them, -1 before the first. */
typedef struct {
    int run;
    int notes[SHOAL_QUEUE_COUNT];
} shoal_place_t;

/* Collective over all ranks of the job. Fails only for want of memory, or as the exchange fails. */
shoal_status_t shoal_board_open(const shoal_bootstrap_t *bootstrap, const shoal_peers_t *peers, shoal_board_t **board_p);
void           shoal_board_close(shoal_board_t *board); /* NULL is allowed */

/* Says where this rank is. Costs a few stores. */
void shoal_board_post(shoal_board_t *board, const shoal_place_t *place);

/* Says that this rank is about to end for a reason that it names itself: its end is then no news. */
void shoal_board_resign(shoal_board_t *board);

/*
 * Where another rank of the job said last that it was; false if that is unknown. *alive_p: its
 * process has not ended, or only after it had resigned or closed its board.
 */
bool shoal_board_read(const shoal_board_t *board, int rank, shoal_place_t *place_p, bool *alive_p);

#endif
