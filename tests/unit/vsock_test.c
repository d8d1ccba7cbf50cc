/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two processes, each with its own stack, talk through vs_* alone: no preload library. The test process is the
 * client; each test forks a server before the client's stack is touched, so both make their own. The kernel must
 * not carry a byte: the backing sockets are checked to be unconnected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TCP_CA_CWR LINUX_TCP_CA_CWR /* Linux's header names one congestion state as our engine does */
#include <linux/tcp.h>
#undef TCP_CA_CWR

#include "host/knobs.h"
#include "socket/process.h"
#include "socket/wait.h"
#include "socket/vsock.h"

struct sk {
	vsock_t v;
	int fd;
};

static struct sk make(int domain, int type)
{
	struct sk s = {.fd = socket(domain, type, 0)};
	enum reason reason;

	assert_true(s.fd >= 0);
	assert_int_equal(vs_socket(domain, type, 0, s.fd, &s.v, &reason), 0);
	return s;
}

static void finish(struct sk *s)
{
	vs_close(s->v, true);
	close(s->fd);
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static ssize_t put(struct sk *s, const void *p, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};

	return vs_send(s->v, s->fd, &iov, 1, 0, NULL, 0, NULL, 0, true);
}

static ssize_t get(struct sk *s, void *p, size_t n, int flags)
{
	struct iovec iov = {p, n};

	return vs_recv(s->v, s->fd, &iov, 1, flags, NULL, NULL, NULL, NULL, NULL, true);
}

/* --- servers, run in a process of their own --- */

static struct sk listening(uint16_t *port)
{
	struct sk l = make(AF_INET, SOCK_STREAM);
	struct sockaddr_in sin = loopback(0);
	socklen_t len = sizeof(sin);
	enum reason reason;

	assert_int_equal(vs_bind(l.v, l.fd, (struct sockaddr *)&sin, sizeof(sin), &reason), 0);
	assert_int_equal(vs_listen(l.v, l.fd, 64, &reason), 0);
	assert_int_equal(vs_getsockname(l.v, l.fd, (struct sockaddr *)&sin, &len), 0);
	*port = ntohs(sin.sin_port);
	return l;
}

static struct sk accepted(struct sk *l)
{
	struct sk c;
	enum reason reason;

	c.fd = vs_accept(l->v, l->fd, NULL, NULL, 0, true, &c.v, &reason);
	if (c.fd < 0)
		exit(10);
	return c;
}

static void echo(struct sk *l, int connections)
{
	static char buf[65536];

	while (connections--) {
		struct sk c = accepted(l);
		ssize_t n;

		if (c.v == VS_NONE)
			exit(11);
		while ((n = get(&c, buf, sizeof(buf), 0)) > 0)
			if (put(&c, buf, (size_t)n) != n)
				exit(12);
		if (n < 0)
			exit(13);
		finish(&c);
	}
}

