/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an ACK does to what we sent: frees pkts, marks SACKed ones, samples the round trip, moves the window
 * (RFC 9293 3.10.7.4, RFC 2018, RFC 2883, RFC 6298, RFC 7323 4), and then asks recovery and congestion control.
 *
 * Only bytes count, never the number of ACKs, so ACKs that are split up gain nothing (RFC 3465); tcp_input has dropped
 * what acknowledges more than snd_max. SACK blocks outside of [snd_una, snd_max] are ignored; one pass over txq serves
 * all blocks of a segment, and txq holds at most as many pkts as the vNIC has buffers, so the work per ACK is bounded.
 * A block that covers a pkt in part does not count for it.
 */
#include "engine/tcp_send.h"

#define MAX_REORDERING 300u /* segments, as Linux */

uint32_t tcp_in_flight(const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t out = t->snd_nxt - t->snd_una, gone = t->sacked + t->lost;

	return (out > gone ? out - gone : 0) + t->retrans;
}

/* RFC 6298 2, with Linux's lower bound on the variance's share (rto_min) instead of on the whole. */
void tcp_rtt_sample(struct engine *e, struct sock *k, uint64_t rtt_us)
{
	struct tcb *t = &k->tcp;
	const struct sock_defaults *d = &e->s->cfg.defaults;
	uint32_t rtt = rtt_us > 0x3fffffff ? 0x3fffffff : (uint32_t)rtt_us, var;

	rtt = rtt ? rtt : 1;
	if (!t->min_rtt_us || rtt < t->min_rtt_us)
		t->min_rtt_us = rtt;
	if (!t->srtt_us) {
		t->srtt_us = rtt;
		t->rttvar_us = rtt / 2;
	} else {
		uint32_t diff = rtt > t->srtt_us ? rtt - t->srtt_us : t->srtt_us - rtt;

		t->rttvar_us = t->rttvar_us - t->rttvar_us / 4 + diff / 4;
		t->srtt_us = (uint32_t)((7ull * t->srtt_us + rtt) / 8);
		t->srtt_us = t->srtt_us ? t->srtt_us : 1;
	}
	var = max_u32(4 * t->rttvar_us, d->rto_min_ms * 1000);
	t->rto_us = min_u32(t->srtt_us + var, d->rto_max_ms * 1000);
	t->backoff = 0;
}

/* The window, from segments that are not older than the last one that moved it (RFC 9293 3.10.7.4). */
static bool update_window(struct tcb *t, const struct segment *g)
{
	uint32_t wnd = g->flags & TH_SYN ? g->wnd : g->wnd << t->snd_wscale;
	bool changed = wnd != t->snd_wnd;

	if (!(seq_lt(t->snd_una, g->ack) || seq_lt(t->snd_wl1, g->seq) ||
	      (t->snd_wl1 == g->seq && (seq_lt(t->snd_wl2, g->ack) || (t->snd_wl2 == g->ack && wnd > t->snd_wnd)))))
		return false;
	t->snd_wnd = wnd;
	t->snd_wl1 = g->seq;
	t->snd_wl2 = g->ack;
	t->snd_max_wnd = max_u32(t->snd_max_wnd, wnd);
	return changed;
}

static void note_delivered(struct engine *e, struct sock *k, const struct pkt *p, struct ack_result *r)
{
	struct tcb *t = &k->tcp;

	tcp_rack_delivered(e, k, p);
	if (p->flags & PKT_EVER_RETRANS) {
		r->retrans_acked = true;
		return;
	}
	if (seq_leq(p->seq + p->len, t->recover))
		r->orig_acked = true;
	if (!r->first_us)
		r->first_us = p->sent_us;
	r->last_us = p->sent_us;
}

void tcp_note_reordering(struct tcb *t, uint32_t seq, uint32_t fack)
{
	uint32_t distance = (fack - seq + t->mss - 1) / max_u32(t->mss, 1);

	t->reord_seen += t->reord_seen < UINT8_MAX;
	t->reordering = (uint16_t)max_u32(t->reordering, min_u32(distance, MAX_REORDERING));
}

/* Take `n` bytes of p out of the counts of its marks. */
static void uncount(struct tcb *t, const struct pkt *p, uint32_t n)
{
	if (p->flags & PKT_SACKED)
		t->sacked -= n;
	if (p->flags & PKT_LOST)
		t->lost -= n;
	if (p->flags & PKT_RETRANS)
		t->retrans -= n;
}

