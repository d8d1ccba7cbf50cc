/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `local`: a wire between two processes.
 *
 * The region: a page with the header and the two control lines, two rings, two areas of buffers. Ring e and area e
 * belong to end e: only it writes there. What an end writes into its ring is the other's event queue: its frames, and
 * the returns of the other's buffers, in one sequence.
 *
 * Returns do not go out at once. Each store into a ring line that the peer spins on costs a transfer of that line
 * each way, so a return waits for the next frame and travels in the same store sequence (frame first: that is what the
 * peer waits for). It goes alone when VNIC_RETURNS have come together, when this end has found nothing to do for a
 * while, and before it sleeps. Returns alone ring no doorbell, except that of WIRE_QUIET buffers: a sender
 * that sleeps because none of its buffers is free has more than that out, so it can't be forgotten.
 *
 * The peer is not trusted. Positions and states live in the stack, each descriptor is copied once and checked, the
 * geometry is a constant, and one poll looks at one lap of the ring at most. A peer that overruns the ring
 * overwrites its own events.
 */
#include <errno.h>

#include "vnic/wire.h"

#define WIRE_FEATURES (VNIC_FEAT_LOSSLESS | VNIC_FEAT_CSUM_TX | VNIC_FEAT_SCATTER)
#define WIRE_PAGE 4096u
#define WIRE_CTRL_OFF 1024u /* apart from the header and, for the adjacent-line prefetcher, from each other */
#define WIRE_CTRL_STEP 1024u
#define WIRE_RING_BYTES ((size_t)WIRE_RING * sizeof(struct vnic_desc))
#define WIRE_AREA_BYTES ((size_t)WIRE_BUFS * WIRE_BUF_SIZE)
#define WIRE_QUIET 256u
#define WIRE_IDLE_POLLS 64u

_Static_assert(WIRE_RING >= 2 * WIRE_BUFS, "a ring holds every buffer of both ends");
_Static_assert((WIRE_RING & (WIRE_RING - 1)) == 0, "a ring has a power of two of slots");
_Static_assert(WIRE_BUFS <= VNIC_BUFS_MAX && WIRE_QUIET + VNIC_RETURNS < WIRE_BUFS, "buffers fit the state");
_Static_assert(WIRE_BUF_SIZE % VNIC_LINE == 0, "buffers are aligned");

static size_t ring_off(int end)
{
	return WIRE_PAGE + (size_t)end * WIRE_RING_BYTES;
}

static size_t area_off(int end)
{
	return WIRE_PAGE + 2 * WIRE_RING_BYTES + (size_t)end * WIRE_AREA_BYTES;
}

size_t wire_size(void)
{
	return area_off(2);
}

static struct vnic_header wire_header(void)
{
	struct vnic_header h = {
	    .magic = VNIC_MAGIC,
	    .version = VNIC_VERSION,
	    .header_size = sizeof(h),
	    .total_size = wire_size(),
	    .ends = 2,
	};

	for (int i = 0; i < 2; i++)
		h.end[i] = (struct vnic_end){
		    .tx_off = ring_off(i),
		    .rx_off = ring_off(i),
		    .evq_off = ring_off(1 - i),
		    .ctrl_off = WIRE_CTRL_OFF + (size_t)i * WIRE_CTRL_STEP,
		    .bufs_off = area_off(i),
		    .tx_entries = WIRE_RING,
		    .rx_entries = WIRE_RING,
		    .evq_entries = WIRE_RING,
		    .buf_size = WIRE_BUF_SIZE,
		    .buf_count = WIRE_BUFS,
		    .mtu = WIRE_MTU,
		    .features = WIRE_FEATURES,
		};
	return h;
}

void wire_format(void *mem)
{
	struct vnic_header h = wire_header();

	memcpy(mem, &h, sizeof(h));
}

int wire_check(const void *mem, size_t len)
{
	struct vnic_header want = wire_header(), got;

	if (len < wire_size())
		return -EPROTO;
	memcpy(&got, mem, sizeof(got));
	return memcmp(&got, &want, sizeof(got)) ? -EPROTO : 0;
}

