/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One optimizer step over a flat shard, by the formulas of kernels/optim.h. As many blocks as fit on the GPU at once walk the shard, four
 * elements per thread and step, each array read and written once. Every block forms the step's constants from the scalars in memory
 * first. The ranges that decay travel in the kernel's parameters.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/own.h"
#include "kernels/optim.h"

enum { THREADS = 256, BLOCKS_PER_MULTIPROCESSOR = 4, MOST_RANGES = 32 };

enum family_t { ADAMW, DANA, DANA_STAR };

/* Elements first .. end - 1 of the shard, and the ranges, ascending, disjoint and not empty, that decay there. */
typedef struct {
    size_t   first, end;
    size_t   range_first[MOST_RANGES], range_end[MOST_RANGES];
    unsigned count;
} window_t;

typedef struct {
    float       *p, *m, *v, *tau;
    const float *grad, *gnorm_sq, *scalars;
    float        beta1, beta2, eps, clip, kappa, snr_clip, delta;
} step_t;

/* What is the same for all elements. */
typedef struct {
    shoal_optim_consts_t consts;
    float                clip, decay;
    float                rate1, rate2; /* 1 / correction1 and 1 / correction2, which are not set */
    float                least;        /* 1 / (1 + t) */
} formed_t;

/* Lanes 0 .. 2 take a power each, in double precision like the CPU's; thread 0 does the rest. */
static __device__ __forceinline__ void form_consts(const step_t &step, formed_t *formed_p)
{
    double t = (double)step.scalars[SHOAL_SCALAR_STEP];
    if (threadIdx.x < 3) {
        double base  = threadIdx.x == 0 ? (double)step.beta1 : threadIdx.x == 1 ? (double)step.beta2 : 1.0 + t;
        double power = pow(base, threadIdx.x == 2 ? 1.0 - (double)step.kappa : t);
        float *rate  = threadIdx.x == 0 ? &formed_p->rate1 : &formed_p->rate2;
        float *place = threadIdx.x == 2 ? &formed_p->consts.growth : rate;
        *place       = (float)(threadIdx.x == 2 ? power : 1.0 / (1.0 - power));
    }
    if (threadIdx.x == 0) {
        formed_p->consts.lr       = step.scalars[SHOAL_SCALAR_LR];
        formed_p->consts.t        = step.scalars[SHOAL_SCALAR_STEP];
        formed_p->consts.alpha    = (float)((double)step.delta / ((double)step.delta + t));
        formed_p->consts.kappa    = step.kappa;
        formed_p->consts.snr_clip = step.snr_clip;
        formed_p->consts.eps      = step.eps;
        formed_p->consts.beta1    = step.beta1;
        formed_p->consts.beta2    = step.beta2;
        formed_p->least           = (float)(1.0 / (1.0 + t));
        formed_p->decay           = step.scalars[SHOAL_SCALAR_DECAY];
        formed_p->clip            = step.clip > 0 ? fminf(1.0f, step.clip / (sqrtf(step.gnorm_sq[0]) + 1e-6f)) : 1.0f;
    }
    __syncthreads();
}

/*
 * The formulas of kernels/optim.h with the special functions' units (launch.cuh). m and v are
 * computed as there. Each root and reciprocal is off by 2^-23 of its value and each product rounds
 * by 2^-24, so that n, R and tau's share are good to 2^-20 and all of the update but the power with
 * them. pow(T, y) = exp2(y log2 T): where log2 T errs by d, the power errs by |y| d ln 2 of its
 * value. T is at least 1, y = 1 - kappa between -1 and 1, and d is 2^-22 where T < 2, and 2^-22
 * log2 T above: with the rounding of the product, 2^-21.4 log2 T at most, 2^-17.1 for a million
 * steps and y = 1, 2^-19.1 for y = 1/4. An update p -= lr u then errs by that part of u, where bf16
 * keeps 2^-9 of p, and p's own rounding is 2^-24 of p. A moment v below 2^-126 counts as zero,
 * beside eps.
 */
static __device__ __forceinline__ void adamw_element(const formed_t &formed, float g, float decay,
                                                     float *p, float *m, float *v)
{
    const shoal_optim_consts_t &k = formed.consts;
    *m      = k.beta1 * *m + (1.0f - k.beta1) * g;
    *v      = k.beta2 * *v + (1.0f - k.beta2) * g * g;
    float D = shoal_approx_sqrt(*v * formed.rate2) + k.eps;
    *p      = *p * decay - k.lr * (*m * formed.rate1) * shoal_approx_reciprocal(D);
}

