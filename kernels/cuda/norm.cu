/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Residual addition with layer norm or RMS norm. One to sixteen warps hold a row in registers, so that memory is read once: each thread
 * has packs of 16 bytes, blockDim.x of them apart. Small rows share a block (threadIdx.y). As on the CPU, statistics are
 * taken of the sum as stored.
 *
 * Backward, a block owns a span of rows and keeps dw and db of its columns in registers; see partials.cuh for the rest.
 *
 * Rows that no pack fits, or that are too long, go through the kernels named _any_, which read memory again instead of holding the row.
 */
#include "kernels/cuda/own.h"
#include "kernels/cuda/partials.cuh"

namespace {

enum {
    MAX_THREADS      = 512,
    FORWARD_ELEMENTS = 32,  /* of a row, per thread */
    FORWARD_BLOCK    = 128, /* threads, where rows are small enough to share it */
    BACKWARD_ELEMENTS = 16,
    BACKWARD_BLOCK    = 256,
    BACKWARD_SPANS    = 264, /* two blocks on each multiprocessor of the largest GPU so far */
    BACKWARD_ROWS     = 4,   /* at least so many for each part of a block */
    ANY_BLOCK         = 256,
    ANY_COLUMNS       = 128,
};

/* Threads that hold a row of C elements, V per pack; 0: too long. */
inline unsigned row_threads(size_t C, int V, int elements)
{
    size_t packs = (C + (size_t)V - 1) / (size_t)V, each = (size_t)(elements / V);
    size_t warps = (packs + each * SHOAL_WARP - 1) / (each * SHOAL_WARP);
    return warps * SHOAL_WARP <= MAX_THREADS ? (unsigned)(warps * SHOAL_WARP) : 0;
}

/*
 * values[k] = its sum over the threads of a row. `turn` is 0 and 1 in turn: the second place lets a thread go on to the next
 * sum while others still read this one. shared (2, blockDim.y, blockDim.x / 32, K).
 */
template <int K>
__device__ __forceinline__ void row_sums(float *values, float *shared, unsigned turn)
{
    unsigned warps = blockDim.x / SHOAL_WARP;
#pragma unroll
    for (int k = 0; k < K; k++) {
        values[k] = shoal_warp_sum(values[k]);
    }
    if (warps == 1) {
        return;
    }
    float *mine = shared + (turn * blockDim.y + threadIdx.y) * warps * K;
    if (threadIdx.x % SHOAL_WARP == 0) {
#pragma unroll
        for (int k = 0; k < K; k++) {
            mine[threadIdx.x / SHOAL_WARP * K + k] = values[k];
        }
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; k++) {
        float sum = mine[k];
#pragma unroll 2 /* sixteen times over, as it would be, it takes the registers of half a row */
        for (unsigned i = 1; i < warps; i++) {
            sum += mine[i * K + k];
        }
        values[k] = sum;
    }
}

inline size_t row_sums_nbytes(dim3 block, int K)
{
    return (size_t)2 * block.y * (block.x / SHOAL_WARP) * (size_t)K * sizeof(float);
}

template <typename T>
__device__ __forceinline__ float rounded(float x)
{
    T stored;
    shoal_store(&stored, 0, x);
    return shoal_load(&stored, 0);
}

/* ---- forward ---- */

template <typename T>
struct forward_t {
    size_t   N;
    unsigned C;
    bool     centre; /* layer norm */
    float    eps, residual;
    const T *x, *branch, *w, *b; /* branch and b may be NULL */
    T       *sum, *y;            /* sum may be x, branch or NULL */
    float   *stats;
};

template <typename T>
__global__ void __launch_bounds__(MAX_THREADS) norm_kernel(forward_t<T> a)
{
    constexpr int V = 16 / sizeof(T), PACKS = FORWARD_ELEMENTS / V;
    SHOAL_SHARED(float, shared);
    size_t row    = (size_t)blockIdx.x * blockDim.y + threadIdx.y, first = row * a.C;
    bool   active = row < a.N;
    float  s[PACKS][V];

#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
#pragma unroll
        for (int j = 0; j < V; j++) {
            s[p][j] = 0;
        }
        if (active && c < a.C) {
            shoal_load_pack<V>(a.x, first + c, s[p]);
        }
    }
    if (a.branch != NULL) {
        float added[PACKS][V]; /* all loads before the first store: sum may be branch or x */
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
            if (active && c < a.C) {
                shoal_load_pack<V>(a.branch, first + c, added[p]);
            }
        }
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
#pragma unroll
            for (int j = 0; j < V; j++) {
                s[p][j] = active && c < a.C ? rounded<T>(s[p][j] + a.residual * added[p][j]) : 0;
            }
        }
    }
    float mean = 0, var = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
