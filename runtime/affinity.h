/* SPDX-License-Identifier: BSD-3-Clause */
/* How many threads a rank computes with, and on which cores, when the launcher has not decided it already. */
#ifndef SHOAL_RUNTIME_AFFINITY_H
#define SHOAL_RUNTIME_AFFINITY_H

#include <stddef.h>

#include "base/status.h"

/*
 * Threads: `asked` if positive, else OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else this rank's share of the cores it may
 * use, never more than its CPU quota rounded up. Binding: when several ranks of this host may all use the same set of
 * cores and there are enough, each takes its own part; otherwise nothing is changed. *text_p (nbytes) says what was
 * chosen and why, for the log.
 */
shoal_status_t shoal_affinity_settle(int local_rank, int local_size, int asked, int *nthreads_p, char *text_p, size_t nbytes);

#endif
