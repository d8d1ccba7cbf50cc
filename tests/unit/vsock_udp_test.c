/* SPDX-License-Identifier: BSD-2-Clause */
/* UDP sockets between two processes with a stack each: both halves, connected and not, flags and errors. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/host.h"
#include "lib/test_vsock.h"
#include "socket/process.h"

static ssize_t put(struct sk *s, const void *p, size_t n, const struct sockaddr_in *to)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};

	return vs_send(s->v, s->fd, &iov, 1, 0, (const struct sockaddr *)to, to ? sizeof(*to) : 0, NULL, 0, true);
}

static ssize_t get(struct sk *s, void *p, size_t n, int flags, struct sockaddr_in *from, int *msg_flags)
{
	struct iovec iov = {p, n};
	socklen_t len = sizeof(*from);

	return vs_recv(s->v, s->fd, &iov, 1, flags, (struct sockaddr *)from, from ? &len : NULL, NULL, NULL, msg_flags,
		       true);
}

static void echo(struct sk *s, int unused)
{
	static char buf[65536];
	struct sockaddr_in from;

	(void)unused;
	for (;;) {
		ssize_t n = get(s, buf, sizeof(buf), 0, &from, NULL);

		NEED(n >= 0);
		if (n == 4 && !memcmp(buf, "quit", 4))
			break;
		NEED(put(s, buf, (size_t)n, &from) == n);
	}
	sk_close(s);
}

/* Frames that came over wires in this process. */
static uint64_t wire_frames(void)
{
	struct attached *a = process_own_stack();
	uint64_t n = 0;

	for (uint32_t i = 0; i < a->active; i++)
		n += a->view[i].st->stats.rx_frames;
	return n;
}

static void with_server(void (*fn)(uint16_t))
{
	uint16_t port = 0;
	pid_t server = test_serve(SOCK_DGRAM, echo, 0, &port), c;

	c = fork();
	if (!c) {
		struct sockaddr_in to = sk_loopback(port);
		int fd = socket(AF_INET, SOCK_DGRAM, 0);

		alarm(30);
		fn(port);
		NEED(sendto(fd, "quit", 4, 0, (struct sockaddr *)&to, sizeof(to)) == 4);
		_exit(0);
	}
	test_ended_well(c);
	test_ended_well(server);
}

static void unconnected(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port), from;
	char buf[64];

	for (int i = 0; i < 1000; i++) {
		NEED(put(&s, &i, sizeof(i), &to) == (ssize_t)sizeof(i));
		NEED(get(&s, buf, sizeof(buf), 0, &from, NULL) == (ssize_t)sizeof(i));
		NEED(!memcmp(buf, &i, sizeof(i)));
		NEED(from.sin_port == to.sin_port && from.sin_addr.s_addr == to.sin_addr.s_addr);
	}
	NEED(wire_frames() >= 1000);
	sk_close(&s);
}

static void datagrams_go_both_ways_over_a_wire(void **state)
{
	(void)state;
	with_server(unconnected);
}

static void connected(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port);
	enum reason reason;
	char buf[64];
	int flags = 0;

	NEED(vs_connect(s.v, s.fd, (struct sockaddr *)&to, sizeof(to), true, &reason) == 0);
	NEED(put(&s, "0123456789", 10, NULL) == 10);
	NEED(get(&s, buf, 4, MSG_PEEK, NULL, &flags) == 4);
	NEED(flags & MSG_TRUNC);
	NEED(get(&s, buf, 4, MSG_PEEK | MSG_TRUNC, NULL, &flags) == 10);
	NEED(get(&s, buf, 4, 0, NULL, &flags) == 4 && flags & MSG_TRUNC && !memcmp(buf, "0123", 4));
	NEED(get(&s, buf, 4, MSG_DONTWAIT, NULL, &flags) == -EAGAIN);
	NEED(put(&s, "", 0, NULL) == 0);
	NEED(get(&s, buf, 4, 0, NULL, &flags) == 0);
	NEED(wire_frames() >= 2);
	sk_close(&s);
}

