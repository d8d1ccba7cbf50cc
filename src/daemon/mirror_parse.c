/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of rtnetlink(7) into the mirror's tables. What we can't say exactly becomes a route of the kernel's
 * (NETVIEW_ROUTE_KERNEL), in its place, so that it still hides what is behind it.
 *
 * The kernel is trusted to tell the truth, but lengths are checked: attributes that are too short count as absent.
 */
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include "daemon/mirror_raw.h"
#include "engine/bytes.h"

#define BOND_MODE_ACTIVE_BACKUP 1 /* Documentation/networking/bonding.rst */
#define TYPES_MAX 64

struct attrs {
	const struct nlattr *of[TYPES_MAX];
};

static void sort_out(struct attrs *a, const void *data, size_t len)
{
	const struct nlattr *attr;

	memset(a, 0, sizeof(*a));
	mnl_attr_for_each_payload(data, len)
	{
		uint16_t type = mnl_attr_get_type(attr);

		if (type < TYPES_MAX)
			a->of[type] = attr;
	}
}

/* The attributes of a message behind its header. False: it is shorter than that. */
static bool sort_message(struct attrs *a, const struct nlmsghdr *h, size_t head)
{
	size_t len = mnl_nlmsg_get_payload_len(h), skip = MNL_ALIGN(head);

	if (h->nlmsg_len < MNL_NLMSG_HDRLEN || len < head)
		return false;
	sort_out(a, (const char *)mnl_nlmsg_get_payload(h) + skip, len > skip ? len - skip : 0);
	return true;
}

static void sort_nested(struct attrs *a, const struct nlattr *nest)
{
	memset(a, 0, sizeof(*a));
	if (nest)
		sort_out(a, mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest));
}

/* The attribute's bytes, if there are at least len. */
static const void *bytes(const struct attrs *a, int type, size_t len)
{
	const struct nlattr *attr = a->of[type];

	return attr && mnl_attr_get_payload_len(attr) >= len ? mnl_attr_get_payload(attr) : NULL;
}

static uint32_t number(const struct attrs *a, int type, uint32_t otherwise)
{
	uint32_t v = otherwise;
	const void *p = bytes(a, type, 4);

	if (p)
		memcpy(&v, p, 4);
	return v;
}

/* An address attribute of the family, as 16 bytes. */
static bool address(const struct attrs *a, int type, int family, uint8_t out[16])
{
	const void *p = bytes(a, type, family == AF_INET ? 4 : 16);

	if (!p)
		return false;
	if (family == AF_INET)
		map_v4(out, p);
	else
		memcpy(out, p, 16);
	return true;
}

/* --- interfaces --- */

static void link_vlan(struct raw_link *l, const struct attrs *data, uint32_t below)
{
	uint16_t id = 0, protocol = 0;
	const void *p = bytes(data, IFLA_VLAN_ID, 2), *q = bytes(data, IFLA_VLAN_PROTOCOL, 2);

	l->kind = RAW_VLAN;
	l->below = below;
	if (p)
		memcpy(&id, p, 2);
	if (q)
		protocol = get_be16(q);
	l->vlan = id & 0xfff;
	if (!p || (q && protocol != 0x8100)) /* 802.1Q; 802.1ad is not ours to make */
		l->elsewhere = 1;
}

static void link_bond(struct raw_link *l, const struct attrs *data)
{
	const uint8_t *mode = bytes(data, IFLA_BOND_MODE, 1);

	l->kind = RAW_BOND;
	l->below = number(data, IFLA_BOND_ACTIVE_SLAVE, 0);
	if (!mode || *mode != BOND_MODE_ACTIVE_BACKUP || !l->below)
		l->elsewhere = 1; /* several devices at once, or none */
}

static void link_kind(struct raw_link *l, const struct attrs *a)
{
	struct attrs info, data;
	const char *kind;

	sort_nested(&info, a->of[IFLA_LINKINFO]);
	kind = bytes(&info, IFLA_INFO_KIND, 5);
	sort_nested(&data, info.of[IFLA_INFO_DATA]);
	if (kind && !memcmp(kind, "vlan", 5))
		link_vlan(l, &data, a->of[IFLA_LINK_NETNSID] ? 0 : number(a, IFLA_LINK, 0));
	else if (kind && !memcmp(kind, "bond", 5))
		link_bond(l, &data);
}

