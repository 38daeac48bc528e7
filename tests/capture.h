/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a test needs to look at error messages and files: standard error caught in memory, and files with given bytes in a
 * directory that goes away. Include after cmocka.h.
 */
#ifndef SHOAL_TESTS_CAPTURE_H
#define SHOAL_TESTS_CAPTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int  capture_file = -1, capture_stderr = -1;
static char capture_text[8192];

/* From here on standard error goes to an unnamed file. */
static inline void capture_begin(void)
{
    char path[] = "/tmp/shoal-test-XXXXXX";
    capture_file = mkstemp(path);
    assert_true(capture_file >= 0);
    unlink(path);
    capture_stderr = dup(STDERR_FILENO);
    dup2(capture_file, STDERR_FILENO);
}

/* Puts standard error back; what was written to it is valid until the next call. */
static inline const char *capture_end(void)
{
    ssize_t n = pread(capture_file, capture_text, sizeof(capture_text) - 1, 0);
    dup2(capture_stderr, STDERR_FILENO);
    close(capture_stderr);
    close(capture_file);
    capture_text[n > 0 ? n : 0] = '\0';
    return capture_text;
}

/* Fails the test unless `text` holds `part`; prints both. */
static inline void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
    }
}

/* setup and teardown: the test runs in a directory of its own. */
static inline int enter_directory(void **state)
{
    char *path = strdup("/tmp/shoal-test-XXXXXX");
    *state     = path;
    return mkdtemp(path) == NULL ? -1 : chdir(path);
}

static inline int leave_directory(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
    int failed = chdir("/") != 0 || system(command) != 0;
    free(*state);
    return failed ? -1 : 0;
}

static inline void write_file(const char *path, const void *bytes, size_t nbytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, nbytes, file), nbytes);
    assert_int_equal(fclose(file), 0);
}

#endif
