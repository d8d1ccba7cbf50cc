/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control messages of UDP (ip(7), ipv6(7), RFC 3542): which, in which order, how long, and what becomes of those that
 * do not fit is as the kernel has it, so that a program can't tell which half of its socket a datagram came by.
 *
 * An IPv6 socket that gets an IPv4 datagram is told of it by IPv6's IPV6_PKTINFO, with mapped addresses, and beside by
 * what it asked for at level IPPROTO_IP.
 */
#define _GNU_SOURCE
#include "socket/cmsg.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/bytes.h"
#include "host/host.h"

void cmsg_put(struct cmsg_room *r, int level, int type, const void *data, size_t len)
{
	struct cmsghdr h = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
	size_t space;

	if (!r->at || r->left < sizeof(h)) {
		r->flags |= MSG_CTRUNC;
		return;
	}
	if (r->left < h.cmsg_len) {
		r->flags |= MSG_CTRUNC;
		h.cmsg_len = r->left;
	}
	memcpy(r->at, &h, sizeof(h));
	memcpy(r->at + sizeof(h), data, h.cmsg_len - sizeof(h));
	space = CMSG_SPACE(len) < r->left ? CMSG_SPACE(len) : r->left;
	r->at += space;
	r->left -= space;
	r->used += space;
}

/* --- what is told of a datagram --- */

static void put_v4(struct cmsg_room *r, const struct cmsg_datagram *d)
{
	struct in_pktinfo info = {.ipi_ifindex = (int)d->ifindex};
	struct sockaddr_storage to;
	int ttl = d->meta.ttl;

	if (d->cmsgs & UDP_CMSG_PKTINFO) {
		memcpy(&info.ipi_addr, d->meta.to.addr + 12, 4);
		memcpy(&info.ipi_spec_dst, d->ours + 12, 4);
		cmsg_put(r, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
	if (d->cmsgs & UDP_CMSG_TTL)
		cmsg_put(r, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
	if (d->cmsgs & UDP_CMSG_TOS)
		cmsg_put(r, IPPROTO_IP, IP_TOS, &d->meta.tos, sizeof(d->meta.tos));
	if (d->cmsgs & UDP_CMSG_ORIGDST && d->meta.to.port)
		cmsg_put(r, IPPROTO_IP, IP_ORIGDSTADDR, &to, addr_to_sockaddr(&d->meta.to, 4, &to));
}

static void put_v6(struct cmsg_room *r, const struct cmsg_datagram *d)
{
	int hops = d->meta.ttl, tclass = d->meta.tos;
	struct sockaddr_storage to;

	if (d->cmsgs & UDP_CMSG_HOPLIMIT)
		cmsg_put(r, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof(hops));
	if (d->cmsgs & UDP_CMSG_TCLASS)
		cmsg_put(r, IPPROTO_IPV6, IPV6_TCLASS, &tclass, sizeof(tclass));
	if (d->cmsgs & UDP_CMSG_ORIGDST6 && d->meta.to.port)
		cmsg_put(r, IPPROTO_IPV6, IPV6_ORIGDSTADDR, &to, addr_to_sockaddr(&d->meta.to, 6, &to));
}

void cmsg_datagram(struct cmsg_room *r, const struct cmsg_datagram *d)
{
	struct in6_pktinfo info = {.ipi6_ifindex = d->ifindex};

	if (!d->cmsgs)
		return;
	if (d->family == 6 && d->cmsgs & UDP_CMSG_PKTINFO6) {
		memcpy(&info.ipi6_addr, d->meta.to.addr, 16);
		cmsg_put(r, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
	if (is_v4(d->meta.to.addr))
		put_v4(r, d);
	else
		put_v6(r, d);
}

/* --- errors --- */

void cmsg_error(struct cmsg_room *r, const struct cmsg_datagram *d, const struct sock_error *err)
{
	struct {
		struct sock_extended_err ee;
		struct sockaddr_storage offender;
	} out = {.ee = {.ee_errno = (uint32_t)err->err,
			.ee_origin = err->origin,
			.ee_type = err->type,
			.ee_code = err->code,
			.ee_info = err->info}};
	size_t len = d->family == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	struct endpoint offender = {0};

	if (err->origin != ERROR_LOCAL) {
		memcpy(offender.addr, err->offender, 16);
		addr_to_sockaddr(&offender, d->family, &out.offender);
	}
	if (d->family == 6 && offender.addr[0] == 0xfe && (offender.addr[1] & 0xc0) == 0x80)
		((struct sockaddr_in6 *)(void *)&out.offender)->sin6_scope_id = d->ifindex;
	cmsg_put(r, d->family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, d->family == 6 ? IPV6_RECVERR : IP_RECVERR, &out,
		 sizeof(out.ee) + len);
}

/* --- what the program asks for --- */

static bool take_int(const uint8_t *data, size_t len, int most, int *out)
{
	int v;

	if (len != sizeof(v))
		return false;
	memcpy(&v, data, sizeof(v));
	if (v < 0 || v > most)
		return false;
	*out = v;
	return true;
}

static bool take_v4(int type, const uint8_t *data, size_t len, struct cmsg_sending *s)
{
	struct in_pktinfo info;

	switch (type) {
	case IP_PKTINFO:
		if (len != sizeof(info))
			return false;
		memcpy(&info, data, sizeof(info));
		s->ifindex = (uint32_t)info.ipi_ifindex;
		if (info.ipi_spec_dst.s_addr)
			map_v4(s->from, &info.ipi_spec_dst);
		return info.ipi_ifindex >= 0;
	case IP_TTL:
		return take_int(data, len, 255, &s->ttl) && s->ttl;
	case IP_TOS:
		if (len == 1) {
			s->tos = *data;
			return true;
		}
		return take_int(data, len, 255, &s->tos);
	}
	return false;
}

static bool take_v6(int type, const uint8_t *data, size_t len, struct cmsg_sending *s)
{
	struct in6_pktinfo info;

	switch (type) {
	case IPV6_PKTINFO:
		if (len != sizeof(info))
			return false;
		memcpy(&info, data, sizeof(info));
		s->ifindex = info.ipi6_ifindex;
		memcpy(s->from, &info.ipi6_addr, 16);
		return true;
	case IPV6_HOPLIMIT:
		return take_int(data, len, 255, &s->ttl) && s->ttl;
	case IPV6_TCLASS:
		return take_int(data, len, 255, &s->tos);
	}
	return false;
}

bool cmsg_parse(const void *control, size_t len, int family, struct cmsg_sending *s)
{
	const uint8_t *at = control;
	struct cmsghdr h;

	*s = (struct cmsg_sending){.ttl = -1, .tos = -1};
	if (bad_address(control))
		return false;
	while (len >= sizeof(h)) {
		size_t step;

		memcpy(&h, at, sizeof(h));
		if (h.cmsg_len < sizeof(h) || h.cmsg_len > len)
			return false;
		if (h.cmsg_level == IPPROTO_IP && family == 4) {
			if (!take_v4(h.cmsg_type, at + sizeof(h), h.cmsg_len - sizeof(h), s))
				return false;
		} else if (h.cmsg_level != IPPROTO_IPV6 || family != 6 ||
			   !take_v6(h.cmsg_type, at + sizeof(h), h.cmsg_len - sizeof(h), s)) {
			return false;
		}
		step = CMSG_ALIGN(h.cmsg_len);
		if (step >= len)
			break;
		at += step;
		len -= step;
	}
	return true;
}
