/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From what the kernel told (mirror_raw.h) to what stacks look up (netview.h). Here the kernel's own decisions are made
 * in advance, where they depend on nothing but the tables:
 *
 *   - Order. The tables local, main and default are asked one after the other (fib_default_rules_init), each for its
 *     longest prefix, then the lowest metric.
 *   - Source addresses of IPv4 (inet_select_addr): of the outgoing interface the first primary address in whose subnet
 *     the gateway lies, else the first; then any interface's.
 *   - What we would get wrong stays the kernel's: several equal IPv6 routes or IPv4 default routes, among which
 *     it chooses by their gateways' health; an IPv6 gateway that does not answer while another route would do
 *     (rt6_score_route); some of what nexthop objects do; interfaces without neighbour resolution; link-local IPv6
 * destinations, which need a scope that our sockets don't have; group addresses.
 */
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/mirror_raw.h"
#include "engine/bytes.h"

#define DEPTH_MAX 4 /* VLAN over bond over ... */

static const uint8_t zeros[16];

static bool is_zero(const uint8_t addr[16])
{
	return !memcmp(addr, zeros, 16);
}

static bool within(const uint8_t addr[16], const uint8_t net[16], uint32_t prefix)
{
	uint32_t whole = prefix / 8, rest = prefix % 8;

	if (memcmp(addr, net, whole) != 0)
		return false;
	return !rest || !((addr[whole] ^ net[whole]) >> (8 - rest));
}

/* IPv4 routes are those of 96 bits and more in the mapped range. */
static bool route_v4(const struct netview_route *r)
{
	return r->prefix >= 96 && is_v4(r->dst);
}

/* --- order --- */

static int route_order(const void *x, const void *y)
{
	const struct raw_route *a = x, *b = y;
	bool four = route_v4(&a->r);

	if (four != route_v4(&b->r))
		return four ? -1 : 1;
	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	if (a->r.prefix != b->r.prefix)
		return a->r.prefix > b->r.prefix ? -1 : 1;
	int d = memcmp(a->r.dst, b->r.dst, 16);
	if (d)
		return d;
	if (a->r.metric != b->r.metric)
		return a->r.metric < b->r.metric ? -1 : 1;
	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	return (int)a->hop - (int)b->hop;
}

void raw_sort(struct raw_net *n)
{
	qsort(n->route, n->routes, sizeof(n->route[0]), route_order);
}

/* --- interfaces --- */

static const struct raw_link *find_link(const struct raw_net *n, uint32_t ifindex)
{
	for (uint32_t i = 0; i < n->links; i++)
		if (n->link[i].ifindex == ifindex)
			return &n->link[i];
	return NULL;
}

/* The device whose queues carry l's frames, and the tag that they have there. NULL: we can't say. */
static const struct raw_link *carrier_of(const struct raw_net *n, const struct raw_link *l, uint16_t *vlan)
{
	*vlan = 0;
	for (int depth = 0; l && depth < DEPTH_MAX; depth++) {
		if (l->elsewhere)
			return NULL;
		if (l->kind == RAW_PLAIN)
			return l;
		if (l->kind == RAW_VLAN) {
			if (*vlan)
				return NULL; /* two tags */
			*vlan = l->vlan;
		}
		l = find_link(n, l->below);
	}
	return NULL;
}

uint32_t raw_below(const struct raw_net *n, uint32_t ifindex, uint32_t *below, uint32_t max, uint32_t *sends)
{
	const struct raw_link *l = find_link(n, ifindex);
	uint32_t count = 0;

	for (int depth = 0; l && l->kind == RAW_VLAN && depth < DEPTH_MAX; depth++)
		l = find_link(n, l->below);
	if (!l)
		return 0;
	*sends = l->ifindex;
	if (l->kind == RAW_PLAIN)
		below[count++] = l->ifindex;
	for (uint32_t i = 0; l->kind == RAW_BOND && i < n->links && count < max; i++)
		if (n->link[i].master == l->ifindex && n->link[i].kind == RAW_PLAIN)
			below[count++] = n->link[i].ifindex;
	return count;
}

