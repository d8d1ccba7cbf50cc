/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of TCP give each other. Who owns what:
 *
 *   tcp_input.c    RFC 9293 3.10.7: segments in, in the RFC's order of checks; ACK-only and in-order-data fast path
 *   tcp_options.c  parse and build options
 *   tcp_listen.c   passive open: SYN queue, SYN cookies, accept queue
 *   tcp_ooo.c      out-of-order queue; which SACK blocks to report
 *   tcp_recv.c     the program reads: tcp_recv, window updates, auto-tuning, urgent data
 *   tcp_state.c    alloc, connect, shutdown, close, abort, state changes, poll, stats
 *   tcp_send.c     the program writes: tcp_send, filling pkts, NODELAY, CORK
 *   tcp_output.c   which segment goes next: window, cwnd, Nagle; builds segments, ACKs, RSTs
 *   tcp_ack.c      what an ACK does to txq: cumulative, SACK scoreboard, RTT samples
 *   tcp_recovery.c fast retransmit, PRR, RACK-like marking, RTO recovery, undo, F-RTO
 *   tcp_ecn.c      explicit congestion notification
 *   tcp_fast.c     the short ways for the usual segment over a wire
 *   tcp_timer.c    RTO, probes, delayed ACK, keepalive, life
 *   tcp_cc.c, tcp_cubic.c, tcp_newreno.c   congestion control
 */
/*
 * Where the halves meet:
 *   SYN     Whoever opens sets iss, snd_una = snd_nxt = snd_max = iss, snd_end = iss + 1 and calls tcp_send_syn, which
 *           sends it, sets snd_nxt = snd_max = iss + 1, arms TIMER_RTO, counts syn_tries, and at the first transmission
 *           sets rtt_sent_us (0 at later ones: Karn). tcp_input takes the ACK of the SYN (snd_una = iss + 1, RTT
 * sample) before it calls tcp_ack. tcp_established calls the congestion control's init and tcp_set_mss. FIN
 * tcp_shutdown and tcp_close set TCPF_FIN_QUEUED and the state, then tcp_output. The sender gives the FIN the sequence
 * number snd_end and sets TCPF_FIN_SENT, snd_nxt = snd_max = snd_end + 1. Our FIN is acknowledged when TCPF_FIN_SENT is
 * set and snd_una == snd_end + 1: tcp_input looks after tcp_ack and changes the state. window  Each segment that
 * carries an ACK asks tcp_window (a SYN: tcp_syn_window) and then calls tcp_ack_sent. tcp_ack updates snd_wnd, snd_wl1,
 * snd_wl2, snd_max_wnd from the segment (g->wnd << snd_wscale). data    Each segment with new data calls tcp_data_sent.
 *   timers  TIMER_DELACK due: tcp_delack_due. TIMER_LIFE due in FIN-WAIT-2 or TIME-WAIT: tcp_life_due.
 */
#ifndef VD_TCP_INTERNAL_H
#define VD_TCP_INTERNAL_H

#include <string.h>

#include "engine/engine.h"
#include "engine/route.h"

/* Sequence arithmetic (RFC 9293, 3.4). */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}
static inline bool seq_leq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}
static inline bool seq_gt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}
static inline bool seq_geq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}

#define TH_FIN 0x01u
#define TH_SYN 0x02u
#define TH_RST 0x04u
#define TH_PSH 0x08u
#define TH_ACK 0x10u
#define TH_URG 0x20u
#define TH_ECE 0x40u
#define TH_CWR 0x80u

#define TCP_MSS_FLOOR 48u /* a peer's MSS below this is taken as this (SACK panic class) */
#define TCP_OOO_MAX 1024u /* pkts in an out-of-order queue */

/* What a segment's options said. */
struct tcp_opts {
	bool has_mss, has_wscale, sack_ok, has_ts;
	uint16_t mss;
	uint8_t wscale; /* clamped to 14 */
	uint32_t ts_val, ts_ecr;
	uint32_t sacks; /* blocks, at most 4 */
	struct {
		uint32_t start, end;
	} sack[4];
};

