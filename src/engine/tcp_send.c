/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program writes: bytes into pkts of txq, and a push where a segment is ready (RFC 9293 3.9.1.2; tcp(7)).
 *
 * Bytes go behind the last pkt as long as it was not sent and has room, else into a fresh tx buffer. A long write is
 * pushed segment by segment while it is being copied, so that the peer starts on the first while we copy the second.
 * A short write behind a small segment that is still in flight stops after the copy: Nagle would hold it anyway.
 *
 * Two limits. sndbuf bounds the bytes not yet acknowledged; it grows with what the connection can have in flight,
 * unless SO_SNDBUF was set. And a socket has at most as many tx buffers of its vNIC in its queue as are free (a dynamic
 * threshold). A writer who is refused hears EV_OUT once a third of sndbuf is free (as Linux), or once buffers are back
 * (txwait.c).
 *
 * Over a wire, connections that the peer does not read can't take the buffers from those that it does. Every buffer
 * in use is one of three: (1) its data is inside the peer's window: it is sent and, as the peer has memory for all that
 * it offers (tcp_recv.c), returned or held; (2) the peer holds it in place, with the data acknowledged: it does so
 * with at most half of them (frame.c); (3) its data lies beyond the window: it gets a buffer only while more than 5/8
 * are free, so at most 3/8 are used that way at any time. (2) and (3) leave an eighth to (1), always.
 */
#include <string.h>

#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"

#define PUSH_MAX 65536u
#define BURST_OVERHEAD 1280u

/* Where a write is. */
struct source {
	const struct iovec *iov;
	int left;   /* iovecs */
	size_t off; /* in the first */
	size_t total;
	bool fault; /* one of the addresses is none */
};

static void source_init(struct source *w, const struct iovec *iov, int iovcnt, size_t skip)
{
	*w = (struct source){.iov = iov, .left = iovcnt};
	while (w->left && skip >= w->iov->iov_len) {
		skip -= w->iov->iov_len;
		w->iov++;
		w->left--;
	}
	w->off = skip;
	for (int i = 0; i < w->left; i++) {
		w->fault |= w->iov[i].iov_len && bad_address(w->iov[i].iov_base);
		w->total += w->iov[i].iov_len;
	}
	w->total -= w->left ? skip : 0;
}

static void source_copy(struct source *w, uint8_t *to, size_t n)
{
	w->total -= n;
	while (n) {
		size_t part = w->iov->iov_len - w->off;

		part = part < n ? part : n;
		memcpy(to, (const uint8_t *)w->iov->iov_base + w->off, part);
		to += part;
		n -= part;
		w->off += part;
		if (w->off == w->iov->iov_len) {
			w->iov++;
			w->left--;
			w->off = 0;
		}
	}
}

/* TCP_NOTSENT_LOWAT; UINT32_MAX: none. */
static uint32_t notsent_limit(const struct engine *e, const struct tcb *t)
{
	uint32_t lowat = t->notsent_lowat ? t->notsent_lowat : e->s->cfg.defaults.notsent_lowat;

	return lowat ? lowat : UINT32_MAX;
}

/* After so many bytes a long write is pushed while it is being copied. On a wire a segment, as the reader sits at the
 * other end; on a network as much as makes a burst, at most half of the peer's window (as Linux). */
static uint32_t push_size(const struct engine *e, const struct sock *k, uint32_t limit, uint32_t cap)
{
	uint32_t most = min_u32(PUSH_MAX, max_u32(k->tcp.snd_max_wnd / 2, limit));

	return tcp_no_network(e, k) ? limit - limit % cap : most - most % limit;
}

/* What the send queue counts against sndbuf: its bytes; where sndbuf follows cwnd as Linux's does, also what Linux
 * spends on each burst (sk_wmem_queued), or the same sndbuf would hold more here. */
static uint64_t queue_cost(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t limit, whole;

	if (tcp_no_network(e, k) || k->flags & SOCKF_SNDBUF_SET)
		return t->txq.bytes;
	limit = tcp_segment_limit(e, k);
	whole = push_size(e, k, limit, limit);
	return t->txq.bytes + (uint64_t)BURST_OVERHEAD * ((t->txq.bytes + whole - 1) / whole);
}

/* The same, never less, without a division: no burst is smaller than a pkt. */
static uint64_t queue_cost_bound(const struct tcb *t)
{
	return t->txq.bytes + (uint64_t)BURST_OVERHEAD * t->txq.count;
}

