/* SPDX-License-Identifier: BSD-3-Clause */
/* A check in a process that a test has forked: assertions are the parent's, which sees the exit code. */
#ifndef SHOAL_TESTS_RANK_CHECK_H
#define SHOAL_TESTS_RANK_CHECK_H

#include <stdio.h>
#include <unistd.h>

/* Says what does not hold, and ends the process without running what its parent has registered for its own end. */
#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                     \
        }                                                                                 \
    } while (0)

#endif
