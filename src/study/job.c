/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests go to the child alone: srun forwards them to its tasks, `shoal train -n` to its ranks. Only the last resort
 * goes to the group.
 */
#include "src/study/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"

/* A step may take seconds, so the request gets time to be seen; all stages fit in the minute that study.sbatch allows. */
enum { ASK_MS = 20000, TERMINATE_MS = 15000, TICK_MS = 200 };

static sigset_t taken_signals, mask_before;

void shoal_job_setup(void)
{
    sigemptyset(&taken_signals);
    sigaddset(&taken_signals, SIGCHLD);
    sigaddset(&taken_signals, SIGUSR1);
    sigaddset(&taken_signals, SIGTERM);
    sigaddset(&taken_signals, SIGINT);
    sigprocmask(SIG_BLOCK, &taken_signals, &mask_before);
}

/* What a row's time to its first step counts from: this moment, before the launcher. */
static void stamp_launch(void)
{
    struct timespec now;
    char            text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof(text), "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
    setenv("SHOAL_LAUNCH_TIME", text, 1);
}

/* In the child. SIGTERM at the death of the study: no row may outlive it and disturb the timing of the next. */
static void __attribute__((noreturn)) become(char *const argv[], int log_fd, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (getppid() == parent && null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 && dup2(log_fd, STDOUT_FILENO) >= 0 &&
        dup2(log_fd, STDERR_FILENO) >= 0) {
        sigprocmask(SIG_SETMASK, &mask_before, NULL);
        stamp_launch();
        execvp(argv[0], argv);
        dprintf(STDERR_FILENO, "shoal: error: cannot execute %s: %s\n", argv[0], strerror(errno));
    }
    _exit(127);
}

shoal_status_t shoal_job_start(char *const argv[], const char *log, double timeout_s, shoal_job_t *job_p)
{
    int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log_fd < 0) {
        shoal_error("cannot open %s: %s", log, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        become(argv, log_fd, parent);
    }
    close(log_fd);
    if (pid < 0) {
        shoal_error("cannot start %s: %s", argv[0], strerror(errno));
        return SHOAL_ERR_INTERNAL;
    }
    setpgid(pid, pid); /* here too: whoever comes first */
    *job_p = (shoal_job_t){.pid = pid, .next_ns = shoal_time_ns() + (int64_t)(timeout_s * 1e9)};
    return SHOAL_OK;
}

static void enter(shoal_job_t *job, shoal_job_stage_t stage, int wait_ms)
{
    job->stage   = stage;
    job->next_ns = shoal_time_ns() + (int64_t)wait_ms * 1000000;
}

void shoal_job_ask(shoal_job_t *job)
{
    if (job->stage == SHOAL_JOB_RUNS) {
        kill(job->pid, SIGUSR1);
        enter(job, SHOAL_JOB_ASKED, ASK_MS);
    }
}

void shoal_job_terminate(shoal_job_t *job)
{
    if (job->stage < SHOAL_JOB_TERMINATED) {
        kill(job->pid, SIGTERM);
        enter(job, SHOAL_JOB_TERMINATED, TERMINATE_MS);
    }
}

static void advance(shoal_job_t *job)
{
    job->timed_out = job->timed_out || job->stage == SHOAL_JOB_RUNS;
    if (job->stage < SHOAL_JOB_TERMINATED) {
        shoal_job_terminate(job);
    } else {
        kill(-job->pid, SIGKILL);
        enter(job, SHOAL_JOB_KILLED, TERMINATE_MS);
    }
}

bool shoal_job_poll(shoal_job_t *job)
{
    if (job->stage == SHOAL_JOB_ENDED) {
        return true;
    }
    if (waitpid(job->pid, &job->wait_status, WNOHANG) == job->pid) {
        kill(-job->pid, SIGKILL); /* what it may have left behind */
        job->stage = SHOAL_JOB_ENDED;
        return true;
    }
    if (shoal_time_ns() >= job->next_ns) {
        advance(job);
    }
    return false;
}

int shoal_job_event(void)
{
    const struct timespec tick   = {.tv_nsec = TICK_MS * 1000000L};
    int                   signal = sigtimedwait(&taken_signals, NULL, &tick);
    return signal > 0 && signal != SIGCHLD ? signal : 0;
}
