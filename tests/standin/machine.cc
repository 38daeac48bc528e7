/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine that SHOAL_STANDIN describes: its driver, its devices and their errors. */
#include "tests/standin/machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

namespace standin {

std::recursive_mutex lock;
std::mt19937_64      dice;

namespace {

cudaError_t              sticky = cudaSuccess;
thread_local cudaError_t last   = cudaSuccess;
thread_local int         device = 0;

const std::string known[] = {"devices", "driver", "capability", "memory", "name", "seed", "fault", "mute", "unregistered",
                             "graph_takes", "comm_takes",
                             "matmul_takes", "parts"};

bool is_known(const std::string &name)
{
    return std::find(std::begin(known), std::end(known), name) != std::end(known);
}

std::map<std::string, std::string> parse(const char *text)
{
    std::map<std::string, std::string> parsed;
    std::istringstream                 list(text != nullptr ? text : "");
    for (std::string one; std::getline(list, one, ',');) {
        size_t equals = one.find('=');
        if (equals == std::string::npos || !is_known(one.substr(0, equals))) {
            std::fprintf(stderr, "stand-in: SHOAL_STANDIN: '%s' is no setting\n", one.c_str());
            std::abort();
        }
        parsed[one.substr(0, equals)] = one.substr(equals + 1);
    }
    return parsed;
}

const std::map<std::string, std::string> &settings()
{
    static const std::map<std::string, std::string> read = [] {
        auto parsed = parse(std::getenv("SHOAL_STANDIN"));
        dice.seed(parsed.count("seed") != 0 ? std::strtoull(parsed["seed"].c_str(), nullptr, 10) : 1);
        return parsed;
    }();
    return read;
}

} // namespace

std::string setting_text(const char *name, const char *otherwise)
{
    auto found = settings().find(name);
    return found != settings().end() ? found->second : otherwise;
}

uint64_t setting(const char *name, uint64_t otherwise)
{
    std::string text = setting_text(name, "");
    return text.empty() ? otherwise : std::strtoull(text.c_str(), nullptr, 10);
}

static void say(const char *format, va_list args)
{
    char text[512];
    std::vsnprintf(text, sizeof(text), format, args);
    std::fprintf(stderr, "stand-in: %s\n", text);
}

bool complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    return false;
}

cudaError_t refuse(cudaError_t error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    return error;
}

cudaError_t health()
{
    if (setting("driver", CUDART_VERSION) < CUDART_VERSION) {
        return cudaErrorInsufficientDriver;
    }
    return setting("devices", 1) == 0 ? cudaErrorNoDevice : sticky;
}

cudaError_t remember(cudaError_t error)
{
    last = error != cudaSuccess ? error : last;
    return error;
}

void break_device(cudaError_t error)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    sticky = sticky == cudaSuccess ? error : sticky;
}

int current_device()
{
    return device;
}

} // namespace standin

using namespace standin;

cudaError_t cudaGetLastError()
{
    std::lock_guard<std::recursive_mutex> held(lock);
    cudaError_t                           error = sticky != cudaSuccess ? sticky : last;
    last                                        = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError()
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return sticky != cudaSuccess ? sticky : last;
}

/* What the tests may meet; the texts are the documentation's. */
static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
#define NAMED(error, text) {error, #error, text}
    NAMED(cudaSuccess, "no error"),
    NAMED(cudaErrorInvalidValue, "invalid argument"),
    NAMED(cudaErrorMemoryAllocation, "out of memory"),
    NAMED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    NAMED(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAMED(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    NAMED(cudaErrorSymbolNotFound, "named symbol not found"),
    NAMED(cudaErrorNotReady, "device not ready"),
    NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NAMED(cudaErrorLaunchFailure, "unspecified launch failure"),
    NAMED(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    NAMED(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    NAMED(cudaErrorNotSupported, "operation not supported"),
    NAMED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAMED(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    NAMED(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    NAMED(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    NAMED(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NAMED(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    NAMED(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    NAMED(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread"),
#undef NAMED
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &one : errors) {
        if (one.error == error) {
            return one.name;
        }
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &one : errors) {
        if (one.error == error) {
            return one.text;
        }
    }
    return "unrecognized error code";
}

/* ---- the driver and the devices ---- */

cudaError_t cudaDriverGetVersion(int *version_p)
{
    *version_p = (int)setting("driver", CUDART_VERSION);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version_p)
{
    *version_p = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count_p)
{
    *count_p = 0;
    return call([&] {
        *count_p = (int)setting("devices", 1);
        return cudaSuccess;
    });
}

static cudaError_t check_device(int device)
{
    return device >= 0 && (uint64_t)device < setting("devices", 1) ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaSetDevice(int chosen)
{
    return call([&] {
        cudaError_t error = check_device(chosen);
        device            = error == cudaSuccess ? chosen : device;
        return error;
    });
}

cudaError_t cudaGetDevice(int *device_p)
{
    return call([&] {
        *device_p = device;
        return cudaSuccess;
    });
}

cudaError_t cudaInitDevice(int chosen, unsigned, unsigned)
{
    return call([&] { return check_device(chosen); });
}

enum { MULTIPROCESSORS = 132, L2_NBYTES = 50 << 20, SHARED_NBYTES = 227 << 10 };

/* Parts of one GPU have its address. */
static int bus_of(int asked)
{
    return setting("parts", 0) != 0 ? 1 : asked + 1;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties_p, int asked)
{
    return call([&] {
        cudaError_t error = check_device(asked);
        if (error != cudaSuccess) {
            return error;
        }
        std::memset(properties_p, 0, sizeof(*properties_p));
        std::snprintf(properties_p->name, sizeof(properties_p->name), "%s", setting_text("name", "NVIDIA H200, a stand-in").c_str());
        properties_p->uuid.bytes[0]          = (char)(asked + 1);
        properties_p->totalGlobalMem         = setting("memory", usual_device_nbytes);
        properties_p->major                  = (int)setting("capability", 90) / 10;
        properties_p->minor                  = (int)setting("capability", 90) % 10;
        properties_p->multiProcessorCount    = MULTIPROCESSORS;
        properties_p->l2CacheSize            = L2_NBYTES;
        properties_p->sharedMemPerBlockOptin = SHARED_NBYTES;
        properties_p->warpSize               = 32;
        properties_p->pciBusID               = bus_of(asked);
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int *value_p, cudaDeviceAttr attribute, int asked)
{
    return call([&] {
        cudaError_t error = check_device(asked);
        if (error != cudaSuccess) {
            return error;
        }
        switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value_p = MULTIPROCESSORS; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value_p = (int)setting("capability", 90) / 10; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value_p = (int)setting("capability", 90) % 10; return cudaSuccess;
        case cudaDevAttrL2CacheSize: *value_p = L2_NBYTES; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value_p = SHARED_NBYTES; return cudaSuccess;
        default: return refuse(cudaErrorNotSupported, "cudaDeviceGetAttribute: attribute %d is not in the stand-in", (int)attribute);
        }
    });
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int nbytes, int asked)
{
    return call([&] {
        cudaError_t error = check_device(asked);
        if (error == cudaSuccess && std::snprintf(id, (size_t)nbytes, "0000:%02X:00.0", bus_of(asked)) >= nbytes) {
            return cudaErrorInvalidValue;
        }
        return error;
    });
}
