/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. Each JSON object has one function that fills it. */
#include "src/summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/json.h"
#include "base/log.h"
#include "base/quantile.h"
#include "base/start.h"

/* What each rank contributes: medians over its measured steps, and what its start took. */
typedef struct {
    double tokens_per_s, compute_ms, exposed_gather_ms, exposed_reduce_ms, gather_ms, reduce_ms, data_ms, optimizer_ms;
    double rss_peak_nbytes;
    double start_ms[SHOAL_START_COUNT];
} rank_medians_t;

json_t *shoal_summary_memory(const shoal_step_t *step)
{
    json_t *bytes = json_object();
    for (int m = 0; m < SHOAL_MEMORY_COUNT; m++) {
        json_object_set_new(bytes, shoal_memory_name((shoal_memory_t)m), json_integer((json_int_t)step->memory_nbytes[m]));
    }
    json_object_set_new(bytes, "slack", json_integer((json_int_t)step->slack_nbytes));
    return bytes;
}

double shoal_summary_mfu(const shoal_trainer_t *trainer, double tokens_per_s, double peak_flops, bool causal)
{
    return shoal_model_flops_per_token(&trainer->step.model, causal) * tokens_per_s / (peak_flops * trainer->peers.size);
}

static const char *shard_name(shoal_shard_t shard)
{
    static const char *const names[] = {"full", "grad", "none"};
    return names[shard];
}

static json_t *mesh_json(const shoal_trainer_t *trainer)
{
    const shoal_bootstrap_t *world = trainer->bootstrap;
    return json_pack("{s:i, s:i, s:i, s:s, s:i, s:s, s:s, s:s, s:s, s:i, s:s}", "ranks", world->size, "nodes", world->nnodes,
                     "ranks_per_node", world->local_size, "shard", shard_name(trainer->spec->parallel.shard), "tp",
                     (int)trainer->spec->parallel.tp, "bootstrap", world->method, "transport", trainer->transport_ops->name, "device",
                     trainer->device->ops->name, "device_name", trainer->device_info.name, "threads", trainer->affinity.nthreads, "affinity",
                     trainer->affinity.text);
}

static json_t *model_json(const shoal_model_t *model)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "arch", model->spec.arch, "parameters", (json_int_t)model->nparams,
                     "non_embedding_parameters", (json_int_t)(model->nparams - model->nparams_embedding), "layers",
                     (json_int_t)model->spec.layers, "d_model", (json_int_t)model->spec.d_model, "heads", (json_int_t)model->spec.heads,
                     "seq", (json_int_t)model->spec.seq, "vocab", (json_int_t)model->spec.vocab);
}

static json_t *plan_json(const shoal_trainer_t *trainer, const shoal_times_t *predicted)
{
    json_t *plan = json_pack("{s:o, s:I, s:i}", "bytes", shoal_summary_memory(&trainer->step), "total_nbytes",
                             (json_int_t)trainer->step.total_nbytes, "ops", (int)trainer->step.train.nnodes);
    if (predicted != NULL) {
        double exposed = predicted->exposed[SHOAL_LANE_GATHER] + predicted->exposed[SHOAL_LANE_REDUCE];
        json_object_set_new(plan, "predicted_step_ms", json_real(predicted->total));
        json_object_set_new(plan, "predicted_exposed_ms", json_real(exposed));
    }
    return plan;
}

shoal_status_t shoal_summary_write_run(const shoal_trainer_t *trainer, const shoal_config_t *config, const shoal_times_t *predicted)
{
    json_t *hosts = json_array();
    for (int r = 0; r < trainer->peers.size; r++) {
        json_array_append_new(hosts, json_string(trainer->bootstrap->hosts[r]));
    }
    json_t *run = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "shoal", PACKAGE_VERSION, "config", shoal_config_to_json(config), "mesh",
                            mesh_json(trainer), "hosts", hosts, "model", model_json(&trainer->step.model), "plan",
                            plan_json(trainer, predicted), "versions", json_pack("{s:s, s:s}", "shoal", PACKAGE_VERSION, "compiler", __VERSION__));
    if (run == NULL) {
        shoal_error("no memory for run.json");
        return SHOAL_ERR_NO_MEMORY;
    }
    shoal_status_t status = shoal_json_write(trainer->spec->run.dir, "run.json", run);
    json_decref(run);
    return status;
}

