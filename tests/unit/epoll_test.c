/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll sets without a stack: sockets are entries of a table of levels, and news is what the test says. The kernel's
 * half is real: pipes and kernel epoll descriptors.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* The sets' own files, against the doubles below. */
#include "../../src/socket/epoll_items.c"
#include "../../src/socket/epoll.c"
#include "../../src/socket/epoll_wait.c"

#define SOCKS 256

static uint32_t levels[SOCKS];
static int half[SOCKS]; /* 1: the socket has a kernel half */
static int woken;
static bool alone = true; /* no other thread may hold a lock now */
static void (*while_waiting)(void);

void (*wait_on_news)(vsock_t v, uint32_t edges);
_Thread_local volatile uint32_t wait_signals[2];
_Thread_local volatile uint32_t wait_lock_depth;
_Thread_local volatile bool wait_signal_pending;
_Thread_local bool wait_half_refused;
void (*wait_signals_deferred)(void);

static vsock_t name(uint32_t index)
{
	return (vsock_t)index << 32 | 1;
}

uint32_t vs_poll(vsock_t v)
{
	if (alone)
		assert_int_equal(items_word, 0); /* nothing is called under the lists' lock */
	return levels[vs_index_of(v)];
}

bool vs_has_kernel_half(vsock_t v)
{
	return half[vs_index_of(v)];
}

void vs_listener_interest(vsock_t v, int fd)
{
	(void)v;
	(void)fd;
}

bool wait_poll_stacks(void)
{
	return false;
}

void wait_wake_all(void)
{
	woken++;
}

uint64_t wait_kernel_id(void)
{
	static uint64_t last;

	return ++last;
}

void wait_kernel_closing(void)
{
}

_Thread_local struct kicks kicks;

void kick_expect_many(uint32_t n)
{
	kicks.expected = n;
}

void kick_held(void)
{
	kicks.expected = 0;
}

/* One look, what the test wants to happen meanwhile, another look. */
int wait_for_masked(struct wait *w)
{
	struct pollfd p = {.fd = w->kernel_fd, .events = POLLIN};

	w->kernel_ready = false;
	if (w->ready(w->arg))
		return 0;
	if (while_waiting)
		while_waiting();
	w->kernel_ready = w->kernel_fd >= 0 && poll(&p, 1, 0) > 0;
	return w->ready(w->arg) || w->kernel_ready ? 0 : -ETIMEDOUT;
}

static struct epset *set;
static int epfd;

static int setup(void **state)
{
	char err[128];

	(void)state;
	if (knobs_load((char *[]){NULL}, err, sizeof err) < 0)
		return -1;
	clock_init();
	memset(levels, 0, sizeof levels);
	memset(half, 0, sizeof half);
	while_waiting = NULL;
	woken = 0;
	epfd = epoll_create1(EPOLL_CLOEXEC);
	set = ep_new(epfd);
	return set ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(wait_lock_depth, 0);
	ep_free(set);
	close(epfd);
	return 0;
}

static int ctl(int op, int fd, uint32_t index, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = index};

	return ep_ctl(set, op, fd, name(index), NULL, &ev);
}

static void news(uint32_t index, uint32_t edges, uint32_t level)
{
	levels[index] = level;
	wait_on_news(name(index), edges);
}

static void errors_are_those_of_the_kernel(void **state)
{
	struct epoll_event ev = {.events = EPOLLIN};

	(void)state;
	assert_int_equal(ctl(EPOLL_CTL_MOD, 500, 1, EPOLLIN), -ENOENT);
	assert_int_equal(ctl(EPOLL_CTL_DEL, 500, 1, 0), -ENOENT);
	assert_int_equal(ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN), 0);
	assert_int_equal(ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN), -EEXIST);
	assert_int_equal(ctl(99, 500, 1, EPOLLIN), -EINVAL);
	assert_int_equal(ep_ctl(set, EPOLL_CTL_MOD, 500, name(1), NULL, NULL), -EFAULT);
	assert_int_equal(ctl(EPOLL_CTL_MOD, 500, 1, EPOLLIN | EPOLLEXCLUSIVE), -EINVAL);
	assert_int_equal(ctl(EPOLL_CTL_ADD, 501, 2, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT), -EINVAL);
	assert_int_equal(ep_wait(set, &ev, 0, 0, NULL), -EINVAL);
	assert_int_equal(ep_ctl(set, EPOLL_CTL_ADD, 9999, VS_NONE, NULL, &ev), -EBADF);
}

static void a_duplicate_is_a_member_of_its_own(void **state)
{
	struct epoll_event ev[4];

	(void)state;
	assert_int_equal(ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN), 0);
	assert_int_equal(ctl(EPOLL_CTL_ADD, 501, 1, EPOLLIN), 0);
	news(1, EV_IN, EV_IN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 2);
}

static void level_stays_until_it_is_gone(void **state)
{
	struct epoll_event ev[4];

	(void)state;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	news(1, EV_IN, EV_IN | EV_OUT);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
		assert_int_equal(ev[0].events, EPOLLIN);
		assert_int_equal(ev[0].data.u64, 1);
	}
	levels[1] = EV_OUT;
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	assert_int_equal(set->ready_n, 0);
}

