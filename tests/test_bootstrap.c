/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The local launcher: exchanges, exit codes, signals, ranks that do not come or talk nonsense, and
 * that nothing stays behind whoever dies; and that a launch which would fall apart into worlds of
 * one is refused; and the board, on which ranks of a host see each other. That a process is gone is
 * seen by a pipe whose last writer was in it.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/bootstrap/bootstrap.h"
#include "runtime/bootstrap/local.h"
#include "runtime/execute/board.h"
#include "tests/capture.h"
#include "tests/rank_check.h"

enum { NRANKS = 4 };

static shoal_bootstrap_t *open_world(void)
{
    shoal_bootstrap_t *b;
    CHECK(shoal_bootstrap_open("auto", &b) == SHOAL_OK);
    return b;
}

static int launch(int (*rank_main)(void *), void *argument)
{
    return shoal_bootstrap_launch_local(NRANKS, rank_main, argument);
}

static void barrier(shoal_bootstrap_t *b)
{
    char mine = 0, all[NRANKS];
    CHECK(b->ops->exchange(b, &mine, 1, all) == SHOAL_OK);
}

/* In a rank that was just forked: which one it is, and its socket. */
static int launched_rank(void)
{
    return shoal_local_rank(NULL);
}

static int launcher_socket(void)
{
    int fd = -1;
    shoal_local_rank(&fd);
    return fd;
}

/* ---- Exchanges ---- */

static int rank_exchanges(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b = open_world();
    CHECK(b->size == NRANKS && b->local_size == NRANKS && b->nnodes == 1 && b->node == 0 && b->local_rank == b->rank);
    CHECK(strcmp(b->method, "local") == 0 && strcmp(b->hosts[NRANKS - 1], b->host) == 0 && b->local_ranks[NRANKS - 1] == NRANKS - 1);
    for (size_t nbytes = 0; nbytes < 3000000; nbytes = nbytes * 5 + 1) {
        unsigned char *mine = malloc(nbytes + 1), *all = malloc(NRANKS * nbytes + 1);
        CHECK(mine != NULL && all != NULL);
        memset(mine, 'a' + b->rank, nbytes);
        CHECK(b->ops->exchange(b, mine, nbytes, all) == SHOAL_OK);
        for (size_t i = 0; i < NRANKS * nbytes; i++) {
            CHECK(all[i] == 'a' + i / nbytes);
        }
        free(mine);
        free(all);
    }
    shoal_bootstrap_close(b);
    b = open_world(); /* once more in the same process */
    barrier(b);
    shoal_bootstrap_close(b);
    return 0;
}

static void test_exchanges(void **state)
{
    (void)state;
    assert_int_equal(launch(rank_exchanges, NULL), 0);
}

/* ---- Ends ---- */

typedef struct {
    int rank, code, signal;
} end_t;

/* One rank ends as told; the others wait for it in an exchange, lose it and say so. */
static int rank_ends(void *argument)
{
    const end_t       *end = argument;
    shoal_bootstrap_t *b   = open_world();
    barrier(b);
    if (b->rank == end->rank && end->signal != 0) {
        raise(end->signal);
    }
    int code = end->code;
    if (b->rank != end->rank) {
        char mine = 0, all[NRANKS];
        CHECK(b->ops->exchange(b, &mine, 1, all) == SHOAL_ERR_PEER);
        code = shoal_status_exit_code(SHOAL_ERR_PEER);
    }
    shoal_bootstrap_close(b);
    return code;
}

static void test_exit_codes(void **state)
{
    static end_t ends[] = {{.rank = 2, .code = 3}, {.rank = 0, .code = 6}, {.rank = 3, .code = 5}, {.rank = 1, .signal = SIGKILL}};
    static int   codes[] = {3, 6, 5, 5};
    (void)state;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        assert_int_equal(launch(rank_ends, &ends[i]), codes[i]);
    }
}

static int rank_stops(void *argument)
{
    (void)argument;
    return shoal_status_exit_code(SHOAL_ERR_STOPPED);
}

static void test_stopped_on_request(void **state)
{
    (void)state;
    assert_int_equal(launch(rank_stops, NULL), shoal_status_exit_code(SHOAL_ERR_STOPPED));
}

