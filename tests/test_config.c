/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration: what is derived, what wins, where values come from; and that each kind of mistake is refused with a message that
 * names the key and the place. Mistakes are a table: a new one is a line.
 */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/config/config.h"
#include "src/config/keys.h"
#include "src/config/nearest.h"
#include "tests/capture.h"

enum { MAX_WORDS = 8 };

/* A configuration from a file's text (NULL: no file) and words, resolved for some ranks; NULL when a step refused. */
static shoal_config_t *make(const char *text, const char *const words[MAX_WORDS], int nranks, const shoal_spec_t **spec_p,
                            shoal_status_t *status_p)
{
    int             nwords = 0;
    shoal_config_t *config = NULL;
    while (nwords < MAX_WORDS && words[nwords] != NULL) {
        nwords++;
    }
    if (text != NULL) {
        write_file("test.conf", text, strlen(text));
    }
    *status_p = shoal_config_load(text != NULL ? "test.conf" : NULL, nwords, (char *const *)words, &config);
    if (*status_p == SHOAL_OK) {
        *status_p = shoal_config_resolve(config, nranks, spec_p);
    }
    if (*status_p != SHOAL_OK) {
        shoal_config_free(config);
        config = NULL;
    }
    return config;
}

#define WORDS(...) ((const char *const[MAX_WORDS]){__VA_ARGS__})

static shoal_config_t *make_ok(const char *text, const char *const words[MAX_WORDS], int nranks, const shoal_spec_t **spec_p)
{
    shoal_status_t  status;
    shoal_config_t *config = make(text, words, nranks, spec_p, &status);
    assert_int_equal(status, SHOAL_OK);
    return config;
}

