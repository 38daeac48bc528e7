/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `shoal data`: byte-level token files from any files, and a look into token files from elsewhere. The stream may come from a
 * pipe, so its length is known only at its end: all of it goes to the training file first, then the validation part is cut off its
 * tail. Both files appear under their names complete, or not at all (base/atomic_file.h).
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/file.h"
#include "base/log.h"
#include "runtime/execute/data.h"
#include "src/commands.h"
#include "src/config/option.h"

enum { CHUNK = 1 << 16 }; /* bytes read at a time */

static const char usage[] =
    "Usage: shoal data tokenize [--valid FRACTION|N] -o PREFIX FILE...\n"
    "       shoal data info FILE [--vocab N]\n"
    "\n"
    "tokenize makes one token of each byte (vocabulary 256) of the files, in order; - is standard input. It writes\n"
    "PREFIX.train.bin and, with --valid, PREFIX.valid.bin, which takes the last N tokens, or that fraction of them.\n"
    "info checks a token file (raw uint16, or llm.c's format) and prints what it holds.\n"
    "\n"
    "  -o, --output PREFIX   where the token files go\n"
    "      --valid FRACTION  part for validation, between 0 and 1, written with a point; or\n"
    "      --valid N         a number of tokens\n"
    "      --vocab N         token ids must be below N\n"
    "  -h, --help            print this help and exit\n";

typedef struct {
    const char *prefix;
    double      fraction; /* of the tokens that validate; or else */
    uint64_t    nvalid;   /* this many */
    size_t      vocab;
} options_t;

/* ---- tokenize ---- */

/* A signal ends the reading, so that the file under way is removed. */
static volatile sig_atomic_t stopped;

static void request_stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void obey_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action    = {.sa_handler = request_stop}, before;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) { /* nohup stays what it is */
            sigaction(signals[i], &action, NULL);
        }
    }
}

/* Copies a file's bytes as tokens. */
static shoal_status_t tokenize_file(const char *path, shoal_atomic_file_t *out)
{
    unsigned char bytes[CHUNK], tokens[2 * CHUNK];
    bool          from_stdin = strcmp(path, "-") == 0;
    const char   *why        = NULL;
    int           fd         = from_stdin ? STDIN_FILENO : shoal_file_open(path, SHOAL_FILE_STREAM, &why);
    uint64_t      offset     = 0;
    ssize_t       n          = fd < 0 ? -1 : 0;

    shoal_status_t status = SHOAL_OK;
    while (fd >= 0 && status == SHOAL_OK && !stopped && (n = shoal_file_read_some(fd, bytes, sizeof(bytes))) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) { /* little-endian */
            tokens[2 * i]     = bytes[i];
            tokens[2 * i + 1] = 0;
        }
        offset += (uint64_t)n;
        status = shoal_atomic_file_write(out, tokens, 2 * (size_t)n);
    }
    if (status == SHOAL_OK && stopped) {
        shoal_error("%s: offset %" PRIu64 ": stopped by a signal; no token file was written", path, offset);
        status = SHOAL_ERR_STOPPED;
    } else if (n < 0) {
        shoal_error("%s: offset %" PRIu64 ": %s", path, offset, why != NULL ? why : strerror(errno));
        status = SHOAL_ERR_DATA;
    }
    if (fd >= 0 && !from_stdin) {
        close(fd);
    }
    return status;
}

/* How many of the tokens validate: at least one of them must train. */
static shoal_status_t split(const options_t *options, uint64_t ntokens, uint64_t *nvalid_p)
{
    uint64_t nvalid = options->nvalid > 0 ? options->nvalid : (uint64_t)(options->fraction * (double)ntokens);
    if (ntokens == 0) {
        shoal_error("the input is empty: no tokens");
        return SHOAL_ERR_DATA;
    }
    if (nvalid >= ntokens) {
        shoal_error("--valid %" PRIu64 ": the input has only %" PRIu64 " tokens", nvalid, ntokens);
        return SHOAL_ERR_CONFIG;
    }
    *nvalid_p = nvalid;
    return SHOAL_OK;
}

static shoal_status_t tokenize_files(const options_t *options, char **paths, shoal_atomic_file_t *train,
                                     shoal_atomic_file_t *valid)
{
    uint64_t ntokens, nvalid = 0;
    for (char **path = paths; *path != NULL; path++) {
        SHOAL_TRY(tokenize_file(*path, train));
    }
    ntokens = train->nbytes / 2;
    SHOAL_TRY(split(options, ntokens, &nvalid));
    if (nvalid > 0) {
        SHOAL_TRY(shoal_atomic_file_open(valid, options->prefix, ".valid.bin"));
        SHOAL_TRY(shoal_atomic_file_move_tail(train, valid, 2 * nvalid));
    }
    SHOAL_TRY(shoal_atomic_file_commit(train, valid));
    printf("%s: %" PRIu64 " tokens\n", train->path, ntokens - nvalid);
    if (nvalid > 0) {
        printf("%s: %" PRIu64 " tokens\n", valid->path, nvalid);
    }
    return SHOAL_OK;
}

