/* SPDX-License-Identifier: BSD-2-Clause */
/* recvmsg(MSG_ERRQUEUE): the errors that the engine has queued for the socket (engine/errqueue.c), then the kernel's of
 * its backing socket, which has sent what the engine could not. Never blocks. */
#define _GNU_SOURCE
#include "socket/cmsg.h"
#include "socket/sockets.h"

static ssize_t kernel_error(int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
			    socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags)
{
	struct msghdr m = {.msg_name = from,
			   .msg_namelen = fromlen ? *fromlen : 0,
			   .msg_iov = (struct iovec *)(uintptr_t)iov,
			   .msg_iovlen = (size_t)iovcnt,
			   .msg_control = control,
			   .msg_controllen = control && controllen ? *controllen : 0};
	ssize_t n = host_sys.recvmsg(fd, &m, flags | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	if (fromlen)
		*fromlen = m.msg_namelen;
	if (controllen)
		*controllen = m.msg_controllen;
	if (msg_flags)
		*msg_flags = m.msg_flags;
	return n;
}

static size_t iov_room(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

ssize_t vs_recv_error(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		      socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags)
{
	struct cmsg_room room = {.at = control, .left = control && controllen ? *controllen : 0};
	struct cmsg_datagram d = {0};
	struct sock_error err;
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	ssize_t n;

	if (!k)
		return -EBADF;
	stack_take_in(a);
	n = errqueue_take(&a->e, k, iov, iovcnt, &err, &d.meta);
	d.family = k->family;
	d.cmsgs = k->proto == SOCK_UDP ? k->udp.cmsgs : 0;
	d.ifindex = n >= 0 && d.meta.vnic < VNIC_MAX ? stack_vnic(a->s, d.meta.vnic)->ifindex : 0;
	stack_leave(a);
	if (n == -EAGAIN)
		return kernel_error(fd, iov, iovcnt, flags, from, fromlen, control, controllen, msg_flags);
	if (n < 0)
		return n;
	sock_name_out(&d.meta.from, d.family, from, fromlen);
	if (err.origin != ERROR_LOCAL) {
		if (!d.ifindex)
			d.ifindex = addr_ifindex(d.meta.to.addr);
		cmsg_datagram(&room, &d);
	}
	cmsg_error(&room, &d, &err);
	if (controllen)
		*controllen = room.used;
	if (msg_flags)
		*msg_flags = MSG_ERRQUEUE | room.flags | (d.meta.size > iov_room(iov, iovcnt) ? MSG_TRUNC : 0);
	return n;
}
