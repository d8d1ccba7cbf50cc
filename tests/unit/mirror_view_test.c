/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirror's life, in a network namespace of the test's own, joined to another one by a veth: what is published when
 * the kernel's view changes, and what is not; who may write to the pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/mirror.h"
#include "engine/bytes.h"

#define QUIET_MS 200
#define LONG_MS 8000

static struct mirror *m;
static pid_t peer;

static void sh(const char *format, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (system(line) != 0)
		fail_msg("%s", line);
}

static const struct netview_copy *copy(void)
{
	const struct netview *v = mirror_view(m);

	return &v->copy[v->version & 1];
}

/* Take in all that comes until nothing has for a while. True if something was published. */
static bool settle(void)
{
	struct pollfd p = {.fd = mirror_fd(m), .events = POLLIN};
	bool news = false;

	while (poll(&p, 1, QUIET_MS) > 0) {
		int ret = mirror_run(m);

		assert_true(ret >= 0);
		news |= ret > 0;
	}
	return news;
}

/* Run the mirror until `wanted` holds, at most LONG_MS. */
static bool until(bool (*wanted)(void))
{
	struct pollfd p = {.fd = mirror_fd(m), .events = POLLIN};

	for (int ms = 0; ms < LONG_MS && !wanted(); ms += 50)
		if (poll(&p, 1, 50) > 0)
			assert_true(mirror_run(m) >= 0);
	return wanted();
}

static const struct netview_iface *iface(const char *name)
{
	for (uint32_t i = 0; i < copy()->ifaces; i++)
		if (!strcmp(copy()->iface[i].name, name))
			return &copy()->iface[i];
	fail_msg("no interface %s", name);
	return NULL;
}

static void parse(const char *s, uint8_t addr[16])
{
	uint8_t four[4];

	if (inet_pton(AF_INET, s, four) == 1)
		map_v4(addr, four);
	else
		assert_int_equal(inet_pton(AF_INET6, s, addr), 1);
}

static const struct netview_neigh *neigh(const char *s)
{
	uint8_t addr[16];

	parse(s, addr);
	for (uint32_t i = 0; i < copy()->neighs; i++)
		if (!memcmp(copy()->neigh[i].addr, addr, 16))
			return &copy()->neigh[i];
	return NULL;
}

static const struct netview_route *route(const char *s, uint8_t prefix)
{
	uint8_t addr[16];

	parse(s, addr);
	for (uint32_t i = 0; i < copy()->routes; i++)
		if (!memcmp(copy()->route[i].dst, addr, 16) && copy()->route[i].prefix == prefix)
			return &copy()->route[i];
	return NULL;
}

static int resolve(const char *s)
{
	uint8_t addr[16];

	parse(s, addr);
	return mirror_resolve(m, if_nametoindex("v0"), addr);
}

/* A process that does nothing but hold a network namespace. */
static pid_t start_peer(void)
{
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static int begin(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		exit(77);
	peer = start_peer();
	sh("ip link set lo up; ip link add v0 type veth peer name v1");
	sh("ip link set v1 netns %d; nsenter -t %d -n ip link set v1 up", peer, peer);
	sh("nsenter -t %d -n ip address add 10.1.0.2/24 dev v1", peer);
	sh("nsenter -t %d -n ip address add 2001:db8::2/64 dev v1 nodad", peer);
	sh("ip link set v0 up; ip address add 10.1.0.1/24 dev v0; ip address add 2001:db8::1/64 dev v0 nodad");
	assert_int_equal(mirror_start(&m), 0);
	settle();
	return 0;
}

static int end(void **state)
{
	(void)state;
	mirror_stop(m);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	return 0;
}

static void nobody_but_the_mirror_can_write(void **state)
{
	int fd = mirror_view_fd(m);
	size_t len = sizeof(struct netview);
	void *p;

	(void)state;
	assert_ptr_equal(mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p, len, PROT_READ | PROT_WRITE), -1);
	assert_memory_equal(p, mirror_view(m), len);
	munmap(p, len);
}

