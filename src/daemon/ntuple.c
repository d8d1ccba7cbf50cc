/* SPDX-License-Identifier: BSD-2-Clause */
/* See ntuple.h. What the kernel and the driver answer is bounded before it is used as a size. */
#include "daemon/ntuple.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define TABLE_MAX 65536u /* rules; entries of the indirection table */
#define VLAN_ID 0x0fffu

static int call(int sock, const char *name, void *command)
{
	struct ifreq ifr = {0};

	strncpy(ifr.ifr_name, name, sizeof(ifr.ifr_name) - 1);
	ifr.ifr_data = command;
	return ioctl(sock, SIOCETHTOOL, &ifr) ? -errno : 0;
}

ntuple_call *ntuple_ioctl = call;

/* --- queues --- */

static int highest_ring(int sock, const char *name, uint32_t size)
{
	struct ethtool_rxfh_indir *table = calloc(1, sizeof(*table) + size * sizeof(table->ring_index[0]));
	uint32_t high = 0;
	int rc;

	if (!table)
		return -ENOMEM;
	table->cmd = ETHTOOL_GRXFHINDIR;
	table->size = size;
	rc = ntuple_ioctl(sock, name, table);
	for (uint32_t i = 0; !rc && i < size && i < table->size; i++)
		if (table->ring_index[i] > high)
			high = table->ring_index[i];
	free(table);
	return rc ? rc : high < TABLE_MAX ? (int)high + 1 : -EPROTO;
}

int ntuple_rss(int sock, const char *name)
{
	struct ethtool_value flags = {.cmd = ETHTOOL_GFLAGS};
	struct ethtool_rxfh_indir size = {.cmd = ETHTOOL_GRXFHINDIR};
	int rc = ntuple_ioctl(sock, name, &flags);

	if (rc || !(flags.data & ETH_FLAG_NTUPLE))
		return -EOPNOTSUPP;
	rc = ntuple_ioctl(sock, name, &size);
	if (rc || !size.size || size.size > TABLE_MAX)
		return -EOPNOTSUPP;
	return highest_ring(sock, name, size.size);
}

/* --- a rule, as ethtool writes it: a field counts where the mask's bits are set --- */

static bool has(const uint8_t addr[16])
{
	static const uint8_t none[16];

	return memcmp(addr, none, sizeof(none)) != 0;
}

static void fill_v4(const struct steer_key *k, struct ethtool_tcpip4_spec *h, struct ethtool_tcpip4_spec *m)
{
	memcpy(&h->ip4dst, k->local + 12, 4);
	memcpy(&h->ip4src, k->remote + 12, 4);
	h->pdst = k->local_port;
	h->psrc = k->remote_port;
	m->ip4dst = has(k->local) ? UINT32_MAX : 0;
	m->ip4src = has(k->remote) ? UINT32_MAX : 0;
	m->pdst = UINT16_MAX;
	m->psrc = k->remote_port ? UINT16_MAX : 0;
}

static void fill_v6(const struct steer_key *k, struct ethtool_tcpip6_spec *h, struct ethtool_tcpip6_spec *m)
{
	memcpy(h->ip6dst, k->local, 16);
	memcpy(h->ip6src, k->remote, 16);
	h->pdst = k->local_port;
	h->psrc = k->remote_port;
	memset(m->ip6dst, has(k->local) ? 0xff : 0, 16);
	memset(m->ip6src, has(k->remote) ? 0xff : 0, 16);
	m->pdst = UINT16_MAX;
	m->psrc = k->remote_port ? UINT16_MAX : 0;
}

static void write_rule(const struct ntuple_rule *r, struct ethtool_rx_flow_spec *fs)
{
	bool tcp = r->key.proto == IPPROTO_TCP;

	*fs = (struct ethtool_rx_flow_spec){.ring_cookie = r->queue};
	if (r->key.family == 4) {
		fs->flow_type = tcp ? TCP_V4_FLOW : UDP_V4_FLOW;
		fill_v4(&r->key, &fs->h_u.tcp_ip4_spec, &fs->m_u.tcp_ip4_spec);
	} else {
		fs->flow_type = tcp ? TCP_V6_FLOW : UDP_V6_FLOW;
		fill_v6(&r->key, &fs->h_u.tcp_ip6_spec, &fs->m_u.tcp_ip6_spec);
	}
	if (r->vlan) {
		fs->flow_type |= FLOW_EXT;
		fs->h_ext.vlan_tci = htons(r->vlan);
		fs->m_ext.vlan_tci = htons(VLAN_ID);
	}
}

static void v4_mapped(uint8_t to[16], uint32_t from)
{
	memset(to, 0, 10);
	memset(to + 10, 0xff, 2);
	memcpy(to + 12, &from, 4);
}

static void read_key(const struct ethtool_rx_flow_spec *fs, struct steer_key *k)
{
	uint32_t type = fs->flow_type & ~FLOW_EXT;

	*k = (struct steer_key){.family = type == TCP_V4_FLOW || type == UDP_V4_FLOW ? 4 : 6,
				.proto = type == TCP_V4_FLOW || type == TCP_V6_FLOW ? IPPROTO_TCP : IPPROTO_UDP};
	if (k->family == 4) {
		if (fs->m_u.tcp_ip4_spec.ip4dst)
			v4_mapped(k->local, fs->h_u.tcp_ip4_spec.ip4dst);
		if (fs->m_u.tcp_ip4_spec.ip4src)
			v4_mapped(k->remote, fs->h_u.tcp_ip4_spec.ip4src);
		k->local_port = fs->h_u.tcp_ip4_spec.pdst;
		k->remote_port = fs->h_u.tcp_ip4_spec.psrc;
	} else {
		memcpy(k->local, fs->h_u.tcp_ip6_spec.ip6dst, 16);
		memcpy(k->remote, fs->h_u.tcp_ip6_spec.ip6src, 16);
		k->local_port = fs->h_u.tcp_ip6_spec.pdst;
		k->remote_port = fs->h_u.tcp_ip6_spec.psrc;
	}
}

