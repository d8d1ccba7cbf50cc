/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From messages of rtnetlink(7), made by hand, to the view: what a test's own namespace can't have everywhere (VLANs,
 * bonds, encapsulations), and messages that are cut short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include "daemon/mirror_raw.h"
#include "engine/bytes.h"

static struct raw_net *n;
static struct netview_copy *out;
static char buf[4096];

/* Messages go through here: also every shorter one must be harmless. */
static void take(void (*parse)(struct raw_net *, const struct nlmsghdr *), struct nlmsghdr *h)
{
	struct raw_net *scratch = calloc(1, sizeof(*scratch));
	uint32_t len = h->nlmsg_len;

	for (uint32_t cut = sizeof(*h); cut < len; cut++) {
		struct nlmsghdr *part = malloc(cut); /* what reads beyond it is caught */

		memcpy(part, h, cut);
		part->nlmsg_len = cut;
		parse(scratch, part);
		free(part);
	}
	raw_sort(scratch);
	raw_build(scratch, NULL, NULL, out);
	free(scratch);
	parse(n, h);
}

static struct nlmsghdr *message(uint16_t type)
{
	struct nlmsghdr *h;

	memset(buf, 0, sizeof(buf));
	h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = type;
	return h;
}

static struct nlmsghdr *link_message(uint32_t ifindex, const char *name)
{
	struct nlmsghdr *h = message(RTM_NEWLINK);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_index = (int)ifindex;
	m->ifi_type = ARPHRD_ETHER;
	m->ifi_flags = IFF_UP | IFF_LOWER_UP;
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	mnl_attr_put_u32(h, IFLA_MTU, 1500);
	mnl_attr_put(h, IFLA_ADDRESS, 6, "\2\0\0\0\0\1");
	return h;
}

static void plain(uint32_t ifindex, const char *name)
{
	take(raw_take_link, link_message(ifindex, name));
}

static void slave(uint32_t ifindex, const char *name, uint32_t master)
{
	struct nlmsghdr *h = link_message(ifindex, name);

	mnl_attr_put_u32(h, IFLA_MASTER, master);
	take(raw_take_link, h);
}

static void vlan(uint32_t ifindex, const char *name, uint32_t below, uint16_t id, uint16_t protocol, bool elsewhere)
{
	struct nlmsghdr *h = link_message(ifindex, name);
	struct nlattr *info, *data;

	mnl_attr_put_u32(h, IFLA_LINK, below);
	if (elsewhere)
		mnl_attr_put_u32(h, IFLA_LINK_NETNSID, 3);
	info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, "vlan");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	mnl_attr_put_u16(h, IFLA_VLAN_ID, id);
	mnl_attr_put_u16(h, IFLA_VLAN_PROTOCOL, htons(protocol));
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	take(raw_take_link, h);
}

static void bond(uint32_t ifindex, const char *name, uint8_t mode, uint32_t active)
{
	struct nlmsghdr *h = link_message(ifindex, name);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO), *data;

	mnl_attr_put_strz(h, IFLA_INFO_KIND, "bond");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	mnl_attr_put_u8(h, IFLA_BOND_MODE, mode);
	if (active)
		mnl_attr_put_u32(h, IFLA_BOND_ACTIVE_SLAVE, active);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	take(raw_take_link, h);
}

static void rule(int family, uint32_t priority, uint32_t table)
{
	struct nlmsghdr *h = message(RTM_NEWRULE);
	struct fib_rule_hdr *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->family = (uint8_t)family;
	m->action = FR_ACT_TO_TBL;
	mnl_attr_put_u32(h, FRA_TABLE, table);
	mnl_attr_put_u32(h, FRA_PRIORITY, priority);
	mnl_attr_put_u32(h, FRA_SUPPRESS_PREFIXLEN, UINT32_MAX);
	raw_take_rule(n, h);
}

static void v4_address(uint32_t ifindex, const char *text)
{
	struct nlmsghdr *h = message(RTM_NEWADDR);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	struct in_addr a;

	m->ifa_family = AF_INET;
	m->ifa_prefixlen = 24;
	m->ifa_index = ifindex;
	assert_int_equal(inet_pton(AF_INET, text, &a), 1);
	mnl_attr_put(h, IFA_LOCAL, 4, &a);
	take(raw_take_addr, h);
}

