/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attention in bf16 by cuDNN. The first run of an op makes a plan (cuDNN compiles a kernel for its dimensions, up to a second),
 * later runs look it up, name the pointers and enqueue. Sequences below SMALLEST_T go to the kernel that stood in the registry before, which
 * is faster there. What else cuDNN cannot do is an error where it is expected to be there, for that kernel is many times slower, and a
 * warning on other GPUs (required).
 *
 * Backward comes in three ways. The fast one adds up dq in fp32 in whatever order blocks finish. Where the device is to be deterministic, dq
 * is a product of its own instead, for which cuDNN keeps T x T scores per head in memory; so that this stays small, the op is cut into
 * slices of a few sequences, or of a few heads of one sequence, that run one after the other. From 9.25 on, sm_90 has a third: the
 * fast one whose blocks take turns, in memory linear in T. It is taken where slices would be many; one slice is faster (cudnn-frontend
 * decides in the same way).
 *
 * Workspace is declared by formulas, since plans of a program are made without a GPU. They follow what cuDNN 9.19 asks for; a configuration
 * that wants more than was declared is passed over for the next.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/op_table.h"

enum {
    OLDEST_VERSION   = 91501, /* before, backward wants T padded */
    SERIAL_VERSION   = 92500, /* from here on sm_90's backward can take turns */
    SERIAL_CAPABILITY = 90,
    SMALLEST_T       = 64,    /* a block's rows: for less, starting cuDNN's kernels costs more than they save */
    LARGEST_D        = 128,
    VECTOR_NBYTES    = 16,
    SCRATCH_NBYTES   = 256, /* alignment of what lies in the workspace */
    PLAN_SPARE       = 4096,
    QUERY_TILE       = 64, /* what cuDNN rounds T up to in its scores */
    KEY_TILE         = 128,
};

static const size_t SLICE_SCORES_NBYTES = (size_t)256 << 20; /* a sequence of 2048 with 32 heads */

typedef struct plan {
    struct plan             *next;
    shoal_cudnn_shape_t      op;    /* of the whole op, by which the plan is found */
    shoal_cudnn_shape_t      shape; /* of what runs at once: of op, or of one slice */
    bool                     said;  /* that the displaced kernel runs */
    shoal_cudnn_graph_t      graph;
    cudnnBackendDescriptor_t plan;      /* NULL: cuDNN cannot */
    float                    scale, lowest, one;
} plan_t;

struct shoal_cuda_cudnn {
    cudnnHandle_t       handle; /* NULL without a GPU */
    size_t              version;
    shoal_cuda_kernel_t forward, backward; /* what cuDNN displaced */
    plan_t             *plans;
    char                exceptions[160]; /* the first of them */
};

/* Where things lie in the workspace, from its first multiple of SCRATCH_NBYTES on. */
typedef struct {
    size_t delta, dq_sum, plan, nbytes;
} scratch_t;

static size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static size_t largest_divisor(size_t n, size_t at_most)
{
    size_t d = n < at_most ? n : at_most;
    while (d > 1 && n % d != 0) {
        d--;
    }
    return d > 1 ? d : 1;
}

static shoal_cudnn_shape_t shape_of(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    shoal_cudnn_shape_t s = {SHOAL_CUDNN_FORWARD, op->attention.B, op->attention.T,   op->attention.H,   op->attention.K, op->attention.D,
                             op->attention.ldq,   op->attention.ldk, op->attention.ldv, op->attention.ldo, 0, 0, 0};
    if (op->kind == SHOAL_OP_ATTENTION_BWD) {
        s.pass = cuda->deterministic ? SHOAL_CUDNN_BACKWARD_ORDERED : SHOAL_CUDNN_BACKWARD;
        s.lddq = op->attention.lddq;
        s.lddk = op->attention.lddk;
        s.lddv = op->attention.lddv;
    }
    return s;
}

