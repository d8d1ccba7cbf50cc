/* SPDX-License-Identifier: BSD-2-Clause */
/* wait_for: timeouts, signals, kernel descriptors, wake-ups from other threads and over a wire; and that an idle
 * process sleeps. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "lib/test_clock.h"
#include "socket/helper.h"
#include "socket/process.h"
#include "socket/wait.h"

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static bool when_set(void *arg)
{
	return __atomic_load_n((int *)arg, __ATOMIC_ACQUIRE) != 0;
}

static int setup(void **state)
{
	(void)state;
	assert_non_null(process_own_stack());
	return 0;
}

static void a_timeout_is_neither_early_nor_late(void **state)
{
	static const int64_t us[] = {200, 1000, 3300, 20000};
	struct wait w = {.ready = never, .kernel_fd = -1};

	(void)state;
	for (size_t i = 0; i < sizeof(us) / sizeof(us[0]); i++) {
		uint64_t best = UINT64_MAX;

		/* on a busy machine most are late */
		for (int tries = 0; tries < 2000 && best >= (uint64_t)us[i] + 1500; tries++) {
			uint64_t start = now_us();

			w.timeout_us = us[i];
			assert_int_equal(wait_for(&w), -ETIMEDOUT);
			start = now_us() - start;
			assert_true(start + 2 >= (uint64_t)us[i]); /* two clocks, one microsecond each */
			best = start < best ? start : best;
		}
		assert_true(best < (uint64_t)us[i] + 1500);
	}
	w.timeout_us = 0;
	assert_int_equal(wait_for(&w), -ETIMEDOUT);
}

static void *set_soon(void *arg)
{
	usleep(30000);
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	wait_wake_all();
	return NULL;
}

static void a_sleeper_is_woken_by_another_thread(void **state)
{
	int flag = 0;
	struct wait w = {.ready = when_set, .arg = &flag, .timeout_us = 30000000, .kernel_fd = -1};
	uint64_t start = now_us();
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, set_soon, &flag), 0);
	assert_int_equal(wait_for(&w), 0);
	assert_in_range(now_us() - start, 29000, 25000000);
	pthread_join(t, NULL);
}

static void handler(int sig)
{
	(void)sig;
	wait_signals[0]++;
}

static void handler_restart(int sig)
{
	(void)sig;
	wait_signals[1]++;
}

static void alarm_in(long us)
{
	struct itimerval it = {.it_value.tv_usec = us};

	setitimer(ITIMER_REAL, &it, NULL);
}

static void a_signal_ends_the_wait_unless_it_restarts(void **state)
{
	struct wait w = {.ready = never, .timeout_us = 30000000, .kernel_fd = -1, .restart = true};
	struct sigaction sa = {.sa_handler = handler}, old;
	uint64_t start;

	(void)state;
	sigaction(SIGALRM, &sa, &old);
	alarm_in(20000);
	start = now_us();
	assert_int_equal(wait_for(&w), -EINTR);
	assert_in_range(now_us() - start, 19000, 25000000);
	sa.sa_handler = handler_restart;
	sa.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &sa, NULL);
	w.timeout_us = 60000;
	alarm_in(20000);
	assert_int_equal(wait_for(&w), -ETIMEDOUT);
	w.restart = false; /* poll and epoll_wait never restart */
	w.timeout_us = 30000000;
	alarm_in(20000);
	assert_int_equal(wait_for(&w), -EINTR);
	sigaction(SIGALRM, &old, NULL);
}

static void a_mask_lets_a_blocked_signal_in_during_the_wait_only(void **state)
{
	struct sigaction sa = {.sa_handler = handler}, old;
	sigset_t block, before, none;
	struct wait w = {.ready = never, .timeout_us = 2000000, .kernel_fd = -1};
	uint32_t ran = wait_signals[0];

	(void)state;
	sigaction(SIGUSR1, &sa, &old);
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, &before);
	raise(SIGUSR1);
	assert_int_equal(wait_signals[0], ran);
	w.sigmask = &none;
	assert_int_equal(wait_for(&w), -EINTR);
	assert_int_equal(wait_signals[0], ran + 1);
	pthread_sigmask(SIG_SETMASK, NULL, &none);
	assert_true(sigismember(&none, SIGUSR1));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	sigaction(SIGUSR1, &old, NULL);
}

