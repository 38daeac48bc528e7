/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers through PMIx: the same code under Slurm's plugin and under Open MPI's mpirun. An exchange
 * is put, commit, fence with collection, and a get per rank, under a key that counts the exchanges,
 * since a key cannot be put twice.
 *
 * Every exchange has a deadline: the fence is waited for here, and when it does not end the
 * contributions are asked for one by one, which shows whose there are.
 *
 * Where the server tells of processes that ended abnormally, their rank is logged: it is the first
 * line in the log about a rank that died too fast to speak for itself; and it is kept in `lost`.
 * Slurm's plugin tells nothing; there Slurm itself ends the step.
 */
#include <pmix.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "base/watchdog.h"
#include "runtime/bootstrap/backend.h"

/* How long contributions may take to be found when not all ranks have come. */
static const double search_s = 1.5;

/* How much later the others leave than the rank that speaks for all, which must not be ended by
 * them before it has. */
enum { SPEAKER_US = 500000 };

typedef struct {
    shoal_bootstrap_t base;
    pmix_proc_t       self;
    unsigned          nexchanges;
} pmix_bootstrap_t;

/* Who learns of processes that ended; set while the handler may run. */
static _Atomic(pmix_bootstrap_t *) told;

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
    pmix_bootstrap_t *pmix = atomic_load(&told);
    if (pmix != NULL && PMIX_CHECK_NSPACE(affected->nspace, pmix->self.nspace) &&
        affected->rank < (pmix_rank_t)pmix->base.size) {
        atomic_store(&pmix->base.lost, 1 + (int)affected->rank);
    }
    if (done != NULL) {
        done(PMIX_EVENT_ACTION_COMPLETE, NULL, 0, NULL, NULL, context);
    }
}

static void register_handler(void)
{
    pmix_status_t ends[] = {
        PMIX_ERR_PROC_ABORTED,
        PMIX_ERR_PROC_TERM_WO_SYNC,
        PMIX_ERR_PROC_ABORTING,
#ifdef PMIX_ERR_PROC_ABORTED_BY_SIG /* PMIx 4: what PRRTE sends of a rank that was killed */
        PMIX_ERR_PROC_ABORTED_BY_SIG,
#endif
    };
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

static void server_is_silent(void *argument)
{
    (void)argument;
    shoal_error("PMIx: the launcher's server has not answered for %.0f s",
                shoal_bootstrap_first_patience());
    _exit(shoal_status_exit_code(SHOAL_ERR_PEER));
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
    shoal_watchdog_t *watchdog =
        shoal_watchdog_start(shoal_bootstrap_first_patience(), server_is_silent, NULL);
    pmix_status_t     started  = PMIx_Init(&pmix->self, NULL, 0);
    shoal_watchdog_stop(watchdog);
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
    atomic_store(&told, pmix);
    register_handler();
    pmix->base.method = method_name();
    pmix->base.rank   = (int)pmix->self.rank;
    *bootstrap_p      = &pmix->base;
    return SHOAL_OK;
}

static void pmix_close(shoal_bootstrap_t *bootstrap)
{
    atomic_store(&told, NULL);
    PMIx_Finalize(NULL, 0); /* joins the thread of the handler */
    free(bootstrap);
}

static shoal_status_t offer(const char *key, const void *mine, size_t nbytes)
{
    pmix_value_t value = {.type = PMIX_BYTE_OBJECT};
    value.data.bo      = (pmix_byte_object_t){.bytes = (char *)(uintptr_t)mine, .size = nbytes};
    SHOAL_TRY(from_pmix(PMIx_Put(PMIX_GLOBAL, key, &value), "offering"));
    return from_pmix(PMIx_Commit(), "committing");
}

/*
 * An operation that PMIx completes from its own thread, some time or never: on the heap, and given
 * up by its starter when that does not wait any longer, for PMIx may still come to write to it.
 */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t  change;
    size_t          ndone;
    pmix_status_t   status;
    pmix_proc_t     job; /* what a fence was given */
    pmix_info_t     info;
    bool           *found; /* (size) of a search for missing ranks */
} pending_t;

typedef struct {
    pending_t *pending;
    int        rank;
} search_t;

