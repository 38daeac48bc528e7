/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * O_NONBLOCK keeps open(2) from waiting, and is taken back afterwards, so that reads wait as usual.
 * A read from a stream comes after poll(2), which a signal ends even where its handler asked for
 * system calls to be restarted.
 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a path that is no regular file names. */
static const char *describe(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR: return "a directory, not a regular file";
    case S_IFIFO: return "a pipe, not a regular file";
    case S_IFSOCK: return "a socket, not a regular file";
    case S_IFCHR:
    case S_IFBLK: return "a device, not a regular file";
    default: return "not a regular file";
    }
}

static bool is_allowed(mode_t mode, shoal_file_kind_t kind)
{
    return S_ISREG(mode) || (kind == SHOAL_FILE_STREAM && (S_ISFIFO(mode) || S_ISCHR(mode)));
}

int shoal_file_open(const char *path, shoal_file_kind_t kind, const char **why_p)
{
    struct stat info;
    /*
     * Looked at before it is opened: to open a device may do something, and a socket cannot be
     * opened at all.
     */
    if (stat(path, &info) != 0) {
        *why_p = strerror(errno);
        return -1;
    }
    if (!is_allowed(info.st_mode, kind)) {
        *why_p = describe(info.st_mode);
        return -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0 || fcntl(fd, F_SETFL, O_RDONLY) != 0) {
        *why_p = strerror(errno);
    } else if (!is_allowed(info.st_mode, kind)) {
        *why_p = describe(info.st_mode);
    } else {
        return fd;
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

ssize_t shoal_file_read_some(int fd, void *bytes_p, size_t nbytes)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, -1) < 0 ? -1 : read(fd, bytes_p, nbytes);
}

/*
 * Doubles the space as it fills. One byte more than allowed is asked for: if it comes, the file is
 * too large.
 */
static shoal_status_t read_all(int fd, size_t max_nbytes, char **bytes_p, size_t *nbytes_p,
                               const char **why_p)
{
    size_t  capacity = 0;
    ssize_t n        = 1;
    for (*nbytes_p = 0; n > 0; *nbytes_p += (size_t)(n > 0 ? n : 0)) {
        if (*nbytes_p > max_nbytes) {
            *why_p = "too large: it has more bytes than such a file may have";
            return SHOAL_ERR_DATA;
        }
        if (*nbytes_p + 1 >= capacity) {
            capacity    = capacity == 0 ? 4096 : 2 * capacity;
            char *bytes = realloc(*bytes_p, capacity);
            if (bytes == NULL) {
                *why_p = strerror(ENOMEM);
                return SHOAL_ERR_NO_MEMORY;
            }
            *bytes_p = bytes;
        }
        n = shoal_file_read_some(fd, *bytes_p + *nbytes_p, capacity - *nbytes_p - 1);
    }
    *why_p = n < 0 ? errno == EINTR ? "a signal came before its end" : strerror(errno) : NULL;
    return n == 0 ? SHOAL_OK : errno == EINTR ? SHOAL_ERR_STOPPED : SHOAL_ERR_DATA;
}

shoal_status_t shoal_file_read(const char *path, shoal_file_kind_t kind, size_t max_nbytes,
                               char **bytes_p, size_t *nbytes_p, const char **why_p)
{
    char  *bytes  = NULL;
    size_t nbytes = 0;
    int    fd     = shoal_file_open(path, kind, why_p);
    if (fd < 0) {
        return SHOAL_ERR_DATA;
    }
    shoal_status_t status = read_all(fd, max_nbytes, &bytes, &nbytes, why_p);
    close(fd);
    if (status != SHOAL_OK) {
        free(bytes);
        return status;
    }
    bytes[nbytes] = '\0';
    *bytes_p      = bytes;
    *nbytes_p     = nbytes;
    return SHOAL_OK;
}
