/* SPDX-License-Identifier: BSD-3-Clause */
/* What host.c (use) and host_setup.c (making and unmaking) share. */
#ifndef SHOAL_COLLECTIVES_HOST_PRIVATE_H
#define SHOAL_COLLECTIVES_HOST_PRIVATE_H

#include <sys/types.h>

#include "collectives/host.h"

/* The start of the segment: one line per mate, then the slots, by tag and mate. */
typedef struct {
    _Alignas(64) _Atomic uint32_t patience; /* wants a byte in its pipe after so many changes of mates; 0: wants none */
    _Atomic uint32_t left;                  /* closed in order */
    uint64_t         probe_address;         /* where the mates may try to read probe_value from */
    uint64_t         probe_value;
} shoal_mate_line_t;

struct shoal_host {
    int                nmates, self;
    int               *ranks;  /* (nmates) rank in the job, ascending */
    int               *lives;  /* (nmates) ends when the mate does; -1 for oneself and for mates that are gone */
    int               *wakes;  /* (nmates) a byte written here wakes the mate; -1 for oneself */
    pid_t             *pids;   /* (nmates) */
    int                life[2], wake[2]; /* this rank's own pipes: the mates have life[0] and wake[1] open as well */
    int                memfd;            /* of the segment, where this rank may have to provide it; -1 once mapped */
    shoal_mate_fate_t *fates;  /* (nmates) */
    shoal_mate_line_t *lines;  /* (nmates) in the segment */
    shoal_slot_t      *slots;  /* (SHOAL_HOST_NTAGS, nmates) in the segment */
    void              *segment;
    size_t             segment_nbytes;
    uint64_t           probe_value;
};

#endif
