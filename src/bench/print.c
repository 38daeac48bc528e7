/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rows in the style of nccl-tests, whose definitions these are: algbw is bytes over time; busbw is what the links must carry for
 * that, so it can be held against a link's speed whatever the number of ranks: (N-1)/N of algbw for all_gather and reduce_scatter,
 * 2(N-1)/N for all_reduce. GB is 10^9 bytes. The ceiling is what a rank's link can send: NVLink switches that add on the way (NVLS) can
 * do better.
 */
#include <stdio.h>

#include "src/bench/bench.h"

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

double shoal_bench_ceiling(const shoal_bench_t *bench, char *why_p, size_t nbytes)
{
    const shoal_bootstrap_t *b = bench->bootstrap;
    if (bench->options->link_gbs > 0) {
        snprintf(why_p, nbytes, "--link-gbs");
        return bench->options->link_gbs;
    }
    if (b->size == 1) {
        snprintf(why_p, nbytes, "one rank has nobody to send to");
    } else if (b->nnodes > 1) {
        snprintf(why_p, nbytes, "the network between %d hosts tells no speed; --link-gbs does", b->nnodes);
    } else if (bench->device == NULL) {
        snprintf(why_p, nbytes, "ranks of one host send through its memory; --link-gbs may give a speed");
    } else if (bench->nsharers > 1) {
        snprintf(why_p, nbytes, "%d ranks share this GPU", bench->nsharers);
    } else if (bench->device_info.link_gbs <= 0) {
        snprintf(why_p, nbytes, "no link of this GPU is known by its name; --link-gbs gives a speed");
    } else {
        snprintf(why_p, nbytes, "NVLink one way, by the data sheet");
        return bench->device_info.link_gbs;
    }
    return 0;
}

static void print_ceiling(const shoal_bench_t *bench)
{
    char   why[128];
    double ceiling = shoal_bench_ceiling(bench, why, sizeof(why));
    if (bench->device != NULL) {
        printf("# buffers on %s, timed by its clock\n", bench->device_info.name);
    }
    if (ceiling > 0) {
        printf("# ceiling of busbw: %.1f GB/s: %s\n", ceiling, why);
    } else {
        printf("# ceiling of busbw: unknown: %s\n", why);
    }
}

void shoal_bench_print_header(const shoal_bench_t *bench)
{
    const shoal_bootstrap_t *b = bench->bootstrap;
    if (bench->options->json) {
        return;
    }
    printf("# %d ranks on %d hosts, bootstrap %s, median of %d iterations after %d, each as long as for the slowest rank\n",
           b->size, b->nnodes, b->method, bench->options->niters, bench->options->nwarmup);
    print_ceiling(bench);
    printf("# %-14s %-5s %10s %10s %5s %5s %10s %10s %10s %8s %8s %8s %6s\n", "op", "via", "size(B)", "count", "type", "redop",
           "time(us)", "min", "max", "algbw", "busbw", "ceiling%", "#wrong");
}

static void print_json(const shoal_bench_row_t *row, double ceiling)
{
    char limit[32] = "null";
    if (ceiling > 0) {
        snprintf(limit, sizeof(limit), "%.4f", ceiling);
    }
    printf("{\"op\":\"%s\",\"transport\":\"%s\",\"ranks\":%d,\"nbytes\":%zu,\"count\":%zu,\"dtype\":\"%s\",\"median_us\":%.3f,"
           "\"min_us\":%.3f,\"max_us\":%.3f,\"algbw_gbs\":%.4f,\"busbw_gbs\":%.4f,\"ceiling_gbs\":%s,\"wrong\":",
           shoal_bench_op_name(row->coll.kind), row->transport, row->size, shoal_bench_nbytes(&row->coll, row->size), row->coll.n,
           shoal_dtype_name(row->coll.dtype), row->median_us, row->min_us, row->max_us, algbw(row), shoal_bench_busbw(row), limit);
    if (row->nwrong >= 0) {
        printf("%ld}\n", row->nwrong);
    } else {
        printf("null}\n");
    }
}

void shoal_bench_print_row(const shoal_bench_t *bench, const shoal_bench_row_t *row)
{
    char   wrong[24] = "n/a", share[24] = "?", why[128];
    double ceiling   = shoal_bench_ceiling(bench, why, sizeof(why));
    if (bench->options->json) {
        print_json(row, ceiling);
        return;
    }
    if (ceiling > 0) {
        snprintf(share, sizeof(share), "%.1f", 100 * shoal_bench_busbw(row) / ceiling);
    }
    if (row->nwrong >= 0) {
        snprintf(wrong, sizeof(wrong), "%ld", row->nwrong);
    }
    printf("  %-14s %-5s %10zu %10zu %5s %5s %10.1f %10.1f %10.1f %8.3f %8.3f %8s %6s\n", shoal_bench_op_name(row->coll.kind),
           row->transport, shoal_bench_nbytes(&row->coll, row->size), row->coll.n, shoal_dtype_name(row->coll.dtype),
           row->coll.kind == SHOAL_COLL_ALL_GATHER ? "none" : "sum", row->median_us, row->min_us, row->max_us, algbw(row),
           shoal_bench_busbw(row), share, wrong);
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
