/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happens when a connection's timers are due (RFC 6298 5, RFC 9293 3.8.3, 3.8.4, 3.8.6; limits as Linux).
 *
 * TIMER_RTO stands for one of: SYN retransmission; with data in flight the retransmission timeout, a tail loss probe or
 * RACK's reordering window (tcb.rto_kind); with none in flight, data queued, the probe of a shut window, which also
 * lets a partial segment go that CORK, MSG_MORE or silly-window avoidance held for 200 ms.
 *
 * Giving up. retries2 counts as in Linux: not retransmissions but the time that so many with exponential backoff from
 * the minimum would take (15: 924.6 s); a user timeout replaces it; a socket that no program holds gets fewer. On a
 * lossless vNIC nobody gives up: there the peer is the other process, and if that is gone the vNIC says so; if it is
 * only stopped, then a kernel would have gone on acknowledging for it.
 */
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define ORPHAN_RETRIES 8u
#define TLP_DELACK_US 200000u

uint64_t tcp_rto_now(const struct engine *e, const struct tcb *t)
{
	uint64_t rto = (uint64_t)(t->rto_us ? t->rto_us : TCP_INIT_RTO_US) << min_u32(t->backoff, 20);
	uint64_t max = (uint64_t)e->s->cfg.defaults.rto_max_ms * 1000;

	return rto < max ? rto : max;
}

/* When to probe the tail (RFC 8985 7.2); 0: not now. */
static uint64_t probe_timeout(const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint64_t pto = 2ull * t->srtt_us + 2000;

	if (t->ca_state != TCP_CA_OPEN || !(t->flags & TCPF_SACK) || !t->srtt_us || t->tlp_out || t->sacked ||
	    t->backoff)
		return 0;
	if (t->snd_nxt - t->snd_una <= t->mss) /* one segment: its ACK may be delayed */
		pto += TLP_DELACK_US;
	return pto;
}

bool tcp_arm_tlp(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct pkt *head = pkt_at(e->s, t->txq.head);
	uint64_t pto = probe_timeout(k), now = e->s->now_us, due = now + pto;
	uint64_t timeout = (head && head->flags & PKT_SENT ? head->sent_us : now) + tcp_rto_now(e, t);

	if (!pto)
		return false;
	/* Each segment sent puts the probe off, but not beyond the time of the oldest's timeout. */
	if (due > timeout)
		due = timeout > now ? timeout : now + 1;
	t->rto_kind = TCP_RTO_TLP;
	timer_set(e, k, TIMER_RTO, due);
	return true;
}

void tcp_arm_rto(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->snd_una == t->snd_nxt) {
		t->rto_kind = TCP_RTO_RETRANS;
		timer_clear(k, TIMER_RTO);
		return;
	}
	if (!tcp_no_network(e, k) && tcp_arm_tlp(e, k))
		return;
	t->rto_kind = TCP_RTO_RETRANS;
	timer_set(e, k, TIMER_RTO, e->s->now_us + tcp_rto_now(e, t));
}

void tcp_arm_probe(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t after = tcp_rto_now(e, t);

	if (t->timer[TIMER_RTO].deadline_us || t->snd_una != t->snd_nxt)
		return;
	if (after < (uint64_t)TCP_PROBE_MIN_US)
		after = TCP_PROBE_MIN_US;
	timer_set(e, k, TIMER_RTO, e->s->now_us + after);
}

static void give_up(struct engine *e, struct sock *k)
{
	count(e->s, C_tcp_timed_out);
	tcp_done(e, k, k->tcp.soft_error ? k->tcp.soft_error : ETIMEDOUT);
}

/* How long `retries` retransmissions take that start at rto_min and double up to the maximum (Linux's
 * tcp_model_timeout). */
static uint64_t model_timeout(const struct engine *e, uint32_t retries)
{
	uint64_t base = e->s->cfg.defaults.rto_min_ms * 1000ull, max = e->s->cfg.defaults.rto_max_ms * 1000ull, sum = 0;

	for (uint32_t i = 0; i <= retries && i < 256; i++) {
		sum += base;
		base = base * 2 < max ? base * 2 : max;
	}
	return sum;
}

