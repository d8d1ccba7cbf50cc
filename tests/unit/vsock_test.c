/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two processes, each with its own stack, talk through vs_* alone: no preload library. The test process is the
 * client; each test forks a server before the client's stack is touched, so both make their own. The kernel must
 * not carry a byte: the backing sockets are checked to be unconnected.
 */
#include <arpa/inet.h>
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

#include "lib/test_vsock.h"
#include "socket/process.h"
#include "socket/wait.h"

/* --- servers, run in a process of their own --- */

static void echo(struct sk *l, int connections)
{
	static char buf[65536];

	while (connections--) {
		struct sk c = sk_accepted(l);
		ssize_t n;

		if (c.v == VS_NONE)
			exit(11);
		while ((n = sk_recv(&c, buf, sizeof(buf), 0)) > 0)
			if (sk_send(&c, buf, (size_t)n) != n)
				exit(12);
		if (n < 0)
			exit(13);
		sk_close(&c);
	}
	sk_close(l);
}

/* --- tests. Each runs in a process of its own: a fresh stack, and a crash fails only itself. --- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ping_pong(void)
{
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, echo, 1, &port);
	struct sk s = sk_connected(port);
	char buf[64] = "ping";
	uint64_t start = now_ns();
	int rounds = 100000;

	for (int i = 0; i < rounds; i++) {
		memcpy(buf + 8, &i, sizeof(i));
		assert_int_equal(sk_send(&s, buf, sizeof(buf)), (ssize_t)sizeof(buf));
		memset(buf, 0, sizeof(buf));
		assert_int_equal(sk_recv(&s, buf, sizeof(buf), MSG_WAITALL), (ssize_t)sizeof(buf));
		assert_memory_equal(buf + 8, &i, sizeof(i));
	}
	print_message("64-byte round trip: %lu ns\n", (unsigned long)((now_ns() - start) / (uint64_t)rounds));
	sk_close(&s);
	test_ended_well(pid);
}

static void a_small_message_comes_back_over_a_wire(void **state)
{
	(void)state;
	test_in_child(ping_pong);
}

static void bulk(void)
{
	enum { TOTAL = 64 << 20, CHUNK = 1 << 16 };
	static unsigned char out[CHUNK], in[CHUNK];
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, echo, 1, &port);
	struct sk s = sk_connected(port);
	size_t sent = 0, got = 0;

	while (got < TOTAL) {
		if (sent < TOTAL) {
			for (size_t i = 0; i < CHUNK; i++)
				out[i] = (unsigned char)((sent + i) * 2654435761u >> 11);
			assert_int_equal(sk_send(&s, out, CHUNK), CHUNK);
			sent += CHUNK;
		}
		assert_int_equal(sk_recv(&s, in, CHUNK, MSG_WAITALL), CHUNK);
		for (size_t i = 0; i < CHUNK; i++)
			if (in[i] != (unsigned char)((got + i) * 2654435761u >> 11))
				fail_msg("byte %zu differs", got + i);
		got += CHUNK;
	}
	sk_close(&s);
	test_ended_well(pid);
}

static void every_byte_of_a_large_transfer_arrives_in_order(void **state)
{
	(void)state;
	test_in_child(bulk);
}

static void many(void)
{
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, echo, 200, &port);

	for (int i = 0; i < 200; i++) {
		struct sk s = sk_connected(port);
		char c = (char)i;

		assert_int_equal(sk_send(&s, &c, 1), 1);
		c = 0;
		assert_int_equal(sk_recv(&s, &c, 1, 0), 1);
		assert_int_equal(c, (char)i);
		sk_close(&s);
	}
	test_ended_well(pid);
}

static void connections_follow_one_another_over_one_wire(void **state)
{
	(void)state;
	test_in_child(many);
}

static void half_close(void)
{
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, echo, 1, &port);
	struct sk s = sk_connected(port);
	char buf[16];

	assert_int_equal(sk_send(&s, "last words", 10), 10);
	assert_int_equal(vs_shutdown(s.v, s.fd, SHUT_WR), 0);
	assert_int_equal(sk_recv(&s, buf, 10, MSG_WAITALL), 10);
	assert_memory_equal(buf, "last words", 10);
	assert_int_equal(sk_recv(&s, buf, 1, 0), 0);
	assert_int_equal(sk_send(&s, "x", 1), -EPIPE);
	sk_close(&s);
	test_ended_well(pid);
}

static void after_shutdown_the_answer_still_comes_then_end_of_stream(void **state)
{
	(void)state;
	test_in_child(half_close);
}

static void nobody(void)
{
	struct sk s = sk_make(AF_INET, SOCK_STREAM);
	struct sockaddr_in sin = sk_loopback(1);
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
	test_in_child(nobody);
}

static void plain_client(void)
{
	uint16_t port;
	struct sk l = sk_listening(&port), c;
	struct sockaddr_in sin = sk_loopback(port);
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
	sk_close(&l);
}

static void a_client_without_viaduct_is_accepted_from_the_kernel(void **state)
{
	(void)state;
	test_in_child(plain_client);
}

static void same_process(void)
{
	uint16_t port;
	struct sk l = sk_listening(&port), s = sk_connected(port), c = sk_accepted(&l);
	char buf[8];

	assert_true(c.v != VS_NONE);
	assert_int_equal(sk_send(&s, "to self", 8), 8);
	assert_int_equal(sk_recv(&c, buf, 8, MSG_WAITALL), 8);
	assert_string_equal(buf, "to self");
	sk_close(&s);
	assert_int_equal(sk_recv(&c, buf, 8, 0), 0);
	sk_close(&c);
	sk_close(&l);
}

static void a_process_can_connect_to_itself(void **state)
{
	(void)state;
	test_in_child(same_process);
}

static void hold(struct sk *l, int n)
{
	struct sk c = sk_accepted(l);
	char b[4];

	(void)n;
	sk_recv(&c, b, sizeof(b), MSG_WAITALL);
	pause();
}

static void killed_peer(void)
{
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, hold, 0, &port);
	struct sk s = sk_connected(port);
	char b[4];
	ssize_t n;

	assert_int_equal(sk_send(&s, "1234", 4), 4);
	usleep(20000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	n = sk_recv(&s, b, sizeof(b), 0);
	if (n != 0 && n != -ECONNRESET)
		fail_msg("after the peer was killed: %zd", n);
	sk_close(&s);
}

static void a_killed_peer_ends_the_connection(void **state)
{
	(void)state;
	test_in_child(killed_peer);
}

static void timeouts(void)
{
	uint16_t port;
	pid_t pid = test_serve(SOCK_STREAM, hold, 0, &port);
	struct sk s = sk_connected(port);
	struct timeval tv = {.tv_usec = 50000};
	uint64_t start;
	char b;

	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	start = now_ns();
	NEED(sk_recv(&s, &b, 1, 0) == -EAGAIN);
	NEED(now_ns() - start >= 49000000u); /* how much later it may be, the machine's load decides */
	vs_set_nonblock(s.v, true);
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 50}, sizeof(tv)) == 0);
	start = now_ns();
	NEED(sk_recv(&s, &b, 1, 0) == -EAGAIN);
	NEED(now_ns() - start < 40000000000u);
	sk_close(&s);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void receive_timeout_is_kept_and_nonblocking_does_not_wait(void **state)
{
	(void)state;
	test_in_child(timeouts);
}

