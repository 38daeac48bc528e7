/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a study is: rows to measure, references to compare their losses with, and how far it has come. DIR/study.json
 * holds all of it, is rewritten after every row, and is what the next call continues from and what the report reads.
 *
 * A study belongs to one configuration. Of the keys that are the same for all rows, none may differ between two rows
 * of one study; when one has changed since the last call, every row runs again. The grid itself may change: rows are
 * added, and those that the new grid does not have stay.
 */
#ifndef SHOAL_SRC_STUDY_STATE_H
#define SHOAL_SRC_STUDY_STATE_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "runtime/spec.h"
#include "src/study/verdict.h"

enum { SHOAL_STUDY_NAME_NBYTES = 96, SHOAL_STUDY_DETAIL_NBYTES = 512, SHOAL_STUDY_TAIL_NBYTES = 2048 };

/* Where a row's losses were compared. */
typedef enum {
    SHOAL_GATE_NONE,         /* not yet, or there was nothing to compare with: `reference` names what failed, if any did */
    SHOAL_GATE_OFF,          /* study.gate_steps = 0 */
    SHOAL_GATE_IS_REFERENCE, /* a one-rank row: others are compared with it */
    SHOAL_GATE_COMPARED,
    SHOAL_GATE_COUNT
} shoal_gate_kind_t;

typedef struct {
    shoal_gate_kind_t kind;
    char              reference[SHOAL_STUDY_NAME_NBYTES]; /* the run compared with */
    double            difference;                         /* largest relative one; NaN: some loss was no number */
    size_t            step;                               /* where it was, from 1 */
} shoal_gate_t;

typedef struct {
    char            name[SHOAL_STUDY_NAME_NBYTES]; /* of its directory: "n2r4-full-b8-s1" */
    size_t          nodes, ranks_per_node, ranks;
    size_t          local, accumulate, global; /* sequences per rank and micro-batch; micro-batches; sequences per step */
    uint64_t        seed;
    shoal_shard_t   shard;
    bool            in_grid; /* false: a row of an earlier grid, kept */
    shoal_verdict_t verdict;
    int             exit_code;
    size_t          tries; /* how often it was launched: more than once where that came to nothing */
    shoal_gate_t    gate;
    char            detail[SHOAL_STUDY_DETAIL_NBYTES]; /* why, in one line */
    char            tail[SHOAL_STUDY_TAIL_NBYTES];     /* end of the log of a row that failed */
} shoal_study_row_t;

typedef struct {
    const shoal_spec_t *spec; /* resolved for one rank; rows override what differs */
    json_t             *config; /* key -> value, of the keys that all rows share */
    const char         *config_path;
    const char         *dir;
    int                 noverrides;
    char *const        *overrides;     /* (noverrides) words of the command line */
    const char         *train_command; /* NULL: this very program; else a stand-in, for tests */
    int                 nsrun_args;
    char              **srun_args;     /* (nsrun_args) words for srun */
    char                program[PATH_MAX];
    bool                slurm;      /* rows are job steps; else local ranks of this host */
    size_t              nodes_held; /* of the allocation */
    size_t              gpus_held;  /* on each of its nodes; 0: none, or Slurm does not say */
    size_t              gate_steps; /* steps compared: study.gate_steps, or fewer if rows are shorter */
    shoal_study_row_t  *rows;       /* (nrows) by number of ranks */
    size_t              nrows;
    shoal_study_row_t  *references; /* (nreferences) one-rank runs that are no row */
    size_t              nreferences;
    int                 stop_signal; /* 0: go on */
} shoal_study_t;

/* "full", "grad" or "none". */
const char *shoal_shard_name(shoal_shard_t shard);

/* Fills study->rows from the grid of its spec. SHOAL_ERR_NO_MEMORY. */
shoal_status_t shoal_study_expand(shoal_study_t *study);

/* The keys that all rows share, from shoal_config_to_json(). A new reference, NULL without memory. */
json_t *shoal_study_shared_keys(const json_t *config);

/*
 * Takes verdicts and gates over from DIR/study.json, and rows and references that the grid does not have. Nothing if
 * there is no such file. If a shared key has changed, says which and takes over nothing. SHOAL_ERR_DATA: the file is
 * not a study's.
 */
shoal_status_t shoal_study_load(shoal_study_t *study);
shoal_status_t shoal_study_save(const shoal_study_t *study);

/* The row, or reference, of that name in an array of n; NULL if there is none. */
shoal_study_row_t *shoal_study_find(shoal_study_row_t *rows, size_t n, const char *name);
/* Appends a copy of *row to an array of *n_p. */
shoal_status_t shoal_study_append(shoal_study_row_t **rows_p, size_t *n_p, const shoal_study_row_t *row);

#endif
