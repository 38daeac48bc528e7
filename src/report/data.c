/* SPDX-License-Identifier: BSD-3-Clause */
/* Loading, and what follows from comparing rows with each other. */
#include "src/report/data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "base/quantile.h"
#include "src/report/damage.h"
#include "src/report/text.h"

enum { WHY_NBYTES = 300 };

/* ---- Reading ---- */

json_t *shoal_report_config(const json_t *run, const char *key)
{
    return json_object_get(json_object_get(json_object_get(run, "config"), key), "value");
}

/* Made fit to print; a character that the end cuts through becomes question marks too. */
static void copy_text(const char *text, size_t nbytes, char *text_p)
{
    snprintf(text_p, nbytes, "%s", text == NULL ? "" : text);
    shoal_text_clean(text_p);
}

/* A row whose records cannot be believed: it has no speed, and says why; `dir` is where the file is, ended by a slash. */
static void mark_damaged(shoal_report_row_t *row, const char *dir, const char *why)
{
    row->ok = false;
    copy_text(SHOAL_DAMAGED, sizeof(row->verdict), row->verdict);
    snprintf(row->detail, sizeof(row->detail), "%s%s", dir, why);
    shoal_text_clean(row->detail);
    shoal_warn("report: %s: %s", row->name, row->detail);
}

static size_t get_size(const json_t *json)
{
    json_int_t value = json_integer_value(json);
    return value < 0 ? 0 : (size_t)value;
}

/* Names of shardings alone stand in labels, columns and the scripts of plots. */
static void copy_shard(const char *name, char shard_p[8])
{
    snprintf(shard_p, 8, "%s", shoal_damage_is_shard(name) ? name : "?");
}

static void read_measures(shoal_report_row_t *row)
{
    const json_t *summary = row->ok ? row->summary : NULL;
    row->tokens_per_s     = shoal_json_number(summary, "tokens_per_s.median");
    row->step_ms          = shoal_json_number(summary, "step_ms.median");
    row->exposed_ms       = shoal_json_number(summary, "exposed_ms");
    row->comm_ms          = shoal_json_number(summary, "comm_ms");
}

static void format_gate(const json_t *gate, size_t nbytes, char *text_p)
{
    const char *kind = shoal_json_text(gate, "kind");
    copy_text("–", nbytes, text_p);
    if (kind == NULL) {
        return;
    }
    if (strcmp(kind, "compared") == 0) {
        double difference = shoal_json_number(gate, "difference");
        snprintf(text_p, nbytes, isfinite(difference) ? "%.1e" : "not a number", difference);
    } else if (strcmp(kind, "is reference") == 0) {
        copy_text("is the reference", nbytes, text_p);
    } else if (strcmp(kind, "off") == 0) {
        copy_text("off", nbytes, text_p);
    } else if (shoal_json_text(gate, "reference") != NULL) {
        copy_text("no reference", nbytes, text_p);
    }
}

/* Only a row that ended well must have its records; what others left is shown where it can be read. */
static void read_records(shoal_report_row_t *row, const char *dir)
{
    char path[PATH_MAX + 128], below[128], why_run[WHY_NBYTES], why[WHY_NBYTES];
    snprintf(below, sizeof(below), "rows/%s/", row->name);
    snprintf(path, sizeof(path), "%s/%s", dir, below);
    row->run     = shoal_json_read(path, "run.json", sizeof(why_run), why_run);
    row->summary = shoal_json_read(path, "summary.json", sizeof(why), why);
    bool usable  = row->summary != NULL && shoal_damage_check_summary(row->summary, sizeof(why), why);
    if (row->ok && !usable) {
        mark_damaged(row, below, why);
    } else if (row->ok && row->run == NULL) {
        mark_damaged(row, below, why_run);
    }
}

