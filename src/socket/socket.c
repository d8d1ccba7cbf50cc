/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making and ending sockets, their names, shutdown, readiness.
 *
 * A socket is held by processes (sock.holders), not by descriptors: the preload library calls vs_close when this
 * process's last descriptor for it is closed. The last process to let go closes it.
 */
#include <string.h>
#include <sys/stat.h>

#include "engine/bytes.h"
#include "socket/backing.h"
#include "socket/busy.h"
#include "socket/epoll.h"
#include "socket/kick.h"
#include "socket/net.h"
#include "socket/raw.h"
#include "socket/sockets.h"
#include "socket/udp_group.h"
#include "socket/unlocked.h"

#define EXIT_LINGER_US 10000000 /* a peer that does not read for that long loses what was not sent */

int sock_kernel_name(int fd, struct endpoint *ep)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int family;

	if (host_sys.getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return -errno;
	return addr_from_sockaddr((struct sockaddr *)&ss, len, ep, &family);
}

void sock_name_out(const struct endpoint *ep, int family, struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_storage ss;
	socklen_t n;

	if (!sa || !len)
		return;
	n = addr_to_sockaddr(ep, family, &ss);
	memcpy(sa, &ss, *len < n ? *len : n);
	*len = n;
}

/* --- making --- */

static enum reason wanted(int domain, int type, int protocol, enum sock_proto *proto)
{
	int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (!knob[K_ENABLE])
		return REASON_DISABLED;
	if (domain != AF_INET && domain != AF_INET6)
		return REASON_FAMILY;
	if (kind == SOCK_STREAM && (!protocol || protocol == IPPROTO_TCP)) {
		*proto = SOCK_TCP;
		return REASON_NONE;
	}
	if (kind == SOCK_DGRAM && (!protocol || protocol == IPPROTO_UDP)) {
		*proto = SOCK_UDP;
		return knob[K_UDP] ? REASON_NONE : REASON_DISABLED;
	}
	return REASON_TYPE;
}

uint64_t sock_inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

static int make(enum sock_proto proto, int domain, int type, int fd, uint32_t flags, vsock_t *out, enum reason *reason)
{
	struct attached *a = process_home();
	struct sock *k;

	if (!a) {
		*reason = REASON_NO_STACK;
		return VS_KERNEL;
	}
	stack_enter(a);
	k = sock_alloc(&a->e, proto, domain == AF_INET6 ? 6 : 4);
	if (k) {
		k->holders = 1ull << a->slot;
		k->interest = 0;
		k->waiters = 0;
		k->flags |= flags | (type & SOCK_NONBLOCK ? SOCKF_NONBLOCK : 0);
		k->created_us = clock_us();
		if (proto == SOCK_UDP)
			k->inode = sock_inode(fd);
		*out = vs_name(a, k);
	}
	stack_leave(a);
	if (k)
		return 0;
	*reason = REASON_NO_SOCKETS;
	return VS_KERNEL;
}

int vs_socket(int domain, int type, int protocol, int fd, vsock_t *out, enum reason *reason)
{
	enum sock_proto proto = SOCK_FREE;

	*reason = wanted(domain, type, protocol, &proto);
	return *reason == REASON_NONE ? make(proto, domain, type, fd, SOCKF_BACKING_SPOILT, out, reason) : VS_KERNEL;
}

int vs_open(int domain, int type, int protocol, vsock_t *out, enum reason *reason)
{
	enum sock_proto proto = SOCK_FREE;
	struct attached *a;
	uint16_t entry = 0;
	struct sock *k;
	int fd;

	*out = VS_NONE;
	*reason = wanted(domain, type, protocol, &proto);
	if (*reason == REASON_NONE && proto == SOCK_TCP) {
		fd = backing_socket(domain, type & (SOCK_NONBLOCK | SOCK_CLOEXEC), true, &entry);
	} else {
		fd = host_sys.socket(domain, type, protocol);
		fd = fd < 0 ? -errno : fd;
	}
	if (fd < 0 || *reason != REASON_NONE || make(proto, domain, type, fd, 0, out, reason) < 0)
		*out = VS_NONE;
	if (!entry)
		return fd;
	backing_own(entry, *out);
	k = *out == VS_NONE ? NULL : vs_enter(*out, &a);
	if (k) {
		k->backing = entry;
		stack_leave(a);
	} else {
		backing_release(*out, -1, &(struct backing_left){.entry = entry});
	}
	return fd;
}