static __device__ __forceinline__ void dana_moments(const formed_t &formed, float g, float *m,
                                                    float *v)
{
    float a = formed.consts.alpha;
    *m += a * (g - *m);
    *v = (1.0f - a) * *v + a * g * g;
}

static __device__ __forceinline__ void dana_element(const formed_t &formed, float g, float decay,
                                                    float *p, float *m, float *v)
{
    const shoal_optim_consts_t &k = formed.consts;
    dana_moments(formed, g, m, v);
    float n      = shoal_approx_reciprocal(shoal_approx_sqrt(*v) + k.eps);
    float moment = fabsf(*m) * n;
    *p -= k.lr * (g * n + copysignf(fminf(k.growth * moment, k.snr_clip) + moment, *m));
    *p *= decay;
}

/*
 * As R is positive, R f = min(T^(1-kappa) |m| n, R c): nothing is divided by R. Where m is 0, what
 * gets its sign is 0 too.
 */
static __device__ __forceinline__ void dana_star_element(const formed_t &formed, float g,
                                                         float decay, float *p, float *m, float *v, float *tau)
{
    const shoal_optim_consts_t &k = formed.consts;
    dana_moments(formed, g, m, v);
    float D = shoal_approx_sqrt(*v) + k.eps;
    *tau += k.alpha * (fabsf(g) * shoal_approx_reciprocal(fabsf(g) + D) - *tau);
    float s      = fminf(*tau, 0.5f);
    float R      = fmaxf(s * shoal_approx_reciprocal(1.0f - s), formed.least);
    float n      = shoal_approx_sqrt(R) * shoal_approx_reciprocal(D);
    float moment = fabsf(*m) * n;
    float power  = shoal_approx_exp2((1.0f - k.kappa) * shoal_approx_log2(fmaxf(*tau * k.t, 1.0f)));
    *p -= k.lr * (g * n + copysignf(fminf(power * moment, R * k.snr_clip) + moment, *m));
    *p *= decay;
}

/* The factors of elements i .. i + V - 1. *r_p, from 0, is the first range that ends behind i; a thread's i ascend. */
template <int V>
static __device__ __forceinline__ void decay_factors(const window_t &window, float factor, size_t i, unsigned *r_p, float *decay_p)
{
    unsigned r = *r_p;
    while (r < window.count && i >= window.range_end[r]) {
        r++;
    }
    *r_p        = r;
    bool inside = r < window.count && i >= window.range_first[r];
    bool even   = r == window.count || i + V <= (inside ? window.range_end[r] : window.range_first[r]);
#pragma unroll
    for (int j = 0; j < V; j++) {
        decay_p[j] = inside ? factor : 1.0f;
    }
    for (int j = 1; !even && j < V; j++) {
        r += r < window.count && i + (size_t)j >= window.range_end[r];
        decay_p[j] = r < window.count && i + (size_t)j >= window.range_first[r] ? factor : 1.0f;
    }
}

template <family_t FAMILY, int V, typename T>
static __device__ __forceinline__ void update_pack(const step_t &step, const formed_t &formed, T *copy, size_t i, const float *decay)
{
    float p[V], m[V], v[V], tau[V], g[V];
    shoal_load_pack<V>(step.grad, i, g);
    shoal_load_pack<V>(step.p, i, p);
    shoal_load_pack<V>(step.m, i, m);
    shoal_load_pack<V>(step.v, i, v);
    if (FAMILY == DANA_STAR) {
        shoal_load_pack<V>(step.tau, i, tau);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        float gradient = formed.clip * g[j];
        if (FAMILY == ADAMW) {
            adamw_element(formed, gradient, decay[j], &p[j], &m[j], &v[j]);
        } else if (FAMILY == DANA) {
            dana_element(formed, gradient, decay[j], &p[j], &m[j], &v[j]);
        } else {
            dana_star_element(formed, gradient, decay[j], &p[j], &m[j], &v[j], &tau[j]);
        }
    }
    shoal_store_pack<V>(step.p, i, p);
    shoal_store_pack<V>(step.m, i, m);
    shoal_store_pack<V>(step.v, i, v);
    if (FAMILY == DANA_STAR) {
        shoal_store_pack<V>(step.tau, i, tau);
    }
    if (copy != NULL) {
        shoal_store_pack<V>(copy, i, p);
    }
}

