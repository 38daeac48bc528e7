/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The matmul of cuBLASLt: the file of timed algorithms, which needs no GPU; and where there is one, products against the device's own
 * kernel (aligned operands, which the conformance suite never has), and that what was timed is found again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>
#include <math.h>
#include <sys/wait.h>

#include "base/rng.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/own.h"
#include "tests/capture.h"

static shoal_op_t matmul(size_t m, size_t n, size_t k, shoal_dtype_t dtype, shoal_dtype_t out_dtype)
{
    return (shoal_op_t){.kind   = SHOAL_OP_MATMUL,
                        .dtype  = dtype,
                        .gdtype = SHOAL_F32,
                        .matmul = {.m = m, .n = n, .k = k, .lda = k, .ldb = k, .ldy = n, .trans_b = true, .alpha = 1,
                                   .out_dtype = out_dtype}};
}

/* Made up, but different for different numbers. */
static shoal_cublaslt_record_t make_record(size_t number, uint64_t version, const char *gpu)
{
    shoal_op_t              op     = matmul(16384, 7168, 1792 + number, SHOAL_BF16, SHOAL_BF16);
    shoal_cublaslt_record_t record = {.key = shoal_cublaslt_key(&op, number % 2 == 1), .version = version, .us = 600.25 + (double)number};
    snprintf(record.gpu, sizeof(record.gpu), "%s", gpu);
    for (size_t i = 0; i < 8; i++) {
        record.algo[i] = shoal_rng_stream(number, "algo") + i;
    }
    return record;
}

static void save(const char *path, const shoal_cublaslt_record_t *record)
{
    shoal_cublaslt_records_t fresh = {.items = NULL};
    shoal_cublaslt_records_put(&fresh, record);
    assert_true(shoal_cublaslt_records_save(path, &fresh));
    shoal_cublaslt_records_free(&fresh);
}

static bool holds(const shoal_cublaslt_records_t *records, const shoal_cublaslt_record_t *want)
{
    const shoal_cublaslt_record_t *found = shoal_cublaslt_records_find(records, &want->key, want->version, want->gpu);
    return found != NULL && memcmp(found->algo, want->algo, sizeof(found->algo)) == 0 && found->us == want->us;
}

static bool file_holds(const char *path, const shoal_cublaslt_record_t *want)
{
    shoal_cublaslt_records_t records = {.items = NULL};
    shoal_cublaslt_records_read(path, true, &records);
    bool found = holds(&records, want);
    shoal_cublaslt_records_free(&records);
    return found;
}

static void test_key(void **state)
{
    (void)state;
    char                 text[SHOAL_CUBLASLT_KEY_TEXT];
    shoal_op_t           op  = matmul(16384, 7168, 1792, SHOAL_BF16, SHOAL_F32);
    shoal_cublaslt_key_t key = shoal_cublaslt_key(&op, true), other;
    shoal_cublaslt_key_format(&key, text);
    assert_string_equal(text, "16384x7168x1792 ld 1792,1792,7168 ntbf+-");
    op.matmul.accumulate = true;
    other                = shoal_cublaslt_key(&op, true);
    assert_memory_not_equal(&key, &other, sizeof(key));
    shoal_cublaslt_key_format(&other, text);
    assert_string_equal(text, "16384x7168x1792 ld 1792,1792,7168 ntbf+a");
    op.matmul.alpha           = 0.5f; /* given when it runs: the same algorithm serves */
    shoal_cublaslt_key_t same = shoal_cublaslt_key(&op, true);
    assert_memory_equal(&other, &same, sizeof(same));
    other.multiprocessors = 116;
    shoal_cublaslt_key_format(&other, text);
    assert_string_equal(text, "16384x7168x1792 ld 1792,1792,7168 ntbf+a@116");
}

static void test_round_trip(void **state)
{
    (void)state;
    const char             *path  = "a/new/folder/cublaslt";
    shoal_cublaslt_record_t first = make_record(0, 130100, "NVIDIA H200"), elsewhere = make_record(0, 130100, "NVIDIA A100-SXM4-80GB"),
                            second = make_record(1, 130100, "NVIDIA H200"), newer = make_record(2, 130200, "NVIDIA H200");
    assert_false(file_holds(path, &first)); /* no file: no records and no complaint */
    save(path, &first);
    save(path, &elsewhere);
    save(path, &second);
    assert_true(file_holds(path, &first));
    assert_true(file_holds(path, &elsewhere));
    assert_true(file_holds(path, &second));

    first.us += 1; /* timed again: the last one wins */
    save(path, &first);
    assert_true(file_holds(path, &first));

    save(path, &newer); /* what another version timed on this GPU is of no use any more */
    assert_true(file_holds(path, &newer));
    assert_true(file_holds(path, &elsewhere));
    assert_false(file_holds(path, &first));
    assert_false(file_holds(path, &second));
}

