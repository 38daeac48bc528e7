/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stand-in for cuBLASLt: the functions that kernels/cuda/cublaslt.c calls. Matrices are column-major, of fp32 or bf16, one per call; sums
 * are fp32; the epilogue is none or a bias.
 *
 * There are several algorithms, as in the library: they differ in workspace, in the alignment that they ask for and in the order in which
 * they add, so that a choice shows in the bits. All of them are deterministic, and the ones that split sums leave the parts in the
 * workspace, as real ones do: a workspace that something else uses too spoils the product.
 *
 * The descriptors are the header's opaque structs. Each starts with a word that says what it is, so one that was never
 * initialized, or is of another kind, is found.
 */
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include <cublasLt.h>

#include "base/dtype.h"
#include "tests/standin/standin.h"

struct cublasLtContext {
    int multiprocessors;
};

namespace {

using standin::complain;

enum { WORKSPACE_ALIGNMENT = 256, BIAS_ALIGNMENT = 16, TILE = 64 };

const uint64_t layout_kind = 0x6c61796f75742e2e, desc_kind = 0x6465736372697074, preference_kind = 0x70726566657265,
               algo_kind = 0x616c676f72697468;

struct layout_t {
    uint64_t kind;
    uint64_t rows, cols;
    int64_t  ld;
    uint32_t type; /* cudaDataType_t */
};

struct desc_t {
    uint64_t    kind;
    const void *bias;
    uint32_t    epilogue;
    int32_t     compute, scale, trans_a, trans_b, bias_type, multiprocessors; /* bias_type: -1 for D's */
};

struct preference_t {
    uint64_t kind;
    uint64_t workspace_nbytes;
    uint32_t reductions;
    uint32_t alignment[4]; /* of A, B, C, D */
};

/* What is serialized: an algorithm belongs to types and transposes, as the library's do. */
struct algo_t {
    uint64_t kind;
    uint32_t id, reduction;
    uint32_t types[2]; /* of the operands, of C and D */
};

static_assert(sizeof(layout_t) <= sizeof(cublasLtMatrixLayoutOpaque_t), "");
static_assert(sizeof(desc_t) <= sizeof(cublasLtMatmulDescOpaque_t), "");
static_assert(sizeof(preference_t) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "");
static_assert(sizeof(algo_t) <= sizeof(cublasLtMatmulAlgo_t), "");

/* ---- the algorithms ---- */

struct algorithm_t {
    uint32_t id, lanes, splits; /* a sum is made of `splits` parts, each of `lanes` sums side by side */
    uint32_t reduction;         /* cublasLtReductionScheme_t */
    uint32_t alignment;         /* of addresses and leading dimensions, in bytes; 1: of an element */
    size_t   scratch_nbytes;    /* of workspace, besides the parts of a split sum */
};

const algorithm_t algorithms[] = {
    {11, 16, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, 0},
    {12, 32, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 256, 0},
    {13, 8, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, 65536},
    {14, 8, 4, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, 1024},
    {15, 16, 2, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, 0},
    {16, 16, 3, CUBLASLT_REDUCTION_SCHEME_INPLACE, 16, 4096},
    {17, 16, 2, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 16, 0},
    {18, 4, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 1, 0},
};

const algorithm_t *find_algorithm(uint32_t id)
{
    for (const algorithm_t &algorithm : algorithms) {
        if (algorithm.id == id) {
            return &algorithm;
        }
    }
    return nullptr;
}

size_t nbytes_of(uint32_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

/* A product as its descriptors say it. */
struct problem_t {
    desc_t   desc;
    layout_t a, b, c, d;
    size_t   m, n, k;
};

size_t workspace_of(const algorithm_t &algorithm, const problem_t &p)
{
    return algorithm.scratch_nbytes + (algorithm.splits > 1 ? algorithm.splits * p.m * p.n * sizeof(float) : 0);
}

/* Time by an estimate: rounds of tiles over the multiprocessors, and a second pass where sums are split. */
double estimate(const algorithm_t &algorithm, const problem_t &p, int multiprocessors)
{
    double tiles  = double((p.m + TILE - 1) / TILE) * double((p.n + TILE - 1) / TILE) * algorithm.splits;
    double rounds = double(size_t(tiles + multiprocessors - 1) / size_t(multiprocessors));
    return rounds * double(p.k) / algorithm.splits * (1 + 4.0 / algorithm.lanes) + (algorithm.splits > 1 ? 100 * algorithm.splits : 0);
}

bool strides_fit(const algorithm_t &algorithm, const layout_t &layout)
{
    return algorithm.alignment == 1 || uint64_t(layout.ld) * nbytes_of(layout.type) % algorithm.alignment == 0;
}

bool all_strides_fit(const algorithm_t &algorithm, const problem_t &p)
{
    return strides_fit(algorithm, p.a) && strides_fit(algorithm, p.b) && strides_fit(algorithm, p.c) && strides_fit(algorithm, p.d);
}

/* ---- the product ---- */

struct operands_t {
    float          alpha, beta;
    const uint8_t *a, *b, *c, *bias;
    uint8_t       *d, *workspace;
};

float load(const uint8_t *memory, uint32_t type, size_t i)
{
    float        value;
    shoal_bf16_t bf16;
    if (type == CUDA_R_16BF) {
        std::memcpy(&bf16, memory + 2 * i, 2);
        return shoal_bf16_to_f32(bf16);
    }
    std::memcpy(&value, memory + 4 * i, 4);
    return value;
}

void store(uint8_t *memory, uint32_t type, size_t i, float value)
{
    shoal_bf16_t bf16 = shoal_f32_to_bf16(value);
    std::memcpy(memory + nbytes_of(type) * i, type == CUDA_R_16BF ? (const void *)&bf16 : &value, nbytes_of(type));
}

/* op(X) as fp32, (lines, k): a line of A is a row of op(A), a line of B a column of op(B). */
std::vector<float> pack(const uint8_t *x, const layout_t &layout, size_t lines, size_t k, bool lines_are_columns)
{
    std::vector<float> packed(lines * k);
    for (size_t line = 0; line < lines; line++) {
        for (size_t i = 0; i < k; i++) {
            size_t at            = lines_are_columns ? line * size_t(layout.ld) + i : i * size_t(layout.ld) + line;
            packed[line * k + i] = load(x, layout.type, at);
        }
    }
    return packed;
}

template <uint32_t LANES>
float dot(const float *x, const float *y, size_t n)
{
    float  sums[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (uint32_t lane = 0; lane < LANES; lane++) {
            sums[lane] += x[i + lane] * y[i + lane];
        }
    }
    for (; i < n; i++) {
        sums[i % LANES] += x[i] * y[i];
    }
    for (float lane : sums) {
        sum += lane;
    }
    return sum;
}

float dot_by(uint32_t lanes, const float *x, const float *y, size_t n)
{
    switch (lanes) {
    case 4: return dot<4>(x, y, n);
    case 8: return dot<8>(x, y, n);
    case 16: return dot<16>(x, y, n);
    default: return dot<32>(x, y, n);
    }
}

/* The sum for one element of D, of parts that were left in the workspace, (splits, n, m). Output type: each part is rounded to it. */
float collect(const algorithm_t &algorithm, const problem_t &p, const uint8_t *parts, size_t at)
{
    float sum = 0;
    for (uint32_t split = 0; split < algorithm.splits; split++) {
        float part = load(parts, CUDA_R_32F, split * p.m * p.n + at);
        bool  rounded = algorithm.reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && p.d.type == CUDA_R_16BF;
        sum += rounded ? shoal_bf16_to_f32(shoal_f32_to_bf16(part)) : part;
    }
    return sum;
}

void finish(const problem_t &p, const operands_t &x, size_t i, size_t j, float sum)
{
    float value = x.alpha * sum;
    if (x.beta != 0) {
        value += x.beta * load(x.c, p.c.type, j * size_t(p.c.ld) + i);
    }
    if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS) {
        value += load(x.bias, uint32_t(p.desc.bias_type), i);
    }
    store(x.d, p.d.type, j * size_t(p.d.ld) + i, value);
}

void multiply(const algorithm_t &algorithm, const problem_t &p, const operands_t &x)
{
    std::vector<float> a     = pack(x.a, p.a, p.m, p.k, p.desc.trans_a != CUBLAS_OP_N);
    std::vector<float> b     = pack(x.b, p.b, p.n, p.k, p.desc.trans_b == CUBLAS_OP_N);
    uint8_t           *parts = x.workspace + algorithm.scratch_nbytes;
    if (algorithm.scratch_nbytes > 0) {
        std::memset(x.workspace, 0xff, algorithm.scratch_nbytes);
    }
    for (uint32_t split = 0; algorithm.splits > 1 && split < algorithm.splits; split++) {
        size_t from = split * p.k / algorithm.splits, count = (split + 1) * p.k / algorithm.splits - from;
        for (size_t at = 0; at < p.m * p.n; at++) {
            const float *row = &a[at % p.m * p.k + from], *column = &b[at / p.m * p.k + from];
            store(parts, CUDA_R_32F, split * p.m * p.n + at, dot_by(algorithm.lanes, row, column, count));
        }
    }
    for (size_t at = 0; at < p.m * p.n; at++) {
        size_t i = at % p.m, j = at / p.m;
        finish(p, x, i, j, algorithm.splits > 1 ? collect(algorithm, p, parts, at) : dot_by(algorithm.lanes, &a[i * p.k], &b[j * p.k], p.k));
    }
}

/* ---- what descriptors may say ---- */

template <typename T, typename OPAQUE>
T *open(OPAQUE *opaque, uint64_t kind, const char *what)
{
    T *inside = reinterpret_cast<T *>(opaque);
    if (inside == nullptr || inside->kind != kind) {
        complain("cublasLt: %s is none, or was not initialized", what);
        return nullptr;
    }
    return inside;
}

struct field_t {
    int    attribute;
    size_t offset, nbytes;
};

cublasStatus_t set_field(void *inside, const field_t *fields, size_t count, int attribute, const void *value, size_t nbytes)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].attribute == attribute) {
            if (value == nullptr || nbytes != fields[i].nbytes) {
                complain("cublasLt: attribute %d is of %zu bytes, not %zu", attribute, fields[i].nbytes, nbytes);
                return CUBLAS_STATUS_INVALID_VALUE;
            }
            std::memcpy(static_cast<uint8_t *>(inside) + fields[i].offset, value, nbytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    complain("cublasLt: attribute %d has no stand-in", attribute);
    return CUBLAS_STATUS_INVALID_VALUE;
}

#define FIELD(attribute, type, member)                              \
    {                                                               \
        attribute, offsetof(type, member), sizeof(((type *)0)->member) \
    }
const field_t desc_fields[] = {
    FIELD(CUBLASLT_MATMUL_DESC_TRANSA, desc_t, trans_a),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSB, desc_t, trans_b),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, desc_t, epilogue),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, desc_t, bias),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, desc_t, bias_type),
    FIELD(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, desc_t, multiprocessors),
};
const field_t preference_fields[] = {
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference_t, workspace_nbytes),
    FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference_t, reductions),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference_t, alignment[0]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference_t, alignment[1]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference_t, alignment[2]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference_t, alignment[3]),
};
#undef FIELD

