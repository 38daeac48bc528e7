/* SPDX-License-Identifier: BSD-3-Clause */
/* Assembling a rank and running its steps; what is particular to a device or a transport stays behind their tables. */
#include "runtime/execute/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/start.h"
#include "runtime/bootstrap/seat.h"
#include "runtime/execute/initial.h"
#include "runtime/model/optim.h"

/*
 * A rank that has only lost its peers knows less than the one that they lost: its status is the
 * answer where there is no other.
 */
shoal_status_t shoal_trainer_agree(const shoal_peers_t *peers, shoal_status_t status)
{
    int  mine = (int)status, worst = (int)SHOAL_OK;
    int *all = malloc((size_t)peers->size * sizeof(*all));
    if (all == NULL || peers->exchange(peers->context, &mine, sizeof(mine), all) != SHOAL_OK) {
        free(all);
        return status != SHOAL_OK ? status : SHOAL_ERR_PEER;
    }
    for (int r = 0; r < peers->size; r++) {
        bool knows_more = worst == SHOAL_OK || (worst == SHOAL_ERR_PEER && all[r] != SHOAL_OK);
        worst           = knows_more ? all[r] : worst;
    }
    free(all);
    return (shoal_status_t)worst;
}

/* The first of this rank's samples of a micro-batch, in the step whose first sample is `first`. */
static uint64_t first_of_micro(const shoal_trainer_t *trainer, uint64_t first, size_t micro)
{
    size_t ranks = (size_t)trainer->peers.size;
    return first + (micro * ranks + (size_t)trainer->peers.rank) * trainer->spec->batch.local;
}

static shoal_status_t read_micro(const shoal_trainer_t *trainer, const shoal_data_t *data, uint64_t first, int32_t *tokens_p,
                                 int32_t *targets_p)
{
    size_t T = trainer->spec->model.seq;
    for (size_t b = 0; b < trainer->spec->batch.local; b++) {
        SHOAL_TRY(shoal_data_sample(data, first + b, tokens_p + b * T, targets_p + b * T));
    }
    return SHOAL_OK;
}

static shoal_status_t fetch(void *context, const shoal_op_t *op, int32_t *tokens_p, int32_t *targets_p)
{
    const shoal_trainer_t *trainer = context;
    uint64_t               first   = first_of_micro(trainer, trainer->fetch_first, op->fetch.micro);
    bool ahead = trainer->ahead.is_held && trainer->fetch_data == trainer->train_data && trainer->fetch_first == trainer->ahead.held;
    if (!ahead) {
        return read_micro(trainer, trainer->fetch_data, first, tokens_p, targets_p);
    }
    SHOAL_TRY(trainer->ahead.status);
    const int32_t *tokens = trainer->ahead.tokens + 2 * op->fetch.N * op->fetch.micro;
    memcpy(tokens_p, tokens, op->fetch.N * sizeof(*tokens_p));
    memcpy(targets_p, tokens + op->fetch.N, op->fetch.N * sizeof(*targets_p));
    return SHOAL_OK;
}

/* Once for each step that comes next: a validation in between finds it done. */
static void fetch_ahead(void *context)
{
    shoal_trainer_t          *trainer = context;
    const shoal_batch_spec_t *batch   = &trainer->spec->batch;
    size_t                    N       = batch->local * trainer->spec->model.seq;
    uint64_t                  want    = trainer->ahead.want;
    if (!trainer->ahead.is_wanted || (trainer->ahead.is_held && trainer->ahead.held == want)) {
        return;
    }
    for (size_t i = 0; i < batch->accumulate * batch->local; i++) {
        shoal_data_expect(trainer->train_data, first_of_micro(trainer, want, i / batch->local) + i % batch->local);
    }
    trainer->ahead.held    = want;
    trainer->ahead.is_held = true;
    trainer->ahead.status  = SHOAL_OK;
    for (size_t micro = 0; micro < batch->accumulate && trainer->ahead.status == SHOAL_OK; micro++) {
        int32_t *tokens       = trainer->ahead.tokens + 2 * N * micro;
        trainer->ahead.status = read_micro(trainer, trainer->train_data, first_of_micro(trainer, want, micro), tokens, tokens + N);
    }
}

