/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory, arithmetic and time: what the plan said beside what was measured, and what it means for a whole training. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "src/report/sections.h"
#include "src/report/text.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { MOST_CATEGORIES = 16 };

static double number(const shoal_report_row_t *row, const char *path)
{
    return row->ok ? shoal_json_number(row->summary, path) : NAN;
}

/* Whether any ok row has the field. */
static bool any_has(const shoal_report_t *report, const char *path)
{
    for (size_t i = 0; i < report->nrows; i++) {
        if (isfinite(number(&report->rows[i], path))) {
            return true;
        }
    }
    return false;
}

/* ---- Memory ---- */

/* The categories of the plans in the order of the first that names them. Returns how many. */
static size_t find_categories(const shoal_report_t *report, const char *names_p[MOST_CATEGORIES])
{
    size_t n = 0;
    for (size_t i = 0; i < report->nrows; i++) {
        const char *name;
        json_t     *value;
        json_object_foreach(shoal_json_at(report->rows[i].run, "plan.bytes"), name, value) {
            size_t at = 0;
            while (at < n && strcmp(names_p[at], name) != 0) {
                at++;
            }
            if (at == n && n < MOST_CATEGORIES) {
                names_p[n++] = name;
            }
        }
    }
    return n;
}

static void add_memory_row(const shoal_report_row_t *row, const char *const *categories, size_t n, shoal_doc_t *doc)
{
    const json_t *bytes   = shoal_json_at(row->run, "plan.bytes");
    double        planned = shoal_json_number(row->run, "plan.total_nbytes"), used = number(row, "used_nbytes");
    shoal_doc_cell(doc, "%s", row->label);
    shoal_doc_cell(doc, "%s", shoal_text_bytes(planned).s);
    shoal_doc_cell(doc, "%s", shoal_text_bytes(used).s);
    shoal_doc_cell(doc, "%s", planned == used ? "none" : shoal_text_bytes(used - planned).s);
    shoal_doc_mark(doc, planned == used ? SHOAL_DOC_GOOD : SHOAL_DOC_PLAIN);
    shoal_doc_cell(doc, "%s", shoal_text_bytes(number(row, "rss_peak_nbytes")).s);
    for (size_t c = 0; c < n; c++) {
        shoal_doc_cell(doc, "%s", shoal_text_bytes(shoal_json_number(bytes, categories[c])).s);
    }
}

void shoal_section_memory(const shoal_report_t *report, shoal_doc_t *doc)
{
    const char *categories[MOST_CATEGORIES], *columns[5 + MOST_CATEGORIES] = {"<Configuration", "Planned", "Used", "Difference",
                                                                             "Process peak"};
    size_t n = find_categories(report, categories);
    if (n == 0 && !any_has(report, "used_nbytes")) {
        return;
    }
    for (size_t c = 0; c < n; c++) {
        columns[5 + c] = categories[c];
    }
    shoal_doc_heading(doc, "Memory per rank");
    shoal_doc_paragraph(doc,
                        "Planned: what the plan said before the run, and by category. Used: what the run took of the "
                        "device. Process peak: resident host memory of the largest process, with all libraries.");
    shoal_doc_table(doc, columns, 5 + n);
    for (size_t i = 0; i < report->nrows; i++) {
        add_memory_row(&report->rows[i], categories, n, doc);
    }
}

/* ---- Prediction ---- */

static void add_prediction_row(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    double step_ms    = shoal_json_number(row->run, "plan.predicted_step_ms");
    double exposed_ms = shoal_json_number(row->run, "plan.predicted_exposed_ms");
    shoal_doc_cell(doc, "%s", row->label);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(step_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(row->step_ms, 2).s);
    shoal_doc_cell(doc, "%s – %s", shoal_text_fixed(number(row, "step_ms.p10"), 2).s,
                   shoal_text_fixed(number(row, "step_ms.p90"), 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(row->step_ms / step_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(exposed_ms, 2).s);
    shoal_doc_cell(doc, "%s", shoal_text_fixed(row->exposed_ms, 2).s);
}

void shoal_section_prediction(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Configuration",         "Predicted step (ms)", "Measured step (ms)",
                                          "10th – 90th percentile", "Measured / predicted", "Predicted exposed (ms)", "Measured exposed (ms)"};
    if (shoal_report_largest(report) == NULL) {
        return;
    }
    shoal_doc_heading(doc, "Prediction beside measurement");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].ok) {
            add_prediction_row(&report->rows[i], doc);
        }
    }
}

/* ---- Arithmetic ---- */

/* What the formula gives for the numbers beside it; NaN if one is missing. */
static double mfu_by_formula(const shoal_report_row_t *row, const char *flops_field)
{
    return number(row, flops_field) * row->tokens_per_s / ((double)row->ranks * number(row, "peak_flops"));
}

static bool disagrees(double recorded, double computed)
{
    return isfinite(recorded) && isfinite(computed) && !(fabs(recorded - computed) <= 0.01 * fabs(computed));
}

