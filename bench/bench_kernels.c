/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How fast the CPU device's kernels are: each op, at the shapes of a GPT-2 sized model, by the plain C reference and by a
 * candidate variant in one run. Products and attention are rated in GFLOP/s (attention counts the causal half), the rest in
 * GB/s of the traffic they cannot avoid. Times are the best of several runs: on a shared machine, noise only adds.
 *
 *   bench_kernels [-t threads] [-v variant] [-m milliseconds per op] [-r] [word]
 *
 * -r leaves the reference out; a word selects the ops whose name contains it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "kernels/device.h"
#include "kernels/op_table.h"

typedef struct {
    const char *note;
    shoal_op_t  op;
} bench_case_t;

/* The model: 4 sequences of 1024, width 768, 12 heads, vocabulary 50304. */
enum { B = 4, T = 1024, N = B * T, C = 768, H = 12, D = 64, F = 4 * C, V = 50304, ROWS = 256, P = 8 << 20 };

static const shoal_range_t decaying[] = {{0, P / 2}};

#define ATTENTION_DIMS(b, t, h, k, d)                                                                                \
    .attention = {.B = b, .T = t, .H = h, .K = k, .D = d, .ldq = (h) * (d), .ldk = (k) * (d), .ldv = (k) * (d),        \
                  .ldo = (h) * (d), .lddq = (h) * (d), .lddk = (k) * (d), .lddv = (k) * (d), .scale = 0.125f}
#define HEADPREP_DIMS(kind_)                                                                                         \
    .headprep = {.N = N, .T = T, .heads = H, .D = D, .ldx = C, .ldy = C, .ldsrc = C, .rope = kind_, .eps = 1e-5f}
#define OPTIM_DIMS(kind_)                                                                                            \
    .optim = {.n = P, .optim = kind_, .ranges = decaying, .count = 1, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f,     \
              .clip = 1.0f, .kappa = 0.85f, .snr_clip = 3.0f, .delta = 8.0f}

static const bench_case_t cases[] = {
    {"", {.kind = SHOAL_OP_EMBED, .embed = {N, T, C, V, false}}},
    {"", {.kind = SHOAL_OP_EMBED_BWD, .embed = {N, T, C, V, false}}},
    {"layer", {.kind = SHOAL_OP_NORM, .norm = {N, C, SHOAL_NORM_LAYER, 1e-5f, 1.0f, false}}},
    {"layer", {.kind = SHOAL_OP_NORM_BWD, .norm = {N, C, SHOAL_NORM_LAYER, 1e-5f, 1.0f, false}}},
    {"", {.kind = SHOAL_OP_MATMUL,
          .matmul = {.m = 512, .n = C, .k = C, .lda = C, .ldb = C, .ldy = C, .trans_b = true, .alpha = 1.0f}}},
    {"", {.kind = SHOAL_OP_COLSUM, .colsum = {N, C, C, 1.0f, false}}},
    {"norm, interleaved", {.kind = SHOAL_OP_HEADPREP, HEADPREP_DIMS(SHOAL_ROPE_INTERLEAVED)}},
    {"norm, half", {.kind = SHOAL_OP_HEADPREP, HEADPREP_DIMS(SHOAL_ROPE_HALF)}},
    {"norm, interleaved", {.kind = SHOAL_OP_HEADPREP_BWD, HEADPREP_DIMS(SHOAL_ROPE_INTERLEAVED)}},
    {"T 256", {.kind = SHOAL_OP_ATTENTION, ATTENTION_DIMS(4, 256, 12, 12, 64)}},
    {"T 1024", {.kind = SHOAL_OP_ATTENTION, ATTENTION_DIMS(1, 1024, 12, 12, 64)}},
    {"T 1024, D 128, 3 to 1", {.kind = SHOAL_OP_ATTENTION, ATTENTION_DIMS(1, 1024, 6, 2, 128)}},
    {"T 256", {.kind = SHOAL_OP_ATTENTION_BWD, ATTENTION_DIMS(4, 256, 12, 12, 64)}},
    {"T 1024", {.kind = SHOAL_OP_ATTENTION_BWD, ATTENTION_DIMS(1, 1024, 12, 12, 64)}},
    {"gelu", {.kind = SHOAL_OP_ACT, .act = {N, F, SHOAL_ACT_GELU}}},
    {"gelu tanh", {.kind = SHOAL_OP_ACT, .act = {N, F, SHOAL_ACT_GELU_TANH}}},
    {"swiglu", {.kind = SHOAL_OP_ACT, .act = {N, F, SHOAL_ACT_SWIGLU}}},
    {"gelu", {.kind = SHOAL_OP_ACT_BWD, .act = {N, F, SHOAL_ACT_GELU}}},
    {"gelu tanh", {.kind = SHOAL_OP_ACT_BWD, .act = {N, F, SHOAL_ACT_GELU_TANH}}},
    {"swiglu", {.kind = SHOAL_OP_ACT_BWD, .act = {N, F, SHOAL_ACT_SWIGLU}}},
    {"", {.kind = SHOAL_OP_XENT, .xent = {ROWS, V, V, 1e-4f, 1e-3f, true}}},
    {"", {.kind = SHOAL_OP_SUM, .reduce = {P, 1.0f, false}}},
    {"", {.kind = SHOAL_OP_SUMSQ, .reduce = {P, 1.0f, false}}},
    {"fp32 to bf16", {.kind = SHOAL_OP_CAST, .cast = {P, SHOAL_F32, SHOAL_BF16, false}}},
    {"bf16 added to fp32", {.kind = SHOAL_OP_CAST, .cast = {P, SHOAL_BF16, SHOAL_F32, true}}},
    {"adamw", {.kind = SHOAL_OP_OPTIM, OPTIM_DIMS(SHOAL_OPTIM_ADAMW)}},
    {"dana mk4", {.kind = SHOAL_OP_OPTIM, OPTIM_DIMS(SHOAL_OPTIM_DANA_MK4)}},
    {"dana star mk4", {.kind = SHOAL_OP_OPTIM, OPTIM_DIMS(SHOAL_OPTIM_DANA_STAR_MK4)}},
};

