/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segments without payload: SYN, ACK, FIN, RST, probes, and the answers to segments that belong to no connection
 * (RFC 9293 3.5.2, 3.10.7.1; RFC 5961; RFC 4987 for SYN cookies).
 *
 * Each takes a tx buffer that is let go at once: only the device has it then. When a vNIC has none left,
 * the ACK stays owed (TCPF_ACK_NOW) and the socket stands in line for a buffer (txwait.c); SYN and FIN have their
 * timer; a RST is lost, as it may be on any network.
 */
#include <string.h>

#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define CHALLENGE_INTERVAL_US 500000u /* per socket, as Linux's tcp_invalid_ratelimit */

/* Sequence number of a segment that carries nothing: within the window also where the peer took some of it back. */
static uint32_t control_seq(const struct tcb *t)
{
	uint32_t edge = t->snd_una + t->snd_wnd;

	return seq_leq(t->snd_nxt, edge) || t->snd_nxt - edge < 1u << t->rcv_wscale ? t->snd_nxt : edge;
}

bool tcp_send_control(struct engine *e, struct sock *k, uint32_t seq, uint8_t flags)
{
	struct tcb *t = &k->tcp;
	struct vnic *v = tcp_path(e, k);
	struct vnic_desc part;
	uint8_t *l4;
	uint32_t opts = 0;
	int buf;

	if (!v)
		return false;
	buf = vnic_tx_alloc(v);
	if (buf < 0) {
		txwait_add(e, k);
		return false;
	}
	l4 = vnic_tx_buf(v, (uint32_t)buf) + PKT_HEADROOM;
	if (flags & TH_SYN)
		flags |= tcp_ecn_syn_flags(e, k, flags & TH_ACK);
	if (flags & TH_SYN)
		opts = tcp_build_syn_options(e, k, l4 + TCP_HEADER, flags & TH_ACK);
	else if (t->flags & TCPF_TS || t->ooo_count || t->dsack_start != t->dsack_end)
		opts = tcp_build_options(e, k, l4 + TCP_HEADER);
	tcp_put_header(e, k, l4, seq, flags, opts);
	part = (struct vnic_desc){.buf = (uint32_t)buf, .off = PKT_HEADROOM, .len = (uint16_t)(TCP_HEADER + opts)};
	tcp_post(e, k, &part, 1, 0);
	vnic_tx_free(v, (uint32_t)buf);
	if (flags & TH_ACK)
		tcp_ack_sent(e, k);
	t->segs_out++;
	return true;
}

void tcp_send_ack(struct engine *e, struct sock *k)
{
	if (!tcp_send_control(e, k, control_seq(&k->tcp), TH_ACK))
		k->tcp.flags |= TCPF_ACK_NOW;
}

void tcp_send_challenge_ack(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->challenge_count && e->s->now_us - t->challenge_window_us < CHALLENGE_INTERVAL_US) {
		count(e->s, C_tcp_challenge_suppressed);
		return;
	}
	t->challenge_window_us = e->s->now_us;
	t->challenge_count++;
	e->s->challenge_acks++;
	tcp_send_ack(e, k);
}

void tcp_send_syn(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t rto;

	if (!t->rto_us)
		t->rto_us = TCP_INIT_RTO_US;
	tcp_send_control(e, k, t->iss, t->state == TCP_SYN_RECEIVED ? TH_SYN | TH_ACK : TH_SYN);
	t->snd_nxt = t->snd_max = t->iss + 1;
	t->rtt_sent_us = t->syn_tries ? 0 : e->s->now_us;
	if (t->syn_tries) {
		t->retrans_total++;
		count(e->s, C_tcp_retrans);
	}
	rto = (uint64_t)t->rto_us << min_u32(t->syn_tries, 16);
	if (rto > (uint64_t)e->s->cfg.defaults.rto_max_ms * 1000)
		rto = (uint64_t)e->s->cfg.defaults.rto_max_ms * 1000;
	if (t->syn_tries < UINT8_MAX)
		t->syn_tries++;
	t->last_snd_us = e->s->now_us;
	timer_set(e, k, TIMER_RTO, e->s->now_us + rto);
}

/* The timer goes on as it was: neither does a peer that repeats its SYN use up our tries, nor does it put off the end.
 */
