/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cross-entropy. A row of logits is read in blocks that stay in the first cache level: a block's maximum, then its sum of
 * exponentials, joined with what came before by rescaling. So memory is read once for the loss and once more, from the second
 * cache level if the row fits there, to overwrite it with its gradient.
 */
#ifndef SHOAL_KERNELS_CPU_SIMD_XENT_H
#define SHOAL_KERNELS_CPU_SIMD_XENT_H

#include "kernels/cpu/simd_kernel.h"
#include "kernels/cpu/simd_math.h"

enum { XENT_BLOCK = 2048 };

SIMD_INLINE float xent_max(const void *logits, size_t first, size_t n, shoal_dtype_t dtype)
{
    vf_t   max = v_set(-INFINITY);
    size_t i   = 0;
    for (; i + SIMD_WIDTH <= n; i += SIMD_WIDTH) {
        max = v_max(max, load_n(logits, first + i, SIMD_WIDTH, dtype));
    }
    float largest = v_largest(max);
    for (; i < n; i++) {
        largest = fmaxf(largest, load_one(logits, first + i, dtype));
    }
    return largest;
}

SIMD_INLINE float xent_sum_exp(const void *logits, size_t first, size_t n, float max, shoal_dtype_t dtype)
{
    vf_t   sum = v_set(0.0f);
    size_t i   = 0;
    for (; i + SIMD_WIDTH <= n; i += SIMD_WIDTH) {
        sum += v_exp(load_n(logits, first + i, SIMD_WIDTH, dtype) - v_set(max));
    }
    float total = v_sum(sum);
    for (; i < n; i++) {
        total += expf(load_one(logits, first + i, dtype) - max);
    }
    return total;
}

/* log(sum of exponentials) of one row. */
SIMD_INLINE float xent_lse(const void *logits, size_t row, size_t V, shoal_dtype_t dtype)
{
    float max = -INFINITY, total = 0.0f;
    for (size_t first = 0; first < V; first += XENT_BLOCK) {
        size_t n         = V - first < XENT_BLOCK ? V - first : XENT_BLOCK;
        float  block_max = xent_max(logits, row + first, n, dtype);
        if (block_max > max) {
            total *= expf(max - block_max);
            max = block_max;
        }
        /* A block of -inf before any finite logit adds nothing; a NaN among them still shows in the sum. */
        total += xent_sum_exp(logits, row + first, n, max > -INFINITY ? max : 0.0f, dtype);
    }
    return max + logf(total);
}

SIMD_INLINE void xent_gradient(void *logits, size_t row, size_t V, float lse, float scale, shoal_dtype_t dtype)
{
    SIMD_FOR (i, count, V) {
        vf_t p = v_exp(load_n(logits, row + i, count, dtype) - v_set(lse));
        store_n(logits, row + i, count, p * v_set(scale), dtype);
    }
}

SIMD_INLINE void xent_rows(const simd_job_t *job, size_t thread, size_t first, size_t last, shoal_dtype_t dtype)
{
    (void)thread;
    const shoal_op_t *op      = job->op;
    void             *logits  = job->args[0];
    const int32_t    *targets = job->args[1];
    float            *loss    = job->args[2];
    for (size_t n = first; n < last; n++) {
        size_t row    = n * op->xent.ld;
        size_t at     = row + (size_t)targets[n];
        float  target = load_one(logits, at, dtype);
        float  lse    = xent_lse(logits, row, op->xent.V, dtype);
        loss[n] = lse - target + op->xent.z_loss * lse * lse;
        if (op->xent.backward) {
            float scale = op->xent.grad_scale * (1.0f + 2.0f * op->xent.z_loss * lse);
            xent_gradient(logits, row, op->xent.V, lse, scale, dtype);
            store_one(logits, at, scale * expf(target - lse) - op->xent.grad_scale, dtype);
        }
    }
}
SIMD_BY_DTYPE(xent_rows)

static shoal_status_t xent_run(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace)
{
    simd_job_t job = simd_job(cpu, op, args, workspace);
    simd_run_rows(&job, op->xent.n, 1, SIMD_PICK(xent_rows, op->dtype));
    return SHOAL_OK;
}

#endif
