/* SPDX-License-Identifier: BSD-2-Clause */
/* How wires come about between processes, on vs_* alone: who shares one, who must not, and what ends it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TCP_CA_CWR LINUX_TCP_CA_CWR /* Linux's header names one congestion state as our engine does */
#include <linux/tcp.h>
#undef TCP_CA_CWR

#include "host/handshake.h"
#include "lib/test_vsock.h"
#include "socket/process.h"
#include "socket/wire.h"

static uint32_t wires_here(void)
{
	return process_own_stack()->active;
}

static void expect_echo(struct sk *s, const char *text)
{
	char buf[256];
	size_t n = strlen(text) + 1;

	NEED(sk_send(s, text, n) == (ssize_t)n);
	NEED(sk_recv(s, buf, n, 0) == (ssize_t)n);
	NEED(!strcmp(buf, text));
}

static void echo_once(struct sk *c)
{
	char buf[256];
	ssize_t n = sk_recv(c, buf, sizeof(buf), 0);

	NEED(n > 0);
	NEED(sk_send(c, buf, (size_t)n) == n);
}

static uint16_t get_port(struct sk *c)
{
	uint16_t port;

	NEED(sk_recv(c, &port, sizeof(port), 0) == sizeof(port));
	return port;
}

static void put_port(struct sk *c, uint16_t port)
{
	NEED(sk_send(c, &port, sizeof(port)) == sizeof(port));
}

/* --- one wire for all addresses --- */

/* A second port, whose number goes over a connection to the first; then a connection to a port that comes that way. */
static void many_ports(struct sk *l, int unused)
{
	uint16_t port, back;
	struct sk first = sk_accepted(l), l2 = sk_listening(&port), second, third;

	(void)unused;
	put_port(&first, port);
	second = sk_accepted(&l2);
	NEED(second.v != VS_NONE);
	echo_once(&second);
	back = get_port(&first);
	third = sk_connected(back);
	expect_echo(&third, "back");
	expect_echo(&third, "and again");
	NEED(wires_here() == 1);
	echo_once(&first);
}

static void use_many_ports(uint16_t port)
{
	uint16_t mine;
	struct sk first = sk_connected(port), second = sk_connected(get_port(&first)), l, third;

	expect_echo(&second, "second");
	NEED(wires_here() == 1);
	l = sk_listening(&mine);
	put_port(&first, mine);
	third = sk_accepted(&l);
	NEED(third.v != VS_NONE);
	echo_once(&third);
	echo_once(&third);
	NEED(wires_here() == 1);
	NEED(process_own_stack()->s->counters[C_wire_made] == 1);
	NEED(process_own_stack()->s->counters[C_wire_shared] == 1);
	expect_echo(&first, "first");
}

static void with_server(void (*server)(struct sk *, int), void (*fn)(uint16_t))
{
	uint16_t port;
	pid_t s = test_serve(SOCK_STREAM, server, 0, &port), c = fork();

	if (!c) {
		alarm(30);
		fn(port);
		_exit(0);
	}
	test_ended_well(c);
	test_ended_well(s);
}

static void two_processes_need_one_wire_for_all_their_addresses(void **state)
{
	(void)state;
	with_server(many_ports, use_many_ports);
}

/* --- forks --- */

/* What a child makes is its own: the parent's wire, which it has mapped, is not taken for one of its stack. */
static void two_clients(struct sk *l, int unused)
{
	struct sk a = sk_accepted(l), b;

	(void)unused;
	echo_once(&a);
	b = sk_accepted(l);
	NEED(a.v != VS_NONE && b.v != VS_NONE);
	NEED(wires_here() == 2);
	echo_once(&b);
	echo_once(&a);
}

static void fork_and_connect(uint16_t port)
{
	struct sk s = sk_connected(port);
	pid_t pid;

	expect_echo(&s, "parent");
	pid = test_vs_fork(&s.v, 1);
	if (!pid) {
		struct sk c = sk_connected(port);

		alarm(30);
		NEED(wires_here() == 1 && process_own_stack() != process_stack(0));
		expect_echo(&c, "child");
		_exit(0);
	}
	test_ended_well(pid);
	NEED(wires_here() == 1);
	expect_echo(&s, "parent again");
}

static void a_child_makes_a_wire_of_its_own(void **state)
{
	(void)state;
	with_server(two_clients, fork_and_connect);
}

/* --- users who do not trust each other --- */

#define SOMEBODY 1234

/* fn in a process of another user, against root's server. */
static void with_another_user(void (*server)(struct sk *, int), void (*fn)(uint16_t))
{
	uint16_t port;
	pid_t s, c;

	if (geteuid() != 0)
		skip();
	s = test_serve(SOCK_STREAM, server, 0, &port);
	c = fork();
	if (!c) {
		alarm(30);
		NEED(setresuid(SOMEBODY, SOMEBODY, SOMEBODY) == 0);
		fn(port);
		_exit(0);
	}
	test_ended_well(s);
	kill(c, SIGKILL);
	waitpid(c, NULL, 0);
}

static const struct vnic *the_wire(void)
{
	struct attached *a = process_own_stack();

	NEED(a->active == 1);
	return &a->e.vnic[a->vnic[0]];
}

