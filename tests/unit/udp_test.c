/* SPDX-License-Identifier: BSD-2-Clause */
/* UDP over a wire between two stacks. */
#include "engine_pair.h"

#define MAX_V4 65507u

static uint8_t pattern[70000], got[70000];

static void fill_pattern(uint64_t seed)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)random_below(&seed, 256);
}

static void datagrams_of_every_size_arrive_whole(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t sizes[] = {0, 1, 64, 1472, 3960, 3961, 4088, 4096, 8056, 8057, 30000, MAX_V4 - 1, MAX_V4};

	fill_pattern(test_seed());
	b->rcvbuf = 1 << 20;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct udp_meta meta;

		assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), pattern, sizes[i]), sizes[i]);
		assert_int_equal(pair_poll(t, 1), 1);
		assert_int_equal(b->rxq.count, 1);
		assert_int_equal(udp_first_size(t->e[1], b), sizes[i]);
		memset(got, 0xee, sizeof(got));
		assert_int_equal(recv_bytes(t->e[1], b, got, sizeof(got), &meta), sizes[i]);
		assert_memory_equal(got, pattern, sizes[i]);
		assert_int_equal(got[sizes[i]], 0xee);
		assert_int_equal(meta.size, sizes[i]);
		assert_int_equal(meta.from.port, 1000);
		assert_int_equal(meta.to.port, 2000);
		assert_memory_equal(meta.from.addr, v4(1, 0).addr, 16);
		assert_memory_equal(meta.to.addr, v4(2, 0).addr, 16);
		assert_int_equal(meta.vnic, 0);
		assert_int_equal(meta.ttl, 64);
		assert_int_equal(recv_bytes(t->e[1], b, got, sizeof(got), NULL), -EAGAIN);
	}
	assert_quiet(t);
}

static void ipv6_carries_them_too(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v6(1, 1000), NULL),
		    *b = udp_socket(t->e[1], (struct endpoint){.port = 2000}, NULL);
	struct udp_meta meta;

	fill_pattern(1);
	b->family = 6;
	a->tos = 0xb8;
	a->ttl = 3;
	b->rcvbuf = 1 << 20;
	assert_int_equal(send_bytes(t, 0, a, v6(2, 2000), pattern, 65487), 65487);
	assert_int_equal(send_bytes(t, 0, a, v6(2, 2000), pattern, 65488), -EMSGSIZE);
	pair_poll(t, 1);
	assert_int_equal(recv_bytes(t->e[1], b, got, sizeof(got), &meta), 65487);
	assert_memory_equal(got, pattern, 65487);
	assert_memory_equal(meta.from.addr, v6(1, 0).addr, 16);
	assert_int_equal(meta.tos, 0xb8);
	assert_int_equal(meta.ttl, 3);
	assert_quiet(t);
}

static void too_large_a_datagram_is_refused_before_anything_is_used(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL);
	struct iovec huge[2] = {{pattern, SIZE_MAX - 5}, {pattern, 100}};
	struct endpoint to = v4(2, 2000);

	assert_int_equal(send_bytes(t, 0, a, to, pattern, MAX_V4 + 1), -EMSGSIZE);
	assert_int_equal(udp_send(t->e[0], a, 0, &a->local, &to, huge, 2, t->now), -EMSGSIZE);
	stack_vnic(t->e[0]->s, 0)->mtu = 1500;
	assert_int_equal(send_bytes(t, 0, a, to, pattern, 1473), -EMSGSIZE);
	assert_int_equal(send_bytes(t, 0, a, to, pattern, 1472), 1472);
	stack_vnic(t->e[0]->s, 0)->mtu = 65535;
	stack_vnic(t->e[0]->s, 0)->features &= ~VNIC_FEAT_SCATTER;
	assert_int_equal(send_bytes(t, 0, a, to, pattern, 5000), -EMSGSIZE);
	assert_int_equal(udp_send(t->e[0], a, 7, &a->local, &to, huge, 0, t->now), -ENETDOWN);
	pair_poll(t, 1);
	assert_int_equal(COUNTED(t->e[1], udp_no_socket), 1);
	assert_quiet(t);
}

