/* SPDX-License-Identifier: BSD-3-Clause */
#include "src/config/option.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

shoal_status_t shoal_option_int(const char *command, const char *option, const char *word, int min,
                                int max, int *value_p)
{
    char       *end;
    const char *digits = word + (word[0] == '-'); /* strtol would skip blanks and take a plus */
    errno              = 0;
    long value         = strtol(word, &end, 10);
    if (digits[0] < '0' || digits[0] > '9' || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        shoal_error("%s: %s %s: expects a whole number from %d to %d; see shoal %s --help", command,
                    option, word, min, max, command);
        return SHOAL_ERR_CONFIG;
    }
    *value_p = (int)value;
    return SHOAL_OK;
}
