/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Per-head normalization and rotary embedding. A row (D) is one head of one token. A power of two of lanes, at most a warp, holds a row in
 * registers: each lane has one pack of 16 bytes from the row's first half and the one D/2 further on. So it has both elements of
 * every pair that it rotates, interleaved or half-split, and may write in place. Blocks step through the rows by the size of the grid; the
 * step is given in tokens and heads, so that no row needs a division.
 *
 * Backward without normalization is forward with the angles reversed. With it, a block adds up dw in registers and leaves one
 * row of partial sums (partials.cuh).
 *
 * Rows that no pack fits, or that are too long for a warp, go through the kernels named _any_: a warp per row, which reads it again.
 */
#include "kernels/cuda/own.h"
#include "kernels/cuda/partials.cuh"

namespace {

enum {
    BLOCK           = 256,
    WARPS           = BLOCK / SHOAL_WARP,
    FORWARD_BLOCKS  = 2112, /* at most: 16 on each multiprocessor of the largest GPU so far */
    BACKWARD_BLOCKS = 396,  /* at most: 3 there; each leaves partial sums */
};

/* A row, as token and head, and its token's position; as a step between rows, what to add, with h < heads and t < T. */
struct place_t {
    size_t   n;
    unsigned h, t;
};

template <typename T>
struct headprep_t {
    size_t            N, ldx, ldy, ldsrc;
    unsigned          T_, heads, D;
    unsigned          lanes; /* that hold a row: a power of two */
    size_t            rounds; /* rows that each group of lanes may have to do */
    place_t           step;
    shoal_rope_kind_t rope;
    float             direction; /* -1 to rotate back */
    float             eps;
    const T          *x, *w; /* w may be NULL */
    const float      *table;
    const T          *dy;       /* backward */
    T                *y;        /* dx in backward; may be x, or dy in backward */
    float            *partials; /* backward (rows of partial sums, D) */
};

template <typename T>
__device__ __forceinline__ place_t place_of(const headprep_t<T> &a, size_t row)
{
    place_t place;
    place.n = row / a.heads;
    place.h = (unsigned)(row % a.heads);
    place.t = (unsigned)(place.n % a.T_);
    return place;
}

template <typename T>
__device__ __forceinline__ void advance(const headprep_t<T> &a, place_t *place)
{
    place->n += a.step.n;
    place->h += a.step.h;
    place->t += a.step.t;
    if (place->h >= a.heads) {
        place->h -= a.heads;
        place->n++;
        place->t++;
    }
    place->t -= place->t >= a.T_ ? a.T_ : 0;
}

/* The sum over the lanes that hold a row. */
__device__ __forceinline__ float row_sum(float x, unsigned lanes)
{
    for (unsigned distance = lanes / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, (int)distance);
    }
    return x;
}

/* ---- rows in registers ---- */

/* row: V elements from `c` in the first half, then V from there in the second. */
template <int V, typename T>
__device__ __forceinline__ void load_row(const T *x, size_t first, unsigned half, unsigned c, float *row)
{
    shoal_load_pack<V>(x, first + c, row);
    shoal_load_pack<V>(x, first + half + c, row + V);
}

template <typename T>
__device__ __forceinline__ void prefetch_row(const T *x, size_t first, unsigned half, unsigned c)
{
    shoal_prefetch(x, first + c);
    shoal_prefetch(x, first + half + c);
}

template <int V, typename T>
__device__ __forceinline__ void store_row(T *x, size_t first, unsigned half, unsigned c, const float *row)
{
    shoal_store_pack<V>(x, first + c, row);
    shoal_store_pack<V>(x, first + half + c, row + V);
}

template <int V, typename T>
__device__ __forceinline__ void scale_row(const T *w, unsigned half, unsigned c, float *row)
{
    float by[2 * V];
    load_row<V>(w, 0, half, c, by);
#pragma unroll
    for (int j = 0; j < 2 * V; j++) {
        row[j] *= by[j];
    }
}

