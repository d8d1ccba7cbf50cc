/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection's life: connect, established, shutdown, close, reset, TIME-WAIT (RFC 9293 3.3.2, 3.6, 3.10).
 *
 * tcp_done() is the one way into CLOSED. The socket leaves the lookup table and its timers stop; what was received can
 * still be read. A socket that the program has closed before (SOCKF_ORPHAN) is freed there, so whoever calls something
 * that may end in tcp_done must not touch the socket afterwards.
 *
 * Orphans must not exhaust the pool. Those in TIME-WAIT are in a list of the stack, oldest first, at most a quarter of
 * the pool, and are given up from its head; beyond half of the pool, a close resets (as Linux beyond tcp_max_orphans).
 */
#include <assert.h>

#include "engine/inet.h"
#include "engine/tcp_open.h"
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define STATE_BIT(s) (1u << (s))
#define RCV_MSS_FIRST 536u /* guess of the peer's segment size, as Linux */
#define RCV_MSS_LEAST 88u

const char *const tcp_state_name[TCP_STATES] = {
    [TCP_ESTABLISHED] = "ESTABLISHED", [TCP_SYN_SENT] = "SYN-SENT",     [TCP_SYN_RECEIVED] = "SYN-RECEIVED",
    [TCP_FIN_WAIT_1] = "FIN-WAIT-1",   [TCP_FIN_WAIT_2] = "FIN-WAIT-2", [TCP_TIME_WAIT] = "TIME-WAIT",
    [TCP_CLOSED] = "CLOSED",           [TCP_CLOSE_WAIT] = "CLOSE-WAIT", [TCP_LAST_ACK] = "LAST-ACK",
    [TCP_LISTEN] = "LISTEN",           [TCP_CLOSING] = "CLOSING",
};

bool tcp_lossless(const struct engine *e, uint32_t vnic)
{
	const struct vnic_state *st = stack_vnic(e->s, vnic);

	return st && (st->features & VNIC_FEAT_LOSSLESS);
}

void tcp_set_state(struct engine *e, struct sock *k, enum tcp_state state)
{
	k->tcp.state = (uint8_t)state;
	if (k->tcp.promised)
		tcp_promise_changed(e->s, k);
}

void tcp_sock_init(struct engine *e, struct sock *k)
{
	k->tcp.state = TCP_CLOSED;
	k->tcp.cc = (uint8_t)e->s->cfg.defaults.cc;
}

/* --- leaving --- */

static void tw_unlink(struct engine *e, struct sock *k)
{
	struct stack *s = e->s;
	struct sock *prev = sock_at(s, k->tcp.q_prev), *next = sock_at(s, k->tcp.q_next);

	if (prev)
		prev->tcp.q_next = k->tcp.q_next;
	else
		s->tw_head = k->tcp.q_next;
	if (next)
		next->tcp.q_prev = k->tcp.q_prev;
	else
		s->tw_tail = k->tcp.q_prev;
	k->tcp.q_next = k->tcp.q_prev = 0;
	k->tcp.flags &= ~TCPF_TW_LISTED;
	s->tw_count--;
}

static void free_unsent(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	pkt_queue_free(e, &t->txq);
	t->send_head = 0;
	t->sacked = t->lost = t->retrans = 0;
	tcp_ooo_free(e, k);
}

void tcp_free(struct engine *e, struct sock *k)
{
	sock_changing(e->s, k);
	if (k->tcp.flags & TCPF_TW_LISTED)
		tw_unlink(e, k);
	if (k->flags & SOCKF_ORPHAN)
		e->s->orphan_count--;
	if (k->flags & SOCKF_HASHED)
		sock_unhash(e->s, k);
	free_unsent(e, k);
	pkt_queue_free(e, &k->rxq);
	sock_free(e, k);
}

