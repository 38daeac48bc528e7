/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Training on a device with streams, without a GPU: the CUDA kernels, emulated, behind queues that keep what they are given and
 * carry it out when the step's end is asked for, each queue as far as signals let it, and the communication queues first or last in
 * turns. So a program that relies on `run` being done when it returns, touches the device's memory behind the queues' backs, or lacks a
 * signal between two queues computes something else. Losses follow the CPU's reference kernels, several ranks follow one;
 * recorded and replayed steps give the bits of steps enqueued op by op.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the five above */
#include <cmocka.h>

#include "base/time.h"
#include "collectives/transport.h"
#include "tests/capture.h"
#include "tests/emulated_device.h"
#include "tests/train_run.h"

enum { MAX_CALLS = 4096, MAX_MARKS = 4096 };

typedef enum { CALL_RUN, CALL_COPY, CALL_MARK, CALL_NOTE, CALL_SIGNAL, CALL_AWAIT, CALL_COLLECTIVE, CALL_REPLAY } call_kind_t;

/* One thing on a queue. */
typedef struct {
    call_kind_t        kind;
    shoal_queue_t      queue;
    int                number; /* of a mark, note or signal */
    bool               started, done;
    shoal_op_t         op;
    void              *args[SHOAL_OP_MAX_ARGS], *workspace;
    const void        *from;
    size_t             nbytes;
    shoal_comm_t      *comm; /* of the transport below */
    shoal_coll_t       coll;
    shoal_recording_t *recording;
} call_t;

/* In the order of the calls; a queue is those of its number. */
struct shoal_recording {
    call_t calls[MAX_CALLS];
    int    ncalls;
};

typedef struct streamed streamed_t;

/* What a transport is given for a queue. */
typedef struct {
    streamed_t   *device;
    shoal_queue_t queue;
} native_t;

struct streamed {
    shoal_device_t    base;
    shoal_device_t   *inner;
    shoal_recording_t queue, *recording; /* what waits; what is being recorded, or NULL */
    int64_t           marks[MAX_MARKS];
    int               notes[SHOAL_QUEUE_COUNT];
    native_t          natives[SHOAL_QUEUE_COUNT];
    unsigned          turns;
};

static const shoal_device_ops_t streamed_ops;

static streamed_t *streamed_of(shoal_device_t *device)
{
    return (streamed_t *)device;
}

static call_t *append_to(streamed_t *streamed, shoal_queue_t queue, call_kind_t kind)
{
    shoal_recording_t *to = streamed->recording != NULL ? streamed->recording : &streamed->queue;
    if (to->ncalls == MAX_CALLS) {
        abort();
    }
    call_t *call = &to->calls[to->ncalls++];
    *call        = (call_t){.kind = kind, .queue = queue};
    return call;
}

static call_t *append(shoal_device_t *device, shoal_queue_t queue, call_kind_t kind)
{
    return append_to(streamed_of(device), queue, kind);
}

/* ---- carrying out ---- */

static int failing_op = -1; /* counts down to the op that fails, as an illegal access would: when it is carried out */

static shoal_status_t run_now(streamed_t *streamed, const call_t *call)
{
    if (failing_op >= 0 && failing_op-- == 0) {
        return SHOAL_ERR_INTERNAL;
    }
    return streamed->inner->ops->run(streamed->inner, &call->op, call->args, call->workspace);
}

/* The latest signal of that number before the call. */
static bool signalled(const shoal_recording_t *list, const call_t *await)
{
    for (const call_t *call = await - 1; call >= list->calls; call--) {
        if (call->kind == CALL_SIGNAL && call->number == await->number) {
            return call->done;
        }
    }
    return true;
}

static shoal_status_t advance_collective(call_t *call)
{
    shoal_transport_t *transport = call->comm->transport;
    int                moved;
    if (!call->started) {
        SHOAL_TRY(transport->ops->start(call->comm, &call->coll));
        call->started = true;
    }
    SHOAL_TRY(transport->ops->progress(transport, &moved));
    return transport->ops->test(call->comm);
}

