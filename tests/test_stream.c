/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Training on a device with a stream, without a GPU: the CUDA kernels, emulated, behind a stream that keeps what it is given and
 * carries it out at the next synchronize. So a program that relies on `run` being done when it returns, or touches the device's
 * memory behind the stream's back, computes something else. Losses follow the CPU's reference kernels; recorded and replayed
 * steps give the bits of steps enqueued op by op.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>

#include "base/time.h"
#include "tests/capture.h"
#include "tests/emulated_device.h"
#include "tests/train_run.h"

enum { MAX_CALLS = 4096, MAX_MARKS = 1024, MAX_COPY = 4096 };

typedef enum { CALL_RUN, CALL_COPY, CALL_MARK, CALL_NOTE, CALL_REPLAY } call_kind_t;

/* One thing on the stream. */
typedef struct {
    call_kind_t kind;
    shoal_op_t  op;
    void       *args[SHOAL_OP_MAX_ARGS], *workspace;
    const void *from;
    size_t      nbytes;
    int         mark;
    shoal_recording_t *recording;
} call_t;

struct shoal_recording {
    call_t calls[MAX_CALLS];
    int    ncalls;
};

typedef struct {
    shoal_device_t    base;
    shoal_device_t   *inner;
    shoal_recording_t queue, *recording; /* what waits; what is being recorded, or NULL */
    int64_t           marks[MAX_MARKS];
    int               nrecordings, nreplays, note;
} streamed_t;

static const shoal_device_ops_t streamed_ops;

static streamed_t *streamed_of(shoal_device_t *device)
{
    return (streamed_t *)device;
}

static call_t *append(shoal_device_t *device, call_kind_t kind)
{
    streamed_t        *streamed = streamed_of(device);
    shoal_recording_t *to       = streamed->recording != NULL ? streamed->recording : &streamed->queue;
    if (to->ncalls == MAX_CALLS) {
        abort();
    }
    call_t *call = &to->calls[to->ncalls++];
    *call        = (call_t){.kind = kind};
    return call;
}

static int failing_op = -1; /* counts down to the op that fails, as an illegal access would: when it is carried out */

static shoal_status_t run_now(streamed_t *streamed, const call_t *call)
{
    if (failing_op >= 0 && failing_op-- == 0) {
        return SHOAL_ERR_INTERNAL;
    }
    return streamed->inner->ops->run(streamed->inner, &call->op, call->args, call->workspace);
}

