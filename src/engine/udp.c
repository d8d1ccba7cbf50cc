/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP (RFC 768, 1122 4.1).
 *
 * In: a datagram goes to the socket with its exact four-tuple (connected sockets are filed so, which filters what they
 * get), else to the one bound to its local address. It becomes one entry of rxq: its first pkt, with further parts
 * chained by frag. An entry counts UDP_RX_OVERHEAD beside its bytes; what comes while rcvbuf is exceeded is dropped, as
 * the kernel does. rxq.count counts datagrams, rxq.bytes payload.
 *
 * On a network an IPv4 datagram may be cut on its way, unless the program forbids it (IP_MTU_DISCOVER): Linux forbids
 * it by default and learns the path's MTU from the answers, which here the kernel, who sends what we can't, would not
 * see. Who forbids it is refused what is larger than the path's MTU, and told of it as by the kernel. Datagrams of IPv6
 * are cut here (udp_cut.c).
 *
 * Out: a datagram is copied into as many tx buffers as it takes, posted, and forgotten: the buffers come back when the
 * peer has read them. A sender may not take the last buffers of a vNIC, which TCP on the same wire needs: -EAGAIN, and
 * EV_OUT when some are back.
 */
#include <errno.h>

#include "engine/engine.h"
#include "engine/hash.h"
#include "engine/inet.h"
#include "engine/route.h"
#include "engine/udp_cut.h"

#define UDP_TX_RESERVE 64u /* buffers that datagrams leave to others */
#define CSUM_OFF 6u
#define IPV6_MIN_MTU 1280u

/* --- which vNIC leads to a peer --- */

static struct udp_route *route_set(struct stack *s, const struct endpoint *remote)
{
	uint64_t h = endpoint_hash(s->hash_key, remote->addr, remote->port);
	struct udp_route *table = (struct udp_route *)(void *)((char *)s + s->off_routes);

	return table + (h % UDP_ROUTE_SETS) * UDP_ROUTE_WAYS;
}

static bool route_alive(struct stack *s, const struct udp_route *r)
{
	const struct vnic_state *st = r->vnic ? stack_vnic(s, r->vnic - 1u) : NULL;

	return st && !st->dead && st->provider != VNIC_PROV_NONE && st->gen << 1 == (r->gen & ~1u);
}

static bool route_is(const struct udp_route *r, const struct endpoint *remote)
{
	return r->vnic && r->port == remote->port && addr_equal(r->addr, remote->addr);
}

/* The set's entry to use for a new route: a dead one, else the oldest that may be overwritten, else NULL. */
static struct udp_route *route_victim(struct stack *s, struct udp_route *set, bool vouched)
{
	for (uint32_t i = 0; i < UDP_ROUTE_WAYS; i++)
		if (!route_alive(s, &set[i]))
			return &set[i];
	for (uint32_t i = UDP_ROUTE_WAYS; i-- > 0;)
		if (vouched || !(set[i].gen & 1))
			return &set[i];
	return NULL;
}

static void route_learn(struct stack *s, const struct endpoint *remote, uint32_t vnic, bool vouched)
{
	struct udp_route *set = route_set(s, remote), *r = NULL, new;
	const struct vnic_state *st = stack_vnic(s, vnic);

	if (!st)
		return;
	new = (struct udp_route){.port = remote->port, .vnic = (uint16_t)(vnic + 1), .gen = st->gen << 1 | vouched};
	memcpy(new.addr, remote->addr, sizeof(new.addr));
	for (uint32_t i = 0; i < UDP_ROUTE_WAYS && !r; i++)
		if (route_is(&set[i], remote))
			r = &set[i];
	if (r) {
		if (r->vnic == new.vnic && (r->gen & ~1u) == (new.gen & ~1u))
			r->gen |= vouched;
		else if (vouched || !(r->gen & 1) || !route_alive(s, r))
			*r = new;
		return;
	}
	r = route_victim(s, set, vouched);
	if (!r)
		return;
	memmove(set + 1, set, (size_t)(r - set) * sizeof(*set)); /* newest first */
	set[0] = new;
}

