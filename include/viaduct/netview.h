/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's view of the network as viaductd publishes it: interfaces, addresses, routes, neighbours.
 *
 * One page set in a sealed memfd, written by viaductd alone (src/daemon/mirror.c), mapped read-only by every stack
 * (src/engine/route.c looks things up in it). Two copies alternate: `version` goes up by one with each publication, and
 * copy version & 1 is the valid one; the writer fills the other, then stores the new version with release order. A
 * reader loads version (acquire), looks up, and loads it again: if it changed, it looks up once more. What a socket
 * found is good as long as the version is the one with which it was found: one compare per segment.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so prefix lengths of IPv4 are 96 + n. Ports and
 * numbers are in host order. Readers check counts and indices before use: a page of another version of viaductd must do
 * no harm.
 *
 * Any number of threads and processes may read at once, without a lock. What is here is what rtnetlink(7) said; routes
 * are ordered as fib_lookup and fib6_rule_lookup of Linux ask them, source addresses of IPv6 are left to RFC 6724.
 */
#ifndef VIADUCT_NETVIEW_H
#define VIADUCT_NETVIEW_H

#include <stdint.h>

#define NETVIEW_MAGIC 0x5745495654454e56ull /* "VNETVIEW" */
#define NETVIEW_FORMAT 1u
#define NETVIEW_IFACES 64u
#define NETVIEW_ADDRS 512u
#define NETVIEW_ROUTES 2048u
#define NETVIEW_NEIGHS 2048u
#define NETVIEW_MEMFD_NAME "viaduct:netview"

/* netview_iface.flags */
#define NETVIEW_IF_UP 0x1u          /* administratively up and with carrier */
#define NETVIEW_IF_LOOPBACK 0x2u    /* served by the kernel, or by a wire */
#define NETVIEW_IF_POINTOPOINT 0x4u /* no neighbours: frames need no resolved address */
#define NETVIEW_IF_ALLOWED 0x8u     /* viaductd may attach to it */

struct netview_iface {
	uint32_t ifindex; /* as the kernel numbers it in this network namespace */
	uint32_t flags;   /* NETVIEW_IF_* */
	uint32_t mtu;     /* largest IP packet, bytes */
	uint32_t device; /* ifindex of the device whose queues carry its frames: itself; of a VLAN, the device below; of
			    a bond, the active one */
	uint16_t vlan;   /* 802.1Q tag of frames on `device`, 0 none */
	uint8_t mac[6];
	char name[16]; /* NUL-terminated */
};

/* netview_addr.flags */
#define NETVIEW_ADDR_USABLE 0x1u    /* neither tentative, nor failed, nor deprecated: may be chosen as source */
#define NETVIEW_ADDR_TEMPORARY 0x2u /* IPv6 privacy address (RFC 8981) */

struct netview_addr {
	uint8_t addr[16];
	uint32_t ifindex;
	uint8_t prefix; /* 96 + n for IPv4 */
	uint8_t scope;  /* RT_SCOPE_* */
	uint16_t flags; /* NETVIEW_ADDR_* */
};

/* netview_route.type */
enum netview_route_type {
	NETVIEW_ROUTE_UNICAST = 1,
	NETVIEW_ROUTE_LOCAL,  /* an address of this machine: not for the network */
	NETVIEW_ROUTE_KERNEL, /* understood, but left to the kernel (blackhole, prohibit, encapsulation, multicast,
				 broadcast) */
};

/*
 * Sorted so that the first match is the one that the kernel takes. First what is never ours (groups, link-local IPv6),
 * then all of IPv4, then all of IPv6; of each family the table local, then main, then default (as the kernel's own
 * rules ask them), and in a table the longest prefix first, then the lowest metric. So prefixes don't descend over the
 * whole array. A destination matches routes of its own family only: IPv4 routes have a v4-mapped dst and 96 bits or
 * more.
 *
 * The hops of a multipath route follow each other: `hops` in the first is their number, in the others 0; `weight` is
 * each one's. A socket that is bound to an address takes a hop with that `from`, if there is one (fib_select_multipath
 * in Linux). An IPv4 route may have an IPv6 gateway: then `via` is one, and its neighbour is wanted.
 */
struct netview_route {
	uint8_t dst[16];
	uint8_t via[16];  /* next hop; all zero: the destination itself (on-link) */
	uint8_t from[16]; /* source address; IPv6: the preferred one, all zero: to be chosen by RFC 6724; IPv4: always
			     filled in, as the kernel chooses it */
	uint32_t ifindex;
	uint32_t metric; /* RTA_PRIORITY: of two routes to one prefix the lower one counts */
	uint32_t mtu;    /* of the route, 0: the interface's */
	uint8_t prefix;
	uint8_t type;         /* enum netview_route_type */
	uint8_t hops, weight; /* weight from 1, as rtnh_hops + 1 */
};

/* Sorted by address, then interface. Neighbours that were not asked for yet, or are being resolved, are not here. */
struct netview_neigh {
	uint8_t addr[16];
	uint32_t ifindex;
	uint8_t mac[6];
	uint8_t usable; /* 1: the kernel would send to mac now (reachable, stale, delay, probe, permanent) */
	uint8_t failed; /* 1: resolution has failed: EHOSTUNREACH */
};

/* netview_copy.refuse: why the network is left to the kernel as a whole; 0: it is not */
#define NETVIEW_REFUSE_RULES 1u    /* policy routing rules beyond the kernel's own three */
#define NETVIEW_REFUSE_OVERFLOW 2u /* more routes or addresses than fit here */
#define NETVIEW_REFUSE_BEHIND 3u   /* viaductd lost messages of the kernel and reads everything again */

struct netview_copy {
	uint32_t refuse;                        /* NETVIEW_REFUSE_* */
	uint32_t ifaces, addrs, routes, neighs; /* entries in use */
	uint32_t reserved[3];
	struct netview_iface iface[NETVIEW_IFACES];
	struct netview_addr addr[NETVIEW_ADDRS];
	struct netview_route route[NETVIEW_ROUTES];
	struct netview_neigh neigh[NETVIEW_NEIGHS];
};

struct netview {
	uint64_t magic;   /* NETVIEW_MAGIC */
	uint32_t format;  /* NETVIEW_FORMAT */
	uint32_t size;    /* sizeof(struct netview) */
	uint32_t version; /* of the content, from 1; atomic */
	uint32_t reserved[11];
	struct netview_copy copy[2];
};

_Static_assert(sizeof(struct netview_iface) == 40, "netview_iface has no hidden padding");
_Static_assert(sizeof(struct netview_addr) == 24, "netview_addr has no hidden padding");
_Static_assert(sizeof(struct netview_route) == 64, "netview_route has no hidden padding");
_Static_assert(sizeof(struct netview_neigh) == 28, "netview_neigh has no hidden padding");

#endif
