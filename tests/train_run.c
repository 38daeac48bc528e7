/* SPDX-License-Identifier: BSD-3-Clause */
/* The ranks run what `shoal train` runs, less the records: configuration, trainer, steps, validation. */
#include "tests/train_run.h"

#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/execute/trainer.h"
#include "src/config/config.h"

void (*train_run_after_step)(size_t step);
bool train_run_orderly;
shoal_bootstrap_t *train_run_world;

typedef struct {
    const char *const *words;
    int                nwords;
    train_run_t       *shared;
} job_t;

static size_t heap_in_use(void)
{
    struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}

static shoal_status_t steps(shoal_trainer_t *trainer, size_t nsteps, train_run_t *run)
{
    size_t heap_nbytes = 0;
    for (size_t t = 1; t <= nsteps && t <= TRAIN_RUN_MAX_STEPS; t++) {
        shoal_step_record_t record;
        bool                stopped;
        SHOAL_TRY(shoal_trainer_step(trainer, t, &record, &stopped));
        if (trainer->step.has_eval && t < nsteps && t % trainer->spec->run.eval_every == 0) {
            double loss;
            SHOAL_TRY(shoal_trainer_eval(trainer, &loss));
        }
        if (train_run_after_step != NULL) {
            train_run_after_step(t);
        }
        run->losses[t - 1]     = record.loss;
        run->grad_norms[t - 1] = record.grad_norm;
        run->nsteps            = t;
        heap_nbytes            = t <= 2 ? heap_in_use() : heap_nbytes;
    }
    size_t end              = heap_in_use();
    run->heap_growth_nbytes = end > heap_nbytes ? end - heap_nbytes : 0;
    run->valid_loss         = NAN;
    return trainer->step.has_eval ? shoal_trainer_eval(trainer, &run->valid_loss) : SHOAL_OK;
}

/* The specification is the configuration's, but its device's name is only read later. */
static void choose_device(const shoal_spec_t *spec)
{
    const char *asked = getenv("SHOAL_TEST_DEVICE");
    if (asked != NULL && strcmp(spec->run.device, "auto") == 0) {
        ((shoal_spec_t *)spec)->run.device = asked;
    }
}

/* After an error among steps, peers may be inside a collective: as `shoal train`, no orderly end is tried. */
static void end_job(shoal_bootstrap_t *bootstrap, shoal_status_t status)
{
    if (status != SHOAL_OK && !train_run_orderly) {
        bootstrap->ops->abort(bootstrap, shoal_status_exit_code(status), shoal_status_string(status));
        _exit(shoal_status_exit_code(status));
    }
}

static shoal_status_t train(const job_t *job, shoal_bootstrap_t *bootstrap)
{
    shoal_config_t     *config;
    const shoal_spec_t *spec;
    shoal_trainer_t     trainer;
    train_run_t         run = {0};
    SHOAL_TRY(shoal_config_load(NULL, job->nwords, (char *const *)job->words, &config));
    shoal_status_t status = shoal_config_resolve(config, bootstrap->size, &spec);
    if (status == SHOAL_OK) {
        choose_device(spec);
        status = shoal_trainer_create(spec, bootstrap, &trainer);
        if (status == SHOAL_OK) {
            status = steps(&trainer, spec->run.steps, &run);
            end_job(bootstrap, status);
        }
        run.plan_nbytes = trainer.step.total_nbytes;
        run.used_nbytes = trainer.used_nbytes;
        run.nops        = (size_t)trainer.step.train.nnodes;
        shoal_trainer_destroy(&trainer);
    }
    if (status == SHOAL_OK && bootstrap->rank == 0) {
        *job->shared = run;
    }
    shoal_config_free(config);
    return status;
}

static int rank_main(void *argument)
{
    shoal_bootstrap_t *bootstrap;
    shoal_status_t     status = shoal_bootstrap_open("auto", &bootstrap);
    if (status == SHOAL_OK) {
        train_run_world = bootstrap;
        status          = train(argument, bootstrap);
        shoal_bootstrap_close(bootstrap);
    }
    return shoal_status_exit_code(status);
}

int train_run(int nranks, const char *const *words, train_run_t *run_p)
{
    void *page = mmap(NULL, sizeof(train_run_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    job_t job  = {.words = words, .shared = page};
    if (page == MAP_FAILED) {
        return -1;
    }
    while (words[job.nwords] != NULL) {
        job.nwords++;
    }
    int code = shoal_bootstrap_launch_local(nranks, rank_main, &job);
    memcpy(run_p, page, sizeof(*run_p));
    munmap(page, sizeof(train_run_t));
    return code;
}

int train_run_with(int nranks, const char *const *base, train_run_t *run_p, const char *format, ...)
{
    char        text[1024];
    const char *words[TRAIN_RUN_MAX_WORDS + 1] = {NULL};
    int         n                              = 0;
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    while (base[n] != NULL && n < TRAIN_RUN_MAX_WORDS) {
        words[n] = base[n];
        n++;
    }
    for (char *word = strtok(text, " "); word != NULL && n < TRAIN_RUN_MAX_WORDS; word = strtok(NULL, " ")) {
        words[n++] = word;
    }
    return train_run(nranks, words, run_p);
}

double train_run_distance(const train_run_t *a, const train_run_t *b)
{
    double largest = a->nsteps == b->nsteps && a->nsteps > 0 ? 0.0 : INFINITY;
    for (size_t s = 0; s < a->nsteps && s < b->nsteps; s++) {
        double difference = fabs(a->losses[s] - b->losses[s]) / fabs(b->losses[s]);
        largest           = difference <= largest ? largest : isnan(difference) ? INFINITY : difference;
    }
    return largest;
}
