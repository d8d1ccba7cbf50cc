/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The short ways for the usual segment over a wire (VNIC_PROV_LOCAL): one buffer, no options, an established connection
 * on which nothing unusual is going on. Each is a function with its conditions at the top, that has changed nothing
 * when it says no; the general code then does the same, slowly (tcp_send.c and tcp_output.c, tcp_input.c and
 * tcp_ack.c).
 *
 *   tcp_fast_send   a short write that may go at once, or that Nagle's algorithm adds to what waits. The headers are
 *                   copied from those that tcp_fast_init made (RFC 9293 3.1), only what changes is written.
 *   tcp_fast_input  the next segment in order (header prediction, as V. Jacobson's), and an ACK of what was never
 *                   lost. It finds its connection by comparing addresses and ports with the last one's headers.
 *   tcp_fast_recv   a plain read of what is there, from a network too.
 *
 * A wire loses nothing, so there is nothing here of recovery and congestion control: with anything marked in txq the
 * general code takes over. The round trip is sampled once in RTT_EVERY_US, which is all that TCP_INFO and a timer that
 * never fires need.
 *
 * The peer may write to a received frame at any time: its headers are copied once, and only the copy is looked at.
 */
#include "engine/bytes.h"
#include "engine/inet.h"
#include "engine/pkt_inline.h"
#include "engine/tcp_send.h"
#include "engine/tcp_wire.h"
#include "vnic/wire.h"

#define RTT_EVERY_US 1000u
#define HDR sizeof(((struct tcb *)0)->hdr)
#define V4_LEN (ETH_HEADER + IPV4_HEADER + TCP_HEADER)
#define V6_LEN (ETH_HEADER + IPV6_HEADER + TCP_HEADER)
#define PACK_FROM 16u /* tcp_segment.c packs small segments from here on */
#define PACK_MAX 512u
#define NEXT_BUF 3u  /* the third that will be taken, if none comes back meanwhile */
#define NEXT_SLOT 8u /* two lines on */

_Static_assert(NEXT_BUF < TXWAIT_RESERVE, "may_send leaves so many");

/* With any of these a write goes the long way. */
#define SLOW_SEND                                                                                                      \
	(TCPF_TS | TCPF_CORK | TCPF_FIN_QUEUED | TCPF_SND_URG | TCPF_NOBUF | TCPF_PEER_GONE | TCPF_ECN | TCPF_FIN_LOST)
/* With any of these a segment does. */
#define SLOW_INPUT (TCPF_TS | TCPF_URG_VALID | TCPF_FIN_OOO | TCPF_SND_URG | TCPF_FIN_QUEUED | TCPF_FIN_SENT | TCPF_ECN)

_Static_assert(HDR >= V6_LEN, "hdr holds the longest headers");

static inline uint16_t tos_ttl(const struct sock *k)
{
	return (uint16_t)(k->tos << 8 | k->ttl);
}

void tcp_fast_init(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	const struct vnic *v = tcp_vnic(e, k);
	uint8_t *tcp = t->hdr + HDR - TCP_HEADER;
	bool v4 = is_v4(k->remote.addr);
	struct ip_out o = {
	    .vnic = k->vnic,
	    .family = v4 ? 4 : 6,
	    .proto = PROTO_TCP,
	    .ttl = k->ttl ? k->ttl : 64,
	    .tos = k->tos,
	    .src = k->local.addr,
	    .dst = k->remote.addr,
	    .df = true,
	};

	t->hdr_len = 0;
	if (!v || v->st->provider != VNIC_PROV_LOCAL || t->flags & TCPF_TS)
		return;
	memset(t->hdr, 0, HDR);
	put_be16(tcp, k->local.port);
	put_be16(tcp + 2, k->remote.port);
	tcp[12] = TCP_HEADER << 2;
	tcp[13] = TH_ACK | TH_PSH;
	ip_put_headers(e, &o, tcp, TCP_HEADER);
	t->hdr_tos_ttl = tos_ttl(k);
	t->hdr_len = v4 ? V4_LEN : V6_LEN;
}

/* The vNIC, if it is a wire that this process may send over. */
static inline struct vnic *fast_vnic(struct engine *e, const struct sock *k)
{
	struct vnic *v = &e->vnic[k->vnic % VNIC_MAX];

	return v->ops && v->st->gen == k->vnic_gen && !v->st->dead ? v : NULL;
}

static inline void set_timer(struct engine *e, struct sock *k, enum timer_kind kind, uint64_t deadline_us)
{
	if (timer_covers(&k->tcp.timer[kind], deadline_us))
		k->tcp.timer[kind].deadline_us = deadline_us;
	else
		timer_set(e, k, kind, deadline_us);
}

static inline void restart_rto(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	t->rto_kind = TCP_RTO_RETRANS;
	set_timer(e, k, TIMER_RTO, e->s->now_us + (t->backoff || !t->rto_us ? tcp_rto_now(e, t) : t->rto_us));
}

/* --- out --- */

/* Headers and descriptor of a new segment whose payload is p's; open: it may grow. */
static inline __attribute__((always_inline)) void post(struct engine *e, struct sock *k, struct vnic *v,
						       const struct pkt *p, bool open)
{
	struct tcb *t = &k->tcp;
	uint8_t *tcp = vnic_tx_buf(v, p->buf) + PKT_HEADROOM - TCP_HEADER;
	uint32_t wnd = tcp_window(e, k) >> t->rcv_wscale;

	memcpy(tcp + TCP_HEADER - HDR, t->hdr, HDR);
	if (t->hdr_len == V4_LEN) {
		put_be16(tcp - IPV4_HEADER + 2, open ? 0 : IPV4_HEADER + TCP_HEADER + p->len);
		put_be16(tcp - IPV4_HEADER + 4, e->s->ip_id++);
	} else {
		put_be16(tcp - IPV6_HEADER + 4, open ? 0 : TCP_HEADER + p->len);
	}
	put_be32(tcp + 4, p->seq);
	put_be32(tcp + 8, t->rcv_nxt);
	put_be16(tcp + 14, wnd < 65535 ? wnd : 65535);
	if (open)
		wire_post_open(v, p->buf, PKT_HEADROOM - t->hdr_len, p->len + t->hdr_len);
	else
		wire_post_one(v, p->buf, PKT_HEADROOM - t->hdr_len, p->len + t->hdr_len);
	tcp_ack_sent(e, k);
	t->segs_out++;
}

/* A pkt in a tx buffer, at the end of txq. The caller knows that there is a buffer. */
static inline struct pkt *new_tx(struct engine *e, struct sock *k, struct vnic *v, uint32_t len)
{
	struct pkt *p = pkt_new(e->s, PKT_TX);
	struct vnic_state *st = v->st;

	if (!p)
		return NULL;
	p->buf = st->tx_free[--st->free_top];
	st->tx_state[p->buf] = VNIC_TX_PKT;
	p->off = PKT_HEADROOM;
	p->vnic = (uint16_t)k->vnic;
	p->vnic_gen = v->gen;
	p->seq = k->tcp.snd_end;
	p->len = len;
	p->sent_us = e->s->now_us;
	p->flags = PKT_SENT | PKT_PSH;
	pkt_append(e->s, &k->tcp.txq, p);
	return p;
}

/* Nagle's algorithm holds what has been written and is unsent: add to it. */
static inline ssize_t add_to_waiting(struct engine *e, struct sock *k, struct vnic *v, const void *data, uint32_t len)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, t->txq.tail);

	if (!p || p->flags & PKT_END || t->flags & (TCPF_NODELAY | TCPF_ACK_NOW) || !tcp_small_in_flight(t) ||
	    p->len + len > v->st->buf_size - PKT_HEADROOM || (t->snd_end - t->snd_nxt + len) * 4 > t->snd_max_wnd ||
	    t->snd_end - t->snd_nxt + len > t->mss / 2)
		return 0;
	memcpy(vnic_tx_buf(v, p->buf) + p->off + p->len, data, len);
	if (__builtin_expect((p->len ^ (p->len + len)) & TCP_FETCH_STEP, 0))
		vnic_fetch_tx(v, p->buf, p->off + p->len + TCP_FETCH_STEP / 2, TCP_FETCH_STEP);
	p->len += len;
	p->flags |= PKT_PSH;
	t->txq.bytes += len;
	t->snd_end += len;
	return (ssize_t)len;
}

