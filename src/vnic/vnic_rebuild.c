/* SPDX-License-Identifier: BSD-2-Clause */
/* See vnic_rebuild.h. */
#include "vnic/vnic_rebuild.h"

void vnic_forget_return(struct vnic_state *st, uint32_t buf)
{
	for (uint32_t i = 0; i < st->ret_count; i++)
		if (st->ret[i] == buf)
			st->ret[i--] = st->ret[--st->ret_count];
}

bool vnic_rebuild_tx(struct vnic_state *st, const uint64_t *used)
{
	st->free_top = 0;
	for (uint32_t b = st->tx_count; b-- > 0;) {
		if (vnic_set_has(used, b) && !(st->tx_state[b] & VNIC_TX_PKT))
			return false;
		st->tx_state[b] &= VNIC_TX_NIC;
		if (vnic_set_has(used, b))
			st->tx_state[b] |= VNIC_TX_PKT;
		if (st->dead)
			st->tx_state[b] &= (uint8_t)~VNIC_TX_NIC;
		if (!st->tx_state[b])
			st->tx_free[st->free_top++] = (uint16_t)b;
	}
	return true;
}

/* What is in the list of returns is not held, and the list has room. */
static bool settle_returns(struct vnic *v, const uint64_t *used)
{
	struct vnic_state *st = v->st;

	for (uint32_t i = 0; i < st->ret_count; i++) {
		if (st->ret[i] >= st->rx_count || vnic_set_has(used, st->ret[i]))
			return false;
		st->rx_state[st->ret[i]] = 0;
	}
	if (st->ret_count == VNIC_RETURNS)
		v->ops->flush(v);
	return true;
}

bool vnic_rebuild_rx(struct vnic *v, const uint64_t *used, const uint64_t *waiting)
{
	struct vnic_state *st = v->st;
	uint64_t lost[VNIC_SET_WORDS] = {0};

	if (st->ret_count > VNIC_RETURNS || !settle_returns(v, used))
		return false;
	st->rx_held = 0;
	for (uint32_t b = 0; b < st->rx_count; b++) {
		if (vnic_set_has(used, b) && !st->rx_state[b])
			return false;
		if (!st->rx_state[b])
			continue;
		st->rx_state[b] = !vnic_set_has(waiting, b) || vnic_set_has(used, b);
		st->rx_held += st->rx_state[b];
		if (st->rx_state[b] && !vnic_set_has(used, b))
			vnic_set_add(lost, b);
	}
	for (uint32_t b = 0; b < st->rx_count; b++)
		if (vnic_set_has(lost, b))
			v->ops->release(v, b);
	return true;
}
