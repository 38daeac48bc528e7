/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Causal ATTENTION and its gradient by plain fp32 multiply-adds, for any strides and head widths up to 256: what fp32 and the shapes that
 * cuDNN refuses run on, and the reference for the rest.
 *
 * A block owns 64 rows and walks over tiles of 64 others; scores exist only as a tile in registers. Forward keeps the running maximum
 * and sum of the softmax. Backward recomputes probabilities from lse, twice: a block of queries sums dq over keys, a block
 * of keys sums dk and dv over queries and over the query heads that share it. So every output has one owner, and sums have one order.
 *
 * Shared memory: two panels of 32 of the head width, which also serve as one tile of 64 x 64 of values, keys or queries, and one
 * tile of probabilities. Blocks with the longest walk come first.
 */
#include "kernels/cuda/own.h"
#include "kernels/cuda/tile.cuh"

#include "base/log.h"

namespace {

enum { TILE = SHOAL_TILE, OWN = SHOAL_TILE_OWN, LANES_OF_ROW = 16, WIDEST = 256, SHARED_NBYTES = 2 * SHOAL_SQUARE * sizeof(float) };

typedef float own_t[OWN][OWN];

struct shape_t {
    int    T, H, K, D;
    size_t ldq, ldk, ldv, ldo, lddq, lddk, lddv;
    float  scale;
};

/* One head of one sequence: (T, D), rows ld apart. */
template <typename T>
struct head_t {
    T     *x;
    size_t ld;
};

template <typename T>
__device__ __forceinline__ head_t<T> head_of(const shape_t &shape, void *x, size_t ld, int b, int h)
{
    return {(T *)x + (size_t)b * shape.T * ld + (size_t)h * shape.D, ld};
}

template <typename T>
__device__ __forceinline__ head_t<const T> head_of(const shape_t &shape, const void *x, size_t ld, int b, int h)
{
    return {(const T *)x + (size_t)b * shape.T * ld + (size_t)h * shape.D, ld};
}

/* panel [d][row] = rows first .. first + 63 of x, columns d0 .. d0 + 31; zero beyond. */
template <typename T>
__device__ __forceinline__ void load_panel(const shape_t &shape, head_t<const T> head, int first, int d0, float *panel)
{
#pragma unroll
    for (int item = 0; item < SHOAL_TILE_ITEMS; item++) {
        int  row = shoal_panel_row(true, item), d = shoal_panel_depth(true, item);
        bool inside                     = first + row < shape.T && d0 + d < shape.D;
        panel[d * SHOAL_TILE_LD + row] = inside ? shoal_load(head.x, (size_t)(first + row) * head.ld + (size_t)(d0 + d)) : 0.0f;
    }
}

/* square [row][d] = rows first .. first + 63 of x, columns d0 .. d0 + 63; zero beyond. */
template <typename T>
__device__ __forceinline__ void load_square(const shape_t &shape, head_t<const T> head, int first, int d0, float *square)
{
    int d = (int)threadIdx.x % TILE;
#pragma unroll 8
    for (int row = (int)threadIdx.x / TILE; row < TILE; row += SHOAL_TILE_THREADS / TILE) {
        bool inside                      = first + row < shape.T && d0 + d < shape.D;
        square[row * SHOAL_TILE_LD + d] = inside ? shoal_load(head.x, (size_t)(first + row) * head.ld + (size_t)(d0 + d)) : 0.0f;
    }
}

/* y = a b^T for 64 rows of each. */
template <typename T>
__device__ __forceinline__ void multiply_rows(const shape_t &shape, head_t<const T> a, int a_first, head_t<const T> b, int b_first,
                                              float *panels, own_t &y)
{
#pragma unroll
    for (int i = 0; i < OWN * OWN; i++) {
        y[i / OWN][i % OWN] = 0;
    }
    for (int d0 = 0; d0 < shape.D; d0 += SHOAL_TILE_DEPTH) {
        load_panel(shape, a, a_first, d0, panels);
        load_panel(shape, b, b_first, d0, panels + SHOAL_PANEL);
        __syncthreads();
        shoal_tile_multiply<SHOAL_TILE_DEPTH>(panels, panels + SHOAL_PANEL, y);
        __syncthreads();
    }
}

/* sums (64, D) += w^T x, with w [64][64] in shared memory, written just before, and 64 rows of x. */
template <int CHUNKS, typename T>
__device__ __forceinline__ void add_weighted(const shape_t &shape, const float *w, head_t<const T> x, int first, float *square,
                                             own_t (&sums)[CHUNKS])
{
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if (c * TILE < shape.D) {
            load_square(shape, x, first, c * TILE, square);
            __syncthreads();
            shoal_tile_multiply<TILE>(w, square, sums[c]);
            __syncthreads();
        }
    }
}