static void an_edge_is_reported_once(void **state)
{
	struct epoll_event ev[4];

	(void)state;
	levels[1] = EV_IN;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN | EPOLLET); /* ready when added: an edge */
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	news(1, EV_OUT, EV_IN | EV_OUT); /* not asked for */
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	news(1, EV_IN, EV_IN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	news(1, EV_IN, 0); /* gone again before anybody looked */
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
}

static void a_one_shot_is_off_until_changed(void **state)
{
	struct epoll_event ev[4];

	(void)state;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN | EPOLLONESHOT);
	news(1, EV_IN, 0);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0); /* not ready: still on */
	news(1, EV_IN, EV_IN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	news(1, EV_IN, EV_IN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	ctl(EPOLL_CTL_MOD, 500, 1, EPOLLIN | EPOLLONESHOT);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
}

static void hang_up_and_error_come_unasked(void **state)
{
	struct epoll_event ev;

	(void)state;
	ctl(EPOLL_CTL_ADD, 500, 1, 0);
	news(1, EV_HUP, EV_HUP | EV_ERR | EV_IN);
	assert_int_equal(ep_wait(set, &ev, 1, 0, NULL), 1);
	assert_int_equal(ev.events, EPOLLHUP | EPOLLERR);
}

static void few_at_a_time_reach_everybody(void **state)
{
	struct epoll_event ev[2];
	int seen[SOCKS] = {0};

	(void)state;
	for (uint32_t i = 1; i <= 100; i++) {
		ctl(EPOLL_CTL_ADD, 500 + (int)i, i, EPOLLIN);
		news(i, EV_IN, EV_IN);
	}
	for (int round = 0; round < 50; round++) {
		assert_int_equal(ep_wait(set, ev, 2, 0, NULL), 2);
		seen[ev[0].data.u64]++;
		seen[ev[1].data.u64]++;
	}
	for (int i = 1; i <= 100; i++)
		assert_int_equal(seen[i], 1);
}

static void no_event_twice_in_one_wait(void **state)
{
	struct epoll_event ev[200];

	(void)state;
	for (uint32_t i = 1; i <= 100; i++) {
		ctl(EPOLL_CTL_ADD, 500 + (int)i, i, EPOLLIN);
		news(i, EV_IN, EV_IN);
	}
	assert_int_equal(ep_wait(set, ev, 200, 0, NULL), 100);
}

static void closing_takes_members_out(void **state)
{
	struct epoll_event ev[4];

	(void)state;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN);
	ctl(EPOLL_CTL_ADD, 501, 2, EPOLLIN);
	news(1, EV_IN, EV_IN);
	news(2, EV_IN, EV_IN);
	ep_forget(name(1));
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	assert_int_equal(ev[0].data.u64, 2);
	news(1, EV_IN, EV_IN); /* late news of a socket that nobody knows any more */
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	assert_int_equal(ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN), 0);
}

static void a_socket_number_used_again_is_another_socket(void **state)
{
	struct epoll_event ev = {.events = EPOLLIN};
	vsock_t old = name(1), again = old + 1;

	(void)state;
	ep_ctl(set, EPOLL_CTL_ADD, 500, old, NULL, &ev);
	levels[1] = EV_IN;
	wait_on_news(again, EV_IN);
	assert_int_equal(ep_wait(set, &ev, 1, 0, NULL), 0);
	wait_on_news(old, EV_IN);
	assert_int_equal(ep_wait(set, &ev, 1, 0, NULL), 1);
}

static void kernel_members_are_reported_beside(void **state)
{
	struct epoll_event ev[4] = {{.events = EPOLLIN, .data.u64 = 77}};
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(ep_ctl(set, EPOLL_CTL_ADD, p[0], VS_NONE, NULL, ev), 0);
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 1);
	assert_int_equal(ev[0].data.u64, 77);
	/* Accelerated members that are always ready do not starve them. */
	news(1, EV_IN, EV_IN);
	knob[K_POLL_KERNEL_US] = 0;
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 2);
	close(p[0]);
	close(p[1]);
}

