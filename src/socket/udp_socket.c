/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP sockets. Each has two halves: the engine's, for peers that are reached over a wire or a network, and the kernel's
 * (the backing socket), for all others. Both have the same address, so a datagram finds the program whichever way it
 * comes. The kernel's half also has what must go through it on a network: fragments, groups, broadcasts, datagrams
 * whose next hop is not resolved.
 *
 * Sending: the engine knows a route (udp_route_lookup), or the destination is of this machine and rendezvous finds
 * somebody; else the kernel sends. That nobody was found is remembered for NOBODY_US.
 * Receiving: udp_recv.c.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "engine/bytes.h"
#include "socket/cmsg.h"
#include "socket/net.h"
#include "socket/sockets.h"
#include "socket/udp_group.h"

#define NOBODY_US 100000u
#define NOBODY_SLOTS 256u
#define QUIET_US 1000u /* a wire's other end that was alive so long ago may be gone, and another have its port */

/* --- who is not reached over a wire --- */

static struct {
	struct endpoint ep;
	uint32_t until_ms;
} nobody[NOBODY_SLOTS];
static pthread_mutex_t nobody_lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t slot_of(const struct endpoint *ep)
{
	uint32_t h = ep->port;

	for (int i = 0; i < 16; i++)
		h = h * 31 + ep->addr[i];
	return (h ^ h >> 16) % NOBODY_SLOTS;
}

static bool is_nobody(const struct endpoint *ep, uint64_t now_us)
{
	uint32_t i = slot_of(ep);
	bool yes;

	quiet_lock(&nobody_lock);
	yes = nobody[i].ep.port == ep->port && !memcmp(nobody[i].ep.addr, ep->addr, 16) &&
	      (int32_t)(nobody[i].until_ms - (uint32_t)(now_us / 1000)) > 0;
	quiet_unlock(&nobody_lock);
	return yes;
}

static void set_nobody(const struct endpoint *ep, uint64_t now_us)
{
	uint32_t i = slot_of(ep);

	quiet_lock(&nobody_lock);
	nobody[i].ep = *ep;
	nobody[i].until_ms = (uint32_t)((now_us + NOBODY_US) / 1000);
	quiet_unlock(&nobody_lock);
}

void udp_forget(void)
{
	pthread_mutex_init(&nobody_lock, NULL);
}

/* --- addresses --- */

/* Make the engine's half answer to *local, and to nobody but *remote if that is given. */
static int set_names(vsock_t v, const struct endpoint *local, const struct endpoint *remote)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	if (k->flags & SOCKF_HASHED)
		sock_unhash(a->s, k);
	k->local = *local;
	if (remote)
		k->remote = *remote;
	else
		memset(&k->remote, 0, sizeof(k->remote));
	if (k->local.port)
		sock_hash(a->s, k);
	stack_leave(a);
	return 0;
}

/* --- networks --- */

/* What the socket layer must know of a socket to have its datagrams steered. */
struct steering {
	struct endpoint local, remote;
	uint32_t flags, device;
	int family;
};

static bool look_at_steering(vsock_t v, struct steering *out)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return false;
	*out = (struct steering){
	    .local = k->local, .remote = k->remote, .flags = k->flags, .device = k->dst.ifindex, .family = k->family};
	stack_leave(a);
	return true;
}

static bool shared_in_kernel(uint16_t port)
{
	uint64_t inodes[2];

	return diag_port_inodes(SOCK_UDP, port, inodes, 2) > 1;
}

/* Have what comes over networks for the socket come to its stack: from its peer, if it has one, else from all. Where
 * that can't be, it comes through the kernel. */
static void steer(vsock_t v, int fd)
{
	struct attached *a = vs_attached(v);
	const struct endpoint *peer;
	enum reason reason;
	struct steering s;
	uint16_t flags = 0;
	struct sock *k;

	if (!look_at_steering(v, &s) || s.flags & (SOCKF_STEERED | SOCKF_KERNEL_ROUTE) || !s.local.port || s.device)
		return;
	peer = s.remote.port ? &s.remote : NULL;
	if (peer && addr_is_local(peer->addr))
		return;
	/* bound to a group's address, or one for broadcasts */
	if (udp_is_group(s.local.addr) || (is_v4(s.local.addr) && !addr_is_local(s.local.addr)))
		return;
	if (s.flags & SOCKF_REUSEPORT && !peer)
		flags |= DAEMON_FILTER_SHARED;
	else if (s.flags & SOCKF_REUSEADDR && !peer && shared_in_kernel(s.local.port))
		return; /* which of them gets a datagram is the kernel's to say */
	if (s.family == 6 && is_any(s.local.addr) && !(s.flags & SOCKF_V6ONLY))
		flags |= DAEMON_FILTER_BOTH;
	if (net_open_for(a, &s.local, &reason) < 0 ||
	    net_filter(a, SOCK_UDP, s.family, fd, &s.local, peer, flags, &reason) < 0)
		return;
	k = vs_enter(v, &a);
	if (!k)
		return;
	k->flags |= SOCKF_STEERED;
	stack_leave(a);
}

