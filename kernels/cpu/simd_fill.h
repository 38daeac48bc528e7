/* SPDX-License-Identifier: BSD-3-Clause */
/* All SIMD kernels, and the table that puts them into the registry: what simd_avx2.c and simd_avx512.c have in common. */
#ifndef SHOAL_KERNELS_CPU_SIMD_FILL_H
#define SHOAL_KERNELS_CPU_SIMD_FILL_H

#include "kernels/cpu/simd_act.h"
#include "kernels/cpu/simd_attention.h"
#include "kernels/cpu/simd_attention_bwd.h"
#include "kernels/cpu/simd_embed.h"
#include "kernels/cpu/simd_headprep.h"
#include "kernels/cpu/simd_norm.h"
#include "kernels/cpu/simd_optim.h"
#include "kernels/cpu/simd_reduce.h"
#include "kernels/cpu/simd_xent.h"

typedef struct {
    shoal_op_kind_t          kind;
    shoal_cpu_run_fn_t       run;
    shoal_cpu_workspace_fn_t workspace;
} simd_entry_t;

static const simd_entry_t simd_entries[] = {
    {SHOAL_OP_EMBED, embed_run, NULL},
    {SHOAL_OP_EMBED_BWD, embed_bwd_run, embed_bwd_workspace},
    {SHOAL_OP_NORM, norm_run, NULL},
    {SHOAL_OP_NORM_BWD, norm_bwd_run, norm_bwd_workspace},
    {SHOAL_OP_COLSUM, colsum_run, colsum_workspace},
    {SHOAL_OP_HEADPREP, headprep_run, headprep_workspace},
    {SHOAL_OP_HEADPREP_BWD, headprep_bwd_run, headprep_workspace},
    {SHOAL_OP_ATTENTION, attn_run, attn_workspace},
    {SHOAL_OP_ATTENTION_BWD, attn_bwd_run, attn_bwd_workspace},
    {SHOAL_OP_ACT, act_run, NULL},
    {SHOAL_OP_ACT_BWD, act_bwd_run, NULL},
    {SHOAL_OP_XENT, xent_run, NULL},
    {SHOAL_OP_SUM, reduce_run, reduce_workspace},
    {SHOAL_OP_SUMSQ, reduce_run, reduce_workspace},
    {SHOAL_OP_CAST, cast_run, NULL},
    {SHOAL_OP_OPTIM, optim_run, NULL},
};

/* The same function serves both dtypes: it looks at the op. */
static void simd_fill(shoal_cpu_registry_t kernels, const char *source)
{
    for (size_t i = 0; i < sizeof(simd_entries) / sizeof(simd_entries[0]); i++) {
        const simd_entry_t *e = &simd_entries[i];
        for (int dtype = 0; dtype < SHOAL_CPU_DTYPES; dtype++) {
            kernels[e->kind][dtype] = (shoal_cpu_kernel_t){e->run, e->workspace, source};
        }
    }
}

#endif
