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
	void *mem;
	uint8_t *bufs;
	struct vnic_state *st;
	struct sock *k;
	struct tcb *t;
	bool hold; /* the device keeps what is posted */
	struct sent sent[4096];
	uint32_t sents;
	char pattern[1 << 18];
};

static void sender_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct sender *r = v->priv;
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
		assert_false(v->st->tx_state[d[i].buf] & VNIC_TX_NIC); /* never twice in the device's hands */
		v->st->tx_state[d[i].buf] |= VNIC_TX_NIC;
		if (!r->hold)
			vnic_take_return(v->st, d[i].buf);
	}
	s->len -= 34 + (uint32_t)(h.off >> 4) * 4;
}

static int sender_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	(void)v;
	(void)ev;
	(void)max;
	return 0;
}

static void sender_release(struct vnic *v, uint32_t buf)
{
	(void)v;
	(void)buf;
}

static const struct vnic_ops sender_ops = {.poll = sender_poll, .post = sender_post, .release = sender_release};

static struct stack_config sender_config(void)
{
	return (struct stack_config){
	    .max_socks = 16,
	    .max_pkts = 4096,
	    .max_private = 64,
	    .hash_buckets = 64,
	    .max_fdinfo = 16,
	    .defaults = {.rcvbuf = 131072,
			 .rcvbuf_max = 6291456,
			 .sndbuf = 65536,
			 .sndbuf_max = 4194304,
			 .cc = TCP_CC_NEWRENO,
			 .rto_min_ms = 200,
			 .rto_max_ms = 120000,
			 .delack_ms = 40,
			 .time_wait_ms = 60000,
			 .syn_retries = 6,
			 .synack_retries = 5,
			 .retries2 = 15,
			 .keep_idle_s = 7200,
			 .keep_intvl_s = 75,
			 .keep_cnt = 9,
			 .fin_timeout_s = 60,
			 .somaxconn = 128},
	};
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
	k->local.addr[10] = k->local.addr[11] = k->remote.addr[10] = k->remote.addr[11] = 0xff;
	k->local.addr[12] = k->remote.addr[12] = 10;
	k->local.addr[15] = 1;
	k->remote.addr[15] = 2;
	k->local.port = 4000;
	k->remote.port = 80;
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
	uint32_t size = features & VNIC_FEAT_SCATTER ? 4096 : 2048;
	struct vnic *v;
	int i;

	r->mem = aligned_alloc(4096, (stack_size(&cfg) + 4095) / 4096 * 4096);
	memset(r->mem, 0, stack_size(&cfg));
	assert_int_equal(stack_format(r->mem, stack_size(&cfg), &cfg), 0);
	engine_attach(&r->e, r->mem);
	i = engine_vnic_alloc(&r->e);
	assert_true(i >= 0);
	v = &r->e.vnic[i];
	r->st = stack_vnic(r->e.s, (uint32_t)i);
	vnic_state_reset(r->st, VNIC_PROV_SIM, 0, 1024, 1024, size);
	r->st->features = features;
	r->st->mtu = 65535;
	r->bufs = malloc((size_t)1024 * size);
	v->ops = &sender_ops;
	v->st = r->st;
	v->gen = r->st->gen;
	v->tx_bufs = r->bufs;
	v->priv = r;
	r->e.s->now_us = SECOND;
	timer_run(&r->e, SECOND);
	sender_socket(r, (uint32_t)i, mss);
	for (size_t n = 0; n < sizeof(r->pattern); n++)
		r->pattern[n] = (char)(n * 7);
	return r;
}

static inline void sender_free(struct sender *r)
{
	free(r->bufs);
	free(r->mem);
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
