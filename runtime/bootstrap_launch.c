/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The launcher's side of the local bootstrap: one process that forks the ranks, serves their exchanges and watches them. It is a
 * single poll loop over the ranks' sockets and a signalfd, so a death, a signal and a message are handled by one thread, in
 * order. A rank's socket stays open in the launcher until the rank is reaped: its end of file is not needed to see a death.
 *
 * Leaving nothing behind: PR_SET_PDEATHSIG kills a rank when the launcher dies, however it dies; a rank that was orphaned
 * before it could ask for that sees another parent and leaves by itself.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/output.h"
#include "base/time.h"
#include "runtime/bootstrap_backend.h"
#include "runtime/bootstrap_local.h"

/* How long the others may report and leave by themselves once a rank has failed. */
enum { GRACE_MS = 5000 };

typedef struct {
    pid_t  pid; /* 0 once reaped */
    int    fd;
    void  *offer; /* what the rank contributes to the exchange, NULL while it is not in one */
    size_t offer_nbytes;
} rank_state_t;

typedef struct {
    int           size, nalive;
    int           signal_fd;
    int           exit_code; /* of the first rank that failed */
    int           lost_rank; /* some rank that left, -1 while all are here */
    int           passed_on; /* the last signal passed on to the ranks */
    int64_t       kill_at_ns; /* when the grace ends, 0 while nothing has failed */
    bool          killed;      /* the grace has ended */
    bool          only_echoes; /* every failure so far was a rank that had lost another */
    sigset_t      old_mask;
    rank_state_t *ranks;   /* (size) */
    struct pollfd *polls;  /* (size + 1), the signalfd last */
} launch_t;

/* ---- Signals to the ranks ---- */

static void signal_ranks(const launch_t *job, int signal)
{
    for (int r = 0; r < job->size; r++) {
        if (job->ranks[r].pid > 0) {
            kill(job->ranks[r].pid, signal);
        }
    }
}

static void fail(launch_t *job, int exit_code, int grace_ms)
{
    if (job->kill_at_ns == 0) {
        job->exit_code  = exit_code;
        job->kill_at_ns = shoal_time_ns() + (int64_t)grace_ms * 1000000;
    }
}

/* ---- Exchanges ---- */

static void drop_offers(launch_t *job)
{
    for (int r = 0; r < job->size; r++) {
        free(job->ranks[r].offer);
        job->ranks[r].offer = NULL;
    }
}

/* Once a rank has left, an exchange cannot complete: whoever waits in one is told. */
static void refuse_exchange(launch_t *job)
{
    shoal_local_header_t answer = {.kind = SHOAL_LOCAL_LOST, .value = job->lost_rank};
    for (int r = 0; r < job->size; r++) {
        if (job->ranks[r].offer != NULL) {
            (void)shoal_local_send(job->ranks[r].fd, &answer, sizeof(answer));
        }
    }
    drop_offers(job);
}

static bool exchange_is_complete(const launch_t *job)
{
    for (int r = 0; r < job->size; r++) {
        if (job->ranks[r].offer == NULL) {
            return false;
        }
    }
    return true;
}

/* A rank that dies while it is answered is seen by reap(); its send error needs no handling here. */
static void answer_exchange(launch_t *job)
{
    shoal_local_header_t answer = {.kind = SHOAL_LOCAL_EXCHANGE, .nbytes = job->ranks[0].offer_nbytes};
    for (int r = 0; r < job->size; r++) {
        (void)shoal_local_send(job->ranks[r].fd, &answer, sizeof(answer));
        for (int q = 0; q < job->size; q++) {
            (void)shoal_local_send(job->ranks[r].fd, job->ranks[q].offer, answer.nbytes);
        }
    }
    drop_offers(job);
}

/* ranks must agree on the size of an exchange: a mismatch is a bug in the caller that would corrupt everyone. */
static bool offers_agree(const launch_t *job)
{
    for (int r = 1; r < job->size; r++) {
        if (job->ranks[r].offer_nbytes != job->ranks[0].offer_nbytes) {
            shoal_error("ranks 0 and %d exchange %zu and %zu bytes", r, job->ranks[0].offer_nbytes,
                        job->ranks[r].offer_nbytes);
            return false;
        }
    }
    return true;
}

