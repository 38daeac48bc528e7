/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reports on damaged records. Copies of the study in fixtures-report/ lose a file, or its end, or
 * have one value exchanged for another that does not belong there; every report must be whole, or
 * refused with the file's name, and rows whose own records are whole must read as before. And texts
 * that mean something to gnuplot, Markdown, HTML, CSV or a terminal must mean nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/report.h"
#include "tests/capture.h"

#define ROW "study/rows/n4r1-full-b8-s1/"

enum { NFILES = 4, MAX_NBYTES = 1 << 20 };

static const char *const files[NFILES] = {"study/study.json", ROW "run.json", ROW "summary.json",
                                          "study/rows/n1r1-full-b8-s1/summary.json"};

static char good_csv[MAX_NBYTES];

static char *read_text(const char *path)
{
    static char text[4][MAX_NBYTES];
    static int  turn;
    turn       = (turn + 1) % 4;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    size_t n      = fread(text[turn], 1, MAX_NBYTES - 1, file);
    text[turn][n] = '\0';
    fclose(file);
    return text[turn];
}

static void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

/*
 * Lines of a CSV file; every one must have as many fields as the first, counted as RFC 4180 says.
 */
static size_t check_csv(const char *csv)
{
    size_t nlines = 0, nfields = 1, expected = 0;
    bool   quoted = false;
    for (; *csv != '\0'; csv++) {
        quoted = quoted != (*csv == '"');
        nfields += !quoted && *csv == ',';
        if (!quoted && *csv == '\n') {
            expected = nlines++ == 0 ? nfields : expected;
            assert_int_equal(nfields, expected);
            nfields = 1;
        }
    }
    assert_false(quoted);
    return nlines;
}

static void check_whole(const char *dir)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/report.html", dir);
    const char *html = read_text(path);
    assert_non_null(html);
    static const char end[] = "</main></body></html>\n";
    assert_true(strlen(html) > sizeof(end) &&
                strcmp(html + strlen(html) - sizeof(end) + 1, end) == 0);
    snprintf(path, sizeof(path), "%s/report.md", dir);
    const char *md = read_text(path);
    assert_true(md != NULL && strncmp(md, "# ", 2) == 0 && md[strlen(md) - 1] == '\n');
    assert_null(strstr(md, "nan"));
    assert_null(strstr(md, " inf"));
    snprintf(path, sizeof(path), "%s/report.csv", dir);
    const char *csv = read_text(path);
    assert_non_null(csv);
    assert_true(check_csv(csv) >= 1);
    assert_null(strstr(csv, "nan"));
    assert_null(strstr(csv, "inf"));
}

/*
 * Writes a report where there was none, and checks that it is whole or refused, with what it says.
 */
static shoal_status_t report(const char *dir, const char **said_p)
{
    char path[512];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/report.%s", dir,
                 ((const char *const[]){"html", "md", "csv"})[i]);
        unlink(path);
    }
    int console = dup(STDOUT_FILENO), nowhere = open("/dev/null", O_WRONLY);
    fflush(stdout);
    dup2(nowhere, STDOUT_FILENO);
    capture_begin();
    shoal_status_t status = shoal_report_write(dir);
    *said_p               = capture_end();
    fflush(stdout);
    dup2(console, STDOUT_FILENO);
    close(console);
    close(nowhere);
    if (status == SHOAL_OK) {
        check_whole(dir);
    } else {
        assert_int_equal(status, SHOAL_ERR_DATA);
        assert_contains(*said_p, ".json");
    }
    return status;
}

/* The line of a row in the good report, which must stand in the present one too. */
static void assert_row_stands(const char *name)
{
    const char *line = strstr(good_csv, name);
    char        text[1024];
    assert_non_null(line);
    snprintf(text, sizeof(text), "%.*s", (int)strcspn(line, "\n"), line);
    assert_contains(read_text("study/report.csv"), text);
}

