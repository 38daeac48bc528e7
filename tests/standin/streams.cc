/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Streams and events. A stream is a queue of pieces of work, carried out in `go_on` by whichever thread asks for its end: the dice say
 * which stream goes on next, and a stream whose first piece is not done yet waits until another has moved. An event counts its records; a wait
 * is a piece that is done once the stream of the record has come that far.
 */
#include <algorithm>
#include <ctime>
#include <set>
#include <unistd.h>

#include "tests/standin/machine.h"

namespace standin {

namespace {

std::vector<std::unique_ptr<CUstream_st>> streams;
std::set<CUevent_st *>                    events;
std::vector<CUstream_st *>                legacy; /* the default stream of each device */
uint64_t                                  moves;

CUstream_st *new_stream(int device)
{
    streams.emplace_back(new CUstream_st);
    streams.back()->device = device;
    return streams.back().get();
}

CUstream_st *legacy_stream()
{
    size_t device = (size_t)current_device();
    legacy.resize(std::max(legacy.size(), device + 1));
    if (legacy[device] == nullptr) {
        legacy[device] = new_stream((int)device);
    }
    return legacy[device];
}

int64_t now_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}

/* The first piece of a stream; whether anything has happened. */
bool step(CUstream_st *stream)
{
    uint64_t before = moves;
    if (stream->pieces.front().work()) {
        stream->pieces.pop_front();
        stream->done++;
        moves++;
    }
    return moves != before;
}

void bury_streams()
{
    auto gone = [](const std::unique_ptr<CUstream_st> &stream) { return stream->destroyed && stream->pieces.empty(); };
    streams.erase(std::remove_if(streams.begin(), streams.end(), gone), streams.end());
}

/* Streams in an order of the dice, at most `most` steps; how many there were. */
size_t run_pieces(size_t most, const std::function<bool()> &reached)
{
    size_t                     nsteps = 0;
    std::vector<CUstream_st *> ready, waiting;
    for (auto &stream : streams) {
        ready.push_back(stream.get());
    }
    open_memory(true);
    while (!ready.empty() && nsteps < most && health() == cudaSuccess && !reached()) {
        size_t       i      = dice() % ready.size();
        CUstream_st *stream = ready[i];
        if (!stream->pieces.empty() && step(stream)) {
            nsteps++;
            ready.insert(ready.end(), waiting.begin(), waiting.end());
            waiting.clear();
        } else {
            ready.erase(ready.begin() + (ptrdiff_t)i);
            waiting.push_back(stream);
        }
    }
    open_memory(false);
    bury_streams();
    return nsteps;
}

} // namespace

CUstream_st *find_stream(cudaStream_t handle)
{
    if (handle == nullptr || handle == cudaStreamLegacy) {
        return legacy_stream();
    }
    for (auto &stream : streams) {
        if (stream.get() == handle && !stream->destroyed) {
            return handle;
        }
    }
    complain("%p is no stream", (void *)handle);
    return nullptr;
}

static CUevent_st *find_event(cudaEvent_t event)
{
    return events.count(event) != 0 || !complain("%p is no event", (void *)event) ? event : nullptr;
}

void moved()
{
    moves++;
}

cudaError_t go_on(size_t most, const std::function<bool()> &reached)
{
    enum { STEPS_PER_TURN = 256, NAP_US = 100 };
    if (most > 0) {
        run_pieces(most, reached);
        return health();
    }
    while (health() == cudaSuccess && !reached()) {
        size_t nsteps = run_pieces(STEPS_PER_TURN, reached);
        lock.unlock();
        usleep(nsteps > 0 ? 0 : NAP_US);
        lock.lock();
    }
    return health();
}

bool go_on_a_little()
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return go_on(256, [] { return false; }) == cudaSuccess;
}

cudaError_t drain(CUstream_st *stream)
{
    size_t until = stream->enqueued;
    return go_on(0, [=] { return stream->done >= until; });
}

cudaError_t drain_all()
{
    return go_on(0, [] {
        return std::all_of(streams.begin(), streams.end(), [](const std::unique_ptr<CUstream_st> &stream) { return stream->pieces.empty(); });
    });
}

cudaError_t enqueue(cudaStream_t handle, const char *what, work_t work)
{
    return call([&] {
        CUstream_st *stream = find_stream(handle);
        if (stream == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        if (stream->capture != nullptr) {
            return add_node(stream, what, std::move(work), nullptr);
        }
        stream->pieces.push_back({what, std::move(work)});
        stream->enqueued++;
        return cudaSuccess;
    });
}

void reach(event_state_t *event, uint64_t version)
{
    event->reached = std::max(event->reached, version);
    event->time_ns = now_ns();
}

} // namespace standin

using namespace standin;

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream_p, unsigned flags, int)
{
    return call([&] {
        if (flags != cudaStreamNonBlocking) {
            return refuse(cudaErrorNotSupported, "streams that wait for the default stream are not in the stand-in");
        }
        *stream_p = new_stream(current_device());
        return cudaSuccess;
    });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream_p, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream_p, flags, 0);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least_p, int *greatest_p)
{
    return call([&] {
        *least_p    = 0;
        *greatest_p = -5;
        return cudaSuccess;
    });
}

/* What is on it is still carried out. */
cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    return call([&] {
        CUstream_st *stream = handle != nullptr ? find_stream(handle) : nullptr;
        if (stream == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        if (stream->capture != nullptr) {
            invalidate(stream->capture);
            return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamDestroy of a stream that is being captured");
        }
        stream->destroyed = true;
        bury_streams();
        return cudaSuccess;
    });
}

