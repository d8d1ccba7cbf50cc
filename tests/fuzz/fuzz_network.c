/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the network's side of the engine. The input plays the kernel behind the rings of two AF_XDP sockets, the
 * stations on the network, and viaductd: frames right, nearly right and wrong (with tags, in parts, ICMP errors),
 * writes anywhere in the rings, pages of routes that change under open connections. Whatever happens, the stack's books
 * stay right, no call loops, nothing outside of the mapped memory is touched, and the vNICs can be given up.
 */
#include <linux/if_xdp.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/inet.h"
#include "engine/route.h"
#include "fuzz.h"
#include "lib/test_stack.h"
#include "vnic/xdp.h"

#define RECORDS_MAX 300u
#define PORT 80u
#define NICS 2u
#define BUFS 64u
#define CHUNK 2048u
#define UMEM (2u * BUFS * CHUNK)
#define VLAN 7u

struct nic {
	struct xdp_port port;
	struct shared {
		uint32_t index[4][3]; /* producer, consumer, flags of rx, tx, fill, comp */
		struct xdp_desc rx[BUFS], tx[BUFS];
		uint64_t fill[BUFS], comp[BUFS];
	} mem;
	uint32_t tx_cons, fill_cons, rx_prod, comp_prod; /* the kernel's own positions */
};

static struct {
	struct engine *e;
	struct nic nic[NICS];
	uint8_t *umem[NICS];
	struct netview *view;
	struct input in;
	uint64_t now;
	uint32_t listener, datagrams;
} z;

static struct xdp_ring ring(struct nic *n, int i, void *desc)
{
	return (struct xdp_ring){.producer = &n->mem.index[i][0],
				 .consumer = &n->mem.index[i][1],
				 .flags = &n->mem.index[i][2],
				 .desc = desc,
				 .entries = BUFS};
}

static void join_nic(uint32_t i)
{
	struct nic *n = &z.nic[i];
	struct xdp_about about = {.ifindex = 2 + i,
				  .mtu = i ? 9000 : 1500,
				  .features = i ? VNIC_FEAT_SCATTER : VNIC_FEAT_CSUM_PARTIAL,
				  .vlan = i ? VLAN : 0,
				  .mac = {2, 0, 0, 0, 0, (uint8_t)(2 + i)}};
	int vnic = engine_vnic_alloc(z.e);

	memset(n, 0, sizeof(*n));
	z.umem[i] = test_memory_again(z.umem[i], UMEM);
	n->port = (struct xdp_port){.rx = ring(n, 0, n->mem.rx),
				    .tx = ring(n, 1, n->mem.tx),
				    .fill = ring(n, 2, n->mem.fill),
				    .comp = ring(n, 3, n->mem.comp),
				    .umem = z.umem[i],
				    .umem_len = UMEM,
				    .chunk_size = CHUNK,
				    .rx_count = BUFS,
				    .tx_first = BUFS,
				    .tx_count = BUFS};
	fuzz_require(vnic == (int)i);
	fuzz_require(xdp_attach(&z.e->vnic[i], stack_vnic(z.e->s, i), &n->port, &about) == 0);
}

/* A frame comes in, in parts of at most `piece` bytes, where the fill ring has honest buffers for it. */
static void give(struct nic *n, const uint8_t *frame, uint32_t len, uint32_t piece)
{
	while (len) {
		uint32_t part = len < piece ? len : piece;
		uint64_t addr = n->mem.fill[n->fill_cons % BUFS] + 256;

		if (n->fill_cons == n->mem.index[2][0] || addr + part > (uint64_t)BUFS * CHUNK)
			return;
		n->fill_cons++;
		memcpy(n->port.umem + addr, frame, part);
		frame += part;
		len -= part;
		n->mem.rx[n->rx_prod++ % BUFS] =
		    (struct xdp_desc){.addr = addr, .len = part, .options = len ? 1u : 0}; /* XDP_PKT_CONTD */
		n->mem.index[0][0] = n->rx_prod;
	}
}

/* Everything in the tx ring is sent, and completed. */
static void transmit(struct nic *n)
{
	uint32_t waiting = n->mem.index[1][0] - n->tx_cons;

	for (uint32_t i = 0; i < waiting && i < BUFS; i++)
		n->mem.comp[n->comp_prod++ % BUFS] = n->mem.tx[n->tx_cons++ % BUFS].addr;
	n->mem.index[1][1] = n->tx_cons;
	n->mem.index[3][0] = n->comp_prod;
}

