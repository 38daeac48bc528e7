/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the witnesses of an end to its cause. Pure functions of text and numbers: tests/test_study_verdict.c has one
 * case of each.
 */
#include "src/study/verdict.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/status.h"

static const char *const names[SHOAL_VERDICT_COUNT] = {
    [SHOAL_VERDICT_PENDING]    = "pending",
    [SHOAL_VERDICT_OK]         = "ok",
    [SHOAL_VERDICT_NO_MEMORY]  = "out of memory",
    [SHOAL_VERDICT_CRASH]      = "crash",
    [SHOAL_VERDICT_HANG]       = "hang",
    [SHOAL_VERDICT_REFUSED]    = "refused by plan",
    [SHOAL_VERDICT_WRONG_LOSS] = "wrong loss",
    [SHOAL_VERDICT_DIVERGED]   = "diverged",
    [SHOAL_VERDICT_BAD_CONFIG] = "bad config",
    [SHOAL_VERDICT_STOPPED]    = "stopped",
};

const char *shoal_verdict_name(shoal_verdict_t verdict)
{
    return verdict < SHOAL_VERDICT_COUNT ? names[verdict] : "?";
}

shoal_verdict_t shoal_verdict_from_name(const char *name)
{
    for (int v = 0; v < SHOAL_VERDICT_COUNT; v++) {
        if (name != NULL && strcmp(names[v], name) == 0) {
            return (shoal_verdict_t)v;
        }
    }
    return SHOAL_VERDICT_PENDING;
}

bool shoal_verdict_is_final(shoal_verdict_t verdict)
{
    return verdict == SHOAL_VERDICT_OK || verdict == SHOAL_VERDICT_NO_MEMORY || verdict == SHOAL_VERDICT_REFUSED;
}

enum { LINE_NBYTES = 1024 };

/*
 * Copies the next line of *text_p and steps over it. Lines longer than the buffer are cut: none of srun's is, few of
 * ours.
 */
static bool next_line(const char **text_p, char line_p[LINE_NBYTES])
{
    size_t n = strcspn(*text_p, "\n");
    if (**text_p == '\0') {
        return false;
    }
    snprintf(line_p, LINE_NBYTES, "%.*s", (int)(n < LINE_NBYTES ? n : LINE_NBYTES - 1), *text_p);
    *text_p += n + ((*text_p)[n] == '\n');
    return true;
}

/* ---- Witnesses ---- */

/* What was seen, by any witness. */
typedef struct {
    bool code[128]; /* exit codes of ranks */
    int  signal;    /* a signal that nobody sends to clean up, or the first that the local launcher saw; 0: none */
    bool killed;    /* SIGKILL or SIGTERM: may be the cause, is usually the cleaning up after it */
    bool no_memory; /* said in words by Slurm or the kernel */
    char who[128];  /* srun's words on the signal: "n2: task 1: Segmentation fault" */
} seen_t;

static void see_signal(seen_t *seen, int signal)
{
    if (signal == SIGKILL || signal == SIGTERM) {
        seen->killed = true;
    } else if (signal > 0) {
        seen->signal = signal;
    }
}

static void see_code(seen_t *seen, int code)
{
    if (code > 128) {
        see_signal(seen, code - 128);
    } else if (code > 0 && code < 128) {
        seen->code[code] = true;
    }
}

static const char srun_error[] = "srun: error: ";

/* "n2: task 3: Exited with exit code 4", "n1: tasks 0-2: Killed", "n1: task 0: Segmentation fault (core dumped)" */
static void see_srun_line(seen_t *seen, const char *line)
{
    static const char exited[] = "Exited with exit code ";
    const char       *task     = strstr(line, ": task");
    const char       *what     = task == NULL ? NULL : strstr(task + 2, ": ");
    if (what == NULL) {
        return;
    }
    what += 2;
    if (strncmp(what, exited, sizeof(exited) - 1) == 0) {
        see_code(seen, atoi(what + sizeof(exited) - 1));
        return;
    }
    for (int s = 1; s < SIGRTMIN; s++) {
        const char *name = strsignal(s);
        if (strncmp(what, name, strlen(name)) == 0) {
            see_signal(seen, s);
            if (seen->signal == s && seen->who[0] == '\0') {
                snprintf(seen->who, sizeof(seen->who), "%.127s", line + sizeof(srun_error) - 1);
            }
            return;
        }
    }
}

static void see_line(seen_t *seen, const char *line)
{
    static const char killed_by[] = "was killed by signal ";
    bool              slurm       = strncmp(line, "srun: ", 6) == 0 || strncmp(line, "slurmstepd", 10) == 0;
    if (slurm && (strstr(line, "oom-kill") || strstr(line, "oom_kill") || strstr(line, "Out Of Memory"))) {
        seen->no_memory = true;
    } else if (strncmp(line, srun_error, sizeof(srun_error) - 1) == 0) {
        see_srun_line(seen, line);
    } else if (strncmp(line, "shoal: ", 7) == 0 && strstr(line, killed_by) != NULL) {
        /* The local launcher says this only of the rank that went first, so here even SIGKILL is a cause. */
        seen->signal = atoi(strstr(line, killed_by) + sizeof(killed_by) - 1);
    }
}

static void see_log(seen_t *seen, const char *log)
{
    char line[LINE_NBYTES];
    while (next_line(&log, line)) {
        see_line(seen, line);
    }
}

