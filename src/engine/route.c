/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Routes and neighbours (RFC 1122 3.3.1, RFC 6724 5, RFC 4861 7.3): see route.h.
 *
 * A lookup goes through the valid copy of the view, whose routes are sorted so that the first match is the one. The
 * view may change meanwhile: then the version has, and the lookup is made again. What the copy says of itself is
 * checked before use; the rest can't do more harm than a wrong route can.
 *
 * Neighbours that are wanted wait in a table of the stack until the socket layer passes them on to viaductd. An entry
 * is found by its address's hash, so the same neighbour is not asked for again before its time; where two meet in one
 * place, the second is asked for at its next segment.
 */
#include "engine/route.h"

#include "engine/bytes.h"
#include "engine/hash.h"
#include "engine/tcp_internal.h"

#define TRIES 8u                /* lookups that a change may spoil before the kernel serves */
#define ASK_AGAIN_US 200000u    /* for a neighbour that is not resolved */
#define DOUBT_AGAIN_US 1000000u /* for one that may be gone */
#define SCOPE_LINK 253u         /* RT_SCOPE_LINK */
#define PATH_MTU_US 600000000u  /* as Linux's mtu_expires */
#define PATH_MTU_FLOOR_V4 552u  /* as Linux's min_pmtu */
#define SCOPE6_SITE 5u          /* RFC 4291 2.7 */

_Static_assert(NEIGH_WANTS == 64, "neigh_pending has a bit for each");

static const uint8_t none[16];

static bool is_zero(const uint8_t addr[16])
{
	return addr_equal(addr, none);
}

int netview_check(const void *mem, size_t len)
{
	const struct netview *v = mem;

	if (len < sizeof(*v) || v->magic != NETVIEW_MAGIC || v->format != NETVIEW_FORMAT || v->size != sizeof(*v))
		return -EPROTO;
	return 0;
}

/* How many leading bits two addresses have in common. */
static uint32_t common_bits(const uint8_t a[16], const uint8_t b[16])
{
	for (uint32_t i = 0; i < 16; i++)
		if (a[i] != b[i])
			return i * 8 + (uint32_t)__builtin_clz((uint32_t)(a[i] ^ b[i])) - 24;
	return 128;
}

static bool covers(const uint8_t net[16], uint32_t prefix, const uint8_t addr[16])
{
	return common_bits(net, addr) >= prefix;
}

static const struct netview_copy *valid_copy(const struct netview *view, uint32_t version)
{
	const struct netview_copy *c = &view->copy[version & 1];

	if (c->ifaces > NETVIEW_IFACES || c->addrs > NETVIEW_ADDRS || c->routes > NETVIEW_ROUTES ||
	    c->neighs > NETVIEW_NEIGHS || c->refuse)
		return NULL;
	return c;
}

static const struct netview_iface *iface_of(const struct netview_copy *c, uint32_t ifindex)
{
	for (uint32_t i = 0; i < c->ifaces && i < NETVIEW_IFACES; i++)
		if (c->iface[i].ifindex == ifindex)
			return &c->iface[i];
	return NULL;
}

/* --- which source address --- */

static bool is_link_local(const uint8_t a[16])
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

/* RFC 6724 3.1; of unicast addresses: 2 link-local, 5 site-local, 14 global. */
static uint32_t scope_of(const uint8_t a[16])
{
	if (a[0] == 0xff)
		return a[1] & 0xfu;
	if (is_link_local(a) || (get_word(a) == 0 && get_be32(a + 8) == 0 && a[15] == 1))
		return 2;
	return a[0] == 0xfe && (a[1] & 0xc0) == 0xc0 ? 5 : 14;
}

/* RFC 6724 2.1, as Linux's default table. */
static uint32_t label_of(const uint8_t a[16])
{
	static const struct {
		uint8_t prefix[4];
		uint8_t bits, label;
	} policy[] = {{{0x20, 0x01, 0x00, 0x00}, 32, 6},
		      {{0x20, 0x01, 0x00, 0x10}, 28, 7},
		      {{0x3f, 0xfe}, 16, 12},
		      {{0x20, 0x02}, 16, 2},
		      {{0xfe, 0xc0}, 10, 11},
		      {{0xfc}, 7, 5}};

	for (uint32_t i = 0; i < sizeof(policy) / sizeof(policy[0]); i++)
		if ((get_be32(a) ^ get_be32(policy[i].prefix)) >> (32 - policy[i].bits) == 0)
			return policy[i].label;
	return 1;
}

