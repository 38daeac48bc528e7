/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernels of this folder, one function per op, and what they need of scratch memory; shoal_cuda_fill_own lists them. */
#ifndef SHOAL_KERNELS_CUDA_OWN_H
#define SHOAL_KERNELS_CUDA_OWN_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SHOAL_CUDA_RUN(name) \
    shoal_status_t shoal_cuda_##name(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
#define SHOAL_CUDA_WORKSPACE(name) size_t shoal_cuda_##name##_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)

SHOAL_CUDA_RUN(embed);
SHOAL_CUDA_RUN(embed_bwd);
SHOAL_CUDA_RUN(norm);
SHOAL_CUDA_RUN(norm_bwd);
SHOAL_CUDA_RUN(matmul);
SHOAL_CUDA_RUN(colsum);
SHOAL_CUDA_RUN(headprep);
SHOAL_CUDA_RUN(headprep_bwd);
SHOAL_CUDA_RUN(attention);
SHOAL_CUDA_RUN(attention_bwd);
SHOAL_CUDA_RUN(act);
SHOAL_CUDA_RUN(act_bwd);
SHOAL_CUDA_RUN(xent);
SHOAL_CUDA_RUN(sum);
SHOAL_CUDA_RUN(sumsq);
SHOAL_CUDA_RUN(cast);
SHOAL_CUDA_RUN(fill);
SHOAL_CUDA_RUN(normal);
SHOAL_CUDA_RUN(optim);

SHOAL_CUDA_WORKSPACE(embed_bwd);
SHOAL_CUDA_WORKSPACE(norm_bwd);
SHOAL_CUDA_WORKSPACE(colsum);
SHOAL_CUDA_WORKSPACE(headprep_bwd);
SHOAL_CUDA_WORKSPACE(attention_bwd);
SHOAL_CUDA_WORKSPACE(sum);
SHOAL_CUDA_WORKSPACE(sumsq);

/* Enqueues a fill with ordinary numbers, for measurements: noise.cu. */
shoal_status_t shoal_cuda_noise(shoal_cuda_t *cuda, void *memory, size_t nbytes);

/* Enqueues the store of a number to cuda->notes: note.cu. */
shoal_status_t shoal_cuda_note(shoal_cuda_t *cuda, shoal_queue_t queue, int number);

#ifdef __cplusplus
}
#endif

#endif