__device__ __forceinline__ void rotate_pair(float cosine, float sine, float *a, float *b)
{
    float old = *a;
    *a        = old * cosine - *b * sine;
    *b        = *b * cosine + old * sine;
}

/* angles: the table's row of this position, D floats: cos, sin of each pair. */
template <int V>
__device__ __forceinline__ void rotate_row(const float *angles, shoal_rope_kind_t rope, float direction, unsigned half, unsigned c,
                                           float *row)
{
    float turn[2 * V]; /* cos, sin of the lane's V pairs */
    bool  near = rope == SHOAL_ROPE_INTERLEAVED;
#pragma unroll
    for (unsigned j = 0; j < V; j += 4) {
        shoal_load_pack<4>(angles, (near ? c : 2 * c) + j, turn + j);
        shoal_load_pack<4>(angles, (near ? half + c : 2 * c + V) + j, turn + V + j);
    }
    if (near) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            rotate_pair(turn[2 * j], direction * turn[2 * j + 1], &row[2 * j], &row[2 * j + 1]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < V; j++) {
            rotate_pair(turn[2 * j], direction * turn[2 * j + 1], &row[j], &row[V + j]);
        }
    }
}

/* row = (row - mean) * rstd, and 0 in lanes that hold none of it; returns rstd. */
template <int ELEMENTS>
__device__ __forceinline__ float normalize_row(bool holds, unsigned lanes, unsigned D, float eps, float *row)
{
    float mean = 0, var = 0;
#pragma unroll
    for (int j = 0; j < ELEMENTS; j++) {
        mean += row[j];
    }
    mean = row_sum(mean, lanes) / (float)D;
#pragma unroll
    for (int j = 0; j < ELEMENTS; j++) {
        row[j] = holds ? row[j] - mean : 0;
        var += row[j] * row[j];
    }
    float rstd = 1.0f / sqrtf(row_sum(var, lanes) / (float)D + eps);
#pragma unroll
    for (int j = 0; j < ELEMENTS; j++) {
        row[j] = holds ? row[j] * rstd : 0;
    }
    return rstd;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK) headprep_kernel(headprep_t<T> a)
{
    constexpr int V     = 16 / sizeof(T);
    unsigned      index = blockIdx.x * BLOCK + threadIdx.x, half = a.D / 2, c = index % a.lanes * V;
    place_t       place = place_of(a, index / a.lanes);
    for (size_t round = 0; round < a.rounds; round++, advance(a, &place)) {
        bool  holds = place.n < a.N && c < half;
        float row[2 * V];
#pragma unroll
        for (int j = 0; j < 2 * V; j++) {
            row[j] = 0;
        }
        if (holds) {
            load_row<V>(a.x, place.n * a.ldx + (size_t)place.h * a.D, half, c, row);
        }
        if (a.w != NULL) {
            normalize_row<2 * V>(holds, a.lanes, a.D, a.eps, row);
        }
        if (!holds) {
            continue;
        }
        if (a.w != NULL) {
            scale_row<V>(a.w, half, c, row);
        }
        if (a.rope != SHOAL_ROPE_NONE) {
            rotate_row<V>(a.table + (size_t)place.t * a.D, a.rope, a.direction, half, c, row);
        }
        store_row<V>(a.y, place.n * a.ldy + (size_t)place.h * a.D, half, c, row);
    }
}

/* Adds up the block's dw, of which each group of lanes has some, and stores it as a row of partial sums. shared (WARPS, D). */
template <int V>
__device__ __forceinline__ void store_partials(float *dw, float *shared, unsigned lanes, unsigned D, float *partials)
{
    unsigned half = D / 2, lane = threadIdx.x % SHOAL_WARP, c = lane * V;
#pragma unroll
    for (int j = 0; j < 2 * V; j++) {
        for (unsigned distance = lanes; distance < SHOAL_WARP; distance *= 2) {
            dw[j] += __shfl_xor_sync(0xffffffffu, dw[j], (int)distance);
        }
        if (lane < lanes && c < half) {
            shared[threadIdx.x / SHOAL_WARP * D + (j < V ? c + (unsigned)j : half + c + (unsigned)(j - V))] = dw[j];
        }
    }
    __syncthreads();
    for (unsigned d = threadIdx.x; d < D; d += BLOCK) {
        float sum = 0;
        for (unsigned warp = 0; warp < WARPS; warp++) {
            sum += shared[warp * D + d];
        }
        partials[(size_t)blockIdx.x * D + d] = sum;
    }
}

