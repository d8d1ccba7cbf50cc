/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP (RFC 9293): the control block and the calls of the socket layer.
 */
#ifndef VD_TCP_H
#define VD_TCP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/timer.h"

struct engine;
struct sock;
struct endpoint;
struct iovec;
struct frame;

/* Numbered as Linux's TCP_INFO does. */
enum tcp_state {
	TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECEIVED, TCP_FIN_WAIT_1, TCP_FIN_WAIT_2, TCP_TIME_WAIT,
	TCP_CLOSED, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN, TCP_CLOSING, TCP_STATES
};
extern const char *const tcp_state_name[TCP_STATES];

enum tcp_cc_id { TCP_CC_CUBIC, TCP_CC_NEWRENO, TCP_CC_COUNT };

/* Flags of tcp_send and tcp_recv. */
#define TCP_F_OOB 0x01      /* MSG_OOB */
#define TCP_F_MORE 0x02     /* MSG_MORE */
#define TCP_F_PEEK 0x04     /* MSG_PEEK */
#define TCP_F_TRUNC 0x08    /* MSG_TRUNC: discard instead of copying */

struct tcb {
	uint8_t state; /* enum tcp_state */
	struct timer timer[TIMER_KINDS];
	/* the TCP author completes this */
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
uint32_t tcp_accept_pending(struct engine *e, const struct sock *k);

/* Queue bytes to send, starting `skip` bytes into the iovec, and output what may go. Bytes taken, or
 * -EAGAIN (buffer full), -EPIPE (shut for writing), -ENOTCONN, or so_error negated (and cleared). */
ssize_t tcp_send(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us);
/* Read in-order bytes. Bytes copied; 0 end of stream; -EAGAIN; so_error negated (and cleared); with TCP_F_OOB
 * -EINVAL when there is no urgent byte. Stops at the urgent mark as the kernel does. */
ssize_t tcp_recv(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us);
/* how: 0 read, 1 write, 2 both. 0, -ENOTCONN. */
int tcp_shutdown(struct engine *e, struct sock *k, int how, uint64_t now_us);
/* The last descriptor is closed: FIN, or RST when unread data is left or linger is 0; the engine frees the
 * socket when the protocol is done with it. On a listener: children that were not accepted are reset. */
void tcp_close(struct engine *e, struct sock *k, uint64_t now_us);
/* Reset now; so_error is set to err (0: none). */
void tcp_abort(struct engine *e, struct sock *k, int err, uint64_t now_us);
/* The vNIC under an open connection is gone; clean says that all we sent was read. */
void tcp_vnic_dead(struct engine *e, struct sock *k, uint64_t now_us);

/* Level readiness now (EV_*), as Linux's tcp_poll gives it. */
uint32_t tcp_poll(struct engine *e, const struct sock *k);
uint32_t tcp_inq(struct engine *e, const struct sock *k);   /* FIONREAD */
uint32_t tcp_outq(struct engine *e, const struct sock *k);  /* SIOCOUTQ: not yet acknowledged */
bool tcp_atmark(struct engine *e, const struct sock *k);    /* SIOCATMARK */

/* Options that need more than storing a field. Values in Linux's units. */
void tcp_set_nodelay(struct engine *e, struct sock *k, bool on, uint64_t now_us); /* on: pushes what waits */
void tcp_set_cork(struct engine *e, struct sock *k, bool on, uint64_t now_us);
void tcp_set_keepalive(struct engine *e, struct sock *k, bool on, uint64_t now_us);
int tcp_set_cc(struct engine *e, struct sock *k, const char *name); /* -ENOENT unknown */
const char *tcp_cc_name(const struct sock *k);

/* For TCP_INFO and tools. */
struct tcp_stats {
	uint32_t state, mss, rcv_mss, pmtu, cwnd, ssthresh, srtt_us, rttvar_us, rto_us, unacked, sacked, lost,
		retrans_total, rcv_space, snd_wnd, rcv_wnd, snd_wscale, rcv_wscale, timestamps, sack, ca_state,
		backoff, min_rtt_us;
	uint64_t bytes_sent, bytes_acked, bytes_received, segs_out, segs_in, bytes_retrans;
};
void tcp_get_stats(const struct engine *e, const struct sock *k, struct tcp_stats *out);

/* Timers call back here (timer.c). */
void tcp_timer(struct engine *e, struct sock *k, enum timer_kind kind);

/* ICMP errors that concern a connection (icmp.c has checked the quote): RFC 5927, soft errors only. */
void tcp_icmp_error(struct engine *e, struct sock *k, uint32_t seq, int err, bool hard);
void tcp_icmp_mtu(struct engine *e, struct sock *k, uint32_t seq, uint32_t mtu);

#endif
