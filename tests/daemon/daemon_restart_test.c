/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaductd dies and another takes its place: frames keep reaching the stacks, which come back with their rings; nobody
 * gets what is another's; when all are gone nothing is left on the interface.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/orphan.h"
#include "rings.h"
#include "world.h"

static const char *daemon_path;

struct guest {
	int sock, owner;
	uint16_t port;
	struct answer vnic;
	struct rings rings;
};

static void guest_make(struct guest *g, uint16_t port, uint32_t mode)
{
	g->sock = client_make();
	assert_true(g->sock >= 0);
	g->port = port;
	g->owner = bound_socket(SOCK_DGRAM, HERE4, port);
	assert_int_equal(rings_open(&g->rings, g->sock, v0_index(), &g->vnic), 0);
	assert_int_equal(g->vnic.body.vnic.mode, mode);
	assert_true(client_filter(g->sock, IPPROTO_UDP, HERE4, port, g->owner, 0) > 0);
}

static int resume(int sock, const struct answer *was, struct answer *now)
{
	return client_ask(sock, DAEMON_RESUME, &was->body.vnic, sizeof(was->body.vnic), was->fd,
			  1 + (int)was->body.vnic.queues, now);
}

static void guest_resume(struct guest *g)
{
	struct answer now;

	close(g->sock);
	g->sock = client_make();
	assert_true(g->sock >= 0);
	assert_int_equal(resume(g->sock, &g->vnic, &now), 0);
	assert_int_equal(now.fds, now.body.vnic.keep_fds);
	/* the new ones are to be kept instead of the old */
	close(g->vnic.fd[g->vnic.fds - 1]);
	g->vnic.fd[g->vnic.fds - 1] = now.fd[0];
	assert_true(client_filter(g->sock, IPPROTO_UDP, HERE4, g->port, g->owner, 0) > 0);
}

static void guest_free(struct guest *g)
{
	rings_unmap(&g->rings);
	answer_close(&g->vnic);
	close(g->sock);
	close(g->owner);
}

static void assert_served(struct guest *g, int peer)
{
	uint8_t frame[2048], answer[256];
	struct datagram d = {
	    .saddr = HERE4, .daddr = THERE4, .sport = g->port, .dport = 7001, .proto = IPPROTO_UDP, .text = "back"};
	uint32_t len;

	say(peer, HERE4, g->port, "there");
	len = rings_receive(&g->rings, frame, sizeof(frame), 10000);
	assert_int_equal(len, 14 + 20 + 8 + 5);
	memcpy(d.to, frame + 6, 6);
	memcpy(d.from, g->vnic.body.vnic.mac, 6);
	rings_send(&g->rings, answer, make_datagram(answer, &d));
	assert_int_equal(recv(peer, frame, sizeof(frame), 0), 4);
}

static bool program_is_on(void)
{
	return run("ip -d link show v0 2>&1 | grep -q xdp") == 0;
}

static bool veths_are_there(void)
{
	return run("ip link show 2>&1 | grep -q viaduct") == 0;
}

static void restart(pid_t *daemon, int how)
{
	daemon_stop(*daemon, how);
	*daemon = daemon_start(daemon_path, NULL);
}

static void stacks_outlive_their_daemon(void **state)
{
	static const int ways[] = {SIGKILL, SIGTERM, SIGKILL};
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer = peer_udp(7001);
	struct guest a, b, c;

	(void)state;
	guest_make(&a, 7000, DAEMON_MODE_DIRECT);
	guest_make(&b, 7100, DAEMON_MODE_VETH);
	for (unsigned int i = 0; i < 3; i++) {
		daemon_stop(daemon, ways[i]);
		assert_true(program_is_on());
		assert_true(veths_are_there());
		assert_served(&a, peer);
		assert_served(&b, peer);
		daemon = daemon_start(daemon_path, NULL);
		assert_served(&a, peer);
		guest_resume(&a);
		guest_resume(&b);
		assert_served(&a, peer);
		assert_served(&b, peer);
	}
	guest_make(&c, 7200, DAEMON_MODE_VETH);
	assert_served(&c, peer);
	guest_free(&a);
	guest_free(&b);
	guest_free(&c);
	close(peer);
	daemon_stop(daemon, SIGKILL);
}

static void nothing_is_left_when_all_are_gone(void **state)
{
	(void)state;
	for (int i = 0; i < 100 && (program_is_on() || veths_are_there()); i++)
		usleep(50000);
	assert_false(program_is_on());
	assert_false(veths_are_there());
}

