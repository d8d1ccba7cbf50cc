/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Explicit congestion notification (RFC 3168). As Linux by default, a SYN that asks for it is answered and our own SYNs
 * do not ask (sock_defaults.ecn). RFC 8311 has withdrawn the nonce and left ECT(1) to experiments: we send ECT(0), and
 * of what we receive only CE counts.
 *
 *   receiver  CE on new data in the window makes every ACK say ECE until data with CWR comes (6.1.3).
 *   sender    ECE brings cwnd down as a loss does, once a window (tcp_recovery.c, the state CWR). Whenever cwnd was
 *             brought down, the next new data says CWR (6.1.2).
 *   marking   ECT goes on new data only: not on SYN, FIN alone, ACK, probe, or what is sent again (6.1.1, 6.1.4 to
 *             6.1.6). tcp_output.c and tcp_control.c say so to tcp_post.
 *
 * A lossless vNIC has no queue that could mark anything: there the answer is no, and the short ways need not look.
 * SYN cookies don't carry it either.
 */
#include "engine/tcp_send.h"

static bool usable(const struct engine *e, const struct sock *k)
{
	return e->s->cfg.defaults.ecn != TCP_ECN_NEVER && !tcp_lossless(e, k->vnic);
}

/* A SYN asks the first time only: a host or a middlebox that drops such SYNs must not cost the connection (6.1.1.1). */
uint8_t tcp_ecn_syn_flags(struct engine *e, struct sock *k, bool syn_ack)
{
	struct tcb *t = &k->tcp;

	if (syn_ack)
		return t->flags & TCPF_ECN ? TH_ECE : 0;
	if (e->s->cfg.defaults.ecn != TCP_ECN_ASK || t->syn_tries || !usable(e, k))
		return 0;
	t->ecn |= TCP_ECN_ASKED;
	return TH_ECE | TH_CWR;
}

static void agreed(struct engine *e, struct sock *k)
{
	k->tcp.flags |= TCPF_ECN;
	count(e->s, C_tcp_ecn);
}

/* A SYN with ECT is none of RFC 3168 (6.1.1): as Linux, it is taken for one that something on the way has mangled. */
void tcp_ecn_take_syn(struct engine *e, struct sock *k, const struct segment *g)
{
	if ((g->flags & (TH_ECE | TH_CWR)) == (TH_ECE | TH_CWR) && !(g->f->tos & TOS_ECN) && usable(e, k))
		agreed(e, k);
}

/* ECE with CWR is no answer but a reflection of our own bits (6.1.1). */
void tcp_ecn_take_syn_ack(struct engine *e, struct sock *k, const struct segment *g)
{
	if (k->tcp.ecn & TCP_ECN_ASKED && (g->flags & (TH_ECE | TH_CWR)) == TH_ECE)
		agreed(e, k);
}

/* The peer waits to hear of CE, and with a small cwnd for any ACK: both are told at once. */
void tcp_ecn_data_arrived(struct engine *e, struct sock *k, const struct segment *g)
{
	struct tcb *t = &k->tcp;

	if (g->flags & TH_CWR) {
		t->ecn &= (uint8_t)~TCP_ECN_ECHO;
		t->flags |= TCPF_ACK_NOW;
	}
	if ((g->f->tos & TOS_ECN) != TOS_CE)
		return;
	count(e->s, C_tcp_ecn_ce);
	if (!(t->ecn & TCP_ECN_ECHO)) {
		t->ecn |= TCP_ECN_ECHO;
		t->flags |= TCPF_ACK_NOW;
	}
}