static shoal_status_t alloc_ahead(shoal_trainer_t *trainer)
{
    if (trainer->step.ahead_nbytes > 0) {
        trainer->ahead.tokens = malloc(trainer->step.ahead_nbytes);
        if (trainer->ahead.tokens == NULL) {
            shoal_error("no memory for the next step's tokens");
            return SHOAL_ERR_NO_MEMORY;
        }
    }
    return SHOAL_OK;
}

size_t shoal_reserve_nbytes(const shoal_spec_t *spec, const shoal_device_info_t *info,
                            const shoal_transport_ops_t *transport, int nranks)
{
    size_t comms = nranks > 1 ? 2 : 0; /* one for each communication lane */
    return isnan(spec->run.reserve_gib) ? info->overhead_nbytes + comms * transport->comm_nbytes
                                        : (size_t)(spec->run.reserve_gib * 0x1p30);
}

/* What a rank's memory must hold, and what it has: bytes. */
typedef struct {
    double plan, reserve, available;
} fit_t;

static fit_t fit_of(const shoal_trainer_t *trainer)
{
    const shoal_spec_t *spec    = trainer->spec;
    size_t              reserve = shoal_reserve_nbytes(spec, &trainer->device_info,
                                                       trainer->transport_ops, trainer->peers.size);
    fit_t               fit     = {.plan      = (double)trainer->step.total_nbytes,
                                   .reserve   = (double)reserve,
                                   .available = spec->run.memory_gib * 0x1p30};
    if (fit.available <= 0.0) {
        fit.available = (double)trainer->device_info.memory_nbytes / trainer->sharers;
    }
    return fit;
}

static double lack_of(const fit_t *fit)
{
    return fit->plan + fit->reserve - fit->available;
}

/*
 * Collective, with the status so far. What is free differs from GPU to GPU: rank 0 speaks for the
 * rank that lacks most.
 */
static shoal_status_t check_fit(const shoal_trainer_t *trainer, shoal_status_t status)
{
    const shoal_peers_t *peers = &trainer->peers;
    fit_t                mine  = status == SHOAL_OK ? fit_of(trainer) : (fit_t){0}, worst;
    fit_t               *all   = malloc((size_t)peers->size * sizeof(*all));
    if (all == NULL || peers->exchange(peers->context, &mine, sizeof(mine), all) != SHOAL_OK) {
        free(all);
        return status != SHOAL_OK ? status : SHOAL_ERR_PEER;
    }
    int rank = 0;
    for (int r = 1; r < peers->size; r++) {
        rank = lack_of(&all[r]) > lack_of(&all[rank]) ? r : rank;
    }
    worst = all[rank];
    free(all);
    if (lack_of(&worst) <= 0.0) {
        return status;
    }
    if (peers->rank == 0) {
        shoal_error("the plan does not fit: a rank needs %.0f bytes (%.2f GiB), and %.2f GiB are "
                    "left to libraries and communicators "
                    "(run.reserve_gib); rank %d on %s has %.0f bytes (%.2f GiB); see `shoal plan`",
                    worst.plan, worst.plan * 0x1p-30, worst.reserve * 0x1p-30, rank,
                    trainer->bootstrap->hosts[rank], worst.available, worst.available * 0x1p-30);
    }
    return status != SHOAL_OK ? status : SHOAL_ERR_PLAN;
}

