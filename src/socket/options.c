/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getsockopt and setsockopt. Every option is set on the backing socket first: it checks what is to be checked, its
 * errno is the answer, and a socket that the kernel takes over later has the option. Then the engine's half gets it
 * (sockopt.c), if the engine knows it. Options that it does not know are the kernel's alone, and counted.
 *
 * Reading: what the engine has is read from it (an accepted connection's backing socket never saw the listener's
 * options); the rest comes from the backing socket.
 *
 * A few switches that programs set on every connection are the engine's alone once there is a connection: any value is
 * good, and the kernel will never take the socket over.
 */
#include <linux/in6.h>
#include <linux/udp.h>
#include <string.h>

#include "engine/bytes.h"
#include "socket/sockopt.h"
#include "socket/sockets.h"
#include "socket/udp_group.h"
#include "socket/unlocked.h"

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR

/* The kernel has clamped and doubled a buffer's size: the engine gets what the kernel made of it. */
static bool buffer_size(int fd, int level, int name, int *v)
{
	socklen_t len = sizeof(*v);

	if (level != SOL_SOCKET)
		return false;
	if (name == SO_RCVBUF || name == SO_RCVBUFFORCE)
		return host_sys.getsockopt(fd, SOL_SOCKET, SO_RCVBUF, v, &len) == 0;
	if (name == SO_SNDBUF || name == SO_SNDBUFFORCE)
		return host_sys.getsockopt(fd, SOL_SOCKET, SO_SNDBUF, v, &len) == 0;
	return false;
}

/* False: not a connection. */
static bool set_switch(vsock_t v, int level, int name, const void *val, socklen_t len, int *ret)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool connection;

	if (!k)
		return false;
	connection = k->proto == SOCK_TCP && k->tcp.state != TCP_CLOSED && k->tcp.state != TCP_LISTEN;
	if (connection)
		*ret = sockopt_set(&a->e, k, level, name, val, len, stack_now(a));
	stack_leave(a);
	return connection;
}

/* Options by which packets are sent or chosen in ways that the engine does not know. */
static bool kernel_routes(int level, int name)
{
	static const int socket_options[] = {
	    SO_MARK, SO_DONTROUTE, SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF};
	static const int ip_options[] = {IP_OPTIONS, IP_TRANSPARENT, IP_UNICAST_IF, IP_MINTTL};
	static const int ipv6_options[] = {IPV6_TRANSPARENT, IPV6_UNICAST_IF, IPV6_MINHOPCOUNT, IPV6_RTHDR,
					   IPV6_HOPOPTS,     IPV6_DSTOPTS,    IPV6_RTHDRDSTOPTS};
	static const int tcp_options[] = {TCP_MD5SIG, TCP_MD5SIG_EXT, TCP_ULP};
	const int *set = NULL;
	size_t n = 0;

	if (level == SOL_SOCKET)
		set = socket_options, n = sizeof(socket_options);
	else if (level == IPPROTO_IP)
		set = ip_options, n = sizeof(ip_options);
	else if (level == IPPROTO_IPV6)
		set = ipv6_options, n = sizeof(ipv6_options);
	else if (level == IPPROTO_TCP)
		set = tcp_options, n = sizeof(tcp_options);
	for (size_t i = 0; i < n / sizeof(*set); i++)
		if (set[i] == name)
			return true;
	return false;
}

/* The same of UDP: control messages, and ways to cut and gather datagrams, that only the kernel has. */
static bool kernel_datagrams(int level, int name)
{
	static const struct {
		int level, name;
	} table[] = {
	    {SOL_SOCKET, SO_TIMESTAMP_OLD},   {SOL_SOCKET, SO_TIMESTAMP_NEW},    {SOL_SOCKET, SO_TIMESTAMPNS_OLD},
	    {SOL_SOCKET, SO_TIMESTAMPNS_NEW}, {SOL_SOCKET, SO_TIMESTAMPING_OLD}, {SOL_SOCKET, SO_TIMESTAMPING_NEW},
	    {SOL_SOCKET, SO_RXQ_OVFL},        {SOL_SOCKET, SO_ZEROCOPY},         {SOL_SOCKET, SO_TXTIME},
	    {SOL_SOCKET, SO_PEEK_OFF},        {SOL_SOCKET, SO_NO_CHECK},         {IPPROTO_IP, IP_RECVOPTS},
	    {IPPROTO_IP, IP_RETOPTS},         {IPPROTO_IP, IP_CHECKSUM},         {IPPROTO_IP, IP_RECVFRAGSIZE},
	    {IPPROTO_IP, IP_PASSSEC},         {IPPROTO_IPV6, IPV6_RECVRTHDR},    {IPPROTO_IPV6, IPV6_RECVHOPOPTS},
	    {IPPROTO_IPV6, IPV6_RECVDSTOPTS}, {IPPROTO_IPV6, IPV6_RECVPATHMTU},  {IPPROTO_IPV6, IPV6_RECVFRAGSIZE},
	    {IPPROTO_IPV6, IPV6_2292PKTINFO}, {IPPROTO_IPV6, IPV6_2292HOPLIMIT}, {IPPROTO_IPV6, IPV6_FLOWINFO},
	    {IPPROTO_UDP, UDP_CORK},          {IPPROTO_UDP, UDP_ENCAP},          {IPPROTO_UDP, UDP_SEGMENT},
	    {IPPROTO_UDP, UDP_NO_CHECK6_RX},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].level == level && table[i].name == name)
			return true;
	return false;
}

