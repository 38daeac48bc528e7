/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Matmul by oneDNN (onednn_product.h). fp32, and bf16 where the processor multiplies it, is one product for the whole team.
 *
 * Elsewhere oneDNN emulates bf16 at about a quarter of the fp32 rate, so operands are converted to fp32, multiplied, and
 * the result is rounded once. op(B) is converted as a whole; then each thread takes blocks of rows of Y, converts the
 * rows of op(A) that a block needs, multiplies alone and rounds, all within its own cache. Two barriers per matmul, and
 * the bits of a block do not depend on who computes it.
 */
#include <omp.h>
#include <string.h>

#include "base/log.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/cpu/ref.h"
#include "kernels/op_table.h"

/* What to run, and where things lie in the workspace, in bytes: what all threads read, then from `mine` a part for each. */
typedef struct {
    shoal_product_key_t key; /* with m = block */
    bool                blocked, widen;
    size_t              block;         /* rows of Y at once */
    size_t              bias, mine;    /* op(B) lies at 0 */
    size_t              y, scratchpad; /* within the part of a thread, where op(A) lies at 0 */
} matmul_plan_t;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t round_up(size_t x, size_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

/* Waking a team costs some microseconds, as much as one thread needs for a million operations. */
static size_t team_for(const shoal_cpu_t *cpu, const shoal_op_t *op)
{
    return shoal_op_flops(op) < 1e6 ? 1 : (size_t)cpu->nthreads;
}

/*
 * Rows of Y per block: their fp32 copies, k + n elements each, should fit a second-level cache, but every block packs
 * op(B) anew, which below 128 rows costs more than cache misses do. No more than leaves every thread a block.
 */
static size_t block_rows(const shoal_op_t *op, size_t team)
{
    size_t m = op->matmul.m, row_nbytes = (op->matmul.k + op->matmul.n) * sizeof(float);
    size_t cached = larger((1 << 20) / row_nbytes / 64 * 64, 128);
    return smaller(smaller(cached, m), round_up((m + team - 1) / team, 16));
}

static shoal_product_key_t plain_key(const shoal_op_t *op, bool bias)
{
    uint32_t alpha_bits;
    memcpy(&alpha_bits, &op->matmul.alpha, sizeof(alpha_bits));
    return (shoal_product_key_t){
        .m          = op->matmul.m,
        .n          = op->matmul.n,
        .k          = op->matmul.k,
        .lda        = op->matmul.lda,
        .ldb        = op->matmul.ldb,
        .ldy        = op->matmul.ldy,
        .trans_a    = op->matmul.trans_a,
        .trans_b    = op->matmul.trans_b,
        .bias       = bias,
        .accumulate = op->matmul.accumulate,
        .src_dtype  = op->dtype,
        .dst_dtype  = op->matmul.out_dtype,
        .alpha_bits = alpha_bits,
        .callers    = 1,
    };
}

/* The key of a block of `rows` rows. Converted operands are dense fp32. */
static shoal_product_key_t block_key(const shoal_op_t *op, const matmul_plan_t *plan, size_t rows)
{
    shoal_product_key_t key = plan->key;
    key.m                   = rows;
    if (plan->widen) {
        key.src_dtype = SHOAL_F32;
        key.lda       = op->matmul.trans_a ? rows : op->matmul.k;
        key.ldb       = op->matmul.trans_b ? op->matmul.k : op->matmul.n;
    }
    if (op->matmul.out_dtype == SHOAL_BF16) {
        key.dst_dtype  = SHOAL_F32;
        key.ldy        = op->matmul.n;
        key.accumulate = false;
    }
    return key;
}

static matmul_plan_t plan_matmul(const shoal_cpu_t *cpu, const shoal_op_t *op, bool bias)
{
    size_t        n = op->matmul.n, k = op->matmul.k, team = team_for(cpu, op);
    bool          native = op->dtype == SHOAL_BF16 && shoal_products_native_bf16();
    matmul_plan_t plan   = {.key = plain_key(op, bias), .block = op->matmul.m};
    plan.widen           = op->dtype == SHOAL_BF16 && !native;
    plan.blocked         = plan.widen || (op->matmul.out_dtype == SHOAL_BF16 && !native);
    plan.key.team        = plan.blocked ? 1 : team;
    plan.key.callers     = plan.blocked ? team : 1;
    if (plan.blocked) {
        plan.block      = block_rows(op, team);
        plan.key        = block_key(op, &plan, plan.block);
        plan.bias       = plan.widen ? k * n * sizeof(float) : 0;
        plan.mine       = round_up(plan.bias + (plan.widen ? n * sizeof(float) : 0), 64);
        plan.y          = plan.widen ? round_up(plan.block * k * sizeof(float), 64) : 0;
        plan.scratchpad = plan.y + round_up(plan.block * n * sizeof(float), 64);
    }
    return plan;
}

/* The key of the rows that whole blocks leave over; false if they leave none. */
static bool rest_key(const shoal_op_t *op, const matmul_plan_t *plan, shoal_product_key_t *key_p)
{
    *key_p = block_key(op, plan, op->matmul.m % plan->block);
    return op->matmul.m % plan->block > 0;
}

/* All that the plan needs, where products need `scratchpad` bytes per caller. */
static size_t plan_nbytes(const matmul_plan_t *plan, size_t scratchpad)
{
    return plan->mine + plan->key.callers * (plan->scratchpad + round_up(scratchpad, 64));
}

/* The op does not say whether a bias will be given: room for either. */
static size_t onednn_matmul_workspace(shoal_cpu_t *cpu, const shoal_op_t *op)
{
    size_t nbytes = 0;
    for (int bias = 0; bias < 2; bias++) {
        shoal_product_key_t rest;
        matmul_plan_t       plan = plan_matmul(cpu, op, bias);
        nbytes = larger(nbytes, plan_nbytes(&plan, shoal_products_scratchpad_nbytes(cpu->matmul, &plan.key)));
        if (rest_key(op, &plan, &rest)) {
            nbytes = larger(nbytes, plan_nbytes(&plan, shoal_products_scratchpad_nbytes(cpu->matmul, &rest)));
        }
    }
    return nbytes;
}

#ifdef __x86_64__ /* the build's baseline has 128-bit vectors; conversions want what the processor has */
#define CONVERSION __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define CONVERSION
#endif

/* dense f32 (rows, columns) = src bf16 (rows, columns) ld. */
CONVERSION static void widen(const shoal_bf16_t *src, size_t rows, size_t columns, size_t ld, float *dense)
{
    for (size_t i = 0; i < rows; i++) {
#pragma omp simd
        for (size_t j = 0; j < columns; j++) {
            dense[i * columns + j] = shoal_bf16_to_f32(src[i * ld + j]);
        }
    }
}

/* dst bf16 (rows, columns) ld = dense f32 (rows, columns) [+ dst]. */
CONVERSION static void narrow(const float *dense, size_t rows, size_t columns, size_t ld, bool accumulate,
                              shoal_bf16_t *dst)
{
    for (size_t i = 0; i < rows; i++) {
#pragma omp simd
        for (size_t j = 0; j < columns; j++) {
            float before     = accumulate ? shoal_bf16_to_f32(dst[i * ld + j]) : 0;
            dst[i * ld + j] = shoal_f32_to_bf16(dense[i * columns + j] + before);
        }
    }
}

/* One matmul under way. */
typedef struct {
    shoal_products_t *products;
    const shoal_op_t *op;
    void *const      *args;
    char             *work;
    matmul_plan_t     plan;
    size_t            stride;       /* bytes of a thread's part */
    shoal_product_t  *whole, *rest; /* rest: NULL if whole blocks are all */
} matmul_t;

static shoal_status_t start_matmul(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace,
                                   matmul_t *matmul_p)
{
    shoal_product_key_t rest;
    size_t              scratchpad;
    *matmul_p = (matmul_t){.products = cpu->matmul, .op = op, .args = args, .work = workspace};
    matmul_p->plan = plan_matmul(cpu, op, args[2] != NULL);
    SHOAL_TRY(shoal_product_find(cpu->matmul, &matmul_p->plan.key, &matmul_p->whole));
    scratchpad = shoal_product_scratchpad_nbytes(matmul_p->whole);
    if (rest_key(op, &matmul_p->plan, &rest)) {
        SHOAL_TRY(shoal_product_find(cpu->matmul, &rest, &matmul_p->rest));
        scratchpad = larger(scratchpad, shoal_product_scratchpad_nbytes(matmul_p->rest));
    }
    matmul_p->stride = matmul_p->plan.scratchpad + round_up(scratchpad, 64);
    return SHOAL_OK;
}

/* op(B) and the bias, which all blocks read, as fp32. Every thread converts some rows. */
static void widen_shared(const matmul_t *matmul)
{
    const shoal_op_t *op      = matmul->op;
    float            *B       = (float *)matmul->work;
    size_t            rows    = op->matmul.trans_b ? op->matmul.n : op->matmul.k;
    size_t            columns = op->matmul.trans_b ? op->matmul.k : op->matmul.n;
    int               team    = (int)matmul->plan.key.callers;
#pragma omp parallel for num_threads(team) schedule(static)
    for (int part = 0; part < team; part++) {
        ref_span_t span = ref_part(rows, part, team);
        widen(ref_at(matmul->args[1], SHOAL_BF16, span.first * op->matmul.ldb), span.end - span.first, columns,
              op->matmul.ldb, B + span.first * columns);
    }
    if (matmul->args[2] != NULL) {
        widen(matmul->args[2], 1, op->matmul.n, op->matmul.n, (float *)(matmul->work + matmul->plan.bias));
    }
}

/* Rows first .. first + rows - 1 of Y, by one thread. */
static shoal_status_t run_block(const matmul_t *matmul, size_t first, size_t rows, size_t thread)
{
    const shoal_op_t    *op    = matmul->op;
    const matmul_plan_t *plan  = &matmul->plan;
    char                *mine  = matmul->work + plan->mine + thread * matmul->stride;
    size_t               lda   = op->matmul.lda, ldy = op->matmul.ldy, k = op->matmul.k, n = op->matmul.n;
    bool                 trans = op->matmul.trans_a, narrows = op->matmul.out_dtype == SHOAL_BF16;
    void                *A = ref_at(matmul->args[0], op->dtype, trans ? first : first * lda);
    void                *Y = ref_at(matmul->args[3], op->matmul.out_dtype, first * ldy);
    void *buffers[PRODUCT_ARGS] = {A, matmul->args[1], matmul->args[2], narrows ? mine + plan->y : Y, mine + plan->scratchpad};

    if (plan->widen) {
        buffers[PRODUCT_SRC]     = mine;
        buffers[PRODUCT_WEIGHTS] = matmul->work;
        buffers[PRODUCT_BIAS]    = matmul->work + plan->bias;
        widen(A, trans ? k : rows, trans ? rows : k, lda, (float *)mine);
    }
    SHOAL_TRY(shoal_product_run(matmul->products, rows == plan->block ? matmul->whole : matmul->rest, thread, buffers));
    if (narrows) {
        narrow(buffers[PRODUCT_DST], rows, n, ldy, op->matmul.accumulate, Y);
    }
    return SHOAL_OK;
}

/* Blocks go to whoever is free: their bits do not depend on the thread, and cores may be shared. */
static shoal_status_t run_blocks(const matmul_t *matmul)
{
    size_t         m = matmul->op->matmul.m, block = matmul->plan.block;
    shoal_status_t failed = SHOAL_OK;
    if (matmul->plan.widen) {
        widen_shared(matmul);
    }
#pragma omp parallel for num_threads((int)matmul->plan.key.callers) schedule(dynamic, 1)
    for (size_t first = 0; first < m; first += block) {
        shoal_status_t status = run_block(matmul, first, smaller(block, m - first), (size_t)omp_get_thread_num());
        if (status != SHOAL_OK) {
#pragma omp atomic write
            failed = status;
        }
    }
    return failed;
}

static shoal_status_t onednn_matmul(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    matmul_t matmul;
    if (args[2] != NULL && op->matmul.alpha != 1.0f) {
        return shoal_ref_matmul(cpu, op, args, workspace); /* oneDNN would scale the bias too; no model asks for this */
    }
    SHOAL_TRY(start_matmul(cpu, op, args, workspace, &matmul));
    if (matmul.plan.blocked) {
        return run_blocks(&matmul);
    }
    void *buffers[PRODUCT_ARGS] = {args[0], args[1], args[2], args[3], workspace};
    return shoal_product_run(matmul.products, matmul.whole, 0, buffers);
}

void shoal_cpu_fill_onednn(shoal_cpu_t *cpu)
{
    static const shoal_cpu_kernel_t kernel   = {onednn_matmul, onednn_matmul_workspace, "onednn"};
    shoal_products_t               *products = NULL;
    if (shoal_products_create((size_t)cpu->nthreads, &products) != SHOAL_OK) {
        shoal_warn("oneDNN has no CPU engine: matmul stays with %s", cpu->kernels[SHOAL_OP_MATMUL][SHOAL_F32].source);
        return;
    }
    cpu->matmul = products;
    for (size_t dtype = 0; dtype < SHOAL_CPU_DTYPES; dtype++) {
        cpu->kernels[SHOAL_OP_MATMUL][dtype] = kernel;
    }
}

void shoal_cpu_release_onednn(shoal_cpu_t *cpu)
{
    if (cpu->matmul != NULL) {
        shoal_products_destroy(cpu->matmul);
        cpu->matmul = NULL;
    }
}