/* Has the peer been silent for too long, since `since`? */
static bool too_long(const struct engine *e, const struct sock *k, uint64_t since)
{
	const struct tcb *t = &k->tcp;
	uint64_t limit;

	if (t->user_timeout_ms)
		limit = t->user_timeout_ms * 1000ull;
	else if (tcp_no_network(e, k))
		return false;
	else if (k->flags & SOCKF_ORPHAN)
		limit = model_timeout(e, min_u32(ORPHAN_RETRIES, e->s->cfg.defaults.retries2));
	else
		limit = model_timeout(e, e->s->cfg.defaults.retries2);
	return since && e->s->now_us - since >= limit;
}

static void syn_timeout(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct sock_defaults *d = &e->s->cfg.defaults;
	uint32_t retries = t->state == TCP_SYN_RECEIVED ? d->synack_retries : d->syn_retries;

	if (t->syncnt && t->state == TCP_SYN_SENT)
		retries = t->syncnt;
	/* told before the kernel, being asked again, forgets that it has failed */
	if (t->state == TCP_SYN_SENT && route_sock(e, k) == -EHOSTUNREACH) {
		tcp_done(e, k, EHOSTUNREACH);
		return;
	}
	route_doubt(e, k);
	if (t->syn_tries <= retries) {
		tcp_send_syn(e, k);
		return;
	}
	if (t->flags & TCPF_EMBRYO)
		tcp_embryo_drop(e, k);
	else
		give_up(e, k);
}

static void retransmission_timeout(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	/* As Linux, never at the first timeout since the peer was last heard: with a long timeout that one alone can
	 * take longer than all that an orphan is given. */
	if (t->rtos && too_long(e, k, t->first_retrans_us)) {
		give_up(e, k);
		return;
	}
	if (!t->first_retrans_us)
		t->first_retrans_us = e->s->now_us;
	if (tcp_send_head_busy(e, k)) {
		/* The peer or the device still has it, so it is not lost: look again later. */
		count(e->s, C_tcp_rto_busy);
		tcp_arm_rto(e, k);
		return;
	}
	route_doubt(e, k);
	tcp_recovery_on_rto(e, k);
	count(e->s, C_tcp_rto);
	t->rtos += t->rtos < UINT8_MAX;
	if (t->rtos >= TCP_BLACK_HOLE_RTOS)
		tcp_black_hole(e, k);
	t->backoff += t->backoff < 20;
	t->rto_kind = TCP_RTO_RETRANS;
	timer_set(e, k, TIMER_RTO, e->s->now_us + tcp_rto_now(e, t));
	tcp_output(e, k);
}

/* Send the last segment again, or a new one if there is one, to bring out the ACK that tells of losses at the tail. */
static void tail_loss_probe(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, t->send_head);
	uint32_t nxt = t->snd_nxt;

	count(e->s, C_tcp_tlp);
	t->rto_kind = TCP_RTO_RETRANS;
	timer_set(e, k, TIMER_RTO, e->s->now_us + tcp_rto_now(e, t));
	if (p && seq_leq(p->seq + p->len, t->snd_una + t->snd_wnd)) {
		uint32_t cwnd = t->cwnd;

		t->cwnd = max_u32(cwnd, tcp_in_flight(k) + t->mss); /* one segment beyond what cwnd allows */
		tcp_push(e, k, TCP_PUSH_NAGLE);
		t->cwnd = cwnd;
	}
	if (t->snd_nxt != nxt) {
		t->tlp_out = 1;
	} else if (t->flags & TCPF_FIN_SENT && (t->fin_alone || !t->txq.tail)) {
		t->tlp_out = tcp_send_control(e, k, t->snd_end, TH_FIN | TH_ACK) ? 2 : 0;
		t->retrans_total += t->tlp_out != 0;
	} else {
		p = pkt_at(e->s, t->send_head);
		p = p ? pkt_at(e->s, p->prev) : pkt_at(e->s, t->txq.tail);
		t->tlp_out = p && p->flags & PKT_SENT && tcp_retransmit(e, k, p) ? 2 : 0;
	}
	t->tlp_end = t->snd_nxt;
}

