/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The page: one file, no script, nothing fetched. Colours are variables that follow the reader's light or dark
 * setting; plots take theirs from the text around them (report_plot.c). Wide tables scroll by themselves, and on paper
 * everything is black on white.
 */
#include <string.h>

#include "src/report/doc.h"
#include "src/report/doc_internal.h"

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1c2430;--dim:#5c6877;--line:#dfe4ea;--soft:#f5f7f9;--accent:#2f6fb3;"
    "--good:#1d7a46;--bad:#b3382c;--warn:#fff6e0;--warnline:#e0a800}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#dde3ea;--dim:#94a0ae;--line:#2d353f;--soft:#1b2128;"
    "--accent:#6fa8e0;--good:#5cc48a;--bad:#ef8276;--warn:#2e2814;--warnline:#b58a17}}\n"
    "@media print{:root{--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--soft:#fff}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);"
    "font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\n"
    "main{max-width:1080px;margin:0 auto;padding:40px 24px 80px}h1{font-size:28px;line-height:1.25;margin:0 0 12px;"
    "letter-spacing:-.01em}h2{font-size:19px;margin:44px 0 10px;padding-top:14px;border-top:1px solid var(--line)}\n"
    "p{margin:10px 0;max-width:86ch}code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    "code{background:var(--soft);padding:1px 4px;border-radius:3px}\n"
    "pre{background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:10px 14px;overflow-x:auto}\n"
    ".note{border-left:4px solid var(--warnline);background:var(--warn);padding:8px 14px;margin:12px 0;border-radius:0 6px 6px 0}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:22px 0}"
    ".tile{border:1px solid var(--line);border-radius:8px;padding:12px 14px;background:var(--soft)}"
    ".tile b{display:block;font-size:20px;font-variant-numeric:tabular-nums;letter-spacing:-.01em}"
    ".tile span{color:var(--dim);font-size:13px}\n"
    ".wide{overflow-x:auto;margin:14px 0}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}"
    "th,td{padding:6px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}"
    "th{color:var(--dim);font-weight:600;border-bottom:2px solid var(--line);white-space:normal;vertical-align:bottom}"
    ".l{text-align:left}td.l{white-space:normal;min-width:9em}tbody tr:hover{background:var(--soft)}\n"
    ".good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}.muted{color:var(--dim)}\n"
    "figure{margin:18px 0}figure svg{width:100%;max-width:820px;height:auto;display:block}"
    "figcaption{color:var(--dim);font-size:13.5px;max-width:86ch}\n";

static void print_char(char c, FILE *file)
{
    switch (c) {
    case '&': fputs("&amp;", file); break;
    case '<': fputs("&lt;", file); break;
    case '>': fputs("&gt;", file); break;
    case '"': fputs("&quot;", file); break;
    case '\'': fputs("&#39;", file); break;
    default: fputc(c, file);
    }
}

static void print_escaped(const char *text, FILE *file)
{
    for (; *text != '\0'; text++) {
        print_char(*text, file);
    }
}

/* A pair of backquotes becomes code. */
static void print_text(const char *text, FILE *file)
{
    while (*text != '\0') {
        size_t ncode = shoal_doc_code_length(text);
        size_t n     = ncode > 0 ? ncode : text[0] == '`' ? strspn(text, "`") : 1;
        text += ncode > 0;
        fputs(ncode > 0 ? "<code>" : "", file);
        for (size_t i = 0; i < n; i++) {
            print_char(*text++, file);
        }
        fputs(ncode > 0 ? "</code>" : "", file);
        text += ncode > 0;
    }
}

static void print_element(const char *open, const char *text, const char *close, FILE *file)
{
    fputs(open, file);
    print_text(text, file);
    fputs(close, file);
}

static void print_tiles(const shoal_block_t *block, FILE *file)
{
    fputs("<div class=\"tiles\">\n", file);
    for (size_t i = 0; i + 1 < block->ncells; i += 2) {
        print_element("<div class=\"tile\"><b>", block->cells[i + 1].text, "</b>", file);
        print_element("<span>", block->cells[i].text, "</span></div>\n", file);
    }
    fputs("</div>\n", file);
}

static void print_table_cell(const shoal_block_t *block, size_t i, FILE *file)
{
    static const char *const marks[] = {
        [SHOAL_DOC_PLAIN] = "", [SHOAL_DOC_GOOD] = "good", [SHOAL_DOC_BAD] = "bad", [SHOAL_DOC_MUTED] = "muted"};
    bool        head = i < block->ncolumns;
    bool        left = block->cells[i % block->ncolumns].text[0] == '<';
    const char *text = block->cells[i].text;
    fprintf(file, "<%s class=\"%s %s\">", head ? "th" : "td", left ? "l" : "", marks[block->cells[i].mark]);
    print_text(head && left ? text + 1 : text, file);
    fputs(head ? "</th>" : "</td>", file);
}

static void print_table(const shoal_block_t *block, FILE *file)
{
    fputs("<div class=\"wide\"><table><thead>\n", file);
    for (size_t i = 0; i < block->ncells; i++) {
        fputs(i % block->ncolumns == 0 ? "<tr>" : "", file);
        print_table_cell(block, i, file);
        fputs((i + 1) % block->ncolumns == 0 ? "</tr>\n" : "", file);
        fputs(i + 1 == block->ncolumns ? "</thead><tbody>\n" : "", file);
    }
    fputs("</tbody></table></div>\n", file);
}

static void print_figure(const shoal_block_t *block, FILE *file)
{
    fputs("<figure role=\"img\" aria-label=\"", file);
    print_escaped(block->text, file);
    fputs("\">\n", file);
    fputs(block->svg, file); /* gnuplot's, adapted by report_plot.c: markup, not text */
    print_element("<figcaption>", block->text, "</figcaption></figure>\n", file);
}

static void print_block(const shoal_block_t *block, FILE *file)
{
    switch (block->kind) {
    case SHOAL_BLOCK_TITLE: print_element("<h1>", block->text, "</h1>\n", file); break;
    case SHOAL_BLOCK_HEADING: print_element("<h2>", block->text, "</h2>\n", file); break;
    case SHOAL_BLOCK_PARAGRAPH: print_element("<p>", block->text, "</p>\n", file); break;
    case SHOAL_BLOCK_NOTE: print_element("<div class=\"note\">", block->text, "</div>\n", file); break;
    case SHOAL_BLOCK_VERBATIM:
        fputs("<pre>", file);
        print_escaped(block->text, file);
        fputs("</pre>\n", file);
        break;
    case SHOAL_BLOCK_TILES: print_tiles(block, file); break;
    case SHOAL_BLOCK_TABLE: print_table(block, file); break;
    case SHOAL_BLOCK_FIGURE: print_figure(block, file); break;
    }
}

void shoal_doc_print_html(const shoal_doc_t *doc, FILE *file)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>", file);
    for (size_t i = 0; i < doc->nblocks; i++) {
        if (doc->blocks[i].kind == SHOAL_BLOCK_TITLE) {
            print_escaped(doc->blocks[i].text, file);
            break;
        }
    }
    fprintf(file, "</title>\n<style>\n%s</style></head>\n<body><main>\n", style);
    for (size_t i = 0; i < doc->nblocks; i++) {
        print_block(&doc->blocks[i], file);
    }
    fputs("</main></body></html>\n", file);
}
