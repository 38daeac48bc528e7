/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stand-in for NCCL: the functions that collectives/nccl.c calls. Ranks are processes of one
 * machine, one each (nccl_group.h). A communicator does not block: it answers ncclInProgress while
 * ranks come, at the first collective and now and then at later ones, for a window, at the end.
 * What was asked for happens while the caller asks for the state, and a call that does not wait for
 * that is refused. So is memory that is not the device's, or that overlaps as it must not.
 *
 * A peer whose process ends makes the state ncclRemoteError where sockets are in use, which close:
 * between hosts (what NCCL_HOSTID says a host is), and on one host while a communicator is made or
 * a window registered. Collectives of one host are kernels that read each other's memory: they wait
 * for a dead peer for ever, the state stays ncclSuccess, and only an abort ends them.
 *
 * A collective that is captured belongs to the graph until the graph and its executables are
 * destroyed and their launches have ended, and the library waits for that, without limit, when a
 * communicator is finalized or aborted. Here a wait that cannot end ends the process, with
 * status 97. Communicators that are aborted in one group are aborted at once: a launch that holds
 * collectives of both ends only then.
 *
 * Windows are granted to ranks of one host, which is what NCCL_HOSTID says it is, and are NULL
 * elsewhere: then the library goes on without.
 */
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <nccl.h>
#include <unistd.h>

#include "tests/standin/nccl_group.h"
#include "tests/standin/standin.h"

struct ncclWindow_vidmem {
    const uint8_t *memory;
};

using action_t = std::function<ncclResult_t()>;

struct ncclComm {
    std::shared_ptr<standin::group_t> group;
    bool                              finalized;
    bool                              sockets; /* what is pending talks through them */
    const char                       *name;    /* the caller's, which the library does not copy */
    std::string                       name_then;
    int                               collectives;
    action_t                          pending; /* what was answered with ncclInProgress */
    const char                       *pending_call;
    ncclResult_t                      error;
    std::set<ncclWindow_t>            windows;
    std::minstd_rand                  random;

    ~ncclComm();
};

namespace {

using standin::coll_t;
using standin::complain;

/* Guards what is below and all communicators; work of streams runs without it. */
std::mutex                        lock;
std::set<ncclComm_t>              comms;
std::map<const uint8_t *, size_t> allocations; /* of ncclMemAlloc */
char                              last_error[512];

/* Of the calling thread's ncclGroupStart: how deep, and what is to be aborted at its end. */
thread_local int                     group_depth;
thread_local std::vector<ncclComm_t> to_abort;

typedef std::lock_guard<std::mutex> guard_t;

ncclResult_t refuse(ncclResult_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));

ncclResult_t refuse(ncclResult_t result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof(last_error), format, args);
    va_end(args);
    complain("nccl: %s", last_error);
    return result;
}

/* The state of a communicator: drives what is pending, and looks for peers that are gone. An error stays. */
ncclResult_t advance(ncclComm_t comm)
{
    ncclResult_t result = ncclSuccess;
    int          peer;
    if (comm->error == ncclSuccess && (comm->error = comm->group->error.load()) != ncclSuccess) {
        snprintf(last_error, sizeof(last_error), "%s", comm->group->message);
    }
    if (comm->error == ncclSuccess && comm->pending && (result = comm->pending()) != ncclInProgress) {
        comm->pending = nullptr;
        comm->sockets = false;
        comm->error   = result;
    }
    bool hears = comm->sockets || !comm->group->one_host();
    if (comm->error == ncclSuccess && hears && !comm->finalized &&
        (peer = comm->group->lost()) >= 0) {
        snprintf(last_error, sizeof(last_error), "the process of rank %d has ended", peer);
        comm->error = ncclRemoteError;
    }
    return comm->error != ncclSuccess ? comm->error : result;
}

/* Leaves what a call asks for to those who ask for the state. */
ncclResult_t defer(ncclComm_t comm, const char *call, action_t action)
{
    comm->pending      = action;
    comm->pending_call = call;
    return ncclInProgress;
}

/*
 * The library would wait until graphs have given all collectives of the communicator back. Streams
 * go on meanwhile.
 */
