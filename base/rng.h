/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counter-based random numbers: a value is a pure function of (seed, name, index), so that every parallel layout draws
 * the same model and the same order of samples, whoever asks and in whatever order. The generator is Philox4x32-10
 * (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), from the Random123 library.
 *
 * A stream is the 64-bit key XXH3_64bits_withSeed(name, seed). Element i of its normal sequence is lane i % 4 of block
 * i / 4: the block's four words u0..u3 become a_j = (u_j + 0.5) 2^-32, and Box-Muller turns (a0, a1) into elements 0, 1
 * (cosine, then sine) and (a2, a3) into elements 2, 3.
 */
#ifndef SHOAL_BASE_RNG_H
#define SHOAL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* The key of the stream that belongs to a name. */
uint64_t shoal_rng_stream(uint64_t seed, const char *name);

/* The four words of block `block` of a stream. */
void shoal_rng_block(uint64_t stream, uint64_t block, uint32_t words_p[4]);

/* Writes std * normal(first .. first + count - 1) of a stream to out_p. */
void shoal_rng_normal(uint64_t stream, uint64_t first, size_t count, float std, float *out_p);

/*
 * The image of `index` under a pseudo-random permutation of 0 .. count - 1 that depends on the stream alone: a four-round
 * Feistel network over the next power of four, walked until it lands below count. index < count.
 */
uint64_t shoal_rng_permute(uint64_t stream, uint64_t index, uint64_t count);

#endif
