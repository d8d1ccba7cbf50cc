/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of errors that a program reads with recvmsg(MSG_ERRQUEUE) once it has set IP_RECVERR or IPV6_RECVERR
 * (ip(7), as Linux's ip_icmp_error and sock_dequeue_err_skb).
 *
 * An error is one pkt in a private buffer: struct sock_error, then the payload that the ICMP message quotes. The pkt
 * says where the packet had gone (from), and of the ICMP message its destination, TTL, TOS and vNIC. Errors count
 * against the receive buffer as datagrams do, and take private buffers only while half of them are free: a flood of
 * ICMP harms nobody else. Called with the stack's lock: icmp.c, udp.c, the socket layer.
 */
#include <errno.h>
#include <string.h>

#include "engine/engine.h"

static const uint8_t no_addr[16];

static bool may_queue(const struct stack *s, const struct sock *k)
{
	uint64_t used =
	    (uint64_t)k->rxq.bytes + k->errq.bytes + ((uint64_t)k->rxq.count + k->errq.count) * UDP_RX_OVERHEAD;

	return used <= k->rcvbuf && s->private_pool.in_use < s->private_pool.limit / 2;
}

void errqueue_add(struct engine *e, struct sock *k, const struct sock_error *err, const struct endpoint *to,
		  const struct frame *f, uint32_t off)
{
	uint32_t len = f && off < f->end ? f->end - off : 0;
	struct pkt *p;
	uint8_t *at;

	sock_changing(e->s, k);
	p = may_queue(e->s, k) ? pkt_alloc_private(e) : NULL;
	if (!p) {
		count(e->s, C_sock_error_lost);
		return;
	}
	at = pkt_data(e, p);
	if (len > PRIVATE_BUF_SIZE - sizeof(*err))
		len = PRIVATE_BUF_SIZE - sizeof(*err);
	memcpy(at, err, sizeof(*err));
	if (len && !frame_copy(e, f, off, at + sizeof(*err), len))
		len = 0;
	p->len = (uint32_t)sizeof(*err) + len;
	memcpy(p->from, to->addr, 16);
	memcpy(p->to, f ? f->dst.addr : no_addr, 16);
	p->from_port = to->port;
	p->tos = f ? f->tos : 0;
	p->ttl = f ? f->ttl : 0;
	p->vnic = (uint16_t)(f ? f->vnic : VNIC_NONE);
	pkt_push_datagram(e->s, &k->errq, p, p->len);
}

/* The next error becomes SO_ERROR; the last one taken clears it. */
static void follow(struct engine *e, struct sock *k, const struct sock_error *taken)
{
	const struct pkt *next = pkt_at(e->s, k->errq.head);
	const uint8_t *at = next ? pkt_data(e, next) : NULL;
	struct sock_error err;

	if (!at) {
		if (taken->origin != ERROR_LOCAL)
			k->so_error = 0;
		return;
	}
	memcpy(&err, at, sizeof(err));
	if (err.origin != ERROR_LOCAL)
		k->so_error = err.err;
	sock_notify(e, k, EV_ERR);
}

ssize_t errqueue_take(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, struct sock_error *err,
		      struct udp_meta *meta)
{
	struct pkt *p = pkt_at(e->s, k->errq.head);
	ssize_t n;

	if (!p)
		return -EAGAIN;
	sock_changing(e->s, k);
	memcpy(err, pkt_data(e, p), sizeof(*err));
	n = udp_copy_out(e, p, sizeof(*err), iov, iovcnt);
	*meta = (struct udp_meta){.from.port = p->from_port,
				  .vnic = p->vnic,
				  .size = p->len - (uint32_t)sizeof(*err),
				  .tos = p->tos,
				  .ttl = p->ttl};
	memcpy(meta->from.addr, p->from, 16);
	memcpy(meta->to.addr, p->to, 16);
	pkt_shift_datagram(&k->errq, p, p->len);
	pkt_free(e, p);
	follow(e, k, err);
	return n;
}

void errqueue_purge(struct engine *e, struct sock *k)
{
	sock_changing(e->s, k);
	pkt_queue_free(e, &k->errq);
}