void udp_leave_to_kernel(vsock_t v)
{
	struct attached *a = vs_attached(v);
	struct steering s;
	struct sock *k;

	rendezvous_close(v);
	udp_group_closed(a, v);
	if (!look_at_steering(v, &s) || !(s.flags & SOCKF_STEERED))
		return;
	k = vs_enter(v, &a);
	if (!k)
		return;
	k->flags &= ~SOCKF_STEERED;
	stack_leave(a);
	net_unsteer(a, SOCK_UDP, s.family, &s.local, &s.remote);
}

int udp_bind(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct attached *a = vs_attached(v);
	struct endpoint local;
	struct sock *k;
	bool v6only, kernels, elsewhere;
	int family, ret;

	if (host_sys.bind(fd, sa, len) < 0)
		return -errno;
	ret = sock_kernel_name(fd, &local);
	if (ret == 0)
		ret = set_names(v, &local, NULL);
	k = ret == 0 ? vs_enter(v, &a) : NULL;
	if (!k)
		return ret;
	family = k->family;
	sock_v6only(k);
	v6only = k->flags & SOCKF_V6ONLY;
	kernels = k->flags & SOCKF_KERNEL_ROUTE;
	elsewhere = k->dst.ifindex > LOOPBACK_IFINDEX;
	stack_leave(a);
	if (kernels)
		return 0;
	/* If somebody else answers for this address (SO_REUSEPORT), datagrams come through the kernel. */
	if (!udp_is_group(local.addr) && !elsewhere)
		(void)rendezvous_open(v, SOCK_UDP, family, &local, v6only);
	steer(v, fd);
	udp_group_bound(v, fd);
	return 0;
}

static int bind_any(vsock_t v, int fd, int family)
{
	struct sockaddr_storage ss = {.ss_family = family == 6 ? AF_INET6 : AF_INET};
	struct endpoint local;
	int ret;

	if (host_sys.bind(fd, (struct sockaddr *)&ss,
			  family == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) < 0)
		return -errno;
	ret = sock_kernel_name(fd, &local);
	return ret < 0 ? ret : set_names(v, &local, NULL);
}

/* Bound already, or to a port that the kernel chooses. */
static int bind_once(vsock_t v, int fd)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	uint16_t port;
	int family;

	if (!k)
		return -EBADF;
	port = k->local.port;
	family = k->family;
	stack_leave(a);
	return port ? 0 : bind_any(v, fd, family);
}

/* It has another name now: what was asked for may not fit. */
static void forget_steering(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return;
	k->flags &= ~SOCKF_STEERED;
	stack_leave(a);
}

int udp_connect(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct endpoint local, remote;
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);
	int family, ret;

	if (host_sys.connect(fd, sa, len) < 0)
		return -errno;
	ret = sock_kernel_name(fd, &local);
	if (ret < 0)
		return ret;
	forget_steering(v);
	if (sa->sa_family == AF_UNSPEC) {
		ret = set_names(v, &local, NULL);
		steer(v, fd);
		return ret;
	}
	if (host_sys.getpeername(fd, (struct sockaddr *)&ss, &n) < 0)
		return errno == ENOTCONN ? set_names(v, &local, NULL)
					 : -errno; /* to port 0: the kernel alone knows that peer */
	ret = addr_from_sockaddr((struct sockaddr *)&ss, n, &remote, &family);
	if (ret == 0)
		ret = set_names(v, &local, &remote);
	if (ret == 0)
		steer(v, fd);
	return ret;
}

static bool v4_loopback(const uint8_t addr[16])
{
	return is_v4(addr) && addr[12] == 127;
}

/* The destination as connect(2) and sendto(2) see it: "any" is this machine, by the IP version of the socket's own
 * address. */