/* Rows first .. of x = sums * factor, where they exist. */
template <int CHUNKS, typename T>
__device__ __forceinline__ void write_rows(const shape_t &shape, const own_t (&sums)[CHUNKS], const float (&factor)[OWN], int first,
                                           head_t<T> x)
{
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
#pragma unroll
            for (int j = 0; j < OWN; j++) {
                int row = first + shoal_tile_row() + i, d = c * TILE + shoal_tile_column() + j;
                if (row < shape.T && d < shape.D) {
                    shoal_store(x.x, (size_t)row * x.ld + (size_t)d, sums[c][i][j] * factor[i]);
                }
            }
        }
    }
}

/* The 16 threads that share a row are half a warp. */
__device__ __forceinline__ float row_max(float x)
{
    for (int distance = LANES_OF_ROW / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    }
    return x;
}

__device__ __forceinline__ float row_sum(float x)
{
    for (int distance = LANES_OF_ROW / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

/*
 * scores (in place) become exp(scale * score - max), 0 for keys after the query; max and sum, the latter of the thread's columns only,
 * go on; rescale is what sums so far must be multiplied by. Every row sees key 0 first, so max is finite from then on.
 */
__device__ __forceinline__ void soften(float scale, int row, int key, own_t &scores, float (&max)[OWN], float (&sum)[OWN],
                                       float (&rescale)[OWN])
{
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        float highest = max[i];
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            scores[i][j] = key + j <= row + i ? scores[i][j] * scale : -INFINITY;
            highest      = fmaxf(highest, scores[i][j]);
        }
        highest    = row_max(highest);
        rescale[i] = expf(max[i] - highest);
        max[i]     = highest;
        sum[i] *= rescale[i];
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            scores[i][j] = expf(scores[i][j] - highest);
            sum[i] += scores[i][j];
        }
    }
}

struct forward_t {
    shape_t     shape;
    const void *q, *k, *v;
    void       *o;
    float      *lse; /* (B,H,T) */
};

/* Block (b H + h, tile), tiles from the last. */
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(SHOAL_TILE_THREADS, CHUNKS <= 2 ? 2 : 1) forward(forward_t p)
{
    SHOAL_SHARED(float, panels);
    float          *weights = panels + SHOAL_SQUARE; /* [key][query] */
    int             b = (int)blockIdx.x / p.shape.H, h = (int)blockIdx.x % p.shape.H, kv_head = h / (p.shape.H / p.shape.K);
    int             first = (int)(gridDim.y - 1 - blockIdx.y) * TILE, row = first + shoal_tile_row();
    head_t<const T> q = head_of<T>(p.shape, p.q, p.shape.ldq, b, h);
    head_t<const T> k = head_of<T>(p.shape, p.k, p.shape.ldk, b, kv_head), v = head_of<T>(p.shape, p.v, p.shape.ldv, b, kv_head);
    float           max[OWN] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[OWN] = {}, factor[OWN];
    own_t           o[CHUNKS] = {}, scores;

    for (int key = 0; key <= first; key += TILE) {
        multiply_rows(p.shape, q, first, k, key, panels, scores);
        soften(p.shape.scale, row, key + shoal_tile_column(), scores, max, sum, factor);
        shoal_tile_store_transposed(scores, weights);
#pragma unroll
        for (int i = 0; i < CHUNKS * OWN * OWN; i++) {
            o[i / (OWN * OWN)][i / OWN % OWN][i % OWN] *= factor[i / OWN % OWN];
        }
        add_weighted(p.shape, weights, v, key, panels, o);
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        float total = row_sum(sum[i]);
        factor[i]   = 1.0f / total;
        if (row + i < p.shape.T && shoal_tile_column() == 0) {
            p.lse[(size_t)blockIdx.x * p.shape.T + row + i] = max[i] + logf(total);
        }
    }
    write_rows(p.shape, o, factor, first, head_of<T>(p.shape, p.o, p.shape.ldo, b, h));
}

struct backward_t {
    shape_t      shape;
    const void  *q, *k, *v, *o, *dout;
    const float *lse;   /* (B,H,T) */
    float       *delta; /* (B,H,T): sum over D of do * o, what the softmax's gradient subtracts */
    void        *dq, *dk, *dv;
};

