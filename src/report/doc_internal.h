/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocks of a document, for the files that build and print them. */
#ifndef SHOAL_SRC_REPORT_DOC_INTERNAL_H
#define SHOAL_SRC_REPORT_DOC_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "src/report/doc.h"

typedef enum {
    SHOAL_BLOCK_TITLE,
    SHOAL_BLOCK_HEADING,
    SHOAL_BLOCK_PARAGRAPH,
    SHOAL_BLOCK_NOTE,
    SHOAL_BLOCK_VERBATIM,
    SHOAL_BLOCK_TILES, /* cells: label, value, label, value ... */
    SHOAL_BLOCK_TABLE, /* cells: the columns' heads, then row by row */
    SHOAL_BLOCK_FIGURE,
} shoal_block_kind_t;

typedef struct {
    char            *text;
    shoal_doc_mark_t mark;
} shoal_block_cell_t;

typedef struct {
    shoal_block_kind_t  kind;
    char               *text;  /* of a figure: its caption */
    char               *name;  /* of a figure */
    char               *svg;   /* of a figure */
    shoal_block_cell_t *cells; /* (ncells) */
    size_t              ncells, ncolumns;
} shoal_block_t;

/*
 * How many characters of code stand between the backquote at the beginning of `text` and the next one; 0: none, or no
 * code that Markdown would see there too, whose backquotes pair up by the length of their rows.
 */
size_t shoal_doc_code_length(const char *text);

struct shoal_doc {
    shoal_block_t *blocks; /* (nblocks) */
    size_t         nblocks;
    bool           failed; /* some block or cell found no memory */
};

#endif
