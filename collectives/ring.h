/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The arithmetic of ring collectives, apart from all I/O. A ring of `size` places passes blocks to the right, one block per
 * step, size - 1 steps. Every place sends one block and receives one block in each step, so every link is busy all the time
 * and each byte crosses each link once.
 *
 * all_gather, 4 places: the number is the block that the place sends to its right neighbour in that step. Place p starts
 * with block p and holds all of them at the end.
 *
 *              p0   p1   p2   p3
 *     step 0    0    1    2    3
 *     step 1    3    0    1    2      what arrived in step s is sent on in step s + 1
 *     step 2    2    3    0    1
 *
 * reduce_scatter, 4 places: the number is the slice whose partial sum the place sends. Slice j starts its travel at place
 * j + 1 and ends at place j, so its terms are added in the order j+1, j+2, ..., j whoever does the adding.
 *
 *              p0   p1   p2   p3
 *     step 0    3    0    1    2
 *     step 1    2    3    0    1      a place adds its own term to what arrived before it sends that on
 *     step 2    1    2    3    0
 *     at last   0    1    2    3      the slice that the last arrival of the place belongs to: its own
 *
 * A block travels as chunks, so that a place sends the first chunk of step s + 1 while later chunks of step s still arrive. The
 * chunks of a place, in the order of their sending, are numbered through: message m is chunk m % nchunks of step m / nchunks.
 */
#ifndef SHOAL_COLLECTIVES_RING_H
#define SHOAL_COLLECTIVES_RING_H

#include <stddef.h>

/* A contiguous range of elements. */
typedef struct {
    size_t first, count;
} shoal_range_t;

/* Block that place p sends in step s of an all_gather, and the one that it receives. */
int shoal_ring_gather_sends(int size, int place, int step);
int shoal_ring_gather_receives(int size, int place, int step);

/* Slice whose partial sum place p sends in step s of a reduce_scatter, and the one that it receives. */
int shoal_ring_reduce_sends(int size, int place, int step);
int shoal_ring_reduce_receives(int size, int place, int step);

/* The order of addition in a slice: the place of term t (0 .. size-1). */
int shoal_ring_reduce_term(int size, int slice, int term);

/* Slice i of n elements cut into `size` slices whose lengths differ by one at most, the longer ones first. */
shoal_range_t shoal_ring_slice(size_t n, int size, int slice);

/* How many chunks of at most `chunk` elements (> 0) a block of n elements makes: at least one, so that no step is silent. */
size_t shoal_ring_nchunks(size_t n, size_t chunk);

/* Chunk i of a block of n elements: i * chunk onwards, empty past the end. */
shoal_range_t shoal_ring_chunk(size_t n, size_t chunk, size_t index);

#endif
