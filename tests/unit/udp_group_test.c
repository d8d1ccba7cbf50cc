/* SPDX-License-Identifier: BSD-2-Clause */
/* Datagrams to groups: which sockets of a stack hear them. */
#include <stdio.h>

#include "net.h"

#define GROUP "239.1.2.3"

/* A datagram of five bytes to a group, port 5000, from port 4000 of `from`. */
static uint32_t to_group(uint8_t *f, const char *from, const char *group)
{
	static const uint8_t eth4[ETH_HEADER] = {1, 0, 0x5e, 1, 2, 3, 2, 9, 9, 9, 9, 9, 8, 0},
			     eth6[ETH_HEADER] = {0x33, 0x33, 0, 0, 0, 1, 2, 9, 9, 9, 9, 9, 0x86, 0xdd},
			     text[5] = {'q', 'u', 'o', 't', 'e'};
	bool four = !strchr(group, ':');
	uint32_t header = four ? IPV4_HEADER : IPV6_HEADER, len = UDP_HEADER + sizeof(text);
	uint8_t *ip = f + ETH_HEADER, *udp = ip + header, src[16], dst[16];
	uint16_t sum;

	view_addr(src, from);
	view_addr(dst, group);
	memset(f, 0, ETH_HEADER + header + len);
	if (four) {
		memcpy(f, eth4, ETH_HEADER);
		ip[0] = 0x45;
		put_be16(ip + 2, header + len);
		ip[8] = 1;
		ip[9] = PROTO_UDP;
		memcpy(ip + 12, src + 12, 4);
		memcpy(ip + 16, dst + 12, 4);
		sum = csum_fold(csum_add(ip, header, 0));
		memcpy(ip + 10, &sum, 2);
	} else {
		memcpy(f, eth6, ETH_HEADER);
		ip[0] = 0x60;
		put_be16(ip + 4, len);
		ip[6] = PROTO_UDP;
		ip[7] = 1;
		memcpy(ip + 8, src, 16);
		memcpy(ip + 24, dst, 16);
	}
	put_be16(udp, 4000);
	put_be16(udp + 2, 5000);
	put_be16(udp + 4, len);
	memcpy(udp + UDP_HEADER, text, sizeof(text));
	sum = csum_fold(csum_add(udp, len, csum_pseudo(four ? 4 : 6, src, dst, PROTO_UDP, len)));
	memcpy(udp + 6, &sum, 2);
	return ETH_HEADER + header + len;
}

static void send_group(struct net *n, const char *from, const char *group)
{
	uint8_t f[128];
	uint32_t len = to_group(f, from, group);

	assert_true(rings_give(n->r[1], f, len));
	engine_poll(&n->e[1], n->now, 64);
}

static struct sock *bound(struct net *n, const char *addr)
{
	struct sock *k = net_socket(n, 1, SOCK_UDP, addr, 5000);

	sock_hash(n->e[1].s, k);
	return k;
}

static struct udp_member member(const char *group, const char *source, uint32_t mode)
{
	struct udp_member m = {.ifindex = 2, .mode = mode};

	view_addr(m.group, group);
	if (source)
		view_addr(m.source, source);
	return m;
}

static int join(struct sock *k, const char *group, const char *source, uint32_t mode)
{
	struct udp_member m = member(group, source, mode);

	return udp_join(k, &m);
}

static bool leave(struct sock *k, const char *group, const char *source, uint32_t mode)
{
	struct udp_member m = member(group, source, mode);

	return udp_leave(k, &m);
}

/* How many datagrams wait, which are thrown away. */
static uint32_t heard(struct net *n, struct sock *k)
{
	uint32_t waiting = k->rxq.count;
	struct udp_meta meta;
	char got[8];
	struct iovec iov = {got, sizeof(got)};

	for (uint32_t i = 0; i < waiting; i++) {
		assert_int_equal(udp_recv(&n->e[1], k, &iov, 1, false, &meta), 5);
		assert_memory_equal(got, "quote", 5);
		assert_int_equal(meta.ttl, 1);
		assert_int_equal(meta.to.port, 5000);
	}
	return waiting;
}

