/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the CUDA kernels use approximate functions: GELU and its derivative in bf16 for every value
 * that bf16 has, and the optimizers' elements at zero, at what is not a number, and far from one,
 * against double precision. And several steps of an optimizer, one after the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "tests/test_kernels.h"

enum { VALUES = 65536 };

/* ---- GELU ---- */

/*
 * What rounding to the nearest bf16 may do to x: half the distance of its neighbours. Subnormal
 * ones are 2^-133 apart.
 */
static double half_ulp(double x)
{
    int exponent = x != 0 ? ilogb(x) : -126;
    return ldexp(1, (exponent > -126 ? exponent : -126) - 8);
}

/*
 * The kernel's own error, beyond the rounding: 2^-14 of the summands that it approximates, 2^-22 of
 * the sum, and sixteen times the smallest normal number, for a factor below that counts as zero.
 */
static void check_gelu_value(const char *what, double x, double got, double exact,
                             double approximated)
{
    double slack = 0x1p-14 * approximated + 0x1p-22 * fabs(exact) + 0x1p-122;
    if (!(fabs(got - exact) <= half_ulp(exact) + slack)) {
        fail_msg("%s(%.9g) is %.9g, not %.17g: off by %.4f bf16 ulp", what, x, got, exact,
                 fabs(got - exact) / (2 * half_ulp(exact)));
    }
}

static void check_gelu_bits(shoal_bf16_t x_bits, shoal_bf16_t y_bits, shoal_bf16_t dx_bits)
{
    double x  = (double)shoal_bf16_to_f32(x_bits);
    double y  = (double)shoal_bf16_to_f32(y_bits);
    double dx = (double)shoal_bf16_to_f32(dx_bits);
    if (isnan(x)) {
        assert_true(isnan(y) && isnan(dx));
    } else if (isinf(x)) {
        assert_true(x > 0 ? y == x : y == 0);
    } else {
        double below = 0.5 * erfc(-x / sqrt(2)), tail = 0.5 * erfc(fabs(x) / sqrt(2));
        double slope = x * exp(-0.5 * x * x) / sqrt(2 * acos(-1));
        check_gelu_value("gelu", x, y, x * below, fabs(x) * tail);
        check_gelu_value("gelu'", x, dx, below + slope, tail + fabs(slope));
    }
}

/* In memory: x, dy, and the two results, VALUES of each. */
void check_gelu_bf16(shoal_device_t *device)
{
    const size_t  nbytes = 4 * VALUES * sizeof(shoal_bf16_t);
    shoal_bf16_t *host = malloc(nbytes), *memory = NULL;
    shoal_op_t    op   = {.kind  = SHOAL_OP_ACT,
                          .dtype = SHOAL_BF16,
                          .act   = {.N = 1, .F = VALUES, .act = SHOAL_ACT_GELU}};
    assert_non_null(host);
    for (size_t i = 0; i < VALUES; i++) {
        host[i]          = (shoal_bf16_t)i;
        host[VALUES + i] = shoal_f32_to_bf16(1);
    }
    assert_int_equal(device->ops->alloc(device, nbytes, (void **)&memory), SHOAL_OK);
    device->ops->upload(device, memory, host, nbytes);
    void *forward[SHOAL_OP_MAX_ARGS]  = {memory, memory + 2 * VALUES};
    void *backward[SHOAL_OP_MAX_ARGS] = {memory, memory + VALUES, memory + 3 * VALUES};
    assert_int_equal(device->ops->run(device, &op, forward, NULL), SHOAL_OK);
    op.kind = SHOAL_OP_ACT_BWD;
    assert_int_equal(device->ops->run(device, &op, backward, NULL), SHOAL_OK);
    assert_int_equal(device->ops->synchronize(device), SHOAL_OK);
    device->ops->download(device, host, memory, nbytes);
    device->ops->free(device, memory, nbytes);
    for (size_t i = 0; i < VALUES; i++) {
        check_gelu_bits((shoal_bf16_t)i, host[2 * VALUES + i], host[3 * VALUES + i]);
    }
    free(host);
}

/* ---- optimizers ---- */

static const float gradients[] = {0.0f, -0.0f,  1e-40f,   -1e-30f, 1e-12f,
                                  1.0f, -1e15f, INFINITY, NAN};
enum { GRADIENTS = sizeof(gradients) / sizeof(gradients[0]), ARRAYS = 5 };

/*
 * What the first step makes of each gradient, from p = 1 and moments of zero; nothing decays or is
 * clipped.
 */
