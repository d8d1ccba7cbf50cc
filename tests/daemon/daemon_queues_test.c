/* SPDX-License-Identifier: BSD-2-Clause */
/* An interface of many receive queues: a stack has rings for all of them, as far as it can take so many. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rings.h"
#include "world.h"

enum { QUEUES = 12, FLOWS = 96 };

static const char *daemon_path;
static uint32_t wide;

/* How many frames of the port have come over each queue. */
static void gather(struct rings *rings, uint32_t queues, uint32_t *count)
{
	uint8_t frame[2048];
	uint32_t found = 0;

	for (uint32_t q = 0; q < queues; q++)
		while (rings_receive(&rings[q], frame, sizeof(frame), found ? 50 : 1000) > 0) {
			count[q]++;
			found++;
		}
}

static void a_stack_receives_on_all_queues(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make(), mine = bound_socket(SOCK_DGRAM, WIDE4, 7000);
	uint32_t count[QUEUES] = {0}, sum = 0, used = 0, high = 0;
	struct rings rings[QUEUES];
	struct answer a;

	(void)state;
	assert_int_equal(client_open(sock, wide, &a), 0);
	assert_int_equal(a.body.vnic.mode, DAEMON_MODE_DIRECT);
	assert_int_equal(a.body.vnic.queues, QUEUES);
	assert_int_equal(a.fds, 1 + QUEUES + (int)a.body.vnic.keep_fds);
	for (uint32_t q = 0; q < QUEUES; q++)
		assert_int_equal(rings_map(&rings[q], &a, q), 0);
	assert_true(client_filter(sock, IPPROTO_UDP, WIDE4, 7000, mine, 0) > 0);
	for (int i = 0; i < FLOWS; i++) {
		int peer = peer_socket(AF_INET, SOCK_DGRAM);

		say(peer, WIDE4, 7000, "x");
		close(peer);
	}
	gather(rings, QUEUES, count);
	for (uint32_t q = 0; q < QUEUES; q++) {
		sum += count[q];
		used += count[q] != 0;
		high += q >= DAEMON_QUEUES_LEAST ? count[q] : 0;
		rings_unmap(&rings[q]);
	}
	/* the peer's kernel hashes flows to queues */
	assert_int_equal(sum, FLOWS);
	assert_in_range(used, 2, QUEUES);
	assert_true(high > 0);
	answer_close(&a);
	close(sock);
	close(mine);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void the_buffers_of_queues_do_not_overlap_and_fit_into_the_umem(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int sock = client_make();
	uint64_t end = 0;
	struct answer a;

	(void)state;
	assert_int_equal(client_open(sock, wide, &a), 0);
	for (uint32_t q = 0; q < a.body.vnic.queues; q++) {
		assert_int_equal(a.body.vnic.queue[q].rx_first, end);
		assert_in_range(a.body.vnic.queue[q].rx_count, 256, a.body.vnic.ring_size);
		end += a.body.vnic.queue[q].rx_count;
		assert_int_equal(a.body.vnic.queue[q].tx_first, end);
		assert_in_range(a.body.vnic.queue[q].tx_count, 256, a.body.vnic.ring_size);
		end += a.body.vnic.queue[q].tx_count;
	}
	assert_int_equal(end * a.body.vnic.chunk_size, a.body.vnic.umem_size);
	answer_close(&a);
	close(sock);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void a_client_with_room_for_fewer_queues_is_put_behind_a_veth(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct daemon_open open = {.ifindex = wide};
	int sock = client_make();
	struct answer a;

	(void)state;
	assert_int_equal(client_ask(sock, DAEMON_OPEN, &open, sizeof(open), NULL, 0, &a), 0);
	assert_int_equal(a.body.vnic.mode, DAEMON_MODE_VETH);
	assert_int_equal(a.body.vnic.queues, 1);
	answer_close(&a);
	close(sock);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

/* As an ordinary user, with this descriptor: how he reaches the interface; in the exit status. */
static uint32_t mode_for(int shown)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct daemon_open open = {.ifindex = v0_index(), .queues = 64};
		int sock = setgid(4711) || setuid(4711) ? -1 : client_make();
		struct answer a;

		if (sock < 0 || client_ask(sock, DAEMON_OPEN, &open, sizeof(open), &shown, shown >= 0, &a))
			_exit(99);
		_exit((int)a.body.vnic.mode);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 100;
}

static void who_shows_that_he_may_send_anything_gets_the_interfaces_own_queues(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int packets = socket(AF_PACKET, SOCK_RAW, 0), cooked = socket(AF_PACKET, SOCK_DGRAM, 0);
	int elsewhere = peer_socket(AF_PACKET, SOCK_RAW), raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);

	(void)state;
	assert_int_equal(mode_for(-1), DAEMON_MODE_VETH);
	assert_int_equal(mode_for(packets), DAEMON_MODE_DIRECT);
	/* those that can send less, or elsewhere */
	assert_int_equal(mode_for(cooked), DAEMON_MODE_VETH);
	assert_int_equal(mode_for(elsewhere), DAEMON_MODE_VETH);
	assert_int_equal(mode_for(raw), DAEMON_MODE_VETH);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	daemon = daemon_start(daemon_path, "--veth-only", NULL);
	assert_int_equal(mode_for(packets), DAEMON_MODE_VETH);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
	close(packets);
	close(cooked);
	close(elsewhere);
	close(raw);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_stack_receives_on_all_queues),
	    cmocka_unit_test(the_buffers_of_queues_do_not_overlap_and_fit_into_the_umem),
	    cmocka_unit_test(a_client_with_room_for_fewer_queues_is_put_behind_a_veth),
	    cmocka_unit_test(who_shows_that_he_may_send_anything_gets_the_interfaces_own_queues),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	wide = world_wide(QUEUES);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
