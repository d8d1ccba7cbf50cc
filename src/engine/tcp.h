/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP (RFC 9293): the control block and the calls of the socket layer.
 *
 * Every call requires the stack's lock. now_us is the time (clock_us), never before that of an earlier call. Names of
 * variables are the RFCs'. Sequence numbers are in host order and compared with seq_lt and its kin (tcp_internal.h);
 * windows and amounts are bytes (segments where it says so), spans are in the unit that ends their name (_us, _ms, _s).
 * Results are 0 or more, or a negative errno. A socket that its program has closed is freed as soon as the protocol is
 * done with it: after tcp_close and tcp_abort it may be gone.
 */
#ifndef VD_TCP_H
#define VD_TCP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/pkt.h"
#include "engine/timer.h"

struct engine;
struct sock;
struct endpoint;
struct iovec;
struct frame;

/* Numbered as Linux's TCP_INFO does. */
enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECEIVED,
	TCP_FIN_WAIT_1,
	TCP_FIN_WAIT_2,
	TCP_TIME_WAIT,
	TCP_CLOSED,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_STATES
};
extern const char *const tcp_state_name[TCP_STATES];

enum tcp_cc_id { TCP_CC_CUBIC, TCP_CC_NEWRENO, TCP_CC_COUNT };

/* Flags of tcp_send and tcp_recv. */
#define TCP_F_OOB 0x01   /* MSG_OOB */
#define TCP_F_MORE 0x02  /* MSG_MORE */
#define TCP_F_PEEK 0x04  /* MSG_PEEK */
#define TCP_F_TRUNC 0x08 /* MSG_TRUNC: discard instead of copying */
#define TCP_F_EOR 0x10   /* MSG_EOR: later writes go in segments of their own */

/* tcb.flags */
#define TCPF_NODELAY 0x0001u
#define TCPF_CORK 0x0002u
#define TCPF_TS 0x0004u         /* timestamps negotiated */
#define TCPF_SACK 0x0008u       /* SACK negotiated */
#define TCPF_WSCALE 0x0010u     /* window scaling negotiated */
#define TCPF_FIN_QUEUED 0x0020u /* FIN follows the last byte of txq */
#define TCPF_FIN_SENT 0x0040u
#define TCPF_FIN_RCVD 0x0080u /* and everything before it */
#define TCPF_ACK_NOW 0x0100u
#define TCPF_ACK_DELAYED 0x0200u
#define TCPF_URG_VALID 0x0400u    /* rcv_up is ahead of, or at, what was read */
#define TCPF_URG_READ 0x0800u     /* the urgent byte was taken with MSG_OOB */
#define TCPF_SND_URG 0x1000u      /* snd_up is valid */
#define TCPF_QUICKACK 0x2000u     /* TCP_QUICKACK asked for */
#define TCPF_PUSHED 0x4000u       /* PSH data received since the last ACK sent */
#define TCPF_PINGPONG 0x8000u     /* interactive: replies carry the ACKs */
#define TCPF_ECN 0x10000u         /* RFC 3168 negotiated */
#define TCPF_EMBRYO 0x20000u      /* child of a listener, not yet accepted */
#define TCPF_COOKIE 0x40000u      /* made from a SYN cookie */
#define TCPF_KEEP_WAIT 0x80000u   /* a keepalive probe is unanswered */
#define TCPF_CONNECTING 0x100000u /* connect() has not yet reported its outcome */
#define TCPF_RST_SENT 0x200000u
#define TCPF_PUSHED2 0x400000u        /* a second small segment since the last ACK sent */
#define TCPF_FIN_OOO 0x800000u        /* a FIN waits at fin_seq for what is missing before it */
#define TCPF_PEER_GONE 0x1000000u     /* the vNIC died after all was said: a write ends it (tcp_send.c) */
#define TCPF_URG_BYTE 0x2000000u      /* the urgent byte itself has arrived (urg_byte) */
#define TCPF_TW_LISTED 0x4000000u     /* orphan in TIME-WAIT: in the stack's list, may be recycled */
#define TCPF_NOSPACE 0x8000000u       /* not writable when last looked at: tell when it is again */
#define TCPF_NOBUF 0x10000000u        /* a writer was refused for want of a tx buffer: not writable until some return */
#define TCPF_FIN_LOST 0x20000000u     /* the FIN is to be sent again */
#define TCPF_CWND_LIMITED 0x40000000u /* in this round trip cwnd held data back */
#define TCPF_ACK_SOON 0x80000000u     /* in the stack's list of ACKs that wait for the program to be idle */

/* tcb.ecn (RFC 3168 6.1) */
#define TCP_ECN_ASKED 0x01u   /* our SYN asked for it */
#define TCP_ECN_ECHO 0x02u    /* CE was received: our ACKs say ECE until the peer's CWR comes */
#define TCP_ECN_CWR_DUE 0x04u /* cwnd was brought down: the next new data says CWR */

