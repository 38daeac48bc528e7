/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header; every formula is one line of shoal_cost_op. */
#include "runtime/cost.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"

/* A kernel call that moves next to nothing still takes this long: dispatch and thread start, seen on CPUs. */
static const double op_overhead_ms = 0.003;

double shoal_cost_op(const shoal_machine_spec_t *machine, const shoal_op_t *op, int nranks)
{
    if (op->kind < SHOAL_OP_COMPUTE_COUNT) {
        double arithmetic = shoal_op_flops(op) / machine->flops * 1e3;
        double traffic    = shoal_op_nbytes(op) / (machine->memory_gbs * 1e9) * 1e3;
        return op_overhead_ms + (arithmetic > traffic ? arithmetic : traffic);
    }
    if (op->kind == SHOAL_OP_FETCH) {
        return 8.0 * (double)op->fetch.N / (machine->memory_gbs * 1e9) * 1e3;
    }
    /* all_reduce moves a share of its n elements twice; the others count n per rank. */
    double others = (double)(nranks - 1), elements = (double)op->coll.n * others;
    elements      = op->kind == SHOAL_OP_ALL_REDUCE ? 2.0 * elements / (double)nranks : elements;
    double wire   = machine->link_gbs > 0.0 ? elements * (double)shoal_dtype_nbytes(op->dtype) / (machine->link_gbs * 1e9) * 1e3 : 0.0;
    return machine->latency_us * 1e-3 + wire;
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

/* What large operations reach of a GPU's datasheet: 0.8 of its arithmetic, 0.9 of its memory: assumptions. */
shoal_status_t shoal_cost_complete(shoal_device_t *device, shoal_dtype_t compute, shoal_machine_spec_t *machine_p)
{
    shoal_device_info_t info;
    device->ops->info(device, &info);
    double sheet = compute == SHOAL_BF16 ? info.peak_bf16_flops : info.peak_f32_flops;
    if (machine_p->flops <= 0.0) {
        machine_p->flops = 0.8 * sheet;
    }
    if (machine_p->memory_gbs <= 0.0) {
        machine_p->memory_gbs = 0.9 * info.memory_gbs;
    }
    return shoal_cost_measure(device, compute, machine_p);
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

shoal_status_t shoal_cost_predict(const shoal_program_t *program, const shoal_machine_spec_t *machine, int nranks,
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
        double              duration = shoal_cost_op(machine, &node->op, nranks);
        int                 resource = resource_of(node->lane);
        double              start    = free_at[resource];
        add_wait_time(program, node, end, &start, &times);
        end[i] = free_at[resource] = start + duration;
        times.busy[node->lane] += duration;
        times.optimizer += node->phase == SHOAL_PHASE_OPTIMIZER && node->lane == SHOAL_LANE_COMPUTE ? duration : 0.0;
        times.total = end[i] > times.total ? end[i] : times.total;
        if (op_times_p != NULL) {
            op_times_p->start[i] = (int64_t)(start * 1e6);
            op_times_p->end[i]   = (int64_t)(end[i] * 1e6);
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
