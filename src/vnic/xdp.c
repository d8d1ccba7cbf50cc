/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `xdp`: a queue of an AF_XDP socket (Documentation/networking/af_xdp.rst).
 *
 * Chunk rx_first + i of the umem is our rx buffer i, chunk tx_first + i our tx buffer i; addresses in the rings are
 * bytes from the umem's start. An rx buffer is with the kernel (in the fill ring, or in its hands), in the rx ring, or
 * held by us. A tx buffer is with the kernel from its post until it comes back in the completion ring. No ring can
 * overflow: each has a slot for every buffer that may be in it.
 *
 * A frame of several buffers is one run of descriptors, all but the last with XDP_PKT_CONTD.
 *
 * Released buffers go back in batches: the fill ring is long, so the kernel doesn't miss the few that wait. Completions
 * are looked at only while something is out.
 *
 * The kernel's positions and descriptors are read once, checked, and used from the copy, as a peer's would be: the
 * memory is mapped by every process of the tree. A position that can't be is counted and taken as "nothing is there".
 */
#include <errno.h>
#include <linux/if_xdp.h>

#include "vnic/ring.h"
#include "vnic/xdp.h"

#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD 1u /* Linux 6.6 */
#endif

#define CHUNK_MIN 2048u
#define CHUNK_MAX 32768u

static inline struct xdp_port *port_of(const struct vnic *v)
{
	return v->priv;
}

static inline uint32_t chunk_shift(const struct xdp_port *p)
{
	return (uint32_t)__builtin_ctz(p->chunk_size);
}

/* How many entries wait behind cons in a ring that the kernel fills. */
static inline uint32_t ring_waiting(struct vnic_state *st, const struct xdp_ring *r, uint32_t cons)
{
	uint32_t n = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - cons;

	if (__builtin_expect(n > r->entries, 0)) {
		st->stats.bad_desc++;
		return 0;
	}
	return n;
}

static void take_completions(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint32_t n = ring_waiting(st, &p->comp, st->comp_cons), shift = chunk_shift(p);
	const uint64_t *ring = p->comp.desc;

	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t addr = __atomic_load_n(&ring[(st->comp_cons + i) & (p->comp.entries - 1)], __ATOMIC_RELAXED);
		uint64_t buf = (addr >> shift) - p->tx_first;

		vnic_take_return(st, buf < p->tx_count ? (uint32_t)buf : UINT32_MAX);
	}
	st->comp_cons += n;
	__atomic_store_n(p->comp.consumer, st->comp_cons, __ATOMIC_RELEASE);
}

/* Give the kernel what was released. */
static void xdp_flush(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint64_t *ring = p->fill.desc;

	for (uint32_t i = 0; i < st->ret_count; i++)
		ring[(st->rx_prod + i) & (p->fill.entries - 1)] = ((uint64_t)p->rx_first + st->ret[i])
								  << chunk_shift(p);
	st->rx_prod += st->ret_count;
	st->ret_count = 0;
	__atomic_store_n(p->fill.producer, st->rx_prod, __ATOMIC_RELEASE);
}

static void xdp_release(struct vnic *v, uint32_t buf)
{
	struct vnic_state *st = v->st;

	if (buf >= st->rx_count || !st->rx_state[buf])
		return;
	vnic_drop_part(st, buf);
	st->ret[st->ret_count++] = (uint16_t)buf;
	if (st->ret_count == VNIC_RETURNS)
		xdp_flush(v);
}

static void xdp_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	struct xdp_desc *ring = p->tx.desc;

	if (st->dead || n <= 0)
		return;
	for (int i = 0; i < n; i++) {
		ring[(st->tx_prod + (uint32_t)i) & (p->tx.entries - 1)] =
		    (struct xdp_desc){.addr = (((uint64_t)p->tx_first + d[i].buf) << chunk_shift(p)) + d[i].off,
				      .len = d[i].len,
				      .options = i + 1 < n ? XDP_PKT_CONTD : 0};
		st->tx_state[d[i].buf] |= VNIC_TX_NIC;
		st->stats.tx_bytes += d[i].len;
	}
	st->stats.tx_frames++;
	st->tx_prod += (uint32_t)n;
	st->posted += (uint32_t)n;
	__atomic_store_n(p->tx.producer, st->tx_prod, __ATOMIC_RELEASE);
}

/* Store the descriptor at cons, read once, as ours. buf out of range: not one of our buffers. In two words, as it is
 * read again right away (ring.h). */
