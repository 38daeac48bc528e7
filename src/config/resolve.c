/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a configuration leaves open is settled here, once the number of ranks is known: sizes that follow from `heads` and the
 * preset, batch and accumulation from each other, learning rate and decay from the published rules. Each call starts from
 * what was parsed, so that `shoal plan` and `shoal study` may ask for several numbers of ranks. Then everything is checked against
 * everything else; an error names the key, its value and where that was given.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/model/optim.h"
#include "src/config/keys.h"

static size_t index_of(const char *name)
{
    const shoal_key_t *key = shoal_key_find(name);
    if (key == NULL) { /* a slip in this file, which its tests catch */
        shoal_error("no configuration key %s", name);
        abort();
    }
    return (size_t)(key - shoal_keys);
}

static bool is_given(const shoal_config_t *config, const char *name)
{
    return config->given[index_of(name)] != NULL;
}

/* True when the key is resolve's to settle; notes that it was. Only for keys whose default is "auto". */
static bool is_open(shoal_config_t *config, const char *name)
{
    size_t i           = index_of(name);
    config->derived[i] = config->given[i] == NULL;
    return config->derived[i];
}

/* Logs "FILE:LINE: key = value: why". */
static shoal_status_t __attribute__((format(printf, 3, 4))) refuse(const shoal_config_t *config, const char *name,
                                                                   const char *format, ...)
{
    char    why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    size_t      i     = index_of(name);
    json_t     *value = shoal_key_to_json(&shoal_keys[i], &config->spec);
    char       *text  = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
    const char *where = config->derived[i] ? "derived" : config->given[i] != NULL ? config->given[i] : "default";
    shoal_error("%s: %s = %s: %s", where, name, text, why);
    free(text);
    json_decref(value);
    return SHOAL_ERR_CONFIG;
}

/* What an arch stands for. Layers are heads * num / den. */
typedef struct {
    const char       *name;
    size_t            layers_num, layers_den;
    shoal_norm_kind_t norm;
    shoal_act_kind_t  act;
    shoal_rope_kind_t rope;
    shoal_pos_kind_t  pos;
    bool              qk_norm, bias, tied;
} preset_t;

static const preset_t presets[] = {
    {.name = "enoki", .layers_num = 3, .layers_den = 4, .norm = SHOAL_NORM_LAYER, .act = SHOAL_ACT_GELU,
     .rope = SHOAL_ROPE_INTERLEAVED, .pos = SHOAL_POS_NONE, .qk_norm = true},
    {.name = "llama", .layers_num = 1, .layers_den = 1, .norm = SHOAL_NORM_RMS, .act = SHOAL_ACT_SWIGLU,
     .rope = SHOAL_ROPE_HALF, .pos = SHOAL_POS_NONE},
    {.name = "gpt2", .layers_num = 1, .layers_den = 1, .norm = SHOAL_NORM_LAYER, .act = SHOAL_ACT_GELU_TANH,
     .rope = SHOAL_ROPE_NONE, .pos = SHOAL_POS_LEARNED, .bias = true, .tied = true},
};

static const preset_t *preset_of(const char *arch)
{
    const preset_t *preset = presets;
    while (strcmp(preset->name, arch) != 0) { /* the table of keys admits no other name */
        preset++;
    }
    return preset;
}

static void settle_kinds(shoal_config_t *config, const preset_t *preset, shoal_model_spec_t *m)
{
    m->norm    = is_open(config, "model.norm") ? preset->norm : m->norm;
    m->act     = is_open(config, "model.act") ? preset->act : m->act;
    m->rope    = is_open(config, "model.rope") ? preset->rope : m->rope;
    m->pos     = is_open(config, "model.pos") ? preset->pos : m->pos;
    m->qk_norm = is_open(config, "model.qk_norm") ? preset->qk_norm : m->qk_norm;
    m->bias    = is_open(config, "model.bias") ? preset->bias : m->bias;
    m->tied    = is_open(config, "model.tied") ? preset->tied : m->tied;
}

/* d_model and head_dim follow from each other; where neither is given, heads are 64 wide. */
static void settle_widths(shoal_config_t *config, shoal_model_spec_t *m)
{
    bool width_given = is_given(config, "model.d_model");
    if (is_open(config, "model.head_dim")) {
        m->head_dim = width_given ? m->d_model / m->heads : 64;
    }
    if (is_open(config, "model.d_model")) {
        m->d_model = m->heads * m->head_dim;
    }
}

