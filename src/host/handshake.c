/* SPDX-License-Identifier: BSD-2-Clause */
/* See handshake.h. No function here leaves a descriptor open when it fails. */
#define _GNU_SOURCE
#include "host/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "vnic/vnic.h"

#define WIRE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* --- waiting --- */

int64_t handshake_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int handshake_poll(int fd, short events, int64_t deadline_ms)
{
	for (;;) {
		int64_t left = deadline_ms - handshake_now_ms();
		if (left < 0)
			left = 0;
		struct pollfd p = {.fd = fd, .events = events};
		int n = host_sys.poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 && left == 0)
			return -ETIMEDOUT;
	}
}

/* --- the message --- */

void hello_fill(struct hello *h, enum hello_kind kind, const uint8_t nonce[16], const uint8_t *stack)
{
	*h = (struct hello){
	    .magic = HELLO_MAGIC,
	    .version = HELLO_VERSION,
	    .size = sizeof(*h),
	    .vnic_version = VNIC_VERSION,
	    .wire_bytes = wire_size(),
	    .bufs = WIRE_BUFS,
	    .buf_size = WIRE_BUF_SIZE,
	    .ring = WIRE_RING,
	    .mtu = WIRE_MTU,
	    .kind = kind,
	};
	memcpy(h->nonce, nonce, sizeof(h->nonce));
	if (stack)
		memcpy(h->stack, stack, sizeof(h->stack));
}

void hello_refuse(struct hello *h, const uint8_t nonce[16], int status)
{
	hello_fill(h, HELLO_REFUSE, nonce, NULL);
	h->status = status;
}

int hello_check(const struct hello *h, enum hello_kind kind, enum hello_kind other)
{
	struct hello mine;
	if (h->magic != HELLO_MAGIC)
		return -EPROTO;
	if (h->version == HELLO_VERSION && h->status < 0)
		return h->status == -EPERM || h->status == -EUSERS ? h->status : -EPROTO;
	/* Everything but kind and names must be what we would say. */
	hello_fill(&mine, h->kind == other ? other : kind, h->nonce, h->stack);
	return memcmp(h, &mine, sizeof(mine)) ? -EPROTO : 0;
}

int hello_send(int fd, const struct hello *h, const int *fds, int count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(HELLO_FDS * sizeof(int))] = {0};
	struct iovec iov = {(void *)h, sizeof(*h)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	host_fds_attach(&msg, control, fds, (uint32_t)count);
	ssize_t n;
	do
		n = host_sys.sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(*h) ? 0 : -EPROTO;
}

/* What came beside a message: descriptors (all of them, also those we did not ask for) and the sender. */
struct ancillary {
	int fds[8 * HELLO_FDS];
	int count;
	struct ucred sender;
};

static void take_ancillary(struct msghdr *msg, struct ancillary *a)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_len < CMSG_LEN(0))
			continue;
		size_t bytes = c->cmsg_len - CMSG_LEN(0);
		if (c->cmsg_type == SCM_CREDENTIALS && bytes == sizeof(struct ucred))
			memcpy(&a->sender, CMSG_DATA(c), sizeof(a->sender));
		if (c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < bytes / sizeof(int); i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (a->count < (int)(sizeof(a->fds) / sizeof(a->fds[0])))
				a->fds[a->count++] = fd;
			else
				host_sys.close(fd);
		}
	}
}

static int receive_once(int fd, struct hello *h, struct ancillary *a)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(HELLO_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = {h, sizeof(*h)};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n;
	do
		n = host_sys.recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_ancillary(&msg, a);
	if (n == 0)
		return -ECONNRESET;
	if (n != (ssize_t)sizeof(*h) || (msg.msg_flags & MSG_TRUNC))
		return -EPROTO;
	/* Descriptors were left out: too many sent, or our table is full. */
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : 0;
}

int hello_receive(int fd, struct hello *h, int *fds, int max, int64_t deadline_ms, struct ucred *sender)
{
	struct ancillary a;
	int rc, resets = 0;
	do {
		rc = handshake_poll(fd, POLLIN, deadline_ms);
		if (rc < 0)
			return rc;
		a.count = 0;
		a.sender = (struct ucred){0};
		rc = receive_once(fd, h, &a);
		/* A peer that refuses without having read ours is a reset first, its answer comes after. */
	} while (rc == -EAGAIN || (rc == -ECONNRESET && resets++ == 0));
	if (!rc && a.count > max)
		rc = -EPROTO;
	if (rc) {
		for (int i = 0; i < a.count; i++)
			host_sys.close(a.fds[i]);
		return rc;
	}
	for (int i = 0; i < max; i++)
		fds[i] = i < a.count ? a.fds[i] : -1;
	if (sender)
		*sender = a.sender;
	return a.count;
}

/* --- descriptors --- */

int wire_memfd_make(void)
{
	size_t len = wire_size();
	int fd = memfd_create(WIRE_MEMFD_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	void *mem = MAP_FAILED;
	int err = 0;
	if (ftruncate(fd, (off_t)len) < 0)
		err = -errno;
	if (!err)
		mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err && mem == MAP_FAILED)
		err = -errno;
	if (!err) {
		wire_format(mem);
		munmap(mem, len);
		if (host_sys.fcntl(fd, F_ADD_SEALS, WIRE_SEALS) < 0)
			err = -errno;
	}
	if (!err)
		return fd;
	host_sys.close(fd);
	return err;
}

int wire_memfd_check(int fd)
{
	struct stat st;
	struct statfs fs;
	/* Sealed exactly so: not shorter later (SIGBUS), and writable for us and for processes that we fork. */
	if (host_sys.fcntl(fd, F_GET_SEALS) != WIRE_SEALS)
		return -EPROTO;
	/* Not hugetlbfs, whose pages may run out under us (SIGBUS again). */
	if (fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return -EPROTO;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != (off_t)wire_size())
		return -EPROTO;
	return 0;
}

/* Without /proc: anonymous inodes share one inode, so at least it is no file and no socket. */
static bool same_anonymous_inode(int fd, int ours)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && fstat(ours, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
	       a.st_mode == b.st_mode && (a.st_mode & S_IFMT) == 0;
}

int doorbell_check(int fd, int ours)
{
	static const char eventfd_link[] = "anon_inode:[eventfd]";
	char path[40], link[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, sizeof(link));
	bool good = n < 0 ? same_anonymous_inode(fd, ours)
			  : n == (ssize_t)sizeof(eventfd_link) - 1 && !memcmp(link, eventfd_link, (size_t)n);
	if (!good)
		return -EPROTO;
	/* A full counter must not stop us. */
	int flags = host_sys.fcntl(fd, F_GETFL);
	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || host_sys.fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -EPROTO;
	return 0;
}
