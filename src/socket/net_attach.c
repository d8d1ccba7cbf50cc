/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making vNICs on an interface: viaductd opens it, the rings and the umem are mapped, viaductd binds the sockets (in
 * this order for Linux before 6.4: DAEMON_BIND), each queue gets a slot of the stack, and becomes one of those that
 * threads spin on and sleep for. See net.h.
 *
 * Sleeping. A ring of the kernel's has no doorbell of ours; its descriptor is in the epoll descriptors of all sleepers.
 * Descriptors are listed here (`wakes`) once and for good, so that each sleeper registers those that it does not know.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mman.h>

#include "host/host.h"
#include "host/xsk.h"
#include "socket/large.h"
#include "socket/net_chardev.h"
#include "socket/net_internal.h"
#include "socket/raw.h"
#include "socket/wire.h"

#define PORTS_MAX (NET_IFS * DAEMON_QUEUES_MAX)
#define NET_TAKEN (-EADDRINUSE) /* the interface's queues are somebody else's: a veth will do */

static struct xdp_port ports[PORTS_MAX];
static bool port_used[PORTS_MAX];

static int wakes[PORTS_MAX];
static struct attached *wake_stacks[PORTS_MAX];
static _Atomic uint32_t wake_count;

uint32_t net_wakes(void)
{
	return atomic_load_explicit(&wake_count, memory_order_acquire);
}

int net_wake_fd(uint32_t i)
{
	return wakes[i];
}

int net_wake_add(struct attached *a, int fd)
{
	uint32_t n = atomic_load(&wake_count);

	if (n == PORTS_MAX)
		return -ENOBUFS;
	wakes[n] = fd;
	wake_stacks[n] = a;
	atomic_store_explicit(&wake_count, n + 1, memory_order_release);
	return 0;
}

struct attached *net_wake_stack(uint32_t i)
{
	return wake_stacks[i];
}

static struct xdp_port *take_port(void)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (port_used[i])
			continue;
		port_used[i] = true;
		return &ports[i];
	}
	return NULL;
}

static void give_port(struct xdp_port *p)
{
	port_used[p - ports] = false;
}

/* --- descriptors --- */

static void close_all(const struct net_if *at)
{
	host_fd_close(at->umem_fd);
	for (uint32_t q = 0; q < at->queues; q++)
		host_fd_close(at->xsk_fd[q]);
	for (uint32_t i = 0; i < at->keep_fds; i++)
		host_fd_close(at->keep_fd[i]);
	if (at->large_fd)
		host_fd_close(at->large_fd - 1);
}

/* Move the reply's descriptors up and into *at. */
static int take_fds(struct net_if *at, struct viaductd_reply *reply)
{
	int high[DAEMON_FDS_MAX] = {0}, ret = 0;
	uint32_t n = reply->fd_count, i;

	for (i = 0; i < n; i++) {
		high[i] = host_fd_high(reply->fds[i]);
		if (high[i] < 0)
			break;
	}
	reply->fd_count = 0;
	if (i < n) {
		ret = high[i];
		for (uint32_t j = i; j < n; j++)
			host_sys.close(reply->fds[j]);
		while (i-- > 0)
			host_fd_close(high[i]);
		return ret;
	}
	for (i = 0; i < n; i++)
		vs_publish_fd(high[i], FD_OWN, VS_NONE, REASON_NONE);
	at->umem_fd = high[0];
	memcpy(at->xsk_fd, high + 1, at->queues * sizeof(int));
	memcpy(at->keep_fd, high + 1 + at->queues, at->keep_fds * sizeof(int));
	return 0;
}

/* --- one queue --- */

static uint32_t features_of(const struct daemon_vnic *d)
{
	return (d->features & DAEMON_VNIC_PARTIAL_CSUM ? VNIC_FEAT_CSUM_PARTIAL : 0) |
	       (d->features & DAEMON_VNIC_SCATTER ? VNIC_FEAT_SCATTER : 0);
}

/* With the stack's lock. */
static int attach_locked(struct attached *a, struct net_if *at, uint32_t q, struct xdp_port *p)
{
	struct xdp_about about = {.ifindex = at->ifindex,
				  .mtu = at->about.mtu,
				  .features = features_of(&at->about),
				  .vlan = at->about.vlan,
				  .queue = (uint16_t)q};
	int i = engine_vnic_alloc(&a->e), ret;
	struct vnic *v;

	if (i < 0)
		return i;
	memcpy(about.mac, at->about.mac, sizeof(about.mac));
	v = &a->e.vnic[i];
	v->doorbell_fd[0] = v->doorbell_fd[1] = v->life_fd = -1;
	ret = xdp_attach(v, stack_vnic(a->s, (uint32_t)i), p, &about);
	if (ret < 0) {
		(void)engine_vnic_free(&a->e, (uint32_t)i);
		return ret;
	}
	v->wake_fd = at->xsk_fd[q] + 1;
	process_activate(a, (uint32_t)i);
	at->vnic[q] = (uint16_t)i;
	at->gen[q] = v->gen;
	return 0;
}

