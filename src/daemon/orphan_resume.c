/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Those who finish the connections of an earlier viaductd's dead (orphan.h): how a later one finds them.
 *
 * Each listens on an abstract name, which /proc/net/unix lists. Anybody can take such a name, so SO_PEERCRED must say
 * that it is our own user who listens. What it shows is checked as a living stack's DAEMON_RESUME is: the kernel says
 * what the descriptors are, and whose stack it is follows from the AF_XDP sockets, which nobody else can have. Our own
 * children have a viaductd, and do not answer: they are known by their pid.
 */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/orphan.h"
#include "host/host.h"

#define ANSWER_MS 100 /* for an answer: it looks every few milliseconds */
#define FDS_SHOWN (1 + DAEMON_QUEUES_MAX)

struct shown {
	struct orphan_show about;
	int umem, xsk[DAEMON_QUEUES_MAX];
};

/* --- the conversation --- */

static int connect_to(const char *name, size_t len)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || len + 1 > sizeof(sa.sun_path))
		return fd < 0 ? -errno : (close(fd), -ENAMETOOLONG);
	memcpy(sa.sun_path + 1, name, len);
	if (!connect(fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)))
		return fd;
	len = (size_t)errno;
	close(fd);
	return -(int)len;
}

static void forget(struct shown *v)
{
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		if (v->xsk[q] >= 0)
			close(v->xsk[q]);
	if (v->umem >= 0)
		close(v->umem);
}

static void take_fds(struct msghdr *m, struct shown *v)
{
	int *to[FDS_SHOWN] = {&v->umem};
	uint32_t n = 0;

	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		to[1 + q] = &v->xsk[q];
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		for (size_t at = CMSG_LEN(0); c->cmsg_type == SCM_RIGHTS && at + sizeof(int) <= c->cmsg_len;
		     at += sizeof(int))
			if (n < FDS_SHOWN)
				memcpy(to[n++], (const char *)c + at, sizeof(int));
}

/* One vNIC. What came is v's, also on failure. */
static int hear(int fd, struct shown *v)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_SHOWN * sizeof(int))];
	struct iovec iov = {&v->about, sizeof(v->about)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	v->umem = -1;
	memset(v->xsk, -1, sizeof(v->xsk));
	if (poll(&p, 1, ANSWER_MS) != 1)
		return -ETIMEDOUT;
	n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	take_fds(&m, v);
	return n == (ssize_t)sizeof(v->about) && v->about.magic == ORPHAN_MAGIC && v->about.vnics - 1 < TENANT_VNICS &&
		       !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		   ? 0
		   : -EPROTO;
}

static int welcome(const struct house *h, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
	int fds[2] = {mirror_view_fd(h->mirror), steer_keep(h->steer)};
	uint32_t magic = ORPHAN_MAGIC;
	struct iovec iov = {&magic, sizeof(magic)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	host_fds_attach(&m, control, fds, 2);
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* --- whose it is --- */

/* All its vNICs become the tenant's, which the first one makes. */
static int take_vnics(struct house *h, int fd, pid_t pid, struct tenant **made)
{
	struct tenant_vnic *at;
	const char *why;
	uint32_t left = 1, uid, taken = 0;
	struct shown v;

	for (uint32_t i = 0; i < left; i++) {
		int rc = hear(fd, &v);

		if (!rc && !*made) {
			left = v.about.vnics;
			rc = house_adopted_uid(h, socket_cookie(v.xsk[0]), &uid);
			*made = rc ? NULL : tenant_new(h, uid, pid);
		}
		if (rc || !*made) {
			forget(&v);
			return rc ? rc : -EUSERS;
		}
		taken += !tenant_resume(*made, &v.about.vnic, v.umem, v.xsk, &at, &why);
	}
	return taken ? welcome(h, fd) : -ENOENT;
}

static bool is_ours(const struct house *h, pid_t pid)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		if (h->tenant[i] && h->tenant[i]->orphan == pid)
			return true;
	return false;
}

/* A tenant, or NULL: it is none, or not for us. */
static struct tenant *take_over(struct house *h, const char *name, size_t len)
{
	struct ucred who;
	socklen_t size = sizeof(who);
	struct tenant *t = NULL;
	int fd = connect_to(name, len), pidfd = -1;

	if (fd < 0)
		return NULL;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) && who.uid == geteuid() && !is_ours(h, who.pid))
		pidfd = (int)syscall(SYS_pidfd_open, who.pid, 0);
	if (pidfd >= 0 && !take_vnics(h, fd, who.pid, &t)) {
		t->orphan = who.pid;
		t->orphan_fd = pidfd;
		t->orphan_words = fd;
		return t;
	}
	if (t)
		tenant_free(t);
	if (pidfd >= 0)
		close(pidfd);
	close(fd);
	return NULL;
}

uint32_t orphan_find(struct house *h, struct tenant **found, uint32_t max)
{
	FILE *list = fopen("/proc/self/net/unix", "re");
	char line[256], *name;
	uint32_t n = 0;

	while (list && n < max && fgets(line, sizeof(line), list)) {
		name = strstr(line, "@" ORPHAN_NAME);
		if (!name)
			continue;
		found[n] = take_over(h, name + 1, strcspn(name + 1, "\n"));
		n += found[n] != NULL;
	}
	if (list)
		fclose(list);
	return n;
}
