/* SPDX-License-Identifier: BSD-2-Clause */
/* When kicks wait, and for what: the rules of socket/kick.h, with the kernel and the helper replaced. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/host.h"

/* The real ones come with the rest of the library, which these tests do not need; and time is what the test says. */
#define helper_alarm kick_test_alarm
#define net_wakes kick_test_wakes
#define xdp_kick_due kick_test_due
#define xsk_kick kick_test_kick
#define clock_counter() clock_now
#define clock_cycles_per_us() 1u

static uint64_t clock_now = 1000; /* microseconds */

#include "../../src/socket/kick.c"

#define VNICS 6u

static struct attached stack;
static struct vnic_state state_of[VNICS];
static bool due[VNICS], helper, network;
static uint32_t alarms, called[VNICS];

bool helper_alarm(void)
{
	alarms++;
	return helper;
}

uint32_t net_wakes(void)
{
	return network;
}

bool xdp_kick_due(const struct vnic *v)
{
	return due[v->st - state_of];
}

int xsk_kick(int fd, const struct xdp_port *port)
{
	(void)port;
	assert_int_equal(wait_lock_depth, 0); /* no system call under the lock */
	due[fd] = false;
	called[fd]++;
	return 0;
}

static int setup(void **state)
{
	static const struct vnic_ops ops;

	(void)state;
	kick_after_fork();
	for (uint32_t i = 0; i < VNICS; i++) {
		state_of[i].provider = VNIC_PROV_XDP;
		stack.e.vnic[i] = (struct vnic){.ops = &ops, .st = &state_of[i], .wake_fd = (int)i + 1};
		due[i] = false;
		called[i] = 0;
	}
	helper = network = true;
	alarms = 0;
	return 0;
}

static void post(uint32_t vnic)
{
	due[vnic] = true;
	kick_posted(&stack, vnic);
}

static void one_event_is_answered_at_once(void **state)
{
	(void)state;
	kick_expect(1);
	post(0);
	assert_int_equal(called[0], 1);
	post(0);
	assert_int_equal(called[0], 2);
	assert_int_equal(alarms, 0);
}

static void the_last_answer_of_a_batch_kicks_for_all(void **state)
{
	(void)state;
	kick_expect(3);
	post(0);
	post(0);
	assert_int_equal(called[0], 0);
	post(0);
	assert_int_equal(called[0], 1);
	post(0); /* more than were expected */
	assert_int_equal(called[0], 2);
}

static void fewer_answers_than_events_go_at_the_next_wait(void **state)
{
	(void)state;
	kick_expect(10);
	post(0);
	post(1);
	kick_end();
	assert_int_equal(called[0], 1);
	assert_int_equal(called[1], 1);
	post(0); /* the batch is over */
	assert_int_equal(called[0], 2);
}

static void what_is_held_on_another_vnic_goes_with_the_last(void **state)
{
	(void)state;
	kick_expect(2);
	post(0);
	post(1);
	assert_int_equal(called[0], 1);
	assert_int_equal(called[1], 1);
}

static void on_more_vnics_than_are_kept_in_mind_nothing_is_lost(void **state)
{
	(void)state;
	kick_expect(100);
	for (uint32_t i = 0; i < VNICS; i++)
		post(i);
	kick_end();
	for (uint32_t i = 0; i < VNICS; i++)
		assert_int_equal(called[i], 1);
}

static void another_threads_kick_sends_what_is_held(void **state)
{
	(void)state;
	kick_expect(10);
	post(0);
	due[0] = false;
	kick_end();
	assert_int_equal(called[0], 0);
}

static void nothing_is_held_that_nobody_would_look_for(void **state)
{
	(void)state;
	helper = false;
	kick_expect(10);
	post(0);
	assert_int_equal(called[0], 1);
}

static void a_close_sends_what_is_held_and_the_batch_goes_on(void **state)
{
	(void)state;
	kick_expect(10);
	post(0);
	kick_flush();
	assert_int_equal(called[0], 1);
	post(0);
	assert_int_equal(called[0], 1);
	kick_end();
	assert_int_equal(called[0], 2);
}

/* The first answer would wait for the work of the others. */
static void who_works_between_the_answers_does_not_hold_them(void **state)
{
	(void)state;
	kick_expect(10);
	post(0);
	clock_now += 3 * GAP_US;
	post(0);
	assert_int_equal(called[0], 1);
	clock_now += 3 * GAP_US;
	post(0);
	assert_int_equal(called[0], 2);
	kick_end();
	kick_expect(10);
	post(0); /* it is remembered */
	assert_int_equal(called[0], 3);
}

static void the_first_of_many_quick_answers_does_not_wait_for_the_last(void **state)
{
	(void)state;
	kick_expect(1000);
	for (uint32_t i = 0; i < 4 * HOLD_US; i++, clock_now++)
		post(0);
	assert_int_equal(called[0], 3);
}

static void a_process_without_a_network_keeps_no_account(void **state)
{
	(void)state;
	network = false;
	kick_expect(10);
	assert_int_equal(kicks.expected, 0);
}

static void what_lies_in_the_rings_of_a_stack_is_kicked_without_its_lock(void **state)
{
	struct attached *a = process_own_stack();

	(void)state;
	assert_non_null(a);
	a->e.vnic[2] = stack.e.vnic[2];
	a->vnic[0] = 2;
	a->active = 1;
	assert_false(kick_stack(a));
	assert_int_equal(called[2], 0);
	due[2] = true;
	assert_false(kick_stack(a));
	assert_int_equal(called[2], 1);
	due[2] = true;
	kick_expect(10);
	kick_all(); /* fork, exec, exit: whoever posted it */
	assert_int_equal(called[2], 2);
	assert_int_equal(kicks.expected, 0);
	a->active = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(one_event_is_answered_at_once, setup),
	    cmocka_unit_test_setup(the_last_answer_of_a_batch_kicks_for_all, setup),
	    cmocka_unit_test_setup(fewer_answers_than_events_go_at_the_next_wait, setup),
	    cmocka_unit_test_setup(what_is_held_on_another_vnic_goes_with_the_last, setup),
	    cmocka_unit_test_setup(on_more_vnics_than_are_kept_in_mind_nothing_is_lost, setup),
	    cmocka_unit_test_setup(another_threads_kick_sends_what_is_held, setup),
	    cmocka_unit_test_setup(nothing_is_held_that_nobody_would_look_for, setup),
	    cmocka_unit_test_setup(a_close_sends_what_is_held_and_the_batch_goes_on, setup),
	    cmocka_unit_test_setup(who_works_between_the_answers_does_not_hold_them, setup),
	    cmocka_unit_test_setup(the_first_of_many_quick_answers_does_not_wait_for_the_last, setup),
	    cmocka_unit_test_setup(what_lies_in_the_rings_of_a_stack_is_kicked_without_its_lock, setup),
	    cmocka_unit_test_setup(a_process_without_a_network_keeps_no_account, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
