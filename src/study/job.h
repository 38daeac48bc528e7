/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A child process under supervision: started with its output in a file, given a time limit, asked to stop, and killed
 * when it does not. Everything happens in one thread, between calls of shoal_job_event(), which is also the only place
 * that waits; signals are taken there and nowhere else, so no handler exists.
 */
#ifndef SHOAL_SRC_STUDY_JOB_H
#define SHOAL_SRC_STUDY_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

/* How far the wish that the job end has been taken; each stage is left for the next when it did not help. */
typedef enum { SHOAL_JOB_RUNS, SHOAL_JOB_ASKED, SHOAL_JOB_TERMINATED, SHOAL_JOB_KILLED, SHOAL_JOB_ENDED } shoal_job_stage_t;

typedef struct {
    pid_t             pid;
    shoal_job_stage_t stage;
    int64_t           next_ns;     /* when the next stage begins; in the first: when the time limit is reached */
    bool              timed_out;
    int               wait_status; /* once ended */
} shoal_job_t;

/* Blocks the signals that shoal_job_event() takes (SIGCHLD, SIGUSR1, SIGTERM, SIGINT); jobs get the mask of before. */
void shoal_job_setup(void);

/*
 * Starts argv (argv[0] is looked up in PATH) in its own process group with no input and both outputs appended to `log`.
 * SHOAL_ERR_DATA: the log cannot be written. A program that cannot be executed ends with 127 and says why in its log.
 */
shoal_status_t shoal_job_start(char *const argv[], const char *log, double timeout_s, shoal_job_t *job_p);

/*
 * Sends SIGUSR1; if that does not help SIGTERM after a while, which makes srun end the step, and at last SIGKILL to
 * the group.
 */
void shoal_job_ask(shoal_job_t *job);
/* Begins with SIGTERM: for a job whose work is no longer wanted. */
void shoal_job_terminate(shoal_job_t *job);

/* Takes what is due: its end, its time limit, the next stage. Returns whether the job has ended. Never waits. */
bool shoal_job_poll(shoal_job_t *job);

/* Waits for the end of a job, a request to stop (returns that signal), or a moment (returns 0). */
int shoal_job_event(void);

#endif
