/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Causal attention as graphs of cuDNN's backend API, apart from planning and running them (cudnn.c), so that a test can build
 * them without a GPU. cuDNN has no op "causal attention" for this: it recognises the composition of products, pointwise ops and reductions
 * below as one, and then runs one fused kernel. It is particular about the composition: the order of the ops and the types of what
 * lies between them decide whether a kernel is found.
 */
#ifndef SHOAL_KERNELS_CUDA_CUDNN_GRAPH_H
#define SHOAL_KERNELS_CUDA_CUDNN_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include <cudnn.h>

typedef enum {
    SHOAL_CUDNN_FORWARD,
    SHOAL_CUDNN_BACKWARD,         /* dq is summed up in fp32 by many blocks, in whatever order they come */
    SHOAL_CUDNN_BACKWARD_ORDERED, /* dq is one more product: same bits every time, but T x T scores per head in memory */
    SHOAL_CUDNN_BACKWARD_SERIAL,  /* the first one's graph, by an engine whose blocks add to dq in a fixed order; not in every cuDNN */
} shoal_cudnn_pass_t;

/*
 * All that a graph depends on: B sequences of T tokens, H query and K key/value heads of width D, `ld`s in elements. Tensors are bf16.
 * Without padding, so that two can be compared as bytes.
 */
typedef struct {
    size_t pass; /* a shoal_cudnn_pass_t */
    size_t B, T, H, K, D, ldq, ldk, ldv, ldo, lddq, lddk, lddv;
} shoal_cudnn_shape_t;

/* The tensors that a graph's user provides when it runs. The number is the tensor's id in the graph, too. */
typedef enum {
    SHOAL_CUDNN_Q,       /* (B,T,H,D) ldq */
    SHOAL_CUDNN_K,       /* (B,T,K,D) ldk */
    SHOAL_CUDNN_V,       /* (B,T,K,D) ldv */
    SHOAL_CUDNN_O,       /* (B,T,H,D) ldo */
    SHOAL_CUDNN_LSE,     /* f32 (B,H,T): out of forward, into backward. Aligned to the element, all others to 16 bytes */
    SHOAL_CUDNN_DO,      /* (B,T,H,D) ldo */
    SHOAL_CUDNN_DQ,      /* (B,T,H,D) lddq */
    SHOAL_CUDNN_DK,      /* (B,T,K,D) lddk */
    SHOAL_CUDNN_DV,      /* (B,T,K,D) lddv */
    SHOAL_CUDNN_DELTA,   /* f32 (B,H,T), scratch: the sum over D of o * do */
    SHOAL_CUDNN_DQ_SUM,  /* f32 (B,H,T,D), scratch; not for BACKWARD_ORDERED. Needs no zeros: cuDNN >= 9.6 sees to it */
    SHOAL_CUDNN_SCALE,   /* f32 (1), in the host's memory, read when the graph is run */
    SHOAL_CUDNN_LOWEST,  /* f32 (1), likewise: what masked scores are, minus infinity */
    SHOAL_CUDNN_ONE,     /* f32 (1), likewise */
    SHOAL_CUDNN_TENSOR_COUNT
} shoal_cudnn_tensor_t;

enum { SHOAL_CUDNN_MAX_OPS = 32, SHOAL_CUDNN_MAX_DESCRIPTORS = 512, SHOAL_CUDNN_WHY_SIZE = 320 };

/* A graph, and every descriptor that was made for it. After the first error all steps are no-ops. */
typedef struct {
    cudnnHandle_t            handle;
    cudnnStatus_t            status;
    char                     why[SHOAL_CUDNN_WHY_SIZE]; /* the first error: call, meaning, what cuDNN adds */
    cudnnBackendDescriptor_t all[SHOAL_CUDNN_MAX_DESCRIPTORS];
    int                      count;
    cudnnBackendDescriptor_t ops[SHOAL_CUDNN_MAX_OPS];
    int                      nops;
    bool                     given[SHOAL_CUDNN_TENSOR_COUNT]; /* which tensors it wants when it runs */
    cudnnBackendDescriptor_t graph;
} shoal_cudnn_graph_t;

/*
 * Builds the graph of shape->pass. `handle` says for which GPU; NULL: for a device that `choose` is told. The caller releases *g
 * in any case. An error is not logged, since attention has another kernel to fall back to: it is in g->status and g->why.
 */
cudnnStatus_t shoal_cudnn_graph_build(shoal_cudnn_graph_t *g, cudnnHandle_t handle, const shoal_cudnn_shape_t *shape);

enum { SHOAL_CUDNN_MAX_CANDIDATES = 16 };

/*
 * The configurations that cuDNN's heuristics of `mode` propose, the best first; freed with g. Returns how many, 0 after an error or
 * where they know none. `device` is a finalized DEVICEPROP descriptor, or NULL if g has a handle.
 */
int shoal_cudnn_graph_candidates(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t device, cudnnBackendHeurMode_t mode,
                                 cudnnBackendDescriptor_t configs_p[static SHOAL_CUDNN_MAX_CANDIDATES]);

/* The number by which cuDNN knows the engine of a configuration; -1 after an error. */
int shoal_cudnn_graph_engine(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t config);

/*
 * For BACKWARD_SERIAL: a copy of `config`, of sm_90's backward engine, that makes it add to dq in order; NULL where its engine is
 * another or does not offer that, with the reason in g->why.
 */
cudnnBackendDescriptor_t shoal_cudnn_graph_serial(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t config);

/*
 * A finalized plan for a configuration, and the scratch memory that it wants; freed with g. `device` as above. The reason of a failure
 * is in g->why, but g remains in order: another configuration can be tried.
 */
cudnnStatus_t shoal_cudnn_graph_plan(shoal_cudnn_graph_t *g, cudnnBackendDescriptor_t device, cudnnBackendDescriptor_t config,
                                     cudnnBackendDescriptor_t *plan_p, size_t *workspace_p);

/* What shoal_cudnn_graph_select has found. */
typedef struct {
    cudnnBackendDescriptor_t plan;
    int                      engine, rank; /* of how many configurations were tried before it */
} shoal_cudnn_choice_t;

/*
 * The first configuration, of mode A and then of the fallbacks, that can be planned here, wants at most `nbytes` of scratch memory
 * and, of a pass whose bits must be the same every time, is not noted as nondeterministic. g is of `pass` and has a handle. Where there
 * is none, g->why tells what the first one lacked, how many were tried, and by how much the smallest missed `nbytes`.
 */
cudnnStatus_t shoal_cudnn_graph_select(shoal_cudnn_graph_t *g, shoal_cudnn_pass_t pass, size_t nbytes, shoal_cudnn_choice_t *choice_p);

void shoal_cudnn_graph_release(shoal_cudnn_graph_t *g);

/* Writes "call: meaning (cause)" of an error of the calling thread's last call. */
void shoal_cudnn_explain(cudnnStatus_t status, const char *call, char why_p[static SHOAL_CUDNN_WHY_SIZE]);

#endif