/* 10.9.0.0/16 or 2001:db8:9::/48; the caller goes on with it and takes it. */
static struct nlmsghdr *route_message(int family)
{
	struct nlmsghdr *h = message(RTM_NEWROUTE);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	uint8_t dst[16] = {0x20, 1, 0xd, 0xb8, 0, 9};

	m->rtm_family = (uint8_t)family;
	m->rtm_dst_len = family == AF_INET ? 16 : 48;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_type = RTN_UNICAST;
	if (family == AF_INET)
		mnl_attr_put(h, RTA_DST, 4, "\x0a\x09\0\0");
	else
		mnl_attr_put(h, RTA_DST, 16, dst);
	return h;
}

static void hop(struct nlmsghdr *h, uint32_t ifindex, const char *via, uint8_t flags)
{
	struct rtnexthop *nh = (struct rtnexthop *)(void *)((char *)h + h->nlmsg_len);
	struct nlattr *gw = (struct nlattr *)(nh + 1);

	*nh = (struct rtnexthop){
	    .rtnh_len = sizeof(*nh) + sizeof(*gw) + 4, .rtnh_flags = flags, .rtnh_ifindex = (int)ifindex};
	*gw = (struct nlattr){.nla_len = sizeof(*gw) + 4, .nla_type = RTA_GATEWAY};
	assert_int_equal(inet_pton(AF_INET, via, gw + 1), 1);
	h->nlmsg_len += nh->rtnh_len;
}

static void neigh(uint32_t ifindex, const uint8_t addr[16], uint16_t state)
{
	struct nlmsghdr *h = message(RTM_NEWNEIGH);
	struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ndm_family = AF_INET6;
	m->ndm_ifindex = (int)ifindex;
	m->ndm_state = state;
	mnl_attr_put(h, NDA_DST, 16, addr);
	if (state != NUD_FAILED)
		mnl_attr_put(h, NDA_LLADDR, 6, "\2\0\0\0\0\2");
	take(raw_take_neigh, h);
}

static void build(void)
{
	for (int family = AF_INET; family; family = family == AF_INET ? AF_INET6 : 0) {
		rule(family, 0, RT_TABLE_LOCAL);
		rule(family, 32766, RT_TABLE_MAIN);
		if (family == AF_INET)
			rule(family, 32767, RT_TABLE_DEFAULT);
	}
	raw_sort(n);
	raw_build(n, NULL, NULL, out);
	assert_int_equal(out->refuse, 0);
}

static const struct netview_iface *iface(uint32_t ifindex)
{
	for (uint32_t i = 0; i < out->ifaces; i++)
		if (out->iface[i].ifindex == ifindex)
			return &out->iface[i];
	fail();
	return NULL;
}

/* The route made by route_message; NULL: there is none. */
static const struct netview_route *route(void)
{
	for (uint32_t i = 0; i < out->routes; i++)
		if (out->route[i].hops && (out->route[i].prefix == 96 + 16 || out->route[i].prefix == 48))
			return &out->route[i];
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	n = calloc(1, sizeof(*n));
	out = calloc(1, sizeof(*out));
	return !n || !out;
}

static int teardown(void **state)
{
	(void)state;
	free(n);
	free(out);
	return 0;
}

/* --- interfaces --- */

static void a_vlan_is_a_tag_on_the_device_below(void **state)
{
	(void)state;
	plain(2, "eth0");
	vlan(3, "eth0.7", 2, 7, 0x8100, false);
	build();
	assert_int_equal(iface(3)->device, 2);
	assert_int_equal(iface(3)->vlan, 7);
	assert_int_equal(iface(3)->flags, NETVIEW_IF_UP | NETVIEW_IF_ALLOWED);
	assert_int_equal(iface(2)->vlan, 0);
}

static void tags_that_we_do_not_make_are_the_kernels(void **state)
{
	(void)state;
	plain(2, "eth0");
	vlan(3, "ad", 2, 7, 0x88a8, false);    /* 802.1ad */
	vlan(4, "inner", 3, 8, 0x8100, false); /* in it */
	vlan(5, "outer", 2, 9, 0x8100, false);
	vlan(6, "two", 5, 10, 0x8100, false);      /* two tags */
	vlan(7, "elsewhere", 2, 11, 0x8100, true); /* on a device of another namespace */
	vlan(8, "lost", 99, 12, 0x8100, false);    /* on one that is not there */
	vlan(9, "itself", 9, 13, 0x8100, false);
	build();
	for (uint32_t i = 3; i <= 9; i++)
		if (i != 5)
			assert_false(iface(i)->flags & NETVIEW_IF_ALLOWED);
	assert_true(iface(5)->flags & NETVIEW_IF_ALLOWED);
}

