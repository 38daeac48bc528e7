/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of transports in this build, in the order of preference, and the choice among them. */
#include "collectives/transport.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "collectives/backends.h"

const shoal_transport_ops_t *const shoal_transport_backends[] = {
#ifdef SHOAL_HAVE_UCX
    &shoal_transport_ucx,
#endif
#ifdef SHOAL_HAVE_MPI
    &shoal_transport_mpi,
#endif
#ifdef SHOAL_HAVE_NCCL
    &shoal_transport_nccl,
#endif
#if defined(SHOAL_HAVE_CUDA) && defined(SHOAL_HAVE_UCX)
    &shoal_transport_pinned_ucx,
#endif
#if defined(SHOAL_HAVE_CUDA) && defined(SHOAL_HAVE_MPI)
    &shoal_transport_pinned_mpi,
#endif
    &shoal_transport_self,
    NULL,
};

static const shoal_transport_ops_t *added;

void shoal_transport_add(const shoal_transport_ops_t *ops)
{
    added = ops;
}

/* Whether it can serve: one rank has nothing to move, so that any memory will do. */
static bool serves(const shoal_transport_ops_t *ops, int size, bool queued)
{
    return size == 1 || (ops != &shoal_transport_self && (ops->enqueue != NULL) == queued);
}

static const shoal_transport_ops_t *choose(const char *name, int size, bool queued)
{
    bool any = strcmp(name, "auto") == 0;
    if (any && size == 1) {
        return &shoal_transport_self;
    }
    if (added != NULL && (any || strcmp(added->name, name) == 0) && serves(added, size, queued)) {
        return added;
    }
    for (int i = 0; shoal_transport_backends[i] != NULL; i++) {
        const shoal_transport_ops_t *ops = shoal_transport_backends[i];
        if ((any || strcmp(ops->name, name) == 0) && serves(ops, size, queued)) {
            return ops;
        }
    }
    return NULL;
}

static shoal_status_t refuse(const char *name, int size, bool queued)
{
    char   list[256] = "";
    size_t used      = 0;
    for (int i = 0; shoal_transport_backends[i] != NULL && used < sizeof(list); i++) {
        const shoal_transport_ops_t *ops = shoal_transport_backends[i];
        if (serves(ops, size, queued)) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, " %s", ops->name);
        }
    }
    shoal_error("transport \"%s\" cannot serve %d ranks%s in this build; what can:%s", name, size, queued ? " on GPUs" : "",
                list[0] != '\0' ? list : " none");
    return SHOAL_ERR_CONFIG;
}

shoal_status_t shoal_transport_find(const char *name, int size, bool queued, const shoal_transport_ops_t **ops_p)
{
    const shoal_transport_ops_t *ops = choose(name, size, queued);
    if (ops == NULL) {
        return refuse(name, size, queued);
    }
    *ops_p = ops;
    return SHOAL_OK;
}
