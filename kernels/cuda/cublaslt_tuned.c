/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys of matmuls, and the file of the algorithms that were the fastest for them (cublaslt.h). */
#include "kernels/cuda/cublaslt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

/* What a flag is in text: '-' means that it is not set, where there is no better letter for that. */
static const struct {
    uint64_t flag;
    char     set, unset;
} letters[] = {
    {SHOAL_CUBLASLT_TRANS_A, 't', 'n'}, {SHOAL_CUBLASLT_TRANS_B, 't', 'n'}, {SHOAL_CUBLASLT_A_BF16, 'b', 'f'},
    {SHOAL_CUBLASLT_Y_BF16, 'b', 'f'},  {SHOAL_CUBLASLT_BIAS, '+', '-'},    {SHOAL_CUBLASLT_ACCUMULATE, 'a', '-'},
};
enum { LETTERS = sizeof(letters) / sizeof(letters[0]), LINE_NBYTES = 1024, FLAGS_NBYTES = 32 };

static const char header[] = "# shoal: the fastest cuBLASLt algorithm per matmul, library version and GPU. Safe to delete.\n";

shoal_cublaslt_key_t shoal_cublaslt_key(const shoal_op_t *op, bool bias)
{
    return (shoal_cublaslt_key_t){
        .m     = op->matmul.m,
        .n     = op->matmul.n,
        .k     = op->matmul.k,
        .lda   = op->matmul.lda,
        .ldb   = op->matmul.ldb,
        .ldy   = op->matmul.ldy,
        .flags = (op->matmul.trans_a ? SHOAL_CUBLASLT_TRANS_A : 0u) | (op->matmul.trans_b ? SHOAL_CUBLASLT_TRANS_B : 0u) |
                 (op->dtype == SHOAL_BF16 ? SHOAL_CUBLASLT_A_BF16 : 0u) |
                 (op->matmul.out_dtype == SHOAL_BF16 ? SHOAL_CUBLASLT_Y_BF16 : 0u) | (bias ? SHOAL_CUBLASLT_BIAS : 0u) |
                 (op->matmul.accumulate ? SHOAL_CUBLASLT_ACCUMULATE : 0u),
    };
}

void shoal_cublaslt_key_format(const shoal_cublaslt_key_t *key, char text_p[SHOAL_CUBLASLT_KEY_TEXT])
{
    char flags[FLAGS_NBYTES] = "";
    for (int i = 0; i < LETTERS; i++) {
        flags[i] = (key->flags & letters[i].flag) != 0 ? letters[i].set : letters[i].unset;
    }
    if (key->multiprocessors != 0) {
        snprintf(flags + LETTERS, sizeof(flags) - LETTERS, "@%" PRIu64, key->multiprocessors);
    }
    snprintf(text_p, SHOAL_CUBLASLT_KEY_TEXT, "%" PRIu64 "x%" PRIu64 "x%" PRIu64 " ld %" PRIu64 ",%" PRIu64 ",%" PRIu64 " %s", key->m,
             key->n, key->k, key->lda, key->ldb, key->ldy, flags);
}

static bool parse_flags(const char *text, shoal_cublaslt_key_t *key)
{
    uint64_t flags = 0;
    for (int i = 0; i < LETTERS; i++) {
        if (text[i] != letters[i].set && text[i] != letters[i].unset) {
            return false;
        }
        flags |= text[i] == letters[i].set ? letters[i].flag : 0;
    }
    key->flags = flags;
    return text[LETTERS] == '\0' || (text[LETTERS] == '@' && (key->multiprocessors = strtoull(text + LETTERS + 1, NULL, 10)) != 0);
}

/* FNV-1a. */
static uint32_t check_sum(const char *text, size_t length)
{
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < length; i++) {
        sum = (sum ^ (unsigned char)text[i]) * 16777619u;
    }
    return sum;
}

/* key, version, GPU, algorithm, microseconds and the check sum of all that, between tabs. */
static void format_record(const shoal_cublaslt_record_t *record, char line_p[LINE_NBYTES])
{
    char key[SHOAL_CUBLASLT_KEY_TEXT];
    shoal_cublaslt_key_format(&record->key, key);
    int n = snprintf(line_p, LINE_NBYTES, "%s\t%" PRIu64 "\t%s\t", key, record->version, record->gpu);
    for (int i = 0; i < 8; i++) {
        n += snprintf(line_p + n, LINE_NBYTES - (size_t)n, "%016" PRIx64, record->algo[i]);
    }
    n += snprintf(line_p + n, LINE_NBYTES - (size_t)n, "\t%.2f", record->us);
    snprintf(line_p + n, LINE_NBYTES - (size_t)n, "\t%08" PRIx32 "\n", check_sum(line_p, (size_t)n));
}

/* The line is what format_record would write, nothing more and nothing less. */
static bool parse_record(const char *line, shoal_cublaslt_record_t *record_p)
{
    shoal_cublaslt_record_t record = {.version = 0};
    shoal_cublaslt_key_t   *key    = &record.key;
    char                    flags[FLAGS_NBYTES], algo[8 * 16 + 1], again[LINE_NBYTES];
    int                     fields = sscanf(line,
                                            "%" SCNu64 "x%" SCNu64 "x%" SCNu64 " ld %" SCNu64 ",%" SCNu64 ",%" SCNu64
                                            " %31s %" SCNu64 " %127[^\t] %128[0-9a-f] %lf",
                                            &key->m, &key->n, &key->k, &key->lda, &key->ldb, &key->ldy, flags, &record.version,
                                            record.gpu, algo, &record.us);
    if (fields != 11 || strlen(algo) != 8 * 16 || !parse_flags(flags, key)) {
        return false;
    }
    for (int i = 0; i < 8; i++) {
        char word[17] = "";
        memcpy(word, algo + 16 * i, 16);
        record.algo[i] = strtoull(word, NULL, 16);
    }
    format_record(&record, again);
    *record_p = record;
    return strcmp(line, again) == 0;
}