/* A received segment, parsed and bounds-checked. */
struct segment {
	struct frame *f;
	uint32_t seq, ack, len; /* len: payload bytes */
	uint32_t payload;       /* offset in the frame */
	uint32_t wnd;           /* as in the header, not scaled */
	uint16_t urg;
	uint8_t flags; /* TH_* */
	uint32_t isn;  /* of the answer to a SYN that takes over from TIME-WAIT; 0: free choice */
	struct tcp_opts o;
};

/* tcp_options.c */
/* Parse n bytes of options; never fails: what is malformed is ignored. */
void tcp_parse_options(const uint8_t *opt, uint32_t n, struct tcp_opts *o);
uint32_t tcp_build_syn_options(struct engine *e, const struct sock *k, uint8_t *to, bool syn_ack);
/* Timestamps and SACK blocks for an established connection's segment; bytes written, multiple of 4, at most 40. */
uint32_t tcp_build_options(struct engine *e, struct sock *k, uint8_t *to);
uint32_t tcp_options_len(const struct sock *k);                    /* of a data segment without SACK blocks */
uint32_t tcp_ts_now(const struct engine *e, const struct sock *k); /* ms clock plus ts_offset */

/* tcp_input.c: a segment for a connection in any state but CLOSED, LISTEN and SYN-SENT */
void tcp_conn_input(struct engine *e, struct sock *k, struct segment *g);

/* tcp_ooo.c */
/* Queue an out-of-order piece [seq, seq+len) at payload offset off of the frame. 0, -ENOBUFS when bounded out. */
int tcp_ooo_insert(struct engine *e, struct sock *k, struct frame *f, uint32_t off, uint32_t seq, uint32_t len);
/* Move what has become in-order (rcv_nxt) to rxq, advancing rcv_nxt. Bytes moved. */
uint32_t tcp_ooo_drain(struct engine *e, struct sock *k);
void tcp_ooo_free(struct engine *e, struct sock *k);
/* SACK blocks to report (RFC 2018 4: newest first; RFC 2883 D-SACK before them). Number stored, at most max. */
int tcp_sack_blocks(struct engine *e, struct sock *k, uint32_t (*out)[2], int max);

/* tcp_listen.c */
void tcp_listen_input(struct engine *e, struct sock *listener, struct segment *g);
/* An embryo's handshake is complete: move it to the accept queue. False: no room (the ACK is ignored). */
bool tcp_embryo_established(struct engine *e, struct sock *child);
void tcp_embryo_drop(struct engine *e, struct sock *child);
/* A SYN that opens at once (tcp_open.c), our number being isn: its connection waits to be accepted. False: no socket */
bool tcp_listen_open(struct engine *e, struct sock *l, const struct segment *g, uint32_t isn, uint32_t wscale);
/* After the listener accepted or closed. */
void tcp_listen_close(struct engine *e, struct sock *listener);
uint32_t tcp_new_isn(struct engine *e, const struct endpoint *local, const struct endpoint *remote); /* RFC 6528 */

/* tcp_recv.c */
/* An ACK that is owed may wait until the program has answered or has nothing to do. */
bool tcp_ack_may_wait(const struct engine *e, const struct sock *k);
void tcp_ack_soon(struct stack *s, struct sock *k);
void tcp_ack_soon_remove(struct stack *s, struct sock *k);         /* before the socket is freed */
uint32_t tcp_syn_window(struct engine *e, struct sock *k);         /* of a SYN: at most 65535, not to be scaled */
uint32_t tcp_first_window(const struct stack *s, uint32_t rcvbuf); /* the same for one that there is no socket for */
/* Count what k has promised to take (tcp_recv.c); _none: nothing more. */
void tcp_promise_changed(struct stack *s, struct sock *k);
void tcp_promise_none(struct stack *s, struct sock *k);
/* The program has read (rcvq_copied is counted already; copied: more than the urgent byte): buffer size, ACK, window.
 */
void tcp_was_read(struct engine *e, struct sock *k, bool copied);
void tcp_delack_due(struct engine *e, struct sock *k); /* the delayed ACK's time has come: sends it */
uint32_t tcp_window(struct engine *e, struct sock *k); /* receive window to advertise now, bytes, never shrinking */
/* In-order data was queued: receiver's round trip, segment size estimate, and what ACK is owed for it. */
void tcp_rcv_data_arrived(struct engine *e, struct sock *k, uint32_t bytes, bool psh);
bool tcp_window_open(const struct engine *e,
		     const struct sock *k);       /* the reader keeps up: no need to wait for its ACK */
