/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file that appears under its name complete or not at all: written under a temporary name beside it, flushed to the disk, then
 * renamed. Errors are SHOAL_ERR_DATA and logged with path and offset. Not thread-safe.
 */
#ifndef SHOAL_BASE_ATOMIC_FILE_H
#define SHOAL_BASE_ATOMIC_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    char    *path;      /* the final name */
    char    *temporary; /* NULL once renamed */
    int      fd;
    uint64_t nbytes; /* written so far */
} shoal_atomic_file_t;

#define SHOAL_ATOMIC_FILE_CLOSED {NULL, NULL, -1, 0}

/* PREFIX SUFFIX is the final name. */
shoal_status_t shoal_atomic_file_open(shoal_atomic_file_t *file_p, const char *prefix, const char *suffix);
shoal_status_t shoal_atomic_file_write(shoal_atomic_file_t *file, const void *bytes, size_t nbytes);
/* Moves the last nbytes of one file to the end of another. */
shoal_status_t shoal_atomic_file_move_tail(shoal_atomic_file_t *from, shoal_atomic_file_t *to, uint64_t nbytes);
/*
 * Flushes both files and gives them their names; the second may be closed, and then is left alone. On failure no new file is
 * left under either name.
 */
shoal_status_t shoal_atomic_file_commit(shoal_atomic_file_t *first, shoal_atomic_file_t *second);
/* Removes what was not committed. Always to be called; a closed file is fine. */
void shoal_atomic_file_close(shoal_atomic_file_t *file);

#endif
