/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stand-in for NCCL: collectives of one to four ranks by exact sums and equality, also recorded as a graph and on two communicators
 * whose collectives come in different orders on different ranks; and what ends in an error or not at all: a rank that dies,
 * that is mute, that never comes, that asks for something else; two ranks on one device; windows that do not match.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
/* after the five above */
#include <cmocka.h>
#include <nccl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/capture.h"
#include "tests/test_standin.h"

enum { COMMS = 2, IDS = 3, NAP_US = 100, N = 1000 };

static const char one_device_each[] = "devices=4";

/* What ranks tell each other beside NCCL. */
typedef struct {
    atomic_int   known[IDS];
    ncclUniqueId ids[IDS];
    atomic_int   met;
} board_t;

static board_t *board;

static int start_ranks(int size, const char *settings, rank_fn_t fn)
{
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    int failures = run_ranks(size, settings, fn);
    munmap(board, sizeof(*board));
    return failures;
}

static ncclUniqueId share_id(int rank, int number)
{
    if (rank == 0) {
        CHECK(ncclGetUniqueId(&board->ids[number]) == ncclSuccess);
        atomic_store(&board->known[number], 1);
    }
    while (!atomic_load(&board->known[number])) {
        usleep(NAP_US);
    }
    return board->ids[number];
}

/* Once per run: waits for all ranks. */
static void meet(int size)
{
    atomic_fetch_add(&board->met, 1);
    while (atomic_load(&board->met) < size) {
        usleep(NAP_US);
    }
}

/* The state of a communicator once it is not ncclInProgress. */
static ncclResult_t settle(ncclComm_t comm)
{
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) {
        CHECK(ncclCommGetAsyncError(comm, &state) == ncclSuccess);
        usleep(NAP_US);
    }
    return state;
}

static void settled(ncclComm_t comm, ncclResult_t result)
{
    CHECK(result == ncclSuccess || result == ncclInProgress);
    CHECK(settle(comm) == ncclSuccess);
}

static char name_of_next[32]; /* the library keeps its address */

static ncclComm_t begin_comm(int rank, int size, int number)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t   comm   = NULL;
    config.blocking     = 0;
    config.maxCTAs      = 8;
    config.commName     = name_of_next;
    CHECK(ncclCommInitRankConfig(&comm, size, share_id(rank, number), rank, &config) == ncclInProgress);
    return comm;
}

static ncclComm_t open_comm(int rank, int size, int number)
{
    CHECK(cudaSetDevice(rank) == cudaSuccess);
    ncclComm_t comm = begin_comm(rank, size, number);
    CHECK(settle(comm) == ncclSuccess);
    return comm;
}

static void close_comm(ncclComm_t comm)
{
    settled(comm, ncclCommFinalize(comm));
    CHECK(ncclCommDestroy(comm) == ncclSuccess);
}

static cudaStream_t open_stream(void)
{
    cudaStream_t stream = NULL;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    return stream;
}

/* Small whole numbers, whose sums are exact in bf16 too. */
static int number_of(int rank, size_t i)
{
    return (int)((i * 7 + (size_t)rank * 13) % 17) - 8;
}

static int total_of(int size, size_t i)
{
    int total = 0;
    for (int rank = 0; rank < size; rank++) {
        total += number_of(rank, i);
    }
    return total;
}

static void *numbers_of(int rank, shoal_dtype_t dtype, size_t n)
{
    char host[4 * 4 * N];
    CHECK(n * 4 <= sizeof(host));
    for (size_t i = 0; i < n; i++) {
        put(host, dtype, i, (float)number_of(rank, i));
    }
    return on_device(host, n * shoal_dtype_nbytes(dtype));
}

typedef enum { GATHER, SCATTER, REDUCE } kind_t;

