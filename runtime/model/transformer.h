/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decoder-only transformer as emission: Enoki, and with other knobs the Llama and GPT-2 families. One call emits the forward,
 * loss and backward of one micro-batch of the rank's sequences, with sharding (runtime/model/sharding.h) around each unit.
 */
#ifndef SHOAL_RUNTIME_MODEL_TRANSFORMER_H
#define SHOAL_RUNTIME_MODEL_TRANSFORMER_H

#include "runtime/model/sharding.h"

typedef struct {
    const shoal_model_t *model;
    const shoal_spec_t  *spec;
    shoal_sharding_t    *sharding;
    shoal_program_t     *program;
    size_t               B, N;       /* sequences and tokens of a micro-batch on this rank */
    size_t               head_chunk; /* tokens per chunk of head and loss */
    shoal_buffer_id_t    rope_table; /* f32 (T, D/2, 2), or -1 */
    double               loss_scale; /* 1 over the tokens that the loss is a mean of, over all ranks and micro-batches */
} shoal_transformer_t;

/* Fills the host's copy of the rotary table (T, D/2, 2). */
void shoal_transformer_rope_table(const shoal_model_spec_t *spec, float *table_p);

/*
 * Tokens per chunk of the head and its loss: run.head_chunk, or where that is 0, what suits the device; at most a micro-batch's
 * on this rank. A chunk's logits, (chunk, V) in the compute type, are what it costs in memory.
 */
size_t shoal_transformer_head_chunk(const shoal_spec_t *spec, bool on_gpu);

/*
 * Begins the emission of a step into `program`: declares what lives beside the sharding's state. `batch` sequences per rank
 * and micro-batch; `samples` sequences over all ranks and micro-batches; `head_chunk` tokens per chunk of the head.
 */
void shoal_transformer_begin(shoal_transformer_t *transformer, const shoal_model_t *model, const shoal_spec_t *spec,
                             shoal_sharding_t *sharding, size_t samples, size_t head_chunk);

/*
 * Emits micro-batch `micro`: fetch, forward, loss added to the stats buffer (set by micro-batch 0) and, when `train`, the
 * backward pass.
 */
void shoal_transformer_emit(shoal_transformer_t *transformer, size_t micro, bool train);

#endif
