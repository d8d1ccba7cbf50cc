/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What stacks look up in the mirror's view, against the kernel that it mirrors: random routing tables in a network
 * namespace of the test's own, random destinations, RTM_GETROUTE (what `ip route get` asks) on one side and
 * route_lookup() on the other. Where we don't leave a destination to the kernel, device, next hop, source address
 * and MTU must be the kernel's. The seed is printed; MIRROR_SEED=N runs it again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include "daemon/mirror.h"
#include "engine/bytes.h"
#include "engine/route.h"

#define ROUNDS 25
#define DESTINATIONS 400
#define DEVICES 3
#define HASHES 64
#define SETTLED_MS 100
#define COMPLAINTS 10

static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % below;
}

static bool one_in(uint32_t n)
{
	return rnd(n) == 0;
}

static const char *text(const uint8_t addr[16])
{
	static char buf[8][INET6_ADDRSTRLEN];
	static int turn;
	char *s = buf[turn++ & 7];

	if (is_v4(addr))
		inet_ntop(AF_INET, addr + 12, s, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, addr, s, INET6_ADDRSTRLEN);
	return s;
}

/* --- random tables, as a script for ip(8) --- */

/* Are there nexthop objects? A socket bound to a device finds no other route behind one that leads elsewhere
 * (fib_table_lookup in Linux), but that is not followed here. */
static bool objects;
static char script[64 * 1024];
static size_t script_len;

static void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	script_len += (size_t)vsnprintf(script + script_len, sizeof(script) - script_len, format, ap);
	va_end(ap);
	assert_true(script_len < sizeof(script));
}

/* Run what was said; commands that the kernel refuses are part of the game. */
static void run_script(void)
{
	FILE *ip = popen("ip -force -batch - 2>/dev/null", "w");

	assert_non_null(ip);
	assert_int_equal(fwrite(script, 1, script_len, ip), script_len);
	pclose(ip);
}

/* Addresses live in few bits, so that prefixes overlap. */
static const char *address(int family, char *buf)
{
	if (family == 4)
		sprintf(buf, "10.%u.%u.%u", rnd(4), rnd(4) * 64, rnd(6));
	else
		sprintf(buf, "2001:db8:%x:%x::%x", rnd(3), rnd(3) * 0x4000, rnd(6));
	return buf;
}

static void say_addresses(void)
{
	char a[64];

	for (int d = 0; d < DEVICES; d++) {
		say("link add a%d type veth peer name b%d\n", d, d);
		say("link set a%d mtu %u up\nlink set b%d up\n", d, 1300 + rnd(3) * 100, d);
		for (uint32_t n = rnd(3) + (d == 0); n > 0; n--)
			say("address add %s/%u dev a%d%s\n", address(4, a), 16 + rnd(15), d,
			    one_in(4) ? " scope link" : "");
		for (uint32_t n = rnd(3) + (d == 0); n > 0; n--)
			say("address add %s/%u dev a%d nodad%s\n", address(6, a), 32 + rnd(80), d,
			    one_in(4) ? " preferred_lft 0" : "");
	}
}

static void say_hop(int family)
{
	char a[64];

	if (one_in(4))
		say(" dev a%u", rnd(DEVICES));
	else if (family == 4 && one_in(8))
		say(" via inet6 %s dev a%u", address(6, a), rnd(DEVICES));
	else if (one_in(2))
		say(" via %s dev a%u onlink", address(family, a), rnd(DEVICES));
	else
		say(" via %s", address(family, a));
}

static void say_target(int family)
{
	if (one_in(6)) {
		uint32_t hops = 2 + rnd(3);

		for (uint32_t i = 0; i < hops; i++) {
			say(" nexthop");
			say_hop(family);
			if (one_in(2))
				say(" weight %u", 1 + rnd(9));
		}
	} else if (objects && one_in(10)) {
		say(" nhid %u", 1 + rnd(6));
	} else {
		say_hop(family);
	}
}

/* The kernel joins IPv6 routes of one prefix and metric (`append`) to a group, whose hops keep the MTUs that they were
 * given, but tells of the group as a whole with the first one's MTU: what the others' are can't be known. So here
 * IPv6 routes of one metric have the same. */
static uint32_t random_mtu(int family, uint32_t metric)
{
	if (family == 6)
		return metric == 100 ? 1285 : 0;
	return one_in(6) ? 1280 + rnd(200) : 0;
}

