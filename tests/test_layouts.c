/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every layout trains the same model: ten fp32 steps with any number of ranks, shard mode, prefetch distance, accumulation, recomputation
 * and transport lose the same as one rank, to 1e-6 relative; what only moves memory or time around is equal to the bit. The
 * model's sizes divide by nothing, so shards are padded and tensors straddle them. Every run also shows that the plan's
 * bytes are the bytes used, and that nothing is allocated after the second step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train_run.h"

/* 24 sequences a step: divisible by 1, 2, 3, 4 and 8 ranks. */
static const char *base[TRAIN_RUN_MAX_WORDS] = {
    "model.arch=enoki", "model.heads=3",      "model.head_dim=10",     "model.layers=3",        "model.seq=17",
    "model.vocab=131",  "model.ffn=50",       "batch.global=24",       "batch.local=1",         "optim.name=adamw",
    "optim.lr=0.003",   "run.steps=10",       "precision.compute=fp32", "precision.gather=fp32", "precision.reduce=fp32",
    "run.threads=1",    "run.timeout_s=60",   NULL, NULL};

static train_run_t one; /* one rank */

static void check(int nranks, const char *words, const train_run_t *reference, double tolerance)
{
    train_run_t run;
    int         code = train_run_with(nranks, base, &run, "%s", words);
    double      distance = train_run_distance(&run, reference);
    print_message("%d ranks %-60s %.1e\n", nranks, words, distance);
    if (code != 0 || !(distance <= tolerance)) {
        fail_msg("%d ranks, %s: exit code %d, losses differ by %.3g", nranks, words, code, distance);
    }
    assert_int_equal(run.plan_nbytes, run.used_nbytes);
    assert_int_equal(run.heap_growth_nbytes, 0);
}

static int setup(void **state)
{
    static char train[1200], valid[1200];
    const char *source = getenv("SHOAL_SRCDIR");
    int         n      = 0;
    (void)state;
    setenv("SHOAL_DEBUG_CHECK", "1", 1);
    while (base[n] != NULL) {
        n++;
    }
    snprintf(train, sizeof(train), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    snprintf(valid, sizeof(valid), "data.valid=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    base[n]     = train;
    base[n + 1] = valid;
    return train_run(1, base, &one);
}

static void test_ranks_and_shards(void **state)
{
    static const int ranks[] = {2, 3, 4, 8};
    (void)state;
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        check(ranks[i], "parallel.shard=full", &one, 1e-6);
        check(ranks[i], "parallel.shard=grad", &one, 1e-6);
        check(ranks[i], "parallel.shard=none", &one, 1e-6);
    }
}

static void test_time_and_memory_only(void **state)
{
    train_run_t two;
    (void)state;
    assert_int_equal(train_run_with(2, base, &two, "parallel.shard=full"), 0);
    check(2, "parallel.shard=full", &two, 0.0); /* again: the same bits */
    check(2, "parallel.prefetch=0", &two, 0.0);
    check(2, "parallel.prefetch=3", &two, 0.0);
    check(2, "parallel.prefetch=64", &two, 0.0); /* the most: every gather is emitted at the step's start */
    check(2, "parallel.shard=grad", &two, 0.0);
    check(2, "parallel.recompute=selective", &two, 0.0);
    check(2, "parallel.recompute=full", &two, 0.0);
    check(2, "run.eval_every=2 run.eval_batches=1", &two, 0.0);
}

static void test_accumulation(void **state)
{
    (void)state;
    check(1, "batch.local=24", &one, 1e-6);
    check(2, "batch.local=4 batch.sync=every", &one, 1e-6);
    check(2, "batch.local=4 batch.sync=last", &one, 1e-6);
    check(3, "batch.local=2 batch.sync=every parallel.shard=none", &one, 1e-6);
    check(3, "batch.local=2 batch.sync=every parallel.shard=grad", &one, 1e-6);
    check(1, "run.head_chunk=5", &one, 1e-6);
}

static void check_family(const char *words)
{
    train_run_t reference;
    char        text[1024];
    assert_int_equal(train_run_with(1, base, &reference, "%s", words), 0);
    snprintf(text, sizeof(text), "%s parallel.recompute=full", words);
    check(1, text, &reference, 0.0);
    snprintf(text, sizeof(text), "%s parallel.recompute=selective", words);
    check(1, text, &reference, 0.0);
    check(3, words, &reference, 1e-6);
    snprintf(text, sizeof(text), "%s parallel.shard=none batch.sync=every", words);
    check(2, text, &reference, 1e-6);
    snprintf(text, sizeof(text), "%s parallel.shard=grad parallel.prefetch=0", words);
    check(2, text, &reference, 1e-6);
}

static void test_llama(void **state)
{
    (void)state;
    check_family("model.arch=llama model.heads=4 model.kv_heads=2");
}

static void test_gpt2(void **state)
{
    (void)state;
    check_family("model.arch=gpt2 model.rope=none");
}

static void test_residual_scale(void **state)
{
    (void)state;
    check_family("model.residual=0.5 model.z_loss=0.0001");
}

static void test_dana(void **state)
{
    (void)state;
    check_family("optim.name=dana-star-mk4 optim.lr=0.001 run.steps=5");
}

/* Low-precision wires: the layout may matter, but no more than their rounding. */
static void test_low_precision(void **state)
{
    (void)state;
    train_run_t reference;
    check(2, "precision.gather=bf16", &one, 2e-2);
    check(3, "precision.reduce=bf16 parallel.shard=none", &one, 2e-2);
    check(1, "precision.reduce=bf16", &one, 2e-2);
    assert_int_equal(train_run_with(1, base, &reference, "precision.compute=bf16 precision.gather=bf16"), 0);
    check(4, "precision.compute=bf16 precision.gather=bf16", &reference, 5e-3);
    check(4, "precision.compute=bf16 precision.gather=fp32 parallel.shard=grad", &reference, 5e-3);
}

static void test_validation(void **state)
{
    train_run_t single, sharded;
    (void)state;
    assert_int_equal(train_run_with(1, base, &single, "run.eval_every=5 run.eval_batches=2"), 0);
    assert_int_equal(train_run_with(4, base, &sharded, "run.eval_every=5 run.eval_batches=2"), 0);
    assert_true(single.valid_loss > 0.0);
    assert_true(single.valid_loss - sharded.valid_loss <= 1e-5 && sharded.valid_loss - single.valid_loss <= 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_and_shards), cmocka_unit_test(test_time_and_memory_only), cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_llama),            cmocka_unit_test(test_gpt2),                 cmocka_unit_test(test_residual_scale),
        cmocka_unit_test(test_dana),             cmocka_unit_test(test_low_precision),        cmocka_unit_test(test_validation),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
