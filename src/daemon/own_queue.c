/* SPDX-License-Identifier: BSD-2-Clause */
/* See own_queue.h. */
#include "daemon/own_queue.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ntuple.h"

/* A rule in a NIC. */
struct own_rule {
	struct ntuple_rule rule;
	uint32_t device;
	bool claimed; /* else of an earlier viaductd's stack that has not named it yet */
};

static bool same_rule(const struct own_rule *a, uint32_t device, uint16_t vlan, const struct steer_key *key)
{
	return a->device == device && a->rule.vlan == vlan && !memcmp(&a->rule.key, key, sizeof(*key));
}

static struct own_rule *find(const struct house *h, uint32_t device, uint16_t vlan, const struct steer_key *key)
{
	for (uint32_t i = 0; i < h->own_rules; i++)
		if (same_rule(&h->own_rule[i], device, vlan, key))
			return &h->own_rule[i];
	return NULL;
}

static int append(struct house *h, const struct own_rule *r)
{
	struct own_rule *more;

	if (h->own_rules % 64 == 0) {
		more = realloc(h->own_rule, (h->own_rules + 64) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		h->own_rule = more;
	}
	h->own_rule[h->own_rules++] = *r;
	return 0;
}

/* A device that is gone has taken its rules with it. */
static void remove_at(struct house *h, uint32_t i)
{
	char name[IF_NAMESIZE];

	if (if_indextoname(h->own_rule[i].device, name))
		ntuple_remove(h->sock, name, h->own_rule[i].rule.location);
	h->own_rule[i] = h->own_rule[--h->own_rules];
}

/* --- queues --- */

uint32_t own_queues_rss(struct house *h, uint32_t device, uint32_t queues)
{
	char name[IF_NAMESIZE];
	int rss;

	if (!h->policy.own_queues_count || !if_indextoname(device, name) || !policy_own_queues(&h->policy, name))
		return queues;
	rss = ntuple_rss(h->sock, name);
	return rss > 0 && (uint32_t)rss < queues ? (uint32_t)rss : queues;
}

bool own_queue_is(const struct tenant_vnic *v)
{
	return v->ifindex && v->about.mode == DAEMON_MODE_DIRECT && v->port.first;
}

static bool queue_taken(const struct house *h, uint32_t device, uint32_t queue)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; h->tenant[i] && v < TENANT_VNICS; v++) {
			const struct tenant_vnic *n = &h->tenant[i]->vnic[v];

			if (own_queue_is(n) && n->where.ifindex == device && n->port.first == queue)
				return true;
		}
	return false;
}

/* Rules to this queue are waited for: its stack has not come to this viaductd yet. */
static bool queue_awaited(const struct house *h, uint32_t device, uint32_t queue)
{
	for (uint32_t i = 0; i < h->own_rules; i++)
		if (!h->own_rule[i].claimed && h->own_rule[i].device == device && h->own_rule[i].rule.queue == queue)
			return true;
	return false;
}

int own_queue_free(const struct house *h, uint32_t device, uint32_t rss, uint32_t queues)
{
	for (uint32_t q = rss; q < queues && q < STEER_QUEUES; q++)
		if (!queue_taken(h, device, q) && !queue_awaited(h, device, q))
			return (int)q;
	return -EBUSY;
}

/* --- rules --- */

static int add_rule(struct tenant *t, const struct tenant_vnic *v, const struct steer_key *key)
{
	struct house *h = t->house;
	uint16_t vlan = (uint16_t)v->where.vlan;
	struct own_rule r = {
	    .rule = {.key = *key, .vlan = vlan, .queue = v->port.first}, .device = v->where.ifindex, .claimed = true};
	struct own_rule *known = find(h, r.device, vlan, key);
	char name[IF_NAMESIZE];
	int rc;

	if (known && known->rule.queue != v->port.first)
		return -EADDRINUSE;
	if (known) {
		known->claimed = true;
		return 0;
	}
	if (!if_indextoname(r.device, name))
		return -ENODEV;
	rc = ntuple_insert(h->sock, name, &r.rule);
	if (rc)
		return rc;
	rc = append(h, &r);
	if (rc)
		ntuple_remove(h->sock, name, r.rule.location);
	return rc;
}

