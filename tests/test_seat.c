/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which rank gets which GPU and which cores: two ranks on one GPU are refused on all ranks, with one message; cores near a GPU are found
 * on a recorded machine with two sockets of four cores, whose first two GPUs hang on the second socket.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the five above */
#include <cmocka.h>

#include "kernels/device.h"
#include "runtime/bootstrap/affinity.h"
#include "runtime/bootstrap/near.h"
#include "runtime/bootstrap/seat.h"
#include "tests/capture.h"

enum { MAX_GPUS = 4 };

static char machine[1200];

/* ---- cores ---- */

#define FIRST  "0000:1B:00.0"
#define SECOND "0000:4d:00.0"
#define THIRD  "0000:9d:00.0"
#define FOURTH "0000:bd:00.0"

static const struct {
    const char *ids[MAX_GPUS]; /* of the local ranks */
    const char *allowed;       /* processors */
    const char *parts[MAX_GPUS]; /* what each rank shall get; none: nobody moves */
} layouts[] = {
    {{FIRST, SECOND, THIRD, FOURTH}, "0-7", {"4-5", "6-7", "0-1", "2-3"}},
    {{FOURTH, FIRST}, "0-7", {"0-3", "4-7"}},
    {{THIRD}, "0-7", {"0-3"}},
    {{FIRST, SECOND, THIRD, FOURTH}, "0-2,4-7", {"4-5", "6-7", "0", "1-2"}},
    {{THIRD, THIRD}, "0-7", {"0-1", "2-3"}},             /* a GPU shared on purpose */
    {{FIRST, SECOND, THIRD, FOURTH}, "0-4", {NULL}},     /* one core near two GPUs */
    {{THIRD, FIRST}, "0-3", {NULL}},                     /* no core near the first GPU */
    {{FIRST, "0000:ff:00.0"}, "0-7", {NULL}},
    {{"emulated"}, "0-7", {NULL}},
};

static void check_layout(hwloc_topology_t topology, size_t i)
{
    char           text[64];
    int            n       = 0;
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc(), part = hwloc_bitmap_alloc();
    hwloc_bitmap_list_sscanf(allowed, layouts[i].allowed);
    while (n < MAX_GPUS && layouts[i].ids[n] != NULL) {
        n++;
    }
    for (int mine = 0; mine < n; mine++) {
        bool found = shoal_near_cores(topology, allowed, layouts[i].ids, n, mine, part);
        hwloc_bitmap_list_snprintf(text, sizeof(text), part);
        assert_int_equal(found, layouts[i].parts[mine] != NULL);
        if (found) {
            assert_string_equal(text, layouts[i].parts[mine]);
        }
    }
    hwloc_bitmap_free(allowed);
    hwloc_bitmap_free(part);
}

static void test_near_cores(void **state)
{
    (void)state;
    hwloc_topology_t topology;
    hwloc_topology_init(&topology);
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    assert_int_equal(hwloc_topology_set_xml(topology, machine), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        check_layout(topology, i);
    }
    hwloc_topology_destroy(topology);
}

/* hwloc takes the recorded machine for this one, and binding for done. */
static void test_move(void **state)
{
    (void)state;
    static const char *const ids[] = {FIRST, SECOND, THIRD, FOURTH}, *const unknown[] = {FIRST, "", THIRD, FOURTH};
    shoal_affinity_t         affinity;
    setenv("HWLOC_XMLFILE", machine, 1);
    assert_int_equal(shoal_affinity_settle(2, 4, 3, &affinity), SHOAL_OK);
    assert_string_equal(affinity.text, "3 threads per rank (run.threads), bound to cores of its own");
    assert_int_equal(shoal_affinity_move_near(unknown, 2, 4, &affinity), SHOAL_OK);
    assert_string_equal(affinity.text, "3 threads per rank (run.threads), bound to cores of its own");
    assert_int_equal(shoal_affinity_move_near(ids, 2, 4, &affinity), SHOAL_OK);
    assert_string_equal(affinity.text, "3 threads per rank (run.threads), bound to 2 cores near its GPU");
    affinity = (shoal_affinity_t){.nthreads = 1, .why = "run.threads", .text = "bound by the launcher"};
    assert_int_equal(shoal_affinity_move_near(ids, 2, 4, &affinity), SHOAL_OK);
    assert_string_equal(affinity.text, "bound by the launcher");
    unsetenv("HWLOC_XMLFILE");
}

/* ---- threads ---- */

/* What a rank gets of an environment, and whether that is worth a warning, which the host's first
 * rank gives. */