static void only_members_hear_a_group(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *any = bound(n, "0.0.0.0"), *here = bound(n, GROUP), *six = bound(n, "::");

	(void)state;
	send_group(n, "10.0.0.1", GROUP);
	assert_int_equal(heard(n, any) + heard(n, here), 0);
	assert_int_equal(n->e[1].s->counters[C_udp_not_member], 1);
	assert_int_equal(join(any, GROUP, NULL, UDP_MEMBER_ALL), 0);
	send_group(n, "10.0.0.1", GROUP);
	send_group(n, "10.0.0.1", "239.9.9.9"); /* another one */
	assert_int_equal(heard(n, any), 1);
	assert_int_equal(join(here, GROUP, NULL, UDP_MEMBER_ALL), 0);
	send_group(n, "10.0.0.1", GROUP); /* each of them gets it */
	assert_int_equal(heard(n, any), 1);
	assert_int_equal(heard(n, here), 1);
	assert_int_equal(join(six, "ff05::1", NULL, UDP_MEMBER_ALL), 0);
	send_group(n, "fd00::1", "ff05::1");
	assert_int_equal(heard(n, six), 1);
	assert_int_equal(heard(n, any), 0);
	assert_true(leave(any, GROUP, NULL, UDP_MEMBER_ALL));
	send_group(n, "10.0.0.1", GROUP);
	assert_int_equal(heard(n, any), 0);
	assert_int_equal(heard(n, here), 1);
	net_free(n);
}

static void sources_are_chosen_as_the_program_says(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = bound(n, "0.0.0.0");

	(void)state;
	join(k, GROUP, "10.0.0.1", UDP_MEMBER_SOURCE);
	join(k, GROUP, "10.0.0.7", UDP_MEMBER_SOURCE);
	send_group(n, "10.0.0.1", GROUP);
	send_group(n, "10.0.0.7", GROUP);
	send_group(n, "10.0.0.8", GROUP);
	assert_int_equal(heard(n, k), 2);
	assert_false(leave(k, GROUP, "10.0.0.7", UDP_MEMBER_SOURCE));
	send_group(n, "10.0.0.7", GROUP);
	assert_int_equal(heard(n, k), 0);
	assert_true(leave(k, GROUP, "10.0.0.1", UDP_MEMBER_SOURCE));
	join(k, GROUP, NULL, UDP_MEMBER_ALL);
	join(k, GROUP, "10.0.0.8", UDP_MEMBER_BLOCKED);
	send_group(n, "10.0.0.1", GROUP);
	send_group(n, "10.0.0.8", GROUP);
	assert_int_equal(heard(n, k), 1);
	assert_false(leave(k, GROUP, "10.0.0.8", UDP_MEMBER_BLOCKED));
	send_group(n, "10.0.0.8", GROUP);
	assert_int_equal(heard(n, k), 1);
	net_free(n);
}

static void another_interfaces_group_is_not_heard(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = bound(n, "0.0.0.0");
	struct udp_member m = member(GROUP, NULL, UDP_MEMBER_ALL);

	(void)state;
	m.ifindex = 3;
	assert_int_equal(udp_join(k, &m), 0);
	send_group(n, "10.0.0.1", GROUP);
	assert_int_equal(heard(n, k), 0);
	join(k, GROUP, NULL, UDP_MEMBER_ALL);
	k->dst.ifindex = 3; /* bound to that device */
	send_group(n, "10.0.0.1", GROUP);
	assert_int_equal(heard(n, k), 0);
	k->dst.ifindex = 2;
	send_group(n, "10.0.0.1", GROUP);
	assert_int_equal(heard(n, k), 1);
	net_free(n);
}

static void who_joins_more_groups_than_there_is_room_for_is_told(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = bound(n, "0.0.0.0");

	(void)state;
	for (uint32_t i = 0; i < UDP_MEMBERS; i++) {
		char group[32];

		snprintf(group, sizeof(group), "239.1.1.%u", i);
		assert_int_equal(join(k, group, NULL, UDP_MEMBER_ALL), 0);
		assert_int_equal(join(k, group, NULL, UDP_MEMBER_ALL), 0); /* is one already */
	}
	assert_int_equal(join(k, GROUP, NULL, UDP_MEMBER_ALL), -ENOSPC);
	assert_true(leave(k, "239.1.1.3", NULL, UDP_MEMBER_ALL));
	assert_int_equal(join(k, GROUP, NULL, UDP_MEMBER_ALL), 0);
	net_free(n);
}

