/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several stacks of one user on one port (SO_REUSEPORT): new flows are spread, each stays with its stack when others
 * come, and goes to those who remain when its stack leaves. Others' stacks can't join.
 */
#include <errno.h>
#include <fcntl.h>
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

#define FLOWS 40
#define PORT 7300

static const char *daemon_path;

struct guest {
	int sock, owner, id;
	struct answer vnic;
	struct rings rings;
};

static int shared_socket(int type)
{
	struct sockaddr_in sa;
	int fd = socket(AF_INET, type, 0), one = 1;

	v4_addr(&sa, HERE4, PORT);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void guest_make(struct guest *g, int type)
{
	uint8_t proto = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;

	g->sock = client_make();
	assert_true(g->sock >= 0);
	g->owner = shared_socket(type);
	assert_int_equal(rings_open(&g->rings, g->sock, v0_index(), &g->vnic), 0);
	g->id = client_filter(g->sock, proto, HERE4, PORT, g->owner, DAEMON_FILTER_SHARED);
	assert_true(g->id > 0);
}

static void guest_leave(struct guest *g)
{
	struct daemon_filter_id id = {.id = (uint32_t)g->id};
	struct answer a;

	assert_int_equal(client_ask(g->sock, DAEMON_FILTER_DEL, &id, sizeof(id), NULL, 0, &a), 0);
}

static void guest_free(struct guest *g)
{
	rings_unmap(&g->rings);
	answer_close(&g->vnic);
	close(g->sock);
	close(g->owner);
}

/* Which of the guests has got a frame; -1 none. Takes all that it has. */
static int who_got(struct guest *g, int guests)
{
	uint8_t frame[2048];
	int got = -1;

	for (int tries = 0; tries < 50 && got < 0; tries++)
		for (int i = 0; i < guests; i++)
			if (rings_receive(&g[i].rings, frame, sizeof(frame), 1))
				got = i;
	for (int i = 0; i < guests; i++)
		while (rings_receive(&g[i].rings, frame, sizeof(frame), 0))
			;
	return got;
}

static void datagrams_of_a_flow_go_to_one_stack_and_flows_are_spread(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer[FLOWS], count[2] = {0};
	struct guest g[2];

	(void)state;
	guest_make(&g[0], SOCK_DGRAM);
	guest_make(&g[1], SOCK_DGRAM);
	for (int i = 0; i < FLOWS; i++) {
		int first;

		peer[i] = peer_udp((uint16_t)(20000 + i));
		say(peer[i], HERE4, PORT, "one");
		first = who_got(g, 2);
		assert_true(first >= 0);
		count[first]++;
		say(peer[i], HERE4, PORT, "two");
		assert_int_equal(who_got(g, 2), first);
	}
	assert_true(count[0] > FLOWS / 5 && count[1] > FLOWS / 5);
	guest_leave(&g[0]);
	for (int i = 0; i < FLOWS; i++) {
		say(peer[i], HERE4, PORT, "three");
		assert_int_equal(who_got(g, 2), 1);
		close(peer[i]);
	}
	guest_free(&g[0]);
	guest_free(&g[1]);
	daemon_stop(daemon, SIGTERM);
}

/* A SYN, repeated after a second, of a kernel's connect. */
static int peer_connect(uint16_t from)
{
	struct sockaddr_in sa;
	int fd = peer_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);

	v4_addr(&sa, THERE4, from);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	v4_addr(&sa, HERE4, PORT);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
	assert_int_equal(errno, EINPROGRESS);
	return fd;
}

static void a_connection_stays_with_its_stack_when_others_join(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer[8], first[8];
	struct guest g[4];

	(void)state;
	guest_make(&g[0], SOCK_STREAM);
	guest_make(&g[1], SOCK_STREAM);
	for (int i = 0; i < 8; i++) {
		peer[i] = peer_connect((uint16_t)(21000 + i));
		first[i] = who_got(g, 2);
		assert_true(first[i] >= 0);
	}
	guest_make(&g[2], SOCK_STREAM);
	guest_make(&g[3], SOCK_STREAM);
	/* the repeated SYNs, in whatever order, come where the first came: as many as went there */
	for (int i = 0; i < 8; i++) {
		uint8_t frame[2048];
		bool came = false;

		for (int tries = 0; tries < 1500 && !came; tries++)
			for (int k = 0; k < 2; k++)
				came |= rings_receive(&g[k].rings, frame, sizeof(frame), 1) != 0;
		assert_true(came);
		assert_int_equal(rings_receive(&g[2].rings, frame, sizeof(frame), 0), 0);
		assert_int_equal(rings_receive(&g[3].rings, frame, sizeof(frame), 0), 0);
	}
	for (int i = 0; i < 8; i++)
		close(peer[i]);
	for (int i = 0; i < 4; i++)
		guest_free(&g[i]);
	daemon_stop(daemon, SIGTERM);
}

/* In a child of another user: the answer to asking for that port. */
static int ask_as(uint32_t uid, int owner, uint8_t proto, const char *local, uint16_t port, uint16_t flags)
{
	pid_t child = fork();
	int status;

	if (!child) {
		int sock;

		if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
			_exit(99);
		sock = client_make();
		_exit(sock < 0 ? 97 : -client_filter(sock, proto, local, port, owner, flags) & 0x7f);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void another_user_cannot_join(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct guest g;

	(void)state;
	guest_make(&g, SOCK_DGRAM);
	/* even with the very socket */
	assert_int_equal(ask_as(1001, g.owner, IPPROTO_UDP, HERE4, PORT, DAEMON_FILTER_SHARED), EADDRINUSE);
	guest_free(&g);
	daemon_stop(daemon, SIGTERM);
}

/* Both with SO_REUSEADDR, the one that does not listen bound first: the kernel allows that. */
static void a_port_on_which_another_user_listens_is_not_given_away(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int first = socket(AF_INET, SOCK_STREAM, 0), server = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in sa;

	(void)state;
	setsockopt(first, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(fchown(first, 1001, (gid_t)-1), 0);
	v4_addr(&sa, "0.0.0.0", 7301);
	assert_int_equal(bind(first, (struct sockaddr *)&sa, sizeof(sa)), 0);
	v4_addr(&sa, HERE4, 7301);
	assert_int_equal(bind(server, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(server, 5), 0);
	assert_int_equal(ask_as(1001, first, IPPROTO_TCP, NULL, 7301, 0), EADDRINUSE);
	close(server);
	close(first);
	daemon_stop(daemon, SIGTERM);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_of_a_flow_go_to_one_stack_and_flows_are_spread),
	    cmocka_unit_test(a_connection_stays_with_its_stack_when_others_join),
	    cmocka_unit_test(another_user_cannot_join),
	    cmocka_unit_test(a_port_on_which_another_user_listens_is_not_given_away),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
