/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One stack whose peer is the test: segments made by hand go in through engine_input, what the stack sends is recorded
 * with its options parsed. Virtual time. The stack is 10.0.0.1, the peer 10.0.0.2, whose sequence numbers start at
 * PEER_ISS.
 */
#ifndef VD_TEST_PEER_H
#define VD_TEST_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/tcp_internal.h"
#include "engine/tcp_wire.h"
#include "lib/test_stack.h"

#define MS 1000ull
#define SECOND 1000000ull
#define PEER_ISS 5000u
#define PORT 80
#define PEER_PORT 4000

struct out {
	uint32_t seq, ack, len, wnd;
	uint16_t sport, dport;
	uint8_t flags, tos;
	struct tcp_opts o;
};

struct peer {
	struct engine e;
	struct test_device dev;
	uint32_t vnic;
	struct out out[1024];
	uint32_t outs;
	uint32_t seq, ack; /* what the peer sends next, and acknowledges */
	uint8_t opts[40];  /* options of the segments to come */
	uint32_t opts_len;
	uint16_t wnd;
	uint8_t tos; /* of the packets to come */
};

static void peer_sent(void *arg, struct vnic *v, const struct vnic_desc *d, int n)
{
	struct peer *p = arg;
	const uint8_t *l4 = vnic_tx_buf(v, d[0].buf) + d[0].off + 34;
	struct out *o = &p->out[p->outs++ % 1024];
	uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
	struct tcp_header h;

	memcpy(&h, l4, sizeof(h));
	*o = (struct out){.seq = be32(h.seq),
			  .ack = be32(h.ack),
			  .wnd = be16(h.wnd),
			  .sport = be16(h.sport),
			  .dport = be16(h.dport),
			  .flags = h.flags,
			  .tos = l4[-19]};
	tcp_parse_options(l4 + 20, header - 20, &o->o);
	for (int i = 0; i < n; i++)
		o->len += d[i].len;
	o->len -= 34 + header;
}

static struct stack_config peer_config(void)
{
	struct stack_config c = test_config();

	c.max_socks = c.hash_buckets = 64;
	c.max_pkts = c.max_private = 4096;
	c.defaults.rcvbuf = 65536;
	c.defaults.rcvbuf_max = 1 << 20;
	c.defaults.cc = TCP_CC_NEWRENO;
	c.defaults.somaxconn = 128;
	memset(c.secret, 9, sizeof(c.secret));
	return c;
}

static struct peer *peer_new_with(const struct stack_config *cfg, uint32_t features)
{
	struct peer *p = calloc(1, sizeof(*p));

	test_stack_new(&p->e, cfg, 100 * SECOND);
	p->dev = (struct test_device){
	    .sent = peer_sent, .arg = p, .features = features, .mtu = 1500, .bufs = 512, .buf_size = 2048};
	p->vnic = test_device_join(&p->dev, &p->e);
	engine_tick(&p->e, p->e.s->now_us);
	p->seq = PEER_ISS;
	p->wnd = 60000;
	return p;
}

static struct peer *peer_new(void)
{
	struct stack_config c = peer_config();

	return peer_new_with(&c, 0);
}

static void peer_free(struct peer *p)
{
	assert_int_equal(stack_audit(&p->e), 0);
	test_device_free(&p->dev);
	test_stack_free(&p->e);
	free(p);
}

static void peer_check(struct peer *p)
{
	for (uint32_t s = 1; s < p->e.s->sock_pool.mark; s++) {
		struct sock *k = sock_at(p->e.s, s);

		if (k->proto == SOCK_TCP)
			tcp_check(&p->e, k);
	}
}

static struct endpoint peer_addr(int host, uint16_t port)
{
	return test_addr4((uint8_t)host, port);
}

/* One segment from the peer with everything given. Bytes of data are their sequence number's low byte times seven. */
static void peer_raw(struct peer *p, uint16_t sport, uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags,
		     uint16_t urg, uint32_t len)
{
	static uint8_t frame[70000];
	uint8_t *ip = frame + 14, *l4 = ip + 20;
	uint32_t header = 20 + p->opts_len, total = 20 + header + len;
	struct tcp_header h = {.sport = be16(sport),
			       .dport = be16(dport),
			       .seq = be32(seq),
			       .ack = be32(ack),
			       .off = (uint8_t)(header << 2),
			       .flags = flags,
			       .wnd = be16(p->wnd),
			       .urg = be16(urg)};

	memset(frame, 0, 34);
	frame[0] = 2;
	frame[12] = 8;
	ip[0] = 0x45;
	ip[1] = p->tos;
	ip[2] = (uint8_t)(total >> 8);
	ip[3] = (uint8_t)total;
	ip[8] = 64;
	ip[9] = 6;
	ip[12] = ip[16] = 10;
	ip[15] = 2;
	ip[19] = 1;
	memcpy(l4, &h, sizeof(h));
	memcpy(l4 + 20, p->opts, p->opts_len);
	for (uint32_t i = 0; i < len; i++)
		l4[header + i] = (uint8_t)((seq + i) * 7);
	engine_input(&p->e, p->vnic, frame, 14 + total, true, p->e.s->now_us);
	peer_check(p);
}

