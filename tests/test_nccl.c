/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What NCCL can be asked for, without a GPU: the host code runs on stand-ins (tests/standin/standin.h). Windows, policies and limits
 * change no loss; matmuls beside a collective are planned for the multiprocessors that it leaves, the others for all; what cannot
 * be had is refused with a name; the bench between GPUs finds a wrong element.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the six above */
#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "collectives/backends.h"
#include "kernels/cuda/cublaslt.h"
#include "src/commands.h"
#include "tests/capture.h"
#include "tests/train_run.h"

enum { MULTIPROCESSORS = 132 }; /* of the stand-in's GPU */

static char tokens[1200];

static const char *const base[] = {"model.arch=enoki",    "model.seq=16", "model.vocab=256", "model.layers=2", "model.d_model=32",
                                   "model.heads=2",       "model.head_dim=16", "model.ffn=64", "run.steps=4", "run.seed=3",
                                   "precision.gather=fp32", "precision.compute=fp32", "run.device=cuda", tokens, NULL};

static int run_on(int nranks, const char *machine, const char *words, train_run_t *run_p)
{
    setenv("SHOAL_STANDIN", machine, 1);
    return train_run_with(nranks, base, run_p, "%s", words);
}

/* A run that must end in this exit code; what it has said. */
static const char *fail_with(int code, const char *machine, const char *words)
{
    train_run_t run;
    capture_begin();
    int         got  = run_on(2, machine, words, &run);
    const char *text = capture_end();
    if (got != code) {
        fail_msg("exit code %d instead of %d: %s", got, code, text);
    }
    return text;
}

/* ---- what changes speed only ---- */

/* Two ranks follow one, with the same bits whatever way NCCL takes: the library's first choice of algorithms, so that none is timed. */
static void test_ways(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "parallel.windows=on", "parallel.windows=off", "parallel.gather_policy=default", "parallel.gather_policy=efficiency",
        "parallel.gather_policy=zero", "parallel.gather_ctas=4", "parallel.reduce_ctas=32",
        "parallel.gather_ctas=8 parallel.reduce_ctas=16 run.graph=false",
    };
    train_run_t alone, two, run;
    char        words[256];
    assert_int_equal(run_on(1, "devices=1", "batch.global=16 batch.local=16", &alone), 0);
    assert_int_equal(run_on(2, "devices=2", "batch.global=16 run.tune=false", &two), 0);
    assert_true(train_run_distance(&two, &alone) <= 1e-6);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        snprintf(words, sizeof(words), "batch.global=16 run.tune=false %s", ways[i]);
        assert_int_equal(run_on(2, "devices=2", words, &run), 0);
        if (strstr(ways[i], "ctas") == NULL) {
            assert_memory_equal(run.losses, two.losses, sizeof(run.losses));
        } else { /* algorithms for fewer multiprocessors may add in another order */
            assert_true(train_run_distance(&run, &two) <= 1e-6);
        }
        assert_int_equal(run.plan_nbytes, run.used_nbytes);
    }
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) {
        n++;
    }
    return n;
}

/* Windows that the ranks of a run register, all together. */
static int windows_of(const char *machine, const char *words)
{
    train_run_t run;
    setenv("SHOAL_LOG", "trace", 1);
    capture_begin();
    int         code = run_on(2, machine, words, &run);
    const char *text = capture_end();
    unsetenv("SHOAL_LOG");
    assert_int_equal(code, 0);
    return count(text, " bytes are registered with a communicator");
}

/* Two communicators on each of two ranks, if not told otherwise. */
static void test_windows(void **state)
{
    (void)state;
    assert_int_equal(windows_of("devices=2", "run.tune=false"), 4);
    assert_int_equal(windows_of("devices=2", "run.tune=false parallel.windows=on"), 4);
    assert_int_equal(windows_of("devices=2", "run.tune=false parallel.windows=off"), 0);
}

/* Ranks that pose as hosts get no windows; who insists is told. */
static void test_no_windows(void **state)
{
    (void)state;
    train_run_t run;
    setenv("SHOAL_SHARE_GPU", "1", 1);
    capture_begin();
    int         code = run_on(2, "devices=1", "", &run);
    const char *text = capture_end();
    assert_int_equal(code, 0);
    assert_null(strstr(text, "error"));
    assert_contains(fail_with(2, "devices=1", "parallel.windows=on"), "nccl: no symmetric windows between these GPUs");
    unsetenv("SHOAL_SHARE_GPU");
}

/*
 * A rank's first or second registration fails: all ranks go on without windows, with the same bits,
 * and one says why.
 */
