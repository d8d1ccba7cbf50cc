/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMP (RFC 792, 1122 3.2.2) and ICMPv6 (RFC 4443): errors that concern our sockets, and the one error that we send.
 *
 * An error names its victim by a quote of the packet that caused it. The quote must be of a packet from the address
 * that the error was sent to, and the socket, found by its four-tuple (UDP: or where it is bound), one that sends over
 * the vNIC that the error came by. TCP judges the quoted sequence number itself (RFC 5927). Whoever has set IP_RECVERR
 * can read the error (errqueue.c) and is told also what else would be kept from him. Everything else (echo, router and
 * neighbour discovery, redirects) is the kernel's business and ignored.
 *
 * We send port unreachable for UDP to no socket, so that the sender sees ECONNREFUSED as with the kernel; a token
 * bucket per vNIC bounds how many.
 */
#include <errno.h>

#include "engine/bytes.h"
#include "engine/engine.h"
#include "engine/inet.h"
#include "engine/route.h"

#define QUOTE_L4 8u /* bytes of the quoted transport header that an error must have: ports and sequence number */
#define MIN_MTU_V4 68u
#define MIN_MTU_V6 1280u
#define TOKENS 64u     /* errors in a burst */
#define TOKEN_US 1000u /* one more each millisecond */

struct icmp_error {
	int err;   /* 0: not an error that concerns a socket */
	bool hard; /* ends a connection attempt; reported by connected UDP */
	bool mtu;
	uint8_t type, code;
};

/* As Linux's icmp_err_convert. */
static struct icmp_error error_v4(uint8_t type, uint8_t code)
{
	static const struct icmp_error unreachable[16] = {
	    {ENETUNREACH, false},    {EHOSTUNREACH, false}, {ENOPROTOOPT, true},  {ECONNREFUSED, true},
	    {EMSGSIZE, false, true}, {EOPNOTSUPP, false},   {ENETUNREACH, true},  {EHOSTDOWN, true},
	    {ENONET, true},          {ENETUNREACH, true},   {EHOSTUNREACH, true}, {ENETUNREACH, false},
	    {EHOSTUNREACH, false},   {EHOSTUNREACH, true},  {EHOSTUNREACH, true}, {EHOSTUNREACH, true},
	};

	if (type == 3 && code < 16)
		return unreachable[code];
	if (type == 11 && !code) /* not: reassembly took too long */
		return (struct icmp_error){EHOSTUNREACH, false};
	if (type == 12)
		return (struct icmp_error){EPROTO, true};
	return (struct icmp_error){0};
}

/* As Linux's icmpv6_err_convert. */
static struct icmp_error error_v6(uint8_t type, uint8_t code)
{
	static const struct icmp_error unreachable[7] = {
	    {ENETUNREACH, false}, {EACCES, true}, {EHOSTUNREACH, false}, {EHOSTUNREACH, false},
	    {ECONNREFUSED, true}, {EACCES, true}, {EACCES, true},
	};

	if (type == 1 && code < 7)
		return unreachable[code];
	if (type == 2)
		return (struct icmp_error){EMSGSIZE, false, true};
	if (type == 3)
		return (struct icmp_error){EHOSTUNREACH, false};
	if (type == 4)
		return (struct icmp_error){EPROTO, true};
	return (struct icmp_error){0};
}

/* What an error quotes: the start of a packet that we are said to have sent. */
struct quote {
	struct endpoint local, remote;
	uint32_t seq;
	uint32_t l4; /* where the quoted transport header begins in the frame */
	uint8_t proto;
};

