/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. */
#include "tests/child.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void read_back(int fd, char text_p[CHILD_TEXT_NBYTES])
{
    ssize_t n             = pread(fd, text_p, CHILD_TEXT_NBYTES - 1, 0);
    text_p[n > 0 ? n : 0] = '\0';
    close(fd);
}

static void become(child_command_t command, const char *line, int out, int err)
{
    char *copy                       = strdup(line);
    char *words[CHILD_MAX_WORDS + 1] = {NULL};
    int   n                          = 0;
    int   nothing                    = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setpgid(0, 0);
    dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        must(n < CHILD_MAX_WORDS, "child_run: too many words");
        words[n++] = word;
    }
    int code = command(n, words);
    free(copy);
    exit(code);
}

/* The child's wait status, or -1 when it had to be killed. */
static int await(pid_t pid, double seconds)
{
    int     status;
    int64_t start = shoal_time_ns();
    for (struct timespec nap = {.tv_nsec = 2000000};; nanosleep(&nap, NULL)) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        if (shoal_ms_since(start) > seconds * 1e3) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
    }
}

void child_run(child_command_t command, const char *line, double seconds, child_t *child_p)
{
    int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
    must(out >= 0 && err >= 0, "memfd_create");
    fflush(NULL);
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        become(command, line, out, err);
    }
    setpgid(pid, pid);
    int status    = await(pid, seconds);
    child_p->code = status == -1          ? CHILD_HANGS
                    : WIFSIGNALED(status) ? 128 + WTERMSIG(status)
                                          : WEXITSTATUS(status);
    read_back(out, child_p->out);
    read_back(err, child_p->err);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

void child_remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
