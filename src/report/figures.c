/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The scripts of all plots. Scaling plots have one line per series: rows that differ in their number of ranks only.
 * Rows with as many ranks laid out differently (1 node x 4, 4 nodes x 1) split their series by ranks per node; each
 * then begins at the common base.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "src/report/plot.h"

/* ---- Series ---- */

static bool same_layout(const shoal_report_row_t *a, const shoal_report_row_t *b)
{
    return a->local == b->local && strcmp(a->shard, b->shard) == 0;
}

static bool split_by_node(const shoal_report_t *report)
{
    for (size_t i = 0; i < report->nrows; i++) {
        for (size_t j = 0; j < i; j++) {
            const shoal_report_row_t *a = &report->rows[i], *b = &report->rows[j];
            if (a->ok && b->ok && same_layout(a, b) && a->ranks == b->ranks && a->nodes != b->nodes) {
                return true;
            }
        }
    }
    return false;
}

static bool same_series(const shoal_report_row_t *a, const shoal_report_row_t *b, bool split)
{
    return same_layout(a, b) && (!split || a->ranks_per_node == b->ranks_per_node);
}

/* Whether row i is the first of its series. */
static bool leads_series(const shoal_report_t *report, size_t i, bool split)
{
    if (!report->rows[i].ok) {
        return false;
    }
    for (size_t j = 0; j < i; j++) {
        if (report->rows[j].ok && same_series(&report->rows[i], &report->rows[j], split)) {
            return false;
        }
    }
    return true;
}

static void write_series_title(const shoal_report_t *report, const shoal_report_row_t *row, bool split, FILE *script)
{
    char title[128] = "measured", batch[40] = "", nodes[48] = "";
    if (report->many_locals) {
        snprintf(batch, sizeof(batch), "%sbatch %zu", report->many_shards ? ", " : "", row->local);
    }
    if (split) {
        snprintf(nodes, sizeof(nodes), "%s%zu per node", report->many_shards || report->many_locals ? ", " : "", row->ranks_per_node);
    }
    if (report->many_shards || report->many_locals || split) {
        snprintf(title, sizeof(title), "%s%s%s", report->many_shards ? row->shard : "", batch, nodes);
    }
    shoal_plot_quote(title, script);
}

/* Speeds are plotted in a unit that leaves short numbers on the axis. */
typedef struct {
    double      scale;
    const char *name;
} speed_unit_t;

static speed_unit_t speed_unit(double largest)
{
    if (largest >= 2e6) {
        return (speed_unit_t){1e6, "million tokens"};
    }
    return largest >= 1e4 ? (speed_unit_t){1e3, "thousand tokens"} : (speed_unit_t){1, "tokens"};
}

static speed_unit_t unit_of_rows(const shoal_report_t *report, bool per_rank)
{
    double largest = 0;
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        largest = fmax(largest, per_rank ? row->tokens_per_s / (double)row->ranks : row->tokens_per_s);
    }
    return speed_unit(largest);
}

/* Columns: ranks, speed, linear speed, multiplier, linear multiplier. */
static void write_point(const shoal_report_t *report, const shoal_report_row_t *row, FILE *script)
{
    const shoal_report_row_t *base  = &report->rows[row->base];
    double                    scale = unit_of_rows(report, false).scale;
    fprintf(script, "%zu %.9g %.9g %.9g %.9g\n", row->ranks, row->tokens_per_s / scale, row->tokens_per_s_linear / scale,
            row->tokens_per_s / base->tokens_per_s, row->tokens_per_s_linear / base->tokens_per_s);
}

static void write_series(const shoal_report_t *report, size_t leader, bool split, FILE *script)
{
    const shoal_report_row_t *first = &report->rows[leader], *base = &report->rows[first->base];
    fprintf(script, "$series%zu << EOD\n", leader);
    if (!same_series(first, base, split)) {
        write_point(report, base, script);
    }
    for (size_t i = leader; i < report->nrows; i++) {
        if (report->rows[i].ok && same_series(first, &report->rows[i], split)) {
            write_point(report, &report->rows[i], script);
        }
    }
    fputs("EOD\n", script);
}

/*
 * Plots a column of each series with its linear counterpart. The mean over seeds is drawn as the line, each seed as a
 * point.
 */
static void plot_series(const shoal_report_t *report, int column, const char *ideal, FILE *script)
{
    bool split = split_by_node(report);
    int  color = 1;
    for (size_t i = 0; i < report->nrows; i++) {
        if (leads_series(report, i, split)) {
            write_series(report, i, split, script);
        }
    }
    fputs("plot ", script);
    for (size_t i = 0; i < report->nrows; i++) {
        if (!leads_series(report, i, split)) {
            continue;
        }
        fprintf(script, "%s$series%zu u 1:%d smooth unique w l lt %d lw 1.2 dt (8,6) t '%s', ", color == 1 ? "" : ", ", i,
                column + 1, color, color == 1 ? ideal : "");
        fprintf(script, "$series%zu u 1:%d smooth unique w l lt %d t '', $series%zu u 1:%d w p lt %d ps 0.8 t ", i, column,
                color, i, column, color);
        write_series_title(report, &report->rows[i], split, script);
        color++;
    }
    fputc('\n', script);
}

