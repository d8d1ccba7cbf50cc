/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The buffers of a vNIC whose own end was left in the middle of a change (src/engine/rebuild.c): what providers share
 * (local_rebuild.c, xdp_rebuild.c), each of which first brings state and rings into line.
 *
 * Sets of buffers have a bit for each of VNIC_BUFS_MAX. The order that all providers keep to:
 *
 *   releasing    into the list of returns first, then no longer held: what is in the list is not held.
 *   taking       a buffer is held first, then the position moves on: what is held, and waits to be taken, is not.
 *   all else     a buffer is held, or marked as a pkt's, and no pkt refers to it: it is let go.
 */
#ifndef VD_VNIC_REBUILD_H
#define VD_VNIC_REBUILD_H

#include "vnic/vnic.h"

#define VNIC_SET_WORDS (VNIC_BUFS_MAX / 64)

static inline bool vnic_set_has(const uint64_t *set, uint32_t buf)
{
	return set[buf / 64] >> buf % 64 & 1;
}

static inline void vnic_set_add(uint64_t *set, uint32_t buf)
{
	set[buf / 64] |= 1ull << buf % 64;
}

/* The buffer has gone back to whom it belongs. */
void vnic_forget_return(struct vnic_state *st, uint32_t buf);
/* The free list, and which tx buffers are pkts': those in `used`, and no others. False: one of them is no pkt's. */
bool vnic_rebuild_tx(struct vnic_state *st, const uint64_t *used);
/* Which rx buffers are held: those in `used`; what is held besides and not `waiting` to be taken is released. False:
 * one that is used is not held. */
bool vnic_rebuild_rx(struct vnic *v, const uint64_t *used, const uint64_t *waiting);

#endif
