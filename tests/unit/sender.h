/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One end of a connection for tests of the sending half: a stack, a vNIC that records what is posted, an established
 * socket whose numbers are known (our data starts at 1001, the peer's at 5001), and ACKs made by hand. Virtual time.
 */
#ifndef VD_TEST_SENDER_H
#define VD_TEST_SENDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/tcp_cc.h"
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"
#include "lib/test_stack.h"
#include "vnic/ring.h"

#define DATA0 1001u
#define PEER0 5001u
#define MS 1000ull
#define SECOND 1000000ull
#define WIRE_LIKE (VNIC_FEAT_LOSSLESS | VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_TX)

struct sent {
	uint32_t seq, ack, len, parts, wnd, urg;
	uint8_t flags;
	uint64_t at;
};

struct sender {
	struct engine e;
	struct test_device dev; /* its `hold`: the device keeps what is posted */
	struct vnic_state *st;
	struct sock *k;
	struct tcb *t;
	struct sent sent[4096];
	uint32_t sents;
	char pattern[1 << 18];
};

static void sender_sent(void *arg, struct vnic *v, const struct vnic_desc *d, int n)
{
	struct sender *r = arg;
	struct sent *s = &r->sent[r->sents++ % 4096];
	const uint8_t *l4 = vnic_tx_buf(v, d[0].buf) + d[0].off + 34;
	struct tcp_header h;

	memcpy(&h, l4, sizeof(h));
	*s = (struct sent){.seq = be32(h.seq),
			   .ack = be32(h.ack),
			   .flags = h.flags,
			   .wnd = be16(h.wnd),
			   .urg = be16(h.urg),
			   .parts = (uint32_t)n,
			   .at = r->e.s->now_us};
	for (int i = 0; i < n; i++) {
		s->len += d[i].len;
		assert_false(vnic_tx_busy(v, d[i].buf)); /* never twice in the device's hands */
	}
	s->len -= 34 + (uint32_t)(h.off >> 4) * 4;
}

static struct stack_config sender_config(void)
{
	struct stack_config c = test_config();

	c.max_socks = 16;
	c.max_pkts = 4096;
	c.max_private = c.hash_buckets = 64;
	c.defaults.cc = TCP_CC_NEWRENO;
	c.defaults.somaxconn = 128;
	return c;
}

static void sender_socket(struct sender *r, uint32_t vnic, uint32_t mss)
{
	struct sock *k = sock_alloc(&r->e, SOCK_TCP, 4);
	struct tcb *t = &k->tcp;

	assert_non_null(k);
	tcp_sock_init(&r->e, k);
	k->vnic = vnic;
	k->vnic_gen = r->st->gen;
	k->holders = 1;
	k->local = test_addr4(1, 4000);
	k->remote = test_addr4(2, 80);
	t->iss = DATA0 - 1;
	t->snd_una = t->snd_nxt = t->snd_max = t->snd_end = t->snd_sml = t->recover = DATA0;
	t->snd_wnd = t->snd_max_wnd = 1 << 20;
	t->irs = PEER0 - 1;
	t->rcv_nxt = t->rcv_adv = t->rcv_wup = t->rcv_read = t->last_ack_sent = t->snd_wl1 = PEER0;
	t->snd_wl2 = DATA0;
	t->mss = t->peer_mss = t->adv_mss = mss;
	t->rcv_mss = 536;
	t->rto_us = 200000;
	t->flags |= TCPF_SACK;
	t->state = TCP_ESTABLISHED;
	tcp_cc_ops(k)->init(&r->e, k);
	r->k = k;
	r->t = t;
}

/* A sender over a vNIC of these features; buffers of 2 KiB, of 4 KiB where a segment may span several. */
static inline struct sender *sender_new(uint32_t features, uint32_t mss)
{
	struct sender *r = calloc(1, sizeof(*r));
	struct stack_config cfg = sender_config();
	uint32_t vnic;

	test_stack_new(&r->e, &cfg, SECOND);
	r->dev = (struct test_device){.sent = sender_sent,
				      .arg = r,
				      .features = features,
				      .mtu = 65535,
				      .bufs = 1024,
				      .buf_size = features & VNIC_FEAT_SCATTER ? 4096 : 2048};
	vnic = test_device_join(&r->dev, &r->e);
	r->st = stack_vnic(r->e.s, vnic);
	timer_run(&r->e, SECOND);
	sender_socket(r, vnic, mss);
	for (size_t n = 0; n < sizeof(r->pattern); n++)
		r->pattern[n] = (char)(n * 7);
	return r;
}

static inline void sender_free(struct sender *r)
{
	test_device_free(&r->dev);
	test_stack_free(&r->e);
	free(r);
}

static inline ssize_t sender_write(struct sender *r, size_t n, int flags)
{
	struct iovec iov = {.iov_base = r->pattern, .iov_len = n};

	return tcp_send(&r->e, r->k, &iov, 1, 0, flags, r->e.s->now_us);
}

/* An ACK with `n` SACK blocks given as pairs of numbers, each relative to DATA0 as ack is. */
static inline void sender_ack(struct sender *r, uint32_t ack, uint32_t wnd, int n, ...)
{
	struct segment g = {.seq = r->t->rcv_nxt, .ack = DATA0 + ack, .wnd = wnd >> r->t->snd_wscale, .flags = TH_ACK};
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < n; i++) {
		g.o.sack[i].start = DATA0 + va_arg(ap, uint32_t);
		g.o.sack[i].end = DATA0 + va_arg(ap, uint32_t);
	}
	va_end(ap);
	g.o.sacks = (uint32_t)n;
	tcp_ack(&r->e, r->k, &g);
	tcp_output(&r->e, r->k);
	if (r->t->flags & TCPF_NOSPACE)
		tcp_write_space(&r->e, r->k);
}

