/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A scanner that knows as much of libconfig's grammar as it takes to tell numbers from names,
 * strings and comments, and copies everything else. Comments are left out, newlines are kept, and
 * what an included file brings begins and ends on lines of its own, so that each line of the result
 * is from one line of one file.
 */
#include "src/config/source.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

enum { MAX_NBYTES = 1 << 20, MAX_DEPTH = 10, NUMBER_NBYTES = 64 };

/* A file under way. */
typedef struct {
    shoal_config_source_t *source;
    const char            *path;
    const char            *at;   /* the next character; a NUL ends the text */
    size_t                 line; /* of `at`, from 1 */
    int                    depth;
    shoal_status_t         status; /* the first failure; it ends the scan */
} scan_t;

static void fail(scan_t *scan, shoal_status_t status)
{
    if (status == SHOAL_ERR_NO_MEMORY) {
        shoal_error("%s:%zu: no memory for the configuration", scan->path, scan->line);
    }
    scan->status = status;
}

/* ---- Writing ---- */

/* The array with room for one more element, at powers of two; NULL without memory. */
static void *grow(void *array, size_t n, size_t element_nbytes)
{
    bool full = (n & (n - 1)) == 0;
    return full ? realloc(array, (n == 0 ? 1 : 2 * n) * element_nbytes) : array;
}

/* Notes that the line that begins here in the result is from the present line. */
static void begin_line(scan_t *scan)
{
    shoal_config_source_t *source = scan->source;
    shoal_config_place_t  *places = grow(source->places, source->nplaces, sizeof(*places));
    if (places == NULL) {
        fail(scan, SHOAL_ERR_NO_MEMORY);
        return;
    }
    source->places            = places;
    places[source->nplaces++] = (shoal_config_place_t){scan->path, scan->line};
}

/* One character that is no newline, or the NUL behind the text. */
static void put(scan_t *scan, char c)
{
    shoal_config_source_t *source = scan->source;
    char                  *text   = grow(source->text, source->nbytes, 1);
    if (text == NULL) {
        fail(scan, SHOAL_ERR_NO_MEMORY);
        return;
    }
    source->text           = text;
    text[source->nbytes++] = c;
}

static void put_text(scan_t *scan, const char *text)
{
    for (; *text != '\0'; text++) {
        put(scan, *text);
    }
}

static void break_line(scan_t *scan)
{
    put(scan, '\n');
    begin_line(scan);
}

/*
 * Takes the next character; it is copied unless it is part of a comment, of which only the newlines
 * are.
 */
static void take(scan_t *scan, bool copied)
{
    char c = *scan->at++;
    if (c == '\n') {
        scan->line++;
        break_line(scan);
    } else if (copied) {
        put(scan, c);
    }
}

/* ---- Tokens ---- */

static void take_comment(scan_t *scan, const char *end)
{
    while (*scan->at != '\0' && strncmp(scan->at, end, strlen(end)) != 0) {
        take(scan, false);
    }
    if (*scan->at != '\0' && *end != '\n') {
        scan->at += strlen(end);
    }
    put(scan, ' '); /* a comment parts what stands around it */
}

static void take_string(scan_t *scan)
{
    take(scan, true);
    while (*scan->at != '\0' && *scan->at != '"') {
        if (*scan->at == '\\' && scan->at[1] != '\0') {
            take(scan, true);
        }
        take(scan, true);
    }
    if (*scan->at == '"') {
        take(scan, true);
    }
}

/* A name may hold digits, which are no numbers. */
static void take_name(scan_t *scan)
{
    while (isalnum((unsigned char)*scan->at) ||
           (*scan->at != '\0' && strchr("-_*", *scan->at) != NULL)) {
        take(scan, true);
    }
}

/*
 * How many characters from `text` on belong to a number, or to something wrong that begins like
 * one.
 */