/* The part of an op that runs at once: all of it but for BACKWARD_ORDERED. */
static shoal_cudnn_shape_t slice_of(const shoal_cudnn_shape_t *whole)
{
    shoal_cudnn_shape_t s = *whole;
    if (s.pass == SHOAL_CUDNN_BACKWARD_ORDERED) {
        size_t scores = s.H * s.T * s.T * sizeof(shoal_bf16_t), group = s.H / s.K;
        s.B = largest_divisor(s.B, SLICE_SCORES_NBYTES / scores);
        if (s.B == 1) {
            s.K = largest_divisor(s.K, SLICE_SCORES_NBYTES / (scores / s.K));
            s.H = s.K * group;
        }
    }
    return s;
}

/* Whether many slices of BACKWARD_ORDERED are to be one BACKWARD_SERIAL, if this GPU has it. Known without one, as the workspace must be. */
static bool may_be_serial(const shoal_cuda_t *cuda, const shoal_cudnn_shape_t *whole)
{
    shoal_cudnn_shape_t slice = slice_of(whole);
    return memcmp(&slice, whole, sizeof(slice)) != 0 && cuda->cudnn->version >= SERIAL_VERSION && cuda->capability == SERIAL_CAPABILITY;
}

static shoal_cudnn_shape_t serial_of(const shoal_cudnn_shape_t *whole)
{
    shoal_cudnn_shape_t s = *whole;
    s.pass                = SHOAL_CUDNN_BACKWARD_SERIAL;
    return s;
}

static scratch_t scratch_of(const shoal_cudnn_shape_t *s)
{
    size_t    rows = s->B * s->H * s->T, plan = PLAN_SPARE;
    scratch_t scratch = {0};
    if (s->pass != SHOAL_CUDNN_FORWARD) {
        scratch.dq_sum = scratch.delta + round_up(rows * sizeof(float), SCRATCH_NBYTES);
        scratch.plan   = scratch.dq_sum;
        if (s->H != s->K) {
            plan += 2 * round_up(rows * s->D * sizeof(shoal_bf16_t), SCRATCH_NBYTES); /* dk and dv by query head */
        }
    }
    if (s->pass == SHOAL_CUDNN_BACKWARD || s->pass == SHOAL_CUDNN_BACKWARD_SERIAL) {
        scratch.plan += round_up(rows * s->D * sizeof(float), SCRATCH_NBYTES);
        plan += s->B * s->H * round_up(s->T, QUERY_TILE) * s->D * sizeof(float); /* sm_80's kernel keeps such a sum of its own, a serial one the turns */
    } else if (s->pass == SHOAL_CUDNN_BACKWARD_ORDERED) {
        plan += s->B * s->H * round_up(s->T, QUERY_TILE) * round_up(s->T, KEY_TILE) * sizeof(shoal_bf16_t);
    }
    scratch.nbytes = scratch.plan + plan;
    return scratch;
}

static bool whole_vectors(size_t nelem)
{
    return nelem % (VECTOR_NBYTES / sizeof(shoal_bf16_t)) == 0;
}

/* Why cuDNN is not asked for an op, or NULL. By the op alone, so that plans of a program agree with its runs. */
static const char *unserved(const shoal_op_t *op)
{
    bool strides = whole_vectors(op->attention.ldq) && whole_vectors(op->attention.ldk) && whole_vectors(op->attention.ldv) &&
                   whole_vectors(op->attention.ldo);
    if (op->kind == SHOAL_OP_ATTENTION_BWD) {
        strides = strides && whole_vectors(op->attention.lddq) && whole_vectors(op->attention.lddk) && whole_vectors(op->attention.lddv);
    }
    if (op->attention.T < SMALLEST_T) {
        return "sequences are shorter than 64";
    }
    if (op->attention.D > LARGEST_D || !whole_vectors(op->attention.D)) {
        return "heads are not a multiple of 8 and at most 128 wide";
    }
    return op->attention.H % op->attention.K != 0 ? "heads do not share keys evenly" : strides ? NULL : "a leading dimension is no multiple of 8";
}

