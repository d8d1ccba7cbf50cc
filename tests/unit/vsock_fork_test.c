/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forked servers on vs_* alone: who holds what after fork, workers that share a listener, children that come and go.
 * Each test runs in a process of its own (the client) against a server process of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/knobs.h"
#include "socket/process.h"
#include "socket/vsock.h"

struct sk {
	vsock_t v;
	int fd;
};

#define NEED(x)                                                                                                        \
	do {                                                                                                           \
		if (!(x)) {                                                                                            \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                        \
			_exit(20);                                                                                     \
		}                                                                                                      \
	} while (0)

static struct sk make(void)
{
	struct sk s = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
	enum reason reason;

	NEED(vs_socket(AF_INET, SOCK_STREAM, 0, s.fd, &s.v, &reason) == 0);
	return s;
}

static void finish(struct sk *s)
{
	vs_close(s->v, true);
	close(s->fd);
}

static struct sk listening(uint16_t *port)
{
	struct sk l = make();
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	enum reason reason;

	NEED(vs_bind(l.v, l.fd, (struct sockaddr *)&sin, sizeof(sin), &reason) == 0);
	NEED(vs_listen(l.v, l.fd, 64, &reason) == 0);
	NEED(vs_getsockname(l.v, l.fd, (struct sockaddr *)&sin, &len) == 0);
	*port = ntohs(sin.sin_port);
	return l;
}

static struct sk accepted(struct sk *l)
{
	struct sk c;
	enum reason reason;

	c.fd = vs_accept(l->v, l->fd, NULL, NULL, 0, true, &c.v, &reason);
	NEED(c.fd >= 0);
	NEED(c.v != VS_NONE);
	return c;
}

static ssize_t put(struct sk *s, const void *p, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};

	return vs_send(s->v, s->fd, &iov, 1, 0, NULL, 0, NULL, 0, true);
}

static ssize_t get(struct sk *s, void *p, size_t n)
{
	struct iovec iov = {p, n};

	return vs_recv(s->v, s->fd, &iov, 1, 0, NULL, NULL, NULL, NULL, NULL, true);
}

static struct sk connected(uint16_t port)
{
	struct sk s = make();
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	enum reason reason = REASON_NONE;

	NEED(vs_connect(s.v, s.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason) == 0);
	return s;
}

static void echo(struct sk *c)
{
	char buf[256];
	ssize_t n;

	while ((n = get(c, buf, sizeof(buf))) > 0)
		NEED(put(c, buf, (size_t)n) == n);
	NEED(n == 0);
}

static void expect_echo(struct sk *s, const char *text)
{
	char buf[256];
	size_t n = strlen(text) + 1;

	NEED(put(s, text, n) == (ssize_t)n);
	NEED(get(s, buf, sizeof(buf)) == (ssize_t)n);
	NEED(!strcmp(buf, text));
}

/* As the preload library forks. */
static pid_t vs_fork(const vsock_t *all, size_t n)
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

static pid_t serve(void (*fn)(struct sk *), uint16_t *port)
{
	int p[2];
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct sk l = listening(port);

		alarm(30);
		NEED(write(p[1], port, sizeof(*port)) == (ssize_t)sizeof(*port));
		close(p[0]);
		close(p[1]);
		fn(&l);
		_exit(0);
	}
	close(p[1]);
	assert_int_equal(read(p[0], port, sizeof(*port)), (ssize_t)sizeof(*port));
	close(p[0]);
	return pid;
}