/*
 * With g the rotated-back dy times w, and means over D: dx = rstd * (g - mean(g) - xhat * mean(g *
 * xhat)). The lanes ask for their next row before this row's four sums, so that memory has work
 * meanwhile; there are no registers to hold it, so it comes as far as the second cache.
 */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 3) headprep_bwd_kernel(headprep_t<T> a)
{
    constexpr int V = 16 / sizeof(T);
    SHOAL_SHARED(float, shared);
    unsigned index = blockIdx.x * BLOCK + threadIdx.x, half = a.D / 2, c = index % a.lanes * V;
    place_t  place = place_of(a, index / a.lanes);
    float    dw[2 * V] = {0};
    for (unsigned round = 0; round < (unsigned)a.rounds; round++) {
        bool     holds = place.n < a.N && c < half;
        unsigned t     = place.t;
        T       *to    = a.y + place.n * a.ldx + (size_t)place.h * a.D + c;
        float    g[2 * V], xhat[2 * V], g_mean = 0, gx_mean = 0;
#pragma unroll
        for (int j = 0; j < 2 * V; j++) {
            g[j] = xhat[j] = 0;
        }
        if (holds) {
            load_row<V>(a.dy, place.n * a.ldy + (size_t)place.h * a.D, half, c, g);
            load_row<V>(a.x, place.n * a.ldsrc + (size_t)place.h * a.D, half, c, xhat);
        }
        advance(a, &place);
        if (place.n < a.N && c < half) {
            prefetch_row(a.dy, place.n * a.ldy + (size_t)place.h * a.D, half, c);
            prefetch_row(a.x, place.n * a.ldsrc + (size_t)place.h * a.D, half, c);
        }
        if (holds && a.rope != SHOAL_ROPE_NONE) {
            rotate_row<V>(a.table + (size_t)t * a.D, a.rope, a.direction, half, c, g);
        }
        float rstd = normalize_row<2 * V>(holds, a.lanes, a.D, a.eps, xhat);
#pragma unroll
        for (int j = 0; j < 2 * V; j++) {
            dw[j] += g[j] * xhat[j];
        }
        if (holds) { /* read here, after the sums, it need not be kept meanwhile */
            scale_row<V>(a.w, half, c, g);
        }
#pragma unroll
        for (int j = 0; j < 2 * V; j++) {
            g_mean += g[j];
            gx_mean += g[j] * xhat[j];
        }
        g_mean  = row_sum(g_mean, a.lanes) / (float)a.D;
        gx_mean = row_sum(gx_mean, a.lanes) / (float)a.D;
#pragma unroll
        for (int j = 0; j < 2 * V; j++) {
            g[j] = rstd * (g[j] - g_mean - xhat[j] * gx_mean);
        }
        if (holds) {
            store_row<V>(to, 0, half, 0, g);
        }
    }
    store_partials<V>(dw, shared, a.lanes, a.D, a.partials);
}

/* ---- any row: a warp reads it as often as it needs ---- */

/* The elements of unit i: a pair, or, last of an odd D, one that does not turn (then second == first). */
struct unit_t {
    unsigned first, second;
};

template <typename T>
__device__ __forceinline__ unit_t unit_of(const headprep_t<T> &a, unsigned i)
{
    unsigned half = a.D / 2;
    unit_t   unit;
    if (i == half) {
        unit.first = unit.second = a.D - 1;
    } else if (a.rope == SHOAL_ROPE_INTERLEAVED) {
        unit.first  = 2 * i;
        unit.second = 2 * i + 1;
    } else {
        unit.first  = i;
        unit.second = i + half;
    }
    return unit;
}