static void nothing_but_a_datagram_comes_to_a_group(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = bound(n, "0.0.0.0");
	uint8_t f[128];
	uint32_t len = to_group(f, "10.0.0.1", GROUP);

	(void)state;
	join(k, GROUP, NULL, UDP_MEMBER_ALL);
	memcpy(f, "\x02\x01\x01\x01\x01\x02", 6); /* to us, says Ethernet */
	assert_true(rings_give(n->r[1], f, len));
	len = to_group(f, "10.0.0.1", "10.0.0.2"); /* to us, says IP */
	assert_true(rings_give(n->r[1], f, len));
	len = to_group(f, "10.0.0.2", GROUP); /* from us */
	assert_true(rings_give(n->r[1], f, len));
	len = to_group(f, "10.0.0.1", GROUP);
	f[ETH_HEADER + 9] = PROTO_TCP;
	f[ETH_HEADER + 10] = f[ETH_HEADER + 11] = 0;
	put_be16(f + ETH_HEADER + 10, (uint16_t)__builtin_bswap16(csum_fold(csum_add(f + ETH_HEADER, 20, 0))));
	assert_true(rings_give(n->r[1], f, len));
	engine_poll(&n->e[1], n->now, 64);
	assert_int_equal(heard(n, k), 0);
	assert_int_equal(n->e[1].s->counters[C_ip_bad_address], 2);
	assert_int_equal(n->e[1].s->counters[C_ip_spoofed], 1);
	assert_int_equal(n->e[1].s->counters[C_eth_group], 1);
	assert_int_equal(rings_take(n->r[1], n->frame, sizeof(n->frame)), 0); /* no answer either */
	net_free(n);
}

/* What end 0 has sent: its length. */
static uint32_t sent(struct net *n)
{
	return rings_take(n->r[0], n->frame, sizeof(n->frame));
}

static ssize_t say(struct net *n, struct sock *k, const char *to)
{
	struct endpoint group = {.port = 5000};
	struct iovec iov = {(void *)(uintptr_t) "quote", 5};

	view_addr(group.addr, to);
	return udp_send(&n->e[0], k, n->vnic[0], &k->local, &group, &iov, 1, n->now);
}

static void who_wants_no_copies_here_sends_to_a_group(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = net_socket(n, 0, SOCK_UDP, "0.0.0.0", 4000), *six = net_socket(n, 0, SOCK_UDP, "::", 4000);

	(void)state;
	k->udp.group_if = six->udp.group_if6 = 2;
	assert_int_equal(say(n, k, GROUP), -ENOLINK); /* members of this machine are the kernel's to serve */
	assert_int_equal(say(n, six, "ff15::1:2"), -ENOLINK);
	k->udp.loop_off = six->udp.loop6_off = 1;
	k->ttl = six->ttl = 9; /* of another kind */
	assert_int_equal(say(n, k, "239.129.2.3"), 5);
	assert_int_equal(sent(n), ETH_HEADER + IPV4_HEADER + UDP_HEADER + 5);
	assert_memory_equal(n->frame, "\x01\0\x5e\x01\x02\x03", 6);
	assert_memory_equal(n->frame + ETH_HEADER + 12, "\x0a\0\0\x01\xef\x81\x02\x03", 8);
	assert_int_equal(n->frame[ETH_HEADER + 8], 1);
	assert_int_equal(say(n, six, "ff15::1:2"), 5);
	assert_int_equal(sent(n), ETH_HEADER + IPV6_HEADER + UDP_HEADER + 5);
	assert_memory_equal(n->frame, "\x33\x33\0\x01\0\x02", 6);
	assert_int_equal(n->frame[ETH_HEADER + 7], 1);
	assert_int_equal(say(n, six, "ff02::1"), -ENOLINK); /* of a link, from an address of that link */
	k->udp.group_ttl = 256;
	assert_int_equal(say(n, k, GROUP), 5);
	assert_true(sent(n) > 0);
	assert_int_equal(n->frame[ETH_HEADER + 8], 255);
	k->udp.group_ttl = 1; /* 0: nobody but this machine */
	assert_int_equal(say(n, k, GROUP), -ENOLINK);
	k->udp.group_ttl = 0;
	k->udp.group_if = ~0u;
	assert_int_equal(say(n, k, GROUP), -ENOLINK);
	net_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(only_members_hear_a_group),
	    cmocka_unit_test(sources_are_chosen_as_the_program_says),
	    cmocka_unit_test(another_interfaces_group_is_not_heard),
	    cmocka_unit_test(who_joins_more_groups_than_there_is_room_for_is_told),
	    cmocka_unit_test(nothing_but_a_datagram_comes_to_a_group),
	    cmocka_unit_test(who_wants_no_copies_here_sends_to_a_group),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
