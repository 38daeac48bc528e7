/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Matmul by cuBLASLt. The first run of a matmul of some dimensions makes a plan, found again by its key: descriptors, and an algorithm,
 * which is the fastest of those that the library's heuristic offers, timed here and now or on an earlier day (cublaslt_tuned.c).
 *
 * cuBLASLt's matrices are column-major, so it is asked for Y^T = op(B)^T op(A)^T: the left operand is our B, the right one our A, and
 * what is transposed in our words is so in its words. Then the bias runs along its rows, as its epilogue wants.
 *
 * Bits: sums are fp32 (no TF32), and splits of a sum are added in fp32 and in a fixed order, so an algorithm gives the same bits every
 * time. Plans do not depend on addresses: every operand that is aligned to 16 bytes counts as aligned to 16 and no better, which is
 * all that the widest loads of these GPUs need. What is not aligned stays with the kernel that was there before.
 */
#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/error.h"
#include "kernels/cuda/own.h"

enum {
    ALIGNMENT           = 16,
    WORKSPACE_ALIGNMENT = 256,
    WORKSPACE_NBYTES    = 32 << 20,
    CANDIDATES          = 16,
    ROUNDS              = 5, /* times that every candidate is timed */
    LONGEST_BURST       = 16, /* runs that one time is taken over */
};

/* Products of fewer multiply-adds run in some microseconds, and have no use for sums split over the GPU. */
static const double smallest_split = 0x1p24;

typedef struct {
    shoal_cublaslt_key_t         key;
    bool                         own; /* cuBLASLt cannot: the rest is unset */
    size_t                       workspace_nbytes;
    cublasLtMatmulDescOpaque_t   desc;
    cublasLtMatrixLayoutOpaque_t left, right, y; /* of B, A and Y */
    cublasLtMatmulAlgo_t         algo;
} plan_t;

struct shoal_cuda_cublaslt {
    cublasLtHandle_t         handle;
    uint64_t                 version;
    char                     gpu[128];
    plan_t                 **plans; /* (capacity), a power of two: open addressing by key, less than half full */
    size_t                   count, capacity;
    shoal_cublaslt_records_t known, fresh; /* from the file; of this run */
    cudaEvent_t              start, stop;
};

typedef cublasLtMatmulHeuristicResult_t candidate_t;

/* What one product reads and writes. */
typedef struct {
    float       alpha;
    const void *left, *right, *bias;
    void       *y, *workspace;
} operands_t;

static shoal_status_t check(cublasStatus_t status, const char *call, const shoal_cublaslt_key_t *key)
{
    char text[SHOAL_CUBLASLT_KEY_TEXT] = "";
    if (status == CUBLAS_STATUS_SUCCESS) {
        return SHOAL_OK;
    }
    if (key != NULL) {
        shoal_cublaslt_key_format(key, text);
    }
    shoal_error("%s%s%s: %s (%s)", call, key != NULL ? " for matmul " : "", text, cublasLtGetStatusString(status),
                cublasLtGetStatusName(status));
    if (status == CUBLAS_STATUS_ALLOC_FAILED ||
        (status != CUBLAS_STATUS_INVALID_VALUE && shoal_cuda_is_full())) {
        shoal_error("the GPU has no memory left");
        return SHOAL_ERR_NO_MEMORY;
    }
    return SHOAL_ERR_INTERNAL;
}

#define TRY(call, key) SHOAL_TRY(check(call, #call, key))

static size_t workspace_for(const shoal_cublaslt_key_t *key)
{
    return (double)key->m * (double)key->n * (double)key->k < smallest_split ? 0 : WORKSPACE_NBYTES;
}

static size_t cublaslt_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    shoal_cublaslt_key_t key    = shoal_cublaslt_key(op, false);
    size_t               nbytes = workspace_for(&key);
    return nbytes > 0 ? nbytes + WORKSPACE_ALIGNMENT : 0;
}

static bool aligned(const void *address)
{
    return (uintptr_t)address % ALIGNMENT == 0;
}

static bool operands_aligned(const shoal_op_t *op, void *const *args)
{
    size_t nbytes = shoal_dtype_nbytes(op->dtype), out_nbytes = shoal_dtype_nbytes(op->matmul.out_dtype);
    return aligned(args[0]) && aligned(args[1]) && aligned(args[2]) && aligned(args[3]) && op->matmul.lda * nbytes % ALIGNMENT == 0 &&
           op->matmul.ldb * nbytes % ALIGNMENT == 0 && op->matmul.ldy * out_nbytes % ALIGNMENT == 0;
}