/* A figure of each measured step, by its place in the record. */
static size_t pick(const shoal_outcome_t *outcome, size_t field_offset, double *values)
{
    size_t n = 0;
    for (size_t s = outcome->warmup; s < outcome->nsteps; s++) {
        memcpy(&values[n++], (const char *)&outcome->steps[s] + field_offset, sizeof(double));
    }
    return n;
}

static double median_of(const shoal_outcome_t *outcome, size_t field_offset, double *scratch)
{
    size_t n = pick(outcome, field_offset, scratch);
    return n > 0 ? shoal_quantile(scratch, n, 0.5) : NAN;
}

#define MEDIAN(outcome, field, scratch) median_of(outcome, offsetof(shoal_step_record_t, field), scratch)

static rank_medians_t own_medians(const shoal_outcome_t *outcome, double *scratch)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double         step_ms = MEDIAN(outcome, step_ms, scratch);
    double         tokens  = outcome->nsteps > 0 ? (double)outcome->steps[0].tokens : NAN;
    rank_medians_t medians = {
        .tokens_per_s      = tokens / (step_ms * 1e-3),
        .compute_ms        = MEDIAN(outcome, compute_ms, scratch),
        .exposed_gather_ms = MEDIAN(outcome, exposed_gather_ms, scratch),
        .exposed_reduce_ms = MEDIAN(outcome, exposed_reduce_ms, scratch),
        .gather_ms         = MEDIAN(outcome, gather_ms, scratch),
        .reduce_ms         = MEDIAN(outcome, reduce_ms, scratch),
        .data_ms           = MEDIAN(outcome, data_ms, scratch),
        .optimizer_ms      = MEDIAN(outcome, optimizer_ms, scratch),
        .rss_peak_nbytes   = (double)usage.ru_maxrss * 1024.0,
    };
    shoal_start_parts(medians.start_ms);
    return medians;
}

/* JSON knows no NaN: what was not measured is null. */
static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *spread_json(double *values, size_t n, bool deciles)
{
    if (n == 0) {
        return json_null();
    }
    json_t *spread = json_pack("{s:f}", "median", shoal_quantile(values, n, 0.5));
    json_object_set_new(spread, "min", json_real(values[0]));
    json_object_set_new(spread, "max", json_real(values[n - 1]));
    if (deciles) {
        json_object_set_new(spread, "p10", json_real(shoal_quantile(values, n, 0.1)));
        json_object_set_new(spread, "p90", json_real(shoal_quantile(values, n, 0.9)));
    }
    return spread;
}

static void add_speed(json_t *summary, const shoal_outcome_t *outcome, double *scratch)
{
    const shoal_trainer_t *trainer = outcome->trainer;
    double tokens = (double)trainer->spec->batch.global * (double)trainer->spec->model.seq;
    size_t n      = pick(outcome, offsetof(shoal_step_record_t, step_ms), scratch);
    json_object_set_new(summary, "step_ms", spread_json(scratch, n, true));
    double median_ms = n > 0 ? shoal_quantile(scratch, n, 0.5) : NAN;
    for (size_t i = 0; i < n; i++) {
        scratch[i] = tokens / (scratch[i] * 1e-3);
    }
    double speed = tokens / (median_ms * 1e-3);
    json_object_set_new(summary, "tokens_per_s", spread_json(scratch, n, false));
    json_object_set_new(summary, "mfu_causal", real_or_null(shoal_summary_mfu(trainer, speed, outcome->peak_flops, true)));
    json_object_set_new(summary, "mfu_full", real_or_null(shoal_summary_mfu(trainer, speed, outcome->peak_flops, false)));
    json_object_set_new(summary, "peak_flops", real_or_null(outcome->peak_flops));
    json_object_set_new(summary, "peak_source", json_string(outcome->peak_source));
    json_object_set_new(summary, "flops_per_token_causal", json_real(shoal_model_flops_per_token(&trainer->step.model, true)));
    json_object_set_new(summary, "flops_per_token_full", json_real(shoal_model_flops_per_token(&trainer->step.model, false)));
}

static json_t *start_json(const double *parts)
{
    json_t *start = json_object();
    for (int part = 0; part < SHOAL_START_COUNT; part++) {
        json_object_set_new(start, shoal_start_part_name((shoal_start_part_t)part),
                            json_real(parts[part]));
    }
    return start;
}