/* The others would never end: the abort must end them. */
static int rank_aborts(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b = open_world();
    barrier(b);
    if (b->rank == 1) {
        b->ops->abort(b, 4, "told to");
    }
    while (pause() != 0) { /* it returns -1 always */
    }
    return 0;
}

static void test_abort(void **state)
{
    (void)state;
    assert_int_equal(launch(rank_aborts, NULL), 4);
}

/* After the grace even a rank that takes no notice is gone. */
static int rank_takes_no_notice(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b = open_world();
    barrier(b);
    while (b->rank != 2) {
        pause();
    }
    shoal_bootstrap_close(b);
    return 6;
}

static void test_grace_ends(void **state)
{
    (void)state;
    assert_int_equal(launch(rank_takes_no_notice, NULL), 6);
}

/* ---- Ranks that do not come, and what is no message ---- */

static void be_patient(double seconds)
{
    shoal_bootstrap_set_patience(seconds);
}

static int count_lines(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++) {
        n += *text == '\n';
    }
    return n;
}

/* Rank 2 stops before its first exchange, before a later one, or in the middle of a message; the
 * others come and are told. */
typedef enum { STOPS_AT_ONCE, STOPS_LATER, STOPS_HALF_WAY } stop_t;

static int rank_is_stopped(void *argument)
{
    stop_t stop = *(const stop_t *)argument;
    char   mine = 0, all[NRANKS];
    if (stop == STOPS_AT_ONCE && launched_rank() == 2) {
        raise(SIGSTOP);
    }
    shoal_bootstrap_t *b     = open_world();
    shoal_peers_t      peers = shoal_bootstrap_peers(b);
    b->stage                 = "the test's own stage";
    if (b->rank == 2 && stop == STOPS_HALF_WAY) {
        CHECK(send(launcher_socket(), "loas", 4, 0) == 4);
    }
    if (b->rank == 2) {
        raise(SIGSTOP);
    }
    CHECK(peers.exchange(peers.context, &mine, 1, all) == SHOAL_ERR_PEER);
    /* Once more, at once and without a word. */
    CHECK(peers.exchange(peers.context, &mine, 1, all) == SHOAL_ERR_PEER);
    shoal_bootstrap_close(b);
    return shoal_status_exit_code(SHOAL_ERR_PEER);
}

static void test_a_stopped_rank_is_named(void **state)
{
    static const stop_t stops[] = {STOPS_AT_ONCE, STOPS_LATER, STOPS_HALF_WAY};
    (void)state;
    be_patient(0.2);
    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
        capture_begin();
        int         code = launch(rank_is_stopped, (void *)(uintptr_t)&stops[i]);
        const char *said = capture_end();
        assert_int_equal(code, shoal_status_exit_code(SHOAL_ERR_PEER));
        assert_contains(said, stops[i] == STOPS_AT_ONCE ? "\"the ranks finding each other\""
                                                        : "\"the test's own stage\"");
        assert_contains(said, "for rank 2 (process ");
        assert_contains(said, ", stopped); ending the job");
        assert_int_equal(count_lines(said), 1);
    }
    be_patient(SHOAL_BOOTSTRAP_PATIENCE_S);
}

/* A rank that is only slow delays nobody for good; one that gave up elsewhere is not waited for as
 * long as the others would. */
static int rank_is_slow(void *argument)
{
    (void)argument;
    usleep(launched_rank() == 1 ? 700000 : 0);
    shoal_bootstrap_t *b = open_world();
    barrier(b);
    shoal_bootstrap_close(b);
    return 0;
}

static int rank_is_hurried(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b     = open_world();
    shoal_peers_t      peers = shoal_bootstrap_peers(b);
    char               mine = 0, all[NRANKS];
    b->patience_s = 1e5;
    if (b->rank == 1) {
        shoal_bootstrap_hurry(b, SHOAL_ERR_PEER);
    }
    if (b->rank == 3) {
        raise(SIGSTOP);
    }
    CHECK(peers.exchange(peers.context, &mine, 1, all) == SHOAL_ERR_PEER);
    shoal_bootstrap_close(b);
    return shoal_status_exit_code(SHOAL_ERR_PEER);
}