/* ---- the table of plans ---- */

static size_t hash(const shoal_cublaslt_key_t *key)
{
    const uint64_t words[] = {key->m, key->n, key->k, key->lda, key->ldb, key->ldy, key->flags, key->multiprocessors};
    uint64_t       sum     = 0;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 32;
    }
    return (size_t)sum;
}

/* Where the plan of this key is, or would be. */
static plan_t **find_slot(plan_t **plans, size_t capacity, const shoal_cublaslt_key_t *key)
{
    size_t i = hash(key) & (capacity - 1);
    while (plans[i] != NULL && memcmp(&plans[i]->key, key, sizeof(*key)) != 0) {
        i = (i + 1) & (capacity - 1);
    }
    return &plans[i];
}

static shoal_status_t make_room(shoal_cuda_cublaslt_t *lt)
{
    size_t capacity = lt->capacity > 0 ? 2 * lt->capacity : 64;
    if (2 * (lt->count + 1) < lt->capacity) {
        return SHOAL_OK;
    }
    plan_t **plans = calloc(capacity, sizeof(plan_t *));
    if (plans == NULL) {
        shoal_error("cuda: out of memory for the plans of %zu matmuls", lt->count);
        return SHOAL_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < lt->capacity; i++) {
        if (lt->plans[i] != NULL) {
            *find_slot(plans, capacity, &lt->plans[i]->key) = lt->plans[i];
        }
    }
    free(lt->plans);
    lt->plans    = plans;
    lt->capacity = capacity;
    return SHOAL_OK;
}

/* ---- descriptors and candidates ---- */

static shoal_status_t describe(plan_t *plan)
{
    const shoal_cublaslt_key_t *key      = &plan->key;
    bool                        trans_a  = (key->flags & SHOAL_CUBLASLT_TRANS_A) != 0;
    bool                        trans_b  = (key->flags & SHOAL_CUBLASLT_TRANS_B) != 0;
    cudaDataType_t              type     = (key->flags & SHOAL_CUBLASLT_A_BF16) != 0 ? CUDA_R_16BF : CUDA_R_32F;
    cudaDataType_t              out_type = (key->flags & SHOAL_CUBLASLT_Y_BF16) != 0 ? CUDA_R_16BF : CUDA_R_32F;
    cublasOperation_t           left     = trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t           right    = trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t          epilogue = CUBLASLT_EPILOGUE_BIAS;
    int32_t                     target   = (int32_t)key->multiprocessors;

    TRY(cublasLtMatmulDescInit(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), key);
    TRY(cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof(left)), key);
    TRY(cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof(right)), key);
    if ((key->flags & SHOAL_CUBLASLT_BIAS) != 0) {
        TRY(cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)), key);
        TRY(cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof(type)), key);
    }
    if (target != 0) {
        TRY(cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &target, sizeof(target)), key);
    }
    /* As they lie in memory, column-major. */
    TRY(cublasLtMatrixLayoutInit(&plan->left, type, trans_b ? key->k : key->n, trans_b ? key->n : key->k, (int64_t)key->ldb), key);
    TRY(cublasLtMatrixLayoutInit(&plan->right, type, trans_a ? key->m : key->k, trans_a ? key->k : key->m, (int64_t)key->lda), key);
    TRY(cublasLtMatrixLayoutInit(&plan->y, out_type, key->n, key->m, (int64_t)key->ldy), key);
    return SHOAL_OK;
}

/* The address is a part of cuBLASLt's descriptor, and changes from run to run. */
static cublasStatus_t set_bias(plan_t *plan, const void *bias)
{
    return bias == NULL ? CUBLAS_STATUS_SUCCESS
                        : cublasLtMatmulDescSetAttribute(&plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias));
}

/* Sums that are split may only be completed in fp32, in a buffer beside: in place means atomics, and Y's type may be bf16. */
static const uint32_t allowed_reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

