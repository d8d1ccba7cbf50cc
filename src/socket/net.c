/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network half of the socket layer: see net.h. This file: the conversation with viaductd, and the way to an
 * address.
 *
 * Each stack that this process has made speaks with viaductd over a connection of its own; one lock for all, because
 * requests are rare. When viaductd goes, everything goes on: rings, program and filters are the kernel's as long as we
 * hold their descriptors. The helper hears of it, and brings the stack to the next viaductd (net_tick).
 */
#define _GNU_SOURCE
#include "socket/net.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/bytes.h"
#include "engine/hash.h"
#include "host/host.h"
#include "host/knobs.h"
#include "socket/helper.h"
#include "socket/kick.h"
#include "socket/net_chardev.h"
#include "socket/net_internal.h"
#include "socket/raw.h"
#include "socket/wait.h"

#define RETRY_US 1000000u
#define HANGS_US 10000000u    /* the same for one that took the connection and did not answer */
#define HELPER_MS 250         /* the helper has other things to do than to wait for such a one */
#define LOOK_AGAIN_US 100000u /* for a viaductd that takes the place of one that is gone, then twice as long, ... */
#define KICK_AGAIN_US 10000u
#define LOOK_LAST_US 5000000u /* ... until it is this long: one that is started waits for us for 20 s */
#define DOUBTS_US 1000000u    /* after DAEMON_NAMED: frames of a filter that went may still come */
#define RESOLVE_US 100000u    /* how long a connect waits for a neighbour before it leaves the rest to retransmission */
#define RESOLVE_STEP_US 200u
#define NEED_SEALS (F_SEAL_SHRINK)

pthread_mutex_t net_lock = PTHREAD_MUTEX_INITIALIZER;
static struct net nets[VS_STACKS_MAX];

struct net *net_of(const struct attached *a)
{
	return &nets[a->index];
}

/* --- the connection --- */

/* With the lock, which who only wants to know whether there is anything to do does not take. */
static void set_state(struct net *n, enum net_state state)
{
	__atomic_store_n(&n->state, state, __ATOMIC_RELAXED);
}

static enum net_state glance(const struct net *n)
{
	return __atomic_load_n(&n->state, __ATOMIC_RELAXED);
}

static void close_connection(struct net *n)
{
	helper_forget_fd(n->fd);
	host_fd_close(n->fd);
	n->fd = -1;
	if (n->news_fd) {
		helper_forget_fd(n->news_fd - 1);
		host_fd_close(n->news_fd - 1);
	}
	n->news_fd = 0;
}

static void hang_up(struct net *n)
{
	close_connection(n);
	n->came_again = false;
	set_state(n, NET_LOST);
}

static void lose(struct net *n)
{
	hang_up(n);
	n->retry_us = 0;
	n->look_us = LOOK_AGAIN_US;
}

int net_ask(struct net *n, const struct viaductd_request *r, struct viaductd_reply *reply)
{
	bool slow = r->type == DAEMON_OPEN || r->type == DAEMON_BIND;
	int ret = viaductd_ask(n->fd, r, slow ? NET_OPEN_MS : NET_TIMEOUT_MS, reply);

	if (ret < 0 && !reply->refused)
		lose(n);
	return ret;
}

static enum reason reason_of_start(int err)
{
	switch (-err) {
	case ENOENT:
		return REASON_NO_DAEMON;
	case EPROTO:
		return REASON_DAEMON_VERSION;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return REASON_NO_STACK;
	default:
		return REASON_NOT_ALLOWED;
	}
}

static int map_view(struct net *n, int memfd)
{
	struct stat st;
	void *mem;
	int seals = host_sys.fcntl(memfd, F_GET_SEALS), ret;

	/* nobody can make it shorter than what we map */
	if (seals < 0 || (seals & NEED_SEALS) != NEED_SEALS || fstat(memfd, &st) < 0)
		return -EPROTO;
	if (st.st_size < (off_t)sizeof(struct netview))
		return -EPROTO;
	mem = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, memfd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	ret = netview_check(mem, (size_t)st.st_size);
	if (ret < 0) {
		munmap(mem, (size_t)st.st_size);
		return ret;
	}
	n->view = mem;
	n->view_len = (size_t)st.st_size;
	return 0;
}

