/* SPDX-License-Identifier: BSD-3-Clause */
/* Speed: how it scales, how sharding and batch change it, what communication costs, and which rank is slow. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "src/report/sections.h"
#include "src/report/text.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* More ranks than this make a table that nobody reads; the slowest has been named above it. */
enum { MOST_RANKS = 64 };

static double number(const shoal_report_row_t *row, const char *path)
{
    return row->ok ? shoal_json_number(row->summary, path) : NAN;
}

static void add_label(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    shoal_doc_cell(doc, "%s", row->label);
}

static void add_verdict(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    shoal_doc_cell(doc, "%s", row->verdict);
    shoal_doc_mark(doc, row->ok ? SHOAL_DOC_GOOD : strcmp(row->verdict, "pending") == 0 ? SHOAL_DOC_MUTED : SHOAL_DOC_BAD);
}

/* ---- Scaling ---- */

static void add_scaling_row(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    double elapsed_s = number(row, "elapsed_s");
    add_label(row, doc);
    shoal_doc_cell(doc, "%s", shoal_text_count(number(row, "total_tokens")).s);
    shoal_doc_cell(doc, "%s", shoal_text_count(row->tokens_per_s).s);
    shoal_doc_cell(doc, "%s", shoal_text_count(row->tokens_per_s / (double)row->ranks).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(elapsed_s, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(elapsed_s / 60, 1).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(row->efficiency).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(row->exposed_ms / row->step_ms).s);
    shoal_doc_cell(doc, "%s", row->gate);
    add_verdict(row, doc);
}

static void explain_scaling(const shoal_report_t *report, shoal_doc_t *doc)
{
    const shoal_report_row_t *row  = shoal_report_largest(report);
    double                    steps = row == NULL ? NAN : number(row, "steps");
    double                    warmup = row == NULL ? NAN : number(row, "warmup_steps");
    shoal_doc_paragraph(doc,
                        "Throughput is tokens per step over the median time of a whole step, optimizer included, of the "
                        "%s steps after %s of warm-up. Each token counts once. Total tokens and elapsed time are of all "
                        "steps. Exposed: the part of a step in which compute waited for communication.",
                        shoal_text_fixed(steps - warmup, 0).s, shoal_text_fixed(warmup, 0).s);
    if (report->study != NULL) {
        shoal_doc_paragraph(doc,
                            "Efficiency: throughput per %s over that of the smallest row that differs in the number of "
                            "ranks only. Loss gate: the largest relative difference of the first %s losses from those of"
                            " one rank with the same global batch and seed; a row above %s is a wrong loss, and its "
                            "speed does not count.",
                            report->unit, shoal_text_fixed(shoal_json_number(report->study, "gate.steps"), 0).s,
                            shoal_text_percent(shoal_json_number(report->study, "gate.tolerance")).s);
    }
}

void shoal_section_scaling(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc)
{
    char per_unit[48];
    snprintf(per_unit, sizeof(per_unit), "Throughput per %s", report->unit);
    const char *const columns[] = {"<Configuration",     "Total Tokens Processed", "Overall Throughput (tokens/sec)",
                                   per_unit,             "Elapsed Time (s)",       "Elapsed Time (min)",
                                   "Efficiency",         "Exposed comm",           "Loss gate",
                                   "<Verdict"};
    shoal_doc_heading(doc, report->study == NULL ? "Throughput" : "Weak scaling");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        add_scaling_row(&report->rows[i], doc);
    }
    explain_scaling(report, doc);
    shoal_drawn_add(drawn, "throughput", doc);
    shoal_drawn_add(drawn, "multiplier", doc);
    shoal_drawn_add(drawn, "loss", doc);
}

/* ---- Sharding and batch compared ---- */

/* Two rows are alike but for what is compared. */
static bool alike(const shoal_report_row_t *a, const shoal_report_row_t *b, bool compare_shards)
{
    bool same = a->nodes == b->nodes && a->ranks_per_node == b->ranks_per_node && a->seed == b->seed;
    return same && (compare_shards ? a->local == b->local : strcmp(a->shard, b->shard) == 0);
}

static bool same_column(const shoal_report_row_t *a, const shoal_report_row_t *b, bool compare_shards)
{
    return compare_shards ? strcmp(a->shard, b->shard) == 0 : a->local == b->local;
}

/* The first row of each column, in the order of the rows (shards) or of their size (batches). Returns how many. */
static size_t find_columns(const shoal_report_t *report, bool compare_shards, const shoal_report_row_t **columns_p)
{
    size_t n = 0;
    for (size_t i = 0; i < report->nrows; i++) {
        size_t at = 0;
        while (at < n && !same_column(columns_p[at], &report->rows[i], compare_shards)) {
            at++;
        }
        if (at < n) {
            continue;
        }
        for (at = n++; at > 0 && !compare_shards && columns_p[at - 1]->local > report->rows[i].local; at--) {
            columns_p[at] = columns_p[at - 1];
        }
        columns_p[at] = &report->rows[i];
    }
    return n;
}

