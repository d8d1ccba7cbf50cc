/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Layout of a stack: where its parts lie, and the check by which a stranger's mapping of it is trusted to be one.
 *
 * The offsets follow from the configuration alone, so the check computes them again and compares. The header is the
 * only part that formatting writes: zero means free, empty and unused everywhere else.
 */
#include <errno.h>
#include <string.h>

#include "engine/capture.h"

#define SOCKS_LIMIT (1u << 24) /* vsock_t has 24 bits for the index */
#define PKTS_LIMIT (1u << 26)
#define HASH_LIMIT (1u << 26)
#define PAGE 4096u

_Static_assert(sizeof(struct udp_route) == 24, "a route is 24 bytes");
_Static_assert(offsetof(struct stack, sock_pool) == offsetof(struct stack, now_us) + 64, "one line for each call");

struct layout {
	uint64_t vnics, socks, pkts, private, hash, fdinfo, ifaces, routes, capture, total;
};

static bool config_valid(const struct stack_config *c)
{
	return c->max_socks >= 2 && c->max_socks <= SOCKS_LIMIT && c->max_pkts >= 2 && c->max_pkts <= PKTS_LIMIT &&
	       c->max_private >= 2 && c->max_private <= PKTS_LIMIT && c->hash_buckets &&
	       c->hash_buckets <= HASH_LIMIT && !(c->hash_buckets & (c->hash_buckets - 1)) &&
	       c->max_fdinfo <= SOCKS_LIMIT;
}

/* Reserve n objects at the next line. */
static uint64_t place(uint64_t *end, uint64_t n, uint64_t size)
{
	uint64_t at = (*end + VNIC_LINE - 1) & ~(uint64_t)(VNIC_LINE - 1);

	*end = at + n * size;
	return at;
}

static struct layout lay_out(const struct stack_config *cfg)
{
	uint64_t end = sizeof(struct stack);
	struct layout l;

	l.vnics = place(&end, VNIC_MAX, sizeof(struct vnic_state));
	l.socks = place(&end, cfg->max_socks, sizeof(struct sock));
	l.pkts = place(&end, cfg->max_pkts, sizeof(struct pkt));
	l.private = place(&end, cfg->max_private, PRIVATE_BUF_SIZE);
	l.hash = place(&end, cfg->hash_buckets, sizeof(uint32_t));
	l.fdinfo = place(&end, cfg->max_fdinfo, sizeof(struct stack_fdinfo));
	l.ifaces = place(&end, VNIC_MAX, sizeof(struct iface));
	l.routes = place(&end, (uint64_t)UDP_ROUTE_SETS * UDP_ROUTE_WAYS, sizeof(struct udp_route));
	l.capture = 0;
	if (cfg->capture) {
		end = (end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
		l.capture = place(&end, 1, sizeof(struct capture));
	}
	l.total = (end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	return l;
}

size_t stack_size(const struct stack_config *cfg)
{
	return config_valid(cfg) ? lay_out(cfg).total : 0;
}

static void derive_keys(struct stack *s)
{
	for (uint64_t i = 0; i < 4; i++)
		s->hash_key[i] = keyed_hash(s->cfg.secret, &i, sizeof(i));
}

int stack_format(void *mem, size_t len, const struct stack_config *cfg)
{
	struct stack *s = mem;
	struct layout l;

	if (!config_valid(cfg))
		return -EINVAL;
	l = lay_out(cfg);
	if (len < l.total || (uintptr_t)mem % VNIC_LINE)
		return -EINVAL;
	s->version = STACK_VERSION;
	s->header_size = sizeof(*s);
	s->total_size = l.total;
	s->off_vnics = l.vnics;
	s->off_socks = l.socks;
	s->off_pkts = l.pkts;
	s->off_private = l.private;
	s->off_hash = l.hash;
	s->off_fdinfo = l.fdinfo;
	s->off_ifaces = l.ifaces;
	s->off_routes = l.routes;
	s->off_capture = l.capture;
	s->cfg = *cfg;
	s->sock_pool = (struct stack_pool){.mark = 1, .limit = cfg->max_socks};
	s->pkt_pool = (struct stack_pool){.mark = 1, .limit = cfg->max_pkts};
	s->private_pool = (struct stack_pool){.mark = 1, .limit = cfg->max_private};
	tcp_share_init(s);
	derive_keys(s);
	memcpy(&s->ip_id, cfg->secret, sizeof(s->ip_id));
	s->magic = STACK_MAGIC;
	return 0;
}

int stack_check(const void *mem, size_t len)
{
	const struct stack *s = mem;
	struct stack_config cfg;
	struct layout l;

	if (len < sizeof(*s) || s->magic != STACK_MAGIC || s->version != STACK_VERSION || s->header_size != sizeof(*s))
		return -EPROTO;
	cfg = s->cfg;
	if (!config_valid(&cfg))
		return -EPROTO;
	l = lay_out(&cfg);
	if (l.total > len || s->total_size != l.total || s->off_vnics != l.vnics || s->off_socks != l.socks ||
	    s->off_pkts != l.pkts || s->off_private != l.private || s->off_hash != l.hash ||
	    s->off_fdinfo != l.fdinfo || s->off_ifaces != l.ifaces || s->off_routes != l.routes ||
	    s->off_capture != l.capture)
		return -EPROTO;
	if (s->sock_pool.limit != cfg.max_socks || s->pkt_pool.limit != cfg.max_pkts ||
	    s->private_pool.limit != cfg.max_private || s->sock_pool.mark > cfg.max_socks)
		return -EPROTO;
	return 0;
}