/* What is the fastest on some of the multiprocessors is another record than what is on all of them. */
static void test_multiprocessors(void **state)
{
    (void)state;
    const char             *path = "cublaslt";
    shoal_cublaslt_record_t all  = make_record(0, 130100, "NVIDIA H200"), some = make_record(3, 130100, "NVIDIA H200"), fewer;
    some.key                     = all.key;
    some.key.multiprocessors     = 116;
    fewer                        = some;
    fewer.key.multiprocessors    = 100;
    save(path, &all);
    save(path, &some);
    assert_true(file_holds(path, &all));
    assert_true(file_holds(path, &some));
    assert_false(file_holds(path, &fewer));
}

/* A record in the middle of three is damaged in every byte in turn: it is ignored, the others are not. */
static void test_damage(void **state)
{
    (void)state;
    const char             *path = "cublaslt";
    char                    bytes[4096];
    shoal_cublaslt_record_t records[3];
    for (size_t i = 0; i < 3; i++) {
        records[i] = make_record(i, 130100, "NVIDIA H200");
        records[i].key.multiprocessors = i == 1 ? 116 : 0;
        save(path, &records[i]);
    }
    FILE  *file   = fopen(path, "rb");
    size_t nbytes = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    char *line = strchr(strchr(bytes, '\n') + 1, '\n') + 1, *end = strchr(line, '\n');
    for (char *byte = line; byte < end; byte++) {
        char good = *byte;
        *byte     = good == '7' ? '3' : '7';
        write_file(path, bytes, nbytes);
        *byte = good;
        capture_begin();
        bool kept = file_holds(path, &records[0]) && file_holds(path, &records[2]), damaged = !file_holds(path, &records[1]);
        assert_contains(capture_end(), "cublaslt: line 3 is damaged, and 0 more: ignored");
        assert_true(kept && damaged);
    }
    write_file(path, bytes, (size_t)(end - bytes) - 5); /* cut off */
    capture_begin();
    bool kept = file_holds(path, &records[0]);
    assert_contains(capture_end(), "damaged");
    assert_true(kept);
    save(path, &records[1]); /* a new file has no damage */
    capture_begin();
    kept = file_holds(path, &records[0]) && file_holds(path, &records[1]);
    assert_string_equal(capture_end(), "");
    assert_true(kept);
}

static void test_unwritable(void **state)
{
    (void)state;
    shoal_cublaslt_record_t  record = make_record(0, 130100, "NVIDIA H200");
    shoal_cublaslt_records_t fresh  = {.items = NULL};
    shoal_cublaslt_records_put(&fresh, &record);
    write_file("file", "", 0);
    capture_begin();
    bool saved = shoal_cublaslt_records_save("file/cublaslt", &fresh);
    assert_contains(capture_end(), "warning: file/cublaslt: Not a directory: the timing of matmuls is not remembered");
    assert_false(saved);
    shoal_cublaslt_records_free(&fresh);
}

/* Several processes write at once: whoever reads finds a whole file, with what was there at first. */
static void test_writers(void **state)
{
    (void)state;
    enum { WRITERS = 4, WRITES = 25 };
    const char             *path  = "cublaslt";
    shoal_cublaslt_record_t first = make_record(0, 130100, "NVIDIA H200");
    int                     running = WRITERS, status;
    save(path, &first);
    for (size_t writer = 1; writer <= WRITERS; writer++) {
        if (fork() == 0) {
            for (size_t i = 0; i < WRITES; i++) {
                shoal_cublaslt_record_t record = make_record(writer * WRITES + i, 130100, "NVIDIA H200");
                save(path, &record);
            }
            _exit(0);
        }
    }
    capture_begin();
    bool whole = true;
    while (running > 0) {
        whole &= file_holds(path, &first);
        if (waitpid(-1, &status, WNOHANG) > 0) {
            whole &= status == 0;
            running--;
        }
    }
    assert_string_equal(capture_end(), "");
    assert_true(whole);
    assert_int_equal(system("test $(ls | wc -l) = 1"), 0); /* no temporary files are left */
}

