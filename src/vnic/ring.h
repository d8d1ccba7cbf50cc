/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ring and buffer bookkeeping that the providers share, inline because it is the data path.
 *
 * A descriptor is read and written as two 64-bit words. The second one holds type, flags, gso_len and turn, so
 * a single store with release order fills a slot and a single load with acquire order tells whether it is full and
 * of what kind; the consumer then takes the first word, once. What it works on is that copy: the other side may
 * change the slot at any moment, and the worst it gets is a descriptor that is refused.
 *
 * Callers hold the stack's lock. Positions and states are in struct vnic_state, which the other side can't reach.
 */
#ifndef VD_RING_H
#define VD_RING_H

#include <string.h>

#include "vnic/vnic.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

/* What follows happens later, should we die in between (vnic_rebuild.h). Costs nothing. */
static inline void vnic_step(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The lap that index idx belongs to, as stored in `turn`: from 1. entries is a power of two. */
static inline uint32_t ring_turn(uint32_t idx, uint32_t entries)
{
	return idx / entries + 1;
}

static inline uint64_t *ring_words(struct vnic_desc *ring, uint32_t idx, uint32_t entries)
{
	return (uint64_t *)(void *)&ring[idx & (entries - 1)];
}

/* True if slot idx is full; *d is then its one and only copy. */
static inline bool ring_read(struct vnic_desc *ring, uint32_t idx, uint32_t entries, struct vnic_desc *d)
{
	uint64_t *slot = ring_words(ring, idx, entries), w[2];

	w[1] = __atomic_load_n(&slot[1], __ATOMIC_ACQUIRE);
	if ((uint32_t)(w[1] >> 32) != ring_turn(idx, entries))
		return false;
	w[0] = __atomic_load_n(&slot[0], __ATOMIC_RELAXED);
	memcpy(d, w, sizeof(*d));
	return true;
}

static inline uint64_t ring_first_word(uint32_t buf, uint32_t off, uint32_t len)
{
	return buf | (uint64_t)off << 32 | (uint64_t)len << 48;
}

/* Slot idx has an open frame, whose descriptor was read: take it. *d is what it came to be. */
static inline void ring_close(struct vnic_desc *ring, uint32_t idx, uint32_t entries, struct vnic_desc *d)
{
	uint64_t word = __atomic_exchange_n(&ring_words(ring, idx, entries)[0], 0, __ATOMIC_ACQ_REL);

	d->buf = (uint32_t)word;
	d->off = (uint16_t)(word >> 32);
	d->len = (uint16_t)(word >> 48);
}

static inline bool ring_full(struct vnic_desc *ring, uint32_t idx, uint32_t entries)
{
	uint64_t *slot = ring_words(ring, idx, entries);

	return (uint32_t)(__atomic_load_n(&slot[1], __ATOMIC_ACQUIRE) >> 32) == ring_turn(idx, entries);
}

/* The event queue's position: changed under the lock, and read without it by who only wants a hint (vnic_evq_waits). */
static inline void vnic_set_cons(struct vnic_state *st, uint32_t cons)
{
	__atomic_store_n(&st->evq_cons, cons, __ATOMIC_RELAXED);
}

/* True if an event waits in a queue of that many entries. Needs no lock: then it is a hint. */
static inline bool vnic_evq_waits(struct vnic_desc *evq, const struct vnic_state *st, uint32_t entries)
{
	return ring_full(evq, __atomic_load_n(&st->evq_cons, __ATOMIC_RELAXED), entries);
}

/* Fill slot idx. A consumer goes in order, so of several slots the first is written last: it sees all or none. */
static inline void ring_write(struct vnic_desc *ring, uint32_t idx, uint32_t entries, const struct vnic_desc *d)
{
	uint64_t *slot = ring_words(ring, idx, entries), w[2];
	struct vnic_desc copy = *d;

	copy.turn = ring_turn(idx, entries);
	memcpy(w, &copy, sizeof(copy));
	__atomic_store_n(&slot[0], w[0], __ATOMIC_RELAXED);
	__atomic_store_n(&slot[1], w[1], __ATOMIC_RELEASE);
}

/* Neither the engine nor the device needs it any more: onto the free list. */
static inline void vnic_tx_put(struct vnic_state *st, uint32_t buf)
{
	if (!st->tx_state[buf])
		st->tx_free[st->free_top++] = (uint16_t)buf;
}

/* The other side says that it has finished with tx buffer buf. */
static inline void vnic_take_return(struct vnic_state *st, uint32_t buf)
{
	if (buf >= st->tx_count || !(st->tx_state[buf] & VNIC_TX_NIC)) {
		st->stats.bad_return += !st->dead; /* what a dead peer had was taken back without it (vnic_tx_free) */
		return;
	}
	st->tx_state[buf] &= (uint8_t)~VNIC_TX_NIC;
	vnic_tx_put(st, buf);
}

/* Check a received frame part; true: it is good and its buffer is now held. */
static inline bool vnic_take_part(struct vnic *v, const struct vnic_desc *d)
{
	struct vnic_state *st = v->st;

	if (d->buf >= st->rx_count || !d->len || (uint32_t)d->off + d->len > st->buf_size) {
		st->stats.bad_desc++;
		return false;
	}
	__builtin_prefetch(vnic_rx_buf(v, d->buf) + d->off);
	if (st->rx_state[d->buf]) {
		st->stats.bad_reuse++;
		return false;
	}
	st->rx_state[d->buf] = 1;
	st->rx_held++;
	return true;
}

/* A held part is not held after all. */
static inline void vnic_drop_part(struct vnic_state *st, uint32_t buf)
{
	st->rx_state[buf] = 0;
	st->rx_held--;
}

/*
 * A held buffer, one of `bufs`, goes to those that the provider gives back (st->ret). In this order: whoever dies on
 * the way leaves it in both places, never in none. True: ret is full, and to be flushed.
 */
static inline bool vnic_let_go(struct vnic_state *st, uint32_t bufs, uint32_t buf)
{
	if (buf >= bufs || !st->rx_state[buf])
		return false;
	st->ret[st->ret_count] = (uint16_t)buf;
	vnic_step();
	st->ret_count++;
	vnic_step();
	vnic_drop_part(st, buf);
	return st->ret_count == VNIC_RETURNS;
}

/* The burst is full in the middle of a frame: take its parts back, to begin with them the next time. */
static inline int vnic_unread(struct vnic_state *st, const struct vnic_desc *ev, int from, int n)
{
	for (int i = from; i < n; i++)
		vnic_drop_part(st, ev[i].buf);
	return from;
}

/* A frame's part, whose descriptor was read from slot idx: if it is open, it is taken. Returns d. */
static inline const struct vnic_desc *take_open(const struct vnic *v, uint32_t idx, uint32_t entries,
						struct vnic_desc *d)
{
	if (v->st->provider != VNIC_PROV_LOCAL || d->flags & VNIC_F_MORE)
		d->flags &= (uint8_t)~VNIC_F_OPEN;
	if (d->flags & VNIC_F_OPEN)
		ring_close(v->evq, idx, entries, d);
	return d;
}

/*
 * The poll of every provider: up to max checked frame parts into ev, returns handled. At most one lap of the
 * ring is looked at, so that no producer can keep us here; an honest one can't have more in it, so a result of 0 means
 * that nothing waited. Whole frames only, unless one has more than max parts. set_flags are added to every part's.
 */
static inline int vnic_take_events(struct vnic *v, struct vnic_desc *ev, int max, uint32_t entries, uint8_t set_flags)
{
	struct vnic_state *st = v->st;
	uint32_t cons = st->evq_cons, frame_cons = cons;
	int n = 0, frame = 0; /* index of the current frame's first part */

	for (uint32_t left = entries; left && ring_read(v->evq, cons, entries, &ev[n]); left--) {
		struct vnic_desc *d = &ev[n];

		cons++;
		if (d->type == VNIC_DESC_RETURN) {
			vnic_take_return(st, d->buf);
		} else if (d->type != VNIC_DESC_FRAME) {
			st->stats.bad_desc++;
		} else if (vnic_take_part(v, take_open(v, cons - 1, entries, d))) {
			d->flags = (d->flags & (VNIC_F_MORE | VNIC_F_OPEN)) | set_flags;
			n++;
			if (!(d->flags & VNIC_F_MORE)) {
				frame = n;
				st->stats.rx_frames++;
			}
		}
		if (frame == n)
			frame_cons = cons; /* behind the returns, too: none is taken twice */
		if (n == max)
			break;
	}
	if (n == max && frame && frame < n) {
		n = vnic_unread(st, ev, frame, n);
		cons = frame_cons;
	}
	vnic_set_cons(st, cons);
	for (int i = 0; i < n; i++)
		st->stats.rx_bytes += ev[i].len;
	return n;
}

/* Set up the parts of a state that do not depend on the provider; the generation survives. */
void vnic_state_reset(struct vnic_state *st, enum vnic_provider provider, int end, uint32_t tx_count, uint32_t rx_count,
		      uint32_t buf_size);

#endif
