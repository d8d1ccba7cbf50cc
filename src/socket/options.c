/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getsockopt and setsockopt, by the table of options (options.def). Every option is set on the backing socket first: it
 * checks what is to be checked, its errno is the answer, and a socket that the kernel takes over later has the option.
 * Then the engine's half gets it (sockopt.c), if the engine knows it, and what the table says of it is done.
 *
 * Reading: what the engine has is read from it; the rest comes from the backing socket. An accepted connection's never
 * saw the listener's options: those that the engine does not answer for are noted in the listener (backing_options),
 * and its connections' backing sockets get them. Such a backing socket serves nobody else afterwards.
 *
 * A few switches that programs set on every connection are the engine's alone once there is a connection: any value is
 * good, and the kernel will never take the socket over.
 */
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>

#include "engine/bytes.h"
#include "socket/option_table.h"
#include "socket/sockopt.h"
#include "socket/sockets.h"
#include "socket/udp_group.h"
#include "socket/unlocked.h"

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR

_Static_assert(sizeof(struct timeval) == 16, "SO_RCVTIMEO and its new form are the same");

/* --- what the kernel made of a value --- */

/* A value that was set, or what the kernel's socket has in its place. */
struct setting {
	const void *val;
	socklen_t len;
	union {
		int number;
		struct timeval time;
		struct linger linger;
	} kernels;
};

/* The option by which the kernel's socket tells what it has clamped, doubled or rounded. -1: it takes it as it is. */
static int told_by(int level, int name)
{
	if (level == IPPROTO_TCP)
		return name == TCP_DEFER_ACCEPT ? name : -1;
	if (level != SOL_SOCKET)
		return -1;
	switch (name) {
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		return SO_RCVBUF;
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		return SO_SNDBUF;
	case SO_LINGER:
	case SO_RCVLOWAT:
	case SO_RCVTIMEO_OLD:
	case SO_RCVTIMEO_NEW:
	case SO_SNDTIMEO_OLD:
	case SO_SNDTIMEO_NEW:
		return name;
	default:
		return -1;
	}
}

static void as_the_kernel_has_it(int fd, int level, int name, struct setting *s)
{
	socklen_t len = sizeof(s->kernels);
	int told = told_by(level, name);

	if (told < 0 || host_sys.getsockopt(fd, level, told, &s->kernels, &len) < 0)
		return;
	s->val = &s->kernels;
	s->len = len;
}

/* --- what a connection refuses --- */

/* The kernel refuses these once there is a connection; the backing socket, which has none, does not know. */
static int too_late_ipv6(const struct sock *k, const struct option *o, const void *val)
{
	int v = 0;

	if (k->family != 6 || (val && bad_address(val)))
		return 0;
	if (o->number == IPV6_V6ONLY)
		return -EINVAL;
	if (o->number != IPV6_ADDRFORM || k->tcp.state != TCP_ESTABLISHED || !val)
		return 0;
	memcpy(&v, val, sizeof(v));
	if (v != AF_INET)
		return 0;
	return is_v4(k->remote.addr) ? -EOPNOTSUPP : -EADDRNOTAVAIL;
}

static int too_late(const struct sock *k, const struct option *o, const void *val)
{
	int v = 0;

	if (o->level == IPPROTO_IPV6)
		return too_late_ipv6(k, o, val);
	if (o->level != IPPROTO_TCP || bad_address(val))
		return 0;
	switch (o->number) {
	case TCP_FASTOPEN:
	case TCP_FASTOPEN_CONNECT:
	case TCP_FASTOPEN_NO_COOKIE:
		return -EINVAL;
	case TCP_QUEUE_SEQ:
		return -EPERM;
	case TCP_WINDOW_CLAMP:
		memcpy(&v, val, sizeof(v));
		return v ? 0 : -EINVAL;
	default:
		return 0;
	}
}

/* Only the kernel would follow it, and the connection is ours. */
static bool cannot_follow(const struct attached *a, const struct sock *k, const struct option *o)
{
	return o->treatment == OPTION_KERNEL || (o->treatment == OPTION_ROUTE && k->tcp.state != TCP_CLOSED &&
						 k->vnic < VNIC_MAX && vnic_is_network(stack_vnic(a->s, k->vnic)));
}

