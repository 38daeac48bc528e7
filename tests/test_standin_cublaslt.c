/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stand-in for cuBLASLt: every algorithm that it offers against a plain double loop, over shapes, transposes, types, strides; that
 * algorithms differ in their bits and each repeats its own; that the heuristic keeps to what it is told; that misuse is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* after the five above */
#include <cmocka.h>
#include <cublasLt.h>
#include <math.h>

#include "tests/capture.h"
#include "tests/test_standin.h"

enum { MAX_ALGOS = 16 };

/* D = alpha op(A) op(B) + beta C + bias, column-major; what is allocated ends where the last element does. */
typedef struct {
    size_t        m, n, k, pad; /* pad: of every leading dimension */
    bool          trans_a, trans_b, bias;
    float         alpha, beta;
    shoal_dtype_t dtype, out_dtype;
} product_t;

typedef struct {
    cublasLtHandle_t             handle;
    cublasLtMatmulDescOpaque_t   desc;
    cublasLtMatrixLayoutOpaque_t a, b, d;
    size_t                       lda, ldb, ldd, a_nelem, b_nelem, d_nelem;
    void                        *a_memory, *b_memory, *d_memory, *bias_memory, *workspace; /* on the device */
    void                        *a_host, *b_host, *d_host, *bias_host;
} setup_t;

static const size_t workspace_nbytes = 1 << 20;

static cudaDataType_t cuda_type(shoal_dtype_t dtype)
{
    return dtype == SHOAL_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* Numbers of -1 to 1 that no other index has. */
static void *numbers(shoal_dtype_t dtype, size_t nelem, unsigned seed)
{
    void *memory = malloc(nelem * shoal_dtype_nbytes(dtype));
    for (size_t i = 0; i < nelem; i++) {
        put(memory, dtype, i, (float)((i * 2654435761u + seed * 40503u) % 20011u) / 10005.5f - 1.0f);
    }
    return memory;
}

static size_t nelem_of(size_t rows, size_t cols, size_t ld)
{
    return (cols - 1) * ld + rows;
}

static void set_desc(setup_t *s, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t nbytes)
{
    CHECK(cublasLtMatmulDescSetAttribute(&s->desc, attribute, value, nbytes) == CUBLAS_STATUS_SUCCESS);
}

static void describe(setup_t *s, const product_t *p)
{
    cublasOperation_t  left = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, right = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t     type     = cuda_type(p->out_dtype);
    size_t             a_rows = p->trans_a ? p->k : p->m, a_cols = p->trans_a ? p->m : p->k, b_rows = p->trans_b ? p->n : p->k,
           b_cols = p->trans_b ? p->k : p->n;
    s->lda        = a_rows + p->pad;
    s->ldb        = b_rows + p->pad;
    s->ldd        = p->m + p->pad;
    s->a_nelem    = nelem_of(a_rows, a_cols, s->lda);
    s->b_nelem    = nelem_of(b_rows, b_cols, s->ldb);
    s->d_nelem    = nelem_of(p->m, p->n, s->ldd);
    CHECK(cublasLtMatmulDescInit(&s->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatrixLayoutInit(&s->a, cuda_type(p->dtype), a_rows, a_cols, (int64_t)s->lda) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatrixLayoutInit(&s->b, cuda_type(p->dtype), b_rows, b_cols, (int64_t)s->ldb) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatrixLayoutInit(&s->d, type, p->m, p->n, (int64_t)s->ldd) == CUBLAS_STATUS_SUCCESS);
    set_desc(s, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof(left));
    set_desc(s, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof(right));
    if (p->bias) {
        set_desc(s, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue));
        set_desc(s, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof(type));
        set_desc(s, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &s->bias_memory, sizeof(s->bias_memory));
    }
}

static void set_up(setup_t *s, const product_t *p)
{
    describe(s, p);
    s->a_host      = numbers(p->dtype, s->a_nelem, 1);
    s->b_host      = numbers(p->dtype, s->b_nelem, 2);
    s->d_host      = numbers(p->out_dtype, s->d_nelem, 3);
    s->bias_host   = numbers(p->out_dtype, p->m, 4);
    s->a_memory    = on_device(s->a_host, s->a_nelem * shoal_dtype_nbytes(p->dtype));
    s->b_memory    = on_device(s->b_host, s->b_nelem * shoal_dtype_nbytes(p->dtype));
    s->d_memory    = on_device(s->d_host, s->d_nelem * shoal_dtype_nbytes(p->out_dtype));
    s->bias_memory = on_device(s->bias_host, p->m * shoal_dtype_nbytes(p->out_dtype));
    s->workspace   = on_device(NULL, workspace_nbytes);
    describe(s, p); /* again, with the address of the bias */
}

static void tear_down(setup_t *s)
{
    void *device[] = {s->a_memory, s->b_memory, s->d_memory, s->bias_memory, s->workspace};
    void *host[]   = {s->a_host, s->b_host, s->d_host, s->bias_host};
    for (size_t i = 0; i < 5; i++) {
        CHECK(cudaFree(device[i]) == cudaSuccess);
    }
    for (size_t i = 0; i < 4; i++) {
        free(host[i]);
    }
}

/* What the heuristic offers for operands of this alignment. */
static int offers(setup_t *s, uint64_t nbytes, uint32_t reductions, uint32_t alignment, cublasLtMatmulHeuristicResult_t results_p[MAX_ALGOS])
{
    cublasLtMatmulPreferenceOpaque_t preference;
    int                              count = 0;
    CHECK(cublasLtMatmulPreferenceInit(&preference) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &nbytes, sizeof(nbytes)) ==
          CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)) ==
          CUBLAS_STATUS_SUCCESS);
    for (int attribute = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; attribute <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; attribute++) {
        CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, (cublasLtMatmulPreferenceAttributes_t)attribute, &alignment,
                                                   sizeof(alignment)) == CUBLAS_STATUS_SUCCESS);
    }
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(s->handle, &s->desc, &s->a, &s->b, &s->d, &s->d, &preference, MAX_ALGOS,
                                                           results_p, &count);
    CHECK(status == (count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED));
    return count;
}

