/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench collectives`, also the bench that is meant when none is named: the collectives of every transport that can serve these
 * ranks, timed and checked in one run. The ranks are those of the launcher, or forked here with -n.
 */
#include "src/bench/bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/bootstrap/affinity.h"
#include "src/commands.h"
#include "src/config/keys.h"
#include "src/config/option.h"

static const char usage[] =
    "Usage: shoal bench [collectives] [OPTION]...\n"
    "       shoal bench ops [OPTION]... CONFIG [group.key=value ...]\n"
    "Time the collectives, with one row per operation, size and transport, and check their results; or, with ops, every op of a\n"
    "training step (see shoal bench ops --help).\n"
    "\n"
    "  -n, --ranks N          fork N ranks here; without it the ranks are the launcher's\n"
    "  -t, --transport NAME   ucx, mpi, nccl or self; all (the default): every one that can serve these ranks and this memory\n"
    "  -d, --device NAME      cpu (the default), or cuda: buffers on the GPUs, and times by their clocks\n"
    "  -o, --op NAME          all_gather, reduce_scatter, all_reduce or all (the default)\n"
    "      --min SIZE         smallest size in bytes, with K, M or G for powers of 1024 (default 8K)\n"
    "      --max SIZE         largest size (default 64M)\n"
    "      --factor N         from one size to the next (default 2)\n"
    "      --dtype NAME       fp32 (the default) or bf16\n"
    "      --iters N          measured iterations (default 20)\n"
    "      --warmup N         iterations before them (default 3)\n"
    "      --check            compare results with exact sums (the default)\n"
    "      --no-check         do not\n"
    "      --poll             never sleep while a collective is under way; without it ranks wait as in training (cpu)\n"
    "      --ctas N           NCCL: thread blocks of a collective at most; 0 (the default): its choice\n"
    "      --policy NAME      NCCL: as parallel.gather_policy (auto)\n"
    "      --windows NAME     NCCL: as parallel.windows (auto)\n"
    "      --link-gbs X       what a rank can send at, to compare busbw with; without it what the GPU's data sheet says, if it does\n"
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
    return shoal_option_int("bench", option, text, min, 1000000, count_p);
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

static shoal_status_t parse_device(const char *text, bool *device_p)
{
    *device_p = strcmp(text, "cuda") == 0;
    return *device_p || strcmp(text, "cpu") == 0 ? SHOAL_OK : refuse("device", text, "cpu or cuda");
}

static shoal_status_t parse_speed(const char *option, const char *text, double *gbs_p)
{
    char *end;
    *gbs_p = strtod(text, &end);
    return end != text && *end == '\0' && *gbs_p > 0 && *gbs_p < 1e9 ? SHOAL_OK : refuse(option, text, "a number above 0");
}

/* One of the choices of a configuration key, as its number. */
static shoal_status_t parse_choice(const char *option, const char *key_name, const char *text, int *choice_p)
{
    const shoal_key_t *key = shoal_key_find(key_name);
    char               expected[128];
    for (int choice = 0; key->choices[choice] != NULL; choice++) {
        if (strcmp(key->choices[choice], text) == 0) {
            *choice_p = choice;
            return SHOAL_OK;
        }
    }
    shoal_key_expects(key, expected, sizeof(expected));
    return refuse(option, text, expected);
}

enum {
    OPT_MIN = 256, OPT_MAX, OPT_FACTOR, OPT_DTYPE, OPT_ITERS, OPT_WARMUP, OPT_CHECK, OPT_NO_CHECK, OPT_POLL, OPT_JSON, OPT_CTAS,
    OPT_POLICY, OPT_WINDOWS, OPT_LINK
};

static shoal_status_t parse_option(int option, const char *value, shoal_bench_options_t *o)
{
    int number = 0;
    switch (option) {
    case 'n': return parse_count("--ranks", value, 1, &o->nranks);
    case 't': o->transport = value; return SHOAL_OK;
    case 'o': return parse_op(value, o->ops);
    case OPT_MIN: return parse_size("min", value, &o->min_nbytes);
    case OPT_MAX: return parse_size("max", value, &o->max_nbytes);
    case 'd': return parse_device(value, &o->device);
    case OPT_FACTOR: SHOAL_TRY(parse_count("--factor", value, 2, &number)); o->factor = (size_t)number; return SHOAL_OK;
    case OPT_DTYPE: return parse_dtype(value, &o->dtype);
    case OPT_ITERS: return parse_count("--iters", value, 1, &o->niters);
    case OPT_WARMUP: return parse_count("--warmup", value, 0, &o->nwarmup);
    case OPT_CHECK: o->check = true; return SHOAL_OK;
    case OPT_NO_CHECK: o->check = false; return SHOAL_OK;
    case OPT_POLL: o->poll = true; return SHOAL_OK;
    case OPT_JSON: o->json = true; return SHOAL_OK;
    case OPT_CTAS:
        SHOAL_TRY(parse_count("--ctas", value, 0, &number));
        o->config.max_ctas[SHOAL_COMM_GATHER] = o->config.max_ctas[SHOAL_COMM_REDUCE] = number;
        return SHOAL_OK;
    case OPT_POLICY:
        SHOAL_TRY(parse_choice("policy", "parallel.gather_policy", value, &number));
        o->config.gather_policy = (shoal_cta_policy_t)number;
        return SHOAL_OK;
    case OPT_WINDOWS:
        SHOAL_TRY(parse_choice("windows", "parallel.windows", value, &number));
        o->config.windows = (shoal_windows_t)number;
        return SHOAL_OK;
    case OPT_LINK: return parse_speed("link-gbs", value, &o->link_gbs);
    default: return SHOAL_ERR_CONFIG;
    }
}

/* What would have no effect is refused. */
static shoal_status_t check_options(const shoal_bench_options_t *o)
{
    bool nccl = o->config.max_ctas[SHOAL_COMM_GATHER] != 0 || o->config.gather_policy != SHOAL_CTA_AUTO ||
                o->config.windows != SHOAL_WINDOWS_AUTO;
    if (o->device ? o->poll : nccl) {
        shoal_error("bench: %s; shoal bench --help says more",
                    o->device ? "--poll is not for --device cuda" : "--ctas, --policy and --windows are for --device cuda");
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
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
        {"json", no_argument, NULL, OPT_JSON},           {"device", required_argument, NULL, 'd'},
        {"ctas", required_argument, NULL, OPT_CTAS},     {"policy", required_argument, NULL, OPT_POLICY},
        {"windows", required_argument, NULL, OPT_WINDOWS}, {"link-gbs", required_argument, NULL, OPT_LINK},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    optind = 0;
    while ((option = getopt_long(argc, argv, ":n:t:d:o:h", longs, NULL)) != -1) {
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
    return check_options(o);
}

/* ---- Cases ---- */

/* A case of about nbytes: at least one element for every rank. */
static shoal_coll_t make_case(const shoal_bench_t *bench, shoal_coll_kind_t kind, size_t nbytes)
{
    size_t nelem  = nbytes / shoal_dtype_nbytes(bench->options->dtype);
    size_t blocks = kind == SHOAL_COLL_ALL_REDUCE ? 1 : (size_t)bench->bootstrap->size;
    size_t n      = nelem / blocks > 0 ? nelem / blocks : 1;
    return (shoal_coll_t){.kind = kind, .dtype = bench->options->dtype, .n = n};
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

static shoal_status_t make_comm(const shoal_bench_t *bench, shoal_bench_transport_t *t, shoal_comm_use_t use)
{
    const shoal_transport_ops_t *ops   = t->transport->ops;
    int                          size  = bench->bootstrap->size;
    shoal_group_t                group = {.size = size, .tag = (int)use, .use = use, .staging_nbytes = largest_staging(bench, ops)};
    int                          ranks[size];
    for (int r = 0; r < size; r++) {
        ranks[r] = r;
    }
    group.ranks   = ranks;
    group.staging = t->staging[use] = malloc(group.staging_nbytes + 1);
    if (group.staging == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    SHOAL_TRY(ops->comm_create(t->transport, &group, &t->comms[use]));
    return t->memory != NULL && ops->attach != NULL ? ops->attach(t->comms[use], t->memory, t->memory_nbytes) : SHOAL_OK;
}

static shoal_status_t add_transport(shoal_bench_t *bench, const shoal_transport_ops_t *ops)
{
    shoal_bench_transport_t *t = &bench->transports[bench->ntransports];
    SHOAL_TRY(ops->open(&bench->peers, &bench->options->config, &t->transport));
    t->name = ops->name;
    t->send = bench->send;
    t->recv = bench->recv;
    bench->ntransports++;
    if (bench->device != NULL) {
        SHOAL_TRY(shoal_bench_alloc_device(bench, t));
    }
    SHOAL_TRY(make_comm(bench, t, SHOAL_COMM_GATHER));
    return make_comm(bench, t, SHOAL_COMM_REDUCE);
}

/* MPI can serve only ranks that a launcher of its own started; `self` only a rank alone, on the host. */
static bool can_serve(const shoal_bench_t *bench, const shoal_transport_backend_t *backend)
{
    const shoal_bootstrap_t *b    = bench->bootstrap;
    const char              *name = backend->name;
    if (strcmp(name, "self") == 0) {
        return b->size == 1 && !bench->options->device;
    }
    bool launched = strncmp(b->method, "pmix", 4) == 0 || strcmp(b->method, "mpi") == 0;
    return backend->queued == bench->options->device && (strcmp(name, "mpi") != 0 || launched);
}

static shoal_status_t open_transports(shoal_bench_t *bench)
{
    const shoal_transport_ops_t *ops;
    if (strcmp(bench->options->transport, "all") != 0) {
        SHOAL_TRY(shoal_transport_find(bench->options->transport, bench->bootstrap->size, bench->options->device, &ops));
        if ((ops->enqueue != NULL) != bench->options->device) { /* a rank alone is given any */
            shoal_error("bench: transport %s does not work on %s memory", ops->name, bench->options->device ? "a GPU's" : "the host's");
            return SHOAL_ERR_CONFIG;
        }
        return add_transport(bench, ops);
    }
    for (const shoal_transport_backend_t *backend = shoal_transport_backends;
         backend->name != NULL && bench->ntransports < SHOAL_BENCH_MAX_TRANSPORTS; backend++) {
        char why[512] = "not these ranks";
        if (can_serve(bench, backend) && shoal_transport_table(backend, &ops, why, sizeof(why)) == SHOAL_OK) {
            SHOAL_TRY(add_transport(bench, ops));
        } else if (bench->bootstrap->rank == 0 && backend->queued == bench->options->device) {
            shoal_info("bench: transport %s cannot serve: %s", backend->name, why);
        }
    }
    return bench->ntransports > 0 ? SHOAL_OK : SHOAL_ERR_CONFIG;
}

static void close_transports(shoal_bench_t *bench)
{
    for (int i = bench->ntransports - 1; i >= 0; i--) {
        shoal_bench_transport_t *t = &bench->transports[i];
        for (int use = 0; use < SHOAL_COMM_USES; use++) {
            if (t->comms[use] != NULL) {
                t->transport->ops->comm_destroy(t->comms[use]);
            }
        }
        shoal_bench_free_device(bench, t);
        t->transport->ops->close(t->transport);
        free(t->staging[SHOAL_COMM_GATHER]);
        free(t->staging[SHOAL_COMM_REDUCE]);
    }
}

/* ---- The run ---- */

static shoal_status_t alloc_buffers(shoal_bench_t *bench)
{
    size_t size   = (size_t)bench->bootstrap->size;
    size_t ntimes = (size_t)bench->options->niters * SHOAL_BENCH_MAX_TRANSPORTS;
    size_t nbytes = bench->options->max_nbytes + size * sizeof(float); /* a tiny case is rounded up to an element per rank */
    bench->buffer_nbytes = nbytes;
    bench->send          = calloc(1, nbytes);
    bench->recv          = calloc(1, nbytes);
    bench->times         = calloc((size + 1) * ntimes, sizeof(*bench->times));
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
    SHOAL_TRY(alloc_buffers(bench));
    SHOAL_TRY(shoal_bench_open_device(bench));
    SHOAL_TRY(open_transports(bench));
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
    bench.peers = shoal_bootstrap_peers(bench.bootstrap);
    shoal_log_set_rank(bench.bootstrap->rank, bench.bootstrap->host);
    status = take_core(&bench);
    status = status == SHOAL_OK ? run(&bench) : status;
    close_transports(&bench);
    shoal_bench_close_device(&bench);
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
        .config     = {.patience_s = SHOAL_BENCH_PATIENCE_S},
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
