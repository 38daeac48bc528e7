/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which of cuDNN's configurations attention takes, and what happens when none will do. The library's functions are defined here, above
 * its own: their heuristics propose what a test has written into a table, and each configuration can be planned or not, and wants the
 * workspace that the table says. Nothing is computed; what would run is counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the five above */
#include <cmocka.h>
#include <cudnn.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cudnn_graph.h"
#include "tests/capture.h"

enum { MAX_CONFIGS = 4, MODES = 2, SERIAL_STAGES = 4 };

typedef struct {
    int    engine;
    bool   cannot; /* be planned */
    size_t nbytes; /* of workspace */
    bool   nondeterministic;
    int    stages; /* the largest value of that knob */
} config_t;

/* What the library is, and proposes: in mode A, then among its fallbacks. */
static struct {
    size_t   version;
    config_t configs[MODES][MAX_CONFIGS];
    int      count[MODES];
    bool     serial_cannot;
    size_t   serial_nbytes;
} library;

/* What has run. */
static struct {
    int executed, engine, own, destroyed, created;
    bool serial;
} seen;

typedef struct {
    cudnnBackendDescriptorType_t type;
    const config_t              *config;
    int                          mode, knob;
    int64_t                      value;
    bool                         serial;
} object_t;

/* ---- the library ---- */

size_t cudnnGetVersion(void)
{
    return library.version;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_NOT_SUPPORTED";
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    snprintf(message, max_size, "the table says so");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle_p)
{
    static int handle;
    *handle_p = (cudnnHandle_t)&handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    (void)handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    (void)handle, (void)stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor_p)
{
    object_t *object = calloc(1, sizeof(*object));
    object->type     = type;
    *descriptor_p    = object;
    seen.created++;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    free(descriptor);
    seen.destroyed++;
    return CUDNN_STATUS_SUCCESS;
}

/* A list of choices for knobs is complete when it has what the heuristics chose, the kernel's number, beside the stages. */
static cudnnStatus_t set_choices(object_t *config, int64_t count, object_t *const *choices)
{
    bool kernel = false;
    for (int64_t i = 0; i < count; i++) {
        kernel = kernel || choices[i]->knob == CUDNN_KNOB_TYPE_KERNEL_CFG;
        config->serial = config->serial || (choices[i]->knob == CUDNN_KNOB_TYPE_STAGES && choices[i]->value == SERIAL_STAGES);
    }
    return kernel ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    object_t *object = descriptor;
    (void)type;
    switch ((int)name) {
    case CUDNN_ATTR_ENGINEHEUR_MODE: object->mode = *(const cudnnBackendHeurMode_t *)values == CUDNN_HEUR_MODE_A ? 0 : 1; break;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE: object->knob = *(const cudnnBackendKnobType_t *)values; break;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE: object->value = *(const int64_t *)values; break;
    case CUDNN_ATTR_ENGINECFG_ENGINE: object->config = (*(object_t *const *)values)->config; break;
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES: return set_choices(object, count, (object_t *const *)values);
    case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
        object->config = (*(object_t *const *)values)->config;
        object->serial = (*(object_t *const *)values)->serial;
        break;
    default: break;
    }
    return CUDNN_STATUS_SUCCESS;
}