void tcp_quickack(struct sock *k, uint32_t most); /* the next few ACKs are sent at once */

/* tcp_segment.c: text, urgent pointer and FIN of an acceptable segment */
void tcp_rx_in_order(struct engine *e, struct sock *k, struct segment *g); /* fast path: all of it, in order */
void tcp_rx_urgent(struct engine *e, struct sock *k, const struct segment *g);
bool tcp_rx_text(struct engine *e, struct sock *k, struct segment *g); /* false: the connection is gone */
void tcp_rx_ack_policy(struct engine *e, struct sock *k);              /* send, or delay, the ACK that is owed */
void tcp_burst_end(struct engine *e); /* no more frames have come: the ACK that waited for them */

/* tcp_state.c */
void tcp_sock_init(struct engine *e, struct sock *k); /* sock_alloc: a new TCP socket's control block */
void tcp_free(struct engine *e, struct sock *k);      /* leave all queues and lists, free the slot */
/* Set up the receiver's half and what the peer's SYN offered (both ways of opening). */
void tcp_open_window(struct engine *e, struct sock *k);
void tcp_take_syn_options(struct engine *e, struct sock *k, const struct tcp_opts *o);
/* FIN-WAIT-2 begins; an orphan must not stay in it for ever. False: it is gone. */
bool tcp_fin_wait_2(struct engine *e, struct sock *k);
/* On a path that keeps order and loses nothing, timestamps and TIME-WAIT protect against nothing. */
bool tcp_lossless(const struct engine *e, uint32_t vnic);
/* TIMER_LIFE in FIN-WAIT-2 or TIME-WAIT: the socket is done. */
void tcp_life_due(struct engine *e, struct sock *k);
/* Give up the oldest TIME-WAIT to make room. False: there is none. */
bool tcp_recycle(struct engine *e);
/* Asserts what must always hold (tests, fuzzer). */
void tcp_check(struct engine *e, struct sock *k);
void tcp_set_state(struct engine *e, struct sock *k, enum tcp_state state);
/* The connection is over: so_error, timers off, queues (tx, ooo) freed, notify; frees the socket if orphaned. */
void tcp_done(struct engine *e, struct sock *k, int err);
void tcp_enter_time_wait(struct engine *e, struct sock *k);
void tcp_set_mss(struct engine *e, struct sock *k);     /* from peer_mss, pmtu, options */
void tcp_established(struct engine *e, struct sock *k); /* handshake complete, both ways of opening */

/* tcp_send.c: space came back: tells the writer by Linux's rule. */
void tcp_write_space(struct engine *e, struct sock *k);

/* tcp_output.c */
/* Send what may go now: retransmissions first, then new data, FIN; then an ACK if one is owed. */
void tcp_output(struct engine *e, struct sock *k);
void tcp_send_ack(struct engine *e, struct sock *k);
void tcp_send_syn(struct engine *e, struct sock *k);              /* SYN, or SYN-ACK in SYN_RECEIVED */
void tcp_resend_syn_ack(struct engine *e, struct sock *k);        /* the peer's SYN came again: not a try of ours */
void tcp_send_probe(struct engine *e, struct sock *k, bool data); /* zero-window (data) or keepalive probe */
void tcp_send_challenge_ack(struct engine *e, struct sock *k);
/* RST for a connection of ours (snd_nxt), or in answer to a segment that has none (RFC 9293 3.10.7.1). */
void tcp_send_rst(struct engine *e, struct sock *k);
void tcp_reply_rst(struct engine *e, const struct segment *g);
/* Stateless SYN-ACK (cookies). */
void tcp_reply_syn_ack(struct engine *e, struct sock *listener, const struct segment *g, uint32_t isn,
		       const uint8_t *opts, uint32_t opts_len);