static const struct {
    const char *text;
    const char *words[MAX_WORDS];
    int         nranks;
    const char *message;
} mistakes[] = {
    /* names */
    {"model = { heads = 4;\n  sequence = 8; };", {NULL}, 1, "test.conf:2: unknown key model.sequence; did you mean model.seq?"},
    {"modle = { heads = 4; };", {NULL}, 1, "test.conf:1: unknown key modle.heads; did you mean model.heads?"},
    {"\n\nbatchh = 3;", {NULL}, 1, "test.conf:3: unknown key batchh; did you mean batch?"},
    {"heads = 4;", {NULL}, 1, "test.conf:1: unknown key heads; did you mean model.heads?"},
    {NULL, {"model.steps=4"}, 1, "'model.steps=4': unknown key model.steps; did you mean run.steps?"},
    {NULL, {"optim.nmae=adamw"}, 1, "did you mean optim.name?"},
    {NULL, {"model.heads"}, 1, "'model.heads': expects group.key=value"},
    {NULL, {"--schedule"}, 1, "'--schedule': expects group.key=value; options stand before the configuration file"},
    {NULL, {"=3"}, 1, "'=3': unknown key"},
    /* types */
    {"model = { heads = \"4\"; };", {NULL}, 1, "test.conf:1: model.heads = \"4\": expects a whole number from 1 to 4096"},
    {"model = { heads = 4.0; };", {NULL}, 1, "test.conf:1: model.heads = 4.0: expects a whole number"},
    {"model = { heads = 4; qk_norm = 1; };", {NULL}, 1, "test.conf:1: model.qk_norm = 1: expects true or false, or auto"},
    {"model = { heads = true; };", {NULL}, 1, "model.heads = true: expects a whole number"},
    {"model = { heads = { a = 1; }; };", {NULL}, 1, "model.heads = a group or a list: expects"},
    {"model = { heads = [1, 2]; };", {NULL}, 1, "model.heads = a group or a list: expects"},
    {"model = 3;", {NULL}, 1, "test.conf:1: model is a group"},
    {"data = { train = 3; };", {NULL}, 1, "data.train = 3: expects a string"},
    {NULL, {"model.heads=4x"}, 1, "'model.heads=4x': model.heads = \"4x\": expects a whole number"},
    {NULL, {"model.heads="}, 1, "model.heads = \"\": expects"},
    {NULL, {"model.heads=auto"}, 1, "model.heads = \"auto\": expects"},
    {NULL, {"model.tied=yes"}, 1, "model.tied = \"yes\": expects true or false"},
    {NULL, {"optim.lr=inf"}, 1, "optim.lr = \"inf\": expects a number"},
    {NULL, {"optim.lr=nan"}, 1, "optim.lr = \"nan\": expects a number"},
    /* choices and ranges */
    {"optim = {\n name = \"adam\"; };", {NULL}, 1,
     "test.conf:2: optim.name = \"adam\": expects one of adamw, adana, dana-mk4, dana-star, dana-star-mk4"},
    {NULL, {"parallel.transport=ib"}, 1, "parallel.transport = \"ib\": expects one of auto, self, mpi, ucx, nccl"},
    {NULL, {"model.heads=0"}, 1, "model.heads = 0: expects a whole number from 1 to 4096"},
    {NULL, {"model.heads=-4"}, 1, "model.heads = -4: expects"},
    {NULL, {"model.vocab=65537"}, 1, "model.vocab = 65537: expects a whole number from 2 to 65536"},
    {NULL, {"run.seed=99999999999999999999"}, 1, "run.seed = 1e+20: expects a whole number"},
    {NULL, {"optim.lr=0"}, 1, "optim.lr = 0: expects a number above 0"},
    {NULL, {"optim.beta1=1"}, 1, "optim.beta1 = 1: expects a number from 0 to 1"},
    /* lists */
    {"study = { nodes = []; };", {NULL}, 1, "test.conf:1: study.nodes: 0 values, expects 1 to 16"},
    {NULL, {"study.nodes=1,,2"}, 1, "study.nodes = \"\": expects"},
    {NULL, {"study.nodes=1,2,0"}, 1, "study.nodes = 0: expects"},
    {NULL, {"study.shard=full,none,grad,full"}, 1, "study.shard: 4 values, expects 1 to 3"},
    {NULL, {"study.nodes=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"}, 1, "study.nodes: 17 values, expects 1 to 16"},
    /* syntax */
    {"model = { heads = 4; ", {NULL}, 1, "test.conf:1: syntax error"},
    {"model = { heads = 4;\n heads = 5; };", {NULL}, 1, "test.conf:2: duplicate setting name"},
    /* what does not fit together */
    {NULL, {"model.seq=8"}, 1, "model.heads is not set"},
    {"model = { heads = 6;\n kv_heads = 4; };", {NULL}, 1, "test.conf:2: model.kv_heads = 4: must divide model.heads = 6"},
    {NULL, {"model.heads=4", "model.head_dim=15"}, 1, "command line: model.head_dim = 15: must be even"},
    {NULL, {"model.heads=4", "model.head_dim=16", "model.d_model=100"}, 1, "model.d_model = 100: must be model.heads * model.head_dim = 4 * 16 = 64"},
    {NULL, {"model.heads=4", "model.d_model=102"}, 1, "model.d_model = 102: must be"},
    {NULL, {"model.heads=4", "model.d_model=2"}, 1, "model.d_model = 2: must be"},
    {"model = { heads = 4; };\nparallel = {\n tp = 2; };", {NULL}, 4,
     "test.conf:3: parallel.tp = 2: tensor-parallel groups are not in this version"},
    {"model = { heads = 4; };\nbatch = { global = 100; };", {NULL}, 4,
     "test.conf:2: batch.global = 100: not a multiple of batch.local * ranks = 8 * 4 = 32; the nearest that work are 96 or 128; "
     "with batch.local = 5 it would"},
    {NULL, {"model.heads=4", "batch.global=3"}, 4, "batch.global = 3: not a multiple of batch.local * ranks = 8 * 4 = 32; the nearest "
     "that work are 32\n"},
    {"model = { heads = 4; };\nbatch = { accumulate = 1; };", {"batch.global=64"}, 4,
     "test.conf:2: batch.accumulate = 1: disagrees with batch.global = 64 (command line), which with batch.local = 8 on 4 ranks means 2"},
    {NULL, {"model.heads=4", "optim.name=dana-star", "batch.global=256"}, 1,
     "no published rule for optim.name = \"dana-star\" at batch.global = 256"},
    {NULL, {"model.heads=4", "optim.name=adana", "optim.snr_clip=2"}, 1, "optim.snr_clip = 2.0: optim.name = \"adana\" has none"},
    {NULL, {"model.heads=4", "optim.warmup=51"}, 1, "optim.warmup = 51: longer than run.steps = 50"},
    {NULL, {"model.heads=4", "run.trace_step=51"}, 1, "run.trace_step = 51: after the last of run.steps = 50"},
    {NULL, {"model.heads=4", "run.eval_every=5"}, 1, "run.eval_every = 5: data.valid is not set"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        const shoal_spec_t *spec;
        shoal_status_t      status;
        capture_begin();
        shoal_config_t *config  = make(mistakes[i].text, mistakes[i].words, mistakes[i].nranks, &spec, &status);
        const char     *message = capture_end();
        assert_contains(message, mistakes[i].message);
        assert_int_equal(status, SHOAL_ERR_CONFIG);
        assert_null(config);
    }
}

