/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the stand-ins share: they look at them as a program would, through the libraries' own functions, and in
 * processes of their own, because the stand-ins' state is the process's. Include after cmocka.h.
 */
#ifndef SHOAL_TESTS_TEST_STANDIN_H
#define SHOAL_TESTS_TEST_STANDIN_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cuda_runtime_api.h>

#include "base/dtype.h"
#include "tests/rank_check.h"

enum { RANK_SECONDS = 60 };

typedef void (*rank_fn_t)(int rank, int size);

/* Runs fn as `size` processes on the machine that `settings` describe; returns how many of them failed. */
static inline int run_ranks(int size, const char *settings, rank_fn_t fn)
{
    int failures = 0, status;
    for (int rank = 0; rank < size; rank++) {
        if (fork() == 0) {
            alarm(RANK_SECONDS);
            setenv("SHOAL_STANDIN", settings, 1);
            fn(rank, size);
            _exit(0);
        }
    }
    while (wait(&status) > 0) {
        failures += status != 0;
    }
    return failures;
}

/* Device memory of nbytes, with what `from` has unless that is NULL. */
static inline void *on_device(const void *from, size_t nbytes)
{
    void *memory = NULL;
    CHECK(cudaMalloc(&memory, nbytes) == cudaSuccess);
    CHECK(from == NULL || cudaMemcpy(memory, from, nbytes, cudaMemcpyHostToDevice) == cudaSuccess);
    return memory;
}

/* Numbers of a type, element by element. */
static inline void put(void *memory, shoal_dtype_t dtype, size_t i, float value)
{
    shoal_bf16_t rounded = shoal_f32_to_bf16(value);
    memcpy((char *)memory + i * shoal_dtype_nbytes(dtype), dtype == SHOAL_BF16 ? (const void *)&rounded : &value, shoal_dtype_nbytes(dtype));
}

static inline float get(const void *memory, shoal_dtype_t dtype, size_t i)
{
    shoal_bf16_t rounded;
    float        value;
    memcpy(dtype == SHOAL_BF16 ? (void *)&rounded : &value, (const char *)memory + i * shoal_dtype_nbytes(dtype), shoal_dtype_nbytes(dtype));
    return dtype == SHOAL_BF16 ? shoal_bf16_to_f32(rounded) : value;
}

#endif
