/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal train`: one rank of a run, or with -n N all of them on this host. The configuration is
 * read by the process that starts the ranks, or by rank 0 first, so that a mistake in it is
 * reported once; then every rank assembles its part, steps, and rank 0 tells the story on the
 * terminal.
 */
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/start.h"
#include "base/time.h"
#include "runtime/execute/trace.h"
#include "src/commands.h"
#include "src/config/option.h"
#include "src/live.h"
#include "src/summary.h"

typedef struct {
    const char         *path;
    int                 noverrides;
    char              **overrides;
    shoal_config_t     *config; /* read by the process that started the ranks with -n, or NULL */
    const shoal_spec_t *spec;
} arguments_t;

/* A run under way. */
typedef struct {
    shoal_config_t     *config;
    const shoal_spec_t *spec;
    shoal_bootstrap_t  *bootstrap;
    shoal_trainer_t     trainer;
    shoal_record_t     *record;
    shoal_live_t       *live;
    shoal_outcome_t     outcome;
    size_t              heap_nbytes; /* in use after step 2 */
} run_t;

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

static double wall_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Rank 0 reads the configuration first: only when it is good do the others read it, so an error is logged once. */
static shoal_status_t load_config(run_t *run, const arguments_t *arguments)
{
    shoal_peers_t  peers  = shoal_bootstrap_peers(run->bootstrap);
    shoal_status_t status = SHOAL_OK;
    if (arguments->config != NULL) {
        run->config = arguments->config;
        run->spec   = arguments->spec;
        return SHOAL_OK;
    }
    run->bootstrap->stage = "reading the configuration";
    for (int turn = 0; turn < 2 && status == SHOAL_OK; turn++) {
        if ((peers.rank == 0) == (turn == 0)) {
            status = peers.size > 1 ? shoal_config_check_reread(arguments->path, "each rank reads it") : SHOAL_OK;
            if (status == SHOAL_OK) {
                status = shoal_config_load(arguments->path, arguments->noverrides, arguments->overrides, &run->config);
            }
            if (status == SHOAL_OK) {
                status = shoal_config_resolve(run->config, peers.size, &run->spec);
            }
        }
        status = shoal_trainer_agree(&peers, status);
    }
    return status;
}

static void announce(const run_t *run)
{
    const shoal_trainer_t *trainer = &run->trainer;
    const shoal_model_t   *model   = &trainer->step.model;
    shoal_info("%d rank%s on %d node%s by %s, transport %s, device %s, %s, %s", trainer->peers.size, trainer->peers.size == 1 ? "" : "s",
               run->bootstrap->nnodes, run->bootstrap->nnodes == 1 ? "" : "s", run->bootstrap->method, trainer->transport_ops->name,
               trainer->device_info.name, trainer->device_info.kernels, trainer->affinity.text);
    shoal_info("%s, %.2f M parameters (%.2f M without embedding and head), %zu layers, width %zu, sequence %zu; %zu sequences a step",
               model->spec.arch, (double)model->nparams * 1e-6, (double)(model->nparams - model->nparams_embedding) * 1e-6,
               model->spec.layers, model->spec.d_model, model->spec.seq, run->spec->batch.global);
    shoal_info("plan: %.1f MiB per rank, %d ops a step; %s, lr %.3g", (double)trainer->step.total_nbytes * 0x1p-20,
               trainer->step.train.nnodes, run->spec->optim.name, run->spec->optim.lr);
}

static shoal_status_t set_up(run_t *run)
{
    const shoal_spec_t *spec = run->spec;
    SHOAL_TRY(shoal_trainer_create(spec, run->bootstrap, &run->trainer));
    run->bootstrap->stage = "making the record directory";
    shoal_status_t status = shoal_record_open(spec->run.dir, run->trainer.peers.rank, &run->record);
    run->outcome.steps    = calloc(spec->run.steps + 1, sizeof(*run->outcome.steps));
    run->outcome.valid    = json_array();
    if (status == SHOAL_OK && run->outcome.steps == NULL) {
        shoal_error("no memory for the step records");
        status = SHOAL_ERR_NO_MEMORY;
    }
    if (status == SHOAL_OK && run->trainer.peers.rank == 0) {
        announce(run);
        status = shoal_live_create(STDOUT_FILENO, &run->live);
    }
    if (status == SHOAL_OK && run->trainer.peers.rank == 0) {
        status = shoal_summary_write_run(&run->trainer, run->config, NULL);
    }
    return shoal_trainer_agree(&run->trainer.peers, status);
}

/* After the first step, so that nothing of this stands between launch and step: the peak that MFU is of, and what was predicted. */
static shoal_status_t measure_machine(run_t *run)
{
    shoal_trainer_t      *trainer = &run->trainer;
    shoal_dtype_t         compute = run->spec->precision.compute;
    double                sheet   = compute == SHOAL_BF16 ? trainer->device_info.peak_bf16_flops : trainer->device_info.peak_f32_flops;
    int                 nnodes = run->bootstrap->nnodes;
    shoal_cost_layout_t layout = {trainer->peers.size, (trainer->peers.size + nnodes - 1) / nnodes,
                                  SHOAL_SOURCE_LAUNCHER};
    shoal_times_t         predicted;
    shoal_cost_t          cost;
    SHOAL_TRY(shoal_cost_complete(trainer->device, compute, &run->spec->machine, &layout, &cost));
    run->outcome.peak_flops = sheet > 0.0 ? sheet : cost.machine.flops;
    run->outcome.peak_source = sheet > 0.0 ? "dense peak of the data sheet" : "measured: a large matmul on this rank";
    SHOAL_TRY(shoal_cost_predict(&trainer->step.train, &cost, &predicted, NULL));
    return trainer->peers.rank == 0 ? shoal_summary_write_run(trainer, run->config, &predicted) : SHOAL_OK;
}

static size_t heap_in_use(void)
{
    struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}

static void show_step(run_t *run, const shoal_step_record_t *step)
{
    double tokens_per_s = (double)step->tokens * run->trainer.peers.size / (step->step_ms * 1e-3);
    double peak         = run->outcome.peak_flops;
    shoal_live_step_t shown = {
        .step             = step->step,
        .steps            = run->spec->run.steps,
        .loss             = step->loss,
        .tokens_per_s     = tokens_per_s,
        .mfu              = peak > 0.0 ? shoal_summary_mfu(&run->trainer, tokens_per_s, peak, true) : NAN,
        .exposed_fraction = (step->exposed_gather_ms + step->exposed_reduce_ms) / step->step_ms,
        .step_ms          = step->step_ms,
    };
    shoal_live_step(run->live, &shown);
}

static shoal_status_t validate(run_t *run, size_t t)
{
    const shoal_run_spec_t *spec = &run->spec->run;
    double                  loss;
    if (!run->trainer.step.has_eval || (t % spec->eval_every != 0 && t != spec->steps)) {
        return SHOAL_OK;
    }
    SHOAL_TRY(shoal_trainer_eval(&run->trainer, &loss));
    if (run->trainer.peers.rank == 0) {
        json_array_append_new(run->outcome.valid, json_pack("{s:I, s:f}", "step", (json_int_t)t, "loss", loss));
        shoal_live_clear(run->live);
        shoal_info("step %zu: validation loss %.6f", t, loss);
    }
    return SHOAL_OK;
}

static shoal_status_t trace(run_t *run, size_t t)
{
    const shoal_trainer_t *trainer = &run->trainer;
    char                   name[128], file[64];
    if (t != run->spec->run.trace_step) {
        return SHOAL_OK;
    }
    snprintf(name, sizeof(name), "rank %d on %s, step %zu", trainer->peers.rank, run->bootstrap->host, t);
    snprintf(file, sizeof(file), "trace-%05d.json", trainer->peers.rank);
    shoal_timeline_t timeline = {name, trainer->peers.rank, shoal_executor_op_times(trainer->executor, &trainer->step.train)};
    return shoal_trace_write(run->spec->run.dir, file, &trainer->step.train, &timeline, 1);
}

/* How many steps up to step t, without a gap, have a loss that is no finite number, counted to
 * `most`. It is the same on every rank. */
static size_t lost_steps(const run_t *run, size_t t, size_t most)
{
    size_t n = 0;
    while (n < t && n < most && !isfinite(run->outcome.steps[t - 1 - n].loss)) {
        n++;
    }
    return n;
}

/* Warns where it begins, and ends the run, on all ranks alike, when it has lasted for
 * run.nan_steps. */
static shoal_status_t watch_loss(const run_t *run, size_t t)
{
    size_t most = run->spec->run.nan_steps, n = lost_steps(run, t, most + 2);
    double loss = run->outcome.steps[t - 1].loss;
    if (n == 0) {
        return SHOAL_OK;
    }
    if (n == most) {
        if (run->trainer.peers.rank == 0) {
            shoal_live_clear(run->live);
            shoal_error("training diverged: the loss is no finite number since step %zu, at step "
                        "%zu it is %g (run.nan_steps = %zu; 0 goes on)",
                        t - n + 1, t, loss, most);
        }
        return SHOAL_ERR_DIVERGED;
    }
    if (n == 1 && run->trainer.peers.rank == 0) {
        shoal_live_clear(run->live);
        shoal_warn("step %zu: the loss is %g; training has diverged", t, loss);
    }
    return SHOAL_OK;
}

static shoal_status_t one_step(run_t *run, size_t t, bool *stopped_p)
{
    shoal_step_record_t *step = &run->outcome.steps[t - 1];
    run->trainer.stop         = stop_requested != 0;
    SHOAL_TRY(shoal_trainer_step(&run->trainer, t, step, stopped_p));
    run->outcome.nsteps = t;
    if (t == 1) {
        shoal_start_mark(SHOAL_START_STEP);
        run->outcome.first_step_ms = step->step_ms;
        SHOAL_TRY(measure_machine(run));
    }
    SHOAL_TRY(shoal_record_step(run->record, step));
    if (run->live != NULL) {
        show_step(run, step);
    }
    SHOAL_TRY(trace(run, t));
    SHOAL_TRY(validate(run, t));
    run->heap_nbytes = t <= 2 ? heap_in_use() : run->heap_nbytes;
    return watch_loss(run, t); /* last, so that the step's records are whole */
}

static shoal_status_t all_steps(run_t *run)
{
    bool           stopped = false;
    double         start   = wall_clock_s();
    size_t         in_use  = 0;
    shoal_status_t status  = SHOAL_OK;
    for (size_t t = 1; t <= run->spec->run.steps && !stopped && status == SHOAL_OK; t++) {
        status = one_step(run, t, &stopped);
    }
    if (status != SHOAL_OK && status != SHOAL_ERR_DIVERGED) {
        return status;
    }
    in_use                          = heap_in_use();
    run->outcome.elapsed_s          = wall_clock_s() - start;
    run->outcome.heap_growth_nbytes = in_use > run->heap_nbytes ? in_use - run->heap_nbytes : 0;
    if (status == SHOAL_OK && stopped && run->outcome.nsteps < run->spec->run.steps) {
        status = SHOAL_ERR_STOPPED;
    }
    return status;
}

static shoal_status_t summarize(run_t *run, shoal_status_t status)
{
    shoal_outcome_t *outcome = &run->outcome;
    size_t           warmup  = run->spec->study.warmup;
    run->bootstrap->stage    = "writing the summary";
    outcome->trainer         = &run->trainer;
    outcome->config          = run->config;
    outcome->status          = status;
    outcome->warmup          = warmup < outcome->nsteps ? warmup : outcome->nsteps > 0 ? outcome->nsteps - 1 : 0;
    shoal_status_t shown     = shoal_live_destroy(run->live);
    run->live                = NULL;
    SHOAL_TRY(shoal_summary_write(outcome));
    if (status == SHOAL_ERR_STOPPED && run->trainer.peers.rank == 0) {
        shoal_warn("stopped on request after step %zu of %zu; this version has no checkpoints, so the next run starts over", outcome->nsteps,
                   run->spec->run.steps);
    }
    if (status == SHOAL_OK) {
        return shown; /* the run is whole, and its records say so, but who looked on missed some of it */
    }
    /* A launcher may end the others as soon as one rank has failed: none leaves before the summary
     * is written. */
    return shoal_trainer_agree(&run->trainer.peers, status);
}

static shoal_status_t execute(run_t *run, const arguments_t *arguments)
{
    shoal_status_t status = load_config(run, arguments);
    shoal_start_mark(SHOAL_START_CONFIG);
    if (status == SHOAL_OK) {
        status = set_up(run);
        shoal_start_mark(SHOAL_START_RECORDS);
    }
    if (status != SHOAL_OK && status != SHOAL_ERR_PEER) {
        return status; /* as all ranks do: they have agreed on it */
    }
    if (status == SHOAL_OK) {
        status = all_steps(run);
    }
    if (status == SHOAL_OK || status == SHOAL_ERR_STOPPED || status == SHOAL_ERR_DIVERGED) {
        return summarize(run, status);
    }
    /* Peers may be inside a collective: an orderly end is no longer possible, a quick one is. */
    (void)shoal_live_destroy(run->live);
    run->bootstrap->ops->abort(run->bootstrap, shoal_status_exit_code(status), shoal_status_string(status));
    _exit(shoal_status_exit_code(status));
}

static void tear_down(run_t *run)
{
    (void)shoal_live_destroy(run->live);
    shoal_record_close(run->record);
    shoal_trainer_destroy(&run->trainer);
    free(run->outcome.steps);
    json_decref(run->outcome.valid);
    shoal_config_free(run->config);
    shoal_bootstrap_close(run->bootstrap);
}

/* A study that started this run waits for a sign that its ranks are there; it names the file. Its
 * records are one as well. */
static void show_life(const shoal_bootstrap_t *bootstrap)
{
    const char *path = getenv("SHOAL_STUDY_STARTED");
    if (path == NULL || bootstrap->rank != 0) {
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) {
        close(fd);
    }
}

static int rank_main(void *argument)
{
    const arguments_t *arguments = argument;
    run_t              run       = {0};
    struct sigaction   action    = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    shoal_status_t status = shoal_bootstrap_open("auto", &run.bootstrap);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    shoal_log_set_rank(run.bootstrap->rank, run.bootstrap->host);
    shoal_start_mark(SHOAL_START_BOOTSTRAP);
    if (run.bootstrap->rank == 0) {
        shoal_start_warn();
    }
    show_life(run.bootstrap);
    status = execute(&run, arguments);
    tear_down(&run);
    return shoal_status_exit_code(status);
}

static void print_usage(FILE *to)
{
    fputs("Usage: shoal train [-n RANKS] CONFIG [group.key=value ...]\n"
          "Train a model. Under srun or mpirun every process is one rank; -n starts RANKS ranks on "
          "this host.\n\n"
          "  -n RANKS   ranks to start on this host\n"
          "  --help     print this help and exit\n\n"
          "Records go to run.dir: rank-NNNNN.jsonl, run.json, summary.json and, with run.trace_step, trace-NNNNN.json\n"
          "for ui.perfetto.dev. SIGUSR1 and SIGTERM end the run after the step under way, with exit status 75; run.nan_steps\n"
          "steps in a row without a finite loss end it with exit status 1. A progress line that cannot be written ends\n"
          "nothing; the exit status is 6 at the end, unless the reader of a pipe has left.\n",
          to);
}

static int parse(int argc, char **argv, arguments_t *arguments_p, int *nranks_p)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"ranks", required_argument, NULL, 'n'}, {NULL, 0, NULL, 0}};
    int                        option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "+hn:", options, NULL)) != -1) {
        if (option == 'h') {
            print_usage(stdout);
            return 1;
        }
        if (option != 'n' || shoal_option_int("train", "-n", optarg, 1,
                                              SHOAL_OPTION_MAX_LOCAL_RANKS, nranks_p) != SHOAL_OK) {
            return -1;
        }
    }
    if (optind >= argc) {
        shoal_error("train: no configuration file given; see shoal train --help");
        return -1;
    }
    *arguments_p = (arguments_t){
        .path = argv[optind], .noverrides = argc - optind - 1, .overrides = argv + optind + 1};
    return 0;
}

/*
 * All ranks on this host. The configuration is read before the fork, so that a mistake in it costs
 * no ranks, and because it says how long ranks may take to find each other.
 */
static int launch(int nranks, arguments_t *arguments)
{
    shoal_status_t status = shoal_config_load(arguments->path, arguments->noverrides,
                                              arguments->overrides, &arguments->config);
    if (status == SHOAL_OK) {
        status = shoal_config_resolve(arguments->config, nranks, &arguments->spec);
    }
    int exit_code = shoal_status_exit_code(status);
    if (status == SHOAL_OK) {
        shoal_bootstrap_set_patience((double)arguments->spec->run.timeout_s);
        exit_code = shoal_bootstrap_launch_local(nranks, rank_main, arguments);
    }
    shoal_config_free(arguments->config);
    return exit_code;
}

int shoal_cmd_train(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader of the progress lines may leave; the run goes on */
    arguments_t arguments;
    shoal_start_begin();
    int nranks = 0, parsed = parse(argc, argv, &arguments, &nranks);
    if (parsed != 0) {
        return parsed > 0 ? 0 : shoal_status_exit_code(SHOAL_ERR_CONFIG);
    }
    return nranks > 1 ? launch(nranks, &arguments) : rank_main(&arguments);
}
