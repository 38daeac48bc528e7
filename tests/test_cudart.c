/* SPDX-License-Identifier: BSD-3-Clause */
/* The stand-in for the CUDA runtime keeps CUDA's promises about order, memory, captures and errors, and no others. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others */
#include <cmocka.h>
#include <cuda_runtime_api.h>

#define OK(call) assert_int_equal(call, cudaSuccess)

static cudaStream_t one, two;

static int setup(void **state)
{
    (void)state;
    OK(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    OK(cudaStreamDestroy(one));
    OK(cudaStreamDestroy(two));
    return cudaGetLastError() == cudaSuccess ? 0 : -1;
}

/* Host functions leave their numbers here, in the order in which they run. */
static int order[64], norder;

static void leave(void *argument)
{
    order[norder++] = (int)(intptr_t)argument;
}

static void put(cudaStream_t stream, int number)
{
    OK(cudaLaunchHostFunc(stream, leave, (void *)(intptr_t)number));
}

static int position(int number)
{
    for (int i = 0; i < norder; i++) {
        if (order[i] == number) {
            return i;
        }
    }
    return -1;
}

/* 0 .. n - 1 on one stream, n .. 2n - 1 on the other; `event` ties the second's whole to the first's, where there is one. */
static bool first_comes_first(cudaEvent_t event)
{
    enum { N = 8 };
    bool first = true;
    norder     = 0;
    for (int i = 0; i < N; i++) {
        put(one, i);
    }
    if (event != NULL) {
        OK(cudaEventRecord(event, one));
        OK(cudaStreamWaitEvent(two, event, 0));
    }
    for (int i = 0; i < N; i++) {
        put(two, N + i);
    }
    assert_int_equal(norder, 0); /* lazy */
    OK(cudaDeviceSynchronize());
    assert_int_equal(norder, 2 * N);
    for (int i = 1; i < N; i++) {
        assert_true(position(i) > position(i - 1) && position(N + i) > position(N + i - 1));
    }
    for (int i = 0; i < N; i++) {
        first = first && position(i) < position(N);
    }
    return first;
}

static void test_order(void **state)
{
    (void)state;
    cudaEvent_t event;
    int         nfirst = 0;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (int i = 0; i < 20; i++) {
        assert_true(first_comes_first(event));
        nfirst += first_comes_first(NULL);
    }
    assert_true(nfirst < 20);
    OK(cudaEventDestroy(event));
}

static void test_events(void **state)
{
    (void)state;
    cudaEvent_t from, to;
    float       ms = -1.0f;
    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
    OK(cudaEventQuery(from)); /* never recorded: an empty set of work */
    assert_int_equal(cudaEventElapsedTime(&ms, from, to), cudaErrorInvalidResourceHandle);
    OK(cudaEventRecord(from, one));
    OK(cudaEventRecord(to, one));
    assert_int_equal(cudaEventElapsedTime(&ms, from, to), cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), cudaErrorNotReady); /* it stays until asked for, as CUDA's does */
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    OK(cudaEventSynchronize(to));
    OK(cudaEventElapsedTime(&ms, from, to));
    assert_true(ms >= 0.0f);
    OK(cudaEventDestroy(from));
    OK(cudaEventDestroy(to));
}

