/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets: slots of a pool, and the news about them that each process collects.
 *
 * News: sock_notify puts a socket into the dirty ring of each process that holds it, once until that process has
 * collected it (dirty_mask). The mask outlives the socket: an entry that is still in a ring then stands for the
 * slot's next user, who finds it there at worst without cause.
 */
#include <assert.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/tcp_internal.h"

struct sock *sock_alloc(struct engine *e, enum sock_proto proto, int family)
{
	struct stack *s = e->s;
	struct stack_pool *pool = &s->sock_pool;
	struct sock *k = sock_at(s, pool->free_head);
	uint64_t dirty_mask;
	uint32_t gen;

	if (pool->limit - 1 - pool->in_use <= s->socks_kept) {
		count(s, C_sock_none);
		return NULL;
	}
	if (k) {
		pool->free_head = k->pool_next;
	} else if (pool->mark < pool->limit) {
		k = sock_at(s, pool->mark++);
	} else {
		count(s, C_sock_none);
		return NULL;
	}
	pool->in_use++;
	sock_changing(s, k);
	gen = k->gen + 1;
	dirty_mask = k->dirty_mask;
	memset(k, 0, sizeof(*k));
	k->gen = gen ? gen : 1;
	k->dirty_mask = dirty_mask;
	k->proto = (uint8_t)proto;
	k->family = (uint8_t)family;
	k->vnic = VNIC_NONE;
	k->rcvbuf = s->cfg.defaults.rcvbuf;
	k->sndbuf = s->cfg.defaults.sndbuf;
	k->ttl = family == 4 ? (uint8_t)s->cfg.defaults.ttl : 0;
	k->pmtudisc = (uint8_t)s->cfg.defaults.pmtudisc;
	k->rcvlowat = 1;
	k->created_us = s->now_us;
	if (proto == SOCK_TCP)
		tcp_sock_init(e, k);
	return k;
}

void sock_free(struct engine *e, struct sock *k)
{
	struct stack *s = e->s;

	assert(k->proto != SOCK_FREE);
	assert(!(k->flags & SOCKF_HASHED));
	assert(!k->rxq.head);
	if (k->errq.head)
		errqueue_purge(e, k);
	txwait_remove(e, k);
	if (k->proto == SOCK_TCP) {
		assert(!k->tcp.txq.head && !k->tcp.ooo_count);
		timer_remove_all(e, k);
		tcp_ack_soon_remove(s, k);
		tcp_promise_none(s, k);
	}
	k->proto = SOCK_FREE;
	k->holders = 0;
	k->pool_next = s->sock_pool.free_head;
	s->sock_pool.free_head = sock_index(s, k);
	s->sock_pool.in_use--;
}

static void push_dirty(struct stack *s, struct sock *k, uint32_t proc)
{
	struct stack_proc *p = &s->proc[proc];

	if (p->dirty_tail - p->dirty_head >= DIRTY_RING) {
		if (!p->dirty_overflow)
			count(s, C_sock_dirty_overflow);
		p->dirty_overflow = 1;
		return;
	}
	p->dirty[p->dirty_tail % DIRTY_RING] = sock_index(s, k);
	__atomic_store_n(&p->dirty_tail, p->dirty_tail + 1, __ATOMIC_RELAXED); /* spinning threads look at it */
	k->dirty_mask |= 1ull << proc;
}

void sock_notify(struct engine *e, struct sock *k, uint32_t events)
{
	uint64_t tell;

	if (!k->holders)
		return;
	k->edges |= (uint8_t)(events & (EV_IN | EV_PRI | EV_OUT | EV_ERR | EV_HUP));
	if (events & EV_RDHUP)
		k->edge_rdhup = 1;
	for (tell = k->holders & ~k->dirty_mask; tell; tell &= tell - 1)
		push_dirty(e->s, k, (uint32_t)__builtin_ctzll(tell));
}
