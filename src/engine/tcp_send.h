/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of TCP's sending half give each other (tcp_send.c, tcp_output.c, tcp_ack.c, tcp_recovery.c,
 * tcp_timer.c and the congestion controls). What the receiving half sees is in tcp_internal.h.
 *
 * The scoreboard. Each pkt of txq that was sent is in one of these states, as RFC 6675 and Linux have them:
 *   in flight          SENT
 *   delivered          SENT SACKED
 *   lost               SENT LOST
 *   sent again         SENT LOST RETRANS
 * tcb.sacked, tcb.lost and tcb.retrans count the bytes of pkts with that flag; tcp_in_flight is
 * (snd_nxt - snd_una) - sacked - lost + retrans. snd_nxt never goes back: what is sent again is found by its flags.
 */
#ifndef VD_TCP_SEND_H
#define VD_TCP_SEND_H

#include "engine/engine.h"
#include "engine/tcp_internal.h"

#define TCP_INIT_RTO_US 1000000u /* RFC 6298, 2.1 */
#define TCP_PROBE_MIN_US 200000u /* a held-back partial segment goes after this (CORK, MSG_MORE, SWS) */
#define TCP_UNDO_NONE UINT32_MAX /* undo_retrans: nothing was sent again yet */
#define TCP_DUPTHRESH 3u
#define TCP_FETCH_STEP 1024u /* of a tx buffer that small writes fill, a power of two: vnic_fetch_tx */

/* What TIMER_RTO stands for while data is in flight (with none it is the zero-window probe's). */
enum tcp_rto_kind { TCP_RTO_RETRANS, TCP_RTO_TLP, TCP_RTO_REORDER };

/* How much tcp_push insists. */
enum tcp_push {
	TCP_PUSH_NAGLE, /* a partial segment goes when Nagle lets it */
	TCP_PUSH_HOLD,  /* more comes at once: full segments only */
	TCP_PUSH_FORCE, /* everything */
};

/* What one ACK said. */
struct ack_result {
	uint32_t prior_una;
	uint32_t prior_fack, prior_sacked; /* tcb.fack and tcb.sacked_pkts before it */
	uint32_t acked;                    /* bytes newly acknowledged, cumulatively, SYN and FIN left out */
	uint32_t fresh;                    /* of these, bytes that SACK had not reported before */
	uint32_t sacked;                   /* bytes newly reported by SACK */
	uint32_t dsack_len;
	uint32_t ecr;               /* timestamp echoed */
	uint64_t first_us, last_us; /* sent_us of the oldest and newest original transmission delivered; 0 none */
	bool advanced, dupack, dsack;
	bool has_ecr;
	bool ece;           /* it says that the network was congested (RFC 3168) */
	bool reducing;      /* cwnd was being brought down when it came: it doesn't grow by this one */
	bool orig_acked;    /* data that was never sent again was delivered (F-RTO) */
	bool retrans_acked; /* data that was sent again was acknowledged (Karn) */
};

/* tcp_output.c */
void tcp_push(struct engine *e, struct sock *k, enum tcp_push how);
/* Payload bytes of a full segment to this peer now (MSS, buffers, half of the peer's window). */
uint32_t tcp_segment_limit(const struct engine *e, const struct sock *k);
/* Cut p after len bytes; the rest becomes a pkt behind it with the same marks. False: no buffer. */
bool tcp_split(struct engine *e, struct sock *k, struct pkt *p, uint32_t len);
/* Send this pkt (a run of pkts) again now, whatever the windows say. False: it can't go (the peer still has it). */
bool tcp_retransmit(struct engine *e, struct sock *k, struct pkt *p);
bool tcp_send_head_busy(const struct engine *e, const struct sock *k);

/* tcp_send.c */
bool tcp_writable(const struct engine *e, const struct sock *k);

/* tcp_ack.c: what begins at seq came later than what ends at fack, which was sent after it. */
void tcp_note_reordering(struct tcb *t, uint32_t seq, uint32_t fack);

/* tcp_recovery.c */
void tcp_rack_delivered(struct engine *e, struct sock *k, const struct pkt *p);
void tcp_rack_timer(struct engine *e, struct sock *k);
void tcp_mark_lost(struct tcb *t, struct pkt *p);
/* Congestion window after an ACK in recovery (RFC 6937) and its start. */
void tcp_tlp_ack(struct engine *e, struct sock *k, const struct ack_result *r);

/* tcp_timer.c */
bool tcp_arm_tlp(struct engine *e, struct sock *k); /* a tail loss probe, if one may be made; not on a lossless vNIC */
uint64_t tcp_rto_now(const struct engine *e, const struct tcb *t); /* with backoff, us */

/* cwnd does not apply where there is no network: a lossless vNIC is a ring between two processes of this machine. What
 * is in flight there is bounded by the peer's window and by the buffers; nobody else's traffic suffers. */
static inline bool tcp_no_network(const struct engine *e, const struct sock *k)
{
	const struct vnic_state *st = stack_vnic(e->s, k->vnic);

	return st && (st->features & VNIC_FEAT_LOSSLESS);
}

/* Is a small segment in flight, behind which Nagle's algorithm holds another (with Minshall's change)? snd_sml may be
 * of long ago: only what lies in (snd_una, snd_nxt] counts. */
static inline bool tcp_small_in_flight(const struct tcb *t)
{
	return t->snd_sml - t->snd_una - 1 < t->snd_nxt - t->snd_una;
}

static inline struct pkt *tcp_next_pkt(const struct engine *e, const struct pkt *p)
{
	return pkt_at(e->s, p->next);
}

/* Duplicates that mean a loss: more where the path is known to reorder further (as Linux). */
static inline uint32_t tcp_dupthresh(const struct tcb *t)
{
	return t->reordering > TCP_DUPTHRESH ? t->reordering : TCP_DUPTHRESH;
}

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

#endif
