/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A deadline for a call into a library that has none of its own, as MPI_Init: if the call is not
 * over in time, a thread of the watchdog's own does what is left to do, which usually ends the
 * process.
 */
#ifndef SHOAL_BASE_WATCHDOG_H
#define SHOAL_BASE_WATCHDOG_H

typedef struct shoal_watchdog shoal_watchdog_t;

/* Calls expired(argument) unless it is stopped within `seconds`. NULL, with a warning: there is no
 * thread, and no deadline. */
shoal_watchdog_t *shoal_watchdog_start(double seconds, void (*expired)(void *argument),
                                       void  *argument);
/* Returns when `expired` has not begun and never will, or has returned. NULL is allowed. */
void shoal_watchdog_stop(shoal_watchdog_t *watchdog);

#endif
