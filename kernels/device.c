/* SPDX-License-Identifier: BSD-3-Clause */
/* The backends of this build and the choice among them. The configured name is obeyed or refused, never replaced. */
#include "kernels/device.h"

#include <string.h>

#include "base/log.h"

const shoal_device_ops_t *const shoal_device_backends[] = {
#ifdef SHOAL_HAVE_CUDA
    &shoal_cuda_device_ops,
#endif
    &shoal_cpu_device_ops,
    NULL,
};

static shoal_status_t open_named(const char *name, const shoal_device_config_t *config, shoal_device_t **device_p)
{
    for (size_t i = 0; shoal_device_backends[i] != NULL; i++) {
        if (strcmp(shoal_device_backends[i]->name, name) == 0) {
            return shoal_device_backends[i]->open(config, device_p);
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
    for (size_t i = 0; shoal_device_backends[i] != NULL && status == SHOAL_ERR_UNSUPPORTED; i++) {
        status = shoal_device_backends[i]->open(config, device_p);
        if (status == SHOAL_OK) {
            shoal_info("device auto: %s", shoal_device_backends[i]->name);
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
