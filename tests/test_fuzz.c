/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A differential fuzz of valid configurations. Each seed is a small random model with odd sizes, trained in fp32 by one rank, one
 * sequence at a time, and then in several random layouts: ranks, sharding, prefetch, recomputation, accumulation, chunks, kernels,
 * threads. Every layout must lose the same, use the bytes that `shoal plan` says, and allocate nothing for steps after the second; and a
 * random mistake must be refused with exit code 2 and one line.
 *
 * Usage: test_fuzz [SEED]... Without seeds a fixed few are run, or with FUZZ_SECONDS=N random ones for so long. What fails is
 * printed as the command line that shows it; KEEP=DIR keeps the token files that those lines name.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/time.h"
#include "runtime/execute/record.h"
#include "src/commands.h"
#include "tests/child.h"
#include "tests/fuzz_case.h"

enum { NLAYOUTS = 3, NTOKENS = 3000, DEADLINE_S = 300, FIXED_SEEDS = 6 };

/* The rounding of fp32 sums in another order, over a few steps: as in tests/test_layouts.c. Other
 * kernels round every product otherwise. */
static double tolerance_of(const fuzz_layout_t *layout)
{
    return layout->other_kernels ? 1e-5 : 1e-6;
}

static char directory[256];

typedef struct {
    size_t nsteps;
    double losses[FUZZ_STEPS];
    double used_nbytes, heap_growth_nbytes;
} result_t;

static int fail(uint64_t seed, const char *line, const char *what, const char *more)
{
    printf("seed %llu FAILED: %s%s%s\n  shoal %s\n", (unsigned long long)seed, what,
           more[0] != '\0' ? ": " : "", more, line);
    fflush(stdout);
    return 1;
}

static bool write_tokens(const char *path, fuzz_case_t *drawn)
{
    FILE *file = fopen(path, "wb");
    for (int i = 0; file != NULL && i < NTOKENS; i++) {
        size_t token = fuzz_draw(drawn, drawn->vocab);
        fputc((int)(token & 0xff), file);
        fputc((int)(token >> 8), file);
    }
    return file != NULL && fclose(file) == 0;
}

static int train(uint64_t seed, const char *line, const char *run_dir, result_t *result_p)
{
    child_t child;
    child_run(shoal_cmd_train, line, DEADLINE_S, &child);
    if (child.code != 0) {
        char what[64];
        snprintf(what, sizeof(what), child.code == CHILD_HANGS ? "it hangs" : "exit code %d",
                 child.code);
        return fail(seed, line, what, child.err);
    }
    json_t *summary              = shoal_json_read(run_dir, "summary.json", 0, NULL);
    result_p->nsteps             = shoal_record_read_losses(run_dir, FUZZ_STEPS, result_p->losses);
    result_p->used_nbytes        = shoal_json_number(summary, "used_nbytes");
    result_p->heap_growth_nbytes = shoal_json_number(summary, "heap_growth_nbytes");
    json_decref(summary);
    return 0;
}

static double distance(const result_t *a, const result_t *b)
{
    double largest = a->nsteps == FUZZ_STEPS && b->nsteps == FUZZ_STEPS ? 0.0 : INFINITY;
    for (size_t s = 0; s < FUZZ_STEPS && isfinite(largest); s++) {
        double difference = fabs(a->losses[s] - b->losses[s]) / fmax(fabs(b->losses[s]), 1e-3);
        largest = difference <= largest ? largest : isnan(difference) ? INFINITY : difference;
    }
    return largest;
}

/*
 * What rounding makes of this model: how far one rank's losses move when model.residual changes by its last bit. Some models make much of
 * it, such as one of width 1, whose normalization only keeps a sign, with an optimizer that divides a gradient by its own size.
 */
static double sensitivity(uint64_t seed, const fuzz_case_t *drawn, const result_t *reference)
{
    char     line[2 * FUZZ_TEXT_NBYTES], run_dir[300];
    result_t nudged = {.nsteps = 0};
    snprintf(run_dir, sizeof(run_dir), "%s/run", directory);
    snprintf(line, sizeof(line),
             "train -n 1 /dev/null %s %s batch.local=1 run.threads=1 run.dir=%s", drawn->model,
             drawn->nudge, run_dir);
    bool failed = train(seed, line, run_dir, &nudged) != 0;
    child_remove_tree(run_dir);
    return failed ? 0.0 : distance(&nudged, reference);
}

/* The bytes that `shoal plan` says; NaN when it fails. */
static double planned(const char *line)
{
    child_t child;
    child_run(shoal_cmd_plan, line, DEADLINE_S, &child);
    json_t *plan   = child.code == 0 ? json_loads(child.out, 0, NULL) : NULL;
    double  nbytes = shoal_json_number(plan, "total_nbytes");
    json_decref(plan);
    return nbytes;
}