/* Is a the better source for `to` over interface ifindex? RFC 6724 5, rules 1, 2, 3, 5, 6 and 8. */
static bool better_v6(const struct netview_addr *a, const struct netview_addr *b, const uint8_t to[16],
		      uint32_t ifindex)
{
	uint32_t sa = scope_of(a->addr), sb = scope_of(b->addr), st = scope_of(to), la, lb;

	if (addr_equal(a->addr, to) != addr_equal(b->addr, to))
		return addr_equal(a->addr, to);
	if (sa != sb)
		return sa < sb ? sa >= st : sb < st;
	if ((a->flags ^ b->flags) & NETVIEW_ADDR_USABLE)
		return a->flags & NETVIEW_ADDR_USABLE;
	if ((a->ifindex == ifindex) != (b->ifindex == ifindex))
		return a->ifindex == ifindex;
	la = label_of(a->addr) == label_of(to);
	lb = label_of(b->addr) == label_of(to);
	if (la != lb)
		return la > lb;
	la = common_bits(a->addr, to);
	lb = common_bits(b->addr, to);
	return (la < a->prefix ? la : a->prefix) > (lb < b->prefix ? lb : b->prefix);
}

static const struct netview_addr *source_v6(const struct netview_copy *c, uint32_t ifindex, const uint8_t to[16])
{
	const struct netview_addr *best = NULL;

	for (uint32_t i = 0; i < c->addrs && i < NETVIEW_ADDRS; i++) {
		const struct netview_addr *a = &c->addr[i];

		if (is_v4(a->addr) || !(a->flags & NETVIEW_ADDR_USABLE) || a->scope > SCOPE_LINK ||
		    ((is_link_local(to) || to[0] == 0xff) && a->ifindex != ifindex))
			continue;
		if (!best || better_v6(a, best, to, ifindex))
			best = a;
	}
	return best;
}

/* As Linux's inet_select_addr: the interface's first in the next hop's network, else its first, else anybody's. */
static const struct netview_addr *source_v4(const struct netview_copy *c, uint32_t ifindex, const uint8_t via[16])
{
	const struct netview_addr *first = NULL, *other = NULL;
	uint32_t scope = is_zero(via) ? SCOPE_LINK : 0;

	for (uint32_t i = 0; i < c->addrs && i < NETVIEW_ADDRS; i++) {
		const struct netview_addr *a = &c->addr[i];

		if (!is_v4(a->addr) || a->scope > scope)
			continue;
		if (a->ifindex != ifindex) {
			other = other || a->scope >= SCOPE_LINK ? other : a;
			continue;
		}
		if (is_zero(via) || covers(a->addr, a->prefix, via))
			return a;
		first = first ? first : a;
	}
	return first ? first : other;
}

static bool choose_source(const struct netview_copy *c, const struct netview_route *way, const uint8_t to[16],
			  const uint8_t from[16], struct route *r)
{
	const struct netview_addr *a;

	if (!is_any(from)) {
		memcpy(r->from, from, 16);
		return true;
	}
	if (!is_zero(way->from)) {
		memcpy(r->from, way->from, 16);
		return true;
	}
	a = is_v4(to) ? source_v4(c, way->ifindex, way->via) : source_v6(c, way->ifindex, to);
	if (a)
		memcpy(r->from, a->addr, 16);
	return a != NULL;
}

/* --- which route --- */

static uint32_t weight_of(const struct netview_route *hop)
{
	return hop->weight ? hop->weight : 1;
}