static void a_connected_socket_peeks_truncates_and_takes_empty_datagrams(void **state)
{
	(void)state;
	with_server(connected);
}

static void large(uint16_t port)
{
	static char out[65508], in[60000];
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port);

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7);
	NEED(put(&s, out, sizeof(in), &to) == (ssize_t)sizeof(in));
	NEED(get(&s, in, sizeof(in), 0, NULL, NULL) == (ssize_t)sizeof(in));
	NEED(!memcmp(in, out, sizeof(in)));
	NEED(put(&s, out, sizeof(out), &to) == -EMSGSIZE);
	NEED(put(&s, out, 65508, &to) == -EMSGSIZE);
	sk_close(&s);
}

static void a_large_datagram_arrives_whole(void **state)
{
	(void)state;
	with_server(large);
}

static void both_halves(uint16_t port)
{
	uint16_t mine;
	struct sk s = sk_bound(SOCK_DGRAM, &mine);
	struct sockaddr_in to = sk_loopback(port), me = sk_loopback(mine), from;
	struct timeval tv = {.tv_usec = 30000};
	int plain = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[64];

	NEED(sendto(plain, "kernel", 6, 0, (struct sockaddr *)&me, sizeof(me)) == 6);
	NEED(get(&s, buf, sizeof(buf), 0, &from, NULL) == 6 && !memcmp(buf, "kernel", 6));
	NEED(put(&s, "back", 4, &from) == 4); /* nobody answers there but the kernel */
	NEED(recv(plain, buf, sizeof(buf), 0) == 4);
	NEED(put(&s, "wire", 4, &to) == 4);
	NEED(get(&s, buf, sizeof(buf), 0, &from, NULL) == 4 && from.sin_port == to.sin_port);
	NEED(vs_setsockopt(s.v, s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(get(&s, buf, sizeof(buf), 0, &from, NULL) == -EAGAIN);
	close(plain);
	sk_close(&s);
}

static void one_socket_hears_wires_and_the_kernel(void **state)
{
	(void)state;
	with_server(both_halves);
}

/* --- sockets that are closed while their process lives on --- */

/* Echoes, and closes its socket when asked to; the process stays until the one who asked has ended. */
static void echo_then_linger(struct sk *s, int unused)
{
	echo(s, unused);
	pause();
}

/* A server whose socket is closed by the time that fn goes on after until_closed(). */
static void with_a_server_that_lingers(void (*fn)(uint16_t))
{
	uint16_t port = 0;
	pid_t server = test_serve(SOCK_DGRAM, echo_then_linger, 0, &port), c;

	c = fork();
	if (!c) {
		alarm(30);
		fn(port);
		_exit(0);
	}
	test_ended_well(c);
	NEED(kill(server, SIGTERM) == 0);
	NEED(waitpid(server, NULL, 0) == server);
}

/* Have the server close its socket, and take its place with one that the kernel alone serves. */
static int take_its_place(struct sk *s, const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct timeval tv = {.tv_usec = 50000};

	NEED(put(s, "quit", 4, to) == 4);
	for (int i = 0; bind(fd, (const struct sockaddr *)to, sizeof(*to)) < 0; i++) {
		NEED(i < 1000);
		usleep(1000);
	}
	NEED(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	return fd;
}

static void change_owners(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port);
	char buf[64];
	int fd, sent = 0;

	NEED(put(&s, "over a wire", 11, &to) == 11);
	NEED(get(&s, buf, sizeof(buf), 0, NULL, NULL) == 11);
	fd = take_its_place(&s, &to);
	do
		NEED(put(&s, "new owner", 9, &to) == 9);
	while (recv(fd, buf, sizeof(buf), 0) != 9 && ++sent < 20);
	NEED(sent <= 1); /* the one that was refused */
	NEED(!memcmp(buf, "new owner", 9));
	close(fd);
	sk_close(&s);
}

static void a_refused_datagram_makes_the_next_one_find_the_new_owner(void **state)
{
	(void)state;
	with_a_server_that_lingers(change_owners);
}

static void be_refused(uint16_t port)
{
	struct sk s = sk_make(AF_INET, SOCK_DGRAM);
	struct sockaddr_in to = sk_loopback(port);
	enum reason reason;
	char buf[64];
	int fd;

	NEED(vs_connect(s.v, s.fd, (struct sockaddr *)&to, sizeof(to), true, &reason) == 0);
	NEED(put(&s, "over a wire", 11, NULL) == 11);
	NEED(get(&s, buf, sizeof(buf), 0, NULL, NULL) == 11);
	fd = take_its_place(&s, &to);
	close(fd);
	NEED(put(&s, "nobody", 6, NULL) == 6);
	NEED(get(&s, buf, sizeof(buf), 0, NULL, NULL) == -ECONNREFUSED);
	NEED(put(&s, "nobody", 6, NULL) == 6); /* by the kernel now, which says the same */
	NEED(get(&s, buf, sizeof(buf), 0, NULL, NULL) == -ECONNREFUSED);
	sk_close(&s);
}

static void a_connected_socket_is_told_that_it_was_refused(void **state)
{
	(void)state;
	with_a_server_that_lingers(be_refused);
}

/* --- sockets whose process has ended --- */

static _Atomic bool busy; /* the helper hears nothing: other programs have the processors */

static int hear_late(int epfd, struct epoll_event *ev, int max, int timeout, const sigset_t *mask)
{
	int n = epoll_pwait(epfd, ev, max, timeout, mask);

	while (busy)
		usleep(1000);
	return n;
}

static void outlive(uint16_t port, pid_t server)
{
	struct sockaddr_in to = sk_loopback(port);
	struct timeval tv = {.tv_sec = 2};
	struct pollfd end = {.events = POLLIN};
	struct sk s;
	char buf[64];
	int fd;

	host_sys.epoll_pwait = hear_late;
	s = sk_make(AF_INET, SOCK_DGRAM);
	NEED(put(&s, "over a wire", 11, &to) == 11);
	NEED(get(&s, buf, sizeof(buf), 0, NULL, NULL) == 11);
	busy = true;
	fd = take_its_place(&s, &to);
	end.fd = (int)syscall(SYS_pidfd_open, server, 0);
	NEED(end.fd >= 0 && poll(&end, 1, 10000) == 1);
	usleep(2000); /* whoever lived a moment ago is taken to live */
	NEED(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	NEED(put(&s, "new owner", 9, &to) == 9);
	NEED(recv(fd, buf, sizeof(buf), 0) == 9 && !memcmp(buf, "new owner", 9));
	busy = false;
	close(end.fd);
	close(fd);
	sk_close(&s);
}

static void no_datagram_is_lost_to_a_process_that_has_ended_however_late_the_helper_hears_of_it(void **state)
{
	uint16_t port = 0;
	pid_t server = test_serve(SOCK_DGRAM, echo, 0, &port), c = fork();

	(void)state;
	if (!c) {
		alarm(30);
		outlive(port, server);
		_exit(0);
	}
	test_ended_well(c);
	test_ended_well(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_go_both_ways_over_a_wire),
	    cmocka_unit_test(a_connected_socket_peeks_truncates_and_takes_empty_datagrams),
	    cmocka_unit_test(a_large_datagram_arrives_whole),
	    cmocka_unit_test(one_socket_hears_wires_and_the_kernel),
	    cmocka_unit_test(a_refused_datagram_makes_the_next_one_find_the_new_owner),
	    cmocka_unit_test(a_connected_socket_is_told_that_it_was_refused),
	    cmocka_unit_test(no_datagram_is_lost_to_a_process_that_has_ended_however_late_the_helper_hears_of_it),
	};

	return test_vsock_main(tests);
}
