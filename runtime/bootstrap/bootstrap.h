/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a process finds its peers. `pmix`: under `srun --mpi=pmix` and under mpirun. `mpi`: MPI_Init. `local`: `shoal train -n N`
 * forked the ranks itself and serves them over socket pairs. "auto" takes local when forked so, then pmix when the launcher
 * offers it, then mpi; outside any launcher it is a world of one.
 *
 * A launch that would end as N worlds of one (a launcher's environment says N > 1, the bootstrap says 1) is SHOAL_ERR_CONFIG with a
 * message that says how to launch instead. Nothing falls back silently: `method` says what was used.
 */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_BOOTSTRAP_H
#define SHOAL_RUNTIME_BOOTSTRAP_BOOTSTRAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "collectives/transport.h"

enum {
    SHOAL_HOST_NBYTES = 64,
    SHOAL_BOOTSTRAP_PATIENCE_S =
        120, /* what patience_s begins with, until the configuration is known */
    /* An exchange is more patient by this than the waits between exchanges: whoever gave up in one
       of those still comes here. */
    SHOAL_BOOTSTRAP_MARGIN_S = 2,
};

typedef struct shoal_bootstrap shoal_bootstrap_t;

typedef struct {
    const char *name;
    shoal_status_t (*open)(shoal_bootstrap_t **bootstrap_p);
    void (*close)(shoal_bootstrap_t *bootstrap);
    /*
     * As shoal_peers_t.exchange: blocking, collective over all ranks. Not thread-safe. When a rank
     * has not come within patience_s (and the margin) all that have come return SHOAL_ERR_PEER, and
     * one of them, or their launcher, has logged which ranks are missing at which stage. After that
     * the bootstrap is fit only for `abort`.
     */
    shoal_status_t (*exchange)(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p);
    /* Ends every rank of the job with `exit_code`; for errors that the peers cannot see. Returns only if it failed. */
    void (*abort)(shoal_bootstrap_t *bootstrap, int exit_code, const char *message);
    bool needs_mpi; /* exchanges are MPI's, so none is possible while another thread is in MPI */
} shoal_bootstrap_ops_t;

struct shoal_bootstrap {
    const shoal_bootstrap_ops_t *ops;
    const char                  *method; /* for people: "pmix (srun)", "pmix (mpirun)", "local", "mpi", "none (one rank)" */
    int                          rank, size;
    int                          local_rank, local_size; /* among ranks of one host, by rank */
    int                          node, nnodes;           /* hosts numbered by their lowest rank */
    char                         host[SHOAL_HOST_NBYTES];
    char (*hosts)[SHOAL_HOST_NBYTES]; /* (size): the host of each rank */
    int *local_ranks;                 /* (size): the local rank of each rank */
    double patience_s; /* of an exchange; the same on every rank. The owner may set it between
                          exchanges. */
    const char *stage; /* what the ranks are at, for the message about one that does not come; set
                          like patience_s */
    bool broken; /* an exchange of shoal_bootstrap_peers has failed with SHOAL_ERR_PEER: so will
                    every later one, silently */
    /* 1 + a rank that has ended abnormally, by the launcher's word, else 0; set by another thread. */
    atomic_int lost;
};

/*
 * Where `status` is SHOAL_ERR_PEER, because this rank waited in vain for another in some library:
 * it comes to the next exchange only to have the missing rank named, and waits there for a few
 * seconds at most.
 */
void shoal_bootstrap_hurry(shoal_bootstrap_t *bootstrap, shoal_status_t status);

/* What patience_s of the bootstraps that this process, and what it forks, will open begins with. */
void shoal_bootstrap_set_patience(double seconds);

/*
 * name: "auto", "pmix", "mpi" or "local". Fills every field above, on every rank. Where a rank does
 * not come in time the process, and as far as the launcher can the job, ends with exit code 5.
 */
shoal_status_t shoal_bootstrap_open(const char *name, shoal_bootstrap_t **bootstrap_p);
void           shoal_bootstrap_close(shoal_bootstrap_t *bootstrap);

/* The view that transports take. Valid until the bootstrap is closed. */
shoal_peers_t shoal_bootstrap_peers(shoal_bootstrap_t *bootstrap);

/*
 * Refuses a number of ranks for which this host has not the files, processes or memory, with
 * SHOAL_ERR_CONFIG's exit code. Else forks `nranks` processes that run rank_main(argument) and exit
 * with its value; in them shoal_bootstrap_open("auto") finds the others. The caller's process
 * serves the exchanges and returns the job's exit code: 0, or the code of the first rank that
 * failed. When a rank dies (a signal, or a non-zero exit) it says which, gives the others a short
 * grace to report, and kills the rest. SIGINT, SIGTERM and SIGUSR1 are passed on to the ranks.
 * Leaves no process behind, also when the caller itself is killed. A rank that does not come to an
 * exchange in time, to its first one counted from here, is named and killed, and the job's exit
 * code is 5; a rank that sends what is no message ends the job with exit code 1.
 */
int shoal_bootstrap_launch_local(int nranks, int (*rank_main)(void *argument), void *argument);

#endif