static void add_mfu_row(const shoal_report_row_t *row, shoal_doc_t *doc)
{
    const char *source = row->ok ? shoal_json_text(row->summary, "peak_source") : NULL;
    shoal_doc_cell(doc, "%s", row->label);
    shoal_doc_cell(doc, "%s", shoal_text_percent(number(row, "mfu_causal")).s);
    shoal_doc_cell(doc, "%s", shoal_text_percent(number(row, "mfu_full")).s);
    shoal_doc_cell(doc, "%s", shoal_text_si(number(row, "flops_per_token_causal")).s);
    shoal_doc_cell(doc, "%s", shoal_text_si(number(row, "flops_per_token_full")).s);
    shoal_doc_cell(doc, "%s", shoal_text_flops(number(row, "peak_flops")).s);
    shoal_doc_cell(doc, "%s", source == NULL ? "–" : source);
}

void shoal_section_mfu(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Configuration",      "MFU causal",   "MFU full", "FLOP/token causal",
                                          "FLOP/token full", "Peak per rank", "<Peak from"};
    if (!any_has(report, "mfu_causal") && !any_has(report, "mfu_full")) {
        return;
    }
    shoal_doc_heading(doc, "Model FLOP utilization");
    shoal_doc_paragraph(doc,
                        "MFU = FLOP per token x tokens per second / (ranks x peak FLOP/s of a rank). Causal counts the "
                        "half of the attention matrix that is computed, full counts all of it. Recomputed activations "
                        "count for neither.");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (!row->ok) {
            continue;
        }
        add_mfu_row(row, doc);
    }
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (disagrees(number(row, "mfu_causal"), mfu_by_formula(row, "flops_per_token_causal")) ||
            disagrees(number(row, "mfu_full"), mfu_by_formula(row, "flops_per_token_full"))) {
            shoal_doc_note(doc, "%s: the recorded MFU is not what the formula gives for the recorded numbers.", row->label);
        }
    }
}

/* ---- A whole training ---- */

void shoal_section_chinchilla(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Configuration", "Parameters N", "Tokens 20 N", "Tokens/s", "Days"};
    if (!any_has(report, "parameters")) {
        return;
    }
    shoal_doc_heading(doc, "Chinchilla time");
    shoal_doc_paragraph(doc,
                        "Days to train on 20 tokens per parameter at the throughput measured: days = 20 N / (tokens per "
                        "second x 86400), N all parameters. Validation, checkpoints and queueing come on top.");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        double                    n   = number(row, "parameters");
        if (!row->ok) {
            continue;
        }
        shoal_doc_cell(doc, "%s", row->label);
        shoal_doc_cell(doc, "%s", shoal_text_count(n).s);
        shoal_doc_cell(doc, "%s", shoal_text_count(20 * n).s);
        shoal_doc_cell(doc, "%s", shoal_text_count(row->tokens_per_s).s);
        shoal_doc_cell(doc, "%s", shoal_text_days(20 * n / (row->tokens_per_s * 86400)).s);
    }
}

/* What the start was spent on, in the order of time, where the runs have said so. */
static void start_parts(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const struct {
        const char *column, *path;
    } parts[] = {{"Launcher", "start_ms.launch"},     {"Before main", "start_ms.exec"},
                 {"Bootstrap", "start_ms.bootstrap"}, {"Configuration", "start_ms.configuration"},
                 {"Device", "start_ms.device"},       {"Plan", "start_ms.plan"},
                 {"Transport", "start_ms.transport"}, {"State", "start_ms.state"},
                 {"Records", "start_ms.records"},     {"First step", "start_ms.first_step"}};
    const char *columns[1 + LENGTH(parts)] = {"<Configuration"};
    if (!any_has(report, parts[0].path)) {
        return;
    }
    for (size_t c = 0; c < LENGTH(parts); c++) {
        columns[1 + c] = parts[c].column;
    }
    shoal_doc_paragraph(doc, "Its parts in milliseconds, of the rank that took longest.");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].ok) {
            shoal_doc_cell(doc, "%s", report->rows[i].label);
            for (size_t c = 0; c < LENGTH(parts); c++) {
                shoal_doc_cell(doc, "%s",
                               shoal_text_fixed(number(&report->rows[i], parts[c].path), 0).s);
            }
        }
    }
}

void shoal_section_start(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Configuration", "Launch to first step (ms)", "of which the first step (ms)",
                                          "A later step (ms)"};
    if (!any_has(report, "launch_to_first_step_ms")) {
        return;
    }
    shoal_doc_heading(doc, "Start");
    shoal_doc_table(doc, columns, LENGTH(columns));
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (!row->ok) {
            continue;
        }
        shoal_doc_cell(doc, "%s", row->label);
        shoal_doc_cell(doc, "%s", shoal_text_count(number(row, "launch_to_first_step_ms")).s);
        shoal_doc_cell(doc, "%s", shoal_text_fixed(number(row, "first_step_ms"), 1).s);
        shoal_doc_cell(doc, "%s", shoal_text_fixed(row->step_ms, 1).s);
    }
    start_parts(report, doc);
}
