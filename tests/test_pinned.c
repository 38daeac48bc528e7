/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collectives of device memory through pinned host memory, on the stand-in for the CUDA runtime. Inputs are small integers, whose sums
 * are exact in both types and in any order; results are compared for equality with sums made here, and guard bands stand behind them.
 * Slices are a few elements, so that a collective has many, and sizes lie around their bounds. Ranks are forked; under a launcher
 * (SHOAL_TEST_LAUNCHED=1) the ranks are the launcher's.
 */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others */
#include <cmocka.h>

#include "base/log.h"
#include "base/time.h"
#include "collectives/backends.h"
#include "collectives/pinned/pinned.h"
#include "kernels/device.h"
#include "runtime/bootstrap/bootstrap.h"
#include "tests/capture.h"
#include "tests/rank_check.h"
#include "tests/train_run.h"

enum { NGUARDS = 16, DEADLINE_MS = 30000 };

static const float GUARD = 77.0f;

/* ---- A rank ---- */

typedef struct {
    shoal_bootstrap_t *bootstrap;
    shoal_peers_t      peers;
    shoal_device_t    *device;
    shoal_transport_t *transport;
    shoal_comm_t      *comms[SHOAL_QUEUE_COUNT]; /* of the gather and the reduce queue, over all ranks */
} world_t;

static const char *transport_name = "ucx";
static double      patience_s     = 60;

/* A group of one is what only its table serves: a job of one rank is given host memory's. */
static const shoal_transport_ops_t *find_table(int size)
{
    const shoal_transport_ops_t *ops;
    if (size == 1) {
        return &shoal_transport_pinned_ucx;
    }
    CHECK(shoal_transport_find(transport_name, size, true, &ops) == SHOAL_OK);
    CHECK(ops->enqueue != NULL && strcmp(ops->name, transport_name) == 0);
    return ops;
}

static shoal_status_t open_transport(world_t *w)
{
    return find_table(w->peers.size)->open(&w->peers, &(shoal_transport_config_t){.patience_s = patience_s}, &w->transport);
}

static void make_comms(world_t *w)
{
    int ranks[64];
    for (int r = 0; r < w->peers.size; r++) {
        ranks[r] = r;
    }
    for (int queue = SHOAL_QUEUE_GATHER; queue <= SHOAL_QUEUE_REDUCE; queue++) {
        shoal_group_t group = {.ranks = ranks, .size = w->peers.size, .tag = queue};
        CHECK(w->transport->ops->comm_create(w->transport, &group, &w->comms[queue]) == SHOAL_OK);
    }
}

/* Filled in place: the transport keeps a pointer to the peers. */
static void world_open(world_t *w)
{
    memset(w, 0, sizeof(*w));
    CHECK(shoal_bootstrap_open("auto", &w->bootstrap) == SHOAL_OK);
    w->peers                     = shoal_bootstrap_peers(w->bootstrap);
    shoal_device_config_t config = {.local_rank = w->bootstrap->local_rank, .nthreads = 1, .required = true};
    CHECK(shoal_device_open("cuda", &config, &w->device) == SHOAL_OK);
    CHECK(w->device->ops->stream->reserve_signals(w->device, SHOAL_QUEUE_COUNT) == SHOAL_OK);
    CHECK(open_transport(w) == SHOAL_OK);
    make_comms(w);
}

static void world_close(world_t *w)
{
    for (int queue = SHOAL_QUEUE_GATHER; queue <= SHOAL_QUEUE_REDUCE; queue++) {
        w->transport->ops->comm_destroy(w->comms[queue]);
    }
    w->transport->ops->close(w->transport);
    w->device->ops->close(w->device);
    shoal_bootstrap_close(w->bootstrap);
}

/* As the executor waits for the end of a step. */
static shoal_status_t await_queues(world_t *w)
{
    const shoal_stream_ops_t *stream = w->device->ops->stream;
    shoal_status_t            status = SHOAL_IN_PROGRESS;
    int                       moved  = 0;
    for (int queue = SHOAL_QUEUE_GATHER; queue <= SHOAL_QUEUE_REDUCE; queue++) {
        CHECK(stream->signal(w->device, (shoal_queue_t)queue, queue) == SHOAL_OK);
        CHECK(stream->await(w->device, SHOAL_QUEUE_COMPUTE, queue) == SHOAL_OK);
    }
    while ((status = stream->poll(w->device)) == SHOAL_IN_PROGRESS) {
        SHOAL_TRY(w->transport->ops->progress(w->transport, &moved));
        usleep(50);
    }
    CHECK(status == SHOAL_OK);
    return w->transport->ops->progress(w->transport, &moved);
}