/* An instance without a GPU knows what memory a run would need. */
static void test_plan_only(void **state)
{
    (void)state;
    shoal_cuda_t cuda  = {.device = -1, .tune = true, .tune_file = "cublaslt"};
    shoal_op_t   small = matmul(64, 64, 64, SHOAL_F32, SHOAL_F32), large = matmul(16384, 7168, 1792, SHOAL_BF16, SHOAL_BF16);
    assert_int_equal(shoal_cuda_fill_cublaslt(&cuda), SHOAL_OK);
    assert_string_equal(cuda.kernels[SHOAL_OP_MATMUL][SHOAL_BF16].source, "cublaslt");
    assert_int_equal(cuda.kernels[SHOAL_OP_MATMUL][SHOAL_F32].workspace(&cuda, &small), 0);
    assert_in_range(cuda.kernels[SHOAL_OP_MATMUL][SHOAL_BF16].workspace(&cuda, &large), 32 << 20, 33 << 20);
    shoal_cuda_release_cublaslt(&cuda);
}

/* ---- with a GPU ---- */

/* The device, timing into a file below the working directory; skips the test where there is none. */
static shoal_device_t *open_gpu(void)
{
    char                  folder[256];
    shoal_device_config_t config = {.nthreads = 1};
    shoal_device_t       *device = NULL;
    assert_non_null(getcwd(folder, sizeof(folder)));
    setenv("XDG_CACHE_HOME", folder, 1);
    if (shoal_device_open("cuda", &config, &device) != SHOAL_OK) {
        skip();
    }
    return device;
}

/* Device memory of `nelem` normal numbers. */
static void *random_matrix(shoal_device_t *device, shoal_dtype_t dtype, size_t nelem, const char *name)
{
    size_t nbytes = nelem * shoal_dtype_nbytes(dtype);
    float *values = malloc(nelem * sizeof(float));
    void  *memory = NULL;
    shoal_rng_normal(shoal_rng_stream(1, name), 0, nelem, 1.0f, values);
    for (size_t i = 0; dtype == SHOAL_BF16 && i < nelem; i++) { /* in place: an element never overtakes its source */
        shoal_bf16_t rounded = shoal_f32_to_bf16(values[i]);
        memcpy((char *)values + 2 * i, &rounded, sizeof(rounded));
    }
    assert_int_equal(device->ops->alloc(device, nbytes, &memory), SHOAL_OK);
    assert_int_equal(device->ops->upload(device, memory, values, nbytes), SHOAL_OK);
    free(values);
    return memory;
}

typedef shoal_status_t (*run_fn_t)(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace);

static shoal_status_t run_own(shoal_device_t *device, const shoal_op_t *op, void *const *args, void *workspace)
{
    return shoal_cuda_matmul(shoal_cuda_of(device), op, args, workspace);
}

/* y as fp32 (nelem) after one run that starts from the same Y. */
static void product(shoal_device_t *device, run_fn_t run, const shoal_op_t *op, void *const *inputs, void *workspace, float *y_p)
{
    size_t nelem = op->matmul.m * op->matmul.ldy, nbytes = nelem * shoal_dtype_nbytes(op->matmul.out_dtype);
    void  *y                        = random_matrix(device, op->matmul.out_dtype, nelem, "y");
    void  *args[SHOAL_OP_MAX_ARGS] = {inputs[0], inputs[1], inputs[2], y};
    assert_int_equal(run(device, op, args, workspace), SHOAL_OK);
    assert_int_equal(device->ops->download(device, y_p, y, nbytes), SHOAL_OK);
    for (size_t i = nelem; op->matmul.out_dtype == SHOAL_BF16 && i-- > 0;) {
        shoal_bf16_t value;
        memcpy(&value, (char *)y_p + 2 * i, sizeof(value));
        y_p[i] = shoal_bf16_to_f32(value);
    }
    device->ops->free(device, y, nbytes);
}

