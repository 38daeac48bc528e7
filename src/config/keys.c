/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of configuration keys. To add a key: add the field to runtime/spec.h and a line here; parsing, ranges, help, errors and
 * JSON follow. The order of `choices` is the order of the enum that the key is stored in.
 */
#include "src/config/keys.h"

#include <assert.h>
#include <float.h>
#include <stdint.h>

#include "runtime/bootstrap/affinity.h"

static_assert(sizeof(size_t) == sizeof(uint64_t), "run.seed is stored as SIZE");
static_assert(sizeof(shoal_norm_kind_t) == sizeof(int), "enums are stored as int");

#define CHOICES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define AT(group, field)  #group "." #field, .offset = offsetof(shoal_spec_t, group.field)

#define STRING(group, field, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_STRING, .fallback = fallback_, .help = help_}
#define NAME(group, field, choices_, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_STRING, .choices = choices_, .fallback = fallback_, .help = help_}
#define ENUM(group, field, choices_, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_ENUM, .choices = choices_, .fallback = fallback_, .help = help_}
#define SIZE(group, field, min_, max_, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_SIZE, .min = min_, .max = max_, .fallback = fallback_, .help = help_}
#define REAL(group, field, min_, max_, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_REAL, .min = min_, .max = max_, .fallback = fallback_, .help = help_}
#define BOOL(group, field, fallback_, help_) \
    {AT(group, field), .type = SHOAL_KEY_BOOL, .fallback = fallback_, .help = help_}
