/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every configuration key at its lowest and its highest value, and with every choice: a small model with it is planned, or refused with
 * the exit code of a configuration (2) or of a plan that does not fit (3) and one line, in bounded time. And those keys that say how to compute
 * rather than what leave the losses of a short training alone, on one rank and on two. The values come from the table of keys; what a
 * key's law is stands here, and a key without one fails the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "base/json.h"
#include "runtime/execute/record.h"
#include "src/commands.h"
#include "src/config/keys.h"
#include "tests/child.h"

enum { NSTEPS = 3, MAX_VALUES = 16, VALUE_NBYTES = 512, LINE_NBYTES = 4096, DEADLINE_S = 300 };

/* What a key does to the losses of `shoal train`, all others being equal. */
typedef enum {
    CHANGES, /* it says what is computed: they may change in any way */
    ROUNDS,  /* sums are taken in another order: equal to 1e-6 in fp32 */
    KERNELS, /* every product may round otherwise: equal to 1e-5 in a few steps of AdamW */
    SAME,    /* equal to the bit */
    UNREAD,  /* by training, but for records; equal to the bit */
} law_t;

static const struct {
    const char *name;
    law_t       law;
    const char *with; /* words that the key needs beside it; NULL: none */
    const char *most; /* what training takes for the highest value, where that would only test the
                         machine */
} laws[] = {
    {"model.arch", CHANGES, NULL, NULL},
    {"model.heads", CHANGES, NULL, NULL},
    {"model.kv_heads", CHANGES, NULL, NULL},
    {"model.head_dim", CHANGES, NULL, NULL},
    {"model.d_model", CHANGES, NULL, NULL},
    {"model.layers", CHANGES, NULL, NULL},
    {"model.ffn", CHANGES, NULL, NULL},
    {"model.seq", CHANGES, NULL, NULL},
    {"model.vocab", CHANGES, NULL, NULL},
    {"model.norm", CHANGES, NULL, NULL},
    {"model.act", CHANGES, NULL, NULL},
    {"model.rope", CHANGES, NULL, NULL},
    {"model.pos", CHANGES, NULL, NULL},
    {"model.rope_theta", CHANGES, NULL, NULL},
    {"model.norm_eps", CHANGES, NULL, NULL},
    {"model.residual", CHANGES, NULL, NULL},
    {"model.z_loss", CHANGES, NULL, NULL},
    {"model.qk_norm", CHANGES, NULL, NULL},
    {"model.bias", CHANGES, NULL, NULL},
    {"model.tied", CHANGES, NULL, NULL},
    {"data.train", CHANGES, NULL, NULL},
    {"data.valid", SAME, NULL, NULL},
    {"data.order", CHANGES, NULL, NULL},
    {"batch.local", ROUNDS, NULL, NULL},
    {"batch.accumulate", CHANGES, "batch.global=auto", NULL},
    {"batch.global", CHANGES, NULL, NULL},
    {"batch.sync", ROUNDS, NULL, NULL},
    {"parallel.shard", ROUNDS, NULL, NULL},
    {"parallel.tp", SAME, NULL, NULL},
    {"parallel.prefetch", SAME, NULL, NULL},
    {"parallel.transport", ROUNDS, NULL, NULL},
    {"parallel.recompute", SAME, NULL, NULL},
    {"parallel.gather_ctas", SAME, NULL, NULL},
    {"parallel.reduce_ctas", SAME, NULL, NULL},
    {"parallel.gather_policy", SAME, NULL, NULL},
    {"parallel.windows", SAME, NULL, NULL},
    {"optim.name", CHANGES, NULL, NULL},
    {"optim.lr", CHANGES, NULL, NULL},
    {"optim.wd", CHANGES, NULL, NULL},
    {"optim.clip", CHANGES, NULL, NULL},
    {"optim.beta1", CHANGES, NULL, NULL},
    {"optim.beta2", CHANGES, NULL, NULL},
    {"optim.eps", CHANGES, NULL, NULL},
    {"optim.kappa", CHANGES, NULL, NULL},
    {"optim.snr_clip", CHANGES, NULL, NULL},
    {"optim.delta", CHANGES, NULL, NULL},
    {"optim.schedule", CHANGES, NULL, NULL},
    {"optim.warmup", CHANGES, NULL, NULL},
    {"precision.compute", CHANGES, NULL, NULL},
    {"precision.gather", CHANGES, NULL, NULL},
    {"precision.reduce", CHANGES, NULL, NULL},
    {"run.steps", CHANGES, NULL, NULL},
    {"run.seed", CHANGES, NULL, NULL},
    {"run.dir", SAME, NULL, NULL},
    {"run.device", SAME, NULL, NULL},
    {"run.variant", KERNELS, NULL, NULL},
    {"run.threads", ROUNDS, NULL, "3"},
    {"run.nan_steps", SAME, NULL, NULL},
    {"run.eval_every", SAME, "data.valid=tokens.bin", NULL},
    {"run.eval_batches", SAME, "data.valid=tokens.bin run.eval_every=1", "3"},
    {"run.trace_step", SAME, NULL, "3"},
    {"run.timeout_s", SAME, NULL, NULL},
    {"run.memory_gib", SAME, NULL, NULL},
    {"run.reserve_gib", SAME, NULL, NULL},
    {"run.head_chunk", ROUNDS, NULL, NULL},
    {"run.graph", SAME, NULL, NULL},
    {"run.deterministic", SAME, NULL, NULL},
    {"run.attention", SAME, NULL, NULL},
    {"run.tune", SAME, NULL, NULL},
    {"run.check_ops", SAME, NULL, NULL},
    {"study.nodes", UNREAD, NULL, NULL},
    {"study.ranks_per_node", UNREAD, NULL, NULL},
    {"study.shard", UNREAD, NULL, NULL},
    {"study.local", UNREAD, NULL, NULL},
    {"study.seeds", UNREAD, NULL, NULL},
    {"study.warmup", UNREAD, NULL, NULL},
    {"study.steps", UNREAD, NULL, NULL},
    {"study.gate_steps", UNREAD, NULL, NULL},
    {"study.gate_tolerance", UNREAD, NULL, NULL},
    {"study.timeout_s", UNREAD, NULL, NULL},
    {"study.launch_timeout_s", UNREAD, NULL, NULL},
    {"machine.flops", UNREAD, NULL, NULL},
    {"machine.memory_gbs", UNREAD, NULL, NULL},
    {"machine.node_link_gbs", UNREAD, NULL, NULL},
    {"machine.link_gbs", UNREAD, NULL, NULL},
    {"machine.latency_us", UNREAD, NULL, NULL},
    {"machine.ranks_per_node", UNREAD, NULL, NULL},
    {"machine.gpu", UNREAD, NULL, NULL},
};