/* For short sequences the displaced kernel is meant, not made do with. */
static bool is_meant(const shoal_op_t *op)
{
    return op->attention.T < SMALLEST_T;
}

/*
 * Whether attention without cuDNN is an error. Left to `auto` it is on the GPUs for which cuDNN's kernels for these graphs are known to
 * exist: there the displaced kernel is nobody's wish but a missing or old library's doing. Of other GPUs not enough is known to refuse
 * what runs, if slowly.
 */
static bool required(const shoal_cuda_t *cuda)
{
    return cuda->attention == SHOAL_ATTENTION_CUDNN ||
           (cuda->attention == SHOAL_ATTENTION_AUTO && (cuda->capability == 80 || cuda->capability == 90));
}

/* All but lse, which is f32 and may begin at any element. */
static bool aligned(const shoal_op_t *op, void *const *args)
{
    uintptr_t bits = 0;
    for (int i = 0; i < (op->kind == SHOAL_OP_ATTENTION ? 4 : 9); i++) {
        bits |= i == 4 ? 0 : (uintptr_t)args[i];
    }
    return bits % VECTOR_NBYTES == 0;
}

static const shoal_cuda_kernel_t *displaced(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    return op->kind == SHOAL_OP_ATTENTION ? &cuda->cudnn->forward : &cuda->cudnn->backward;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    const shoal_cuda_kernel_t *other  = displaced(cuda, op);
    size_t                     nbytes = other->workspace != NULL ? other->workspace(cuda, op) : 0;
    if (unserved(op) == NULL) {
        shoal_cudnn_shape_t whole = shape_of(cuda, op), slice = slice_of(&whole), serial = serial_of(&whole);
        nbytes = larger(nbytes, scratch_of(&slice).nbytes + SCRATCH_NBYTES);
        nbytes = may_be_serial(cuda, &whole) ? larger(nbytes, scratch_of(&serial).nbytes + SCRATCH_NBYTES) : nbytes;
    }
    return nbytes;
}

/* Plans. */

static void describe(const shoal_op_t *op, char text_p[static 96])
{
    snprintf(text_p, 96, "%s of B %zu T %zu H %zu K %zu D %zu", shoal_op_kind_name(op->kind), op->attention.B, op->attention.T,
             op->attention.H, op->attention.K, op->attention.D);
}

static shoal_status_t refuse(const shoal_cuda_t *cuda, const shoal_op_t *op, const char *why)
{
    char what[96];
    describe(op, what);
    shoal_error("cudnn %zu: no kernel for %s on sm_%d: %s; run.attention = \"own\" takes slower kernels", cuda->cudnn->version, what,
                cuda->capability, why);
    return SHOAL_ERR_CONFIG;
}

static shoal_status_t run_displaced(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *work, plan_t *plan, const char *why)
{
    if (!plan->said && !is_meant(op)) {
        char what[96];
        describe(op, what);
        shoal_warn("cudnn %zu: %s runs on a slower kernel (%s): %s", cuda->cudnn->version, what, displaced(cuda, op)->source, why);
        if (cuda->cudnn->exceptions[0] == '\0') {
            snprintf(cuda->cudnn->exceptions, sizeof(cuda->cudnn->exceptions), "%s (%s: %s)", shoal_op_kind_name(op->kind),
                     displaced(cuda, op)->source, why);
        }
        plan->said = true;
    }
    return displaced(cuda, op)->run(cuda, op, args, work);
}