static void say_route(int family)
{
	static const char *const odd[] = {"blackhole", "unreachable", "prohibit", "throw"};
	char a[64];
	uint32_t most = family == 4 ? 32 : 64, least = family == 4 ? 8 : 28;
	uint32_t metric = one_in(3) ? 50 + rnd(3) * 50 : 0, mtu = random_mtu(family, metric);
	bool special = one_in(8), own = !special && one_in(12);

	say("route %s %s", one_in(6) ? "append" : "add", special ? odd[rnd(4)] : own ? "local" : "unicast");
	if (one_in(10))
		say(" default");
	else
		say(" %s/%u", address(family, a), least + rnd(most - least + 1));
	if (own)
		say(" dev lo");
	else if (!special)
		say_target(family);
	if (metric)
		say(" metric %u", metric);
	if (!special && mtu)
		say(" mtu %u", mtu);
	if (!special && one_in(8))
		say(" src %s", address(family, a));
	if (family == 4 && one_in(20))
		say(" tos 0x10");
	if (family == 4 && one_in(10))
		say(" table default");
	say("\n");
}

static void make_tables(void)
{
	script_len = 0;
	say_addresses();
	for (uint32_t i = 1; i <= 4; i++) {
		say("nexthop add id %u", i);
		say_hop(one_in(2) ? 4 : 6);
		say("\n");
	}
	say("nexthop add id 5 group 1,2/3,4\nnexthop add id 6 blackhole\n");
	for (int i = 0; i < 60; i++)
		say_route(i % 2 ? 4 : 6);
	/* the order of what has no host bits is as good as random */
	run_script();
}

/* --- the kernel's answer --- */

struct answer {
	int err;
	uint32_t type, ifindex, mtu;
	uint8_t via[16], from[16];
};

static void take_address(uint8_t out[16], const struct nlattr *a)
{
	if (mnl_attr_get_payload_len(a) == 4)
		map_v4(out, mnl_attr_get_payload(a));
	else if (mnl_attr_get_payload_len(a) == 16)
		memcpy(out, mnl_attr_get_payload(a), 16);
}

static void take_answer(const struct nlmsghdr *h, struct answer *k)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *a, *b;

	if (h->nlmsg_type == NLMSG_ERROR) {
		k->err = *(const int *)mnl_nlmsg_get_payload(h);
		return;
	}
	k->type = m->rtm_type;
	mnl_attr_for_each(a, h, sizeof(*m))
	{
		switch (mnl_attr_get_type(a)) {
		case RTA_OIF:
			k->ifindex = mnl_attr_get_u32(a);
			break;
		case RTA_GATEWAY:
			take_address(k->via, a);
			break;
		case RTA_VIA:
			memcpy(k->via, (char *)mnl_attr_get_payload(a) + sizeof(struct rtvia), 16);
			break;
		case RTA_PREFSRC:
			take_address(k->from, a);
			break;
		case RTA_METRICS:
			mnl_attr_for_each_nested(b, a) if (mnl_attr_get_type(b) == RTAX_MTU) k->mtu =
			    mnl_attr_get_u32(b);
		}
	}
}

static struct answer ask_kernel(struct mnl_socket *nl, const uint8_t to[16], uint32_t oif)
{
	char buf[8192] = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	struct answer k = {0};
	bool four = is_v4(to);
	ssize_t n;

	h->nlmsg_type = RTM_GETROUTE;
	h->nlmsg_flags = NLM_F_REQUEST;
	m->rtm_family = four ? AF_INET : AF_INET6;
	m->rtm_dst_len = four ? 32 : 128;
	mnl_attr_put(h, RTA_DST, four ? 4 : 16, to + (four ? 12 : 0));
	if (oif)
		mnl_attr_put_u32(h, RTA_OIF, oif);
	assert_true(mnl_socket_sendto(nl, h, h->nlmsg_len) > 0);
	n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	assert_true(n > 0);
	take_answer((struct nlmsghdr *)buf, &k);
	return k;
}

/* --- the comparison --- */

struct tally {
	uint32_t same, left, none, wrong;
};

static uint32_t device_mtu(const struct netview *v, uint32_t ifindex)
{
	const struct netview_copy *c = &v->copy[v->version & 1];

	for (uint32_t i = 0; i < c->ifaces; i++)
		if (c->iface[i].ifindex == ifindex)
			return c->iface[i].mtu;
	return 0;
}

static bool agrees(const struct netview *v, const struct answer *k, const struct route *r, const uint8_t to[16])
{
	static const uint8_t zeros[16];
	/* route.via names whose link address is wanted: the destination itself where there is no gateway */
	const uint8_t *via = memcmp(k->via, zeros, 16) != 0 ? k->via : to;
	/* the kernel tells a route's MTU as it was given; no packet can be larger than the device takes */
	uint32_t mtu = device_mtu(v, k->ifindex);

	if (k->mtu && k->mtu < mtu)
		mtu = k->mtu;

	return !k->err && k->type == RTN_UNICAST && r->ifindex == k->ifindex && !memcmp(r->via, via, 16) &&
	       !memcmp(r->from, k->from, 16) && r->mtu == mtu;
}

