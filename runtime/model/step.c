/* SPDX-License-Identifier: BSD-3-Clause */
/* Emission of whole steps: every micro-batch, then the update; recorded once to learn the order of uses, then in earnest. */
#include "runtime/model/step.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "runtime/model/transformer.h"

static void emit_step(shoal_step_t *step, shoal_program_t *program, bool train, bool recording)
{
    const shoal_spec_t *spec    = step->spec;
    size_t              nmicros = spec->batch.accumulate * (train ? 1 : spec->run.eval_batches);
    shoal_transformer_t transformer;

    shoal_sharding_begin(&step->sharding, program, recording);
    shoal_transformer_begin(&transformer, &step->model, spec, &step->sharding, spec->batch.local * nmicros * (size_t)step->nranks,
                            step->head_chunk);
    for (size_t micro = 0; micro < nmicros; micro++) {
        step->sharding.last_micro = micro + 1 == nmicros;
        shoal_transformer_emit(&transformer, micro, train);
    }
    if (train) {
        shoal_sharding_update(&step->sharding);
    } else if (step->nranks > 1) {
        shoal_op_t  op  = {.kind = SHOAL_OP_ALL_REDUCE, .dtype = SHOAL_F32, .coll = {1}};
        shoal_ref_t ref = {step->sharding.stats, 0};
        shoal_program_emit(program, &op, 1, &ref);
    }
}

/* What a rank keeps of its units; as a double, for no integer holds what may be asked for. */
static double state_nbytes(const shoal_spec_t *spec, int nranks)
{
    shoal_model_spec_t one = spec->model; /* a block is like any other */
    shoal_model_t      model;
    double             nelem = 0.0, nbytes = 0.0;
    int                nshards = spec->parallel.shard == SHOAL_SHARD_NONE ? 1 : nranks;
    one.layers                 = 1;
    if (shoal_model_create(&one, &model) != SHOAL_OK) {
        return 0.0;
    }
    for (int kind = 0; kind < SHOAL_STATE_UNIT_KINDS; kind++) {
        shoal_dtype_t dtype = kind == SHOAL_STATE_COPY ? spec->precision.gather : SHOAL_F32;
        nbytes += shoal_state_keeps(spec, (shoal_state_kind_t)kind)
                      ? (double)shoal_dtype_nbytes(dtype)
                      : 0.0;
    }
    for (int u = 0; u < model.nunits; u++) {
        double count = model.units[u].kind == SHOAL_UNIT_BLOCK ? (double)spec->model.layers : 1.0;
        nelem += count * (double)shoal_unit_shard_nelem(&model.units[u], nshards);
    }
    shoal_model_destroy(&model);
    return nelem * nbytes;
}

/* The widest row of activations that a block has: q|k|v, or what the MLP's activation function
 * reads. */
static double activation_nbytes(const shoal_spec_t *spec)
{
    const shoal_model_spec_t *m    = &spec->model;
    double                    rows = (double)spec->batch.local * (double)m->seq;
    double                    qkv  = (double)(m->heads + 2 * m->kv_heads) * (double)m->head_dim;
    double                    mlp  = (double)m->ffn * (m->act == SHOAL_ACT_SWIGLU ? 2.0 : 1.0);
    return rows * fmax(qkv, mlp) * (double)shoal_dtype_nbytes(spec->precision.compute);
}

/* Of the longer of the two programs, nearly: a block has some 10 ops forward and 20 more backward,
 * a chunk of the head 2 and 2 more. */
static double count_ops(const shoal_spec_t *spec, bool on_gpu)
{
    bool   eval   = spec->run.eval_every > 0 && spec->data.valid[0] != '\0';
    double micros = (double)spec->batch.accumulate;
    double rows   = (double)spec->batch.local * (double)spec->model.seq;
    double chunks = ceil(rows / (double)shoal_transformer_head_chunk(spec, on_gpu));
    double layers = (double)spec->model.layers;
    double train  = micros * (30.0 * layers + 4.0 * chunks);
    double valid  = micros * (double)spec->run.eval_batches * (10.0 * layers + 2.0 * chunks);
    return eval ? fmax(train, valid) : train;
}

shoal_status_t shoal_step_check(const shoal_spec_t *spec, int nranks, bool on_gpu, double available,
                                bool say)
{
    double limit = fmin(available, SHOAL_STEP_MAX_NBYTES), state = state_nbytes(spec, nranks),
           widest = activation_nbytes(spec);
    double nops   = count_ops(spec, on_gpu);
    if (state + widest > limit) {
        if (say) {
            shoal_error("the plan does not fit: a rank's parameters and optimizer alone need %.0f "
                        "bytes (%.2f GiB) and its largest activation "
                        "%.0f; %.0f bytes (%.2f GiB) are %s",
                        state, state * 0x1p-30, widest, limit, limit * 0x1p-30,
                        available > limit ? "what a machine addresses" : "available");
        }
        return SHOAL_ERR_PLAN;
    }
    if (nops > SHOAL_STEP_MAX_NOPS) {
        if (say) {
            shoal_error(
                "the plan does not fit: a step or a validation of some %.3g ops, at most %d are "
                "planned; fewer or larger micro-batches "
                "(batch.accumulate, run.eval_batches) or chunks (run.head_chunk) have fewer",
                nops, SHOAL_STEP_MAX_NOPS);
        }
        return SHOAL_ERR_PLAN;
    }
    return SHOAL_OK;
}