/* NULL: ret says why. */
static struct xdp_port *map_queue(const struct net_if *at, uint32_t q, int *ret)
{
	struct xdp_port *p = take_port();

	*ret = -ENOBUFS;
	if (!p)
		return NULL;
	*ret = xsk_map(at->xsk_fd[q], at->umem_fd, &at->about, q, p);
	if (*ret == 0)
		return p;
	give_port(p);
	return NULL;
}

/* It is the vNIC's, or ours as before. */
static int attach_queue(struct attached *a, struct net_if *at, uint32_t q, struct xdp_port *p)
{
	uint32_t n = atomic_load(&wake_count);
	int ret;

	if (n == PORTS_MAX)
		return -ENOBUFS;
	stack_enter(a);
	ret = attach_locked(a, at, q, p);
	stack_leave(a);
	if (ret < 0)
		return ret;
	wakes[n] = at->xsk_fd[q];
	wake_stacks[n] = a;
	atomic_store_explicit(&wake_count, n + 1, memory_order_release);
	return 0;
}

/* The rings are mapped: viaductd may bind the sockets, and says what came of it. */
static int bind_queues(struct attached *a, struct net_if *at)
{
	struct daemon_bind body = {.ifindex = at->ifindex};
	const struct daemon_vnic *now;
	struct viaductd_reply reply;
	int ret = net_ask(net_of(a),
			  &(struct viaductd_request){.type = DAEMON_BIND, .body = &body, .len = sizeof(body)}, &reply);

	if (ret < 0)
		return ret == -EBUSY && reply.refused ? NET_TAKEN : ret;
	now = (const struct daemon_vnic *)(const void *)reply.body;
	at->about.features = now->features & ~DAEMON_VNIC_UNBOUND;
	at->about.mode = now->mode;
	viaductd_reply_drop(&reply);
	return 0;
}

/* Where the kernel's generic hook takes them in at the other end, and needs no checksum: a veth. Only the interface's
 * own queues: what leaves a veth behind it is looked at segment by segment. */
static bool takes_large(const struct daemon_vnic *d)
{
	uint32_t has = d->features & (DAEMON_VNIC_NATIVE | DAEMON_VNIC_PARTIAL_CSUM | DAEMON_VNIC_SCATTER);

	return d->mode == DAEMON_MODE_DIRECT && has == (DAEMON_VNIC_PARTIAL_CSUM | DAEMON_VNIC_SCATTER) && !d->vlan;
}

/* All or nothing: a queue is mapped, all are bound, then the stack gets them. */
static int attach_queues(struct attached *a, struct net_if *at)
{
	struct xdp_port *p[DAEMON_QUEUES_MAX] = {NULL};
	uint32_t mapped = 0, made = 0;
	int ret = 0;

	for (; ret == 0 && mapped < at->queues; mapped += ret == 0)
		p[mapped] = map_queue(at, mapped, &ret);
	if (ret == 0 && at->about.features & DAEMON_VNIC_UNBOUND)
		ret = bind_queues(a, at);
	for (; ret == 0 && made < mapped; made += ret == 0)
		ret = attach_queue(a, at, made, p[made]);
	if (ret == 0 && takes_large(&at->about)) {
		int fd = large_open(a, at->vnic[0], at->ifindex);

		at->large_fd = fd < 0 ? 0 : fd + 1;
	}
	if (ret == 0)
		return 0;
	for (uint32_t q = made; q < mapped; q++) {
		xsk_unmap(p[q]);
		give_port(p[q]);
	}
	for (uint32_t q = 0; q < made; q++)
		wire_gone(a, at->vnic[q], at->gen[q]);
	close_all(at);
	at->ifindex = 0;
	return ret;
}

static int attach(struct attached *a, struct net_if *at, struct viaductd_reply *reply)
{
	const struct daemon_vnic *d = (const struct daemon_vnic *)(const void *)reply->body;
	int ret;

	*at = (struct net_if){.about = *d, .queues = d->queues, .keep_fds = d->keep_fds};
	if (!d->queues || d->queues > DAEMON_QUEUES_MAX || d->keep_fds > DAEMON_FDS_MAX ||
	    reply->fd_count != 1 + d->queues + d->keep_fds) {
		viaductd_reply_drop(reply);
		return -EPROTO;
	}
	ret = take_fds(at, reply);
	viaductd_reply_drop(reply);
	if (ret < 0)
		return ret;
	at->ifindex = d->ifindex;
	ret = attach_queues(a, at);
	if (ret < 0)
		return ret;
	wait_wake_all(); /* sleepers don't know the descriptors yet */
	process_helper_kick();
	return 0;
}