static void interfaces_are_told_with_their_state(void **state)
{
	const struct netview_iface *f = iface("v0");

	(void)state;
	assert_int_equal(f->flags, NETVIEW_IF_UP | NETVIEW_IF_ALLOWED);
	assert_int_equal(f->mtu, 1500);
	assert_int_equal(f->device, f->ifindex);
	assert_int_equal(iface("lo")->flags, NETVIEW_IF_UP | NETVIEW_IF_LOOPBACK);

	sh("ip link set v0 mtu 1400");
	assert_true(settle());
	assert_int_equal(iface("v0")->mtu, 1400);

	sh("nsenter -t %d -n ip link set v1 down", peer);
	assert_true(settle());
	assert_false(iface("v0")->flags & NETVIEW_IF_UP);
	sh("nsenter -t %d -n ip link set v1 up", peer);
	sh("nsenter -t %d -n ip address add 2001:db8::2/64 dev v1 nodad", peer);
	assert_true(settle());
	assert_true(iface("v0")->flags & NETVIEW_IF_UP);
}

static void ipv4_routes_go_with_their_interface_although_the_kernel_does_not_say_so(void **state)
{
	(void)state;
	sh("ip route add 10.9.0.0/16 via 10.1.0.2");
	assert_true(settle());
	assert_non_null(route("10.9.0.0", 96 + 16));
	sh("ip link set v0 down");
	assert_true(settle());
	assert_null(route("10.9.0.0", 96 + 16));
	assert_null(route("10.1.0.0", 96 + 24));
	/* what is IPv6's goes as well, and is not there again by itself */
	assert_null(route("2001:db8::", 64));
	sh("ip link set v0 up; ip address add 2001:db8::1/64 dev v0 nodad");
	assert_true(settle());
	assert_non_null(route("10.1.0.0", 96 + 24));
	assert_non_null(route("2001:db8::", 64));
}

static void an_address_that_goes_takes_its_routes_along(void **state)
{
	uint8_t from[16];

	(void)state;
	parse("10.5.0.1", from);
	sh("ip address add 10.5.0.1/24 dev v0; ip route add 10.6.0.0/24 via 10.1.0.2 src 10.5.0.1");
	assert_true(settle());
	assert_memory_equal(route("10.6.0.0", 96 + 24)->from, from, 16);
	sh("ip address del 10.5.0.1/24 dev v0");
	assert_true(settle());
	assert_null(route("10.6.0.0", 96 + 24));
	assert_null(route("10.5.0.0", 96 + 24));
}

static bool v4_usable(void)
{
	return neigh("10.1.0.2") && neigh("10.1.0.2")->usable;
}

static bool v6_usable(void)
{
	return neigh("2001:db8::2") && neigh("2001:db8::2")->usable;
}

static bool v4_failed(void)
{
	return neigh("10.1.0.77") && neigh("10.1.0.77")->failed;
}

static bool v6_failed(void)
{
	return neigh("2001:db8::77") && neigh("2001:db8::77")->failed;
}

static void neighbours_are_resolved_when_asked_for(void **state)
{
	(void)state;
	assert_null(neigh("10.1.0.2"));
	assert_int_equal(resolve("10.1.0.2"), 0);
	assert_int_equal(resolve("2001:db8::2"), 0);
	assert_true(until(v4_usable));
	assert_true(until(v6_usable));
}

static void a_neighbour_that_does_not_answer_has_failed_until_asked_for_again(void **state)
{
	(void)state;
	assert_int_equal(resolve("10.1.0.77"), 0);
	assert_int_equal(resolve("2001:db8::77"), 0);
	assert_true(until(v4_failed));
	assert_true(until(v6_failed));
	assert_int_equal(resolve("10.1.0.77"), 0);
	assert_null(neigh("10.1.0.77")); /* being resolved */
	assert_true(until(v4_failed));
}

static void resolving_what_can_not_be_is_refused(void **state)
{
	uint8_t addr[16];

	(void)state;
	parse("10.1.0.2", addr);
	assert_int_equal(mirror_resolve(m, 0, addr), -EINVAL);
	assert_int_equal(mirror_resolve(m, 12345, addr), -ENODEV);
	assert_int_equal(mirror_resolve(m, UINT32_MAX, addr), -ENODEV);
}

