/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CUDA device: opening a GPU, its memory, and running ops through the registry on one stream. An instance that may only plan needs
 * neither GPU nor driver: the toolkit's libraries load without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda/own.h"
#include "kernels/cuda/sheets.h"
#include "kernels/op_table.h"

enum { OLDEST_CAPABILITY = 80 };

/*
 * Of the GPU's memory, beside what it shows as free when it has just been opened: cuBLASLt, cuDNN,
 * the modules of kernels that are loaded with their first launch, and a recorded step. About 0.3 GB
 * together; half a GiB leaves some for what a driver rounds up.
 */
static const size_t overhead_nbytes = (size_t)512 << 20;

static void say_missing(const shoal_device_config_t *config, const char *why)
{
    shoal_log(config->required ? SHOAL_LOG_ERROR : SHOAL_LOG_INFO, "device cuda: %s", why);
}

/* The GPU of this rank, or SHOAL_ERR_UNSUPPORTED after saying why there is none. */
static shoal_status_t find_gpu(const shoal_device_config_t *config, int *device_p)
{
    char        why[256];
    int         count = 0, driver = 0, runtime = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (error == cudaErrorInsufficientDriver && driver == 0) {
        say_missing(config, "this machine has no driver for NVIDIA GPUs");
        return SHOAL_ERR_UNSUPPORTED;
    }
    if (error != cudaSuccess || count == 0) {
        snprintf(why, sizeof(why), "%s (driver for CUDA %d.%d, built with %d.%d)",
                 cudaGetErrorString(error != cudaSuccess ? error : cudaErrorNoDevice), driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        say_missing(config, why);
        return SHOAL_ERR_UNSUPPORTED;
    }
    /* A launcher that gives each rank a GPU of its own hides the others, and the local rank then says nothing. */
    *device_p = count == 1 ? 0 : config->local_rank;
    if (*device_p >= count) {
        shoal_error("device cuda: local rank %d has no GPU: this node shows %d", config->local_rank, count);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

/* Of a part of a GPU (MIG) it is the part's own, where a PCI address would be the whole's: CUDA asks its driver since 11.4 for that one. */
static void print_uuid(const cudaUUID_t *uuid, char text_p[static 40])
{
    for (size_t i = 0, n = 0; i < sizeof(uuid->bytes); i++) {
        bool hyphen = i == 4 || i == 6 || i == 8 || i == 10;
        n += (size_t)snprintf(text_p + n, 40 - n, "%s%02x", hyphen ? "-" : "", (unsigned char)uuid->bytes[i]);
    }
}

static shoal_status_t read_properties(shoal_cuda_t *cuda, const shoal_device_config_t *config)
{
    struct cudaDeviceProp properties;
    SHOAL_CUDA_TRY(cudaGetDeviceProperties(&properties, cuda->device));
    snprintf(cuda->name, sizeof(cuda->name), "%.79s", properties.name);
    print_uuid(&properties.uuid, cuda->uuid);
    cuda->multiprocessors = properties.multiProcessorCount;
    cuda->capability      = 10 * properties.major + properties.minor;
    if (cuda->capability < OLDEST_CAPABILITY) {
        char why[256];
        snprintf(why, sizeof(why), "GPU %d, %s, has compute capability %d.%d; %d.%d is the oldest that this build has code for", cuda->device,
                 cuda->name, properties.major, properties.minor, OLDEST_CAPABILITY / 10, OLDEST_CAPABILITY % 10);
        say_missing(config, why);
        return SHOAL_ERR_UNSUPPORTED;
    }
    return SHOAL_OK;
}

/* The process sleeps while it waits for the GPU: its core belongs to the progress thread. */
static shoal_status_t start_gpu(shoal_cuda_t *cuda, const shoal_device_config_t *config)
{
    SHOAL_TRY(read_properties(cuda, config));
    SHOAL_CUDA_TRY(cudaInitDevice(cuda->device, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid));
    SHOAL_CUDA_TRY(cudaSetDevice(cuda->device));
    return shoal_cuda_open_queues(cuda);
}

/* $XDG_CACHE_HOME/shoal/cublaslt, or the same below ~/.cache; NULL where there is no such place. */
static char *tune_file(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char       *path  = NULL;
    if (cache != NULL && cache[0] == '/') {
        return asprintf(&path, "%s/shoal/cublaslt", cache) > 0 ? path : NULL;
    }
    return home != NULL && asprintf(&path, "%s/.cache/shoal/cublaslt", home) > 0 ? path : NULL;
}

static void cuda_close(shoal_device_t *device)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    shoal_cuda_release_cublaslt(cuda);
#ifdef SHOAL_HAVE_CUDNN
    shoal_cuda_release_cudnn(cuda);
#endif
    shoal_cuda_close_queues(cuda);
    free((char *)cuda->tune_file);
    free(cuda);
}

/* That a build has no cuDNN, configure has said, and `info` does: here `auto` only warns. */
static shoal_status_t fill_attention(shoal_cuda_t *cuda)
{
#ifdef SHOAL_HAVE_CUDNN
    return shoal_cuda_fill_cudnn(cuda);
#else
    if (cuda->attention == SHOAL_ATTENTION_CUDNN) {
        shoal_error("run.attention = \"cudnn\": this build has no cuDNN (configure --with-cudnn)");
        return SHOAL_ERR_CONFIG;
    }
    if (cuda->device >= 0) {
        shoal_warn("device cuda: this build has no cuDNN: attention runs on slower kernels; run.attention = \"own\" says that they are meant");
    }
    return SHOAL_OK;
#endif
}

static shoal_status_t fill(shoal_cuda_t *cuda)
{
    shoal_cuda_fill_own(cuda->kernels);
    SHOAL_TRY(shoal_cuda_fill_cublaslt(cuda));
    return cuda->attention == SHOAL_ATTENTION_OWN ? SHOAL_OK : fill_attention(cuda);
}

static shoal_status_t cuda_open(const shoal_device_config_t *config, shoal_device_t **device_p)
{
    const shoal_cuda_planned_t *planned = shoal_cuda_planned(config->planned);
    shoal_cuda_t               *cuda    = calloc(1, sizeof(*cuda));
    if (cuda == NULL) {
        shoal_error("cuda: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    cuda->base.ops        = &shoal_cuda_device_ops;
    cuda->deterministic   = !config->nondeterministic;
    cuda->attention       = config->attention;
    cuda->tune            = !config->untuned;
    cuda->tune_file       = tune_file();
    cuda->device          = -1;
    cuda->capability      = planned->capability;
    cuda->multiprocessors = planned->multiprocessors;
    cuda->planned_nbytes  = planned->memory_gib << 30;
    snprintf(cuda->name, sizeof(cuda->name), "%s", planned->name);
    shoal_status_t status = config->plan_only ? SHOAL_OK : find_gpu(config, &cuda->device);
    if (status == SHOAL_OK && !config->plan_only) {
        status = start_gpu(cuda, config);
    }
    if (status == SHOAL_OK) {
        status = fill(cuda);
    }
    if (status != SHOAL_OK) {
        cuda_close(&cuda->base);
        return status;
    }
    *device_p = &cuda->base;
    return SHOAL_OK;
}

static void describe_kernels(const shoal_cuda_t *cuda, shoal_device_info_t *info_p)
{
    const char *exceptions = "";
#ifdef SHOAL_HAVE_CUDNN
    exceptions = shoal_cuda_cudnn_exceptions(cuda);
#endif
    snprintf(info_p->kernels, sizeof(info_p->kernels), "%s matmul, %s attention in bf16%s%.90s, %s", cuda->kernels[SHOAL_OP_MATMUL][SHOAL_BF16].source,
             cuda->kernels[SHOAL_OP_ATTENTION][SHOAL_BF16].source, exceptions[0] != '\0' ? " but for " : "", exceptions,
             cuda->deterministic ? "deterministic" : "not deterministic");
}

static void cuda_info(shoal_device_t *device, shoal_device_info_t *info_p)
{
    shoal_cuda_t *cuda   = shoal_cuda_of(device);
    const char   *name   = cuda->name;
    int           driver = 0;
    *info_p = (shoal_device_info_t){.memory_nbytes   = cuda->planned_nbytes,
                                    .overhead_nbytes = overhead_nbytes,
                                    .stores_scores   = cuda->deterministic};
    if (cuda->device >= 0) {
        cudaMemGetInfo(&info_p->memory_nbytes, &info_p->total_nbytes);
        cudaDeviceGetPCIBusId(info_p->pci, sizeof(info_p->pci), cuda->device);
        memcpy(info_p->id, cuda->uuid, sizeof(cuda->uuid));
    }
    shoal_cuda_sheet(name, info_p);
    describe_kernels(cuda, info_p);
    if (cuda->device < 0) {
        snprintf(info_p->name, sizeof(info_p->name), "%s, planned for and not opened", name);
        return;
    }
    cudaDriverGetVersion(&driver);
    snprintf(info_p->name, sizeof(info_p->name), "%s, driver for CUDA %d.%d", name, driver / 1000, driver % 1000 / 10);
}

static shoal_status_t cuda_alloc(shoal_device_t *device, size_t nbytes, void **memory_p)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaSetDevice(cuda->device));
    cudaError_t error = cudaMalloc(memory_p, nbytes > 0 ? nbytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* this one is not sticky: forget it */
        shoal_cuda_stream_ops.say_full(device, nbytes);
        return SHOAL_ERR_NO_MEMORY;
    }
    return shoal_cuda_check(error, "cudaMalloc");
}

static void cuda_free(shoal_device_t *device, void *memory, size_t nbytes)
{
    (void)nbytes;
    cudaSetDevice(shoal_cuda_of(device)->device);
    cudaFree(memory);
}

/* The calling thread need not be the one that opened the device. The copy comes after everything that is on the stream. */
static shoal_status_t copy(shoal_device_t *device, void *to, const void *from, size_t nbytes, enum cudaMemcpyKind kind)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaSetDevice(cuda->device));
    SHOAL_CUDA_TRY(cudaMemcpyAsync(to, from, nbytes, kind, cuda->stream));
    SHOAL_CUDA_TRY(cudaStreamSynchronize(cuda->stream));
    return SHOAL_OK;
}

