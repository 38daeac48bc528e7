/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The prediction: ops and collectives of a GPU with an H100's constants against times worked out by
 * hand (the sums stand beside the numbers), and what must hold whatever the constants are: no NaN,
 * more bytes never take less time, a key wins over a table, and every figure says where it is from.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the six above */
#include <cmocka.h>

#include "kernels/op_table.h"
#include "runtime/execute/cost.h"

static const shoal_rates_t h100 = {
    .name            = "H100",
    .multiprocessors = 132,
    .start_us        = 2.8,
    .flops           = 826e12,
    .wave_least      = 0.04,
    .wave_us         = 1.57,
    .memory_share    = 0.70,
    .slowdown        = 0.029,
    .attention       = {{{469e12, 1150}, {465e12, 1250}}, {{589e12, 900}, {620e12, 1250}}},
    .attention_text  = "",
    .op_us           = 3,
    .stream_share    = 0.78,
    .coll            = {{{6.1, 362, 0.233}, {11.2, 358, 0.149}},
                        {{6.6, 333, 0.155}, {9.9, 347, 0.104}},
                        {{8.4, 376, 0.168}, {13.6, 503, 0.248}}},
    .card_gbs        = 50,
};

/* ---- a device of which only its description is asked for ---- */

static shoal_device_info_t described;

static void describe(shoal_device_t *device, shoal_device_info_t *info_p)
{
    (void)device;
    *info_p = described;
}

static shoal_status_t measure(shoal_device_t *device, shoal_dtype_t dtype, double *flops_p)
{
    (void)device;
    (void)dtype;
    *flops_p = 5e9;
    return SHOAL_OK;
}

static const shoal_stream_ops_t stream;
static const shoal_device_ops_t gpu_ops = {
    .stream = &stream, .info = describe, .measure_peak = measure};
static const shoal_device_ops_t cpu_ops = {.info = describe, .measure_peak = measure};
static shoal_device_t           gpu = {&gpu_ops}, cpu = {&cpu_ops};

static shoal_cost_t complete(shoal_device_t *device, const shoal_machine_spec_t *machine,
                             int nranks, int ranks_per_node)
{
    shoal_cost_layout_t layout = {nranks, ranks_per_node, SHOAL_SOURCE_USER};
    shoal_cost_t        cost;
    assert_int_equal(shoal_cost_complete(device, SHOAL_BF16, machine, &layout, &cost), SHOAL_OK);
    return cost;
}

static shoal_cost_t on_h100(int nranks, int ranks_per_node)
{
    shoal_machine_spec_t nothing = {0};
    described                    = (shoal_device_info_t){.peak_bf16_flops = 989.4e12,
                                                         .peak_f32_flops  = 66.9e12,
                                                         .memory_gbs      = 3350,
                                                         .link_gbs        = 450,
                                                         .rates           = &h100};
    return complete(&gpu, &nothing, nranks, ranks_per_node);
}

static void assert_us(double ms, double us)
{
    if (!(fabs(ms * 1e3 - us) <= 1e-5 * us)) {
        fail_msg("%.6f us instead of %.6f us", ms * 1e3, us);
    }
}

static shoal_op_t matmul(size_t m, size_t n, size_t k, shoal_dtype_t out, bool accumulate)
{
    return (shoal_op_t){
        .kind   = SHOAL_OP_MATMUL,
        .dtype  = SHOAL_BF16,
        .matmul = {.m = m, .n = n, .k = k, .out_dtype = out, .accumulate = accumulate}};
}

static shoal_op_t collective(shoal_op_kind_t kind, size_t n)
{
    return (shoal_op_t){.kind = kind, .dtype = SHOAL_BF16, .coll = {n}};
}

/* ---- by hand ---- */

