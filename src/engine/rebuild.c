/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack whose lock's owner died in the middle of a change (rebuild.h).
 *
 * What an owner changes at a time is one socket, which it has named before (stack_lock.changing, set by sock_changing),
 * one vNIC, whose events it takes in (stack_lock.vnic), and what ties sockets and buffers together: free lists, queues
 * of pkts' owners, the lookup table, the wheel, lists that go through sockets. The last are derived anew:
 *
 *   pkts, buffers      in use is what the queues of sockets reach; all else is free, or goes back to the peer
 *   lookup table       SOCKF_HASHED and the socket's addresses
 *   wheel              the timers' deadlines
 *   accept queues, embryos   TCPF_EMBRYO, the child's parent and state
 *   TIME-WAIT list, ACKs that wait, lines for buffers   flags and fields of their members
 *   sums               promised bytes, orphans, sockets and processes in use
 *   UDP routes         are hints: all are forgotten
 *
 * The socket that was being changed loses its queues: a connection is reset, as the kernel would have done it to the
 * process that died, and its peer hears of it. So do sockets that nobody has: one was being made, or let go. If another
 * socket's queues do not add up, or the result's books don't, all must be reset. Order in the accept queue is lost.
 *
 * Nothing here relies on a link before it was checked: walks are bounded by sets that say what was seen.
 */
#include <errno.h>

#include "engine/rebuild.h"
#include "engine/tcp_internal.h"
#include "vnic/wire.h"
#include "vnic/xdp.h"

#define TREE_DEPTH 256u /* pending branches of a walk through an out-of-order queue */

struct rebuild {
	struct engine *e;
	struct stack *s;
	uint64_t *pkts, *private; /* sets: in use */
	const struct sock *changing;
	uint64_t (*rx)[VNIC_SET_WORDS], (*tx)[VNIC_SET_WORDS];
};

static size_t words(uint32_t n)
{
	return ((size_t)n + 63) / 64;
}

size_t stack_rebuild_room(const struct stack *s)
{
	return 8 * (words(s->cfg.max_pkts) + words(s->cfg.max_private) + 2ull * VNIC_MAX * VNIC_SET_WORDS);
}

static bool in_set(const uint64_t *set, uint32_t i)
{
	return set[i / 64] >> i % 64 & 1;
}

/* True: i was not in the set; it is now. */
static bool take(uint64_t *set, uint32_t i)
{
	bool in = in_set(set, i);

	set[i / 64] |= 1ull << i % 64;
	return !in;
}

/* --- what is in use --- */

static bool take_buffer(struct rebuild *r, const struct pkt *p)
{
	const struct vnic_state *st;

	if (p->kind == PKT_PRIVATE)
		return p->buf == PKT_NO_BUF ||
		       (p->buf < r->s->private_pool.mark && p->buf < r->s->cfg.max_private && take(r->private, p->buf));
	st = stack_vnic(r->s, p->vnic);
	if (!st || (p->kind != PKT_RX && p->kind != PKT_TX))
		return false;
	if (st->gen != p->vnic_gen) /* of a vNIC that is not there any more */
		return true;
	return p->buf < VNIC_BUFS_MAX && take(p->kind == PKT_RX ? r->rx[p->vnic] : r->tx[p->vnic], p->buf);
}

/* Take up the pkt. NULL: it can't be in this queue, or is in another. */
static struct pkt *visit(struct rebuild *r, uint32_t i)
{
	struct pkt *p = pkt_at(r->s, i);

	if (!p || i >= r->s->pkt_pool.mark || p->kind == PKT_FREE || !take(r->pkts, i) || !take_buffer(r, p))
		return NULL;
	return p;
}

static bool walk_queue(struct rebuild *r, const struct pkt_queue *q, bool both_ways)
{
	uint32_t last = 0, count = 0, bytes = 0;
	struct pkt *p;

	for (uint32_t i = q->head; i; i = p->next) {
		p = visit(r, i);
		if (!p || (both_ways && p->prev != last))
			return false;
		bytes += p->len;
		for (uint32_t f = p->frag; f;) {
			struct pkt *part = visit(r, f);

			if (!part)
				return false;
			bytes += part->len;
			f = part->frag;
		}
		last = i;
		count++;
	}
	return last == q->tail && count == q->count && bytes == q->bytes;
}

/* The out-of-order queue (tcp_ooo.c): a tree of runs. */
static bool walk_ooo(struct rebuild *r, const struct tcb *t)
{
	uint32_t branch[TREE_DEPTH], n = 0, count = 0, bytes = 0;

	if (t->ooo_root)
		branch[n++] = t->ooo_root;
	while (n) {
		struct pkt *node = visit(r, branch[--n]), *p = node;

		for (; p; p = visit(r, p->frag)) {
			count++;
			bytes += p->len;
			if (!p->frag)
				break;
		}
		if (!p || n + 2 > TREE_DEPTH)
			return false;
		if (node->next)
			branch[n++] = node->next;
		if (node->prev)
			branch[n++] = node->prev;
	}
	return count == t->ooo_count && bytes == t->ooo_bytes;
}

