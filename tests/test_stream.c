/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Training on the CUDA device and over NCCL, without a GPU: the host code of both runs on stand-ins (tests/standin/standin.h) that do what
 * they are given as late as they may, streams in a drawn order, device memory closed to the host. Losses follow the CPU's
 * reference kernels, several ranks follow one; recorded and replayed steps give the bits of steps enqueued op by op; faults and refusals
 * are named.
 */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the eight above */
#include <cmocka.h>

#include "kernels/device.h"
#include "runtime/bootstrap/bootstrap.h"
#include "tests/capture.h"
#include "tests/standin/standin.h"
#include "tests/train_run.h"

static char tokens[1200];

static const char *const base[] = {"model.seq=16",   "model.vocab=256", "model.layers=2", "model.d_model=32", "model.heads=2",
                                   "model.head_dim=16", "model.ffn=64",  "run.steps=5",      "run.seed=3",
                                   tokens,           NULL};

/* The stand-in's machine: a GPU for each of three ranks, and what else the test wants. */
static void make_machine(const char *settings)
{
    char text[128];
    snprintf(text, sizeof(text), "devices=3%s%s", settings[0] != '\0' ? "," : "", settings);
    setenv("SHOAL_STANDIN", text, 1);
}

static void train_on(const char *device, train_run_t *run_p, const char *words)
{
    make_machine("");
    assert_int_equal(train_run_with(1, base, run_p, "run.device=%s %s", device, words), 0);
}

static void check_follows_cpu(const char *words, double tolerance)
{
    train_run_t cpu, cuda;
    train_on("cpu", &cpu, words);
    train_on("cuda", &cuda, words);
    assert_true(train_run_distance(&cuda, &cpu) <= tolerance);
    assert_true(isnan(cpu.valid_loss) || fabs(cuda.valid_loss - cpu.valid_loss) <= tolerance * cpu.valid_loss);
    assert_int_equal(cuda.plan_nbytes, cuda.used_nbytes);
}

static void test_fp32(void **state)
{
    (void)state;
    check_follows_cpu("model.arch=enoki optim.name=dana-star-mk4 precision.compute=fp32 precision.gather=fp32", 1e-5);
    check_follows_cpu("model.arch=llama model.kv_heads=1 optim.name=adamw precision.compute=fp32 precision.gather=fp32 "
                      "batch.accumulate=2 parallel.recompute=full", 1e-5);
    check_follows_cpu("model.arch=gpt2 optim.name=adana precision.compute=fp32 precision.gather=fp32 parallel.recompute=selective", 1e-5);
}

static void test_bf16(void **state)
{
    (void)state;
    check_follows_cpu("model.arch=enoki optim.name=dana-star precision.compute=bf16", 2e-2);
}

/*
 * The head on a GPU takes at least 4096 tokens at once, here all 144, where the CPU takes 128 and the rest: four ops fewer, the same
 * losses; and what is asked for is what is done.
 */
static void test_head_chunk(void **state)
{
    (void)state;
    static const char *const words = "model.arch=enoki model.vocab=33000 batch.local=9 run.steps=2 precision.compute=fp32 precision.gather=fp32";
    train_run_t              cpu, whole, pieces;
    char                     text[256];
    train_on("cpu", &cpu, words);
    train_on("cuda", &whole, words);
    assert_int_equal(cpu.nops, whole.nops + 4);
    assert_true(train_run_distance(&whole, &cpu) <= 1e-5);
    snprintf(text, sizeof(text), "%s run.head_chunk=70", words);
    train_on("cuda", &pieces, text);
    assert_int_equal(pieces.nops, whole.nops + 2 * 4);
    assert_true(train_run_distance(&pieces, &cpu) <= 1e-5);
}

static void test_replay(void **state)
{
    (void)state;
    static const char *const words = "model.arch=enoki optim.name=dana-mk4 precision.compute=bf16";
    train_run_t              replayed, enqueued;
    char                     text[256];
    train_on("cuda", &replayed, words);
    snprintf(text, sizeof(text), "%s run.graph=false", words);
    train_on("cuda", &enqueued, text);
    assert_memory_equal(replayed.losses, enqueued.losses, sizeof(replayed.losses));
    assert_memory_equal(replayed.grad_norms, enqueued.grad_norms, sizeof(replayed.grad_norms));
    snprintf(text, sizeof(text), "%s run.trace_step=4 run.check_ops=true", words);
    train_on("cuda", &enqueued, text);
    assert_memory_equal(replayed.losses, enqueued.losses, sizeof(replayed.losses));
}

