/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies, fills, functions of the host and words of memory on streams. A copy between the device and pageable memory is not asynchronous for
 * the host: what it reads there is taken at the call, and what it writes there is written when the call returns.
 */
#include <atomic>
#include <cstring>

#include <cuda.h>

#include "tests/standin/machine.h"

using namespace standin;

/* Rows of `width` bytes. */
struct copy_t {
    char         *to;
    const char   *from;
    size_t        to_pitch, from_pitch, width, height;
    cudaMemcpyKind kind;
};

static size_t extent(const copy_t &copy, size_t pitch)
{
    return (copy.height - 1) * pitch + copy.width;
}

/* Whether one side is what the kind of copy says. */
static bool check_side(const char *name, const char *side, const void *memory, size_t nbytes, bool device)
{
    if (device && !is_device(memory, nbytes)) {
        return complain("%s: %s %p, %zu bytes, is not within an allocation of device memory", name, side, memory, nbytes);
    }
    return device || !of_device(memory) ? true : complain("%s: %s %p is device memory", name, side, memory);
}

static cudaError_t check_copy(const char *name, copy_t *copy)
{
    if (copy->kind == cudaMemcpyDefault) {
        bool to = of_device(copy->to), from = of_device(copy->from);
        copy->kind = to ? (from ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : from ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
    }
    bool to_device   = copy->kind == cudaMemcpyHostToDevice || copy->kind == cudaMemcpyDeviceToDevice;
    bool from_device = copy->kind == cudaMemcpyDeviceToHost || copy->kind == cudaMemcpyDeviceToDevice;
    bool fine        = copy->width <= copy->to_pitch && copy->width <= copy->from_pitch;
    fine             = (fine || complain("%s: rows of %zu bytes are longer than their pitch", name, copy->width)) &&
           check_side(name, "destination", copy->to, extent(*copy, copy->to_pitch), to_device) &&
           check_side(name, "source", copy->from, extent(*copy, copy->from_pitch), from_device);
    return fine ? cudaSuccess : cudaErrorInvalidValue;
}

static void carry_out(const copy_t &copy)
{
    for (size_t row = 0; row < copy.height; row++) {
        std::memmove(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.width);
    }
}

/* From pageable memory: what stands there now. */
static cudaError_t enqueue_taken(const char *name, copy_t copy, cudaStream_t stream)
{
    auto   taken = std::make_shared<std::vector<char>>(copy.width * copy.height);
    copy_t take  = copy;
    take.to      = taken->data();
    take.to_pitch = copy.width;
    carry_out(take);
    copy.from       = taken->data();
    copy.from_pitch = copy.width;
    return enqueue(stream, name, [=] {
        carry_out(copy);
        (void)taken;
        return true;
    });
}

static cudaError_t enqueue_copy(const char *name, copy_t copy, cudaStream_t handle)
{
    CUstream_st *stream = find_stream(handle);
    if (stream == nullptr) {
        return cudaErrorInvalidResourceHandle;
    }
    if (copy.width == 0 || copy.height == 0) {
        return cudaSuccess;
    }
    cudaError_t error = check_copy(name, &copy);
    if (error != cudaSuccess) {
        return error;
    }
    bool takes  = copy.kind == cudaMemcpyHostToDevice && !is_pinned(copy.from, extent(copy, copy.from_pitch));
    bool leaves = copy.kind == cudaMemcpyDeviceToHost && !is_pinned(copy.to, extent(copy, copy.to_pitch));
    if ((takes || leaves || copy.kind == cudaMemcpyHostToHost) && stream->capture != nullptr) {
        invalidate(stream->capture);
        return refuse(cudaErrorStreamCaptureUnsupported, "%s: pageable memory in a capture", name);
    }
    if (takes) {
        return enqueue_taken(name, copy, handle);
    }
    error = enqueue(handle, name, [=] {
        carry_out(copy);
        return true;
    });
    return error == cudaSuccess && (leaves || copy.kind == cudaMemcpyHostToHost) ? drain(stream) : error;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t nbytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return call([&] { return enqueue_copy("cudaMemcpyAsync", {(char *)to, (const char *)from, nbytes, nbytes, nbytes, 1, kind}, stream); });
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    return call([&] {
        return enqueue_copy("cudaMemcpy2DAsync", {(char *)to, (const char *)from, to_pitch, from_pitch, width, height, kind}, stream);
    });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t nbytes, cudaMemcpyKind kind)
{
    return unsafe_call("cudaMemcpy", [&] {
        cudaError_t error = enqueue_copy("cudaMemcpy", {(char *)to, (const char *)from, nbytes, nbytes, nbytes, 1, kind}, nullptr);
        return error == cudaSuccess ? drain(find_stream(nullptr)) : error;
    });
}

/* ---- fills ---- */

static cudaError_t enqueue_fill(const char *name, void *memory, int value, size_t nbytes, cudaStream_t stream)
{
    if (nbytes > 0 && !is_device(memory, nbytes)) {
        return refuse(cudaErrorInvalidValue, "%s: %p, %zu bytes, is not within an allocation of device memory", name, memory, nbytes);
    }
    return enqueue(stream, name, [=] {
        std::memset(memory, value, nbytes);
        return true;
    });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t nbytes, cudaStream_t stream)
{
    return call([&] { return enqueue_fill("cudaMemsetAsync", memory, value, nbytes, stream); });
}

cudaError_t cudaMemset(void *memory, int value, size_t nbytes)
{
    return unsafe_call("cudaMemset", [&] { return enqueue_fill("cudaMemset", memory, value, nbytes, nullptr); });
}

/* ---- the host's part in a stream ---- */

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument)
{
    return enqueue(stream, "cudaLaunchHostFunc", [=] {
        open_memory(false);
        function(argument);
        open_memory(true);
        return true;
    });
}