/* sock_defaults.ecn; the first is Linux's default */
enum tcp_ecn_use { TCP_ECN_ANSWER, TCP_ECN_ASK, TCP_ECN_NEVER };

/* tcb.ca_state, numbered as Linux's TCP_INFO does */
enum tcp_ca { TCP_CA_OPEN, TCP_CA_DISORDER, TCP_CA_CWR, TCP_CA_RECOVERY, TCP_CA_LOSS };

/* What a connection with data in its send queue is doing. */
enum tcp_chrono { TCP_CHRONO_NONE, TCP_CHRONO_BUSY, TCP_CHRONO_RWND, TCP_CHRONO_SNDBUF };

struct tcb {
	uint8_t state; /* enum tcp_state */
	uint8_t cc;    /* enum tcp_cc_id */
	uint8_t snd_wscale, rcv_wscale;
	uint32_t flags; /* TCPF_* */

	/* receive sequence space (RFC 9293, 3.3.1) */
	uint32_t rcv_nxt, rcv_wnd, rcv_up, irs;
	uint32_t rcv_adv;       /* right edge of the window that we last advertised */
	uint32_t rcv_wup;       /* rcv_nxt when we last sent an ACK */
	uint32_t rcv_read;      /* sequence number of the next byte the program reads */
	uint32_t ack_soon_next; /* TCPF_ACK_SOON: the list's next socket */
	uint32_t rcv_mss;       /* estimate of the peer's segment size */
	uint32_t promised;      /* rcv_adv - rcv_read as it is counted in stack.promised */

	/* send sequence space */
	uint32_t snd_una, snd_nxt, snd_wnd, snd_wl1, snd_wl2, snd_up, iss;
	uint32_t snd_max;     /* highest sequence number ever sent, FIN included (snd_nxt <= snd_max) */
	uint32_t snd_end;     /* sequence number behind the last byte in txq (FIN not counted) */
	uint32_t snd_max_wnd; /* largest window the peer offered */
	struct pkt_queue txq; /* snd_una .. snd_end, each pkt at most mss bytes or one buffer */
	uint32_t send_head;   /* first pkt of txq never sent, 0 none */
	uint32_t mss;         /* payload bytes per segment now (path MTU and peer's MSS, options subtracted) */
	uint32_t peer_mss, adv_mss, pmtu;

	struct timer timer[TIMER_KINDS];

	/* congestion control and recovery; bytes unless said otherwise */
	uint8_t ca_state; /* enum tcp_ca */
	uint8_t backoff;  /* exponent of the RTO */
	uint8_t probes;   /* zero-window or keepalive probes unanswered */
	uint8_t dupacks;
	uint8_t undo_ok; /* spurious recovery can be undone */
	uint8_t syn_tries;
	uint8_t quick_acks; /* ACKs to send at once at the start of a connection */
	uint8_t frto;       /* RFC 5682 step, 0 off */
	uint32_t cwnd, ssthresh, prior_cwnd, prior_ssthresh, undo_retrans;
	uint32_t recover;               /* snd_nxt when recovery began */
	uint32_t sacked, lost, retrans; /* bytes marked so in txq */
	uint32_t fack;                  /* highest sequence number SACKed */
	uint32_t prr_delivered, prr_out, prr_flight;
	uint32_t app_limited;
	uint64_t delivered;
	uint64_t cc_priv[8]; /* the algorithm's own state */

	/* round trip time (RFC 6298), us */
	uint32_t srtt_us, rttvar_us, rto_us, min_rtt_us;
	uint32_t rtt_seq;                  /* without timestamps: the segment being timed */
	uint64_t rtt_sent_us;              /* 0: none is timed */
	uint64_t last_rcv_us, last_snd_us; /* keepalive, idle restart */
	uint64_t first_retrans_us;         /* user timeout, retries2 */

	/* timestamps (RFC 7323) */
	uint32_t ts_recent, ts_offset, last_ack_sent;
	uint64_t ts_recent_us;

	/* out-of-order queue (tcp_ooo.c): bounded tree of pkts by seq */
	uint32_t ooo_root, ooo_count, ooo_bytes;
	uint32_t dsack_start, dsack_end; /* to report; equal: none */
	uint32_t sack_recent[4];         /* starts of the blocks changed last, newest first */

	/* receive buffer auto-tuning */
	uint32_t rcvq_copied; /* bytes the program read in this round trip */
	uint32_t rcvq_space;
	uint64_t rcvq_time_us;