static shoal_report_row_t row_of_study(const char *dir, const json_t *json, size_t index)
{
    char               why[WHY_NBYTES];
    shoal_report_row_t row = {
        .nodes          = get_size(json_object_get(json, "nodes")),
        .ranks_per_node = get_size(json_object_get(json, "ranks_per_node")),
        .ranks          = get_size(json_object_get(json, "ranks")),
        .local          = get_size(json_object_get(json, "local")),
        .accumulate     = get_size(json_object_get(json, "accumulate")),
        .global         = get_size(json_object_get(json, "global")),
        .seed           = json_integer_value(json_object_get(json, "seed")),
    };
    copy_text(shoal_json_text(json, "name"), sizeof(row.name), row.name);
    copy_shard(shoal_json_text(json, "shard"), row.shard);
    copy_text(shoal_json_text(json, "verdict"), sizeof(row.verdict), row.verdict);
    copy_text(shoal_json_text(json, "detail"), sizeof(row.detail), row.detail);
    copy_text(shoal_json_text(json, "tail"), sizeof(row.tail), row.tail);
    format_gate(json_object_get(json, "gate"), sizeof(row.gate), row.gate);
    row.ok = strcmp(row.verdict, "ok") == 0;
    if (shoal_damage_check_entry(json, index, sizeof(why), why)) {
        read_records(&row, dir);
    } else {
        snprintf(row.name, sizeof(row.name), "rows[%zu]", index); /* its own name may be anything */
        mark_damaged(&row, "", why);
    }
    return row;
}

/* A single run: the numbers come from its own records, and there is nothing to compare its losses with. */
static shoal_report_row_t row_of_run(json_t *run, json_t *summary)
{
    const char        *status = shoal_json_text(summary, "status");
    const json_t      *seed   = shoal_report_config(run, "run.seed");
    shoal_report_row_t row    = {
           .nodes          = get_size(shoal_json_at(run, "mesh.nodes")),
           .ranks_per_node = get_size(shoal_json_at(run, "mesh.ranks_per_node")),
           .ranks          = get_size(shoal_json_at(run, "mesh.ranks")),
           .local          = get_size(shoal_report_config(run, "batch.local")),
           .accumulate     = get_size(shoal_report_config(run, "batch.accumulate")),
           .global         = get_size(shoal_report_config(run, "batch.global")),
           .seed           = seed == NULL ? -1 : json_integer_value(seed),
           .run            = run,
           .summary        = summary,
    };
    copy_text("run", sizeof(row.name), row.name);
    copy_shard(shoal_json_text(run, "mesh.shard"), row.shard);
    copy_text(status == NULL ? "no summary" : status, sizeof(row.verdict), row.verdict);
    copy_text(shoal_json_text(summary, "message"), sizeof(row.detail), row.detail);
    copy_text("–", sizeof(row.gate), row.gate);
    row.ok = status != NULL && strcmp(status, "ok") == 0;
    return row;
}

/* The verdict "no summary" is left to a run that has none: it was killed, or still runs. */
static void check_run(shoal_report_row_t *row, const char *dir, const char *why_run, const char *why_summary)
{
    char path[PATH_MAX + 16], why[WHY_NBYTES];
    snprintf(path, sizeof(path), "%s/summary.json", dir);
    if (row->run == NULL) {
        mark_damaged(row, "", why_run);
    } else if (row->summary == NULL && access(path, F_OK) == 0) {
        mark_damaged(row, "", why_summary);
    } else if (!shoal_damage_check_mesh(row->run, sizeof(why), why) ||
               (row->ok && !shoal_damage_check_summary(row->summary, sizeof(why), why))) {
        mark_damaged(row, "", why);
    }
}

static shoal_status_t load_rows(shoal_report_t *report)
{
    const json_t *rows = json_object_get(report->study, "rows");
    if (!json_is_array(rows)) {
        shoal_error("%s/study.json: it has no list of rows", report->dir);
        return SHOAL_ERR_DATA;
    }
    report->rows       = calloc(json_array_size(rows) + 1, sizeof(*report->rows));
    if (report->rows == NULL) {
        shoal_error("no memory for %zu rows", json_array_size(rows));
        return SHOAL_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        report->rows[report->nrows++] = row_of_study(report->dir, json_array_get(rows, i), i);
    }
    return SHOAL_OK;
}

