/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CUDA device without CUDA: memory is the host's, runs go through the registry of the project's own kernels, which were
 * compiled against kernels/cuda/emulate.h, and it claims to be an H200.
 */
#include "tests/emulated_device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulate.h"

namespace {

shoal_cuda_t *cuda_of(shoal_device_t *device)
{
    return reinterpret_cast<shoal_cuda_t *>(device); /* base is the first member */
}

shoal_status_t emulated_open(const shoal_device_config_t *, shoal_device_t **device_p)
{
    shoal_cuda_t *cuda = new (std::nothrow) shoal_cuda_t();
    if (cuda == nullptr) {
        shoal_error("cuda-emulated: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    cuda->base.ops        = &shoal_emulated_device_ops;
    cuda->device          = 0;
    cuda->multiprocessors = 132;
    cuda->capability      = 90;
    cuda->deterministic   = true;
    shoal_cuda_fill_own(cuda->kernels);
    *device_p = &cuda->base;
    return SHOAL_OK;
}

void emulated_close(shoal_device_t *device)
{
    delete cuda_of(device);
}

void emulated_info(shoal_device_t *, shoal_device_info_t *info_p)
{
    *info_p               = shoal_device_info_t();
    info_p->memory_nbytes = (size_t)1 << 30;
    std::snprintf(info_p->name, sizeof(info_p->name), "CUDA kernels, emulated");
    std::snprintf(info_p->id, sizeof(info_p->id), "emulated");
}

shoal_status_t emulated_alloc(shoal_device_t *, size_t nbytes, void **memory_p)
{
    const size_t alignment = 64;
    void        *memory    = std::aligned_alloc(alignment, (nbytes / alignment + 1) * alignment);
    if (memory == nullptr) {
        shoal_error("cuda-emulated: cannot allocate %zu bytes", nbytes);
        return SHOAL_ERR_NO_MEMORY;
    }
    *memory_p = memory;
    return SHOAL_OK;
}

void emulated_free(shoal_device_t *, void *memory, size_t)
{
    std::free(memory);
}

shoal_status_t emulated_copy(shoal_device_t *, void *to, const void *from, size_t nbytes)
{
    std::memcpy(to, from, nbytes);
    return SHOAL_OK;
}

/* The registry's row for an op; int32 (only FILL) is served as another type of four bytes. */
shoal_status_t find_kernel(shoal_cuda_t *cuda, const shoal_op_t *op, const shoal_cuda_kernel_t **kernel_p)
{
    if ((unsigned)op->kind >= SHOAL_OP_COMPUTE_COUNT) {
        shoal_error("cuda-emulated: op kind %d is not a device's", (int)op->kind);
        return SHOAL_ERR_INVALID;
    }
    *kernel_p = &cuda->kernels[op->kind][op->dtype == SHOAL_BF16 ? SHOAL_BF16 : SHOAL_F32];
    return SHOAL_OK;
}

shoal_status_t emulated_workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p)
{
    const shoal_cuda_kernel_t *kernel = nullptr;
    SHOAL_TRY(find_kernel(cuda_of(device), op, &kernel));
    *nbytes_p = kernel->workspace != nullptr ? kernel->workspace(cuda_of(device), op) : 0;
    return SHOAL_OK;
}

shoal_status_t emulated_run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace)
{
    const shoal_cuda_kernel_t *kernel = nullptr;
    SHOAL_TRY(find_kernel(cuda_of(device), op, &kernel));
    return kernel->run(cuda_of(device), op, args, workspace);
}

shoal_status_t emulated_synchronize(shoal_device_t *)
{
    return SHOAL_OK;
}

/* Meaningless here, but a program that asks must go on. */
shoal_status_t emulated_measure_peak(shoal_device_t *, shoal_dtype_t, double *flops_p)
{
    *flops_p = 1e9;
    return SHOAL_OK;
}

} // namespace

/* No streams here: at once. */
void shoal_emulated_enqueue(cudaStream_t, const char *, const void *const *, const size_t *, size_t, std::function<void()> launch)
{
    launch();
}

extern "C" const shoal_device_ops_t shoal_emulated_device_ops = {
    .name         = "cuda-emulated",
    .stream       = nullptr,
    .open         = emulated_open,
    .close        = emulated_close,
    .info         = emulated_info,
    .alloc        = emulated_alloc,
    .free         = emulated_free,
    .upload       = emulated_copy,
    .download     = emulated_copy,
    .workspace    = emulated_workspace,
    .run          = emulated_run,
    .synchronize  = emulated_synchronize,
    .measure_peak = emulated_measure_peak,
};