template <family_t FAMILY, int V, typename T>
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR) optim_kernel(step_t step, T *copy, window_t window)
{
    SHOAL_SHARED(formed_t, shared);
    form_consts(step, shared);
    formed_t formed = *shared;
    size_t   i = window.first + ((size_t)blockIdx.x * THREADS + threadIdx.x) * V, stride = (size_t)gridDim.x * THREADS * V;
    unsigned r = 0;
    for (; i + V <= window.end; i += stride) {
        float decay[V];
        decay_factors<V>(window, formed.decay, i, &r, decay);
        update_pack<FAMILY, V>(step, formed, copy, i, decay);
    }
    for (; i < window.end; i++) { /* one thread meets the partial pack at the end */
        float decay;
        decay_factors<1>(window, formed.decay, i, &r, &decay);
        update_pack<FAMILY, 1>(step, formed, copy, i, &decay);
    }
}

template <family_t FAMILY, int V, typename T>
static void launch_window(shoal_cuda_t *cuda, const step_t &arguments, T *copy, const window_t &part)
{
    step_t   step   = arguments;
    window_t window = part;
    size_t   packs = (window.end - window.first + V - 1) / V, blocks = (packs + THREADS - 1) / THREADS;
    size_t   most = (size_t)cuda->multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    SHOAL_LAUNCH((optim_kernel<FAMILY, V, T>), (unsigned)(blocks < most ? blocks : most), THREADS, sizeof(formed_t), cuda->stream, step,
                 copy, window);
}

template <family_t FAMILY, typename T>
static void run_window(shoal_cuda_t *cuda, const step_t &step, T *copy, const window_t &window)
{
    constexpr int V  = 4;
    const size_t  at = window.first;
    if (shoal_vector_fits(step.p + at, 0, 0, V) && shoal_vector_fits(step.m + at, 0, 0, V) && shoal_vector_fits(step.v + at, 0, 0, V) &&
        shoal_vector_fits(step.grad + at, 0, 0, V) && (FAMILY != DANA_STAR || shoal_vector_fits(step.tau + at, 0, 0, V)) &&
        (copy == NULL || shoal_vector_fits(copy + at, 0, 0, V))) {
        launch_window<FAMILY, V>(cuda, step, copy, window);
    } else {
        launch_window<FAMILY, 1>(cuda, step, copy, window);
    }
}

template <typename T>
static void run_family(shoal_cuda_t *cuda, const shoal_op_t *op, const step_t &step, T *copy, const window_t &window)
{
    if (window.first >= window.end) {
        return;
    }
    switch (op->optim.optim) {
    case SHOAL_OPTIM_ADAMW:
        run_window<ADAMW>(cuda, step, copy, window);
        break;
    case SHOAL_OPTIM_ADANA:
    case SHOAL_OPTIM_DANA_MK4:
        run_window<DANA>(cuda, step, copy, window);
        break;
    case SHOAL_OPTIM_DANA_STAR:
    case SHOAL_OPTIM_DANA_STAR_MK4:
        run_window<DANA_STAR>(cuda, step, copy, window);
        break;
    }
}

/*
 * Where a window ends whose ranges end at `done`, when the next range starts at `next`: at the last multiple of four between, so that the
 * next window may use packs too; if there is none, at the next range.
 */
static size_t cut(size_t done, size_t next)
{
    size_t even = next / 4 * 4;
    return even >= done ? even : next;
}

/* A launch for all of the shard, or, with more than MOST_RANGES ranges, one for every stretch with so many. */
template <typename T>
static void run_windows(shoal_cuda_t *cuda, const shoal_op_t *op, const step_t &step, T *copy)
{
    window_t window = window_t();
    for (size_t r = 0; r < op->optim.count; r++) {
        shoal_range_t range = op->optim.ranges[r];
        if (range.count == 0 || range.first >= op->optim.n) {
            continue;
        }
        if (window.count == MOST_RANGES) {
            window.end = cut(window.range_end[MOST_RANGES - 1], range.first);
            run_family(cuda, op, step, copy, window);
            window.first = window.end;
            window.count = 0;
        }
        window.range_first[window.count] = range.first;
        window.range_end[window.count]   = range.first + range.count;
        window.count++;
    }
    window.end = op->optim.n;
    run_family(cuda, op, step, copy, window);
}

extern "C" shoal_status_t shoal_cuda_optim(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)workspace;
    step_t step = {
        (float *)args[0],       (float *)args[1],       (float *)args[2],       (float *)args[3], (const float *)args[4],
        (const float *)args[6], (const float *)args[7], op->optim.beta1,        op->optim.beta2,  op->optim.eps,
        op->optim.clip,         op->optim.kappa,        op->optim.snr_clip,     op->optim.delta,
    };
    if (op->dtype == SHOAL_BF16) {
        run_windows(cuda, op, step, (shoal_bf16_t *)args[5]);
    } else {
        run_windows(cuda, op, step, (float *)args[5]);
    }
    return SHOAL_OK;
}