/* The peer has not yet taken our last segment: add to it. Not if an ACK is owed, which a new one would carry. */
static ssize_t add_to_sent(struct engine *e, struct sock *k, struct vnic *v, const void *data, uint32_t len)
{
	struct tcb *t = &k->tcp;
	struct vnic_state *st = v->st;
	struct pkt *p = pkt_at(e->s, t->txq.tail);
	uint32_t end = (uint32_t)st->grow_off + st->grow_len;

	if (!p || p->buf != st->grow_buf || p->vnic_gen != v->gen || p->flags & PKT_END || !(t->flags & TCPF_NODELAY) ||
	    t->flags & (TCPF_ACK_NOW | TCPF_ACK_DELAYED) || end + len > st->buf_size || p->len + len > t->mss ||
	    p->seq + p->len != t->snd_nxt)
		return 0;
	memcpy(vnic_tx_buf(v, p->buf) + end, data, len);
	if (!wire_grow(v, len))
		return 0;
	p->len += len;
	t->txq.bytes += len;
	t->snd_end += len;
	t->snd_nxt = t->snd_max = t->snd_sml = t->snd_end;
	t->bytes_sent += len;
	k->tx_bytes += len;
	t->last_snd_us = e->s->now_us;
	count(e->s, C_tcp_added_to_sent);
	return (ssize_t)len;
}

