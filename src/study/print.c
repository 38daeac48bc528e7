/* SPDX-License-Identifier: BSD-3-Clause */
/* The console of a study: one line per finished row, with all that decides whether to let it go on. */
#include "src/study/print.h"

#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "src/study/run.h"

static const char *plural(size_t n, const char *word)
{
    static char text[2][32]; /* two per line */
    static int  turn;
    turn = !turn;
    snprintf(text[turn], sizeof(text[turn]), "%zu %s%s", n, word, n == 1 ? "" : "s");
    return text[turn];
}

static double tokens_per_s(const shoal_study_t *study, const shoal_study_row_t *row)
{
    char dir[PATH_MAX];
    if (shoal_study_run_dir(study, row->name, false, dir) != SHOAL_OK) {
        return NAN;
    }
    json_t *summary = shoal_json_read(dir, "summary.json", 0, NULL);
    double  value   = shoal_json_number(summary, "tokens_per_s.median");
    json_decref(summary);
    return value;
}

/* The row that "linear" starts from: the one with the fewest ranks among those that differ in nothing else. */
static const shoal_study_row_t *base_of(const shoal_study_t *study, const shoal_study_row_t *row)
{
    for (size_t i = 0; i < study->nrows; i++) {
        const shoal_study_row_t *other = &study->rows[i];
        if (other->verdict == SHOAL_VERDICT_OK && other->shard == row->shard && other->local == row->local &&
            other->seed == row->seed) {
            return other;
        }
    }
    return row;
}

static void print_rate(const shoal_study_t *study, const shoal_study_row_t *row)
{
    const shoal_study_row_t *base = base_of(study, row);
    double rate = tokens_per_s(study, row), per_rank = rate / (double)row->ranks;
    double base_per_rank = tokens_per_s(study, base) / (double)base->ranks;
    if (isfinite(rate)) {
        printf("  %.0f tokens/s (%.0f per rank", rate, per_rank);
        if (base != row && isfinite(base_per_rank)) {
            printf(", %.1f%% of linear", 100 * per_rank / base_per_rank);
        }
        printf(")");
    }
}

void shoal_study_print_row(const shoal_study_t *study, const shoal_study_row_t *row, size_t index, size_t count)
{
    printf("[%zu/%zu] ", index, count);
    if (study->slurm) {
        printf("%s x %s", plural(row->nodes, "node"), plural(row->ranks_per_node, "rank"));
    } else {
        printf("%s", plural(row->ranks, "local rank"));
    }
    printf(", %s, batch %zu", shoal_shard_name(row->shard), row->local);
    if (study->spec->study.nseeds > 1) {
        printf(", seed %llu", (unsigned long long)row->seed);
    }
    printf(": %s", shoal_verdict_name(row->verdict));
    if (row->verdict == SHOAL_VERDICT_OK) {
        print_rate(study, row);
    }
    if (row->gate.kind == SHOAL_GATE_COMPARED && row->verdict == SHOAL_VERDICT_OK) {
        printf("  loss gate %.1e", row->gate.difference);
    } else if (row->gate.kind == SHOAL_GATE_IS_REFERENCE) {
        printf("  is the loss reference");
    }
    if (row->tries > 1) {
        printf("  (started %zu times)", row->tries);
    }
    printf("%s%s\n", row->detail[0] == '\0' ? "" : "  ", row->detail);
    fflush(stdout);
}
