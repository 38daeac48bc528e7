/* SPDX-License-Identifier: BSD-3-Clause */
/* One line on standard output for a finished row. */
#ifndef SHOAL_SRC_STUDY_PRINT_H
#define SHOAL_SRC_STUDY_PRINT_H

#include "src/study/state.h"

/*
 * `index` of `count` rows, from 1. Throughput is compared with the smallest row that differs in the number of ranks
 * only.
 */
void shoal_study_print_row(const shoal_study_t *study, const shoal_study_row_t *row, size_t index, size_t count);

#endif