/* --- ending --- */

void sock_let_go(struct attached *a, struct sock *k, uint64_t now_us)
{
	k->holders &= ~(1ull << a->slot);
	k->interest &= ~(1ull << a->slot);
	if (k->holders)
		return;
	if (k->proto == SOCK_TCP)
		tcp_close(&a->e, k, now_us);
	else
		udp_close(&a->e, k);
}

bool sock_rule(enum sock_proto proto, enum rule_role role, const struct sockaddr *server, socklen_t len,
	       enum reason *why)
{
	struct endpoint ep;
	int family;
	uint32_t line;

	if (addr_from_sockaddr(server, len, &ep, &family) < 0)
		return false;
	line = rules_refuse(proto, role, &ep);
	if (line)
		*why = reason_with(REASON_RULE, line);
	return line != 0;
}

int sock_to_kernel(vsock_t v, enum reason why, enum reason *reason)
{
	struct attached *a;
	struct sock *k;

	*reason = why;
	rendezvous_close(v);
	k = vs_enter(v, &a);
	if (k) {
		struct backing_left left = {.entry = k->backing, .port = k->port_hold};

		count(a->s, C_sock_to_kernel);
		sock_let_go(a, k, stack_now(a));
		stack_leave(a);
		backing_release(v, -1, &left);
	}
	return VS_KERNEL;
}

bool vs_leave(vsock_t v)
{
	enum reason reason;
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool yes;

	if (!k)
		return true;
	yes = k->proto == SOCK_UDP || k->tcp.state == TCP_LISTEN || (k->tcp.state == TCP_CLOSED && !k->remote.port);
	stack_leave(a);
	if (yes)
		(void)sock_to_kernel(v, REASON_PASSED, &reason);
	return yes;
}

/* SO_LINGER: until all is acknowledged and the FIN too, or the connection is gone. */
static bool lingered(void *arg)
{
	struct attached *a;
	struct sock *k = vs_enter(*(vsock_t *)arg, &a);
	bool done;

	if (!k)
		return true;
	stack_take_in(a);
	k = vs_sock(a, *(vsock_t *)arg);
	done = !k || (k->tcp.state != TCP_FIN_WAIT_1 && k->tcp.state != TCP_CLOSING && k->tcp.state != TCP_LAST_ACK);
	stack_leave(a);
	return done;
}

static void linger(vsock_t v, uint32_t seconds)
{
	struct wait w = {
	    .ready = lingered, .arg = &v, .timeout_us = (int64_t)seconds * 1000000, .kernel_fd = -1, .sock = v};

	w.takes_in = true;
	(void)wait_for(&w);
}

/* With the lock, before the process lets go of it. */
static struct backing_left how_left(const struct attached *a, const struct sock *k)
{
	struct backing_left left = {.entry = k->backing, .port = k->port_hold, .family = k->family, .local = k->local};

	left.reusable = k->proto == SOCK_TCP && k->tcp.state != TCP_LISTEN && !(k->flags & SOCKF_BACKING_SPOILT) &&
			k->holders == 1ull << a->slot;
	left.bound = k->flags & SOCKF_BACKING_BOUND;
	left.reusable = left.reusable && (!left.bound || k->local.port);
	left.options = k->flags & SOCKF_BACKING_OPTIONS;
	left.nonblock = k->flags & SOCKF_NONBLOCK;
	return left;
}

void vs_close(vsock_t v, bool wait_linger)
{
	vs_close_fd(v, -1, wait_linger);
}

