/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the grid to its rows. Rows with few ranks come first: they are the references of the others, they are what
 * "linear" is taken from, and when a study is cut short the small rows are the ones worth having.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "src/study/state.h"

const char *shoal_shard_name(shoal_shard_t shard)
{
    static const char *const names[] = {[SHOAL_SHARD_FULL] = "full", [SHOAL_SHARD_GRAD] = "grad", [SHOAL_SHARD_NONE] = "none"};
    return shard <= SHOAL_SHARD_NONE ? names[shard] : "?";
}

shoal_study_row_t *shoal_study_find(shoal_study_row_t *rows, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

shoal_status_t shoal_study_append(shoal_study_row_t **rows_p, size_t *n_p, const shoal_study_row_t *row)
{
    shoal_study_row_t *rows = realloc(*rows_p, (*n_p + 1) * sizeof(*rows));
    if (rows == NULL) {
        shoal_error("no memory for %zu rows", *n_p + 1);
        return SHOAL_ERR_NO_MEMORY;
    }
    *rows_p       = rows;
    rows[(*n_p)++] = *row;
    return SHOAL_OK;
}

/* Row `index` of the grid, counted with the seed running fastest and the nodes slowest. */
static shoal_study_row_t row_at(const shoal_spec_t *spec, size_t index)
{
    const shoal_study_spec_t *grid = &spec->study;
    shoal_study_row_t         row  = {.in_grid = true, .accumulate = spec->batch.accumulate};

    row.seed = grid->seeds[index % grid->nseeds];
    index /= grid->nseeds;
    row.local = grid->local[index % grid->nlocal];
    index /= grid->nlocal;
    row.shard = grid->shard[index % grid->nshard];
    index /= grid->nshard;
    row.ranks_per_node = grid->ranks_per_node[index % grid->nranks_per_node];
    index /= grid->nranks_per_node;
    row.nodes  = grid->nodes[index];
    row.ranks  = row.nodes * row.ranks_per_node;
    row.global = row.local * row.accumulate * row.ranks;
    snprintf(row.name, sizeof(row.name), "n%zur%zu-%s-b%zu-s%llu", row.nodes, row.ranks_per_node, shoal_shard_name(row.shard),
             row.local, (unsigned long long)row.seed);
    return row;
}

/* After the last row with no more ranks, so that the order of the grid decides among equals. */
static void move_into_place(shoal_study_row_t *rows, size_t last)
{
    shoal_study_row_t row = rows[last];
    size_t            at  = last;
    while (at > 0 && rows[at - 1].ranks > row.ranks) {
        rows[at] = rows[at - 1];
        at--;
    }
    rows[at] = row;
}

shoal_status_t shoal_study_expand(shoal_study_t *study)
{
    const shoal_study_spec_t *grid = &study->spec->study;
    size_t count = grid->nnodes * grid->nranks_per_node * grid->nshard * grid->nlocal * grid->nseeds;
    for (size_t i = 0; i < count; i++) {
        shoal_study_row_t row = row_at(study->spec, i);
        if (shoal_study_find(study->rows, study->nrows, row.name) != NULL) {
            continue; /* a value given twice */
        }
        SHOAL_TRY(shoal_study_append(&study->rows, &study->nrows, &row));
        move_into_place(study->rows, study->nrows - 1);
    }
    return SHOAL_OK;
}
