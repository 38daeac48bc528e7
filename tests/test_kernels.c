/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs every case of test_kernels_cases.c on every device and variant of this build. Around each buffer and the workspace
 * lie guard bands that must not change; outputs start as NaN; inputs, and whatever lies between strided rows, must keep
 * their bits; buffers are aligned to an element and no better, but for the candidates "aligned", which so take the paths that read
 * several elements at once; a second run must give the same bits. Results are compared with the oracle in double precision, or, for
 * large cases, with the reference kernels.
 *
 * SHOAL_TEST_SEED=n replays the inputs of another run; the seed is printed. SHOAL_TEST_REQUIRE=cuda fails where no device of that name opens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "kernels/device.h"
#include "tests/guarded.h"
#include "tests/test_kernels.h"

/*
 * |got - want| <= tolerance * (|want| + rms(want)).
 * fp32: sums of up to some hundred products, each rounded to 2^-24, in any order, and functions good to a few ulp: 2^-16
 * leaves 256 roundings that all point the same way.
 * bf16: storing rounds by 2^-9 of the value. What an op keeps in bf16 between its steps rounds once or twice more, on the
 * scale of the whole row: 2^-7 in all. Coarse outputs come from sums of such roundings (attention's gradient subtracts
 * do . o with o rounded, then multiplies by k): 2^-5.
 */
static const double tolerances[SHOAL_DTYPE_COUNT] = {[SHOAL_F32] = 0x1p-16, [SHOAL_BF16] = 0x1p-7, [SHOAL_I32] = 0};

typedef struct {
    const char     *device, *variant;
    int             nthreads;
    shoal_device_t *instance; /* NULL: not on this machine */
} candidate_t;

/*
 * cuDNN, which wants aligned pointers, has its turn on the aligned of the two. The first is what large cases are compared with. In the build
 * on stand-ins for CUDA's libraries the others of the CPU have had their turn.
 */
static candidate_t candidates[] = {
    {"cpu", "ref", 1, NULL},
#ifndef SHOAL_CUDA_EMULATION
    {"cpu", "ref", 3, NULL},    {"cpu", "avx2", 1, NULL},   {"cpu", "avx2", 3, NULL}, {"cpu", "avx512", 1, NULL},
    {"cpu", "avx512", 3, NULL}, {"cpu", "auto", 1, NULL},   {"cpu", "auto", 2, NULL},
#endif
    {"cuda", "unaligned", 1, NULL}, {"cuda", "aligned", 1, NULL},
};
enum { CANDIDATE_COUNT = sizeof(candidates) / sizeof(candidates[0]) };

/* One argument of a case: what it is, its bytes before the run, and its values wanted after it. */
typedef struct {
    shoal_role_t   role;
    bool           coarse;
    shoal_dtype_t  dtype;
    shoal_shape_t  shape;
    size_t         nelem, nbytes;
    double        *want;    /* (nelem); NULL: omitted */
    unsigned char *initial; /* (nbytes) */
} buffer_t;

typedef struct {
    const kernel_case_t *test_case;
    shoal_op_t           op;
    size_t               number; /* in the table */
    buffer_t             buffers[SHOAL_OP_MAX_ARGS];
} problem_t;

static double tolerance_of(const buffer_t *buffer, const shoal_op_t *op)
{
    bool coarse = buffer->coarse && op->dtype == SHOAL_BF16;
    return coarse ? 4 * tolerances[SHOAL_BF16] : tolerances[buffer->dtype];
}

static uint64_t seed;
static double   worst[SHOAL_OP_COMPUTE_COUNT]; /* the largest error seen, as a fraction of the tolerance */

static void *must(void *memory)
{
    assert_non_null(memory);
    return memory;
}

static double get_element(shoal_dtype_t dtype, const void *x, size_t i)
{
    switch (dtype) {
    case SHOAL_F32:
        return (double)((const float *)x)[i];
    case SHOAL_BF16:
        return (double)shoal_bf16_to_f32(((const shoal_bf16_t *)x)[i]);
    default:
        return (double)((const int32_t *)x)[i];
    }
}

