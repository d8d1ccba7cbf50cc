/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program reads: copying out of rxq, the urgent mark, the window that follows, and the size of the receive buffer.
 *
 * rxq holds [rcv_read, rcv_nxt) (less a FIN) in order; its first pkt begins at rcv_read, a pkt is freed as soon as its
 * last byte is read, which gives the buffer back to the peer.
 *
 * Window (RFC 9293 3.8.6.2.2, RFC 7323 2): rcv_adv is the right edge promised so far and never moves back; it moves on
 * only when a segment, or half of the buffer, can be gained (silly window avoidance). Only payload counts
 * against rcvbuf, and what is out of order lies below rcv_adv, so rxq and the out-of-order queue together keep
 * within rcvbuf (plus less than one unit of the scaled window, see tcp_window).
 *
 * ACKs after a read follow Linux's tcp_cleanup_rbuf: when everything is read and the peer has pushed, the peer may be
 * waiting (Nagle) for the ACK, so it goes out at once, unless replies usually carry it (PINGPONG).
 */
#include "engine/bytes.h"
#include "engine/tcp_internal.h"

#define SHARE_MIN PRIVATE_BUF_SIZE /* bytes: one buffer's */

static uint32_t min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t window_left(const struct tcb *t)
{
	return seq_gt(t->rcv_adv, t->rcv_nxt) ? t->rcv_adv - t->rcv_nxt : 0;
}

/*
 * All receive queues share the stack's private buffers: what lies in place in a wire's buffers may have to be copied
 * there. So that they never run out, every byte that a connection holds unread or has offered to take is counted
 * (stack.promised), and no connection offers more than makes a quarter of what the others leave of half of that memory
 * (stack.share, a dynamic threshold). With n connections that nobody reads, each comes to 1/(n + 4) of that half. The
 * other half backs the smallest window, SHARE_MIN, which everyone gets who has read what he had. What was offered is
 * never taken back: a share that has shrunk only means that the window does not move on.
 */
static void set_share(struct stack *s)
{
	uint64_t half = (uint64_t)s->private_pool.limit * PRIVATE_BUF_SIZE / 2;
	uint64_t share = half > s->promised ? (half - s->promised) / 4 : 0;

	s->share = share > UINT32_MAX ? UINT32_MAX : share < SHARE_MIN ? SHARE_MIN : (uint32_t)share;
}

void tcp_share_init(struct stack *s)
{
	set_share(s);
}

static void promise(struct stack *s, struct tcb *t, uint32_t bytes)
{
	s->promisers += (bytes != 0) - (t->promised != 0);
	s->promised += (uint64_t)bytes - t->promised;
	t->promised = bytes;
	set_share(s);
}

void tcp_promise_changed(struct stack *s, struct sock *k)
{
	struct tcb *t = &k->tcp;
	bool over = t->state == TCP_CLOSED || t->state == TCP_TIME_WAIT || t->flags & TCPF_FIN_RCVD;

	promise(s, t, over || !seq_gt(t->rcv_adv, t->rcv_read) ? k->rxq.bytes : t->rcv_adv - t->rcv_read);
}

void tcp_promise_none(struct stack *s, struct sock *k)
{
	if (k->tcp.promised)
		promise(s, &k->tcp, 0);
}
#define WINDOW_PLENTY 32768u /* a sender that may send so much more is not held back */

/* After rcv_adv has moved. A connection that is read as fast as it is written to has promised the same as before. */
static inline void count_promise(struct engine *e, struct sock *k)
{
	if (__builtin_expect(k->tcp.rcv_adv - k->tcp.rcv_read != k->tcp.promised, 0))
		tcp_promise_changed(e->s, k);
}

/* The buffer's size for now. */
static uint32_t buffer_size(const struct engine *e, const struct sock *k)
{
	return min32(k->rcvbuf, e->s->share);
}

/* Bytes that the buffer could still take; none when the pool behind all receive queues is nearly used up (UDP takes of
 * it, too). */
static uint32_t free_space(const struct engine *e, const struct sock *k)
{
	const struct stack_pool *pool = &e->s->private_pool;
	uint32_t size = buffer_size(e, k);

	if (pool->in_use > pool->limit - pool->limit / 8)
		size = min32(size, SHARE_MIN);
	return size > k->rxq.bytes ? size - k->rxq.bytes : 0;
}