/* tcp_ecn.c */
#define TOS_ECN 0x03u /* the ECN field of the IP header (RFC 3168 5) */
#define TOS_ECT0 0x02u
#define TOS_CE 0x03u
uint8_t tcp_ecn_syn_flags(struct engine *e, struct sock *k, bool syn_ack);            /* to add to our SYN's flags */
void tcp_ecn_take_syn(struct engine *e, struct sock *k, const struct segment *g);     /* a SYN that wants an answer */
void tcp_ecn_take_syn_ack(struct engine *e, struct sock *k, const struct segment *g); /* the answer to ours */
void tcp_ecn_data_arrived(struct engine *e, struct sock *k, const struct segment *g); /* new data in the window */
static inline uint8_t tcp_ecn_new_data(struct tcb *t, uint8_t *flags)
{
	if (!(t->flags & TCPF_ECN))
		return 0;
	if (t->ecn & TCP_ECN_CWR_DUE)
		*flags |= TH_CWR;
	t->ecn &= (uint8_t)~TCP_ECN_CWR_DUE;
	return TOS_ECT0;
}

/* tcp_fast.c: short ways over a wire, which leave everything unusual to the others */
void tcp_fast_init(struct engine *e, struct sock *k); /* the connection is established */

/* tcp_ack.c: an acceptable ACK (snd_una <= ack <= snd_max): scoreboard, RTT, cc, recovery, free space. Called by
 * tcp_input after the ACK's acceptability and before data. Does not output. */
void tcp_ack(struct engine *e, struct sock *k, const struct segment *g);
void tcp_old_ack(struct engine *e, struct sock *k, const struct segment *g); /* one below snd_una */
uint32_t tcp_in_flight(const struct sock *k);                                /* RFC 6675 pipe, bytes */
void tcp_rtt_sample(struct engine *e, struct sock *k, uint64_t rtt_us);

/* tcp_recovery.c */
struct ack_result; /* tcp_send.h */
void tcp_recovery_on_ack(struct engine *e, struct sock *k, const struct ack_result *r);
void tcp_recovery_on_rto(struct engine *e, struct sock *k);
/* Next pkt to retransmit, NULL none. */
struct pkt *tcp_next_retrans(struct engine *e, struct sock *k);

/* tcp_timer.c */
void tcp_arm_rto(struct engine *e, struct sock *k); /* (re)start from now if anything is outstanding, else clear */
void tcp_arm_probe(struct engine *e, struct sock *k);

/* tcp_cc.c */
struct tcp_cc_ops {
	const char *name;
	void (*init)(struct engine *e, struct sock *k);
	void (*acked)(struct engine *e, struct sock *k, uint32_t bytes); /* not in recovery: grow cwnd */
	uint32_t (*ssthresh)(struct engine *e, struct sock *k);          /* on loss or ECN */
	void (*rto)(struct engine *e, struct sock *k);
	void (*idle)(struct engine *e, struct sock *k); /* restart after idle (RFC 5681 4.1) */
	void (*undo)(struct engine *e, struct sock *k);
};
extern const struct tcp_cc_ops tcp_cubic, tcp_newreno;
const struct tcp_cc_ops *tcp_cc_ops(const struct sock *k);

/* The IP version on the wire of a connected socket (an IPv6 socket may have a v4-mapped peer). */
static inline bool endpoint_is_v4(const struct endpoint *p)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(p->addr, mapped, sizeof(mapped)) == 0;
}

/* The time that an API call gives. */
static inline void tcp_set_now(struct engine *e, uint64_t now_us)
{
	if (now_us > e->s->now_us)
		e->s->now_us = now_us;
}

/* A segment with ACK went out: nothing is owed any more. */
static inline void tcp_ack_sent(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	(void)e;
	t->rcv_wup = t->rcv_nxt;
	t->last_ack_sent = t->rcv_nxt;
	t->flags &= ~(TCPF_ACK_NOW | TCPF_ACK_DELAYED | TCPF_PUSHED | TCPF_PUSHED2);
	t->quick_acks -= t->quick_acks != 0;
	t->timer[TIMER_DELACK].deadline_us = 0; /* lazy, see timer.h */
}

/* New data goes out. Soon after data came in: this is a conversation, its replies carry the ACKs. */
static inline void tcp_data_sent(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (e->s->now_us - t->last_data_us < (uint64_t)e->s->cfg.defaults.delack_ms * 1000)
		t->flags |= TCPF_PINGPONG;
	t->last_snd_us = e->s->now_us;
}

#endif
