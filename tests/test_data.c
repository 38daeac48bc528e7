/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token files: both formats give the same samples, each epoch shows each window once, and a file that is damaged, short, odd, empty, of a
 * larger vocabulary or cut off while in use is an error that names the file and the offset.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <endian.h>
#include <jansson.h>

#include "runtime/execute/data.h"
#include "tests/capture.h"

static char first_directory[2048]; /* where the test was started: the top of the tree, without SHOAL_SRCDIR */

enum { NTOKENS = 1001, SEQ = 10, NWINDOWS = 100 };

/* Token i is 3 i mod 1000; written raw, or behind a header that promises `promised` tokens. */
static void write_tokens(const char *path, bool header, uint32_t version, uint32_t promised, size_t ntokens)
{
    uint8_t  bytes[1024 + 2 * NTOKENS] = {0};
    uint32_t head[3]                   = {20240520, version, promised};
    uint8_t *at                        = bytes;
    if (header) {
        for (size_t i = 0; i < 12; i++) {
            bytes[i] = (uint8_t)(head[i / 4] >> (8 * (i % 4)));
        }
        at += 1024;
    }
    for (size_t i = 0; i < ntokens; i++, at += 2) {
        at[0] = (uint8_t)(3 * i % 1000);
        at[1] = (uint8_t)(3 * i % 1000 >> 8);
    }
    write_file(path, bytes, (size_t)(at - bytes));
}

static shoal_data_t *open_ok(const char *path, shoal_order_t order, uint64_t seed)
{
    shoal_data_t *data = NULL;
    assert_int_equal(shoal_data_open(path, SEQ, 1000, order, seed, &data), SHOAL_OK);
    return data;
}

/* Which window sample g is, after checking each of its tokens. */
static uint64_t window_of(const shoal_data_t *data, uint64_t g)
{
    int32_t inputs[SEQ + 1], targets[SEQ + 1];
    inputs[SEQ] = targets[SEQ] = -7;
    assert_int_equal(shoal_data_sample(data, g, inputs, targets), SHOAL_OK);
    assert_int_equal(inputs[SEQ], -7);
    assert_int_equal(targets[SEQ], -7);
    for (uint64_t window = 0; window < NWINDOWS; window++) { /* 30 and 1000 repeat after 100 windows: no two are alike */
        if (inputs[0] == (int32_t)(3 * window * SEQ % 1000)) {
            for (size_t i = 0; i < SEQ; i++) {
                assert_int_equal(inputs[i], 3 * (window * SEQ + i) % 1000);
                assert_int_equal(targets[i], 3 * (window * SEQ + i + 1) % 1000);
            }
            return window;
        }
    }
    fail_msg("sample %ju begins with token %d, which begins no window", (uintmax_t)g, inputs[0]);
    return 0;
}

static void test_sequential(void **state)
{
    (void)state;
    write_tokens("raw.bin", false, 0, 0, NTOKENS);
    write_tokens("llmc.bin", true, 1, NTOKENS, NTOKENS);
    shoal_data_t *raw = open_ok("raw.bin", SHOAL_ORDER_SEQUENTIAL, 1), *llmc = open_ok("llmc.bin", SHOAL_ORDER_SEQUENTIAL, 2);
    assert_int_equal(shoal_data_ntokens(raw), NTOKENS);
    assert_int_equal(shoal_data_ntokens(llmc), NTOKENS);
    assert_int_equal(shoal_data_nwindows(raw), NWINDOWS);
    for (uint64_t g = 0; g < 2 * NWINDOWS + 3; g++) {
        assert_int_equal(window_of(raw, g), g % NWINDOWS);
        assert_int_equal(window_of(llmc, g), g % NWINDOWS);
    }
    shoal_data_close(raw);
    shoal_data_close(llmc);
}