static void ended_well(pid_t pid)
{
	int status;

	NEED(waitpid(pid, &status, 0) == pid);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The client's side in a process of its own: true if it ended well. */
static void client(void (*fn)(uint16_t, pid_t), void (*server)(struct sk *))
{
	uint16_t port;
	pid_t s = serve(server, &port), c;
	int status;

	c = fork();
	if (!c) {
		alarm(30);
		fn(port, s);
		_exit(0);
	}
	assert_int_equal(waitpid(c, &status, 0), c);
	kill(s, SIGTERM);
	waitpid(s, NULL, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- a process per connection --- */

static void fork_per_connection(struct sk *l)
{
	for (int i = 0; i < 3; i++) {
		struct sk c = accepted(l);
		vsock_t all[] = {l->v, c.v};
		pid_t pid = vs_fork(all, 2);

		if (!pid) {
			alarm(30);
			finish(l);
			echo(&c);
			finish(&c);
			_exit(0);
		}
		finish(&c);
	}
	while (wait(NULL) > 0)
		;
	finish(l);
}

static void three_at_once(uint16_t port, pid_t server)
{
	struct sk s[3];

	(void)server;
	for (int i = 0; i < 3; i++) {
		s[i] = connected(port);
		expect_echo(&s[i], "hello");
	}
	for (int i = 0; i < 3; i++)
		expect_echo(&s[i], "again, all of you");
	for (int i = 0; i < 3; i++)
		finish(&s[i]);
}

static void an_inherited_connection_goes_on_in_the_child(void **state)
{
	(void)state;
	client(three_at_once, fork_per_connection);
}

/* --- workers --- */

static void workers(struct sk *l)
{
	pid_t pid[2];

	for (int i = 0; i < 2; i++) {
		pid[i] = vs_fork(&l->v, 1);
		if (!pid[i]) {
			alarm(30);
			for (;;) {
				struct sk c = accepted(l);

				echo(&c);
				finish(&c);
			}
		}
	}
	pause();
}

static void many_one_by_one(uint16_t port, pid_t server)
{
	(void)server;
	usleep(50000);
	for (int i = 0; i < 50; i++) {
		struct sk s = connected(port);

		expect_echo(&s, "work");
		finish(&s);
	}
}

static void forked_workers_accept_into_stacks_of_their_own(void **state)
{
	pid_t s;
	int status;

	(void)state;
	s = fork();
	if (!s) { /* a process group, so that the workers can be ended too */
		setpgid(0, 0);
		client(many_one_by_one, workers);
		_exit(0);
	}
	assert_int_equal(waitpid(s, &status, 0), s);
	kill(-s, SIGKILL);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- a child that makes no use of what it inherited (a snapshot) --- */

static void snapshots(struct sk *l)
{
	struct sk c = accepted(l);
	vsock_t all[] = {l->v, c.v};
	char buf[64];
	ssize_t n;

	while ((n = get(&c, buf, sizeof(buf))) > 0) {
		pid_t pid = vs_fork(all, 2);

		if (!pid) {
			usleep(2000);
			vs_exit(all, 2);
			_exit(0);
		}
		NEED(put(&c, buf, (size_t)n) == n);
		if (buf[0] == 'w')
			ended_well(pid);
	}
	while (wait(NULL) > 0)
		;
	finish(&c);
}

static void snapshot_client(uint16_t port, pid_t server)
{
	struct sk s = connected(port);

	(void)server;
	for (int i = 0; i < 30; i++)
		expect_echo(&s, i % 3 ? "fork" : "wait");
	finish(&s);
}

static void children_that_end_leave_the_connection_alone(void **state)
{
	(void)state;
	client(snapshot_client, snapshots);
}

/* --- a child that dies --- */

static void murdered_child(struct sk *l)
{
	struct sk c = accepted(l);
	vsock_t all[] = {l->v, c.v};
	pid_t pid = vs_fork(all, 2);

	if (!pid) {
		for (;;)
			pause();
	}
	finish(&c); /* the child still holds it: no FIN yet */
	usleep(100000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	pause(); /* the helper notices, and closes what only the child held */
}

static void sees_the_end(uint16_t port, pid_t server)
{
	struct sk s = connected(port);
	struct timeval tv = {.tv_usec = 50000};
	char b;

	(void)server;
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(get(&s, &b, 1) == -EAGAIN);
	tv = (struct timeval){.tv_sec = 5};
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(get(&s, &b, 1) == 0);
	finish(&s);
}

static void what_only_a_killed_child_held_is_closed(void **state)
{
	(void)state;
	client(sees_the_end, murdered_child);
}

int main(void)
{
	char err[256];
	extern char **environ;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_inherited_connection_goes_on_in_the_child),
	    cmocka_unit_test(forked_workers_accept_into_stacks_of_their_own),
	    cmocka_unit_test(children_that_end_leave_the_connection_alone),
	    cmocka_unit_test(what_only_a_killed_child_held_is_closed),
	};

	if (knobs_load(environ, err, sizeof(err)) < 0)
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
