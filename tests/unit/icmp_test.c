/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMP errors: to whom they are told, and the one that we send. TCP's reactions have tests of their own: icmp.c is
 * compiled into this one with functions that only note what TCP would be told.
 */
#define tcp_icmp_error note_error
#define tcp_icmp_mtu note_mtu
#include "engine/icmp.c"
#undef tcp_icmp_error
#undef tcp_icmp_mtu
#include "engine_pair.h"

static struct {
	struct sock *k;
	uint32_t seq, mtu;
	int err, calls;
	bool hard;
} told;

void note_error(struct engine *e, struct sock *k, uint32_t seq, int err, bool hard)
{
	(void)e;
	told.k = k;
	told.seq = seq;
	told.err = err;
	told.hard = hard;
	told.calls++;
}

void note_mtu(struct engine *e, struct sock *k, uint32_t seq, uint32_t mtu)
{
	(void)e;
	told.k = k;
	told.seq = seq;
	told.mtu = mtu;
	told.calls++;
}

static uint8_t f[256];

/* An ICMP error from 10.0.0.2 (fd..2) to 10.0.0.1 (fd..1) that quotes a packet of ours, `quoted` bytes of its transport
 * header; returns the frame's length. */
static uint32_t make_error(int family, uint8_t type, uint8_t code, uint32_t rest, uint8_t proto, uint32_t quoted)
{
	uint32_t header = family == 4 ? IPV4_HEADER : IPV6_HEADER, len = ICMP_HEADER + header + quoted;
	struct endpoint us = family == 4 ? v4(1, 1000) : v6(1, 1000), peer = family == 4 ? v4(2, 2000) : v6(2, 2000);
	uint8_t *ip = f + ETH_HEADER, *icmp = ip + header, *quote = icmp + ICMP_HEADER, l4[20] = {0};
	uint16_t sum;

	memset(f, 0, sizeof(f));
	f[0] = f[6] = 2;
	put_be16(f + 12, family == 4 ? ETH_IPV4 : ETH_IPV6);
	for (int i = 0; i < 2; i++) { /* the outer header, then the quoted one */
		uint8_t *h = i ? quote : ip;
		const struct endpoint *src = i ? &us : &peer, *dst = i ? &peer : &us;

		if (family == 4) {
			h[0] = 0x45;
			put_be16(h + 2, i ? 60 : IPV4_HEADER + len);
			h[8] = 64;
			h[9] = i ? proto : PROTO_ICMP;
			memcpy(h + 12, src->addr + 12, 4);
			memcpy(h + 16, dst->addr + 12, 4);
		} else {
			h[0] = 0x60;
			put_be16(h + 4, i ? 40 : len);
			h[6] = i ? proto : PROTO_ICMPV6;
			h[7] = 64;
			memcpy(h + 8, src->addr, 16);
			memcpy(h + 24, dst->addr, 16);
		}
	}
	put_be16(l4, us.port);
	put_be16(l4 + 2, peer.port);
	put_be32(l4 + 4, 0x12345678);
	memcpy(quote + header, l4, quoted);
	icmp[0] = type;
	icmp[1] = code;
	put_be32(icmp + 4, rest);
	sum = csum_fold(csum_add(icmp, len, family == 4 ? 0 : csum_pseudo(6, peer.addr, us.addr, PROTO_ICMPV6, len)));
	memcpy(icmp + 2, &sum, 2);
	if (family == 4)
		fix_ip_checksum(f);
	return ETH_HEADER + header + len;
}

static struct sock *connected(struct pair *t, enum sock_proto proto, int family)
{
	struct sock *k = sock_alloc(t->e[0], proto, family);

	k->local = family == 4 ? v4(1, 1000) : v6(1, 1000);
	k->remote = family == 4 ? v4(2, 2000) : v6(2, 2000);
	k->vnic = 0;
	k->vnic_gen = t->e[0]->vnic[0].gen;
	k->holders = 1;
	sock_hash(t->e[0]->s, k);
	memset(&told, 0, sizeof(told));
	return k;
}

static void give(struct pair *t, uint32_t len)
{
	engine_input(t->e[0], 0, f, len, false, t->now);
}

struct expect {
	uint8_t type, code;
	int err;
	bool hard;
};

