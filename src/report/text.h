/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Numbers as a reader wants them. Each function returns its text by value, so `shoal_text_count(n).s` lives as long as the
 * expression around it. What is not known (NaN) is a dash.
 */
#ifndef SHOAL_SRC_REPORT_TEXT_H
#define SHOAL_SRC_REPORT_TEXT_H

typedef struct {
    char s[48];
} shoal_text_t;

/*
 * Makes a text from elsewhere fit to print: control characters except newlines, and bytes that are no UTF-8, become
 * question marks, so that nothing moves a terminal's cursor or ends a page.
 */
void shoal_text_clean(char *text);

shoal_text_t shoal_text_count(double value);             /* 33,792,000 */
shoal_text_t shoal_text_fixed(double value, int digits); /* 991.38 */
shoal_text_t shoal_text_percent(double fraction);        /* 98.1 % */
shoal_text_t shoal_text_bytes(double nbytes);            /* 34.45 GiB */
shoal_text_t shoal_text_large(double value);             /* 1.95 B, 124 M, 8.2 K: parameters */
shoal_text_t shoal_text_si(double value);                /* 6.20 G: FLOP per token */
shoal_text_t shoal_text_flops(double flops);             /* 989.4 TFLOP/s */
shoal_text_t shoal_text_days(double days);               /* 33.9, or in hours below a tenth of a day */

#endif
