/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NCCL between GPUs, one rank per process. A group is a communicator of its own, made without
 * blocking so that a peer that never comes ends in an error and not in silence; collectives are
 * enqueued on the device's queue, and `progress` asks each communicator whether it has met an error
 * since.
 *
 * The wire type is the sum's type here: NCCL adds bf16 in bf16.
 *
 * Memory is of NCCL's allocator, and on one host with a GPU per rank a symmetric window of each
 * communicator, from and to which it moves data without copies of its own; with its zero CTA policy
 * the copy engines move gathers then, which need no multiprocessor.
 */
#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "collectives/backends.h"

enum { MAX_COMMS = 16, POLL_US = 50, NAP_US = 100, CAUSE_NBYTES = 256 };

/*
 * Channels, proxies and registrations of one communicator take 0.5 to 1.5 GB, by the number of
 * GPUs, their links and the version.
 */
static const size_t comm_nbytes = (size_t)1 << 30;

typedef struct {
    shoal_comm_t base;
    ncclComm_t   nccl;   /* NULL: aborted */
    ncclWindow_t window; /* NULL: none */
    int          size, rank, root; /* root: the rank of the job that makes the id */
    int          tag;
    char         name[32]; /* NCCL keeps its address */
    shoal_comm_use_t use;
} nccl_comm_t;

typedef struct {
    shoal_transport_t        base;
    const shoal_peers_t     *peers;
    shoal_transport_config_t config;
    bool                     windows; /* to be registered */
    bool                     ordered; /* settle_order was called */
    nccl_comm_t             *comms[MAX_COMMS]; /* NULL where one was destroyed */
    bool                     failed;           /* communicators can only be aborted */
} nccl_transport_t;

static nccl_transport_t *nccl_of(shoal_transport_t *transport)
{
    return (nccl_transport_t *)transport;
}

/*
 * NCCL has one result for all of CUDA's errors. Its last words tell which: CUDA's own, or those of
 * NCCL's allocators.
 */
static bool is_want_of_memory(ncclResult_t result, const char *last_words)
{
    return result == ncclUnhandledCudaError && last_words != NULL &&
           (strstr(last_words, "out of memory") != NULL ||
            strstr(last_words, "Failed to CUDA") != NULL);
}

/*
 * What is to be said of a failed call: a communicator tells more of its own errors than the call
 * that met them.
 */
static void describe(char text[CAUSE_NBYTES], ncclResult_t result, ncclComm_t comm,
                     const char *call)
{
    const char *more = ncclGetLastError(comm);
    snprintf(text, CAUSE_NBYTES, "%s: %s%s%s", call, ncclGetErrorString(result),
             more != NULL && more[0] != '\0' ? ": " : "", more != NULL ? more : "");
}

/* ncclInProgress is no error. */
static shoal_status_t check(nccl_transport_t *transport, ncclResult_t result, ncclComm_t comm, const char *call)
{
    char cause[CAUSE_NBYTES];
    if (result == ncclSuccess || result == ncclInProgress) {
        return SHOAL_OK;
    }
    transport->failed = true;
    describe(cause, result, comm, call);
    shoal_error("nccl: %s", cause);
    if (is_want_of_memory(result, ncclGetLastError(comm))) {
        return SHOAL_ERR_NO_MEMORY;
    }
    return result == ncclRemoteError || result == ncclSystemError ? SHOAL_ERR_PEER : SHOAL_ERR_INTERNAL;
}

/*
 * A communicator may still be at work on the last call, and must be left alone until it is done:
 * the state that it ends in, or ncclInProgress if the other ranks have not come within patience_s.
 * An ordinary collective takes some tens of microseconds, in a thread of NCCL's; so the first while
 * is spent asking, and only a longer wait, for other ranks, sleeps.
 */