/* ---- A collective ---- */

typedef struct {
    shoal_queue_t queue;
    shoal_coll_t  coll;
    size_t        nsend, nrecv; /* elements */
    void         *send, *recv;  /* on the device; each with guards behind */
} operation_t;

/* Integers 0..7, different for each member and element. */
static float value(int member, size_t i)
{
    return (float)(((size_t)member * 3 + i * 5 + i / 7) % 8);
}

static float expected(const world_t *w, const shoal_coll_t *coll, size_t i)
{
    float  sum = 0;
    size_t at  = coll->kind == SHOAL_COLL_REDUCE_SCATTER ? (size_t)w->peers.rank * coll->n + i : i;
    if (coll->kind == SHOAL_COLL_ALL_GATHER) {
        return value((int)(i / coll->n), i % coll->n);
    }
    for (int member = 0; member < w->peers.size; member++) {
        sum += value(member, at);
    }
    return sum;
}

/* On the device, with this rank's contribution from element `first` on and guards around it. */
static void *make_buffer(world_t *w, shoal_dtype_t dtype, size_t n, size_t first, size_t ncontributed)
{
    size_t nbytes = (n + NGUARDS) * shoal_dtype_nbytes(dtype);
    void  *host   = malloc(nbytes), *buffer;
    CHECK(host != NULL && w->device->ops->alloc(w->device, nbytes, &buffer) == SHOAL_OK);
    for (size_t i = 0; i < n + NGUARDS; i++) {
        shoal_element_put(dtype, host, i, i >= first && i - first < ncontributed ? value(w->peers.rank, i - first) : GUARD);
    }
    CHECK(w->device->ops->upload(w->device, buffer, host, nbytes) == SHOAL_OK);
    free(host);
    return buffer;
}

static operation_t make_operation(world_t *w, shoal_queue_t queue, shoal_coll_kind_t kind, shoal_dtype_t dtype, size_t n, bool in_place)
{
    size_t      size = (size_t)w->peers.size, own = (size_t)w->peers.rank * n;
    operation_t op   = {.queue = queue, .coll = {.kind = kind, .dtype = dtype, .n = n}};
    op.nsend         = kind == SHOAL_COLL_REDUCE_SCATTER ? n * size : n;
    op.nrecv         = kind == SHOAL_COLL_ALL_GATHER ? n * size : n;
    bool from_recv   = kind == SHOAL_COLL_ALL_REDUCE || (kind == SHOAL_COLL_ALL_GATHER && in_place);
    op.send          = make_buffer(w, dtype, op.nsend, 0, op.nsend);
    op.recv          = make_buffer(w, dtype, op.nrecv, kind == SHOAL_COLL_ALL_GATHER ? own : 0, from_recv ? n : 0);
    op.coll.recv     = op.recv;
    op.coll.send     = op.send;
    if (kind == SHOAL_COLL_ALL_GATHER && in_place) {
        op.coll.send = (char *)op.recv + own * shoal_dtype_nbytes(dtype);
    }
    return op;
}

static shoal_status_t enqueue(world_t *w, const operation_t *op)
{
    void *native = w->device->ops->stream->native(w->device, op->queue);
    return w->transport->ops->enqueue(w->comms[op->queue], &op->coll, native);
}