static void *write_soon(void *arg)
{
	usleep(20000);
	assert_int_equal(write(*(int *)arg, "x", 1), 1);
	return NULL;
}

static void a_kernel_descriptor_wakes_too(void **state)
{
	struct wait w = {.ready = never, .timeout_us = 5000000, .kernel_fd = epoll_create1(EPOLL_CLOEXEC)};
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t t;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(epoll_ctl(w.kernel_fd, EPOLL_CTL_ADD, p[0], &ev), 0);
	assert_int_equal(pthread_create(&t, NULL, write_soon, &p[1]), 0);
	assert_int_equal(wait_for(&w), 0);
	assert_true(w.kernel_ready);
	pthread_join(t, NULL);
	close(w.kernel_fd);
	close(p[0]);
	close(p[1]);
}

/* A wait as epoll_wait's, for what fd says; *kernel: that is what ended it. */
static int wait_as_epoll(int fd, uint64_t id, int64_t us, bool *kernel)
{
	struct wait w = {.ready = never, .timeout_us = us, .kernel_fd = fd, .kernel_id = id, .as_epoll = true};
	uint64_t spins = knob[K_SPIN_US];
	int r;

	knob[K_SPIN_US] = 0;
	r = wait_for(&w);
	knob[K_SPIN_US] = spins;
	*kernel = w.kernel_ready;
	return r;
}

static void what_is_registered_for_a_sleep_ends_it_each_time(void **state)
{
	uint64_t id = wait_kernel_id();
	bool kernel;
	pthread_t t;
	char byte;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(wait_as_epoll(p[0], id, 5000, &kernel), -ETIMEDOUT);
		assert_false(kernel);
		assert_int_equal(pthread_create(&t, NULL, write_soon, &p[1]), 0);
		for (int looks = 0; looks < 2; looks++) { /* nobody has read it: it still is there */
			assert_int_equal(wait_as_epoll(p[0], id, 5000000, &kernel), 0);
			assert_true(kernel);
		}
		pthread_join(t, NULL);
		assert_int_equal(read(p[0], &byte, 1), 1);
	}
	wait_kernel_closing();
	close(p[0]);
	close(p[1]);
}

static bool count_looks(void *arg)
{
	(*(int *)arg)++;
	return false;
}

static void what_was_registered_for_an_earlier_sleep_lets_the_next_sleep(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC), looks = 0; /* readable, and nobody reads */
	struct wait other = {
	    .ready = count_looks, .arg = &looks, .timeout_us = 50000, .kernel_fd = -1, .restart = true};
	bool kernel;

	(void)state;
	assert_int_equal(wait_as_epoll(fd, wait_kernel_id(), 5000000, &kernel), 0);
	assert_true(kernel);
	assert_int_equal(wait_for(&other), -ETIMEDOUT);
	assert_true(looks < 30);
	assert_int_equal(wait_as_epoll(fd, wait_kernel_id(), 5000000, &kernel), 0);
	assert_true(kernel);
	wait_kernel_closing();
	close(fd);
}

/* The first file lives on elsewhere, as an epoll descriptor does in a forked child: it can't be taken out by its
 * number. */
static void a_number_that_was_given_out_anew_means_the_new_file(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), first = dup(fd), second = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1, id = wait_kernel_id();
	bool kernel;

	(void)state;
	assert_int_equal(wait_as_epoll(fd, id, 2000, &kernel), -ETIMEDOUT);
	wait_kernel_closing();
	assert_int_equal(dup2(second, fd), fd);
	assert_int_equal(write(first, &one, sizeof(one)), sizeof(one));
	id = wait_kernel_id();
	assert_int_equal(wait_as_epoll(fd, id, 20000, &kernel), -ETIMEDOUT);
	assert_false(kernel);
	assert_int_equal(write(second, &one, sizeof(one)), sizeof(one));
	assert_int_equal(wait_as_epoll(fd, id, 5000000, &kernel), 0);
	assert_true(kernel);
	wait_kernel_closing();
	close(fd);
	close(first);
	close(second);
}

