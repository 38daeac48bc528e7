/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of a report, each a heading with what belongs under it, or nothing when the records do not have it. */
#ifndef SHOAL_SRC_REPORT_SECTIONS_H
#define SHOAL_SRC_REPORT_SECTIONS_H

#include "src/report/data.h"
#include "src/report/doc.h"

/* Adds the plot of that name where it was drawn. */
typedef struct shoal_report_figures shoal_report_figures_t;
void shoal_report_add_figure(const shoal_report_figures_t *figures, const char *name, shoal_doc_t *doc);

/* report_sections.c: what was run, and the figures of merit. */
void shoal_section_header(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_failures(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_config(const shoal_report_t *report, shoal_doc_t *doc);

/* report_tables.c: what was measured, a row for each row of the study. */
void shoal_section_scaling(const shoal_report_t *report, const shoal_report_figures_t *figures, shoal_doc_t *doc);
void shoal_section_compare(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_comm(const shoal_report_t *report, const shoal_report_figures_t *figures, shoal_doc_t *doc);
void shoal_section_ranks(const shoal_report_t *report, const shoal_report_figures_t *figures, shoal_doc_t *doc);

/* report_costs.c: memory, arithmetic, time. */
void shoal_section_memory(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_prediction(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_mfu(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_chinchilla(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_start(const shoal_report_t *report, shoal_doc_t *doc);

#endif
