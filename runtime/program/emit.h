/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shorthand for emission: a place inside a buffer, and the ops that more than one emitter needs. An argument list is written
 * SHOAL_ARGS(a, b, c), in the order of the op's contract.
 */
#ifndef SHOAL_RUNTIME_PROGRAM_EMIT_H
#define SHOAL_RUNTIME_PROGRAM_EMIT_H

#include "runtime/program/program.h"

#define SHOAL_ARGS(...) \
    (int)(sizeof((shoal_ref_t[]){__VA_ARGS__}) / sizeof(shoal_ref_t)), (const shoal_ref_t[]){__VA_ARGS__}

static inline shoal_ref_t shoal_at(shoal_ref_t base, size_t offset)
{
    return (shoal_ref_t){base.id, base.offset + offset};
}

static inline shoal_ref_t shoal_whole(shoal_buffer_id_t id)
{
    return (shoal_ref_t){id, 0};
}

static inline void shoal_emit_cast(shoal_program_t *program, size_t n, shoal_ref_t src, shoal_dtype_t src_dtype, shoal_ref_t dst,
                                   shoal_dtype_t dst_dtype, bool accumulate)
{
    shoal_op_t op = {.kind = SHOAL_OP_CAST, .dtype = dst_dtype, .cast = {n, src_dtype, dst_dtype, accumulate}};
    shoal_program_emit(program, &op, SHOAL_ARGS(src, dst));
}

#endif
