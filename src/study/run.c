/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A reference is configured for as many steps as its rows, because schedule and decay depend on the
 * length of a run, and is ended as soon as it has recorded the steps that are compared: with as
 * many micro-batches as its rows have ranks, it is the slowest run of a study.
 *
 * A step that srun has taken on may never begin: seen once in some forty steps of Slurm 22.05 with
 * PMIx. The sign of life is a file that rank 0 makes as soon as all ranks have found each other, or
 * a record, where the site's srun does not pass the variable with the file's name. It is looked for
 * by reading the directory, because a client of NFS may believe for a minute that a name it has
 * asked for does not exist, but looks again when a directory is opened.
 */
#include "src/study/run.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "runtime/execute/record.h"
#include "src/study/command.h"

enum { LOG_NBYTES = 262144, TAIL_LINES = 12, MAX_TRIES = 3 };

static const char log_name[] = "log.txt", life_name[] = "started",
                  life_variable[] = "SHOAL_STUDY_STARTED";

shoal_status_t shoal_study_run_dir(const shoal_study_t *study, const char *name, bool reference, char dir_p[PATH_MAX])
{
    int n = snprintf(dir_p, PATH_MAX, "%s/%s/%s", study->dir, reference ? "gate" : "rows", name);
    if (n < 0 || n >= PATH_MAX - 64) { /* room for the names of files */
        shoal_error("run.dir = %.128s...: too long", study->dir);
        return SHOAL_ERR_DATA;
    }
    return SHOAL_OK;
}

static bool is_record(const char *name)
{
    size_t n = strlen(name);
    return strcmp(name, log_name) == 0 || strcmp(name, life_name) == 0 ||
           strcmp(name, "run.json") == 0 || strcmp(name, "summary.json") == 0 ||
           strcmp(name, "trace.json") == 0 ||
           (n > 11 && strncmp(name, "rank-", 5) == 0 && strcmp(name + n - 6, ".jsonl") == 0);
}

