/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal plan`: what a run needs and should take, without running it: bytes per rank by category, the predicted step, and on request
 * the schedule itself or its timeline. It emits the same programs as `train`, for a rank of a world that need not exist.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/bootstrap/affinity.h"
#include "runtime/execute/cost.h"
#include "runtime/execute/trace.h"
#include "runtime/execute/trainer.h"
#include "src/commands.h"
#include "src/config/config.h"
#include "src/config/option.h"
#include "src/plan_print.h"

typedef struct {
    int         nranks, rank;
    bool        schedule, json;
    const char *trace_dir;
} options_t;

static void print_usage(FILE *to)
{
    fputs("Usage: shoal plan [-n RANKS] [-r RANK] [--schedule] [--trace DIR] [--json] CONFIG "
          "[group.key=value ...]\n"
          "Say what a run needs, without running it: bytes per rank by category and the predicted "
          "time of a step.\n\n"
          "  -n RANKS      ranks of the run (default 1)\n"
          "  -r RANK       whose plan (default 0; shards are equal, so plans differ in offsets "
          "only)\n"
          "  --schedule    also print the program, one op a line\n"
          "  --trace DIR   also write DIR/plan.json, the predicted timeline, for ui.perfetto.dev\n"
          "  --json        print one JSON object instead\n"
          "  --help        print this help and exit\n\n"
          "Kernels of the CPU need scratch memory for each thread: the plan is for the threads "
          "that `shoal train -n RANKS`\n"
          "would give a rank on this host, and says how many; run.threads decides it where a job "
          "will run elsewhere.\n"
          "A plan that does not fit into run.memory_gib, or the device, is printed and called so; "
          "one that no machine\n"
          "could hold is refused with exit code 3.\n"
          "What times assume of the machine is printed with them, and where it is from; the keys "
          "machine.* set it. The GPU\n"
          "that is planned for with run.device=cuda is machine.gpu; how ranks lie on nodes, "
          "machine.ranks_per_node.\n",
          to);
}

static size_t env_count(const char *name)
{
    const char *text = getenv(name);
    char       *end  = NULL;
    long        n    = text != NULL ? strtol(text, &end, 10) : 0;
    return n > 0 && n < 1 << 12 && *end == '\0' ? (size_t)n : 0;
}

/*
 * How the ranks lie on nodes: as the configuration says, else as the job would start them in which
 * this runs.
 */
static shoal_cost_layout_t layout_of(const shoal_step_t *step, bool gpu)
{
    size_t given = step->spec->machine.ranks_per_node, tasks = env_count("SLURM_NTASKS_PER_NODE");
    if (given > 0) {
        return (shoal_cost_layout_t){step->nranks, (int)given, SHOAL_SOURCE_USER};
    }
    tasks = tasks == 0 && gpu ? env_count("SLURM_GPUS_ON_NODE") : tasks;
    return (shoal_cost_layout_t){step->nranks, (int)tasks, SHOAL_SOURCE_LAUNCHER};
}

static shoal_status_t predict(const shoal_plan_view_t *view_p, const options_t *options)
{
    shoal_plan_view_t    view     = *view_p;
    const shoal_step_t  *step     = view.step;
    size_t               n        = (size_t)step->train.nnodes;
    int64_t             *stamps   = calloc(2 * n + 1, sizeof(*stamps));
    shoal_op_times_t     op_times = {stamps, stamps + n};
    shoal_cost_layout_t  layout   = layout_of(step, view.device->ops->stream != NULL);
    shoal_status_t       status   = stamps != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
    if (status == SHOAL_OK) {
        status = shoal_cost_complete(view.device, step->spec->precision.compute,
                                     &step->spec->machine, &layout, &view.cost);
    }
    if (status == SHOAL_OK) {
        status = shoal_cost_predict(&step->train, &view.cost, &view.times, &op_times);
    }
    if (status == SHOAL_OK) {
        status = options->json ? shoal_plan_print_json(&view) : shoal_plan_print(&view);
    }
    if (status == SHOAL_OK && options->trace_dir != NULL) {
        shoal_timeline_t timeline = {"predicted", options->rank, op_times};
        status                    = shoal_trace_write(options->trace_dir, "plan.json", &step->train, &timeline, 1);
    }
    free(stamps);
    return status;
}

static shoal_status_t plan(const shoal_spec_t *spec, const options_t *options)
{
    const shoal_transport_ops_t *transport;
    shoal_device_t              *device;
    shoal_step_t                 step;
    shoal_affinity_t             affinity;
    /* The rule of a run: a rank's threads are its share of this host, and so is what is measured. */
    SHOAL_TRY(shoal_affinity_settle(options->rank, options->nranks, (int)spec->run.threads,
                                    &affinity));
    shoal_device_config_t config = shoal_device_config(spec, 0, affinity.nthreads);
    config.plan_only             = true;
    SHOAL_TRY(shoal_device_open(spec->run.device, &config, &device));
    bool           on_gpu = device->ops->stream != NULL;
    shoal_status_t status = shoal_transport_find(spec->parallel.transport, options->nranks, on_gpu, &transport);
    if (status == SHOAL_OK) { /* What does not fit into run.memory_gib is planned all the same, and said. */
        status = shoal_step_check(spec, options->nranks, on_gpu, INFINITY, true);
    }
    if (status == SHOAL_OK) {
        status = shoal_step_create(spec, options->nranks, options->rank, device, transport, &step);
    }
    if (status == SHOAL_OK) {
        shoal_plan_view_t view = {.step = &step, .device = device, .affinity = affinity};
        device->ops->info(device, &view.info);
        view.reserve_nbytes = shoal_reserve_nbytes(spec, &view.info, transport, options->nranks);
        status              = predict(&view, options);
        if (options->schedule) {
            putchar('\n');
            shoal_program_print(&step.train, stdout);
        }
        shoal_step_destroy(&step);
    }
    device->ops->close(device);
    return status;
}

/* 0: go on, 1: help was printed, -1: bad usage, which has been logged. */
static int parse(int argc, char **argv, options_t *options_p)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'},     {"schedule", no_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},     {"trace", required_argument, NULL, 't'},
                                            {"ranks", required_argument, NULL, 'n'}, {"rank", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    const char *rank = NULL; /* read when the number of ranks is known */
    int         option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "+hn:r:", options, NULL)) != -1) {
        switch (option) {
        case 'h': print_usage(stdout); return 1;
        case 's': options_p->schedule = true; break;
        case 'j': options_p->json = true; break;
        case 't': options_p->trace_dir = optarg; break;
        case 'n':
            if (shoal_option_int("plan", "-n", optarg, 1, SHOAL_OPTION_MAX_RANKS, &options_p->nranks) != SHOAL_OK) {
                return -1;
            }
            break;
        case 'r': rank = optarg; break;
        default: return -1;
        }
    }
    if (rank != NULL && shoal_option_int("plan", "-r", rank, 0, options_p->nranks - 1, &options_p->rank) != SHOAL_OK) {
        return -1;
    }
    if (optind >= argc) {
        shoal_error("plan: no configuration file given; see shoal plan --help");
        return -1;
    }
    return 0;
}

int shoal_cmd_plan(int argc, char **argv)
{
    options_t           options = {.nranks = 1};
    shoal_config_t     *config;
    const shoal_spec_t *spec;
    int                 parsed = parse(argc, argv, &options);
    if (parsed != 0) {
        return parsed > 0 ? 0 : shoal_status_exit_code(SHOAL_ERR_CONFIG);
    }
    shoal_status_t status = shoal_config_load(argv[optind], argc - optind - 1, argv + optind + 1, &config);
    if (status == SHOAL_OK) {
        status = shoal_config_resolve(config, options.nranks, &spec);
        status = status == SHOAL_OK ? plan(spec, &options) : status;
        shoal_config_free(config);
    }
    return shoal_status_exit_code(status);
}