/* The types that cuBLASLt has kernels for: operands of one type, C of D's, a bias of D's, and fp32 to bf16 is not among them. */
bool types_supported(const problem_t &p)
{
    bool known = (p.a.type == CUDA_R_32F || p.a.type == CUDA_R_16BF) && (p.d.type == CUDA_R_32F || p.d.type == CUDA_R_16BF);
    bool bias  = p.desc.epilogue != CUBLASLT_EPILOGUE_BIAS || uint32_t(p.desc.bias_type) == p.d.type;
    return known && bias && p.b.type == p.a.type && p.c.type == p.d.type && !(p.a.type == CUDA_R_32F && p.d.type == CUDA_R_16BF);
}

bool has_shape(const layout_t &layout, const char *name, size_t rows, size_t cols)
{
    return (layout.rows == rows && layout.cols == cols && layout.ld >= int64_t(rows)) ||
           complain("cublasLt: %s is %zu x %zu with leading dimension %lld, where the product has %zu x %zu", name, size_t(layout.rows),
                    size_t(layout.cols), (long long)layout.ld, rows, cols);
}

bool desc_understood(const desc_t &desc, int multiprocessors)
{
    if (desc.compute != CUBLAS_COMPUTE_32F || desc.scale != CUDA_R_32F ||
        (desc.epilogue != CUBLASLT_EPILOGUE_DEFAULT && desc.epilogue != CUBLASLT_EPILOGUE_BIAS)) {
        return complain("cublasLt: compute type %d, scale type %d, epilogue %u have no stand-in", desc.compute, desc.scale, desc.epilogue);
    }
    if (desc.trans_a < CUBLAS_OP_N || desc.trans_a > CUBLAS_OP_C || desc.trans_b < CUBLAS_OP_N || desc.trans_b > CUBLAS_OP_C) {
        return complain("cublasLt: operations %d and %d", desc.trans_a, desc.trans_b);
    }
    return (desc.multiprocessors >= 0 && desc.multiprocessors <= multiprocessors) ||
           complain("cublasLt: SM_COUNT_TARGET is %d, on a GPU of %d", desc.multiprocessors, multiprocessors);
}