#pragma unroll
        for (int j = 0; j < V; j++) {
            mean += s[p][j];
        }
        if (a.sum != NULL && active && c < a.C) {
            shoal_store_pack<V>(a.sum, first + c, s[p]);
        }
    }
    if (a.centre) {
        row_sums<1>(&mean, shared, 0);
    }
    mean = a.centre ? mean / (float)a.C : 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
#pragma unroll
        for (int j = 0; j < V; j++) {
            float centred = c < a.C ? s[p][j] - mean : 0;
            var += centred * centred;
        }
    }
    row_sums<1>(&var, shared, 1);
    float rstd = 1.0f / sqrtf(var / (float)a.C + a.eps);
    if (!active) {
        return;
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
        if (c < a.C) {
            float w[V], b[V];
            shoal_load_pack<V>(a.w, c, w);
            if (a.b != NULL) {
                shoal_load_pack<V>(a.b, c, b);
            }
#pragma unroll
            for (int j = 0; j < V; j++) {
                w[j] = (s[p][j] - mean) * rstd * w[j] + (a.b != NULL ? b[j] : 0);
            }
            shoal_store_pack<V>(a.y, first + c, w);
        }
    }
    if (threadIdx.x == 0) {
        a.stats[2 * row]     = mean;
        a.stats[2 * row + 1] = rstd;
    }
}

/* A block per row. Each thread reads again only what it wrote itself. */
template <typename T>
__global__ void __launch_bounds__(ANY_BLOCK) norm_any_kernel(forward_t<T> a)
{
    SHOAL_SHARED(float, shared);
    size_t   row = blockIdx.x, first = row * a.C;
    const T *s    = a.sum != NULL ? a.sum : a.x;
    float    mean = 0, var = 0;
    for (unsigned c = threadIdx.x; c < a.C; c += blockDim.x) {
        float value = shoal_load(a.x, first + c) + (a.branch != NULL ? a.residual * shoal_load(a.branch, first + c) : 0);
        if (a.sum != NULL) {
            shoal_store(a.sum, first + c, value);
        }
        mean += rounded<T>(value);
    }
    if (a.centre) {
        row_sums<1>(&mean, shared, 0);
    }
    mean = a.centre ? mean / (float)a.C : 0;
    for (unsigned c = threadIdx.x; c < a.C; c += blockDim.x) {
        float centred = shoal_load(s, first + c) - mean;
        var += centred * centred;
    }
    row_sums<1>(&var, shared, 1);
    float rstd = 1.0f / sqrtf(var / (float)a.C + a.eps);
    for (unsigned c = threadIdx.x; c < a.C; c += blockDim.x) {
        float bias = a.b != NULL ? shoal_load(a.b, c) : 0;
        shoal_store(a.y, first + c, (shoal_load(s, first + c) - mean) * rstd * shoal_load(a.w, c) + bias);
    }
    if (threadIdx.x == 0) {
        a.stats[2 * row]     = mean;
        a.stats[2 * row + 1] = rstd;
    }
}

inline unsigned any_threads(size_t C)
{
    return C < ANY_BLOCK ? (unsigned)((C + SHOAL_WARP - 1) / SHOAL_WARP * SHOAL_WARP) : (unsigned)ANY_BLOCK;
}