static size_t number_length(const char *text)
{
    bool   hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    size_t n   = text[0] == '-' || text[0] == '+';
    while (isalnum((unsigned char)text[n]) || text[n] == '.' ||
           ((text[n] == '-' || text[n] == '+') && !hex && n > 0 &&
            (text[n - 1] == 'e' || text[n - 1] == 'E'))) {
        n++;
    }
    return n;
}

/* Whether a word is an integer, as libconfig knows them, and in which base. */
static bool is_integer(const char *word, int *base_p)
{
    bool   sign   = word[0] == '-' || word[0] == '+';
    bool   hex    = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
    size_t prefix = hex ? 2 : sign;
    size_t digits = strspn(word + prefix, hex ? "0123456789abcdefABCDEF" : "0123456789");
    *base_p       = hex ? 16 : 10;
    word += prefix + digits;
    return digits > 0 && (*word == '\0' || strcmp(word, "L") == 0 || strcmp(word, "LL") == 0);
}

/*
 * An integer leaves in decimal with its suffix, or as a real where 64 bits do not hold it; other
 * words as they are.
 */
static void take_number(scan_t *scan)
{
    size_t n    = number_length(scan->at);
    char  *word = strndup(scan->at, n), decimal[NUMBER_NBYTES];
    int    base;
    scan->at += n;
    if (word == NULL) {
        fail(scan, SHOAL_ERR_NO_MEMORY);
    } else if (!is_integer(word, &base)) {
        put_text(scan, word);
    } else {
        errno           = 0;
        long long value = strtoll(word, NULL, base);
        double    real  = strtod(word, NULL);
        if (errno == 0) {
            snprintf(decimal, sizeof(decimal), "%lldL", value);
        } else {
            snprintf(decimal, sizeof(decimal), "%.17e",
                     isfinite(real) ? real : copysign(DBL_MAX, real));
        }
        put_text(scan, decimal);
    }
    free(word);
}

/* ---- Included files ---- */

static void scan_file(shoal_config_source_t *source, const char *path, scan_t *includer,
                      shoal_status_t *status_p);

/* Where the text after `@include "` at the beginning of a line starts; NULL: there is none. */
static const char *match_include(const char *text)
{
    static const char word[] = "@include";
    text += strspn(text, " \t");
    if (strncmp(text, word, sizeof(word) - 1) != 0) {
        return NULL;
    }
    text += sizeof(word) - 1;
    size_t nblanks = strspn(text, " \t");
    return nblanks > 0 && text[nblanks] == '"' ? text + nblanks + 1 : NULL;
}

/*
 * The path up to the closing quote, owned by the source; NULL: there is no closing quote on the
 * line, or no memory.
 */
static const char *take_path(scan_t *scan)
{
    shoal_config_source_t *source = scan->source;
    char                 **paths  = grow(source->paths, source->npaths, sizeof(*paths));
    char                  *path   = malloc(strcspn(scan->at, "\n") + 1);
    size_t                 n      = 0;
    source->paths                 = paths == NULL ? source->paths : paths;
    if (path == NULL || paths == NULL) {
        free(path);
        fail(scan, SHOAL_ERR_NO_MEMORY);
        return NULL;
    }
    while (*scan->at != '"' && *scan->at != '\n' && *scan->at != '\0') {
        scan->at += *scan->at == '\\' && (scan->at[1] == '\\' || scan->at[1] == '"');
        path[n++] = *scan->at++;
    }
    path[n]                         = '\0';
    source->paths[source->npaths++] = path;
    if (*scan->at != '"') {
        shoal_error("%s:%zu: the name of the file to include has no closing quote", scan->path,
                    scan->line);
        fail(scan, SHOAL_ERR_CONFIG);
        return NULL;
    }
    scan->at++;
    return path;
}

