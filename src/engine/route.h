/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Routes and neighbours, looked up in the view that viaductd publishes (include/viaduct/netview.h). Pure: the page is
 * given, no system call. Engine calls require the stack's lock, as all others.
 *
 * A connected socket remembers what it found (sock.dst) with the view's version; route_sock compares that one number
 * and looks up again only when it changed.
 */
#ifndef VD_ROUTE_H
#define VD_ROUTE_H

#include "engine/engine.h"
#include "viaduct/netview.h"

struct route {
	uint32_t ifindex;
	uint32_t mtu;
	uint8_t from[16]; /* source address to use where the socket has none */
	uint8_t via[16];  /* whose link address is wanted */
	uint8_t mac[6];
	uint8_t resolved; /* 1: mac is good */
};

/* 0, or -EPROTO: not a view that we can read. */
int netview_check(const void *mem, size_t len);
/* The way to `to`. from: the socket's own address, all zero: any. ifindex: bound to that device, 0: any. hash chooses
 * among the hops of a multipath route. 0; -ENETUNREACH no route; -EHOSTUNREACH the neighbour's resolution has failed;
 * -ENOENT: the kernel must serve this one (a local address, a route that is not ours to follow, policy rules; no view).
 */
int route_lookup(const struct netview *view, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex,
		 uint32_t hash, struct route *r);
/* Bring k's vNIC and dst up to date with the view (e->view). 0: frames may go. -EAGAIN: the neighbour is not resolved
 * yet (the socket layer is told by the counter of stack.neigh_wanted); -ENETUNREACH, -EHOSTUNREACH; -ENODEV: the stack
 * has no vNIC on that interface (yet). */
int route_sock_slow(struct engine *e, struct sock *k);
/* The stack's vNIC on an interface; VNIC_NONE. */
uint32_t route_vnic(const struct engine *e, uint32_t ifindex);

static inline int route_sock(struct engine *e, struct sock *k)
{
	const struct netview *view = e->view;

	if (__builtin_expect(!view || k->dst.version == __atomic_load_n(&view->version, __ATOMIC_ACQUIRE), 1))
		return 0;
	return route_sock_slow(e, k);
}

#endif
