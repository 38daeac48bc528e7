/* SPDX-License-Identifier: BSD-3-Clause */
/* A report's rows as comma-separated values, for spreadsheets and scripts. */
#ifndef SHOAL_SRC_REPORT_CSV_H
#define SHOAL_SRC_REPORT_CSV_H

#include <stdio.h>

#include "src/report/data.h"

void shoal_csv_print(const shoal_report_t *report, FILE *file);

#endif
