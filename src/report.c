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

#include "base/file.h"
#include "base/log.h"
#include "src/commands.h"
#include "src/report/csv.h"
#include "src/report/data.h"
#include "src/report/doc.h"
#include "src/report/drawn.h"
#include "src/report/sections.h"

static const char help[] =
    "Usage: shoal report DIR\n"
    "Write DIR/report.html, DIR/report.md, DIR/report.csv and DIR/plots/*.svg for the study or the single run whose records\n"
    "are in DIR. Plots want gnuplot, which the environment variable GNUPLOT may name; without it the rest is written and\n"
    "says so. A row whose records are missing or damaged is listed with what is wrong with them.\n"
    "\n"
    "Exit status: 0 written; 2 bad usage; 6 no records in DIR, or it cannot be written.\n";

/* ---- The document ---- */

static void compose(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc)
{
    shoal_section_header(report, doc);
    if (drawn->no_gnuplot) {
        shoal_doc_note(doc, "Plots were left out: there was no gnuplot where this report was written. `shoal report` adds them.");
    }
    shoal_section_scaling(report, drawn, doc);
    shoal_section_compare(report, doc);
    shoal_section_comm(report, drawn, doc);
    shoal_section_ranks(report, drawn, doc);
    shoal_section_memory(report, doc);
    shoal_section_prediction(report, doc);
    shoal_section_mfu(report, doc);
    shoal_section_chinchilla(report, doc);
    shoal_section_start(report, doc);
    shoal_section_failures(report, doc);
    shoal_section_config(report, doc);
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
        case AS_CSV: shoal_csv_print(report, file); break;
        }
    }
    if (file == NULL || fclose(file) != 0) {
        shoal_error("no memory for %s", name);
        free(text);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = shoal_file_replace(report->dir, name, text, nbytes);
    free(text);
    return status;
}

static shoal_status_t write_all(const shoal_report_t *report, const shoal_drawn_t *drawn, const shoal_doc_t *doc)
{
    SHOAL_TRY(shoal_doc_status(doc));
    SHOAL_TRY(shoal_drawn_write(report, drawn));
    SHOAL_TRY(write_as(report, doc, AS_CSV, "report.csv"));
    SHOAL_TRY(write_as(report, doc, AS_MARKDOWN, "report.md"));
    return write_as(report, doc, AS_HTML, "report.html");
}

static shoal_status_t report_on(const shoal_report_t *report)
{
    shoal_drawn_t drawn = {.no_gnuplot = false};
    shoal_doc_t           *doc     = shoal_doc_create();
    shoal_status_t         status  = doc == NULL ? SHOAL_ERR_NO_MEMORY : shoal_drawn_create(report, &drawn);
    if (status == SHOAL_OK) {
        compose(report, &drawn, doc);
        status = write_all(report, &drawn, doc);
    }
    shoal_doc_free(doc);
    shoal_drawn_free(&drawn);
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
