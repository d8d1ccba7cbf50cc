/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who has which flow or port: the table behind vd_filters and vd_groups, by key. A key belongs to one stack, or,
 * shared, to stacks of one user, among which the program in the kernel spreads new flows.
 *
 * Entries that an earlier viaductd left belong to their stack with id 0, until the stack names them again or
 * filters_sweep removes them.
 */
#ifndef VD_FILTERS_H
#define VD_FILTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/steer.h"

struct filters;

struct filters *filters_new(struct steer *s);
void filters_free(struct filters *f);
/* Says whose a stack is; false: nobody can come for what it has. */
typedef bool filters_known(uint32_t stack, void *arg, uint32_t *uid);
/* Take over what is in the kernel's map, of stacks that are known, and remove the rest. 0 or -errno. */
int filters_adopt(struct filters *f, filters_known *known, void *arg);

/* Give key to the stack under this id (> 0). The id that it has: id, or the one under which the stack had it already.
 * -EADDRINUSE: another's; -ENOSPC: too many; -ENOMEM. */
int filters_add(struct filters *f, const struct steer_key *key, uint32_t stack, uint32_t uid, uint32_t id, bool shared);
/* Leave a flow to the kernel, whatever port covers it; and no longer. A stack's own filter for it goes before. */
int filters_keep_out(struct filters *f, const struct steer_key *flow);
void filters_let_in(struct filters *f, const struct steer_key *flow);
/* Under which id the stack has this key; 0: it has not, or has not named it to this viaductd. */
uint32_t filters_id(struct filters *f, const struct steer_key *key, uint32_t stack);
/* Has the stack got this key from an earlier viaductd, whether it has named it again or not? */
bool filters_inherited(struct filters *f, const struct steer_key *key, uint32_t stack);
void filters_del(struct filters *f, const struct steer_key *key, uint32_t stack);
/* Remove what no stack has named again: all, or only of this stack. */
void filters_sweep(struct filters *f, uint32_t stack);
#define FILTERS_ALL 0xffffffffu
/* Does a stack other than this one have the key? */
bool filters_others(struct filters *f, const struct steer_key *key, uint32_t stack);
/* Stacks enter flows themselves from now on. 0 or -errno. */
int filters_use_table(struct filters *f);
uint32_t filters_count(const struct filters *f);

#endif