static void scattered_and_gathered_bytes_keep_their_order(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct endpoint to = v4(2, 2000);
	uint64_t seed = test_seed();

	fill_pattern(seed);
	for (int round = 0; round < 200; round++) {
		struct iovec in[8], out[8];
		uint32_t total = 0, want = random_below(&seed, 2 * 9000), at = 0;
		ssize_t n;

		for (int i = 0; i < 8; i++) {
			uint32_t len = random_below(&seed, 3) ? random_below(&seed, 3000) : 0;

			in[i] = (struct iovec){pattern + total, len};
			total += len;
			len = i == 7 ? 20000 : random_below(&seed, want / 2 + 1);
			out[i] = (struct iovec){got + at, len};
			at += len;
		}
		memset(got, 0, total);
		assert_int_equal(udp_send(t->e[0], a, 0, &a->local, &to, in, 8, t->now), total);
		pair_poll(t, 1);
		n = udp_recv(t->e[1], b, out, 8, false, NULL);
		assert_int_equal(n, total);
		assert_memory_equal(got, pattern, total);
	}
	assert_quiet(t);
}

static void a_short_read_loses_the_rest_but_tells_the_size(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct iovec iov = {got, 10};
	struct udp_meta meta;

	send_bytes(t, 0, a, v4(2, 2000), "0123456789abcdef", 16);
	send_bytes(t, 0, a, v4(2, 2000), "next", 4);
	pair_poll(t, 1);
	assert_int_equal(udp_recv(t->e[1], b, &iov, 1, true, &meta), 10); /* a peek leaves it */
	assert_int_equal(meta.size, 16);
	assert_int_equal(udp_recv(t->e[1], b, &iov, 1, true, &meta), 10);
	assert_int_equal(recv_bytes(t->e[1], b, got, 10, &meta), 10);
	assert_int_equal(meta.size, 16);
	assert_memory_equal(got, "0123456789", 10);
	assert_int_equal(recv_bytes(t->e[1], b, NULL, 0, &meta), 0);
	assert_int_equal(meta.size, 4);
	assert_int_equal(recv_bytes(t->e[1], b, got, 10, &meta), -EAGAIN);
	assert_quiet(t);
}

static void a_connected_socket_hears_its_peer_only(void **state)
{
	struct pair *t = *state;
	struct endpoint peer = v4(1, 1000);
	struct sock *a = udp_socket(t->e[0], peer, NULL), *x = udp_socket(t->e[0], v4(1, 1001), NULL);
	struct sock *open = udp_socket(t->e[1], v4(2, 2000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), &peer);

	send_bytes(t, 0, a, v4(2, 2000), "peer", 4);
	send_bytes(t, 0, x, v4(2, 2000), "else", 4);
	pair_poll(t, 1);
	assert_int_equal(b->rxq.count, 1);
	assert_int_equal(open->rxq.count, 1);
	assert_int_equal(recv_bytes(t->e[1], b, got, 10, NULL), 4);
	assert_memory_equal(got, "peer", 4);
	udp_close(t->e[1], open);
	send_bytes(t, 0, x, v4(2, 2000), "else", 4);
	pair_poll(t, 1);
	assert_int_equal(b->rxq.count, 0);
	assert_int_equal(COUNTED(t->e[1], udp_no_socket), 1);
	pair_poll(t, 0);
	assert_quiet(t);
}