/* The report of a study one of whose files is damaged: the row says so, the others stand. */
static void report_damaged(size_t file, const char *what)
{
    const char    *said;
    shoal_status_t status = report("study", &said);
    const char    *name   = strrchr(files[file], '/') + 1;
    if (file == 0) {
        assert_int_equal(status, SHOAL_ERR_DATA);
        assert_contains(said, "study/study.json: ");
        return;
    }
    assert_int_equal(status, SHOAL_OK);
    assert_contains(said, name);
    assert_contains(read_text("study/report.md"), "damaged records");
    assert_contains(read_text("study/report.md"), name);
    assert_contains(read_text("study/report.md"), what);
    assert_row_stands("\"n4r1-none-b8-s1\"");
    if (file < 3) { /* the fourth is what others are compared with */
        assert_row_stands("\"n1r1-full-b8-s1\"");
        assert_row_stands("\"n2r1-full-b8-s1\"");
    }
}

static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < NFILES; i++) {
        char *whole = strdup(read_text(files[i]));
        for (size_t n = 0; n + 3 < strlen(whole); n += 50) {
            write_file(files[i], whole, n);
            report_damaged(i, n == 0 ? "empty" : "offset ");
        }
        write_text(files[i], "[1]");
        report_damaged(i, "no JSON object");
        write_text(files[i], "{\"a\": NaN}");
        report_damaged(i, "offset ");
        write_text(files[i], "{\"a\": 1e999}");
        report_damaged(i, "offset ");
        write_text(files[i], whole);
        free(whole);
    }
}

static void test_missing(void **state)
{
    (void)state;
    const char *said;
    for (size_t i = 1; i < NFILES; i++) {
        char *whole = strdup(read_text(files[i]));
        unlink(files[i]);
        report_damaged(i, "No such file");
        assert_int_equal(mkfifo(files[i], 0600), 0);
        report_damaged(i, "a pipe, not a regular file");
        unlink(files[i]);
        write_text(files[i], whole);
        free(whole);
    }
    assert_int_equal(rename("study/study.json", "kept"), 0);
    assert_int_equal(report("study", &said), SHOAL_ERR_DATA);
    assert_contains(said, "study holds neither a study (study.json) nor a run");
    assert_int_equal(rename("kept", "study/study.json"), 0);
}

/* ---- Values that do not belong there ---- */

static const char *const odd_values[] = {
    "null",
    "true",
    "\"text\"",
    "-1",
    "0",
    "1e300",
    "9223372036854775807",
    "[]",
    "{}",
    "0.5",
    "[null, \"x\", 1e300]",
};

enum { NODD = sizeof(odd_values) / sizeof(odd_values[0]) };

typedef struct {
    const char *path, *dir; /* of the file, and of the report */
    json_t     *top;
    size_t      nreports;
} exchange_t;

static void write_top(const exchange_t *exchange)
{
    assert_int_equal(json_dump_file(exchange->top, exchange->path, JSON_INDENT(1)), 0);
}

/* Reports with each odd value in one place, then with what was there. */
static void exchange_value(exchange_t *exchange, json_t *object, const char *key, json_t *list,
                           size_t index)
{
    json_t *before = object != NULL ? json_object_get(object, key) : json_array_get(list, index);
    json_incref(before);
    for (size_t v = 0; v < NODD; v++) {
        json_t     *value = json_loads(odd_values[v], JSON_DECODE_ANY, NULL);
        const char *said;
        assert_non_null(value);
        assert_int_equal(object != NULL ? json_object_set_new(object, key, value)
                                        : json_array_set_new(list, index, value),
                         0);
        write_top(exchange);
        (void)report(exchange->dir, &said);
        exchange->nreports++;
    }
    assert_int_equal(object != NULL ? json_object_set_new(object, key, before)
                                    : json_array_set_new(list, index, before),
                     0);
}

/* All values below, but of a list only the first: what follows it is like it. */
static void exchange_below(exchange_t *exchange, json_t *value)
{
    if (json_is_array(value) && json_array_size(value) > 0) {
        exchange_value(exchange, NULL, NULL, value, 0);
        exchange_below(exchange, json_array_get(value, 0));
    }
    const char *key;
    json_t     *member;
    void       *next;
    json_object_foreach_safe(value, next, key, member)
    {
        char copy[128];
        snprintf(copy, sizeof(copy), "%s", key);
        exchange_below(exchange, member);
        exchange_value(exchange, value, copy, NULL, 0);
    }
}

