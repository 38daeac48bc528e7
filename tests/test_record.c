/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records: quantiles, step lines that are whole and exact, files that are replaced whole or not at all; a full disk
 * and a directory that cannot be written are errors that name path and cause.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/mount.h>

#include "base/file.h"
#include "base/json.h"
#include "base/quantile.h"
#include "runtime/execute/record.h"
#include "tests/capture.h"

static void test_quantiles(void **state)
{
    (void)state;
    double one[] = {7}, four[] = {4, 1, 3, 2}, five[] = {50, 10, 40, 20, 30};
    assert_true(shoal_quantile(one, 1, 0.0) == 7 && shoal_quantile(one, 1, 1.0) == 7);
    assert_true(shoal_quantile(four, 4, 0.5) == 2.5);
    assert_true(shoal_quantile(four, 4, 0.0) == 1 && shoal_quantile(four, 4, 1.0) == 4);
    assert_true(shoal_quantile(five, 5, 0.5) == 30);
    assert_true(fabs(shoal_quantile(five, 5, 0.1) - 14) < 1e-12); /* 4 tenths of the way from 10 to 20 */
    assert_true(fabs(shoal_quantile(five, 5, 0.9) - 46) < 1e-12);
}

static shoal_step_record_t step_record(size_t step)
{
    return (shoal_step_record_t){.step = step, .loss = 1.0 / 3.0, .tokens = 500, .step_ms = 250, .grad_norm = NAN, .lr = 1e-3};
}

static void test_step_lines(void **state)
{
    (void)state;
    shoal_record_t *record;
    assert_int_equal(shoal_record_open("a/b/c", 12, &record), SHOAL_OK);
    for (size_t step = 1; step <= 2; step++) {
        shoal_step_record_t line = step_record(step);
        assert_int_equal(shoal_record_step(record, &line), SHOAL_OK);
    }
    char  text[4096] = "";
    FILE *file       = fopen("a/b/c/rank-00012.jsonl", "r"); /* before it is closed: each line is out at once */
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    json_t *json = json_loads(text, 0, NULL);
    assert_true(json_real_value(json_object_get(json, "loss")) == 1.0 / 3.0); /* to the bit */
    assert_true(json_number_value(json_object_get(json, "tokens_per_s")) == 2000);
    assert_true(json_is_null(json_object_get(json, "grad_norm")));
    assert_int_equal(json_integer_value(json_object_get(json, "step")), 1);
    assert_int_equal(json_object_size(json), 14);
    json_decref(json);
    assert_non_null(fgets(text, sizeof(text), file));
    assert_null(fgets(text, sizeof(text), file));
    fclose(file);
    shoal_record_close(record);

    assert_int_equal(shoal_record_open("a/b/c", 12, &record), SHOAL_OK); /* an older run's is replaced */
    shoal_record_close(record);
    struct stat info;
    assert_int_equal(stat("a/b/c/rank-00012.jsonl", &info), 0);
    assert_int_equal(info.st_size, 0);
}

static size_t count_files(const char *path)
{
    size_t count = 0;
    DIR   *dir   = opendir(path);
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count - 2;
}

static void test_json_is_replaced_whole(void **state)
{
    (void)state;
    assert_int_equal(shoal_file_make_directory("whole"), SHOAL_OK);
    for (int value = 1; value <= 2; value++) {
        json_t *json = json_pack("{s:i}", "value", value);
        assert_int_equal(shoal_json_write("whole", "x.json", json), SHOAL_OK);
        json_decref(json);
    }
    json_t *json = json_load_file("whole/x.json", 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "value")), 2);
    json_decref(json);
    assert_int_equal(count_files("whole"), 1); /* nothing temporary is left */
}

static void test_directory_is_a_file(void **state)
{
    (void)state;
    shoal_record_t *record = NULL;
    write_file("plain", "x", 1);
    capture_begin();
    shoal_status_t status = shoal_record_open("plain/run", 0, &record);
    const char    *error  = capture_end();
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_null(record);
    assert_contains(error, "plain");
    assert_contains(error, "Not a directory");
}