/* Reads the descriptors of a product and checks that they belong together. */
cublasStatus_t resolve(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, problem_t *p)
{
    if (handle == nullptr) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    const desc_t   *description = open<desc_t>(desc, desc_kind, "the descriptor of the matmul");
    const layout_t *layouts[]   = {open<layout_t>(a, layout_kind, "the layout of A"), open<layout_t>(b, layout_kind, "the layout of B"),
                                   open<layout_t>(c, layout_kind, "the layout of C"), open<layout_t>(d, layout_kind, "the layout of D")};
    if (description == nullptr || std::find(layouts, layouts + 4, nullptr) != layouts + 4) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *p    = {*description, *layouts[0], *layouts[1], *layouts[2], *layouts[3], 0, 0, 0};
    p->m  = p->d.rows;
    p->n  = p->d.cols;
    if (p->desc.bias_type < 0) {
        p->desc.bias_type = int32_t(p->d.type);
    }
    bool transposed_a = p->desc.trans_a != CUBLAS_OP_N, transposed_b = p->desc.trans_b != CUBLAS_OP_N;
    p->k              = transposed_a ? p->a.rows : p->a.cols;
    if (!desc_understood(p->desc, handle->multiprocessors) || !has_shape(p->a, "A", transposed_a ? p->k : p->m, transposed_a ? p->m : p->k) ||
        !has_shape(p->b, "B", transposed_b ? p->n : p->k, transposed_b ? p->k : p->n) || !has_shape(p->c, "C", p->m, p->n) ||
        !has_shape(p->d, "D", p->m, p->n)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return types_supported(*p) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- what a call may be given ---- */

struct range_t {
    const char    *name;
    const uint8_t *start;
    size_t         nbytes;
};

size_t extent(const layout_t &layout)
{
    return layout.rows == 0 || layout.cols == 0 ? 0 : ((layout.cols - 1) * size_t(layout.ld) + layout.rows) * nbytes_of(layout.type);
}

bool overlap(const range_t &x, const range_t &y)
{
    return x.start < y.start + y.nbytes && y.start < x.start + x.nbytes;
}

bool same_place(const problem_t &p, const operands_t &x)
{
    return x.c == x.d && p.c.ld == p.d.ld && p.c.type == p.d.type;
}

/* Everything lies in device memory and is aligned, and nothing that is read lies where the product is written. */
bool memory_fits(const algorithm_t &algorithm, const problem_t &p, const operands_t &x)
{
    const range_t d        = {"D", x.d, extent(p.d)};
    const range_t work     = {"the workspace", x.workspace, workspace_of(algorithm, p)};
    const range_t inputs[] = {{"A", x.a, extent(p.a)},
                              {"B", x.b, extent(p.b)},
                              {"C", x.c, x.beta != 0 ? extent(p.c) : 0},
                              {"the bias", x.bias, p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS ? p.m * nbytes_of(p.d.type) : 0}};
    if (!standin::is_device(d.start, d.nbytes)) {
        return complain("cublasLtMatmul: D: %zu bytes at %p are not in one allocation of device memory", d.nbytes, (const void *)d.start);
    }
    if (work.nbytes > 0 && (!standin::is_device(work.start, work.nbytes) || uintptr_t(work.start) % WORKSPACE_ALIGNMENT != 0)) {
        return complain("cublasLtMatmul: %zu bytes of workspace at %p: not device memory, or not aligned", work.nbytes, (const void *)work.start);
    }
    for (const range_t &input : inputs) {
        size_t alignment = &input == &inputs[3] ? std::min<size_t>(algorithm.alignment, BIAS_ALIGNMENT) : algorithm.alignment;
        bool   in_place  = &input == &inputs[2] && same_place(p, x);
        if (input.nbytes == 0) {
            continue;
        }
        if (!standin::is_device(input.start, input.nbytes)) {
            return complain("cublasLtMatmul: %s: %zu bytes at %p are not in one allocation of device memory", input.name, input.nbytes,
                            (const void *)input.start);
        }
        if (uintptr_t(input.start) % alignment != 0) {
            return complain("cublasLtMatmul: %s at %p is not aligned to %zu bytes", input.name, (const void *)input.start, alignment);
        }
        if ((!in_place && overlap(input, d)) || overlap(input, work)) {
            return complain("cublasLtMatmul: %s overlaps D or the workspace", input.name);
        }
    }
    return (uintptr_t(d.start) % algorithm.alignment == 0 && (work.nbytes == 0 || !overlap(work, d))) ||
           complain("cublasLtMatmul: D at %p is not aligned to %u bytes, or overlaps the workspace", (const void *)d.start, algorithm.alignment);
}

/* Whether the algorithm is one of ours and made for this product. */
const algorithm_t *admit(const cublasLtMatmulAlgo_t *opaque, const problem_t &p)
{
    const algo_t *algo = open<const algo_t>(opaque, algo_kind, "the algorithm");
    if (algo == nullptr) {
        return nullptr;
    }
    const algorithm_t *algorithm = find_algorithm(algo->id);
    if (algorithm == nullptr || algo->types[0] != p.a.type || algo->types[1] != p.d.type || !all_strides_fit(*algorithm, p)) {
        complain("cublasLt: algorithm %u is not for this product", algo->id);
        return nullptr;
    }
    return algorithm;
}

void describe(const algorithm_t &algorithm, const problem_t &p, int multiprocessors, cublasLtMatmulHeuristicResult_t *result_p)
{
    algo_t algo             = {algo_kind, algorithm.id, algorithm.reduction, {p.a.type, p.d.type}};
    *result_p               = {};
    result_p->workspaceSize = workspace_of(algorithm, p);
    result_p->wavesCount    = float(estimate(algorithm, p, multiprocessors));
    std::memcpy(&result_p->algo, &algo, sizeof(algo));
}

bool acceptable(const algorithm_t &algorithm, const problem_t &p, const preference_t &preference)
{
    bool aligned = all_strides_fit(algorithm, p) && uintptr_t(p.desc.bias) % std::min<uint32_t>(algorithm.alignment, BIAS_ALIGNMENT) == 0;
    for (uint32_t alignment : preference.alignment) {
        aligned = aligned && alignment >= algorithm.alignment;
    }
    return aligned && workspace_of(algorithm, p) <= preference.workspace_nbytes &&
           (algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_NONE || (algorithm.reduction & preference.reductions) != 0);
}

const struct {
    cublasStatus_t status;
    const char    *name, *text;
} statuses[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed to the function"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality requested is not supported"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
};

} // namespace

/* ---- the library ---- */

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle_p)
{
    int                   device = 0;
    struct cudaDeviceProp properties;
    if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *handle_p = new cublasLtContext{properties.multiProcessorCount};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    for (const auto &entry : statuses) {
        if (entry.status == status) {
            return entry.name;
        }
    }
    return "CUBLAS_STATUS_...";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    for (const auto &entry : statuses) {
        if (entry.status == status) {
            return entry.text;
        }
    }
    return "an error";
}