static void an_epoll_descriptor_that_can_not_be_registered_is_watched_all_the_same(void **state)
{
	int chain[6];
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t id = wait_kernel_id();
	pthread_t t;
	bool kernel;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	for (int i = 0; i < 5; i++) { /* as deep as the kernel lets them be: one more is too many */
		chain[i] = epoll_create1(EPOLL_CLOEXEC);
		assert_int_equal(epoll_ctl(chain[i], EPOLL_CTL_ADD, i ? chain[i - 1] : p[0], &ev), 0);
	}
	chain[5] = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(epoll_ctl(chain[5], EPOLL_CTL_ADD, chain[4], &ev), -1);
	assert_int_equal(wait_as_epoll(chain[4], id, 5000, &kernel), -ETIMEDOUT);
	assert_int_equal(pthread_create(&t, NULL, write_soon, &p[1]), 0);
	assert_int_equal(wait_as_epoll(chain[4], id, 5000000, &kernel), 0);
	assert_true(kernel);
	pthread_join(t, NULL);
	for (int i = 0; i < 6; i++)
		close(chain[i]);
	close(p[0]);
	close(p[1]);
}

static long switches(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_nvcsw;
}

static void an_idle_process_is_not_woken(void **state)
{
	struct wait w = {.ready = never, .timeout_us = 500000, .kernel_fd = -1};
	struct timespec c0, c1;
	long before;

	(void)state;
	assert_int_equal(helper_start(), 0);
	usleep(100000); /* the helper has fallen asleep */
	before = switches();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c0);
	assert_int_equal(wait_for(&w), -ETIMEDOUT);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c1);
	/* Going to sleep wakes the helper once; it looks a few times and sleeps again. Half a second of that. */
	assert_true(switches() - before < 15);
	assert_true((c1.tv_sec - c0.tv_sec) * 1000000000 + (c1.tv_nsec - c0.tv_nsec) < 50000000);
}

static void after_long_sleeps_a_thread_hardly_spins(void **state)
{
	struct wait w = {.ready = never, .timeout_us = 2000, .kernel_fd = -1};
	struct timespec c0, c1;
	long us;

	(void)state;
	for (int i = 0; i < 20; i++)
		wait_for(&w);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &c0);
	for (int i = 0; i < 50; i++)
		wait_for(&w);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &c1);
	us = (c1.tv_sec - c0.tv_sec) * 1000000 + (c1.tv_nsec - c0.tv_nsec) / 1000;
	print_message("CPU per sleep of 2 ms: %ld us\n", us / 50);
	assert_true(us / 50 < 500); /* generous: sanitizers */
}

int main(void)
{
	char err[256];
	extern char **environ;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_timeout_is_neither_early_nor_late),
	    cmocka_unit_test(a_sleeper_is_woken_by_another_thread),
	    cmocka_unit_test(a_signal_ends_the_wait_unless_it_restarts),
	    cmocka_unit_test(a_mask_lets_a_blocked_signal_in_during_the_wait_only),
	    cmocka_unit_test(a_kernel_descriptor_wakes_too),
	    cmocka_unit_test(what_is_registered_for_a_sleep_ends_it_each_time),
	    cmocka_unit_test(what_was_registered_for_an_earlier_sleep_lets_the_next_sleep),
	    cmocka_unit_test(a_number_that_was_given_out_anew_means_the_new_file),
	    cmocka_unit_test(an_epoll_descriptor_that_can_not_be_registered_is_watched_all_the_same),
	    cmocka_unit_test(an_idle_process_is_not_woken),
	    cmocka_unit_test(after_long_sleeps_a_thread_hardly_spins),
	};

	if (knobs_load(environ, err, sizeof(err)) < 0)
		return 2;
	return cmocka_run_group_tests(tests, setup, NULL);
}