/* Whether a shape can be run; if not, plan->graph.why tells the reason. */
static bool try_shape(shoal_cuda_t *cuda, plan_t *plan, shoal_cudnn_shape_t shape)
{
    shoal_cudnn_choice_t choice  = {0};
    scratch_t            scratch = scratch_of(&shape);
    shoal_cudnn_graph_build(&plan->graph, cuda->cudnn->handle, &shape);
    if (shoal_cudnn_graph_select(&plan->graph, (shoal_cudnn_pass_t)shape.pass, scratch.nbytes - scratch.plan, &choice) != CUDNN_STATUS_SUCCESS) {
        shoal_cudnn_graph_release(&plan->graph);
        return false;
    }
    plan->shape = shape;
    plan->plan  = choice.plan;
    if (choice.rank > 0) {
        shoal_warn("cudnn %zu: pass %zu of attention runs on engine %d, which its heuristics rank number %d: the better ones cannot be used",
                   cuda->cudnn->version, shape.pass, choice.engine, choice.rank + 1);
    }
    return true;
}

static void make_plan(shoal_cuda_t *cuda, plan_t *plan)
{
    if (may_be_serial(cuda, &plan->op)) {
        if (try_shape(cuda, plan, serial_of(&plan->op))) {
            return;
        }
        shoal_info("cudnn: deterministic attention runs in slices: %s", plan->graph.why);
    }
    try_shape(cuda, plan, slice_of(&plan->op));
}

/* NULL: out of memory. */
static plan_t *find_plan(shoal_cuda_t *cuda, const shoal_op_t *op)
{
    shoal_cudnn_shape_t shape = shape_of(cuda, op);
    plan_t             *plan  = cuda->cudnn->plans;
    while (plan != NULL && memcmp(&plan->op, &shape, sizeof(shape)) != 0) {
        plan = plan->next;
    }
    if (plan == NULL && (plan = calloc(1, sizeof(*plan))) != NULL) {
        plan->op           = shape;
        plan->lowest       = -INFINITY;
        plan->one          = 1;
        plan->next         = cuda->cudnn->plans;
        cuda->cudnn->plans = plan;
        if (unserved(op) == NULL) {
            make_plan(cuda, plan);
        }
    }
    return plan;
}

/* Running. */

static shoal_status_t check(cudnnStatus_t status, const char *call)
{
    if (status == CUDNN_STATUS_SUCCESS) {
        return SHOAL_OK;
    }
    char why[SHOAL_CUDNN_WHY_SIZE];
    shoal_cudnn_explain(status, call, why);
    shoal_error("cudnn: %s", why);
    bool full = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    return full ? SHOAL_ERR_NO_MEMORY : SHOAL_ERR_INTERNAL;
}

#define CUDNN_TRY(call) SHOAL_TRY(check(call, #call))

static shoal_status_t execute(shoal_cuda_t *cuda, const plan_t *plan, cudnnBackendDescriptor_t pack, void *const *tensors, void *work)
{
    int64_t ids[SHOAL_CUDNN_TENSOR_COUNT], count = 0;
    void   *pointers[SHOAL_CUDNN_TENSOR_COUNT];
    for (int i = 0; i < SHOAL_CUDNN_TENSOR_COUNT; i++) {
        if (plan->graph.given[i]) {
            ids[count]        = i;
            pointers[count++] = tensors[i];
        }
    }
    CUDNN_TRY(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids));
    CUDNN_TRY(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers));
    CUDNN_TRY(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work));
    CUDNN_TRY(cudnnBackendFinalize(pack));
    CUDNN_TRY(cudnnBackendExecute(cuda->cudnn->handle, plan->plan, pack));
    return SHOAL_OK;
}

