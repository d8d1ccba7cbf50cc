/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stacks with a queue of their own on one interface: viaductd with a NIC that has flow rules (nic.c), on a veth of
 * several queues. Frames come on all queues, as the peer's kernel hashes them: those on a stack's own reach it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/test_file.h"
#include "nic.h"
#include "rings.h"
#include "world.h"

enum { QUEUES = 5, FLOWS = 160 };

static const char *daemon_path, *double_path;
static uint32_t wide;
static struct nic *nic;
static char nic_path[TEST_FILE_MAX];

static pid_t start(void)
{
	pid_t pid;

	setenv("LD_PRELOAD", double_path, 1);
	pid = daemon_start(daemon_path, "--own-queues", "w0", NULL);
	unsetenv("LD_PRELOAD");
	return pid;
}

static int fresh(void **state)
{
	(void)state;
	memset(nic, 0, sizeof(*nic));
	/* the kernel frees the queues of sockets that are closed a little later */
	usleep(300000);
	return 0;
}

/* The queue that the NIC's rule for a local port leads to, where it leads to one only; -1: there is none. */
static int leads_to(uint16_t port)
{
	int queue = -1;

	for (uint32_t i = 0; i < NIC_RULES; i++)
		if (nic->used[i] && nic->rule[i].h_u.tcp_ip4_spec.pdst == htons(port)) {
			assert_int_equal(queue, -1);
			queue = (int)nic->rule[i].ring_cookie;
		}
	return queue;
}

static uint32_t rules(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < NIC_RULES; i++)
		n += nic->used[i];
	return n;
}

struct guest {
	int sock, owner, id;
	struct answer vnic;
};

static void guest_make(struct guest *g, uint16_t port)
{
	g->sock = client_make();
	g->owner = bound_socket(SOCK_DGRAM, WIDE4, port);
	assert_int_equal(client_open(g->sock, wide, &g->vnic), 0);
	g->id = client_filter(g->sock, IPPROTO_UDP, WIDE4, port, g->owner, 0);
}

static void guest_free(struct guest *g)
{
	answer_close(&g->vnic);
	close(g->sock);
	close(g->owner);
}