static pending_t *pending_create(int size)
{
    pending_t         *pending = calloc(1, sizeof(*pending));
    pthread_condattr_t monotonic;
    if (pending == NULL ||
        (pending->found = calloc((size_t)size, sizeof(*pending->found))) == NULL) {
        free(pending);
        return NULL;
    }
    pthread_mutex_init(&pending->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pending->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return pending;
}

static void pending_free(pending_t *pending)
{
    pthread_cond_destroy(&pending->change);
    pthread_mutex_destroy(&pending->mutex);
    free(pending->found);
    free(pending);
}

/* Whether n are done within so many seconds. */
static bool pending_wait(pending_t *pending, size_t n, double seconds)
{
    struct timespec until;
    int             rc    = 0;
    int64_t         at_ns = shoal_time_ns() + (int64_t)(seconds * 1e9);
    until.tv_sec          = (time_t)(at_ns / 1000000000);
    until.tv_nsec         = (long)(at_ns % 1000000000);
    pthread_mutex_lock(&pending->mutex);
    while (pending->ndone < n && rc == 0) {
        rc = pthread_cond_timedwait(&pending->change, &pending->mutex, &until);
    }
    bool done = pending->ndone >= n;
    pthread_mutex_unlock(&pending->mutex);
    return done;
}

static void note_done(pending_t *pending, pmix_status_t status, int found)
{
    pthread_mutex_lock(&pending->mutex);
    pending->ndone++;
    pending->status = status;
    if (found >= 0) {
        pending->found[found] = true;
    }
    pthread_cond_signal(&pending->change);
    pthread_mutex_unlock(&pending->mutex);
}

static void fence_done(pmix_status_t status, void *pending)
{
    note_done(pending, status, -1);
}

static void search_done(pmix_status_t status, pmix_value_t *value, void *argument)
{
    search_t *search = argument;
    (void)value; /* PMIx's */
    note_done(search->pending, status, status == PMIX_SUCCESS ? search->rank : -1);
    free(search);
}

/*
 * Which ranks have come to this exchange: those whose contribution can be had, though the fence is
 * not complete. Sets *found_p (size), which stays PMIx's.
 */
static shoal_status_t search_ranks(const pmix_bootstrap_t *pmix, const char *key,
                                   const bool **found_p)
{
    int        size    = pmix->base.size;
    pending_t *pending = pending_create(size);
    if (pending == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    pending->found[pmix->base.rank] = true;
    for (int r = 0; r < size; r++) {
        pmix_proc_t from   = pmix->self;
        search_t   *search = r != pmix->base.rank ? malloc(sizeof(*search)) : NULL;
        from.rank          = (pmix_rank_t)r;
        if (search != NULL) {
            *search = (search_t){pending, r};
            if (PMIx_Get_nb(&from, key, NULL, 0, search_done, search) != PMIX_SUCCESS) {
                free(search);
            }
        }
    }
    (void)pending_wait(pending, (size_t)size - 1, search_s);
    *found_p = pending->found;
    return SHOAL_OK;
}

/* One rank speaks for all: the first of those that are here. */
static void name_missing(const pmix_bootstrap_t *pmix, const char *key, double waited_s)
{
    const bool *found;
    char        list[256] = "";
    size_t      used      = 0;
    int         first     = 0;
    if (search_ranks(pmix, key, &found) != SHOAL_OK) {
        return;
    }
    while (!found[first]) {
        first++;
    }
    for (int r = 0; r < pmix->base.size && used < sizeof(list); r++) {
        if (!found[r]) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%srank %d",
                                     used > 0 ? ", " : "", r);
        }
    }
    if (first != pmix->base.rank) {
        usleep(SPEAKER_US);
    } else {
        shoal_error("at the stage \"%s\": waited %.0f s in vain for %s", pmix->base.stage, waited_s,
                    used > 0 ? list : "the launcher, whose fence does not end");
    }
}

/* PMIX_TIMEOUT is a wish that servers may ignore, and Slurm's does: the deadline is kept here. */
static shoal_status_t fence(const pmix_bootstrap_t *pmix, const char *key)
{
    double     patience_s = pmix->base.patience_s + SHOAL_BOOTSTRAP_MARGIN_S;
    pending_t *pending    = pending_create(pmix->base.size);
    bool       collect    = true;
    if (pending == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    pending->job      = pmix->self;
    pending->job.rank = PMIX_RANK_WILDCARD;
    PMIX_INFO_CONSTRUCT(&pending->info);
    PMIX_INFO_LOAD(&pending->info, PMIX_COLLECT_DATA, &collect, PMIX_BOOL);
    pmix_status_t  begun  = PMIx_Fence_nb(&pending->job, 1, &pending->info, 1, fence_done, pending);
    shoal_status_t status = from_pmix(begun, "waiting for all ranks");
    if (status == SHOAL_OK && !pending_wait(pending, 1, patience_s)) {
        name_missing(pmix, key, patience_s);
        return SHOAL_ERR_PEER; /* `pending` stays PMIx's */
    }
    if (status == SHOAL_OK) {
        status = from_pmix(pending->status, "waiting for all ranks");
    }
    PMIX_INFO_DESTRUCT(&pending->info);
    pending_free(pending);
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
    /* Never nothing: the contribution says, too, that this rank has come. */
    SHOAL_TRY(offer(key, nbytes > 0 ? mine : "", nbytes > 0 ? nbytes : 1));
    SHOAL_TRY(fence(pmix, key));
    for (int r = 0; r < bootstrap->size && nbytes > 0; r++) {
        SHOAL_TRY(fetch(&pmix->self, r, key, nbytes, (char *)all_p + (size_t)r * nbytes));
    }
    return SHOAL_OK;
}

static void pmix_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_error("ending the job: %s", message);
    shoal_bootstrap_leave_soon(exit_code);
    PMIx_Abort(exit_code, message, NULL, 0);
}

const shoal_bootstrap_ops_t shoal_bootstrap_pmix = {
    .name     = "pmix",
    .open     = pmix_open,
    .close    = pmix_close,
    .exchange = pmix_exchange,
    .abort    = pmix_abort,
};