/* Who may send anything shows it with a packet socket, which receives nothing; root is known. -1: none. */
static int licence(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {{0}};

	if (raw_call(SYS_geteuid, 0, 0, 0, 0, 0, 0) == 0 ||
	    raw_call(SYS_capget, (long)&head, (long)caps, 0, 0, 0, 0) < 0 || !(caps[0].effective >> CAP_NET_RAW & 1))
		return -1;
	return (int)raw_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0, 0, 0, 0);
}

/* How many queues of an interface have room: half of the stack's vNICs are for wires. With too few the interface is
 * reached by a veth, which has one. */
static uint32_t queues_left(const struct net *n)
{
	uint32_t used = 0, most = VNIC_MAX / 2;

	for (uint32_t i = 0; i < NET_IFS; i++)
		used += n->ifs[i].ifindex ? n->ifs[i].queues : 0;
	if (used + 1 >= most)
		return 1;
	return most - used < DAEMON_QUEUES_MAX ? most - used : DAEMON_QUEUES_MAX;
}

static int open_and_attach(struct attached *a, struct net_if *at, uint32_t ifindex, uint32_t flags)
{
	struct daemon_open body = {.ifindex = ifindex, .flags = flags, .queues = queues_left(net_of(a))};
	struct viaductd_reply reply;
	int shown = licence(), ret;

	ret =
	    net_ask(net_of(a),
		    &(struct viaductd_request){
			.type = DAEMON_OPEN, .body = &body, .len = sizeof(body), .fds = &shown, .fd_count = shown >= 0},
		    &reply);
	if (shown >= 0)
		host_sys.close(shown);
	return ret < 0 ? ret : attach(a, at, &reply);
}

int net_attach(struct attached *a, struct net_if *at, uint32_t ifindex)
{
	int ret = net_chardev_attach(a, at, ifindex);

	if (ret == 0)
		return 0;
	ret = open_and_attach(a, at, ifindex, DAEMON_OPEN_BINDS);
	return ret == NET_TAKEN ? open_and_attach(a, at, ifindex, DAEMON_OPEN_BINDS | DAEMON_OPEN_BEHIND) : ret;
}

/* Threads may still look at the receive ring's position: that page stays, empty. */
void net_release_port(struct xdp_port *p)
{
	struct xdp_ring rx = p->rx;

	p->rx = (struct xdp_ring){0};
	xsk_unmap(p);
	if (mmap(rx.map, rx.map_len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
		p->rx = rx;
}

/* --- viaductd was started anew --- */

/* What a new viaductd wants to be kept takes the place of what the old one gave. */
static void take_keeps(struct net_if *at, struct viaductd_reply *reply)
{
	for (uint32_t i = 0; i < at->keep_fds; i++)
		host_fd_close(at->keep_fd[i]);
	at->keep_fds = 0;
	for (uint32_t i = 0; i < reply->fd_count; i++) {
		int high = host_fd_high(reply->fds[i]);

		if (high < 0)
			host_sys.close(reply->fds[i]);
		else
			at->keep_fd[at->keep_fds++] = high;
	}
	reply->fd_count = 0;
}

static int resume_if(struct net *n, struct net_if *at)
{
	struct viaductd_reply reply;
	int fds[1 + DAEMON_QUEUES_MAX], ret;

	fds[0] = at->umem_fd;
	memcpy(fds + 1, at->xsk_fd, at->queues * sizeof(int));
	ret = net_ask(n,
		      &(struct viaductd_request){.type = DAEMON_RESUME,
						 .body = &at->about,
						 .len = sizeof(at->about),
						 .fds = fds,
						 .fd_count = 1 + at->queues},
		      &reply);
	if (ret == 0)
		take_keeps(at, &reply);
	return ret;
}

/* Whose life keeps the stack's. */
static void name_processes(struct attached *a, struct net *n)
{
	for (uint32_t i = 0; i < PROC_MAX; i++) {
		uint32_t pid = i == a->slot ? 0 : a->s->proc[i].pid;

		if (pid)
			net_tell_process(n, (int)pid);
	}
}

/* An interface that is gone is not to come back; what else is refused may be had later. */
int net_resume(struct attached *a, struct net *n)
{
	int ret = 0;

	name_processes(a, n);
	for (uint32_t i = 0; i < NET_IFS && n->state == NET_UP; i++) {
		int one = n->ifs[i].ifindex && !n->ifs[i].chardev ? resume_if(n, &n->ifs[i]) : 0;

		if (one < 0 && one != -ENODEV)
			ret = one;
	}
	return n->state == NET_UP ? ret : -ECONNRESET;
}
