/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * That cuDNN recognises the graphs of kernels/cuda/cudnn_graph.c as attention and has its fast kernel for them, and what the
 * device makes of ops around that. Without a GPU, cuDNN is told of one in JSON, and finds the toolkit's empty driver: enough for
 * it to choose an engine, which is all that is asked here. With one, cuDNN also plans and runs, and must not fall back. Numbers
 * are for tests/test_kernels.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>

#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cudnn_graph.h"

enum { HOPPER = 90, FORWARD_ENGINE = 2, BACKWARD_ENGINE = 6 };

static const char h200[] =
    "{\"version\":1,\"deviceName\":\"NVIDIA H200\",\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,"
    "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":132,"
    "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,"
    "\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,"
    "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,"
    "\"totalGlobalMem\":150754820096}";

static int                      capability; /* of the GPU here; 0: there is none */
static cudnnHandle_t            handle;     /* with a GPU */
static cudnnBackendDescriptor_t described;  /* without */
static char                     missing[512];

/* cuDNN opens libcuda.so.1, the name by which the stub knows itself: once it is loaded, it is what is found. */
static int describe_gpu(void)
{
#ifdef SHOAL_CUDA_STUBS
    if (dlopen(SHOAL_CUDA_STUBS "/libcuda.so", RTLD_NOW | RTLD_GLOBAL) == NULL) {
        snprintf(missing, sizeof(missing), "no GPU, and no stub of its driver: %s", dlerror());
        return 0;
    }
    assert_int_equal(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &described), CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnnBackendSetAttribute(described, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, sizeof(h200), h200),
                     CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnnBackendFinalize(described), CUDNN_STATUS_SUCCESS);
#else
    snprintf(missing, sizeof(missing), "no GPU, and it is not known where the stub of its driver is");
#endif
    return 0;
}

static int find_gpu(void **state)
{
    (void)state;
    int count = 0, major = 0, minor = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        return describe_gpu();
    }
    assert_int_equal(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
    assert_int_equal(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), cudaSuccess);
    capability = 10 * major + minor;
    assert_int_equal(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
    return 0;
}

static int forget_gpu(void **state)
{
    (void)state;
    if (described != NULL) {
        cudnnBackendDestroyDescriptor(described);
    }
    if (handle != NULL) {
        cudnnDestroy(handle);
    }
    return 0;
}

static void skip_without_gpu_or_stub(void)
{
    if (missing[0] != '\0') {
        print_message("%s\n", missing);
        skip();
    }
}

/* Engines; q, k, v and their gradients in one row per token where `packed`. */

static shoal_cudnn_shape_t shape_of(shoal_cudnn_pass_t pass, size_t T, size_t H, size_t K, size_t D, bool packed)
{
    size_t row = (H + 2 * K) * D, ldq = packed ? row : H * D, ldk = packed ? row : K * D;
    return (shoal_cudnn_shape_t){pass, 2, T, H, K, D, ldq, ldk, ldk, H * D, ldq, ldk, ldk};
}

static void assert_engine(const shoal_cudnn_shape_t *shape)
{
    shoal_cudnn_graph_t      g;
    cudnnBackendDescriptor_t configs[SHOAL_CUDNN_MAX_CANDIDATES];
    shoal_cudnn_graph_build(&g, handle, shape);
    if (shoal_cudnn_graph_candidates(&g, described, CUDNN_HEUR_MODE_A, configs) == 0) {
        fail_msg("pass %zu T %zu H %zu K %zu D %zu: %s", shape->pass, shape->T, shape->H, shape->K, shape->D, g.why);
    }
    int engine = shoal_cudnn_graph_engine(&g, configs[0]);
    if (capability == 0 || capability == HOPPER) {
        assert_int_equal(engine, shape->pass == SHOAL_CUDNN_FORWARD ? FORWARD_ENGINE : BACKWARD_ENGINE);
    } else {
        assert_true(engine >= 0);
    }
    shoal_cudnn_graph_release(&g);
}