/* A pack cannot change once it is finalized, so each run takes a new one: a small object in the host's memory. */
static shoal_status_t enqueue(shoal_cuda_t *cuda, const plan_t *plan, void *const *tensors, void *work)
{
    cudnnBackendDescriptor_t pack = NULL;
    CUDNN_TRY(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    shoal_status_t status = execute(cuda, plan, pack, tensors, work);
    cudnnBackendDestroyDescriptor(pack);
    return status;
}

/* Element (token n, head h) of rows of heads. */
static void *at(void *x, size_t n, size_t ld, size_t h, size_t D)
{
    return (shoal_bf16_t *)x + n * ld + h * D;
}

/* From sequence b and key/value head k on. */
static shoal_status_t run_slice(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, unsigned char *work, plan_t *plan,
                                size_t b, size_t k)
{
    const shoal_cudnn_shape_t *s = &plan->shape;
    scratch_t scratch = scratch_of(s);
    size_t    n = b * s->T, h = k * (s->H / s->K);
    void     *tensors[SHOAL_CUDNN_TENSOR_COUNT] = {
        [SHOAL_CUDNN_Q]      = at(args[0], n, s->ldq, h, s->D),
        [SHOAL_CUDNN_K]      = at(args[1], n, s->ldk, k, s->D),
        [SHOAL_CUDNN_V]      = at(args[2], n, s->ldv, k, s->D),
        [SHOAL_CUDNN_O]      = at(args[3], n, s->ldo, h, s->D),
        [SHOAL_CUDNN_LSE]    = (float *)args[4] + (b * op->attention.H + h) * s->T,
        [SHOAL_CUDNN_SCALE]  = &plan->scale,
        [SHOAL_CUDNN_LOWEST] = &plan->lowest,
        [SHOAL_CUDNN_ONE]    = &plan->one,
    };
    if (s->pass != SHOAL_CUDNN_FORWARD) {
        tensors[SHOAL_CUDNN_DO]     = at(args[5], n, s->ldo, h, s->D);
        tensors[SHOAL_CUDNN_DQ]     = at(args[6], n, s->lddq, h, s->D);
        tensors[SHOAL_CUDNN_DK]     = at(args[7], n, s->lddk, k, s->D);
        tensors[SHOAL_CUDNN_DV]     = at(args[8], n, s->lddv, k, s->D);
        tensors[SHOAL_CUDNN_DELTA]  = work + scratch.delta;
        tensors[SHOAL_CUDNN_DQ_SUM] = work + scratch.dq_sum;
    }
    return enqueue(cuda, plan, tensors, work + scratch.plan);
}

/* Why an op cannot be left to cuDNN here, or NULL. args may be NULL: they are then not looked at. */
static const char *obstacle(const shoal_op_t *op, void *const *args, const plan_t *plan)
{
    const char *why = unserved(op);
    if (why == NULL && plan->plan == NULL) {
        why = plan->graph.why;
    }
    return why == NULL && args != NULL && !aligned(op, args) ? "a pointer is not aligned to 16 bytes" : why;
}

shoal_status_t shoal_cuda_cudnn_check(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    bool ours = cuda->cudnn != NULL && op->dtype == SHOAL_BF16 && (op->kind == SHOAL_OP_ATTENTION || op->kind == SHOAL_OP_ATTENTION_BWD);
    if (!ours || !required(cuda) || is_meant(op) || unserved(op) == NULL) {
        return SHOAL_OK;
    }
    return refuse(cuda, op, unserved(op));
}

/* The plan, or an error where there must be one. */
static shoal_status_t get_plan(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, plan_t **plan_p)
{
    plan_t *plan = find_plan(cuda, op);
    if (plan == NULL) {
        shoal_error("cudnn: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    if (required(cuda) && !is_meant(op) && obstacle(op, args, plan) != NULL) {
        return refuse(cuda, op, obstacle(op, args, plan));
    }
    *plan_p = plan;
    return SHOAL_OK;
}

static shoal_status_t prepare(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *work)
{
    (void)work;
    plan_t *plan;
    return get_plan(cuda, op, args, &plan);
}

static shoal_status_t run(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *work)
{
    plan_t *plan;
    SHOAL_TRY(get_plan(cuda, op, args, &plan));
    if (obstacle(op, args, plan) != NULL) {
        return run_displaced(cuda, op, args, work, plan, obstacle(op, args, plan));
    }
    unsigned char *base = (unsigned char *)round_up((uintptr_t)work, SCRATCH_NBYTES);
    plan->scale         = op->attention.scale;
    for (size_t b = 0; b < op->attention.B; b += plan->shape.B) {
        for (size_t k = 0; k < op->attention.K; k += plan->shape.K) {
            SHOAL_TRY(run_slice(cuda, op, args, base, plan, b, k));
        }
    }
    return SHOAL_OK;
}

/* Opening and closing. */

static void override(shoal_cuda_kernel_t *slot, shoal_cuda_kernel_t *displaced_p)
{
    *displaced_p = *slot;
    *slot        = (shoal_cuda_kernel_t){run, workspace, "cudnn", prepare};
}

/* A cuDNN that does not work here is an error where it is required, and leaves attention to the kernels that are there already elsewhere. */
static shoal_status_t do_without(const shoal_cuda_t *cuda, const char *why)
{
    if (required(cuda)) {
        shoal_error("cudnn: %s; run.attention = \"own\" takes slower kernels", why);
        return SHOAL_ERR_CONFIG;
    }
    shoal_warn("cudnn: %s; attention runs on slower kernels", why);
    return SHOAL_OK;
}

/* *handle_p stays NULL without a GPU. */
static shoal_status_t start(const shoal_cuda_t *cuda, cudnnHandle_t *handle_p, char why_p[static SHOAL_CUDNN_WHY_SIZE])
{
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    if (cudnnGetVersion() < OLDEST_VERSION) {
        snprintf(why_p, SHOAL_CUDNN_WHY_SIZE, "version %zu is too old, %d is the oldest that will do", cudnnGetVersion(), OLDEST_VERSION);
        return SHOAL_ERR_UNSUPPORTED;
    }
    if (cuda->device >= 0) {
        status = cudnnCreate(handle_p);
        status = status == CUDNN_STATUS_SUCCESS ? cudnnSetStream(*handle_p, cuda->stream) : status;
    }
    if (status != CUDNN_STATUS_SUCCESS) {
        shoal_cudnn_explain(status, "cudnnCreate", why_p);
        return SHOAL_ERR_UNSUPPORTED;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_cuda_fill_cudnn(shoal_cuda_t *cuda)
{
    cudnnHandle_t  handle = NULL;
    char           why[SHOAL_CUDNN_WHY_SIZE];
    shoal_status_t status = start(cuda, &handle, why);
    if (status == SHOAL_OK) {
        cuda->cudnn = calloc(1, sizeof(*cuda->cudnn));
    }
    if (cuda->cudnn == NULL && handle != NULL) {
        cudnnDestroy(handle);
    }
    if (status != SHOAL_OK) {
        return do_without(cuda, why);
    }
    if (cuda->cudnn == NULL) {
        shoal_error("cudnn: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    cuda->cudnn->handle  = handle;
    cuda->cudnn->version = cudnnGetVersion();
    override(&cuda->kernels[SHOAL_OP_ATTENTION][SHOAL_BF16], &cuda->cudnn->forward);
    override(&cuda->kernels[SHOAL_OP_ATTENTION_BWD][SHOAL_BF16], &cuda->cudnn->backward);
    return SHOAL_OK;
}

void shoal_cuda_release_cudnn(shoal_cuda_t *cuda)
{
    if (cuda->cudnn == NULL) {
        return;
    }
    while (cuda->cudnn->plans != NULL) {
        plan_t *plan       = cuda->cudnn->plans;
        cuda->cudnn->plans = plan->next;
        shoal_cudnn_graph_release(&plan->graph);
        free(plan);
    }
    if (cuda->cudnn->handle != NULL) {
        cudnnDestroy(cuda->cudnn->handle);
    }
    free(cuda->cudnn);
    cuda->cudnn = NULL;
}

const char *shoal_cuda_cudnn_exceptions(const shoal_cuda_t *cuda)
{
    return cuda->cudnn != NULL ? cuda->cudnn->exceptions : "";
}