/* The stream of a call that asks for its end, which no capture allows. */
static cudaError_t uncaptured(cudaStream_t handle, const char *name, CUstream_st **stream_p)
{
    *stream_p = find_stream(handle);
    if (*stream_p == nullptr) {
        return cudaErrorInvalidResourceHandle;
    }
    if ((*stream_p)->capture != nullptr) {
        invalidate((*stream_p)->capture);
        return refuse(cudaErrorStreamCaptureUnsupported, "%s of a stream that is being captured", name);
    }
    return forbid_in_capture(name);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    return call([&] {
        CUstream_st *stream;
        cudaError_t  error = uncaptured(handle, "cudaStreamSynchronize", &stream);
        return error == cudaSuccess ? drain(stream) : error;
    });
}

/* The answer of a query: streams go on a little first. */
static cudaError_t query(const std::function<bool()> &reached)
{
    enum { MOST_STEPS = 64 };
    cudaError_t error = go_on(1 + dice() % MOST_STEPS, reached);
    return error != cudaSuccess ? error : reached() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    return call([&] {
        CUstream_st *stream;
        cudaError_t  error = uncaptured(handle, "cudaStreamQuery", &stream);
        return error == cudaSuccess ? query([=] { return stream->pieces.empty(); }) : error;
    });
}

cudaError_t cudaDeviceSynchronize()
{
    return unsafe_call("cudaDeviceSynchronize", [] { return drain_all(); });
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event_p, unsigned flags)
{
    return call([&] {
        if ((flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) {
            return refuse(cudaErrorNotSupported, "cudaEventCreateWithFlags: flags %#x", flags);
        }
        *event_p                 = *events.insert(new CUevent_st).first;
        (*event_p)->state->flags = flags;
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t *event_p)
{
    return cudaEventCreateWithFlags(event_p, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return call([&] {
        if (find_event(event) == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        events.erase(event);
        delete event;
        return cudaSuccess;
    });
}

/* Within a capture, an event stands for what its stream has recorded so far, unless it is an external one: each launch records that. */
static cudaError_t record_captured(CUstream_st *stream, CUevent_st *event, unsigned flags)
{
    if (flags == cudaEventRecordExternal) {
        return add_node(stream, "external event", [] { return true; }, event->state);
    }
    capture_event(stream, event->state.get());
    return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags)
{
    return call([&] {
        CUstream_st *stream = find_stream(handle);
        if (stream == nullptr || find_event(event) == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        if (stream->capture != nullptr) {
            return record_captured(stream, event, flags);
        }
        if (flags != cudaEventRecordDefault) {
            return refuse(cudaErrorIllegalState, "an external event outside of a capture");
        }
        auto     state   = event->state;
        uint64_t version = ++state->recorded;
        state->capture   = nullptr;
        return enqueue(handle, "cudaEventRecord", [=] {
            reach(state.get(), version);
            return true;
        });
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    return cudaEventRecordWithFlags(event, handle, cudaEventRecordDefault);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags)
{
    return call([&] {
        CUstream_st *stream = find_stream(handle);
        if (stream == nullptr || find_event(event) == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        if (flags != cudaEventWaitDefault) {
            return refuse(cudaErrorNotSupported, "cudaStreamWaitEvent: flags %#x", flags);
        }
        auto     state   = event->state;
        uint64_t version = state->recorded;
        if (stream->capture != nullptr || state->capture != nullptr) {
            return wait_captured(stream, state.get());
        }
        return enqueue(handle, "cudaStreamWaitEvent", [=] { return state->reached >= version; });
    });
}

/* For calls that ask whether an event has been reached. */
static cudaError_t find_uncaptured(cudaEvent_t event)
{
    if (find_event(event) == nullptr) {
        return cudaErrorInvalidResourceHandle;
    }
    if (event->state->capture != nullptr) {
        invalidate(event->state->capture);
        return refuse(cudaErrorCapturedEvent, "an event was last recorded in a capture, and is asked whether it has been reached");
    }
    return cudaSuccess;
}

static std::function<bool()> has_reached(cudaEvent_t event)
{
    auto     state   = event->state;
    uint64_t version = state->recorded;
    return [=] { return state->reached >= version; };
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return unsafe_call("cudaEventQuery", [&] {
        cudaError_t error = find_uncaptured(event);
        return error == cudaSuccess ? query(has_reached(event)) : error;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return unsafe_call("cudaEventSynchronize", [&] {
        cudaError_t error = find_uncaptured(event);
        return error == cudaSuccess ? go_on(0, has_reached(event)) : error;
    });
}

static cudaError_t check_timed(cudaEvent_t event)
{
    cudaError_t error = find_uncaptured(event);
    if (error != cudaSuccess) {
        return error;
    }
    if ((event->state->flags & cudaEventDisableTiming) != 0 || event->state->recorded == 0) {
        return refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime of an event %s",
                      event->state->recorded == 0 ? "that was never recorded" : "without time stamps");
    }
    return event->state->reached >= event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms_p, cudaEvent_t from, cudaEvent_t to)
{
    return call([&] {
        cudaError_t first = check_timed(from), second = check_timed(to);
        if (first == cudaSuccess && second == cudaSuccess) {
            *ms_p = (float)((double)(to->state->time_ns - from->state->time_ns) * 1e-6);
        }
        return first != cudaSuccess ? first : second;
    });
}
