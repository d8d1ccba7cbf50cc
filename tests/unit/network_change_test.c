/* SPDX-License-Identifier: BSD-2-Clause */
/* What changes on a network while connections are open: routes, MTUs, neighbours, addresses; paths that swallow frames.
 */
#include "net.h"

static void a_connection_moves_to_another_interface_with_what_it_has_sent(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct rings *first = n->r[0], *second = rings_new();
	struct xdp_about about = {.ifindex = 3, .mtu = 1500, .mac = {2, 1, 1, 1, 1, 1}};
	uint32_t vnic = rings_join(second, &n->e[0], &about);

	(void)state;
	write_some(n, c, 0, 5000);
	assert_true(lose(n) > 0);
	view_change(n->v[0])->route[1].ifindex = 3;
	view_iface(n->v[0], 3, 1500);
	view_neigh(n->v[0], 3, "10.0.0.2", 2);
	n->r[0] = second;
	write_some(n, c, 5000, 5000);
	pass(n, SECOND);
	assert_int_equal(c->vnic, vnic);
	assert_int_equal(read_some(n, s, 0), 10000);
	assert_int_equal(n->e[0].s->counters[C_route_moved], 1);
	pass(n, SECOND);
	assert_int_equal(stack_vnic(n->e[0].s, n->vnic[0])->free_top,
			 RINGS_BUFS); /* the first one's buffers are free */
	n->r[0] = first;
	net_free(n);
	rings_free(second);
}

/* The way is looked up while a long write is being copied: what follows goes into the new interface's buffers. */
static void a_long_write_moves_in_its_middle(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct rings *first = n->r[0], *second = rings_new();
	struct xdp_about about = {.ifindex = 3, .mtu = 1500, .mac = {2, 1, 1, 1, 1, 1}};
	size_t got;

	(void)state;
	rings_join(second, &n->e[0], &about);
	view_change(n->v[0])->route[1].ifindex = 3;
	view_iface(n->v[0], 3, 1500);
	view_neigh(n->v[0], 3, "10.0.0.2", 2);
	n->r[0] = second;
	c->sndbuf = 400000;
	write_some(n, c, 0, 60000);
	for (got = 0; got < 60000; got += read_some(n, s, got))
		pass(n, 10000);
	n->r[0] = first;
	net_free(n);
	rings_free(second);
}

static void a_connection_waits_for_an_interface_without_buffers(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct rings *first = n->r[0], *second = rings_new();
	struct xdp_about about = {.ifindex = 3, .mtu = 1500, .mac = {2, 1, 1, 1, 1, 1}};
	uint32_t vnic = rings_join(second, &n->e[0], &about), bufs[RINGS_BUFS];

	(void)state;
	for (uint32_t i = 0; i < RINGS_BUFS; i++)
		bufs[i] = (uint32_t)vnic_tx_alloc(&n->e[0].vnic[vnic]);
	view_change(n->v[0])->route[1].ifindex = 3;
	view_iface(n->v[0], 3, 1500);
	view_neigh(n->v[0], 3, "10.0.0.2", 2);
	n->r[0] = second;
	write_some(n, c, 0, 3000);
	pass(n, 5000);
	assert_int_equal(read_some(n, s, 0), 0);
	assert_int_equal(c->vnic, n->vnic[0]);
	for (uint32_t i = 0; i < RINGS_BUFS; i++)
		vnic_tx_free(&n->e[0].vnic[vnic], bufs[i]);
	pass(n, 20000);
	assert_int_equal(read_some(n, s, 0), 3000);
	n->r[0] = first;
	net_free(n);
	rings_free(second);
}

static void segments_follow_the_routes_mtu(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	write_some(n, c, 0, 4000); /* cut for 1500, not yet out */
	lose(n);
	view_change(n->v[0])->route[1].mtu = 700;
	write_some(n, c, 4000, 1000);
	pass(n, SECOND);
	assert_int_equal(c->tcp.mss, 700 - 52);
	assert_int_equal(read_some(n, s, 0), 5000);
	view_change(n->v[0])->route[1].mtu = 0;
	write_some(n, c, 5000, 5000);
	pass(n, SECOND);
	assert_int_equal(c->tcp.mss, 1448);
	assert_int_equal(read_some(n, s, 5000), 5000);
	net_free(n);
}

