/* SPDX-License-Identifier: BSD-2-Clause */
/* Two stacks, 10.0.0.1 and 10.0.0.2, whose frames pass through the rings of two AF_XDP sockets, in virtual time. */
#ifndef VD_TEST_NET_H
#define VD_TEST_NET_H

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
		n->v[i] = view_pair(i, about.mtu);
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
	assert_non_null(*s);
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

#endif