static void set_element(shoal_dtype_t dtype, void *x, size_t i, double value)
{
    switch (dtype) {
    case SHOAL_F32:
        ((float *)x)[i] = (float)value;
        break;
    case SHOAL_BF16:
        ((shoal_bf16_t *)x)[i] = shoal_f32_to_bf16((float)value);
        break;
    default:
        ((int32_t *)x)[i] = (int32_t)value;
    }
}

/* ---- setting up a problem ---- */

/* Random values where the buffer is read, NaN between its rows and all over a pure output. */
static void draw(const problem_t *problem, int arg, buffer_t *buffer)
{
    char   name[64];
    float *normal = must(calloc(buffer->nelem, sizeof(float)));
    snprintf(name, sizeof(name), "case %zu argument %d", problem->number, arg);
    shoal_rng_normal(shoal_rng_stream(seed, name), 0, buffer->nelem, 1.0f, normal);
    for (size_t i = 0; i < buffer->nelem; i++) {
        bool inside     = i % buffer->shape.ld < buffer->shape.columns;
        buffer->want[i] = inside && buffer->role != SHOAL_ROLE_WRITE ? (double)normal[i] : (double)NAN;
    }
    free(normal);
}

/* Rounds the values to the buffer's type, so that the oracle starts from what the kernel sees. */
static void round_buffer(buffer_t *buffer)
{
    for (size_t i = 0; buffer->want != NULL && i < buffer->nelem; i++) {
        set_element(buffer->dtype, buffer->initial, i, buffer->want[i]);
        buffer->want[i] = get_element(buffer->dtype, buffer->initial, i);
    }
}

static void create_buffer(problem_t *problem, int arg)
{
    const shoal_arg_t *row    = &shoal_op_row(problem->op.kind)->args[arg];
    buffer_t          *buffer = &problem->buffers[arg];
    if (row->role == SHOAL_ROLE_NONE || (problem->test_case->omit & OMIT(arg)) != 0) {
        return;
    }
    buffer->role    = shoal_op_role(&problem->op, arg);
    buffer->coarse  = (kind_specs[problem->op.kind].coarse & BIT(arg)) != 0;
    buffer->dtype   = shoal_op_arg_dtype(&problem->op, arg);
    buffer->shape   = row->shape(&problem->op);
    buffer->nelem   = (buffer->shape.rows - 1) * buffer->shape.ld + buffer->shape.columns;
    buffer->nbytes  = buffer->nelem * shoal_dtype_nbytes(buffer->dtype);
    buffer->want    = must(calloc(buffer->nelem, sizeof(double)));
    buffer->initial = must(calloc(buffer->nelem, 4));
    draw(problem, arg, buffer);
    if (buffer->dtype != SHOAL_I32) {
        round_buffer(buffer);
    }
}

static void create_problem(const kernel_case_t *test_case, const shoal_op_t *op, problem_t *problem_p)
{
    const kind_spec_t *spec = &kind_specs[op->kind];
    double            *values[SHOAL_OP_MAX_ARGS];

    *problem_p = (problem_t){.test_case = test_case, .op = *op, .number = (size_t)(test_case - kernel_cases)};
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        create_buffer(problem_p, i);
        values[i] = problem_p->buffers[i].want;
    }
    if (spec->prepare != NULL) {
        spec->prepare(&problem_p->op, values);
    }
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        round_buffer(&problem_p->buffers[i]);
    }
    if (!test_case->large) {
        spec->oracle(&problem_p->op, values);
    }
}

static void destroy_problem(problem_t *problem)
{
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        free(problem->buffers[i].want);
        free(problem->buffers[i].initial);
    }
}

/* ---- running it ---- */

typedef struct {
    const problem_t   *problem;
    const candidate_t *candidate;
    guarded_t          buffers[SHOAL_OP_MAX_ARGS], workspace;
    void              *args[SHOAL_OP_MAX_ARGS];
} run_t;

