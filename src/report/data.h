/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What there is to report: the rows of a study, or a single run as a study of one row. A row keeps its records as they
 * are (report_json.h reads them); here is only what several parts of the report need or what follows from comparing
 * rows.
 *
 * Speeds of a row that is not ok are not taken over at all: a layout that computes something else must not appear in a
 * plot, nor in a script that reads report.csv, as a fast one.
 */
#ifndef SHOAL_SRC_REPORT_DATA_H
#define SHOAL_SRC_REPORT_DATA_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    char    name[96];
    char    label[128]; /* "4 ranks across 2 nodes, full, batch 8": what varies in this study, and the size */
    char    tick[64];   /* the same for an axis: "2x2 full b8" */
    size_t  nodes, ranks_per_node, ranks, local, accumulate, global;
    int64_t seed; /* -1: not known */
    char    shard[8];
    char    verdict[32], detail[512], tail[2048];
    char    gate[64]; /* largest difference, or what took the place of a comparison */
    bool    ok;
    json_t *run, *summary; /* NULL where missing */

    double tokens_per_s;        /* over all ranks, median; NaN unless ok */
    double tokens_per_s_linear; /* as many times the base's throughput as the row has ranks for each of its */
    double efficiency;          /* the one over the other */
    double exposed_ms, comm_ms, step_ms;
    size_t base; /* the row with the fewest ranks among those that differ in nothing else */
} shoal_report_row_t;

typedef struct {
    char                dir[PATH_MAX];
    json_t             *study; /* study.json; NULL for a single run */
    bool                local; /* ranks of one host, not of nodes */
    bool                many_shards, many_locals, many_seeds;
    const char         *unit;  /* "GPU" or "rank": what one rank is */
    shoal_report_row_t *rows;  /* (nrows) by number of ranks */
    size_t              nrows;
} shoal_report_t;

/* Reads DIR/study.json, or DIR/summary.json and DIR/run.json. SHOAL_ERR_DATA: there is neither. To be freed also then. */
shoal_status_t shoal_report_load(const char *dir, shoal_report_t *report_p);
void           shoal_report_free(shoal_report_t *report);

/* The first row that has the record; NULL if none has. What all rows share is read from it. */
const shoal_report_row_t *shoal_report_first_run(const shoal_report_t *report);
/* The ok row with the most ranks; NULL if none is ok. */
const shoal_report_row_t *shoal_report_largest(const shoal_report_t *report);
/* How many different numbers of ranks the ok rows have. */
size_t shoal_report_count_sizes(const shoal_report_t *report);

/* A value of a run's configuration by its key, such as "parallel.shard"; NULL where missing. Borrowed. */
json_t *shoal_report_config(const json_t *run, const char *key);
/* Mean over the ranks of a median in summary.per_rank, such as "exposed_gather_ms"; NaN where missing. */
double shoal_report_rank_mean(const json_t *summary, const char *field);

/* The rank whose own work (compute and data) takes longest: the one all others wait for. */
typedef struct {
    int         rank; /* -1: not known, or there is only one */
    const char *host;
    double      work_ms, median_ms; /* of that rank; over all ranks */
} shoal_report_slowest_t;

shoal_report_slowest_t shoal_report_slowest(const json_t *summary);

#endif
