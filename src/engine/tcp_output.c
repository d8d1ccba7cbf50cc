/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP output: which segment goes next, and building it (RFC 9293 3.8.6, 3.10; RFC 1122 4.2.3.4; RFC 5681).
 *
 * A segment is a run of consecutive pkts of txq: on a wire (VNIC_FEAT_SCATTER) as many as fit into a segment, posted as
 * the parts of one frame; elsewhere one pkt. The header is written into the headroom of the run's first buffer. A
 * buffer that the device or the peer still has (vnic_tx_busy) is never written or posted again: its retransmission
 * waits, and the retransmission timer comes back to it. So a peer that is slow to look causes no copies of what it has.
 *
 * Order in tcp_push: what is lost, then new data as window, congestion window and Nagle allow, then FIN, then an ACK
 * if one is still owed. Any segment carries the ACK, so data clears a delayed one.
 *
 * Segments without payload take a tx buffer of their own for as long as the device has it (tcp_control.c).
 */
#include <string.h>

#include "engine/large.h"
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define MAX_PARTS 17
#define BURST_MAX 65536u

#define STATE(s) (1u << (s))
#define SENDING                                                                                                        \
	(STATE(TCP_ESTABLISHED) | STATE(TCP_CLOSE_WAIT) | STATE(TCP_FIN_WAIT_1) | STATE(TCP_CLOSING) |                 \
	 STATE(TCP_LAST_ACK))

/* A run of pkts that makes a segment. */
struct run {
	struct pkt *first, *last;
	uint32_t n, len;
};

uint32_t tcp_segment_limit(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	const struct vnic_state *st = stack_vnic(e->s, k->vnic);
	uint32_t limit = max_u32(t->mss, TCP_MSS_FLOOR);
	uint32_t half = t->snd_max_wnd > 536 ? t->snd_max_wnd / 2 : t->snd_max_wnd;

	if (st && !(st->features & VNIC_FEAT_SCATTER))
		limit = min_u32(limit, st->buf_size - PKT_HEADROOM);
	/* Segments of more than half of a small window would leave it idle (RFC 1122 4.2.3.4, as Linux). */
	if (half && limit > half)
		limit = max_u32(half, TCP_MSS_FLOOR);
	return limit;
}

bool tcp_split(struct engine *e, struct sock *k, struct pkt *p, uint32_t len)
{
	struct tcb *t = &k->tcp;
	struct pkt *rest;
	uint8_t *from = pkt_data(e, p), *to;

	/* From the reserve: when all buffers are in queues whose heads must be cut, only cutting frees any. */
	if (len >= p->len || !from || !(rest = pkt_alloc_tx_reserve(e, k->vnic)))
		return false;
	to = pkt_data(e, rest);
	memcpy(to, from + len, p->len - len);
	rest->seq = p->seq + len;
	rest->flags = p->flags;
	rest->retrans = p->retrans;
	rest->sent_us = p->sent_us;
	rest->delivered = p->delivered;
	p->flags &= (uint8_t) ~(PKT_PSH | PKT_END | PKT_BURST);
	pkt_insert_after(e->s, &t->txq, p, rest); /* with no bytes yet: the queue's sum stays right */
	rest->len = p->len - len;
	p->len = len;
	if (p->flags & PKT_SACKED)
		t->sacked_pkts++;
	return true;
}

/* Take as many pkts from p on as one segment holds. `mask`, `want`: only pkts with these flags. False: no buffer to
 * cut. */
static bool gather(struct engine *e, struct sock *k, struct pkt *p, uint32_t limit, uint8_t mask, uint8_t want,
		   struct run *r)
{
	const struct vnic_state *st = e->vnic[k->vnic].st;
	struct pkt *next;

	if (p->len > limit && !tcp_split(e, k, p, limit)) {
		txwait_add(e, k);
		return false;
	}
	*r = (struct run){.first = p, .last = p, .n = 1, .len = p->len};
	if (!(st->features & VNIC_FEAT_SCATTER))
		return true;
	while (r->n < MAX_PARTS && (next = pkt_at(e->s, r->last->next)) && r->len + next->len <= limit &&
	       (next->flags & mask) == want) {
		r->last = next;
		r->len += next->len;
		r->n++;
	}
	return true;
}

