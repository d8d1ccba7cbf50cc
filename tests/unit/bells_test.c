/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bells: who is woken when one process of a tree has news for another. Bells are eventfds that nobody reads: how often
 * each was rung, /proc says.
 */
#include <pthread.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "lib/test_vsock.h"
#include "socket/bells.h"
#include "socket/handover.h"
#include "socket/helper.h"

/* --- whom a process that leaves the stack rings --- */

static unsigned long long rings(int fd)
{
	unsigned long long n = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	NEED(f != NULL);
	while (fgets(line, sizeof(line), f) && sscanf(line, "eventfd-count: %llx", &n) != 1)
		;
	fclose(f);
	return n;
}

/* A relative in the process table that is not there in truth. */
static uint32_t relative(struct stack *s, bool bell, bool sleeps)
{
	uint32_t slot = process_slot_alloc(s, 1);

	NEED(slot < PROC_MAX);
	s->proc[slot].has_bell = bell;
	s->proc[slot].sleepers = sleeps;
	s->proc[slot].naps = 1; /* so long ago that it has been forgotten */
	return slot;
}

/* Somebody takes in something for all who hold k. */
static void notify(struct attached *a, struct sock *k)
{
	stack_enter(a);
	sock_notify(&a->e, k, EV_IN);
	stack_leave(a);
}

static void who_is_rung(void)
{
	struct attached *a = process_own_stack();
	uint32_t asleep, awake, deaf;
	unsigned long long doorbell;
	struct sock *k;

	NEED(a != NULL);
	bells_make(a);
	NEED(a->has_bells);
	stack_enter(a);
	asleep = relative(a->s, true, true);
	awake = relative(a->s, true, false);
	deaf = relative(a->s, false, false);
	k = sock_alloc(&a->e, SOCK_UDP, 4);
	k->holders = 1ull << asleep | 1ull << awake | 1ull << deaf;
	stack_leave(a);
	doorbell = rings(a->doorbell[0]);

	notify(a, k);
	NEED(rings(a->bell[asleep]) == 1);
	NEED(rings(a->bell[awake]) == 0 && rings(a->bell[deaf]) == 0 && rings(a->bell[a->slot]) == 0);
	for (int i = 0; i < 3; i++) /* it is on its way */
		notify(a, k);
	NEED(rings(a->bell[asleep]) == 1);

	stack_enter(a);
	a->s->proc[asleep].naps++; /* it looked, left the news, and sleeps again */
	stack_leave(a);
	NEED(rings(a->bell[asleep]) == 2);
	NEED(rings(a->doorbell[0]) == doorbell);

	stack_enter(a);
	a->s->proc[deaf].sleepers = 1;
	a->s->proc[deaf].naps++;
	stack_leave(a);
	NEED(rings(a->doorbell[0]) == doorbell + 1);
	NEED(rings(a->bell[asleep]) == 2 && rings(a->bell[deaf]) == 0);
	notify(a, k); /* the doorbell may have woken somebody else */
	NEED(rings(a->doorbell[0]) == doorbell + 2);
}

static void a_sleeper_with_news_is_rung_once_per_sleep_and_nobody_else(void **state)
{
	(void)state;
	test_in_child(who_is_rung);
}

static void a_bell_for_two(void)
{
	struct attached *a = process_own_stack();
	uint32_t slot = 0;
	struct sock *k;

	NEED(a != NULL);
	bells_make(a);
	stack_enter(a);
	while (slot < BELLS + 3)
		slot = relative(a->s, true, true);
	k = sock_alloc(&a->e, SOCK_UDP, 4);
	k->holders = 1ull << slot;
	stack_leave(a);
	notify(a, k);
	for (uint32_t i = 0; i < BELLS; i++)
		NEED(rings(a->bell[i]) == (i == 3));
}

static void processes_beyond_the_number_of_bells_share_them(void **state)
{
	(void)state;
	test_in_child(a_bell_for_two);
}

/* What another program in this process finds of it. */
static void become_another_image(struct attached *a, const struct sk *s)
{
	int memfd;
	struct handover *h = handover_new(HEIR_IMAGE, &memfd);

	NEED(h != NULL && handover_add(h, s->v, s->fd, true) == 0);
	h->stack[0].memfd = h->stack[0].doorbell[0] = h->stack[0].doorbell[1] = h->sock[0].rdv_fd =
	    -1; /* we have them */
	NEED(handover_adopt(h) == 0);
	handover_free(h, memfd);
	NEED(h != NULL && !a->s->proc[a->slot].has_bell);
}