static shoal_status_t open_data(shoal_trainer_t *trainer)
{
    const shoal_spec_t *spec = trainer->spec;
    SHOAL_TRY(shoal_data_open(spec->data.train, spec->model.seq, spec->model.vocab, spec->data.order, spec->run.seed, &trainer->train_data));
    if (trainer->step.has_eval) {
        SHOAL_TRY(shoal_data_open(spec->data.valid, spec->model.seq, spec->model.vocab, SHOAL_ORDER_SEQUENTIAL, spec->run.seed,
                                  &trainer->valid_data));
    }
    return SHOAL_OK;
}

shoal_device_config_t shoal_device_config(const shoal_spec_t *spec, int local_rank, int nthreads)
{
    return (shoal_device_config_t){.local_rank       = local_rank,
                                   .nthreads         = nthreads,
                                   .variant          = spec->run.variant,
                                   .nondeterministic = !spec->run.deterministic,
                                   .attention        = spec->run.attention,
                                   .untuned          = !spec->run.tune,
                                   .planned          = spec->machine.gpu};
}

shoal_transport_config_t shoal_transport_config(const shoal_spec_t *spec)
{
    return (shoal_transport_config_t){.patience_s    = (double)spec->run.timeout_s,
                                      .max_ctas      = {[SHOAL_COMM_GATHER] = (int)spec->parallel.gather_ctas,
                                                        [SHOAL_COMM_REDUCE] = (int)spec->parallel.reduce_ctas},
                                      .gather_policy = spec->parallel.gather_policy,
                                      .windows       = spec->parallel.windows,
                                      .deterministic = spec->run.deterministic};
}

static shoal_status_t open_device(shoal_trainer_t *trainer)
{
    const shoal_spec_t *spec = trainer->spec;
    int                 local_rank = trainer->bootstrap->local_rank, local_size = trainer->bootstrap->local_size;
    SHOAL_TRY(shoal_affinity_settle(local_rank, local_size, (int)spec->run.threads, &trainer->affinity));
    shoal_device_config_t config = shoal_device_config(spec, local_rank, trainer->affinity.nthreads);
    SHOAL_TRY(shoal_device_open(spec->run.device, &config, &trainer->device));
    trainer->device->ops->info(trainer->device, &trainer->device_info);
    return shoal_transport_find(spec->parallel.transport, trainer->peers.size, trainer->device->ops->stream != NULL, &trainer->transport_ops);
}

/* To cores near the GPU; the GPUs of this host's ranks say which are left for this one. */
static shoal_status_t move_near(shoal_trainer_t *trainer, const shoal_seat_t *all)
{
    const shoal_bootstrap_t *world = trainer->bootstrap;
    const char              *ids[world->local_size];
    for (int r = 0; r < world->size; r++) {
        if (all[r].node == world->node) {
            ids[world->local_ranks[r]] = all[r].pci;
        }
    }
    return shoal_affinity_move_near(ids, world->local_rank, world->local_size, &trainer->affinity);
}

/* Ranks share the memory of a CPU; of a GPU only where SHOAL_SHARE_GPU=1 says so. Collective. */
static shoal_status_t take_seat(shoal_trainer_t *trainer)
{
    const shoal_bootstrap_t *world = trainer->bootstrap;
    const char              *share = getenv("SHOAL_SHARE_GPU");
    bool                     gpu   = trainer->device->ops->stream != NULL;
    shoal_seat_t            mine  = {.node = world->node, .exclusive = gpu && (share == NULL || strcmp(share, "1") != 0)};
    shoal_seat_t           *all;
    memcpy(mine.id, trainer->device_info.id, sizeof(mine.id));
    memcpy(mine.pci, trainer->device_info.pci, sizeof(mine.pci));
    SHOAL_TRY(shoal_seat_gather(&trainer->peers, &mine, &all));
    shoal_status_t status = shoal_seat_check(all, world->size, (const char (*)[64])world->hosts, world->rank == 0);
    trainer->sharers      = shoal_seat_sharers(all, world->size, world->rank);
    if (status == SHOAL_OK && gpu) {
        status = move_near(trainer, all);
    }
    if (status == SHOAL_OK && trainer->sharers > 1 && gpu && world->local_rank == 0) {
        shoal_warn("%d ranks of %s share the GPU at %s", trainer->sharers, world->host, mine.pci);
    }
    free(all);
    return status;
}

