/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP over a network whose routes change (route.h): a connection's way is looked up again at its next segment.
 *
 * Another interface: unacknowledged data lies in tx buffers of the old one, so it is copied to buffers of the new one
 * and goes on from there. Another MTU: segments are cut anew, as after path MTU discovery.
 *
 * A segment that can't go because its next hop's link address is not known, or no route leads to the peer, is not lost:
 * it was not sent. The socket waits in a small list of the stack, which is tried again after 1 ms, 2 ms, and so on;
 * beyond that the timers of retransmissions and probes do it. An error that lasts is a soft one (RFC 1122 4.2.3.9): it
 * ends an attempt to connect, as in Linux, and is what an open connection reports when it times out.
 */
#include "engine/inet.h"
#include "engine/route.h"
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define RETRY_FIRST_US 1000u
#define RETRY_LAST_US 1000000u
#define BASE_MSS 1024u      /* as Linux's tcp_base_mss */
#define TRIAL_US 1000000u   /* between trials of larger sizes */
#define TRIAL_STEP 32u      /* what is not worth another one */
#define PAUSE_US 600000000u /* before all is tried again (RFC 8899 5.1.1: PMTU_RAISE_TIMER) */
#define BASE_LEAST_V4 552u
#define BASE_LEAST_V6 1280u

/* Can all of k's segments have a buffer of v? */
static bool room_for(struct engine *e, const struct sock *k, const struct vnic *v)
{
	if (v->st->free_top < k->tcp.txq.count + TXWAIT_RESERVE)
		return false;
	for (const struct pkt *p = pkt_at(e->s, k->tcp.txq.head); p; p = pkt_at(e->s, p->next))
		if (p->len > v->st->buf_size - PKT_HEADROOM || !pkt_data(e, p))
			return false;
	return true;
}

int tcp_move(struct engine *e, struct sock *k, uint32_t vnic)
{
	struct vnic *v = &e->vnic[vnic];

	if (!room_for(e, k, v))
		return -ENOBUFS;
	for (struct pkt *p = pkt_at(e->s, k->tcp.txq.head); p; p = pkt_at(e->s, p->next)) {
		struct vnic *old = &e->vnic[p->vnic];
		int buf = vnic_tx_alloc(v); /* room_for has counted them */

		memcpy(vnic_tx_buf(v, (uint32_t)buf) + PKT_HEADROOM, pkt_data(e, p), p->len);
		vnic_tx_free(old, p->buf);
		p->buf = (uint32_t)buf;
		p->off = PKT_HEADROOM;
		p->vnic = (uint16_t)vnic;
		p->vnic_gen = v->gen;
	}
	if (k->txwait_prev) {
		txwait_remove(e, k);
		k->tcp.flags &= ~TCPF_NOBUF;
		sock_notify(e, k, EV_OUT);
	}
	count(e->s, C_route_moved);
	return 0;
}

void tcp_mtu_changed(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->state == TCP_LISTEN || t->state == TCP_CLOSED || t->state == TCP_TIME_WAIT)
		return;
	t->pmtu = k->dst.mtu;
	t->mtu_try_us = t->mtu_probe = 0;
	if (t->peer_mss)
		tcp_set_mss(e, k);
}

/* What the interface and the route would take. */
static uint32_t way_mtu(const struct engine *e, const struct sock *k)
{
	uint32_t link = stack_vnic(e->s, k->vnic)->mtu;

	return k->dst.mtu ? min_u32(k->dst.mtu, link) : link;
}

/* As Linux's tcp_mtu_probing: down to a size that nearly every path takes, then halves. A timeout that sent nothing, or
 * small segments, says nothing. */
void tcp_black_hole(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct pkt *p = pkt_at(e->s, t->txq.head);
	uint32_t header = ip_header_len(is_v4(k->remote.addr) ? 4 : 6) - ETH_HEADER + TCP_HEADER;
	uint32_t least = is_v4(k->remote.addr) ? BASE_LEAST_V4 : BASE_LEAST_V6, mtu;

	if (tcp_no_network(e, k) || !p || !(p->flags & PKT_SENT) || t->snd_nxt - t->snd_una < t->mss)
		return;
	mtu = max_u32(min_u32(BASE_MSS + header, t->pmtu / 2), least);
	if (mtu >= t->pmtu)
		return;
	count(e->s, C_tcp_black_hole);
	t->pmtu = mtu;
	t->mtu_bad = way_mtu(e, k) + 1; /* perhaps the peer was only away: the first trial is of all */
	t->mtu_probe = 0;
	t->mtu_try_us = e->s->now_us + TRIAL_US;
	tcp_set_mss(e, k);
}

/* --- searching up (RFC 4821 7, RFC 8899 5.3) --- */

static uint32_t headers(const struct sock *k)
{
	return ip_header_len(is_v4(k->remote.addr) ? 4 : 6) - ETH_HEADER + TCP_HEADER + tcp_options_len(k);
}

