/* SPDX-License-Identifier: BSD-3-Clause */
/* The tensor table and what is derived from it. Initial values are "ScaledGPT" of arXiv 2602.05298. */
#include "runtime/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"

/* How a shape depends on the model. */
typedef enum { DIM_ONE, DIM_C, DIM_D, DIM_HD, DIM_KD, DIM_F, DIM_V, DIM_T } dim_t;
typedef enum { INIT_ONE, INIT_ZERO, INIT_FAN_IN, INIT_OUTPUT, INIT_EMBED } init_t;
typedef enum { IF_ALWAYS, IF_BIAS, IF_QK_NORM, IF_SWIGLU, IF_SWIGLU_BIAS, IF_LEARNED_POS, IF_UNTIED } condition_t;

typedef struct {
    const char       *name; /* behind the unit's prefix */
    shoal_unit_kind_t unit;
    dim_t             rows, cols;
    init_t            init;
    condition_t       condition;
    bool              packed; /* no gap before it */
} slot_rule_t;

static const slot_rule_t slots[SHOAL_T_COUNT] = {
    [SHOAL_T_TOK]             = {"tok", SHOAL_UNIT_EMBED, DIM_V, DIM_C, INIT_EMBED, IF_ALWAYS, false},
    [SHOAL_T_POS]             = {"pos", SHOAL_UNIT_EMBED, DIM_T, DIM_C, INIT_EMBED, IF_LEARNED_POS, false},
    [SHOAL_T_NORM1]           = {"norm1.weight", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ONE, IF_ALWAYS, false},
    [SHOAL_T_NORM1_BIAS]      = {"norm1.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_Q]               = {"attn.q.weight", SHOAL_UNIT_BLOCK, DIM_HD, DIM_C, INIT_FAN_IN, IF_ALWAYS, false},
    [SHOAL_T_K]               = {"attn.k.weight", SHOAL_UNIT_BLOCK, DIM_KD, DIM_C, INIT_FAN_IN, IF_ALWAYS, true},
    [SHOAL_T_V]               = {"attn.v.weight", SHOAL_UNIT_BLOCK, DIM_KD, DIM_C, INIT_FAN_IN, IF_ALWAYS, true},
    [SHOAL_T_Q_BIAS]          = {"attn.q.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_HD, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_K_BIAS]          = {"attn.k.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_KD, INIT_ZERO, IF_BIAS, true},
    [SHOAL_T_V_BIAS]          = {"attn.v.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_KD, INIT_ZERO, IF_BIAS, true},
    [SHOAL_T_QNORM]           = {"attn.qnorm.weight", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_D, INIT_ONE, IF_QK_NORM, false},
    [SHOAL_T_KNORM]           = {"attn.knorm.weight", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_D, INIT_ONE, IF_QK_NORM, false},
    [SHOAL_T_O]               = {"attn.o.weight", SHOAL_UNIT_BLOCK, DIM_C, DIM_HD, INIT_OUTPUT, IF_ALWAYS, false},
    [SHOAL_T_O_BIAS]          = {"attn.o.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_NORM2]           = {"norm2.weight", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ONE, IF_ALWAYS, false},
    [SHOAL_T_NORM2_BIAS]      = {"norm2.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_FC]              = {"mlp.fc.weight", SHOAL_UNIT_BLOCK, DIM_F, DIM_C, INIT_FAN_IN, IF_ALWAYS, false},
    [SHOAL_T_UP]              = {"mlp.up.weight", SHOAL_UNIT_BLOCK, DIM_F, DIM_C, INIT_FAN_IN, IF_SWIGLU, true},
    [SHOAL_T_FC_BIAS]         = {"mlp.fc.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_F, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_UP_BIAS]         = {"mlp.up.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_F, INIT_ZERO, IF_SWIGLU_BIAS, true},
    [SHOAL_T_DOWN]            = {"mlp.down.weight", SHOAL_UNIT_BLOCK, DIM_C, DIM_F, INIT_OUTPUT, IF_ALWAYS, false},
    [SHOAL_T_DOWN_BIAS]       = {"mlp.down.bias", SHOAL_UNIT_BLOCK, DIM_ONE, DIM_C, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_FINAL_NORM]      = {"norm.weight", SHOAL_UNIT_HEAD, DIM_ONE, DIM_C, INIT_ONE, IF_ALWAYS, false},
    [SHOAL_T_FINAL_NORM_BIAS] = {"norm.bias", SHOAL_UNIT_HEAD, DIM_ONE, DIM_C, INIT_ZERO, IF_BIAS, false},
    [SHOAL_T_HEAD]            = {"head.weight", SHOAL_UNIT_HEAD, DIM_V, DIM_C, INIT_FAN_IN, IF_UNTIED, false},
};

static size_t dim_of(const shoal_model_spec_t *spec, dim_t dim)
{
    switch (dim) {
    case DIM_ONE: return 1;
    case DIM_C: return spec->d_model;
    case DIM_D: return spec->head_dim;
    case DIM_HD: return spec->heads * spec->head_dim;
    case DIM_KD: return spec->kv_heads * spec->head_dim;
    case DIM_F: return spec->ffn;
    case DIM_V: return spec->vocab;
    case DIM_T: return spec->seq;
    }
    return 0;
}

static bool present(const shoal_model_spec_t *spec, condition_t condition)
{
    switch (condition) {
    case IF_ALWAYS: return true;
    case IF_BIAS: return spec->bias;
    case IF_QK_NORM: return spec->qk_norm;
    case IF_SWIGLU: return spec->act == SHOAL_ACT_SWIGLU;
    case IF_SWIGLU_BIAS: return spec->act == SHOAL_ACT_SWIGLU && spec->bias;
    case IF_LEARNED_POS: return spec->pos == SHOAL_POS_LEARNED;
    case IF_UNTIED: return !spec->tied;
    }
    return false;
}

static double init_std(const shoal_model_spec_t *spec, init_t init, size_t fan_in)
{
    switch (init) {
    case INIT_FAN_IN: return 1.0 / sqrt((double)fan_in);
    case INIT_OUTPUT: return 1.0 / sqrt(2.0 * (double)fan_in * (double)spec->layers);
    case INIT_EMBED: return 1.0 / sqrt((double)spec->d_model);
    default: return 0.0;
    }
}

/* SwiGLU's first matrix goes by its usual name. */
static const char *slot_name(const shoal_model_spec_t *spec, int slot)
{
    if (spec->act == SHOAL_ACT_SWIGLU && slot == SHOAL_T_FC) {
        return "mlp.gate.weight";
    }
    if (spec->act == SHOAL_ACT_SWIGLU && slot == SHOAL_T_FC_BIAS) {
        return "mlp.gate.bias";
    }
    return slots[slot].name;
}

static void name_unit(shoal_unit_t *unit, int block, char *prefix_p, size_t nbytes)
{
    if (unit->kind == SHOAL_UNIT_BLOCK) {
        snprintf(unit->name, sizeof(unit->name), "block %d", block);
        snprintf(prefix_p, nbytes, "block.%d", block);
    } else {
        bool head = unit->kind == SHOAL_UNIT_HEAD;
        snprintf(unit->name, sizeof(unit->name), "%s", head ? "head" : "embedding");
        snprintf(prefix_p, nbytes, "%s", head ? "final" : "embed");
    }
}

static void lay_out_unit(const shoal_model_spec_t *spec, shoal_unit_t *unit, int block)
{
    char prefix[16];
    name_unit(unit, block, prefix, sizeof(prefix));
    for (int s = 0; s < SHOAL_T_COUNT; s++) {
        shoal_tensor_t *tensor = &unit->tensors[s];
        if (slots[s].unit != unit->kind || !present(spec, slots[s].condition)) {
            continue;
        }
        snprintf(tensor->name, sizeof(tensor->name), "%s.%s", prefix, slot_name(spec, s));
        size_t aligned   = (unit->nelem + SHOAL_TENSOR_ALIGN - 1) / SHOAL_TENSOR_ALIGN * SHOAL_TENSOR_ALIGN;
        tensor->present  = true;
        tensor->rows     = dim_of(spec, slots[s].rows);
        tensor->cols     = dim_of(spec, slots[s].cols);
        tensor->offset   = slots[s].packed ? unit->nelem : aligned;
        tensor->std      = init_std(spec, slots[s].init, tensor->cols);
        tensor->constant = slots[s].init == INIT_ONE ? 1.0f : 0.0f;
        tensor->decays   = slots[s].init == INIT_FAN_IN || slots[s].init == INIT_OUTPUT;
        unit->nelem      = tensor->offset + tensor->rows * tensor->cols;
    }
}

static void count_params(shoal_model_t *model)
{
    for (int u = 0; u < model->nunits; u++) {
        for (int s = 0; s < SHOAL_T_COUNT; s++) {
            const shoal_tensor_t *tensor = &model->units[u].tensors[s];
            size_t                count  = tensor->present ? tensor->rows * tensor->cols : 0;
            model->nparams += count;
            model->nparams_embedding += s == SHOAL_T_TOK || s == SHOAL_T_POS || s == SHOAL_T_HEAD ? count : 0;
        }
    }
}

shoal_status_t shoal_model_create(const shoal_model_spec_t *spec, shoal_model_t *model_p)
{
    shoal_model_t model = {.spec = *spec, .nunits = (int)spec->layers + 2};
    model.units         = calloc((size_t)model.nunits, sizeof(*model.units));
    model.unit_names    = calloc((size_t)model.nunits, sizeof(*model.unit_names));
    if (model.units == NULL || model.unit_names == NULL) {
        shoal_error("no memory for the model's tensor table");
        shoal_model_destroy(&model);
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int u = 0; u < model.nunits; u++) {
        model.units[u].kind = u == 0 ? SHOAL_UNIT_EMBED : u == model.nunits - 1 ? SHOAL_UNIT_HEAD : SHOAL_UNIT_BLOCK;
        lay_out_unit(spec, &model.units[u], u - 1);
        model.unit_names[u] = model.units[u].name;
    }
    count_params(&model);
    *model_p = model;
    return SHOAL_OK;
}

void shoal_model_destroy(shoal_model_t *model)
{
    free(model->units);
    free(model->unit_names);
    memset(model, 0, sizeof(*model));
}

size_t shoal_unit_shard_nelem(const shoal_unit_t *unit, int nranks)
{
    size_t grain = (size_t)nranks * SHOAL_TENSOR_ALIGN;
    return (unit->nelem + grain - 1) / grain * SHOAL_TENSOR_ALIGN;
}

/* The part of a tensor that lies in first .. first + count - 1: false when there is none. */
static bool clip(const shoal_tensor_t *tensor, size_t first, size_t count, size_t *begin_p, size_t *end_p)
{
    size_t end = tensor->offset + tensor->rows * tensor->cols;
    *begin_p   = tensor->offset > first ? tensor->offset : first;
    *end_p     = end < first + count ? end : first + count;
    return tensor->present && *begin_p < *end_p;
}

size_t shoal_unit_initial(const shoal_unit_t *unit, uint64_t seed, size_t first, size_t count, shoal_op_t *ops_p, size_t *offsets_p)
{
    size_t n = 0;
    ops_p[n] = (shoal_op_t){.kind = SHOAL_OP_NORMAL, .dtype = SHOAL_F32, .normal = {.n = count}};
    offsets_p[n++] = 0;
    for (int s = 0; s < SHOAL_T_COUNT; s++) {
        const shoal_tensor_t *tensor = &unit->tensors[s];
        size_t                begin, end;
        if (clip(tensor, first, count, &begin, &end)) {
            uint64_t stream = shoal_rng_stream(seed, tensor->name);
            ops_p[n] = (shoal_op_t){.kind   = SHOAL_OP_NORMAL,
                                    .dtype  = SHOAL_F32,
                                    .normal = {end - begin, stream, begin - tensor->offset, (float)tensor->std, tensor->constant}};
            offsets_p[n++] = begin - first;
        }
    }
    return n;
}

size_t shoal_unit_decay_ranges(const shoal_unit_t *unit, size_t first, size_t count, shoal_range_t *ranges_p)
{
    size_t n = 0;
    for (int s = 0; s < SHOAL_T_COUNT; s++) {
        size_t begin, end;
        if (unit->tensors[s].decays && clip(&unit->tensors[s], first, count, &begin, &end)) {
            ranges_p[n++] = (shoal_range_t){begin - first, end - begin};
        }
    }
    return n;
}

size_t shoal_unit_gaps(const shoal_unit_t *unit, size_t nelem_padded, shoal_range_t *ranges_p)
{
    size_t n = 0, covered = 0;
    for (int s = 0; s < SHOAL_T_COUNT; s++) { /* slots are in the order of the layout */
        const shoal_tensor_t *tensor = &unit->tensors[s];
        if (!tensor->present) {
            continue;
        }
        if (tensor->offset > covered) {
            ranges_p[n++] = (shoal_range_t){covered, tensor->offset - covered};
        }
        covered = tensor->offset + tensor->rows * tensor->cols;
    }
    if (nelem_padded > covered) {
        ranges_p[n++] = (shoal_range_t){covered, nelem_padded - covered};
    }
    return n;
}

double shoal_model_flops_per_token(const shoal_model_t *model, bool causal)
{
    const shoal_model_spec_t *spec    = &model->spec;
    double                    head    = (double)spec->vocab * (double)spec->d_model;
    double                    matmuls = head + (double)(model->nparams - model->nparams_embedding);
    double attention = (double)(spec->layers * spec->heads * spec->head_dim) * (double)spec->seq * (causal ? 6.0 : 12.0);
    return 6.0 * matmuls + attention;
}
