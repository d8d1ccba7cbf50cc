/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP options: parsing what came, building what goes out (RFC 9293 3.2, RFC 7323, RFC 2018).
 *
 * Parsing never fails and always ends: each step moves at least one byte on, and an option whose length does not
 * fit what is left ends it. An option of the wrong length for its kind is ignored alone. Called by tcp_input for
 * segments that the fast path does not take; building is called by tcp_output.c and tcp_listen.c.
 */
#include "engine/tcp_open.h"

enum { OPT_EOL = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_WSCALE = 3, OPT_SACK_OK = 4, OPT_SACK = 5, OPT_TS = 8 };

#define WSCALE_MAX 14u /* RFC 7323 2.3 */

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t *put16(uint8_t *p, uint32_t v)
{
	*p++ = (uint8_t)(v >> 8);
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	return put16(put16(p, v >> 16), v);
}

static void parse_sack(const uint8_t *p, uint32_t len, struct tcp_opts *o)
{
	uint32_t n = (len - 2) / 8;

	if (len < 10 || (len - 2) % 8 != 0) /* RFC 2018 3: 8n + 2 */
		return;
	if (n > 4)
		n = 4;
	o->sacks = n;
	for (uint32_t i = 0; i < n; i++) {
		o->sack[i].start = get32(p + 2 + i * 8);
		o->sack[i].end = get32(p + 6 + i * 8);
	}
}

static void parse_one(const uint8_t *p, uint32_t len, struct tcp_opts *o)
{
	switch (p[0]) {
	case OPT_MSS:
		if (len == 4) {
			o->has_mss = true;
			o->mss = (uint16_t)(p[2] << 8 | p[3]);
		}
		break;
	case OPT_WSCALE:
		if (len == 3) {
			o->has_wscale = true;
			o->wscale = p[2] > WSCALE_MAX ? WSCALE_MAX : p[2]; /* RFC 7323 2.3: use 14 */
		}
		break;
	case OPT_SACK_OK:
		if (len == 2)
			o->sack_ok = true;
		break;
	case OPT_SACK:
		parse_sack(p, len, o);
		break;
	case OPT_TS:
		if (len == 10) {
			o->has_ts = true;
			o->ts_val = get32(p + 2);
			o->ts_ecr = get32(p + 6);
		}
		break;
	default: /* RFC 9293 3.1, MUST-6: unknown ones are ignored, if they have a length */
		break;
	}
}

void tcp_parse_options(const uint8_t *opt, uint32_t n, struct tcp_opts *o)
{
	memset(o, 0, sizeof(*o));
	for (uint32_t i = 0; i < n;) {
		uint32_t len;

		if (opt[i] == OPT_EOL)
			return;
		if (opt[i] == OPT_NOP) {
			i++;
			continue;
		}
		if (i + 2 > n)
			return;
		len = opt[i + 1];
		if (len < 2 || i + len > n) /* MUST-7: survive an illegal length */
			return;
		parse_one(opt + i, len, o);
		i += len;
	}
}

uint32_t tcp_ts_now(const struct engine *e, const struct sock *k)
{
	return (uint32_t)(e->s->now_us / 1000) + k->tcp.ts_offset;
}

static uint8_t *put_ts(const struct engine *e, const struct sock *k, uint8_t *p)
{
	*p++ = OPT_TS;
	*p++ = 10;
	p = put32(p, tcp_ts_now(e, k));
	return put32(p, k->tcp.ts_recent);
}

/*
 * A SYN offers everything, a SYN-ACK confirms what was agreed on. The order keeps each group aligned to four bytes:
 * MSS | SACK-permitted, timestamps (or two NOPs and SACK-permitted) | NOP, window scale | opening at once (tcp_open.c).
 *
 * Timestamps (RFC 7323) serve two purposes: RTT samples from retransmitted segments and protection against old
 * duplicates. A vNIC with VNIC_FEAT_LOSSLESS delivers everything once and in order, so there is nothing to protect
 * against, and 12 bytes and a comparison per segment are saved.
 */
uint32_t tcp_build_syn_options(struct engine *e, const struct sock *k, uint8_t *to, bool syn_ack)
{
	const struct tcb *t = &k->tcp;
	bool ts = syn_ack ? (t->flags & TCPF_TS) != 0 : !e->s->cfg.defaults.no_timestamps && !tcp_lossless(e, k->vnic);
	uint8_t *p = to;

	*p++ = OPT_MSS;
	*p++ = 4;
	p = put16(p, t->adv_mss);
	if (!syn_ack || (t->flags & TCPF_SACK)) {
		if (!ts) {
			*p++ = OPT_NOP;
			*p++ = OPT_NOP;
		}
		*p++ = OPT_SACK_OK;
		*p++ = 2;
	} else if (ts) {
		*p++ = OPT_NOP;
		*p++ = OPT_NOP;
	}
	if (ts)
		p = put_ts(e, k, p);
	if (!syn_ack || (t->flags & TCPF_WSCALE)) {
		*p++ = OPT_NOP;
		*p++ = OPT_WSCALE;
		*p++ = 3;
		*p++ = t->rcv_wscale;
	}
	if (!syn_ack)
		p = tcp_open_option(k, p);
	return (uint32_t)(p - to);
}

uint32_t tcp_options_len(const struct sock *k)
{
	return k->tcp.flags & TCPF_TS ? 12 : 0;
}

uint32_t tcp_build_options(struct engine *e, struct sock *k, uint8_t *to)
{
	const struct tcb *t = &k->tcp;
	uint32_t block[4][2];
	uint8_t *p = to;
	int n;

	if (t->flags & TCPF_TS) {
		*p++ = OPT_NOP;
		*p++ = OPT_NOP;
		p = put_ts(e, k, p);
	}
	if (!(t->flags & TCPF_SACK) || (!t->ooo_count && t->dsack_start == t->dsack_end))
		return (uint32_t)(p - to);
	n = tcp_sack_blocks(e, k, block, t->flags & TCPF_TS ? 3 : 4);
	if (n == 0)
		return (uint32_t)(p - to);
	*p++ = OPT_NOP;
	*p++ = OPT_NOP;
	*p++ = OPT_SACK;
	*p++ = (uint8_t)(2 + 8 * n);
	for (int i = 0; i < n; i++)
		p = put32(put32(p, block[i][0]), block[i][1]);
	return (uint32_t)(p - to);
}
