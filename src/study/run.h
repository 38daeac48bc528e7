/* SPDX-License-Identifier: BSD-3-Clause */
/* One run of a row, or of a reference: an empty directory, a supervised job, and a verdict with the reason for it. */
#ifndef SHOAL_SRC_STUDY_RUN_H
#define SHOAL_SRC_STUDY_RUN_H

#include <limits.h>

#include "src/study/job.h"
#include "src/study/state.h"

typedef struct {
    shoal_study_row_t *row;
    shoal_job_t        job;
    bool               reference;
    size_t             node;     /* of the allocation where it begins */
    long               oom_kills; /* of this host, before it began */
    int64_t            started_ns;
    bool               alive;   /* its ranks have found each other */
    bool               stalled; /* they had not in time, and it is being killed */
    char               dir[PATH_MAX];
} shoal_study_run_t;

/* DIR/rows/NAME, or DIR/gate/NAME of a reference. SHOAL_ERR_DATA: too long. */
shoal_status_t shoal_study_run_dir(const shoal_study_t *study, const char *name, bool reference, char dir_p[PATH_MAX]);

/* Empties the row's directory of an earlier run's files and starts it. The row is pending until it ends. */
shoal_status_t shoal_study_run_start(const shoal_study_t *study, shoal_study_row_t *row, bool reference, size_t node,
                                     shoal_study_run_t *run_p);

/*
 * Never waits. Returns whether the run has ended; then its row has verdict, detail, exit code and
 * tail. A reference that has recorded enough steps is ended here, and is ok however it took that. A
 * run that shows no sign of life within study.launch_timeout_s is killed here and started again,
 * until it has been started three times.
 */
bool shoal_study_run_poll(const shoal_study_t *study, shoal_study_run_t *run);

#endif
