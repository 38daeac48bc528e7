/* SPDX-License-Identifier: BSD-3-Clause */
/* What an op's row says of one op: the roles and types of its arguments, its costs, its text. */
#include "kernels/op_table.h"

const char *shoal_op_kind_name(shoal_op_kind_t kind)
{
    return (unsigned)kind < SHOAL_OP_COUNT ? shoal_op_row(kind)->name : "?";
}

shoal_role_t shoal_op_role(const shoal_op_t *op, int i)
{
    const shoal_op_row_t *row  = shoal_op_row(op->kind);
    shoal_role_t          role = row->args[i].role;
    if (role != SHOAL_ROLE_GRADIENT) {
        return role;
    }
    return row->accumulates(op) ? SHOAL_ROLE_UPDATE : SHOAL_ROLE_WRITE;
}

uint32_t shoal_op_writes(const shoal_op_t *op)
{
    uint32_t writes = 0;
    for (int i = 0; i < SHOAL_OP_MAX_ARGS; i++) {
        writes |= (shoal_op_role(op, i) >= SHOAL_ROLE_WRITE ? 1u : 0u) << i;
    }
    return writes;
}

shoal_dtype_t shoal_op_arg_dtype(const shoal_op_t *op, int i)
{
    switch (shoal_op_row(op->kind)->args[i].type) {
    case SHOAL_ARG_DTYPE:
        return op->dtype;
    case SHOAL_ARG_GDTYPE:
        return op->gdtype;
    case SHOAL_ARG_F32:
        return SHOAL_F32;
    case SHOAL_ARG_I32:
        return SHOAL_I32;
    case SHOAL_ARG_MATMUL_OUT:
        return op->matmul.out_dtype;
    case SHOAL_ARG_CAST_SRC:
        return op->cast.src_dtype;
    case SHOAL_ARG_CAST_DST:
        return op->cast.dst_dtype;
    }
    return SHOAL_F32;
}

void shoal_op_describe(const shoal_op_t *op, char *text_p, size_t nbytes)
{
    text_p[0] = '\0';
    if (shoal_op_row(op->kind)->describe != NULL) {
        shoal_op_row(op->kind)->describe(op, text_p, nbytes);
    }
}

double shoal_op_flops(const shoal_op_t *op)
{
    return shoal_op_row(op->kind)->flops != NULL ? shoal_op_row(op->kind)->flops(op) : 0;
}

double shoal_op_nbytes(const shoal_op_t *op)
{
    const shoal_op_row_t *row = shoal_op_row(op->kind);
    double                sum = 0;
    if (row->nbytes != NULL) {
        return row->nbytes(op);
    }
    for (int i = 0; i < SHOAL_OP_MAX_ARGS && row->args[i].role != SHOAL_ROLE_NONE; i++) {
        shoal_shape_t shape  = row->args[i].shape(op);
        double        nbytes = (double)shape.rows * (double)shape.columns *
                               (double)shoal_dtype_nbytes(shoal_op_arg_dtype(op, i));
        sum += shoal_op_role(op, i) == SHOAL_ROLE_UPDATE ? 2 * nbytes : nbytes;
    }
    return sum;
}
