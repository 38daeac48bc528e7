/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the time goes between the launch of a run and the end of its first step. There is one start
 * per process, so the state is the process's; a forked child goes on with its parent's. One thread
 * calls these. Parts follow each other without a gap: they add up to the whole.
 */
#ifndef SHOAL_BASE_START_H
#define SHOAL_BASE_START_H

#include <stdbool.h>

typedef enum {
    SHOAL_START_LAUNCH, /* from SHOAL_LAUNCH_TIME to the process's start; 0 without */
    SHOAL_START_EXEC,   /* from there to shoal_start_begin: dynamic loading */
    SHOAL_START_BOOTSTRAP,
    SHOAL_START_CONFIG,
    SHOAL_START_DEVICE,
    SHOAL_START_PLAN,      /* the plan, the data files opened, and whether it fits */
    SHOAL_START_TRANSPORT, /* opened, the run's memory allocated, groups made */
    SHOAL_START_STATE,     /* initial values on the device */
    SHOAL_START_RECORDS,
    SHOAL_START_STEP,
    SHOAL_START_COUNT
} shoal_start_part_t;

/*
 * Call it first. The process's start is the kernel's figure, of 10 ms resolution: when it was
 * forked, so the time of a shell that replaces itself by shoal (exec) counts too.
 * SHOAL_LAUNCH_TIME, in seconds since the epoch, may name an earlier start, the launcher's; it is
 * used where it can be true: not before this machine booted, within the last day, and not ahead of
 * the clock by more than a second, which clocks of two machines may differ by.
 */
void shoal_start_begin(void);

/* Warns of a SHOAL_LAUNCH_TIME that is not used, if there is one. For one rank of a job. */
void shoal_start_warn(void);

/*
 * The time since the last mark, or shoal_start_begin, was this part's. After SHOAL_START_STEP
 * nothing is added any more.
 */
void shoal_start_mark(shoal_start_part_t part);

/* Milliseconds of each part so far. */
void shoal_start_parts(double ms_p[SHOAL_START_COUNT]);

/* "launch", "exec", "bootstrap", ... */
const char *shoal_start_part_name(shoal_start_part_t part);

/* NULL, or why a launcher's stamp cannot be true: seconds since the epoch, all three. */
const char *shoal_start_doubt(double stamp, double now, double booted);

#endif
