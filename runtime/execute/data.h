/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token files, memory-mapped: raw little-endian uint16 (nanoGPT, adana) or llm.c's headered format (magic 20240520, version 1,
 * 256 int32 of header), told apart by the magic. A sample is a window of T + 1 tokens: the first T are inputs, the last
 * T targets. Sample g of a run (a global index: it knows no rank) is window order(g) of the file, where the order is a new
 * permutation each epoch, drawn from the seed alone, or the file's own order.
 */
#ifndef SHOAL_RUNTIME_EXECUTE_DATA_H
#define SHOAL_RUNTIME_EXECUTE_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "runtime/spec.h"

typedef struct shoal_data shoal_data_t;

/*
 * Opens and checks a file: SHOAL_ERR_DATA names the file and the offset of what is wrong (unreadable, damaged header, odd size, too
 * short for one window of `seq`). Token ids are checked against `vocab` as they are read, not all at once.
 */
shoal_status_t shoal_data_open(const char *path, size_t seq, size_t vocab, shoal_order_t order, uint64_t seed,
                               shoal_data_t **data_p);
void           shoal_data_close(shoal_data_t *data);

/* Tokens in the file, and windows of `seq` tokens (the last needs one token more). */
uint64_t shoal_data_ntokens(const shoal_data_t *data);
uint64_t shoal_data_nwindows(const shoal_data_t *data);

/*
 * Writes T inputs and T targets of sample g. A token id of `vocab` or more is SHOAL_ERR_DATA, naming file, offset and id; so is a
 * file that shrank while mapped. Thread-safe.
 */
shoal_status_t shoal_data_sample(const shoal_data_t *data, uint64_t g, int32_t *inputs_p, int32_t *targets_p);

/* Says that sample g will be asked for soon: its pages are read from now on, without waiting for them. */
void shoal_data_expect(const shoal_data_t *data, uint64_t g);

/* What a file holds, whatever the model. */
typedef struct {
    const char *format; /* "raw uint16" or "llm.c version 1" */
    uint64_t    ntokens;
    int32_t     max_id;
} shoal_data_info_t;

/* Reads a whole file and checks every token id against `vocab`. SHOAL_ERR_DATA as above. */
shoal_status_t shoal_data_inspect(const char *path, size_t vocab, shoal_data_info_t *info_p);

#endif
