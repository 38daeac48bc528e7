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
#include "runtime/bootstrap/backend.h"
#include "runtime/bootstrap/local.h"

/* How long the others may report and leave by themselves once a rank has failed. */
enum { GRACE_MS = 5000 };

typedef struct {
    pid_t           pid; /* 0 once reaped */
    int             fd;
    shoal_mailbox_t mail; /* complete: the rank waits in an exchange, with its part in mail.body */
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
    char         *answer;      /* to the last exchange; the ranks' mailboxes send it */
    int64_t       wait_since_ns; /* of the exchange that some ranks are in, or of the first */
    int64_t       wait_until_ns; /* its deadline; 0: nobody is in one */
    char          stage[SHOAL_LOCAL_STAGE_NBYTES]; /* what the waiting ranks are at */
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

static void begin_waiting(launch_t *job, double seconds)
{
    job->wait_since_ns = shoal_time_ns();
    job->wait_until_ns = job->wait_since_ns + (int64_t)(seconds * 1e9);
}

/* Tells whoever waits in the exchange that it cannot complete. So short an answer always fits the
 * socket's empty buffer. */
static void refuse_exchange(launch_t *job, shoal_local_kind_t why, int lost_rank)
{
    shoal_local_header_t answer = {.magic = SHOAL_LOCAL_MAGIC, .kind = why, .value = lost_rank};
    for (int r = 0; r < job->size; r++) {
        if (job->ranks[r].mail.complete) {
            shoal_mailbox_clear(&job->ranks[r].mail);
            shoal_mailbox_answer(&job->ranks[r].mail, job->ranks[r].fd, &answer, sizeof(answer));
            job->ranks[r].mail.out_sent = job->ranks[r].mail.out_nbytes;
        }
    }
    job->wait_until_ns = 0;
}

static bool exchange_is_complete(const launch_t *job)
{
    for (int r = 0; r < job->size; r++) {
        if (!job->ranks[r].mail.complete) {
            return false;
        }
    }
    return true;
}

/*
 * Every rank has taken the whole of the last answer, or it could not have come to this exchange:
 * the buffer is free. A rank that dies while it is answered is seen by reap().
 */
static void answer_exchange(launch_t *job)
{
    size_t nbytes = job->ranks[0].mail.header.nbytes,
           total  = sizeof(shoal_local_header_t) + nbytes * (size_t)job->size;
    free(job->answer);
    job->answer = malloc(total);
    if (job->answer == NULL) {
        shoal_error("no memory to exchange %zu bytes among %d ranks", nbytes, job->size);
        fail(job, shoal_status_exit_code(SHOAL_ERR_NO_MEMORY), 0);
        return;
    }
    shoal_local_header_t header = {
        .magic = SHOAL_LOCAL_MAGIC, .kind = SHOAL_LOCAL_EXCHANGE, .nbytes = nbytes};
    memcpy(job->answer, &header, sizeof(header));
    for (int r = 0; r < job->size; r++) {
        memcpy(job->answer + sizeof(header) + (size_t)r * nbytes, job->ranks[r].mail.body, nbytes);
        shoal_mailbox_clear(&job->ranks[r].mail);
    }
    job->wait_until_ns = 0;
    for (int r = 0; r < job->size; r++) {
        shoal_mailbox_answer(&job->ranks[r].mail, job->ranks[r].fd, job->answer, total);
    }
}

/* ranks must agree on the size of an exchange: a mismatch is a bug in the caller that would corrupt everyone. */
static bool offers_agree(const launch_t *job)
{
    for (int r = 1; r < job->size; r++) {
        size_t first = job->ranks[0].mail.header.nbytes, other = job->ranks[r].mail.header.nbytes;
        if (first != other) {
            shoal_error("ranks 0 and %d exchange %zu and %zu bytes", r, first, other);
            return false;
        }
    }
    return true;
}

static void take_offer(launch_t *job, const shoal_local_header_t *header)
{
    int64_t until_ns = shoal_time_ns() + (int64_t)header->patience_ms * 1000000;
    if (job->wait_until_ns == 0) {
        begin_waiting(job, (double)header->patience_ms * 1e-3);
    } else if (until_ns < job->wait_until_ns) {
        /* This rank has waited for the others before, elsewhere, and is less patient. */
        job->wait_until_ns = until_ns;
    }
    memcpy(job->stage, header->stage, sizeof(job->stage));
    if (job->lost_rank >= 0) {
        refuse_exchange(job, SHOAL_LOCAL_LOST, job->lost_rank);
    } else if (exchange_is_complete(job)) {
        if (offers_agree(job)) {
            answer_exchange(job);
        } else {
            fail(job, shoal_status_exit_code(SHOAL_ERR_INTERNAL), 0);
        }
    }
}

static void refuse_message(launch_t *job, int rank, shoal_status_t status)
{
    job->polls[rank].fd = -1;
    if (status == SHOAL_ERR_INVALID) {
        shoal_error(
            "rank %d sent its launcher something that is no message (kind %u); ending the job",
            rank, (unsigned)job->ranks[rank].mail.header.kind);
        fail(job, shoal_status_exit_code(SHOAL_ERR_INTERNAL), 0);
    } else if (status == SHOAL_ERR_NO_MEMORY) {
        shoal_error("no memory for a message of rank %d", rank);
        fail(job, shoal_status_exit_code(status), 0);
    } /* else it is closed: what that means is known when the process is reaped */
}

static void serve_rank(launch_t *job, int rank)
{
    shoal_mailbox_t *mail = &job->ranks[rank].mail;
    shoal_mailbox_write(mail, job->ranks[rank].fd);
    if ((job->polls[rank].revents & ~POLLOUT) == 0) {
        return;
    }
    shoal_status_t status = shoal_mailbox_read(mail, job->ranks[rank].fd);
    if (status < 0) {
        refuse_message(job, rank, status);
    } else if (status == SHOAL_OK && mail->header.kind == SHOAL_LOCAL_ABORT) {
        int code = mail->header.value;
        shoal_mailbox_clear(mail);
        fail(job, code > 0 && code < 256 ? code : shoal_status_exit_code(SHOAL_ERR_INTERNAL), 0);
    } else if (status == SHOAL_OK) {
        take_offer(job, &mail->header);
    }
}

/* ---- Deadlines ---- */

static bool is_stopped(pid_t pid)
{
    char  path[64], line[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        char *read = fgets(line, sizeof(line), file);
        fclose(file);
        if (read == NULL) {
            return false;
        }
    }
    const char *name_end = strrchr(line, ')');
    return name_end != NULL && (name_end[2] == 'T' || name_end[2] == 't');
}

/* "rank 2 (process 4711, stopped), rank 5 (process 4714)"; kills them as it goes. */
static void name_and_kill_late(launch_t *job, size_t nbytes, char *text_p)
{
    size_t used = 0;
    for (int r = 0; r < job->size; r++) {
        const rank_state_t *rank = &job->ranks[r];
        if (rank->pid == 0 || rank->mail.complete) {
            continue;
        }
        if (used < nbytes) {
            used += (size_t)snprintf(text_p + used, nbytes - used, "%srank %d (process %d%s)",
                                     used > 0 ? ", " : "", r, (int)rank->pid,
                                     is_stopped(rank->pid) ? ", stopped" : "");
        }
        kill(rank->pid, SIGKILL);
    }
}

/* Some rank does not come. Those that wait for it are told, and leave by themselves. */
static void give_up_waiting(launch_t *job)
{
    char late[512] = "";
    name_and_kill_late(job, sizeof(late), late);
    shoal_error("at the stage \"%s\": waited %.0f s in vain for %s; ending the job", job->stage,
                shoal_ms_since(job->wait_since_ns) * 1e-3, late);
    refuse_exchange(job, SHOAL_LOCAL_LATE, -1);
    fail(job, shoal_status_exit_code(SHOAL_ERR_PEER), GRACE_MS);
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
        shoal_mailbox_clear(&job->ranks[r].mail);
        judge_end(job, r, wait_status);
        refuse_exchange(job, SHOAL_LOCAL_LOST, r);
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

/* The time at which the launcher acts by itself: the end of the grace, or of its patience with an
 * exchange. 0: never. */
static int64_t next_deadline_ns(const launch_t *job)
{
    if (job->kill_at_ns != 0) {
        return job->killed ? 0 : job->kill_at_ns;
    }
    return job->wait_until_ns;
}

static int poll_timeout_ms(const launch_t *job)
{
    int64_t deadline_ns = next_deadline_ns(job);
    int64_t left_ns     = deadline_ns - shoal_time_ns();
    return deadline_ns == 0 ? -1 : left_ns > 0 ? (int)(left_ns / 1000000) + 1 : 0;
}

static void act_on_deadline(launch_t *job)
{
    int64_t deadline_ns = next_deadline_ns(job);
    if (deadline_ns == 0 || shoal_time_ns() < deadline_ns) {
        return;
    }
    if (job->kill_at_ns == 0) {
        give_up_waiting(job);
    } else {
        signal_ranks(job, SIGKILL);
        job->killed = true;
    }
}

static void serve_until_all_left(launch_t *job)
{
    while (job->nalive > 0) {
        for (int r = 0; r < job->size; r++) {
            job->polls[r].events =
                (short)(POLLIN | (shoal_mailbox_has_output(&job->ranks[r].mail) ? POLLOUT : 0));
        }
        int nready = poll(job->polls, (nfds_t)job->size + 1, poll_timeout_ms(job));
        for (int r = 0; nready > 0 && r < job->size; r++) {
            if (job->polls[r].fd >= 0 && job->polls[r].revents != 0) {
                serve_rank(job, r);
            }
        }
        if (nready > 0 && job->polls[job->size].revents != 0) {
            serve_signals(job);
        }
        act_on_deadline(job);
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
        shoal_mailbox_clear(&job->ranks[r].mail);
        if (job->ranks[r].fd >= 0) {
            close(job->ranks[r].fd);
        }
    }
    if (job->signal_fd >= 0) {
        close(job->signal_fd);
    }
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    free(job->answer);
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
    return shoal_bootstrap_check_limits(nranks);
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
        .stage     = "starting the ranks",
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
    begin_waiting(&job, shoal_bootstrap_first_patience() + SHOAL_BOOTSTRAP_MARGIN_S);
    if (status != SHOAL_OK) {
        fail(&job, shoal_status_exit_code(status), 0);
    }
    serve_until_all_left(&job);
    launch_cleanup(&job);
    return job.exit_code;
}
