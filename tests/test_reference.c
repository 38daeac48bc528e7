/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whole training runs against PyTorch's, recorded in tests/fixtures: ten steps each of Enoki with every optimizer, of a Llama and of a
 * GPT-2, from the same initial weights and tokens. fp32 losses agree to 1e-5, bf16 to 2e-2; gradient norms, which see every
 * weight's gradient, to 1e-4 and 5e-2 of their size. Built twice where it can be: on the CPU, and on the CUDA device on stand-ins for
 * its libraries (tests/standin/standin.h).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/train_run.h"

static const char *const cases[] = {
#ifdef SHOAL_CUDA_EMULATION /* slow: one of each architecture, type and way through the step */
    "accumulate",   "enoki-dana-star-mk4", "gpt2", "llama", "llama-bf16", "z-loss",
#else
    "accumulate",   "enoki-2-heads",    "enoki-adamw",              "enoki-adana",          "enoki-bf16", "enoki-dana-mk4",
    "enoki-dana-star", "enoki-dana-star-mk4", "enoki-dana-star-mk4-bf16", "gpt2", "llama", "llama-bf16", "z-loss",
#endif
};

static const char *fixtures(void)
{
    static char path[1024];
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(path, sizeof(path), "%s/tests/fixtures", source != NULL ? source : ".");
    return path;
}

/* "model.heads=4" from a member of a case's config. */
static char *word_of(const char *key, const json_t *value)
{
    char  text[256];
    char *printed = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    assert_non_null(printed);
    snprintf(text, sizeof(text), "%s=%s", key, json_is_string(value) ? json_string_value(value) : printed);
    free(printed);
    return strdup(text);
}

static int run_case(const json_t *fixture, int nranks, train_run_t *run_p)
{
    char       *words[TRAIN_RUN_MAX_WORDS + 1] = {NULL};
    int         n                              = 0;
    const char *key;
    json_t     *value;
    char        tokens[1200];
    json_object_foreach(json_object_get(fixture, "config"), key, value) {
        words[n++] = word_of(key, value);
        assert_true(n < TRAIN_RUN_MAX_WORDS);
    }
    snprintf(tokens, sizeof(tokens), "data.train=%s/%s", fixtures(), json_string_value(json_object_get(fixture, "tokens")));
    words[n++] = strdup(tokens);
#ifdef SHOAL_CUDA_EMULATION
    words[n++] = strdup("run.device=cuda");
    words[n++] = strdup("run.tune=false"); /* no times of the stand-in, and no file of them */
    assert_true(n <= TRAIN_RUN_MAX_WORDS);
#endif
    int code   = train_run(nranks, (const char *const *)words, run_p);
    for (int i = 0; i < n; i++) {
        free(words[i]);
    }
    return code;
}

static double expected_at(const json_t *fixture, const char *list, size_t step)
{
    return json_number_value(json_array_get(json_object_get(fixture, list), step));
}

static void check_case(const char *name)
{
    char         path[1200];
    train_run_t  run;
    json_error_t error;
    snprintf(path, sizeof(path), "%s/case-%s.json", fixtures(), name);
    json_t *fixture = json_load_file(path, 0, &error);
    assert_non_null(fixture);
    bool   bf16           = strcmp(json_string_value(json_object_get(fixture, "compute")), "bf16") == 0;
    double loss_tolerance = bf16 ? 2e-2 : 1e-5, norm_tolerance = bf16 ? 5e-2 : 1e-4;
    size_t nsteps         = json_array_size(json_object_get(fixture, "losses"));
    double worst          = 0.0;

    assert_int_equal(run_case(fixture, 1, &run), 0);
    assert_int_equal(run.nsteps, nsteps);
    for (size_t s = 0; s < nsteps; s++) {
        double difference = fabs(run.losses[s] - expected_at(fixture, "losses", s));
        double norm       = expected_at(fixture, "grad_norms", s);
        if (!(difference <= loss_tolerance) || !(fabs(run.grad_norms[s] - norm) <= norm_tolerance * norm)) {
            fail_msg("%s, step %zu: loss %.9g for %.9g, gradient norm %.9g for %.9g", name, s + 1, run.losses[s],
                     expected_at(fixture, "losses", s), run.grad_norms[s], norm);
        }
        worst = fmax(worst, difference);
    }
    print_message("%-26s losses within %.1e of PyTorch's\n", name, worst);
    json_decref(fixture);
}

static void test_case(void **state)
{
    check_case(*state);
}

int main(void)
{
    enum { NCASES = sizeof(cases) / sizeof(cases[0]) };
    struct CMUnitTest tests[NCASES];
    for (int i = 0; i < NCASES; i++) {
        tests[i] = (struct CMUnitTest){cases[i], test_case, NULL, NULL, (void *)cases[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
