/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stands in a configuration file arrives in the spec: integers whole, in each way that they
 * may be written and wherever they may stand, from included files too; and each value and mistake
 * with its own file and line. What cannot be read is refused with its name, and nothing is waited
 * for that a signal could not end.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/config/config.h"
#include "src/config/keys.h"
#include "tests/capture.h"

static void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static shoal_config_t *load_ok(const char *path)
{
    shoal_config_t *config = NULL;
    assert_int_equal(shoal_config_load(path, 0, NULL, &config), SHOAL_OK);
    return config;
}

static void refuse(const char *path, shoal_status_t expected, const char *part)
{
    shoal_config_t *config = NULL;
    capture_begin();
    shoal_status_t status  = shoal_config_load(path, 0, NULL, &config);
    const char    *message = capture_end();
    assert_contains(message, part);
    assert_int_equal(status, expected);
    assert_null(config);
}

static const char *source_of(const shoal_config_t *config, const char *key)
{
    return config->given[shoal_key_find(key) - shoal_keys];
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *literal;
        uint64_t    value;
    } cases[] = {
        {"0", 0},
        {"5", 5},
        {"+5", 5},
        {"010", 10},
        {"0x10", 16},
        {"0XfF", 255},
        {"5L", 5},
        {"5LL", 5},
        {"0x10L", 16},
        {"2147483647", 2147483647},
        {"2147483648", 2147483648},
        {"4294967295", 4294967295},
        {"4294967298", 4294967298},
        {"0x7fffffff", 0x7fffffff},
        {"0x80000000", 0x80000000},
        {"0xffffffff", 0xffffffff},
        {"0x1000000000", 0x1000000000},
        {"20261121165943", 20261121165943},
        {"20261121165943L", 20261121165943},
        {"9223372036854774784", 9223372036854774784},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "run = { seed = %s; };", cases[i].literal);
        write_text("number.conf", text);
        shoal_config_t *config = load_ok("number.conf");
        assert_int_equal(config->parsed.run.seed, cases[i].value);
        shoal_config_free(config);
    }
}

static void test_refused_integers(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"model = { heads = 4294967298; };",
         "x.conf:1: model.heads = 4294967298: expects a whole number from 1 to 4096"},
        {"model = { heads = -4294967294; };", "model.heads = -4294967294: expects"},
        {"model = { heads = 0x100000002; };", "model.heads = 4294967298: expects"},
        {"run = {\n seed = 99999999999999999999; };",
         "x.conf:2: run.seed = 1e+20: expects a whole number of 0 or more, at most "
         "9223372036854774784"},
        {"run = { seed = 0xfffffffffffffffff; };", "run.seed = 2.951479052e+20: expects"},
        {"run = { seed = -99999999999999999999L; };", "run.seed = -1e+20: expects"},
        {"run = { steps = 1000000000001; };",
         "run.steps = 1000000000001: expects a whole number of 1 or more, at most 1000000000000"},
        {"run = { steps = 1e3; };", "run.steps = 1000.0: expects a whole number"},
        {"run = { steps = 2.0; };", "run.steps = 2.0: expects a whole number"},
        {"run = { steps = 5x; };", "x.conf:1: syntax error"},
        {"run = { steps = 5-3; };", "x.conf:1: syntax error"},
        {"run = { steps = -0x5; };", "x.conf:1: syntax error"},
        {"study = { nodes = [1,\n 4294967297]; };", "study.nodes = 4294967297: expects"},
        {"study = { seeds = (1, 99999999999999999999); };", "study.seeds = 1e+20: expects"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text("x.conf", cases[i].text);
        refuse("x.conf", SHOAL_ERR_CONFIG, cases[i].message);
    }
    char digits[400], text[500];
    memset(digits, '9', sizeof(digits));
    snprintf(text, sizeof(text), "run = { seed = %.399s; };", digits);
    write_text("x.conf", text);
    refuse("x.conf", SHOAL_ERR_CONFIG, "run.seed = 1.797693135e+308: expects");
}

/*
 * Digits that are no numbers, comments of each kind, several settings on a line, and no newline at
 * the end.
 */