bool tcp_recycle(struct engine *e)
{
	struct sock *k = sock_at(e->s, e->s->tw_head);

	if (!k)
		return false;
	count(e->s, C_tcp_time_wait_recycled);
	tcp_free(e, k);
	return true;
}

static void stop_timers(struct sock *k)
{
	for (int i = 0; i < TIMER_KINDS; i++)
		timer_clear(k, (enum timer_kind)i);
}

void tcp_done(struct engine *e, struct sock *k, int err)
{
	sock_changing(e->s, k);
	if (k->flags & SOCKF_ORPHAN) {
		tcp_free(e, k);
		return;
	}
	if (k->flags & SOCKF_HASHED)
		sock_unhash(e->s, k);
	stop_timers(k);
	free_unsent(e, k);
	txwait_remove(e, k);
	if (err)
		k->so_error = err;
	k->flags |= SOCKF_SHUT_RD | SOCKF_SHUT_WR;
	k->tcp.flags &= ~(TCPF_ACK_NOW | TCPF_ACK_DELAYED);
	tcp_set_state(e, k, TCP_CLOSED);
	sock_notify(e, k, EV_IN | EV_OUT | EV_RDHUP | EV_HUP | (err ? EV_ERR : 0));
}

static void tw_list(struct engine *e, struct sock *k)
{
	struct stack *s = e->s;
	struct sock *last;
	uint32_t i = sock_index(s, k);

	if (s->tw_count >= s->cfg.max_socks / 4)
		tcp_recycle(e);
	last = sock_at(s, s->tw_tail);
	k->tcp.q_prev = s->tw_tail;
	k->tcp.q_next = 0;
	if (last)
		last->tcp.q_next = i;
	else
		s->tw_head = i;
	s->tw_tail = i;
	s->tw_count++;
	k->tcp.flags |= TCPF_TW_LISTED;
}

/*
 * TIME-WAIT (RFC 9293 3.6.1) answers a FIN that comes again because our last ACK was lost, and keeps old duplicates
 * away from the next connection of the same name. On a lossless vNIC neither can happen: the ACK has been posted, the
 * peer will take it in before anything that we send later, a SYN of the same name included; and the peer's own frames
 * arrive in the order sent, so behind its FIN there is none left but another copy of it (if it waited long for us),
 * which gets a RST that finds the peer's socket gone. So there the state is skipped, and 100,000 connections a second
 * need no 6,000,000 sockets.
 */
void tcp_enter_time_wait(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	/* Without a tx buffer the last ACK is owed still: then the socket must stay to send it. */
	if (tcp_lossless(e, k->vnic) && !(t->flags & TCPF_ACK_NOW)) {
		count(e->s, C_tcp_time_wait_skipped);
		tcp_done(e, k, 0);
		return;
	}
	count(e->s, C_tcp_time_wait);
	stop_timers(k);
	free_unsent(e, k);
	tcp_set_state(e, k, TCP_TIME_WAIT);
	k->flags |= SOCKF_SHUT_WR;
	t->flags &= ~TCPF_ACK_DELAYED;
	timer_set(e, k, TIMER_LIFE, e->s->now_us + (uint64_t)e->s->cfg.defaults.time_wait_ms * 1000);
	if (k->flags & SOCKF_ORPHAN)
		tw_list(e, k);
	else
		sock_notify(e, k, EV_IN | EV_OUT | EV_RDHUP | EV_HUP);
}

bool tcp_fin_wait_2(struct engine *e, struct sock *k)
{
	uint32_t wait_s = k->tcp.linger2_s;

	if (!(k->flags & SOCKF_ORPHAN))
		return true;
	if ((int32_t)wait_s < 0) { /* TCP_LINGER2 below zero: don't wait (Linux) */
		tcp_send_rst(e, k);
		tcp_done(e, k, 0);
		return false;
	}
	if (!wait_s || wait_s > e->s->cfg.defaults.fin_timeout_s)
		wait_s = e->s->cfg.defaults.fin_timeout_s;
	timer_set(e, k, TIMER_LIFE, e->s->now_us + wait_s * 1000000ull);
	return true;
}

