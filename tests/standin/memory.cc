/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory of the devices, one range of addresses that only work of a stream finds open, and page-locked memory of the host. Device memory
 * is bounded as SHOAL_STANDIN says and starts as NaN, whatever its type, each time that it is allocated.
 */
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/standin/machine.h"

namespace standin {

namespace {

constexpr size_t alignment = 256; /* CUDA's promise, and no more */

using ranges_t = std::map<uintptr_t, size_t>; /* by first address */

ranges_t         allocated, pinned, registered;
uintptr_t        arena;
size_t           arena_nbytes;
bool             is_open;
size_t           allocations;
struct sigaction sigsegv_before;

size_t device_nbytes()
{
    return setting("memory", usual_device_nbytes) / alignment * alignment;
}

bool within(const ranges_t &ranges, const void *memory, size_t nbytes)
{
    auto next = ranges.upper_bound((uintptr_t)memory);
    if (next == ranges.begin()) {
        return false;
    }
    auto range = std::prev(next);
    return (uintptr_t)memory - range->first <= range->second && nbytes <= range->second - ((uintptr_t)memory - range->first);
}

/* Says what the crash is, and lets it happen. */
void explain_fault(int, siginfo_t *info, void *)
{
    static const char text[] = "stand-in: the host touches device memory\n";
    if (of_device(info->si_addr) && write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        _exit(1);
    }
    sigaction(SIGSEGV, &sigsegv_before, nullptr);
}

/* The addresses; pages come with their first use. */
void reserve_arena()
{
    struct sigaction action = {};
    arena_nbytes            = setting("devices", 1) * device_nbytes();
    void *memory            = mmap(nullptr, arena_nbytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        complain("cannot reserve %zu bytes of addresses", arena_nbytes);
        std::abort();
    }
    arena               = (uintptr_t)memory;
    action.sa_sigaction = explain_fault;
    action.sa_flags     = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &sigsegv_before);
}

uintptr_t first_of(int device)
{
    return arena + (size_t)device * device_nbytes();
}

/* The first gap that is large enough, or 0. */
uintptr_t find_gap(int device, size_t nbytes)
{
    uintptr_t at = first_of(device), end = at + device_nbytes();
    for (auto range = allocated.lower_bound(at); range != allocated.end() && range->first < end; ++range) {
        if (range->first - at >= nbytes) {
            return at;
        }
        at = (range->first + range->second + alignment - 1) / alignment * alignment;
    }
    return at <= end && end - at >= nbytes ? at : 0;
}

size_t used_nbytes(int device)
{
    size_t used = 0;
    for (auto range = allocated.lower_bound(first_of(device)); range != allocated.end() && range->first < first_of(device + 1); ++range) {
        used += (range->second + alignment - 1) / alignment * alignment;
    }
    return used;
}

} // namespace

bool of_device(const void *address)
{
    return arena_nbytes > 0 && (uintptr_t)address - arena < arena_nbytes;
}

bool is_device(const void *memory, size_t nbytes)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return within(allocated, memory, nbytes);
}

bool is_pinned(const void *memory, size_t nbytes)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return within(pinned, memory, nbytes) || within(registered, memory, nbytes);
}

void open_memory(bool open)
{
    if (arena_nbytes > 0 && open != is_open && mprotect((void *)arena, arena_nbytes, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
        complain("mprotect of device memory: %s", std::strerror(errno));
        std::abort();
    }
    is_open = open;
}

bool take(const char *name)
{
    void  *memory;
    size_t nbytes = setting(name, 0);
    return nbytes == 0 || cudaMalloc(&memory, nbytes) == cudaSuccess;
}

} // namespace standin

using namespace standin;

size_t shoal_standin_allocations()
{
    return allocations;
}

cudaError_t cudaMalloc(void **memory_p, size_t nbytes)
{
    return unsafe_call("cudaMalloc", [&] {
        allocations++;
        if (arena_nbytes == 0) {
            reserve_arena();
        }
        uintptr_t memory = nbytes > 0 ? find_gap(current_device(), nbytes) : 0;
        if (memory == 0) {
            return nbytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
        }
        allocated[memory] = nbytes;
        bool was_open     = is_open;
        open_memory(true);
        std::memset((void *)memory, 0xff, nbytes);
        open_memory(was_open);
        *memory_p = (void *)memory;
        return cudaSuccess;
    });
}

/* As CUDA's, it waits for the device: work under way may use the memory. */
cudaError_t cudaFree(void *memory)
{
    return unsafe_call("cudaFree", [&] {
        if (memory == nullptr) {
            return cudaSuccess;
        }
        if (allocated.count((uintptr_t)memory) == 0) {
            return refuse(cudaErrorInvalidValue, "cudaFree: %p is no allocation of device memory", memory);
        }
        cudaError_t error = drain_all();
        allocated.erase((uintptr_t)memory);
        return error;
    });
}

cudaError_t cudaMemGetInfo(size_t *free_p, size_t *total_p)
{
    return call([&] {
        *total_p = device_nbytes();
        *free_p  = device_nbytes() - used_nbytes(current_device());
        return cudaSuccess;
    });
}

/* ---- page-locked ---- */

cudaError_t cudaHostAlloc(void **memory_p, size_t nbytes, unsigned)
{
    return unsafe_call("cudaHostAlloc", [&] {
        allocations++;
        const size_t page   = 4096;
        void        *memory = std::aligned_alloc(page, (nbytes + page - 1) / page * page);
        if (memory == nullptr) {
            return cudaErrorMemoryAllocation;
        }
        std::memset(memory, 0xff, nbytes);
        pinned[(uintptr_t)memory] = nbytes;
        *memory_p                 = memory;
        return cudaSuccess;
    });
}

cudaError_t cudaMallocHost(void **memory_p, size_t nbytes)
{
    return cudaHostAlloc(memory_p, nbytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory)
{
    return unsafe_call("cudaFreeHost", [&] {
        if (memory == nullptr) {
            return cudaSuccess;
        }
        if (pinned.count((uintptr_t)memory) == 0) {
            return refuse(cudaErrorInvalidValue, "cudaFreeHost: %p is no allocation of page-locked memory", memory);
        }
        cudaError_t error = drain_all();
        pinned.erase((uintptr_t)memory);
        std::free(memory);
        return error;
    });
}

cudaError_t cudaHostRegister(void *memory, size_t nbytes, unsigned)
{
    return unsafe_call("cudaHostRegister", [&] {
        if (memory == nullptr || nbytes == 0 || of_device(memory)) {
            return refuse(cudaErrorInvalidValue, "cudaHostRegister: %p, %zu bytes", memory, nbytes);
        }
        if (is_pinned(memory, 1) || is_pinned((char *)memory + nbytes - 1, 1)) {
            return cudaErrorHostMemoryAlreadyRegistered;
        }
        registered[(uintptr_t)memory] = nbytes;
        return cudaSuccess;
    });
}

cudaError_t cudaHostUnregister(void *memory)
{
    return unsafe_call("cudaHostUnregister", [&] {
        if (registered.count((uintptr_t)memory) == 0) {
            return cudaErrorHostMemoryNotRegistered;
        }
        cudaError_t error = drain_all();
        registered.erase((uintptr_t)memory);
        return error;
    });
}

cudaError_t cudaHostGetDevicePointer(void **device_p, void *memory, unsigned flags)
{
    return call([&] {
        if (flags != 0 || !is_pinned(memory, 1)) {
            return refuse(cudaErrorInvalidValue, "cudaHostGetDevicePointer: %p is not page-locked", memory);
        }
        *device_p = memory;
        return cudaSuccess;
    });
}
