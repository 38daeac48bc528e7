/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a program should take. An op needs the time of its flops or of its bytes, whichever is more
 * (the roofline of Williams, Waterman and Patterson, CACM 2009); on a GPU that is known better
 * (kernels/rates.h), matmuls go by tiles and waves, attention by its sequence's length, and
 * collectives within a node by curves. The lanes are then simulated with the plan's edges.
 * Predicted beside measured, the difference is where to look. What is not in it: lanes that share
 * one link, and compute beside collectives, which has fewer multiprocessors and less memory
 * bandwidth.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_COST_H
#define SHOAL_RUNTIME_EXECUTE_COST_H

#include "runtime/execute/executor.h"

/* Where a figure of the prediction is from. */
typedef enum {
    SHOAL_SOURCE_UNKNOWN,  /* from nowhere: it counts as nothing */
    SHOAL_SOURCE_USER,     /* a key machine.* */
    SHOAL_SOURCE_MEASURED, /* on this device, now */
    SHOAL_SOURCE_TABLE,    /* fitted to measured times of such GPUs */
    SHOAL_SOURCE_SHEET,    /* a share of the data sheet that GPUs of the table reach */
    SHOAL_SOURCE_ASSUMED,
    SHOAL_SOURCE_LAUNCHER, /* of ranks per node: a launcher or Slurm */
    SHOAL_SOURCE_COUNT
} shoal_source_t;

typedef enum {
    SHOAL_COST_MATMUL,
    SHOAL_COST_ATTENTION,
    SHOAL_COST_MEMORY,
    SHOAL_COST_NODE_LINK,
    SHOAL_COST_LINK,
    SHOAL_COST_LATENCY,
    SHOAL_COST_RANKS_PER_NODE,
    SHOAL_COST_COUNT
} shoal_cost_figure_t;

/*
 * The ranks and how they lie on nodes, as even as they can; ranks_per_node 0: the device's usual
 * number is assumed.
 */
typedef struct {
    int            nranks, ranks_per_node;
    shoal_source_t source;
} shoal_cost_layout_t;

/* A machine with every figure settled. */
typedef struct {
    shoal_machine_spec_t machine; /* completed: rates of large operations; what is unknown is 0 */
    shoal_source_t       source[SHOAL_COST_COUNT];
    const shoal_rates_t *rates;     /* of the device; NULL: none */
    double               sheet_gbs; /* memory by the data sheet, which `rates` want */
    bool                 stores_scores;
    int                  nranks, ranks_per_node, nnodes;
} shoal_cost_t;

/*
 * Settles the figures: first what `machine` says; then, for GPUs, tables and data sheets; the rest
 * of arithmetic and memory is measured on the device in some tens of milliseconds. Network between
 * nodes: 0.92 of a card for each GPU is assumed. Elsewhere a link that nobody knows stays 0, and
 * collectives cost their latency only.
 */
shoal_status_t shoal_cost_complete(shoal_device_t *device, shoal_dtype_t compute,
                                   const shoal_machine_spec_t *machine,
                                   const shoal_cost_layout_t *layout, shoal_cost_t *cost_p);

/* Measures machine_p->flops and memory_gbs where they are 0. Allocates on the device. */
shoal_status_t shoal_cost_measure(shoal_device_t *device, shoal_dtype_t compute,
                                  shoal_machine_spec_t *machine_p);

/* Predicted milliseconds of one op. */
double shoal_cost_op(const shoal_cost_t *cost, const shoal_op_t *op);

/*
 * Simulates one run of a planned program. op_times_p (arrays of nnodes, the caller's) receives
 * predicted starts and ends; it may be NULL.
 */
shoal_status_t shoal_cost_predict(const shoal_program_t *program, const shoal_cost_t *cost,
                                  shoal_times_t *times_p, const shoal_op_times_t *op_times_p);

/* "matmul", "attention", ...; "user", "measured", "table", ... */
const char *shoal_cost_figure_name(shoal_cost_figure_t figure);
const char *shoal_source_name(shoal_source_t source);

#endif
