/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The op table: what every device must be able to compute. An op is a kind, its dimensions (a union of small structs)
 * and up to SHOAL_OP_MAX_ARGS pointers, whose meaning per kind is the contract below. The program (runtime/program/program.h)
 * stores ops of this type; a device (kernels/device.h) runs them.
 *
 * Letters: B sequences, T tokens per sequence, N = B*T tokens, C model width, H query heads, K key/value heads,
 * D head width, F hidden width of the MLP, V vocabulary. Matrices are row-major with a leading dimension (`ld*`,
 * in elements); a missing `ld` means dense rows. All element offsets are size_t.
 *
 * Conventions, for every kind:
 *  - `dtype` is the type of activations and weights (SHOAL_F32 or SHOAL_BF16), `gdtype` that of weight gradients. Pointers
 *    marked f32 or i32 are of that type always. Arithmetic and accumulation are fp32, or wider, whatever the storage.
 *  - Outputs are overwritten. An op with a field `accumulate` adds to its weight-gradient outputs when it is true.
 *  - Arguments may alias only where the contract says so. Pointers are aligned to the element; buffers to 64 bytes, and
 *    kernels must not need more than element alignment.
 *  - "optional" arguments may be NULL.
 *  - The same op on the same inputs with the same number of threads gives the same bits.
 */
#ifndef SHOAL_KERNELS_OPS_H
#define SHOAL_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

enum { SHOAL_OP_MAX_ARGS = 10 };

