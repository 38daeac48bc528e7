/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See the header. A table for people has two columns; a line of the last table says where its
 * figure is from before it says what it is.
 */
#include "src/plan_print.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "src/summary.h"

static double communication(const double *lanes)
{
    return lanes[SHOAL_LANE_GATHER] + lanes[SHOAL_LANE_REDUCE];
}

static double tokens_per_s(const shoal_plan_view_t *view)
{
    double tokens = (double)view->step->spec->batch.global * (double)view->step->spec->model.seq;
    return tokens / (view->times.total * 1e-3);
}

/* What MFU is of: as in `train`, the data sheet's peak where there is one. */
static double peak_flops(const shoal_plan_view_t *view)
{
    double sheet = view->step->spec->precision.compute == SHOAL_BF16 ? view->info.peak_bf16_flops
                                                                     : view->info.peak_f32_flops;
    return sheet > 0 ? sheet : view->cost.machine.flops;
}

static double mfu(const shoal_plan_view_t *view, bool causal)
{
    double flops = shoal_model_flops_per_token(&view->step->model, causal) * tokens_per_s(view);
    return flops / (peak_flops(view) * view->step->nranks);
}

/*
 * Bytes of the device that one rank may plan with and that its libraries take; a CPU's memory is
 * shared by the ranks of its node.
 */
static double available_nbytes(const shoal_plan_view_t *view)
{
    double given = view->step->spec->run.memory_gib * 0x1p30;
    bool   own   = view->device->ops->stream != NULL;
    return given > 0 ? given
                     : (double)view->info.memory_nbytes / (own ? 1 : view->cost.ranks_per_node);
}

static bool fits(const shoal_plan_view_t *view)
{
    return (double)view->step->total_nbytes + (double)view->reserve_nbytes <=
           available_nbytes(view);
}

/* Of one chunk of the head, whose gradient takes their place. */
static size_t logits_nbytes(const shoal_step_t *step)
{
    return step->head_chunk * step->spec->model.vocab *
           shoal_dtype_nbytes(step->spec->precision.compute);
}

static void print_logits(const shoal_step_t *step)
{
    size_t logits = logits_nbytes(step);
    printf("  %-14s %15zu  %10.2f MiB  (of the activations, while a chunk of %zu tokens is in the "
           "head: run.head_chunk)\n",
           "logits", logits, (double)logits * 0x1p-20, step->head_chunk);
}

static size_t host_nbytes(const shoal_step_t *step)
{
    return step->staged_nbytes + step->ahead_nbytes;
}

static void print_host(const shoal_step_t *step)
{
    if (host_nbytes(step) > 0) {
        printf("  %-14s %15zu  %10.2f MiB  (of the host, for tokens: page-locked %zu, of the next "
               "step %zu)\n",
               "beside it", host_nbytes(step), (double)host_nbytes(step) * 0x1p-20,
               step->staged_nbytes, step->ahead_nbytes);
    }
}

static void print_memory(const shoal_plan_view_t *view)
{
    const shoal_step_t *step = view->step;
    bool share = view->step->nranks > 1 && view->affinity.is_ours;
    printf("bytes per rank, with %s%s\n", view->affinity.text,
           share ? ", all ranks being on this host" : "");
    for (int m = 0; m < SHOAL_MEMORY_COUNT; m++) {
        printf("  %-14s %15zu  %10.2f MiB\n", shoal_memory_name((shoal_memory_t)m),
               step->memory_nbytes[m], (double)step->memory_nbytes[m] * 0x1p-20);
    }
    printf("  %-14s %15zu  %10.2f MiB  (arena space that no buffer fills at its fullest moment)\n",
           "slack", step->slack_nbytes, (double)step->slack_nbytes * 0x1p-20);
    print_logits(step);
    printf("  %-14s %15zu  %10.2f MiB\n", "total", step->total_nbytes,
           (double)step->total_nbytes * 0x1p-20);
    print_host(step);
    if (view->reserve_nbytes > 0) {
        printf(
            "  %-14s %15zu  %10.2f MiB  (left to libraries and communicators: run.reserve_gib)\n",
            "reserve", view->reserve_nbytes, (double)view->reserve_nbytes * 0x1p-20);
    }
    printf("  %s %.2f GiB, %s\n\n", fits(view) ? "fits into" : "DOES NOT FIT into",
           available_nbytes(view) * 0x1p-30,
           step->spec->run.memory_gib > 0 ? "run.memory_gib" : view->info.name);
}