static void test_memory(void **state)
{
    (void)state;
    size_t    free_nbytes, total, left;
    uint32_t *device, *pinned, host[4] = {1, 2, 3, 4}, back[4] = {0};
    OK(cudaMemGetInfo(&free_nbytes, &total));
    OK(cudaMalloc((void **)&device, sizeof(host)));
    OK(cudaMallocHost((void **)&pinned, sizeof(host)));
    OK(cudaMemGetInfo(&left, &total));
    assert_true(left < free_nbytes);
    OK(cudaMemcpy(back, device, sizeof(back), cudaMemcpyDeviceToHost));
    assert_int_equal(back[3], UINT32_MAX); /* NaN */
    OK(cudaMemcpyAsync(device, host, sizeof(host), cudaMemcpyHostToDevice, one));
    memset(host, 0, sizeof(host)); /* pageable: was read at the call */
    OK(cudaMemcpyAsync(pinned, device, sizeof(host), cudaMemcpyDeviceToHost, one));
    assert_int_equal(pinned[0], UINT32_MAX);
    OK(cudaStreamSynchronize(one));
    assert_int_equal(pinned[0], 1);
    OK(cudaMemcpyAsync(device, pinned, sizeof(host), cudaMemcpyHostToDevice, one));
    pinned[2] = 7; /* page-locked: read when it is done */
    OK(cudaMemcpyAsync(back, device, sizeof(back), cudaMemcpyDeviceToHost, one));
    assert_int_equal(back[2], 7);
    assert_int_equal(cudaMemcpy(device, host, sizeof(host) + 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(device, host, sizeof(host), cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMalloc((void **)&device, total + 1), cudaErrorMemoryAllocation);
    cudaGetLastError();
    OK(cudaFreeHost(pinned));
    OK(cudaFree(device));
}

static void touch_device(void)
{
    int *device;
    if (cudaMalloc((void **)&device, sizeof(int)) == cudaSuccess) {
        *(volatile int *)device = 1;
    }
}

static void test_host_is_kept_out(void **state)
{
    (void)state;
    int   status = 0;
    pid_t child  = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* not cmocka's, which would go on with the next test */
        touch_device();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void begin_fork(cudaEvent_t event)
{
    OK(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    put(one, 0);
    OK(cudaEventRecord(event, one));
    OK(cudaStreamWaitEvent(two, event, 0));
    put(two, 1);
    put(one, 2);
}

static void test_graph(void **state)
{
    (void)state;
    cudaEvent_t     event, stamp;
    cudaGraph_t     graph;
    cudaGraphExec_t executable;
    int             nahead = 0;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(cudaEventCreate(&stamp));
    begin_fork(event);
    assert_int_equal(cudaEventQuery(event), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureInvalidated);
    begin_fork(event);
    assert_int_equal(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureUnjoined);
    cudaGetLastError();
    begin_fork(event);
    OK(cudaEventRecord(event, two));
    OK(cudaStreamWaitEvent(one, event, 0));
    put(one, 3);
    OK(cudaEventRecordWithFlags(stamp, one, cudaEventRecordExternal));
    OK(cudaStreamEndCapture(one, &graph));
    OK(cudaGraphInstantiate(&executable, graph, 0));
    OK(cudaGraphUpload(executable, one));
    OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 20; i++) {
        norder = 0;
        OK(cudaGraphLaunch(executable, one));
        assert_int_not_equal(cudaEventQuery(stamp), cudaErrorCapturedEvent);
        OK(cudaStreamSynchronize(one));
        OK(cudaEventQuery(stamp));
        assert_int_equal(norder, 4);
        assert_true(position(0) == 0 && position(3) == 3);
        nahead += position(1) < position(2);
    }
    assert_true(nahead > 0 && nahead < 20);
    cudaGetLastError(); /* perhaps "not ready" */
    OK(cudaGraphExecDestroy(executable));
    OK(cudaEventDestroy(event));
    OK(cudaEventDestroy(stamp));
}

static void test_capture_is_isolated(void **state)
{
    (void)state;
    cudaEvent_t event;
    cudaGraph_t graph;
    void       *memory = NULL;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(cudaEventRecord(event, two));
    OK(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudaStreamWaitEvent(one, event, 0), cudaErrorStreamCaptureIsolation);
    assert_int_equal(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureInvalidated);
    OK(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudaMalloc(&memory, 1), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureInvalidated);
    OK(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudaStreamSynchronize(one), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(one, &graph), cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
    OK(cudaEventDestroy(event));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_is_kept_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_graph, setup, teardown),
        cmocka_unit_test_setup_teardown(test_capture_is_isolated, setup, teardown),
    };
    return cmocka_run_group_tests_name("cudart", tests, NULL, NULL);
}