/* Weighted choice among the n hops whose interface is up; among all if none is. */
static const struct netview_route *choose_hop(const struct netview_copy *c, const struct netview_route *first,
					      uint32_t n, uint32_t hash)
{
	uint32_t total = 0, at;
	bool up[256], any = false;

	for (uint32_t i = 0; i < n; i++) {
		const struct netview_iface *f = iface_of(c, first[i].ifindex);

		up[i] = f && f->flags & NETVIEW_IF_UP;
		any |= up[i];
	}
	for (uint32_t i = 0; i < n; i++)
		total += up[i] || !any ? weight_of(&first[i]) : 0;
	at = (uint32_t)((uint64_t)hash * total >> 32);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t w = up[i] || !any ? weight_of(&first[i]) : 0;

		if (at < w)
			return &first[i];
		at -= w;
	}
	return first;
}

/* The hop of the first route that matches, but for the first `skip`. NULL: none. */
static const struct netview_route *find_after(const struct netview_copy *c, const uint8_t to[16], uint32_t ifindex,
					      uint32_t hash, uint32_t skip)
{
	bool v4 = is_v4(to);

	for (uint32_t i = 0, n; i < c->routes; i += n) {
		const struct netview_route *way = &c->route[i];

		n = way->hops ? way->hops : 1;
		if (n > c->routes - i)
			n = c->routes - i;
		if (is_v4(way->dst) != v4 || (v4 && way->prefix < 96) || !covers(way->dst, way->prefix, to))
			continue;
		if (skip) {
			skip--;
			continue;
		}
		if (!ifindex || way->type != NETVIEW_ROUTE_UNICAST)
			return n > 1 ? choose_hop(c, way, n, hash) : way;
		for (uint32_t h = 0; h < n; h++)
			if (way[h].ifindex == ifindex)
				return &way[h];
	}
	return NULL;
}

static const struct netview_route *find_route(const struct netview_copy *c, const uint8_t to[16], uint32_t ifindex,
					      uint32_t hash)
{
	return find_after(c, to, ifindex, hash, 0);
}

/* The link address of r->via, as far as it is known. */
static int find_neighbour(const struct netview_copy *c, struct route *r)
{
	for (uint32_t i = 0; i < c->neighs && i < NETVIEW_NEIGHS; i++) {
		const struct netview_neigh *n = &c->neigh[i];

		if (n->ifindex != r->ifindex || !addr_equal(n->addr, r->via))
			continue;
		if (n->usable) {
			memcpy(r->mac, n->mac, sizeof(r->mac));
			r->resolved = 1;
		}
		return n->failed && !n->usable ? -EHOSTUNREACH : 0;
	}
	return 0;
}

/* Group and broadcast addresses, and those that mean nothing without an interface. */
static bool not_ours(const uint8_t to[16], uint32_t ifindex)
{
	if (is_v4(to))
		return to[12] >= 224 || to[12] == 127 || to[12] == 0;
	return to[0] == 0xff || is_any(to) || (is_link_local(to) && !ifindex);
}

static bool has_addr(const struct netview_copy *c, const uint8_t addr[16])
{
	for (uint32_t i = 0; i < c->addrs && i < NETVIEW_ADDRS; i++)
		if (addr_equal(c->addr[i].addr, addr))
			return true;
	return false;
}

bool route_is_own(const struct netview *view, const uint8_t addr[16])
{
	return view && has_addr(&view->copy[__atomic_load_n(&view->version, __ATOMIC_ACQUIRE) & 1], addr);
}

static int look_up(const struct netview_copy *c, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex,
		   uint32_t hash, struct route *r)
{
	const struct netview_route *way = find_route(c, to, ifindex, hash);
	const struct netview_iface *f;

	if (!way)
		return ifindex ? -ENOENT : -ENETUNREACH;
	f = iface_of(c, way->ifindex);
	if (way->type != NETVIEW_ROUTE_UNICAST || !f || f->flags & NETVIEW_IF_LOOPBACK ||
	    !(f->flags & NETVIEW_IF_ALLOWED) || !choose_source(c, way, to, from, r))
		return -ENOENT;
	/* To Linux a gateway that is ourselves may mean the link, depending on when the address was added. */
	if (!is_zero(way->via) && has_addr(c, way->via))
		return -ENOENT;
	r->ifindex = f->ifindex;
	r->mtu = way->mtu && way->mtu < f->mtu ? way->mtu : f->mtu;
	r->link_mtu = f->mtu;
	memcpy(r->via, is_zero(way->via) ? to : way->via, 16);
	return find_neighbour(c, r);
}

