/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a TCP socket without changing it: readiness as Linux's tcp_poll gives it, FIONREAD, SIOCATMARK, figures
 * for TCP_INFO and tools, and the invariants that tests assert.
 */
#include <assert.h>

#include "engine/tcp_send.h"

/* Linux's sk_shutdown: the peer's FIN shuts reading, as does the program; the end of the connection shuts both. */
static bool shut_rd(const struct sock *k)
{
	return (k->flags & SOCKF_SHUT_RD) || (k->tcp.flags & TCPF_FIN_RCVD);
}

static bool readable(const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t want = k->rcvlowat ? k->rcvlowat : 1;
	uint32_t left = seq_gt(t->rcv_adv, t->rcv_nxt) ? t->rcv_adv - t->rcv_nxt : 0;

	if ((t->flags & TCPF_URG_VALID) && t->rcv_up == t->rcv_read && !(k->flags & SOCKF_OOBINLINE))
		want++; /* the urgent byte, or the place it was at, can't be read in line */
	if (k->rxq.bytes >= want)
		return true;
	return k->rxq.bytes && left <= t->rcv_mss && want > 1 && k->rxq.bytes >= k->rcvbuf / 2; /* full as it gets */
}

uint32_t tcp_poll(struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t ev = 0;

	if (t->state == TCP_LISTEN)
		return k->tcp.accept_count ? EV_IN | EV_RDNORM : 0;
	if (t->state == TCP_CLOSED || t->state == TCP_TIME_WAIT || (shut_rd(k) && (k->flags & SOCKF_SHUT_WR)))
		ev |= EV_HUP; /* a program's socket in TIME-WAIT is closed for Linux */
	if (shut_rd(k))
		ev |= EV_IN | EV_RDNORM | EV_RDHUP;
	if (t->state != TCP_SYN_SENT && t->state != TCP_SYN_RECEIVED) {
		if (readable(k))
			ev |= EV_IN | EV_RDNORM;
		if ((k->flags & SOCKF_SHUT_WR) || tcp_writable(e, k))
			ev |= EV_OUT | EV_WRNORM;
		if ((t->flags & (TCPF_URG_VALID | TCPF_URG_BYTE | TCPF_URG_READ)) == (TCPF_URG_VALID | TCPF_URG_BYTE))
			ev |= EV_PRI;
	}
	if (k->so_error || sock_has_errors(k))
		ev |= EV_ERR;
	return ev;
}

uint32_t tcp_inq(struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;

	(void)e;
	if (t->state == TCP_LISTEN || t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED)
		return 0;
	if ((t->flags & TCPF_URG_VALID) && !(k->flags & SOCKF_OOBINLINE) && seq_leq(t->rcv_read, t->rcv_up) &&
	    seq_lt(t->rcv_up, t->rcv_nxt))
		return t->rcv_up - t->rcv_read;
	return k->rxq.bytes;
}

uint32_t tcp_outq(struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;

	(void)e;
	if (t->state == TCP_LISTEN || t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED ||
	    t->state == TCP_CLOSED)
		return 0;
	return seq_gt(t->snd_end, t->snd_una) ? t->snd_end - t->snd_una : 0;
}

bool tcp_atmark(struct engine *e, const struct sock *k)
{
	(void)e;
	return (k->tcp.flags & TCPF_URG_VALID) && k->tcp.rcv_up == k->tcp.rcv_read;
}

