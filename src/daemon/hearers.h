/* SPDX-License-Identifier: BSD-2-Clause */
/* Which sockets of this network namespace may hear groups at a port, and whether the machine forwards groups: what
 * groups.c asks the kernel. */
#ifndef VD_HEARERS_H
#define VD_HEARERS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#define HEARERS 64u /* sockets of one port that are looked at: more are not ours; also the most members of a group */

struct hearer {
	uint64_t inode;
	uint8_t addr[16]; /* that it is bound to */
	uint8_t family;   /* 4, 6, or 0: IPv6's any that takes IPv4 too */
};

struct hearers {
	__be16 port;
	uint32_t count; /* HEARERS: perhaps there are more */
	struct hearer at[HEARERS];
};

/* All UDP sockets of a port. 0 or -errno. */
int hearers_ask(__be16 port, struct hearers *p);
/* The machine forwards groups of this family: the kernel must see their frames. */
bool hearers_forwards(uint8_t family);

#endif