/* A segment of this size, which the window has room for, may go now: Nagle, buffers. It is less than a full one. */
static inline bool may_send(const struct tcb *t, const struct vnic_state *st, uint32_t len)
{
	return (t->flags & TCPF_NODELAY || !tcp_small_in_flight(t)) && len <= st->buf_size - PKT_HEADROOM &&
	       len * 4 <= t->snd_max_wnd && len * 2 <= t->mss && st->free_top > TXWAIT_RESERVE &&
	       st->free_top >= t->txq.count;
}

/* A stream of small segments: what the next ones will be written to (vnic_fetch_tx), while the reader has it still. */
static inline void fetch_next(const struct vnic *v, uint32_t len)
{
	vnic_fetch_tx(v, v->st->tx_free[v->st->free_top - NEXT_BUF], PKT_HEADROOM - HDR, HDR + len);
	fetch_for_write(ring_words(v->tx, v->st->tx_prod + NEXT_SLOT, WIRE_RING));
}

/* A new segment; open: it may grow. */
static inline __attribute__((always_inline)) ssize_t send_one(struct engine *e, struct sock *k, struct vnic *v,
							      const void *data, uint32_t len, bool open)
{
	struct tcb *t = &k->tcp;
	struct pkt *p;
	bool idle;

	if (__builtin_expect(t->hdr_tos_ttl != tos_ttl(k), 0))
		tcp_fast_init(e, k);
	if (!may_send(t, v->st, len) || !(p = new_tx(e, k, v, len)))
		return 0;
	memcpy(vnic_tx_buf(v, p->buf) + PKT_HEADROOM, data, len);
	post(e, k, v, p, open);
	idle = t->snd_una == t->snd_nxt;
	t->snd_end += len;
	t->snd_nxt = t->snd_max = t->snd_sml = t->snd_end;
	t->bytes_sent += len;
	k->tx_bytes += len;
	tcp_data_sent(e, k);
	if (!idle)
		fetch_next(v, len);
	if (idle || !t->timer[TIMER_RTO].deadline_us)
		restart_rto(e, k);
	return (ssize_t)len;
}