static void test_matmul(void **state)
{
    (void)state;
    shoal_cost_t cost = on_h100(1, 1);
    /*
     * 128 x 7 tiles of (128,256) over 132 multiprocessors are 6.787879 waves, 0.04 of what the
     * seventh lacks makes it 6.796364. A wave: 2 * 128 * 256 * 1792 * 132 / 826e12 s = 18.76773 us,
     * and 1.57. Their product, and 2.8 at the start.
     */
    shoal_op_t op = matmul(16384, 1792, 1792, SHOAL_BF16, false);
    assert_us(shoal_cost_op(&cost, &op), 141.022630);
    /*
     * 2 * 16384 * 50304 * 1792 flop = 2.954e12: slower by 1 + 0.029 * log2(2.954) = 1.04532. 128 *
     * 197 tiles, 191.0303 waves.
     */
    op = matmul(16384, 50304, 1792, SHOAL_BF16, false);
    assert_us(shoal_cost_op(&cost, &op), 4054.058586);
    /*
     * One tile of (128,64) at 0.7 of the rate is 1/132 wave: 0.0075758 + 0.04 * 0.9924242 of
     * (6.7027 + 1.57) us, and 2.8.
     */
    op = matmul(64, 64, 1792, SHOAL_BF16, false);
    assert_us(shoal_cost_op(&cost, &op), 3.191076);
    /*
     * A head's gradient in fp32 over 128 tokens: 734,494,720 bytes at 0.70 of 3350 GB/s are
     * 313.21737 us, far above its tiles.
     */
    op = matmul(50304, 1792, 128, SHOAL_F32, true);
    assert_us(shoal_cost_op(&cost, &op), 316.017365);
}

static void test_other_ops(void **state)
{
    (void)state;
    shoal_cost_t cost = on_h100(1, 1);
    /*
     * 2^24 elements read and written in fp32, 134,217,728 bytes, at 0.78 * 3350 = 2613 GB/s:
     * 51.36538 us, and 3.
     */
    shoal_op_t op = {.kind  = SHOAL_OP_CAST,
                     .dtype = SHOAL_F32,
                     .cast  = {(size_t)1 << 24, SHOAL_F32, SHOAL_F32, false}};
    assert_us(shoal_cost_op(&cost, &op), 54.365376);
    /*
     * Causal attention, B 8, H 28, T 2048, D 64, by the op's own count of flops: at 469e12 * 2048 /
     * (2048 + 1150) = 300.348e12 a second forward and 465e12 * 2048 / 3298 = 288.757e12 backward.
     * Scores through memory: 4 * 8 * 28 * 2048 * 2048 / 2 bytes.
     */
    op = (shoal_op_t){.kind      = SHOAL_OP_ATTENTION,
                      .dtype     = SHOAL_BF16,
                      .attention = {.B = 8, .T = 2048, .H = 28, .K = 28, .D = 64}};
    assert_us(shoal_cost_op(&cost, &op), 3 + shoal_op_flops(&op) / 300.347717e12 * 1e6);
    op.kind = SHOAL_OP_ATTENTION_BWD;
    assert_us(shoal_cost_op(&cost, &op), 3 + shoal_op_flops(&op) / 288.756822e12 * 1e6);
    double without     = shoal_cost_op(&cost, &op);
    cost.stores_scores = true;
    assert_us(shoal_cost_op(&cost, &op) - without, 1879048192 / 2613e3);
}