static void test_window_refused(void **state)
{
    (void)state;
    static const char *const machines[] = {"devices=3,unregistered=1:1",
                                           "devices=3,unregistered=2:2"};
    train_run_t              without, run;
    assert_int_equal(run_on(3, "devices=3",
                            "batch.local=4 run.steps=2 run.tune=false parallel.windows=off",
                            &without),
                     0);
    for (int i = 0; i < 2; i++) {
        char expected[128];
        capture_begin();
        int         code = run_on(3, machines[i],
                                  "batch.local=4 run.steps=2 run.tune=false run.timeout_s=60", &run);
        const char *text = capture_end();
        snprintf(
            expected, sizeof(expected),
            "nccl: no symmetric windows: rank %d: ncclCommWindowRegister: unhandled cuda error: ",
            i + 1);
        assert_int_equal(code, 0);
        assert_int_equal(count(text, expected), 1);
        assert_null(strstr(text, "shoal: error"));
        assert_memory_equal(run.losses, without.losses, sizeof(run.losses));
    }
    const char *text = fail_with(1, "devices=2,unregistered=1:1",
                                 "parallel.windows=on run.timeout_s=60");
    assert_contains(text, "nccl: ncclCommWindowRegister: unhandled cuda error: ");
}

/* ---- sums in switches ---- */

/*
 * Whether three ranks come to the same bits on two machines whose switches add in different orders.
 */
static bool same_bits(const char *words, char *text, size_t nbytes)
{
    train_run_t runs[2];
    capture_begin();
    int one = run_on(3, "devices=3,seed=1", words, &runs[0]),
        two = run_on(3, "devices=3,seed=2", words, &runs[1]);
    snprintf(text, nbytes, "%s", capture_end());
    assert_int_equal(one, 0);
    assert_int_equal(two, 0);
    assert_true(train_run_distance(&runs[0], &runs[1]) <= 1e-6);
    return memcmp(runs[0].losses, runs[1].losses, sizeof(runs[0].losses)) == 0;
}

/* Only those who do not ask for the same bits, or have decided themselves, have switches add. */
static void test_deterministic(void **state)
{
    (void)state;
    static const char said[]   = "nccl: NCCL_NVLS_ENABLE=0, so that",
                      warned[] = " stays as it is set: where switches add";
    char              text[8192];
    assert_true(same_bits("batch.local=4 run.steps=2 run.tune=false", text, sizeof(text)));
    assert_int_equal(count(text, said), 2); /* rank 0 of either run */
    assert_int_equal(count(text, warned), 0);
    assert_false(same_bits("batch.local=4 run.steps=2 run.tune=false run.deterministic=false", text,
                           sizeof(text)));
    assert_int_equal(count(text, said) + count(text, warned), 0);
    setenv("NCCL_NVLS_ENABLE", "2", 1);
    assert_false(same_bits("batch.local=4 run.steps=2 run.tune=false", text, sizeof(text)));
    assert_int_equal(count(text, said), 0);
    assert_int_equal(count(text, warned), 2);
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    setenv("NCCL_COLLNET_ENABLE", "1", 1);
    assert_true(same_bits("batch.local=4 run.steps=2 run.tune=false", text, sizeof(text)));
    assert_int_equal(count(text, "nccl: NCCL_COLLNET_ENABLE=1 stays as it is set"), 2);
    unsetenv("NCCL_NVLS_ENABLE");
    unsetenv("NCCL_COLLNET_ENABLE");
}

static void test_refusals(void **state)
{
    (void)state;
    const char *text = fail_with(4, "devices=2,memory=200000", "run.memory_gib=1 run.reserve_gib=0");
    assert_contains(text, "cuda: cannot allocate ");
    assert_contains(text, " bytes are free");
    assert_contains(text, " bytes is what the plan gives a rank; see `shoal plan`");
    assert_contains(fail_with(2, "devices=2", "parallel.gather_ctas=33"), "parallel.gather_ctas = 33: expects a whole number from 0 to 32");
    assert_contains(fail_with(2, "devices=2", "parallel.gather_policy=none"), "expects one of auto, default, efficiency, zero\n");
}

/*
 * A plan that fills the GPU leaves nothing to the communicators: refused before, and out of memory
 * where nothing is reserved for them.
 */
static void test_reserve(void **state)
{
    (void)state;
    const char *text = fail_with(3, "devices=2,memory=2147483648", "");
    assert_contains(text, "the plan does not fit: a rank needs ");
    assert_contains(text, " 2.50 GiB are left to libraries and communicators (run.reserve_gib)");
    text = fail_with(4, "devices=2,memory=2147483648,comm_takes=1073741824", "run.reserve_gib=0");
    assert_contains(text, "Failed to CUDA calloc 1073741824 bytes");
    assert_contains(text, "libraries and communicators want more than the 0.00 GiB left to them");
}

/* ---- room for collectives ---- */

