/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite of the kernels in three files: test_kernels_cases.c lists what to run (one table entry per case),
 * test_kernels_oracle.c says what must come out, in double precision and with gradients by finite differences, and
 * test_kernels.c runs every case on every device and variant of this build and compares.
 */
#ifndef SHOAL_TESTS_TEST_KERNELS_H
#define SHOAL_TESTS_TEST_KERNELS_H

#include "kernels/device.h"
#include "kernels/op_table.h"

#define BIT(i) (1u << (i))

/*
 * How to test a kind, whose arguments the op table describes. Arguments arrive as double arrays with the layout of the real
 * ones (NULL: omitted); `prepare` turns random inputs into ones that make sense (tokens in range, statistics that belong to
 * their rows), and `oracle` writes the outputs. What it leaves NaN in an output must not be touched by the kernel.
 */
typedef struct {
    unsigned coarse; /* bit i: argument i depends on what was, or may be, rounded to dtype on the way */
    void (*prepare)(const shoal_op_t *op, double *const *a);
    void (*oracle)(const shoal_op_t *op, double *const *a);
} kind_spec_t;

extern const kind_spec_t kind_specs[SHOAL_OP_COMPUTE_COUNT];

/*
 * One case: run with fp32 and bf16, and gradients of both types where there are any. An omitted argument is passed as NULL;
 * an aliased one shares the memory of another. The oracle of a large case would be slow: its outputs are compared with the
 * reference kernels' instead.
 */
typedef struct {
    shoal_op_t op;
    unsigned   omit;  /* OMIT(i) | ... */
    int        alias; /* ALIAS(output, input), or 0 */
    bool       large;
} kernel_case_t;

#define OMIT(i)          (1u << (i))
#define ALIAS(to, from)  (((to) << 8) | ((from) << 4) | 1)
#define ALIAS_TO(alias)   ((alias) >> 8)
#define ALIAS_FROM(alias) (((alias) >> 4) & 15)

extern const kernel_case_t kernel_cases[];
extern const size_t        kernel_case_count;

/* One optimizer step on one element, in double precision, from the formulas in kernels/optim.h. */
typedef struct {
    double p, m, v, tau;
} optim_element_t;

void optim_oracle(const shoal_op_t *op, const double *scalars, double gnorm_sq, double grad, bool decays, optim_element_t *x);

/*
 * test_kernels_edges.c. The second takes its kind of optimizer and settings from `kind`, an OPTIM
 * op.
 */
void check_gelu_bf16(shoal_device_t *device);
void check_optim_edges(shoal_device_t *device, const shoal_op_t *kind);

/* Also there: several steps, one after the other, with gradients drawn from the seed. */
void check_optim_steps(shoal_device_t *device, const shoal_op_t *kind, uint64_t seed);

#endif
