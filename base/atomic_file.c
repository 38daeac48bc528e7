/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flushing comes before renaming because a full or failing disk may say so only then, and because after a crash a name must
 * never stand for blocks that were not written. The directory is flushed too, so that the name itself survives.
 */
#define _GNU_SOURCE /* asprintf */
#include "base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static shoal_status_t fail(const char *path, uint64_t offset)
{
    shoal_error("%s: offset %" PRIu64 ": %s", path, offset, strerror(errno));
    return SHOAL_ERR_DATA;
}

/* mkstemp makes files that only their owner may read; the final file shall be like any other. */
static void apply_umask(int fd)
{
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
}

shoal_status_t shoal_atomic_file_open(shoal_atomic_file_t *file_p, const char *prefix, const char *suffix)
{
    shoal_atomic_file_t file = SHOAL_ATOMIC_FILE_CLOSED;
    if (asprintf(&file.path, "%s%s", prefix, suffix) < 0 || asprintf(&file.temporary, "%s%s.XXXXXX", prefix, suffix) < 0) {
        shoal_error("%s%s: no memory for its name", prefix, suffix);
        return SHOAL_ERR_NO_MEMORY;
    }
    file.fd = mkostemp(file.temporary, O_CLOEXEC);
    if (file.fd < 0) {
        shoal_status_t status = fail(file.path, 0);
        free(file.temporary);
        free(file.path);
        return status;
    }
    apply_umask(file.fd);
    *file_p = file;
    return SHOAL_OK;
}

shoal_status_t shoal_atomic_file_write(shoal_atomic_file_t *file, const void *bytes, size_t nbytes)
{
    const char *from = bytes;
    while (nbytes > 0) {
        ssize_t n = write(file->fd, from, nbytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail(file->path, file->nbytes);
        }
        from += n;
        nbytes -= (size_t)n;
        file->nbytes += (uint64_t)n;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_atomic_file_move_tail(shoal_atomic_file_t *from, shoal_atomic_file_t *to, uint64_t nbytes)
{
    char     bytes[1 << 16];
    uint64_t first = from->nbytes - nbytes;
    for (uint64_t offset = first; offset < from->nbytes;) {
        uint64_t rest = from->nbytes - offset;
        ssize_t  n    = pread(from->fd, bytes, rest < sizeof(bytes) ? rest : sizeof(bytes), (off_t)offset);
        if (n <= 0) {
            return fail(from->path, offset);
        }
        SHOAL_TRY(shoal_atomic_file_write(to, bytes, (size_t)n));
        offset += (uint64_t)n;
    }
    if (ftruncate(from->fd, (off_t)first) != 0) {
        return fail(from->path, first);
    }
    from->nbytes = first;
    return SHOAL_OK;
}

static shoal_status_t flush(shoal_atomic_file_t *file)
{
    return fsync(file->fd) == 0 ? SHOAL_OK : fail(file->path, file->nbytes);
}

/* Best effort: some file systems cannot flush a directory, and the file itself is safe by now. */
static void flush_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char       *directory = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    int         fd        = directory == NULL ? -1 : open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(directory);
}

static shoal_status_t rename_final(shoal_atomic_file_t *file)
{
    if (rename(file->temporary, file->path) != 0) {
        return fail(file->path, file->nbytes);
    }
    free(file->temporary);
    file->temporary = NULL;
    flush_directory(file->path);
    return SHOAL_OK;
}

shoal_status_t shoal_atomic_file_commit(shoal_atomic_file_t *first, shoal_atomic_file_t *second)
{
    SHOAL_TRY(flush(first));
    if (second->fd < 0) {
        return rename_final(first);
    }
    SHOAL_TRY(flush(second));
    SHOAL_TRY(rename_final(second));
    shoal_status_t status = rename_final(first);
    if (status != SHOAL_OK) {
        unlink(second->path);
    }
    return status;
}

void shoal_atomic_file_close(shoal_atomic_file_t *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    if (file->temporary != NULL) {
        unlink(file->temporary);
    }
    free(file->temporary);
    free(file->path);
    *file = (shoal_atomic_file_t)SHOAL_ATOMIC_FILE_CLOSED;
}
