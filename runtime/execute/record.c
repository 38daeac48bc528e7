/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Step lines and JSON files. A step line is composed in memory and leaves in one write(2), so that a run killed at any
 * moment leaves whole lines; one that the disk did not take whole is cut off again. Lines are not fsynced: losing the
 * last of them with the node costs nothing, waiting for the disk in every step would. Whole files are fsynced before
 * they are renamed, and so is their directory after it: a name that exists has its contents, also after the power
 * went.
 */
#include "runtime/execute/record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { PATH_NBYTES = 4096, LINE_NBYTES = 1024 };

struct shoal_record {
    int   fd;
    off_t nbytes; /* of whole lines in the file */
    char  path[PATH_NBYTES];
};

static shoal_status_t data_error(const char *what, const char *path)
{
    shoal_error("cannot %s %s: %s", what, path, strerror(errno));
    return SHOAL_ERR_DATA;
}

static shoal_status_t join(const char *dir, const char *name, char path_p[PATH_NBYTES])
{
    int n = snprintf(path_p, PATH_NBYTES, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_NBYTES) {
        shoal_error("the path %s/%s is too long", dir, name);
        return SHOAL_ERR_DATA;
    }
    return SHOAL_OK;
}

/* Writes everything or fails with errno set; a short write is continued, which brings out its cause. */
static int write_all(int fd, const char *bytes, size_t nbytes)
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

shoal_status_t shoal_record_mkdir(const char *dir)
{
    char path[PATH_NBYTES];
    if (dir[0] == '\0' || snprintf(path, sizeof(path), "%s", dir) >= PATH_NBYTES) {
        shoal_error("the directory name '%.64s' is empty or too long", dir);
        return SHOAL_ERR_DATA;
    }
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash != NULL) {
            *slash = '\0';
        }
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            return data_error("make directory", path);
        }
        if (slash == NULL) {
            return SHOAL_OK;
        }
        *slash = '/';
    }
}

/* ---- Step lines ---- */

shoal_status_t shoal_record_open(const char *dir, int rank, shoal_record_t **record_p)
{
    char name[32];
    snprintf(name, sizeof(name), "rank-%05d.jsonl", rank);
    SHOAL_TRY(shoal_record_mkdir(dir));
    shoal_record_t *record = calloc(1, sizeof(*record));
    if (record == NULL) {
        shoal_error("no memory for the record of rank %d", rank);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = join(dir, name, record->path);
    if (status == SHOAL_OK) {
        /* O_NONBLOCK: a FIFO of that name without a reader is an error, and not a run that never begins. */
        record->fd = open(record->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
        status     = record->fd < 0 ? data_error("open", record->path) : SHOAL_OK;
        (void)fcntl(record->fd, F_SETFL, O_WRONLY);
    }
    if (status != SHOAL_OK) {
        free(record);
        return status;
    }
    *record_p = record;
    return SHOAL_OK;
}

typedef struct {
    const char *name;
    size_t      offset;
    int         digits; /* 17 give back the very bits, so that runs can be compared for equality; a time needs 9 */
} field_t;

#define FIELD(name, digits) {#name, offsetof(shoal_step_record_t, name), digits}
static const field_t fields[] = {
    FIELD(loss, 17),        FIELD(grad_norm, 17),        FIELD(lr, 17),
    FIELD(step_ms, 9),      FIELD(compute_ms, 9),        FIELD(exposed_gather_ms, 9),
    FIELD(exposed_reduce_ms, 9), FIELD(gather_ms, 9),    FIELD(reduce_ms, 9),
    FIELD(data_ms, 9),      FIELD(optimizer_ms, 9),
};
#undef FIELD

/* JSON has no NaN and no infinity; null says that there was no number. */
static int format_number(char *text_p, size_t nbytes, const char *name, double value, int digits)
{
    return isfinite(value) ? snprintf(text_p, nbytes, ",\"%s\":%.*g", name, digits, value)
                           : snprintf(text_p, nbytes, ",\"%s\":null", name);
}

static size_t format_step(const shoal_step_record_t *step, char line_p[LINE_NBYTES])
{
    int n = snprintf(line_p, LINE_NBYTES, "{\"step\":%zu,\"tokens\":%llu", step->step, (unsigned long long)step->tokens);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        double value;
        memcpy(&value, (const char *)step + fields[i].offset, sizeof(value));
        n += format_number(line_p + n, LINE_NBYTES - (size_t)n, fields[i].name, value, fields[i].digits);
    }
    n += format_number(line_p + n, LINE_NBYTES - (size_t)n, "tokens_per_s", (double)step->tokens * 1e3 / step->step_ms, 9);
    n += snprintf(line_p + n, LINE_NBYTES - (size_t)n, "}\n");
    return (size_t)n;
}

shoal_status_t shoal_record_step(shoal_record_t *record, const shoal_step_record_t *step)
{
    char   line[LINE_NBYTES];
    size_t nbytes = format_step(step, line);
    if (write_all(record->fd, line, nbytes) != 0) {
        shoal_status_t status  = data_error("write", record->path);
        int            ignored = ftruncate(record->fd, record->nbytes); /* fails on what is no regular file */
        (void)ignored;
        (void)lseek(record->fd, record->nbytes, SEEK_SET);
        return status;
    }
    record->nbytes += (off_t)nbytes;
    return SHOAL_OK;
}

void shoal_record_close(shoal_record_t *record)
{
    if (record == NULL) {
        return;
    }
    /* A network file system may report only here that it did not take an earlier line. */
    if (close(record->fd) != 0) {
        shoal_warn("closing %s: %s; its last lines may be missing", record->path, strerror(errno));
    }
    free(record);
}

/* ---- Whole files ---- */

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
        return data_error("create", path);
    }
    shoal_status_t status = SHOAL_OK;
    if (write_all(fd, bytes, nbytes) != 0 || fsync(fd) != 0) {
        status = data_error("write", path);
    }
    if (close(fd) != 0 && status == SHOAL_OK) {
        status = data_error("write", path);
    }
    if (status != SHOAL_OK) {
        unlink(path);
    }
    return status;
}

