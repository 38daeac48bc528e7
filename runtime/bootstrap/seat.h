/* SPDX-License-Identifier: BSD-3-Clause */
/* Which rank is on which device of which host: who shares one, and who must not. */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_SEAT_H
#define SHOAL_RUNTIME_BOOTSTRAP_SEAT_H

#include <stdbool.h>

#include "collectives/transport.h"
#include "kernels/device.h"

typedef struct {
    int  node;      /* as the bootstrap tells hosts apart: their names may repeat */
    bool exclusive; /* a GPU, and nobody said that ranks may share it */
    char id[sizeof(((shoal_device_info_t *)0)->id)];
    char pci[sizeof(((shoal_device_info_t *)0)->pci)];
} shoal_seat_t;

/* The seats of all ranks, to be freed by the caller. Collective. */
shoal_status_t shoal_seat_gather(const shoal_peers_t *peers, const shoal_seat_t *mine, shoal_seat_t **all_p);

/* How many ranks of that rank's host are on its device, itself counted. */
int shoal_seat_sharers(const shoal_seat_t *all, int nranks, int rank);

/*
 * SHOAL_ERR_CONFIG where two ranks are on one device that is exclusive; every rank finds the same, and the one that `speaks` logs which
 * ranks, where (hosts: of each rank), and what to do.
 */
shoal_status_t shoal_seat_check(const shoal_seat_t *all, int nranks, const char (*hosts)[64], bool speaks);

#endif
