/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IPv4 (RFC 791, 1122) and IPv6 (RFC 8200), as a host that neither forwards nor reassembles.
 *
 * In: every length is checked against what is there, addresses that can't be a peer's or ours are dropped without an
 * answer, then TCP, UDP or ICMP goes on with frame.off at its header and frame.end at the packet's end. Which addresses
 * are ours the stack doesn't know: what a socket is bound to, is. Options of IPv4 are skipped (no source routing, as
 * Linux by default); fragments are dropped.
 *
 * Out: the headers go right in front of the transport header, into the headroom of the tx buffer.
 */
#include "engine/bytes.h"
#include "engine/engine.h"
#include "engine/inet.h"
#include "engine/route.h"

#define IPV4_DF 0x4000u
#define IPV4_MORE_OR_OFFSET 0x3fffu
#define DEFAULT_TTL 64u

static void drop(struct engine *e, enum counter why)
{
	count(e->s, why);
}

/* Source and destination the same in address and port: only a socket connected to itself may see that. */
static bool self_without_socket(struct engine *e, const struct frame *f)
{
	struct endpoint self = f->src;
	enum sock_proto proto = f->proto == PROTO_TCP ? SOCK_TCP : SOCK_UDP;

	if ((f->proto != PROTO_TCP && f->proto != PROTO_UDP) || f->off + 4 > f->hdr_len)
		return false;
	self.port = get_be16(f->hdr + f->off);
	if (self.port != get_be16(f->hdr + f->off + 2))
		return false;
	return !sock_lookup(e->s, proto, &self, &self);
}

/* 127/8 and ::1 never come from a network (RFC 1122 3.2.1.3 (g), RFC 4291 2.5.3). */
static bool loopback(const uint8_t a[16])
{
	static const uint8_t one[16] = {[15] = 1};

	return is_v4(a) ? a[12] == 127 : addr_equal(a, one);
}

bool ip_source_ours(struct engine *e, const struct frame *f)
{
	if (!f->network || !route_is_own(e->view, f->src.addr))
		return false;
	drop(e, C_ip_spoofed);
	return true;
}

bool ip_checksum_good(struct engine *e, const struct frame *f, uint32_t end, uint32_t field)
{
	uint32_t pseudo = csum_pseudo(f->family, f->src.addr, f->dst.addr, f->proto, end - f->off);
	uint16_t is, partial = (uint16_t)~csum_fold(pseudo);

	if (f->csum_partial) { /* a device would have filled in the rest */
		memcpy(&is, f->hdr + f->off + field, sizeof(is));
		if (is == partial)
			return true;
	}
	return !csum_fold(frame_sum(e, f, f->off, end, pseudo));
}

static void deliver(struct engine *e, struct frame *f)
{
	if (__builtin_expect(f->group && f->proto != PROTO_UDP, 0))
		drop(e, C_eth_group);
	else if (__builtin_expect(f->network && (loopback(f->src.addr) || loopback(f->dst.addr)), 0))
		drop(e, C_ip_spoofed);
	else if (__builtin_expect(addr_equal(f->src.addr, f->dst.addr), 0) && self_without_socket(e, f))
		drop(e, C_ip_bad_address);
	else if (f->proto == PROTO_TCP)
		tcp_input(e, f);
	else if (f->proto == PROTO_UDP)
		udp_input(e, f);
	else if (f->proto == (f->family == 4 ? PROTO_ICMP : PROTO_ICMPV6))
		icmp_input(e, f);
	else
		drop(e, C_ip_unknown_proto);
}

static inline bool group_v4(const uint8_t *a)
{
	return a[0] >> 4 == 0xe;
}

/* 0/8 (this network), 224/4 (multicast), 240/4 (class E and the broadcast address): neither a peer's nor ours. */
static inline bool odd_v4(const uint8_t *a)
{
	return a[0] == 0 || a[0] >= 224;
}

/* The sender of an open frame has added to it (vnic/wire.h): all that came is the packet. */
static inline bool whole_frame(const struct frame *f)
{
	return f->parts == 1 && f->part[0].flags & VNIC_F_OPEN;
}

static void ipv4_input(struct engine *e, struct frame *f)
{
	const uint8_t *h = f->hdr + f->off;
	uint32_t left = f->hdr_len - f->off, ihl, len;

	if (left < IPV4_HEADER)
		return drop(e, C_frame_truncated);
	ihl = (h[0] & 15u) * 4;
	len = get_be16(h + 2);
	if (!len && whole_frame(f))
		len = f->total - f->off;
	if (h[0] >> 4 != 4 || ihl < IPV4_HEADER || len < ihl)
		return drop(e, C_ip_bad_header);
	if (ihl > left || len > f->total - f->off)
		return drop(e, C_frame_truncated);
	if (!f->csum_ok && csum_fold(csum_add(h, ihl, 0)))
		return drop(e, C_ip_bad_checksum);
	if (get_be16(h + 6) & IPV4_MORE_OR_OFFSET)
		return drop(e, C_ip_fragment);
	if (odd_v4(h + 12) || f->group != group_v4(h + 16) || (odd_v4(h + 16) && !f->group))
		return drop(e, C_ip_bad_address);
	map_v4(f->src.addr, h + 12);
	map_v4(f->dst.addr, h + 16);
	f->tos = h[1];
	f->ttl = h[8];
	f->proto = h[9];
	f->end = f->off + len;
	f->off += ihl;
	deliver(e, f);
}