static ncclResult_t await(const nccl_transport_t *transport, const nccl_comm_t *comm)
{
    int64_t      start = shoal_time_ns();
    ncclResult_t state = ncclInProgress;
    for (;;) {
        ncclResult_t asked     = ncclCommGetAsyncError(comm->nccl, &state);
        double       waited_ms = shoal_ms_since(start);
        if (asked != ncclSuccess || state != ncclInProgress ||
            waited_ms * 1e-3 > transport->config.patience_s) {
            return asked != ncclSuccess ? asked : state;
        }
        if (waited_ms * 1e3 < POLL_US) {
            sched_yield();
        } else {
            usleep(NAP_US);
        }
    }
}

static shoal_status_t settle(nccl_transport_t *transport, nccl_comm_t *comm, const char *call)
{
    ncclResult_t state = await(transport, comm);
    if (state == ncclInProgress) {
        transport->failed = true;
        shoal_error("nccl: %s: waited %.0f s for the other ranks", call,
                    transport->config.patience_s);
        return SHOAL_ERR_PEER;
    }
    return check(transport, state, comm->nccl, call);
}

static bool shares_gpu(void)
{
    const char *share = getenv("SHOAL_SHARE_GPU");
    return share != NULL && strcmp(share, "1") == 0;
}

/*
 * NCCL refuses two ranks on one GPU, unless it takes them for ranks of different hosts; then they talk through sockets. For tests on a
 * machine with one GPU: SHOAL_SHARE_GPU=1. What the user has set stays.
 */
static void pose_as_a_host(int rank)
{
    static const char *const settings[][2] = {{"NCCL_NET", "Socket"},      {"NCCL_SOCKET_IFNAME", "lo"},  {"NCCL_P2P_DISABLE", "1"},
                                              {"NCCL_SHM_DISABLE", "1"},   {"NCCL_NVLS_ENABLE", "0"},     {"NCCL_MNNVL_ENABLE", "0"},
                                              {"NCCL_IB_DISABLE", "1"}};
    char name[32];
    if (!shares_gpu()) {
        return;
    }
    snprintf(name, sizeof(name), "shoal-rank-%d", rank);
    setenv("NCCL_HOSTID", name, 0);
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        setenv(settings[i][0], settings[i][1], 0);
    }
}

static void say_that_bits_may_differ(const char *name, const char *value)
{
    shoal_warn("nccl: %s=%s stays as it is set: where switches add, sums may differ from call to "
               "call, run.deterministic or not",
               name, value);
}

/*
 * What switches add up (NVLS, its multimem loads in symmetric kernels, CollNet) comes in no order
 * that NCCL or CUDA promises. Everything else adds in the order of its ring, its tree or its ranks.
 * NCCL_NVLS_ENABLE covers all of the first, for the whole process; CollNet is off unless asked for.
 * Called after the first ncclMemAlloc, with which NCCL has put its configuration files into the
 * environment.
 */
static void settle_order(const nccl_transport_t *transport)
{
    const char *nvls = getenv("NCCL_NVLS_ENABLE"), *collnet = getenv("NCCL_COLLNET_ENABLE");
    bool        speaks = transport->peers->rank == 0;
    if (!transport->config.deterministic) {
        return;
    }
    if (nvls == NULL) {
        setenv("NCCL_NVLS_ENABLE", "0", 0);
        if (speaks) {
            shoal_info("nccl: NCCL_NVLS_ENABLE=0, so that sums come out alike in every run "
                       "(run.deterministic)");
        }
    } else if (speaks && strcmp(nvls, "0") != 0) {
        say_that_bits_may_differ("NCCL_NVLS_ENABLE", nvls);
    }
    if (speaks && collnet != NULL && strcmp(collnet, "0") != 0) {
        say_that_bits_may_differ("NCCL_COLLNET_ENABLE", collnet);
    }
}

static bool wants_windows(const shoal_peers_t *peers, shoal_windows_t windows)
{
    return windows == SHOAL_WINDOWS_ON || (windows == SHOAL_WINDOWS_AUTO && peers->local_size == peers->size && !shares_gpu());
}

