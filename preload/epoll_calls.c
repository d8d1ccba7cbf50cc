/* SPDX-License-Identifier: BSD-2-Clause */
/* epoll: descriptors to sets (src/socket/epoll.c). A set without accelerated members is left to the kernel. */
#include <limits.h>

#include "calls.h"
#include "fdtable.h"

static int made(int fd)
{
	struct epset *set;

	if (fd < 0 || !fd_limit)
		return fd;
	set = ep_new(fd);
	if (set)
		fd_set_epoll(fd, set);
	else
		fd_set_other(fd);
	return fd;
}

int epoll_create(int size)
{
	return made(real.epoll_create(size));
}

int epoll_create1(int flags)
{
	return made(real.epoll_create1(flags));
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct epset *set = fd_epset(epfd), *nested = fd_epset(fd);

	if (!set) {
		if (fd_vsock(fd) != VS_NONE)
			vs_spoil(fd_vsock(fd)); /* a set that we don't know would keep it */
		return real.epoll_ctl(epfd, op, fd, event);
	}
	if (epfd == fd || nested == set)
		return (int)posix_result(-EINVAL);
	return (int)posix_result(ep_ctl(set, op, fd, fd_vsock(fd), nested, event));
}

int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
	struct epset *set = fd_epset(epfd);

	if (!set || bad_pointer(events))
		return real.epoll_wait(epfd, events, max, timeout);
	return (int)posix_result(ep_wait(set, events, max, timeout < 0 ? -1 : (int64_t)timeout * 1000, NULL));
}

int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout, const __sigset_t *mask)
{
	struct epset *set = fd_epset(epfd);

	if (!set || bad_pointer(events))
		return real.epoll_pwait(epfd, events, max, timeout, mask);
	return (int)posix_result(ep_wait(set, events, max, timeout < 0 ? -1 : (int64_t)timeout * 1000, mask));
}

int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout, const __sigset_t *mask)
{
	struct epset *set = fd_epset(epfd);
	int64_t us = -1;

	if (!set || !ep_has_accelerated(set)) {
		if (real.epoll_pwait2)
			return real.epoll_pwait2(epfd, events, max, timeout, mask);
		return (int)posix_result(-ENOSYS);
	}
	if (timeout) {
		if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
			return (int)posix_result(-EINVAL);
		us = timeout->tv_sec > INT_MAX ? -1 : timeout->tv_sec * 1000000 + (timeout->tv_nsec + 999) / 1000;
	}
	return (int)posix_result(ep_wait(set, events, max, us, mask));
}