static cublasStatus_t multiply(setup_t *s, const product_t *p, const cublasLtMatmulAlgo_t *algo, size_t nbytes)
{
    return cublasLtMatmul(s->handle, &s->desc, &p->alpha, s->a_memory, &s->a, s->b_memory, &s->b, &p->beta, s->d_memory, &s->d, s->d_memory,
                          &s->d, algo, s->workspace, nbytes, NULL);
}

/* Runs the product from the same D as before, and brings it to result_p. */
static void run_product(setup_t *s, const product_t *p, const cublasLtMatmulAlgo_t *algo, void *result_p)
{
    size_t nbytes = s->d_nelem * shoal_dtype_nbytes(p->out_dtype);
    CHECK(cudaMemcpy(s->d_memory, s->d_host, nbytes, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(multiply(s, p, algo, workspace_nbytes) == CUBLAS_STATUS_SUCCESS);
    CHECK(cudaMemcpy(result_p, s->d_memory, nbytes, cudaMemcpyDeviceToHost) == cudaSuccess);
}

/* An element by the definition; *bound_p: the sum of magnitudes, which the rounding of sums is relative to. */
static double element(const setup_t *s, const product_t *p, size_t i, size_t j, double *bound_p)
{
    double sum = 0, bound = 0;
    for (size_t l = 0; l < p->k; l++) {
        double a = (double)get(s->a_host, p->dtype, p->trans_a ? i * s->lda + l : l * s->lda + i);
        double b = (double)get(s->b_host, p->dtype, p->trans_b ? l * s->ldb + j : j * s->ldb + l);
        sum += a * b;
        bound += fabs(a * b);
    }
    double c    = p->beta != 0 ? (double)p->beta * (double)get(s->d_host, p->out_dtype, j * s->ldd + i) : 0;
    double bias = p->bias ? (double)get(s->bias_host, p->out_dtype, i) : 0;
    *bound_p    = fabs((double)p->alpha) * bound + fabs(c) + fabs(bias);
    return (double)p->alpha * sum + c + bias;
}

static void check_result(const setup_t *s, const product_t *p, const void *result)
{
    size_t nbytes = shoal_dtype_nbytes(p->out_dtype);
    for (size_t at = 0; at < s->d_nelem; at++) {
        size_t i = at % s->ldd, j = at / s->ldd;
        if (i >= p->m) { /* between columns nothing changes */
            CHECK(memcmp((const char *)result + at * nbytes, (const char *)s->d_host + at * nbytes, nbytes) == 0);
            continue;
        }
        double bound, want = element(s, p, i, j, &bound), got = (double)get(result, p->out_dtype, at);
        CHECK(fabs(got - want) <= bound * 0x1p-20 + (p->out_dtype == SHOAL_BF16 ? fabs(want) * 0x1p-8 : 0));
    }
}

static void check_product(cublasLtHandle_t handle, const product_t *p)
{
    cublasLtMatmulHeuristicResult_t results[MAX_ALGOS];
    setup_t                         s = {.handle = handle};
    set_up(&s, p);
    void *result = malloc(s.d_nelem * 4), *again = malloc(s.d_nelem * 4);
    int   count = offers(&s, workspace_nbytes, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 256, results);
    CHECK(p->dtype == SHOAL_F32 && p->out_dtype == SHOAL_BF16 ? count == 0 : count > 0);
    for (int i = 0; i < count; i++) {
        run_product(&s, p, &results[i].algo, result);
        check_result(&s, p, result);
        run_product(&s, p, &results[i].algo, again);
        CHECK(memcmp(result, again, s.d_nelem * shoal_dtype_nbytes(p->out_dtype)) == 0);
    }
    free(result);
    free(again);
    tear_down(&s);
}

static void products(int rank, int size)
{
    static const size_t shapes[][3] = {{16, 24, 32}, {5, 7, 3}, {33, 1, 70}, {64, 48, 200}};
    cublasLtHandle_t    handle;
    (void)rank;
    (void)size;
    CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    for (unsigned variant = 0; variant < 4 * 64; variant++) {
        const size_t *shape = shapes[variant % 4];
        product_t     p     = {.m = shape[0], .n = shape[1], .k = shape[2], .pad = variant & 4 ? 8 : 0, .alpha = variant & 8 ? -0.5f : 1.0f};
        p.trans_a           = variant & 8;
        p.trans_b           = variant & 16;
        p.bias              = variant & 32;
        p.beta              = variant & 32 ? 0.0f : 2.0f;
        p.dtype             = variant & 64 ? SHOAL_BF16 : SHOAL_F32;
        p.out_dtype         = variant & 128 ? SHOAL_BF16 : SHOAL_F32;
        check_product(handle, &p);
    }
    CHECK(cublasLtDestroy(handle) == CUBLAS_STATUS_SUCCESS);
}

static void test_products(void **state)
{
    (void)state;
    assert_int_equal(run_ranks(1, "", products), 0);
}

static const product_t plain = {.m = 64, .n = 48, .k = 512, .alpha = 1, .dtype = SHOAL_F32, .out_dtype = SHOAL_F32};

/* Algorithms are told apart by their bits, and the heuristic names none that the preference excludes. */
static void choices(int rank, int size)
{
    cublasLtMatmulHeuristicResult_t results[MAX_ALGOS];
    setup_t                         s = {.handle = NULL};
    float                           first[64 * 48], other[64 * 48];
    int                             differing = 0;
    (void)rank;
    (void)size;
    CHECK(cublasLtCreate(&s.handle) == CUBLAS_STATUS_SUCCESS);
    set_up(&s, &plain);
    int all = offers(&s, workspace_nbytes, CUBLASLT_REDUCTION_SCHEME_MASK, 256, results);
    for (int i = 0; i < all; i++) {
        run_product(&s, &plain, &results[i].algo, i == 0 ? first : other);
        differing += i > 0 && memcmp(first, other, sizeof(first)) != 0;
    }
    CHECK(all >= 6 && differing >= 3);
    int aligned = offers(&s, workspace_nbytes, CUBLASLT_REDUCTION_SCHEME_MASK, 16, results);
    int unsplit = offers(&s, workspace_nbytes, CUBLASLT_REDUCTION_SCHEME_NONE, 16, results);
    int bare    = offers(&s, 0, CUBLASLT_REDUCTION_SCHEME_MASK, 16, results);
    CHECK(all > aligned && aligned > unsplit && unsplit > bare && bare > 0);
    for (int i = 0; i < bare; i++) {
        CHECK(results[i].workspaceSize == 0);
    }
    CHECK(offers(&s, 0, CUBLASLT_REDUCTION_SCHEME_NONE, 4, results) == 1); /* the one for any alignment */
}

static void test_choices(void **state)
{
    (void)state;
    assert_int_equal(run_ranks(1, "", choices), 0);
}

/* One thing is wrong at a time: the call is refused, and D stays. */
static void misuse(int rank, int size)
{
    cublasLtMatmulHeuristicResult_t results[MAX_ALGOS];
    setup_t                         s = {.handle = NULL}, wrong;
    float                           result[64 * 48], host[64 * 512];
    int32_t                         too_many = 100000;
    (void)rank;
    (void)size;
    CHECK(cublasLtCreate(&s.handle) == CUBLAS_STATUS_SUCCESS);
    set_up(&s, &plain);
    int count = offers(&s, workspace_nbytes, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, results);
    int split = 0;
    while (split < count && results[split].workspaceSize < 8192) {
        split++;
    }
    CHECK(split < count);
    wrong          = s;
    wrong.a_memory = host;
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    wrong          = s;
    wrong.b_memory = (char *)s.b_memory + 16; /* runs over its end */
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    wrong          = s;
    wrong.d_memory = s.a_memory; /* what is read would be written */
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(multiply(&s, &plain, &results[split].algo, 4096) == CUBLAS_STATUS_INVALID_VALUE);
    wrong           = s;
    wrong.workspace = (char *)s.workspace + 16;
    CHECK(multiply(&wrong, &plain, &results[split].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    wrong = s;
    memset(&wrong.a, 0, sizeof(wrong.a));
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    wrong = s;
    CHECK(cublasLtMatrixLayoutInit(&wrong.b, CUDA_R_32F, 511, 48, 512) == CUBLAS_STATUS_SUCCESS);
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    wrong = s;
    set_desc(&wrong, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &too_many, sizeof(too_many));
    CHECK(multiply(&wrong, &plain, &results[0].algo, workspace_nbytes) == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(cudaMemcpy(result, s.d_memory, sizeof(result), cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(memcmp(result, s.d_host, sizeof(result)) == 0);
}

static void test_misuse(void **state)
{
    (void)state;
    static const char *const reasons[] = {"cublasLtMatmul: A: 131072 bytes at", "cublasLtMatmul: B: 98304 bytes at", "A overlaps D",
                                          "bytes of workspace and gets 4096", "not device memory, or not aligned",
                                          "the layout of A is none, or was not initialized", "B is 511 x 48", "SM_COUNT_TARGET is 100000"};
    capture_begin();
    int         failures = run_ranks(1, "", misuse);
    const char *text     = capture_end();
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        assert_contains(text, reasons[i]);
    }
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests_name("standin: cublaslt", tests, NULL, NULL);
}