static bool run_busy(const struct engine *e, const struct sock *k, const struct run *r)
{
	const struct pkt *p = r->first;

	for (uint32_t i = 0; i < r->n && p; i++, p = pkt_at(e->s, p->next))
		if (vnic_tx_busy(&e->vnic[k->vnic], p->buf))
			return true;
	return false;
}

/* The options of a data segment. Blocks of SACK go along where they fit; if not, *withheld asks for an ACK of its own.
 */
static uint32_t data_options(struct engine *e, struct sock *k, uint32_t len, uint8_t opt[40], bool *withheld)
{
	struct tcb *t = &k->tcp;
	uint32_t base = tcp_options_len(k);

	if (t->ooo_count || t->dsack_start != t->dsack_end) {
		if (len + 40 <= t->mss + base)
			return tcp_build_options(e, k, opt);
		*withheld = t->flags & (TCPF_ACK_NOW | TCPF_ACK_DELAYED);
	}
	if (t->flags & TCPF_TS)
		tcp_put_timestamps(opt, tcp_ts_now(e, k), t->ts_recent);
	return base;
}

/* A part of a large segment? */
static __attribute__((noinline)) bool gathered(struct engine *e, struct sock *k, const struct vnic_desc *part, int n,
					       uint32_t len, uint8_t ecn, bool more)
{
	struct ip_out o = tcp_ip_out(e, k, ecn);

	return e->large_fd[k->vnic] && large_add(e, k, &o, part, n, len, more);
}

/* Build the header in front of the run and post it. ecn: the IP header's field. more: what follows it goes as well. */
static void post_run(struct engine *e, struct sock *k, const struct run *r, uint8_t flags, uint8_t ecn, bool more)
{
	struct tcb *t = &k->tcp;
	struct vnic_desc part[MAX_PARTS];
	struct pkt *p = r->first;
	uint8_t opt[40], *l4 = vnic_tx_buf(&e->vnic[k->vnic], p->buf) + p->off;
	bool withheld = false;
	uint32_t opts = 0;
	int n = 0;

	if (t->flags & TCPF_TS || t->ooo_count || t->dsack_start != t->dsack_end)
		opts = data_options(e, k, r->len, opt, &withheld);
	l4 -= TCP_HEADER + opts;
	if (opts)
		memcpy(l4 + TCP_HEADER, opt, opts);
	tcp_put_header(e, k, l4, p->seq, flags | TH_ACK, opts);
	part[0] = (struct vnic_desc){.buf = p->buf,
				     .off = (uint16_t)(p->off - TCP_HEADER - opts),
				     .len = (uint16_t)(p->len + TCP_HEADER + opts)};
	for (n = 1; n < (int)r->n && (p = pkt_at(e->s, p->next)); n++)
		part[n] = (struct vnic_desc){.buf = p->buf, .off = p->off, .len = (uint16_t)p->len};
	if (!e->large || !gathered(e, k, part, n, r->len, ecn, more))
		tcp_post(e, k, part, n, ecn);
	tcp_ack_sent(e, k);
	if (withheld)
		t->flags |= TCPF_ACK_NOW;
	t->segs_out++;
}

static uint8_t psh_fin(const struct engine *e, const struct sock *k, const struct run *r)
{
	const struct tcb *t = &k->tcp;
	uint8_t flags = r->last->flags & PKT_PSH ? TH_PSH : 0;

	if (pkt_index(e->s, r->last) == t->txq.tail) {
		if (tcp_no_network(e, k)) /* the write may go on: the reader needn't wait for its end */
			flags |= TH_PSH;
		if (t->flags & TCPF_FIN_QUEUED)
			flags |= TH_FIN;
	}
	return flags;
}

static void fin_sent(struct tcb *t)
{
	t->flags |= TCPF_FIN_SENT;
	t->flags &= ~TCPF_FIN_LOST;
	t->snd_nxt = t->snd_max = t->snd_end + 1;
}