static void normalize(struct endpoint *ep, const struct endpoint *local)
{
	if (!is_any(ep->addr))
		return;
	if (is_v4(ep->addr) || is_v4(local->addr)) {
		map_v4(ep->addr, "\x7f\0\0\1");
	} else {
		memset(ep->addr, 0, 16);
		ep->addr[15] = 1;
	}
}

/* --- sending --- */

/* The way over a network as the engine will go it. With the lock. */
static int way_of(struct attached *a, const struct sock *k, const uint8_t to[16], uint32_t *vnic, struct route *r)
{
	const uint8_t *from = k->local.addr;
	uint32_t ifindex = udp_is_group(to) ? udp_group_by(k, to, &from) : k->dst.ifindex;

	return udp_loops(&k->udp, to) ? -ENOENT : route_to(&a->e, to, from, ifindex, vnic, r);
}

/* Members here must hear it, too. */
static bool kernel_loops(vsock_t v, const uint8_t to[16])
{
	struct attached *a;
	struct sock *k = udp_is_group(to) ? vs_enter(v, &a) : NULL;
	bool yes;

	if (!k)
		return false;
	yes = udp_loops(&k->udp, to);
	stack_leave(a);
	return yes;
}

struct sending {
	vsock_t v;
	const struct iovec *iov;
	int iovcnt;
	struct endpoint to;
	uint32_t vnic;
	ssize_t result;
	struct udp_how how;
	const uint8_t *from; /* that the program names; NULL: the socket's */
};

/* The vNIC of the network that leads to a destination, which the socket is set up for at its first datagram; VNIC_NONE:
 * the kernel sends, and has the neighbour resolved where that is what is missing. */
static uint32_t find_network(vsock_t v, int fd, const struct endpoint *to, uint64_t now)
{
	struct attached *a = vs_attached(v);
	uint32_t vnic = VNIC_NONE;
	enum reason reason;
	struct sock *k;
	struct route r;
	int ret;

	if (is_nobody(to, now) || kernel_loops(v, to->addr))
		return VNIC_NONE;
	if (net_start(a, &reason) < 0) {
		set_nobody(to, now);
		return VNIC_NONE;
	}
	if (bind_once(v, fd) < 0)
		return VNIC_NONE;
	steer(v, fd);
	k = vs_enter(v, &a);
	if (!k)
		return VNIC_NONE;
	ret = k->flags & SOCKF_STEERED ? way_of(a, k, to->addr, &vnic, &r) : -ENOENT;
	stack_leave(a);
	if (ret == -ENODEV && net_vnic(a, r.ifindex, &reason) >= 0)
		return (uint32_t)route_vnic(&a->e, r.ifindex);
	if (ret < 0 && ret != -EAGAIN && !udp_is_group(to->addr)) /* of a group, it depends on the socket */
		set_nobody(to, now);
	return ret == 0 ? vnic : VNIC_NONE;
}

/* The vNIC to a destination on this machine, or VNIC_NONE: the kernel sends. Without locks. */
static uint32_t find_way(struct attached *a, int family, const struct endpoint *to)
{
	uint64_t now = clock_us();
	enum reason reason;
	bool fresh;
	int vnic;

	if (is_nobody(to, now) || helper_start() < 0)
		return VNIC_NONE;
	vnic = wire_to(a, SOCK_UDP, family, to, &fresh, &reason);
	if (vnic < 0) {
		set_nobody(to, now);
		return VNIC_NONE;
	}
	stack_enter(a);
	udp_route_learn(&a->e, to, (uint32_t)vnic);
	stack_leave(a);
	return (uint32_t)vnic;
}

static uint32_t find_vnic(vsock_t v, int fd, int family, const struct endpoint *to)
{
	if (rules_refuse(SOCK_UDP, RULE_CLIENT, to))
		return VNIC_NONE;
	if (addr_is_local(to->addr))
		return find_way(vs_attached(v), family, to);
	return find_network(v, fd, to, clock_us());
}

static bool send_step(void *arg)
{
	struct sending *c = arg;
	struct attached *a;
	struct sock *k = vs_enter(c->v, &a);
	struct endpoint from;
	uint64_t now;

	c->result = -EBADF;
	if (!k)
		return true;
	now = stack_now(a);
	if (stack_pending(a))
		stack_poll(a, now);
	from = k->local;
	if (c->from)
		memcpy(from.addr, c->from, sizeof(from.addr));
	if ((is_any(from.addr) || is_v4(from.addr) != is_v4(c->to.addr)) &&
	    !vnic_is_network(stack_vnic(a->s, c->vnic))) {
		memcpy(from.addr, c->to.addr, sizeof(from.addr));
		if (v4_loopback(from.addr))
			memcpy(from.addr + 12, "\x7f\0\0\1", 4);
	}
	c->result = udp_send_as(&a->e, k, c->vnic, &from, &c->to, c->iov, c->iovcnt, &c->how, now);
	stack_leave(a);
	return c->result != -EAGAIN;
}