static inline void read_desc(const struct xdp_port *p, uint32_t cons, struct vnic_desc *to)
{
	const struct xdp_desc *slot = (const struct xdp_desc *)p->rx.desc + (cons & (p->rx.entries - 1));
	uint64_t addr = __atomic_load_n(&slot->addr, __ATOMIC_RELAXED), buf, w[2];
	uint32_t len = __atomic_load_n(&slot->len, __ATOMIC_RELAXED);
	uint32_t options = __atomic_load_n(&slot->options, __ATOMIC_RELAXED);

	buf = (addr >> chunk_shift(p)) - p->rx_first;
	buf = buf < p->rx_count ? buf : UINT32_MAX;
	len = len <= p->chunk_size ? len : 0;
	w[0] = buf | (addr & (p->chunk_size - 1)) << 32 | (uint64_t)len << 48;
	w[1] = VNIC_DESC_FRAME | (options & XDP_PKT_CONTD ? VNIC_F_MORE << 8 : 0);
	memcpy(to, w, sizeof(*to));
}

static int xdp_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint32_t cons = st->evq_cons, frame_cons = cons, left;
	int n = 0, frame = 0; /* index of the current frame's first part */

	if (st->tx_prod != st->comp_cons)
		take_completions(v);
	left = ring_waiting(st, &p->rx, cons);
	if (!left)
		return 0;
	for (; left && n < max; left--) {
		read_desc(p, cons++, &ev[n]);
		if (vnic_take_part(v, &ev[n]) && !(ev[n++].flags & VNIC_F_MORE)) {
			frame = n;
			st->stats.rx_frames++;
		}
		if (frame == n)
			frame_cons = cons;
	}
	if (n == max && frame && frame < n) {
		n = vnic_unread(st, ev, frame, n);
		cons = frame_cons;
	}
	vnic_set_cons(st, cons);
	__atomic_store_n(p->rx.consumer, cons, __ATOMIC_RELEASE);
	for (int i = 0; i < n; i++)
		st->stats.rx_bytes += ev[i].len;
	return n;
}

static struct vnic_desc xdp_posted(const struct vnic *v, uint32_t at)
{
	const struct xdp_port *p = port_of(v);
	const struct xdp_desc *slot = (const struct xdp_desc *)p->tx.desc + (at & (p->tx.entries - 1));
	struct xdp_desc d = *slot;

	return (struct vnic_desc){.buf = (uint32_t)(d.addr >> chunk_shift(p)) - p->tx_first,
				  .off = (uint16_t)(d.addr & (p->chunk_size - 1)),
				  .len = (uint16_t)d.len,
				  .type = VNIC_DESC_FRAME,
				  .flags = d.options & XDP_PKT_CONTD ? VNIC_F_MORE : 0};
}

static const struct vnic_ops xdp_ops = {
    .poll = xdp_poll,
    .post = xdp_post,
    .release = xdp_release,
    .flush = xdp_flush,
    .posted = xdp_posted,
};

