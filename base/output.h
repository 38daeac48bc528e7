/* SPDX-License-Identifier: BSD-3-Clause */
/* Standard output at the end of a process. */
#ifndef SHOAL_BASE_OUTPUT_H
#define SHOAL_BASE_OUTPUT_H

/*
 * Flushes standard output. If some of it was lost, on a full disk say, that is logged, and an exit
 * code of success becomes that of SHOAL_ERR_DATA; any other is returned as it is.
 */
int shoal_output_finish(int exit_code);

#endif