static void answer_slowly(struct sk *l, int unused)
{
	struct sk c = sk_accepted(l);

	(void)unused;
	NEED(c.v != VS_NONE && the_wire()->doorbell_fd[0] == -1 && the_wire()->doorbell_fd[1] == -1);
	for (int i = 0; i < 10; i++) {
		usleep(20000); /* it sleeps by now, and so did we */
		echo_once(&c);
	}
}

static void ask_slowly(uint16_t port)
{
	struct sk s = sk_connected(port);

	for (int i = 0; i < 10; i++) {
		usleep(30000);
		expect_echo(&s, "wake up");
	}
	pause();
}

static void another_users_sleepers_are_rung_by_the_connection(void **state)
{
	(void)state;
	with_another_user(answer_slowly, ask_slowly);
}

/* Small messages until it has been rung a hundred times. A write that blocks here blocks for good. */
static void send_to_a_trap(struct sk *l, int unused)
{
	struct sk c = sk_accepted(l);
	int on = 1;

	(void)unused;
	alarm(30);
	NEED(c.v != VS_NONE);
	echo_once(&c);
	vs_set_nonblock(c.v, true);
	NEED(vs_setsockopt(c.v, c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
	while (the_wire()->st->stats.doorbells <= 100) {
		/* one for each time that the trap has been laid: it reads nothing, so there is not room for many more
		 */
		if (__atomic_load_n(&the_wire()->peer_ctrl->armed, __ATOMIC_RELAXED))
			NEED(sk_send(&c, "x", 1) == 1);
		usleep(100);
	}
}

/* All that has been shared with us is made to block who writes to it; and we want to be rung all the time. */
static void be_a_trap(uint16_t port)
{
	static const uint64_t full = UINT64_MAX - 1;
	struct sk s = sk_connected(port);
	struct vnic_ctrl *ctrl = the_wire()->ctrl;

	expect_echo(&s, "now");
	signal(SIGPIPE, SIG_IGN);
	for (int fd = 3; fd < 70000; fd++) {
		int flags = fcntl(fd, F_GETFL);
		struct stat st;

		if (flags < 0 || fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
			continue;
		(void)!write(fd, &full, sizeof(full));
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	}
	for (;;)
		__atomic_store_n(&ctrl->armed, VNIC_ARMED_THREAD, __ATOMIC_RELAXED);
}

static void no_other_user_can_make_a_doorbells_write_block(void **state)
{
	(void)state;
	with_another_user(send_to_a_trap, be_a_trap);
}

/* --- slots --- */

/* A wire as a rendezvous would give it, whose other end nobody looks at. *peer: closing it ends the wire. */
static struct rdv_wire new_wire(int *peer)
{
	struct rdv_wire w = {.memfd = host_fd_high(wire_memfd_make()), .end = 0, .link = {.pid = 1}};
	int pair[2];

	NEED(w.memfd >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	w.life_fd = host_fd_high(pair[0]);
	*peer = pair[1];
	for (int i = 0; i < 2; i++)
		w.doorbell[i] = host_fd_high(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	return w;
}

/* Another process of the tree, which has the same stack mapped, frees the slot of a dead wire; we have that wire in our
 * list of active ones still when we use the slot again. */
static void reuse_a_slot(void)
{
	struct attached *a = process_own_stack();
	static struct engine other;
	struct rdv_wire w;
	int peer[2], first, second, old_doorbell;

	w = new_wire(&peer[0]);
	old_doorbell = w.doorbell[0];
	first = wire_add(a, &w);
	NEED(first >= 0 && a->active == 1);
	engine_attach(&other, a->s);
	engine_vnic_dead(&other, (uint32_t)first, clock_us());
	NEED(engine_vnic_free(&other, (uint32_t)first) == 0);
	w = new_wire(&peer[1]);
	second = wire_add(a, &w);
	NEED(second == first);
	NEED(a->active == 1 && a->vnic[0] == second);
	NEED(a->view[0].evq == a->e.vnic[second].evq && a->view[0].ctrl == a->e.vnic[second].ctrl);
	NEED(a->e.vnic[second].gen == a->e.vnic[second].st->gen);
	NEED(!host_fd_is_ours(old_doorbell));
	/* The news of the first one's end come late: they are not about the second. */
	wire_gone(a, (uint32_t)first, a->e.vnic[second].gen - 2);
	NEED(a->active == 1 && !a->e.vnic[second].st->dead);
	NEED(!stack_pending(a));
	wire_gone(a, (uint32_t)second, a->e.vnic[second].gen);
	NEED(a->active == 0);
	NEED(!stack_pending(a));
}

static void a_slot_that_another_process_freed_is_used_anew(void **state)
{
	(void)state;
	test_in_child(reuse_a_slot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_processes_need_one_wire_for_all_their_addresses),
	    cmocka_unit_test(a_child_makes_a_wire_of_its_own),
	    cmocka_unit_test(a_slot_that_another_process_freed_is_used_anew),
	    cmocka_unit_test(another_users_sleepers_are_rung_by_the_connection),
	    cmocka_unit_test(no_other_user_can_make_a_doorbells_write_block),
	};

	return test_vsock_main(tests);
}
