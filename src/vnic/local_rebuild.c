/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A wire whose own end was left in the middle of a change (src/engine/rebuild.c). What the steps of the data path
 * leave, wherever they stop (wire.h, local.c), besides what vnic_rebuild.h says:
 *
 *   posting      slots are filled, the first of a frame last; then the buffers are marked as with the peer; then the
 *                returns that travelled along are forgotten; then tx_prod moves on. So full slots from tx_prod on say
 *                what was posted, and what they return is not to be returned again.
 *   given back   buffers are no longer marked as with the peer, then evq_cons moves on: what is in the event queue
 *                still is given back once more, so it is marked again; used anew in between it would be lost twice.
 *
 * Positions come from the stack. Rings are memory that the peer can write: what is read there is checked, and can at
 * worst confuse the peer's own wire.
 */
#include "vnic/wire.h"

#define WRITTEN_AHEAD (FRAME_PARTS + VNIC_RETURNS + 1)

/* Slots are filled from behind: those of a frame that did not come to its first one are not to follow another's. */
static void forget_written(struct vnic *v)
{
	for (uint32_t i = 1; i < WRITTEN_AHEAD; i++)
		if (ring_full(v->tx, v->st->tx_prod + i, WIRE_RING))
			__atomic_store_n(&ring_words(v->tx, v->st->tx_prod + i, WIRE_RING)[1], 0, __ATOMIC_RELAXED);
}

/* A buffer is marked before it is posted open: that was the last that happened if its slot is empty. */
static void forget_marked(struct vnic *v)
{
	struct vnic_state *st = v->st;

	if (st->grow_slot == st->tx_prod && st->grow_buf < st->tx_count && !ring_full(v->tx, st->tx_prod, WIRE_RING))
		st->tx_state[st->grow_buf] &= (uint8_t)~VNIC_TX_NIC;
}

/* What was posted and not counted yet. */
static void catch_up(struct vnic *v)
{
	struct vnic_state *st = v->st;
	struct vnic_desc d;

	for (uint32_t left = WIRE_RING; left && ring_read(v->tx, st->tx_prod, WIRE_RING, &d); left--) {
		if (d.type == VNIC_DESC_FRAME && d.buf < st->tx_count &&
		    d.len) /* no length: taken, and marked before */
			st->tx_state[d.buf] |= VNIC_TX_NIC;
		else if (d.type == VNIC_DESC_RETURN)
			vnic_forget_return(st, d.buf);
		st->tx_prod++;
		st->posted++;
	}
	st->grow_len = 0;
	forget_written(v);
}

/* The frame parts that are in the event queue; the buffers that are given back there are with the peer until that is
 * taken. */
static void find_waiting(struct vnic *v, uint64_t *set)
{
	struct vnic_state *st = v->st;
	uint32_t cons = st->evq_cons;
	struct vnic_desc d;

	for (uint32_t left = WIRE_RING; left && ring_read(v->evq, cons, WIRE_RING, &d); left--, cons++)
		if (d.type == VNIC_DESC_FRAME && d.buf < st->rx_count && d.len)
			vnic_set_add(set, d.buf);
		else if (d.type == VNIC_DESC_RETURN && d.buf < st->tx_count)
			st->tx_state[d.buf] |= VNIC_TX_NIC;
}

bool wire_rebuild(struct vnic *v, const uint64_t *rx, const uint64_t *tx)
{
	struct vnic_state *st = v->st;
	uint64_t waiting[VNIC_SET_WORDS] = {0};

	if (st->tx_count != WIRE_BUFS || st->rx_count != WIRE_BUFS || st->ret_count > VNIC_RETURNS)
		return false;
	forget_marked(v);
	catch_up(v);
	find_waiting(v, waiting);
	return vnic_rebuild_tx(st, tx) && vnic_rebuild_rx(v, rx, waiting);
}

bool wire_mid_frame(const struct vnic *v)
{
	uint32_t last = v->st->evq_cons - 1;
	struct vnic_desc d;

	return v->st->evq_cons && ring_read(v->evq, last, WIRE_RING, &d) && d.type == VNIC_DESC_FRAME &&
	       d.flags & VNIC_F_MORE;
}
