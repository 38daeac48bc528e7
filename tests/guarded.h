/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory of a device between bands that nobody may write to, for tests of what a kernel writes. */
#ifndef SHOAL_TESTS_GUARDED_H
#define SHOAL_TESTS_GUARDED_H

#include "kernels/device.h"

/* Device memory with guard bands, and its image on the host. Data starts `misalignment` past a 64-byte boundary. */
typedef struct {
    size_t         nbytes, offset;
    void          *memory;
    unsigned char *image;
} guarded_t;

void   guarded_create(shoal_device_t *device, size_t nbytes, size_t misalignment,
                      guarded_t *guarded_p);
void   guarded_destroy(shoal_device_t *device, guarded_t *guarded); /* all zero is allowed */
size_t guarded_nbytes(const guarded_t *guarded); /* of the image: data and bands */

/* Content: `initial`, or all bits set, which is NaN in every floating-point type. */
void guarded_upload(shoal_device_t *device, guarded_t *guarded, const void *initial);

/* Fetches the image; false: something was written outside the data. */
bool guarded_download(shoal_device_t *device, guarded_t *guarded);

#endif