/* What is needed of the socket before sending. 0, or -errno. */
struct sender {
	struct endpoint remote;
	int family;
	bool nonblock;
	bool elsewhere; /* the way there is a wire that this process must map first */
	bool kernels;   /* only the kernel knows how to send from this socket, or why not */
	bool itself;    /* the destination is this very socket: no engine takes that from a wire */
	uint64_t timeout_us;
	int error;
	uint32_t vnic;
	int life_fd; /* hangs up when the other end's process has ended; -1: no need to look */
	uint32_t gen;
};

/* The other end's process may have ended and our helper not know it yet: every QUIET_US we look ourselves, or what is
 * sent to whoever has the port now would be lost. With the lock. */
static void want_life(struct attached *a, struct sender *out)
{
	struct vnic *wire = &a->e.vnic[out->vnic % VNIC_MAX];
	uint64_t now = stack_now(a);

	out->life_fd = -1;
	if (out->vnic == VNIC_NONE || out->elsewhere || now - wire->alive_us < QUIET_US)
		return;
	out->life_fd = wire->life_fd;
	out->gen = wire->gen;
	wire->alive_us = now;
}

static bool has_ended(struct attached *a, const struct sender *s)
{
	struct pollfd p = {.fd = s->life_fd, .events = POLLRDHUP};

	if (s->life_fd < 0 || host_sys.poll(&p, 1, 0) <= 0)
		return false;
	wire_gone(a, s->vnic, s->gen);
	return true;
}

/* An IPv6 socket whose address is of the one IP version can send to the other: the kernel knows when, and from where if
 * not from the loopback. */
static bool other_version(const struct sock *k, const struct endpoint *to)
{
	if (k->family != 6 || is_v4(to->addr) == is_v4(k->local.addr))
		return false;
	return !is_v4(to->addr) || k->flags & SOCKF_V6ONLY || (!is_any(k->local.addr) && !v4_loopback(to->addr));
}

static int look_at_sender(vsock_t v, const struct endpoint *to, struct sender *out)
{
	struct route r;
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	stack_take_in(a); /* perhaps the last one was refused: then there is another way */
	out->remote = to ? *to : k->remote;
	normalize(&out->remote, &k->local);
	out->family = k->family;
	out->nonblock = k->flags & SOCKF_NONBLOCK;
	out->kernels = k->flags & (SOCKF_KERNEL_ROUTE | SOCKF_SHUT_WR) || other_version(k, &out->remote);
	out->itself = k->local.port == out->remote.port &&
		      (is_any(k->local.addr) || !memcmp(k->local.addr, out->remote.addr, sizeof(k->local.addr)));
	out->timeout_us = k->sndtimeo_us;
	out->error = k->so_error;
	k->so_error = 0;
	out->vnic = out->remote.port ? udp_route_lookup(&a->e, &out->remote) : VNIC_NONE;
	out->elsewhere = vnic_elsewhere(&a->e, out->vnic, out->vnic < VNIC_MAX ? stack_vnic(a->s, out->vnic)->gen : 0);
	want_life(a, out);
	if (out->vnic == VNIC_NONE && k->flags & SOCKF_STEERED && way_of(a, k, out->remote.addr, &out->vnic, &r) < 0)
		out->vnic = VNIC_NONE;
	stack_leave(a);
	return -out->error;
}

static ssize_t kernel_send(int fd, const struct iovec *iov, int iovcnt, int flags, const struct sockaddr *to,
			   socklen_t tolen, const void *control, size_t controllen)
{
	struct msghdr m = {.msg_name = (void *)(uintptr_t)to,
			   .msg_namelen = tolen,
			   .msg_iov = (struct iovec *)(uintptr_t)iov,
			   .msg_iovlen = (size_t)iovcnt,
			   .msg_control = (void *)(uintptr_t)control,
			   .msg_controllen = controllen};
	ssize_t n = host_sys.sendmsg(fd, &m, flags);

	wait_half_refused |= n < 0;
	return n < 0 ? -errno : n;
}