/* Put a VLAN tag into a frame with room for it. */
static uint32_t tag(uint8_t *frame, uint32_t len, uint16_t vlan)
{
	memmove(frame + 16, frame + 12, len - 12);
	put_be16(frame + 12, ETH_VLAN);
	put_be16(frame + 14, vlan);
	return len + VLAN_TAG;
}

static void addressed(uint8_t *frame, uint32_t nic, uint8_t from)
{
	static const uint8_t to[6] = {2}, source[6] = {2, 9};

	memcpy(frame, to, 6);
	memcpy(frame + 6, source, 6);
	frame[5] = (uint8_t)(2 + nic);
	frame[11] = from;
}

static void give_segment(void)
{
	uint8_t how = in_u8(&z.in), frame[FUZZ_FRAME_MAX + VLAN_TAG];
	struct fuzz_segment g = {.src = 2, .dst = 1, .dport = PORT, .wnd = 0xffff, .v6 = how & 1, .udp = how & 2};
	struct sock *k = sock_at(z.e->s, 1 + in_u8(&z.in) % 8);
	uint32_t nic = how >> 2 & 1, len;

	g.sport = (uint16_t)(1000 + in_u8(&z.in) % 4);
	g.flags = in_u8(&z.in);
	g.len = in_u16(&z.in) % 1400;
	g.bad_sum = how == 0xff;
	if (k->proto == SOCK_TCP && k->remote.port) {
		g.v6 = !is_v4(k->remote.addr);
		g.sport = k->remote.port;
		g.dport = k->local.port;
		g.seq = k->tcp.rcv_nxt;
		g.ack = k->tcp.snd_max;
		g.flags = g.flags & 0x80 ? g.flags : TH_ACK;
	} else {
		g.flags = TH_SYN;
	}
	if (how & 8)
		g.src = in_u8(&z.in) % 4; /* ourselves, or somebody that no route knows */
	len = fuzz_frame(frame, &g);
	addressed(frame, nic, in_u8(&z.in));
	if (how & 16)
		len = tag(frame, len, how & 32 ? VLAN : in_u16(&z.in));
	give(&z.nic[nic], frame, len, how & 64 ? 1 + in_u16(&z.in) % 1700 : 1700);
}

/* An ICMP error about a socket's last segment. */
static void give_error(void)
{
	struct sock *k = sock_at(z.e->s, 1 + in_u8(&z.in) % 8);
	uint8_t f[14 + 20 + 8 + 28] = {0}, *ip = f + 14, *icmp = ip + 20, *quote = icmp + 8;
	uint16_t sum;

	if (k->proto == SOCK_FREE || !is_v4(k->remote.addr))
		return;
	addressed(f, 0, 9);
	put_be16(f + 12, ETH_IPV4);
	ip[0] = quote[0] = 0x45;
	put_be16(ip + 2, sizeof(f) - 14);
	ip[8] = 64;
	ip[9] = PROTO_ICMP;
	memcpy(ip + 12, "\x0a\0\0\x09", 4);
	memcpy(ip + 16, k->local.addr + 12, 4);
	sum = csum_fold(csum_add(ip, 20, 0));
	memcpy(ip + 10, &sum, 2);
	icmp[0] = in_u8(&z.in) & 1 ? 3 : in_u8(&z.in);
	icmp[1] = in_u8(&z.in) % 16;
	put_be16(icmp + 6, in_u16(&z.in)); /* the MTU */
	quote[9] = k->proto == SOCK_TCP ? PROTO_TCP : PROTO_UDP;
	memcpy(quote + 12, k->local.addr + 12, 4);
	memcpy(quote + 16, k->remote.addr + 12, 4);
	put_be16(quote + 20, k->local.port);
	put_be16(quote + 22, k->remote.port);
	put_be32(quote + 24, k->proto == SOCK_TCP ? k->tcp.snd_una + in_u8(&z.in) : 0);
	sum = csum_fold(csum_add(icmp, sizeof(f) - 34, 0));
	memcpy(icmp + 2, &sum, 2);
	give(&z.nic[0], f, sizeof(f), sizeof(f));
}