template <typename T>
__device__ __forceinline__ void rotate_unit(const headprep_t<T> &a, unsigned t, unsigned i, float *first, float *second)
{
    unsigned half = a.D / 2;
    if (a.rope != SHOAL_ROPE_NONE && i < half) {
        const float *turn = a.table + ((size_t)t * half + i) * 2;
        rotate_pair(turn[0], a.direction * turn[1], first, second);
    }
}

struct stats_t {
    float mean, rstd;
};

template <typename T>
__device__ __forceinline__ stats_t row_stats(const headprep_t<T> &a, const T *row)
{
    stats_t st  = {0, 0};
    float   var = 0;
    for (unsigned d = threadIdx.x % SHOAL_WARP; d < a.D; d += SHOAL_WARP) {
        st.mean += shoal_load(row, d);
    }
    st.mean = shoal_warp_sum(st.mean) / (float)a.D;
    for (unsigned d = threadIdx.x % SHOAL_WARP; d < a.D; d += SHOAL_WARP) {
        float centred = shoal_load(row, d) - st.mean;
        var += centred * centred;
    }
    st.rstd = 1.0f / sqrtf(shoal_warp_sum(var) / (float)a.D + a.eps);
    return st;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK) headprep_any_kernel(headprep_t<T> a)
{
    unsigned lane = threadIdx.x % SHOAL_WARP;
    place_t  place = place_of(a, (size_t)blockIdx.x * WARPS + threadIdx.x / SHOAL_WARP);
    for (; place.n < a.N; advance(a, &place)) {
        const T *x  = a.x + place.n * a.ldx + (size_t)place.h * a.D;
        T       *y  = a.y + place.n * a.ldy + (size_t)place.h * a.D;
        stats_t  st = {0, 1};
        if (a.w != NULL) {
            st = row_stats(a, x);
            __syncwarp(); /* a lane overwrites, in place, what others have read */
        }
        for (unsigned i = lane; i < a.D - a.D / 2; i += SHOAL_WARP) {
            unit_t unit  = unit_of(a, i);
            float  first = (shoal_load(x, unit.first) - st.mean) * st.rstd, second = (shoal_load(x, unit.second) - st.mean) * st.rstd;
            if (a.w != NULL) {
                first *= shoal_load(a.w, unit.first);
                second *= shoal_load(a.w, unit.second);
            }
            rotate_unit(a, place.t, i, &first, &second);
            shoal_store(y, unit.first, first);
            shoal_store(y, unit.second, second);
        }
    }
}

/* Each warp has a row of partial sums, and each lane in it the elements of its units. */
template <typename T>
__global__ void __launch_bounds__(BLOCK) headprep_bwd_any_kernel(headprep_t<T> a)
{
    unsigned lane = threadIdx.x % SHOAL_WARP, units = a.D - a.D / 2;
    size_t   warp = (size_t)blockIdx.x * WARPS + threadIdx.x / SHOAL_WARP;
    float   *dw   = a.partials + warp * a.D;
    for (unsigned i = lane; i < units; i += SHOAL_WARP) {
        unit_t unit     = unit_of(a, i);
        dw[unit.first]  = 0;
        dw[unit.second] = 0;
    }
    for (place_t place = place_of(a, warp); place.n < a.N; advance(a, &place)) {
        const T *x  = a.x + place.n * a.ldsrc + (size_t)place.h * a.D;
        const T *dy = a.dy + place.n * a.ldy + (size_t)place.h * a.D;
        T       *dx = a.y + place.n * a.ldx + (size_t)place.h * a.D;
        stats_t  st = row_stats(a, x);
        float    g_mean = 0, gx_mean = 0;
        for (int pass = 0; pass < 2; pass++) {
            for (unsigned i = lane; i < units; i += SHOAL_WARP) {
                unit_t unit = unit_of(a, i);
                bool   pair = unit.second != unit.first;
                float  g[2] = {shoal_load(dy, unit.first), pair ? shoal_load(dy, unit.second) : 0};
                float  xhat[2] = {(shoal_load(x, unit.first) - st.mean) * st.rstd, (shoal_load(x, unit.second) - st.mean) * st.rstd};
                rotate_unit(a, place.t, i, &g[0], &g[1]);
                if (pass == 0) {
                    dw[unit.first] += g[0] * xhat[0];
                    dw[unit.second] += g[1] * xhat[1];
                }
                g[0] *= shoal_load(a.w, unit.first);
                g[1] *= shoal_load(a.w, unit.second);
                if (pass == 0) {
                    g_mean += g[0] + g[1];
                    gx_mean += g[0] * xhat[0] + g[1] * xhat[1];
                    continue;
                }
                shoal_store(dx, unit.first, st.rstd * (g[0] - g_mean - xhat[0] * gx_mean));
                if (pair) {
                    shoal_store(dx, unit.second, st.rstd * (g[1] - g_mean - xhat[1] * gx_mean));
                }
            }
            if (pass == 0) {
                g_mean  = shoal_warp_sum(g_mean) / (float)a.D;
                gx_mean = shoal_warp_sum(gx_mean) / (float)a.D;
            }
        }
    }
}