/* Let time pass, firing what is due at its time. */
static inline void sender_wait(struct sender *r, uint64_t us)
{
	uint64_t end = r->e.s->now_us + us, next;

	while ((next = timer_next(&r->e)) <= end) {
		r->e.s->now_us = next > r->e.s->now_us ? next : r->e.s->now_us;
		timer_run(&r->e, r->e.s->now_us);
	}
	r->e.s->now_us = end;
	timer_run(&r->e, end);
}

static inline const struct sent *last_sent(const struct sender *r)
{
	assert_true(r->sents > 0);
	return &r->sent[(r->sents - 1) % 4096];
}

static inline bool was_sent(const struct sender *r, uint32_t from, uint32_t seq)
{
	for (uint32_t i = from; i < r->sents; i++)
		if (r->sent[i].len && r->sent[i].seq == DATA0 + seq)
			return true;
	return false;
}

/* Take the EV_* edges that the socket was told since the last look. */
static inline uint32_t sender_edges(struct sender *r)
{
	uint32_t edges = r->k->edges;

	r->k->edges = 0;
	r->k->dirty_mask = 0;
	return edges;
}

/* What must always hold of the scoreboard. */
static inline void sender_check(const struct sender *r)
{
	const struct tcb *t = r->t;
	uint32_t sacked = 0, lost = 0, retrans = 0, pkts = 0, bytes = 0, seq = t->snd_una;

	for (struct pkt *p = pkt_at(r->e.s, t->txq.head); p; p = pkt_at(r->e.s, p->next)) {
		assert_int_equal(p->seq, seq);
		seq += p->len;
		bytes += p->len;
		sacked += p->flags & PKT_SACKED ? p->len : 0;
		pkts += p->flags & PKT_SACKED ? 1 : 0;
		lost += p->flags & PKT_LOST ? p->len : 0;
		retrans += p->flags & PKT_RETRANS ? p->len : 0;
	}
	assert_int_equal(t->txq.bytes, bytes);
	assert_int_equal(t->lost, lost);
	assert_int_equal(t->retrans, retrans);
	if (t->flags & TCPF_SACK) {
		assert_int_equal(t->sacked, sacked);
		assert_int_equal(t->sacked_pkts, pkts);
	}
}

#endif