static void a_bond_with_one_active_device_is_that_device(void **state)
{
	(void)state;
	plain(2, "eth0");
	plain(3, "eth1");
	bond(4, "bond0", 1, 3);
	vlan(5, "bond0.5", 4, 5, 0x8100, false);
	bond(6, "all", 0, 0);  /* round robin */
	bond(7, "none", 1, 0); /* nobody is active */
	build();
	assert_int_equal(iface(4)->device, 3);
	assert_true(iface(4)->flags & NETVIEW_IF_ALLOWED);
	assert_int_equal(iface(5)->device, 3);
	assert_int_equal(iface(5)->vlan, 5);
	assert_false(iface(6)->flags & NETVIEW_IF_ALLOWED);
	assert_false(iface(7)->flags & NETVIEW_IF_ALLOWED);
}

static void a_bonds_frames_come_in_by_all_its_devices_and_leave_by_itself(void **state)
{
	uint32_t below[4], sends = 0;

	(void)state;
	slave(2, "eth0", 4);
	slave(3, "eth1", 4);
	bond(4, "bond0", 1, 3);
	vlan(5, "bond0.5", 4, 5, 0x8100, false);
	plain(6, "eth2");
	vlan(7, "eth2.5", 6, 5, 0x8100, false);
	vlan(8, "loop", 8, 5, 0x8100, false);
	for (uint32_t i = 4; i <= 5; i++) {
		assert_int_equal(raw_below(n, i, below, 4, &sends), 2);
		assert_int_equal(below[0], 2);
		assert_int_equal(below[1], 3);
		assert_int_equal(sends, 4);
	}
	assert_int_equal(raw_below(n, 4, below, 1, &sends), 1);
	for (uint32_t i = 6; i <= 7; i++) {
		assert_int_equal(raw_below(n, i, below, 4, &sends), 1);
		assert_int_equal(below[0], 6);
		assert_int_equal(sends, 6);
	}
	assert_int_equal(raw_below(n, 8, below, 4, &sends), 0);
	assert_int_equal(raw_below(n, 9, below, 4, &sends), 0);
}

static void more_interfaces_than_fit_leave_all_to_the_kernel(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= NETVIEW_IFACES + 1; i++)
		raw_take_link(n, link_message(i, "x"));
	raw_build(n, NULL, NULL, out);
	assert_int_equal(out->refuse, NETVIEW_REFUSE_OVERFLOW);
	assert_int_equal(out->routes, 0);
}

/* --- routes --- */

static void an_encapsulation_is_the_kernels(void **state)
{
	struct nlmsghdr *h;

	(void)state;
	plain(2, "eth0");
	v4_address(2, "10.1.0.1");
	h = route_message(AF_INET);
	mnl_attr_put_u32(h, RTA_OIF, 2);
	mnl_attr_put_u16(h, RTA_ENCAP_TYPE, 1);
	take(raw_take_route, h);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_KERNEL);
}

static void a_nexthop_object_that_is_not_spelt_out_is_the_kernels(void **state)
{
	struct nlmsghdr *h;

	(void)state;
	plain(2, "eth0");
	v4_address(2, "10.1.0.1");
	h = route_message(AF_INET);
	mnl_attr_put_u32(h, RTA_NH_ID, 5);
	take(raw_take_route, h);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_KERNEL);
}

static void dead_hops_are_left_out(void **state)
{
	struct nlmsghdr *h;
	struct nlattr *list;

	(void)state;
	plain(2, "eth0");
	v4_address(2, "10.1.0.1");
	h = route_message(AF_INET);
	list = mnl_attr_nest_start(h, RTA_MULTIPATH);
	hop(h, 2, "10.1.0.2", RTNH_F_DEAD);
	hop(h, 2, "10.1.0.3", 0);
	hop(h, 2, "10.1.0.4", RTNH_F_LINKDOWN);
	mnl_attr_nest_end(h, list);
	take(raw_take_route, h);
	build();
	assert_int_equal(route()->hops, 2);
	assert_int_equal(route()->via[15], 3);
	assert_int_equal(route()[1].via[15], 4);
	assert_int_equal(route()[1].hops, 0);
}

