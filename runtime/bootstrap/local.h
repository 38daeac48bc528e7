/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The little protocol between a local launcher and the ranks that it forked: a stream socket pair
 * per rank. A rank sends a header, for an exchange followed by its bytes; the launcher answers an
 * exchange with a header and the bytes of all ranks, or with LOST or LATE. Every header begins with
 * a magic number, because the launcher must find out at once when something other than a rank's
 * bootstrap writes to the socket.
 */
#ifndef SHOAL_RUNTIME_BOOTSTRAP_LOCAL_H
#define SHOAL_RUNTIME_BOOTSTRAP_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum {
    SHOAL_LOCAL_EXCHANGE =
        1,             /* to the launcher: nbytes follow; from it: nbytes of all ranks follow */
    SHOAL_LOCAL_ABORT, /* to the launcher: end the job with exit code `value` */
    SHOAL_LOCAL_LOST,  /* from the launcher: rank `value` is gone, the exchange cannot complete */
    SHOAL_LOCAL_LATE,  /* from the launcher: some rank did not come in time, and the launcher has
                          said which */
} shoal_local_kind_t;

enum {
    SHOAL_LOCAL_MAGIC        = 0x6c616f73,
    SHOAL_LOCAL_STAGE_NBYTES = 48,
    SHOAL_LOCAL_MAX_NBYTES   = 1 << 28, /* of one rank's part of an exchange */
};

typedef struct {
    uint32_t magic; /* SHOAL_LOCAL_MAGIC */
    uint32_t kind;
    int32_t  value;
    uint32_t patience_ms; /* of an exchange: how long it may wait for the last rank */
    uint64_t nbytes;
    char     stage[SHOAL_LOCAL_STAGE_NBYTES]; /* of an exchange: what the rank is at, for people */
} shoal_local_header_t;

/* ---- The rank's side ---- */

/* Makes this process rank `rank` of `size`, talking to its launcher over fd. Called once, right after the fork. */
void shoal_local_become_rank(int fd, int rank, int size);

/* Which rank this process was forked as, -1 if as none; *fd_p, unless NULL, is its socket. */
int shoal_local_rank(int *fd_p);

/* ---- The launcher's side: never blocks ---- */

/* What has come from one rank so far, and what has still to go to it. All zero: nothing. */
typedef struct {
    shoal_local_header_t header;
    size_t               header_got, body_got;
    char                *body;     /* of an exchange; NULL until its header is complete */
    bool complete; /* a message is here; nothing is read until shoal_mailbox_clear */
    const char          *out;      /* the caller's, valid until all of it is sent */
    size_t               out_nbytes, out_sent;
} shoal_mailbox_t;

/*
 * Reads what there is. SHOAL_OK: a message is complete; SHOAL_IN_PROGRESS; SHOAL_ERR_PEER: the rank
 * has closed its end; SHOAL_ERR_INVALID: what came is no message; SHOAL_ERR_NO_MEMORY. None is
 * logged.
 */
shoal_status_t shoal_mailbox_read(shoal_mailbox_t *mailbox, int fd);
/* Makes room for the next message. */
void shoal_mailbox_clear(shoal_mailbox_t *mailbox);
/* Sends as much as goes of the bytes that were given to shoal_mailbox_answer. */
void shoal_mailbox_write(shoal_mailbox_t *mailbox, int fd);
void shoal_mailbox_answer(shoal_mailbox_t *mailbox, int fd, const void *bytes, size_t nbytes);
bool shoal_mailbox_has_output(const shoal_mailbox_t *mailbox);

#endif
