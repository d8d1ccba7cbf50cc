/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network half of the socket layer: the connection to viaductd (include/viaduct/daemon.h), the vNICs on interfaces,
 * filters.
 *
 * Everything here may block for a daemon's answer, so it happens when sockets are bound, connected and closed, never
 * per packet, and never with the stack's lock held. Without a daemon the calls fail with a reason, and the kernel
 * serves.
 */
#ifndef VD_SOCKET_NET_H
#define VD_SOCKET_NET_H

#include "engine/route.h"
#include "socket/process.h"
#include "viaduct/daemon.h"

/* Ask once; later calls are cheap. 0, or -errno with *reason (no daemon, not allowed, version, switched off). */
int net_start(struct attached *a, enum reason *reason);
/* A vNIC of stack a on the interface: known, or opened now. Number, or -errno with *reason. */
int net_vnic(struct attached *a, uint32_t ifindex, enum reason *reason);
/* The way to remote for a socket bound to *local (port and address may be 0): fills in local's address, resolves the
 * neighbour (waits a little for it). vNIC number, or -errno with *reason: -ENOENT, the kernel must serve. */
int net_to(struct attached *a, const struct endpoint *remote, struct endpoint *local, struct dst *dst,
	   enum reason *reason);
/* Steer what comes to local (from remote; port 0: from all) to stack a. fd: the backing socket that owns the port. The
 * filter's id (> 0) or -errno with *reason. */
int net_filter(struct attached *a, enum sock_proto proto, int family, int fd, const struct endpoint *local,
	       const struct endpoint *remote, uint16_t flags, enum reason *reason);
/* A socket is bound to local (listens, UDP): vNICs on all interfaces on which something may come for it. How many, or
 * -errno with *reason. */
int net_open_for(struct attached *a, const struct endpoint *local, enum reason *reason);
/* A descriptor of this process that is bound to that port: -1 none. Slow; for what happens once in a while. */
int net_descriptor_of(enum sock_proto proto, uint16_t port);
/* A listener or a bound UDP socket is closed: its filter goes; the listener's connections keep theirs. */
void net_unbound(struct attached *a, enum sock_proto proto, const struct endpoint *local);

/* The kernel shall have what comes to local (from remote; port 0: from all) again. */
void net_unsteer(struct attached *a, enum sock_proto proto, int family, const struct endpoint *local,
		 const struct endpoint *remote);
/* The program closes fd, from whose port the connection was made; it has let go of the connection. */
void net_flow_closing(struct attached *a, int fd, const struct endpoint *local, const struct endpoint *remote);

/* A port is taken: by us, perhaps, for a connection that is over by now? True: something was given up. */
bool net_flows_give_way(void);

/* viaductd knows the stack: when the process ends, it goes on with its connections over networks. */
bool net_finishes(const struct attached *a);

/* --- for those who sleep --- */
/* Descriptors of rings, in the order in which they came; they are readable when frames wait. */
uint32_t net_wakes(void);
int net_wake_fd(uint32_t i);
/* Whose the ring is. */
struct attached *net_wake_stack(uint32_t i);

/* --- for the helper --- */
/* The connection to viaductd hung up. */
void net_daemon_gone(struct attached *a);
/* Interfaces or addresses have come or gone: what is bound gets vNICs on those that are new. */
void net_moved(struct attached *a);
/* What is due: viaductd is looked for again, filters that nobody needs go. Microseconds until it is worth calling
 * again, 0: nothing is left to do. */
uint64_t net_tick(void);
/* Since the last call of net_named net_tick has brought the stack to another viaductd, or to the same again. */
bool net_came_again(const struct attached *a);
/* All that is wanted of it has been asked for: viaductd may forget what else it has for the stack. */
void net_named(struct attached *a);
/* A vNIC is gone for good: what it had mapped. */
void net_release_port(struct xdp_port *port);

/* viaductd knows of this stack: whoever else maps it later can't speak for it. */
bool net_involved(const struct attached *a);

/* --- fork --- */
/* In a forked process: may it make its sockets in the stack that it inherited? True: the stack has an interface's own
 * queues, so that one of its own would get a detour, and viaductd speaks with each of a stack's processes. */
bool net_lends(const struct attached *a);
/* A process that shares the stack is gone: its filters are ours to remove. */
void net_relative_gone(struct attached *a);
/* In the parent: viaductd keeps the stacks alive for the child, too. */
void net_fork_parent(int child_pid);
/* In the child. */
void net_after_fork(void);

#endif
