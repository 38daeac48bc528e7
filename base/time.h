/* SPDX-License-Identifier: BSD-3-Clause */
/* Monotonic time. Ranks never compare clocks with each other: only differences within a process have a meaning. */
#ifndef SHOAL_BASE_TIME_H
#define SHOAL_BASE_TIME_H

#include <stdint.h>
#include <time.h>

static inline int64_t shoal_time_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double shoal_ms_since(int64_t start_ns)
{
    return (double)(shoal_time_ns() - start_ns) * 1e-6;
}

#endif