static void the_receive_buffer_bounds_the_queue(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t fit;

	b->rcvbuf = 10 * (100 + UDP_RX_OVERHEAD);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), pattern, 100), 100);
		pair_poll(t, 1);
	}
	fit = b->rxq.count;
	assert_int_equal(fit, 11); /* the one that exceeds it is still taken, as by the kernel */
	assert_int_equal(b->udp.rx_dropped, 50 - fit);
	assert_int_equal(COUNTED(t->e[1], udp_rx_full), 50 - fit);
	while (fit--)
		assert_int_equal(recv_bytes(t->e[1], b, got, 200, NULL), 100);
	send_bytes(t, 0, a, v4(2, 2000), pattern, 100);
	pair_poll(t, 1);
	assert_int_equal(b->rxq.count, 1);
	udp_close(t->e[1], b);
	udp_close(t->e[0], a);
	assert_quiet(t);
}

static void many_unread_small_datagrams_leave_the_peer_its_buffers(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);

	b->rcvbuf = 1 << 30;
	for (uint32_t i = 0; i < 600; i++) {
		put_be32(pattern, i);
		assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), pattern, 64), 64);
		pair_poll(t, 1);
	}
	assert_int_equal(b->rxq.count, 600);
	assert_true(stack_vnic(t->e[1]->s, 0)->rx_held <= WIRE_BUFS / 8 + 1);
	assert_int_equal(stack_audit(t->e[1]), 0);
	for (uint32_t i = 0; i < 600; i++) {
		assert_int_equal(recv_bytes(t->e[1], b, got, 100, NULL), 64);
		assert_int_equal(get_be32(got), i);
	}
	assert_quiet(t);
}

static void a_sender_leaves_buffers_to_others_and_hears_when_some_are_back(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct vnic_state *st = stack_vnic(t->e[0]->s, 0);
	uint32_t sent = 0;

	b->rcvbuf = 1;
	while (send_bytes(t, 0, a, v4(2, 2000), pattern, 9000) == 9000)
		sent++;
	assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), pattern, 9000), -EAGAIN);
	assert_in_range(st->free_top, TXWAIT_RESERVE + 1, 100);
	assert_int_equal(sent, (WIRE_BUFS - 64) / 3);
	assert_int_equal(udp_poll(t->e[0], a) & EV_OUT, 0);
	a->edges = 0;
	a->dirty_mask = 0;
	pair_poll(t, 1);
	t->e[1]->vnic[0].ops->flush(&t->e[1]->vnic[0]);
	pair_poll(t, 0);
	assert_int_equal(a->edges, EV_OUT);
	assert_int_equal(udp_poll(t->e[0], a) & EV_OUT, EV_OUT);
	assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), pattern, 9000), 9000);
	pair_poll(t, 1);
	udp_close(t->e[1], b);
	assert_quiet(t);
}

static void a_full_pool_drops_and_recovers(void **state)
{
	struct stack_config cfg = pair_config();
	struct pair *t;
	struct sock *a, *b;
	int taken;

	(void)state;
	cfg.max_pkts = 20;
	t = pair_make(&cfg);
	a = udp_socket(t->e[0], v4(1, 1000), NULL);
	b = udp_socket(t->e[1], v4(2, 2000), NULL);
	b->rcvbuf = 1 << 30;
	for (int i = 0; i < 30; i++) {
		send_bytes(t, 0, a, v4(2, 2000), pattern, i % 3 * 3000u);
		pair_poll(t, 1);
		assert_int_equal(stack_audit(t->e[1]), 0);
	}
	taken = (int)b->rxq.count;
	assert_int_equal(b->udp.rx_dropped, 30 - taken);
	assert_true(taken > 5 && taken < 20);
	assert_true(COUNTED(t->e[1], udp_rx_no_memory) > 0);
	while (taken--)
		assert_true(recv_bytes(t->e[1], b, got, sizeof(got), NULL) >= 0);
	assert_quiet(t);
	pair_free(t);
}

