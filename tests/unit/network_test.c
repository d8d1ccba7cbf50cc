/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine on a network: two stacks whose frames pass through the rings of two AF_XDP sockets, and frames made by
 * hand, honest and not.
 */
#include "rings.h"

#include "engine/bytes.h"
#include "engine/inet.h"
#include "engine/tcp_internal.h"

#define SECOND 1000000ull

struct net {
	struct engine e[2];
	struct rings *r[2];
	struct netview *v[2];
	uint32_t vnic[2];
	uint64_t now;
	bool partial;  /* end 0 is a kernel that leaves checksums to the device */
	int spoil;     /* change a byte of so many frames */
	uint32_t hole; /* lose frames that are longer; 0: none */
	uint8_t frame[70000];
};

static struct net *net_new(uint32_t features, uint16_t vlan)
{
	struct net *n = calloc(1, sizeof(*n));
	struct stack_config cfg = test_config();

	n->now = 100 * SECOND;
	for (int i = 0; i < 2; i++) {
		struct xdp_about about = {.ifindex = 2,
					  .mtu = features & VNIC_FEAT_SCATTER ? 9000 : 1500,
					  .features = features,
					  .vlan = vlan,
					  .mac = {2, 1, 1, 1, 1, (uint8_t)(1 + i)}};

		cfg.secret[0] = (uint8_t)i;
		test_stack_new(&n->e[i], &cfg, n->now);
		n->r[i] = rings_new();
		n->vnic[i] = rings_join(n->r[i], &n->e[i], &about);
		n->v[i] = view_new();
		view_iface(n->v[i], 2, about.mtu);
		view_own(n->v[i], 2, i ? "10.0.0.2" : "10.0.0.1", 24);
		view_own(n->v[i], 2, i ? "fd00::2" : "fd00::1", 64);
		view_route(n->v[i], 2, "fd00::", 64, NULL);
		view_route(n->v[i], 2, "10.0.0.0", 24, NULL);
		view_neigh(n->v[i], 2, i ? "10.0.0.1" : "10.0.0.2", (uint8_t)(2 - i));
		view_neigh(n->v[i], 2, i ? "fd00::1" : "fd00::2", (uint8_t)(2 - i));
		n->e[i].view = n->v[i];
		engine_tick(&n->e[i], n->now);
	}
	return n;
}

static void net_free(struct net *n)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stack_audit(&n->e[i]), 0);
		rings_free(n->r[i]);
		view_free(n->v[i]);
		test_stack_free(&n->e[i]);
	}
	free(n);
}

/* Leave the checksum to the device, as a kernel behind a veth: the field holds the pseudo-header's sum. */
static void leave_checksum(uint8_t *frame, uint32_t len)
{
	uint8_t *ip = frame + 14, *l4, src[16], dst[16];
	bool v4 = ip[0] >> 4 == 4;
	uint16_t sum;

	l4 = ip + (v4 ? 20 : 40);
	if (v4) {
		map_v4(src, ip + 12);
		map_v4(dst, ip + 16);
	} else {
		memcpy(src, ip + 8, 16);
		memcpy(dst, ip + 24, 16);
	}
	sum = (uint16_t)~csum_fold(csum_pseudo(v4 ? 4 : 6, src, dst, 6, (uint32_t)(len - (uint32_t)(l4 - frame))));
	memcpy(l4 + 16, &sum, 2);
}

/* Frames across, both ways, until there are none. */
static void net_run(struct net *n)
{
	bool busy = true;

	while (busy) {
		busy = false;
		for (int i = 0; i < 2; i++) {
			uint32_t len;

			while ((len = rings_take(n->r[i], n->frame, sizeof(n->frame)))) {
				busy = true;
				if (!i && n->partial)
					leave_checksum(n->frame, len);
				if (n->spoil) {
					n->spoil--;
					n->frame[len - 1] ^= 0x10;
				}
				if (!n->hole || len <= n->hole)
					rings_give(n->r[!i], n->frame, len);
			}
			engine_poll(&n->e[!i], n->now, 64);
			engine_poll(&n->e[i], n->now, 64);
		}
	}
}

static struct sock *net_socket(struct net *n, int end, enum sock_proto proto, const char *addr, uint16_t port)
{
	struct sock *k = sock_alloc(&n->e[end], proto, strchr(addr, ':') ? 6 : 4);