/* What write_rule would write, and nothing else: else key.proto is 0. */
static void read_rule(const struct ethtool_rx_flow_spec *fs, struct ntuple_rule *r)
{
	struct ethtool_rx_flow_spec same;

	*r = (struct ntuple_rule){.queue = (uint32_t)fs->ring_cookie, .location = fs->location};
	r->vlan = fs->flow_type & FLOW_EXT ? ntohs(fs->h_ext.vlan_tci) : 0;
	read_key(fs, &r->key);
	write_rule(r, &same);
	if (same.flow_type != fs->flow_type || memcmp(same.h_u.hdata, fs->h_u.hdata, sizeof(same.h_u.hdata)) != 0 ||
	    memcmp(same.m_u.hdata, fs->m_u.hdata, sizeof(same.m_u.hdata)) != 0 ||
	    (r->vlan && fs->m_ext.vlan_tci != htons(VLAN_ID)))
		r->key = (struct steer_key){0};
}

/* --- the NIC's table --- */

/* Where the rules are, in order of their location. *size: of the table. *picks: the driver chooses locations. How many
 * there are, or -errno. */
static int locations(int sock, const char *name, uint32_t **list, uint32_t *size, bool *picks)
{
	struct ethtool_rxnfc count = {.cmd = ETHTOOL_GRXCLSRLCNT}, *all;
	int rc = ntuple_ioctl(sock, name, &count);

	if (rc)
		return rc;
	if (count.rule_cnt > TABLE_MAX)
		return -EPROTO;
	all = calloc(1, sizeof(*all) + count.rule_cnt * sizeof(all->rule_locs[0]));
	*list = calloc(count.rule_cnt + 1, sizeof(**list));
	if (!all || !*list)
		rc = -ENOMEM;
	if (!rc) {
		all->cmd = ETHTOOL_GRXCLSRLALL;
		all->rule_cnt = count.rule_cnt;
		rc = ntuple_ioctl(sock, name, all);
	}
	if (!rc) {
		rc = (int)(all->rule_cnt < count.rule_cnt ? all->rule_cnt : count.rule_cnt);
		memcpy(*list, all->rule_locs, (size_t)rc * sizeof(**list));
		*size = (uint32_t)all->data & ~RX_CLS_LOC_SPECIAL;
		*picks = count.data & RX_CLS_LOC_SPECIAL;
	} else {
		free(*list);
		*list = NULL;
	}
	free(all);
	return rc;
}

static bool is_in(const uint32_t *list, int n, uint32_t location)
{
	for (int i = 0; i < n; i++)
		if (list[i] == location)
			return true;
	return false;
}

/* From the end of the table, where rules come after all others, as ethtool(8) does it. */
static int pick_location(int sock, const char *name, uint32_t *location)
{
	uint32_t *used = NULL, size = 0, at;
	bool picks = false;
	int n = locations(sock, name, &used, &size, &picks);

	if (n < 0)
		return n;
	at = size < TABLE_MAX ? size : TABLE_MAX;
	while (!picks && at && is_in(used, n, at - 1))
		at--;
	free(used);
	*location = picks ? RX_CLS_LOC_ANY : at - 1;
	return picks || at ? 0 : -ENOSPC;
}

int ntuple_insert(int sock, const char *name, struct ntuple_rule *r)
{
	struct ethtool_rxnfc insert = {.cmd = ETHTOOL_SRXCLSRLINS};
	int rc;

	write_rule(r, &insert.fs);
	rc = pick_location(sock, name, &insert.fs.location);
	if (!rc)
		rc = ntuple_ioctl(sock, name, &insert);
	r->location = insert.fs.location;
	return rc;
}

int ntuple_remove(int sock, const char *name, uint32_t location)
{
	struct ethtool_rxnfc remove = {.cmd = ETHTOOL_SRXCLSRLDEL, .fs.location = location};

	return ntuple_ioctl(sock, name, &remove);
}

int ntuple_list(int sock, const char *name, uint32_t from, struct ntuple_rule **list)
{
	uint32_t *at = NULL, size;
	bool picks;
	int n = locations(sock, name, &at, &size, &picks), found = 0;

	*list = n < 0 ? NULL : calloc((size_t)n + 1, sizeof(**list));
	if (n >= 0 && !*list)
		n = -ENOMEM;
	for (int i = 0; at && i < n; i++) {
		struct ethtool_rxnfc get = {.cmd = ETHTOOL_GRXCLSRULE, .fs.location = at[i]};

		/* "drop" (RX_CLS_FLOW_DISC) and other functions have more bits than a queue's number */
		if (ntuple_ioctl(sock, name, &get) || get.fs.ring_cookie < from || get.fs.ring_cookie >= TABLE_MAX)
			continue;
		get.fs.location = at[i];
		read_rule(&get.fs, &(*list)[found++]);
	}
	free(at);
	return n < 0 ? n : found;
}