static shoal_status_t carry_out(streamed_t *streamed, shoal_recording_t *list);

/* SHOAL_IN_PROGRESS: not yet. */
static shoal_status_t advance(streamed_t *streamed, const shoal_recording_t *list, call_t *call)
{
    switch (call->kind) {
    case CALL_RUN: return run_now(streamed, call);
    case CALL_COPY: memcpy(call->args[0], call->from, call->nbytes); return SHOAL_OK;
    case CALL_MARK: streamed->marks[call->number] = shoal_time_ns(); return SHOAL_OK;
    case CALL_NOTE: streamed->notes[call->queue] = call->number; return SHOAL_OK;
    case CALL_SIGNAL: return SHOAL_OK;
    case CALL_AWAIT: return signalled(list, call) ? SHOAL_OK : SHOAL_IN_PROGRESS;
    case CALL_COLLECTIVE: return advance_collective(call);
    case CALL_REPLAY: return carry_out(streamed, call->recording);
    }
    return SHOAL_ERR_INTERNAL;
}

/* One queue as far as it goes, from its first call that is not done. */
static shoal_status_t advance_queue(streamed_t *streamed, shoal_recording_t *list, shoal_queue_t queue, int *next_p)
{
    for (; *next_p < list->ncalls; ++*next_p) {
        call_t *call = &list->calls[*next_p];
        if (call->queue == queue && !call->done) {
            shoal_status_t status = advance(streamed, list, call);
            if (status != SHOAL_OK) {
                return status;
            }
            call->done = true;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t carry_out(streamed_t *streamed, shoal_recording_t *list)
{
    int  next[SHOAL_QUEUE_COUNT] = {0};
    bool all                     = false;
    for (int i = 0; i < list->ncalls; i++) {
        list->calls[i].started = list->calls[i].done = false;
    }
    streamed->turns++;
    while (!all) {
        all = true;
        for (int i = 0; i < SHOAL_QUEUE_COUNT; i++) {
            int            queue  = streamed->turns % 2 == 0 ? i : SHOAL_QUEUE_COUNT - 1 - i;
            shoal_status_t status = advance_queue(streamed, list, (shoal_queue_t)queue, &next[queue]);
            if (status != SHOAL_OK && status != SHOAL_IN_PROGRESS) {
                return status;
            }
            all = all && status == SHOAL_OK;
        }
    }
    return SHOAL_OK;
}

static bool stuck; /* a peer never comes: the queues never end */

static shoal_status_t synchronize(shoal_device_t *device)
{
    streamed_t    *streamed = streamed_of(device);
    shoal_status_t status   = carry_out(streamed, &streamed->queue);
    streamed->queue.ncalls  = 0;
    return status;
}

static shoal_status_t poll_queues(shoal_device_t *device)
{
    return stuck ? SHOAL_IN_PROGRESS : synchronize(device);
}

/* ---- the device ---- */

static shoal_status_t open_streamed(const shoal_device_config_t *config, shoal_device_t **device_p)
{
    streamed_t *streamed = calloc(1, sizeof(*streamed));
    assert_non_null(streamed);
    streamed->base.ops = &streamed_ops;
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        streamed->natives[queue] = (native_t){streamed, (shoal_queue_t)queue};
    }
    *device_p = &streamed->base;
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

/* After what is on the queues, as on a GPU. */
static shoal_status_t copy(shoal_device_t *device, void *to, const void *from, size_t nbytes)
{
    SHOAL_TRY(synchronize(device));
    memcpy(to, from, nbytes);
    return SHOAL_OK;
}

static shoal_status_t workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p)
{
    return shoal_emulated_device_ops.workspace(streamed_of(device)->inner, op, nbytes_p);
}

static shoal_status_t run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *scratch)
{
    call_t *call    = append(device, SHOAL_QUEUE_COMPUTE, CALL_RUN);
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
    call_t *call  = append(device, SHOAL_QUEUE_COMPUTE, CALL_COPY);
    call->args[0] = to;
    call->from    = from_host;
    call->nbytes  = nbytes;
    return SHOAL_OK;
}

static shoal_status_t reserve(shoal_device_t *device, int count)
{
    (void)device;
    return count <= MAX_MARKS ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

static shoal_status_t mark(shoal_device_t *device, shoal_queue_t queue, int number)
{
    append(device, queue, CALL_MARK)->number = number;
    return SHOAL_OK;
}

static shoal_status_t between(shoal_device_t *device, int from, int to, double *ms_p)
{
    *ms_p = (double)(streamed_of(device)->marks[to] - streamed_of(device)->marks[from]) * 1e-6;
    return *ms_p >= 0 ? SHOAL_OK : SHOAL_ERR_INTERNAL;
}

static shoal_status_t signal_queue(shoal_device_t *device, shoal_queue_t queue, int number)
{
    append(device, queue, CALL_SIGNAL)->number = number;
    return SHOAL_OK;
}

static shoal_status_t await_signal(shoal_device_t *device, shoal_queue_t queue, int number)
{
    append(device, queue, CALL_AWAIT)->number = number;
    return SHOAL_OK;
}

static shoal_status_t note(shoal_device_t *device, shoal_queue_t queue, int number)
{
    append(device, queue, CALL_NOTE)->number = number;
    return SHOAL_OK;
}

static int last_note(shoal_device_t *device, shoal_queue_t queue)
{
    return streamed_of(device)->notes[queue];
}

static void forget_notes(shoal_device_t *device)
{
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        streamed_of(device)->notes[queue] = -1;
    }
}

static void *native(shoal_device_t *device, shoal_queue_t queue)
{
    return &streamed_of(device)->natives[queue];
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
    return SHOAL_OK;
}

static shoal_status_t replay(shoal_device_t *device, shoal_recording_t *recording)
{
    append(device, SHOAL_QUEUE_COMPUTE, CALL_REPLAY)->recording = recording;
    return SHOAL_OK;
}

static void recording_free(shoal_recording_t *recording)
{
    free(recording);
}

static const shoal_stream_ops_t stream_ops = {
    .alloc_host      = alloc_host,
    .free_host       = free_host,
    .enqueue_upload  = enqueue_upload,
    .reserve_marks   = reserve,
    .mark            = mark,
    .between         = between,
    .reserve_signals = reserve,
    .signal          = signal_queue,
    .await           = await_signal,
    .note            = note,
    .last_note       = last_note,
    .forget_notes    = forget_notes,
    .native          = native,
    .poll            = poll_queues,
    .record_begin    = record_begin,
    .record_end      = record_end,
    .replay          = replay,
    .recording_free  = recording_free,
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

/* ---- the transport: another one's collectives, on queues ---- */

typedef struct {
    shoal_transport_t  base;
    shoal_transport_t *inner;
} queued_transport_t;

typedef struct {
    shoal_comm_t  base;
    shoal_comm_t *inner;
} queued_comm_t;

static shoal_transport_ops_t        queued_ops;
static const shoal_transport_ops_t *inner_ops;

static shoal_status_t queued_open(const shoal_peers_t *peers, shoal_transport_t **transport_p)
{
    queued_transport_t *transport = calloc(1, sizeof(*transport));
    assert_non_null(transport);
    transport->base.ops = &queued_ops;
    *transport_p        = &transport->base;
    return inner_ops->open(peers, &transport->inner);
}

static void queued_close(shoal_transport_t *transport)
{
    inner_ops->close(((queued_transport_t *)transport)->inner);
    free(transport);
}

static shoal_status_t queued_comm_create(shoal_transport_t *transport, const int *ranks, int size, int tag, void *staging,
                                         size_t staging_nbytes, shoal_comm_t **comm_p)
{
    queued_comm_t *comm = calloc(1, sizeof(*comm));
    assert_non_null(comm);
    comm->base.transport = transport;
    *comm_p              = &comm->base;
    return inner_ops->comm_create(((queued_transport_t *)transport)->inner, ranks, size, tag, staging, staging_nbytes, &comm->inner);
}

static void queued_comm_destroy(shoal_comm_t *comm)
{
    inner_ops->comm_destroy(((queued_comm_t *)comm)->inner);
    free(comm);
}

static shoal_status_t queued_enqueue(shoal_comm_t *comm, const shoal_coll_t *coll, void *queue)
{
    const native_t *to   = queue;
    call_t         *call = append_to(to->device, to->queue, CALL_COLLECTIVE);
    call->comm           = ((queued_comm_t *)comm)->inner;
    call->coll           = *coll;
    return SHOAL_OK;
}

static shoal_status_t queued_progress(shoal_transport_t *transport, int *moved_p)
{
    (void)transport;
    *moved_p = 0;
    return SHOAL_OK;
}

static void add_transport(void)
{
    assert_int_equal(shoal_transport_find("auto", 2, false, &inner_ops), SHOAL_OK);
    queued_ops = (shoal_transport_ops_t){
        .name           = "nccl", /* the name that a configuration may give it */
        .open           = queued_open,
        .close          = queued_close,
        .staging_nbytes = inner_ops->staging_nbytes,
        .comm_create    = queued_comm_create,
        .comm_destroy   = queued_comm_destroy,
        .enqueue        = queued_enqueue,
        .progress       = queued_progress,
    };
    shoal_transport_add(&queued_ops);
}

/* ---- the runs ---- */

static char tokens[1200];

static const char *const base[] = {"model.seq=16",   "model.vocab=256", "model.layers=2", "model.d_model=32", "model.heads=2",
                                   "model.head_dim=16", "model.ffn=64",  "run.steps=5",      "run.seed=3",
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
    char                     words[512];
    snprintf(words, sizeof(words), "%s batch.local=12", numbers);
    train_on("cpu", &one, words);
    train_run_device = "streamed";
    for (int nranks = 2; nranks <= 3; nranks++) {
        for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
            int micros = strstr(layouts[i], "batch.accumulate=2") != NULL ? 2 : 1;
            snprintf(words, sizeof(words), "%s %s batch.local=%d", numbers, layouts[i], 12 / nranks / micros);
            assert_int_equal(train_run_with(nranks, base, &several, "%s", words), 0);
            assert_true(train_run_distance(&several, &one) <= 1e-5);
        }
    }
    train_run_device = NULL;
}

static void test_hang(void **state)
{
    (void)state;
    train_run_t run;
    train_run_device = "streamed";
    stuck            = true;
    capture_begin();
    int         code = train_run_with(2, base, &run, "model.arch=enoki run.timeout_s=1");
    const char *text = capture_end();
    stuck            = false;
    train_run_device = NULL;
    assert_int_equal(code, 5);
    assert_contains(text, "hangs: no layer or collective has begun for 1 s");
    assert_contains(text, "on the gather lane");
}

/* A transport of host memory is no use to such a device, nor the other way around. */
static void test_wrong_memory(void **state)
{
    (void)state;
    train_run_t run;
    capture_begin();
    train_run_device = "streamed";
    int queued       = train_run_with(2, base, &run, "model.arch=enoki parallel.transport=ucx");
    train_run_device = NULL;
    int host         = train_run_with(2, base, &run, "model.arch=enoki parallel.transport=nccl run.device=cpu");
    const char *text = capture_end();
    assert_int_equal(queued, 2);
    assert_int_equal(host, 2);
    assert_contains(text, "cannot serve 2 ranks on GPUs");
    assert_contains(text, "cannot serve 2 ranks in this build");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_error_names_the_layer),
        cmocka_unit_test(test_several_ranks),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_wrong_memory),
    };
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(tokens, sizeof(tokens), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    setenv("SHOAL_SHARE_GPU", "1", 1); /* emulated devices have one address */
    shoal_device_add(&streamed_ops);
    add_transport();
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
