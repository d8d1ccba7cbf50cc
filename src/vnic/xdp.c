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
 * Dying: whoever is killed between two steps leaves what xdp_rebuild and xdp_recover make right.
 *
 *   posting      slots are filled; then tx_prod moves on: the frame is as good as posted; then its buffers are marked
 *                as the kernel's; then the kernel gets to know.
 *   completing   marks are taken off first, then comp_cons moves on, then the kernel gets to know.
 *   giving       slots of the fill ring are filled; then the kernel gets to know; then the list is emptied; then
 *                rx_prod moves on: what is in the ring from there on is in the list no more.
 *   taking       buffers are held; then evq_cons moves on; then the kernel gets to know: until it does, the frames come
 *                again. (Releasing, and all else: vnic_rebuild.h.)
 *
 * The kernel's positions and descriptors are read once, checked, and used from the copy, as a peer's would be: the
 * memory is mapped by every process of the tree. A position that can't be is counted and taken as "nothing is there".
 */
#include <errno.h>
#include <linux/if_xdp.h>

#include "vnic/ring.h"
#include "vnic/vnic_rebuild.h"
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

/* The tx buffer that the completion at `at` names; UINT32_MAX: none. */
static inline uint32_t completed(const struct xdp_port *p, uint32_t at)
{
	const uint64_t *slot = (const uint64_t *)p->comp.desc + (at & (p->comp.entries - 1));
	uint64_t buf = (__atomic_load_n(slot, __ATOMIC_RELAXED) >> chunk_shift(p)) - p->tx_first;

	return buf < p->tx_count ? (uint32_t)buf : UINT32_MAX;
}

/* The rx buffer at that place in the umem; UINT32_MAX: none. */
static inline uint32_t rx_buf_at(const struct xdp_port *p, uint64_t addr)
{
	uint64_t buf = (addr >> chunk_shift(p)) - p->rx_first;

	return buf < p->rx_count ? (uint32_t)buf : UINT32_MAX;
}

static void take_completions(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint32_t n = ring_waiting(st, &p->comp, st->comp_cons);

	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++)
		vnic_take_return(st, completed(p, st->comp_cons + i));
	st->comp_cons += n;
	__atomic_store_n(p->comp.consumer, st->comp_cons, __ATOMIC_RELEASE);
}

/* Give the kernel what was released. */
static void xdp_flush(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint64_t *ring = p->fill.desc;
	uint32_t given;

	for (uint32_t i = 0; i < st->ret_count; i++)
		ring[(st->rx_prod + i) & (p->fill.entries - 1)] = ((uint64_t)p->rx_first + st->ret[i])
								  << chunk_shift(p);
	given = st->ret_count;
	__atomic_store_n(p->fill.producer, st->rx_prod + given, __ATOMIC_RELEASE);
	vnic_step();
	st->ret_count = 0;
	vnic_step();
	st->rx_prod += given;
}

static void xdp_release(struct vnic *v, uint32_t buf)
{
	if (vnic_let_go(v->st, v->st->rx_count, buf))
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
		st->stats.tx_bytes += d[i].len;
	}
	vnic_step();
	st->tx_prod += (uint32_t)n;
	vnic_step();
	for (int i = 0; i < n; i++)
		st->tx_state[d[i].buf] |= VNIC_TX_NIC;
	st->stats.tx_frames++;
	st->posted += (uint32_t)n;
	__atomic_store_n(p->tx.producer, st->tx_prod, __ATOMIC_RELEASE);
}

/* Store the descriptor at cons, read once, as ours. buf out of range: not one of our buffers. In two words, as it is
 * read again right away (ring.h). */
