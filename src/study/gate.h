/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loss gate: a row's numbers count only if it computes the same function as one rank does. All runs with one
 * global batch and one seed start from the same parameters and see the same tokens, so their losses agree to rounding,
 * step by step; the rounding is what study.gate_tolerance is for. The one-rank run is a row of the grid where there is
 * one, else a run of its own with as many micro-batches as the rows have ranks. Those are not timed, so several run at
 * once, each on its own node.
 */
#ifndef SHOAL_SRC_STUDY_GATE_H
#define SHOAL_SRC_STUDY_GATE_H

#include "src/study/state.h"

/*
 * Compares the first n losses of a run and of its reference. Returns whether all are there and agree within
 * `tolerance`, relative to the reference; a loss that is no number agrees with nothing. Writes the largest difference
 * (NaN if there is none to give) and its step.
 */
bool shoal_gate_compare(const double *losses, size_t count, const double *reference, size_t n, double tolerance,
                        double *difference_p, size_t *step_p);

/* Runs the references that the grid's unfinished rows will want and that are no rows. Returns early when asked to stop. */
shoal_status_t shoal_study_run_references(shoal_study_t *study);

/* Compares a row that is ok; it may become a wrong loss. Runs its reference if that turns out to be missing. */
shoal_status_t shoal_study_gate(shoal_study_t *study, shoal_study_row_t *row);

#endif
