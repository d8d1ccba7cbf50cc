/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the mirror has read of the kernel, before it is turned into a view: the tables that mirror_parse.c fills from
 * messages and mirror_build.c makes a netview_copy from. Both are pure: no system call, no descriptor.
 */
#ifndef VD_MIRROR_RAW_H
#define VD_MIRROR_RAW_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/netlink.h>

#include "viaduct/netview.h"

enum raw_kind { RAW_PLAIN, RAW_VLAN, RAW_BOND };

struct raw_link {
	uint32_t ifindex;
	uint32_t flags;  /* IFF_* */
	uint32_t mtu;    /* of the device */
	uint32_t mtu6;   /* of IPv6 on it (a router may ask for less); 0: not known */
	uint32_t master; /* the bond that it is part of, or what else; 0 none */
	uint32_t below;  /* VLAN: the device below; bond: the active slave; 0 none */
	uint16_t type;   /* ARPHRD_* */
	uint16_t vlan;   /* tag */
	uint8_t kind;    /* enum raw_kind */
	uint8_t
	    elsewhere; /* 1: the device below is in another network namespace, or is used in a way we don't follow */
	uint8_t mac[6];
	char name[16];
};

struct raw_addr {
	struct netview_addr a;
	uint8_t secondary; /* IPv4: never chosen as source by itself */
};

/* Where a route stands: the kernel's rules ask these tables in this order. */
enum raw_table { RAW_TABLE_LOCAL, RAW_TABLE_MAIN, RAW_TABLE_DEFAULT };

/* One hop of one route. */
struct raw_route {
	struct netview_route r;
	uint32_t order; /* of the route in the kernel's dump: hops of one route share it */
	uint8_t hop;    /* number within the route */
	uint8_t table;  /* enum raw_table */
	uint8_t scope;  /* RT_SCOPE_*: what an IPv4 source address is chosen by */
	uint8_t object; /* 1: the hop is a nexthop object's */
};

#define RAW_HOPS_MAX 64u /* hops of one route that we follow; one with more is the kernel's */

struct raw_net {
	uint32_t links, addrs, routes, neighs;
	uint32_t order; /* routes read so far */
	bool overflow;  /* something did not fit */
	bool neigh_overflow;
	bool foreign;     /* a policy rule besides the kernel's own */
	uint8_t rules[2]; /* the kernel's own that were seen, IPv4 and IPv6: bits of enum raw_table */
	struct raw_link link[NETVIEW_IFACES];
	struct raw_addr addr[NETVIEW_ADDRS];
	struct raw_route route[NETVIEW_ROUTES];
	struct netview_neigh neigh[NETVIEW_NEIGHS]; /* sorted by address, then interface */
};

/* --- mirror_parse.c: one message of the kernel --- */
void raw_take_link(struct raw_net *n, const struct nlmsghdr *h);
void raw_take_addr(struct raw_net *n, const struct nlmsghdr *h);
void raw_take_route(struct raw_net *n, const struct nlmsghdr *h);
void raw_take_rule(struct raw_net *n, const struct nlmsghdr *h);
/* RTM_NEWNEIGH and RTM_DELNEIGH, also of later changes. */
void raw_take_neigh(struct raw_net *n, const struct nlmsghdr *h);
/* Forget all but the neighbours, to read it again; the neighbours. */
void raw_clear(struct raw_net *n);
void raw_clear_neighs(struct raw_net *n);
/* The neighbour is being resolved anew: no failure is known of any more. True if there was one. */
bool raw_neigh_retry(struct raw_net *n, uint32_t ifindex, const uint8_t addr[16]);
const struct netview_neigh *raw_neigh(const struct raw_net *n, uint32_t ifindex, const uint8_t addr[16]);

/* --- mirror_build.c --- */
/* After everything was read: put the routes into their order. */
void raw_sort(struct raw_net *n);
/* See mirror_below. */
uint32_t raw_below(const struct raw_net *n, uint32_t ifindex, uint32_t *below, uint32_t max, uint32_t *sends);
/* Make out (zeroed here) from n. */
void raw_build(const struct raw_net *n, bool (*allowed)(const char *, uint32_t, void *), void *arg,
	       struct netview_copy *out);

#endif
