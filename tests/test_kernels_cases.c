/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the conformance suite runs: one entry per case. Sizes are odd on purpose, around vector widths (8, 16), tile edges
 * (32, 64) and one; leading dimensions exceed the rows; every optional argument is once absent and every alias that a
 * contract allows is once used. Types are not listed: each case runs in all that its op has.
 */
#include <math.h>

#include "tests/test_kernels.h"

static const shoal_range_t fill_ranges[]  = {{0, 1}, {3, 7}, {10, 65}, {100, 0}, {101, 300}};
static const shoal_range_t decay_ranges[] = {{0, 3}, {17, 40}, {90, 161}};
#define RANGES_OF_8(i)                                                                   \
    {100 * (i), 5}, {100 * (i) + 7, 1}, {100 * (i) + 9, 3}, {100 * (i) + 14, 4},         \
        {100 * (i) + 20, 11}, {100 * (i) + 33, 2}, {100 * (i) + 40, 25}, {100 * (i) + 70, 30}
/* More than a launch of the CUDA kernel takes, at odd places. */
static const shoal_range_t decay_many[]   = {RANGES_OF_8(0), RANGES_OF_8(1), RANGES_OF_8(2),
                                            RANGES_OF_8(3), RANGES_OF_8(4)};
static const shoal_range_t decay_all[]    = {{0, 1000000}};

#define EMBED(kind_, ...)     .op = {.kind = SHOAL_OP_##kind_, .embed = {__VA_ARGS__}}
#define NORM(kind_, ...)      .op = {.kind = SHOAL_OP_##kind_, .norm = {__VA_ARGS__, .eps = 1e-5f}}
#define MATMUL(...)           .op = {.kind = SHOAL_OP_MATMUL, .matmul = {__VA_ARGS__}}
#define COLSUM(...)           .op = {.kind = SHOAL_OP_COLSUM, .colsum = {__VA_ARGS__}}
#define HEADPREP(kind_, ...)  .op = {.kind = SHOAL_OP_##kind_, .headprep = {__VA_ARGS__, .eps = 1e-5f}}
#define ATTENTION(kind_, ...) .op = {.kind = SHOAL_OP_##kind_, .attention = {__VA_ARGS__}}
#define ACT(kind_, ...)       .op = {.kind = SHOAL_OP_##kind_, .act = {__VA_ARGS__}}
#define XENT(...)             .op = {.kind = SHOAL_OP_XENT, .xent = {__VA_ARGS__}}
#define REDUCE(kind_, ...)    .op = {.kind = SHOAL_OP_##kind_, .reduce = {__VA_ARGS__}}
#define CAST(...)             .op = {.kind = SHOAL_OP_CAST, .cast = {__VA_ARGS__}}
#define FILL(ranges_, count_) .op = {.kind = SHOAL_OP_FILL, .fill = {ranges_, count_}}
#define NORMAL(...)           .op = {.kind = SHOAL_OP_NORMAL, .normal = {__VA_ARGS__}}
#define OPTIM(...)            .op = {.kind = SHOAL_OP_OPTIM, .optim = {__VA_ARGS__}}

