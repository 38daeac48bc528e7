/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rows and references have the same form in study.json, because they are the same thing: a run with a name, a batch
 * and an end.
 */
#include "src/study/state.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"

static const char *const gate_names[SHOAL_GATE_COUNT] = {
    [SHOAL_GATE_NONE]         = "none",
    [SHOAL_GATE_OFF]          = "off",
    [SHOAL_GATE_IS_REFERENCE] = "is reference",
    [SHOAL_GATE_COMPARED]     = "compared",
};

/* ---- The configuration ---- */

/* The grid, what rows set themselves, and what does not change a result that stands. */
static bool is_shared_key(const char *key)
{
    static const char *const others[] = {
        "study.nodes", "study.ranks_per_node", "study.local", "study.shard", "study.seeds",
        "study.timeout_s", "study.launch_timeout_s", "batch.local", "batch.global", "run.seed",
        "run.steps", "parallel.shard", "run.dir",
        /* These follow from the batch and the steps where they are not given. */
        "optim.lr", "optim.wd", "optim.warmup"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(key, others[i]) == 0) {
            return false;
        }
    }
    return true;
}

/* Whether a key of the list above was nevertheless given: then it is the same for all rows. */
static bool is_given_optim(const char *key, const json_t *entry)
{
    const char *source = json_string_value(json_object_get(entry, "source"));
    return strncmp(key, "optim.", 6) == 0 && source != NULL && strcmp(source, "derived") != 0;
}

json_t *shoal_study_shared_keys(const json_t *config)
{
    json_t     *shared = json_object();
    const char *key;
    json_t     *entry;
    /* jansson's loop wants a writable object but does not write to it. */
    json_object_foreach((json_t *)(uintptr_t)config, key, entry) {
        if (is_shared_key(key) || is_given_optim(key, entry)) {
            json_object_set(shared, key, json_object_get(entry, "value"));
        }
    }
    return shared;
}

/* Says what differs. Returns whether anything does. */
static bool config_changed(const json_t *before, const json_t *now)
{
    size_t      ndifferent = 0;
    const char *key;
    json_t     *value;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        json_t *old = json_object_get(before, key);
        if (old != NULL && json_equal(old, value)) {
            continue;
        }
        char *was = old == NULL ? NULL : json_dumps(old, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        char *is  = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        shoal_warn("%s was %s in this study and is %s now", key, was == NULL ? "not set" : was, is == NULL ? "?" : is);
        free(was);
        free(is);
        ndifferent++;
    }
    return ndifferent > 0;
}

/* ---- Rows ---- */

static json_t *gate_to_json(const shoal_gate_t *gate)
{
    json_t *json = json_pack("{s:s}", "kind", gate_names[gate->kind]);
    if (gate->reference[0] != '\0') {
        json_object_set_new(json, "reference", json_string(gate->reference));
    }
    if (gate->kind == SHOAL_GATE_COMPARED) {
        json_object_set_new(json, "difference", isfinite(gate->difference) ? json_real(gate->difference) : json_null());
        json_object_set_new(json, "step", json_integer((json_int_t)gate->step));
    }
    return json;
}

static json_t *row_to_json(const shoal_study_row_t *row)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:i, s:I, s:o, s:o, s:o}",
                     "name", row->name,
                     "nodes", (json_int_t)row->nodes,
                     "ranks_per_node", (json_int_t)row->ranks_per_node,
                     "ranks", (json_int_t)row->ranks,
                     "local", (json_int_t)row->local,
                     "accumulate", (json_int_t)row->accumulate,
                     "global", (json_int_t)row->global,
                     "seed", (json_int_t)row->seed,
                     "shard", shoal_shard_name(row->shard),
                     "verdict", shoal_verdict_name(row->verdict),
                     "exit_code", row->exit_code,
                     "tries", (json_int_t)row->tries,
                     "detail", shoal_json_escaped(row->detail),
                     "tail", shoal_json_escaped(row->tail),
                     "gate", gate_to_json(&row->gate));
}

static void copy_text(const json_t *json, const char *key, size_t nbytes, char *text_p)
{
    const char *text = shoal_json_text(json, key);
    snprintf(text_p, nbytes, "%s", text == NULL ? "" : text);
}

static size_t get_size(const json_t *json, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(json, key));
    return value < 0 ? 0 : (size_t)value;
}

static shoal_gate_t gate_from_json(const json_t *json)
{
    shoal_gate_t gate = {.difference = shoal_json_number(json, "difference"), .step = get_size(json, "step")};
    const char  *kind = shoal_json_text(json, "kind");
    copy_text(json, "reference", sizeof(gate.reference), gate.reference);
    for (int k = 0; k < SHOAL_GATE_COUNT; k++) {
        if (kind != NULL && strcmp(kind, gate_names[k]) == 0) {
            gate.kind = (shoal_gate_kind_t)k;
        }
    }
    return gate;
}

