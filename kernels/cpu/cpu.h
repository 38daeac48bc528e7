/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the CPU device: a registry of kernels by (op kind, dtype), filled in layers. The plain C reference fills every slot;
 * SIMD kernels, compiled once per instruction set and chosen by what the processor reports, then override what they do better; oneDNN
 * overrides matmul. A missing fast kernel is slow, never absent.
 */
#ifndef SHOAL_KERNELS_CPU_CPU_H
#define SHOAL_KERNELS_CPU_CPU_H

#include "kernels/device.h"

enum { SHOAL_CPU_DTYPES = 2 }; /* SHOAL_F32 and SHOAL_BF16 index the registry */

typedef struct shoal_cpu shoal_cpu_t;

typedef shoal_status_t (*shoal_cpu_run_fn_t)(shoal_cpu_t *cpu, const shoal_op_t *op, void *const *args, void *workspace);
typedef size_t (*shoal_cpu_workspace_fn_t)(shoal_cpu_t *cpu, const shoal_op_t *op);

typedef struct {
    shoal_cpu_run_fn_t       run;
    shoal_cpu_workspace_fn_t workspace; /* NULL: needs none */
    const char              *source;    /* "ref", "avx2", "avx512", "onednn": for `info` and tests */
} shoal_cpu_kernel_t;

typedef shoal_cpu_kernel_t shoal_cpu_registry_t[SHOAL_OP_COMPUTE_COUNT][SHOAL_CPU_DTYPES];

struct shoal_cpu {
    shoal_device_t       base;
    int                  nthreads; /* of the OpenMP team: `#pragma omp parallel num_threads(cpu->nthreads)` */
    shoal_cpu_registry_t kernels;
    void                *matmul;   /* state of the matmul backend: oneDNN's engine, stream and primitives by shape */
};

/* Each overrides the slots it has a kernel for and leaves the others. */
void shoal_cpu_fill_ref(shoal_cpu_registry_t kernels);
void shoal_cpu_fill_avx2(shoal_cpu_registry_t kernels);   /* x86-64 builds only */
void shoal_cpu_fill_avx512(shoal_cpu_registry_t kernels); /* x86-64 builds only */
void shoal_cpu_fill_onednn(shoal_cpu_t *cpu);             /* builds with SHOAL_HAVE_DNNL only */

/* Frees what shoal_cpu_fill_onednn and later runs made; a no-op if it was not called. */
void shoal_cpu_release_onednn(shoal_cpu_t *cpu);

/* What this process may still allocate: the machine's available memory, cut by every cgroup limit above it. */
size_t shoal_cpu_memory_available(void);

#endif