static int64_t give_results(const object_t *heuristics, int64_t most, object_t *const *configs)
{
    for (int i = 0; i < library.count[heuristics->mode] && i < most; i++) {
        configs[i]->config = &library.configs[heuristics->mode][i];
    }
    return library.count[heuristics->mode];
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t const name,
                                       cudnnBackendAttributeType_t const type, int64_t const most, int64_t *count_p, void *values_p)
{
    const object_t *object = descriptor;
    (void)type;
    *count_p = 1;
    switch ((int)name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS: *count_p = give_results(object, most, values_p); break;
    case CUDNN_ATTR_ENGINECFG_ENGINE: (*(object_t **)values_p)->config = object->config; break;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: *(int64_t *)values_p = object->config->engine; break;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        *(cudnnBackendNumericalNote_t *)values_p =
            object->config->nondeterministic ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
        break;
    case CUDNN_ATTR_ENGINE_KNOB_INFO:
        (*(object_t **)values_p)->knob  = CUDNN_KNOB_TYPE_STAGES;
        (*(object_t **)values_p)->value = object->config->stages;
        break;
    case CUDNN_ATTR_KNOB_INFO_TYPE: *(cudnnBackendKnobType_t *)values_p = object->knob; break;
    case CUDNN_ATTR_KNOB_INFO_MAXIMUM_VALUE: *(int64_t *)values_p = object->value; break;
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES: (*(object_t **)values_p)->knob = CUDNN_KNOB_TYPE_KERNEL_CFG; break;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE: *(cudnnBackendKnobType_t *)values_p = object->knob; break;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        *(int64_t *)values_p = (int64_t)(object->serial ? library.serial_nbytes : object->config->nbytes);
        break;
    default: return CUDNN_STATUS_BAD_PARAM;
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    const object_t *object = descriptor;
    bool cannot = object->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && (object->serial ? library.serial_cannot : object->config->cannot);
    return cannot ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    const object_t *object = plan;
    (void)handle, (void)pack;
    seen.executed++;
    seen.engine = object->config->engine;
    seen.serial = object->serial;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the device ---- */

static shoal_status_t own_run(shoal_cuda_t *cuda, const shoal_op_t *op, void *const *args, void *workspace)
{
    (void)cuda, (void)op, (void)args, (void)workspace;
    seen.own++;
    return SHOAL_OK;
}

static shoal_status_t open_cuda(shoal_cuda_t *cuda, int capability, shoal_attention_t attention)
{
    *cuda = (shoal_cuda_t){.device = 0, .capability = capability, .deterministic = true, .attention = attention};
    cuda->kernels[SHOAL_OP_ATTENTION][SHOAL_BF16]     = (shoal_cuda_kernel_t){own_run, NULL, "own", NULL};
    cuda->kernels[SHOAL_OP_ATTENTION_BWD][SHOAL_BF16] = (shoal_cuda_kernel_t){own_run, NULL, "own", NULL};
    memset(&seen, 0, sizeof(seen));
    return shoal_cuda_fill_cudnn(cuda);
}

static shoal_op_t op_of(shoal_op_kind_t kind, size_t B, size_t T, size_t H, size_t D)
{
    size_t row = 3 * H * D;
    return (shoal_op_t){.kind = kind, .dtype = SHOAL_BF16, .attention = {B, T, H, H, D, row, row, row, H * D, row, row, row, 0.125f}};
}

/* Runs an op once on a device of its own; the log is in capture_end's text, and everything made has been given back. */
static shoal_status_t run_on(int capability, shoal_attention_t attention, const shoal_op_t *op, const char **text_p)
{
    static _Alignas(256) unsigned char memory[4096];
    shoal_cuda_t                       cuda;
    void                              *args[SHOAL_OP_MAX_ARGS];
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        args[i] = memory;
    }
    capture_begin();
    shoal_status_t status = open_cuda(&cuda, capability, attention);
    if (status == SHOAL_OK) {
        status = cuda.kernels[op->kind][SHOAL_BF16].run(&cuda, op, args, memory);
    }
    shoal_cuda_release_cudnn(&cuda);
    *text_p = capture_end();
    assert_int_equal(seen.created, seen.destroyed);
    return status;
}

static void propose(size_t version, int mode, int count, const config_t *configs)
{
    library.version     = version;
    library.count[mode] = count;
    for (int i = 0; i < count; i++) {
        library.configs[mode][i] = configs[i];
    }
}

static int forget_library(void **state)
{
    (void)state;
    memset(&library, 0, sizeof(library));
    library.serial_nbytes = 4096;
    return 0;
}

static const size_t MUCH = (size_t)1 << 40;

/* ---- the choice ---- */

static void test_first(void **state)
{
    (void)state;
    const char *text;
    shoal_op_t  op = op_of(SHOAL_OP_ATTENTION, 2, 256, 4, 64);
    propose(91900, 0, 2, (config_t[]){{.engine = 2, .nbytes = 256}, {.engine = 1}});
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_int_equal(seen.executed, 1);
    assert_int_equal(seen.engine, 2);
    assert_string_equal(text, "");
}

/* One that cannot be planned and one that wants too much are passed over, in mode A and on into the fallbacks; and that is told. */
static void test_passes_over(void **state)
{
    (void)state;
    const char *text;
    shoal_op_t  op = op_of(SHOAL_OP_ATTENTION, 2, 256, 4, 64);
    propose(91900, 0, 3, (config_t[]){{.engine = 2, .cannot = true}, {.engine = 3, .nbytes = MUCH}, {.engine = 1}});
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_int_equal(seen.engine, 1);
    assert_contains(text, "rank number 3");
    library.count[0] = 2;
    propose(91900, 1, 1, (config_t[]){{.engine = 7}});
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_int_equal(seen.executed, 1);
    assert_int_equal(seen.engine, 7);
    assert_int_equal(seen.own, 0);
}

/* Where the bits must be the same every time, what is noted as changing them is no candidate. */
static void test_deterministic(void **state)
{
    (void)state;
    const char *text;
    shoal_op_t  op = op_of(SHOAL_OP_ATTENTION_BWD, 2, 256, 4, 64);
    propose(91900, 0, 2, (config_t[]){{.engine = 6, .nondeterministic = true}, {.engine = 7}});
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_int_equal(seen.engine, 7);
}

/* None will do: an error where cuDNN is expected or asked for, the slower kernel and a warning elsewhere, or where that is asked for. */
static void test_none(void **state)
{
    (void)state;
    const char *text;
    shoal_op_t  op = op_of(SHOAL_OP_ATTENTION, 2, 256, 4, 64);
    propose(91900, 0, 2, (config_t[]){{.engine = 2, .cannot = true}, {.engine = 3, .nbytes = MUCH}});
    for (int i = 0; i < 3; i++) {
        int capability = i == 0 ? 90 : i == 1 ? 80 : 86;
        assert_int_equal(run_on(capability, i < 2 ? SHOAL_ATTENTION_AUTO : SHOAL_ATTENTION_CUDNN, &op, &text), SHOAL_ERR_CONFIG);
        assert_contains(text, "cudnn 91900: no kernel for attention of B 2 T 256 H 4 K 4 D 64 on sm_");
        assert_contains(text, "of 2 configurations none will do");
        assert_contains(text, "CUDNN_STATUS_NOT_SUPPORTED (the table says so)");
        assert_contains(text, "the least workspace that one wants is 1099511627776 bytes, 1099511623680 more than the plan has reserved");
        assert_contains(text, "run.attention = \"own\"");
        assert_int_equal(seen.own + seen.executed, 0);
    }
    assert_int_equal(run_on(86, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_contains(text, "runs on a slower kernel (own)");
    assert_int_equal(seen.own, 1);
    library.count[0] = 0;
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_ERR_CONFIG);
    assert_contains(text, "its heuristics know no engine");
}

static void test_old(void **state)
{
    (void)state;
    shoal_cuda_t cuda;
    library.version = 91400;
    capture_begin();
    assert_int_equal(open_cuda(&cuda, 90, SHOAL_ATTENTION_AUTO), SHOAL_ERR_CONFIG);
    assert_contains(capture_end(), "version 91400 is too old, 91501 is the oldest that will do; run.attention = \"own\"");
    capture_begin();
    assert_int_equal(open_cuda(&cuda, 89, SHOAL_ATTENTION_AUTO), SHOAL_OK);
    assert_contains(capture_end(), "attention runs on slower kernels");
    assert_string_equal(cuda.kernels[SHOAL_OP_ATTENTION][SHOAL_BF16].source, "own");
}

/* Without a GPU, by the op alone: a plan is refused as its run would be. Sequences below 64 are meant for the other kernel. */
static void test_unserved(void **state)
{
    (void)state;
    shoal_cuda_t cuda;
    const char  *text;
    shoal_op_t   wide = op_of(SHOAL_OP_ATTENTION_BWD, 1, 128, 4, 136), brief = op_of(SHOAL_OP_ATTENTION, 1, 63, 4, 60);
    library.version = 91900;
    assert_int_equal(open_cuda(&cuda, 90, SHOAL_ATTENTION_AUTO), SHOAL_OK);
    capture_begin();
    assert_int_equal(shoal_cuda_cudnn_check(&cuda, &wide), SHOAL_ERR_CONFIG);
    assert_contains(capture_end(), "D 136 on sm_90: heads are not a multiple of 8 and at most 128 wide");
    assert_int_equal(shoal_cuda_cudnn_check(&cuda, &brief), SHOAL_OK);
    cuda.capability = 86;
    assert_int_equal(shoal_cuda_cudnn_check(&cuda, &wide), SHOAL_OK);
    shoal_cuda_release_cudnn(&cuda);
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &wide, &text), SHOAL_ERR_CONFIG);
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &brief, &text), SHOAL_OK);
    assert_int_equal(seen.own, 1);
    assert_string_equal(text, "");
}