static void settle_sizes(shoal_config_t *config, const preset_t *preset, shoal_model_spec_t *m)
{
    settle_widths(config, m);
    if (is_open(config, "model.kv_heads")) {
        m->kv_heads = m->heads;
    }
    if (is_open(config, "model.layers")) {
        size_t layers = m->heads * preset->layers_num / preset->layers_den;
        m->layers     = layers > 0 ? layers : 1;
    }
    if (is_open(config, "model.ffn")) { /* SwiGLU has three matrices: 8/3 keeps the parameters of two at 4 */
        m->ffn = m->act == SHOAL_ACT_SWIGLU ? (8 * m->d_model + 191) / 192 * 64 : 4 * m->d_model;
    }
}

static shoal_status_t check_model(const shoal_config_t *config, const shoal_model_spec_t *m)
{
    if (m->d_model != m->heads * m->head_dim) {
        return refuse(config, "model.d_model", "must be model.heads * model.head_dim = %zu * %zu = %zu", m->heads, m->head_dim,
                      m->heads * m->head_dim);
    }
    if (m->heads % m->kv_heads != 0) {
        return refuse(config, "model.kv_heads", "must divide model.heads = %zu", m->heads);
    }
    if (m->rope != SHOAL_ROPE_NONE && m->head_dim % 2 != 0) {
        return refuse(config, "model.head_dim", "must be even, for rotary embedding turns pairs (or set model.rope = \"none\")");
    }
    return SHOAL_OK;
}

static shoal_status_t settle_model(shoal_config_t *config, shoal_model_spec_t *m)
{
    const preset_t *preset = preset_of(m->arch);
    if (!is_given(config, "model.heads")) {
        shoal_error("model.heads is not set: it is the model's size, and has no default");
        return SHOAL_ERR_CONFIG;
    }
    settle_kinds(config, preset, m);
    settle_sizes(config, preset, m);
    return check_model(config, m);
}

/* The largest divisor of n that is at most `limit`. limit >= 1. */
static size_t divisor_below(size_t n, size_t limit)
{
    while (n % limit != 0) {
        limit--;
    }
    return limit;
}

/* Names the batch sizes around the one that does not work, and the local size that would make it work. */
static shoal_status_t refuse_global(const shoal_config_t *config, const shoal_batch_spec_t *b, size_t nranks)
{
    size_t unit = b->local * nranks, below = b->global / unit * unit;
    char   other[128] = "", lower[64] = "";
    if (below > 0) {
        snprintf(lower, sizeof(lower), "%zu or ", below);
    }
    if (b->global % nranks == 0) {
        snprintf(other, sizeof(other), "; with batch.local = %zu it would", divisor_below(b->global / nranks, b->local));
    }
    return refuse(config, "batch.global", "not a multiple of batch.local * ranks = %zu * %zu = %zu; the nearest that work are %s%zu%s",
                  b->local, nranks, unit, lower, below + unit, other);
}

static shoal_status_t settle_batch(shoal_config_t *config, shoal_batch_spec_t *b, size_t nranks)
{
    size_t unit            = b->local * nranks;
    bool   open_accumulate = is_open(config, "batch.accumulate");
    if (is_open(config, "batch.global")) {
        b->accumulate = open_accumulate ? 1 : b->accumulate;
        b->global     = unit * b->accumulate;
        return SHOAL_OK;
    }
    if (b->global % unit != 0) {
        return refuse_global(config, b, nranks);
    }
    if (!open_accumulate && b->accumulate != b->global / unit) {
        return refuse(config, "batch.accumulate",
                      "disagrees with batch.global = %zu (%s), which with batch.local = %zu on %zu ranks means %zu; leave it out or "
                      "set it to \"auto\"",
                      b->global, config->given[index_of("batch.global")], b->local, nranks, b->global / unit);
    }
    b->accumulate = b->global / unit;
    return SHOAL_OK;
}

/* Matrix weights of the blocks: 12 C^2 L for Enoki. Embedding, head, norms and biases are not counted. */
static double non_embedding_params(const shoal_model_spec_t *m)
{
    double C = (double)m->d_model, key_value = (double)(m->kv_heads * m->head_dim);
    double mlp = (m->act == SHOAL_ACT_SWIGLU ? 3 : 2) * C * (double)m->ffn;
    return (double)m->layers * (2 * C * C + 2 * C * key_value + mlp);
}