static shoal_status_t cuda_upload(shoal_device_t *device, void *to, const void *from_host, size_t nbytes)
{
    return copy(device, to, from_host, nbytes, cudaMemcpyHostToDevice);
}

static shoal_status_t cuda_download(shoal_device_t *device, void *to_host, const void *from, size_t nbytes)
{
    return copy(device, to_host, from, nbytes, cudaMemcpyDeviceToHost);
}

static shoal_status_t cuda_synchronize(shoal_device_t *device)
{
    SHOAL_CUDA_TRY(cudaStreamSynchronize(shoal_cuda_of(device)->stream));
    return SHOAL_OK;
}

static shoal_status_t measure_product(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *work, double *flops_p)
{
    enum { WARM_UP = 2, RUNS = 8 };
    double ms = 0;
    SHOAL_TRY(shoal_cuda_stream_ops.reserve_marks(device, 2));
    for (int i = 0; i < WARM_UP + RUNS; i++) {
        if (i == WARM_UP) {
            SHOAL_TRY(shoal_cuda_stream_ops.mark(device, SHOAL_QUEUE_COMPUTE, 0));
        }
        SHOAL_TRY(shoal_cuda_run(device, op, args, work));
    }
    SHOAL_TRY(shoal_cuda_stream_ops.mark(device, SHOAL_QUEUE_COMPUTE, 1));
    SHOAL_TRY(cuda_synchronize(device));
    SHOAL_TRY(shoal_cuda_stream_ops.between(device, 0, 1, &ms));
    *flops_p = shoal_op_flops(op) * RUNS / (ms * 1e-3);
    return SHOAL_OK;
}

