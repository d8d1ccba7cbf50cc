/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine on a network: connections and datagrams, and frames made by hand, honest and not. */
#include "net.h"

static void a_connection_carries_a_stream(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	assert_int_equal(c->tcp.mss, 1448);
	send_all(n, c, s, 1000000);
	assert_int_equal(n->e[1].s->counters[C_tcp_bad_checksum], 0);
	net_free(n);
}

static void so_it_does_over_ipv6_and_a_vlan(void **state)
{
	struct net *n = net_new(0, 42);
	struct sock *s, *c = net_open(n, "fd00::1", "fd00::2", &s);

	(void)state;
	send_all(n, c, s, 100000);
	net_free(n);
}

static void large_segments_take_several_buffers(void **state)
{
	struct net *n = net_new(VNIC_FEAT_SCATTER, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	uint64_t before = n->e[1].vnic[0].st->stats.rx_frames;

	(void)state;
	assert_int_equal(c->tcp.mss, 8948);
	send_all(n, c, s, 1000000);
	assert_true(n->e[1].vnic[0].st->stats.rx_frames - before < 400);
	net_free(n);
}

static void checksums_left_to_the_device_are_taken_only_where_announced(void **state)
{
	struct net *n = net_new(VNIC_FEAT_CSUM_PARTIAL, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	n->partial = true;
	send_all(n, c, s, 50000);
	assert_int_equal(n->e[1].s->counters[C_tcp_bad_checksum], 0);
	net_free(n);
	n = net_new(0, 0);
	n->partial = true;
	net_socket(n, 1, SOCK_TCP, "10.0.0.2", 80);
	net_connect(n, "10.0.0.1", "10.0.0.2");
	assert_int_equal(n->e[1].s->counters[C_tcp_bad_checksum], 1);
	net_free(n);
}

static void a_spoilt_frame_is_not_believed(void **state)
{
	struct net *n = net_new(VNIC_FEAT_CSUM_PARTIAL, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);

	(void)state;
	n->spoil = 3;
	send_all(n, c, s, 50000);
	assert_int_equal(n->e[0].s->counters[C_tcp_bad_checksum] + n->e[1].s->counters[C_tcp_bad_checksum], 3);
	net_free(n);
}

/* --- frames made by hand --- */

/* A TCP or UDP packet of 8 bytes of payload for end 1 with right checksums, by default from 10.0.0.1:4000 to
 * 10.0.0.2:80. */
struct crafted {
	uint8_t b[14 + 20 + 20 + 8];
	uint32_t len;
};

static void seal(struct crafted *c)
{
	uint8_t *ip = c->b + 14, *l4 = ip + 20, src[16], dst[16];
	uint32_t n = c->len - 34, at = ip[9] == PROTO_TCP ? 16 : 6;
	uint16_t sum;

	map_v4(src, ip + 12);
	map_v4(dst, ip + 16);
	memset(ip + 10, 0, 2);
	sum = csum_fold(csum_add(ip, 20, 0));
	memcpy(ip + 10, &sum, 2);
	memset(l4 + at, 0, 2);
	sum = csum_fold(csum_add(l4, n, csum_pseudo(4, src, dst, ip[9], n)));
	memcpy(l4 + at, &sum, 2);
}

static struct crafted craft(uint8_t proto, uint8_t flags)
{
	struct crafted c = {.b = {2, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 8, 0, 0x45}};
	static const uint8_t addresses[8] = {10, 0, 0, 1, 10, 0, 0, 2};
	uint8_t *ip = c.b + 14, *l4 = ip + 20;

	c.len = 34 + (proto == PROTO_TCP ? 20 : 8) + 8;
	put_be16(ip + 2, c.len - 14);
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, addresses, sizeof(addresses));
	put_be16(l4, 4000);
	put_be16(l4 + 2, 80);
	if (proto == PROTO_TCP) {
		l4[12] = 0x50;
		l4[13] = flags;
		put_be16(l4 + 14, 1000);
	} else {
		put_be16(l4 + 4, 16);
	}
	seal(&c);
	return c;
}

static void arrive(struct net *n, const struct crafted *c)
{
	assert_true(rings_give(n->r[1], c->b, c->len));
	engine_poll(&n->e[1], n->now, 64);
}

static uint64_t counted(const struct net *n, enum counter c)
{
	return n->e[1].s->counters[c];
}

static void a_segment_to_nobody_is_reset_to_where_it_came_from(void **state)
{
	struct net *n = net_new(0, 0);
	struct crafted c = craft(PROTO_TCP, TH_SYN);

	(void)state;
	c.b[11] = 77; /* a router's address, that no neighbour entry has */
	arrive(n, &c);
	assert_int_equal(rings_take(n->r[1], n->frame, sizeof(n->frame)), 54);
	assert_int_equal(n->frame[5], 77);
	assert_int_equal(n->frame[11], 2);
	assert_int_equal(n->frame[47], TH_RST | TH_ACK);
	net_free(n);
}

static void a_listener_answers_to_where_the_syn_came_from(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *l = net_socket(n, 1, SOCK_TCP, "10.0.0.2", 80);
	struct crafted c = craft(PROTO_TCP, TH_SYN);
	struct neigh_want w;

	(void)state;
	assert_int_equal(tcp_listen(&n->e[1], l, 8), 0);
	view_copy(n->v[1])->neighs = 0;
	c.b[11] = 78;
	arrive(n, &c);
	assert_true(rings_take(n->r[1], n->frame, sizeof(n->frame)) > 54);
	assert_int_equal(n->frame[5], 78);
	assert_int_equal(n->frame[47], TH_SYN | TH_ACK);
	assert_true(route_wanted(&n->e[1], &w)); /* for later */
	net_free(n);
}

static void frames_for_other_stations_are_dropped(void **state)
{
	struct net *n = net_new(0, 0);
	struct crafted c = craft(PROTO_TCP, TH_SYN);

	(void)state;
	c.b[5] = 9;
	arrive(n, &c);
	assert_int_equal(counted(n, C_eth_other), 1);
	c.b[5] = 2;
	c.b[6] |= 1; /* from a group */
	arrive(n, &c);
	assert_int_equal(counted(n, C_eth_other), 2);
	assert_int_equal(rings_take(n->r[1], n->frame, sizeof(n->frame)), 0);
	net_free(n);
}

static void a_tag_of_another_vlan_is_dropped(void **state)
{
	struct net *n = net_new(0, 42);
	struct crafted c = craft(PROTO_TCP, TH_SYN);
	static const uint8_t tag[4] = {0x81, 0, 0, 43};
	uint8_t tagged[sizeof(c.b) + 4];

	(void)state;
	memcpy(tagged, c.b, 12);
	memcpy(tagged + 12, tag, sizeof(tag));
	memcpy(tagged + 16, c.b + 12, c.len - 12);
	assert_true(rings_give(n->r[1], tagged, c.len + 4));
	engine_poll(&n->e[1], n->now, 64);
	assert_int_equal(counted(n, C_eth_vlan), 1);
	tagged[15] = 42;
	assert_true(rings_give(n->r[1], tagged, c.len + 4));
	engine_poll(&n->e[1], n->now, 64);
	assert_int_equal(counted(n, C_tcp_no_socket), 1);
	assert_int_equal(rings_take(n->r[1], n->frame, sizeof(n->frame)), 58);
	assert_memory_equal(n->frame + 12, "\x81\0\0\x2a\x08\0\x45", 7);
	net_free(n);
}

static void the_network_cannot_speak_for_this_machine(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *l = net_socket(n, 1, SOCK_TCP, "10.0.0.2", 80), *u = net_socket(n, 1, SOCK_UDP, "10.0.0.2", 80);
	struct crafted syn = craft(PROTO_TCP, TH_SYN), udp = craft(PROTO_UDP, 0);
	static const uint8_t liars[][4] = {{10, 0, 0, 2}, {127, 0, 0, 1}, {10, 0, 0, 3}};

	(void)state;
	assert_int_equal(tcp_listen(&n->e[1], l, 8), 0);
	sock_hash(n->e[1].s, u);
	view_own(n->v[1], 2, "10.0.0.3", 24);
	for (uint32_t i = 0; i < 3; i++) {
		memcpy(syn.b + 26, liars[i], 4);
		memcpy(udp.b + 26, liars[i], 4);
		seal(&syn);
		seal(&udp);
		arrive(n, &syn);
		arrive(n, &udp);
		assert_int_equal(counted(n, C_ip_spoofed), 2 * (i + 1));
	}
	memcpy(udp.b + 30, "\x7f\0\0\1", 4); /* and loopback is no destination */
	seal(&udp);
	arrive(n, &udp);
	assert_int_equal(counted(n, C_ip_spoofed), 7);
	assert_int_equal(l->tcp.embryo_count, 0);
	assert_int_equal(u->rxq.count, 0);
	assert_int_equal(rings_take(n->r[1], n->frame, sizeof(n->frame)), 0);
	net_free(n);
}

/* A stack with a wire beside the network: what comes by one is nothing to the connections of the other. */
static void wires_and_networks_do_not_mix(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s), *u;
	struct crafted t = craft(PROTO_TCP, TH_RST | TH_ACK), d = craft(PROTO_UDP, 0);
	void *wire = test_wire_new(NULL);
	uint32_t w = test_wire_join(wire, 0, &n->e[1]);
	uint8_t *l4 = t.b + 34;

	(void)state;
	(void)c;
	put_be32(l4 + 4, s->tcp.rcv_nxt); /* would reset it */
	put_be32(l4 + 8, s->tcp.snd_nxt);
	engine_input(&n->e[1], w, t.b, t.len, true, n->now);
	assert_int_equal(s->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(counted(n, C_tcp_wrong_vnic), 1);
	s->vnic = w; /* and the other way round */
	s->vnic_gen = stack_vnic(n->e[1].s, w)->gen;
	seal(&t);
	arrive(n, &t);
	assert_int_equal(s->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(counted(n, C_tcp_wrong_vnic), 2);
	u = net_socket(n, 1, SOCK_UDP, "10.0.0.2", 80);
	view_addr(u->remote.addr, "10.0.0.1");
	u->remote.port = 4000;
	u->vnic = n->vnic[1];
	sock_hash(n->e[1].s, u);
	engine_input(&n->e[1], w, d.b, d.len, true, n->now);
	assert_int_equal(counted(n, C_udp_wrong_vnic), 1);
	arrive(n, &d);
	assert_int_equal(u->rxq.count, 1);
	s->vnic = n->vnic[1];
	net_free(n);
	test_wire_free(wire);
}

/* Frames of a connection may come by any of the stack's interfaces. */
static void another_interface_is_as_good(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *s, *c = net_open(n, "10.0.0.1", "10.0.0.2", &s);
	struct rings *first = n->r[1], *second = rings_new();
	struct xdp_about about = {.ifindex = 3, .mtu = 1500, .mac = {2, 1, 1, 1, 1, 9}};
	struct iovec iov = {(void *)(uintptr_t) "hello", 5};

	(void)state;
	rings_join(second, &n->e[1], &about);
	assert_int_equal(tcp_send(&n->e[0], c, &iov, 1, 0, 0, n->now), 5);
	assert_true(rings_take(n->r[0], n->frame, sizeof(n->frame)) > 0);
	n->frame[5] = 9;
	assert_true(rings_give(second, n->frame, 66 + 5));
	engine_poll(&n->e[1], n->now, 64);
	assert_int_equal(s->rxq.bytes, 5);
	n->r[1] = first;
	net_free(n);
	rings_free(second);
}

static void datagrams_find_their_way(void **state)
{
	struct net *n = net_new(0, 0);
	struct sock *a = net_socket(n, 0, SOCK_UDP, "10.0.0.1", 4000), *b = net_socket(n, 1, SOCK_UDP, "0.0.0.0", 80);
	struct endpoint to = {.port = 80}, any = {.port = 4000};
	struct iovec iov = {(void *)(uintptr_t) "hello", 5};
	struct udp_meta meta;
	char got[8];
	struct iovec in = {got, sizeof(got)};

	(void)state;
	view_addr(to.addr, "10.0.0.2");
	sock_hash(n->e[0].s, a);
	sock_hash(n->e[1].s, b);
	assert_int_equal(udp_send(&n->e[0], a, n->vnic[0], &any, &to, &iov, 1, n->now), 5);
	net_run(n);
	assert_int_equal(udp_recv(&n->e[1], b, &in, 1, false, &meta), 5);
	assert_memory_equal(got, "hello", 5);
	view_addr(any.addr, "10.0.0.1"); /* the address that the route has chosen */
	assert_memory_equal(meta.from.addr, any.addr, 16);
	view_addr(to.addr, "10.0.0.9");
	assert_int_equal(udp_send(&n->e[0], a, n->vnic[0], &any, &to, &iov, 1, n->now), -ENOLINK);
	assert_int_equal(n->e[0].s->neigh_wanted, 1);
	view_addr(to.addr, "192.0.2.1");
	assert_int_equal(udp_send(&n->e[0], a, n->vnic[0], &any, &to, &iov, 1, n->now), -ENOLINK);
	net_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_connection_carries_a_stream),
	    cmocka_unit_test(so_it_does_over_ipv6_and_a_vlan),
	    cmocka_unit_test(large_segments_take_several_buffers),
	    cmocka_unit_test(checksums_left_to_the_device_are_taken_only_where_announced),
	    cmocka_unit_test(a_spoilt_frame_is_not_believed),
	    cmocka_unit_test(a_segment_to_nobody_is_reset_to_where_it_came_from),
	    cmocka_unit_test(a_listener_answers_to_where_the_syn_came_from),
	    cmocka_unit_test(frames_for_other_stations_are_dropped),
	    cmocka_unit_test(a_tag_of_another_vlan_is_dropped),
	    cmocka_unit_test(the_network_cannot_speak_for_this_machine),
	    cmocka_unit_test(wires_and_networks_do_not_mix),
	    cmocka_unit_test(another_interface_is_as_good),
	    cmocka_unit_test(datagrams_find_their_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
