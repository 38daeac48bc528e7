/* SPDX-License-Identifier: BSD-3-Clause */
/* hwloc knows the cores and does the binding; the CPU quota of a cgroup is the one limit that it does not report. */
#include "runtime/bootstrap/affinity.h"

#include <hwloc.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/bootstrap/near.h"

/* The number of threads that a variable asks for, by OpenMP's rules for its own; 0: none. */
static int env_threads(const char *name, bool speaks)
{
    const char *text = getenv(name);
    char       *end  = NULL;
    long        n = text != NULL ? strtol(text, &end, 10) : 0; /* out of range: the limit of long */
    if (text == NULL || text[0] == '\0') {
        return 0;
    }
    end += strspn(end, " \t");
    if (end == text || (*end != '\0' && *end != ',') || n < 1) {
        if (speaks) {
            shoal_warn("%s=%.64s is no number of threads; it is ignored", name, text);
        }
        return 0;
    }
    if (n > SHOAL_MAX_THREADS) {
        if (speaks) {
            shoal_warn("%s=%.64s asks for more threads than a rank may have; it gets %d", name,
                       text, SHOAL_MAX_THREADS);
        }
        return SHOAL_MAX_THREADS;
    }
    return (int)n;
}

static bool read_numbers(const char *directory, const char *file, const char *format, long *first_p, long *second_p)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", directory, file);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    int got = fscanf(f, format, first_p, second_p);
    fclose(f);
    return got >= 1;
}

/* The quota of one cgroup directory in cores, or a large number: version 2's cpu.max, else version 1's pair of files. */
static double quota_of(const char *directory)
{
    long quota = -1, period = 100000;
    if (!read_numbers(directory, "cpu.max", "%ld %ld", &quota, &period) &&
        read_numbers(directory, "cpu.cfs_quota_us", "%ld", &quota, NULL)) {
        read_numbers(directory, "cpu.cfs_period_us", "%ld", &period, NULL);
    }
    return quota > 0 && period > 0 ? (double)quota / (double)period : 1e9;
}

