/* SPDX-License-Identifier: BSD-2-Clause */
/* viaductd's settings: the command line, the file, and what they allow. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/policy.h"
#include "lib/test_file.h"

static struct policy p;

static int read_args(const char *first, const char *second, const char *third)
{
	char *argv[] = {"viaductd", "--config=/dev/null", (char *)first, (char *)second, (char *)third, NULL};
	int argc = 2 + (first != NULL) + (second != NULL) + (third != NULL);

	return policy_read(&p, argc, argv);
}

static const char *line(const char *text)
{
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", text);
	return policy_line(&p, copy);
}

static void without_settings_everybody_may_use_all_but_only_root_directly(void **state)
{
	(void)state;
	assert_int_equal(read_args(NULL, NULL, NULL), 0);
	assert_true(policy_interface(&p, "eth0"));
	assert_true(policy_user(&p, 1000) && policy_user(&p, 0));
	assert_true(policy_direct(&p, 0, false));
	assert_true(policy_direct(&p, 1000, true));
	assert_false(policy_direct(&p, 1000, false));
}

static void lists_allow_what_they_name_only(void **state)
{
	(void)state;
	assert_int_equal(read_args("--interface=eth1", "--user", "1000"), 0);
	assert_true(policy_interface(&p, "eth1"));
	assert_false(policy_interface(&p, "eth10"));
	assert_true(policy_user(&p, 1000) && policy_user(&p, 0));
	assert_false(policy_user(&p, 1001));
	assert_int_equal(read_args("--direct", "1001", NULL), 0);
	assert_true(policy_direct(&p, 1001, false));
	assert_false(policy_direct(&p, 1002, false));
	/* a list of those who may send anything does not shut others out */
	assert_true(policy_user(&p, 1002));
	assert_int_equal(read_args("--veth-only", NULL, NULL), 0);
	assert_false(policy_direct(&p, 0, false));
	assert_false(policy_direct(&p, 1000, true));
}

static void bad_options_are_refused(void **state)
{
	static const char *const bad[] = {"--nothing",
					  "interface",
					  "--interface",
					  "--stacks=0",
					  "--stacks=1025",
					  "--stacks=x",
					  "--stacks=",
					  "--stacks=-1",
					  "--transient=1",
					  "--interface=a-name-that-is-too-long",
					  "--user=no such user",
					  "--",
					  "-"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(read_args(bad[i], NULL, NULL), -EINVAL);
	assert_int_equal(read_args("--config", "/no/such/file", NULL), -EINVAL);
}

static void lists_end_before_they_overflow(void **state)
{
	(void)state;
	policy_defaults(&p);
	for (unsigned int i = 0; i < POLICY_NAMES; i++)
		assert_null(line("user 1000"));
	assert_non_null(line("user 1000"));
	for (unsigned int i = 0; i < POLICY_NAMES; i++)
		assert_null(line("interface eth0"));
	assert_non_null(line("interface eth0"));
}

static void lines_of_the_file_are_checked(void **state)
{
	(void)state;
	policy_defaults(&p);
	assert_null(line("# only a comment"));
	assert_null(line(""));
	assert_null(line("   stacks \t 7 # seven"));
	assert_int_equal(p.stacks, 7);
	assert_null(line("transient"));
	assert_true(p.transient);
	assert_non_null(line("stacks"));
	assert_non_null(line("stacks 7 8"));
	assert_non_null(line("transient yes"));
	assert_non_null(line("help"));
	assert_non_null(line("config /dev/null"));
	assert_non_null(line("stack 7"));
}

static void a_file_with_a_mistake_is_refused(void **state)
{
	char path[TEST_FILE_MAX], option[TEST_FILE_MAX + 16];
	int fd = test_file(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "stacks 9\n", 9), 9);
	snprintf(option, sizeof(option), "--config=%s", path);
	assert_int_equal(read_args(option, NULL, NULL), 0);
	assert_int_equal(p.stacks, 9);
	assert_int_equal(write(fd, "stacks\n", 7), 7);
	assert_int_equal(read_args(option, NULL, NULL), -EINVAL);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_settings_everybody_may_use_all_but_only_root_directly),
	    cmocka_unit_test(lists_allow_what_they_name_only),
	    cmocka_unit_test(bad_options_are_refused),
	    cmocka_unit_test(lists_end_before_they_overflow),
	    cmocka_unit_test(lines_of_the_file_are_checked),
	    cmocka_unit_test(a_file_with_a_mistake_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