static void a_route_of_dead_hops_is_none(void **state)
{
	struct nlmsghdr *h;
	struct nlattr *list;

	(void)state;
	plain(2, "eth0");
	v4_address(2, "10.1.0.1");
	h = route_message(AF_INET);
	list = mnl_attr_nest_start(h, RTA_MULTIPATH);
	hop(h, 2, "10.1.0.2", RTNH_F_DEAD);
	mnl_attr_nest_end(h, list);
	take(raw_take_route, h);
	build();
	assert_null(route());
}

static void more_hops_than_we_follow_are_the_kernels(void **state)
{
	struct nlmsghdr *h;
	struct nlattr *list;

	(void)state;
	plain(2, "eth0");
	v4_address(2, "10.1.0.1");
	h = route_message(AF_INET);
	list = mnl_attr_nest_start(h, RTA_MULTIPATH);
	for (uint32_t i = 0; i <= RAW_HOPS_MAX; i++)
		hop(h, 2, "10.1.0.2", 0);
	mnl_attr_nest_end(h, list);
	take(raw_take_route, h);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_KERNEL);
	assert_int_equal(route()->hops, 1);
}

static void v6_via(uint8_t last, uint32_t metric)
{
	struct nlmsghdr *h = route_message(AF_INET6);
	uint8_t via[16] = {0xfe, 0x80, [15] = last};

	mnl_attr_put_u32(h, RTA_OIF, 2);
	mnl_attr_put_u32(h, RTA_PRIORITY, metric);
	mnl_attr_put(h, RTA_GATEWAY, 16, via);
	take(raw_take_route, h);
}

/* rt6_score_route in Linux: it goes round gateways that don't answer. */
static void an_ipv6_gateway_that_does_not_answer_is_followed_only_if_it_is_the_only_one(void **state)
{
	uint8_t gw[16] = {0xfe, 0x80, [15] = 1};

	(void)state;
	plain(2, "eth0");
	v6_via(1, 100);
	neigh(2, gw, NUD_FAILED);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_UNICAST);
	v6_via(2, 200);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_KERNEL);
	neigh(2, gw, NUD_REACHABLE);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_UNICAST);
}

static void equal_ipv6_routes_are_the_kernels_to_choose(void **state)
{
	(void)state;
	plain(2, "eth0");
	v6_via(1, 100);
	v6_via(2, 100);
	build();
	assert_int_equal(route()->type, NETVIEW_ROUTE_KERNEL);
}

/* --- neighbours --- */

static void neighbours_are_kept_in_order_and_found(void **state)
{
	uint8_t addr[16] = {0x20, 1};

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		addr[15] = (uint8_t)(i * 37);
		neigh(2 + i % 2, addr, NUD_STALE);
	}
	for (uint32_t i = 1; i < n->neighs; i++)
		assert_true(memcmp(n->neigh[i - 1].addr, n->neigh[i].addr, 16) <= 0);
	assert_int_equal(n->neighs, 100);
	for (uint32_t i = 0; i < 100; i++) {
		addr[15] = (uint8_t)(i * 37);
		assert_non_null(raw_neigh(n, 2 + i % 2, addr));
		assert_null(raw_neigh(n, 3 - i % 2, addr));
	}
	assert_false(raw_neigh_retry(n, 2, addr));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(a_vlan_is_a_tag_on_the_device_below),
	    TEST(tags_that_we_do_not_make_are_the_kernels),
	    TEST(a_bond_with_one_active_device_is_that_device),
	    TEST(a_bonds_frames_come_in_by_all_its_devices_and_leave_by_itself),
	    TEST(more_interfaces_than_fit_leave_all_to_the_kernel),
	    TEST(an_encapsulation_is_the_kernels),
	    TEST(a_nexthop_object_that_is_not_spelt_out_is_the_kernels),
	    TEST(dead_hops_are_left_out),
	    TEST(a_route_of_dead_hops_is_none),
	    TEST(more_hops_than_we_follow_are_the_kernels),
	    TEST(an_ipv6_gateway_that_does_not_answer_is_followed_only_if_it_is_the_only_one),
	    TEST(equal_ipv6_routes_are_the_kernels_to_choose),
	    TEST(neighbours_are_kept_in_order_and_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
