/* SPDX-License-Identifier: BSD-3-Clause */
/* A line is composed in a local buffer and written at once; nothing is allocated, so it works when memory is short. */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char log_prefix[128] = "shoal: ";
static int  log_rank        = -1;

static shoal_log_level_t log_threshold(void)
{
    static const char *const names[] = {"error", "warn", "info", "trace"};
    const char              *asked   = getenv("SHOAL_LOG");
    for (int i = 0; asked != NULL && i < 4; i++) {
        if (strcmp(asked, names[i]) == 0) {
            return (shoal_log_level_t)i;
        }
    }
    return log_rank <= 0 ? SHOAL_LOG_INFO : SHOAL_LOG_WARN;
}

void shoal_log_set_rank(int rank, const char *host)
{
    log_rank = rank;
    snprintf(log_prefix, sizeof(log_prefix), "shoal: rank %d on %s: ", rank, host);
}

void shoal_log(shoal_log_level_t level, const char *format, ...)
{
    static const char *const tags[] = {"error: ", "warning: ", "", ""};
    char                     line[2048];
    if (level > log_threshold()) {
        return;
    }
    /* A line of plain information from rank 0 is meant for a person: it needs no prefix beyond the program's name. */
    const char *prefix = level >= SHOAL_LOG_INFO && log_rank <= 0 ? "shoal: " : log_prefix;
    int         n      = snprintf(line, sizeof(line) - 1, "%s%s", prefix, tags[level]);
    va_list     args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, format, args);
    va_end(args);
    n += m < 0 ? 0 : m;
    n         = n > (int)sizeof(line) - 2 ? (int)sizeof(line) - 2 : n;
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}