/* The kernel forgets neighbours that it doesn't use itself. */
static void a_neighbour_that_is_forgotten_is_still_there(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct neigh_want w;

	(void)state;
	view_change(n->v[0])->neighs = 0;
	write_some(n, c, 0, 100);
	net_run(n);
	assert_int_equal(read_some(n, s, 0), 100);
	assert_true(route_wanted(&n->e[0], &w));
	view_change(n->v[0]);
	view_neigh(n->v[0], 2, "10.0.0.2", 0)->failed = 1;
	write_some(n, c, 100, 100);
	net_run(n);
	assert_int_equal(read_some(n, s, 100), 0);
	assert_int_equal(c->tcp.soft_error, EHOSTUNREACH);
	assert_int_equal(c->tcp.state, TCP_ESTABLISHED);
	view_change(n->v[0])->neighs = 0;
	view_neigh(n->v[0], 2, "10.0.0.2", 2);
	pass(n, SECOND);
	assert_int_equal(read_some(n, s, 100), 100);
	net_free(n);
}

static void segments_that_nobody_answers_cast_doubt_on_the_neighbour(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct neigh_want w;
	uint64_t next;

	(void)state;
	write_some(n, c, 0, 100);
	lose(n);
	assert_false(route_wanted(&n->e[0], &w));
	for (int i = 0; i < 3; i++) {
		next = engine_deadline(&n->e[0]);
		n->now = next > n->now ? next : n->now + 1;
		engine_tick(&n->e[0], n->now);
		lose(n);
	}
	assert_true(route_wanted(&n->e[0], &w));
	assert_int_equal(w.ifindex, 2);
	pass(n, SECOND);
	assert_int_equal(read_some(n, s, 0), 100);
	net_free(n);
}

/* Linux sends nothing from an IPv4 address that it does not have, but keeps the connection. */
static void an_address_that_goes_away_silences_its_connections(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct netview_addr own = view_copy(n->v[0])->addr[0];

	(void)state;
	view_change(n->v[0])->addr[0].addr[15] = 99;
	write_some(n, c, 0, 100);
	pass(n, 100000);
	assert_int_equal(read_some(n, s, 0), 0);
	assert_int_equal(c->tcp.soft_error, EINVAL);
	view_change(n->v[0])->addr[0] = own;
	pass(n, 2 * SECOND);
	assert_int_equal(read_some(n, s, 0), 100);
	net_free(n);
}

/* Frames above 1100 bytes vanish without a word. */
static void a_black_hole_for_large_segments_is_got_around(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	n->hole = 1100;
	write_some(n, c, 0, 20000);
	pass(n, 10 * SECOND);
	assert_int_equal(read_some(n, s, 0), 20000);
	assert_int_equal(n->e[0].s->counters[C_tcp_black_hole], 1);
	net_free(n);
}

/* Send for so long, and read it all. Returns the bytes. */
static size_t keep_sending(struct net *n, struct sock *c, struct sock *s, size_t from, uint32_t seconds)
{
	for (uint32_t i = 0; i < 10 * seconds; i++) {
		write_some(n, c, from, 20000);
		for (size_t got = 0; got < 20000; got += read_some(n, s, from + got))
			pass(n, 10000);
		from += 20000;
		pass(n, 90000);
	}
	return from;
}