static bool needs_wakeup(const struct xdp_ring *r)
{
	return __atomic_load_n(r->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

bool xdp_kick_due(const struct vnic *v)
{
	const struct xdp_port *p = port_of(v);
	uint32_t posted = __atomic_load_n(&v->st->tx_prod, __ATOMIC_RELAXED);

	if (__atomic_load_n(p->tx.consumer, __ATOMIC_RELAXED) != posted && needs_wakeup(&p->tx))
		return true;
	return needs_wakeup(&p->fill);
}

static bool area_valid(const struct xdp_port *p, uint32_t first, uint32_t count)
{
	return count && count <= VNIC_BUFS_MAX && ((uint64_t)first + count) * p->chunk_size <= p->umem_len;
}

static bool ring_valid(const struct xdp_ring *r, uint32_t bufs)
{
	return r->producer && r->consumer && r->flags && r->desc && r->entries >= bufs &&
	       !(r->entries & (r->entries - 1));
}

static bool port_valid(const struct xdp_port *p)
{
	uint32_t rx_end = p->rx_first + p->rx_count, tx_end = p->tx_first + p->tx_count;

	return p->umem && p->chunk_size >= CHUNK_MIN && p->chunk_size <= CHUNK_MAX &&
	       !(p->chunk_size & (p->chunk_size - 1)) && area_valid(p, p->rx_first, p->rx_count) &&
	       area_valid(p, p->tx_first, p->tx_count) && (rx_end <= p->tx_first || tx_end <= p->rx_first) &&
	       ring_valid(&p->rx, p->rx_count) && ring_valid(&p->fill, p->rx_count) &&
	       ring_valid(&p->tx, p->tx_count) && ring_valid(&p->comp, p->tx_count);
}

static void map_port(struct vnic *v, struct vnic_state *st, struct xdp_port *port)
{
	v->st = st;
	v->tx = v->rx = v->evq = NULL;
	v->ctrl = &port->ctrl;
	v->peer_ctrl = NULL;
	v->tx_bufs = port->umem + (size_t)port->tx_first * port->chunk_size;
	v->rx_bufs = port->umem + (size_t)port->rx_first * port->chunk_size;
	v->map = NULL; /* host/xsk.h unmaps the port */
	v->map_len = 0;
	v->priv = port;
	v->gen = st->gen;
	v->ops = &xdp_ops;
}

int xdp_reattach(struct vnic *v, struct vnic_state *st, struct xdp_port *port)
{
	if (!port_valid(port) || st->provider != VNIC_PROV_XDP || st->buf_size != port->chunk_size ||
	    st->tx_count != port->tx_count || st->rx_count != port->rx_count)
		return -EINVAL;
	map_port(v, st, port);
	return 0;
}

/* The rings may have served before: what they hold is forgotten, and their positions are taken over. */
static void take_positions(struct vnic_state *st, struct xdp_port *p)
{
	st->tx_prod = __atomic_load_n(p->tx.producer, __ATOMIC_RELAXED);
	st->rx_prod = __atomic_load_n(p->fill.producer, __ATOMIC_RELAXED);
	st->comp_cons = __atomic_load_n(p->comp.consumer, __ATOMIC_RELAXED);
	st->evq_cons = __atomic_load_n(p->rx.consumer, __ATOMIC_RELAXED);
}

int xdp_attach(struct vnic *v, struct vnic_state *st, struct xdp_port *port, const struct xdp_about *about)
{
	if (!port_valid(port) || !about->ifindex || !about->mtu || about->vlan > 4094)
		return -EINVAL;
	vnic_state_reset(st, VNIC_PROV_XDP, 0, port->tx_count, port->rx_count, port->chunk_size);
	st->mtu = about->mtu;
	st->features = about->features & (VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_PARTIAL);
	st->ifindex = about->ifindex;
	st->vlan = about->vlan;
	st->queue = about->queue;
	memcpy(st->mac, about->mac, sizeof(st->mac));
	memset(st->peer_mac, 0, sizeof(st->peer_mac));
	st->tx_entries = port->tx.entries;
	st->rx_entries = port->fill.entries;
	st->evq_entries = port->rx.entries;
	take_positions(st, port);
	map_port(v, st, port);
	for (uint32_t i = 0; i < st->rx_count; i++) {
		st->rx_state[i] = 1;
		st->rx_held++;
		xdp_release(v, i);
	}
	xdp_flush(v);
	return 0;
}

/* --- after a death --- */

static void mark_ring(struct xdp_port *p, const struct xdp_ring *r, uint32_t first, uint8_t *kernels)
{
	uint32_t from = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE),
		 to = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);

	if (to - from > r->entries)
		return;
	for (; from != to; from++) {
		uint32_t slot = from & (r->entries - 1);
		uint64_t addr =
		    r == &p->fill ? ((const uint64_t *)r->desc)[slot] : ((const struct xdp_desc *)r->desc)[slot].addr;
		uint64_t buf = (addr >> chunk_shift(p)) - first;

		if (buf < VNIC_BUFS_MAX)
			kernels[buf] = 1;
	}
}

/* Buffers that were posted and not completed, should tx_state not agree with the rings: completions come in order. */
static void recover_tx(struct vnic_state *st, struct xdp_port *p)
{
	uint32_t out = st->tx_prod - st->comp_cons, marked = 0;

	for (uint32_t b = 0; b < st->tx_count; b++)
		marked += (st->tx_state[b] & VNIC_TX_NIC) != 0;
	if (marked == out || out > p->tx.entries)
		return;
	for (uint32_t b = 0; b < st->tx_count; b++)
		st->tx_state[b] &= (uint8_t)~VNIC_TX_NIC;
	for (uint32_t at = st->comp_cons; at != st->tx_prod; at++) {
		const struct xdp_desc *d = (const struct xdp_desc *)p->tx.desc + (at & (p->tx.entries - 1));
		uint64_t buf = (d->addr >> chunk_shift(p)) - p->tx_first;

		if (buf < st->tx_count)
			st->tx_state[buf] |= VNIC_TX_NIC;
	}
}

void xdp_recover(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint8_t kernels[VNIC_BUFS_MAX] = {0};

	take_positions(st, p);
	recover_tx(st, p);
	/* in this order: the kernel moves buffers from the one to the other meanwhile */
	mark_ring(p, &p->fill, p->rx_first, kernels);
	mark_ring(p, &p->rx, p->rx_first, kernels);
	st->ret_count = st->rx_held = 0;
	memset(st->rx_state, 0, sizeof(st->rx_state));
	for (uint32_t b = 0; b < st->rx_count && b < VNIC_BUFS_MAX; b++) {
		if (kernels[b])
			continue;
		st->rx_state[b] = 1;
		st->rx_held++;
		xdp_release(v, b);
	}
	xdp_flush(v);
}
