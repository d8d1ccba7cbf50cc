/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool of pkts and the ends of queues, inline for the data path (pkt.c, tcp_fast.c, tcp_recv.c).
 */
#ifndef VD_PKT_INLINE_H
#define VD_PKT_INLINE_H

#include <string.h>

#include "engine/engine.h"

static inline struct pkt *pkt_new(struct stack *s, enum pkt_kind kind)
{
	struct stack_pool *pool = &s->pkt_pool;
	struct pkt *p = pkt_at(s, pool->free_head);

	if (__builtin_expect(p != NULL, 1)) {
		pool->free_head = p->next;
	} else if (pool->mark < pool->limit) {
		p = pkt_at(s, pool->mark++);
	} else {
		count(s, C_pkt_none);
		return NULL;
	}
	pool->in_use++;
	memset(p, 0, sizeof(*p));
	p->kind = (uint8_t)kind;
	return p;
}

static inline void pkt_put(struct stack *s, struct pkt *p)
{
	p->kind = PKT_FREE;
	p->next = s->pkt_pool.free_head;
	s->pkt_pool.free_head = pkt_index(s, p);
	s->pkt_pool.in_use--;
}

/* This process's mapping of the vNIC that p's buffer belongs to; NULL: not mapped, or another by now. */
static inline struct vnic *pkt_vnic(struct engine *e, const struct pkt *p)
{
	struct vnic *v = p->vnic < VNIC_MAX ? &e->vnic[p->vnic] : NULL;

	return v && v->ops && v->gen == p->vnic_gen ? v : NULL;
}

/* As pkt_push_tail, for a new pkt (its links are 0). */
static inline void pkt_append(struct stack *s, struct pkt_queue *q, struct pkt *p)
{
	uint32_t i = pkt_index(s, p);
	struct pkt *last = pkt_at(s, q->tail);

	p->prev = q->tail;
	if (last)
		last->next = i;
	else
		q->head = i;
	q->tail = i;
	q->count++;
	q->bytes += p->len;
}

/* As pkt_unlink, for the first one, p, that is freed next: its own links stay as they are. */
static inline void pkt_shift(struct stack *s, struct pkt_queue *q, const struct pkt *p)
{
	struct pkt *next = pkt_at(s, p->next);

	q->head = p->next;
	if (next)
		next->prev = 0;
	else
		q->tail = 0;
	q->count--;
	q->bytes -= p->len;
}

#endif
