/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loss recovery. The states are Linux's (tcb.ca_state):
 *
 *   OPEN      nothing suspicious
 *   DISORDER  duplicate ACKs or SACKs, not yet taken for a loss; new data goes out meanwhile (RFC 3042: what SACK or a
 *             duplicate ACK reports leaves room under cwnd)
 *   CWR       cwnd is being brought down without a loss: after a tail loss probe repaired one, or when an ACK has ECE
 *             (RFC 3168 6.1.2). Not left before data sent since is acknowledged, so that ECE counts once a window
 *   RECOVERY  fast recovery: RFC 6675 with SACK, RFC 6582 without; cwnd by RFC 6937 (PRR)
 *   LOSS      after a retransmission timeout: everything counts as lost; slow start; F-RTO (RFC 5682)
 *
 * What is lost is found with SACK by time (RACK, RFC 8985): a segment is lost when one sent after it was delivered and
 * a reordering window has passed. The window is 0 until reordering was seen once three segments are SACKed, which gives
 * the DupThresh rule of RFC 6675; it grows when D-SACKs say that it was too short. Without SACK three duplicate ACKs
 * say that the first segment is lost.
 *
 * Undo: when it turns out that nothing was lost (D-SACKs for all that was sent again, or an echoed timestamp older
 * than the first retransmission: RFC 3522, RFC 4015) cwnd and ssthresh are put back.
 */
#include "engine/tcp_send.h"

#define REO_MORE_MAX 250u
#define REO_PERSIST 16u /* RFC 8985 6.2, step 4 */

void tcp_mark_lost(struct tcb *t, struct pkt *p)
{
	if (p->flags & PKT_RETRANS) {
		p->flags &= (uint8_t)~PKT_RETRANS;
		t->retrans -= p->len;
	}
	if (!(p->flags & PKT_LOST)) {
		p->flags |= PKT_LOST;
		t->lost += p->len;
	}
}

struct pkt *tcp_next_retrans(struct engine *e, struct sock *k)
{
	struct pkt *p;

	if (k->tcp.lost <= k->tcp.retrans)
		return NULL;
	for (p = pkt_at(e->s, k->tcp.txq.head); p && p->flags & PKT_SENT; p = tcp_next_pkt(e, p))
		if ((p->flags & (PKT_LOST | PKT_RETRANS | PKT_SACKED)) == PKT_LOST)
			return p;
	return NULL;
}

/* --- RACK (RFC 8985) --- */

static bool sent_after(uint64_t us, uint32_t end, uint64_t us2, uint32_t end2)
{
	return us > us2 || (us == us2 && seq_gt(end, end2));
}

/* Step 2: remember the segment sent last among those delivered. */
void tcp_rack_delivered(struct engine *e, struct sock *k, const struct pkt *p)
{
	struct tcb *t = &k->tcp;
	uint64_t rtt = e->s->now_us - p->sent_us;

	if (p->flags & PKT_EVER_RETRANS && rtt < t->min_rtt_us)
		return;                 /* that was the original's delivery */
	t->rack_rtt_us = (uint32_t)rtt; /* of what was delivered last, whenever it was sent (6.2, step 2) */
	if (!t->rack_sent_us || sent_after(p->sent_us, p->seq + p->len, t->rack_sent_us, t->rack_end_seq)) {
		t->rack_sent_us = p->sent_us;
		t->rack_end_seq = p->seq + p->len;
	}
}

static uint32_t reorder_window(const struct tcb *t)
{
	if (!t->reord_seen && (t->ca_state >= TCP_CA_RECOVERY || t->sacked_pkts >= tcp_dupthresh(t)))
		return 0;
	return min_u32((1u + t->reo_more) * (t->min_rtt_us / 4), t->srtt_us);
}

/* Step 4: a D-SACK says that something was sent again for nothing, so the window was too short: it grows once a round
 * trip. As in Linux only where reordering was seen, and not for a tail loss probe, which is sent on suspicion. */
static void lengthen_window(struct tcb *t, const struct ack_result *r)
{
	if (!r->dsack || !t->reord_seen || t->tlp_out == 2 || seq_lt(t->snd_una, t->reo_round))
		return;
	t->reo_more += t->reo_more < REO_MORE_MAX;
	t->reo_persist = REO_PERSIST;
	t->reo_round = t->snd_nxt;
}

/* It is as at first again after so many recoveries in a row. */
static void shorten_window(struct tcb *t)
{
	if (t->reo_persist && !--t->reo_persist)
		t->reo_more = 0;
}

