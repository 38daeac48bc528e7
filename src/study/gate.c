/* SPDX-License-Identifier: BSD-3-Clause */
/* Which run each row is compared with, running those that are no rows, and the comparison. */
#include "src/study/gate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "runtime/execute/record.h"
#include "src/study/run.h"

bool shoal_gate_compare(const double *losses, size_t count, const double *reference, size_t n, double tolerance,
                        double *difference_p, size_t *step_p)
{
    *difference_p = 0;
    *step_p       = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = i < count ? fabs(losses[i] - reference[i]) / fmax(fabs(reference[i]), 1e-30) : NAN;
        if (!(difference <= *difference_p)) {
            *difference_p = difference;
            *step_p       = i + 1;
        }
        if (isnan(difference)) {
            return false;
        }
    }
    return *difference_p <= tolerance;
}

/* ---- Which reference ---- */

static bool share_reference(const shoal_study_row_t *a, const shoal_study_row_t *b)
{
    return a->global == b->global && a->seed == b->seed;
}

/* The one-rank row that this row is compared with: the first that is ok, or, with `hoped`, that may become so. */
static shoal_study_row_t *one_rank_row(const shoal_study_t *study, const shoal_study_row_t *row, bool hoped)
{
    for (size_t i = 0; i < study->nrows; i++) {
        shoal_study_row_t *other = &study->rows[i];
        bool               good  = other->verdict == SHOAL_VERDICT_OK || (hoped && !shoal_verdict_is_final(other->verdict));
        if (other->ranks == 1 && good && share_reference(row, other)) {
            return other;
        }
    }
    return NULL;
}

/* The smallest micro-batch of the rows that share it: what fits one of them has the best chance to fit one rank. */
static size_t smallest_local(const shoal_study_t *study, const shoal_study_row_t *row)
{
    size_t local = row->local;
    for (size_t i = 0; i < study->nrows; i++) {
        if (share_reference(row, &study->rows[i]) && study->rows[i].local < local) {
            local = study->rows[i].local;
        }
    }
    return local;
}

/* The run apart that belongs to the row, made and pending if it is new; NULL without memory. Moves the others. */
static shoal_study_row_t *reference_of(shoal_study_t *study, const shoal_study_row_t *row)
{
    shoal_study_row_t reference = {.nodes = 1, .ranks_per_node = 1, .ranks = 1, .seed = row->seed, .shard = SHOAL_SHARD_NONE};
    reference.local      = smallest_local(study, row);
    reference.global     = row->global;
    reference.accumulate = row->global / reference.local;
    snprintf(reference.name, sizeof(reference.name), "g%zu-s%llu", row->global, (unsigned long long)row->seed);

    shoal_study_row_t *known = shoal_study_find(study->references, study->nreferences, reference.name);
    if (known != NULL) {
        return known;
    }
    if (shoal_study_append(&study->references, &study->nreferences, &reference) != SHOAL_OK) {
        return NULL;
    }
    return &study->references[study->nreferences - 1];
}

/* ---- Running references ---- */

static void report_reference(const shoal_study_row_t *row)
{
    printf("reference for global batch %zu, seed %llu (one rank, %zu x %zu): %s%s%s\n", row->global,
           (unsigned long long)row->seed, row->accumulate, row->local, shoal_verdict_name(row->verdict),
           row->detail[0] == '\0' ? "" : ": ", row->detail);
    fflush(stdout);
}

static shoal_study_row_t *next_unfinished(shoal_study_t *study, size_t *at_p)
{
    while (*at_p < study->nreferences) {
        shoal_study_row_t *row = &study->references[(*at_p)++];
        if (row->in_grid && !shoal_verdict_is_final(row->verdict)) {
            return row;
        }
    }
    return NULL;
}

/* One slot is one node: fills what is free, then takes what has ended. Returns how many still run. */
static shoal_status_t turn(shoal_study_t *study, shoal_study_run_t *slots, size_t nslots, size_t *at_p, size_t *nrunning_p)
{
    *nrunning_p = 0;
    for (size_t node = 0; node < nslots; node++) {
        shoal_study_run_t *slot = &slots[node];
        if (slot->row != NULL && shoal_study_run_poll(study, slot)) {
            report_reference(slot->row);
            slot->row = NULL;
            SHOAL_TRY(shoal_study_save(study));
        }
        shoal_study_row_t *next = slot->row == NULL && study->stop_signal == 0 ? next_unfinished(study, at_p) : NULL;
        if (next != NULL) {
            SHOAL_TRY(shoal_study_run_start(study, next, true, node, slot));
        }
        *nrunning_p += slot->row != NULL;
    }
    return SHOAL_OK;
}

/* Ends what still runs, at once: something is wrong that is not the references' fault. */
static void abandon(shoal_study_run_t *slots, size_t nslots)
{
    for (size_t node = 0; node < nslots; node++) {
        while (slots[node].row != NULL && !shoal_job_poll(&slots[node].job)) {
            shoal_job_terminate(&slots[node].job);
            (void)shoal_job_event();
        }
    }
}

