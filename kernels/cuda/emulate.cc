/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The scheduler behind emulate.h. A coroutine is entered once with makecontext, and from then on with _setjmp and _longjmp, which
 * cost no system call; it serves one thread of every block to come.
 */
#include "kernels/cuda/emulate.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ucontext.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

enum class state_t { ready, at_block_barrier, at_warp_barrier, done };

constexpr size_t   stack_nbytes = 128 * 1024;
constexpr unsigned warp_size    = 32;

struct coroutine_t {
    std::unique_ptr<char[]> stack{new char[stack_nbytes]};
    ucontext_t              context;
    jmp_buf                 resume;
    bool                    entered = false;
    state_t                 state   = state_t::done;
    dim3                    index;
    unsigned                parity = 0;
    uint64_t                left[2]; /* for the warp to take */
};

std::vector<std::unique_ptr<coroutine_t>> threads;
unsigned                     nthreads, current;
jmp_buf                      scheduler;
const std::function<void()> *kernel;
std::vector<double>          shared_memory;
bool                         reversed;

[[noreturn]] void fail(const char *what)
{
    std::fprintf(stderr, "emulated launch: %s, block (%u,%u,%u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
    std::abort();
}

void yield(state_t state)
{
    coroutine_t *self = threads[current].get();
    self->state       = state;
    if (_setjmp(self->resume) == 0) {
        _longjmp(scheduler, 1);
    }
}

void body()
{
    for (;;) {
        (*kernel)();
        yield(state_t::done);
    }
}

void resume(unsigned t)
{
    coroutine_t *thread = threads[t].get();
    current             = t;
    threadIdx           = thread->index;
    if (_setjmp(scheduler) != 0) {
        return;
    }
    if (thread->entered) {
        _longjmp(thread->resume, 1);
    }
    thread->entered = true;
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp   = thread->stack.get();
    thread->context.uc_stack.ss_size = stack_nbytes;
    makecontext(&thread->context, body, 0);
    setcontext(&thread->context);
}

/* Threads first .. last - 1 all wait at `state`, but for those that have ended: lets them go on. */
bool release(unsigned first, unsigned last, state_t state)
{
    bool any = false;
    for (unsigned t = first; t < last; t++) {
        if (threads[t]->state != state && threads[t]->state != state_t::done) {
            return false;
        }
        any |= threads[t]->state == state;
    }
    for (unsigned t = first; any && t < last; t++) {
        if (threads[t]->state == state) {
            threads[t]->state = state_t::ready;
        }
    }
    return any;
}

void run_ready(unsigned first, unsigned last)
{
    for (unsigned i = first; i < last; i++) {
        unsigned t = reversed ? last - 1 - (i - first) : i;
        if (threads[t]->state == state_t::ready) {
            resume(t);
        }
    }
}

void run_warp(unsigned first, unsigned last)
{
    do {
        run_ready(first, last);
    } while (release(first, last, state_t::at_warp_barrier));
}

void run_block()
{
    for (double &x : shared_memory) {
        std::memset(&x, 0xff, sizeof(x)); /* NaN, as double, float and bf16 */
    }
    for (unsigned t = 0; t < nthreads; t++) {
        threads[t]->state = state_t::ready;
    }
    do {
        unsigned warps = (nthreads + warp_size - 1) / warp_size;
        for (unsigned i = 0; i < warps; i++) {
            unsigned first = (reversed ? warps - 1 - i : i) * warp_size;
            run_warp(first, first + warp_size < nthreads ? first + warp_size : nthreads);
        }
    } while (release(0, nthreads, state_t::at_block_barrier));
    for (unsigned t = 0; t < nthreads; t++) {
        if (threads[t]->state != state_t::done) {
            fail("threads wait in different places");
        }
    }
}

void prepare(dim3 block)
{
    nthreads = block.x * block.y * block.z;
    while (threads.size() < nthreads) {
        threads.emplace_back(new coroutine_t);
    }
    unsigned t = 0;
    for (unsigned z = 0; z < block.z; z++) {
        for (unsigned y = 0; y < block.y; y++) {
            for (unsigned x = 0; x < block.x; x++) {
                threads[t++]->index = dim3(x, y, z);
            }
        }
    }
}

} // namespace

void shoal_emulated_launch(dim3 grid, dim3 block, size_t shared_nbytes, const std::function<void()> &launched)
{
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    if (blocks == 0 || block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024 || grid.y > 65535 || grid.z > 65535 ||
        shared_nbytes > 227 * 1024) {
        fail("no GPU would take this launch");
    }
    prepare(block);
    blockDim = block;
    gridDim  = grid;
    kernel   = &launched;
    shared_memory.resize((shared_nbytes + sizeof(double) - 1) / sizeof(double) + 2);
    for (size_t i = 0; i < blocks; i++) {
        size_t b = reversed ? blocks - 1 - i : i;
        blockIdx = dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
        run_block();
    }
    reversed = !reversed;
}

void *shoal_emulated_shared()
{
    return (void *)(((uintptr_t)shared_memory.data() + 15) / 16 * 16);
}

void __syncthreads()
{
    yield(state_t::at_block_barrier);
}

void __syncwarp(unsigned)
{
    yield(state_t::at_warp_barrier);
}

int shoal_emulated_lane()
{
    return (int)(current % warp_size);
}

/* Two places, used in turn: a lane comes back to the first only after all lanes have met at the second, so all have read the first. */
uint64_t shoal_emulated_exchange(uint64_t bits, int source)
{
    coroutine_t *self   = threads[current].get();
    unsigned     parity = self->parity;
    unsigned     from   = current / warp_size * warp_size + (unsigned)source % warp_size;
    self->left[parity]  = bits;
    self->parity        = 1 - parity;
    yield(state_t::at_warp_barrier);
    if (from >= nthreads) {
        fail("a shuffle reads a lane that does not exist");
    }
    return threads[from]->left[parity];
}
