/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Chooses how the ranks find each other, refuses a launch that would fall apart into worlds of one, and works out which
 * ranks share a host. Hosts are told apart by name and boot id together: names alone repeat in containers, and a boot id
 * alone repeats among containers of one machine that are hosts of their own.
 */
#include "runtime/bootstrap/bootstrap.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "runtime/bootstrap/backend.h"

enum {
    BOOT_ID_NBYTES = 40,
    NAMING_S       = 2, /* how long a rank waits only to have a missing one named */
};

typedef struct {
    char name[SHOAL_HOST_NBYTES];
    char boot_id[BOOT_ID_NBYTES];
} host_id_t;

/* ---- A world of one, outside any launcher ---- */

static shoal_status_t single_open(shoal_bootstrap_t **bootstrap_p)
{
    shoal_bootstrap_t *single = calloc(1, sizeof(*single));
    if (single == NULL) {
        return SHOAL_ERR_NO_MEMORY;
    }
    single->method = "none (one rank)";
    single->size   = 1;
    *bootstrap_p   = single;
    return SHOAL_OK;
}

static void single_close(shoal_bootstrap_t *bootstrap)
{
    free(bootstrap);
}

static shoal_status_t single_exchange(shoal_bootstrap_t *bootstrap, const void *mine, size_t nbytes, void *all_p)
{
    (void)bootstrap;
    memmove(all_p, mine, nbytes);
    return SHOAL_OK;
}

static void single_abort(shoal_bootstrap_t *bootstrap, int exit_code, const char *message)
{
    (void)bootstrap;
    shoal_error("%s", message);
    _exit(exit_code);
}

static const shoal_bootstrap_ops_t bootstrap_single = {
    .name     = "single",
    .open     = single_open,
    .close    = single_close,
    .exchange = single_exchange,
    .abort    = single_abort,
};

/* ---- Choice ---- */

static const shoal_bootstrap_ops_t *const named_backends[] = {
#ifdef SHOAL_HAVE_PMIX
    &shoal_bootstrap_pmix,
#endif
#ifdef SHOAL_HAVE_MPI
    &shoal_bootstrap_mpi,
#endif
    &shoal_bootstrap_local,
    NULL,
};

static const shoal_bootstrap_ops_t *named_backend(const char *name)
{
    for (int i = 0; named_backends[i] != NULL; i++) {
        if (strcmp(named_backends[i]->name, name) == 0) {
            return named_backends[i];
        }
    }
    return NULL;
}

static const shoal_bootstrap_ops_t *automatic_backend(const shoal_launcher_t *launcher)
{
    if (shoal_bootstrap_is_local_rank()) {
        return &shoal_bootstrap_local;
    }
    if (launcher->pmix && named_backend("pmix") != NULL) {
        return named_backend("pmix");
    }
    if ((launcher->mpirun || launcher->pmi || launcher->pmix) && named_backend("mpi") != NULL) {
        return named_backend("mpi");
    }
    return &bootstrap_single;
}

static shoal_status_t choose_backend(const char *name, const shoal_launcher_t *launcher, const shoal_bootstrap_ops_t **ops_p)
{
    if (strcmp(name, "auto") == 0) {
        *ops_p = automatic_backend(launcher);
        return SHOAL_OK;
    }
    *ops_p = named_backend(name);
    if (*ops_p != NULL) {
        return SHOAL_OK;
    }
    shoal_error("bootstrap \"%s\" is not in this build; it has: auto%s%s local", name,
                named_backend("pmix") != NULL ? " pmix" : "", named_backend("mpi") != NULL ? " mpi" : "");
    return SHOAL_ERR_CONFIG;
}

static shoal_status_t check_not_alone(const shoal_bootstrap_t *bootstrap, const shoal_launcher_t *launcher)
{
    if (bootstrap->ops == &shoal_bootstrap_local || bootstrap->size > 1 || launcher->size == 1) {
        return SHOAL_OK;
    }
    shoal_error("the launcher started %d tasks, but bootstrap %s finds one: each would train alone; %s", launcher->size,
                bootstrap->method, shoal_launcher_cure(launcher));
    return SHOAL_ERR_CONFIG;
}

/* ---- Hosts ---- */

static host_id_t this_host(void)
{
    host_id_t id = {0};
    if (gethostname(id.name, sizeof(id.name) - 1) != 0) {
        strcpy(id.name, "localhost");
    }
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t nread = read(fd, id.boot_id, sizeof(id.boot_id) - 1);
        (void)nread; /* Without a boot id names alone decide. */
        close(fd);
    }
    return id;
}

