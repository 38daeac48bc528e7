/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers through MPI_Init, for launchers without PMIx and for sites whose MPI knows best. Whoever
 * initialised MPI first also ends it: the mpi transport may be in the same process. An exchange is
 * made of messages to and from rank 0 and not of a collective, because a collective can neither be
 * given a deadline nor tell who is missing.
 */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "base/watchdog.h"
#include "runtime/bootstrap/backend.h"

enum {
    TO_ROOT_TAG   = 1,
    FROM_ROOT_TAG = 2,
    NAP_US        = 50,
    ROOT_MARGIN_S = 3, /* rank 0 gives up first, and names who is missing */
};

typedef struct {
    shoal_bootstrap_t base;
    bool              started_here;
} mpi_bootstrap_t;

static void ranks_are_missing(void *argument)
{
    (void)argument;
    shoal_error("MPI_Init has waited for %.0f s, and does not tell for which rank",
                shoal_bootstrap_first_patience());
    _exit(shoal_status_exit_code(SHOAL_ERR_PEER));
}

/* MPI_Init waits for all ranks and cannot be ended. */
static int start(void)
{
    int               provided = 0;
    shoal_watchdog_t *watchdog =
        shoal_watchdog_start(shoal_bootstrap_first_patience(), ranks_are_missing, NULL);
    int               code     = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    shoal_watchdog_stop(watchdog);
    return code;
}

static shoal_status_t mpi_open(shoal_bootstrap_t **bootstrap_p)
{
    int              started = 0;
    mpi_bootstrap_t *mpi = calloc(1, sizeof(*mpi));
    if (mpi == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    MPI_Initialized(&started);
    if (!started && start() != MPI_SUCCESS) {
        shoal_error("MPI: MPI_Init_thread failed");
        free(mpi);
        return SHOAL_ERR_INTERNAL;
    }
    mpi->started_here = !started;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi->base.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi->base.size);
    mpi->base.method = "mpi";
    *bootstrap_p     = &mpi->base;
    return SHOAL_OK;
}

static void mpi_close(shoal_bootstrap_t *bootstrap)
{
    mpi_bootstrap_t *mpi   = (mpi_bootstrap_t *)bootstrap;
    int              ended = 0;
    MPI_Finalized(&ended);
    if (mpi->started_here && !ended) {
        MPI_Finalize();
    }
    free(mpi);
}

/* Whether all of n requests complete by then. */
static bool wait_all(MPI_Request *requests, int n, int64_t deadline_ns)
{
    for (;;) {
        int done = 0;
        if (MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS || done) {
            return done != 0;
        }
        if (shoal_time_ns() > deadline_ns) {
            return false;
        }
        usleep(NAP_US);
    }
}

/* Of the ranks whose contribution has not come. */
static void name_missing(const shoal_bootstrap_t *mpi, MPI_Request *requests, double waited_s)
{
    char   list[256] = "";
    size_t used      = 0;
    for (int r = 1; r < mpi->size && used < sizeof(list); r++) {
        int done = 0;
        MPI_Test(&requests[r], &done, MPI_STATUS_IGNORE);
        if (!done) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%srank %d",
                                     used > 0 ? ", " : "", r);
        }
    }
    shoal_error("at the stage \"%s\": waited %.0f s in vain for %s", mpi->stage, waited_s,
                used > 0 ? list : "MPI");
}

/* Rank 0 gathers all contributions, which shows it who is missing, and sends everybody the whole.
 * requests (size) */
static shoal_status_t gather_here(const shoal_bootstrap_t *mpi, int nbytes, char *all,
                                  MPI_Request *requests, double patience_s)
{
    int64_t deadline_ns = shoal_time_ns() + (int64_t)(patience_s * 1e9);
    requests[0]         = MPI_REQUEST_NULL;
    for (int r = 1; r < mpi->size; r++) {
        MPI_Irecv(all + (size_t)r * (size_t)nbytes, nbytes, MPI_BYTE, r, TO_ROOT_TAG,
                  MPI_COMM_WORLD, &requests[r]);
    }
    if (!wait_all(requests, mpi->size, deadline_ns)) {
        name_missing(mpi, requests, patience_s);
        return SHOAL_ERR_PEER;
    }
    for (int r = 1; r < mpi->size; r++) {
        MPI_Isend(all, nbytes * mpi->size, MPI_BYTE, r, FROM_ROOT_TAG, MPI_COMM_WORLD,
                  &requests[r]);
    }
    if (!wait_all(requests, mpi->size, deadline_ns)) {
        name_missing(mpi, requests, patience_s);
        return SHOAL_ERR_PEER;
    }
    return SHOAL_OK;
}

static shoal_status_t gather_there(const shoal_bootstrap_t *mpi, const void *mine, int nbytes,
                                   char *all, double patience_s)
{
    MPI_Request requests[2];
    MPI_Isend(mine, nbytes, MPI_BYTE, 0, TO_ROOT_TAG, MPI_COMM_WORLD, &requests[0]);
    MPI_Irecv(all, nbytes * mpi->size, MPI_BYTE, 0, FROM_ROOT_TAG, MPI_COMM_WORLD, &requests[1]);
    if (wait_all(requests, 2, shoal_time_ns() + (int64_t)((patience_s + ROOT_MARGIN_S) * 1e9))) {
        return SHOAL_OK;
    }
    shoal_error("at the stage \"%s\": waited %.0f s in vain for rank 0", mpi->stage,
                patience_s + ROOT_MARGIN_S);
    return SHOAL_ERR_PEER;
}

static shoal_status_t mpi_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p)
{
    double patience_s = bootstrap->patience_s + SHOAL_BOOTSTRAP_MARGIN_S;
    if (nbytes * (size_t)bootstrap->size > INT_MAX) {
        shoal_error("MPI: an exchange of %zu bytes among %d ranks is too large", nbytes,
                    bootstrap->size);
        return SHOAL_ERR_INVALID;
    }
    if (bootstrap->rank > 0) {
        return gather_there(bootstrap, mine, (int)nbytes, all_p, patience_s);
    }
    MPI_Request *requests = malloc((size_t)bootstrap->size * sizeof(MPI_Request));
    if (requests == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    memmove(all_p, mine, nbytes);
    shoal_status_t status = gather_here(bootstrap, (int)nbytes, all_p, requests, patience_s);
    free(requests);
    return status;
}

static void mpi_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_error("ending the job: %s", message);
    shoal_bootstrap_leave_soon(exit_code);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

const shoal_bootstrap_ops_t shoal_bootstrap_mpi = {
    .name     = "mpi",
    .open     = mpi_open,
    .close    = mpi_close,
    .exchange = mpi_exchange,
    .abort    = mpi_abort,
    .needs_mpi = true,
};