static shoal_status_t nccl_open(const shoal_peers_t *peers, const shoal_transport_config_t *config, shoal_transport_t **transport_p)
{
    nccl_transport_t *transport = calloc(1, sizeof(*transport));
    if (transport == NULL) {
        shoal_error("nccl: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    transport->base.ops = &shoal_transport_nccl;
    transport->peers    = peers;
    transport->config   = *config;
    transport->windows  = wants_windows(peers, config->windows);
    pose_as_a_host(peers->rank);
    *transport_p        = &transport->base;
    return SHOAL_OK;
}

static void nccl_close(shoal_transport_t *transport)
{
    free(transport);
}

static size_t nccl_staging_nbytes(const shoal_coll_t *coll, int size)
{
    (void)coll;
    (void)size;
    return 0;
}

/* The group's first rank makes the id; all ranks of the job learn it. */
static shoal_status_t agree_on_id(nccl_transport_t *transport, int root, ncclUniqueId *id_p)
{
    const shoal_peers_t *peers = transport->peers;
    ncclUniqueId         mine, *all = malloc((size_t)peers->size * sizeof(*all));
    shoal_status_t       status = all != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
    memset(&mine, 0, sizeof(mine));
    if (status == SHOAL_OK && root == peers->rank) {
        status = check(transport, ncclGetUniqueId(&mine), NULL, "ncclGetUniqueId");
    }
    if (all != NULL) { /* also after an error: the others wait */
        shoal_status_t exchanged = peers->exchange(peers->context, &mine, sizeof(mine), all);
        status                   = status != SHOAL_OK ? status : exchanged;
        *id_p                    = all[root];
    }
    free(all);
    return status;
}

/* What is left undefined NCCL chooses, or takes from its own environment variables. */
static void configure(const nccl_transport_t *transport, shoal_comm_use_t use, ncclConfig_t *config)
{
    static const int policies[] = {[SHOAL_CTA_DEFAULT]    = NCCL_CTA_POLICY_DEFAULT,
                                   [SHOAL_CTA_EFFICIENCY] = NCCL_CTA_POLICY_EFFICIENCY,
                                   [SHOAL_CTA_ZERO]       = NCCL_CTA_POLICY_ZERO};
    shoal_cta_policy_t policy = transport->config.gather_policy;
    if (transport->config.max_ctas[use] > 0) {
        config->maxCTAs = transport->config.max_ctas[use];
    }
    if (use == SHOAL_COMM_GATHER && policy != SHOAL_CTA_AUTO) {
        config->CTAPolicy = policies[policy];
    }
}

static shoal_status_t init_rank(nccl_transport_t *transport, nccl_comm_t *comm)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    SHOAL_TRY(agree_on_id(transport, comm->root, &id));
    snprintf(comm->name, sizeof(comm->name), "shoal.%d", comm->tag);
    config.blocking = 0;
    config.commName = comm->name;
    configure(transport, comm->use, &config);
    ncclResult_t result = ncclCommInitRankConfig(&comm->nccl, comm->size, id, comm->rank, &config);
    SHOAL_TRY(check(transport, result, NULL, "ncclCommInitRankConfig"));
    return settle(transport, comm, "ncclCommInitRankConfig");
}

static void drop_window(nccl_transport_t *transport, nccl_comm_t *comm)
{
    if (check(transport, ncclCommWindowDeregister(comm->nccl, comm->window), comm->nccl,
              "ncclCommWindowDeregister") == SHOAL_OK) {
        settle(transport, comm, "ncclCommWindowDeregister");
    }
    comm->window = NULL;
}

/*
 * Aborts every communicator at once, in a group. One by one would hang: an abort waits until the
 * collectives that a recording holds are given back, which is when the recording's last run has
 * ended, and that run may hold kernels of another communicator which spin until theirs is aborted
 * too.
 */
static void nccl_abort(shoal_transport_t *base)
{
    nccl_transport_t *transport = nccl_of(base);
    transport->failed           = true;
    ncclGroupStart();
    for (int slot = 0; slot < MAX_COMMS; slot++) {
        if (transport->comms[slot] != NULL && transport->comms[slot]->nccl != NULL) {
            ncclCommAbort(transport->comms[slot]->nccl);
            transport->comms[slot]->nccl = NULL;
        }
    }
    ncclGroupEnd();
}

/* True, or the transport has failed. */
static bool finalize(nccl_transport_t *transport, nccl_comm_t *comm)
{
    if (comm->window != NULL) {
        drop_window(transport, comm);
    }
    return !transport->failed &&
           check(transport, ncclCommFinalize(comm->nccl), comm->nccl, "ncclCommFinalize") ==
               SHOAL_OK &&
           settle(transport, comm, "ncclCommFinalize") == SHOAL_OK;
}

static void nccl_comm_destroy(shoal_comm_t *base)
{
    nccl_comm_t      *comm      = (nccl_comm_t *)base;
    nccl_transport_t *transport = nccl_of(base->transport);
    if (!transport->failed && finalize(transport, comm)) {
        ncclCommDestroy(comm->nccl);
    } else {
        nccl_abort(base->transport);
    }
    for (int slot = 0; slot < MAX_COMMS; slot++) {
        transport->comms[slot] = transport->comms[slot] == comm ? NULL : transport->comms[slot];
    }
    free(comm);
}

static shoal_status_t nccl_comm_create(shoal_transport_t *base, const shoal_group_t *group, shoal_comm_t **comm_p)
{
    nccl_transport_t *transport = nccl_of(base);
    int               slot      = 0;
    while (slot < MAX_COMMS && transport->comms[slot] != NULL) {
        slot++;
    }
    if (group->size != transport->peers->size || slot == MAX_COMMS) {
        shoal_error("nccl: groups are of all ranks, and at most %d", MAX_COMMS);
        return SHOAL_ERR_UNSUPPORTED;
    }
    nccl_comm_t *comm = calloc(1, sizeof(*comm));
    if (comm == NULL) {
        shoal_error("nccl: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    *comm = (nccl_comm_t){.base = {base},
                          .size = group->size,
                          .root = group->ranks[0],
                          .tag  = group->tag,
                          .use  = group->use};
    while (group->ranks[comm->rank] != transport->peers->rank) {
        comm->rank++;
    }
    transport->comms[slot] = comm;
    if (!transport->ordered) {
        settle_order(transport);
        transport->ordered = true;
    }
    shoal_status_t status = init_rank(transport, comm);
    if (status != SHOAL_OK) {
        transport->failed = true;
        nccl_comm_destroy(&comm->base);
        return status;
    }
    *comm_p = &comm->base;
    return SHOAL_OK;
}

/*
 * NCCL rounds the size up to the granularity of the GPU's physical memory, 2 MiB, or of multicast objects, which may be 512 MiB, as
 * its version will have it; the plan does not count that. Its only word for want of memory is that CUDA refused.
 */
static shoal_status_t nccl_alloc(shoal_transport_t *base, size_t nbytes, void **memory_p)
{
    size_t       unused, total;
    ncclResult_t result = ncclMemAlloc(memory_p, nbytes);
    if (result == ncclUnhandledCudaError && cudaMemGetInfo(&unused, &total) == cudaSuccess) {
        return SHOAL_ERR_NO_MEMORY;
    }
    return check(nccl_of(base), result, NULL, "ncclMemAlloc");
}

static void nccl_free(shoal_transport_t *base, void *memory)
{
    check(nccl_of(base), ncclMemFree(memory), NULL, "ncclMemFree");
}

/* Where GPUs do not reach each other's memory NCCL answers NULL, or, as its version will have it, registers with this rank alone. */
static ncclResult_t register_window(nccl_transport_t *transport, nccl_comm_t *comm, void *memory,
                                    size_t nbytes)
{
    ncclResult_t result = ncclCommWindowRegister(comm->nccl, memory, nbytes, &comm->window,
                                                 NCCL_WIN_COLL_SYMMETRIC);
    return result == ncclSuccess || result == ncclInProgress ? await(transport, comm) : result;
}

/* What a rank's registration came to. */
typedef struct {
    ncclResult_t result; /* ncclInProgress: it has waited in vain */
    char         cause[CAUSE_NBYTES];
} verdict_t;

/* The first rank that failed by itself, or else the first that met another one's end, or -1. */
static int first_to_fail(const verdict_t *verdicts, int nranks)
{
    for (int any = 0; any < 2; any++) {
        for (int r = 0; r < nranks; r++) {
            ncclResult_t result = verdicts[r].result;
            bool         own    = result != ncclRemoteError && result != ncclInProgress;
            if (result != ncclSuccess && (own || any)) {
                return r;
            }
        }
    }
    return -1;
}

/*
 * All ranks learn whether all have a window. One that has not aborts its communicator first: others
 * may wait for it in theirs.
 */
static shoal_status_t agree_on_windows(nccl_transport_t *transport, nccl_comm_t *comm,
                                       ncclResult_t result, bool *all_p)
{
    const shoal_peers_t *peers    = transport->peers;
    verdict_t            mine     = {.result = result};
    verdict_t           *verdicts = malloc((size_t)peers->size * sizeof(*verdicts));
    if (verdicts == NULL) {
        shoal_error("nccl: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    if (result != ncclSuccess) {
        describe(mine.cause, result, comm->nccl, "ncclCommWindowRegister");
        ncclCommAbort(comm->nccl);
        comm->nccl = NULL;
    }
    shoal_status_t status = peers->exchange(peers->context, &mine, sizeof(mine), verdicts);
    int            failed = status == SHOAL_OK ? first_to_fail(verdicts, peers->size) : -1;
    if (failed >= 0 && peers->rank == 0) {
        shoal_warn("nccl: no symmetric windows: rank %d: %s; all ranks go on as with "
                   "parallel.windows = off",
                   failed, verdicts[failed].cause);
    }
    *all_p = failed < 0;
    free(verdicts);
    return status;
}

/*
 * A communicator whose registration has failed on some rank is of no use any more: another one
 * takes its place.
 */
static shoal_status_t go_without_windows(nccl_transport_t *transport, nccl_comm_t *comm)
{
    transport->windows = false;
    for (int slot = 0; slot < MAX_COMMS; slot++) {
        if (transport->comms[slot] != NULL && transport->comms[slot]->nccl != NULL &&
            transport->comms[slot]->window != NULL) {
            drop_window(transport, transport->comms[slot]);
        }
    }
    if (comm->nccl != NULL) {
        ncclCommAbort(comm->nccl);
    }
    comm->nccl   = NULL;
    comm->window = NULL;
    shoal_status_t status = init_rank(transport, comm); /* also after an error: the others wait */
    return status == SHOAL_OK && transport->failed ? SHOAL_ERR_INTERNAL : status;
}

static shoal_status_t nccl_attach(shoal_comm_t *base, void *memory, size_t nbytes)
{
    nccl_comm_t      *comm      = (nccl_comm_t *)base;
    nccl_transport_t *transport = nccl_of(base->transport);
    bool              all       = true;
    if (!transport->windows) {
        return SHOAL_OK;
    }
    ncclResult_t result = register_window(transport, comm, memory, nbytes);
    if (transport->config.windows == SHOAL_WINDOWS_ON) {
        SHOAL_TRY(check(transport, result == ncclInProgress ? ncclRemoteError : result, comm->nccl,
                        "ncclCommWindowRegister"));
    } else {
        SHOAL_TRY(agree_on_windows(transport, comm, result, &all));
    }
    if (!all) {
        return go_without_windows(transport, comm);
    }
    if (comm->window != NULL) {
        shoal_trace("nccl: %zu bytes are registered with a communicator", nbytes);
        return SHOAL_OK;
    }
    if (transport->config.windows == SHOAL_WINDOWS_ON) {
        shoal_error("nccl: no symmetric windows between these GPUs; parallel.windows = auto does without");
        return SHOAL_ERR_CONFIG;
    }
    shoal_info("nccl: no symmetric windows between these GPUs: collectives go through NCCL's own buffers");
    return SHOAL_OK;
}

static shoal_status_t nccl_enqueue(shoal_comm_t *base, const shoal_coll_t *coll, void *queue)
{
    nccl_comm_t      *comm      = (nccl_comm_t *)base;
    nccl_transport_t *transport = nccl_of(base->transport);
    ncclDataType_t    type      = coll->dtype == SHOAL_BF16 ? ncclBfloat16 : ncclFloat32;
    cudaStream_t      stream    = queue;
    ncclResult_t      result    = ncclInvalidArgument;
    switch (coll->kind) {
    case SHOAL_COLL_ALL_GATHER: result = ncclAllGather(coll->send, coll->recv, coll->n, type, comm->nccl, stream); break;
    case SHOAL_COLL_REDUCE_SCATTER: result = ncclReduceScatter(coll->send, coll->recv, coll->n, type, ncclSum, comm->nccl, stream); break;
    case SHOAL_COLL_ALL_REDUCE: result = ncclAllReduce(coll->recv, coll->recv, coll->n, type, ncclSum, comm->nccl, stream); break;
    }
    SHOAL_TRY(check(transport, result, comm->nccl, "collective"));
    return result == ncclInProgress ? settle(transport, comm, "collective") : SHOAL_OK;
}

static shoal_status_t nccl_start(shoal_comm_t *comm, const shoal_coll_t *coll)
{
    (void)comm;
    (void)coll;
    shoal_error("nccl: collectives are enqueued, not started");
    return SHOAL_ERR_UNSUPPORTED;
}

static shoal_status_t nccl_test(shoal_comm_t *comm)
{
    (void)comm;
    return SHOAL_ERR_UNSUPPORTED;
}

static shoal_status_t nccl_progress(shoal_transport_t *base, int *moved_p)
{
    nccl_transport_t *transport = nccl_of(base);
    *moved_p                    = 0;
    for (int slot = 0; slot < MAX_COMMS; slot++) {
        ncclResult_t state = ncclSuccess;
        if (transport->comms[slot] != NULL) {
            ncclComm_t nccl = transport->comms[slot]->nccl;
            SHOAL_TRY(check(transport, ncclCommGetAsyncError(nccl, &state), nccl, "ncclCommGetAsyncError"));
            SHOAL_TRY(check(transport, state, nccl, "a peer"));
        }
    }
    return SHOAL_OK;
}

static shoal_status_t nccl_wait(shoal_transport_t *transport, int timeout_ms)
{
    (void)transport;
    usleep(timeout_ms >= 0 && timeout_ms < 1 ? 0 : NAP_US);
    return SHOAL_OK;
}

static void nccl_wake(shoal_transport_t *transport)
{
    (void)transport;
}

static int nccl_waits_for(shoal_comm_t *comm)
{
    (void)comm;
    return -1;
}

const shoal_transport_ops_t shoal_transport_nccl = {
    .name           = "nccl",
    .open           = nccl_open,
    .close          = nccl_close,
    .staging_nbytes = nccl_staging_nbytes,
    .comm_create    = nccl_comm_create,
    .comm_destroy   = nccl_comm_destroy,
    .abort          = nccl_abort,
    .alloc          = nccl_alloc,
    .free           = nccl_free,
    .attach         = nccl_attach,
    .enqueue        = nccl_enqueue,
    .uses_multiprocessors = true,
    .comm_nbytes    = comm_nbytes,
    .recordable     = true,
    .start          = nccl_start,
    .test           = nccl_test,
    .progress       = nccl_progress,
    .wait           = nccl_wait,
    .wake           = nccl_wake,
    .waits_for      = nccl_waits_for,
};
