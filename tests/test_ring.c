/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring arithmetic by simulation: all places of a ring of 1 to 33 exchange sets of blocks as ring.h says, and at the end
 * everyone must have what the collective promises, every term exactly once and in the promised order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "collectives/ring.h"

enum { MAX_SIZE = 33 };

/* What a place sends in a step is what its right neighbour receives. */
static void test_neighbours_agree(void **state)
{
    (void)state;
    for (int size = 2; size <= MAX_SIZE; size++) {
        for (int place = 0; place < size; place++) {
            for (int step = 0; step < size - 1; step++) {
                int right = (place + 1) % size;
                assert_int_equal(shoal_ring_gather_sends(size, place, step), shoal_ring_gather_receives(size, right, step));
                assert_int_equal(shoal_ring_reduce_sends(size, place, step), shoal_ring_reduce_receives(size, right, step));
            }
        }
    }
}

/* holds: bit b of place p, once block b is there. A place sends only what it has and receives only what it lacks. */
static void test_gather_completes(void **state)
{
    (void)state;
    for (int size = 1; size <= MAX_SIZE; size++) {
        uint64_t holds[MAX_SIZE], all = (1ull << size) - 1;
        for (int p = 0; p < size; p++) {
            holds[p] = 1ull << p;
        }
        for (int step = 0; step < size - 1; step++) {
            uint64_t before[MAX_SIZE];
            memcpy(before, holds, sizeof(before));
            for (int p = 0; p < size; p++) {
                uint64_t sent = 1ull << shoal_ring_gather_sends(size, p, step), got = 1ull << shoal_ring_gather_receives(size, p, step);
                assert_true((before[p] & sent) != 0);
                assert_true((before[p] & got) == 0);
                holds[p] |= got;
            }
        }
        for (int p = 0; p < size; p++) {
            assert_true(holds[p] == all);
        }
    }
}

/* The terms of a partial sum that travels, in the order of their addition. */
typedef struct {
    int nterms, terms[MAX_SIZE];
} partial_t;

static void test_reduce_adds_each_term_once_in_order(void **state)
{
    (void)state;
    for (int size = 2; size <= MAX_SIZE; size++) {
        partial_t carried[MAX_SIZE]; /* by the place that sends it next */
        for (int p = 0; p < size; p++) {
            carried[p] = (partial_t){.nterms = 1, .terms = {p}};
        }
        for (int step = 0; step < size - 1; step++) {
            partial_t arrived[MAX_SIZE];
            for (int p = 0; p < size; p++) {
                arrived[(p + 1) % size] = carried[p];
            }
            for (int p = 0; p < size; p++) {
                carried[p]                              = arrived[p];
                carried[p].terms[carried[p].nterms++]   = p;
                int slice                               = shoal_ring_reduce_receives(size, p, step);
                assert_int_equal(carried[p].terms[0], shoal_ring_reduce_term(size, slice, 0));
                if (step < size - 2) {
                    assert_int_equal(slice, shoal_ring_reduce_sends(size, p, step + 1));
                } else {
                    assert_int_equal(slice, p);
                }
            }
        }
        for (int p = 0; p < size; p++) {
            assert_int_equal(carried[p].nterms, size);
            for (int t = 0; t < size; t++) {
                assert_int_equal(carried[p].terms[t], shoal_ring_reduce_term(size, p, t));
            }
        }
    }
}

static void test_slices_tile(void **state)
{
    (void)state;
    for (int size = 1; size <= MAX_SIZE; size++) {
        for (size_t n = 0; n <= 200; n++) {
            size_t next = 0, longest = shoal_ring_slice(n, size, 0).count;
            for (int i = 0; i < size; i++) {
                shoal_range_t slice = shoal_ring_slice(n, size, i);
                assert_true(slice.first == next);
                assert_true(slice.count == longest || slice.count + 1 == longest);
                next += slice.count;
            }
            assert_true(next == n);
        }
    }
}

static void test_chunks_tile(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 100; n++) {
        for (size_t chunk = 1; chunk <= 33; chunk++) {
            size_t nchunks = shoal_ring_nchunks(n, chunk), next = 0;
            assert_true(nchunks >= 1);
            for (size_t i = 0; i < nchunks + 3; i++) {
                shoal_range_t range = shoal_ring_chunk(n, chunk, i);
                assert_true(range.first == next && range.count <= chunk);
                assert_true((range.count > 0) == (i < nchunks && n > 0));
                next += range.count;
            }
            assert_true(next == n);
        }
    }
}

/* The drawing of ring.h, row by row. */
static void test_drawing(void **state)
{
    static const int gather[3][4] = {{0, 1, 2, 3}, {3, 0, 1, 2}, {2, 3, 0, 1}};
    static const int reduce[3][4] = {{3, 0, 1, 2}, {2, 3, 0, 1}, {1, 2, 3, 0}};
    (void)state;
    for (int step = 0; step < 3; step++) {
        for (int place = 0; place < 4; place++) {
            assert_int_equal(shoal_ring_gather_sends(4, place, step), gather[step][place]);
            assert_int_equal(shoal_ring_reduce_sends(4, place, step), reduce[step][place]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_agree),
        cmocka_unit_test(test_gather_completes),
        cmocka_unit_test(test_reduce_adds_each_term_once_in_order),
        cmocka_unit_test(test_slices_tile),
        cmocka_unit_test(test_chunks_tile),
        cmocka_unit_test(test_drawing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
