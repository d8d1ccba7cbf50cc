/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TCP segment arrives: RFC 9293 3.10.7, in the RFC's order of checks, one function per check.
 *
 * Most segments take fast_path(): the connection is established, the segment is the next one, its flags are ACK or ACK
 * and PSH, its only option is a timestamp in the usual layout, and nothing unusual is going on (header prediction, as
 * V. Jacobson's). Everything else goes through segment_arrives(), where each check may drop the segment.
 *
 * A check that returns false has ended the processing; the socket may be gone then and must not be touched.
 * What a segment carries (text, urgent pointer, FIN) is in tcp_segment.c, passive opening in tcp_listen.c.
 */
#include "engine/tcp_open.h"
#include "engine/tcp_wire.h"
#include "engine/tcp_send.h"

#define PAWS_MAX_IDLE_US (24ull * 86400 * 1000000) /* RFC 7323 5.5: a TS.Recent older than 24 days is void */
#define OPT_TS_LEN 12u

static inline bool ports_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

/*
 * The connection, or the listener, that the frame is for. The last one found is tried first: under load most segments
 * follow another of their connection. A wire is as good as an address: what comes over another vNIC than the
 * connection's is forged, but for a socket that is connected to itself, which hears itself at the other end.
 */
static struct sock *find_socket(struct engine *e, const struct frame *f)
{
	struct stack *s = e->s;
	struct sock *k = sock_at(s, s->last_tcp);

	if (!k || k->proto != SOCK_TCP || !(k->flags & SOCKF_HASHED) || !ports_equal(&k->remote, &f->src) ||
	    !ports_equal(&k->local, &f->dst))
		k = sock_lookup(s, SOCK_TCP, &f->dst, &f->src);
	if (k) {
		s->last_tcp = sock_index(s, k);
		if (vnic_same_side(e, k->vnic, f->vnic) || ports_equal(&k->local, &k->remote))
			return k;
		count(s, C_tcp_wrong_vnic);
		return NULL;
	}
	k = sock_lookup_bound(s, SOCK_TCP, &f->dst);
	return k && k->tcp.state == TCP_LISTEN ? k : NULL;
}

/* Read the fixed header. False: dropped. *opts: bytes of options. */
static bool parse_header(struct engine *e, struct frame *f, struct segment *g, uint32_t *opts)
{
	struct tcp_header h;
	uint32_t len;

	if (f->off + TCP_HEADER > f->hdr_len || f->off + TCP_HEADER > f->end) {
		count(e->s, C_tcp_truncated);
		return false;
	}
	memcpy(&h, f->hdr + f->off, sizeof(h));
	len = (uint32_t)(h.off >> 4) * 4;
	if (len < TCP_HEADER || f->off + len > f->end || f->off + len > f->hdr_len) {
		count(e->s, C_tcp_truncated);
		return false;
	}
	if (!f->csum_ok && !ip_checksum_good(e, f, f->end, TCP_CSUM_OFF)) {
		count(e->s, C_tcp_bad_checksum);
		return false;
	}
	f->src.port = be16(h.sport);
	f->dst.port = be16(h.dport);
	g->f = f;
	g->seq = be32(h.seq);
	g->ack = be32(h.ack);
	g->wnd = be16(h.wnd);
	g->urg = be16(h.urg);
	g->flags = h.flags;
	g->isn = 0;
	g->payload = f->off + len;
	g->len = f->end - g->payload;
	*opts = len - TCP_HEADER;
	return true;
}

/* The timestamp option in the layout that everybody uses: NOP NOP TS. True: there and not older than TS.Recent. */
static bool fast_timestamp(struct tcb *t, const struct segment *g, struct tcp_opts *o)
{
	static const uint8_t lead[4] = {1, 1, 8, 10};
	const uint8_t *p = g->f->hdr + g->payload - OPT_TS_LEN;
	uint32_t val, ecr;

	if (memcmp(p, lead, 4) != 0)
		return false;
	memcpy(&val, p + 4, 4);
	memcpy(&ecr, p + 8, 4);
	o->ts_val = be32(val);
	o->ts_ecr = be32(ecr);
	return seq_geq(o->ts_val, t->ts_recent);
}

/* Header prediction. True: the segment is dealt with. */
static inline bool fast_path(struct engine *e, struct sock *k, struct segment *g, uint32_t opts)
{
	struct tcb *t = &k->tcp;

	if (t->state != TCP_ESTABLISHED || (g->flags & ~TH_PSH) != TH_ACK || g->seq != t->rcv_nxt ||
	    (t->flags & (TCPF_URG_VALID | TCPF_FIN_OOO)) || t->ooo_count ||
	    (t->flags & TCPF_ECN && (g->f->tos & TOS_ECN) == TOS_CE) || g->ack - t->snd_una > t->snd_max - t->snd_una ||
	    g->len > t->rcv_adv - t->rcv_nxt || seq_gt(t->rcv_nxt, t->rcv_adv))
		return false;
	if (opts != (t->flags & TCPF_TS ? OPT_TS_LEN : 0))
		return false;
	g->o.sacks = 0;
	g->o.has_ts = opts != 0;
	if (opts) {
		if (!fast_timestamp(t, g, &g->o))
			return false;
		if (seq_leq(g->seq, t->last_ack_sent)) {
			t->ts_recent = g->o.ts_val;
			t->ts_recent_us = e->s->now_us;
		}
	}
	count(e->s, C_tcp_fast_path);
	t->segs_in++;
	t->last_rcv_us = e->s->now_us;
	if (!g->len || g->ack != t->snd_una || g->wnd << t->snd_wscale != t->snd_wnd || t->probes) {
		tcp_ack(e, k, g);
		if (g->len)
			tcp_rx_in_order(e, k, g);
		if (t->send_head || t->lost > t->retrans || (t->flags & TCPF_FIN_QUEUED))
			tcp_output(e, k);
		if (t->flags & TCPF_NOSPACE)
			tcp_write_space(e, k);
	} else {
		tcp_rx_in_order(e, k, g);
	}
	if (g->len)
		tcp_rx_ack_policy(e, k);
	return true;
}

/* RFC 7323 5.3 R1: older than what this connection has seen, and TS.Recent is not too old itself. */
static bool paws_reject(const struct engine *e, const struct tcb *t, const struct segment *g)
{
	return (t->flags & TCPF_TS) && g->o.has_ts && !(g->flags & TH_RST) && seq_lt(g->o.ts_val, t->ts_recent) &&
	       e->s->now_us - t->ts_recent_us < PAWS_MAX_IDLE_US;
}

/* RFC 7323 4.3: TS.Recent follows segments that touch what was acknowledged last. After the check of the ACK, as Linux:
 * a forged segment must not set it so high that PAWS then drops what is genuine. */
static void update_ts_recent(const struct engine *e, struct tcb *t, const struct segment *g)
{
	if ((t->flags & TCPF_TS) && g->o.has_ts && seq_leq(g->seq, t->last_ack_sent) &&
	    seq_geq(g->o.ts_val, t->ts_recent)) {
		t->ts_recent = g->o.ts_val;
		t->ts_recent_us = e->s->now_us;
	}
}

/* An ACK in answer to what can't be used. Without data it may be one of a loop of such answers: rationed. */
static void answer_unusable(struct engine *e, struct sock *k, const struct segment *g)
{
	if (g->flags & TH_RST)
		return;
	if (g->len)
		tcp_send_ack(e, k);
	else
		tcp_send_challenge_ack(e, k);
}

/*
 * RFC 9293 3.10.7.4, first check: the sequence number. As in Linux the left edge is that of the last ACK sent
 * (rcv_wup): an ACK that was overtaken by data is good still; tcp_segment.c trims the text exactly.
 */
static bool check_sequence(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;
	uint32_t wnd = seq_gt(t->rcv_adv, t->rcv_nxt) ? t->rcv_adv - t->rcv_nxt : 0;
	uint32_t end = g->seq + g->len + ((g->flags & TH_SYN) != 0) + ((g->flags & TH_FIN) != 0);

	if (paws_reject(e, t, g)) {
		count(e->s, C_tcp_paws_dropped);
		answer_unusable(e, k, g);
		return false;
	}
	if (seq_geq(end, t->rcv_wup) && seq_leq(g->seq, t->rcv_nxt + wnd))
		return true;
	count(e->s, C_tcp_unacceptable);
	if (g->len && seq_leq(end, t->rcv_nxt) && (t->flags & TCPF_SACK)) { /* RFC 2883: say that it came twice */
		t->dsack_start = g->seq;
		t->dsack_end = g->seq + g->len;
	}
	answer_unusable(e, k, g);
	return false;
}

static int reset_error(const struct tcb *t)
{
	switch (t->state) {
	case TCP_SYN_SENT:
	case TCP_SYN_RECEIVED:
		return ECONNREFUSED;
	case TCP_CLOSE_WAIT:
		return EPIPE;
	case TCP_CLOSING:
	case TCP_LAST_ACK:
	case TCP_TIME_WAIT:
		return 0;
	default:
		return ECONNRESET;
	}
}

/* Second check: RST, only at exactly rcv_nxt (RFC 5961 3.2); TIME-WAIT can't be assassinated (RFC 1337). */
static bool check_rst(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (!(g->flags & TH_RST))
		return true;
	if (t->state == TCP_TIME_WAIT)
		return false;
	if (g->seq != t->rcv_nxt) {
		count(e->s, C_tcp_rst_challenged);
		tcp_send_challenge_ack(e, k);
		return false;
	}
	count(e->s, C_tcp_rst_rcvd);
	if (t->flags & TCPF_EMBRYO && t->state == TCP_SYN_RECEIVED)
		tcp_embryo_drop(e, k); /* back to LISTEN: the program has not heard of it */
	else
		tcp_done(e, k, reset_error(t));
	return false;
}

/*
 * Fourth check: SYN on an open connection gets a challenge ACK (RFC 5961 4.2). Two exceptions: the embryo's SYN again
 * (our SYN-ACK was lost), and the SYN-ACK of a simultaneous open, whose SYN has been seen already (3.5, figure 8).
 */
static bool check_syn(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (!(g->flags & TH_SYN))
		return true;
	if (t->state == TCP_SYN_RECEIVED && g->seq == t->irs) {
		if (!(g->flags & TH_ACK)) {
			if (!(g->flags & TH_FIN))
				tcp_resend_syn_ack(e, k);
			return false;
		}
		if (!(t->flags & TCPF_EMBRYO) && g->ack == t->snd_nxt)
			return true;
	}
	count(e->s, C_tcp_syn_challenged);
	tcp_send_challenge_ack(e, k);
	return false;
}

/* A listener with TCP_DEFER_ACCEPT wants data first, for a while (Linux: the bare ACK is as if it had not come). */
static bool deferred(struct engine *e, const struct sock *k, const struct segment *g)
{
	const struct sock *l = sock_at(e->s, k->tcp.parent);

	return l && g->len == 0 && !(g->flags & TH_FIN) && l->tcp.defer_accept_s &&
	       e->s->now_us - k->created_us < (uint64_t)l->tcp.defer_accept_s * 1000000;
}

/* Fifth check in SYN-RECEIVED: the ACK of our SYN makes the connection. */
static bool ack_of_syn(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (seq_leq(g->ack, t->snd_una) || seq_gt(g->ack, t->snd_max)) {
		tcp_reply_rst(e, g);
		return false;
	}
	if (t->flags & TCPF_EMBRYO) {
		if (deferred(e, k, g))
			return false;
		if (!tcp_embryo_established(e, k)) {
			count(e->s, C_tcp_listen_overflow);
			return false;
		}
	}
	t->snd_una = t->iss + 1;
	t->snd_wnd = g->flags & TH_SYN ? g->wnd : g->wnd << t->snd_wscale;
	t->snd_max_wnd = t->snd_wnd;
	t->snd_wl1 = g->seq;
	t->snd_wl2 = g->ack;
	tcp_established(e, k);
	return true;
}

/* Fifth check: ACK. RFC 5961 5.2 bounds how old it may be. One of what was never sent is dropped without the answer
 * that RFC 9293 has for it, as in Linux: two ends that disagree about that would answer each other for ever. */
static bool check_ack(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (!(g->flags & TH_ACK)) {
		count(e->s, C_tcp_no_ack_flag);
		return false;
	}
	if (t->state == TCP_SYN_RECEIVED && !ack_of_syn(e, k, g))
		return false;
	if (seq_gt(g->ack, t->snd_max) || seq_lt(g->ack, t->snd_una - t->snd_max_wnd)) {
		count(e->s, C_tcp_bad_ack);
		if (seq_lt(g->ack, t->snd_una))
			tcp_send_challenge_ack(e, k);
		return false;
	}
	update_ts_recent(e, t, g);
	if (t->state == TCP_TIME_WAIT)
		return true;
	if (seq_geq(g->ack, t->snd_una))
		tcp_ack(e, k, g);
	else
		tcp_old_ack(e, k, g);
	return true;
}

/* Our FIN is acknowledged: what follows. */
static bool fin_acked(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (!(t->flags & TCPF_FIN_SENT) || t->snd_una != t->snd_end + 1)
		return true;
	switch (t->state) {
	case TCP_FIN_WAIT_1:
		tcp_set_state(e, k, TCP_FIN_WAIT_2);
		sock_notify(e, k, EV_OUT);
		return tcp_fin_wait_2(e, k);
	case TCP_CLOSING:
		tcp_enter_time_wait(e, k);
		return false;
	case TCP_LAST_ACK:
		tcp_done(e, k, 0);
		return false;
	default:
		return true;
	}
}

/* TIME-WAIT: a new SYN that is surely newer takes over (RFC 6191, RFC 9293 3.10.7.4); a FIN again restarts the clock.
 */
static bool time_wait(struct engine *e, struct sock *k, struct segment *g)
{
	struct tcb *t = &k->tcp;
	bool newer =
	    seq_gt(g->seq, t->rcv_nxt) || ((t->flags & TCPF_TS) && g->o.has_ts && seq_gt(g->o.ts_val, t->ts_recent));

	if ((g->flags & (TH_SYN | TH_ACK | TH_RST | TH_FIN)) == TH_SYN && newer) {
		struct sock *l = sock_lookup_bound(e->s, SOCK_TCP, &k->local);

		if (!l || l->tcp.state != TCP_LISTEN)
			return true;
		g->isn = t->snd_nxt + 65535 + 2; /* beyond the old connection's numbers, as Linux */
		g->isn += g->isn == 0;
		count(e->s, C_tcp_time_wait_reused);
		tcp_done(e, k, 0);
		tcp_listen_input(e, l, g);
		return false;
	}
	return true;
}

/* 3.10.7.4: all states but CLOSED, LISTEN and SYN-SENT. */
void tcp_conn_input(struct engine *e, struct sock *k, struct segment *g)
{
	struct tcb *t = &k->tcp;

	sock_changing(e->s, k); /* from a listener it is a new one */
	if (t->state == TCP_TIME_WAIT && !time_wait(e, k, g))
		return;
	if (t->state == TCP_SYN_RECEIVED && (g->flags & (TH_SYN | TH_RST)) == TH_SYN && g->seq == t->irs) {
		if (!check_syn(e, k, g)) /* lies left of the window, but is what we expect */
			return;
		g->seq++;
	} else if (!check_sequence(e, k, g) || !check_rst(e, k, g) || !check_syn(e, k, g)) {
		return;
	}
	if (!check_ack(e, k, g) || !fin_acked(e, k))
		return;
	if (t->state == TCP_TIME_WAIT) {
		if (g->flags & TH_FIN) {
			timer_set(e, k, TIMER_LIFE, e->s->now_us + (uint64_t)e->s->cfg.defaults.time_wait_ms * 1000);
			tcp_send_ack(e, k);
		}
		return;
	}
	if ((g->flags & TH_URG) || (t->flags & TCPF_URG_VALID))
		tcp_rx_urgent(e, k, g);
	if (!tcp_rx_text(e, k, g))
		return;
	tcp_output(e, k);
	if (t->flags & TCPF_NOSPACE)
		tcp_write_space(e, k);
	tcp_rx_ack_policy(e, k);
}

/* The handshake's numbers from the peer's SYN. */
static void take_syn(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	t->irs = g->seq;
	t->rcv_nxt = t->rcv_read = t->rcv_wup = t->last_ack_sent = g->seq + 1;
	t->rcv_adv = t->rcv_nxt + t->rcv_wnd; /* what our SYN offered */
	tcp_take_syn_options(e, k, &g->o);
	t->snd_wnd = t->snd_max_wnd = g->wnd; /* a SYN's window is never scaled (RFC 7323 2.2) */
	t->snd_wl1 = g->seq;
	t->snd_wl2 = g->ack;
}

/* 3.10.7.3: SYN-SENT. */
static void syn_sent(struct engine *e, struct sock *k, struct segment *g)
{
	struct tcb *t = &k->tcp;

	if ((g->flags & TH_ACK) && (seq_leq(g->ack, t->iss) || seq_gt(g->ack, t->snd_nxt))) { /* first */
		count(e->s, C_tcp_bad_ack);
		tcp_reply_rst(e, g);
		return;
	}
	if (g->flags & TH_RST) { /* second */
		if (g->flags & TH_ACK) {
			count(e->s, C_tcp_refused);
			tcp_done(e, k, ECONNREFUSED);
		}
		return;
	}
	if (!(g->flags & TH_SYN)) /* fifth */
		return;
	take_syn(e, k, g);          /* fourth */
	if (!(g->flags & TH_ACK)) { /* simultaneous open; text comes again later */
		if (t->ecn & TCP_ECN_ASKED)
			tcp_ecn_take_syn(e, k, g);
		tcp_set_state(e, k, TCP_SYN_RECEIVED);
		t->syn_tries = 0;
		tcp_send_syn(e, k);
		return;
	}
	t->snd_una = g->ack;
	tcp_ecn_take_syn_ack(e, k, g);
	tcp_established(e, k);
	if (e->flushes && !tcp_lossless(e, k->vnic)) { /* with the first data */
		t->flags |= TCPF_ACK_DELAYED;
		tcp_ack_soon(e->s, k);
	} else { /* over a wire it costs little, and until then the server can't accept */
		t->flags |= TCPF_ACK_NOW;
	}
	g->seq++;
	g->flags &= (uint8_t)~TH_SYN;
	if (g->flags & TH_URG)
		tcp_rx_urgent(e, k, g);
	if (!tcp_rx_text(e, k, g)) /* "continue at the sixth step" */
		return;
	tcp_output(e, k);
	tcp_rx_ack_policy(e, k);
}

static void segment_arrives(struct engine *e, struct sock *k, struct segment *g)
{
	k->tcp.segs_in++;
	k->tcp.last_rcv_us = e->s->now_us;
	switch (k->tcp.state) {
	case TCP_LISTEN:
		tcp_listen_input(e, k, g);
		break;
	case TCP_SYN_SENT:
		syn_sent(e, k, g);
		break;
	default:
		tcp_conn_input(e, k, g);
	}
}

void tcp_input(struct engine *e, struct frame *f)
{
	struct segment g;
	struct sock *k;
	uint32_t opts;

	if (!parse_header(e, f, &g, &opts))
		return;
	count(e->s, C_tcp_segs_in);
	k = find_socket(e, f);
	if (__builtin_expect(g.flags & TH_SYN, 0) && tcp_open_input(e, k, &g, opts))
		return;
	if (!k) { /* 3.10.7.1: CLOSED */
		count(e->s, C_tcp_no_socket);
		tcp_parse_options(NULL, 0, &g.o);
		if (!ip_source_ours(e, f) && !stack_unsure(e->s, f->dst.port))
			tcp_reply_rst(e, &g);
		return;
	}
	sock_changing(e->s, k);
	if (fast_path(e, k, &g, opts))
		return;
	tcp_parse_options(f->hdr + g.payload - opts, opts, &g.o);
	segment_arrives(e, k, &g);
}