static bool walk_sock(struct rebuild *r, const struct sock *k)
{
	if (!walk_queue(r, &k->rxq, k->proto == SOCK_TCP) || !walk_queue(r, &k->errq, false))
		return false;
	return k->proto != SOCK_TCP || (walk_queue(r, &k->tcp.txq, true) && walk_ooo(r, &k->tcp));
}

static void cut_queues(struct sock *k)
{
	struct tcb *t = &k->tcp;

	memset(&k->rxq, 0, sizeof(k->rxq));
	memset(&k->errq, 0, sizeof(k->errq));
	if (k->proto != SOCK_TCP)
		return;
	memset(&t->txq, 0, sizeof(t->txq));
	t->send_head = t->sacked = t->lost = t->retrans = t->sacked_pkts = 0;
	t->ooo_root = t->ooo_count = t->ooo_bytes = 0;
}

/* Nobody has it: it was being made, or let go. */
static bool unowned(const struct sock *k)
{
	return !k->holders && (k->proto != SOCK_TCP || !(k->flags & SOCKF_ORPHAN || k->tcp.flags & TCPF_EMBRYO));
}

/* Its queues are not to be trusted. */
static bool suspect(const struct rebuild *r, const struct sock *k)
{
	return k->proto != SOCK_FREE && (k == r->changing || unowned(k));
}

/* --- pools --- */

static void rebuild_pkts(struct rebuild *r)
{
	struct stack_pool *pool = &r->s->pkt_pool;

	pool->free_head = pool->in_use = 0;
	for (uint32_t i = pool->mark; i-- > 1;) {
		struct pkt *p = pkt_at(r->s, i);

		if (in_set(r->pkts, i)) {
			pool->in_use++;
			continue;
		}
		p->kind = PKT_FREE;
		p->next = pool->free_head;
		pool->free_head = i;
	}
}

static void rebuild_private(struct rebuild *r)
{
	struct stack_pool *pool = &r->s->private_pool;

	pool->free_head = pool->in_use = 0;
	for (uint32_t i = pool->mark; i-- > 1;) {
		if (in_set(r->private, i)) {
			pool->in_use++;
			continue;
		}
		memcpy((uint8_t *)r->s + r->s->off_private + (size_t)i * PRIVATE_BUF_SIZE, &pool->free_head,
		       sizeof(uint32_t));
		pool->free_head = i;
	}
}

static void free_slot(struct stack *s, struct sock *k)
{
	k->proto = SOCK_FREE;
	k->holders = 0;
	k->pool_next = s->sock_pool.free_head;
	s->sock_pool.free_head = sock_index(s, k);
}

/* --- lists through sockets --- */

static void relink_timers(struct engine *e, struct sock *k)
{
	for (int i = 0; i < TIMER_KINDS; i++) {
		struct timer *t = &k->tcp.timer[i];

		t->next = t->prev = 0;
		t->slot = 0;
		if (t->deadline_us)
			timer_set(e, k, (enum timer_kind)i, t->deadline_us);
	}
}

/* A listener's child goes back to the list where it hung; a child in TIME-WAIT's list as well. */
static void relink_child(struct stack *s, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct sock *l = sock_at(s, t->parent), *o;
	uint32_t i = sock_index(s, k);

	if (t->flags & TCPF_TW_LISTED) {
		o = sock_at(s, s->tw_tail);
		t->q_prev = s->tw_tail;
		*(o ? &o->tcp.q_next : &s->tw_head) = i;
		s->tw_tail = i;
		s->tw_count++;
		return;
	}
	if (!(t->flags & TCPF_EMBRYO) || !l || l->gen != t->parent_gen || l->tcp.state != TCP_LISTEN)
		return;
	if (t->state == TCP_SYN_RECEIVED) {
		o = sock_at(s, l->tcp.embryo_head);
		t->q_next = l->tcp.embryo_head;
		if (o)
			o->tcp.q_prev = i;
		l->tcp.embryo_head = i;
		l->tcp.embryo_count++;
		return;
	}
	o = sock_at(s, l->tcp.accept_tail);
	*(o ? &o->tcp.q_next : &l->tcp.accept_head) = i;
	l->tcp.accept_tail = i;
	l->tcp.accept_count++;
}

/* Places that a listener has promised to peers over wires (tcp_open.c). */
static uint32_t promised_places(struct stack *s, const struct sock *l)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < s->vnic_high && i < VNIC_MAX; i++) {
		const struct vnic_state *st = stack_vnic(s, i);

		if (st->open_sock == sock_index(s, l) && st->open_gen == l->gen &&
		    st->open_limit - st->open_seen <= l->tcp.backlog)
			sum += st->open_limit - st->open_seen;
	}
	return sum;
}

