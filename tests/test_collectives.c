/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One suite over every transport and both paths of ucx. Inputs are small integers, whose sums are exact in bf16 and fp32 in any order,
 * so the results are compared for equality; a second kind of input, whose sums are not exact, checks that bits repeat. Guard bands stand
 * around results and staging space. Ranks are forked; under a launcher (SHOAL_TEST_LAUNCHED=1) the ranks are the launcher's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "collectives/transport.h"
#include "runtime/bootstrap/bootstrap.h"
#include "tests/rank_check.h"

enum { GUARD_NBYTES = 64, GUARD = 0x5a, PEER_LIMIT_MS = 30000 };

typedef struct {
    shoal_bootstrap_t *bootstrap;
    shoal_transport_t *transport;
    int                rank, size;
} world_t;

static const char *transport_name = "ucx";

static world_t world_open(void)
{
    world_t                      w;
    const shoal_transport_ops_t *ops;
    CHECK(shoal_bootstrap_open("auto", &w.bootstrap) == SHOAL_OK);
    w.rank = w.bootstrap->rank;
    w.size = w.bootstrap->size;
    CHECK(shoal_transport_find(w.size == 1 && strcmp(transport_name, "mpi") != 0 ? "auto" : transport_name, w.size, false, &ops) == SHOAL_OK);
    shoal_peers_t peers = shoal_bootstrap_peers(w.bootstrap);
    CHECK(ops->open(&peers, &(shoal_transport_config_t){.patience_s = 30}, &w.transport) == SHOAL_OK);
    return w;
}

static void world_close(world_t *w)
{
    w->transport->ops->close(w->transport);
    shoal_bootstrap_close(w->bootstrap);
}

/* ---- Guarded memory ---- */

static void *guarded_alloc(size_t nbytes)
{
    char *block = malloc(nbytes + 2 * GUARD_NBYTES);
    CHECK(block != NULL);
    memset(block, GUARD, nbytes + 2 * GUARD_NBYTES);
    return block + GUARD_NBYTES;
}

static void guarded_free(void *at, size_t nbytes)
{
    const unsigned char *block = (unsigned char *)at - GUARD_NBYTES;
    for (size_t i = 0; i < GUARD_NBYTES; i++) {
        CHECK(block[i] == GUARD && block[GUARD_NBYTES + nbytes + i] == GUARD);
    }
    free((char *)at - GUARD_NBYTES);
}

/* ---- A group and its collectives ---- */

typedef struct {
    world_t      *world;
    shoal_comm_t *comm;
    int           ranks[64];
    int           size, self;
    void         *staging;
    size_t        staging_nbytes;
} group_t;

static size_t largest_staging(const world_t *w, int size, size_t max_n)
{
    size_t largest = 0;
    for (int kind = 0; kind <= SHOAL_COLL_ALL_REDUCE; kind++) {
        /* Small sizes count too: an algorithm for few elements may need more space than the one for many. */
        for (size_t n = 1; n <= max_n; n = n < max_n && n * 2 > max_n ? max_n : n * 2) {
            for (int dtype = SHOAL_F32; dtype <= SHOAL_BF16; dtype++) {
                shoal_coll_t coll   = {.kind = (shoal_coll_kind_t)kind, .dtype = (shoal_dtype_t)dtype, .n = n};
                size_t       nbytes = w->transport->ops->staging_nbytes(&coll, size);
                largest             = nbytes > largest ? nbytes : largest;
            }
        }
    }
    return largest;
}

static group_t group_create(world_t *w, const int *ranks, int size, int tag, size_t max_n)
{
    group_t g        = {.world = w, .size = size, .self = -1};
    g.staging_nbytes = largest_staging(w, size, max_n);
    g.staging        = guarded_alloc(g.staging_nbytes);
    for (int i = 0; i < size; i++) {
        g.ranks[i] = ranks[i];
        g.self     = ranks[i] == w->rank ? i : g.self;
    }
    shoal_group_t group = {.ranks = ranks, .size = size, .tag = tag, .staging = g.staging, .staging_nbytes = g.staging_nbytes};
    CHECK(w->transport->ops->comm_create(w->transport, &group, &g.comm) == SHOAL_OK);
    return g;
}

static group_t group_of_all(world_t *w, int tag, size_t max_n)
{
    int ranks[64];
    for (int r = 0; r < w->size; r++) {
        ranks[r] = r;
    }
    return group_create(w, ranks, w->size, tag, max_n);
}

static void group_destroy(group_t *g)
{
    g->world->transport->ops->comm_destroy(g->comm);
    guarded_free(g->staging, g->staging_nbytes);
}

