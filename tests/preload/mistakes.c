/* SPDX-License-Identifier: BSD-2-Clause */
/* errno of common mistakes, with sockets in every state. */
#include "pair.h"

static void unconnected(void)
{
	struct sockaddr_in a = address(PORT + 1), six = {.sin_family = AF_INET6};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t n = sizeof a;
	char c;

	show("send, unconnected", send(fd, "x", 1, MSG_NOSIGNAL));
	show("recv, unconnected", recv(fd, &c, 1, 0));
	show("getpeername, unconnected", getpeername(fd, (struct sockaddr *)&a, &n));
	show("shutdown, unconnected", shutdown(fd, SHUT_RDWR));
	show("shutdown, bad how", shutdown(fd, 17));
	show("accept, not listening", accept(fd, NULL, NULL));
	show("connect, wrong family", connect(fd, (struct sockaddr *)&six, sizeof six));
	show("connect, short address", connect(fd, (struct sockaddr *)&a, 4));
	show("bind, short address", bind(fd, (struct sockaddr *)&a, 4));
	a = address(PORT + 1);
	show("connect, nobody listens", connect(fd, (struct sockaddr *)&a, sizeof a));
	show("setsockopt, short value", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &c, 1));
	show("setsockopt, unknown name", setsockopt(fd, IPPROTO_TCP, 9999, &n, sizeof n));
	show("close", close(fd));
	show("close again", close(fd));
	show("send, closed", send(fd, "x", 1, 0));
	show("listen, closed", listen(fd, 1));
}

static void bound(void)
{
	struct sockaddr_in a = address(PORT + 2), other = address(PORT + 3);
	int fd = socket(AF_INET, SOCK_STREAM, 0), second = socket(AF_INET, SOCK_STREAM, 0);

	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	show("bind again", bind(fd, (struct sockaddr *)&other, sizeof other));
	show("listen", listen(fd, 4));
	show("listen again", listen(fd, 5));
	show("bind the same port", bind(second, (struct sockaddr *)&a, sizeof a));
	show("connect, listening", connect(fd, (struct sockaddr *)&other, sizeof other));
	show("recv, listening", recv(fd, &a, 1, 0));
	show("send, listening", send(fd, &a, 1, MSG_NOSIGNAL));
	show("accept4, bad flags", accept4(fd, NULL, NULL, 0x1000000));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	show("accept, nobody waits", accept(fd, NULL, NULL));
	close(fd);
	close(second);
}

static void others(void)
{
	int p[2];
	struct sockaddr_in a = address(PORT);

	if (pipe(p) < 0)
		exit(2);
	show("send on a pipe", send(p[1], "x", 1, 0));
	show("connect on a pipe", connect(p[0], (struct sockaddr *)&a, sizeof a));
	show("getsockopt on a pipe", getsockopt(p[0], SOL_SOCKET, SO_ERROR, &a, &(socklen_t){sizeof a}));
	show("send, bad descriptor", send(-1, "x", 1, 0));
	show("read, huge descriptor", read(1 << 30, &a, 1));
	show("socket, bad type", socket(AF_INET, 77, 0));
	show("socket, bad protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
}

static void server(int fd)
{
	await();
	close(fd);
}

static void client(int fd)
{
	struct sockaddr_in a = address(PORT);

	show("connect, connected", connect(fd, (struct sockaddr *)&a, sizeof a));
	show("listen, connected", listen(fd, 1));
	show("bind, connected", bind(fd, (struct sockaddr *)&a, sizeof a));
	unconnected();
	bound();
	others();
	tell();
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
