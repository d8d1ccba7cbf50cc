/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packet descriptors and the buffers they own.
 *
 * A pkt goes back to its pool together with its buffer: a tx buffer to its vNIC's free list (once the peer has let go
 * of it too), an rx buffer to the peer, a private buffer to the stack's pool. A process that has not mapped the vNIC
 * can't give an rx buffer back: it marks it (RX_LET_GO), and the next engine_poll of a process with the mapping
 * does it.
 */
#include <string.h>

#include "engine/pkt_inline.h"

#define RX_LET_GO 0x80u /* in vnic_state.rx_state beside "held" */

static inline uint8_t *private_buf(struct stack *s, uint32_t buf)
{
	return (uint8_t *)s + s->off_private + (size_t)buf * PRIVATE_BUF_SIZE;
}

/* A private buffer's index, 0 none. Free ones hold the index of the next in their first bytes. */
static uint32_t private_alloc(struct stack *s)
{
	struct stack_pool *pool = &s->private_pool;
	uint32_t buf = pool->free_head;

	if (buf && buf < pool->limit) {
		memcpy(&pool->free_head, private_buf(s, buf), sizeof(uint32_t));
	} else if (pool->mark < pool->limit) {
		buf = pool->mark++;
	} else {
		count(s, C_pkt_no_private);
		return 0;
	}
	pool->in_use++;
	return buf;
}

static void private_free(struct stack *s, uint32_t buf)
{
	struct stack_pool *pool = &s->private_pool;

	if (buf == PKT_NO_BUF || buf >= pool->limit)
		return;
	memcpy(private_buf(s, buf), &pool->free_head, sizeof(uint32_t));
	pool->free_head = buf;
	pool->in_use--;
}

static struct pkt *alloc_tx(struct engine *e, uint32_t vnic, uint32_t keep)
{
	struct vnic *v = vnic < VNIC_MAX && e->vnic[vnic].ops ? &e->vnic[vnic] : NULL;
	struct pkt *p;
	int buf;

	if (!v || v->st->free_top <= keep) {
		if (v)
			v->st->stats.tx_no_buffer++;
		return NULL;
	}
	p = pkt_new(e->s, PKT_TX);
	if (!p)
		return NULL;
	buf = vnic_tx_alloc(v);
	if (buf < 0) {
		pkt_put(e->s, p);
		return NULL;
	}
	p->buf = (uint32_t)buf;
	p->off = PKT_HEADROOM;
	p->vnic = (uint16_t)vnic;
	p->vnic_gen = v->gen;
	return p;
}

struct pkt *pkt_alloc_tx(struct engine *e, uint32_t vnic)
{
	return alloc_tx(e, vnic, TXWAIT_RESERVE);
}

struct pkt *pkt_alloc_tx_reserve(struct engine *e, uint32_t vnic)
{
	return alloc_tx(e, vnic, TXWAIT_RESERVE / 2);
}

struct pkt *pkt_alloc_private(struct engine *e)
{
	uint32_t buf = private_alloc(e->s);
	struct pkt *p;

	if (!buf)
		return NULL;
	p = pkt_new(e->s, PKT_PRIVATE);
	if (!p) {
		private_free(e->s, buf);
		return NULL;
	}
	p->buf = buf;
	p->vnic = VNIC_NONE;
	return p;
}

struct pkt *pkt_alloc_empty(struct stack *s)
{
	struct pkt *p = pkt_new(s, PKT_PRIVATE);

	if (p) {
		p->buf = PKT_NO_BUF;
		p->vnic = VNIC_NONE;
	}
	return p;
}

struct pkt *pkt_alloc_rx(struct stack *s, uint32_t vnic, uint32_t buf, uint32_t off, uint32_t len)
{
	struct pkt *p = pkt_new(s, PKT_RX);

	if (p) {
		p->buf = buf;
		p->off = (uint16_t)off;
		p->len = len;
		p->vnic = (uint16_t)vnic;
		p->vnic_gen = stack_vnic(s, vnic)->gen;
	}
	return p;
}

/* The buffer's vNIC is still the same one, but this process has not mapped it. */
static void free_unmapped(struct engine *e, const struct pkt *p)
{
	struct vnic_state *st = stack_vnic(e->s, p->vnic);

	if (!st || st->gen != p->vnic_gen || p->buf >= VNIC_BUFS_MAX)
		return;
	if (p->kind == PKT_TX) {
		struct vnic unmapped = {.st = st}; /* letting go of a tx buffer touches the state only */

		vnic_tx_free(&unmapped, p->buf);
	} else if (st->rx_state[p->buf] && !(st->rx_state[p->buf] & RX_LET_GO)) {
		st->rx_state[p->buf] |= RX_LET_GO;
		stack_iface(e->s, p->vnic)->deferred++;
		e->s->vnic_attention[p->vnic / 64] |= 1ull << p->vnic % 64;
	}
}

