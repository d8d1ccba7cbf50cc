/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups: which of the stack's sockets hear a multicast datagram (RFC 1112, RFC 3376 3.2, RFC 3678).
 *
 * Joining is the kernel's: the program's call goes to the backing socket, so IGMP and MLD, the device's filter and the
 * checks are the kernel's own. Here is only noted what it agreed to. A frame to a group is given to each socket bound
 * to the group's address or to any, at the datagram's port, that has joined the group on the interface by which the
 * frame came and has not shut out its sender. A socket that has not joined there, and would hear it from the kernel all
 * the same (IP_MULTICAST_ALL), has no filter for the group: viaductd lets the kernel serve all then (daemon/groups.h).
 */
#include <errno.h>

#include "engine/bytes.h"
#include "engine/engine.h"

bool udp_is_group(const uint8_t addr[16])
{
	return is_v4(addr) ? addr[12] >> 4 == 0xe : addr[0] == 0xff;
}

static bool same(const struct udp_member *a, const struct udp_member *b)
{
	return a->mode == b->mode && a->ifindex == b->ifindex && addr_equal(a->group, b->group) &&
	       addr_equal(a->source, b->source);
}

int udp_join(struct sock *k, const struct udp_member *m)
{
	struct udp_member *free = NULL;

	for (uint32_t i = UDP_MEMBERS; i-- > 0;) {
		struct udp_member *at = &k->udp.member[i];

		if (at->mode == UDP_MEMBER_NONE)
			free = at;
		else if (same(at, m))
			return 0;
	}
	if (!free)
		return -ENOSPC;
	*free = *m;
	if (k->udp.members <= (uint32_t)(free - k->udp.member))
		k->udp.members = (uint32_t)(free - k->udp.member) + 1;
	return 0;
}

bool udp_leave(struct sock *k, const struct udp_member *m)
{
	bool left = true;

	for (uint32_t i = 0; i < k->udp.members && i < UDP_MEMBERS; i++) {
		struct udp_member *at = &k->udp.member[i];

		if (at->ifindex != m->ifindex || !addr_equal(at->group, m->group))
			continue;
		if (m->mode == UDP_MEMBER_ALL || same(at, m))
			at->mode = UDP_MEMBER_NONE;
		else if (at->mode != UDP_MEMBER_NONE && at->mode != UDP_MEMBER_BLOCKED)
			left = false;
	}
	return left;
}

bool udp_hears(const struct sock *k, const uint8_t group[16], const uint8_t source[16], uint32_t ifindex)
{
	bool hears = false;

	if (k->dst.ifindex && k->dst.ifindex != ifindex)
		return false;
	for (uint32_t i = 0; i < k->udp.members && i < UDP_MEMBERS; i++) {
		const struct udp_member *at = &k->udp.member[i];

		if (at->mode == UDP_MEMBER_NONE || at->ifindex != ifindex || !addr_equal(at->group, group))
			continue;
		if (at->mode == UDP_MEMBER_ALL)
			hears = true;
		else if (addr_equal(at->source, source))
			return at->mode == UDP_MEMBER_SOURCE;
	}
	return hears;
}

static bool is_member(const struct sock *k, const uint8_t group[16])
{
	for (uint32_t i = 0; i < k->udp.members && i < UDP_MEMBERS; i++)
		if (k->udp.member[i].mode != UDP_MEMBER_NONE && k->udp.member[i].mode != UDP_MEMBER_BLOCKED &&
		    addr_equal(k->udp.member[i].group, group))
			return true;
	return false;
}

bool udp_group_lives(struct stack *s, const struct endpoint *group)
{
	for (uint32_t i = 1; i < s->sock_pool.mark; i++) {
		const struct sock *k = sock_at(s, i);

		if (k && k->proto == SOCK_UDP && k->local.port == group->port && is_member(k, group->addr))
			return true;
	}
	return false;
}

/* To those of them that are bound to `local`. How many. */
static int give(struct engine *e, struct frame *f, const struct endpoint *local, uint32_t ifindex, uint32_t len)
{
	struct sock *k = sock_bound_next(e->s, SOCK_UDP, local, NULL);
	int n = 0;

	for (; k; k = sock_bound_next(e->s, SOCK_UDP, local, k)) {
		if (!udp_hears(k, f->dst.addr, f->src.addr, ifindex))
			continue;
		udp_deliver(e, k, f, len);
		n++;
	}
	return n;
}

void udp_group_input(struct engine *e, struct frame *f, uint32_t len)
{
	const struct vnic_state *st = stack_vnic(e->s, f->vnic);
	struct endpoint any = {.port = f->dst.port};
	struct sock *k = sock_lookup(e->s, SOCK_UDP, &f->dst, &f->src);
	int n = 0;

	if (ip_source_ours(e, f))
		return;
	if (k && udp_hears(k, f->dst.addr, f->src.addr, st->ifindex)) {
		udp_deliver(e, k, f, len);
		n++;
	}
	n += give(e, f, &f->dst, st->ifindex, len);
	n += give(e, f, &any, st->ifindex, len);
	if (!n)
		count(e->s, C_udp_not_member);
}

uint32_t udp_group_by(const struct sock *k, const uint8_t to[16], const uint8_t **from)
{
	uint32_t ifindex = is_v4(to) ? k->udp.group_if : k->udp.group_if6;

	if (is_any(*from) && is_v4(to) && !is_any(k->udp.group_from))
		*from = k->udp.group_from;
	return ifindex ? ifindex : k->dst.ifindex;
}