/* ---- blocks that take turns ---- */

/* How many parts a deterministic backward runs in: 28 heads of 2048 tokens are one slice a sequence, or all 8 at once in turns. */
static void check_parts(size_t version, int capability, int stages, int parts, bool serial)
{
    const char *text;
    shoal_op_t  op = op_of(SHOAL_OP_ATTENTION_BWD, 8, 2048, 28, 64);
    propose(version, 0, 1, (config_t[]){{.engine = 6, .stages = stages}});
    assert_int_equal(run_on(capability, SHOAL_ATTENTION_AUTO, &op, &text), SHOAL_OK);
    assert_int_equal(seen.executed, parts);
    assert_int_equal(seen.serial, serial);
}

static void test_serial(void **state)
{
    (void)state;
    const char *text;
    shoal_op_t  small = op_of(SHOAL_OP_ATTENTION_BWD, 2, 256, 4, 64);
    check_parts(92501, 90, 4, 1, true);
    check_parts(92501, 90, 2, 8, false);
    check_parts(91900, 90, 4, 8, false);
    check_parts(92501, 80, 4, 8, false);
    library.serial_cannot = true;
    check_parts(92501, 90, 4, 8, false);
    library.serial_cannot = false;
    library.serial_nbytes = MUCH;
    check_parts(92501, 90, 4, 8, false);
    library.serial_nbytes = 4096;
    assert_int_equal(run_on(90, SHOAL_ATTENTION_AUTO, &small, &text), SHOAL_OK);
    assert_int_equal(seen.executed, 1);
    assert_false(seen.serial);
}