void pkt_release_deferred(struct engine *e, uint32_t vnic)
{
	struct iface *ifc = stack_iface(e->s, vnic);
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct vnic *v = &e->vnic[vnic];

	for (uint32_t buf = 0; ifc->deferred && buf < st->rx_count; buf++) {
		if (!(st->rx_state[buf] & RX_LET_GO))
			continue;
		ifc->deferred--;
		if (v->ops) {
			st->rx_state[buf] &= (uint8_t)~RX_LET_GO;
			v->ops->release(v, buf);
		} else { /* about to be freed: nobody waits for it */
			st->rx_state[buf] = 0;
			st->rx_held--;
		}
	}
	ifc->deferred = 0;
}

void pkt_free(struct engine *e, struct pkt *p)
{
	struct stack *s = e->s;

	while (p) {
		struct pkt *next = pkt_at(s, p->frag);
		struct vnic *v;

		if (p->kind == PKT_FREE) {
			count(s, C_pkt_double_free);
			return;
		}
		if (p->kind == PKT_PRIVATE)
			private_free(s, p->buf);
		else if (!(v = pkt_vnic(e, p)))
			free_unmapped(e, p);
		else if (p->kind == PKT_TX)
			vnic_tx_free(v, p->buf);
		else
			v->ops->release(v, p->buf);
		pkt_put(s, p);
		p = next;
	}
}

uint8_t *pkt_data(struct engine *e, const struct pkt *p)
{
	struct vnic *v;

	if (p->kind == PKT_PRIVATE)
		return p->buf ? private_buf(e->s, p->buf) + p->off : NULL;
	v = pkt_vnic(e, p);
	if (!v)
		return NULL;
	return (p->kind == PKT_TX ? vnic_tx_buf(v, p->buf) : vnic_rx_buf(v, p->buf)) + p->off;
}

uint32_t pkt_room(struct engine *e, const struct pkt *p)
{
	uint32_t size = 0, used = p->off + p->len;

	if (p->kind == PKT_PRIVATE && p->buf)
		size = PRIVATE_BUF_SIZE;
	else if (p->kind == PKT_TX && p->vnic < VNIC_MAX)
		size = stack_vnic(e->s, p->vnic)->buf_size;
	return size > used ? size - used : 0;
}

void pkt_push_tail(struct stack *s, struct pkt_queue *q, struct pkt *p)
{
	p->next = 0;
	pkt_append(s, q, p);
}

void pkt_insert_after(struct stack *s, struct pkt_queue *q, struct pkt *after, struct pkt *p)
{
	uint32_t i = pkt_index(s, p);
	struct pkt *next = pkt_at(s, after ? after->next : q->head);

	p->prev = after ? pkt_index(s, after) : 0;
	p->next = next ? pkt_index(s, next) : 0;
	if (after)
		after->next = i;
	else
		q->head = i;
	if (next)
		next->prev = i;
	else
		q->tail = i;
	q->count++;
	q->bytes += p->len;
}

void pkt_unlink(struct stack *s, struct pkt_queue *q, struct pkt *p)
{
	struct pkt *next = pkt_at(s, p->next), *prev = pkt_at(s, p->prev);

	if (prev)
		prev->next = p->next;
	else
		q->head = p->next;
	if (next)
		next->prev = p->prev;
	else
		q->tail = p->prev;
	p->next = p->prev = 0;
	q->count--;
	q->bytes -= p->len;
}

void pkt_push_datagram(struct stack *s, struct pkt_queue *q, struct pkt *p, uint32_t bytes)
{
	struct pkt *last = pkt_at(s, q->tail);
	uint32_t i = pkt_index(s, p);

	p->next = 0;
	if (last)
		last->next = i;
	else
		q->head = i;
	q->tail = i;
	q->count++;
	q->bytes += bytes;
}

void pkt_shift_datagram(struct pkt_queue *q, const struct pkt *p, uint32_t bytes)
{
	q->head = p->next;
	if (!p->next)
		q->tail = 0;
	q->count--;
	q->bytes -= bytes;
}

void pkt_queue_free(struct engine *e, struct pkt_queue *q)
{
	struct pkt *p = pkt_at(e->s, q->head);

	while (p) {
		struct pkt *next = pkt_at(e->s, p->next);

		pkt_free(e, p);
		p = next;
	}
	*q = (struct pkt_queue){0};
}
