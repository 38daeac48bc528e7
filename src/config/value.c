/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Values, through the table of keys: found by name, parsed, checked, stored in the spec, read back as JSON, described to a person.
 * Nothing here logs: config.c knows where a value came from and says what is wrong with it.
 */
#include "src/config/keys.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "src/config/nearest.h"

const shoal_key_t *shoal_key_find(const char *name)
{
    for (size_t i = 0; i < shoal_nkeys; i++) {
        if (strcmp(shoal_keys[i].name, name) == 0) {
            return &shoal_keys[i];
        }
    }
    return NULL;
}

/* Copies the part of a name before its dot. */
static void group_of(const char *name, char group_p[32])
{
    snprintf(group_p, 32, "%.*s", (int)strcspn(name, "."), name);
}

static const char *leaf_of(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

/*
 * A wrong letter in the last part costs more than one in the group: "model.steps" meant run.steps, not model.tied. A name without
 * a dot may be a group or a key that lost its group.
 */
static size_t key_distance(const char *name, const char *key_name)
{
    char group[32], key_group[32];
    group_of(name, group);
    group_of(key_name, key_group);
    size_t by_group = shoal_edit_distance(group, key_group), by_leaf = shoal_edit_distance(leaf_of(name), leaf_of(key_name));
    if (strchr(name, '.') == NULL) {
        return 2 * (by_group < by_leaf ? by_group : by_leaf);
    }
    return 2 * by_leaf + (by_group < 2 ? by_group : 2);
}

void shoal_key_suggest(const char *name, char *text_p, size_t nbytes)
{
    size_t best = 0;
    char   group[32];
    for (size_t i = 1; i < shoal_nkeys; i++) {
        if (key_distance(name, shoal_keys[i].name) < key_distance(name, shoal_keys[best].name)) {
            best = i;
        }
    }
    const char *key_name = shoal_keys[best].name;
    group_of(key_name, group);
    bool is_group = strchr(name, '.') == NULL && shoal_edit_distance(name, group) < shoal_edit_distance(name, leaf_of(key_name));
    snprintf(text_p, nbytes, "%s", is_group ? group : key_name);
}

bool shoal_key_group_exists(const char *group)
{
    for (size_t i = 0; i < shoal_nkeys; i++) {
        size_t n = strcspn(shoal_keys[i].name, ".");
        if (strlen(group) == n && strncmp(shoal_keys[i].name, group, n) == 0) {
            return true;
        }
    }
    return false;
}

/* An enum with a choice of that name has nothing open. */
bool shoal_key_is_auto(const shoal_key_t *key)
{
    bool choice = key->choices != NULL && strcmp(key->choices[0], "auto") == 0;
    return key->type != SHOAL_KEY_STRING && !choice && key->fallback != NULL && strcmp(key->fallback, "auto") == 0;
}

/* Appends to text_p, cutting off what does not fit. */
static void __attribute__((format(printf, 3, 4))) append(char *text_p, size_t nbytes, const char *format, ...)
{
    size_t  used = strlen(text_p);
    va_list args;
    va_start(args, format);
    vsnprintf(text_p + used, nbytes - used, format, args);
    va_end(args);
}

/* Bounds that are there only for safety (from a million up) are not worth a person's time; DBL_MIN stands for "above 0". */
static void append_range(const shoal_key_t *key, char *text_p, size_t nbytes)
{
    bool above_zero = key->min > 0 && key->min < 1e-300, unbounded = key->max > 1e6;
    if (above_zero) {
        append(text_p, nbytes, " above 0");
    } else if (unbounded) {
        append(text_p, nbytes, " of %.10g or more", key->min);
    } else {
        append(text_p, nbytes, " from %.10g", key->min);
    }
    if (!unbounded) {
        append(text_p, nbytes, " to %.10g", key->max);
    }
}

void shoal_key_expects(const shoal_key_t *key, char *text_p, size_t nbytes)
{
    static const char *const nouns[] = {
        [SHOAL_KEY_STRING] = "a string",      [SHOAL_KEY_ENUM] = "a string",        [SHOAL_KEY_SIZE] = "a whole number",
        [SHOAL_KEY_REAL] = "a number", [SHOAL_KEY_BOOL] = "true or false",
    };
    snprintf(text_p, nbytes, "%s", key->choices != NULL ? "one of" : nouns[key->type]);
    for (size_t i = 0; key->choices != NULL && key->choices[i] != NULL; i++) {
        append(text_p, nbytes, "%s %s", i == 0 ? "" : ",", key->choices[i]);
    }
    if (key->type == SHOAL_KEY_SIZE || key->type == SHOAL_KEY_REAL) {
        append_range(key, text_p, nbytes);
    }
    if (shoal_key_is_auto(key)) {
        append(text_p, nbytes, ", or auto");
    }
}

/* Numbers are decimal, or hexadecimal with 0x, as in the file; a leading zero does not mean octal. */
static bool parse_integer(const char *word, long long *integer_p)
{
    char *end;
    int   base = strncasecmp(word, "0x", 2) == 0 ? 16 : 10;
    errno      = 0;
    *integer_p = strtoll(word, &end, base);
    return errno == 0 && end != word && *end == '\0';
}

static bool parse_real(const char *word, double *real_p)
{
    char *end;
    *real_p = strtod(word, &end);
    return end != word && *end == '\0' && isfinite(*real_p);
}

shoal_value_t shoal_value_parse(const shoal_key_t *key, const char *word)
{
    shoal_value_t value  = {.type = SHOAL_VALUE_STRING, .string = word};
    bool          number = key->type == SHOAL_KEY_SIZE || key->type == SHOAL_KEY_REAL;
    if (key->type == SHOAL_KEY_BOOL && (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)) {
        value = (shoal_value_t){.type = SHOAL_VALUE_BOOL, .integer = word[0] == 't'};
    } else if (number && parse_integer(word, &value.integer)) {
        value.type = SHOAL_VALUE_INTEGER;
    } else if (number && parse_real(word, &value.real)) {
        value.type = SHOAL_VALUE_REAL;
    }
    return value;
}

void shoal_value_format(const shoal_value_t *value, char *text_p, size_t nbytes)
{
    switch (value->type) {
    case SHOAL_VALUE_INTEGER:
        snprintf(text_p, nbytes, "%lld", value->integer);
        break;
    case SHOAL_VALUE_REAL: /* always such that it cannot be taken for an integer */
        snprintf(text_p, nbytes, "%.10g", value->real);
        append(text_p, nbytes, "%s", text_p[strcspn(text_p, ".en")] == '\0' ? ".0" : "");
        break;
    case SHOAL_VALUE_BOOL:
        snprintf(text_p, nbytes, "%s", value->integer ? "true" : "false");
        break;
    case SHOAL_VALUE_STRING:
        snprintf(text_p, nbytes, "\"%s\"", value->string);
        break;
    case SHOAL_VALUE_OTHER:
        snprintf(text_p, nbytes, "a group or a list");
        break;
    }
}

static void *element_of(const shoal_key_t *key, shoal_spec_t *spec, size_t index)
{
    static const size_t sizes[] = {
        [SHOAL_KEY_STRING] = sizeof(const char *), [SHOAL_KEY_ENUM] = sizeof(int),  [SHOAL_KEY_SIZE] = sizeof(size_t),
        [SHOAL_KEY_REAL] = sizeof(double),         [SHOAL_KEY_BOOL] = sizeof(bool),
    };
    return (char *)spec + key->offset + index * sizes[key->type];
}

static shoal_status_t store_string(const shoal_key_t *key, const shoal_value_t *value, void *to)
{
    if (value->type != SHOAL_VALUE_STRING) {
        return SHOAL_ERR_INVALID;
    }
    int choice = 0;
    while (key->choices != NULL && key->choices[choice] != NULL && strcmp(key->choices[choice], value->string) != 0) {
        choice++;
    }
    if (key->choices != NULL && key->choices[choice] == NULL) {
        return SHOAL_ERR_INVALID;
    }
    if (key->type == SHOAL_KEY_ENUM) {
        memcpy(to, &choice, sizeof(choice));
    } else {
        memcpy(to, &value->string, sizeof(value->string));
    }
    return SHOAL_OK;
}

static shoal_status_t store_size(const shoal_key_t *key, const shoal_value_t *value, void *to)
{
    if (value->type != SHOAL_VALUE_INTEGER || !((double)value->integer >= key->min && (double)value->integer <= key->max)) {
        return SHOAL_ERR_INVALID;
    }
    size_t size = (size_t)value->integer;
    memcpy(to, &size, sizeof(size));
    return SHOAL_OK;
}

static shoal_status_t store_real(const shoal_key_t *key, const shoal_value_t *value, void *to)
{
    if (value->type != SHOAL_VALUE_INTEGER && value->type != SHOAL_VALUE_REAL) {
        return SHOAL_ERR_INVALID;
    }
    double real = value->type == SHOAL_VALUE_REAL ? value->real : (double)value->integer;
    if (!(real >= key->min && real <= key->max)) {
        return SHOAL_ERR_INVALID;
    }
    memcpy(to, &real, sizeof(real));
    return SHOAL_OK;
}

shoal_status_t shoal_key_store(const shoal_key_t *key, const shoal_value_t *value, size_t index, shoal_spec_t *spec)
{
    void *to = element_of(key, spec, index);
    switch (key->type) {
    case SHOAL_KEY_STRING:
    case SHOAL_KEY_ENUM:
        return store_string(key, value, to);
    case SHOAL_KEY_SIZE:
        return store_size(key, value, to);
    case SHOAL_KEY_REAL:
        return store_real(key, value, to);
    case SHOAL_KEY_BOOL:
        if (value->type != SHOAL_VALUE_BOOL) {
            return SHOAL_ERR_INVALID;
        }
        *(bool *)to = value->integer != 0;
        return SHOAL_OK;
    }
    return SHOAL_ERR_INVALID;
}

size_t shoal_key_count(const shoal_key_t *key, const shoal_spec_t *spec)
{
    return key->capacity == 0 ? 1 : *(const size_t *)((const char *)spec + key->count_offset);
}

static json_t *element_to_json(const shoal_key_t *key, const shoal_spec_t *spec, size_t index)
{
    const void *from = element_of(key, (shoal_spec_t *)spec, index);
    switch (key->type) {
    case SHOAL_KEY_STRING:
        return shoal_json_escaped(*(const char *const *)from);
    case SHOAL_KEY_ENUM:
        return json_string(key->choices[*(const int *)from]);
    case SHOAL_KEY_SIZE:
        return json_integer((json_int_t) * (const size_t *)from);
    case SHOAL_KEY_REAL: /* JSON has no infinity, and no NaN, which stands for what only the run can settle */
        return isfinite(*(const double *)from) ? json_real(*(const double *)from)
                                               : json_string(isnan(*(const double *)from) ? "auto" : "inf");
    case SHOAL_KEY_BOOL:
        return json_boolean(*(const bool *)from);
    }
    return json_null();
}

json_t *shoal_key_to_json(const shoal_key_t *key, const shoal_spec_t *spec)
{
    if (key->capacity == 0) {
        return element_to_json(key, spec, 0);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < shoal_key_count(key, spec); i++) {
        json_array_append_new(list, element_to_json(key, spec, i));
    }
    return list;
}