static double start_total(const double *parts)
{
    double total = 0.0;
    for (int part = 0; part < SHOAL_START_COUNT; part++) {
        total += parts[part];
    }
    return total;
}

static json_t *rank_json(const shoal_trainer_t *trainer, int rank, const rank_medians_t *m)
{
    return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "rank", rank,
                     "host", trainer->bootstrap->hosts[rank], "tokens_per_s",
                     real_or_null(m->tokens_per_s), "compute_ms", real_or_null(m->compute_ms),
                     "exposed_gather_ms", real_or_null(m->exposed_gather_ms), "exposed_reduce_ms",
                     real_or_null(m->exposed_reduce_ms), "gather_ms", real_or_null(m->gather_ms),
                     "reduce_ms", real_or_null(m->reduce_ms), "data_ms", real_or_null(m->data_ms),
                     "optimizer_ms", real_or_null(m->optimizer_ms), "start_ms",
                     start_json(m->start_ms));
}

/* The start that counts is the slowest rank's; its parts add up to it. */
static void add_start(json_t *summary, const shoal_outcome_t *outcome, const rank_medians_t *ranks)
{
    int slowest = 0;
    for (int r = 1; r < outcome->trainer->peers.size; r++) {
        slowest =
            start_total(ranks[r].start_ms) > start_total(ranks[slowest].start_ms) ? r : slowest;
    }
    if (outcome->nsteps > 0) {
        json_object_set_new(summary, "launch_to_first_step_ms",
                            json_real(start_total(ranks[slowest].start_ms)));
        json_object_set_new(summary, "start_ms", start_json(ranks[slowest].start_ms));
    }
}

/* Exposed and total communication: means over the ranks of their medians. */
static void add_ranks(json_t *summary, const shoal_trainer_t *trainer, const rank_medians_t *ranks)
{
    json_t *speeds = json_array(), *per_rank = json_array();
    double  exposed = 0.0, comm = 0.0, rss = 0.0;
    int     size = trainer->peers.size;
    for (int r = 0; r < size; r++) {
        json_array_append_new(speeds, real_or_null(ranks[r].tokens_per_s));
        json_array_append_new(per_rank, rank_json(trainer, r, &ranks[r]));
        exposed += (ranks[r].exposed_gather_ms + ranks[r].exposed_reduce_ms) / size;
        comm += (ranks[r].gather_ms + ranks[r].reduce_ms) / size;
        rss = fmax(rss, ranks[r].rss_peak_nbytes);
    }
    json_object_set_new(summary, "tokens_per_s_per_rank", speeds);
    json_object_set_new(summary, "per_rank", per_rank);
    json_object_set_new(summary, "exposed_ms", real_or_null(exposed));
    json_object_set_new(summary, "comm_ms", real_or_null(comm));
    json_object_set_new(summary, "rss_peak_nbytes", json_integer((json_int_t)rss));
}

static void add_outcome(json_t *summary, const shoal_outcome_t *outcome)
{
    const shoal_trainer_t *trainer = outcome->trainer;
    json_t                *losses  = json_array();
    size_t                 tokens  = trainer->spec->batch.global * trainer->spec->model.seq;
    shoal_device_info_t    info;
    trainer->device->ops->info(trainer->device, &info); /* again: what ran is known only now */
    for (size_t s = 0; s < outcome->nsteps; s++) {
        json_array_append_new(losses, real_or_null(outcome->steps[s].loss));
    }
    json_object_set_new(summary, "status", json_string(outcome->status == SHOAL_OK ? "ok" : shoal_status_string(outcome->status)));
    json_object_set_new(summary, "exit_code", json_integer(shoal_status_exit_code(outcome->status)));
    json_object_set_new(summary, "steps", json_integer((json_int_t)outcome->nsteps));
    json_object_set_new(summary, "warmup_steps", json_integer((json_int_t)outcome->warmup));
    json_object_set_new(summary, "ranks", json_integer(trainer->peers.size));
    json_object_set_new(summary, "nodes", json_integer(trainer->bootstrap->nnodes));
    json_object_set_new(summary, "tokens_per_step", json_integer((json_int_t)tokens));
    json_object_set_new(summary, "total_tokens", json_integer((json_int_t)(tokens * outcome->nsteps)));
    json_object_set_new(summary, "elapsed_s", json_real(outcome->elapsed_s));
    json_object_set_new(summary, "losses", losses);
    json_object_set(summary, "valid_loss", outcome->valid);
    json_object_set_new(summary, "first_step_ms", real_or_null(outcome->first_step_ms));
    json_object_set_new(summary, "plan_nbytes", json_integer((json_int_t)trainer->step.total_nbytes));
    json_object_set_new(summary, "used_nbytes", json_integer((json_int_t)trainer->used_nbytes));
    if (info.total_nbytes > 0) {
        json_object_set_new(summary, "device_total_nbytes", json_integer((json_int_t)info.total_nbytes));
        json_object_set_new(summary, "device_used_nbytes", json_integer((json_int_t)(info.total_nbytes - info.memory_nbytes)));
    }
    json_object_set_new(summary, "kernels", json_string(info.kernels));
    json_object_set_new(summary, "heap_growth_nbytes", json_integer((json_int_t)outcome->heap_growth_nbytes));
    json_object_set_new(summary, "parameters", json_integer((json_int_t)trainer->step.model.nparams));
    json_object_set_new(summary, "non_embedding_parameters",
                        json_integer((json_int_t)(trainer->step.model.nparams - trainer->step.model.nparams_embedding)));
}