static CUresult enqueue_word(CUstream stream, const char *name, CUdeviceptr address, work_t work)
{
    const void *word = (const void *)address;
    if (address % sizeof(uint32_t) != 0 || !(is_device(word, sizeof(uint32_t)) || is_pinned(word, sizeof(uint32_t)))) {
        complain("%s: %p is no word of device or page-locked memory", name, word);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return (CUresult)enqueue(stream, name, std::move(work)); /* the two enumerations agree by number */
}

CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags)
{
    if (flags != CU_STREAM_WRITE_VALUE_DEFAULT) {
        complain("cuStreamWriteValue32: flags %#x", flags);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return enqueue_word(stream, "cuStreamWriteValue32", address, [=] {
        reinterpret_cast<std::atomic<uint32_t> *>(address)->store(value);
        return true;
    });
}

static bool is_over(uint32_t word, uint32_t value, unsigned flags)
{
    switch (flags & ~(unsigned)CU_STREAM_WAIT_VALUE_FLUSH) {
    case CU_STREAM_WAIT_VALUE_GEQ: return (int32_t)(word - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ: return word == value;
    case CU_STREAM_WAIT_VALUE_AND: return (word & value) != 0;
    default: return ~(word | value) != 0;
    }
}

CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags)
{
    return enqueue_word(stream, "cuStreamWaitValue32", address,
                        [=] { return is_over(reinterpret_cast<std::atomic<uint32_t> *>(address)->load(), value, flags); });
}

/* ---- the driver's functions ---- */

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function_p, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *result_p)
{
    static const struct {
        const char *name;
        void       *function;
    } functions[] = {{"cuStreamWaitValue32", (void *)cuStreamWaitValue32}, {"cuStreamWriteValue32", (void *)cuStreamWriteValue32}};
    return call([&] {
        *function_p = nullptr;
        for (const auto &one : functions) {
            *function_p = std::strcmp(one.name, symbol) == 0 ? one.function : *function_p;
        }
        if (result_p != nullptr) {
            *result_p = *function_p != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
        }
        return *function_p != nullptr || !complain("the stand-in has no %s of the driver", symbol) ? cudaSuccess : cudaErrorSymbolNotFound;
    });
}

cudaError_t cudaGetDriverEntryPoint(const char *symbol, void **function_p, unsigned long long flags, cudaDriverEntryPointQueryResult *result_p)
{
    return cudaGetDriverEntryPointByVersion(symbol, function_p, CUDA_VERSION, flags, result_p);
}
