/* SPDX-License-Identifier: BSD-3-Clause */
/* The reference layer of the registry: every kind, both storage types, one function for both. */
#include "kernels/cpu/ref.h"

static const shoal_cpu_kernel_t ref_kernels[SHOAL_OP_COMPUTE_COUNT] = {
    [SHOAL_OP_EMBED]         = {shoal_ref_embed, NULL, "ref"},
    [SHOAL_OP_EMBED_BWD]     = {shoal_ref_embed_bwd, shoal_ref_embed_bwd_workspace, "ref"},
    [SHOAL_OP_NORM]          = {shoal_ref_norm, NULL, "ref"},
    [SHOAL_OP_NORM_BWD]      = {shoal_ref_norm_bwd, shoal_ref_norm_bwd_workspace, "ref"},
    [SHOAL_OP_MATMUL]        = {shoal_ref_matmul, NULL, "ref"},
    [SHOAL_OP_COLSUM]        = {shoal_ref_colsum, NULL, "ref"},
    [SHOAL_OP_HEADPREP]      = {shoal_ref_headprep, shoal_ref_headprep_workspace, "ref"},
    [SHOAL_OP_HEADPREP_BWD]  = {shoal_ref_headprep_bwd, shoal_ref_headprep_bwd_workspace, "ref"},
    [SHOAL_OP_ATTENTION]     = {shoal_ref_attention, shoal_ref_attention_workspace, "ref"},
    [SHOAL_OP_ATTENTION_BWD] = {shoal_ref_attention_bwd, shoal_ref_attention_bwd_workspace, "ref"},
    [SHOAL_OP_ACT]           = {shoal_ref_act, NULL, "ref"},
    [SHOAL_OP_ACT_BWD]       = {shoal_ref_act_bwd, NULL, "ref"},
    [SHOAL_OP_XENT]          = {shoal_ref_xent, NULL, "ref"},
    [SHOAL_OP_SUM]           = {shoal_ref_sum, shoal_ref_sum_workspace, "ref"},
    [SHOAL_OP_SUMSQ]         = {shoal_ref_sum, shoal_ref_sum_workspace, "ref"},
    [SHOAL_OP_CAST]          = {shoal_ref_cast, NULL, "ref"},
    [SHOAL_OP_FILL]          = {shoal_ref_fill, NULL, "ref"},
    [SHOAL_OP_NORMAL]        = {shoal_ref_normal, NULL, "ref"},
    [SHOAL_OP_OPTIM]         = {shoal_ref_optim, NULL, "ref"},
};

void shoal_cpu_fill_ref(shoal_cpu_registry_t kernels)
{
    for (size_t kind = 0; kind < SHOAL_OP_COMPUTE_COUNT; kind++) {
        for (size_t dtype = 0; dtype < SHOAL_CPU_DTYPES; dtype++) {
            kernels[kind][dtype] = ref_kernels[kind];
        }
    }
}