/* The window before scaling: what is left of the last one, or all free space if that gains enough. */
static uint32_t window_select(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t left = window_left(t), space = free_space(e, k);
	uint32_t gain = min32(buffer_size(e, k) / 2, t->rcv_mss);

	return space >= left + gain ? space : left;
}

bool tcp_window_open(const struct engine *e, const struct sock *k)
{
	return 2 * (uint64_t)k->rxq.bytes <= k->rcvbuf || window_select(e, k) >= k->tcp.rcv_wnd;
}

/*
 * The header carries multiples of the scaling unit. Rounding down would take back up to a unit of what was offered, so
 * it is rounded up, as Linux does; but with a reader that stands still and tiny segments that would creep on for ever,
 * so at a full buffer plus one unit it is rounded down (RFC 7323 2.4 allows for that, and data up to rcv_adv is
 * accepted all the same).
 */
uint32_t tcp_window(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t unit = 1u << t->rcv_wscale;
	uint32_t wnd = window_select(e, k);
	uint32_t up = (wnd + unit - 1) & ~(unit - 1);

	if (up > 65535u << t->rcv_wscale)
		up = 65535u << t->rcv_wscale;
	if (up > wnd && k->rxq.bytes + up > k->rcvbuf + unit)
		up = wnd & ~(unit - 1);
	if (seq_gt(t->rcv_nxt + up, t->rcv_adv))
		t->rcv_adv = t->rcv_nxt + up;
	t->rcv_wnd = up;
	count_promise(e, k);
	return up;
}

/* The n-th connection begins with an eighth of an n-th: connections that are opened and not used, however many they
 * are, promise little (1/8 of a harmonic series), and leave memory to those that are. */
uint32_t tcp_first_window(const struct stack *s, uint32_t rcvbuf)
{
	uint64_t part = (uint64_t)s->private_pool.limit * PRIVATE_BUF_SIZE / 8 / (s->promisers + 1);

	return min32(min32(rcvbuf, 65535), part > SHARE_MIN ? (uint32_t)(part < 65535 ? part : 65535) : SHARE_MIN);
}

uint32_t tcp_syn_window(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t wnd = min32(free_space(e, k), tcp_first_window(e->s, k->rcvbuf));

	if (seq_gt(t->rcv_nxt + wnd, t->rcv_adv))
		t->rcv_adv = t->rcv_nxt + wnd;
	t->rcv_wnd = wnd;
	count_promise(e, k);
	return wnd;
}

void tcp_quickack(struct sock *k, uint32_t most)
{
	struct tcb *t = &k->tcp;
	uint32_t n = t->rcv_wnd / (2 * (t->rcv_mss ? t->rcv_mss : 1));

	n = n < 2 ? 2 : min32(n, most);
	if (n > t->quick_acks)
		t->quick_acks = (uint8_t)n;
}

/* The receiver's round trip: how long a whole window's data took to come. Never too short, and the least counts. */
static void measure_rtt(struct tcb *t, uint64_t now_us)
{
	if (t->rcv_rtt_start_us) {
		uint64_t took = now_us - t->rcv_rtt_start_us;

		if (seq_lt(t->rcv_nxt, t->rcv_rtt_seq))
			return;
		took = took == 0 ? 1 : took;
		if (t->rcv_rtt_us == 0 || took < t->rcv_rtt_us)
			t->rcv_rtt_us = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
	}
	t->rcv_rtt_start_us = now_us;
	t->rcv_rtt_seq = t->rcv_nxt + t->rcv_wnd;
}

void tcp_rcv_data_arrived(struct engine *e, struct sock *k, uint32_t bytes, bool psh)
{
	struct tcb *t = &k->tcp;
	uint64_t now = e->s->now_us;

	if (t->last_data_us == 0 || now - t->last_data_us > t->rto_us)
		tcp_quickack(k, 16); /* the sender begins, or begins again, slowly: let it grow */
	t->last_data_us = now;
	t->flags |= TCPF_ACK_DELAYED;
	if (bytes >= t->rcv_mss)
		t->rcv_mss = min32(bytes, t->adv_mss);
	else
		t->flags |= t->flags & TCPF_PUSHED ? TCPF_PUSHED2 : TCPF_PUSHED;
	if (psh)
		t->flags |= TCPF_PUSHED;
	if (seq_geq(t->rcv_nxt, t->rcv_rtt_seq) || !t->rcv_rtt_start_us)
		measure_rtt(t, now);
}