static void options(void)
{
	struct sk s = sk_make(AF_INET, SOCK_STREAM);
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
	sk_close(&s);
}

static void options_reach_the_engine_and_the_backing_socket(void **state)
{
	(void)state;
	test_in_child(options);
}

/* One process listens, then only another does, at the same port; the client has a wire to the first. */
static void listen_once(struct sk *l, int n)
{
	struct sk c = sk_accepted(l);
	char b;

	(void)n;
	sk_close(l);
	sk_recv(&c, &b, 1, 0); /* the client closes when it has done all */
	sk_close(&c);
}

static pid_t listen_at(uint16_t port)
{
	struct sockaddr_in sin = sk_loopback(port);
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
		l = sk_make(AF_INET, SOCK_STREAM);
		/* until whoever had the port has closed it */
		while (vs_bind(l.v, l.fd, (struct sockaddr *)&sin, sizeof(sin), &reason) == -EADDRINUSE)
			usleep(1000);
		if (vs_listen(l.v, l.fd, 8, &reason) < 0 || write(p[1], &c, 1) != 1)
			_exit(30);
		for (;;) {
			struct sk s = sk_accepted(&l);

			if (s.v == VS_NONE)
				_exit(31);
		}
	}
	close(p[1]);
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	return pid;
}

static void moved(void)
{
	uint16_t port, spare;
	pid_t first, second;
	struct sk a, b, c;
	struct sockaddr_in sin;
	enum reason reason;
	int p[2], back[2];
	char c1;

	/* The second server's process is forked before this one has a stack. */
	assert_int_equal(pipe(p), 0);
	assert_int_equal(pipe(back), 0);
	first = test_serve(SOCK_STREAM, listen_once, 0, &port);
	second = fork();
	if (!second) {
		assert_int_equal(read(p[0], &spare, sizeof(spare)), (ssize_t)sizeof(spare));
		second = listen_at(port);
		assert_int_equal(write(back[1], "o", 1), 1);
		assert_int_equal(read(p[0], &c1, 1), 1); /* the client has done all */
		kill(second, SIGKILL);
		_exit(0);
	}
	a = sk_connected(port);
	assert_int_equal(write(p[1], &port, sizeof(port)), (ssize_t)sizeof(port));
	assert_int_equal(read(back[0], &c1, 1), 1); /* the second one listens */
	sin = sk_loopback(port);
	b = sk_make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
	assert_int_equal(vs_connect(b.v, b.fd, (struct sockaddr *)&sin, sizeof(sin), true, &reason), -EINPROGRESS);
	for (int i = 0; i < 20000 && !(vs_poll(b.v) & (EV_OUT | EV_ERR | EV_HUP)); i++) {
		usleep(1000);
		wait_poll_stacks();
	}
	assert_int_equal(vs_poll(b.v) & (EV_OUT | EV_ERR | EV_HUP), EV_OUT);
	c = sk_connected(port); /* and over the wire that is now known */
	sk_close(&c);
	sk_close(&b);
	sk_close(&a);
	assert_int_equal(write(p[1], "x", 1), 1);
	test_ended_well(second);
	waitpid(first, NULL, 0);
}

static void a_listener_that_moved_to_another_process_is_found_again(void **state)
{
	(void)state;
	test_in_child(moved);
}

int main(void)
{
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

	return test_vsock_main(tests);
}