static void complain(const uint8_t to[16], uint32_t oif, int err, const struct route *r, const struct answer *k)
{
	print_message("to %s oif %u: ours %d dev %u via %s from %s mtu %u; kernel's %d type %u dev %u via %s from %s "
		      "mtu %u\n",
		      text(to), oif, err, r->ifindex, text(r->via), text(r->from), r->mtu, k->err, k->type, k->ifindex,
		      text(k->via), text(k->from), k->mtu);
}

/* Bound to a device, the kernel takes any of a route's hops there. Is its answer in the group that ours is of? */
static bool same_group(const struct netview *v, const struct route *r, const struct answer *k)
{
	const struct netview_copy *c = &v->copy[v->version & 1];
	bool ours = false, kernels = false;

	for (uint32_t i = 0; i < c->routes; i++) {
		const struct netview_route *hop = &c->route[i];

		if (hop->hops) {
			if (ours && kernels)
				return true;
			ours = kernels = false;
		}
		ours |= hop->ifindex == r->ifindex && !memcmp(hop->via, r->via, 16);
		kernels |= hop->ifindex == k->ifindex && !memcmp(hop->via, k->via, 16);
	}
	return ours && kernels;
}

/* Does the view's answer agree with the kernel's? *err and *first: what ours was. */
static bool same_answer(const struct netview *v, const uint8_t to[16], uint32_t oif, const struct answer *k, int *err,
			struct route *first)
{
	static const uint8_t any[16];
	struct route r;

	/* of several hops the kernel takes one by its own hash: it must be one that ours can come to */
	for (uint32_t hash = 0; hash < HASHES; hash++) {
		*err = route_lookup(v, to, any, oif, hash * (UINT32_MAX / HASHES), &r);
		if (!hash)
			*first = r;
		if (*err == 0 && (agrees(v, k, &r, to) || (oif && !k->err && same_group(v, &r, k))))
			return true;
	}
	return false;
}

static void compare(struct mnl_socket *nl, struct mirror *m, const uint8_t to[16], uint32_t oif, struct tally *t)
{
	for (;;) {
		struct pollfd p = {.fd = mirror_fd(m), .events = POLLIN};
		struct answer k = ask_kernel(nl, to, oif);
		struct route r;
		int err;

		if (same_answer(mirror_view(m), to, oif, &k, &err, &r)) {
			t->same++;
		} else if (err == -ENOENT) {
			t->left++;
		} else if (err == -ENETUNREACH && k.err == -ENETUNREACH) {
			t->none++;
		} else if (poll(&p, 1, SETTLED_MS) > 0) {
			/* the kernel does some of what it was told a little later, and says so */
			assert_true(mirror_run(m) >= 0);
			continue;
		} else {
			if (++t->wrong <= COMPLAINTS)
				complain(to, oif, err, &r, &k);
		}
		return;
	}
}

static void random_destination(uint8_t to[16])
{
	char buf[64];
	uint8_t four[4];

	if (one_in(2)) {
		inet_pton(AF_INET, one_in(10) ? "192.0.2.1" : address(4, buf), four);
		map_v4(to, four);
	} else {
		inet_pton(AF_INET6, one_in(10) ? "2001:db9::1" : address(6, buf), to);
	}
}

static void one_round(uint64_t seed, struct tally *t)
{
	struct mnl_socket *nl;
	struct mirror *m;
	uint32_t wrong = t->wrong;

	random_state = seed;
	objects = one_in(2);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(system("ip link set lo up"), 0);
	make_tables();
	nl = mnl_socket_open(NETLINK_ROUTE);
	assert_non_null(nl);
	assert_int_equal(mirror_start(&m), 0);
	assert_int_equal(mirror_view(m)->copy[mirror_view(m)->version & 1].refuse, 0);
	for (int i = 0; i < DESTINATIONS; i++) {
		uint8_t to[16];

		random_destination(to);
		compare(nl, m, to, 0, t);
		if (!objects && one_in(4))
			compare(nl, m, to, if_nametoindex("a1"), t);
	}
	if (t->wrong != wrong)
		printf("seed of this round: %llu; its tables:\n%s", (unsigned long long)seed, script);
	mirror_stop(m);
	mnl_socket_close(nl);
}

static void random_tables_are_followed_as_the_kernel_follows_them(void **state)
{
	const char *given = getenv("MIRROR_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000;
	struct tally t = {0};

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < (given ? 1 : ROUNDS) && !t.wrong; i++)
		one_round(seed + (uint64_t)i, &t);
	print_message("%u the same, %u left to the kernel, %u without a route, %u wrong\n", t.same, t.left, t.none,
		      t.wrong);
	assert_int_equal(t.wrong, 0);
	if (!given) { /* leaving everything to the kernel would be right, too */
		assert_true(t.same > ROUNDS * DESTINATIONS / 4);
		assert_true(t.none > 0);
	}
}

/* Root in a network namespace of our own, also for an ordinary user. */
static int setup(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		print_message("no network namespace may be made here\n");
		exit(77);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(random_tables_are_followed_as_the_kernel_follows_them),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