static void ipv4_errors_reach_tcp_as_the_kernel_names_them(void **state)
{
	static const struct expect table[] = {
	    {3, 0, ENETUNREACH, false},  {3, 1, EHOSTUNREACH, false},  {3, 2, ENOPROTOOPT, true},
	    {3, 3, ECONNREFUSED, true},  {3, 9, ENETUNREACH, true},    {3, 10, EHOSTUNREACH, true},
	    {3, 13, EHOSTUNREACH, true}, {11, 0, EHOSTUNREACH, false}, {12, 0, EPROTO, true},
	};
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_TCP, 4);

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		give(t, make_error(4, table[i].type, table[i].code, 0, PROTO_TCP, 8));
		assert_int_equal(told.calls, (int)i + 1);
		assert_ptr_equal(told.k, k);
		assert_int_equal(told.seq, 0x12345678);
		assert_int_equal(told.err, table[i].err);
		assert_int_equal(told.hard, table[i].hard);
	}
	give(t, make_error(4, 3, 4, 1400, PROTO_TCP, 20));
	assert_int_equal(told.mtu, 1400);
	give(t, make_error(4, 3, 4, 0, PROTO_TCP, 20));
	assert_int_equal(told.mtu, 68);
	assert_int_equal(COUNTED(t->e[0], icmp_errors), 11);
	give(t, make_error(4, 11, 1, 0, PROTO_TCP, 8)); /* somebody's reassembly took too long */
	assert_int_equal(COUNTED(t->e[0], icmp_ignored), 1);
}

static void ipv6_errors_reach_tcp_as_the_kernel_names_them(void **state)
{
	static const struct expect table[] = {
	    {1, 0, ENETUNREACH, false}, {1, 1, EACCES, true},        {1, 3, EHOSTUNREACH, false},
	    {1, 4, ECONNREFUSED, true}, {3, 0, EHOSTUNREACH, false}, {4, 1, EPROTO, true},
	};
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_TCP, 6);

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		give(t, make_error(6, table[i].type, table[i].code, 0, PROTO_TCP, 8));
		assert_int_equal(told.calls, (int)i + 1);
		assert_ptr_equal(told.k, k);
		assert_int_equal(told.err, table[i].err);
		assert_int_equal(told.hard, table[i].hard);
	}
	give(t, make_error(6, 2, 0, 1300, PROTO_TCP, 20));
	assert_int_equal(told.mtu, 1300);
	give(t, make_error(6, 2, 0, 100, PROTO_TCP, 20));
	assert_int_equal(told.mtu, 1280);
}

static void what_concerns_no_socket_is_ignored(void **state)
{
	struct pair *t = *state;

	connected(t, SOCK_TCP, 4);
	for (int type = 0; type < 256; type++)
		if (type != 3 && type != 11 && type != 12)
			give(t, make_error(4, (uint8_t)type, 0, 0, PROTO_TCP, 8));
	for (int code = 16; code < 256; code++)
		give(t, make_error(4, 3, (uint8_t)code, 0, PROTO_TCP, 8));
	assert_int_equal(told.calls, 0);
	assert_int_equal(COUNTED(t->e[0], icmp_ignored), 253 + 240);
	assert_int_equal(t->e[0]->vnic[0].st->stats.tx_frames, 0); /* no echo reply either */
}

static void truncated_quotes_are_dropped(void **state)
{
	struct pair *t = *state;

	for (int family = 4; family <= 6; family += 2) {
		uint32_t header = family == 4 ? IPV4_HEADER : IPV6_HEADER, full;

		connected(t, SOCK_TCP, family);
		full = make_error(family, family == 4 ? 3 : 1, family == 4 ? 3 : 4, 0, PROTO_TCP, 8);
		for (uint32_t cut = 0; cut < header + 8 + ICMP_HEADER; cut++) {
			uint8_t *exact = malloc(full);

			memcpy(exact, f, ETH_HEADER + header + cut);
			put_be16(exact + ETH_HEADER + (family == 4 ? 2 : 4), (family == 4 ? header : 0) + cut);
			exact = realloc(exact, ETH_HEADER + header + cut);
			engine_input(t->e[0], 0, exact, ETH_HEADER + header + cut, true, t->now);
			free(exact);
		}
		assert_int_equal(told.calls, 0);
		give(t, full);
		assert_int_equal(told.calls, 1);
	}
}

