/* SPDX-License-Identifier: BSD-3-Clause */
/* The first layer of the CUDA registry: every kind, by the kernels of this folder, each of which serves both storage types. */
#include "kernels/cuda/own.h"

#define OWN(name)                {shoal_cuda_##name, NULL, "own", NULL}
#define OWN_WITH_WORKSPACE(name) {shoal_cuda_##name, shoal_cuda_##name##_workspace, "own", NULL}

static const shoal_cuda_kernel_t own_kernels[SHOAL_OP_COMPUTE_COUNT] = {
    [SHOAL_OP_EMBED]         = OWN(embed),
    [SHOAL_OP_EMBED_BWD]     = OWN_WITH_WORKSPACE(embed_bwd),
    [SHOAL_OP_NORM]          = OWN(norm),
    [SHOAL_OP_NORM_BWD]      = OWN_WITH_WORKSPACE(norm_bwd),
    [SHOAL_OP_MATMUL]        = OWN(matmul),
    [SHOAL_OP_COLSUM]        = OWN_WITH_WORKSPACE(colsum),
    [SHOAL_OP_HEADPREP]      = OWN(headprep),
    [SHOAL_OP_HEADPREP_BWD]  = OWN_WITH_WORKSPACE(headprep_bwd),
    [SHOAL_OP_ATTENTION]     = OWN(attention),
    [SHOAL_OP_ATTENTION_BWD] = OWN_WITH_WORKSPACE(attention_bwd),
    [SHOAL_OP_ACT]           = OWN(act),
    [SHOAL_OP_ACT_BWD]       = OWN(act_bwd),
    [SHOAL_OP_XENT]          = OWN(xent),
    [SHOAL_OP_SUM]           = OWN_WITH_WORKSPACE(sum),
    [SHOAL_OP_SUMSQ]         = OWN_WITH_WORKSPACE(sumsq),
    [SHOAL_OP_CAST]          = OWN(cast),
    [SHOAL_OP_FILL]          = OWN(fill),
    [SHOAL_OP_NORMAL]        = OWN(normal),
    [SHOAL_OP_OPTIM]         = OWN(optim),
};

void shoal_cuda_fill_own(shoal_cuda_registry_t kernels)
{
    for (size_t kind = 0; kind < SHOAL_OP_COMPUTE_COUNT; kind++) {
        for (size_t dtype = 0; dtype < SHOAL_CUDA_DTYPES; dtype++) {
            kernels[kind][dtype] = own_kernels[kind];
        }
    }
}
