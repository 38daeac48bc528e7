/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header; the formulas are in cost_ops.c. */
#include "runtime/execute/cost.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"

/*
 * What large operations reach of a data sheet: of arithmetic, the one factor that fits the tables
 * of kernels/cuda/sheets.c best; of memory, what their fits have.
 */
static const double sheet_flops_share = 0.76, sheet_memory_share = 0.78;

/*
 * What NCCL gets through a network card, of the card's rate; fabrics that are badly set up give a
 * fifth of it.
 */
static const double card_share = 0.92, usual_card_gbs = 50;

/* GPUs of a node, where nothing tells: the usual number for those with NVLink between all. */
enum { USUAL_GPUS_PER_NODE = 8 };

const char *shoal_cost_figure_name(shoal_cost_figure_t figure)
{
    static const char *const names[SHOAL_COST_COUNT] = {
        "matmul", "attention", "memory", "node_link", "link", "latency", "ranks_per_node"};
    return names[figure];
}

const char *shoal_source_name(shoal_source_t source)
{
    static const char *const names[SHOAL_SOURCE_COUNT] = {"unknown", "user",    "measured", "table",
                                                          "sheet",   "assumed", "launcher"};
    return names[source];
}

static shoal_status_t measure_memory(shoal_device_t *device, double *gbs_p)
{
    /* 32 MiB each way, or 512 MiB on a GPU: beyond the caches that one rank may call its own. */
    size_t     N  = device->ops->stream != NULL ? (size_t)1 << 27 : (size_t)1 << 23;
    shoal_op_t op = {.kind = SHOAL_OP_CAST, .dtype = SHOAL_F32, .cast = {N, SHOAL_F32, SHOAL_F32, false}};
    void      *args[SHOAL_OP_MAX_ARGS] = {NULL}, *memory;
    double     best_ms = 0.0;
    SHOAL_TRY(device->ops->alloc(device, 2 * N * sizeof(float), &memory));
    args[0]               = memory;
    args[1]               = (float *)memory + N;
    shoal_status_t status = SHOAL_OK;
    for (int i = 0; i < 3 && status == SHOAL_OK; i++) { /* the first run also touches the pages */
        int64_t start = shoal_time_ns();
        status        = device->ops->run(device, &op, args, NULL);
        status        = status == SHOAL_OK ? device->ops->synchronize(device) : status;
        double ms     = shoal_ms_since(start);
        best_ms       = i == 0 || ms < best_ms ? ms : best_ms;
    }
    device->ops->free(device, memory, 2 * N * sizeof(float));
    *gbs_p = 2.0 * (double)(N * sizeof(float)) / (best_ms * 1e6);
    return status;
}

shoal_status_t shoal_cost_measure(shoal_device_t *device, shoal_dtype_t compute, shoal_machine_spec_t *machine_p)
{
    if (machine_p->flops <= 0.0) {
        SHOAL_TRY(device->ops->measure_peak(device, compute, &machine_p->flops));
    }
    return machine_p->memory_gbs > 0.0 ? SHOAL_OK : measure_memory(device, &machine_p->memory_gbs);
}

/* Sets a figure that is still 0 to a value that is not. */
static void settle(shoal_cost_t *cost, shoal_cost_figure_t figure, double *value, double candidate,
                   shoal_source_t source)
{
    if (*value <= 0.0 && candidate > 0.0) {
        *value               = candidate;
        cost->source[figure] = source;
    }
}

static void take_keys(shoal_cost_t *cost)
{
    const shoal_machine_spec_t *m = &cost->machine;
    const struct {
        shoal_cost_figure_t figure;
        double              value;
    } given[] = {{SHOAL_COST_MATMUL, m->flops},      {SHOAL_COST_ATTENTION, m->flops},
                 {SHOAL_COST_MEMORY, m->memory_gbs}, {SHOAL_COST_NODE_LINK, m->node_link_gbs},
                 {SHOAL_COST_LINK, m->link_gbs},     {SHOAL_COST_LATENCY, m->latency_us}};
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        cost->source[given[i].figure] =
            given[i].value > 0.0 ? SHOAL_SOURCE_USER : SHOAL_SOURCE_UNKNOWN;
    }
}

static void lay_out(shoal_cost_t *cost, const shoal_cost_layout_t *layout, bool gpu)
{
    int usual = gpu && layout->nranks > USUAL_GPUS_PER_NODE ? USUAL_GPUS_PER_NODE : layout->nranks;
    int each  = layout->ranks_per_node > 0 ? layout->ranks_per_node : usual;
    cost->nranks         = layout->nranks;
    cost->ranks_per_node = each < layout->nranks ? each : layout->nranks;
    cost->nnodes         = (layout->nranks + each - 1) / each;
    cost->source[SHOAL_COST_RANKS_PER_NODE] =
        layout->ranks_per_node > 0 ? layout->source : SHOAL_SOURCE_ASSUMED;
}

/* Arithmetic and memory of a GPU that is known by name. */
static void take_sheet(shoal_cost_t *cost, const shoal_device_info_t *info, shoal_dtype_t compute)
{
    shoal_machine_spec_t *m = &cost->machine;
    double         sheet    = compute == SHOAL_BF16 ? info->peak_bf16_flops : info->peak_f32_flops;
    shoal_source_t source   = SHOAL_SOURCE_SHEET;
    if (cost->rates != NULL && compute == SHOAL_BF16 && m->flops <= 0.0) {
        cost->source[SHOAL_COST_ATTENTION] = SHOAL_SOURCE_TABLE;
        settle(cost, SHOAL_COST_MATMUL, &m->flops, cost->rates->flops, SHOAL_SOURCE_TABLE);
    } else if (m->flops <= 0.0 && sheet > 0.0) {
        cost->source[SHOAL_COST_ATTENTION] = SHOAL_SOURCE_SHEET;
        settle(cost, SHOAL_COST_MATMUL, &m->flops, sheet_flops_share * sheet, SHOAL_SOURCE_SHEET);
    }
    double share = sheet_memory_share;
    if (cost->rates != NULL) {
        share  = cost->rates->stream_share;
        source = SHOAL_SOURCE_TABLE;
    }
    settle(cost, SHOAL_COST_MEMORY, &m->memory_gbs, share * info->memory_gbs, source);
}