typedef enum {
    /*
     * x[n] = tok[tokens[n]] + pos[n % T].
     * 0 tokens i32 (N) | 1 tok (V,C) | 2 pos (T,C), optional | 3 x (N,C)                                    embed
     */
    SHOAL_OP_EMBED,
    /* 0 tokens i32 (N) | 1 dx (N,C) | 2 dtok g(V,C) | 3 dpos g(T,C), optional                               embed */
    SHOAL_OP_EMBED_BWD,
    /*
     * Residual addition and normalization in one pass over the row: sum = x + residual * branch, y = norm(sum) * w + b.
     * Layer norm: (s - mean) * rstd with the biased variance; RMS norm: s * rstd, mean stored as 0. rstd = 1/sqrt(var + eps).
     * 0 x (N,C) | 1 branch (N,C), optional | 2 w (C) | 3 b (C), optional | 4 sum (N,C), may alias x or branch, optional
     * when branch is NULL | 5 y (N,C) | 6 stats f32 (N,2) = mean, rstd                                      norm
     */
    SHOAL_OP_NORM,
    /*
     * Gradient of the above with respect to sum, plus the gradient that reaches the residual stream from above:
     * dsum = dres + norm'(dy). (The branch's own gradient is residual * dsum: the matmul that reads it scales by alpha.)
     * 0 sum (N,C) | 1 w (C) | 2 stats f32 (N,2) | 3 dy (N,C) | 4 dres (N,C), optional | 5 dsum (N,C), may alias dres or dy
     * 6 dw g(C) | 7 db g(C), optional                                                                       norm
     */
    SHOAL_OP_NORM_BWD,
    /*
     * Y(m,n) = alpha * op(A)(m,k) op(B)(k,n) [+ bias(n)] [+ Y if accumulate]. op(A) is A (m,k) with lda, or, with trans_a, the
     * transpose of A (k,m). Likewise op(B): B (k,n), or the transpose of B (n,k). A weight W (out,in) is used forward as
     * trans_b: Y(N,out) = X(N,in) W^T. A and B are `dtype`, Y is `out_dtype`, bias is `dtype`.
     * 0 A | 1 B | 2 bias (n), optional | 3 Y                                                                matmul
     */
    SHOAL_OP_MATMUL,
    /* db[j] = alpha * sum_i dY[i,j].  0 dY (m,n) ld | 1 db g(n)                                             colsum */
    SHOAL_OP_COLSUM,
    /*
     * Per-head normalization (optional, layer norm without bias, weight shared by the heads) and then rotary embedding
     * (optional), position n % T. `table` f32 (T, D/2, 2) = cos, sin of position * theta^(-2i/D).
     * Interleaved: pairs (2i, 2i+1). Half: pairs (i, i + D/2). (a, b) -> (a cos - b sin, b cos + a sin).
     * 0 x (N, heads, D) ldx | 1 w (D), optional: no normalization | 2 table, optional: no rotation | 3 y (N, heads, D) ldy,
     * may alias x                                                                                           headprep
     */
    SHOAL_OP_HEADPREP,
    /*
     * 0 x as given forward; NULL without w | 1 w (D), optional | 2 table, optional | 3 dy (N, heads, D) ldy
     * 4 dx (N, heads, D) ldx, may alias dy when ldx == ldy | 5 dw g(D), NULL without w. `ldsrc` is the ld of x here.   headprep
     */
    SHOAL_OP_HEADPREP_BWD,
    /*
     * Causal attention, scale 1/sqrt(D) in `scale`; query head h reads key/value head h / (H/K). T x T never exists in memory.
     * lse is the natural-log sum of exponentials of the scaled scores of a row.
     * 0 q (N,H,D) ldq | 1 k (N,K,D) ldk | 2 v (N,K,D) ldv | 3 o (N,H,D) ldo | 4 lse f32 (B,H,T)             attention
     */
    SHOAL_OP_ATTENTION,
    /*
     * 0 q | 1 k | 2 v | 3 o | 4 lse f32 | 5 do (N,H,D) ldo | 6 dq (N,H,D) lddq | 7 dk (N,K,D) lddk | 8 dv (N,K,D) lddv    attention
     */
    SHOAL_OP_ATTENTION_BWD,
    /*
     * GELU: y(N,F) = gelu(x(N,F)), exact (erf) or tanh. SwiGLU: x (N,2F) holds gate | up per row, y = silu(gate) * up.
     * 0 x | 1 y                                                                                             act
     */
    SHOAL_OP_ACT,
    /* 0 x | 1 dy (N,F) | 2 dx, shaped like x; GELU: may alias dy or x, SwiGLU: may alias x                   act */
    SHOAL_OP_ACT_BWD,
    /*
     * Cross-entropy with z-loss, per row: loss = lse - logit[target] + z_loss * lse^2, and, in place when `backward`,
     * dlogits = grad_scale * (softmax * (1 + 2 z_loss lse) - onehot(target)).
     * 0 logits (n,V) ld, overwritten by dlogits when backward | 1 targets i32 (n) | 2 loss f32 (n)           xent
     */
    SHOAL_OP_XENT,
    /* out[0] = scale * sum x (fp64 accumulation) [+ out[0]].  0 x f32 (n) | 1 out f32 (1)                    reduce */
    SHOAL_OP_SUM,
    /* out[0] = scale * sum x^2 (fp64 accumulation) [+ out[0]].  0 x f32 (n) | 1 out f32 (1)                  reduce */
    SHOAL_OP_SUMSQ,
    /* dst = src [+ dst], converted from src_dtype to dst_dtype.  0 src (n) | 1 dst (n), may alias src if of one dtype   cast */
    SHOAL_OP_CAST,
    /* Sets the listed element ranges of dst, of any `dtype`, to zero.  0 dst                                     fill */
    SHOAL_OP_FILL,
    /*
     * Initial values: dst[i] = std * element first + i of the normal sequence of `stream` (base/rng.h), or `constant` where
     * std is 0. fp32 whatever `dtype`.  0 dst f32 (n)                                                        normal
     */
    SHOAL_OP_NORMAL,
    /*
     * One optimizer step on a flat shard; formulas in kernels/optim.h. Padding is updated like parameters: its gradient
     * is zero, so it stays zero. `ranges` lists the element ranges that decay, ascending and disjoint. gnorm_sq is read only
     * when clip > 0.
     * 0 param f32 (n) | 1 m f32 (n) | 2 v f32 (n) | 3 tau f32 (n), Star variants only | 4 grad f32 (n)
     * 5 copy dtype (n), optional: receives the new parameters | 6 gnorm_sq f32 (1): the global sum of squares
     * 7 scalars f32 (SHOAL_SCALAR_COUNT)                                                                    optim
     */
    SHOAL_OP_OPTIM,

    SHOAL_OP_COMPUTE_COUNT, /* kinds below are not a device's: the executor serves them */

    /* 0 send (n per rank) | 1 recv (n * size).   n elements of `dtype` from each rank, in rank order.        coll */
    SHOAL_OP_ALL_GATHER = SHOAL_OP_COMPUTE_COUNT,
    /* 0 send (n * size) | 1 recv (n): the sum over ranks of slice `rank`.                                    coll */
    SHOAL_OP_REDUCE_SCATTER,
    /* 0 in and out (n).                                                                                      coll */
    SHOAL_OP_ALL_REDUCE,
    /* 0 tokens i32 (N) | 1 targets i32 (N): the rank's sequences of one micro-batch.                         fetch */
    SHOAL_OP_FETCH,

    SHOAL_OP_COUNT
} shoal_op_kind_t;