static void a_neighbour_that_changes_its_state_but_not_its_address_is_no_news(void **state)
{
	(void)state;
	sh("ip neigh replace 10.1.0.50 lladdr 02:00:00:00:00:50 nud stale dev v0");
	assert_true(settle());
	uint32_t version = mirror_view(m)->version;
	sh("ip neigh replace 10.1.0.50 lladdr 02:00:00:00:00:50 nud reachable dev v0");
	sh("ip neigh replace 10.1.0.50 lladdr 02:00:00:00:00:50 nud stale dev v0");
	assert_false(settle());
	assert_int_equal(mirror_view(m)->version, version);
	sh("ip neigh replace 10.1.0.50 lladdr 02:00:00:00:00:51 nud stale dev v0");
	assert_true(settle());
	assert_int_equal(neigh("10.1.0.50")->mac[5], 0x51);
	sh("ip neigh del 10.1.0.50 dev v0");
	assert_true(settle());
	assert_null(neigh("10.1.0.50"));
}

static void policy_rules_leave_the_network_to_the_kernel(void **state)
{
	(void)state;
	assert_int_equal(copy()->refuse, 0);
	sh("ip rule add from 10.1.0.1 table 77");
	assert_true(settle());
	assert_int_equal(copy()->refuse, NETVIEW_REFUSE_RULES);
	sh("ip rule del from 10.1.0.1 table 77");
	assert_true(settle());
	assert_int_equal(copy()->refuse, 0);
	sh("ip -6 rule del table main");
	assert_true(settle());
	assert_int_equal(copy()->refuse, NETVIEW_REFUSE_RULES);
	sh("ip -6 rule add priority 32766 table main");
	assert_true(settle());
	assert_int_equal(copy()->refuse, 0);
}

static void more_routes_than_fit_leave_the_network_to_the_kernel(void **state)
{
	(void)state;
	sh("for i in $(seq 0 2100); do echo route add 10.128.$((i / 256)).$((i %% 256)) via 10.1.0.2; done | "
	   "ip -batch -");
	assert_true(settle());
	assert_int_equal(copy()->refuse, NETVIEW_REFUSE_OVERFLOW);
	sh("ip route flush root 10.128.0.0/16");
	assert_true(settle());
	assert_int_equal(copy()->refuse, 0);
}

/* Changes that nobody fetched for so long that the kernel threw some away: the view is right all the same. */
static void lost_messages_are_made_up_for(void **state)
{
	uint32_t version = mirror_view(m)->version;

	(void)state;
	sh("for j in $(seq 89); do for i in $(seq 300); do echo neigh replace 10.1.0.$((i %% 200 + 20)) lladdr "
	   "02:00:00:00:$((j %% 90 + 10)):00 dev v0; done; done | ip -batch -");
	assert_int_equal(mirror_run(m), 1);
	assert_int_equal(mirror_view(m)->version, version + 2); /* "behind", then what was read again */
	settle();
	assert_int_equal(copy()->refuse, 0);
	assert_int_equal(neigh("10.1.0.20")->mac[4], 0x99);
	sh("ip neigh flush to 10.1.0.0/24 nud permanent dev v0");
	settle();
}

static bool only_v0(const char *name, uint32_t ifindex, void *arg)
{
	(void)ifindex;
	return !strcmp(name, arg);
}

static void only_devices_that_the_daemon_allows_are_marked(void **state)
{
	(void)state;
	mirror_allow(m, only_v0, "v7");
	assert_true(settle());
	assert_false(iface("v0")->flags & NETVIEW_IF_ALLOWED);
	mirror_allow(m, only_v0, "v0");
	assert_true(settle());
	assert_true(iface("v0")->flags & NETVIEW_IF_ALLOWED);
	mirror_allow(m, NULL, NULL);
	settle();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nobody_but_the_mirror_can_write),
	    cmocka_unit_test(interfaces_are_told_with_their_state),
	    cmocka_unit_test(ipv4_routes_go_with_their_interface_although_the_kernel_does_not_say_so),
	    cmocka_unit_test(an_address_that_goes_takes_its_routes_along),
	    cmocka_unit_test(neighbours_are_resolved_when_asked_for),
	    cmocka_unit_test(a_neighbour_that_does_not_answer_has_failed_until_asked_for_again),
	    cmocka_unit_test(resolving_what_can_not_be_is_refused),
	    cmocka_unit_test(a_neighbour_that_changes_its_state_but_not_its_address_is_no_news),
	    cmocka_unit_test(policy_rules_leave_the_network_to_the_kernel),
	    cmocka_unit_test(more_routes_than_fit_leave_the_network_to_the_kernel),
	    cmocka_unit_test(lost_messages_are_made_up_for),
	    cmocka_unit_test(only_devices_that_the_daemon_allows_are_marked),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
