/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration as others read it: JSON with sources for records, and the table of keys for people and the man page. */
#include <stdio.h>

#include "base/json.h"
#include "src/config/keys.h"

/* Before resolve, a value that was left open is "auto"; after it, it has been derived. */
static const char *source_of(const shoal_config_t *config, size_t i)
{
    if (config->derived[i]) {
        return "derived";
    }
    return config->given[i] != NULL ? config->given[i] : "default";
}

json_t *shoal_config_to_json(const shoal_config_t *config)
{
    json_t *all = json_object();
    for (size_t i = 0; i < shoal_nkeys; i++) {
        const shoal_key_t *key  = &shoal_keys[i];
        bool               open = !config->resolved && config->given[i] == NULL && shoal_key_is_auto(key);
        json_t *value = open ? json_string("auto") : shoal_key_to_json(key, config->resolved ? &config->spec : &config->parsed);
        json_object_set_new(all, key->name, json_pack("{s:o, s:o}", "value", value, "source", shoal_json_escaped(source_of(config, i))));
    }
    return all;
}

static void print_key(const shoal_key_t *key)
{
    char expected[256];
    shoal_key_expects(key, expected, sizeof(expected));
    printf("%s\n    %s\n    %s%s; ", key->name, key->help, key->capacity > 0 ? "list, each " : "", expected);
    if (key->fallback == NULL) {
        printf("must be given\n");
    } else {
        printf("default %s\n", key->fallback[0] == '\0' ? "empty" : key->fallback);
    }
}

void shoal_config_print_keys(void)
{
    for (size_t i = 0; i < shoal_nkeys; i++) {
        print_key(&shoal_keys[i]);
    }
}
