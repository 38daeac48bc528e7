/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads who launched this process from its environment. Everything here is about one mistake: N tasks that each believe to
 * be alone train N models and look healthy. Only a job *step* counts for Slurm: the batch script inherits SLURM_NTASKS of the
 * whole job although it is one process.
 */
#include "runtime/bootstrap/backend.h"

#include <stdlib.h>

/* Step ids from here up are Slurm's special steps: batch script, external, interactive and pending. */
static const unsigned long first_special_step = 0xfffffff0ul;

/* The number in a variable, or `otherwise` when it is missing or no positive number. */
static int env_count(const char *name, int otherwise)
{
    const char *text = getenv(name);
    long        n    = text != NULL ? strtol(text, NULL, 10) : 0;
    return n > 0 && n < 1 << 24 ? (int)n : otherwise;
}

static bool in_slurm_step(void)
{
    const char *step = getenv("SLURM_STEP_ID");
    if (step == NULL || getenv("SLURM_PROCID") == NULL) {
        return false;
    }
    char         *end;
    unsigned long id = strtoul(step, &end, 10);
    return end != step && *end == '\0' && id < first_special_step;
}

shoal_launcher_t shoal_launcher_from_environment(void)
{
    shoal_launcher_t launcher = {
        .size   = 1,
        .mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL,
        .step   = in_slurm_step(),
        .pmix   = getenv("PMIX_NAMESPACE") != NULL,
        .pmi    = getenv("PMI_RANK") != NULL || getenv("PMI_FD") != NULL,
    };
    if (launcher.mpirun) {
        launcher.size = env_count("OMPI_COMM_WORLD_SIZE", 1);
    } else if (getenv("PMI_SIZE") != NULL) {
        launcher.size = env_count("PMI_SIZE", 1);
    } else if (launcher.step) {
        launcher.size = env_count("SLURM_STEP_NUM_TASKS", env_count("SLURM_NTASKS", 1));
    }
    return launcher;
}

const char *shoal_launcher_cure(const shoal_launcher_t *launcher)
{
    if (launcher->step && !launcher->mpirun) {
        return "launch with `srun --mpi=pmix ...` (`srun --mpi=list` shows whether this Slurm has the plugin)";
    }
    return "launch with Open MPI's mpirun or `srun --mpi=pmix ...`";
}