static void build_ifaces(const struct raw_net *n, bool (*allowed)(const char *, uint32_t, void *), void *arg,
			 struct netview_copy *out)
{
	for (uint32_t i = 0; i < n->links; i++) {
		const struct raw_link *l = &n->link[i];
		struct netview_iface *f = &out->iface[out->ifaces++];
		const struct raw_link *device = carrier_of(n, l, &f->vlan);

		f->ifindex = l->ifindex;
		f->mtu = l->mtu;
		f->device = device ? device->ifindex : l->ifindex;
		memcpy(f->mac, l->mac, 6);
		memcpy(f->name, l->name, sizeof(f->name));
		if (l->flags & IFF_UP && l->flags & IFF_LOWER_UP)
			f->flags |= NETVIEW_IF_UP;
		if (l->flags & IFF_LOOPBACK)
			f->flags |= NETVIEW_IF_LOOPBACK;
		if (l->type != ARPHRD_ETHER && l->flags & (IFF_NOARP | IFF_POINTOPOINT))
			f->flags |= NETVIEW_IF_POINTOPOINT;
		if (device && l->type == ARPHRD_ETHER && device->type == ARPHRD_ETHER && !(l->flags & IFF_LOOPBACK) &&
		    (!allowed || allowed(device->name, device->ifindex, arg)))
			f->flags |= NETVIEW_IF_ALLOWED;
	}
}

/* --- addresses --- */

static void build_addrs(const struct raw_net *n, struct netview_copy *out)
{
	for (uint32_t i = 0; i < n->addrs; i++)
		out->addr[out->addrs++] = n->addr[i].a;
}

/* The smallest scope number is the widest; 127/8 counts as the machine's own even where it was said to be wider. */
static bool v4_source_fits(const struct raw_addr *r, uint8_t scope)
{
	uint8_t own = r->a.scope < RT_SCOPE_HOST ? r->a.scope : RT_SCOPE_HOST;

	return is_v4(r->a.addr) && !r->secondary && own <= scope;
}

/* As inet_select_addr() with the gateway (all zero: none) and the route's scope. */
static const uint8_t *v4_source(const struct raw_net *n, uint32_t ifindex, const uint8_t via[16], uint8_t scope)
{
	const struct raw_addr *first = NULL;

	for (uint32_t i = 0; i < n->addrs; i++) {
		const struct raw_addr *r = &n->addr[i];

		if (r->a.ifindex != ifindex || !v4_source_fits(r, scope))
			continue;
		if (is_zero(via) || within(via, r->a.addr, r->a.prefix))
			return r->a.addr;
		if (!first)
			first = r;
	}
	if (first)
		return first->a.addr;
	for (uint32_t l = 0; l < n->links; l++)
		for (uint32_t i = 0; i < n->addrs; i++)
			if (n->addr[i].a.ifindex == n->link[l].ifindex && v4_source_fits(&n->addr[i], scope) &&
			    n->addr[i].a.scope != RT_SCOPE_LINK)
				return n->addr[i].a.addr;
	return NULL;
}

/* --- routes --- */

/* What we don't follow at all, before everything else: {text of dst, prefix}. */
static const struct {
	uint8_t dst[16];
	uint8_t prefix;
} never[] = {
    {{[10] = 0xff, 0xff, 0, 0, 0, 0}, 128},         /* 0.0.0.0 */
    {{[10] = 0xff, 0xff, 255, 255, 255, 255}, 128}, /* limited broadcast */
    {{[10] = 0xff, 0xff, 224, 0, 0, 0}, 96 + 4},    /* groups */
    {{0}, 128},                                     /* :: */
    {{0xfe, 0x80}, 10},                             /* link-local: needs a scope */
    {{0xff}, 8},                                    /* groups */
};

static void build_never(struct netview_copy *out)
{
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		struct netview_route *r = &out->route[out->routes++];

		memcpy(r->dst, never[i].dst, 16);
		r->prefix = never[i].prefix;
		r->type = NETVIEW_ROUTE_KERNEL;
		r->hops = r->weight = 1;
	}
}

static bool same_place(const struct raw_route *a, const struct raw_route *b)
{
	return a->table == b->table && a->r.prefix == b->r.prefix && !memcmp(a->r.dst, b->r.dst, 16);
}

/* The kernel chooses between this route (first hop at i) and the next by what we can't see. */
static bool has_rival(const struct raw_net *n, uint32_t i)
{
	const struct raw_route *a = &n->route[i], *b = a + (a->r.hops ? a->r.hops : 1);

	if (b >= n->route + n->routes || !same_place(a, b) || a->r.metric != b->r.metric)
		return false;
	return !route_v4(&a->r) || a->r.prefix == 96;
}

/* An IPv6 gateway does not answer, and another route leads there too. */
static bool detour(const struct raw_net *n, const struct raw_route *a)
{
	const struct netview_neigh *gw;

	if (route_v4(&a->r) || is_zero(a->r.via))
		return false;
	gw = raw_neigh(n, a->r.ifindex, a->r.via);
	if (!gw || !gw->failed)
		return false;
	for (uint32_t i = 0; i < n->routes; i++) {
		const struct raw_route *b = &n->route[i];

		if (!route_v4(&b->r) && b->table == a->table && b->order != a->order && b->r.prefix <= a->r.prefix &&
		    b->r.type == NETVIEW_ROUTE_UNICAST && within(a->r.dst, b->r.dst, b->r.prefix))
			return true;
	}
	return false;
}

