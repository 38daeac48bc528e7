/* SPDX-License-Identifier: BSD-3-Clause */
/* What the CUDA device's stream can do: page-locked memory, time stamps (events), and recordings (CUDA graphs). */
#include <stdlib.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda/own.h"

struct shoal_recording {
    cudaGraphExec_t graph;
};

static shoal_status_t alloc_host(shoal_device_t *device, size_t nbytes, void **memory_p)
{
    SHOAL_CUDA_TRY(cudaSetDevice(shoal_cuda_of(device)->device));
    SHOAL_CUDA_TRY(cudaMallocHost(memory_p, nbytes > 0 ? nbytes : 1));
    return SHOAL_OK;
}

static void free_host(shoal_device_t *device, void *memory)
{
    (void)device;
    cudaFreeHost(memory);
}

static shoal_status_t enqueue_upload(shoal_device_t *device, void *to, const void *from_host, size_t nbytes)
{
    SHOAL_CUDA_TRY(cudaMemcpyAsync(to, from_host, nbytes, cudaMemcpyHostToDevice, shoal_cuda_of(device)->stream));
    return SHOAL_OK;
}

static shoal_status_t reserve_marks(shoal_device_t *device, int count)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    if (count <= cuda->nmarks) {
        return SHOAL_OK;
    }
    struct CUevent_st **marks = realloc(cuda->marks, (size_t)count * sizeof(*marks));
    if (marks == NULL) {
        shoal_error("cuda: no memory for %d time stamps", count);
        return SHOAL_ERR_NO_MEMORY;
    }
    cuda->marks = marks;
    for (; cuda->nmarks < count; cuda->nmarks++) {
        SHOAL_CUDA_TRY(cudaEventCreate(&cuda->marks[cuda->nmarks]));
    }
    return SHOAL_OK;
}

void shoal_cuda_free_marks(shoal_cuda_t *cuda)
{
    for (int i = 0; i < cuda->nmarks; i++) {
        cudaEventDestroy(cuda->marks[i]);
    }
    free(cuda->marks);
    cuda->marks  = NULL;
    cuda->nmarks = 0;
}

/* An event of a recording is stamped anew by each replay only if it is recorded as an external one, which outside of a recording is an error. */
static shoal_status_t mark(shoal_device_t *device, int mark)
{
    shoal_cuda_t *cuda  = shoal_cuda_of(device);
    unsigned      flags = cuda->recording ? cudaEventRecordExternal : cudaEventRecordDefault;
    SHOAL_CUDA_TRY(cudaEventRecordWithFlags(cuda->marks[mark], cuda->stream, flags));
    return SHOAL_OK;
}

static shoal_status_t between(shoal_device_t *device, int from, int to, double *ms_p)
{
    const shoal_cuda_t *cuda = shoal_cuda_of(device);
    float               ms   = 0.0f;
    SHOAL_CUDA_TRY(cudaEventElapsedTime(&ms, cuda->marks[from], cuda->marks[to]));
    *ms_p = (double)ms;
    return SHOAL_OK;
}

static shoal_status_t note(shoal_device_t *device, int number)
{
    SHOAL_TRY(shoal_cuda_note(shoal_cuda_of(device), number));
    return shoal_cuda_check(cudaGetLastError(), "note");
}

static int last_note(shoal_device_t *device)
{
    return *(volatile int *)shoal_cuda_of(device)->note;
}

/* Thread-local: another thread's call (a transport's, say) cannot spoil the recording. */
static shoal_status_t record_begin(shoal_device_t *device)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    cuda->recording = true;
    return SHOAL_OK;
}

static shoal_status_t record_end(shoal_device_t *device, shoal_recording_t **recording_p)
{
    shoal_cuda_t *cuda  = shoal_cuda_of(device);
    cudaGraph_t   graph = NULL;
    cuda->recording     = false;
    SHOAL_CUDA_TRY(cudaStreamEndCapture(cuda->stream, &graph));
    shoal_recording_t *recording = calloc(1, sizeof(*recording));
    shoal_status_t     status    = recording != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
    if (status == SHOAL_OK) {
        status = shoal_cuda_check(cudaGraphInstantiate(&recording->graph, graph, 0), "cudaGraphInstantiate");
    }
    if (status == SHOAL_OK) {
        status = shoal_cuda_check(cudaGraphUpload(recording->graph, cuda->stream), "cudaGraphUpload");
    }
    cudaGraphDestroy(graph);
    if (status != SHOAL_OK) {
        free(recording);
        return status;
    }
    *recording_p = recording;
    return SHOAL_OK;
}

static shoal_status_t replay(shoal_device_t *device, shoal_recording_t *recording)
{
    SHOAL_CUDA_TRY(cudaGraphLaunch(recording->graph, shoal_cuda_of(device)->stream));
    return SHOAL_OK;
}

static void recording_free(shoal_recording_t *recording)
{
    if (recording != NULL) {
        cudaGraphExecDestroy(recording->graph);
        free(recording);
    }
}

const shoal_stream_ops_t shoal_cuda_stream_ops = {
    .alloc_host     = alloc_host,
    .free_host      = free_host,
    .enqueue_upload = enqueue_upload,
    .reserve_marks  = reserve_marks,
    .mark           = mark,
    .between        = between,
    .note           = note,
    .last_note      = last_note,
    .record_begin   = record_begin,
    .record_end     = record_end,
    .replay         = replay,
    .recording_free = recording_free,
};
