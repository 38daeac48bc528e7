/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shoal command: a table of commands and nothing else. What all of them share is here too: a warning about
 * SHOAL_* variables that nothing reads, and a standard output that could not be written, which must not look like success.
 */
#define _GNU_SOURCE /* environ */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/output.h"
#include "base/status.h"
#include "src/commands.h"
#include "src/config/nearest.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"train", shoal_cmd_train, "train a model: once per rank under srun or mpirun, or with -n N on one host"},
    {"study", shoal_cmd_study, "measure a grid of node counts, layouts and batch sizes, and write a report"},
    {"plan", shoal_cmd_plan, "say what a run needs and takes, without a device: bytes per rank, milliseconds per step"},
    {"report", shoal_cmd_report, "turn the records of runs into tables"},
    {"data", shoal_cmd_data, "make token files and check them"},
    {"bench", shoal_cmd_bench, "time the collectives of each transport, or the ops of a training step"},
    {"info", shoal_cmd_info, "show this build, this machine and a configuration with the source of each value"},
};

enum { NCOMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(void)
{
    printf("Usage: shoal COMMAND [ARGUMENT]...\n"
           "Train language models on a Slurm cluster and measure how that scales.\n\nCommands:\n");
    for (size_t i = 0; i < NCOMMANDS; i++) {
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    }
    printf("\nOptions:\n"
           "      --help     print this help, or that of a command, and exit\n"
           "      --version  print the version and exit\n"
           "\nExit status: 0 done; 2 bad usage or configuration; 3 the plan does not fit; 4 out of memory; 5 a peer is lost or\n"
           "hangs; 6 bad data, record or checkpoint, or output that was lost; 75 stopped on request, run again to continue; 1 anything else.\n"
           "\nEnvironment: SHOAL_LOG=error|warn|info|trace sets how much is logged on standard error.\n");
}

static int refuse_command(const char *name)
{
    size_t best = 0;
    for (size_t i = 1; i < NCOMMANDS; i++) {
        if (shoal_edit_distance(name, commands[i].name) < shoal_edit_distance(name, commands[best].name)) {
            best = i;
        }
    }
    shoal_error("unknown command %s; did you mean %s? shoal --help lists all", name, commands[best].name);
    return shoal_status_exit_code(SHOAL_ERR_CONFIG);
}

/* A variable of the program, or of what launches, builds and tests it. */
static bool is_known_variable(const char *variable)
{
    static const char *const exact[] = {"SHOAL=",        "SHOAL_LOG=",          "SHOAL_DEBUG_CHECK=", "SHOAL_LAUNCH_TIME=",
                                        "SHOAL_SRCDIR=", "SHOAL_MAX_REQUEUES=", "SHOAL_BUILDDIR=",    "SHOAL_SHARE_GPU=",
                                        "SHOAL_STANDIN=", "SHOAL_PINNED_SLICE=", "SHOAL_MODULES="};
    static const char *const families[] = {"SHOAL_LOCAL_", "SHOAL_UCX_", "SHOAL_TEST_", "SHOAL_SCALE_", "SHOAL_STUDY_"};
    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++) {
        if (strncmp(variable, exact[i], strlen(exact[i])) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (strncmp(variable, families[i], strlen(families[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* One warning per job is enough: the first rank's, where a launcher says which that is. */
static bool is_first_rank(void)
{
    const char *slurm = getenv("SLURM_PROCID"), *mpirun = getenv("OMPI_COMM_WORLD_RANK");
    const char *rank = mpirun != NULL ? mpirun : slurm;
    return rank == NULL || strcmp(rank, "0") == 0;
}

static void warn_unread_variables(void)
{
    for (char **variable = environ; *variable != NULL; variable++) {
        if (strncmp(*variable, "SHOAL", 5) == 0 && ((*variable)[5] == '_' || (*variable)[5] == '=') &&
            !is_known_variable(*variable)) {
            shoal_warn("nothing reads the environment variable %.*s", (int)strcspn(*variable, "="), *variable);
        }
    }
}

/* Every rank refuses a level that there is not; the first says so. */
static bool check_log_level(void)
{
    const char *expects = shoal_log_expects();
    if (expects != NULL && is_first_rank()) {
        shoal_error("SHOAL_LOG=%s: expects one of %s", getenv("SHOAL_LOG"), expects);
    }
    return expects == NULL;
}

static int dispatch(int argc, char **argv)
{
    for (size_t i = 0; i < NCOMMANDS; i++) {
        if (strcmp(argv[0], commands[i].name) == 0) {
            if (is_first_rank()) {
                warn_unread_variables();
            }
            return check_log_level() ? commands[i].run(argc, argv) : shoal_status_exit_code(SHOAL_ERR_CONFIG);
        }
    }
    return refuse_command(argv[0]);
}

/*
 * Whoever starts the program with standard descriptors closed would find a record file, or the
 * socket to a launcher, under their numbers, and the log's lines in it. Opening takes the lowest
 * free number, so in this order each takes its own. Children need them too: they are not closed on
 * exec.
 */
static bool open_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    if (!open_standard_descriptors()) {
        return shoal_status_exit_code(SHOAL_ERR_INTERNAL); /* and nowhere to say it */
    }
    if (argc < 2) {
        shoal_error("no command given; shoal --help lists them");
        return shoal_status_exit_code(SHOAL_ERR_CONFIG);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("shoal %s\n", PACKAGE_VERSION);
        return shoal_output_finish(0);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help();
        return shoal_output_finish(0);
    }
    return shoal_output_finish(dispatch(argc - 1, argv + 1));
}
