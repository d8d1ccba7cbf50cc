/* SPDX-License-Identifier: BSD-2-Clause */
/* What viaductd writes into the maps of steer.bpf.c. See steer.h. */
#include "daemon/steer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "viaduct/netview.h"

static int map_set(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) ? -errno : 0;
}

static int map_get(struct bpf_map *map, const void *key, void *value)
{
	return bpf_map_lookup_elem(bpf_map__fd(map), key, value) ? -errno : 0;
}

static void map_clear(struct bpf_map *map, const void *key)
{
	bpf_map_delete_elem(bpf_map__fd(map), key);
}

/* --- interfaces --- */

/* Addresses and MTUs of the interfaces that stacks have vNICs on. */
static void view_ifaces(struct steer *s, const struct netview_copy *c)
{
	struct bpf_map *map = s->skel->maps.vd_ifaces;
	struct steer_if_key key, *last = NULL;

	while (!bpf_map_get_next_key(bpf_map__fd(map), last, &key)) {
		struct steer_if value;

		last = &key;
		if (map_get(map, &key, &value))
			continue;
		for (uint32_t i = 0; i < c->ifaces; i++) {
			const struct netview_iface *f = &c->iface[i];

			uint16_t mtu = f->mtu < UINT16_MAX ? (uint16_t)f->mtu : 0;

			if (f->ifindex != value.ifindex || (!memcmp(value.mac, f->mac, 6) && value.mtu == mtu))
				continue;
			memcpy(value.mac, f->mac, 6);
			value.mtu = mtu;
			map_set(map, &key, &value);
		}
	}
}

int steer_iface(struct steer *s, const struct steer_if_key *where, uint32_t ifindex, const uint8_t mac[6])
{
	struct bpf_map *map = s->skel->maps.vd_ifaces;
	struct steer_if_key key, *last = NULL;
	struct steer_if value;
	uint32_t used = 0, number = STEER_IFACES;
	int rc;

	while (!bpf_map_get_next_key(bpf_map__fd(map), last, &key)) {
		last = &key;
		if (map_get(map, &key, &value))
			continue;
		used |= 1u << value.number % 32;
		if (value.ifindex == ifindex)
			number = value.number;
	}
	for (uint32_t i = 0; i < STEER_IFACES && number == STEER_IFACES; i++)
		if (!(used & 1u << i))
			number = i;
	if (number == STEER_IFACES)
		return -ENOSPC;
	value = (struct steer_if){.ifindex = ifindex, .number = number, .skbs = steer_by_skb(s, where->ifindex)};
	memcpy(value.mac, mac, sizeof(value.mac));
	rc = map_set(map, where, &value);
	if (!rc && s->view)
		view_ifaces(s, &s->view->copy[s->view->version & 1]);
	return rc ? rc : (int)number;
}

void steer_iface_gone(struct steer *s, const struct steer_if_key *where)
{
	map_clear(s->skel->maps.vd_ifaces, where);
}

/* --- what stacks have on them --- */

int steer_port_set(struct steer *s, uint32_t iface, uint32_t stack, const struct steer_port *port)
{
	uint32_t at = steer_port_index(iface, stack);

	return map_set(s->skel->maps.vd_ports, &at, port);
}

int steer_port_get(struct steer *s, uint32_t iface, uint32_t stack, struct steer_port *port)
{
	uint32_t at = steer_port_index(iface, stack);

	return map_get(s->skel->maps.vd_ports, &at, port);
}

void steer_port_clear(struct steer *s, uint32_t iface, uint32_t stack)
{
	uint32_t at = steer_port_index(iface, stack) * STEER_QUEUES;
	struct steer_port none = {0};

	steer_port_set(s, iface, stack, &none);
	for (uint32_t q = 0; q < STEER_QUEUES; q++) {
		uint32_t index = at + q;

		map_clear(s->skel->maps.vd_xsks, &index);
	}
}

int steer_xsk(struct steer *s, uint32_t iface, uint32_t stack, uint32_t queue, int xsk)
{
	uint32_t at = steer_port_index(iface, stack) * STEER_QUEUES + queue;

	return map_set(s->skel->maps.vd_xsks, &at, &xsk);
}

int steer_veth_get(struct steer *s, uint32_t outer, struct steer_outer *o)
{
	return map_get(s->skel->maps.vd_outers, &outer, o);
}

int steer_veth(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer, const struct steer_outer *o)
{
	uint32_t at = steer_port_index(iface, stack);
	struct steer_outer new = *o, old;
	int rc;

	if (!steer_veth_get(s, outer, &old) && old.stack == o->stack) {
		new.sent = old.sent;
		new.refused = old.refused;
	}
	rc = map_set(s->skel->maps.vd_outers, &outer, &new);

	return rc ? rc : map_set(s->skel->maps.vd_veths, &at, &outer);
}