static void test_unwritable_directory(void **state)
{
    (void)state;
    shoal_record_t *record = NULL;
    assert_int_equal(mkdir("locked", 0555), 0);
    uid_t user = geteuid();
    if (user == 0) { /* root may write everywhere: be nobody for a moment */
        assert_int_equal(chmod(".", 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    capture_begin();
    shoal_status_t status = shoal_record_open("locked", 0, &record);
    const char    *error  = capture_end();
    assert_int_equal(seteuid(user), 0);
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_contains(error, "locked/rank-00000.jsonl: Permission denied");
}

/* /dev/full takes nothing: a record that leads there is a disk that has just filled up. */
static void test_full_device(void **state)
{
    (void)state;
    shoal_record_t     *record;
    shoal_step_record_t line = step_record(1);
    assert_int_equal(shoal_file_make_directory("full"), SHOAL_OK);
    if (access("/dev/full", W_OK) != 0 || symlink("/dev/full", "full/rank-00000.jsonl") != 0) {
        print_message("there is no /dev/full\n");
        skip();
    }
    assert_int_equal(shoal_record_open("full", 0, &record), SHOAL_OK);
    capture_begin();
    shoal_status_t status = shoal_record_step(record, &line);
    const char    *error  = capture_end();
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_contains(error, "full/rank-00000.jsonl: No space left on device");
    shoal_record_close(record);
}

/*
 * On a real file system that fills up: whole lines stay, the cut one is taken back, and a file being replaced keeps
 * its contents.
 */
static void fill_up(void)
{
    shoal_record_t *record;
    shoal_status_t  status = SHOAL_OK;
    json_t         *json   = json_pack("{s:s}", "value", "old");
    assert_int_equal(shoal_json_write("tiny", "x.json", json), SHOAL_OK);
    json_decref(json);
    assert_int_equal(shoal_record_open("tiny", 0, &record), SHOAL_OK);
    size_t count = 0;
    capture_begin();
    for (; status == SHOAL_OK && count < 100000; count++) {
        shoal_step_record_t line = step_record(count + 1);
        status                   = shoal_record_step(record, &line);
    }
    json_t        *large = json_pack("{s:s%}", "value", (char[8192]){"x"}, (size_t)8192);
    shoal_status_t json_status = shoal_json_write("tiny", "x.json", large == NULL ? json_null() : large);
    const char    *error       = capture_end();
    shoal_record_close(record);
    json_decref(large);
    assert_int_equal(status, SHOAL_ERR_DATA);
    assert_int_equal(json_status, SHOAL_ERR_DATA);
    assert_contains(error, "No space left on device");
    assert_int_equal(count_files("tiny"), 2);

    json = json_load_file("tiny/x.json", 0, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "value")), "old");
    json_decref(json);
    char   last = 0;
    FILE  *file = fopen("tiny/rank-00000.jsonl", "r");
    size_t lines = 0;
    for (int c; (c = fgetc(file)) != EOF; last = (char)c) {
        lines += c == '\n';
    }
    fclose(file);
    assert_int_equal(last, '\n');
    assert_int_equal(lines, count - 1);
}

static void test_full_disk(void **state)
{
    (void)state;
    assert_int_equal(shoal_file_make_directory("tiny"), SHOAL_OK);
    if (mount("tmpfs", "tiny", "tmpfs", 0, "size=64k") != 0) {
        print_message("cannot mount a small file system\n");
        skip();
    }
    fill_up();
    assert_int_equal(umount("tiny"), 0);
}

static void test_text(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", ""},
        {"plain \\ \n", "plain \\ \n"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"gr\xfc\xdf", "gr\\xfc\\xdf"},
        {"\xc3\xbc\xff\xf0\x9f\x90\x9f\xc3", "\xc3\xbc\\xff\xf0\x9f\x90\x9f\\xc3"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* half of a UTF-16 pair */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *json = shoal_json_escaped(cases[i].bytes);
        assert_string_equal(json_string_value(json), cases[i].text);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_step_lines),
        cmocka_unit_test(test_json_is_replaced_whole),
        cmocka_unit_test(test_directory_is_a_file),
        cmocka_unit_test(test_unwritable_directory),
        cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
