/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the stand-in for the CUDA runtime share. The state is the process's, made at the first call, so that a program may
 * fork before; `lock` guards all of it, and every call of the runtime is the body of `call`.
 */
#ifndef SHOAL_TESTS_STANDIN_MACHINE_H
#define SHOAL_TESTS_STANDIN_MACHINE_H

#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "tests/standin/standin.h"

namespace standin {

struct capture_t;

extern std::recursive_mutex lock;
extern std::mt19937_64      dice; /* seeded by SHOAL_STANDIN */

/* ---- machine.cc ---- */

/* Why no call can succeed: no driver, no GPU, an error of the GPU before; or success. */
cudaError_t health();

/* Complains, and returns the error. */
cudaError_t refuse(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Leaves an error for cudaGetLastError, and returns it. */
cudaError_t remember(cudaError_t error);

/* The calling thread's. */
int current_device();

/* A call of the runtime. `body` runs with the lock held. */
template <typename body_t>
cudaError_t call(const body_t &body)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    cudaError_t                           error = health();
    return remember(error == cudaSuccess ? body() : error);
}

/* ---- memory.cc ---- */

/* Whether an address is of device memory, allocated or not. */
bool of_device(const void *address);
/* Opens device memory to this process's code, or closes it. */
void open_memory(bool open);

/* ---- graphs.cc ---- */

/* cudaSuccess, unless a capture forbids calls that are unsafe in one: it is invalid from then on. */
cudaError_t forbid_in_capture(const char *name);
/* The next node of a stream that is being captured. `stamped`: an event that each launch records there. */
struct event_state_t;
cudaError_t add_node(CUstream_st *stream, const char *what, work_t work, std::shared_ptr<event_state_t> stamped);
/* The parts of recording an event and waiting for one that concern captures. */
void        capture_event(CUstream_st *stream, event_state_t *event);
cudaError_t wait_captured(CUstream_st *stream, const event_state_t *event);
void        invalidate(const std::shared_ptr<capture_t> &capture);

/* As `call`, for what is unsafe in a capture. */
template <typename body_t>
cudaError_t unsafe_call(const char *name, const body_t &body)
{
    return call([&] {
        cudaError_t error = forbid_in_capture(name);
        return error == cudaSuccess ? body() : error;
    });
}

/* ---- streams.cc ---- */

struct event_state_t {
    unsigned                   flags = 0;
    uint64_t                   recorded = 0, reached = 0; /* how often; the latest that a stream has come to */
    int64_t                    time_ns = 0;               /* of that */
    std::shared_ptr<capture_t> capture;                   /* where it was recorded last, if in one; and behind which nodes */
    std::vector<size_t>        nodes;
};

/* The stream of a handle, the legacy default one's too; NULL, after a complaint, if there is none. */
CUstream_st *find_stream(cudaStream_t handle);

/* Lets streams go on until `reached`, an error, or, if `most` is not 0, that many pieces. Sleeps, with the lock released, where nothing
 * goes on and `most` is 0. */
cudaError_t go_on(size_t most, const std::function<bool()> &reached);

/* Until the stream has done all that it has been given so far. */
cudaError_t drain(CUstream_st *stream);
/* All streams. */
cudaError_t drain_all();

/* A stream has come to this record of the event. */
void reach(event_state_t *event, uint64_t version);

/* Something has happened inside a piece that is not done. */
void moved();

} // namespace standin

struct CUstream_st {
    struct piece_t {
        const char     *what;
        standin::work_t work;
    };
    int                                 device = 0;
    bool                                destroyed = false;
    std::deque<piece_t>                 pieces;
    size_t                              enqueued = 0, done = 0;
    std::shared_ptr<standin::capture_t> capture; /* what is being recorded from it */
    std::vector<size_t>                 tails;   /* the nodes that its next one comes after */
};

struct CUevent_st {
    std::shared_ptr<standin::event_state_t> state = std::make_shared<standin::event_state_t>();
};

#endif
