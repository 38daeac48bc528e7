/* SPDX-License-Identifier: BSD-3-Clause */
/* What the module "cuda" says of itself (base/module.h). The device and the transports that it holds are found by their names. */
#include "base/module.h"

#include <stdio.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#ifdef SHOAL_HAVE_CUDNN
#include <cudnn.h>
#endif

static void describe(char *text_p, size_t nbytes)
{
    int    runtime  = 0;
    size_t cublaslt = cublasLtGetVersion(), used;
    cudaRuntimeGetVersion(&runtime);
    used = (size_t)snprintf(text_p, nbytes, "CUDA runtime %d.%d, cuBLASLt %zu.%zu.%zu", runtime / 1000, runtime % 1000 / 10,
                            cublaslt / 10000, cublaslt / 100 % 100, cublaslt % 100);
#ifdef SHOAL_HAVE_CUDNN
    size_t cudnn = cudnnGetVersion();
    if (used < nbytes) {
        snprintf(text_p + used, nbytes - used, ", cuDNN %zu.%zu.%zu", cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
    }
#else
    (void)used;
#endif
}

extern const shoal_module_t shoal_module;
const shoal_module_t        shoal_module = {.build = PACKAGE_VERSION, .describe = describe};