void await_graphs(ncclComm_t comm, const char *call)
{
    enum { PATIENCE = 20000, NAP_US = 100 };
    for (int nap = 0; comm->group->captured() > 0 && standin::go_on_a_little(); nap++) {
        if (nap == PATIENCE) {
            complain("nccl: %s would never return: graphs hold %ld collectives of the communicator",
                     call, comm->group->captured());
            _exit(97);
        }
        usleep(NAP_US);
    }
}

/* All of them have been abandoned before. */
void bury(const std::vector<ncclComm_t> &aborted)
{
    for (ncclComm_t comm : aborted) {
        await_graphs(comm, "ncclCommAbort");
        comms.erase(comm);
        delete comm;
    }
}

/* Whether a call may use the communicator now. */
ncclResult_t usable(ncclComm_t comm, const char *call)
{
    if (comms.count(comm) == 0) {
        return refuse(ncclInvalidArgument, "%s: no communicator, or one that was destroyed", call);
    }
    if (comm->name != nullptr && comm->name_then != comm->name) {
        return refuse(ncclInvalidArgument, "%s: the communicator's name is no longer what it was: "
                      "the library has kept its address", call);
    }
    if (group_depth > 0) {
        return refuse(ncclInvalidUsage, "%s in a group has no stand-in", call);
    }
    if (comm->pending) {
        return refuse(ncclInvalidArgument, "%s: the communicator is still in %s: its state must become ncclSuccess first", call,
                      comm->pending_call);
    }
    if (comm->finalized) {
        return refuse(ncclInvalidArgument, "%s: the communicator is finalized", call);
    }
    return advance(comm);
}

/* ---- making a communicator ---- */

bool in_range(const char *name, int value, int low, int high)
{
    return value == NCCL_CONFIG_UNDEF_INT || (value >= low && value <= high) ||
           (refuse(ncclInvalidArgument, "ncclConfig_t: %s is %d, and may be %d to %d", name, value, low, high), false);
}

bool config_fits(const ncclConfig_t *pointer)
{
    if (pointer == nullptr || pointer->blocking != 0) {
        return refuse(ncclInvalidArgument, "a communicator that blocks has no stand-in"), false;
    }
    const ncclConfig_t &config = *pointer;
    if (config.size != sizeof(ncclConfig_t) || config.magic != 0xcafebeef || config.version != NCCL_VERSION_CODE) {
        return refuse(ncclInvalidArgument, "the ncclConfig_t was not initialized"), false;
    }
    if (config.minCTAs != NCCL_CONFIG_UNDEF_INT && config.maxCTAs != NCCL_CONFIG_UNDEF_INT && config.minCTAs > config.maxCTAs) {
        return refuse(ncclInvalidArgument, "ncclConfig_t: minCTAs is %d, maxCTAs %d", config.minCTAs, config.maxCTAs), false;
    }
    return in_range("cgaClusterSize", config.cgaClusterSize, 0, 8) &&
           in_range("minCTAs", config.minCTAs, 1, 32) && in_range("maxCTAs", config.maxCTAs, 1, 32) &&
           in_range("splitShare", config.splitShare, 0, 1) &&
           in_range("CTAPolicy", config.CTAPolicy, NCCL_CTA_POLICY_DEFAULT, NCCL_CTA_POLICY_ZERO);
}

/* The host that a rank says it is on. */
uint64_t host_hash()
{
    char        name[256] = "";
    const char *posed     = getenv("NCCL_HOSTID");
    gethostname(name, sizeof(name) - 1);
    return std::hash<std::string>()(posed != nullptr && posed[0] != '\0' ? posed : name);
}

ncclResult_t await_ranks(ncclComm_t comm)
{
    standin::group_t &group = *comm->group;
    if (!group.all_came()) {
        return ncclInProgress;
    }
    int twin = group.twin();
    if (twin >= 0) {
        return refuse(ncclInvalidUsage, "Duplicate GPU detected : rank %d and rank %d are on the same device", group.rank, twin);
    }
    return ncclSuccess;
}

/* ---- collectives ---- */

