/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Active open. An address of this machine is first tried over a wire: one that is known, or one that rendezvous makes
 * (the only step that blocks a nonblocking connect, once per peer process, for at most knob HANDSHAKE_MS). Then the
 * backing socket is bound to the port, so the kernel gives it to nobody else; then the engine's handshake runs.
 *
 * A wire that is known may lead to a process that has stopped listening while another one listens now. So a
 * refusal over a known wire makes us forget it and try a new rendezvous; a refusal over a new one leaves the rest to
 * the kernel's connect on the backing socket, which is unharmed by having been bound. A nonblocking connect hears of
 * the refusal when the program asks whether it is connected (poll, epoll, SO_ERROR, connect): then the same follows
 * (connect_again), and until it is decided the program is told that the connect is under way.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/tcp_open.h"
#include "socket/backing.h"
#include "socket/net.h"
#include "socket/raw.h"
#include "socket/sockets.h"

#define PORT_TRIES 64
#define ALIVE_US 30u

static const uint8_t loopback6[16] = {[15] = 1};

/* The address that "any" means for connect(2): this machine. */
static void any_is_loopback(struct endpoint *ep)
{
	if (!is_any(ep->addr))
		return;
	if (is_v4(ep->addr))
		memcpy(ep->addr + 12, "\x7f\0\0\1", 4);
	else
		memcpy(ep->addr, loopback6, 16);
}

/* Which source address the kernel takes for a local destination: 127.0.0.1 for all of 127/8, else the address itself.
 */
static void source_for(const struct endpoint *remote, struct endpoint *local)
{
	*local = *remote;
	local->port = 0;
	if (is_v4(remote->addr) && remote->addr[12] == 127)
		memcpy(local->addr + 12, "\x7f\0\0\1", 4);
}

/* Where the connection comes from: bound by the program, or to be bound here. Port 0: not bound yet. */
static int choose_local(vsock_t v, const struct endpoint *remote, struct endpoint *local)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	source_for(remote, local);
	local->port = k->local.port;
	if (local->port && !is_any(k->local.addr))
		memcpy(local->addr, k->local.addr, sizeof(local->addr));
	stack_leave(a);
	return 0;
}

/* --- ports --- */

static uint32_t port_low = 32768, port_span = 28232; /* the kernel's default range */
static _Atomic uint32_t port_next;
static pthread_once_t ports_once = PTHREAD_ONCE_INIT;

static void read_port_range(void)
{
	char text[64] = {0};
	unsigned low, high;
	long fd = raw_call(SYS_openat, AT_FDCWD, (long)"/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC,
			   0, 0, 0);

	if (fd >= 0) {
		(void)raw_call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
		raw_call(SYS_close, fd, 0, 0, 0, 0, 0);
		if (sscanf(text, "%u %u", &low, &high) == 2 && low && low < high && high < 65536) {
			port_low = low;
			port_span = high - low + 1;
		}
	}
	atomic_store(&port_next, (uint32_t)clock_cycles() * 2654435761u);
}

/* True if the engine has no connection from local to remote but perhaps one in TIME-WAIT, which a new one may follow.
 */
static bool tuple_free(vsock_t v, const struct endpoint *local, const struct endpoint *remote)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool yes;

	if (!k)
		return true;
	k = sock_lookup(a->s, SOCK_TCP, local, remote);
	yes = !k || k->tcp.state == TCP_TIME_WAIT;
	stack_leave(a);
	return yes;
}

/* Say how it got its port: one that we hold already (hold), or by binding the backing socket. */
static void bound_by_us(vsock_t v, uint16_t hold)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return;
	k->port_hold = hold;
	if (!hold)
		k->flags |= SOCKF_BACKING_BOUND;
	stack_leave(a);
}

/* Make the backing socket own a port at *local. Ports are taken in turn: the kernel, which would take any that it
 * knows to be free, does not know which of them the engine's closed connections still need. */
static int bind_backing(vsock_t v, int fd, int family, struct endpoint *local, const struct endpoint *remote)
{
	struct sockaddr_storage ss;
	struct endpoint bound;
	uint16_t hold = backing_port(v, family, local, remote);
	int ret;

	if (hold) {
		bound_by_us(v, hold);
		return 0;
	}
	pthread_once(&ports_once, read_port_range);
	for (int tries = 0; tries <= PORT_TRIES; tries++) {
		uint32_t n = atomic_fetch_add(&port_next, 1);

		local->port = tries < PORT_TRIES ? (uint16_t)(port_low + n % port_span) : 0;
		if (local->port && !tuple_free(v, local, remote))
			continue;
		if (host_sys.bind(fd, (struct sockaddr *)&ss, addr_to_sockaddr(local, family, &ss)) == 0)
			break;
		if (errno != EADDRINUSE && errno != EACCES)
			return -errno;
		if (tries == PORT_TRIES)
			return -EADDRNOTAVAIL;
	}
	bound_by_us(v, 0);
	if (local->port)
		return 0;
	ret = sock_kernel_name(fd, &bound);
	local->port = bound.port;
	return ret;
}

