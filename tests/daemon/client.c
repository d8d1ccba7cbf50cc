/* SPDX-License-Identifier: BSD-2-Clause */
/* See client.h. */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "world.h"

int client_connect(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path + 1, DAEMON_NAME, strlen(DAEMON_NAME));
	if (!connect(fd, (struct sockaddr *)&sa,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(DAEMON_NAME))))
		return fd;
	int rc = -errno;

	close(fd);
	return rc;
}

static void take_fds(struct msghdr *msg, struct answer *a)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		a->fds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(a->fd, CMSG_DATA(c), (size_t)a->fds * sizeof(int));
	}
}

int client_ask(int sock, uint16_t type, const void *body, size_t len, const int *fds, int count, struct answer *a)
{
	static uint32_t seq;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(DAEMON_FDS_MAX * sizeof(int))] = {0};
	struct daemon_head head = {type, DAEMON_PROTOCOL, (uint32_t)(sizeof(head) + len), ++seq, 0};
	struct iovec out[2] = {{&head, sizeof(head)}, {(void *)body, len}};
	struct msghdr msg = {.msg_iov = out, .msg_iovlen = 2};
	struct iovec in[2] = {{&a->head, sizeof(a->head)}, {&a->body, sizeof(a->body)}};
	ssize_t n;

	if (count) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	}
	memset(a, 0, sizeof(*a));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		return -ECONNRESET;
	msg =
	    (struct msghdr){.msg_iov = in, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n < (ssize_t)sizeof(a->head))
		return -ECONNRESET;
	take_fds(&msg, a);
	if (a->head.type != type || a->head.seq != seq || a->head.size != n)
		return -EPROTO;
	return a->head.status;
}

void answer_close(struct answer *a)
{
	for (int i = 0; i < a->fds; i++)
		close(a->fd[i]);
	a->fds = 0;
}

static uint64_t memory_inode;

uint64_t client_memory(void)
{
	return memory_inode;
}

int client_hello(int sock)
{
	struct daemon_hello hello = {0};
	int fds[2] = {memfd_create("viaduct:stack", MFD_CLOEXEC | MFD_ALLOW_SEALING),
		      (int)syscall(SYS_pidfd_open, getpid(), 0)};
	struct answer a;
	struct stat st = {0};
	int rc;

	fstat(fds[0], &st);
	memory_inode = st.st_ino;
	rc = client_ask(sock, DAEMON_HELLO, &hello, sizeof(hello), fds, 2, &a);

	answer_close(&a);
	close(fds[0]);
	close(fds[1]);
	return rc;
}

int client_make(void)
{
	int sock = client_connect();
	int rc = sock < 0 ? sock : client_hello(sock);

	return rc ? rc : sock;
}

int client_open(int sock, uint32_t ifindex, struct answer *a)
{
	struct daemon_open open = {.ifindex = ifindex, .queues = DAEMON_QUEUES_MAX};

	return client_ask(sock, DAEMON_OPEN, &open, sizeof(open), NULL, 0, a);
}

int client_open_unbound(int sock, uint32_t ifindex, uint32_t flags, struct answer *a)
{
	struct daemon_open open = {.ifindex = ifindex, .flags = DAEMON_OPEN_BINDS | flags, .queues = DAEMON_QUEUES_MAX};

	return client_ask(sock, DAEMON_OPEN, &open, sizeof(open), NULL, 0, a);
}

int client_bind(int sock, uint32_t ifindex, struct answer *a)
{
	struct daemon_bind bind = {.ifindex = ifindex};

	return client_ask(sock, DAEMON_BIND, &bind, sizeof(bind), NULL, 0, a);
}

int client_filter(int sock, uint8_t proto, const char *local, uint16_t port, int fd, uint16_t flags)
{
	struct daemon_filter f = {.proto = proto, .family = 4, .local_port = port, .flags = flags};
	struct answer a;
	int rc;

	if (local)
		mapped(f.local, local);
	rc = client_ask(sock, DAEMON_FILTER_ADD, &f, sizeof(f), &fd, fd >= 0, &a);
	return rc ? rc : (int)a.body.id.id;
}