static void take_include(scan_t *scan, const char *after_quote)
{
    scan->at         = after_quote;
    const char *path = take_path(scan);
    if (path == NULL) {
        return;
    }
    if (scan->depth == MAX_DEPTH || scan->source->nbytes > MAX_NBYTES) {
        shoal_error("%s:%zu: @include \"%s\": files that include each other go more than %d deep, "
                    "or grow without end",
                    scan->path, scan->line, path, MAX_DEPTH);
        fail(scan, SHOAL_ERR_CONFIG);
        return;
    }
    scan_file(scan->source, path, scan, &scan->status);
    if (scan->status == SHOAL_OK) {
        break_line(scan);
    }
}

/* ---- Files ---- */

static void take_token(scan_t *scan)
{
    const char *at = scan->at;
    char        c  = *at;
    if (c == '"') {
        take_string(scan);
    } else if (c == '#' || strncmp(at, "//", 2) == 0) {
        take_comment(scan, "\n");
    } else if (strncmp(at, "/*", 2) == 0) {
        scan->at += 2;
        take_comment(scan, "*/");
    } else if (isalpha((unsigned char)c) || c == '*') {
        take_name(scan);
    } else if (isdigit((unsigned char)c) || c == '.' ||
               ((c == '-' || c == '+') && (isdigit((unsigned char)at[1]) || at[1] == '.'))) {
        take_number(scan);
    } else {
        take(scan, true);
    }
}

static void scan_text(scan_t *scan)
{
    bool fresh = true; /* at the beginning of a line */
    begin_line(scan);
    while (scan->status == SHOAL_OK && *scan->at != '\0') {
        const char *include = fresh ? match_include(scan->at) : NULL;
        fresh               = *scan->at == '\n';
        if (include != NULL) {
            take_include(scan, include);
        } else {
            take_token(scan);
        }
    }
}

/* includer: NULL for the first file. */
static void scan_file(shoal_config_source_t *source, const char *path, scan_t *includer,
                      shoal_status_t *status_p)
{
    char       *bytes;
    size_t      nbytes;
    const char *why;
    *status_p = shoal_file_read(path, SHOAL_FILE_STREAM, MAX_NBYTES, &bytes, &nbytes, &why);
    if (*status_p != SHOAL_OK) {
        if (includer == NULL) {
            shoal_error("%s: %s", path, why);
        } else {
            shoal_error("%s:%zu: @include \"%s\": %s", includer->path, includer->line, path, why);
        }
        *status_p = *status_p == SHOAL_ERR_DATA ? SHOAL_ERR_CONFIG : *status_p;
        return;
    }
    scan_t scan = {.source = source,
                   .path   = path,
                   .at     = bytes,
                   .line   = 1,
                   .depth  = includer == NULL ? 0 : includer->depth + 1};
    if (includer != NULL) {
        put(&scan, '\n');
    }
    scan_text(&scan);
    if (scan.status == SHOAL_OK && scan.at != bytes + nbytes) {
        shoal_error("%s:%zu: a NUL byte: this is no text", path, scan.line);
        scan.status = SHOAL_ERR_CONFIG;
    }
    free(bytes);
    *status_p = scan.status;
}

shoal_status_t shoal_config_source_read(const char *path, shoal_config_source_t *source_p)
{
    shoal_config_source_t source = {.text = NULL};
    shoal_status_t        status;
    scan_file(&source, path, NULL, &status);
    if (status == SHOAL_OK) {
        scan_t end = {.source = &source, .path = path};
        put(&end, '\0');
        status = end.status;
    }
    if (status != SHOAL_OK) {
        shoal_config_source_free(&source);
        return status;
    }
    *source_p = source;
    return SHOAL_OK;
}

void shoal_config_source_free(shoal_config_source_t *source)
{
    for (size_t i = 0; i < source->npaths; i++) {
        free(source->paths[i]);
    }
    free(source->paths);
    free(source->places);
    free(source->text);
    *source = (shoal_config_source_t){.text = NULL};
}

shoal_config_place_t shoal_config_source_place(const shoal_config_source_t *source, size_t line)
{
    return source->places[line < 1 ? 0 : line > source->nplaces ? source->nplaces - 1 : line - 1];
}