void tcp_resend_syn_ack(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	tcp_send_control(e, k, t->iss, TH_SYN | TH_ACK);
	t->rtt_sent_us = 0; /* which of them is acknowledged is not known */
	t->retrans_total++;
	count(e->s, C_tcp_retrans);
}

/*
 * A probe (RFC 9293 3.8.6.1, 3.8.4). For keepalive, and for a window that is shut, it is a segment without data whose
 * sequence number is one that was acknowledged long ago, as Linux does it: it must be answered with an ACK, which tells
 * the window, and it occupies nothing. A window that is open too little gets what fits.
 */
void tcp_send_probe(struct engine *e, struct sock *k, bool data)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, t->send_head);

	if (data && p && seq_lt(t->snd_nxt, t->snd_una + t->snd_wnd)) {
		uint32_t room = t->snd_una + t->snd_wnd - t->snd_nxt;

		if (p->len <= room || tcp_split(e, k, p, room)) {
			p->flags |= PKT_PSH; /* no more is coming, it seems */
			tcp_push(e, k, TCP_PUSH_FORCE);
			return;
		}
	}
	count(e->s, C_tcp_probes);
	tcp_send_control(e, k, t->snd_una - 1, TH_ACK);
}

void tcp_send_rst(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool synchronized = t->state != TCP_SYN_SENT;

	if (tcp_send_control(e, k, synchronized ? control_seq(t) : t->snd_nxt, synchronized ? TH_RST | TH_ACK : TH_RST))
		count(e->s, C_tcp_rst_sent);
	t->flags |= TCPF_RST_SENT;
}

/* A segment to whoever sent frame f, with no state of ours behind it. */
static void reply(struct engine *e, const struct frame *f, struct tcp_header h, const uint8_t *opts, uint32_t opts_len)
{
	struct vnic *v = f->vnic < VNIC_MAX ? &e->vnic[f->vnic] : NULL;
	struct ip_out o = {.vnic = f->vnic,
			   .family = f->family,
			   .proto = 6,
			   .ttl = 64,
			   .src = f->dst.addr,
			   .dst = f->src.addr,
			   .mac = frame_source_mac(f),
			   .df = true};
	struct vnic_desc part;
	uint8_t *l4;
	int buf;

	if (!v || !v->ops || v->st->dead || (buf = vnic_tx_alloc(v)) < 0)
		return;
	l4 = vnic_tx_buf(v, (uint32_t)buf) + PKT_HEADROOM;
	h.sport = be16(f->dst.port);
	h.dport = be16(f->src.port);
	h.off = (uint8_t)((TCP_HEADER + opts_len) << 2);
	memcpy(l4, &h, sizeof(h));
	if (opts_len)
		memcpy(l4 + TCP_HEADER, opts, opts_len);
	part = (struct vnic_desc){.buf = (uint32_t)buf, .off = PKT_HEADROOM, .len = (uint16_t)(TCP_HEADER + opts_len)};
	ip_output(e, &o, &part, 1, TCP_CSUM_OFF);
	vnic_tx_free(v, (uint32_t)buf);
}

/* RFC 9293 3.10.7.1: the reset takes the numbers that make it acceptable to the sender of g. */
void tcp_reply_rst(struct engine *e, const struct segment *g)
{
	struct tcp_header h = {.flags = TH_RST};

	if (g->flags & TH_RST)
		return;
	if (g->flags & TH_ACK) {
		h.seq = be32(g->ack);
	} else {
		h.flags |= TH_ACK;
		h.ack = be32(g->seq + g->len + !!(g->flags & TH_SYN) + !!(g->flags & TH_FIN));
	}
	count(e->s, C_tcp_rst_sent);
	reply(e, g->f, h, NULL, 0);
}

void tcp_reply_syn_ack(struct engine *e, struct sock *listener, const struct segment *g, uint32_t isn,
		       const uint8_t *opts, uint32_t opts_len)
{
	struct tcp_header h = {
	    .flags = TH_SYN | TH_ACK,
	    .seq = be32(isn),
	    .ack = be32(g->seq + 1),
	    .wnd = be16(tcp_first_window(e->s, listener->rcvbuf)),
	};

	if (opts_len <= 40 && !(opts_len & 3))
		reply(e, g->f, h, opts, opts_len);
}
