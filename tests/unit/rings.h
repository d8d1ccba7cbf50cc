/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An AF_XDP socket's rings and umem in memory of this process, with the kernel played by the test: what lies in the tx
 * ring is taken out and completed, frames are put into buffers of the fill ring. And a page as viaductd publishes it.
 */
#ifndef VD_TEST_RINGS_H
#define VD_TEST_RINGS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/if_xdp.h>

#include "engine/route.h"
#include "lib/test_stack.h"
#include "vnic/xdp.h"

#define RINGS_BUFS 128u
#define RINGS_CHUNK 4096u
#define RINGS_ROOM 256u /* what the kernel keeps free before a received frame */
#define RINGS_CONTD 1u
#define RINGS_UMEM (2ul * RINGS_BUFS * RINGS_CHUNK)

struct rings {
	struct xdp_port port;
	uint32_t index[4][3]; /* producer, consumer, flags of rx, tx, fill, comp */
	struct xdp_desc rx[RINGS_BUFS], tx[RINGS_BUFS];
	uint64_t fill[RINGS_BUFS], comp[RINGS_BUFS];
	uint32_t tx_cons, fill_cons, rx_prod, comp_prod; /* the kernel's own positions */
};

static struct xdp_ring rings_ring(struct rings *r, int i, void *desc)
{
	return (struct xdp_ring){.producer = &r->index[i][0],
				 .consumer = &r->index[i][1],
				 .flags = &r->index[i][2],
				 .desc = desc,
				 .entries = RINGS_BUFS};
}

/* In zeroed memory, with a umem of RINGS_UMEM bytes. */
static void rings_init(struct rings *r, uint8_t *umem)
{
	r->port = (struct xdp_port){.rx = rings_ring(r, 0, r->rx),
				    .tx = rings_ring(r, 1, r->tx),
				    .fill = rings_ring(r, 2, r->fill),
				    .comp = rings_ring(r, 3, r->comp),
				    .umem = umem,
				    .umem_len = RINGS_UMEM,
				    .chunk_size = RINGS_CHUNK,
				    .rx_count = RINGS_BUFS,
				    .tx_first = RINGS_BUFS,
				    .tx_count = RINGS_BUFS};
	*r->port.tx.flags = XDP_RING_NEED_WAKEUP;
}

static struct rings *rings_new(void)
{
	struct rings *r = calloc(1, sizeof(*r));

	rings_init(r, test_memory(RINGS_UMEM));
	return r;
}

static void rings_free(struct rings *r)
{
	test_memory_free(r->port.umem, r->port.umem_len);
	free(r);
}

/* The next frame that was sent, whose buffers are completed: its length, 0 none. */
static uint32_t rings_take(struct rings *r, uint8_t *frame, uint32_t room)
{
	uint32_t prod = __atomic_load_n(r->port.tx.producer, __ATOMIC_ACQUIRE), len = 0;

	while (r->tx_cons != prod) {
		struct xdp_desc d = r->tx[r->tx_cons++ % RINGS_BUFS];

		assert_true(d.addr >= (uint64_t)RINGS_BUFS * RINGS_CHUNK && d.addr + d.len <= r->port.umem_len);
		assert_true(len + d.len <= room);
		memcpy(frame + len, r->port.umem + d.addr, d.len);
		len += d.len;
		r->comp[r->comp_prod++ % RINGS_BUFS] = d.addr;
		__atomic_store_n(r->port.tx.consumer, r->tx_cons, __ATOMIC_RELEASE);
		__atomic_store_n(r->port.comp.producer, r->comp_prod, __ATOMIC_RELEASE);
		if (!(d.options & RINGS_CONTD))
			return len;
	}
	assert_int_equal(len, 0);
	return 0;
}

/* A frame comes in, in as many buffers as it takes. False: the fill ring has too few. */
static bool rings_give(struct rings *r, const uint8_t *frame, uint32_t len)
{
	uint32_t room = __atomic_load_n(r->port.fill.producer, __ATOMIC_ACQUIRE) - r->fill_cons;

	if ((uint64_t)room * (RINGS_CHUNK - RINGS_ROOM) < len)
		return false;
	while (len) {
		uint32_t n = len < RINGS_CHUNK - RINGS_ROOM ? len : RINGS_CHUNK - RINGS_ROOM;
		uint64_t addr;

		addr = r->fill[r->fill_cons++ % RINGS_BUFS] + RINGS_ROOM;
		__atomic_store_n(r->port.fill.consumer, r->fill_cons, __ATOMIC_RELEASE);
		memcpy(r->port.umem + addr, frame, n);
		frame += n;
		len -= n;
		r->rx[r->rx_prod++ % RINGS_BUFS] =
		    (struct xdp_desc){.addr = addr, .len = n, .options = len ? RINGS_CONTD : 0};
	}
	__atomic_store_n(r->port.rx.producer, r->rx_prod, __ATOMIC_RELEASE);
	return true;
}

