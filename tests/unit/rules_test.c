/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules: what a file may say, what is told of one that is wrong, and which rule decides. */
#define _GNU_SOURCE
#include <arpa/inet.h>
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

#include "host/host.h"
#include "host/knobs.h"
#include "host/rules.h"
#include "lib/test_file.h"

static struct rules r;
static struct rules_error last;
static unsigned told;

static void tell(void *arg, const struct rules_error *e)
{
	(void)arg;
	last = *e;
	told++;
}

static uint32_t parse(const char *text)
{
	told = 0;
	memset(&last, 0, sizeof(last));
	return rules_parse(&r, text, strlen(text), tell, NULL);
}

static struct endpoint at(const char *address, uint16_t port)
{
	struct sockaddr_in sa4 = {.sin_family = AF_INET};
	struct sockaddr_in6 sa6 = {.sin6_family = AF_INET6};
	struct endpoint ep;
	int family;

	if (inet_pton(AF_INET, address, &sa4.sin_addr) == 1)
		addr_from_sockaddr((struct sockaddr *)&sa4, sizeof(sa4), &ep, &family);
	else if (inet_pton(AF_INET6, address, &sa6.sin6_addr) == 1)
		addr_from_sockaddr((struct sockaddr *)&sa6, sizeof(sa6), &ep, &family);
	else
		fail();
	ep.port = port;
	return ep;
}

/* The line that decides; 0: none. */
static unsigned line_for(enum sock_proto proto, enum rule_role role, const char *address, uint16_t port)
{
	struct endpoint ep = at(address, port);
	const struct rule *one = rules_match(&r, proto, role, &ep);

	return one ? one->line : 0;
}

static void comments_and_empty_lines_are_no_rules(void **state)
{
	(void)state;
	assert_int_equal(parse("# all of it\n\n  \t\r\nkernel port=53 # DNS\n#kernel\naccelerate"), 0);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.rule[0].line, 4);
	assert_int_equal(r.rule[0].action, RULE_KERNEL);
	assert_int_equal(r.rule[1].line, 6);
	assert_int_equal(r.rule[1].action, RULE_ACCELERATE);
}

static void the_first_that_matches_wins(void **state)
{
	(void)state;
	assert_int_equal(parse("accelerate port=80\nkernel port=1-1000\nkernel protocol=udp\n"), 0);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "10.0.0.1", 80), 1);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "10.0.0.1", 1000), 2);
	assert_int_equal(line_for(SOCK_UDP, RULE_SERVER, "10.0.0.1", 1001), 3);
	assert_int_equal(line_for(SOCK_TCP, RULE_SERVER, "10.0.0.1", 1001), 0);
}

static void role_and_protocol_are_looked_at(void **state)
{
	(void)state;
	assert_int_equal(parse("kernel role=client protocol=tcp\nkernel role=server protocol=udp\n"), 0);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "::1", 1), 1);
	assert_int_equal(line_for(SOCK_UDP, RULE_CLIENT, "::1", 1), 0);
	assert_int_equal(line_for(SOCK_UDP, RULE_SERVER, "::1", 1), 2);
	assert_int_equal(line_for(SOCK_TCP, RULE_SERVER, "::1", 1), 0);
}

static void addresses_match_by_prefix_and_family(void **state)
{
	(void)state;
	assert_int_equal(parse("kernel address=10.1.128.0/17\nkernel address=2001:db8::/33\n"
			       "kernel address=192.0.2.7\naccelerate address=0.0.0.0/0\nkernel address=::/0\n"),
			 0);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "10.1.128.1", 1), 1);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "10.1.127.1", 1), 4);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "2001:db8:7fff::1", 1), 2);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "2001:db8:8000::1", 1), 5);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "192.0.2.7", 1), 3);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "::ffff:192.0.2.7", 1), 3);
}

static void programs_are_matched_by_name_or_path(void **state)
{
	(void)state;
	static const char text[] = "kernel program=nginx\nkernel program=/usr/*/redis*\nkernel program=re?is-server\n"
				   "kernel program=alias\naccelerate\n";

	assert_int_equal(parse(text), 0);
	rules_keep(&r, "/usr/bin/redis-server", "alias");
	assert_int_equal(r.count, 4);
	assert_int_equal(r.rule[0].line, 2);
	assert_int_equal(r.rule[1].line, 3);
	assert_int_equal(r.rule[2].line, 4);
	assert_int_equal(parse(text), 0);
	rules_keep(&r, "/opt/nginx", "nginx: worker");
	assert_int_equal(r.count, 2);
	assert_int_equal(r.rule[0].line, 1);
}

static void a_pattern_of_many_stars_ends_soon(void **state)
{
	char name[256];

	(void)state;
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	assert_int_equal(parse("kernel program=*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n"), 0);
	rules_keep(&r, name, name);
	assert_int_equal(r.count, 0);
}

