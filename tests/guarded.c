/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. */
#include "tests/guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>

enum { GUARD = 256, GUARD_BYTE = 0xa5 };

void guarded_create(shoal_device_t *device, size_t nbytes, size_t misalignment, guarded_t *guarded_p)
{
    guarded_p->offset = GUARD + misalignment;
    guarded_p->nbytes = nbytes;
    guarded_p->image  = malloc(nbytes + 2 * GUARD + misalignment);
    assert_non_null(guarded_p->image);
    assert_int_equal(device->ops->alloc(device, nbytes + 2 * GUARD + misalignment, &guarded_p->memory), SHOAL_OK);
}

size_t guarded_nbytes(const guarded_t *guarded)
{
    return guarded->offset + guarded->nbytes + GUARD;
}

void guarded_upload(shoal_device_t *device, guarded_t *guarded, const void *initial)
{
    memset(guarded->image, GUARD_BYTE, guarded_nbytes(guarded));
    memset(guarded->image + guarded->offset, 0xff, guarded->nbytes);
    if (initial != NULL) {
        memcpy(guarded->image + guarded->offset, initial, guarded->nbytes);
    }
    device->ops->upload(device, guarded->memory, guarded->image, guarded_nbytes(guarded));
}

bool guarded_download(shoal_device_t *device, guarded_t *guarded)
{
    bool intact = true;
    device->ops->download(device, guarded->image, guarded->memory, guarded_nbytes(guarded));
    for (size_t i = 0; i < guarded->offset; i++) {
        intact &= guarded->image[i] == GUARD_BYTE;
    }
    for (size_t i = guarded->offset + guarded->nbytes; i < guarded_nbytes(guarded); i++) {
        intact &= guarded->image[i] == GUARD_BYTE;
    }
    return intact;
}

void guarded_destroy(shoal_device_t *device, guarded_t *guarded)
{
    if (guarded->image != NULL) {
        device->ops->free(device, guarded->memory, guarded_nbytes(guarded));
        free(guarded->image);
    }
}
