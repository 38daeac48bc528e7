/* SPDX-License-Identifier: BSD-3-Clause */
/* Building documents; report_markdown.c and report_html.c print them. */
#include "src/report/doc.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "src/report/doc_internal.h"
#include "src/report/text.h"

shoal_doc_t *shoal_doc_create(void)
{
    return calloc(1, sizeof(shoal_doc_t));
}

void shoal_doc_free(shoal_doc_t *doc)
{
    for (size_t i = 0; doc != NULL && i < doc->nblocks; i++) {
        shoal_block_t *block = &doc->blocks[i];
        for (size_t k = 0; k < block->ncells; k++) {
            free(block->cells[k].text);
        }
        free(block->cells);
        free(block->text);
        free(block->name);
        free(block->svg);
    }
    if (doc != NULL) {
        free(doc->blocks);
    }
    free(doc);
}

shoal_status_t shoal_doc_status(const shoal_doc_t *doc)
{
    if (doc == NULL || doc->failed) {
        shoal_error("no memory for the report");
        return SHOAL_ERR_NO_MEMORY;
    }
    return SHOAL_OK;
}

/* ---- Blocks ---- */

static char *format_text(shoal_doc_t *doc, const char *format, va_list args)
{
    char  *text   = NULL;
    size_t nbytes = 0;
    FILE  *file   = open_memstream(&text, &nbytes);
    if (file != NULL) {
        vfprintf(file, format, args);
        fclose(file);
    }
    doc->failed = doc->failed || text == NULL;
    if (text != NULL) {
        shoal_text_clean(text);
    }
    return text;
}

static char *copy_text(shoal_doc_t *doc, const char *text)
{
    char *copy  = strdup(text);
    doc->failed = doc->failed || copy == NULL;
    if (copy != NULL) {
        shoal_text_clean(copy);
    }
    return copy;
}

/* Takes over `text`. Returns the new block, or NULL without memory. */
static shoal_block_t *add_block(shoal_doc_t *doc, shoal_block_kind_t kind, char *text)
{
    shoal_block_t *blocks = realloc(doc->blocks, (doc->nblocks + 1) * sizeof(*blocks));
    if (blocks == NULL) {
        doc->failed = true;
        free(text);
        return NULL;
    }
    doc->blocks          = blocks;
    blocks[doc->nblocks] = (shoal_block_t){.kind = kind, .text = text};
    return &blocks[doc->nblocks++];
}

#define ADD_FORMATTED(kind)                              \
    do {                                                 \
        va_list args;                                    \
        va_start(args, format);                          \
        char *text = format_text(doc, format, args);     \
        va_end(args);                                    \
        (void)add_block(doc, kind, text);                \
    } while (0)

void shoal_doc_title(shoal_doc_t *doc, const char *format, ...)
{
    ADD_FORMATTED(SHOAL_BLOCK_TITLE);
}

void shoal_doc_heading(shoal_doc_t *doc, const char *format, ...)
{
    ADD_FORMATTED(SHOAL_BLOCK_HEADING);
}

void shoal_doc_paragraph(shoal_doc_t *doc, const char *format, ...)
{
    ADD_FORMATTED(SHOAL_BLOCK_PARAGRAPH);
}

void shoal_doc_note(shoal_doc_t *doc, const char *format, ...)
{
    ADD_FORMATTED(SHOAL_BLOCK_NOTE);
}

void shoal_doc_verbatim(shoal_doc_t *doc, const char *text)
{
    (void)add_block(doc, SHOAL_BLOCK_VERBATIM, copy_text(doc, text));
}

void shoal_doc_figure(shoal_doc_t *doc, const char *name, const char *caption, const char *svg)
{
    shoal_block_t *block = add_block(doc, SHOAL_BLOCK_FIGURE, copy_text(doc, caption));
    if (block != NULL) {
        block->name = copy_text(doc, name);
        block->svg  = strdup(svg); /* markup, not text */
        doc->failed = doc->failed || block->svg == NULL;
    }
}

/* ---- Cells ---- */

/* Takes over `text`; it goes to the last block if that is of this kind. */
static void add_cell(shoal_doc_t *doc, shoal_block_kind_t kind, char *text)
{
    shoal_block_t      *block = doc->nblocks == 0 ? NULL : &doc->blocks[doc->nblocks - 1];
    shoal_block_cell_t *cells = NULL;
    if (block != NULL && block->kind == kind && text != NULL) {
        cells = realloc(block->cells, (block->ncells + 1) * sizeof(*cells));
    }
    if (cells == NULL) {
        doc->failed = true;
        free(text);
        return;
    }
    block->cells           = cells;
    cells[block->ncells++] = (shoal_block_cell_t){.text = text};
}

void shoal_doc_tile(shoal_doc_t *doc, const char *label, const char *format, ...)
{
    if (doc->nblocks == 0 || doc->blocks[doc->nblocks - 1].kind != SHOAL_BLOCK_TILES) {
        (void)add_block(doc, SHOAL_BLOCK_TILES, NULL);
    }
    va_list args;
    va_start(args, format);
    add_cell(doc, SHOAL_BLOCK_TILES, copy_text(doc, label));
    add_cell(doc, SHOAL_BLOCK_TILES, format_text(doc, format, args));
    va_end(args);
}

void shoal_doc_table(shoal_doc_t *doc, const char *const *columns, size_t ncolumns)
{
    shoal_block_t *block = add_block(doc, SHOAL_BLOCK_TABLE, NULL);
    for (size_t i = 0; block != NULL && i < ncolumns; i++) {
        add_cell(doc, SHOAL_BLOCK_TABLE, copy_text(doc, columns[i]));
    }
    if (block != NULL) {
        block->ncolumns = ncolumns;
    }
}

void shoal_doc_cell(shoal_doc_t *doc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_cell(doc, SHOAL_BLOCK_TABLE, format_text(doc, format, args));
    va_end(args);
}

void shoal_doc_mark(shoal_doc_t *doc, shoal_doc_mark_t mark)
{
    shoal_block_t *block = doc->nblocks == 0 ? NULL : &doc->blocks[doc->nblocks - 1];
    if (block != NULL && block->ncells > 0) {
        block->cells[block->ncells - 1].mark = mark;
    }
}

size_t shoal_doc_code_length(const char *text)
{
    size_t n = text[0] == '`' ? strcspn(text + 1, "`") : 0;
    return n == 0 || text[n + 1] == '\0' || text[n + 2] == '`' ? 0 : n;
}
