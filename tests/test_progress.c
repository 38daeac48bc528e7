/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The executor's two threads under load: many short steps in which lanes wait for each other in every direction (gathers, reductions,
 * keep and replicate, several micro-batches). What ThreadSanitizer runs; without it, the result must still be the same bits
 * every time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/train_run.h"

static const char *base[TRAIN_RUN_MAX_WORDS] = {
    "model.arch=enoki",  "model.heads=2",         "model.head_dim=8",      "model.layers=4",         "model.seq=8",   "model.vocab=128",
    "batch.local=1",     "batch.accumulate=2",    "batch.sync=every",      "optim.name=adamw",       "optim.lr=0.003", "run.steps=8",
    "run.threads=1",     "precision.compute=fp32", "precision.gather=fp32", "precision.reduce=fp32", "run.variant=ref", NULL, NULL};

static void check(const char *words)
{
    train_run_t first, second;
    assert_int_equal(train_run_with(3, base, &first, "%s", words), 0);
    assert_int_equal(train_run_with(3, base, &second, "%s", words), 0);
    assert_true(train_run_distance(&first, &second) == 0.0);
}

static void test_full(void **state)
{
    (void)state;
    check("parallel.shard=full parallel.prefetch=2");
}

static void test_no_prefetch(void **state)
{
    (void)state;
    check("parallel.shard=full parallel.prefetch=0");
}

static void test_keep(void **state)
{
    (void)state;
    check("parallel.shard=grad");
}

static void test_replicate(void **state)
{
    (void)state;
    check("parallel.shard=none");
}

int main(void)
{
    static char train[1200];
    const char *source = getenv("SHOAL_SRCDIR");
    int         n      = 0;
    while (base[n] != NULL) {
        n++;
    }
    snprintf(train, sizeof(train), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    base[n] = train;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_full), cmocka_unit_test(test_no_prefetch), cmocka_unit_test(test_keep),
                                       cmocka_unit_test(test_replicate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
