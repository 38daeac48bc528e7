/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model as tensors: one table of slots says for each tensor its name, shape, initial standard deviation and whether it
 * decays; units (what FSDP gathers at once: the embedding, each block, the head), flat layouts, parameter counts and initial
 * values all follow from it. Letters as in kernels/ops.h. A weight is (out, in), row-major.
 *
 * A unit's flat layout puts its tensors one after the other, each at a multiple of SHOAL_TENSOR_ALIGN elements, except those
 * packed behind their predecessor (q|k|v and gate|up read as one matrix), and does not depend on the number of ranks:
 *
 *     unit     [ norm1 | q k v | qnorm | knorm | o | norm2 | fc | down |pad]
 *     4 ranks  [ shard of 0 | shard of 1 | shard of 2 | shard of 3         ]     shards are equal; the padding is zero
 */
#ifndef SHOAL_RUNTIME_MODEL_MODEL_H
#define SHOAL_RUNTIME_MODEL_MODEL_H

#include "base/status.h"
#include "runtime/spec.h"

typedef enum {
    SHOAL_T_TOK,
    SHOAL_T_POS,
    SHOAL_T_NORM1,
    SHOAL_T_NORM1_BIAS,
    SHOAL_T_Q,
    SHOAL_T_K,
    SHOAL_T_V,
    SHOAL_T_Q_BIAS,
    SHOAL_T_K_BIAS,
    SHOAL_T_V_BIAS,
    SHOAL_T_QNORM,
    SHOAL_T_KNORM,
    SHOAL_T_O,
    SHOAL_T_O_BIAS,
    SHOAL_T_NORM2,
    SHOAL_T_NORM2_BIAS,
    SHOAL_T_FC, /* gate, with SwiGLU */
    SHOAL_T_UP,
    SHOAL_T_FC_BIAS,
    SHOAL_T_UP_BIAS,
    SHOAL_T_DOWN,
    SHOAL_T_DOWN_BIAS,
    SHOAL_T_FINAL_NORM,
    SHOAL_T_FINAL_NORM_BIAS,
    SHOAL_T_HEAD,
    SHOAL_T_COUNT
} shoal_slot_t;

typedef enum { SHOAL_UNIT_EMBED, SHOAL_UNIT_BLOCK, SHOAL_UNIT_HEAD } shoal_unit_kind_t;

enum { SHOAL_TENSOR_ALIGN = 32 };

typedef struct {
    char   name[48];   /* "block.3.attn.q.weight" */
    size_t rows, cols; /* a vector has one row */
    size_t offset;     /* in the unit's flat layout; elements */
    double std;        /* of the initial normal distribution; 0: constant */
    float  constant;
    bool   present, decays;
} shoal_tensor_t;

typedef struct {
    shoal_unit_kind_t kind;
    char              name[16];
    shoal_tensor_t    tensors[SHOAL_T_COUNT]; /* by slot; absent ones have present == false */
    size_t            nelem;                  /* of the flat layout, before padding to shards */
} shoal_unit_t;

typedef struct {
    shoal_model_spec_t spec;
    shoal_unit_t      *units; /* embedding, blocks, head: layers + 2 */
    const char       **unit_names;
    int                nunits;
    size_t             nparams, nparams_embedding; /* logical parameters; embeddings and head in the second */
} shoal_model_t;

shoal_status_t shoal_model_create(const shoal_model_spec_t *spec, shoal_model_t *model_p);
void           shoal_model_destroy(shoal_model_t *model);

/* Elements of a unit's shard on each of `nranks` ranks: the flat layout cut into equal parts, multiples of SHOAL_TENSOR_ALIGN. */
size_t shoal_unit_shard_nelem(const shoal_unit_t *unit, int nranks);

/*
 * The ops that give elements first .. first + count - 1 of the unit's flat layout their initial values (zero in gaps and padding), in
 * order, and where in these elements each writes. Both have room for SHOAL_T_COUNT + 1. Returns how many.
 */
size_t shoal_unit_initial(const shoal_unit_t *unit, uint64_t seed, size_t first, size_t count, shoal_op_t *ops_p, size_t *offsets_p);

/*
 * The ranges of first .. first + count - 1 that belong to decaying tensors, relative to `first`. ranges_p has room for
 * SHOAL_T_COUNT. Returns how many.
 */
size_t shoal_unit_decay_ranges(const shoal_unit_t *unit, size_t first, size_t count, shoal_range_t *ranges_p);

/* The gaps of the flat layout up to `nelem_padded`: what no tensor covers. ranges_p has room for SHOAL_T_COUNT + 1. */
size_t shoal_unit_gaps(const shoal_unit_t *unit, size_t nelem_padded, shoal_range_t *ranges_p);

/*
 * Model floating-point operations per trained token, forward and backward: 6 per parameter that a matmul uses plus attention,
 * 6 L H D T when the causal half is counted and 12 L H D T in full (the convention of the PaLM paper, appendix B).
 */
double shoal_model_flops_per_token(const shoal_model_t *model, bool causal);

#endif
