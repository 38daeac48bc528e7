/* SPDX-License-Identifier: BSD-3-Clause */
/* The last line of a file that is still being written may be half there: it is no JSON, and ends the reading. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

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

static size_t read_losses(FILE *file, size_t n, double *losses_p)
{
    char  *line   = NULL;
    size_t nbytes = 0, count = 0;
    while (count < n && getline(&line, &nbytes, file) > 0) {
        json_t *step = json_loads(line, 0, NULL);
        if (step == NULL || shoal_json_number(step, "step") != (double)(count + 1)) {
            json_decref(step);
            break;
        }
        losses_p[count++] = shoal_json_number(step, "loss");
        json_decref(step);
    }
    free(line);
    return count;
}

size_t shoal_json_read_losses(const char *dir, size_t n, double *losses_p)
{
    char path[PATH_NBYTES];
    if (snprintf(path, sizeof(path), "%s/rank-00000.jsonl", dir) >= PATH_NBYTES) {
        return 0;
    }
    const char *why;
    int         fd   = shoal_file_open(path, SHOAL_FILE_REGULAR, &why);
    FILE       *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (file == NULL) {
        return 0;
    }
    size_t count = read_losses(file, n, losses_p);
    fclose(file);
    return count;
}
