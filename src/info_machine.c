/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The machine and the libraries. Versions are asked of the loaded libraries rather than taken from headers: on a cluster the
 * two often differ, and that is what one wants to know. A symbol that is not there means that the build does not use the library.
 */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <jansson.h>
#include <libconfig.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef SHOAL_HAVE_HWLOC
#include <hwloc.h>
#endif

#include "src/info.h"

typedef const char *(*version_fn_t)(void);
typedef int (*mpi_version_fn_t)(char *version_p, int *length_p);
/* The head of oneDNN's dnnl_version_t. */
typedef struct {
    int major, minor, patch;
} dnnl_version_head_t;
typedef const dnnl_version_head_t *(*dnnl_version_fn_t)(void);

static void *symbol(const char *name)
{
    return dlsym(RTLD_DEFAULT, name);
}

static void print_library(const char *name, const char *version)
{
    printf("  %-12s %.*s\n", name, (int)strcspn(version, "\n"), version);
}

static void print_asked(const char *name, const char *function)
{
    version_fn_t version = (version_fn_t)symbol(function);
    print_library(name, version != NULL ? version() : "not in this build");
}

static void print_mpi(void)
{
    mpi_version_fn_t version = (mpi_version_fn_t)symbol("MPI_Get_library_version");
    char             text[8192] = "not in this build"; /* MPI_MAX_LIBRARY_VERSION_STRING of every known library fits */
    int              length;
    if (version != NULL && version(text, &length) != 0) {
        strcpy(text, "does not say");
    }
    print_library("MPI", text);
}

static void print_dnnl(void)
{
    dnnl_version_fn_t version = (dnnl_version_fn_t)symbol("dnnl_version");
    char              text[64] = "not in this build";
    if (version != NULL) {
        snprintf(text, sizeof(text), "%d.%d.%d", version()->major, version()->minor, version()->patch);
    }
    print_library("oneDNN", text);
}

void shoal_info_libraries(void)
{
    char text[64];
    printf("\nlibraries\n");
    print_asked("UCX", "ucp_get_version_string");
    print_mpi();
    print_asked("PMIx", "PMIx_Get_version");
    print_dnnl();
#ifdef SHOAL_HAVE_HWLOC
    unsigned version = hwloc_get_api_version();
    snprintf(text, sizeof(text), "API %u.%u.%u", version >> 16, version >> 8 & 0xff, version & 0xff);
    print_library("hwloc", text);
#else
    print_library("hwloc", "not in this build");
#endif
    snprintf(text, sizeof(text), "%d.%d.%d", LIBCONFIG_VER_MAJOR, LIBCONFIG_VER_MINOR, LIBCONFIG_VER_REVISION);
    print_library("libconfig", text);
    print_asked("jansson", "jansson_version_str");
}

#ifdef SHOAL_HAVE_HWLOC

static void print_processor(hwloc_topology_t topology)
{
    hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    const char *model   = package == NULL ? NULL : hwloc_obj_get_info_by_name(package, "CPUModel");
    printf("  %-12s %s\n", "processor", model != NULL ? model : "unknown");
}

/* Caches that are not shared by all say how ranks are best placed; memory domains likewise. */
static void print_topology(hwloc_topology_t topology)
{
    hwloc_obj_t l3    = hwloc_get_obj_by_type(topology, HWLOC_OBJ_L3CACHE, 0);
    int         nnuma = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    printf("  %-12s %d packages, %d cores, %d hardware threads\n", "topology",
           hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE),
           hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU));
    if (l3 != NULL) {
        printf("  %-12s %d of %.1f MiB\n", "L3 caches", hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_L3CACHE),
               (double)l3->attr->cache.size / (1 << 20));
    }
    for (int i = 0; i < nnuma; i++) {
        hwloc_obj_t node = hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, (unsigned)i);
        char        cpus[256];
        hwloc_bitmap_list_snprintf(cpus, sizeof(cpus), node->cpuset);
        printf("  NUMA %-7u %.1f GiB, cpus %s\n", node->os_index,
               (double)node->attr->numanode.local_memory / (1 << 30), cpus);
    }
}

static void print_hardware(void)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0) {
        return;
    }
    if (hwloc_topology_load(topology) == 0) {
        print_processor(topology);
        print_topology(topology);
    }
    hwloc_topology_destroy(topology);
}

#else

static void print_hardware(void)
{
    printf("  %-12s %ld (built without hwloc: no topology)\n", "processors", sysconf(_SC_NPROCESSORS_ONLN));
}

#endif

void shoal_info_machine(void)
{
    char host[256] = "unknown";
    gethostname(host, sizeof(host) - 1);
    printf("\nmachine\n  %-12s %s\n", "host", host);
    print_hardware();
}
