/* SPDX-License-Identifier: BSD-2-Clause */
/* See test_vsock.h. Every process forked here has an alarm, so that nothing waits for ever. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/knobs.h"
#include "lib/test_vsock.h"

#define ALARM_S 60

static pid_t test_process;

void test_need_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	if (getpid() == test_process)
		_fail(file, line);
	_exit(20);
}

int test_vsock_begin(void)
{
	extern char **environ;
	char err[256];

	test_process = getpid();
	if (knobs_load(environ, err, sizeof(err)) == 0)
		return 0;
	fprintf(stderr, "%s\n", err);
	return -1;
}

/* A process of a test's own: it ends in time, and where an assertion of cmocka's fails, instead of going on with the
 * tests that follow. */
static void begin_process(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	alarm(ALARM_S);
}

struct sockaddr_in sk_loopback(uint16_t port)
{
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

struct sk sk_make(int domain, int type)
{
	struct sk s = {.fd = socket(domain, type, 0)};
	enum reason reason;

	NEED(s.fd >= 0);
	NEED(vs_socket(domain, type, 0, s.fd, &s.v, &reason) == 0);
	return s;
}

struct sk sk_bound(int type, uint16_t *port)
{
	struct sk s = sk_make(AF_INET, type);
	struct sockaddr_in sin = sk_loopback(0);
	socklen_t len = sizeof(sin);
	enum reason reason;

	NEED(vs_bind(s.v, s.fd, (struct sockaddr *)&sin, sizeof(sin), &reason) == 0);
	NEED(vs_getsockname(s.v, s.fd, (struct sockaddr *)&sin, &len) == 0);
	*port = ntohs(sin.sin_port);
	return s;
}

struct sk sk_listening(uint16_t *port)
{
	struct sk l = sk_bound(SOCK_STREAM, port);
	enum reason reason;

	NEED(vs_listen(l.v, l.fd, 64, &reason) == 0);
	return l;
}

struct sk sk_accepted(const struct sk *l)
{
	struct sk c;
	enum reason reason;

	c.fd = vs_accept(l->v, l->fd, NULL, NULL, 0, true, &c.v, &reason);
	NEED(c.fd >= 0);
	return c;
}

struct sk sk_connected(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_STREAM);
	struct sockaddr_in sin = sk_loopback(port);
	enum reason reason = REASON_NONE;
	socklen_t len = sizeof(sin);

	NEED(vs_connect(s.v, s.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason) == 0);
	NEED(getpeername(s.fd, (struct sockaddr *)&sin, &len) == -1); /* the kernel carries nothing */
	return s;
}

void sk_close(struct sk *s)
{
	vs_close(s->v, true);
	close(s->fd);
}

ssize_t sk_send(const struct sk *s, const void *p, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};

	return vs_send(s->v, s->fd, &iov, 1, 0, NULL, 0, NULL, 0, true);
}

ssize_t sk_recv(const struct sk *s, void *p, size_t n, int flags)
{
	struct iovec iov = {p, n};

	return vs_recv(s->v, s->fd, &iov, 1, flags, NULL, NULL, NULL, NULL, NULL, true);
}

void test_ended_well(pid_t pid)
{
	int status;

	NEED(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fprintf(stderr, "process %d ended with wait status %#x\n", (int)pid, (unsigned int)status);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void test_in_child(void (*fn)(void))
{
	pid_t pid = fork();

	NEED(pid >= 0);
	if (!pid) {
		begin_process();
		fn();
		exit(0); /* with what is checked and written at exit */
	}
	test_ended_well(pid);
}

pid_t test_serve(int type, void (*fn)(struct sk *, int), int arg, uint16_t *port)
{
	int p[2];
	pid_t pid;

	NEED(pipe(p) == 0);
	pid = fork();
	NEED(pid >= 0);
	if (!pid) {
		struct sk s;

		begin_process();
		s = type == SOCK_STREAM ? sk_listening(port) : sk_bound(type, port);
		NEED(write(p[1], port, sizeof(*port)) == (ssize_t)sizeof(*port));
		close(p[0]);
		close(p[1]);
		fn(&s, arg);
		_exit(0);
	}
	close(p[1]);
	NEED(read(p[0], port, sizeof(*port)) == (ssize_t)sizeof(*port));
	close(p[0]);
	return pid;
}

pid_t test_vs_fork(const vsock_t *all, size_t n)
{
	pid_t pid;

	vs_fork_prepare(all, n);
	pid = fork();
	if (pid)
		vs_fork_parent(pid);
	else
		vs_fork_child();
	return pid;
}
