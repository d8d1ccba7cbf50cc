/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Repair of a stack whose lock's owner died. Whatever it was changing may be half done: a queue, a free list, the
 * wheel. Such a death is seen in a tree of processes, or by viaductd when the last one is gone. This is the way that is
 * right whatever is wrong, and taken where the narrow one (rebuild.h) can't be: all connections end as if reset, every
 * pool, queue, timer and table is made anew, and what has no connection (listeners, bound and unconnected sockets)
 * stays. The counter stack_repaired and lock.repairs say that it happened.
 *
 * Nothing here may rely on links: objects are found by walking the arrays.
 */
#include <string.h>

#include "engine/engine.h"
#include "vnic/xdp.h"

static void reset_pool(struct stack_pool *p)
{
	p->free_head = 0;
	p->mark = 1;
	p->in_use = 0;
}

/* All buffers of a vNIC are ours again, but for those that the peer has. */
static void repair_vnic(struct engine *e, uint32_t i)
{
	struct vnic *v = &e->vnic[i];
	struct vnic_state *st = stack_vnic(e->s, i);

	if (st->provider == VNIC_PROV_NONE)
		return;
	st->txwait_head = st->txwait_tail = st->txheld_head = st->txheld_tail = 0;
	if (v->ops && v->gen == st->gen && st->provider == VNIC_PROV_XDP)
		xdp_recover(v);
	st->free_top = 0;
	for (uint32_t b = 0; b < st->tx_count && b < VNIC_BUFS_MAX; b++) {
		st->tx_state[b] &= VNIC_TX_NIC;
		if (!st->tx_state[b])
			st->tx_free[st->free_top++] = (uint16_t)b;
	}
	for (uint32_t b = 0; b < st->rx_count && b < VNIC_BUFS_MAX; b++)
		if (st->rx_state[b] && v->ops && v->gen == st->gen)
			v->ops->release(v, b);
	memset(stack_iface(e->s, i), 0, sizeof(struct iface));
}

/* Everything that links a socket to others is gone; what it is and its options stay. */
static void cut_links(struct sock *k)
{
	memset(&k->rxq, 0, sizeof(k->rxq));
	memset(&k->errq, 0, sizeof(k->errq));
	k->hash_next = k->txwait_next = k->txwait_prev = k->txwait_held = 0;
	k->flags &= ~SOCKF_HASHED;
	if (k->proto != SOCK_TCP)
		return;
	k->tcp.promised = 0;
	k->tcp.flags &= ~TCPF_ACK_SOON;
	memset(&k->tcp.txq, 0, sizeof(k->tcp.txq));
	memset(k->tcp.timer, 0, sizeof(k->tcp.timer));
	k->tcp.send_head = 0;
	k->tcp.ooo_root = k->tcp.ooo_count = k->tcp.ooo_bytes = 0;
	k->tcp.accept_head = k->tcp.accept_tail = k->tcp.accept_count = 0;
	k->tcp.embryo_head = k->tcp.embryo_count = 0;
	k->tcp.q_next = k->tcp.q_prev = k->tcp.parent = 0;
}

static void repair_sock(struct engine *e, struct sock *k)
{
	cut_links(k);
	if (k->proto == SOCK_TCP && k->tcp.state != TCP_LISTEN && k->tcp.state != TCP_CLOSED) {
		k->tcp.state = TCP_CLOSED;
		k->so_error = ECONNRESET;
	} else if (k->local.port && (k->proto == SOCK_UDP || k->tcp.state == TCP_LISTEN)) {
		sock_hash(e->s, k);
	}
}

void engine_repair(struct engine *e)
{
	struct stack *s = e->s;
	uint32_t high = s->sock_pool.mark < s->cfg.max_socks ? s->sock_pool.mark : s->cfg.max_socks;

	s->lock.repairs++;
	s->lock.changing = 0;
	count(s, C_stack_repaired);
	memset((char *)s + s->off_hash, 0, (size_t)s->cfg.hash_buckets * sizeof(uint32_t));
	memset(s->wheel.slot, 0, sizeof(s->wheel.slot));
	memset(s->wheel.occupied, 0, sizeof(s->wheel.occupied));
	s->wheel.pending = 0;
	s->ack_soon = s->tw_head = s->tw_tail = s->tw_count = s->last_tcp = s->orphan_count = 0;
	s->promised = s->promisers = 0;
	s->path_waiters = 0;
	reset_pool(&s->pkt_pool);
	reset_pool(&s->private_pool);
	s->sock_pool.free_head = s->sock_pool.in_use = s->socks_kept = 0;
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		repair_vnic(e, i);
	for (uint32_t i = high; i-- > 1;) {
		struct sock *k = sock_at(s, i);

		k->dirty_mask = 0;
		if (k->proto == SOCK_FREE || !k->holders) {
			k->proto = SOCK_FREE;
			k->gen++;
			k->pool_next = s->sock_pool.free_head;
			s->sock_pool.free_head = i;
			continue;
		}
		s->sock_pool.in_use++;
		repair_sock(e, k);
		if (k->proto == SOCK_TCP && k->tcp.state == TCP_LISTEN)
			s->socks_kept += k->tcp.open_offered;
	}
	tcp_share_init(s);
	for (uint32_t i = 0; i < PROC_MAX; i++) {
		s->proc[i].dirty_head = s->proc[i].dirty_tail;
		s->proc[i].dirty_overflow = s->proc[i].pid != 0; /* all look at all their sockets */
	}
}