static void test_engines(void **state)
{
    (void)state;
    static const struct {
        size_t H, K, D;
    } heads[] = {{28, 28, 64}, {28, 7, 64}, {16, 16, 128}, {16, 4, 128}, {6, 3, 40}};
    static const size_t lengths[] = {64, 1000, 2048};
    skip_without_gpu_or_stub();
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            for (shoal_cudnn_pass_t pass = SHOAL_CUDNN_FORWARD; pass <= SHOAL_CUDNN_BACKWARD_ORDERED; pass++) {
                for (int packed = 0; packed <= 1; packed++) {
                    shoal_cudnn_shape_t shape = shape_of(pass, lengths[j], heads[i].H, heads[i].K, heads[i].D, packed);
                    assert_engine(&shape);
                }
            }
        }
    }
}

/*
 * The first configuration of sm_90's backward takes its turns from cuDNN 9.25 on, and not before; where it does, its kernel is planned
 * as far as without: to the end with a GPU, without one to its loading by the driver.
 */
static void test_serial(void **state)
{
    (void)state;
    enum { SERIAL_VERSION = 92500 };
    skip_without_gpu_or_stub();
    shoal_cudnn_graph_t      g;
    cudnnBackendDescriptor_t configs[SHOAL_CUDNN_MAX_CANDIDATES], plan = NULL;
    size_t                   nbytes = 0;
    shoal_cudnn_shape_t      shape  = shape_of(SHOAL_CUDNN_BACKWARD_SERIAL, 2048, 28, 7, 64, true);
    shoal_cudnn_graph_build(&g, handle, &shape);
    assert_true(shoal_cudnn_graph_candidates(&g, described, CUDNN_HEUR_MODE_A, configs) > 0);
    cudnnBackendDescriptor_t serial = shoal_cudnn_graph_serial(&g, configs[0]);
    assert_int_equal(serial != NULL, cudnnGetVersion() >= SERIAL_VERSION && (capability == 0 || capability == HOPPER));
    assert_int_equal(g.status, CUDNN_STATUS_SUCCESS);
    if (serial != NULL) {
        cudnnStatus_t expected = shoal_cudnn_graph_plan(&g, described, configs[0], &plan, &nbytes);
        assert_int_equal(shoal_cudnn_graph_plan(&g, described, serial, &plan, &nbytes), expected);
        assert_true(expected == CUDNN_STATUS_SUCCESS || expected == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER);
    }
    shoal_cudnn_graph_release(&g);
}

/* Heads of half a vector: an error with a cause, after which nothing is done, and which leaves nothing behind. */
static void test_refusal(void **state)
{
    (void)state;
    skip_without_gpu_or_stub();
    shoal_cudnn_graph_t      g;
    cudnnBackendDescriptor_t configs[SHOAL_CUDNN_MAX_CANDIDATES], plan = NULL;
    size_t                   nbytes = 1;
    shoal_cudnn_shape_t      shape  = shape_of(SHOAL_CUDNN_FORWARD, 256, 2, 2, 60, false);
    shoal_cudnn_graph_build(&g, handle, &shape);
    assert_int_equal(shoal_cudnn_graph_candidates(&g, described, CUDNN_HEUR_MODE_A, configs), 0);
    assert_int_not_equal(shoal_cudnn_graph_plan(&g, described, NULL, &plan, &nbytes), CUDNN_STATUS_SUCCESS);
    assert_null(plan);
    assert_int_equal(nbytes, 1);
    assert_non_null(strstr(g.why, "CUDNN_STATUS_"));
    shoal_cudnn_graph_release(&g);
    assert_int_equal(g.count, 0);
}

/* The device, with a kernel below cuDNN's that only counts how often it is run. */

static int    fallen_back;
static size_t other_nbytes;

static shoal_status_t other_run(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)cuda, (void)op, (void)args, (void)workspace;
    fallen_back++;
    return SHOAL_OK;
}

static size_t other_workspace(const shoal_cuda_t *cuda, const shoal_op_t *op)
{
    (void)cuda, (void)op;
    return other_nbytes;
}

