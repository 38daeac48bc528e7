/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See onednn_product.h. A product keeps one set of dnnl_memory objects per caller, since running it means pointing them at
 * the caller's buffers; the primitive itself is shared. A model has some tens of products: a list is enough.
 */
#include "kernels/cpu/onednn_product.h"

#include <assert.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <dnnl.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/log.h"

static_assert(DNNL_VERSION_MAJOR == 2, "written for oneDNN 2: version 3 has other descriptors");

typedef dnnl_memory_t memories_t[PRODUCT_ARGS]; /* NULL: no such argument */

struct shoal_product {
    shoal_product_key_t   key;
    size_t                scratchpad_nbytes;
    dnnl_primitive_t      primitive;
    struct shoal_product *next;
    memories_t            memories[]; /* (callers) */
};

struct shoal_products {
    dnnl_engine_t    engine;
    shoal_product_t *first;
    size_t           ncallers;
    dnnl_stream_t    streams[]; /* (ncallers) */
};

#define TRY_DNNL(call)                                                       \
    do {                                                                     \
        dnnl_status_t status_ = (call);                                      \
        if (status_ != dnnl_success) {                                       \
            shoal_error("oneDNN: %s failed: status %d", #call, (int)status_); \
            return SHOAL_ERR_INTERNAL;                                       \
        }                                                                    \
    } while (0)

/* Instruction sets are bit masks of each other: every later one contains the bits of bf16. */
bool shoal_products_native_bf16(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), bf16 = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return (isa & bf16) == bf16;
}

static void set_team(size_t nthreads)
{
    if (omp_get_max_threads() != (int)nthreads) {
        omp_set_num_threads((int)nthreads);
    }
}

/* ---- descriptors ---- */

static shoal_status_t matrix_desc(size_t rows, size_t columns, size_t ld, size_t transposed, size_t dtype,
                                  dnnl_memory_desc_t *desc_p)
{
    dnnl_dims_t      dims    = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t      strides = {transposed ? 1 : (dnnl_dim_t)ld, transposed ? (dnnl_dim_t)ld : 1};
    dnnl_data_type_t type    = dtype == SHOAL_BF16 ? dnnl_bf16 : dnnl_f32;
    TRY_DNNL(dnnl_memory_desc_init_by_strides(desc_p, 2, dims, type, strides));
    return SHOAL_OK;
}

static shoal_status_t describe_matmul(const shoal_product_key_t *key, dnnl_matmul_desc_t *desc_p)
{
    dnnl_memory_desc_t a, b, bias, y;
    SHOAL_TRY(matrix_desc(key->m, key->k, key->lda, key->trans_a, key->src_dtype, &a));
    SHOAL_TRY(matrix_desc(key->k, key->n, key->ldb, key->trans_b, key->src_dtype, &b));
    SHOAL_TRY(matrix_desc(1, key->n, key->n, false, key->src_dtype, &bias));
    SHOAL_TRY(matrix_desc(key->m, key->n, key->ldy, false, key->dst_dtype, &y));
    TRY_DNNL(dnnl_matmul_desc_init(desc_p, &a, &b, key->bias ? &bias : NULL, &y));
    return SHOAL_OK;
}

static shoal_status_t set_attributes(const shoal_product_key_t *key, dnnl_primitive_attr_t attr)
{
    uint32_t bits = (uint32_t)key->alpha_bits;
    float    alpha;
    memcpy(&alpha, &bits, sizeof(alpha));

    TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (alpha != 1.0f) {
        TRY_DNNL(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &alpha));
    }
    if (key->accumulate) {
        dnnl_post_ops_t post_ops;
        TRY_DNNL(dnnl_post_ops_create(&post_ops));
        dnnl_status_t appended = dnnl_post_ops_append_sum(post_ops, 1.0f);
        dnnl_status_t set      = dnnl_primitive_attr_set_post_ops(attr, post_ops);
        dnnl_post_ops_destroy(post_ops);
        TRY_DNNL(appended);
        TRY_DNNL(set);
    }
    return SHOAL_OK;
}