/* The usual segment: at `off` from the peer's next number, acknowledging what it has seen. */
static void peer_send(struct peer *p, int32_t off, uint8_t flags, uint32_t len)
{
	peer_raw(p, PEER_PORT, PORT, p->seq + (uint32_t)off, p->ack, flags, 0, len);
}

/* The same, and the peer's number moves on. */
static void peer_data(struct peer *p, uint8_t flags, uint32_t len)
{
	peer_send(p, 0, flags, len);
	p->seq += len + ((flags & TH_FIN) != 0);
}

static const struct out *peer_last(const struct peer *p)
{
	assert_true(p->outs > 0);
	return &p->out[(p->outs - 1) % 1024];
}

/* Time passes; timers fire when they are due. */
static void peer_wait(struct peer *p, uint64_t us)
{
	uint64_t end = p->e.s->now_us + us, next;

	while ((next = engine_deadline(&p->e)) <= end) {
		uint64_t now = next > p->e.s->now_us ? next : p->e.s->now_us;

		engine_tick(&p->e, now);
		peer_check(p);
	}
	engine_tick(&p->e, end);
}

static void peer_opt_syn(struct peer *p, bool wscale, bool sack, bool ts)
{
	static const uint8_t mss[] = {2, 4, 5, 0xb4}, ws[] = {1, 3, 3, 5}, sk[] = {1, 1, 4, 2};

	p->opts_len = 0;
	memcpy(p->opts, mss, 4);
	p->opts_len = 4;
	if (wscale) {
		memcpy(p->opts + p->opts_len, ws, 4);
		p->opts_len += 4;
	}
	if (sack) {
		memcpy(p->opts + p->opts_len, sk, 4);
		p->opts_len += 4;
	}
	if (ts) {
		tcp_put_timestamps(p->opts + p->opts_len, 1000, 0);
		p->opts_len += 12;
	}
}

static void peer_opt_ts(struct peer *p, uint32_t val)
{
	tcp_put_timestamps(p->opts, val, 0);
	p->opts_len = 12;
}

static struct sock *peer_listen(struct peer *p, int backlog)
{
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);

	k->holders = 1;
	k->local = peer_addr(1, PORT);
	assert_int_equal(tcp_listen(&p->e, k, backlog), 0);
	return k;
}

/* The peer opens a connection to a listener. Its options are SACK, and what is asked for. */
static struct sock *peer_open(struct peer *p, struct sock *l, bool wscale, bool ts)
{
	int i;

	peer_opt_syn(p, wscale, true, ts);
	peer_send(p, 0, TH_SYN, 0);
	assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK);
	assert_int_equal(peer_last(p)->ack, p->seq + 1);
	p->seq++;
	p->ack = peer_last(p)->seq + 1;
	p->opts_len = 0;
	if (ts)
		peer_opt_ts(p, 1000);
	peer_send(p, 0, TH_ACK, 0);
	i = tcp_accept(&p->e, l);
	assert_true(i > 0);
	sock_at(p->e.s, (uint32_t)i)->holders = 1;
	return sock_at(p->e.s, (uint32_t)i);
}

/* Read up to n bytes and check that they continue at the peer's number `seq`. */
static ssize_t peer_read(struct peer *p, struct sock *k, uint32_t seq, size_t n)
{
	static uint8_t buf[1 << 20];
	struct iovec iov = {.iov_base = buf, .iov_len = n};
	ssize_t got = tcp_recv(&p->e, k, &iov, 1, 0, 0, p->e.s->now_us);

	for (ssize_t i = 0; i < got; i++)
		assert_int_equal(buf[i], (uint8_t)((seq + (uint32_t)i) * 7));
	peer_check(p);
	return got;
}

static ssize_t peer_write(struct peer *p, struct sock *k, size_t n)
{
	static uint8_t zero[1 << 17];
	struct iovec iov = {.iov_base = zero, .iov_len = n};

	return tcp_send(&p->e, k, &iov, 1, 0, 0, p->e.s->now_us);
}

static uint32_t peer_edges(struct sock *k)
{
	uint32_t edges = k->edges | (k->edge_rdhup ? EV_RDHUP : 0);

	k->edges = k->edge_rdhup = 0;
	k->dirty_mask = 0;
	return edges;
}

#endif