/* Read the quoted packet at off. False: too short, or not one of ours. */
static bool read_quote(struct engine *e, const struct frame *f, uint32_t off, struct quote *q)
{
	uint8_t h[IPV6_HEADER], l4[QUOTE_L4];
	uint32_t header = f->family == 4 ? IPV4_HEADER : IPV6_HEADER;

	if (off + header > f->end || !frame_copy(e, f, off, h, header) || h[0] >> 4 != f->family)
		return false;
	if (f->family == 4) {
		header = (h[0] & 15u) * 4;
		if (header < IPV4_HEADER || (get_be16(h + 6) & 0x1fff))
			return false;
		map_v4(q->local.addr, h + 12);
		map_v4(q->remote.addr, h + 16);
		q->proto = h[9];
	} else {
		memcpy(q->local.addr, h + 8, 16);
		memcpy(q->remote.addr, h + 24, 16);
		q->proto = h[6];
	}
	if (off + header + QUOTE_L4 > f->end || !frame_copy(e, f, off + header, l4, QUOTE_L4))
		return false;
	q->local.port = get_be16(l4);
	q->remote.port = get_be16(l4 + 2);
	q->seq = get_be32(l4 + 4);
	q->l4 = off + header;
	return addr_equal(q->local.addr, f->dst.addr);
}

/* The MTU that a "too big" message reports, never below what every link must carry. */
static uint32_t reported_mtu(const struct frame *f, const uint8_t *h)
{
	uint32_t mtu = f->family == 4 ? get_be16(h + 6) : get_be32(h + 4);
	uint32_t low = f->family == 4 ? MIN_MTU_V4 : MIN_MTU_V6;

	return mtu < low ? low : mtu;
}

/* As Linux tells the program: ee_info is the MTU, a parameter problem's pointer, in ICMPv6 whatever the word says. */
static struct sock_error error_report(const struct frame *f, const uint8_t *h, struct icmp_error err)
{
	struct sock_error r = {.err = err.err, .type = err.type, .code = err.code};

	r.origin = f->family == 4 ? ERROR_ICMP : ERROR_ICMP6;
	memcpy(r.offender, f->src.addr, 16);
	if (f->family == 6)
		r.info = get_be32(h + 4);
	else if (err.mtu)
		r.info = get_be16(h + 6);
	else if (err.type == 12)
		r.info = h[4];
	return r;
}

/* Too large a datagram is an error for whoever does not let it be cut. */
static bool is_hard(const struct sock *k, const struct icmp_error *err)
{
	return err->mtu ? k->pmtudisc != PMTU_DONT : err->hard;
}

static void tell_udp(struct engine *e, struct sock *k, const struct frame *f, const struct quote *q, const uint8_t *h,
		     struct icmp_error err)
{
	struct sock_error r = error_report(f, h, err);
	bool hard = is_hard(k, &err);

	if (err.mtu && (f->family == 6 ? k->pmtudisc >= PMTU_INTERFACE : !hard))
		return; /* it takes no such messages, or lets routers cut */
	if (sock_wants_errors(k, r.origin))
		errqueue_add(e, k, &r, &q->remote, f, q->l4 + UDP_HEADER);
	else if (!hard || !k->remote.port)
		return;
	k->so_error = err.err;
	sock_notify(e, k, EV_ERR | EV_IN | EV_OUT);
}

/* Where an error about a datagram may come from: the vNIC that its socket is connected over, or the one that datagrams
 * to that peer are sent over; from a network, if the peer is not of this machine. If nobody is there, neither the next
 * datagram nor any other socket's goes that way. */
static bool deliver_udp(struct engine *e, const struct frame *f, const struct quote *q, const uint8_t *h,
			struct icmp_error err)
{
	struct sock *k = sock_lookup(e->s, SOCK_UDP, &q->local, &q->remote);
	bool routed = udp_route_lookup(e, &q->remote) == f->vnic;
	bool outside = f->network && !route_is_own(e->view, q->remote.addr);

	if (!k && (routed || outside))
		k = sock_lookup_bound(e->s, SOCK_UDP, &q->local);
	if (!routed && !(outside && k) && (!k || !vnic_same_side(e, k->vnic, f->vnic)))
		return false;
	if (err.mtu && outside && k)
		route_mtu(e, q->remote.addr, reported_mtu(f, h));
	if (routed && err.err == ECONNREFUSED)
		udp_route_forget(e, &q->remote);
	if (k)
		tell_udp(e, k, f, q, h, err);
	return true;
}

static bool deliver_tcp(struct engine *e, const struct frame *f, const struct quote *q, const uint8_t *h,
			struct icmp_error err)
{
	struct sock *k = sock_lookup(e->s, SOCK_TCP, &q->local, &q->remote);
	struct sock_error r;

