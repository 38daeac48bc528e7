/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whole files are fsynced before they are renamed, and so is their directory after it: a name that exists has its contents, also
 * after the power went.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

shoal_status_t shoal_file_error(const char *what, const char *path)
{
    shoal_error("cannot %s %s: %s", what, path, strerror(errno));
    return SHOAL_ERR_DATA;
}

shoal_status_t shoal_file_join(const char *dir, const char *name, char path_p[SHOAL_FILE_PATH_NBYTES])
{
    int n = snprintf(path_p, SHOAL_FILE_PATH_NBYTES, "%s/%s", dir, name);
    if (n < 0 || n >= SHOAL_FILE_PATH_NBYTES) {
        shoal_error("the path %s/%s is too long", dir, name);
        return SHOAL_ERR_DATA;
    }
    return SHOAL_OK;
}

int shoal_file_write_all(int fd, const char *bytes, size_t nbytes)
{
    while (nbytes > 0) {
        ssize_t n = write(fd, bytes, nbytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        bytes += n;
        nbytes -= (size_t)n;
    }
    return 0;
}

shoal_status_t shoal_file_make_directory(const char *dir)
{
    char path[SHOAL_FILE_PATH_NBYTES];
    if (dir[0] == '\0' || snprintf(path, sizeof(path), "%s", dir) >= SHOAL_FILE_PATH_NBYTES) {
        shoal_error("the directory name '%.64s' is empty or too long", dir);
        return SHOAL_ERR_DATA;
    }
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash != NULL) {
            *slash = '\0';
        }
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            return shoal_file_error("make directory", path);
        }
        if (slash == NULL) {
            return SHOAL_OK;
        }
        *slash = '/';
    }
}

static void sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* some file systems cannot; the rename itself has succeeded */
        close(fd);
    }
}

static shoal_status_t write_temporary(const char *path, const void *bytes, size_t nbytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return shoal_file_error("create", path);
    }
    shoal_status_t status = SHOAL_OK;
    if (shoal_file_write_all(fd, bytes, nbytes) != 0 || fsync(fd) != 0) {
        status = shoal_file_error("write", path);
    }
    if (close(fd) != 0 && status == SHOAL_OK) {
        status = shoal_file_error("write", path);
    }
    if (status != SHOAL_OK) {
        unlink(path);
    }
    return status;
}

shoal_status_t shoal_file_replace(const char *dir, const char *name, const void *bytes, size_t nbytes)
{
    char path[SHOAL_FILE_PATH_NBYTES], temporary[SHOAL_FILE_PATH_NBYTES], temporary_name[256];
    /* The process id keeps apart two commands that report on one directory at the same time. */
    snprintf(temporary_name, sizeof(temporary_name), ".%.200s.%ld", name, (long)getpid());
    SHOAL_TRY(shoal_file_join(dir, name, path));
    SHOAL_TRY(shoal_file_join(dir, temporary_name, temporary));
    SHOAL_TRY(write_temporary(temporary, bytes, nbytes));
    if (rename(temporary, path) != 0) {
        shoal_status_t status = shoal_file_error("write", path);
        unlink(temporary);
        return status;
    }
    sync_directory(dir);
    return SHOAL_OK;
}