/* What turns may want is reserved where they may come, and grows with T as T; slices stay within their bound. */
static void test_reserve(void **state)
{
    (void)state;
    shoal_cuda_t cuda;
    size_t       nbytes[2];
    library.version = 92501;
    assert_int_equal(open_cuda(&cuda, 90, SHOAL_ATTENTION_AUTO), SHOAL_OK);
    for (int i = 0; i < 2; i++) {
        shoal_op_t op = op_of(SHOAL_OP_ATTENTION_BWD, 8, (size_t)16384 << i, 28, 64);
        nbytes[i]     = cuda.kernels[op.kind][SHOAL_BF16].workspace(&cuda, &op);
        assert_true(nbytes[i] >= 2 * 8 * ((size_t)16384 << i) * 28 * 64 * sizeof(float));
    }
    assert_true(nbytes[1] <= 2 * nbytes[0]);
    shoal_cuda_release_cudnn(&cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_first, forget_library),         cmocka_unit_test_setup(test_passes_over, forget_library),
        cmocka_unit_test_setup(test_deterministic, forget_library), cmocka_unit_test_setup(test_none, forget_library),
        cmocka_unit_test_setup(test_old, forget_library),           cmocka_unit_test_setup(test_unserved, forget_library),
        cmocka_unit_test_setup(test_serial, forget_library),        cmocka_unit_test_setup(test_reserve, forget_library),
    };
    return cmocka_run_group_tests_name("cudnn_choice", tests, NULL, NULL);
}