static void readiness_follows_queue_and_shutdown(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);

	assert_int_equal(udp_poll(t->e[1], b), EV_OUT | EV_WRNORM | EV_WRBAND);
	send_bytes(t, 0, a, v4(2, 2000), "", 0);
	pair_poll(t, 1);
	assert_int_equal(b->edges, EV_IN);
	assert_int_equal(t->e[1]->s->proc[0].dirty_tail, 1);
	assert_int_equal(udp_poll(t->e[1], b) & (EV_IN | EV_RDNORM), EV_IN | EV_RDNORM);
	assert_int_equal(recv_bytes(t->e[1], b, got, 1, NULL), 0);
	assert_int_equal(udp_poll(t->e[1], b) & EV_IN, 0);
	b->flags |= SOCKF_SHUT_RD;
	assert_int_equal(udp_poll(t->e[1], b) & (EV_IN | EV_RDHUP | EV_HUP), EV_IN | EV_RDHUP);
	b->flags |= SOCKF_SHUT_WR;
	assert_int_equal(udp_poll(t->e[1], b) & EV_HUP, EV_HUP);
	assert_quiet(t);
}

static void replies_find_the_way_back(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL);
	struct endpoint from = v4(1, 1000), unknown = v4(1, 999);

	udp_socket(t->e[1], v4(2, 2000), NULL);
	assert_int_equal(udp_route_lookup(t->e[1], &from), VNIC_NONE);
	send_bytes(t, 0, a, v4(2, 2000), "x", 1);
	pair_poll(t, 1);
	assert_int_equal(udp_route_lookup(t->e[1], &from), 0);
	assert_int_equal(udp_route_lookup(t->e[1], &unknown), VNIC_NONE);
	engine_vnic_dead(t->e[1], 0, t->now);
	assert_int_equal(udp_route_lookup(t->e[1], &from), VNIC_NONE);
}

/* A second vNIC of stack 1, that leads nowhere. */
static uint32_t second_vnic(struct pair *t, void *wire)
{
	uint32_t n = test_wire_join(wire, 0, t->e[1]);

	assert_true(n > 0);
	return n;
}

static void a_datagram_cant_take_a_route_that_the_socket_layer_vouches_for(void **state)
{
	struct pair *t = *state;
	void *wire = test_wire_new(NULL);
	uint32_t other = second_vnic(t, wire);
	struct sock *a = udp_socket(t->e[0], v4(1, 53), NULL);
	struct endpoint dns = v4(1, 53);

	udp_socket(t->e[1], v4(2, 2000), NULL);
	udp_route_learn(t->e[1], &dns, other);
	send_bytes(t, 0, a, v4(2, 2000), "forged", 6);
	pair_poll(t, 1);
	assert_int_equal(udp_route_lookup(t->e[1], &dns), other);
	engine_vnic_dead(t->e[1], other, t->now); /* now nobody vouches for anything */
	send_bytes(t, 0, a, v4(2, 2000), "honest", 6);
	pair_poll(t, 1);
	assert_int_equal(udp_route_lookup(t->e[1], &dns), 0);
	assert_int_equal(engine_vnic_free(t->e[1], other), 0);
	test_wire_free(wire);
}

static void a_flood_of_sources_cant_push_a_vouched_route_out(void **state)
{
	struct pair *t = *state;
	void *wire = test_wire_new(NULL);
	uint32_t other = second_vnic(t, wire);
	struct sock *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct endpoint dns = v4(1, 53), last = dns;

	udp_route_learn(t->e[1], &dns, other);
	for (uint32_t i = 0; i < 20000; i++) {
		uint8_t f[128];
		uint32_t len = make_udp4(f, "x", 1);

		put_be16(f + ETH_HEADER + IPV4_HEADER, 1 + i);
		last = v4(1, (uint16_t)(1 + i));
		engine_input(t->e[1], 0, f, len, true, t->now);
		assert_int_equal(recv_bytes(t->e[1], b, got, 1, NULL), 1);
	}
	assert_int_equal(udp_route_lookup(t->e[1], &dns), other);
	assert_int_equal(udp_route_lookup(t->e[1], &last), 0);
	test_wire_free(wire);
}