static void a_quote_of_a_foreign_packet_is_dropped(void **state)
{
	struct pair *t = *state;
	uint8_t *quote = f + ETH_HEADER + IPV4_HEADER + ICMP_HEADER;
	uint32_t len;

	connected(t, SOCK_TCP, 4);
	for (uint32_t i = 0; i < IPV4_HEADER + 4; i++) {
		if ((i >= 1 && i < 6) || i == 8 || i == 10 || i == 11)
			continue; /* service, length, identification, TTL, checksum: nothing depends on them */
		len = make_error(4, 3, 3, 0, PROTO_TCP, 8);
		quote[i] ^= i == 6 ? 0x1f : 0x41;
		engine_input(t->e[0], 0, f, len, true, t->now);
		assert_int_equal(told.calls, 0);
	}
	len = make_error(4, 3, 3, 0, 47, 8); /* a protocol that is not ours */
	give(t, len);
	assert_int_equal(told.calls, 0);
	assert_true(COUNTED(t->e[0], icmp_bad) >= 12);
}

static void an_error_for_another_vnics_connection_is_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_TCP, 4);

	k->vnic = 1;
	give(t, make_error(4, 3, 3, 0, PROTO_TCP, 8));
	assert_int_equal(told.calls, 0);
	assert_int_equal(COUNTED(t->e[0], icmp_bad), 1);
}

static void a_wrong_checksum_is_dropped(void **state)
{
	struct pair *t = *state;

	for (int family = 4; family <= 6; family += 2) {
		uint32_t header = family == 4 ? IPV4_HEADER : IPV6_HEADER, len;

		connected(t, SOCK_TCP, family);
		len = make_error(family, family == 4 ? 3 : 1, 3, 0, PROTO_TCP, 8);
		for (uint32_t i = ETH_HEADER + header; i < len; i++) {
			f[i] ^= 4;
			give(t, len);
			f[i] ^= 4;
		}
		assert_int_equal(told.calls, 0);
		give(t, len);
		assert_int_equal(told.calls, 1);
	}
}

static void connected_udp_is_refused_where_nobody_listens(void **state)
{
	struct pair *t = *state;

	for (int family = 4; family <= 6; family += 2) {
		struct sock *k = connected(t, SOCK_UDP, family);
		uint8_t buf[8];

		t->now += 1000000;
		assert_int_equal(send_bytes(t, 0, k, k->remote, "anybody?", 8), 8);
		pair_poll(t, 1);
		assert_int_equal(COUNTED(t->e[1], icmp_sent), family / 2 - 1);
		pair_poll(t, 0);
		assert_int_equal(k->so_error, ECONNREFUSED);
		assert_true(k->edges & EV_ERR);
		assert_int_equal(recv_bytes(t->e[0], k, buf, 8, NULL), -ECONNREFUSED);
		udp_close(t->e[0], k);
	}
	assert_quiet(t);
}

static void a_large_datagram_is_refused_as_well(void **state)
{
	static uint8_t big[60000];
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_UDP, 4);

	t->now += 1000000;
	assert_int_equal(send_bytes(t, 0, k, k->remote, big, sizeof(big)), sizeof(big));
	pair_poll(t, 1);
	pair_poll(t, 0);
	assert_int_equal(k->so_error, ECONNREFUSED);
	udp_close(t->e[0], k);
	assert_quiet(t);
}

static void unconnected_udp_is_not_told(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[0], v4(1, 1000), NULL);

	t->now += 1000000;
	send_bytes(t, 0, k, v4(2, 2000), "anybody?", 8);
	pair_poll(t, 1);
	pair_poll(t, 0);
	assert_int_equal(k->so_error, 0);
	assert_int_equal(COUNTED(t->e[0], icmp_bad), 1);
	udp_close(t->e[0], k);
	assert_quiet(t);
}

/* What MSG_ERRQUEUE reads next. */
static ssize_t take_error(struct pair *t, struct sock *k, struct sock_error *err, struct udp_meta *meta, void *to,
			  size_t room)
{
	struct iovec iov = {to, room};

	return errqueue_take(t->e[0], k, &iov, 1, err, meta);
}