static void open_cuda(shoal_cuda_t *cuda, bool deterministic)
{
    *cuda = (shoal_cuda_t){.device = -1, .capability = HOPPER, .deterministic = deterministic};
    for (int kind = 0; kind < SHOAL_OP_COMPUTE_COUNT; kind++) {
        for (int dtype = 0; dtype < SHOAL_CUDA_DTYPES; dtype++) {
            cuda->kernels[kind][dtype] = (shoal_cuda_kernel_t){other_run, other_workspace, "other", NULL};
        }
    }
    if (capability != 0) {
        cuda->device     = 0;
        cuda->capability = capability;
        assert_int_equal(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), cudaSuccess);
    }
    assert_int_equal(shoal_cuda_fill_cudnn(cuda), SHOAL_OK);
    fallen_back  = 0;
    other_nbytes = 0;
}

static void close_cuda(shoal_cuda_t *cuda)
{
    shoal_cuda_release_cudnn(cuda);
    if (cuda->stream != NULL) {
        cudaStreamDestroy(cuda->stream);
    }
}

static shoal_op_t op_of(shoal_op_kind_t kind, size_t B, size_t T, size_t H, size_t K, size_t D)
{
    size_t row = (H + 2 * K) * D;
    return (shoal_op_t){.kind      = kind,
                        .dtype     = SHOAL_BF16,
                        .attention = {B, T, H, K, D, row, row, row, H * D, row, row, row, 0.125f}};
}

static size_t workspace_of(shoal_cuda_t *cuda, const shoal_op_t *op)
{
    return cuda->kernels[op->kind][SHOAL_BF16].workspace(cuda, op);
}

/* In bf16 only; enough for cuDNN and for the kernel below it; and without T x T for a whole batch, or a whole long sequence. */
static void test_workspace(void **state)
{
    (void)state;
    const size_t MiB = (size_t)1 << 20;
    shoal_cuda_t cuda;
    shoal_op_t   forward = op_of(SHOAL_OP_ATTENTION, 8, 2048, 28, 28, 64), backward = op_of(SHOAL_OP_ATTENTION_BWD, 8, 2048, 28, 28, 64);
    shoal_op_t   longer = op_of(SHOAL_OP_ATTENTION_BWD, 1, 16384, 16, 16, 64), odd = op_of(SHOAL_OP_ATTENTION_BWD, 8, 2048, 28, 28, 60);

    open_cuda(&cuda, true);
    assert_string_equal(cuda.kernels[SHOAL_OP_ATTENTION][SHOAL_BF16].source, "cudnn");
    assert_string_equal(cuda.kernels[SHOAL_OP_ATTENTION_BWD][SHOAL_BF16].source, "cudnn");
    assert_string_equal(cuda.kernels[SHOAL_OP_ATTENTION][SHOAL_F32].source, "other");
    assert_string_equal(cuda.kernels[SHOAL_OP_ATTENTION_BWD][SHOAL_F32].source, "other");
    assert_true(workspace_of(&cuda, &forward) < MiB);
    size_t ordered = workspace_of(&cuda, &backward);
    assert_true(ordered > 2 * 28 * (size_t)2048 * 2048 && ordered < 260 * MiB);
    assert_true(workspace_of(&cuda, &longer) < 520 * MiB);
    assert_int_equal(workspace_of(&cuda, &odd), 0);
    other_nbytes = 300 * MiB;
    assert_int_equal(workspace_of(&cuda, &backward), other_nbytes);
    assert_int_equal(workspace_of(&cuda, &odd), other_nbytes);
    close_cuda(&cuda);

    open_cuda(&cuda, false);
    assert_true(workspace_of(&cuda, &backward) > 8 * 28 * 2048 * (size_t)64 * 4);
    close_cuda(&cuda);
}

