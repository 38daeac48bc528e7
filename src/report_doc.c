/* SPDX-License-Identifier: BSD-3-Clause */
/* Building documents, and printing them as Markdown; report_html.c prints the page. */
#include "src/report_doc.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "src/report_doc_internal.h"

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
    return text;
}

static char *copy_text(shoal_doc_t *doc, const char *text)
{
    char *copy  = strdup(text);
    doc->failed = doc->failed || copy == NULL;
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
        block->svg  = copy_text(doc, svg);
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

/* ---- Markdown ---- */

/* A cell is one line, and a bar would end it. */
static void print_cell(const char *text, FILE *file)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            fputs("\\|", file);
        } else {
            fputc(*text == '\n' ? ' ' : *text, file);
        }
    }
}

static void print_table(const shoal_block_t *block, FILE *file)
{
    for (size_t i = 0; i < block->ncells; i++) {
        const char *text = block->cells[i].text;
        fputs(i % block->ncolumns == 0 ? "| " : " | ", file);
        print_cell(i < block->ncolumns && text[0] == '<' ? text + 1 : text, file);
        if ((i + 1) % block->ncolumns == 0) {
            fputs(" |\n", file);
        }
        for (size_t k = 0; i + 1 == block->ncolumns && k < block->ncolumns; k++) {
            fputs(block->cells[k].text[0] == '<' ? "| :-- " : "| --: ", file);
            fputs(k + 1 == block->ncolumns ? "|\n" : "", file);
        }
    }
    fputc('\n', file);
}

static void print_tiles(const shoal_block_t *block, FILE *file)
{
    for (size_t i = 0; i + 1 < block->ncells; i += 2) {
        fprintf(file, "- %s: %s\n", block->cells[i].text, block->cells[i + 1].text);
    }
    fputc('\n', file);
}

static void print_block(const shoal_block_t *block, FILE *file)
{
    switch (block->kind) {
    case SHOAL_BLOCK_TITLE: fprintf(file, "# %s\n\n", block->text); break;
    case SHOAL_BLOCK_HEADING: fprintf(file, "## %s\n\n", block->text); break;
    case SHOAL_BLOCK_PARAGRAPH: fprintf(file, "%s\n\n", block->text); break;
    case SHOAL_BLOCK_NOTE: fprintf(file, "> **Note:** %s\n\n", block->text); break;
    case SHOAL_BLOCK_VERBATIM: fprintf(file, "~~~~\n%s%s~~~~\n\n", block->text,
                                       block->text[0] != '\0' && block->text[strlen(block->text) - 1] == '\n' ? "" : "\n");
        break;
    case SHOAL_BLOCK_TILES: print_tiles(block, file); break;
    case SHOAL_BLOCK_TABLE: print_table(block, file); break;
    case SHOAL_BLOCK_FIGURE: fprintf(file, "![%s](plots/%s.svg)\n\n", block->text, block->name); break;
    }
}

void shoal_doc_print_markdown(const shoal_doc_t *doc, FILE *file)
{
    for (size_t i = 0; i < doc->nblocks; i++) {
        print_block(&doc->blocks[i], file);
    }
}