static uint32_t link_mtu6(const struct attrs *a)
{
	struct attrs families, inet6;
	const int32_t *conf;
	int32_t mtu;

	sort_nested(&families, a->of[IFLA_AF_SPEC]);
	sort_nested(&inet6, families.of[AF_INET6]);
	conf = bytes(&inet6, IFLA_INET6_CONF, (DEVCONF_MTU6 + 1) * sizeof(*conf));
	if (!conf)
		return 0;
	memcpy(&mtu, conf + DEVCONF_MTU6, sizeof(mtu));
	return mtu > 0 ? (uint32_t)mtu : 0;
}

void raw_take_link(struct raw_net *n, const struct nlmsghdr *h)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct raw_link *l;
	struct attrs a;
	const void *mac, *name;

	if (h->nlmsg_type != RTM_NEWLINK || !sort_message(&a, h, sizeof(*m)) || m->ifi_family != AF_UNSPEC)
		return;
	if (n->links == NETVIEW_IFACES) {
		n->overflow = true;
		return;
	}
	l = &n->link[n->links++];
	memset(l, 0, sizeof(*l));
	l->ifindex = (uint32_t)m->ifi_index;
	l->flags = m->ifi_flags;
	l->type = m->ifi_type;
	l->mtu = number(&a, IFLA_MTU, 0);
	l->master = number(&a, IFLA_MASTER, 0);
	l->mtu6 = link_mtu6(&a);
	name = a.of[IFLA_IFNAME] ? mnl_attr_get_payload(a.of[IFLA_IFNAME]) : NULL;
	if (name)
		memcpy(l->name, name, strnlen(name, mnl_attr_get_payload_len(a.of[IFLA_IFNAME])) % sizeof(l->name));
	mac = bytes(&a, IFLA_ADDRESS, 6);
	if (mac)
		memcpy(l->mac, mac, 6);
	link_kind(l, &a);
}

/* --- addresses --- */