void tcp_delack_due(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (!(t->flags & (TCPF_ACK_DELAYED | TCPF_ACK_NOW)))
		return;
	t->flags &= ~TCPF_PINGPONG; /* no reply came to carry it */
	count(e->s, C_tcp_delayed_acks);
	tcp_send_ack(e, k);
}

/*
 * Receive buffer auto-tuning (Linux's dynamic right-sizing): the buffer should hold twice what the program reads in a
 * round trip, plus what slow start may add meanwhile.
 */
static void auto_tune(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t now = e->s->now_us;
	uint64_t want;

	if (now - t->rcvq_time_us < t->rcv_rtt_us || t->rcv_rtt_us == 0)
		return;
	if (t->rcvq_copied > t->rcvq_space) {
		if (!(k->flags & SOCKF_RCVBUF_SET)) {
			want = 2ull * t->rcvq_copied + 16ull * min32(t->adv_mss, 1460);
			want += 2 * want * (t->rcvq_copied - t->rcvq_space) / (t->rcvq_space ? t->rcvq_space : 1);
			if (want > e->s->cfg.defaults.rcvbuf_max)
				want = e->s->cfg.defaults.rcvbuf_max;
			if (want > k->rcvbuf)
				k->rcvbuf = (uint32_t)want;
		}
		t->rcvq_space = t->rcvq_copied;
	}
	t->rcvq_copied = 0;
	t->rcvq_time_us = now;
}

/*
 * The ACK for what was just read waits until the program has nothing else to do: its next call that finds
 * nothing (tcp_flush_acks). On a network each ACK costs about as much as a segment, and a request's goes with its
 * answer, that of a SYN with the first request, a FIN's with ours. A writer whom Nagle's algorithm holds back is told a
 * microsecond later, and has by then written more; else reader and writer go in step, with a segment, an ACK and four
 * cache misses for each small write. TIMER_DELACK runs meanwhile, for a program that does not come back.
 */
void tcp_ack_soon(struct stack *s, struct sock *k)
{
	if (k->tcp.flags & TCPF_ACK_SOON)
		return;
	k->tcp.flags |= TCPF_ACK_SOON;
	k->tcp.ack_soon_next = s->ack_soon;
	__atomic_store_n(&s->ack_soon, sock_index(s, k), __ATOMIC_RELAXED);
}

bool tcp_ack_may_wait(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;

	return e->flushes && !(t->flags & (TCPF_ACK_NOW | TCPF_QUICKACK)) && t->rcv_nxt - t->rcv_wup <= t->rcv_mss &&
	       (t->flags & (TCPF_PUSHED | TCPF_FIN_RCVD) || t->rcv_nxt == t->irs + 1);
}

void tcp_flush_acks(struct engine *e)
{
	struct stack *s = e->s;
	uint32_t others = 0;
	struct sock *k;

	while ((k = sock_at(s, s->ack_soon))) {
		sock_changing(s, k);
		__atomic_store_n(&s->ack_soon, k->tcp.ack_soon_next, __ATOMIC_RELAXED);
		if (__builtin_expect(sock_elsewhere(e, k), 0)) {
			k->tcp.ack_soon_next = others;
			others = sock_index(s, k);
			continue;
		}
		k->tcp.flags &= ~TCPF_ACK_SOON;
		if (k->tcp.flags & (TCPF_ACK_DELAYED | TCPF_ACK_NOW) && k->tcp.state != TCP_CLOSED)
			tcp_send_ack(e, k);
	}
	if (__builtin_expect(others, 0))
		__atomic_store_n(&s->ack_soon, others, __ATOMIC_RELAXED);
}

void tcp_ack_soon_remove(struct stack *s, struct sock *k)
{
	uint32_t *at = &s->ack_soon, self = sock_index(s, k);

	if (!(k->tcp.flags & TCPF_ACK_SOON))
		return;
	k->tcp.flags &= ~TCPF_ACK_SOON;
	for (struct sock *i; (i = sock_at(s, *at)); at = &i->tcp.ack_soon_next)
		if (*at == self) {
			__atomic_store_n(at, k->tcp.ack_soon_next, __ATOMIC_RELAXED);
			return;
		}
}