/* The peer is far behind. */
static __attribute__((noinline)) ssize_t send_to_laggard(struct engine *e, struct sock *k, struct vnic *v,
							 const void *data, uint32_t len)
{
	if (wire_may_grow(v->st) && add_to_sent(e, k, v, data, len))
		return (ssize_t)len;
	return send_one(e, k, v, data, len, true);
}

/* The vNIC, if the connection is one for the short way and the bytes fit; else NULL. */
static inline struct vnic *sendable(struct engine *e, struct sock *k, const void *data, size_t len)
{
	struct tcb *t = &k->tcp;

	if (!t->hdr_len || bad_address(data) || t->state != TCP_ESTABLISHED || t->flags & SLOW_SEND || k->so_error ||
	    k->flags & SOCKF_SHUT_WR || t->lost | t->ooo_count | (t->dsack_start ^ t->dsack_end) ||
	    t->notsent_lowat | e->s->cfg.defaults.notsent_lowat || !len || len > 0xffff ||
	    (t->txq.bytes + len) * 3 > (uint64_t)k->sndbuf * 2 || t->txq.bytes + len > t->snd_wnd)
		return NULL;
	return fast_vnic(e, k);
}

ssize_t tcp_fast_gather(struct engine *e, struct sock *k, const void *data, size_t len)
{
	struct vnic *v = sendable(e, k, data, len);

	sock_changing(e->s, k);
	return v ? add_to_waiting(e, k, v, data, (uint32_t)len) : 0;
}

ssize_t tcp_fast_send(struct engine *e, struct sock *k, const void *data, size_t len, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	struct vnic *v = sendable(e, k, data, len);

	sock_changing(e->s, k);
	if (!v)
		return 0;
	tcp_set_now(e, now_us);
	if (t->send_head)
		return add_to_waiting(e, k, v, data, (uint32_t)len);
	if (t->flags & TCPF_NODELAY && __builtin_expect(wire_lags(v->st), 0))
		return send_to_laggard(e, k, v, data, (uint32_t)len);
	return send_one(e, k, v, data, (uint32_t)len, false);
}

/* --- in --- */

/* What the short way needs of a segment's headers. */
struct brief {
	uint32_t seq, ack, wnd, len, payload;
	uint8_t flags;
};

/* Is this a segment of the connection whose headers these are? They are ours, so the other way around. */
static inline bool same_connection(const struct tcb *t, const uint8_t *tcp)
{
	const uint8_t *ours = t->hdr + HDR - TCP_HEADER;
	uint32_t ports, our_ports;

	memcpy(&ports, tcp, 4);
	memcpy(&our_ports, ours, 4);
	if (ports != (our_ports >> 16 | our_ports << 16))
		return false;
	if (t->hdr_len == V4_LEN) {
		uint64_t addrs = get_word(ours - 8);

		return get_word(tcp - 8) == (addrs >> 32 | addrs << 32);
	}
	return addr_equal(tcp - 32, ours - 16) && addr_equal(tcp - 16, ours - 32);
}