static void vouched_routes_themselves_are_bounded_and_the_newest_stay(void **state)
{
	struct pair *t = *state;
	uint32_t known = 0;

	for (uint32_t i = 0; i < 60000; i++) {
		struct endpoint to = v4((uint8_t)(i >> 12), (uint16_t)(1 + i));

		udp_route_learn(t->e[0], &to, 0);
		assert_int_equal(udp_route_lookup(t->e[0], &to), 0);
	}
	for (uint32_t i = 0; i < 60000; i++) {
		struct endpoint to = v4((uint8_t)(i >> 12), (uint16_t)(1 + i));

		known += udp_route_lookup(t->e[0], &to) == 0;
	}
	assert_int_equal(known, UDP_ROUTE_SETS * UDP_ROUTE_WAYS);
}

static void lengths_that_lie_are_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t lies[] = {0, 7, 8 + 33, 65535};
	uint8_t f[256];

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint32_t len = make_udp4(f, pattern, 32);

		put_be16(f + ETH_HEADER + IPV4_HEADER + 4, lies[i]);
		engine_input(t->e[1], 0, f, len, true, t->now);
		assert_int_equal(COUNTED(t->e[1], udp_truncated), i + 1);
	}
	for (uint32_t cut = 0; cut < UDP_HEADER; cut++) { /* an IP packet that ends within the UDP header */
		make_udp4(f, pattern, 32);
		put_be16(f + ETH_HEADER + 2, IPV4_HEADER + cut);
		engine_input(t->e[1], 0, f, ETH_HEADER + IPV4_HEADER + cut, true, t->now);
	}
	assert_int_equal(COUNTED(t->e[1], udp_truncated), 4 + UDP_HEADER);
	make_udp4(f, pattern, 32);
	put_be16(f + ETH_HEADER + IPV4_HEADER + 4, 8 + 5); /* shorter than IP says: padding, legal */
	engine_input(t->e[1], 0, f, ETH_HEADER + IPV4_HEADER + 40, true, t->now);
	assert_int_equal(b->rxq.count, 1);
	assert_int_equal(udp_first_size(t->e[1], b), 5);
	udp_close(t->e[1], b);
	assert_quiet(t);
}

static void a_bad_checksum_is_never_trusted(void **state)
{
	struct pair *t = *state;
	struct sock *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t first = ETH_HEADER + IPV4_HEADER, bad = 0;
	uint8_t f[256];

	for (uint32_t len = 0; len < 40; len += 3) {
		uint32_t total = make_udp4(f, pattern, len);

		engine_input(t->e[1], 0, f, total, false, t->now);
		assert_int_equal(b->rxq.count, 1);
		assert_int_equal(recv_bytes(t->e[1], b, got, 64, NULL), len);
		for (uint32_t i = first + 6; i < total; i++) { /* ports and length lead elsewhere */
			f[i] ^= 0x10;
			engine_input(t->e[1], 0, f, total, false, t->now);
			f[i] ^= 0x10;
			bad++;
		}
		memset(f + first + 6, 0, 2); /* none: allowed over IPv4 */
		engine_input(t->e[1], 0, f, total, false, t->now);
		assert_int_equal(recv_bytes(t->e[1], b, got, 64, NULL), len);
	}
	assert_int_equal(b->rxq.count, 0);
	assert_int_equal(COUNTED(t->e[1], udp_bad_checksum), bad);
	assert_quiet(t);
}

static void ipv6_without_checksum_is_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *b = udp_socket(t->e[1], v6(2, 2000), NULL);
	uint8_t f[256];
	uint32_t len = make_udp6(f, PROTO_UDP, NULL, 0, 10);

	engine_input(t->e[1], 0, f, len, false, t->now);
	assert_int_equal(b->rxq.count, 1);
	memset(f + ETH_HEADER + IPV6_HEADER + 6, 0, 2);
	engine_input(t->e[1], 0, f, len, false, t->now);
	assert_int_equal(b->rxq.count, 1);
	assert_int_equal(COUNTED(t->e[1], udp_bad_checksum), 1);
	udp_close(t->e[1], b);
	assert_quiet(t);
}

