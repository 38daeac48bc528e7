/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of a row, or of a reference: words for execvp(), owned by the list. */
#ifndef SHOAL_SRC_STUDY_COMMAND_H
#define SHOAL_SRC_STUDY_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#include "src/study/state.h"

typedef struct {
    char **words; /* (n + 1), NULL at the end */
    size_t n;
    bool   failed; /* some word found no memory */
} shoal_command_t;

/*
 * What runs the row with its records in `run_dir`. `node` is the node of the allocation to begin at, counted from 0;
 * timed rows begin at 0. A reference is a row of one rank: it is never validated nor traced.
 */
shoal_status_t shoal_command_build(const shoal_study_t *study, const shoal_study_row_t *row, const char *run_dir, size_t node,
                                   bool reference, shoal_command_t *command_p);
void           shoal_command_free(shoal_command_t *command);

/* Writes the words as a line for a shell. */
void shoal_command_print(const shoal_command_t *command, FILE *file);

#endif