static void refuse_path(const char *path, const char *part)
{
    shoal_config_t *config = NULL;
    capture_begin();
    shoal_status_t status  = shoal_config_load(path, 0, NULL, &config);
    const char    *message = capture_end();
    assert_contains(message, part);
    assert_int_equal(status, SHOAL_ERR_CONFIG);
    assert_null(config);
}

static void test_unreadable(void **state)
{
    (void)state;
    refuse_path("missing.conf", "missing.conf: No such file");
    refuse_path(".", ".: a directory, not a regular file");
    write_file("noise.conf", "\x01\x02 = {{{", 8);
    refuse_path("noise.conf", "noise.conf:1: ");
    write_file("outer.conf", "model = { heads = 4; };\n@include \"inner.conf\"\n", 46);
    write_file("inner.conf", "\nrun = { step = 4; };\n", 22);
    refuse_path("outer.conf", "inner.conf:2: unknown key run.step; did you mean run.steps?");
}

static void test_defaults(void **state)
{
    (void)state;
    const shoal_spec_t *s;
    shoal_config_t     *config = make_ok(NULL, WORDS("model.heads=12"), 1, &s);
    assert_int_equal(s->batch.local, 8);
    assert_int_equal(s->batch.accumulate, 1);
    assert_int_equal(s->batch.global, 8);
    assert_int_equal(s->parallel.prefetch, 1);
    assert_int_equal(s->parallel.shard, SHOAL_SHARD_FULL);
    assert_int_equal(s->precision.compute, SHOAL_BF16);
    assert_int_equal(s->precision.gather, SHOAL_BF16); /* follows compute */
    assert_int_equal(s->precision.reduce, SHOAL_F32);
    assert_int_equal(s->optim.kind, SHOAL_OPTIM_DANA_STAR_MK4);
    assert_string_equal(s->optim.name, "dana-star-mk4");
    assert_int_equal(s->optim.schedule, SHOAL_SCHEDULE_COS_INF);
    assert_int_equal(s->optim.warmup, 1);
    assert_true(s->optim.snr_clip == 2.0 && s->optim.clip == 0.5 && s->optim.delta == 8 && s->optim.kappa == 0.85);
    assert_int_equal(s->run.steps, 50);
    assert_int_equal(s->run.timeout_s, 120);
    assert_string_equal(s->run.dir, "runs/default");
    assert_string_equal(s->data.valid, "");
    assert_string_equal(s->parallel.transport, "auto");
    shoal_config_free(config);
}

static void test_presets(void **state)
{
    (void)state;
    const shoal_spec_t *s;
    shoal_config_t     *config = make_ok(NULL, WORDS("model.heads=6"), 1, &s);
    assert_int_equal(s->model.layers, 4); /* floor(3*6/4) */
    assert_int_equal(s->model.d_model, 384);
    assert_int_equal(s->model.head_dim, 64);
    assert_int_equal(s->model.kv_heads, 6);
    assert_int_equal(s->model.ffn, 1536);
    assert_int_equal(s->model.norm, SHOAL_NORM_LAYER);
    assert_int_equal(s->model.act, SHOAL_ACT_GELU);
    assert_int_equal(s->model.rope, SHOAL_ROPE_INTERLEAVED);
    assert_true(s->model.qk_norm && !s->model.bias && !s->model.tied && s->model.z_loss == 0 && s->model.norm_eps == 1e-5);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=1"), 1, &s);
    assert_int_equal(s->model.layers, 1);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=8", "model.arch=llama", "model.kv_heads=2"), 1, &s);
    assert_int_equal(s->model.norm, SHOAL_NORM_RMS);
    assert_int_equal(s->model.act, SHOAL_ACT_SWIGLU);
    assert_int_equal(s->model.rope, SHOAL_ROPE_HALF);
    assert_int_equal(s->model.pos, SHOAL_POS_NONE);
    assert_int_equal(s->model.ffn, 1408); /* 8/3 * 512 = 1365.3, rounded up to 64 */
    assert_int_equal(s->model.kv_heads, 2);
    assert_true(!s->model.qk_norm && !s->model.bias && !s->model.tied);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=12", "model.arch=gpt2", "model.rope=half", "model.tied=false"), 1, &s);
    assert_int_equal(s->model.pos, SHOAL_POS_LEARNED);
    assert_int_equal(s->model.act, SHOAL_ACT_GELU_TANH);
    assert_int_equal(s->model.rope, SHOAL_ROPE_HALF);
    assert_int_equal(s->model.layers, 12);
    assert_true(s->model.bias && !s->model.tied);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=3", "model.d_model=96", "model.layers=7"), 1, &s);
    assert_int_equal(s->model.head_dim, 32);
    assert_int_equal(s->model.layers, 7);
    shoal_config_free(config);
}

