/* SPDX-License-Identifier: BSD-3-Clause */
/* What was run, on what, what came out in five numbers; what failed and how; with which settings. */
#include "src/report/sections.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/json.h"
#include "src/report/text.h"

/* ---- Header ---- */

static const char *or_dash(const char *text)
{
    return text == NULL || text[0] == '\0' ? "–" : text;
}

/* When the study was last at work, or the run ended: the time of its record. */
static void find_date(const shoal_report_t *report, size_t nbytes, char *date_p)
{
    char        path[PATH_MAX + 32];
    struct stat info;
    struct tm   local;
    const char *updated = shoal_json_text(report->study, "updated");
    snprintf(date_p, nbytes, "%s", or_dash(updated));
    snprintf(path, sizeof(path), "%s/summary.json", report->dir);
    if (updated == NULL && stat(path, &info) == 0 && localtime_r(&info.st_mtime, &local) != NULL) {
        strftime(date_p, nbytes, "%Y-%m-%d %H:%M", &local);
    }
}

static void add_title(const shoal_report_t *report, const shoal_report_row_t *first, shoal_doc_t *doc)
{
    const json_t *run        = first == NULL ? NULL : first->run;
    const char   *arch       = shoal_json_text(run, "model.arch");
    double        parameters = shoal_json_number(run, "model.parameters");
    const char   *kind       = report->study == NULL ? "Training run" : "Scaling study";
    if (arch == NULL && !isfinite(parameters)) {
        shoal_doc_title(doc, "%s", kind);
    } else {
        shoal_doc_title(doc, "%s: %s, %s parameters", kind, or_dash(arch), shoal_text_large(parameters).s);
    }
}

static size_t count_ok(const shoal_report_t *report)
{
    size_t count = 0;
    for (size_t i = 0; i < report->nrows; i++) {
        count += report->rows[i].ok;
    }
    return count;
}

static void add_notes(const shoal_report_t *report, shoal_doc_t *doc)
{
    const char *stand_in = shoal_json_text(report->study, "train_command");
    if (stand_in != NULL) {
        shoal_doc_note(doc, "These rows were not measured: `%s` stood in for `shoal train`. The numbers mean nothing.", stand_in);
    }
    if (report->local && report->nrows > 0) {
        shoal_doc_note(doc,
                       "All ranks shared one host: these rows are local ranks on one host, not nodes. They compete for "
                       "its cores and its memory, so this shows how the program behaves, not how a cluster scales.");
    }
    if (report->study != NULL && count_ok(report) < report->nrows) {
        shoal_doc_note(doc, "%zu of %zu rows are not ok; they are labelled in the tables and explained at the end.",
                       report->nrows - count_ok(report), report->nrows);
    }
}

static void add_tiles(const shoal_report_t *report, shoal_doc_t *doc)
{
    const shoal_report_row_t *largest = shoal_report_largest(report);
    if (largest == NULL) {
        return;
    }
    char label[192];
    snprintf(label, sizeof(label), "tokens/s, %s", largest->label);
    shoal_doc_tile(doc, label, "%s", shoal_text_count(largest->tokens_per_s).s);
    if (shoal_report_count_sizes(report) > 1) {
        snprintf(label, sizeof(label), "of linear from %zu %s%s", report->rows[largest->base].ranks, report->unit,
                 report->rows[largest->base].ranks == 1 ? "" : "s");
        shoal_doc_tile(doc, label, "%s", shoal_text_percent(largest->efficiency).s);
    }
    shoal_doc_tile(doc, "of the step waits for communication", "%s",
                   shoal_text_percent(largest->exposed_ms / largest->step_ms).s);
    shoal_doc_tile(doc, "MFU, attention counted causal", "%s",
                   shoal_text_percent(shoal_json_number(largest->summary, "mfu_causal")).s);
    shoal_doc_tile(doc, "memory per rank", "%s", shoal_text_bytes(shoal_json_number(largest->summary, "used_nbytes")).s);
    shoal_doc_tile(doc, "launch to first step", "%s s",
                   shoal_text_fixed(shoal_json_number(largest->summary, "launch_to_first_step_ms") * 1e-3, 2).s);
}

static void __attribute__((format(printf, 3, 4))) add_fact(shoal_doc_t *doc, const char *name, const char *format, ...)
{
    char    text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    shoal_doc_cell(doc, "%s", name);
    shoal_doc_cell(doc, "%s", text);
}

static const char *setting(const json_t *run, const char *key)
{
    return or_dash(json_string_value(shoal_report_config(run, key)));
}

static void add_model_facts(const json_t *run, shoal_doc_t *doc)
{
    add_fact(doc, "Model", "%s: layers %s, width %s, heads %s, sequence %s, vocabulary %s",
             or_dash(shoal_json_text(run, "model.arch")), shoal_text_fixed(shoal_json_number(run, "model.layers"), 0).s,
             shoal_text_fixed(shoal_json_number(run, "model.d_model"), 0).s,
             shoal_text_fixed(shoal_json_number(run, "model.heads"), 0).s,
             shoal_text_fixed(shoal_json_number(run, "model.seq"), 0).s,
             shoal_text_fixed(shoal_json_number(run, "model.vocab"), 0).s);
    add_fact(doc, "Parameters", "%s, of which %s are not embeddings",
             shoal_text_count(shoal_json_number(run, "model.parameters")).s,
             shoal_text_count(shoal_json_number(run, "model.non_embedding_parameters")).s);
    add_fact(doc, "Optimizer and precision", "%s; %s compute, %s gather, %s reduce", setting(run, "optim.name"),
             setting(run, "precision.compute"), setting(run, "precision.gather"), setting(run, "precision.reduce"));
}

