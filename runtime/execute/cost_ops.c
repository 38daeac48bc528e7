/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long an op takes: every formula of the prediction. Times within are microseconds unless their
 * names say otherwise.
 */
#include <math.h>

#include "runtime/execute/cost.h"

#include "kernels/op_table.h"

/*
 * A kernel call that moves next to nothing still takes this long: dispatch and thread start, seen
 * on CPUs.
 */
static const double call_us = 3;

/* ---- compute ---- */

/* Flops or bytes. A GPU's rates know what an op costs beyond them. */
static double roofline(const shoal_cost_t *cost, const shoal_op_t *op)
{
    double arithmetic = shoal_op_flops(op) / cost->machine.flops * 1e6;
    double traffic    = shoal_op_nbytes(op) / (cost->machine.memory_gbs * 1e3);
    return (cost->rates != NULL ? cost->rates->op_us : call_us) + fmax(arithmetic, traffic);
}

/*
 * A matmul whose Y is cut into tiles of (Tm,Tn), which run at a share of the full rate: small tiles
 * read more for each product.
 */
static double in_tiles(const shoal_rates_t *r, const shoal_op_t *op, double Tm, double Tn,
                       double share)
{
    double m = (double)op->matmul.m, n = (double)op->matmul.n, k = (double)op->matmul.k;
    double S      = r->multiprocessors;
    double waves  = ceil(m / Tm) * ceil(n / Tn) / S;
    double waited = fmax(waves + r->wave_least * (ceil(waves) - waves), r->wave_least);
    double wave   = 2 * Tm * Tn * k * S / (r->flops * share) * 1e6 + r->wave_us;
    return waited * wave * (1 + r->slowdown * fmax(0, log2(2 * m * n * k / 1e12)));
}

static double matmul(const shoal_cost_t *cost, const shoal_op_t *op)
{
    static const struct {
        double Tm, Tn, share;
    } tiles[]                 = {{128, 256, 1}, {256, 128, 1}, {128, 128, 0.9}, {128, 64, 0.7}};
    const shoal_rates_t *r    = cost->rates;
    double               best = INFINITY;
    for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++) {
        best = fmin(best, in_tiles(r, op, tiles[i].Tm, tiles[i].Tn, tiles[i].share));
    }
    return r->start_us +
           fmax(best, shoal_op_nbytes(op) / (r->memory_share * cost->sheet_gbs * 1e3));
}

/*
 * Scores that are written and read again: 2 bytes each way for each pair of tokens of the causal
 * half, in every query head.
 */
static double score_traffic(const shoal_cost_t *cost, const shoal_op_t *op)
{
    double T     = (double)op->attention.T;
    double pairs = (double)op->attention.B * (double)op->attention.H * T * T / 2;
    return 4 * pairs / (cost->machine.memory_gbs * 1e3);
}

static double attention(const shoal_cost_t *cost, const shoal_op_t *op)
{
    bool                          backward = op->kind == SHOAL_OP_ATTENTION_BWD;
    const shoal_attention_rate_t *rate  = &cost->rates->attention[op->attention.D > 64][backward];
    double                        T     = (double)op->attention.T;
    double                        flops = rate->peak_flops * T / (T + rate->half_at);
    double extra = backward && cost->stores_scores ? score_traffic(cost, op) : 0;
    return cost->rates->op_us +
           fmax(shoal_op_flops(op) / flops * 1e6,
                shoal_op_nbytes(op) / (cost->machine.memory_gbs * 1e3)) +
           extra;
}

static double compute(const shoal_cost_t *cost, const shoal_op_t *op)
{
    bool attends = op->kind == SHOAL_OP_ATTENTION || op->kind == SHOAL_OP_ATTENTION_BWD;
    if (op->kind == SHOAL_OP_MATMUL && op->dtype == SHOAL_BF16 &&
        cost->source[SHOAL_COST_MATMUL] == SHOAL_SOURCE_TABLE) {
        return matmul(cost, op);
    }
    if (attends && op->dtype == SHOAL_BF16 &&
        cost->source[SHOAL_COST_ATTENTION] == SHOAL_SOURCE_TABLE) {
        return attention(cost, op);
    }
    return roofline(cost, op);
}

