/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Training runs for tests: forks the ranks, each trains in memory without records, and the parent reads what rank 0 saw from a shared
 * page. The parent itself never computes, so no OpenMP team is alive when it forks.
 *
 * SHOAL_TEST_DEVICE=cuda makes the device of all runs that do not name one, for machines that have it.
 */
#ifndef SHOAL_TESTS_TRAIN_RUN_H
#define SHOAL_TESTS_TRAIN_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/bootstrap/bootstrap.h"

enum { TRAIN_RUN_MAX_STEPS = 16, TRAIN_RUN_MAX_WORDS = 48 };

typedef struct {
    size_t nsteps;
    double losses[TRAIN_RUN_MAX_STEPS], grad_norms[TRAIN_RUN_MAX_STEPS];
    double valid_loss;                        /* after the last step; NaN without validation */
    size_t plan_nbytes, used_nbytes;
    size_t heap_growth_nbytes;                /* from the end of step 2 to the end */
    size_t nops;
} train_run_t;

/* NULL, or what every rank calls behind each step. */
extern void (*train_run_after_step)(size_t step);

/* Of a rank: how it found the others. For those who are called behind a step. */
extern shoal_bootstrap_t *train_run_world;

/*
 * Whether ranks put everything away after an error among the steps too; else they end at once, as
 * `shoal train` does.
 */
extern bool train_run_orderly;

/* Words are group.key=value; NULL ends the list. Returns the job's exit code. */
int train_run(int nranks, const char *const *words, train_run_t *run_p);

/* As above with words from a printf format, separated by blanks, after those of `base`. */
int train_run_with(int nranks, const char *const *base, train_run_t *run_p, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Largest relative difference of losses; NaN counts as infinite, and so does a different number of steps. */
double train_run_distance(const train_run_t *a, const train_run_t *b);

#endif