/* The tightest quota on the way from this process's cgroup to the root of its hierarchy. */
static double cpu_quota(void)
{
    char   line[512], path[1024];
    double quota = 1e9;
    FILE  *f     = fopen("/proc/self/cgroup", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers         = strchr(line, ':');
        char *group               = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++      = '\0';
        bool unified  = strcmp(controllers + 1, "") == 0;
        bool has_cpu  = strcmp(controllers + 1, "cpu") == 0 || strstr(controllers + 1, "cpu,") != NULL;
        size_t length = unified || has_cpu ? strlen(group) : 0;
        for (; length > 0; length = (size_t)(strrchr(group, '/') - group)) {
            group[length] = '\0';
            snprintf(path, sizeof(path), "/sys/fs/cgroup%s%s", unified ? "" : "/cpu", group);
            quota = fmin(quota, quota_of(path));
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return quota;
}

/* Binds to the local rank's part of `set` when there is at least a core for each rank. */
static int bind_part(hwloc_topology_t topology, hwloc_const_bitmap_t set, int local_rank, int local_size)
{
    int ncores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, set, HWLOC_OBJ_CORE);
    int first  = ncores * local_rank / local_size, end = ncores * (local_rank + 1) / local_size;
    if (local_size < 2 || ncores < local_size) {
        return 0;
    }
    hwloc_bitmap_t part = hwloc_bitmap_alloc();
    shoal_near_take(topology, set, first, end, part);
    int bound = hwloc_set_cpubind(topology, part, HWLOC_CPUBIND_PROCESS) == 0;
    hwloc_bitmap_free(part);
    return bound ? end - first : 0;
}

static int choose_threads(int asked, int cores, bool speaks, const char **why_p)
{
    *why_p = "run.threads";
    if (asked > 0) {
        return asked;
    }
    *why_p = "OMP_NUM_THREADS";
    int n  = env_threads(*why_p, speaks);
    if (n == 0) {
        *why_p = "SLURM_CPUS_PER_TASK";
        n      = env_threads(*why_p, speaks);
    }
    if (n > 0) {
        return n;
    }
    *why_p       = "its share of the cores";
    double quota = cpu_quota();
    if (quota < (double)cores) {
        *why_p = "its CPU quota";
        return (int)fmax(1.0, ceil(quota - 0.05));
    }
    return cores;
}

/* A team never gets larger than this, however many threads are asked for. */
static int limit_threads(int nthreads, bool speaks, const char **why_p)
{
    int limit = env_threads("OMP_THREAD_LIMIT", speaks);
    if (limit == 0 || limit >= nthreads) {
        return nthreads;
    }
    *why_p = "OMP_THREAD_LIMIT";
    return limit;
}

static void describe(shoal_affinity_t *affinity, const char *where)
{
    snprintf(affinity->text, sizeof(affinity->text), "%d thread%s per rank (%s)%s", affinity->nthreads,
             affinity->nthreads == 1 ? "" : "s", affinity->why, where);
}

static shoal_status_t load(bool with_pci, hwloc_topology_t *topology_p)
{
    if (hwloc_topology_init(topology_p) == 0) {
        /* Of the I/O devices only these: hwloc would otherwise open each GPU by its vendor's library. */
        if (with_pci) {
            hwloc_topology_set_type_filter(*topology_p, HWLOC_OBJ_BRIDGE, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
            hwloc_topology_set_type_filter(*topology_p, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
        }
        if (hwloc_topology_load(*topology_p) == 0) {
            return SHOAL_OK;
        }
        hwloc_topology_destroy(*topology_p);
    }
    shoal_error("hwloc cannot read this machine's topology");
    return SHOAL_ERR_INTERNAL;
}

shoal_status_t shoal_affinity_settle(int local_rank, int local_size, int asked, shoal_affinity_t *affinity_p)
{
    hwloc_topology_t topology;
    SHOAL_TRY(load(false, &topology));
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) != 0) {
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(topology));
    }
    bool ours      = hwloc_bitmap_isequal(set, hwloc_topology_get_allowed_cpuset(topology));
    int  available = hwloc_get_nbobjs_inside_cpuset_by_type(topology, set, HWLOC_OBJ_CORE);
    int  bound     = ours ? bind_part(topology, set, local_rank, local_size) : 0;
    int  share     = ours ? available / (local_size > 0 ? local_size : 1) : available;
    affinity_p->is_ours  = ours;
    bool speaks          = local_rank == 0;
    affinity_p->nthreads = choose_threads(asked,
                                          bound > 0   ? bound
                                          : share > 0 ? share
                                                      : 1,
                                          speaks, &affinity_p->why);
    affinity_p->nthreads = limit_threads(affinity_p->nthreads, speaks, &affinity_p->why);
    describe(affinity_p, bound > 0 ? ", bound to cores of its own" : ours ? "" : ", bound by the launcher");
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(topology);
    return SHOAL_OK;
}

shoal_status_t shoal_affinity_move_near(const char *const *ids, int local_rank, int local_size, shoal_affinity_t *affinity)
{
    hwloc_topology_t topology;
    char             where[64];
    if (!affinity->is_ours) {
        return SHOAL_OK;
    }
    SHOAL_TRY(load(true, &topology));
    hwloc_bitmap_t part = hwloc_bitmap_alloc();
    if (shoal_near_cores(topology, hwloc_topology_get_allowed_cpuset(topology), ids, local_size, local_rank, part) &&
        hwloc_set_cpubind(topology, part, HWLOC_CPUBIND_PROCESS) == 0) {
        int ncores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, part, HWLOC_OBJ_CORE);
        snprintf(where, sizeof(where), ", bound to %d core%s near its GPU", ncores, ncores == 1 ? "" : "s");
        describe(affinity, where);
    }
    hwloc_bitmap_free(part);
    hwloc_topology_destroy(topology);
    return SHOAL_OK;
}