/* Unspecified, multicast, or an IPv4 address in disguise, which would reach IPv4 sockets. */
static bool odd_v6(const uint8_t *a)
{
	return a[0] == 0xff || is_any(a) || is_v4(a);
}

/* The options of one hop-by-hop or destination options header of n bytes: true if all may be skipped
 * (RFC 8200, 4.2: the two highest bits of an unknown option's type say what to do with the packet). */
static bool options_skippable(const uint8_t *h, uint32_t n)
{
	for (uint32_t i = 2; i < n;) {
		if (h[i] == 0) { /* Pad1 */
			i++;
			continue;
		}
		if (n - i < 2 || h[i + 1] > n - i - 2 || h[i] >> 6)
			return false;
		i += 2u + h[i + 1];
	}
	return true;
}

/* Walk the extension headers to the transport's. False: dropped. */
static bool skip_extensions(struct engine *e, struct frame *f)
{
	for (;;) {
		const uint8_t *h = f->hdr + f->off;
		uint32_t n;

		if (f->proto == PROTO_FRAGMENT) {
			drop(e, C_ip_fragment);
			return false;
		}
		if (f->proto == PROTO_ROUTING) {
			drop(e, C_ip_options);
			return false;
		}
		if (f->proto != PROTO_HOPOPTS && f->proto != PROTO_DSTOPTS)
			return true;
		if (f->off + 2 > f->hdr_len || f->off + 2 > f->end || (n = (h[1] + 1u) * 8, n > f->hdr_len - f->off) ||
		    n > f->end - f->off) {
			drop(e, C_frame_truncated);
			return false;
		}
		if (!options_skippable(h, n)) {
			drop(e, C_ip_options);
			return false;
		}
		f->proto = h[0];
		f->off += n;
		if (f->proto == PROTO_HOPOPTS) { /* only ever the first */
			drop(e, C_ip_options);
			return false;
		}
	}
}

static void ipv6_input(struct engine *e, struct frame *f)
{
	const uint8_t *h = f->hdr + f->off;
	uint32_t len;

	if (f->hdr_len - f->off < IPV6_HEADER)
		return drop(e, C_frame_truncated);
	if (h[0] >> 4 != 6)
		return drop(e, C_ip_bad_header);
	len = get_be16(h + 4) + IPV6_HEADER;
	if (len == IPV6_HEADER && whole_frame(f))
		len = f->total - f->off;
	if (len > f->total - f->off)
		return drop(e, C_frame_truncated);
	if (odd_v6(h + 8) || f->group != (h[24] == 0xff) || (odd_v6(h + 24) && !f->group))
		return drop(e, C_ip_bad_address);
	memcpy(f->src.addr, h + 8, 16);
	memcpy(f->dst.addr, h + 24, 16);
	f->tos = (uint8_t)(get_be16(h) >> 4);
	f->ttl = h[7];
	f->proto = h[6];
	f->end = f->off + len;
	f->off += IPV6_HEADER;
	if (skip_extensions(e, f))
		deliver(e, f);
}

void ip_input(struct engine *e, struct frame *f)
{
	if (f->family == 4)
		ipv4_input(e, f);
	else
		ipv6_input(e, f);
}

uint32_t ip_header_len(int family)
{
	return ETH_HEADER + (family == 4 ? IPV4_HEADER : IPV6_HEADER);
}

uint32_t ip_mtu_payload(const struct engine *e, uint32_t vnic, int family)
{
	const struct vnic_state *st = stack_vnic(e->s, vnic);
	uint32_t header = ip_header_len(family) - ETH_HEADER;

	return st && st->mtu > header ? st->mtu - header : 0;
}

/* The checksum, not yet complemented, of all parts but the first, which have `sum` before them; odd: at an odd offset.
 */
static uint32_t sum_more(const struct vnic *v, const struct vnic_desc *parts, int n, uint32_t sum, bool odd)
{
	uint64_t total = sum;

	for (int i = 0; i < n; i++) {
		const uint8_t *p = vnic_tx_buf(v, parts[i].buf) + parts[i].off;
		uint16_t s = (uint16_t)~csum_fold(csum_add(p, parts[i].len, 0));

		total += odd ? __builtin_bswap16(s) : s;
		odd ^= parts[i].len & 1;
	}
	return (uint32_t)((total & 0xffffffffu) + (total >> 32));
}