static void test_threads_of_the_environment(void **state)
{
    static const struct {
        const char *omp, *slurm, *limit;
        int         asked, nthreads;
        const char *why, *warning; /* NULL: none */
    } cases[] = {
        {"3", "5", NULL, 0, 3, "OMP_NUM_THREADS", NULL},
        {NULL, "5", NULL, 0, 5, "SLURM_CPUS_PER_TASK", NULL},
        {" 4 ,2", NULL, NULL, 0, 4, "OMP_NUM_THREADS", NULL},
        {"99999", NULL, NULL, 0, SHOAL_MAX_THREADS, "OMP_NUM_THREADS",
         "OMP_NUM_THREADS=99999 asks for more"},
        {NULL, "100000", NULL, 0, SHOAL_MAX_THREADS, "SLURM_CPUS_PER_TASK",
         "SLURM_CPUS_PER_TASK=100000 asks for more"},
        {"99999999999999999999", NULL, NULL, 0, SHOAL_MAX_THREADS, "OMP_NUM_THREADS",
         "asks for more"},
        {"0", "6", NULL, 0, 6, "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS=0 is no number"},
        {"-3", "6", NULL, 0, 6, "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS=-3 is no number"},
        {"abc", "6", NULL, 0, 6, "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS=abc is no number"},
        {"2x", "6", NULL, 0, 6, "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS=2x is no number"},
        {"", "6", NULL, 0, 6, "SLURM_CPUS_PER_TASK", NULL},
        {"8", NULL, "3", 0, 3, "OMP_THREAD_LIMIT", NULL},
        {"8", NULL, "8", 0, 8, "OMP_NUM_THREADS", NULL},
        {"8", NULL, "3", 5, 3, "OMP_THREAD_LIMIT", NULL},
        {"99999", NULL, NULL, 5, 5, "run.threads", NULL},
        {NULL, NULL, NULL, 5, 5, "run.threads", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *const names[] = {"OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK", "OMP_THREAD_LIMIT"};
        const char *const values[] = {cases[i].omp, cases[i].slurm, cases[i].limit};
        for (int v = 0; v < 3; v++) {
            if (values[v] != NULL ? setenv(names[v], values[v], 1) != 0 : unsetenv(names[v]) != 0) {
                fail();
            }
        }
        for (int local_rank = 0; local_rank < 2; local_rank++) {
            shoal_affinity_t affinity;
            capture_begin();
            shoal_status_t status = shoal_affinity_settle(
                local_rank, 1000, cases[i].asked, &affinity); /* so many that none is bound */
            const char    *said   = capture_end();
            assert_int_equal(status, SHOAL_OK);
            assert_int_equal(affinity.nthreads, cases[i].nthreads);
            assert_string_equal(affinity.why, cases[i].why);
            if (cases[i].warning == NULL || local_rank > 0) {
                assert_string_equal(said, "");
            } else {
                assert_contains(said, cases[i].warning);
            }
        }
    }
}

/* ---- GPUs ---- */

static const char hosts[][64] = {"n1", "n1", "n2", "n2"};

static void test_sharers(void **state)
{
    (void)state;
    shoal_seat_t seats[] = {{0, true, "a", FIRST}, {0, true, "b", SECOND}, {1, true, "c", FIRST}, {1, true, "d", SECOND}};
    assert_int_equal(shoal_seat_check(seats, 4, hosts, true), SHOAL_OK);
    assert_int_equal(shoal_seat_sharers(seats, 4, 3), 1);
    seats[3] = seats[2];
    capture_begin();
    shoal_status_t status = shoal_seat_check(seats, 4, hosts, true), silent = shoal_seat_check(seats, 4, hosts, false);
    const char    *text = capture_end();
    assert_int_equal(status, SHOAL_ERR_CONFIG);
    assert_int_equal(silent, SHOAL_ERR_CONFIG);
    assert_contains(text, "ranks 2 and 3 of n2 both got the GPU at " FIRST " (c)");
    assert_contains(text, "SHOAL_SHARE_GPU=1");
    assert_null(strchr(strchr(text, '\n') + 1, '\n'));
    seats[2].exclusive = false;
    assert_int_equal(shoal_seat_check(seats, 4, hosts, false), SHOAL_ERR_CONFIG); /* one of them was not asked to share */
    seats[3].exclusive = false;
    assert_int_equal(shoal_seat_check(seats, 4, hosts, false), SHOAL_OK);
    assert_int_equal(shoal_seat_sharers(seats, 4, 3), 2);
}

/* Two parts of one GPU stand in one place, and are two devices with memory of their own. */
static void test_parts(void **state)
{
    (void)state;
    shoal_seat_t seats[] = {{0, true, "a", FIRST}, {0, true, "b", FIRST}};
    assert_int_equal(shoal_seat_check(seats, 2, hosts, true), SHOAL_OK);
    assert_int_equal(shoal_seat_sharers(seats, 2, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near_cores),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_threads_of_the_environment),
        cmocka_unit_test(test_sharers),
        cmocka_unit_test(test_parts),
    };
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(machine, sizeof(machine), "%s/tests/fixtures/two-sockets-four-gpus.xml", source != NULL ? source : ".");
    return cmocka_run_group_tests_name("seat", tests, NULL, NULL);
}
