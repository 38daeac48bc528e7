/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether this host can hold so many ranks, before the first of them is forked: beyond what it has,
 * some rank would fail in the middle of connecting to the others, in words that do not say why.
 * What is counted is what a rank takes whatever it trains: the plan of the model is checked by the
 * ranks themselves.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "kernels/cpu/cpu.h"
#include "runtime/bootstrap/backend.h"

enum {
    RANK_FILES = 64,  /* of a rank's own: libraries, data, records, events */
    MATE_FILES = 3,   /* for each other rank of the host: two pipes, and a page of the board; a
                         launcher's socket is less */
    RANK_THREADS = 4, /* the rank, a team of two, progress, a library's */
};

/* Private pages, page tables, kernel stacks and buffers: 3 MB each, measured among 96 and 200 ranks
 * of a tiny model; rounded up. */
static const double rank_nbytes = 4 * 0x1p20;
static const double file_nbytes = 384; /* of the kernel's, and half a pipe */

/* What a file holds as its first number; `otherwise` where there is none, as in "max". */
static double read_limit(const char *path, double otherwise)
{
    double value;
    FILE  *file = fopen(path, "re");
    if (file == NULL) {
        return otherwise;
    }
    bool read = fscanf(file, "%lf", &value) == 1;
    fclose(file);
    return read ? value : otherwise;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

/*
 * What the cgroups of this process still allow in processes and threads, each with its own count.
 */
static double cgroup_tasks(double otherwise)
{
    char  line[512], path[700];
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char       *controllers = strchr(line, ':');
        const char *group       = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL ||
            (strncmp(controllers, ":pids:", 6) != 0 && strncmp(controllers, "::", 2) != 0)) {
            continue;
        }
        const char *mount = controllers[1] == ':' ? "" : "/pids";
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s%s/pids.max", mount, group + 1);
        double limit = read_limit(path, otherwise);
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s%s/pids.current", mount, group + 1);
        otherwise = least(otherwise, limit - read_limit(path, 0));
    }
    if (file != NULL) {
        fclose(file);
    }
    return otherwise;
}

static shoal_status_t refuse(int nranks, double needed, const char *what, double available,
                             const char *limit)
{
    shoal_error("-n %d: %d ranks need %.0f %s, and there are %.0f (%s); start fewer here, or "
                "spread them over hosts",
                nranks, nranks, needed, what, available, limit);
    return SHOAL_ERR_CONFIG;
}

/* The soft limit is raised to what is needed; the ranks inherit it. */
static shoal_status_t allow_files(int nranks)
{
    double        each = RANK_FILES + (double)MATE_FILES * nranks, all = each * nranks;
    double left = read_limit("/proc/sys/fs/file-max", 1e18) - read_limit("/proc/sys/fs/file-nr", 0);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return SHOAL_OK;
    }
    if (files.rlim_max != RLIM_INFINITY && (double)files.rlim_max < each) {
        return refuse(nranks, each, "open files each", (double)files.rlim_max, "ulimit -H -n");
    }
    if (left < all) {
        return refuse(nranks, all, "open files", left, "left of fs.file-max");
    }
    if (files.rlim_cur != RLIM_INFINITY && (double)files.rlim_cur < each) {
        files.rlim_cur = (rlim_t)each;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
            shoal_error("-n %d: cannot raise the limit of open files to %.0f: %s", nranks, each,
                        strerror(errno));
            return SHOAL_ERR_CONFIG;
        }
    }
    return SHOAL_OK;
}

static shoal_status_t check_processes(int nranks)
{
    double        needed = (double)RANK_THREADS * nranks, left;
    struct rlimit processes;
    bool          bound = geteuid() != 0 && getrlimit(RLIMIT_NPROC, &processes) == 0 &&
                 processes.rlim_cur != RLIM_INFINITY;
    if (bound && (double)processes.rlim_cur < needed) {
        return refuse(nranks, needed, "processes and threads", (double)processes.rlim_cur,
                      "ulimit -u");
    }
    left = least(read_limit("/proc/sys/kernel/pid_max", 1e18),
                 read_limit("/proc/sys/kernel/threads-max", 1e18));
    if (left < needed) {
        return refuse(nranks, needed, "processes and threads", left,
                      "kernel.pid_max and kernel.threads-max");
    }
    left = cgroup_tasks(1e18);
    return left < needed ? refuse(nranks, needed, "processes and threads", left,
                                  "left of the cgroup's pids.max")
                         : SHOAL_OK;
}

static shoal_status_t check_memory(int nranks)
{
    double needed = nranks * (rank_nbytes + file_nbytes * MATE_FILES * nranks);
    double left   = (double)shoal_cpu_memory_available();
    return left < needed ? refuse(nranks, needed * 0x1p-20, "MiB of memory for themselves",
                                  left * 0x1p-20, "available")
                         : SHOAL_OK;
}

shoal_status_t shoal_bootstrap_check_limits(int nranks)
{
    SHOAL_TRY(allow_files(nranks));
    SHOAL_TRY(check_processes(nranks));
    return check_memory(nranks);
}
