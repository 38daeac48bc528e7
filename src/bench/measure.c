/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timing of one case. Transports take turns within each iteration, so that whatever else the machine does meets all of them
 * alike. An iteration begins with a tiny all_reduce on the same transport, since ranks that arrive one by one would measure
 * each other; it is as long as it was for the slowest rank.
 *
 * Inputs are small integers, whose sums are exact in fp32 and bf16 in any order: a wrong element is wrong, never a rounding.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/time.h"
#include "src/bench/bench.h"

enum { EXACT_VALUES = 4 }; /* 0..3: sums over 64 ranks stay below 256, exact in bf16 */

static size_t send_elements(const shoal_coll_t *coll, int size)
{
    return coll->kind == SHOAL_COLL_REDUCE_SCATTER ? coll->n * (size_t)size : coll->n;
}

static size_t recv_elements(const shoal_coll_t *coll, int size)
{
    return coll->kind == SHOAL_COLL_ALL_GATHER ? coll->n * (size_t)size : coll->n;
}

static float exact_value(size_t rank, size_t i)
{
    return (float)((rank * 7 + i + i / EXACT_VALUES) % EXACT_VALUES);
}

static float expected_value(const shoal_coll_t *coll, int rank, int size, size_t i)
{
    if (coll->kind == SHOAL_COLL_ALL_GATHER) {
        return exact_value(i / coll->n, i % coll->n);
    }
    size_t at  = coll->kind == SHOAL_COLL_REDUCE_SCATTER ? (size_t)rank * coll->n + i : i;
    float  sum = 0;
    for (size_t r = 0; r < (size_t)size; r++) {
        sum += exact_value(r, at);
    }
    return sum;
}

/* Runs a collective to its end, the way the executor's progress thread does. */
static shoal_status_t run_host(const shoal_bench_t *bench, const shoal_bench_transport_t *t, shoal_comm_t *comm, const shoal_coll_t *coll)
{
    const shoal_transport_ops_t *ops = t->transport->ops;
    SHOAL_TRY(ops->start(comm, coll));
    while (ops->test(comm) == SHOAL_IN_PROGRESS) {
        int moved = 0;
        SHOAL_TRY(ops->progress(t->transport, &moved));
        if (!moved && !bench->options->poll && ops->test(comm) == SHOAL_IN_PROGRESS) {
            SHOAL_TRY(ops->wait(t->transport, 1000));
        }
    }
    return ops->test(comm);
}

/* The collective on this transport's buffers, behind one that aligns the ranks. */
static shoal_status_t run(const shoal_bench_t *bench, const shoal_bench_transport_t *t, const shoal_coll_t *what, double *us_p)
{
    float         one   = 1.0f;
    shoal_comm_t *comm  = t->comms[shoal_bench_use(what->kind)];
    shoal_coll_t  coll  = *what;
    shoal_coll_t  align = {.kind = SHOAL_COLL_ALL_REDUCE, .dtype = SHOAL_F32, .n = 1, .recv = &one};
    coll.send           = t->send;
    coll.recv           = t->recv;
    if (bench->device != NULL) {
        return shoal_bench_run_device(bench, t, &coll, us_p);
    }
    SHOAL_TRY(run_host(bench, t, comm, &align));
    int64_t start_ns = shoal_time_ns();
    SHOAL_TRY(run_host(bench, t, comm, &coll));
    *us_p = (double)(shoal_time_ns() - start_ns) * 1e-3;
    return SHOAL_OK;
}

static void fill(const shoal_bench_t *bench, const shoal_coll_t *coll)
{
    void *source = coll->kind == SHOAL_COLL_ALL_REDUCE ? bench->recv : bench->send;
    for (size_t i = 0; i < send_elements(coll, bench->bootstrap->size); i++) {
        shoal_element_put(coll->dtype, source, i, exact_value((size_t)bench->bootstrap->rank, i));
    }
    for (size_t i = 0; coll->kind != SHOAL_COLL_ALL_REDUCE && i < recv_elements(coll, bench->bootstrap->size); i++) {
        shoal_element_put(coll->dtype, bench->recv, i, -1.0f);
    }
}