static void the_first_has_the_queues_of_rss_and_the_next_one_each_of_the_rest(void **state)
{
	pid_t daemon = start();
	struct guest g[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		guest_make(&g[i], (uint16_t)(7000 + i));
	assert_int_equal(g[0].vnic.body.vnic.mode, DAEMON_MODE_DIRECT);
	assert_int_equal(g[0].vnic.body.vnic.queues, NIC_RSS);
	assert_int_equal(leads_to(7000), -1);
	for (int i = 1; i < 3; i++) {
		assert_int_equal(g[i].vnic.body.vnic.mode, DAEMON_MODE_DIRECT);
		assert_int_equal(g[i].vnic.body.vnic.queues, 1);
		assert_int_equal(leads_to((uint16_t)(7000 + i)), (int)NIC_RSS + i - 1);
	}
	/* no queue is left */
	assert_int_equal(g[3].vnic.body.vnic.mode, DAEMON_MODE_VETH);
	assert_int_equal(leads_to(7003), -1);
	assert_int_equal(rules(), 2);
	for (int i = 0; i < 4; i++)
		guest_free(&g[i]);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void what_comes_on_its_queue_reaches_the_stack(void **state)
{
	pid_t daemon = start();
	uint32_t here = 0, kernel = 0;
	uint8_t frame[2048];
	struct guest a, b;
	struct rings r;

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7001);
	assert_int_equal(rings_map(&r, &b.vnic, 0), 0);
	for (int i = 0; i < FLOWS; i++) {
		int peer = peer_socket(AF_INET, SOCK_DGRAM);

		say(peer, WIDE4, 7001, "x");
		close(peer);
	}
	/* the neighbour may have to be asked for twice */
	for (int idle = 0; idle < 500 && here + kernel < FLOWS; idle++) {
		while (rings_receive(&r, frame, sizeof(frame), 20) > 0)
			here++;
		while (recv(b.owner, frame, sizeof(frame), MSG_DONTWAIT) >= 0)
			kernel++;
	}
	/* a veth steers nothing: the other queues' frames are the kernel's */
	assert_true(here > 0);
	assert_int_equal(here + kernel, FLOWS);
	rings_unmap(&r);
	guest_free(&a);
	guest_free(&b);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void rules_come_and_go_with_filters_and_stacks(void **state)
{
	pid_t daemon = start();
	struct daemon_filter_ids gone = {0};
	struct answer ans;
	struct guest a, b;
	int other = bound_socket(SOCK_STREAM, WIDE4, 7010);

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7001);
	assert_int_equal(leads_to(7001), NIC_RSS);
	gone.id = (uint32_t)b.id;
	assert_int_equal(client_ask(b.sock, DAEMON_FILTER_DEL, &gone, sizeof(gone), NULL, 0, &ans), 0);
	assert_int_equal(leads_to(7001), -1);
	assert_true(client_filter(b.sock, IPPROTO_TCP, WIDE4, 7010, other, 0) > 0);
	assert_int_equal(leads_to(7010), NIC_RSS);
	/* a table that is full refuses the filter, and nothing of it remains */
	nic->full = 1;
	assert_int_equal(client_filter(b.sock, IPPROTO_UDP, WIDE4, 7001, b.owner, 0), -ENOSPC);
	assert_int_equal(client_ask(b.sock, DAEMON_STATUS, NULL, 0, NULL, 0, &ans), 0);
	assert_int_equal(ans.body.status.filters, 2);
	nic->full = 0;
	guest_free(&a);
	guest_free(&b);
	close(other);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void rules_go_with_a_stack_that_is_killed_and_the_next_one_gets_its_queue(void **state)
{
	pid_t daemon = start(), child;
	struct guest a, b;

	(void)state;
	guest_make(&a, 7000);
	child = fork();
	if (!child) {
		guest_make(&b, 7001);
		pause();
		_exit(0);
	}
	for (int i = 0; i < 1000 && leads_to(7001) < 0; i++)
		usleep(20000);
	assert_int_equal(leads_to(7001), NIC_RSS);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	for (int i = 0; i < 1000 && rules(); i++)
		usleep(20000);
	assert_int_equal(rules(), 0);
	guest_make(&b, 7001);
	assert_int_equal(leads_to(7001), NIC_RSS);
	guest_free(&a);
	guest_free(&b);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void a_port_that_several_share_has_no_queue_of_its_own(void **state)
{
	pid_t daemon = start();
	int one = 1, fd[2];
	struct guest a, b;

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7001);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in sa;

		v4_addr(&sa, WIDE4, 7020);
		fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		assert_int_equal(bind(fd[i], (struct sockaddr *)&sa, sizeof(sa)), 0);
	}
	assert_true(client_filter(b.sock, IPPROTO_TCP, WIDE4, 7020, fd[0], DAEMON_FILTER_SHARED) > 0);
	assert_int_equal(client_filter(a.sock, IPPROTO_TCP, WIDE4, 7020, fd[1], DAEMON_FILTER_SHARED), -EADDRINUSE);
	assert_int_equal(leads_to(7020), NIC_RSS);
	guest_free(&a);
	guest_free(&b);
	close(fd[0]);
	close(fd[1]);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

/* What a viaductd that was killed left in the NIC, and nobody wants any more. */
static void rules_of_the_dead_go_and_those_to_other_queues_stay(void **state)
{
	pid_t daemon = start();
	struct guest a, b;

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7001);
	daemon_stop(daemon, SIGKILL);
	guest_free(&a);
	guest_free(&b);
	assert_int_equal(leads_to(7001), NIC_RSS);
	/* the administrator's */
	nic->used[0] = 1;
	nic->rule[0] = (struct ethtool_rx_flow_spec){.flow_type = TCP_V4_FLOW, .ring_cookie = 1};
	usleep(100000);
	daemon = start();
	for (int i = 0; i < 1000 && leads_to(7001) >= 0; i++)
		usleep(20000);
	assert_int_equal(leads_to(7001), -1);
	assert_int_equal(rules(), 1);
	/* it has started when it answers */
	close(client_make());
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void a_stack_that_lives_keeps_its_queue_and_rules_under_the_next_viaductd(void **state)
{
	pid_t daemon = start();
	int fds[1 + QUEUES];
	struct daemon_vnic about;
	struct answer ans;
	struct guest a, b, c;

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7001);
	about = b.vnic.body.vnic;
	daemon_stop(daemon, SIGKILL);
	daemon = start();
	close(b.sock);
	b.sock = client_make();
	fds[0] = b.vnic.fd[0];
	fds[1] = b.vnic.fd[1];
	assert_int_equal(client_ask(b.sock, DAEMON_RESUME, &about, sizeof(about), fds, 2, &ans), 0);
	answer_close(&ans);
	assert_true(client_filter(b.sock, IPPROTO_UDP, WIDE4, 7001, b.owner, 0) > 0);
	assert_int_equal(leads_to(7001), NIC_RSS);
	assert_int_equal(rules(), 1);
	/* and nobody else gets it */
	guest_make(&c, 7002);
	assert_int_not_equal(leads_to(7002), NIC_RSS);
	guest_free(&a);
	guest_free(&b);
	guest_free(&c);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void make_nic(void)
{
	int fd = test_file(nic_path);

	if (fd < 0 || ftruncate(fd, sizeof(*nic)))
		exit(1);
	nic = mmap(NULL, sizeof(*nic), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (nic == MAP_FAILED)
		exit(1);
	setenv("TEST_NIC", nic_path, 1);
	close(fd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(the_first_has_the_queues_of_rss_and_the_next_one_each_of_the_rest, fresh),
	    cmocka_unit_test_setup(what_comes_on_its_queue_reaches_the_stack, fresh),
	    cmocka_unit_test_setup(rules_come_and_go_with_filters_and_stacks, fresh),
	    cmocka_unit_test_setup(rules_go_with_a_stack_that_is_killed_and_the_next_one_gets_its_queue, fresh),
	    cmocka_unit_test_setup(a_port_that_several_share_has_no_queue_of_its_own, fresh),
	    cmocka_unit_test_setup(rules_of_the_dead_go_and_those_to_other_queues_stay, fresh),
	    cmocka_unit_test_setup(a_stack_that_lives_keeps_its_queue_and_rules_under_the_next_viaductd, fresh),
	};
	int rc;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return 77; /* their libraries must come before any that is preloaded */
#endif
	if (argc < 3 || !world_make())
		return 77;
	daemon_path = argv[1];
	double_path = argv[2];
	make_nic();
	wide = world_wide(QUEUES);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(nic_path);
	return rc;
}
