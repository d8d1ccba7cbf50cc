/* SPDX-License-Identifier: BSD-2-Clause */
/* How an end looks from the other side: close with unread data, linger 0, writing after it, SIGPIPE. */
#include "pair.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static int so_error(int fd)
{
	int e = -1;
	socklen_t n = sizeof e;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
	return e;
}

static void server(void)
{
	struct linger off = {1, 0};
	int l = listen_on(PORT), fd;
	char c;

	tell();
	fd = accept(l, NULL, NULL); /* closed with data unread */
	await();
	rest(20);
	close(fd);
	tell();
	fd = accept(l, NULL, NULL); /* linger 0 */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
	await(); /* else connect() itself may see the reset */
	close(fd);
	tell();
	fd = accept(l, NULL, NULL); /* plain close: the peer writes twice */
	close(fd);
	tell();
	fd = accept(l, NULL, NULL); /* the peer is read after its end */
	await();
	show("recv, data before the end", recv(fd, &c, 1, 0));
	show("recv, the end", recv(fd, &c, 1, 0));
	close(fd);
}

static void client(void)
{
	struct pollfd p = {.events = POLLIN | POLLOUT | POLLRDHUP};
	char buf[8];
	int fd;

	signal(SIGPIPE, on_pipe);
	await();
	fd = connect_to(PORT);
	show("send", send(fd, "unread", 6, 0));
	tell();
	await();
	rest(30);
	p.fd = fd;
	poll(&p, 1, 1000);
	say("poll %x", (unsigned)p.revents);
	show("recv after reset", recv(fd, buf, 8, 0));
	show("recv again", recv(fd, buf, 8, 0));
	show("send after reset", send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);

	fd = connect_to(PORT);
	tell();
	await();
	rest(30);
	say("SO_ERROR after linger 0: %s", strerrorname_np(so_error(fd)));
	say("SO_ERROR again: %d", so_error(fd));
	show("recv", recv(fd, buf, 8, 0));
	close(fd);

	fd = connect_to(PORT);
	await();
	rest(30);
	p.fd = fd;
	poll(&p, 1, 1000);
	say("poll after the peer's close %x", (unsigned)p.revents);
	show("recv", recv(fd, buf, 8, 0));
	show("send, first", send(fd, "x", 1, 0));
	rest(30);
	show("send, second", send(fd, "x", 1, 0));
	show("write, third", write(fd, "x", 1));
	say("SIGPIPE came %d times", (int)pipes);
	show("send MSG_NOSIGNAL", send(fd, "x", 1, MSG_NOSIGNAL));
	say("SIGPIPE came %d times", (int)pipes);
	close(fd);

	fd = connect_to(PORT);
	send(fd, "z", 1, 0);
	close(fd);
	tell();
}

int main(void)
{
	return roles(server, client);
}
