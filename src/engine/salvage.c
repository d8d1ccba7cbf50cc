/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack whose last process died while a thread of it was inside: whatever that was changing may be half done. The
 * kernel would go on sending what it had accepted, so what can be proven whole goes on here (viaductd's child, with
 * nobody else in the stack); the rest is reset.
 *
 * Proof. A thread changes one place at a time, and what a send() that never returned has queued belongs to nobody. So a
 * send queue is followed from its head and from its end, and each pkt must begin where the one before ended; where a
 * change was under way one of the two ways, or both together, still reach from snd_una to the end. What was received
 * is not followed: unread, it means RST anyway.
 *
 * Everything else is made anew from the queues that were kept: pools, the lookup table, the wheel, the vNICs' lists of
 * buffers. What was in flight is taken for being in flight, and the retransmission timer finds out.
 */
#include <string.h>

#include "engine/tcp_internal.h"

#define KEPT 0x4b455054u /* pkt.aux2 of a pkt of a queue that goes on; nothing else uses it in a send queue */
#define QUEUE_MAX (64u << 20)

/* --- proof --- */

/* One without bytes was being filled; sent as a part of a frame it would make the kernel drop all of that. */
static bool sound(struct engine *e, const struct pkt *p, uint32_t seq)
{
	const struct vnic *v = p->vnic < VNIC_MAX ? &e->vnic[p->vnic] : NULL;

	return p->kind == PKT_TX && p->aux2 != KEPT && v && v->ops && v->gen == p->vnic_gen &&
	       p->buf < v->st->tx_count && p->buf < VNIC_BUFS_MAX && !(v->st->tx_state[p->buf] & VNIC_TX_PKT) &&
	       p->seq == seq && p->len && p->len <= v->st->buf_size && p->off + p->len <= v->st->buf_size && !p->frag;
}

/* p goes on, and its buffer is nobody else's. */
static void keep(struct engine *e, struct pkt *p)
{
	p->aux2 = KEPT;
	e->vnic[p->vnic].st->tx_state[p->buf] |= VNIC_TX_PKT;
}

static void let_go(struct engine *e, struct pkt *p)
{
	p->aux2 = 0;
	e->vnic[p->vnic].st->tx_state[p->buf] &= (uint8_t)~VNIC_TX_PKT;
}

/* Follow the queue from its head as far as it is sound, marking. Returns the last one; *end: where it ends. */
static struct pkt *keep_forward(struct engine *e, struct sock *k, uint32_t *first, uint32_t *end)
{
	struct pkt *p = pkt_at(e->s, k->tcp.txq.head), *last = NULL;

	*first = *end = p ? p->seq : 0;
	while (p && sound(e, p, *end) && *end + p->len - *first <= QUEUE_MAX) {
		keep(e, p);
		p->prev = last ? pkt_index(e->s, last) : 0;
		*end += p->len;
		last = p;
		p = pkt_at(e->s, p->next);
	}
	return last;
}

/* Follow it from its end down to `first`, and put what is found behind `last`. The new last one. */
static struct pkt *keep_backward(struct engine *e, struct sock *k, struct pkt *last, uint32_t *first, uint32_t *end)
{
	struct stack *s = e->s;
	struct pkt *p = pkt_at(s, k->tcp.txq.tail), *after = NULL, *tail = NULL;
	uint32_t start = k->tcp.snd_una, at;

	if (p && p->aux2 == KEPT)
		return last; /* the whole queue was found */
	for (at = p ? p->seq : 0; p && p->aux2 != KEPT && sound(e, p, p->seq); p = pkt_at(s, p->prev)) {
		if (after && p->seq + p->len != at)
			break;
		if (seq_leq(p->seq + p->len, start))
			break; /* acknowledged: being freed */
		keep(e, p);
		p->next = after ? pkt_index(s, after) : 0;
		tail = tail ? tail : p;
		at = p->seq;
		after = p;
	}
	if (!after)
		return last;
	if (last && at != *end) { /* a gap: what is behind it was never accepted, or is lost to us */
		for (p = after; p; p = pkt_at(s, p->next))
			let_go(e, p);
		return last;
	}
	after->prev = last ? pkt_index(s, last) : 0;
	if (last)
		last->next = pkt_index(s, after);
	*first = last ? *first : at;
	*end = tail->seq + tail->len;
	return tail;
}

static struct pkt *first_of(struct engine *e, struct pkt *last)
{
	struct pkt *p = last;

	for (struct pkt *q; p && (q = pkt_at(e->s, p->prev)); p = q)
		q->next = pkt_index(e->s, p);
	return p;
}

static void drop_queue(struct engine *e, struct pkt *last)
{
	for (struct pkt *p = last; p; p = pkt_at(e->s, p->prev))
		let_go(e, p);
}

