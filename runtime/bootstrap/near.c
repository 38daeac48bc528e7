/* SPDX-License-Identifier: BSD-3-Clause */
/* Every rank computes every rank's place from the same addresses, so there is nothing to agree on. */
#include "runtime/bootstrap/near.h"

void shoal_near_take(hwloc_topology_t topology, hwloc_const_bitmap_t set, int first, int end, hwloc_bitmap_t part)
{
    hwloc_bitmap_zero(part);
    for (int c = first; c < end; c++) {
        hwloc_bitmap_or(part, part, hwloc_get_obj_inside_cpuset_by_type(topology, set, HWLOC_OBJ_CORE, (unsigned)c)->cpuset);
    }
    hwloc_bitmap_and(part, part, set);
}

/* The allowed processors of the smallest part of the machine that the GPU hangs on. */
static bool surroundings(hwloc_topology_t topology, hwloc_const_bitmap_t allowed, const char *id, hwloc_bitmap_t near)
{
    hwloc_obj_t gpu = hwloc_get_pcidev_by_busidstring(topology, id);
    if (gpu == NULL) {
        return false;
    }
    hwloc_bitmap_and(near, hwloc_get_non_io_ancestor_obj(topology, gpu)->cpuset, allowed);
    return true;
}

/* Whether rank i can have cores of its own near its GPU; if so *place_p is its place among the *nalike_p with the same surroundings. */
static bool find_place(hwloc_topology_t topology, hwloc_bitmap_t *near, int n, int i, int *place_p, int *nalike_p)
{
    *place_p = *nalike_p = 0;
    for (int j = 0; j < n; j++) {
        bool alike = hwloc_bitmap_isequal(near[i], near[j]);
        if (!alike && hwloc_bitmap_intersects(near[i], near[j])) {
            return false;
        }
        *nalike_p += alike;
        *place_p += alike && j < i;
    }
    return hwloc_get_nbobjs_inside_cpuset_by_type(topology, near[i], HWLOC_OBJ_CORE) >= *nalike_p;
}

static bool choose(hwloc_topology_t topology, hwloc_bitmap_t *near, int n, int mine, hwloc_bitmap_t part)
{
    int place, nalike;
    for (int i = 0; i < n; i++) {
        if (!find_place(topology, near, n, i, &place, &nalike)) {
            return false;
        }
    }
    find_place(topology, near, n, mine, &place, &nalike);
    int ncores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, near[mine], HWLOC_OBJ_CORE);
    shoal_near_take(topology, near[mine], ncores * place / nalike, ncores * (place + 1) / nalike, part);
    return true;
}

bool shoal_near_cores(hwloc_topology_t topology, hwloc_const_bitmap_t allowed, const char *const *ids, int n, int mine,
                      hwloc_bitmap_t part)
{
    hwloc_bitmap_t near[n];
    bool           known = true;
    for (int i = 0; i < n; i++) {
        near[i] = hwloc_bitmap_alloc();
        known   = known && surroundings(topology, allowed, ids[i], near[i]);
    }
    known = known && choose(topology, near, n, mine, part);
    for (int i = 0; i < n; i++) {
        hwloc_bitmap_free(near[i]);
    }
    return known;
}