void tcp_life_due(struct engine *e, struct sock *k)
{
	if (k->tcp.state == TCP_TIME_WAIT || (k->tcp.state == TCP_FIN_WAIT_2 && (k->flags & SOCKF_ORPHAN)))
		tcp_done(e, k, 0);
}

/* --- opening --- */

/* RFC 7323 5.4: an offset per pair of hosts hides our uptime but lets TIME-WAIT compare (RFC 6191). */
static uint32_t timestamp_offset(struct engine *e, const struct sock *k)
{
	uint8_t pair[32];

	memcpy(pair, k->local.addr, 16);
	memcpy(pair + 16, k->remote.addr, 16);
	return (uint32_t)keyed_hash(e->s->cfg.secret + 16, pair, sizeof(pair));
}

void tcp_open_window(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct vnic_state *st = stack_vnic(e->s, k->vnic);
	uint32_t mtu = vnic_is_network(st) && k->dst.mtu ? min_u32(k->dst.mtu, st->mtu) : st->mtu;
	uint32_t space = k->rcvbuf, header = ip_header_len(is_v4(k->remote.addr) ? 4 : 6) - ETH_HEADER + TCP_HEADER;

	if (!(k->flags & SOCKF_RCVBUF_SET) && space < e->s->cfg.defaults.rcvbuf_max)
		space = e->s->cfg.defaults.rcvbuf_max;
	for (t->rcv_wscale = 0; space > 65535 && t->rcv_wscale < 14; space >>= 1)
		t->rcv_wscale++;
	t->pmtu = mtu;
	t->adv_mss = mtu > header ? min_u32(mtu - header, 65535) : TCP_MSS_FLOOR;
	if (t->maxseg)
		t->adv_mss = min_u32(t->adv_mss, t->maxseg);
	t->rcv_mss = max_u32(min_u32(min_u32(t->adv_mss, RCV_MSS_FIRST), k->rcvbuf / 2), RCV_MSS_LEAST);
	if (!tcp_lossless(e, k->vnic))
		t->ts_offset = timestamp_offset(e, k);
}

void tcp_take_syn_options(struct engine *e, struct sock *k, const struct tcp_opts *o)
{
	struct tcb *t = &k->tcp;

	t->peer_mss = o->has_mss ? max_u32(o->mss, TCP_MSS_FLOOR) : is_v4(k->remote.addr) ? 536 : 1220; /* 3.7.1 */
	if (o->has_wscale) {
		t->flags |= TCPF_WSCALE;
		t->snd_wscale = o->wscale;
	} else {
		t->rcv_wscale = t->snd_wscale = 0;
	}
	if (o->sack_ok)
		t->flags |= TCPF_SACK;
	/* Why not on a lossless vNIC: see tcp_build_syn_options. */
	if (o->has_ts && !e->s->cfg.defaults.no_timestamps && !tcp_lossless(e, k->vnic)) {
		t->flags |= TCPF_TS;
		t->ts_recent = o->ts_val;
		t->ts_recent_us = e->s->now_us;
	}
	tcp_set_mss(e, k);
}

void tcp_set_mss(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool v4 = is_v4(k->remote.addr);
	uint32_t payload = ip_mtu_payload(e, k->vnic, v4 ? 4 : 6), ip = v4 ? 20 : 40;
	uint32_t mss;

	if (t->pmtu > ip && t->pmtu - ip < payload)
		payload = t->pmtu - ip;
	mss = payload > TCP_HEADER + TCP_MSS_FLOOR ? payload - TCP_HEADER : TCP_MSS_FLOOR;
	mss = min_u32(mss, t->peer_mss);
	if (t->maxseg)
		mss = min_u32(mss, max_u32(t->maxseg, TCP_MSS_FLOOR));
	t->mss = mss - tcp_options_len(k); /* RFC 6691: the option does not count options */
}

