/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The listener at a port goes away and one of another kind takes the port: the next connection, blocking or not,
 * watched by poll or by epoll, reaches whoever listens now. The same for UDP sockets.
 */
#include "pair.h"

static void as_plain(const char *what)
{
	unsetenv("LD_PRELOAD");
	execl("/proc/self/exe", "moved", what, (char *)NULL);
	_exit(9);
}

/* --- a server that tells its client who it is --- */

static int serve_streams(const char *name, int times)
{
	int l = listen_on(PORT);

	if (write(3, "x", 1) != 1)
		return 1;
	for (int i = 0; i < times; i++) {
		int fd = accept(l, NULL, NULL);

		if (write(fd, name, strlen(name)) < 0)
			return 1;
		close(fd);
	}
	close(l);
	return 0;
}

static int serve_datagrams(const char *name, int times)
{
	struct sockaddr_in a = address(PORT);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[16];

	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || write(3, "x", 1) != 1)
		return 1;
	for (int i = 0; i < times; i++) {
		socklen_t len = sizeof a;

		if (recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&a, &len) < 0)
			return 1;
		sendto(fd, name, strlen(name), 0, (struct sockaddr *)&a, len);
	}
	close(fd);
	return 0;
}

/* Start one and wait until it listens. It lives on after its last client if it lingers. */
static pid_t start(bool plain, bool udp, int times, bool lingers)
{
	int p[2];
	pid_t pid;
	char c;

	if (pipe(p) < 0)
		exit(2);
	pid = fork();
	if (!pid) {
		dup2(p[1], 3);
		alarm(20);
		if (plain)
			as_plain(udp ? "udp" : "tcp");
		if ((udp ? serve_datagrams : serve_streams)("fast ", times))
			_exit(1);
		if (lingers)
			pause();
		exit(0);
	}
	close(p[1]);
	if (read(p[0], &c, 1) != 1)
		say("no server");
	close(p[0]);
	return pid;
}

static void stop(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

/* --- clients --- */

enum way { BLOCKING, POLL, EPOLL, EPOLL_EDGE, OPTION, SEND };
static const char *const way_name[] = {"blocking", "poll", "epoll", "epoll, edge-triggered", "SO_ERROR", "send"};

static void wait_connected(int fd, enum way way)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct epoll_event ev = {.events = EPOLLOUT | EPOLLIN | (way == EPOLL_EDGE ? EPOLLET : 0), .data.u64 = 7};
	int ep, n;

	if (way == POLL || way == OPTION) {
		if (way == OPTION)
			rest(50);
		n = poll(&p, 1, 2000);
		say("poll: %d, events %x", n, (unsigned)p.revents & POLLOUT);
		return;
	}
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	for (int i = 0; i < 5; i++) {
		memset(&ev, 0, sizeof ev);
		n = epoll_wait(ep, &ev, 1, 2000);
		if (n != 1 || ev.events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			break;
	}
	say("epoll: %d, events %x, data %d", n, ev.events & (EPOLLOUT | EPOLLERR | EPOLLHUP), (int)ev.data.u64);
	close(ep);
}

static void dial(enum way way)
{
	struct sockaddr_in a = address(PORT);
	int fd = socket(AF_INET, SOCK_STREAM | (way == BLOCKING ? 0 : SOCK_NONBLOCK), 0);
	int r = connect(fd, (struct sockaddr *)&a, sizeof a), err = -1;
	socklen_t len = sizeof err;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char buf[16] = {0};

	say("%s", way_name[way]);
	if (r < 0 && errno != EINPROGRESS)
		show("connect", r);
	if (way != BLOCKING)
		wait_connected(fd, way);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	say("SO_ERROR: %s", err > 0 ? strerrorname_np(err) : "0");
	len = sizeof a;
	show("getpeername", getpeername(fd, (struct sockaddr *)&a, &len));
	poll(&p, 1, 2000);
	show("read", read(fd, buf, 5));
	say("from %s", buf);
	close(fd);
}

/* An answer that does not come ends the program. */
static void ask(int fd)
{
	struct sockaddr_in a = address(PORT);
	char buf[16] = {0};

	show("sendto", sendto(fd, "?", 1, 0, (struct sockaddr *)&a, sizeof a));
	show("recv", recv(fd, buf, sizeof buf, 0));
	say("from %s", buf);
}

/* The old listener's process lives on (or not) when the plain one takes the port. */
static void streams(bool lingers)
{
	for (enum way w = BLOCKING; w <= OPTION; w++) {
		pid_t fast = start(false, false, 1, lingers), plain;

		dial(BLOCKING);
		if (!lingers)
			stop(fast);
		else
			rest(50);
		plain = start(true, false, 1, true);
		dial(w);
		stop(plain);
		if (lingers)
			stop(fast);
	}
}

/* Nobody takes the port: refused. */
static void refused(void)
{
	for (enum way w = BLOCKING; w <= OPTION; w++) {
		pid_t fast = start(false, false, 1, true);

		dial(BLOCKING);
		rest(50);
		dial(w);
		stop(fast);
	}
}

static void datagrams(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	pid_t first, next;

	first = start(false, true, 3, false);
	ask(fd);
	ask(fd);
	ask(fd);
	waitpid(first, NULL, 0);
	next = start(true, true, 2, true);
	ask(fd);
	ask(fd);
	stop(next);
	next = start(false, true, 2, true);
	rest(200); /* for that long, that a plain one was there is remembered */
	ask(fd);
	ask(fd);
	stop(next);
	close(fd);
}

int main(int argc, char **argv)
{
	said = stdout;
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(35);
	if (argc > 1)
		return (!strcmp(argv[1], "udp") ? serve_datagrams : serve_streams)("plain", 100);
	streams(true);
	streams(false);
	refused();
	datagrams();
	return 0;
}
