/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `chardev`: see chardev.h.
 *
 * The rings are those of vnic.h. A tx buffer is the driver's from its post until its RETURN in the event queue, which
 * comes when the driver has copied the frame, so mostly before the doorbell's call is over. A receive buffer goes back
 * by a descriptor of its own in the rx ring, at once: the driver looks there only when it has no buffer left, so the
 * line is ours. st->comp_cons counts what the driver was told of.
 *
 * The region's header is read once, checked against its length, and not looked at again; the driver is trusted no more
 * than a peer is, as the memory is mapped by every process of the tree.
 */
#include "vnic/chardev.h"

#include <errno.h>

#include "vnic/ring.h"

#define RING_MAX 16384u

static struct vnic_taken *taken_of(const struct vnic *v)
{
	return v->priv;
}

static void chardev_release(struct vnic *v, uint32_t buf)
{
	struct vnic_state *st = v->st;
	const struct vnic_desc d = {.buf = buf, .type = VNIC_DESC_RETURN};

	if (buf >= st->rx_count || !st->rx_state[buf])
		return;
	vnic_drop_part(st, buf);
	ring_write(v->rx, st->rx_prod++, st->rx_entries, &d);
}

static void chardev_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct vnic_state *st = v->st;

	if (st->dead || n <= 0)
		return;
	for (int i = 0; i < n; i++) {
		st->tx_state[d[i].buf] |= VNIC_TX_NIC;
		st->stats.tx_bytes += d[i].len;
	}
	for (int i = n; i-- > 0;) {
		struct vnic_desc part = d[i];

		part.type = VNIC_DESC_FRAME;
		part.flags = (part.flags & VNIC_F_CSUM_TX) | (i + 1 < n ? VNIC_F_MORE : 0);
		ring_write(v->tx, st->tx_prod + (uint32_t)i, st->tx_entries, &part);
	}
	st->stats.tx_frames++;
	st->posted += (uint32_t)n;
	__atomic_store_n(&st->tx_prod, st->tx_prod + (uint32_t)n, __ATOMIC_RELEASE);
}

/* One event. True: it is stored, to be looked at by the engine. */
static bool take_event(struct vnic *v, struct vnic_desc *d)
{
	struct vnic_state *st = v->st;

	switch (d->type) {
	case VNIC_DESC_RETURN:
		vnic_take_return(st, d->buf);
		return false;
	case VNIC_DESC_LINK:
		d->flags = 0;
		return true;
	case VNIC_DESC_FRAME:
		if (!vnic_take_part(v, d))
			return false;
		d->flags &= VNIC_F_MORE | VNIC_F_CSUM_OK;
		return true;
	default:
		st->stats.bad_desc++;
		return false;
	}
}

static int chardev_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	struct vnic_state *st = v->st;
	uint32_t cons = st->evq_cons, frame_cons = cons, left = st->evq_entries;
	int n = 0, frame = 0; /* index of the current frame's first part */

	for (; left && n < max && ring_read(v->evq, cons, st->evq_entries, &ev[n]); left--) {
		cons++;
		if (take_event(v, &ev[n]) && !(ev[n++].flags & VNIC_F_MORE)) {
			frame = n;
			st->stats.rx_frames += ev[n - 1].type == VNIC_DESC_FRAME;
		}
		if (frame == n)
			frame_cons = cons;
	}
	if (cons == st->evq_cons)
		return 0;
	if (n == max && frame && frame < n) {
		n = vnic_unread(st, ev, frame, n);
		cons = frame_cons;
	}
	vnic_set_cons(st, cons);
	__atomic_store_n(&taken_of(v)->evq, cons, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++)
		st->stats.rx_bytes += ev[i].type == VNIC_DESC_FRAME ? ev[i].len : 0;
	return n;
}

static struct vnic_desc chardev_posted(const struct vnic *v, uint32_t at)
{
	return v->tx[at & (v->st->tx_entries - 1)];
}

static const struct vnic_ops chardev_ops = {
    .poll = chardev_poll,
    .post = chardev_post,
    .release = chardev_release,
    .posted = chardev_posted,
};