/* A new vNIC of e on an interface, with these rings behind it. */
static uint32_t rings_join(struct rings *r, struct engine *e, const struct xdp_about *about)
{
	int i = engine_vnic_alloc(e);

	assert_true(i >= 0);
	assert_int_equal(xdp_attach(&e->vnic[i], stack_vnic(e->s, (uint32_t)i), &r->port, about), 0);
	return (uint32_t)i;
}

/* --- the view --- */

static struct netview *view_new(void)
{
	struct netview *v = test_memory(sizeof(*v));

	v->magic = NETVIEW_MAGIC;
	v->format = NETVIEW_FORMAT;
	v->size = sizeof(*v);
	v->version = 1;
	return v;
}

static void view_free(struct netview *v)
{
	test_memory_free(v, sizeof(*v));
}

static struct netview_copy *view_copy(struct netview *v)
{
	return &v->copy[v->version & 1];
}

/* Begin a change: the next copy starts as the valid one. */
static struct netview_copy *view_change(struct netview *v)
{
	v->copy[(v->version + 1) & 1] = v->copy[v->version & 1];
	v->version++;
	return view_copy(v);
}

/* "10.0.0.1" or "fd00::1", as 16 bytes; NULL: none. */
static void view_addr(uint8_t out[16], const char *text)
{
	memset(out, 0, 16);
	if (!text)
		return;
	if (strchr(text, ':')) {
		assert_int_equal(inet_pton(AF_INET6, text, out), 1);
		return;
	}
	out[10] = out[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, text, out + 12), 1);
}

static uint8_t view_prefix(const char *text, uint32_t bits)
{
	return (uint8_t)(strchr(text, ':') ? bits : 96 + bits);
}

static struct netview_iface *view_iface(struct netview *v, uint32_t ifindex, uint32_t mtu)
{
	struct netview_copy *c = view_copy(v);
	struct netview_iface *f = &c->iface[c->ifaces++];

	*f = (struct netview_iface){.ifindex = ifindex,
				    .flags = NETVIEW_IF_UP | NETVIEW_IF_ALLOWED,
				    .mtu = mtu,
				    .device = ifindex,
				    .mac = {2, 0, 0, 0, 0, (uint8_t)ifindex}};
	return f;
}

static struct netview_addr *view_own(struct netview *v, uint32_t ifindex, const char *addr, uint32_t bits)
{
	struct netview_copy *c = view_copy(v);
	struct netview_addr *a = &c->addr[c->addrs++];

	*a = (struct netview_addr){.ifindex = ifindex, .prefix = view_prefix(addr, bits), .flags = NETVIEW_ADDR_USABLE};
	view_addr(a->addr, addr);
	return a;
}

static struct netview_route *view_route(struct netview *v, uint32_t ifindex, const char *dst, uint32_t bits,
					const char *via)
{
	struct netview_copy *c = view_copy(v);
	struct netview_route *r = &c->route[c->routes++];

	*r = (struct netview_route){.ifindex = ifindex,
				    .prefix = view_prefix(dst, bits),
				    .type = NETVIEW_ROUTE_UNICAST,
				    .hops = 1,
				    .weight = 1};
	view_addr(r->dst, dst);
	view_addr(r->via, via);
	return r;
}

/* A neighbour whose link address ends in `mac`; 0: it has none. */
static struct netview_neigh *view_neigh(struct netview *v, uint32_t ifindex, const char *addr, uint8_t mac)
{
	struct netview_copy *c = view_copy(v);
	struct netview_neigh *n = &c->neigh[c->neighs++];

	*n = (struct netview_neigh){.ifindex = ifindex, .mac = {2, 1, 1, 1, 1, mac}, .usable = mac != 0};
	view_addr(n->addr, addr);
	return n;
}

/* What 10.0.0.1 (end 0) and 10.0.0.2, whose link addresses end so too, see of interface 2, which joins them. */
static struct netview *view_pair(int end, uint32_t mtu)
{
	struct netview *v = view_new();

	view_iface(v, 2, mtu);
	view_own(v, 2, end ? "10.0.0.2" : "10.0.0.1", 24);
	view_own(v, 2, end ? "fd00::2" : "fd00::1", 64);
	view_route(v, 2, "fd00::", 64, NULL);
	view_route(v, 2, "10.0.0.0", 24, NULL);
	view_neigh(v, 2, end ? "10.0.0.1" : "10.0.0.2", (uint8_t)(2 - end));
	view_neigh(v, 2, end ? "fd00::1" : "fd00::2", (uint8_t)(2 - end));
	return v;
}

#endif