/* The stack follows a new view: versions of the old one say nothing of it. */
static void use_view(struct attached *a, struct net *n)
{
	stack_enter(a);
	a->e.view = n->view;
	route_forget(&a->e);
	stack_leave(a);
}

/* An eventfd, if viaductd gave one. Without it nothing is lost but news. */
static void take_news(struct net *n, struct viaductd_reply *reply)
{
	int high = reply->fd_count == 2 ? host_fd_high(reply->fds[1]) : -1;

	if (high < 0)
		return;
	reply->fd_count = 1; /* it has moved */
	vs_publish_fd(high, FD_OWN, VS_NONE, REASON_NONE);
	n->news_fd = high + 1;
}

static int hello(struct attached *a, struct net *n, int timeout_ms)
{
	struct daemon_hello body = {.stack_version = STACK_VERSION, .flags = DAEMON_HELLO_NEWS};
	struct viaductd_reply reply;
	const struct netview *old = n->view;
	size_t old_len = n->view_len;
	int pidfd = (int)raw_call(SYS_pidfd_open, getpid(), 0, 0, 0, 0, 0), ret;

	if (pidfd < 0)
		return pidfd;
	ret = viaductd_ask(n->fd,
			   &(struct viaductd_request){.type = DAEMON_HELLO,
						      .body = &body,
						      .len = sizeof(body),
						      .fds = (int[]){a->memfd, pidfd},
						      .fd_count = 2},
			   timeout_ms, &reply);
	host_sys.close(pidfd);
	if (ret < 0)
		return ret;
	n->joins = ((const struct daemon_welcome *)(const void *)reply.body)->flags & DAEMON_WELCOME_JOINS;
	ret = reply.fd_count >= 1 ? map_view(n, reply.fds[0]) : -EPROTO;
	if (ret == 0)
		take_news(n, &reply);
	viaductd_reply_drop(&reply);
	if (ret < 0)
		return ret;
	use_view(a, n);
	if (old)
		munmap((void *)(uintptr_t)old, old_len);
	return 0;
}

static int open_connection(struct attached *a, struct net *n, int timeout_ms)
{
	int fd = viaductd_connect(), high, ret;

	if (fd < 0)
		return fd;
	high = host_fd_high(fd);
	if (high < 0) {
		host_sys.close(fd);
		return high;
	}
	n->fd = high;
	vs_publish_fd(high, FD_OWN, VS_NONE, REASON_NONE);
	ret = hello(a, n, timeout_ms);
	if (ret < 0) {
		close_connection(n);
		return ret;
	}
	set_state(n, NET_UP);
	helper_watch_daemon(a, n->fd);
	if (n->news_fd)
		helper_watch_news(a, n->news_fd - 1);
	return 0;
}

int net_start_locked(struct attached *a, enum reason *reason)
{
	struct net *n = net_of(a);
	uint64_t now;
	int ret;

	*reason = REASON_NETWORK_OFF;
	if (knob[K_NETWORK] == NETWORK_OFF)
		return -EPERM;
	if (n->state == NET_UP)
		return 0;
	*reason = n->state == NET_FOREIGN ? REASON_FOREIGN_STACK : n->state == NET_LOST ? REASON_NO_DAEMON : n->why;
	now = clock_us();
	if (n->state == NET_FOREIGN || n->state == NET_LOST || (n->state != NET_NEW && now < n->retry_us))
		return -ENOENT;
	ret = helper_start();
	if (ret == 0)
		ret = open_connection(a, n, NET_TIMEOUT_MS);
	if (ret == 0 && n->inherited)
		net_filters_inherit(a);
	if (ret == 0)
		return 0;
	if (n->state == NET_NEW)
		set_state(n, NET_OFF);
	n->why = *reason = reason_of_start(ret);
	n->retry_us = now + (ret == -ETIMEDOUT ? HANGS_US : RETRY_US);
	return ret;
}

