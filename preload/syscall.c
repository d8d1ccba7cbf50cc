/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * syscall(): the numbers of intercepted calls go to the intercepted functions, all others to the kernel as they are.
 * libc's functions and the bare calls differ where the comments say so.
 */
#include <stdarg.h>
#include <sys/syscall.h>

#include "calls.h"
#include "fdtable.h"

static long raw(long number, const long a[6])
{
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return posix_result(r);
}

/* The calls on one descriptor, a[0]. */
static long data_call(long number, const long a[6])
{
	int fd = (int)a[0];

	switch (number) {
	case SYS_read:
		return read(fd, (void *)a[1], (size_t)a[2]);
	case SYS_write:
		return write(fd, (const void *)a[1], (size_t)a[2]);
	case SYS_readv:
		return readv(fd, (const struct iovec *)a[1], (int)a[2]);
	case SYS_writev:
		return writev(fd, (const struct iovec *)a[1], (int)a[2]);
	case SYS_sendto:
		return sendto(fd, (const void *)a[1], (size_t)a[2], (int)a[3], (const struct sockaddr *)a[4],
			      (socklen_t)a[5]);
	case SYS_recvfrom:
		return recvfrom(fd, (void *)a[1], (size_t)a[2], (int)a[3], (struct sockaddr *)a[4], (socklen_t *)a[5]);
	case SYS_sendmsg:
		return sendmsg(fd, (const struct msghdr *)a[1], (int)a[2]);
	case SYS_recvmsg:
		return recvmsg(fd, (struct msghdr *)a[1], (int)a[2]);
	case SYS_sendmmsg:
		return sendmmsg(fd, (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3]);
	case SYS_recvmmsg:
		return recvmmsg(fd, (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3], (struct timespec *)a[4]);
	case SYS_sendfile:
		return sendfile(fd, (int)a[1], (off_t *)a[2], (size_t)a[3]);
	default:
		return raw(number, a);
	}
}

static long socket_call(long number, const long a[6])
{
	int fd = (int)a[0];

	switch (number) {
	case SYS_socket:
		return socket((int)a[0], (int)a[1], (int)a[2]);
	case SYS_bind:
		return bind(fd, (const struct sockaddr *)a[1], (socklen_t)a[2]);
	case SYS_listen:
		return listen(fd, (int)a[1]);
	case SYS_accept:
		return accept(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
	case SYS_accept4:
		return accept4(fd, (struct sockaddr *)a[1], (socklen_t *)a[2], (int)a[3]);
	case SYS_connect:
		return connect(fd, (const struct sockaddr *)a[1], (socklen_t)a[2]);
	case SYS_shutdown:
		return shutdown(fd, (int)a[1]);
	case SYS_getsockname:
		return getsockname(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
	case SYS_getpeername:
		return getpeername(fd, (struct sockaddr *)a[1], (socklen_t *)a[2]);
	case SYS_getsockopt:
		return getsockopt(fd, (int)a[1], (int)a[2], (void *)a[3], (socklen_t *)a[4]);
	case SYS_setsockopt:
		return setsockopt(fd, (int)a[1], (int)a[2], (const void *)a[3], (socklen_t)a[4]);
	default:
		return data_call(number, a);
	}
}

static long descriptor_call(long number, const long a[6])
{
	int fd = (int)a[0];

	switch (number) {
	case SYS_close:
		return close(fd);
	case SYS_close_range:
		return close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
	case SYS_dup:
		return dup(fd);
	case SYS_dup2:
		return dup2(fd, (int)a[1]);
	case SYS_dup3:
		return dup3(fd, (int)a[1], (int)a[2]);
	case SYS_fcntl:
		return fcntl(fd, (int)a[1], a[2]);
	case SYS_ioctl:
		return ioctl(fd, (unsigned long)a[1], a[2]);
	case SYS_fork:
	case SYS_vfork:
		return fork();
	case SYS_exit_group:
		_exit(fd);
	default:
		return socket_call(number, a);
	}
}

/* The kernel's signal masks are 8 bytes, libc's are 128: widen before a libc function reads it. */
static const sigset_t *widen(long from, sigset_t *to)
{
	if (!from)
		return NULL;
	sigemptyset(to);
	__builtin_memcpy(to, (const void *)from, 8);
	return to;
}

/* pselect6's last argument points to a pointer to the mask and its size. */
static long pselect6(const long a[6])
{
	const long *pair = (const long *)a[5];
	sigset_t mask;

	return pselect((int)a[0], (fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3], (const struct timespec *)a[4],
		       widen(pair ? pair[0] : 0, &mask));
}

static long wait_call(long number, const long a[6])
{
	struct epoll_event *events = (struct epoll_event *)a[1];
	int fd = (int)a[0];
	sigset_t mask;

	switch (number) {
	case SYS_poll:
		return poll((struct pollfd *)a[0], (nfds_t)a[1], (int)a[2]);
	case SYS_ppoll:
		return ppoll((struct pollfd *)a[0], (nfds_t)a[1], (const struct timespec *)a[2], widen(a[3], &mask));
	case SYS_select:
		return select(fd, (fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3], (struct timeval *)a[4]);
	case SYS_pselect6:
		return pselect6(a);
	case SYS_epoll_create:
		return epoll_create(fd);
	case SYS_epoll_create1:
		return epoll_create1(fd);
	case SYS_epoll_ctl:
		return epoll_ctl(fd, (int)a[1], (int)a[2], (struct epoll_event *)a[3]);
	case SYS_epoll_wait:
		return epoll_wait(fd, events, (int)a[2], (int)a[3]);
	case SYS_epoll_pwait:
		return epoll_pwait(fd, events, (int)a[2], (int)a[3], widen(a[4], &mask));
	case SYS_epoll_pwait2:
		return epoll_pwait2(fd, events, (int)a[2], (const struct timespec *)a[3], widen(a[4], &mask));
	default:
		return descriptor_call(number, a);
	}
}

long syscall(long number, ...)
{
	va_list args;
	long a[6];

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_futex || !fd_limit)
		return raw(number, a);
	if (number == SYS_io_uring_setup) /* what goes through a ring reaches the kernel's sockets, not ours */
		return posix_result(-ENOSYS);
	return wait_call(number, a);
}
