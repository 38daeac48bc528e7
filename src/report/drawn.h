/* SPDX-License-Identifier: BSD-3-Clause */
/* The plots of one report, drawn: as files beside the report and as figures of its page. */
#ifndef SHOAL_SRC_REPORT_DRAWN_H
#define SHOAL_SRC_REPORT_DRAWN_H

#include <stdbool.h>

#include "src/report/data.h"
#include "src/report/doc.h"

/* Arrays by the index of shoal_plots (plot.h). */
typedef struct {
    char **file_svgs, **page_svgs; /* NULL where a plot has nothing to show */
    bool  *failed;                 /* there was something to show, and it could not be drawn */
    bool   no_gnuplot;
} shoal_drawn_t;

/* Without gnuplot nothing is drawn, and the log says so. Free the result also after an error. */
shoal_status_t shoal_drawn_create(const shoal_report_t *report, shoal_drawn_t *drawn);
void           shoal_drawn_free(shoal_drawn_t *drawn);

/* Adds the plot of that name, or a note in its place when it could not be drawn. */
void shoal_drawn_add(const shoal_drawn_t *drawn, const char *name, shoal_doc_t *doc);

/* Writes plots/NAME.svg below the report's directory. */
shoal_status_t shoal_drawn_write(const shoal_report_t *report, const shoal_drawn_t *drawn);

#endif