/* Step 5: mark what is lost by now. Returns after how many us the next one will be, 0: none waits. */
static uint64_t rack_mark(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t now = e->s->now_us, wait = 0, allowed = (uint64_t)t->rack_rtt_us + reorder_window(t);

	if (!t->rack_sent_us)
		return 0;
	for (struct pkt *p = pkt_at(e->s, t->txq.head); p && p->flags & PKT_SENT; p = tcp_next_pkt(e, p)) {
		if (p->flags & PKT_SACKED || (p->flags & (PKT_LOST | PKT_RETRANS)) == PKT_LOST)
			continue;
		if (!sent_after(t->rack_sent_us, t->rack_end_seq, p->sent_us, p->seq + p->len))
			continue;
		/* All that one call sends bears the same time, and there sequence numbers don't tell when it went out
		 * again. */
		if (p->flags & PKT_RETRANS && p->sent_us == t->rack_sent_us)
			continue;
		if (p->sent_us + allowed <= now)
			tcp_mark_lost(t, p);
		else if (p->sent_us + allowed - now > wait)
			wait = p->sent_us + allowed - now;
	}
	return wait;
}

static void rack_detect(struct engine *e, struct sock *k)
{
	uint64_t wait = rack_mark(e, k);

	if (!wait)
		return;
	k->tcp.rto_kind = TCP_RTO_REORDER;
	timer_set(e, k, TIMER_RTO, e->s->now_us + wait + 1000);
}

/* --- entering and leaving --- */

static void begin(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->ca_state <= TCP_CA_DISORDER) {
		t->prior_cwnd = t->cwnd;
		t->prior_ssthresh = t->ssthresh;
		t->ssthresh = tcp_cc_ops(k)->ssthresh(e, k);
		t->undo_ok = 1;
		t->ecn |= t->flags & TCPF_ECN ? TCP_ECN_CWR_DUE : 0;
		t->undo_retrans = TCP_UNDO_NONE;
		t->retrans_ts = 0;
	}
	t->recover = t->snd_nxt;
	t->prr_delivered = t->prr_out = 0;
	t->prr_flight = t->prior_cwnd;
}

static void enter_recovery(struct engine *e, struct sock *k)
{
	begin(e, k);
	k->tcp.ca_state = TCP_CA_RECOVERY;
	count(e->s, C_tcp_fast_recovery);
}

static void enter_cwr(struct engine *e, struct sock *k)
{
	begin(e, k);
	k->tcp.undo_ok = 0;
	k->tcp.ca_state = TCP_CA_CWR;
}

static void forget_losses(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	for (struct pkt *p = pkt_at(e->s, t->txq.head); p && p->flags & PKT_SENT; p = tcp_next_pkt(e, p))
		p->flags &= (uint8_t) ~(PKT_LOST | PKT_RETRANS);
	t->lost = t->retrans = 0;
	t->flags &= ~TCPF_FIN_LOST;
}

static void reset_reno(struct tcb *t)
{
	t->dupacks = 0;
	if (!(t->flags & TCPF_SACK))
		t->sacked = t->sacked_pkts = 0;
}

static void leave(struct tcb *t)
{
	if (t->ca_state >= TCP_CA_RECOVERY)
		shorten_window(t);
	t->ca_state = t->sacked ? TCP_CA_DISORDER : TCP_CA_OPEN;
	t->undo_ok = 0;
	t->retrans_ts = 0;
	t->frto = 0;
	reset_reno(t);
}

static void undo(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	forget_losses(e, k);
	t->ecn &= (uint8_t)~TCP_ECN_CWR_DUE;
	t->cwnd = max_u32(t->cwnd, t->prior_cwnd);
	t->ssthresh = max_u32(t->ssthresh, t->prior_ssthresh);
	tcp_cc_ops(k)->undo(e, k);
	t->rtos = 0;
	t->backoff = 0;
	leave(t);
	count(e->s, C_tcp_undo);
}

/* Was what this ACK acknowledges delivered before we sent anything again (RFC 3522)? */
static bool delayed_only(const struct tcb *t, const struct ack_result *r)
{
	return t->retrans_ts && r->has_ecr && r->ecr && seq_lt(r->ecr, t->retrans_ts);
}

static bool may_undo(const struct tcb *t, const struct ack_result *r)
{
	return t->undo_ok && (t->undo_retrans == 0 || (r->advanced && delayed_only(t, r)));
}

/* Everything that was in flight when recovery began is acknowledged. */
static void complete(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;

	if (may_undo(t, r)) {
		undo(e, k);
		return;
	}
	/* Without SACK, duplicates of this very ACK may follow: stay until it is passed (RFC 6582 4). */
	if (t->ca_state != TCP_CA_LOSS)
		t->cwnd = t->ssthresh;
	leave(t);
}

