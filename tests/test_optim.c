/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Schedules, learning-rate rules and per-step scalars, against numbers worked out by hand and against what the PyTorch reference
 * recorded in tests/fixtures.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "runtime/model/optim.h"

static void assert_close(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-12 * fmax(1, fabs(expected)))) {
        fail_msg("%.17g is not %.17g", value, expected);
    }
}

static json_t *load_fixture(const char *name)
{
    const char *root = getenv("SHOAL_SRCDIR");
    char        path[4096];
    snprintf(path, sizeof(path), "%s/tests/fixtures/%s", root != NULL ? root : ".", name);
    json_t *fixture = json_load_file(path, 0, NULL);
    if (fixture == NULL) {
        fail_msg("cannot read %s", path);
    }
    return fixture;
}

static size_t index_among(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    fail_msg("%s is none that shoal knows", name);
    return 0;
}

/* Ten steps, two of warm-up: the eight after it run over x = 0, 1/7 .. 1. */
static void test_schedule_by_hand(void **state)
{
    (void)state;
    shoal_optim_spec_t o = {.warmup = 2, .schedule = SHOAL_SCHEDULE_COS};
    assert_close(shoal_optim_schedule(&o, 1, 10), 0.01);
    assert_close(shoal_optim_schedule(&o, 2, 10), 0.505);
    assert_close(shoal_optim_schedule(&o, 3, 10), 1);
    assert_close(shoal_optim_schedule(&o, 4, 10), 0.5 * (1 + cos(3.14159265358979323846 / 7)));
    assert_close(shoal_optim_schedule(&o, 10, 10), 0);
    assert_close(shoal_optim_schedule(&o, 1000, 10), 0);
    o.schedule = SHOAL_SCHEDULE_COS_INF;
    assert_close(shoal_optim_schedule(&o, 3, 10), 1);
    assert_close(shoal_optim_schedule(&o, 10, 10), 0.1);
    assert_close(shoal_optim_schedule(&o, 11, 10), 0.1);
    o.schedule = SHOAL_SCHEDULE_CONSTANT;
    assert_close(shoal_optim_schedule(&o, 2, 10), 0.505);
    assert_close(shoal_optim_schedule(&o, 10, 10), 1);
    o.schedule = SHOAL_SCHEDULE_WSD; /* falls over the last two steps */
    assert_close(shoal_optim_schedule(&o, 8, 10), 1);
    assert_close(shoal_optim_schedule(&o, 9, 10), 0.5);
    assert_close(shoal_optim_schedule(&o, 10, 10), 0);
    assert_close(shoal_optim_schedule(&o, 11, 10), 0);
}

/* Without warm-up, for one step, and with all steps in warm-up: nothing divides by zero. */
static void test_schedule_edges(void **state)
{
    (void)state;
    for (shoal_schedule_t schedule = SHOAL_SCHEDULE_CONSTANT; schedule <= SHOAL_SCHEDULE_WSD; schedule++) {
        for (size_t warmup = 0; warmup <= 3; warmup++) {
            for (size_t steps = 1; steps <= 12; steps++) {
                shoal_optim_spec_t o = {.warmup = warmup, .schedule = schedule};
                for (size_t t = 1; t <= steps + 3; t++) {
                    double s = shoal_optim_schedule(&o, t, steps);
                    assert_true(s >= 0 && s <= 1);
                }
            }
        }
    }
}

static void test_schedule_reference(void **state)
{
    (void)state;
    static const char *const names[] = {"constant", "cos", "cos_inf", "wsd"};
    json_t                  *cases   = load_fixture("schedules.json"), *entry, *factor;
    size_t                   i, t;
    json_array_foreach(cases, i, entry)
    {
        const char        *name  = json_string_value(json_object_get(entry, "schedule"));
        size_t             steps = (size_t)json_integer_value(json_object_get(entry, "steps"));
        shoal_optim_spec_t o     = {.warmup   = (size_t)json_integer_value(json_object_get(entry, "warmup")),
                                    .schedule = (shoal_schedule_t)index_among(names, 4, name)};
        json_array_foreach(json_object_get(entry, "factors"), t, factor)
        {
            assert_close(shoal_optim_schedule(&o, t + 1, steps), json_real_value(factor));
        }
    }
    assert_true(json_array_size(cases) > 0);
    json_decref(cases);
}

/* The constants of the rule, spelled out once more: a slip of a digit in the table should not pass. */
static void test_lr_rule(void **state)
{
    (void)state;
    static const struct {
        shoal_optim_kind_t kind;
        size_t             sequences;
        double             a, b, e;
    } rules[] = {
        {SHOAL_OPTIM_ADAMW, 32, 12.8, 1.67e4, -0.515},         {SHOAL_OPTIM_ADANA, 1, 22.5, 1.22e5, -0.618},
        {SHOAL_OPTIM_DANA_MK4, 255, 23.0, 1.46e4, -0.627},     {SHOAL_OPTIM_DANA_STAR, 32, 223, 2.40e6, -0.724},
        {SHOAL_OPTIM_DANA_STAR_MK4, 32, 223, 2.40e6, -0.724},  {SHOAL_OPTIM_ADAMW, 256, 16.7, 1.58e7, -0.464},
        {SHOAL_OPTIM_ADANA, 512, 85.3, 3.04e4, -0.654},        {SHOAL_OPTIM_DANA_MK4, 512, 2470, 2.24e7, -0.826},
        {SHOAL_OPTIM_DANA_STAR_MK4, 4096, 310, 1.40e4, -0.701},
    };
    double lr = -1;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        assert_int_equal(shoal_optim_auto_lr(rules[i].kind, 8.5e7, rules[i].sequences, &lr), SHOAL_OK);
        assert_close(lr, rules[i].a * pow(rules[i].b + 8.5e7, rules[i].e));
    }
    lr = -1;
    assert_int_equal(shoal_optim_auto_lr(SHOAL_OPTIM_DANA_STAR, 8.5e7, 512, &lr), SHOAL_ERR_CONFIG);
    assert_true(lr == -1);
}