/* What is acknowledged goes, also a part of the first. The new first one. */
static struct pkt *trim(struct engine *e, struct pkt *p, uint32_t una)
{
	while (p && seq_leq(p->seq + p->len, una)) {
		let_go(e, p);
		p = pkt_at(e->s, p->next);
	}
	if (!p)
		return NULL;
	p->prev = 0;
	if (seq_lt(p->seq, una)) {
		p->off = (uint16_t)(p->off + (una - p->seq));
		p->len -= una - p->seq;
		p->seq = una;
	}
	return p;
}

/* Make txq of what was kept. False: it does not fit what the connection says of itself. */
static bool rebuild_queue(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t first, end, fin;
	struct pkt *last = keep_forward(e, k, &first, &end), *p;

	last = keep_backward(e, k, last, &first, &end);
	if (!last) {
		t->txq = (struct pkt_queue){0};
		return !seq_gt(t->snd_end, t->snd_una); /* else there was something, and it is not there */
	}
	fin = t->flags & TCPF_FIN_SENT ? 1 : 0;
	if (seq_gt(first, t->snd_max) || seq_gt(t->snd_max, end + fin)) {
		drop_queue(e, last);
		return false;
	}
	if (seq_gt(first, t->snd_una)) /* acknowledged and freed, and not yet noted */
		t->snd_una = first;
	last->next = 0;
	p = trim(e, first_of(e, last), t->snd_una);
	t->txq = (struct pkt_queue){.head = p ? pkt_index(e->s, p) : 0};
	for (; p; p = pkt_at(e->s, p->next)) {
		t->txq.tail = pkt_index(e->s, p);
		t->txq.count++;
		t->txq.bytes += p->len;
	}
	t->snd_end = end;
	return true;
}

/* --- what becomes of each socket --- */

static bool wants_reset(const struct sock *k)
{
	const struct tcb *t = &k->tcp;

	return t->state == TCP_SYN_RECEIVED || (t->parent && !k->holders) || k->rxq.bytes || k->rxq.head ||
	       (k->flags & SOCKF_LINGER && !k->linger_s);
}

static enum salvage judge(struct engine *e, struct sock *k)
{
	const struct tcb *t = &k->tcp;
	const struct vnic *v = k->vnic < VNIC_MAX ? &e->vnic[k->vnic] : NULL;

	if (k->proto != SOCK_TCP || !k->remote.port || t->state == TCP_CLOSED || t->state == TCP_LISTEN ||
	    t->state == TCP_SYN_SENT || t->state == TCP_TIME_WAIT || !v || !v->ops || v->st->gen != k->vnic_gen)
		return SALVAGE_DROP;
	return wants_reset(k) || !rebuild_queue(e, k) ? SALVAGE_RESET : SALVAGE_KEEP;
}

/* --- making everything anew --- */

static void rebuild_pkts(struct stack *s)
{
	struct stack_pool *pool = &s->pkt_pool;

	if (pool->mark > pool->limit)
		pool->mark = pool->limit;
	pool->free_head = pool->in_use = 0;
	for (uint32_t i = pool->mark; i-- > 1;) {
		struct pkt *p = pkt_at(s, i);

		if (p->kind == PKT_TX && p->aux2 == KEPT) {
			p->aux2 = 0;
			pool->in_use++;
			continue;
		}
		p->kind = PKT_FREE;
		p->next = pool->free_head;
		pool->free_head = i;
	}
	s->private_pool = (struct stack_pool){.mark = 1, .limit = s->private_pool.limit};
}

/* Before the queues are looked at: no tx buffer belongs to any yet. */
static void disown_buffers(struct engine *e, uint32_t i)
{
	struct vnic_state *st = stack_vnic(e->s, i);

	for (uint32_t b = 0; b < VNIC_BUFS_MAX; b++)
		st->tx_state[b] &= VNIC_TX_NIC;
}

static void rebuild_vnic(struct engine *e, uint32_t i)
{
	struct vnic_state *st = stack_vnic(e->s, i);

	memset(stack_iface(e->s, i), 0, sizeof(struct iface));
	st->txwait_head = st->txwait_tail = st->txheld_head = st->txheld_tail = st->last_sock = 0;
	st->free_top = 0;
	for (uint32_t b = 0; b < st->tx_count && b < VNIC_BUFS_MAX; b++)
		if (!st->tx_state[b])
			st->tx_free[st->free_top++] = (uint16_t)b;
}