static void take_offer(launch_t *job, int rank, size_t nbytes)
{
    rank_state_t *r = &job->ranks[rank];
    r->offer        = malloc(nbytes + 1); /* never NULL for an empty contribution */
    r->offer_nbytes = nbytes;
    if (r->offer == NULL) {
        fail(job, shoal_status_exit_code(SHOAL_ERR_NO_MEMORY), 0);
        return;
    }
    if (shoal_local_recv(r->fd, r->offer, nbytes) != SHOAL_OK) {
        return; /* it died half way; reap() will say so */
    }
    if (job->lost_rank >= 0) {
        refuse_exchange(job);
    } else if (exchange_is_complete(job)) {
        if (offers_agree(job)) {
            answer_exchange(job);
        } else {
            fail(job, shoal_status_exit_code(SHOAL_ERR_INTERNAL), 0);
        }
    }
}

static void serve_rank(launch_t *job, int rank)
{
    shoal_local_header_t header;
    if (shoal_local_recv(job->ranks[rank].fd, &header, sizeof(header)) != SHOAL_OK) {
        job->polls[rank].fd = -1; /* closed: what it means is known when the process is reaped */
    } else if (header.kind == SHOAL_LOCAL_EXCHANGE) {
        take_offer(job, rank, header.nbytes);
    } else if (header.kind == SHOAL_LOCAL_ABORT) {
        fail(job, header.value, 0);
    }
}

/* ---- Deaths ---- */

/* A rank that left because it lost another: an echo of a failure that may be reaped later. */
static bool is_echo(int wait_status)
{
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == shoal_status_exit_code(SHOAL_ERR_PEER);
}

static int exit_code_of(const launch_t *job, int wait_status)
{
    if (!WIFSIGNALED(wait_status)) {
        return WEXITSTATUS(wait_status);
    }
    int signal = WTERMSIG(wait_status);
    return signal == job->passed_on ? 128 + signal : shoal_status_exit_code(SHOAL_ERR_PEER);
}

static void report_end(int rank, int wait_status)
{
    if (WIFSIGNALED(wait_status)) {
        shoal_error("rank %d was killed by signal %d (%s)", rank, WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    } else {
        shoal_error("rank %d failed with exit code %d", rank, WEXITSTATUS(wait_status));
    }
}

/*
 * What a rank's end means for the job. A stop on request (75) is no failure: the others are about to leave the same way, and
 * may still be writing their part of the checkpoint. The first failure that is no echo gives the job its code.
 */
static void judge_end(launch_t *job, int rank, int wait_status)
{
    int code = exit_code_of(job, wait_status);
    if (code == 0 || job->killed) {
        return;
    }
    if (code == shoal_status_exit_code(SHOAL_ERR_STOPPED)) {
        job->exit_code = job->exit_code == 0 ? code : job->exit_code;
        return;
    }
    bool first = job->kill_at_ns == 0;
    if (first || (job->only_echoes && !is_echo(wait_status))) {
        report_end(rank, wait_status);
        job->exit_code   = code;
        job->only_echoes = is_echo(wait_status);
    }
    fail(job, code, GRACE_MS);
}

static void reap(launch_t *job)
{
    for (int r = 0; r < job->size; r++) {
        int wait_status;
        if (job->ranks[r].pid == 0 || waitpid(job->ranks[r].pid, &wait_status, WNOHANG) != job->ranks[r].pid) {
            continue;
        }
        job->ranks[r].pid = 0;
        job->polls[r].fd  = -1;
        job->lost_rank    = r;
        job->nalive--;
        free(job->ranks[r].offer);
        job->ranks[r].offer = NULL;
        judge_end(job, r, wait_status);
        refuse_exchange(job);
    }
}

static void serve_signals(launch_t *job)
{
    struct signalfd_siginfo info;
    while (read(job->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        int signal = (int)info.ssi_signo;
        if (signal == SIGCHLD) {
            continue;
        }
        job->passed_on = signal;
        /* A key press at the terminal reached the ranks already: they share the process group. */
        if (info.ssi_code <= 0) {
            signal_ranks(job, signal);
        }
    }
    reap(job);
}

/* ---- The job ---- */

static int poll_timeout_ms(const launch_t *job)
{
    if (job->kill_at_ns == 0 || job->killed) {
        return -1;
    }
    int64_t left_ns = job->kill_at_ns - shoal_time_ns();
    return left_ns > 0 ? (int)(left_ns / 1000000) + 1 : 0;
}

static void serve_until_all_left(launch_t *job)
{
    while (job->nalive > 0) {
        int nready = poll(job->polls, (nfds_t)job->size + 1, poll_timeout_ms(job));
        for (int r = 0; nready > 0 && r < job->size; r++) {
            if (job->polls[r].fd >= 0 && job->polls[r].revents != 0) {
                serve_rank(job, r);
            }
        }
        if (nready > 0 && job->polls[job->size].revents != 0) {
            serve_signals(job);
        }
        if (!job->killed && job->kill_at_ns != 0 && shoal_time_ns() >= job->kill_at_ns) {
            signal_ranks(job, SIGKILL);
            job->killed = true;
        }
    }
}

static _Noreturn void run_rank(launch_t *job, int rank, int fd, pid_t launcher, int (*rank_main)(void *), void *argument)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) {
        _exit(shoal_status_exit_code(SHOAL_ERR_PEER));
    }
    for (int r = 0; r < rank; r++) {
        close(job->ranks[r].fd);
    }
    int size = job->size;
    close(job->signal_fd);
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    free(job->ranks);
    free(job->polls);
    shoal_local_become_rank(fd, rank, size);
    exit(shoal_output_finish(rank_main(argument)));
}

