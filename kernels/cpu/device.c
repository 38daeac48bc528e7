/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CPU device. Opening it fills the kernel registry layer by layer, as far as the variant asks and the processor
 * allows; running an op is then one indirect call. Everything is synchronous, and memory is ordinary memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/time.h"
#include "kernels/cpu/cpu.h"
#include "kernels/op_table.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

#ifdef SHOAL_HAVE_X86_SIMD
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Overrides with the named instruction set, or with the widest for any other variant; false if the processor lacks it. */
static bool fill_simd(shoal_cpu_registry_t kernels, const char *variant)
{
    bool any = strcmp(variant, "avx2") != 0 && strcmp(variant, "avx512") != 0;
    if (has_avx512() && (any || strcmp(variant, "avx512") == 0)) {
        shoal_cpu_fill_avx512(kernels);
        return true;
    }
    if (has_avx2() && (any || strcmp(variant, "avx2") == 0)) {
        shoal_cpu_fill_avx2(kernels);
        return true;
    }
    return false;
}
#else
static bool fill_simd(shoal_cpu_registry_t kernels, const char *variant)
{
    (void)kernels;
    (void)variant;
    return false;
}
#endif

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found |= strcmp(name, names[i]) == 0;
    }
    return found;
}

static shoal_status_t fill_variant(shoal_cpu_t *cpu, const char *variant)
{
    static const char *const variants[] = {"ref", "avx2", "avx512", "simd", "auto"};
    if (!is_one_of(variant, variants, sizeof(variants) / sizeof(variants[0]))) {
        shoal_error("cpu variant %s: unknown; choose ref, simd, avx2, avx512 or auto", variant);
        return SHOAL_ERR_CONFIG;
    }
    shoal_cpu_fill_ref(cpu->kernels);
    if (strcmp(variant, "ref") == 0) {
        return SHOAL_OK;
    }
    bool filled = fill_simd(cpu->kernels, variant);
    if (strcmp(variant, "auto") != 0) {
        if (!filled) {
            shoal_error("cpu variant %s: this build or this processor does not have it", variant);
        }
        return filled ? SHOAL_OK : SHOAL_ERR_UNSUPPORTED;
    }
#ifdef SHOAL_HAVE_DNNL
    shoal_cpu_fill_onednn(cpu);
#endif
    return SHOAL_OK;
}

static shoal_status_t cpu_open(const shoal_device_config_t *config, shoal_device_t **device_p)
{
    if (config->nthreads < 1) {
        shoal_error("cpu: %d threads asked for; at least 1 is needed", config->nthreads);
        return SHOAL_ERR_CONFIG;
    }
    shoal_cpu_t *cpu = calloc(1, sizeof(*cpu));
    if (cpu == NULL) {
        shoal_error("cpu: out of memory");
        return SHOAL_ERR_NO_MEMORY;
    }
    cpu->base.ops         = &shoal_cpu_device_ops;
    cpu->nthreads         = config->nthreads;
    shoal_status_t status = fill_variant(cpu, config->variant != NULL ? config->variant : "auto");
    if (status != SHOAL_OK) {
        free(cpu);
        return status;
    }
    *device_p = &cpu->base;
    return SHOAL_OK;
}

static shoal_cpu_t *cpu_of(shoal_device_t *device)
{
    return (shoal_cpu_t *)device; /* base is the first member */
}

static void cpu_close(shoal_device_t *device)
{
#ifdef SHOAL_HAVE_DNNL
    shoal_cpu_release_onednn(cpu_of(device));
#endif
    free(cpu_of(device));
}

/* The processor's name, where /proc/cpuinfo has one: not every architecture's does. */
static void processor_name(char *name_p, size_t nbytes)
{
    char  line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name_p, nbytes, "CPU");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value != NULL) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(name_p, nbytes, "%.80s", value + 2);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static void cpu_info(shoal_device_t *device, shoal_device_info_t *info_p)
{
    shoal_cpu_t *cpu = cpu_of(device);
    char         processor[96];
    processor_name(processor, sizeof(processor));
    *info_p = (shoal_device_info_t){.id = "cpu", .memory_nbytes = shoal_cpu_memory_available()};
    snprintf(info_p->name, sizeof(info_p->name), "%s", processor);
    snprintf(info_p->kernels, sizeof(info_p->kernels), "%s kernels, %s matmul", cpu->kernels[SHOAL_OP_ATTENTION][SHOAL_F32].source,
             cpu->kernels[SHOAL_OP_MATMUL][SHOAL_F32].source);
}