template <typename T>
void norm(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    constexpr int V = 16 / sizeof(T);
    size_t        N = op->norm.N, C = op->norm.C;
    forward_t<T>  a = {};
    a.N             = N;
    a.C             = (unsigned)C;
    a.centre        = op->norm.norm == SHOAL_NORM_LAYER;
    a.eps           = op->norm.eps;
    a.residual      = op->norm.residual;
    a.x             = (const T *)args[0]; /* (N,C) */
    a.branch        = (const T *)args[1]; /* (N,C) or NULL */
    a.w             = (const T *)args[2]; /* (C) */
    a.b             = (const T *)args[3]; /* (C) or NULL */
    a.sum           = (T *)args[4];       /* (N,C), or NULL when branch is */
    a.y             = (T *)args[5];       /* (N,C) */
    a.stats         = (float *)args[6];   /* (N,2) */

    const T *packed[] = {a.x, a.branch, a.w, a.b, a.sum, a.y};
    unsigned threads  = row_threads(C, V, FORWARD_ELEMENTS);
    for (const T *memory : packed) {
        threads = shoal_vector_fits(memory, C, C, V) ? threads : 0;
    }
    if (threads == 0) {
        dim3 block(any_threads(C));
        SHOAL_LAUNCH(norm_any_kernel<T>, dim3((unsigned)N), block, row_sums_nbytes(block, 1), cuda->stream, a);
        return;
    }
    dim3 block(threads, threads < FORWARD_BLOCK ? FORWARD_BLOCK / threads : 1);
    SHOAL_LAUNCH(norm_kernel<T>, dim3((unsigned)((N + block.y - 1) / block.y)), block, row_sums_nbytes(block, 1), cuda->stream, a);
}

/* ---- backward ---- */

template <typename T>
struct backward_t {
    size_t       N, span; /* rows, and how many a block has */
    unsigned     C;
    bool         centre;
    const T     *sum, *w;
    const float *stats;
    const T     *dy, *dres; /* dres may be NULL */
    T           *dsum;      /* may be dy or dres */
    float       *partials;  /* (spans, 2, C): dw, db */
};

/* Rows per block, from the op alone, so that partial sums are always of the same rows. */
size_t backward_span(const shoal_op_t *op)
{
    int      V       = 16 / (int)shoal_dtype_nbytes(op->dtype);
    unsigned threads = row_threads(op->norm.C, V, BACKWARD_ELEMENTS);
    size_t   groups  = threads != 0 && threads < BACKWARD_BLOCK ? BACKWARD_BLOCK / threads : 1;
    size_t   span    = (op->norm.N + BACKWARD_SPANS - 1) / BACKWARD_SPANS;
    span             = span > groups * BACKWARD_ROWS ? span : groups * BACKWARD_ROWS;
    return (span + groups - 1) / groups * groups;
}

/*
 * A block's parts (threadIdx.y) take turns to add their dw, then db, to the first's, and the first stores. shared (C).
 */
template <int PACKS, int V>
__device__ void store_partials(float (*sums)[V], float *shared, unsigned C, float *partials)
{
    for (unsigned part = 0; part < blockDim.y; part++) {
        __syncthreads();
        if (threadIdx.y != part) {
            continue;
        }
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
#pragma unroll
            for (int j = 0; j < V; j++) {
                if (c < C) {
                    shared[c + (unsigned)j] = part == 0 ? sums[p][j] : shared[c + (unsigned)j] + sums[p][j];
                }
            }
        }
    }
    __syncthreads();
    for (unsigned c = threadIdx.y * blockDim.x + threadIdx.x; c < C; c += blockDim.x * blockDim.y) {
        partials[c] = shared[c];
    }
}

/* What a thread reads of a row, as it lies in memory. */
template <int PACKS>
struct backward_row_t {
    shoal_raw_t sum[PACKS], dy[PACKS], dres[PACKS];
    float       mean, rstd;
};

/* Zeros where the row does not exist, where it has no column, and for dres where there is none. */
template <typename T, int PACKS>
__device__ __forceinline__ void load_backward_row(const backward_t<T> &a, size_t row, size_t end,
                                                  backward_row_t<PACKS> *row_p)
{
    constexpr int V      = 16 / sizeof(T);
    bool          active = row < end;
    row_p->mean          = active ? a.stats[2 * row] : 0;
    row_p->rstd          = active ? a.stats[2 * row + 1] : 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        unsigned c     = (threadIdx.x + (unsigned)p * blockDim.x) * V;
        size_t   i     = row * a.C + c;
        row_p->sum[p]  = {};
        row_p->dy[p]   = {};
        row_p->dres[p] = {};
        if (active && c < a.C) {
            row_p->sum[p] = shoal_load_raw(a.sum, i);
            row_p->dy[p]  = shoal_load_raw(a.dy, i);
            if (a.dres != NULL) {
                row_p->dres[p] = shoal_load_raw(a.dres, i);
            }
        }
    }
}

/*
 * With g = dy * w and means over C: dsum = dres + rstd * (g - mean(g) - xhat * mean(g * xhat)); RMS
 * norm has no mean(g).
 *
 * Each thread asks for its next row before it waits for the others' sums of this one, so that
 * memory has work meanwhile. In fp32 the registers would not hold two rows. No row is read after it
 * is written, also where dsum is dy or dres: rows are disjoint.
 */
