/* SPDX-License-Identifier: BSD-3-Clause */
/* The backends of this build and the choice among them. The configured name is obeyed or refused, never replaced. */
#include "kernels/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/module.h"

/* Programs that have the CUDA device linked in, as tests do, use that one and not the module. */
#pragma weak shoal_cuda_device_ops

const shoal_device_backend_t shoal_device_backends[] = {
#ifdef SHOAL_HAVE_CUDA
    {"cuda", &shoal_cuda_device_ops, "shoal_cuda_device_ops", "libcuda.so.1", "this machine has no driver for NVIDIA GPUs"},
#endif
    {"cpu", &shoal_cpu_device_ops, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

shoal_status_t shoal_device_table(const shoal_device_backend_t *backend, const shoal_device_ops_t **ops_p, char *why_p,
                                  size_t why_nbytes)
{
    const void *table = backend->ops;
    if (table == NULL) {
        SHOAL_TRY(shoal_module_find(backend->name, backend->symbol, &table, why_p, why_nbytes));
    }
    *ops_p = table;
    return SHOAL_OK;
}

/*
 * Whether the machine lacks the driver of a device whose module is not open yet. Looking for the driver takes a moment, opening
 * the module takes 0.1 s and 200 MB: with device "auto" every run on a machine without GPUs would pay that.
 */
static bool lacks_driver(const shoal_device_backend_t *backend)
{
    if (backend->ops != NULL || backend->driver == NULL) {
        return false;
    }
    /* A driver that is found stays loaded: the module is about to want it. */
    return dlopen(backend->driver, RTLD_LAZY | RTLD_LOCAL) == NULL;
}

/* A module that cannot be opened is a device that is not here; the log says why, louder if the device was asked for. */
static shoal_status_t open_backend(const shoal_device_backend_t *backend, const shoal_device_config_t *config, shoal_device_t **device_p)
{
    const shoal_device_ops_t *ops;
    char                      why[512];
    shoal_status_t            status = SHOAL_ERR_UNSUPPORTED;
    if (!config->plan_only && lacks_driver(backend)) {
        snprintf(why, sizeof(why), "%s", backend->no_driver);
    } else {
        status = shoal_device_table(backend, &ops, why, sizeof(why));
    }
    if (status != SHOAL_OK) {
        shoal_log(config->required ? SHOAL_LOG_ERROR : SHOAL_LOG_INFO, "device %s: %s", backend->name, why);
        return status;
    }
    return ops->open(config, device_p);
}

static shoal_status_t open_named(const char *name, const shoal_device_config_t *config, shoal_device_t **device_p)
{
    for (const shoal_device_backend_t *backend = shoal_device_backends; backend->name != NULL; backend++) {
        if (strcmp(backend->name, name) == 0) {
            return open_backend(backend, config, device_p);
        }
    }
    if (strcmp(name, "cuda") == 0) {
        shoal_error("device cuda: this build has no CUDA support (configure --with-cuda)");
    } else {
        shoal_error("device %s: unknown; choose cpu, cuda or auto", name);
    }
    return SHOAL_ERR_CONFIG;
}

/* The first backend, in the order of the table, that the machine has. Any failure but "not here" is final. */
static shoal_status_t open_first(const shoal_device_config_t *config, shoal_device_t **device_p)
{
    shoal_status_t status = SHOAL_ERR_UNSUPPORTED;
    for (const shoal_device_backend_t *backend = shoal_device_backends;
         backend->name != NULL && status == SHOAL_ERR_UNSUPPORTED; backend++) {
        status = open_backend(backend, config, device_p);
        if (status == SHOAL_OK) {
            shoal_info("device auto: %s", backend->name);
        }
    }
    return status;
}

shoal_status_t shoal_device_open(const char *name, const shoal_device_config_t *config, shoal_device_t **device_p)
{
    shoal_device_config_t chosen = *config;
    if (strcmp(name, "auto") == 0) {
        chosen.plan_only = false; /* what is planned for is what a run here would take */
        return open_first(&chosen, device_p);
    }
    chosen.required       = true;
    shoal_status_t status = open_named(name, &chosen, device_p);
    return status == SHOAL_ERR_UNSUPPORTED ? SHOAL_ERR_CONFIG : status;
}