/* --- without SACK (RFC 6582): a duplicate ACK means that one segment has arrived --- */

static void reno_ack(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	uint32_t out = t->snd_nxt - t->snd_una;

	if (t->flags & TCPF_SACK)
		return;
	if (r->dupack) {
		t->dupacks += t->dupacks < UINT8_MAX;
		t->sacked_pkts++;
		t->sacked = min_u32(t->sacked + t->mss, out > t->lost + t->mss ? out - t->lost - t->mss : 0);
	} else if (r->advanced) {
		uint32_t beyond = r->acked > t->mss ? r->acked - t->mss : 0;

		t->sacked = t->sacked > beyond ? t->sacked - beyond : 0;
		t->sacked_pkts = t->sacked / max_u32(t->mss, 1);
		if (t->ca_state <= TCP_CA_DISORDER)
			reset_reno(t);
	}
	(void)e;
}

static void reno_mark(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, t->txq.head);

	if (!p || !(p->flags & PKT_SENT))
		return;
	if (t->ca_state == TCP_CA_RECOVERY ? r->advanced : t->dupacks >= TCP_DUPTHRESH)
		if (!(p->flags & PKT_LOST) || r->advanced)
			tcp_mark_lost(t, p);
}

static void find_losses(struct engine *e, struct sock *k, const struct ack_result *r)
{
	if (k->tcp.flags & TCPF_SACK)
		rack_detect(e, k);
	else
		reno_mark(e, k, r);
}

/* --- each ACK --- */

/* Proportional rate reduction (RFC 6937): cwnd so that what leaves follows what arrives. */
static void prr(struct sock *k, const struct ack_result *r, bool new_loss)
{
	struct tcb *t = &k->tcp;
	uint32_t delivered = r->fresh + r->sacked, flight = tcp_in_flight(k), send;

	if (!(t->flags & TCPF_SACK) && r->dupack)
		delivered += t->mss;
	if (!delivered && t->prr_out)
		return;
	t->prr_delivered += delivered;
	if (flight > t->ssthresh) {
		uint64_t due =
		    ((uint64_t)t->ssthresh * t->prr_delivered + t->prr_flight - 1) / max_u32(t->prr_flight, 1);

		send = due > t->prr_out ? (uint32_t)due - t->prr_out : 0;
	} else {
		uint32_t owed = t->prr_delivered > t->prr_out ? t->prr_delivered - t->prr_out : 0;

		send = max_u32(owed, delivered);
		if (r->advanced && !new_loss && t->ca_state == TCP_CA_RECOVERY)
			send += t->mss;
		send = min_u32(send, t->ssthresh - flight);
	}
	/* The fast retransmission goes out in any case, and without SACK that of a partial ACK (RFC 6582 3.2, step 3).
	 */
	if (!t->prr_out || (new_loss && !(t->flags & TCPF_SACK)))
		send = max_u32(send, t->mss);
	t->cwnd = flight + send;
}

/* F-RTO with SACK or without (RFC 5682), as Linux: did the timeout strike without a loss? True: undone. */
static bool frto(struct engine *e, struct sock *k, const struct ack_result *r, bool recovered)
{
	struct tcb *t = &k->tcp;
	const struct pkt *next = pkt_at(e->s, t->send_head);

	if (r->orig_acked && t->undo_ok) { /* an original arrived after all */
		undo(e, k);
		return true;
	}
	if (t->frto == 2) {
		if (seq_gt(t->snd_nxt, t->recover) && (r->sacked || r->dupack))
			t->frto = 0; /* 3a: the loss was real */
	} else if (r->advanced && !recovered) {
		t->recover = t->snd_nxt;
		if (next && seq_leq(next->seq + next->len, t->snd_una + t->snd_wnd))
			t->frto = 2; /* 2b: new data instead of retransmissions */
		else
			t->frto = 0;
	}
	return false;
}

static void in_loss(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	bool recovered = seq_geq(t->snd_una, t->recover);

	if (r->advanced && may_undo(t, r)) {
		undo(e, k);
		return;
	}
	if (t->frto && frto(e, k, r, recovered))
		return;
	if (recovered) {
		complete(e, k, r);
		return;
	}
	if (t->flags & TCPF_SACK)
		rack_detect(e, k);
}

