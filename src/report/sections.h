/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of a report, each a heading with what belongs under it, or nothing when the records do not have it. */
#ifndef SHOAL_SRC_REPORT_SECTIONS_H
#define SHOAL_SRC_REPORT_SECTIONS_H

#include "src/report/data.h"
#include "src/report/doc.h"
#include "src/report/drawn.h"

/* sections.c: what was run, and the figures of merit. */
void shoal_section_header(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_failures(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_config(const shoal_report_t *report, shoal_doc_t *doc);

/* tables.c: what was measured, a row for each row of the study. */
void shoal_section_scaling(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc);
void shoal_section_compare(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_comm(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc);
void shoal_section_ranks(const shoal_report_t *report, const shoal_drawn_t *drawn, shoal_doc_t *doc);

/* costs.c: memory, arithmetic, time. */
void shoal_section_memory(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_prediction(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_mfu(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_chinchilla(const shoal_report_t *report, shoal_doc_t *doc);
void shoal_section_start(const shoal_report_t *report, shoal_doc_t *doc);

#endif
