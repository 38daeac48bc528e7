/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. */
#include "base/quantile.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double shoal_quantile(double *values, size_t n, double p)
{
    qsort(values, n, sizeof(*values), compare);
    double position = p * (double)(n - 1);
    size_t below    = position <= 0 ? 0 : (size_t)position;
    if (below >= n - 1) {
        return values[n - 1];
    }
    return values[below] + (position - (double)below) * (values[below + 1] - values[below]);
}
