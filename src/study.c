/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal study`: the command line, and the loop over all rows. Reading order of its parts: study_state.h (what a study
 * is), study_grid.c (which rows), study_command.c (what each runs), study_job.c and study_run.c (running it),
 * study_verdict.c (how it ended), study_gate.c (whether its losses are right).
 *
 * The state is saved after each row, so there is nothing to do when a study ends early, however it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "src/commands.h"
#include "src/config/config.h"
#include "src/report.h"
#include "src/study/command.h"
#include "src/study/gate.h"
#include "src/study/print.h"
#include "src/study/run.h"

static const char help[] =
    "Usage: shoal study [OPTION]... CONFIG [key=value]...\n"
    "Measure every cell of the grid study.nodes x study.ranks_per_node x study.shard x study.local x study.seeds, compare its\n"
    "losses with one rank's, and write run.dir/report.html. Inside a Slurm allocation rows are job steps; elsewhere they are\n"
    "local ranks of this host. Rows with a result are not run again: the same command continues where it stopped.\n"
    "\n"
    "Options:\n"
    "      --dry-run        print the commands of all rows and run none\n"
    "      --srun-arg=WORD  one more word for srun; may be given several times\n"
    "      --help           print this help and exit\n"
    "\n"
    "Exit status: 0 every row has a result (ok, out of memory, refused by plan); 1 some row crashed, hung, computed a wrong\n"
    "loss, or did not fit the allocation; 2 bad usage or configuration; 6 run.dir cannot be written; 75 stopped by SIGUSR1,\n"
    "SIGTERM or SIGINT, run it again to continue.\n";

typedef struct {
    shoal_study_t   study;
    shoal_config_t *config;
    char          **load_words; /* overrides for loading: those of the command line and what all rows have in common */
    int             lock_fd;
    bool            dry_run, wants_help;
} session_t;

/* ---- Setting up ---- */

static shoal_status_t parse_words(session_t *session, int argc, char **argv)
{
    enum { DRY_RUN = 1, SRUN_ARG, TRAIN_COMMAND, HELP };
    static const struct option options[] = {
        {"dry-run", no_argument, NULL, DRY_RUN},
        {"srun-arg", required_argument, NULL, SRUN_ARG},
        {"train-command", required_argument, NULL, TRAIN_COMMAND}, /* for tests: stands in for `shoal train` */
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    shoal_study_t *study = &session->study;
    optind               = 0; /* GNU: start over, main() may have parsed too */
    for (int option; (option = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
        switch (option) {
        case DRY_RUN: session->dry_run = true; break;
        case SRUN_ARG: study->srun_args[study->nsrun_args++] = optarg; break;
        case TRAIN_COMMAND: study->train_command = optarg; break;
        case HELP: session->wants_help = true; return SHOAL_OK;
        default: return SHOAL_ERR_CONFIG; /* getopt has said what is wrong */
        }
    }
    if (optind >= argc) {
        shoal_error("study: no configuration file given; shoal study --help says more");
        return SHOAL_ERR_CONFIG;
    }
    study->config_path = argv[optind];
    study->overrides   = argv + optind + 1;
    study->noverrides  = argc - optind - 1;
    return SHOAL_OK;
}

static shoal_status_t load_config(session_t *session)
{
    static char    no_global[] = "batch.global=auto"; /* the grid gives the batch per rank */
    shoal_study_t *study       = &session->study;
    int            n           = study->noverrides;
    session->load_words  = calloc((size_t)n + 1, sizeof(*session->load_words));
    if (session->load_words == NULL) {
        shoal_error("no memory for the configuration");
        return SHOAL_ERR_NO_MEMORY;
    }
    memcpy(session->load_words, study->overrides, (size_t)n * sizeof(*session->load_words));
    session->load_words[n] = no_global;
    SHOAL_TRY(shoal_config_check_reread(study->config_path, "each row of a study reads it"));
    SHOAL_TRY(shoal_config_load(study->config_path, n + 1, session->load_words, &session->config));
    SHOAL_TRY(shoal_config_resolve(session->config, 1, &study->spec));
    json_t *config = shoal_config_to_json(session->config);
    study->config  = shoal_study_shared_keys(config);
    study->dir     = study->spec->run.dir;
    json_decref(config);

    const shoal_study_spec_t *grid  = &study->spec->study;
    size_t                    steps = grid->warmup + grid->steps;
    study->gate_steps               = grid->gate_steps < steps ? grid->gate_steps : steps;
    return SHOAL_OK;
}

/* Nodes of the allocation that this process is in; 0 outside of one. */
static size_t allocated_nodes(void)
{
    const char *nodes = getenv("SLURM_JOB_NUM_NODES");
    nodes             = nodes == NULL ? getenv("SLURM_NNODES") : nodes;
    return getenv("SLURM_JOB_ID") == NULL ? 0 : nodes == NULL ? 1 : strtoul(nodes, NULL, 10);
}

/* GPUs on each node of the allocation: a job script is told how many its node has, `salloc` only passes on what was asked for. */
static size_t allocated_gpus(void)
{
    const char *here = getenv("SLURM_GPUS_ON_NODE"), *asked = getenv("SLURM_GPUS_PER_NODE");
    const char *count = asked == NULL || strrchr(asked, ':') == NULL ? asked : strrchr(asked, ':') + 1; /* "4" or "h100:4" */
    return here != NULL ? strtoul(here, NULL, 10) : count != NULL ? strtoul(count, NULL, 10) : 0;
}

/*
 * How the job asked for its GPUs is no matter of a row, which asks for its own, and srun would take each of these for the row's as well:
 * --gpus is more than one node has, --ntasks-per-gpu contradicts --ntasks-per-node, and the others show a task one GPU only.
 */
static void forget_gpu_options(void)
{
    static const char *const options[] = {"SLURM_GPUS",     "SLURM_GPUS_PER_TASK",  "SLURM_GPUS_PER_SOCKET", "SLURM_NTASKS_PER_GPU",
                                          "SLURM_GPU_BIND", "SLURM_TRES_PER_TASK", "SLURM_TRES_BIND"};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        unsetenv(options[i]);
    }
}

static shoal_status_t find_program(shoal_study_t *study)
{
    ssize_t n = readlink("/proc/self/exe", study->program, sizeof(study->program) - 1);
    if (n < 0) {
        shoal_error("cannot find this program's file: /proc/self/exe: %s", strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    study->program[n] = '\0';
    study->nodes_held = allocated_nodes();
    study->slurm      = study->nodes_held > 0;
    study->gpus_held  = study->slurm ? allocated_gpus() : 0;
    if (study->gpus_held > 0) {
        forget_gpu_options();
    }
    return SHOAL_OK;
}

/* Two studies in one directory would overwrite each other's rows. */
static shoal_status_t lock_dir(session_t *session)
{
    char path[PATH_MAX];
    SHOAL_TRY(shoal_file_make_directory(session->study.dir));
    snprintf(path, sizeof(path), "%s/.lock", session->study.dir);
    session->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (session->lock_fd < 0) {
        shoal_error("cannot open %s: %s", path, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    if (flock(session->lock_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        shoal_error("another shoal study is running in %s", session->study.dir);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK; /* a file system without locks: the user's care */
}

/* What failed in an earlier call gets another chance in this one. */
static void reset_unfinished(shoal_study_t *study)
{
    for (size_t i = 0; i < study->nrows; i++) {
        shoal_study_row_t *row = &study->rows[i];
        row->verdict = row->in_grid && !shoal_verdict_is_final(row->verdict) ? SHOAL_VERDICT_PENDING : row->verdict;
    }
    for (size_t i = 0; i < study->nreferences; i++) {
        shoal_study_row_t *row = &study->references[i];
        row->verdict           = shoal_verdict_is_final(row->verdict) ? row->verdict : SHOAL_VERDICT_PENDING;
    }
}

/* ---- The loop ---- */

static shoal_status_t run_row(shoal_study_t *study, shoal_study_row_t *row)
{
    shoal_study_run_t run;
    SHOAL_TRY(shoal_study_run_start(study, row, false, 0, &run));
    while (!shoal_study_run_poll(study, &run)) {
        int signal         = shoal_job_event();
        study->stop_signal = signal != 0 ? signal : study->stop_signal;
    }
    /*
     * Somebody asked the row itself, not us: Slurm signals all steps of a job unless told otherwise. It means the
     * whole study.
     */
    if (row->verdict == SHOAL_VERDICT_STOPPED && study->stop_signal == 0) {
        study->stop_signal = SIGUSR1;
    }
    return SHOAL_OK;
}

static bool fits_allocation(const shoal_study_t *study, shoal_study_row_t *row)
{
    bool fits = !study->slurm || row->nodes <= study->nodes_held;
    if (!fits) {
        row->verdict = SHOAL_VERDICT_PENDING;
        snprintf(row->detail, sizeof(row->detail), "needs %zu nodes, this allocation has %zu", row->nodes, study->nodes_held);
    }
    return fits;
}

/* Whatever the row still needs: a run, a comparison, nothing. */
static shoal_status_t finish_row(shoal_study_t *study, shoal_study_row_t *row)
{
    if (!shoal_verdict_is_final(row->verdict) && fits_allocation(study, row)) {
        SHOAL_TRY(run_row(study, row));
    }
    if (row->verdict == SHOAL_VERDICT_OK && row->gate.kind == SHOAL_GATE_NONE) {
        row->detail[0] = '\0';
        SHOAL_TRY(shoal_study_gate(study, row));
    }
    return shoal_study_save(study);
}

static size_t count_grid(const shoal_study_t *study)
{
    size_t count = 0;
    for (size_t i = 0; i < study->nrows; i++) {
        count += study->rows[i].in_grid;
    }
    return count;
}

static shoal_status_t run_rows(shoal_study_t *study)
{
    size_t index = 0, count = count_grid(study);
    for (size_t i = 0; i < study->nrows && study->stop_signal == 0; i++) {
        shoal_study_row_t *row = &study->rows[i];
        if (row->in_grid) {
            SHOAL_TRY(finish_row(study, row));
            shoal_study_print_row(study, row, ++index, count);
        }
    }
    return SHOAL_OK;
}

static bool is_complete(const shoal_study_t *study)
{
    for (size_t i = 0; i < study->nrows; i++) {
        if (study->rows[i].in_grid && !shoal_verdict_is_final(study->rows[i].verdict)) {
            return false;
        }
    }
    for (size_t i = 0; i < study->nreferences; i++) {
        if (study->references[i].in_grid && !shoal_verdict_is_final(study->references[i].verdict)) {
            return false;
        }
    }
    return true;
}

static shoal_status_t run_study(session_t *session)
{
    shoal_study_t *study = &session->study;
    SHOAL_TRY(lock_dir(session));
    SHOAL_TRY(shoal_study_load(study));
    reset_unfinished(study);
    SHOAL_TRY(shoal_study_save(study));
    shoal_job_setup();
    SHOAL_TRY(shoal_study_run_references(study));
    SHOAL_TRY(run_rows(study));
    if (study->stop_signal != 0) {
        shoal_info("stopped by signal %d; the same command continues", study->stop_signal);
        return SHOAL_ERR_STOPPED;
    }
    return shoal_report_write(study->dir);
}

static shoal_status_t print_commands(const shoal_study_t *study)
{
    for (size_t i = 0; i < study->nrows; i++) {
        char            dir[PATH_MAX];
        shoal_command_t command;
        SHOAL_TRY(shoal_study_run_dir(study, study->rows[i].name, false, dir));
        SHOAL_TRY(shoal_command_build(study, &study->rows[i], dir, 0, false, &command));
        shoal_command_print(&command, stdout);
        shoal_command_free(&command);
    }
    return SHOAL_OK;
}

static shoal_status_t run_session(session_t *session, int argc, char **argv)
{
    SHOAL_TRY(parse_words(session, argc, argv));
    if (session->wants_help) {
        fputs(help, stdout);
        return SHOAL_OK;
    }
    SHOAL_TRY(load_config(session));
    SHOAL_TRY(find_program(&session->study));
    SHOAL_TRY(shoal_study_expand(&session->study));
    return session->dry_run ? print_commands(&session->study) : run_study(session);
}

int shoal_cmd_study(int argc, char **argv)
{
    session_t      session = {.lock_fd = -1};
    signal(SIGPIPE, SIG_IGN); /* who reads the lines of rows may leave; the study goes on */
    shoal_study_t *study   = &session.study;
    study->srun_args       = calloc((size_t)argc + 1, sizeof(*study->srun_args)); /* at most every word */
    shoal_status_t status  = study->srun_args == NULL ? SHOAL_ERR_NO_MEMORY : run_session(&session, argc, argv);
    int exit_code = shoal_status_exit_code(status);
    if (status == SHOAL_OK && !session.dry_run && !is_complete(study)) {
        exit_code = 1;
    }
    if (session.lock_fd >= 0) {
        close(session.lock_fd);
    }
    json_decref(study->config);
    shoal_config_free(session.config);
    free(session.load_words);
    free(study->srun_args);
    free(study->rows);
    free(study->references);
    return exit_code;
}
