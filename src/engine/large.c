/* SPDX-License-Identifier: BSD-2-Clause */
/* See large.h. virtio 1.2, 5.1.6.2: how the header before a frame names the segments in it. */
#include "engine/large.h"

#include <string.h>

#include "engine/bytes.h"
#include "engine/capture.h"
#include "engine/engine.h"
#include "engine/inet.h"
#include "engine/tcp_internal.h"
#include "engine/tcp_wire.h"

#define HDR_NEEDS_CSUM 1u
#define GSO_TCPV4 1u
#define GSO_TCPV6 4u

/* Does the header continue the frame's? It may differ in sequence number, checksum, and in PSH and FIN, which end it.
 */
static bool continues(const struct large *g, const struct large_frame *f, const uint8_t *l4, uint32_t header)
{
	const uint8_t *first = g->bytes + f->at + f->l4;

	return get_be32(l4 + 4) == f->next_seq && memcmp(first + 8, l4 + 8, 5) == 0 &&
	       !((first[13] ^ l4[13]) & ~(TH_PSH | TH_FIN)) && memcmp(first + 14, l4 + 14, 2) == 0 &&
	       memcmp(first + 18, l4 + 18, header - 18) == 0;
}

static void copy_parts(const struct vnic *v, const struct vnic_desc *parts, int n, uint32_t skip, uint8_t *to)
{
	for (int i = 0; i < n; i++, skip = 0) {
		memcpy(to, vnic_tx_buf(v, parts[i].buf) + parts[i].off + skip, parts[i].len - skip);
		to += parts[i].len - skip;
	}
}

static void taken(struct large *g, struct large_frame *f, const uint8_t *l4, uint32_t payload)
{
	f->next_seq = get_be32(l4 + 4) + payload;
	f->segments++;
	g->bytes[f->at + f->l4 + 13] = l4[13];
	if (payload < f->mss || l4[13] & (TH_PSH | TH_FIN))
		f->open = false;
}

static bool append(struct engine *e, const struct sock *k, const struct ip_out *o, const struct vnic_desc *parts, int n,
		   uint32_t payload)
{
	const struct vnic *v = &e->vnic[o->vnic];
	const uint8_t *l4 = vnic_tx_buf(v, parts[0].buf) + parts[0].off;
	uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
	struct large *g = e->large;
	struct large_frame *f;

	if (!g->frames)
		return false;
	f = &g->frame[g->frames - 1];
	if (!f->open || f->sock != sock_index(e->s, k) || f->vnic != o->vnic || f->tos != o->tos || payload > f->mss ||
	    f->len - LARGE_LEAD + payload > LARGE_MAX || !continues(g, f, l4, header))
		return false;
	copy_parts(v, parts, n, header, g->bytes + f->at + f->len);
	f->len += payload;
	g->used += payload;
	taken(g, f, l4, payload);
	return true;
}

/* The headers are written in front of the segment, as ip_output does, and copied with it. */
static void start(struct engine *e, const struct sock *k, const struct ip_out *o, const struct vnic_desc *parts, int n,
		  uint32_t payload)
{
	const struct vnic *v = &e->vnic[o->vnic];
	uint8_t *l4 = vnic_tx_buf(v, parts[0].buf) + parts[0].off;
	struct large *g = e->large;
	struct large_frame *f = &g->frame[g->frames++];
	uint32_t lower = ip_header_len(o->family), len = (uint32_t)(l4[12] >> 4) * 4 + payload;

	ip_put_headers(e, o, l4, len);
	*f = (struct large_frame){.vnic = o->vnic,
				  .sock = sock_index(e->s, k),
				  .at = g->used,
				  .len = LARGE_LEAD + lower + len,
				  .mss = (uint16_t)payload,
				  .l4 = (uint16_t)(LARGE_LEAD + lower),
				  .family = o->family,
				  .tos = o->tos,
				  .open = true};
	memcpy(g->bytes + f->at + LARGE_LEAD, l4 - lower, lower);
	copy_parts(v, parts, n, 0, g->bytes + f->at + f->l4);
	g->used += f->len;
	taken(g, f, l4, payload);
}

/* Bytes of the TCP header. */
static uint32_t header_of(const struct engine *e, const struct ip_out *o, const struct vnic_desc *parts)
{
	return (uint32_t)(vnic_tx_buf(&e->vnic[o->vnic], parts[0].buf)[parts[0].off + 12] >> 4) * 4;
}

bool large_add(struct engine *e, const struct sock *k, const struct ip_out *o, const struct vnic_desc *parts, int n,
	       uint32_t payload, bool more)
{
	struct large *g = e->large;
	struct vnic_state *st = e->vnic[o->vnic].st;

	if (st->vlan || capture_on(e->s) || !payload || /* captures look at the rings */
	    payload + ip_header_len(o->family) - ETH_HEADER + header_of(e, o, parts) > st->mtu)
		return false;
	if (!append(e, k, o, parts, n, payload)) {
		if (!more && !g->frames)
			return false;
		if (g->frames == LARGE_FRAMES || g->used + LARGE_ROOM > LARGE_BYTES) {
			g->full = true;
			return false;
		}
		start(e, k, o, parts, n, payload);
	}
	st->stats.tx_frames++;
	st->stats.tx_bytes += payload;
	return true;
}

static void finish_ip(uint8_t *ip, uint8_t family, uint32_t l4_len)
{
	uint16_t sum;

	if (family != 4) {
		put_be16(ip + 4, l4_len);
		return;
	}
	put_be16(ip + 2, IPV4_HEADER + l4_len);
	memset(ip + 10, 0, 2);
	sum = csum_fold(csum_add(ip, IPV4_HEADER, 0));
	memcpy(ip + 10, &sum, 2);
}

void large_finish(struct large *g, uint32_t i)
{
	const struct large_frame *f = &g->frame[i];
	uint8_t *lead = g->bytes + f->at, *l4 = lead + f->l4, *ip = lead + LARGE_LEAD + ETH_HEADER;
	uint32_t header = (uint32_t)(l4[12] >> 4) * 4, len = f->len - f->l4;
	uint16_t partial, words[4] = {0};
	uint8_t src[16], dst[16];

	finish_ip(ip, f->family, len);
	if (f->family == 4) {
		map_v4(src, ip + 12);
		map_v4(dst, ip + 16);
	} else {
		memcpy(src, ip + 8, 16);
		memcpy(dst, ip + 24, 16);
	}
	partial = (uint16_t)~csum_fold(csum_pseudo(f->family, src, dst, PROTO_TCP, len));
	memcpy(l4 + TCP_CSUM_OFF, &partial, 2);
	lead[0] = HDR_NEEDS_CSUM;
	lead[1] = f->segments < 2 ? 0 : f->family == 4 ? GSO_TCPV4 : GSO_TCPV6;
	words[0] = (uint16_t)(f->l4 - LARGE_LEAD + header); /* hdr_len, gso_size, csum_start, csum_offset */
	words[1] = f->segments < 2 ? 0 : f->mss;
	words[2] = (uint16_t)(f->l4 - LARGE_LEAD);
	words[3] = TCP_CSUM_OFF;
	memcpy(lead + 2, words, sizeof(words));
}
