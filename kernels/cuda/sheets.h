/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known of a GPU by its name alone. */
#ifndef SHOAL_KERNELS_CUDA_SHEETS_H
#define SHOAL_KERNELS_CUDA_SHEETS_H

#include "kernels/device.h"

/* A GPU that may be planned for where there is none: by the word that configurations use for it. */
typedef struct {
    const char *word, *name;
    int         capability, multiprocessors;
    size_t      memory_gib; /* that a process finds free */
} shoal_cuda_planned_t;

/* The GPU of that word; of NULL, "auto" and any other word, the H200. */
const shoal_cuda_planned_t *shoal_cuda_planned(const char *word);

/*
 * Sets the peaks, the rates of memory and link, and `rates` of the info by the GPU's name; leaves
 * them where the name says nothing.
 */
void shoal_cuda_sheet(const char *name, shoal_device_info_t *info_p);

#endif