/* --- the state of a connect() --- */

struct opening {
	vsock_t v;
	int result; /* -EINPROGRESS: not decided */
};

/* The connection that connect() began has ended before the program heard that it was made: the socket is as new. */
static int failed(struct attached *a, struct sock *k)
{
	int error = k->so_error ? k->so_error : ECONNABORTED;

	tcp_disconnect(&a->e, k, stack_now(a));
	k->so_error = 0;
	return -error;
}

/* Take in what there is and see how far the handshake is. The first who sees the outcome reports it. */
static bool opened(void *arg)
{
	struct opening *o = arg;
	struct attached *a;
	struct sock *k = vs_enter(o->v, &a);

	o->result = -ECONNABORTED;
	if (!k)
		return true;
	stack_take_in(a);
	switch (k->tcp.state) {
	case TCP_SYN_SENT:
	case TCP_SYN_RECEIVED:
		o->result = -EINPROGRESS;
		break;
	case TCP_CLOSED:
		o->result = failed(a, k);
		break;
	default:
		o->result = 0;
		k->tcp.flags &= ~TCPF_CONNECTING;
		break;
	}
	stack_leave(a);
	return o->result != -EINPROGRESS;
}

static int wait_opened(vsock_t v, int64_t timeout_us, bool restart)
{
	struct opening o = {.v = v, .result = -EINPROGRESS};
	struct wait w = {.ready = opened, .arg = &o, .timeout_us = timeout_us, .kernel_fd = -1, .restart = restart};
	int ret;

	w.sock = v;
	w.takes_in = true;
	ret = wait_for(&w);
	if (ret == -EINTR)
		return -EINTR;
	return ret == -ETIMEDOUT ? -EINPROGRESS : o.result;
}

/* What connect() says of a socket that is not fresh: 1 go on and open. */
static int already(struct attached *a, struct sock *k, bool nonblock)
{
	switch (k->tcp.state) {
	case TCP_CLOSED:
		if (!k->remote.port)
			return 1;
		if (k->flags & SOCKF_DISCONNECTING)
			return -EINVAL;
		return k->tcp.flags & TCPF_CONNECTING ? failed(a, k) : -EISCONN;
	case TCP_SYN_SENT:
	case TCP_SYN_RECEIVED:
		return nonblock ? -EALREADY : -EINPROGRESS;
	case TCP_LISTEN:
		return -EISCONN;
	default:
		return k->tcp.flags & TCPF_CONNECTING ? 0 : -EISCONN;
	}
}

/* A connection that opens at once (engine/tcp_open.c) is not answered by the other end, so look whether it lives: it
 * may be gone and our helper not know it yet. Who lived a moment ago can't have died, and anybody know of it, in less
 * than ALIVE_US. With the lock, which is let go meanwhile. The socket, or NULL: it is gone. */
static struct sock *look_for_life(vsock_t v, struct attached *a, uint32_t vnic, bool *gone)
{
	struct vnic *wire = &a->e.vnic[vnic];
	struct pollfd p = {.fd = wire->life_fd, .events = POLLRDHUP};
	uint64_t now = stack_now(a);
	uint32_t gen = wire->gen;
	struct sock *k;

	if (now - wire->alive_us < ALIVE_US && (k = vs_sock(a, v)))
		return k;
	stack_leave(a);
	*gone = host_sys.poll(&p, 1, 0) > 0;
	if (*gone)
		wire_gone(a, vnic, gen);
	k = vs_enter(v, &a);
	if (k && !*gone && wire->gen == gen)
		wire->alive_us = now;
	return k;
}

/* One attempt over vnic; retry: what to do when a nonblocking one is refused; dst: the way over a network, else NULL. 0
 * established, 1 under way (nonblocking), VS_KERNEL: refused, or -errno. */
