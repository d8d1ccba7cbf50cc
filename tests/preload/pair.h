/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For programs that show one behaviour of sockets by what they print. Each runs twice, on the kernel and with the
 * library preloaded, and must print the same (compare).
 *
 * Two roles run in two processes, forked before either makes a socket. Their lines are collected and printed one role
 * after the other, so the output does not depend on who is faster. tell() and await() order what they do.
 */
#ifndef PAIR_H
#define PAIR_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT 7000

static FILE *said;
static int to_other, from_other;

__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(said, format, args);
	va_end(args);
	fputc('\n', said);
	fflush(said);
}

/* A result and, if it is an error, errno's name. */
__attribute__((unused)) static void show(const char *what, long r)
{
	if (r < 0)
		say("%s: %s", what, strerrorname_np(errno));
	else
		say("%s: %ld", what, r);
}

__attribute__((unused)) static void tell(void)
{
	if (write(to_other, "x", 1) != 1)
		exit(3);
}

__attribute__((unused)) static void await(void)
{
	char c;

	if (read(from_other, &c, 1) != 1)
		exit(4);
}

__attribute__((unused)) static void rest(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	while (nanosleep(&t, &t) < 0)
		;
}

__attribute__((unused)) static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

__attribute__((unused)) static struct sockaddr_in address(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

__attribute__((unused)) static int listen_on(int port)
{
	struct sockaddr_in a = address(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 16) < 0) {
		perror("listen");
		exit(5);
	}
	return fd;
}

__attribute__((unused)) static int connect_to(int port)
{
	struct sockaddr_in a = address(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		perror("connect");
		exit(6);
	}
	return fd;
}

/* Read exactly n bytes, or less at the end of the stream. */
__attribute__((unused)) static size_t read_all(int fd, void *buf, size_t n)
{
	size_t done = 0;
	ssize_t r;

	while (done < n && (r = read(fd, (char *)buf + done, n - done)) > 0)
		done += (size_t)r;
	return done;
}

/* Both roles, each in its process. */
__attribute__((unused)) static int roles(void (*server)(void), void (*client)(void))
{
	int a[2], b[2], status = 0;
	char line[4096];
	FILE *child_said = tmpfile();
	pid_t pid;

	said = tmpfile();
	alarm(20);
	if (!said || !child_said || pipe(a) < 0 || pipe(b) < 0)
		return 2;
	pid = fork();
	if (!pid) {
		alarm(20);
		said = child_said;
		to_other = b[1];
		from_other = a[0];
		close(a[1]);
		close(b[0]);
		server();
		exit(0);
	}
	to_other = a[1];
	from_other = b[0];
	close(a[0]);
	close(b[1]);
	client();
	waitpid(pid, &status, 0);
	rewind(said);
	rewind(child_said);
	while (fgets(line, sizeof line, said))
		printf("client: %s", line);
	while (fgets(line, sizeof line, child_said))
		printf("server: %s", line);
	if (status)
		printf("server: ended with %x\n", (unsigned)status);
	return status != 0;
}

static void (*pair_server)(int), (*pair_client)(int);

__attribute__((unused)) static void pair_accept(void)
{
	int l = listen_on(PORT), fd;

	tell();
	fd = accept(l, NULL, NULL);
	if (fd < 0)
		show("accept", fd);
	close(l);
	pair_server(fd);
}

__attribute__((unused)) static void pair_connect(void)
{
	await();
	pair_client(connect_to(PORT));
}

/* Both roles with a connection between them. */
__attribute__((unused)) static int pair(void (*server)(int), void (*client)(int))
{
	pair_server = server;
	pair_client = client;
	return roles(pair_accept, pair_connect);
}

#endif
