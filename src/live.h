/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What rank 0 shows of a run while it runs. On a terminal one line, drawn over itself at most ten times a second; anywhere
 * else (a Slurm log) a plain line for the first steps, then at growing intervals, and never less than one in five minutes.
 * One thread only.
 */
#ifndef SHOAL_SRC_LIVE_H
#define SHOAL_SRC_LIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* One step. What is not known is NaN and not shown. */
typedef struct {
    size_t step, steps; /* from 1; of how many */
    double loss;
    double tokens_per_s;     /* over all ranks */
    double mfu;              /* fraction of the peak */
    double exposed_fraction; /* of the step: compute waited for communication */
    double step_ms;
} shoal_live_step_t;

typedef struct shoal_live shoal_live_t;

/* Writes to `fd`, which stays the caller's. */
shoal_status_t shoal_live_create(int fd, shoal_live_t **live_p);
void           shoal_live_step(shoal_live_t *live, const shoal_live_step_t *step);
/* Takes the line off the terminal, for a log line to stand in its place; the next step draws it again. */
void shoal_live_clear(shoal_live_t *live);
/*
 * Leaves the last step on the screen, under a finished line. NULL is allowed. SHOAL_ERR_DATA: a line could not be written,
 * which was logged when it happened; a pipe whose reader has left is no error.
 */
shoal_status_t shoal_live_destroy(shoal_live_t *live);

/* The pure parts. */

/* Whether a plain line is due: `since_s` is the time since the last one. */
bool shoal_live_is_due(size_t step, size_t steps, double since_s);
/* The line without its newline, for a mean step time of `mean_ms` (the time left follows from it). */
void shoal_live_format(const shoal_live_step_t *step, double mean_ms, size_t nbytes, char *line_p);

#endif