/* First transmission of a run. `end`: of a burst. */
static void send_run(struct engine *e, struct sock *k, const struct run *r, bool full, bool network, bool end)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = r->first;
	uint64_t now = e->s->now_us;
	bool idle = t->snd_una == t->snd_nxt;
	uint8_t flags = psh_fin(e, k, r) | (end ? TH_PSH : 0), ecn = tcp_ecn_new_data(t, &flags);

	r->last->flags |= end ? PKT_BURST : 0;
	post_run(e, k, r, flags, ecn, full && !end && r->last->next);
	for (uint32_t i = 0; i < r->n; i++, p = pkt_at(e->s, p->next)) {
		p->flags |= PKT_SENT;
		p->sent_us = now;
	}
	t->send_head = r->last->next;
	t->snd_nxt += r->len;
	t->snd_max = t->snd_nxt;
	if (!full)
		t->snd_sml = t->snd_nxt;
	if (flags & TH_FIN)
		fin_sent(t);
	t->bytes_sent += r->len;
	k->tx_bytes += r->len;
	t->prr_out += r->len;
	tcp_data_sent(e, k);
	if (idle || !t->timer[TIMER_RTO].deadline_us)
		tcp_arm_rto(e, k);
	else if (network && t->rto_kind != TCP_RTO_REORDER)
		tcp_arm_tlp(e, k);
}

/* Nagle's algorithm with Minshall's change (as Linux): a partial segment waits while an earlier partial one is in
 * flight. True: it may go. */
static bool nagle_allows(const struct tcb *t, enum tcp_push how)
{
	if (how == TCP_PUSH_FORCE || t->flags & (TCPF_FIN_QUEUED | TCPF_SND_URG))
		return true;
	if (how == TCP_PUSH_HOLD || t->flags & TCPF_CORK)
		return false;
	if (t->flags & TCPF_NODELAY)
		return true;
	return !tcp_small_in_flight(t);
}

/* Is the run as large as a segment gets, given that the next pkt would be a full one? */
static bool is_full(const struct engine *e, const struct sock *k, const struct run *r, uint32_t limit)
{
	uint32_t room = min_u32(e->vnic[k->vnic].st->buf_size - PKT_HEADROOM, limit);

	return r->len == limit || r->last->flags & PKT_END || pkt_index(e->s, r->last) != k->tcp.txq.tail ||
	       (r->last->len >= room && r->len + room > limit);
}

/* Make the run fit into the peer's window. False: it has to wait (RFC 9293 3.8.6.2.1: no silly segments). */
static bool fit_window(const struct engine *e, const struct tcb *t, struct run *r, uint32_t limit)
{
	int32_t wnd = (int32_t)(t->snd_una + t->snd_wnd - t->snd_nxt);

	if (wnd >= (int32_t)r->len)
		return true;
	while ((int32_t)r->len > wnd) {
		if (r->n == 1)
			return false;
		r->len -= r->last->len;
		r->last = pkt_at(e->s, r->last->prev);
		r->n--;
	}
	return r->len >= limit / 2 || t->snd_una == t->snd_nxt;
}

/* Restart after an idle time, and remember how much of cwnd is used (RFC 2861 as Linux has it): a window that was not
 * needed says nothing about the network. */
static void restart_if_idle(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->snd_una == t->snd_nxt && t->last_snd_us && e->s->now_us - t->last_snd_us > t->rto_us)
		tcp_cc_ops(k)->idle(e, k);
}

static void note_usage(struct sock *k, bool limited)
{
	struct tcb *t = &k->tcp;
	uint32_t flight = tcp_in_flight(k);

	if (seq_geq(t->snd_una, t->usage_seq) || limited ||
	    (!(t->flags & TCPF_CWND_LIMITED) && flight > t->usage_max)) {
		t->flags = limited ? t->flags | TCPF_CWND_LIMITED : t->flags & ~TCPF_CWND_LIMITED;
		t->usage_max = flight;
		t->usage_seq = t->snd_nxt;
	}
}

/* How many segments go as one burst: about a millisecond's worth at the pace of the connection, more on short paths, at
 * least two (Linux's tcp_tso_autosize). */