static void rings_of_others_cannot_be_resumed(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer = peer_udp(7001), sock;
	struct guest a, b;
	struct answer mixed, now;

	(void)state;
	guest_make(&a, 7000, DAEMON_MODE_DIRECT);
	guest_make(&b, 7100, DAEMON_MODE_VETH);
	restart(&daemon, SIGKILL);
	sock = client_make();
	/* a socket that is none of the sort; one that another stack has resumed already */
	mixed = a.vnic;
	mixed.fd[1] = a.owner;
	assert_int_equal(resume(sock, &mixed, &now), -EINVAL);
	guest_resume(&a);
	assert_int_equal(resume(sock, &a.vnic, &now), -ENOENT);
	/* another's port */
	assert_int_equal(client_filter(sock, IPPROTO_UDP, HERE4, 7100, b.owner, 0), -EADDRINUSE);
	guest_resume(&b);
	assert_served(&a, peer);
	assert_served(&b, peer);
	guest_free(&a);
	guest_free(&b);
	close(sock);
	close(peer);
	daemon_stop(daemon, SIGTERM);
}

/* A stack had a filter, no vNIC yet, when viaductd died: who gets its number from the next one must not get its frames.
 */
static void filters_of_who_does_not_come_back_are_nobodys(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer = peer_udp(7001), owner = bound_socket(SOCK_DGRAM, HERE4, 7300), sock = client_make();
	struct guest a, b;
	char text[16];

	(void)state;
	guest_make(&a, 7000, DAEMON_MODE_DIRECT);
	assert_true(client_filter(sock, IPPROTO_UDP, HERE4, 7300, owner, 0) > 0);
	daemon_stop(daemon, SIGKILL);
	close(sock);
	daemon = daemon_start(daemon_path, NULL);
	guest_resume(&a);
	guest_make(&b, 7100, DAEMON_MODE_VETH);
	assert_served(&b, peer);
	say(peer, HERE4, 7300, "there");
	assert_int_equal(poll(&(struct pollfd){.fd = owner, .events = POLLIN}, 1, 5000), 1);
	assert_int_equal(recv(owner, text, sizeof(text), 0), 5);
	guest_free(&a);
	guest_free(&b);
	close(owner);
	close(peer);
	daemon_stop(daemon, SIGTERM);
}

/* As one who finishes connections of the dead: listens under such a name, and says `len` bytes to whoever comes. */
static pid_t pretend(const char *name, uid_t uid, size_t len)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), ready[2];
	static char rubbish[4096];
	pid_t pid;

	memset(rubbish, 0x55, sizeof(rubbish));
	memcpy(rubbish, &(uint32_t){ORPHAN_MAGIC}, sizeof(uint32_t));
	memcpy(rubbish + sizeof(uint32_t), &(uint32_t){1}, sizeof(uint32_t));
	snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, ORPHAN_NAME "%s", name);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setuid(uid) ||
		    bind(fd, (struct sockaddr *)&sa,
			 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(sa.sun_path + 1))) ||
		    listen(fd, 8) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;) {
			int sock = accept(fd, NULL, NULL);

			if (len)
				(void)!send(sock, rubbish, len, MSG_NOSIGNAL);
		}
	}
	assert_int_equal(read(ready[0], rubbish, 1), 1);
	close(ready[0]);
	close(ready[1]);
	close(fd);
	return pid;
}

static void who_pretends_to_finish_connections_is_not_believed(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int peer = peer_udp(7001);
	pid_t liar[] = {pretend("another-user", 12345, sizeof(struct orphan_show)), pretend("silent", 0, 0),
			pretend("short", 0, 5), pretend("rubbish", 0, sizeof(struct orphan_show))};
	struct answer a;
	struct guest g;
	int sock;

	(void)state;
	guest_make(&g, 7000, DAEMON_MODE_DIRECT);
	restart(&daemon, SIGKILL);
	guest_resume(&g);
	assert_served(&g, peer);
	sock = client_connect();
	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	assert_int_equal(a.body.status.stacks, 1);
	assert_int_equal(a.body.status.orphans, 0);
	close(sock);
	for (unsigned int i = 0; i < sizeof(liar) / sizeof(liar[0]); i++) {
		assert_int_equal(kill(liar[i], SIGKILL), 0);
		waitpid(liar[i], NULL, 0);
	}
	guest_free(&g);
	close(peer);
	daemon_stop(daemon, SIGTERM);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(stacks_outlive_their_daemon),
	    cmocka_unit_test(nothing_is_left_when_all_are_gone),
	    cmocka_unit_test(rings_of_others_cannot_be_resumed),
	    cmocka_unit_test(nothing_is_left_when_all_are_gone),
	    cmocka_unit_test(filters_of_who_does_not_come_back_are_nobodys),
	    cmocka_unit_test(nothing_is_left_when_all_are_gone),
	    cmocka_unit_test(who_pretends_to_finish_connections_is_not_believed),
	    cmocka_unit_test(nothing_is_left_when_all_are_gone),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