/* The next trial, or, when nothing between is left to try, a long pause before all is tried again. */
static void next_trial(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t most = way_mtu(e, k);

	t->mtu_probe = 0;
	t->mtu_try_us = t->pmtu >= most ? 0 : e->s->now_us + TRIAL_US;
	if (t->pmtu < most && t->mtu_bad <= t->pmtu + TRIAL_STEP) {
		t->mtu_bad = most + 1;
		t->mtu_try_us = e->s->now_us + PAUSE_US;
	}
}

/* In the middle between what passes and what does not; at first, everything. */
static uint32_t trial_size(struct engine *e, const struct sock *k)
{
	uint32_t most = way_mtu(e, k);

	return k->tcp.mtu_bad > most ? most : (k->tcp.pmtu + k->tcp.mtu_bad) / 2;
}

uint32_t tcp_mtu_trial(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, t->send_head), *next = p ? pkt_at(e->s, p->next) : NULL;
	uint32_t len, room = t->snd_una + t->snd_wnd - t->snd_nxt, flight = tcp_in_flight(k);

	if (!t->mtu_try_us || e->s->now_us < t->mtu_try_us || t->mtu_probe || t->ca_state != TCP_CA_OPEN || !next)
		return 0;
	if (!(stack_vnic(e->s, k->vnic)->features & VNIC_FEAT_SCATTER)) { /* no segment of two buffers: risk it */
		t->pmtu = way_mtu(e, k);
		t->mtu_try_us = 0;
		tcp_set_mss(e, k);
		return 0;
	}
	len = trial_size(e, k) - headers(k);
	if (len <= t->mss || t->snd_end - t->snd_nxt < 2 * len || room < 2 * len || flight + 2 * len > t->cwnd)
		return 0;
	for (uint32_t sum = p->len; next && sum < len; next = pkt_at(e->s, next->next)) {
		if (sum + next->len > len && !tcp_split(e, k, next, len - sum))
			return 0;
		sum += next->len;
	}
	return len;
}

void tcp_mtu_trial_sent(struct engine *e, struct sock *k, uint32_t seq, uint32_t len)
{
	struct tcb *t = &k->tcp;

	t->mtu_probe = len + headers(k);
	t->mtu_probe_seq = seq;
	t->mtu_probe_end = seq + len;
	count(e->s, C_tcp_mtu_trials);
}

void tcp_mtu_trial_lost(struct engine *e, struct sock *k)
{
	k->tcp.mtu_bad = k->tcp.mtu_probe;
	next_trial(e, k);
}

void tcp_mtu_trial_acked(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	t->pmtu = max_u32(t->pmtu, t->mtu_probe);
	next_trial(e, k);
	tcp_set_mss(e, k);
}

void tcp_path_wait(struct engine *e, struct sock *k)
{
	struct stack *s = e->s;
	uint32_t i = sock_index(s, k);

	if (k->tcp.send_head || (k->tcp.flags & (TCPF_FIN_QUEUED | TCPF_FIN_SENT)) == TCPF_FIN_QUEUED)
		tcp_arm_probe(e, k);
	for (uint32_t w = 0; w < s->path_waiters && w < PATH_WAITS; w++)
		if (s->path_wait[w] == i)
			return;
	if (s->path_waiters >= PATH_WAITS)
		return;
	if (!s->path_waiters) {
		s->path_step_us = RETRY_FIRST_US;
		s->path_retry_us = s->now_us + s->path_step_us;
	}
	s->path_wait[s->path_waiters++] = i;
}

/* False: k need not wait any longer. */
static bool try_again(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	int err;

	if (k->proto != SOCK_TCP || t->state == TCP_CLOSED || t->state == TCP_LISTEN)
		return false;
	err = route_sock(e, k);
	if (err == -EAGAIN || err == -ENOBUFS || err == -ENODEV)
		return true;
	if (err) {
		if (t->state == TCP_SYN_SENT)
			tcp_done(e, k, -err);
		else
			t->soft_error = -err;
		return false;
	}
	if (t->state == TCP_SYN_SENT)
		tcp_send_control(e, k, t->iss, TH_SYN);
	else if (t->state == TCP_SYN_RECEIVED)
		tcp_send_control(e, k, t->iss, TH_SYN | TH_ACK);
	else
		tcp_output(e, k);
	return false;
}

void tcp_path_retry(struct engine *e)
{
	struct stack *s = e->s;
	uint32_t list[PATH_WAITS], n = s->path_waiters < PATH_WAITS ? s->path_waiters : PATH_WAITS;
	uint64_t step = s->path_step_us * 2;

	memcpy(list, s->path_wait, n * sizeof(list[0]));
	s->path_waiters = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct sock *k = sock_at(s, list[i]);

		if (k && try_again(e, k))
			tcp_path_wait(e, k);
	}
	if (step > RETRY_LAST_US) { /* the timers of TCP do the rest */
		s->path_waiters = 0;
		return;
	}
	s->path_step_us = step;
	s->path_retry_us = s->now_us + step;
}