static shoal_status_t load_run(shoal_report_t *report)
{
    char    why_run[WHY_NBYTES], why_summary[WHY_NBYTES];
    json_t *run     = shoal_json_read(report->dir, "run.json", sizeof(why_run), why_run);
    json_t *summary = shoal_json_read(report->dir, "summary.json", sizeof(why_summary), why_summary);
    report->rows    = calloc(1, sizeof(*report->rows));
    if (report->rows == NULL || (run == NULL && summary == NULL)) {
        shoal_error("%s holds neither a study (study.json) nor a run: %s; %s", report->dir, why_run, why_summary);
        json_decref(run);
        json_decref(summary);
        return SHOAL_ERR_DATA;
    }
    report->rows[report->nrows++] = row_of_run(run, summary);
    check_run(&report->rows[0], report->dir, why_run, why_summary);
    return SHOAL_OK;
}

/* ---- Comparing ---- */

static int by_ranks(const void *a, const void *b)
{
    const shoal_report_row_t *x = a, *y = b;
    if (x->ranks != y->ranks) {
        return x->ranks < y->ranks ? -1 : 1;
    }
    return x->nodes != y->nodes ? (x->nodes < y->nodes ? -1 : 1) : strcmp(x->name, y->name);
}

static bool same_series(const shoal_report_row_t *a, const shoal_report_row_t *b)
{
    return a->local == b->local && a->accumulate == b->accumulate && a->seed == b->seed && strcmp(a->shard, b->shard) == 0;
}

static void find_varying(shoal_report_t *report)
{
    for (size_t i = 1; i < report->nrows; i++) {
        report->many_shards = report->many_shards || strcmp(report->rows[i].shard, report->rows[0].shard) != 0;
        report->many_locals = report->many_locals || report->rows[i].local != report->rows[0].local;
        report->many_seeds  = report->many_seeds || report->rows[i].seed != report->rows[0].seed;
    }
}

static void compare_rows(shoal_report_t *report)
{
    for (size_t i = 0; i < report->nrows; i++) {
        shoal_report_row_t *row  = &report->rows[i];
        size_t              base = 0;
        while (base < i && !(report->rows[base].ok && same_series(row, &report->rows[base]))) {
            base++;
        }
        const shoal_report_row_t *first = &report->rows[base];
        row->base                = base;
        row->tokens_per_s_linear = row->ok ? first->tokens_per_s * (double)row->ranks / (double)first->ranks : NAN;
        /* A single run has nothing to be efficient against. */
        row->efficiency = report->study == NULL ? NAN : row->tokens_per_s / row->tokens_per_s_linear;
    }
}

static void label_row(const shoal_report_t *report, shoal_report_row_t *row)
{
    char varying[64] = "", ticks[40] = "";
    size_t n = 0, t = 0;
    if (report->many_shards) {
        n += (size_t)snprintf(varying + n, sizeof(varying) - n, ", %s", row->shard);
        t += (size_t)snprintf(ticks + t, sizeof(ticks) - t, " %s", row->shard);
    }
    if (report->many_locals) {
        n += (size_t)snprintf(varying + n, sizeof(varying) - n, ", batch %zu", row->local);
        t += (size_t)snprintf(ticks + t, sizeof(ticks) - t, " b%zu", row->local);
    }
    if (report->many_seeds) {
        snprintf(varying + n, sizeof(varying) - n, ", seed %lld", (long long)row->seed);
        snprintf(ticks + t, sizeof(ticks) - t, " s%lld", (long long)row->seed);
    }
    const char *ranks = row->ranks == 1 ? "" : "s";
    if (report->local) {
        snprintf(row->label, sizeof(row->label), "%zu local %s%s%s", row->ranks, report->unit, ranks, varying);
        snprintf(row->tick, sizeof(row->tick), "%zu%s", row->ranks, ticks);
    } else {
        snprintf(row->label, sizeof(row->label), "%zu %s%s across %zu node%s%s", row->ranks, report->unit, ranks, row->nodes,
                 row->nodes == 1 ? "" : "s", varying);
        snprintf(row->tick, sizeof(row->tick), "%zux%zu%s", row->nodes, row->ranks_per_node, ticks);
    }
}

static const char *unit_of(const shoal_report_t *report)
{
    const shoal_report_row_t *first  = shoal_report_first_run(report);
    const char               *device = first == NULL ? NULL : shoal_json_text(first->run, "mesh.device");
    return device != NULL && strncmp(device, "cuda", 4) == 0 ? "GPU" : "rank";
}