/* What becomes of an option because its socket is a connection. */
enum fate { FATE_USUAL, FATE_ANSWERED, FATE_CHECK_ONLY };

static enum fate on_connection(vsock_t v, const struct option *o, const void *val, socklen_t len, int *ret)
{
	enum fate fate = FATE_USUAL;
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool open;

	if (!k)
		return FATE_USUAL;
	open = sockopt_connected(k) && k->tcp.state != TCP_CLOSED;
	*ret = 0;
	if (open && o->treatment == OPTION_SWITCH && !bad_address(val)) {
		*ret = sockopt_set(&a->e, k, o->level, o->number, val, len, stack_now(a));
		fate = FATE_ANSWERED;
	} else if (open && (*ret = too_late(k, o, val)) < 0) {
		fate = FATE_ANSWERED;
	} else if (sockopt_connected(k) && cannot_follow(a, k, o)) {
		fate = FATE_CHECK_ONLY;
	}
	stack_leave(a);
	return fate;
}

/* The kernel's socket says what is wrong with the value; one that is right is not kept. */
static int check_only(int fd, const struct option *o, const void *val, socklen_t len)
{
	uint8_t old[64];
	socklen_t old_len = sizeof(old);
	bool had = host_sys.getsockopt(fd, o->level, o->number, old, &old_len) == 0;

	if (host_sys.setsockopt(fd, o->level, o->number, val, len) < 0)
		return -errno;
	if (bad_address(val) || !option_on(o, val, len))
		return 0;
	if (had)
		(void)host_sys.setsockopt(fd, o->level, o->number, old, old_len);
	return -EOPNOTSUPP;
}

/* --- what the backing socket alone has --- */

static void keep(struct sock *k, const struct option *o, bool kept)
{
	uint32_t i = option_index(o), bit = 1u << i % 32;

	if (i / 32 >= SOCK_OPTION_WORDS)
		return;
	k->backing_options[i / 32] = kept ? k->backing_options[i / 32] | bit : k->backing_options[i / 32] & ~bit;
}

static bool is_kept(const struct sock *k, const struct option *o)
{
	uint32_t i = option_index(o);

	return i / 32 < SOCK_OPTION_WORDS && k->backing_options[i / 32] >> i % 32 & 1;
}

bool options_kept(struct sock *k)
{
	uint32_t any = 0;

	for (uint32_t i = 0; i < SOCK_OPTION_WORDS; i++)
		any |= k->backing_options[i];
	if (any)
		k->flags |= SOCKF_BACKING_SPOILT;
	return any;
}

/* The kernel does not give these on. */
static bool inherits(const struct option *o)
{
	return !(o->level == SOL_SOCKET && o->number == SO_PRIORITY) &&
	       !(o->level == IPPROTO_TCP && o->number == TCP_FASTOPEN) &&
	       !(o->level == IPPROTO_IP && o->number == IP_OPTIONS);
}

void options_inherit(int listener, int fd, const uint32_t kept[SOCK_OPTION_WORDS])
{
	for (uint32_t i = 0; i < option_count && i / 32 < SOCK_OPTION_WORDS; i++) {
		const struct option *o = option_at(i);
		uint8_t value[256];
		socklen_t len = sizeof(value);

		if (kept[i / 32] >> i % 32 & 1 && inherits(o) &&
		    host_sys.getsockopt(listener, o->level, o->number, value, &len) == 0)
			(void)host_sys.setsockopt(fd, o->level, o->number, value, len);
	}
}

/* Does the engine say itself what it is, at least of a connection? */
static bool engine_answers(struct attached *a, struct sock *k, const struct option *o)
{
	uint8_t scratch[TCP_INFO_BYTES];
	socklen_t len = sizeof(scratch);

	if (o->level == IPPROTO_IPV6 && o->number == IPV6_V6ONLY && k->proto == SOCK_TCP)
		return true;
	return sockopt_get(&a->e, k, o->level, o->number, scratch, &len, 0) == 0;
}

