/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands of `shoal`, dispatched by main.c. argv[0] is the command's name, the rest its arguments; the result is the exit
 * code (base/status.h), and whatever went wrong has been logged. Each answers --help.
 */
#ifndef SHOAL_SRC_COMMANDS_H
#define SHOAL_SRC_COMMANDS_H

int shoal_cmd_train(int argc, char **argv);
int shoal_cmd_study(int argc, char **argv);
int shoal_cmd_plan(int argc, char **argv);
int shoal_cmd_report(int argc, char **argv);
int shoal_cmd_data(int argc, char **argv);
int shoal_cmd_bench(int argc, char **argv);
int shoal_cmd_info(int argc, char **argv);

#endif