static void the_largest_size_that_passes_is_found(void **state)
{
	struct net *n = net_new(VNIC_FEAT_SCATTER, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	size_t at;

	(void)state;
	n->hole = 14 + 4000;
	at = keep_sending(n, c, s, 0, 30);
	assert_true(c->tcp.pmtu > 4000 - 64 && c->tcp.pmtu <= 4000);
	assert_int_equal(n->e[0].s->counters[C_tcp_black_hole], 1);
	n->hole = 0; /* found out ten minutes later */
	pass(n, 600 * SECOND);
	keep_sending(n, c, s, at, 5);
	assert_int_equal(c->tcp.pmtu, 9000);
	assert_int_equal(c->tcp.mss, 8948);
	net_free(n);
}

static void a_peer_that_was_only_away_gets_large_segments_again(void **state)
{
	struct net *n = net_new(VNIC_FEAT_SCATTER, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	n->hole = 1;
	write_some(n, c, 0, 20000);
	pass(n, 2 * SECOND);
	assert_int_equal(c->tcp.pmtu, 1024 + 40);
	n->hole = 0;
	pass(n, 5 * SECOND);
	assert_int_equal(read_some(n, s, 0), 20000);
	keep_sending(n, c, s, 20000, 3);
	assert_int_equal(c->tcp.pmtu, 9000);
	net_free(n);
}

static void the_program_decides_whether_packets_may_be_cut(void **state)
{
	static const struct {
		uint8_t mode;
		bool tcp, udp;
	} df[] = {{PMTU_DEFAULT, true, false}, {PMTU_DONT, false, false}, {PMTU_WANT, true, false},
		  {PMTU_DO, true, true},       {PMTU_PROBE, false, true}, {PMTU_INTERFACE, false, false},
		  {PMTU_OMIT, false, false}};
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s), *u = net_socket(n, 0, SOCK_UDP, "10.0.0.1", 9);
	struct endpoint to = {.port = 9};
	struct iovec iov = {(void *)(uintptr_t) "x", 1};

	(void)state;
	view_addr(to.addr, "10.0.0.2");
	for (uint32_t i = 0; i < sizeof(df) / sizeof(df[0]); i++) {
		c->pmtudisc = u->pmtudisc = df[i].mode;
		write_some(n, c, i, 1);
		assert_true(rings_take(n->r[0], n->frame, sizeof(n->frame)) > 0);
		assert_int_equal(n->frame[20] >> 6, df[i].tcp);
		rings_give(n->r[1], n->frame, 67);
		net_run(n);
		assert_int_equal(udp_send(&n->e[0], u, n->vnic[0], &u->local, &to, &iov, 1, n->now), 1);
		assert_true(rings_take(n->r[0], n->frame, sizeof(n->frame)) > 0);
		assert_int_equal(n->frame[20] >> 6, df[i].udp);
	}
	net_free(n);
}

/* A reader that keeps up: segments that came in one burst are acknowledged once. */
static void a_burst_of_segments_gets_one_ack(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	uint32_t acks = 0, len;

	(void)state;
	write_some(n, c, 0, 10 * 1448);
	while ((len = rings_take(n->r[0], n->frame, sizeof(n->frame))))
		assert_true(rings_give(n->r[1], n->frame, len));
	engine_poll(&n->e[1], n->now, 64);
	while (rings_take(n->r[1], n->frame, sizeof(n->frame)))
		acks++;
	assert_int_equal(acks, 1);
	assert_int_equal(get_be32(n->frame + 42), s->tcp.rcv_nxt);
	assert_int_equal(read_some(n, s, 0), 10 * 1448);
	net_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_connection_moves_to_another_interface_with_what_it_has_sent),
	    cmocka_unit_test(a_long_write_moves_in_its_middle),
	    cmocka_unit_test(a_connection_waits_for_an_interface_without_buffers),
	    cmocka_unit_test(segments_follow_the_routes_mtu),
	    cmocka_unit_test(a_neighbour_that_is_forgotten_is_still_there),
	    cmocka_unit_test(segments_that_nobody_answers_cast_doubt_on_the_neighbour),
	    cmocka_unit_test(an_address_that_goes_away_silences_its_connections),
	    cmocka_unit_test(a_black_hole_for_large_segments_is_got_around),
	    cmocka_unit_test(the_largest_size_that_passes_is_found),
	    cmocka_unit_test(a_peer_that_was_only_away_gets_large_segments_again),
	    cmocka_unit_test(the_program_decides_whether_packets_may_be_cut),
	    cmocka_unit_test(a_burst_of_segments_gets_one_ack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
