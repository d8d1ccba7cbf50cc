/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One process that talks to itself over a TCP connection in one thread: what send and recv cost in instructions, with
 * no waiting in it.
 *
 *	bench-loop N
 *
 * N round trips of 64 bytes. bench/instructions runs it with N and 2N under callgrind.
 */
#include "net.h"

static void move(int from, int to, char *buf, size_t len)
{
	ssize_t n;

	if (send(from, buf, len, 0) != (ssize_t)len)
		die("send");
	while ((n = recv(to, buf, len, 0)) < 0 && errno == EINTR)
		;
	if (n != (ssize_t)len)
		die("recv");
}

int main(int argc, char **argv)
{
	unsigned long n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);
	char buf[64] = {0};
	int listener = socket(AF_INET, SOCK_STREAM, 0), a = socket(AF_INET, SOCK_STREAM, 0), b;

	if (!n) {
		fprintf(stderr, "usage: bench-loop N\n");
		return 2;
	}
	if (bind(listener, (struct sockaddr *)&sa, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&sa, &len) < 0)
		die("listen");
	if (connect(a, (struct sockaddr *)&sa, len) < 0)
		die("connect");
	b = accept(listener, NULL, NULL);
	if (b < 0)
		die("accept");
	set_nodelay(a);
	set_nodelay(b);
	for (unsigned long i = 0; i < n; i++) {
		move(a, b, buf, sizeof(buf));
		move(b, a, buf, sizeof(buf));
	}
	return 0;
}