/* Against the own kernel, and twice the same bits. Sums of k products in two orders: 2^-16 of their scale; bf16 rounds by 2^-9. */
static void check_product(shoal_device_t *device, const shoal_op_t *op, bool bias)
{
    size_t nelem = op->matmul.m * op->matmul.ldy, work = 0;
    float *want = malloc(nelem * 4), *got = malloc(nelem * 4), *again = malloc(nelem * 4);
    double scale = sqrt((double)op->matmul.k), tolerance = op->matmul.out_dtype == SHOAL_BF16 ? 0x1p-7 : 0x1p-14;
    void  *workspace = NULL;
    assert_int_equal(device->ops->workspace(device, op, &work), SHOAL_OK);
    assert_int_equal(device->ops->alloc(device, work, &workspace), SHOAL_OK);
    void *inputs[] = {random_matrix(device, op->dtype, (op->matmul.trans_a ? op->matmul.k : op->matmul.m) * op->matmul.lda, "a"),
                      random_matrix(device, op->dtype, (op->matmul.trans_b ? op->matmul.n : op->matmul.k) * op->matmul.ldb, "b"),
                      bias ? random_matrix(device, op->dtype, op->matmul.n, "bias") : NULL};
    product(device, run_own, op, inputs, NULL, want);
    product(device, device->ops->run, op, inputs, workspace, got);
    product(device, device->ops->run, op, inputs, workspace, again);
    assert_memory_equal(got, again, nelem * 4);
    for (size_t i = 0; i < nelem; i++) {
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * (fabs((double)want[i]) + scale))) {
            char                 text[SHOAL_CUBLASLT_KEY_TEXT];
            shoal_cublaslt_key_t key = shoal_cublaslt_key(op, bias);
            shoal_cublaslt_key_format(&key, text);
            fail_msg("matmul %s, element %zu: %g instead of %g", text, i, (double)got[i], (double)want[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        device->ops->free(device, inputs[i], 0);
    }
    device->ops->free(device, workspace, work);
    free(want);
    free(got);
    free(again);
}

/* All types, transposes, strides, with and without bias and accumulation, without and with room for split sums. */
static void test_products(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{64, 48, 40}, {128, 96, 4096}};
    shoal_device_t     *device     = open_gpu();
    for (unsigned variant = 0; variant < 2 * 8 * 8; variant++) {
        const size_t *size    = sizes[variant % 2];
        bool          trans_a = variant & 2, trans_b = variant & 4, bias = variant & 8, accumulate = variant & 16;
        shoal_op_t    op = matmul(size[0], size[1], size[2], variant & 32 ? SHOAL_BF16 : SHOAL_F32, variant & 64 ? SHOAL_BF16 : SHOAL_F32);
        op.matmul.trans_a    = trans_a;
        op.matmul.trans_b    = trans_b;
        op.matmul.accumulate = accumulate;
        op.matmul.alpha      = bias ? 0.5f : 1.0f;
        op.matmul.lda        = (trans_a ? size[0] : size[2]) + 8;
        op.matmul.ldb        = (trans_b ? size[2] : size[1]) + 16;
        op.matmul.ldy        = size[1] + 8;
        check_product(device, &op, bias);
    }
    device->ops->close(device);

    shoal_cublaslt_records_t records = {.items = NULL};
    shoal_cublaslt_records_read("shoal/cublaslt", true, &records);
    print_message("%zu algorithms were timed\n", records.count);
    assert_true(records.count > 0);
    shoal_cublaslt_records_free(&records);
}

/* The products of a model of width 1792 with 16384 tokens: forward, gradient of the input, gradient of the weight. */
static void test_candidates(void **state)
{
    (void)state;
    shoal_device_t *device   = open_gpu();
    shoal_op_t      forward  = matmul(16384, 7168, 1792, SHOAL_BF16, SHOAL_BF16);
    shoal_op_t      backward = matmul(16384, 1792, 7168, SHOAL_BF16, SHOAL_BF16);
    shoal_op_t      weight   = matmul(7168, 1792, 16384, SHOAL_BF16, SHOAL_F32);
    backward.matmul.trans_b  = false;
    backward.matmul.ldb      = 1792;
    weight.matmul.trans_a    = true;
    weight.matmul.trans_b    = false;
    weight.matmul.accumulate = true;
    weight.matmul.lda        = 7168;
    weight.matmul.ldb        = 1792;
    assert_true(shoal_cublaslt_candidate_count(shoal_cuda_of(device), &forward, false) > 0);
    assert_true(shoal_cublaslt_candidate_count(shoal_cuda_of(device), &forward, true) > 0);
    assert_true(shoal_cublaslt_candidate_count(shoal_cuda_of(device), &backward, false) > 0);
    assert_true(shoal_cublaslt_candidate_count(shoal_cuda_of(device), &weight, false) > 0);
    device->ops->close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key),
        cmocka_unit_test_setup_teardown(test_round_trip, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_multiprocessors, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_damage, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_unwritable, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_writers, enter_directory, leave_directory),
        cmocka_unit_test(test_plan_only),
        cmocka_unit_test_setup_teardown(test_products, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_candidates, enter_directory, leave_directory),
    };
    return cmocka_run_group_tests_name("cublaslt", tests, NULL, NULL);
}