	/* listener: queues of children by index; child: where it hangs */
	uint32_t parent; /* listener's index, 0 none */
	uint32_t parent_gen;
	uint32_t accept_head, accept_tail, accept_count; /* established, chained by q_next */
	uint32_t embryo_head, embryo_count;              /* SYN-RECEIVED, chained by q_next/q_prev */
	uint32_t q_next, q_prev;
	uint32_t backlog;
	uint32_t open_offered; /* listener: places promised to those who open at once (tcp_open.c) */

	/* receiver's own particulars */
	uint32_t fin_seq;                 /* TCPF_FIN_OOO: sequence number of the FIN itself */
	uint32_t rcv_rtt_seq, rcv_rtt_us; /* receiver's round trip estimate: a window's worth of data */
	uint64_t rcv_rtt_start_us;
	uint64_t last_data_us; /* when data last came in */
	int32_t soft_error;    /* ICMP's, for the day it times out; 0 none */
	uint8_t urg_byte;
	uint8_t ecn; /* TCP_ECN_* (tcp_ecn.c) */
	/* sender's: RACK's reordering window in quarters of the smallest round trip, less one; how many recoveries that
	 * stays */
	uint8_t reo_more, reo_persist;
	uint64_t cookie_us; /* listener: when a SYN cookie was last sent; 0 never */

	/* sender's own particulars */
	uint32_t snd_sml;                   /* end of the last small segment sent (Minshall) */
	uint32_t retrans_ts;                /* our timestamp at the first retransmission of this recovery (Eifel) */
	uint32_t rack_end_seq, rack_rtt_us; /* RFC 8985: of the segment sent last of those delivered */
	uint64_t rack_sent_us;
	uint32_t sacked_pkts; /* pkts of txq with PKT_SACKED; without SACK: duplicate ACKs that count as such */
	uint32_t usage_seq, usage_max; /* most in flight in the round trip that ends with usage_seq */
	uint32_t tlp_end;              /* snd_nxt when a tail loss probe was sent */
	uint32_t reo_round;            /* snd_nxt when reo_more last grew */
	uint8_t rto_kind;              /* what TIMER_RTO stands for: enum tcp_rto_kind */
	uint8_t reord_seen;            /* RACK: so often reordering was seen */
	uint8_t tlp_out;               /* a tail loss probe is unanswered: 1 new data, 2 a retransmission */
	uint8_t rtos;                  /* retransmission timeouts in a row */
	uint16_t reordering;           /* greatest distance of it seen, in segments; at least TCP_DUPTHRESH counts */
	uint8_t fin_alone;             /* the FIN went in a segment of its own */
	uint32_t burst_seq;            /* where the last burst of txq begins, which a write may complete */
	uint32_t push_seq;             /* end of the last segment queued with PSH */

	/* challenge ACKs (RFC 5961, per socket) and options */
	uint64_t challenge_window_us;
	uint32_t challenge_count;
	uint32_t keep_idle_s, keep_intvl_s, keep_cnt;
	uint32_t user_timeout_ms, linger2_s, syncnt, maxseg, notsent_lowat, defer_accept_s;

	/* short ways over a wire (tcp_fast.c) */
	uint64_t rtt_next_us; /* the next ACK that samples the round trip comes after this */
	uint8_t hdr_len;      /* of the headers kept in hdr; 0: none, no short ways */
	uint8_t hdr_pad;
	uint16_t hdr_tos_ttl; /* of the socket when hdr was made */
	uint8_t hdr[80];      /* Ethernet, IP and TCP header of our segments; ends at the end */

	/* searching for a larger path MTU after a black hole (tcp_route.c); sizes are those of IP packets */
	uint64_t mtu_try_us;                   /* when to send a larger segment, 0: never */
	uint32_t mtu_bad;                      /* the least that is taken for too large */
	uint32_t mtu_probe;                    /* being tried, 0: none ... */
	uint32_t mtu_probe_seq, mtu_probe_end; /* ... by these bytes */

	/* statistics */
	uint64_t chrono_us[3],
	    chrono_since_us; /* TCP_INFO, on a network: times of enum tcp_chrono but none; of the present one */
	uint8_t chrono;
	uint64_t segs_out, segs_in, bytes_acked, bytes_received, bytes_sent, bytes_retrans;
	uint32_t retrans_total;
};

/* Active open from local (port set, address set) to remote over vnic. 0 (SYN sent), -errno. Completion shows
 * as EV_OUT, or so_error. */
int tcp_connect(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *local,
		const struct endpoint *remote, uint64_t now_us);
/* Passive open; k->local says where. Called again it changes the backlog. */
int tcp_listen(struct engine *e, struct sock *k, int backlog);
/* The next established child (its index), or -EAGAIN, or -EINVAL if not listening. The child is held by
 * nobody yet: the caller sets holders. */