void udp_route_learn(struct engine *e, const struct endpoint *remote, uint32_t vnic)
{
	route_learn(e->s, remote, vnic, true);
}

uint32_t udp_route_lookup(struct engine *e, const struct endpoint *remote)
{
	struct udp_route *set = route_set(e->s, remote);

	for (uint32_t i = 0; i < UDP_ROUTE_WAYS; i++)
		if (route_is(&set[i], remote))
			return route_alive(e->s, &set[i]) ? set[i].vnic - 1u : VNIC_NONE;
	return VNIC_NONE;
}

void udp_route_forget(struct engine *e, const struct endpoint *remote)
{
	struct udp_route *set = route_set(e->s, remote);

	for (uint32_t i = 0; i < UDP_ROUTE_WAYS; i++)
		if (route_is(&set[i], remote))
			set[i].vnic = 0;
	__atomic_store_n(&e->s->udp_refused, e->s->udp_refused + 1, __ATOMIC_RELAXED); /* read without the lock */
}

/* --- in --- */

static bool rx_full(const struct sock *k)
{
	return (uint64_t)k->rxq.bytes + (uint64_t)k->rxq.count * UDP_RX_OVERHEAD > k->rcvbuf;
}

static void queue_datagram(struct engine *e, struct sock *k, struct frame *f, struct pkt *first, uint32_t len)
{
	struct stack *s = e->s;

	/* frame_take chains by next; a datagram's parts are chained by frag. */
	for (struct pkt *p = first, *next; p; p = next) {
		next = pkt_at(s, p->next);
		p->frag = p->next;
		p->next = 0;
	}
	memcpy(first->from, f->src.addr, 16);
	memcpy(first->to, f->dst.addr, 16);
	first->from_port = f->src.port;
	first->tos = f->tos;
	first->ttl = f->ttl;
	first->vnic = (uint16_t)f->vnic;
	pkt_push_datagram(s, &k->rxq, first, len);
	k->rx_bytes += len;
}

void udp_deliver(struct engine *e, struct sock *k, struct frame *f, uint32_t len)
{
	struct pkt *p;

	sock_changing(e->s, k);
	if (rx_full(k)) {
		k->udp.rx_dropped++;
		count(e->s, C_udp_rx_full);
		return;
	}
	p = len ? frame_take(e, f, f->off + UDP_HEADER, len) : pkt_alloc_empty(e->s);
	if (!p) {
		k->udp.rx_dropped++;
		count(e->s, C_udp_rx_no_memory);
		return;
	}
	queue_datagram(e, k, f, p, len);
	if (!k->remote.port && !f->network)
		route_learn(e->s, &f->src, f->vnic, false);
	sock_notify(e, k, EV_IN);
}

/* The checksum over pseudo-header and datagram is right, or (IPv4 only) there is none. */
static bool checksum_good(struct engine *e, const struct frame *f, uint32_t len)
{
	const uint8_t *h = f->hdr + f->off;

	if (f->csum_ok)
		return true;
	if (!get_be16(h + CSUM_OFF))
		return f->family == 4;
	return ip_checksum_good(e, f, f->off + len, CSUM_OFF);
}