static void who_asks_for_errors_reads_them_in_order(void **state)
{
	struct pair *t = *state;

	for (int family = 4; family <= 6; family += 2) {
		struct sock *k = connected(t, SOCK_UDP, family);
		uint8_t gone = family == 4 ? 11 : 3, bad = family == 4 ? 12 : 4, got[64];
		struct sock_error err;
		struct udp_meta meta;

		give(t, make_error(family, gone, 0, 0, PROTO_UDP, 20)); /* soft, and nobody asked */
		assert_int_equal(k->so_error, 0);
		k->flags |= family == 4 ? SOCKF_RECVERR : SOCKF_RECVERR6;
		give(t, make_error(family, gone, 0, 0, PROTO_UDP, 20));
		give(t, make_error(family, bad, 0, 0x07000000, PROTO_UDP, 8));
		assert_int_equal(k->so_error, EPROTO);
		assert_int_equal(recv_bytes(t->e[0], k, got, 8, NULL), -EPROTO);
		assert_int_equal(udp_poll(t->e[0], k) & EV_ERR, EV_ERR);
		assert_int_equal(take_error(t, k, &err, &meta, got, sizeof(got)), 12);
		assert_int_equal(err.err, EHOSTUNREACH);
		assert_int_equal(err.origin, family == 4 ? ERROR_ICMP : ERROR_ICMP6);
		assert_int_equal(err.type, gone);
		assert_int_equal(err.info, 0);
		assert_memory_equal(err.offender, k->remote.addr, 16);
		assert_memory_equal(meta.from.addr, k->remote.addr, 16);
		assert_memory_equal(meta.to.addr, k->local.addr, 16);
		assert_int_equal(meta.from.port, 2000);
		assert_int_equal(k->so_error, EPROTO); /* the next one's */
		assert_int_equal(take_error(t, k, &err, &meta, got, sizeof(got)), 0);
		assert_int_equal(err.info, family == 4 ? 7 : 0x07000000);
		assert_int_equal(k->so_error, 0);
		assert_int_equal(udp_poll(t->e[0], k) & EV_ERR, 0);
		assert_int_equal(take_error(t, k, &err, &meta, got, sizeof(got)), -EAGAIN);
		udp_close(t->e[0], k);
	}
	assert_quiet(t);
}

static void a_bound_socket_that_asks_hears_of_peers_that_it_sends_to(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[0], v4(1, 1000), NULL);
	struct endpoint peer = v4(2, 2000);
	struct sock_error err;
	struct udp_meta meta;
	char got[4];

	k->flags |= SOCKF_RECVERR;
	give(t, make_error(4, 3, 3, 0, PROTO_UDP, 20)); /* nobody there that datagrams go to by that wire */
	assert_int_equal(k->errq.count, 0);
	udp_route_learn(t->e[0], &peer, 0);
	give(t, make_error(4, 3, 3, 0, PROTO_UDP, 20));
	assert_int_equal(k->so_error, ECONNREFUSED);
	assert_int_equal(take_error(t, k, &err, &meta, got, sizeof(got)), 4); /* cut, but its size is told */
	assert_int_equal(meta.size, 12);
	assert_int_equal(err.err, ECONNREFUSED);
	udp_close(t->e[0], k);
	assert_quiet(t);
}

static void a_flood_of_errors_is_bounded_by_the_receive_buffer(void **state)
{
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_UDP, 4);

	k->flags |= SOCKF_RECVERR;
	k->rcvbuf = 4096;
	for (int i = 0; i < 100; i++)
		give(t, make_error(4, 3, 3, 0, PROTO_UDP, 20));
	assert_in_range(k->errq.count, 4, 10);
	assert_int_equal(COUNTED(t->e[0], sock_error_lost), 100 - k->errq.count);
	assert_int_equal(stack_audit(t->e[0]), 0);
	errqueue_purge(t->e[0], k);
	k->rcvbuf = 1 << 30;
	for (int i = 0; i < 1000; i++)
		give(t, make_error(4, 3, 3, 0, PROTO_UDP, 20));
	assert_in_range(t->e[0]->s->private_pool.in_use, 10, t->e[0]->s->private_pool.limit / 2);
	udp_close(t->e[0], k);
	assert_quiet(t);
}