/* What an argument holds. Values are small and of both signs, in (0, 1] where the op wants them positive, or tokens. */
typedef struct {
    size_t        nelem; /* 0: not given */
    shoal_dtype_t dtype;
    enum { SIGNED, POSITIVE, TOKENS } values;
} bench_arg_t;

/* The arguments of an op, as kernels/ops.h orders them: a table, if a long one, of one entry per kind. */
static void bench_args(const shoal_op_t *op, bench_arg_t args[SHOAL_OP_MAX_ARGS])
{
#define SET(...) memcpy(args, ((bench_arg_t[SHOAL_OP_MAX_ARGS]){__VA_ARGS__}), SHOAL_OP_MAX_ARGS * sizeof(*args))
    const shoal_dtype_t d = op->dtype, g = op->gdtype, f = SHOAL_F32, i = SHOAL_I32;
    size_t nx, nk, na, nl;
    switch (op->kind) {
    case SHOAL_OP_EMBED:
        nx = op->embed.N * op->embed.C;
        SET({op->embed.N, i, TOKENS}, {op->embed.V * op->embed.C, d, SIGNED}, {op->embed.T * op->embed.C, d, SIGNED},
            {nx, d, SIGNED});
        break;
    case SHOAL_OP_EMBED_BWD:
        nx = op->embed.N * op->embed.C;
        SET({op->embed.N, i, TOKENS}, {nx, d, SIGNED}, {op->embed.V * op->embed.C, g, SIGNED},
            {op->embed.T * op->embed.C, g, SIGNED});
        break;
    case SHOAL_OP_NORM:
        nx = op->norm.N * op->norm.C;
        SET({nx, d, SIGNED}, {nx, d, SIGNED}, {op->norm.C, d, SIGNED}, {op->norm.C, d, SIGNED}, {nx, d, SIGNED}, {nx, d, SIGNED},
            {2 * op->norm.N, f, POSITIVE});
        break;
    case SHOAL_OP_NORM_BWD:
        nx = op->norm.N * op->norm.C;
        SET({nx, d, SIGNED}, {op->norm.C, d, SIGNED}, {2 * op->norm.N, f, POSITIVE}, {nx, d, SIGNED}, {nx, d, SIGNED},
            {nx, d, SIGNED}, {op->norm.C, g, SIGNED}, {op->norm.C, g, SIGNED});
        break;
    case SHOAL_OP_MATMUL:
        SET({op->matmul.m * op->matmul.k, d, SIGNED}, {op->matmul.n * op->matmul.k, d, SIGNED}, {0, d, SIGNED},
            {op->matmul.m * op->matmul.n, op->matmul.out_dtype, SIGNED});
        break;
    case SHOAL_OP_COLSUM:
        SET({op->colsum.m * op->colsum.ld, d, SIGNED}, {op->colsum.n, g, SIGNED});
        break;
    case SHOAL_OP_HEADPREP:
        nx = op->headprep.N * op->headprep.ldx;
        SET({nx, d, SIGNED}, {op->headprep.D, d, SIGNED}, {op->headprep.T * op->headprep.D, f, SIGNED}, {nx, d, SIGNED});
        break;
    case SHOAL_OP_HEADPREP_BWD:
        nx = op->headprep.N * op->headprep.ldx;
        SET({nx, d, SIGNED}, {op->headprep.D, d, SIGNED}, {op->headprep.T * op->headprep.D, f, SIGNED}, {nx, d, SIGNED},
            {nx, d, SIGNED}, {op->headprep.D, g, SIGNED});
        break;
    case SHOAL_OP_ATTENTION:
    case SHOAL_OP_ATTENTION_BWD:
        nx = op->attention.B * op->attention.T * op->attention.ldq;
        nk = op->attention.B * op->attention.T * op->attention.ldk;
        nl = op->attention.B * op->attention.T * op->attention.H;
        na = op->kind == SHOAL_OP_ATTENTION ? 0 : 1;
        SET({nx, d, SIGNED}, {nk, d, SIGNED}, {nk, d, SIGNED}, {nx, d, SIGNED}, {nl, f, POSITIVE}, {na * nx, d, SIGNED},
            {na * nx, d, SIGNED}, {na * nk, d, SIGNED}, {na * nk, d, SIGNED});
        break;
    case SHOAL_OP_ACT:
    case SHOAL_OP_ACT_BWD:
        nx = op->act.N * op->act.F;
        na = op->act.act == SHOAL_ACT_SWIGLU ? 2 * nx : nx;
        nk = op->kind == SHOAL_OP_ACT ? 0 : na;
        SET({na, d, SIGNED}, {nx, d, SIGNED}, {nk, d, SIGNED});
        break;
    case SHOAL_OP_XENT:
        SET({op->xent.n * op->xent.ld, d, SIGNED}, {op->xent.n, i, TOKENS}, {op->xent.n, f, SIGNED});
        break;
    case SHOAL_OP_SUM:
    case SHOAL_OP_SUMSQ:
        SET({op->reduce.n, f, SIGNED}, {1, f, SIGNED});
        break;
    case SHOAL_OP_CAST:
        SET({op->cast.n, op->cast.src_dtype, SIGNED}, {op->cast.n, op->cast.dst_dtype, SIGNED});
        break;
    case SHOAL_OP_OPTIM:
        nx = op->optim.n;
        SET({nx, f, SIGNED}, {nx, f, SIGNED}, {nx, f, POSITIVE}, {nx, f, POSITIVE}, {nx, f, SIGNED}, {nx, d, SIGNED},
            {1, f, POSITIVE}, {SHOAL_SCALAR_COUNT, f, POSITIVE});
        break;
    default:
        SET({0, f, SIGNED});
    }
#undef SET
}

