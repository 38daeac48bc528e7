/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Step lines, written and read. A step line is composed in memory and leaves in one write(2), so that a run killed at any
 * moment leaves whole lines; one that the disk did not take whole is cut off again. Lines are not fsynced: losing the
 * last of them with the node costs nothing, waiting for the disk in every step would.
 * The last line of a file that is still being written may be half there: it is no JSON, and ends the reading.
 */
#include "runtime/execute/record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

enum { LINE_NBYTES = 1024 };

struct shoal_record {
    int   fd;
    off_t nbytes; /* of whole lines in the file */
    char  path[SHOAL_FILE_PATH_NBYTES];
};

/* ---- Step lines ---- */

shoal_status_t shoal_record_open(const char *dir, int rank, shoal_record_t **record_p)
{
    char name[32];
    snprintf(name, sizeof(name), "rank-%05d.jsonl", rank);
    SHOAL_TRY(shoal_file_make_directory(dir));
    shoal_record_t *record = calloc(1, sizeof(*record));
    if (record == NULL) {
        shoal_error("no memory for the record of rank %d", rank);
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = shoal_file_join(dir, name, record->path);
    if (status == SHOAL_OK) {
        /* O_NONBLOCK: a FIFO of that name without a reader is an error, and not a run that never begins. */
        record->fd = open(record->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
        status     = record->fd < 0 ? shoal_file_error("open", record->path) : SHOAL_OK;
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
    if (shoal_file_write_all(record->fd, line, nbytes) != 0) {
        shoal_status_t status  = shoal_file_error("write", record->path);
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

/* ---- Reading back ---- */

static size_t read_losses(FILE *file, size_t n, double *losses_p)
{
    char  *line   = NULL;
    size_t nbytes = 0, count = 0;
    while (count < n && getline(&line, &nbytes, file) > 0) {
        json_t *step = json_loads(line, 0, NULL);
        if (step == NULL || shoal_json_number(step, "step") != (double)(count + 1)) {
            json_decref(step);
            break;
        }
        losses_p[count++] = shoal_json_number(step, "loss");
        json_decref(step);
    }
    free(line);
    return count;
}

size_t shoal_record_read_losses(const char *dir, size_t n, double *losses_p)
{
    char path[SHOAL_FILE_PATH_NBYTES];
    if (snprintf(path, sizeof(path), "%s/rank-00000.jsonl", dir) >= SHOAL_FILE_PATH_NBYTES) {
        return 0;
    }
    const char *why;
    int         fd   = shoal_file_open(path, SHOAL_FILE_REGULAR, &why);
    FILE       *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (file == NULL) {
        return 0;
    }
    size_t count = read_losses(file, n, losses_p);
    fclose(file);
    return count;
}