int tcp_accept(struct engine *e, struct sock *k);
/* How many wait to be accepted; 0 also where the next came over a vNIC that is not mapped in this process. */
uint32_t tcp_accept_pending(struct engine *e, const struct sock *k);
/* That vNIC, which a relative has made and this process must map before it can accept; VNIC_NONE: not so. */
uint32_t tcp_accept_elsewhere(struct engine *e, const struct sock *k);

/* Queue bytes to send, starting `skip` bytes into the iovec, and output what may go. Bytes taken, or
 * -EAGAIN (buffer full), -EPIPE (shut for writing), -ENOTCONN, or so_error negated (and cleared). */
ssize_t tcp_send(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us);
/* Read in-order bytes. Bytes copied; 0 end of stream; -EAGAIN; so_error negated (and cleared); with TCP_F_OOB
 * -EINVAL when there is no urgent byte. Stops at the urgent mark as the kernel does. */
ssize_t tcp_recv(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us);
/* The short ways of both (tcp_fast.c), which they try themselves: one buffer, no flags. 0: nothing was done. */
ssize_t tcp_fast_send(struct engine *e, struct sock *k, const void *data, size_t len, uint64_t now_us);
/* The shortest, which needs no clock: bytes added to those that Nagle's algorithm holds. For sockets with a send_head.
 */
ssize_t tcp_fast_gather(struct engine *e, struct sock *k, const void *data, size_t len);
ssize_t tcp_fast_recv(struct engine *e, struct sock *k, void *to, size_t len, uint64_t now_us);
/* how: 0 read, 1 write, 2 both. 0, -ENOTCONN. */
int tcp_shutdown(struct engine *e, struct sock *k, int how, uint64_t now_us);
/* The last descriptor is closed: FIN, or RST when unread data is left or linger is 0; the engine frees the
 * socket when the protocol is done with it. On a listener: children that were not accepted are reset. */
void tcp_close(struct engine *e, struct sock *k, uint64_t now_us);
/* Reset now; so_error is set to err (0: none). */
void tcp_abort(struct engine *e, struct sock *k, int err, uint64_t now_us);
/* Linux's tcp_disconnect: whatever it was, afterwards a socket that can be bound, listen and connect. A connection is
 * reset, and so_error then ECONNRESET. */
void tcp_disconnect(struct engine *e, struct sock *k, uint64_t now_us);
/* The vNIC under an open connection is gone; clean says that all we sent was read. */
void tcp_vnic_dead(struct engine *e, struct sock *k, uint64_t now_us);

/* Level readiness now (EV_*), as Linux's tcp_poll gives it. */
uint32_t tcp_poll(struct engine *e, const struct sock *k);
uint32_t tcp_inq(struct engine *e, const struct sock *k);  /* FIONREAD */
uint32_t tcp_outq(struct engine *e, const struct sock *k); /* SIOCOUTQ: not yet acknowledged */
bool tcp_atmark(struct engine *e, const struct sock *k);   /* SIOCATMARK */

/* The program is idle: send the ACKs that waited for that. Worth a call if stack.ack_soon is not 0. */
void tcp_flush_acks(struct engine *e);

/* Options that need more than storing a field. Values in Linux's units. */
void tcp_set_nodelay(struct engine *e, struct sock *k, bool on, uint64_t now_us); /* on: pushes what waits */
void tcp_set_quickack(struct engine *e, struct sock *k, int v);
void tcp_set_cork(struct engine *e, struct sock *k, bool on, uint64_t now_us);
void tcp_set_keepalive(struct engine *e, struct sock *k, bool on, uint64_t now_us);
int tcp_set_cc(struct engine *e, struct sock *k, const char *name); /* -ENOENT unknown */
const char *tcp_cc_name(const struct sock *k);

/* For TCP_INFO and tools. */
struct tcp_stats {
	uint32_t state, mss, rcv_mss, pmtu, cwnd, ssthresh, srtt_us, rttvar_us, rto_us, unacked, sacked, lost,
	    retrans_total, rcv_space, snd_wnd, rcv_wnd, snd_wscale, rcv_wscale, timestamps, sack, ca_state, backoff,
	    min_rtt_us;
	uint64_t bytes_sent, bytes_acked, bytes_received, segs_out, segs_in, bytes_retrans;
};
void tcp_get_stats(const struct engine *e, const struct sock *k, struct tcp_stats *out);

/* Timers call back here (timer.c). */
void tcp_timer(struct engine *e, struct sock *k, enum timer_kind kind);

/* ICMP errors that concern a connection (icmp.c has checked the quote): RFC 5927, soft errors only. */
void tcp_icmp_error(struct engine *e, struct sock *k, uint32_t seq, int err, bool hard);
void tcp_icmp_mtu(struct engine *e, struct sock *k, uint32_t seq, uint32_t mtu);

#endif