static void bells_of_nobody(void)
{
	uint16_t port;
	struct sk s = sk_bound(SOCK_DGRAM, &port);
	struct attached *a = process_stack(0);
	uint32_t slot;

	bells_make(a);
	NEED(bells_of(a, a->slot) == a->bell[a->slot]);
	stack_enter(a);
	slot = relative(a->s, true, false);
	NEED(bells_of(a, slot) == a->bell[slot]);
	process_slot_drop(a, slot, clock_us());
	NEED(process_slot_alloc(a->s, 1) == slot);
	NEED(bells_of(a, slot) == a->doorbell[0]);
	stack_leave(a);
	become_another_image(a, &s);
}

static void who_has_not_inherited_the_bells_is_rung_by_the_doorbell(void **state)
{
	(void)state;
	test_in_child(bells_of_nobody);
}

/* --- processes that sleep --- */

#define SLEEPERS 3

/* What the processes of a test know of each other. */
struct board {
	_Atomic uint32_t told[SLEEPERS]; /* how often */
	_Atomic uint32_t slot[SLEEPERS]; /* plus 1 */
};
static struct board *board;
static struct sk sock_of[SLEEPERS];

static void begin(void)
{
	uint16_t port;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(board != MAP_FAILED);
	knob[K_SPIN_US] = 0;
	for (int i = 0; i < SLEEPERS; i++)
		sock_of[i] = sk_bound(SOCK_DGRAM, &port);
}

struct waiting_for {
	int who;
	uint32_t count;
};

static bool was_told(void *arg)
{
	const struct waiting_for *x = arg;

	return atomic_load(&board->told[x->who]) >= x->count;
}

/* Sleep until number `who` has been told so often; nothing but news of its socket wakes it. */
static void await(int who, uint32_t count)
{
	struct waiting_for x = {who, count};
	struct wait w = {
	    .ready = was_told, .arg = &x, .timeout_us = -1, .kernel_fd = -1, .restart = true, .sock = sock_of[who].v};

	NEED(wait_for(&w) == 0);
}

static void tell(int who)
{
	struct attached *a;
	struct sock *k = vs_enter(sock_of[who].v, &a);

	NEED(k != NULL);
	atomic_fetch_add(&board->told[who], 1);
	sock_notify(&a->e, k, EV_IN);
	stack_leave(a);
}

/* How often its threads went to sleep; 0: it does not sleep now. */
static uint32_t nap_of(int who)
{
	struct attached *a = process_stack(0);
	uint32_t slot = atomic_load(&board->slot[who]), n = 0;

	stack_enter(a);
	if (slot && a->s->proc[slot - 1].sleepers)
		n = a->s->proc[slot - 1].naps;
	stack_leave(a);
	return n;
}

/* The nap in which it is, another one than `last`. */
static uint32_t until_asleep(int who, uint32_t last)
{
	uint32_t n;

	while (n = nap_of(who), !n || n == last)
		usleep(500);
	return n;
}

static void i_am(int who)
{
	atomic_store(&board->slot[who], process_stack(0)->slot + 1);
}

/* A child that holds the socket of number `who`, and is it. */
static pid_t relative_process(int who, void (*fn)(void))
{
	pid_t pid = test_vs_fork(&sock_of[who].v, 1);

	if (pid)
		return pid;
	alarm(60);
	i_am(who);
	fn();
	_exit(0);
}

#define TIMES 30

static void sleeps_often(void)
{
	for (uint32_t i = 1; i <= TIMES; i++)
		await(1, i);
}

static void sleeps_once(void)
{
	await(2, 1);
}

static void one_of_two_is_told(void)
{
	uint32_t nap = 0, other;
	pid_t pid[2];

	begin();
	pid[0] = relative_process(1, sleeps_often);
	pid[1] = relative_process(2, sleeps_once);
	other = until_asleep(2, 0);
	for (int i = 0; i < TIMES; i++) {
		nap = until_asleep(1, nap);
		tell(1);
	}
	test_ended_well(pid[0]);
	NEED(nap_of(2) == other);
	tell(2);
	test_ended_well(pid[1]);
}

static void news_for_one_child_wake_no_other(void **state)
{
	(void)state;
	test_in_child(one_of_two_is_told);
}

/* --- all reach each other, whoever was there first --- */

static void *sleeps_before_there_are_bells(void *arg)
{
	(void)arg;
	await(0, 1);
	return NULL;
}

static uint32_t nap_before;

static void older(void)
{
	await(1, 1);
	until_asleep(0, nap_before);
	tell(0);
}

static void younger(void)
{
	until_asleep(1, 0);
	tell(1);
	await(2, 1);
}

