/* SPDX-License-Identifier: BSD-2-Clause */
/* See tree.h. The messages are hellos (handshake.h). No function here leaves a descriptor open when it fails. */
#define _GNU_SOURCE
#include "host/tree.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "host/handshake.h"

#define REQUEST_MS 50 /* the one who asks is of our tree, and asks as soon as it is connected */
#define BACKLOG 16

static socklen_t tree_name(struct sockaddr_un *un, const uint8_t stack[16], uint32_t pid)
{
	char name[sizeof(un->sun_path) - 1] = RDV_PREFIX "tree/";
	size_t len = strlen(name);

	for (int i = 0; i < 16; i++)
		len += (size_t)snprintf(name + len, sizeof(name) - len, "%02x", stack[i]);
	len += (size_t)snprintf(name + len, sizeof(name) - len, "/%u", pid);
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + 1, name, len);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len);
}

static int unix_socket(void)
{
	int fd = host_sys.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

static int failed(int fd, int err)
{
	host_sys.close(fd);
	return err;
}

/* Who is there: its pid, 0 unknown. */
static uint32_t pid_behind(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return host_sys.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ? 0 : (uint32_t)cred.pid;
}

int tree_listen(const uint8_t stack[16], uint32_t pid)
{
	struct sockaddr_un un;
	socklen_t len = tree_name(&un, stack, pid);
	int fd = unix_socket(), high;

	if (fd < 0)
		return fd;
	if (host_sys.bind(fd, (struct sockaddr *)&un, len) < 0 || host_sys.listen(fd, BACKLOG) < 0)
		return failed(fd, -errno);
	high = host_fd_high(fd);
	return high < 0 ? failed(fd, high) : high;
}

int tree_accept(int listen_fd, uint32_t *pid)
{
	int fd = host_sys.accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -errno;
	*pid = pid_behind(fd);
	return fd;
}

int tree_request(int fd, const uint8_t stack[16], uint8_t nonce[16])
{
	struct hello h;
	int ret = hello_receive(fd, &h, NULL, 0, handshake_now_ms() + REQUEST_MS, NULL);

	if (ret == 0)
		ret = hello_check(&h, HELLO_MAP, HELLO_MAP);
	if (ret == 0 && memcmp(h.stack, stack, sizeof(h.stack)))
		ret = -EPROTO;
	memcpy(nonce, h.nonce, sizeof(h.nonce));
	return ret;
}

void tree_give(int fd, const uint8_t stack[16], const uint8_t nonce[16], int memfd, int life_fd, const int doorbell[2])
{
	int fds[HELLO_FDS] = {memfd, life_fd, doorbell[0], doorbell[1]};
	struct hello h;

	hello_fill(&h, HELLO_MAPPED, nonce, stack);
	hello_send(fd, &h, fds, doorbell[0] < 0 || doorbell[1] < 0 ? 2 : 4);
}

/* Ask on a connected socket. How many descriptors came. */
static int ask(int fd, const uint8_t stack[16], const uint8_t nonce[16], int timeout_ms, int fds[HELLO_FDS])
{
	struct hello h;
	int n, ret;

	hello_fill(&h, HELLO_MAP, nonce, stack);
	ret = hello_send(fd, &h, NULL, 0);
	if (ret < 0)
		return ret;
	n = hello_receive(fd, &h, fds, HELLO_FDS, handshake_now_ms() + timeout_ms, NULL);
	if (n < 0)
		return n;
	ret = hello_check(&h, HELLO_MAPPED, HELLO_MAPPED);
	if (ret == 0 && ((n != 2 && n != 4) || memcmp(h.nonce, nonce, sizeof(h.nonce))))
		ret = -EPROTO;
	if (ret == 0)
		ret = wire_memfd_check(fds[0]);
	for (int i = 0; ret < 0 && i < n; i++)
		host_sys.close(fds[i]);
	return ret < 0 ? ret : n;
}

int tree_fetch(const uint8_t stack[16], const uint8_t nonce[16], uint32_t pid, int timeout_ms, struct rdv_wire *out)
{
	struct sockaddr_un un;
	socklen_t len = tree_name(&un, stack, pid);
	int fd = unix_socket(), fds[HELLO_FDS], high[HELLO_FDS] = {-1, -1, -1, -1}, n, ret = 0;

	if (fd < 0)
		return fd;
	if (host_sys.connect(fd, (struct sockaddr *)&un, len) < 0)
		return failed(fd, -errno);
	n = pid_behind(fd) == pid ? ask(fd, stack, nonce, timeout_ms, fds) : -EPERM;
	host_sys.close(fd);
	for (int i = 0; i < n; i++) {
		high[i] = ret < 0 ? ret : host_fd_high(fds[i]);
		ret = high[i] < 0 ? high[i] : ret;
		if (high[i] < 0)
			host_sys.close(fds[i]);
	}
	for (int i = 0; i < n && ret < 0; i++)
		host_fd_close(high[i]);
	if (n < 0 || ret < 0)
		return n < 0 ? n : ret;
	*out = (struct rdv_wire){.memfd = high[0], .life_fd = high[1], .doorbell = {high[2], high[3]}};
	return 0;
}