/* After the program has read: is an ACK, or a window update, due? (Linux: tcp_cleanup_rbuf) */
static void after_read(struct engine *e, struct sock *k, bool copied)
{
	struct tcb *t = &k->tcp;
	uint32_t wnd, most;

	if (t->flags & (TCPF_ACK_DELAYED | TCPF_ACK_NOW)) {
		bool pushed = (t->flags & TCPF_PUSHED2) || ((t->flags & TCPF_PUSHED) && !(t->flags & TCPF_PINGPONG));

		if (t->rcv_nxt - t->rcv_wup > t->rcv_mss) {
			tcp_send_ack(e, k);
			return;
		}
		if (copied && pushed && k->rxq.bytes == 0) {
			if (!tcp_lossless(e, k->vnic) && !e->flushes) {
				tcp_send_ack(e, k);
				return;
			}
			tcp_ack_soon(e->s, k);
		}
	}
	if (!copied || (t->flags & TCPF_FIN_RCVD) || t->state == TCP_CLOSED)
		return;
	most = min32(k->rcvbuf, 65535u << t->rcv_wscale);
	if (2 * (uint64_t)window_left(t) <= most) {
		wnd = min32(window_select(e, k), most);
		if (wnd && wnd >= 2 * window_left(t)) {
			count(e->s, C_tcp_window_updates);
			if (e->flushes && window_left(t) >= WINDOW_PLENTY) { /* nobody waits for it */
				t->flags |= TCPF_ACK_DELAYED;
				tcp_ack_soon(e->s, k);
				return;
			}
			tcp_send_ack(e, k);
		}
	}
}

/* Where the next byte goes. */
struct sink {
	const struct iovec *iov;
	int cnt;
	size_t off;
	bool discard;
	bool fault; /* behind them comes an address that is none */
};

static size_t sink_start(struct sink *to, const struct iovec *iov, int cnt, size_t skip, bool discard)
{
	size_t total = 0;

	bool fault = false;

	for (int i = 0; i < cnt; i++) {
		fault = !discard && iov[i].iov_len && bad_address(iov[i].iov_base);
		if (fault)
			cnt = i;
		else
			total += iov[i].iov_len;
	}
	while (cnt > 0 && skip >= iov->iov_len && skip > 0) {
		skip -= iov->iov_len;
		total -= iov->iov_len;
		iov++;
		cnt--;
	}
	*to = (struct sink){.iov = iov, .cnt = cnt, .off = skip, .discard = discard, .fault = fault};
	return total > skip ? total - skip : 0;
}

static void sink_put(struct sink *to, const uint8_t *from, size_t n)
{
	if (to->discard)
		return;
	while (n > 0 && to->cnt > 0) {
		size_t m = to->iov->iov_len - to->off;

		if (m > n)
			m = n;
		memcpy((uint8_t *)to->iov->iov_base + to->off, from, m);
		from += m;
		n -= m;
		to->off += m;
		if (to->off == to->iov->iov_len) {
			to->iov++;
			to->cnt--;
			to->off = 0;
		}
	}
}

/* Take n bytes off the front of rxq's first pkt. */
static void consume(struct engine *e, struct sock *k, struct pkt *p, uint32_t n)
{
	k->tcp.rcv_read += n;
	if (n == p->len) {
		pkt_unlink(e->s, &k->rxq, p);
		pkt_free(e, p);
		return;
	}
	p->seq += n;
	p->off = (uint16_t)(p->off + n);
	p->len -= n;
	k->rxq.bytes -= n;
}

/* Bytes before, at and behind the urgent mark: how many of `n` at seq may be read in one go; *hole: skip one first. */
static uint32_t up_to_mark(const struct sock *k, uint32_t seq, uint32_t n, bool *hole)
{
	uint32_t ahead = k->tcp.rcv_up - seq;

	*hole = false;
	if (!(k->tcp.flags & TCPF_URG_VALID) || ahead >= n)
		return n;
	if (ahead > 0)
		return ahead;
	*hole = !(k->flags & SOCKF_OOBINLINE); /* it is read with MSG_OOB only */
	return n;
}

static void mark_passed(struct tcb *t)
{
	if ((t->flags & TCPF_URG_VALID) && seq_gt(t->rcv_read, t->rcv_up))
		t->flags &= ~(TCPF_URG_VALID | TCPF_URG_BYTE | TCPF_URG_READ);
}