/* --- setting --- */

/* The device to which the kernel has bound it, 0 none. */
static int bound_device(int fd)
{
	int device = 0;
	socklen_t len = sizeof(device);

	return host_sys.getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &device, &len) < 0 ? 0 : device;
}

static bool binds_to_device(int level, int name)
{
	return level == SOL_SOCKET && (name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX);
}

static bool udp_name(vsock_t v)
{
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);

	return k && unlocked_u8(&k->proto) == SOCK_UDP;
}

/* Who follows it from now on, and on which ways. With the lock. */
static bool kernel_follows(struct sock *k, const struct option *o, bool ours, const struct setting *s)
{
	enum option_treatment t = o->treatment;

	if (t == OPTION_STACK && !ours && o->level == IPPROTO_TCP && o->value == OPTION_NAME) {
		k->flags |= SOCKF_KERNEL_ROUTE; /* another congestion control */
		return false;
	}
	if ((t != OPTION_ROUTE && t != OPTION_KERNEL && t != OPTION_DATAGRAM) || !option_on(o, s->val, s->len))
		return false;
	if (k->proto == SOCK_UDP || t == OPTION_ROUTE)
		k->flags |= SOCKF_KERNEL_ROUTE;
	return k->proto == SOCK_UDP || t == OPTION_KERNEL;
}

static bool listens(const struct sock *k)
{
	return k->proto == SOCK_TCP && k->tcp.state == TCP_LISTEN;
}

/* The kernel has taken it: now our half. 0; VS_KERNEL: the socket is the kernel's; -errno. */
static int follow(vsock_t v, int fd, const struct option *o, struct setting *s)
{
	int device = binds_to_device(o->level, o->number) ? bound_device(fd) : -1, ret;
	enum reason reason;
	struct attached *a;
	struct sock *k;
	bool leave, udp;

	as_the_kernel_has_it(fd, o->level, o->number, s);
	k = vs_enter(v, &a);
	if (!k)
		return 0;
	ret = sockopt_set(&a->e, k, o->level, o->number, s->val, s->len, stack_now(a));
	if (device >= 0) {
		k->dst.ifindex = (uint32_t)device;
		k->dst.version = 0;
	}
	leave = kernel_follows(k, o, ret == 0, s) || (device > (int)LOOPBACK_IFINDEX && listens(k));
	keep(k, o, ret == SOCKOPT_NOT_OURS || !engine_answers(a, k, o));
	k->flags |= is_kept(k, o) ? SOCKF_BACKING_SPOILT : SOCKF_BACKING_OPTIONS;
	if (ret == SOCKOPT_NOT_OURS)
		count(a->s, C_sock_option_kernel);
	udp = k->proto == SOCK_UDP;
	stack_leave(a);
	if (leave && udp)
		udp_leave_to_kernel(v);
	else if (leave)
		return sock_to_kernel(v, REASON_OPTION, &reason);
	return ret == SOCKOPT_NOT_OURS ? 0 : ret;
}

/* Descriptors of ours are not the program's to name. */
static bool names_ours(const struct option *o, const void *val, socklen_t len)
{
	int fd = -1;

	if (o->level != SOL_SOCKET || (o->number != SO_ATTACH_BPF && o->number != SO_ATTACH_REUSEPORT_EBPF) ||
	    len != sizeof(fd))
		return false;
	memcpy(&fd, val, sizeof(fd));
	return host_fd_is_ours(fd);
}

int vs_setsockopt(vsock_t v, int fd, int level, int name, const void *val, socklen_t len)
{
	static const int zero;
	struct setting s = {.val = val, .len = len};
	const struct option *o = option_find(level, name);
	enum fate fate = FATE_USUAL;
	int ret = 0;

	if (o && !bad_address(val) && names_ours(o, val, len))
		return -EBADF;
	if (o && (int)len >= (int)sizeof(int))
		fate = on_connection(v, o, val, len, &ret);
	if (fate == FATE_ANSWERED)
		return ret;
	if (fate == FATE_CHECK_ONLY)
		return check_only(fd, o, val, len);
	if (host_sys.setsockopt(fd, level, name, val, len) < 0)
		return -errno;
	if (!o) {
		vs_spoil(v);
		return 0;
	}
	if (bad_address(val)) { /* for IPv6 that is a 0 */
		s.val = &zero;
		s.len = sizeof(zero);
	}
	if (udp_name(v) && udp_group_option(v, fd, level, name, s.val, s.len))
		return 0;
	return follow(v, fd, o, &s);
}