size_t cublasLtGetVersion(void)
{
    return 130100;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t opaque, size_t size, cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    layout_t layout = {layout_kind, rows, cols, ld, uint32_t(type)};
    if (size < sizeof(*opaque)) {
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    std::memset(opaque, 0, sizeof(*opaque));
    std::memcpy(opaque, &layout, sizeof(layout));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t opaque, size_t size, cublasComputeType_t compute, cudaDataType_t scale)
{
    desc_t desc = {desc_kind, nullptr, CUBLASLT_EPILOGUE_DEFAULT, compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, -1, 0};
    if (size < sizeof(*opaque)) {
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    std::memset(opaque, 0, sizeof(*opaque));
    std::memcpy(opaque, &desc, sizeof(desc));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t opaque, size_t size)
{
    preference_t preference = {preference_kind, 0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    if (size < sizeof(*opaque)) {
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    std::memset(opaque, 0, sizeof(*opaque));
    std::memcpy(opaque, &preference, sizeof(preference));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque, cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t nbytes)
{
    desc_t *desc = open<desc_t>(opaque, desc_kind, "the descriptor of the matmul");
    return desc == nullptr ? CUBLAS_STATUS_INVALID_VALUE
                           : set_field(desc, desc_fields, sizeof(desc_fields) / sizeof(desc_fields[0]), attribute, value, nbytes);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque, cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t nbytes)
{
    preference_t *preference = open<preference_t>(opaque, preference_kind, "the preference");
    return preference == nullptr
               ? CUBLAS_STATUS_INVALID_VALUE
               : set_field(preference, preference_fields, sizeof(preference_fields) / sizeof(preference_fields[0]), attribute, value, nbytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t opaque, int requested, cublasLtMatmulHeuristicResult_t *results_p,
                                              int *count_p)
{
    problem_t                       p;
    std::vector<const algorithm_t *> found;
    const preference_t              *preference = open<preference_t>(opaque, preference_kind, "the preference");
    cublasStatus_t                   status     = resolve(handle, desc, a, b, c, d, &p);
    *count_p                                    = 0;
    if (status != CUBLAS_STATUS_SUCCESS || preference == nullptr || requested <= 0) {
        return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_INVALID_VALUE;
    }
    int multiprocessors = p.desc.multiprocessors > 0 ? p.desc.multiprocessors : handle->multiprocessors;
    for (const algorithm_t &algorithm : algorithms) {
        if (acceptable(algorithm, p, *preference)) {
            found.push_back(&algorithm);
        }
    }
    std::stable_sort(found.begin(), found.end(), [&](const algorithm_t *x, const algorithm_t *y) {
        return estimate(*x, p, multiprocessors) < estimate(*y, p, multiprocessors);
    });
    for (; *count_p < std::min(requested, int(found.size())); (*count_p)++) {
        describe(*found[size_t(*count_p)], p, multiprocessors, &results_p[*count_p]);
    }
    return found.empty() ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result_p)
{
    problem_t            p;
    cublasLtMatmulAlgo_t kept   = result_p->algo; /* which is never updated */
    cublasStatus_t       status = resolve(handle, desc, a, b, c, d, &p);
    const algorithm_t   *algorithm;
    if (status != CUBLAS_STATUS_SUCCESS || (algorithm = admit(algo, p)) == nullptr) {
        return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_INVALID_VALUE;
    }
    describe(*algorithm, p, handle->multiprocessors, result_p);
    result_p->algo = kept;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *opaque, cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value_p, size_t nbytes, size_t *written_p)
{
    const algo_t *algo = open<const algo_t>(opaque, algo_kind, "the algorithm");
    if (algo == nullptr || nbytes != sizeof(uint32_t) ||
        (attribute != CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME && attribute != CUBLASLT_ALGO_CONFIG_ID)) {
        complain("cublasLtMatmulAlgoConfigGetAttribute: attribute %d of %zu bytes", int(attribute), nbytes);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    std::memcpy(value_p, attribute == CUBLASLT_ALGO_CONFIG_ID ? &algo->id : &algo->reduction, sizeof(uint32_t));
    *written_p = sizeof(uint32_t);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a_memory,
                              cublasLtMatrixLayout_t a, const void *b_memory, cublasLtMatrixLayout_t b, const void *beta, const void *c_memory,
                              cublasLtMatrixLayout_t c, void *d_memory, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_nbytes, cudaStream_t stream)
{
    problem_t          p;
    const algorithm_t *algorithm;
    cublasStatus_t     status = resolve(handle, desc, a, b, c, d, &p);
    if (status != CUBLAS_STATUS_SUCCESS || (algorithm = admit(algo, p)) == nullptr) {
        return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_INVALID_VALUE;
    }
    if (standin::is_device(alpha, sizeof(float)) || standin::is_device(beta, sizeof(float))) {
        complain("cublasLtMatmul: alpha and beta are read by the host");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    static const bool loaded = standin::take("matmul_takes");
    if (!loaded) { /* the library's status then is not documented: let it be one of many causes */
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    operands_t x = {*static_cast<const float *>(alpha),         *static_cast<const float *>(beta),
                    static_cast<const uint8_t *>(a_memory),     static_cast<const uint8_t *>(b_memory),
                    static_cast<const uint8_t *>(c_memory),     static_cast<const uint8_t *>(p.desc.bias),
                    static_cast<uint8_t *>(d_memory),           static_cast<uint8_t *>(workspace)};
    if (workspace_of(*algorithm, p) > workspace_nbytes) {
        complain("cublasLtMatmul: algorithm %u needs %zu bytes of workspace and gets %zu", algorithm->id, workspace_of(*algorithm, p),
                 workspace_nbytes);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!memory_fits(*algorithm, p, x)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    cudaError_t error = standin::enqueue(stream, "cublasLtMatmul", [algorithm, p, x] {
        multiply(*algorithm, p, x);
        return true;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} /* extern "C" */
