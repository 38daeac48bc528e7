/* SPDX-License-Identifier: BSD-3-Clause */
/* Cores near a GPU. Apart from affinity.h because it speaks hwloc's types. */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_NEAR_H
#define SHOAL_RUNTIME_BOOTSTRAP_NEAR_H

#include <hwloc.h>
#include <stdbool.h>

/*
 * The cores of local rank `mine` among `n` ranks on GPUs with these PCI addresses: of those in `allowed` that are nearest to its GPU,
 * a part of its own where other ranks' GPUs are just as near. Whole cores; parts do not overlap. False, and `part` is anything, where
 * that cannot be had for every one of the ranks, so that none moves where another stays: an address that the topology does not
 * know, fewer near cores than ranks, places that overlap. The topology must have been loaded with PCI devices.
 */
bool shoal_near_cores(hwloc_topology_t topology, hwloc_const_bitmap_t allowed, const char *const *ids, int n, int mine,
                      hwloc_bitmap_t part);

/* The cores `first` to `end - 1` of those inside `set`, counted there, with all of their hardware threads that `set` has. */
void shoal_near_take(hwloc_topology_t topology, hwloc_const_bitmap_t set, int first, int end, hwloc_bitmap_t part);

#endif