static uint32_t burst_size(const struct engine *e, const struct tcb *t, uint32_t limit)
{
	uint32_t least = max_u32(e->s->cfg.defaults.burst_min, 2);
	uint64_t rate = (uint64_t)t->cwnd * (t->cwnd < t->ssthresh / 2 ? 200 : 120) / 100; /* bytes a round trip */
	uint32_t near = t->min_rtt_us >> 9;
	uint64_t bytes = rate * 1000000 / max_u32(t->srtt_us, 1) / 1024;

	if (near < 32)
		bytes += BURST_MAX >> near;
	return max_u32((uint32_t)(bytes < BURST_MAX ? bytes : BURST_MAX) / limit, least);
}

/* A new burst begins: the segments of it that may go now. The last of several carries PSH, so that a receiver that
 * gathers segments passes them on (as Linux; RFC 9293 3.9.1.2 lets the sender choose). */
static uint32_t burst_now(const struct engine *e, const struct sock *k, enum tcp_push how, uint32_t limit)
{
	const struct tcb *t = &k->tcp;
	uint32_t flight = tcp_in_flight(k), queued = t->snd_end - t->snd_nxt;
	int32_t window = (int32_t)(t->snd_una + t->snd_wnd - t->snd_nxt);
	uint32_t n = queued / limit + (queued % limit && nagle_allows(t, how));

	n = min_u32(n, t->cwnd > flight ? min_u32(t->cwnd - flight, t->cwnd / 2) / limit : 0);
	n = min_u32(n, max_u32(t->snd_max_wnd / 2, limit) / limit);
	n = min_u32(n, window > 0 ? (uint32_t)window / limit + ((uint32_t)window == queued) : 0);
	return min_u32(n, burst_size(e, t, limit));
}

/* Bytes from p to the end of its burst; *last: nothing is queued behind it. */
static uint32_t burst_left(const struct engine *e, const struct pkt *p, bool *last)
{
	uint32_t n = p->len;

	while (!(p->flags & PKT_END) && p->next && n < BURST_MAX) {
		p = pkt_at(e->s, p->next);
		n += p->len;
	}
	*last = !p->next;
	return n;
}

/* Would the next ACK, which must come soon, make a larger burst of this one (Linux's tcp_tso_should_defer)? Only right
 * behind another, so that it never waits for nothing. */
static bool awaits_ack(const struct engine *e, const struct sock *k, const struct pkt *p, uint32_t limit)
{
	const struct tcb *t = &k->tcp;
	const struct pkt *head = pkt_at(e->s, t->txq.head);
	uint64_t now = e->s->now_us;
	uint32_t flight = tcp_in_flight(k), wnd = t->snd_una + t->snd_wnd - p->seq;
	uint32_t room = min_u32(wnd, t->cwnd > flight ? t->cwnd - flight : 0), len;
	bool last;

	if (t->ca_state != TCP_CA_OPEN || !t->srtt_us || t->flags & TCPF_FIN_QUEUED || now - t->last_snd_us > 1000 ||
	    head == p || now - head->sent_us < t->srtt_us / 2)
		return false;
	if (room >= burst_size(e, t, limit) * limit || room >= min_u32(t->snd_wnd, t->cwnd) / 3)
		return false;
	len = burst_left(e, p, &last);
	return len > limit && (last ? len >= room : len > room);
}

static void send_new(struct engine *e, struct sock *k, enum tcp_push how)
{
	struct tcb *t = &k->tcp;
	uint32_t limit = tcp_segment_limit(e, k), left = 0, sent = 0, trial;
	bool lossless = tcp_no_network(e, k), limited = false, full;
	struct run r;
	struct pkt *p;

	if (!lossless)
		restart_if_idle(e, k);
	while ((p = pkt_at(e->s, t->send_head))) {
		trial = __builtin_expect(t->mtu_try_us != 0, 0) ? tcp_mtu_trial(e, k) : 0;
		if (!gather(e, k, p, trial ? trial : limit, 0, 0, &r) || !fit_window(e, t, &r, limit))
			break;
		if (!lossless) {
			uint32_t flight = tcp_in_flight(k);

			limited = flight && flight + r.len > t->cwnd;
			if (limited)
				break;
		}
		full = trial || is_full(e, k, &r, limit);
		if (trial)
			tcp_mtu_trial_sent(e, k, p->seq, r.len);
		if (!full && !nagle_allows(t, how))
			break;
		if (!lossless && !left && awaits_ack(e, k, p, limit)) {
			limited = true;
			break;
		}
		if (!lossless && !left) /* all that is queued goes in one segment: no need to count */
			left = pkt_index(e->s, r.last) == t->txq.tail ? 1 : burst_now(e, k, how, limit);
		left -= left != 0;
		if (r.last->flags & PKT_END)
			left = 0;
		sent++;
		send_run(e, k, &r, full, !lossless, sent > 1 && !left);
		sent = left ? sent : 0;
	}
	if (!lossless)
		note_usage(k, limited);
	if (t->send_head && t->snd_una == t->snd_nxt)
		tcp_arm_probe(e, k);
}