static void test_batch(void **state)
{
    (void)state;
    const shoal_spec_t *s;
    shoal_config_t     *config = make_ok(NULL, WORDS("model.heads=4", "batch.global=64"), 4, &s);
    assert_int_equal(s->batch.accumulate, 2);
    /* The same configuration for another number of ranks starts afresh. */
    assert_int_equal(shoal_config_resolve(config, 1, &s), SHOAL_OK);
    assert_int_equal(s->batch.accumulate, 8);
    assert_int_equal(s->batch.global, 64);
    capture_begin();
    assert_int_equal(shoal_config_resolve(config, 3, &s), SHOAL_ERR_CONFIG);
    capture_end();
    assert_int_equal(shoal_config_resolve(config, 8, &s), SHOAL_OK);
    assert_int_equal(s->batch.accumulate, 1);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=4", "batch.accumulate=3"), 5, &s);
    assert_int_equal(s->batch.global, 120);
    shoal_config_free(config);

    config = make_ok("model = { heads = 4; }; batch = { accumulate = 1; };", WORDS("batch.accumulate=auto", "batch.global=64"), 4, &s);
    assert_int_equal(s->batch.accumulate, 2);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=4", "batch.global=64", "batch.accumulate=2"), 4, &s);
    assert_int_equal(s->batch.global, 64);
    shoal_config_free(config);
}

static void test_optim(void **state)
{
    (void)state;
    const shoal_spec_t *s;
    /* N = 12 * 256^2 * 3 = 2359296 */
    shoal_config_t *config = make_ok(NULL, WORDS("model.heads=4", "optim.name=adamw"), 4, &s);
    assert_true(fabs(s->optim.lr / 0.00666268730746441 - 1) < 1e-12);
    assert_true(fabs(s->optim.wd / (4 / (s->optim.lr * 50)) - 1) < 1e-12);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=4", "optim.name=adamw", "batch.global=256"), 4, &s);
    assert_true(fabs(s->optim.lr / 0.007153103871217525 - 1) < 1e-12);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=4", "run.steps=1000"), 4, &s);
    assert_true(fabs(s->optim.lr / (223 * pow(2.40e6 + 2359296, -0.724)) - 1) < 1e-12);
    assert_true(s->optim.wd == 0.04);
    assert_int_equal(s->optim.warmup, 20);
    shoal_config_free(config);

    config = make_ok(NULL, WORDS("model.heads=4", "optim.name=dana-star", "optim.lr=0.5", "optim.wd=0"), 4, &s);
    assert_true(isinf(s->optim.snr_clip));
    assert_true(s->optim.lr == 0.5 && s->optim.wd == 0);
    shoal_config_free(config);
}

static void test_lists(void **state)
{
    (void)state;
    const shoal_spec_t *s;
    shoal_config_t     *config = make_ok("model = { heads = 4; };\nstudy = { nodes = [1, 2, 4]; ranks_per_node = 4; shard = (\"full\", \"none\"); };",
                                         WORDS("study.seeds=3,5", "batch.local=2"), 1, &s);
    assert_int_equal(s->study.nnodes, 3);
    assert_int_equal(s->study.nodes[2], 4);
    assert_int_equal(s->study.nranks_per_node, 1);
    assert_int_equal(s->study.ranks_per_node[0], 4);
    assert_int_equal(s->study.nshard, 2);
    assert_int_equal(s->study.shard[1], SHOAL_SHARD_NONE);
    assert_int_equal(s->study.nseeds, 2);
    assert_int_equal(s->study.seeds[1], 5);
    assert_int_equal(s->study.nlocal, 1);
    assert_int_equal(s->study.local[0], 2);
    shoal_config_free(config);
}