static void cut_links(struct sock *k)
{
	k->dirty_mask = 0;
	k->hash_next = k->txwait_next = 0;
	if (k->proto != SOCK_TCP)
		return;
	k->tcp.accept_head = k->tcp.accept_tail = k->tcp.accept_count = 0;
	k->tcp.embryo_head = k->tcp.embryo_count = 0;
	k->tcp.q_next = k->tcp.q_prev = k->tcp.ack_soon_next = 0;
}

static void relink_line(struct engine *e, struct sock *k, bool broken)
{
	bool waits = k->txwait_prev && !broken, held = k->txwait_held;

	k->txwait_prev = k->txwait_held = 0;
	if (waits && held && k->vnic < VNIC_MAX)
		txwait_add_held(e, k);
	else if (waits && k->txwait_vnic < VNIC_MAX)
		txwait_add_on(e, k, k->txwait_vnic);
}

static void relink(struct rebuild *r, struct sock *k, bool broken)
{
	struct stack *s = r->s;
	bool named = k->local.port && (k->proto == SOCK_UDP || k->tcp.state == TCP_LISTEN);
	bool filed = k->flags & SOCKF_HASHED && !(k->proto == SOCK_TCP && k->tcp.state == TCP_CLOSED);

	k->flags &= ~SOCKF_HASHED;
	if (filed || (broken && named))
		sock_hash(s, k);
	relink_line(r->e, k, broken);
	if (k->proto != SOCK_TCP)
		return;
	relink_timers(r->e, k);
	relink_child(s, k);
	if (k->tcp.flags & TCPF_ACK_SOON) {
		k->tcp.ack_soon_next = s->ack_soon;
		s->ack_soon = sock_index(s, k);
	}
	if (k->tcp.state == TCP_LISTEN) {
		k->tcp.open_offered = promised_places(s, k);
		s->socks_kept += k->tcp.open_offered;
	}
	s->orphan_count += (k->flags & SOCKF_ORPHAN) != 0;
	s->promised += k->tcp.promised;
	s->promisers += k->tcp.promised != 0;
}

/* --- vNICs --- */

static void clear_lists(struct stack *s)
{
	memset((char *)s + s->off_hash, 0, (size_t)s->cfg.hash_buckets * sizeof(uint32_t));
	memset((char *)s + s->off_routes, 0, (size_t)UDP_ROUTE_SETS * UDP_ROUTE_WAYS * sizeof(struct udp_route));
	memset(s->wheel.slot, 0, sizeof(s->wheel.slot));
	memset(s->wheel.occupied, 0, sizeof(s->wheel.occupied));
	s->wheel.pending = 0;
	s->ack_soon = s->last_tcp = 0;
	s->tw_head = s->tw_tail = s->tw_count = s->orphan_count = 0;
	s->promised = s->promisers = 0;
	s->sock_pool.free_head = s->sock_pool.in_use = s->socks_kept = 0;
	s->burst_more = 0;
	s->udp_refused++; /* the routes that the socket layer would give again at once are vouched for anew */
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		struct vnic_state *st = stack_vnic(s, i);

		st->txwait_head = st->txwait_tail = st->txheld_head = st->txheld_tail = 0;
		st->last_sock = 0;
	}
}

/* It is mapped here, and of a provider who can make it anew. */
static bool mendable(const struct engine *e, uint32_t i)
{
	const struct vnic *v = &e->vnic[i];

	return v->ops && v->gen == v->st->gen &&
	       (v->st->provider == VNIC_PROV_LOCAL || v->st->provider == VNIC_PROV_XDP);
}

static bool mid_frame(const struct vnic *v)
{
	return v->st->provider == VNIC_PROV_XDP ? xdp_mid_frame(v) : wire_mid_frame(v);
}

static bool rebuild_vnic(struct rebuild *r, uint32_t i)
{
	struct vnic *v = &r->e->vnic[i];

	return v->st->provider == VNIC_PROV_XDP ? xdp_rebuild(v, r->rx[i], r->tx[i])
						: wire_rebuild(v, r->rx[i], r->tx[i]);
}

/* Parts of a frame whose end has not come: of the vNIC whose events were being taken in they are lost. */
static void rebuild_frame(struct rebuild *r, uint32_t i, bool polled)
{
	struct iface *ifc = stack_iface(r->s, i);

	ifc->deferred = 0; /* nobody refers to those buffers: they go back with the others */
	if (ifc->parts > FRAME_PARTS || polled) {
		ifc->parts = ifc->total = 0;
		ifc->skip = mid_frame(&r->e->vnic[i]);
	}
	for (uint32_t p = 0; p < ifc->parts; p++)
		take(r->rx[i], ifc->part[p].buf % VNIC_BUFS_MAX);
	if (ifc->parts || ifc->skip)
		r->s->vnic_attention[i / 64] |= 1ull << i % 64;
	else
		r->s->vnic_attention[i / 64] &= ~(1ull << i % 64);
}