void udp_input(struct engine *e, struct frame *f)
{
	struct stack *s = e->s;
	const uint8_t *h = f->hdr + f->off;
	uint32_t len;
	struct sock *k;

	if (f->off + UDP_HEADER > f->hdr_len || f->off + UDP_HEADER > f->end) {
		count(s, C_udp_truncated);
		return;
	}
	len = get_be16(h + 4);
	if (len < UDP_HEADER || len > f->end - f->off) {
		count(s, C_udp_truncated);
		return;
	}
	if (!checksum_good(e, f, len)) {
		count(s, C_udp_bad_checksum);
		return;
	}
	f->src.port = get_be16(h);
	f->dst.port = get_be16(h + 2);
	if (__builtin_expect(f->group, 0)) {
		udp_group_input(e, f, len - UDP_HEADER);
		return;
	}
	k = sock_lookup(s, SOCK_UDP, &f->dst, &f->src);
	if (k && k->vnic != VNIC_NONE && !vnic_same_side(e, k->vnic, f->vnic)) {
		count(s, C_udp_wrong_vnic);
		return;
	}
	if ((!k || k->vnic == VNIC_NONE) && ip_source_ours(e, f))
		return;
	if (!k)
		k = sock_lookup_bound(s, SOCK_UDP, &f->dst);
	if (k) {
		udp_deliver(e, k, f, len - UDP_HEADER);
		return;
	}
	count(s, C_udp_no_socket);
	icmp_port_unreachable(e, f);
}

/* Scatter a datagram's bytes over iov, without the first `skip`, which lie in its first part. */
ssize_t udp_copy_out(struct engine *e, const struct pkt *p, size_t skip, const struct iovec *iov, int iovcnt)
{
	size_t done = 0, at = 0; /* at: in the current iovec */
	int i = 0;

	for (; p; p = pkt_at(e->s, p->frag), skip = 0) {
		const uint8_t *from = pkt_data(e, p);
		size_t left = 0;

		if (from) {
			left = p->len - skip;
			from += skip;
		}
		while (left && i < iovcnt) {
			size_t room = iov[i].iov_len - at, n = left < room ? left : room;

			if (n && bad_address(iov[i].iov_base))
				return -EFAULT;
			if (n)
				memcpy((uint8_t *)iov[i].iov_base + at, from, n);
			from += n;
			left -= n;
			at += n;
			done += n;
			if (at == iov[i].iov_len) {
				i++;
				at = 0;
			}
		}
	}
	return (ssize_t)done;
}

static uint32_t datagram_size(struct stack *s, const struct pkt *p)
{
	uint32_t size = 0;

	for (; p; p = pkt_at(s, p->frag))
		size += p->len;
	return size;
}

ssize_t udp_recv(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, bool peek,
		 struct udp_meta *meta)
{
	struct stack *s = e->s;
	struct pkt *p = pkt_at(s, k->rxq.head);
	uint32_t size;
	ssize_t done;

	sock_changing(e->s, k);
	if (__builtin_expect(k->so_error, 0)) {
		int err = k->so_error;

		k->so_error = 0;
		return -err;
	}
	if (!p)
		return -EAGAIN;
	size = datagram_size(s, p);
	done = udp_copy_out(e, p, 0, iov, iovcnt);
	if (meta) {
		memcpy(meta->from.addr, p->from, 16);
		memcpy(meta->to.addr, p->to, 16);
		meta->from.port = p->from_port;
		meta->to.port = k->local.port;
		meta->vnic = p->vnic;
		meta->size = size;
		meta->tos = p->tos;
		meta->ttl = p->ttl;
	}
	if (peek)
		return done;
	pkt_shift_datagram(&k->rxq, p, size);
	pkt_free(e, p); /* after -EFAULT as well, as Linux */
	return done;
}

uint32_t udp_first_elsewhere(struct engine *e, const struct sock *k)
{
	for (const struct pkt *p = pkt_at(e->s, k->rxq.head); p; p = pkt_at(e->s, p->frag))
		if (p->kind == PKT_RX && vnic_elsewhere(e, p->vnic, p->vnic_gen))
			return p->vnic;
	return VNIC_NONE;
}

uint32_t udp_first_size(struct engine *e, const struct sock *k)
{
	return datagram_size(e->s, pkt_at(e->s, k->rxq.head));
}

/* --- out --- */

static bool may_send(const struct vnic_state *st, uint32_t bufs)
{
	return st->free_top >= bufs + UDP_TX_RESERVE;
}

/* Gathers bytes from an iovec array, buffer by buffer. */
struct gather {
	const struct iovec *iov;
	int left;
	size_t at;
};

