/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending and receiving. All of them come down to one send and one receive. Errors become errno here, and EPIPE also
 * SIGPIPE to this thread, unless MSG_NOSIGNAL is given.
 */
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "fdtable.h"
#include "rights.h"
#include "signals.h"
#include "socket/raw.h"
#include "thread.h"

#define IOV_MAX_KERNEL 1024 /* UIO_MAXIOV */
#define FILE_CHUNK 65536u   /* sendfile reads this much at a time */

_Noreturn void __chk_fail(void); /* libc's: «buffer overflow detected» */

/* --- receiving --- */

static ssize_t receive(vsock_t v, int fd, const struct iovec *iov, int n, int flags)
{
	return vs_recv(v, fd, iov, n, flags, NULL, NULL, NULL, NULL, NULL, !(flags & MSG_DONTWAIT));
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	vsock_t v = fd_vsock(fd);
	struct iovec iov = {buf, len};
	ssize_t r;

	if (v == VS_NONE)
		return real.recv(fd, buf, len, flags);
	r = receive(v, fd, &iov, 1, flags);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.recv(fd, buf, len, flags);
	}
	return posix_result(r);
}

ssize_t read(int fd, void *buf, size_t len)
{
	vsock_t v = fd_vsock(fd);
	struct iovec iov = {buf, len};
	ssize_t r;

	if (v == VS_NONE)
		return real.read(fd, buf, len);
	if (unlikely(!len))
		return 0;
	r = receive(v, fd, &iov, 1, 0);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.read(fd, buf, len);
	}
	return posix_result(r);
}
TWIN_OF(read, __read);

static bool iov_empty(const struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++)
		if (iov[i].iov_len)
			return false;
	return true;
}

ssize_t readv(int fd, const struct iovec *iov, int n)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE || n < 0 || n > IOV_MAX_KERNEL || bad_pointer(iov))
		return real.readv(fd, iov, n);
	if (iov_empty(iov, n))
		return 0;
	r = receive(v, fd, iov, n, 0);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.readv(fd, iov, n);
	}
	return posix_result(r);
}

ssize_t recvfrom(int fd, void *buf, size_t len, int flags, __SOCKADDR_ARG from, socklen_t *fromlen)
{
	vsock_t v = fd_vsock(fd);
	struct iovec iov = {buf, len};
	ssize_t r;

	if (v == VS_NONE)
		return real.recvfrom(fd, buf, len, flags, from, fromlen);
	if (from.__sockaddr__ && bad_name(from.__sockaddr__, fromlen))
		return posix_result(-EFAULT);
	r = vs_recv(v, fd, &iov, 1, flags, from.__sockaddr__, from.__sockaddr__ ? fromlen : NULL, NULL, NULL, NULL,
		    !(flags & MSG_DONTWAIT));
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.recvfrom(fd, buf, len, flags, from, fromlen);
	}
	return posix_result(r);
}

static bool bad_msg(const struct msghdr *m)
{
	return bad_pointer(m) || (m->msg_iovlen && bad_pointer(m->msg_iov)) ||
	       (m->msg_name && bad_pointer(m->msg_name)) || (m->msg_control && bad_pointer(m->msg_control));
}

/* recvmsg with a negative errno or VS_KERNEL. */
static ssize_t receive_msg(vsock_t v, int fd, struct msghdr *m, int flags)
{
	size_t controllen;
	socklen_t namelen;
	int out = 0;
	ssize_t r;

	if (bad_msg(m))
		return -EFAULT;
	controllen = m->msg_controllen;
	namelen = m->msg_namelen;
	if (m->msg_iovlen > IOV_MAX_KERNEL)
		return -EMSGSIZE;
	r = vs_recv(v, fd, m->msg_iov, (int)m->msg_iovlen, flags, m->msg_name, m->msg_name ? &namelen : NULL,
		    m->msg_control, &controllen, &out, !(flags & MSG_DONTWAIT));
	if (r < 0)
		return r;
	m->msg_flags = out | (flags & MSG_CMSG_CLOEXEC);
	m->msg_controllen = m->msg_control ? controllen : 0;
	if (m->msg_name)
		m->msg_namelen = namelen;
	return r;
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE)
		return unlikely(fd_limit && rights_expected(m)) ? rights_receive(fd, m, flags)
								: real.recvmsg(fd, m, flags);
	r = receive_msg(v, fd, m, flags);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.recvmsg(fd, m, flags);
	}
	return posix_result(r);
}

