/* SPDX-License-Identifier: BSD-3-Clause */
/* What the module "nccl" says of itself (base/module.h). */
#include "base/module.h"

#include <nccl.h>
#include <stdio.h>

static void describe(char *text_p, size_t nbytes)
{
    int version = 0;
    ncclGetVersion(&version);
    snprintf(text_p, nbytes, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

extern const shoal_module_t shoal_module;
const shoal_module_t        shoal_module = {.build = PACKAGE_VERSION, .describe = describe};