/* --- groups --- */

/* RFC 1112 6.4, RFC 2464 7. */
static void group_mac(const uint8_t group[16], uint8_t mac[6])
{
	static const uint8_t v4[3] = {0x01, 0x00, 0x5e}, v6[2] = {0x33, 0x33};

	if (is_v4(group)) {
		memcpy(mac, v4, sizeof(v4));
		memcpy(mac + 3, group + 13, 3);
		mac[3] &= 0x7f;
	} else {
		memcpy(mac, v6, sizeof(v6));
		memcpy(mac + 2, group + 12, 4);
	}
}

/* Everybody on the link is the next hop; which link, the program or (IPv4) a route says. Groups of one link or machine,
 * whose source address is one of that link, are the kernel's. */
static int look_up_group(const struct netview_copy *c, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex,
			 struct route *r)
{
	struct netview_route link = {.ifindex = ifindex, .type = NETVIEW_ROUTE_UNICAST};
	const struct netview_route *way = &link;
	const struct netview_iface *f;

	/* the view's first entry for groups keeps others from following these routes */
	if (is_v4(to) ? !ifindex && !(way = find_after(c, to, 0, 0, 1)) : !ifindex || scope_of(to) < SCOPE6_SITE)
		return -ENOENT;
	f = iface_of(c, way->ifindex);
	if (way->type != NETVIEW_ROUTE_UNICAST || way->hops > 1 || !f || !(f->flags & NETVIEW_IF_UP) ||
	    f->flags & NETVIEW_IF_LOOPBACK || !(f->flags & NETVIEW_IF_ALLOWED) || !choose_source(c, way, to, from, r))
		return -ENOENT;
	r->ifindex = f->ifindex;
	r->mtu = way->mtu && way->mtu < f->mtu ? way->mtu : f->mtu;
	r->link_mtu = f->mtu;
	memcpy(r->via, to, 16);
	group_mac(to, r->mac);
	r->resolved = 1;
	return 0;
}

int route_lookup(const struct netview *view, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex,
		 uint32_t hash, struct route *r)
{
	*r = (struct route){0};
	if (!view || (not_ours(to, ifindex) && !udp_is_group(to)))
		return -ENOENT;
	for (uint32_t i = 0; i < TRIES; i++) {
		uint32_t version = __atomic_load_n(&view->version, __ATOMIC_ACQUIRE);
		const struct netview_copy *c = valid_copy(view, version);
		int ret = -ENOENT;

		*r = (struct route){0};
		if (c)
			ret = udp_is_group(to) ? look_up_group(c, to, from, ifindex, r)
					       : look_up(c, to, from, ifindex, hash, r);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (version == __atomic_load_n(&view->version, __ATOMIC_RELAXED))
			return ret;
	}
	return -ENOENT;
}

/* May a packet carry this source address (as Linux asks: is it local, in whatever table)? */
static bool source_valid(const struct netview *view, const uint8_t addr[16])
{
	const struct netview_copy *c = valid_copy(view, __atomic_load_n(&view->version, __ATOMIC_ACQUIRE));
	const struct netview_route *way;

	if (!c || route_is_own(view, addr))
		return true;
	way = find_route(c, addr, 0, 0);
	return way && way->type == NETVIEW_ROUTE_LOCAL;
}

uint32_t route_vnic(const struct engine *e, uint32_t ifindex)
{
	for (uint32_t w = 0; ifindex && w < VNIC_WORDS; w++) {
		for (uint64_t bits = e->s->vnic_used[w]; bits; bits &= bits - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
			const struct vnic_state *st = stack_vnic(e->s, i);

			if (st->ifindex == ifindex && !st->dead && e->vnic[i].ops && e->vnic[i].gen == st->gen)
				return i;
		}
	}
	return VNIC_NONE;
}

/* --- neighbours that are wanted --- */