#define fail_run(run, format, ...)                                                                                        \
    fail_msg("case %zu (%s, %s, gradients %s) on %s %s, %d threads, seed %llu: " format, (run)->problem->number,           \
             shoal_op_kind_name((run)->problem->op.kind), shoal_dtype_name((run)->problem->op.dtype),                     \
             shoal_dtype_name((run)->problem->op.gdtype), (run)->candidate->device,                                       \
             (run)->candidate->variant ? (run)->candidate->variant : "", (run)->candidate->nthreads,                      \
             (unsigned long long)seed, __VA_ARGS__)

/* Which argument's memory an argument uses: its own unless the case aliases it. */
static int memory_of(const problem_t *problem, int arg)
{
    int alias = problem->test_case->alias;
    return alias != 0 && ALIAS_TO(alias) == arg ? ALIAS_FROM(alias) : arg;
}

static void run_create(const problem_t *problem, const candidate_t *candidate, run_t *run_p)
{
    shoal_device_t *device  = candidate->instance;
    size_t          work    = 0;
    bool            aligned = strcmp(candidate->variant, "aligned") == 0;
    *run_p                  = (run_t){.problem = problem, .candidate = candidate};
    assert_int_equal(device->ops->workspace(device, &problem->op, &work), SHOAL_OK);
    guarded_create(device, work, 0, &run_p->workspace);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        const buffer_t *buffer = &problem->buffers[i];
        if (buffer->want != NULL && memory_of(problem, i) == i) {
            guarded_create(device, buffer->nbytes, aligned ? 0 : shoal_dtype_nbytes(buffer->dtype), &run_p->buffers[i]);
        }
    }
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        const guarded_t *guarded = &run_p->buffers[memory_of(problem, i)];
        run_p->args[i]           = problem->buffers[i].want ? (char *)guarded->memory + guarded->offset : NULL;
    }
}

static void run_destroy(run_t *run)
{
    guarded_destroy(run->candidate->instance, &run->workspace);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        guarded_destroy(run->candidate->instance, &run->buffers[i]);
    }
}

static void run_once(run_t *run)
{
    shoal_device_t *device = run->candidate->instance;
    guarded_upload(device, &run->workspace, NULL);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (run->buffers[i].image != NULL) {
            guarded_upload(device, &run->buffers[i], run->problem->buffers[i].initial);
        }
    }
    char *work = (char *)run->workspace.memory + run->workspace.offset;
    if (device->ops->run(device, &run->problem->op, run->args, work) != SHOAL_OK ||
        device->ops->synchronize(device) != SHOAL_OK) {
        fail_run(run, "%s", "run failed");
    }
    if (!guarded_download(device, &run->workspace)) {
        fail_run(run, "wrote outside its workspace of %zu bytes", run->workspace.nbytes);
    }
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (run->buffers[i].image != NULL && !guarded_download(device, &run->buffers[i])) {
            fail_run(run, "wrote outside argument %d", i);
        }
    }
}

/* ---- comparing ---- */

static double rms(const double *x, size_t count)
{
    double sum = 0, n = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isnan(x[i])) {
            sum += x[i] * x[i];
            n++;
        }
    }
    return n > 0 ? sqrt(sum / n) : 0;
}

static void check_same_bits(const run_t *run, int arg, const void *got, const void *initial, size_t nbytes)
{
    if (memcmp(got, initial, nbytes) != 0) {
        fail_run(run, "argument %d is an input, or lies between rows, and was changed", arg);
    }
}

static void check_output(const run_t *run, int arg)
{
    const buffer_t      *buffer = &run->problem->buffers[arg];
    int                  source = memory_of(run->problem, arg);
    const guarded_t     *memory = &run->buffers[source];
    const unsigned char *got = memory->image + memory->offset, *initial = run->problem->buffers[source].initial;
    size_t               esize = shoal_dtype_nbytes(buffer->dtype);
    double               scale = rms(buffer->want, buffer->nelem);
    double               tolerance = tolerance_of(buffer, &run->problem->op);
    unsigned char        aligned[8];

    for (size_t i = 0; i < buffer->nelem; i++) {
        if (isnan(buffer->want[i])) {
            check_same_bits(run, arg, got + i * esize, initial + i * esize, esize);
            continue;
        }
        memcpy(aligned, got + i * esize, esize);
        double value = get_element(buffer->dtype, aligned, 0), error = fabs(value - buffer->want[i]);
        double limit = tolerance * (fabs(buffer->want[i]) + scale);
        if (!(error <= limit)) {
            fail_run(run, "argument %d row %zu column %zu of (%zu,%zu): got %.9g, want %.9g, error %.3g, limit %.3g", arg,
                     i / buffer->shape.ld, i % buffer->shape.ld, buffer->shape.rows, buffer->shape.columns, value,
                     buffer->want[i], error, limit);
        }
        worst[run->problem->op.kind] = fmax(worst[run->problem->op.kind], limit > 0 ? error / limit : 0);
    }
}

