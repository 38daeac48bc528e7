/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A token file is mapped once and read in place: the page cache is shared by the ranks of a node and nothing is copied but the
 * sample itself. The one danger of a mapping is a file that shrinks under it, which would end the process with SIGBUS; so each sample
 * first asks for the file's size, a system call that costs less than the copy.
 */
#include "runtime/execute/data.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"

enum {
    TOKEN_NBYTES   = 2,
    HEADER_NBYTES  = 256 * 4, /* llm.c: magic, version, number of tokens, zeros */
    HEADER_MAGIC   = 20240520,
    HEADER_VERSION = 1,
};

struct shoal_data {
    char          *path;
    int            fd;
    const uint8_t *bytes; /* the mapped file */
    size_t         nbytes;
    size_t         first; /* offset of token 0 */
    uint64_t       ntokens, nwindows;
    size_t         seq, vocab;
    shoal_order_t  order;
    uint64_t       seed;
};

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t x;
    memcpy(&x, bytes, sizeof(x));
    return le32toh(x);
}

static uint16_t read_token(const uint8_t *bytes)
{
    uint16_t x;
    memcpy(&x, bytes, sizeof(x));
    return le16toh(x);
}

static shoal_status_t map_file(shoal_data_t *data)
{
    struct stat st;
    if (data->path[0] == '\0') {
        shoal_error("no token file is named: set data.train to one (shoal data tokenize makes them)");
        return SHOAL_ERR_DATA;
    }
    const char *why;
    data->fd = shoal_file_open(data->path, SHOAL_FILE_REGULAR, &why);
    if (data->fd < 0 || fstat(data->fd, &st) != 0) {
        shoal_error("%s: %s", data->path, data->fd < 0 ? why : strerror(errno));
        return SHOAL_ERR_DATA;
    }
    if (st.st_size == 0) {
        shoal_error("%s: offset 0: the file is empty", data->path);
        return SHOAL_ERR_DATA;
    }
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, data->fd, 0);
    if (bytes == MAP_FAILED) {
        shoal_error("%s: cannot map %jd bytes: %s", data->path, (intmax_t)st.st_size, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    data->bytes  = bytes;
    data->nbytes = (size_t)st.st_size;
    return SHOAL_OK;
}

/* The header says how many tokens follow; the file must hold exactly those. */
static shoal_status_t read_header(shoal_data_t *data)
{
    if (data->nbytes < HEADER_NBYTES) {
        shoal_error("%s: offset %zu: the header ends here, at %d bytes it would be whole", data->path, data->nbytes, HEADER_NBYTES);
        return SHOAL_ERR_DATA;
    }
    uint32_t version = read_u32(data->bytes + 4), ntokens = read_u32(data->bytes + 8);
    size_t   holds   = data->nbytes - HEADER_NBYTES;
    if (version != HEADER_VERSION) {
        shoal_error("%s: offset 4: version %" PRIu32 " of the header, only %d is known", data->path, version, HEADER_VERSION);
        return SHOAL_ERR_DATA;
    }
    if (holds != (size_t)ntokens * TOKEN_NBYTES) {
        shoal_error("%s: offset 8: the header promises %" PRIu32 " tokens, but %zu bytes follow it", data->path, ntokens, holds);
        return SHOAL_ERR_DATA;
    }
    data->first   = HEADER_NBYTES;
    data->ntokens = ntokens;
    return SHOAL_OK;
}

static shoal_status_t read_format(shoal_data_t *data)
{
    if (data->nbytes >= 4 && read_u32(data->bytes) == HEADER_MAGIC) {
        return read_header(data);
    }
    if (data->nbytes % TOKEN_NBYTES != 0) {
        shoal_error("%s: offset %zu: half a token: raw token files hold 2 bytes each", data->path, data->nbytes - 1);
        return SHOAL_ERR_DATA;
    }
    data->first   = 0;
    data->ntokens = data->nbytes / TOKEN_NBYTES;
    return SHOAL_OK;
}

static shoal_status_t open_file(shoal_data_t *data)
{
    SHOAL_TRY(map_file(data));
    SHOAL_TRY(read_format(data));
    if (data->ntokens < data->seq + 1) {
        shoal_error("%s: offset %zu: %" PRIu64 " tokens, a window of model.seq = %zu needs %zu", data->path, data->nbytes,
                    data->ntokens, data->seq, data->seq + 1);
        return SHOAL_ERR_DATA;
    }
    data->nwindows = (data->ntokens - 1) / data->seq;
    return SHOAL_OK;
}

shoal_status_t shoal_data_open(const char *path, size_t seq, size_t vocab, shoal_order_t order, uint64_t seed,
                               shoal_data_t **data_p)
{
    if (seq == 0) {
        return SHOAL_ERR_INVALID;
    }
    shoal_data_t *data = calloc(1, sizeof(*data));
    if (data == NULL) {
        shoal_error("%s: no memory to open it", path);
        return SHOAL_ERR_NO_MEMORY;
    }
    *data = (shoal_data_t){.path = strdup(path), .fd = -1, .seq = seq, .vocab = vocab, .order = order, .seed = seed};
    shoal_status_t status = data->path == NULL ? SHOAL_ERR_NO_MEMORY : open_file(data);
    if (status != SHOAL_OK) {
        shoal_data_close(data);
        return status;
    }
    *data_p = data;
    return SHOAL_OK;
}

void shoal_data_close(shoal_data_t *data)
{
    if (data == NULL) {
        return;
    }
    if (data->bytes != NULL) {
        munmap((void *)data->bytes, data->nbytes);
    }
    if (data->fd >= 0) {
        close(data->fd);
    }
    free(data->path);
    free(data);
}

uint64_t shoal_data_ntokens(const shoal_data_t *data)
{
    return data->ntokens;
}

uint64_t shoal_data_nwindows(const shoal_data_t *data)
{
    return data->nwindows;
}

/* Which window of the file sample g is. */
static uint64_t window_of(const shoal_data_t *data, uint64_t g)
{
    uint64_t epoch = g / data->nwindows, index = g % data->nwindows;
    char     name[48];
    if (data->order == SHOAL_ORDER_SEQUENTIAL) {
        return index;
    }
    snprintf(name, sizeof(name), "data.epoch.%" PRIu64, epoch);
    return shoal_rng_permute(shoal_rng_stream(data->seed, name), index, data->nwindows);
}

static shoal_status_t check_size(const shoal_data_t *data)
{
    struct stat st;
    if (fstat(data->fd, &st) != 0) {
        shoal_error("%s: %s", data->path, strerror(errno));
        return SHOAL_ERR_DATA;
    }
    if (st.st_size < 0 || (size_t)st.st_size < data->nbytes) {
        shoal_error("%s: offset %jd: the file ends here since it was opened, it had %zu bytes", data->path, (intmax_t)st.st_size,
                    data->nbytes);
        return SHOAL_ERR_DATA;
    }
    return SHOAL_OK;
}

static shoal_status_t read_checked(const shoal_data_t *data, size_t offset, int32_t *token_p)
{
    int32_t token = read_token(data->bytes + offset);
    if ((size_t)token >= data->vocab) {
        shoal_error("%s: offset %zu: token id %" PRId32 " in a vocabulary of %zu", data->path, offset, token, data->vocab);
        return SHOAL_ERR_DATA;
    }
    *token_p = token;
    return SHOAL_OK;
}

shoal_status_t shoal_data_sample(const shoal_data_t *data, uint64_t g, int32_t *inputs_p, int32_t *targets_p)
{
    SHOAL_TRY(check_size(data));
    size_t offset = data->first + window_of(data, g) * data->seq * TOKEN_NBYTES;
    SHOAL_TRY(read_checked(data, offset, &inputs_p[0]));
    for (size_t i = 1; i <= data->seq; i++) {
        SHOAL_TRY(read_checked(data, offset + i * TOKEN_NBYTES, &targets_p[i - 1]));
    }
    memcpy(inputs_p + 1, targets_p, (data->seq - 1) * sizeof(*inputs_p));
    return SHOAL_OK;
}

/*
 * Exactly the window's pages, all samples' at once rather than one fault after the other. The mapping as a whole keeps the kernel's usual
 * read-around: what it reads beyond a window of a shuffled file is little, and warms the cache for the ranks of the node. Advice that
 * is refused costs nothing but the wait.
 */
void shoal_data_expect(const shoal_data_t *data, uint64_t g)
{
    size_t    nbytes = (data->seq + 1) * TOKEN_NBYTES, page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data->bytes + data->first + window_of(data, g) * data->seq * TOKEN_NBYTES;
    uintptr_t whole = begin / page * page;
    (void)madvise((void *)whole, begin + nbytes - whole, MADV_WILLNEED);
}

/* The largest id of the tokens from .. to - 1. */
static shoal_status_t scan(const shoal_data_t *data, uint64_t from, uint64_t to, int32_t *max_p)
{
    SHOAL_TRY(check_size(data));
    for (uint64_t i = from; i < to; i++) {
        int32_t token;
        SHOAL_TRY(read_checked(data, data->first + i * TOKEN_NBYTES, &token));
        *max_p = token > *max_p ? token : *max_p;
    }
    return SHOAL_OK;
}

shoal_status_t shoal_data_inspect(const char *path, size_t vocab, shoal_data_info_t *info_p)
{
    const uint64_t stretch = 1 << 20; /* tokens between two looks at the file's size */
    shoal_data_t  *data;
    int32_t        max_id = 0;
    SHOAL_TRY(shoal_data_open(path, 1, vocab, SHOAL_ORDER_SEQUENTIAL, 0, &data));
    shoal_status_t status = SHOAL_OK;
    for (uint64_t from = 0; status == SHOAL_OK && from < data->ntokens; from += stretch) {
        uint64_t to = from + stretch < data->ntokens ? from + stretch : data->ntokens;
        status      = scan(data, from, to, &max_id);
    }
    if (status == SHOAL_OK) {
        *info_p = (shoal_data_info_t){data->first == 0 ? "raw uint16" : "llm.c version 1", data->ntokens, max_id};
    }
    shoal_data_close(data);
    return status;
}
