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

/* 0, or -EPROTO: not a view that we can read. */
int netview_check(const void *mem, size_t len);
/* The way to `to`. from: the socket's own address, all zero: any. ifindex: bound to that device, 0: any. hash chooses
 * among the hops of a multipath route. 0; -ENETUNREACH no route; -EHOSTUNREACH the neighbour's resolution has failed;
 * -ENOENT: the kernel must serve this one (a local address, a route that is not ours to follow, policy rules; no view).
 */
int route_lookup(const struct netview *view, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex,
		 uint32_t hash, struct route *r);
/* The same for a packet of a socket that is not connected, with what was found kept for the next one: 0 and the vNIC,
 * or as route_lookup, -EAGAIN (the neighbour is not resolved yet), -ENODEV as below. */
int route_to(struct engine *e, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex, uint32_t *vnic,
	     struct route *r);
/* A router says that no larger packets pass on the way to `to`: route_to tells it (path_mtu) for ten minutes. */
void route_mtu(struct engine *e, const uint8_t to[16], uint32_t mtu);
/* Is this an address of this machine, says the view? */
bool route_is_own(const struct netview *view, const uint8_t addr[16]);
/* The view is another viaductd's: what was found in the old one is looked up again. */
void route_forget(struct engine *e);

/* --- neighbours that the kernel shall resolve or confirm (DAEMON_RESOLVE) --- */
/* Ask for one, at most once in a while. addr all zero: for a vNIC on that interface. */
void route_want(struct engine *e, const uint8_t addr[16], uint32_t ifindex);
/* The next one to pass on. False: none. Worth a call when stack.neigh_pending is not 0 (which needs no lock). */
bool route_wanted(struct engine *e, struct neigh_want *out);
/* The next hop of a connected socket may be gone: its segments are not answered. */
void route_doubt(struct engine *e, const struct sock *k);

/* --- TCP's part (tcp_route.c) --- */
/* k goes on over another vNIC, and its segments with it. 0; -ENOBUFS: not now. */
int tcp_move(struct engine *e, struct sock *k, uint32_t vnic);
/* dst.mtu is another: k's segments follow. */
void tcp_mtu_changed(struct engine *e, struct sock *k);
/* k's segments wait for the way: they are tried again soon, at stack.path_retry_us. */
void tcp_path_wait(struct engine *e, struct sock *k);
/* Full-sized segments go unanswered again and again: perhaps they are too large for the path, and nobody says so
 * (RFC 2923 2.1, RFC 8899). */
#define TCP_BLACK_HOLE_RTOS 3u /* as Linux's tcp_retries1 */
void tcp_black_hole(struct engine *e, struct sock *k);
/* From then on a larger size is tried now and then, with data that has to be sent anyway. How many bytes of payload a
 * trial has, if one is due; 0: none. Then what became of it. */
uint32_t tcp_mtu_trial(struct engine *e, struct sock *k);
void tcp_mtu_trial_sent(struct engine *e, struct sock *k, uint32_t seq, uint32_t len);
void tcp_mtu_trial_lost(struct engine *e, struct sock *k);
void tcp_mtu_trial_acked(struct engine *e, struct sock *k);
void tcp_path_retry(struct engine *e);

/* Bring k's vNIC and dst up to date with the view (e->view). 0: frames may go. -EAGAIN: the neighbour is not resolved
 * yet (route_wanted says which); -ENETUNREACH, -EHOSTUNREACH; -ENODEV: the stack
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