/* Read the copied headers of a frame of len bytes. The TCP header's offset in it; 0: not for the short way. */
static inline uint32_t read_brief(const uint8_t *h, uint32_t len, bool open, struct brief *b)
{
	uint32_t at, end, ip_len;

	if (get_be16(h + 12) == ETH_IPV4) { /* no options, no fragment */
		if (h[0] & 1 || h[14] != 0x45 || get_be16(h + 20) & 0x3fff || h[23] != PROTO_TCP)
			return 0;
		at = ETH_HEADER + IPV4_HEADER;
		ip_len = get_be16(h + 16);
		end = ip_len || !open ? ETH_HEADER + ip_len : len;
	} else {
		if (h[0] & 1 || get_be16(h + 12) != ETH_IPV6 || h[14] >> 4 != 6 || h[20] != PROTO_TCP)
			return 0;
		at = ETH_HEADER + IPV6_HEADER;
		ip_len = get_be16(h + 18);
		end = ip_len || !open ? at + ip_len : len;
	}
	b->payload = at + TCP_HEADER;
	if (end < b->payload || end > len || h[at + 12] != TCP_HEADER << 2)
		return 0;
	b->len = end - b->payload;
	b->seq = get_be32(h + at + 4);
	b->ack = get_be32(h + at + 8);
	b->flags = h[at + 13];
	b->wnd = get_be16(h + at + 14);
	return at;
}

/* The connection of a segment that came over this vNIC, NULL: the long way finds it. */
static inline struct sock *find(struct stack *s, struct vnic_state *st, uint32_t vnic, const uint8_t *h, uint32_t at)
{
	struct sock *k = sock_at(s, st->last_sock);
	struct endpoint src, dst;

	if (k && k->proto == SOCK_TCP && k->vnic == vnic && k->tcp.hdr_len == at + TCP_HEADER &&
	    same_connection(&k->tcp, h + at))
		return k;
	if (at == ETH_HEADER + IPV4_HEADER) {
		map_v4(src.addr, h + at - 8);
		map_v4(dst.addr, h + at - 4);
	} else {
		memcpy(src.addr, h + at - 32, 16);
		memcpy(dst.addr, h + at - 16, 16);
	}
	src.port = get_be16(h + at);
	dst.port = get_be16(h + at + 2);
	k = sock_lookup(s, SOCK_TCP, &dst, &src);
	if (!k || k->vnic != vnic || k->tcp.hdr_len != at + TCP_HEADER)
		return NULL;
	st->last_sock = sock_index(s, k);
	return k;
}

/* Header prediction: the next segment in order, or a plain ACK, on a connection where nothing was lost. */
static inline bool predicted(const struct sock *k, const struct brief *b)
{
	const struct tcb *t = &k->tcp;

	if (t->state != TCP_ESTABLISHED || (b->flags & ~TH_PSH) != TH_ACK || b->seq != t->rcv_nxt ||
	    t->flags & SLOW_INPUT || t->ooo_count || b->len > t->rcv_adv - t->rcv_nxt ||
	    seq_gt(t->rcv_nxt, t->rcv_adv) || b->ack - t->snd_una > t->snd_nxt - t->snd_una)
		return false;
	if (b->ack == t->snd_una)
		return b->len && b->wnd << t->snd_wscale == t->snd_wnd && !t->probes;
	return !(t->lost | t->sacked | t->retrans | t->ca_state | t->tlp_out | t->frto);
}

/* As pkt_free, for what was sent over this wire. */
static inline void free_tx(struct engine *e, struct vnic *v, struct pkt *p)
{
	struct vnic_state *st = v->st;

	if (__builtin_expect(st->dead || p->vnic_gen != v->gen, 0)) {
		pkt_free(e, p);
		return;
	}
	st->tx_state[p->buf] &= (uint8_t)~VNIC_TX_PKT;
	vnic_tx_put(st, p->buf);
	pkt_put(e->s, p);
}

