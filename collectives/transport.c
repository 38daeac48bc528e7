/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of transports in this build, in the order of preference, and the choice among them. */
#include "collectives/transport.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/module.h"
#include "collectives/backends.h"

/* Programs that have these linked in, as tests do, use them and not the modules. */
#pragma weak shoal_transport_nccl
#pragma weak shoal_transport_pinned_ucx
#pragma weak shoal_transport_pinned_mpi

const shoal_transport_backend_t shoal_transport_backends[] = {
#ifdef SHOAL_HAVE_UCX
    {"ucx", false, &shoal_transport_ucx, NULL, NULL},
#endif
#ifdef SHOAL_HAVE_MPI
    {"mpi", false, &shoal_transport_mpi, NULL, NULL},
#endif
#ifdef SHOAL_HAVE_NCCL
    {"nccl", true, &shoal_transport_nccl, "nccl", "shoal_transport_nccl"},
#endif
#if defined(SHOAL_HAVE_CUDA) && defined(SHOAL_HAVE_UCX)
    {"ucx", true, &shoal_transport_pinned_ucx, "cuda", "shoal_transport_pinned_ucx"},
#endif
#if defined(SHOAL_HAVE_CUDA) && defined(SHOAL_HAVE_MPI)
    {"mpi", true, &shoal_transport_pinned_mpi, "cuda", "shoal_transport_pinned_mpi"},
#endif
    {"self", false, &shoal_transport_self, NULL, NULL},
    {NULL, false, NULL, NULL, NULL},
};

shoal_status_t shoal_transport_table(const shoal_transport_backend_t *backend, const shoal_transport_ops_t **ops_p, char *why_p,
                                     size_t why_nbytes)
{
    const void *table = backend->ops;
    if (table == NULL) {
        SHOAL_TRY(shoal_module_find(backend->module, backend->symbol, &table, why_p, why_nbytes));
    }
    *ops_p = table;
    return SHOAL_OK;
}

static const shoal_transport_ops_t *added;

void shoal_transport_add(const shoal_transport_ops_t *ops)
{
    added = ops;
}

/* `self` serves one rank, which has nothing to move, on any memory; the others serve their own kind of memory. */
static bool serves(const shoal_transport_backend_t *backend, int size, bool queued)
{
    return strcmp(backend->name, "self") == 0 ? size == 1 : backend->queued == queued;
}

static const shoal_transport_ops_t *find_added(const char *name, int size, bool queued)
{
    bool wanted = added != NULL && (strcmp(name, "auto") == 0 || strcmp(added->name, name) == 0);
    return wanted && (size == 1 || (added->enqueue != NULL) == queued) ? added : NULL;
}

static shoal_status_t refuse(const char *name, int size, bool queued)
{
    char   list[256] = "";
    size_t used      = 0;
    for (const shoal_transport_backend_t *b = shoal_transport_backends; b->name != NULL && used < sizeof(list); b++) {
        if (serves(b, size, queued)) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, " %s", b->name);
        }
    }
    shoal_error("transport \"%s\" cannot serve %d rank%s%s in this build; what can:%s", name, size, size == 1 ? "" : "s", queued ? " on GPUs" : "",
                list[0] != '\0' ? list : " none");
    return SHOAL_ERR_CONFIG;
}

/* The first backend of that name, or with `any` of all, that serves and whose module opens. A module that does not is told of. */
static shoal_status_t find_backend(const char *name, bool any, int size, bool queued, const shoal_transport_ops_t **ops_p)
{
    char why[512];
    for (const shoal_transport_backend_t *b = shoal_transport_backends; b->name != NULL; b++) {
        if ((!any && strcmp(b->name, name) != 0) || !serves(b, size, queued)) {
            continue;
        }
        if (shoal_transport_table(b, ops_p, why, sizeof(why)) == SHOAL_OK) {
            return SHOAL_OK;
        }
        shoal_log(any ? SHOAL_LOG_WARN : SHOAL_LOG_ERROR, "transport %s: %s", b->name, why);
        if (!any) {
            return SHOAL_ERR_CONFIG;
        }
    }
    return refuse(name, size, queued);
}

shoal_status_t shoal_transport_find(const char *name, int size, bool queued, const shoal_transport_ops_t **ops_p)
{
    bool                         any   = strcmp(name, "auto") == 0;
    const shoal_transport_ops_t *found = any && size == 1 ? &shoal_transport_self : find_added(name, size, queued);
    if (found == NULL) {
        return find_backend(name, any, size, queued, ops_p);
    }
    *ops_p = found;
    return SHOAL_OK;
}
