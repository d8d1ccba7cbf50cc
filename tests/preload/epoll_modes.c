/* SPDX-License-Identifier: BSD-2-Clause */
/* epoll: level and edge triggered, one-shot, exclusive, changes, errors, kernel members beside, sets in sets. */
#include "pair.h"

static int ep;

static void wait_show(const char *what, int max, int ms)
{
	struct epoll_event e[8];
	int n = epoll_wait(ep, e, max, ms);

	if (n < 0) {
		show(what, n);
		return;
	}
	say("%s: %d events", what, n);
	for (int i = 0; i < n; i++)
		say("  %x data %d", e[i].events, (int)e[i].data.u64);
}

static int ctl(int op, int fd, uint32_t events, int data)
{
	struct epoll_event e = {.events = events, .data.u64 = (uint64_t)data};

	return epoll_ctl(ep, op, fd, &e);
}

static void errors(int fd)
{
	struct epoll_event e = {0};

	show("MOD, not a member", ctl(EPOLL_CTL_MOD, fd, EPOLLIN, 1));
	show("DEL, not a member", ctl(EPOLL_CTL_DEL, fd, 0, 1));
	show("ADD", ctl(EPOLL_CTL_ADD, fd, EPOLLIN, 1));
	show("ADD again", ctl(EPOLL_CTL_ADD, fd, EPOLLIN, 1));
	show("bad operation", ctl(77, fd, EPOLLIN, 1));
	show("itself", ctl(EPOLL_CTL_ADD, ep, EPOLLIN, 1));
	show("bad descriptor", ctl(EPOLL_CTL_ADD, 999, EPOLLIN, 1));
	show("bad set", epoll_ctl(999, EPOLL_CTL_ADD, fd, &e));
	show("not a set", epoll_ctl(fd, EPOLL_CTL_ADD, ep, &e));
	show("MOD to exclusive", ctl(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLEXCLUSIVE, 1));
	show("wait, no room", epoll_wait(ep, &e, 0, 0));
	show("wait, bad set", epoll_wait(999, &e, 1, 0));
	show("wait, not a set", epoll_wait(fd, &e, 1, 0));
	show("DEL", ctl(EPOLL_CTL_DEL, fd, 0, 1));
}

static void level(int fd)
{
	char buf[16];

	show("ADD level", ctl(EPOLL_CTL_ADD, fd, EPOLLIN, 2));
	wait_show("nothing there", 8, 0);
	tell();
	wait_show("data", 8, 2000);
	wait_show("still", 8, 0);
	show("read a part", read(fd, buf, 2));
	wait_show("still", 8, 0);
	show("read the rest", read(fd, buf, 16));
	wait_show("empty", 8, 0);
	show("MOD to IN and OUT", ctl(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT, 3));
	wait_show("writable", 8, 0);
	show("MOD to nothing", ctl(EPOLL_CTL_MOD, fd, 0, 3));
	wait_show("nothing asked", 8, 0);
	ctl(EPOLL_CTL_DEL, fd, 0, 0);
}

static void edge(int fd)
{
	char buf[16];

	show("ADD edge", ctl(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 4));
	tell();
	wait_show("data", 8, 2000);
	wait_show("no new edge", 8, 20);
	tell();
	wait_show("more data", 8, 2000);
	show("read", read(fd, buf, 16));
	wait_show("empty", 8, 0);
	tell();
	wait_show("again", 8, 2000);
	show("MOD makes an edge", ctl(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLET, 5));
	wait_show("after MOD", 8, 0);
	wait_show("once", 8, 0);
	show("read", read(fd, buf, 16));
	show("MOD to OUT, edge", ctl(EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLET, 5));
	wait_show("writable", 8, 0);
	wait_show("once", 8, 0);
	ctl(EPOLL_CTL_DEL, fd, 0, 0);
}

static void oneshot(int fd)
{
	char buf[16];

	show("ADD one-shot", ctl(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT, 6));
	tell();
	wait_show("data", 8, 2000);
	wait_show("off", 8, 0);
	tell();
	await();
	wait_show("still off", 8, 20);
	show("MOD", ctl(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, 7));
	wait_show("on", 8, 0);
	show("read", read(fd, buf, 16));
	ctl(EPOLL_CTL_DEL, fd, 0, 0);
}

