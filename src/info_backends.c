/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The backends of the build, opened one after the other as a run of one rank would. A device that is built in but cannot be opened is
 * a broken installation, or a node of another kind than the build was meant for: either way the exit code should say so.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "collectives/transport.h"
#include "kernels/device.h"
#include "src/info.h"

static shoal_status_t show_device(const shoal_device_ops_t *ops)
{
    shoal_device_config_t config = {.local_rank = 0, .nthreads = 1, .variant = NULL};
    shoal_device_t       *device;
    shoal_device_info_t   info;
    shoal_status_t        status = ops->open(&config, &device);
    if (status == SHOAL_ERR_UNSUPPORTED) { /* a login node; the log says what it lacks */
        printf("  %-12s built in, but not on this machine\n", ops->name);
        return SHOAL_OK;
    }
    if (status != SHOAL_OK) {
        printf("  %-12s cannot be opened: %s\n", ops->name, shoal_status_string(status));
        return status;
    }
    ops->info(device, &info);
    printf("  %-12s %s, %s, %.1f GiB free for a rank\n", ops->name, info.name, info.kernels, (double)info.memory_nbytes / (1 << 30));
    ops->close(device);
    return SHOAL_OK;
}

/* The only rank of a world of one has nobody to exchange with. */
static shoal_status_t exchange_alone(void *context, const void *mine, size_t nbytes, void *all_p)
{
    (void)context;
    memmove(all_p, mine, nbytes);
    return SHOAL_OK;
}

/* Whether an entry before it in the list has the name: this one then is the same transport under the memory of GPUs. */
static bool is_second(const shoal_transport_ops_t *ops)
{
    size_t i = 0;
    while (strcmp(shoal_transport_backends[i]->name, ops->name) != 0) {
        i++;
    }
    return shoal_transport_backends[i] != ops;
}

static shoal_status_t show_transport(const shoal_transport_ops_t *ops)
{
    if (is_second(ops)) {
        printf("  %-12s serves GPUs too, through pinned host memory\n", ops->name);
        return SHOAL_OK;
    }
    shoal_peers_t      peers = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .exchange = exchange_alone};
    shoal_transport_t *transport;
    shoal_status_t     status = ops->open(&peers, &(shoal_transport_config_t){.patience_s = 1}, &transport);
    if (status != SHOAL_OK) {
        printf("  %-12s cannot be opened: %s\n", ops->name, shoal_status_string(status));
        return status;
    }
    printf("  %-12s opens\n", ops->name);
    ops->close(transport);
    return SHOAL_OK;
}

static void show_bootstraps(void)
{
    printf("\nbootstraps\n  local");
#ifdef SHOAL_HAVE_PMIX
    printf(" pmix");
#endif
#ifdef SHOAL_HAVE_MPI
    printf(" mpi");
#endif
    printf("\n");
}

shoal_status_t shoal_info_backends(void)
{
    shoal_status_t first = SHOAL_OK;
    printf("\ndevices\n");
    for (size_t i = 0; shoal_device_backends[i] != NULL; i++) {
        shoal_status_t status = show_device(shoal_device_backends[i]);
        first                 = first != SHOAL_OK ? first : status;
    }
    printf("\ntransports\n");
    for (size_t i = 0; shoal_transport_backends[i] != NULL; i++) {
        shoal_status_t status = show_transport(shoal_transport_backends[i]);
        first                 = first != SHOAL_OK ? first : status;
    }
    show_bootstraps();
    return first;
}