static void give_anything(void)
{
	uint8_t frame[64];
	uint32_t len = 1 + in_u8(&z.in) % 64, nic = in_u8(&z.in) % NICS;

	for (uint32_t i = 0; i < len; i++)
		frame[i] = in_u8(&z.in);
	if (len > 12)
		addressed(frame, nic, 1);
	give(&z.nic[nic], frame, len, 1 + in_u8(&z.in));
}

static void write_anywhere(void)
{
	struct nic *n = &z.nic[in_u8(&z.in) % NICS];
	uint32_t at = in_u16(&z.in), len = in_u8(&z.in) % 24;
	size_t reach = at & 1 ? sizeof(n->mem.index) : sizeof(n->mem);

	for (uint32_t i = 0; i < len; i++)
		((uint8_t *)&n->mem)[(at / 2 + i) % reach] = in_u8(&z.in);
}

/* --- viaductd's page --- */

static void add_way(struct netview_copy *c, uint32_t ifindex, bool v6)
{
	struct netview_route *r = &c->route[c->routes++];
	struct netview_addr *a = &c->addr[c->addrs++];
	struct netview_neigh *n = &c->neigh[c->neighs++];
	void (*address)(uint8_t addr[16], uint8_t last) = v6 ? fuzz_address6 : fuzz_address;

	*r = (struct netview_route){
	    .ifindex = ifindex, .prefix = v6 ? 64 : 96 + 24, .type = NETVIEW_ROUTE_UNICAST, .hops = 1, .weight = 1};
	address(r->dst, 0);
	*a = (struct netview_addr){.ifindex = ifindex, .prefix = r->prefix, .flags = NETVIEW_ADDR_USABLE};
	address(a->addr, 1);
	*n = (struct netview_neigh){.ifindex = ifindex, .mac = {2, 9, 0, 0, 0, 2}, .usable = 1};
	address(n->addr, 2);
}

/* An honest page: everything over one of the two interfaces. */
static void publish(uint32_t nic)
{
	struct netview_copy *c = &z.view->copy[(z.view->version + 1) & 1];

	memset(c, 0, offsetof(struct netview_copy, iface));
	for (uint32_t i = 0; i < NICS; i++)
		c->iface[c->ifaces++] = (struct netview_iface){.ifindex = 2 + i,
							       .flags = NETVIEW_IF_UP | NETVIEW_IF_ALLOWED,
							       .mtu = i ? 9000 : 1500,
							       .device = 2 + i};
	add_way(c, 2 + nic, false);
	add_way(c, 2 + nic, true);
	z.view->version++;
}

static void change_view(void)
{
	uint8_t what = in_u8(&z.in);
	struct netview_copy *c;

	publish(what & 1);
	c = &z.view->copy[z.view->version & 1];
	if (what & 2)
		c->iface[what & 1].mtu = in_u16(&z.in);
	if (what & 4)
		c->neigh[0].usable = c->neigh[1].usable = 0;
	if (what & 8)
		c->neigh[0].failed = 1;
	if (what & 16)
		c->routes = in_u8(&z.in) % 3;
	if (what & 32)
		c->addr[0].addr[15] = in_u8(&z.in);
	for (uint32_t i = what & 64 ? in_u8(&z.in) : 0; i; i--) {
		static const size_t parts[] = {
		    0, offsetof(struct netview_copy, iface), offsetof(struct netview_copy, addr),
		    offsetof(struct netview_copy, route), offsetof(struct netview_copy, neigh)};
		size_t at = parts[in_u8(&z.in) % 5] + in_u8(&z.in);

		((uint8_t *)c)[at] = in_u8(&z.in);
	}
}

/* --- the program --- */

static void connect_one(uint8_t what)
{
	struct endpoint local = {.port = (uint16_t)(3000 + what / 8)}, remote = {.port = 1000};
	void (*address)(uint8_t addr[16], uint8_t last) = what & 8 ? fuzz_address6 : fuzz_address;
	struct sock *k;

	address(local.addr, 1);
	address(remote.addr, 2);
	if (sock_lookup(z.e->s, SOCK_TCP, &local, &remote) || !(k = sock_alloc(z.e, SOCK_TCP, what & 8 ? 6 : 4)))
		return;
	k->holders = 1;
	fuzz_require(tcp_connect(z.e, k, what >> 4 & 1, &local, &remote, z.now) <= 0);
}