/* IPv6 over a nexthop group: the source address is chosen by the first hop's device, whichever is taken
 * (ip6_route_get_saddr). */
static bool mixed_group(const struct raw_net *n, uint32_t i, uint32_t hops)
{
	const struct raw_route *a = &n->route[i];

	for (uint32_t h = 1; h < hops && i + h < n->routes; h++)
		if (a->object && !route_v4(&a->r) && a[h].r.ifindex != a->r.ifindex)
			return true;
	return false;
}

static bool own_address(const struct raw_net *n, const uint8_t addr[16])
{
	for (uint32_t i = 0; i < n->addrs; i++)
		if (!memcmp(n->addr[i].a.addr, addr, 16))
			return true;
	return false;
}

/* Fill in what the kernel would for this hop. False: the kernel must serve the route. */
static bool complete(const struct raw_net *n, const struct raw_route *a, struct netview_route *r)
{
	const struct raw_link *l = find_link(n, r->ifindex);
	const uint8_t *from;

	if (r->type != NETVIEW_ROUTE_UNICAST)
		return true;
	if (!l || l->flags & IFF_LOOPBACK || (l->type == ARPHRD_ETHER && l->flags & IFF_NOARP) || detour(n, a))
		return false;
	if (!route_v4(r)) {
		if (!r->mtu && l->mtu6 && l->mtu6 < l->mtu)
			r->mtu = l->mtu6;
		return true;
	}
	/* "via" an address that was our own when the route was made means on-link; later it says nothing */
	if (own_address(n, r->via))
		return false;
	if (!is_zero(r->from))
		return true;
	from = v4_source(n, r->ifindex, r->via, a->scope);
	/* A nexthop object keeps the address that was chosen by its own scope when it was made, until any address of
	 * the machine changes (fib_info_update_nhc_saddr): where it matters we can't know which one counts. */
	if (a->object && from != v4_source(n, r->ifindex, r->via, is_zero(r->via) ? RT_SCOPE_HOST : RT_SCOPE_LINK))
		return false;
	if (from)
		memcpy(r->from, from, 16);
	return from != NULL;
}

/* The route whose first hop is at i; returns where the next one begins. */
static uint32_t build_route(const struct raw_net *n, uint32_t i, struct netview_copy *out)
{
	uint32_t hops = n->route[i].r.hops ? n->route[i].r.hops : 1, first = out->routes;
	bool ours = !has_rival(n, i) && !mixed_group(n, i, hops);

	for (uint32_t h = 0; h < hops && i + h < n->routes; h++) {
		struct netview_route *r = &out->route[out->routes++];

		*r = n->route[i + h].r;
		if (!complete(n, &n->route[i + h], r))
			ours = false;
	}
	if (!ours) {
		struct netview_route *r = &out->route[first];

		memset(r + 1, 0, (out->routes - first - 1) * sizeof(*r));
		out->routes = first + 1;
		r->type = NETVIEW_ROUTE_KERNEL;
		r->hops = 1;
	}
	return i + hops;
}

static uint32_t refusal(const struct raw_net *n)
{
	const uint8_t two = 1u << RAW_TABLE_LOCAL | 1u << RAW_TABLE_MAIN;

	if (n->overflow || n->neigh_overflow || n->routes > NETVIEW_ROUTES - sizeof(never) / sizeof(never[0]))
		return NETVIEW_REFUSE_OVERFLOW;
	/* without IPv6 in the kernel it has no rules either */
	if (n->foreign || n->rules[0] != (two | 1u << RAW_TABLE_DEFAULT) || (n->rules[1] && n->rules[1] != two))
		return NETVIEW_REFUSE_RULES;
	return 0;
}

void raw_build(const struct raw_net *n, bool (*allowed)(const char *, uint32_t, void *), void *arg,
	       struct netview_copy *out)
{
	memset(out, 0, sizeof(*out));
	out->refuse = refusal(n);
	build_ifaces(n, allowed, arg, out);
	build_addrs(n, out);
	if (out->refuse == NETVIEW_REFUSE_OVERFLOW)
		return;
	build_never(out);
	for (uint32_t i = 0; i < n->routes;)
		i = build_route(n, i, out);
	memcpy(out->neigh, n->neigh, n->neighs * sizeof(n->neigh[0]));
	out->neighs = n->neighs;
}