enum { NLAWS = sizeof(laws) / sizeof(laws[0]) };

/* Twelve sequences a step; nothing divides by anything. */
static const char small[] = "model.heads=3 model.head_dim=6 model.layers=2 model.seq=11 "
                            "model.vocab=131 model.ffn=19 batch.global=12 "
                            "batch.local=2 optim.name=adamw optim.lr=0.003 optim.warmup=1 "
                            "precision.compute=fp32 run.steps=3 "
                            "run.device=cpu run.threads=1 run.timeout_s=60 run.dir=run "
                            "data.train=tokens.bin machine.flops=1e9 "
                            "machine.memory_gbs=1";

static size_t index_of_law(const char *name)
{
    size_t i = 0;
    while (i < NLAWS && strcmp(laws[i].name, name) != 0) {
        i++;
    }
    return i;
}

static void test_every_key_has_a_law(void **state)
{
    (void)state;
    for (size_t k = 0; k < shoal_nkeys; k++) {
        if (index_of_law(shoal_keys[k].name) == NLAWS) {
            fail_msg(
                "%s has no law: say in the table of tests/test_keys.c what it does to the losses",
                shoal_keys[k].name);
        }
    }
    for (size_t i = 0; i < NLAWS; i++) {
        if (shoal_key_find(laws[i].name) == NULL) {
            fail_msg("tests/test_keys.c: there is no key %s any more", laws[i].name);
        }
    }
}

typedef char value_t[VALUE_NBYTES];

static void format_bound(const shoal_key_t *key, double bound, value_t value_p)
{
    snprintf(value_p, VALUE_NBYTES, key->type == SHOAL_KEY_SIZE ? "%.0f" : "%.17g", bound);
}