/* How many timed matmuls there are per number of multiprocessors: of the forward pass and of the backward pass. */
typedef struct {
    int forward[MULTIPROCESSORS + 1], backward[MULTIPROCESSORS + 1]; /* 0: all */
} targets_t;

/* In a cache of its own the run times every matmul that it meets, and leaves a record of each. */
static targets_t targets_of(int nranks, const char *words)
{
    targets_t                targets = {{0}, {0}};
    shoal_cublaslt_records_t records = {.items = NULL};
    train_run_t              run;
    assert_int_equal(system("rm -rf shoal"), 0);
    assert_int_equal(run_on(nranks, "devices=2", words, &run), 0);
    shoal_cublaslt_records_read("shoal/cublaslt", true, &records);
    assert_true(records.count > 0);
    for (size_t i = 0; i < records.count; i++) {
        const shoal_cublaslt_key_t *key     = &records.items[i].key;
        bool                        forward = (key->flags & SHOAL_CUBLASLT_TRANS_B) != 0; /* X W^T; gradients transpose X or nothing */
        assert_in_range(key->multiprocessors, 0, MULTIPROCESSORS);
        (forward ? targets.forward : targets.backward)[key->multiprocessors]++;
    }
    shoal_cublaslt_records_free(&records);
    return targets;
}

static int sum(const int *counts)
{
    int total = 0;
    for (int i = 0; i <= MULTIPROCESSORS; i++) {
        total += counts[i];
    }
    return total;
}

static void test_room(void **state)
{
    (void)state;
    enum { GATHER = 8, REDUCE = 16 };
    char folder[256];
    assert_non_null(getcwd(folder, sizeof(folder)));
    setenv("XDG_CACHE_HOME", folder, 1);

    /* One unit ahead: forward beside gathers, the last of backward beside reductions alone. */
    targets_t t = targets_of(2, "parallel.gather_ctas=8 parallel.reduce_ctas=16");
    assert_int_equal(sum(t.forward), t.forward[MULTIPROCESSORS - GATHER]);
    assert_true(t.backward[MULTIPROCESSORS - REDUCE] > 0 && t.backward[MULTIPROCESSORS - GATHER - REDUCE] > 0);
    assert_int_equal(sum(t.backward), t.backward[MULTIPROCESSORS - GATHER] + t.backward[MULTIPROCESSORS - REDUCE] +
                                          t.backward[MULTIPROCESSORS - GATHER - REDUCE]);

    /* One limit alone says nothing of the other lane. */
    t = targets_of(2, "parallel.reduce_ctas=16");
    assert_int_equal(sum(t.forward), t.forward[0]);
    assert_true(t.backward[MULTIPROCESSORS - REDUCE] > 0);
    assert_int_equal(sum(t.backward), t.backward[0] + t.backward[MULTIPROCESSORS - REDUCE]);

    /* Whole on every rank: nothing is gathered. */
    t = targets_of(2, "parallel.shard=none parallel.gather_ctas=8 parallel.reduce_ctas=16");
    assert_int_equal(sum(t.forward), t.forward[0]);
    assert_true(t.backward[MULTIPROCESSORS - REDUCE] > 0);
    assert_int_equal(sum(t.backward), t.backward[0] + t.backward[MULTIPROCESSORS - REDUCE]);

    /* Nothing asked for, or nobody to talk to. */
    t = targets_of(2, "");
    assert_int_equal(sum(t.forward) + sum(t.backward), t.forward[0] + t.backward[0]);
    t = targets_of(1, "parallel.gather_ctas=8 parallel.reduce_ctas=16");
    assert_int_equal(sum(t.forward) + sum(t.backward), t.forward[0] + t.backward[0]);
    unsetenv("XDG_CACHE_HOME");
}

/* ---- a rank that never comes ---- */

static shoal_status_t exchange_with_nobody(void *context, const void *mine, size_t nbytes, void *all_p)
{
    (void)context;
    memcpy(all_p, mine, nbytes);
    memcpy((char *)all_p + nbytes, mine, nbytes);
    return SHOAL_OK;
}

static void test_patience(void **state)
{
    (void)state;
    static const int               ranks[]   = {0, 1};
    const shoal_peers_t            peers     = {.size = 2, .local_size = 2, .exchange = exchange_with_nobody};
    const shoal_transport_config_t config    = {.patience_s = 0.2};
    const shoal_group_t            group     = {.ranks = ranks, .size = 2, .tag = 1, .use = SHOAL_COMM_GATHER};
    shoal_transport_t             *transport = NULL;
    shoal_comm_t                  *comm      = NULL;
    setenv("SHOAL_STANDIN", "devices=2", 1);
    assert_int_equal(shoal_transport_nccl.open(&peers, &config, &transport), SHOAL_OK);
    capture_begin();
    shoal_status_t status = shoal_transport_nccl.comm_create(transport, &group, &comm);
    assert_contains(capture_end(), "nccl: ncclCommInitRankConfig: waited 0 s for the other ranks");
    assert_int_equal(status, SHOAL_ERR_PEER);
    shoal_transport_nccl.close(transport);
}