/* Free what lies before ack. */
static void clean_txq(struct engine *e, struct sock *k, uint32_t ack, struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	struct pkt *p;

	while ((p = pkt_at(e->s, t->txq.head)) && p->flags & PKT_SENT && seq_lt(p->seq, ack)) {
		uint32_t n = min_u32(p->len, ack - p->seq);

		if (p->flags & (PKT_SACKED | PKT_LOST | PKT_RETRANS))
			uncount(t, p, n);
		r->acked += n;
		if (!(p->flags & PKT_SACKED)) {
			r->fresh += n;
			if (!(p->flags & PKT_EVER_RETRANS) && r->prior_sacked && seq_lt(p->seq, r->prior_fack) &&
			    t->flags & TCPF_SACK)
				tcp_note_reordering(t, p->seq, r->prior_fack);
		}
		if (n < p->len) { /* the peer took a part of it */
			p->seq += n;
			p->off += (uint16_t)n;
			p->len -= n;
			t->txq.bytes -= n;
			break;
		}
		if (p->flags & PKT_SACKED)
			t->sacked_pkts--;
		else
			note_delivered(e, k, p, r);
		pkt_unlink(e->s, &t->txq, p);
		pkt_free(e, p);
	}
	t->snd_una = ack;
	if (t->flags & TCPF_SND_URG && seq_geq(ack, t->snd_up))
		t->flags &= ~TCPF_SND_URG;
}

/* Is block 0 a D-SACK (RFC 2883): below the ACK, or inside of block 1? */
static bool is_dsack(const struct tcb *t, const struct segment *g)
{
	uint32_t a = g->o.sack[0].start, b = g->o.sack[0].end;

	if (!seq_lt(a, b) || b - a > t->snd_max_wnd + t->mss || seq_gt(b, t->snd_max))
		return false;
	if (seq_leq(b, g->ack))
		return true;
	return g->o.sacks > 1 && seq_geq(a, g->o.sack[1].start) && seq_leq(b, g->o.sack[1].end) &&
	       g->o.sack[1].end - g->o.sack[1].start > b - a;
}

static void mark_sacked(struct engine *e, struct sock *k, struct pkt *p, struct ack_result *r)
{
	struct tcb *t = &k->tcp;

	if (p->flags & PKT_SACKED)
		return;
	if (!(p->flags & PKT_EVER_RETRANS) && r->prior_sacked && seq_lt(p->seq, r->prior_fack))
		tcp_note_reordering(t, p->seq, r->prior_fack);
	note_delivered(e, k, p, r);
	if (p->flags & PKT_LOST)
		t->lost -= p->len;
	if (p->flags & PKT_RETRANS)
		t->retrans -= p->len;
	p->flags = (uint8_t)((p->flags & ~(PKT_LOST | PKT_RETRANS)) | PKT_SACKED);
	t->sacked += p->len;
	t->sacked_pkts++;
	r->sacked += p->len;
	if (t->sacked_pkts == 1 || seq_gt(p->seq + p->len, t->fack))
		t->fack = p->seq + p->len;
}

/* The segment's SACK blocks onto the pkts. */
static void apply_sack(struct engine *e, struct sock *k, const struct segment *g, struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	uint32_t first = 0, high = g->ack, block[4][2], n = 0;
	struct pkt *p;

	if (is_dsack(t, g)) {
		r->dsack = true;
		r->dsack_len = g->o.sack[0].end - g->o.sack[0].start;
		first = 1;
	}
	for (uint32_t i = first; i < g->o.sacks && i < 4; i++) {
		uint32_t a = g->o.sack[i].start, b = g->o.sack[i].end;

		if (!seq_lt(a, b) || seq_gt(b, t->snd_max) || seq_leq(b, g->ack)) {
			if (!seq_lt(a, b) || seq_gt(b, t->snd_max))
				count(e->s, C_tcp_sack_bad);
			continue;
		}
		block[n][0] = a;
		block[n++][1] = b;
		high = seq_gt(b, high) ? b : high;
	}
	if (!n)
		return;
	for (p = pkt_at(e->s, t->txq.head); p && p->flags & PKT_SENT && seq_lt(p->seq, high); p = tcp_next_pkt(e, p))
		for (uint32_t i = 0; i < n; i++)
			if (seq_geq(p->seq, block[i][0]) && seq_leq(p->seq + p->len, block[i][1]))
				mark_sacked(e, k, p, r);
}

/* A round trip from what was delivered; Karn's rule keeps what was sent again out, timestamps bring it in. */
static void sample_rtt(struct engine *e, struct sock *k, const struct ack_result *r)
{
	if (r->first_us && !r->retrans_acked && e->s->now_us >= r->first_us) {
		tcp_rtt_sample(e, k, e->s->now_us - r->first_us);
	} else if (r->advanced && r->has_ecr && r->ecr) {
		uint32_t ms = tcp_ts_now(e, k) - r->ecr;

		if (ms < 1u << 24) /* an echo of what we never sent says nothing */
			tcp_rtt_sample(e, k, (ms ? ms : 1) * 1000ull);
	}
}

