/* SPDX-License-Identifier: BSD-3-Clause */
/* A line is composed in a local buffer and written at once; nothing is allocated, so it works when memory is short. */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char log_prefix[128] = "shoal: ";
static int  log_rank        = -1;

enum { NLEVELS = 4 };

/* The level that SHOAL_LOG names; NLEVELS: none of that name. Nothing set, and an empty value, are -1. */
static int asked_level(void)
{
    static const char *const names[NLEVELS] = {"error", "warn", "info", "trace"};
    const char              *asked          = getenv("SHOAL_LOG");
    int                      level          = 0;
    if (asked == NULL || asked[0] == '\0') {
        return -1;
    }
    while (level < NLEVELS && strcmp(asked, names[level]) != 0) {
        level++;
    }
    return level;
}

static shoal_log_level_t log_threshold(void)
{
    int level = asked_level();
    if (level >= 0 && level < NLEVELS) {
        return (shoal_log_level_t)level;
    }
    return log_rank <= 0 ? SHOAL_LOG_INFO : SHOAL_LOG_WARN;
}

const char *shoal_log_expects(void)
{
    return asked_level() == NLEVELS ? "error, warn, info, trace" : NULL;
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