/* The SNR bound is what tells an MK4 variant from the one without: there it is infinite. */
static shoal_status_t settle_snr_clip(shoal_config_t *config, shoal_optim_spec_t *o)
{
    bool bounded = o->kind == SHOAL_OPTIM_DANA_MK4 || o->kind == SHOAL_OPTIM_DANA_STAR_MK4;
    if (is_open(config, "optim.snr_clip")) {
        o->snr_clip = bounded ? 2.0 : INFINITY;
    } else if (!bounded) {
        return refuse(config, "optim.snr_clip", "optim.name = \"%s\" has none; only the mk4 variants do", o->name);
    }
    return SHOAL_OK;
}

static shoal_status_t settle_lr(shoal_config_t *config, const shoal_spec_t *spec, shoal_optim_spec_t *o)
{
    if (!is_open(config, "optim.lr")) {
        return SHOAL_OK;
    }
    shoal_status_t status = shoal_optim_auto_lr(o->kind, non_embedding_params(&spec->model), spec->batch.global, &o->lr);
    if (status != SHOAL_OK) {
        shoal_error("optim.lr = \"auto\": no published rule for optim.name = \"%s\" at batch.global = %zu; give optim.lr a number",
                    o->name, spec->batch.global);
    }
    return status;
}

static shoal_status_t settle_optim(shoal_config_t *config, shoal_spec_t *spec)
{
    shoal_optim_spec_t *o = &spec->optim;
    o->name               = shoal_key_find("optim.name")->choices[o->kind];
    SHOAL_TRY(settle_snr_clip(config, o));
    SHOAL_TRY(settle_lr(config, spec, o));
    if (is_open(config, "optim.wd")) {
        o->wd = shoal_optim_auto_wd(o->kind, o->lr, spec->run.steps);
    }
    if (is_open(config, "optim.warmup")) {
        o->warmup = spec->run.steps / 50;
    }
    if (o->warmup > spec->run.steps) {
        return refuse(config, "optim.warmup", "longer than run.steps = %zu", spec->run.steps);
    }
    return SHOAL_OK;
}

static void settle_study(shoal_config_t *config, shoal_spec_t *spec)
{
    shoal_study_spec_t *s = &spec->study;
    if (is_open(config, "study.shard")) {
        s->shard[0] = spec->parallel.shard;
        s->nshard   = 1;
    }
    if (is_open(config, "study.local")) {
        s->local[0] = spec->batch.local;
        s->nlocal   = 1;
    }
    if (is_open(config, "study.seeds")) {
        s->seeds[0] = spec->run.seed;
        s->nseeds   = 1;
    }
}

static shoal_status_t check_run(const shoal_config_t *config, const shoal_spec_t *spec)
{
    if (spec->parallel.tp != 1) {
        return refuse(config, "parallel.tp", "tensor-parallel groups are not in this version");
    }
    if (spec->run.trace_step > spec->run.steps) {
        return refuse(config, "run.trace_step", "after the last of run.steps = %zu", spec->run.steps);
    }
    if (spec->run.eval_every > 0 && spec->data.valid[0] == '\0') {
        return refuse(config, "run.eval_every", "data.valid is not set");
    }
    return SHOAL_OK;
}

shoal_status_t shoal_config_resolve(shoal_config_t *config, int nranks, const shoal_spec_t **spec_p)
{
    shoal_spec_t *spec = &config->spec;
    if (nranks < 1) {
        return SHOAL_ERR_INVALID;
    }
    *spec            = config->parsed;
    config->resolved = false;
    memset(config->derived, 0, shoal_nkeys * sizeof(*config->derived));
    SHOAL_TRY(check_run(config, spec));
    SHOAL_TRY(settle_model(config, &spec->model));
    SHOAL_TRY(settle_batch(config, &spec->batch, (size_t)nranks));
    SHOAL_TRY(settle_optim(config, spec));
    if (is_open(config, "precision.gather")) {
        spec->precision.gather = spec->precision.compute;
    }
    if (is_open(config, "run.reserve_gib")) { /* for it depends on the device */
        spec->run.reserve_gib = NAN;
    }
    settle_study(config, spec);
    config->resolved = true;
    *spec_p          = spec;
    return SHOAL_OK;
}