static void told_round(void)
{
	pid_t pid[2];
	pthread_t t;

	begin();
	i_am(0);
	NEED(pthread_create(&t, NULL, sleeps_before_there_are_bells, NULL) == 0);
	nap_before = until_asleep(0, 0);
	pid[0] = relative_process(1, older);
	pid[1] = relative_process(2, younger);
	pthread_join(t, NULL);
	until_asleep(2, 0);
	tell(2);
	test_ended_well(pid[0]);
	test_ended_well(pid[1]);
}

static void the_older_is_told_by_the_younger_and_who_slept_before_by_either(void **state)
{
	(void)state;
	test_in_child(told_round);
}

/* --- the doorbell --- */

/* Asleep for good, not only about to be: the kernel says so. */
static void until_in_kernel(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	for (long call = -1; call != SYS_epoll_pwait; usleep(500)) {
		FILE *f = fopen(path, "r");

		NEED(f != NULL);
		if (fscanf(f, "%ld", &call) != 1)
			call = -1;
		fclose(f);
	}
}

static pid_t relative_asleep(int who, void (*fn)(void))
{
	pid_t pid = relative_process(who, fn);

	until_asleep(who, 0);
	until_in_kernel(pid);
	return pid;
}

static void ends_when_told(void)
{
	await(1, 1);
}

static void ends_when_told_too(void)
{
	await(2, 1);
}

/* Two children that sleep, and no wires. */
static void two_asleep(pid_t pid[2])
{
	begin();
	pid[0] = relative_asleep(1, ends_when_told);
	pid[1] = relative_asleep(2, ends_when_told_too);
}

static void until_both_in_kernel(const pid_t pid[2])
{
	for (int i = 0; i < 2; i++)
		until_in_kernel(pid[i]);
}

static void both_end(const pid_t pid[2])
{
	for (int i = 0; i < 2; i++) {
		tell(i + 1);
		test_ended_well(pid[i]);
	}
}

static void doorbell_wakes_one(void)
{
	uint32_t nap[2], woken = 0;
	pid_t pid[2];

	two_asleep(pid);
	for (int i = 0; i < 2; i++)
		nap[i] = nap_of(i + 1);
	for (int times = 1; times <= TIMES; times++) {
		bells_ring_fd(process_stack(0)->doorbell[0]);
		while (woken < (uint32_t)times) {
			woken = 0;
			for (int i = 0; i < 2; i++)
				woken += until_asleep(i + 1, 0) - nap[i];
		}
		NEED(woken == (uint32_t)times);
		until_both_in_kernel(pid);
	}
	both_end(pid);
}

static void the_doorbell_wakes_one_of_those_who_hear_a_bell(void **state)
{
	(void)state;
	test_in_child(doorbell_wakes_one);
}

/* Somebody has made a wire, which the children know nothing of. */
static void make_a_wire_up(void)
{
	struct attached *a = process_stack(0);

	stack_enter(a);
	NEED(a->s->vnic_high == 0);
	stack_vnic(a->s, 0)->provider = VNIC_PROV_LOCAL;
	a->s->vnic_high = 1;
	stack_leave(a);
}

static void doorbell_wakes_the_blind(void)
{
	uint32_t nap[2];
	pid_t pid[2];

	two_asleep(pid);
	make_a_wire_up();
	for (int times = 0; times < 3; times++) {
		for (int i = 0; i < 2; i++)
			nap[i] = until_asleep(i + 1, 0);
		bells_ring_fd(process_stack(0)->doorbell[0]);
		for (int i = 0; i < 2; i++)
			until_asleep(i + 1, nap[i]);
		until_both_in_kernel(pid);
	}
	both_end(pid);
}

static void the_doorbell_wakes_all_where_a_wire_is_not_mapped_by_all(void **state)
{
	(void)state;
	test_in_child(doorbell_wakes_the_blind);
}

/* As the last processes of a tree do when the table is full. */
static void sleeps_without_an_entry(void)
{
	struct attached *a = process_stack(0);

	stack_enter(a);
	a->s->proc[a->slot].pid = (uint32_t)getppid();
	stack_leave(a);
	await(2, 1);
}

static void doorbell_wakes_who_has_no_entry(void)
{
	uint32_t nap = 0;
	pid_t pid[2];

	begin();
	pid[0] = relative_asleep(1, ends_when_told);
	pid[1] = relative_asleep(2, sleeps_without_an_entry);
	for (int i = 0; i < 3; i++) {
		until_in_kernel(pid[1]);
		nap = until_asleep(2, nap);
		bells_ring_fd(process_stack(0)->doorbell[0]);
	}
	until_asleep(2, nap);
	both_end(pid);
}

static void the_doorbell_wakes_all_who_have_no_entry_of_their_own(void **state)
{
	(void)state;
	test_in_child(doorbell_wakes_who_has_no_entry);
}

