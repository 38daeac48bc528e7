/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench collectives` in three parts: bench.c reads the options and runs the cases, bench_measure.c times one case on all
 * transports, bench_print.c shows the rows. `shoal bench ops` is bench_ops.c.
 */
#ifndef SHOAL_SRC_BENCH_H
#define SHOAL_SRC_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "collectives/transport.h"
#include "runtime/bootstrap.h"

enum { SHOAL_BENCH_MAX_TRANSPORTS = 8, SHOAL_BENCH_NOPS = SHOAL_COLL_ALL_REDUCE + 1 };

typedef struct {
    int           nranks; /* forked here; 0: the launcher's ranks */
    const char   *transport;
    bool          ops[SHOAL_BENCH_NOPS];
    size_t        min_nbytes, max_nbytes, factor;
    shoal_dtype_t dtype;
    int           niters, nwarmup;
    bool          check, json;
    bool          poll; /* never sleep between looks at the network */
} shoal_bench_options_t;

/* A transport under test, with one group of all ranks. */
typedef struct {
    const char        *name;
    shoal_transport_t *transport;
    shoal_comm_t      *comm;
    void              *staging;
} shoal_bench_transport_t;

typedef struct {
    const shoal_bench_options_t *options;
    shoal_bootstrap_t           *bootstrap;
    shoal_bench_transport_t      transports[SHOAL_BENCH_MAX_TRANSPORTS];
    int                          ntransports;
    void                        *send, *recv; /* large enough for the largest case */
    double                      *times; /* (1 + size, ntransports, niters) microseconds: one's own, then those of all ranks */
} shoal_bench_t;

/* One case on one transport. Times are over iterations, each iteration's the slowest rank's. */
typedef struct {
    const char   *transport;
    shoal_coll_t  coll;
    int           size;
    double        median_us, min_us, max_us;
    long          nwrong; /* elements over all ranks, -1: not checked */
} shoal_bench_row_t;

/* `shoal bench ops`, with argv[0] "ops": bench_ops.c. */
int shoal_bench_ops(int argc, char **argv);

const char *shoal_bench_op_name(shoal_coll_kind_t kind);

/* Bytes that a case is named by, as in nccl-tests: all that is gathered, all that is reduced. */
size_t shoal_bench_nbytes(const shoal_coll_t *coll, int size);
double shoal_bench_busbw(const shoal_bench_row_t *row);

/* Times one case on every transport, taking turns. rows_p (ntransports). Collective over the job. */
shoal_status_t shoal_bench_measure(shoal_bench_t *bench, const shoal_coll_t *coll, shoal_bench_row_t *rows_p);

void shoal_bench_print_header(const shoal_bench_t *bench);
void shoal_bench_print_row(const shoal_bench_t *bench, const shoal_bench_row_t *row);
/* For every case, how many times faster the first transport is than each of the others. rows (nrows), by case and transport. */
void shoal_bench_print_ratios(const shoal_bench_t *bench, const shoal_bench_row_t *rows, size_t nrows);

#endif
