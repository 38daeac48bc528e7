/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a configuration: defaults first, then the file (config_source.c makes its text ready for
 * libconfig), then the words of the command line, each value through the same checks
 * (config_value.c) against the same table (config_keys.c). Each value remembers where it came from,
 * which is what errors, records and `shoal info` then show. What depends on other values or on the
 * number of ranks is left to config_resolve.c.
 */
#include "src/config/config.h"

#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "src/config/keys.h"
#include "src/config/source.h"

enum { TEXT_NBYTES = 512 };

static const char *const from_command_line = "command line";

/* Keeps a copy of a string as long as the config lives. NULL: no memory. */
static const char *keep(shoal_config_t *config, const char *string)
{
    char  *copy    = strdup(string);
    char **strings = realloc(config->strings, (config->nstrings + 1) * sizeof(*strings));
    if (strings != NULL) {
        config->strings = strings;
    }
    if (copy == NULL || strings == NULL) {
        free(copy);
        return NULL;
    }
    strings[config->nstrings++] = copy;
    return copy;
}

static shoal_status_t refuse(const shoal_key_t *key, const shoal_value_t *value, const char *where)
{
    char expected[TEXT_NBYTES], found[TEXT_NBYTES], most[64] = "";
    bool number = value->type == SHOAL_VALUE_INTEGER || value->type == SHOAL_VALUE_REAL;
    shoal_key_expects(key, expected, sizeof(expected));
    shoal_value_format(value, found, sizeof(found));
    /* A bound that is too far off to be worth a word, until somebody is beyond it. */
    if (number && key->max > 1e6 && (value->type == SHOAL_VALUE_REAL ? value->real : (double)value->integer) > key->max) {
        snprintf(most, sizeof(most), ", at most %.19g", key->max);
    }
    shoal_error("%s: %s = %s: expects %s%s", where, key->name, found, expected, most);
    return SHOAL_ERR_CONFIG;
}

static shoal_status_t refuse_count(const shoal_key_t *key, size_t count, const char *where)
{
    shoal_error("%s: %s: %zu values, expects 1 to %zu", where, key->name, count, key->capacity);
    return SHOAL_ERR_CONFIG;
}

static shoal_status_t refuse_name(const char *name, const char *where)
{
    char nearest[TEXT_NBYTES];
    shoal_key_suggest(name, nearest, sizeof(nearest));
    shoal_error("%s: unknown key %s; did you mean %s?", where, name, nearest);
    return SHOAL_ERR_CONFIG;
}

/* Element `index` of a key. Strings are copied. */
static shoal_status_t store(shoal_config_t *config, const shoal_key_t *key, shoal_value_t value, size_t index,
                            const char *where)
{
    if (value.type == SHOAL_VALUE_STRING && key->type == SHOAL_KEY_STRING) {
        value.string = keep(config, value.string);
        if (value.string == NULL) {
            return SHOAL_ERR_NO_MEMORY;
        }
    }
    return shoal_key_store(key, &value, index, &config->parsed) == SHOAL_OK ? SHOAL_OK : refuse(key, &value, where);
}

/* Notes where a key's value came from (NULL: it was left to resolve) and, for lists, how many there are. */
static void note(shoal_config_t *config, const shoal_key_t *key, size_t count, const char *source)
{
    config->given[key - shoal_keys] = source;
    if (key->capacity > 0) {
        *(size_t *)((char *)&config->parsed + key->count_offset) = count;
    }
}

/* One word per value; lists are separated by commas. source: NULL for defaults. */
static shoal_status_t set_word(shoal_config_t *config, const shoal_key_t *key, const char *word, const char *source,
                               const char *where)
{
    size_t count = 0;
    if (shoal_key_is_auto(key) && strcmp(word, "auto") == 0) {
        note(config, key, 0, NULL);
        return SHOAL_OK;
    }
    if (key->capacity == 0) {
        SHOAL_TRY(store(config, key, shoal_value_parse(key, word), 0, where));
        note(config, key, 1, source);
        return SHOAL_OK;
    }
    for (const char *item = word; item != NULL; count++) {
        const char *comma = strchr(item, ',');
        char        text[TEXT_NBYTES];
        snprintf(text, sizeof(text), "%.*s", (int)strcspn(item, ","), item);
        if (count == key->capacity) {
            return refuse_count(key, count + 1, where);
        }
        SHOAL_TRY(store(config, key, shoal_value_parse(key, text), count, where));
        item = comma == NULL ? NULL : comma + 1;
    }
    note(config, key, count, source);
    return SHOAL_OK;
}

static shoal_value_t value_of(const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return (shoal_value_t){.type = SHOAL_VALUE_INTEGER, .integer = config_setting_get_int64(setting)};
    case CONFIG_TYPE_FLOAT:
        return (shoal_value_t){.type = SHOAL_VALUE_REAL, .real = config_setting_get_float(setting)};
    case CONFIG_TYPE_BOOL:
        return (shoal_value_t){.type = SHOAL_VALUE_BOOL, .integer = config_setting_get_bool(setting)};
    case CONFIG_TYPE_STRING:
        return (shoal_value_t){.type = SHOAL_VALUE_STRING, .string = config_setting_get_string(setting)};
    default:
        return (shoal_value_t){.type = SHOAL_VALUE_OTHER};
    }
}

static shoal_status_t set_list(shoal_config_t *config, const shoal_key_t *key, const config_setting_t *setting,
                               const char *where)
{
    size_t count = (size_t)config_setting_length(setting);
    if (count < 1 || count > key->capacity) {
        return refuse_count(key, count, where);
    }
    for (size_t i = 0; i < count; i++) {
        SHOAL_TRY(store(config, key, value_of(config_setting_get_elem(setting, (unsigned)i)), i, where));
    }
    note(config, key, count, where);
    return SHOAL_OK;
}