void tcp_established(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t now = e->s->now_us;

	count(e->s, C_tcp_established);
	tcp_set_state(e, k, TCP_ESTABLISHED);
	timer_clear(k, TIMER_RTO);
	if (t->rtt_sent_us && now >= t->rtt_sent_us)
		tcp_rtt_sample(e, k, now - t->rtt_sent_us);
	t->rtt_sent_us = 0;
	t->last_rcv_us = now;
	tcp_set_mss(e, k);
	tcp_cc_ops(k)->init(e, k);
	tcp_fast_init(e, k);
	t->rcvq_space = min_u32(t->rcv_wnd, 10 * t->adv_mss);
	t->rcvq_time_us = now;
	t->push_seq = t->snd_sml = t->usage_seq = t->snd_end;
	if (k->flags & SOCKF_KEEPALIVE)
		tcp_set_keepalive(e, k, true, now);
	if (t->flags & TCPF_EMBRYO)
		count(e->s, C_tcp_passive_opens);
	sock_notify(e, k, EV_OUT | EV_WRNORM);
}

/* A control block as new, but for what the program set. */
static void tcb_restart(struct engine *e, struct sock *k)
{
	struct tcb old, *t = &k->tcp;

	timer_remove_all(e, k);
	tcp_ack_soon_remove(e->s, k); /* or the list would lose its rest, or become a ring */
	tcp_promise_none(e->s, k);
	old = *t;
	memset(t, 0, sizeof(*t));
	t->state = TCP_CLOSED;
	t->cc = old.cc;
	t->flags = old.flags & (TCPF_NODELAY | TCPF_CORK | TCPF_QUICKACK);
	t->keep_idle_s = old.keep_idle_s;
	t->keep_intvl_s = old.keep_intvl_s;
	t->keep_cnt = old.keep_cnt;
	t->user_timeout_ms = old.user_timeout_ms;
	t->linger2_s = old.linger2_s;
	t->syncnt = old.syncnt;
	t->maxseg = old.maxseg;
	t->notsent_lowat = old.notsent_lowat;
	t->defer_accept_s = old.defer_accept_s;
}

/* May the name be used although a socket has it? In TIME-WAIT with timestamps, after a second (RFC 6191; Linux). */
static bool take_over(struct engine *e, struct sock *old, uint32_t *iss)
{
	struct tcb *t = &old->tcp;

	if (t->state != TCP_TIME_WAIT || !(t->flags & TCPF_TS) || e->s->now_us - t->ts_recent_us < 1000000)
		return false;
	*iss = t->snd_nxt + 65535 + 2;
	count(e->s, C_tcp_time_wait_reused);
	tcp_done(e, old, 0);
	return true;
}

int tcp_connect(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *local,
		const struct endpoint *remote, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct sock *old;
	uint32_t iss;

	tcp_set_now(e, now_us);
	if (t->state != TCP_CLOSED)
		return t->state == TCP_SYN_SENT ? -EALREADY : -EISCONN;
	if (!st || st->dead)
		return -EHOSTUNREACH;
	iss = tcp_new_isn(e, local, remote);
	old = sock_lookup(e->s, SOCK_TCP, local, remote);
	if (old && old != k && !take_over(e, old, &iss))
		return -EADDRNOTAVAIL;
	sock_changing(e->s, k);
	if (k->flags & SOCKF_HASHED)
		sock_unhash(e->s, k);
	pkt_queue_free(e, &k->rxq);
	tcb_restart(e, k);
	if (k->remote.port) /* else what the program has shut down before stays so */
		k->flags &= ~(SOCKF_SHUT_RD | SOCKF_SHUT_WR);
	k->so_error = 0;
	k->local = *local;
	k->remote = *remote;
	k->vnic = vnic;
	k->vnic_gen = st->gen;
	t->flags |= TCPF_CONNECTING;
	t->iss = t->snd_una = t->snd_nxt = t->snd_max = iss;
	t->snd_end = iss + 1;
	tcp_open_window(e, k);
	tcp_set_state(e, k, TCP_SYN_SENT);
	sock_hash(e->s, k);
	count(e->s, C_tcp_active_opens);
	tcp_open_send(e, k);
	return 0;
}