/* Everything before ack has arrived. */
static inline void take_ack(struct engine *e, struct sock *k, struct vnic *v, const struct brief *b)
{
	struct tcb *t = &k->tcp;
	uint32_t acked = b->ack - t->snd_una, wnd = b->wnd << t->snd_wscale;
	uint64_t sent_us = 0;
	struct pkt *p;

	while ((p = pkt_at(e->s, t->txq.head)) && p->flags & PKT_SENT && seq_leq(p->seq + p->len, b->ack)) {
		sent_us = p->flags & PKT_EVER_RETRANS ? sent_us : p->sent_us;
		pkt_shift(e->s, &t->txq, p);
		free_tx(e, v, p);
	}
	if (p && p->flags & PKT_SENT && seq_lt(p->seq, b->ack)) { /* the peer took a part of it */
		uint32_t n = b->ack - p->seq;

		p->seq += n;
		p->off += (uint16_t)n;
		p->len -= n;
		t->txq.bytes -= n;
	}
	t->snd_una = b->ack;
	t->snd_wnd = wnd;
	t->snd_max_wnd = max_u32(t->snd_max_wnd, wnd);
	t->snd_wl1 = b->seq;
	t->snd_wl2 = b->ack;
	t->delivered += acked;
	t->bytes_acked += acked;
	t->probes = t->rtos = t->backoff = 0;
	t->soft_error = 0;
	t->first_retrans_us = 0;
	t->flags &= ~TCPF_KEEP_WAIT;
	if (sent_us && e->s->now_us >= t->rtt_next_us) {
		t->rtt_next_us = e->s->now_us + RTT_EVERY_US;
		tcp_rtt_sample(e, k, e->s->now_us - sent_us);
	}
	if (t->snd_una == t->snd_nxt)
		t->timer[TIMER_RTO].deadline_us = 0;
	else
		restart_rto(e, k);
	if (t->flags & TCPF_NOSPACE || (k->sndbuf < t->snd_max_wnd + t->mss && !(k->flags & SOCKF_SNDBUF_SET)))
		tcp_write_space(e, k);
}

/* The payload is the socket's next: p, which is new, gets the buffer. */
static inline void take_data(struct engine *e, struct sock *k, const struct vnic *v, const struct vnic_desc *d,
			     const struct brief *b, struct pkt *p)
{
	struct tcb *t = &k->tcp;

	p->buf = d->buf;
	p->off = (uint16_t)(d->off + b->payload);
	p->len = b->len;
	p->vnic = (uint16_t)k->vnic;
	p->vnic_gen = v->gen;
	p->seq = t->rcv_nxt;
	pkt_append(e->s, &k->rxq, p);
	t->rcv_nxt += b->len;
	t->bytes_received += b->len;
	k->rx_bytes += b->len;
	tcp_rcv_data_arrived(e, k, b->len, (b->flags & TH_PSH) != 0);
	k->edges |= k->holders ? EV_IN : 0;
	if (k->holders & ~k->dirty_mask)
		sock_notify(e, k, EV_IN | EV_RDNORM);
}

/* As tcp_rx_ack_policy, where it only delays the ACK. */
static inline void delay_ack(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	if (t->flags & (TCPF_ACK_NOW | TCPF_QUICKACK) || t->rcv_nxt - t->rcv_wup > t->rcv_mss ||
	    (t->quick_acks && !(t->flags & TCPF_PINGPONG)))
		tcp_rx_ack_policy(e, k);
	else if (t->flags & TCPF_ACK_DELAYED && !t->timer[TIMER_DELACK].deadline_us)
		set_timer(e, k, TIMER_DELACK, e->s->now_us + (uint64_t)e->s->cfg.defaults.delack_ms * 1000);
}

/* Small segments before a slow reader are packed, and a peer short of buffers gets them back: the long way. */
static inline bool keep_in_place(const struct sock *k, const struct vnic_state *st, uint32_t len)
{
	return st->rx_held * 8 <= st->rx_count && k->rcvlowat <= 1 && (k->rxq.count < PACK_FROM || len > PACK_MAX);
}