/* Ready for a writer who waits: he is not woken for a few bytes (as Linux, half of what makes him wait). */
bool tcp_writable(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;

	if (t->flags & TCPF_NOBUF || 2ull * (t->snd_end - t->snd_nxt) >= notsent_limit(e, t))
		return false;
	return queue_cost_bound(t) * 3 <= (uint64_t)k->sndbuf * 2 || queue_cost(e, k) * 3 <= (uint64_t)k->sndbuf * 2;
}

static uint32_t pow2_up(uint32_t n)
{
	return n <= 1 ? 1 : 1u << (32 - __builtin_clz(n - 1));
}

/* Let sndbuf follow what the connection can have in flight, twice cwnd as Linux. Without a network the peer's window is
 * that, and one segment to fill meanwhile: more would only spread over more of the cache. */
static void grow_sndbuf(struct engine *e, struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t max = e->s->cfg.defaults.sndbuf_max;
	uint64_t want;

	if (k->flags & SOCKF_SNDBUF_SET || k->sndbuf >= max)
		return;
	if (tcp_no_network(e, k))
		want = (uint64_t)t->snd_max_wnd + t->mss;
	else if (tcp_in_flight(k) < t->cwnd) /* as Linux: twice cwnd, at what a segment costs it, if cwnd is not full */
		want = 2ull * max_u32(t->cwnd / max_u32(t->mss, 1), 10) * (pow2_up(t->mss + 640) + 256);
	else
		return;
	if (want > max)
		want = max;
	if (want > k->sndbuf)
		k->sndbuf = (uint32_t)want;
}

/* Bytes that may be queued now as far as the buffers go: when few are free, what the peer has a window for. */
static uint32_t window_room(const struct engine *e, const struct sock *k, const struct vnic_state *st)
{
	const struct tcb *t = &k->tcp;
	int32_t room = (int32_t)(t->snd_una + t->snd_wnd - t->snd_end);

	if (st->free_top * 8 > st->tx_count * TXHELD_EIGHTHS || !tcp_no_network(e, k))
		return UINT32_MAX;
	return room > 0 ? (uint32_t)room : 0;
}

/* Until the window opens (tcp_write_space), or many buffers are free. */
static void hold_back(struct engine *e, struct sock *k)
{
	count(e->s, C_tcp_no_buffer);
	k->tcp.flags |= TCPF_NOBUF;
	txwait_add_held(e, k);
}

void tcp_write_space(struct engine *e, struct sock *k)
{
	const struct vnic_state *st = stack_vnic(e->s, k->vnic);

	grow_sndbuf(e, k);
	if (k->txwait_held && st && window_room(e, k, st)) { /* among those who may take any */
		txwait_remove(e, k);
		if (st->free_top > TXWAIT_RESERVE && !st->txwait_head)
			k->tcp.flags &= ~TCPF_NOBUF;
		else
			txwait_add(e, k);
	}
	if (k->tcp.flags & TCPF_NOSPACE && tcp_writable(e, k)) {
		k->tcp.flags &= ~TCPF_NOSPACE;
		sock_notify(e, k, EV_OUT);
	}
}

/* A pkt for new bytes at the end of txq, or NULL: no buffer to spare. */
static struct pkt *new_pkt(struct engine *e, struct sock *k, const struct vnic_state *st)
{
	struct tcb *t = &k->tcp;
	struct pkt *p;

	if (!window_room(e, k, st)) {
		hold_back(e, k);
		return NULL;
	}
	if (t->txq.count > st->free_top || !(p = pkt_alloc_tx(e, k->vnic))) {
		count(e->s, C_tcp_no_buffer);
		t->flags |= TCPF_NOBUF;
		txwait_add(e, k);
		return NULL;
	}
	p->seq = t->snd_end;
	pkt_push_tail(e->s, &t->txq, p);
	if (!t->send_head)
		t->send_head = pkt_index(e->s, p);
	return p;
}

/* How much more the last burst of the queue takes; a new one is begun as long as the queue is not full. On a network,
 * as in Linux, where sndbuf and TCP_NOTSENT_LOWAT decide whether another buffer is added to the queue. */