static shoal_status_t fork_ranks(launch_t *job, int (*rank_main)(void *), void *argument)
{
    pid_t launcher = getpid();
    fflush(NULL); /* or every rank would print what is still in the buffers once more */
    for (int r = 0; r < job->size; r++) {
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
            shoal_error("socketpair for rank %d: %s", r, strerror(errno));
            return SHOAL_ERR_INTERNAL;
        }
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            run_rank(job, r, fds[1], launcher, rank_main, argument);
        }
        close(fds[1]);
        job->ranks[r] = (rank_state_t){.pid = pid > 0 ? pid : 0, .fd = fds[0]};
        job->polls[r] = (struct pollfd){.fd = fds[0], .events = POLLIN};
        if (pid < 0) {
            shoal_error("fork of rank %d: %s", r, strerror(errno));
            return SHOAL_ERR_INTERNAL;
        }
        job->nalive++;
    }
    return SHOAL_OK;
}

/* From here on the signals come through the signalfd only. */
static shoal_status_t take_signals(launch_t *job)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, &job->old_mask);
    job->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (job->signal_fd < 0) {
        shoal_error("signalfd: %s", strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    job->polls[job->size] = (struct pollfd){.fd = job->signal_fd, .events = POLLIN};
    return SHOAL_OK;
}

static void launch_cleanup(launch_t *job)
{
    for (int r = 0; r < job->size; r++) {
        free(job->ranks[r].offer);
        if (job->ranks[r].fd >= 0) {
            close(job->ranks[r].fd);
        }
    }
    if (job->signal_fd >= 0) {
        close(job->signal_fd);
    }
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    free(job->ranks);
    free(job->polls);
}

static shoal_status_t check_may_launch(int nranks)
{
    shoal_launcher_t launcher = shoal_launcher_from_environment();
    if (nranks < 1) {
        shoal_error("cannot start %d ranks", nranks);
        return SHOAL_ERR_CONFIG;
    }
    if (launcher.size > 1) {
        shoal_error("a launcher started %d tasks already, and each would fork %d ranks of its own: drop -n", launcher.size,
                    nranks);
        return SHOAL_ERR_CONFIG;
    }
    return SHOAL_OK;
}

int shoal_bootstrap_launch_local(int nranks, int (*rank_main)(void *argument), void *argument)
{
    shoal_status_t status = check_may_launch(nranks);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    launch_t job = {
        .size      = nranks,
        .signal_fd = -1,
        .lost_rank = -1,
        .ranks     = calloc((size_t)nranks, sizeof(*job.ranks)),
        .polls     = calloc((size_t)nranks + 1, sizeof(*job.polls)),
    };
    if (job.ranks == NULL || job.polls == NULL) {
        free(job.ranks);
        free(job.polls);
        return shoal_status_exit_code(SHOAL_ERR_NO_MEMORY);
    }
    for (int r = 0; r < nranks; r++) {
        job.ranks[r].fd = job.polls[r].fd = -1;
    }
    status = take_signals(&job);
    if (status == SHOAL_OK) {
        status = fork_ranks(&job, rank_main, argument);
    }
    if (status != SHOAL_OK) {
        fail(&job, shoal_status_exit_code(status), 0);
    }
    serve_until_all_left(&job);
    launch_cleanup(&job);
    return job.exit_code;
}