/* The answer to a tail loss probe (RFC 8985 7.4): if the probe itself repaired a loss, cwnd must come down. */
void tcp_tlp_ack(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;

	if (seq_lt(t->snd_una, t->tlp_end))
		return;
	if (t->tlp_out == 2 && !r->dsack && r->advanced && t->ca_state == TCP_CA_OPEN)
		enter_cwr(e, k);
	t->tlp_out = 0;
}

static void take_dsack(struct tcb *t, const struct ack_result *r)
{
	if (!r->dsack || !t->undo_ok || t->undo_retrans == TCP_UNDO_NONE)
		return;
	t->undo_retrans -= min_u32(t->undo_retrans, r->dsack_len);
}

/* Is it over with bringing cwnd down? */
static bool reduced(const struct tcb *t)
{
	if (t->ca_state == TCP_CA_CWR && t->flags & TCPF_ECN)
		return seq_gt(t->snd_una, t->recover); /* what said CWR has arrived, so ECE now is of a new mark */
	return t->ca_state >= TCP_CA_CWR && seq_geq(t->snd_una, t->recover);
}

static void reduce_for_ece(struct engine *e, struct sock *k)
{
	enter_cwr(e, k);
	count(e->s, C_tcp_ecn_reductions);
}

void tcp_recovery_on_ack(struct engine *e, struct sock *k, const struct ack_result *r)
{
	struct tcb *t = &k->tcp;
	uint32_t lost = t->lost;

	take_dsack(t, r);
	lengthen_window(t, r);
	if (t->tlp_out)
		tcp_tlp_ack(e, k, r);
	reno_ack(e, k, r);
	if (t->ca_state == TCP_CA_LOSS) {
		in_loss(e, k, r);
		return;
	}
	if (reduced(t)) {
		complete(e, k, r);
	} else if (t->ca_state == TCP_CA_RECOVERY &&
		   ((r->dsack && may_undo(t, r)) || (r->advanced && delayed_only(t, r)))) {
		if (r->advanced && r->prior_sacked && seq_lt(r->prior_una, r->prior_fack)) /* it was late, not lost */
			tcp_note_reordering(t, r->prior_una, r->prior_fack);
		undo(e, k);
	}
	find_losses(e, k, r);
	if (t->ca_state <= TCP_CA_CWR && t->lost > t->retrans)
		enter_recovery(e, k);
	else if (t->ca_state <= TCP_CA_DISORDER && r->ece)
		reduce_for_ece(e, k);
	if (t->ca_state <= TCP_CA_DISORDER)
		t->ca_state = t->sacked ? TCP_CA_DISORDER : TCP_CA_OPEN;
	else
		prr(k, r, t->lost > lost);
}

/* The reordering timer: the window has passed. */
void tcp_rack_timer(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct ack_result none = {.prior_una = t->snd_una};

	rack_detect(e, k);
	if (t->lost <= t->retrans)
		return;
	if (t->ca_state <= TCP_CA_CWR)
		enter_recovery(e, k);
	if (t->ca_state == TCP_CA_RECOVERY)
		prr(k, &none, true);
}

/* --- retransmission timeout (RFC 6298 5, RFC 5681 3.1) --- */

void tcp_recovery_on_rto(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct pkt *head = pkt_at(e->s, t->txq.head);
	bool fresh = t->ca_state < TCP_CA_RECOVERY, reneged = head && head->flags & PKT_SACKED;

	if (t->ca_state <= TCP_CA_DISORDER || (t->ca_state == TCP_CA_LOSS && !t->rtos) ||
	    seq_geq(t->snd_una, t->recover)) {
		t->ca_state = TCP_CA_OPEN;
		begin(e, k);
	}
	if (reneged) /* the first segment SACKed and not acknowledged: the peer dropped it after all (RFC 2018 8) */
		count(e->s, C_tcp_sack_reneged);
	for (struct pkt *p = head; p && p->flags & PKT_SENT; p = tcp_next_pkt(e, p)) {
		if (reneged && p->flags & PKT_SACKED) {
			p->flags &= (uint8_t)~PKT_SACKED;
			t->sacked -= p->len;
			t->sacked_pkts--;
		}
		if (!(p->flags & PKT_SACKED))
			tcp_mark_lost(t, p);
	}
	reset_reno(t);
	if (t->flags & TCPF_FIN_SENT)
		t->flags |= TCPF_FIN_LOST;
	t->frto = fresh || t->rtos ? 1 : 0;
	t->ca_state = TCP_CA_LOSS;
	t->recover = t->snd_nxt;
	t->tlp_out = 0;
	t->cwnd = t->mss + tcp_in_flight(k);
	tcp_cc_ops(k)->rto(e, k);
}
