/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One status type for all of shoal. Zero is success, positive is progress, negatives say what went wrong, in the order
 * of what must be torn down: a request, a file or a configuration, the job. Every function that can fail returns one;
 * outputs are set on success only. The place that decides about an error logs it once (base/log.h) with its exact cause;
 * callers only propagate. shoal_status_exit_code() maps a status to the command's documented exit code.
 */
#ifndef SHOAL_BASE_STATUS_H
#define SHOAL_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    SHOAL_OK          = 0,
    SHOAL_IN_PROGRESS = 1,

    SHOAL_ERR_INVALID     = -1, /* an argument that the caller should not have passed */
    SHOAL_ERR_UNSUPPORTED = -2, /* this backend cannot do it; the header says where that may happen */

    SHOAL_ERR_CONFIG = -10, /* bad usage or configuration: exit code 2 */
    SHOAL_ERR_PLAN   = -11, /* the plan says that it cannot fit: exit code 3 */
    SHOAL_ERR_DATA   = -12, /* bad or unwritable data, record or checkpoint file: exit code 6 */

    SHOAL_ERR_NO_MEMORY = -20, /* exit code 4 */
    SHOAL_ERR_PEER      = -21, /* a peer is lost or hangs: exit code 5 */
    SHOAL_ERR_STOPPED   = -22, /* stopped on request, wants to be run again: exit code 75 */
    SHOAL_ERR_DIVERGED  = -24, /* training went on with a loss that is no finite number: exit code 1 */
    SHOAL_ERR_INTERNAL  = -23, /* a library or the operating system failed in a way that has no better name: 1 */
} shoal_status_t;

/* The meaning of a status in a few words; a constant string, safe from any thread. */
const char *shoal_status_string(shoal_status_t status);

/* The exit code of the shoal command for a status: 0, 1, 2, 3, 4, 5, 6 or 75. */
int shoal_status_exit_code(shoal_status_t status);

#ifdef __cplusplus
}
#endif

/* Returns the status of `expr` from the calling function unless it is SHOAL_OK. Only for functions with nothing to undo. */
#define SHOAL_TRY(expr)                      \
    do {                                     \
        shoal_status_t status_ = (expr);     \
        if (status_ != SHOAL_OK) {           \
            return status_;                  \
        }                                    \
    } while (0)

#endif
