/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors: closing, duplicating, and the parts of fcntl and ioctl that concern sockets. The table forgets a
 * descriptor before the kernel frees its number, because another thread may get the number at once. Descriptors of our
 * own look closed to the program.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "calls.h"
#include "fdtable.h"
#include "host/host.h"
#include "stdio_streams.h"

static int bad_fd(void)
{
	errno = EBADF;
	return -1;
}

int close(int fd)
{
	if (fd_word(fd))
		fd_closing(fd);
	else if (unlikely(host_fd_is_ours(fd)))
		return bad_fd();
	return real.close(fd);
}
TWIN_OF(close, __close);

int fclose(FILE *stream)
{
	int fd = fileno(stream);

	if (fd >= 0 && fd_word(fd) && !streams_made(stream))
		fd_closing(fd);
	return real.fclose(stream);
}

/* Give the kernel the ranges between our own descriptors. */
static int close_between(unsigned first, unsigned last, int flags)
{
	while (first <= last) {
		int ours = first > INT_MAX ? -1 : host_fd_next((int)first);

		if (ours < 0 || (unsigned)ours > last)
			return real.close_range(first, last, flags);
		if ((unsigned)ours > first && real.close_range(first, (unsigned)ours - 1, flags) < 0)
			return -1;
		first = (unsigned)ours + 1;
	}
	return 0;
}

int close_range(unsigned int first, unsigned int last, int flags)
{
	if (!fd_limit || first > last || flags & ~(int)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC))
		return real.close_range(first, last, flags);
	if (!(flags & CLOSE_RANGE_CLOEXEC))
		fd_closing_range(first, last);
	return close_between(first, last, flags);
}

void closefrom(int first)
{
	if (!fd_limit)
		real.closefrom(first);
	else
		close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0);
}

/* A duplicate was made. */
static int duplicated(int old, int fd)
{
	if (fd < 0)
		return fd;
	if (fd_word(old) || fd_word(fd))
		fd_set_dup(old, fd);
	return fd;
}

int dup(int old)
{
	return duplicated(old, real.dup(old));
}

/* What had the number is closed by the kernel: forget it first, but only if the call will succeed. */
static bool replaces(int old, int fd)
{
	if (unlikely(host_fd_is_ours(fd)))
		return false;
	if (old != fd && fd_word(fd) && real.fcntl(old, F_GETFD) >= 0)
		fd_closing(fd);
	return true;
}

int dup2(int old, int fd)
{
	if (!replaces(old, fd))
		return bad_fd();
	return duplicated(old, real.dup2(old, fd));
}
TWIN_OF(dup2, __dup2);

int dup3(int old, int fd, int flags)
{
	if ((flags & ~O_CLOEXEC) || old == fd)
		return real.dup3(old, fd, flags);
	if (!replaces(old, fd))
		return bad_fd();
	return duplicated(old, real.dup3(old, fd, flags));
}

/* SIGIO is the kernel's to send. */
static int want_signals(vsock_t v, int fd, int flags)
{
	int r = vs_leave_to_kernel(v);

	if (r == VS_KERNEL)
		fd_to_kernel(fd, v, REASON_OPTION);
	if (r == VS_KERNEL || r == 0)
		return 0;
	real.fcntl(fd, F_SETFL, flags & ~O_ASYNC);
	return (int)posix_result(r);
}

int fcntl(int fd, int op, ...)
{
	va_list args;
	void *arg;
	vsock_t v;
	int r;

	va_start(args, op);
	arg = va_arg(args, void *); /* every operation's argument fits; those without one don't look at it */
	va_end(args);
	r = real.fcntl(fd, op, arg);
	if (r < 0)
		return r;
	if (op == F_DUPFD || op == F_DUPFD_CLOEXEC)
		return duplicated(fd, r);
	v = fd_vsock(fd);
	if (v == VS_NONE)
		return r;
	if (op == F_SETFL)
		vs_set_nonblock(v, ((int)(intptr_t)arg & O_NONBLOCK) != 0);
	if (op == F_SETOWN || op == F_SETOWN_EX || op == F_SETSIG ||
	    (op == F_SETFL && (int)(intptr_t)arg & (O_ASYNC | O_APPEND | O_DIRECT | O_NOATIME)))
		vs_spoil(v);
	if (op == F_SETFL && (int)(intptr_t)arg & O_ASYNC)
		return want_signals(v, fd, (int)(intptr_t)arg);
	return r;
}
TWIN_OF(fcntl, __fcntl);
TWIN_OF(fcntl, fcntl64);

static int socket_ioctl(vsock_t v, int fd, unsigned long request, int *arg)
{
	int r;

	switch (request) {
	case FIONREAD:
		r = vs_inq(v, fd);
		break;
	case SIOCOUTQ:
		r = vs_outq(v);
		break;
	case SIOCATMARK:
		r = vs_atmark(v);
		break;
	case FIONBIO:
		r = vs_set_nonblock(v, *arg != 0);
		return r < 0 ? (int)posix_result(r) : real.ioctl(fd, request, arg);
	default:
		vs_spoil(v);
		return real.ioctl(fd, request, arg);
	}
	if (r < 0)
		return (int)posix_result(r);
	*arg = r;
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	vsock_t v = fd_vsock(fd);
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (v == VS_NONE)
		return real.ioctl(fd, request, arg);
	if (bad_pointer(arg))
		return real.ioctl(fd, request, arg);
	return socket_ioctl(v, fd, request, arg);
}

int sockatmark(int fd)
{
	vsock_t v = fd_vsock(fd);

	return v == VS_NONE ? real.sockatmark(fd) : (int)posix_result(vs_atmark(v));
}

ssize_t splice(int in, off64_t *in_off, int out, off64_t *out_off, size_t len, unsigned int flags)
{
	if (fd_vsock(in) == VS_NONE && fd_vsock(out) == VS_NONE)
		return real.splice(in, in_off, out, out_off, len, flags);
	return posix_result(-EINVAL);
}