static uint32_t burst_room(const struct engine *e, struct sock *k, uint32_t whole)
{
	struct tcb *t = &k->tcp;

	if (seq_lt(t->burst_seq, t->snd_nxt) || seq_gt(t->burst_seq, t->snd_end))
		t->burst_seq = t->snd_nxt;
	if (t->burst_seq == t->snd_end || t->snd_end - t->burst_seq >= whole) {
		if ((queue_cost_bound(t) >= k->sndbuf && queue_cost(e, k) >= k->sndbuf) ||
		    t->snd_end - t->snd_nxt >= notsent_limit(e, t))
			return 0;
		t->burst_seq = t->snd_end;
	}
	return whole - (t->snd_end - t->burst_seq);
}

/* The burst is full. More than half of the peer's window without a PSH would keep a reader that waits for one (as
 * Linux). */
static void end_burst(struct tcb *t, struct pkt *p)
{
	p->flags |= PKT_END;
	if (seq_gt(t->snd_end, t->push_seq + t->snd_max_wnd / 2)) {
		p->flags |= PKT_PSH;
		t->push_seq = t->snd_end;
	}
}

/* Copy up to `want` bytes into txq. Returns the bytes copied. Nothing leaves meanwhile with `hold`: the end of the
 * write is urgent, and every segment before it has to say so. */
static size_t fill(struct engine *e, struct sock *k, struct source *w, size_t want, uint32_t limit, bool hold)
{
	struct tcb *t = &k->tcp;
	const struct vnic *v = &e->vnic[k->vnic]; /* after a push it may be another one (tcp_move) */
	uint32_t cap = min_u32(v->st->buf_size - PKT_HEADROOM, limit);
	uint32_t whole = push_size(e, k, limit, cap), unpushed = t->snd_end - t->snd_nxt;
	bool network = !tcp_no_network(e, k);
	size_t done = 0;

	while (done < want) {
		/* Only a pkt that was never sent may grow; send_head is 0 when all were. */
		struct pkt *p = t->send_head ? pkt_at(e->s, t->txq.tail) : NULL;
		uint32_t n, room = network ? burst_room(e, k, whole) : UINT32_MAX;

		if (!room)
			break;
		if (!p || p->len >= cap || p->flags & PKT_END) {
			if (!(p = new_pkt(e, k, v->st)))
				break;
			if (!network && want < TCP_FETCH_STEP) /* others follow it into this buffer */
				vnic_fetch_tx(v, p->buf, p->off, TCP_FETCH_STEP + TCP_FETCH_STEP / 2);
		}
		if (!done)
			p->flags &= (uint8_t)~PKT_PSH; /* no longer the end of a write */
		n = (uint32_t)(want - done < cap - p->len ? want - done : cap - p->len);
		n = min_u32(n, room);
		source_copy(w, vnic_tx_buf(v, p->buf) + p->off + p->len, n);
		p->len += n;
		t->txq.bytes += n;
		t->snd_end += n;
		if (n == room)
			end_burst(t, p);
		done += n;
		unpushed += n;
		if (unpushed >= whole && p->len >= cap && !hold) {
			tcp_push(e, k, TCP_PUSH_HOLD);
			unpushed = 0;
			v = &e->vnic[k->vnic];
		}
	}
	return done;
}

/* 0, or why nothing can be written. */
static int send_error(struct sock *k)
{
	const struct tcb *t = &k->tcp;
	int err = k->so_error;

	if (err) {
		k->so_error = 0;
		return -err;
	}
	if (t->state == TCP_SYN_SENT || t->state == TCP_SYN_RECEIVED)
		return k->flags & SOCKF_SHUT_WR ? -EPIPE : -EAGAIN;
	if ((t->state != TCP_ESTABLISHED && t->state != TCP_CLOSE_WAIT) || k->flags & SOCKF_SHUT_WR ||
	    t->flags & TCPF_FIN_QUEUED)
		return -EPIPE;
	return 0;
}

/* Would Nagle hold what has just been written behind what is in flight? Then there is nothing to do. */
static bool held_by_nagle(const struct tcb *t, uint32_t limit)
{
	return tcp_small_in_flight(t) && t->snd_end - t->snd_nxt < limit / 2 &&
	       !(t->flags & (TCPF_NODELAY | TCPF_SND_URG | TCPF_ACK_NOW)) && t->lost == t->retrans;
}

static void mark_end(struct engine *e, struct tcb *t, int flags)
{
	struct pkt *tail = pkt_at(e->s, t->txq.tail);

	if (!(flags & TCP_F_MORE) && tail) {
		tail->flags |= PKT_PSH | (flags & TCP_F_EOR ? PKT_END : 0);
		t->push_seq = t->snd_end;
	}
	if (flags & TCP_F_OOB) {
		t->snd_up = t->snd_end; /* behind the urgent byte, as the kernel does by default */
		t->flags |= TCPF_SND_URG;
	}
}