int vs_leave_to_kernel(vsock_t v)
{
	enum reason reason;
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool connected, udp;

	if (!k)
		return -EBADF;
	connected = sockopt_connected(k);
	udp = k->proto == SOCK_UDP;
	if (udp)
		k->flags |= SOCKF_KERNEL_ROUTE;
	stack_leave(a);
	if (udp)
		udp_leave_to_kernel(v);
	else if (!connected)
		return sock_to_kernel(v, REASON_OPTION, &reason);
	return connected ? -EOPNOTSUPP : 0;
}

/* --- reading --- */

/* The kernel's socket knows no peer of a connection that is not its own. */
static int peer_name(const struct endpoint *remote, int family, void *val, const socklen_t *len)
{
	struct sockaddr_storage ss;
	socklen_t n = addr_to_sockaddr(remote, family, &ss);

	if (bad_address(val) || bad_address(len))
		return -EFAULT;
	if (*len > n)
		return -EINVAL;
	memcpy(val, &ss, *len);
	return 0;
}

/* A refused nonblocking connect may go on in the kernel: then there is no error yet. True: that is the answer. */
static bool goes_on(vsock_t v, void *val, socklen_t *len)
{
	if (!connect_again(v) || !vs_alive(v) || bad_address(val) || bad_address(len) || (int)*len < (int)sizeof(int))
		return false;
	*len = sizeof(int);
	memset(val, 0, sizeof(int));
	return true;
}

/* SOCKOPT_NOT_OURS: the backing socket says it. With the lock. */
static int get_ours(struct attached *a, struct sock *k, int level, int name, void *val, socklen_t *len)
{
	const struct option *o = option_find(level, name);
	bool kernel_too = k->proto == SOCK_UDP || listens(k);

	if (level == SOL_SOCKET && name == SO_ERROR && kernel_too && !k->so_error)
		return SOCKOPT_NOT_OURS;
	if ((o && o->value == OPTION_NAME && is_kept(k, o)) || bad_address(val) || bad_address(len))
		return SOCKOPT_NOT_OURS;
	if ((int)*len < 0 && level != IPPROTO_IPV6) /* there, all that is not less than 4 is as much */
		return SOCKOPT_NOT_OURS;
	return sockopt_get(&a->e, k, level, name, val, len, level == IPPROTO_TCP ? stack_now(a) : 0);
}

int vs_getsockopt(vsock_t v, int fd, int level, int name, void *val, socklen_t *len)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret = SOCKOPT_NOT_OURS, family = 4;
	struct endpoint remote = {0};
	bool connected = false, told = true;

	if (k && (level == IPPROTO_TCP || (level == SOL_SOCKET && name == SO_ERROR)))
		stack_take_in(a);
	if (k && level == SOL_SOCKET && name == SO_ERROR && connect_refused(k)) {
		stack_leave(a);
		if (goes_on(v, val, len))
			return 0;
		k = vs_enter(v, &a);
	}
	if (k) {
		ret = get_ours(a, k, level, name, val, len);
		connected = sockopt_connected(k);
		remote = k->remote;
		family = k->family;
		told = name != IPV6_ADDRFORM || level != IPPROTO_IPV6 || k->tcp.state == TCP_ESTABLISHED;
		stack_leave(a);
	}
	if (connected && level == SOL_SOCKET && name == SO_PEERNAME)
		return peer_name(&remote, family, val, len);
	if (ret == SOCKOPT_NOT_OURS)
		ret = host_sys.getsockopt(fd, level, name, val, len) < 0 ? -errno : 0;
	if (connected && told && ret == -ENOTCONN && bad_address(val))
		return -EFAULT; /* the engine would have told */
	return ret;
}