int net_start(struct attached *a, enum reason *reason)
{
	int ret;

	quiet_lock(&net_lock);
	ret = net_start_locked(a, reason);
	quiet_unlock(&net_lock);
	return ret;
}

/* --- vNICs --- */

static struct net_if *find_if(struct net *n, uint32_t ifindex)
{
	for (uint32_t i = 0; i < NET_IFS; i++)
		if (n->ifs[i].ifindex == ifindex)
			return &n->ifs[i];
	return NULL;
}

static bool if_alive(struct attached *a, const struct net_if *at)
{
	bool yes;

	stack_enter(a);
	yes = a->e.vnic[at->vnic[0]].ops && a->e.vnic[at->vnic[0]].gen == at->gen[0] &&
	      !stack_vnic(a->s, at->vnic[0])->dead;
	stack_leave(a);
	return yes;
}

int net_vnic_locked(struct attached *a, uint32_t ifindex, enum reason *reason)
{
	struct net *n = net_of(a);
	struct net_if *at = ifindex ? find_if(n, ifindex) : NULL;
	int ret;

	if (at && if_alive(a, at))
		return at->vnic[0];
	ret = net_start_locked(a, reason);
	if (ret < 0)
		return ret;
	*reason = REASON_NO_VNICS;
	at = at ? at : find_if(n, 0);
	if (!at || !ifindex)
		return -ENOBUFS;
	/* processes that make sockets in one stack have all its vNICs: none can be made that the other has not mapped
	 */
	*reason = REASON_FOREIGN_STACK;
	if (__atomic_load_n(&a->s->procs, __ATOMIC_RELAXED) > 1 && (n->inherited || a->s->lodger))
		return -ENOENT;
	ret = net_attach(a, at, ifindex);
	if (ret == 0)
		return at->vnic[0];
	*reason = ret == -EPERM || ret == -EACCES ? REASON_NOT_ALLOWED : REASON_NO_INTERFACE;
	return ret;
}

int net_vnic(struct attached *a, uint32_t ifindex, enum reason *reason)
{
	int ret;

	quiet_lock(&net_lock);
	ret = net_vnic_locked(a, ifindex, reason);
	quiet_unlock(&net_lock);
	return ret;
}

/* Each interface on which something may come for a socket bound to local. How many there are, or -errno. */
static int open_interfaces(struct attached *a, const struct endpoint *local, enum reason *reason)
{
	const struct netview *view = net_of(a)->view;
	const struct netview_copy *c = &view->copy[__atomic_load_n(&view->version, __ATOMIC_ACQUIRE) & 1];
	uint32_t only = 0, ifaces = c->ifaces < NETVIEW_IFACES ? c->ifaces : NETVIEW_IFACES;
	int n = 0, ret = 0;

	if (!is_any(local->addr)) {
		for (uint32_t i = 0; i < c->addrs && i < NETVIEW_ADDRS; i++)
			if (!memcmp(c->addr[i].addr, local->addr, 16))
				only = c->addr[i].ifindex;
		if (!only)
			ifaces = 0;
	}
	*reason = REASON_NO_INTERFACE;
	for (uint32_t i = 0; i < ifaces; i++) {
		const struct netview_iface *f = &c->iface[i];
		uint32_t flags = f->flags;

		if (!(flags & NETVIEW_IF_ALLOWED) || flags & NETVIEW_IF_LOOPBACK || !(flags & NETVIEW_IF_UP) ||
		    (only && f->ifindex != only))
			continue;
		ret = net_vnic_locked(a, f->ifindex, reason);
		n += ret >= 0;
	}
	return n ? n : ret < 0 ? ret : -ENODEV;
}

int net_open_for(struct attached *a, const struct endpoint *local, enum reason *reason)
{
	int ret;

	quiet_lock(&net_lock);
	ret = net_start_locked(a, reason);
	if (ret == 0)
		ret = open_interfaces(a, local, reason);
	quiet_unlock(&net_lock);
	return ret;
}