static void a_wrong_line_is_told_with_its_place(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint32_t line, column, width;
		const char *word;
	} cases[] = {
	    {"deny\n", 1, 1, 4, "accelerate or kernel"},
	    {"\n  kernel prot=tcp\n", 2, 10, 4, "no such condition"},
	    {"kernel port\n", 1, 8, 4, "lacks a value"},
	    {"kernel port=53 port=54\n", 1, 16, 7, "twice"},
	    {"kernel port=0\n", 1, 13, 1, "1 to 65535"},
	    {"kernel port=65536\n", 1, 13, 5, "1 to 65535"},
	    {"kernel port=9-8\n", 1, 13, 3, "turn them round"},
	    {"kernel port=8-\n", 1, 13, 2, "FIRST-LAST"},
	    {"kernel port=\n", 1, 13, 1, "1 to 65535"},
	    {"kernel protocol=TCP\n", 1, 17, 3, "protocol=tcp"},
	    {"kernel role=peer\n", 1, 13, 4, "client"},
	    {"kernel address=10.0.0.0/33\n", 1, 24, 3, "0 to 32"},
	    {"kernel address=10.0.0.1/24\n", 1, 16, 11, "bits behind"},
	    {"kernel address=::1/129\n", 1, 19, 4, "0 to 128"},
	    {"kernel address=localhost\n", 1, 16, 9, "no address"},
	    {"kernel program=\n", 1, 16, 1, "lacks a name"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text), 1);
		assert_int_equal(told, 1);
		assert_int_equal(r.count, 0);
		assert_int_equal(last.line, cases[i].line);
		assert_int_equal(last.column, cases[i].column);
		assert_int_equal(last.width, cases[i].width);
		assert_non_null(strstr(last.text, cases[i].word));
	}
}

static void every_wrong_line_is_told_and_the_others_count(void **state)
{
	(void)state;
	assert_int_equal(parse("kernel x=1\naccelerate port=80\nkernel y=1\n"), 2);
	assert_int_equal(told, 2);
	assert_int_equal(r.count, 1);
	assert_int_equal(r.rule[0].line, 2);
}

static void more_rules_than_fit_are_refused(void **state)
{
	char text[8 * (RULES_MAX + 2)] = "";

	(void)state;
	for (unsigned i = 0; i <= RULES_MAX; i++)
		memcpy(text + 7 * (size_t)i, "kernel\n", 8);
	assert_int_equal(parse(text), 1);
	assert_int_equal(last.line, RULES_MAX + 1);
	assert_int_equal(r.count, RULES_MAX);
}

static void the_error_shows_the_line_and_carets_under_the_word(void **state)
{
	static const char text[] = "accelerate\n\tkernel port=70000 # much\n";
	char out[512];

	(void)state;
	assert_int_equal(parse(text), 1);
	rules_explain("/x/rules", text, strlen(text), &last, out, sizeof(out));
	assert_string_equal(out, "/x/rules:2:14: a port is a number from 1 to 65535; several are FIRST-LAST\n"
				 "     kernel port=70000 # much\n"
				 "                 ^^^^^");
}

static void a_rule_that_an_earlier_one_hides_is_told(void **state)
{
	(void)state;
	assert_int_equal(parse("kernel address=10.0.0.0/8\naccelerate address=10.1.0.0/16 port=80\n"
			       "accelerate address=11.0.0.0/8\naccelerate port=1-5\nkernel port=2\n"),
			 0);
	told = 0;
	rules_unreachable(&r, tell, NULL);
	assert_int_equal(told, 2);
	assert_int_equal(last.line, 5);
	assert_non_null(strstr(last.text, "line 4"));
}

static void a_file_that_was_asked_for_must_be_there_and_right(void **state)
{
	char path[TEST_FILE_MAX], err[512] = "";
	int fd = test_file(path);
	struct endpoint dns = at("192.0.2.1", 53), web = at("192.0.2.1", 80);

	(void)state;
	assert_true(fd >= 0);
	knob[K_RULES] = (uintptr_t)path;
	assert_int_equal(write(fd, "kernel port=80\n", 15), 15);
	assert_int_equal(rules_load(err, sizeof(err)), 0);
	assert_string_equal(rules_file(), path);
	assert_int_equal(rules_refuse(SOCK_TCP, RULE_CLIENT, &web), 1);
	assert_int_equal(rules_refuse(SOCK_TCP, RULE_CLIENT, &dns), 0);
	assert_int_equal(write(fd, "kernel port=x\n", 14), 14);
	assert_int_equal(rules_load(err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, ":2:13:"));
	assert_int_equal(rules_refuse(SOCK_TCP, RULE_CLIENT, &web), 0);
	close(fd);
	unlink(path);
	assert_int_equal(rules_load(err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, path));
	knob[K_RULES] = (uintptr_t) "/tmp";
	assert_int_equal(rules_load(err, sizeof(err)), -EISDIR);
	knob[K_RULES] = 0;
}

static void the_built_in_rules_keep_dns_in_the_kernel(void **state)
{
	(void)state;
	assert_int_equal(parse(rules_builtin), 0);
	assert_int_equal(line_for(SOCK_UDP, RULE_CLIENT, "127.0.0.53", 53), 1);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "2001:db8::1", 53), 1);
	assert_int_equal(line_for(SOCK_TCP, RULE_CLIENT, "2001:db8::1", 853), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(comments_and_empty_lines_are_no_rules),
	    cmocka_unit_test(the_first_that_matches_wins),
	    cmocka_unit_test(role_and_protocol_are_looked_at),
	    cmocka_unit_test(addresses_match_by_prefix_and_family),
	    cmocka_unit_test(programs_are_matched_by_name_or_path),
	    cmocka_unit_test(a_pattern_of_many_stars_ends_soon),
	    cmocka_unit_test(a_wrong_line_is_told_with_its_place),
	    cmocka_unit_test(every_wrong_line_is_told_and_the_others_count),
	    cmocka_unit_test(more_rules_than_fit_are_refused),
	    cmocka_unit_test(the_error_shows_the_line_and_carets_under_the_word),
	    cmocka_unit_test(a_rule_that_an_earlier_one_hides_is_told),
	    cmocka_unit_test(a_file_that_was_asked_for_must_be_there_and_right),
	    cmocka_unit_test(the_built_in_rules_keep_dns_in_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