/* The first row of its line in the table: no earlier one is alike. */
static bool leads_line(const shoal_report_t *report, size_t i, bool compare_shards)
{
    for (size_t j = 0; j < i; j++) {
        if (alike(&report->rows[i], &report->rows[j], compare_shards)) {
            return false;
        }
    }
    return true;
}

static const shoal_report_row_t *cell_of(const shoal_report_t *report, const shoal_report_row_t *line,
                                         const shoal_report_row_t *column, bool compare_shards)
{
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (alike(line, row, compare_shards) && same_column(column, row, compare_shards)) {
            return row;
        }
    }
    return NULL;
}

static void add_line_label(const shoal_report_t *report, const shoal_report_row_t *row, bool compare_shards, shoal_doc_t *doc)
{
    char rest[64] = "", seed[32] = "";
    if (compare_shards && report->many_locals) {
        snprintf(rest, sizeof(rest), ", batch %zu", row->local);
    } else if (!compare_shards && report->many_shards) {
        snprintf(rest, sizeof(rest), ", %s", row->shard);
    }
    if (report->many_seeds) {
        snprintf(seed, sizeof(seed), ", seed %lld", (long long)row->seed);
    }
    if (report->local) {
        shoal_doc_cell(doc, "%zu local %s%s%s%s", row->ranks, report->unit, row->ranks == 1 ? "" : "s", rest, seed);
    } else {
        shoal_doc_cell(doc, "%zu %s%s across %zu node%s%s%s", row->ranks, report->unit, row->ranks == 1 ? "" : "s", row->nodes,
                       row->nodes == 1 ? "" : "s", rest, seed);
    }
}

static void add_compared(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    if (row != NULL && row->ok) {
        shoal_doc_cell(doc, "%s (%s, %s ms)", shoal_text_count(row->tokens_per_s).s,
                       shoal_text_bytes(number(row, "used_nbytes")).s, shoal_text_fixed(row->step_ms, 1).s);
    } else {
        shoal_doc_cell(doc, "%s", row == NULL ? "–" : row->verdict);
        shoal_doc_mark(doc, row == NULL ? SHOAL_DOC_MUTED : SHOAL_DOC_BAD);
    }
}

static void add_comparison(const shoal_report_t *report, bool compare_shards, const shoal_report_row_t **columns, char (*heads)[48],
                           const char **head_words, shoal_doc_t *doc)
{
    size_t n      = find_columns(report, compare_shards, columns);
    head_words[0] = "<Configuration";
    for (size_t c = 0; c < n; c++) {
        head_words[c + 1] = heads[c];
        if (compare_shards) {
            snprintf(heads[c], sizeof(heads[c]), "shard %s", columns[c]->shard);
        } else {
            snprintf(heads[c], sizeof(heads[c]), "local batch %zu", columns[c]->local);
        }
    }
    shoal_doc_table(doc, head_words, n + 1);
    for (size_t i = 0; i < report->nrows; i++) {
        if (leads_line(report, i, compare_shards)) {
            add_line_label(report, &report->rows[i], compare_shards, doc);
            for (size_t c = 0; c < n; c++) {
                add_compared(cell_of(report, &report->rows[i], columns[c], compare_shards), doc);
            }
        }
    }
}

static void compare(const shoal_report_t *report, bool compare_shards, shoal_doc_t *doc)
{
    const shoal_report_row_t **columns    = calloc(report->nrows + 1, sizeof(*columns));
    const char               **head_words = calloc(report->nrows + 1, sizeof(*head_words));
    char(*heads)[48]                      = calloc(report->nrows + 1, sizeof(*heads));
    if (columns != NULL && heads != NULL && head_words != NULL) {
        add_comparison(report, compare_shards, columns, heads, head_words, doc);
    }
    free(columns);
    free(heads);
    free(head_words);
}

void shoal_section_compare(const shoal_report_t *report, shoal_doc_t *doc)
{
    if (report->many_shards) {
        shoal_doc_heading(doc, "Shard modes compared");
        shoal_doc_paragraph(doc,
                            "Tokens per second, with memory per rank and time of a step. Full: parameters, gradients and"
                            " optimizer state are sharded; grad: parameters are whole on each rank; none: everything is.");
        compare(report, true, doc);
    }
    if (report->many_locals) {
        shoal_doc_heading(doc, "Local batch compared");
        shoal_doc_paragraph(doc,
                            "Tokens per second, with memory per rank and time of a step, by sequences per rank and "
                            "micro-batch.");
        compare(report, false, doc);
    }
}

/* ---- Communication ---- */