static void print_time(const shoal_plan_view_t *view)
{
    const shoal_times_t *times = &view->times;
    int                  n = view->step->nranks, nodes = view->cost.nnodes;
    printf("predicted step of %d rank%s on %d node%s\n", n, n == 1 ? "" : "s", nodes,
           nodes == 1 ? "" : "s");
    printf("  %-14s %10.2f ms\n", "step", times->total);
    printf("  %-14s %10.2f ms, of it optimizer %.2f ms\n", "compute",
           times->busy[SHOAL_LANE_COMPUTE], times->optimizer);
    printf("  %-14s %10.2f ms, exposed %.2f ms\n", "communication", communication(times->busy),
           communication(times->exposed));
    printf("  %-14s %10.0f tokens/s over all ranks, %.0f per rank\n", "throughput",
           tokens_per_s(view), tokens_per_s(view) / n);
    printf("  %-14s %10.1f %% causal, %.1f %% full attention, of %.1f Gflop/s per rank\n\n", "MFU",
           100 * mfu(view, true), 100 * mfu(view, false), peak_flops(view) * 1e-9);
}

/* ---- where the figures are from ---- */

static void __attribute__((format(printf, 3, 4)))
figure(const shoal_plan_view_t *view, shoal_cost_figure_t which, const char *format, ...)
{
    va_list args;
    printf("  %-14s %-8s  ", shoal_cost_figure_name(which),
           shoal_source_name(view->cost.source[which]));
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static bool from(const shoal_plan_view_t *view, shoal_cost_figure_t which, shoal_source_t source)
{
    return view->cost.source[which] == source;
}

static void print_compute(const shoal_plan_view_t *view)
{
    const shoal_cost_t  *cost  = &view->cost;
    const shoal_rates_t *rates = cost->rates;
    if (from(view, SHOAL_COST_MATMUL, SHOAL_SOURCE_TABLE)) {
        figure(view, SHOAL_COST_MATMUL,
               "%s: %.0f Gflop/s in whole waves of tiles, less elsewhere; within %.0f %% where "
               "measured",
               rates->name, cost->machine.flops * 1e-9, 100 * rates->matmul_error);
    } else {
        figure(view, SHOAL_COST_MATMUL, "%.1f Gflop/s%s", cost->machine.flops * 1e-9,
               from(view, SHOAL_COST_MATMUL, SHOAL_SOURCE_SHEET)
                   ? ", 0.76 of the data sheet's, the factor that fits bf16 on H100 and H200 best"
                   : "");
    }
    if (from(view, SHOAL_COST_ATTENTION, SHOAL_SOURCE_TABLE)) {
        figure(view, SHOAL_COST_ATTENTION, "%s%s", rates->attention_text,
               cost->stores_scores ? "; and scores through memory (run.deterministic)" : "");
    } else {
        figure(view, SHOAL_COST_ATTENTION, "as matmul");
    }
    figure(view, SHOAL_COST_MEMORY, "%.1f GB/s%s", cost->machine.memory_gbs,
           cost->sheet_gbs > 0 && !from(view, SHOAL_COST_MEMORY, SHOAL_SOURCE_USER)
               ? ", 0.78 of the data sheet's, and 3 us an op"
               : "");
}

static void print_node_link(const shoal_plan_view_t *view)
{
    const shoal_cost_t *cost = &view->cost;
    if (from(view, SHOAL_COST_NODE_LINK, SHOAL_SOURCE_TABLE)) {
        figure(view, SHOAL_COST_NODE_LINK, "NCCL's curves on nodes of 4 and 8 %s%s; within %.0f %%",
               cost->rates->name,
               cost->ranks_per_node == 4 || cost->ranks_per_node == 8
                   ? ""
                   : ", carried on to other numbers",
               100 * cost->rates->coll_error);
    } else if (cost->machine.node_link_gbs > 0) {
        figure(view, SHOAL_COST_NODE_LINK, "%.3f GB/s", cost->machine.node_link_gbs);
    } else {
        figure(view, SHOAL_COST_NODE_LINK,
               "machine.node_link_gbs and link_gbs are 0, so collectives cost their latency only");
    }
}

static void print_link(const shoal_plan_view_t *view)
{
    double gbs = view->cost.machine.link_gbs;
    if (from(view, SHOAL_COST_LINK, SHOAL_SOURCE_ASSUMED)) {
        figure(view, SHOAL_COST_LINK,
               "%.1f GB/s per rank: a card of %.0f GB/s for each GPU, and 0.92 of it. Nothing is "
               "known of this network:"
               " give machine.link_gbs",
               gbs, gbs / 0.92);
    } else if (gbs > 0) {
        figure(view, SHOAL_COST_LINK, "%.3f GB/s per rank between nodes", gbs);
    } else {
        figure(view, SHOAL_COST_LINK,
               "machine.link_gbs is 0, so collectives between nodes cost their latency only");
    }
}

static void print_figures(const shoal_plan_view_t *view)
{
    const shoal_cost_t *cost = &view->cost;
    const shoal_spec_t *spec = view->step->spec;
    bool chosen = strcmp(spec->run.device, "cuda") == 0 && strcmp(spec->machine.gpu, "auto") == 0;
    printf("by these figures, for %s%s\n", view->info.name,
           chosen ? "; machine.gpu chooses another" : "");
    print_compute(view);
    if (cost->nranks == 1) {
        return;
    }
    figure(view, SHOAL_COST_RANKS_PER_NODE, "%d%s", cost->ranks_per_node,
           from(view, SHOAL_COST_RANKS_PER_NODE, SHOAL_SOURCE_ASSUMED)
               ? "; machine.ranks_per_node says otherwise"
               : "");
    if (cost->ranks_per_node > 1) {
        print_node_link(view);
    }
    if (cost->nnodes > 1) {
        print_link(view);
    }
    if (from(view, SHOAL_COST_LATENCY, SHOAL_SOURCE_TABLE)) {
        figure(view, SHOAL_COST_LATENCY,
               cost->nnodes > 1 ? "a ring by NCCL's own model" : "of the curves");
    } else {
        figure(view, SHOAL_COST_LATENCY, "%.1f us a collective", cost->machine.latency_us);
    }
}

shoal_status_t shoal_plan_print(const shoal_plan_view_t *view)
{
    print_memory(view);
    print_time(view);
    print_figures(view);
    return SHOAL_OK;
}

/* ---- JSON ---- */

static json_t *machine_json(const shoal_cost_t *cost)
{
    json_t *sources = json_object();
    for (int i = 0; i < SHOAL_COST_COUNT; i++) {
        json_object_set_new(sources, shoal_cost_figure_name((shoal_cost_figure_t)i),
                            json_string(shoal_source_name(cost->source[i])));
    }
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:o}", "flops", cost->machine.flops,
                     "memory_gbs", cost->machine.memory_gbs, "node_link_gbs",
                     cost->machine.node_link_gbs, "link_gbs", cost->machine.link_gbs, "latency_us",
                     cost->machine.latency_us, "ranks_per_node", cost->ranks_per_node, "nodes",
                     cost->nnodes, "sources", sources);
}

