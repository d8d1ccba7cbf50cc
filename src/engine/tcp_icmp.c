/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMP errors that concern a connection (RFC 1122 4.2.3.9, RFC 5927, RFC 1191, RFC 8201). icmp.c has found the
 * connection by the quoted packet's addresses and ports.
 *
 * Anybody can forge ICMP, so the quoted sequence number must be of data in flight (RFC 5927 4.1), and nothing ends a
 * connection that is open: there an error is soft, remembered for the day on which the connection times out, or told at
 * once to a program that has set IP_RECVERR. While it opens, an error ends the attempt, as in Linux.
 */
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define PMTU_FLOOR_V4 552u  /* as Linux's min_pmtu: less is an attack, or somebody's mistake */
#define PMTU_FLOOR_V6 1280u /* RFC 8200 5 */

static bool in_flight(struct engine *e, const struct tcb *t, uint32_t seq)
{
	if (seq_geq(seq, t->snd_una) && seq_lt(seq, t->snd_max))
		return true;
	count(e->s, C_tcp_icmp_ignored);
	return false;
}

void tcp_icmp_error(struct engine *e, struct sock *k, uint32_t seq, int err, bool hard)
{
	struct tcb *t = &k->tcp;

	if (t->state == TCP_LISTEN || t->state == TCP_CLOSED || t->state == TCP_TIME_WAIT || !in_flight(e, t, seq))
		return;
	if (t->state == TCP_SYN_RECEIVED && (t->flags & TCPF_EMBRYO)) {
		if (hard)
			tcp_embryo_drop(e, k);
		return;
	}
	if (t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED) {
		tcp_done(e, k, err);
		return;
	}
	if (!sock_wants_errors(k, is_v4(k->remote.addr) ? ERROR_ICMP : ERROR_ICMP6)) {
		t->soft_error = err;
		return;
	}
	k->so_error = err;
	sock_notify(e, k, EV_ERR | EV_IN | EV_OUT);
}

/*
 * Path MTU discovery: take the smaller size over and send what is in flight again in pieces that fit. It says nothing
 * of congestion, so cwnd stays.
 */
void tcp_icmp_mtu(struct engine *e, struct sock *k, uint32_t seq, uint32_t mtu)
{
	struct tcb *t = &k->tcp;
	uint32_t least = is_v4(k->remote.addr) ? PMTU_FLOOR_V4 : PMTU_FLOOR_V6;

	if (t->state == TCP_LISTEN || t->state == TCP_CLOSED || t->state == TCP_TIME_WAIT || !in_flight(e, t, seq))
		return;
	if (k->pmtudisc == PMTU_DONT || k->pmtudisc >= PMTU_INTERFACE)
		return;
	mtu = max_u32(mtu, least);
	if (mtu >= t->pmtu)
		return;
	count(e->s, C_tcp_pmtu);
	t->pmtu = mtu;
	tcp_set_mss(e, k);
	if (t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED)
		return;
	for (struct pkt *p = pkt_at(e->s, t->txq.head); p && (p->flags & PKT_SENT); p = tcp_next_pkt(e, p))
		if (p->len > t->mss && !(p->flags & PKT_SACKED))
			tcp_mark_lost(t, p);
	tcp_output(e, k);
}