/* Ops that cuDNN does not serve reach the kernel below where it is not required, as on sm_86. (These need no GPU: cuDNN is not asked.) */
static void test_falls_back(void **state)
{
    (void)state;
    shoal_cuda_t cuda;
    void        *args[SHOAL_OP_MAX_ARGS] = {NULL};
    shoal_op_t   ops[] = {op_of(SHOAL_OP_ATTENTION, 1, 63, 4, 2, 64), op_of(SHOAL_OP_ATTENTION, 1, 128, 4, 2, 60),
                          op_of(SHOAL_OP_ATTENTION_BWD, 1, 128, 4, 2, 136), op_of(SHOAL_OP_ATTENTION_BWD, 1, 128, 4, 2, 64)};
    ops[3].attention.lddv += 1;
    open_cuda(&cuda, true);
    cuda.capability = 86;
    for (int i = 0; i < 8; i++) {
        const shoal_op_t *op = &ops[i % 4];
        assert_int_equal(cuda.kernels[op->kind][SHOAL_BF16].run(&cuda, op, args, NULL), SHOAL_OK);
        assert_int_equal(fallen_back, i + 1);
    }
    close_cuda(&cuda);
}

/* With a GPU. */

static void run_here(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args)
{
    void *work = NULL;
    assert_int_equal(cudaMalloc(&work, workspace_of(cuda, op) + 1), cudaSuccess);
    assert_int_equal(cuda->kernels[op->kind][SHOAL_BF16].run(cuda, op, args, work), SHOAL_OK);
    assert_int_equal(cudaStreamSynchronize(cuda->stream), cudaSuccess);
    assert_int_equal(cudaFree(work), cudaSuccess);
}

/* Forward and backward of a packed row per token: cuDNN runs both in the workspace declared, and what was NaN is a number. */
static void assert_served(shoal_cuda_t *cuda, size_t B, size_t T, size_t H, size_t K, size_t D)
{
    size_t        row = (H + 2 * K) * D, packed = B * T * row * sizeof(shoal_bf16_t), out = B * T * H * D * sizeof(shoal_bf16_t);
    size_t        lse = B * H * T * sizeof(float), all = 2 * packed + 2 * out + lse;
    shoal_op_t    forward = op_of(SHOAL_OP_ATTENTION, B, T, H, K, D), backward = op_of(SHOAL_OP_ATTENTION_BWD, B, T, H, K, D);
    unsigned char *qkv = NULL, *numbers = malloc(packed);
    assert_int_equal(cudaMalloc((void **)&qkv, all), cudaSuccess);
    assert_non_null(numbers);
    assert_int_equal(cudaMemset(qkv, 0, packed), cudaSuccess); /* all keys alike: any row's output is the mean of values, zero */
    assert_int_equal(cudaMemset(qkv + packed, 0xff, all - packed), cudaSuccess);
    unsigned char *dqkv = qkv + packed, *o = dqkv + packed, *dout = o + out;
    size_t         k = H * D * sizeof(shoal_bf16_t), v = k + K * D * sizeof(shoal_bf16_t);
    void          *args[SHOAL_OP_MAX_ARGS] = {qkv, qkv + k, qkv + v, o, dout + out, dout, dqkv, dqkv + k, dqkv + v};
    run_here(cuda, &forward, args);
    assert_int_equal(cudaMemset(dout, 0, out), cudaSuccess);
    run_here(cuda, &backward, args);
    assert_int_equal(fallen_back, 0);
    assert_int_equal(cudaMemcpy(numbers, dqkv, packed, cudaMemcpyDeviceToHost), cudaSuccess);
    for (size_t i = 0; i < packed / sizeof(shoal_bf16_t); i++) {
        assert_int_equal(((shoal_bf16_t *)numbers)[i] & 0x7fff, 0);
    }
    free(numbers);
    cudaFree(qkv);
}

static void test_runs_here(void **state)
{
    (void)state;
    if (capability == 0) {
        print_message("no GPU\n");
        skip();
    }
    for (int deterministic = 0; deterministic <= 1; deterministic++) {
        shoal_cuda_t cuda;
        open_cuda(&cuda, deterministic);
        assert_served(&cuda, 2, 256, 4, 4, 64);
        assert_served(&cuda, 3, 130, 6, 3, 64);
        assert_served(&cuda, 2, 1000, 4, 2, 128);
        assert_served(&cuda, 1, 4096, 20, 10, 64); /* cut by heads where deterministic */
        close_cuda(&cuda);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines),    cmocka_unit_test(test_serial), cmocka_unit_test(test_refusal), cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_falls_back), cmocka_unit_test(test_runs_here),
    };
    return cmocka_run_group_tests(tests, find_gpu, forget_gpu);
}
