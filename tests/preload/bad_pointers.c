/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses that no program has memory at, in every call that takes one: EFAULT, and the socket goes on. */
#include <sys/sendfile.h>

#include "pair.h"

#define KINDS 3

/* The compiler must not see them. */
static void *volatile nowhere[KINDS] = {NULL, (void *)16, (void *)0xffff888000000000};

static void sends(int fd, void *bad)
{
	struct iovec iov[2] = {{.iov_base = "0123456789", .iov_len = 10}, {.iov_base = bad, .iov_len = 10}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	off_t *offset = bad;
	int file = open("/proc/self/exe", O_RDONLY);

	show("write", write(fd, bad, 100));
	if ((intptr_t)bad >= 0) /* the kernel refuses its own half whatever the length */
		show("write of nothing", write(fd, bad, 0));
	show("send", send(fd, bad, 100, 0));
	show("sendto", sendto(fd, bad, 100, 0, NULL, 0));
	show("writev", writev(fd, iov, 2));
	show("sendmsg", sendmsg(fd, &m, 0));
	if (bad) {
		show("writev, no vector", writev(fd, bad, 2));
		show("sendfile", sendfile(fd, file, offset, 10));
	}
	m.msg_iov = bad;
	show("sendmsg, no vector", sendmsg(fd, &m, 0));
	show("sendmsg, no message", sendmsg(fd, bad, 0));
	close(file);
}

static void receives(int fd, void *bad)
{
	char good[4];
	struct iovec iov[2] = {{.iov_base = good, .iov_len = 4}, {.iov_base = bad, .iov_len = 10}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

	show("read", read(fd, bad, 10));
	show("recv", recv(fd, bad, 10, 0));
	show("peek", recv(fd, bad, 10, MSG_PEEK));
	show("recvfrom", recvfrom(fd, bad, 10, 0, NULL, NULL));
	show("readv", readv(fd, iov, 2));
	show("recvmsg", recvmsg(fd, &m, 0));
	m.msg_iov = bad;
	show("recvmsg, no vector", recvmsg(fd, &m, 0));
	show("recvmsg, no message", recvmsg(fd, bad, 0));
}

static void names(int fd, void *bad)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	int v = 1;

	show("getsockname", getsockname(fd, bad, &n));
	show("getsockname, no length", getsockname(fd, (struct sockaddr *)&a, bad));
	show("getpeername", getpeername(fd, bad, &n));
	n = sizeof v;
	show("getsockopt", getsockopt(fd, SOL_SOCKET, SO_RCVBUF, bad, &n));
	show("getsockopt, no length", getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, bad));
	show("getsockopt TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, bad, &n));
	show("setsockopt", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, bad, sizeof v));
	show("ioctl", ioctl(fd, FIONREAD, bad));
}

static void waits(int fd, void *bad)
{
	int set = epoll_create1(0);
	struct timeval none = {0, 0};

	if (bad) {
		show("poll", poll(bad, 1, 0));
		show("select", select(fd + 1, bad, NULL, NULL, &none));
	}
	show("epoll_ctl", epoll_ctl(set, EPOLL_CTL_ADD, fd, bad));
	close(set);
}

static void udp(void *bad)
{
	struct sockaddr_in a = address(PORT + 1);
	int fd = socket(AF_INET, SOCK_DGRAM, 0), to = socket(AF_INET, SOCK_DGRAM, 0);
	char c = 0;

	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	show("sendto", sendto(to, bad, 10, 0, (struct sockaddr *)&a, sizeof a));
	show("sendto", sendto(to, "a", 1, 0, (struct sockaddr *)&a, sizeof a));
	show("sendto", sendto(to, "b", 1, 0, (struct sockaddr *)&a, sizeof a));
	if (bad)
		show("sendto nobody", sendto(to, "c", 1, 0, bad, sizeof a));
	show("recv", recv(fd, bad, 10, 0));
	show("recv", recv(fd, &c, 1, 0));
	if ((intptr_t)bad >= 0)
		say("%c", c); /* the first is lost; the kernel's own half is refused before */
	close(fd);
	close(to);
}

static void server(void)
{
	int l = listen_on(PORT), fd;
	socklen_t n = sizeof(struct sockaddr_in);
	char buf[100] = "";

	tell();
	for (int i = 1; i < KINDS; i++)
		show("connect", connect(l, nowhere[i], n));
	fd = accept(l, NULL, NULL);
	await();
	for (int i = 0; i < KINDS; i++)
		receives(fd, nowhere[i]);
	show("read all", (long)read_all(fd, buf, 10));
	say("%s", buf);
	show("write", write(fd, "done", 4));
	close(fd);
	close(l);
}

static void client(void)
{
	int fd;
	char buf[10] = "";

	await();
	fd = connect_to(PORT);
	for (int i = 0; i < KINDS; i++) {
		sends(fd, nowhere[i]);
		names(fd, nowhere[i]);
		waits(fd, nowhere[i]);
		udp(nowhere[i]);
	}
	show("write", write(fd, "0123456789", 10));
	tell();
	show("read all", (long)read_all(fd, buf, 4));
	say("%s", buf);
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