/* The primitive descriptor: enough to ask for the scratchpad, without generating code. */
static shoal_status_t describe_product(const shoal_products_t *products, const shoal_product_key_t *key,
                                       dnnl_primitive_desc_t *desc_p)
{
    dnnl_matmul_desc_t    matmul;
    dnnl_primitive_attr_t attr;
    set_team(key->team);
    SHOAL_TRY(describe_matmul(key, &matmul));
    TRY_DNNL(dnnl_primitive_attr_create(&attr));
    shoal_status_t status    = set_attributes(key, attr);
    dnnl_status_t  described = dnnl_success;
    if (status == SHOAL_OK) {
        described = dnnl_primitive_desc_create(desc_p, &matmul, attr, products->engine, NULL);
    }
    dnnl_primitive_attr_destroy(attr);
    TRY_DNNL(described);
    return status;
}

static size_t scratchpad_nbytes(dnnl_primitive_desc_t desc)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0));
}

size_t shoal_products_scratchpad_nbytes(shoal_products_t *products, const shoal_product_key_t *key)
{
    dnnl_primitive_desc_t desc;
    if (describe_product(products, key, &desc) != SHOAL_OK) {
        return 0;
    }
    size_t nbytes = scratchpad_nbytes(desc);
    dnnl_primitive_desc_destroy(desc);
    return nbytes;
}

/* ---- products ---- */

static void destroy_product(shoal_product_t *product)
{
    for (size_t i = 0; i < product->key.callers * PRODUCT_ARGS; i++) {
        dnnl_memory_t memory = product->memories[i / PRODUCT_ARGS][i % PRODUCT_ARGS];
        if (memory != NULL) {
            dnnl_memory_destroy(memory);
        }
    }
    if (product->primitive != NULL) {
        dnnl_primitive_destroy(product->primitive);
    }
    free(product);
}

static shoal_status_t create_memories(const shoal_products_t *products, dnnl_primitive_desc_t desc, size_t has_bias,
                                      memories_t memories_p)
{
    static const dnnl_query_t queries[PRODUCT_ARGS] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md,
                                                       dnnl_query_dst_md, dnnl_query_scratchpad_md};
    for (int i = 0; i < PRODUCT_ARGS; i++) {
        if (i != PRODUCT_BIAS || has_bias) { /* the bias is the second of the weights */
            const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, queries[i], i == PRODUCT_BIAS);
            TRY_DNNL(dnnl_memory_create(&memories_p[i], md, products->engine, DNNL_MEMORY_NONE));
        }
    }
    return SHOAL_OK;
}

static shoal_status_t fill_product(const shoal_products_t *products, dnnl_primitive_desc_t desc, shoal_product_t *product)
{
    TRY_DNNL(dnnl_primitive_create(&product->primitive, desc));
    product->scratchpad_nbytes = scratchpad_nbytes(desc);
    for (size_t i = 0; i < product->key.callers; i++) {
        SHOAL_TRY(create_memories(products, desc, product->key.bias, product->memories[i]));
    }
    return SHOAL_OK;
}

static shoal_status_t create_product(const shoal_products_t *products, const shoal_product_key_t *key,
                                     shoal_product_t **product_p)
{
    dnnl_primitive_desc_t desc;
    shoal_product_t      *product = calloc(1, sizeof(*product) + key->callers * sizeof(memories_t));
    if (product == NULL) {
        shoal_error("oneDNN: out of memory");
        return SHOAL_ERR_INTERNAL;
    }
    product->key          = *key;
    shoal_status_t status = describe_product(products, key, &desc);
    if (status == SHOAL_OK) {
        status = fill_product(products, desc, product);
        dnnl_primitive_desc_destroy(desc);
    }
    if (status != SHOAL_OK) {
        destroy_product(product);
        return status;
    }
    *product_p = product;
    return SHOAL_OK;
}

