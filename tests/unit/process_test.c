/* SPDX-License-Identifier: BSD-2-Clause */
/* A process's own stack: made whole or not at all, its process table, what tools read, and that dead wires leave
 * nothing. */
#include <arpa/inet.h>
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "lib/test_vsock.h"
#include "socket/helper.h"
#include "socket/process.h"

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void no_descriptors(void)
{
	struct rlimit lim;
	enum reason reason = REASON_NONE;
	vsock_t v = VS_NONE;
	int fd = socket(AF_INET, SOCK_STREAM, 0), before = open_fds();

	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = (rlim_t)fd + 2; /* the memfd fits, the doorbells don't */
	NEED(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	knob[K_LOG] = LOG_QUIET;
	NEED(vs_socket(AF_INET, SOCK_STREAM, 0, fd, &v, &reason) == VS_KERNEL);
	NEED(reason == REASON_NO_STACK);
	NEED(v == VS_NONE);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	NEED(open_fds() == before);
}

static void without_descriptors_the_kernel_serves_and_nothing_leaks(void **state)
{
	(void)state;
	test_in_child(no_descriptors);
}

static void few_sockets(void)
{
	enum reason reason = REASON_NONE;
	vsock_t v[64], w;
	int n = 0;

	knob[K_SOCKETS] = 64;
	while (n < 64 && vs_socket(AF_INET, SOCK_STREAM, 0, 0, &v[n], &reason) == 0)
		n++;
	NEED(n >= 32);
	NEED(n == 64 || reason == REASON_NO_SOCKETS);
	NEED(vs_socket(AF_INET, SOCK_STREAM, 0, 0, &w, &reason) == VS_KERNEL);
	NEED(reason == REASON_NO_SOCKETS);
	vs_close(v[0], false);
	NEED(!vs_alive(v[0]));
	NEED(vs_socket(AF_INET, SOCK_STREAM, 0, 0, &w, &reason) == 0);
	NEED(w != v[0]); /* the same slot under another name */
	NEED(vs_poll(v[0]) == 0);
	vs_close(v[0], false); /* a stale name closes nobody else's socket */
	NEED(vs_alive(w));
}

static void sockets_run_out_and_old_names_are_stale(void **state)
{
	(void)state;
	test_in_child(few_sockets);
}

static void what_is_not_ours_has_its_reason(void **state)
{
	enum reason reason;
	vsock_t v;

	(void)state;
	assert_int_equal(vs_socket(AF_UNIX, SOCK_STREAM, 0, 0, &v, &reason), VS_KERNEL);
	assert_int_equal(reason, REASON_FAMILY);
	assert_int_equal(vs_socket(AF_INET, SOCK_RAW, 1, 0, &v, &reason), VS_KERNEL);
	assert_int_equal(reason, REASON_TYPE);
}

static void table_of_processes(void)
{
	struct attached *a = process_own_stack();
	uint32_t slots[PROC_MAX], n = 0, i;
	struct sock *k;

	NEED(a != NULL);
	stack_enter(a);
	NEED(a->s->procs == 1 && a->s->proc[a->slot].pid == (uint32_t)getpid());
	while ((i = process_slot_alloc(a->s, 1)) < PROC_MAX)
		slots[n++] = i;
	NEED(n == PROC_MAX - 1);
	k = sock_alloc(&a->e, SOCK_TCP, 4);
	k->holders = 1ull << slots[5] | 1ull << slots[6];
	process_slot_drop(a, slots[5], clock_us());
	NEED(k->proto == SOCK_TCP && k->holders == 1ull << slots[6]);
	process_slot_drop(a, slots[6], clock_us());
	NEED(k->proto == SOCK_FREE);
	NEED(process_slot_alloc(a->s, 1) == slots[5]);
	stack_leave(a);
}

static void a_socket_is_closed_with_its_last_holder(void **state)
{
	(void)state;
	test_in_child(table_of_processes);
}

static void publish(void)
{
	struct stack_fdinfo *info;
	enum reason reason;
	vsock_t v;

	NEED(vs_socket(AF_INET, SOCK_STREAM, 0, 0, &v, &reason) == 0);
	info = (struct stack_fdinfo *)(void *)((char *)own_stack->s + own_stack->s->off_fdinfo);
	vs_publish_fd(7, FD_ACCELERATED, v, REASON_NONE);
	NEED(info[7].kind == FD_ACCELERATED && info[7].sock == vs_index_of(v));
	vs_publish_fd(7, FD_KERNEL_SOCKET, VS_NONE, REASON_NO_DAEMON);
	NEED(info[7].kind == FD_KERNEL_SOCKET && info[7].reason == REASON_NO_DAEMON);
	vs_publish_fd(7, FD_OTHER, VS_NONE, REASON_NONE);
	NEED(info[7].kind == FD_OTHER);
	vs_publish_fd(1 << 30, FD_ACCELERATED, v, REASON_NONE);
	vs_publish_fd(-1, FD_ACCELERATED, v, REASON_NONE);
}

static void tools_see_what_descriptors_are(void **state)
{
	(void)state;
	test_in_child(publish);
}

static void accept_and_die(struct sk *l, int unused)
{
	(void)unused;
	NEED(sk_accepted(l).fd >= 0);
	_exit(0); /* without a word, as if killed */
}

#define SERVERS 6
#define OWN                                                                                                            \
	3 /* descriptors that a thread makes when it sleeps for the first time, soon or late: less than one a wire */

/* With the lock. */
static bool has_vnics(void)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (stack_vnic(own_stack->s, i)->provider != VNIC_PROV_NONE)
			return true;
	return false;
}

