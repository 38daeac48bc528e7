/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Products: oneDNN matmul primitives, made on first use and kept by shape. Everything is folded into the primitive:
 * transposes are strides, bias is its bias, alpha its output scale, accumulation a sum post-op. Scratchpads belong to the
 * caller, so a product that was found runs without allocating. (Where oneDNN falls back to its classic GEMM, on
 * processors without AVX-512, that GEMM allocates its own packing buffers.)
 *
 * oneDNN takes its number of threads from omp_get_max_threads() when a primitive is made and when it runs, and the two
 * must agree: the functions that describe or find a product set it to key->team, and it must still be so when it runs.
 * Inside a parallel region oneDNN is serial, which is what a team of 1 wants.
 */
#ifndef SHOAL_KERNELS_CPU_ONEDNN_PRODUCT_H
#define SHOAL_KERNELS_CPU_ONEDNN_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* What makes two products the same primitive. All size_t, so that memcmp sees no padding. */
typedef struct {
    size_t m, n, k, lda, ldb, ldy;
    size_t trans_a, trans_b, bias, accumulate;
    size_t src_dtype, dst_dtype, alpha_bits;
    size_t team;    /* threads that work on one product together */
    size_t callers; /* threads that run it at once, each for itself; more than 1 only with a team of 1 */
} shoal_product_key_t;

/* The buffers of a product, in this order. */
enum { PRODUCT_SRC, PRODUCT_WEIGHTS, PRODUCT_BIAS, PRODUCT_DST, PRODUCT_SCRATCHPAD, PRODUCT_ARGS };

typedef struct shoal_product  shoal_product_t;
typedef struct shoal_products shoal_products_t; /* the engine and every product made so far */

/* Callers up to `ncallers` at once. SHOAL_ERR_INTERNAL, logged, if oneDNN has no CPU engine. */
shoal_status_t shoal_products_create(size_t ncallers, shoal_products_t **products_p);
void           shoal_products_destroy(shoal_products_t *products);

/* Whether bf16 is multiplied by the processor rather than emulated. */
bool shoal_products_native_bf16(void);

/* The scratchpad that one caller will need, without making the product. 0 after an error, logged; find then fails as well. */
size_t shoal_products_scratchpad_nbytes(shoal_products_t *products, const shoal_product_key_t *key);

/* The product of this key, made now if it was never asked for before. Owned by `products`. */
shoal_status_t shoal_product_find(shoal_products_t *products, const shoal_product_key_t *key, shoal_product_t **product_p);

size_t shoal_product_scratchpad_nbytes(const shoal_product_t *product);

/* Callers 0 .. key->callers - 1 may run the same product at the same time. */
shoal_status_t shoal_product_run(shoal_products_t *products, shoal_product_t *product, size_t caller,
                                 void *const buffers[PRODUCT_ARGS]);

#endif