static int attempt(vsock_t v, uint32_t vnic, const struct endpoint *local, const struct endpoint *remote, bool nonblock,
		   enum retry retry, const struct dst *dst)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	uint64_t timeout;
	bool gone = false;
	int ret;

	if (k && tcp_open_ready(&a->e, vnic, remote))
		k = look_for_life(v, a, vnic, &gone);
	if (!k)
		return -EBADF;
	if (gone) {
		stack_leave(a);
		return VS_KERNEL;
	}
	k->so_error = 0;
	timeout = k->sndtimeo_us;
	if (dst)
		k->dst = *dst;
	ret = tcp_connect(&a->e, k, vnic, local, remote, stack_now(a));
	if (ret == 0) {
		k->tcp.flags |= TCPF_CONNECTING;
		k->connect_retry = nonblock ? retry : RETRY_NOT;
	}
	stack_leave(a);
	if (ret < 0)
		return ret;
	if (nonblock)
		return 1;
	ret = wait_opened(v, timeout ? (int64_t)timeout : -1, !timeout);
	return ret == -ECONNREFUSED ? VS_KERNEL : ret;
}

static int open_over_wire(vsock_t v, int fd, int family, const struct endpoint *remote, bool nonblock,
			  enum reason *reason)
{
	struct attached *a = vs_attached(v);
	struct endpoint local;
	bool fresh = false;

	for (int tries = 0; tries < 2; tries++) {
		int vnic, ret = choose_local(v, remote, &local);

		if (ret < 0)
			return ret;
		vnic = wire_to(a, SOCK_TCP, family, remote, &fresh, reason);
		if (vnic < 0)
			return sock_to_kernel(v, *reason, reason);
		ret = local.port ? 0 : bind_backing(v, fd, family, &local, remote);
		if (ret < 0)
			return ret;
		ret = attempt(v, (uint32_t)vnic, &local, remote, nonblock, fresh ? RETRY_KERNEL : RETRY_WIRE, NULL);
		if (ret != VS_KERNEL)
			return ret == 1 ? -EINPROGRESS : ret;
		wire_forget(a, SOCK_TCP, remote);
		if (fresh)
			break;
	}
	return sock_to_kernel(v, REASON_NO_LISTENER, reason);
}

/* --- over a network --- */

/* Where the program has bound it, and to which device. */
static int own_end(vsock_t v, struct endpoint *local, struct dst *dst, uint16_t *hold, bool *kernel_only)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	*local = k->local;
	*dst = (struct dst){.ifindex = k->dst.ifindex};
	*hold = k->port_hold;
	*kernel_only = k->flags & SOCKF_KERNEL_ROUTE;
	stack_leave(a);
	return 0;
}

/* The port is the backing socket's; now what comes to it is to be ours. A port that was chosen here is steered for all
 * peers, and stays so while the backing socket is kept; of one that the program chose, only this connection. */
static int steer_port(vsock_t v, int fd, int family, const struct endpoint *local, const struct endpoint *remote,
		      bool chosen_here, enum reason *reason)
{
	struct endpoint end;
	struct dst dst;
	uint16_t hold = 0;
	bool kernel_only;
	int ret = own_end(v, &end, &dst, &hold, &kernel_only), holder = hold ? backing_port_fd(hold) : fd;

	if (ret < 0)
		return ret;
	return net_filter(vs_attached(v), SOCK_TCP, family, holder, local, chosen_here ? NULL : remote, 0, reason);
}

/* It can't be ours: the kernel's, or nobody's where the user wants it so. */
static int not_ours(vsock_t v, enum reason why, enum reason *reason)
{
	return knob[K_NETWORK] == NETWORK_REQUIRE ? -ENETDOWN : sock_to_kernel(v, why, reason);
}

static int open_over_network(vsock_t v, int fd, int family, const struct endpoint *remote, bool nonblock,
			     enum reason *reason)
{
	struct attached *a = vs_attached(v);
	struct endpoint local;
	struct dst dst;
	uint16_t hold;
	bool kernel_only;
	int vnic, ret = own_end(v, &local, &dst, &hold, &kernel_only);
	bool chosen_here = ret == 0 && !local.port;

	if (ret < 0)
		return ret;
	if (kernel_only)
		return not_ours(v, REASON_OPTION, reason);
	vnic = net_to(a, remote, &local, &dst, reason);
	ret = vnic < 0 ? vnic : 0;
	if (ret == 0 && chosen_here)
		ret = bind_backing(v, fd, family, &local, remote);
	if (ret == 0)
		ret = steer_port(v, fd, family, &local, remote, chosen_here, reason);
	if (ret < 0)
		return not_ours(v, *reason, reason);
	ret = attempt(v, (uint32_t)vnic, &local, remote, nonblock, RETRY_NOT, &dst);
	if (ret == 1)
		return -EINPROGRESS;
	return ret == VS_KERNEL ? -ECONNREFUSED : ret;
}

bool (*vs_connect_in_kernel)(vsock_t v, const struct sockaddr *sa, socklen_t len, enum reason reason);

/* What a refused connect was. */
struct refused {
	vsock_t v;
	struct endpoint local, remote;
	int family;
};

