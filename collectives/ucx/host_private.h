/* SPDX-License-Identifier: BSD-3-Clause */
/* What host.c (use) and host_setup.c (making and unmaking) share. */
#ifndef SHOAL_COLLECTIVES_UCX_HOST_PRIVATE_H
#define SHOAL_COLLECTIVES_UCX_HOST_PRIVATE_H

#include <sys/types.h>

#include "collectives/ucx/host.h"

/* The start of the segment: one line per mate, then the slots, by tag and mate. */
typedef struct {
    /* The rank wants a byte in its wake pipe after so many changes of mates; 0: it wants none. */
    _Alignas(64) _Atomic uint32_t patience;
    _Atomic uint32_t left;                  /* closed in order */
    uint64_t         probe_address;         /* where the mates may try to read probe_value from */
    uint64_t         probe_value;
} shoal_mate_line_t;

struct shoal_host {
    int                nmates, self;
    int               *ranks;  /* (nmates) rank in the job, ascending */
    int               *lives;  /* (nmates) ends when the mate does; -1: oneself, or the mate is gone */
    int               *wakes;  /* (nmates) a byte written here wakes the mate; -1 for oneself */
    pid_t             *pids;   /* (nmates) */
    int                life[2]; /* this rank's own: the mates have the reading end open as well */
    int                wake[2]; /* this rank's own: the mates have the writing end open as well */
    int                memfd;   /* of the segment, in case this rank has to provide it */
    shoal_mate_fate_t *fates;  /* (nmates) */
    shoal_mate_line_t *lines;  /* (nmates) in the segment */
    shoal_slot_t      *slots;  /* (SHOAL_HOST_NTAGS, nmates) in the segment */
    void              *segment;
    size_t             segment_nbytes;
    uint64_t           probe_value;
};

#endif