static inline void read_desc(const struct xdp_port *p, uint32_t cons, struct vnic_desc *to)
{
	const struct xdp_desc *slot = (const struct xdp_desc *)p->rx.desc + (cons & (p->rx.entries - 1));
	uint64_t addr = __atomic_load_n(&slot->addr, __ATOMIC_RELAXED), w[2];
	uint32_t len = __atomic_load_n(&slot->len, __ATOMIC_RELAXED);
	uint32_t options = __atomic_load_n(&slot->options, __ATOMIC_RELAXED);

	len = len <= p->chunk_size ? len : 0;
	w[0] = rx_buf_at(p, addr) | (addr & (p->chunk_size - 1)) << 32 | (uint64_t)len << 48;
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

/* A frame that was being posted is posted, and what has been completed is not out any more. */
static void settle_tx(struct vnic *v)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint32_t at = __atomic_load_n(p->tx.producer, __ATOMIC_RELAXED), n;

	if (st->tx_prod - at > FRAME_PARTS)
		st->tx_prod = at;
	st->posted += st->tx_prod - at;
	for (; at != st->tx_prod; at++) {
		uint32_t buf = xdp_posted(v, at).buf;

		if (buf < p->tx_count)
			st->tx_state[buf] |= VNIC_TX_NIC;
	}
	__atomic_store_n(p->tx.producer, at, __ATOMIC_RELEASE);
	st->comp_cons = __atomic_load_n(p->comp.consumer, __ATOMIC_RELAXED);
	n = ring_waiting(st, &p->comp, st->comp_cons);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t buf = completed(p, st->comp_cons + i);

		if (buf < p->tx_count)
			st->tx_state[buf] &= (uint8_t)~VNIC_TX_NIC;
	}
	st->comp_cons += n;
	__atomic_store_n(p->comp.consumer, st->comp_cons, __ATOMIC_RELEASE);
}

/* What was given to the kernel is not given again, and the frames that wait are in *waiting. */
static void settle_rx(struct vnic *v, uint64_t *waiting)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint32_t given = __atomic_load_n(p->fill.producer, __ATOMIC_RELAXED), n;
	const uint64_t *fill = p->fill.desc;

	if (given - st->rx_prod > VNIC_RETURNS)
		st->rx_prod = given;
	for (; st->rx_prod != given; st->rx_prod++)
		vnic_forget_return(st, rx_buf_at(p, fill[st->rx_prod & (p->fill.entries - 1)]));
	vnic_set_cons(st, __atomic_load_n(p->rx.consumer, __ATOMIC_RELAXED));
	n = ring_waiting(st, &p->rx, st->evq_cons);
	for (uint32_t i = 0; i < n; i++) {
		struct vnic_desc d;

		read_desc(p, st->evq_cons + i, &d);
		if (d.buf < p->rx_count)
			vnic_set_add(waiting, d.buf);
	}
}

bool xdp_rebuild(struct vnic *v, const uint64_t *rx, const uint64_t *tx)
{
	struct xdp_port *p = port_of(v);
	struct vnic_state *st = v->st;
	uint64_t waiting[VNIC_SET_WORDS] = {0};

	if (st->tx_count != p->tx_count || st->rx_count != p->rx_count || st->ret_count > VNIC_RETURNS)
		return false;
	settle_tx(v);
	settle_rx(v, waiting);
	return vnic_rebuild_tx(st, tx) && vnic_rebuild_rx(v, rx, waiting);
}

bool xdp_mid_frame(const struct vnic *v)
{
	struct vnic_desc d;

	read_desc(port_of(v), __atomic_load_n(port_of(v)->rx.consumer, __ATOMIC_RELAXED) - 1, &d);
	return d.flags & VNIC_F_MORE;
}

void xdp_recover(struct vnic *v)
{
	struct vnic_state *st = v->st;
	uint64_t none[VNIC_SET_WORDS] = {0}, waiting[VNIC_SET_WORDS] = {0};

	for (uint32_t i = 0; i < st->ret_count; i++)
		if (st->ret_count > VNIC_RETURNS || st->ret[i] >= st->rx_count)
			st->ret_count = 0;
	settle_tx(v);
	settle_rx(v, waiting);
	vnic_rebuild_rx(v, none, waiting);
	xdp_flush(v);
}
