/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers through MPI_Init, for launchers without PMIx and for sites whose MPI knows best. Whoever initialised MPI first also
 * ends it: the mpi transport may be in the same process.
 */
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>

#include "base/log.h"
#include "runtime/bootstrap_backend.h"

typedef struct {
    shoal_bootstrap_t base;
    bool              started_here;
} mpi_bootstrap_t;

static shoal_status_t from_mpi(int code, const char *doing)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int  length                     = 0;
    if (code == MPI_SUCCESS) {
        return SHOAL_OK;
    }
    MPI_Error_string(code, text, &length);
    shoal_error("MPI: %s: %s", doing, text);
    return SHOAL_ERR_INTERNAL;
}

static shoal_status_t mpi_open(shoal_bootstrap_t **bootstrap_p)
{
    int              started = 0, provided = 0;
    mpi_bootstrap_t *mpi = calloc(1, sizeof(*mpi));
    if (mpi == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    MPI_Initialized(&started);
    if (!started && MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
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

static shoal_status_t mpi_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p)
{
    (void)bootstrap;
    if (nbytes > INT_MAX) {
        return SHOAL_ERR_INVALID;
    }
    return from_mpi(MPI_Allgather(mine, (int)nbytes, MPI_BYTE, all_p, (int)nbytes, MPI_BYTE, MPI_COMM_WORLD), "exchange");
}

static void mpi_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_error("ending the job: %s", message);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

const shoal_bootstrap_ops_t shoal_bootstrap_mpi = {
    .name     = "mpi",
    .open     = mpi_open,
    .close    = mpi_close,
    .exchange = mpi_exchange,
    .abort    = mpi_abort,
};
