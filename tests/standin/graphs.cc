/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Captures and graphs. While a stream is captured, what it is given becomes nodes, each behind the stream's last ones; an event
 * recorded there stands for those, and a stream that waits for it joins the capture. A launch is one piece of a stream, which carries out
 * the nodes in an order drawn by the dice, each once those before it are done.
 */
#include <algorithm>
#include <set>
#include <thread>

#include "tests/standin/machine.h"

namespace standin {

namespace {

struct node_t {
    const char                    *what;
    work_t                         work;
    std::shared_ptr<event_state_t> stamped; /* the event that a launch records here, or NULL */
    std::vector<size_t>            after;
};

using nodes_t = std::vector<node_t>;

} // namespace

struct capture_t {
    CUstream_st          *origin;
    cudaStreamCaptureMode mode;
    std::thread::id       owner;
    bool                  invalid = false;
    nodes_t               nodes;
    std::set<CUstream_st *> streams;
};

namespace {

std::set<std::shared_ptr<capture_t>> captures;

/* A graph under way. */
struct launch_t {
    std::shared_ptr<const nodes_t> nodes;
    std::vector<work_t>            works;
    std::vector<size_t>            missing, ready; /* per node: how many before it are not done; nodes that may go on */
    size_t                         ndone = 0;
};

std::vector<std::vector<size_t>> followers_of(const nodes_t &nodes)
{
    std::vector<std::vector<size_t>> followers(nodes.size());
    for (size_t i = 0; i < nodes.size(); i++) {
        for (size_t before : nodes[i].after) {
            followers[before].push_back(i);
        }
    }
    return followers;
}

work_t stamp(const std::shared_ptr<event_state_t> &event)
{
    uint64_t version = ++event->recorded;
    event->capture   = nullptr;
    return [=] {
        reach(event.get(), version);
        return true;
    };
}

std::shared_ptr<launch_t> new_launch(const std::shared_ptr<const nodes_t> &nodes)
{
    auto launch   = std::make_shared<launch_t>();
    launch->nodes = nodes;
    for (size_t i = 0; i < nodes->size(); i++) {
        const node_t &node = (*nodes)[i];
        launch->works.push_back(node.stamped != nullptr ? stamp(node.stamped) : node.work);
        launch->missing.push_back(node.after.size());
        if (node.after.empty()) {
            launch->ready.push_back(i);
        }
    }
    return launch;
}

/* One node that can; true once all are done. */
bool step_launch(launch_t *launch, const std::vector<std::vector<size_t>> &followers)
{
    std::shuffle(launch->ready.begin(), launch->ready.end(), dice);
    for (size_t i = 0; i < launch->ready.size(); i++) {
        size_t node = launch->ready[i];
        if (launch->works[node]()) {
            launch->ready.erase(launch->ready.begin() + (ptrdiff_t)i);
            for (size_t follower : followers[node]) {
                if (--launch->missing[follower] == 0) {
                    launch->ready.push_back(follower);
                }
            }
            launch->ndone++;
            moved();
            break;
        }
    }
    return launch->ndone == launch->works.size();
}

/* Marks the nodes and all before them. */
void mark_reached(const nodes_t &nodes, const std::vector<size_t> &from, std::vector<bool> *reached_p)
{
    for (size_t node : from) {
        if (!(*reached_p)[node]) {
            (*reached_p)[node] = true;
            mark_reached(nodes, nodes[node].after, reached_p);
        }
    }
}

bool all_joined(const capture_t &capture)
{
    std::vector<bool> reached(capture.nodes.size());
    mark_reached(capture.nodes, capture.origin->tails, &reached);
    for (size_t i = 0; i < capture.nodes.size(); i++) {
        if (!reached[i]) {
            return complain("cudaStreamEndCapture: '%s', node %zu, was never waited for", capture.nodes[i].what, i);
        }
    }
    return true;
}

void end_capture(const std::shared_ptr<capture_t> &capture)
{
    for (CUstream_st *stream : capture->streams) {
        stream->capture = nullptr;
        stream->tails.clear();
    }
    captures.erase(capture);
}

void add_tails(CUstream_st *stream, const std::vector<size_t> &nodes)
{
    for (size_t node : nodes) {
        if (std::find(stream->tails.begin(), stream->tails.end(), node) == stream->tails.end()) {
            stream->tails.push_back(node);
        }
    }
}

} // namespace

void invalidate(const std::shared_ptr<capture_t> &capture)
{
    capture->invalid = true;
}

cudaError_t forbid_in_capture(const char *name)
{
    for (const auto &capture : captures) {
        bool own = capture->owner == std::this_thread::get_id();
        if (capture->mode == cudaStreamCaptureModeGlobal || (own && capture->mode == cudaStreamCaptureModeThreadLocal)) {
            invalidate(capture);
            return refuse(cudaErrorStreamCaptureUnsupported, "%s during a capture", name);
        }
    }
    return cudaSuccess;
}

cudaError_t add_node(CUstream_st *stream, const char *what, work_t work, std::shared_ptr<event_state_t> stamped)
{
    capture_t *capture = stream->capture.get();
    if (capture->invalid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    capture->nodes.push_back({what, std::move(work), std::move(stamped), stream->tails});
    stream->tails = {capture->nodes.size() - 1};
    return cudaSuccess;
}

void capture_event(CUstream_st *stream, event_state_t *event)
{
    event->capture = stream->capture;
    event->nodes   = stream->tails;
}

cudaError_t wait_captured(CUstream_st *stream, const event_state_t *event)
{
    if (event->capture == nullptr) {
        invalidate(stream->capture);
        return refuse(cudaErrorStreamCaptureIsolation, "a captured stream waits for an event from outside of the capture");
    }
    if (captures.count(event->capture) == 0) {
        return refuse(cudaErrorCapturedEvent, "a stream waits for an event that was last recorded in a capture that has ended");
    }
    if (event->capture->invalid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    if (stream->capture != nullptr && stream->capture != event->capture) {
        invalidate(stream->capture);
        return refuse(cudaErrorStreamCaptureMerge, "a captured stream waits for an event of another capture");
    }
    stream->capture = event->capture;
    stream->capture->streams.insert(stream);
    add_tails(stream, event->nodes);
    return cudaSuccess;
}

} // namespace standin

using namespace standin;

struct CUgraph_st {
    std::shared_ptr<const nodes_t> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const nodes_t>   nodes;
    std::vector<std::vector<size_t>> followers;
};

static std::set<CUgraph_st *>     graphs;
static std::set<CUgraphExec_st *> executables;

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    return call([&] {
        CUstream_st *stream = handle != nullptr ? find_stream(handle) : nullptr;
        if (stream == nullptr) {
            return refuse(cudaErrorStreamCaptureUnsupported, "the default stream cannot be captured");
        }
        if (stream->capture != nullptr) {
            return cudaErrorIllegalState;
        }
        auto capture    = std::make_shared<capture_t>();
        capture->origin = stream;
        capture->mode   = mode;
        capture->owner  = std::this_thread::get_id();
        capture->streams.insert(stream);
        stream->capture = capture;
        captures.insert(capture);
        return cudaSuccess;
    });
}

static cudaError_t why_not_end(const capture_t &capture)
{
    if (capture.invalid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    return all_joined(capture) ? cudaSuccess : cudaErrorStreamCaptureUnjoined;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph_p)
{
    return call([&] {
        CUstream_st *stream = find_stream(handle);
        *graph_p            = nullptr;
        if (stream == nullptr || stream->capture == nullptr) {
            return cudaErrorIllegalState;
        }
        auto capture = stream->capture;
        if (capture->mode != cudaStreamCaptureModeRelaxed && capture->owner != std::this_thread::get_id()) {
            return cudaErrorStreamCaptureWrongThread;
        }
        if (capture->origin != stream) {
            invalidate(capture);
            return cudaErrorStreamCaptureUnmatched;
        }
        cudaError_t error = why_not_end(*capture);
        end_capture(capture);
        if (error == cudaSuccess) {
            *graph_p = *graphs.insert(new CUgraph_st{std::make_shared<const nodes_t>(std::move(capture->nodes))}).first;
        }
        return error;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status_p)
{
    return call([&] {
        CUstream_st *stream = find_stream(handle);
        if (stream == nullptr) {
            return cudaErrorInvalidResourceHandle;
        }
        *status_p = stream->capture == nullptr    ? cudaStreamCaptureStatusNone
                    : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                               : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable_p, cudaGraph_t graph, unsigned long long flags)
{
    return call([&] {
        if (graphs.count(graph) == 0 || flags != 0) {
            return refuse(cudaErrorInvalidValue, "cudaGraphInstantiate: %p is no graph, or flags %#llx", (void *)graph, flags);
        }
        if (!take("graph_takes")) {
            return cudaErrorMemoryAllocation;
        }
        *executable_p = *executables.insert(new CUgraphExec_st{graph->nodes, followers_of(*graph->nodes)}).first;
        return cudaSuccess;
    });
}

static cudaError_t check_executable(cudaGraphExec_t executable, const char *name)
{
    return executables.count(executable) != 0 ? cudaSuccess : refuse(cudaErrorInvalidValue, "%s: %p is no graph", name, (void *)executable);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t handle)
{
    return call([&] {
        cudaError_t error = check_executable(executable, "cudaGraphUpload");
        return error == cudaSuccess && find_stream(handle) == nullptr ? cudaErrorInvalidResourceHandle : error;
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle)
{
    return call([&] {
        cudaError_t  error  = check_executable(executable, "cudaGraphLaunch");
        CUstream_st *stream = error == cudaSuccess ? find_stream(handle) : nullptr;
        if (stream == nullptr) {
            return error != cudaSuccess ? error : cudaErrorInvalidResourceHandle;
        }
        if (stream->capture != nullptr) {
            return refuse(cudaErrorNotSupported, "graphs within graphs are not in the stand-in");
        }
        auto launch    = new_launch(executable->nodes);
        auto followers = executable->followers;
        return enqueue(handle, "cudaGraphLaunch", [=] { return step_launch(launch.get(), followers); });
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return call([&] {
        if (graphs.erase(graph) == 0) {
            return refuse(cudaErrorInvalidValue, "cudaGraphDestroy: %p is no graph", (void *)graph);
        }
        delete graph;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    return call([&] {
        cudaError_t error = check_executable(executable, "cudaGraphExecDestroy");
        if (error == cudaSuccess) {
            executables.erase(executable);
            delete executable;
        }
        return error;
    });
}
