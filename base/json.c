/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

enum { PATH_NBYTES = 4096 };

#define MAX_NBYTES ((size_t)4 << 30)

json_t *shoal_json_at(const json_t *object, const char *path)
{
    char part[64];
    while (object != NULL) {
        size_t n = strcspn(path, ".");
        if (n >= sizeof(part)) {
            return NULL;
        }
        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        json_t *value = json_object_get(object, part);
        if (path[n] == '\0') {
            return value;
        }
        object = value;
        path += n + 1;
    }
    return NULL;
}

double shoal_json_number(const json_t *object, const char *path)
{
    const json_t *value = shoal_json_at(object, path);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *shoal_json_text(const json_t *object, const char *path)
{
    return json_string_value(shoal_json_at(object, path));
}

json_t *shoal_json_read(const char *dir, const char *name, size_t nbytes, char *why_p)
{
    char         path[PATH_NBYTES], *text = NULL;
    const char  *why   = "the path is too long";
    size_t       ntext = 0;
    json_t      *value = NULL;
    json_error_t error;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) < PATH_NBYTES &&
        shoal_file_read(path, SHOAL_FILE_REGULAR, MAX_NBYTES, &text, &ntext, &why) == SHOAL_OK) {
        value = json_loadb(text, ntext, 0, &error);
        why   = value == NULL ? error.text : "no JSON object";
    }
    if (!json_is_object(value)) {
        char offset[40] = "";
        if (text != NULL && value == NULL) {
            snprintf(offset, sizeof(offset), "offset %d: ", error.position);
        }
        snprintf(why_p, why_p == NULL ? 0 : nbytes, "%s: %s%s", name, offset, ntext == 0 && text != NULL ? "empty" : why);
        json_decref(value);
        value = NULL;
    }
    free(text);
    return value;
}

/* How many bytes the character has that begins here; 0: they are no UTF-8. jansson is the judge of that. */
static size_t character_nbytes(const char *text)
{
    size_t n = strnlen(text, 4);
    for (size_t i = 1; i <= n; i++) {
        json_t *character = json_stringn(text, i);
        if (character != NULL) {
            json_decref(character);
            return i;
        }
    }
    return 0;
}

json_t *shoal_json_escaped(const char *text)
{
    json_t *json    = json_string(text);
    char   *escaped = json == NULL ? malloc(4 * strlen(text) + 1) : NULL;
    size_t  used    = 0;
    if (escaped == NULL) {
        return json;
    }
    while (*text != '\0') {
        size_t n = character_nbytes(text);
        if (n == 0) {
            used += (size_t)sprintf(escaped + used, "\\x%02x", (unsigned char)*text);
        }
        memcpy(escaped + used, text, n);
        used += n;
        text += n == 0 ? 1 : n;
    }
    json = json_stringn(escaped, used);
    free(escaped);
    return json;
}

shoal_status_t shoal_json_write(const char *dir, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (text == NULL) {
        shoal_error("%s/%s: no memory, or a value that JSON cannot hold", dir, name);
        return SHOAL_ERR_INTERNAL;
    }
    size_t nbytes         = strlen(text);
    text[nbytes]          = '\n'; /* in place of the terminator: a text file ends with a newline */
    shoal_status_t status = shoal_file_replace(dir, name, text, nbytes + 1);
    free(text);
    return status;
}
