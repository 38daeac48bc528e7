/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The text of a configuration, made ready for libconfig, whose versions disagree about numbers:
 * without a suffix 1.5 cuts integers to 32 bits, 1.7 reads 010 as eight, the newest makes
 * 0xffffffff negative. So every integer is handed over in decimal and with the suffix L, which all
 * of them take whole, and one that 64 bits cannot hold as a real number. Files that are included
 * are put in place here too, so that one that cannot be read is named.
 */
#ifndef SHOAL_SRC_CONFIG_SOURCE_H
#define SHOAL_SRC_CONFIG_SOURCE_H

#include <stddef.h>

#include "base/status.h"

typedef struct {
    const char *path;
    size_t      line;
} shoal_config_place_t;

typedef struct {
    char                 *text;
    size_t                nbytes;
    shoal_config_place_t *places; /* (nplaces): where line i + 1 of the text is from */
    size_t                nplaces;
    char                **paths; /* (npaths), owned */
    size_t                npaths;
} shoal_config_source_t;

/*
 * Reads `path` and what it includes. SHOAL_ERR_CONFIG, logged with file and line: a file cannot be
 * read, is no text, or includes too deeply. SHOAL_ERR_STOPPED: a signal came while a pipe had
 * nothing. To be freed if SHOAL_OK.
 */
shoal_status_t shoal_config_source_read(const char *path, shoal_config_source_t *source_p);
void           shoal_config_source_free(shoal_config_source_t *source);

/* Where a line of the text, counted from 1, is from. */
shoal_config_place_t shoal_config_source_place(const shoal_config_source_t *source, size_t line);

#endif