static seen_t look(const shoal_evidence_t *evidence)
{
    seen_t seen = {.no_memory = false};
    see_log(&seen, evidence->log);
    see_code(&seen, evidence->summary_code);
    if (WIFSIGNALED(evidence->wait_status)) {
        see_signal(&seen, WTERMSIG(evidence->wait_status));
    } else {
        see_code(&seen, WEXITSTATUS(evidence->wait_status));
    }
    if (evidence->oom_kill && (seen.killed || seen.signal == SIGKILL)) {
        seen.no_memory = true;
    }
    return seen;
}

/* ---- Judgement ---- */

/*
 * The first error that shoal logged: the place that decides about an error logs it, and what follows it are
 * consequences.
 */
static bool first_error(const char *log, size_t nbytes, char *text_p)
{
    static const char mark[] = "error: ";
    char              line[LINE_NBYTES];
    while (next_line(&log, line)) {
        const char *error = strncmp(line, "shoal: ", 7) == 0 ? strstr(line, mark) : NULL;
        if (error != NULL) {
            /* "shoal: rank 3 on n2: error: text" keeps its rank. */
            snprintf(text_p, nbytes, "%.*s%s", (int)(error - line - 7), line + 7, error + sizeof(mark) - 1);
            return true;
        }
    }
    return false;
}

static int first_other_code(const seen_t *seen)
{
    for (int code = 1; code < 128; code++) {
        if (seen->code[code] && code != shoal_status_exit_code(SHOAL_ERR_PEER)) {
            return code;
        }
    }
    return 0;
}

static shoal_verdict_t crash(const seen_t *seen, size_t nbytes, char *detail_p)
{
    int code = first_other_code(seen);
    if (seen->signal != 0) {
        snprintf(detail_p, nbytes, "a rank was killed by signal %d (%s)", seen->signal, strsignal(seen->signal));
    } else if (code != 0) {
        snprintf(detail_p, nbytes, "exit code %d", code);
    } else if (seen->killed) {
        snprintf(detail_p, nbytes, "killed, and nothing says by whom (no out-of-memory report)");
    } else {
        snprintf(detail_p, nbytes, "it ended with exit code 0 but left no complete summary.json");
    }
    return SHOAL_VERDICT_CRASH;
}

static shoal_verdict_t judge_seen(const seen_t *seen, size_t nbytes, char *detail_p)
{
    /* Causes before witnesses; where several ranks failed in several ways, the most telling first. */
    static const struct {
        shoal_status_t  status;
        shoal_verdict_t verdict;
    } causes[] = {
        {SHOAL_ERR_NO_MEMORY, SHOAL_VERDICT_NO_MEMORY},
        {SHOAL_ERR_PLAN, SHOAL_VERDICT_REFUSED},
        {SHOAL_ERR_CONFIG, SHOAL_VERDICT_BAD_CONFIG},
        {SHOAL_ERR_STOPPED, SHOAL_VERDICT_STOPPED},
    };
    snprintf(detail_p, nbytes, "%s", seen->no_memory ? "killed by the kernel for lack of memory" : "");
    if (seen->no_memory) {
        return SHOAL_VERDICT_NO_MEMORY;
    }
    for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
        if (seen->code[shoal_status_exit_code(causes[i].status)]) {
            snprintf(detail_p, nbytes, "%s", shoal_status_string(causes[i].status));
            return causes[i].verdict;
        }
    }
    if (seen->signal == 0 && first_other_code(seen) == 0 && seen->code[shoal_status_exit_code(SHOAL_ERR_PEER)]) {
        snprintf(detail_p, nbytes, "%s", shoal_status_string(SHOAL_ERR_PEER));
        return SHOAL_VERDICT_HANG;
    }
    return crash(seen, nbytes, detail_p);
}

shoal_verdict_t shoal_verdict_judge(const shoal_evidence_t *evidence, size_t nbytes, char *detail_p)
{
    detail_p[0] = '\0';
    if (WIFEXITED(evidence->wait_status) && WEXITSTATUS(evidence->wait_status) == 0 && evidence->summary_ok) {
        return SHOAL_VERDICT_OK;
    }
    if (evidence->asked) {
        snprintf(detail_p, nbytes, "stopped on request");
        return SHOAL_VERDICT_STOPPED;
    }
    if (evidence->timed_out) {
        snprintf(detail_p, nbytes, "took longer than study.timeout_s");
        return SHOAL_VERDICT_HANG;
    }
    if (evidence->diverged) {
        snprintf(detail_p, nbytes, "%s", shoal_status_string(SHOAL_ERR_DIVERGED));
        (void)first_error(evidence->log, nbytes, detail_p);
        return SHOAL_VERDICT_DIVERGED;
    }
    seen_t          seen    = look(evidence);
    shoal_verdict_t verdict = judge_seen(&seen, nbytes, detail_p);
    if (seen.who[0] != '\0' && verdict == SHOAL_VERDICT_CRASH) {
        /* A rank that died of a signal logged nothing; whatever was logged is its peers missing it. */
        snprintf(detail_p, nbytes, "%s", seen.who);
    } else {
        (void)first_error(evidence->log, nbytes, detail_p); /* says it better, where there is one */
    }
    return verdict;
}
