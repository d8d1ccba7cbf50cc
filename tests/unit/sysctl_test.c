/* SPDX-License-Identifier: BSD-2-Clause */
/* What is set for the kernel's TCP holds for a stack too, unless a knob says otherwise. In a network namespace of its
 * own. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/stack.h"
#include "engine/tcp_cc.h"
#include "host/knobs.h"
#include "host/sysctl.h"

static void write_sysctl(const char *name, const char *value)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, value, strlen(value)), strlen(value));
	close(fd);
}

static struct sock_defaults made(char *const *env)
{
	struct stack_config cfg;
	char err[256];

	assert_int_equal(knobs_load(env, err, sizeof(err)), 0);
	knobs_defaults_for_stack(&cfg);
	sysctls_apply(&cfg.defaults);
	return cfg.defaults;
}

static void what_the_administrator_set_holds_for_new_stacks(void **state)
{
	char *const env[] = {NULL};
	struct sock_defaults d;

	(void)state;
	write_sysctl("ipv4/tcp_ecn", "1");
	write_sysctl("ipv4/tcp_timestamps", "0");
	write_sysctl("ipv4/tcp_keepalive_time", "77");
	write_sysctl("ipv4/tcp_keepalive_intvl", "7");
	write_sysctl("ipv4/tcp_keepalive_probes", "3");
	write_sysctl("ipv4/tcp_syn_retries", "2");
	write_sysctl("ipv4/tcp_synack_retries", "4");
	write_sysctl("ipv4/tcp_retries2", "8");
	write_sysctl("ipv4/tcp_fin_timeout", "11");
	write_sysctl("ipv4/tcp_rmem", "4096 65536 3145728");
	write_sysctl("ipv4/tcp_wmem", "4096 16384 1048576");
	write_sysctl("ipv4/tcp_slow_start_after_idle", "0");
	write_sysctl("ipv4/tcp_notsent_lowat", "16384");
	write_sysctl("ipv4/ip_default_ttl", "33");
	write_sysctl("ipv4/ip_no_pmtu_disc", "1");
	write_sysctl("ipv4/tcp_congestion_control", "reno");
	write_sysctl("core/somaxconn", "99");
	d = made(env);
	assert_int_equal(d.ecn, TCP_ECN_ASK);
	assert_int_equal(d.no_timestamps, 1);
	assert_int_equal(d.keep_idle_s, 77);
	assert_int_equal(d.keep_intvl_s, 7);
	assert_int_equal(d.keep_cnt, 3);
	assert_int_equal(d.syn_retries, 2);
	assert_int_equal(d.synack_retries, 4);
	assert_int_equal(d.retries2, 8);
	assert_int_equal(d.fin_timeout_s, 11);
	assert_int_equal(d.rcvbuf, 65536);
	assert_int_equal(d.rcvbuf_max, 2097152);
	assert_int_equal(d.sndbuf_max, 1048576);
	assert_int_equal(d.keep_cwnd_idle, 1);
	assert_int_equal(d.notsent_lowat, 16384);
	assert_int_equal(d.ttl, 33);
	assert_int_equal(d.pmtudisc, PMTU_DONT);
	assert_int_equal(d.cc, TCP_CC_NEWRENO);
	assert_int_equal(d.somaxconn, 99);
}

static void a_knob_that_is_set_goes_before(void **state)
{
	char *const env[] = {"VIADUCT_SYN_RETRIES=5", "VIADUCT_PROFILE=throughput", "VIADUCT_TIMESTAMPS=1",
			     "VIADUCT_CC=cubic", NULL};
	struct sock_defaults d = made(env);

	(void)state;
	assert_int_equal(d.syn_retries, 5);
	assert_int_equal(d.rcvbuf, 1048576);
	assert_int_equal(d.no_timestamps, 0);
	assert_int_equal(d.cc, TCP_CC_CUBIC);
	assert_int_equal(d.keep_idle_s, 77);
}

static void the_kernels_defaults_are_those_of_the_knobs(void **state)
{
	char *const env[] = {NULL};
	struct sock_defaults d;

	(void)state;
	write_sysctl("ipv4/tcp_ecn", "2");
	write_sysctl("ipv4/tcp_rmem", "4096 131072 6291456");
	write_sysctl("ipv4/tcp_wmem", "4096 16384 4194304");
	write_sysctl("ipv4/tcp_notsent_lowat", "4294967295");
	write_sysctl("ipv4/ip_no_pmtu_disc", "0");
	write_sysctl("ipv4/tcp_slow_start_after_idle", "1");
	d = made(env);
	assert_int_equal(d.ecn, TCP_ECN_ANSWER);
	assert_int_equal(d.rcvbuf, knob_info[K_RCVBUF].def);
	assert_int_equal(d.rcvbuf_max, knob_info[K_RCVBUF_MAX].def);
	assert_int_equal(d.sndbuf_max, knob_info[K_SNDBUF_MAX].def);
	assert_int_equal(d.notsent_lowat, 0);
	assert_int_equal(d.pmtudisc, PMTU_DEFAULT);
	assert_int_equal(d.keep_cwnd_idle, 0);
	write_sysctl("ipv4/tcp_ecn", "0");
	assert_int_equal(made(env).ecn, TCP_ECN_NEVER);
}

static void a_value_beyond_a_knobs_range_is_the_nearest_in_it(void **state)
{
	char *const env[] = {NULL};

	(void)state;
	write_sysctl("ipv4/tcp_fin_timeout", "100000");
	write_sysctl("ipv4/tcp_rmem", "4096 2147483647 2147483647");
	assert_int_equal(made(env).fin_timeout_s, knob_info[K_FIN_TIMEOUT_S].high);
	assert_int_equal(made(env).rcvbuf, knob_info[K_RCVBUF].high);
	assert_int_equal(made(env).rcvbuf_max, knob_info[K_RCVBUF_MAX].high);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_the_administrator_set_holds_for_new_stacks),
	    cmocka_unit_test(a_knob_that_is_set_goes_before),
	    cmocka_unit_test(the_kernels_defaults_are_those_of_the_knobs),
	    cmocka_unit_test(a_value_beyond_a_knobs_range_is_the_nearest_in_it),
	};

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
