/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a run reports of itself: run.json (what was run) and summary.json (what came out). Medians and spreads are over the
 * steps after study.warmup; MFU is model flops over wall time and peak, in both conventions of counting attention
 * (runtime/model/model.h).
 */
#ifndef SHOAL_SRC_SUMMARY_H
#define SHOAL_SRC_SUMMARY_H

#include <jansson.h>

#include "runtime/execute/cost.h"
#include "runtime/execute/trainer.h"
#include "src/config/config.h"

/* Everything that one rank has gathered by the end of its run. */
typedef struct {
    const shoal_trainer_t *trainer;
    const shoal_config_t  *config;
    shoal_step_record_t   *steps; /* (nsteps) */
    size_t                 nsteps, warmup;
    json_t                *valid;            /* [{"step", "loss"}], rank 0 */
    double                 first_step_ms, elapsed_s;
    double                 peak_flops;       /* per rank, in the compute type */
    const char            *peak_source;
    size_t                 heap_growth_nbytes; /* from the end of step 2 to the end of the run */
    shoal_status_t         status;
} shoal_outcome_t;

/* Writes DIR/run.json; `predicted` may be NULL while it is not known. Rank 0 only. */
shoal_status_t shoal_summary_write_run(const shoal_trainer_t *trainer, const shoal_config_t *config, const shoal_times_t *predicted);

/* Collective: gathers every rank's medians; rank 0 writes DIR/summary.json and prints the closing lines. */
shoal_status_t shoal_summary_write(const shoal_outcome_t *outcome);

/* Fraction of the peak that `tokens_per_s` over all ranks is. */
double shoal_summary_mfu(const shoal_trainer_t *trainer, double tokens_per_s, double peak_flops, bool causal);

/* {"category": bytes, ..., "slack": bytes} of a plan; the values add up to its total. */
json_t *shoal_summary_memory(const shoal_step_t *step);

#endif
