/* SPDX-License-Identifier: BSD-2-Clause */
/* read and write and their kin for packetdrill scripts. */
#include <fcntl.h>
#include <string.h>

#include "calls.h"
#include "socket/sockopt.h"

/* After shutdown or errors the engine says -errno; blocking calls wait through machine_block. */
static ssize_t result(ssize_t r)
{
	if (r >= 0)
		return r;
	errno = (int)-r;
	return -1;
}

static bool blocks(const struct machine_fd *f, int flags)
{
	return !f->nonblock && !(flags & MSG_DONTWAIT);
}

ssize_t call_recvmsg(void *u, int fd, struct msghdr *msg, int flags)
{
	struct machine *m = u;
	ssize_t r = -EBADF;
	int f_engine = ((flags & MSG_OOB) ? TCP_F_OOB : 0) | ((flags & MSG_PEEK) ? TCP_F_PEEK : 0) |
		       ((flags & MSG_TRUNC) ? TCP_F_TRUNC : 0);

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	if (f) {
		struct sock *k = sock_at(m->e.s, f->sock);
		while ((r = tcp_recv(&m->e, k, msg->msg_iov, (int)msg->msg_iovlen, 0, f_engine, m->now_us)) ==
			   -EAGAIN &&
		       blocks(f, flags) && machine_block(m))
			;
		machine_moved(m);
		msg->msg_controllen = r < 0 ? 0 : sockopt_inq_control(&m->e, k, msg->msg_control, msg->msg_controllen);
	}
	pthread_mutex_unlock(&m->mutex);
	msg->msg_flags = 0;
	return result(r);
}

ssize_t call_recvfrom(void *u, int fd, void *to, size_t n, int flags, struct sockaddr *from, socklen_t *len)
{
	struct iovec iov = {to, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	(void)from;
	if (len)
		*len = 0;
	return call_recvmsg(u, fd, &msg, flags);
}

ssize_t call_recv(void *u, int fd, void *to, size_t n, int flags)
{
	return call_recvfrom(u, fd, to, n, flags, NULL, NULL);
}

ssize_t call_read(void *u, int fd, void *to, size_t n)
{
	return call_recv(u, fd, to, n, 0);
}

ssize_t call_readv(void *u, int fd, const struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};

	return call_recvmsg(u, fd, &msg, 0);
}

static bool wait_writable(struct machine *m, const struct sock *k)
{
	while (!(tcp_poll(&m->e, k) & (EV_OUT | EV_ERR | EV_HUP)))
		if (!machine_block(m))
			return false;
	return true;
}

static ssize_t send_all(struct machine *m, struct machine_fd *f, const struct msghdr *msg, int flags)
{
	struct sock *k = sock_at(m->e.s, f->sock);
	int f_engine = ((flags & MSG_OOB) ? TCP_F_OOB : 0) | ((flags & MSG_MORE) ? TCP_F_MORE : 0) |
		       ((flags & MSG_EOR) ? TCP_F_EOR : 0);
	size_t total = 0, done = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		total += msg->msg_iov[i].iov_len;
	do {
		ssize_t r = tcp_send(&m->e, k, msg->msg_iov, (int)msg->msg_iovlen, done, f_engine, m->now_us);
		if (r > 0)
			done += (size_t)r;
		else if (r != -EAGAIN)
			return done ? (ssize_t)done : r;
		else if (!blocks(f, flags) || !wait_writable(m, k))
			return done ? (ssize_t)done : -EAGAIN;
	} while (done < total && blocks(f, flags));
	return (ssize_t)done;
}

ssize_t call_sendmsg(void *u, int fd, const struct msghdr *msg, int flags)
{
	struct machine *m = u;
	ssize_t r = -EBADF;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	if (f) {
		r = send_all(m, f, msg, flags);
		machine_moved(m);
	}
	pthread_mutex_unlock(&m->mutex);
	return result(r);
}

ssize_t call_sendto(void *u, int fd, const void *from, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	struct iovec iov = {(void *)from, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	(void)to, (void)len;
	return call_sendmsg(u, fd, &msg, flags);
}

ssize_t call_send(void *u, int fd, const void *from, size_t n, int flags)
{
	return call_sendto(u, fd, from, n, flags, NULL, 0);
}

ssize_t call_write(void *u, int fd, const void *from, size_t n)
{
	return call_send(u, fd, from, n, 0);
}

ssize_t call_writev(void *u, int fd, const struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};

	return call_sendmsg(u, fd, &msg, 0);
}

int call_pipe(void *u, int fds[2])
{
	(void)u;
	return pipe(fds);
}

/* From a socket: what there is, up to the urgent mark, where a splice ends with nothing (as on the kernel). */
static ssize_t splice_in(struct machine *m, int in, int out, char *buf, size_t n, unsigned int flags)
{
	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, in, FD_SOCK);
	bool mark = f && tcp_atmark(&m->e, sock_at(m->e.s, f->sock));
	pthread_mutex_unlock(&m->mutex);
	if (mark)
		return 0;
	ssize_t got = call_recv(m, in, buf, n, flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
	return got > 0 ? write(out, buf, (size_t)got) : got;
}

int call_splice(void *u, int in, loff_t *in_off, int out, loff_t *out_off, size_t n, unsigned int flags)
{
	struct machine *m = u;
	char buf[65536]; /* a pipe's size */

	if ((in_off && *in_off) || (out_off && *out_off)) /* packetdrill passes a pointer to 0 for none */
		return (int)result(-ESPIPE);
	n = n < sizeof(buf) ? n : sizeof(buf);
	if (in >= 0 && in < MACHINE_FDS && m->fd[in].use == FD_SOCK)
		return (int)splice_in(m, in, out, buf, n, flags);
	ssize_t got = read(in, buf, n);
	return (int)(got > 0 ? call_write(u, out, buf, (size_t)got) : got);
}