/* ---- on the host ---- */

template <typename T>
headprep_t<T> common(const shoal_op_t *op, const void *w, const void *table)
{
    headprep_t<T> a = {};
    a.N             = op->headprep.N;
    a.ldx           = op->headprep.ldx;
    a.ldy           = op->headprep.ldy;
    a.ldsrc         = op->headprep.ldsrc;
    a.T_            = (unsigned)op->headprep.T;
    a.heads         = (unsigned)op->headprep.heads;
    a.D             = (unsigned)op->headprep.D;
    a.rope          = table != NULL ? op->headprep.rope : SHOAL_ROPE_NONE;
    a.direction     = 1;
    a.eps           = op->headprep.eps;
    a.w             = (const T *)w;         /* (D) or NULL */
    a.table         = (const float *)table; /* (T, D/2, 2) or NULL */
    return a;
}

/* Lanes that hold a row; 0: it has no packs in both halves, or too many. */
unsigned row_lanes(size_t D, int V)
{
    unsigned lanes = 1;
    while (lanes * (unsigned)V * 2 < D) {
        lanes *= 2;
    }
    return D % ((size_t)V * 2) == 0 && lanes <= SHOAL_WARP ? lanes : 0;
}

template <typename T>
bool packs_fit(const T *x, size_t ld)
{
    constexpr int V = 16 / sizeof(T);
    return shoal_vector_fits(x, (size_t)V, ld, V);
}

/* Fills in how `blocks` blocks step through the rows; a.lanes is set, 0 for a warp per row of the other kernels. */
template <typename T>
void divide(headprep_t<T> *a, unsigned blocks)
{
    size_t at_once = (size_t)blocks * BLOCK / (a->lanes != 0 ? a->lanes : (unsigned)SHOAL_WARP);
    a->rounds      = (a->N * a->heads + at_once - 1) / at_once;
    a->step.n      = at_once / a->heads;
    a->step.h      = (unsigned)(at_once % a->heads);
    a->step.t      = (unsigned)(a->step.n % a->T_);
}

/* Blocks for the op's rows, a warp for every `each` of them. */
unsigned block_count(const shoal_op_t *op, unsigned each, unsigned most)
{
    size_t rows = op->headprep.N * op->headprep.heads, blocks = (rows + (size_t)each * WARPS - 1) / ((size_t)each * WARPS);
    return blocks < most ? (unsigned)blocks : most;
}

/* As for `row_lanes`, and then that everything else lies where packs can be read. */
template <typename T>
unsigned usable_lanes(const headprep_t<T> &a)
{
    bool fit = packs_fit(a.x, a.ldx) && packs_fit(a.y, a.ldy) && packs_fit(a.w, 0) && packs_fit(a.table, 0);
    return fit ? row_lanes(a.D, 16 / sizeof(T)) : 0;
}