static void gather_copy(struct gather *g, uint8_t *to, size_t len)
{
	while (len && g->left) {
		size_t room = g->iov->iov_len - g->at, n = len < room ? len : room;

		if (n)
			memcpy(to, (const uint8_t *)g->iov->iov_base + g->at, n);
		to += n;
		len -= n;
		g->at += n;
		if (g->at == g->iov->iov_len) {
			g->iov++;
			g->left--;
			g->at = 0;
		}
	}
}

/* Total bytes of iov, or SIZE_MAX where that overflows. */
static size_t iov_total(const struct iovec *iov, int iovcnt)
{
	size_t total = 0;

	for (int i = 0; i < iovcnt; i++)
		if (__builtin_add_overflow(total, iov[i].iov_len, &total))
			return SIZE_MAX;
	return total;
}

static bool iov_bad(const struct iovec *iov, int iovcnt)
{
	for (int i = 0; i < iovcnt; i++)
		if (iov[i].iov_len && bad_address(iov[i].iov_base))
			return true;
	return false;
}

static void put_header(uint8_t *h, const struct endpoint *from, const struct endpoint *to, uint32_t len)
{
	put_be16(h, from->port);
	put_be16(h + 2, to->port);
	put_be16(h + 4, len);
	put_be16(h + CSUM_OFF, 0);
}

/* Copy header and payload into tx buffers: the first behind room for the lower headers. Returns the number of parts. */
static int fill_parts(struct vnic *v, struct vnic_desc *part, const struct endpoint *from, const struct endpoint *to,
		      const struct iovec *iov, int iovcnt, uint32_t len)
{
	struct gather g = {.iov = iov, .left = iovcnt};
	uint32_t off = PKT_HEADROOM, header = UDP_HEADER;
	int n = 0;

	do {
		int buf = vnic_tx_alloc(v); /* may_send has counted them */
		uint32_t take = v->st->buf_size - off;
		uint8_t *at;

		if (buf < 0)
			break;
		if (take > len)
			take = len;
		at = vnic_tx_buf(v, (uint32_t)buf) + off;
		if (header)
			put_header(at, from, to, len);
		gather_copy(&g, at + header, take - header);
		part[n++] = (struct vnic_desc){.buf = (uint32_t)buf, .off = (uint16_t)off, .len = (uint16_t)take};
		len -= take;
		off = 0;
		header = 0;
	} while (len);
	return n;
}

/* The way over the network: o's vNIC, next hop and source address. 0, or what udp_send returns. */
static int find_path(struct engine *e, struct sock *k, const struct endpoint *from, const struct endpoint *to,
		     uint32_t ifindex, struct ip_out *o, struct route *r, uint32_t *mtu)
{
	const uint8_t *src = from->addr;

	if (!ifindex && k->remote.port && k->vnic != VNIC_NONE && k->remote.port == to->port &&
	    addr_equal(k->remote.addr, to->addr)) {
		if (route_sock(e, k) || !sock_mac(e, k))
			return -ENOLINK;
		o->vnic = k->vnic;
		o->mac = k->dst.mac;
		*mtu = k->dst.mtu;
		return 0;
	}
	if (!ifindex)
		ifindex = udp_is_group(to->addr) ? udp_group_by(k, to->addr, &src) : k->dst.ifindex;
	if (udp_loops(&k->udp, to->addr) || route_to(e, to->addr, src, ifindex, &o->vnic, r))
		return -ENOLINK;
	o->mac = r->mac;
	*mtu = r->mtu;
	if (is_any(from->addr))
		o->src = r->from;
	return 0;
}

/* TTLs of groups are options of their own; the kernel knows what 0 means. */
static int group_ttl(const struct sock *k, const struct endpoint *to, const struct udp_how *how, struct ip_out *o)
{
	uint16_t set = is_v4(to->addr) ? k->udp.group_ttl : k->udp.group_hops;

	if (how->ttl < 0)
		o->ttl = (uint8_t)(set ? set - 1 : 1);
	return o->ttl ? 0 : -ENOLINK;
}