static shoal_status_t carry_out(streamed_t *streamed, const shoal_recording_t *recording)
{
    for (int i = 0; i < recording->ncalls; i++) {
        const call_t *call = &recording->calls[i];
        switch (call->kind) {
        case CALL_RUN: SHOAL_TRY(run_now(streamed, call)); break;
        case CALL_COPY: memcpy(call->args[0], call->from, call->nbytes); break;
        case CALL_MARK: streamed->marks[call->mark] = shoal_time_ns(); break;
        case CALL_NOTE: streamed->note = call->mark; break;
        case CALL_REPLAY: SHOAL_TRY(carry_out(streamed, call->recording)); break;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t synchronize(shoal_device_t *device)
{
    streamed_t    *streamed = streamed_of(device);
    shoal_status_t status   = carry_out(streamed, &streamed->queue);
    streamed->queue.ncalls  = 0;
    return status;
}

static shoal_status_t open_streamed(const shoal_device_config_t *config, shoal_device_t **device_p)
{
    streamed_t *streamed = calloc(1, sizeof(*streamed));
    assert_non_null(streamed);
    streamed->base.ops = &streamed_ops;
    *device_p          = &streamed->base;
    return shoal_emulated_device_ops.open(config, &streamed->inner);
}

static void close_streamed(shoal_device_t *device)
{
    shoal_emulated_device_ops.close(streamed_of(device)->inner);
    free(device);
}

static void info(shoal_device_t *device, shoal_device_info_t *info_p)
{
    shoal_emulated_device_ops.info(streamed_of(device)->inner, info_p);
}

static shoal_status_t alloc_memory(shoal_device_t *device, size_t nbytes, void **memory_p)
{
    return shoal_emulated_device_ops.alloc(streamed_of(device)->inner, nbytes, memory_p);
}

static void free_memory(shoal_device_t *device, void *memory, size_t nbytes)
{
    shoal_emulated_device_ops.free(streamed_of(device)->inner, memory, nbytes);
}

/* After what is on the stream, as on a GPU. Several threads may upload while a run is set up, when nothing is. */
static shoal_status_t copy(shoal_device_t *device, void *to, const void *from, size_t nbytes)
{
    if (streamed_of(device)->queue.ncalls > 0) {
        SHOAL_TRY(synchronize(device));
    }
    memcpy(to, from, nbytes);
    return SHOAL_OK;
}

static shoal_status_t workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p)
{
    return shoal_emulated_device_ops.workspace(streamed_of(device)->inner, op, nbytes_p);
}

static shoal_status_t run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *scratch)
{
    call_t *call    = append(device, CALL_RUN);
    call->op        = *op;
    call->workspace = scratch;
    memcpy(call->args, args, sizeof(call->args));
    return SHOAL_OK;
}

static shoal_status_t alloc_host(shoal_device_t *device, size_t nbytes, void **memory_p)
{
    (void)device;
    *memory_p = malloc(nbytes);
    return *memory_p != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

static void free_host(shoal_device_t *device, void *memory)
{
    (void)device;
    free(memory);
}

static shoal_status_t enqueue_upload(shoal_device_t *device, void *to, const void *from_host, size_t nbytes)
{
    call_t *call  = append(device, CALL_COPY);
    call->args[0] = to;
    call->from    = from_host;
    call->nbytes  = nbytes;
    return SHOAL_OK;
}

static shoal_status_t reserve_marks(shoal_device_t *device, int count)
{
    (void)device;
    return count <= MAX_MARKS ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

static shoal_status_t mark(shoal_device_t *device, int number)
{
    append(device, CALL_MARK)->mark = number;
    return SHOAL_OK;
}

static shoal_status_t between(shoal_device_t *device, int from, int to, double *ms_p)
{
    *ms_p = (double)(streamed_of(device)->marks[to] - streamed_of(device)->marks[from]) * 1e-6;
    return *ms_p >= 0 ? SHOAL_OK : SHOAL_ERR_INTERNAL;
}

static shoal_status_t note(shoal_device_t *device, int number)
{
    append(device, CALL_NOTE)->mark = number;
    return SHOAL_OK;
}

static int last_note(shoal_device_t *device)
{
    return streamed_of(device)->note;
}

static shoal_status_t record_begin(shoal_device_t *device)
{
    streamed_of(device)->recording = calloc(1, sizeof(shoal_recording_t));
    return streamed_of(device)->recording != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

static shoal_status_t record_end(shoal_device_t *device, shoal_recording_t **recording_p)
{
    *recording_p                   = streamed_of(device)->recording;
    streamed_of(device)->recording = NULL;
    streamed_of(device)->nrecordings++;
    return SHOAL_OK;
}

static shoal_status_t replay(shoal_device_t *device, shoal_recording_t *recording)
{
    append(device, CALL_REPLAY)->recording = recording;
    streamed_of(device)->nreplays++;
    return SHOAL_OK;
}

static void recording_free(shoal_recording_t *recording)
{
    free(recording);
}

static const shoal_stream_ops_t stream_ops = {
    .alloc_host     = alloc_host,
    .free_host      = free_host,
    .enqueue_upload = enqueue_upload,
    .reserve_marks  = reserve_marks,
    .mark           = mark,
    .between        = between,
    .note           = note,
    .last_note      = last_note,
    .record_begin   = record_begin,
    .record_end     = record_end,
    .replay         = replay,
    .recording_free = recording_free,
};

static const shoal_device_ops_t streamed_ops = {
    .name        = "streamed",
    .stream      = &stream_ops,
    .open        = open_streamed,
    .close       = close_streamed,
    .info        = info,
    .alloc       = alloc_memory,
    .free        = free_memory,
    .upload      = copy,
    .download    = copy,
    .workspace   = workspace,
    .run         = run,
    .synchronize = synchronize,
};

/* ---- the runs ---- */

static char tokens[1200];

static const char *const base[] = {"model.seq=16",   "model.vocab=256", "model.layers=2", "model.d_model=32", "model.heads=2",
                                   "model.head_dim=16", "model.ffn=64",  "batch.local=2",  "run.steps=5",      "run.seed=3",
                                   tokens,           NULL};

static void train_on(const char *device, train_run_t *run_p, const char *words)
{
    train_run_device = device;
    assert_int_equal(train_run_with(1, base, run_p, "%s", words), 0);
    train_run_device = NULL;
}

static void check_follows_cpu(const char *words, double tolerance)
{
    train_run_t cpu, streamed;
    train_on("cpu", &cpu, words);
    train_on("streamed", &streamed, words);
    assert_true(train_run_distance(&streamed, &cpu) <= tolerance);
    assert_true(isnan(cpu.valid_loss) || fabs(streamed.valid_loss - cpu.valid_loss) <= tolerance * cpu.valid_loss);
    assert_int_equal(streamed.plan_nbytes, streamed.used_nbytes);
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

static void test_replay(void **state)
{
    (void)state;
    static const char *const words = "model.arch=enoki optim.name=dana-mk4 precision.compute=bf16";
    train_run_t              replayed, enqueued;
    char                     text[256];
    train_on("streamed", &replayed, words);
    snprintf(text, sizeof(text), "%s run.graph=false", words);
    train_on("streamed", &enqueued, text);
    assert_memory_equal(replayed.losses, enqueued.losses, sizeof(replayed.losses));
    assert_memory_equal(replayed.grad_norms, enqueued.grad_norms, sizeof(replayed.grad_norms));
    snprintf(text, sizeof(text), "%s run.trace_step=4 run.check_ops=true", words);
    train_on("streamed", &enqueued, text);
    assert_memory_equal(replayed.losses, enqueued.losses, sizeof(replayed.losses));
}

/* The ops of the initial state come first; the 40th after them stands in the backward of block 1. */
static void test_error_names_the_layer(void **state)
{
    (void)state;
    train_run_t run;
    train_run_device = "streamed";
    failing_op       = 90;
    capture_begin();
    int code = train_run_with(1, base, &run, "model.arch=enoki");
    const char *text = capture_end();
    assert_int_equal(code, 1);
    assert_contains(text, "that was in");
    assert_contains(text, "of block");
    assert_contains(text, "run.check_ops");
    capture_begin();
    code = train_run_with(1, base, &run, "model.arch=enoki run.check_ops=true");
    text = capture_end();
    assert_int_equal(code, 1);
    assert_contains(text, "that was in");
    assert_contains(text, "of block");
    assert_null(strstr(text, "run.check_ops"));
    failing_op       = -1;
    train_run_device = NULL;
}

static void test_several_ranks(void **state)
{
    (void)state;
    train_run_t run;
    train_run_device = "streamed";
    assert_int_equal(train_run_with(2, base, &run, "model.arch=enoki"), 2);
    train_run_device = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_error_names_the_layer),
        cmocka_unit_test(test_several_ranks),
    };
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(tokens, sizeof(tokens), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    shoal_device_add(&streamed_ops);
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
