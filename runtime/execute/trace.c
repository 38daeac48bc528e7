/* SPDX-License-Identifier: BSD-3-Clause */
/* One JSON object per op; jansson does the writing, shoal_json_write the renaming. */
#include "runtime/execute/trace.h"

#include "base/json.h"
#include "base/log.h"

static bool append(json_t *events, json_t *event)
{
    return event != NULL && json_array_append_new(events, event) == 0;
}

static bool append_names(json_t *events, const shoal_timeline_t *timeline)
{
    bool ok = append(events, json_pack("{s:s, s:s, s:i, s:{s:s}}", "name", "process_name", "ph", "M", "pid", timeline->process, "args",
                                       "name", timeline->name));
    for (int lane = 0; lane < SHOAL_LANE_COUNT; lane++) {
        ok = ok && append(events, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", "thread_name", "ph", "M", "pid", timeline->process,
                                            "tid", lane, "args", "name", shoal_lane_name((shoal_lane_t)lane)));
    }
    return ok;
}

static bool append_ops(json_t *events, const shoal_program_t *program, const shoal_timeline_t *timeline)
{
    bool ok = true;
    for (int32_t i = 0; ok && i < program->nnodes; i++) {
        const shoal_node_t *node = &program->nodes[i];
        char                what[128];
        if (timeline->times.start[i] < 0) {
            continue;
        }
        shoal_program_describe(program, i, what, sizeof(what));
        ok = append(events, json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:{s:i, s:f, s:f}}", "name", what, "cat",
                                      shoal_phase_name(node->phase), "ph", "X", "pid", timeline->process, "tid", (int)node->lane, "ts",
                                      (double)timeline->times.start[i] * 1e-3, "dur",
                                      (double)(timeline->times.end[i] - timeline->times.start[i]) * 1e-3, "args", "op", i, "flops",
                                      shoal_op_flops(&node->op), "bytes", shoal_op_nbytes(&node->op)));
    }
    return ok;
}

shoal_status_t shoal_trace_write(const char *dir, const char *name, const shoal_program_t *program, const shoal_timeline_t *timelines,
                                 int count)
{
    json_t *events = json_array();
    json_t *trace  = json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ms");
    bool    ok     = trace != NULL;
    for (int t = 0; ok && t < count; t++) {
        ok = append_names(events, &timelines[t]) && append_ops(events, program, &timelines[t]);
    }
    shoal_status_t status = SHOAL_ERR_NO_MEMORY;
    if (ok) {
        status = shoal_json_write(dir, name, trace);
    } else {
        shoal_error("no memory for the trace %s/%s", dir, name);
    }
    json_decref(trace);
    return status;
}
