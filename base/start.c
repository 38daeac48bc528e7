/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All times are seconds of the clock that the kernel stamps processes with: since boot, sleep
 * included.
 */
#include "base/start.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static struct {
    double      last; /* when the last part ended */
    double      ms[SHOAL_START_COUNT];
    const char *doubt; /* why the stamp is not used */
    bool        ended;
} start;

static double read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/*
 * Field 22 of /proc/self/stat, in clock ticks; `otherwise` where it cannot be read or cannot be
 * true. Names may hold blanks and brackets.
 */
static double process_start(double otherwise)
{
    char               text[1024];
    unsigned long long ticks = 0;
    FILE              *file  = fopen("/proc/self/stat", "r");
    size_t             n     = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    text[n]          = '\0';
    const char *rest = strrchr(text, ')');
    if (rest == NULL ||
        sscanf(rest,
               ") %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &ticks) != 1) {
        return otherwise;
    }
    double seconds = (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return seconds > 0 && seconds <= otherwise ? seconds : otherwise;
}

const char *shoal_start_doubt(double stamp, double now, double booted)
{
    const double skew = 1, day = 86400;
    if (!isfinite(stamp)) {
        return "no number of seconds since the epoch";
    }
    if (stamp > now + skew) {
        return "in the future";
    }
    if (stamp < now - day) {
        return "more than a day ago";
    }
    return stamp < booted ? "before this machine was started" : NULL;
}

/* The launcher's stamp on this clock, or `otherwise`. */
static double launcher_start(double now, double otherwise)
{
    const char *text  = getenv("SHOAL_LAUNCH_TIME");
    double      epoch = read_clock(CLOCK_REALTIME), stamp;
    char       *end   = NULL;
    if (text == NULL) {
        return otherwise;
    }
    stamp       = strtod(text, &end);
    stamp       = end != text && *end == '\0' ? stamp : (double)NAN;
    start.doubt = shoal_start_doubt(stamp, epoch, epoch - now);
    return start.doubt == NULL ? fmin(stamp - (epoch - now), otherwise) : otherwise;
}

void shoal_start_begin(void)
{
    memset(&start, 0, sizeof(start));
    double now     = read_clock(CLOCK_BOOTTIME);
    double process = process_start(now), launcher = launcher_start(now, process);
    start.last                   = now;
    start.ms[SHOAL_START_LAUNCH] = (process - launcher) * 1e3;
    start.ms[SHOAL_START_EXEC]   = (now - process) * 1e3;
}

void shoal_start_warn(void)
{
    if (start.doubt != NULL) {
        shoal_warn("SHOAL_LAUNCH_TIME=%.64s is %s: the time to the first step counts from the "
                   "start of the process",
                   getenv("SHOAL_LAUNCH_TIME"), start.doubt);
    }
}

void shoal_start_mark(shoal_start_part_t part)
{
    double now = read_clock(CLOCK_BOOTTIME);
    if (!start.ended) {
        start.ms[part] += (now - start.last) * 1e3;
        start.last  = now;
        start.ended = part == SHOAL_START_STEP;
    }
}

void shoal_start_parts(double ms_p[SHOAL_START_COUNT])
{
    memcpy(ms_p, start.ms, sizeof(start.ms));
}

const char *shoal_start_part_name(shoal_start_part_t part)
{
    static const char *const names[SHOAL_START_COUNT] = {
        "launch", "exec",      "bootstrap", "configuration", "device",
        "plan",   "transport", "state",     "records",       "first_step"};
    return names[part];
}