/* What a rank can do without its peers. */
static shoal_status_t assemble(shoal_trainer_t *trainer)
{
    const shoal_spec_t *spec = trainer->spec;
    double available = spec->run.memory_gib > 0.0 ? spec->run.memory_gib * 0x1p30 : INFINITY;
    SHOAL_TRY(shoal_step_check(spec, trainer->peers.size, trainer->device->ops->stream != NULL,
                               available, trainer->peers.rank == 0));
    SHOAL_TRY(shoal_step_create(spec, trainer->peers.size, trainer->peers.rank, trainer->device, trainer->transport_ops, &trainer->step));
    SHOAL_TRY(open_data(trainer));
    return alloc_ahead(trainer);
}

/* The transport goes first where it has a wish: collectives work on this memory. */
static shoal_status_t alloc_region(shoal_trainer_t *trainer)
{
    size_t          nbytes = trainer->step.total_nbytes;
    void           *region = NULL;
    shoal_status_t  status;
    shoal_device_t *device = trainer->device;
    if (trainer->transport_ops->alloc == NULL) {
        status = device->ops->alloc(device, nbytes, &region);
    } else {
        status = trainer->transport_ops->alloc(trainer->transport, nbytes, &region);
        if (status == SHOAL_ERR_NO_MEMORY) {
            device->ops->stream->say_full(device, nbytes);
        }
    }
    if (status == SHOAL_ERR_NO_MEMORY) {
        shoal_error("%zu bytes is what the plan gives a rank; see `shoal plan`", nbytes);
    }
    if (status == SHOAL_OK) {
        trainer->region      = region;
        trainer->used_nbytes = nbytes;
    }
    return status;
}

/* Memory of the transport's goes before it; the device's after it, for until then a broken transport may write there. */
static void close_transport(shoal_trainer_t *trainer)
{
    if (trainer->region != NULL && trainer->transport_ops->free != NULL) {
        trainer->transport_ops->free(trainer->transport, trainer->region);
        trainer->region = NULL;
    }
    trainer->transport_ops->close(trainer->transport);
}

/* Opening is collective: the ranks have agreed before that all of them come here. */
static shoal_status_t open_transport(shoal_trainer_t *trainer)
{
    shoal_transport_config_t config = shoal_transport_config(trainer->spec);
    SHOAL_TRY(trainer->transport_ops->open(&trainer->peers, &config, &trainer->transport));
    return alloc_region(trainer);
}

/* The address of a state buffer. */
static void *state(const shoal_trainer_t *trainer, shoal_buffer_id_t id)
{
    return trainer->region + trainer->step.train.buffers[id].offset;
}

static shoal_status_t connect(shoal_trainer_t *trainer)
{
    shoal_transport_config_t asked  = shoal_transport_config(trainer->spec);
    bool                     shared = trainer->transport_ops->uses_multiprocessors;
    if (trainer->device->ops->stream != NULL && trainer->peers.size > 1) {
        SHOAL_TRY(shoal_board_open(trainer->bootstrap, &trainer->peers, &trainer->board));
    }
    shoal_executor_config_t config = {
        .device        = trainer->device,
        .transport     = trainer->transport,
        .hosts         = (const char (*)[64])trainer->bootstrap->hosts,
        .board         = trainer->board,
        .lost          = &trainer->bootstrap->lost,
        .region        = trainer->region,
        .timeout_s     = trainer->spec->run.timeout_s,
        .fetch         = fetch,
        .fetch_ahead   = fetch_ahead,
        .fetch_context = trainer,
        .replay         = trainer->spec->run.graph,
        .leave          = {[SHOAL_LANE_GATHER] = shared ? asked.max_ctas[SHOAL_COMM_GATHER] : 0,
                           [SHOAL_LANE_REDUCE] = shared ? asked.max_ctas[SHOAL_COMM_REDUCE] : 0},
        .check_every_op = trainer->spec->run.check_ops,
    };
    return shoal_executor_create(&trainer->step, &config, &trainer->executor);
}