/*
 * A lane is an ordered queue of a step: kernels, gathers of parameters, reductions of gradients, and
 * what the host prepares.
 */
typedef enum {
    SHOAL_LANE_COMPUTE,
    SHOAL_LANE_GATHER,
    SHOAL_LANE_REDUCE,
    SHOAL_LANE_HOST,
    SHOAL_LANE_COUNT
} shoal_lane_t;

typedef enum { SHOAL_NORM_LAYER, SHOAL_NORM_RMS } shoal_norm_kind_t;
typedef enum { SHOAL_ROPE_NONE, SHOAL_ROPE_INTERLEAVED, SHOAL_ROPE_HALF } shoal_rope_kind_t;
typedef enum { SHOAL_ACT_GELU, SHOAL_ACT_GELU_TANH, SHOAL_ACT_SWIGLU } shoal_act_kind_t;
typedef enum {
    SHOAL_OPTIM_ADAMW,
    SHOAL_OPTIM_ADANA,
    SHOAL_OPTIM_DANA_MK4,
    SHOAL_OPTIM_DANA_STAR,
    SHOAL_OPTIM_DANA_STAR_MK4,
} shoal_optim_kind_t;

/* Elements first .. first + count - 1 of a flat buffer. */
typedef struct {
    size_t first, count;
} shoal_range_t;

/* What changes from step to step reaches the optimizer through memory, so that a captured program need not change. */
enum {
    SHOAL_SCALAR_STEP,     /* t, from 1 */
    SHOAL_SCALAR_LR,       /* gamma * s_t */
    SHOAL_SCALAR_SCHEDULE, /* s_t */
    SHOAL_SCALAR_DECAY,    /* the factor p is multiplied by where it decays: 1 - lr_t wd (AdamW), 1 - s_t wd/(1+t/ts) (DANA) */
    SHOAL_SCALAR_COUNT = 8
};

typedef struct {
    shoal_op_kind_t kind;
    shoal_dtype_t   dtype;
    shoal_dtype_t   gdtype;
    union {
        struct {
            size_t N, T, C, V;
            bool   accumulate;
        } embed;
        struct {
            size_t            N, C;
            shoal_norm_kind_t norm;
            float             eps;
            float             residual;
            bool              accumulate;
        } norm;
        struct {
            size_t        m, n, k, lda, ldb, ldy;
            bool          trans_a, trans_b, accumulate;
            float         alpha;
            shoal_dtype_t out_dtype;
        } matmul;
        struct {
            size_t m, n, ld;
            float  alpha;
            bool   accumulate;
        } colsum;
        struct {
            size_t            N, T, heads, D, ldx, ldy, ldsrc;
            shoal_rope_kind_t rope;
            float             eps;
            bool              accumulate;
        } headprep;
        struct {
            size_t B, T, H, K, D, ldq, ldk, ldv, ldo, lddq, lddk, lddv;
            float  scale;
        } attention;
        struct {
            size_t           N, F;
            shoal_act_kind_t act;
        } act;
        struct {
            size_t n, V, ld;
            float  z_loss, grad_scale;
            bool   backward;
        } xent;
        struct {
            size_t n;
            float  scale;
            bool   accumulate;
        } reduce;
        struct {
            size_t        n;
            shoal_dtype_t src_dtype, dst_dtype;
            bool          accumulate;
        } cast;
        struct {
            const shoal_range_t *ranges; /* owned by the program */
            size_t               count;
        } fill;
        struct {
            size_t   n;
            uint64_t stream, first;
            float    std, constant;
        } normal;
        struct {
            size_t               n;
            shoal_optim_kind_t   optim;
            const shoal_range_t *ranges; /* where parameters decay; owned by the program */
            size_t               count;
            float                beta1, beta2, eps; /* betas: AdamW only */
            float                clip;              /* largest global gradient norm; 0: no clipping */
            float                kappa, snr_clip, delta; /* DANA; snr_clip is infinite for ADana and Dana-Star */
        } optim;
        struct {
            size_t n;
        } coll;
        struct {
            size_t N, micro; /* micro-batch within the step */
        } fetch;
    };
} shoal_op_t;

#endif
