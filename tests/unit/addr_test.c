/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses: which are this machine's, and that socket addresses survive the way to endpoints and back. */
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

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "host/host.h"

static void text_to_addr(const char *text, uint8_t addr[16])
{
	memset(addr, 0, 16);
	if (inet_pton(AF_INET6, text, addr) == 1)
		return;
	addr[10] = addr[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, text, addr + 12), 1);
}

static bool is_local(const char *text)
{
	uint8_t addr[16];
	text_to_addr(text, addr);
	return addr_is_local(addr);
}

static void loopback_and_unspecified_are_local(void **state)
{
	(void)state;
	assert_true(is_local("127.0.0.1"));
	assert_true(is_local("127.255.255.254"));
	assert_true(is_local("::1"));
	assert_true(is_local("0.0.0.0"));
	assert_true(is_local("::"));
	assert_true(is_local("::ffff:127.0.0.1"));
}

static void others_are_not(void **state)
{
	(void)state;
	assert_false(is_local("192.0.2.1"));
	assert_false(is_local("2001:db8::1"));
	assert_false(is_local("255.255.255.255"));
	assert_false(is_local("224.0.0.1"));
	assert_false(is_local("ff02::1"));
	assert_false(is_local("fe80::1"));
	assert_false(is_local("::2"));
}

static void addresses_of_interfaces_are_local(void **state)
{
	(void)state;
	struct ifaddrs *all;
	assert_int_equal(getifaddrs(&all), 0);
	int seen = 0;
	for (int round = 0; round < 2; round++) {
		for (struct ifaddrs *i = all; i; i = i->ifa_next) {
			uint8_t a[16];
			if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
				continue;
			memset(a, 0, 16);
			a[10] = a[11] = 0xff;
			memcpy(a + 12, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, 4);
			assert_true(addr_is_local(a));
			seen++;
		}
	}
	freeifaddrs(all);
	if (!seen)
		skip();
}

static void a_forked_child_can_ask_too(void **state)
{
	(void)state;
	is_local("192.0.2.1");
	pid_t pid = fork();
	if (pid == 0)
		_exit(is_local("192.0.2.1") ? 1 : 0);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void ipv4_survives_the_round_trip(void **state)
{
	(void)state;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(8080)};
	struct sockaddr_storage ss;
	struct endpoint ep;
	int family = 0;
	in.sin_addr.s_addr = inet_addr("10.1.2.3");
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&in, sizeof(in), &ep, &family), 0);
	assert_int_equal(family, 4);
	assert_int_equal(ep.port, 8080);
	assert_memory_equal(ep.addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x01\x02\x03", 16);
	assert_int_equal(addr_to_sockaddr(&ep, family, &ss), sizeof(in));
	assert_memory_equal(&ss, &in, sizeof(in));
	/* An IPv6 socket shows the same endpoint as a mapped address. */
	assert_int_equal(addr_to_sockaddr(&ep, 6, &ss), sizeof(struct sockaddr_in6));
	assert_true(IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)&ss)->sin6_addr));
}

static void ipv6_survives_the_round_trip(void **state)
{
	(void)state;
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
	struct sockaddr_storage ss;
	struct endpoint ep;
	int family = 0;
	assert_int_equal(inet_pton(AF_INET6, "2001:db8::7", &in6.sin6_addr), 1);
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&in6, sizeof(in6), &ep, &family), 0);
	assert_int_equal(family, 6);
	assert_int_equal(addr_to_sockaddr(&ep, family, &ss), sizeof(in6));
	assert_memory_equal(&ss, &in6, sizeof(in6));
}

static void short_and_foreign_addresses_are_refused(void **state)
{
	(void)state;
	struct sockaddr_storage ss = {.ss_family = AF_INET};
	struct sockaddr *sa = (struct sockaddr *)&ss;
	struct endpoint ep;
	int family;
	assert_int_equal(addr_from_sockaddr(NULL, 16, &ep, &family), -EINVAL);
	for (socklen_t len = 0; len < sizeof(struct sockaddr_in); len++)
		assert_int_equal(addr_from_sockaddr(sa, len, &ep, &family), -EINVAL);
	ss.ss_family = AF_INET6;
	for (socklen_t len = 0; len < 24; len++)
		assert_int_equal(addr_from_sockaddr(sa, len, &ep, &family), -EINVAL);
	assert_int_equal(addr_from_sockaddr(sa, 24, &ep, &family), 0);
	ss.ss_family = AF_UNIX;
	assert_int_equal(addr_from_sockaddr(sa, sizeof(ss), &ep, &family), -EAFNOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(loopback_and_unspecified_are_local),
	    cmocka_unit_test(others_are_not),
	    cmocka_unit_test(addresses_of_interfaces_are_local),
	    cmocka_unit_test(a_forked_child_can_ask_too),
	    cmocka_unit_test(ipv4_survives_the_round_trip),
	    cmocka_unit_test(ipv6_survives_the_round_trip),
	    cmocka_unit_test(short_and_foreign_addresses_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
