/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The random numbers: known answers, an independent Philox, normals that are normal and do not depend on how they are asked for, and
 * permutations that are permutations.
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

#include "base/rng.h"

/* Philox4x32-10 as the paper gives it. */
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof(next));
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

static void test_known_answers(void **state)
{
    (void)state;
    static const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}; /* Random123's kat_vectors */
    uint32_t              words[4];
    shoal_rng_block(0, 0, words);
    assert_memory_equal(words, zero, sizeof(zero));
    assert_true(shoal_rng_stream(0, "") == UINT64_C(0x2d06800538d394c2)); /* XXH3's own test value for no input */
}

static void test_independent_philox(void **state)
{
    (void)state;
    uint64_t x = 88172645463325252u; /* xorshift: any numbers will do */
    for (int i = 0; i < 1000; i++) {
        uint64_t stream, block;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        stream = x;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        block              = x;
        uint32_t words[4], expected[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0};
        philox(expected, (uint32_t)stream, (uint32_t)(stream >> 32));
        shoal_rng_block(stream, block, words);
        assert_memory_equal(words, expected, sizeof(expected));
    }
}

static void test_streams_differ(void **state)
{
    (void)state;
    assert_true(shoal_rng_stream(1, "a") != shoal_rng_stream(2, "a"));
    assert_true(shoal_rng_stream(1, "a") != shoal_rng_stream(1, "b"));
    assert_true(shoal_rng_stream(1, "a") == shoal_rng_stream(1, "a"));
}

/* One stretch is the same bits whether asked for at once, one by one, or in odd pieces. */
static void test_normal_chunks(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint64_t stream = shoal_rng_stream(3, "chunks"), first = 4 * (UINT64_C(1) << 32) - 500; /* block numbers pass 2^32 */
    float    whole[N], piece[N];
    shoal_rng_normal(stream, first, N, 0.5f, whole);
    for (size_t size = 1; size < 40; size++) {
        memset(piece, 0, sizeof(piece));
        for (size_t at = 0; at < N; at += size) {
            shoal_rng_normal(stream, first + at, at + size < N ? size : N - at, 0.5f, piece + at);
        }
        assert_memory_equal(piece, whole, sizeof(whole));
    }
}

/* Within five standard errors of a normal's first four moments, and neighbours uncorrelated. */
static void test_normal_moments(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    float *z = malloc(N * sizeof(*z));
    double sum[5] = {0}, lag = 0, n = N;
    assert_non_null(z);
    shoal_rng_normal(shoal_rng_stream(5, "moments"), 0, N, 2.0f, z);
    for (size_t i = 0; i < N; i++) {
        double x = z[i] / 2.0;
        assert_true(isfinite(x) && fabs(x) < 7);
        sum[1] += x, sum[2] += x * x, sum[3] += x * x * x, sum[4] += x * x * x * x;
        lag += i > 0 ? x * z[i - 1] / 2.0 : 0;
    }
    free(z);
    assert_true(fabs(sum[1] / n) < 5 * sqrt(1 / n));
    assert_true(fabs(sum[2] / n - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(sum[3] / n) < 5 * sqrt(15 / n));
    assert_true(fabs(sum[4] / n - 3) < 5 * sqrt(96 / n));
    assert_true(fabs(lag / n) < 5 * sqrt(1 / n));
}

/* Initial values as the PyTorch reference draws them; its logarithm and cosine may differ in the last place. */
static void test_normal_reference(void **state)
{
    (void)state;
    const char *root = getenv("SHOAL_SRCDIR");
    char        path[4096];
    json_t     *entry;
    size_t      i;
    snprintf(path, sizeof(path), "%s/tests/fixtures/init.json", root != NULL ? root : ".");
    json_t *cases = json_load_file(path, 0, NULL);
    assert_true(json_array_size(cases) > 0);
    json_array_foreach(cases, i, entry)
    {
        uint64_t seed   = (uint64_t)json_integer_value(json_object_get(entry, "seed"));
        uint64_t stream = shoal_rng_stream(seed, json_string_value(json_object_get(entry, "name")));
        float    z[8], std = (float)json_number_value(json_object_get(entry, "std"));
        shoal_rng_normal(stream, (uint64_t)json_integer_value(json_object_get(entry, "first")), 8, std, z);
        for (size_t j = 0; j < 8; j++) {
            double expected = json_number_value(json_array_get(json_object_get(entry, "values"), j));
            assert_true(fabs(z[j] - expected) <= 1.2e-7 * fabs(expected));
        }
    }
    json_decref(cases);
}

static void check_bijection(uint64_t stream, uint64_t count)
{
    bool *seen = calloc(count, sizeof(*seen));
    assert_non_null(seen);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t image = shoal_rng_permute(stream, i, count);
        assert_true(image < count);
        assert_false(seen[image]);
        seen[image] = true;
    }
    free(seen);
}

static void test_permutation(void **state)
{
    (void)state;
    static const uint64_t large[] = {4095, 4096, 4097, 65535, 65536, 65537, 100003, 262144, 262145};
    for (uint64_t count = 1; count <= 1000; count++) {
        check_bijection(shoal_rng_stream(count, "permutation"), count);
    }
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        check_bijection(shoal_rng_stream(i, "permutation"), large[i]);
    }
}

/* Counts that cannot be walked through: images stay in range, and nearby indices have different ones. */
static void test_permutation_huge(void **state)
{
    (void)state;
    static const uint64_t counts[] = {(UINT64_C(1) << 32) + 1, UINT64_C(10000000000), (UINT64_C(1) << 40) - 1, UINT64_C(1) << 62};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        uint64_t images[500];
        for (uint64_t j = 0; j < 500; j++) {
            images[j] = shoal_rng_permute(7, counts[i] - 1 - j, counts[i]);
            assert_true(images[j] < counts[i]);
            for (uint64_t k = 0; k < j; k++) {
                assert_true(images[j] != images[k]);
            }
        }
    }
}

/* Where one index lands is spread evenly over streams: chi-squared over 16 places, 15 degrees of freedom, far tail. */
static void test_permutation_spread(void **state)
{
    (void)state;
    size_t hits[16] = {0};
    double chi2     = 0;
    for (uint64_t seed = 0; seed < 16000; seed++) {
        hits[shoal_rng_permute(shoal_rng_stream(seed, "spread"), 5, 16)]++;
    }
    for (size_t i = 0; i < 16; i++) {
        chi2 += ((double)hits[i] - 1000) * ((double)hits[i] - 1000) / 1000;
    }
    assert_true(chi2 < 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),    cmocka_unit_test(test_independent_philox),
        cmocka_unit_test(test_streams_differ),   cmocka_unit_test(test_normal_chunks),
        cmocka_unit_test(test_normal_moments),   cmocka_unit_test(test_normal_reference),
        cmocka_unit_test(test_permutation),      cmocka_unit_test(test_permutation_huge),
        cmocka_unit_test(test_permutation_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