static bool vnics_left(void)
{
	bool left;

	stack_enter(own_stack);
	left = has_vnics();
	stack_leave(own_stack);
	return left;
}

/* The helper has let go of the wires, and of most descriptors. */
static void await_no_wires(int descriptors)
{
	for (int i = 0; i < 3000 && (vnics_left() || open_fds() > descriptors); i++)
		usleep(10000);
}

static void wires_come_and_go(void)
{
	uint16_t port[SERVERS];
	pid_t pid[SERVERS];
	int before;

	for (int i = 0; i < SERVERS; i++) /* first of all: each makes a stack of its own */
		pid[i] = test_serve(SOCK_STREAM, accept_and_die, 0, &port[i]);
	for (int i = 0; i < SERVERS; i++) {
		struct sk c = sk_connected(port[i]);
		char byte;

		NEED(sk_recv(&c, &byte, 1, 0) <= 0);
		sk_close(&c);
		waitpid(pid[i], NULL, 0);
		if (i == 0) {
			await_no_wires(INT_MAX);
			usleep(2500000); /* the first wire is gone; what stays is the helper's and the thread's own */
			before = open_fds();
		}
	}
	await_no_wires(before + OWN);
	NEED(open_fds() <= before + OWN);
	stack_enter(own_stack);
	NEED(own_stack->active == 0);
	NEED(!has_vnics());
	NEED(stack_audit(&own_stack->e) == 0);
	stack_leave(own_stack);
}

static void nothing_stays_of_wires_whose_other_end_died(void **state)
{
	(void)state;
	test_in_child(wires_come_and_go);
}

/* A process that does nothing until it is killed, with the table's entry for it. */
static pid_t sleeper(uint32_t *slot)
{
	pid_t pid = fork();

	if (!pid) {
		pause();
		_exit(0);
	}
	NEED(pid > 0);
	stack_enter(own_stack);
	*slot = process_slot_alloc(own_stack->s, (uint32_t)pid);
	stack_leave(own_stack);
	return pid;
}

/* As a relative does who hears of the death first. */
static void drop(uint32_t slot)
{
	stack_enter(own_stack);
	process_slot_drop(own_stack, slot, clock_us());
	stack_leave(own_stack);
}

static void end(pid_t pid)
{
	NEED(kill(pid, SIGKILL) == 0);
	NEED(waitpid(pid, NULL, 0) == pid);
}

static uint32_t who_has(uint32_t slot)
{
	uint32_t pid;

	stack_enter(own_stack);
	pid = own_stack->s->proc[slot].pid;
	stack_leave(own_stack);
	return pid;
}

/* `watched`: this process's helper knows of the new one already when it hears of the old one's death. */
static void entry_is_taken_anew(bool watched)
{
	uint32_t slot, again;
	pid_t old = sleeper(&slot), new;

	helper_watch_process(own_stack, slot);
	drop(slot);
	new = sleeper(&again);
	NEED(again == slot);
	if (watched)
		helper_watch_process(own_stack, slot);
	end(old);
	for (int i = 0; i < 100; i++) {
		usleep(1000);
		NEED(who_has(slot) == (uint32_t) new);
	}
	end(new);
	for (int i = 0; watched && who_has(slot); i++) {
		NEED(i < 10000);
		usleep(1000);
	}
	if (!watched)
		drop(slot);
}

static void deaths_that_are_heard_of_late(void)
{
	struct sk s = sk_make(AF_INET, SOCK_STREAM);

	NEED(s.v != VS_NONE);
	NEED(helper_start() == 0);
	entry_is_taken_anew(false);
	entry_is_taken_anew(true);
	sk_close(&s);
}

static void a_death_that_is_heard_of_late_costs_nobody_else_his_entry(void **state)
{
	(void)state;
	test_in_child(deaths_that_are_heard_of_late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_descriptors_the_kernel_serves_and_nothing_leaks),
	    cmocka_unit_test(sockets_run_out_and_old_names_are_stale),
	    cmocka_unit_test(what_is_not_ours_has_its_reason),
	    cmocka_unit_test(a_socket_is_closed_with_its_last_holder),
	    cmocka_unit_test(tools_see_what_descriptors_are),
	    cmocka_unit_test(nothing_stays_of_wires_whose_other_end_died),
	    cmocka_unit_test(a_death_that_is_heard_of_late_costs_nobody_else_his_entry),
	};

	return test_vsock_main(tests);
}
