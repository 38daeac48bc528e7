/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands of shoal for tests, called in a forked process instead of started: quicker than a start of the program, above all where
 * sanitizers watch. The test itself never computes, so no OpenMP team is alive when it forks.
 */
#ifndef SHOAL_TESTS_CHILD_H
#define SHOAL_TESTS_CHILD_H

enum { CHILD_MAX_WORDS = 80, CHILD_TEXT_NBYTES = 16384, CHILD_HANGS = 1000 };

/* Both texts are cut to fit. */
typedef struct {
    int code; /* exit code; 128 + the signal that ended it; CHILD_HANGS: it was killed for taking
                 too long */
    char out[CHILD_TEXT_NBYTES];
    char err[CHILD_TEXT_NBYTES];
} child_t;

/* A command as src/commands.h declares them. */
typedef int (*child_command_t)(int argc, char **argv);

/*
 * Runs a command in a process group of its own. `line` is its name and arguments, separated by blanks. The child, and what it started,
 * is killed after `seconds`.
 */
void child_run(child_command_t command, const char *line, double seconds, child_t *child_p);

/* Removes a directory with all that is in it. */
void child_remove_tree(const char *path);

#endif