	if (!k || !vnic_same_side(e, k->vnic, f->vnic))
		return false;
	if (err.mtu) {
		tcp_icmp_mtu(e, k, q->seq, reported_mtu(f, h));
		return true;
	}
	r = error_report(f, h, err);
	if (k->tcp.state == TCP_SYN_SENT && q->seq == k->tcp.iss && sock_wants_errors(k, r.origin))
		errqueue_add(e, k, &r, &q->remote, f, q->l4);
	tcp_icmp_error(e, k, q->seq, err.err, err.hard);
	return true;
}

static void deliver(struct engine *e, const struct frame *f, const uint8_t *h, struct icmp_error err)
{
	struct quote q;
	bool good = false;

	if (read_quote(e, f, f->off + ICMP_HEADER, &q)) {
		if (q.proto == PROTO_UDP)
			good = deliver_udp(e, f, &q, h, err);
		else if (q.proto == PROTO_TCP)
			good = deliver_tcp(e, f, &q, h, err);
	}
	count(e->s, good ? C_icmp_errors : C_icmp_bad);
}

static bool checksum_good(struct engine *e, const struct frame *f)
{
	uint32_t sum = 0;

	if (f->csum_ok)
		return true;
	if (f->family == 6)
		sum = csum_pseudo(6, f->src.addr, f->dst.addr, PROTO_ICMPV6, f->end - f->off);
	return !csum_fold(frame_sum(e, f, f->off, f->end, sum));
}

void icmp_input(struct engine *e, struct frame *f)
{
	const uint8_t *h = f->hdr + f->off;
	struct icmp_error err;

	if (f->off + ICMP_HEADER > f->hdr_len || f->off + ICMP_HEADER > f->end || !checksum_good(e, f)) {
		count(e->s, C_icmp_bad);
		return;
	}
	err = f->family == 4 ? error_v4(h[0], h[1]) : error_v6(h[0], h[1]);
	err.type = h[0];
	err.code = h[1];
	if (err.err)
		deliver(e, f, h, err);
	else
		count(e->s, C_icmp_ignored);
}

static bool take_token(struct stack *s, struct iface *ifc)
{
	uint64_t fresh = (s->now_us - ifc->icmp_us) / TOKEN_US;

	if (fresh) {
		ifc->icmp_tokens = fresh + ifc->icmp_tokens > TOKENS ? TOKENS : ifc->icmp_tokens + (uint32_t)fresh;
		ifc->icmp_us = s->now_us;
	}
	if (!ifc->icmp_tokens)
		return false;
	ifc->icmp_tokens--;
	return true;
}

void icmp_port_unreachable(struct engine *e, const struct frame *f)
{
	struct stack *s = e->s;
	struct vnic *v = &e->vnic[f->vnic];
	uint32_t n = (f->end < f->hdr_len ? f->end : f->hdr_len) - f->l3; /* as much as is at hand */
	struct ip_out o = {.vnic = f->vnic,
			   .family = f->family,
			   .src = f->dst.addr,
			   .dst = f->src.addr,
			   .mac = frame_source_mac(f),
			   .proto = f->family == 4 ? PROTO_ICMP : PROTO_ICMPV6};
	struct vnic_desc part;
	uint8_t *l4;
	int buf;

	if (!f->src.port || !v->ops || v->st->dead)
		return;
	if (!take_token(s, stack_iface(s, f->vnic))) {
		count(s, C_icmp_limited);
		return;
	}
	buf = vnic_tx_alloc(v);
	if (buf < 0)
		return;
	l4 = vnic_tx_buf(v, (uint32_t)buf) + PKT_HEADROOM;
	memset(l4, 0, ICMP_HEADER);
	l4[0] = f->family == 4 ? 3 : 1;
	l4[1] = f->family == 4 ? 3 : 4;
	memcpy(l4 + ICMP_HEADER, f->hdr + f->l3, n);
	part = (struct vnic_desc){.buf = (uint32_t)buf, .off = PKT_HEADROOM, .len = (uint16_t)(ICMP_HEADER + n)};
	ip_output(e, &o, &part, 1, 2);
	vnic_tx_free(v, (uint32_t)buf);
	count(s, C_icmp_sent);
}