/*
 * Runs the references that are wanted (in_grid) and unfinished, as many at once as there are nodes; on one host one at
 * a time, for they share its cores.
 */
static shoal_status_t run_pending(shoal_study_t *study)
{
    size_t             nslots = study->slurm && study->nodes_held > 0 ? study->nodes_held : 1;
    shoal_study_run_t *slots  = calloc(nslots, sizeof(*slots));
    if (slots == NULL) {
        shoal_error("no memory for %zu references", nslots);
        return SHOAL_ERR_NO_MEMORY;
    }
    size_t         at = 0, nrunning;
    shoal_status_t status = turn(study, slots, nslots, &at, &nrunning);
    while (status == SHOAL_OK && nrunning > 0) {
        int signal         = shoal_job_event();
        study->stop_signal = signal != 0 ? signal : study->stop_signal;
        status             = turn(study, slots, nslots, &at, &nrunning);
    }
    if (status != SHOAL_OK) {
        abandon(slots, nslots);
    }
    free(slots);
    return status;
}

shoal_status_t shoal_study_run_references(shoal_study_t *study)
{
    for (size_t i = 0; i < study->nrows && study->gate_steps > 0; i++) {
        const shoal_study_row_t *row = &study->rows[i];
        bool fits = !study->slurm || row->nodes <= study->nodes_held;
        if (!row->in_grid || !fits || shoal_verdict_is_final(row->verdict) || one_rank_row(study, row, true) != NULL) {
            continue;
        }
        shoal_study_row_t *reference = reference_of(study, row);
        if (reference == NULL) {
            return SHOAL_ERR_NO_MEMORY;
        }
        reference->in_grid = true;
    }
    return run_pending(study);
}

/* ---- Comparing ---- */

static void compare(const shoal_study_t *study, shoal_study_row_t *row, const char *reference_dir, const char *row_dir)
{
    size_t  n         = study->gate_steps;
    double *losses    = malloc(n * sizeof(*losses));
    double *reference = malloc(n * sizeof(*reference));
    if (losses != NULL && reference != NULL) {
        size_t count   = shoal_record_read_losses(row_dir, n, losses);
        size_t nknown  = shoal_record_read_losses(reference_dir, n, reference);
        for (size_t i = nknown; i < n; i++) {
            reference[i] = NAN;
        }
        row->gate.kind = SHOAL_GATE_COMPARED;
        if (!shoal_gate_compare(losses, count, reference, n, study->spec->study.gate_tolerance, &row->gate.difference,
                                &row->gate.step)) {
            row->verdict = SHOAL_VERDICT_WRONG_LOSS;
            snprintf(row->detail, sizeof(row->detail), "step %zu: loss %.9g, one rank has %.9g (study.gate_tolerance = %g)",
                     row->gate.step, row->gate.step <= count ? losses[row->gate.step - 1] : NAN,
                     reference[row->gate.step - 1], study->spec->study.gate_tolerance);
        }
    }
    free(losses);
    free(reference);
}

static shoal_status_t compare_with(const shoal_study_t *study, shoal_study_row_t *row, const shoal_study_row_t *reference,
                                   bool apart)
{
    char row_dir[PATH_MAX], reference_dir[PATH_MAX];
    SHOAL_TRY(shoal_study_run_dir(study, row->name, false, row_dir));
    SHOAL_TRY(shoal_study_run_dir(study, reference->name, apart, reference_dir));
    snprintf(row->gate.reference, sizeof(row->gate.reference), "%s", reference->name);
    if (reference->verdict == SHOAL_VERDICT_OK) {
        compare(study, row, reference_dir, row_dir);
    } else {
        row->gate.kind = SHOAL_GATE_NONE;
        snprintf(row->detail, sizeof(row->detail), "loss not compared: %s on one rank",
                 shoal_verdict_name(reference->verdict));
    }
    return SHOAL_OK;
}

shoal_status_t shoal_study_gate(shoal_study_t *study, shoal_study_row_t *row)
{
    if (study->gate_steps == 0) {
        row->gate.kind = SHOAL_GATE_OFF;
        return SHOAL_OK;
    }
    const shoal_study_row_t *one = one_rank_row(study, row, false);
    if (one == row) {
        row->gate.kind = SHOAL_GATE_IS_REFERENCE;
        return SHOAL_OK;
    }
    if (one != NULL) {
        return compare_with(study, row, one, false);
    }
    shoal_study_row_t *reference = reference_of(study, row);
    if (reference == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    if (reference->verdict == SHOAL_VERDICT_PENDING) {
        reference->in_grid = true;
        SHOAL_TRY(run_pending(study));
    }
    return compare_with(study, row, reference, true);
}
