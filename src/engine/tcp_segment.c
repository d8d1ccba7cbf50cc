/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an acceptable segment carries: text, urgent pointer, FIN (RFC 9293 3.10.7.4, sixth to eighth), and the ACK that
 * it is owed (RFC 1122 4.2.3.2, RFC 5681 4.2, with Linux's quick ACKs and ping-pong mode).
 *
 * Called by tcp_input.c after all checks, with g->seq .. g->seq + g->len touching the window. rcv_nxt moves on here and
 * nowhere else but in tcp_ooo_drain.
 */
#include "engine/tcp_internal.h"

#define RX_COPY_MAX 512u /* segments up to this size are packed together ... */
#define RX_COPY_FROM 16u /* ... when so many pkts wait already: small segments must not hold a buffer each */
#define QUICK_ACKS 16u

/* Small segments in front of a slow reader: one private buffer for many of them. */
static bool append_copy(struct engine *e, struct sock *k, struct frame *f, uint32_t off, uint32_t seq, uint32_t len)
{
	struct pkt *p = pkt_at(e->s, k->rxq.tail);
	bool fresh = !p || p->kind != PKT_PRIVATE || pkt_room(e, p) < len;
	uint8_t *data;

	if (fresh)
		p = pkt_alloc_private(e);
	if (!p)
		return false;
	data = pkt_data(e, p);
	if (!data || !frame_copy(e, f, off, data + p->len, len)) {
		if (fresh)
			pkt_free(e, p);
		return false;
	}
	p->len += len;
	if (fresh) {
		p->seq = seq;
		pkt_push_tail(e->s, &k->rxq, p);
	} else {
		k->rxq.bytes += len;
	}
	return true;
}

/* While buffers are short what comes goes first into what is left of the queue's last private buffer: so the queue
 * takes as many of them as its bytes do, however small the segments. Returns the bytes taken. */
static uint32_t top_up(struct engine *e, struct sock *k, struct frame *f, uint32_t off, uint32_t len)
{
	const struct vnic_state *st = stack_vnic(e->s, f->vnic);
	struct pkt *p = pkt_at(e->s, k->rxq.tail);
	uint32_t room;
	uint8_t *data;

	if (st->rx_held * 8 <= st->rx_count || !p || p->kind != PKT_PRIVATE || !(data = pkt_data(e, p)))
		return 0;
	room = pkt_room(e, p);
	if (len > room)
		len = room;
	if (!len || !frame_copy(e, f, off, data + p->len, len))
		return 0;
	p->len += len;
	k->rxq.bytes += len;
	return len;
}

/* Append payload to rxq. False: no pkt free, nothing was appended. */
static bool append(struct engine *e, struct sock *k, struct frame *f, uint32_t off, uint32_t seq, uint32_t len)
{
	uint32_t next, n = top_up(e, k, f, off, len);
	struct pkt *p;

	if (n == len)
		return true;
	off += n;
	seq += n;
	len -= n;
	if (k->rxq.count >= RX_COPY_FROM && len <= RX_COPY_MAX && append_copy(e, k, f, off, seq, len))
		return true;
	p = frame_take(e, f, off, len);
	if (!p) {
		if (n) {
			pkt_at(e->s, k->rxq.tail)->len -= n;
			k->rxq.bytes -= n;
		}
		count(e->s, C_tcp_rx_no_pkt);
		return false;
	}
	for (; p; p = pkt_at(e->s, next)) {
		next = p->next;
		p->seq = seq;
		seq += p->len;
		pkt_push_tail(e->s, &k->rxq, p);
	}
	return true;
}

/* Tell the program, if there is as much as it wants to be told of (SO_RCVLOWAT). */
static void data_ready(struct engine *e, struct sock *k)
{
	if (k->rcvlowat <= 1 || k->rxq.bytes >= k->rcvlowat || (k->tcp.flags & TCPF_FIN_RCVD) ||
	    k->rxq.bytes >= k->rcvbuf / 2)
		sock_notify(e, k, EV_IN | EV_RDNORM);
}

void tcp_rx_in_order(struct engine *e, struct sock *k, struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (!append(e, k, g->f, g->payload, t->rcv_nxt, g->len))
		return; /* the peer sends it again */
	t->rcv_nxt += g->len;
	t->bytes_received += g->len;
	k->rx_bytes += g->len;
	tcp_rcv_data_arrived(e, k, g->len, (g->flags & TH_PSH) != 0);
	data_ready(e, k);
}

/* Segments that have come together are acknowledged together, as by a Linux whose GRO has gathered them: one ACK for
 * the last that is in the burst. */
static void ack_burst(struct engine *e, struct sock *k)
{
	struct stack *s = e->s;

	if (!s->burst_more) {
		tcp_send_ack(e, k);
		return;
	}
	if (s->burst_ack != sock_index(s, k))
		tcp_burst_end(e);
	s->burst_ack = sock_index(s, k);
}

void tcp_burst_end(struct engine *e)
{
	struct sock *k = sock_at(e->s, e->s->burst_ack);

	e->s->burst_ack = 0;
	if (k && k->proto == SOCK_TCP && k->tcp.flags & (TCPF_ACK_NOW | TCPF_ACK_DELAYED) &&
	    k->tcp.state != TCP_CLOSED && k->tcp.state != TCP_LISTEN)
		tcp_send_ack(e, k);
}

/*
 * The ACK that is owed: at once for more than a full segment (if the reader keeps up: else its next call will send it,
 * with a better window), in quick-ACK mode, and where the sender must know (ACK_NOW); otherwise within delack_ms.
 */
void tcp_rx_ack_policy(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool quick;

	if (!(t->flags & (TCPF_ACK_NOW | TCPF_ACK_DELAYED)))
		return;
	quick = (t->quick_acks && !(t->flags & TCPF_PINGPONG)) || (t->flags & TCPF_QUICKACK);
	if (t->flags & TCPF_ACK_NOW) {
		tcp_send_ack(e, k);
		return;
	}
	if (quick && tcp_ack_may_wait(e, k)) {
		tcp_ack_soon(e->s, k);
		quick = false;
	}
	if (quick || (t->rcv_nxt - t->rcv_wup > t->rcv_mss && tcp_window_open(e, k)))
		ack_burst(e, k);
	else if (t->timer[TIMER_DELACK].deadline_us == 0)
		timer_set(e, k, TIMER_DELACK, e->s->now_us + (uint64_t)e->s->cfg.defaults.delack_ms * 1000);
}

/* The peer sends what we have, or what we can't take: tell it at once where we are. */
static void ack_now(struct sock *k)
{
	k->tcp.flags = (k->tcp.flags | TCPF_ACK_NOW) & ~TCPF_PINGPONG;
	tcp_quickack(k, QUICK_ACKS);
}

/* RFC 2883: report the duplicate [start, end) with the next ACK. */
static void duplicate(struct engine *e, struct sock *k, uint32_t start, uint32_t end)
{
	struct tcb *t = &k->tcp;

	count(e->s, C_tcp_duplicate_data);
	if ((t->flags & TCPF_SACK) && start != end) {
		t->dsack_start = start;
		t->dsack_end = end;
	}
	ack_now(k);
}

/*
 * RFC 6093: the pointer names the urgent byte's successor in practice, so the byte is the one before it. As in Linux, a
 * later pointer replaces an earlier one, whose byte, if it was not read, becomes ordinary data that is dropped where
 * the reader stands right at it.
 */
static void urgent_pointer(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;
	uint32_t at = g->seq + (g->urg ? g->urg - 1u : 0);

	if (seq_gt(t->rcv_read, at) || seq_lt(at, t->rcv_nxt))
		return;
	if ((t->flags & TCPF_URG_VALID) && seq_leq(at, t->rcv_up))
		return;
	if ((t->flags & TCPF_URG_VALID) && t->rcv_up == t->rcv_read && !(k->flags & SOCKF_OOBINLINE) &&
	    t->rcv_read != t->rcv_nxt) {
		struct pkt *p = pkt_at(e->s, k->rxq.head);

		if (p) { /* skip the old one */
			t->rcv_read++;
			p->seq++;
			p->off++;
			p->len--;
			k->rxq.bytes--;
			if (p->len == 0) {
				pkt_unlink(e->s, &k->rxq, p);
				pkt_free(e, p);
			}
		}
	}
	t->rcv_up = at;
	t->flags = (t->flags & ~(TCPF_URG_BYTE | TCPF_URG_READ)) | TCPF_URG_VALID;
	sock_notify(e, k, EV_PRI);
}

void tcp_rx_urgent(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;
	uint32_t ahead;

	if (g->flags & TH_URG)
		urgent_pointer(e, k, g);
	if (!(t->flags & TCPF_URG_VALID) || (t->flags & (TCPF_URG_BYTE | TCPF_URG_READ)))
		return;
	ahead = t->rcv_up - g->seq;
	if (ahead < g->len && frame_copy(e, g->f, g->payload + ahead, &t->urg_byte, 1)) {
		t->flags |= TCPF_URG_BYTE;
		count(e->s, C_tcp_urgent_rcvd);
		sock_notify(e, k, EV_PRI);
	}
}

/* The FIN is in order. False: nothing more is to be done with this segment (the socket may be gone). */
static bool fin_arrived(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	t->rcv_nxt++;
	t->flags = (t->flags | TCPF_FIN_RCVD | TCPF_ACK_DELAYED) & ~TCPF_FIN_OOO;
	tcp_ooo_free(e, k); /* nothing can follow */
	switch (t->state) {
	case TCP_ESTABLISHED:
		tcp_set_state(e, k, TCP_CLOSE_WAIT);
		t->flags |= TCPF_PINGPONG;                         /* our own FIN may follow soon and carry the ACK */
		if (!t->last_data_us && !tcp_lossless(e, k->vnic)) /* nothing was said: nothing will be */
			t->flags |= TCPF_ACK_NOW;
		break;
	case TCP_FIN_WAIT_1: /* simultaneous close */
		tcp_set_state(e, k, TCP_CLOSING);
		t->flags |= TCPF_ACK_NOW;
		break;
	case TCP_FIN_WAIT_2:
		sock_notify(e, k, EV_IN | EV_RDHUP | EV_HUP);
		tcp_send_ack(e, k);
		tcp_enter_time_wait(e, k);
		return false;
	default:
		break;
	}
	sock_notify(e, k, EV_IN | EV_RDNORM | EV_RDHUP | (k->flags & SOCKF_SHUT_WR ? EV_HUP : 0));
	return true;
}

/* Text beyond rcv_nxt: keep it, and tell the sender of the gap at once (RFC 5681 4.2). */
static void out_of_order(struct engine *e, struct sock *k, struct segment *g, bool fin)
{
	struct tcb *t = &k->tcp;

	count(e->s, C_tcp_out_of_order);
	if (g->len && tcp_ooo_insert(e, k, g->f, g->payload, g->seq, g->len) != 0) {
		count(e->s, C_tcp_ooo_dropped);
		fin = false;
	}
	if (fin) {
		t->flags |= TCPF_FIN_OOO;
		t->fin_seq = g->seq + g->len;
	}
	t->flags |= TCPF_ACK_NOW;
}

static bool in_order(struct engine *e, struct sock *k, struct segment *g, bool fin)
{
	struct tcb *t = &k->tcp;

	if (g->len) {
		uint32_t before = t->rcv_nxt;

		tcp_rx_in_order(e, k, g);
		if (t->rcv_nxt == before)
			return true; /* no memory: as if it had not come */
	}
	if (t->ooo_count) {
		uint32_t more;

		tcp_ooo_drain(e, k);
		more = t->rcv_nxt - (g->seq + g->len);
		t->bytes_received += more;
		k->rx_bytes += more;
		t->flags |= TCPF_ACK_NOW; /* RFC 5681 4.2: a gap was filled, wholly or in part */
	}
	if (fin || ((t->flags & TCPF_FIN_OOO) && t->fin_seq == t->rcv_nxt))
		return fin_arrived(e, k);
	return true;
}

/* Cut the segment to [rcv_nxt, rcv_adv). False: nothing new is left of it. */
static bool trim_to_window(struct engine *e, struct sock *k, struct segment *g, bool *fin)
{
	struct tcb *t = &k->tcp;
	uint32_t end = g->seq + g->len, wnd = seq_gt(t->rcv_adv, t->rcv_nxt) ? t->rcv_adv - t->rcv_nxt : 0;

	if (seq_lt(g->seq, t->rcv_nxt)) {
		uint32_t cut = t->rcv_nxt - g->seq;

		if (seq_lt(end + *fin, t->rcv_nxt + 1)) { /* all of it, with its FIN, is old */
			duplicate(e, k, g->seq, end);
			return false;
		}
		if (cut > g->len)
			cut = g->len;
		duplicate(e, k, g->seq, g->seq + cut);
		g->seq += cut;
		g->payload += cut;
		g->len -= cut;
	}
	if (g->len == 0)
		return *fin && seq_leq(g->seq, t->rcv_nxt + wnd); /* a bare FIN is welcome with the window shut, too */
	if (seq_geq(g->seq, t->rcv_nxt + wnd)) {
		count(e->s, C_tcp_beyond_window);
		ack_now(k);
		return false;
	}
	if (seq_gt(end, t->rcv_nxt + wnd)) {
		count(e->s, C_tcp_beyond_window);
		g->len -= end - (t->rcv_nxt + wnd);
		*fin = false;
		t->flags |= TCPF_ACK_NOW;
	}
	return true;
}

bool tcp_rx_text(struct engine *e, struct sock *k, struct segment *g)
{
	struct tcb *t = &k->tcp;
	bool fin = (g->flags & TH_FIN) != 0;

	if (g->len == 0 && !fin)
		return true;
	if (t->state != TCP_ESTABLISHED && t->state != TCP_FIN_WAIT_1 && t->state != TCP_FIN_WAIT_2) {
		t->flags |= TCPF_ACK_NOW; /* after the FIN nothing new can come: it is old, or wrong */
		return true;
	}
	if (t->state != TCP_ESTABLISHED && (k->flags & SOCKF_SHUT_RD) && g->len &&
	    seq_gt(g->seq + g->len, t->rcv_nxt)) {
		count(e->s, C_tcp_data_after_close); /* RFC 1122 4.2.2.13: nobody will ever read it */
		tcp_reply_rst(e, g);
		tcp_done(e, k, ECONNRESET);
		return false;
	}
	if (!trim_to_window(e, k, g, &fin))
		return true;
	if (t->flags & TCPF_ECN && g->len)
		tcp_ecn_data_arrived(e, k, g);
	if (g->seq != t->rcv_nxt) {
		out_of_order(e, k, g, fin);
		return true;
	}
	return in_order(e, k, g, fin);
}