void net_moved(struct attached *a)
{
	struct endpoint local;
	enum reason reason;

	quiet_lock(&net_lock);
	for (uint32_t i = 0; net_of(a)->state == NET_UP && net_filter_bound(a, i, &local); i++)
		(void)open_interfaces(a, &local, &reason);
	quiet_unlock(&net_lock);
}

/* --- the way to an address --- */

static void resolve_locked(struct attached *a, const struct route *r)
{
	struct daemon_resolve body = {.ifindex = r->ifindex};
	struct net *n = net_of(a);
	struct viaductd_reply reply;

	memcpy(body.addr, r->via, sizeof(body.addr));
	if (n->state == NET_UP &&
	    net_ask(n, &(struct viaductd_request){.type = DAEMON_RESOLVE, .body = &body, .len = sizeof(body)},
		    &reply) == 0)
		viaductd_reply_drop(&reply);
}

/* Look the route up, in the hands of viaductd until the next hop has a link address, or time is up. */
static int find_route(struct attached *a, const struct endpoint *remote, const struct endpoint *local, uint32_t ifindex,
		      struct route *r, uint32_t *version)
{
	static const uint8_t any[16];
	const struct netview *view = net_of(a)->view;
	uint32_t hash = (uint32_t)(endpoint_hash(a->s->hash_key, remote->addr, remote->port) >> 32); /* as route_sock */
	uint64_t until = 0;

	for (;;) {
		int ret;

		*version = __atomic_load_n(&view->version, __ATOMIC_ACQUIRE);
		ret = route_lookup(view, remote->addr, is_any(local->addr) ? any : local->addr, ifindex, hash, r);
		if (ret < 0 || r->resolved)
			return ret;
		if (!until) {
			resolve_locked(a, r);
			until = clock_us() + RESOLVE_US;
		} else if (clock_us() >= until) {
			*version = 0;
			return 0;
		}
		host_sys.poll(NULL, 0, 1);
	}
}

static int net_to_locked(struct attached *a, const struct endpoint *remote, struct endpoint *local, struct dst *dst,
			 enum reason *reason)
{
	struct route r = {0};
	uint32_t version;
	int ret = net_start_locked(a, reason);

	/* what was set up before goes on without viaductd, and so does a stack's maker's in its children */
	if (ret < 0 && !net_of(a)->view)
		return ret;
	ret = find_route(a, remote, local, dst->ifindex, &r, &version);
	if (ret < 0) {
		*reason = REASON_ROUTE;
		return ret;
	}
	ret = net_vnic_locked(a, r.ifindex, reason);
	if (ret < 0)
		return ret;
	if (is_any(local->addr))
		memcpy(local->addr, r.from, sizeof(local->addr));
	dst->version = version;
	dst->hop = (uint32_t)endpoint_hash(a->s->hash_key, r.via, r.ifindex); /* as route_sock */
	dst->mtu = r.mtu;
	memcpy(dst->mac, r.mac, sizeof(dst->mac));
	return ret;
}

int net_to(struct attached *a, const struct endpoint *remote, struct endpoint *local, struct dst *dst,
	   enum reason *reason)
{
	int ret;

	quiet_lock(&net_lock);
	ret = net_to_locked(a, remote, local, dst, reason);
	quiet_unlock(&net_lock);
	return ret;
}

/* --- the helper's part --- */

void net_daemon_gone(struct attached *a)
{
	struct net *n = net_of(a);

	quiet_lock(&net_lock);
	if (n->state == NET_UP)
		lose(n);
	quiet_unlock(&net_lock);
}

/* No process but this one has filters for the stack, and viaductd knows them all. What was steered here by others
 * before they went may be on its way yet. */
static void end_doubts(struct attached *a, struct net *n)
{
	struct viaductd_reply reply;

	if (!__atomic_load_n(&a->s->unsure_next, __ATOMIC_RELAXED) ||
	    net_ask(n, &(struct viaductd_request){.type = DAEMON_NAMED}, &reply) < 0)
		return;
	viaductd_reply_drop(&reply);
	n->doubts_end_us = clock_us() + DOUBTS_US;
}