/* The received elements are the expected ones, `send` is as it was, and nothing behind them was touched. */
static void check_operation(world_t *w, const operation_t *op)
{
    size_t        n     = op->nrecv > op->nsend ? op->nrecv : op->nsend;
    shoal_dtype_t dtype = op->coll.dtype;
    size_t        e     = shoal_dtype_nbytes(dtype);
    void         *host  = malloc((n + NGUARDS) * e);
    CHECK(host != NULL && w->device->ops->download(w->device, host, op->recv, (op->nrecv + NGUARDS) * e) == SHOAL_OK);
    for (size_t i = 0; i < op->nrecv + NGUARDS; i++) {
        CHECK(shoal_element_get(dtype, host, i) == (i < op->nrecv ? expected(w, &op->coll, i) : GUARD));
    }
    CHECK(w->device->ops->download(w->device, host, op->send, (op->nsend + NGUARDS) * e) == SHOAL_OK);
    for (size_t i = 0; i < op->nsend + NGUARDS; i++) {
        CHECK(shoal_element_get(dtype, host, i) == (i < op->nsend ? value(w->peers.rank, i) : GUARD));
    }
    free(host);
    w->device->ops->free(w->device, op->send, (op->nsend + NGUARDS) * e);
    w->device->ops->free(w->device, op->recv, (op->nrecv + NGUARDS) * e);
}

/* ---- What the ranks run ---- */

static size_t slice_of(const world_t *w, shoal_coll_kind_t kind, shoal_dtype_t dtype)
{
    return shoal_pinned_slice_nelem((const shoal_pinned_comm_t *)w->comms[SHOAL_QUEUE_GATHER], kind, dtype);
}

/* All kinds, types and places, one at a time, at sizes around the bounds of slices and of the slots. */
static int rank_exact(void *argument)
{
    (void)argument;
    world_t w;
    world_open(&w);
    for (int variant = 0; variant < 12; variant++) {
        shoal_coll_kind_t kind    = (shoal_coll_kind_t)(variant / 4);
        shoal_dtype_t     dtype   = variant % 2 == 0 ? SHOAL_F32 : SHOAL_BF16;
        size_t            slice   = slice_of(&w, kind, dtype);
        size_t            sizes[] = {0, 1, slice - 1, slice, slice + 1, 2 * slice, 3 * slice, 3 * slice + 1, 4 * slice - 1, 11 * slice + 5};
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            operation_t op = make_operation(&w, SHOAL_QUEUE_GATHER, kind, dtype, sizes[s], variant % 4 >= 2);
            CHECK(enqueue(&w, &op) == SHOAL_OK);
            CHECK(await_queues(&w) == SHOAL_OK);
            check_operation(&w, &op);
        }
    }
    world_close(&w);
    return 0;
}

/* Slices of the default size: two whole ones and a bit. */
static int rank_large(void *argument)
{
    (void)argument;
    world_t w;
    world_open(&w);
    for (int kind = 0; kind <= SHOAL_COLL_ALL_REDUCE; kind++) {
        size_t      n  = 2 * slice_of(&w, (shoal_coll_kind_t)kind, SHOAL_BF16) + 12345;
        operation_t op = make_operation(&w, SHOAL_QUEUE_REDUCE, (shoal_coll_kind_t)kind, SHOAL_BF16, n, true);
        CHECK(enqueue(&w, &op) == SHOAL_OK);
        CHECK(await_queues(&w) == SHOAL_OK);
        check_operation(&w, &op);
    }
    world_close(&w);
    return 0;
}

enum { NAHEAD = 100 }; /* collectives enqueued ahead on each queue: more than a group's list begins with */

/* Both groups have many collectives under way; the ranks enqueue them in different orders, and some start late. */
static int rank_concurrent(void *argument)
{
    (void)argument;
    static operation_t ops[2][NAHEAD];
    world_t            w;
    world_open(&w);
    for (int i = 0; i < NAHEAD; i++) {
        size_t n  = (size_t)(i * 37 % 101);
        ops[0][i] = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_ALL_GATHER, i % 2 == 0 ? SHOAL_BF16 : SHOAL_F32, n, i % 3 == 0);
        shoal_coll_kind_t sum = i % 4 == 0 ? SHOAL_COLL_ALL_REDUCE : SHOAL_COLL_REDUCE_SCATTER;
        ops[1][i]             = make_operation(&w, SHOAL_QUEUE_REDUCE, sum, SHOAL_F32, n, false);
    }
    usleep((unsigned)w.peers.rank * 20000);
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < NAHEAD; i++) {
            CHECK(enqueue(&w, &ops[(half + w.peers.rank) % 2][i]) == SHOAL_OK);
        }
    }
    CHECK(await_queues(&w) == SHOAL_OK);
    for (int i = 0; i < 2 * NAHEAD; i++) {
        check_operation(&w, &ops[i % 2][i / 2]);
    }
    world_close(&w);
    return 0;
}