void vs_close_fd(vsock_t v, int fd, bool wait_linger)
{
	struct endpoint remote = {0};
	struct backing_left left;
	enum sock_proto proto;
	struct attached *a;
	struct sock *k;
	uint32_t seconds = 0;
	bool bound;

	if (busy_defers_close(v))
		return;
	listener_drop(v);
	rendezvous_close(v);
	k = vs_enter(v, &a);
	if (!k)
		return;
	/* What has arrived counts as received: unread data makes the close a reset (RFC 9293, 3.10.4). */
	if (k->proto == SOCK_TCP && stack_pending(a)) {
		stack_poll(a, stack_now(a));
		k = vs_sock(a, v);
		if (!k) {
			stack_leave(a);
			return;
		}
	}
	if (k->proto == SOCK_TCP && k->flags & SOCKF_LINGER && !(k->flags & SOCKF_NONBLOCK) &&
	    !(k->holders & ~(1ull << a->slot)) && k->tcp.state != TCP_LISTEN)
		seconds = k->linger_s;
	left = how_left(a, k);
	proto = k->proto;
	if (proto == SOCK_TCP && !left.reusable && k->holders == 1ull << a->slot)
		remote = k->remote;
	bound = !(k->holders & ~(1ull << a->slot)) && (proto == SOCK_UDP || k->tcp.state == TCP_LISTEN);
	sock_let_go(a, k, stack_now(a));
	stack_leave(a);
	kick_flush();
	net_flow_closing(a, fd, &left.local, &remote);
	backing_release(v, fd, &left);
	if (bound && proto == SOCK_UDP)
		udp_group_closed(a, v);
	if (bound)
		net_unbound(a, proto, &left.local);
	if (seconds && wait_linger)
		linger(v, seconds);
}

/* Nobody would retransmit what the peer has not acknowledged: the char driver's vNIC goes with its last process, and an
 * interface's while no viaductd knows of us. */
static bool lost_with_us(const struct attached *a, const struct sock *k)
{
	const struct vnic_state *st = stack_vnic(a->s, k->vnic);

	return st && (st->provider == VNIC_PROV_CHARDEV || vnic_is_network(st));
}

/* True if no connection of our stack has bytes that were not put on the wire yet. What is on the wire reaches the
 * peer without us: the memory is its as well. Over a network viaductd goes on. */
static bool all_sent(void *arg)
{
	struct attached *a = arg;
	bool sent = true, finishes = net_finishes(a);

	stack_enter(a);
	stack_take_in(a);
	for (uint32_t i = 1; sent && i < a->s->sock_pool.mark; i++) {
		const struct sock *k = sock_at(a->s, i);

		if (finishes && k && k->vnic < VNIC_MAX && vnic_is_network(stack_vnic(a->s, k->vnic)))
			continue;
		if (k && k->proto == SOCK_TCP && !k->holders && k->tcp.flags & TCPF_FIN_QUEUED)
			sent = (k->tcp.flags & TCPF_FIN_SENT &&
				(!lost_with_us(a, k) || k->tcp.snd_una == k->tcp.snd_nxt)) ||
			       k->tcp.state == TCP_CLOSED;
	}
	stack_leave(a);
	return sent;
}

/* The kernel goes on sending for a process that has ended. We can't, so the process ends when all is on its way. */
void vs_exit(const vsock_t *all, size_t n)
{
	struct attached *a = process_settled();
	struct wait w = {.ready = all_sent, .arg = a, .timeout_us = EXIT_LINGER_US, .kernel_fd = -1, .restart = true};

	busy_exit();
	for (size_t i = 0; i < n; i++)
		vs_close(all[i], false);
	if (a && a->active)
		(void)wait_for(&w);
	kick_all();
}

int vs_shutdown(vsock_t v, int fd, int how)
{
	bool kernel_too = vs_has_kernel_half(v), stops = false;
	struct attached *a;
	struct sock *k;
	int ret;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	k = vs_enter(v, &a);
	if (!k)
		return -ENOTCONN;
	stack_take_in(a);
	if (k->proto == SOCK_UDP) {
		ret = 0; /* the kernel's half knows whether it is connected */
		if (how != SHUT_WR)
			k->flags |= SOCKF_SHUT_RD;
		if (how != SHUT_RD)
			k->flags |= SOCKF_SHUT_WR;
		sock_notify(&a->e, k, EV_IN | EV_OUT | EV_RDHUP | (how == SHUT_RDWR ? EV_HUP : 0));
	} else if (k->tcp.state == TCP_LISTEN) {
		ret = 0;
		stops = how != SHUT_WR; /* as the kernel: an unconnected socket that may listen again */
		if (stops)
			tcp_abort(&a->e, k, 0, stack_now(a));
	} else {
		if (k->tcp.state == TCP_CLOSED && k->tcp.flags & TCPF_CONNECTING)
			k->flags |= SOCKF_DISCONNECTING;
		else if (k->tcp.state != TCP_SYN_SENT)
			k->tcp.flags &= ~TCPF_CONNECTING; /* as the kernel: connect() has nothing to report any more */
		ret = tcp_shutdown(&a->e, k, how, stack_now(a));
	}
	stack_leave(a);
	if (stops) {
		listener_drop(v);
		rendezvous_close(v);
	}
	if (kernel_too && host_sys.shutdown(fd, how) < 0 && ret == 0)
		ret = -errno;
	wait_wake_all();
	return ret;
}