static void check_outputs(const run_t *run)
{
    int overwritten = run->problem->test_case->alias != 0 ? ALIAS_FROM(run->problem->test_case->alias) : -1;
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        const buffer_t *buffer = &run->problem->buffers[i];
        if (buffer->want == NULL || i == overwritten) {
            continue;
        }
        if (buffer->role == SHOAL_ROLE_READ) {
            check_same_bits(run, i, run->buffers[i].image + run->buffers[i].offset, buffer->initial, buffer->nbytes);
        } else {
            check_output(run, i);
        }
    }
}

/* The outputs of a run become what is wanted of the others. */
static void adopt_outputs(const run_t *run, problem_t *problem)
{
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        buffer_t        *buffer = &problem->buffers[i];
        const guarded_t *memory = &run->buffers[memory_of(problem, i)];
        if (buffer->want != NULL && buffer->role != SHOAL_ROLE_READ) {
            unsigned char *aligned = must(malloc(buffer->nbytes));
            memcpy(aligned, memory->image + memory->offset, buffer->nbytes);
            for (size_t j = 0; j < buffer->nelem; j++) {
                buffer->want[j] = get_element(buffer->dtype, aligned, j);
            }
            free(aligned);
        }
    }
}

static void check_deterministic(run_t *run)
{
    unsigned char *first[SHOAL_OP_MAX_ARGS] = {NULL};
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (run->buffers[i].image != NULL) {
            first[i] = must(malloc(guarded_nbytes(&run->buffers[i])));
            memcpy(first[i], run->buffers[i].image, guarded_nbytes(&run->buffers[i]));
        }
    }
    run_once(run);
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        if (first[i] != NULL && memcmp(first[i], run->buffers[i].image, guarded_nbytes(&run->buffers[i])) != 0) {
            fail_run(run, "argument %d differs between two runs", i);
        }
        free(first[i]);
    }
}

/* A GPU for which cuDNN is expected runs no attention without, and what cuDNN does not serve is no case for it. */
static bool is_refused(const candidate_t *candidate, const shoal_op_t *op)
{
    size_t work      = 0;
    bool   attention = op->dtype == SHOAL_BF16 && (op->kind == SHOAL_OP_ATTENTION || op->kind == SHOAL_OP_ATTENTION_BWD);
    return attention && strcmp(candidate->device, "cuda") == 0 &&
           candidate->instance->ops->workspace(candidate->instance, op, &work) == SHOAL_ERR_CONFIG;
}

static void check_op(const kernel_case_t *test_case, const shoal_op_t *op)
{
    problem_t problem;
    run_t     run;
    create_problem(test_case, op, &problem);
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        if (candidates[i].instance == NULL) {
            continue;
        }
        if (is_refused(&candidates[i], op)) {
            continue;
        }
        run_create(&problem, &candidates[i], &run);
        run_once(&run);
        if (test_case->large && i == 0) {
            adopt_outputs(&run, &problem);
        }
        check_outputs(&run);
        check_deterministic(&run);
        run_destroy(&run);
    }
    destroy_problem(&problem);
}

static bool has_gradients(shoal_op_kind_t kind)
{
    bool found = false;
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        const shoal_arg_t *arg = &shoal_op_row(kind)->args[i];
        found |= arg->role != SHOAL_ROLE_NONE && arg->type == SHOAL_ARG_GDTYPE;
    }
    return found;
}