/* When to come again, in us; 0: need not. */
static uint64_t forget_doubts(struct attached *a, struct net *n, uint64_t now)
{
	if (!n->doubts_end_us)
		return 0;
	if (now < n->doubts_end_us)
		return n->doubts_end_us - now;
	n->doubts_end_us = 0;
	stack_enter(a);
	memset(a->s->unsure_port, 0, sizeof(a->s->unsure_port));
	a->s->unsure_next = 0;
	stack_leave(a);
	return 0;
}

/* Another viaductd may be there by now. */
static void look_for_daemon(struct attached *a, struct net *n, uint64_t now)
{
	int ret = open_connection(a, n, HELPER_MS);

	/* one that does not answer in time may just have begun */
	n->retry_us = now + n->look_us;
	if (n->look_us < (ret == -ETIMEDOUT ? HANGS_US : LOOK_LAST_US))
		n->look_us *= 2;
	if (ret < 0)
		return;
	ret = net_resume(a, n);
	/* rings that it did not take are shown again: in 20 s it forgets whose they are, and the kernel answers our
	 * frames */
	if (ret < 0 && n->state == NET_UP)
		hang_up(n);
	else if (ret == 0 && net_filters_resume(a) && !n->inherited &&
		 __atomic_load_n(&a->s->procs, __ATOMIC_RELAXED) == 1)
		n->came_again = true;
	if (n->inherited)
		net_filters_inherit(a);
}

bool net_came_again(const struct attached *a)
{
	return __atomic_load_n(&net_of(a)->came_again, __ATOMIC_RELAXED);
}

void net_named(struct attached *a)
{
	struct net *n = net_of(a);

	quiet_lock(&net_lock);
	if (n->came_again && n->state == NET_UP)
		end_doubts(a, n);
	n->came_again = false;
	quiet_unlock(&net_lock);
}

/* Neighbours that the engine wants resolved or confirmed. */
static void ask_for_neighbours(struct attached *a)
{
	enum reason reason;
	struct neigh_want want;
	bool more;

	while (__atomic_load_n(&a->s->neigh_pending, __ATOMIC_RELAXED)) {
		struct route r = {0};

		stack_enter(a);
		more = route_wanted(&a->e, &want);
		stack_leave(a);
		if (!more)
			break;
		r.ifindex = want.ifindex;
		memcpy(r.via, want.addr, sizeof(r.via));
		quiet_lock(&net_lock);
		if (is_any(want.addr)) /* a vNIC there is wanted: a route has moved */
			net_vnic_locked(a, want.ifindex, &reason);
		else
			resolve_locked(a, &r);
		quiet_unlock(&net_lock);
	}
}

uint64_t net_tick(void)
{
	uint64_t now = clock_us(), next = net_filters_sweep(now), flows = net_flows_sweep(now), doubts;

	if (flows && (!next || flows < next))
		next = flows;

	for (uint32_t i = 0; i < atomic_load(&attached_count); i++) {
		struct net *n = &nets[i];

		/* Frames that the kernel would not send when they were posted (the interface was down, its queue or the
		 * socket's memory full) lie in their ring, where nobody posts behind them: TCP waits for their buffers.
		 */
		bool left = glance(n) != NET_NEW && glance(n) != NET_OFF && kick_stack(attached[i]);

		if (left && (!next || KICK_AGAIN_US < next))
			next = KICK_AGAIN_US;
		if (glance(n) == NET_UP)
			ask_for_neighbours(attached[i]);
		if (glance(n) != NET_LOST && !__atomic_load_n(&n->doubts_end_us, __ATOMIC_RELAXED))
			continue;
		quiet_lock(&net_lock);
		if (n->state == NET_LOST && now >= n->retry_us)
			look_for_daemon(attached[i], n, now);
		if (n->state == NET_LOST && (!next || n->retry_us - now < next))
			next = n->retry_us > now ? n->retry_us - now : LOOK_AGAIN_US;
		doubts = forget_doubts(attached[i], n, now);
		if (doubts && (!next || doubts < next))
			next = doubts;
		quiet_unlock(&net_lock);
	}
	return next;
}