static long count_wrong(const shoal_bench_t *bench, const shoal_coll_t *coll)
{
    const shoal_bootstrap_t *b      = bench->bootstrap;
    long                     nwrong = 0;
    for (size_t i = 0; i < recv_elements(coll, b->size); i++) {
        nwrong += !(shoal_element_get(coll->dtype, bench->recv, i) == expected_value(coll, b->rank, b->size, i));
    }
    return nwrong;
}

/* Sums a count over the job, without a transport's help: it may be what is broken. */
static shoal_status_t sum_over_ranks(const shoal_bench_t *bench, long *count)
{
    shoal_bootstrap_t *b   = bench->bootstrap;
    long              *all = calloc((size_t)b->size, sizeof(*all));
    if (all == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = b->ops->exchange(b, count, sizeof(*count), all);
    *count                = 0;
    for (int r = 0; r < b->size; r++) {
        *count += all[r];
    }
    free(all);
    return status;
}

static shoal_status_t check(const shoal_bench_t *bench, const shoal_bench_transport_t *t, const shoal_coll_t *coll, long *nwrong_p)
{
    double us;
    *nwrong_p = -1;
    if (!bench->options->check) {
        return SHOAL_OK;
    }
    fill(bench, coll);
    SHOAL_TRY(shoal_bench_upload(bench, t));
    SHOAL_TRY(run(bench, t, coll, &us));
    SHOAL_TRY(shoal_bench_download(bench, t));
    *nwrong_p = count_wrong(bench, coll);
    return sum_over_ranks(bench, nwrong_p);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* times: (size, ntransports, niters), from every rank; the slowest rank's go to the first block. */
static void summarize(const shoal_bench_t *bench, double *times, shoal_bench_row_t *rows_p)
{
    size_t niters = (size_t)bench->options->niters, ntimes = niters * (size_t)bench->ntransports;
    for (size_t r = 1; r < (size_t)bench->bootstrap->size; r++) {
        for (size_t i = 0; i < ntimes; i++) {
            times[i] = times[r * ntimes + i] > times[i] ? times[r * ntimes + i] : times[i];
        }
    }
    for (int t = 0; t < bench->ntransports; t++) {
        double *mine = times + (size_t)t * niters;
        qsort(mine, niters, sizeof(*mine), compare_doubles);
        rows_p[t].min_us    = mine[0];
        rows_p[t].max_us    = mine[niters - 1];
        rows_p[t].median_us = (mine[(niters - 1) / 2] + mine[niters / 2]) / 2;
    }
}

shoal_status_t shoal_bench_measure(shoal_bench_t *bench, const shoal_coll_t *coll, shoal_bench_row_t *rows_p)
{
    int                niters = bench->options->niters;
    size_t             ntimes = (size_t)niters * (size_t)bench->ntransports;
    shoal_bootstrap_t *b      = bench->bootstrap;
    double            *own    = bench->times, *all = bench->times + ntimes;
    for (int t = 0; t < bench->ntransports; t++) {
        rows_p[t] = (shoal_bench_row_t){.transport = bench->transports[t].name, .coll = *coll, .size = b->size};
        SHOAL_TRY(check(bench, &bench->transports[t], coll, &rows_p[t].nwrong));
    }
    fill(bench, coll); /* all_reduce would else sum its own sums */
    for (int t = 0; t < bench->ntransports; t++) {
        SHOAL_TRY(shoal_bench_upload(bench, &bench->transports[t]));
    }
    for (int i = -bench->options->nwarmup; i < niters; i++) {
        for (int t = 0; t < bench->ntransports; t++) {
            double us;
            SHOAL_TRY(run(bench, &bench->transports[t], coll, &us));
            own[(size_t)t * (size_t)niters + (size_t)(i < 0 ? 0 : i)] = us;
        }
    }
    SHOAL_TRY(b->ops->exchange(b, own, ntimes * sizeof(*own), all));
    summarize(bench, all, rows_p);
    return SHOAL_OK;
}