/* --- names --- */

/* What the kernel has bound it to: as it was told, unless it was to choose the port. IPv6 has more to it (scopes). */
static int bound_name(int fd, const struct sockaddr *sa, socklen_t len, struct endpoint *local)
{
	int family;

	if (len < sizeof(struct sockaddr_in) || sa->sa_family != AF_INET ||
	    addr_from_sockaddr(sa, len, local, &family) < 0 || !local->port)
		return sock_kernel_name(fd, local);
	return 0;
}

/* In the kernel's order: what is wrong with the address is said before that the socket has a name. */
static int name_fault(int family, const struct sockaddr *sa, socklen_t len)
{
	if (len < (family == 6 ? offsetof(struct sockaddr_in6, sin6_scope_id) : sizeof(struct sockaddr_in)))
		return -EINVAL;
	return sa->sa_family == (family == 6 ? AF_INET6 : AF_INET) ? 0 : -EAFNOSUPPORT;
}

void sock_v6only(struct sock *k)
{
	if (k->family == 6 && !is_any(k->local.addr) && !is_v4(k->local.addr))
		k->flags |= SOCKF_V6ONLY;
}

int vs_bind(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len, enum reason *reason)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	struct endpoint local;
	bool udp;
	int ret;

	*reason = REASON_NONE;
	if (!k)
		return -EBADF;
	udp = k->proto == SOCK_UDP;
	ret = k->proto == SOCK_TCP && k->tcp.state != TCP_CLOSED ? -EINVAL : 0;
	if (ret < 0)
		ret = name_fault(k->family, sa, len) < 0 ? name_fault(k->family, sa, len) : ret;
	stack_leave(a);
	if (ret < 0)
		return ret;
	if (udp && sock_rule(SOCK_UDP, RULE_SERVER, sa, len, reason))
		return sock_to_kernel(v, *reason, reason);
	if (udp)
		return udp_bind(v, fd, sa, len);
	vs_spoil(v);
	ret = host_sys.bind(fd, sa, len) < 0 ? -errno : 0;
	if (ret == -EADDRINUSE && net_flows_give_way())
		ret = host_sys.bind(fd, sa, len) < 0 ? -errno : 0;
	if (ret < 0)
		return ret;
	ret = bound_name(fd, sa, len, &local);
	k = ret == 0 ? vs_enter(v, &a) : NULL;
	if (!k)
		return ret;
	k->local = local;
	sock_v6only(k);
	stack_leave(a);
	return 0;
}

int vs_getsockname(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	struct endpoint ep;
	int family;

	if (!k)
		return host_sys.getsockname(fd, sa, len) < 0 ? -errno : 0;
	ep = k->local;
	family = k->family;
	stack_leave(a);
	if (!ep.port)
		return host_sys.getsockname(fd, sa, len) < 0 ? -errno : 0;
	if ((int)*len < 0)
		return -EINVAL;
	sock_name_out(&ep, family, sa, len);
	return 0;
}

int vs_getpeername(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	struct endpoint ep;
	int family;
	bool connected;

	(void)fd;
	if (!k)
		return -ENOTCONN;
	stack_take_in(a); /* a reset ends it */
	ep = k->remote;
	family = k->family;
	connected = ep.port != 0;
	if (k->proto == SOCK_TCP)
		connected = connected && k->tcp.state != TCP_SYN_SENT && k->tcp.state != TCP_CLOSED &&
			    k->tcp.state != TCP_LISTEN;
	stack_leave(a);
	if (!connected)
		return -ENOTCONN;
	if ((int)*len < 0)
		return -EINVAL;
	sock_name_out(&ep, family, sa, len);
	return 0;
}