/* Fork a server that runs `serve` on a listener; its port. */
static pid_t serve(void (*fn)(struct sk *, int), int arg, uint16_t *port)
{
	int p[2];
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct sk l = listening(port);

		alarm(60);
		if (write(p[1], port, sizeof(*port)) != (ssize_t)sizeof(*port))
			_exit(9);
		close(p[0]);
		close(p[1]);
		fn(&l, arg);
		finish(&l);
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

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static struct sk connected(uint16_t port)
{
	struct sk s = make(AF_INET, SOCK_STREAM);
	struct sockaddr_in sin = loopback(port);
	enum reason reason = REASON_NONE;
	socklen_t len = sizeof(sin);

	assert_int_equal(vs_connect(s.v, s.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason), 0);
	assert_int_equal(getpeername(s.fd, (struct sockaddr *)&sin, &len), -1); /* the kernel carries nothing */
	return s;
}

/* --- tests. Each runs in a process of its own: a fresh stack, and a crash fails only itself. --- */

static void in_child(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid) {
		alarm(60);
		fn();
		exit(0);
	}
	ended_well(pid);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ping_pong(void)
{
	uint16_t port;
	pid_t pid = serve(echo, 1, &port);
	struct sk s = connected(port);
	char buf[64] = "ping";
	uint64_t start = now_ns();
	int rounds = 100000;

	for (int i = 0; i < rounds; i++) {
		memcpy(buf + 8, &i, sizeof(i));
		assert_int_equal(put(&s, buf, sizeof(buf)), (ssize_t)sizeof(buf));
		memset(buf, 0, sizeof(buf));
		assert_int_equal(get(&s, buf, sizeof(buf), MSG_WAITALL), (ssize_t)sizeof(buf));
		assert_memory_equal(buf + 8, &i, sizeof(i));
	}
	print_message("64-byte round trip: %lu ns\n", (unsigned long)((now_ns() - start) / (uint64_t)rounds));
	finish(&s);
	ended_well(pid);
}

static void a_small_message_comes_back_over_a_wire(void **state)
{
	(void)state;
	in_child(ping_pong);
}

static void bulk(void)
{
	enum { TOTAL = 64 << 20, CHUNK = 1 << 16 };
	static unsigned char out[CHUNK], in[CHUNK];
	uint16_t port;
	pid_t pid = serve(echo, 1, &port);
	struct sk s = connected(port);
	size_t sent = 0, got = 0;

	while (got < TOTAL) {
		if (sent < TOTAL) {
			for (size_t i = 0; i < CHUNK; i++)
				out[i] = (unsigned char)((sent + i) * 2654435761u >> 11);
			assert_int_equal(put(&s, out, CHUNK), CHUNK);
			sent += CHUNK;
		}
		assert_int_equal(get(&s, in, CHUNK, MSG_WAITALL), CHUNK);
		for (size_t i = 0; i < CHUNK; i++)
			if (in[i] != (unsigned char)((got + i) * 2654435761u >> 11))
				fail_msg("byte %zu differs", got + i);
		got += CHUNK;
	}
	finish(&s);
	ended_well(pid);
}

static void every_byte_of_a_large_transfer_arrives_in_order(void **state)
{
	(void)state;
	in_child(bulk);
}

static void many(void)
{
	uint16_t port;
	pid_t pid = serve(echo, 200, &port);

	for (int i = 0; i < 200; i++) {
		struct sk s = connected(port);
		char c = (char)i;

		assert_int_equal(put(&s, &c, 1), 1);
		c = 0;
		assert_int_equal(get(&s, &c, 1, 0), 1);
		assert_int_equal(c, (char)i);
		finish(&s);
	}
	ended_well(pid);
}

static void connections_follow_one_another_over_one_wire(void **state)
{
	(void)state;
	in_child(many);
}

static void half_close(void)
{
	uint16_t port;
	pid_t pid = serve(echo, 1, &port);
	struct sk s = connected(port);
	char buf[16];

	assert_int_equal(put(&s, "last words", 10), 10);
	assert_int_equal(vs_shutdown(s.v, s.fd, SHUT_WR), 0);
	assert_int_equal(get(&s, buf, 10, MSG_WAITALL), 10);
	assert_memory_equal(buf, "last words", 10);
	assert_int_equal(get(&s, buf, 1, 0), 0);
	assert_int_equal(put(&s, "x", 1), -EPIPE);
	finish(&s);
	ended_well(pid);
}

static void after_shutdown_the_answer_still_comes_then_end_of_stream(void **state)
{
	(void)state;
	in_child(half_close);
}

static void nobody(void)
{
	struct sk s = make(AF_INET, SOCK_STREAM);
	struct sockaddr_in sin = loopback(1);
	enum reason reason = REASON_NONE;

	assert_int_equal(vs_connect(s.v, s.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason), VS_KERNEL);
	assert_int_equal(reason, REASON_NO_LISTENER);
	assert_false(vs_alive(s.v));
	assert_int_equal(connect(s.fd, (struct sockaddr *)&sin, sizeof(sin)), -1);
	assert_int_equal(errno, ECONNREFUSED);
	close(s.fd);
}

static void where_nobody_listens_the_kernel_decides(void **state)
{
	(void)state;
	in_child(nobody);
}

static void plain_client(void)
{
	uint16_t port;
	struct sk l = listening(&port), c;
	struct sockaddr_in sin = loopback(port);
	enum reason reason;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	c.fd = vs_accept(l.v, l.fd, NULL, NULL, 0, true, &c.v, &reason);
	assert_true(c.fd >= 0);
	assert_true(c.v == VS_NONE);
	assert_int_equal(reason, REASON_PLAIN_PEER);
	assert_int_equal(write(fd, "hi", 2), 2);
	close(fd);
	close(c.fd);
	finish(&l);
}

static void a_client_without_viaduct_is_accepted_from_the_kernel(void **state)
{
	(void)state;
	in_child(plain_client);
}

static void same_process(void)
{
	uint16_t port;
	struct sk l = listening(&port), s = connected(port), c = accepted(&l);
	char buf[8];

	assert_true(c.v != VS_NONE);
	assert_int_equal(put(&s, "to self", 8), 8);
	assert_int_equal(get(&c, buf, 8, MSG_WAITALL), 8);
	assert_string_equal(buf, "to self");
	finish(&s);
	assert_int_equal(get(&c, buf, 8, 0), 0);
	finish(&c);
	finish(&l);
}

static void a_process_can_connect_to_itself(void **state)
{
	(void)state;
	in_child(same_process);
}

static void hold(struct sk *l, int n)
{
	struct sk c = accepted(l);
	char b[4];

	(void)n;
	get(&c, b, sizeof(b), MSG_WAITALL);
	pause();
}

static void killed_peer(void)
{
	uint16_t port;
	pid_t pid = serve(hold, 0, &port);
	struct sk s = connected(port);
	char b[4];
	ssize_t n;

	assert_int_equal(put(&s, "1234", 4), 4);
	usleep(20000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	n = get(&s, b, sizeof(b), 0);
	if (n != 0 && n != -ECONNRESET)
		fail_msg("after the peer was killed: %zd", n);
	finish(&s);
}

static void a_killed_peer_ends_the_connection(void **state)
{
	(void)state;
	in_child(killed_peer);
}

static void timeouts(void)
{
	uint16_t port;
	pid_t pid = serve(hold, 0, &port);
	struct sk s = connected(port);
	struct timeval tv = {.tv_usec = 50000};
	uint64_t start;
	char b;

	assert_int_equal(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	start = now_ns();
	assert_int_equal(get(&s, &b, 1, 0), -EAGAIN);
	assert_in_range(now_ns() - start, 49000000u, 80000000u);
	vs_set_nonblock(s.v, true);
	start = now_ns();
	assert_int_equal(get(&s, &b, 1, 0), -EAGAIN);
	assert_true(now_ns() - start < 20000000u);
	finish(&s);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void receive_timeout_is_kept_and_nonblocking_does_not_wait(void **state)
{
	(void)state;
	in_child(timeouts);
}

static void options(void)
{
	struct sk s = make(AF_INET, SOCK_STREAM);
	int v = 1;
	socklen_t len = sizeof(v);
	struct tcp_info info;

	assert_int_equal(vs_setsockopt(s.v, s.fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)), 0);
	v = 0;
	assert_int_equal(vs_getsockopt(s.v, s.fd, IPPROTO_TCP, TCP_NODELAY, &v, &len), 0);
	assert_int_equal(v, 1);
	v = 0;
	assert_int_equal(getsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &v, &len), 0);
	assert_int_equal(v, 1); /* a socket that the kernel takes over has it too */
	v = 10000;
	assert_int_equal(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)), 0);
	assert_int_equal(vs_getsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVBUF, &v, &len), 0);
	assert_int_equal(v, 20000); /* doubled, as socket(7) says */
	assert_int_equal(vs_getsockopt(s.v, s.fd, SOL_SOCKET, SO_TYPE, &v, &len), 0);
	assert_int_equal(v, SOCK_STREAM);
	assert_int_equal(vs_setsockopt(s.v, s.fd, IPPROTO_TCP, 9999, &v, sizeof(v)), -ENOPROTOOPT);
	len = sizeof(info);
	assert_int_equal(vs_getsockopt(s.v, s.fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_int_equal(info.tcpi_state, TCP_CLOSED);
	finish(&s);
}

static void options_reach_the_engine_and_the_backing_socket(void **state)
{
	(void)state;
	in_child(options);
}

/* One process listens, then only another does, at the same port; the client has a wire to the first. */
static void listen_once(struct sk *l, int n)
{
	struct sk c = accepted(l);
	char b;

	(void)n;
	finish(l);
	l->v = VS_NONE;
	get(&c, &b, 1, 0); /* the client closes when it has done all */
	finish(&c);
}

static pid_t listen_at(uint16_t port)
{
	struct sockaddr_in sin = loopback(port);
	int p[2];
	pid_t pid;
	char c = 0;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (!pid) {
		struct sk l;
		enum reason reason;

		alarm(30);
		process_after_fork(); /* a stack of its own, as after exec */
		l = make(AF_INET, SOCK_STREAM);
		if (vs_bind(l.v, l.fd, (struct sockaddr *)&sin, sizeof(sin), &reason) < 0 ||
		    vs_listen(l.v, l.fd, 8, &reason) < 0 || write(p[1], &c, 1) != 1)
			_exit(30);
		for (;;) {
			struct sk s = accepted(&l);

			if (s.v == VS_NONE)
				_exit(31);
		}
	}
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	close(p[1]);
	return pid;
}

static void moved(void)
{
	uint16_t port, spare;
	pid_t first, second;
	struct sk a, b, c;
	struct sockaddr_in sin;
	enum reason reason;
	int p[2];

	/* The second server's process is forked before this one has a stack. */
	assert_int_equal(pipe(p), 0);
	first = serve(listen_once, 0, &port);
	second = fork();
	if (!second) {
		assert_int_equal(read(p[0], &spare, sizeof(spare)), (ssize_t)sizeof(spare));
		second = listen_at(port);
		assert_int_equal(write(p[1], "ok", 2), 2);
		usleep(500000);
		kill(second, SIGKILL);
		_exit(0);
	}
	a = connected(port);
	usleep(50000);
	assert_int_equal(write(p[1], &port, sizeof(port)), (ssize_t)sizeof(port));
	usleep(200000);
	sin = loopback(port);
	b = make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
	assert_int_equal(vs_connect(b.v, b.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason), -EINPROGRESS);
	for (int i = 0; i < 200 && !(vs_poll(b.v) & (EV_OUT | EV_ERR | EV_HUP)); i++) {
		usleep(1000);
		wait_poll_stacks();
	}
	assert_int_equal(vs_poll(b.v) & (EV_OUT | EV_ERR | EV_HUP), EV_OUT);
	c = connected(port); /* and over the wire that is now known */
	finish(&c);
	finish(&b);
	finish(&a);
	ended_well(second);
	waitpid(first, NULL, 0);
}

static void a_listener_that_moved_to_another_process_is_found_again(void **state)
{
	(void)state;
	in_child(moved);
}

int main(void)
{
	char err[256];
	extern char **environ;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_small_message_comes_back_over_a_wire),
	    cmocka_unit_test(every_byte_of_a_large_transfer_arrives_in_order),
	    cmocka_unit_test(connections_follow_one_another_over_one_wire),
	    cmocka_unit_test(after_shutdown_the_answer_still_comes_then_end_of_stream),
	    cmocka_unit_test(where_nobody_listens_the_kernel_decides),
	    cmocka_unit_test(a_client_without_viaduct_is_accepted_from_the_kernel),
	    cmocka_unit_test(a_process_can_connect_to_itself),
	    cmocka_unit_test(a_killed_peer_ends_the_connection),
	    cmocka_unit_test(receive_timeout_is_kept_and_nonblocking_does_not_wait),
	    cmocka_unit_test(a_listener_that_moved_to_another_process_is_found_again),
	    cmocka_unit_test(options_reach_the_engine_and_the_backing_socket),
	};

	if (knobs_load(environ, err, sizeof(err)) < 0) {
		fprintf(stderr, "%s\n", err);
		return 2;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
