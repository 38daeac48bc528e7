/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timelines in the Trace Event format (JSON) that Perfetto (ui.perfetto.dev) and chrome://tracing read: one process per
 * timeline, one thread per lane, one slice per op.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_TRACE_H
#define SHOAL_RUNTIME_EXECUTE_TRACE_H

#include "runtime/execute/executor.h"

typedef struct {
    const char      *name;    /* "rank 3 on n2, step 10", "predicted" */
    int              process; /* unique within the file */
    shoal_op_times_t times;
} shoal_timeline_t;

/* Writes DIR/NAME whole or not at all; SHOAL_ERR_DATA names the path. */
shoal_status_t shoal_trace_write(const char *dir, const char *name, const shoal_program_t *program, const shoal_timeline_t *timelines,
                                 int count);

#endif
