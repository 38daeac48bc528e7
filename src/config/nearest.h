/* SPDX-License-Identifier: BSD-3-Clause */
/* Which of the known words a mistyped one was meant to be: for unknown commands and configuration keys. */
#ifndef SHOAL_SRC_CONFIG_NEAREST_H
#define SHOAL_SRC_CONFIG_NEAREST_H

#include <stddef.h>

/*
 * Letters to insert, drop, replace or swap with their neighbour to turn one word into the other. Only the first 63
 * letters count: no name of shoal is longer.
 */
size_t shoal_edit_distance(const char *a, const char *b);

#endif