static void test_shuffle(void **state)
{
    (void)state;
    uint64_t first_order[NWINDOWS];
    write_tokens("raw.bin", false, 0, 0, NTOKENS);
    shoal_data_t *data = open_ok("raw.bin", SHOAL_ORDER_SHUFFLE, 1), *other = open_ok("raw.bin", SHOAL_ORDER_SHUFFLE, 2);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        bool   seen[NWINDOWS] = {false};
        size_t moved = 0, differs = 0, other_differs = 0;
        for (uint64_t i = 0; i < NWINDOWS; i++) {
            uint64_t window = window_of(data, epoch * NWINDOWS + i);
            assert_false(seen[window]);
            seen[window] = true;
            moved += window != i;
            differs += epoch > 0 && window != first_order[i];
            other_differs += window != window_of(other, epoch * NWINDOWS + i);
            first_order[i] = epoch == 0 ? window : first_order[i];
        }
        assert_true(moved > NWINDOWS / 2 && other_differs > NWINDOWS / 2);
        assert_true(epoch == 0 || differs > NWINDOWS / 2);
    }
    shoal_data_close(data);
    shoal_data_close(other);
}

/* W = floor((ntokens - 1) / T): a window needs one token more than its length. */
static void test_windows(void **state)
{
    (void)state;
    static const size_t expected[][2] = {{11, 1}, {20, 1}, {21, 2}, {30, 2}, {31, 3}, {1001, 100}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        write_tokens("raw.bin", false, 0, 0, expected[i][0]);
        shoal_data_t *data = open_ok("raw.bin", SHOAL_ORDER_SEQUENTIAL, 0);
        assert_int_equal(shoal_data_nwindows(data), expected[i][1]);
        window_of(data, expected[i][1] - 1);
        shoal_data_close(data);
    }
}

/* The order that the PyTorch reference reads its samples in. */
static void test_order_reference(void **state)
{
    (void)state;
    const char *root = getenv("SHOAL_SRCDIR");
    char        path[4096];
    json_t     *entry, *start;
    size_t      i, j;
    snprintf(path, sizeof(path), "%s/tests/fixtures/data_order.json", root != NULL ? root : first_directory);
    json_t *cases = json_load_file(path, 0, NULL);
    assert_true(json_array_size(cases) > 0);
    json_array_foreach(cases, i, entry)
    {
        size_t    ntokens = (size_t)json_integer_value(json_object_get(entry, "ntokens"));
        size_t    seq     = (size_t)json_integer_value(json_object_get(entry, "model.seq"));
        uint64_t  g       = (uint64_t)(json_integer_value(json_object_get(entry, "step")) *
                                       json_integer_value(json_object_get(entry, "batch.global")));
        uint16_t *tokens  = malloc(ntokens * sizeof(*tokens));
        int32_t   inputs[64], targets[64];
        for (size_t t = 0; t < ntokens; t++) {
            tokens[t] = htole16((uint16_t)t);
        }
        write_file("order.bin", tokens, ntokens * sizeof(*tokens));
        free(tokens);
        shoal_data_t *data = NULL;
        assert_int_equal(seq, 64);
        assert_int_equal(shoal_data_open("order.bin", seq, 65536, SHOAL_ORDER_SEQUENTIAL, 0, &data), SHOAL_OK);
        json_array_foreach(json_object_get(entry, "starts"), j, start)
        {
            assert_int_equal(shoal_data_sample(data, g + j, inputs, targets), SHOAL_OK);
            assert_int_equal(inputs[0], json_integer_value(start));
            assert_int_equal(targets[63], json_integer_value(start) + 64);
        }
        shoal_data_close(data);
    }
    json_decref(cases);
}

static void refuse_open(const char *path, const char *message)
{
    shoal_data_t *data = NULL;
    capture_begin();
    shoal_status_t status = shoal_data_open(path, SEQ, 1000, SHOAL_ORDER_SHUFFLE, 0, &data);
    assert_contains(capture_end(), message);
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_null(data);
}

