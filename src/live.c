/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The time left is taken from a running mean of the step time with a memory of some twenty steps: long enough not to
 * flicker, short enough to follow a node that slows down. Errors of writing are told once, and at the end: a closed
 * terminal ends no training.
 */
#include "src/live.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"

enum { LINE_NBYTES = 256, REDRAW_MS = 100, QUIET_S = 300, MEMORY_STEPS = 20 };

struct shoal_live {
    int               fd;
    bool              terminal;
    bool              drawn;    /* a line stands on the terminal without its newline */
    int64_t           shown_ns; /* when the last line was written, 0 before the first */
    double            mean_ms;
    shoal_live_step_t last;
    int               lost_errno; /* of the first line that could not be written; 0: none */
};

static bool is_terminal(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && term != NULL && strcmp(term, "dumb") != 0;
}

shoal_status_t shoal_live_create(int fd, shoal_live_t **live_p)
{
    shoal_live_t *live = calloc(1, sizeof(*live));
    if (live == NULL) {
        shoal_error("no memory for the progress line");
        return SHOAL_ERR_NO_MEMORY;
    }
    live->fd       = fd;
    live->terminal = is_terminal(fd);
    *live_p        = live;
    return SHOAL_OK;
}

/* ---- Pure parts ---- */

/* Whether step is 1, 2 or 5 times a power of ten. */
static bool is_round(size_t step)
{
    while (step >= 10 && step % 10 == 0) {
        step /= 10;
    }
    return step == 1 || step == 2 || step == 5;
}

bool shoal_live_is_due(size_t step, size_t steps, double since_s)
{
    bool tenth = steps >= 10 && step * 10 / steps > (step - 1) * 10 / steps;
    return step <= 3 || step >= steps || is_round(step) || tenth || since_s >= QUIET_S;
}

static void __attribute__((format(printf, 3, 4))) append(char *line_p, size_t nbytes, const char *format, ...)
{
    size_t  used = strlen(line_p);
    va_list args;
    va_start(args, format);
    vsnprintf(line_p + used, nbytes - used, format, args);
    va_end(args);
}

static void append_time_left(char *line_p, size_t nbytes, double seconds)
{
    unsigned long long s = seconds < 1e9 ? (unsigned long long)(seconds + 0.5) : 1000000000ULL;
    if (s >= 86400) {
        append(line_p, nbytes, "  %llud %02lluh left", s / 86400, s / 3600 % 24);
    } else if (s >= 3600) {
        append(line_p, nbytes, "  %lluh %02llum left", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        append(line_p, nbytes, "  %llum %02llus left", s / 60, s % 60);
    } else {
        append(line_p, nbytes, "  %llus left", s);
    }
}

void shoal_live_format(const shoal_live_step_t *step, double mean_ms, size_t nbytes, char *line_p)
{
    line_p[0] = '\0';
    append(line_p, nbytes, "step %zu/%zu  loss %.4f", step->step, step->steps, step->loss);
    if (isfinite(step->tokens_per_s)) {
        append(line_p, nbytes, "  %.0f tokens/s", step->tokens_per_s);
    }
    if (isfinite(step->mfu)) {
        append(line_p, nbytes, "  MFU %.1f%%", step->mfu * 100);
    }
    if (isfinite(step->exposed_fraction)) {
        append(line_p, nbytes, "  exposed comm %.1f%%", step->exposed_fraction * 100);
    }
    if (step->step < step->steps && isfinite(mean_ms) && mean_ms >= 0) {
        append_time_left(line_p, nbytes, (double)(step->steps - step->step) * mean_ms * 1e-3);
    }
}

/* ---- Drawing ---- */

/* Nobody reads any more where the reader of a pipe has left, and that is its choice: only what else fails is an error. */
static void put(shoal_live_t *live, const char *text)
{
    if (write(live->fd, text, strlen(text)) < 0 && live->lost_errno == 0) {
        live->lost_errno = errno;
        shoal_warn("standard output: %s; the run goes on, and its records are whole", strerror(errno));
    }
}

/* Columns of the terminal, less one: some terminals wrap as soon as the last column is filled. */
static int columns(const shoal_live_t *live)
{
    struct winsize size;
    return ioctl(live->fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

static void show(shoal_live_t *live)
{
    char line[LINE_NBYTES], text[LINE_NBYTES + 8];
    shoal_live_format(&live->last, live->mean_ms, sizeof(line), line);
    if (live->terminal) {
        snprintf(text, sizeof(text), "\r%.*s\033[K", columns(live), line);
    } else {
        snprintf(text, sizeof(text), "%s\n", line);
    }
    put(live, text);
    live->drawn    = live->terminal;
    live->shown_ns = shoal_time_ns();
}

static bool wants_line(const shoal_live_t *live)
{
    double since_ms = live->shown_ns == 0 ? INFINITY : shoal_ms_since(live->shown_ns);
    if (live->terminal) {
        return since_ms >= REDRAW_MS || live->last.step >= live->last.steps;
    }
    return shoal_live_is_due(live->last.step, live->last.steps, since_ms * 1e-3);
}

void shoal_live_step(shoal_live_t *live, const shoal_live_step_t *step)
{
    /* The first step of a run pays for warming up; the mean starts over with the second. */
    bool fresh = live->last.step <= 1;
    live->mean_ms = fresh ? step->step_ms : live->mean_ms + (step->step_ms - live->mean_ms) / MEMORY_STEPS;
    live->last    = *step;
    if (wants_line(live)) {
        show(live);
    }
}

void shoal_live_clear(shoal_live_t *live)
{
    if (live->drawn) {
        put(live, "\r\033[K");
        live->drawn = false;
    }
}

shoal_status_t shoal_live_destroy(shoal_live_t *live)
{
    if (live == NULL) {
        return SHOAL_OK;
    }
    if (live->terminal && live->last.step > 0) {
        show(live);
        put(live, "\n");
    }
    bool lost = live->lost_errno != 0 && live->lost_errno != EPIPE;
    free(live);
    return lost ? SHOAL_ERR_DATA : SHOAL_OK;
}