/* --- closing --- */

/* Our FIN goes behind what is queued: the next state, as in RFC 9293 3.10.4 and 3.10.5. */
static void queue_fin(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->flags & TCPF_FIN_QUEUED)
		return;
	t->flags |= TCPF_FIN_QUEUED;
	tcp_set_state(e, k, t->state == TCP_CLOSE_WAIT ? TCP_LAST_ACK : TCP_FIN_WAIT_1);
	tcp_output(e, k);
}

static void stop_listening(struct engine *e, struct sock *k)
{
	tcp_listen_close(e, k);
	if (k->flags & SOCKF_HASHED)
		sock_unhash(e->s, k);
	tcp_set_state(e, k, TCP_CLOSED);
	sock_notify(e, k, EV_IN | EV_OUT | EV_RDHUP | EV_HUP);
}

int tcp_shutdown(struct engine *e, struct sock *k, int how, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	bool rd = how != 1, wr = how != 0;

	sock_changing(e->s, k);
	tcp_set_now(e, now_us);
	switch (t->state) {
	case TCP_CLOSED: /* it has its effect */
		wr = false;
		break;
	case TCP_LISTEN:
		if (rd)
			stop_listening(e, k);
		return 0;
	case TCP_SYN_SENT: /* Linux disconnects */
		tcp_done(e, k, ECONNRESET);
		return 0;
	default:
		break;
	}
	k->flags |= (rd ? SOCKF_SHUT_RD : 0) | (how != 0 ? SOCKF_SHUT_WR : 0);
	sock_notify(e, k,
		    (rd ? EV_IN | EV_RDHUP : 0) | EV_OUT |
			((k->flags & SOCKF_SHUT_RD) && (k->flags & SOCKF_SHUT_WR) ? EV_HUP : 0));
	if (!wr)
		return t->state == TCP_CLOSED ? -ENOTCONN : 0;
	if (t->flags & TCPF_PEER_GONE)
		tcp_done(e, k, 0);
	else if (STATE_BIT(t->state) &
		 (STATE_BIT(TCP_ESTABLISHED) | STATE_BIT(TCP_SYN_RECEIVED) | STATE_BIT(TCP_CLOSE_WAIT)))
		queue_fin(e, k);
	return 0;
}

/* States in which the peer believes in a connection: it must be told (RFC 9293 3.10.5 ABORT; Linux tcp_need_reset). */
static bool needs_reset(const struct tcb *t)
{
	return STATE_BIT(t->state) &
	       (STATE_BIT(TCP_ESTABLISHED) | STATE_BIT(TCP_CLOSE_WAIT) | STATE_BIT(TCP_FIN_WAIT_1) |
		STATE_BIT(TCP_FIN_WAIT_2) | STATE_BIT(TCP_SYN_RECEIVED));
}

void tcp_abort(struct engine *e, struct sock *k, int err, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	sock_changing(e->s, k);
	tcp_set_now(e, now_us);
	if (t->state == TCP_LISTEN) {
		stop_listening(e, k);
		return;
	}
	if (needs_reset(t))
		tcp_send_rst(e, k);
	if (t->flags & TCPF_EMBRYO && t->state == TCP_SYN_RECEIVED)
		tcp_embryo_drop(e, k);
	else
		tcp_done(e, k, err);
}