static void test_damaged(void **state)
{
    (void)state;
    refuse_open("", "no token file is named: set data.train");
    refuse_open("missing.bin", "missing.bin: No such file");
    refuse_open(".", ".: a directory, not a regular file");
    refuse_open("/dev/null", "/dev/null: a device, not a regular file");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    refuse_open("fifo", "fifo: a pipe, not a regular file");
    write_file("empty.bin", "", 0);
    refuse_open("empty.bin", "empty.bin: offset 0: the file is empty");
    write_file("odd.bin", "0123456789012345678901234", 25);
    refuse_open("odd.bin", "odd.bin: offset 24: half a token");
    write_tokens("short.bin", false, 0, 0, SEQ);
    refuse_open("short.bin", "short.bin: offset 20: 10 tokens, a window of model.seq = 10 needs 11");
    write_file("header.bin", "\x88\xd8\x34\x01\x01\x00\x00\x00", 8);
    refuse_open("header.bin", "header.bin: offset 8: the header ends here");
    write_tokens("version.bin", true, 2, NTOKENS, NTOKENS);
    refuse_open("version.bin", "version.bin: offset 4: version 2");
    write_tokens("long.bin", true, 1, NTOKENS - 1, NTOKENS);
    refuse_open("long.bin", "long.bin: offset 8: the header promises 1000 tokens, but 2002 bytes follow");
    write_tokens("cut.bin", true, 1, NTOKENS, NTOKENS - 1);
    refuse_open("cut.bin", "cut.bin: offset 8: the header promises 1001 tokens, but 2000 bytes follow");
    write_tokens("none.bin", true, 1, 0, 0);
    refuse_open("none.bin", "none.bin: offset 1024: 0 tokens");
}

static void test_large_id(void **state)
{
    (void)state;
    int32_t       inputs[SEQ], targets[SEQ];
    shoal_data_t *data;
    write_tokens("raw.bin", false, 0, 0, NTOKENS);
    /* Token 50 is 150: the last target of window 4 and the first input of window 5. */
    assert_int_equal(shoal_data_open("raw.bin", SEQ, 150, SHOAL_ORDER_SEQUENTIAL, 0, &data), SHOAL_OK);
    assert_int_equal(shoal_data_sample(data, 3, inputs, targets), SHOAL_OK);
    for (uint64_t g = 4; g <= 5; g++) {
        capture_begin();
        shoal_status_t status = shoal_data_sample(data, g, inputs, targets);
        assert_contains(capture_end(), "raw.bin: offset 100: token id 150 in a vocabulary of 150");
        assert_int_equal(status, SHOAL_ERR_DATA);
    }
    shoal_data_close(data);
}

static void test_truncated_while_open(void **state)
{
    (void)state;
    int32_t inputs[SEQ], targets[SEQ];
    write_tokens("raw.bin", false, 0, 0, NTOKENS);
    shoal_data_t *data = open_ok("raw.bin", SHOAL_ORDER_SEQUENTIAL, 0);
    assert_int_equal(shoal_data_sample(data, 99, inputs, targets), SHOAL_OK);
    assert_int_equal(truncate("raw.bin", 0), 0);
    capture_begin();
    shoal_status_t status = shoal_data_sample(data, 99, inputs, targets);
    assert_contains(capture_end(), "raw.bin: offset 0: the file ends here since it was opened, it had 2002 bytes");
    assert_int_equal(status, SHOAL_ERR_DATA);
    shoal_data_close(data);
}

static void test_inspect(void **state)
{
    (void)state;
    shoal_data_info_t info;
    write_tokens("raw.bin", false, 0, 0, NTOKENS);
    write_tokens("llmc.bin", true, 1, 300, 300);
    assert_int_equal(shoal_data_inspect("raw.bin", 65536, &info), SHOAL_OK);
    assert_string_equal(info.format, "raw uint16");
    assert_int_equal(info.ntokens, NTOKENS);
    assert_int_equal(info.max_id, 999);
    assert_int_equal(shoal_data_inspect("llmc.bin", 898, &info), SHOAL_OK);
    assert_string_equal(info.format, "llm.c version 1");
    assert_int_equal(info.ntokens, 300);
    assert_int_equal(info.max_id, 897);
    capture_begin();
    shoal_status_t status = shoal_data_inspect("llmc.bin", 897, &info);
    assert_contains(capture_end(), "llmc.bin: offset 1622: token id 897");
    assert_int_equal(status, SHOAL_ERR_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequential), cmocka_unit_test(test_shuffle),  cmocka_unit_test(test_windows),
        cmocka_unit_test(test_damaged),    cmocka_unit_test(test_large_id), cmocka_unit_test(test_truncated_while_open),
        cmocka_unit_test(test_inspect),    cmocka_unit_test(test_order_reference),
    };
    if (getcwd(first_directory, sizeof(first_directory)) == NULL) {
        return 1;
    }
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