ssize_t udp_send(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *from,
		 const struct endpoint *to, const struct iovec *iov, int iovcnt, uint64_t now_us)
{
	static const struct udp_how as_usual = {-1, -1, 0};

	return udp_send_as(e, k, vnic, from, to, iov, iovcnt, &as_usual, now_us);
}

/* The largest datagram, its header included, that may go in one piece by r. */
static uint32_t path_room(struct engine *e, const struct sock *k, const struct ip_out *o, uint32_t mtu,
			  uint32_t path_mtu)
{
	uint32_t room = ip_mtu_payload(e, o->vnic, o->family), header = ip_header_len(o->family) - ETH_HEADER;

	if (path_mtu && path_mtu < mtu && (o->family == 6 || k->pmtudisc == PMTU_DO))
		mtu = path_mtu;
	if (mtu && mtu - header < room && k->pmtudisc < PMTU_PROBE)
		room = mtu - header;
	return room;
}

/* Larger than that, over a network. As Linux's ip_local_error. */
static ssize_t too_large(struct engine *e, struct sock *k, const struct ip_out *o, const struct endpoint *to,
			 uint32_t room)
{
	struct sock_error err = {.err = EMSGSIZE, .origin = ERROR_LOCAL};
	struct endpoint at = *to;

	if (k->pmtudisc != PMTU_DO)
		return -ENOLINK;
	err.info = room + ip_header_len(o->family) - ETH_HEADER;
	if (o->family == 4)
		at.port = k->remote.port;
	if (k->flags & (o->family == 4 ? SOCKF_RECVERR : SOCKF_RECVERR6)) {
		errqueue_add(e, k, &err, &at, NULL, 0);
		sock_notify(e, k, EV_ERR);
	}
	return -EMSGSIZE;
}

/* Copy the datagram into buffers of o's vNIC and post it. */
static ssize_t send_copy(struct engine *e, struct sock *k, const struct ip_out *o, const struct endpoint *from,
			 const struct endpoint *to, const struct iovec *iov, int iovcnt, size_t total)
{
	struct vnic *v = &e->vnic[o->vnic];
	uint32_t bufs = (uint32_t)(total + UDP_HEADER + PKT_HEADROOM + v->st->buf_size - 1) / v->st->buf_size;
	struct vnic_desc part[FRAME_PARTS];
	int n;

	if (bufs > FRAME_PARTS || (bufs > 1 && !(v->st->features & VNIC_FEAT_SCATTER)))
		return vnic_is_network(v->st) ? -ENOLINK : -EMSGSIZE;
	if (!may_send(v->st, bufs)) {
		v->st->stats.tx_no_buffer++;
		txwait_add_on(e, k, o->vnic);
		return -EAGAIN;
	}
	if (iov_bad(iov, iovcnt))
		return -EFAULT;
	n = fill_parts(v, part, from, to, iov, iovcnt, (uint32_t)total + UDP_HEADER);
	ip_output(e, o, part, n, CSUM_OFF);
	for (int i = 0; i < n; i++)
		vnic_tx_free(v, part[i].buf);
	k->tx_bytes += total;
	return (ssize_t)total;
}

/* IPv6: the link would take it, the path does not. */
static bool must_cut(struct engine *e, const struct sock *k, const struct ip_out *o, size_t total,
		     const struct route *r)
{
	return o->family == 6 && r->path_mtu >= IPV6_MIN_MTU && k->pmtudisc <= PMTU_WANT &&
	       total + UDP_HEADER <= ip_mtu_payload(e, o->vnic, 6) && total + UDP_HEADER <= r->mtu - IPV6_HEADER;
}

