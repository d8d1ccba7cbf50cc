/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all vNICs have in common: tx buffers, and the handshake by which an end that sleeps gets its doorbell.
 *
 * The doorbell's rule is the one of every sleep and wake-up: the sleeper stores `armed`, then looks at its event
 * queue once more; the other end fills a slot, then looks at `armed`. With a full barrier between the two steps on
 * both sides, at least one of them sees the other. The exchange with 0 makes one sleep cost one doorbell.
 */
#include "vnic/ring.h"
#include "vnic/xdp.h"

void vnic_state_reset(struct vnic_state *st, enum vnic_provider provider, int end, uint32_t tx_count, uint32_t rx_count,
		      uint32_t buf_size)
{
	uint32_t gen = st->gen;

	memset(st, 0, sizeof(*st));
	st->gen = gen;
	st->provider = (uint8_t)provider;
	st->end = (uint8_t)end;
	st->tx_count = tx_count;
	st->rx_count = rx_count;
	st->buf_size = buf_size;
	/* Locally administered addresses; nobody resolves them. */
	st->mac[0] = st->peer_mac[0] = 0x02;
	st->mac[5] = (uint8_t)(end + 1);
	st->peer_mac[5] = (uint8_t)(2 - end);
	for (uint32_t i = 0; i < tx_count; i++)
		st->tx_free[i] = (uint16_t)(tx_count - 1 - i);
	st->free_top = tx_count;
}

int vnic_tx_alloc(struct vnic *v)
{
	struct vnic_state *st = v->st;

	if (!st->free_top) {
		st->stats.tx_no_buffer++;
		return -1;
	}
	uint16_t buf = st->tx_free[--st->free_top];

	st->tx_state[buf] = VNIC_TX_PKT;
	return buf;
}

void vnic_tx_free(struct vnic *v, uint32_t buf)
{
	struct vnic_state *st = v->st;

	if (buf >= st->tx_count || !(st->tx_state[buf] & VNIC_TX_PKT))
		return;
	st->tx_state[buf] &= (uint8_t)~VNIC_TX_PKT;
	if (st->dead) /* nobody will return it */
		st->tx_state[buf] = 0;
	vnic_tx_put(st, buf);
}

bool vnic_pending(const struct vnic *v)
{
	if (v->st->provider == VNIC_PROV_XDP)
		return __atomic_load_n(xdp_arrivals(v->priv), __ATOMIC_RELAXED) !=
		       __atomic_load_n(&v->st->evq_cons, __ATOMIC_RELAXED);
	return vnic_evq_waits(v->evq, v->st, v->st->evq_entries);
}

void vnic_arm(struct vnic *v, uint32_t kind)
{
	if (kind != VNIC_ARMED_NO && v->ops->flush)
		v->ops->flush(v);
	__atomic_store_n(&v->ctrl->armed, kind, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint32_t vnic_take_armed(struct vnic *v)
{
	if (!v->peer_ctrl || __atomic_load_n(&v->st->dead, __ATOMIC_RELAXED) ||
	    !__atomic_load_n(&v->peer_ctrl->armed, __ATOMIC_RELAXED))
		return VNIC_ARMED_NO;

	uint32_t kind = __atomic_exchange_n(&v->peer_ctrl->armed, VNIC_ARMED_NO, __ATOMIC_SEQ_CST);

	if (kind != VNIC_ARMED_THREAD && kind != VNIC_ARMED_HELPER)
		return VNIC_ARMED_NO;
	__atomic_fetch_add(&v->st->stats.doorbells, 1, __ATOMIC_RELAXED);
	return kind;
}