/* The transport checksum over all parts, stored at l4 + csum_off. */
static void fill_checksum(const struct vnic *v, const struct ip_out *o, const struct vnic_desc *parts, int n,
			  uint32_t csum_off, uint32_t len)
{
	uint8_t *l4 = vnic_tx_buf(v, parts[0].buf) + parts[0].off;
	uint32_t sum = o->proto == PROTO_ICMP ? 0 : csum_pseudo(o->family, o->src, o->dst, o->proto, len);
	uint16_t folded;

	memset(l4 + csum_off, 0, 2);
	sum = csum_add(l4, parts[0].len, sum);
	if (n > 1)
		sum = sum_more(v, parts + 1, n - 1, sum, parts[0].len & 1);
	folded = csum_fold(sum);
	if (!folded && o->proto == PROTO_UDP)
		folded = 0xffff; /* RFC 768: zero would mean none */
	memcpy(l4 + csum_off, &folded, 2);
}

static void put_ipv4(struct engine *e, const struct ip_out *o, uint8_t *h, uint32_t len, bool checksum)
{
	h[0] = 0x45;
	h[1] = o->tos;
	put_be16(h + 2, IPV4_HEADER + len);
	put_be16(h + 4, e->s->ip_id++);
	put_be16(h + 6, o->df ? IPV4_DF : 0);
	h[8] = o->ttl ? o->ttl : DEFAULT_TTL;
	h[9] = o->proto;
	memset(h + 10, 0, 2);
	memcpy(h + 12, o->src + 12, 4);
	memcpy(h + 16, o->dst + 12, 4);
	if (checksum) {
		uint16_t sum = csum_fold(csum_add(h, IPV4_HEADER, 0));

		memcpy(h + 10, &sum, 2);
	}
}

static void put_ipv6(const struct ip_out *o, uint8_t *h, uint32_t len)
{
	put_be32(h, 0x60000000u | (uint32_t)o->tos << 20); /* flow label 0 */
	put_be16(h + 4, len);
	h[6] = o->proto;
	h[7] = o->ttl ? o->ttl : DEFAULT_TTL;
	memcpy(h + 8, o->src, 16);
	memcpy(h + 24, o->dst, 16);
}

static inline uint32_t eth_len(const struct vnic_state *st)
{
	return ETH_HEADER + (st->vlan ? VLAN_TAG : 0);
}

void ip_put_headers(struct engine *e, const struct ip_out *o, uint8_t *l4, uint32_t len)
{
	const struct vnic_state *st = e->vnic[o->vnic].st;
	uint8_t *ip = l4 - (ip_header_len(o->family) - ETH_HEADER), *eth = ip - eth_len(st);

	memcpy(eth, o->mac ? o->mac : st->peer_mac, 6);
	memcpy(eth + 6, st->mac, 6);
	if (__builtin_expect(st->vlan, 0)) {
		put_be16(eth + 12, ETH_VLAN);
		put_be16(eth + ETH_HEADER, st->vlan);
	}
	if (o->family == 4) {
		put_be16(ip - 2, ETH_IPV4);
		put_ipv4(e, o, ip, len, !(st->features & VNIC_FEAT_CSUM_TX));
	} else {
		put_be16(ip - 2, ETH_IPV6);
		put_ipv6(o, ip, len);
	}
}

void ip_output(struct engine *e, const struct ip_out *o, struct vnic_desc *parts, int n, uint32_t csum_off)
{
	struct vnic *v = &e->vnic[o->vnic % VNIC_MAX];
	uint32_t header, len = 0;
	bool checksum;

	if (o->vnic >= VNIC_MAX || !v->ops || v->st->dead)
		return drop(e, C_ip_no_vnic);
	header = ip_header_len(o->family) - ETH_HEADER + eth_len(v->st);
	for (int i = 0; i < n; i++)
		len += parts[i].len;
	if (len + header - eth_len(v->st) > v->st->mtu || parts[0].off < header)
		return drop(e, C_ip_too_big);
	checksum = !(v->st->features & VNIC_FEAT_CSUM_TX);
	if (checksum)
		fill_checksum(v, o, parts, n, csum_off, len);
	ip_put_headers(e, o, vnic_tx_buf(v, parts[0].buf) + parts[0].off, len);
	parts[0].off = (uint16_t)(parts[0].off - header);
	parts[0].len = (uint16_t)(parts[0].len + header);
	for (int i = 0; i < n; i++) {
		parts[i].type = VNIC_DESC_FRAME;
		parts[i].flags = (i + 1 < n ? VNIC_F_MORE : 0) | (checksum ? 0 : VNIC_F_CSUM_TX);
		parts[i].gso_len = 0;
	}
	v->ops->post(v, parts, n);
}
