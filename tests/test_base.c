/* SPDX-License-Identifier: BSD-3-Clause */
/* bf16 rounding over all that fp32 has to offer, statuses and their exit codes, and log lines. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "tests/capture.h"

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* The bf16 nearest to f by comparing both neighbours, ties to the even one. f is finite. */
static shoal_bf16_t nearest(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    shoal_bf16_t below = (shoal_bf16_t)(bits >> 16), above = (shoal_bf16_t)(below + 1); /* towards zero, away from it */
    double       low   = fabs((double)f - (double)shoal_bf16_to_f32(below));
    /* The neighbour of the largest number counts as the next power of two, as everywhere in IEEE 754. */
    double far  = (above & 0x7fff) == 0x7f80 ? 0x1p128 : fabs((double)shoal_bf16_to_f32(above));
    double high = far - fabs((double)f);
    if (low == high) {
        return below & 1 ? above : below;
    }
    return low < high ? below : above;
}

/* Each bf16 with every interesting lower half: all exponents, both signs, ties and their neighbours. */
static void test_bf16_rounding(void **state)
{
    (void)state;
    static const uint32_t lower[] = {0, 1, 2, 0x1234, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0x8002, 0xabcd, 0xfffe, 0xffff};
    for (uint32_t upper = 0; upper < 0x10000; upper++) {
        for (size_t i = 0; i < sizeof(lower) / sizeof(lower[0]); i++) {
            float f = from_bits(upper << 16 | lower[i]);
            if (isnan(f)) {
                shoal_bf16_t rounded = shoal_f32_to_bf16(f);
                assert_true(isnan(shoal_bf16_to_f32(rounded)));
                assert_int_equal(rounded >> 15, upper >> 15);
            } else if (isinf(f)) {
                assert_int_equal(shoal_f32_to_bf16(f), upper);
            } else {
                assert_int_equal(shoal_f32_to_bf16(f), nearest(f));
            }
        }
    }
}

/* A stride through all 2^32 patterns that meets every exponent and no pattern in the bits below. */
static void test_bf16_strided(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits < (UINT64_C(1) << 32); bits += 2053) {
        float f = from_bits((uint32_t)bits);
        if (isfinite(f)) {
            assert_int_equal(shoal_f32_to_bf16(f), nearest(f));
        } else {
            assert_int_equal(isnan(f), isnan(shoal_bf16_to_f32(shoal_f32_to_bf16(f))));
        }
    }
}

static void test_bf16_exact(void **state)
{
    (void)state;
    for (uint32_t x = 0; x < 0x10000; x++) {
        float f = shoal_bf16_to_f32((shoal_bf16_t)x);
        if (!isnan(f)) {
            assert_int_equal(shoal_f32_to_bf16(f), x);
        }
    }
    assert_int_equal(shoal_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(shoal_f32_to_bf16(-2.0f), 0xc000);
    assert_int_equal(shoal_f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80); /* FLT_MAX rounds to infinity */
    assert_int_equal(shoal_f32_to_bf16(from_bits(0x7f800001)), 0x7fc0); /* a NaN whose bits are all below */
}

static void test_dtypes(void **state)
{
    (void)state;
    assert_int_equal(shoal_dtype_nbytes(SHOAL_F32), 4);
    assert_int_equal(shoal_dtype_nbytes(SHOAL_BF16), 2);
    assert_int_equal(shoal_dtype_nbytes(SHOAL_I32), 4);
    assert_string_equal(shoal_dtype_name(SHOAL_BF16), "bf16");
    assert_string_equal(shoal_dtype_name(SHOAL_DTYPE_COUNT), "?");
}

static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        shoal_status_t status;
        int            exit_code;
    } documented[] = {
        {SHOAL_OK, 0},         {SHOAL_ERR_CONFIG, 2},    {SHOAL_ERR_PLAN, 3},     {SHOAL_ERR_NO_MEMORY, 4}, {SHOAL_ERR_PEER, 5},
        {SHOAL_ERR_DATA, 6},   {SHOAL_ERR_STOPPED, 75},  {SHOAL_ERR_INVALID, 1},  {SHOAL_ERR_INTERNAL, 1},  {SHOAL_IN_PROGRESS, 0},
        {SHOAL_ERR_UNSUPPORTED, 1}, {(shoal_status_t)-99, 1},
    };
    for (size_t i = 0; i < sizeof(documented) / sizeof(documented[0]); i++) {
        assert_int_equal(shoal_status_exit_code(documented[i].status), documented[i].exit_code);
        assert_true(strlen(shoal_status_string(documented[i].status)) > 0);
    }
    assert_string_equal(shoal_status_string((shoal_status_t)-99), "unknown status");
}

static void log_all(void)
{
    shoal_error("one %d", 1);
    shoal_warn("two");
    shoal_info("three");
    shoal_trace("four");
}

static const char *logged(const char *level)
{
    setenv("SHOAL_LOG", level, 1);
    capture_begin();
    log_all();
    const char *text = capture_end();
    unsetenv("SHOAL_LOG");
    return text;
}

static void test_log(void **state)
{
    (void)state;
    assert_string_equal(logged("error"), "shoal: error: one 1\n");
    assert_string_equal(logged("trace"), "shoal: error: one 1\nshoal: warning: two\nshoal: three\nshoal: four\n");
    assert_string_equal(logged("nonsense"), "shoal: error: one 1\nshoal: warning: two\nshoal: three\n");
    shoal_log_set_rank(3, "n1");
    assert_string_equal(logged("nonsense"), "shoal: rank 3 on n1: error: one 1\nshoal: rank 3 on n1: warning: two\n");
    char line[8000];
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    capture_begin();
    shoal_error("%s", line); /* too long: cut, but still one line */
    const char *text = capture_end();
    assert_true(strlen(text) < 2049 && text[strlen(text) - 1] == '\n');
}

static void test_time(void **state)
{
    (void)state;
    int64_t start = shoal_time_ns();
    assert_true(shoal_time_ns() >= start && shoal_ms_since(start) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_rounding), cmocka_unit_test(test_bf16_strided), cmocka_unit_test(test_bf16_exact),
        cmocka_unit_test(test_dtypes),        cmocka_unit_test(test_statuses),     cmocka_unit_test(test_log),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
