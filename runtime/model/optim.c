/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's part of the optimizers, all of it pure arithmetic in double. The PyTorch reference (bench/reference/enoki.py) has the
 * same schedule; the published rules are a table, so that a new optimizer is a new line.
 */
#include "runtime/model/optim.h"

#include <math.h>
#include <string.h>

/* The batch from which the rule fitted at 512 sequences is used instead of the one at 32. */
enum { LARGE_BATCH_SEQUENCES = 256 };

typedef struct {
    double a, b, e; /* lr = a (b + N)^e; a = 0: none published */
} lr_rule_t;

static const struct {
    size_t    nstates;
    lr_rule_t at_32, at_512;
} optims[] = {
    [SHOAL_OPTIM_ADAMW]         = {2, {12.8, 1.67e4, -0.515}, {16.7, 1.58e7, -0.464}},
    [SHOAL_OPTIM_ADANA]         = {2, {22.5, 1.22e5, -0.618}, {85.3, 3.04e4, -0.654}},
    [SHOAL_OPTIM_DANA_MK4]      = {2, {23.0, 1.46e4, -0.627}, {2470, 2.24e7, -0.826}},
    [SHOAL_OPTIM_DANA_STAR]     = {3, {223, 2.40e6, -0.724}, {0, 0, 0}},
    [SHOAL_OPTIM_DANA_STAR_MK4] = {3, {223, 2.40e6, -0.724}, {310, 1.40e4, -0.701}},
};

size_t shoal_optim_nstates(shoal_optim_kind_t kind)
{
    return optims[kind].nstates;
}

/* 1 down to 0 over x = 0 .. 1 along half a cosine. */
static double half_cosine(double x)
{
    return 0.5 * (1.0 + cos(3.14159265358979323846 * x));
}

static double wsd(double t, size_t steps)
{
    double decay = steps >= 5 ? (double)(steps / 5) : 1.0;
    return fmin(1.0, fmax(0.0, ((double)steps - t) / decay));
}

double shoal_optim_schedule(const shoal_optim_spec_t *optim, size_t t, size_t steps)
{
    if (t <= optim->warmup) {
        return 0.01 + 0.99 * ((double)t - 1) / (double)optim->warmup;
    }
    double full = (double)optim->warmup + 1; /* the first step after warm-up: x = 0 there, 1 at the last step */
    double x    = fmin(1.0, ((double)t - full) / fmax(1.0, (double)steps - full));
    switch (optim->schedule) {
    case SHOAL_SCHEDULE_COS:
        return half_cosine(x);
    case SHOAL_SCHEDULE_COS_INF:
        return 0.1 + 0.9 * half_cosine(x);
    case SHOAL_SCHEDULE_WSD:
        return wsd((double)t, steps);
    case SHOAL_SCHEDULE_CONSTANT:
        break;
    }
    return 1.0;
}

shoal_status_t shoal_optim_auto_lr(shoal_optim_kind_t kind, double nparams, size_t sequences, double *lr_p)
{
    const lr_rule_t *rule = sequences >= LARGE_BATCH_SEQUENCES ? &optims[kind].at_512 : &optims[kind].at_32;
    if (!(rule->a > 0)) {
        return SHOAL_ERR_CONFIG;
    }
    *lr_p = rule->a * pow(rule->b + nparams, rule->e);
    return SHOAL_OK;
}

/* The time scale of DANA's decay, in steps. */
static double decay_scale(size_t steps)
{
    return fmax(1.0, (double)steps / 10.0);
}

double shoal_optim_auto_wd(shoal_optim_kind_t kind, double lr, size_t steps)
{
    return kind == SHOAL_OPTIM_ADAMW ? 4.0 / (lr * (double)steps) : fmin(1.0, 4.0 / decay_scale(steps));
}

void shoal_optim_scalars(const shoal_optim_spec_t *optim, size_t t, size_t steps, float scalars_p[SHOAL_SCALAR_COUNT])
{
    double s     = shoal_optim_schedule(optim, t, steps);
    double decay = optim->kind == SHOAL_OPTIM_ADAMW ? optim->lr * s * optim->wd
                                                    : s * optim->wd / (1.0 + (double)t / decay_scale(steps));
    memset(scalars_p, 0, SHOAL_SCALAR_COUNT * sizeof(*scalars_p));
    scalars_p[SHOAL_SCALAR_STEP]     = (float)t;
    scalars_p[SHOAL_SCALAR_LR]       = (float)(optim->lr * s);
    scalars_p[SHOAL_SCALAR_SCHEDULE] = (float)s;
    scalars_p[SHOAL_SCALAR_DECAY]    = (float)(1.0 - decay);
}