/* Words go past 2^32 in the middle of a collective. */
static int rank_wraps(void *argument)
{
    (void)argument;
    world_t w;
    world_open(&w);
    shoal_pinned_comm_t *comm = (shoal_pinned_comm_t *)w.comms[SHOAL_QUEUE_GATHER];
    comm->nenqueued = comm->nback = UINT32_MAX - 4; /* nothing is enqueued: the thread looks at neither */
    atomic_store(&comm->words->here, UINT32_MAX - 4);
    atomic_store(&comm->words->back, UINT32_MAX - 4);
    size_t      n  = 11 * slice_of(&w, SHOAL_COLL_REDUCE_SCATTER, SHOAL_F32);
    operation_t op = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_REDUCE_SCATTER, SHOAL_F32, n, false);
    CHECK(enqueue(&w, &op) == SHOAL_OK);
    CHECK(await_queues(&w) == SHOAL_OK);
    CHECK(atomic_load(&comm->words->back) < 11);
    check_operation(&w, &op);
    world_close(&w);
    return 0;
}

/* Groups are made and unmade while others stay; a queue other than the group's own is refused. */
static int rank_groups(void *argument)
{
    (void)argument;
    world_t w;
    world_open(&w);
    int           pair[2] = {w.peers.rank / 2 * 2, w.peers.rank / 2 * 2 + 1}, all = w.peers.size;
    shoal_comm_t *whole   = w.comms[SHOAL_QUEUE_REDUCE];
    for (int round = 0; round < 3; round++) {
        shoal_group_t group = {.ranks = pair, .size = 2, .tag = 7};
        operation_t   op    = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_ALL_REDUCE, SHOAL_F32, 1000, false);
        CHECK(w.transport->ops->comm_create(w.transport, &group, &w.comms[SHOAL_QUEUE_REDUCE]) == SHOAL_OK);
        CHECK(enqueue(&w, &op) == SHOAL_OK);
        operation_t reduced = make_operation(&w, SHOAL_QUEUE_REDUCE, SHOAL_COLL_ALL_REDUCE, SHOAL_F32, 1000, false);
        CHECK(enqueue(&w, &reduced) == SHOAL_OK);
        CHECK(await_queues(&w) == SHOAL_OK);
        check_operation(&w, &op);
        float host[1000];
        CHECK(w.device->ops->download(w.device, host, reduced.recv, sizeof(host)) == SHOAL_OK);
        for (size_t i = 0; i < 1000; i++) {
            CHECK(host[i] == value(pair[0], i) + value(pair[1], i));
        }
        reduced.queue = SHOAL_QUEUE_GATHER; /* of the device; the group has been on the other one */
        void *native  = w.device->ops->stream->native(w.device, SHOAL_QUEUE_GATHER);
        CHECK(w.transport->ops->enqueue(w.comms[SHOAL_QUEUE_REDUCE], &reduced.coll, native) == SHOAL_ERR_INVALID);
        w.transport->ops->comm_destroy(w.comms[SHOAL_QUEUE_REDUCE]);
    }
    CHECK(all == w.peers.size);
    w.comms[SHOAL_QUEUE_REDUCE] = whole;
    world_close(&w);
    return 0;
}

/* Rank 1 dies or stands still while everybody sums; the others have an error, and their devices can still be closed. */
static int rank_loses_one(void *argument)
{
    int     signal_number = *(const int *)argument;
    world_t w;
    patience_s = 1; /* for the rank that stands still; the others' slices take milliseconds */
    world_open(&w);
    shoal_status_t status = SHOAL_OK;
    for (int i = 0; status == SHOAL_OK; i++) {
        operation_t gather = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_ALL_GATHER, SHOAL_BF16, 3000, false);
        operation_t reduce = make_operation(&w, SHOAL_QUEUE_REDUCE, SHOAL_COLL_REDUCE_SCATTER, SHOAL_F32, 3000, false);
        if (w.peers.rank == 1 && i == 2) {
            raise(signal_number);
        }
        status = enqueue(&w, &gather);
        status = status == SHOAL_OK ? enqueue(&w, &reduce) : status;
        status = status == SHOAL_OK ? await_queues(&w) : status;
    }
    CHECK(status == SHOAL_ERR_PEER);
    operation_t late = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_ALL_GATHER, SHOAL_BF16, 10, false);
    CHECK(enqueue(&w, &late) == SHOAL_ERR_PEER);
    world_close(&w);
    return shoal_status_exit_code(status);
}

