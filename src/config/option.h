/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers on the command line, read strictly: the whole word is the number, and it lies in the
 * option's range. */
#ifndef SHOAL_SRC_CONFIG_OPTION_H
#define SHOAL_SRC_CONFIG_OPTION_H

#include "base/status.h"

/* The most ranks that -n may start on this host, and the most that a plan may be for. */
enum { SHOAL_OPTION_MAX_LOCAL_RANKS = 4096, SHOAL_OPTION_MAX_RANKS = 1000000 };

/*
 * A whole decimal number from min to max; values outside int are outside every range. SHOAL_ERR_CONFIG, logged as
 * "COMMAND: OPTION WORD: expects a whole number from MIN to MAX", when `word` is anything else; *value_p is then untouched.
 */
shoal_status_t shoal_option_int(const char *command, const char *option, const char *word, int min,
                                int max, int *value_p);

#endif
