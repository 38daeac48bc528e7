/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three layers: descriptors, whose errors are remembered rather than returned; the ops, each of which appends itself to the graph and
 * returns its output; and the passes, which read as the formulas that they are. A tensor that is not given lies between two ops
 * ("virtual") and, as a rule, never in memory.
 *
 * Dimensions are (B, heads, T, D), of scores (B, heads, T, T), whatever the order in memory, which the strides say.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cudnn_graph.h"

typedef cudnnBackendDescriptor_t descriptor_t;
typedef shoal_cudnn_graph_t      graph_t;

enum { RANK = 4, ALIGNMENT = 16, FIRST_VIRTUAL_ID = 100, QUERY_AXIS = 2, KEY_AXIS = 3, MAX_KNOBS = 16, SM90_BACKWARD_ENGINE = 6 };

typedef struct {
    int64_t dims[RANK], strides[RANK];
} layout_t;

void shoal_cudnn_explain(cudnnStatus_t status, const char *call, char why_p[static SHOAL_CUDNN_WHY_SIZE])
{
    char cause[200] = "";
    cudnnGetLastErrorString(cause, sizeof(cause));
    snprintf(why_p, SHOAL_CUDNN_WHY_SIZE, "%.80s: %s%s%.*s%s", call, cudnnGetErrorString(status), cause[0] != '\0' ? " (" : "",
             (int)strcspn(cause, "\n"), cause, cause[0] != '\0' ? ")" : "");
}

static void fail(graph_t *g, cudnnStatus_t status, const char *call)
{
    g->status = status;
    shoal_cudnn_explain(status, call, g->why);
}

/* Descriptors. */

