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
    &shoal_transport_self,
    NULL,
};

static const shoal_transport_ops_t *by_name(const char *name)
{
    for (int i = 0; shoal_transport_backends[i] != NULL; i++) {
        if (strcmp(shoal_transport_backends[i]->name, name) == 0) {
            return shoal_transport_backends[i];
        }
    }
    return NULL;
}

static shoal_status_t refuse(const char *name, int size)
{
    char   list[256] = "";
    size_t used      = 0;
    for (int i = 0; shoal_transport_backends[i] != NULL && used < sizeof(list); i++) {
        used += (size_t)snprintf(list + used, sizeof(list) - used, " %s", shoal_transport_backends[i]->name);
    }
    shoal_error("transport \"%s\" cannot serve %d ranks in this build; it has: auto%s", name, size, list);
    return SHOAL_ERR_CONFIG;
}

shoal_status_t shoal_transport_find(const char *name, int size, const shoal_transport_ops_t **ops_p)
{
    const shoal_transport_ops_t *ops = by_name(name);
    if (strcmp(name, "auto") == 0) {
        ops = size == 1 ? &shoal_transport_self : shoal_transport_backends[0];
    }
    if (ops == NULL || (ops == &shoal_transport_self && size > 1)) {
        return refuse(name, size);
    }
    *ops_p = ops;
    return SHOAL_OK;
}