static void add_machine_facts(const shoal_report_t *report, const shoal_report_row_t *row, shoal_doc_t *doc)
{
    const json_t *run     = row->run;
    const char   *name    = shoal_json_text(run, "mesh.device_name"), *job = shoal_json_text(report->study, "job");
    const char   *kernels = shoal_json_text(row->summary, "kernels");
    add_fact(doc, "Device", "%s%s%s, transport %s, started by %s", or_dash(shoal_json_text(run, "mesh.device")),
             name == NULL ? "" : ": ", name == NULL ? "" : name, or_dash(shoal_json_text(run, "mesh.transport")),
             or_dash(shoal_json_text(run, "mesh.bootstrap")));
    if (kernels != NULL) {
        add_fact(doc, "Kernels", "%s", kernels);
    }
    if (report->local) {
        add_fact(doc, "Cluster", "none: local ranks on one host");
    } else if (report->study != NULL) {
        add_fact(doc, "Cluster", "%s%s%s", or_dash(shoal_json_text(report->study, "cluster")), job == NULL ? "" : ", Slurm job ",
                 job == NULL ? "" : job);
    }
}

/* The hosts of a run, each once, as far as a line takes them. */
static void add_hosts(const shoal_report_t *report, const json_t *run, shoal_doc_t *doc)
{
    const json_t *hosts     = json_object_get(run, "hosts");
    char          text[512] = "";
    const char   *last      = "";
    for (size_t i = 0; i < json_array_size(hosts); i++) {
        const char *host = or_dash(json_string_value(json_array_get(hosts, i)));
        size_t      used = strlen(text);
        if (strcmp(host, last) != 0 && used + strlen(host) + 8 < sizeof(text)) {
            snprintf(text + used, sizeof(text) - used, "%s%s", used == 0 ? "" : ", ", host);
        }
        last = host;
    }
    add_fact(doc, report->study == NULL ? "Hosts" : "Hosts of the largest row", "%s", or_dash(text));
}

void shoal_section_header(const shoal_report_t *report, shoal_doc_t *doc)
{
    static const char *const  columns[] = {"<What", "<Value"};
    const shoal_report_row_t *first     = shoal_report_first_run(report);
    const shoal_report_row_t *largest   = shoal_report_largest(report);
    char                      date[64];
    add_title(report, first, doc);
    add_notes(report, doc);
    add_tiles(report, doc);
    shoal_doc_table(doc, columns, 2);
    find_date(report, sizeof(date), date);
    add_fact(doc, "Date", "%s", date);
    add_fact(doc, "shoal", "%s", or_dash(shoal_json_text(first == NULL ? NULL : first->run, "shoal")));
    if (first != NULL) {
        add_model_facts(first->run, doc);
        /* A row of one rank needs no transport: the largest shows what the study ran on. */
        add_machine_facts(report, largest == NULL ? first : largest, doc);
        add_hosts(report, largest == NULL ? first->run : largest->run, doc);
    }
}

/* ---- Failures ---- */

void shoal_section_failures(const shoal_report_t *report, shoal_doc_t *doc)
{
    if (count_ok(report) == report->nrows) {
        return;
    }
    shoal_doc_heading(doc, "Rows that are not ok");
    shoal_doc_paragraph(doc, "Their speeds are in no table, plot or `report.csv`; their records stay in their directories.");
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (row->ok) {
            continue;
        }
        shoal_doc_paragraph(doc, "%s (`%s`): %s%s%s", row->label, row->name, row->verdict, row->detail[0] == '\0' ? "" : ". ",
                            row->detail);
        if (row->tail[0] != '\0') {
            shoal_doc_verbatim(doc, row->tail);
        }
    }
}

/* ---- Settings ---- */

/* Defaults are in the manual; what was chosen, and what followed from it, is what makes this run this run. */
static bool is_chosen(const json_t *entry)
{
    const char *source = shoal_json_text(entry, "source");
    return source != NULL && strcmp(source, "default") != 0;
}

static void add_settings(const json_t *config, shoal_doc_t *doc)
{
    static const char *const columns[] = {"<Key", "<Value", "<Source"};
    const char              *key;
    json_t                  *entry;
    shoal_doc_table(doc, columns, 3);
    json_object_foreach((json_t *)(uintptr_t)config, key, entry) {
        if (is_chosen(entry)) {
            char *value = json_dumps(json_object_get(entry, "value"), JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
            shoal_doc_cell(doc, "`%s`", key);
            shoal_doc_cell(doc, "%s", value == NULL ? "–" : value);
            shoal_doc_cell(doc, "%s", or_dash(shoal_json_text(entry, "source")));
            shoal_doc_mark(doc, SHOAL_DOC_MUTED);
            free(value);
        }
    }
}

static void add_versions(const json_t *versions, shoal_doc_t *doc)
{
    char        text[1024] = "";
    const char *name;
    json_t     *version;
    json_object_foreach((json_t *)(uintptr_t)versions, name, version) {
        size_t used = strlen(text);
        if (json_is_string(version)) {
            snprintf(text + used, sizeof(text) - used, "%s%s %s", used == 0 ? "" : ", ", name, json_string_value(version));
        }
    }
    if (text[0] != '\0') {
        shoal_doc_paragraph(doc, "Versions: %s.", text);
    }
}

void shoal_section_config(const shoal_report_t *report, shoal_doc_t *doc)
{
    const shoal_report_row_t *first  = shoal_report_first_run(report);
    const json_t             *config = first == NULL ? NULL : json_object_get(first->run, "config");
    if (!json_is_object(config)) {
        return;
    }
    shoal_doc_heading(doc, "Configuration");
    shoal_doc_paragraph(doc, "What was not left at its default%s.", report->study == NULL ? "" : ", as the first row had it");
    add_settings(config, doc);
    add_versions(json_object_get(first->run, "versions"), doc);
}