bool overlap(const uint8_t *x, size_t x_nbytes, const uint8_t *y, size_t y_nbytes)
{
    return x < y + y_nbytes && y < x + x_nbytes;
}

/* In place is what nccl.h says it is for each; any other overlap is none. */
bool overlap_allowed(const coll_t &coll, int rank, int size)
{
    size_t send_nbytes = coll_send_nbytes(coll, size), recv_nbytes = coll_recv_nbytes(coll, size);
    switch (coll.kind) {
    case standin::ALL_GATHER: return coll.send == coll.recv + size_t(rank) * send_nbytes;
    case standin::REDUCE_SCATTER: return coll.recv == coll.send + size_t(rank) * recv_nbytes;
    default: return coll.send == coll.recv;
    }
}

ncclResult_t check_coll(const char *call, const coll_t &coll, int rank, int size)
{
    size_t send_nbytes = coll_send_nbytes(coll, size), recv_nbytes = coll_recv_nbytes(coll, size);
    if (standin::nccl_type_nbytes(coll.type) == 0) {
        return refuse(ncclInvalidArgument, "%s: data type %d has no stand-in", call, int(coll.type));
    }
    if (!standin::is_device(coll.send, send_nbytes)) {
        return refuse(ncclInvalidArgument, "%s: sends %zu bytes at %p, which are not in one allocation of device memory", call, send_nbytes,
                      (const void *)coll.send);
    }
    if (!standin::is_device(coll.recv, recv_nbytes)) {
        return refuse(ncclInvalidArgument, "%s: receives %zu bytes at %p, which are not in one allocation of device memory", call, recv_nbytes,
                      (const void *)coll.recv);
    }
    if (overlap(coll.send, send_nbytes, coll.recv, recv_nbytes) && !overlap_allowed(coll, rank, size)) {
        return refuse(ncclInvalidArgument, "%s: what it sends and what it receives overlap, and not as in place", call);
    }
    return ncclSuccess;
}

/* Enqueues now, or when the state is asked for the second time: at first use, and one time in eight after that. */
ncclResult_t launch(ncclComm_t comm, const char *call, cudaStream_t stream, coll_t coll)
{
    guard_t      guard(lock);
    ncclResult_t result = usable(comm, call);
    if (result != ncclSuccess) {
        return result;
    }
    std::shared_ptr<standin::group_t> group = comm->group;
    result                                  = check_coll(call, coll, group->rank, group->size);
    if (result != ncclSuccess || coll.count == 0) {
        return result;
    }
    action_t enqueue = [=] {
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        standin::run_t          run;
        run.group = group;
        run.coll  = coll;
        if (cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
            status == cudaStreamCaptureStatusActive) {
            run.held = group->capture();
        }
        return standin::enqueue(stream, call, run) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
    };
    if (comm->collectives++ > 0 && comm->random() % 8 != 0) {
        return enqueue();
    }
    int polls = 1;
    return defer(comm, call, [=]() mutable { return polls-- > 0 ? ncclInProgress : enqueue(); });
}

coll_t make_coll(standin::coll_kind_t kind, ncclDataType_t type, size_t count, const void *send, void *recv)
{
    return {kind, type, count, static_cast<const uint8_t *>(send), static_cast<uint8_t *>(recv)};
}

/* ---- windows ---- */

/*
 * unregistered=RANK:N: whether the window that this process registers now, counted over all its
 * communicators, cannot be.
 */
bool unregistered(int rank)
{
    static int  registered = 0;
    std::string text       = standin::setting_text("unregistered", "");
    int         who = -1, number = 0, count = ++registered;
    return sscanf(text.c_str(), "%d:%d", &who, &number) == 2 && who == rank && number == count;
}

/* The allocation of ncclMemAlloc that holds this, or the end of the list. */
std::map<const uint8_t *, size_t>::const_iterator find_allocation(const uint8_t *memory, size_t nbytes)
{
    auto after = allocations.upper_bound(memory);
    if (after == allocations.begin()) {
        return allocations.end();
    }
    auto found = std::prev(after);
    return memory + nbytes <= found->first + found->second ? found : allocations.end();
}

} // namespace

