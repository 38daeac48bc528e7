/* SPDX-License-Identifier: BSD-3-Clause */
/* Everything is modular arithmetic on small integers; the drawings in ring.h say what it means. */
#include "collectives/ring.h"

/* i modulo size for i >= -size. */
static int wrap(int i, int size)
{
    return (i + size) % size;
}

int shoal_ring_gather_sends(int size, int place, int step)
{
    return wrap(place - step, size);
}

int shoal_ring_gather_receives(int size, int place, int step)
{
    return wrap(place - step - 1, size);
}

int shoal_ring_reduce_sends(int size, int place, int step)
{
    return wrap(wrap(place - 1, size) - step, size);
}

int shoal_ring_reduce_receives(int size, int place, int step)
{
    return wrap(wrap(place - 2 + size, size) - step, size);
}

int shoal_ring_reduce_term(int size, int slice, int term)
{
    return (slice + 1 + term) % size;
}

shoal_range_t shoal_ring_slice(size_t n, int size, int slice)
{
    size_t base = n / (size_t)size, nlonger = n % (size_t)size, i = (size_t)slice;
    return (shoal_range_t){
        .first = i * base + (i < nlonger ? i : nlonger),
        .count = base + (i < nlonger ? 1 : 0),
    };
}

size_t shoal_ring_nchunks(size_t n, size_t chunk)
{
    return n == 0 ? 1 : (n - 1) / chunk + 1;
}

shoal_range_t shoal_ring_chunk(size_t n, size_t chunk, size_t index)
{
    size_t first = index * chunk < n ? index * chunk : n;
    return (shoal_range_t){.first = first, .count = n - first < chunk ? n - first : chunk};
}