static ssize_t wait_send(struct sending *c, const struct sender *s)
{
	struct wait w = {.ready = send_step, .arg = c, .timeout_us = -1, .kernel_fd = -1, .restart = true};
	int ret;

	if (s->timeout_us) {
		w.timeout_us = (int64_t)s->timeout_us;
		w.restart = false;
	}
	w.sock = c->v;
	ret = wait_for(&w);
	return ret < 0 ? (ret == -ETIMEDOUT ? -EAGAIN : ret) : c->result;
}

/* What its control messages ask for. False: the kernel must send it, or refuse. */
static bool take_control(struct sending *c, const struct sender *s, const void *control, size_t len,
			 struct cmsg_sending *asked)
{
	static const uint8_t zero[16];

	if ((s->family == 4) != is_v4(c->to.addr) || !cmsg_parse(control, len, s->family, asked))
		return false;
	c->how = (struct udp_how){asked->ttl, asked->tos, asked->ifindex};
	if (memcmp(asked->from, zero, sizeof(zero)) != 0) {
		if (!addr_is_local(asked->from) || v4_loopback(asked->from))
			return false;
		c->from = asked->from;
	}
	/* to this machine: whatever leads there */
	return !asked->ifindex || !addr_is_local(c->to.addr);
}

static bool over_network(const struct sending *c)
{
	return vnic_is_network(stack_vnic(vs_attached(c->v)->s, c->vnic));
}

/* What routers say of their MTU comes to the engine: the kernel's half, which cuts what is larger than the link takes,
 * must know it too. Of IPv4 they cut themselves. */
static void tell_path_mtu(const struct sending *c, int fd)
{
	struct attached *a;
	struct sock *k = vs_enter(c->v, &a);
	struct route r = {0};
	uint32_t vnic;
	int mtu;

	if (!k)
		return;
	if (k->pmtudisc <= PMTU_WANT)
		(void)way_of(a, k, c->to.addr, &vnic, &r);
	stack_leave(a);
	mtu = (int)r.path_mtu;
	if (mtu)
		(void)host_sys.setsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, sizeof(mtu));
}

ssize_t udp_transmit(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, const struct sockaddr *to,
		     socklen_t tolen, const void *control, size_t controllen, bool wait)
{
	struct sending c = {.v = v, .iov = iov, .iovcnt = iovcnt, .how = {-1, -1, 0}};
	struct cmsg_sending asked;
	struct sender s;
	int family = 0, ret;

	if ((to && addr_from_sockaddr(to, tolen, &c.to, &family) < 0) || flags & (MSG_MORE | MSG_ZEROCOPY))
		return kernel_send(fd, iov, iovcnt, flags, to, tolen, control, controllen);
	ret = look_at_sender(v, to ? &c.to : NULL, &s);
	if (ret < 0)
		return ret;
	c.to = s.remote;
	c.vnic = s.vnic;
	if (s.kernels || s.itself || (flags & MSG_OOB && is_v4(c.to.addr)) || (family == 6 && s.family == 4) ||
	    (controllen && !take_control(&c, &s, control, controllen, &asked)))
		return kernel_send(fd, iov, iovcnt, flags, to, tolen, control, controllen);
	if ((s.elsewhere && wire_map(vs_attached(v), c.vnic) < 0) || has_ended(vs_attached(v), &s))
		c.vnic = VNIC_NONE;
	if (c.vnic == VNIC_NONE && c.to.port)
		c.vnic = find_vnic(v, fd, s.family, &c.to);
	if (c.vnic == VNIC_NONE || (s.family == 4) != is_v4(c.to.addr))
		if (c.vnic == VNIC_NONE || s.family == 4)
			return kernel_send(fd, iov, iovcnt, flags, to, tolen, control, controllen);
	ret = bind_once(v, fd);
	if (ret < 0)
		return ret;
	if (!send_step(&c) && wait && !(flags & MSG_DONTWAIT) && !s.nonblock)
		return wait_send(&c, &s);
	/* A next hop that is not there yet; larger than what goes in one piece: the kernel knows what to do. */
	if (c.result == -ENOLINK && !is_v4(c.to.addr))
		tell_path_mtu(&c, fd);
	if (c.result == -ENOLINK || (c.result == -EMSGSIZE && !over_network(&c)))
		return kernel_send(fd, iov, iovcnt, flags, to, tolen, control, controllen);
	return c.result;
}