static shoal_status_t finish(const world_t *w, shoal_comm_t *comm)
{
    const shoal_transport_ops_t *ops    = w->transport->ops;
    shoal_status_t               status = ops->test(comm);
    while (status == SHOAL_IN_PROGRESS) {
        int moved = 0;
        status    = ops->progress(w->transport, &moved);
        if (status == SHOAL_OK && !moved && ops->test(comm) == SHOAL_IN_PROGRESS) {
            status = ops->wait(w->transport, 1000);
        }
        status = status == SHOAL_OK ? ops->test(comm) : status;
    }
    return status;
}

static size_t send_elements(const shoal_coll_t *coll, int size)
{
    return coll->kind == SHOAL_COLL_REDUCE_SCATTER ? coll->n * (size_t)size : coll->n;
}

static size_t recv_elements(const shoal_coll_t *coll, int size)
{
    return coll->kind == SHOAL_COLL_ALL_GATHER ? coll->n * (size_t)size : coll->n;
}

/* Integers 0..7, different for each member and element: sums over 16 members stay below 256, exact in bf16. */
static float exact_value(int member, size_t i)
{
    return (float)((size_t)member * 3 + i * 5 + i / 7) - 8.0f * (float)(((size_t)member * 3 + i * 5 + i / 7) / 8);
}

static float expected_value(const shoal_coll_t *coll, const group_t *g, size_t i)
{
    float sum = 0;
    if (coll->kind == SHOAL_COLL_ALL_GATHER) {
        return exact_value((int)(i / coll->n), i % coll->n);
    }
    size_t at = coll->kind == SHOAL_COLL_REDUCE_SCATTER ? (size_t)g->self * coll->n + i : i;
    for (int m = 0; m < g->size; m++) {
        sum += exact_value(m, at);
    }
    return sum;
}

typedef struct {
    shoal_coll_t coll;
    void        *send, *recv;
    size_t       send_nbytes, recv_nbytes;
} operation_t;

static operation_t operation_start(group_t *g, shoal_coll_kind_t kind, shoal_dtype_t dtype, size_t n, bool in_place)
{
    operation_t op = {.coll = {.kind = kind, .dtype = dtype, .n = n}};
    size_t      e  = shoal_dtype_nbytes(dtype);
    op.send_nbytes = send_elements(&op.coll, g->size) * e;
    op.recv_nbytes = recv_elements(&op.coll, g->size) * e;
    op.send        = guarded_alloc(op.send_nbytes);
    op.recv        = guarded_alloc(op.recv_nbytes);
    void *source   = op.send;
    if (kind == SHOAL_COLL_ALL_REDUCE) {
        source = op.recv;
    } else if (kind == SHOAL_COLL_ALL_GATHER && in_place) {
        source = (char *)op.recv + (size_t)g->self * n * e;
    }
    for (size_t i = 0; i < send_elements(&op.coll, g->size); i++) {
        shoal_element_put(dtype, source, i, exact_value(g->self, i));
    }
    op.coll.send = source;
    op.coll.recv = op.recv;
    CHECK(g->world->transport->ops->start(g->comm, &op.coll) == SHOAL_OK);
    return op;
}

static void operation_check(const group_t *g, operation_t *op)
{
    CHECK(finish(g->world, g->comm) == SHOAL_OK);
    CHECK(g->world->transport->ops->waits_for(g->comm) == -1);
    for (size_t i = 0; i < recv_elements(&op->coll, g->size); i++) {
        CHECK(shoal_element_get(op->coll.dtype, op->recv, i) == expected_value(&op->coll, g, i));
    }
    for (size_t i = 0; op->coll.kind == SHOAL_COLL_REDUCE_SCATTER && i < send_elements(&op->coll, g->size); i++) {
        CHECK(shoal_element_get(op->coll.dtype, op->send, i) == exact_value(g->self, i));
    }
    guarded_free(op->send, op->send_nbytes);
    guarded_free(op->recv, op->recv_nbytes);
}

static const size_t sizes[] = {0, 1, 2, 7, 1023, 4096, 65537, 300001};
enum { NSIZES = sizeof(sizes) / sizeof(sizes[0]), MAX_N = 300001 };

static void check_all_collectives(group_t *g)
{
    for (size_t s = 0; s < NSIZES; s++) {
        for (int kind = 0; kind <= SHOAL_COLL_ALL_REDUCE; kind++) {
            /* The largest is there for the chunks of messages; it need not be everywhere. */
            int nvariants = sizes[s] < MAX_N ? 4 : g->size <= 5 ? 2 : 0;
            for (int variant = 0; variant < nvariants; variant++) {
                operation_t op = operation_start(g, (shoal_coll_kind_t)kind, (shoal_dtype_t)(variant & 1), sizes[s], variant >= 2);
                operation_check(g, &op);
            }
        }
    }
}