static shoal_status_t cpu_alloc(shoal_device_t *device, size_t nbytes, void **memory_p)
{
    (void)device;
    size_t alignment = nbytes >= 2 * HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    size_t rounded   = (nbytes + alignment - 1) / alignment * alignment;
    void  *memory    = rounded >= nbytes ? aligned_alloc(alignment, rounded > 0 ? rounded : alignment) : NULL;
    if (memory == NULL) {
        shoal_error("cpu: cannot allocate %zu bytes", nbytes);
        return SHOAL_ERR_NO_MEMORY;
    }
    if (alignment == HUGE_PAGE) {
        (void)madvise(memory, rounded, MADV_HUGEPAGE); /* advice: a kernel without it serves small pages */
    }
    *memory_p = memory;
    return SHOAL_OK;
}

static void cpu_free(shoal_device_t *device, void *memory, size_t nbytes)
{
    (void)device;
    (void)nbytes;
    free(memory);
}

static shoal_status_t cpu_copy(shoal_device_t *device, void *to, const void *from, size_t nbytes)
{
    (void)device;
    memcpy(to, from, nbytes);
    return SHOAL_OK;
}

/* The registry's row for an op; int32 (only FILL) is served as another type of four bytes. */
static shoal_status_t find_kernel(shoal_cpu_t *cpu, const shoal_op_t *op, const shoal_cpu_kernel_t **kernel_p)
{
    if ((unsigned)op->kind >= SHOAL_OP_COMPUTE_COUNT) {
        shoal_error("cpu: op %s is not a device's", shoal_op_kind_name(op->kind));
        return SHOAL_ERR_INVALID;
    }
    *kernel_p = &cpu->kernels[op->kind][op->dtype == SHOAL_BF16 ? SHOAL_BF16 : SHOAL_F32];
    return SHOAL_OK;
}

static shoal_status_t cpu_workspace(shoal_device_t *device, const shoal_op_t *op, size_t *nbytes_p)
{
    const shoal_cpu_kernel_t *kernel = NULL;
    SHOAL_TRY(find_kernel(cpu_of(device), op, &kernel));
    *nbytes_p = kernel->workspace != NULL ? kernel->workspace(cpu_of(device), op) : 0;
    return SHOAL_OK;
}

static shoal_status_t cpu_run(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace)
{
    const shoal_cpu_kernel_t *kernel = NULL;
    SHOAL_TRY(find_kernel(cpu_of(device), op, &kernel));
    return kernel->run(cpu_of(device), op, args, workspace);
}

static shoal_status_t cpu_synchronize(shoal_device_t *device)
{
    (void)device;
    return SHOAL_OK;
}

/* The rate of one product, repeated for `least_ms` after a warm-up: a mean, because a CPU quota shows only over many periods. */
static shoal_status_t measure_product(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *work, double least_ms,
                                      double *flops_p)
{
    SHOAL_TRY(cpu_run(device, op, args, work));
    int64_t start = shoal_time_ns();
    double  ms    = 0;
    int     runs  = 0;
    while (runs < 2 || ms < least_ms) {
        SHOAL_TRY(cpu_run(device, op, args, work));
        ms = shoal_ms_since(start);
        runs++;
    }
    *flops_p = shoal_op_flops(op) * runs / (ms * 1e-3);
    return SHOAL_OK;
}

static shoal_status_t cpu_measure_peak(shoal_device_t *device, shoal_dtype_t dtype, double *flops_p)
{
    enum { SIZE = 1024 }; /* two Gflop: some tens of milliseconds on a core, enough to fill a few dozen */
    size_t     matrix = (size_t)SIZE * SIZE * shoal_dtype_nbytes(dtype), work = 0;
    void      *memory = NULL;
    shoal_op_t op     = {.kind   = SHOAL_OP_MATMUL,
                         .dtype  = dtype,
                         .matmul = {.m = SIZE, .n = SIZE, .k = SIZE, .lda = SIZE, .ldb = SIZE, .ldy = SIZE, .trans_b = true, .alpha = 1,
                                    .out_dtype = dtype}};
    SHOAL_TRY(cpu_workspace(device, &op, &work));
    SHOAL_TRY(cpu_alloc(device, 3 * matrix + work, &memory));
    memset(memory, 0, 3 * matrix + work);
    void          *args[SHOAL_OP_MAX_ARGS] = {memory, (char *)memory + matrix, NULL, (char *)memory + 2 * matrix};
    shoal_status_t status = measure_product(device, &op, args, (char *)memory + 3 * matrix, 50, flops_p);
    cpu_free(device, memory, 3 * matrix + work);
    return status;
}

const shoal_device_ops_t shoal_cpu_device_ops = {
    .name         = "cpu",
    .open         = cpu_open,
    .close        = cpu_close,
    .info         = cpu_info,
    .alloc        = cpu_alloc,
    .free         = cpu_free,
    .upload       = cpu_copy,
    .download     = cpu_copy,
    .workspace    = cpu_workspace,
    .run          = cpu_run,
    .synchronize  = cpu_synchronize,
    .measure_peak = cpu_measure_peak,
};