static void test_slow_and_hurried_ranks(void **state)
{
    (void)state;
    be_patient(0.2); /* and the margin */
    assert_int_equal(launch(rank_is_slow, NULL), 0);
    be_patient(SHOAL_BOOTSTRAP_PATIENCE_S);
    assert_int_equal(launch(rank_is_hurried, NULL), shoal_status_exit_code(SHOAL_ERR_PEER));
}

/* Text, a header of an unknown kind, a second message before the answer to the first: none may hold
 * up or confuse the launcher. */
static int rank_talks_nonsense(void *argument)
{
    const char        *text = argument;
    shoal_bootstrap_t *b    = open_world();
    barrier(b);
    if (b->rank == 1) {
        CHECK(send(launcher_socket(), text, 200, 0) == 200);
    }
    while (pause() != 0) { /* it returns -1 always */
    }
    return 0;
}

static void test_nonsense_is_refused(void **state)
{
    shoal_local_header_t unknown[4] = {{.magic = SHOAL_LOCAL_MAGIC, .kind = 77}};
    shoal_local_header_t huge[4]    = {
           {.magic = SHOAL_LOCAL_MAGIC, .kind = SHOAL_LOCAL_EXCHANGE, .nbytes = 1ull << 60}};
    shoal_local_header_t twice[4] = {
        {.magic = SHOAL_LOCAL_MAGIC, .kind = SHOAL_LOCAL_EXCHANGE, .patience_ms = 100000},
        {.magic = SHOAL_LOCAL_MAGIC, .kind = SHOAL_LOCAL_EXCHANGE, .patience_ms = 100000}};
    char                 text[256];
    void                *what[] = {text, unknown, huge, twice};
    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
        capture_begin();
        int         code = launch(rank_talks_nonsense, what[i]);
        const char *said = capture_end();
        assert_int_equal(code, 1);
        assert_contains(said, "rank 1 sent its launcher something that is no message");
    }
}

/* ---- Signals and orphans ---- */

static volatile sig_atomic_t seen;

static void note_signal(int signal)
{
    seen = signal;
}

typedef struct {
    int   ready[2]; /* a byte from each rank that has its handlers; at its end no rank is left */
    int   expect;
} signal_test_t;

static int rank_waits_for_signal(void *argument)
{
    const signal_test_t *test   = argument;
    struct sigaction     action = {.sa_handler = note_signal};
    sigset_t             all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    CHECK(write(test->ready[1], "", 1) == 1);
    sigdelset(&before, test->expect);
    while (seen == 0) {
        sigsuspend(&before);
    }
    CHECK(seen == test->expect);
    return shoal_status_exit_code(SHOAL_ERR_STOPPED);
}

/* A launcher in a process of its own, once all its ranks are ready. Only the ranks and it hold the pipe's writing end. */
static pid_t start_launcher(signal_test_t *test)
{
    char byte;
    assert_int_equal(pipe(test->ready), 0);
    pid_t launcher = fork();
    if (launcher == 0) {
        close(test->ready[0]);
        _exit(launch(rank_waits_for_signal, test));
    }
    close(test->ready[1]);
    for (int r = 0; r < NRANKS; r++) {
        assert_int_equal(read(test->ready[0], &byte, 1), 1);
    }
    return launcher;
}

/* Returns once no process holds the pipe any more; a rank that stayed would make this hang, which the test's time limit ends. */
static void wait_for_nobody(signal_test_t *test)
{
    char byte;
    while (read(test->ready[0], &byte, 1) == -1 && errno == EINTR) {
    }
    close(test->ready[0]);
}

static void test_signals_are_passed_on(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        signal_test_t test   = {.expect = signals[i]};
        pid_t         launcher = start_launcher(&test);
        int           status;
        assert_int_equal(kill(launcher, signals[i]), 0);
        assert_int_equal(waitpid(launcher, &status, 0), launcher);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), shoal_status_exit_code(SHOAL_ERR_STOPPED));
        wait_for_nobody(&test);
    }
}