static void test_what_stands_around(void **state)
{
    (void)state;
    write_text("around.conf",
               "// 4294967297 in a comment\n# and \"one quote\n/* @include \"none\"\n "
               "99999999999999999999 */ model:{heads=4;seq=8,};\n"
               "data = { train = \"a 4294967297 // # /* \\\"5\\\" \" \"and 0x5\nmore\"; }\n"
               "run = { seed = 4294967297; steps = 4294967298 dir = \"x5-3\"; };\n"
               "study = { seeds = [1, 4294967299]; nodes = (1, 2); };\n"
               "optim = { lr = .5; eps = 1e-3; delta = 5; kappa = 1.; }; machine = { flops = "
               "99999999999999; } # the end");
    shoal_config_t     *config = load_ok("around.conf");
    const shoal_spec_t *s      = &config->parsed;
    assert_int_equal(s->model.heads, 4);
    assert_int_equal(s->model.seq, 8);
    assert_string_equal(s->data.train, "a 4294967297 // # /* \"5\" and 0x5\nmore");
    assert_true(s->run.seed == 4294967297 && s->run.steps == 4294967298);
    assert_string_equal(s->run.dir, "x5-3");
    assert_true(s->study.nseeds == 2 && s->study.seeds[1] == 4294967299 && s->study.nnodes == 2);
    assert_true(s->optim.lr == .5 && s->optim.eps == 1e-3 && s->optim.delta == 5 &&
                s->optim.kappa == 1);
    assert_true(s->machine.flops == 99999999999999);
    assert_string_equal(source_of(config, "model.heads"), "around.conf:4");
    assert_string_equal(source_of(config, "run.dir"), "around.conf:7");
    assert_string_equal(source_of(config, "machine.flops"), "around.conf:9");
    shoal_config_free(config);
}

static void test_included(void **state)
{
    (void)state;
    write_text("outer.conf", "model = { heads = 4; };\n\t@include \"in \\\"1\\\".conf\" run = { "
                             "steps = 3;\n@include \"inner2.conf\"\n};\n"
                             "optim = { clip = 1; };");
    write_text("in \"1\".conf", "# no newline at the end\nbatch = { local = 429496; };");
    write_text("inner2.conf", "\n\nseed = 4294967297;\n");
    shoal_config_t *config = load_ok("outer.conf");
    assert_int_equal(config->parsed.run.seed, 4294967297);
    assert_int_equal(config->parsed.run.steps, 3);
    assert_string_equal(source_of(config, "batch.local"), "in \"1\".conf:2");
    assert_string_equal(source_of(config, "run.steps"), "outer.conf:2");
    assert_string_equal(source_of(config, "run.seed"), "inner2.conf:3");
    assert_string_equal(source_of(config, "optim.clip"), "outer.conf:5");
    shoal_config_free(config);

    write_text("inner2.conf", "\n\nseed = = 1;\n");
    refuse("outer.conf", SHOAL_ERR_CONFIG, "inner2.conf:3: syntax error");
}

static void test_includes_that_fail(void **state)
{
    (void)state;
    write_text("a.conf", "\n@include \"nowhere.conf\"\n");
    refuse("a.conf", SHOAL_ERR_CONFIG, "a.conf:2: @include \"nowhere.conf\": No such file");
    write_text("a.conf", "model = {\n\n@include \"/tmp\"\n};");
    refuse("a.conf", SHOAL_ERR_CONFIG,
           "a.conf:3: @include \"/tmp\": a directory, not a regular file");
    write_text("a.conf", "@include \"b.conf\"\n");
    write_text("b.conf", "\n\n\n@include \"a.conf\"\n");
    refuse("a.conf", SHOAL_ERR_CONFIG,
           "a.conf:1: @include \"b.conf\": files that include each other go more than 10 deep");
    write_text("a.conf", "@include \"b.conf\n\"");
    refuse("a.conf", SHOAL_ERR_CONFIG,
           "a.conf:1: the name of the file to include has no closing quote");
    if (geteuid() != 0) {
        write_text("a.conf", "@include \"b.conf\"\n");
        assert_int_equal(chmod("b.conf", 0), 0);
        refuse("a.conf", SHOAL_ERR_CONFIG, "a.conf:1: @include \"b.conf\": Permission denied");
    }
}

static void ring(int signal)
{
    (void)signal;
}

/*
 * A pipe is read to its end; one without a writer is waited for, but not through a signal; a device
 * has no end.
 */
static void test_streams(void **state)
{
    (void)state;
    char path[64];
    int  ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "run = { seed = 7; };", 20), 20);
    close(ends[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    shoal_config_t *config = load_ok(path);
    assert_int_equal(config->parsed.run.seed, 7);
    shoal_config_free(config);
    close(ends[0]);

    struct sigaction action = {.sa_handler = ring, .sa_flags = SA_RESTART}, before;
    assert_int_equal(mkfifo("fifo", 0600), 0);
    sigaction(SIGALRM, &action, &before);
    alarm(1);
    refuse("fifo", SHOAL_ERR_STOPPED, "fifo: a signal came before its end");
    sigaction(SIGALRM, &before, NULL);

    refuse("/dev/zero", SHOAL_ERR_CONFIG, "/dev/zero: too large");
    write_file("nul.conf", "run = {\n seed = 1; }; \0 model", 29);
    refuse("nul.conf", SHOAL_ERR_CONFIG, "nul.conf:2: a NUL byte");
    config = load_ok("/dev/null");
    shoal_config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),           cmocka_unit_test(test_refused_integers),
        cmocka_unit_test(test_what_stands_around), cmocka_unit_test(test_included),
        cmocka_unit_test(test_includes_that_fail), cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