static void add_comm_row(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    const json_t *summary = row->ok ? row->summary : NULL;
    add_label(row, doc);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(row->step_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(shoal_report_rank_mean(summary, "gather_ms"), 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(shoal_report_rank_mean(summary, "exposed_gather_ms"), 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(shoal_report_rank_mean(summary, "reduce_ms"), 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(shoal_report_rank_mean(summary, "exposed_reduce_ms"), 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(row->exposed_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(row->comm_ms > 0 ? row->exposed_ms / row->comm_ms : NAN).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(row->exposed_ms / row->step_ms).s);
}

void shoal_section_comm(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Configuration", "Step (ms)",          "Gather (ms)",      "exposed (ms)",
                                          "Reduce (ms)",    "exposed (ms)",       "Exposed in all (ms)", "of communication",
                                          "of the step"};
    if (shoal_report_largest(report) == NULL) {
        return;
    }
    shoal_doc_heading(doc, "Exposed communication");
    shoal_doc_paragraph(doc,
                        "Per step. Gather and reduce: time that the lane was busy. Exposed: time that compute waited for"
                        " it; the rest was hidden behind compute. Medians over steps, means over ranks.");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].ok) {
            add_comm_row(&report->rows[i], doc);
        }
    }
    shoal_drawn_add(drawn, "comm", doc);
    shoal_drawn_add(drawn, "step", doc);
}

/* ---- Ranks ---- */

static void add_slowest_row(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    shoal_report_slowest_t slowest = shoal_report_slowest(row->summary);
    double                 min = NAN, max = NAN;
    const json_t          *speeds = json_object_get(row->summary, "tokens_per_s_per_rank");
    for (size_t r = 0; r < json_array_size(speeds); r++) {
        const json_t *speed = json_array_get(speeds, r);
        min = json_is_number(speed) ? fmin(min, json_number_value(speed)) : min;
        max = json_is_number(speed) ? fmax(max, json_number_value(speed)) : max;
    }
    add_label(row, doc);
    shoal_doc_cell(doc, "%s", shoal_text_count(min).s);
    shoal_doc_cell(doc, "%s", shoal_text_count(max).s);
    if (slowest.rank < 0) {
        shoal_doc_cell(doc, "–");
    } else if (slowest.work_ms < 1.0005 * slowest.median_ms) { /* less than the table shows */
        shoal_doc_cell(doc, "all alike");
    } else {
        shoal_doc_cell(doc, "rank %d on %s", slowest.rank, slowest.host == NULL ? "–" : slowest.host);
    }
    shoal_doc_cell(doc, "%s", shoal_text_fixed(slowest.work_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(slowest.work_ms / slowest.median_ms - 1).s);
}

static void add_rank_row(const json_t *rank, const json_t *summary, shoal_doc_t *doc)
{
    static const char *const fields[] = {"compute_ms", "exposed_gather_ms", "exposed_reduce_ms", "data_ms", "optimizer_ms"};
    const char              *host     = shoal_json_text(rank, "host");
    json_int_t               index    = json_integer_value(json_object_get(rank, "rank"));
    const json_t            *speeds   = json_object_get(summary, "tokens_per_s_per_rank");
    const json_t            *speed    = json_array_get(speeds, (size_t)index);
    shoal_doc_cell(doc, "%lld", (long long)index);
    shoal_doc_cell(doc, "%s", host == NULL ? "–" : host);
    shoal_doc_cell(doc, "%s", shoal_text_count(json_is_number(speed) ? json_number_value(speed) : NAN).s);
    for (size_t i = 0; i < LENGTH(fields); i++) {
        shoal_doc_cell(doc, "%s", shoal_text_fixed(shoal_json_number(rank, fields[i]), 2).s);
    }
}

static void add_rank_table(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    static const char *const columns[] = {"Rank", "<Host", "Tokens/s", "Compute (ms)", "Exposed gather (ms)", "Exposed reduce (ms)",
                                          "Data (ms)", "Optimizer (ms)"};
    const json_t *ranks = json_object_get(row->summary, "per_rank");
    size_t        n     = json_array_size(ranks);
    if (n == 0) {
        return;
    }
    shoal_doc_paragraph(doc, "Each rank of %s%s:", row->label, n > MOST_RANKS ? " (the first ones; `summary.json` has all)" : "");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t r = 0; r < n && r < MOST_RANKS; r++) {
        add_rank_row(json_array_get(ranks, r), row->summary, doc);
    }
}

void shoal_section_ranks(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc)
{
    static const char *const  columns[] = {"<Configuration", "Slowest (tokens/s)", "Fastest (tokens/s)", "<Longest own work",
                                           "Compute and data (ms)", "over the median"};
    const shoal_report_row_t *largest   = shoal_report_largest(report);
    if (largest == NULL) {
        return;
    }
    shoal_doc_heading(doc, "Ranks");
    shoal_doc_paragraph(doc,
                        "Ranks wait for each other in every step, so their tokens per second are close to equal "
                        "whichever is slow. The one that the others wait for is the one whose own work, compute and "
                        "data, takes longest.");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].ok) {
            add_slowest_row(&report->rows[i], doc);
        }
    }
    shoal_drawn_add(drawn, "per-rank", doc);
    shoal_drawn_add(drawn, "ranks", doc);
    add_rank_table(largest, doc);
}