/* The caller gives up with collectives under way that no peer will ever answer. */
static int rank_gives_up(void *argument)
{
    (void)argument;
    world_t w;
    world_open(&w);
    if (w.peers.rank == 0) {
        operation_t gather = make_operation(&w, SHOAL_QUEUE_GATHER, SHOAL_COLL_ALL_GATHER, SHOAL_F32, 5000, false);
        operation_t reduce = make_operation(&w, SHOAL_QUEUE_REDUCE, SHOAL_COLL_ALL_REDUCE, SHOAL_F32, 5000, false);
        CHECK(enqueue(&w, &gather) == SHOAL_OK);
        CHECK(enqueue(&w, &reduce) == SHOAL_OK);
    }
    world_close(&w);
    return 0;
}

static int rank_opens(void *argument)
{
    const char *const *slices = argument;
    world_t            w;
    CHECK(shoal_bootstrap_open("auto", &w.bootstrap) == SHOAL_OK);
    w.peers = shoal_bootstrap_peers(w.bootstrap);
    setenv("SHOAL_PINNED_SLICE", slices[w.peers.rank], 1);
    shoal_status_t status = open_transport(&w);
    shoal_bootstrap_close(w.bootstrap);
    return shoal_status_exit_code(status);
}

/* ---- The tests ---- */

/* Under several orders of the streams. */
static void launch(int nranks, int (*rank_main)(void *))
{
    static int seed = 0;
    char       machine[32];
    snprintf(machine, sizeof(machine), "seed=%d", ++seed);
    setenv("SHOAL_STANDIN", machine, 1);
    assert_int_equal(shoal_bootstrap_launch_local(nranks, rank_main, NULL), 0);
}

static void test_exact(void **state)
{
    (void)state;
    for (int nranks = 1; nranks <= 4; nranks++) {
        launch(nranks, rank_exact);
    }
    setenv("SHOAL_PINNED_SLICE", "64", 1);
    launch(3, rank_exact);
    setenv("SHOAL_PINNED_SLICE", "1000", 1);
    launch(2, rank_exact);
}

static void test_large(void **state)
{
    (void)state;
    unsetenv("SHOAL_PINNED_SLICE");
    launch(2, rank_large);
    launch(3, rank_large);
}

static void test_concurrent(void **state)
{
    (void)state;
    for (int nranks = 2; nranks <= 4; nranks++) {
        launch(nranks, rank_concurrent);
    }
}

static void test_wraps(void **state)
{
    (void)state;
    launch(3, rank_wraps);
}

static void test_groups(void **state)
{
    (void)state;
    launch(4, rank_groups);
}

static void check_lost(int nranks, int signal_number, const char *expected_text)
{
    int64_t start_ns = shoal_time_ns();
    capture_begin();
    int         code = shoal_bootstrap_launch_local(nranks, rank_loses_one, &signal_number);
    const char *text = capture_end();
    assert_int_equal(code, shoal_status_exit_code(SHOAL_ERR_PEER));
    assert_contains(text, expected_text);
    assert_true(waitpid(-1, NULL, WNOHANG) == -1); /* no child is left */
    assert_true(shoal_ms_since(start_ns) < DEADLINE_MS); /* a bound against hanging, not a measurement */
}

static void test_killed_rank(void **state)
{
    (void)state;
    check_lost(2, SIGKILL, "rank 1");
    check_lost(4, SIGKILL, "rank 1");
}

static void test_stopped_rank(void **state)
{
    (void)state;
    check_lost(3, SIGSTOP, "waited for rank 1");
}

static void test_gives_up(void **state)
{
    (void)state;
    launch(2, rank_gives_up);
}

