/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaductd and its programs on a veth with default offloads: frames of a steered port reach the AF_XDP socket, what it
 * sends reaches the plain kernel at the other end, all else stays with the kernel here.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "rings.h"
#include "world.h"

static const char *daemon_path;

static void frames_go_both_ways_over_af_xdp(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make(), mine = bound_socket(SOCK_DGRAM, HERE4, 7000), peer = peer_udp(7001);
	uint8_t frame[2048], answer_frame[2048];
	struct datagram d = {
	    .saddr = HERE4, .daddr = THERE4, .sport = 7000, .dport = 7001, .proto = IPPROTO_UDP, .text = "back"};
	bool by_option = getenv("TEST_VIADUCTD_OPTION"); /* --native, --share: in the driver of a veth, too */
	struct answer a;
	struct rings r;
	uint32_t len;

	(void)state;
	assert_true(sock >= 0);
	assert_int_equal(rings_open(&r, sock, v0_index(), &a), 0);
	assert_int_equal(a.body.vnic.mode, DAEMON_MODE_DIRECT);
	assert_true(a.body.vnic.features & DAEMON_VNIC_PARTIAL_CSUM);
	/* without frames of several buffers the driver's XDP is the better one */
	assert_int_equal(!!(a.body.vnic.features & DAEMON_VNIC_NATIVE),
			 by_option || !(a.body.vnic.features & DAEMON_VNIC_SCATTER));
	assert_int_equal(a.fds, 1 + (int)a.body.vnic.queues + (int)a.body.vnic.keep_fds);
	assert_true(client_filter(sock, IPPROTO_UDP, HERE4, 7000, mine, 0) > 0);
	say(peer, HERE4, 7000, "there");
	len = rings_receive(&r, frame, sizeof(frame), 10000);
	assert_int_equal(len, 14 + 20 + 8 + 5);
	assert_memory_equal(frame + len - 5, "there", 5);
	memcpy(d.to, frame + 6, 6);
	memcpy(d.from, a.body.vnic.mac, 6);
	assert_memory_equal(frame, a.body.vnic.mac, 6);
	rings_send(&r, answer_frame, make_datagram(answer_frame, &d));
	assert_int_equal(recv(peer, frame, sizeof(frame), 0), 4);
	assert_memory_equal(frame, "back", 4);
	assert_int_equal(recv(mine, frame, sizeof(frame), MSG_DONTWAIT), -1);
	rings_unmap(&r);
	answer_close(&a);
	close(sock);
	close(mine);
	close(peer);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static int tcp_server(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in sa;

	v4_addr(&sa, HERE4, port);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 5), 0);
	return fd;
}

static void connections_that_the_kernel_has_on_a_port_stay_with_it(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make(), server = tcp_server(7002), peer = peer_socket(AF_INET, SOCK_STREAM), here, other;
	struct timeval wait = {1, 0};
	uint8_t frame[2048];
	struct sockaddr_in sa;
	struct answer a;
	struct rings r;

	(void)state;
	v4_addr(&sa, HERE4, 7002);
	assert_int_equal(connect(peer, (struct sockaddr *)&sa, sizeof(sa)), 0);
	here = accept(server, NULL, NULL);
	assert_true(here >= 0);
	close(server);
	server = tcp_server(7002);
	assert_int_equal(rings_open(&r, sock, v0_index(), &a), 0);
	assert_true(client_filter(sock, IPPROTO_TCP, HERE4, 7002, server, 0) > 0);
	setsockopt(here, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	assert_int_equal(send(peer, "still", 5, 0), 5);
	assert_int_equal(recv(here, frame, sizeof(frame), 0), 5);
	assert_int_equal(rings_receive(&r, frame, sizeof(frame), 50), 0);
	/* also when the stack asks for the port again, as after an answer that it did not wait for */
	assert_true(client_filter(sock, IPPROTO_TCP, HERE4, 7002, server, 0) > 0);
	assert_int_equal(send(peer, "still", 5, 0), 5);
	assert_int_equal(recv(here, frame, sizeof(frame), 0), 5);
	assert_int_equal(rings_receive(&r, frame, sizeof(frame), 50), 0);
	/* a new one is the stack's */
	other = peer_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
	assert_int_equal(connect(other, (struct sockaddr *)&sa, sizeof(sa)), -1);
	assert_true(rings_receive(&r, frame, sizeof(frame), 10000) > 0);
	rings_unmap(&r);
	answer_close(&a);
	close(sock);
	close(server);
	close(peer);
	close(here);
	close(other);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

/* A stack with the interface's queues in a process of its own, which is killed. */
static void somebody_comes_and_goes(void)
{
	int made[2], status;
	struct answer a;
	pid_t child;
	char c;

	assert_int_equal(pipe(made), 0);
	child = fork();
	if (!child) {
		int sock = client_make();

		if (sock < 0 || client_open(sock, v0_index(), &a) || write(made[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(made[1]);
	assert_int_equal(read(made[0], &c, 1), 1);
	close(made[0]);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
}

static uint32_t stacks(int sock)
{
	struct answer a;

	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	return a.body.status.stacks + a.body.status.orphans;
}

/* The kernel frees them later than it says that they are closed. */
static void queues_that_were_just_left_are_the_next_ones(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct answer a;
	int sock;

	(void)state;
	for (int i = 0; i < 6; i++) {
		sock = client_make();
		assert_true(sock >= 0);
		somebody_comes_and_goes();
		for (int tries = 0; tries < 10000 && stacks(sock) > 1; tries++)
			usleep(1000);
		assert_int_equal(stacks(sock), 1);
		assert_int_equal(client_open(sock, v0_index(), &a), 0);
		assert_int_equal(a.body.vnic.mode, DAEMON_MODE_DIRECT);
		answer_close(&a);
		close(sock);
		/* this process lives, so its stack does: the next viaductd does not know it */
		assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
		daemon = daemon_start(daemon_path, NULL);
	}
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(frames_go_both_ways_over_af_xdp),
	    cmocka_unit_test(connections_that_the_kernel_has_on_a_port_stay_with_it),
	    cmocka_unit_test(queues_that_were_just_left_are_the_next_ones),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