static void a_kernel_half_makes_its_member_ready(void **state)
{
	struct epoll_event ev[4];
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	half[3] = 1;
	assert_int_equal(ctl(EPOLL_CTL_ADD, p[0], 3, EPOLLIN), 0);
	assert_int_equal(ep_wait(set, ev, 4, 0, NULL), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(ep_wait(set, ev, 4, 1000, NULL), 1);
	assert_int_equal(ev[0].events, EPOLLIN);
	assert_int_equal(ev[0].data.u64, 3);
	assert_int_equal(ctl(EPOLL_CTL_DEL, p[0], 3, 0), 0);
	assert_int_equal(set->halves_n, 0);
	close(p[0]);
	close(p[1]);
}

static void a_half_that_comes_later_is_watched(void **state)
{
	struct epoll_event ev;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	ctl(EPOLL_CTL_ADD, p[0], 3, EPOLLIN);
	half[3] = 1; /* listen() */
	ep_refresh(name(3));
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(ep_wait(set, &ev, 1, 1000, NULL), 1);
	ep_forget(name(3));
	close(p[0]);
	close(p[1]);
}

static void falling_back_moves_the_member_to_the_kernel(void **state)
{
	struct epoll_event ev;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	ctl(EPOLL_CTL_ADD, p[0], 4, EPOLLIN);
	ep_to_kernel(name(4));
	assert_false(ep_has_accelerated(set));
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(ep_wait(set, &ev, 1, 1000, NULL), 1);
	assert_int_equal(ev.data.u64, 4);
	close(p[0]);
	close(p[1]);
}

static void news_ends_a_wait(void)
{
	news(1, EV_IN, EV_IN);
}

static void a_wait_sees_news_that_comes_meanwhile(void **state)
{
	struct epoll_event ev;

	(void)state;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN);
	assert_int_equal(ep_wait(set, &ev, 1, 1000, NULL), 0);
	while_waiting = news_ends_a_wait;
	assert_int_equal(ep_wait(set, &ev, 1, 1000, NULL), 1);
}

static void a_set_in_a_set_is_ready_with_its_members(void **state)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 5};
	int outer_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epset *outer = ep_new(outer_fd);

	(void)state;
	assert_int_equal(ep_ctl(outer, EPOLL_CTL_ADD, epfd, VS_NONE, set, &ev), 0);
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN | EPOLLET);
	assert_int_equal(ep_wait(outer, &ev, 1, 0, NULL), 0);
	news(1, EV_IN, EV_IN);
	assert_true(ep_readable(set));
	assert_int_equal(ep_wait(outer, &ev, 1, 0, NULL), 1);
	assert_int_equal(ev.data.u64, 5);
	assert_int_equal(ep_wait(set, &ev, 1, 0, NULL), 1); /* asking did not use the edge up */
	assert_int_equal(ep_wait(outer, &ev, 1, 0, NULL), 0);
	ep_free(outer);
	close(outer_fd);
	assert_null(set->outers);
}

static void a_forked_child_makes_its_own_kernel_descriptors(void **state)
{
	struct epoll_event ev;
	int p[2], before;

	(void)state;
	assert_int_equal(pipe(p), 0);
	half[3] = 1;
	ctl(EPOLL_CTL_ADD, p[0], 3, EPOLLIN);
	before = set->halves;
	assert_true(before >= 0);
	ep_fork_prepare();
	ep_fork_child(); /* the rest of this process plays the child */
	assert_int_equal(set->halves, -1);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(ep_wait(set, &ev, 1, 1000, NULL), 1);
	assert_int_equal(set->halves_n, 1);
	ep_forget(name(3));
	close(p[0]);
	close(p[1]);
}

/* Two threads wait, one-shot: each event is handed out once. */
static _Atomic int handed_out, all_shot;

static void *taker(void *arg)
{
	struct epoll_event ev;

	(void)arg;
	while (!all_shot)
		if (ep_wait(set, &ev, 1, 0, NULL) == 1)
			atomic_fetch_add(&handed_out, 1);
	return NULL;
}

static void a_one_shot_is_handed_out_once_among_threads(void **state)
{
	pthread_t t[2];

	(void)state;
	handed_out = all_shot = 0;
	alone = false;
	ctl(EPOLL_CTL_ADD, 500, 1, EPOLLIN | EPOLLONESHOT);
	levels[1] = EV_IN;
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, taker, NULL);
	for (int shot = 1; shot <= 200; shot++) {
		ctl(EPOLL_CTL_MOD, 500, 1, EPOLLIN | EPOLLONESHOT);
		for (int k = 0; k < 20; k++)
			wait_on_news(name(1), EV_IN);
		for (int k = 0; k < 1000000 && handed_out < shot; k++)
			sched_yield();
		assert_int_equal(handed_out, shot);
	}
	all_shot = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(handed_out, 200);
	alone = true;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(errors_are_those_of_the_kernel),
	    T(a_duplicate_is_a_member_of_its_own),
	    T(level_stays_until_it_is_gone),
	    T(an_edge_is_reported_once),
	    T(a_one_shot_is_off_until_changed),
	    T(hang_up_and_error_come_unasked),
	    T(few_at_a_time_reach_everybody),
	    T(no_event_twice_in_one_wait),
	    T(closing_takes_members_out),
	    T(a_socket_number_used_again_is_another_socket),
	    T(kernel_members_are_reported_beside),
	    T(a_kernel_half_makes_its_member_ready),
	    T(a_half_that_comes_later_is_watched),
	    T(falling_back_moves_the_member_to_the_kernel),
	    T(a_wait_sees_news_that_comes_meanwhile),
	    T(a_set_in_a_set_is_ready_with_its_members),
	    T(a_forked_child_makes_its_own_kernel_descriptors),
	    T(a_one_shot_is_handed_out_once_among_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
