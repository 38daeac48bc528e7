/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Script, picture and complaints pass through three files in memory that gnuplot inherits as its standard streams:
 * nothing can block, as pipes could, and nothing is left behind, as temporary files would be.
 *
 * gnuplot knows no colour that follows a page. It draws axes and text in INK, a colour that nothing else has, and in
 * the copy for the page that becomes currentColor.
 */
#define _GNU_SOURCE /* memfd_create() */
#include "src/report/plot.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "src/report/text.h"

#ifndef SHOAL_GNUPLOT /* the path of the one that the build found */
#define SHOAL_GNUPLOT "gnuplot"
#endif

extern char **environ;

enum { PATIENCE_MS = 60000, NAP_MS = 2 };

/* The line types: blue, orange, green, violet, red, teal; INK is rgb(1,2,3). */
static const char settings[] =
    "set terminal svg noenhanced dynamic size 820,430 font 'Helvetica,Arial,sans-serif,13'\n"
    "set border 3 lc rgb '#010203' lw 0.8\n"
    "set tics nomirror scale 0.5 tc rgb '#010203'\n"
    "set key outside top center horizontal maxrows 1 tc rgb '#010203' samplen 1.6\n"
    "set xlabel tc rgb '#010203'\nset ylabel tc rgb '#010203'\nset title tc rgb '#010203'\n"
    "set style line 100 lc rgb '#80888888' lw 0.6\nset grid ytics ls 100\n"
    "set linetype 1 lc rgb '#3f83c8' lw 2 pt 7\nset linetype 2 lc rgb '#e08a2e' lw 2 pt 5\n"
    "set linetype 3 lc rgb '#3c9f6e' lw 2 pt 9\nset linetype 4 lc rgb '#9273cc' lw 2 pt 13\n"
    "set linetype 5 lc rgb '#cf5a53' lw 2 pt 11\nset linetype 6 lc rgb '#3aa6b0' lw 2 pt 6\nset linetype cycle 6\n"
    "set style fill solid 1 noborder\nset boxwidth 0.62\nset offsets 0, 0, graph 0.04, 0\nset datafile missing '?'\n";

/* ---- Running gnuplot ---- */

static char *read_all(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return NULL;
    }
    char   *text = calloc((size_t)info.st_size + 1, 1);
    ssize_t n    = text == NULL ? -1 : pread(fd, text, (size_t)info.st_size, 0);
    if (n != info.st_size) {
        free(text);
        return NULL;
    }
    return text;
}

/*
 * As $GNUPLOT says, as the build found it, or from the PATH: the report may be written on another machine than the
 * build was.
 */
static const char *gnuplot_program(void)
{
    const char *asked = getenv("GNUPLOT");
    if (asked != NULL && asked[0] != '\0') {
        return asked;
    }
    return access(SHOAL_GNUPLOT, X_OK) == 0 ? SHOAL_GNUPLOT : "gnuplot";
}

/* Between single quotes gnuplot knows neither backslashes, commands between backquotes nor macros; a quote is doubled. */
void shoal_plot_quote(const char *text, FILE *script)
{
    fputc('\'', script);
    for (; *text != '\0'; text++) {
        fputs(*text == '\'' ? "'" : "", script);
        fputc((unsigned char)*text < 0x20 ? ' ' : *text, script);
    }
    fputc('\'', script);
}

/* The status of the process once it has ended; one that takes longer than PATIENCE_MS is killed. -1 with errno. */
static int wait_for(pid_t pid)
{
    const struct timespec nap = {.tv_nsec = NAP_MS * 1000000L};
    int                   wait_status;
    for (int waited_ms = 0;; waited_ms += NAP_MS) {
        pid_t ended = waitpid(pid, &wait_status, waited_ms < PATIENCE_MS ? WNOHANG : 0);
        if (ended == pid) {
            return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128;
        }
        if (ended < 0 && errno != EINTR) {
            return -1;
        }
        if (waited_ms + NAP_MS >= PATIENCE_MS) {
            kill(pid, SIGKILL);
        }
        nanosleep(&nap, NULL);
    }
}

/* Returns gnuplot's exit status, or -1 with errno. */
static int spawn_gnuplot(const int fds[3])
{
    char *const argv[] = {(char[]){"gnuplot"}, (char[]){"-d"}, (char[]){"-"}, NULL}; /* -d: nobody's ~/.gnuplot */
    posix_spawn_file_actions_t actions;
    pid_t                      pid;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return -1;
    }
    for (int i = 0; i < 3; i++) {
        posix_spawn_file_actions_adddup2(&actions, fds[i], i);
    }
    int error = posix_spawnp(&pid, gnuplot_program(), &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    errno = error;
    return error != 0 ? -1 : wait_for(pid);
}