static void a_pending_error_is_reported_once(void **state)
{
	struct pair *t = *state;
	struct endpoint peer = v4(2, 2000);
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), &peer);

	a->so_error = ECONNREFUSED;
	assert_int_equal(udp_poll(t->e[0], a) & EV_ERR, EV_ERR);
	assert_int_equal(recv_bytes(t->e[0], a, got, 1, NULL), -ECONNREFUSED);
	assert_int_equal(recv_bytes(t->e[0], a, got, 1, NULL), -EAGAIN);
	a->so_error = ECONNREFUSED;
	assert_int_equal(send_bytes(t, 0, a, peer, "x", 1), -ECONNREFUSED);
	assert_int_equal(send_bytes(t, 0, a, peer, "x", 1), 1);
	pair_poll(t, 1);
	pair_poll(t, 0);
	assert_quiet(t);
}

static void a_dead_vnic_leaves_unread_datagrams_readable(void **state)
{
	struct pair *t = *state;
	struct endpoint peer = v4(1, 1000);
	struct sock *a = udp_socket(t->e[0], peer, NULL), *b = udp_socket(t->e[1], v4(2, 2000), &peer);

	send_bytes(t, 0, a, v4(2, 2000), "one", 3);
	pair_poll(t, 1);
	send_bytes(t, 0, a, v4(2, 2000), "two", 3); /* still in the ring when the peer dies */
	engine_vnic_dead(t->e[1], 0, t->now);
	assert_int_equal(b->vnic, VNIC_NONE);
	assert_int_equal(engine_vnic_free(t->e[1], 0), -EBUSY);
	assert_int_equal(recv_bytes(t->e[1], b, got, 9, NULL), 3);
	assert_memory_equal(got, "one", 3);
	assert_int_equal(recv_bytes(t->e[1], b, got, 9, NULL), 3);
	assert_memory_equal(got, "two", 3);
	assert_int_equal(stack_audit(t->e[1]), 0);
	assert_int_equal(engine_vnic_free(t->e[1], 0), 0);
	assert_int_equal(send_bytes(t, 1, b, peer, "x", 1), -ENETDOWN);
}

int main(void)
{
#define ON_PAIR(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    ON_PAIR(datagrams_of_every_size_arrive_whole),
	    ON_PAIR(ipv6_carries_them_too),
	    ON_PAIR(too_large_a_datagram_is_refused_before_anything_is_used),
	    ON_PAIR(scattered_and_gathered_bytes_keep_their_order),
	    ON_PAIR(a_short_read_loses_the_rest_but_tells_the_size),
	    ON_PAIR(a_connected_socket_hears_its_peer_only),
	    ON_PAIR(the_receive_buffer_bounds_the_queue),
	    ON_PAIR(many_unread_small_datagrams_leave_the_peer_its_buffers),
	    ON_PAIR(a_sender_leaves_buffers_to_others_and_hears_when_some_are_back),
	    cmocka_unit_test(a_full_pool_drops_and_recovers),
	    ON_PAIR(readiness_follows_queue_and_shutdown),
	    ON_PAIR(replies_find_the_way_back),
	    ON_PAIR(a_datagram_cant_take_a_route_that_the_socket_layer_vouches_for),
	    ON_PAIR(a_flood_of_sources_cant_push_a_vouched_route_out),
	    ON_PAIR(vouched_routes_themselves_are_bounded_and_the_newest_stay),
	    ON_PAIR(lengths_that_lie_are_dropped),
	    ON_PAIR(a_bad_checksum_is_never_trusted),
	    ON_PAIR(ipv6_without_checksum_is_dropped),
	    ON_PAIR(a_pending_error_is_reported_once),
	    ON_PAIR(a_dead_vnic_leaves_unread_datagrams_readable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