void tcp_disconnect(struct engine *e, struct sock *k, uint64_t now_us)
{
	bool told = needs_reset(&k->tcp) || k->tcp.state == TCP_SYN_SENT;

	if (k->tcp.state != TCP_CLOSED)
		tcp_abort(e, k, told ? ECONNRESET : 0, now_us);
	sock_changing(e->s, k);
	pkt_queue_free(e, &k->rxq);
	tcb_restart(e, k);
	k->flags &= ~(SOCKF_SHUT_RD | SOCKF_SHUT_WR | SOCKF_DISCONNECTING);
	memset(&k->remote, 0, sizeof(k->remote));
	sock_notify(e, k, EV_OUT | EV_HUP | (k->so_error ? EV_ERR : 0));
}

/* Can the close be quiet, or must it reset? */
static bool close_resets(struct engine *e, struct sock *k)
{
	if (k->rxq.bytes) { /* RFC 1122 4.2.2.13: the peer must learn that its data was not read */
		count(e->s, C_tcp_reset_unread);
		return true;
	}
	if ((k->flags & SOCKF_LINGER) && k->linger_s == 0)
		return true;
	if (e->s->orphan_count > e->s->cfg.max_socks / 2) {
		count(e->s, C_tcp_orphan_reset);
		return true;
	}
	return k->tcp.state == TCP_SYN_RECEIVED;
}

void tcp_close(struct engine *e, struct sock *k, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	bool reset;

	sock_changing(e->s, k);
	tcp_set_now(e, now_us);
	if (t->state == TCP_LISTEN)
		stop_listening(e, k);
	k->flags |= SOCKF_ORPHAN | SOCKF_SHUT_RD | SOCKF_SHUT_WR;
	e->s->orphan_count++;
	if (t->state == TCP_TIME_WAIT) {
		pkt_queue_free(e, &k->rxq);
		tw_list(e, k);
		return;
	}
	if (t->state == TCP_CLOSED || t->state == TCP_SYN_SENT || (t->flags & TCPF_PEER_GONE) ||
	    stack_vnic(e->s, k->vnic)->dead) {
		tcp_free(e, k);
		return;
	}
	reset = close_resets(e, k);
	pkt_queue_free(e, &k->rxq);
	if (reset) {
		if (needs_reset(t))
			tcp_send_rst(e, k);
		tcp_free(e, k);
	} else if (t->state == TCP_FIN_WAIT_2) {
		tcp_fin_wait_2(e, k);
	} else {
		queue_fin(e, k);
	}
}

/*
 * Nothing will come over the vNIC any more: the process behind it is gone. Its kernel would have closed its end: a
 * reset if what we sent was not all taken, else a FIN. After the FIN it would answer a write with a reset (PEER_GONE).
 */
void tcp_vnic_dead(struct engine *e, struct sock *k, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	sock_changing(e->s, k);
	tcp_set_now(e, now_us);
	switch (t->state) {
	case TCP_CLOSED:
	case TCP_LISTEN:
		return;
	case TCP_SYN_SENT:
		tcp_done(e, k, ECONNREFUSED);
		return;
	case TCP_SYN_RECEIVED:
		if (t->flags & TCPF_EMBRYO)
			tcp_embryo_drop(e, k);
		else
			tcp_done(e, k, ECONNRESET);
		return;
	default:
		break;
	}
	if (t->txq.bytes || !t->segs_in) { /* opened at once, and perhaps never heard of */
		tcp_done(e, k, t->state == TCP_CLOSE_WAIT ? EPIPE : ECONNRESET);
		return;
	}
	if (t->state == TCP_ESTABLISHED || t->state == TCP_CLOSE_WAIT) {
		stop_timers(k);
		tcp_ooo_free(e, k);
		tcp_set_state(e, k, TCP_CLOSE_WAIT);
		t->flags = (t->flags | TCPF_FIN_RCVD | TCPF_PEER_GONE) & ~(TCPF_ACK_NOW | TCPF_ACK_DELAYED);
		sock_notify(e, k, EV_IN | EV_RDNORM | EV_RDHUP | EV_OUT);
		return;
	}
	t->flags |= TCPF_FIN_RCVD;
	tcp_done(e, k, 0);
}