template <typename T>
void forward(shoal_cuda_t *cuda, const shoal_op_t *op, headprep_t<T> a)
{
    a.lanes         = usable_lanes(a);
    unsigned blocks = block_count(op, a.lanes != 0 ? SHOAL_WARP / a.lanes : 1, FORWARD_BLOCKS);
    divide(&a, blocks);
    if (a.lanes != 0) {
        SHOAL_LAUNCH(headprep_kernel<T>, dim3(blocks), dim3(BLOCK), 0, cuda->stream, a);
    } else {
        SHOAL_LAUNCH(headprep_any_kernel<T>, dim3(blocks), dim3(BLOCK), 0, cuda->stream, a);
    }
}

template <typename T>
void headprep(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    headprep_t<T> a = common<T>(op, args[1], args[2]);
    a.x             = (const T *)args[0]; /* (N, heads, D) ldx */
    a.y             = (T *)args[3];       /* (N, heads, D) ldy, may be x */
    forward(cuda, op, a);
}

/* One or two rounds for each warp at least: the second kernel should not have more to read than the first. */
unsigned backward_blocks(const shoal_op_t *op)
{
    unsigned lanes = row_lanes(op->headprep.D, 16 / (int)shoal_dtype_nbytes(op->dtype));
    return block_count(op, lanes != 0 ? 2 * SHOAL_WARP / lanes : 1, BACKWARD_BLOCKS);
}

template <typename T>
void headprep_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    headprep_t<T> a = common<T>(op, args[1], args[2]);
    a.direction     = -1;
    a.dy            = (const T *)args[3]; /* (N, heads, D) ldy */
    a.y             = (T *)args[4];       /* dx (N, heads, D) ldx, may be dy */
    if (a.w == NULL) {
        a.x   = a.dy;
        a.ldx = op->headprep.ldy;
        a.ldy = op->headprep.ldx;
        forward(cuda, op, a);
        return;
    }
    a.x             = (const T *)args[0]; /* (N, heads, D) ldsrc */
    a.partials      = (float *)workspace;
    bool     fit    = packs_fit(a.x, a.ldsrc) && packs_fit(a.dy, a.ldy) && packs_fit(a.y, a.ldx);
    unsigned blocks = backward_blocks(op);
    size_t   rows   = blocks, shared = WARPS * a.D * sizeof(float);
    fit             = fit && packs_fit(a.w, 0) && packs_fit(a.table, 0);
    a.lanes         = fit ? row_lanes(a.D, 16 / sizeof(T)) : 0;
    divide(&a, blocks);
    if (a.lanes != 0) {
        SHOAL_LAUNCH(headprep_bwd_kernel<T>, dim3(blocks), dim3(BLOCK), shared, cuda->stream, a);
    } else {
        rows *= WARPS;
        SHOAL_LAUNCH(headprep_bwd_any_kernel<T>, dim3(blocks), dim3(BLOCK), 0, cuda->stream, a);
    }
    shoal_gradient_t none = {};
    shoal_add_partials(cuda, a.partials, rows, a.D, a.D, shoal_gradient(args[5], op, op->headprep.accumulate), none);
}

} // namespace

extern "C" shoal_status_t shoal_cuda_headprep(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    if (op->dtype == SHOAL_BF16) {
        headprep<shoal_bf16_t>(cuda, op, args);
    } else {
        headprep<float>(cuda, op, args);
    }
    return SHOAL_OK;
}

extern "C" size_t shoal_cuda_headprep_bwd_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    return (size_t)backward_blocks(op) * WARPS * op->headprep.D * sizeof(float); /* (warps, D), or fewer rows: dw */
}

extern "C" shoal_status_t shoal_cuda_headprep_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    if (op->dtype == SHOAL_BF16) {
        headprep_bwd<shoal_bf16_t>(cuda, op, args, workspace);
    } else {
        headprep_bwd<float>(cuda, op, args, workspace);
    }
    return SHOAL_OK;
}