static void want(struct engine *e, const uint8_t addr[16], uint32_t ifindex, uint64_t again_us)
{
	struct stack *s = e->s;
	uint32_t i = (uint32_t)(endpoint_hash(s->hash_key, addr, 0) % NEIGH_WANTS);
	struct neigh_want *w = &s->neigh_want[i];
	bool same = w->ifindex == ifindex && addr_equal(w->addr, addr);

	if (s->neigh_pending >> i & 1 || (same && s->now_us - w->asked_us < again_us))
		return;
	*w = (struct neigh_want){.ifindex = ifindex, .asked_us = s->now_us};
	memcpy(w->addr, addr, 16);
	__atomic_store_n(&s->neigh_pending, s->neigh_pending | 1ull << i, __ATOMIC_RELAXED);
	s->neigh_wanted++;
}

void route_want(struct engine *e, const uint8_t addr[16], uint32_t ifindex)
{
	want(e, addr, ifindex, ASK_AGAIN_US);
}

bool route_wanted(struct engine *e, struct neigh_want *out)
{
	struct stack *s = e->s;
	uint32_t i;

	if (!s->neigh_pending)
		return false;
	i = (uint32_t)__builtin_ctzll(s->neigh_pending);
	*out = s->neigh_want[i];
	__atomic_store_n(&s->neigh_pending, s->neigh_pending & ~(1ull << i), __ATOMIC_RELAXED);
	return true;
}

void route_doubt(struct engine *e, const struct sock *k)
{
	struct route r;

	if (!e->view || !sock_mac(e, k))
		return;
	route_lookup(e->view, k->remote.addr, k->local.addr, k->dst.ifindex, 0, &r);
	if (r.ifindex)
		want(e, r.via, r.ifindex, DOUBT_AGAIN_US);
}

/* --- for sockets --- */

void route_forget(struct engine *e)
{
	memset(e->route_slot, 0, sizeof(e->route_slot));
	for (uint32_t i = 1; i < e->s->sock_pool.mark; i++) {
		struct sock *k = sock_at(e->s, i);

		if (k->proto != SOCK_FREE)
			k->dst.version = 0;
	}
}

/* The interface's MTU may have been changed; a larger one is of use as far as buffers go. */
static void follow_mtu(struct vnic_state *st, uint32_t mtu)
{
	if (st->mtu != mtu && (mtu <= st->buf_size - 2 * PKT_HEADROOM || st->features & VNIC_FEAT_SCATTER))
		st->mtu = mtu;
}

static struct path_mtu *path_mtu_of(struct engine *e, const uint8_t to[16])
{
	return &e->path_mtu[endpoint_hash(e->s->hash_key, to, 0) & (ROUTE_SLOTS - 1)];
}

void route_mtu(struct engine *e, const uint8_t to[16], uint32_t mtu)
{
	struct path_mtu *p = path_mtu_of(e, to);

	if (is_v4(to) && mtu < PATH_MTU_FLOOR_V4)
		mtu = PATH_MTU_FLOOR_V4;
	if (p->mtu && p->mtu <= mtu && p->until_us > e->s->now_us && addr_equal(p->to, to))
		return;
	*p = (struct path_mtu){.mtu = mtu, .until_us = e->s->now_us + PATH_MTU_US};
	memcpy(p->to, to, 16);
	e->path_mtus = true;
}

static void take_path_mtu(struct engine *e, const uint8_t to[16], struct route *r)
{
	const struct path_mtu *p = path_mtu_of(e, to);

	if (p->mtu && p->until_us > e->s->now_us && p->mtu < r->mtu && addr_equal(p->to, to))
		r->path_mtu = p->mtu;
}

int route_to(struct engine *e, const uint8_t to[16], const uint8_t from[16], uint32_t ifindex, uint32_t *vnic,
	     struct route *r)
{
	uint64_t hash = endpoint_hash(e->s->hash_key, to, 0);
	struct route_slot *slot = &e->route_slot[hash & (ROUTE_SLOTS - 1)];
	uint32_t version = e->view ? __atomic_load_n(&e->view->version, __ATOMIC_ACQUIRE) : 0;