void raw_take_addr(struct raw_net *n, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct raw_addr *r;
	struct attrs a;
	uint8_t addr[16];
	uint32_t flags;

	if (h->nlmsg_type != RTM_NEWADDR || !sort_message(&a, h, sizeof(*m)) ||
	    (m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
		return;
	/* where there is a peer, IFA_ADDRESS is the peer's */
	if (!address(&a, IFA_LOCAL, m->ifa_family, addr) && !address(&a, IFA_ADDRESS, m->ifa_family, addr))
		return;
	if (n->addrs == NETVIEW_ADDRS) {
		n->overflow = true;
		return;
	}
	flags = number(&a, IFA_FLAGS, m->ifa_flags);
	r = &n->addr[n->addrs++];
	memset(r, 0, sizeof(*r));
	memcpy(r->a.addr, addr, 16);
	r->a.ifindex = m->ifa_index;
	r->a.prefix = (uint8_t)(m->ifa_prefixlen + (m->ifa_family == AF_INET ? 96 : 0));
	r->a.scope = m->ifa_scope;
	if (m->ifa_family == AF_INET) {
		/* for IPv4 these two only order the list; a deprecated address is chosen all the same */
		r->secondary = (flags & IFA_F_SECONDARY) != 0;
		r->a.flags = NETVIEW_ADDR_USABLE;
	} else if (!(flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED))) {
		r->a.flags = NETVIEW_ADDR_USABLE;
	}
	if (m->ifa_family == AF_INET6 && flags & IFA_F_TEMPORARY)
		r->a.flags |= NETVIEW_ADDR_TEMPORARY;
}

/* --- rules --- */

static int table_of(uint32_t id)
{
	return id == RT_TABLE_LOCAL     ? RAW_TABLE_LOCAL
	       : id == RT_TABLE_MAIN    ? RAW_TABLE_MAIN
	       : id == RT_TABLE_DEFAULT ? RAW_TABLE_DEFAULT
					: -1;
}

/* The kernel's own rules (fib_default_rules_init): 0 local, 32766 main, and for IPv4 32767 default. */
static const uint32_t own_priority[] = {[RAW_TABLE_LOCAL] = 0, [RAW_TABLE_MAIN] = 32766, [RAW_TABLE_DEFAULT] = 32767};

/* Attributes that don't restrict a rule. */
static bool rule_harmless(const struct attrs *a)
{
	for (int i = 0; i < TYPES_MAX; i++) {
		if (!a->of[i] || i == FRA_TABLE || i == FRA_PRIORITY || i == FRA_PROTOCOL)
			continue;
		if ((i == FRA_SUPPRESS_PREFIXLEN || i == FRA_SUPPRESS_IFGROUP) && number(a, i, 0) == UINT32_MAX)
			continue;
		return false;
	}
	return true;
}

void raw_take_rule(struct raw_net *n, const struct nlmsghdr *h)
{
	const struct fib_rule_hdr *m = mnl_nlmsg_get_payload(h);
	struct attrs a;
	int table, six;

	if (h->nlmsg_type != RTM_NEWRULE || !sort_message(&a, h, sizeof(*m)) ||
	    (m->family != AF_INET && m->family != AF_INET6))
		return;
	six = m->family == AF_INET6;
	table = table_of(number(&a, FRA_TABLE, m->table));
	if (table < 0 || m->action != FR_ACT_TO_TBL || m->src_len || m->dst_len || m->tos || m->flags ||
	    number(&a, FRA_PRIORITY, 0) != own_priority[table] || (six && table == RAW_TABLE_DEFAULT) ||
	    !rule_harmless(&a))
		n->foreign = true;
	else
		n->rules[six] |= (uint8_t)(1u << table);
}

/* --- routes --- */

static const struct {
	uint8_t kernel, view;
} route_types[] = {{RTN_UNICAST, NETVIEW_ROUTE_UNICAST}, {RTN_LOCAL, NETVIEW_ROUTE_LOCAL}};

static uint8_t route_type(const struct rtmsg *m, const struct attrs *a)
{
	/* A type of service or a source narrows the route, an encapsulation is not ours to make. A nexthop object that
	 * the kernel does not spell out (net.ipv4.nexthop_compat_mode=0) says nothing to us. */
	if (m->rtm_tos || m->rtm_src_len || a->of[RTA_ENCAP] || a->of[RTA_ENCAP_TYPE] || a->of[RTA_NEWDST])
		return NETVIEW_ROUTE_KERNEL;
	if (a->of[RTA_NH_ID] && !a->of[RTA_OIF] && !a->of[RTA_MULTIPATH])
		return NETVIEW_ROUTE_KERNEL;
	for (size_t i = 0; i < sizeof(route_types) / sizeof(route_types[0]); i++)
		if (route_types[i].kernel == m->rtm_type)
			return route_types[i].view;
	return NETVIEW_ROUTE_KERNEL;
}

/* RTA_GATEWAY, or RTA_VIA: a gateway of the other family. False: one that we don't understand. */
static bool gateway(const struct attrs *a, int family, uint8_t via[16])
{
	const struct nlattr *attr = a->of[RTA_VIA];
	struct rtvia head;

	if (!attr) {
		if (a->of[RTA_GATEWAY])
			return address(a, RTA_GATEWAY, family, via);
		return true;
	}
	if (mnl_attr_get_payload_len(attr) < sizeof(head) + 16)
		return false;
	memcpy(&head, mnl_attr_get_payload(attr), sizeof(head));
	memcpy(via, (const char *)mnl_attr_get_payload(attr) + sizeof(head), 16);
	return head.rtvia_family == AF_INET6;
}

/* One more hop of the route that t describes. */
static void add_hop(struct raw_net *n, const struct raw_route *t, uint8_t *hops)
{
	if (n->routes == NETVIEW_ROUTES) {
		n->overflow = true;
		return;
	}
	n->route[n->routes] = *t;
	n->route[n->routes++].hop = (*hops)++;
}

/* RTA_MULTIPATH: a list of struct rtnexthop, each with attributes. False: not understood. */
static bool add_hops(struct raw_net *n, const struct nlattr *list, int family, struct raw_route *t, uint8_t *hops)
{
	const char *p = mnl_attr_get_payload(list);
	size_t left = mnl_attr_get_payload_len(list);

	while (left >= sizeof(struct rtnexthop)) {
		struct rtnexthop nh;
		struct attrs a;

		memcpy(&nh, p, sizeof(nh));
		if (nh.rtnh_len < sizeof(nh) || nh.rtnh_len > left || *hops == RAW_HOPS_MAX)
			return false;
		sort_out(&a, p + sizeof(nh), nh.rtnh_len - sizeof(nh));
		memset(t->r.via, 0, 16);
		t->r.ifindex = (uint32_t)nh.rtnh_ifindex;
		t->r.weight = nh.rtnh_hops == 255 ? 255 : (uint8_t)(nh.rtnh_hops + 1);
		if (a.of[RTA_ENCAP] || a.of[RTA_ENCAP_TYPE] || !gateway(&a, family, t->r.via))
			return false;
		if (!(nh.rtnh_flags & RTNH_F_DEAD))
			add_hop(n, t, hops);
		if ((size_t)RTNH_ALIGN(nh.rtnh_len) >= left)
			break;
		p += RTNH_ALIGN(nh.rtnh_len);
		left -= RTNH_ALIGN(nh.rtnh_len);
	}
	return true;
}

static void route_hops(struct raw_net *n, const struct rtmsg *m, const struct attrs *a, struct raw_route *t)
{
	uint32_t first = n->routes;
	uint8_t hops = 0;
	bool known = t->r.type != NETVIEW_ROUTE_KERNEL;

	if (known && a->of[RTA_MULTIPATH]) {
		known = add_hops(n, a->of[RTA_MULTIPATH], m->rtm_family, t, &hops);
	} else if (known) {
		t->r.weight = 1;
		known = gateway(a, m->rtm_family, t->r.via);
		if (known && !(m->rtm_flags & RTNH_F_DEAD))
			add_hop(n, t, &hops);
	}
	if (!known) { /* in its place one that the kernel serves */
		n->routes = first;
		hops = 0;
		t->r.type = NETVIEW_ROUTE_KERNEL;
		t->r.ifindex = 0;
		t->r.weight = 1;
		memset(t->r.via, 0, 16);
		memset(t->r.from, 0, 16);
		add_hop(n, t, &hops);
	}
	if (first < n->routes)
		n->route[first].r.hops = hops;
}

void raw_take_route(struct raw_net *n, const struct nlmsghdr *h)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct raw_route t = {.order = n->order};
	struct attrs a, metrics;
	int table;

	if (h->nlmsg_type != RTM_NEWROUTE || !sort_message(&a, h, sizeof(*m)) ||
	    (m->rtm_family != AF_INET && m->rtm_family != AF_INET6) || m->rtm_flags & RTM_F_CLONED)
		return;
	table = table_of(number(&a, RTA_TABLE, m->rtm_table));
	if (m->rtm_family == AF_INET6 && table == RAW_TABLE_DEFAULT)
		return; /* no rule of IPv6's asks it */
	if (table < 0 || m->rtm_dst_len > (m->rtm_family == AF_INET ? 32 : 128))
		return;
	n->order++;
	if (!address(&a, RTA_DST, m->rtm_family, t.r.dst) && m->rtm_family == AF_INET)
		map_v4(t.r.dst, "\0\0\0");
	if (m->rtm_family == AF_INET6 && is_v4(t.r.dst))
		return; /* no IPv6 packet goes there */
	t.table = (uint8_t)table;
	t.scope = m->rtm_scope;
	t.object = a.of[RTA_NH_ID] != NULL;
	t.r.prefix = (uint8_t)(m->rtm_dst_len + (m->rtm_family == AF_INET ? 96 : 0));
	t.r.metric = number(&a, RTA_PRIORITY, 0);
	t.r.ifindex = number(&a, RTA_OIF, 0);
	t.r.type = route_type(m, &a);
	address(&a, RTA_PREFSRC, m->rtm_family, t.r.from);
	sort_nested(&metrics, a.of[RTA_METRICS]);
	t.r.mtu = number(&metrics, RTAX_MTU, 0);
	route_hops(n, m, &a, &t);
}