/* Of a rank: memory is asked for before the second step, or never. */
static void check_allocations(size_t step)
{
    static size_t after_first;
    after_first = step == 1 ? shoal_standin_allocations() : after_first;
    if (shoal_standin_allocations() != after_first) {
        fprintf(stderr, "step %zu has allocated memory\n", step);
        exit(99);
    }
}

static void test_steps_do_not_allocate(void **state)
{
    (void)state;
    train_run_t run;
    train_run_after_step = check_allocations;
    make_machine("");
    assert_int_equal(train_run_with(1, base, &run, "run.device=cuda model.arch=enoki"), 0);
    assert_int_equal(train_run_with(2, base, &run, "run.device=cuda model.arch=enoki run.trace_step=4"), 0);
    train_run_after_step = NULL;
}

/* ---- tokens, read while the device works ---- */

static char own_tokens[] = "/tmp/shoal-test-XXXXXX";

/* A copy of the first `nbytes` of the fixture, or of all. */
static void copy_tokens(size_t nbytes)
{
    static char bytes[65536];
    FILE       *from = fopen(tokens + strlen("data.train="), "rb"), *to = fopen(own_tokens, "wb");
    assert_true(from != NULL && to != NULL);
    size_t n = fread(bytes, 1, nbytes < sizeof(bytes) ? nbytes : sizeof(bytes), from);
    assert_int_equal(fwrite(bytes, 1, n, to), n);
    assert_int_equal(fclose(from) + fclose(to), 0);
}

