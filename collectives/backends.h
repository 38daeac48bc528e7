/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables of the transports that may be in a build; transport.c lists those that are. */
#ifndef SHOAL_COLLECTIVES_BACKENDS_H
#define SHOAL_COLLECTIVES_BACKENDS_H

#include "collectives/transport.h"

extern const shoal_transport_ops_t shoal_transport_self;
extern const shoal_transport_ops_t shoal_transport_ucx;
extern const shoal_transport_ops_t shoal_transport_mpi;
extern const shoal_transport_ops_t shoal_transport_nccl;

/* Of the same names as those that they put under the memory of GPUs (pinned.h). */
extern const shoal_transport_ops_t shoal_transport_pinned_ucx;
extern const shoal_transport_ops_t shoal_transport_pinned_mpi;

#endif