void steer_veth_gone(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer)
{
	uint32_t at = steer_port_index(iface, stack);

	map_clear(s->skel->maps.vd_veths, &at);
	map_clear(s->skel->maps.vd_outers, &outer);
}

/* --- filters --- */

int steer_filter_set(struct steer *s, const struct steer_key *key, const struct steer_target *target)
{
	return map_set(s->skel->maps.vd_filters, key, target);
}

void steer_filter_clear(struct steer *s, const struct steer_key *key)
{
	map_clear(s->skel->maps.vd_filters, key);
}

int steer_filter_get(struct steer *s, const struct steer_key *key, struct steer_target *target)
{
	return map_get(s->skel->maps.vd_filters, key, target);
}

int steer_filter_next(struct steer *s, const struct steer_key *key, struct steer_key *next)
{
	return bpf_map_get_next_key(bpf_map__fd(s->skel->maps.vd_filters), key, next) ? -errno : 0;
}

int steer_kinds_set(struct steer *s, const struct steer_kinds *kinds)
{
	uint32_t zero = 0;

	return map_set(s->skel->maps.vd_kinds, &zero, kinds);
}

int steer_table(const struct steer *s)
{
	return bpf_map__fd(s->skel->maps.vd_table);
}

/* NULL: it can't be had. Others write there meanwhile. */
static struct daemon_flow_set *table(struct steer *s)
{
	_Static_assert(sizeof(struct daemon_flow) == sizeof(struct steer_key), "one is the other");
	void *mem;

	if (s->table)
		return s->table;
	mem = mmap(NULL, DAEMON_FLOW_SETS * sizeof(*s->table), PROT_READ | PROT_WRITE, MAP_SHARED, steer_table(s), 0);
	s->table = mem == MAP_FAILED ? NULL : mem;
	return s->table;
}

bool steer_table_has(struct steer *s, const struct steer_key *flow, uint32_t stack)
{
	struct daemon_flow_set *set = table(s);
	uint32_t word[DAEMON_FLOW_WORDS], hash;

	if (!set)
		return false;
	memcpy(word, flow, sizeof(word));
	hash = daemon_flow_hash(word);
	set += daemon_flow_set_of(hash);
	for (uint32_t i = 0; i < DAEMON_FLOW_WAYS; i++)
		if (__atomic_load_n(&set->tag[i], __ATOMIC_ACQUIRE) == (hash | 1) && set->stack[i] == stack &&
		    !memcmp(&set->flow[i], flow, sizeof(*flow)))
			return true;
	return false;
}

void steer_table_clear(struct steer *s, uint32_t stack)
{
	struct daemon_flow_set *set = table(s);

	for (uint32_t i = 0; set && i < DAEMON_FLOW_SETS; i++, set++)
		for (uint32_t way = 0; way < DAEMON_FLOW_WAYS; way++)
			if (__atomic_load_n(&set->tag[way], __ATOMIC_ACQUIRE) && set->stack[way] == stack)
				__atomic_store_n(&set->tag[way], 0, __ATOMIC_RELEASE);
}

int steer_group_set(struct steer *s, uint32_t group, const struct steer_group *g)
{
	return map_set(s->skel->maps.vd_groups, &group, g);
}

int steer_group_get(struct steer *s, uint32_t group, struct steer_group *g)
{
	return map_get(s->skel->maps.vd_groups, &group, g);
}

/* --- the machine --- */

static bool is_address(const struct netview_copy *c, const uint8_t addr[16])
{
	for (uint32_t i = 0; i < c->addrs; i++)
		if (!memcmp(c->addr[i].addr, addr, 16))
			return true;
	return false;
}

static void view_addresses(struct steer *s, const struct netview_copy *c)
{
	struct bpf_map *map = s->skel->maps.vd_addrs;
	uint8_t key[16], next[16];
	int more;

	for (uint32_t i = 0; i < c->addrs; i++)
		map_set(map, c->addr[i].addr, &c->addr[i].ifindex);
	more = !bpf_map_get_next_key(bpf_map__fd(map), NULL, next);
	while (more) {
		memcpy(key, next, sizeof(key));
		more = !bpf_map_get_next_key(bpf_map__fd(map), key, next);
		if (!is_address(c, key))
			map_clear(map, key);
	}
}

void steer_view(struct steer *s, const struct netview *view)
{
	const struct netview_copy *c = &view->copy[view->version & 1];

	view_addresses(s, c);
	view_ifaces(s, c);
	s->view = view;
}

uint64_t steer_stat(struct steer *s, enum steer_stat which)
{
	int cpus = libbpf_num_possible_cpus();
	uint32_t at = which;
	uint64_t sum = 0, *each = cpus > 0 ? calloc((size_t)cpus, sizeof(*each)) : NULL;

	if (each && !map_get(s->skel->maps.vd_stats, &at, each))
		for (int i = 0; i < cpus; i++)
			sum += each[i];
	free(each);
	return sum;
}
