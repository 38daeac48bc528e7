/* SPDX-License-Identifier: BSD-3-Clause */
/* How many threads a rank computes with, and on which cores, when the launcher has not decided it already. */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_AFFINITY_H
#define SHOAL_RUNTIME_BOOTSTRAP_AFFINITY_H

#include <stdbool.h>

#include "base/status.h"

/* Of a rank, however it is asked for: run.threads has this range, and what the environment asks for
 * is cut to it. */
enum { SHOAL_MAX_THREADS = 4096 };

typedef struct {
    int         nthreads;
    const char *why;       /* so many threads */
    bool        is_ours;   /* the launcher bound nothing: where the rank runs is for it to choose */
    char        text[128]; /* what was chosen and why, for the log */
} shoal_affinity_t;

/*
 * Threads: `asked` if positive, else OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else this rank's
 * share of the cores it may use, never more than its CPU quota rounded up. At most
 * OMP_THREAD_LIMIT, where that is set, since OpenMP gives no more. Of a variable that is a list the
 * first number counts, one that is no number of threads does not, and the host's first rank warns
 * of what it does not take as it stands. Binding: when several ranks of this host may all use the
 * same set of cores and there are enough, each takes its own part; otherwise nothing is changed.
 */
shoal_status_t shoal_affinity_settle(int local_rank, int local_size, int asked, shoal_affinity_t *affinity_p);

/*
 * Moves the process, with all threads that it has, to cores of its own near its GPU, where the launcher left that to it. ids: the PCI
 * addresses of the GPUs of this host's ranks (local_size), by local rank. Where hwloc cannot tell for all of them which cores are
 * near, or these are fewer than the ranks, every rank stays where it is.
 */
shoal_status_t shoal_affinity_move_near(const char *const *ids, int local_rank, int local_size, shoal_affinity_t *affinity);

#endif