static void write_rank_tics(const shoal_report_t *report, FILE *script)
{
    fputs("set xtics (", script);
    size_t last = 0;
    for (size_t i = 0; i < report->nrows; i++) {
        if (report->rows[i].ok && report->rows[i].ranks != last) {
            fprintf(script, "%s'%zu' %zu", last == 0 ? "" : ", ", report->rows[i].ranks, report->rows[i].ranks);
            last = report->rows[i].ranks;
        }
    }
    fprintf(script, ")\nset xlabel '%ss'\nset xrange [0:%g]\n", report->unit, 1.04 * (double)last);
}

static bool write_throughput(const shoal_report_t *report, FILE *script)
{
    if (shoal_report_count_sizes(report) < 2) {
        return false;
    }
    write_rank_tics(report, script);
    fprintf(script, "set ylabel '%s per second'\nset yrange [0:*]\n", unit_of_rows(report, false).name);
    plot_series(report, 2, "linear", script);
    return true;
}

static bool write_multiplier(const shoal_report_t *report, FILE *script)
{
    if (shoal_report_count_sizes(report) < 2) {
        return false;
    }
    write_rank_tics(report, script);
    fputs("set ylabel 'times the smallest row'\nset yrange [0:*]\n", script);
    plot_series(report, 4, "linear", script);
    return true;
}

/* ---- One place per row ---- */

/* Tics under the rows that are ok, in order, from 0; turned where they would touch. Returns how many rows. */
static size_t write_row_tics(const shoal_report_t *report, FILE *script)
{
    size_t count = 0, longest = 0;
    fputs("set xtics (", script);
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (row->ok) {
            fputs(count == 0 ? "" : ", ", script);
            shoal_plot_quote(row->tick, script);
            fprintf(script, " %zu", count);
            longest = strlen(row->tick) > longest ? strlen(row->tick) : longest;
            count++;
        }
    }
    fprintf(script, ")\nset xrange [-0.6:%g]\n", (double)count - 0.4);
    fprintf(script, "set xlabel '%s'\n", report->local ? "local ranks" : "nodes x ranks per node");
    if (count * (longest + 2) > 96) {
        fputs("set xtics rotate by -35\n", script);
    }
    return count;
}

/* Each rank's own speed, spread over the place of its row so that equal ranks do not hide each other. */
static bool write_per_rank(const shoal_report_t *report, FILE *script)
{
    speed_unit_t unit  = unit_of_rows(report, true);
    size_t       place = 0, npoints = 0;
    fputs("$ranks << EOD\n", script);
    for (size_t i = 0; i < report->nrows; i++) {
        const json_t *speeds = json_object_get(report->rows[i].summary, "tokens_per_s_per_rank");
        size_t        n      = json_array_size(speeds);
        for (size_t r = 0; report->rows[i].ok && r < n; r++) {
            const json_t *speed  = json_array_get(speeds, r);
            double        spread = n == 1 ? 0 : 0.5 * ((double)r / (double)(n - 1) - 0.5);
            if (json_is_number(speed)) {
                fprintf(script, "%g %.9g\n", (double)place + spread, json_number_value(speed) / unit.scale);
                npoints++;
            }
        }
        place += report->rows[i].ok;
    }
    fputs("EOD\n", script);
    write_row_tics(report, script);
    fprintf(script, "set ylabel '%s per second and %s'\nset yrange [0:*]\nset offsets 0, 0, graph 0.1, 0\nunset key\n", unit.name,
            report->unit);
    fputs("plot $ranks u 1:2 w p lt 1 ps 0.6\n", script);
    return npoints > 0;
}

/* Stacked bars, from a block of columns: place, one value per title. */
static void plot_stacked(const char *const *titles, const int *colors, size_t n, FILE *script)
{
    /* From the top down: each bar covers the lower part of the one before it. */
    fputs("plot ", script);
    for (size_t i = n; i > 0; i--) {
        fputs("$bars u 1:($2", script);
        for (size_t k = 1; k < i; k++) {
            fprintf(script, "+$%zu", k + 2);
        }
        fprintf(script, ") w boxes lt %d t '%s'%s", colors[i - 1], titles[i - 1], i == 1 ? "\n" : ", ");
    }
}

static bool write_comm(const shoal_report_t *report, FILE *script)
{
    static const char *const titles[] = {"hidden behind compute", "exposed"};
    static const int         colors[] = {3, 2};
    size_t                   place = 0, nbars = 0;
    fputs("$bars << EOD\n", script);
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (row->ok && isfinite(row->comm_ms) && isfinite(row->exposed_ms)) {
            fprintf(script, "%zu %.9g %.9g\n", place, fmax(row->comm_ms - row->exposed_ms, 0), row->exposed_ms);
            nbars += row->comm_ms > 0;
        }
        place += row->ok;
    }
    fputs("EOD\n", script);
    write_row_tics(report, script);
    fputs("set ylabel 'ms per step'\nset yrange [0:*]\n", script);
    plot_stacked(titles, colors, 2, script);
    return nbars > 0;
}

