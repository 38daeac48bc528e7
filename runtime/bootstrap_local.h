/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The little protocol between a local launcher and the ranks that it forked: a stream socket pair per rank. A rank sends a
 * header, for an exchange followed by its bytes; the launcher answers an exchange with a header and the bytes of all ranks,
 * or with LOST.
 */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_LOCAL_H
#define SHOAL_RUNTIME_BOOTSTRAP_LOCAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum {
    SHOAL_LOCAL_EXCHANGE = 1, /* to the launcher: nbytes follow; from it: nbytes of all ranks follow */
    SHOAL_LOCAL_ABORT,        /* to the launcher: end the job with exit code `value` */
    SHOAL_LOCAL_LOST,         /* from the launcher: rank `value` is gone, the exchange cannot complete */
} shoal_local_kind_t;

typedef struct {
    uint32_t kind;
    int32_t  value;
    uint64_t nbytes;
} shoal_local_header_t;

/* Blocking, all or nothing, through signals. SHOAL_ERR_PEER when the other end is gone. */
shoal_status_t shoal_local_send(int fd, const void *data, size_t nbytes);
shoal_status_t shoal_local_recv(int fd, void *data_p, size_t nbytes);

/* Makes this process rank `rank` of `size`, talking to its launcher over fd. Called once, right after the fork. */
void shoal_local_become_rank(int fd, int rank, int size);

#endif