static descriptor_t make(graph_t *g, cudnnBackendDescriptorType_t type)
{
    descriptor_t descriptor = NULL;
    if (g->status != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    if (g->count == SHOAL_CUDNN_MAX_DESCRIPTORS) {
        fail(g, CUDNN_STATUS_INTERNAL_ERROR, "SHOAL_CUDNN_MAX_DESCRIPTORS");
        return NULL;
    }
    cudnnStatus_t status = cudnnBackendCreateDescriptor(type, &descriptor);
    if (status != CUDNN_STATUS_SUCCESS) {
        fail(g, status, "cudnnBackendCreateDescriptor");
        return NULL;
    }
    g->all[g->count++] = descriptor;
    return descriptor;
}

static void set(graph_t *g, descriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                const void *values)
{
    if (g->status == CUDNN_STATUS_SUCCESS) {
        cudnnStatus_t status = cudnnBackendSetAttribute(descriptor, name, type, count, values);
        if (status != CUDNN_STATUS_SUCCESS) {
            fail(g, status, "cudnnBackendSetAttribute");
        }
    }
}

static void set_descriptor(graph_t *g, descriptor_t descriptor, cudnnBackendAttributeName_t name, descriptor_t value)
{
    set(g, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(graph_t *g, descriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnDataType_t value)
{
    set(g, descriptor, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static void finalize(graph_t *g, descriptor_t descriptor, const char *what)
{
    if (g->status == CUDNN_STATUS_SUCCESS) {
        cudnnStatus_t status = cudnnBackendFinalize(descriptor);
        if (status != CUDNN_STATUS_SUCCESS) {
            fail(g, status, what);
        }
    }
}

/* Tensors. */

static layout_t dense(size_t batch, size_t heads, size_t rows, size_t columns)
{
    int64_t b = (int64_t)batch, h = (int64_t)heads, r = (int64_t)rows, c = (int64_t)columns;
    return (layout_t){{b, h, r, c}, {h * r * c, r * c, c, 1}};
}

/* (B, heads, T, D) of rows of heads, `ld` elements apart. */
static layout_t heads_of(const shoal_cudnn_shape_t *s, size_t heads, size_t ld)
{
    layout_t layout = dense(s->B, heads, s->T, s->D);
    layout.strides[0] = (int64_t)(s->T * ld);
    layout.strides[1] = (int64_t)s->D;
    layout.strides[2] = (int64_t)ld;
    return layout;
}

static layout_t transposed(layout_t layout)
{
    layout_t t = layout;
    t.dims[2] = layout.dims[3], t.strides[2] = layout.strides[3];
    t.dims[3] = layout.dims[2], t.strides[3] = layout.strides[2];
    return t;
}

static descriptor_t tensor(graph_t *g, int64_t id, layout_t layout, cudnnDataType_t type, int64_t alignment, bool is_virtual, bool by_value)
{
    descriptor_t t = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, RANK, layout.dims);
    set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, RANK, layout.strides);
    set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    set(g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    finalize(g, t, "tensor");
    return t;
}

static descriptor_t between(graph_t *g, layout_t layout, cudnnDataType_t type)
{
    return tensor(g, FIRST_VIRTUAL_ID + g->count, layout, type, ALIGNMENT, true, false);
}

static descriptor_t given(graph_t *g, shoal_cudnn_tensor_t id, layout_t layout, cudnnDataType_t type)
{
    g->given[id] = true;
    return tensor(g, (int64_t)id, layout, type, id == SHOAL_CUDNN_LSE ? (int64_t)sizeof(float) : ALIGNMENT, false, false);
}

static descriptor_t scalar(graph_t *g, shoal_cudnn_tensor_t id)
{
    g->given[id] = true;
    return tensor(g, (int64_t)id, dense(1, 1, 1, 1), CUDNN_DATA_FLOAT, sizeof(float), false, true);
}

/* Ops: each computes y in fp32, appends itself and returns y. */

static descriptor_t append(graph_t *g, descriptor_t op, const char *what, descriptor_t y)
{
    finalize(g, op, what);
    if (g->status == CUDNN_STATUS_SUCCESS && g->nops == SHOAL_CUDNN_MAX_OPS) {
        fail(g, CUDNN_STATUS_INTERNAL_ERROR, "SHOAL_CUDNN_MAX_OPS");
    }
    if (g->status == CUDNN_STATUS_SUCCESS) {
        g->ops[g->nops++] = op;
    }
    return y;
}

static descriptor_t matmul(graph_t *g, descriptor_t a, descriptor_t b, descriptor_t y)
{
    descriptor_t math = make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, math, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    finalize(g, math, "matmul's arithmetic");
    descriptor_t op = make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, math);
    return append(g, op, "matmul", y);
}

/* Over every axis in which y is shorter than x. */
static descriptor_t reduce(graph_t *g, cudnnReduceTensorOp_t how, descriptor_t x, descriptor_t y)
{
    descriptor_t math = make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(g, math, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    set_type(g, math, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    finalize(g, math, "reduction's arithmetic");
    descriptor_t op = make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, math);
    return append(g, op, "reduction", y);
}

static descriptor_t reshape(graph_t *g, descriptor_t x, descriptor_t y)
{
    descriptor_t op = make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    return append(g, op, "reshape", y);
}

/* b and t are NULL for modes of fewer inputs; `axis` is for GEN_INDEX, else negative. */
static descriptor_t pointwise(graph_t *g, cudnnPointwiseMode_t mode, descriptor_t x, descriptor_t b, descriptor_t t, int64_t axis,
                              descriptor_t y)
{
    descriptor_t math = make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, math, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, math, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    if (axis >= 0) {
        set(g, math, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    }
    finalize(g, math, "pointwise arithmetic");
    descriptor_t op = make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, math);
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != NULL) {
        set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    }
    if (t != NULL) {
        set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    }
    set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return append(g, op, "pointwise", y);
}

static descriptor_t unary(graph_t *g, cudnnPointwiseMode_t mode, descriptor_t x, descriptor_t y)
{
    return pointwise(g, mode, x, NULL, NULL, -1, y);
}

static descriptor_t binary(graph_t *g, cudnnPointwiseMode_t mode, descriptor_t x, descriptor_t b, descriptor_t y)
{
    return pointwise(g, mode, x, b, NULL, -1, y);
}

/* Scores (B,H,T,T) of keys later than the query become minus infinity. */
static descriptor_t causal(graph_t *g, descriptor_t scores, layout_t layout)
{
    descriptor_t query   = pointwise(g, CUDNN_POINTWISE_GEN_INDEX, scores, NULL, NULL, QUERY_AXIS, between(g, layout, CUDNN_DATA_INT32));
    descriptor_t key     = pointwise(g, CUDNN_POINTWISE_GEN_INDEX, scores, NULL, NULL, KEY_AXIS, between(g, layout, CUDNN_DATA_INT32));
    descriptor_t visible = binary(g, CUDNN_POINTWISE_CMP_GE, query, key, between(g, layout, CUDNN_DATA_BOOLEAN));
    descriptor_t lowest  = scalar(g, SHOAL_CUDNN_LOWEST);
    return pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, scores, lowest, visible, -1, between(g, layout, CUDNN_DATA_FLOAT));
}

/* o = softmax(scale q k^T) v, lse = max + log(sum exp(scores - max)). */
static void forward(graph_t *g, const shoal_cudnn_shape_t *s)
{
    const cudnnDataType_t F32 = CUDNN_DATA_FLOAT, BF16 = CUDNN_DATA_BFLOAT16;
    layout_t     scores = dense(s->B, s->H, s->T, s->T), rows = dense(s->B, s->H, s->T, 1);
    descriptor_t q   = given(g, SHOAL_CUDNN_Q, heads_of(s, s->H, s->ldq), BF16);
    descriptor_t k_t = given(g, SHOAL_CUDNN_K, transposed(heads_of(s, s->K, s->ldk)), BF16);
    descriptor_t v   = given(g, SHOAL_CUDNN_V, heads_of(s, s->K, s->ldv), BF16);
    descriptor_t o   = given(g, SHOAL_CUDNN_O, heads_of(s, s->H, s->ldo), BF16);
    descriptor_t lse = given(g, SHOAL_CUDNN_LSE, rows, F32);

    descriptor_t x = matmul(g, q, k_t, between(g, scores, F32));
    x = binary(g, CUDNN_POINTWISE_MUL, x, scalar(g, SHOAL_CUDNN_SCALE), between(g, scores, F32));
    x = causal(g, x, scores);
    descriptor_t max = reduce(g, CUDNN_REDUCE_TENSOR_MAX, x, between(g, rows, F32));
    x = binary(g, CUDNN_POINTWISE_SUB, x, max, between(g, scores, F32));
    x = unary(g, CUDNN_POINTWISE_EXP, x, between(g, scores, F32));
    descriptor_t sum = reduce(g, CUDNN_REDUCE_TENSOR_ADD, x, between(g, rows, F32));
    descriptor_t log = unary(g, CUDNN_POINTWISE_LOG, sum, between(g, rows, F32));
    binary(g, CUDNN_POINTWISE_ADD, max, log, lse);
    descriptor_t p = binary(g, CUDNN_POINTWISE_DIV, x, sum, between(g, scores, BF16)); /* in fp32, no kernel is found */
    matmul(g, p, v, o);
}

/* dk or dv = a b, where a (B,H,T,T) has a column per query; where heads share keys, their sum. */
static void key_gradient(graph_t *g, const shoal_cudnn_shape_t *s, descriptor_t a, descriptor_t b, descriptor_t y)
{
    if (s->H == s->K) {
        matmul(g, a, b, y);
    } else {
        descriptor_t by_head = between(g, dense(s->B, s->H, s->T, s->D), CUDNN_DATA_BFLOAT16);
        reduce(g, CUDNN_REDUCE_TENSOR_ADD, matmul(g, a, b, by_head), y);
    }
}

/* p = exp(scale q k^T - lse), which is the softmax again. */
static descriptor_t probabilities(graph_t *g, const shoal_cudnn_shape_t *s, descriptor_t q, descriptor_t k_t, descriptor_t scale)
{
    const cudnnDataType_t F32 = CUDNN_DATA_FLOAT;
    layout_t     scores = dense(s->B, s->H, s->T, s->T);
    descriptor_t lse    = given(g, SHOAL_CUDNN_LSE, dense(s->B, s->H, s->T, 1), F32);
    descriptor_t x      = matmul(g, q, k_t, between(g, scores, F32));
    x = binary(g, CUDNN_POINTWISE_MUL, x, scale, between(g, scores, F32));
    x = binary(g, CUDNN_POINTWISE_SUB, x, lse, between(g, scores, F32));
    x = causal(g, x, scores);
    return unary(g, CUDNN_POINTWISE_EXP, x, between(g, scores, F32));
}

/* delta (B,H,T) = sum over D of o * do: what the softmax's gradient subtracts. Times one, where dropout would rescale. */
static descriptor_t row_correction(graph_t *g, const shoal_cudnn_shape_t *s, descriptor_t dout)
{
    const cudnnDataType_t F32 = CUDNN_DATA_FLOAT;
    layout_t     heads = dense(s->B, s->H, s->T, s->D), rows = dense(s->B, s->H, s->T, 1);
    descriptor_t o       = given(g, SHOAL_CUDNN_O, heads_of(s, s->H, s->ldo), CUDNN_DATA_BFLOAT16);
    descriptor_t product = binary(g, CUDNN_POINTWISE_MUL, dout, o, between(g, heads, F32));
    descriptor_t sum     = reduce(g, CUDNN_REDUCE_TENSOR_ADD, product, between(g, rows, F32));
    return binary(g, CUDNN_POINTWISE_MUL, sum, scalar(g, SHOAL_CUDNN_ONE), given(g, SHOAL_CUDNN_DELTA, rows, F32));
}

/* dq = ds k, through a sum in fp32 in memory where the order of its additions is left open. */
static void query_gradient(graph_t *g, const shoal_cudnn_shape_t *s, descriptor_t ds, descriptor_t k_t)
{
    descriptor_t k  = reshape(g, k_t, between(g, heads_of(s, s->K, s->ldk), CUDNN_DATA_BFLOAT16));
    descriptor_t dq = given(g, SHOAL_CUDNN_DQ, heads_of(s, s->H, s->lddq), CUDNN_DATA_BFLOAT16);
    if (s->pass == SHOAL_CUDNN_BACKWARD_ORDERED) {
        matmul(g, ds, k, dq);
    } else {
        descriptor_t sum = given(g, SHOAL_CUDNN_DQ_SUM, dense(s->B, s->H, s->T, s->D), CUDNN_DATA_FLOAT);
        unary(g, CUDNN_POINTWISE_IDENTITY, matmul(g, ds, k, sum), dq);
    }
}

/* dv = p^T do, dp = do v^T, ds = scale p (dp - delta), dk = ds^T q, dq = ds k. */
static void backward(graph_t *g, const shoal_cudnn_shape_t *s)
{
    const cudnnDataType_t F32 = CUDNN_DATA_FLOAT, BF16 = CUDNN_DATA_BFLOAT16;
    layout_t     scores = dense(s->B, s->H, s->T, s->T), by_key = transposed(scores);
    descriptor_t q     = given(g, SHOAL_CUDNN_Q, heads_of(s, s->H, s->ldq), BF16);
    descriptor_t k_t   = given(g, SHOAL_CUDNN_K, transposed(heads_of(s, s->K, s->ldk)), BF16);
    descriptor_t v_t   = given(g, SHOAL_CUDNN_V, transposed(heads_of(s, s->K, s->ldv)), BF16);
    descriptor_t dout  = given(g, SHOAL_CUDNN_DO, heads_of(s, s->H, s->ldo), BF16);
    descriptor_t dk    = given(g, SHOAL_CUDNN_DK, heads_of(s, s->K, s->lddk), BF16);
    descriptor_t dv    = given(g, SHOAL_CUDNN_DV, heads_of(s, s->K, s->lddv), BF16);
    descriptor_t scale = scalar(g, SHOAL_CUDNN_SCALE);

    descriptor_t delta = row_correction(g, s, dout);
    descriptor_t p     = probabilities(g, s, q, k_t, scale);
    key_gradient(g, s, reshape(g, p, between(g, by_key, BF16)), dout, dv);

    descriptor_t x = matmul(g, dout, v_t, between(g, scores, F32));
    x = binary(g, CUDNN_POINTWISE_SUB, x, delta, between(g, scores, F32));
    x = binary(g, CUDNN_POINTWISE_MUL, x, p, between(g, scores, F32));
    descriptor_t ds = binary(g, CUDNN_POINTWISE_MUL, x, scale, between(g, scores, F32));
    key_gradient(g, s, reshape(g, ds, between(g, by_key, BF16)), q, dk);
    query_gradient(g, s, ds, k_t);
}

cudnnStatus_t shoal_cudnn_graph_build(shoal_cudnn_graph_t *g, cudnnHandle_t handle, const shoal_cudnn_shape_t *shape)
{
    memset(g, 0, sizeof(*g));
    g->handle = handle;
    if (shape->pass == SHOAL_CUDNN_FORWARD) {
        forward(g, shape);
    } else {
        backward(g, shape);
    }
    g->graph = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->nops, g->ops);
    if (handle != NULL) {
        set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    }
    finalize(g, g->graph, "graph");
    return g->status;
}

/* Planning. */

/* Up to `most` values; returns how many there are. Descriptors are written into ones that exist. */
static int64_t get(graph_t *g, descriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most,
                   void *values_p)
{
    int64_t count = 0;
    if (g->status == CUDNN_STATUS_SUCCESS) {
        cudnnStatus_t status = cudnnBackendGetAttribute(descriptor, name, type, most, &count, values_p);
        if (status != CUDNN_STATUS_SUCCESS) {
            fail(g, status, "cudnnBackendGetAttribute");
        }
    }
    return g->status != CUDNN_STATUS_SUCCESS ? 0 : count < most ? count : most;
}

/* An attribute that is a list of at most `most` descriptors. */
static int get_list(graph_t *g, descriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type, int most,
                    descriptor_t *list_p)
{
    for (int i = 0; i < most; i++) {
        list_p[i] = make(g, type);
    }
    return (int)get(g, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, list_p);
}

int shoal_cudnn_graph_candidates(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t device, cudnnBackendHeurMode_t mode,
                                 cudnnBackendDescriptor_t configs_p[static SHOAL_CUDNN_MAX_CANDIDATES])
{
    descriptor_t choice = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(g, choice, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
    set(g, choice, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (device != NULL) {
        set_descriptor(g, choice, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    }
    finalize(g, choice, "heuristics");
    return get_list(g, choice, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, SHOAL_CUDNN_MAX_CANDIDATES, configs_p);
}

static descriptor_t engine_of(graph_t *g, descriptor_t config)
{
    descriptor_t engine = make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    get(g, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    return engine;
}

int shoal_cudnn_graph_engine(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t config)
{
    int64_t index = -1;
    get(g, engine_of(g, config), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    return g->status == CUDNN_STATUS_SUCCESS ? (int)index : -1;
}

static bool is_nondeterministic(graph_t *g, descriptor_t config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = get(g, engine_of(g, config), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                        CUDNN_NUMERICAL_NOTE_TYPE_COUNT, notes);
    while (count > 0 && notes[count - 1] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) {
        count--;
    }
    return count > 0;
}

/* The largest value that an engine takes for a knob, or -1 where it has no such knob. */
static int64_t largest_setting(graph_t *g, descriptor_t engine, cudnnBackendKnobType_t knob)
{
    descriptor_t infos[MAX_KNOBS];
    int64_t      largest = -1;
    int          count   = get_list(g, engine, CUDNN_ATTR_ENGINE_KNOB_INFO, CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR, MAX_KNOBS, infos);
    for (int i = 0; i < count; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        get(g, infos[i], CUDNN_ATTR_KNOB_INFO_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        if (type == knob) {
            get(g, infos[i], CUDNN_ATTR_KNOB_INFO_MAXIMUM_VALUE, CUDNN_TYPE_INT64, 1, &largest);
        }
    }
    return largest;
}

/* The choices of a configuration, and one more or another for `knob`; returns how many. */
static int choices_with(graph_t *g, descriptor_t config, cudnnBackendKnobType_t knob, int64_t value, descriptor_t choices_p[MAX_KNOBS])
{
    int count = get_list(g, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, MAX_KNOBS - 1, choices_p);
    int place = 0;
    for (bool found = false; place < count && !found; place += !found) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        get(g, choices_p[place], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        found = type == knob;
    }
    descriptor_t choice = make(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    set(g, choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob);
    set(g, choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &value);
    finalize(g, choice, "choice for a knob");
    choices_p[place] = choice;
    return place < count ? count : count + 1;
}

/*
 * cuDNN documents no name for it: four stages of the backward engine of sm_90 mean that its blocks take turns at dq. Before 9.25 the knob
 * ends at 2. The other knobs stay as the heuristics have set them.
 */
cudnnBackendDescriptor_t shoal_cudnn_graph_serial(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t config)
{
    const int64_t SERIAL_STAGES = 4;
    descriptor_t  engine = engine_of(g, config), choices[MAX_KNOBS];
    int64_t       index  = shoal_cudnn_graph_engine(g, config);
    if (index != SM90_BACKWARD_ENGINE || largest_setting(g, engine, CUDNN_KNOB_TYPE_STAGES) < SERIAL_STAGES) {
        snprintf(g->why, sizeof(g->why), "engine %d cannot add to dq in order", (int)index);
        return NULL;
    }
    int          count  = choices_with(g, config, CUDNN_KNOB_TYPE_STAGES, SERIAL_STAGES, choices);
    descriptor_t serial = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_descriptor(g, serial, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    set(g, serial, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, choices);
    finalize(g, serial, "configuration");
    return g->status == CUDNN_STATUS_SUCCESS ? serial : NULL;
}

cudnnStatus_t shoal_cudnn_graph_plan(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t device, cudnnBackendDescriptor_t config,
                                     cudnnBackendDescriptor_t *plan_p, size_t *workspace_p)
{
    int64_t nbytes = 0;
    if (g->status != CUDNN_STATUS_SUCCESS) {
        return g->status;
    }
    descriptor_t plan = make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (device != NULL) {
        set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    } else {
        set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    }
    finalize(g, plan, "plan");
    get(g, plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &nbytes);
    cudnnStatus_t status = g->status;
    g->status            = CUDNN_STATUS_SUCCESS;
    if (status == CUDNN_STATUS_SUCCESS) {
        *plan_p      = plan;
        *workspace_p = (size_t)nbytes;
    }
    return status;
}

/* Trying configurations one after the other, and what to say if none will do. */
typedef struct {
    shoal_cudnn_pass_t pass;
    size_t             nbytes, least; /* that a plan may want, and that the smallest wanted which wanted more */
    int                tried;
    char               first[SHOAL_CUDNN_WHY_SIZE]; /* what the first of them lacked */
} trial_t;

/* False leaves the reason in g->why. */
static bool try_config(graph_t *g, trial_t *trial, descriptor_t config, shoal_cudnn_choice_t *choice_p)
{
    descriptor_t plan   = NULL;
    size_t       nbytes = 0;
    int          engine = shoal_cudnn_graph_engine(g, config);
    bool         same   = trial->pass == SHOAL_CUDNN_BACKWARD_ORDERED || trial->pass == SHOAL_CUDNN_BACKWARD_SERIAL;
    if (same && is_nondeterministic(g, config)) {
        snprintf(g->why, sizeof(g->why), "engine %d is noted as nondeterministic", engine);
        return false;
    }
    config = trial->pass == SHOAL_CUDNN_BACKWARD_SERIAL ? shoal_cudnn_graph_serial(g, config) : config;
    if (config == NULL || shoal_cudnn_graph_plan(g, NULL, config, &plan, &nbytes) != CUDNN_STATUS_SUCCESS) {
        return false;
    }
    if (nbytes > trial->nbytes) {
        snprintf(g->why, sizeof(g->why), "engine %d wants %zu bytes of workspace", engine, nbytes);
        trial->least = nbytes < trial->least ? nbytes : trial->least;
        return false;
    }
    *choice_p = (shoal_cudnn_choice_t){plan, engine, trial->tried};
    return true;
}

static bool try_mode(graph_t *g, trial_t *trial, cudnnBackendHeurMode_t mode, shoal_cudnn_choice_t *choice_p)
{
    descriptor_t configs[SHOAL_CUDNN_MAX_CANDIDATES];
    int          count = shoal_cudnn_graph_candidates(g, NULL, mode, configs);
    for (int i = 0; i < count; i++) {
        if (try_config(g, trial, configs[i], choice_p)) {
            return true;
        }
        if (trial->tried++ == 0) {
            memcpy(trial->first, g->why, sizeof(trial->first));
        }
        g->status = CUDNN_STATUS_SUCCESS; /* what one configuration lacks, another may have */
    }
    return false;
}

static void explain_trial(graph_t *g, const trial_t *trial)
{
    char missed[128] = "";
    if (trial->least != SIZE_MAX) {
        snprintf(missed, sizeof(missed), "; the least workspace that one wants is %zu bytes, %zu more than the plan has reserved", trial->least,
                 trial->least - trial->nbytes);
    }
    if (trial->tried == 0 && g->status == CUDNN_STATUS_SUCCESS) {
        snprintf(g->why, sizeof(g->why), "its heuristics know no engine");
    } else if (trial->tried > 0) {
        snprintf(g->why, sizeof(g->why), "of %d configurations none will do, the first since: %.140s%s", trial->tried, trial->first, missed);
    }
    g->status = g->status == CUDNN_STATUS_SUCCESS ? CUDNN_STATUS_NOT_SUPPORTED : g->status;
}

cudnnStatus_t shoal_cudnn_graph_select(shoal_cudnn_graph_t *g, shoal_cudnn_pass_t pass, size_t nbytes, shoal_cudnn_choice_t *choice_p)
{
    trial_t trial = {.pass = pass, .nbytes = nbytes, .least = SIZE_MAX};
    if (g->status != CUDNN_STATUS_SUCCESS || try_mode(g, &trial, CUDNN_HEUR_MODE_A, choice_p)) {
        return g->status;
    }
    g->status = CUDNN_STATUS_SUCCESS; /* mode A may be an error where no engine of its kind is */
    if (!try_mode(g, &trial, CUDNN_HEUR_MODE_FALLBACK, choice_p)) {
        explain_trial(g, &trial);
    }
    return g->status;
}

void shoal_cudnn_graph_release(shoal_cudnn_graph_t *g)
{
    while (g->count > 0) {
        cudnnBackendDestroyDescriptor(g->all[--g->count]);
    }
}