static bool same(const shoal_cublaslt_record_t *record, const shoal_cublaslt_key_t *key, uint64_t version, const char *gpu)
{
    return memcmp(&record->key, key, sizeof(*key)) == 0 && record->version == version && strcmp(record->gpu, gpu) == 0;
}

const shoal_cublaslt_record_t *shoal_cublaslt_records_find(const shoal_cublaslt_records_t *records, const shoal_cublaslt_key_t *key,
                                                           uint64_t version, const char *gpu)
{
    for (size_t i = 0; i < records->count; i++) {
        if (same(&records->items[i], key, version, gpu)) {
            return &records->items[i];
        }
    }
    return NULL;
}

void shoal_cublaslt_records_put(shoal_cublaslt_records_t *records, const shoal_cublaslt_record_t *record)
{
    for (size_t i = 0; i < records->count; i++) {
        if (same(&records->items[i], &record->key, record->version, record->gpu)) {
            records->items[i] = *record;
            return;
        }
    }
    if (records->count == records->capacity) {
        size_t                   capacity = records->capacity > 0 ? 2 * records->capacity : 32;
        shoal_cublaslt_record_t *items    = realloc(records->items, capacity * sizeof(*items));
        if (items == NULL) {
            return;
        }
        records->items    = items;
        records->capacity = capacity;
    }
    records->items[records->count++] = *record;
}

void shoal_cublaslt_records_free(shoal_cublaslt_records_t *records)
{
    free(records->items);
    *records = (shoal_cublaslt_records_t){.items = NULL};
}

void shoal_cublaslt_records_read(const char *path, bool warn, shoal_cublaslt_records_t *records)
{
    shoal_cublaslt_record_t record;
    char                   *line = NULL;
    size_t                  capacity = 0, damaged = 0, number = 0, first = 0;
    FILE                   *file = fopen(path, "re");
    if (file == NULL) {
        if (errno != ENOENT && warn) {
            shoal_warn("%s: %s: matmuls are timed anew", path, strerror(errno));
        }
        return;
    }
    while (getline(&line, &capacity, file) >= 0) {
        number++;
        if (line[0] == '#') {
            continue;
        }
        if (parse_record(line, &record)) {
            shoal_cublaslt_records_put(records, &record);
        } else if (damaged++ == 0) {
            first = number;
        }
    }
    if (damaged > 0 && warn) {
        shoal_warn("%s: line %zu is damaged, and %zu more: ignored", path, first, damaged - 1);
    }
    free(line);
    fclose(file);
}

/* Whether fresh records say that this one is of a version that its GPU no longer sees. */
static bool outdated(const shoal_cublaslt_record_t *record, const shoal_cublaslt_records_t *fresh)
{
    for (size_t i = 0; i < fresh->count; i++) {
        if (strcmp(record->gpu, fresh->items[i].gpu) == 0 && record->version != fresh->items[i].version) {
            return true;
        }
    }
    return false;
}

/* The directories above path, like mkdir -p. That they exist is no error, and the rest shows when the file is made. */
static void make_directories(const char *path)
{
    char *copy = strdup(path);
    for (char *slash = copy != NULL ? strchr(copy + 1, '/') : NULL; slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(copy, 0777);
        *slash = '/';
    }
    free(copy);
}

static bool write_records(FILE *file, const shoal_cublaslt_records_t *records, const shoal_cublaslt_records_t *fresh)
{
    char line[LINE_NBYTES];
    bool written = fputs(header, file) >= 0;
    for (size_t i = 0; i < records->count; i++) {
        if (!outdated(&records->items[i], fresh)) {
            format_record(&records->items[i], line);
            written &= fputs(line, file) >= 0;
        }
    }
    return written;
}

/* Writes `records` to a file beside path, and gives it that name. On failure errno says why, and nothing is left behind. */
static bool replace_file(const char *path, char *temporary, const shoal_cublaslt_records_t *records, const shoal_cublaslt_records_t *fresh)
{
    int   fd   = mkstemp(temporary);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        if (fd >= 0) {
            close(fd);
            unlink(temporary);
        }
        return false;
    }
    bool written = write_records(file, records, fresh) && fflush(file) == 0 && fsync(fd) == 0;
    written      = fclose(file) == 0 && written;
    if (!written || rename(temporary, path) != 0) {
        int cause = errno;
        unlink(temporary);
        errno = cause;
        return false;
    }
    return true;
}

bool shoal_cublaslt_records_save(const char *path, const shoal_cublaslt_records_t *fresh)
{
    shoal_cublaslt_records_t all = {.items = NULL};
    char                    *temporary = NULL;
    bool                     saved     = false;
    shoal_cublaslt_records_read(path, false, &all);
    for (size_t i = 0; i < fresh->count; i++) {
        shoal_cublaslt_records_put(&all, &fresh->items[i]);
    }
    make_directories(path);
    if (asprintf(&temporary, "%s.XXXXXX", path) > 0) {
        saved = replace_file(path, temporary, &all, fresh);
        if (!saved) {
            shoal_warn("%s: %s: the timing of matmuls is not remembered", path, strerror(errno));
        }
        free(temporary);
    }
    shoal_cublaslt_records_free(&all);
    return saved;
}
