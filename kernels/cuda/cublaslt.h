/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the cuBLASLt matmul: what distinguishes one matmul from another, and the file that remembers which algorithm was the fastest
 * for each (cublaslt_tuned.c, which needs neither GPU nor CUDA). Here for the tests, too.
 *
 * The file has one line per matmul, GPU and version of the library, each with a check sum; it is replaced as a whole, by rename, so
 * readers see an old file or a new one. It is an aid: what goes wrong with it is a warning, never an error.
 */
#ifndef SHOAL_KERNELS_CUDA_CUBLASLT_H
#define SHOAL_KERNELS_CUDA_CUBLASLT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SHOAL_CUBLASLT_TRANS_A    = 1,
    SHOAL_CUBLASLT_TRANS_B    = 2,
    SHOAL_CUBLASLT_A_BF16     = 4, /* B and bias too; else fp32 */
    SHOAL_CUBLASLT_Y_BF16     = 8,
    SHOAL_CUBLASLT_BIAS       = 16,
    SHOAL_CUBLASLT_ACCUMULATE = 32,
    SHOAL_CUBLASLT_UNALIGNED  = 64, /* an address or a leading dimension is no multiple of 16 bytes; never in the file */
};

/* What makes two matmuls the same to cuBLASLt. All of one type, so that memcmp sees no padding. */
typedef struct {
    uint64_t m, n, k, lda, ldb, ldy;
    uint64_t flags; /* SHOAL_CUBLASLT_... */
    uint64_t multiprocessors; /* that it is to spread over, and no more; 0: all */
} shoal_cublaslt_key_t;

/* For all multiprocessors, and without SHOAL_CUBLASLT_UNALIGNED: neither is the op's to know. */
shoal_cublaslt_key_t shoal_cublaslt_key(const shoal_op_t *op, bool bias);

/*
 * "16384x7168x1792 ld 1792,1792,7168 ntbb--": m x n x k, lda, ldb, ldy, then the flags in their order, '-' or 'n' or 'f' where not set;
 * "ntbb--@116" for 116 multiprocessors.
 */
enum { SHOAL_CUBLASLT_KEY_TEXT = 160 };
void shoal_cublaslt_key_format(const shoal_cublaslt_key_t *key, char text_p[SHOAL_CUBLASLT_KEY_TEXT]);

/* One algorithm that was the fastest. */
typedef struct {
    shoal_cublaslt_key_t key;
    uint64_t             version;  /* of cuBLASLt: an algorithm means nothing to another one */
    char                 gpu[128]; /* its name */
    uint64_t             algo[8];  /* cublasLtMatmulAlgo_t */
    double               us;
} shoal_cublaslt_record_t;

typedef struct {
    shoal_cublaslt_record_t *items; /* (count) */
    size_t                   count, capacity;
} shoal_cublaslt_records_t;

/* NULL if there is none. */
const shoal_cublaslt_record_t *shoal_cublaslt_records_find(const shoal_cublaslt_records_t *records, const shoal_cublaslt_key_t *key,
                                                           uint64_t version, const char *gpu);

/* Adds a record, in place of one of the same key, version and GPU. Without memory for it, it is forgotten. */
void shoal_cublaslt_records_put(shoal_cublaslt_records_t *records, const shoal_cublaslt_record_t *record);
void shoal_cublaslt_records_free(shoal_cublaslt_records_t *records);

/* Adds what the file holds; no file, no records. Damaged lines are left out, with one warning for all if `warn`. */
void shoal_cublaslt_records_read(const char *path, bool warn, shoal_cublaslt_records_t *records);

/*
 * Replaces the file by what it holds now, which other processes may have added to, and `fresh`, whose records win. Records of a GPU in
 * `fresh` made with another version are dropped. Creates the directories that it needs. False, with a warning, if it cannot.
 */
bool shoal_cublaslt_records_save(const char *path, const shoal_cublaslt_records_t *fresh);

/* How many algorithms cuBLASLt offers for this op, with the room that it leaves now, if its operands are aligned; needs a GPU. */
int shoal_cublaslt_candidate_count(shoal_cuda_t *cuda, const shoal_op_t *op, bool bias);

#ifdef __cplusplus
}
#endif

#endif
