/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal bench collectives --device cuda`: the buffers are a GPU's, of the transport's own memory where it has one, and attached to the
 * groups as training does it. A collective is enqueued on the queue that training gives its kind, between two time stamps, so what is
 * timed is the GPU's work and not the call; the tiny all_reduce that aligns the ranks stands on the queue in front of them.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "runtime/bootstrap/seat.h"
#include "src/bench/bench.h"

enum { MARK_BEGIN, MARK_END, NMARKS };
enum { SIGNAL_END, NSIGNALS };
enum { NAP_US = 50, ALIGN_NBYTES = 256 };

static shoal_status_t count_sharers(shoal_bench_t *bench)
{
    const shoal_bootstrap_t *world = bench->bootstrap;
    shoal_seat_t             mine  = {.node = world->node};
    shoal_seat_t            *all;
    memcpy(mine.id, bench->device_info.id, sizeof(mine.id));
    SHOAL_TRY(shoal_seat_gather(&bench->peers, &mine, &all));
    bench->nsharers = shoal_seat_sharers(all, world->size, world->rank);
    free(all);
    return SHOAL_OK;
}

shoal_status_t shoal_bench_open_device(shoal_bench_t *bench)
{
    const shoal_device_config_t config = {.local_rank = bench->bootstrap->local_rank, .nthreads = 1, .attention = SHOAL_ATTENTION_OWN};
    if (!bench->options->device) {
        return SHOAL_OK;
    }
    SHOAL_TRY(shoal_device_open("cuda", &config, &bench->device));
    bench->device->ops->info(bench->device, &bench->device_info);
    SHOAL_TRY(count_sharers(bench));
    SHOAL_TRY(bench->device->ops->stream->reserve_marks(bench->device, NMARKS));
    return bench->device->ops->stream->reserve_signals(bench->device, NSIGNALS);
}

void shoal_bench_close_device(shoal_bench_t *bench)
{
    if (bench->device != NULL) {
        bench->device->ops->close(bench->device);
    }
}

static size_t align_up(size_t nbytes)
{
    return (nbytes + ALIGN_NBYTES - 1) / ALIGN_NBYTES * ALIGN_NBYTES;
}

/* [ send | recv | the number that aligns the ranks ] */
shoal_status_t shoal_bench_alloc_device(shoal_bench_t *bench, shoal_bench_transport_t *t)
{
    const shoal_transport_ops_t *ops    = t->transport->ops;
    size_t                       buffer = align_up(bench->buffer_nbytes);
    float                        one    = 1.0f;
    shoal_status_t               status;
    t->memory_nbytes = 2 * buffer + ALIGN_NBYTES;
    if (ops->alloc != NULL) {
        status = ops->alloc(t->transport, t->memory_nbytes, &t->memory);
        if (status == SHOAL_ERR_NO_MEMORY) {
            bench->device->ops->stream->say_full(bench->device, t->memory_nbytes);
        }
    } else {
        status = bench->device->ops->alloc(bench->device, t->memory_nbytes, &t->memory);
    }
    SHOAL_TRY(status);
    t->send = t->memory;
    t->recv = (char *)t->memory + buffer;
    t->one  = (char *)t->memory + 2 * buffer;
    return bench->device->ops->upload(bench->device, t->one, &one, sizeof(one));
}

void shoal_bench_free_device(shoal_bench_t *bench, shoal_bench_transport_t *t)
{
    if (t->memory == NULL) {
        return;
    }
    if (t->transport->ops->free != NULL) {
        t->transport->ops->free(t->transport, t->memory);
    } else {
        bench->device->ops->free(bench->device, t->memory, t->memory_nbytes);
    }
}

shoal_status_t shoal_bench_upload(const shoal_bench_t *bench, const shoal_bench_transport_t *t)
{
    shoal_device_t *device = bench->device;
    if (device == NULL) {
        return SHOAL_OK;
    }
    SHOAL_TRY(device->ops->upload(device, t->send, bench->send, bench->buffer_nbytes));
    return device->ops->upload(device, t->recv, bench->recv, bench->buffer_nbytes);
}

shoal_status_t shoal_bench_download(const shoal_bench_t *bench, const shoal_bench_transport_t *t)
{
    shoal_device_t *device = bench->device;
    return device == NULL ? SHOAL_OK : device->ops->download(device, bench->recv, t->recv, bench->buffer_nbytes);
}

/* Compute waits for the queue, for it is compute that can be asked. */
static shoal_status_t await_end(const shoal_bench_t *bench, const shoal_bench_transport_t *t, shoal_queue_t queue)
{
    shoal_device_t           *device   = bench->device;
    const shoal_stream_ops_t *stream   = device->ops->stream;
    int64_t                   start_ns = shoal_time_ns();
    shoal_status_t            status;
    SHOAL_TRY(stream->signal(device, queue, SIGNAL_END));
    SHOAL_TRY(stream->await(device, SHOAL_QUEUE_COMPUTE, SIGNAL_END));
    while ((status = stream->poll(device)) == SHOAL_IN_PROGRESS) {
        int moved;
        SHOAL_TRY(t->transport->ops->progress(t->transport, &moved));
        if (shoal_ms_since(start_ns) * 1e-3 > SHOAL_BENCH_PATIENCE_S) {
            shoal_error("bench: a collective of %s hangs for %d s", t->name, SHOAL_BENCH_PATIENCE_S);
            return SHOAL_ERR_PEER;
        }
        usleep(NAP_US);
    }
    return status;
}

shoal_status_t shoal_bench_run_device(const shoal_bench_t *bench, const shoal_bench_transport_t *t, const shoal_coll_t *coll, double *us_p)
{
    shoal_device_t           *device = bench->device;
    const shoal_stream_ops_t *stream = device->ops->stream;
    shoal_comm_use_t          use    = shoal_bench_use(coll->kind);
    shoal_queue_t             queue  = use == SHOAL_COMM_GATHER ? SHOAL_QUEUE_GATHER : SHOAL_QUEUE_REDUCE;
    shoal_coll_t              align  = {.kind = SHOAL_COLL_ALL_REDUCE, .dtype = SHOAL_F32, .n = 1, .recv = t->one};
    double                    ms     = 0;
    SHOAL_TRY(t->transport->ops->enqueue(t->comms[use], &align, stream->native(device, queue)));
    SHOAL_TRY(stream->mark(device, queue, MARK_BEGIN));
    SHOAL_TRY(t->transport->ops->enqueue(t->comms[use], coll, stream->native(device, queue)));
    SHOAL_TRY(stream->mark(device, queue, MARK_END));
    SHOAL_TRY(await_end(bench, t, queue));
    SHOAL_TRY(stream->between(device, MARK_BEGIN, MARK_END, &ms));
    *us_p = ms * 1e3;
    return SHOAL_OK;
}
