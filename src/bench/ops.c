/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench ops`: runs steps of a configuration, times every op of them on the device, and sets each kind and shape beside the
 * least that this device could take: its arithmetic at the rate of a large matmul, or its bytes at the rate of a large copy,
 * whichever is longer (the roofline of Williams, Waterman and Patterson, CACM 2009). The largest gap comes first.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/execute/cost.h"
#include "runtime/execute/trainer.h"
#include "src/bench/bench.h"
#include "src/config/config.h"
#include "src/config/option.h"

/* Ops of one kind and shape. */
typedef struct {
    shoal_op_kind_t kind;
    char            shape[64];
    int             count; /* in a step */
    double          ms, ideal_ms; /* of a step, all of them */
    double          flops, nbytes;
    bool            arithmetic; /* what bounds it */
} row_t;

typedef struct {
    int    nsteps, nwarmup;
    char  *path;
    int    noverrides;
    char **overrides;
} options_t;

typedef struct {
    options_t            options;
    shoal_bootstrap_t   *bootstrap;
    shoal_config_t      *config;
    const shoal_spec_t  *spec;
    shoal_trainer_t      trainer;
    shoal_machine_spec_t machine;
    double              *ms; /* (nnodes) summed over the steps */
    double               step_ms;
    row_t               *rows; /* room for one per node */
    int                  nrows;
} bench_t;

static row_t *row_of(bench_t *bench, const shoal_op_t *op)
{
    char shape[sizeof(bench->rows->shape)];
    shoal_op_describe(op, shape, sizeof(shape));
    for (int r = 0; r < bench->nrows; r++) {
        if (bench->rows[r].kind == op->kind && strcmp(bench->rows[r].shape, shape) == 0) {
            return &bench->rows[r];
        }
    }
    row_t *row = &bench->rows[bench->nrows++];
    row->kind  = op->kind;
    memcpy(row->shape, shape, sizeof(shape));
    return row;
}

/* Larger gaps first. */
static int compare_rows(const void *a, const void *b)
{
    double gap_a = ((const row_t *)a)->ms - ((const row_t *)a)->ideal_ms, gap_b = ((const row_t *)b)->ms - ((const row_t *)b)->ideal_ms;
    return (gap_a < gap_b) - (gap_a > gap_b);
}

static void gather_rows(bench_t *bench)
{
    const shoal_program_t *program = &bench->trainer.step.train;
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_op_t *op         = &program->nodes[i].op;
        row_t            *row        = row_of(bench, op);
        double            arithmetic = op->kind < SHOAL_OP_COMPUTE_COUNT ? shoal_op_flops(op) / bench->machine.flops * 1e3 : 0.0;
        double            traffic    = shoal_op_nbytes(op) / (bench->machine.memory_gbs * 1e6);
        row->count++;
        row->ms += bench->ms[i] / bench->options.nsteps;
        row->flops += shoal_op_flops(op);
        row->nbytes += shoal_op_nbytes(op);
        row->arithmetic = arithmetic > traffic;
        row->ideal_ms += arithmetic > traffic ? arithmetic : traffic;
    }
    qsort(bench->rows, (size_t)bench->nrows, sizeof(*bench->rows), compare_rows);
}

static void print_rows(const bench_t *bench)
{
    double ms = 0, ideal = 0;
    printf("%s, %s\n%.0f Gflop/s in a large matmul, %.0f GB/s in a large copy, both measured now or taken from machine.*; mean of %d steps\n\n",
           bench->trainer.device_info.name, bench->trainer.device_info.kernels, bench->machine.flops * 1e-9, bench->machine.memory_gbs, bench->options.nsteps);
    printf("%-15s %-42s %6s %10s %10s %10s %8s  %s\n", "op", "shape", "times", "ms", "ideal ms", "gap ms", "of ideal", "rate");
    for (int r = 0; r < bench->nrows; r++) {
        const row_t *row = &bench->rows[r];
        double       s   = row->ms * 1e-3;
        ms += row->ms;
        ideal += row->ideal_ms;
        printf("%-15s %-42s %6d %10.3f %10.3f %10.3f %7.1f%%  %.0f %s\n", shoal_op_kind_name(row->kind), row->shape, row->count, row->ms,
               row->ideal_ms, row->ms - row->ideal_ms, row->ms > 0 ? 100 * row->ideal_ms / row->ms : 0.0,
               s <= 0 ? 0.0 : row->arithmetic ? row->flops / s * 1e-9 : row->nbytes / s * 1e-9, row->arithmetic ? "Gflop/s" : "GB/s");
    }
    printf("%-15s %-42s %6d %10.3f %10.3f %10.3f %7.1f%%\n", "all ops", "", bench->trainer.step.train.nnodes, ms, ideal, ms - ideal,
           ms > 0 ? 100 * ideal / ms : 0.0);
    printf("%-15s %-42s %6s %10.3f  with a time stamp behind every op\n", "step", "", "", bench->step_ms / bench->options.nsteps);
}

static shoal_status_t time_steps(bench_t *bench)
{
    const shoal_program_t *program = &bench->trainer.step.train;
    size_t                 warmup  = (size_t)bench->options.nwarmup, nsteps = warmup + (size_t)bench->options.nsteps;
    shoal_step_record_t    record;
    bool                   stopped;
    bench->trainer.time_ops = true;
    for (size_t t = 1; t <= nsteps; t++) {
        SHOAL_TRY(shoal_trainer_step(&bench->trainer, t, &record, &stopped));
        shoal_op_times_t times = shoal_executor_op_times(bench->trainer.executor, program);
        for (int32_t i = 0; t > warmup && i < program->nnodes; i++) {
            bench->ms[i] += (double)(times.end[i] - times.start[i]) * 1e-6;
        }
        bench->step_ms += t > warmup ? record.step_ms : 0.0;
    }
    return SHOAL_OK;
}

static shoal_status_t run(bench_t *bench)
{
    const options_t *options = &bench->options;
    SHOAL_TRY(shoal_config_load(options->path, options->noverrides, options->overrides, &bench->config));
    SHOAL_TRY(shoal_config_resolve(bench->config, bench->bootstrap->size, &bench->spec));
    SHOAL_TRY(shoal_trainer_create(bench->spec, bench->bootstrap, &bench->trainer));
    size_t nnodes = (size_t)bench->trainer.step.train.nnodes;
    bench->ms     = calloc(nnodes, sizeof(*bench->ms));
    bench->rows   = calloc(nnodes, sizeof(*bench->rows));
    if (bench->ms == NULL || bench->rows == NULL) {
        shoal_error("no memory for the table");
        return SHOAL_ERR_NO_MEMORY;
    }
    SHOAL_TRY(time_steps(bench));
    bench->machine = bench->spec->machine;
    SHOAL_TRY(shoal_cost_measure(bench->trainer.device, bench->spec->precision.compute, &bench->machine));
    if (bench->bootstrap->rank == 0) {
        gather_rows(bench);
        print_rows(bench);
    }
    return SHOAL_OK;
}

static void print_usage(FILE *to)
{
    fputs("Usage: shoal bench ops [--steps N] [--warmup N] CONFIG [group.key=value ...]\n"
          "Time every op of a training step and compare each with what the device could do at best.\n\n"
          "  --steps N    steps to take the mean of (default 5)\n"
          "  --warmup N   steps before them (default 2)\n"
          "  --help       print this help and exit\n",
          to);
}

/* 0: go on, 1: help was printed, -1: bad usage, which has been logged. */
static int parse(int argc, char **argv, options_t *options_p)
{
    static const struct option longs[] = {
        {"steps", required_argument, NULL, 's'}, {"warmup", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    shoal_status_t status = SHOAL_OK;
    int            option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "+h", longs, NULL)) != -1) {
        switch (option) {
        case 'h': print_usage(stdout); return 1;
        case 's': status = shoal_option_int("bench ops", "--steps", optarg, 1, 1000000, &options_p->nsteps); break;
        case 'w': status = shoal_option_int("bench ops", "--warmup", optarg, 0, 1000000, &options_p->nwarmup); break;
        default: return -1;
        }
        if (status != SHOAL_OK) {
            return -1;
        }
    }
    if (optind >= argc) {
        shoal_error("bench ops: no configuration file given; see shoal bench ops --help");
        return -1;
    }
    options_p->path       = argv[optind];
    options_p->noverrides = argc - optind - 1;
    options_p->overrides  = argv + optind + 1;
    return 0;
}

int shoal_bench_ops(int argc, char **argv)
{
    bench_t bench  = {.options = {.nsteps = 5, .nwarmup = 2}};
    int     parsed = parse(argc, argv, &bench.options);
    if (parsed != 0) {
        return parsed > 0 ? 0 : shoal_status_exit_code(SHOAL_ERR_CONFIG);
    }
    shoal_status_t status = shoal_bootstrap_open("auto", &bench.bootstrap);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    shoal_log_set_rank(bench.bootstrap->rank, bench.bootstrap->host);
    status = run(&bench);
    shoal_trainer_destroy(&bench.trainer);
    free(bench.ms);
    free(bench.rows);
    shoal_config_free(bench.config);
    shoal_bootstrap_close(bench.bootstrap);
    return shoal_status_exit_code(status);
}