void own_queue_gone(struct tenant *t, const struct tenant_vnic *v)
{
	struct house *h = t->house;

	for (uint32_t i = h->own_rules; own_queue_is(v) && i-- > 0;)
		if (h->own_rule[i].device == v->where.ifindex && h->own_rule[i].rule.queue == v->port.first)
			remove_at(h, i);
}

/* Somebody else has the port as well. */
static bool is_shared(const struct tenant *t, const struct steer_key *key)
{
	return filters_others(t->house->filters, key, t->number);
}

int own_queue_steer(struct tenant *t, const struct tenant_vnic *v)
{
	int rc = 0;

	for (uint32_t id = 1; id <= t->filter_high && !rc; id++)
		for (uint32_t i = 0; i < t->filter[id - 1].keys && !rc; i++) {
			const struct steer_key *key = &t->filter[id - 1].key[i];

			rc = is_shared(t, key) ? -EADDRINUSE : add_rule(t, v, key);
		}
	if (rc)
		own_queue_gone(t, v);
	return rc;
}

/* A rule for the key leads to a queue that is not the tenant's. */
static bool is_anothers(const struct tenant *t, const struct steer_key *key)
{
	const struct house *h = t->house;

	for (uint32_t i = 0; i < h->own_rules; i++) {
		const struct own_rule *r = &h->own_rule[i];
		bool ours = !r->claimed || memcmp(&r->rule.key, key, sizeof(*key)) != 0;

		for (uint32_t v = 0; v < TENANT_VNICS && !ours; v++)
			ours = own_queue_is(&t->vnic[v]) && t->vnic[v].where.ifindex == r->device &&
			       t->vnic[v].port.first == r->rule.queue;
		if (!ours)
			return true;
	}
	return false;
}

int own_queue_add(struct tenant *t, const struct steer_key *key)
{
	int rc = is_anothers(t, key) ? -EADDRINUSE : 0;

	for (uint32_t v = 0; v < TENANT_VNICS && !rc; v++)
		if (own_queue_is(&t->vnic[v]))
			rc = is_shared(t, key) ? -EADDRINUSE : add_rule(t, &t->vnic[v], key);
	return rc;
}

void own_queue_del(struct tenant *t, const struct steer_key *key)
{
	struct house *h = t->house;

	for (uint32_t v = 0; v < TENANT_VNICS; v++) {
		const struct tenant_vnic *n = &t->vnic[v];
		const struct own_rule *r =
		    own_queue_is(n) ? find(h, n->where.ifindex, (uint16_t)n->where.vlan, key) : NULL;

		if (r && r->rule.queue == n->port.first)
			remove_at(h, (uint32_t)(r - h->own_rule));
	}
}

/* --- what an earlier viaductd left --- */

static void adopt_device(struct house *h, uint32_t device, const char *name)
{
	struct ntuple_rule *list = NULL;
	int rss = ntuple_rss(h->sock, name), n = rss > 0 ? ntuple_list(h->sock, name, (uint32_t)rss, &list) : 0;

	for (int i = 0; i < n; i++) {
		struct own_rule r = {.rule = list[i], .device = device};

		if (append(h, &r))
			break;
	}
	free(list);
}

void own_queues_adopt(struct house *h)
{
	struct if_nameindex *all = h->policy.own_queues_count ? if_nameindex() : NULL;

	for (struct if_nameindex *i = all; i && i->if_index; i++)
		if (policy_own_queues(&h->policy, i->if_name))
			adopt_device(h, i->if_index, i->if_name);
	if (all)
		if_freenameindex(all);
}

void own_queues_sweep(struct house *h)
{
	for (uint32_t i = h->own_rules; i-- > 0;)
		if (!h->own_rule[i].claimed)
			remove_at(h, i);
}