#define LIST(field)                                                                       \
    .capacity = sizeof(((shoal_spec_t *)NULL)->study.field) / sizeof(((shoal_spec_t *)NULL)->study.field[0]), \
    .count_offset = offsetof(shoal_spec_t, study.n##field)
#define SIZE_LIST(field, min_, max_, fallback_, help_) \
    {AT(study, field), .type = SHOAL_KEY_SIZE, LIST(field), .min = min_, .max = max_, .fallback = fallback_, .help = help_}

#define DTYPES CHOICES("fp32", "bf16")
#define SHARDS CHOICES("full", "grad", "none")

/* Bounds that only keep products of sizes far from overflow. */
#define MANY   1048576.0
#define SEED   9223372036854774784.0 /* the largest double below 2^63, what the file format's integers can hold */
#define STEPS  1e12

const shoal_key_t shoal_keys[] = {
    NAME(model, arch, CHOICES("enoki", "llama", "gpt2"), "enoki", "preset that gives the other model keys their defaults"),
    SIZE(model, heads, 1, 4096, NULL, "query heads, the size knob"),
    SIZE(model, kv_heads, 1, 4096, "auto", "key/value heads; auto: as many as heads"),
    SIZE(model, head_dim, 1, 1024, "auto", "width of a head; auto: d_model / heads, or 64"),
    SIZE(model, d_model, 1, MANY, "auto", "model width; auto: heads * head_dim"),
    SIZE(model, layers, 1, 4096, "auto", "blocks; auto: 3/4 heads (enoki), heads (llama, gpt2)"),
    SIZE(model, ffn, 1, 4 * MANY, "auto", "MLP width; auto: 4 d_model, for swiglu 8/3 d_model rounded up to 64"),
    SIZE(model, seq, 1, MANY, "2048", "tokens per sequence"),
    SIZE(model, vocab, 2, 65536, "50304", "token ids; at most 65536, for token files hold 16 bits"),
    ENUM(model, norm, CHOICES("layernorm", "rmsnorm"), "auto", "normalization; auto: rmsnorm for llama, else layernorm"),
    ENUM(model, act, CHOICES("gelu", "gelu_tanh", "swiglu"), "auto", "MLP; auto: gelu (enoki), swiglu (llama), gelu_tanh (gpt2)"),
    ENUM(model, rope, CHOICES("none", "interleaved", "half"), "auto",
         "rotary pairs; auto: interleaved (enoki), half (llama), none (gpt2)"),
    ENUM(model, pos, CHOICES("none", "learned"), "auto", "position embedding; auto: learned for gpt2, else none"),
    REAL(model, rope_theta, 1, 1e12, "10000", "base of the rotary frequencies"),
    REAL(model, norm_eps, DBL_MIN, 1, "1e-5", "added to the variance"),
    REAL(model, residual, -1e6, 1e6, "1", "factor of each branch added to the residual stream"),
    REAL(model, z_loss, 0, 1e6, "0", "weight of the squared log-partition in the loss"),
    BOOL(model, qk_norm, "auto", "normalize queries and keys per head; auto: enoki only"),
    BOOL(model, bias, "auto", "biases in linear layers and layer norms; auto: gpt2 only"),
    BOOL(model, tied, "auto", "head shares the token embedding; auto: gpt2 only"),

    STRING(data, train, "", "token file to train on"),
    STRING(data, valid, "", "token file to validate on; empty: none"),
    ENUM(data, order, CHOICES("shuffle", "sequential"), "shuffle", "order of the windows in each epoch"),

    SIZE(batch, local, 1, MANY, "8", "sequences per rank and micro-batch"),
    SIZE(batch, accumulate, 1, MANY, "auto", "micro-batches per optimizer step; auto: as batch.global asks, or 1"),
    SIZE(batch, global, 1, 1e12, "auto", "sequences per optimizer step over all ranks; auto: local * accumulate * ranks"),
    ENUM(batch, sync, CHOICES("last", "every"), "last", "reduce gradients after the last or after every micro-batch"),

    ENUM(parallel, shard, SHARDS, "full", "what is sharded: parameters too, gradients and optimizer, or nothing"),
    SIZE(parallel, tp, 1, 4096, "1", "ranks per tensor-parallel group; only 1 in this version"),
    SIZE(parallel, prefetch, 0, SHOAL_PREFETCH_MAX, "1", "units gathered ahead of use"),
    NAME(parallel, transport, CHOICES("auto", "self", "mpi", "ucx", "nccl"), "auto",
         "what collectives run on; among GPUs, ucx and mpi go through pinned host memory"),
    ENUM(parallel, recompute, CHOICES("none", "selective", "full"), "none", "activations computed again in the backward pass"),
    SIZE(parallel, gather_ctas, 0, 32, "0",
         "NCCL: thread blocks of a gather at most, and multiprocessors that matmuls beside one leave free; 0: its choice, and none"),
    SIZE(parallel, reduce_ctas, 0, 32, "0", "NCCL: likewise for reductions"),
    ENUM(parallel, gather_policy, CHOICES("auto", "default", "efficiency", "zero"), "auto",
         "NCCL: its CTA policy for gathers; auto: its choice; zero: by the copy engines, with windows"),
    ENUM(parallel, windows, CHOICES("auto", "off", "on"), "auto",
         "NCCL: register memory as symmetric windows; auto: if all ranks are on one host, a GPU each, and can"),

    {"optim.name", .offset = offsetof(shoal_spec_t, optim.kind), .type = SHOAL_KEY_ENUM,
     .choices = CHOICES("adamw", "adana", "dana-mk4", "dana-star", "dana-star-mk4"), .fallback = "dana-star-mk4",
     .help = "optimizer"},
    REAL(optim, lr, DBL_MIN, 1e6, "auto", "peak learning rate; auto: the published rule for the optimizer, size and batch"),
    REAL(optim, wd, 0, 1e9, "auto", "weight decay; auto: 4/(lr steps) for adamw, 40/steps for the others"),
    REAL(optim, clip, 0, 1e9, "0.5", "largest global gradient norm; 0: no clipping"),
    REAL(optim, beta1, 0, 1 - DBL_EPSILON, "0.9", "adamw"),
    REAL(optim, beta2, 0, 1 - DBL_EPSILON, "0.999", "adamw"),
    REAL(optim, eps, 0, 1, "1e-8", "added to the root of the second moment"),
    REAL(optim, kappa, 0, 2, "0.85", "dana: the long momentum grows as t^(1 - kappa)"),
    REAL(optim, snr_clip, DBL_MIN, 1e30, "auto", "mk4 variants: bound of the long momentum; auto: 2"),
    REAL(optim, delta, DBL_MIN, 1e9, "8", "dana: averages decay as delta / (delta + t)"),
    ENUM(optim, schedule, CHOICES("constant", "cos", "cos_inf", "wsd"), "cos_inf", "learning rate after warm-up"),
    SIZE(optim, warmup, 0, STEPS, "auto", "steps of linear warm-up; auto: steps / 50"),

    ENUM(precision, compute, DTYPES, "bf16", "activations and weights in the kernels"),
    ENUM(precision, gather, DTYPES, "auto", "parameters on the wire; auto: as precision.compute"),
    ENUM(precision, reduce, DTYPES, "fp32", "gradients on the wire; the sums are fp32 always"),

    SIZE(run, steps, 1, STEPS, "50", "optimizer steps"),
    SIZE(run, seed, 0, SEED, "1", "of initial parameters and sample order"),
    STRING(run, dir, "runs/default", "directory for records and checkpoints"),
    NAME(run, device, CHOICES("auto", "cpu", "cuda"), "auto", "what computes"),
    NAME(run, variant, CHOICES("auto", "ref", "simd"), "auto", "of the CPU kernels"),
    SIZE(run, threads, 0, SHOAL_MAX_THREADS, "0", "per rank; 0: its share of the cores"),
    SIZE(run, nan_steps, 0, STEPS, "3", "steps in a row without a finite loss that end the run, with exit code 1; 0: it goes on"),
    SIZE(run, eval_every, 0, STEPS, "0", "steps between validations; 0: never"),
    SIZE(run, eval_batches, 1, MANY, "8", "global batches in each validation"),
    SIZE(run, trace_step, 0, STEPS, "0", "step whose timeline is written to DIR/trace.json; 0: none"),
    SIZE(run, timeout_s, 1, 864000, "120", "a collective that takes longer hangs"),
    REAL(run, memory_gib, 0, 1e6, "0", "memory per rank; 0: what the device reports"),
    REAL(run, reserve_gib, 0, 1e6, "auto",
         "of that, left to libraries and communicators; auto: 0 (CPU), 0.5 and 1 per NCCL communicator "
         "(GPU; two among several ranks)"),
    SIZE(run, head_chunk, 0, MANY, "0",
         "tokens per chunk of the fused head and loss; 0: as suits the device, on a GPU 4096 or more"),
    BOOL(run, graph, "true", "GPU: record a step and replay it, the bits are the same; among several ranks with NCCL only"),
    BOOL(run, deterministic, "true", "GPU: only kernels whose bits are the same in every run, NCCL without NVLS"),
    ENUM(run, attention, CHOICES("auto", "cudnn", "own"), "auto",
         "GPU: what runs attention in bf16; auto: cuDNN, and an error without it on sm_80 and sm_90; own: slower kernels"),
    BOOL(run, tune, "true", "GPU: time the candidates for each matmul once and remember the fastest"),
    BOOL(run, check_ops, "false", "GPU: wait behind every op, so that an error names it; slow"),

    SIZE_LIST(nodes, 1, MANY, "1", "node counts to measure"),
    SIZE_LIST(ranks_per_node, 1, 4096, "1", "ranks per node to measure"),
    {"study.shard", .offset = offsetof(shoal_spec_t, study.shard), .type = SHOAL_KEY_ENUM, LIST(shard), .choices = SHARDS,
     .fallback = "auto", .help = "shardings to measure; auto: parallel.shard"},
    SIZE_LIST(local, 1, MANY, "auto", "values of batch.local to measure; auto: that one"),
    SIZE_LIST(seeds, 0, SEED, "auto", "values of run.seed to measure; auto: that one"),
    SIZE(study, warmup, 0, MANY, "3", "steps of a row that are not timed"),
    SIZE(study, steps, 1, MANY, "10", "steps of a row that are timed"),
    SIZE(study, gate_steps, 0, MANY, "5", "steps whose loss is compared with one rank's; 0: no comparison"),
    REAL(study, gate_tolerance, 0, 1, "0.001", "largest relative difference of those losses"),
    SIZE(study, timeout_s, 1, 864000, "900", "a row that takes longer is stopped"),
    SIZE(study, launch_timeout_s, 0, 864000, "60",
         "a row whose ranks have not found each other by then is killed and started again, twice at most; 0: no limit"),

    REAL(machine, flops, 0, 1e18, "0", "matmul flop/s per rank that predictions assume; 0: measured or from a table"),
    REAL(machine, memory_gbs, 0, 1e9, "0", "GB/s of memory per rank; 0: likewise"),
    REAL(machine, node_link_gbs, 0, 1e9, "0",
         "GB/s per rank of a large collective within a node; 0: from a table (GPU), as link_gbs (CPU)"),
    REAL(machine, link_gbs, 0, 1e9, "0",
         "GB/s per rank between nodes, its share of the node's network; 0: not known, for GPUs a stated "
         "assumption"),
    REAL(machine, latency_us, 0, 1e9, "0", "of one collective; 0: from a table (GPU), none (CPU)"),
    SIZE(machine, ranks_per_node, 0, 4096, "0",
         "for plan, where no launcher tells; 0: all on one node (CPU), at most 8 (GPU)"),
    NAME(machine, gpu, CHOICES("auto", "h100", "h200", "a100"), "auto",
         "what plan plans for with run.device = cuda; auto: h200"),
};

const size_t shoal_nkeys = sizeof(shoal_keys) / sizeof(shoal_keys[0]);
