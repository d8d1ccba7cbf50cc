/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stack's bookkeeping, checked against itself, for tests and for a successor that repairs after its owner died.
 *
 * It needs no memory of its own: instead of marking what it has seen it counts. Each pkt that is in a queue must be in
 * use, and as many as the pool says are in use must be found; the same for private buffers, and for each vNIC's
 * rx and tx buffers.
 */
#include "engine/engine.h"

struct census {
	uint32_t pkts, private; /* found in queues */
	uint32_t bad;
};

static uint32_t differ(uint32_t a, uint32_t b)
{
	return a > b ? a - b : b - a;
}

/* Walk one queue with the parts of its datagrams. */
static void census_queue(struct engine *e, const struct pkt_queue *q, struct census *c)
{
	struct stack *s = e->s;
	uint32_t entries = 0, bytes = 0, last = 0, left = s->pkt_pool.limit;

	for (uint32_t i = q->head; i && left; entries++) {
		struct pkt *p = pkt_at(s, i);

		for (struct pkt *part = p; part && left; part = pkt_at(s, part->frag), left--) {
			c->pkts++;
			c->private += part->kind == PKT_PRIVATE && part->buf != PKT_NO_BUF;
			c->bad += part->kind == PKT_FREE;
			bytes += part->len;
		}
		last = i;
		i = p ? p->next : 0;
	}
	c->bad += !left + (entries != q->count) + (last != q->tail) + (bytes != q->bytes);
}

/* pkts in use that own an rx (tx) buffer of this vNIC. */
static void owners(struct stack *s, uint32_t vnic, uint32_t gen, uint32_t *rx, uint32_t *tx)
{
	*rx = *tx = 0;
	for (uint32_t i = 1; i < s->pkt_pool.mark; i++) {
		const struct pkt *p = pkt_at(s, i);

		if (p->vnic != vnic || p->vnic_gen != gen)
			continue;
		*rx += p->kind == PKT_RX;
		*tx += p->kind == PKT_TX;
	}
}

static uint32_t audit_vnic(struct stack *s, uint32_t i)
{
	const struct vnic_state *st = stack_vnic(s, i);
	const struct iface *ifc = stack_iface(s, i);
	uint32_t rx, tx, tx_pkt = 0, busy = 0;

	owners(s, i, st->gen, &rx, &tx);
	for (uint32_t b = 0; b < st->tx_count; b++) {
		tx_pkt += (st->tx_state[b] & VNIC_TX_PKT) != 0;
		busy += st->tx_state[b] != 0;
	}
	return differ(st->rx_held, rx + ifc->parts + ifc->deferred) + differ(tx, tx_pkt) +
	       differ(st->tx_count, st->free_top + busy);
}

/* pkts on the free list and never used, with those in use, must make the pool. */
static uint32_t audit_pkt_pool(struct stack *s)
{
	uint32_t free = 0, used = 0;

	for (uint32_t i = s->pkt_pool.free_head; i && free < s->pkt_pool.limit; free++) {
		struct pkt *p = pkt_at(s, i);

		if (!p || p->kind != PKT_FREE)
			return 1;
		i = p->next;
	}
	for (uint32_t i = 1; i < s->pkt_pool.mark; i++)
		used += pkt_at(s, i)->kind != PKT_FREE;
	return differ(used, s->pkt_pool.in_use) + differ(s->pkt_pool.mark - 1, used + free);
}

uint32_t stack_audit(struct engine *e)
{
	struct stack *s = e->s;
	struct census c = {0};
	uint32_t socks = 0, kept = 0;
	uint64_t promised = 0;

	for (uint32_t i = 1; i < s->sock_pool.mark; i++) {
		const struct sock *k = sock_at(s, i);

		if (k->proto == SOCK_FREE)
			continue;
		socks++;
		census_queue(e, &k->rxq, &c);
		census_queue(e, &k->errq, &c);
		if (k->proto == SOCK_TCP) {
			census_queue(e, &k->tcp.txq, &c);
			promised += k->tcp.promised;
			kept += k->tcp.state == TCP_LISTEN ? k->tcp.open_offered : 0;
			c.pkts += k->tcp.ooo_count;
		}
	}
	c.bad += differ(socks, s->sock_pool.in_use) + differ(c.pkts, s->pkt_pool.in_use);
	c.bad += c.private > s->private_pool.in_use;
	c.bad += promised != s->promised;
	c.bad += kept != s->socks_kept;
	if (!s->pkt_pool.in_use)
		c.bad += s->private_pool.in_use;
	c.bad += audit_pkt_pool(s);
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (s->vnic_used[i / 64] >> i % 64 & 1)
			c.bad += audit_vnic(s, i);
	return c.bad;
}