/* The kernel looks at the timeout after each message only: see recvmmsg(2), BUGS. */
static bool past(const struct timespec *start, const struct timespec *timeout)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now.tv_sec -= start->tv_sec;
	now.tv_nsec -= start->tv_nsec;
	if (now.tv_nsec < 0) {
		now.tv_sec--;
		now.tv_nsec += 1000000000;
	}
	return now.tv_sec > timeout->tv_sec || (now.tv_sec == timeout->tv_sec && now.tv_nsec >= timeout->tv_nsec);
}

int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags, struct timespec *timeout)
{
	vsock_t v = fd_vsock(fd);
	struct timespec start = {0};
	unsigned int i;
	ssize_t r = 0;

	if (v == VS_NONE)
		return real.recvmmsg(fd, msgs, n, flags, timeout);
	if (timeout)
		clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < n; i++) {
		r = receive_msg(v, fd, &msgs[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (r == VS_KERNEL && i == 0) {
			fd_to_kernel(fd, v, REASON_UNCONNECTED);
			return real.recvmmsg(fd, msgs, n, flags, timeout);
		}
		if (r < 0)
			break;
		msgs[i].msg_len = (unsigned int)r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (msgs[i].msg_hdr.msg_flags & MSG_OOB || (timeout && past(&start, timeout))) {
			i++;
			break;
		}
	}
	return i ? (int)i : (int)posix_result(r);
}

/* --- sending --- */

static bool is_stream(int fd)
{
	socklen_t len = sizeof(int);
	int type = 0;

	return real.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* A failed send: SIGPIPE where due, then errno. */
static ssize_t send_result(int fd, ssize_t r, int flags)
{
	if (r >= 0)
		return r;
	if (r == -EPIPE && !(flags & MSG_NOSIGNAL) && is_stream(fd))
		signals_sigpipe();
	errno = (int)-r;
	return -1;
}

static ssize_t transmit(vsock_t v, int fd, const struct iovec *iov, int n, int flags)
{
	return vs_send(v, fd, iov, n, flags, NULL, 0, NULL, 0, !(flags & MSG_DONTWAIT));
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE)
		return real.send(fd, buf, len, flags);
	r = vs_write(v, fd, buf, len, flags);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.send(fd, buf, len, flags);
	}
	return send_result(fd, r, flags);
}
TWIN_OF(send, __send);

ssize_t write(int fd, const void *buf, size_t len)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE)
		return real.write(fd, buf, len);
	r = vs_write(v, fd, buf, len, 0);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.write(fd, buf, len);
	}
	return send_result(fd, r, 0);
}
TWIN_OF(write, __write);

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE || n < 0 || n > IOV_MAX_KERNEL || bad_pointer(iov))
		return real.writev(fd, iov, n);
	if (iov_empty(iov, n))
		return 0;
	r = transmit(v, fd, iov, n, 0);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.writev(fd, iov, n);
	}
	return send_result(fd, r, 0);
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, __CONST_SOCKADDR_ARG to, socklen_t tolen)
{
	vsock_t v = fd_vsock(fd);
	struct iovec iov = {(void *)buf, len};
	ssize_t r;

	if (v == VS_NONE)
		return real.sendto(fd, buf, len, flags, to, tolen);
	if (to.__sockaddr__ && bad_pointer(to.__sockaddr__))
		return posix_result(-EFAULT);
	r = vs_send(v, fd, &iov, 1, flags, to.__sockaddr__, tolen, NULL, 0, !(flags & MSG_DONTWAIT));
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.sendto(fd, buf, len, flags, to, tolen);
	}
	return send_result(fd, r, flags);
}

static ssize_t transmit_msg(vsock_t v, int fd, const struct msghdr *m, int flags)
{
	if (bad_msg(m))
		return -EFAULT;
	if (m->msg_iovlen > IOV_MAX_KERNEL)
		return -EMSGSIZE;
	return vs_send(v, fd, m->msg_iov, (int)m->msg_iovlen, flags, m->msg_name, m->msg_name ? m->msg_namelen : 0,
		       m->msg_controllen ? m->msg_control : NULL, m->msg_controllen, !(flags & MSG_DONTWAIT));
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	vsock_t v = fd_vsock(fd);
	ssize_t r;

	if (v == VS_NONE)
		return unlikely(rights_ours(m)) ? rights_send(fd, m, flags) : real.sendmsg(fd, m, flags);
	r = transmit_msg(v, fd, m, flags);
	if (unlikely(r == VS_KERNEL)) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.sendmsg(fd, m, flags);
	}
	return send_result(fd, r, flags);
}

