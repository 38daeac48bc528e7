/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. */
#include "src/report/drawn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "src/report/plot.h"

void shoal_drawn_free(shoal_drawn_t *drawn)
{
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (drawn->file_svgs != NULL && drawn->page_svgs != NULL) {
            free(drawn->file_svgs[i]);
            free(drawn->page_svgs[i]);
        }
    }
    free(drawn->file_svgs);
    free(drawn->page_svgs);
    free(drawn->failed);
}

shoal_status_t shoal_drawn_create(const shoal_report_t *report, shoal_drawn_t *drawn)
{
    drawn->file_svgs = calloc(shoal_nplots, sizeof(*drawn->file_svgs));
    drawn->page_svgs = calloc(shoal_nplots, sizeof(*drawn->page_svgs));
    drawn->failed    = calloc(shoal_nplots, sizeof(*drawn->failed));
    if (drawn->file_svgs == NULL || drawn->page_svgs == NULL || drawn->failed == NULL) {
        shoal_error("no memory for the plots");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < shoal_nplots; i++) {
        shoal_status_t status = shoal_plot_draw(&shoal_plots[i], report, &drawn->file_svgs[i], &drawn->page_svgs[i]);
        if (status == SHOAL_PLOT_NO_GNUPLOT) {
            shoal_warn("there is no gnuplot on this machine: the report has no plots");
            drawn->no_gnuplot = true;
            return SHOAL_OK;
        }
        drawn->failed[i] = status != SHOAL_OK;
    }
    return SHOAL_OK;
}

void shoal_drawn_add(const shoal_drawn_t *drawn, const char *name, shoal_doc_t *doc)
{
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (strcmp(shoal_plots[i].name, name) == 0 && drawn->page_svgs[i] != NULL) {
            shoal_doc_figure(doc, name, shoal_plots[i].caption, drawn->page_svgs[i]);
        } else if (strcmp(shoal_plots[i].name, name) == 0 && drawn->failed[i]) {
            shoal_doc_note(doc, "The plot `%s` stood here, but could not be drawn: gnuplot refused its numbers. %s", name,
                           shoal_plots[i].caption);
        }
    }
}

shoal_status_t shoal_drawn_write(const shoal_report_t *report, const shoal_drawn_t *drawn)
{
    char dir[PATH_MAX + 16], name[64];
    snprintf(dir, sizeof(dir), "%s/plots", report->dir);
    for (size_t i = 0; i < shoal_nplots; i++) {
        if (drawn->file_svgs[i] != NULL) {
            snprintf(name, sizeof(name), "%s.svg", shoal_plots[i].name);
            SHOAL_TRY(shoal_file_make_directory(dir));
            SHOAL_TRY(shoal_file_replace(dir, name, drawn->file_svgs[i], strlen(drawn->file_svgs[i])));
        }
    }
    return SHOAL_OK;
}