/*
 * Says what helps when memory has run out although the plan had its part: others took more than was
 * reserved.
 */
static void explain_want(const shoal_trainer_t *trainer, shoal_status_t status)
{
    if (status == SHOAL_ERR_NO_MEMORY && trainer->device->ops->stream != NULL) {
        size_t reserve = shoal_reserve_nbytes(trainer->spec, &trainer->device_info,
                                              trainer->transport_ops, trainer->peers.size);
        shoal_error("the plan has its %zu bytes; libraries and communicators want more than the "
                    "%.2f GiB left to them: give them more "
                    "(run.reserve_gib), or the plan less (batch.local, parallel.recompute)",
                    trainer->used_nbytes, (double)reserve * 0x1p-30);
    }
}

/* The end of a stage of creation: all ranks learn how it went, or who has not come. */
static shoal_status_t agree(shoal_trainer_t *trainer, shoal_status_t status)
{
    shoal_bootstrap_hurry(trainer->bootstrap, status);
    return shoal_trainer_agree(&trainer->peers, status);
}

shoal_status_t shoal_trainer_create(const shoal_spec_t *spec, shoal_bootstrap_t *bootstrap, shoal_trainer_t *trainer_p)
{
    memset(trainer_p, 0, sizeof(*trainer_p));
    trainer_p->spec       = spec;
    trainer_p->bootstrap  = bootstrap;
    trainer_p->peers      = shoal_bootstrap_peers(bootstrap);
    bootstrap->patience_s = (double)spec->run.timeout_s;
    bootstrap->stage      = "opening the device";
    shoal_status_t status = open_device(trainer_p);
    SHOAL_TRY(agree(trainer_p, status));
    bootstrap->stage = "planning the step and opening the data";
    status           = take_seat(trainer_p);
    shoal_start_mark(SHOAL_START_DEVICE);
    if (status == SHOAL_OK) {
        status = assemble(trainer_p);
    }
    status = check_fit(trainer_p, status);
    SHOAL_TRY(agree(trainer_p, status));
    shoal_start_mark(SHOAL_START_PLAN);
    bootstrap->stage = "opening the transport";
    status           = open_transport(trainer_p);
    SHOAL_TRY(agree(trainer_p, status));
    shoal_start_mark(SHOAL_START_TRANSPORT);
    bootstrap->stage = "making the initial state";
    status           = shoal_initial_fill(&trainer_p->step, trainer_p->device, trainer_p->region);
    shoal_start_mark(SHOAL_START_STATE);
    if (status == SHOAL_OK) {
        bootstrap->stage = "connecting, and preparing the first step";
        status           = connect(trainer_p);
    }
    explain_want(trainer_p, status);
    status = agree(trainer_p, status);
    shoal_start_mark(SHOAL_START_TRANSPORT);
    return status;
}

void shoal_trainer_destroy(shoal_trainer_t *trainer)
{
    shoal_executor_destroy(trainer->executor);
    shoal_board_close(trainer->board);
    if (trainer->transport != NULL) {
        close_transport(trainer);
    }
    if (trainer->region != NULL) {
        trainer->device->ops->free(trainer->device, trainer->region, trainer->step.total_nbytes);
    }
    free(trainer->ahead.tokens);
    shoal_data_close(trainer->train_data);
    shoal_data_close(trainer->valid_data);
    shoal_step_destroy(&trainer->step);
    if (trainer->device != NULL) {
        trainer->device->ops->close(trainer->device);
    }
    memset(trainer, 0, sizeof(*trainer));
}