	k->holders = 1;
	view_addr(k->local.addr, addr);
	k->local.port = port;
	return k;
}

static struct sock *net_connect(struct net *n, const char *from, const char *to)
{
	struct sock *k = net_socket(n, 0, SOCK_TCP, from, 0);
	struct endpoint local = {.port = 4000}, remote = {.port = 80};

	view_addr(local.addr, from);
	view_addr(remote.addr, to);
	assert_int_equal(tcp_connect(&n->e[0], k, n->vnic[0], &local, &remote, n->now), 0);
	net_run(n);
	return k;
}

/* A connection from end 0 to end 1, whose end there is in *s. */
static struct sock *net_open(struct net *n, const char *from, const char *to, struct sock **s)
{
	struct sock *l = net_socket(n, 1, SOCK_TCP, to, 80), *c;
	int i;

	assert_int_equal(tcp_listen(&n->e[1], l, 8), 0);
	c = net_connect(n, from, to);
	assert_int_equal(c->tcp.state, TCP_ESTABLISHED);
	i = tcp_accept(&n->e[1], l);
	assert_true(i > 0);
	*s = sock_at(n->e[1].s, (uint32_t)i);
	(*s)->holders = 1;
	return c;
}

/* Byte number i of what end 0 sends. */
static uint8_t stream(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7);
}

static size_t read_some(struct net *n, struct sock *s, size_t from)
{
	static uint8_t in[65536];
	struct iovec iov = {in, sizeof(in)};
	ssize_t ret = tcp_recv(&n->e[1], s, &iov, 1, 0, 0, n->now);

	for (ssize_t i = 0; i < ret; i++)
		assert_int_equal(in[i], stream(from + (size_t)i));
	return ret > 0 ? (size_t)ret : 0;
}

static void send_all(struct net *n, struct sock *c, struct sock *s, size_t total)
{
	static uint8_t out[65536];
	size_t sent = 0, got = 0;

	for (int turns = 0; got < total; turns++) {
		size_t len = sizeof(out) < total - sent ? sizeof(out) : total - sent;
		struct iovec iov = {out, len};
		ssize_t ret;

		assert_true(turns < 100000);
		for (size_t i = 0; i < len; i++)
			out[i] = stream(sent + i);
		ret = len ? tcp_send(&n->e[0], c, &iov, 1, 0, 0, n->now) : 0;
		sent += ret > 0 ? (size_t)ret : 0;
		net_run(n);
		got += read_some(n, s, got);
		net_run(n);
		n->now += 1000;
		engine_tick(&n->e[0], n->now);
		engine_tick(&n->e[1], n->now);
	}
}

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
	uint8_t *ip = c.b + 14, *l4 = ip + 20;

	c.len = 34 + (proto == PROTO_TCP ? 20 : 8) + 8;
	put_be16(ip + 2, c.len - 14);
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, "\x0a\0\0\1\x0a\0\0\2", 8);
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
	uint8_t tagged[sizeof(c.b) + 4];

	(void)state;
	memcpy(tagged, c.b, 12);
	memcpy(tagged + 12, "\x81\0\0\x2b", 4);
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

/* --- what changes while connections are open --- */

static void write_some(struct net *n, struct sock *c, size_t from, size_t len)
{
	static uint8_t out[65536];
	struct iovec iov = {out, len};

	for (size_t i = 0; i < len; i++)
		out[i] = stream(from + i);
	assert_int_equal(tcp_send(&n->e[0], c, &iov, 1, 0, 0, n->now), len);
}

static void pass(struct net *n, uint64_t us)
{
	uint64_t end = n->now + us;

	while (n->now < end) {
		uint64_t a = engine_deadline(&n->e[0]), b = engine_deadline(&n->e[1]), next = a < b ? a : b;

		n->now = next > end ? end : next > n->now ? next : n->now + 1;
		engine_tick(&n->e[0], n->now);
		engine_tick(&n->e[1], n->now);
		net_run(n);
	}
}

/* Throw away what end 0 sends. */
static uint32_t lose(struct net *n)
{
	uint32_t frames = 0;

	while (rings_take(n->r[0], n->frame, sizeof(n->frame)))
		frames++;
	engine_poll(&n->e[0], n->now, 1);
	return frames;
}

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
