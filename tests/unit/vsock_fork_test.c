/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forked servers on vs_* alone: who holds what after fork, workers that share a listener, children that come and go.
 * Each test runs in a process of its own (the client) against a server process of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/test_vsock.h"

/* The next connection, which a wire must carry. */
static struct sk accepted(const struct sk *l)
{
	struct sk c = sk_accepted(l);

	NEED(c.v != VS_NONE);
	return c;
}

static void echo(struct sk *c)
{
	char buf[256];
	ssize_t n;

	while ((n = sk_recv(c, buf, sizeof(buf), 0)) > 0)
		NEED(sk_send(c, buf, (size_t)n) == n);
	NEED(n == 0);
}

static void expect_echo(struct sk *s, const char *text)
{
	char buf[256];
	size_t n = strlen(text) + 1;

	NEED(sk_send(s, text, n) == (ssize_t)n);
	NEED(sk_recv(s, buf, sizeof(buf), 0) == (ssize_t)n);
	NEED(!strcmp(buf, text));
}

/* The client's side in a process of its own: true if it ended well. */
static void client(void (*fn)(uint16_t, pid_t), void (*server)(struct sk *, int))
{
	uint16_t port;
	pid_t s = test_serve(SOCK_STREAM, server, 0, &port), c;
	int status;

	c = fork();
	if (!c) {
		alarm(30);
		fn(port, s);
		_exit(0);
	}
	NEED(waitpid(c, &status, 0) == c);
	kill(s, SIGTERM);
	waitpid(s, NULL, 0);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- a process per connection --- */

/* The parent accepts count connections and forks a child to echo on each. */
static void fork_echoes(struct sk *l, int count)
{
	for (int i = 0; i < count; i++) {
		struct sk c = accepted(l);
		vsock_t all[] = {l->v, c.v};
		pid_t pid = test_vs_fork(all, 2);

		if (!pid) {
			alarm(30);
			sk_close(l);
			echo(&c);
			sk_close(&c);
			_exit(0);
		}
		sk_close(&c);
	}
}

static void fork_per_connection(struct sk *l, int unused)
{
	(void)unused;
	fork_echoes(l, 3);
	while (wait(NULL) > 0)
		;
	sk_close(l);
}

static void three_at_once(uint16_t port, pid_t server)
{
	struct sk s[3];

	(void)server;
	for (int i = 0; i < 3; i++) {
		s[i] = sk_connected(port);
		expect_echo(&s[i], "hello");
	}
	for (int i = 0; i < 3; i++)
		expect_echo(&s[i], "again, all of you");
	for (int i = 0; i < 3; i++)
		sk_close(&s[i]);
}

static void an_inherited_connection_goes_on_in_the_child(void **state)
{
	(void)state;
	client(three_at_once, fork_per_connection);
}

/* --- a process per connection, and each client a process of its own: PostgreSQL's way --- */

#define BACKENDS 5

/* The children live side by side: those that were forked early share the stack with connections over wires that were
 * made when they were there already, which they know nothing of. */
static void backends(struct sk *l, int unused)
{
	(void)unused;
	fork_echoes(l, BACKENDS);
	for (int i = 0; i < BACKENDS; i++) {
		int status;

		NEED(wait(&status) > 0 && status == 0);
	}
	sk_close(l);
}

/* Requests of many small writes, which Nagle's algorithm and delayed ACKs meet in: no answer may wait for a timer that
 * fired in the wrong process. */
static void ask_a_backend(uint16_t port)
{
	struct sk s = sk_connected(port);
	char buf[64];

	usleep(20000);
	for (int i = 0; i < 200; i++) {
		for (int j = 0; j < 3; j++)
			NEED(sk_send(&s, "0123456789", 10) == 10);
		for (ssize_t n = 0, got = 0; got < 30; got += n) {
			n = sk_recv(&s, buf, sizeof(buf), 0);
			NEED(n > 0);
		}
		if (i % 50 == 0)
			usleep(60000); /* everybody sleeps */
	}
	sk_close(&s);
}

static void a_child_serves_what_its_parent_accepted_beside_its_sisters(void **state)
{
	uint16_t port;
	pid_t s = test_serve(SOCK_STREAM, backends, 0, &port), c[BACKENDS];

	(void)state;
	for (int i = 0; i < BACKENDS; i++) {
		c[i] = fork();
		if (!c[i]) {
			alarm(30);
			ask_a_backend(port);
			_exit(0);
		}
	}
	for (int i = 0; i < BACKENDS; i++)
		test_ended_well(c[i]);
	test_ended_well(s);
}

/* --- workers --- */

static void workers(struct sk *l, int unused)
{
	pid_t pid[2];

	(void)unused;
	for (int i = 0; i < 2; i++) {
		pid[i] = test_vs_fork(&l->v, 1);
		if (!pid[i]) {
			alarm(30);
			for (;;) {
				struct sk c = accepted(l);

				echo(&c);
				sk_close(&c);
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
		struct sk s = sk_connected(port);

		expect_echo(&s, "work");
		sk_close(&s);
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

/* --- wires that the parent makes when its children are there already --- */

#define LATE 8

/* The parent has accepted once, so its helper answers for the listener as well; but from then on only the child
 * accepts, also what comes over wires that it has not. */
static void parent_leaves_it_to_the_child(struct sk *l, int unused)
{
	struct sk c = accepted(l);
	pid_t pid;

	(void)unused;
	echo(&c);
	sk_close(&c);
	pid = test_vs_fork(&l->v, 1);
	if (!pid) {
		alarm(30);
		for (int i = 0; i < LATE; i++) {
			struct sk late = accepted(l);

			echo(&late);
			sk_close(&late);
		}
		_exit(0);
	}
	test_ended_well(pid);
	sk_close(l);
}

static void ask_once(uint16_t port)
{
	struct sk s = sk_connected(port);

	expect_echo(&s, "late");
	expect_echo(&s, "later");
	sk_close(&s);
}

static void a_child_accepts_over_wires_that_its_parent_made_later(void **state)
{
	uint16_t port;
	pid_t s = test_serve(SOCK_STREAM, parent_leaves_it_to_the_child, 0, &port), c;

	(void)state;
	for (int i = 0; i <= LATE; i++) {
		c = fork();
		if (!c) {
			alarm(10);
			ask_once(port);
			_exit(0);
		}
		test_ended_well(c);
	}
	test_ended_well(s);
}

/* A socket that parent and child read: each gets datagrams over wires that the other has made. */
static void share_a_socket(struct sk *u, int unused)
{
	pid_t pid = test_vs_fork(&u->v, 1);
	char buf[64];

	(void)unused;
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		struct iovec iov = {buf, sizeof(buf)};
		ssize_t n = vs_recv(u->v, u->fd, &iov, 1, 0, (struct sockaddr *)&from, &len, NULL, NULL, NULL, true);

		NEED(n == 9); /* it does not end well: both are killed */
		iov.iov_len = (size_t)n;
		NEED(vs_send(u->v, u->fd, &iov, 1, 0, (struct sockaddr *)&from, len, NULL, 0, true) == n);
		if (pid)
			usleep(2000); /* the child's turn */
	}
}

static void ask_by_datagram(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port);
	struct timeval tv = {.tv_sec = 3};
	enum reason reason;
	char buf[64];

	NEED(vs_connect(s.v, s.fd, (struct sockaddr *)&to, sizeof(to), true, &reason) == 0);
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	for (int i = 0; i < 30; i++) {
		snprintf(buf, sizeof(buf), "asking%03d", i);
		NEED(sk_send(&s, buf, 9) == 9);
		memset(buf, 0, sizeof(buf));
		NEED(sk_recv(&s, buf, sizeof(buf), 0) == 9 && !memcmp(buf, "asking", 6));
	}
	sk_close(&s);
}

static void parent_and_child_read_one_udp_socket(void **state)
{
	uint16_t port;
	pid_t s = test_serve(SOCK_DGRAM, share_a_socket, 0, &port), c;

	(void)state;
	for (int i = 0; i < 4; i++) {
		c = fork();
		if (!c) {
			alarm(20);
			ask_by_datagram(port);
			_exit(0);
		}
		test_ended_well(c);
	}
	kill(s, SIGKILL);
	waitpid(s, NULL, 0);
}

/* --- a child that makes no use of what it inherited (a snapshot) --- */

static void snapshots(struct sk *l, int unused)
{
	struct sk c = accepted(l);
	vsock_t all[] = {l->v, c.v};
	char buf[64];
	ssize_t n;

	(void)unused;
	while ((n = sk_recv(&c, buf, sizeof(buf), 0)) > 0) {
		pid_t pid = test_vs_fork(all, 2);

		if (!pid) {
			usleep(2000);
			vs_exit(all, 2);
			_exit(0);
		}
		NEED(sk_send(&c, buf, (size_t)n) == n);
		if (buf[0] == 'w')
			test_ended_well(pid);
	}
	while (wait(NULL) > 0)
		;
	sk_close(&c);
}

static void snapshot_client(uint16_t port, pid_t server)
{
	struct sk s = sk_connected(port);

	(void)server;
	for (int i = 0; i < 30; i++)
		expect_echo(&s, i % 3 ? "fork" : "wait");
	sk_close(&s);
}

static void children_that_end_leave_the_connection_alone(void **state)
{
	(void)state;
	client(snapshot_client, snapshots);
}

/* --- a child that dies --- */

static void murdered_child(struct sk *l, int unused)
{
	struct sk c = accepted(l);
	vsock_t all[] = {l->v, c.v};
	pid_t pid = test_vs_fork(all, 2);

	(void)unused;
	if (!pid) {
		for (;;)
			pause();
	}
	sk_close(&c); /* the child still holds it: no FIN yet */
	usleep(100000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	pause(); /* the helper notices, and closes what only the child held */
}

static void sees_the_end(uint16_t port, pid_t server)
{
	struct sk s = sk_connected(port);
	struct timeval tv = {.tv_usec = 50000};
	char b;

	(void)server;
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(sk_recv(&s, &b, 1, 0) == -EAGAIN);
	tv = (struct timeval){.tv_sec = 5};
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(sk_recv(&s, &b, 1, 0) == 0);
	sk_close(&s);
}

static void what_only_a_killed_child_held_is_closed(void **state)
{
	(void)state;
	client(sees_the_end, murdered_child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_inherited_connection_goes_on_in_the_child),
	    cmocka_unit_test(a_child_serves_what_its_parent_accepted_beside_its_sisters),
	    cmocka_unit_test(forked_workers_accept_into_stacks_of_their_own),
	    cmocka_unit_test(a_child_accepts_over_wires_that_its_parent_made_later),
	    cmocka_unit_test(parent_and_child_read_one_udp_socket),
	    cmocka_unit_test(children_that_end_leave_the_connection_alone),
	    cmocka_unit_test(what_only_a_killed_child_held_is_closed),
	};

	return test_vsock_main(tests);
}