	if (!version)
		return -ENOENT;
	if (slot->version != version || slot->ifindex != ifindex || !addr_equal(slot->to, to) ||
	    !addr_equal(slot->from, from)) {
		count(e->s, C_route_lookups);
		slot->err = route_lookup(e->view, to, from, ifindex, (uint32_t)(hash >> 32), &slot->r);
		slot->version = version;
		slot->ifindex = ifindex;
		memcpy(slot->to, to, 16);
		memcpy(slot->from, from, 16);
	}
	*r = slot->r;
	if (__builtin_expect(e->path_mtus, 0))
		take_path_mtu(e, to, r);
	if (r->ifindex && !r->resolved)
		route_want(e, r->via, r->ifindex);
	if (slot->err)
		return slot->err;
	if (!r->resolved)
		return -EAGAIN;
	*vnic = route_vnic(e, r->ifindex);
	if (*vnic == VNIC_NONE) {
		route_want(e, none, r->ifindex);
		return -ENODEV;
	}
	follow_mtu(stack_vnic(e->s, *vnic), r->link_mtu);
	return 0;
}

/* What was found is new: k's frames go there from now on. */
static int take_route(struct engine *e, struct sock *k, const struct route *r, uint32_t version)
{
	uint32_t vnic = route_vnic(e, r->ifindex), mtu = k->dst.mtu;
	int err;

	if (vnic == VNIC_NONE) {
		route_want(e, none, r->ifindex);
		return -ENODEV;
	}
	if (vnic != k->vnic) {
		err = k->proto == SOCK_TCP ? tcp_move(e, k, vnic) : 0;
		if (err)
			return err;
		k->vnic = vnic;
		k->vnic_gen = stack_vnic(e->s, vnic)->gen;
	}
	follow_mtu(stack_vnic(e->s, vnic), r->link_mtu);
	memcpy(k->dst.mac, r->mac, sizeof(k->dst.mac));
	k->dst.learnt = 0;
	k->dst.mtu = r->mtu;
	k->dst.version = version;
	if (mtu != r->mtu && k->proto == SOCK_TCP)
		tcp_mtu_changed(e, k);
	return 0;
}

/* What is there is not exactly what was asked for, but frames reach the peer: as before, until the view changes. */
static int stay(struct sock *k, uint32_t version)
{
	k->dst.version = version;
	return 0;
}

/* The neighbour is not resolved. The kernel may just have forgotten it: the address that it had is as good as any. */
static int unresolved(struct engine *e, struct sock *k, uint32_t hop, uint32_t version)
{
	if (k->dst.learnt || (k->dst.version && k->dst.hop == hop))
		return stay(k, version);
	count(e->s, C_neigh_unresolved);
	return -EAGAIN;
}

int route_sock_slow(struct engine *e, struct sock *k)
{
	uint32_t version = __atomic_load_n(&e->view->version, __ATOMIC_ACQUIRE), hop;
	struct route r;
	int err;

	if (!sock_mac(e, k)) /* over a wire, or not connected */
		return stay(k, version);
	count(e->s, C_route_lookups);
	err = route_lookup(e->view, k->remote.addr, k->local.addr, k->dst.ifindex,
			   (uint32_t)(endpoint_hash(e->s->hash_key, k->remote.addr, k->remote.port) >> 32), &r);
	if (err == -ENOENT) /* not ours to say */
		return stay(k, version);
	/* Whoever connects is told of the failure before the kernel tries again, and the view forgets it. */
	if (r.ifindex && !r.resolved && !(err == -EHOSTUNREACH && k->proto == SOCK_TCP && k->tcp.state == TCP_SYN_SENT))
		route_want(e, r.via, r.ifindex);
	if (!err && is_v4(k->local.addr) && !source_valid(e->view, k->local.addr))
		err = -EINVAL; /* as Linux, which asks for IPv4 alone */
	if (err) {
		count(e->s, C_route_none);
		return err;
	}
	hop = (uint32_t)endpoint_hash(e->s->hash_key, r.via, r.ifindex);
	if (!r.resolved)
		return unresolved(e, k, hop, version);
	err = take_route(e, k, &r, version);
	if (err == -ENODEV && k->dst.learnt)
		return stay(k, version); /* its frames came by another interface, and so go the answers */
	if (!err)
		k->dst.hop = hop;
	return err;
}