bool net_finishes(const struct attached *a)
{
	enum net_state state = glance(net_of(a));
	bool mixed;

	return (state == NET_UP || state == NET_INHERITED) && !net_chardev_used(net_of(a), &mixed);
}

bool net_involved(const struct attached *a)
{
	enum net_state state = glance(net_of(a));

	return state == NET_UP || state == NET_LOST || state == NET_INHERITED;
}

/* --- fork --- */

void net_tell_process(struct net *n, int pid)
{
	struct viaductd_reply reply;
	int pidfd = (int)raw_call(SYS_pidfd_open, pid, 0, 0, 0, 0, 0);

	if (pidfd < 0)
		return;
	if (n->state == NET_UP &&
	    net_ask(n, &(struct viaductd_request){.type = DAEMON_PROCESS, .fds = &pidfd, .fd_count = 1}, &reply) == 0)
		viaductd_reply_drop(&reply);
	host_sys.close(pidfd);
}

/* The same where we have no conversation with it: one HELLO is one. */
static void tell_in_passing(const struct attached *a, int pid)
{
	struct daemon_hello body = {.stack_version = STACK_VERSION};
	int pidfd = (int)raw_call(SYS_pidfd_open, pid, 0, 0, 0, 0, 0), fd = pidfd < 0 ? pidfd : viaductd_connect();
	struct viaductd_reply reply;

	if (fd >= 0 && viaductd_ask(fd,
				    &(struct viaductd_request){.type = DAEMON_HELLO,
							       .body = &body,
							       .len = sizeof(body),
							       .fds = (int[]){a->memfd, pidfd},
							       .fd_count = 2},
				    NET_TIMEOUT_MS, &reply) == 0)
		viaductd_reply_drop(&reply);
	if (fd >= 0)
		host_sys.close(fd);
	if (pidfd >= 0)
		host_sys.close(pidfd);
}

void net_fork_parent(int child_pid)
{
	if (child_pid <= 0)
		return;
	quiet_lock(&net_lock);
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		if (nets[i].state == NET_UP)
			net_tell_process(&nets[i], child_pid);
		else if (nets[i].state == NET_INHERITED)
			tell_in_passing(attached[i], child_pid);
	quiet_unlock(&net_lock);
}

bool net_lends(const struct attached *a)
{
	const struct net *n = net_of(a);
	bool direct = false;

	quiet_lock(&net_lock);
	for (uint32_t i = 0; i < NET_IFS && n->state == NET_INHERITED; i++)
		direct |= n->ifs[i].ifindex && n->ifs[i].about.mode == DAEMON_MODE_DIRECT;
	quiet_unlock(&net_lock);
	return direct;
}

void net_relative_gone(struct attached *a)
{
	struct net *n = net_of(a);
	enum reason reason;

	if (glance(n) != NET_UP && glance(n) != NET_INHERITED)
		return;
	quiet_lock(&net_lock);
	net_flows_relative_gone(a);
	wait_wake_all(); /* who left the rings to it (wait.c) looks again */
	if (n->state == NET_UP)
		net_filters_inherit(a);
	else if (__atomic_load_n(&a->s->procs, __ATOMIC_RELAXED) == 1) /* else one of those who speak with it does */
		(void)net_start_locked(a, &reason);
	quiet_unlock(&net_lock);
}

void net_after_fork(void)
{
	pthread_mutex_init(&net_lock, NULL);
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++) {
		struct net *n = &nets[i];
		bool known = n->state == NET_UP || n->state == NET_LOST || n->state == NET_INHERITED;

		if (n->state == NET_UP) { /* the helper's descriptor that watches them is the parent's, too */
			host_fd_close(n->fd);
			if (n->news_fd)
				host_fd_close(n->news_fd - 1);
		}
		n->fd = -1;
		n->news_fd = 0;
		n->inherited = true;
		n->retry_us = n->doubts_end_us = 0;
		n->why = REASON_NO_DAEMON;
		set_state(n, known && n->joins ? NET_INHERITED : NET_FOREIGN);
	}
	net_filters_after_fork();
	net_flows_after_fork();
}
