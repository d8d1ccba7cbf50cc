/* SPDX-License-Identifier: BSD-2-Clause */
/* The clock: it agrees with CLOCK_MONOTONIC and never goes backwards, whoever recalibrates it meanwhile. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "host/clock.c" /* the file itself: a change is made by hand below */

static int64_t monotonic_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* How far off the clock is: bracketed by two readings, so being scheduled out in between does not count. */
static int64_t error_us(void)
{
	int64_t before = monotonic_us();
	int64_t us = (int64_t)clock_us();
	int64_t after = monotonic_us();
	if (us < before)
		return us - before;
	return us > after ? us - after : 0;
}

static void it_works_before_it_is_initialised(void **state)
{
	(void)state;
	assert_int_equal(error_us(), 0);
	clock_recalibrate();
	assert_int_equal(error_us(), 0);
}

static void it_follows_clock_monotonic(void **state)
{
	(void)state;
	clock_init();
	for (int i = 0; i < 40; i++) {
		assert_in_range(error_us() + 50, 0, 100);
		usleep(i < 20 ? 11000 : 3000);
		clock_recalibrate();
	}
}

/* The counter, and the time at which it was read: again, should we have been scheduled out in between. */
static uint64_t cycles_at(int64_t *us)
{
	uint64_t cycles;
	int64_t before;
	do {
		before = monotonic_us();
		cycles = clock_cycles();
		*us = monotonic_us();
	} while (*us - before > 100);
	return cycles;
}

static void cycles_have_the_rate_they_say(void **state)
{
	(void)state;
	uint64_t cycles, a;
	int64_t a_us, us;
	a = cycles_at(&a_us);
	usleep(50000);
	cycles = cycles_at(&us) - a;
	us -= a_us;
	int64_t measured = (int64_t)(cycles / clock_cycles_per_us());
	assert_in_range(measured, us * 97 / 100, us * 103 / 100);
}

static _Atomic bool stop;
static _Atomic int backwards;

static void *watch(void *arg)
{
	uint64_t previous = 0;
	(void)arg;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint64_t now = clock_us();
		if (now < previous)
			atomic_fetch_add(&backwards, 1);
		previous = now;
	}
	return NULL;
}

static void it_never_goes_backwards(void **state)
{
	(void)state;
	pthread_t t[2];
	clock_init();
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, watch, NULL), 0);
	for (int i = 0; i < 60; i++) {
		usleep(5000);
		clock_recalibrate();
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&backwards), 0);
}

/* The parent was in the middle of a change when it forked: the child's clock must go on. */
static void a_child_forked_during_a_change_goes_on(void **state)
{
	(void)state;
	clock_init();
	assert_true(begin_writing());
	hold_readers();
	pid_t pid = fork();
	if (pid == 0) {
		alarm(10);
		int64_t off = error_us();
		clock_recalibrate();
		_exit(off == 0 && error_us() > -50 && error_us() < 50 ? 0 : 1);
	}
	struct segment same = load_segment();
	store_segment(&same);
	end_writing();
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_works_before_it_is_initialised),      cmocka_unit_test(it_follows_clock_monotonic),
	    cmocka_unit_test(cycles_have_the_rate_they_say),          cmocka_unit_test(it_never_goes_backwards),
	    cmocka_unit_test(a_child_forked_during_a_change_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
