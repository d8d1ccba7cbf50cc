/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DAEMON_OPEN gives sockets that are not bound, their owner maps the rings, DAEMON_BIND lets frames in. Until then the
 * owner can do nothing with them that he could not do afterwards, and what he leaves undone is cleaned up.
 */
#include <errno.h>
#include <linux/if_xdp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/port.h"
#include "daemon/rings.h"
#include "rings.h"
#include "world.h"

#define MALLORY 1001

static const char *daemon_path;

static bool there(const char *what)
{
	return run("ip -d link show 2>&1 | grep -q '%s'", what) == 0;
}

static void assert_nothing_left(void)
{
	for (int i = 0; i < 100 && (there("xdp") || there("viaduct")); i++)
		usleep(20000);
	assert_false(there("xdp") || there("viaduct"));
}

static void assert_comes(struct rings *r, int peer, const char *text)
{
	uint8_t frame[2048];
	uint32_t len, n = (uint32_t)strlen(text);

	say(peer, HERE4, 7000, text);
	len = rings_receive(r, frame, sizeof(frame), 10000);
	assert_int_equal(len, 14 + 20 + 8 + n);
	assert_memory_equal(frame + len - n, text, n);
}

static void frames_come_after_bind(uint32_t flags, uint32_t mode)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make(), mine = bound_socket(SOCK_DGRAM, HERE4, 7000), peer = peer_udp(7001);
	struct answer a, now;
	uint8_t frame[2048];
	struct rings r;

	assert_int_equal(client_open_unbound(sock, v0_index(), flags, &a), 0);
	assert_true(a.body.vnic.features & DAEMON_VNIC_UNBOUND);
	assert_int_equal(rings_map(&r, &a, 0), 0);
	assert_true(client_filter(sock, IPPROTO_UDP, HERE4, 7000, mine, 0) > 0);
	/* nothing is lost meanwhile: the kernel has it */
	say(peer, HERE4, 7000, "early");
	assert_int_equal(rings_receive(&r, frame, sizeof(frame), 50), 0);
	assert_int_equal(recv(mine, frame, sizeof(frame), MSG_DONTWAIT), 5);
	assert_int_equal(client_bind(sock, v0_index(), &now), 0);
	assert_int_equal(now.fds, 0);
	assert_int_equal(now.body.vnic.mode, mode);
	assert_false(now.body.vnic.features & DAEMON_VNIC_UNBOUND);
	assert_int_equal(now.body.vnic.umem_size, a.body.vnic.umem_size);
	assert_comes(&r, peer, "there");
	assert_int_equal(client_bind(sock, v0_index(), &now), -ENOENT); /* twice */
	assert_comes(&r, peer, "still");
	rings_unmap(&r);
	answer_close(&a);
	close(sock);
	close(mine);
	close(peer);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	assert_nothing_left();
}

static void the_interfaces_own_queues_are_bound_later(void **state)
{
	(void)state;
	frames_come_after_bind(0, DAEMON_MODE_DIRECT);
}

static void a_veth_is_bound_later(void **state)
{
	(void)state;
	frames_come_after_bind(DAEMON_OPEN_BEHIND, DAEMON_MODE_VETH);
}

static void only_what_one_has_opened_can_be_bound(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int first = client_make(), second = client_make(), looker = client_connect();
	struct answer a, b, now;

	(void)state;
	assert_int_equal(client_bind(looker, v0_index(), &now), -ENOTCONN);
	assert_int_equal(client_bind(first, v0_index(), &now), -ENOENT);
	assert_int_equal(client_bind(first, 0, &now), -ENOENT);
	assert_int_equal(client_open_unbound(first, v0_index(), 0, &a), 0);
	assert_int_equal(client_bind(second, v0_index(), &now), -ENOENT);
	/* whose queues are given away, bound or not */
	assert_int_equal(client_open_unbound(second, v0_index(), 0, &b), 0);
	assert_int_equal(b.body.vnic.mode, DAEMON_MODE_VETH);
	assert_int_equal(client_bind(second, v0_index(), &now), 0);
	assert_int_equal(client_bind(first, v0_index(), &now), 0);
	assert_int_equal(now.body.vnic.mode, DAEMON_MODE_DIRECT);
	/* one that was opened in the old way is bound */
	answer_close(&b);
	close(second);
	close(looker);
	second = client_make();
	assert_int_equal(client_open(second, v0_index(), &b), 0);
	assert_false(b.body.vnic.features & DAEMON_VNIC_UNBOUND);
	assert_int_equal(client_bind(second, v0_index(), &now), -ENOENT);
	answer_close(&a);
	answer_close(&b);
	close(first);
	close(second);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	assert_nothing_left();
}