void check_optim_edges(shoal_device_t *device, const shoal_op_t *kind)
{
    const size_t nbytes = (ARRAYS * GRADIENTS + 1 + SHOAL_SCALAR_COUNT) * sizeof(float);
    float        host[ARRAYS * GRADIENTS + 1 + SHOAL_SCALAR_COUNT] = {0};
    float       *scalars = host + ARRAYS * GRADIENTS + 1, *memory = NULL;
    double       wide_scalars[SHOAL_SCALAR_COUNT] = {0};
    shoal_op_t   op                               = *kind;
    size_t       work_nbytes                      = 0;
    void        *work                             = NULL;

    wide_scalars[SHOAL_SCALAR_STEP]  = 1;
    wide_scalars[SHOAL_SCALAR_LR]    = 0.125;
    wide_scalars[SHOAL_SCALAR_DECAY] = 0.5;

    op.optim.n     = GRADIENTS;
    op.optim.count = 0;
    op.optim.clip  = 0;
    for (size_t i = 0; i < GRADIENTS; i++) {
        host[i]                 = 1;
        host[4 * GRADIENTS + i] = gradients[i];
    }
    for (int i = 0; i < SHOAL_SCALAR_COUNT; i++) {
        scalars[i] = (float)wide_scalars[i];
    }
    assert_int_equal(device->ops->workspace(device, &op, &work_nbytes), SHOAL_OK);
    assert_int_equal(device->ops->alloc(device, work_nbytes, &work), SHOAL_OK);
    assert_int_equal(device->ops->alloc(device, nbytes, (void **)&memory), SHOAL_OK);
    device->ops->upload(device, memory, host, nbytes);
    void *args[SHOAL_OP_MAX_ARGS] = {NULL};
    for (int i = 0; i < ARRAYS; i++) {
        args[i] = memory + i * GRADIENTS;
    }
    args[6] = memory + ARRAYS * GRADIENTS;
    args[7] = memory + ARRAYS * GRADIENTS + 1;
    assert_int_equal(device->ops->run(device, &op, args, work), SHOAL_OK);
    assert_int_equal(device->ops->synchronize(device), SHOAL_OK);
    device->ops->download(device, host, memory, nbytes);
    device->ops->free(device, memory, nbytes);
    device->ops->free(device, work, work_nbytes);
    for (size_t i = 0; i < GRADIENTS; i++) {
        if (!isfinite(gradients[i])) {
            assert_false(isfinite(host[i]));
            continue;
        }
        optim_element_t x = {.p = 1};
        optim_oracle(&op, wide_scalars, 0, (double)gradients[i], false, &x);
        if (!(fabs((double)host[i] - x.p) <= 1e-5 * (fabs(x.p) + 1)) ||
            (gradients[i] == 0 && host[i] != 1)) {
            fail_msg("optimizer %d makes %.9g of the gradient %g, not %.17g", (int)op.optim.optim,
                     (double)host[i], (double)gradients[i], x.p);
        }
    }
}

/* ---- several optimizer steps ---- */

enum { OPTIM_N = 37, OPTIM_STEPS = 8 };

void check_optim_steps(shoal_device_t *device, const shoal_op_t *kind, uint64_t seed)
{
    static const shoal_range_t decayed = {5, 20};
    shoal_op_t                 op      = *kind;
    op.optim.n                         = OPTIM_N;
    op.optim.ranges                    = &decayed;
    op.optim.count                     = 1;
    float *host = calloc(5 * OPTIM_N + 1 + SHOAL_SCALAR_COUNT, sizeof(float)), *memory = NULL;
    float *gnorm_sq = host + 5 * OPTIM_N, *scalars = gnorm_sq + 1;
    size_t nbytes = (5 * OPTIM_N + 1 + SHOAL_SCALAR_COUNT) * sizeof(float);
    size_t work_nbytes = 0;
    void  *work        = NULL;
    optim_element_t x[OPTIM_N];

    assert_non_null(host);
    assert_int_equal(device->ops->alloc(device, nbytes, (void **)&memory), SHOAL_OK);
    memset(x, 0, sizeof(x));
    assert_int_equal(device->ops->workspace(device, &op, &work_nbytes), SHOAL_OK);
    assert_int_equal(device->ops->alloc(device, work_nbytes, &work), SHOAL_OK);
    void *args[SHOAL_OP_MAX_ARGS] = {memory, memory + OPTIM_N, memory + 2 * OPTIM_N, memory + 3 * OPTIM_N,
                                     memory + 4 * OPTIM_N, NULL, memory + 5 * OPTIM_N, memory + 5 * OPTIM_N + 1};
    for (int t = 1; t <= OPTIM_STEPS; t++) {
        double wide_scalars[SHOAL_SCALAR_COUNT];
        shoal_rng_normal(shoal_rng_stream(seed, "gradients"), (uint64_t)(t * 100), OPTIM_N, 0.3f, host + 4 * OPTIM_N);
        *gnorm_sq                     = 3;
        scalars[SHOAL_SCALAR_STEP]    = (float)t;
        scalars[SHOAL_SCALAR_LR]      = 0.05f;
        scalars[SHOAL_SCALAR_DECAY]   = 0.9f;
        for (int i = 0; i < SHOAL_SCALAR_COUNT; i++) {
            wide_scalars[i] = (double)scalars[i];
        }
        device->ops->upload(device, memory, host, nbytes);
        assert_int_equal(device->ops->run(device, &op, args, work), SHOAL_OK);
        assert_int_equal(device->ops->synchronize(device), SHOAL_OK);
        device->ops->download(device, host, memory, nbytes);
        for (size_t i = 0; i < OPTIM_N; i++) {
            optim_oracle(&op, wide_scalars, 3, (double)host[4 * OPTIM_N + i], i >= 5 && i < 25, &x[i]);
            assert_true(fabs((double)host[i] - x[i].p) <= 1e-5 * (fabs(x[i].p) + 1));
        }
    }
    device->ops->free(device, work, work_nbytes);
    device->ops->free(device, memory, nbytes);
    free(host);
}