static bool same_host(const host_id_t *a, const host_id_t *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* The lowest rank on the host of `rank`. */
static int first_of_host(const host_id_t *ids, int rank)
{
    int first = 0;
    while (!same_host(&ids[first], &ids[rank])) {
        first++;
    }
    return first;
}

/* Sets everything about hosts from the identities (size) of all ranks. */
static void number_hosts(shoal_bootstrap_t *b, const host_id_t *ids)
{
    int my_first = first_of_host(ids, b->rank);
    for (int r = 0; r < b->size; r++) {
        int first = first_of_host(ids, r);
        memcpy(b->hosts[r], ids[r].name, SHOAL_HOST_NBYTES);
        for (int q = first; q < r; q++) {
            b->local_ranks[r] += same_host(&ids[q], &ids[r]);
        }
        b->nnodes += first == r;
        b->node += first == r && r < my_first;
        b->local_size += first == my_first;
    }
    b->local_rank = b->local_ranks[b->rank];
}

static shoal_status_t find_hosts(shoal_bootstrap_t *b)
{
    host_id_t  mine = this_host();
    host_id_t *ids  = calloc((size_t)b->size, sizeof(*ids));
    b->hosts        = calloc((size_t)b->size, sizeof(*b->hosts));
    b->local_ranks  = calloc((size_t)b->size, sizeof(*b->local_ranks));
    if (ids == NULL || b->hosts == NULL || b->local_ranks == NULL) {
        free(ids);
        return SHOAL_ERR_NO_MEMORY;
    }
    memcpy(b->host, mine.name, SHOAL_HOST_NBYTES);
    shoal_status_t status = b->ops->exchange(b, &mine, sizeof(mine), ids);
    if (status == SHOAL_OK) {
        number_hosts(b, ids);
    }
    free(ids);
    return status;
}

/* ---- The interface ---- */

void shoal_bootstrap_hurry(shoal_bootstrap_t *bootstrap, shoal_status_t status)
{
    if (status == SHOAL_ERR_PEER && bootstrap->patience_s > NAMING_S) {
        bootstrap->patience_s = NAMING_S;
    }
}

shoal_status_t shoal_bootstrap_open(const char *name, shoal_bootstrap_t **bootstrap_p)
{
    shoal_launcher_t             launcher = shoal_launcher_from_environment();
    const shoal_bootstrap_ops_t *ops      = NULL;
    shoal_bootstrap_t           *b        = NULL;
    SHOAL_TRY(choose_backend(name, &launcher, &ops));
    SHOAL_TRY(ops->open(&b));
    b->ops        = ops;
    b->patience_s = shoal_bootstrap_first_patience();
    b->stage      = "the ranks finding each other";

    shoal_status_t status = check_not_alone(b, &launcher);
    if (status == SHOAL_OK) {
        status = find_hosts(b);
    }
    if (status == SHOAL_ERR_PEER) {
        /* An orderly end would wait for the missing rank as well, which only the launcher can end.
         */
        b->ops->abort(b, shoal_status_exit_code(status), shoal_status_string(status));
        _exit(shoal_status_exit_code(status));
    }
    if (status != SHOAL_OK) {
        shoal_bootstrap_close(b);
        return status;
    }
    *bootstrap_p = b;
    return SHOAL_OK;
}

void shoal_bootstrap_close(shoal_bootstrap_t *bootstrap)
{
    if (bootstrap == NULL) {
        return;
    }
    free(bootstrap->hosts);
    free(bootstrap->local_ranks);
    bootstrap->ops->close(bootstrap);
}

static shoal_status_t peers_exchange(void *context, const void *mine, size_t nbytes, void *all_p)
{
    shoal_bootstrap_t *bootstrap = context;
    if (bootstrap->broken) {
        return SHOAL_ERR_PEER;
    }
    shoal_status_t status = bootstrap->ops->exchange(bootstrap, mine, nbytes, all_p);
    bootstrap->broken     = status == SHOAL_ERR_PEER;
    return status;
}

/*
 * Other ranks that wait in the same call come here at about the same time, so that the exchange
 * names those that do not. Where it completes all are there, and the call itself is what hangs.
 */
static void peers_give_up(void *context, const char *doing)
{
    shoal_bootstrap_t *bootstrap = context;
    char               mine = 0, *all = malloc((size_t)bootstrap->size);
    bootstrap->stage = doing;
    shoal_bootstrap_hurry(bootstrap, SHOAL_ERR_PEER);
    if (!bootstrap->ops->needs_mpi && all != NULL &&
        peers_exchange(bootstrap, &mine, 1, all) == SHOAL_ERR_PEER) {
        bootstrap->ops->abort(bootstrap, shoal_status_exit_code(SHOAL_ERR_PEER),
                              shoal_status_string(SHOAL_ERR_PEER));
    } else {
        shoal_error("waited in vain in %s, which does not tell for whom", doing);
    }
    _exit(shoal_status_exit_code(SHOAL_ERR_PEER));
}

shoal_peers_t shoal_bootstrap_peers(shoal_bootstrap_t *bootstrap)
{
    return (shoal_peers_t){
        .rank       = bootstrap->rank,
        .size       = bootstrap->size,
        .local_rank = bootstrap->local_rank,
        .local_size = bootstrap->local_size,
        .exchange   = peers_exchange,
        .give_up    = peers_give_up,
        .context    = bootstrap,
    };
}