static void test_slice_setting(void **state)
{
    (void)state;
    static const char *const different[] = {"4096", "8192"}, *const nonsense[] = {"4 MiB", "4 MiB"}, *const same[] = {"4096", "4096"};
    capture_begin();
    int         differs = shoal_bootstrap_launch_local(2, rank_opens, (void *)(uintptr_t)different);
    int         is_text = shoal_bootstrap_launch_local(2, rank_opens, (void *)(uintptr_t)nonsense);
    int         agrees  = shoal_bootstrap_launch_local(2, rank_opens, (void *)(uintptr_t)same);
    const char *text    = capture_end();
    assert_int_equal(differs, 2);
    assert_int_equal(is_text, 2);
    assert_int_equal(agrees, 0);
    assert_contains(text, "SHOAL_PINNED_SLICE differs");
    assert_contains(text, "SHOAL_PINNED_SLICE=4 MiB");
}

/* ---- Training ---- */

static char tokens[1200];

static const char *const base[] = {"model.arch=enoki",    "model.seq=16",           "model.vocab=256",       "model.layers=2",
                                   "model.d_model=32",    "model.heads=2",          "model.head_dim=16",     "model.ffn=64",
                                   "optim.name=adamw",    "optim.lr=0.001",         "precision.compute=fp32", "precision.gather=fp32",
                                   "run.steps=5",         "run.seed=3",             tokens,                NULL};

/* The stand-in's GPU and its own kernels against one CPU rank. */
static void test_training(void **state)
{
    (void)state;
    static const char *const layouts[] = {"parallel.shard=full", "parallel.shard=grad parallel.prefetch=2 batch.accumulate=2",
                                          "parallel.shard=none run.check_ops=true"};
    train_run_t              one, several;
    setenv("SHOAL_STANDIN", "devices=4", 1);
    assert_int_equal(train_run_with(1, base, &one, "batch.local=8 run.device=cpu"), 0);
    setenv("SHOAL_PINNED_SLICE", "4096", 1);
    for (int nranks = 2; nranks <= 4; nranks += 2) {
        for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
            int micros = strstr(layouts[i], "accumulate") != NULL ? 2 : 1;
            int code   = train_run_with(nranks, base, &several, "batch.local=%d run.device=cuda parallel.transport=ucx %s",
                                        8 / nranks / micros, layouts[i]);
            assert_int_equal(code, 0);
            assert_true(train_run_distance(&several, &one) <= 1e-6);
        }
    }
}

static void test_training_says_what_it_does(void **state)
{
    (void)state;
    train_run_t run;
    setenv("SHOAL_STANDIN", "devices=2", 1);
    capture_begin();
    int         code = train_run_with(2, base, &run, "batch.local=1 run.device=cuda parallel.transport=ucx run.steps=2");
    const char *text = capture_end();
    assert_int_equal(code, 0);
    assert_contains(text, "ucx through pinned host memory, slices of");
    assert_contains(text, "run.graph is off: what transport ucx enqueues cannot be recorded");
}

/* ---- main ---- */

static int set_direct(void **state)
{
    setenv("SHOAL_PINNED_SLICE", "256", 1);
    return setenv("SHOAL_UCX_DIRECT", *state, 1);
}

static int run_launched(void)
{
    transport_name = getenv("SHOAL_TEST_TRANSPORT");
    setenv("SHOAL_PINNED_SLICE", "256", 1);
    return getenv("SHOAL_TEST_AHEAD") != NULL ? rank_concurrent(NULL) : rank_exact(NULL); /* MPI starts once in a process */
}

int main(void)
{
    if (getenv("SHOAL_TEST_LAUNCHED") != NULL) {
        return run_launched();
    }
#define ON_BOTH(test) {#test " direct", test, set_direct, NULL, "1"}, {#test " by messages", test, set_direct, NULL, "0"}
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_exact),
        ON_BOTH(test_large),
        ON_BOTH(test_concurrent),
        ON_BOTH(test_wraps),
        ON_BOTH(test_groups),
        ON_BOTH(test_killed_rank),
        ON_BOTH(test_stopped_rank),
        ON_BOTH(test_gives_up),
        cmocka_unit_test(test_slice_setting),
        ON_BOTH(test_training),
        cmocka_unit_test(test_training_says_what_it_does),
    };
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(tokens, sizeof(tokens), "data.train=%s/tests/fixtures/tokens.bin", source != NULL ? source : ".");
    return cmocka_run_group_tests_name("pinned", tests, NULL, NULL);
}