/* Copy at most `want` bytes. The number, or -ECONNRESET if the buffers went away with their vNIC. */
static ssize_t copy_out(struct engine *e, struct sock *k, struct sink *to, size_t want, bool peek)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, k->rxq.head);
	uint32_t seq = t->rcv_read, off = 0;
	size_t copied = 0;

	while (p && copied < want) {
		const uint8_t *data;
		uint32_t n = p->len - off;
		bool hole;

		if ((t->flags & TCPF_URG_VALID) && seq == t->rcv_up && copied > 0)
			break; /* a read stops at the mark */
		n = up_to_mark(k, seq, n, &hole);
		if (hole) {
			n = 1;
		} else {
			data = to->discard ? NULL : pkt_data(e, p);
			if (!data && !to->discard)
				return copied ? (ssize_t)copied : -ECONNRESET;
			if (n > want - copied)
				n = (uint32_t)(want - copied);
			sink_put(to, data ? data + off : NULL, n);
			copied += n;
		}
		seq += n;
		if (peek) {
			off += n;
			if (off < p->len)
				continue;
			p = pkt_at(e->s, p->next);
			off = 0;
		} else {
			consume(e, k, p, n);
			p = pkt_at(e->s, k->rxq.head);
		}
	}
	return (ssize_t)copied;
}

static int take_error(struct sock *k)
{
	int err = k->so_error;

	k->so_error = 0;
	return -err;
}

static ssize_t recv_urgent(struct engine *e, struct sock *k, struct sink *to, size_t want, int flags)
{
	struct tcb *t = &k->tcp;

	if ((k->flags & SOCKF_OOBINLINE) || !(t->flags & TCPF_URG_VALID) || (t->flags & TCPF_URG_READ))
		return -EINVAL;
	if (t->state == TCP_CLOSED && !(t->flags & TCPF_FIN_RCVD))
		return -ENOTCONN;
	if (t->flags & TCPF_URG_BYTE) {
		if (!(flags & TCP_F_PEEK))
			t->flags |= TCPF_URG_READ;
		if (want == 0)
			return to->fault ? -EFAULT : 0;
		sink_put(to, &t->urg_byte, 1);
		count(e->s, C_tcp_urgent_read);
		return 1;
	}
	if (t->state == TCP_CLOSED || (t->flags & TCPF_FIN_RCVD) || (k->flags & SOCKF_SHUT_RD))
		return 0;
	return -EAGAIN;
}

/* Nothing was there to read: what does that mean? In the order of Linux's tcp_recvmsg. */
static ssize_t recv_nothing(struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->flags & TCPF_FIN_RCVD)
		return 0;
	if (k->so_error)
		return take_error(k);
	if (k->flags & SOCKF_SHUT_RD)
		return 0;
	return t->state == TCP_CLOSED ? -ENOTCONN : -EAGAIN;
}

void tcp_was_read(struct engine *e, struct sock *k, bool copied)
{
	if (copied)
		auto_tune(e, k);
	after_read(e, k, copied);
}

static __attribute__((noinline)) ssize_t recv_any(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt,
						  size_t skip, int flags, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	struct sink to;
	size_t want = sink_start(&to, iov, iovcnt, skip, (flags & TCP_F_TRUNC) != 0);
	bool peek = (flags & TCP_F_PEEK) != 0;
	ssize_t n;

	tcp_set_now(e, now_us);
	if (t->state == TCP_LISTEN)
		return -ENOTCONN;
	if (flags & TCP_F_OOB)
		return recv_urgent(e, k, &to, want, flags);
	if (k->rxq.bytes == 0)
		return recv_nothing(k);
	if (to.fault && k->rxq.bytes > want) /* nothing is taken then, as in Linux */
		return -EFAULT;
	n = copy_out(e, k, &to, want, peek);
	if (n < 0 || (peek && n > 0))
		return n;
	if (peek)
		return want > 0 ? recv_nothing(k) : 0;
	mark_passed(t);
	t->rcvq_copied += (uint32_t)n;
	tcp_was_read(e, k, n > 0);
	return n == 0 && want > 0 ? recv_nothing(k) : n; /* only an urgent byte was there */
}

ssize_t tcp_recv(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us)
{
	ssize_t n = 0;

	sock_changing(e->s, k);
	if (iovcnt == 1 && !(skip | (unsigned)flags))
		n = tcp_fast_recv(e, k, iov->iov_base, iov->iov_len, now_us);
	return n ? n : recv_any(e, k, iov, iovcnt, skip, flags, now_us);
}
