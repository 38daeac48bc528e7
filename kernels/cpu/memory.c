/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much memory this process may still allocate. Under Slurm the answer is rarely the machine's: the job and the step
 * each sit in a cgroup, of version 1 or 2, and any ancestor may carry the limit, so the walk goes up to the root. Page
 * cache counts as a cgroup's usage although the kernel gives it back on demand; its inactive part is taken off.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* The number that follows `key` at the start of a line of a file; a file of one number has the key "". Else `fallback`. */
static size_t read_number(const char *path, const char *key, size_t fallback)
{
    char   line[256];
    size_t value = fallback, key_length = strlen(key);
    FILE  *file  = fopen(path, "re");
    if (file == NULL) {
        return fallback;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, key_length) == 0) {
            if (sscanf(line + key_length, "%zu", &value) != 1) {
                value = fallback; /* "max" */
            }
            break;
        }
    }
    fclose(file);
    return value;
}

/* The names of one cgroup version's files, below a mount point and the process's path. */
typedef struct {
    const char *mount, *limit, *usage, *cache_key;
} cgroup_layout_t;

static const cgroup_layout_t cgroup_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                          "total_inactive_file "};
static const cgroup_layout_t cgroup_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};

/* What one cgroup still allows. SIZE_MAX where its files are absent: no limit, or the mount shows another subtree. */
static size_t group_available(const cgroup_layout_t *layout, const char *path)
{
    char file[PATH_MAX];
    snprintf(file, sizeof(file), "%s%s/%s", layout->mount, path, layout->limit);
    size_t limit = read_number(file, "", SIZE_MAX);
    if (limit == SIZE_MAX) {
        return SIZE_MAX;
    }
    snprintf(file, sizeof(file), "%s%s/%s", layout->mount, path, layout->usage);
    size_t usage = read_number(file, "", 0);
    snprintf(file, sizeof(file), "%s%s/memory.stat", layout->mount, path);
    size_t cache = read_number(file, layout->cache_key, 0);
    usage -= cache < usage ? cache : usage;
    return limit > usage ? limit - usage : 0;
}

/* The least that a cgroup or one of its ancestors allows. Cuts `path` down to nothing. */
static size_t tree_available(const cgroup_layout_t *layout, char *path)
{
    size_t available = SIZE_MAX;
    for (;;) {
        size_t here = group_available(layout, path);
        available   = here < available ? here : available;
        char *last  = strrchr(path, '/');
        if (last == NULL) {
            return available;
        }
        *last = '\0';
    }
}

/* Lines of /proc/self/cgroup read "hierarchy:controllers:path"; version 2 has hierarchy 0 and no controllers. */
static size_t cgroup_available(void)
{
    char   line[PATH_MAX];
    size_t available = SIZE_MAX;
    FILE  *file      = fopen("/proc/self/cgroup", "re");
    if (file == NULL) {
        return available;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *path = strchr(line, ':') != NULL ? strchr(strchr(line, ':') + 1, ':') : NULL;
        if (path == NULL) {
            continue;
        }
        *path++ = '\0';
        bool                   v2     = strcmp(line, "0:") == 0;
        const cgroup_layout_t *layout = v2 ? &cgroup_v2 : strstr(line, "memory") != NULL ? &cgroup_v1 : NULL;
        size_t                 here   = layout != NULL ? tree_available(layout, path) : SIZE_MAX;
        available                     = here < available ? here : available;
    }
    fclose(file);
    return available;
}

size_t shoal_cpu_memory_available(void)
{
    size_t machine_kib = read_number("/proc/meminfo", "MemAvailable:", 0), group = cgroup_available();
    return machine_kib * 1024 < group ? machine_kib * 1024 : group;
}
