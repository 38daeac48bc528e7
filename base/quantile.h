/* SPDX-License-Identifier: BSD-3-Clause */
/* Order statistics of a sample. */
#ifndef SHOAL_BASE_QUANTILE_H
#define SHOAL_BASE_QUANTILE_H

#include <stddef.h>

/* The p-th quantile (0..1, linear between neighbours; 0.5: the median) of n values; `values` is sorted in place. n >= 1. */
double shoal_quantile(double *values, size_t n, double p);

#endif
