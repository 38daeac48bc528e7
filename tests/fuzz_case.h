/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the fuzz draws: small models with odd sizes, ways to lay them out over ranks that must not change a loss, and mistakes that
 * must be refused. Everything follows from the seed. Configurations are words as on the command line, separated by blanks.
 */
#ifndef SHOAL_TESTS_FUZZ_CASE_H
#define SHOAL_TESTS_FUZZ_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FUZZ_TEXT_NBYTES = 2048, FUZZ_STEPS = 4 };

typedef struct {
    uint64_t stream, ndrawn;         /* of random numbers: base/rng.h */
    size_t   heads, head_dim, vocab; /* of the model that was drawn */
    size_t   global;                 /* sequences of a step: a multiple of 12, so of 1 to 4 ranks */
    const char
        *nudge; /* a word behind the others that changes model.residual by its last bit in fp32 */
    char model[FUZZ_TEXT_NBYTES]; /* what every run of the case has in common */
} fuzz_case_t;

typedef struct {
    int    nranks;
    size_t local;
    bool   other_kernels; /* than the reference's: run.variant is not auto */
    bool   records; /* a timeline or validations are written, which takes memory between steps */
    char   words[FUZZ_TEXT_NBYTES];
} fuzz_layout_t;

/* The model, optimizer and data order of a seed. The data are `data_path`, token ids below
 * fuzz_case_t.vocab. */
void fuzz_case_draw(uint64_t seed, const char *data_path, fuzz_case_t *case_p);

/* The next layout of the case, valid for its model. */
void fuzz_layout_draw(fuzz_case_t *drawn, const char *data_path, fuzz_layout_t *layout_p);

/* Words that make the configuration with this layout one that exit code 2 must refuse. */
void fuzz_mistake_draw(fuzz_case_t *drawn, const fuzz_layout_t *layout, size_t nbytes,
                       char *words_p);

/* A number from 0 to count - 1. */
size_t fuzz_draw(fuzz_case_t *drawn, size_t count);

#endif
