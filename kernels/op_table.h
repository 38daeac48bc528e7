/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Everything that is known of an op without running it, one row per kind: its name, its lane, what it
 * does with each argument, the shape and type of each argument, its arithmetic and its memory traffic.
 * The program derives its edges from these rows, the prediction its times, the bench its text, and
 * the conformance suite its buffers: a kernel that reads or writes what its row does not say fails there.
 *
 * A new op is a kind in kernels/ops.h, a row here, a kernel per device and an oracle in the suite.
 */
#ifndef SHOAL_KERNELS_OP_TABLE_H
#define SHOAL_KERNELS_OP_TABLE_H

#include "kernels/ops.h"

/* What an op does with an argument. */
typedef enum {
    SHOAL_ROLE_NONE,     /* the kind has no such argument */
    SHOAL_ROLE_READ,
    SHOAL_ROLE_WRITE,    /* overwrites all of it */
    SHOAL_ROLE_UPDATE,   /* reads it, then overwrites it */
    SHOAL_ROLE_GRADIENT, /* updates it where the op accumulates, else writes it */
} shoal_role_t;

/* The type of an argument: one of the op's own types, or always the same one. */
typedef enum {
    SHOAL_ARG_DTYPE,  /* op->dtype */
    SHOAL_ARG_GDTYPE, /* op->gdtype */
    SHOAL_ARG_F32,
    SHOAL_ARG_I32,
    SHOAL_ARG_MATMUL_OUT, /* op->matmul.out_dtype */
    SHOAL_ARG_CAST_SRC,   /* op->cast.src_dtype */
    SHOAL_ARG_CAST_DST,   /* op->cast.dst_dtype */
} shoal_arg_type_t;

/* Rows of `columns` elements, `ld` elements apart. What lies between rows is not the op's. */
typedef struct {
    size_t rows, columns, ld;
} shoal_shape_t;

typedef struct {
    shoal_role_t     role;
    shoal_arg_type_t type;
    /* NULL where the op alone does not tell: a collective's buffer grows with its group. */
    shoal_shape_t (*shape)(const shoal_op_t *op);
} shoal_arg_t;

typedef struct {
    const char  *name;
    shoal_lane_t lane; /* the lane that an op of this kind usually runs in */
    shoal_arg_t  args[SHOAL_OP_MAX_ARGS];
    bool (*accumulates)(const shoal_op_t *op); /* NULL: never */
    double (*flops)(const shoal_op_t *op);     /* NULL: none worth counting */
    double (*nbytes)(const shoal_op_t *op);    /* NULL: follows from the arguments */
    /* Writes the op's dimensions for people; NULL: it has none that would interest them. */
    void (*describe)(const shoal_op_t *op, char *text_p, size_t nbytes);
} shoal_op_row_t;

/* The row of a kind; kind < SHOAL_OP_COUNT. */
const shoal_op_row_t *shoal_op_row(shoal_op_kind_t kind);

/* What this op does with argument i: never SHOAL_ROLE_GRADIENT, which the op's `accumulate` decides. */
shoal_role_t shoal_op_role(const shoal_op_t *op, int i);

/* The arguments that an op writes, whether or not it reads them first: bit i for argument i. */
uint32_t shoal_op_writes(const shoal_op_t *op);

shoal_dtype_t shoal_op_arg_dtype(const shoal_op_t *op, int i);

/* "?" for what is no kind. */
const char *shoal_op_kind_name(shoal_op_kind_t kind);

/* The op's dimensions for people, "2048 x 768 x 768 NT bf16"; an empty text where it has none. */
void shoal_op_describe(const shoal_op_t *op, char *text_p, size_t nbytes);

/* Floating-point operations of an op, two per multiply-add; attention counts the causal half. */
double shoal_op_flops(const shoal_op_t *op);

/*
 * The fewest bytes that an op can move: each input read once, each output written once. Whether an
 * optional argument is present is not known here, so all of them count.
 */
double shoal_op_nbytes(const shoal_op_t *op);

#endif
