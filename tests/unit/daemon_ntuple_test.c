/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flow rules of a NIC, against a double of ethtool's ioctls: a table of rules as include/uapi/linux/ethtool.h describes
 * it, of a driver that picks locations or one that does not.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/ntuple.h"

#define TABLE 6u
#define RINGS 8u

static struct {
	bool ntuple, picks, used[TABLE];
	uint32_t ring[RINGS]; /* of the indirection table */
	struct ethtool_rx_flow_spec rule[TABLE];
} nic;

static int rules(struct ethtool_rxnfc *c)
{
	uint32_t n = 0, at = c->fs.location;

	switch (c->cmd) {
	case ETHTOOL_GRXCLSRLCNT:
		for (uint32_t i = 0; i < TABLE; i++)
			n += nic.used[i];
		c->rule_cnt = n;
		c->data = TABLE | (nic.picks ? RX_CLS_LOC_SPECIAL : 0);
		return 0;
	case ETHTOOL_GRXCLSRLALL:
		for (uint32_t i = 0; i < TABLE; i++)
			if (nic.used[i] && n == c->rule_cnt)
				return -EMSGSIZE;
			else if (nic.used[i])
				c->rule_locs[n++] = i;
		c->rule_cnt = n;
		c->data = TABLE;
		return 0;
	case ETHTOOL_GRXCLSRULE:
		if (at >= TABLE || !nic.used[at])
			return -EINVAL;
		c->fs = nic.rule[at];
		return 0;
	case ETHTOOL_SRXCLSRLINS:
		if (at == RX_CLS_LOC_ANY && nic.picks)
			for (at = 0; at < TABLE && nic.used[at];)
				at++;
		if (at >= TABLE || nic.used[at])
			return nic.picks ? -ENOSPC : -EINVAL;
		nic.used[at] = true;
		c->fs.location = at;
		nic.rule[at] = c->fs;
		return 0;
	default:
		if (at >= TABLE || !nic.used[at])
			return -ENOENT;
		nic.used[at] = false;
		return 0;
	}
}

static int double_ioctl(int sock, const char *name, void *command)
{
	struct ethtool_value *value = command;
	struct ethtool_rxfh_indir *indir = command;

	(void)sock;
	assert_string_equal(name, "nic0");
	switch (value->cmd) {
	case ETHTOOL_GFLAGS:
		value->data = nic.ntuple ? ETH_FLAG_NTUPLE : 0;
		return 0;
	case ETHTOOL_GRXFHINDIR:
		if (indir->size)
			memcpy(indir->ring_index, nic.ring, sizeof(nic.ring));
		indir->size = RINGS;
		return 0;
	default:
		return rules(command);
	}
}

static int fresh(void **state)
{
	(void)state;
	memset(&nic, 0, sizeof(nic));
	nic.ntuple = true;
	ntuple_ioctl = double_ioctl;
	return 0;
}

static struct ntuple_rule tcp4(const char *local, uint16_t port, const char *remote, uint16_t remote_port)
{
	struct ntuple_rule r = {
	    .key = {.proto = IPPROTO_TCP, .family = 4, .local_port = htons(port), .remote_port = htons(remote_port)},
	    .queue = 5};

	if (local) {
		memset(r.key.local + 10, 0xff, 2);
		inet_pton(AF_INET, local, r.key.local + 12);
	}
	if (remote) {
		memset(r.key.remote + 10, 0xff, 2);
		inet_pton(AF_INET, remote, r.key.remote + 12);
	}
	return r;
}

static void rss_uses_the_queues_up_to_the_highest_in_its_table(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < RINGS; i++)
		nic.ring[i] = i % 3;
	assert_int_equal(ntuple_rss(-1, "nic0"), 3);
	nic.ring[2] = 6;
	assert_int_equal(ntuple_rss(-1, "nic0"), 7);
	nic.ntuple = false;
	assert_int_equal(ntuple_rss(-1, "nic0"), -EOPNOTSUPP);
}