/* ---- collectives ---- */

static double lerp(double a, double b, double t)
{
    return a + t * (b - a);
}

/*
 * The curve among n GPUs of a node, from those of 4 and 8. The start goes on in a straight line to
 * both sides, for every rank adds a hop; rate and root are those of 4 below and of 8 above, for
 * nothing was measured there.
 */
static shoal_coll_rate_t curve(const shoal_coll_rate_t of[2], int n)
{
    double t = ((double)n - 4) / 4, within = fmin(fmax(t, 0), 1);
    return (shoal_coll_rate_t){.start_us = lerp(of[0].start_us, of[1].start_us, t),
                               .gbs      = lerp(of[0].gbs, of[1].gbs, within),
                               .root     = lerp(of[0].root, of[1].root, within)};
}

/*
 * A ring over all ranks, as NCCL's own model has it (NVIDIA/nccl, src/graph/tuning.cc, Simple
 * protocol, on hosts with Intel processors; a network's own latency of 1 us is assumed): one hop
 * fewer than ranks, of which one fewer than nodes cross the network. all_reduce goes around twice.
 */
static double ring_start(const shoal_cost_t *cost, bool twice)
{
    double hops = cost->nranks - 1, crossing = cost->nnodes - 1;
    return 8.4 + (twice ? 2 : 1) * ((hops - crossing) * 3.4 + crossing * (14 + 2 * 1));
}

/*
 * GB/s of the bus that the ranks can have, as NCCL's tests count it; 0: unknown. All cards of a
 * node carry a part of each byte.
 */
static double bus_gbs(const shoal_cost_t *cost, double within)
{
    double between = cost->machine.link_gbs * cost->ranks_per_node;
    if (cost->nnodes == 1 || between <= 0) {
        return cost->nnodes == 1 ? within : 0;
    }
    return cost->ranks_per_node > 1 && within > 0 ? fmin(within, between) : between;
}

/* Each rank sends and receives (n - 1)/n of all bytes, and twice that in all_reduce. */
static double wire_kb(const shoal_cost_t *cost, const shoal_op_t *op)
{
    double others   = (double)(cost->nranks - 1);
    double elements = op->kind == SHOAL_OP_ALL_REDUCE
                          ? 2 * (double)op->coll.n * others / cost->nranks
                          : (double)op->coll.n * others;
    return elements * (double)shoal_dtype_nbytes(op->dtype) * 1e-3;
}

static double collective(const shoal_cost_t *cost, const shoal_op_t *op)
{
    double            kb = wire_kb(cost, op), start = cost->machine.latency_us, root = 0;
    shoal_coll_rate_t within = {.gbs = cost->machine.node_link_gbs};
    if (cost->nranks > 1 && cost->rates != NULL) {
        shoal_coll_rate_t table =
            curve(cost->rates->coll[op->kind - SHOAL_OP_ALL_GATHER], cost->ranks_per_node);
        bool known = cost->source[SHOAL_COST_NODE_LINK] == SHOAL_SOURCE_TABLE;
        within.gbs = known ? table.gbs : within.gbs;
        root       = known && cost->nnodes == 1 ? table.root : 0;
        if (cost->source[SHOAL_COST_LATENCY] == SHOAL_SOURCE_TABLE) {
            start = cost->nnodes == 1 ? table.start_us
                                      : ring_start(cost, op->kind == SHOAL_OP_ALL_REDUCE);
        }
    }
    double gbs = bus_gbs(cost, within.gbs);
    return start + root * sqrt(kb) + (gbs > 0 ? kb / gbs : 0);
}

double shoal_cost_op(const shoal_cost_t *cost, const shoal_op_t *op)
{
    if (op->kind < SHOAL_OP_COMPUTE_COUNT) {
        return compute(cost, op) * 1e-3;
    }
    if (op->kind == SHOAL_OP_FETCH) {
        return 8.0 * (double)op->fetch.N / (cost->machine.memory_gbs * 1e6);
    }
    return collective(cost, op) * 1e-3;
}
