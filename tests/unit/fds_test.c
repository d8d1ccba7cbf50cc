/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors of our own: out of the program's way, close-on-exec, known as ours, also where the limit is tiny. */
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

#include <fcntl.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "host/host.h"

static struct rlimit saved;

static int save_limit(void **state)
{
	(void)state;
	return getrlimit(RLIMIT_NOFILE, &saved);
}

static int restore_limit(void **state)
{
	(void)state;
	return setrlimit(RLIMIT_NOFILE, &saved);
}

static void limit_to(rlim_t n)
{
	struct rlimit l = saved;
	l.rlim_cur = n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
}

static void a_descriptor_moves_up_and_is_ours(void **state)
{
	(void)state;
	limit_to(saved.rlim_max < 4096 ? saved.rlim_max : 4096);
	int low = open("/dev/null", O_RDONLY);
	int high = host_fd_high(low);
	assert_true(high >= 900);
	assert_int_equal(fcntl(low, F_GETFD), -1);
	assert_int_equal(fcntl(high, F_GETFD), FD_CLOEXEC);
	assert_true(host_fd_is_ours(high));
	assert_false(host_fd_is_ours(low));
	assert_int_equal(host_fd_next(0), high);
	assert_int_equal(host_fd_next(high), high);
	assert_int_equal(host_fd_next(high + 1), -1);
	host_fd_close(high);
	assert_false(host_fd_is_ours(high));
	assert_int_equal(fcntl(high, F_GETFD), -1);
	assert_int_equal(host_fd_next(0), -1);
}

static void small_limits_work(void **state)
{
	(void)state;
	static const rlim_t limits[] = {1024, 300, 256, 64, 20, 16};
	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		limit_to(limits[i]);
		int low = open("/dev/null", O_RDONLY);
		int high = host_fd_high(low);
		assert_true(high >= low && high < (int)limits[i]);
		assert_true(host_fd_is_ours(high));
		host_fd_close(high);
		assert_int_equal(fcntl(high, F_GETFD), -1);
	}
}

static void a_full_table_leaves_it_in_place(void **state)
{
	(void)state;
	int fds[64], n = 0;
	limit_to(32);
	while (n < 64 && (fds[n] = open("/dev/null", O_RDONLY)) >= 0)
		n++;
	assert_true(n > 0);
	int fd = fds[n / 2];
	assert_int_equal(host_fd_high(fd), fd);
	assert_true(host_fd_is_ours(fd));
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	host_fd_close(fd);
	for (int i = 0; i < n; i++)
		if (fds[i] != fd)
			close(fds[i]);
}

static void what_is_no_descriptor_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(host_fd_high(-1), -EBADF);
	assert_int_equal(host_fd_high(500), -EBADF);
	errno = EMFILE; /* as whoever could not make one leaves it */
	assert_int_equal(host_fd_own(-1), -EMFILE);
	assert_false(host_fd_is_ours(-1));
	assert_false(host_fd_is_ours(1 << 30));
	assert_int_equal(host_fd_next(1 << 30), -1);
	host_fd_close(-1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_descriptor_moves_up_and_is_ours, save_limit, restore_limit),
	    cmocka_unit_test_setup_teardown(small_limits_work, save_limit, restore_limit),
	    cmocka_unit_test_setup_teardown(a_full_table_leaves_it_in_place, save_limit, restore_limit),
	    cmocka_unit_test_setup_teardown(what_is_no_descriptor_is_an_error, save_limit, restore_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
