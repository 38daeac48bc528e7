/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a kernel meets its threads. A kernel is a function on a range of rows (or elements, or tasks); a job holds what
 * all threads share. simd_run_rows gives each thread one contiguous range, the same on every run, so that sums kept per thread
 * and added in thread order have the same bits. simd_run_tasks hands out single tasks as threads become free: for tasks of
 * unequal length whose results do not depend on who computes them.
 *
 * SIMD_BY_DTYPE(f) makes f_f32 and f_bf16 from an inline f with a last parameter `dtype`: the compiler then sees a constant.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_KERNEL_H
#define SHOAL_KERNELS_CPU_SIMD_KERNEL_H

#include <math.h>
#include <omp.h>

#include "kernels/cpu/simd.h"

typedef struct {
    const shoal_op_t *op;
    void *const      *args;
    void             *workspace;
    size_t            nthreads;
} simd_job_t;

typedef void (*simd_rows_fn_t)(const simd_job_t *job, size_t thread, size_t first, size_t last);

#define SIMD_BY_DTYPE(f)                                                                          \
    static void f##_f32(const simd_job_t *job, size_t thread, size_t first, size_t last)          \
    {                                                                                             \
        f(job, thread, first, last, SHOAL_F32);                                                   \
    }                                                                                             \
    static void f##_bf16(const simd_job_t *job, size_t thread, size_t first, size_t last)         \
    {                                                                                             \
        f(job, thread, first, last, SHOAL_BF16);                                                  \
    }

#define SIMD_PICK(f, dtype) ((dtype) == SHOAL_BF16 ? f##_bf16 : f##_f32)

SIMD_INLINE simd_job_t simd_job(const shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    return (simd_job_t){.op = op, .args = args, .workspace = workspace, .nthreads = (size_t)cpu->nthreads};
}

/* Rows 0 .. n-1 in contiguous ranges of a multiple of `grain` rows. Every thread is called, if with an empty range. */
__attribute__((unused)) static void simd_run_rows(const simd_job_t *job, size_t n, size_t grain, simd_rows_fn_t fn)
{
    if (job->nthreads == 1) {
        fn(job, 0, 0, n);
        return;
    }
    size_t grains = (n + grain - 1) / grain;
#pragma omp parallel for num_threads((int)job->nthreads) schedule(static, 1)
    for (size_t thread = 0; thread < job->nthreads; thread++) {
        size_t first = grains * thread / job->nthreads * grain;
        size_t last  = grains * (thread + 1) / job->nthreads * grain;
        fn(job, thread, first < n ? first : n, last < n ? last : n);
    }
}

__attribute__((unused)) static void simd_run_tasks(const simd_job_t *job, size_t ntasks, simd_rows_fn_t fn)
{
    if (job->nthreads == 1) {
        fn(job, 0, 0, ntasks);
        return;
    }
#pragma omp parallel for num_threads((int)job->nthreads) schedule(dynamic, 1)
    for (size_t task = 0; task < ntasks; task++) {
        fn(job, (size_t)omp_get_thread_num(), task, task + 1);
    }
}

/* Slice `thread` of a workspace that holds `nfloats` floats per thread; slices keep to cache lines of their own. */
SIMD_INLINE size_t simd_slice_nfloats(size_t nfloats)
{
    return (nfloats + 15) / 16 * 16;
}

SIMD_INLINE float *simd_slice(const simd_job_t *job, size_t thread, size_t nfloats)
{
    return (float *)job->workspace + thread * simd_slice_nfloats(nfloats);
}

SIMD_INLINE size_t simd_slices_nbytes(const shoal_cpu_t *cpu, size_t nfloats)
{
    return (size_t)cpu->nthreads * simd_slice_nfloats(nfloats) * sizeof(float);
}

/*
 * out[j] = alpha * (sum over threads of partial[thread][offset + j]) [+ out[j]]: the end of every sum over rows. `nfloats` is
 * the size of a slice.
 */
SIMD_INLINE void simd_add_slices(const simd_job_t *job, size_t nfloats, size_t offset, size_t n, float alpha, void *out,
                                 shoal_dtype_t dtype, bool accumulate)
{
    SIMD_FOR (j, count, n) {
        vf_t sum = v_set(0.0f);
        for (size_t thread = 0; thread < job->nthreads; thread++) {
            sum += load_n(simd_slice(job, thread, nfloats), offset + j, count, SHOAL_F32);
        }
        sum *= v_set(alpha);
        if (accumulate) {
            sum += load_n(out, j, count, dtype);
        }
        store_n(out, j, count, sum, dtype);
    }
}

#endif
