/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers through PMIx: the same code under Slurm's plugin and under Open MPI's mpirun. An exchange is put, commit, fence with
 * collection, and a get per rank, under a key that counts the exchanges, since a key cannot be put twice.
 *
 * Where the server tells of processes that ended abnormally, their rank is logged: it is the first line in the log about a
 * rank that died too fast to speak for itself. Slurm's plugin tells nothing; there Slurm itself ends the step.
 */
#include <pmix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/bootstrap_backend.h"

typedef struct {
    shoal_bootstrap_t base;
    pmix_proc_t       self;
    unsigned          nexchanges;
} pmix_bootstrap_t;

static shoal_status_t from_pmix(pmix_status_t status, const char *doing)
{
    if (status == PMIX_SUCCESS) {
        return SHOAL_OK;
    }
    shoal_error("PMIx: %s: %s", doing, PMIx_Error_string(status));
    return status == PMIX_ERR_LOST_CONNECTION || status == PMIX_ERR_PROC_ABORTED ? SHOAL_ERR_PEER : SHOAL_ERR_INTERNAL;
}

static void process_ended(size_t handler, pmix_status_t status, const pmix_proc_t *source, pmix_info_t info[], size_t ninfo,
                          pmix_info_t results[], size_t nresults, pmix_event_notification_cbfunc_fn_t done, void *context)
{
    const pmix_proc_t *affected = source;
    (void)handler;
    (void)results;
    (void)nresults;
    for (size_t i = 0; i < ninfo; i++) {
        if (PMIX_CHECK_KEY(&info[i], PMIX_EVENT_AFFECTED_PROC) && info[i].value.type == PMIX_PROC) {
            affected = info[i].value.data.proc;
        }
    }
    shoal_error("rank %u ended abnormally (%s)", (unsigned)affected->rank, PMIx_Error_string(status));
    if (done != NULL) {
        done(PMIX_EVENT_ACTION_COMPLETE, NULL, 0, NULL, NULL, context);
    }
}

static void register_handler(void)
{
    pmix_status_t ends[] = {PMIX_ERR_PROC_ABORTED, PMIX_ERR_PROC_TERM_WO_SYNC, PMIX_ERR_PROC_ABORTING};
    PMIx_Register_event_handler(ends, sizeof(ends) / sizeof(ends[0]), NULL, 0, process_ended, NULL, NULL);
}

static shoal_status_t job_size(const pmix_proc_t *self, int *size_p)
{
    pmix_proc_t   job   = *self;
    pmix_value_t *value = NULL;
    job.rank            = PMIX_RANK_WILDCARD;
    SHOAL_TRY(from_pmix(PMIx_Get(&job, PMIX_JOB_SIZE, NULL, 0, &value), "asking for the size of the job"));
    *size_p = (int)value->data.uint32;
    PMIX_VALUE_RELEASE(value);
    return SHOAL_OK;
}

static const char *method_name(void)
{
    shoal_launcher_t launcher = shoal_launcher_from_environment();
    return launcher.mpirun ? "pmix (mpirun)" : launcher.step ? "pmix (srun)" : "pmix";
}

static shoal_status_t pmix_open(shoal_bootstrap_t **bootstrap_p)
{
    shoal_launcher_t launcher = shoal_launcher_from_environment();
    if (!launcher.pmix) {
        shoal_error("no PMIx server offers itself (PMIX_NAMESPACE is not set); %s", shoal_launcher_cure(&launcher));
        return SHOAL_ERR_CONFIG;
    }
    pmix_bootstrap_t *pmix = calloc(1, sizeof(*pmix));
    if (pmix == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    pmix_status_t started = PMIx_Init(&pmix->self, NULL, 0);
    if (started != PMIX_SUCCESS) {
        shoal_error("PMIx: cannot reach the launcher's server: %s; %s", PMIx_Error_string(started),
                    shoal_launcher_cure(&launcher));
        free(pmix);
        return SHOAL_ERR_CONFIG;
    }
    shoal_status_t status = job_size(&pmix->self, &pmix->base.size);
    if (status != SHOAL_OK) {
        PMIx_Finalize(NULL, 0);
        free(pmix);
        return status;
    }
    register_handler();
    pmix->base.method = method_name();
    pmix->base.rank   = (int)pmix->self.rank;
    *bootstrap_p      = &pmix->base;
    return SHOAL_OK;
}

static void pmix_close(shoal_bootstrap_t *bootstrap)
{
    PMIx_Finalize(NULL, 0);
    free(bootstrap);
}

static shoal_status_t offer(const char *key, const void *mine, size_t nbytes)
{
    pmix_value_t value = {.type = PMIX_BYTE_OBJECT};
    value.data.bo      = (pmix_byte_object_t){.bytes = (char *)(uintptr_t)mine, .size = nbytes};
    SHOAL_TRY(from_pmix(PMIx_Put(PMIX_GLOBAL, key, &value), "offering"));
    return from_pmix(PMIx_Commit(), "committing");
}

static shoal_status_t fence(const pmix_proc_t *self)
{
    pmix_proc_t job     = *self;
    bool        collect = true;
    pmix_info_t info;
    job.rank = PMIX_RANK_WILDCARD;
    PMIX_INFO_CONSTRUCT(&info);
    PMIX_INFO_LOAD(&info, PMIX_COLLECT_DATA, &collect, PMIX_BOOL);
    shoal_status_t status = from_pmix(PMIx_Fence(&job, 1, &info, 1), "waiting for all ranks");
    PMIX_INFO_DESTRUCT(&info);
    return status;
}

static shoal_status_t fetch(const pmix_proc_t *self, int rank, const char *key, size_t nbytes, void *to_p)
{
    pmix_proc_t   from  = *self;
    pmix_value_t *value = NULL;
    from.rank           = (pmix_rank_t)rank;
    SHOAL_TRY(from_pmix(PMIx_Get(&from, key, NULL, 0, &value), "fetching"));
    bool fits = value->type == PMIX_BYTE_OBJECT && value->data.bo.size == nbytes;
    if (fits) {
        memcpy(to_p, value->data.bo.bytes, nbytes);
    } else {
        shoal_error("PMIx: rank %d offered something of another size than this rank", rank);
    }
    PMIX_VALUE_RELEASE(value);
    return fits ? SHOAL_OK : SHOAL_ERR_INTERNAL;
}

static shoal_status_t pmix_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p)
{
    pmix_bootstrap_t *pmix = (pmix_bootstrap_t *)bootstrap;
    char              key[32];
    snprintf(key, sizeof(key), "shoal.%u", pmix->nexchanges++);
    if (nbytes > 0) {
        SHOAL_TRY(offer(key, mine, nbytes));
    }
    SHOAL_TRY(fence(&pmix->self));
    for (int r = 0; r < bootstrap->size && nbytes > 0; r++) {
        SHOAL_TRY(fetch(&pmix->self, r, key, nbytes, (char *)all_p + (size_t)r * nbytes));
    }
    return SHOAL_OK;
}

static void pmix_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_error("ending the job: %s", message);
    PMIx_Abort(exit_code, message, NULL, 0);
}

const shoal_bootstrap_ops_t shoal_bootstrap_pmix = {
    .name     = "pmix",
    .open     = pmix_open,
    .close    = pmix_close,
    .exchange = pmix_exchange,
    .abort    = pmix_abort,
};