/* A case in every combination of the types that its op has. */
static void check_case(const kernel_case_t *test_case)
{
    shoal_op_t op = test_case->op;
    for (shoal_dtype_t dtype = SHOAL_F32; dtype <= SHOAL_BF16; dtype++) {
        for (shoal_dtype_t other = SHOAL_F32; other <= SHOAL_BF16; other++) {
            bool gradients = has_gradients(op.kind), matmul = op.kind == SHOAL_OP_MATMUL, cast = op.kind == SHOAL_OP_CAST;
            if (other != SHOAL_F32 && !gradients && !matmul && !cast) {
                continue;
            }
            if (cast && test_case->alias != 0 && dtype != other) {
                continue; /* only elements of one size may share memory */
            }
            op.dtype  = dtype;
            op.gdtype = other;
            if (matmul) {
                op.matmul.out_dtype = other;
            }
            if (cast) {
                op.cast.src_dtype = dtype;
                op.cast.dst_dtype = other;
            }
            check_op(test_case, &op);
        }
    }
}

static void test_kind(void **state)
{
    shoal_op_kind_t kind  = *(const shoal_op_kind_t *)*state;
    size_t          count = 0;
    for (size_t i = 0; i < kernel_case_count; i++) {
        if (kernel_cases[i].op.kind == kind) {
            check_case(&kernel_cases[i]);
            count++;
        }
    }
    assert_true(count > 0);
    print_message("%-14s %2zu cases, largest error %.2f of the tolerance\n", shoal_op_kind_name(kind), count, worst[kind]);
}

/* ---- element by element: test_kernels_edges.c ---- */

/*
 * The CPU's kernels keep to the suite's tolerances alone: their derivative of GELU is 2^-7 off at
 * some |x| > 10^34.
 */
static void test_gelu_bf16(void **state)
{
    (void)state;
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        if (candidates[i].instance != NULL && strcmp(candidates[i].device, "cuda") == 0) {
            check_gelu_bf16(candidates[i].instance);
        }
    }
}

static void test_optim_elements(void **state)
{
    (void)state;
    for (size_t i = 0; i < kernel_case_count; i++) {
        for (int j = 0; kernel_cases[i].op.kind == SHOAL_OP_OPTIM && j < CANDIDATE_COUNT; j++) {
            if (candidates[j].instance != NULL) {
                check_optim_edges(candidates[j].instance, &kernel_cases[i].op);
                check_optim_steps(candidates[j].instance, &kernel_cases[i].op, seed);
            }
        }
    }
}

/* ---- what is not an op ---- */

static void test_op_table(void **state)
{
    (void)state;
    for (int i = 0; i < SHOAL_OP_COUNT; i++) {
        shoal_op_t kind = {.kind = (shoal_op_kind_t)i};
        assert_non_null(shoal_op_kind_name(kind.kind));
        assert_true(shoal_op_writes(&kind) != 0); /* an op without a result would never be waited for */
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(shoal_op_kind_name((shoal_op_kind_t)i), shoal_op_kind_name((shoal_op_kind_t)j));
        }
    }
    for (size_t i = 0; i < kernel_case_count; i++) {
        assert_true(shoal_op_flops(&kernel_cases[i].op) >= 0 && shoal_op_nbytes(&kernel_cases[i].op) >= 0);
    }
    shoal_op_t op = {.kind = SHOAL_OP_MATMUL, .dtype = SHOAL_BF16, .matmul = {.m = 3, .n = 5, .k = 7}};
    op.matmul.out_dtype = SHOAL_F32;
    assert_true(shoal_op_flops(&op) == 2 * 3 * 5 * 7);
    assert_true(shoal_op_nbytes(&op) == 2 * (3 * 7 + 7 * 5) + 4 * 3 * 5);
}