/*
 * Links and latency. The table's rate within a node stands for all of its curves, which the
 * formulas take themselves.
 */
static void take_links(shoal_cost_t *cost, const shoal_device_info_t *info, bool gpu)
{
    shoal_machine_spec_t *m = &cost->machine;
    if (cost->rates != NULL) {
        settle(cost, SHOAL_COST_NODE_LINK, &m->node_link_gbs, cost->rates->coll[0][1].gbs,
               SHOAL_SOURCE_TABLE);
    }
    settle(cost, SHOAL_COST_NODE_LINK, &m->node_link_gbs, sheet_memory_share * info->link_gbs,
           SHOAL_SOURCE_SHEET);
    if (gpu) {
        double card = cost->rates != NULL ? cost->rates->card_gbs : usual_card_gbs;
        settle(cost, SHOAL_COST_LINK, &m->link_gbs, card_share * card, SHOAL_SOURCE_ASSUMED);
    } else {
        settle(cost, SHOAL_COST_NODE_LINK, &m->node_link_gbs, m->link_gbs, SHOAL_SOURCE_USER);
    }
    if (cost->source[SHOAL_COST_LATENCY] == SHOAL_SOURCE_UNKNOWN && cost->rates != NULL) {
        cost->source[SHOAL_COST_LATENCY] = SHOAL_SOURCE_TABLE; /* the formulas' */
    }
}

static void note_measured(shoal_cost_t *cost)
{
    for (int figure = SHOAL_COST_MATMUL; figure <= SHOAL_COST_MEMORY; figure++) {
        if (cost->source[figure] == SHOAL_SOURCE_UNKNOWN) {
            cost->source[figure] = SHOAL_SOURCE_MEASURED;
        }
    }
}

shoal_status_t shoal_cost_complete(shoal_device_t *device, shoal_dtype_t compute,
                                   const shoal_machine_spec_t *machine,
                                   const shoal_cost_layout_t *layout, shoal_cost_t *cost_p)
{
    bool                gpu = device->ops->stream != NULL;
    shoal_device_info_t info;
    device->ops->info(device, &info);
    shoal_cost_t cost = {.machine       = *machine,
                         .rates         = info.rates,
                         .sheet_gbs     = info.memory_gbs,
                         .stores_scores = info.stores_scores};
    take_keys(&cost);
    lay_out(&cost, layout, gpu);
    take_sheet(&cost, &info, compute);
    take_links(&cost, &info, gpu);
    SHOAL_TRY(shoal_cost_measure(device, compute, &cost.machine));
    note_measured(&cost);
    *cost_p = cost;
    return SHOAL_OK;
}

/* The thread of the compute and host lanes is one resource, each communication lane another. */
static int resource_of(shoal_lane_t lane)
{
    return lane == SHOAL_LANE_HOST ? SHOAL_LANE_COMPUTE : (int)lane;
}

static void add_wait_time(const shoal_program_t *program, const shoal_node_t *node, const double *end, double *start_p,
                          shoal_times_t *times)
{
    for (int32_t w = 0; w < node->nwaits; w++) {
        int32_t target = program->waits[node->first_wait + w];
        double  late   = end[target] - *start_p;
        if (late > 0.0) {
            times->exposed[program->nodes[target].lane] += resource_of(node->lane) == SHOAL_LANE_COMPUTE ? late : 0.0;
            *start_p = end[target];
        }
    }
}

/* A machine of next to no flop/s takes longer than the type can hold. */
static int64_t nanoseconds(double ms)
{
    return ms < 9e12 ? (int64_t)(ms * 1e6) : INT64_MAX;
}

shoal_status_t shoal_cost_predict(const shoal_program_t *program, const shoal_cost_t *cost,
                                  shoal_times_t *times_p, const shoal_op_times_t *op_times_p)
{
    double        free_at[SHOAL_LANE_COUNT] = {0};
    shoal_times_t times                     = {0};
    double       *end                       = calloc((size_t)program->nnodes + 1, sizeof(*end));
    if (end == NULL) {
        shoal_error("no memory for the prediction");
        return SHOAL_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < program->nnodes; i++) {
        const shoal_node_t *node     = &program->nodes[i];
        double              duration = shoal_cost_op(cost, &node->op);
        int                 resource = resource_of(node->lane);
        double              start    = free_at[resource];
        add_wait_time(program, node, end, &start, &times);
        end[i] = free_at[resource] = start + duration;
        times.busy[node->lane] += duration;
        times.optimizer += node->phase == SHOAL_PHASE_OPTIMIZER && node->lane == SHOAL_LANE_COMPUTE ? duration : 0.0;
        times.total = end[i] > times.total ? end[i] : times.total;
        if (op_times_p != NULL) {
            op_times_p->start[i] = nanoseconds(start);
            op_times_p->end[i]   = nanoseconds(end[i]);
        }
    }
    for (int lane = SHOAL_LANE_GATHER; lane <= SHOAL_LANE_REDUCE; lane++) {
        double late = free_at[lane] - free_at[SHOAL_LANE_COMPUTE];
        times.exposed[lane] += late > 0.0 ? late : 0.0;
    }
    free(end);
    *times_p = times;
    return SHOAL_OK;
}