static void exchange_all(const char *path, const char *dir)
{
    char      *whole    = strdup(read_text(path));
    exchange_t exchange = {.path = path, .dir = dir, .top = json_load_file(path, 0, NULL)};
    assert_non_null(exchange.top);
    exchange_below(&exchange, exchange.top);
    print_message("%s: %zu reports\n", path, exchange.nreports);
    json_decref(exchange.top);
    write_text(path, whole);
    free(whole);
}

static void test_exchanged(void **state)
{
    (void)state;
    exchange_all("study/study.json", "study");
    exchange_all(ROW "summary.json", "study");
    exchange_all(ROW "run.json", "study");
}

static void test_exchanged_in_a_run(void **state)
{
    (void)state;
    exchange_all(ROW "summary.json", ROW);
    exchange_all(ROW "run.json", ROW);
}

static void test_number_of_rows(void **state)
{
    (void)state;
    const char *said;
    char       *whole = strdup(read_text("study/study.json"));
    json_t     *top = json_loads(whole, 0, NULL), *rows = json_object_get(top, "rows");
    while (json_array_size(rows) > 0) {
        json_array_remove(rows, json_array_size(rows) - 1);
        assert_int_equal(json_dump_file(top, "study/study.json", 0), 0);
        assert_int_equal(report("study", &said), SHOAL_OK);
        assert_int_equal(check_csv(read_text("study/report.csv")), json_array_size(rows) + 1);
    }
    json_object_del(top, "rows");
    assert_int_equal(json_dump_file(top, "study/study.json", 0), 0);
    assert_int_equal(report("study", &said), SHOAL_ERR_DATA);
    assert_contains(said, "study/study.json: it has no list of rows");
    json_decref(top);
    write_text("study/study.json", whole);
    free(whole);
}

/* ---- Hostile texts ---- */

static const char hostile[] = "=cmd|' /C calc'!A0 \n!touch injected\n`touch injected` ' \" "
                              "<script>alert(1)</script> | ~~~~\n~~~~~~~\n"
                              "# heading [link](http://x) ``` \033[2J\033]0;x\a \x7f \xc2\x9b"
                              "31m \\";

/* Puts the text wherever there is a text, key names aside. */
static void make_hostile(json_t *value)
{
    const char *key;
    json_t     *member;
    void       *next;
    json_object_foreach_safe(value, next, key, member)
    {
        if (json_is_string(member)) {
            json_object_set_new(value, key, json_string(hostile));
        } else {
            make_hostile(member);
        }
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (json_is_string(json_array_get(value, i))) {
            json_array_set_new(value, i, json_string(hostile));
        } else {
            make_hostile(json_array_get(value, i));
        }
    }
}

static void make_file_hostile(const char *path)
{
    json_t *top = json_load_file(path, 0, NULL);
    assert_non_null(top);
    make_hostile(top);
    assert_int_equal(json_dump_file(top, path, 0), 0);
    json_decref(top);
}

/*
 * Nothing of the text has become markup, a command or a formula. A line that begins with it outside
 * a fence would.
 */
static void check_harmless(const char *dir)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/report.html", dir);
    assert_null(strstr(read_text(path), "<script"));
    snprintf(path, sizeof(path), "%s/report.csv", dir);
    const char *csv = read_text(path);
    assert_null(strstr(csv, "\"=cmd"));
    assert_null(strstr(csv, ",=cmd"));
    snprintf(path, sizeof(path), "%s/report.md", dir);
    char *md = read_text(path), *rest = md, fence[64] = "";
    assert_null(strpbrk(md, "\033\a\x7f"));
    assert_null(strstr(md, "\xc2\x9b"));
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        size_t ntildes = strspn(line, "~");
        if (fence[0] == '\0' && ntildes >= 4) {
            snprintf(fence, sizeof(fence), "%s", line);
        } else if (fence[0] != '\0' && ntildes >= strlen(fence)) {
            fence[0] = '\0';
        } else if (fence[0] == '\0') {
            assert_null(strstr(line, "<script"));
            char *link = strstr(line, "[link]");
            assert_true(link == NULL || (link > line && link[-1] == '\\'));
            assert_true(strncmp(line, "# heading", 9) != 0 && strncmp(line, "!touch", 6) != 0);
        }
    }
    assert_int_equal(fence[0], 0);
    assert_int_equal(access("injected", F_OK), -1);
    assert_int_equal(access("x", F_OK), -1);
}