static shoal_status_t run_gnuplot(const char *name, const int fds[3], char **svg_p)
{
    int exit_status = spawn_gnuplot(fds);
    if ((exit_status < 0 && errno == ENOENT) || exit_status == 127) {
        return SHOAL_PLOT_NO_GNUPLOT;
    }
    char *words = read_all(fds[2]);
    char *svg   = read_all(fds[1]);
    if (exit_status != 0 || svg == NULL || strstr(svg, "</svg>") == NULL) {
        char why[512];
        snprintf(why, sizeof(why), "%s",
                 words != NULL && words[0] != '\0' ? words : exit_status < 0 ? strerror(errno) : "it was killed or drew nothing");
        shoal_text_clean(why);
        shoal_warn("report: plot %s is left out, gnuplot could not draw it: %s", name, why);
        free(words);
        free(svg);
        return SHOAL_ERR_INTERNAL;
    }
    free(words);
    *svg_p = svg;
    return SHOAL_OK;
}

/* Writes the script into fds[0] and rewinds it. Sets *empty_p if there is nothing to draw. */
static shoal_status_t write_script(const shoal_plot_t *plot, const shoal_report_t *report, int fd, bool *empty_p)
{
    FILE *script = fdopen(dup(fd), "w");
    if (script == NULL) {
        shoal_warn("report: plot %s is left out: %s", plot->name, strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    fputs(settings, script);
    *empty_p    = !plot->write(report, script);
    bool failed = ferror(script) != 0;
    if (fclose(script) != 0 || failed || lseek(fd, 0, SEEK_SET) != 0) {
        shoal_warn("report: plot %s is left out: %s", plot->name, strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    return SHOAL_OK;
}

/* ---- Two copies ---- */

typedef struct {
    const char *from, *to;
} exchange_t;

/* Copies text with every `from` replaced by the first `to` that fits there. NULL without memory. */
static char *replace(const char *text, const exchange_t *exchanges, size_t n)
{
    char  *copy   = NULL;
    size_t nbytes = 0;
    FILE  *file   = open_memstream(&copy, &nbytes);
    while (file != NULL && *text != '\0') {
        size_t i = 0;
        while (i < n && strncmp(text, exchanges[i].from, strlen(exchanges[i].from)) != 0) {
            i++;
        }
        if (i < n) {
            fputs(exchanges[i].to, file);
            text += strlen(exchanges[i].from);
        } else {
            fputc(*text++, file);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return copy;
}

static char *for_file(const char *svg)
{
    static const exchange_t exchanges[] = {
        {"<g id=\"gnuplot_canvas\">", "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<g id=\"gnuplot_canvas\">"},
    };
    return replace(svg, exchanges, sizeof(exchanges) / sizeof(exchanges[0]));
}

static char *for_page(const char *svg, const char *name)
{
    char ids[4][96];
    snprintf(ids[0], sizeof(ids[0]), "id='%s-", name);
    snprintf(ids[1], sizeof(ids[1]), "id=\"%s-", name);
    snprintf(ids[2], sizeof(ids[2]), "href='#%s-", name);
    snprintf(ids[3], sizeof(ids[3]), "url(#%s-", name);
    const exchange_t exchanges[] = {
        {"rgb(  1,   2,   3)", "currentColor"}, {"rgb(1,2,3)", "currentColor"}, {"color=\"black\"", ""}, {"id='", ids[0]},
        {"id=\"", ids[1]},                      {"href='#", ids[2]},            {"url(#", ids[3]},
        {"<title>Gnuplot</title>", ""},         {"font-family=\"Helvetica,Arial,sans-serif\"", "font-family=\"inherit\""},
    };
    const char *body = strstr(svg, "<svg"); /* an XML declaration has no place inside a page */
    return replace(body == NULL ? svg : body, exchanges, sizeof(exchanges) / sizeof(exchanges[0]));
}

shoal_status_t shoal_plot_draw(const shoal_plot_t *plot, const shoal_report_t *report, char **file_svg_p, char **page_svg_p)
{
    char          *svg   = NULL;
    bool           empty = false;
    int            fds[3];
    shoal_status_t status = SHOAL_OK;
    *file_svg_p = *page_svg_p = NULL;
    for (int i = 0; i < 3; i++) {
        fds[i] = memfd_create("shoal-plot", MFD_CLOEXEC);
        status = fds[i] < 0 ? SHOAL_ERR_INTERNAL : status;
    }
    if (status != SHOAL_OK) {
        shoal_warn("report: plot %s is left out: %s", plot->name, strerror(errno));
    } else {
        status = write_script(plot, report, fds[0], &empty);
    }
    if (status == SHOAL_OK && !empty) {
        status = run_gnuplot(plot->name, fds, &svg);
    }
    if (status == SHOAL_OK && svg != NULL) {
        *file_svg_p = for_file(svg);
        *page_svg_p = for_page(svg, plot->name);
    }
    free(svg);
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return status;
}