/* What it means on networks. With the lock; device: the one that the kernel has bound it to now. */
static void network_option(struct sock *k, int level, int name, int device)
{
	if (kernel_routes(level, name) || (k->proto == SOCK_UDP && kernel_datagrams(level, name)))
		k->flags |= SOCKF_KERNEL_ROUTE;
	if (level != SOL_SOCKET || (name != SO_BINDTODEVICE && name != SO_BINDTOIFINDEX))
		return;
	k->dst.ifindex = (uint32_t)device;
	k->dst.version = 0;
}

/* The device to which the kernel has bound it, 0 none. */
static int bound_device(int fd)
{
	int device = 0;
	socklen_t len = sizeof(device);

	return host_sys.getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &device, &len) < 0 ? 0 : device;
}

static bool udp_name(vsock_t v)
{
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);

	return k && unlocked_u8(&k->proto) == SOCK_UDP;
}

int vs_setsockopt(vsock_t v, int fd, int level, int name, const void *val, socklen_t len)
{
	struct attached *a;
	struct sock *k;
	bool resized, kernels;
	int size = 0, device, ret;

	if (sockopt_is_switch(level, name) && val && len >= sizeof(int) && (int)len > 0 &&
	    set_switch(v, level, name, val, len, &ret))
		return ret;
	ret = host_sys.setsockopt(fd, level, name, val, len) < 0 ? -errno : 0;
	/* An unconnected backing socket refuses a few that our connection allows; there are none that we implement. */
	if (ret < 0)
		return ret;
	if (udp_name(v) && udp_group_option(v, fd, level, name, val, len))
		return 0;
	resized = buffer_size(fd, level, name, &size);
	device = level == SOL_SOCKET && (name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX) ? bound_device(fd) : 0;
	k = vs_enter(v, &a);
	if (!k)
		return 0;
	if (resized) {
		val = &size;
		len = sizeof(size);
	}
	ret = sockopt_set(&a->e, k, level, name, val, len, stack_now(a));
	network_option(k, level, name, device);
	kernels = k->proto == SOCK_UDP && k->flags & SOCKF_KERNEL_ROUTE;
	k->flags |= ret == SOCKOPT_NOT_OURS ? SOCKF_BACKING_SPOILT : SOCKF_BACKING_OPTIONS;
	if (ret == SOCKOPT_NOT_OURS)
		count(a->s, C_sock_option_kernel);
	stack_leave(a);
	if (kernels)
		udp_leave_to_kernel(v);
	return ret == SOCKOPT_NOT_OURS ? 0 : ret;
}

int vs_getsockopt(vsock_t v, int fd, int level, int name, void *val, socklen_t *len)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret = SOCKOPT_NOT_OURS;

	if (k && (level == IPPROTO_TCP || (level == SOL_SOCKET && name == SO_ERROR)))
		stack_take_in(a);
	if (k && level == SOL_SOCKET && name == SO_ERROR && connect_refused(k)) {
		stack_leave(a);
		if (connect_again(v) && vs_alive(v) && !bad_address(val) && !bad_address(len) &&
		    (int)*len >= (int)sizeof(int)) {
			*len = sizeof(int);
			memset(val, 0, sizeof(int));
			return 0;
		}
		k = vs_enter(v, &a);
	}
	if (k) {
		bool kernel_too = k->proto == SOCK_UDP || k->tcp.state == TCP_LISTEN;

		if (level == SOL_SOCKET && name == SO_ERROR && kernel_too && !k->so_error)
			ret = SOCKOPT_NOT_OURS;
		else if (!bad_address(val) && !bad_address(len) && (int)*len >= 0)
			ret = sockopt_get(&a->e, k, level, name, val, len, level == IPPROTO_TCP ? stack_now(a) : 0);
		stack_leave(a);
	}
	if (ret == SOCKOPT_NOT_OURS)
		ret = host_sys.getsockopt(fd, level, name, val, len) < 0 ? -errno : 0;
	return ret;
}
