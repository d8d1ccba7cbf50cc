/* SPDX-License-Identifier: BSD-2-Clause */
/* The steering of the provider `verbs`: filters as flow rules (ibv_create_flow(3)), exact in what they name, so that
 * the kernel keeps all else. Rules belong to a queue pair: a new one gets them all again. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/if_ether.h>
#include <string.h>

#include "vnic/verbs/nic.h"

struct rule {
	struct ibv_flow_attr attr;
	struct ibv_flow_spec_eth eth;
	union {
		struct ibv_flow_spec_ipv4 v4;
		struct ibv_flow_spec_ipv6 v6;
	} ip; /* the last spec follows it at once, whichever it is: see add_ports */
	struct ibv_flow_spec_tcp_udp room;
};

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const struct verbs_flow *f)
{
	return !memcmp(f->local, mapped, sizeof(mapped));
}

static void add_ipv4(struct rule *r, const struct verbs_flow *f)
{
	struct ibv_flow_spec_ipv4 *ip = &r->ip.v4;

	*ip = (struct ibv_flow_spec_ipv4){.type = IBV_FLOW_SPEC_IPV4, .size = sizeof(*ip)};
	memcpy(&ip->val.dst_ip, f->local + 12, 4);
	ip->mask.dst_ip = UINT32_MAX;
	if (f->remote_port) {
		memcpy(&ip->val.src_ip, f->remote + 12, 4);
		ip->mask.src_ip = UINT32_MAX;
	}
}

static void add_ipv6(struct rule *r, const struct verbs_flow *f)
{
	struct ibv_flow_spec_ipv6 *ip = &r->ip.v6;

	*ip = (struct ibv_flow_spec_ipv6){.type = IBV_FLOW_SPEC_IPV6, .size = sizeof(*ip)};
	memcpy(ip->val.dst_ip, f->local, 16);
	memset(ip->mask.dst_ip, 0xff, 16);
	if (f->remote_port) {
		memcpy(ip->val.src_ip, f->remote, 16);
		memset(ip->mask.src_ip, 0xff, 16);
	}
}

static void add_ports(void *to, const struct verbs_flow *f)
{
	struct ibv_flow_spec_tcp_udp l4 = {.type = f->proto == IPPROTO_TCP ? IBV_FLOW_SPEC_TCP : IBV_FLOW_SPEC_UDP,
					   .size = sizeof(l4),
					   .val.dst_port = htons(f->local_port),
					   .mask.dst_port = UINT16_MAX};

	if (f->remote_port) {
		l4.val.src_port = htons(f->remote_port);
		l4.mask.src_port = UINT16_MAX;
	}
	memcpy(to, &l4, sizeof(l4));
}

static struct ibv_flow *make_rule(struct verbs_nic *nic, const struct verbs_flow *f)
{
	struct rule r = {.attr = {.type = IBV_FLOW_ATTR_NORMAL, .num_of_specs = 3, .port = nic->about.port},
			 .eth = {.type = IBV_FLOW_SPEC_ETH, .size = sizeof(r.eth)}};
	uint8_t *behind = (uint8_t *)&r.ip;

	memcpy(r.eth.val.dst_mac, nic->about.mac, 6);
	memset(r.eth.mask.dst_mac, 0xff, 6);
	r.eth.val.ether_type = htons(is_v4(f) ? ETH_P_IP : ETH_P_IPV6);
	r.eth.mask.ether_type = UINT16_MAX;
	if (is_v4(f))
		add_ipv4(&r, f);
	else
		add_ipv6(&r, f);
	behind += is_v4(f) ? sizeof(r.ip.v4) : sizeof(r.ip.v6);
	add_ports(behind, f);
	r.attr.size = (uint16_t)(behind + sizeof(r.room) - (uint8_t *)&r);
	return ibv_create_flow(nic->qp, &r.attr);
}

static struct nic_flow *find(struct verbs_nic *nic, const struct verbs_flow *f)
{
	for (uint32_t i = 0; i < NIC_FLOWS; i++) {
		const struct verbs_flow *w = &nic->flow[i].want;

		if (nic->flow[i].used && w->proto == f->proto && w->local_port == f->local_port &&
		    w->remote_port == f->remote_port && !memcmp(w->local, f->local, 16) &&
		    !memcmp(w->remote, f->remote, 16))
			return &nic->flow[i];
	}
	return NULL;
}

int flow_add(struct verbs_nic *nic, const struct verbs_flow *f)
{
	struct nic_flow *at = NULL;

	if ((f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP) || !f->local_port)
		return -EINVAL;
	if (nic->gone)
		return -ENODEV;
	if (find(nic, f))
		return 0;
	for (uint32_t i = 0; i < NIC_FLOWS && !at; i++)
		at = nic->flow[i].used ? NULL : &nic->flow[i];
	if (!at)
		return -ENOSPC;
	at->want = *f;
	at->rule = nic->broken ? NULL : make_rule(nic, f);
	at->used = nic->broken || at->rule;
	return at->used ? 0 : -errno;
}

void flow_remove(struct verbs_nic *nic, const struct verbs_flow *f)
{
	struct nic_flow *at = find(nic, f);

	if (!at)
		return;
	if (at->rule)
		(void)ibv_destroy_flow(at->rule);
	*at = (struct nic_flow){0};
}

void flows_drop(struct verbs_nic *nic)
{
	for (uint32_t i = 0; i < NIC_FLOWS; i++) {
		if (nic->flow[i].rule)
			(void)ibv_destroy_flow(nic->flow[i].rule);
		nic->flow[i].rule = NULL;
	}
}

int flows_restore(struct verbs_nic *nic)
{
	for (uint32_t i = 0; i < NIC_FLOWS; i++) {
		if (!nic->flow[i].used || nic->flow[i].rule)
			continue;
		nic->flow[i].rule = make_rule(nic, &nic->flow[i].want);
		if (!nic->flow[i].rule)
			return -errno;
	}
	return 0;
}
