/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench collectives` in four parts: bench.c reads the options and runs the cases, bench_measure.c times one case on all
 * transports, bench_device.c does so on a GPU's memory, bench_print.c shows the rows. `shoal bench ops` is bench_ops.c.
 */
#ifndef SHOAL_SRC_BENCH_BENCH_H
#define SHOAL_SRC_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "collectives/transport.h"
#include "kernels/device.h"
#include "runtime/bootstrap/bootstrap.h"

enum {
    SHOAL_BENCH_MAX_TRANSPORTS = 8,
    SHOAL_BENCH_NOPS           = SHOAL_COLL_ALL_REDUCE + 1,
    SHOAL_BENCH_PATIENCE_S     = 120, /* as run.timeout_s has it by default */
};

typedef struct {
    int           nranks; /* forked here; 0: the launcher's ranks */
    const char   *transport;
    bool          ops[SHOAL_BENCH_NOPS];
    size_t        min_nbytes, max_nbytes, factor;
    shoal_dtype_t dtype;
    int           niters, nwarmup;
    bool          check, json;
    bool          poll; /* never sleep between looks at the network */
    bool          device; /* the buffers are a GPU's */
    double        link_gbs; /* what a rank can send at, for people to compare with; 0: not known */
    shoal_transport_config_t config;
} shoal_bench_options_t;

/* A transport under test, with two groups of all ranks, as a step has them: what gathers and what reduces. */
typedef struct {
    const char        *name;
    shoal_transport_t *transport;
    shoal_comm_t      *comms[SHOAL_COMM_USES];
    void              *staging[SHOAL_COMM_USES];
    void              *send, *recv;           /* what its collectives work on: the bench's, or in the device's memory */
    void              *memory, *one;          /* of the device: all of it, and a number */
    size_t             memory_nbytes;
} shoal_bench_transport_t;

typedef struct {
    const shoal_bench_options_t *options;
    shoal_bootstrap_t           *bootstrap;
    shoal_peers_t                peers;
    shoal_device_t              *device; /* NULL: the buffers are the host's */
    shoal_device_info_t          device_info;
    int                          nsharers; /* ranks of this host on its device, this one counted */
    shoal_bench_transport_t      transports[SHOAL_BENCH_MAX_TRANSPORTS];
    int                          ntransports;
    void                        *send, *recv; /* of the host, (buffer_nbytes): large enough for the largest case */
    size_t                       buffer_nbytes;
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

/* Which of a transport's groups runs this kind. */
static inline shoal_comm_use_t shoal_bench_use(shoal_coll_kind_t kind)
{
    return kind == SHOAL_COLL_ALL_GATHER ? SHOAL_COMM_GATHER : SHOAL_COMM_REDUCE;
}

/* bench_device.c. Opening does nothing unless a device is asked for. */
shoal_status_t shoal_bench_open_device(shoal_bench_t *bench);
void           shoal_bench_close_device(shoal_bench_t *bench);
/* A transport's buffers in the device's memory. They are freed between its groups' end and its own. */
shoal_status_t shoal_bench_alloc_device(shoal_bench_t *bench, shoal_bench_transport_t *t);
void           shoal_bench_free_device(shoal_bench_t *bench, shoal_bench_transport_t *t);
/* From the bench's buffers to the transport's, and the received ones back; nothing to do where they are the same. */
shoal_status_t shoal_bench_upload(const shoal_bench_t *bench, const shoal_bench_transport_t *t);
shoal_status_t shoal_bench_download(const shoal_bench_t *bench, const shoal_bench_transport_t *t);
/* One collective from beginning to end, and its time by the device's clock. */
shoal_status_t shoal_bench_run_device(const shoal_bench_t *bench, const shoal_bench_transport_t *t, const shoal_coll_t *coll, double *us_p);

/* The bus bandwidth that these ranks could reach at best and why so, or 0 and why it is not known. */
double shoal_bench_ceiling(const shoal_bench_t *bench, char *why_p, size_t nbytes);

/* Times one case on every transport, taking turns. rows_p (ntransports). Collective over the job. coll says nothing of buffers. */
shoal_status_t shoal_bench_measure(shoal_bench_t *bench, const shoal_coll_t *coll, shoal_bench_row_t *rows_p);

void shoal_bench_print_header(const shoal_bench_t *bench);
void shoal_bench_print_row(const shoal_bench_t *bench, const shoal_bench_row_t *row);
/* For every case, how many times faster the first transport is than each of the others. rows (nrows), by case and transport. */
void shoal_bench_print_ratios(const shoal_bench_t *bench, const shoal_bench_row_t *rows, size_t nrows);

#endif
