/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a run is, as plain data: the configuration after parsing, defaults and validation (src/config/config.h fills it), and the
 * only description of the run that the runtime sees. Letters as in kernels/ops.h. Strings are owned by the configuration.
 */
#ifndef SHOAL_RUNTIME_SPEC_H
#define SHOAL_RUNTIME_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collectives/transport.h"
#include "kernels/device.h"
#include "kernels/ops.h"

typedef enum { SHOAL_POS_NONE, SHOAL_POS_LEARNED } shoal_pos_kind_t;
typedef enum { SHOAL_RECOMPUTE_NONE, SHOAL_RECOMPUTE_SELECTIVE, SHOAL_RECOMPUTE_FULL } shoal_recompute_t;
typedef enum { SHOAL_SHARD_FULL, SHOAL_SHARD_GRAD, SHOAL_SHARD_NONE } shoal_shard_t; /* ZeRO-3, ZeRO-2, replicated */
typedef enum { SHOAL_SYNC_LAST, SHOAL_SYNC_EVERY } shoal_sync_t; /* reduce gradients after the last or each micro-batch */
typedef enum { SHOAL_ORDER_SHUFFLE, SHOAL_ORDER_SEQUENTIAL } shoal_order_t;
typedef enum { SHOAL_SCHEDULE_CONSTANT, SHOAL_SCHEDULE_COS, SHOAL_SCHEDULE_COS_INF, SHOAL_SCHEDULE_WSD } shoal_schedule_t;

typedef struct {
    const char       *arch; /* "enoki", "llama", "gpt2": chooses the defaults of what follows */
    size_t            heads, kv_heads, head_dim, d_model, layers, ffn, seq, vocab; /* H K D C L F T V */
    shoal_norm_kind_t norm;
    shoal_act_kind_t  act;
    shoal_rope_kind_t rope;
    shoal_pos_kind_t  pos;
    double            rope_theta, norm_eps, residual, z_loss;
    bool              qk_norm, bias, tied;
} shoal_model_spec_t;

typedef struct {
    const char   *train, *valid; /* token files; valid may be "" */
    shoal_order_t order;
} shoal_data_spec_t;

typedef struct {
    size_t       local;      /* sequences per rank and micro-batch */
    size_t       accumulate; /* micro-batches per optimizer step */
    size_t       global;     /* sequences per optimizer step over all ranks; 0: local * accumulate * ranks */
    shoal_sync_t sync;
} shoal_batch_spec_t;

/* The most units that may be gathered ahead of use: the bound of parallel.prefetch, and of every table that it sizes. */
enum { SHOAL_PREFETCH_MAX = 64 };

typedef struct {
    shoal_shard_t      shard;
    size_t             tp;       /* ranks per tensor-parallel group; 1 in this version */
    size_t             prefetch; /* units gathered ahead of use */
    const char        *transport;
    shoal_recompute_t  recompute;
    size_t             gather_ctas, reduce_ctas; /* NCCL: thread blocks of a lane's collectives at most; 0: it chooses */
    shoal_cta_policy_t gather_policy;
    shoal_windows_t    windows;
} shoal_parallel_spec_t;

typedef struct {
    shoal_optim_kind_t kind;
    const char        *name;
    double             lr; /* resolved: "auto" has become a number */
    double             wd; /* resolved likewise */
    double             clip, beta1, beta2, eps, kappa, snr_clip, delta;
    shoal_schedule_t   schedule;
    size_t             warmup; /* steps */
} shoal_optim_spec_t;

typedef struct {
    shoal_dtype_t compute, gather, reduce;
} shoal_precision_spec_t;

typedef struct {
    size_t      steps;
    uint64_t    seed;
    const char *dir;
    const char *device;
    const char *variant; /* of the CPU kernels */
    size_t      threads; /* per rank; 0: share of the cores */
    size_t      nan_steps; /* steps in a row without a finite loss that end the run; 0: none do */
    size_t      eval_every, eval_batches; /* steps between validations (0: never) and global batches in each */
    size_t      trace_step; /* step whose timeline is written to DIR/trace.json; 0: none */
    size_t      timeout_s;  /* a collective that takes longer is a hang */
    double      memory_gib; /* per rank; 0: what the device reports */
    /* Of that, left to libraries and communicators; NaN: as device and transport say. */
    double      reserve_gib;
    size_t      head_chunk; /* tokens per chunk of the fused head and loss; 0: as suits the device */
    bool        graph;         /* GPU: record a step and replay it */
    bool        deterministic; /* GPU: only kernels whose bits are the same in every run */
    shoal_attention_t attention; /* GPU: what runs attention in bf16 */
    bool        tune;          /* GPU: time the candidates for each matmul once */
    bool        check_ops;     /* GPU: wait behind every op, so that an error names it */
} shoal_run_spec_t;

typedef struct {
    size_t nodes[16], ranks_per_node[16], local[16], seeds[16];
    size_t nnodes, nranks_per_node, nlocal, nseeds; /* how many of each */
    shoal_shard_t shard[3];
    size_t        nshard;
    size_t        warmup, steps; /* per row: steps not counted, steps timed */
    size_t        gate_steps;    /* steps whose loss is compared with the one-rank run */
    double        gate_tolerance; /* relative */
    size_t        timeout_s;     /* per row */
    size_t        launch_timeout_s; /* until a row shows a sign of life; 0: no limit */
} shoal_study_spec_t;

/*
 * What the predicted time assumes of the machine; 0 each: measured on the spot (CPU), or from a
 * table or an assumption (GPU).
 */
typedef struct {
    double      flops;          /* sustained matmul flop/s per rank in the compute type */
    double      memory_gbs;     /* GB/s per rank, streaming */
    /*
     * GB/s per rank, bus bandwidth of a large collective among the ranks of a node; 0 on CPUs:
     * link_gbs.
     */
    double      node_link_gbs;
    /*
     * GB/s per rank between nodes: its share of what a large collective gets through the node's
     * cards.
     */
    double      link_gbs;
    double      latency_us;     /* of one collective */
    size_t      ranks_per_node; /* where no launcher tells */
    /* What `plan` plans for where device = cuda: "auto", "h100", "h200", "a100". */
    const char *gpu;
} shoal_machine_spec_t;

typedef struct {
    shoal_model_spec_t     model;
    shoal_data_spec_t      data;
    shoal_batch_spec_t     batch;
    shoal_parallel_spec_t  parallel;
    shoal_optim_spec_t     optim;
    shoal_precision_spec_t precision;
    shoal_run_spec_t       run;
    shoal_study_spec_t     study;
    shoal_machine_spec_t   machine;
} shoal_spec_t;

#endif
