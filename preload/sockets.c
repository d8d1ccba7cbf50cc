/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making, naming and connecting sockets. Each call looks its descriptor up; what is not accelerated goes to libc. A
 * call that answers VS_KERNEL has found that the kernel must serve the socket: the table says so from then on, and the
 * kernel's call follows on the same descriptor.
 */
#include "calls.h"
#include "fdtable.h"
#include "socket/epoll.h"

static bool is_ip(int domain)
{
	return domain == AF_INET || domain == AF_INET6;
}

int socket(int domain, int type, int protocol)
{
	enum reason reason = REASON_NONE;
	vsock_t v = VS_NONE;
	int fd;

	if (!fd_limit || !is_ip(domain)) {
		fd = real.socket(domain, type, protocol);
		if (fd >= 0 && fd_limit)
			fd_set_other(fd);
		return fd;
	}
	fd = vs_open(domain, type, protocol, &v, &reason);
	if (fd < 0)
		return (int)posix_result(fd);
	if (v != VS_NONE)
		fd_set_socket(fd, v);
	else
		fd_set_kernel(fd, reason);
	return fd;
}

int bind(int fd, __CONST_SOCKADDR_ARG addr, socklen_t len)
{
	vsock_t v = fd_vsock(fd);
	enum reason reason = REASON_NONE;
	int r;

	if (v == VS_NONE)
		return real.bind(fd, addr, len);
	r = vs_bind(v, fd, addr.__sockaddr__, len, &reason);
	if (r == VS_KERNEL) {
		fd_to_kernel(fd, v, reason);
		return real.bind(fd, addr, len);
	}
	if (r == 0)
		ep_refresh(v);
	return (int)posix_result(r);
}

int listen(int fd, int backlog)
{
	vsock_t v = fd_vsock(fd);
	enum reason reason = REASON_NONE;
	int r;

	if (v == VS_NONE)
		return real.listen(fd, backlog);
	r = vs_listen(v, fd, backlog, &reason);
	if (r == VS_KERNEL) {
		fd_to_kernel(fd, v, reason);
		return real.listen(fd, backlog);
	}
	if (r == 0)
		ep_refresh(v);
	return (int)posix_result(r);
}

static int accept_any(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	vsock_t v = fd_vsock(fd), child = VS_NONE;
	enum reason reason = REASON_NONE;
	int r;

	if (v == VS_NONE) {
		r = real.accept4(fd, sa, len, flags);
		if (r >= 0 && fd_limit) {
			uint64_t word = fd_word(fd);

			if (fd_word_kind(word) == FD_KERNEL_SOCKET)
				fd_set_kernel(r, (enum reason)(word & FD_VALUE_MASK));
			else
				fd_set_other(r);
		}
		return r;
	}
	if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
		return (int)posix_result(-EINVAL);
	if (sa && bad_name(sa, len))
		return (int)posix_result(-EFAULT);
	r = vs_accept(v, fd, sa, len, flags, true, &child, &reason);
	if (r == VS_KERNEL) {
		fd_to_kernel(fd, v, reason);
		return accept_any(fd, sa, len, flags);
	}
	if (r < 0)
		return (int)posix_result(r);
	if (child != VS_NONE)
		fd_set_socket(r, child);
	else
		fd_set_kernel(r, reason);
	return r;
}

int accept(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	return accept_any(fd, addr.__sockaddr__, len, 0);
}

int accept4(int fd, __SOCKADDR_ARG addr, socklen_t *len, int flags)
{
	return accept_any(fd, addr.__sockaddr__, len, flags);
}

/* A nonblocking connect that nobody under the library took (vs_connect_in_kernel). */
bool connect_in_kernel(vsock_t v, const struct sockaddr *sa, socklen_t len, enum reason reason)
{
	int fd = fd_of_socket(v), error = errno;
	bool under_way = fd >= 0 && (real.connect(fd, sa, len) == 0 || errno == EINPROGRESS);

	errno = error;
	if (under_way)
		fd_to_kernel(fd, v, reason);
	return under_way;
}

int connect(int fd, __CONST_SOCKADDR_ARG addr, socklen_t len)
{
	vsock_t v = fd_vsock(fd);
	enum reason reason = REASON_NONE;
	int r;

	if (v == VS_NONE)
		return real.connect(fd, addr, len);
	if (bad_pointer(addr.__sockaddr__))
		return (int)posix_result(-EFAULT);
	r = vs_connect(v, fd, addr.__sockaddr__, len, true, &reason);
	if (r == VS_KERNEL) {
		fd_to_kernel(fd, v, reason);
		return real.connect(fd, addr, len);
	}
	ep_refresh(v);
	return (int)posix_result(r);
}
TWIN_OF(connect, __connect);

int shutdown(int fd, int how)
{
	vsock_t v = fd_vsock(fd);

	if (v == VS_NONE)
		return real.shutdown(fd, how);
	return (int)posix_result(vs_shutdown(v, fd, how));
}

int getsockname(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	vsock_t v = fd_vsock(fd);

	if (v == VS_NONE)
		return real.getsockname(fd, addr, len);
	if (bad_name(addr.__sockaddr__, len))
		return (int)posix_result(-EFAULT);
	return (int)posix_result(vs_getsockname(v, fd, addr.__sockaddr__, len));
}

int getpeername(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	vsock_t v = fd_vsock(fd);

	if (v == VS_NONE)
		return real.getpeername(fd, addr, len);
	if (bad_name(addr.__sockaddr__, len))
		return (int)posix_result(-EFAULT);
	return (int)posix_result(vs_getpeername(v, fd, addr.__sockaddr__, len));
}

int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	vsock_t v = fd_vsock(fd);

	if (v == VS_NONE)
		return real.getsockopt(fd, level, name, val, len);
	return (int)posix_result(vs_getsockopt(v, fd, level, name, val, len));
}

int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	vsock_t v = fd_vsock(fd);
	int r;

	if (v == VS_NONE)
		return real.setsockopt(fd, level, name, val, len);
	r = vs_setsockopt(v, fd, level, name, val, len);
	if (r == VS_KERNEL) { /* the kernel's socket has the option by now */
		fd_to_kernel(fd, v, REASON_OPTION);
		return 0;
	}
	return (int)posix_result(r);
}