/* N elements per rank; the numbers of a rank are counted from the start of what it sends. */
static void expect(kind_t kind, int rank, int size, shoal_dtype_t dtype, const void *memory)
{
    char   host[4 * 4 * N];
    size_t n = kind == GATHER ? (size_t)size * N : N, first = kind == SCATTER ? (size_t)rank * N : 0;
    CHECK(cudaMemcpy(host, memory, n * shoal_dtype_nbytes(dtype), cudaMemcpyDeviceToHost) == cudaSuccess);
    for (size_t i = 0; i < n; i++) {
        CHECK(get(host, dtype, i) == (float)(kind == GATHER ? number_of((int)(i / N), i % N) : total_of(size, first + i)));
    }
}

static ncclResult_t launch(kind_t kind, const void *send, void *recv, shoal_dtype_t dtype, ncclComm_t comm, cudaStream_t stream)
{
    ncclDataType_t type = dtype == SHOAL_BF16 ? ncclBfloat16 : ncclFloat32;
    switch (kind) {
    case GATHER: return ncclAllGather(send, recv, N, type, comm, stream);
    case SCATTER: return ncclReduceScatter(send, recv, N, type, ncclSum, comm, stream);
    default: return ncclAllReduce(send, recv, N, type, ncclSum, comm, stream);
    }
}