/* To a peer whose process is gone: its kernel takes the first write for this end, and answers it with a reset. */
static ssize_t send_to_nobody(struct engine *e, struct sock *k, size_t n)
{
	if (!n)
		return 0;
	tcp_done(e, k, EPIPE);
	return (ssize_t)(n < k->sndbuf ? n : k->sndbuf);
}

static __attribute__((noinline)) ssize_t send_any(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt,
						  size_t skip, int flags, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	struct vnic *v = tcp_vnic(e, k);
	struct source w;
	size_t want, done;
	uint32_t limit, room;
	int err = send_error(k);

	tcp_set_now(e, now_us);
	if (!err && !v && !(t->flags & TCPF_PEER_GONE))
		err = -EPIPE;
	if (err) {
		t->flags |= err == -EAGAIN ? TCPF_NOSPACE : 0;
		return err;
	}
	source_init(&w, iov, iovcnt, skip);
	want = w.total;
	if (t->flags & TCPF_PEER_GONE)
		return send_to_nobody(e, k, want);
	if (w.fault)
		return -EFAULT;
	if (!want)
		return 0;
	if (t->snd_end - t->snd_nxt >= notsent_limit(e, t))
		want = tcp_no_network(e, k) ? 0 : want;
	else if (tcp_no_network(e, k) && want + t->txq.bytes > k->sndbuf)
		want = t->txq.bytes < k->sndbuf ? k->sndbuf - t->txq.bytes : 0;
	limit = tcp_segment_limit(e, k);
	room = window_room(e, k, v->st);
	done = fill(e, k, &w, want < room ? want : room, limit, flags & TCP_F_OOB);
	if (done == room && want > room)
		hold_back(e, k);
	if (done)
		mark_end(e, t, w.total ? 0 : flags); /* a writer that has to wait pushes what he has written */
	if (w.total) {
		/* The writer waits for space: what is there must not wait for more bytes (as Linux). */
		t->flags |= TCPF_NOSPACE;
		if (t->send_head)
			tcp_push(e, k, TCP_PUSH_FORCE);
	} else if (!held_by_nagle(t, limit)) {
		tcp_push(e, k, flags & TCP_F_MORE ? TCP_PUSH_HOLD : TCP_PUSH_NAGLE);
	}
	if (!(t->flags & TCPF_NOSPACE) && !tcp_writable(e, k))
		t->flags |= TCPF_NOSPACE;
	return done ? (ssize_t)done : -EAGAIN;
}

ssize_t tcp_send(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, size_t skip, int flags,
		 uint64_t now_us)
{
	ssize_t n = 0;

	sock_changing(e->s, k);
	if (iovcnt == 1 && !(skip | (unsigned)flags))
		n = tcp_fast_send(e, k, iov->iov_base, iov->iov_len, now_us);
	return n ? n : send_any(e, k, iov, iovcnt, skip, flags, now_us);
}

/* As Linux: 0 ends it, as other even numbers do, which send what waits to be acknowledged first. */
void tcp_set_quickack(struct engine *e, struct sock *k, int v)
{
	struct tcb *t = &k->tcp;

	t->flags = v & 1 ? t->flags | TCPF_QUICKACK : t->flags & ~TCPF_QUICKACK;
	t->flags = v ? t->flags & ~TCPF_PINGPONG : t->flags | TCPF_PINGPONG;
	if (!v || !(t->flags & TCPF_ACK_DELAYED) || (t->state != TCP_ESTABLISHED && t->state != TCP_CLOSE_WAIT))
		return;
	t->flags |= TCPF_ACK_NOW;
	tcp_output(e, k);
	if (!(v & 1))
		t->flags |= TCPF_PINGPONG;
}

void tcp_set_nodelay(struct engine *e, struct sock *k, bool on, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	tcp_set_now(e, now_us);
	t->flags = on ? t->flags | TCPF_NODELAY : t->flags & ~TCPF_NODELAY;
	if (on && t->send_head)
		tcp_push(e, k, TCP_PUSH_FORCE);
}

void tcp_set_cork(struct engine *e, struct sock *k, bool on, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	tcp_set_now(e, now_us);
	t->flags = on ? t->flags | TCPF_CORK : t->flags & ~TCPF_CORK;
	if (!on && t->send_head)
		tcp_push(e, k, TCP_PUSH_NAGLE);
}
