/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside an allocation a row is a job step. The options of srun, and why:
 *   --mpi=pmix          how ranks find each other; never left to the site's default, which is often "none": N worlds of one
 *   --kill-on-bad-exit  a rank that fails ends the row, instead of leaving the others to wait for it
 *   --nodes, --ntasks, --ntasks-per-node, --relative, --distribution
 *                       all given, because srun fills each one that is not from the job script's environment
 *   --cpu-bind=none     ranks bind their threads themselves
 *   --gpus-per-node     a GPU for each task, all of them open to all tasks of the node: tasks that are bound to one GPU each cannot
 *                       copy from one to the other. No --gpu-bind, not even "none": with that, Slurm 22.05 tells tasks of no GPU
 * No --overlap: timed rows run alone, and a step that still cleans up must not disturb the next. Sites that need more words
 * add them with --srun-arg; a later option wins.
 */
#include "src/study/command.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static void add(shoal_command_t *command, const char *word)
{
    char **words = realloc(command->words, (command->n + 2) * sizeof(*words));
    char  *copy  = word == NULL ? NULL : strdup(word);
    if (words != NULL) {
        command->words = words;
    }
    if (words == NULL || copy == NULL) {
        free(copy);
        command->failed = true;
        return;
    }
    words[command->n++] = copy;
    words[command->n]   = NULL;
}

static void __attribute__((format(printf, 2, 3))) addf(shoal_command_t *command, const char *format, ...)
{
    char    word[PATH_MAX + 64];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(word, sizeof(word), format, args);
    va_end(args);
    add(command, n < 0 || n >= (int)sizeof(word) ? NULL : word);
}

static void add_srun(shoal_command_t *command, const shoal_study_t *study, const shoal_study_row_t *row, size_t node)
{
    add(command, "srun");
    add(command, "--mpi=pmix");
    add(command, "--kill-on-bad-exit=1");
    addf(command, "--nodes=%zu", row->nodes);
    addf(command, "--ntasks=%zu", row->ranks);
    addf(command, "--ntasks-per-node=%zu", row->ranks_per_node);
    add(command, "--distribution=block");
    addf(command, "--relative=%zu", node);
    add(command, "--cpu-bind=none");
    if (study->gpus_held > 0) {
        addf(command, "--gpus-per-node=%zu", row->ranks_per_node < study->gpus_held ? row->ranks_per_node : study->gpus_held);
    }
    addf(command, "--job-name=%s", row->name);
    for (int i = 0; i < study->nsrun_args; i++) {
        add(command, study->srun_args[i]);
    }
}

static void add_program(shoal_command_t *command, const shoal_study_t *study)
{
    if (study->train_command != NULL) {
        add(command, study->train_command);
    } else {
        add(command, study->program);
        add(command, "train");
    }
}

static void add_config(shoal_command_t *command, const shoal_study_t *study, const shoal_study_row_t *row, const char *run_dir)
{
    add(command, study->config_path);
    for (int i = 0; i < study->noverrides; i++) {
        add(command, study->overrides[i]);
    }
    addf(command, "run.dir=%s", run_dir);
    addf(command, "run.steps=%zu", study->spec->study.warmup + study->spec->study.steps);
    addf(command, "run.seed=%llu", (unsigned long long)row->seed);
    addf(command, "batch.local=%zu", row->local);
    addf(command, "batch.accumulate=%zu", row->accumulate);
    add(command, "batch.global=auto");
    addf(command, "parallel.shard=%s", shoal_shard_name(row->shard));
}

shoal_status_t shoal_command_build(const shoal_study_t *study, const shoal_study_row_t *row, const char *run_dir, size_t node,
                                   bool reference, shoal_command_t *command_p)
{
    shoal_command_t command = {.n = 0};
    if (study->slurm) {
        add_srun(&command, study, row, node);
    }
    add_program(&command, study);
    if (!study->slurm) {
        add(&command, "-n");
        addf(&command, "%zu", row->ranks);
    }
    add_config(&command, study, row, run_dir);
    if (reference) {
        add(&command, "run.eval_every=0");
        add(&command, "run.trace_step=0");
    }
    if (command.failed) {
        shoal_error("no memory for the command of %s", row->name);
        shoal_command_free(&command);
        return SHOAL_ERR_NO_MEMORY;
    }
    *command_p = command;
    return SHOAL_OK;
}

void shoal_command_free(shoal_command_t *command)
{
    for (size_t i = 0; i < command->n; i++) {
        free(command->words[i]);
    }
    free(command->words);
    *command = (shoal_command_t){.n = 0};
}

static void print_quoted(const char *word, FILE *file)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=./:,+@%";
    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        fputs(word, file);
        return;
    }
    fputc('\'', file);
    for (; *word != '\0'; word++) {
        fputs(*word == '\'' ? "'\\''" : (const char[]){*word, '\0'}, file);
    }
    fputc('\'', file);
}

void shoal_command_print(const shoal_command_t *command, FILE *file)
{
    for (size_t i = 0; i < command->n; i++) {
        fputs(i == 0 ? "" : " ", file);
        print_quoted(command->words[i], file);
    }
    fputc('\n', file);
}
