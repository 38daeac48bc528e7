/* SPDX-License-Identifier: BSD-3-Clause */
/* Pairs are compared one by one: a job has few ranks beside what it computes. */
#include "runtime/bootstrap/seat.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static bool same_device(const shoal_seat_t *a, const shoal_seat_t *b)
{
    return a->node == b->node && strcmp(a->id, b->id) == 0;
}

shoal_status_t shoal_seat_gather(const shoal_peers_t *peers, const shoal_seat_t *mine, shoal_seat_t **all_p)
{
    shoal_seat_t *all = calloc((size_t)peers->size, sizeof(*all));
    if (all == NULL) {
        shoal_error("no memory for the seats of %d ranks", peers->size);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = peers->exchange(peers->context, mine, sizeof(*mine), all);
    if (status != SHOAL_OK) {
        free(all);
        return status;
    }
    *all_p = all;
    return SHOAL_OK;
}

int shoal_seat_sharers(const shoal_seat_t *all, int nranks, int rank)
{
    int count = 0;
    for (int r = 0; r < nranks; r++) {
        count += same_device(&all[r], &all[rank]);
    }
    return count;
}

shoal_status_t shoal_seat_check(const shoal_seat_t *all, int nranks, const char (*hosts)[64], bool speaks)
{
    for (int b = 1; b < nranks; b++) {
        for (int a = 0; a < b; a++) {
            if ((!all[a].exclusive && !all[b].exclusive) || !same_device(&all[a], &all[b])) {
                continue;
            }
            if (speaks) {
                shoal_error("ranks %d and %d of %s both got the GPU at %s (%s): start one task for each GPU, every task seeing all GPUs of its "
                            "node (--ntasks-per-node and --gpus-per-node alike, no --gpus-per-task, no --gpu-bind); SHOAL_SHARE_GPU=1 "
                            "lets ranks share a GPU, slowly",
                            a, b, hosts[a], all[a].pci, all[a].id);
            }
            return SHOAL_ERR_CONFIG;
        }
    }
    return SHOAL_OK;
}