/* ---- the bench ---- */

/* The bench's standard output goes to a file, for this test reads it. */
static int bench(const char *words)
{
    char  text[256];
    char *argv[32] = {"bench"};
    int   argc     = 1, out = dup(STDOUT_FILENO);
    FILE *file     = fopen("table", "w");
    assert_non_null(file);
    snprintf(text, sizeof(text), "%s", words);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    setenv("SHOAL_STANDIN", "devices=2", 1);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    int code = shoal_cmd_bench(argc, argv);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    fclose(file);
    return code;
}

static void test_bench(void **state)
{
    (void)state;
    static const char *const words[] = {
        "-n 2 -d cuda -t nccl --min 4 --max 64K --factor 16 --iters 2",
        "-n 2 -d cuda -t nccl --min 4 --max 64K --factor 16 --iters 2 --dtype bf16 --windows off --ctas 4 --policy efficiency",
        "-n 1 -d cuda -t nccl --max 8K --iters 2",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        assert_int_equal(bench(words[i]), 0);
    }
    assert_int_equal(bench("-n 2 -d cuda -t nccl --max 8K --iters 2 --json"), 0);
    assert_int_equal(system("test $(grep -c '\"ceiling_gbs\":450.0000,\"wrong\":0}$' table) = 3"), 0);
    assert_int_equal(bench("-n 2 -d cuda -t nccl --max 8K --iters 2 --link-gbs 7.5"), 0);
    assert_int_equal(system("grep -q 'ceiling of busbw: 7.5 GB/s: --link-gbs' table"), 0);
}

static void test_bench_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *words, *message;
    } mistakes[] = {
        {"-d gpu", "--device gpu: expects cpu or cuda"},
        {"-d cuda --poll", "--poll is not for --device cuda"},
        {"--windows on", "--ctas, --policy and --windows are for --device cuda"},
        {"-d cuda --windows yes", "--windows yes: expects one of auto, off, on"},
        {"-d cuda --link-gbs 0", "--link-gbs 0: expects a number above 0"},
        {"-n 1 -d cuda -t self", "transport self does not work on a GPU's memory"},
        {"-n 1 -t nccl", "transport \"nccl\" cannot serve 1 rank in this build"},
    };
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        capture_begin();
        int         code = bench(mistakes[i].words);
        const char *text = capture_end();
        assert_contains(text, mistakes[i].message);
        assert_int_equal(code, 2);
    }
}

/* NCCL, but for the last element that each collective leaves behind. */
static shoal_status_t enqueue_wrong(shoal_comm_t *comm, const shoal_coll_t *coll, void *queue)
{
    size_t size = coll->kind == SHOAL_COLL_ALL_GATHER ? 2 : 1, nbytes = shoal_dtype_nbytes(coll->dtype);
    SHOAL_TRY(shoal_transport_nccl.enqueue(comm, coll, queue));
    char *last = (char *)coll->recv + (coll->n * size - 1) * nbytes;
    return cudaMemsetAsync(last, 0x7f, nbytes, queue) == cudaSuccess ? SHOAL_OK : SHOAL_ERR_INTERNAL;
}

static shoal_transport_ops_t wrong;

static shoal_status_t open_wrong(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    SHOAL_TRY(shoal_transport_nccl.open(peers, config, transport_p));
    (*transport_p)->ops = &wrong;
    return SHOAL_OK;
}

static void test_bench_finds_a_wrong_element(void **state)
{
    (void)state;
    wrong         = shoal_transport_nccl;
    wrong.open    = open_wrong;
    wrong.enqueue = enqueue_wrong;
    shoal_transport_add(&wrong);
    capture_begin();
    int         code = bench("-n 2 -d cuda -t nccl --max 8K --iters 2 --json");
    const char *text = capture_end();
    shoal_transport_add(NULL);
    assert_contains(text, "bench: 6 elements are wrong"); /* three kinds, two ranks */
    assert_int_equal(code, 1);
    assert_int_equal(system("test $(grep -c '\"wrong\":2}$' table) = 3"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_no_windows),
        cmocka_unit_test(test_window_refused),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test_setup_teardown(test_room, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_bench, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_bench_refuses, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_bench_finds_a_wrong_element, enter_directory, leave_directory),
        cmocka_unit_test(test_patience), /* last: it uses the library in this process, which forks no more */
    };
    snprintf(tokens, sizeof(tokens), "data.train=%s/tests/fixtures/tokens.bin", getenv("SHOAL_SRCDIR"));
    return cmocka_run_group_tests_name("nccl", tests, NULL, NULL);
}