static void assert_entry(const json_t *all, const char *name, const char *value, const char *source)
{
    const json_t *entry = json_object_get(all, name);
    char         *text  = json_dumps(json_object_get(entry, "value"), JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
    assert_string_equal(text, value);
    assert_string_equal(json_string_value(json_object_get(entry, "source")), source);
    free(text);
}

static void test_sources(void **state)
{
    (void)state;
    shoal_config_t     *config;
    const shoal_spec_t *s;
    const char         *text    = "model = {\n heads = 4;\n seq = 8; };\nbatch = { local = 2; };\noptim = { lr = 0.5; };\n";
    char *const         words[] = {"model.seq=16", "optim.lr=auto", "optim.name=adana", "run.seed=0x10"};
    write_file("test.conf", text, strlen(text));
    assert_int_equal(shoal_config_load("test.conf", 4, words, &config), SHOAL_OK);

    json_t *all = shoal_config_to_json(config);
    assert_int_equal(json_object_size(all), shoal_nkeys);
    assert_entry(all, "model.layers", "\"auto\"", "default");
    json_decref(all);

    assert_int_equal(shoal_config_resolve(config, 2, &s), SHOAL_OK);
    all = shoal_config_to_json(config);
    assert_int_equal(json_object_size(all), shoal_nkeys);
    assert_entry(all, "model.heads", "4", "test.conf:2");
    assert_entry(all, "model.seq", "16", "command line");
    assert_entry(all, "model.layers", "3", "derived");
    assert_entry(all, "model.qk_norm", "true", "derived");
    assert_entry(all, "model.vocab", "50304", "default");
    assert_entry(all, "batch.local", "2", "test.conf:4");
    assert_entry(all, "batch.global", "4", "derived");
    assert_entry(all, "run.seed", "16", "command line");
    assert_entry(all, "optim.name", "\"adana\"", "command line");
    assert_entry(all, "optim.snr_clip", "\"inf\"", "derived");
    assert_entry(all, "study.nodes", "[1]", "default");
    assert_entry(all, "precision.reduce", "\"fp32\"", "default");
    assert_string_equal(json_string_value(json_object_get(json_object_get(all, "optim.lr"), "source")), "derived");
    json_decref(all);
    shoal_config_free(config);
}

/* Slips in the table itself: a default out of range would refuse every configuration, a name twice would hide one. */
static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < shoal_nkeys; i++) {
        assert_ptr_equal(shoal_key_find(shoal_keys[i].name), &shoal_keys[i]);
        assert_true(strlen(shoal_keys[i].name) < 64);
        assert_non_null(shoal_keys[i].help);
    }
}

static void test_edit_distance(void **state)
{
    (void)state;
    assert_int_equal(shoal_edit_distance("", ""), 0);
    assert_int_equal(shoal_edit_distance("train", "train"), 0);
    assert_int_equal(shoal_edit_distance("trian", "train"), 1);
    assert_int_equal(shoal_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(shoal_edit_distance("", "abc"), 3);
    assert_int_equal(shoal_edit_distance("abc", ""), 3);
}

/* Every example stands for one rank and for a node of eight. */
static void test_examples(void **state)
{
    (void)state;
    const char         *source = getenv("SHOAL_SRCDIR");
    char                pattern[1200];
    glob_t              found;
    shoal_config_t     *config;
    const shoal_spec_t *spec;
    snprintf(pattern, sizeof(pattern), "%s/examples/*.conf", source != NULL ? source : ".");
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        for (int nranks = 1; nranks <= 8; nranks += 7) {
            assert_int_equal(shoal_config_load(found.gl_pathv[i], 0, NULL, &config), SHOAL_OK);
            assert_int_equal(shoal_config_resolve(config, nranks, &spec), SHOAL_OK);
            shoal_config_free(config);
        }
    }
    globfree(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes), cmocka_unit_test(test_unreadable), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_presets),  cmocka_unit_test(test_batch),      cmocka_unit_test(test_optim),
        cmocka_unit_test(test_lists),    cmocka_unit_test(test_sources),    cmocka_unit_test(test_table),
        cmocka_unit_test(test_edit_distance), cmocka_unit_test(test_examples),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
