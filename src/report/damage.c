/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables of keys and what they must be. Numbers that a device does not have are null in the
 * records, which is no damage.
 */
#include "src/report/damage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "src/study/state.h"
#include "src/study/verdict.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/*
 * Far above what any key of the configuration admits, and far below where sums of them would
 * overflow.
 */
static const json_int_t most = 1000000000000;

static bool is_count(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 1 &&
           json_integer_value(value) <= most;
}

/* Names are directories below rows/, and nowhere else. */
static bool is_name(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
    return name != NULL && name[0] != '\0' && name[0] != '.' && strlen(name) < 96 &&
           name[strspn(name, plain)] == '\0';
}

bool shoal_damage_is_shard(const char *name)
{
    for (int s = SHOAL_SHARD_FULL; name != NULL && s <= SHOAL_SHARD_NONE; s++) {
        if (strcmp(name, shoal_shard_name((shoal_shard_t)s)) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_verdict(const char *name)
{
    return name != NULL && strcmp(shoal_verdict_name(shoal_verdict_from_name(name)), name) == 0;
}

bool shoal_damage_check_entry(const json_t *entry, size_t index, size_t nbytes, char *why_p)
{
    static const char *const counts[] = {"nodes", "ranks_per_node", "ranks",
                                         "local", "accumulate",     "global"};
    const json_t            *seed     = json_object_get(entry, "seed");
    const char              *key = NULL, *wanted = "a whole number of 1 or more is wanted";
    for (size_t i = 0; i < LENGTH(counts) && key == NULL; i++) {
        key = is_count(json_object_get(entry, counts[i])) ? NULL : counts[i];
    }
    if (key == NULL && !(json_is_integer(seed) && json_integer_value(seed) >= 0)) {
        key    = "seed";
        wanted = "a whole number of 0 or more is wanted";
    } else if (key == NULL && !is_name(shoal_json_text(entry, "name"))) {
        key    = "name";
        wanted = "the name of a directory is wanted";
    } else if (key == NULL && !shoal_damage_is_shard(shoal_json_text(entry, "shard"))) {
        key    = "shard";
        wanted = "full, grad or none is wanted";
    } else if (key == NULL && !is_verdict(shoal_json_text(entry, "verdict"))) {
        key    = "verdict";
        wanted = "there is no such verdict";
    }
    snprintf(why_p, nbytes, "study.json: rows[%zu].%s: %s", index, key == NULL ? "" : key, wanted);
    return key == NULL;
}

bool shoal_damage_check_mesh(const json_t *run, size_t nbytes, char *why_p)
{
    static const char *const counts[] = {"mesh.ranks", "mesh.nodes", "mesh.ranks_per_node"};
    for (size_t i = 0; i < LENGTH(counts); i++) {
        if (!is_count(shoal_json_at(run, counts[i]))) {
            snprintf(why_p, nbytes, "run.json: %s: a whole number of 1 or more is wanted",
                     counts[i]);
            return false;
        }
    }
    return true;
}

/* Missing, null, or a number that is not negative. */
static bool is_measure(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_number(value) && json_number_value(value) >= 0);
}

bool shoal_damage_check_summary(const json_t *summary, size_t nbytes, char *why_p)
{
    static const char *const measures[] = {"step_ms.median",
                                           "step_ms.p10",
                                           "step_ms.p90",
                                           "exposed_ms",
                                           "comm_ms",
                                           "elapsed_s",
                                           "total_tokens",
                                           "mfu_causal",
                                           "mfu_full",
                                           "launch_to_first_step_ms",
                                           "plan_nbytes",
                                           "used_nbytes",
                                           "rss_peak_nbytes",
                                           "parameters",
                                           "peak_flops",
                                           "first_step_ms",
                                           "flops_per_token_causal",
                                           "flops_per_token_full",
                                           "steps",
                                           "warmup_steps"};
    static const char *const lists[]    = {"per_rank", "tokens_per_s_per_rank", "losses",
                                           "valid_loss"};
    double                   speed      = shoal_json_number(summary, "tokens_per_s.median");
    const json_t            *steps      = json_object_get(summary, "step_ms");
    const char              *key = NULL, *wanted = "a number of 0 or more is wanted";
    if (!(isfinite(speed) && speed > 0)) {
        key    = "tokens_per_s.median";
        wanted = "a number above 0 is wanted";
    } else if (steps != NULL && !json_is_object(steps)) {
        key    = "step_ms";
        wanted = "an object is wanted";
    }
    for (size_t i = 0; i < LENGTH(measures) && key == NULL; i++) {
        key = is_measure(shoal_json_at(summary, measures[i])) ? NULL : measures[i];
    }
    for (size_t i = 0; i < LENGTH(lists) && key == NULL; i++) {
        const json_t *list = json_object_get(summary, lists[i]);
        key                = list == NULL || json_is_array(list) ? NULL : lists[i];
        wanted             = key == NULL ? wanted : "a list is wanted";
    }
    snprintf(why_p, nbytes, "summary.json: %s: %s", key == NULL ? "" : key, wanted);
    return key == NULL;
}
