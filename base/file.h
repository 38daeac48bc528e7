/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening files to read, without the surprises of open(2): a FIFO that nobody writes to, a device
 * or a socket must not stop a process that has signals to obey. Nothing of that logs; a failure is
 * described by a constant string, or one that lives until the next call of strerror(), for the
 * caller's message. And writing files whole.
 */
#ifndef SHOAL_BASE_FILE_H
#define SHOAL_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/status.h"

/*
 * What a path may name: a regular file alone, or also what bytes stream from (a pipe, a terminal, a
 * device).
 */
typedef enum { SHOAL_FILE_REGULAR, SHOAL_FILE_STREAM } shoal_file_kind_t;

/*
 * Opens `path` at once, whatever it names; the descriptor is closed by exec. -1: *why_p says why
 * not.
 */
int shoal_file_open(const char *path, shoal_file_kind_t kind, const char **why_p);

/*
 * read(2) once there is something to read, which for a pipe means a writer too. -1 with errno;
 * EINTR: a signal with a handler came first, even where the handler asked for system calls to be
 * restarted.
 */
ssize_t shoal_file_read_some(int fd, void *bytes_p, size_t nbytes);

/*
 * Reads all of `path`, at most max_nbytes, into memory that the caller frees; a NUL stands behind
 * the last byte. Waits for the writer of a stream until a signal with a handler comes, which is
 * SHOAL_ERR_STOPPED. Any failure is described in *why_p.
 */
shoal_status_t shoal_file_read(const char *path, shoal_file_kind_t kind, size_t max_nbytes,
                               char **bytes_p, size_t *nbytes_p, const char **why_p);

/* ---- Writing (file_write.c). Failures but write_all's are logged: SHOAL_ERR_DATA. ---- */

enum { SHOAL_FILE_PATH_NBYTES = 4096 };

/* Logs "cannot WHAT PATH" with errno's cause. */
shoal_status_t shoal_file_error(const char *what, const char *path);

/* DIR/NAME; a path that is too long is an error. */
shoal_status_t shoal_file_join(const char *dir, const char *name,
                               char path_p[SHOAL_FILE_PATH_NBYTES]);

/* Writes everything; -1 with errno. A short write is continued, which brings out its cause. */
int shoal_file_write_all(int fd, const char *bytes, size_t nbytes);

/* Writes DIR/NAME whole or not at all: under another name first, which then takes the place of what was there. */
shoal_status_t shoal_file_replace(const char *dir, const char *name, const void *bytes,
                                  size_t nbytes);

/* Makes DIR and its parents; no error where they exist already, whoever else makes them at the same time. */
shoal_status_t shoal_file_make_directory(const char *dir);

#endif
