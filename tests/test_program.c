/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The plan on programs that no model emits: random ops over random buffers on random lanes. The arena must never give live buffers
 * the same space, and edges must order every pair of conflicting ops; both are checked here against definitions written another
 * way than runtime/program/memplan.c and runtime/program/edges.c do it. Then a few programs small enough to be right by eye.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "runtime/model/model.h"
#include "runtime/program/emit.h"
#include "runtime/program/program.h"

static uint64_t random_stream, random_index;

static size_t draw(size_t below)
{
    uint32_t words[4];
    shoal_rng_block(random_stream, random_index++, words);
    return words[0] % below;
}

/* One op on `lane` that reads one buffer and writes another. */
static void emit_copy(shoal_program_t *program, shoal_lane_t lane, shoal_buffer_id_t from, shoal_buffer_id_t to)
{
    shoal_op_t op = {.kind = SHOAL_OP_CAST, .dtype = SHOAL_F32, .cast = {1, SHOAL_F32, SHOAL_F32, false}};
    int32_t index = shoal_program_emit(program, &op, SHOAL_ARGS(shoal_whole(from), shoal_whole(to)));
    shoal_program_set_lane(program, index, lane);
}

static shoal_buffer_id_t arena(shoal_program_t *program, size_t nelem)
{
    return shoal_program_buffer(program, SHOAL_HOME_ARENA, SHOAL_MEMORY_ACTIVATIONS, SHOAL_F32, nelem, "b%d", program->nbuffers);
}

static void emit_random(shoal_program_t *program, int nops)
{
    shoal_program_init(program, NULL, 0);
    arena(program, 1 + draw(1000));
    for (int i = 0; i < nops; i++) {
        size_t            recent = (size_t)program->nbuffers < 8 ? (size_t)program->nbuffers : 8;
        shoal_buffer_id_t from   = program->nbuffers - 1 - (shoal_buffer_id_t)draw(recent);
        shoal_buffer_id_t to     = draw(3) == 0 ? from : arena(program, 1 + draw(1000));
        emit_copy(program, (shoal_lane_t)draw(SHOAL_LANE_COUNT), from, to);
        if (draw(5) == 0) {
            shoal_program_hold(program, from);
        }
    }
}

/* reach[i * n + j]: op i is certain to be done before op j starts; by lanes, waits and transitivity, nothing else. */
static unsigned char *reachability(const shoal_program_t *program)
{
    int32_t        n     = program->nnodes;
    unsigned char *reach = calloc((size_t)n * (size_t)n, 1);
    for (int32_t j = 0; j < n; j++) {
        for (int32_t i = j - 1; i >= 0; i--) {
            bool direct = program->nodes[i].lane == program->nodes[j].lane;
            for (int32_t w = 0; w < program->nodes[j].nwaits; w++) {
                direct = direct || program->waits[program->nodes[j].first_wait + w] == i;
            }
            if (direct) {
                reach[i * n + j] = 1;
                for (int32_t k = 0; k < i; k++) {
                    reach[k * n + j] |= reach[k * n + i];
                }
            }
        }
    }
    return reach;
}

static bool same_space(const shoal_program_t *program, shoal_buffer_id_t a, shoal_buffer_id_t b)
{
    const shoal_buffer_t *x = &program->buffers[a], *y = &program->buffers[b];
    return a == b || !(x->offset + x->nbytes <= y->offset || y->offset + y->nbytes <= x->offset);
}

/* Beside which lanes a compute op may run, by definition: some op of the lane that reaches it neither way. */
static void check_overlaps(const shoal_program_t *program, const unsigned char *reach, int counts[2])
{
    int32_t  n     = program->nnodes;
    uint8_t *lanes = malloc((size_t)n);
    assert_int_equal(shoal_program_overlaps(program, lanes), SHOAL_OK);
    for (int32_t i = 0; i < n; i++) {
        uint8_t want = 0;
        for (int32_t j = 0; j < n && program->nodes[i].lane == SHOAL_LANE_COMPUTE; j++) {
            int  lane      = program->nodes[j].lane;
            bool collective = lane == SHOAL_LANE_GATHER || lane == SHOAL_LANE_REDUCE;
            if (collective && !reach[i * n + j] && !reach[j * n + i]) {
                want |= (uint8_t)(1u << lane);
            }
        }
        assert_int_equal(lanes[i], want);
        counts[want != 0]++;
    }
    free(lanes);
}

static void check_random(int nops, int overlaps[2])
{
    shoal_program_t program;
    emit_random(&program, nops);
    assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
    assert_int_equal(shoal_program_check(&program), SHOAL_OK);
    unsigned char *reach = reachability(&program);
    for (int32_t j = 0; j < program.nnodes; j++) {
        for (int32_t i = 0; i < j; i++) {
            const shoal_node_t *a = &program.nodes[i], *b = &program.nodes[j];
            bool conflict = same_space(&program, a->args[1].id, b->args[0].id) || same_space(&program, a->args[1].id, b->args[1].id) ||
                            same_space(&program, a->args[0].id, b->args[1].id);
            assert_true(!conflict || reach[i * program.nnodes + j]);
        }
    }
    for (int32_t a = 0; a < program.nbuffers; a++) {
        for (int32_t b = 0; b < a; b++) {
            const shoal_buffer_t *x = &program.buffers[a], *y = &program.buffers[b];
            bool live_together = x->first >= 0 && y->first >= 0 && x->first <= y->last && y->first <= x->last;
            assert_true(!live_together || !same_space(&program, a, b));
        }
    }
    check_overlaps(&program, reach, overlaps);
    free(reach);
    shoal_program_free(&program);
}

