/* SPDX-License-Identifier: BSD-3-Clause */
/* What the CUDA device's streams can do: page-locked memory, time stamps and signals (events), recordings (CUDA graphs). */
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

static void say_full(shoal_device_t *device, size_t nbytes)
{
    size_t unused = 0, total = 0;
    cudaMemGetInfo(&unused, &total);
    shoal_error("cuda: cannot allocate %zu bytes (%.2f GiB) on GPU %d: %zu of its %zu bytes are free", nbytes, (double)nbytes * 0x1p-30,
                shoal_cuda_of(device)->device, unused, total);
}

static shoal_status_t enqueue_upload(shoal_device_t *device, void *to, const void *from_host, size_t nbytes)
{
    SHOAL_CUDA_TRY(cudaMemcpyAsync(to, from_host, nbytes, cudaMemcpyHostToDevice, shoal_cuda_of(device)->stream));
    return SHOAL_OK;
}

static void forget_notes(shoal_device_t *device)
{
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        shoal_cuda_of(device)->notes[queue] = -1;
    }
}

/* Collectives go first where both could: they are short of the GPU's multiprocessors, and compute waits for them. */
shoal_status_t shoal_cuda_open_queues(shoal_cuda_t *cuda)
{
    int least = 0, greatest = 0;
    SHOAL_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        int priority = queue == SHOAL_QUEUE_COMPUTE ? least : greatest;
        SHOAL_CUDA_TRY(cudaStreamCreateWithPriority(&cuda->queues[queue], cudaStreamNonBlocking, priority));
    }
    cuda->stream = cuda->queues[SHOAL_QUEUE_COMPUTE];
    SHOAL_CUDA_TRY(cudaMallocHost((void **)&cuda->notes, SHOAL_QUEUE_COUNT * sizeof(*cuda->notes)));
    forget_notes(&cuda->base);
    return SHOAL_OK;
}

static void free_events(struct CUevent_st **events, int count)
{
    for (int i = 0; i < count; i++) {
        cudaEventDestroy(events[i]);
    }
    free(events);
}

void shoal_cuda_close_queues(shoal_cuda_t *cuda)
{
    free_events(cuda->marks, cuda->nmarks);
    free_events(cuda->signals, cuda->nsignals);
    if (cuda->notes != NULL) {
        cudaFreeHost(cuda->notes);
    }
    for (int queue = 0; queue < SHOAL_QUEUE_COUNT; queue++) {
        if (cuda->queues[queue] != NULL) {
            cudaStreamDestroy(cuda->queues[queue]);
        }
    }
}

static shoal_status_t reserve(struct CUevent_st ***events_p, int *count_p, int count, unsigned flags)
{
    if (count <= *count_p) {
        return SHOAL_OK;
    }
    struct CUevent_st **events = realloc(*events_p, (size_t)count * sizeof(*events));
    if (events == NULL) {
        shoal_error("cuda: no memory for %d events", count);
        return SHOAL_ERR_NO_MEMORY;
    }
    *events_p = events;
    for (; *count_p < count; (*count_p)++) {
        SHOAL_CUDA_TRY(cudaEventCreateWithFlags(&events[*count_p], flags));
    }
    return SHOAL_OK;
}

static shoal_status_t reserve_marks(shoal_device_t *device, int count)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    return reserve(&cuda->marks, &cuda->nmarks, count, cudaEventDefault);
}

static shoal_status_t reserve_signals(shoal_device_t *device, int count)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    return reserve(&cuda->signals, &cuda->nsignals, count, cudaEventDisableTiming);
}

static shoal_status_t signal_queue(shoal_device_t *device, shoal_queue_t queue, int number)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaEventRecord(cuda->signals[number], cuda->queues[queue]));
    return SHOAL_OK;
}

static shoal_status_t await_signal(shoal_device_t *device, shoal_queue_t queue, int number)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaStreamWaitEvent(cuda->queues[queue], cuda->signals[number], cudaEventWaitDefault));
    return SHOAL_OK;
}

/* An event of a recording is stamped anew by each replay only if it is recorded as an external one, which outside of a recording is an error. */
static shoal_status_t mark(shoal_device_t *device, shoal_queue_t queue, int mark)
{
    shoal_cuda_t *cuda  = shoal_cuda_of(device);
    unsigned      flags = cuda->recording ? cudaEventRecordExternal : cudaEventRecordDefault;
    SHOAL_CUDA_TRY(cudaEventRecordWithFlags(cuda->marks[mark], cuda->queues[queue], flags));
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

static shoal_status_t note(shoal_device_t *device, shoal_queue_t queue, int number)
{
    SHOAL_TRY(shoal_cuda_note(shoal_cuda_of(device), queue, number));
    return shoal_cuda_check(cudaGetLastError(), "note");
}

static int last_note(shoal_device_t *device, shoal_queue_t queue)
{
    return ((volatile int *)shoal_cuda_of(device)->notes)[queue];
}

static void *native(shoal_device_t *device, shoal_queue_t queue)
{
    return shoal_cuda_of(device)->queues[queue];
}

static shoal_status_t leave_room(shoal_device_t *device, int multiprocessors)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    if (multiprocessors < 0 || 2 * multiprocessors > cuda->multiprocessors) {
        shoal_error("cuda: %d of the GPU's %d multiprocessors cannot be left to collectives: half is the most", multiprocessors,
                    cuda->multiprocessors);
        return SHOAL_ERR_CONFIG;
    }
    cuda->room = multiprocessors;
    return SHOAL_OK;
}

static shoal_status_t poll(shoal_device_t *device)
{
    cudaError_t error = cudaStreamQuery(shoal_cuda_of(device)->stream);
    if (error == cudaErrorNotReady) {
        cudaGetLastError(); /* CUDA keeps this answer too, and the next launch would be blamed for it */
        return SHOAL_IN_PROGRESS;
    }
    return shoal_cuda_check(error, "cudaStreamQuery");
}

static shoal_status_t fill_noise(shoal_device_t *device, void *memory, size_t nbytes)
{
    SHOAL_TRY(shoal_cuda_noise(shoal_cuda_of(device), memory, nbytes));
    return shoal_cuda_check(cudaGetLastError(), "noise");
}

/* Thread-local: another thread's call (a transport's, say) cannot spoil the recording. */
static shoal_status_t record_begin(shoal_device_t *device)
{
    shoal_cuda_t *cuda = shoal_cuda_of(device);
    SHOAL_CUDA_TRY(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    cuda->recording = true;
    return SHOAL_OK;
}

static void recording_free(shoal_recording_t *recording)
{
    if (recording != NULL && recording->graph != NULL) {
        cudaGraphExecDestroy(recording->graph);
    }
    free(recording);
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
        recording_free(recording); /* its executable holds collectives: NCCL waits for their end */
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

const shoal_stream_ops_t shoal_cuda_stream_ops = {
    .alloc_host     = alloc_host,
    .free_host      = free_host,
    .say_full       = say_full,
    .enqueue_upload = enqueue_upload,
    .reserve_marks  = reserve_marks,
    .mark           = mark,
    .between        = between,
    .reserve_signals = reserve_signals,
    .signal         = signal_queue,
    .await          = await_signal,
    .note           = note,
    .last_note      = last_note,
    .forget_notes   = forget_notes,
    .native         = native,
    .leave_room     = leave_room,
    .poll           = poll,
    .prepare        = shoal_cuda_prepare,
    .fill_noise     = fill_noise,
    .record_begin   = record_begin,
    .record_end     = record_end,
    .replay         = replay,
    .recording_free = recording_free,
};
