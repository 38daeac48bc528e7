/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The judgements of a study as pure functions: how a row ended, from what Slurm, the local launcher and the ranks say
 * of it, and whether its losses agree with the reference; and when the progress of a run deserves a line.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "src/live.h"
#include "src/study/gate.h"
#include "src/study/verdict.h"
#include "tests/capture.h"

/* As wait(2) has them. */
#define EXITED(code) ((code) << 8)
#define KILLED(signal) (signal)

static const struct {
    shoal_evidence_t evidence;
    shoal_verdict_t  verdict;
    const char      *detail; /* part of it */
} ends[] = {
    {{.wait_status = EXITED(0), .summary_ok = true, .log = ""}, SHOAL_VERDICT_OK, ""},
    {{.wait_status = EXITED(0), .summary_ok = true, .asked = true, .log = ""}, SHOAL_VERDICT_OK, ""},
    {{.wait_status = EXITED(0), .log = ""}, SHOAL_VERDICT_CRASH, "no complete summary"},
    {{.wait_status = EXITED(75), .log = ""}, SHOAL_VERDICT_STOPPED, "stopped"},
    {{.wait_status = KILLED(SIGTERM), .asked = true, .log = ""}, SHOAL_VERDICT_STOPPED, "on request"},
    {{.wait_status = KILLED(SIGTERM), .timed_out = true, .log = ""}, SHOAL_VERDICT_HANG, "timeout_s"},
    {{.wait_status = EXITED(5), .log = "shoal: rank 5 on n3: error: waits for rank 6\n"},
     SHOAL_VERDICT_HANG, "rank 5 on n3: waits for rank 6"},

    /* srun reports the highest code, which is that of the ranks it killed; the cause is in its messages. */
    {{.wait_status = EXITED(137),
      .log = "shoal: rank 3 on n2: error: cannot allocate 12 GiB\n"
             "srun: error: n2: task 3: Exited with exit code 4\nsrun: error: n1: tasks 0-2: Killed\n"},
     SHOAL_VERDICT_NO_MEMORY, "cannot allocate 12 GiB"},
    /* The neighbours of the rank that failed report it lost: 5 is no cause while there is another. */
    {{.wait_status = EXITED(5),
      .log = "srun: error: n1: task 0: Exited with exit code 5\nsrun: error: n2: task 1: Exited with exit code 3\n"},
     SHOAL_VERDICT_REFUSED, "does not fit"},
    {{.wait_status = EXITED(139),
      .log = "shoal: rank 0 on n1: error: lost rank 1\nsrun: error: n1: tasks 0,2: Exited with exit code 5\n"
             "srun: error: n2: task 1: Segmentation fault (core dumped)\n"},
     SHOAL_VERDICT_CRASH, "n2: task 1: Segmentation fault"},
    {{.wait_status = EXITED(137),
      .log = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been killed\n"
             "srun: error: n1: task 0: Out Of Memory\n"},
     SHOAL_VERDICT_NO_MEMORY, "kernel"},
    {{.wait_status = EXITED(137), .log = "srun: error: n1: task 0: Killed\n"}, SHOAL_VERDICT_CRASH, "nothing says by whom"},
    {{.wait_status = EXITED(5), .summary_code = 2, .log = ""}, SHOAL_VERDICT_BAD_CONFIG, "configuration"},
    {{.wait_status = EXITED(1), .diverged = true, .summary_code = 1, .log = "shoal: error: rank 1 failed with exit code 1\n"},
     SHOAL_VERDICT_DIVERGED, "exit code 1"},
    {{.wait_status = EXITED(1), .diverged = true, .summary_code = 1, .log = ""}, SHOAL_VERDICT_DIVERGED, "training diverged"},
    {{.wait_status = EXITED(1), .log = "srun: error: Unable to create step\n"}, SHOAL_VERDICT_CRASH, "exit code 1"},

    /* The local launcher: a rank's death by signal makes it return 5. */
    {{.wait_status = EXITED(5), .log = "shoal: error: rank 1 was killed by signal 11 (Segmentation fault)\n"},
     SHOAL_VERDICT_CRASH, "rank 1"},
    {{.wait_status = EXITED(5), .log = "shoal: error: rank 1 was killed by signal 9 (Killed)\n"}, SHOAL_VERDICT_CRASH, "signal 9"},
    {{.wait_status = EXITED(5), .oom_kill = true, .log = "shoal: error: rank 1 was killed by signal 9 (Killed)\n"},
     SHOAL_VERDICT_NO_MEMORY, "rank 1"},
    /* Somebody else's process was killed for memory: not this row's end. */
    {{.wait_status = EXITED(9), .oom_kill = true, .log = ""}, SHOAL_VERDICT_CRASH, "exit code 9"},
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        char            detail[512];
        shoal_verdict_t verdict = shoal_verdict_judge(&ends[i].evidence, sizeof(detail), detail);
        if (verdict != ends[i].verdict) {
            fail_msg("end %zu is '%s' (%s) instead of '%s'", i, shoal_verdict_name(verdict), detail,
                     shoal_verdict_name(ends[i].verdict));
        }
        assert_contains(detail, ends[i].detail);
    }
}

