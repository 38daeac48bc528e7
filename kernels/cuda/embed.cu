/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token and position embedding. Forward, a warp gathers a row.
 *
 * Backward, the gradient of a table row is the sum over the tokens that used it. So the tokens are first sorted by vocabulary entry,
 * stably: a radix sort of one to four passes, each of which counts digits per chunk of tokens and then moves the tokens. The sorted tokens
 * are cut into spans of a fixed length. A block adds up a span's runs of equal tokens, and stores those that lie within it; what it has
 * of a run that goes on beyond an end is a partial sum, which another kernel adds to the rest of that run. Thus no run is
 * too long for one block, and the order of additions depends on the tokens alone. A last kernel clears rows of no token.
 */
#include "kernels/cuda/own.h"
#include "kernels/cuda/partials.cuh"

namespace {

enum {
    BLOCK       = 256,
    WARPS       = BLOCK / SHOAL_WARP,
    GATHER      = 4, /* packs of a row that a thread reads before it stores them, forward */
    DIGIT_BITS  = 8,
    DIGITS      = 1 << DIGIT_BITS, /* one for each thread */
    CHUNK       = 1024,            /* tokens a sorting block has, if that makes no more than MAX_CHUNKS */
    MAX_CHUNKS  = 256,
    SPAN        = 64, /* sorted tokens that a summing block has, if that makes no more than MAX_SPANS */
    MAX_SPANS   = 2048,
    PACK        = 4, /* elements, in backward: 16 bytes of a gradient in fp32 */
    AHEAD       = 8, /* rows that a thread reads before it adds them */
    SLICES      = 8, /* parts into which a sum over many rows is divided, one for each warp of a block */
    TILE        = 4, /* columns of a thread where it adds partial sums */
    CLEAR_ROWS  = 64,
};

static_assert(DIGITS == BLOCK, "a thread for each digit");

/* ---- forward ---- */

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
    embed_kernel(const int32_t *tokens, const T *tok, const T *pos, T *x, size_t N, size_t T_, unsigned C)
{
    size_t n = (size_t)blockIdx.x * WARPS + threadIdx.x / SHOAL_WARP;
    if (n >= N) {
        return;
    }
    const T *from = tok + (size_t)tokens[n] * C, *at = pos != NULL ? pos + n % T_ * C : NULL;
    for (unsigned base = threadIdx.x % SHOAL_WARP * V; base < C; base += GATHER * SHOAL_WARP * V) {
        float values[GATHER][V], positions[GATHER][V];
#pragma unroll
        for (unsigned k = 0; k < GATHER; k++) {
            unsigned c = base + k * SHOAL_WARP * V;
            if (c < C) {
                shoal_load_pack<V>(from, c, values[k]);
            }
            if (c < C && at != NULL) {
                shoal_load_pack<V>(at, c, positions[k]);
            }
        }
#pragma unroll
        for (unsigned k = 0; k < GATHER; k++) {
            unsigned c = base + k * SHOAL_WARP * V;
#pragma unroll
            for (int j = 0; j < V; j++) {
                values[k][j] += at != NULL ? positions[k][j] : 0;
            }
            if (c < C) {
                shoal_store_pack<V>(x + n * C, c, values[k]);
            }
        }
    }
}

template <typename T>
void embed(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    constexpr int  V      = 16 / sizeof(T);
    size_t         N      = op->embed.N, C = op->embed.C;
    const int32_t *tokens = (const int32_t *)args[0]; /* (N) */
    const T       *tok    = (const T *)args[1];       /* (V,C) */
    const T       *pos    = (const T *)args[2];       /* (T,C) or NULL */
    T             *x      = (T *)args[3];             /* (N,C) */
    dim3           grid((unsigned)((N + WARPS - 1) / WARPS)), block(BLOCK);
    if (shoal_vector_fits(tok, C, C, V) && shoal_vector_fits(pos, C, C, V) && shoal_vector_fits(x, C, C, V)) {
        SHOAL_LAUNCH((embed_kernel<T, V>), grid, block, 0, cuda->stream, tokens, tok, pos, x, N, op->embed.T, (unsigned)C);
    } else {
        SHOAL_LAUNCH((embed_kernel<T, 1>), grid, block, 0, cuda->stream, tokens, tok, pos, x, N, op->embed.T, (unsigned)C);
    }
}

/* ---- backward: sorting ---- */

/* Tokens by id; of equal ones the earlier first. */
struct sorted_t {
    uint32_t *ids, *order; /* (N): the ids, and which token each was; order NULL: not moved yet */
};

/* Of the lanes with the same digit, how many come before and after this one. All lanes of the warp call it. */
struct peers_t {
    unsigned before, after;
};

__device__ __forceinline__ peers_t find_peers(unsigned digit)
{
    unsigned lane  = threadIdx.x % SHOAL_WARP;
    peers_t  peers = {0, 0};
#pragma unroll
    for (unsigned other = 0; other < SHOAL_WARP; other++) {
        bool same = __shfl_sync(0xffffffffu, digit, (int)other) == digit;
        peers.before += same && other < lane;
        peers.after += same && other > lane;
    }
    return peers;
}

/* A block's chunk of the tokens and a warp's part of it. */
struct part_t {
    size_t first, end;
};

__device__ __forceinline__ part_t warp_part(size_t N, size_t chunk)
{
    part_t part;
    part.first = blockIdx.x * chunk + threadIdx.x / SHOAL_WARP * (chunk / WARPS);
    part.end   = part.first + chunk / WARPS;
    part.first = part.first < N ? part.first : N;
    part.end   = part.end < N ? part.end : N;
    return part;
}

/* counts (WARPS, DIGITS), shared: how often each warp's part has each digit. */
__device__ __forceinline__ void count_digits(const uint32_t *ids, part_t part, unsigned shift, unsigned *counts)
{
    unsigned *mine = counts + threadIdx.x / SHOAL_WARP * DIGITS;
    for (unsigned i = threadIdx.x; i < WARPS * DIGITS; i += BLOCK) {
        counts[i] = 0;
    }
    __syncthreads();
    for (size_t base = part.first; base < part.end; base += SHOAL_WARP) {
        size_t   i     = base + threadIdx.x % SHOAL_WARP;
        unsigned digit = i < part.end ? ids[i] >> shift & (DIGITS - 1) : (unsigned)DIGITS;
        peers_t  peers = find_peers(digit);
        if (digit < DIGITS && peers.after == 0) {
            mine[digit] += peers.before + 1;
        }
        __syncwarp();
    }
    __syncthreads();
}

/* counts (chunks, DIGITS) */
__global__ void __launch_bounds__(BLOCK)
    embed_count_kernel(const uint32_t *ids, size_t N, size_t chunk, unsigned shift, uint32_t *counts)
{
    SHOAL_SHARED(unsigned, mine); /* (WARPS, DIGITS) */
    unsigned sum = 0;
    count_digits(ids, warp_part(N, chunk), shift, mine);
    for (unsigned warp = 0; warp < WARPS; warp++) {
        sum += mine[warp * DIGITS + threadIdx.x];
    }
    counts[(size_t)blockIdx.x * DIGITS + threadIdx.x] = sum;
}

/* The sum of x over the threads before this one. shared (WARPS). */
__device__ __forceinline__ unsigned sum_before(unsigned x, unsigned *shared)
{
    unsigned lane = threadIdx.x % SHOAL_WARP, warp = threadIdx.x / SHOAL_WARP, sum = x;
    for (unsigned distance = 1; distance < SHOAL_WARP; distance *= 2) {
        unsigned lower = __shfl_sync(0xffffffffu, sum, (int)(lane >= distance ? lane - distance : lane));
        sum += lane >= distance ? lower : 0;
    }
    if (lane == SHOAL_WARP - 1) {
        shared[warp] = sum;
    }
    __syncthreads();
    for (unsigned i = 0; i < warp; i++) {
        sum += shared[i];
    }
    return sum - x;
}

__global__ void __launch_bounds__(BLOCK)
    embed_move_kernel(sorted_t from, sorted_t to, size_t N, size_t chunk, unsigned shift, const uint32_t *counts)
{
    SHOAL_SHARED(unsigned, places); /* (WARPS, DIGITS), and (WARPS) for sum_before */
    part_t   part = warp_part(N, chunk);
    unsigned all = 0, place = 0;
#pragma unroll 8
    for (unsigned i = 0; i < gridDim.x; i++) { /* thread d: how often digit d occurs, everywhere and in chunks before this one */
        unsigned count = counts[(size_t)i * DIGITS + threadIdx.x];
        all += count;
        place += i < blockIdx.x ? count : 0;
    }
    count_digits(from.ids, part, shift, places);
    place += sum_before(all, places + WARPS * DIGITS);
    for (unsigned warp = 0; warp < WARPS; warp++) { /* counts become the places where each warp's tokens go */
        unsigned count                       = places[warp * DIGITS + threadIdx.x];
        places[warp * DIGITS + threadIdx.x] = place;
        place += count;
    }
    __syncthreads();
    unsigned *mine = places + threadIdx.x / SHOAL_WARP * DIGITS;
    for (size_t base = part.first; base < part.end; base += SHOAL_WARP) {
        size_t   i     = base + threadIdx.x % SHOAL_WARP;
        uint32_t id    = i < part.end ? from.ids[i] : 0;
        unsigned digit = i < part.end ? id >> shift & (DIGITS - 1) : (unsigned)DIGITS;
        peers_t  peers = find_peers(digit);
        unsigned start = digit < DIGITS ? mine[digit] : 0;
        __syncwarp();
        if (digit < DIGITS) {
            to.ids[start + peers.before]   = id;
            to.order[start + peers.before] = from.order != NULL ? from.order[i] : (uint32_t)i;
            if (peers.after == 0) {
                mine[digit] = start + peers.before + 1;
            }
        }
        __syncwarp();
    }
}

/* ---- backward: adding ---- */

/* partials (spans, 2, C): of a span, the end of a run that began before it, and the beginning of one that goes on after it. */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
    embed_add_kernel(sorted_t sorted, const T *dx, size_t N, size_t span, unsigned C, float *partials, shoal_gradient_t dtok)
{
    size_t          first = (size_t)blockIdx.x * span, end = first + span < N ? first + span : N;
    unsigned        c   = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    const uint32_t *ids = sorted.ids;
    if (c >= C) {
        return;
    }
    float *before = partials + (size_t)blockIdx.x * 2 * C + c, *after = before + C;
    bool   open   = first > 0 && ids[first - 1] == ids[first];
    float  sum[V] = {0};
    for (size_t base = first; base < end; base += AHEAD) {
        float rows[AHEAD][V];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (base + k < end) {
                shoal_load_pack<V>(dx, (size_t)sorted.order[base + k] * C + c, rows[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            size_t i = base + k;
            if (i >= end) {
                break;
            }
#pragma unroll
            for (int j = 0; j < V; j++) {
                sum[j] += rows[k][j];
            }
            bool goes_on = i + 1 < N && ids[i + 1] == ids[i];
            if (goes_on && i + 1 < end) {
                continue;
            }
            if (open) {
                shoal_store_pack<V>(before, 0, sum);
            } else if (goes_on) {
                shoal_store_pack<V>(after, 0, sum);
            } else {
                shoal_gradient_store<V>(dtok, (size_t)ids[i] * C + c, sum);
            }
            open = false;
#pragma unroll
            for (int j = 0; j < V; j++) {
                sum[j] = 0;
            }
        }
    }
}

/*
 * sums[j] = the sum of what the block's slices (threadIdx.y) hold, for slice 0. shared (SLICES - 1, COUNT, 32): with columns of a
 * warp side by side.
 */
template <int COUNT>
__device__ __forceinline__ void add_slices(float *sums, float *shared)
{
    unsigned y = threadIdx.y, stride = COUNT * SHOAL_WARP;
#pragma unroll
    for (int j = 0; y > 0 && j < COUNT; j++) {
        shared[(y - 1) * stride + (unsigned)j * SHOAL_WARP + threadIdx.x] = sums[j];
    }
    __syncthreads();
    for (unsigned slice = 1; y == 0 && slice < blockDim.y; slice++) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            sums[j] += shared[(slice - 1) * stride + (unsigned)j * SHOAL_WARP + threadIdx.x];
        }
    }
}

/* The last span that begins with `id`, given that span + 1 does. */
__device__ __forceinline__ size_t last_span_of(const uint32_t *ids, size_t N, size_t length, size_t span, uint32_t id)
{
    size_t low = span + 1, high = (N + length - 1) / length; /* low begins with id, high does not */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (ids[middle * length] == id) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* For each run that begins in span blockIdx.x and goes on beyond it: adds its partial sums. */
__global__ void __launch_bounds__(SHOAL_WARP *SLICES)
    embed_join_kernel(const uint32_t *ids, size_t N, size_t length, unsigned C, const float *partials, shoal_gradient_t dtok)
{
    SHOAL_SHARED(float, shared);
    size_t span = blockIdx.x, first = span * length, next = first + length;
    if (next >= N || ids[next - 1] != ids[next] || (first > 0 && ids[first - 1] == ids[next])) {
        return;
    }
    uint32_t id    = ids[next];
    size_t   count = last_span_of(ids, N, length, span, id) - span + 1;
    unsigned c     = blockIdx.y * TILE * SHOAL_WARP + threadIdx.x;
    float    sums[TILE] = {0};
#pragma unroll 4
    for (size_t k = threadIdx.y; k < count; k += SLICES) {
        const float *row = partials + ((span + k) * 2 + (k == 0 ? 1 : 0)) * C;
#pragma unroll
        for (unsigned j = 0; j < TILE; j++) {
            sums[j] += c + j * SHOAL_WARP < C ? row[c + j * SHOAL_WARP] : 0;
        }
    }
    add_slices<TILE>(sums, shared);
    for (unsigned j = 0; threadIdx.y == 0 && j < TILE; j++) {
        if (c + j * SHOAL_WARP < C) {
            shoal_gradient_store<1>(dtok, (size_t)id * C + c + j * SHOAL_WARP, &sums[j]);
        }
    }
}

/* Clears the rows, of CLEAR_ROWS, that no token used: a thread looks for each. */
template <int V>
__global__ void __launch_bounds__(BLOCK) embed_clear_kernel(const uint32_t *ids, size_t N, size_t rows, unsigned C, shoal_gradient_t dtok)
{
    SHOAL_SHARED(int, used); /* (CLEAR_ROWS) */
    size_t first = (size_t)blockIdx.x * CLEAR_ROWS;
    if (threadIdx.x < CLEAR_ROWS) {
        size_t low = 0, high = N; /* ids before low are smaller, those from high on are not */
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (ids[middle] < first + threadIdx.x) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        used[threadIdx.x] = low < N && ids[low] == first + threadIdx.x;
    }
    __syncthreads();
    float zeros[V] = {0};
    for (unsigned i = 0; i < CLEAR_ROWS && first + i < rows; i++) {
        for (unsigned c = threadIdx.x * V; !used[i] && c < C; c += BLOCK * V) {
            shoal_gradient_store<V>(dtok, (first + i) * C + c, zeros);
        }
    }
}

/* dpos[t] = the sum over b of dx[b * T + t]; a block has one position and 32 packs of its row. */
template <typename T, int V>
__global__ void __launch_bounds__(SHOAL_WARP *SLICES)
    embed_positions_kernel(const T *dx, size_t N, size_t T_, unsigned C, shoal_gradient_t dpos)
{
    SHOAL_SHARED(float, shared);
    unsigned c       = (blockIdx.y * SHOAL_WARP + threadIdx.x) * V;
    float    sums[V] = {0};
#pragma unroll 4
    for (size_t n = blockIdx.x + threadIdx.y * T_; c < C && n < N; n += blockDim.y * T_) {
        float row[V];
        shoal_load_pack<V>(dx, n * C + c, row);
#pragma unroll
        for (int j = 0; j < V; j++) {
            sums[j] += row[j];
        }
    }
    add_slices<V>(sums, shared);
    if (threadIdx.y == 0 && c < C) {
        shoal_gradient_store<V>(dpos, (size_t)blockIdx.x * C + c, sums);
    }
}

/* ---- backward: on the host ---- */

/* Tokens per block in the sort and in the sums. */
size_t chunk_of(size_t N)
{
    size_t chunk = (N + MAX_CHUNKS - 1) / MAX_CHUNKS;
    chunk        = chunk > CHUNK ? chunk : (size_t)CHUNK;
    return (chunk + BLOCK - 1) / BLOCK * BLOCK;
}

size_t span_of(size_t N)
{
    size_t span = (N + MAX_SPANS - 1) / MAX_SPANS;
    return span > SPAN ? span : (size_t)SPAN;
}

size_t parts(size_t n, size_t each)
{
    return (n + each - 1) / each;
}

struct embed_bwd_workspace_t {
    float    *partials;  /* (spans, 2, C) */
    sorted_t  sorted[2]; /* (2, N) each */
    uint32_t *counts;    /* (chunks, DIGITS) */
    size_t    nbytes;
};

embed_bwd_workspace_t divide_workspace(const shoal_op_t *op, void *workspace)
{
    size_t                N = op->embed.N, npartials = parts(N, span_of(N)) * 2 * op->embed.C;
    embed_bwd_workspace_t work;
    uint32_t             *next = (uint32_t *)workspace + npartials;
    work.partials              = (float *)workspace;
    for (sorted_t &sorted : work.sorted) {
        sorted.ids   = next;
        sorted.order = next + N;
        next += 2 * N;
    }
    work.counts = next;
    work.nbytes = (npartials + 4 * N + parts(N, chunk_of(N)) * DIGITS) * sizeof(uint32_t);
    return work;
}

/* The tokens sorted, in one of the two places of the workspace. */
sorted_t sort_tokens(shoal_cuda_t *cuda, const shoal_op_t *op, const int32_t *tokens, const embed_bwd_workspace_t &work)
{
    size_t   N = op->embed.N, chunk = chunk_of(N), last = op->embed.V - 1, shared = (WARPS * DIGITS + WARPS) * sizeof(unsigned);
    dim3     grid((unsigned)parts(N, chunk)), block(BLOCK);
    sorted_t from = {(uint32_t *)tokens, NULL};
    for (unsigned shift = 0; shift == 0 || last >> shift != 0; shift += DIGIT_BITS) {
        sorted_t to = work.sorted[shift / DIGIT_BITS % 2];
        SHOAL_LAUNCH(embed_count_kernel, grid, block, shared, cuda->stream, from.ids, N, chunk, shift, work.counts);
        SHOAL_LAUNCH(embed_move_kernel, grid, block, shared, cuda->stream, from, to, N, chunk, shift, work.counts);
        from = to;
    }
    return from;
}

template <typename T, int V>
void add_tokens(shoal_cuda_t *cuda, const shoal_op_t *op, sorted_t sorted, const T *dx, float *partials, shoal_gradient_t dtok)
{
    size_t   N = op->embed.N, C = op->embed.C, span = span_of(N), spans = parts(N, span);
    size_t   tiles = parts(C, BLOCK * V), warps = parts(parts(C, tiles * V), SHOAL_WARP); /* no tile much smaller than another */
    unsigned columns = (unsigned)C;
    SHOAL_LAUNCH((embed_add_kernel<T, V>), dim3((unsigned)spans, (unsigned)tiles), dim3((unsigned)(warps * SHOAL_WARP)), 0, cuda->stream,
                 sorted, dx, N, span, columns, partials, dtok);
    if (spans > 1) {
        dim3 grid((unsigned)spans, (unsigned)parts(C, TILE * SHOAL_WARP)), block(SHOAL_WARP, SLICES);
        SHOAL_LAUNCH(embed_join_kernel, grid, block, (SLICES - 1) * TILE * SHOAL_WARP * sizeof(float), cuda->stream, sorted.ids, N, span,
                     columns, partials, dtok);
    }
    if (!op->embed.accumulate) {
        dim3 grid((unsigned)parts(op->embed.V, CLEAR_ROWS)), block(BLOCK);
        SHOAL_LAUNCH(embed_clear_kernel<V>, grid, block, CLEAR_ROWS * sizeof(int), cuda->stream, sorted.ids, N, op->embed.V, columns, dtok);
    }
}

template <typename T, int V>
void add_positions(shoal_cuda_t *cuda, const shoal_op_t *op, const T *dx, shoal_gradient_t dpos)
{
    size_t N = op->embed.N, C = op->embed.C, sequences = parts(N, op->embed.T);
    dim3   grid((unsigned)op->embed.T, (unsigned)parts(C, SHOAL_WARP * V));
    dim3   block(SHOAL_WARP, (unsigned)(sequences < SLICES ? sequences : (size_t)SLICES));
    SHOAL_LAUNCH((embed_positions_kernel<T, V>), grid, block, (SLICES - 1) * V * SHOAL_WARP * sizeof(float), cuda->stream, dx, N, op->embed.T,
                 (unsigned)C, dpos);
}

template <typename T>
void embed_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    size_t                C      = op->embed.C;
    const int32_t        *tokens = (const int32_t *)args[0];                           /* (N) */
    const T              *dx     = (const T *)args[1];                                 /* (N,C) */
    shoal_gradient_t      dtok   = shoal_gradient(args[2], op, op->embed.accumulate); /* g(V,C) */
    shoal_gradient_t      dpos   = shoal_gradient(args[3], op, op->embed.accumulate); /* g(T,C) or NULL */
    embed_bwd_workspace_t work   = divide_workspace(op, workspace);
    sorted_t              sorted = sort_tokens(cuda, op, tokens, work);
    bool                  packs  = shoal_vector_fits(dx, C, C, PACK);

    if (packs && shoal_gradient_vector_fits(&dtok, C, PACK) && shoal_vector_fits(work.partials, C, C, PACK)) {
        add_tokens<T, PACK>(cuda, op, sorted, dx, work.partials, dtok);
    } else {
        add_tokens<T, 1>(cuda, op, sorted, dx, work.partials, dtok);
    }
    if (dpos.memory != NULL && packs && shoal_gradient_vector_fits(&dpos, C, PACK)) {
        add_positions<T, PACK>(cuda, op, dx, dpos);
    } else if (dpos.memory != NULL) {
        add_positions<T, 1>(cuda, op, dx, dpos);
    }
}

} // namespace

extern "C" shoal_status_t shoal_cuda_embed(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    if (op->dtype == SHOAL_BF16) {
        embed<shoal_bf16_t>(cuda, op, args);
    } else {
        embed<float>(cuda, op, args);
    }
    return SHOAL_OK;
}

extern "C" size_t shoal_cuda_embed_bwd_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda;
    return divide_workspace(op, NULL).nbytes;
}

extern "C" shoal_status_t shoal_cuda_embed_bwd(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    if (op->dtype == SHOAL_BF16) {
        embed_bwd<shoal_bf16_t>(cuda, op, args, workspace);
    } else {
        embed_bwd<float>(cuda, op, args, workspace);
    }
    return SHOAL_OK;
}
