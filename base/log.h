/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log lines on standard error, one write(2) per line so that ranks sharing a terminal do not interleave. Four levels,
 * defined by volume: errors end the run, warnings are at most a few per run, info is a few lines per run, trace is at
 * most a few lines per step. SHOAL_LOG=error|warn|info|trace selects; the default is info on rank 0 and warn elsewhere.
 * Thread-safe.
 */
#ifndef SHOAL_BASE_LOG_H
#define SHOAL_BASE_LOG_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SHOAL_LOG_ERROR, SHOAL_LOG_WARN, SHOAL_LOG_INFO, SHOAL_LOG_TRACE } shoal_log_level_t;

/* Names the rank and host in every later line of this process. Before the call lines carry no rank. */
void shoal_log_set_rank(int rank, const char *host);

/* NULL, or what SHOAL_LOG must be one of, if it is set and is not; the default then holds. */
const char *shoal_log_expects(void);

void shoal_log(shoal_log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define shoal_error(...) shoal_log(SHOAL_LOG_ERROR, __VA_ARGS__)
#define shoal_warn(...)  shoal_log(SHOAL_LOG_WARN, __VA_ARGS__)
#define shoal_info(...)  shoal_log(SHOAL_LOG_INFO, __VA_ARGS__)
#define shoal_trace(...) shoal_log(SHOAL_LOG_TRACE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
