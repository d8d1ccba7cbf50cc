/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IPv6 datagrams that are larger than a router on their path lets pass: the sender cuts them (RFC 8200 4.5), and nobody
 * else may. What routers say comes to the engine (icmp.c, route_mtu), not to the kernel, so the kernel can't. Larger
 * ones than the link takes are the kernel's all the same (socket/udp_socket.c).
 */
#include <errno.h>

#include "engine/bytes.h"
#include "engine/engine.h"
#include "engine/inet.h"
#include "engine/udp_cut.h"

#define FRAGMENT_HEADER 8u
#define MORE 1u
#define CSUM_OFF 6u
#define PIECES 16u

/* Bytes [skip, skip + len) of what the iovecs hold. */
static void copy_from(const struct iovec *iov, int iovcnt, size_t skip, uint8_t *to, size_t len)
{
	for (int i = 0; i < iovcnt && len; i++) {
		size_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = n - skip < len ? n - skip : len;
		memcpy(to, (const uint8_t *)iov[i].iov_base + skip, n);
		to += n;
		len -= n;
		skip = 0;
	}
}

/* One piece, without the IP header: fragment header, then bytes [at, at + len) of the UDP packet. */
static void fill_piece(uint8_t *l4, const struct udp_cut *c, uint32_t at, uint32_t len, bool more)
{
	uint8_t *data = l4 + FRAGMENT_HEADER;

	l4[0] = PROTO_UDP;
	l4[1] = 0;
	put_be16(l4 + 2, at | (more ? MORE : 0));
	put_be32(l4 + 4, c->id);
	if (!at) {
		put_be16(data, c->from->port);
		put_be16(data + 2, c->to->port);
		put_be16(data + 4, (uint32_t)c->total + UDP_HEADER);
		put_be16(data + CSUM_OFF, 0);
		copy_from(c->iov, c->iovcnt, 0, data + UDP_HEADER, len - UDP_HEADER);
	} else {
		copy_from(c->iov, c->iovcnt, at - UDP_HEADER, data, len);
	}
}

static void post_piece(struct engine *e, const struct ip_out *o, uint32_t buf, uint32_t len)
{
	struct vnic *v = &e->vnic[o->vnic];
	uint32_t header = ip_header_len(6) + (v->st->vlan ? VLAN_TAG : 0);
	struct vnic_desc d = {.type = VNIC_DESC_FRAME,
			      .buf = buf,
			      .off = (uint16_t)(PKT_HEADROOM - header),
			      .len = (uint16_t)(header + len)};

	ip_put_headers(e, o, vnic_tx_buf(v, buf) + PKT_HEADROOM, len);
	v->ops->post(v, &d, 1);
	vnic_tx_free(v, buf);
}

ssize_t udp_send_cut(struct engine *e, const struct ip_out *whole, const struct udp_cut *c)
{
	struct vnic *v = &e->vnic[whole->vnic];
	uint32_t size = (c->mtu - IPV6_HEADER - FRAGMENT_HEADER) & ~7u, end = (uint32_t)c->total + UDP_HEADER, n = 0;
	uint32_t buf[PIECES], len[PIECES];
	struct ip_out o = *whole;
	uint32_t sum = csum_pseudo(6, o.src, o.dst, PROTO_UDP, end);
	uint16_t folded;

	if (size * PIECES < end || PKT_HEADROOM + FRAGMENT_HEADER + size > v->st->buf_size)
		return -ENOLINK;
	o.proto = PROTO_FRAGMENT;
	for (uint32_t at = 0; at < end; at += size, n++) {
		int b = vnic_tx_alloc(v); /* the caller has counted them */
		uint8_t *l4;

		if (b < 0)
			break;
		buf[n] = (uint32_t)b;
		len[n] = end - at < size ? end - at : size;
		l4 = vnic_tx_buf(v, buf[n]) + PKT_HEADROOM;
		fill_piece(l4, c, at, len[n], at + len[n] < end);
		sum = csum_add(l4 + FRAGMENT_HEADER, len[n], sum);
	}
	folded = csum_fold(sum);
	if (!folded)
		folded = 0xffff;
	if (n)
		memcpy(vnic_tx_buf(v, buf[0]) + PKT_HEADROOM + FRAGMENT_HEADER + CSUM_OFF, &folded, sizeof(folded));
	for (uint32_t i = 0; i < n; i++)
		post_piece(e, &o, buf[i], FRAGMENT_HEADER + len[i]);
	return (ssize_t)c->total;
}
