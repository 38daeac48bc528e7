/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether records can be believed. They pass through full disks, kills, other versions and editors,
 * and one that is damaged must cost its own row of the report and no other. What is wrong is said
 * as "FILE: what", with the key.
 */
#ifndef SHOAL_SRC_REPORT_DAMAGE_H
#define SHOAL_SRC_REPORT_DAMAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The verdict of a row whose records cannot be believed. */
#define SHOAL_DAMAGED "damaged records"

/*
 * An entry of study.json, the index-th of its rows: sizes and seed, name, shard and verdict. False:
 * see why_p (nbytes).
 */
bool shoal_damage_check_entry(const json_t *entry, size_t index, size_t nbytes, char *why_p);

/*
 * The part of run.json that says how many ranks there were; only a single run needs it. False: see
 * why_p.
 */
bool shoal_damage_check_mesh(const json_t *run, size_t nbytes, char *why_p);

/*
 * The summary of a run that ended well: it has a speed, and where a key is there it has the right
 * kind. False: see why_p.
 */
bool shoal_damage_check_summary(const json_t *summary, size_t nbytes, char *why_p);

/* Whether a name is one of those of shardings. */
bool shoal_damage_is_shard(const char *name);

#endif
