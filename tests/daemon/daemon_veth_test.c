/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stacks behind veths of their own: each has its flows, in both directions, and none can read, send as, or reset
 * another's.
 */
#include <errno.h>
#include <poll.h>
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

static const char *daemon_path;

/* A stack with a vNIC and one UDP port. */
struct guest {
	int sock, owner;
	uint16_t port;
	uint64_t memory; /* its inode */
	struct answer vnic;
	struct rings rings;
};

static void guest_make(struct guest *g, uint16_t port)
{
	g->sock = client_make();
	assert_true(g->sock >= 0);
	g->memory = client_memory();
	g->port = port;
	g->owner = bound_socket(SOCK_DGRAM, HERE4, port);
	assert_int_equal(rings_open(&g->rings, g->sock, v0_index(), &g->vnic), 0);
	assert_int_equal(g->vnic.body.vnic.mode, DAEMON_MODE_VETH);
	assert_true(client_filter(g->sock, IPPROTO_UDP, HERE4, port, g->owner, 0) > 0);
}

static void guest_free(struct guest *g)
{
	rings_unmap(&g->rings);
	answer_close(&g->vnic);
	close(g->sock);
	close(g->owner);
}

/* Send as if from this address and port, with the peer's MAC as it stands in a frame that came. */
static void send_as(struct guest *g, const uint8_t *came, const uint8_t from[6], const char *saddr, uint16_t sport,
		    uint8_t proto)
{
	uint8_t frame[256];
	struct datagram d = {
	    .saddr = saddr, .daddr = THERE4, .sport = sport, .dport = 7001, .proto = proto, .text = "hello"};

	memcpy(d.to, came + 6, 6);
	memcpy(d.from, from, 6);
	rings_send(&g->rings, frame, make_datagram(frame, &d));
}

/* What `viaduct stat` asks: frames of the stack that were let out, and those that were not. */
static void assert_counted(int sock, uint64_t memory, uint64_t sent, uint64_t refused)
{
	struct daemon_stack_ask ask = {.inode = memory};
	struct answer a;

	assert_int_equal(client_ask(sock, DAEMON_STACK, &ask, sizeof(ask), NULL, 0, &a), 0);
	assert_int_equal(a.body.stack.vnics, 1);
	assert_int_equal(a.body.stack.vnic[0].ifindex, v0_index());
	assert_int_equal(a.body.stack.vnic[0].mode, DAEMON_MODE_VETH);
	assert_int_equal(a.body.stack.vnic[0].sent, sent);
	assert_int_equal(a.body.stack.vnic[0].refused, refused);
}

static bool arrives(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	char text[64];

	return poll(&p, 1, ms) == 1 && recv(fd, text, sizeof(text), 0) >= 0;
}

