/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an optimizer needs besides its kernel: how many fp32 state arrays it keeps, the schedule, the published learning-rate
 * rules, and the per-step scalars. Formulas of the update itself are in kernels/optim.h.
 */
#ifndef SHOAL_RUNTIME_MODEL_OPTIM_H
#define SHOAL_RUNTIME_MODEL_OPTIM_H

#include "base/status.h"
#include "runtime/spec.h"

/* State arrays beside the fp32 master: 2 (m, v), or 3 with tau. */
size_t shoal_optim_nstates(shoal_optim_kind_t kind);

/*
 * The schedule factor s_t for step t = 1 .. steps, W = warmup. For t <= W: 1/100 + 99/100 (t-1)/W, so that step 1 has 1/100 and
 * step W + 1 has 1. After that, with x = min(1, (t-W-1) / max(1, steps-W-1)):
 *   constant 1;  cos (1 + cos(pi x))/2;  cos_inf 1/10 + 9/10 of that;
 *   wsd, with D = max(1, floor(steps/5)): 1 up to step steps - D, then (steps-t)/D.
 * After `steps` it stays at its last value.
 */
double shoal_optim_schedule(const shoal_optim_spec_t *optim, size_t t, size_t steps);

/*
 * lr = a (b + N)^e of arXiv 2602.05298, N non-embedding parameters; the rule for batches of 512 sequences from 256 `sequences`
 * on, the one for 32 below. SHOAL_ERR_CONFIG, without a message, where none was published (dana-star at 512).
 */
shoal_status_t shoal_optim_auto_lr(shoal_optim_kind_t kind, double nparams, size_t sequences, double *lr_p);

/*
 * Weight decay where none is given: 4/(lr steps) for AdamW, 4/ts for DANA, whose decay factor is 1 - s_t wd / (1 + t/ts) with
 * ts = max(1, steps/10). DANA's is held to 1, which matters below 40 steps: there the first factors would be negative.
 */
double shoal_optim_auto_wd(shoal_optim_kind_t kind, double lr, size_t steps);

/* Fills the scalars of step t (kernels/ops.h) on the host. */
void shoal_optim_scalars(const shoal_optim_spec_t *optim, size_t t, size_t steps, float scalars_p[SHOAL_SCALAR_COUNT]);

#endif
