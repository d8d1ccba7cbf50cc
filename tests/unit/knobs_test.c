/* SPDX-License-Identifier: BSD-2-Clause */
/* Knobs: what users write is checked as they would want it: the nearest name, the range, the profile's place. */
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

#include <cmocka.h>

#include "engine/stack.h"
#include "host/knobs.h"

static char err[512];

static int check(const char *assignment)
{
	err[0] = 0;
	return knob_check(assignment, err, sizeof(err));
}

static int load(char *const *env)
{
	err[0] = 0;
	return knobs_load(env, err, sizeof(err));
}

static void every_default_is_in_its_range(void **state)
{
	(void)state;
	for (int k = 0; k < KNOB_COUNT; k++) {
		char text[64], value[40];
		knob_format(k, knob_info[k].def, value, sizeof(value));
		snprintf(text, sizeof(text), "%s=%s", knob_info[k].name, value);
		assert_int_equal(check(text), 0);
	}
}

static void every_profile_value_is_in_its_range(void **state)
{
	(void)state;
	for (unsigned i = 0; i < knob_override_count; i++) {
		char text[64], value[40];
		knob_format(knob_overrides[i].knob, knob_overrides[i].value, value, sizeof(value));
		snprintf(text, sizeof(text), "%s=%s", knob_info[knob_overrides[i].knob].name, value);
		assert_int_equal(check(text), 0);
		assert_true(knob_overrides[i].profile < PROFILE_COUNT);
	}
}

static void an_unknown_name_gets_the_nearest(void **state)
{
	(void)state;
	static const char *const cases[][2] = {{"SPINUS=5", "SPIN_US"},       {"spin_us=5", "SPIN_US"},
					       {"RCVBUF_MX=1", "RCVBUF_MAX"}, {"PROFIL=cpu", "PROFILE"},
					       {"SOCKET=100", "SOCKETS"},     {"=3", "nearest is "}};
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(check(cases[i][0]), -EINVAL);
		assert_non_null(strstr(err, "nearest is"));
		assert_non_null(strstr(err, cases[i][1]));
	}
}

static void a_very_long_name_is_only_an_error(void **state)
{
	(void)state;
	char text[5000];
	memset(text, 'A', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(check(text), -EINVAL);
	memcpy(text, "SPIN_US=", 8);
	assert_int_equal(check(text), -EINVAL);
	char tiny[8];
	assert_int_equal(knob_check(text, tiny, sizeof(tiny)), -EINVAL);
	assert_true(strlen(tiny) < sizeof(tiny));
}

static void a_bad_value_gets_its_range(void **state)
{
	(void)state;
	static const char *const cases[][2] = {{"SPIN_US=1000001", "from 0 to 1000000 us"},
					       {"SPIN_US=", "from 0 to 1000000 us"},
					       {"SPIN_US=-1", "from 0 to 1000000 us"},
					       {"SPIN_US=1e3", "from 0 to 1000000 us"},
					       {"SPIN_US=18446744073709551617", "from 0 to 1000000 us"},
					       {"RTO_MIN_MS=0", "from 1 to 60000 ms"},
					       {"UDP=maybe", "0 or 1"},
					       {"UDP=2", "0 or 1"},
					       {"CC=bbr", "cubic|newreno"},
					       {"CC=cubic|newreno", "cubic|newreno"},
					       {"SPIN_US", "lacks a value"}};
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(check(cases[i][0]), -EINVAL);
		assert_non_null(strstr(err, cases[i][1]));
	}
}

static void a_profile_comes_before_single_knobs_in_any_order(void **state)
{
	(void)state;
	char *const knob_first[] = {"VIADUCT_SPIN_US=7", "VIADUCT_PROFILE=cpu", NULL};
	char *const profile_first[] = {"VIADUCT_PROFILE=cpu", "VIADUCT_SPIN_US=7", NULL};
	char *const profile_only[] = {"VIADUCT_PROFILE=cpu", NULL};
	assert_int_equal(load(knob_first), 0);
	assert_int_equal(knob[K_SPIN_US], 7);
	assert_int_equal(load(profile_first), 0);
	assert_int_equal(knob[K_SPIN_US], 7);
	assert_int_equal(load(profile_only), 0);
	assert_int_equal(knob[K_SPIN_US], 0);
	assert_int_equal(knob[K_PROFILE], PROFILE_CPU);
	assert_int_equal(load(NULL), 0);
	assert_int_equal(knob[K_SPIN_US], knob_info[K_SPIN_US].def);
}

static void a_bad_variable_does_not_spoil_the_good_ones(void **state)
{
	(void)state;
	char *const env[] = {"VIADUCT_SPIN=1", "PATH=/bin", "VIADUCT_UDP=no", "VIADUCT_CC=newreno", NULL};
	assert_int_equal(load(env), -EINVAL);
	assert_non_null(strstr(err, "SPIN_US"));
	assert_int_equal(knob[K_UDP], 0);
	assert_int_equal(knob[K_CC], TCP_CC_NEWRENO);
	assert_int_equal(knob[K_SPIN_US], knob_info[K_SPIN_US].def);
}

static void a_stack_gets_what_the_knobs_say(void **state)
{
	(void)state;
	char *const env[] = {"VIADUCT_SOCKETS=100", "VIADUCT_RCVBUF=8388608", "VIADUCT_TIMESTAMPS=0", NULL};
	struct stack_config cfg, again;
	assert_int_equal(load(env), 0);
	knobs_defaults_for_stack(&cfg);
	assert_int_equal(cfg.max_socks, 101);
	assert_int_equal(cfg.defaults.rcvbuf, 8388608);
	assert_true(cfg.defaults.rcvbuf_max >= cfg.defaults.rcvbuf);
	assert_int_equal(cfg.defaults.no_timestamps, 1);
	assert_int_equal(cfg.hash_buckets & (cfg.hash_buckets - 1), 0);
	knobs_defaults_for_stack(&again);
	assert_memory_not_equal(cfg.secret, again.secret, sizeof(cfg.secret));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_default_is_in_its_range),
	    cmocka_unit_test(every_profile_value_is_in_its_range),
	    cmocka_unit_test(an_unknown_name_gets_the_nearest),
	    cmocka_unit_test(a_very_long_name_is_only_an_error),
	    cmocka_unit_test(a_bad_value_gets_its_range),
	    cmocka_unit_test(a_profile_comes_before_single_knobs_in_any_order),
	    cmocka_unit_test(a_bad_variable_does_not_spoil_the_good_ones),
	    cmocka_unit_test(a_stack_gets_what_the_knobs_say),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