static void add_memory(json_t *plan, const shoal_plan_view_t *view)
{
    const shoal_step_t *step = view->step;
    json_object_set_new(plan, "bytes", shoal_summary_memory(step));
    json_object_set_new(plan, "total_nbytes", json_integer((json_int_t)step->total_nbytes));
    json_object_set_new(plan, "reserve_nbytes", json_integer((json_int_t)view->reserve_nbytes));
    json_object_set_new(plan, "available_nbytes", json_integer((json_int_t)available_nbytes(view)));
    json_object_set_new(plan, "fits", json_boolean(fits(view)));
    json_object_set_new(plan, "host_nbytes", json_integer((json_int_t)host_nbytes(step)));
    json_object_set_new(plan, "head_chunk", json_integer((json_int_t)step->head_chunk));
    json_object_set_new(plan, "logits_nbytes", json_integer((json_int_t)logits_nbytes(step)));
}

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void add_time(json_t *plan, const shoal_plan_view_t *view)
{
    const shoal_times_t *times = &view->times;
    json_object_set_new(plan, "predicted_step_ms", real(times->total));
    json_object_set_new(plan, "predicted_exposed_ms", real(communication(times->exposed)));
    json_object_set_new(plan, "predicted_comm_ms", real(communication(times->busy)));
    json_object_set_new(plan, "predicted_tokens_per_s", real(tokens_per_s(view)));
    json_object_set_new(plan, "predicted_mfu_causal", real(mfu(view, true)));
    json_object_set_new(plan, "predicted_mfu_full", real(mfu(view, false)));
}

shoal_status_t shoal_plan_print_json(const shoal_plan_view_t *view)
{
    json_t *plan = json_pack("{s:i, s:i, s:s, s:i, s:s, s:o}", "ranks", view->step->nranks,
                             "threads", view->affinity.nthreads, "affinity", view->affinity.text, "ops",
                             (int)view->step->train.nnodes, "device_name", view->info.name,
                             "machine", machine_json(&view->cost));
    if (plan != NULL) {
        add_memory(plan, view);
        add_time(plan, view);
    }
    if (plan == NULL || json_dumpf(plan, stdout, JSON_INDENT(2)) != 0) {
        shoal_error("plan: cannot print the JSON");
        json_decref(plan);
        return SHOAL_ERR_DATA;
    }
    putchar('\n');
    json_decref(plan);
    return SHOAL_OK;
}
