/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench collectives`, also the bench that is meant when none is named: the collectives of every transport that can serve these ranks, timed and checked in one run. The ranks are those
 * of the launcher, or forked here with -n.
 */
#include "src/bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/affinity.h"
#include "src/commands.h"

static const char usage[] =
    "Usage: shoal bench [collectives] [OPTION]...\n"
    "       shoal bench ops [OPTION]... CONFIG [group.key=value ...]\n"
    "Time the collectives, with one row per operation, size and transport, and check their results; or, with ops, every op of a\n"
    "training step (see shoal bench ops --help).\n"
    "\n"
    "  -n, --ranks N          fork N ranks here; without it the ranks are the launcher's\n"
    "  -t, --transport NAME   ucx, mpi or self; all (the default): every one that can serve these ranks\n"
    "  -o, --op NAME          all_gather, reduce_scatter, all_reduce or all (the default)\n"
    "      --min SIZE         smallest size in bytes, with K, M or G for powers of 1024 (default 8K)\n"
    "      --max SIZE         largest size (default 64M)\n"
    "      --factor N         from one size to the next (default 2)\n"
    "      --dtype NAME       fp32 (the default) or bf16\n"
    "      --iters N          measured iterations (default 20)\n"
    "      --warmup N         iterations before them (default 3)\n"
    "      --check            compare results with exact sums (the default)\n"
    "      --no-check         do not\n"
    "      --poll             never sleep while a collective is under way; without it ranks wait as in training\n"
    "      --json             one JSON object per row instead of a table\n"
    "  -h, --help             print this help and exit\n"
    "\n"
    "Sizes are those of the whole result (all_gather), of the whole input (reduce_scatter), or of both (all_reduce).\n";

/* ---- Options ---- */

static shoal_status_t refuse(const char *option, const char *value, const char *wanted)
{
    shoal_error("bench: --%s %s: expects %s; shoal bench --help says more", option, value, wanted);
    return SHOAL_ERR_CONFIG;
}

static shoal_status_t parse_count(const char *option, const char *text, int min, int *count_p)
{
    char *end;
    errno   = 0;
    long n  = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < min || n > 1000000) {
        return refuse(option, text, "a count");
    }
    *count_p = (int)n;
    return SHOAL_OK;
}

static shoal_status_t parse_size(const char *option, const char *text, size_t *nbytes_p)
{
    static const char units[] = "KMG";
    char             *end;
    errno                   = 0;
    unsigned long long n    = strtoull(text, &end, 10);
    const char        *unit = *end != '\0' ? strchr(units, *end) : NULL;
    int                shift = unit != NULL ? 10 * (int)(unit - units + 1) : 0;
    if (end == text || text[0] == '-' || errno != 0 || n == 0 || (unit != NULL ? end[1] : *end) != '\0' ||
        n > (1ull << 40) >> shift) {
        return refuse(option, text, "a size up to 1024G, such as 64K");
    }
    *nbytes_p = (size_t)n << shift;
    return SHOAL_OK;
}

static shoal_status_t parse_op(const char *text, bool *ops_p)
{
    bool known = false;
    for (int kind = 0; kind < SHOAL_BENCH_NOPS; kind++) {
        ops_p[kind] = strcmp(text, "all") == 0 || strcmp(text, shoal_bench_op_name((shoal_coll_kind_t)kind)) == 0;
        known       = known || ops_p[kind];
    }
    return known ? SHOAL_OK : refuse("op", text, "all_gather, reduce_scatter, all_reduce or all");
}

static shoal_status_t parse_dtype(const char *text, shoal_dtype_t *dtype_p)
{
    for (int dtype = SHOAL_F32; dtype <= SHOAL_BF16; dtype++) {
        if (strcmp(text, shoal_dtype_name((shoal_dtype_t)dtype)) == 0) {
            *dtype_p = (shoal_dtype_t)dtype;
            return SHOAL_OK;
        }
    }
    return refuse("dtype", text, "fp32 or bf16");
}

enum { OPT_MIN = 256, OPT_MAX, OPT_FACTOR, OPT_DTYPE, OPT_ITERS, OPT_WARMUP, OPT_CHECK, OPT_NO_CHECK, OPT_POLL, OPT_JSON };

static shoal_status_t parse_option(int option, const char *value, shoal_bench_options_t *o)
{
    int factor = 0;
    switch (option) {
    case 'n': return parse_count("ranks", value, 1, &o->nranks);
    case 't': o->transport = value; return SHOAL_OK;
    case 'o': return parse_op(value, o->ops);
    case OPT_MIN: return parse_size("min", value, &o->min_nbytes);
    case OPT_MAX: return parse_size("max", value, &o->max_nbytes);
    case OPT_FACTOR: SHOAL_TRY(parse_count("factor", value, 2, &factor)); o->factor = (size_t)factor; return SHOAL_OK;
    case OPT_DTYPE: return parse_dtype(value, &o->dtype);
    case OPT_ITERS: return parse_count("iters", value, 1, &o->niters);
    case OPT_WARMUP: return parse_count("warmup", value, 0, &o->nwarmup);
    case OPT_CHECK: o->check = true; return SHOAL_OK;
    case OPT_NO_CHECK: o->check = false; return SHOAL_OK;
    case OPT_POLL: o->poll = true; return SHOAL_OK;
    case OPT_JSON: o->json = true; return SHOAL_OK;
    default: return SHOAL_ERR_CONFIG;
    }
}

/* *help_p: help was asked for and printed. */
static shoal_status_t parse(int argc, char **argv, shoal_bench_options_t *o, bool *help_p)
{
    static const struct option longs[] = {
        {"ranks", required_argument, NULL, 'n'},         {"transport", required_argument, NULL, 't'},
        {"op", required_argument, NULL, 'o'},            {"min", required_argument, NULL, OPT_MIN},
        {"max", required_argument, NULL, OPT_MAX},       {"factor", required_argument, NULL, OPT_FACTOR},
        {"dtype", required_argument, NULL, OPT_DTYPE},   {"iters", required_argument, NULL, OPT_ITERS},
        {"warmup", required_argument, NULL, OPT_WARMUP}, {"check", no_argument, NULL, OPT_CHECK},
        {"no-check", no_argument, NULL, OPT_NO_CHECK},   {"poll", no_argument, NULL, OPT_POLL},
        {"json", no_argument, NULL, OPT_JSON},           {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    optind = 0;
    while ((option = getopt_long(argc, argv, ":n:t:o:h", longs, NULL)) != -1) {
        if (option == 'h') {
            *help_p = true;
            fputs(usage, stdout);
            return SHOAL_OK;
        }
        if (option == '?' || option == ':') {
            shoal_error("bench: option %s: %s; shoal bench --help says more", argv[optind - 1],
                        option == ':' ? "expects a value" : "unknown");
            return SHOAL_ERR_CONFIG;
        }
        SHOAL_TRY(parse_option(option, optarg, o));
    }
    if (optind < argc || o->min_nbytes > o->max_nbytes) {
        shoal_error("bench: %s; shoal bench --help says more", optind < argc ? "takes options only" : "--min is above --max");
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

/* ---- Cases ---- */

/* A case of about nbytes: at least one element for every rank. */
static shoal_coll_t make_case(const shoal_bench_t *bench, shoal_coll_kind_t kind, size_t nbytes)
{
    size_t nelem  = nbytes / shoal_dtype_nbytes(bench->options->dtype);
    size_t blocks = kind == SHOAL_COLL_ALL_REDUCE ? 1 : (size_t)bench->bootstrap->size;
    size_t n      = nelem / blocks > 0 ? nelem / blocks : 1;
    return (shoal_coll_t){.kind = kind, .dtype = bench->options->dtype, .n = n, .send = bench->send, .recv = bench->recv};
}

/* The size after this one; 0 when this was the last. */
static size_t next_nbytes(const shoal_bench_options_t *o, size_t nbytes)
{
    return nbytes <= o->max_nbytes / o->factor ? nbytes * o->factor : 0;
}

static size_t largest_staging(const shoal_bench_t *bench, const shoal_transport_ops_t *ops)
{
    int          size    = bench->bootstrap->size;
    shoal_coll_t align   = {.kind = SHOAL_COLL_ALL_REDUCE, .dtype = SHOAL_F32, .n = 1};
    size_t       largest = ops->staging_nbytes(&align, size);
    for (int kind = 0; kind < SHOAL_BENCH_NOPS; kind++) {
        for (size_t nbytes = bench->options->min_nbytes; nbytes != 0; nbytes = next_nbytes(bench->options, nbytes)) {
            shoal_coll_t coll  = make_case(bench, (shoal_coll_kind_t)kind, nbytes);
            size_t       needs = ops->staging_nbytes(&coll, size);
            largest            = needs > largest ? needs : largest;
        }
    }
    return largest;
}

/* ---- Transports ---- */

enum { PATIENCE_S = 120 }; /* as the default of run.timeout_s */

static shoal_status_t make_comm(const shoal_bench_t *bench, shoal_bench_transport_t *t)
{
    int    size   = bench->bootstrap->size;
    size_t nbytes = largest_staging(bench, t->transport->ops);
    int   *ranks  = calloc((size_t)size, sizeof(*ranks));
    t->staging    = malloc(nbytes + 1);
    if (ranks == NULL || t->staging == NULL) {
        free(ranks);
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int r = 0; r < size; r++) {
        ranks[r] = r;
    }
    shoal_group_t  group  = {.ranks = ranks, .size = size, .staging = t->staging, .staging_nbytes = nbytes};
    shoal_status_t status = t->transport->ops->comm_create(t->transport, &group, &t->comm);
    free(ranks);
    return status;
}

static shoal_status_t add_transport(shoal_bench_t *bench, const shoal_transport_ops_t *ops)
{
    shoal_bench_transport_t *t     = &bench->transports[bench->ntransports];
    shoal_peers_t            peers = shoal_bootstrap_peers(bench->bootstrap);
    SHOAL_TRY(ops->open(&peers, &(shoal_transport_config_t){.patience_s = PATIENCE_S}, &t->transport));
    t->name = ops->name;
    bench->ntransports++;
    return make_comm(bench, t);
}

/* MPI can serve only ranks that a launcher of its own started; `self` only a rank alone. */
static bool can_serve(const shoal_bench_t *bench, const shoal_transport_ops_t *ops)
{
    const shoal_bootstrap_t *b    = bench->bootstrap;
    const char              *name = ops->name;
    if (strcmp(name, "self") == 0) {
        return b->size == 1;
    }
    bool launched = strncmp(b->method, "pmix", 4) == 0 || strcmp(b->method, "mpi") == 0;
    return ops->enqueue == NULL && (strcmp(name, "mpi") != 0 || launched); /* these buffers are the host's */
}

static shoal_status_t open_transports(shoal_bench_t *bench)
{
    const shoal_transport_ops_t *ops;
    if (strcmp(bench->options->transport, "all") != 0) {
        SHOAL_TRY(shoal_transport_find(bench->options->transport, bench->bootstrap->size, false, &ops));
        return add_transport(bench, ops);
    }
    for (int i = 0; shoal_transport_backends[i] != NULL && bench->ntransports < SHOAL_BENCH_MAX_TRANSPORTS; i++) {
        ops = shoal_transport_backends[i];
        if (can_serve(bench, ops)) {
            SHOAL_TRY(add_transport(bench, ops));
        } else if (bench->bootstrap->rank == 0) {
            shoal_info("bench: transport %s cannot serve these ranks", ops->name);
        }
    }
    return bench->ntransports > 0 ? SHOAL_OK : SHOAL_ERR_CONFIG;
}

static void close_transports(shoal_bench_t *bench)
{
    for (int i = bench->ntransports - 1; i >= 0; i--) {
        shoal_bench_transport_t *t = &bench->transports[i];
        if (t->comm != NULL) {
            t->transport->ops->comm_destroy(t->comm);
        }
        t->transport->ops->close(t->transport);
        free(t->staging);
    }
}

/* ---- The run ---- */

static shoal_status_t alloc_buffers(shoal_bench_t *bench)
{
    size_t size   = (size_t)bench->bootstrap->size;
    size_t nbytes = bench->options->max_nbytes + size * sizeof(float); /* a tiny case is rounded up to an element per rank */
    size_t ntimes = (size_t)bench->options->niters * (size_t)bench->ntransports;
    bench->send   = malloc(nbytes);
    bench->recv   = malloc(nbytes);
    bench->times  = calloc((size + 1) * ntimes, sizeof(*bench->times));
    return bench->send != NULL && bench->recv != NULL && bench->times != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

static size_t count_cases(const shoal_bench_options_t *o)
{
    size_t nsizes = 0, nops = 0;
    for (size_t nbytes = o->min_nbytes; nbytes != 0; nbytes = next_nbytes(o, nbytes)) {
        nsizes++;
    }
    for (int kind = 0; kind < SHOAL_BENCH_NOPS; kind++) {
        nops += o->ops[kind];
    }
    return nsizes * nops;
}

/* All cases into rows_p (cases, transports); *nwrong_p counts wrong elements. */
static shoal_status_t run_cases(shoal_bench_t *bench, shoal_bench_row_t *rows_p, long *nwrong_p)
{
    const shoal_bench_options_t *o   = bench->options;
    shoal_bench_row_t           *row = rows_p;
    for (int kind = 0; kind < SHOAL_BENCH_NOPS; kind++) {
        for (size_t nbytes = o->min_nbytes; o->ops[kind] && nbytes != 0; nbytes = next_nbytes(o, nbytes)) {
            shoal_coll_t coll = make_case(bench, (shoal_coll_kind_t)kind, nbytes);
            SHOAL_TRY(shoal_bench_measure(bench, &coll, row));
            for (int t = 0; t < bench->ntransports; t++, row++) {
                *nwrong_p += row->nwrong > 0 ? row->nwrong : 0;
                if (bench->bootstrap->rank == 0) {
                    shoal_bench_print_row(bench, row);
                }
            }
        }
    }
    return SHOAL_OK;
}

static shoal_status_t run(shoal_bench_t *bench)
{
    size_t nrows  = 0;
    long   nwrong = 0;
    bool   first  = bench->bootstrap->rank == 0;
    SHOAL_TRY(open_transports(bench));
    SHOAL_TRY(alloc_buffers(bench));
    nrows                   = count_cases(bench->options) * (size_t)bench->ntransports;
    shoal_bench_row_t *rows = calloc(nrows, sizeof(*rows));
    if (rows == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    if (first) {
        shoal_bench_print_header(bench);
    }
    shoal_status_t status = run_cases(bench, rows, &nwrong);
    if (status == SHOAL_OK && first) {
        shoal_bench_print_ratios(bench, rows, nrows);
    }
    free(rows);
    if (status == SHOAL_OK && nwrong > 0) {
        if (first) {
            shoal_error("bench: %ld elements are wrong", nwrong);
        }
        status = SHOAL_ERR_INTERNAL;
    }
    return status;
}

/* Binds the rank as training would: what the scheduler makes of unbound ranks is another measurement every time. */
static shoal_status_t take_core(const shoal_bench_t *bench)
{
    shoal_affinity_t affinity;
    return shoal_affinity_settle(bench->bootstrap->local_rank, bench->bootstrap->local_size, 1, &affinity);
}

static int rank_main(void *options)
{
    shoal_bench_t  bench  = {.options = options};
    shoal_status_t status = shoal_bootstrap_open("auto", &bench.bootstrap);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    shoal_log_set_rank(bench.bootstrap->rank, bench.bootstrap->host);
    status = take_core(&bench);
    status = status == SHOAL_OK ? run(&bench) : status;
    close_transports(&bench);
    free(bench.send);
    free(bench.recv);
    free(bench.times);
    shoal_bootstrap_close(bench.bootstrap);
    return shoal_status_exit_code(status);
}

int shoal_cmd_bench(int argc, char **argv)
{
    shoal_bench_options_t options = {
        .transport  = "all",
        .ops        = {true, true, true},
        .min_nbytes = 8 << 10,
        .max_nbytes = 64 << 20,
        .factor     = 2,
        .dtype      = SHOAL_F32,
        .niters     = 20,
        .nwarmup    = 3,
        .check      = true,
    };
    bool help = false;
    if (argc > 1 && strcmp(argv[1], "ops") == 0) {
        return shoal_bench_ops(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "collectives") == 0) {
        argc--;
        argv++;
    }
    shoal_status_t status = parse(argc, argv, &options, &help);
    if (status != SHOAL_OK || help) {
        return shoal_status_exit_code(status);
    }
    return options.nranks > 0 ? shoal_bootstrap_launch_local(options.nranks, rank_main, &options) : rank_main(&options);
}
