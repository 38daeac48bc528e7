/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A document under construction: blocks of text, tables, figures, written once and then printed as Markdown or as one
 * HTML page, so that the two cannot disagree. Text is plain except for `code` between backquotes. A call that finds no
 * memory marks the document failed, which only shoal_doc_status() reports: building it needs no checks.
 */
#ifndef SHOAL_SRC_REPORT_DOC_H
#define SHOAL_SRC_REPORT_DOC_H

#include <stdio.h>

#include "base/status.h"

typedef struct shoal_doc shoal_doc_t;

/* How a table cell, or a tile, is meant; Markdown does not show it. */
typedef enum { SHOAL_DOC_PLAIN, SHOAL_DOC_GOOD, SHOAL_DOC_BAD, SHOAL_DOC_MUTED } shoal_doc_mark_t;

shoal_doc_t *shoal_doc_create(void); /* NULL without memory */
void         shoal_doc_free(shoal_doc_t *doc);

#define SHOAL_DOC_PRINTF(n) __attribute__((format(printf, n, n + 1)))

void shoal_doc_title(shoal_doc_t *doc, const char *format, ...) SHOAL_DOC_PRINTF(2);
void shoal_doc_heading(shoal_doc_t *doc, const char *format, ...) SHOAL_DOC_PRINTF(2);
void shoal_doc_paragraph(shoal_doc_t *doc, const char *format, ...) SHOAL_DOC_PRINTF(2);
/* Something that the reader must not miss. */
void shoal_doc_note(shoal_doc_t *doc, const char *format, ...) SHOAL_DOC_PRINTF(2);
void shoal_doc_verbatim(shoal_doc_t *doc, const char *text);

/* A figure of merit: all that follow each other stand in one row. */
void shoal_doc_tile(shoal_doc_t *doc, const char *label, const char *format, ...) SHOAL_DOC_PRINTF(3);

/* Begins a table: one word per column; a leading '<' aligns it left, others are right. Cells follow in reading order. */
void shoal_doc_table(shoal_doc_t *doc, const char *const *columns, size_t ncolumns);
void shoal_doc_cell(shoal_doc_t *doc, const char *format, ...) SHOAL_DOC_PRINTF(2);
/* Marks the last cell. */
void shoal_doc_mark(shoal_doc_t *doc, shoal_doc_mark_t mark);

/* The plot DIR/plots/NAME.svg; `svg` is what HTML shows in its place. Both are copied. */
void shoal_doc_figure(shoal_doc_t *doc, const char *name, const char *caption, const char *svg);

/* Printing. The page refers to nothing outside itself. */
void shoal_doc_print_markdown(const shoal_doc_t *doc, FILE *file);
void shoal_doc_print_html(const shoal_doc_t *doc, FILE *file);

shoal_status_t shoal_doc_status(const shoal_doc_t *doc);

#endif