static void a_rule_says_what_its_filter_says(void **state)
{
	struct ntuple_rule port = tcp4(NULL, 80, NULL, 0), flow = tcp4("10.0.0.1", 80, "10.0.0.2", 4000), six = {0};
	const struct ethtool_tcpip4_spec *h = &nic.rule[TABLE - 1].h_u.tcp_ip4_spec;
	const struct ethtool_tcpip4_spec *m = &nic.rule[TABLE - 1].m_u.tcp_ip4_spec;

	(void)state;
	assert_int_equal(ntuple_insert(-1, "nic0", &port), 0);
	assert_int_equal(port.location, TABLE - 1);
	assert_int_equal(nic.rule[TABLE - 1].flow_type, TCP_V4_FLOW);
	assert_int_equal(nic.rule[TABLE - 1].ring_cookie, 5);
	assert_int_equal(h->pdst, htons(80));
	assert_int_equal(m->pdst, 0xffff);
	assert_int_equal(m->psrc | m->ip4src | m->ip4dst | m->tos, 0);
	assert_int_equal(ntuple_remove(-1, "nic0", port.location), 0);
	flow.vlan = 7;
	assert_int_equal(ntuple_insert(-1, "nic0", &flow), 0);
	assert_int_equal(nic.rule[TABLE - 1].flow_type, TCP_V4_FLOW | FLOW_EXT);
	assert_int_equal(nic.rule[TABLE - 1].h_ext.vlan_tci, htons(7));
	assert_int_equal(nic.rule[TABLE - 1].m_ext.vlan_tci, htons(0xfff));
	assert_int_equal(h->ip4dst, inet_addr("10.0.0.1"));
	assert_int_equal(h->ip4src, inet_addr("10.0.0.2"));
	assert_int_equal(h->psrc, htons(4000));
	assert_int_equal(m->ip4dst & m->ip4src, 0xffffffff);
	assert_int_equal(m->psrc, 0xffff);
	six.key = (struct steer_key){.proto = IPPROTO_UDP, .family = 6, .local_port = htons(53)};
	six.key.local[0] = 0xfd;
	assert_int_equal(ntuple_insert(-1, "nic0", &six), 0);
	assert_int_equal(nic.rule[TABLE - 2].flow_type, UDP_V6_FLOW);
	assert_memory_equal(nic.rule[TABLE - 2].h_u.tcp_ip6_spec.ip6dst, six.key.local, 16);
	assert_int_equal(nic.rule[TABLE - 2].m_u.tcp_ip6_spec.ip6dst[3], 0xffffffff);
	assert_int_equal(nic.rule[TABLE - 2].m_u.tcp_ip6_spec.ip6src[0], 0);
}

static void a_full_table_is_said_to_be_full(void **state)
{
	(void)state;
	for (int picks = 0; picks < 2; picks++) {
		fresh(NULL);
		nic.picks = picks;
		for (uint32_t i = 0; i <= TABLE; i++) {
			struct ntuple_rule r = tcp4(NULL, (uint16_t)(80 + i), NULL, 0);

			assert_int_equal(ntuple_insert(-1, "nic0", &r), i < TABLE ? 0 : -ENOSPC);
		}
	}
}

static void rules_are_read_back_as_they_were_written_and_others_are_told_apart(void **state)
{
	struct ntuple_rule flow = tcp4("10.0.0.1", 80, "10.0.0.2", 4000), low = tcp4(NULL, 81, NULL, 0), *list;

	(void)state;
	flow.vlan = 9;
	low.queue = 1;
	assert_int_equal(ntuple_insert(-1, "nic0", &flow), 0);
	assert_int_equal(ntuple_insert(-1, "nic0", &low), 0);
	/* somebody's own: a whole network, and one that drops */
	nic.used[0] = nic.used[1] = true;
	nic.rule[0] = (struct ethtool_rx_flow_spec){.flow_type = TCP_V4_FLOW, .ring_cookie = 6, .location = 0};
	nic.rule[0].m_u.tcp_ip4_spec.ip4src = htonl(0xff000000);
	nic.rule[1] = (struct ethtool_rx_flow_spec){.flow_type = TCP_V4_FLOW, .ring_cookie = RX_CLS_FLOW_DISC};
	assert_int_equal(ntuple_list(-1, "nic0", 4, &list), 2);
	assert_int_equal(list[0].location, 0);
	assert_int_equal(list[0].key.proto, 0);
	assert_int_equal(list[1].queue, 5);
	assert_int_equal(list[1].vlan, 9);
	assert_int_equal(list[1].location, flow.location);
	assert_memory_equal(&list[1].key, &flow.key, sizeof(flow.key));
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(rss_uses_the_queues_up_to_the_highest_in_its_table, fresh),
	    cmocka_unit_test_setup(a_rule_says_what_its_filter_says, fresh),
	    cmocka_unit_test_setup(a_full_table_is_said_to_be_full, fresh),
	    cmocka_unit_test_setup(rules_are_read_back_as_they_were_written_and_others_are_told_apart, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