/* The value as often as the list of the key may hold it. */
static void format_full_list(const shoal_key_t *key, const char *value, value_t value_p)
{
    char item[64];
    snprintf(item, sizeof(item), "%s", value);
    value_p[0] = '\0';
    for (size_t i = 0; i < key->capacity; i++) {
        size_t used = strlen(value_p);
        snprintf(value_p + used, VALUE_NBYTES - used, "%s%s", i > 0 ? "," : "", item);
    }
}

/* Lowest, highest, every choice, and "auto"; of a list the fullest as well. Keys with any string
 * have none. Returns how many. */
static size_t values_of(const shoal_key_t *key, value_t values_p[MAX_VALUES])
{
    size_t n = 0;
    if (key->type == SHOAL_KEY_SIZE || key->type == SHOAL_KEY_REAL) {
        format_bound(key, key->min, values_p[n++]);
        format_bound(key, key->max, values_p[n++]);
    } else if (key->type == SHOAL_KEY_BOOL) {
        snprintf(values_p[n++], VALUE_NBYTES, "true");
        snprintf(values_p[n++], VALUE_NBYTES, "false");
    }
    for (size_t c = 0; key->choices != NULL && key->choices[c] != NULL; c++) {
        assert_true(n < MAX_VALUES - 2);
        snprintf(values_p[n++], VALUE_NBYTES, "%s", key->choices[c]);
    }
    if (shoal_key_is_auto(key)) {
        snprintf(values_p[n++], VALUE_NBYTES, "auto");
    }
    if (key->capacity > 0) {
        format_full_list(key, values_p[0], values_p[n]);
        n++;
    }
    return n;
}

/* Exit code 2 or 3, and one line that says why. */
static bool is_refusal(const child_t *child)
{
    const char *first = strstr(child->err, "error: ");
    bool        one   = first != NULL && strstr(first + 1, "error: ") == NULL;
    return (child->code == 2 || child->code == 3) && one && child->out[0] == '\0';
}

static bool is_plan(const child_t *child)
{
    json_t *plan = json_loads(child->out, 0, NULL);
    bool    good = child->code == 0 && shoal_json_number(plan, "total_nbytes") > 0.0 &&
                isfinite(shoal_json_number(plan, "predicted_step_ms"));
    json_decref(plan);
    return good;
}

static void test_plan(void **state)
{
    value_t values[MAX_VALUES];
    child_t child;
    char    line[LINE_NBYTES];
    (void)state;
    unsetenv("SHOAL_DEBUG_CHECK"); /* it looks at every pair of ops, and some of these plans have a
                                      hundred thousand */
    for (size_t k = 0; k < shoal_nkeys; k++) {
        const char *with = laws[index_of_law(shoal_keys[k].name)].with;
        size_t      n    = values_of(&shoal_keys[k], values);
        for (size_t i = 0; i < n; i++) {
            snprintf(line, sizeof(line), "plan --json -n 2 /dev/null %s %s %s=%s", small,
                     with != NULL ? with : "", shoal_keys[k].name, values[i]);
            child_run(shoal_cmd_plan, line, DEADLINE_S, &child);
            if (!is_plan(&child) && !is_refusal(&child)) {
                fail_msg("shoal %s: exit code %d: %s", line, child.code, child.err);
            }
        }
    }
    setenv("SHOAL_DEBUG_CHECK", "1", 1);
}

/* False: refused, as is_refusal wants it. */
static bool train(int nranks, const char *words, double losses_p[NSTEPS])
{
    child_t child;
    char    line[LINE_NBYTES];
    snprintf(line, sizeof(line), "train -n %d /dev/null %s %s", nranks, small, words);
    child_run(shoal_cmd_train, line, DEADLINE_S, &child);
    size_t n = shoal_record_read_losses("run", NSTEPS, losses_p);
    child_remove_tree("run");
    if (child.code == 2 || child.code == 3) {
        return false;
    }
    if (child.code != 0 || n != NSTEPS) {
        fail_msg("shoal %s: exit code %d: %s", line, child.code, child.err);
    }
    return true;
}

