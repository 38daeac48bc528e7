/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a run leaves behind: DIR/rank-NNNNN.jsonl (one line per step, one file per rank), DIR/run.json (what was run) and
 * DIR/summary.json (what came out). JSON files are written under a temporary name and renamed when complete; step lines are
 * flushed one at a time, so a run that is killed keeps the steps it finished. A full disk or an unwritable directory is
 * SHOAL_ERR_DATA with the path and the cause.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_RECORD_H
#define SHOAL_RUNTIME_EXECUTE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* One optimizer step of one rank. All *_ms are wall time of this rank; all of them lie inside step_ms. */
typedef struct {
    size_t   step;              /* from 1 */
    double   loss;              /* mean over the global batch: the same on every rank */
    uint64_t tokens;            /* of this rank in this step */
    double   step_ms;           /* whole step, optimizer included, device synchronised */
    double   compute_ms;        /* ops on the compute lane, optimizer included */
    double   exposed_gather_ms; /* compute waited for the gather lane */
    double   exposed_reduce_ms; /* compute waited for the reduce lane */
    double   gather_ms;         /* the gather lane was busy */
    double   reduce_ms;
    double   data_ms;           /* token fetch; with a GPU, what it waited for: the rest is read ahead */
    double   optimizer_ms;      /* gradient norm and optimizer ops */
    double   grad_norm;         /* global, before clipping */
    double   lr;
} shoal_step_record_t;

typedef struct shoal_record shoal_record_t;

/* Makes DIR (and its parents) if need be and opens DIR/rank-NNNNN.jsonl, replacing an older run's. Every rank calls it. */
shoal_status_t shoal_record_open(const char *dir, int rank, shoal_record_t **record_p);
/* Appends one line with the fields above under their own names, plus tokens_per_s = tokens / step_ms. */
shoal_status_t shoal_record_step(shoal_record_t *record, const shoal_step_record_t *step);
void           shoal_record_close(shoal_record_t *record);

/*
 * The losses of steps 1, 2, ... of a run, from DIR/rank-00000.jsonl, as many as there are up to `n`. A loss that is no
 * number is NaN. Returns how many.
 */
size_t shoal_record_read_losses(const char *dir, size_t n, double *losses_p);

#endif