static void test_killed_launcher_leaves_nobody(void **state)
{
    signal_test_t test     = {.expect = SIGTERM};
    pid_t         launcher = start_launcher(&test);
    int           status;
    (void)state;
    assert_int_equal(kill(launcher, SIGKILL), 0);
    assert_int_equal(waitpid(launcher, &status, 0), launcher);
    wait_for_nobody(&test);
}

/* ---- Worlds of one ---- */

static void forget_launchers(void)
{
    static const char *const variables[] = {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "PMI_SIZE",
                                            "PMI_RANK", "PMI_FD", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_SIZE"};
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
        unsetenv(variables[i]);
    }
}

/* The size of the world in an environment given as NAME=VALUE words, or the negative status. */
static int size_in(char *const *environment)
{
    shoal_bootstrap_t *b = NULL;
    forget_launchers();
    for (; *environment != NULL; environment++) {
        putenv(*environment);
    }
    shoal_status_t status = shoal_bootstrap_open("auto", &b);
    int            size   = status == SHOAL_OK ? b->size : (int)status;
    shoal_bootstrap_close(b);
    forget_launchers();
    return size;
}

#define ENVIRONMENT(...) ((char *[]){__VA_ARGS__, NULL})

static void test_worlds_of_one(void **state)
{
    (void)state;
    assert_int_equal(size_in(ENVIRONMENT(NULL)), 1);
    /* A step of one task, a batch script of a larger job in its two guises, an interactive shell. */
    assert_int_equal(size_in(ENVIRONMENT("SLURM_STEP_ID=0", "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=1", "SLURM_NTASKS=8")), 1);
    assert_int_equal(size_in(ENVIRONMENT("SLURM_PROCID=0", "SLURM_NTASKS=8")), 1);
    assert_int_equal(size_in(ENVIRONMENT("SLURM_STEP_ID=4294967291", "SLURM_PROCID=0", "SLURM_NTASKS=8")), 1);
    assert_int_equal(size_in(ENVIRONMENT("SLURM_STEP_ID=4294967290", "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=8")), 1);
    /* Several tasks, and nothing to find the others by. */
    assert_int_equal(size_in(ENVIRONMENT("SLURM_STEP_ID=0", "SLURM_PROCID=3", "SLURM_STEP_NUM_TASKS=4")), SHOAL_ERR_CONFIG);
    assert_int_equal(size_in(ENVIRONMENT("SLURM_STEP_ID=1", "SLURM_PROCID=0", "SLURM_NTASKS=2")), SHOAL_ERR_CONFIG);
    assert_int_equal(size_in(ENVIRONMENT("PMI_SIZE=4")), SHOAL_ERR_CONFIG);
}

/* Each of a launcher's tasks would fork a world of its own. */
static void test_no_launch_within_a_launch(void **state)
{
    (void)state;
    setenv("PMI_SIZE", "2", 1);
    assert_int_equal(launch(rank_stops, NULL), shoal_status_exit_code(SHOAL_ERR_CONFIG));
    forget_launchers();
    assert_int_equal(shoal_bootstrap_launch_local(0, rank_stops, NULL), shoal_status_exit_code(SHOAL_ERR_CONFIG));
}

/* ---- The board ---- */

static shoal_place_t place_of(int rank)
{
    return (shoal_place_t){.run = 100 + rank, .notes = {rank, 10 * rank, -1}};
}

/* Of the last rank: it says, before it ends, that its end is no news. */
static bool resigns;

/* Every rank reads what every other has posted; then the last one ends, and the others see it. */
static int rank_uses_board(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b     = open_world();
    shoal_peers_t      peers = shoal_bootstrap_peers(b);
    shoal_board_t     *board;
    shoal_place_t      mine = place_of(b->rank), place;
    bool               alive;
    CHECK(shoal_board_open(b, &peers, &board) == SHOAL_OK);
    shoal_board_post(board, &mine);
    barrier(b);
    for (int r = 0; r < NRANKS; r++) {
        shoal_place_t expected = place_of(r);
        CHECK(shoal_board_read(board, r, &place, &alive) && alive && memcmp(&place, &expected, sizeof(place)) == 0);
    }
    if (b->rank == NRANKS - 1 && resigns) {
        shoal_board_resign(board);
    }
    barrier(b);
    if (b->rank == NRANKS - 1) {
        _exit(0);
    }
    for (int i = 0; alive && i < (resigns ? 200 : 10000); i++) {
        usleep(1000);
        CHECK(shoal_board_read(board, NRANKS - 1, &place, &alive) && place.run == 100 + NRANKS - 1);
    }
    CHECK(alive == resigns);
    shoal_board_close(board);
    shoal_bootstrap_close(b);
    return 0;
}