static void check_losses(int nranks, const char *words, law_t law, const double *reference)
{
    double losses[NSTEPS], tolerance = law == ROUNDS ? 1e-6 : law == KERNELS ? 1e-5 : 0.0;
    if (!train(nranks, words, losses)) {
        return;
    }
    for (int t = 0; t < NSTEPS; t++) {
        if (!(fabs(losses[t] - reference[t]) <= tolerance * fabs(reference[t]))) {
            fail_msg("%d ranks with %s: the loss of step %d is %.9g instead of %.9g", nranks, words,
                     t + 1, losses[t], reference[t]);
        }
    }
}

/* MPI's plugins, unloaded at exit, look like leaks that have no name: as in tests/tests.am,
 * sanitizers are kept from them. */
static bool is_kept_away(const shoal_key_t *key, const char *value)
{
#ifdef __SANITIZE_ADDRESS__
    return strcmp(key->name, "parallel.transport") == 0 && strcmp(value, "mpi") == 0;
#else
    (void)key;
    (void)value;
    return false;
#endif
}

static void check_key(const shoal_key_t *key, int nranks, const double *reference)
{
    value_t values[MAX_VALUES];
    size_t  law = index_of_law(key->name), n = values_of(key, values);
    for (size_t i = 0; i < n; i++) {
        char        words[LINE_NBYTES];
        bool        most = laws[law].most != NULL && i == 1;
        const char *with = laws[law].with;
        snprintf(words, sizeof(words), "%s %s=%s", with != NULL ? with : "", key->name,
                 most ? laws[law].most : values[i]);
        if (!is_kept_away(key, values[i])) {
            check_losses(nranks, words, laws[law].law, reference);
        }
    }
}

static void test_losses(void **state)
{
    (void)state;
    for (int nranks = 1; nranks <= 2; nranks++) {
        double reference[NSTEPS];
        assert_true(train(nranks, "", reference));
        assert_true(reference[0] > 0.0 && reference[2] < reference[0]);
        for (size_t k = 0; k < shoal_nkeys; k++) {
            law_t law = laws[index_of_law(shoal_keys[k].name)].law;
            if (law != CHANGES && (law != UNREAD || nranks == 1)) {
                check_key(&shoal_keys[k], nranks, reference);
            }
        }
    }
}

/* What a plan says is what a run uses, where the number of threads is nobody's order but follows
 * from cores and ranks. */
static void test_plan_is_use(void **state)
{
    child_t child;
    char    line[LINE_NBYTES];
    char   *threads = getenv("OMP_NUM_THREADS");
    threads         = threads != NULL ? strdup(threads) : NULL;
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    for (int nranks = 1; nranks <= 3; nranks++) {
        snprintf(line, sizeof(line), "train -n %d /dev/null %s run.threads=0", nranks, small);
        child_run(shoal_cmd_train, line, DEADLINE_S, &child);
        assert_int_equal(child.code, 0);
        json_t *summary = shoal_json_read("run", "summary.json", 0, NULL);
        snprintf(line, sizeof(line), "plan --json -n %d /dev/null %s run.threads=0", nranks, small);
        child_run(shoal_cmd_plan, line, DEADLINE_S, &child);
        json_t *plan = json_loads(child.out, 0, NULL);
        assert_true(shoal_json_number(plan, "total_nbytes") ==
                    shoal_json_number(summary, "used_nbytes"));
        assert_true(shoal_json_number(plan, "threads") >= 1.0);
        json_decref(plan);
        json_decref(summary);
        child_remove_tree("run");
    }
    if (threads != NULL) {
        setenv("OMP_NUM_THREADS", threads, 1);
    }
    free(threads);
}

static char directory[256];

/* A directory of our own, with tokens. */
static int enter(void **state)
{
    const char *above = getenv("TMPDIR");
    (void)state;
    snprintf(directory, sizeof(directory), "%s/shoal-keys-XXXXXX", above != NULL ? above : "/tmp");
    if (mkdtemp(directory) == NULL || chdir(directory) != 0) {
        return -1;
    }
    FILE    *file = fopen("tokens.bin", "wb");
    uint32_t x    = 1;
    for (int i = 0; file != NULL && i < 3000; i++) {
        x = x * 1664525u + 1013904223u;
        fputc((int)((x >> 24) % 131), file);
        fputc(0, file);
    }
    return file != NULL && fclose(file) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    if (chdir("/") == 0) {
        child_remove_tree(directory);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key_has_a_law),
        cmocka_unit_test(test_plan_is_use),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
