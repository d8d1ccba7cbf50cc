/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data path of the provider `local` (local.c, where its rules are), inline for a stack that knows that it has a
 * wire before it (vnic_state.provider): frames of one buffer, in and out.
 */
#ifndef VD_WIRE_H
#define VD_WIRE_H

#include "vnic/ring.h"
#include "vnic/vnic_rebuild.h"

#define WIRE_LAG 256u

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

/* A frame of n parts is in the ring, and what was released with it. */
static inline void wire_posted(struct vnic_state *st, uint32_t n)
{
	n += st->ret_count;
	st->ret_count = 0;
	vnic_step();
	st->tx_prod += n;
	st->posted++;
	st->ret_quiet = 0;
	st->stats.tx_frames++;
}

static inline __attribute__((always_inline)) void wire_post_flags(struct vnic *v, uint32_t buf, uint32_t off,
								  uint32_t len, uint8_t flags)
{
	struct vnic_state *st = v->st;
	struct vnic_desc d = {.buf = buf, .off = (uint16_t)off, .len = (uint16_t)len, .type = VNIC_DESC_FRAME};

	d.flags = flags;
	wire_write_returns(v, 1);
	if (flags & VNIC_F_OPEN) /* once taken it does not tell any more which buffer it was */
		st->tx_state[buf] |= VNIC_TX_NIC;
	ring_write(v->tx, st->tx_prod, WIRE_RING, &d);
	vnic_step();
	st->tx_state[buf] |= VNIC_TX_NIC;
	wire_posted(st, 1);
	st->stats.tx_bytes += len;
}

/* Post a frame of one buffer. */
static inline void wire_post_one(struct vnic *v, uint32_t buf, uint32_t off, uint32_t len)
{
	wire_post_flags(v, buf, off, len, 0);
}

/*
 * Frames that grow. A peer that is behind has frames in its queue that it has not taken. What follows, if it is small,
 * is added to the last of them: that saves both ends a frame, and delays nothing, as it goes no later than it is
 * written. As Linux does when packets wait in the device's queue (autocorking), but nothing is held back here.
 */

/* Is the peer far behind? One that is only a little will have taken the frame before we add to it, and then it was for
 * nothing that it wrote to the ring: that costs more than a frame. */
static inline bool wire_lags(const struct vnic_state *st)
{
	return st->tx_count - st->free_top >= WIRE_LAG;
}

/* Post a frame of one buffer to which more may be added. Its IP header must not tell a length. */
static inline void wire_post_open(struct vnic *v, uint32_t buf, uint32_t off, uint32_t len)
{
	struct vnic_state *st = v->st;

	/* which buffer is marked before it is posted, should it come to no more than that */
	st->grow_slot = st->tx_prod;
	st->grow_buf = buf;
	vnic_step();
	wire_post_flags(v, buf, off, len, VNIC_F_OPEN);
	st->grow_prod = st->tx_prod;
	st->grow_off = (uint16_t)off;
	st->grow_len = (uint16_t)len;
}

/* The last thing that was posted is an open frame, and nobody has been seen to take it. */
static inline bool wire_may_grow(const struct vnic_state *st)
{
	return st->grow_prod == st->tx_prod && st->grow_len;
}

/* What lies behind the frame in its buffer, n bytes, belongs to it. False: the peer has taken it before. */
static inline bool wire_grow(struct vnic *v, uint32_t n)
{
	struct vnic_state *st = v->st;
	uint64_t was = ring_first_word(st->grow_buf, st->grow_off, st->grow_len);

	if (!__atomic_compare_exchange_n(&ring_words(v->tx, st->grow_slot, WIRE_RING)[0], &was,
					 ring_first_word(st->grow_buf, st->grow_off, st->grow_len + n), false,
					 __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
		st->grow_len = 0;
		return false;
	}
	st->grow_len = (uint16_t)(st->grow_len + n);
	st->stats.tx_bytes += n;
	return true;
}

/* May the stack take this frame as it is? What is wrong with it otherwise, vnic_ops.poll finds out. */
static inline bool wire_whole_frame(const struct vnic_state *st, const struct vnic_desc *d)
{
	return d->type == VNIC_DESC_FRAME && !(d->flags & VNIC_F_MORE) && d->buf < st->rx_count && d->len &&
	       (uint32_t)d->off + d->len <= st->buf_size && !st->rx_state[d->buf];
}

/* Take an open frame. The slot does not tell any more what it was; should we die here, its being held does. */
static inline void wire_close(struct vnic *v, uint32_t idx, struct vnic_desc *d)
{
	uint32_t buf = d->buf;

	v->st->rx_state[buf] = 1;
	ring_close(v->evq, idx, WIRE_RING, d);
	v->st->rx_state[buf] = 0;
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
		if (d->flags & VNIC_F_OPEN) {
			wire_close(v, st->evq_cons, d);
			if (!wire_whole_frame(st, d)) { /* not what it was */
				st->stats.bad_desc++;
				vnic_set_cons(st, st->evq_cons + 1);
				continue;
			}
		}
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

/*
 * For src/engine/rebuild.c, when an owner of the stack's lock died in the middle of a change (local_rebuild.c). rx and
 * tx are bit sets of the buffers that pkts refer to: the wire's own state, and what is half in the rings, is brought
 * into line with them. False: they contradict each other.
 */
bool wire_rebuild(struct vnic *v, const uint64_t *rx, const uint64_t *tx);
/* The event taken last is a part of a frame whose end has not been taken. */
bool wire_mid_frame(const struct vnic *v);

#endif