/* The driver's thread looks at the ring by itself. It says so no longer before it looks for the last time. */
static bool polled(const struct vnic *v)
{
	if (!__atomic_load_n(&taken_of(v)->polling, __ATOMIC_RELAXED))
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* frames before this look */
	return __atomic_load_n(&taken_of(v)->polling, __ATOMIC_RELAXED);
}

bool chardev_kick_due(const struct vnic *v)
{
	if (polled(v))
		chardev_kicked(v);
	return __atomic_load_n(&v->st->tx_prod, __ATOMIC_ACQUIRE) !=
	       __atomic_load_n(&v->st->comp_cons, __ATOMIC_RELAXED);
}

void chardev_kicked(const struct vnic *v)
{
	__atomic_store_n(&v->st->comp_cons, __atomic_load_n(&v->st->tx_prod, __ATOMIC_ACQUIRE), __ATOMIC_RELAXED);
}

/* --- the region --- */

static bool ring_fits(uint64_t off, uint32_t entries, uint32_t least, size_t len)
{
	return entries >= least && entries <= RING_MAX && !(entries & (entries - 1)) && off % VNIC_LINE == 0 &&
	       off < len && (uint64_t)entries * sizeof(struct vnic_desc) <= len - off;
}

static bool area_fits(const struct vnic_end *e, size_t len)
{
	return e->buf_count && e->buf_count <= VNIC_BUFS_MAX && e->buf_size && e->buf_size % VNIC_LINE == 0 &&
	       e->bufs_off % VNIC_LINE == 0 && e->bufs_off < len &&
	       (uint64_t)e->buf_count * e->buf_size <= len - e->bufs_off;
}

static bool header_fits(const struct vnic_header *h, size_t len)
{
	const struct vnic_end *tx = &h->end[0], *rx = &h->end[1];

	return h->magic == VNIC_MAGIC && h->version == VNIC_VERSION && h->header_size >= sizeof(*h) &&
	       h->total_size <= len && h->ends == 1 && area_fits(tx, len) && area_fits(rx, len) &&
	       rx->buf_size == tx->buf_size && tx->ctrl_off % VNIC_LINE == 0 && tx->ctrl_off < len &&
	       len - tx->ctrl_off >= 2 * (size_t)VNIC_LINE &&
	       ring_fits(tx->tx_off, tx->tx_entries, tx->buf_count, len) &&
	       ring_fits(tx->rx_off, tx->rx_entries, rx->buf_count, len) &&
	       ring_fits(tx->evq_off, tx->evq_entries, tx->buf_count + rx->buf_count, len);
}

int chardev_attach(struct vnic *v, struct vnic_state *st, void *mem, size_t len, const struct chardev_about *about)
{
	struct vnic_header h;
	uint8_t *base = mem;

	if (len < sizeof(h))
		return -EPROTO;
	memcpy(&h, mem, sizeof(h));
	if (!header_fits(&h, len) || !about->ifindex || !about->mtu)
		return -EPROTO;
	vnic_state_reset(st, VNIC_PROV_CHARDEV, 0, h.end[0].buf_count, h.end[1].buf_count, h.end[0].buf_size);
	st->mtu = about->mtu;
	st->features = h.end[0].features & (VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_TX);
	st->ifindex = about->ifindex;
	memcpy(st->mac, about->mac, sizeof(st->mac));
	memset(st->peer_mac, 0, sizeof(st->peer_mac));
	st->tx_entries = h.end[0].tx_entries;
	st->rx_entries = h.end[0].rx_entries;
	st->evq_entries = h.end[0].evq_entries;
	v->st = st;
	v->tx = (struct vnic_desc *)(void *)(base + h.end[0].tx_off);
	v->rx = (struct vnic_desc *)(void *)(base + h.end[0].rx_off);
	v->evq = (struct vnic_desc *)(void *)(base + h.end[0].evq_off);
	v->ctrl = (struct vnic_ctrl *)(void *)(base + h.end[0].ctrl_off);
	v->priv = base + h.end[0].ctrl_off + VNIC_LINE;
	v->peer_ctrl = NULL;
	v->tx_bufs = base + h.end[0].bufs_off;
	v->rx_bufs = base + h.end[1].bufs_off;
	v->map = mem;
	v->map_len = len;
	v->gen = st->gen;
	v->ops = &chardev_ops;
	return 0;
}