static void bench_fill(void *x, const bench_arg_t *arg)
{
    uint32_t state = 12345;
    for (size_t i = 0; i < arg->nelem; i++) {
        state     = state * 1664525u + 1013904223u;
        float u   = (float)(state >> 8) * 0x1p-24f;
        float val = arg->values == POSITIVE ? 0.01f + 0.99f * u : 2.0f * u - 1.0f;
        if (arg->values == TOKENS) {
            ((int32_t *)x)[i] = (int32_t)(u * u * 0.999f * V); /* some tokens are more frequent than others */
        } else if (arg->dtype == SHOAL_BF16) {
            ((shoal_bf16_t *)x)[i] = shoal_f32_to_bf16(val);
        } else {
            ((float *)x)[i] = val;
        }
    }
}

/* Best time of one run in seconds, over at least three runs and `ms` milliseconds; a negative number on failure. */
static double bench_time(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace, double ms)
{
    double  best  = 1e30;
    int64_t start = shoal_time_ns();
    for (int run = 0; run < 3 || shoal_ms_since(start) < ms; run++) {
        int64_t began = shoal_time_ns();
        if (device->ops->run(device, op, args, workspace) != SHOAL_OK || device->ops->synchronize(device) != SHOAL_OK) {
            return -1.0;
        }
        best = fmin(best, shoal_ms_since(began) * 1e-3);
        if (shoal_ms_since(start) > 10.0 * ms) {
            break; /* a slow reference: one run will do */
        }
    }
    return best;
}

