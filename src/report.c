/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal report DIR`: loads, draws, writes. All of a report is made in memory first and then written file by file,
 * each whole; a report that fails half way leaves the files of the last one.
 */
#include "src/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/execute/record.h"
#include "src/commands.h"
#include "src/report/data.h"
#include "src/report/doc.h"
#include "base/json.h"
#include "src/report/plot.h"
#include "src/report/sections.h"

static const char help[] =
    "Usage: shoal report DIR\n"
    "Write DIR/report.html, DIR/report.md, DIR/report.csv and DIR/plots/*.svg for the study or the single run whose records\n"
    "are in DIR. Plots want gnuplot, which the environment variable GNUPLOT may name; without it the rest is written and\n"
    "says so. A row whose records are missing or damaged is listed with what is wrong with them.\n"
    "\n"
    "Exit status: 0 written; 2 bad usage; 6 no records in DIR, or it cannot be written.\n";

/* ---- Plots ---- */

struct shoal_report_figures {
    char **file_svgs, **page_svgs; /* (shoal_nplots), NULL where a plot has nothing to show */
    bool  *failed;                 /* (shoal_nplots): there was something to show, and it could not be drawn */
    bool   no_gnuplot;
};

static void free_figures(shoal_report_figures_t *figures)
{
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (figures->file_svgs != NULL && figures->page_svgs != NULL) {
            free(figures->file_svgs[i]);
            free(figures->page_svgs[i]);
        }
    }
    free(figures->file_svgs);
    free(figures->page_svgs);
    free(figures->failed);
}

static shoal_status_t draw_figures(const shoal_report_t *report, shoal_report_figures_t *figures)
{
    figures->file_svgs = calloc(shoal_nplots, sizeof(*figures->file_svgs));
    figures->page_svgs = calloc(shoal_nplots, sizeof(*figures->page_svgs));
    figures->failed    = calloc(shoal_nplots, sizeof(*figures->failed));
    if (figures->file_svgs == NULL || figures->page_svgs == NULL || figures->failed == NULL) {
        shoal_error("no memory for the plots");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < shoal_nplots; i++) {
        shoal_status_t status = shoal_plot_draw(&shoal_plots[i], report, &figures->file_svgs[i], &figures->page_svgs[i]);
        if (status == SHOAL_PLOT_NO_GNUPLOT) {
            shoal_warn("there is no gnuplot on this machine: the report has no plots");
            figures->no_gnuplot = true;
            return SHOAL_OK;
        }
        figures->failed[i] = status != SHOAL_OK;
    }
    return SHOAL_OK;
}

void shoal_report_add_figure(const shoal_report_figures_t *figures, const char *name, shoal_doc_t *doc)
{
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (strcmp(shoal_plots[i].name, name) == 0 && figures->page_svgs[i] != NULL) {
            shoal_doc_figure(doc, name, shoal_plots[i].caption, figures->page_svgs[i]);
        } else if (strcmp(shoal_plots[i].name, name) == 0 && figures->failed[i]) {
            shoal_doc_note(doc, "The plot `%s` stood here, but could not be drawn: gnuplot refused its numbers. %s", name,
                           shoal_plots[i].caption);
        }
    }
}

static shoal_status_t write_figures(const shoal_report_t *report, const shoal_report_figures_t *figures)
{
    char dir[PATH_MAX + 16], name[64];
    snprintf(dir, sizeof(dir), "%s/plots", report->dir);
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (figures->file_svgs[i] != NULL) {
            snprintf(name, sizeof(name), "%s.svg", shoal_plots[i].name);
            SHOAL_TRY(shoal_record_mkdir(dir));
            SHOAL_TRY(shoal_record_write(dir, name, figures->file_svgs[i], strlen(figures->file_svgs[i])));
        }
    }
    return SHOAL_OK;
}

/* ---- The document ---- */

static void compose(const shoal_report_t *report, const shoal_report_figures_t *figures, shoal_doc_t *doc)
{
    shoal_section_header(report, doc);
    if (figures->no_gnuplot) {
        shoal_doc_note(doc, "Plots were left out: there was no gnuplot where this report was written. `shoal report` adds them.");
    }
    shoal_section_scaling(report, figures, doc);
    shoal_section_compare(report, doc);
    shoal_section_comm(report, figures, doc);
    shoal_section_ranks(report, figures, doc);
    shoal_section_memory(report, doc);
    shoal_section_prediction(report, doc);
    shoal_section_mfu(report, doc);
    shoal_section_chinchilla(report, doc);
    shoal_section_start(report, doc);
    shoal_section_failures(report, doc);
    shoal_section_config(report, doc);
}

/* ---- CSV ---- */

/* As RFC 4180 says. A quote before what a spreadsheet would run as a formula makes it text. */
static void print_csv_text(const char *text, FILE *file)
{
    fputs(text[0] != '\0' && strchr("=+-@", text[0]) != NULL ? "\"'" : "\"", file);
    for (; *text != '\0'; text++) {
        fputs(*text == '"' ? "\"\"" : (const char[]){*text, '\0'}, file);
    }
    fputc('"', file);
}

/* An empty field is a number that is not known. */
static void print_csv_number(double value, FILE *file)
{
    fputc(',', file);
    if (isfinite(value)) {
        fprintf(file, "%.15g", value);
    }
}

/* Columns that are a field of a row's summary as it is. */
static const struct {
    const char *column, *path;
} csv_fields[] = {
    {"total_tokens", "total_tokens"},
    {"elapsed_s", "elapsed_s"},
    {"step_ms_p10", "step_ms.p10"},
    {"step_ms_p90", "step_ms.p90"},
    {"mfu_causal", "mfu_causal"},
    {"mfu_full", "mfu_full"},
    {"launch_to_first_step_ms", "launch_to_first_step_ms"},
    {"plan_nbytes", "plan_nbytes"},
    {"used_nbytes", "used_nbytes"},
    {"rss_peak_nbytes", "rss_peak_nbytes"},
    {"parameters", "parameters"},
};

enum { NCSV_FIELDS = sizeof(csv_fields) / sizeof(csv_fields[0]) };

static void print_csv_row(const shoal_report_row_t *row, FILE *file)
{
    const json_t *summary = row->ok ? row->summary : NULL;
    double        days    = 20 * shoal_json_number(summary, "parameters") / (row->tokens_per_s * 86400);
    print_csv_text(row->name, file);
    fprintf(file, ",%zu,%zu,%zu,%s,%zu,%zu,%zu,%lld,", row->nodes, row->ranks_per_node, row->ranks, row->shard, row->local,
            row->accumulate, row->global, (long long)row->seed);
    print_csv_text(row->verdict, file);
    fputc(',', file);
    print_csv_text(strcmp(row->gate, "–") == 0 ? "" : row->gate, file);
    const double values[] = {row->tokens_per_s, row->tokens_per_s / (double)row->ranks, row->efficiency, row->step_ms,
                             row->comm_ms,      row->exposed_ms,                        days};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        print_csv_number(values[i], file);
    }
    for (size_t i = 0; i < NCSV_FIELDS; i++) {
        print_csv_number(shoal_json_number(summary, csv_fields[i].path), file);
    }
    fputc('\n', file);
}

static void print_csv(const shoal_report_t *report, FILE *file)
{
    fputs("name,nodes,ranks_per_node,ranks,shard,local_batch,accumulate,global_batch,seed,verdict,loss_gate,tokens_per_s,"
          "tokens_per_s_per_rank,efficiency,step_ms,comm_ms,exposed_ms,chinchilla_days", file);
    for (size_t i = 0; i < NCSV_FIELDS; i++) {
        fprintf(file, ",%s", csv_fields[i].column);
    }
    fputc('\n', file);
    for (size_t i = 0; i < report->nrows; i++) {
        print_csv_row(&report->rows[i], file);
    }
}

/* ---- Files ---- */

typedef enum { AS_MARKDOWN, AS_HTML, AS_CSV } format_t;

static shoal_status_t write_as(const shoal_report_t *report, const shoal_doc_t *doc, format_t format, const char *name)
{
    char  *text   = NULL;
    size_t nbytes = 0;
    FILE  *file   = open_memstream(&text, &nbytes);
    if (file != NULL) {
        switch (format) {
        case AS_MARKDOWN: shoal_doc_print_markdown(doc, file); break;
        case AS_HTML: shoal_doc_print_html(doc, file); break;
        case AS_CSV: print_csv(report, file); break;
        }
    }
    if (file == NULL || fclose(file) != 0) {
        shoal_error("no memory for %s", name);
        free(text);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = shoal_record_write(report->dir, name, text, nbytes);
    free(text);
    return status;
}

static shoal_status_t write_all(const shoal_report_t *report, const shoal_report_figures_t *figures, const shoal_doc_t *doc)
{
    SHOAL_TRY(shoal_doc_status(doc));
    SHOAL_TRY(write_figures(report, figures));
    SHOAL_TRY(write_as(report, doc, AS_CSV, "report.csv"));
    SHOAL_TRY(write_as(report, doc, AS_MARKDOWN, "report.md"));
    return write_as(report, doc, AS_HTML, "report.html");
}

static shoal_status_t report_on(const shoal_report_t *report)
{
    shoal_report_figures_t figures = {.no_gnuplot = false};
    shoal_doc_t           *doc     = shoal_doc_create();
    shoal_status_t         status  = doc == NULL ? SHOAL_ERR_NO_MEMORY : draw_figures(report, &figures);
    if (status == SHOAL_OK) {
        compose(report, &figures, doc);
        status = write_all(report, &figures, doc);
    }
    shoal_doc_free(doc);
    free_figures(&figures);
    return status;
}

shoal_status_t shoal_report_write(const char *dir)
{
    shoal_report_t report;
    shoal_status_t status = shoal_report_load(dir, &report);
    if (status == SHOAL_OK) {
        status = report_on(&report);
    }
    shoal_report_free(&report);
    if (status == SHOAL_OK) {
        printf("report: %s/report.html\n", dir);
    }
    return status;
}

int shoal_cmd_report(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-') {
        shoal_error("report: one directory is wanted; shoal report --help says more");
        return shoal_status_exit_code(SHOAL_ERR_CONFIG);
    }
    return shoal_status_exit_code(shoal_report_write(argv[1]));
}
