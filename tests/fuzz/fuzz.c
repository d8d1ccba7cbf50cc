/* SPDX-License-Identifier: BSD-2-Clause */
/* See fuzz.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "lib/test_stack.h"

#define DAY_US (24 * 3600 * 1000000ull)

static struct engine the_engine;
static uint32_t seen_gen[FUZZ_SOCKS], seen_rcv_nxt[FUZZ_SOCKS];
static uint8_t seen_state[FUZZ_SOCKS];

void fuzz_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
	abort();
}

struct engine *fuzz_stack(uint64_t now_us)
{
	struct stack_config cfg = test_config();

	cfg.max_socks = FUZZ_SOCKS;
	cfg.max_pkts = 1024;
	cfg.max_private = 256;
	cfg.hash_buckets = 16;
	cfg.max_fdinfo = 2;
	cfg.defaults.rcvbuf = cfg.defaults.sndbuf = 32768;
	cfg.defaults.rcvbuf_max = 131072;
	cfg.defaults.sndbuf_max = 65536;
	cfg.defaults.somaxconn = 64;
	test_stack_again(&the_engine, &cfg, now_us);
	memset(seen_gen, 0, sizeof(seen_gen));
	return &the_engine;
}

void fuzz_news(struct engine *e)
{
	struct stack_proc *p = &e->s->proc[0];

	while (p->dirty_head != p->dirty_tail) {
		struct sock *k = sock_at(e->s, p->dirty[p->dirty_head++ % DIRTY_RING]);

		fuzz_require(k);
		k->edges = k->edge_rdhup = 0;
		k->dirty_mask = 0;
	}
	fuzz_require(!p->dirty_overflow);
}

void fuzz_settle(struct engine *e, uint64_t now_us)
{
	uint32_t rounds = 0;

	while (engine_poll(e, now_us, 64) > 0)
		fuzz_require(++rounds < 1000);
	for (rounds = 0; engine_deadline(e) <= now_us; rounds++) {
		fuzz_require(rounds < 1000);
		engine_tick(e, now_us);
	}
	fuzz_news(e);
}

static void check_timers(const struct tcb *t, uint64_t now_us)
{
	for (int i = 0; i < TIMER_KINDS; i++)
		fuzz_require(timer_deadline(&t->timer[i]) <= now_us + 30 * DAY_US);
}

static void check_tcp(const struct stack *s, const struct sock *k, uint64_t now_us)
{
	const struct tcb *t = &k->tcp;
	uint32_t i = sock_index(s, k);

	fuzz_require(t->state >= TCP_ESTABLISHED && t->state < TCP_STATES);
	check_timers(t, now_us);
	fuzz_require(t->ooo_count <= TCP_OOO_MAX);
	fuzz_require(k->rxq.count <= s->cfg.max_pkts && t->txq.count <= s->cfg.max_pkts);
	if (t->state == TCP_LISTEN || t->state == TCP_CLOSED)
		return;
	fuzz_require(seq_leq(t->snd_una, t->snd_nxt) && seq_leq(t->snd_nxt, t->snd_max));
	fuzz_require(seq_leq(t->snd_max, t->snd_end + 1) || t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED);
	fuzz_require(t->snd_max - t->snd_una <= t->snd_max_wnd + 70000);
	fuzz_require(t->sacked <= t->txq.bytes && t->lost <= t->txq.bytes && t->retrans <= t->txq.bytes);
	fuzz_require(!t->mss || t->mss >= 8);
	if (seen_gen[i] == k->gen && seen_state[i] != TCP_SYN_SENT && seen_state[i] != TCP_LISTEN)
		fuzz_require(seq_geq(t->rcv_nxt, seen_rcv_nxt[i]));
	seen_gen[i] = k->gen;
	seen_rcv_nxt[i] = t->rcv_nxt;
	seen_state[i] = t->state;
}

void fuzz_check(struct engine *e, uint64_t now_us, bool deep)
{
	for (uint32_t i = 1; i < FUZZ_SOCKS; i++) {
		const struct sock *k = sock_at(e->s, i);

		if (k->proto == SOCK_UDP)
			fuzz_require(k->rxq.bytes <= k->rcvbuf + 65536u && k->rxq.count <= e->s->cfg.max_pkts);
		if (k->proto != SOCK_TCP)
			continue;
		check_tcp(e->s, k, now_us);
		if (deep)
			tcp_check(e, sock_at(e->s, i));
	}
	if (deep)
		fuzz_require(stack_audit(e) == 0);
}

void fuzz_address(uint8_t addr[16], uint8_t last)
{
	memcpy(addr, test_addr4(last, 0).addr, 16);
}

void fuzz_address6(uint8_t addr[16], uint8_t last)
{
	memcpy(addr, test_addr6(last, 0).addr, 16);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t put_tcp(uint8_t *tcp, const struct fuzz_segment *g)
{
	memset(tcp, 0, 20);
	put16(tcp, g->sport);
	put16(tcp + 2, g->dport);
	put32(tcp + 4, g->seq);
	put32(tcp + 8, g->ack);
	tcp[12] = (uint8_t)((20u + g->opt_len) / 4 << 4);
	tcp[13] = g->flags;
	put16(tcp + 14, g->wnd);
	put16(tcp + 18, g->urg);
	memcpy(tcp + 20, g->opt, g->opt_len);
	return 20u + g->opt_len;
}

static uint32_t put_udp(uint8_t *udp, const struct fuzz_segment *g)
{
	put16(udp, g->sport);
	put16(udp + 2, g->dport);
	put16(udp + 4, 8 + g->len + (uint32_t)g->lie);
	put16(udp + 6, 0);
	return 8;
}

static uint32_t put_ipv4(uint8_t *ip, const struct fuzz_segment *g, uint32_t l4)
{
	uint16_t sum;

	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[1] = g->tos;
	put16(ip + 2, 20 + l4);
	ip[8] = 64;
	ip[9] = g->udp ? 17 : 6;
	memcpy(ip + 12, (uint8_t[8]){10, 0, 0, g->src, 10, 0, 0, g->dst}, 8);
	sum = csum_fold(csum_add(ip, 20, 0));
	memcpy(ip + 10, &sum, 2);
	return 0x0800;
}

static uint32_t put_ipv6(uint8_t *ip, const struct fuzz_segment *g, uint32_t l4)
{
	put32(ip, 0x60000000u | (uint32_t)g->tos << 20);
	put16(ip + 4, g->ext_len + l4);
	ip[6] = g->ext_len ? g->ext_first : g->udp ? 17 : 6;
	ip[7] = 64;
	fuzz_address6(ip + 8, g->src);
	fuzz_address6(ip + 24, g->dst);
	memcpy(ip + 40, g->ext, g->ext_len);
	return 0x86dd;
}

uint32_t fuzz_frame(uint8_t *to, const struct fuzz_segment *g)
{
	uint32_t off = g->v6 ? 14 + 40u + g->ext_len : 14 + 20, proto = g->udp ? 17 : 6, at = g->udp ? 6 : 16;
	uint32_t hdr = g->udp ? put_udp(to + off, g) : put_tcp(to + off, g), l4 = hdr + g->len;
	uint8_t src[16], dst[16];
	uint16_t sum;

	memset(to + off + hdr, g->fill, g->len);
	memset(to, 0, 14);
	put32(to, 0x02000000u);
	put16(to + 12, g->v6 ? put_ipv6(to + 14, g, l4) : put_ipv4(to + 14, g, l4));
	(g->v6 ? fuzz_address6 : fuzz_address)(src, g->src);
	(g->v6 ? fuzz_address6 : fuzz_address)(dst, g->dst);
	sum = csum_fold(csum_add(to + off, l4, csum_pseudo(g->v6 ? 6 : 4, src, dst, (uint8_t)proto, l4)));
	sum ^= g->bad_sum;
	memcpy(to + off + at, &sum, 2);
	return off + l4;
}
