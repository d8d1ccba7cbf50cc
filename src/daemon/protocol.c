/* SPDX-License-Identifier: BSD-2-Clause */
/* See protocol.h. */
#include "daemon/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "host/host.h"

#define SCM_MAX 253 /* descriptors that the kernel carries with one packet */

int request_parse(const void *packet, size_t len, struct request *q)
{
	memset(&q->body, 0, sizeof(q->body));
	if (len < sizeof(q->head) || len > DAEMON_MESSAGE_MAX)
		return -EPROTO;
	memcpy(&q->head, packet, sizeof(q->head));
	if (q->head.protocol != DAEMON_PROTOCOL || q->head.size != len || q->head.status)
		return -EPROTO;
	len -= sizeof(q->head);
	memcpy(&q->body, (const char *)packet + sizeof(q->head), len < sizeof(q->body) ? len : sizeof(q->body));
	return 0;
}

/* All that came, also what is too much: that is closed. -EPROTO if so. */
static int take_descriptors(struct msghdr *msg, struct request *q)
{
	int rc = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (const char *)c + at, sizeof(fd));
			if (q->fds < (int)DAEMON_FDS_MAX) {
				q->fd[q->fds++] = fd;
			} else {
				closer_close(q->uid, fd);
				rc = -EPROTO;
			}
		}
	}
	return rc;
}

int request_receive(int sock, uint32_t uid, struct request *q)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(SCM_MAX * sizeof(int))];
	char packet[DAEMON_MESSAGE_MAX];
	struct iovec iov = {packet, sizeof(packet)};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n;
	int rc;

	q->fds = 0;
	q->uid = uid;
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	rc = take_descriptors(&msg, q);
	if (!rc && n == 0)
		rc = -ECONNRESET;
	if (!rc && msg.msg_flags & MSG_TRUNC)
		rc = -EPROTO;
	if (!rc)
		rc = request_parse(packet, (size_t)n, q);
	if (!rc && msg.msg_flags & MSG_CTRUNC)
		rc = -EMFILE;
	if (rc)
		request_done(q);
	return rc;
}

int request_take(struct request *q, int i)
{
	int fd;

	if (i < 0 || i >= q->fds)
		return -1;
	fd = q->fd[i];
	q->fd[i] = -1;
	return fd;
}

void request_done(struct request *q)
{
	for (int i = 0; i < q->fds; i++)
		if (q->fd[i] >= 0)
			closer_close(q->uid, q->fd[i]);
	q->fds = 0;
}

static int send_packet(int sock, struct iovec *iov, int parts, const int *fds, int count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(DAEMON_FDS_MAX * sizeof(int))] = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)parts};
	ssize_t n;

	if (count < 0 || count > (int)DAEMON_FDS_MAX)
		return -EINVAL;
	host_fds_attach(&msg, control, fds, (uint32_t)count);
	do
		n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int send_reply(int sock, const struct daemon_head *to, int status, const void *body, size_t len, const int *fds,
		      int count)
{
	struct daemon_head head = *to;
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)body, len}};

	head.protocol = DAEMON_PROTOCOL;
	head.size = (uint32_t)(sizeof(head) + len);
	head.status = status;
	return send_packet(sock, iov, 2, fds, count);
}

int reply_send(int sock, const struct daemon_head *to, const void *body, size_t len, const int *fds, int count)
{
	return send_reply(sock, to, 0, body, len, fds, count);
}

int reply_error(int sock, const struct daemon_head *to, int status, const char *text)
{
	struct daemon_error e = {0};

	snprintf(e.text, sizeof(e.text), "%s", text);
	return send_reply(sock, to, status, &e, sizeof(e), NULL, 0);
}