static shoal_status_t set_preference(cublasLtMatmulPreferenceOpaque_t *preference, const plan_t *plan)
{
    static const cublasLtMatmulPreferenceAttributes_t operands[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace_nbytes = plan->workspace_nbytes;
    const uint32_t alignment        = ALIGNMENT;

    TRY(cublasLtMatmulPreferenceInit(preference), &plan->key);
    TRY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_nbytes,
                                             sizeof(workspace_nbytes)),
        &plan->key);
    TRY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &allowed_reductions,
                                             sizeof(allowed_reductions)),
        &plan->key);
    for (size_t i = 0; i < sizeof(operands) / sizeof(operands[0]); i++) {
        TRY(cublasLtMatmulPreferenceSetAttribute(preference, operands[i], &alignment, sizeof(alignment)), &plan->key);
    }
    return SHOAL_OK;
}

/* The heuristic is asked to keep to all this; the records of a file are not. */
static bool acceptable(const plan_t *plan, const candidate_t *candidate)
{
    uint32_t       reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t         written   = 0;
    cublasStatus_t status    = cublasLtMatmulAlgoConfigGetAttribute(&candidate->algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                                                                    sizeof(reduction), &written);
    return status == CUBLAS_STATUS_SUCCESS && candidate->state == CUBLAS_STATUS_SUCCESS &&
           candidate->workspaceSize <= plan->workspace_nbytes && (reduction & ~allowed_reductions) == 0;
}

/* What the library offers for the plan, the best by its estimate first; none is no error. */
static shoal_status_t list_candidates(const shoal_cuda_cublaslt_t *lt, plan_t *plan, candidate_t candidates_p[CANDIDATES], int *count_p)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    int                              offered = 0, count = 0;
    SHOAL_TRY(set_preference(&preference, plan));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(lt->handle, &plan->desc, &plan->left, &plan->right, &plan->y, &plan->y,
                                                           &preference, CANDIDATES, candidates_p, &offered);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) {
        SHOAL_TRY(check(status, "cublasLtMatmulAlgoGetHeuristic", &plan->key));
    }
    for (int i = 0; i < offered; i++) {
        if (acceptable(plan, &candidates_p[i])) {
            candidates_p[count++] = candidates_p[i];
        }
    }
    *count_p = count;
    return SHOAL_OK;
}

/* For the multiprocessors that are the op's now. Their number is a wish; workspace and operands are as for all of them. */
static shoal_cublaslt_key_t key_of(const shoal_cuda_t *cuda, const shoal_op_t *op, bool bias)
{
    shoal_cublaslt_key_t key = shoal_cublaslt_key(op, bias);
    key.multiprocessors      = cuda->room > 0 ? (uint64_t)(cuda->multiprocessors - cuda->room) : 0;
    return key;
}

int shoal_cublaslt_candidate_count(shoal_cuda_t *cuda, const shoal_op_t *op, bool bias)
{
    candidate_t          candidates[CANDIDATES];
    shoal_cublaslt_key_t key   = key_of(cuda, op, bias);
    plan_t               plan  = {.key = key, .workspace_nbytes = workspace_for(&key)};
    const void          *some  = (const void *)(uintptr_t)WORKSPACE_ALIGNMENT; /* an address, which nobody reads */
    int                  count = 0;
    if (describe(&plan) != SHOAL_OK || set_bias(&plan, bias ? some : NULL) != CUBLAS_STATUS_SUCCESS ||
        list_candidates(cuda->cublaslt, &plan, candidates, &count) != SHOAL_OK) {
        return 0;
    }
    return count;
}

static operands_t gather(const shoal_op_t *op, void *const *args, void *workspace)
{
    uintptr_t work = ((uintptr_t)workspace + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return (operands_t){
        .alpha = op->matmul.alpha, .left = args[1], .right = args[0], .bias = args[2], .y = args[3], .workspace = (void *)work};
}

static cublasStatus_t multiply(const shoal_cuda_t *cuda, plan_t *plan, const operands_t *x, const cublasLtMatmulAlgo_t *algo)
{
    const float    beta   = (plan->key.flags & SHOAL_CUBLASLT_ACCUMULATE) != 0 ? 1.0f : 0.0f;
    cublasStatus_t status = set_bias(plan, x->bias);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
    }
    return cublasLtMatmul(cuda->cublaslt->handle, &plan->desc, &x->alpha, x->left, &plan->left, x->right, &plan->right, &beta, x->y,
                          &plan->y, x->y, &plan->y, algo, plan->workspace_nbytes > 0 ? x->workspace : NULL, plan->workspace_nbytes,
                          cuda->stream);
}

/* ---- timing ---- */