static void who_never_binds_leaves_nothing(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct answer a, now;
	int sock;

	(void)state;
	for (uint32_t flags = 0; flags <= DAEMON_OPEN_BEHIND; flags += DAEMON_OPEN_BEHIND) {
		pid_t pid = fork();

		if (!pid) {
			sock = client_make();
			_exit(client_open_unbound(sock, v0_index(), flags, &a) ? 1 : 0);
		}
		assert_int_equal(waitpid(pid, &sock, 0), pid);
		assert_int_equal(sock, 0);
		assert_nothing_left();
	}
	/* and the queue is free */
	sock = client_make();
	assert_int_equal(client_open_unbound(sock, v0_index(), 0, &a), 0);
	assert_int_equal(client_bind(sock, v0_index(), &now), 0);
	assert_int_equal(now.body.vnic.mode, DAEMON_MODE_DIRECT);
	answer_close(&a);
	close(sock);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	assert_nothing_left();
}

/* An AF_XDP program that viaductd knows nothing of: its queue is found taken when it is bound, and a veth will do. */
static void queues_that_a_stranger_has(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make();
	struct port stranger;
	struct answer a, now;

	(void)state;
	assert_int_equal(port_open(v0_index(), 1, 1500, &stranger), 0);
	assert_int_equal(port_bind(&stranger), 0);
	assert_int_equal(client_open_unbound(sock, v0_index(), 0, &a), 0);
	assert_int_equal(client_bind(sock, v0_index(), &now), -EBUSY);
	answer_close(&a);
	assert_int_equal(client_bind(sock, v0_index(), &now), -ENOENT);
	assert_int_equal(client_open_unbound(sock, v0_index(), DAEMON_OPEN_BEHIND, &a), 0);
	assert_int_equal(client_bind(sock, v0_index(), &now), 0);
	assert_int_equal(now.body.vnic.mode, DAEMON_MODE_VETH);
	answer_close(&a);
	close(sock);
	/* as an older library */
	sock = client_make();
	assert_int_equal(client_open(sock, v0_index(), &a), 0);
	assert_int_equal(a.body.vnic.mode, DAEMON_MODE_VETH);
	answer_close(&a);
	close(sock);
	port_close(&stranger);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	assert_nothing_left();
}

/* Before Linux 6.4 who finishes a dead stack's connections has the rings by fork, from before they were bound. */
static void rings_that_are_kept_stay_mapped_in_a_child(void **state)
{
	struct daemon_vnic about = {0};
	struct xdp_port *rings;
	unsigned char there;
	struct port p;
	pid_t pid;
	void *map;
	int status;

	(void)state;
	assert_int_equal(port_open(v0_index(), 1, 1500, &p), 0);
	port_describe(&p, &about);
	rings = rings_keep(&p, &about);
	assert_non_null(rings);
	map = rings->rx.map;
	assert_int_equal(port_bind(&p), 0);
	pid = fork();
	if (!pid) {
		if (mincore(map, 1, &there) || mincore(rings->umem, 1, &there))
			_exit(1);
		rings_forget(rings, 1);
		_exit(mincore(map, 1, &there) ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	rings_forget(rings, 1);
	port_close(&p);
}

static int try_to_bind(int xsk, uint32_t ifindex)
{
	struct sockaddr_xdp sa = {.sxdp_family = AF_XDP, .sxdp_ifindex = ifindex};

	return bind(xsk, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
}

/* Mallory has the socket of a veth and would like another's. All interfaces there are numbered. */
static int bind_elsewhere(void)
{
	int sock = client_make(), on = 0;
	struct answer a, now;
	uint32_t own = 0;

	if (sock < 0 || client_open_unbound(sock, v0_index(), 0, &a) || a.body.vnic.mode != DAEMON_MODE_VETH)
		return 1;
	if (!setsockopt(a.fd[1], SOL_SOCKET, SO_BINDTOIFINDEX, &on, sizeof(on)))
		return 2;
	for (uint32_t i = 1; i < 40000; i++) {
		int rc = try_to_bind(a.fd[1], i);

		if (rc == -EINVAL)
			continue;
		if (rc || own)
			return 3;
		own = i;
		/* it was his, and no longer viaductd's to let in */
		if (client_bind(sock, v0_index(), &now) != -EBUSY)
			return 4;
		break;
	}
	return own ? 0 : 5;
}

static void a_socket_can_be_bound_to_no_other_interface(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL), pid = fork();
	int status;

	(void)state;
	if (!pid) {
		if (setresgid(MALLORY, MALLORY, MALLORY) || setresuid(MALLORY, MALLORY, MALLORY))
			_exit(100);
		_exit(bind_elsewhere());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	assert_nothing_left();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_interfaces_own_queues_are_bound_later),
	    cmocka_unit_test(a_veth_is_bound_later),
	    cmocka_unit_test(only_what_one_has_opened_can_be_bound),
	    cmocka_unit_test(who_never_binds_leaves_nothing),
	    cmocka_unit_test(queues_that_a_stranger_has),
	    cmocka_unit_test(rings_that_are_kept_stay_mapped_in_a_child),
	    cmocka_unit_test(a_socket_can_be_bound_to_no_other_interface),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
