/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data path of the provider `local` (local.c, where its rules are), inline for a stack that knows that it has a
 * wire before it (vnic_state.provider): frames of one buffer, in and out.
 */
#ifndef VD_WIRE_H
#define VD_WIRE_H

#include "vnic/ring.h"

/* Put what has been released into the ring, behind `behind` slots that the caller fills afterwards. */
static inline void wire_write_returns(struct vnic *v, uint32_t behind)
{
	struct vnic_state *st = v->st;
	uint32_t n = st->ret_count, at = st->tx_prod + behind;

	while (n) {
		struct vnic_desc d = {.buf = st->ret[--n], .type = VNIC_DESC_RETURN};

		ring_write(v->tx, at + n, WIRE_RING, &d);
	}
}

/* Post a frame of one buffer. */
static inline void wire_post_one(struct vnic *v, uint32_t buf, uint32_t off, uint32_t len)
{
	struct vnic_state *st = v->st;
	struct vnic_desc d = {.buf = buf, .off = (uint16_t)off, .len = (uint16_t)len, .type = VNIC_DESC_FRAME};

	wire_write_returns(v, 1);
	st->tx_state[buf] |= VNIC_TX_NIC;
	ring_write(v->tx, st->tx_prod, WIRE_RING, &d);
	st->stats.tx_bytes += len;
	st->stats.tx_frames++;
	st->tx_prod += 1 + st->ret_count;
	st->posted++;
	st->ret_count = 0;
	st->ret_quiet = 0;
}

/* May the stack take this frame as it is? What is wrong with it otherwise, vnic_ops.poll finds out. */
static inline bool wire_whole_frame(const struct vnic_state *st, const struct vnic_desc *d)
{
	return d->type == VNIC_DESC_FRAME && !(d->flags & VNIC_F_MORE) && d->buf < st->rx_count && d->len &&
	       (uint32_t)d->off + d->len <= st->buf_size && !st->rx_state[d->buf];
}

/* The next event, if it is a whole good frame in one buffer, which is held then; returns before it are dealt with.
 * False: there is none, or vnic_ops.poll must look at it; nothing of it was taken. */
static inline bool wire_take_one(struct vnic *v, struct vnic_desc *d)
{
	struct vnic_state *st = v->st;

	for (uint32_t left = WIRE_RING; left && ring_read(v->evq, st->evq_cons, WIRE_RING, d); left--) {
		if (d->type == VNIC_DESC_RETURN) {
			vnic_take_return(st, d->buf);
			vnic_set_cons(st, st->evq_cons + 1);
			continue;
		}
		if (!wire_whole_frame(st, d))
			return false;
		st->rx_state[d->buf] = 1;
		st->rx_held++;
		vnic_set_cons(st, st->evq_cons + 1);
		st->stats.rx_frames++;
		st->stats.rx_bytes += d->len;
		return true;
	}
	return false;
}

/* A hint: if a frame follows, have its start fetched while the one before it is worked on. */
static inline void wire_prefetch_next(const struct vnic *v)
{
	const struct vnic_state *st = v->st;
	struct vnic_desc d;

	if (ring_read(v->evq, st->evq_cons, WIRE_RING, &d) && d.type == VNIC_DESC_FRAME && d.buf < st->rx_count) {
		const uint8_t *p = vnic_rx_buf(v, d.buf) + d.off;

		__builtin_prefetch(p);
		__builtin_prefetch(p + 64);
	}
}

#endif