ncclComm::~ncclComm()
{
    for (ncclWindow_t window : windows) {
        delete window;
    }
}

/* ---- the library ---- */

extern "C" {

ncclResult_t ncclGetVersion(int *version_p)
{
    *version_p = NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument",
                                        "invalid usage", "remote process exited or there was a network error", "NCCL operation in progress"};
    return result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_error;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id_p)
{
    guard_t guard(lock);
    return standin::nccl_id_make(id_p) ? ncclSuccess : refuse(ncclSystemError, "ncclGetUniqueId: %s", strerror(errno));
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm_p, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    guard_t guard(lock);
    int     device = 0;
    if (comm_p == nullptr || size < 1 || size > standin::MAX_RANKS || rank < 0 || rank >= size) {
        return refuse(ncclInvalidArgument, "ncclCommInitRankConfig: rank %d of %d", rank, size);
    }
    if (!config_fits(config)) {
        return ncclInvalidArgument;
    }
    if (cudaGetDevice(&device) != cudaSuccess) {
        return refuse(ncclUnhandledCudaError, "ncclCommInitRankConfig: there is no device");
    }
    int                               fd    = standin::nccl_id_open(id);
    std::shared_ptr<standin::group_t> group = fd >= 0 ? standin::nccl_join(fd, size, rank, device, host_hash()) : nullptr;
    if (group == nullptr) {
        return fd < 0 ? ncclRemoteError : ncclInvalidUsage;
    }
    ncclComm_t comm = new ncclComm();
    comm->group     = group;
    comm->name      = config->commName;
    comm->name_then = config->commName != nullptr ? config->commName : "";
    comm->random.seed(unsigned(standin::setting("seed", 1)) + unsigned(rank));
    comms.insert(comm);
    *comm_p = comm;
    /* The last words are those of NCCL's allocator: CUDA's are gone by then. */
    if (!standin::take("comm_takes")) {
        return defer(comm, "ncclCommInitRankConfig", [] {
            return refuse(ncclUnhandledCudaError, "Failed to CUDA calloc %zu bytes",
                          size_t(standin::setting("comm_takes", 0)));
        });
    }
    comm->sockets = true;
    return defer(comm, "ncclCommInitRankConfig", [comm] { return await_ranks(comm); });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state_p)
{
    guard_t guard(lock);
    if (comms.count(comm) == 0) {
        return refuse(ncclInvalidArgument, "ncclCommGetAsyncError: no communicator, or one that was destroyed");
    }
    *state_p = advance(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    guard_t      guard(lock);
    ncclResult_t result = usable(comm, "ncclCommFinalize");
    if (result != ncclSuccess) {
        return result;
    }
    await_graphs(comm, "ncclCommFinalize");
    return defer(comm, "ncclCommFinalize", [comm] {
        if (comm->group->busy.load()) {
            return ncclInProgress;
        }
        comm->group->leave();
        comm->finalized = comm->group->all_left();
        return comm->finalized ? ncclSuccess : ncclInProgress;
    });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    guard_t guard(lock);
    if (comms.count(comm) == 0 || comm->pending) {
        return refuse(ncclInvalidArgument, "ncclCommDestroy: no communicator, or one that is still in %s",
                      comms.count(comm) == 0 ? "nothing" : comm->pending_call);
    }
    await_graphs(comm, "ncclCommDestroy");
    comm->group->leave();
    comms.erase(comm);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    guard_t guard(lock);
    if (comms.count(comm) == 0) {
        return refuse(ncclInvalidArgument, "ncclCommAbort: no communicator, or one that was destroyed");
    }
    comm->group->abandon();
    if (group_depth > 0) {
        to_abort.push_back(comm);
    } else {
        bury({comm});
    }
    return ncclSuccess;
}

ncclResult_t ncclGroupStart()
{
    group_depth++;
    return ncclSuccess;
}

/* Of what can be in a group, aborts alone have a stand-in. */
ncclResult_t ncclGroupEnd()
{
    guard_t                 guard(lock);
    std::vector<ncclComm_t> aborted;
    if (group_depth == 0) {
        return refuse(ncclInvalidUsage, "ncclGroupEnd: not in a group");
    }
    if (--group_depth == 0) {
        aborted.swap(to_abort);
        bury(aborted);
    }
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream)
{
    return launch(comm, "ncclAllGather", stream, make_coll(standin::ALL_GATHER, type, count, send, recv));
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream)
{
    return op == ncclSum ? launch(comm, "ncclReduceScatter", stream, make_coll(standin::REDUCE_SCATTER, type, count, send, recv))
                         : refuse(ncclInvalidArgument, "ncclReduceScatter: operation %d has no stand-in", int(op));
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
    return op == ncclSum ? launch(comm, "ncclAllReduce", stream, make_coll(standin::ALL_REDUCE, type, count, send, recv))
                         : refuse(ncclInvalidArgument, "ncclAllReduce: operation %d has no stand-in", int(op));
}

/* As large as asked for, though the library rounds up: then an overrun is found. Its allocations leave no error to cudaGetLastError. */
ncclResult_t ncclMemAlloc(void **memory_p, size_t nbytes)
{
    guard_t guard(lock);
    void   *memory = nullptr;
    if (cudaMalloc(&memory, nbytes) != cudaSuccess) {
        snprintf(last_error, sizeof(last_error), "ncclMemAlloc: no %zu bytes of device memory", nbytes);
        cudaGetLastError();
        return ncclUnhandledCudaError;
    }
    allocations[static_cast<uint8_t *>(memory)] = nbytes;
    *memory_p                                   = memory;
    return ncclSuccess;
}

ncclResult_t ncclMemFree(void *memory)
{
    guard_t guard(lock);
    auto    found = allocations.find(static_cast<uint8_t *>(memory));
    if (memory == nullptr) {
        return ncclSuccess;
    }
    if (found == allocations.end()) {
        return refuse(ncclInvalidArgument, "ncclMemFree: %p is not of ncclMemAlloc", memory);
    }
    for (ncclComm_t comm : comms) {
        for (ncclWindow_t window : comm->windows) {
            if (overlap(window->memory, 1, found->first, found->second)) {
                return refuse(ncclInvalidUsage, "ncclMemFree: a window lies in %p", memory);
            }
        }
    }
    allocations.erase(found);
    return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *memory, size_t nbytes, ncclWindow_t *window_p, int flags)
{
    guard_t        guard(lock);
    const uint8_t *start_address = static_cast<const uint8_t *>(memory);
    auto           allocation    = find_allocation(start_address, nbytes);
    ncclResult_t   result        = usable(comm, "ncclCommWindowRegister");
    if (result != ncclSuccess) {
        return result;
    }
    if (allocation == allocations.end() || uintptr_t(memory) % NCCL_WIN_REQUIRED_ALIGNMENT != 0) {
        return refuse(ncclInvalidArgument, "ncclCommWindowRegister: %zu bytes at %p are not of ncclMemAlloc, or not aligned", nbytes, memory);
    }
    if (unregistered(comm->group->rank)) {
        return defer(comm, "ncclCommWindowRegister", [] {
            return refuse(ncclUnhandledCudaError, "a window cannot be registered here");
        });
    }
    standin::window_t wanted = {size_t(start_address - allocation->first), nbytes, flags};
    *window_p                = nullptr;
    comm->sockets            = true;
    return defer(comm, "ncclCommWindowRegister", [=] {
        ncclResult_t agreed = comm->group->agree_on_window(wanted);
        if (agreed == ncclSuccess && comm->group->one_host()) {
            *window_p = new ncclWindow_vidmem{start_address};
            comm->windows.insert(*window_p);
        }
        return agreed;
    });
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window)
{
    guard_t      guard(lock);
    ncclResult_t result = usable(comm, "ncclCommWindowDeregister");
    if (result != ncclSuccess || window == nullptr) {
        return result;
    }
    if (comm->windows.erase(window) == 0) {
        return refuse(ncclInvalidArgument, "ncclCommWindowDeregister: not a window of this communicator");
    }
    delete window;
    return ncclSuccess;
}

} /* extern "C" */