/* The first child is woken by what comes for the second. It waits for something else, and who waits so takes in by
 * itself only what it wants: nothing here. */
static void takes_in_nothing(void)
{
	struct waiting_for x = {1, 1};
	struct wait w = {
	    .ready = was_told, .arg = &x, .timeout_us = -1, .kernel_fd = -1, .restart = true, .takes_in = true};

	w.sock = sock_of[1].v;
	NEED(wait_for(&w) == 0);
}

static void reads_a_byte(void)
{
	char byte;

	NEED(sk_recv(&sock_of[2], &byte, 1, 0) == 1);
}

static void passes_on(struct sk *l, int unused)
{
	pid_t pid[2];

	(void)unused;
	begin();
	sk_close(&sock_of[2]);
	sock_of[2] = sk_accepted(l);
	NEED(sock_of[2].v != VS_NONE);
	pid[0] = relative_asleep(1, takes_in_nothing);
	pid[1] = relative_asleep(2, reads_a_byte);
	helper_pause(); /* it would take in what is left lying */
	NEED(sk_send(&sock_of[2], "!", 1) == 1);
	test_ended_well(pid[1]);
	helper_resume();
	tell(1);
	test_ended_well(pid[0]);
}

/* As a process that is stopped just when the doorbell has woken it, and no other. */
static void is_woken_and_does_nothing(void)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | EPOLLEXCLUSIVE};
	int fd = host_sys.epoll_create1(EPOLL_CLOEXEC);

	NEED(fd >= 0 && host_sys.epoll_ctl(fd, EPOLL_CTL_ADD, process_stack(0)->doorbell[0], &ev) == 0);
	NEED(host_sys.epoll_pwait(fd, &ev, 1, 0, NULL) >= 0); /* what was rung before */
	NEED(host_sys.epoll_pwait(fd, &ev, 1, -1, NULL) == 1);
	atomic_store(&board->told[1], 1);
	pause();
}

static void loses_one_ring(struct sk *l, int unused)
{
	pid_t pid[2];

	(void)unused;
	begin();
	sk_close(&sock_of[2]);
	sock_of[2] = sk_accepted(l);
	NEED(sock_of[2].v != VS_NONE);
	pid[0] = relative_process(1, is_woken_and_does_nothing);
	until_in_kernel(pid[0]);
	pid[1] = relative_asleep(2, reads_a_byte);
	helper_pause();
	NEED(sk_send(&sock_of[2], "!", 1) == 1);
	test_ended_well(pid[1]);
	helper_resume();
	NEED(atomic_load(&board->told[1]));
	NEED(kill(pid[0], SIGKILL) == 0 && waitpid(pid[0], NULL, 0) == pid[0]);
}

/* One that sends back the first byte. */
static void with_an_echo(void (*serve)(struct sk *l, int unused))
{
	uint16_t port;
	pid_t server = test_serve(SOCK_STREAM, serve, 0, &port), client = fork();

	if (!client) {
		struct sk s;
		char byte;

		alarm(60);
		s = sk_connected(port);
		NEED(sk_recv(&s, &byte, 1, 0) == 1);
		NEED(sk_send(&s, &byte, 1) == 1);
		NEED(sk_recv(&s, &byte, 1, 0) <= 0); /* the server has ended, one way or another */
		_exit(0);
	}
	test_ended_well(server);
	test_ended_well(client);
}

static void who_is_woken_takes_in_what_is_for_others(void **state)
{
	(void)state;
	with_an_echo(passes_on);
}

static void one_that_is_stopped_when_it_was_woken_holds_up_nobody(void **state)
{
	(void)state;
	with_an_echo(loses_one_ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_sleeper_with_news_is_rung_once_per_sleep_and_nobody_else),
	    cmocka_unit_test(processes_beyond_the_number_of_bells_share_them),
	    cmocka_unit_test(news_for_one_child_wake_no_other),
	    cmocka_unit_test(the_doorbell_wakes_one_of_those_who_hear_a_bell),
	    cmocka_unit_test(the_doorbell_wakes_all_where_a_wire_is_not_mapped_by_all),
	    cmocka_unit_test(the_doorbell_wakes_all_who_have_no_entry_of_their_own),
	    cmocka_unit_test(who_is_woken_takes_in_what_is_for_others),
	    cmocka_unit_test(one_that_is_stopped_when_it_was_woken_holds_up_nobody),
	    cmocka_unit_test(who_has_not_inherited_the_bells_is_rung_by_the_doorbell),
	    cmocka_unit_test(the_older_is_told_by_the_younger_and_who_slept_before_by_either),
	};

	return test_vsock_main(tests);
}