/* A FIN with no data to ride on. */
static void send_fin(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool idle = t->snd_una == t->snd_nxt;

	if (!tcp_send_control(e, k, t->snd_end, TH_FIN | TH_ACK))
		return;
	fin_sent(t);
	t->fin_alone = 1;
	tcp_data_sent(e, k);
	if (idle || !t->timer[TIMER_RTO].deadline_us)
		tcp_arm_rto(e, k);
	else if (!tcp_no_network(e, k) && t->rto_kind != TCP_RTO_REORDER)
		tcp_arm_tlp(e, k);
}

bool tcp_send_head_busy(const struct engine *e, const struct sock *k)
{
	const struct pkt *p = pkt_at(e->s, k->tcp.txq.head);
	const struct vnic *v = tcp_vnic(e, k);

	return v && p && p->flags & PKT_SENT && vnic_tx_busy(v, p->buf);
}

static void note_retransmission(struct engine *e, struct sock *k, const struct run *r)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = r->first;

	for (uint32_t i = 0; i < r->n; i++, p = pkt_at(e->s, p->next)) {
		if (!(p->flags & PKT_RETRANS) && p->flags & PKT_LOST)
			t->retrans += p->len;
		p->flags |= (p->flags & PKT_LOST ? PKT_RETRANS : 0) | PKT_EVER_RETRANS;
		p->retrans++;
		p->sent_us = e->s->now_us;
	}
	if (!t->retrans_ts) {
		t->retrans_ts = tcp_ts_now(e, k);
		t->retrans_ts -= t->retrans_ts == 0; /* 0 means none; later than it is would undo what was right */
	}
	if (!t->first_retrans_us)
		t->first_retrans_us = e->s->now_us;
	t->undo_retrans = (t->undo_retrans == TCP_UNDO_NONE ? 0 : t->undo_retrans) + r->len;
	t->prr_out += r->len;
	t->bytes_retrans += r->len;
	t->bytes_sent += r->len;
	t->retrans_total++;
	t->last_snd_us = e->s->now_us;
	count(e->s, C_tcp_retrans);
}

/* Does the run end a burst of which what is before it has just gone out again? Such bursts end in PSH as at first. */
static bool ends_burst(const struct engine *e, const struct run *r)
{
	const struct pkt *prev = pkt_at(e->s, r->first->prev);

	return r->last->flags & PKT_BURST && prev && prev->flags & PKT_EVER_RETRANS && !(prev->flags & PKT_BURST) &&
	       prev->sent_us == e->s->now_us;
}

bool tcp_retransmit(struct engine *e, struct sock *k, struct pkt *p)
{
	struct tcb *t = &k->tcp;
	uint8_t mask = PKT_SENT | PKT_LOST | PKT_RETRANS | PKT_SACKED, flags;
	struct run r;

	if (!tcp_path(e, k) || vnic_tx_busy(&e->vnic[k->vnic], p->buf) ||
	    !gather(e, k, p, tcp_segment_limit(e, k), mask, p->flags & mask, &r))
		return false;
	if (__builtin_expect(t->mtu_probe && p->seq - t->mtu_probe_seq < t->mtu_probe_end - t->mtu_probe_seq, 0))
		tcp_mtu_trial_lost(e, k);
	if (run_busy(e, k, &r))
		r = (struct run){.first = p, .last = p, .n = 1, .len = p->len};
	flags = psh_fin(e, k, &r) | (ends_burst(e, &r) ? TH_PSH : 0);
	if (!(t->flags & TCPF_FIN_SENT))
		flags &= (uint8_t)~TH_FIN;
	post_run(e, k, &r, flags, 0, false);
	note_retransmission(e, k, &r);
	if (flags & TH_FIN)
		t->flags &= ~TCPF_FIN_LOST;
	if (!t->timer[TIMER_RTO].deadline_us)
		tcp_arm_rto(e, k);
	return true;
}

