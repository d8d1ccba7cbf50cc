/* SPDX-License-Identifier: BSD-2-Clause */
/* IPv6: TCP and UDP over ::1, IPv4 clients of a listener on [::], IPV6_V6ONLY. */
#include "pair.h"

#define DUAL PORT
#define ONLY (PORT + 1)
#define EXACT (PORT + 2)
#define DATAGRAMS (PORT + 3)

static struct sockaddr_in6 six(const char *text, int port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

	inet_pton(AF_INET6, text, &a.sin6_addr);
	return a;
}

/* The address without the port, which is chosen anew in each run, unless it is one of ours. */
static void show_name(const char *what, const struct sockaddr_storage *ss, socklen_t len)
{
	struct sockaddr_in6 a6;
	struct sockaddr_in a4;
	char text[INET6_ADDRSTRLEN];
	int port;

	memcpy(&a6, ss, sizeof a6);
	memcpy(&a4, ss, sizeof a4);
	port = ntohs(ss->ss_family == AF_INET6 ? a6.sin6_port : a4.sin_port);
	if (ss->ss_family == AF_INET6)
		inet_ntop(AF_INET6, &a6.sin6_addr, text, sizeof text);
	else
		inet_ntop(AF_INET, &a4.sin_addr, text, sizeof text);
	say("%s: family %d, %u bytes, %s port %d", what, ss->ss_family, len, text,
	    port >= PORT && port < PORT + 10 ? port : 0);
}

static void show_names(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof ss;

	if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0)
		show_name("  local", &ss, len);
	len = sizeof ss;
	if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0)
		show_name("  remote", &ss, len);
	else
		show("  getpeername", -1);
}

static int listen6(const char *text, int port, int only)
{
	struct sockaddr_in6 a = six(text, port);
	int fd = socket(AF_INET6, SOCK_STREAM, 0), one = 1, got = -1;
	socklen_t len = sizeof got;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	show("IPV6_V6ONLY", setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only));
	getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &got, &len);
	show("IPV6_V6ONLY is", got);
	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	show("listen", listen(fd, 8));
	return fd;
}

static void serve(int l, int times)
{
	for (int i = 0; i < times; i++) {
		struct sockaddr_storage ss = {0};
		socklen_t len = sizeof ss;
		int fd = accept(l, (struct sockaddr *)&ss, &len);
		char c = 0;

		if (fd < 0) {
			show("accept", fd);
			return;
		}
		show_name("accepted", &ss, len);
		show_names(fd);
		show("read", read(fd, &c, 1));
		show("write", write(fd, &c, 1));
		show("end", read(fd, &c, 1));
		close(fd);
	}
}

static void datagrams(void)
{
	struct sockaddr_in6 a = six("::", DATAGRAMS);
	struct sockaddr_storage ss = {0};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	char buf[2000];

	show("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	tell();
	for (int i = 0; i < 4; i++) {
		socklen_t len = sizeof ss;
		ssize_t n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&ss, &len);

		show("datagram", n);
		show_name("from", &ss, len);
		show("answer", sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&ss, len));
	}
	close(fd);
}

static void server(void)
{
	int dual = listen6("::", DUAL, 0), only = listen6("::", ONLY, 1), exact = listen6("::1", EXACT, 0);

	tell();
	serve(dual, 3);
	serve(only, 1);
	serve(exact, 1);
	datagrams();
	close(dual);
	close(only);
	close(exact);
}

static void dial(int family, const void *addr, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM, 0), r = connect(fd, addr, len);
	char c = 'x';

	show("connect", r);
	if (r == 0) {
		show_names(fd);
		show("write", write(fd, &c, 1));
		show("read", read(fd, &c, 1));
	}
	close(fd);
}

static void ask(int family, const void *addr, socklen_t len, bool connected)
{
	struct sockaddr_storage ss = {0};
	socklen_t got = sizeof ss;
	int fd = socket(family, SOCK_DGRAM, 0);
	char buf[2000] = "?";

	if (connected)
		show("connect", connect(fd, addr, len));
	show("send", connected ? send(fd, buf, 1200, 0) : sendto(fd, buf, 1200, 0, addr, len));
	show("receive", recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&ss, &got));
	show_name("from", &ss, got);
	close(fd);
}

static void client(void)
{
	struct sockaddr_in6 a = six("::1", DUAL), mapped = six("::ffff:127.0.0.1", DUAL);
	struct sockaddr_in four = address(DUAL);

	await();
	dial(AF_INET6, &a, sizeof a);
	dial(AF_INET, &four, sizeof four);
	dial(AF_INET6, &mapped, sizeof mapped);
	a = six("::1", ONLY);
	dial(AF_INET6, &a, sizeof a);
	four = address(ONLY);
	dial(AF_INET, &four, sizeof four);
	a = six("::1", EXACT);
	dial(AF_INET6, &a, sizeof a);
	four = address(EXACT);
	dial(AF_INET, &four, sizeof four);
	await();
	a = six("::1", DATAGRAMS);
	ask(AF_INET6, &a, sizeof a, false);
	ask(AF_INET6, &a, sizeof a, true);
	four = address(DATAGRAMS);
	ask(AF_INET, &four, sizeof four, false);
	mapped = six("::ffff:127.0.0.1", DATAGRAMS);
	ask(AF_INET6, &mapped, sizeof mapped, false);
}

int main(void)
{
	return roles(server, client);
}