template <typename T>
__global__ void __launch_bounds__(MAX_THREADS) norm_bwd_kernel(backward_t<T> a)
{
    constexpr int  V = 16 / sizeof(T), PACKS = BACKWARD_ELEMENTS / V;
    constexpr bool AHEAD = sizeof(T) == sizeof(shoal_bf16_t);
    SHOAL_SHARED(float, shared);
    size_t   end  = ((size_t)blockIdx.x + 1) * a.span < a.N ? ((size_t)blockIdx.x + 1) * a.span : a.N;
    size_t   base = (size_t)blockIdx.x * a.span;
    unsigned turn = 0;
    float    dw[PACKS][V], db[PACKS][V];

    backward_row_t<PACKS> next;
    if (AHEAD) {
        load_backward_row(a, base + threadIdx.y, end, &next);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            dw[p][j] = db[p][j] = 0;
        }
    }
    for (; base < end; base += blockDim.y) {
        size_t row = base + threadIdx.y;
        if (!AHEAD) {
            load_backward_row(a, row, end, &next);
        }
        backward_row_t<PACKS> now = next;
        if (AHEAD) {
            load_backward_row(a, row + blockDim.y, end, &next);
        }
        shoal_raw_t weights[PACKS]; /* for each row again, from the first cache: saves registers */
        float       xhat[PACKS][V], means[2] = {0, 0}; /* of g and g * xhat */
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
            float    dy[V], w[V];
            weights[p] = c < a.C ? shoal_load_raw(a.w, c) : shoal_raw_t();
            shoal_unpack_raw<T>(weights[p], w);
            shoal_unpack_raw<T>(now.dy[p], dy);
            shoal_unpack_raw<T>(now.sum[p], xhat[p]);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float g    = dy[j] * w[j];
                xhat[p][j] = (xhat[p][j] - now.mean) * now.rstd;
                means[0] += g;
                means[1] += g * xhat[p][j];
                dw[p][j] += dy[j] * xhat[p][j];
                db[p][j] += dy[j];
            }
        }
        row_sums<2>(means, shared, turn);
        turn ^= 1;
        float g_mean = a.centre ? means[0] / (float)a.C : 0, gx_mean = means[1] / (float)a.C;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            unsigned c = (threadIdx.x + (unsigned)p * blockDim.x) * V;
            float    dy[V], w[V], dsum[V];
            shoal_unpack_raw<T>(weights[p], w);
            shoal_unpack_raw<T>(now.dy[p], dy);
            shoal_unpack_raw<T>(now.dres[p], dsum);
#pragma unroll
            for (int j = 0; j < V; j++) {
                dsum[j] += now.rstd * (dy[j] * w[j] - g_mean - xhat[p][j] * gx_mean);
            }
            if (row < end && c < a.C) {
                shoal_store_pack<V>(a.dsum, row * a.C + c, dsum);
            }
        }
    }
    float *partials = a.partials + (size_t)blockIdx.x * 2 * a.C;
    store_partials<PACKS, V>(dw, shared, a.C, partials);
    store_partials<PACKS, V>(db, shared, a.C, partials + a.C);
}

/* dw and db of a span of rows, a thread per column; before dsum, which may overwrite dy, is known. */
template <typename T>
__global__ void __launch_bounds__(ANY_COLUMNS) norm_bwd_any_columns_kernel(backward_t<T> a)
{
    size_t   first = (size_t)blockIdx.x * a.span, end = first + a.span < a.N ? first + a.span : a.N;
    unsigned c  = blockIdx.y * ANY_COLUMNS + threadIdx.x;
    float    dw = 0, db = 0;
    if (c >= a.C) {
        return;
    }
#pragma unroll 4
    for (size_t row = first; row < end; row++) {
        float dy = shoal_load(a.dy, row * a.C + c);
        dw += dy * ((shoal_load(a.sum, row * a.C + c) - a.stats[2 * row]) * a.stats[2 * row + 1]);
        db += dy;
    }
    float *partials   = a.partials + (size_t)blockIdx.x * 2 * a.C;
    partials[c]       = dw;
    partials[a.C + c] = db;
}