static void test_verdict_names(void **state)
{
    (void)state;
    for (int v = 0; v < SHOAL_VERDICT_COUNT; v++) {
        assert_int_equal(shoal_verdict_from_name(shoal_verdict_name((shoal_verdict_t)v)), v);
    }
    assert_int_equal(shoal_verdict_from_name("?"), SHOAL_VERDICT_PENDING);
    assert_int_equal(shoal_verdict_from_name(NULL), SHOAL_VERDICT_PENDING);
}

static void test_gate(void **state)
{
    (void)state;
    const double reference[] = {8, 4, 2}, near[] = {8, 4.04, 2}, nan_at_2[] = {8, NAN, 2}, unknown[] = {8, 4, NAN};
    double       difference;
    size_t       step;
    assert_true(shoal_gate_compare(reference, 3, reference, 3, 0, &difference, &step));
    assert_true(difference == 0 && step == 0);
    assert_true(shoal_gate_compare(near, 3, reference, 3, 0.011, &difference, &step));
    assert_true(fabs(difference - 0.01) < 1e-12 && step == 2);
    assert_false(shoal_gate_compare(near, 3, reference, 3, 0.009, &difference, &step));
    assert_false(shoal_gate_compare(nan_at_2, 3, reference, 3, 1, &difference, &step));
    assert_true(isnan(difference) && step == 2);
    assert_false(shoal_gate_compare(reference, 2, reference, 3, 1, &difference, &step)); /* a loss is missing */
    assert_int_equal(step, 3);
    assert_false(shoal_gate_compare(reference, 3, unknown, 3, 1, &difference, &step));
    assert_false(shoal_gate_compare(unknown, 3, unknown, 3, 1, &difference, &step)); /* NaN equals nothing, itself included */
}

static void test_plain_lines(void **state)
{
    (void)state;
    size_t due = 0;
    for (size_t step = 1; step <= 1000; step++) {
        due += shoal_live_is_due(step, 1000, 0);
    }
    assert_int_equal(due, 4 + 3 + 10); /* 1 2 3 5, 10 20 50, and each tenth */
    assert_true(shoal_live_is_due(7, 7, 0));
    assert_false(shoal_live_is_due(777, 1000000, 299));
    assert_true(shoal_live_is_due(777, 1000000, 300));
}

static void test_live_line(void **state)
{
    (void)state;
    char              line[256];
    shoal_live_step_t step = {.step = 10, .steps = 100, .loss = 3.25, .tokens_per_s = 1234.4,
                              .mfu = 0.415, .exposed_fraction = 0.031};
    shoal_live_format(&step, 1000, sizeof(line), line);
    assert_string_equal(line, "step 10/100  loss 3.2500  1234 tokens/s  MFU 41.5%  exposed comm 3.1%  1m 30s left");
    step.mfu = step.exposed_fraction = NAN;
    step.step                        = 100;
    shoal_live_format(&step, 1000, sizeof(line), line);
    assert_string_equal(line, "step 100/100  loss 3.2500  1234 tokens/s");
    shoal_live_format(&step, 1000, 12, line); /* never past the end */
    assert_string_equal(line, "step 100/10");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_verdict_names), cmocka_unit_test(test_gate),
        cmocka_unit_test(test_plain_lines), cmocka_unit_test(test_live_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
