/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The backends of the build, opened one after the other as a run of one rank would. A device that is built in but cannot be opened is
 * a broken installation, or a node of another kind than the build was meant for: either way the exit code should say so.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/module.h"
#include "collectives/transport.h"
#include "kernels/device.h"
#include "src/info.h"

/* A module that cannot be opened is no fault of a machine that has no such device: libraries are where the devices are. */
static void show_missing_module(const char *name, const char *why)
{
    printf("  %-12s its module cannot be opened: %s\n", name, why);
}

static shoal_status_t show_device(const shoal_device_backend_t *backend)
{
    shoal_device_config_t     config = {.local_rank = 0, .nthreads = 1, .variant = NULL};
    shoal_device_t           *device;
    shoal_device_info_t       info;
    const shoal_device_ops_t *ops;
    char                      why[512];
    if (shoal_device_table(backend, &ops, why, sizeof(why)) != SHOAL_OK) {
        show_missing_module(backend->name, why);
        return SHOAL_OK;
    }
    shoal_status_t status = ops->open(&config, &device);
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

/* "ucx" and "mpi" of the host, which the module puts under the memory of GPUs. */
static bool is_pinned(const shoal_transport_backend_t *backend)
{
    return backend->queued && strcmp(backend->name, backend->module) != 0;
}

static shoal_status_t show_transport(const shoal_transport_backend_t *backend)
{
    const shoal_transport_ops_t *ops;
    char                         why[512];
    if (shoal_transport_table(backend, &ops, why, sizeof(why)) != SHOAL_OK) {
        show_missing_module(backend->name, why);
        return SHOAL_OK;
    }
    if (is_pinned(backend)) {
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

static void show_module(const char *name)
{
    const void *found;
    char        text[512];
    if (shoal_module_find(name, "shoal_module", &found, text, sizeof(text)) != SHOAL_OK) {
        show_missing_module(name, text);
        return;
    }
    ((const shoal_module_t *)found)->describe(text, sizeof(text));
    printf("  %-12s %s\n", name, text);
}

/* What a program of the tests has linked in is no module. */
static void show_modules(void)
{
    printf("\nmodules\n");
    for (const shoal_device_backend_t *backend = shoal_device_backends; backend->name != NULL; backend++) {
        if (backend->ops == NULL) {
            show_module(backend->name);
        }
    }
    for (const shoal_transport_backend_t *backend = shoal_transport_backends; backend->name != NULL; backend++) {
        if (backend->ops == NULL && !is_pinned(backend)) {
            show_module(backend->module);
        }
    }
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
    show_modules();
    printf("\ndevices\n");
    for (const shoal_device_backend_t *backend = shoal_device_backends; backend->name != NULL; backend++) {
        shoal_status_t status = show_device(backend);
        first                 = first != SHOAL_OK ? first : status;
    }
    printf("\ntransports\n");
    for (const shoal_transport_backend_t *backend = shoal_transport_backends; backend->name != NULL; backend++) {
        shoal_status_t status = show_transport(backend);
        first                 = first != SHOAL_OK ? first : status;
    }
    show_bootstraps();
    return first;
}