static int check_layout(uint64_t seed, const fuzz_case_t *drawn, const fuzz_layout_t *layout,
                        const result_t *reference, double *largest_p)
{
    char     line[2 * FUZZ_TEXT_NBYTES + 512], what[256], run_dir[300];
    result_t result;
    snprintf(run_dir, sizeof(run_dir), "%s/run", directory);
    snprintf(line, sizeof(line), "train -n %d /dev/null %s %s run.dir=%s", layout->nranks,
             drawn->model, layout->words, run_dir);
    if (train(seed, line, run_dir, &result) != 0) {
        return 1;
    }
    double difference = distance(&result, reference);
    child_remove_tree(run_dir);
    *largest_p = difference > *largest_p && !layout->other_kernels ? difference : *largest_p;
    if (!(difference <= tolerance_of(layout)) &&
        !(difference <= 10.0 * sensitivity(seed, drawn, reference))) {
        snprintf(
            what, sizeof(what),
            "the losses differ from one rank's by %.2e, at step 1 by %.2e, at the last by %.2e",
            difference, result.losses[0] - reference->losses[0],
            result.losses[FUZZ_STEPS - 1] - reference->losses[FUZZ_STEPS - 1]);
        return fail(seed, line, what, "");
    }
    if (!layout->records && !(result.heap_growth_nbytes == 0.0)) {
        snprintf(what, sizeof(what), "the heap grew by %.0f bytes after step 2",
                 result.heap_growth_nbytes);
        return fail(seed, line, what, "");
    }
    snprintf(line, sizeof(line), "plan --json -n %d /dev/null %s %s", layout->nranks, drawn->model,
             layout->words);
    double nbytes = planned(line);
    if (!(nbytes == result.used_nbytes)) {
        snprintf(what, sizeof(what), "%.0f bytes are planned, the run used %.0f", nbytes,
                 result.used_nbytes);
        return fail(seed, line, what, "");
    }
    return 0;
}

/* One line on standard error that is an error, and exit code 2. */
static int check_mistake(uint64_t seed, fuzz_case_t *drawn, const fuzz_layout_t *layout)
{
    char    line[2 * FUZZ_TEXT_NBYTES + 512], mistake[256];
    child_t child;
    fuzz_mistake_draw(drawn, layout, sizeof(mistake), mistake);
    snprintf(line, sizeof(line), "plan -n %d /dev/null %s %s %s", layout->nranks, drawn->model,
             layout->words, mistake);
    child_run(shoal_cmd_plan, line, DEADLINE_S, &child);
    const char *first = strstr(child.err, "error: ");
    if (child.code != 2 || first == NULL || strstr(first + 1, "error: ") != NULL ||
        child.out[0] != '\0') {
        char what[64];
        snprintf(what, sizeof(what), "exit code %d where %d and one error are right", child.code,
                 2);
        return fail(seed, line, what, child.err);
    }
    return 0;
}

/* How many failures. */
static int run_seed(uint64_t seed)
{
    char          path[300], line[FUZZ_TEXT_NBYTES + 512], run_dir[300];
    fuzz_case_t   drawn;
    fuzz_layout_t layout;
    result_t      reference;
    double        largest = 0.0;
    int           nfailed = 0;
    snprintf(path, sizeof(path), "%s/tokens-%llu.bin", directory, (unsigned long long)seed);
    snprintf(run_dir, sizeof(run_dir), "%s/run", directory);
    fuzz_case_draw(seed, path, &drawn);
    if (!write_tokens(path, &drawn)) {
        return fail(seed, path, "the token file cannot be written", "");
    }
    snprintf(line, sizeof(line), "train -n 1 /dev/null %s batch.local=1 run.threads=1 run.dir=%s",
             drawn.model, run_dir);
    nfailed = train(seed, line, run_dir, &reference);
    child_remove_tree(run_dir);
    for (int i = 0; i < NLAYOUTS && nfailed == 0; i++) {
        fuzz_layout_draw(&drawn, path, &layout);
        nfailed += check_layout(seed, &drawn, &layout, &reference, &largest);
        nfailed += check_mistake(seed, &drawn, &layout);
    }
    printf("seed %llu: %s, largest difference %.1e\n", (unsigned long long)seed,
           nfailed == 0 ? "ok" : "FAILED", largest);
    fflush(stdout);
    if (getenv("KEEP") == NULL) {
        unlink(path);
    }
    return nfailed;
}

static int run_for(double seconds)
{
    int64_t  start   = shoal_time_ns();
    uint64_t seed    = (uint64_t)time(NULL);
    int      nfailed = 0, nseeds = 0;
    for (; shoal_ms_since(start) < seconds * 1e3; nseeds++) {
        nfailed += run_seed(seed++);
    }
    printf("%d seeds, %d failures\n", nseeds, nfailed);
    return nfailed;
}

static bool make_directory(void)
{
    const char *keep = getenv("KEEP");
    if (keep != NULL) {
        snprintf(directory, sizeof(directory), "%s", keep);
        return mkdir(keep, 0777) == 0 || access(keep, W_OK) == 0;
    }
    const char *above = getenv("TMPDIR");
    snprintf(directory, sizeof(directory), "%s/shoal-fuzz-XXXXXX", above != NULL ? above : "/tmp");
    return mkdtemp(directory) != NULL;
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("FUZZ_SECONDS");
    int         nfailed = 0;
    unsetenv("OMP_NUM_THREADS"); /* a rank's threads are then its share of the cores, as for most
                                    users */
    if (!make_directory()) {
        perror("test_fuzz: no directory for token files");
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        nfailed += run_seed(strtoull(argv[i], NULL, 10));
    }
    if (argc == 1 && seconds != NULL && seconds[0] != '\0') {
        nfailed += run_for(strtod(seconds, NULL));
    } else if (argc == 1) {
        for (uint64_t seed = 1; seed <= FIXED_SEEDS; seed++) {
            nfailed += run_seed(seed);
        }
    }
    if (getenv("KEEP") == NULL) {
        child_remove_tree(directory);
    }
    return nfailed == 0 ? 0 : 1;
}