/* In place, as the file is mapped: no token id of it is of the vocabulary any more. */
static void spoil_tokens(size_t step)
{
    FILE *file = step == 1 ? fopen(own_tokens, "r+b") : NULL;
    for (int i = 0; file != NULL && i < 36812; i++) {
        fputc(0xff, file);
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* The file is spoiled behind step 1: step 2 has its tokens by then, step 3 has not, and a last step has asked for none beyond. */
static void test_fetches_ahead(void **state)
{
    (void)state;
    train_run_t before, run;
    int         file = mkstemp(own_tokens);
    close(file);
    copy_tokens(SIZE_MAX);
    make_machine("");
    assert_int_equal(train_run_with(1, base, &before, "run.device=cuda model.arch=enoki run.steps=2 data.train=%s", own_tokens), 0);
    train_run_after_step = spoil_tokens;
    for (int nranks = 1; nranks <= 2; nranks++) {
        copy_tokens(SIZE_MAX);
        assert_int_equal(train_run_with(nranks, base, &run, "run.device=cuda model.arch=enoki run.steps=2 batch.local=%d data.train=%s",
                                        8 / nranks, own_tokens), 0);
        assert_true(train_run_distance(&run, &before) <= (nranks == 1 ? 0.0 : 2e-2));
    }
    copy_tokens(SIZE_MAX);
    capture_begin();
    int         code = train_run_with(1, base, &run, "run.device=cuda model.arch=enoki run.steps=3 data.train=%s", own_tokens);
    const char *text = capture_end();
    train_run_after_step = NULL;
    unlink(own_tokens);
    assert_int_equal(code, 6);
    assert_contains(text, "token id 65535 in a vocabulary of 256");
    assert_null(strstr(strstr(text, "token id") + 1, "token id"));
}

/* 20 windows make two and a half epochs of five steps, with validation after every second, and micro-batches. */
static void test_epochs_and_validation(void **state)
{
    (void)state;
    char words[256];
    snprintf(own_tokens, sizeof(own_tokens), "/tmp/shoal-test-XXXXXX");
    int file = mkstemp(own_tokens);
    close(file);
    copy_tokens((20 * 16 + 1) * 2);
    snprintf(words, sizeof(words), "model.arch=enoki precision.compute=fp32 precision.gather=fp32 batch.local=5 batch.accumulate=2 "
             "run.eval_every=2 run.eval_batches=1 data.train=%s data.valid=%s", own_tokens, own_tokens);
    check_follows_cpu(words, 1e-5);
    unlink(own_tokens);
}

/* ---- errors ---- */

/* A run that must end in this exit code; what it has said. */
static const char *fail_with(int code, int nranks, const char *settings, const char *words)
{
    train_run_t run;
    make_machine(settings);
    capture_begin();
    int         got  = train_run_with(nranks, base, &run, "run.device=cuda model.arch=enoki %s", words);
    const char *text = capture_end();
    if (got != code) {
        fail_msg("exit code %d instead of %d: %s", got, code, text);
    }
    return text;
}

/* The 150th kernel stands in a step's backward. */
static void test_error_names_the_layer(void **state)
{
    (void)state;
    const char *text = fail_with(1, 1, "fault=150", "");
    assert_contains(text, "an illegal memory access was encountered");
    assert_contains(text, "that was in");
    assert_contains(text, "of block");
    assert_contains(text, "run.check_ops");
    text = fail_with(1, 1, "fault=150", "run.check_ops=true");
    assert_contains(text, "that was in");
    assert_contains(text, "of block");
    assert_null(strstr(text, "run.check_ops"));
}

static void test_refusals(void **state)
{
    (void)state;
    assert_contains(fail_with(2, 1, "driver=0", ""), "device cuda: this machine has no driver for NVIDIA GPUs");
    assert_contains(fail_with(2, 1, "driver=12080", ""), "driver version is insufficient for CUDA runtime version (driver for CUDA 12.8, built with");
    assert_contains(fail_with(2, 1, "devices=0", ""), "no CUDA-capable device is detected");
    assert_contains(fail_with(2, 1, "capability=75,name=Tesla T4", ""), "GPU 0, Tesla T4, has compute capability 7.5; 8.0 is the oldest");
    assert_contains(fail_with(2, 3, "devices=2", ""), "local rank 2 has no GPU: this node shows 2");
    const char *text = fail_with(2, 2, "devices=1", "");
    assert_contains(text, "ranks 0 and 1 of ");
    assert_contains(text, "both got the GPU at 0000:");
    assert_null(strstr(strstr(text, "both got") + 1, "both got"));
}

/* A GPU in three parts is three devices at one address. */
static void test_parts(void **state)
{
    (void)state;
    train_run_t run;
    make_machine("parts=1");
    assert_int_equal(train_run_with(2, base, &run, "run.device=cuda model.arch=enoki run.steps=2"), 0);
}

/* In a process of its own: a device takes 1 MiB, and there is no more. */
static int take_too_much(void *argument)
{
    (void)argument;
    shoal_device_config_t config = {.nthreads = 1};
    shoal_device_t       *device = NULL;
    void                 *first = NULL, *second = NULL;
    shoal_status_t        status = shoal_device_open("cuda", &config, &device);
    status                       = status == SHOAL_OK ? device->ops->alloc(device, 1 << 20, &first) : status;
    if (status != SHOAL_OK) {
        return 99;
    }
    status = device->ops->alloc(device, (2 << 20) + 1, &second);
    device->ops->free(device, first, 1 << 20);
    if (device->ops->alloc(device, 3 << 20, &second) != SHOAL_OK) {
        return 98; /* the refusal has left nothing behind */
    }
    device->ops->free(device, second, 3 << 20);
    device->ops->close(device);
    return shoal_status_exit_code(status);
}

/* A plan that does not fit is refused before; but others may take memory meanwhile. */
static void test_out_of_memory(void **state)
{
    (void)state;
    assert_contains(fail_with(3, 1, "memory=65536", ""), "the plan does not fit");
    make_machine("memory=3145728");
    capture_begin();
    int         code = shoal_bootstrap_launch_local(1, take_too_much, NULL);
    const char *text = capture_end();
    assert_int_equal(code, 4);
    assert_contains(text, "cuda: cannot allocate 2097153 bytes (0.00 GiB) on GPU 0: 2097152 of its 3145728 bytes are free");
}

/*
 * Libraries and recordings take memory behind the plan's back: half a GiB is reserved for them, and
 * want of it is exit 4.
 */
static void test_reserve(void **state)
{
    (void)state;
    assert_contains(fail_with(3, 1, "memory=536870912", ""), "0.50 GiB are left to libraries and communicators (run.reserve_gib)");
    const char *text = fail_with(4, 1, "memory=1073741824,graph_takes=1073741824", "");
    assert_contains(text, "cudaGraphInstantiate");
    assert_contains(text, "libraries and communicators want more than the 0.50 GiB left to them");
    text = fail_with(4, 1, "memory=62914560,matmul_takes=62914560", "run.reserve_gib=0");
    assert_contains(text, "the GPU has no memory left");
    assert_contains(text, "want more than the 0.00 GiB left to them");
}

/* FSDP: every sharding, with and without prefetch, micro-batches, an odd number of ranks; recorded and not. */
static void test_several_ranks(void **state)
{
    (void)state;
    static const char *const layouts[] = {
        "parallel.shard=full", "parallel.shard=full parallel.prefetch=0 run.graph=false", "parallel.shard=grad parallel.prefetch=2",
        "parallel.shard=none", "parallel.shard=full parallel.recompute=full run.trace_step=3 batch.accumulate=2",
    };
    static const char *const numbers = "model.arch=enoki optim.name=adamw precision.compute=fp32 precision.gather=fp32";
    train_run_t              one, several;
    char                     words[512], settings[32];
    snprintf(words, sizeof(words), "%s batch.local=12", numbers);
    train_on("cpu", &one, words);
    for (int nranks = 2; nranks <= 3; nranks++) {
        for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
            int micros = strstr(layouts[i], "batch.accumulate=2") != NULL ? 2 : 1;
            snprintf(settings, sizeof(settings), "seed=%zu", i + 1);
            make_machine(settings);
            snprintf(words, sizeof(words), "run.device=cuda %s %s batch.local=%d", numbers, layouts[i], 12 / nranks / micros);
            assert_int_equal(train_run_with(nranks, base, &several, "%s", words), 0);
            assert_true(train_run_distance(&several, &one) <= 1e-5);
        }
    }
}

/* The 40th collective of a rank is of a step that is replayed; the third is of the first step, before which all matmuls were timed. */
static void test_hang(void **state)
{
    (void)state;
    char cache[300];
    snprintf(cache, sizeof(cache), "%s/fresh", getenv("XDG_CACHE_HOME"));
    setenv("XDG_CACHE_HOME", cache, 1);
    assert_contains(fail_with(5, 2, "mute=1:3", "run.timeout_s=1"), "began last on the");
    const char *text = fail_with(5, 2, "mute=1:40", "run.timeout_s=1");
    assert_contains(text, "hangs: no layer or collective has begun for 1 s");
    assert_contains(text, "began last on the");
}

/*
 * Rank 1 is killed behind the second step, which a replay follows. NCCL's kernels tell the others
 * nothing.
 */
static void kill_rank(size_t step)
{
    if (step == 2 && train_run_world->rank == 1) {
        raise(SIGKILL);
    }
}

static void test_killed_rank(void **state)
{
    (void)state;
    char        host[SHOAL_HOST_NBYTES] = "", expected[128];
    train_run_after_step = kill_rank;
    const char *text     = fail_with(5, 3, "", "run.timeout_s=600");
    train_run_after_step = NULL;
    gethostname(host, sizeof(host) - 1);
    snprintf(expected, sizeof(expected), "stopped: rank 1 on %s is gone", host);
    assert_contains(text, expected);
    assert_contains(strstr(text, expected) + 1, expected); /* both of the others */
    assert_contains(text, "this rank began last on the");
}

/*
 * As above, but of a rank that only the launcher sees: it says so from the start, and that counts
 * once somebody waits.
 */
static void say_lost(size_t step)
{
    (void)step;
    atomic_store(&train_run_world->lost, 1 + 1);
}

static void test_lost_by_the_launchers_word(void **state)
{
    (void)state;
    train_run_after_step = say_lost;
    const char *text     = fail_with(5, 2, "mute=1:40", "run.timeout_s=600");
    train_run_after_step = NULL;
    assert_contains(text, "stopped: rank 1 on ");
}

/*
 * A replay that hangs on both communicators, and then everything is put away: no wait for the
 * queues, nor for the other rank. The stand-in ends a process that would wait for ever with 97.
 */
static void test_ends_in_order_after_a_hang(void **state)
{
    (void)state;
    train_run_orderly = true;
    fail_with(5, 2, "mute=1:40", "run.timeout_s=1");
    train_run_orderly = false;
}

/* A transport of host memory is no use to such a device, nor the other way around. */
static void test_wrong_memory(void **state)
{
    (void)state;
    train_run_t run;
    assert_contains(fail_with(2, 2, "", "parallel.transport=self"), "cannot serve 2 ranks on GPUs");
    capture_begin();
    int         host = train_run_with(2, base, &run, "model.arch=enoki parallel.transport=nccl run.device=cpu");
    const char *text = capture_end();
    assert_int_equal(host, 2);
    assert_contains(text, "cannot serve 2 ranks in this build");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_head_chunk),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_steps_do_not_allocate),
        cmocka_unit_test(test_fetches_ahead),
        cmocka_unit_test(test_epochs_and_validation),
        cmocka_unit_test(test_error_names_the_layer),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_several_ranks),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_killed_rank),
        cmocka_unit_test(test_lost_by_the_launchers_word),
        cmocka_unit_test(test_ends_in_order_after_a_hang),
        cmocka_unit_test(test_wrong_memory),
    };
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(tokens, sizeof(tokens), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
