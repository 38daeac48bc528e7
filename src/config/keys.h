/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the configuration: the table of keys, and the few functions that read, write and describe a value through it. Parsing,
 * defaults, ranges, error messages, `shoal info --keys` and the JSON of a run all come from this one table.
 */
#ifndef SHOAL_SRC_CONFIG_KEYS_H
#define SHOAL_SRC_CONFIG_KEYS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "runtime/spec.h"
#include "src/config/config.h"

/* How a value is kept in shoal_spec_t: const char *, an int-sized enum that indexes `choices`, size_t, double, bool. */
typedef enum { SHOAL_KEY_STRING, SHOAL_KEY_ENUM, SHOAL_KEY_SIZE, SHOAL_KEY_REAL, SHOAL_KEY_BOOL } shoal_key_type_t;

typedef struct {
    const char        *name; /* "group.key" */
    shoal_key_type_t   type;
    size_t             offset;       /* of the value, or of a list's first element, in shoal_spec_t */
    size_t             capacity;     /* elements that a list may have; 0: not a list */
    size_t             count_offset; /* of a list's size_t count in shoal_spec_t */
    double             min, max;     /* of numbers, inclusive */
    const char *const *choices;      /* of strings and enums, ended by NULL; NULL: any string */
    const char        *fallback;     /* default, as typed on the command line; "auto": settled by resolve; NULL: must be given */
    const char        *help;
} shoal_key_t;

extern const shoal_key_t shoal_keys[];
extern const size_t      shoal_nkeys;

/* NULL when there is none of that name. */
const shoal_key_t *shoal_key_find(const char *name);
/*
 * The known key (or, for a name without a dot, perhaps the group) that comes nearest to an unknown name. A key of another group
 * with just this last part counts as near.
 */
void shoal_key_suggest(const char *name, char *text_p, size_t nbytes);
/* True when the name's part before the dot is a group. */
bool shoal_key_group_exists(const char *group);

/* May the value be left to shoal_config_resolve by the word "auto"? */
bool shoal_key_is_auto(const shoal_key_t *key);

/* What a value should have been, for messages and help: "a whole number of 1 or more", "one of cos, wsd". */
void shoal_key_expects(const shoal_key_t *key, char *text_p, size_t nbytes);

/* A value on its way into the spec, from a file or a word. */
typedef struct {
    enum { SHOAL_VALUE_INTEGER, SHOAL_VALUE_REAL, SHOAL_VALUE_BOOL, SHOAL_VALUE_STRING, SHOAL_VALUE_OTHER } type;
    long long   integer; /* also holds a bool */
    double      real;
    const char *string;
} shoal_value_t;

/* The value that a word stands for; a word that is not of the key's type becomes a string, which `store` then refuses. */
shoal_value_t shoal_value_parse(const shoal_key_t *key, const char *word);
void          shoal_value_format(const shoal_value_t *value, char *text_p, size_t nbytes);

/*
 * Writes element `index` (0 for plain keys) of a key. SHOAL_ERR_INVALID, without a message, when the value does not suit the
 * key. Strings are kept by reference.
 */
shoal_status_t shoal_key_store(const shoal_key_t *key, const shoal_value_t *value, size_t index, shoal_spec_t *spec);

size_t  shoal_key_count(const shoal_key_t *key, const shoal_spec_t *spec);
json_t *shoal_key_to_json(const shoal_key_t *key, const shoal_spec_t *spec);

/* Shared by config.c and config_resolve.c. */
struct shoal_config {
    shoal_spec_t parsed; /* defaults and what was given; what is "auto" is zero */
    shoal_spec_t spec;   /* the same with everything settled, after resolve */
    bool         resolved;
    const char **given;   /* (nkeys): where the value comes from; NULL: not given, or given as "auto" */
    bool        *derived; /* (nkeys): the value in `spec` was settled by resolve */
    char       **strings; /* owned copies, freed with the config */
    size_t       nstrings;
};

#endif
