/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the CUDA device: a registry of kernels by (op kind, dtype), filled in layers as the CPU's is. The kernels of this folder
 * fill every slot; cuBLASLt then overrides matmul and cuDNN attention, where they can serve an op (each says so per op and
 * leaves the rest to the kernel it displaced).
 *
 * A kernel's run function enqueues on cuda->stream and returns; it neither allocates nor synchronizes, except cuBLASLt and cuDNN the first
 * time that they see an op of some dimensions. A launch that fails is found by the device after the call.
 *
 * Readable by C, by nvcc and by a C++ compiler without CUDA (kernels/cuda/emulate.h): no type of the toolkit appears here.
 */
#ifndef SHOAL_KERNELS_CUDA_CUDA_H
#define SHOAL_KERNELS_CUDA_CUDA_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SHOAL_CUDA_DTYPES = 2 }; /* SHOAL_F32 and SHOAL_BF16 index the registry */

typedef struct shoal_cuda          shoal_cuda_t;
typedef struct shoal_cuda_cublaslt shoal_cuda_cublaslt_t;
typedef struct shoal_cuda_cudnn    shoal_cuda_cudnn_t;

typedef shoal_status_t (*shoal_cuda_run_fn_t)(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace);
/* Bytes of scratch memory. A function of the op alone, so that a plan made without a GPU is exact. */
typedef size_t (*shoal_cuda_workspace_fn_t)(const shoal_cuda_t *cuda, const shoal_op_t *op);

typedef struct {
    shoal_cuda_run_fn_t       run;
    shoal_cuda_workspace_fn_t workspace; /* NULL: needs none */
    const char               *source;    /* "own", "cublaslt", "cudnn": for `info`, errors and tests */
    shoal_cuda_run_fn_t       prepare;   /* does what the first run of an op of these dimensions does beyond the others; NULL: nothing */
} shoal_cuda_kernel_t;

typedef shoal_cuda_kernel_t shoal_cuda_registry_t[SHOAL_OP_COMPUTE_COUNT][SHOAL_CUDA_DTYPES];

struct shoal_cuda {
    shoal_device_t         base;
    int                    device;          /* CUDA's ordinal; -1: no GPU here, the instance can only plan */
    char                   name[80];
    /* Memory of the GPU that is planned for, where device is -1. */
    size_t                 planned_nbytes;
    char                   uuid[40];        /* as nvidia-smi prints it, without "GPU-" or "MIG-"; "" without a GPU */
    int                    multiprocessors;
    int                    room;            /* multiprocessors that matmuls leave to other queues now: leave_room */
    int                    capability;      /* 90 for sm_90 */
    bool                   deterministic;
    shoal_attention_t      attention;
    bool                   tune;            /* time the candidates for a matmul, rather than take the first */
    const char            *tune_file;       /* where the fastest are remembered; NULL: nowhere. Owned by the device */
    struct CUstream_st    *stream;          /* every kernel runs there: the compute queue */
    struct CUstream_st    *queues[SHOAL_QUEUE_COUNT];
    struct CUevent_st    **marks, **signals; /* (nmarks) time stamps, (nsignals) */
    int                    nmarks, nsignals;
    bool                   recording;       /* between record_begin and record_end */
    int                   *notes;           /* page-locked: the last number that each queue has left */
    shoal_cuda_registry_t  kernels;
    shoal_cuda_cublaslt_t *cublaslt;
    shoal_cuda_cudnn_t    *cudnn;
};

/* Every slot: the kernels of this folder. */
void shoal_cuda_fill_own(shoal_cuda_registry_t kernels);

/*
 * Each overrides the slots it has a kernel for. Both only touch the libraries, not the GPU, when cuda->device is -1. cuDNN that
 * cannot be had is SHOAL_ERR_CONFIG where cuda->attention or the GPU asks for it, else a warning.
 */
shoal_status_t shoal_cuda_fill_cublaslt(shoal_cuda_t *cuda);
shoal_status_t shoal_cuda_fill_cudnn(shoal_cuda_t *cuda);

/* Free what the two above and later runs made; no-ops if they were not called. */
void shoal_cuda_release_cublaslt(shoal_cuda_t *cuda);
void shoal_cuda_release_cudnn(shoal_cuda_t *cuda);

/* SHOAL_ERR_CONFIG, and says why, for attention that no cuDNN serves where its own kernels are not an answer. Needs no GPU. */
shoal_status_t shoal_cuda_cudnn_check(const shoal_cuda_t *cuda, const shoal_op_t *op);

/* Attention that the kernel displaced by cuDNN had to run so far, and why, for people; "" if there was none. Valid until the device is closed. */
const char *shoal_cuda_cudnn_exceptions(const shoal_cuda_t *cuda);

#ifdef __cplusplus
}
#endif

#endif
