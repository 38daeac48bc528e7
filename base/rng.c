/* SPDX-License-Identifier: BSD-3-Clause */
/* Philox itself is Random123's; what is here turns its blocks into normals and permutations. */
#include "base/rng.h"

#include <string.h>
#include <xxhash.h>

#include "base/rng_normal.h"

uint64_t shoal_rng_stream(uint64_t seed, const char *name)
{
    return XXH3_64bits_withSeed(name, strlen(name), seed);
}

void shoal_rng_block(uint64_t stream, uint64_t block, uint32_t words_p[4])
{
    philox4x32_ctr_t words = shoal_rng_words(stream, block);
    memcpy(words_p, words.v, sizeof(words.v));
}

void shoal_rng_normal(uint64_t stream, uint64_t first, size_t count, float std, float *out_p)
{
    double   z[4];
    uint64_t held = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        uint64_t index = first + i;
        if (index / 4 != held) {
            held = index / 4;
            shoal_rng_normal_block(stream, held, z);
        }
        out_p[i] = (float)((double)std * z[index % 4]);
    }
}

uint64_t shoal_rng_permute(uint64_t stream, uint64_t index, uint64_t count)
{
    unsigned half_bits = 1;
    while (half_bits < 32 && (UINT64_C(1) << (2 * half_bits)) < count) {
        half_bits++;
    }
    uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    do {
        uint64_t left = index >> half_bits, right = index & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint32_t words[4];
            shoal_rng_block(stream, (round << 60) | right, words);
            uint64_t next = left ^ (words[0] & mask);
            left          = right;
            right         = next;
        }
        index = left << half_bits | right;
    } while (index >= count);
    return index;
}