static shoal_status_t tokenize(const options_t *options, int npaths, char **paths)
{
    shoal_atomic_file_t train = SHOAL_ATOMIC_FILE_CLOSED, valid = SHOAL_ATOMIC_FILE_CLOSED;
    if (options->prefix == NULL || npaths < 1) {
        shoal_error("data tokenize: %s; shoal data --help says more", npaths < 1 ? "no input FILE" : "no output: -o PREFIX");
        return SHOAL_ERR_CONFIG;
    }
    obey_signals();
    SHOAL_TRY(shoal_atomic_file_open(&train, options->prefix, ".train.bin"));
    shoal_status_t status = tokenize_files(options, paths, &train, &valid);
    shoal_atomic_file_close(&train);
    shoal_atomic_file_close(&valid);
    return status;
}

/* ---- info ---- */

static shoal_status_t info(const options_t *options, int npaths, char **paths)
{
    shoal_data_info_t found;
    if (npaths != 1) {
        shoal_error("data info: expects one FILE; shoal data --help says more");
        return SHOAL_ERR_CONFIG;
    }
    SHOAL_TRY(shoal_data_inspect(paths[0], options->vocab, &found));
    printf("%s\n  format  %s\n  tokens  %" PRIu64 "\n  max id  %" PRId32 "\n  checks  every id is below %zu, the size is whole\n",
           paths[0], found.format, found.ntokens, found.max_id, options->vocab);
    return SHOAL_OK;
}

/* ---- arguments ---- */

/* A whole number, or a fraction below 1, from a word. False: neither. */
static bool parse_valid(const char *word, options_t *options_p)
{
    char *end;
    errno = 0;
    if (strchr(word, '.') != NULL) {
        options_p->fraction = strtod(word, &end);
        return *end == '\0' && options_p->fraction > 0 && options_p->fraction < 1;
    }
    options_p->nvalid = strtoull(word, &end, 10);
    return errno == 0 && *end == '\0' && word[0] >= '0' && word[0] <= '9' && options_p->nvalid > 0;
}

static shoal_status_t refuse_option(const char *option, const char *word, const char *expected)
{
    shoal_error("data: %s %s: expects %s", option, word, expected);
    return SHOAL_ERR_CONFIG;
}

/* SHOAL_IN_PROGRESS: help was printed, there is nothing more to do. */
static shoal_status_t parse_options(int argc, char **argv, options_t *options_p)
{
    static const struct option longs[] = {{"output", required_argument, NULL, 'o'}, {"valid", required_argument, NULL, 'v'},
                                          {"vocab", required_argument, NULL, 'V'},  {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int vocab = 0;
    optind    = 0; /* GNU: start afresh */
    opterr    = 0;
    for (int option; (option = getopt_long(argc, argv, ":o:h", longs, NULL)) != -1;) {
        if (option == 'o') {
            options_p->prefix = optarg;
        } else if (option == 'v' && !parse_valid(optarg, options_p)) {
            return refuse_option("--valid", optarg, "a fraction such as 0.1 or a number of tokens");
        } else if (option == 'V') {
            SHOAL_TRY(shoal_option_int("data", "--vocab", optarg, 1, 65536, &vocab));
            options_p->vocab = (size_t)vocab;
        } else if (option == 'h') {
            fputs(usage, stdout);
            return SHOAL_IN_PROGRESS;
        } else if (option == '?' || option == ':') {
            return refuse_option("option", argv[optind - 1], option == ':' ? "a value" : "one of those that shoal data --help lists");
        }
    }
    return SHOAL_OK;
}

int shoal_cmd_data(int argc, char **argv)
{
    options_t      options = {.vocab = 65536};
    shoal_status_t status  = parse_options(argc, argv, &options);
    if (status != SHOAL_OK) {
        return shoal_status_exit_code(status);
    }
    const char *action = optind < argc ? argv[optind] : "";
    char      **paths  = optind < argc ? argv + optind + 1 : argv + argc;
    int         npaths = (int)(argv + argc - paths);
    if (strcmp(action, "tokenize") == 0) {
        status = tokenize(&options, npaths, paths);
    } else if (strcmp(action, "info") == 0) {
        status = info(&options, npaths, paths);
    } else {
        status = refuse_option("action", action[0] == '\0' ? "missing" : action, "tokenize or info");
    }
    return shoal_status_exit_code(status);
}