static void a_connection_attempt_that_fails_can_be_read_about(void **state)
{
	struct pair *t = *state;
	struct sock *k = connected(t, SOCK_TCP, 4);
	struct sock_error err;
	struct udp_meta meta;
	uint8_t got[20];

	k->tcp.state = TCP_SYN_SENT;
	k->tcp.iss = 0x12345678;
	give(t, make_error(4, 3, 1, 0, PROTO_TCP, 20)); /* nobody asked */
	assert_int_equal(k->errq.count, 0);
	k->flags |= SOCKF_RECVERR;
	give(t, make_error(4, 3, 1, 0, PROTO_TCP, 20));
	k->tcp.iss++;
	give(t, make_error(4, 3, 1, 0, PROTO_TCP, 20)); /* of another attempt */
	assert_int_equal(take_error(t, k, &err, &meta, got, sizeof(got)), 20);
	assert_int_equal(get_be16(got), 1000); /* the TCP header itself */
	assert_int_equal(err.err, EHOSTUNREACH);
	assert_int_equal(k->errq.count, 0);
	k->tcp.state = TCP_CLOSED;
}

static void too_big_is_told_with_the_mtu(void **state)
{
	struct pair *t = *state;
	struct sock_error err;
	struct udp_meta meta;

	for (int family = 4; family <= 6; family += 2) {
		struct sock *k = connected(t, SOCK_UDP, family);

		k->flags |= SOCKF_RECVERR | SOCKF_RECVERR6;
		give(t, make_error(family, family == 4 ? 3 : 2, family == 4 ? 4 : 0, 1400, PROTO_UDP, 20));
		assert_int_equal(k->so_error, EMSGSIZE);
		assert_int_equal(take_error(t, k, &err, &meta, NULL, 0), 0);
		assert_int_equal(err.info, 1400);
		k->pmtudisc = family == 4 ? PMTU_DONT : PMTU_INTERFACE; /* lets routers cut; takes no such messages */
		give(t, make_error(family, family == 4 ? 3 : 2, family == 4 ? 4 : 0, 1400, PROTO_UDP, 20));
		assert_int_equal(k->errq.count, 0);
		udp_close(t->e[0], k);
	}
	assert_quiet(t);
}

static void answers_are_limited_and_the_limit_recovers(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[0], v4(1, 1000), NULL);

	t->now += 1000000;
	for (int i = 0; i < 1000; i++) {
		send_bytes(t, 0, k, v4(2, 2000), "flood", 5);
		pair_poll(t, 1);
		pair_poll(t, 0);
	}
	assert_int_equal(COUNTED(t->e[1], icmp_sent), TOKENS);
	assert_int_equal(COUNTED(t->e[1], icmp_limited), 1000 - TOKENS);
	t->now += 10 * TOKEN_US;
	for (int i = 0; i < 100; i++) {
		send_bytes(t, 0, k, v4(2, 2000), "flood", 5);
		pair_poll(t, 1);
		pair_poll(t, 0);
	}
	assert_int_equal(COUNTED(t->e[1], icmp_sent), TOKENS + 10);
	udp_close(t->e[0], k);
	assert_quiet(t);
}

static void an_icmp_error_is_never_answered_with_another(void **state)
{
	struct pair *t = *state;

	give(t, make_error(4, 3, 3, 0, PROTO_UDP, 8)); /* nobody sent that */
	assert_int_equal(COUNTED(t->e[0], icmp_bad), 1);
	assert_int_equal(t->e[0]->vnic[0].st->stats.tx_frames, 0);
}

int main(void)
{
#define ON_PAIR(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    ON_PAIR(ipv4_errors_reach_tcp_as_the_kernel_names_them),
	    ON_PAIR(ipv6_errors_reach_tcp_as_the_kernel_names_them),
	    ON_PAIR(what_concerns_no_socket_is_ignored),
	    ON_PAIR(truncated_quotes_are_dropped),
	    ON_PAIR(a_quote_of_a_foreign_packet_is_dropped),
	    ON_PAIR(an_error_for_another_vnics_connection_is_dropped),
	    ON_PAIR(a_wrong_checksum_is_dropped),
	    ON_PAIR(connected_udp_is_refused_where_nobody_listens),
	    ON_PAIR(a_large_datagram_is_refused_as_well),
	    ON_PAIR(unconnected_udp_is_not_told),
	    ON_PAIR(who_asks_for_errors_reads_them_in_order),
	    ON_PAIR(a_bound_socket_that_asks_hears_of_peers_that_it_sends_to),
	    ON_PAIR(a_flood_of_errors_is_bounded_by_the_receive_buffer),
	    ON_PAIR(a_connection_attempt_that_fails_can_be_read_about),
	    ON_PAIR(too_big_is_told_with_the_mtu),
	    ON_PAIR(answers_are_limited_and_the_limit_recovers),
	    ON_PAIR(an_icmp_error_is_never_answered_with_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
