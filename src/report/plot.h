/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gnuplot, given a script and read for an SVG; and the scripts of all plots. Plots are drawn with one colour that
 * stands for "the text's" and with series colours that are told apart on white and on black.
 */
#ifndef SHOAL_SRC_REPORT_PLOT_H
#define SHOAL_SRC_REPORT_PLOT_H

#include <stdio.h>

#include "src/report/data.h"

/* Returned instead of a status by shoal_plot_draw() alone: there is no gnuplot. Not an error: it has not been logged. */
#define SHOAL_PLOT_NO_GNUPLOT SHOAL_ERR_UNSUPPORTED

typedef struct {
    const char *name;    /* of the file, and unique in a page */
    const char *caption; /* what to see */
    /* Writes the script after the common settings. Returns false if the report has nothing for this plot. */
    bool (*write)(const shoal_report_t *report, FILE *script);
} shoal_plot_t;

extern const shoal_plot_t shoal_plots[];
extern const size_t       shoal_nplots;

/*
 * Draws a plot. *file_svg_p is for a file of its own (black on white), *page_svg_p to stand in a page (colours of the
 * page's text; ids unique by the plot's name); both are the caller's to free, and NULL if the report has nothing for
 * the plot. A script that gnuplot rejects, or takes too long for, is SHOAL_ERR_INTERNAL, logged as a warning with gnuplot's
 * words: the report stands without the plot.
 */
shoal_status_t shoal_plot_draw(const shoal_plot_t *plot, const shoal_report_t *report, char **file_svg_p, char **page_svg_p);

/* Writes a text as a string of a script; every text that is not a constant passes here. gnuplot finds no command in it. */
void shoal_plot_quote(const char *text, FILE *script);

#endif