/* Send what is marked lost, as far as cwnd lets. cwnd counts bytes; of small segments no more go at once than of full
 * ones, or a timeout would end in a burst of hundreds. */
static void send_lost(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool lossless = tcp_no_network(e, k);
	struct pkt *p = tcp_next_retrans(e, k);
	uint32_t segments = max_u32(t->cwnd / max_u32(t->mss, 1), 1);

	while (p) {
		uint32_t flight = tcp_in_flight(k);
		struct pkt *next;

		if (!lossless && ((flight && flight + min_u32(p->len, t->mss) > t->cwnd) || !segments--))
			return;
		if (seq_geq(p->seq, t->snd_una + t->snd_wnd) && p->seq != t->snd_una)
			return; /* the peer took its window back */
		if (!tcp_retransmit(e, k, p))
			return;
		for (next = p; next && (next->flags & (PKT_LOST | PKT_RETRANS | PKT_SACKED)) != PKT_LOST;)
			next = next->flags & PKT_SENT ? pkt_at(e->s, next->next) : NULL;
		p = next;
	}
	if (t->flags & TCPF_FIN_LOST && tcp_send_control(e, k, t->snd_end, TH_FIN | TH_ACK)) {
		t->flags &= ~TCPF_FIN_LOST;
		t->retrans_total++;
		count(e->s, C_tcp_retrans);
	}
}

/* Book the time since the last change to what the connection was limited by (TCP_INFO, as Linux has it). */
static void chronicle(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct pkt *next = pkt_at(e->s, t->send_head);
	uint8_t now = TCP_CHRONO_BUSY;

	if (!t->txq.count)
		now = TCP_CHRONO_NONE;
	else if (next && seq_gt(next->seq + next->len, t->snd_una + t->snd_wnd) &&
		 (t->snd_una == t->snd_nxt || tcp_in_flight(k) + next->len <= t->cwnd))
		now = TCP_CHRONO_RWND;
	else if (!next && t->flags & TCPF_NOSPACE)
		now = TCP_CHRONO_SNDBUF;
	if (now == t->chrono)
		return;
	if (t->chrono)
		t->chrono_us[t->chrono - 1] += e->s->now_us - t->chrono_since_us;
	t->chrono = now;
	t->chrono_since_us = e->s->now_us;
}

void tcp_push(struct engine *e, struct sock *k, enum tcp_push how)
{
	struct tcb *t = &k->tcp;
	bool fin = (t->flags & (TCPF_FIN_QUEUED | TCPF_FIN_SENT)) == TCPF_FIN_QUEUED;

	if (__builtin_expect(t->mtu_probe && seq_geq(t->snd_una, t->mtu_probe_end), 0))
		tcp_mtu_trial_acked(e, k);
	if ((t->send_head || t->lost > t->retrans || fin || t->flags & TCPF_FIN_LOST) && STATE(t->state) & SENDING &&
	    tcp_path(e, k)) {
		/* F-RTO, step 2b: new data tells whether the timeout was spurious (RFC 5682). */
		if ((t->lost > t->retrans || t->flags & TCPF_FIN_LOST) && t->frto != 2)
			send_lost(e, k);
		if (t->send_head)
			send_new(e, k, how);
		if (fin && !t->send_head && !(t->flags & TCPF_FIN_SENT))
			send_fin(e, k);
	}
	if (t->flags & TCPF_ACK_NOW)
		tcp_send_ack(e, k);
	if (!tcp_no_network(e, k))
		chronicle(e, k);
}

void tcp_output(struct engine *e, struct sock *k)
{
	tcp_push(e, k, TCP_PUSH_NAGLE);
}