/* --- neighbours --- */

static int neigh_order(const void *x, const void *y)
{
	const struct netview_neigh *a = x, *b = y;
	int d = memcmp(a->addr, b->addr, 16);

	return d ? d : (a->ifindex > b->ifindex) - (a->ifindex < b->ifindex);
}

const struct netview_neigh *raw_neigh(const struct raw_net *n, uint32_t ifindex, const uint8_t addr[16])
{
	struct netview_neigh key = {.ifindex = ifindex};

	memcpy(key.addr, addr, 16);
	return bsearch(&key, n->neigh, n->neighs, sizeof(key), neigh_order);
}

static void neigh_set(struct raw_net *n, const struct netview_neigh *set)
{
	uint32_t i = 0, count = n->neighs;

	while (count > 0) { /* the first that is not before it */
		uint32_t half = count / 2;

		if (neigh_order(&n->neigh[i + half], set) < 0) {
			i += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	if (i == n->neighs || neigh_order(&n->neigh[i], set) != 0) {
		if (n->neighs == NETVIEW_NEIGHS) {
			n->neigh_overflow = true;
			return;
		}
		memmove(&n->neigh[i + 1], &n->neigh[i], (n->neighs - i) * sizeof(*set));
		n->neighs++;
	}
	n->neigh[i] = *set;
}

static void neigh_drop(struct raw_net *n, uint32_t ifindex, const uint8_t addr[16])
{
	const struct netview_neigh *found = raw_neigh(n, ifindex, addr);
	uint32_t i;

	if (!found)
		return;
	i = (uint32_t)(found - n->neigh);
	n->neighs--;
	memmove(&n->neigh[i], &n->neigh[i + 1], (n->neighs - i) * sizeof(*found));
}

bool raw_neigh_retry(struct raw_net *n, uint32_t ifindex, const uint8_t addr[16])
{
	const struct netview_neigh *found = raw_neigh(n, ifindex, addr);

	if (!found || !found->failed)
		return false;
	neigh_drop(n, ifindex, addr);
	return true;
}

void raw_take_neigh(struct raw_net *n, const struct nlmsghdr *h)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct netview_neigh e = {0};
	struct attrs a;
	const void *mac;

	if ((h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH) || !sort_message(&a, h, sizeof(*m)) ||
	    (m->ndm_family != AF_INET && m->ndm_family != AF_INET6) || m->ndm_flags & NTF_PROXY ||
	    !address(&a, NDA_DST, m->ndm_family, e.addr))
		return;
	e.ifindex = (uint32_t)m->ndm_ifindex;
	mac = bytes(&a, NDA_LLADDR, 6);
	e.usable = mac && m->ndm_state & (NUD_PERMANENT | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY);
	e.failed = (m->ndm_state & NUD_FAILED) != 0;
	if (h->nlmsg_type == RTM_DELNEIGH || (!e.usable && !e.failed)) {
		/* gone, being resolved for the first time, or one of those (multicast) that need no resolution */
		neigh_drop(n, e.ifindex, e.addr);
		return;
	}
	if (e.usable)
		memcpy(e.mac, mac, 6);
	neigh_set(n, &e);
}

void raw_clear(struct raw_net *n)
{
	n->links = n->addrs = n->routes = n->order = 0;
	n->overflow = n->foreign = false;
	n->rules[0] = n->rules[1] = 0;
}

void raw_clear_neighs(struct raw_net *n)
{
	n->neighs = 0;
	n->neigh_overflow = false;
}