/* --- flags, figures, readiness --- */

int vs_set_nonblock(vsock_t v, bool on)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	k->flags = on ? k->flags | SOCKF_NONBLOCK : k->flags & ~SOCKF_NONBLOCK;
	stack_leave(a);
	return 0;
}

void vs_spoil(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return;
	k->flags |= SOCKF_BACKING_SPOILT;
	stack_leave(a);
}

bool vs_nonblock(vsock_t v)
{
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);

	return k && unlocked_u32(&k->flags) & SOCKF_NONBLOCK;
}

static int kernel_inq(int fd)
{
	int n = 0;
	long ret = raw_call(SYS_ioctl, fd, 0x541b /* FIONREAD */, (long)&n, 0, 0, 0);

	return ret < 0 ? (int)ret : n;
}

int vs_inq(vsock_t v, int fd)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret;

	if (!k)
		return -EBADF;
	stack_take_in(a);
	if (k->proto == SOCK_UDP)
		ret = (int)udp_first_size(&a->e, k);
	else
		ret = k->tcp.state == TCP_LISTEN ? -EINVAL : (int)tcp_inq(&a->e, k);
	stack_leave(a);
	return ret == 0 && vs_has_kernel_half(v) ? kernel_inq(fd) : ret;
}

int vs_outq(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret = 0;

	if (!k)
		return -EBADF;
	if (k->proto == SOCK_TCP)
		ret = k->tcp.state == TCP_LISTEN ? -EINVAL : (int)tcp_outq(&a->e, k);
	stack_leave(a);
	return ret;
}

int vs_atmark(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret;

	if (!k)
		return -EBADF;
	if (k->proto != SOCK_TCP)
		ret = -ENOTTY;
	else
		ret = k->tcp.state == TCP_LISTEN ? 0 : tcp_atmark(&a->e, k);
	stack_leave(a);
	return ret;
}

static uint32_t poll_one(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	uint32_t ev;

	if (!k)
		return 0;
	if (connect_refused(k)) {
		stack_leave(a);
		if (ep_changing()) /* whoever waits on the set will ask again */
			return EV_ERR | EV_HUP;
		return connect_again(v) ? 0 : poll_one(v);
	}
	ev = k->proto == SOCK_UDP ? udp_poll(&a->e, k) : tcp_poll(&a->e, k);
	stack_leave(a);
	return ev;
}

uint32_t vs_poll(vsock_t v)
{
	vsock_t clone = listener_clone(v);

	return poll_one(v) | (clone != VS_NONE ? poll_one(clone) : 0);
}

bool vs_has_kernel_half(vsock_t v)
{
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);

	return k && (unlocked_u8(&k->proto) == SOCK_UDP || unlocked_u8(&k->tcp.state) == TCP_LISTEN);
}

bool vs_alive(vsock_t v)
{
	struct attached *a;

	return unlocked_sock(v, &a) != NULL;
}

/* --- for tools --- */

/* The socket may be in another stack than the process's own. */
static uint16_t stack_tag(const struct attached *a)
{
	return a ? stack_id_tag(a->s->id) : 0;
}

void vs_publish_fd(int fd, enum fd_kind kind, vsock_t v, enum reason reason)
{
	struct attached *a = kind == FD_OTHER ? __atomic_load_n(&own_stack, __ATOMIC_ACQUIRE) : process_own_stack();
	struct stack_fdinfo *info;

	if (!a || fd < 0 || (uint32_t)fd >= a->s->cfg.max_fdinfo)
		return;
	info = (struct stack_fdinfo *)(void *)((char *)a->s + a->s->off_fdinfo) + fd;
	info->reason = (uint8_t)reason;
	info->detail =
	    kind == FD_ACCELERATED ? stack_tag(vs_attached(v)) : (uint16_t)((unsigned)reason >> REASON_DETAIL_SHIFT);
	info->sock = vs_index_of(v);
	__atomic_store_n(&info->kind, (uint8_t)kind, __ATOMIC_RELEASE);
}
