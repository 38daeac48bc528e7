/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A document as Markdown. Every text stays on its line and means itself: what Markdown would take
 * for markup, for HTML or for the end of a cell or of a block is escaped, whoever wrote it into a
 * record or a log.
 */
#include <stdbool.h>
#include <string.h>

#include "src/report/doc.h"
#include "src/report/doc_internal.h"

/* One character of a line; a bar would end the cell of a table, in code too. */
static void print_char(char c, bool in_cell, FILE *file)
{
    if (c == '|' && in_cell) {
        fputs("\\|", file);
    } else {
        fputc(c == '\n' ? ' ' : c, file);
    }
}

static void print_escaped(char c, bool in_cell, FILE *file)
{
    switch (c) {
    case '<': fputs("&lt;", file); break;
    case '&': fputs("&amp;", file); break;
    case '`':
    case '\\':
    case '*':
    case '[': fprintf(file, "\\%c", c); break;
    default: print_char(c, in_cell, file);
    }
}

static void print_text(const char *text, bool in_cell, FILE *file)
{
    while (*text != '\0') {
        size_t ncode = shoal_doc_code_length(text);
        if (ncode == 0) {
            size_t nquotes = strspn(text, "`");
            for (size_t i = 0; i < (nquotes == 0 ? 1 : nquotes); i++) {
                print_escaped(*text++, in_cell, file);
            }
            continue;
        }
        fputc(*text++, file);
        for (size_t i = 0; i < ncode; i++) {
            print_char(*text++, in_cell, file);
        }
        fputc(*text++, file);
    }
}

static void print_line(const char *before, const char *text, FILE *file)
{
    fputs(before, file);
    print_text(text, false, file);
    fputs("\n\n", file);
}

static void print_table(const shoal_block_t *block, FILE *file)
{
    for (size_t i = 0; i < block->ncells; i++) {
        const char *text = block->cells[i].text;
        fputs(i % block->ncolumns == 0 ? "| " : " | ", file);
        print_text(i < block->ncolumns && text[0] == '<' ? text + 1 : text, true, file);
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
        fputs("- ", file);
        print_text(block->cells[i].text, false, file);
        fputs(": ", file);
        print_text(block->cells[i + 1].text, false, file);
        fputc('\n', file);
    }
    fputc('\n', file);
}

/* The fence has a tilde more than any row of tildes inside, so that nothing in the text ends it. */
static void print_verbatim(const char *text, FILE *file)
{
    size_t longest = 3, nbytes = strlen(text);
    for (const char *at = strchr(text, '~'); at != NULL; at = strchr(at, '~')) {
        size_t n = strspn(at, "~");
        longest  = n > longest ? n : longest;
        at += n;
    }
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i <= longest; i++) {
            fputc('~', file);
        }
        fputc('\n', file);
        if (turn == 0) {
            fputs(text, file);
            fputs(nbytes > 0 && text[nbytes - 1] == '\n' ? "" : "\n", file);
        }
    }
    fputc('\n', file);
}

static void print_block(const shoal_block_t *block, FILE *file)
{
    switch (block->kind) {
    case SHOAL_BLOCK_TITLE: print_line("# ", block->text, file); break;
    case SHOAL_BLOCK_HEADING: print_line("## ", block->text, file); break;
    case SHOAL_BLOCK_PARAGRAPH: print_line("", block->text, file); break;
    case SHOAL_BLOCK_NOTE: print_line("> **Note:** ", block->text, file); break;
    case SHOAL_BLOCK_VERBATIM: print_verbatim(block->text, file); break;
    case SHOAL_BLOCK_TILES: print_tiles(block, file); break;
    case SHOAL_BLOCK_TABLE: print_table(block, file); break;
    case SHOAL_BLOCK_FIGURE:
        fprintf(file, "![%s](plots/%s.svg)\n\n", block->text, block->name);
        break;
    }
}

void shoal_doc_print_markdown(const shoal_doc_t *doc, FILE *file)
{
    for (size_t i = 0; i < doc->nblocks; i++) {
        print_block(&doc->blocks[i], file);
    }
}
