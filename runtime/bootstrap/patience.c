/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits of what cannot be waited for without end: the first exchange, and a library that is asked to end the job. */
#include <stdint.h>
#include <unistd.h>

#include "base/watchdog.h"
#include "runtime/bootstrap/backend.h"

enum { ABORT_S = 5 }; /* how long the launcher's library may take to end the job */

static double first_patience_s = SHOAL_BOOTSTRAP_PATIENCE_S;

void shoal_bootstrap_set_patience(double seconds)
{
    first_patience_s = seconds;
}

double shoal_bootstrap_first_patience(void)
{
    return first_patience_s;
}

static void leave(void *argument)
{
    _exit((int)(intptr_t)argument);
}

void shoal_bootstrap_leave_soon(int exit_code)
{
    (void)shoal_watchdog_start(ABORT_S, leave, (void *)(intptr_t)exit_code);
}