/* ---- What the ranks run ---- */

static int rank_exact(void *argument)
{
    (void)argument;
    world_t w = world_open();
    group_t g = group_of_all(&w, 0, MAX_N);
    check_all_collectives(&g);
    group_destroy(&g);
    world_close(&w);
    return 0;
}

/* Rows and columns of a grid two wide, in turn, with tags used again after their groups are gone. */
static int rank_subgroups(void *argument)
{
    (void)argument;
    world_t w = world_open();
    for (int round = 0; round < 3; round++) {
        int row[2] = {w.rank / 2 * 2, w.rank / 2 * 2 + 1};
        int column[32], ncolumn = 0;
        for (int r = w.rank % 2; r < w.size; r += 2) {
            column[ncolumn++] = r;
        }
        group_t a = group_create(&w, row, 2, round % 2, 5000);
        group_t b = group_create(&w, column, ncolumn, 2, 5000);
        for (size_t n = 1; n <= 5000; n = n * 3 + 1) {
            operation_t x = operation_start(&a, SHOAL_COLL_REDUCE_SCATTER, SHOAL_F32, n, false);
            operation_t y = operation_start(&b, SHOAL_COLL_ALL_GATHER, SHOAL_BF16, n, true);
            operation_check(&a, &x);
            operation_check(&b, &y);
        }
        group_destroy(&b);
        group_destroy(&a);
    }
    world_close(&w);
    return 0;
}

/* Two comms over the same ranks run at once; the ranks finish them in different orders. */
static int rank_concurrent(void *argument)
{
    (void)argument;
    world_t w = world_open();
    group_t a = group_of_all(&w, 1, MAX_N);
    group_t b = group_of_all(&w, 255, MAX_N);
    for (int i = 0; i < 20; i++) {
        operation_t x = operation_start(&a, SHOAL_COLL_ALL_GATHER, SHOAL_BF16, 200000, false);
        operation_t y = operation_start(&b, SHOAL_COLL_REDUCE_SCATTER, SHOAL_F32, (size_t)(i * 1777), false);
        operation_check((w.rank + i) % 2 == 0 ? &a : &b, (w.rank + i) % 2 == 0 ? &x : &y);
        operation_check((w.rank + i) % 2 == 0 ? &b : &a, (w.rank + i) % 2 == 0 ? &y : &x);
    }
    group_destroy(&a);
    group_destroy(&b);
    world_close(&w);
    return 0;
}

static float inexact_value(int member, size_t i)
{
    return 1.0f / (float)(1 + (size_t)member * 37 + i % 1001) * ((i + (size_t)member) % 2 == 0 ? 1.0f : -1.0f);
}

/* all_reduce of values whose sum depends on the order: result_p (n). */
static void inexact_all_reduce(group_t *g, shoal_dtype_t dtype, size_t n, void *result_p)
{
    shoal_coll_t coll = {.kind = SHOAL_COLL_ALL_REDUCE, .dtype = dtype, .n = n, .recv = result_p};
    for (size_t i = 0; i < n; i++) {
        shoal_element_put(dtype, result_p, i, inexact_value(g->self, i));
    }
    CHECK(g->world->transport->ops->start(g->comm, &coll) == SHOAL_OK);
    CHECK(finish(g->world, g->comm) == SHOAL_OK);
}

static int rank_determinism(void *argument)
{
    (void)argument;
    static const size_t counts[] = {3, 1000, 50001};
    world_t             w        = world_open();
    group_t             g        = group_of_all(&w, 9, 50001);
    for (int variant = 0; variant < 6; variant++) {
        shoal_dtype_t dtype  = variant % 2 == 0 ? SHOAL_F32 : SHOAL_BF16;
        size_t        n      = counts[variant / 2], nbytes = n * shoal_dtype_nbytes(dtype);
        char         *first  = malloc(nbytes), *second = malloc(nbytes), *all = malloc(nbytes * (size_t)w.size);
        CHECK(first != NULL && second != NULL && all != NULL);
        inexact_all_reduce(&g, dtype, n, first);
        inexact_all_reduce(&g, dtype, n, second);
        CHECK(memcmp(first, second, nbytes) == 0);
        shoal_peers_t peers = shoal_bootstrap_peers(w.bootstrap);
        CHECK(peers.exchange(peers.context, first, nbytes, all) == SHOAL_OK);
        for (int r = 0; r < w.size; r++) {
            CHECK(memcmp(first, all + (size_t)r * nbytes, nbytes) == 0);
        }
        free(first);
        free(second);
        free(all);
    }
    group_destroy(&g);
    world_close(&w);
    return 0;
}