static void test_hostile_study(void **state)
{
    (void)state;
    const char *said;
    unsetenv("GNUPLOT");
    for (int all = 0; all < 2;
         all++) { /* first shard, tail and the like of rows that are still read, then everything */
        assert_int_equal(system("rm -rf hostile && cp -r study hostile"), 0);
        make_file_hostile("hostile/rows/n4r1-full-b8-s1/run.json");
        make_file_hostile("hostile/rows/n4r1-full-b8-s1/summary.json");
        if (all == 1) {
            make_file_hostile("hostile/study.json");
        } else {
            json_t *top  = json_load_file("hostile/study.json", 0, NULL);
            json_t *rows = json_object_get(top, "rows");
            json_object_set_new(json_array_get(rows, 1), "shard", json_string("\n!>x\n"));
            json_object_set_new(json_array_get(rows, 3), "tail", json_string(hostile));
            json_object_set_new(json_array_get(rows, 3), "detail", json_string(hostile));
            json_object_set_new(top, "train_command", json_string(hostile));
            assert_int_equal(json_dump_file(top, "hostile/study.json", 0), 0);
            json_decref(top);
        }
        assert_int_equal(report("hostile", &said), SHOAL_OK);
        assert_null(strpbrk(said, "\033\a"));
        check_harmless("hostile");
        assert_int_equal(report("hostile/rows/n4r1-full-b8-s1", &said), SHOAL_OK);
        check_harmless("hostile/rows/n4r1-full-b8-s1");
    }
    setenv("GNUPLOT", "/nonexistent", 1);
}

/*
 * gnuplot refuses ranges that no axis can show: that plot is left out with a word in its place, the
 * others are drawn.
 */
static void test_plot_that_fails(void **state)
{
    (void)state;
    const char *said;
    if (system("command -v gnuplot >/dev/null") != 0) {
        skip();
    }
    write_text("gnuplot-that-fails", "#!/bin/sh\nscript=$(cat)\ncase $script in *'per second'*) "
                                     "echo 'line 3: no such range' >&2; exit 1 ;; esac\n"
                                     "printf '%s\\n' \"$script\" | gnuplot -d -\n");
    assert_int_equal(chmod("gnuplot-that-fails", 0700), 0);
    setenv("GNUPLOT", "./gnuplot-that-fails", 1);
    assert_int_equal(report("study", &said), SHOAL_OK);
    setenv("GNUPLOT", "/nonexistent", 1);
    assert_contains(said, "warning: report: plot throughput is left out, gnuplot could not draw "
                          "it: line 3: no such range");
    assert_contains(read_text("study/report.md"), "The plot `throughput` stood here");
    assert_contains(read_text("study/report.md"), "](plots/multiplier.svg)");
    assert_null(strstr(read_text("study/report.md"), "](plots/throughput.svg)"));
}

static int copy_fixture(void **state)
{
    const char *source = getenv("SHOAL_SRCDIR"), *said;
    char        here[2048], command[4200];
    /*
     * In memory where that can be: thousands of reports are written, and each file of each is
     * flushed to its disk.
     */
    char *path = strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm/shoal-test-XXXXXX"
                                                      : "/tmp/shoal-test-XXXXXX");
    *state     = path;
    if (getcwd(here, sizeof(here)) == NULL || mkdtemp(path) == NULL || chdir(path) != 0) {
        return -1;
    }
    snprintf(command, sizeof(command),
             "cp -r '%s/tests/fixtures-report/study' study && chmod -R u+w study",
             source == NULL ? here : source);
    if (system(command) != 0) {
        return -1;
    }
    setenv("GNUPLOT", "/nonexistent", 1);
    assert_int_equal(report("study", &said), SHOAL_OK);
    snprintf(good_csv, sizeof(good_csv), "%s", read_text("study/report.csv"));
    return check_csv(good_csv) == 6 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),       cmocka_unit_test(test_missing),
        cmocka_unit_test(test_exchanged),       cmocka_unit_test(test_exchanged_in_a_run),
        cmocka_unit_test(test_number_of_rows),  cmocka_unit_test(test_hostile_study),
        cmocka_unit_test(test_plot_that_fails),
    };
    return cmocka_run_group_tests(tests, copy_fixture, leave_directory);
}