static void print_start(const json_t *parts, double total, const char *dir)
{
    char   text[512] = "";
    size_t n         = 0;
    for (int part = 0; part < SHOAL_START_COUNT; part++) {
        const char *name = shoal_start_part_name((shoal_start_part_t)part);
        double      ms   = json_number_value(json_object_get(parts, name));
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %.0f", part > 0 ? ", " : "",
                              part == SHOAL_START_STEP ? "first step" : name, ms);
    }
    shoal_info("launch to first step %.0f ms (%s); records in %s", total, text, dir);
}

static void print_closing(const json_t *summary, const char *dir)
{
    double speed  = json_number_value(json_object_get(json_object_get(summary, "tokens_per_s"), "median"));
    double causal = json_number_value(json_object_get(summary, "mfu_causal")), full = json_number_value(json_object_get(summary, "mfu_full"));
    double exposed = json_number_value(json_object_get(summary, "exposed_ms")), comm = json_number_value(json_object_get(summary, "comm_ms"));
    shoal_info("%.0f tokens/s (median of %d steps after %d of warm-up), MFU %.1f%% causal, %.1f%% full attention, of %.1f Gflop/s per rank (%s)",
               speed, (int)(json_integer_value(json_object_get(summary, "steps")) - json_integer_value(json_object_get(summary, "warmup_steps"))),
               (int)json_integer_value(json_object_get(summary, "warmup_steps")), causal * 100.0, full * 100.0,
               json_number_value(json_object_get(summary, "peak_flops")) * 1e-9, json_string_value(json_object_get(summary, "peak_source")));
    if (comm > 0.0) {
        shoal_info("communication %.1f ms a step, %.1f ms of it exposed (%.1f%%)", comm, exposed, 100.0 * exposed / comm);
    }
    print_start(json_object_get(summary, "start_ms"),
                json_number_value(json_object_get(summary, "launch_to_first_step_ms")), dir);
}

shoal_status_t shoal_summary_write(const shoal_outcome_t *outcome)
{
    const shoal_trainer_t *trainer = outcome->trainer;
    const shoal_peers_t   *peers   = &trainer->peers;
    double                *scratch = malloc((outcome->nsteps + 1) * sizeof(*scratch));
    rank_medians_t        *ranks   = malloc((size_t)peers->size * sizeof(*ranks));
    shoal_status_t         status  = SHOAL_ERR_NO_MEMORY;
    if (scratch != NULL && ranks != NULL) {
        rank_medians_t mine = own_medians(outcome, scratch);
        status              = peers->exchange(peers->context, &mine, sizeof(mine), ranks);
    }
    if (status == SHOAL_OK && peers->rank == 0) {
        json_t *summary = json_object();
        add_outcome(summary, outcome);
        add_speed(summary, outcome, scratch);
        add_ranks(summary, trainer, ranks);
        add_start(summary, outcome, ranks);
        status = shoal_json_write(trainer->spec->run.dir, "summary.json", summary);
        if (status == SHOAL_OK) {
            print_closing(summary, trainer->spec->run.dir);
        }
        json_decref(summary);
    }
    free(scratch);
    free(ranks);
    return status;
}
