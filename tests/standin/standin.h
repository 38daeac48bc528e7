/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stand-in for the CUDA runtime, cuBLASLt and NCCL, so that the CUDA device's own host code (kernels/cuda/, collectives/nccl.c) runs in
 * tests where no GPU is. Kernels are the project's own, emulated (kernels/cuda/emulate.h); memory is the host's; a few functions of the
 * libraries are here, with the documented contract of each and nothing beyond it. Figures of time or speed that come out of it mean
 * nothing and are never reported.
 *
 * What it is stricter in than a GPU:
 *   - A stream does nothing until someone asks for its end (synchronize, query, a blocking copy). Then streams go on in an
 *     order drawn from a seed, each as far as events let it: a missing event between two streams changes results.
 *   - Device memory cannot be touched by the host: it is open only while work of a stream runs. It starts as NaN.
 *   - Arguments that a library would misread in silence (host memory where device memory is due, a buffer that overruns its
 *     allocation, an illegal call during capture) end in the library's error, with a line on stderr that says why.
 *
 * SHOAL_STANDIN, a comma-separated list, makes the machine: devices=N (1), driver=V (13000; 0: none), capability=V (90), memory=BYTES
 * (8 GiB, of each device and for each process alone), name=TEXT ("NVIDIA H200, a stand-in"; without a comma), seed=N (1), fault=N (the N-th
 * kernel to run, counted from 1, is an illegal access, which is sticky), mute=RANK:N (the rank's N-th collective never begins),
 * unregistered=RANK:N (the rank's N-th window cannot be registered),
 * graph_takes=BYTES, comm_takes=BYTES, matmul_takes=BYTES (0: device memory that an instantiated graph, a communicator, the process's first
 * matmul keeps for itself), parts=1 (the devices are parts of one GPU, at one PCI address). It is read at the process's first call.
 *
 * Everything here may be called from several threads; one lock guards it all, and it is released while nothing can go on.
 */
#ifndef SHOAL_TESTS_STANDIN_H
#define SHOAL_TESTS_STANDIN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How often this process has asked for device or page-locked memory so far. */
size_t shoal_standin_allocations(void);

#ifdef __cplusplus
}

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include <cuda_runtime_api.h>

namespace standin {

/* A piece of work of a stream, called with device memory open and the lock held, by whichever thread lets streams go on. True: it is done, and
 * what is behind it may start. False: it waits for another stream, another process or the host, and is asked again later. */
using work_t = std::function<bool()>;

/* Puts work on a stream, or into the graph that the stream is recording (then it runs once per launch, with a fresh copy of the
 * function). `what` must live forever: it names the work in complaints. */
cudaError_t enqueue(cudaStream_t stream, const char *what, work_t work);

/* Lets streams go on for a while. False where none can, for the GPU is broken. */
bool go_on_a_little();

/* From now on every call of the runtime answers `error`, as after a fault of the GPU. */
void break_device(cudaError_t error);

/* Whether [memory, memory + nbytes) lies within one allocation of device memory. */
bool is_device(const void *memory, size_t nbytes);
/* Likewise, of page-locked host memory. */
bool is_pinned(const void *memory, size_t nbytes);

/* Says on stderr why a call is refused, and returns false: `return complain("...") ? ...`. */
bool complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number of SHOAL_STANDIN, or its text, or `otherwise`. */
uint64_t    setting(const char *name, uint64_t otherwise);

/*
 * Takes as much device memory as a setting of SHOAL_STANDIN says, for good, as libraries do; false:
 * there is not as much.
 */
bool take(const char *name);

/*
 * Of a device, if `memory` says nothing: beyond what a run of several ranks leaves to libraries and
 * communicators.
 */
const size_t usual_device_nbytes = (size_t)8 << 30;

std::string setting_text(const char *name, const char *otherwise);

} // namespace standin

#endif /* __cplusplus */

#endif
