/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/output.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/status.h"

int shoal_output_finish(int exit_code)
{
    bool had_lost = ferror(stdout) != 0; /* when, and so why, is no longer known */
    errno         = 0;
    bool lost     = fflush(stdout) != 0 || had_lost;
    if (lost && exit_code == 0) {
        shoal_error("standard output: %s",
                    errno != 0 ? strerror(errno) : "some of it could not be written");
        return shoal_status_exit_code(SHOAL_ERR_DATA);
    }
    return exit_code;
}
