/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing TCP headers (RFC 9293 3.1) and posting them: shared by tcp_output.c (data) and tcp_control.c (the rest).
 */
#ifndef VD_TCP_WIRE_H
#define VD_TCP_WIRE_H

#include <string.h>

#include "engine/bytes.h"
#include "engine/tcp_internal.h"

#define TCP_HEADER 20u
#define TCP_CSUM_OFF 16u

struct tcp_header {
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t off, flags;
	uint16_t wnd, csum, urg;
};
_Static_assert(sizeof(struct tcp_header) == TCP_HEADER, "a TCP header is 20 bytes");

static inline uint16_t be16(uint32_t v)
{
	return __builtin_bswap16((uint16_t)v);
}

static inline uint32_t be32(uint32_t v)
{
	return __builtin_bswap32(v);
}

/* NULL where this process can't send on the socket's vNIC: not mapped here, another by now, or dead. */
static inline struct vnic *tcp_vnic(const struct engine *e, const struct sock *k)
{
	const struct vnic *v = k->vnic < VNIC_MAX ? &e->vnic[k->vnic] : NULL;

	if (!v || !v->ops || v->st->gen != k->vnic_gen || v->st->dead)
		return NULL;
	return (struct vnic *)v;
}

/* The same for a segment that is to be sent now: by its route, which is looked up where the network has changed. A wait
 * for the next hop ends soon (tcp_route.c). */
static inline struct vnic *tcp_path(struct engine *e, struct sock *k)
{
	int err = route_sock(e, k);

	if (__builtin_expect(err == 0, 1))
		return tcp_vnic(e, k);
	if (err == -ENETUNREACH || err == -EHOSTUNREACH || err == -EINVAL)
		k->tcp.soft_error = -err;
	tcp_path_wait(e, k);
	return NULL;
}

/* Header of one of our connection's segments; opts bytes of options lie behind it already. A segment with ACK
 * advertises the window. */
static inline void tcp_put_header(struct engine *e, struct sock *k, uint8_t *at, uint32_t seq, uint8_t flags,
				  uint32_t opts)
{
	struct tcb *t = &k->tcp;
	struct tcp_header h = {
	    .sport = be16(k->local.port),
	    .dport = be16(k->remote.port),
	    .seq = be32(seq),
	    .ack = flags & TH_ACK ? be32(t->rcv_nxt) : 0,
	    .off = (uint8_t)((TCP_HEADER + opts) << 2),
	};

	if (flags & TH_SYN) {
		h.wnd = be16(tcp_syn_window(e, k));
	} else if (!(flags & TH_RST)) {
		uint32_t w = tcp_window(e, k) >> t->rcv_wscale;

		h.wnd = be16(w < 65535 ? w : 65535);
	}
	if (t->flags & TCPF_SND_URG && seq_lt(seq, t->snd_up) && !(flags & (TH_SYN | TH_RST))) {
		uint32_t d = t->snd_up - seq;

		h.urg = be16(d < 65535 ? d : 65535);
		flags |= TH_URG;
	}
	if (t->ecn & TCP_ECN_ECHO && !(flags & (TH_SYN | TH_RST)))
		flags |= TH_ECE;
	h.flags = flags;
	memcpy(at, &h, sizeof(h));
}

static inline void tcp_put_timestamps(uint8_t opt[12], uint32_t val, uint32_t ecr)
{
	static const uint8_t lead[4] = {1, 1, 8, 10}; /* NOP, NOP, kind, length */

	val = be32(val);
	ecr = be32(ecr);
	memcpy(opt, lead, 4);
	memcpy(opt + 4, &val, 4);
	memcpy(opt + 8, &ecr, 4);
}

/* ecn: the IP header's field. */
static inline struct ip_out tcp_ip_out(struct engine *e, struct sock *k, uint8_t ecn)
{
	return (struct ip_out){
	    .vnic = k->vnic,
	    .family = is_v4(k->remote.addr) ? 4 : 6,
	    .proto = 6,
	    .ttl = k->ttl ? k->ttl : 64,
	    .tos = (uint8_t)((k->tos & ~TOS_ECN) | ecn),
	    .src = k->local.addr,
	    .dst = k->remote.addr,
	    .mac = sock_mac(e, k),
	    .df = k->pmtudisc == PMTU_DEFAULT || k->pmtudisc == PMTU_WANT || k->pmtudisc == PMTU_DO,
	};
}

/* Post a segment of the connection; parts[0] starts at the TCP header. */
static inline void tcp_post(struct engine *e, struct sock *k, struct vnic_desc *parts, int n, uint8_t ecn)
{
	struct ip_out o = tcp_ip_out(e, k, ecn);

	ip_output(e, &o, parts, n, TCP_CSUM_OFF);
}

/* tcp_control.c: a segment without payload. False: no tx buffer (the socket is in the line for one). */
bool tcp_send_control(struct engine *e, struct sock *k, uint32_t seq, uint8_t flags);

#endif
