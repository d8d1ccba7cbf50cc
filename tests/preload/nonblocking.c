/* SPDX-License-Identifier: BSD-2-Clause */
/* Nonblocking connect, accept, send and receive; accept4's flags; timeouts of blocking calls. */
#include "pair.h"

static void flags_of(int fd)
{
	say("nonblocking %d close-on-exec %d", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0,
	    (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static void server(void)
{
	struct timeval t = {0, 60000}, got = {0};
	socklen_t n = sizeof got;
	int l = listen_on(PORT), fd;
	char c;
	double start;

	tell();
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	flags_of(fd);
	show("recv", recv(fd, &c, 1, 0));
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	show("setsockopt", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &n);
	say("SO_RCVTIMEO %ld.%06ld length %u", (long)got.tv_sec, (long)got.tv_usec, n);
	start = now_ms();
	show("recv, timed out", recv(fd, &c, 1, 0));
	say("it waited: %d", now_ms() - start > 55);
	tell();
	show("recv", recv(fd, &c, 1, MSG_WAITALL));
	close(fd);
	fd = accept(l, NULL, NULL);
	flags_of(fd);
	await();
	close(fd);
	close(l);
	tell();
}

static void fill(int fd)
{
	static char block[65536];
	struct timeval t = {0, 50000};
	size_t total = 0;
	ssize_t r;

	while ((r = send(fd, block, sizeof block, 0)) > 0)
		total += (size_t)r;
	show("send, full", r);
	say("more than one block fitted: %d", total > sizeof block);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	while ((r = send(fd, block, sizeof block, 0)) > 0)
		;
	show("send, timed out", r);
}

static void client(void)
{
	struct sockaddr_in a = address(PORT);
	struct pollfd p = {.events = POLLOUT};
	int fd, e = -1, on = 1;
	socklen_t n = sizeof e;

	await();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	flags_of(fd);
	say("connect succeeds or is in progress: %d",
	    connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EINPROGRESS);
	p.fd = fd;
	show("poll", poll(&p, 1, 2000));
	say("revents %x", (unsigned)p.revents);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
	say("SO_ERROR %d", e);
	await();
	show("send", send(fd, "x", 1, 0));
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	show("FIONBIO", ioctl(fd, FIONBIO, &on));
	(void)!connect(fd, (struct sockaddr *)&a, sizeof a);
	p.fd = fd;
	poll(&p, 1, 2000);
	flags_of(fd);
	show("connect again", connect(fd, (struct sockaddr *)&a, sizeof a));
	fill(fd);
	tell();
	await();
	close(fd);
	a = address(PORT + 9);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	(void)!connect(fd, (struct sockaddr *)&a, sizeof a);
	p.fd = fd;
	p.events = POLLOUT;
	poll(&p, 1, 2000);
	say("refused: revents has POLLERR %d", (p.revents & POLLERR) != 0);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
	say("SO_ERROR %s", e ? strerrorname_np(e) : "0");
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