static void mixed(int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 10};
	int p[2], outer = epoll_create1(EPOLL_CLOEXEC), n;
	struct pollfd pfd = {.fd = ep, .events = POLLIN};
	char buf[16];

	if (pipe(p) < 0)
		exit(2);
	ctl(EPOLL_CTL_ADD, fd, EPOLLIN, 8);
	ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 9);
	show("set in a set", epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e));
	show("poll on the set, nothing", poll(&pfd, 1, 0));
	show("outer set, nothing", epoll_wait(outer, &e, 1, 0));
	show("pipe", write(p[1], "p", 1));
	wait_show("the pipe's", 8, 2000);
	show("poll on the set, pipe", poll(&pfd, 1, 0));
	show("read pipe", read(p[0], buf, 16));
	wait_show("empty", 8, 0);
	tell();
	await();
	show("poll on the set, socket", poll(&pfd, 1, 2000));
	n = epoll_wait(outer, &e, 1, 2000);
	say("outer set: %d data %d", n, (int)e.data.u64);
	show("pipe", write(p[1], "p", 1));
	rest(1);
	n = epoll_wait(ep, (struct epoll_event[8]){{0}}, 8, 100);
	say("both: %d", n);
	show("one at a time", epoll_wait(ep, &e, 1, 100));
	show("read", read(fd, buf, 16));
	show("read pipe", read(p[0], buf, 16));
	wait_show("empty", 8, 0);
	show("outer set, nothing", epoll_wait(outer, &e, 1, 0));
	ctl(EPOLL_CTL_DEL, fd, 0, 0);
	close(p[0]);
	close(p[1]);
	close(outer);
}

/* The set is its description's: it stays when the number under which it was made is another file's. */
static void another_number(int fd)
{
	int first = ep, p[2], null;

	if (pipe(p) < 0)
		exit(2);
	ctl(EPOLL_CTL_ADD, fd, EPOLLIN, 12);
	ep = fcntl(ep, F_DUPFD_CLOEXEC, 100);
	show("close the first number", close(first));
	null = open("/dev/null", O_RDONLY);
	say("the number is another file's: %d", null == first);
	show("ADD", ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 13));
	wait_show("nothing", 8, 20);
	show("pipe", write(p[1], "p", 1));
	wait_show("the pipe's", 8, 2000);
	ctl(EPOLL_CTL_DEL, p[0], 0, 0);
	tell();
	await();
	wait_show("the socket's", 8, 2000);
	show("read", read(fd, (char[16]){0}, 16));
	ctl(EPOLL_CTL_DEL, fd, 0, 0);
	close(null);
	close(p[0]);
	close(p[1]);
}

static void ends(int fd)
{
	show("ADD", ctl(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 11));
	tell();
	await();
	rest(20);
	wait_show("half closed by the peer", 8, 2000);
	shutdown(fd, SHUT_WR);
	rest(20);
	wait_show("closed both ways", 8, 2000);
	show("close", close(fd));
	wait_show("members leave with their descriptor", 8, 0);
}

static void server(int fd)
{
	ep = epoll_create1(0);
	errors(fd);
	level(fd);
	edge(fd);
	oneshot(fd);
	mixed(fd);
	another_number(fd);
	ends(fd);
}

static void client(int fd)
{
	await();
	send(fd, "1234", 4, 0);
	for (int i = 0; i < 3; i++) {
		await();
		rest(10);
		send(fd, "edge", 4, 0);
	}
	await();
	send(fd, "shot", 4, 0);
	await();
	send(fd, "shot", 4, 0);
	rest(10);
	tell();
	await();
	send(fd, "mix", 3, 0);
	rest(10);
	tell();
	await();
	send(fd, "number", 6, 0);
	rest(10);
	tell();
	await();
	shutdown(fd, SHUT_WR);
	tell();
	read_all(fd, (char[8]){0}, 8);
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