static ssize_t send_cut(struct engine *e, struct sock *k, const struct ip_out *o, const struct udp_cut *c)
{
	const struct vnic_state *st = e->vnic[o->vnic].st;
	ssize_t n;

	if (!may_send(st, udp_cut_pieces(c))) {
		txwait_add_on(e, k, o->vnic);
		return -EAGAIN;
	}
	if (iov_bad(c->iov, c->iovcnt))
		return -EFAULT;
	n = udp_send_cut(e, o, c);
	if (n > 0)
		k->tx_bytes += (uint64_t)n;
	return n;
}

ssize_t udp_send_as(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *from,
		    const struct endpoint *to, const struct iovec *iov, int iovcnt, const struct udp_how *how,
		    uint64_t now_us)
{
	struct ip_out o = {.vnic = vnic,
			   .family = is_v4(to->addr) ? 4 : 6,
			   .proto = PROTO_UDP,
			   .ttl = how->ttl < 0 ? k->ttl : (uint8_t)how->ttl,
			   .tos = how->tos < 0 ? k->tos : (uint8_t)how->tos,
			   .src = from->addr,
			   .dst = to->addr,
			   .df = true};
	size_t total = iov_total(iov, iovcnt);
	struct route r = {0};
	uint32_t room, mtu = 0;
	bool network;
	int n;

	sock_changing(e->s, k);
	e->s->now_us = now_us;
	if (__builtin_expect(k->so_error, 0)) {
		int err = k->so_error;

		k->so_error = 0;
		return -err;
	}
	if (vnic >= VNIC_MAX || !e->vnic[vnic].ops || e->vnic[vnic].st->dead)
		return -ENETDOWN;
	network = vnic_is_network(e->vnic[vnic].st);
	if (network) {
		n = find_path(e, k, from, to, how->ifindex, &o, &r, &mtu);
		if (!n && udp_is_group(to->addr))
			n = group_ttl(k, to, how, &o);
		if (n)
			return n;
		o.df = k->pmtudisc == PMTU_DO || k->pmtudisc == PMTU_PROBE;
		if (!e->vnic[o.vnic].ops || e->vnic[o.vnic].st->dead)
			return -ENETDOWN;
	}
	if (total > 0xffff - UDP_HEADER)
		return -EMSGSIZE;
	room = path_room(e, k, &o, mtu, r.path_mtu);
	if (total + UDP_HEADER > room && network && must_cut(e, k, &o, total, &r))
		return send_cut(e, k, &o, &(struct udp_cut){from, to, iov, iovcnt, total, r.path_mtu, e->s->ip_id++});
	if (total + UDP_HEADER > room)
		return network ? too_large(e, k, &o, to, room) : -EMSGSIZE;
	return send_copy(e, k, &o, from, to, iov, iovcnt, total);
}

/* --- the rest --- */

uint32_t udp_poll(struct engine *e, const struct sock *k)
{
	const struct vnic_state *st = k->vnic < VNIC_MAX ? stack_vnic(e->s, k->vnic) : NULL;
	uint32_t ev = 0;

	if (k->so_error || sock_has_errors(k))
		ev |= EV_ERR;
	if (k->flags & SOCKF_SHUT_RD)
		ev |= EV_RDHUP | EV_IN | EV_RDNORM;
	if ((k->flags & SOCKF_SHUT_RD) && (k->flags & SOCKF_SHUT_WR))
		ev |= EV_HUP;
	if (k->rxq.head)
		ev |= EV_IN | EV_RDNORM;
	if (!k->txwait_prev && (!st || st->dead || may_send(st, 1)))
		ev |= EV_OUT | EV_WRNORM | EV_WRBAND;
	return ev;
}

void udp_vnic_dead(struct engine *e, struct sock *k)
{
	sock_changing(e->s, k);
	txwait_remove(e, k);
	k->vnic = VNIC_NONE;
	sock_notify(e, k, EV_OUT);
}

void udp_close(struct engine *e, struct sock *k)
{
	sock_changing(e->s, k);
	pkt_queue_free(e, &k->rxq);
	errqueue_purge(e, k);
	if (k->flags & SOCKF_HASHED)
		sock_unhash(e->s, k);
	sock_free(e, k);
}