/* Microseconds per run, over `burst` runs; infinite if the algorithm does not run. */
static shoal_status_t time_burst(shoal_cuda_t *cuda, plan_t *plan, const operands_t *x, const cublasLtMatmulAlgo_t *algo, int burst,
                                 double *us_p)
{
    const shoal_cuda_cublaslt_t *lt     = cuda->cublaslt;
    cublasStatus_t               status = CUBLAS_STATUS_SUCCESS;
    float                        ms     = 0;
    SHOAL_CUDA_TRY(cudaEventRecord(lt->start, cuda->stream));
    for (int i = 0; i < burst && status == CUBLAS_STATUS_SUCCESS; i++) {
        status = multiply(cuda, plan, x, algo);
    }
    SHOAL_CUDA_TRY(cudaEventRecord(lt->stop, cuda->stream));
    SHOAL_CUDA_TRY(cudaEventSynchronize(lt->stop));
    SHOAL_CUDA_TRY(cudaEventElapsedTime(&ms, lt->start, lt->stop));
    *us_p = status == CUBLAS_STATUS_SUCCESS ? (double)ms * 1e3 / burst : (double)INFINITY;
    return SHOAL_OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/*
 * Median times. Each round runs every candidate once, so that a clock that sinks as the GPU warms up is unfair to none. Short products
 * are timed in bursts, of 0.2 ms or so.
 */
static shoal_status_t time_candidates(shoal_cuda_t *cuda, plan_t *plan, const operands_t *x, const candidate_t *candidates, int count,
                                      double us_p[CANDIDATES])
{
    double times[CANDIDATES][ROUNDS], us = 0;
    int    burst = 1;
    for (int warm_up = 0; warm_up < 2; warm_up++) {
        for (int c = 0; c < count; c++) {
            SHOAL_TRY(time_burst(cuda, plan, x, &candidates[c].algo, 1, &us));
            if (us < 200.0 / LONGEST_BURST) {
                burst = LONGEST_BURST;
            } else if (us < 200.0 && burst < 200.0 / us) {
                burst = (int)(200.0 / us);
            }
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int c = 0; c < count; c++) {
            SHOAL_TRY(time_burst(cuda, plan, x, &candidates[c].algo, burst, &times[c][round]));
        }
    }
    for (int c = 0; c < count; c++) {
        qsort(times[c], ROUNDS, sizeof(double), compare_doubles);
        us_p[c] = times[c][ROUNDS / 2];
    }
    return SHOAL_OK;
}

/* An earlier candidate, the better one by the library's estimate, gives way only to one that is 1 % faster. */
static int fastest(const double *us, int count)
{
    int best = 0;
    for (int c = 1; c < count; c++) {
        if (us[c] < 0.99 * us[best]) {
            best = c;
        }
    }
    return best;
}

static void remember(shoal_cuda_cublaslt_t *lt, const plan_t *plan, double us)
{
    shoal_cublaslt_record_t record = {.key = plan->key, .version = lt->version, .us = us};
    snprintf(record.gpu, sizeof(record.gpu), "%s", lt->gpu);
    memcpy(record.algo, &plan->algo, sizeof(record.algo));
    shoal_cublaslt_records_put(&lt->fresh, &record);
}

/* Times into x->y, and leaves the choice in the plan. */
static shoal_status_t choose_fastest(shoal_cuda_t *cuda, plan_t *plan, const operands_t *x, const candidate_t *candidates, int count)
{
    double us[CANDIDATES];
    char   text[SHOAL_CUBLASLT_KEY_TEXT];
    SHOAL_TRY(time_candidates(cuda, plan, x, candidates, count, us));
    int best = fastest(us, count);
    if (isinf(us[best])) {
        return SHOAL_OK; /* none runs; the first one's error will be seen by the run that follows */
    }
    plan->algo = candidates[best].algo;
    remember(cuda->cublaslt, plan, us[best]);
    shoal_cublaslt_key_format(&plan->key, text);
    shoal_trace("cublaslt: matmul %s: algorithm %d of %d, %.1f us (the first takes %.1f), %.0f TFLOP/s", text, best + 1, count, us[best],
                us[0], 2e-6 * (double)plan->key.m * (double)plan->key.n * (double)plan->key.k / us[best]);
    return SHOAL_OK;
}

/* Where runs add to Y, they are timed on other memory, if there is enough left of it; else the first candidate it is. */
static shoal_status_t tune(shoal_cuda_t *cuda, plan_t *plan, operands_t x, const candidate_t *candidates, int count)
{
    size_t nbytes  = plan->key.m * plan->key.ldy * ((plan->key.flags & SHOAL_CUBLASLT_Y_BF16) != 0 ? 2 : 4);
    void  *scratch = NULL;
    if ((plan->key.flags & SHOAL_CUBLASLT_ACCUMULATE) == 0) {
        return choose_fastest(cuda, plan, &x, candidates, count);
    }
    if (cudaMalloc(&scratch, nbytes) != cudaSuccess) {
        cudaGetLastError(); /* not sticky: forget it */
        shoal_info("cublaslt: no %zu bytes left to time a matmul in: it takes the library's first choice", nbytes);
        return SHOAL_OK;
    }
    x.y                   = scratch;
    shoal_status_t status = shoal_cuda_check(cudaMemsetAsync(scratch, 0, nbytes, cuda->stream), "cudaMemsetAsync");
    if (status == SHOAL_OK) {
        status = choose_fastest(cuda, plan, &x, candidates, count);
    }
    cudaFree(scratch);
    return status;
}

/* The algorithm that the file names, if it still holds here. */
static bool recall(const shoal_cuda_cublaslt_t *lt, plan_t *plan)
{
    candidate_t                    result = {.state = CUBLAS_STATUS_NOT_SUPPORTED};
    const shoal_cublaslt_record_t *record = shoal_cublaslt_records_find(&lt->known, &plan->key, lt->version, lt->gpu);
    if (record == NULL) {
        return false;
    }
    memcpy(&result.algo, record->algo, sizeof(result.algo));
    cublasLtMatmulAlgo_t algo = result.algo;
    cublasStatus_t       status =
        cublasLtMatmulAlgoCheck(lt->handle, &plan->desc, &plan->left, &plan->right, &plan->y, &plan->y, &algo, &result);
    result.algo = algo;
    if (status != CUBLAS_STATUS_SUCCESS || !acceptable(plan, &result)) {
        return false;
    }
    plan->algo = algo;
    return true;
}

/* ---- plans ---- */

/* Leaves the op to the kernel that was there before, and says so. */
static shoal_status_t leave(plan_t *plan, const char *why)
{
    char text[SHOAL_CUBLASLT_KEY_TEXT];
    shoal_cublaslt_key_format(&plan->key, text);
    shoal_info("cublaslt: matmul %s stays with the slower own kernel: %s", text, why);
    plan->own = true;
    return SHOAL_OK;
}

static shoal_status_t make_plan(shoal_cuda_t *cuda, const operands_t *x, plan_t *plan)
{
    candidate_t            candidates[CANDIDATES];
    shoal_cuda_cublaslt_t *lt     = cuda->cublaslt;
    uint64_t               bf16   = SHOAL_CUBLASLT_A_BF16 | SHOAL_CUBLASLT_Y_BF16, types = plan->key.flags & bf16;
    bool                   tuning = cuda->tune && !cuda->recording; /* what is timed cannot be recorded */
    int                    count  = 0;

    plan->workspace_nbytes = workspace_for(&plan->key);
    if ((plan->key.flags & SHOAL_CUBLASLT_UNALIGNED) != 0) {
        return leave(plan, "an operand or a leading dimension is not aligned to 16 bytes");
    }
    if (x->bias != NULL && types != 0 && types != bf16) {
        return leave(plan, "a bias of a type that Y is not of");
    }
    SHOAL_TRY(describe(plan));
    TRY(set_bias(plan, x->bias), &plan->key);
    if (tuning && recall(lt, plan)) {
        return SHOAL_OK;
    }
    SHOAL_TRY(list_candidates(lt, plan, candidates, &count));
    if (count == 0) {
        return leave(plan, "cuBLASLt has no algorithm for it");
    }
    plan->algo = candidates[0].algo;
    return tuning && count > 1 ? tune(cuda, plan, *x, candidates, count) : SHOAL_OK;
}

static shoal_status_t find_plan(shoal_cuda_t *cuda, const shoal_cublaslt_key_t *key, const operands_t *x, plan_t **plan_p)
{
    shoal_cuda_cublaslt_t *lt = cuda->cublaslt;
    plan_t                *plan;
    if (lt->capacity > 0 && (plan = *find_slot(lt->plans, lt->capacity, key)) != NULL) {
        *plan_p = plan;
        return SHOAL_OK;
    }
    SHOAL_TRY(make_room(lt));
    plan = calloc(1, sizeof(*plan));
    if (plan == NULL) {
        shoal_error("cuda: out of memory for the plan of a matmul");
        return SHOAL_ERR_NO_MEMORY;
    }
    plan->key             = *key;
    shoal_status_t status = make_plan(cuda, x, plan);
    if (status != SHOAL_OK) {
        free(plan);
        return status;
    }
    *find_slot(lt->plans, lt->capacity, key) = plan;
    lt->count++;
    *plan_p = plan;
    return SHOAL_OK;
}

static shoal_status_t plan_of(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, const operands_t *x, plan_t **plan_p)
{
    shoal_cublaslt_key_t key = key_of(cuda, op, args[2] != NULL);
    if (!operands_aligned(op, args)) {
        key.flags |= SHOAL_CUBLASLT_UNALIGNED;
    }
    return find_plan(cuda, &key, x, plan_p);
}

static shoal_status_t cublaslt_prepare(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    operands_t x    = gather(op, args, workspace);
    plan_t    *plan = NULL;
    return plan_of(cuda, op, args, &x, &plan);
}

static shoal_status_t cublaslt_matmul(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    operands_t x    = gather(op, args, workspace);
    plan_t    *plan = NULL;
    SHOAL_TRY(plan_of(cuda, op, args, &x, &plan));
    if (plan->own) {
        return shoal_cuda_matmul(cuda, op, args, workspace);
    }
    return check(multiply(cuda, plan, &x, &plan->algo), "cublasLtMatmul", &plan->key);
}

/* ---- the instance ---- */

static shoal_status_t create(shoal_cuda_t *cuda)
{
    struct cudaDeviceProp  properties;
    shoal_cuda_cublaslt_t *lt = calloc(1, sizeof(*lt));
    if (lt == NULL) {
        shoal_error("cuda: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    cuda->cublaslt = lt; /* from here on release undoes what there is */
    TRY(cublasLtCreate(&lt->handle), NULL);
    SHOAL_CUDA_TRY(cudaEventCreate(&lt->start));
    SHOAL_CUDA_TRY(cudaEventCreate(&lt->stop));
    SHOAL_CUDA_TRY(cudaGetDeviceProperties(&properties, cuda->device));
    lt->version = cublasLtGetVersion();
    snprintf(lt->gpu, sizeof(lt->gpu), "%.127s", properties.name);
    if (cuda->tune && cuda->tune_file != NULL) {
        shoal_cublaslt_records_read(cuda->tune_file, true, &lt->known);
    }
    return SHOAL_OK;
}

shoal_status_t shoal_cuda_fill_cublaslt(shoal_cuda_t *cuda)
{
    static const shoal_cuda_kernel_t kernel = {cublaslt_matmul, cublaslt_workspace, "cublaslt", cublaslt_prepare};
    if (cuda->device >= 0) {
        shoal_status_t status = create(cuda);
        if (status != SHOAL_OK) {
            shoal_cuda_release_cublaslt(cuda);
            return status;
        }
    }
    for (int dtype = 0; dtype < SHOAL_CUDA_DTYPES; dtype++) {
        cuda->kernels[SHOAL_OP_MATMUL][dtype] = kernel;
    }
    return SHOAL_OK;
}

void shoal_cuda_release_cublaslt(shoal_cuda_t *cuda)
{
    shoal_cuda_cublaslt_t *lt = cuda->cublaslt;
    if (lt == NULL) {
        return;
    }
    if (lt->fresh.count > 0 && cuda->tune_file != NULL) {
        shoal_cublaslt_records_save(cuda->tune_file, &lt->fresh);
    }
    for (size_t i = 0; i < lt->capacity; i++) {
        free(lt->plans[i]);
    }
    free(lt->plans);
    shoal_cublaslt_records_free(&lt->known);
    shoal_cublaslt_records_free(&lt->fresh);
    if (lt->stop != NULL) {
        cudaEventDestroy(lt->stop);
    }
    if (lt->start != NULL) {
        cudaEventDestroy(lt->start);
    }
    if (lt->handle != NULL) {
        cublasLtDestroy(lt->handle);
    }
    free(lt);
    cuda->cublaslt = NULL;
}