void tcp_get_stats(const struct engine *e, const struct sock *k, struct tcp_stats *out)
{
	const struct tcb *t = &k->tcp;
	uint32_t mss = t->mss ? t->mss : 1;

	*out = (struct tcp_stats){
	    .state = t->state,
	    .mss = t->mss,
	    .rcv_mss = t->rcv_mss,
	    .pmtu = t->pmtu,
	    .cwnd = t->cwnd / mss,
	    .ssthresh = t->ssthresh / mss,
	    .srtt_us = t->srtt_us,
	    .rttvar_us = t->rttvar_us,
	    .rto_us = (uint32_t)tcp_rto_now(e, t),
	    .unacked = (t->snd_nxt - t->snd_una + mss - 1) / mss,
	    .sacked = (t->sacked + mss - 1) / mss,
	    .lost = (t->lost + mss - 1) / mss,
	    .retrans_total = t->retrans_total,
	    .rcv_space = t->rcvq_space,
	    .snd_wnd = t->snd_wnd,
	    .rcv_wnd = t->rcv_wnd,
	    .snd_wscale = t->snd_wscale,
	    .rcv_wscale = t->rcv_wscale,
	    .timestamps = (t->flags & TCPF_TS) != 0,
	    .sack = (t->flags & TCPF_SACK) != 0,
	    .ca_state = t->ca_state,
	    .backoff = t->backoff,
	    .min_rtt_us = t->min_rtt_us,
	    .bytes_sent = t->bytes_sent,
	    .bytes_acked = t->bytes_acked,
	    .bytes_received = t->bytes_received,
	    .segs_out = t->segs_out,
	    .segs_in = t->segs_in,
	    .bytes_retrans = t->bytes_retrans,
	};
	if (t->state == TCP_LISTEN) {
		out->unacked = t->accept_count; /* as Linux */
		out->sacked = t->backlog;
	}
}

static uint32_t queue_bytes(struct stack *s, const struct pkt_queue *q, uint32_t seq)
{
	uint32_t bytes = 0, n = 0;

	for (const struct pkt *p = pkt_at(s, q->head); p; p = pkt_at(s, p->next)) {
		assert(p->seq == seq + bytes); /* no gap, no overlap */
		bytes += p->len;
		n++;
	}
	assert(n == q->count && bytes == q->bytes);
	return bytes;
}

/* Runs in order, apart from each other, above rcv_nxt. `last` is the end of the run before. */
static void check_runs(struct stack *s, const struct tcb *t, uint32_t root, uint32_t *last, uint32_t *n,
		       uint32_t *bytes)
{
	const struct pkt *run = pkt_at(s, root);
	uint32_t seq;

	if (!run)
		return;
	check_runs(s, t, run->next, last, n, bytes);
	assert(seq_gt(run->seq, *last) && seq_leq(run->aux2, t->rcv_adv));
	seq = run->seq;
	for (const struct pkt *p = run; p; p = pkt_at(s, p->frag)) {
		assert(p->seq == seq && p->len > 0);
		seq += p->len;
		*bytes += p->len;
		++*n;
	}
	assert(seq == run->aux2);
	*last = seq;
	check_runs(s, t, run->prev, last, n, bytes);
}

void tcp_check(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t n = 0, bytes = 0, last = t->rcv_nxt;

	assert(t->state >= TCP_ESTABLISHED && t->state < TCP_STATES);
	if (t->state == TCP_LISTEN || t->state == TCP_CLOSED)
		return;
	assert(seq_leq(t->snd_una, t->snd_nxt) && seq_leq(t->snd_nxt, t->snd_max));
	assert(seq_leq(t->snd_max, t->snd_end + 1));
	assert(seq_leq(t->rcv_wup, t->rcv_nxt) && seq_leq(t->rcv_read, t->rcv_nxt));
	if (t->state == TCP_SYN_SENT)
		return;
	if (!(k->flags & SOCKF_ORPHAN))
		assert(queue_bytes(e->s, &k->rxq, t->rcv_read) + ((t->flags & TCPF_FIN_RCVD) != 0) ==
			   t->rcv_nxt - t->rcv_read ||
		       (t->flags & TCPF_PEER_GONE));
	if (t->state != TCP_TIME_WAIT && t->txq.head)
		assert(queue_bytes(e->s, &t->txq, pkt_at(e->s, t->txq.head)->seq) ==
		       t->snd_end - pkt_at(e->s, t->txq.head)->seq);
	check_runs(e->s, t, t->ooo_root, &last, &n, &bytes);
	assert(n == t->ooo_count && bytes == t->ooo_bytes);
	/* Not rcvbuf: the program may make that smaller than what was offered. */
	assert(k->rxq.bytes + t->ooo_bytes <= t->rcv_adv - t->rcv_read);
}