/* cwnd grows only when it was what held data back (RFC 7661's aim, by Linux's rule). */
static bool cwnd_limited(const struct tcb *t)
{
	return t->flags & TCPF_CWND_LIMITED || (t->cwnd < t->ssthresh && t->cwnd < 2 * t->usage_max);
}

static void control_congestion(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;

	if (t->ca_state == TCP_CA_RECOVERY || t->ca_state == TCP_CA_CWR || !r->advanced || r->reducing)
		return;
	if (r->fresh + r->sacked && (cwnd_limited(t) || e->s->cfg.defaults.linux_cubic))
		tcp_cc_ops(k)->acked(e, k, cwnd_limited(t) ? r->fresh + r->sacked : 0);
}

/* With nothing in flight the timer probes the window: no more once the first pkt fits, else at its own slowing pace. */
static void window_answered(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct pkt *p = pkt_at(e->s, t->send_head);

	if (p && seq_leq(p->seq + p->len, t->snd_una + t->snd_wnd)) {
		t->backoff = 0;
		timer_clear(k, TIMER_RTO);
	}
}

void tcp_ack(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;
	struct ack_result r = {.prior_una = t->snd_una,
			       .prior_fack = t->fack,
			       .prior_sacked = t->sacked_pkts,
			       .has_ecr = g->o.has_ts,
			       .ecr = g->o.ts_ecr};
	bool moved, outstanding = t->snd_una != t->snd_nxt;

	r.ece = (g->flags & (TH_ECE | TH_SYN)) == TH_ECE && t->flags & TCPF_ECN;
	r.reducing = t->ca_state == TCP_CA_RECOVERY || t->ca_state == TCP_CA_CWR;
	if (seq_gt(g->ack, t->snd_max) || seq_lt(g->ack, t->snd_una))
		return;
	t->probes = 0;
	t->soft_error = 0;
	t->flags &= ~TCPF_KEEP_WAIT;
	moved = update_window(t, g);
	if (g->o.sacks && t->flags & TCPF_SACK)
		apply_sack(e, k, g, &r);
	r.advanced = seq_gt(g->ack, t->snd_una);
	if (r.advanced) {
		clean_txq(e, k, g->ack, &r);
		t->rtos = 0;
		t->first_retrans_us = 0;
	} else {
		/* RFC 5681 2; with SACK a duplicate says something new (RFC 6675 2). */
		r.dupack = outstanding && !g->len && !(g->flags & (TH_SYN | TH_FIN)) && !moved &&
			   (!(t->flags & TCPF_SACK) || r.sacked);
	}
	if (r.advanced && !(t->flags & TCPF_SACK)) /* duplicate ACKs have told of some of it */
		r.fresh -= min_u32(t->sacked, r.fresh > t->mss ? r.fresh - t->mss : 0);
	if (r.advanced && t->rto_kind == TCP_RTO_REORDER)
		t->rto_kind = TCP_RTO_RETRANS; /* RACK sets it again if there is still something to wait for */
	t->delivered += r.fresh + r.sacked;
	if (r.advanced || r.sacked)
		sample_rtt(e, k, &r);
	t->bytes_acked += r.acked;
	if (t->ca_state != TCP_CA_OPEN || t->tlp_out || r.sacked || r.dsack || r.dupack || r.ece)
		tcp_recovery_on_ack(e, k, &r);
	if (!tcp_no_network(e, k))
		control_congestion(e, k, &r);
	if ((r.advanced || r.sacked) && t->rto_kind != TCP_RTO_REORDER)
		tcp_arm_rto(e, k);
	else if (moved && !outstanding)
		window_answered(e, k);
	if (r.acked && tcp_no_network(e, k)) /* on a network tcp_input does, when it has sent what may go */
		tcp_write_space(e, k);
}

/* An ACK that a later one overtook: only its SACK blocks may say something new (RFC 2018 5; as Linux). */
void tcp_old_ack(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;
	struct ack_result r = {.prior_una = t->snd_una, .prior_fack = t->fack, .prior_sacked = t->sacked_pkts};

	if (!g->o.sacks || !(t->flags & TCPF_SACK))
		return;
	apply_sack(e, k, g, &r);
	if (!r.sacked && !r.dsack)
		return;
	t->delivered += r.sacked;
	tcp_recovery_on_ack(e, k, &r);
	if (r.sacked && t->rto_kind != TCP_RTO_REORDER)
		tcp_arm_rto(e, k);
}
