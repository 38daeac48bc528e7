/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. dlopen resolves what a module takes from the program against the program's own, exported symbols. */
#include "base/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_NBYTES = PATH_MAX };

/* The directory of the program that this process runs. */
static bool program_directory(char path_p[PATH_NBYTES])
{
    ssize_t n = readlink("/proc/self/exe", path_p, PATH_NBYTES - 1);
    if (n <= 0) {
        return false;
    }
    path_p[n]    = '\0';
    char *slash  = strrchr(path_p, '/');
    *slash       = '\0';
    return true;
}

static bool is_here(const char *directory, const char *sub, const char *name, char path_p[PATH_NBYTES])
{
    int n = snprintf(path_p, PATH_NBYTES, "%s%s/%s.so", directory, sub, name);
    return n > 0 && n < PATH_NBYTES && access(path_p, R_OK) == 0;
}

static bool find_file(const char *name, char path_p[PATH_NBYTES])
{
    const char *asked = getenv("SHOAL_MODULES");
    char        program[PATH_NBYTES];
    if (asked != NULL) {
        return is_here(asked, "", name, path_p);
    }
    static const char *const near[] = {"/modules", "/../modules", "/../lib/shoal"};
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]) && program_directory(program); i++) {
        if (is_here(program, near[i], name, path_p)) {
            return true;
        }
    }
    return is_here(SHOAL_MODULE_DIR, "", name, path_p);
}

static shoal_status_t open_file(const char *path, void **handle_p, char *why_p, size_t why_nbytes)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(why_p, why_nbytes, "%s", dlerror());
        return SHOAL_ERR_UNSUPPORTED;
    }
    const shoal_module_t *module = dlsym(handle, "shoal_module");
    if (module == NULL || strcmp(module->build, PACKAGE_VERSION) != 0) {
        snprintf(why_p, why_nbytes, "%s is of shoal %s, the program of %s", path, module != NULL ? module->build : "(unknown)",
                 PACKAGE_VERSION);
        return SHOAL_ERR_UNSUPPORTED;
    }
    *handle_p = handle;
    return SHOAL_OK;
}

shoal_status_t shoal_module_find(const char *name, const char *symbol, const void **object_p, char *why_p, size_t why_nbytes)
{
    char  path[PATH_NBYTES];
    void *handle;
    if (!find_file(name, path)) {
        const char *asked = getenv("SHOAL_MODULES");
        snprintf(why_p, why_nbytes, "there is no %s.so in %s", name, asked != NULL ? asked : SHOAL_MODULE_DIR);
        return SHOAL_ERR_UNSUPPORTED;
    }
    SHOAL_TRY(open_file(path, &handle, why_p, why_nbytes));
    const void *object = dlsym(handle, symbol);
    if (object == NULL) {
        snprintf(why_p, why_nbytes, "%s has no %s", path, symbol);
        return SHOAL_ERR_UNSUPPORTED;
    }
    *object_p = object;
    return SHOAL_OK;
}
