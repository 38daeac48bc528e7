/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kernels on streams. A launch's arguments are looked through for addresses of the host's ordinary memory, which a kernel cannot read: here
 * it could, and nobody would notice.
 */
#include <cstring>
#include <sys/mman.h>

#include "tests/standin/machine.h"

/* As in kernels/cuda/emulate.h, which cannot stand beside CUDA's headers. */
void shoal_emulated_enqueue(cudaStream_t stream, const char *kernel, const void *const *arguments, const size_t *nbytes, size_t narguments,
                            std::function<void()> launch);

using namespace standin;

static uint64_t nkernels; /* that have run */

/* Whether a word is an address of this process that no kernel may use. The system knows what is an address. */
static bool is_host_address(uint64_t word)
{
    const uint64_t page = 4096, end = (uint64_t)1 << 47;
    if (word < 16 * page || word >= end || is_device((const void *)word, 1) || is_pinned((const void *)word, 1)) {
        return false;
    }
    return of_device((const void *)word) || msync((void *)(word / page * page), page, MS_ASYNC) == 0;
}

static bool check_argument(const char *kernel, size_t index, const void *argument, size_t nbytes)
{
    for (size_t at = 0; at + sizeof(uint64_t) <= nbytes; at += sizeof(uint64_t)) {
        uint64_t word;
        std::memcpy(&word, (const char *)argument + at, sizeof(word));
        if (is_host_address(word)) {
            return complain("%s: argument %zu, byte %zu: %p is no memory that a kernel may use", kernel, index, at, (void *)word);
        }
    }
    return true;
}

static bool run_kernel(const std::function<void()> &launch)
{
    if (++nkernels == setting("fault", 0)) {
        break_device(cudaErrorIllegalAddress);
        return true;
    }
    launch();
    return true;
}

void shoal_emulated_enqueue(cudaStream_t stream, const char *kernel, const void *const *arguments, const size_t *nbytes, size_t narguments,
                            std::function<void()> launch)
{
    bool fine = true;
    for (size_t i = 0; i < narguments; i++) {
        fine = check_argument(kernel, i, arguments[i], nbytes[i]) && fine;
    }
    enqueue(stream, kernel, [=] {
        if (!fine) {
            break_device(cudaErrorIllegalAddress);
            return true;
        }
        return run_kernel(launch);
    });
}