static void *wake_soon(void *transport)
{
    usleep(20000);
    ((shoal_transport_t *)transport)->ops->wake(transport);
    return NULL;
}

/* Without the wake the wait would end the test by its time limit. A wake before the wait counts as well. */
static int rank_wake(void *argument)
{
    (void)argument;
    world_t   w = world_open();
    pthread_t thread;
    for (int i = 0; i < 5; i++) {
        int64_t start_ns = shoal_time_ns();
        CHECK(pthread_create(&thread, NULL, wake_soon, w.transport) == 0);
        do {
            CHECK(w.transport->ops->wait(w.transport, -1) == SHOAL_OK);
        } while (shoal_ms_since(start_ns) < 20);
        pthread_join(thread, NULL);
        w.transport->ops->wake(w.transport);
        CHECK(w.transport->ops->wait(w.transport, -1) == SHOAL_OK);
    }
    world_close(&w);
    return 0;
}

/* The middle rank dies while everyone sums; the others must notice and leave with the code for a lost peer. */
static int rank_loses_one(void *argument)
{
    int     victim = *(const int *)argument;
    world_t w      = world_open();
    group_t g      = group_of_all(&w, 3, MAX_N);
    float  *values = calloc(MAX_N, sizeof(*values));
    CHECK(values != NULL);
    shoal_status_t status = SHOAL_OK;
    for (int i = 0; status == SHOAL_OK; i++) {
        if (w.rank == victim && i == 3) {
            raise(SIGKILL);
        }
        shoal_coll_t coll = {.kind = SHOAL_COLL_ALL_REDUCE, .n = MAX_N, .recv = values};
        status            = w.transport->ops->start(g.comm, &coll);
        status            = status == SHOAL_OK ? finish(&w, g.comm) : status;
    }
    CHECK(status == SHOAL_ERR_PEER);
    group_destroy(&g);
    world_close(&w);
    free(values);
    return shoal_status_exit_code(SHOAL_ERR_PEER);
}

/* ---- The tests ---- */

static void on_each_size(int (*rank_main)(void *), const int *counts, int ncounts)
{
    for (int i = 0; i < ncounts; i++) {
        assert_int_equal(shoal_bootstrap_launch_local(counts[i], rank_main, NULL), 0);
    }
}

static void test_exact(void **state)
{
    static const int counts[] = {1, 2, 3, 4, 5, 8};
    (void)state;
    on_each_size(rank_exact, counts, 6);
}

static void test_exact_large_group(void **state)
{
    static const int counts[] = {11};
    (void)state;
    on_each_size(rank_exact, counts, 1);
}

static void test_subgroups(void **state)
{
    static const int counts[] = {4, 6};
    (void)state;
    on_each_size(rank_subgroups, counts, 2);
}

static void test_concurrent(void **state)
{
    static const int counts[] = {2, 4};
    (void)state;
    on_each_size(rank_concurrent, counts, 2);
}

static void test_determinism(void **state)
{
    static const int counts[] = {2, 3, 5};
    (void)state;
    on_each_size(rank_determinism, counts, 3);
}

static void test_wake(void **state)
{
    static const int counts[] = {1, 2};
    (void)state;
    on_each_size(rank_wake, counts, 2);
}

static void test_lost_rank(void **state)
{
    int     victim   = 1;
    int64_t start_ns = shoal_time_ns();
    (void)state;
    assert_int_equal(shoal_bootstrap_launch_local(4, rank_loses_one, &victim), shoal_status_exit_code(SHOAL_ERR_PEER));
    assert_true(shoal_ms_since(start_ns) < PEER_LIMIT_MS); /* a bound against hanging, not a measurement */
}

static int set_direct(void **state)
{
    return setenv("SHOAL_UCX_DIRECT", *state, 1);
}

static int run_launched(void)
{
    transport_name = getenv("SHOAL_TEST_TRANSPORT") != NULL ? getenv("SHOAL_TEST_TRANSPORT") : "auto";
    int (*const mains[])(void *) = {rank_exact};
    int code = 0;
    for (size_t i = 0; code == 0 && i < sizeof(mains) / sizeof(mains[0]); i++) {
        code = mains[i](NULL);
    }
    return code;
}

int main(void)
{
    if (getenv("SHOAL_TEST_LAUNCHED") != NULL) {
        return run_launched();
    }
#define ON_BOTH(test) {#test " direct", test, set_direct, NULL, "1"}, {#test " by messages", test, set_direct, NULL, "0"}
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_exact),     ON_BOTH(test_exact_large_group), ON_BOTH(test_subgroups), ON_BOTH(test_concurrent),
        ON_BOTH(test_determinism), ON_BOTH(test_wake),            ON_BOTH(test_lost_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