/* 64 MiB in all; of a rank's part (n - 1)/n of that is on each wire. */
static void test_node(void **state)
{
    (void)state;
    shoal_cost_t four = on_h100(4, 4), eight = on_h100(8, 8), three = on_h100(3, 8);
    shoal_op_t   op = collective(SHOAL_OP_ALL_GATHER, (32 << 20) / 4);
    assert_us(shoal_cost_op(&four, &op),
              197.410590); /* 6.1 + 50331.648 kB / 362 + 0.233 * sqrt(50331.648) */
    op = collective(SHOAL_OP_REDUCE_SCATTER, (32 << 20) / 8);
    assert_us(shoal_cost_op(&eight, &op),
              204.324193); /* 9.9 + 58720.256 / 347 + 0.104 * sqrt(58720.256) */
    op = collective(SHOAL_OP_ALL_REDUCE, 32 << 20);
    assert_us(shoal_cost_op(&eight, &op),
              332.068738); /* 13.6 + 117440.512 / 503 + 0.248 * sqrt(117440.512) */
    /*
     * Three ranks start 1.275 us earlier than four, a quarter of 11.2 - 6.1; rate and root are
     * those of four.
     */
    op = collective(SHOAL_OP_ALL_GATHER, 1000000);
    assert_us(shoal_cost_op(&three, &op), 6.1 - 1.275 + 4000.0 / 362 + 0.233 * sqrt(4000));
}

/*
 * 32 ranks on 8 nodes: 31 hops, 7 of them between nodes. The cards of a node, 4 * 46 GB/s, are
 * slower than its links.
 */
static void test_nodes(void **state)
{
    (void)state;
    shoal_cost_t cost = on_h100(32, 4);
    shoal_op_t   op   = collective(SHOAL_OP_ALL_GATHER, 1000000);
    double       ring = 24 * 3.4 + 7 * 16;
    assert_int_equal(cost.nnodes, 8);
    assert_us(shoal_cost_op(&cost, &op), 8.4 + ring + 62000.0 / 184);
    op = collective(SHOAL_OP_ALL_REDUCE, 32000000);
    assert_us(shoal_cost_op(&cost, &op), 8.4 + 2 * ring + 124000.0 / 184);
    /*
     * One GPU on each of two nodes has its card alone; a fast network leaves the node's links as
     * the bound.
     */
    cost = on_h100(2, 1);
    op   = collective(SHOAL_OP_REDUCE_SCATTER, 1000000);
    assert_us(shoal_cost_op(&cost, &op), 8.4 + 16 + 2000.0 / 46);
    shoal_machine_spec_t fast = {.link_gbs = 1000};
    cost                      = complete(&gpu, &fast, 32, 4);
    assert_us(shoal_cost_op(&cost, &op), 8.4 + ring + 62000.0 / 333);
}

/* ---- whatever the constants ---- */

static void test_always(void **state)
{
    (void)state;
    static const int ranks[] = {1, 2, 3, 4, 5, 8, 9, 16, 32, 4096};
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        for (int per_node = 0; per_node <= 16; per_node += 4) {
            shoal_cost_t cost = on_h100(ranks[i], per_node);
            for (int kind = SHOAL_OP_ALL_GATHER; kind <= SHOAL_OP_ALL_REDUCE; kind++) {
                double before = 0;
                for (size_t n = 0; n <= (size_t)1 << 30; n = n > 0 ? 2 * n : 1) {
                    shoal_op_t op = collective((shoal_op_kind_t)kind, n);
                    double     ms = shoal_cost_op(&cost, &op);
                    assert_true(isfinite(ms) && ms >= before && (ms > 0 || ranks[i] == 1));
                    before = ms;
                }
            }
        }
    }
    /* More rows in a matmul take no less time, but for what a fuller wave saves. */
    shoal_cost_t cost = on_h100(1, 1);
    for (size_t m = 128; m <= 65536; m *= 2) {
        shoal_op_t small = matmul(m, 1792, 1792, SHOAL_BF16, false),
                   large = matmul(2 * m, 1792, 1792, SHOAL_BF16, false);
        assert_true(shoal_cost_op(&cost, &large) > shoal_cost_op(&cost, &small));
    }
}

/* ---- where figures are from ---- */