static void datagram(struct iovec *iov, uint8_t what)
{
	struct sock *k = sock_at(z.e->s, z.datagrams);
	struct endpoint to = {.port = 1000}, from = {.port = PORT};

	fuzz_address(to.addr, what & 16 ? in_u8(&z.in) : 2);
	if (what & 8)
		udp_send(z.e, k, what >> 5 & 1, &from, &to, iov, 1, z.now);
	else
		udp_recv(z.e, k, iov, 1, what & 16, NULL);
}

static void call(void)
{
	static uint8_t buf[65536];
	struct iovec iov = {.iov_base = buf, .iov_len = in_u16(&z.in)};
	uint8_t what = in_u8(&z.in);
	struct sock *k = sock_at(z.e->s, 1 + in_u8(&z.in) % 8);
	struct neigh_want want;
	int i;

	switch (what % 8) {
	case 0:
		i = tcp_accept(z.e, sock_at(z.e->s, z.listener));
		if (i > 0)
			sock_at(z.e->s, (uint32_t)i)->holders = 1;
		return;
	case 1:
		connect_one(what);
		return;
	case 2:
		datagram(&iov, what);
		return;
	case 3:
		while (route_wanted(z.e, &want))
			;
		return;
	}
	if (k->proto != SOCK_TCP || !k->holders || sock_index(z.e->s, k) == z.listener)
		return;
	if (what % 8 < 6)
		tcp_send(z.e, k, &iov, 1, 0, 0, z.now);
	else if (what % 8 == 6)
		tcp_recv(z.e, k, &iov, 1, 0, 0, z.now);
	else if (what & 0x80) {
		k->holders = 0;
		tcp_close(z.e, k, z.now);
	}
}

static void record(void)
{
	switch (in_u8(&z.in) % 10) {
	case 0:
		write_anywhere();
		break;
	case 1:
	case 2:
	case 3:
		give_segment();
		break;
	case 4:
		give_error();
		break;
	case 5:
		give_anything();
		break;
	case 6:
		change_view();
		break;
	case 7:
		z.now += 1000u * in_u16(&z.in);
		break;
	default:
		call();
		break;
	}
}

static struct sock *bound(enum sock_proto proto)
{
	struct sock *k = sock_alloc(z.e, proto, 6);

	k->local.port = PORT; /* at any address of either family */
	k->holders = 1;
	return k;
}

static void begin(const uint8_t *data, size_t size)
{
	struct sock *k;

	z.in = (struct input){data, data + size};
	z.now = 1000000000;
	z.e = fuzz_stack(z.now);
	z.view = test_memory_again(z.view, sizeof(*z.view));
	z.view->version = 1;
	publish(0);
	z.e->view = z.view;
	for (uint32_t i = 0; i < NICS; i++)
		join_nic(i);
	k = bound(SOCK_TCP);
	fuzz_require(tcp_listen(z.e, k, 8) == 0);
	z.listener = sock_index(z.e->s, k);
	k = bound(SOCK_UDP);
	sock_hash(z.e->s, k);
	z.datagrams = sock_index(z.e->s, k);
}

/* Everything is closed, then the vNICs are given up. */
static void finish(void)
{
	for (uint32_t i = 1; i < FUZZ_SOCKS; i++) {
		struct sock *k = sock_at(z.e->s, i);

		if (k->proto == SOCK_FREE || !k->holders)
			continue;
		k->holders = 0;
		if (k->proto == SOCK_TCP)
			tcp_close(z.e, k, z.now);
		else
			udp_close(z.e, k);
	}
	for (uint32_t i = 0; i < NICS; i++)
		engine_vnic_dead(z.e, i, z.now);
	for (int i = 0; i < 2000 && engine_deadline(z.e) != UINT64_MAX; i++) {
		z.now = engine_deadline(z.e) > z.now ? engine_deadline(z.e) : z.now;
		fuzz_settle(z.e, z.now);
	}
	fuzz_check(z.e, z.now, true);
	fuzz_require(z.e->s->sock_pool.in_use == 0);
	fuzz_require(z.e->s->pkt_pool.in_use == 0);
	fuzz_require(z.e->s->private_pool.in_use == 0);
	for (uint32_t i = 0; i < NICS; i++)
		fuzz_require(engine_vnic_free(z.e, i) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	begin(data, size);
	for (uint32_t n = 0; in_more(&z.in) && n < RECORDS_MAX; n++) {
		record();
		fuzz_settle(z.e, z.now);
		transmit(&z.nic[n % NICS]);
		fuzz_check(z.e, z.now, n % 16 == 15);
	}
	finish();
	return 0;
}
