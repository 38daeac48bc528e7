/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The numbers of a report, worked out by hand for the study in fixtures-report/: 1000, 1960 and 3800 tokens/s on 1, 2
 * and 4 ranks of a model of 1e9 parameters; on 4 ranks a step of 200 ms with 48 ms of communication, 12 ms of it
 * exposed, and rank 2 on n3 slower by 10 ms; one row with a wrong loss that claims 9999 tokens/s, and one that ran out
 * of memory.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "src/report/data.h"
#include "src/report/text.h"
#include "tests/capture.h"

static char fixture[4096];

static int find_fixture(void **state)
{
    (void)state;
    const char *source = getenv("SHOAL_SRCDIR");
    snprintf(fixture, sizeof(fixture), "%s/tests/fixtures-report/study", source == NULL ? "." : source);
    return 0;
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-9 * fabs(expected))) {
        fail_msg("%.12g instead of %.12g", value, expected);
    }
}

static void test_study(void **state)
{
    (void)state;
    shoal_report_t report;
    assert_int_equal(shoal_report_load(fixture, &report), SHOAL_OK);
    assert_int_equal(report.nrows, 5);
    assert_true(report.many_shards && !report.many_locals && !report.many_seeds && !report.local);
    assert_int_equal(shoal_report_count_sizes(&report), 3);

    const shoal_report_row_t *largest = shoal_report_largest(&report);
    assert_string_equal(largest->name, "n4r1-full-b8-s1");
    assert_string_equal(largest->label, "4 ranks across 4 nodes, full");
    assert_string_equal(largest->gate, "3.0e-07");
    assert_near(largest->tokens_per_s_linear, 4000);
    assert_near(largest->efficiency, 0.95);
    assert_near(largest->exposed_ms / largest->step_ms, 0.06);
    assert_near(largest->exposed_ms / largest->comm_ms, 0.25);
    assert_near(shoal_report_rank_mean(largest->summary, "exposed_gather_ms"), 9);

    shoal_report_slowest_t slowest = shoal_report_slowest(largest->summary);
    assert_int_equal(slowest.rank, 2);
    assert_string_equal(slowest.host, "n3");
    assert_near(slowest.work_ms, 188);   /* 200 - 12 exposed - 12 other, and the 10 and 2 of data */
    assert_near(slowest.median_ms, 178);
    shoal_report_free(&report);
}

static void test_failed_rows_have_no_speed(void **state)
{
    (void)state;
    shoal_report_t report;
    assert_int_equal(shoal_report_load(fixture, &report), SHOAL_OK);
    size_t failed = 0;
    for (size_t i = 0; i < report.nrows; i++) {
        const shoal_report_row_t *row = &report.rows[i];
        if (!row->ok) {
            assert_true(isnan(row->tokens_per_s) && isnan(row->efficiency) && isnan(row->step_ms));
            failed++;
        }
    }
    assert_int_equal(failed, 2);
    shoal_report_free(&report);
}

static void test_single_run(void **state)
{
    (void)state;
    char           path[4200];
    shoal_report_t report;
    snprintf(path, sizeof(path), "%s/rows/n2r1-full-b8-s1", fixture);
    assert_int_equal(shoal_report_load(path, &report), SHOAL_OK);
    assert_int_equal(report.nrows, 1);
    assert_string_equal(report.rows[0].label, "2 ranks across 2 nodes");
    assert_near(report.rows[0].tokens_per_s, 1960);
    assert_true(isnan(report.rows[0].efficiency)); /* against what? */
    shoal_report_free(&report);
}

static void test_nothing_there(void **state)
{
    (void)state;
    shoal_report_t report;
    capture_begin();
    shoal_status_t status = shoal_report_load("/nonexistent", &report);
    const char    *error  = capture_end();
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_contains(error, "/nonexistent holds neither");
    shoal_report_free(&report);
}

static void test_missing_fields(void **state)
{
    (void)state;
    json_t *summary = json_loads("{\"a\": {\"b\": 2, \"c\": null, \"d\": \"x\"},"
                                 " \"per_rank\": [{\"rank\": 0}, {\"rank\": 1}]}", 0, NULL);
    assert_true(shoal_json_number(summary, "a.b") == 2);
    assert_true(isnan(shoal_json_number(summary, "a.c")) && isnan(shoal_json_number(summary, "a.d")));
    assert_true(isnan(shoal_json_number(summary, "a.b.c")) && isnan(shoal_json_number(NULL, "a")));
    assert_int_equal(shoal_report_slowest(summary).rank, -1);
    assert_true(isnan(shoal_report_rank_mean(summary, "compute_ms")));
    json_decref(summary);
}

static void test_text(void **state)
{
    (void)state;
    assert_string_equal(shoal_text_count(1081344000).s, "1,081,344,000");
    assert_string_equal(shoal_text_count(999).s, "999");
    assert_string_equal(shoal_text_count(-1234).s, "-1,234");
    assert_string_equal(shoal_text_count(NAN).s, "–");
    assert_string_equal(shoal_text_fixed(991.376, 2).s, "991.38");
    assert_string_equal(shoal_text_percent(0.981).s, "98.1 %");
    assert_string_equal(shoal_text_bytes(37e9).s, "34.46 GiB");
    assert_string_equal(shoal_text_bytes(512).s, "512 B");
    assert_string_equal(shoal_text_large(1.95e9).s, "1.95 B");
    assert_string_equal(shoal_text_flops(989.4e12).s, "989.4 TFLOP/s");
    assert_string_equal(shoal_text_days(33.94).s, "33.9");
    assert_string_equal(shoal_text_days(INFINITY).s, "–");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_study),         cmocka_unit_test(test_failed_rows_have_no_speed), cmocka_unit_test(test_single_run),
        cmocka_unit_test(test_nothing_there), cmocka_unit_test(test_missing_fields),            cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, find_fixture, NULL);
}