/* Allocates the op's arguments and workspace on the device, times it, frees them. */
static double bench_run(shoal_device_t *device, const shoal_op_t *op, double ms)
{
    bench_arg_t specs[SHOAL_OP_MAX_ARGS];
    void       *args[SHOAL_OP_MAX_ARGS] = {0};
    void       *workspace = NULL;
    size_t      nbytes    = 0;
    double      seconds   = -1.0;
    bench_args(op, specs);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (specs[i].nelem == 0) {
            continue;
        }
        if (device->ops->alloc(device, specs[i].nelem * shoal_dtype_nbytes(specs[i].dtype), &args[i]) != SHOAL_OK) {
            goto free_args;
        }
        bench_fill(args[i], &specs[i]);
    }
    if (device->ops->workspace(device, op, &nbytes) == SHOAL_OK &&
        device->ops->alloc(device, nbytes + 64, &workspace) == SHOAL_OK) {
        seconds = bench_time(device, op, args, workspace, ms);
        device->ops->free(device, workspace, nbytes + 64);
    }
free_args:
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (args[i] != NULL) {
            device->ops->free(device, args[i], specs[i].nelem * shoal_dtype_nbytes(specs[i].dtype));
        }
    }
    return seconds;
}

static bool bench_is_compute(const shoal_op_t *op)
{
    return op->kind == SHOAL_OP_MATMUL || op->kind == SHOAL_OP_ATTENTION || op->kind == SHOAL_OP_ATTENTION_BWD;
}

static bool bench_print(shoal_device_t *reference, shoal_device_t *candidate, const bench_case_t *c, shoal_dtype_t dtype,
                        double ms)
{
    shoal_op_t op = c->op;
    op.dtype      = dtype;
    if (op.kind == SHOAL_OP_MATMUL) {
        op.matmul.out_dtype = dtype;
    }
    double fast = bench_run(candidate, &op, ms);
    double slow = reference != NULL ? bench_run(reference, &op, ms) : NAN;
    double work = (bench_is_compute(&op) ? shoal_op_flops(&op) : shoal_op_nbytes(&op)) * 1e-9;
    printf("%-14s %-22s %-5s %10.3f ms %9.1f %-8s", shoal_op_kind_name(op.kind), c->note, shoal_dtype_name(dtype),
           fast * 1e3, work / fast, bench_is_compute(&op) ? "GFLOP/s" : "GB/s");
    if (reference != NULL) {
        printf(" %10.3f ms %8.1fx", slow * 1e3, slow / fast);
    }
    printf("\n");
    fflush(stdout);
    return fast > 0.0 && !(slow < 0.0);
}

int main(int argc, char **argv)
{
    shoal_device_config_t config = {.nthreads = 1, .variant = "auto"};
    shoal_device_t       *reference = NULL, *candidate = NULL;
    double                ms   = 100.0;
    bool                  good = true, compare = true;
    for (int option; (option = getopt(argc, argv, "t:v:m:r")) != -1;) {
        switch (option) {
        case 't': config.nthreads = atoi(optarg); break;
        case 'v': config.variant = optarg; break;
        case 'm': ms = atof(optarg); break;
        case 'r': compare = false; break;
        default: fprintf(stderr, "usage: %s [-t threads] [-v variant] [-m ms] [-r] [word]\n", argv[0]); return 2;
        }
    }
    if (shoal_device_open("cpu", &config, &candidate) != SHOAL_OK) {
        return 1;
    }
    config.variant = "ref";
    if (compare && shoal_device_open("cpu", &config, &reference) != SHOAL_OK) {
        candidate->ops->close(candidate);
        return 1;
    }
    printf("%-14s %-22s %-5s %13s %18s %13s %9s\n", "op", "", "dtype", "candidate", "rate    ", compare ? "reference" : "",
           compare ? "ratio" : "");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (optind < argc && strstr(shoal_op_kind_name(cases[i].op.kind), argv[optind]) == NULL) {
            continue;
        }
        good = bench_print(reference, candidate, &cases[i], SHOAL_F32, ms) && good;
        good = bench_print(reference, candidate, &cases[i], SHOAL_BF16, ms) && good;
    }
    if (reference != NULL) {
        reference->ops->close(reference);
    }
    candidate->ops->close(candidate);
    return good ? 0 : 1;
}
