/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The additions inside collectives. All arithmetic is fp32; bf16 is widened on the way in and rounded to nearest even on the
 * way out. Pointers are aligned to the element. n counts elements. Outputs overwrite.
 */
#ifndef SHOAL_COLLECTIVES_SUM_H
#define SHOAL_COLLECTIVES_SUM_H

#include <stddef.h>

#include "base/dtype.h"

/* out = a + b in `dtype`, rounded once. out may be a or b. */
void shoal_sum_pair(shoal_dtype_t dtype, void *out_p, const void *a, const void *b, size_t n);

/* wide = x: the start of a sum that stays fp32. */
void shoal_sum_widen(shoal_dtype_t dtype, float *wide_p, const void *x, size_t n);

/* wide = wide + x */
void shoal_sum_accumulate(shoal_dtype_t dtype, float *wide, const void *x, size_t n);

/* out = wide in `dtype`. out may be wide when dtype is fp32. */
void shoal_sum_narrow(shoal_dtype_t dtype, void *out_p, const float *wide, size_t n);

#endif