/* On the kernel's socket, one by one if any of them carries a socket of ours. */
static int send_several(int fd, struct mmsghdr *msgs, unsigned int n, int flags)
{
	unsigned int i = 0;

	while (fd_limit && !bad_pointer(msgs) && i < n && !rights_ours(&msgs[i].msg_hdr))
		i++;
	if (i >= n || !fd_limit || bad_pointer(msgs))
		return real.sendmmsg(fd, msgs, n, flags);
	for (i = 0; i < n; i++) {
		ssize_t r = sendmsg(fd, &msgs[i].msg_hdr, flags);

		if (r < 0)
			break;
		msgs[i].msg_len = (unsigned int)r;
	}
	return i ? (int)i : -1;
}

int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags)
{
	vsock_t v = fd_vsock(fd);
	unsigned int i;
	ssize_t r = 0;

	if (v == VS_NONE)
		return send_several(fd, msgs, n, flags);
	if (n > IOV_MAX_KERNEL)
		n = IOV_MAX_KERNEL;
	for (i = 0; i < n; i++) {
		r = transmit_msg(v, fd, &msgs[i].msg_hdr, flags);
		if (r == VS_KERNEL && i == 0) {
			fd_to_kernel(fd, v, REASON_UNCONNECTED);
			return real.sendmmsg(fd, msgs, n, flags);
		}
		if (r < 0)
			break;
		msgs[i].msg_len = (unsigned int)r;
	}
	return i ? (int)i : (int)send_result(fd, r, flags);
}

/* --- sendfile --- */

/* One chunk from the file at `from` (or, without one, at its own position) to the socket. Bytes sent, 0 at the end. */
static ssize_t send_chunk(vsock_t v, int fd, int in, const off_t *from, size_t len, bool more, char *buf)
{
	/* not libc's: sendfile is no cancellation point */
	ssize_t got = from ? raw_call(SYS_pread64, in, (long)buf, (long)len, *from, 0, 0)
			   : raw_call(SYS_read, in, (long)buf, (long)len, 0, 0, 0);
	struct iovec iov = {buf, got > 0 ? (size_t)got : 0};
	ssize_t sent;

	if (got <= 0)
		return got;
	sent = vs_send(v, fd, &iov, 1, more && (size_t)got == len ? MSG_MORE : 0, NULL, 0, NULL, 0, true);
	if (!from && sent < got)
		lseek(in, sent > 0 ? sent - got : -got, SEEK_CUR);
	return sent;
}

ssize_t sendfile(int fd, int in, off_t *offset, size_t count)
{
	vsock_t v = fd_vsock(fd);
	bool ours = v != VS_NONE && fd_vsock(in) == VS_NONE && !(offset && bad_pointer(offset));
	char *buf = ours ? thread_buffer(FILE_CHUNK) : NULL;
	off_t at = buf && offset ? *offset : 0;
	size_t done = 0;
	ssize_t r = 0;

	if (!buf)
		return real.sendfile(fd, in, offset, count);
	if (count > 0x7ffff000)
		count = 0x7ffff000;
	while (done < count) {
		size_t len = count - done < FILE_CHUNK ? count - done : FILE_CHUNK;

		r = send_chunk(v, fd, in, offset ? &at : NULL, len, done + len < count, buf);
		if (r <= 0)
			break;
		done += (size_t)r;
		at += r;
		if ((size_t)r < len)
			break;
	}
	if (r == VS_KERNEL) {
		fd_to_kernel(fd, v, REASON_UNCONNECTED);
		return real.sendfile(fd, in, offset, count);
	}
	if (offset)
		*offset = at;
	return done ? (ssize_t)done : send_result(fd, r, 0);
}
TWIN_OF(sendfile, sendfile64);

/* --- fortified twins --- */

ssize_t __read_chk(int fd, void *buf, size_t len, size_t size)
{
	if (len > size)
		__chk_fail();
	return read(fd, buf, len);
}

ssize_t __recv_chk(int fd, void *buf, size_t len, size_t size, int flags)
{
	if (len > size)
		__chk_fail();
	return recv(fd, buf, len, flags);
}

ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t size, int flags, __SOCKADDR_ARG from, socklen_t *fromlen)
{
	if (len > size)
		__chk_fail();
	return recvfrom(fd, buf, len, flags, from, fromlen);
}