static shoal_status_t cuda_measure_peak(shoal_device_t *device, shoal_dtype_t dtype, double *flops_p)
{
    size_t     size = dtype == SHOAL_BF16 ? 8192 : 4096, matrix = size * size * shoal_dtype_nbytes(dtype), work = 0;
    void      *memory = NULL;
    shoal_op_t op     = {.kind   = SHOAL_OP_MATMUL,
                         .dtype  = dtype,
                         .matmul = {.m = size, .n = size, .k = size, .lda = size, .ldb = size, .ldy = size, .trans_b = true, .alpha = 1,
                                    .out_dtype = dtype}};
    SHOAL_TRY(shoal_cuda_workspace(device, &op, &work));
    SHOAL_TRY(cuda_alloc(device, 3 * matrix + work, &memory));
    void          *args[SHOAL_OP_MAX_ARGS] = {memory, (char *)memory + matrix, NULL, (char *)memory + 2 * matrix};
    shoal_status_t status                  = shoal_cuda_noise(shoal_cuda_of(device), memory, 2 * matrix);
    if (status == SHOAL_OK) {
        status = measure_product(device, &op, args, (char *)memory + 3 * matrix, flops_p);
    }
    cuda_free(device, memory, 3 * matrix + work);
    return status;
}

const shoal_device_ops_t shoal_cuda_device_ops = {
    .name         = "cuda",
    .stream       = &shoal_cuda_stream_ops,
    .open         = cuda_open,
    .close        = cuda_close,
    .info         = cuda_info,
    .alloc        = cuda_alloc,
    .free         = cuda_free,
    .upload       = cuda_upload,
    .download     = cuda_download,
    .workspace    = shoal_cuda_workspace,
    .run          = shoal_cuda_run,
    .synchronize  = cuda_synchronize,
    .measure_peak = cuda_measure_peak,
};