static void test_device_refusals(void **state)
{
    (void)state;
    shoal_device_t       *device = NULL;
    shoal_device_config_t config = {.nthreads = 1};
    shoal_op_t            op     = {.kind = SHOAL_OP_FETCH};
    assert_int_equal(shoal_device_open("abacus", &config, &device), SHOAL_ERR_CONFIG);
    config.variant = "abacus";
    assert_int_equal(shoal_device_open("cpu", &config, &device), SHOAL_ERR_CONFIG);
    config = (shoal_device_config_t){.nthreads = 0};
    assert_int_equal(shoal_device_open("cpu", &config, &device), SHOAL_ERR_CONFIG);
    assert_null(device);
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        if (candidates[i].instance != NULL) {
            assert_int_equal(candidates[i].instance->ops->run(candidates[i].instance, &op, NULL, NULL), SHOAL_ERR_INVALID);
        }
    }
}

static void test_device_figures(void **state)
{
    (void)state;
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        shoal_device_info_t info;
        double              flops = 0;
        if (candidates[i].instance == NULL || strcmp(candidates[i].device, "cpu") != 0 || candidates[i].nthreads > 1) {
            continue;
        }
        candidates[i].instance->ops->info(candidates[i].instance, &info);
        assert_true(info.memory_nbytes > 0);
        assert_int_equal(candidates[i].instance->ops->measure_peak(candidates[i].instance, SHOAL_BF16, &flops), SHOAL_OK);
        assert_true(flops > 1e6);
    }
}

static int open_candidates(void **state)
{
    (void)state;
    const char *text = getenv("SHOAL_TEST_SEED"), *required = getenv("SHOAL_TEST_REQUIRE");
#ifdef SHOAL_CUDA_EMULATION
    required = "cuda";
#endif
    bool found = required == NULL;
    seed              = text != NULL ? strtoull(text, NULL, 0) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        bool                  aligned = strcmp(candidates[i].variant, "aligned") == 0;
        shoal_device_config_t config  = {.nthreads  = candidates[i].nthreads,
                                         .variant   = candidates[i].variant,
                                         .attention = aligned ? SHOAL_ATTENTION_AUTO : SHOAL_ATTENTION_OWN};
        shoal_device_info_t   info;
        if (shoal_device_open(candidates[i].device, &config, &candidates[i].instance) != SHOAL_OK) {
            print_message("not here: %s %s\n", candidates[i].device, candidates[i].variant);
            continue;
        }
        candidates[i].instance->ops->info(candidates[i].instance, &info);
        print_message("%s, %s, %d threads\n", info.name, info.kernels, candidates[i].nthreads);
        found |= required != NULL && strcmp(candidates[i].device, required) == 0;
    }
    if (!found) {
        print_error("device %s was required and is not here\n", required);
    }
    return candidates[0].instance != NULL && found ? 0 : -1;
}

static int close_candidates(void **state)
{
    (void)state;
    for (int i = 0; i < CANDIDATE_COUNT; i++) {
        if (candidates[i].instance != NULL) {
            candidates[i].instance->ops->close(candidates[i].instance);
        }
    }
    return 0;
}

int main(void)
{
    shoal_op_kind_t   kinds[SHOAL_OP_COMPUTE_COUNT];
    struct CMUnitTest tests[SHOAL_OP_COMPUTE_COUNT + 5];
    for (int i = 0; i < SHOAL_OP_COMPUTE_COUNT; i++) {
        kinds[i] = (shoal_op_kind_t)i;
        tests[i] = (struct CMUnitTest){shoal_op_kind_name(kinds[i]), test_kind, NULL, NULL, &kinds[i]};
    }
    tests[SHOAL_OP_COMPUTE_COUNT]     = (struct CMUnitTest)cmocka_unit_test(test_op_table);
    tests[SHOAL_OP_COMPUTE_COUNT + 1] = (struct CMUnitTest)cmocka_unit_test(test_device_refusals);
    tests[SHOAL_OP_COMPUTE_COUNT + 2] = (struct CMUnitTest)cmocka_unit_test(test_device_figures);
    tests[SHOAL_OP_COMPUTE_COUNT + 3] = (struct CMUnitTest)cmocka_unit_test(test_gelu_bf16);
    tests[SHOAL_OP_COMPUTE_COUNT + 4] = (struct CMUnitTest)cmocka_unit_test(test_optim_elements);
    return cmocka_run_group_tests_name("kernels", tests, open_candidates, close_candidates);
}