static void test_sources(void **state)
{
    (void)state;
    shoal_cost_t cost = on_h100(32, 0);
    assert_int_equal(cost.source[SHOAL_COST_MATMUL], SHOAL_SOURCE_TABLE);
    assert_int_equal(cost.source[SHOAL_COST_ATTENTION], SHOAL_SOURCE_TABLE);
    assert_int_equal(cost.source[SHOAL_COST_MEMORY], SHOAL_SOURCE_TABLE);
    assert_int_equal(cost.source[SHOAL_COST_NODE_LINK], SHOAL_SOURCE_TABLE);
    assert_int_equal(cost.source[SHOAL_COST_LINK], SHOAL_SOURCE_ASSUMED);
    assert_int_equal(cost.source[SHOAL_COST_RANKS_PER_NODE], SHOAL_SOURCE_ASSUMED);
    assert_int_equal(cost.ranks_per_node, 8);

    /* A GPU that no table knows: 0.76 and 0.78 of its sheet. */
    shoal_machine_spec_t nothing = {0};
    described = (shoal_device_info_t){.peak_bf16_flops = 756e12, .memory_gbs = 2000};
    cost      = complete(&gpu, &nothing, 2, 2);
    assert_int_equal(cost.source[SHOAL_COST_MATMUL], SHOAL_SOURCE_SHEET);
    assert_float_equal(cost.machine.flops * 1e-12, 574.56, 1e-9);
    assert_float_equal(cost.machine.memory_gbs, 1560, 1e-9);
    assert_int_equal(cost.source[SHOAL_COST_NODE_LINK], SHOAL_SOURCE_UNKNOWN);
}

static void test_keys_win(void **state)
{
    (void)state;
    shoal_machine_spec_t keys = {
        .flops = 1e12, .memory_gbs = 100, .node_link_gbs = 10, .link_gbs = 1, .latency_us = 7};
    shoal_op_t op = matmul(1000, 1000, 1000, SHOAL_BF16, false);
    on_h100(1, 1);
    shoal_cost_t cost = complete(&gpu, &keys, 4, 4);
    for (int i = 0; i < SHOAL_COST_COUNT; i++) {
        assert_int_equal(cost.source[i], SHOAL_SOURCE_USER);
    }
    assert_us(shoal_cost_op(&cost, &op), 3 + 2000);
    op = collective(SHOAL_OP_ALL_GATHER, 1000000);
    assert_us(shoal_cost_op(&cost, &op), 7 + 6000 / 10.0);
    cost = complete(&gpu, &keys, 4, 2);
    assert_us(shoal_cost_op(&cost, &op), 7 + 6000 / 2.0);
}

/*
 * On CPUs a rate that nobody gave is measured, and a link that nobody gave costs its latency only.
 */
static void test_cpu(void **state)
{
    (void)state;
    shoal_machine_spec_t keys   = {.memory_gbs = 10, .latency_us = 20},
                         linked = {.memory_gbs = 10, .link_gbs = 2};
    shoal_op_t op               = collective(SHOAL_OP_ALL_GATHER, 1000000);
    described                   = (shoal_device_info_t){.peak_bf16_flops = 0};
    shoal_cost_t cost           = complete(&cpu, &keys, 4, 0);
    assert_int_equal(cost.source[SHOAL_COST_MATMUL], SHOAL_SOURCE_MEASURED);
    assert_int_equal(cost.source[SHOAL_COST_NODE_LINK], SHOAL_SOURCE_UNKNOWN);
    assert_float_equal(cost.machine.flops, 5e9, 0);
    assert_int_equal(cost.nnodes, 1);
    assert_us(shoal_cost_op(&cost, &op), 20);
    cost = complete(&cpu, &linked, 4, 0);
    assert_us(shoal_cost_op(&cost, &op), 3000);
    cost = complete(&cpu, &linked, 4, 1);
    assert_us(shoal_cost_op(&cost, &op), 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),   cmocka_unit_test(test_other_ops),
        cmocka_unit_test(test_node),     cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_always),   cmocka_unit_test(test_sources),
        cmocka_unit_test(test_keys_win), cmocka_unit_test(test_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
