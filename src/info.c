/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal info`: what this binary is, what it finds on this machine, and what a configuration comes to. It is the first
 * thing to ask for when somebody else's run goes wrong, and it fails when a backend of the build does not start.
 */
#include "src/config/option.h"
#include "src/info.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "src/commands.h"
#include "src/config/config.h"

static const char usage[] =
    "Usage: shoal info [--ranks N] [CONFIG] [group.key=value]...\n"
    "       shoal info --keys\n"
    "\n"
    "Prints version, build, libraries, backends and topology; with CONFIG or settings, the effective configuration instead,\n"
    "each value with where it comes from. Fails when a backend of this build does not start.\n"
    "\n"
    "      --keys     list every configuration key with its values, default and meaning\n"
    "  -n, --ranks N  settle the configuration for N ranks (default 1)\n"
    "  -h, --help     print this help and exit\n";

typedef struct {
    bool keys;
    int  nranks;
} options_t;

static void print_build(void)
{
    printf("shoal %s\n\nbuild\n", PACKAGE_VERSION);
#ifdef __VERSION__
    printf("  %-12s %s\n", "compiler", __VERSION__);
#endif
#ifdef SHOAL_BUILD_FLAGS
    printf("  %-12s %s\n", "flags", SHOAL_BUILD_FLAGS);
#endif
#ifdef __OPTIMIZE__
    printf("  %-12s yes\n", "optimized");
#else
    printf("  %-12s no: times mean little\n", "optimized");
#endif
#if defined(__SANITIZE_ADDRESS__)
    printf("  %-12s address: times mean little\n", "sanitizer");
#elif defined(__SANITIZE_THREAD__)
    printf("  %-12s thread: times mean little\n", "sanitizer");
#endif
#ifdef SHOAL_DEBUG_CHECK
    printf("  %-12s on: core structures are checked at every change\n", "debug checks");
#endif
}

static shoal_status_t print_everything(void)
{
    print_build();
    shoal_info_libraries();
    shoal_info_machine();
    fflush(stdout); /* the order stays right when a backend logs why it fails */
    return shoal_info_backends();
}

static void print_value(const char *name, const json_t *entry)
{
    const json_t *value = json_object_get(entry, "value");
    char         *text  = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
    printf("%-24s %-24s # %s\n", name, text != NULL ? text : "?", json_string_value(json_object_get(entry, "source")));
    free(text);
}

static void print_config(const shoal_config_t *config)
{
    json_t     *all = shoal_config_to_json(config);
    const char *name;
    json_t     *entry;
    json_object_foreach(all, name, entry)
    {
        print_value(name, entry);
    }
    json_decref(all);
}

/* The first word without "=" is the file; without one there are only settings. */
static shoal_status_t show_config(int nranks, int nwords, char **words)
{
    const char         *path = strchr(words[0], '=') == NULL ? words[0] : NULL;
    int                 skip = path != NULL;
    shoal_config_t     *config;
    const shoal_spec_t *spec;
    SHOAL_TRY(shoal_config_load(path, nwords - skip, words + skip, &config));
    shoal_status_t status = shoal_config_resolve(config, nranks, &spec);
    if (status == SHOAL_OK) {
        print_config(config);
    }
    shoal_config_free(config);
    return status;
}

/* SHOAL_IN_PROGRESS: help was printed, there is nothing more to do. */
static shoal_status_t parse_options(int argc, char **argv, options_t *options_p)
{
    static const struct option longs[] = {{"keys", no_argument, NULL, 'k'},
                                          {"ranks", required_argument, NULL, 'n'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    optind = 0; /* GNU: start afresh */
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":n:h", longs, NULL)) != -1;) {
        if (option == 'k') {
            options_p->keys = true;
        } else if (option == 'h') {
            fputs(usage, stdout);
            return SHOAL_IN_PROGRESS;
        } else if (option == 'n') {
            SHOAL_TRY(shoal_option_int("info", "--ranks", optarg, 1, SHOAL_OPTION_MAX_RANKS, &options_p->nranks));
        } else if (option == '?' || option == ':') {
            shoal_error("info: option %s: %s", argv[optind - 1], option == ':' ? "expects a value" : "unknown; see shoal info --help");
            return SHOAL_ERR_CONFIG;
        }
    }
    return SHOAL_OK;
}

int shoal_cmd_info(int argc, char **argv)
{
    options_t      options = {.nranks = 1};
    shoal_status_t status  = parse_options(argc, argv, &options);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    if (options.keys) {
        shoal_config_print_keys();
    } else if (optind < argc) {
        status = show_config(options.nranks, argc - optind, argv + optind);
    } else {
        status = print_everything();
    }
    return shoal_status_exit_code(status);
}