/* A warp per row of delta. */
template <typename T>
__global__ void __launch_bounds__(SHOAL_TILE_THREADS) compute_delta(backward_t p, size_t rows)
{
    size_t r = (size_t)blockIdx.x * (SHOAL_TILE_THREADS / SHOAL_WARP) + threadIdx.x / SHOAL_WARP;
    if (r >= rows) { /* the whole warp */
        return;
    }
    size_t t = r % (size_t)p.shape.T, bh = r / (size_t)p.shape.T, b = bh / (size_t)p.shape.H, h = bh % (size_t)p.shape.H;
    size_t at  = (b * (size_t)p.shape.T + t) * p.shape.ldo + h * (size_t)p.shape.D;
    float  sum = 0;
    for (size_t d = threadIdx.x % SHOAL_WARP; d < (size_t)p.shape.D; d += SHOAL_WARP) {
        sum += shoal_load((const T *)p.dout, at + d) * shoal_load((const T *)p.o, at + d);
    }
    sum = shoal_warp_sum(sum);
    if (threadIdx.x % SHOAL_WARP == 0) {
        p.delta[r] = sum;
    }
}

/*
 * From scores and dp = do v^T of the thread's queries (rows) and keys (columns), in place: p = exp(scale * score - lse) and
 * ds = scale * p * (dp - delta); both 0 where the query does not see the key or does not exist. `head` is row (b, h) of lse and delta.
 */
__device__ __forceinline__ void recompute(const backward_t &p, size_t head, int row, int key, own_t &scores, own_t &dp)
{
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        bool  exists = row + i < p.shape.T;
        float lse = exists ? p.lse[head * p.shape.T + row + i] : 0.0f, delta = exists ? p.delta[head * p.shape.T + row + i] : 0.0f;
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            bool visible = exists && key + j <= row + i;
            scores[i][j] = visible ? expf(p.shape.scale * scores[i][j] - lse) : 0.0f;
            dp[i][j]     = visible ? p.shape.scale * scores[i][j] * (dp[i][j] - delta) : 0.0f;
        }
    }
}

/* Block (b H + h, tile), tiles from the last: dq of 64 queries. */
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(SHOAL_TILE_THREADS, CHUNKS <= 2 ? 2 : 1) backward_queries(backward_t p)
{
    SHOAL_SHARED(float, panels);
    float          *weights = panels + SHOAL_SQUARE; /* [key][query] */
    int             b = (int)blockIdx.x / p.shape.H, h = (int)blockIdx.x % p.shape.H, kv_head = h / (p.shape.H / p.shape.K);
    int             first = (int)(gridDim.y - 1 - blockIdx.y) * TILE;
    head_t<const T> q = head_of<T>(p.shape, p.q, p.shape.ldq, b, h), dout = head_of<T>(p.shape, p.dout, p.shape.ldo, b, h);
    head_t<const T> k = head_of<T>(p.shape, p.k, p.shape.ldk, b, kv_head), v = head_of<T>(p.shape, p.v, p.shape.ldv, b, kv_head);
    const float     one[OWN]   = {1, 1, 1, 1};
    own_t           dq[CHUNKS] = {}, scores, ds;

    for (int key = 0; key <= first; key += TILE) {
        multiply_rows(p.shape, q, first, k, key, panels, scores);
        multiply_rows(p.shape, dout, first, v, key, panels, ds);
        recompute(p, blockIdx.x, first + shoal_tile_row(), key + shoal_tile_column(), scores, ds);
        shoal_tile_store_transposed(ds, weights);
        add_weighted(p.shape, weights, k, key, panels, dq);
    }
    write_rows(p.shape, dq, one, first, head_of<T>(p.shape, p.dq, p.shape.lddq, b, h));
}

/* Block (b K + kv_head, tile), tiles from the first: dk and dv of 64 keys, over the heads of their group and then over queries. */
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(SHOAL_TILE_THREADS, CHUNKS <= 2 ? 2 : 1) backward_keys(backward_t p)
{
    SHOAL_SHARED(float, panels);
    float          *weights = panels + SHOAL_SQUARE; /* [query][key] */
    int             b = (int)blockIdx.x / p.shape.K, kv_head = (int)blockIdx.x % p.shape.K, group = p.shape.H / p.shape.K;
    int             first = (int)blockIdx.y * TILE;
    head_t<const T> k = head_of<T>(p.shape, p.k, p.shape.ldk, b, kv_head), v = head_of<T>(p.shape, p.v, p.shape.ldv, b, kv_head);
    const float     one[OWN]   = {1, 1, 1, 1};
    own_t           dk[CHUNKS] = {}, dv[CHUNKS] = {}, scores, ds;

    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        head_t<const T> q = head_of<T>(p.shape, p.q, p.shape.ldq, b, h), dout = head_of<T>(p.shape, p.dout, p.shape.ldo, b, h);
        for (int row = first; row < p.shape.T; row += TILE) {
            multiply_rows(p.shape, q, row, k, first, panels, scores);
            multiply_rows(p.shape, dout, row, v, first, panels, ds);
            recompute(p, (size_t)b * p.shape.H + h, row + shoal_tile_row(), first + shoal_tile_column(), scores, ds);
            shoal_tile_store(scores, weights);
            add_weighted(p.shape, weights, dout, row, panels, dv);
            shoal_tile_store(ds, weights);
            add_weighted(p.shape, weights, q, row, panels, dk);
        }
    }
    write_rows(p.shape, dk, one, first, head_of<T>(p.shape, p.dk, p.shape.lddk, b, kv_head));
    write_rows(p.shape, dv, one, first, head_of<T>(p.shape, p.dv, p.shape.lddv, b, kv_head));
}