static const char *const parts[] = {"compute", "exposed gather", "exposed reduce", "data", "other"};
static const int         part_colors[] = {1, 2, 4, 6, 5};
enum { NPARTS = sizeof(parts) / sizeof(parts[0]) };

/* The parts of a step; what is not known counts as "other". */
static void write_parts(double place, double step_ms, const double known[NPARTS - 1], FILE *script)
{
    double rest = step_ms;
    fprintf(script, "%g", place);
    for (size_t i = 0; i < NPARTS - 1; i++) {
        double value = isfinite(known[i]) ? known[i] : 0;
        fprintf(script, " %.9g", value);
        rest -= value;
    }
    fprintf(script, " %.9g\n", fmax(rest, 0));
}

static bool write_step(const shoal_report_t *report, FILE *script)
{
    size_t place = 0;
    fputs("$bars << EOD\n", script);
    for (size_t i = 0; i < report->nrows; i++) {
        const shoal_report_row_t *row = &report->rows[i];
        if (row->ok) {
            double known[] = {shoal_report_rank_mean(row->summary, "compute_ms"),
                              shoal_report_rank_mean(row->summary, "exposed_gather_ms"),
                              shoal_report_rank_mean(row->summary, "exposed_reduce_ms"),
                              shoal_report_rank_mean(row->summary, "data_ms")};
            write_parts((double)place++, row->step_ms, known, script);
        }
    }
    fputs("EOD\n", script);
    write_row_tics(report, script);
    fputs("set ylabel 'ms per step, mean over ranks'\nset yrange [0:*]\n", script);
    plot_stacked(parts, part_colors, NPARTS, script);
    return place > 0;
}

static bool write_ranks(const shoal_report_t *report, FILE *script)
{
    const shoal_report_row_t *row   = shoal_report_largest(report);
    const json_t             *ranks = row == NULL ? NULL : json_object_get(row->summary, "per_rank");
    size_t                    n     = json_array_size(ranks);
    fputs("$bars << EOD\n", script);
    for (size_t r = 0; r < n; r++) {
        const json_t *rank    = json_array_get(ranks, r);
        double        known[] = {shoal_json_number(rank, "compute_ms"), shoal_json_number(rank, "exposed_gather_ms"),
                                 shoal_json_number(rank, "exposed_reduce_ms"), shoal_json_number(rank, "data_ms")};
        write_parts((double)r, row->step_ms, known, script);
    }
    char label[160];
    snprintf(label, sizeof(label), "rank (of %s)", row == NULL ? "" : row->label);
    fputs("EOD\nset xlabel ", script);
    shoal_plot_quote(label, script);
    fprintf(script, "\nset ylabel 'ms per step'\nset yrange [0:*]\nset xrange [-0.6:%g]\n", (double)n - 0.4);
    fputs(n <= 32 ? "set xtics 1\n" : "set xtics auto\nset boxwidth 1\n", script);
    plot_stacked(parts, part_colors, NPARTS, script);
    return n > 1;
}

static bool write_loss(const shoal_report_t *report, FILE *script)
{
    const json_t *losses = report->study != NULL ? NULL : json_object_get(report->rows[0].summary, "losses");
    const json_t *valid  = json_object_get(report->rows[0].summary, "valid_loss");
    fputs("$train << EOD\n", script);
    for (size_t i = 0; i < json_array_size(losses); i++) {
        const json_t *loss = json_array_get(losses, i);
        if (json_is_number(loss)) {
            fprintf(script, "%zu %.9g\n", i + 1, json_number_value(loss));
        }
    }
    fputs("EOD\n$valid << EOD\n", script);
    for (size_t i = 0; i < json_array_size(valid); i++) {
        const json_t *point = json_array_get(valid, i);
        fprintf(script, "%g %.9g\n", shoal_json_number(point, "step"), shoal_json_number(point, "loss"));
    }
    fputs("EOD\nset xlabel 'step'\nset ylabel 'loss'\nplot $train u 1:2 w l lt 1 t 'training'", script);
    fputs(json_array_size(valid) > 0 ? ", $valid u 1:2 w lp lt 2 t 'validation'\n" : "\n", script);
    return json_array_size(losses) > 1;
}

const shoal_plot_t shoal_plots[] = {
    {"throughput", "Overall throughput, measured and linear from the smallest row.", write_throughput},
    {"multiplier", "Scaling multiplier: throughput in multiples of the smallest row's.", write_multiplier},
    {"per-rank", "Throughput of each rank; the points of one row are its ranks in order.", write_per_rank},
    {"comm", "Communication per step: how much of it compute hid, and how much compute waited for.", write_comm},
    {"step", "Where a step goes.", write_step},
    {"ranks", "Where a step goes on each rank of the largest row: a slow rank computes long, the others wait for it.", write_ranks},
    {"loss", "Loss by step.", write_loss},
};

const size_t shoal_nplots = sizeof(shoal_plots) / sizeof(shoal_plots[0]);