static void local_flush(struct vnic *v)
{
	struct vnic_state *st = v->st;
	uint32_t n = st->ret_count;

	st->idle_polls = 0;
	st->ret_count = st->dead ? 0 : n;
	if (!st->ret_count)
		return;
	wire_write_returns(v, 0);
	st->ret_count = 0;
	vnic_step();
	st->tx_prod += n;
	st->ret_quiet += n;
	if (st->ret_quiet >= WIRE_QUIET) {
		st->ret_quiet = 0;
		st->posted += n;
	}
}

static void local_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct vnic_state *st = v->st;
	uint32_t parts = (uint32_t)n;

	if (st->dead || n <= 0)
		return;
	if (n == 1) {
		wire_post_one(v, d->buf, d->off, d->len);
		return;
	}
	wire_write_returns(v, parts);
	for (uint32_t i = parts; i-- > 0;) {
		struct vnic_desc part = d[i];

		part.type = VNIC_DESC_FRAME;
		part.flags = i + 1 < parts ? VNIC_F_MORE : 0;
		st->stats.tx_bytes += part.len;
		ring_write(v->tx, st->tx_prod + i, WIRE_RING, &part);
	}
	vnic_step();
	for (uint32_t i = 0; i < parts; i++)
		st->tx_state[d[i].buf] |= VNIC_TX_NIC;
	wire_posted(st, parts);
}

static void local_release(struct vnic *v, uint32_t buf)
{
	if (vnic_let_go(v->st, WIRE_BUFS, buf))
		local_flush(v);
}

static int local_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	struct vnic_state *st = v->st;

	if (ring_full(v->evq, st->evq_cons, WIRE_RING)) {
		st->idle_polls = 0;
		return vnic_take_events(v, ev, max, WIRE_RING, VNIC_F_CSUM_OK);
	}
	if (st->ret_count && ++st->idle_polls >= WIRE_IDLE_POLLS)
		local_flush(v);
	return 0;
}

static struct vnic_desc local_posted(const struct vnic *v, uint32_t at)
{
	uint64_t *slot = ring_words(v->tx, at, WIRE_RING), w[2];
	struct vnic_desc d;

	w[0] = __atomic_load_n(&slot[0], __ATOMIC_RELAXED);
	w[1] = __atomic_load_n(&slot[1], __ATOMIC_RELAXED);
	memcpy(&d, w, sizeof(d));
	return d;
}

static const struct vnic_ops local_ops = {
    .poll = local_poll,
    .post = local_post,
    .release = local_release,
    .flush = local_flush,
    .posted = local_posted,
};

void wire_reattach(struct vnic *v, struct vnic_state *st, void *mem)
{
	uint8_t *base = mem;
	int end = st->end & 1;

	v->st = st;
	v->tx = v->rx = (struct vnic_desc *)(void *)(base + ring_off(end));
	v->evq = (struct vnic_desc *)(void *)(base + ring_off(1 - end));
	v->ctrl = (struct vnic_ctrl *)(void *)(base + WIRE_CTRL_OFF + (size_t)end * WIRE_CTRL_STEP);
	v->peer_ctrl = (struct vnic_ctrl *)(void *)(base + WIRE_CTRL_OFF + (size_t)(1 - end) * WIRE_CTRL_STEP);
	v->tx_bufs = base + area_off(end);
	v->rx_bufs = base + area_off(1 - end);
	v->map = mem;
	v->map_len = wire_size();
	v->gen = st->gen;
	v->ops = &local_ops;
}

void wire_attach(struct vnic *v, struct vnic_state *st, void *mem, int end)
{
	vnic_state_reset(st, VNIC_PROV_LOCAL, end & 1, WIRE_BUFS, WIRE_BUFS, WIRE_BUF_SIZE);
	st->mtu = WIRE_MTU;
	st->features = WIRE_FEATURES;
	st->tx_entries = st->rx_entries = st->evq_entries = WIRE_RING;
	st->one_ring = 1;
	wire_reattach(v, st, mem);
}