static shoal_status_t set_setting(shoal_config_t *config, const shoal_key_t *key, const config_setting_t *setting,
                                  const char *where)
{
    shoal_value_t value = value_of(setting);
    if (key->capacity > 0 && (config_setting_is_array(setting) || config_setting_is_list(setting))) {
        return set_list(config, key, setting, where);
    }
    if (shoal_key_is_auto(key) && value.type == SHOAL_VALUE_STRING && strcmp(value.string, "auto") == 0) {
        note(config, key, 0, NULL);
        return SHOAL_OK;
    }
    SHOAL_TRY(store(config, key, value, 0, where));
    note(config, key, 1, where);
    return SHOAL_OK;
}

/* "FILE:LINE" of a setting, kept. NULL: no memory. */
static const char *place(shoal_config_t *config, const shoal_config_source_t *source, const config_setting_t *setting)
{
    char                 text[4096];
    shoal_config_place_t from = shoal_config_source_place(source, (size_t)config_setting_source_line(setting));
    snprintf(text, sizeof(text), "%s:%zu", from.path, from.line);
    return keep(config, text);
}

static shoal_status_t read_group(shoal_config_t *config, const shoal_config_source_t *source, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        const char             *where   = place(config, source, setting);
        char                    name[256];
        if (where == NULL) {
            return SHOAL_ERR_NO_MEMORY;
        }
        snprintf(name, sizeof(name), "%s.%s", config_setting_name(group), config_setting_name(setting));
        const shoal_key_t *key = shoal_key_find(name);
        SHOAL_TRY(key == NULL ? refuse_name(name, where) : set_setting(config, key, setting, where));
    }
    return SHOAL_OK;
}

static shoal_status_t read_groups(shoal_config_t *config, const shoal_config_source_t *source, const config_setting_t *root)
{
    for (int i = 0; i < config_setting_length(root); i++) {
        const config_setting_t *group = config_setting_get_elem(root, (unsigned)i);
        const char             *where = place(config, source, group), *name = config_setting_name(group);
        if (where == NULL) {
            return SHOAL_ERR_NO_MEMORY;
        }
        if (config_setting_is_group(group) && config_setting_length(group) > 0) {
            SHOAL_TRY(read_group(config, source, group));
        } else if (!shoal_key_group_exists(name)) {
            return refuse_name(name, where);
        } else if (!config_setting_is_group(group)) {
            shoal_error("%s: %s is a group: write %s = { ... };", where, name, name);
            return SHOAL_ERR_CONFIG;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t read_file(shoal_config_t *config, const char *path)
{
    config_t              file;
    shoal_config_source_t source;
    SHOAL_TRY(shoal_config_source_read(path, &source));
    config_init(&file);
    shoal_status_t status = SHOAL_ERR_CONFIG;
    if (config_read_string(&file, source.text)) {
        status = read_groups(config, &source, config_root_setting(&file));
    } else {
        shoal_config_place_t from = shoal_config_source_place(&source, (size_t)config_error_line(&file));
        shoal_error("%s:%zu: %s", from.path, from.line, config_error_text(&file));
    }
    config_destroy(&file);
    shoal_config_source_free(&source);
    return status;
}

shoal_status_t shoal_config_check_reread(const char *path, const char *readers)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISFIFO(info.st_mode)) {
        shoal_error("%s: a pipe can be read once only, but %s: a regular file is wanted", path, readers);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

static shoal_status_t apply_override(shoal_config_t *config, const char *word)
{
    const char *equals = strchr(word, '=');
    char        name[256], where[TEXT_NBYTES];
    snprintf(where, sizeof(where), "'%s'", word);
    if (equals == NULL) {
        shoal_error("%s: expects group.key=value%s", where, word[0] == '-' ? "; options stand before the configuration file" : "");
        return SHOAL_ERR_CONFIG;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(equals - word), word);
    const shoal_key_t *key = shoal_key_find(name);
    return key == NULL ? refuse_name(name, where) : set_word(config, key, equals + 1, from_command_line, where);
}

static shoal_status_t fill(shoal_config_t *config, const char *path, int noverrides, char *const *overrides)
{
    for (size_t i = 0; i < shoal_nkeys; i++) {
        if (shoal_keys[i].fallback != NULL) {
            SHOAL_TRY(set_word(config, &shoal_keys[i], shoal_keys[i].fallback, NULL, "default"));
        }
    }
    if (path != NULL) {
        SHOAL_TRY(read_file(config, path));
    }
    for (int i = 0; i < noverrides; i++) {
        SHOAL_TRY(apply_override(config, overrides[i]));
    }
    return SHOAL_OK;
}

shoal_status_t shoal_config_load(const char *path, int noverrides, char *const *overrides, shoal_config_t **config_p)
{
    shoal_config_t *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    config->given   = calloc(shoal_nkeys, sizeof(*config->given));
    config->derived = calloc(shoal_nkeys, sizeof(*config->derived));

    shoal_status_t status = SHOAL_ERR_NO_MEMORY;
    if (config->given != NULL && config->derived != NULL) {
        status = fill(config, path, noverrides, overrides);
    }
    if (status == SHOAL_ERR_NO_MEMORY) {
        shoal_error("no memory for the configuration");
    }
    if (status != SHOAL_OK) {
        shoal_config_free(config);
        return status;
    }
    *config_p = config;
    return SHOAL_OK;
}

void shoal_config_free(shoal_config_t *config)
{
    if (config == NULL) {
        return;
    }
    for (size_t i = 0; i < config->nstrings; i++) {
        free(config->strings[i]);
    }
    free(config->strings);
    free(config->given);
    free(config->derived);
    free(config);
}
