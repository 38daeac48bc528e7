/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reports on a study or on a single run. Reading order: report_data.h (what was measured), report_doc.h (a document, in
 * Markdown or HTML), report_sections.c and report_tables.c (what it says), report_plot.h (gnuplot), report.c (the files).
 */
#ifndef SHOAL_SRC_REPORT_H
#define SHOAL_SRC_REPORT_H

#include "base/status.h"

/*
 * Writes DIR/report.md, DIR/report.html, DIR/report.csv and DIR/plots/NAME.svg for the study or run in DIR. Without
 * gnuplot there are no plots, which the report says; so it does of a plot that gnuplot refuses, and of a row whose records
 * are damaged. SHOAL_ERR_DATA: no records in DIR, a damaged study.json, or the report cannot be written.
 */
shoal_status_t shoal_report_write(const char *dir);

#endif
