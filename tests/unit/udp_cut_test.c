/* SPDX-License-Identifier: BSD-2-Clause */
/* Datagrams that are larger than their path takes. */
#include "net.h"

#include "engine/route.h"

static uint8_t payload[1452], whole[1500];

static struct sock *sender(struct net *n, const char *from)
{
	struct sock *k = net_socket(n, 0, SOCK_UDP, from, 4000);

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = stream(i);
	return k;
}

static ssize_t say(struct net *n, struct sock *k, const char *to, size_t len)
{
	struct endpoint at = {.port = 80};
	struct iovec iov[3] = {{payload, len / 3}, {payload + len / 3, 0}, {payload + len / 3, len - len / 3}};

	view_addr(at.addr, to);
	return udp_send(&n->e[0], k, n->vnic[0], &k->local, &at, iov, 3, n->now);
}

static void told(struct net *n, const char *to, uint32_t mtu)
{
	uint8_t addr[16];

	view_addr(addr, to);
	route_mtu(&n->e[0], addr, mtu);
}

/* Put the pieces that were sent together as RFC 8200 4.5 says. The packet's length, 0: they don't fit. */
static uint32_t together(struct net *n, uint32_t most)
{
	uint32_t len, end = 0, have = 0, id = 0;
	bool first = true;

	while ((len = rings_take(n->r[0], n->frame, sizeof(n->frame)))) {
		const uint8_t *ip = n->frame + ETH_HEADER, *frag = ip + IPV6_HEADER;
		uint32_t off = get_be16(frag + 2) & ~7u, bytes = len - ETH_HEADER - IPV6_HEADER - 8;

		assert_true(len - ETH_HEADER <= most);
		assert_int_equal(get_be16(ip + 4), bytes + 8);
		assert_int_equal(ip[6], PROTO_FRAGMENT);
		assert_int_equal(frag[0], PROTO_UDP);
		assert_true(first || get_be32(frag + 4) == id);
		id = get_be32(frag + 4);
		first = false;
		assert_true(off + bytes <= sizeof(whole));
		memcpy(whole + off, frag + 8, bytes);
		have += bytes;
		if (!(frag[3] & 1))
			end = off + bytes;
		else
			assert_int_equal(bytes % 8, 0);
	}
	return have == end ? end : 0;
}

static void a_datagram_of_ipv6_is_cut_to_what_the_path_takes(void **state)
{
	static const uint32_t sizes[] = {1253, 1256, 1300, 1448, 1451, 1452};
	struct net *n = net_new(0, 0);
	struct sock *k = sender(n, "fd00::1");
	uint8_t src[16], dst[16];

	(void)state;
	view_addr(src, "fd00::1");
	view_addr(dst, "fd00::2");
	assert_int_equal(say(n, k, "fd00::2", 1452), 1452);
	assert_int_equal(rings_take(n->r[0], n->frame, sizeof(n->frame)), ETH_HEADER + 1500); /* nobody said a word */
	told(n, "fd00::2", 1300);
	assert_int_equal(say(n, k, "fd00::2", 1252), 1252);
	assert_int_equal(rings_take(n->r[0], n->frame, sizeof(n->frame)), ETH_HEADER + 1300);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t len = sizes[i] + UDP_HEADER;

		assert_int_equal(say(n, k, "fd00::2", sizes[i]), sizes[i]);
		assert_int_equal(together(n, 1300), len);
		assert_int_equal(get_be16(whole + 4), len);
		assert_memory_equal(whole + UDP_HEADER, payload, sizes[i]);
		assert_int_equal(csum_fold(csum_add(whole, len, csum_pseudo(6, src, dst, PROTO_UDP, len))), 0);
	}
	engine_poll(&n->e[0], n->now, 1);
	net_free(n);
}

static void who_forbids_it_is_refused_and_told_why(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *k = sender(n, "fd00::1"), *four = sender(n, "10.0.0.1");
	struct sock_error err;
	struct udp_meta meta;

	(void)state;
	told(n, "fd00::2", 1300);
	told(n, "10.0.0.2", 60);                                /* less than anybody should believe */
	assert_int_equal(say(n, four, "10.0.0.2", 1452), 1452); /* routers may cut that */
	k->pmtudisc = four->pmtudisc = PMTU_DO;
	assert_int_equal(say(n, k, "fd00::2", 1253), -EMSGSIZE);
	assert_int_equal(k->errq.count, 0); /* nobody asked */
	k->flags |= SOCKF_RECVERR6;
	four->flags |= SOCKF_RECVERR;
	assert_int_equal(say(n, k, "fd00::2", 1253), -EMSGSIZE);
	assert_int_equal(say(n, four, "10.0.0.2", 525), -EMSGSIZE);
	assert_int_equal(say(n, four, "10.0.0.2", 524), 524);
	assert_int_equal(errqueue_take(&n->e[0], k, NULL, 0, &err, &meta), 0);
	assert_int_equal(err.origin, ERROR_LOCAL);
	assert_int_equal(err.info, 1300);
	assert_int_equal(k->so_error, 0);
	assert_int_equal(errqueue_take(&n->e[0], four, NULL, 0, &err, &meta), 0);
	assert_int_equal(err.info, 552);
	n->now += 601 * SECOND; /* the path may be another by now */
	assert_int_equal(say(n, k, "fd00::2", 1253), 1253);
	lose(n);
	net_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_datagram_of_ipv6_is_cut_to_what_the_path_takes),
	    cmocka_unit_test(who_forbids_it_is_refused_and_told_why),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
