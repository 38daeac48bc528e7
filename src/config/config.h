/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration: a libconfig file plus `group.key=value` words from the command line, checked against one table of keys (name,
 * type, default, range or choices, one line of help). An unknown key, a wrong type or a value out of range is SHOAL_ERR_CONFIG with
 * the file and line (or the word) and, for unknown keys, the nearest known one. Values depend on the number of ranks only where
 * shoal_config_resolve says so.
 */
#ifndef SHOAL_SRC_CONFIG_CONFIG_H
#define SHOAL_SRC_CONFIG_CONFIG_H

#include <jansson.h>

#include "base/status.h"
#include "runtime/spec.h"

typedef struct shoal_config shoal_config_t;

/*
 * Reads `path`, a file or a pipe, and applies the overrides in order. Relative paths in data.* and run.dir, and those of
 * @include, are relative to the working directory. Does not need the token files to exist. SHOAL_ERR_STOPPED: a signal came
 * while a pipe had nothing to read.
 */
shoal_status_t shoal_config_load(const char *path, int noverrides, char *const *overrides, shoal_config_t **config_p);
void           shoal_config_free(shoal_config_t *config);

/* Refuses a pipe, which can be read once only, for a command that reads its configuration several times: `readers` says why. */
shoal_status_t shoal_config_check_reread(const char *path, const char *readers);

/*
 * Settles what depends on the world: batch.global and accumulate from each other (global must divide), "auto" learning rate and
 * decay, kv_heads, layers and the other sizes that follow from `heads`. Checks that everything fits together. The spec lives as
 * long as the config.
 */
shoal_status_t shoal_config_resolve(shoal_config_t *config, int nranks, const shoal_spec_t **spec_p);

/* {"group.key": {"value": ..., "source": "default" | "FILE:LINE" | "command line" | "derived"}}; a new reference. */
json_t *shoal_config_to_json(const shoal_config_t *config);

/* Prints every key with type, default and help: the body of `shoal info --keys` and of the man page. */
void shoal_config_print_keys(void);

#endif