shoal_status_t shoal_record_write(const char *dir, const char *name, const void *bytes, size_t nbytes)
{
    char path[PATH_NBYTES], temporary[PATH_NBYTES], temporary_name[256];
    /* The process id keeps apart two commands that report on one directory at the same time. */
    snprintf(temporary_name, sizeof(temporary_name), ".%.200s.%ld", name, (long)getpid());
    SHOAL_TRY(join(dir, name, path));
    SHOAL_TRY(join(dir, temporary_name, temporary));
    SHOAL_TRY(write_temporary(temporary, bytes, nbytes));
    if (rename(temporary, path) != 0) {
        shoal_status_t status = data_error("write", path);
        unlink(temporary);
        return status;
    }
    sync_directory(dir);
    return SHOAL_OK;
}

/* How many bytes the character has that begins here; 0: they are no UTF-8. jansson is the judge of that. */
static size_t character_nbytes(const char *text)
{
    size_t n = strnlen(text, 4);
    for (size_t i = 1; i <= n; i++) {
        json_t *character = json_stringn(text, i);
        if (character != NULL) {
            json_decref(character);
            return i;
        }
    }
    return 0;
}

json_t *shoal_record_text(const char *text)
{
    json_t *json    = json_string(text);
    char   *escaped = json == NULL ? malloc(4 * strlen(text) + 1) : NULL;
    size_t  used    = 0;
    if (escaped == NULL) {
        return json;
    }
    while (*text != '\0') {
        size_t n = character_nbytes(text);
        if (n == 0) {
            used += (size_t)sprintf(escaped + used, "\\x%02x", (unsigned char)*text);
        }
        memcpy(escaped + used, text, n);
        used += n;
        text += n == 0 ? 1 : n;
    }
    json = json_stringn(escaped, used);
    free(escaped);
    return json;
}

shoal_status_t shoal_record_json(const char *dir, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (text == NULL) {
        shoal_error("%s/%s: no memory, or a value that JSON cannot hold", dir, name);
        return SHOAL_ERR_INTERNAL;
    }
    size_t nbytes         = strlen(text);
    text[nbytes]          = '\n'; /* in place of the terminator: a text file ends with a newline */
    shoal_status_t status = shoal_record_write(dir, name, text, nbytes + 1);
    free(text);
    return status;
}

/* ---- Statistics ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double shoal_record_quantile(double *values, size_t n, double p)
{
    qsort(values, n, sizeof(*values), compare);
    double position = p * (double)(n - 1);
    size_t below    = position <= 0 ? 0 : (size_t)position;
    if (below >= n - 1) {
        return values[n - 1];
    }
    return values[below] + (position - (double)below) * (values[below + 1] - values[below]);
}
