/* SPDX-License-Identifier: BSD-2-Clause */
/* What net.c, net_attach.c and net_filter.c share. All of it is used under net_lock, which is taken before a stack's
 * lock, never while one is held. */
#ifndef VD_NET_INTERNAL_H
#define VD_NET_INTERNAL_H

#include <pthread.h>

#include "host/viaductd.h"
#include "socket/net.h"

#define NET_TIMEOUT_MS 2000 /* for an answer of viaductd's */
#define NET_OPEN_MS 10000   /* a NIC may take a second to take an XDP program, and a bond has several */
#define NET_IFS 16u         /* interfaces of one stack */

/* A vNIC on an interface: a queue, and a slot of the stack, each. */
struct net_if {
	uint32_t ifindex; /* 0: unused */
	uint32_t queues;
	uint16_t vnic[DAEMON_QUEUES_MAX];
	uint32_t gen[DAEMON_QUEUES_MAX];
	int umem_fd, xsk_fd[DAEMON_QUEUES_MAX], keep_fd[DAEMON_FDS_MAX];
	uint32_t keep_fds;
	bool chardev; /* of the kernel's char driver, whose file is xsk_fd[0]; the rest of this says nothing */
	int large_fd; /* plus 1; 0 none */
	struct daemon_vnic about;
};

enum net_state {
	NET_NEW,       /* never asked */
	NET_UP,        /* viaductd knows the stack */
	NET_LOST,      /* it did; the vNICs go on */
	NET_OFF,       /* no viaductd, or it won't have us: asked again now and then */
	NET_FOREIGN,   /* a stack that was inherited: what its maker set up is used, and nothing added */
	NET_INHERITED, /* the same, but viaductd knows it: we join when we need to */
};

/* What a stack has on the network. */
struct net {
	enum net_state state;
	bool joins;      /* viaductd takes more than one process of a stack */
	bool inherited;  /* another process has made the stack and its vNICs */
	enum reason why; /* NET_OFF, NET_INHERITED */
	int fd;          /* to viaductd, -1 */
	int news_fd;     /* plus 1: its eventfd, 0 none */
	uint64_t retry_us;
	uint64_t look_us;              /* NET_LOST: how long until the next look for another viaductd */
	uint64_t doubts_end_us;        /* when stack_unsure's ports may be forgotten; 0: not yet */
	bool came_again;               /* to this viaductd, which does not know yet that it knows all (net_named) */
	struct daemon_flow_set *flows; /* net_flows.c; NULL: viaductd gives none */
	uint32_t flow_stack;           /* our number there */
	bool flows_asked;
	const struct netview *view;
	size_t view_len;
	struct net_if ifs[NET_IFS];
};

extern pthread_mutex_t net_lock;
struct net *net_of(const struct attached *a);
/* One request. 0, or -errno; when the connection is of no more use it is closed, and the stack's state NET_LOST. */
int net_ask(struct net *n, const struct viaductd_request *r, struct viaductd_reply *reply);
/* With a connection, or why not. */
int net_start_locked(struct attached *a, enum reason *reason);
/* Number of the first queue's vNIC. */
int net_vnic_locked(struct attached *a, uint32_t ifindex, enum reason *reason);
/* Have viaductd open vNICs on the interface for *at, which is free. 0 or -errno. */
int net_attach(struct attached *a, struct net_if *at, uint32_t ifindex);
/* A descriptor that is readable when frames wait. 0; -ENOBUFS. */
int net_wake_add(struct attached *a, int fd);
/* A process of the tree: viaductd keeps the stack while it lives. */
void net_tell_process(struct net *n, int pid);
/* The n-th end that is bound in this stack: a listener's, a UDP socket's. False: there are not so many. */
bool net_filter_bound(const struct attached *a, uint32_t n, struct endpoint *local);
/* Hand a stack that lost its viaductd to the next. */
int net_resume(struct attached *a, struct net *n);
/* True: viaductd knows all. */
bool net_filters_resume(struct attached *a);
/* The stack has one more vNIC of the char driver's: the filters that stand hold there, too. */
void net_filters_driver(struct attached *a);
/* What processes of the tree that are gone have left becomes ours, and goes when nobody needs it. */
void net_filters_inherit(struct attached *a);
/* The same as net_filter (net.h), from viaductd. */
int net_filter_ask(struct attached *a, uint8_t proto, uint8_t family, int fd, const struct endpoint *local,
		   const struct endpoint *remote, enum reason *reason);
/* Steer a flow to the stack without viaductd. 0, or -errno: it can't be had so. */
int net_flow_enter(struct attached *a, uint8_t proto, const struct endpoint *local, const struct endpoint *remote);
/* Flows that nobody needs go. As net_filters_sweep. */
uint64_t net_flows_sweep(uint64_t now_us);
void net_flows_relative_gone(struct attached *a);
void net_flows_after_fork(void);
/* Remove the filters that nobody needs any more; now and then. Microseconds until it is worth calling again, 0: there
 * are none. */
uint64_t net_filters_sweep(uint64_t now_us);
void net_filters_after_fork(void);

#endif
