/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading records that may be incomplete: a run that was killed, an older version, a field that this device does not
 * have. What is missing is NaN or NULL, and everything above prints it as a dash. And writing JSON whole.
 */
#ifndef SHOAL_BASE_JSON_H
#define SHOAL_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/status.h"

/* The value at "a.b.c"; NULL where any part is missing. A NULL object is allowed. Borrowed. */
json_t *shoal_json_at(const json_t *object, const char *path);
/* A finite number, else NaN. */
double shoal_json_number(const json_t *object, const char *path);
/* A string, else NULL. Borrowed. */
const char *shoal_json_text(const json_t *object, const char *path);

/*
 * Reads DIR/NAME; a new reference. NULL if it is missing or no JSON object: why_p (nbytes, NULL if of no interest)
 * then says "NAME: what is wrong", with the offset where that is known.
 */
json_t *shoal_json_read(const char *dir, const char *name, size_t nbytes, char *why_p);

/*
 * A JSON string of any bytes, such as a path: those that are no UTF-8, which JSON cannot hold, are written as \xNN.
 * A new reference; NULL without memory.
 */
json_t *shoal_json_escaped(const char *text);

/* Writes DIR/NAME whole or not at all, as shoal_file_replace does. `value` stays the caller's. */
shoal_status_t shoal_json_write(const char *dir, const char *name, const json_t *value);

#endif
