/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of `shoal info` that look outside the program; each prints one section. */
#ifndef SHOAL_SRC_INFO_H
#define SHOAL_SRC_INFO_H

#include "base/status.h"

/* Versions of the libraries that this process has loaded. */
void shoal_info_libraries(void);

/* Host, processors, caches and memory domains. */
void shoal_info_machine(void);

/* Devices, transports and bootstraps of the build. Opens the first two: the first that fails decides the status. */
shoal_status_t shoal_info_backends(void);

#endif