static shoal_shard_t shard_from_name(const char *name)
{
    for (int s = SHOAL_SHARD_FULL; name != NULL && s <= SHOAL_SHARD_NONE; s++) {
        if (strcmp(name, shoal_shard_name((shoal_shard_t)s)) == 0) {
            return (shoal_shard_t)s;
        }
    }
    return SHOAL_SHARD_FULL;
}

static shoal_study_row_t row_from_json(const json_t *json)
{
    shoal_study_row_t row = {
        .nodes          = get_size(json, "nodes"),
        .ranks_per_node = get_size(json, "ranks_per_node"),
        .ranks          = get_size(json, "ranks"),
        .local          = get_size(json, "local"),
        .accumulate     = get_size(json, "accumulate"),
        .global         = get_size(json, "global"),
        .seed           = get_size(json, "seed"),
        .shard          = shard_from_name(shoal_json_text(json, "shard")),
        .verdict        = shoal_verdict_from_name(shoal_json_text(json, "verdict")),
        .exit_code      = (int)json_integer_value(json_object_get(json, "exit_code")),
        .tries          = get_size(json, "tries"),
        .gate           = gate_from_json(json_object_get(json, "gate")),
    };
    copy_text(json, "name", sizeof(row.name), row.name);
    copy_text(json, "detail", sizeof(row.detail), row.detail);
    copy_text(json, "tail", sizeof(row.tail), row.tail);
    return row;
}

/* Rows of the grid take over how they ended, and nothing else of the file; others are kept at the end. */
static shoal_status_t merge(const json_t *array, shoal_study_row_t **rows_p, size_t *n_p)
{
    size_t  i;
    json_t *json;
    json_array_foreach(array, i, json) {
        shoal_study_row_t  old = row_from_json(json);
        shoal_study_row_t *row = shoal_study_find(*rows_p, *n_p, old.name);
        if (row == NULL) {
            SHOAL_TRY(shoal_study_append(rows_p, n_p, &old));
        } else {
            row->verdict   = old.verdict;
            row->exit_code = old.exit_code;
            row->tries     = old.tries;
            row->gate      = old.gate;
            memcpy(row->detail, old.detail, sizeof(row->detail));
            memcpy(row->tail, old.tail, sizeof(row->tail));
        }
    }
    return SHOAL_OK;
}

/* ---- The file ---- */

shoal_status_t shoal_study_load(shoal_study_t *study)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/study.json", study->dir) >= PATH_MAX || access(path, F_OK) != 0) {
        return SHOAL_OK;
    }
    char    why[256] = "study.json: it has no list of rows";
    json_t *json     = shoal_json_read(study->dir, "study.json", sizeof(why), why);
    if (json == NULL || !json_is_array(json_object_get(json, "rows"))) {
        shoal_error("%s is damaged or not from a study; move it away to begin anew (%s)", path, why);
        json_decref(json);
        return SHOAL_ERR_DATA;
    }
    shoal_status_t status = SHOAL_OK;
    if (config_changed(json_object_get(json, "config"), study->config)) {
        shoal_warn("the configuration has changed: every row runs again");
    } else {
        status = merge(json_object_get(json, "rows"), &study->rows, &study->nrows);
        if (status == SHOAL_OK) {
            status = merge(json_object_get(json, "references"), &study->references, &study->nreferences);
        }
    }
    json_decref(json);
    return status;
}

static json_t *rows_to_json(const shoal_study_row_t *rows, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(array, row_to_json(&rows[i]));
    }
    return array;
}

static void set_text(json_t *json, const char *key, const char *text)
{
    if (text != NULL) {
        json_object_set_new(json, key, shoal_json_escaped(text));
    }
}

shoal_status_t shoal_study_save(const shoal_study_t *study)
{
    char      date[32];
    time_t    now = time(NULL);
    struct tm local;
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M", localtime_r(&now, &local));
    json_t *json = json_pack("{s:s, s:s, s:{s:I, s:f}, s:O, s:o, s:o}",
                             "launcher", study->slurm ? "slurm" : "local",
                             "updated", date,
                             "gate", "steps", (json_int_t)study->gate_steps, "tolerance", study->spec->study.gate_tolerance,
                             "config", study->config,
                             "rows", rows_to_json(study->rows, study->nrows),
                             "references", rows_to_json(study->references, study->nreferences));
    set_text(json, "config_file", study->config_path);
    set_text(json, "train_command", study->train_command);
    set_text(json, "cluster", study->slurm ? getenv("SLURM_CLUSTER_NAME") : NULL);
    set_text(json, "job", study->slurm ? getenv("SLURM_JOB_ID") : NULL);
    shoal_status_t status = shoal_json_write(study->dir, "study.json", json);
    json_decref(json);
    return status;
}
