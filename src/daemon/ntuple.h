/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A NIC's flow rules and the queues that its RSS spreads over, by ethtool's ioctls (ethtool(8) -N, -X; include/uapi/
 * linux/ethtool.h: struct ethtool_rxnfc). Only what a filter of a stack can say: protocol, local and perhaps remote
 * end, VLAN.
 */
#ifndef VD_NTUPLE_H
#define VD_NTUPLE_H

#include <stdint.h>

#include "daemon/steer_maps.h"

struct ntuple_rule {
	struct steer_key key;
	uint16_t vlan; /* 0: not looked at */
	uint32_t queue;
	uint32_t location; /* in the NIC's table */
};

/* SIOCETHTOOL with this command for the device: 0 or -errno. Tests put a double in its place. */
typedef int ntuple_call(int sock, const char *name, void *command);
extern ntuple_call *ntuple_ioctl;

/* How many queues RSS uses, counted from the first: the highest one's number plus 1. -EOPNOTSUPP: the NIC has no flow
 * rules, or they are switched off. */
int ntuple_rss(int sock, const char *name);
/* The frames that the rule describes come to its queue. Its location is filled in. 0; -ENOSPC: the table is full;
 * -errno of the driver, which may not know such rules. */
int ntuple_insert(int sock, const char *name, struct ntuple_rule *r);
int ntuple_remove(int sock, const char *name, uint32_t location);
/* Rules that lead to queues from this one on; key.proto 0: of a kind that ntuple_insert does not make. *list is to be
 * freed. How many, or -errno. */
int ntuple_list(int sock, const char *name, uint32_t from, struct ntuple_rule **list);

#endif