static void test_random_programs(void **state)
{
    const char *seed = getenv("SHOAL_TEST_SEED");
    (void)state;
    random_stream = shoal_rng_stream(seed != NULL ? strtoull(seed, NULL, 10) : 1, "test_program");
    print_message("SHOAL_TEST_SEED=%s\n", seed != NULL ? seed : "1");
    int overlaps[2] = {0, 0}; /* ops that run alone, ops beside which a collective may run */
    for (int i = 0; i < 200; i++) {
        check_random(1 + (int)draw(80), overlaps);
    }
    assert_true(overlaps[0] > 100 && overlaps[1] > 100);
}

/* A gather ahead of its use runs beside the op before that, a reduction beside the ops behind its gradient until one needs the sum. */
static void test_overlaps(void **state)
{
    static const uint8_t want[] = {0, 0, 1 << SHOAL_LANE_GATHER, 0, 0, 1 << SHOAL_LANE_REDUCE, 0};
    shoal_program_t      program;
    uint8_t              lanes[7];
    (void)state;
    shoal_program_init(&program, NULL, 0);
    shoal_buffer_id_t shard0 = arena(&program, 8), shard1 = arena(&program, 8), first = arena(&program, 8), second = arena(&program, 8);
    shoal_buffer_id_t x = arena(&program, 8), gradient = arena(&program, 8), sum = arena(&program, 8), y = arena(&program, 8);
    emit_copy(&program, SHOAL_LANE_GATHER, shard0, first);
    emit_copy(&program, SHOAL_LANE_GATHER, shard1, second);
    emit_copy(&program, SHOAL_LANE_COMPUTE, first, x);
    emit_copy(&program, SHOAL_LANE_COMPUTE, second, gradient);
    emit_copy(&program, SHOAL_LANE_REDUCE, gradient, sum);
    emit_copy(&program, SHOAL_LANE_COMPUTE, x, y);
    emit_copy(&program, SHOAL_LANE_COMPUTE, sum, shard0);
    shoal_program_hold(&program, shard1); /* else x would take its space, and wait for the second gather */
    shoal_program_hold(&program, gradient);
    assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
    assert_int_equal(shoal_program_overlaps(&program, lanes), SHOAL_OK);
    assert_memory_equal(lanes, want, sizeof(want));
    shoal_program_free(&program);
}

/* A damaged plan must not pass the check: drop one wait that matters. */
static void test_check_sees_a_missing_edge(void **state)
{
    shoal_program_t program;
    (void)state;
    shoal_program_init(&program, NULL, 0);
    shoal_buffer_id_t a = arena(&program, 8), b = arena(&program, 8), c = arena(&program, 8);
    emit_copy(&program, SHOAL_LANE_GATHER, a, b);
    emit_copy(&program, SHOAL_LANE_COMPUTE, b, c);
    assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
    assert_int_equal(program.nodes[1].nwaits, 1);
    program.nodes[1].nwaits = 0;
    assert_int_equal(shoal_program_check(&program), SHOAL_ERR_INTERNAL);
    shoal_program_free(&program);
}

/* A chain a -> b -> c -> d on one lane needs two buffers' space, and no waits at all. */
static void test_chain_reuses_space(void **state)
{
    shoal_program_t program;
    (void)state;
    shoal_program_init(&program, NULL, 0);
    shoal_buffer_id_t last = arena(&program, 16);
    for (int i = 0; i < 10; i++) {
        shoal_buffer_id_t next = arena(&program, 16);
        emit_copy(&program, SHOAL_LANE_COMPUTE, last, next);
        last = next;
    }
    assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
    assert_int_equal(program.arena_nbytes, 2 * 64);
    assert_int_equal(program.nwaits, 0);
    shoal_program_free(&program);
}

/* Held buffers keep their space; without the hold the third would take over the first's. */
static void test_hold(void **state)
{
    (void)state;
    for (int held = 0; held < 2; held++) {
        shoal_program_t program;
        shoal_program_init(&program, NULL, 0);
        shoal_buffer_id_t a = arena(&program, 16), b = arena(&program, 16), c = arena(&program, 16), d = arena(&program, 16);
        emit_copy(&program, SHOAL_LANE_REDUCE, a, b);
        emit_copy(&program, SHOAL_LANE_COMPUTE, c, d);
        if (held) {
            shoal_program_hold(&program, a);
            shoal_program_hold(&program, b);
        }
        assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
        assert_int_equal(program.arena_nbytes, held ? 4 * 64 : 2 * 64);
        assert_int_equal(program.nodes[1].nwaits, held ? 0 : 1);
        shoal_program_free(&program);
    }
}

