/* SPDX-License-Identifier: BSD-2-Clause */
/* See viaductd.h. The daemon is trusted with the network, not with our memory: lengths and numbers are checked. */
#define _GNU_SOURCE
#include "host/viaductd.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/handshake.h"
#include "host/host.h"

static _Atomic uint32_t last_seq;

static socklen_t daemon_name(struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(un->sun_path + 1, DAEMON_NAME, sizeof(DAEMON_NAME) - 1);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof(DAEMON_NAME));
}

/* Anybody can take an abstract name. */
static bool trusted(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (host_sys.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

int viaductd_connect(void)
{
	struct sockaddr_un un;
	socklen_t len = daemon_name(&un);
	int fd = host_sys.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret = 0;

	if (fd < 0)
		return -errno;
	if (host_sys.connect(fd, (struct sockaddr *)&un, len) < 0)
		ret = errno == ECONNREFUSED ? -ENOENT : -errno;
	else if (!trusted(fd))
		ret = -EPERM;
	if (ret == 0)
		return fd;
	host_sys.close(fd);
	return ret;
}

/* --- a request --- */

static int send_request(int fd, const struct viaductd_request *r, uint32_t seq, int64_t deadline_ms)
{
	struct daemon_head head = {.type = (uint16_t)r->type,
				   .protocol = DAEMON_PROTOCOL,
				   .size = (uint32_t)sizeof(head) + r->len,
				   .seq = seq};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)r->body, r->len}};
	union {
		struct cmsghdr align;
		uint8_t room[CMSG_SPACE(sizeof(int) * DAEMON_FDS_MAX)];
	} control = {0};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = r->len ? 2 : 1};

	if (r->fd_count > DAEMON_FDS_MAX || head.size > DAEMON_MESSAGE_MAX)
		return -EINVAL;
	host_fds_attach(&m, control.room, r->fds, r->fd_count);
	while (host_sys.sendmsg(fd, &m, MSG_NOSIGNAL) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (handshake_poll(fd, POLLOUT, deadline_ms) < 0)
			return -ETIMEDOUT;
	}
	return 0;
}

/* Descriptors of a message: all are the caller's from now on. */
static void take_fds(struct msghdr *m, struct viaductd_reply *reply)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		uint32_t n = h->cmsg_len > CMSG_LEN(0) ? (uint32_t)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		if (n > DAEMON_FDS_MAX - reply->fd_count)
			n = DAEMON_FDS_MAX - reply->fd_count;
		memcpy(reply->fds + reply->fd_count, CMSG_DATA(h), n * sizeof(int));
		reply->fd_count += n;
	}
}

/* One packet. Its length behind the head, or -errno. */
static int receive(int fd, struct daemon_head *head, struct viaductd_reply *reply)
{
	struct iovec iov[2] = {{head, sizeof(*head)}, {reply->body, sizeof(reply->body)}};
	union {
		struct cmsghdr align;
		uint8_t room[CMSG_SPACE(sizeof(int) * DAEMON_FDS_MAX)];
	} control;
	struct msghdr m = {
	    .msg_iov = iov, .msg_iovlen = 2, .msg_control = control.room, .msg_controllen = sizeof(control.room)};
	ssize_t n;

	memset(reply, 0, sizeof(*reply));
	n = host_sys.recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ECONNRESET;
	take_fds(&m, reply);
	if ((size_t)n < sizeof(*head) || m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || head->protocol != DAEMON_PROTOCOL ||
	    head->status > 0)
		return -EPROTO;
	return (int)((size_t)n - sizeof(*head));
}

static int await_reply(int fd, uint16_t type, uint32_t seq, int64_t deadline_ms, struct viaductd_reply *reply)
{
	struct daemon_head head;
	int n;

	for (;;) {
		if (handshake_poll(fd, POLLIN, deadline_ms) < 0)
			return -ETIMEDOUT;
		n = receive(fd, &head, reply);
		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n < 0)
			break;
		if (head.seq != seq || head.type != type) {
			n = -EPROTO;
			break;
		}
		reply->len = (uint32_t)n;
		if (!head.status)
			return 0;
		reply->refused = true;
		memcpy(reply->error, reply->body, sizeof(reply->error) - 1);
		n = head.status;
		break;
	}
	viaductd_reply_drop(reply);
	return n;
}

int viaductd_ask(int fd, const struct viaductd_request *request, int timeout_ms, struct viaductd_reply *reply)
{
	int64_t deadline_ms = handshake_now_ms() + timeout_ms;
	uint32_t seq = atomic_fetch_add(&last_seq, 1) + 1;
	int ret;

	memset(reply, 0, sizeof(*reply));
	ret = send_request(fd, request, seq, deadline_ms);
	return ret < 0 ? ret : await_reply(fd, (uint16_t)request->type, seq, deadline_ms, reply);
}

void viaductd_reply_drop(struct viaductd_reply *reply)
{
	for (uint32_t i = 0; i < reply->fd_count; i++)
		host_sys.close(reply->fds[i]);
	reply->fd_count = 0;
}