static bool again_over_wire(struct attached *a, const struct refused *r)
{
	enum reason reason;
	bool fresh, again = false;
	struct sock *k;
	int vnic;

	wire_forget(a, SOCK_TCP, &r->remote);
	vnic = wire_to(a, SOCK_TCP, r->family, &r->remote, &fresh, &reason);
	k = vnic < 0 ? NULL : vs_enter(r->v, &a);
	if (!k)
		return false;
	if (connect_refused(k)) {
		k->so_error = 0;
		again = tcp_connect(&a->e, k, (uint32_t)vnic, &r->local, &r->remote, stack_now(a)) == 0;
		k->connect_retry = RETRY_KERNEL;
		if (!again)
			k->so_error = ECONNREFUSED;
	}
	stack_leave(a);
	return again;
}

static bool again_in_kernel(struct attached *a, const struct refused *r)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(&r->remote, r->family, &ss);
	enum reason reason;
	struct sock *k;

	if (vs_connect_in_kernel && vs_connect_in_kernel(r->v, (struct sockaddr *)&ss, len, REASON_NO_LISTENER)) {
		sock_to_kernel(r->v, REASON_NO_LISTENER, &reason);
		wait_wake_all();
		return true;
	}
	k = vs_enter(r->v, &a);
	if (!k)
		return false;
	k->connect_retry = RETRY_NOT;
	sock_notify(&a->e, k, EV_IN | EV_OUT | EV_ERR | EV_HUP);
	stack_leave(a);
	return false;
}

bool connect_again(vsock_t v)
{
	struct refused r = {.v = v};
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	enum retry how = RETRY_NOT;

	if (!k)
		return false;
	if (connect_refused(k)) {
		how = k->connect_retry;
		k->connect_retry = RETRY_BUSY;
	}
	r.local = k->local;
	r.remote = k->remote;
	r.family = k->family;
	stack_leave(a);
	if (how == RETRY_BUSY)
		return true; /* another thread will tell */
	if (how == RETRY_NOT)
		return false;
	return (how == RETRY_WIRE && again_over_wire(a, &r)) || again_in_kernel(a, &r);
}

static int disconnect(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return -EBADF;
	stack_take_in(a);
	tcp_disconnect(&a->e, k, stack_now(a));
	stack_leave(a);
	(void)host_sys.connect(fd, sa, len);
	return 0;
}

int vs_connect(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len, bool wait, enum reason *reason)
{
	struct attached *a = vs_attached(v);
	struct endpoint remote;
	struct sock *k;
	bool nonblock, elsewhere;
	int family, own_family, ret;

	if (len < sizeof(sa->sa_family))
		return -EINVAL;
	k = vs_enter(v, &a);
	if (k && connect_refused(k)) {
		stack_leave(a);
		(void)connect_again(v);
		k = vs_enter(v, &a);
		if (!k) {
			*reason = REASON_NO_LISTENER;
			return VS_KERNEL;
		}
	}
	if (!k)
		return -EBADF;
	nonblock = !wait || k->flags & SOCKF_NONBLOCK;
	own_family = k->family;
	elsewhere = k->dst.ifindex > LOOPBACK_IFINDEX;
	if (k->proto == SOCK_TCP)
		stack_take_in(a);
	ret = k->proto == SOCK_TCP && sa->sa_family != AF_UNSPEC ? already(a, k, nonblock) : 1;
	if (ret == 0)
		k->tcp.flags &= ~TCPF_CONNECTING;
	if (k->proto == SOCK_UDP) {
		stack_leave(a);
		if (sock_rule(SOCK_UDP, RULE_CLIENT, sa, len, reason))
			return sock_to_kernel(v, *reason, reason);
		return udp_connect(v, fd, sa, len);
	}
	stack_leave(a);
	if (sa->sa_family == AF_UNSPEC)
		return disconnect(v, fd, sa, len);
	if (ret == -EINPROGRESS)
		return wait_opened(v, -1, true);
	if (ret != 1)
		return ret;
	ret = addr_from_sockaddr(sa, len, &remote, &family);
	if (ret < 0 || family != own_family)
		return sock_to_kernel(v, REASON_ADDRESS, reason); /* the kernel has the right errno */
	any_is_loopback(&remote);
	if (sock_rule(SOCK_TCP, RULE_CLIENT, sa, len, reason))
		return sock_to_kernel(v, *reason, reason);
	if (helper_start() < 0)
		return sock_to_kernel(v, REASON_NO_STACK, reason);
	if (!addr_is_local(remote.addr))
		return open_over_network(v, fd, own_family, &remote, nonblock, reason);
	if (elsewhere)
		return sock_to_kernel(v, REASON_OPTION, reason);
	return open_over_wire(v, fd, own_family, &remote, nonblock, reason);
}