static shoal_status_t upload_scalars(shoal_trainer_t *trainer, size_t t, double *lr_p)
{
    float scalars[SHOAL_SCALAR_COUNT] = {0}, stats[SHOAL_STATS_COUNT] = {0};
    shoal_optim_scalars(&trainer->spec->optim, t, trainer->spec->run.steps, scalars);
    stats[SHOAL_STATS_STOP] = trainer->stop ? 1.0f : 0.0f;
    *lr_p                   = scalars[SHOAL_SCALAR_LR];
    const shoal_sharding_t *sharding = &trainer->step.sharding;
    SHOAL_TRY(trainer->device->ops->upload(trainer->device, state(trainer, sharding->scalars), scalars, sizeof(scalars)));
    return trainer->device->ops->upload(trainer->device, state(trainer, sharding->stats), stats, sizeof(stats));
}

static void fill_record(const shoal_trainer_t *trainer, size_t t, const shoal_times_t *times, const float *stats, double lr,
                        shoal_step_record_t *record_p)
{
    const shoal_batch_spec_t *batch = &trainer->spec->batch;
    *record_p                       = (shoal_step_record_t){
                              .step              = t,
                              .loss              = stats[SHOAL_STATS_LOSS],
                              .tokens            = batch->local * batch->accumulate * trainer->spec->model.seq,
                              .step_ms           = times->total,
                              .compute_ms        = times->busy[SHOAL_LANE_COMPUTE],
                              .exposed_gather_ms = times->exposed[SHOAL_LANE_GATHER],
                              .exposed_reduce_ms = times->exposed[SHOAL_LANE_REDUCE],
                              .gather_ms         = times->busy[SHOAL_LANE_GATHER],
                              .reduce_ms         = times->busy[SHOAL_LANE_REDUCE],
                              .data_ms           = times->busy[SHOAL_LANE_HOST],
                              .optimizer_ms      = times->optimizer,
                              .grad_norm         = sqrt((double)stats[SHOAL_STATS_GNORM_SQ]),
                              .lr                = lr,
    };
}

shoal_status_t shoal_trainer_step(shoal_trainer_t *trainer, size_t t, shoal_step_record_t *record_p, bool *stopped_p)
{
    float         stats[SHOAL_STATS_COUNT];
    double        lr;
    shoal_times_t times;
    trainer->fetch_data  = trainer->train_data;
    trainer->fetch_first = (uint64_t)(t - 1) * trainer->spec->batch.global;
    trainer->ahead.is_wanted = t < trainer->spec->run.steps;
    trainer->ahead.want      = (uint64_t)t * trainer->spec->batch.global;
    SHOAL_TRY(upload_scalars(trainer, t, &lr));
    shoal_executor_time_ops(trainer->executor, trainer->time_ops || t == trainer->spec->run.trace_step);
    shoal_status_t status = shoal_executor_run(trainer->executor, &trainer->step.train, &times);
    explain_want(trainer, status);
    SHOAL_TRY(status);
    shoal_executor_time_ops(trainer->executor, false);
    SHOAL_TRY(trainer->device->ops->download(trainer->device, stats, state(trainer, trainer->step.sharding.stats), sizeof(stats)));
    fill_record(trainer, t, &times, stats, lr, record_p);
    *stopped_p = stats[SHOAL_STATS_STOP] > 0.0f;
    return SHOAL_OK;
}

shoal_status_t shoal_trainer_eval(shoal_trainer_t *trainer, double *loss_p)
{
    float         loss;
    shoal_times_t times;
    trainer->fetch_data  = trainer->valid_data;
    trainer->fetch_first = 0;
    SHOAL_TRY(shoal_executor_run(trainer->executor, &trainer->step.eval, &times));
    SHOAL_TRY(trainer->device->ops->download(trainer->device, &loss, state(trainer, trainer->step.sharding.stats), sizeof(loss)));
    *loss_p = loss;
    return SHOAL_OK;
}