shoal_status_t shoal_report_load(const char *dir, shoal_report_t *report_p)
{
    char path[PATH_MAX + 16], why[WHY_NBYTES];
    *report_p = (shoal_report_t){.unit = "rank"};
    snprintf(report_p->dir, sizeof(report_p->dir), "%s", dir);
    report_p->study        = shoal_json_read(dir, "study.json", sizeof(why), why);
    if (report_p->study == NULL && snprintf(path, sizeof(path), "%s/study.json", dir) > 0 && access(path, F_OK) == 0) {
        shoal_error("%s/%s", dir, why);
        return SHOAL_ERR_DATA;
    }
    const char *launcher   = shoal_json_text(report_p->study, "launcher");
    report_p->local        = launcher != NULL && strcmp(launcher, "local") == 0;
    SHOAL_TRY(report_p->study == NULL ? load_run(report_p) : load_rows(report_p));
    qsort(report_p->rows, report_p->nrows, sizeof(*report_p->rows), by_ranks);
    find_varying(report_p);
    report_p->unit = unit_of(report_p);
    for (size_t i = 0; i < report_p->nrows; i++) {
        read_measures(&report_p->rows[i]);
        label_row(report_p, &report_p->rows[i]);
    }
    compare_rows(report_p);
    return SHOAL_OK;
}

void shoal_report_free(shoal_report_t *report)
{
    for (size_t i = 0; i < report->nrows; i++) {
        json_decref(report->rows[i].run);
        json_decref(report->rows[i].summary);
    }
    free(report->rows);
    json_decref(report->study);
    *report = (shoal_report_t){.nrows = 0};
}

/* ---- Questions ---- */

const shoal_report_row_t *shoal_report_first_run(const shoal_report_t *report)
{
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].run != NULL) {
            return &report->rows[i];
        }
    }
    return NULL;
}

const shoal_report_row_t *shoal_report_largest(const shoal_report_t *report)
{
    for (size_t i = report->nrows; i > 0; i--) {
        if (report->rows[i - 1].ok) {
            return &report->rows[i - 1];
        }
    }
    return NULL;
}

size_t shoal_report_count_sizes(const shoal_report_t *report)
{
    size_t count = 0, last = 0;
    for (size_t i = 0; i < report->nrows; i++) { /* sorted by ranks */
        if (report->rows[i].ok && report->rows[i].ranks != last) {
            last = report->rows[i].ranks;
            count++;
        }
    }
    return count;
}

double shoal_report_rank_mean(const json_t *summary, const char *field)
{
    const json_t *ranks = json_object_get(summary, "per_rank");
    double        sum   = 0;
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        sum += shoal_json_number(json_array_get(ranks, i), field);
    }
    return json_array_size(ranks) == 0 ? NAN : sum / (double)json_array_size(ranks);
}

/* Data is fetched while the rank itself waits, so it counts as its work. Not known everywhere: then it counts as none. */
static double own_work_ms(const json_t *rank)
{
    double data_ms = shoal_json_number(rank, "data_ms");
    return shoal_json_number(rank, "compute_ms") + (isfinite(data_ms) ? data_ms : 0);
}

shoal_report_slowest_t shoal_report_slowest(const json_t *summary)
{
    shoal_report_slowest_t slowest = {.rank = -1, .work_ms = NAN, .median_ms = NAN};
    const json_t          *ranks   = json_object_get(summary, "per_rank");
    size_t                 n       = json_array_size(ranks);
    double                *work    = malloc((n + 1) * sizeof(*work));
    for (size_t i = 0; work != NULL && n > 1 && i < n; i++) {
        const json_t *rank = json_array_get(ranks, i);
        work[i]            = own_work_ms(rank);
        if (!isfinite(work[i])) {
            free(work);
            return (shoal_report_slowest_t){.rank = -1, .work_ms = NAN, .median_ms = NAN};
        }
        if (slowest.rank < 0 || work[i] > slowest.work_ms) {
            slowest.rank    = (int)json_integer_value(json_object_get(rank, "rank"));
            slowest.host    = shoal_json_text(rank, "host");
            slowest.work_ms = work[i];
        }
    }
    if (slowest.rank >= 0) {
        slowest.median_ms = shoal_quantile(work, n, 0.5);
    }
    free(work);
    return slowest;
}
