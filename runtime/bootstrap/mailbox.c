/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The launcher's end of a rank's socket. A rank may stop in the middle of a message, or its socket
 * may be written to by something that is no bootstrap: the launcher then still has its other ranks,
 * its signals and its deadlines to look after.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/bootstrap/local.h"

/* Reads up to nbytes. SHOAL_OK: *got_p has grown. */
static shoal_status_t read_some(int fd, void *to_p, size_t nbytes, size_t *got_p)
{
    ssize_t n = recv(fd, to_p, nbytes, MSG_DONTWAIT);
    if (n > 0) {
        *got_p += (size_t)n;
        return SHOAL_OK;
    }
    bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    return later ? SHOAL_IN_PROGRESS : SHOAL_ERR_PEER;
}

static shoal_status_t check_header(const shoal_local_header_t *header)
{
    bool known = header->kind == SHOAL_LOCAL_EXCHANGE || header->kind == SHOAL_LOCAL_ABORT;
    bool sound = header->magic == SHOAL_LOCAL_MAGIC && known &&
                 header->nbytes <= SHOAL_LOCAL_MAX_NBYTES &&
                 memchr(header->stage, '\0', sizeof(header->stage)) != NULL;
    return sound && (header->kind == SHOAL_LOCAL_EXCHANGE || header->nbytes == 0)
               ? SHOAL_OK
               : SHOAL_ERR_INVALID;
}

static shoal_status_t read_header(shoal_mailbox_t *mailbox, int fd)
{
    char *at = (char *)&mailbox->header;
    while (mailbox->header_got < sizeof(mailbox->header)) {
        size_t left = sizeof(mailbox->header) - mailbox->header_got;
        SHOAL_TRY(read_some(fd, at + mailbox->header_got, left, &mailbox->header_got));
    }
    SHOAL_TRY(check_header(&mailbox->header));
    mailbox->body = malloc(mailbox->header.nbytes + 1); /* never NULL for an empty contribution */
    mailbox->body_got = 0;
    return mailbox->body != NULL ? SHOAL_OK : SHOAL_ERR_NO_MEMORY;
}

shoal_status_t shoal_mailbox_read(shoal_mailbox_t *mailbox, int fd)
{
    if (mailbox->complete) {
        /* A rank waits for its answer: the only news that can come is its end, or bytes that are no
         * message. */
        char byte;
        size_t         got    = 0;
        shoal_status_t status = read_some(fd, &byte, 1, &got);
        return status == SHOAL_OK ? SHOAL_ERR_INVALID : status;
    }
    if (mailbox->body == NULL) {
        SHOAL_TRY(read_header(mailbox, fd));
    }
    while (mailbox->body_got < mailbox->header.nbytes) {
        size_t left = mailbox->header.nbytes - mailbox->body_got;
        SHOAL_TRY(read_some(fd, mailbox->body + mailbox->body_got, left, &mailbox->body_got));
    }
    mailbox->complete = true;
    return SHOAL_OK;
}

void shoal_mailbox_clear(shoal_mailbox_t *mailbox)
{
    free(mailbox->body);
    mailbox->body       = NULL;
    mailbox->header_got = mailbox->body_got = 0;
    mailbox->complete                       = false;
}

void shoal_mailbox_write(shoal_mailbox_t *mailbox, int fd)
{
    while (shoal_mailbox_has_output(mailbox)) {
        size_t  left = mailbox->out_nbytes - mailbox->out_sent;
        ssize_t n = send(fd, mailbox->out + mailbox->out_sent, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            return;
        }
        /* A rank that is gone takes no answer; what its end means is known when it is reaped. */
        mailbox->out_sent = n < 0 ? mailbox->out_nbytes : mailbox->out_sent + (size_t)n;
    }
}

void shoal_mailbox_answer(shoal_mailbox_t *mailbox, int fd, const void *bytes, size_t nbytes)
{
    mailbox->out        = bytes;
    mailbox->out_nbytes = nbytes;
    mailbox->out_sent   = 0;
    shoal_mailbox_write(mailbox, fd);
}

bool shoal_mailbox_has_output(const shoal_mailbox_t *mailbox)
{
    return mailbox->out_sent < mailbox->out_nbytes;
}