static const char *const optim_names[] = {"adamw", "adana", "dana-mk4", "dana-star", "dana-star-mk4"};

static shoal_optim_kind_t kind_of(const json_t *entry)
{
    return (shoal_optim_kind_t)index_among(optim_names, 5, json_string_value(json_object_get(entry, "optim.name")));
}

static void test_auto_reference(void **state)
{
    (void)state;
    json_t *cases = load_fixture("auto.json"), *entry;
    size_t  i;
    assert_true(json_array_size(json_object_get(cases, "lr")) > 0 && json_array_size(json_object_get(cases, "wd")) > 0);
    json_array_foreach(json_object_get(cases, "lr"), i, entry)
    {
        double        lr, n     = json_number_value(json_object_get(entry, "non_embedding"));
        const json_t *expected  = json_object_get(entry, "lr");
        size_t        sequences = (size_t)json_integer_value(json_object_get(entry, "sequences"));
        bool          published = !json_is_null(expected);
        assert_int_equal(shoal_optim_auto_lr(kind_of(entry), n, sequences, &lr), published ? SHOAL_OK : SHOAL_ERR_CONFIG);
        if (published) {
            assert_close(lr, json_real_value(expected));
        }
    }
    json_array_foreach(json_object_get(cases, "wd"), i, entry)
    {
        double wd = shoal_optim_auto_wd(kind_of(entry), json_real_value(json_object_get(entry, "lr")),
                                        (size_t)json_integer_value(json_object_get(entry, "steps")));
        assert_close(wd, json_real_value(json_object_get(entry, "wd")));
    }
    json_decref(cases);
}

static void test_states(void **state)
{
    (void)state;
    assert_int_equal(shoal_optim_nstates(SHOAL_OPTIM_ADAMW), 2);
    assert_int_equal(shoal_optim_nstates(SHOAL_OPTIM_ADANA), 2);
    assert_int_equal(shoal_optim_nstates(SHOAL_OPTIM_DANA_MK4), 2);
    assert_int_equal(shoal_optim_nstates(SHOAL_OPTIM_DANA_STAR), 3);
    assert_int_equal(shoal_optim_nstates(SHOAL_OPTIM_DANA_STAR_MK4), 3);
}

static void test_auto_wd(void **state)
{
    (void)state;
    assert_close(shoal_optim_auto_wd(SHOAL_OPTIM_ADAMW, 0.01, 1000), 0.4);
    assert_close(shoal_optim_auto_wd(SHOAL_OPTIM_DANA_STAR_MK4, 0.01, 1000), 0.04);
    assert_close(shoal_optim_auto_wd(SHOAL_OPTIM_ADANA, 0.01, 50), 0.8);
    assert_close(shoal_optim_auto_wd(SHOAL_OPTIM_ADANA, 0.01, 20), 1);
    for (size_t steps = 1; steps < 200; steps++) { /* the factor that weights are multiplied by stays positive */
        shoal_optim_spec_t o = {.kind = SHOAL_OPTIM_ADANA, .lr = 0.1, .schedule = SHOAL_SCHEDULE_CONSTANT};
        float              scalars[SHOAL_SCALAR_COUNT];
        o.wd = shoal_optim_auto_wd(o.kind, o.lr, steps);
        shoal_optim_scalars(&o, 1, steps, scalars);
        assert_true(scalars[SHOAL_SCALAR_DECAY] > 0 && scalars[SHOAL_SCALAR_DECAY] < 1);
    }
}

static void test_scalars(void **state)
{
    (void)state;
    float              scalars[SHOAL_SCALAR_COUNT];
    shoal_optim_spec_t o = {.kind = SHOAL_OPTIM_ADAMW, .lr = 0.5, .wd = 0.25, .warmup = 2, .schedule = SHOAL_SCHEDULE_CONSTANT};
    memset(scalars, 0xff, sizeof(scalars));
    shoal_optim_scalars(&o, 2, 100, scalars);
    assert_true(scalars[SHOAL_SCALAR_STEP] == 2.0f);
    assert_true(scalars[SHOAL_SCALAR_SCHEDULE] == 0.505f);
    assert_true(scalars[SHOAL_SCALAR_LR] == (float)(0.5 * 0.505));
    assert_true(scalars[SHOAL_SCALAR_DECAY] == (float)(1 - 0.5 * 0.505 * 0.25));
    for (int i = SHOAL_SCALAR_DECAY + 1; i < SHOAL_SCALAR_COUNT; i++) {
        assert_true(scalars[i] == 0);
    }
    o.kind = SHOAL_OPTIM_DANA_STAR_MK4; /* ts = 10 */
    shoal_optim_scalars(&o, 5, 100, scalars);
    assert_true(scalars[SHOAL_SCALAR_DECAY] == (float)(1 - 0.25 / 1.5));
    shoal_optim_scalars(&o, 5, 3, scalars); /* ts is 1 at least */
    assert_true(scalars[SHOAL_SCALAR_DECAY] == (float)(1 - 0.25 / 6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_by_hand), cmocka_unit_test(test_schedule_edges),
        cmocka_unit_test(test_schedule_reference), cmocka_unit_test(test_lr_rule),
        cmocka_unit_test(test_auto_reference),     cmocka_unit_test(test_states),
        cmocka_unit_test(test_auto_wd),          cmocka_unit_test(test_scalars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