static void check_collective(kind_t kind, int rank, int size, shoal_dtype_t dtype, bool in_place, ncclComm_t comm, cudaStream_t stream)
{
    size_t nbytes = N * shoal_dtype_nbytes(dtype), all = (size_t)size * nbytes, mine = (size_t)rank * nbytes;
    char  *send   = numbers_of(rank, dtype, kind == SCATTER ? (size_t)size * N : N), *big = on_device(NULL, all);
    char  *recv   = big;
    if (in_place && kind == GATHER) {
        CHECK(cudaMemcpy(big + mine, send, nbytes, cudaMemcpyDeviceToDevice) == cudaSuccess);
    }
    if (in_place && kind != GATHER) {
        recv = kind == SCATTER ? send + mine : send;
    }
    settled(comm, launch(kind, in_place && kind == GATHER ? big + mine : send, recv, dtype, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    expect(kind, rank, size, dtype, recv);
    CHECK(cudaFree(send) == cudaSuccess && cudaFree(big) == cudaSuccess);
}

static void collectives(int rank, int size)
{
    ncclComm_t   comm   = open_comm(rank, size, 0);
    cudaStream_t stream = open_stream();
    for (int variant = 0; variant < 12; variant++) {
        check_collective((kind_t)(variant % 3), rank, size, variant / 3 % 2 ? SHOAL_BF16 : SHOAL_F32, variant / 6, comm, stream);
    }
    close_comm(comm);
}

static void test_collectives(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        assert_int_equal(start_ranks(size, one_device_each, collectives), 0);
    }
}

/*
 * 256 + 1 is 256 in bf16, twice: as wide a sum as fp32 would give 258. No switch, which may begin
 * with 1 + 1, is to add.
 */
static void rounding(int rank, int size)
{
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    ncclComm_t   comm   = open_comm(rank, size, 0);
    cudaStream_t stream = open_stream();
    char         host[2];
    put(host, SHOAL_BF16, 0, rank == 0 ? 256 : 1);
    void *memory = on_device(host, sizeof(host));
    settled(comm, ncclAllReduce(memory, memory, 1, ncclBfloat16, ncclSum, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(cudaMemcpy(host, memory, sizeof(host), cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(get(host, SHOAL_BF16, 0) == 256);
    close_comm(comm);
}

static void test_rounding(void **state)
{
    (void)state;
    assert_int_equal(start_ranks(3, one_device_each, rounding), 0);
}

/* Two communicators, each on a stream of its own; odd ranks enqueue in the other order. Then the same as a graph, three times. */
static void interleaved(int rank, int size)
{
    enum { ROUNDS = 4 };
    ncclComm_t   comms[]   = {open_comm(rank, size, 0), open_comm(rank, size, 1)};
    cudaStream_t streams[] = {open_stream(), open_stream()};
    void        *send[] = {numbers_of(rank, SHOAL_F32, N), numbers_of(rank, SHOAL_F32, (size_t)size * N)}, *recv[2][ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 2; i++) {
            int which          = (i + rank) % 2;
            recv[which][round] = on_device(NULL, (size_t)size * N * 4);
            settled(comms[which], launch(which == 0 ? GATHER : SCATTER, send[which], recv[which][round], SHOAL_F32, comms[which],
                                         streams[which]));
        }
    }
    for (int i = 0; i < 2; i++) {
        CHECK(cudaStreamSynchronize(streams[(i + rank) % 2]) == cudaSuccess);
    }
    for (int round = 0; round < ROUNDS; round++) {
        expect(GATHER, rank, size, SHOAL_F32, recv[0][round]);
        expect(SCATTER, rank, size, SHOAL_F32, recv[1][round]);
    }
    close_comm(comms[0]);
    close_comm(comms[1]);
}

static void test_interleaved(void **state)
{
    (void)state;
    char settings[64];
    for (int seed = 1; seed <= 4; seed++) {
        snprintf(settings, sizeof(settings), "%s,seed=%d", one_device_each, seed);
        assert_int_equal(start_ranks(4, settings, interleaved), 0);
    }
}

/* Gathered, then reduced, three times over; each time from numbers of its own. */
static void replayed(int rank, int size)
{
    ncclComm_t      comm   = open_comm(rank, size, 0);
    cudaStream_t    stream = open_stream();
    cudaGraph_t     graph  = NULL;
    cudaGraphExec_t exec   = NULL;
    float           value;
    char           *gathered = on_device(NULL, (size_t)size * 4), *total = on_device(NULL, 4), *mine = gathered + 4 * rank;
    settled(comm, ncclAllReduce(mine, total, 1, ncclFloat32, ncclSum, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    settled(comm, ncclAllGather(mine, gathered, 1, ncclFloat32, comm, stream));
    settled(comm, ncclReduceScatter(gathered, total, 1, ncclFloat32, ncclSum, comm, stream));
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    for (int round = 1; round <= 3; round++) {
        value = (float)(round * 10 + rank);
        CHECK(cudaMemcpy(mine, &value, 4, cudaMemcpyHostToDevice) == cudaSuccess);
        CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess);
        CHECK(cudaMemcpy(&value, total, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
        CHECK(value == (float)(size * (round * 10 + rank)));
    }
    CHECK(cudaGraphDestroy(graph) == cudaSuccess && cudaGraphExecDestroy(exec) == cudaSuccess);
    close_comm(comm);
}

static void test_replayed(void **state)
{
    (void)state;
    assert_int_equal(start_ranks(3, one_device_each, replayed), 0);
}

/* The stream stands still: for some time, or until the state says what `error` is. */
static void stays_pending(ncclComm_t comm, cudaStream_t stream, ncclResult_t error)
{
    ncclResult_t state = ncclSuccess;
    for (int poll = 0; error == ncclSuccess ? poll < 100 : state != error; poll++) {
        CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
        CHECK(ncclCommGetAsyncError(comm, &state) == ncclSuccess);
        CHECK(state == ncclSuccess || state == error);
        usleep(NAP_US);
    }
}

static void launch_one(ncclComm_t comm, cudaStream_t stream, float *memory)
{
    settled(comm, ncclAllReduce(memory, memory, 1, ncclFloat32, ncclSum, comm, stream));
}

/* A graph of one sum on each of two communicators, on streams of their own. */
static cudaGraphExec_t record_two(int rank, int size, ncclComm_t *comms, cudaStream_t *streams)
{
    float           zeros[COMMS] = {0}, *memory = on_device(zeros, sizeof(zeros));
    cudaGraph_t     graph = NULL;
    cudaGraphExec_t exec  = NULL;
    cudaEvent_t     events[2];
    for (int i = 0; i < COMMS; i++) { /* with the first use of each */
        comms[i]   = open_comm(rank, size, i);
        streams[i] = open_stream();
        CHECK(cudaEventCreateWithFlags(&events[i], cudaEventDisableTiming) == cudaSuccess);
        launch_one(comms[i], streams[i], memory);
        CHECK(cudaStreamSynchronize(streams[i]) == cudaSuccess);
    }
    CHECK(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaEventRecord(events[0], streams[0]) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(streams[1], events[0], 0) == cudaSuccess);
    for (int i = 0; i < COMMS; i++) {
        launch_one(comms[i], streams[i], memory + i);
    }
    CHECK(cudaEventRecord(events[1], streams[1]) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(streams[0], events[1], 0) == cudaSuccess);
    CHECK(cudaStreamEndCapture(streams[0], &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && !cudaGraphDestroy(graph));
    return exec;
}

/* The last rank's second collective of a graph never begins: who gives up aborts all at once. */
static void held(int rank, int size)
{
    ncclComm_t      comms[COMMS];
    cudaStream_t    streams[COMMS];
    cudaGraphExec_t exec = record_two(rank, size, comms, streams);
    CHECK(cudaGraphLaunch(exec, streams[0]) == cudaSuccess);
    stays_pending(comms[0], streams[0], ncclSuccess);
    CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
    CHECK(ncclGroupStart() == ncclSuccess && ncclCommAbort(comms[0]) == ncclSuccess);
    CHECK(ncclCommAbort(comms[1]) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclSuccess);
    CHECK(cudaStreamSynchronize(streams[0]) == cudaSuccess);
}

/*
 * One rank finalizes while the graph still has the collective. Of two, both of whose communicators
 * stand still in one launch, rank 1 aborts the first alone. Neither call returns.
 */
static void too_early(int rank, int size)
{
    ncclComm_t      comms[COMMS];
    cudaStream_t    streams[COMMS];
    cudaGraphExec_t exec = record_two(rank, size, comms, streams);
    meet(size);
    if (size == 1) {
        ncclCommFinalize(comms[0]);
    } else if (rank == 1) {
        CHECK(cudaGraphLaunch(exec, streams[0]) == cudaSuccess);
        CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
        ncclCommAbort(comms[0]);
    }
    CHECK(size == 2 && rank == 0);
}

static void test_held(void **state)
{
    (void)state;
    assert_int_equal(start_ranks(2, "devices=4,mute=1:4", held), 0);
    capture_begin();
    int         finalize = start_ranks(1, one_device_each, too_early);
    int         abort    = start_ranks(2, one_device_each, too_early);
    const char *text     = capture_end();
    assert_true(finalize == 1 && abort == 1);
    assert_contains(text, "ncclCommFinalize would never return: graphs hold 1 collectives of the");
    assert_contains(text, "ncclCommAbort would never return: graphs hold ");
}

static bool hosts_of_their_own;

/*
 * Rank 1 dies after the first collective. On one host nobody tells the others, between hosts they
 * hear of it; and the second collective ends when it is aborted, not before.
 */
static void widowed(int rank, int size)
{
    char name[32];
    snprintf(name, sizeof(name), "host-%d", rank);
    if (hosts_of_their_own) {
        setenv("NCCL_HOSTID", name, 1);
    }
    ncclResult_t told   = hosts_of_their_own ? ncclRemoteError : ncclSuccess;
    ncclComm_t   comm   = open_comm(rank, size, 0);
    cudaStream_t stream = open_stream();
    void        *memory = numbers_of(rank, SHOAL_F32, N);
    settled(comm, launch(REDUCE, memory, memory, SHOAL_F32, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    expect(REDUCE, rank, size, SHOAL_F32, memory);
    meet(size);
    if (rank == 1) {
        kill(getpid(), SIGKILL);
    }
    ncclResult_t result = launch(REDUCE, memory, memory, SHOAL_F32, comm, stream);
    if (result == ncclSuccess || (result == ncclInProgress && settle(comm) == ncclSuccess)) {
        stays_pending(comm, stream, told);
    }
    CHECK(settle(comm) == told);
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
}

static void test_widowed(void **state)
{
    (void)state;
    for (int hosts = 0; hosts < 2; hosts++) {
        hosts_of_their_own = hosts != 0;
        assert_int_equal(start_ranks(3, one_device_each, widowed), 1); /* the one that was killed */
    }
}

static void muted(int rank, int size)
{
    ncclComm_t   comm   = open_comm(rank, size, 0);
    cudaStream_t stream = open_stream();
    void        *memory = numbers_of(rank, SHOAL_F32, N);
    settled(comm, launch(REDUCE, memory, memory, SHOAL_F32, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    settled(comm, launch(REDUCE, memory, memory, SHOAL_F32, comm, stream));
    stays_pending(comm, stream, ncclSuccess);
    meet(size); /* who aborts is gone for the others */
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
}

static void test_muted(void **state)
{
    (void)state;
    assert_int_equal(start_ranks(3, "devices=4,mute=2:2", muted), 0);
}

static void mismatched(int rank, int size)
{
    ncclComm_t   comm   = open_comm(rank, size, 0);
    cudaStream_t stream = open_stream();
    void        *send   = numbers_of(rank, SHOAL_F32, N), *recv = on_device(NULL, N * 4);
    settled(comm, ncclAllReduce(send, recv, rank == 1 ? N - 1 : N, ncclFloat32, ncclSum, comm, stream));
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(settle(comm) == ncclInvalidUsage);
    CHECK(ncclCommAbort(comm) == ncclSuccess);
}

static void test_mismatched(void **state)
{
    (void)state;
    capture_begin();
    int         failures = start_ranks(2, one_device_each, mismatched);
    const char *text     = capture_end();
    assert_contains(text, "rank 1: collective 1 is ncclAllReduce of 999 elements of type 7, but on rank 0 ncclAllReduce of 1000 of type 7");
    assert_int_equal(failures, 0);
}

/* Both on the one device: refused, unless they say that they are on hosts of their own. */
static void sharing(int rank, int size)
{
    char name[32];
    CHECK(settle(begin_comm(rank, size, 0)) == ncclInvalidUsage);
    CHECK(strstr(ncclGetLastError(NULL), "Duplicate GPU detected") != NULL);
    snprintf(name, sizeof(name), "host-%d", rank);
    setenv("NCCL_HOSTID", name, 1);
    ncclComm_t comm = begin_comm(rank, size, 1);
    CHECK(settle(comm) == ncclSuccess);
    check_collective(GATHER, rank, size, SHOAL_F32, false, comm, open_stream());
    close_comm(comm);
}

static void test_sharing(void **state)
{
    (void)state;
    capture_begin();
    int failures = start_ranks(2, "devices=1", sharing);
    capture_end();
    assert_int_equal(failures, 0);
}

/* A window of the second half; then one that only some ranks move. */
static void windows(int rank, int size)
{
    ncclComm_t   comm   = open_comm(rank, size, 0);
    ncclWindow_t window = NULL;
    char        *memory = NULL;
    void        *other  = on_device(NULL, 4096);
    CHECK(ncclMemAlloc((void **)&memory, 3 * 4096) == ncclSuccess);
    settled(comm, ncclCommWindowRegister(comm, memory + 4096, 8192, &window, NCCL_WIN_COLL_SYMMETRIC));
    CHECK(window != NULL);
    CHECK(ncclMemFree(memory) == ncclInvalidUsage);
    CHECK(ncclCommWindowDeregister(comm, window) == ncclSuccess);
    CHECK(ncclCommWindowRegister(comm, other, 4096, &window, NCCL_WIN_COLL_SYMMETRIC) == ncclInvalidArgument);
    CHECK(ncclCommWindowRegister(comm, memory + (rank == 1 ? 4096 : 0), 4096, &window, NCCL_WIN_COLL_SYMMETRIC) == ncclInProgress);
    CHECK(settle(comm) == ncclInvalidArgument);
    CHECK(window == NULL);
    meet(size); /* who aborts is gone for the others */
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    CHECK(ncclMemFree(memory) == ncclSuccess);
}

/* Between hosts there are none: the answer is NULL, and no error. */
static void no_windows(int rank, int size)
{
    char         name[32], *memory = NULL;
    ncclWindow_t window            = (ncclWindow_t)(void *)&memory;
    snprintf(name, sizeof(name), "host-%d", rank);
    setenv("NCCL_HOSTID", name, 1);
    ncclComm_t comm = open_comm(rank, size, 0);
    CHECK(ncclMemAlloc((void **)&memory, 4096) == ncclSuccess);
    settled(comm, ncclCommWindowRegister(comm, memory, 4096, &window, NCCL_WIN_COLL_SYMMETRIC));
    CHECK(window == NULL);
    close_comm(comm);
    CHECK(ncclMemFree(memory) == ncclSuccess);
}

static void test_windows(void **state)
{
    (void)state;
    capture_begin();
    int         failures = start_ranks(3, one_device_each, windows);
    const char *text     = capture_end();
    assert_contains(text, "window 2: rank 0 registers 4096 bytes at offset 0, rank 1 4096 at 4096");
    assert_int_equal(failures, 0);
    assert_int_equal(start_ranks(2, one_device_each, no_windows), 0);
}

/* A call before the last one is settled, host memory, an overlap that is none in place, an overrun, a rank that never comes, a dead handle. */
static void misuse(int rank, int size)
{
    float        host[N];
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t   comm   = open_comm(rank, size, 0), lonely = NULL;
    ncclResult_t state;
    cudaStream_t stream = open_stream();
    char        *memory = on_device(NULL, 2 * N * 4);
    CHECK(launch(REDUCE, memory, memory, SHOAL_F32, comm, stream) == ncclInProgress); /* the first one always */
    CHECK(launch(REDUCE, memory, memory, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    CHECK(settle(comm) == ncclSuccess);
    CHECK(launch(REDUCE, memory, host, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    CHECK(launch(REDUCE, memory, memory + 4, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    CHECK(launch(REDUCE, memory, memory + N * 4 + 4, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    close_comm(comm);
    CHECK(launch(REDUCE, memory, memory, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    strcpy(name_of_next, "before");
    comm = open_comm(rank, size, 1);
    strcpy(name_of_next, "behind");
    CHECK(launch(REDUCE, memory, memory, SHOAL_F32, comm, stream) == ncclInvalidArgument);
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    config.blocking = 0;
    config.maxCTAs  = 33;
    CHECK(ncclCommInitRankConfig(&comm, 1, board->ids[0], 0, &config) == ncclInvalidArgument);
    lonely = begin_comm(rank, size + 1, 2);
    for (int poll = 0; poll < 20; poll++) {
        CHECK(ncclCommGetAsyncError(lonely, &state) == ncclSuccess && state == ncclInProgress);
        usleep(NAP_US);
    }
    CHECK(ncclCommAbort(lonely) == ncclSuccess);
}

static void test_misuse(void **state)
{
    (void)state;
    static const char *const reasons[] = {"still in ncclAllReduce: its state must become ncclSuccess first", "receives 4000 bytes at",
                                          "overlap, and not as in place", "or one that was destroyed", "name is no longer what it was",
                                          "maxCTAs is 33"};
    capture_begin();
    int         failures = start_ranks(1, one_device_each, misuse);
    const char *text     = capture_end();
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        assert_contains(text, reasons[i]);
    }
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collectives), cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_interleaved), cmocka_unit_test(test_replayed),
        cmocka_unit_test(test_held),        cmocka_unit_test(test_widowed),
        cmocka_unit_test(test_muted),       cmocka_unit_test(test_mismatched),
        cmocka_unit_test(test_sharing),     cmocka_unit_test(test_windows),
        cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests_name("standin: nccl", tests, NULL, NULL);
}