static shoal_status_t build_program(shoal_step_t *step, shoal_program_t *program, bool train)
{
    shoal_program_t recording;
    shoal_program_init(&recording, step->model.unit_names, step->model.nunits);
    emit_step(step, &recording, train, true);
    bool failed = recording.out_of_memory;
    shoal_program_free(&recording);

    shoal_program_init(program, step->model.unit_names, step->model.nunits);
    program->out_of_memory = failed;
    emit_step(step, program, train, false);
    return shoal_program_plan(program);
}

static shoal_coll_t coll_of(const shoal_op_t *op)
{
    shoal_coll_kind_t kind = op->kind == SHOAL_OP_ALL_GATHER       ? SHOAL_COLL_ALL_GATHER
                             : op->kind == SHOAL_OP_REDUCE_SCATTER ? SHOAL_COLL_REDUCE_SCATTER
                                                                   : SHOAL_COLL_ALL_REDUCE;
    return (shoal_coll_t){.kind = kind, .dtype = op->dtype, .n = op->coll.n};
}

/* Raises the shared regions to what the program's largest op needs. */
static shoal_status_t measure(shoal_step_t *step, const shoal_program_t *program, shoal_device_t *device,
                              const shoal_transport_ops_t *transport)
{
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node   = &program->nodes[i];
        size_t              nbytes = 0, *largest = &step->workspace_nbytes;
        if (node->op.kind < SHOAL_OP_COMPUTE_COUNT) {
            SHOAL_TRY(device->ops->workspace(device, &node->op, &nbytes));
        } else if (node->op.kind != SHOAL_OP_FETCH) {
            shoal_coll_t coll = coll_of(&node->op);
            nbytes            = transport->staging_nbytes(&coll, step->nranks);
            largest           = &step->staging_nbytes[node->lane];
        }
        nbytes   = (nbytes + SHOAL_BUFFER_ALIGN - 1) / SHOAL_BUFFER_ALIGN * SHOAL_BUFFER_ALIGN;
        *largest = nbytes > *largest ? nbytes : *largest;
    }
    return SHOAL_OK;
}

static size_t fetched_nbytes(const shoal_program_t *program)
{
    size_t nelem = 0;
    for (int32_t i = 0; i < program->nnodes; i++) {
        nelem += program->nodes[i].op.kind == SHOAL_OP_FETCH ? 2 * program->nodes[i].op.fetch.N : 0;
    }
    return nelem * sizeof(int32_t);
}

static void lay_out_host(shoal_step_t *step)
{
    step->ahead_nbytes  = fetched_nbytes(&step->train);
    step->staged_nbytes = step->ahead_nbytes + (step->has_eval ? fetched_nbytes(&step->eval) : 0);
}

static void lay_out(shoal_step_t *step)
{
    const shoal_program_t *larger = step->has_eval && step->eval.arena_nbytes > step->train.arena_nbytes ? &step->eval : &step->train;
    memcpy(step->memory_nbytes, larger->memory_nbytes, sizeof(step->memory_nbytes));
    step->slack_nbytes     = larger->arena_slack_nbytes;
    step->arena_offset     = step->train.state_nbytes;
    step->workspace_offset = step->arena_offset + larger->arena_nbytes;
    size_t end             = step->workspace_offset + step->workspace_nbytes;
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        step->staging_offset[lane] = end;
        end += step->staging_nbytes[lane];
    }
    step->memory_nbytes[SHOAL_MEMORY_WORKSPACE] += end - step->workspace_offset;
    step->total_nbytes = end;
}

shoal_status_t shoal_step_create(const shoal_spec_t *spec, int nranks, int rank, shoal_device_t *device,
                                 const shoal_transport_ops_t *transport, shoal_step_t *step_p)
{
    memset(step_p, 0, sizeof(*step_p));
    step_p->spec     = spec;
    step_p->nranks   = nranks;
    step_p->rank     = rank;
    step_p->head_chunk = shoal_transformer_head_chunk(spec, device->ops->stream != NULL);
    step_p->has_eval = spec->run.eval_every > 0 && spec->data.valid[0] != '\0';
    shoal_status_t status = shoal_model_create(&spec->model, &step_p->model);
    if (status == SHOAL_OK) {
        status = shoal_sharding_create(&step_p->model, spec, nranks, rank, &step_p->state, &step_p->sharding);
    }
    /* Validation first: the sharding then describes the training program's state, which the trainer asks it for. */
    if (status == SHOAL_OK && step_p->has_eval) {
        status = build_program(step_p, &step_p->eval, false);
    }
    if (status == SHOAL_OK) {
        status = build_program(step_p, &step_p->train, true);
    }
    if (status == SHOAL_OK && step_p->has_eval) {
        status = measure(step_p, &step_p->eval, device, transport);
    }
    if (status == SHOAL_OK) {
        status = measure(step_p, &step_p->train, device, transport);
    }
    if (status == SHOAL_OK && step_p->has_eval && step_p->eval.state_nbytes != step_p->train.state_nbytes) {
        shoal_error("the validation program's state differs from the training program's");
        status = SHOAL_ERR_INTERNAL;
    }
    if (status != SHOAL_OK) {
        shoal_step_destroy(step_p);
        return status;
    }
    lay_out(step_p);
    if (device->ops->stream != NULL) {
        lay_out_host(step_p);
    }
    return SHOAL_OK;
}

void shoal_step_destroy(shoal_step_t *step)
{
    shoal_program_free(&step->train);
    shoal_program_free(&step->eval);
    shoal_sharding_destroy(&step->sharding);
    shoal_state_free(&step->state);
    shoal_model_destroy(&step->model);
}