static void window_probe(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (!t->send_head) {
		tcp_output(e, k); /* a FIN that found no buffer */
		return;
	}
	if (!t->probes || !t->first_retrans_us) /* keepalive's probes don't count */
		t->first_retrans_us = e->s->now_us;
	if (t->probes && too_long(e, k, t->first_retrans_us)) {
		give_up(e, k);
		return;
	}
	t->probes += t->probes < UINT8_MAX;
	t->backoff += t->backoff < 20;
	tcp_send_probe(e, k, true);
	tcp_arm_probe(e, k);
}

static void rto_due(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED) {
		syn_timeout(e, k);
	} else if (t->state == TCP_CLOSED || t->state == TCP_LISTEN || t->state == TCP_TIME_WAIT) {
		return;
	} else if (t->snd_una == t->snd_nxt) {
		window_probe(e, k);
	} else if (t->rto_kind == TCP_RTO_TLP) {
		tail_loss_probe(e, k);
	} else if (t->rto_kind == TCP_RTO_REORDER) {
		t->rto_kind = TCP_RTO_RETRANS;
		tcp_rack_timer(e, k);
		tcp_output(e, k);
		if (!t->timer[TIMER_RTO].deadline_us)
			tcp_arm_rto(e, k);
	} else {
		retransmission_timeout(e, k);
	}
}

/* --- keepalive (RFC 9293 3.8.4, tcp(7)) --- */

static uint64_t seconds(uint32_t own, uint32_t fallback)
{
	return (uint64_t)(own ? own : fallback) * 1000000ull;
}

void tcp_set_keepalive(struct engine *e, struct sock *k, bool on, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	tcp_set_now(e, now_us);
	k->flags = on ? k->flags | SOCKF_KEEPALIVE : k->flags & ~SOCKF_KEEPALIVE;
	if (!on)
		timer_clear(k, TIMER_KEEP);
	else if (t->state != TCP_CLOSED && t->state != TCP_LISTEN)
		timer_set(e, k, TIMER_KEEP, now_us + seconds(t->keep_idle_s, e->s->cfg.defaults.keep_idle_s));
}

static void keep_due(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct sock_defaults *d = &e->s->cfg.defaults;
	uint64_t now = e->s->now_us, idle = seconds(t->keep_idle_s, d->keep_idle_s);
	uint64_t silent = now - t->last_rcv_us, limit = t->user_timeout_ms * 1000ull;

	if (!(k->flags & SOCKF_KEEPALIVE) || t->state == TCP_CLOSED || t->state == TCP_LISTEN ||
	    t->state == TCP_TIME_WAIT)
		return;
	if (t->state == TCP_SYN_SENT || t->snd_una != t->snd_nxt || t->send_head || silent < idle) {
		/* Not idle, or other timers watch over it. */
		timer_set(e, k, TIMER_KEEP, now + (silent < idle ? idle - silent : idle));
		return;
	}
	if (!(t->flags & TCPF_KEEP_WAIT))
		t->probes = 0;
	if (limit ? silent >= limit && t->probes : t->probes >= (t->keep_cnt ? t->keep_cnt : d->keep_cnt)) {
		tcp_send_rst(e, k);
		give_up(e, k);
		return;
	}
	t->probes++;
	t->flags |= TCPF_KEEP_WAIT;
	tcp_send_probe(e, k, false);
	timer_set(e, k, TIMER_KEEP, now + seconds(t->keep_intvl_s, d->keep_intvl_s));
}

void tcp_timer(struct engine *e, struct sock *k, enum timer_kind kind)
{
	switch (kind) {
	case TIMER_RTO:
		rto_due(e, k);
		break;
	case TIMER_DELACK:
		tcp_delack_due(e, k);
		break;
	case TIMER_KEEP:
		keep_due(e, k);
		break;
	case TIMER_LIFE:
		tcp_life_due(e, k);
		break;
	case TIMER_KINDS:
		break;
	}
}
