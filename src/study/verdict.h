/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a row ended. Several witnesses may speak of one end: the exit status of the launcher, the srun messages in the
 * log, the summary that rank 0 wrote, the kernel's count of out-of-memory kills. They contradict each other whenever
 * one rank fails and the others see only that it is gone, so the judgement goes by causes: a peer that reports its
 * neighbour lost is a witness, never the cause, while anything else is known.
 */
#ifndef SHOAL_SRC_STUDY_VERDICT_H
#define SHOAL_SRC_STUDY_VERDICT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    SHOAL_VERDICT_PENDING, /* not run yet, or does not fit this allocation */
    SHOAL_VERDICT_OK,
    SHOAL_VERDICT_NO_MEMORY,
    SHOAL_VERDICT_CRASH,
    SHOAL_VERDICT_HANG,
    SHOAL_VERDICT_REFUSED, /* by the plan */
    SHOAL_VERDICT_WRONG_LOSS,
    SHOAL_VERDICT_DIVERGED, /* its loss was no number for run.nan_steps */
    SHOAL_VERDICT_BAD_CONFIG,
    SHOAL_VERDICT_STOPPED,
    SHOAL_VERDICT_COUNT
} shoal_verdict_t;

/* The name in study.json and in reports: "ok", "out of memory", ... */
const char *shoal_verdict_name(shoal_verdict_t verdict);
/* The verdict of that name; SHOAL_VERDICT_PENDING for any other. */
shoal_verdict_t shoal_verdict_from_name(const char *name);
/* A result that stands: the row is not run again. */
bool shoal_verdict_is_final(shoal_verdict_t verdict);

typedef struct {
    int         wait_status;  /* of the launcher, as waitpid() gives it */
    bool        timed_out;    /* the study ended it for taking too long */
    bool        asked;        /* the study passed a request to stop on to it */
    bool        oom_kill;     /* the kernel of this host killed for memory meanwhile */
    bool        summary_ok;   /* summary.json exists and says "ok" */
    bool        diverged;     /* summary.json says that training did */
    int         summary_code; /* exit_code in summary.json, 0 if there is none */
    const char *log;          /* output of the launcher and of all ranks */
} shoal_evidence_t;

/* Writes one line that says why, empty for OK. */
shoal_verdict_t shoal_verdict_judge(const shoal_evidence_t *evidence, size_t nbytes, char *detail_p);

#endif
