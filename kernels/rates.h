/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long matmuls, attention, other ops and collectives take on one kind of GPU: formulas with
 * constants that were fitted to public tables of measured times. A device that knows such constants
 * points at them in its info; runtime/execute/cost.c has the formulas.
 */
#ifndef SHOAL_KERNELS_RATES_H
#define SHOAL_KERNELS_RATES_H

/*
 * A rate that long sequences approach: peak_flops T / (T + half_at) at T tokens, in flop/s of the
 * causal half.
 */
typedef struct {
    double peak_flops, half_at;
} shoal_attention_rate_t;

/*
 * Microseconds of a collective within a node: start_us + w / gbs + root sqrt(w), for w kB (of 1000
 * bytes) on each rank's wire.
 */
typedef struct {
    double start_us, gbs, root;
} shoal_coll_rate_t;

typedef struct {
    const char *name;
    /*
     * Matmul in bf16. Y is cut into tiles of (Tm,Tn), which the multiprocessors take in waves:
     * tiles / multiprocessors of them, and for what the last one lacks, wave_least of its time. A
     * wave takes (2 Tm Tn k multiprocessors / flops + wave_us), and large products (1 + slowdown
     * max(0, log2(flop / 1e12))) times as long. The whole takes that or the time of its bytes at
     * memory_share of the memory's rate (a constant of the fit, and no efficiency), whichever is
     * more, and start_us before.
     */
    int    multiprocessors;
    double start_us, flops, wave_least, wave_us, memory_share, slowdown;
    double matmul_error; /* mean relative error on measured shapes that the fit has not seen */
    /* Attention by head width, at most 64 or more; forward and backward. */
    shoal_attention_rate_t attention[2][2];
    const char            *attention_text; /* where that is from, for people */
    /* Any other op: op_us + bytes / (stream_share of the memory's rate). */
    double op_us, stream_share;
    /*
     * all_gather, reduce_scatter and all_reduce, in the order of their op kinds, among 4 and among
     * 8 GPUs of a node.
     */
    shoal_coll_rate_t coll[3][2];
    double            coll_error; /* as above, the worst of the three */
    /* GB/s of the network card that such a GPU usually has for itself: an assumption. */
    double card_gbs;
} shoal_rates_t;

#endif
