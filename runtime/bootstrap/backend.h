/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the ways of finding peers share among themselves, and nobody else needs. A backend's open sets rank, size and
 * method; hosts and local ranks are found by bootstrap.c with one exchange, the same way for all of them.
 */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_BACKEND_H
#define SHOAL_RUNTIME_BOOTSTRAP_BACKEND_H

#include <stdbool.h>

#include "runtime/bootstrap/bootstrap.h"

extern const shoal_bootstrap_ops_t shoal_bootstrap_local;
#ifdef SHOAL_HAVE_PMIX
extern const shoal_bootstrap_ops_t shoal_bootstrap_pmix;
#endif
#ifdef SHOAL_HAVE_MPI
extern const shoal_bootstrap_ops_t shoal_bootstrap_mpi;
#endif

/* True in a process that shoal_bootstrap_launch_local forked as a rank. */
bool shoal_bootstrap_is_local_rank(void);

/* As set by shoal_bootstrap_set_patience. */
double shoal_bootstrap_first_patience(void);

/* Raises the limit of open files as far as so many local ranks need. SHOAL_ERR_CONFIG, with the
 * numbers, where this host cannot hold them. */
shoal_status_t shoal_bootstrap_check_limits(int nranks);

/* Ends this process with that code after a few seconds: for backends whose library may hang when it
 * is asked to end the job. */
void shoal_bootstrap_leave_soon(int exit_code);

/* What the environment says about who launched this process. */
typedef struct {
    int  size;    /* how many tasks the launcher started, 1 when there is no launcher */
    bool mpirun;  /* Open MPI's launcher, possibly inside a Slurm job */
    bool step;    /* a Slurm job step; a batch script or an interactive shell is none */
    bool pmix;    /* a PMIx server can be reached */
    bool pmi;     /* some PMI server is there, which MPI_Init may be able to use */
} shoal_launcher_t;

shoal_launcher_t shoal_launcher_from_environment(void);

/* How this launch should have looked like, for messages. */
const char *shoal_launcher_cure(const shoal_launcher_t *launcher);

#endif
