/* SPDX-License-Identifier: BSD-2-Clause */
/* One thread that is both ends: listen, connect, accept in sequence; many connections; UDP to itself. */
#include "pair.h"

static void stream(int l, int i)
{
	int c = connect_to(PORT), s = accept(l, NULL, NULL);
	char buf[16] = {0};

	if (i == 0) {
		show("send", send(c, "question", 8, 0));
		show("recv", recv(s, buf, sizeof buf, 0));
		say("got %.8s", buf);
		show("send", send(s, "answer", 6, 0));
		show("recv", recv(c, buf, sizeof buf, 0));
		show("shutdown", shutdown(c, SHUT_WR));
		show("recv", recv(s, buf, sizeof buf, 0));
		show("recv, nothing", recv(c, buf, sizeof buf, MSG_DONTWAIT));
	}
	close(i & 1 ? s : c);
	show("recv at the end", recv(i & 1 ? c : s, buf, sizeof buf, 0));
	close(i & 1 ? c : s);
}

/* More than fits into the buffers goes through in turns. */
static void bulk(int l)
{
	static char out[300000], in[300000];
	int c = connect_to(PORT), s = accept(l, NULL, NULL);
	size_t sent = 0, got = 0;

	for (size_t i = 0; i < sizeof out; i++)
		out[i] = (char)(i * 31 >> 3);
	while (got < sizeof in) {
		ssize_t n = sent < sizeof out ? send(c, out + sent, sizeof out - sent, MSG_DONTWAIT) : 0;

		sent += n > 0 ? (size_t)n : 0;
		n = recv(s, in + got, sizeof in - got, sent == got ? MSG_DONTWAIT : 0);
		got += n > 0 ? (size_t)n : 0;
	}
	say("the same: %d", !memcmp(in, out, sizeof in));
	close(c);
	close(s);
}

static void nonblocking(int l)
{
	struct sockaddr_in a = address(PORT);
	int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), s, r = connect(c, (struct sockaddr *)&a, sizeof a);
	struct pollfd p = {.fd = c, .events = POLLOUT};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
	say("connect: %s", r == 0 || errno == EINPROGRESS ? "under way" : strerrorname_np(errno));
	show("poll", poll(&p, 1, 2000));
	show("epoll", epoll_wait(ep, &ev, 1, 2000));
	s = accept(l, NULL, NULL);
	say("accepted: %d", s >= 0);
	close(ep);
	close(s);
	close(c);
}

/* Asked how it stands, a socket knows of the reset that has just come. */
static void reset_seen(int l)
{
	struct linger off = {1, 0};
	struct sockaddr_in a;
	struct tcp_info info;
	socklen_t n = sizeof a;
	char buf[8];

	for (int i = 0; i < 3; i++) {
		int c = connect_to(PORT), s = accept(l, NULL, NULL), e = 0;

		send(c, "data", 4, 0);
		setsockopt(c, SOL_SOCKET, SO_LINGER, &off, sizeof off);
		close(c);
		if (i == 0) {
			show("getpeername of what was reset", getpeername(s, (struct sockaddr *)&a, &n));
			show("recv of what came before", recv(s, buf, sizeof buf, 0));
		} else if (i == 1) {
			n = sizeof e;
			getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &n);
			say("SO_ERROR %s", strerrorname_np(e));
		} else {
			n = sizeof info;
			getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &n);
			say("TCP_INFO: state %d", info.tcpi_state);
		}
		close(s);
	}
}

static void datagrams(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = address(PORT);
	char buf[16] = {0};

	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	show("sendto itself", sendto(fd, "ping", 4, 0, (struct sockaddr *)&a, sizeof a));
	show("recv", recv(fd, buf, sizeof buf, 0));
	say("got %s", buf);
	close(fd);
}

/* A simultaneous open with itself. */
static void self_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = address(PORT + 1);
	char buf[16] = {0};

	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	show("connect to itself", connect(fd, (struct sockaddr *)&a, sizeof a));
	show("send", send(fd, "echo", 4, MSG_NOSIGNAL));
	show("recv", recv(fd, buf, sizeof buf, 0));
	say("got %s", buf);
	close(fd);
}

int main(void)
{
	int l;

	said = stdout;
	alarm(20);
	l = listen_on(PORT);
	for (int i = 0; i < 20; i++)
		stream(l, i);
	bulk(l);
	nonblocking(l);
	reset_seen(l);
	close(l);
	datagrams();
	self_connect();
	return 0;
}
