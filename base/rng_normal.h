/* SPDX-License-Identifier: BSD-3-Clause */
/* One block of the normal sequence of base/rng.h, for kernels: host and device code call the same function. */
#ifndef SHOAL_BASE_RNG_NORMAL_H
#define SHOAL_BASE_RNG_NORMAL_H

#include <math.h>

#include <Random123/philox.h>

#include "base/dtype.h"

SHOAL_INLINE philox4x32_ctr_t shoal_rng_words(uint64_t stream, uint64_t block)
{
    philox4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), 0, 0}};
    philox4x32_key_t key     = {{(uint32_t)stream, (uint32_t)(stream >> 32)}};
    return philox4x32(counter, key);
}

/* Elements 4 * block .. 4 * block + 3, before they are scaled. */
SHOAL_INLINE void shoal_rng_normal_block(uint64_t stream, uint64_t block, double z_p[4])
{
    philox4x32_ctr_t words = shoal_rng_words(stream, block);
    for (int pair = 0; pair < 4; pair += 2) {
        double radius = sqrt(-2.0 * log((words.v[pair] + 0.5) * 0x1p-32));
        double angle  = 2.0 * 3.14159265358979323846 * ((words.v[pair + 1] + 0.5) * 0x1p-32);
        z_p[pair]     = radius * cos(angle);
        z_p[pair + 1] = radius * sin(angle);
    }
}

#endif
