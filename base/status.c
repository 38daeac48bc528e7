/* SPDX-License-Identifier: BSD-3-Clause */
/* The one table of statuses: text and exit code side by side, so that a new status cannot miss either. */
#include "base/status.h"

#include <stddef.h>

static const struct {
    shoal_status_t status;
    int            exit_code;
    const char    *text;
} statuses[] = {
    {SHOAL_OK, 0, "success"},
    {SHOAL_IN_PROGRESS, 0, "in progress"},
    {SHOAL_ERR_INVALID, 1, "invalid argument"},
    {SHOAL_ERR_UNSUPPORTED, 1, "not supported by this backend"},
    {SHOAL_ERR_CONFIG, 2, "bad usage or configuration"},
    {SHOAL_ERR_PLAN, 3, "the plan does not fit"},
    {SHOAL_ERR_DATA, 6, "bad data, record or checkpoint"},
    {SHOAL_ERR_NO_MEMORY, 4, "out of memory"},
    {SHOAL_ERR_PEER, 5, "peer lost or hung"},
    {SHOAL_ERR_STOPPED, 75, "stopped on request"},
    {SHOAL_ERR_DIVERGED, 1, "training diverged"},
    {SHOAL_ERR_INTERNAL, 1, "internal error"},
};

const char *shoal_status_string(shoal_status_t status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (statuses[i].status == status) {
            return statuses[i].text;
        }
    }
    return "unknown status";
}

int shoal_status_exit_code(shoal_status_t status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (statuses[i].status == status) {
            return statuses[i].exit_code;
        }
    }
    return 1;
}