bool tcp_fast_input(struct engine *e, uint32_t vnic, const struct vnic_desc *d)
{
	struct stack *s = e->s;
	struct vnic *v = &e->vnic[vnic];
	const uint8_t *frame = vnic_rx_buf(v, d->buf) + d->off;
	struct pkt *p = NULL;
	struct brief b;
	struct sock *k;
	uint8_t h[HDR];
	uint32_t at;
	bool acked;

	if (d->len < V4_LEN || v->st->buf_size - d->off < HDR)
		return false;
	memcpy(h, frame, HDR);
	__asm__ volatile("" : : "r"(h) : "memory"); /* the copy is made, and the frame not read again */
	at = read_brief(h, d->len, d->flags & VNIC_F_OPEN, &b);
	if (!at || !(k = find(s, v->st, vnic, h, at)) || !predicted(k, &b))
		return false;
	if (b.len && (!keep_in_place(k, v->st, b.len) || !(p = pkt_new(s, PKT_RX))))
		return false;
	sock_changing(s, k);
	count(s, C_tcp_segs_in);
	count(s, C_tcp_fast_path);
	k->tcp.segs_in++;
	k->tcp.last_rcv_us = s->now_us;
	acked = b.ack != k->tcp.snd_una;
	if (acked)
		take_ack(e, k, v, &b);
	if (p)
		take_data(e, k, v, d, &b, p);
	else
		v->ops->release(v, d->buf);
	if (acked && k->tcp.send_head)
		tcp_output(e, k);
	if (p)
		delay_ack(e, k);
	return true;
}

/* --- the program reads --- */

/* Does tcp_was_read have anything to do? */
static inline bool read_matters(const struct engine *e, const struct sock *k)
{
	const struct tcb *t = &k->tcp;
	uint32_t owed = t->flags & (TCPF_ACK_DELAYED | TCPF_ACK_NOW);

	return (t->rcv_rtt_us && e->s->now_us - t->rcvq_time_us >= t->rcv_rtt_us) ||
	       2 * (uint64_t)(t->rcv_adv - t->rcv_nxt) <= k->rcvbuf || seq_gt(t->rcv_nxt, t->rcv_adv) ||
	       (owed && (t->rcv_nxt - t->rcv_wup > t->rcv_mss || t->flags & TCPF_PUSHED2 ||
			 (t->flags & (TCPF_PUSHED | TCPF_PINGPONG)) == TCPF_PUSHED));
}

ssize_t tcp_fast_recv(struct engine *e, struct sock *k, void *to, size_t len, uint64_t now_us)
{
	struct tcb *t = &k->tcp;
	struct pkt *p = pkt_at(e->s, k->rxq.head);
	size_t done = 0;

	sock_changing(e->s, k);
	if ((!t->hdr_len && !sock_mac(e, k)) || bad_address(to) || t->flags & TCPF_URG_VALID)
		return 0;
	while (p && done < len) {
		struct vnic *v = p->kind == PKT_RX ? pkt_vnic(e, p) : NULL;
		const uint8_t *from = v ? vnic_rx_buf(v, p->buf) + p->off : pkt_data(e, p);
		uint32_t n = (uint32_t)(p->len < len - done ? p->len : len - done);
		struct pkt *next = pkt_at(e->s, p->next);

		if (!from)
			break;
		if (next && v && next->kind == PKT_RX)
			__builtin_prefetch(vnic_rx_buf(v, next->buf) + next->off);
		memcpy((uint8_t *)to + done, from, n);
		done += n;
		if (n < p->len) {
			p->seq += n;
			p->off = (uint16_t)(p->off + n);
			p->len -= n;
			k->rxq.bytes -= n;
			break;
		}
		pkt_shift(e->s, &k->rxq, p);
		if (v) {
			v->ops->release(v, p->buf);
			pkt_put(e->s, p);
		} else {
			pkt_free(e, p);
		}
		p = next;
	}
	if (!done)
		return 0;
	tcp_set_now(e, now_us);
	t->rcv_read += (uint32_t)done;
	t->rcvq_copied += (uint32_t)done;
	if (read_matters(e, k))
		tcp_was_read(e, k, true);
	return (ssize_t)done;
}