/* All that this process has mapped are looked at; of the others those that may have been in hand can't be mended. */
static bool rebuild_vnics(struct rebuild *r, uint32_t polled, uint32_t used)
{
	struct stack *s = r->s;

	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		if (!(s->vnic_used[i / 64] >> i % 64 & 1))
			continue;
		if (stack_vnic(s, i)->provider == VNIC_PROV_NONE) {
			s->vnic_used[i / 64] &= ~(1ull << i % 64);
			continue;
		}
		if (!mendable(r->e, i)) {
			if (i == polled || i == used)
				return false;
			continue;
		}
		rebuild_frame(r, i, i == polled);
		if (!rebuild_vnic(r, i))
			return false;
	}
	return true;
}

/* --- the socket itself --- */

static void reset(struct engine *e, struct sock *k, uint64_t now_us)
{
	if (k->proto == SOCK_UDP) {
		if (unowned(k))
			udp_close(e, k);
		else
			sock_notify(e, k, EV_OUT);
		return;
	}
	if (unowned(k) && !(k->flags & SOCKF_ORPHAN)) {
		k->flags |= SOCKF_ORPHAN;
		e->s->orphan_count++;
	}
	count(e->s, C_stack_reset_socket);
	if (k->flags & SOCKF_ORPHAN || (k->tcp.state != TCP_LISTEN && k->tcp.state != TCP_CLOSED))
		tcp_abort(e, k, ECONNRESET, now_us);
}

static struct sock *changing_sock(struct stack *s)
{
	uint64_t at = (uint64_t)s->lock.changing << SOCK_LINE_SHIFT, off = at - s->off_socks;

	if (at < s->off_socks || off % sizeof(struct sock) || off / sizeof(struct sock) >= s->sock_pool.mark)
		return NULL;
	return sock_at(s, (uint32_t)(off / sizeof(struct sock)));
}

static bool pools_possible(const struct stack *s)
{
	return s->sock_pool.mark <= s->cfg.max_socks && s->pkt_pool.mark <= s->cfg.max_pkts &&
	       s->private_pool.mark <= s->cfg.max_private && s->vnic_high <= VNIC_MAX;
}

static struct rebuild begin(struct engine *e, uint64_t *room)
{
	struct stack *s = e->s;
	struct rebuild r = {.e = e, .s = s, .pkts = room};

	r.private = r.pkts + words(s->cfg.max_pkts);
	r.rx = (uint64_t(*)[VNIC_SET_WORDS])(r.private + words(s->cfg.max_private));
	r.tx = r.rx + VNIC_MAX;
	return r;
}

/* What all sockets have is in use; those that nobody uses are free. False: they contradict each other. */
static bool census(struct rebuild *r)
{
	struct stack *s = r->s;

	for (uint32_t i = s->sock_pool.mark; i-- > 1;) {
		struct sock *k = sock_at(s, i);

		if (k->proto != SOCK_TCP && k->proto != SOCK_UDP) {
			free_slot(s, k);
			continue;
		}
		s->sock_pool.in_use++;
		if (suspect(r, k))
			cut_queues(k);
		else if (!walk_sock(r, k))
			return false;
		cut_links(k);
	}
	return true;
}

int stack_rebuild(struct engine *e, void *room, uint64_t now_us)
{
	struct stack *s = e->s;
	struct rebuild r = begin(e, room);
	struct sock *k;

	if (!pools_possible(s))
		return -EUCLEAN;
	r.changing = changing_sock(s);
	clear_lists(s);
	if (!census(&r) || !rebuild_vnics(&r, s->lock.vnic - 1u, r.changing ? r.changing->vnic : VNIC_NONE))
		return -EUCLEAN;
	rebuild_pkts(&r);
	rebuild_private(&r);
	for (uint32_t i = 1; i < s->sock_pool.mark; i++)
		if ((k = sock_at(s, i)) && k->proto != SOCK_FREE)
			relink(&r, k, suspect(&r, k));
	tcp_share_init(s);
	for (uint32_t i = 0; i < PROC_MAX; i++) {
		s->proc[i].dirty_head = s->proc[i].dirty_tail;
		s->proc[i].dirty_overflow = s->proc[i].pid != 0; /* all look at all their sockets */
	}
	if (stack_audit(e))
		return -EUCLEAN;
	for (uint32_t i = 1; i < s->sock_pool.mark; i++)
		if ((k = sock_at(s, i)) && suspect(&r, k))
			reset(e, k, now_us);
	tcp_burst_end(e);
	return 0;
}