shape_t shape_of(const shoal_op_t *op)
{
    shape_t shape;
    shape.T     = (int)op->attention.T;
    shape.H     = (int)op->attention.H;
    shape.K     = (int)op->attention.K;
    shape.D     = (int)op->attention.D;
    shape.ldq   = op->attention.ldq;
    shape.ldk   = op->attention.ldk;
    shape.ldv   = op->attention.ldv;
    shape.ldo   = op->attention.ldo;
    shape.lddq  = op->attention.lddq;
    shape.lddk  = op->attention.lddk;
    shape.lddv  = op->attention.lddv;
    shape.scale = op->attention.scale;
    return shape;
}

dim3 grid_of(const shoal_op_t *op, size_t heads)
{
    return dim3((unsigned)(op->attention.B * heads), (unsigned)((op->attention.T + TILE - 1) / TILE));
}

template <typename T, int CHUNKS>
void launch_forward(shoal_cuda_t *cuda, const shoal_op_t *op, forward_t p)
{
    SHOAL_LAUNCH((forward<T, CHUNKS>), grid_of(op, op->attention.H), SHOAL_TILE_THREADS, SHARED_NBYTES, cuda->stream, p);
}

template <typename T, int CHUNKS>
void launch_backward(shoal_cuda_t *cuda, const shoal_op_t *op, backward_t p)
{
    size_t   rows = op->attention.B * op->attention.H * op->attention.T, warps = SHOAL_TILE_THREADS / SHOAL_WARP;
    unsigned blocks = (unsigned)((rows + warps - 1) / warps);
    SHOAL_LAUNCH(compute_delta<T>, blocks, SHOAL_TILE_THREADS, 0, cuda->stream, p, rows);
    SHOAL_LAUNCH((backward_keys<T, CHUNKS>), grid_of(op, op->attention.K), SHOAL_TILE_THREADS, SHARED_NBYTES, cuda->stream, p);
    SHOAL_LAUNCH((backward_queries<T, CHUNKS>), grid_of(op, op->attention.H), SHOAL_TILE_THREADS, SHARED_NBYTES, cuda->stream, p);
}

/* Calls function<T, CHUNKS> for the op's type and head width. */
#define DISPATCH(function, T, ...)                                               \
    (op->attention.D <= TILE       ? function<T, 1>(cuda, op, __VA_ARGS__)       \
     : op->attention.D <= 2 * TILE ? function<T, 2>(cuda, op, __VA_ARGS__)       \
                                   : function<T, WIDEST / TILE>(cuda, op, __VA_ARGS__))

shoal_status_t check(const shoal_op_t *op)
{
    if (op->attention.D > WIDEST) {
        shoal_error("cuda: attention with heads of %zu: the widest that there is a kernel for is %d", op->attention.D, WIDEST);
        return SHOAL_ERR_UNSUPPORTED;
    }
    return SHOAL_OK;
}

} // namespace

extern "C" shoal_status_t shoal_cuda_attention(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    forward_t p = {shape_of(op), args[0], args[1], args[2], args[3], (float *)args[4]};
    SHOAL_TRY(check(op));
    op->dtype == SHOAL_BF16 ? DISPATCH(launch_forward, shoal_bf16_t, p) : DISPATCH(launch_forward, float, p);
    return SHOAL_OK;
}

extern "C" size_t shoal_cuda_attention_bwd_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    return op->attention.B * op->attention.H * op->attention.T * sizeof(float);
}

extern "C" shoal_status_t shoal_cuda_attention_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    backward_t p = {shape_of(op), args[0], args[1], args[2], args[3], args[5], (const float *)args[4], (float *)workspace,
                    args[6],      args[7], args[8]};
    SHOAL_TRY(check(op));
    op->dtype == SHOAL_BF16 ? DISPATCH(launch_backward, shoal_bf16_t, p) : DISPATCH(launch_backward, float, p);
    return SHOAL_OK;
}
