/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Filters for groups (multicast): a frame to a group belongs to everybody on the machine who hears the group at that
 * port, but the program in the kernel can send it one way only. So a group's frames go to a stack while all sockets
 * that would hear them are that stack's; as soon as there is another, a plain program's say, the kernel serves them
 * all, and goes on until the stack is alone again.
 *
 * Who hears a group is asked of the kernel (sock_diag) when a member comes or goes, and GROUPS_LOOK_MS later again and
 * again: a socket that a program without Viaduct binds meanwhile hears the group after so long at most. One that joined
 * on no interface counts too: it hears what others have joined (IP_MULTICAST_ALL). While the machine forwards multicast
 * (mrouted), the kernel has every group.
 */
#ifndef VD_GROUPS_H
#define VD_GROUPS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/filters.h"

#define GROUPS_LOOK_MS 250

struct groups;

struct groups *groups_new(struct filters *f);
void groups_free(struct groups *g);
/* Is the key's local address a group's? Then the filter is ours, not filters.h's. */
bool groups_key(const struct steer_key *key);

struct group_member {
	uint32_t stack, uid, id; /* as in filters_add */
	uint64_t inode;          /* of the socket that is the member */
};
/* The stack hears the group by that socket: 0; -ENOSPC, -ENOMEM. Whether its frames come is seen to from now on. */
int groups_add(struct groups *g, const struct steer_key *key, const struct group_member *m);
void groups_del(struct groups *g, const struct steer_key *key, uint32_t stack, uint32_t id);
/* Look again if it is time. Milliseconds until the next look, -1: there are no groups. */
int groups_run(struct groups *g, int64_t now_ms);

#endif
