/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Modules: parts of shoal that need large libraries (CUDA's, NCCL), as shared objects of their own that are opened when a
 * configuration asks for them. The program itself so starts in milliseconds and runs where those libraries are not installed.
 *
 * A module NAME.so is looked for in the directory that the environment variable SHOAL_MODULES names. Without that variable it is looked
 * for in modules/ beside the program (a build tree), in ../modules (programs of the tests), in ../lib/shoal (an installation that was
 * moved), and where it was installed. It must be of the same version as the program.
 *
 * Threads: any, but one at a time. A module stays open to the end of the process.
 */
#ifndef SHOAL_BASE_MODULE_H
#define SHOAL_BASE_MODULE_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What every module exports, as the symbol shoal_module. */
typedef struct {
    const char *build; /* PACKAGE_VERSION: modules and program must be of one build */
    /* Writes the libraries that it uses, with their versions: "cuBLASLt 13.1.0, cuDNN 9.19.0". */
    void (*describe)(char *text_p, size_t nbytes);
} shoal_module_t;

/*
 * The object that module `name` exports as `symbol`. SHOAL_ERR_UNSUPPORTED, and the reason in why_p, when the module is not there or
 * cannot be opened: a library that it needs is missing, say. Nothing is logged: the caller knows whether somebody asked for it.
 */
shoal_status_t shoal_module_find(const char *name, const char *symbol, const void **object_p, char *why_p, size_t why_nbytes);

#ifdef __cplusplus
}
#endif

#endif
