/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rows in the style of nccl-tests, whose definitions these are: algbw is bytes over time; busbw is what the links must carry for
 * that, so it can be held against a link's speed whatever the number of ranks: (N-1)/N of algbw for all_gather and reduce_scatter,
 * 2(N-1)/N for all_reduce. GB is 10^9 bytes.
 */
#include <stdio.h>

#include "src/bench.h"

const char *shoal_bench_op_name(shoal_coll_kind_t kind)
{
    static const char *const names[] = {"all_gather", "reduce_scatter", "all_reduce"};
    return names[kind];
}

size_t shoal_bench_nbytes(const shoal_coll_t *coll, int size)
{
    size_t blocks = coll->kind == SHOAL_COLL_ALL_REDUCE ? 1 : (size_t)size;
    return coll->n * blocks * shoal_dtype_nbytes(coll->dtype);
}

static double algbw(const shoal_bench_row_t *row)
{
    return (double)shoal_bench_nbytes(&row->coll, row->size) / row->median_us * 1e-3;
}

double shoal_bench_busbw(const shoal_bench_row_t *row)
{
    double rounds = row->coll.kind == SHOAL_COLL_ALL_REDUCE ? 2.0 : 1.0;
    return algbw(row) * rounds * (double)(row->size - 1) / (double)row->size;
}

void shoal_bench_print_header(const shoal_bench_t *bench)
{
    const shoal_bootstrap_t *b = bench->bootstrap;
    if (bench->options->json) {
        return;
    }
    printf("# %d ranks on %d hosts, bootstrap %s, median of %d iterations after %d, each as long as for the slowest rank\n",
           b->size, b->nnodes, b->method, bench->options->niters, bench->options->nwarmup);
    printf("# %-14s %-5s %10s %10s %5s %5s %10s %10s %10s %8s %8s %6s\n", "op", "via", "size(B)", "count", "type", "redop",
           "time(us)", "min", "max", "algbw", "busbw", "#wrong");
}

static void print_json(const shoal_bench_row_t *row)
{
    printf("{\"op\":\"%s\",\"transport\":\"%s\",\"ranks\":%d,\"nbytes\":%zu,\"count\":%zu,\"dtype\":\"%s\",\"median_us\":%.3f,"
           "\"min_us\":%.3f,\"max_us\":%.3f,\"algbw_gbs\":%.4f,\"busbw_gbs\":%.4f,\"wrong\":",
           shoal_bench_op_name(row->coll.kind), row->transport, row->size, shoal_bench_nbytes(&row->coll, row->size), row->coll.n,
           shoal_dtype_name(row->coll.dtype), row->median_us, row->min_us, row->max_us, algbw(row), shoal_bench_busbw(row));
    if (row->nwrong >= 0) {
        printf("%ld}\n", row->nwrong);
    } else {
        printf("null}\n");
    }
}

void shoal_bench_print_row(const shoal_bench_t *bench, const shoal_bench_row_t *row)
{
    char wrong[24] = "n/a";
    if (bench->options->json) {
        print_json(row);
        return;
    }
    if (row->nwrong >= 0) {
        snprintf(wrong, sizeof(wrong), "%ld", row->nwrong);
    }
    printf("  %-14s %-5s %10zu %10zu %5s %5s %10.1f %10.1f %10.1f %8.3f %8.3f %6s\n", shoal_bench_op_name(row->coll.kind),
           row->transport, shoal_bench_nbytes(&row->coll, row->size), row->coll.n, shoal_dtype_name(row->coll.dtype),
           row->coll.kind == SHOAL_COLL_ALL_GATHER ? "none" : "sum", row->median_us, row->min_us, row->max_us, algbw(row),
           shoal_bench_busbw(row), wrong);
    fflush(stdout);
}

void shoal_bench_print_ratios(const shoal_bench_t *bench, const shoal_bench_row_t *rows, size_t nrows)
{
    size_t n = (size_t)bench->ntransports;
    if (bench->options->json || n < 2) {
        return;
    }
    printf("\n# busbw of %s over that of the others\n# %-14s %10s", rows[0].transport, "op", "size(B)");
    for (size_t t = 1; t < n; t++) {
        printf("   %s/%s", rows[0].transport, rows[t].transport);
    }
    printf("\n");
    for (size_t i = 0; i + n <= nrows; i += n) {
        printf("  %-14s %10zu", shoal_bench_op_name(rows[i].coll.kind), shoal_bench_nbytes(&rows[i].coll, rows[i].size));
        for (size_t t = 1; t < n; t++) {
            printf("   %7.2f", rows[i + t].median_us / rows[i].median_us);
        }
        printf("\n");
    }
}