shoal_status_t shoal_product_find(shoal_products_t *products, const shoal_product_key_t *key, shoal_product_t **product_p)
{
    set_team(key->team);
    for (shoal_product_t *product = products->first; product != NULL; product = product->next) {
        if (memcmp(&product->key, key, sizeof(*key)) == 0) {
            *product_p = product;
            return SHOAL_OK;
        }
    }
    SHOAL_TRY(create_product(products, key, product_p));
    (*product_p)->next = products->first;
    products->first    = *product_p;
    return SHOAL_OK;
}

size_t shoal_product_scratchpad_nbytes(const shoal_product_t *product)
{
    return product->scratchpad_nbytes;
}

shoal_status_t shoal_product_run(shoal_products_t *products, shoal_product_t *product, size_t caller,
                                 void *const buffers[PRODUCT_ARGS])
{
    static const int ids[PRODUCT_ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t  exec[PRODUCT_ARGS];
    int              count = 0;
    for (int i = 0; i < PRODUCT_ARGS; i++) {
        dnnl_memory_t memory = product->memories[caller][i];
        if (memory != NULL) {
            TRY_DNNL(dnnl_memory_set_data_handle(memory, buffers[i]));
            exec[count++] = (dnnl_exec_arg_t){ids[i], memory};
        }
    }
    TRY_DNNL(dnnl_primitive_execute(product->primitive, products->streams[caller], count, exec));
    TRY_DNNL(dnnl_stream_wait(products->streams[caller]));
    return SHOAL_OK;
}

/* ---- all of them ---- */

static shoal_status_t open_engine(shoal_products_t *products)
{
    TRY_DNNL(dnnl_engine_create(&products->engine, dnnl_cpu, 0));
    for (size_t i = 0; i < products->ncallers; i++) {
        TRY_DNNL(dnnl_stream_create(&products->streams[i], products->engine, dnnl_stream_default_flags));
    }
    return SHOAL_OK;
}

/* The largest tile palette of AMX that the processor tells of; 0: none, or no AMX. */
static unsigned tile_palettes(void)
{
#ifdef __x86_64__
    enum { TILE_LEAF = 0x1d };
    unsigned eax = 0, ebx, ecx, edx;
    return __get_cpuid_count(TILE_LEAF, 0, &eax, &ebx, &ecx, &edx) ? eax : 0;
#else
    return 0;
#endif
}

/*
 * Some virtual machines show AMX but hide its palettes. oneDNN 2.6 then configures tiles with palette 0, which means none, and its
 * first bf16 product is an illegal instruction: its AVX-512 kernels are what it may use there, unless DNNL_MAX_CPU_ISA says
 * otherwise. Without effect if someone else in the process used oneDNN before.
 */
static void keep_off_hidden_tiles(void)
{
    if (tile_palettes() == 0 && getenv("DNNL_MAX_CPU_ISA") == NULL) {
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    }
}

shoal_status_t shoal_products_create(size_t ncallers, shoal_products_t **products_p)
{
    keep_off_hidden_tiles();
    shoal_products_t *products = calloc(1, sizeof(*products) + ncallers * sizeof(dnnl_stream_t));
    if (products == NULL) {
        shoal_error("oneDNN: out of memory");
        return SHOAL_ERR_INTERNAL;
    }
    products->ncallers    = ncallers;
    shoal_status_t status = open_engine(products);
    if (status != SHOAL_OK) {
        shoal_products_destroy(products);
        return status;
    }
    *products_p = products;
    return SHOAL_OK;
}

void shoal_products_destroy(shoal_products_t *products)
{
    while (products->first != NULL) {
        shoal_product_t *next = products->first->next;
        destroy_product(products->first);
        products->first = next;
    }
    for (size_t i = 0; i < products->ncallers; i++) {
        if (products->streams[i] != NULL) {
            dnnl_stream_destroy(products->streams[i]);
        }
    }
    if (products->engine != NULL) {
        dnnl_engine_destroy(products->engine);
    }
    free(products);
}