static void stacks_behind_veths_have_their_flows_and_no_others(void **state)
{
	pid_t daemon = daemon_start(daemon_path, "--veth-only", NULL);
	int peer = peer_udp(7001);
	uint8_t frame[2048], other_mac[6] = {2, 1, 2, 3, 4, 5};
	int raw, owner;
	struct guest a, b;
	const uint8_t *mac = a.vnic.body.vnic.mac;
	uint32_t len;

	(void)state;
	in_peer(true);
	raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
	in_peer(false);
	guest_make(&a, 7000);
	guest_make(&b, 7100);
	say(peer, HERE4, 7000, "for a");
	len = rings_receive(&a.rings, frame, sizeof(frame), 10000);
	assert_int_equal(len, 14 + 20 + 8 + 5);
	assert_memory_equal(frame + len - 5, "for a", 5);
	assert_int_equal(rings_receive(&b.rings, frame, sizeof(frame), 100), 0);
	say(peer, HERE4, 7100, "for b");
	assert_int_equal(rings_receive(&b.rings, frame, sizeof(frame), 10000), len);
	assert_int_equal(rings_receive(&a.rings, frame, sizeof(frame), 100), 0);

	send_as(&a, frame, mac, HERE4, 7000, IPPROTO_UDP);
	assert_true(arrives(peer, 10000));
	send_as(&b, frame, mac, HERE4, 7100, IPPROTO_UDP);
	assert_true(arrives(peer, 10000));
	send_as(&a, frame, mac, HERE4, 7100, IPPROTO_UDP);
	assert_false(arrives(peer, 300));
	send_as(&a, frame, mac, HERE4, 53, IPPROTO_UDP);
	assert_false(arrives(peer, 300));
	send_as(&a, frame, mac, "10.77.0.9", 7000, IPPROTO_UDP);
	assert_false(arrives(peer, 300));
	send_as(&a, frame, other_mac, HERE4, 7000, IPPROTO_UDP);
	assert_false(arrives(peer, 300));
	/* what the peer's kernel would take for a reset of the other's connection */
	owner = bound_socket(SOCK_STREAM, HERE4, 7200);
	assert_true(client_filter(b.sock, IPPROTO_TCP, HERE4, 7200, owner, 0) > 0);
	send_as(&b, frame, mac, HERE4, 7200, IPPROTO_TCP);
	assert_true(arrives(raw, 10000));
	send_as(&a, frame, mac, HERE4, 7200, IPPROTO_TCP);
	assert_false(arrives(raw, 300));
	close(owner);
	close(raw);
	guest_free(&a);
	guest_free(&b);
	close(peer);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void frames_that_are_not_the_stacks_own_are_counted_for_it(void **state)
{
	pid_t daemon = daemon_start(daemon_path, "--veth-only", NULL);
	int peer = peer_udp(7001), looker = client_connect();
	uint8_t frame[2048];
	struct guest a, b;
	const uint8_t *mac = a.vnic.body.vnic.mac;

	(void)state;
	guest_make(&a, 7000);
	guest_make(&b, 7100);
	assert_counted(looker, a.memory, 0, 0);
	say(peer, HERE4, 7000, "for a");
	assert_true(rings_receive(&a.rings, frame, sizeof(frame), 10000) > 0);
	send_as(&a, frame, mac, HERE4, 7000, IPPROTO_UDP);
	assert_true(arrives(peer, 10000));
	send_as(&a, frame, mac, HERE4, 7100, IPPROTO_UDP);
	send_as(&a, frame, mac, HERE4, 53, IPPROTO_UDP);
	assert_false(arrives(peer, 300));
	assert_counted(looker, a.memory, 1, 2);
	assert_counted(looker, b.memory, 0, 0);
	/* the interface's address changes, the counts stay */
	assert_int_equal(run("ip link set v0 address 02:77:00:00:00:05"), 0);
	usleep(300000);
	assert_counted(looker, a.memory, 1, 2);
	close(looker);
	guest_free(&a);
	guest_free(&b);
	close(peer);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void one_user_is_not_told_of_anothers_stack(void **state)
{
	pid_t daemon = daemon_start(daemon_path, "--veth-only", NULL), child;
	int sock = client_make(), status;
	struct daemon_stack_ask ask = {.inode = client_memory()}, wrong = {.inode = client_memory() + 1000};
	struct answer a;

	(void)state;
	assert_int_equal(client_ask(sock, DAEMON_STACK, &ask, sizeof(ask), NULL, 0, &a), 0);
	assert_int_equal(a.body.stack.vnics, 0);
	assert_int_equal(client_ask(sock, DAEMON_STACK, &wrong, sizeof(wrong), NULL, 0, &a), -ENOENT);
	child = fork();
	if (!child) {
		int mine = setuid(4711) ? -1 : client_connect();

		_exit(mine >= 0 && client_ask(mine, DAEMON_STACK, &ask, sizeof(ask), NULL, 0, &a) == -ENOENT ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(sock);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

/* One request takes many filters back. When it is answered their ports are free, and what was no filter does no harm.
 */
static void many_filters_go_with_one_request_and_their_ports_are_free(void **state)
{
	enum { PORTS = 20 };
	pid_t daemon = daemon_start(daemon_path, "--veth-only", NULL);
	struct daemon_filter_ids gone = {.more = PORTS - 1};
	struct daemon_filter_ids wild = {.id = UINT32_MAX, .more = UINT32_MAX};
	struct answer vnic, a;
	int sock = client_make();

	(void)state;
	assert_true(sock >= 0);
	assert_int_equal(client_open(sock, v0_index(), &vnic), 0);
	for (int i = 0; i < PORTS; i++) {
		int fd = bound_socket(SOCK_STREAM, HERE4, (uint16_t)(7400 + i));
		int id = client_filter(sock, IPPROTO_TCP, HERE4, (uint16_t)(7400 + i), fd, 0);

		assert_true(id > 0);
		*(i ? &gone.others[i - 1] : &gone.id) = (uint32_t)id;
		close(fd);
	}
	assert_int_equal(client_ask(sock, DAEMON_FILTER_DEL, &wild, sizeof(wild), NULL, 0, &a), -ENOENT);
	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	assert_int_equal(a.body.status.filters, PORTS);
	assert_int_equal(client_ask(sock, DAEMON_FILTER_DEL, &gone, sizeof(gone), NULL, 0, &a), 0);
	for (int i = 0; i < PORTS; i++)
		close(bound_socket(SOCK_STREAM, HERE4, (uint16_t)(7400 + i)));
	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	assert_int_equal(a.body.status.filters, 0);
	assert_int_equal(client_ask(sock, DAEMON_FILTER_DEL, &gone, sizeof(gone), NULL, 0, &a), -ENOENT);
	answer_close(&vnic);
	close(sock);
	daemon_stop(daemon, SIGTERM);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(stacks_behind_veths_have_their_flows_and_no_others),
	    cmocka_unit_test(frames_that_are_not_the_stacks_own_are_counted_for_it),
	    cmocka_unit_test(one_user_is_not_told_of_anothers_stack),
	    cmocka_unit_test(many_filters_go_with_one_request_and_their_ports_are_free),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
