/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal plan`: what a run needs and should take, without running it: bytes per rank by category, the predicted step, and on request
 * the schedule itself or its timeline. It emits the same programs as `train`, for a rank of a world that need not exist.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/affinity.h"
#include "runtime/cost.h"
#include "runtime/trace.h"
#include "runtime/trainer.h"
#include "src/commands.h"
#include "src/summary.h"

typedef struct {
    int         nranks, rank;
    bool        schedule, json;
    const char *trace_dir;
} options_t;

static void print_usage(FILE *to)
{
    fputs("Usage: shoal plan [-n RANKS] [-r RANK] [--schedule] [--trace DIR] [--json] CONFIG [group.key=value ...]\n"
          "Say what a run needs, without running it: bytes per rank by category and the predicted time of a step.\n\n"
          "  -n RANKS      ranks of the run (default 1)\n"
          "  -r RANK       whose plan (default 0; shards are equal, so plans differ in offsets only)\n"
          "  --schedule    also print the program, one op a line\n"
          "  --trace DIR   also write DIR/plan.json, the predicted timeline, for ui.perfetto.dev\n"
          "  --json        print one JSON object instead\n"
          "  --help        print this help and exit\n\n"
          "Times assume machine.flops, machine.memory_gbs and machine.link_gbs; the first two are measured here when 0.\n",
          to);
}

static void print_memory(const shoal_step_t *step)
{
    printf("bytes per rank\n");
    for (int m = 0; m < SHOAL_MEMORY_COUNT; m++) {
        printf("  %-14s %15zu  %10.2f MiB\n", shoal_memory_name((shoal_memory_t)m), step->memory_nbytes[m],
               (double)step->memory_nbytes[m] * 0x1p-20);
    }
    printf("  %-14s %15zu  %10.2f MiB  (arena space that no buffer fills at its fullest moment)\n", "slack", step->slack_nbytes,
           (double)step->slack_nbytes * 0x1p-20);
    printf("  %-14s %15zu  %10.2f MiB\n\n", "total", step->total_nbytes, (double)step->total_nbytes * 0x1p-20);
}

static void print_time(const shoal_step_t *step, const shoal_machine_spec_t *machine, const shoal_times_t *times)
{
    double tokens  = (double)step->spec->batch.global * (double)step->spec->model.seq;
    double comm    = times->busy[SHOAL_LANE_GATHER] + times->busy[SHOAL_LANE_REDUCE];
    double exposed = times->exposed[SHOAL_LANE_GATHER] + times->exposed[SHOAL_LANE_REDUCE];
    printf("predicted step, at %.1f Gflop/s, %.1f GB/s of memory", machine->flops * 1e-9, machine->memory_gbs);
    if (step->nranks > 1 && machine->link_gbs > 0.0) {
        printf(", %.3f GB/s of link\n", machine->link_gbs);
    } else {
        printf("%s\n", step->nranks > 1 ? "; machine.link_gbs is 0, so collectives cost their latency only" : "");
    }
    printf("  %-14s %10.2f ms\n", "step", times->total);
    printf("  %-14s %10.2f ms, of it optimizer %.2f ms\n", "compute", times->busy[SHOAL_LANE_COMPUTE], times->optimizer);
    printf("  %-14s %10.2f ms, exposed %.2f ms\n", "communication", comm, exposed);
    printf("  %-14s %10.0f tokens/s over all ranks\n", "throughput", tokens / (times->total * 1e-3));
}

static shoal_status_t print_json(const shoal_step_t *step, const shoal_machine_spec_t *machine, const shoal_times_t *times)
{
    json_t *plan = json_pack("{s:i, s:o, s:I, s:i, s:f, s:f, s:{s:f, s:f, s:f}}", "ranks", step->nranks, "bytes", shoal_summary_memory(step),
                             "total_nbytes", (json_int_t)step->total_nbytes, "ops", (int)step->train.nnodes, "predicted_step_ms",
                             times->total, "predicted_exposed_ms", times->exposed[SHOAL_LANE_GATHER] + times->exposed[SHOAL_LANE_REDUCE],
                             "machine", "flops", machine->flops, "memory_gbs", machine->memory_gbs, "link_gbs", machine->link_gbs);
    if (plan == NULL || json_dumpf(plan, stdout, JSON_INDENT(2)) != 0) {
        shoal_error("plan: cannot print the JSON");
        json_decref(plan);
        return SHOAL_ERR_DATA;
    }
    putchar('\n');
    json_decref(plan);
    return SHOAL_OK;
}

static shoal_status_t predict(const shoal_step_t *step, shoal_device_t *device, const options_t *options)
{
    shoal_machine_spec_t machine = step->spec->machine;
    shoal_times_t        times;
    size_t               n        = (size_t)step->train.nnodes;
    int64_t             *stamps   = calloc(2 * n + 1, sizeof(*stamps));
    shoal_op_times_t     op_times = {stamps, stamps + n};
    shoal_status_t       status   = stamps != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
    if (status == SHOAL_OK) {
        status = shoal_cost_complete(device, step->spec->precision.compute, &machine);
    }
    if (status == SHOAL_OK) {
        status = shoal_cost_predict(&step->train, &machine, step->nranks, &times, &op_times);
    }
    if (status == SHOAL_OK && options->json) {
        status = print_json(step, &machine, &times);
    } else if (status == SHOAL_OK) {
        print_memory(step);
        print_time(step, &machine, &times);
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
    SHOAL_TRY(shoal_affinity_settle(0, 1, (int)spec->run.threads, &affinity));
    shoal_device_config_t config = shoal_device_config(spec, 0, affinity.nthreads);
    config.plan_only             = true;
    SHOAL_TRY(shoal_device_open(spec->run.device, &config, &device));
    shoal_status_t status = shoal_transport_find(spec->parallel.transport, options->nranks, device->ops->stream != NULL, &transport);
    if (status == SHOAL_OK) {
        status = shoal_step_create(spec, options->nranks, options->rank, device, transport, &step);
    }
    if (status == SHOAL_OK) {
        status = predict(&step, device, options);
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
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "+hn:r:", options, NULL)) != -1) {
        switch (option) {
        case 'h': print_usage(stdout); return 1;
        case 's': options_p->schedule = true; break;
        case 'j': options_p->json = true; break;
        case 't': options_p->trace_dir = optarg; break;
        case 'n': options_p->nranks = atoi(optarg); break;
        case 'r': options_p->rank = atoi(optarg); break;
        default: return -1;
        }
    }
    if (options_p->nranks < 1 || options_p->rank < 0 || options_p->rank >= options_p->nranks) {
        shoal_error("plan: -n expects a positive number of ranks, -r a rank below it");
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