/* What an earlier run left must not be taken for this one's; files of anyone else stay. */
static shoal_status_t empty_dir(const char *dir, bool log_too)
{
    DIR *entries = opendir(dir);
    if (entries == NULL) {
        shoal_error("cannot read %s: %s", dir, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    shoal_status_t status = SHOAL_OK;
    for (struct dirent *entry = readdir(entries); entry != NULL && status == SHOAL_OK; entry = readdir(entries)) {
        bool keep = !is_record(entry->d_name) || (!log_too && strcmp(entry->d_name, log_name) == 0);
        if (!keep && unlinkat(dirfd(entries), entry->d_name, 0) != 0) {
            shoal_error("cannot remove %s/%s: %s", dir, entry->d_name, strerror(errno));
            status = SHOAL_ERR_DATA;
        }
    }
    closedir(entries);
    return status;
}

/* How many processes the kernel has killed for memory since it started; -1 where it does not say. */
static long count_oom_kills(void)
{
    static const char key[] = "oom_kill ";
    char              line[128];
    long              count = -1;
    FILE             *file  = fopen("/proc/vmstat", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, sizeof(key) - 1) == 0) {
            count = atol(line + sizeof(key) - 1);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static bool shows_life(const shoal_study_run_t *run)
{
    DIR *entries = opendir(run->dir);
    bool found   = false;
    struct dirent *e;
    while (entries != NULL && !found && (e = readdir(entries)) != NULL) {
        found = is_record(e->d_name) && strcmp(e->d_name, log_name) != 0;
    }
    if (entries != NULL) {
        closedir(entries);
    }
    return found;
}

/* The log begins with the command, ready to be tried by hand, and has it again before each further
 * try. */
static shoal_status_t write_command(const shoal_command_t *command, const char *log)
{
    FILE *file = fopen(log, "ae");
    if (file == NULL) {
        shoal_error("cannot open %s: %s", log, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    fputs("$ ", file);
    shoal_command_print(command, file);
    if (fclose(file) != 0) {
        shoal_error("cannot write %s: %s", log, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    return SHOAL_OK;
}

/* study.timeout_s is meant for a row; a reference does the work of its rows' ranks one after another. */
static double timeout_s(const shoal_study_t *study, const shoal_study_run_t *run)
{
    const shoal_spec_t *spec = study->spec;
    double row_work = (double)(spec->batch.accumulate * (spec->study.warmup + spec->study.steps));
    double work     = (double)(run->row->accumulate * study->gate_steps);
    return (double)spec->study.timeout_s * (run->reference && work > row_work ? work / row_work : 1);
}

static shoal_status_t start_command(const shoal_study_t *study, shoal_study_run_t *run)
{
    char            log[PATH_MAX + 32], life[PATH_MAX + 32];
    shoal_command_t command;
    snprintf(log, sizeof(log), "%s/%s", run->dir, log_name);
    snprintf(life, sizeof(life), "%s/%s", run->dir, life_name);
    setenv(life_variable, life, 1); /* of the job: it inherits the environment as it is now */
    SHOAL_TRY(shoal_command_build(study, run->row, run->dir, run->node, run->reference, &command));
    shoal_status_t status = write_command(&command, log);
    if (status == SHOAL_OK) {
        status = shoal_job_start(command.words, log, timeout_s(study, run), &run->job);
    }
    shoal_command_free(&command);
    run->started_ns = shoal_time_ns();
    run->alive = run->stalled = false;
    run->row->tries++;
    return status;
}

shoal_status_t shoal_study_run_start(const shoal_study_t *study, shoal_study_row_t *row, bool reference, size_t node,
                                     shoal_study_run_t *run_p)
{
    shoal_study_run_t run = {.row = row, .reference = reference, .node = node, .oom_kills = count_oom_kills()};
    SHOAL_TRY(shoal_study_run_dir(study, row->name, reference, run.dir));
    SHOAL_TRY(shoal_file_make_directory(run.dir));
    SHOAL_TRY(empty_dir(run.dir, true));
    row->verdict   = SHOAL_VERDICT_PENDING;
    row->gate      = (shoal_gate_t){.kind = SHOAL_GATE_NONE};
    row->exit_code = 0;
    row->tries     = 0;
    row->detail[0] = row->tail[0] = '\0';
    SHOAL_TRY(start_command(study, &run));
    *run_p = run;
    return SHOAL_OK;
}

/* ---- The end ---- */

/* The last LOG_NBYTES - 1 bytes of the log; "" if it cannot be read. The caller frees it; NULL without memory. */
static char *read_log(const char *dir)
{
    char path[PATH_MAX + 32], *text = calloc(LOG_NBYTES, 1);
    snprintf(path, sizeof(path), "%s/%s", dir, log_name);
    FILE *file = fopen(path, "re");
    if (text != NULL && file != NULL) {
        if (fseek(file, -(LOG_NBYTES - 1), SEEK_END) != 0) {
            rewind(file); /* shorter than that */
        }
        size_t n = fread(text, 1, LOG_NBYTES - 1, file);
        for (size_t i = 0; i < n; i++) {
            text[i] = text[i] == '\0' ? ' ' : text[i];
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

static void keep_tail(const char *log, char tail_p[SHOAL_STUDY_TAIL_NBYTES])
{
    size_t n = strlen(log), at = n, lines = 0;
    while (at > 0 && n - at < SHOAL_STUDY_TAIL_NBYTES - 1) {
        lines += log[at - 1] == '\n' && at < n;
        if (lines == TAIL_LINES) {
            break;
        }
        at--;
    }
    snprintf(tail_p, SHOAL_STUDY_TAIL_NBYTES, "%s", log + at);
}

static void judge(const shoal_study_run_t *run, const char *log)
{
    shoal_study_row_t *row     = run->row;
    const shoal_job_t *job     = &run->job;
    json_t            *summary = shoal_json_read(run->dir, "summary.json", 0, NULL);
    const char        *said    = shoal_json_text(summary, "status");
    shoal_evidence_t   evidence = {
          .wait_status  = job->wait_status,
          .timed_out    = job->timed_out,
          .asked        = row->verdict == SHOAL_VERDICT_STOPPED,
          .oom_kill     = count_oom_kills() > run->oom_kills,
          .summary_ok   = said != NULL && strcmp(said, "ok") == 0,
          .diverged     = said != NULL && strcmp(said, shoal_status_string(SHOAL_ERR_DIVERGED)) == 0,
          .summary_code = (int)json_integer_value(shoal_json_at(summary, "exit_code")),
          .log          = log,
    };
    row->verdict   = shoal_verdict_judge(&evidence, sizeof(row->detail), row->detail);
    row->exit_code = WIFEXITED(job->wait_status) ? WEXITSTATUS(job->wait_status) : 128 + WTERMSIG(job->wait_status);
    if (row->verdict != SHOAL_VERDICT_OK) {
        keep_tail(log, row->tail);
    }
    json_decref(summary);
}

static bool has_enough_steps(const shoal_study_t *study, const shoal_study_run_t *run)
{
    double *losses = malloc((study->gate_steps + 1) * sizeof(*losses));
    size_t  count  = losses == NULL ? 0 : shoal_record_read_losses(run->dir, study->gate_steps, losses);
    free(losses);
    return count == study->gate_steps;
}

/* Kills what was launched and has come to nothing. */
static void watch_launch(const shoal_study_t *study, shoal_study_run_t *run)
{
    double limit_ms = (double)study->spec->study.launch_timeout_s * 1e3;
    if (run->alive || run->stalled || limit_ms == 0 || run->job.stage != SHOAL_JOB_RUNS) {
        return;
    }
    run->alive = shows_life(run);
    if (!run->alive && shoal_ms_since(run->started_ns) >= limit_ms) {
        run->stalled = true;
        shoal_warn("%s: no sign of life %zu s after its launch (study.launch_timeout_s); try %zu "
                   "of %d is killed",
                   run->row->name, study->spec->study.launch_timeout_s, run->row->tries, MAX_TRIES);
        shoal_job_terminate(&run->job);
    }
}

/* Another try after one that came to nothing. Returns whether there is one. */
static bool try_again(const shoal_study_t *study, shoal_study_run_t *run)
{
    return run->stalled && run->row->tries < MAX_TRIES && study->stop_signal == 0 &&
           empty_dir(run->dir, false) == SHOAL_OK && start_command(study, run) == SHOAL_OK;
}

static void judge_stalled(const shoal_study_t *study, shoal_study_row_t *row)
{
    if (study->stop_signal != 0) {
        row->verdict = SHOAL_VERDICT_STOPPED;
        snprintf(row->detail, sizeof(row->detail), "stopped on request");
        return;
    }
    row->verdict = SHOAL_VERDICT_HANG;
    snprintf(row->detail, sizeof(row->detail),
             "never started: launched %zu times, without a sign of life within "
             "study.launch_timeout_s = %zu",
             row->tries, study->spec->study.launch_timeout_s);
}

bool shoal_study_run_poll(const shoal_study_t *study, shoal_study_run_t *run)
{
    bool enough = run->reference && has_enough_steps(study, run);
    if (enough) {
        shoal_job_terminate(&run->job);
    } else if (study->stop_signal != 0 && run->job.stage == SHOAL_JOB_RUNS) {
        run->row->verdict = SHOAL_VERDICT_STOPPED;
        shoal_job_ask(&run->job);
    }
    watch_launch(study, run);
    if (!shoal_job_poll(&run->job) || try_again(study, run)) {
        return false;
    }
    char *log = read_log(run->dir);
    judge(run, log == NULL ? "" : log);
    free(log);
    if (run->stalled) {
        judge_stalled(study, run->row);
    }
    if (run->reference && has_enough_steps(study, run)) {
        run->row->verdict   = SHOAL_VERDICT_OK;
        run->row->detail[0] = run->row->tail[0] = '\0';
    }
    return true;
}
