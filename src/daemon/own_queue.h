/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues of their own. Where the administrator says so (option --own-queues INTERFACE), the receive queues that the
 * NIC's RSS leaves out are for one stack each, and viaductd owns the NIC's flow rules that lead to them: each filter of
 * such a stack is a rule as well, so what comes for it comes on its queue, and nothing else does.
 *
 * That is how several processes have AF_XDP sockets on one NIC without a veth in between. It keeps apart what they
 * receive, not what they send: an AF_XDP socket sends whatever its owner writes. So it is for those who get an
 * interface's own queues anyway (policy_direct).
 *
 * A rule leads to one queue, so a port has one such stack: it is not shared with others.
 *
 * Rules stay in the NIC when viaductd is killed. The next one reads them; those that no stack asks for again go with
 * the rest of what the earlier one left (house_sweep). All functions are the daemon's one thread's.
 */
#ifndef VD_OWN_QUEUE_H
#define VD_OWN_QUEUE_H

#include "daemon/tenant.h"

/* How many queues of the device, from the first, are not kept for single stacks: all, where none are. */
uint32_t own_queues_rss(struct house *h, uint32_t device, uint32_t queues);
/* One from `rss` on that no stack has. -EBUSY. */
int own_queue_free(const struct house *h, uint32_t device, uint32_t rss, uint32_t queues);
/* Is the vNIC on a queue of its own? */
bool own_queue_is(const struct tenant_vnic *v);

/* Rules for all filters that the tenant has, to the vNIC's queue. 0 or -errno, and then there are none. */
int own_queue_steer(struct tenant *t, const struct tenant_vnic *v);
/* All rules to the vNIC's queue go. */
void own_queue_gone(struct tenant *t, const struct tenant_vnic *v);
/* A filter comes: rules on all queues that are the tenant's own. 0; -EADDRINUSE: another stack shares the port, and one
 * of both is on a queue of its own; other -errno; then own_queue_del undoes what was done. */
int own_queue_add(struct tenant *t, const struct steer_key *key);
void own_queue_del(struct tenant *t, const struct steer_key *key);

/* What an earlier viaductd left is read now, and removed by the sweep as far as nobody asked for it. */
void own_queues_adopt(struct house *h);
void own_queues_sweep(struct house *h);

#endif
