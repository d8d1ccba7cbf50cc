/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection after the other in the same processes: what was done to a socket is not seen at the next one, whatever
 * the library keeps between them. Modes, options of ours and of the kernel's, names, duplicates, forked children.
 */
#include "pair.h"

#define ROUNDS 12

static int default_rcvbuf;

static int option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof v;

	return getsockopt(fd, level, name, &v, &len) < 0 ? -1 : v;
}

static void set_option(int fd, int level, int name, int v)
{
	show("setsockopt", setsockopt(fd, level, name, &v, sizeof v));
}

/* What a new socket looks like. */
static void look(int fd, bool connected)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof a;

	say("fd %d, flags %x, descriptor flags %x", fd, (unsigned)fcntl(fd, F_GETFL), (unsigned)fcntl(fd, F_GETFD));
	say("priority %d, keepalive %d, nodelay %d, idle %d", option(fd, SOL_SOCKET, SO_PRIORITY),
	    option(fd, SOL_SOCKET, SO_KEEPALIVE), option(fd, IPPROTO_TCP, TCP_NODELAY),
	    option(fd, IPPROTO_TCP, TCP_KEEPIDLE));
	say("owner %d, error %d", fcntl(fd, F_GETOWN), option(fd, SOL_SOCKET, SO_ERROR));
	if (connected)
		return;
	if (!default_rcvbuf)
		default_rcvbuf = option(fd, SOL_SOCKET, SO_RCVBUF);
	say("receive buffer as at first: %d", option(fd, SOL_SOCKET, SO_RCVBUF) == default_rcvbuf);
	show("getsockname", getsockname(fd, (struct sockaddr *)&a, &len));
	say("port %d, any address %d", ntohs(a.sin_port), a.sin_addr.s_addr == 0);
}

/* Leave a mark on a connection, another one in each round. */
static void mark(int fd, int round)
{
	switch (round) {
	case 1:
		fcntl(fd, F_SETFL, O_NONBLOCK);
		break;
	case 2:
		set_option(fd, SOL_SOCKET, SO_PRIORITY, 3);
		break;
	case 3:
		set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
		set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		break;
	case 4:
		set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
		break;
	case 5:
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETOWN, getpid());
		break;
	case 6:
		show("dup", dup2(fd, 50));
		break;
	default:
		break;
	}
}

/* A child changes the mode of a connection that both have; its parent's next socket is none of its business. */
static void mark_in_child(int fd)
{
	int mode[2];
	pid_t pid;

	if (pipe(mode) < 0)
		exit(7);
	pid = fork();
	if (!pid) {
		char c;

		close(mode[1]);
		if (read(mode[0], &c, 1) < 0)
			_exit(1);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		_exit(0);
	}
	close(mode[0]);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	close(mode[1]);
	waitpid(pid, NULL, 0);
	say("after a child: flags %x", (unsigned)fcntl(fd, F_GETFL));
	close(fd);
}

static void server(void)
{
	int l = listen_on(PORT), fd;
	char c;

	tell();
	for (int i = 1; i <= ROUNDS; i++) {
		fd = accept4(l, NULL, NULL, i % 4 == 3 ? SOCK_NONBLOCK | SOCK_CLOEXEC : 0);
		look(fd, true);
		mark(fd, i);
		show("write", write(fd, "x", 1));
		fcntl(fd, F_SETFL, 0);
		show("read", read(fd, &c, 1));
		close(50);
		close(fd);
	}
	close(l);
}

static void client(void)
{
	struct sockaddr_in a = address(PORT), any = {.sin_family = AF_INET};
	char c;
	int fd;

	await();
	for (int i = 1; i <= ROUNDS; i++) {
		fd = socket(AF_INET, SOCK_STREAM | (i % 4 == 2 ? SOCK_CLOEXEC : 0), 0);
		look(fd, false);
		if (i == 7)
			set_option(fd, SOL_SOCKET, SO_RCVBUF, 9000);
		if (i == 9)
			show("bind", bind(fd, (struct sockaddr *)&any, sizeof any));
		show("connect", connect(fd, (struct sockaddr *)&a, sizeof a));
		mark(fd, i);
		fcntl(fd, F_SETFL, 0);
		show("read", read(fd, &c, 1));
		show("write", write(fd, &c, 1));
		close(50);
		if (i == 8)
			mark_in_child(fd);
		else
			close(fd);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	show("listen on a fresh one", listen(fd, 1));
	close(fd);
	look(socket(AF_INET, SOCK_STREAM, 0), false);
}

int main(void)
{
	return roles(server, client);
}