/* A later op of a lane covers the earlier ones, and what a lane has waited for need not be waited for again. */
static void test_edges_are_few(void **state)
{
    shoal_program_t program;
    (void)state;
    shoal_program_init(&program, NULL, 0);
    shoal_buffer_id_t s = arena(&program, 1), a = arena(&program, 1), b = arena(&program, 1), out = arena(&program, 1);
    emit_copy(&program, SHOAL_LANE_GATHER, s, a);
    emit_copy(&program, SHOAL_LANE_GATHER, s, b);
    emit_copy(&program, SHOAL_LANE_COMPUTE, b, out);
    emit_copy(&program, SHOAL_LANE_COMPUTE, a, out);
    assert_int_equal(shoal_program_plan(&program), SHOAL_OK);
    assert_int_equal(program.nodes[2].nwaits, 1);
    assert_int_equal(program.waits[program.nodes[2].first_wait], 1);
    assert_int_equal(program.nodes[3].nwaits, 0);
    assert_true(program.nodes[1].signals && !program.nodes[0].signals);
    shoal_program_free(&program);
}

static shoal_model_spec_t odd_spec(void)
{
    return (shoal_model_spec_t){.arch = "gpt2", .heads = 3, .kv_heads = 3, .head_dim = 7, .d_model = 21, .layers = 2, .ffn = 50, .seq = 11,
                                .vocab = 101, .pos = SHOAL_POS_LEARNED, .bias = true, .qk_norm = true};
}

/* Tensors and gaps tile a unit's padded layout exactly, and shards of any number of ranks hold the same values. */
static void test_unit_layout(void **state)
{
    shoal_model_t      model;
    shoal_model_spec_t spec = odd_spec();
    (void)state;
    assert_int_equal(shoal_model_create(&spec, &model), SHOAL_OK);
    for (int u = 0; u < model.nunits; u++) {
        for (int ranks = 1; ranks <= 33; ranks++) {
            size_t         shard = shoal_unit_shard_nelem(&model.units[u], ranks), padded = shard * (size_t)ranks;
            unsigned char *covered = calloc(padded, 1);
            shoal_range_t  gaps[SHOAL_T_COUNT + 1];
            size_t         ngaps = shoal_unit_gaps(&model.units[u], padded, gaps);
            for (size_t g = 0; g < ngaps; g++) {
                for (size_t i = 0; i < gaps[g].count; i++) {
                    covered[gaps[g].first + i]++;
                }
            }
            for (int s = 0; s < SHOAL_T_COUNT; s++) {
                const shoal_tensor_t *tensor = &model.units[u].tensors[s];
                for (size_t i = 0; tensor->present && i < tensor->rows * tensor->cols; i++) {
                    covered[tensor->offset + i]++;
                }
            }
            for (size_t i = 0; i < padded; i++) {
                assert_int_equal(covered[i], 1);
            }
            free(covered);
        }
    }
    shoal_model_destroy(&model);
}

static void initial_values(const shoal_unit_t *unit, size_t first, size_t count, float *values_p)
{
    shoal_op_t ops[SHOAL_T_COUNT + 1];
    size_t     offsets[SHOAL_T_COUNT + 1], n = shoal_unit_initial(unit, 5, first, count, ops, offsets);
    for (size_t i = 0; i < n; i++) {
        float *to = values_p + offsets[i];
        for (size_t j = 0; j < ops[i].normal.n; j++) {
            to[j] = ops[i].normal.constant;
        }
        if (ops[i].normal.std > 0.0f) {
            shoal_rng_normal(ops[i].normal.stream, ops[i].normal.first, ops[i].normal.n, ops[i].normal.std, to);
        }
    }
}

static void test_shards_hold_the_same_values(void **state)
{
    shoal_model_t      model;
    shoal_model_spec_t spec = odd_spec();
    (void)state;
    assert_int_equal(shoal_model_create(&spec, &model), SHOAL_OK);
    for (int u = 0; u < model.nunits; u++) {
        size_t n     = shoal_unit_shard_nelem(&model.units[u], 1);
        float *whole = malloc(n * sizeof(float));
        initial_values(&model.units[u], 0, n, whole);
        for (int ranks = 2; ranks <= 7; ranks++) {
            size_t shard = shoal_unit_shard_nelem(&model.units[u], ranks);
            float *part  = malloc(shard * sizeof(float));
            for (int r = 0; r < ranks; r++) {
                size_t first = shard * (size_t)r, count = first + shard <= n ? shard : first < n ? n - first : 0;
                initial_values(&model.units[u], first, shard, part);
                assert_memory_equal(part, whole + (first < n ? first : 0), count * sizeof(float));
            }
            free(part);
        }
        free(whole);
    }
    shoal_model_destroy(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_check_sees_a_missing_edge),
        cmocka_unit_test(test_chain_reuses_space),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_edges_are_few),
        cmocka_unit_test(test_unit_layout),
        cmocka_unit_test(test_shards_hold_the_same_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