/* dsum, a block per row. Each thread overwrites only what no other thread reads. */
template <typename T>
__global__ void __launch_bounds__(ANY_BLOCK) norm_bwd_any_rows_kernel(backward_t<T> a)
{
    SHOAL_SHARED(float, shared);
    size_t row = blockIdx.x, first = row * a.C;
    float  mean = a.stats[2 * row], rstd = a.stats[2 * row + 1], means[2] = {0, 0};
    for (unsigned c = threadIdx.x; c < a.C; c += blockDim.x) {
        float g = shoal_load(a.dy, first + c) * shoal_load(a.w, c);
        means[0] += g;
        means[1] += g * ((shoal_load(a.sum, first + c) - mean) * rstd);
    }
    row_sums<2>(means, shared, 0);
    float g_mean = a.centre ? means[0] / (float)a.C : 0, gx_mean = means[1] / (float)a.C;
    for (unsigned c = threadIdx.x; c < a.C; c += blockDim.x) {
        float g    = shoal_load(a.dy, first + c) * shoal_load(a.w, c);
        float xhat = (shoal_load(a.sum, first + c) - mean) * rstd;
        float res  = a.dres != NULL ? shoal_load(a.dres, first + c) : 0;
        shoal_store(a.dsum, first + c, res + rstd * (g - g_mean - xhat * gx_mean));
    }
}

template <typename T>
void launch_backward(shoal_cuda_t *cuda, const backward_t<T> &a, unsigned spans)
{
    constexpr int V        = 16 / sizeof(T);
    const T      *packed[] = {a.sum, a.w, a.dy, a.dres, a.dsum};
    unsigned      threads  = row_threads(a.C, V, BACKWARD_ELEMENTS);
    for (const T *memory : packed) {
        threads = shoal_vector_fits(memory, a.C, a.C, V) ? threads : 0;
    }
    if (threads == 0) {
        dim3 block(any_threads(a.C)), grid(spans, (a.C + ANY_COLUMNS - 1) / ANY_COLUMNS);
        SHOAL_LAUNCH(norm_bwd_any_columns_kernel<T>, grid, dim3(ANY_COLUMNS), 0, cuda->stream, a);
        SHOAL_LAUNCH(norm_bwd_any_rows_kernel<T>, dim3((unsigned)a.N), block, row_sums_nbytes(block, 2), cuda->stream, a);
        return;
    }
    dim3   block(threads, threads < BACKWARD_BLOCK ? BACKWARD_BLOCK / threads : 1);
    size_t sums = row_sums_nbytes(block, 2), row = a.C * sizeof(float);
    SHOAL_LAUNCH(norm_bwd_kernel<T>, dim3(spans), block, sums > row ? sums : row, cuda->stream, a);
}

template <typename T>
void norm_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t        C = op->norm.C;
    backward_t<T> a = {};
    a.N             = op->norm.N;
    a.span          = backward_span(op);
    a.C             = (unsigned)C;
    a.centre        = op->norm.norm == SHOAL_NORM_LAYER;
    a.sum           = (const T *)args[0];     /* (N,C) */
    a.w             = (const T *)args[1];     /* (C) */
    a.stats         = (const float *)args[2]; /* (N,2) */
    a.dy            = (const T *)args[3];     /* (N,C) */
    a.dres          = (const T *)args[4];     /* (N,C) or NULL */
    a.dsum          = (T *)args[5];           /* (N,C), may be dy or dres */
    a.partials      = (float *)workspace;
    size_t spans    = (a.N + a.span - 1) / a.span;
    launch_backward(cuda, a, (unsigned)spans);
    shoal_add_partials(cuda, a.partials, spans, 2 * C, C, shoal_gradient(args[6], op, op->norm.accumulate),
                       shoal_gradient(args[7], op, op->norm.accumulate));
}

} // namespace

extern "C" shoal_status_t shoal_cuda_norm(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    if (op->dtype == SHOAL_BF16) {
        norm<shoal_bf16_t>(cuda, op, args);
    } else {
        norm<float>(cuda, op, args);
    }
    return SHOAL_OK;
}

extern "C" size_t shoal_cuda_norm_bwd_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    size_t span = backward_span(op);
    return (op->norm.N + span - 1) / span * 2 * op->norm.C * sizeof(float); /* (spans, 2, C) */
}

extern "C" shoal_status_t shoal_cuda_norm_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    if (op->dtype == SHOAL_BF16) {
        norm_bwd<shoal_bf16_t>(cuda, op, args, workspace);
    } else {
        norm_bwd<float>(cuda, op, args, workspace);
    }
    return SHOAL_OK;
}