/* A rank that says it lives on another host is not looked for. */
static int rank_is_elsewhere(void *argument)
{
    (void)argument;
    shoal_bootstrap_t *b     = open_world();
    shoal_peers_t      peers = shoal_bootstrap_peers(b);
    shoal_board_t     *board;
    shoal_place_t      place;
    bool               alive;
    b->node = b->rank == 0 ? 1 : 0;
    CHECK(shoal_board_open(b, &peers, &board) == SHOAL_OK);
    CHECK(shoal_board_read(board, 0, &place, &alive) == (b->rank == 0));
    CHECK(shoal_board_read(board, 1, &place, &alive) == (b->rank != 0));
    barrier(b);
    shoal_board_close(board);
    shoal_bootstrap_close(b);
    return 0;
}

static void test_board(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        resigns = i != 0;
        assert_int_equal(launch(rank_uses_board, NULL), 0);
    }
    assert_int_equal(launch(rank_is_elsewhere, NULL), 0);
}

static void test_names(void **state)
{
    shoal_bootstrap_t *b = NULL;
    (void)state;
    assert_int_equal(shoal_bootstrap_open("carrier-pigeon", &b), SHOAL_ERR_CONFIG);
    assert_int_equal(shoal_bootstrap_open("local", &b), SHOAL_ERR_CONFIG); /* nobody forked this process as a rank */
    assert_null(b);
}

/* ---- Under a launcher ---- */

/*
 * SHOAL_TEST_LAUNCHED names a bootstrap: ranks that mpirun or srun started exchange, and then rank
 * 1 stops, so that the others must name it and end the job with exit code 5. Their numbers may be
 * of any size.
 */
static int run_launched(const char *name)
{
    shoal_bootstrap_t *b;
    char               mine = 0;
    CHECK(shoal_bootstrap_open(name, &b) == SHOAL_OK && b->size > 2);
    size_t         size = (size_t)b->size;
    unsigned char *part = malloc(100000), *all = malloc(100000 * size);
    CHECK(part != NULL && all != NULL);
    for (size_t nbytes = 0; nbytes <= 100000; nbytes = nbytes * 5 + 1) {
        memset(part, 'a' + b->rank % 16, nbytes);
        CHECK(b->ops->exchange(b, part, nbytes, all) == SHOAL_OK);
        for (size_t i = 0; i < size * nbytes; i++) {
            CHECK(all[i] == 'a' + i / nbytes % 16);
        }
    }
    b->patience_s = 1;
    b->stage      = "the test's own stage";
    if (b->rank == 1) {
        raise(SIGSTOP);
    }
    CHECK(b->ops->exchange(b, &mine, 1, all) == SHOAL_ERR_PEER);
    usleep(b->rank == 0 ? 0 : 500000); /* the one that names it is not cut short */
    b->ops->abort(b, shoal_status_exit_code(SHOAL_ERR_PEER), "told to");
    return shoal_status_exit_code(SHOAL_ERR_PEER);
}

int main(void)
{
    if (getenv("SHOAL_TEST_LAUNCHED") != NULL) {
        return run_launched(getenv("SHOAL_TEST_LAUNCHED"));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchanges),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_stopped_on_request),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_grace_ends),
        cmocka_unit_test(test_a_stopped_rank_is_named),
        cmocka_unit_test(test_slow_and_hurried_ranks),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_signals_are_passed_on),
        cmocka_unit_test(test_killed_launcher_leaves_nobody),
        cmocka_unit_test(test_worlds_of_one),
        cmocka_unit_test(test_no_launch_within_a_launch),
        cmocka_unit_test(test_board),
        cmocka_unit_test(test_names),
    };
    forget_launchers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
