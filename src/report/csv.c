/* SPDX-License-Identifier: BSD-3-Clause */
/* A line per row, its cells as RFC 4180 says. */
#include "src/report/csv.h"

#include <math.h>
#include <string.h>

#include "base/json.h"

/* As RFC 4180 says. A quote before what a spreadsheet would run as a formula makes it text. */
static void print_csv_text(const char *text, FILE *file)
{
    fputs(text[0] != '\0' && strchr("=+-@", text[0]) != NULL ? "\"'" : "\"", file);
    for (; *text != '\0'; text++) {
        fputs(*text == '"' ? "\"\"" : (const char[]){*text, '\0'}, file);
    }
    fputc('"', file);
}

/* An empty field is a number that is not known. */
static void print_csv_number(double value, FILE *file)
{
    fputc(',', file);
    if (isfinite(value)) {
        fprintf(file, "%.15g", value);
    }
}

/* Columns that are a field of a row's summary as it is. */
static const struct {
    const char *column, *path;
} csv_fields[] = {
    {"total_tokens", "total_tokens"},
    {"elapsed_s", "elapsed_s"},
    {"step_ms_p10", "step_ms.p10"},
    {"step_ms_p90", "step_ms.p90"},
    {"mfu_causal", "mfu_causal"},
    {"mfu_full", "mfu_full"},
    {"launch_to_first_step_ms", "launch_to_first_step_ms"},
    {"plan_nbytes", "plan_nbytes"},
    {"used_nbytes", "used_nbytes"},
    {"rss_peak_nbytes", "rss_peak_nbytes"},
    {"parameters", "parameters"},
};

enum { NCSV_FIELDS = sizeof(csv_fields) / sizeof(csv_fields[0]) };

static void print_csv_row(const shoal_report_row_t *row, FILE *file)
{
    const json_t *summary = row->ok ? row->summary : NULL;
    double        days    = 20 * shoal_json_number(summary, "parameters") / (row->tokens_per_s * 86400);
    print_csv_text(row->name, file);
    fprintf(file, ",%zu,%zu,%zu,%s,%zu,%zu,%zu,%lld,", row->nodes, row->ranks_per_node, row->ranks, row->shard, row->local,
            row->accumulate, row->global, (long long)row->seed);
    print_csv_text(row->verdict, file);
    fputc(',', file);
    print_csv_text(strcmp(row->gate, "–") == 0 ? "" : row->gate, file);
    const double values[] = {row->tokens_per_s, row->tokens_per_s / (double)row->ranks, row->efficiency, row->step_ms,
                             row->comm_ms,      row->exposed_ms,                        days};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        print_csv_number(values[i], file);
    }
    for (size_t i = 0; i < NCSV_FIELDS; i++) {
        print_csv_number(shoal_json_number(summary, csv_fields[i].path), file);
    }
    fputc('\n', file);
}

void shoal_csv_print(const shoal_report_t *report, FILE *file)
{
    fputs("name,nodes,ranks_per_node,ranks,shard,local_batch,accumulate,global_batch,seed,verdict,loss_gate,tokens_per_s,"
          "tokens_per_s_per_rank,efficiency,step_ms,comm_ms,exposed_ms,chinchilla_days", file);
    for (size_t i = 0; i < NCSV_FIELDS; i++) {
        fprintf(file, ",%s", csv_fields[i].column);
    }
    fputc('\n', file);
    for (size_t i = 0; i < report->nrows; i++) {
        print_csv_row(&report->rows[i], file);
    }
}