static void clear_tables(struct stack *s)
{
	memset((char *)s + s->off_hash, 0, (size_t)s->cfg.hash_buckets * sizeof(uint32_t));
	memset(s->wheel.slot, 0, sizeof(s->wheel.slot));
	memset(s->wheel.occupied, 0, sizeof(s->wheel.occupied));
	s->wheel.pending = 0;
	s->tw_head = s->tw_tail = s->tw_count = s->last_tcp = s->ack_soon = s->burst_more = s->burst_ack = 0;
	s->path_waiters = s->orphan_count = s->promisers = 0;
	s->promised = 0;
	s->lock.changing = 0;
	s->sock_pool.free_head = s->sock_pool.in_use = s->socks_kept = 0;
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		stack_vnic(s, i)->open_sock = 0; /* nobody opens at once with the dead */
}

/* Scoreboard and receiver begin anew. */
static void reset_sides(struct tcb *t)
{
	t->sacked = t->lost = t->retrans = t->sacked_pkts = t->undo_retrans = 0;
	t->ca_state = TCP_CA_OPEN;
	t->undo_ok = t->frto = t->tlp_out = t->dupacks = t->probes = 0;
	t->prr_delivered = t->prr_out = t->prr_flight = t->rtt_sent_us = 0;
	t->recover = t->snd_nxt;
	t->fack = t->snd_una;
	t->cwnd = t->cwnd > 2 * t->mss ? t->cwnd : 2 * t->mss;
	t->ooo_root = t->ooo_count = t->ooo_bytes = 0;
	t->rcv_read = t->rcv_nxt;
	t->promised = t->ack_soon_next = 0;
	t->parent = t->q_next = t->q_prev = 0;
	t->flags &= ~(TCPF_ACK_SOON | TCPF_NOBUF | TCPF_NOSPACE | TCPF_TW_LISTED | TCPF_FIN_OOO);
}

static void resume(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;

	memset(&k->rxq, 0, sizeof(k->rxq));
	memset(&k->errq, 0, sizeof(k->errq));
	memset(t->timer, 0, sizeof(t->timer));
	k->hash_next = k->txwait_next = k->txwait_prev = k->txwait_held = 0;
	k->flags &= ~SOCKF_HASHED;
	t->send_head = 0;
	for (struct pkt *p = pkt_at(e->s, t->txq.head); p; p = pkt_at(e->s, p->next)) {
		bool sent = seq_lt(p->seq, t->snd_max);

		p->flags = (uint8_t)((p->flags & (PKT_PSH | PKT_END)) | (sent ? PKT_SENT | PKT_EVER_RETRANS : 0));
		if (sent && seq_gt(p->seq + p->len, t->snd_max))
			t->snd_max = p->seq + p->len;
		if (!sent && !t->send_head)
			t->send_head = pkt_index(e->s, p);
	}
	t->snd_nxt = t->snd_max;
	reset_sides(t);
	e->s->orphan_count += (k->flags & SOCKF_ORPHAN) != 0;
	e->s->sock_pool.in_use++;
	sock_hash(e->s, k);
}

/* On its way again, if no program has it any more; the others' turn comes when they are closed. */
static void restart(struct engine *e, struct sock *k)
{
	if (k->tcp.snd_una != k->tcp.snd_nxt)
		tcp_arm_rto(e, k);
	if (!(k->flags & SOCKF_ORPHAN))
		return;
	if (k->tcp.state == TCP_FIN_WAIT_2)
		tcp_fin_wait_2(e, k);
	else
		tcp_output(e, k);
}

void engine_salvage(struct engine *e, uint8_t *fate)
{
	struct stack *s = e->s;
	uint32_t high = s->sock_pool.mark < s->cfg.max_socks ? s->sock_pool.mark : s->cfg.max_socks;

	count(s, C_stack_repaired);
	for (uint32_t i = 1; i < s->pkt_pool.mark && i < s->pkt_pool.limit; i++)
		pkt_at(s, i)->aux2 = 0;
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (e->vnic[i].ops)
			disown_buffers(e, i);
	for (uint32_t i = 1; i < high; i++)
		fate[i] = (uint8_t)judge(e, sock_at(s, i));
	rebuild_pkts(s);
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (e->vnic[i].ops)
			rebuild_vnic(e, i);
	clear_tables(s);
	for (uint32_t i = high; i-- > 1;) {
		struct sock *k = sock_at(s, i);

		k->dirty_mask = 0;
		if (fate[i] == SALVAGE_KEEP) {
			resume(e, k);
			continue;
		}
		k->proto = SOCK_FREE; /* the rest of it is left for its reset */
		k->gen++;
		k->pool_next = s->sock_pool.free_head;
		s->sock_pool.free_head = i;
	}
	for (uint32_t i = 1; i < high; i++)
		if (fate[i] == SALVAGE_RESET)
			tcp_send_rst(e, sock_at(s, i));
	for (uint32_t i = 1; i < high; i++)
		if (fate[i] == SALVAGE_KEEP)
			restart(e, sock_at(s, i));
}