const kernel_case_t kernel_cases[] = {
    {EMBED(EMBED, .N = 1, .T = 1, .C = 1, .V = 1)},
    {EMBED(EMBED, .N = 14, .T = 7, .C = 33, .V = 17)},
    {EMBED(EMBED, .N = 6, .T = 3, .C = 65, .V = 5), .omit = OMIT(2)},
    {EMBED(EMBED_BWD, .N = 1, .T = 1, .C = 1, .V = 1)},
    {EMBED(EMBED_BWD, .N = 34, .T = 17, .C = 33, .V = 7)},
    {EMBED(EMBED_BWD, .N = 34, .T = 17, .C = 65, .V = 101, .accumulate = true)},
    {EMBED(EMBED_BWD, .N = 128, .T = 64, .C = 16, .V = 3, .accumulate = true), .omit = OMIT(3)},

    {NORM(NORM, .N = 1, .C = 3, .residual = 1)},
    {NORM(NORM, .N = 7, .C = 33, .residual = 0.5f)},
    {NORM(NORM, .N = 5, .C = 65, .residual = 1), .omit = OMIT(3)},
    {NORM(NORM, .N = 5, .C = 17, .norm = SHOAL_NORM_RMS, .residual = 1), .omit = OMIT(3)},
    {NORM(NORM, .N = 5, .C = 64, .norm = SHOAL_NORM_RMS, .residual = 1), .omit = OMIT(1) | OMIT(4)},
    {NORM(NORM, .N = 4, .C = 31, .residual = 1), .omit = OMIT(1)},
    {NORM(NORM, .N = 9, .C = 48, .residual = 0.25f), .alias = ALIAS(4, 0)},
    {NORM(NORM, .N = 9, .C = 35, .residual = 0.25f), .alias = ALIAS(4, 1)},
    {NORM(NORM, .N = 33, .C = 768, .residual = 1)},
    {NORM(NORM_BWD, .N = 1, .C = 3)},
    {NORM(NORM_BWD, .N = 7, .C = 33)},
    {NORM(NORM_BWD, .N = 17, .C = 65, .accumulate = true), .omit = OMIT(7)},
    {NORM(NORM_BWD, .N = 5, .C = 17, .norm = SHOAL_NORM_RMS), .omit = OMIT(4) | OMIT(7)},
    {NORM(NORM_BWD, .N = 9, .C = 32, .norm = SHOAL_NORM_RMS, .accumulate = true), .alias = ALIAS(5, 4)},
    {NORM(NORM_BWD, .N = 9, .C = 47), .alias = ALIAS(5, 3)},
    {NORM(NORM_BWD, .N = 9, .C = 47), .omit = OMIT(4), .alias = ALIAS(5, 3)},
    {NORM(NORM_BWD, .N = 70, .C = 768), .large = true},
    {NORM(NORM_BWD, .N = 70, .C = 768), .omit = OMIT(4), .alias = ALIAS(5, 3), .large = true},
    {NORM(NORM_BWD, .N = 41, .C = 520), .alias = ALIAS(5, 4), .large = true},

    {MATMUL(.m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .ldy = 1, .alpha = 1)},
    {MATMUL(.m = 3, .n = 5, .k = 7, .lda = 9, .ldb = 6, .ldy = 8, .alpha = 1)},
    {MATMUL(.m = 33, .n = 65, .k = 17, .lda = 17, .ldb = 17, .ldy = 65, .trans_b = true, .alpha = 1)},
    {MATMUL(.m = 33, .n = 65, .k = 17, .lda = 17, .ldb = 17, .ldy = 65, .trans_b = true, .alpha = 1), .omit = OMIT(2)},
    {MATMUL(.m = 65, .n = 33, .k = 129, .lda = 130, .ldb = 35, .ldy = 40, .alpha = 0.5f), .omit = OMIT(2)},
    {MATMUL(.m = 31, .n = 63, .k = 64, .lda = 33, .ldb = 66, .ldy = 63, .trans_a = true, .accumulate = true, .alpha = -2),
     .omit = OMIT(2)},
    {MATMUL(.m = 17, .n = 1, .k = 33, .lda = 17, .ldb = 33, .ldy = 3, .trans_a = true, .trans_b = true, .alpha = 1)},
    {MATMUL(.m = 1, .n = 65, .k = 300, .lda = 300, .ldb = 300, .ldy = 65, .trans_b = true, .accumulate = true, .alpha = 1)},
    {MATMUL(.m = 9, .n = 10, .k = 11, .lda = 11, .ldb = 10, .ldy = 10, .accumulate = true, .alpha = 0.5f)},
    {MATMUL(.m = 257, .n = 129, .k = 100, .lda = 120, .ldb = 100, .ldy = 150, .trans_b = true, .alpha = 1)},
    {MATMUL(.m = 96, .n = 200, .k = 515, .lda = 96, .ldb = 200, .ldy = 200, .trans_a = true, .accumulate = true, .alpha = 1),
     .omit = OMIT(2)},
    {MATMUL(.m = 700, .n = 96, .k = 65, .lda = 65, .ldb = 65, .ldy = 97, .trans_b = true, .alpha = 1)},
    {MATMUL(.m = 600, .n = 40, .k = 40, .lda = 41, .ldb = 40, .ldy = 40, .accumulate = true, .alpha = 0.5f), .omit = OMIT(2)},

    {COLSUM(.m = 1, .n = 1, .ld = 1, .alpha = 1)},
    {COLSUM(.m = 33, .n = 17, .ld = 20, .alpha = 0.5f)},
    {COLSUM(.m = 65, .n = 129, .ld = 129, .alpha = -1, .accumulate = true)},

    {HEADPREP(HEADPREP, .N = 1, .T = 1, .heads = 1, .D = 2, .ldx = 2, .ldy = 2)},
    {HEADPREP(HEADPREP, .N = 14, .T = 7, .heads = 3, .D = 34, .ldx = 110, .ldy = 102, .rope = SHOAL_ROPE_INTERLEAVED)},
    {HEADPREP(HEADPREP, .N = 14, .T = 7, .heads = 3, .D = 34, .ldx = 110, .ldy = 105, .rope = SHOAL_ROPE_HALF)},
    {HEADPREP(HEADPREP, .N = 6, .T = 3, .heads = 2, .D = 17, .ldx = 40, .ldy = 34), .omit = OMIT(2)},
    {HEADPREP(HEADPREP, .N = 6, .T = 3, .heads = 2, .D = 64, .ldx = 130, .ldy = 130, .rope = SHOAL_ROPE_HALF), .omit = OMIT(1),
     .alias = ALIAS(3, 0)},
    {HEADPREP(HEADPREP, .N = 6, .T = 3, .heads = 2, .D = 64, .ldx = 128, .ldy = 128, .rope = SHOAL_ROPE_INTERLEAVED),
     .alias = ALIAS(3, 0)},
    {HEADPREP(HEADPREP_BWD, .N = 14, .T = 7, .heads = 3, .D = 34, .ldx = 110, .ldy = 102, .ldsrc = 103,
              .rope = SHOAL_ROPE_INTERLEAVED)},
    {HEADPREP(HEADPREP_BWD, .N = 14, .T = 7, .heads = 3, .D = 34, .ldx = 110, .ldy = 105, .ldsrc = 120,
              .rope = SHOAL_ROPE_HALF, .accumulate = true)},
    {HEADPREP(HEADPREP_BWD, .N = 6, .T = 3, .heads = 2, .D = 17, .ldx = 40, .ldy = 34, .ldsrc = 34), .omit = OMIT(2)},
    {HEADPREP(HEADPREP_BWD, .N = 6, .T = 3, .heads = 2, .D = 64, .ldx = 130, .ldy = 130, .ldsrc = 128,
              .rope = SHOAL_ROPE_HALF), .omit = OMIT(0) | OMIT(1) | OMIT(5), .alias = ALIAS(4, 3)},
    {HEADPREP(HEADPREP_BWD, .N = 6, .T = 3, .heads = 2, .D = 64, .ldx = 128, .ldy = 128, .ldsrc = 128,
              .rope = SHOAL_ROPE_INTERLEAVED), .alias = ALIAS(4, 3)},
    {HEADPREP(HEADPREP_BWD, .N = 900, .T = 30, .heads = 7, .D = 48, .ldx = 336, .ldy = 336,
              .ldsrc = 352, .rope = SHOAL_ROPE_HALF), .alias = ALIAS(4, 3), .large = true},

    {ATTENTION(ATTENTION, .B = 1, .T = 1, .H = 1, .K = 1, .D = 1, .ldq = 1, .ldk = 1, .ldv = 1, .ldo = 1, .scale = 1)},
    {ATTENTION(ATTENTION, .B = 2, .T = 17, .H = 4, .K = 2, .D = 8, .ldq = 33, .ldk = 17, .ldv = 18, .ldo = 35, .scale = 0.35f)},
    {ATTENTION(ATTENTION, .B = 1, .T = 65, .H = 3, .K = 1, .D = 33, .ldq = 99, .ldk = 33, .ldv = 33, .ldo = 99, .scale = 1)},
    {ATTENTION(ATTENTION, .B = 1, .T = 130, .H = 2, .K = 2, .D = 64, .ldq = 384, .ldk = 384, .ldv = 384, .ldo = 128,
               .scale = 0.125f)},
    {ATTENTION(ATTENTION, .B = 1, .T = 257, .H = 1, .K = 1, .D = 16, .ldq = 16, .ldk = 16, .ldv = 16, .ldo = 16, .scale = 2)},
    {ATTENTION(ATTENTION_BWD, .B = 1, .T = 1, .H = 1, .K = 1, .D = 1, .ldq = 1, .ldk = 1, .ldv = 1, .ldo = 1, .lddq = 1,
               .lddk = 1, .lddv = 1, .scale = 1)},
    {ATTENTION(ATTENTION_BWD, .B = 2, .T = 17, .H = 4, .K = 2, .D = 8, .ldq = 33, .ldk = 17, .ldv = 18, .ldo = 35, .lddq = 32,
               .lddk = 20, .lddv = 21, .scale = 0.35f)},
    {ATTENTION(ATTENTION_BWD, .B = 1, .T = 66, .H = 1, .K = 1, .D = 17, .ldq = 17, .ldk = 17, .ldv = 17, .ldo = 17, .lddq = 17,
               .lddk = 17, .lddv = 17, .scale = 0.25f)},
    {ATTENTION(ATTENTION_BWD, .B = 2, .T = 150, .H = 6, .K = 3, .D = 64, .ldq = 768, .ldk = 768, .ldv = 768, .ldo = 384,
               .lddq = 768, .lddk = 768, .lddv = 768, .scale = 0.125f), .large = true},

    {ACT(ACT, .N = 3, .F = 65, .act = SHOAL_ACT_GELU)},
    {ACT(ACT, .N = 3, .F = 33, .act = SHOAL_ACT_GELU_TANH)},
    {ACT(ACT, .N = 7, .F = 17, .act = SHOAL_ACT_SWIGLU)},
    {ACT(ACT, .N = 1, .F = 1, .act = SHOAL_ACT_SWIGLU)},
    {ACT(ACT_BWD, .N = 3, .F = 65, .act = SHOAL_ACT_GELU)},
    {ACT(ACT_BWD, .N = 3, .F = 33, .act = SHOAL_ACT_GELU), .alias = ALIAS(2, 0)},
    {ACT(ACT_BWD, .N = 5, .F = 17, .act = SHOAL_ACT_GELU_TANH), .alias = ALIAS(2, 1)},
    {ACT(ACT_BWD, .N = 7, .F = 31, .act = SHOAL_ACT_SWIGLU)},
    {ACT(ACT_BWD, .N = 7, .F = 48, .act = SHOAL_ACT_SWIGLU), .alias = ALIAS(2, 0)},

    {XENT(.n = 1, .V = 1, .ld = 1, .grad_scale = 1, .backward = true)},
    {XENT(.n = 7, .V = 65, .ld = 70, .z_loss = 1e-2f, .grad_scale = 1)},
    {XENT(.n = 7, .V = 65, .ld = 70, .z_loss = 1e-2f, .grad_scale = 0.125f, .backward = true)},
    {XENT(.n = 5, .V = 257, .ld = 257, .grad_scale = 1, .backward = true)},

    {REDUCE(SUM, .n = 1, .scale = 1)},
    {REDUCE(SUM, .n = 1003, .scale = 0.5f, .accumulate = true)},
    {REDUCE(SUMSQ, .n = 17, .scale = 1)},
    {REDUCE(SUMSQ, .n = 100003, .scale = 0.25f, .accumulate = true)},
    {CAST(.n = 1)},
    {CAST(.n = 1003)},
    {CAST(.n = 65, .accumulate = true)},
    {CAST(.n = 33), .alias = ALIAS(1, 0)},
    {FILL(fill_ranges, 5)},
    {FILL(decay_all, 0)},
    {NORMAL(.n = 1, .stream = 7, .first = 2, .std = 1)},
    {NORMAL(.n = 1003, .stream = 0x123456789abcdef0, .first = 0x3ffffffff, .std = 0.02f)},
    {NORMAL(.n = 33, .constant = -1.5f)},

    {OPTIM(.n = 251, .optim = SHOAL_OPTIM_ADAMW, .ranges = decay_ranges, .count = 3, .beta1 = 0.9f, .beta2 = 0.95f,
           .eps = 1e-8f, .clip = 1), .omit = OMIT(3)},
    {OPTIM(.n = 33, .optim = SHOAL_OPTIM_ADAMW, .ranges = decay_all, .count = 1, .beta1 = 0.8f, .beta2 = 0.99f,
           .eps = 1e-6f), .omit = OMIT(3) | OMIT(5)},
    {OPTIM(.n = 251, .optim = SHOAL_OPTIM_ADANA, .ranges = decay_ranges, .count = 3, .eps = 1e-8f, .clip = 1, .kappa = 0.75f,
           .snr_clip = INFINITY, .delta = 8), .omit = OMIT(3)},
    {OPTIM(.n = 251, .optim = SHOAL_OPTIM_DANA_MK4, .ranges = decay_ranges, .count = 3, .eps = 1e-8f, .clip = 100,
           .kappa = 0.85f, .snr_clip = 2, .delta = 8), .omit = OMIT(3)},
    {OPTIM(.n = 251, .optim = SHOAL_OPTIM_DANA_STAR, .ranges = decay_ranges, .count = 3, .eps = 1e-8f, .clip = 1,
           .kappa = 0.75f, .snr_clip = INFINITY, .delta = 8)},
    {OPTIM(.n = 251, .optim = SHOAL_OPTIM_DANA_STAR_MK4, .ranges = decay_all, .count = 0, .eps = 1e-8f, .clip = 2,
           .kappa = 0.75f, .snr_clip = 2, .delta = 8), .omit = OMIT(5)},
    {OPTIM(.n = 1, .optim = SHOAL_OPTIM_DANA_STAR, .ranges = decay_all, .count = 1,
           .eps = 1e-8f, .kappa = 0.85f, .snr_clip = INFINITY, .delta = 8)},
    {OPTIM(.n = 3, .optim = SHOAL_OPTIM_DANA_STAR, .ranges = decay_all, .count = 1,
           .eps = 1e-8f, .kappa = 0, .snr_clip = INFINITY, .delta = 8)},
    {OPTIM(.n = 5, .optim = SHOAL_OPTIM_DANA_STAR_MK4, .ranges = decay_ranges, .count = 3,
           .eps = 1e-8f, .kappa = 2, .snr_clip = 1, .delta = 8)},
    {OPTIM(.n = 1023, .optim = SHOAL_OPTIM_DANA_STAR, .ranges = decay_many, .count = 40,
           .eps = 1e-8f, .clip = 1, .kappa = 0.85f, .snr_clip = INFINITY, .delta = 8)},
    {OPTIM(.n = 1023, .optim = SHOAL_OPTIM_ADAMW, .ranges = decay_many, .count = 40, .beta1 = 0.9f,
           .beta2 = 0.95f, .eps = 1e-8f, .clip = 1), .omit = OMIT(3)},
};

const size_t kernel_case_count = sizeof(kernel_cases) / sizeof(kernel_cases[0]);
