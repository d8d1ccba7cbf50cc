/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors of our own in the program's table. They are moved above the numbers that programs usually get (a
 * program may rely on the lowest free number, or close everything above 2) and are close-on-exec.
 *
 * A bit per number says which are ours, so the preload library can refuse to close them for the program. The
 * bitmap is private memory: after fork the child has the same descriptors and the same bits. Numbers above the
 * bitmap are never used. All functions are thread-safe and async-signal-safe.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define FD_BASE 960   /* below FD_SETSIZE, so the kernel's table need not grow for most programs */
#define FD_RESERVE 64 /* room that we leave ourselves below the limit */
#define FD_TRACKED 65536
#define FD_PLENTY 1024u
#define BITS 64

static _Atomic uint64_t ours[FD_TRACKED / BITS];

static void mark(int fd)
{
	atomic_fetch_or(&ours[fd / BITS], 1ull << (fd % BITS));
}

bool host_fd_is_ours(int fd)
{
	if (fd < 0 || fd >= FD_TRACKED)
		return false;
	return atomic_load_explicit(&ours[fd / BITS], memory_order_relaxed) >> (fd % BITS) & 1;
}

int host_fd_next(int from)
{
	for (int fd = from < 0 ? 0 : from; fd < FD_TRACKED;) {
		uint64_t word = atomic_load_explicit(&ours[fd / BITS], memory_order_relaxed) >> (fd % BITS);
		if (word)
			return fd + __builtin_ctzll(word);
		fd = (fd / BITS + 1) * BITS;
	}
	return -1;
}

/* The lowest number to try first; with a small limit three quarters of it. */
static int base_number(void)
{
	struct rlimit lim;
	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 0;
	if (lim.rlim_cur >= FD_BASE + FD_RESERVE)
		return FD_BASE;
	if (lim.rlim_cur >= 4 * FD_RESERVE)
		return (int)lim.rlim_cur - FD_RESERVE;
	return (int)(lim.rlim_cur * 3 / 4);
}

bool host_fd_plenty(void)
{
	struct rlimit lim;

	return getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur >= FD_PLENTY;
}

/* The limit is asked for once, if it is large; where it has become small since, the number is refused (EINVAL). */
int host_fd_dup_high(int fd)
{
	static _Atomic bool large;
	int high = -1, from;

	if (atomic_load_explicit(&large, memory_order_relaxed))
		high = host_sys.fcntl(fd, F_DUPFD_CLOEXEC, FD_BASE);
	else
		errno = EINVAL;
	if (high < 0 && errno == EINVAL) {
		from = base_number();
		atomic_store_explicit(&large, from == FD_BASE, memory_order_relaxed);
		high = host_sys.fcntl(fd, F_DUPFD_CLOEXEC, from);
	}
	if (high < 0)
		return -errno;
	if (high >= FD_TRACKED) {
		host_sys.close(high);
		return -EMFILE;
	}
	mark(high);
	return high;
}

int host_fd_high(int fd)
{
	if (fd < 0)
		return -EBADF;
	for (int base = base_number(); base > fd; base /= 2) {
		int high = host_sys.fcntl(fd, F_DUPFD_CLOEXEC, base);
		if (high < 0 && errno != EMFILE && errno != EINVAL)
			return -errno;
		if (high < 0)
			continue; /* no number free up there: lower */
		if (high >= FD_TRACKED) {
			host_sys.close(high);
			break;
		}
		mark(high);
		host_sys.close(fd);
		return high;
	}
	/* It stands high already, or nothing higher is free: then it stays where it is. */
	if (fd >= FD_TRACKED)
		return -EMFILE;
	if (host_sys.fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	mark(fd);
	return fd;
}

int host_fd_own(int fd)
{
	int high;

	if (fd < 0)
		return -errno;
	high = host_fd_high(fd);
	if (high < 0)
		host_sys.close(fd);
	return high;
}

void host_fd_close(int fd)
{
	if (fd < 0)
		return;
	/* The bit goes first: once closed, the number may be the program's. */
	if (fd < FD_TRACKED)
		atomic_fetch_and(&ours[fd / BITS], ~(1ull << (fd % BITS)));
	host_sys.close(fd);
}

void host_fds_attach(struct msghdr *msg, void *control, const int *fds, uint32_t count)
{
	struct cmsghdr *c = control;

	if (!count)
		return;
	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(count * sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}
